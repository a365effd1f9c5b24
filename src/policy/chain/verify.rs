//! Verifying a chain, a line at a time, with what was signed in it. Memory does not grow with the log.
//!
//! It goes on after a fault from what the faulty line says of itself, so that one run tells all of them. What can only
//! be judged at the end (what is missing before the first record, what nobody signed after the last signature) is
//! [`Chain::end`].

use super::link::Links;
use super::record::Record;
use super::{CheckpointKey, Source, TAIL, Tip, Vouched, hash};
use crate::policy::operation::Digest;

/// Records after the last signature that a healthy log may end with: the gate has it signed after 100, and what one look
/// of its writer takes comes on top.
pub const TAIL_RECORDS: u64 = 300;
/// Seconds from the first to the last of them: the gate has it signed after 60, and a busy signer has twice that.
pub const TAIL_SECONDS: i64 = 120;
/// Words of the refusal that only a log that was cut back can get: of `keyproto::Refused::NotLater`, as records have it.
const NOT_LATER: &str = "signed before";

/// What is wrong with a line, or with the whole.
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
    /// A signature by a key that was not given.
    #[error("signed by another key than those that were given")]
    OtherKey,
    /// A signature by a key after another one had taken its place.
    #[error("forged: signed by a key that another one had replaced before")]
    ReplacedKey,
    /// The signer had signed another history.
    #[error(
        "rewritten: the signer had signed record {0} with another hash than here, or one that is not here, before it \
         signed this checkpoint"
    )]
    Rewritten(u64),
    /// The signer refused, since it had signed a later record.
    #[error("cut back: the signer had signed a later record than this before")]
    CutBack,
    /// Records before the first one are gone, and no signed record says that their time was over.
    #[error(
        "deleted: records 1 to {0} are not here, and no signed `ended` record says that audit.keep ended them"
    )]
    Beginning(u64),
    /// More at the end than a healthy log leaves unsigned.
    #[error(
        "the last {records} records, of {seconds} seconds, have no signature after them: more than a signer that works leaves. \
         If the gate was just started or is busy, verify again in two minutes"
    )]
    Tail {
        /// How many.
        records: u64,
        /// From the first to the last.
        seconds: i64,
    },
    /// No record at all.
    #[error("no record: {0}")]
    Malformed(String),
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
    /// What the last of them vouches for.
    pub covered: Option<Vouched>,
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
    keys: Option<&'k [CheckpointKey]>,
    links: Links,
    summary: Summary,
    /// Where the key of the last signature stands among the keys, and those that it replaced.
    current: Option<usize>,
    replaced: Vec<usize>,
    /// The record before the first one, as the first one names it.
    before_first: Option<Tip>,
    /// An `ended` record that says that everything before the first record is gone: its number.
    ended: Option<u64>,
    /// Seconds of the first record after the last signature, and of the last one.
    tail: Option<(i64, i64)>,
}

impl Line {
    /// Reads a line without its line break; what it says of itself is not verified.
    ///
    /// # Errors
    /// Why it is no record.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        Record::read(line).map(|record| Self::of(&record))
    }

    fn of(record: &Record<'_>) -> Self {
        Self {
            tip: record.tip,
            at: record.at.to_owned(),
            event: record.event.to_owned(),
            source: record.source,
        }
    }
}

impl<'k> Chain<'k> {
    /// Begins; without keys signatures are not looked at, and nothing is proved against whoever can write the files.
    #[must_use]
    pub fn new(keys: Option<&'k [CheckpointKey]>) -> Self {
        Self {
            keys,
            links: Links::default(),
            summary: Summary::default(),
            current: None,
            replaced: Vec::new(),
            before_first: None,
            ended: None,
            tail: None,
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Takes the next line, without its line break.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Line, Fault> {
        let record = match Record::read(bytes) {
            Ok(record) => record,
            Err(reason) => {
                self.summary.faults += 1;
                return Err(Fault::Malformed(reason));
            }
        };
        let judged = self.judge(bytes, &record);
        let line = Line::of(&record);
        let summary = &mut self.summary;
        summary.records += 1;
        if summary.first.is_none() {
            summary.first = Some(line.tip.seq);
            summary.first_at.clone_from(&line.at);
        }
        summary.last = Some(line.tip);
        summary.last_at.clone_from(&line.at);
        summary.gaps += u64::from(line.event == "gap");
        self.links.push(line.tip);
        match judged {
            Ok(()) => Ok(line),
            Err(fault) => {
                summary.faults += 1;
                Err(fault)
            }
        }
    }

    /// What is wrong with the whole, once every line was taken.
    #[must_use]
    pub fn end(&self) -> Vec<Fault> {
        let mut found = Vec::new();
        let summary = &self.summary;
        let covered = summary.covered.map_or(0, |vouched| vouched.tip.seq);
        if let Some(before) = self.before_first.filter(|before| before.seq > 0) {
            let signed = |ended| self.keys.is_none() || ended <= covered;
            if !self.ended.is_some_and(signed) {
                found.push(Fault::Beginning(before.seq));
            }
        }
        if let (Some(_), Some((first, last))) = (self.keys, self.tail) {
            let (records, seconds) = (self.uncovered(), last.saturating_sub(first));
            if records > TAIL_RECORDS || seconds > TAIL_SECONDS {
                found.push(Fault::Tail { records, seconds });
            }
        }
        found
    }

    /// Records after the last signature, without the checkpoint that holds it.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        let last = self.summary.last.map_or(0, |tip| tip.seq);
        let holder = self
            .summary
            .covered
            .map_or(0, |vouched| vouched.tip.seq + 1);
        last.saturating_sub(holder)
    }

    fn judge(&mut self, bytes: &[u8], record: &Record<'_>) -> Result<(), Fault> {
        let (found, prev) = (record.tip.seq, record.prev);
        if !is_whole(bytes, prev, record.tip.hash) {
            return Err(Fault::Edited);
        }
        // Without a record before it, it says itself what it is chained to; the first of all is chained to nothing.
        let before = match self.summary.last {
            Some(tip) => tip,
            None if found <= 1 => Tip::GENESIS,
            None => Tip {
                seq: found - 1,
                hash: prev,
            },
        };
        if self.before_first.is_none() {
            self.before_first = Some(before);
            self.links.begin(before);
        }
        let expected = before.seq.saturating_add(1);
        if found > expected {
            return Err(Fault::Missing(expected, found - 1));
        }
        if found < expected {
            return Err(Fault::OutOfOrder { found, expected });
        }
        if prev != before.hash {
            return Err(Fault::Unchained);
        }
        let gone = self.before_first.map(|before| before.seq);
        if record.event == "ended" && record.number("last") == gone {
            self.ended.get_or_insert(found);
        }
        let signed = record.event == "checkpoint" && self.checkpoint(before, record)?;
        self.tail = match self.tail {
            _ if signed => None,
            None => Some((record.second, record.second)),
            Some((first, _)) => Some((first, record.second)),
        };
        Ok(())
    }

    /// Whether it is signed.
    fn checkpoint(&mut self, of: Tip, record: &Record<'_>) -> Result<bool, Fault> {
        if (record.number("of"), record.digest("head")) != (Some(of.seq), Some(of.hash)) {
            return Err(Fault::Misplaced);
        }
        if record.member("signature").is_none() {
            self.summary.unsigned.get_or_insert(record.tip.seq);
            let why = record.text("unsigned").unwrap_or_default();
            return match self.keys {
                Some(_) if why.contains(NOT_LATER) => Err(Fault::CutBack),
                _ => Ok(false),
            };
        }
        let (vouched, signature) = vouched(of, record).ok_or(Fault::Forged)?;
        if let Some(keys) = self.keys {
            let id = record.text("key_id").unwrap_or_default();
            let place = keys.iter().position(|key| key.id() == id);
            let key = place.and_then(|place| keys.get(place));
            if !key.ok_or(Fault::OtherKey)?.fits(&vouched, &signature) {
                return Err(Fault::Forged);
            }
            if self.current != place {
                // A key that was stolen is replaced: it vouches for nothing any more.
                if place.is_some_and(|place| self.replaced.contains(&place)) {
                    return Err(Fault::ReplacedKey);
                }
                self.replaced.extend(self.current);
                self.current = place;
            }
            if !self.links.reach(vouched.before) {
                return Err(Fault::Rewritten(vouched.before.seq));
            }
        }
        self.links.signed(of);
        self.summary.signed += 1;
        self.summary.covered = Some(vouched);
        self.summary.unsigned = None;
        Ok(true)
    }
}

fn vouched(tip: Tip, record: &Record<'_>) -> Option<(Vouched, Vec<u8>)> {
    let vouched = Vouched {
        tip,
        at: record.number("signed_at")?,
        signatures: record.number("signatures")?,
        before: Tip {
            seq: record.number("before")?,
            hash: record.digest("before_head")?,
        },
    };
    let (a, b) = record.text("signature")?.split_at_checked(64)?;
    let signature = [Digest::parse(a)?.0, Digest::parse(b)?.0].concat();
    Some((vouched, signature))
}

/// Whether a line ends as ours do and is what its hash was made of.
fn is_whole(line: &[u8], prev: Digest, claimed: Digest) -> bool {
    let Some(body) = line.len().checked_sub(TAIL).and_then(|end| line.get(..end)) else {
        return false;
    };
    let mut whole = body.to_vec();
    whole.push(b'}');
    hash(prev, &whole) == claimed
}
