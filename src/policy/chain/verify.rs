//! Verifying a chain, a line at a time: nothing is kept but where it stands.
//!
//! It goes on after a fault from what the faulty line says of itself, so that one run tells all of them.

use serde::Deserialize;

use super::{LINE_MAX, Mark, Source, TAIL, Tip, checkpoint_message, hash};
use crate::policy::operation::Digest;
use crate::policy::signature::{Fit, PublicKey};

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Its content is not what its hash was made of.
    #[error("edited: the line is not what its hash was made of")]
    Edited,
    /// Records are gone.
    #[error("deleted: record{} missing before this line", if .0 == .1 { format!(" {} is", .0) } else { format!("s {} to {} are", .0, .1) })]
    Missing(u64, u64),
    /// A record that was here already, or that belongs further up.
    #[error("out of order: record {found} where {expected} was expected (swapped, or copied here)")]
    OutOfOrder {
        /// Its number.
        found: u64,
        /// The number that was due.
        expected: u64,
    },
    /// The right number behind another record than the one it was chained to.
    #[error(
        "replaced: this record is not chained to the one before it, so one of the two is not the original"
    )]
    Unchained,
    /// A checkpoint of another chain.
    #[error("replaced: the checkpoint is of another record or another hash than the one before it")]
    Misplaced,
    /// A signature that does not fit.
    #[error("forged: the signature of the checkpoint does not fit the public key")]
    Forged,
    /// No record at all.
    #[error("no record: {0}")]
    Malformed(String),
}

/// A signed checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The last record that it covers.
    pub seq: u64,
    /// The signer's clock, in milliseconds since 1970.
    pub at: u64,
    /// How many signatures of any kind the signer had made.
    pub signatures: u64,
}

/// A line that was read, faulty or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// Where the chain is with it.
    pub tip: Tip,
    /// Its time, as it is written.
    pub at: String,
    /// What happened.
    pub event: String,
    /// Where it came from.
    pub source: Source,
}

/// What was found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Lines that are records.
    pub records: u64,
    /// The first record.
    pub first: Option<u64>,
    /// Its time.
    pub first_at: String,
    /// The last record.
    pub last: Option<Tip>,
    /// Its time.
    pub last_at: String,
    /// Checkpoints whose signature fits; without a key, those that have one.
    pub signed: u64,
    /// The last of them.
    pub covered: Option<Checkpoint>,
    /// The first checkpoint after that which has no signature.
    pub unsigned: Option<u64>,
    /// Records that say that others were lost.
    pub gaps: u64,
    /// Lines that are wrong.
    pub faults: u64,
}

/// A chain that is being verified.
#[derive(Debug)]
pub struct Chain<'k> {
    key: Option<&'k PublicKey>,
    tip: Option<Tip>,
    summary: Summary,
}

#[derive(Deserialize)]
struct Raw {
    seq: u64,
    at: String,
    journal: Option<String>,
    row: Option<i64>,
    after: Option<i64>,
    event: String,
    prev: String,
    hash: String,
    of: Option<u64>,
    head: Option<String>,
    signed_at: Option<u64>,
    signatures: Option<u64>,
    signature: Option<String>,
}

impl Line {
    /// Reads a line without its line break; what it says of itself is not verified.
    ///
    /// # Errors
    /// Why it is no record.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        raw(line).and_then(|raw| raw.line()).map(|(line, _)| line)
    }
}

fn raw(line: &[u8]) -> Result<Raw, String> {
    if line.len() > LINE_MAX {
        return Err(format!("it is longer than {LINE_MAX} bytes"));
    }
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

impl Raw {
    fn line(self) -> Result<(Line, Self), String> {
        let digest =
            |text: &str| Digest::parse(text).ok_or_else(|| "a hash has 64 digits".to_owned());
        let source = match (&self.journal, self.row, self.after) {
            (Some(journal), row, after) => {
                let journal = u64::from_str_radix(journal, 16)
                    .map_err(|_| "journal has 16 hexadecimal digits".to_owned())?;
                let mark = |row| Mark { journal, row };
                match (row, after) {
                    (Some(row), None) => Source::Row(mark(row)),
                    (None, Some(row)) => Source::After(mark(row)),
                    _ => return Err("one of row and after is needed".to_owned()),
                }
            }
            (None, ..) => Source::NoJournal,
        };
        let line = Line {
            tip: Tip {
                seq: self.seq,
                hash: digest(&self.hash)?,
            },
            at: self.at.clone(),
            event: self.event.clone(),
            source,
        };
        Ok((line, self))
    }

    /// `None` for what has no signature; `Err` for what is no checkpoint of `of`.
    fn checkpoint(&self, of: Tip) -> Result<Option<(Checkpoint, Vec<u8>)>, Fault> {
        let head = self.head.as_deref().and_then(Digest::parse);
        if (self.of, head) != (Some(of.seq), Some(of.hash)) {
            return Err(Fault::Misplaced);
        }
        let Some(signature) = &self.signature else {
            return Ok(None);
        };
        let signature = hex(signature).ok_or(Fault::Forged)?;
        let (Some(at), Some(signatures)) = (self.signed_at, self.signatures) else {
            return Err(Fault::Forged);
        };
        let checkpoint = Checkpoint {
            seq: of.seq,
            at,
            signatures,
        };
        Ok(Some((checkpoint, signature)))
    }
}

impl<'k> Chain<'k> {
    /// Begins; without a key signatures are not looked at, and nothing is proved against whoever can write the files.
    #[must_use]
    pub fn new(key: Option<&'k PublicKey>) -> Self {
        Self {
            key,
            tip: None,
            summary: Summary::default(),
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Takes the next line, without its line break.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Line, Fault> {
        let (line, raw) = match raw(bytes).and_then(Raw::line) {
            Ok(read) => read,
            Err(reason) => {
                self.summary.faults += 1;
                return Err(Fault::Malformed(reason));
            }
        };
        let judged = self.judge(bytes, &line, &raw);
        let summary = &mut self.summary;
        summary.records += 1;
        if summary.first.is_none() {
            summary.first = Some(line.tip.seq);
            summary.first_at.clone_from(&line.at);
        }
        summary.last = Some(line.tip);
        summary.last_at.clone_from(&line.at);
        summary.gaps += u64::from(line.event == "gap");
        self.tip = Some(line.tip);
        match judged {
            Ok(()) => Ok(line),
            Err(fault) => {
                summary.faults += 1;
                Err(fault)
            }
        }
    }

    fn judge(&mut self, bytes: &[u8], line: &Line, raw: &Raw) -> Result<(), Fault> {
        let prev = Digest::parse(&raw.prev)
            .ok_or_else(|| Fault::Malformed("a hash has 64 digits".to_owned()))?;
        if !is_whole(bytes, prev, line.tip.hash) {
            return Err(Fault::Edited);
        }
        // Without a record before it, it says itself what it is chained to; the first of all is chained to nothing.
        let before = match self.tip {
            Some(tip) => tip,
            None if line.tip.seq == 1 => Tip::GENESIS,
            None => Tip {
                seq: line.tip.seq.saturating_sub(1),
                hash: prev,
            },
        };
        let expected = before.seq.saturating_add(1);
        let found = line.tip.seq;
        if found > expected {
            return Err(Fault::Missing(expected, found - 1));
        }
        if found < expected {
            return Err(Fault::OutOfOrder { found, expected });
        }
        if prev != before.hash {
            return Err(Fault::Unchained);
        }
        if line.event == "checkpoint" {
            self.checkpoint(before, raw)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, of: Tip, raw: &Raw) -> Result<(), Fault> {
        let Some((checkpoint, signature)) = raw.checkpoint(of)? else {
            self.summary.unsigned.get_or_insert(raw.seq);
            return Ok(());
        };
        if let Some(key) = self.key {
            let message = checkpoint_message(of, checkpoint.at, checkpoint.signatures);
            if key.verify(&message, &signature) != Fit::Fits {
                return Err(Fault::Forged);
            }
        }
        self.summary.signed += 1;
        self.summary.covered = Some(checkpoint);
        self.summary.unsigned = None;
        Ok(())
    }
}

/// Whether a line ends as ours do and is what its hash was made of.
fn is_whole(line: &[u8], prev: Digest, claimed: Digest) -> bool {
    let Some(body) = line.len().checked_sub(TAIL).and_then(|end| line.get(..end)) else {
        return false;
    };
    let tail = format!(",\"hash\":\"{claimed}\"}}");
    if line.get(body.len()..) != Some(tail.as_bytes()) {
        return false;
    }
    let mut whole = body.to_vec();
    whole.push(b'}');
    hash(prev, &whole) == claimed
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !text.len().is_multiple_of(2) || !text.bytes().all(lower) {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
