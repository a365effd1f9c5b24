//! The audit log's chain: the exact bytes of a record, what its hash covers, and what a checkpoint signs.
//!
//! Bytes in, bytes out; files and threads are `audit/`'s. docs/audit.md says the same for whoever verifies a log with a
//! program of their own: change one only with the other, and only for a new format.

mod fields;
mod key;
mod link;
mod record;
mod time;
mod verify;

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

use super::operation::{Digest, UnixMillis};

pub use fields::Fields;
pub use key::{CheckpointKey, Vouched};
pub use verify::{Chain, Fault, Line, Summary, TAIL_RECORDS, TAIL_SECONDS};

/// What the first record of all is chained to.
pub const GENESIS: Digest = Digest([0; 32]);
/// The longest line. A record of ours stays below 4 KiB; what is longer is no record.
pub const LINE_MAX: usize = 16 << 10;
/// What a line ends with after its last member: `,"hash":"`, 64 digits, `"}`.
pub const TAIL: usize = 9 + 64 + 2;
/// What a checkpoint's message begins with: a signature over it can be nothing else.
pub const DOMAIN: &[u8] = b"priorgate audit checkpoint v2\0";

/// The last record of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tip {
    /// Its number. The first record is 1.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Tip {
    /// Before the first record.
    pub const GENESIS: Self = Self {
        seq: 0,
        hash: GENESIS,
    };
}

/// A place in a journal's outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Which journal.
    pub journal: u64,
    /// The number of the outbox's row.
    pub row: i64,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// It is this row of the journal's outbox.
    Row(Mark),
    /// It is the gate's own; this row was the last one before it.
    After(Mark),
    /// It is the gate's own, and there was no journal yet.
    NoJournal,
}

impl Source {
    /// How far the journal is in the log with this record.
    #[must_use]
    pub fn mark(self) -> Option<Mark> {
        match self {
            Self::Row(mark) | Self::After(mark) => Some(mark),
            Self::NoJournal => None,
        }
    }
}

/// Appends a record's line, line break included, and gives the new end of the chain.
pub fn seal(
    out: &mut Vec<u8>,
    tip: Tip,
    at: UnixMillis,
    boot: &str,
    source: Source,
    fields: &Fields,
) -> Tip {
    let seq = tip.seq.saturating_add(1);
    let mut line = format!("{{\"seq\":{seq},\"at\":\"{}\",\"boot\":", time::text(at));
    fields::quoted(&mut line, boot);
    let (journal, name, row) = match source {
        Source::Row(mark) => (Some(mark.journal), "row", mark.row),
        Source::After(mark) => (Some(mark.journal), "after", mark.row),
        Source::NoJournal => (None, "after", 0),
    };
    // Writing into a string cannot fail.
    let _ = match journal {
        Some(journal) => write!(line, ",\"journal\":\"{journal:016x}\",\"{name}\":{row}"),
        None => write!(line, ",\"journal\":null,\"{name}\":{row}"),
    };
    let _ = write!(line, ",{},\"prev\":\"{}\"}}", fields.as_str(), tip.hash);
    let hash = hash(tip.hash, line.as_bytes());
    line.pop();
    let _ = writeln!(line, ",\"hash\":\"{hash}\"}}");
    out.extend_from_slice(line.as_bytes());
    Tip { seq, hash }
}

/// SHA-256 of the previous hash's 32 bytes and of the line without its hash.
fn hash(prev: Digest, line: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(prev.0);
    hash.update(line);
    Digest(hash.finalize().into())
}

/// What the signer signs for a checkpoint: see [`DOMAIN`]; numbers are big-endian.
#[must_use]
pub fn checkpoint_message(vouched: &Vouched) -> Vec<u8> {
    let mut message = Vec::with_capacity(DOMAIN.len() + 96);
    message.extend_from_slice(DOMAIN);
    message.extend_from_slice(&vouched.tip.seq.to_be_bytes());
    message.extend_from_slice(&vouched.tip.hash.0);
    message.extend_from_slice(&vouched.at.to_be_bytes());
    message.extend_from_slice(&vouched.signatures.to_be_bytes());
    message.extend_from_slice(&vouched.before.seq.to_be_bytes());
    message.extend_from_slice(&vouched.before.hash.0);
    message
}

#[cfg(test)]
mod tests;
