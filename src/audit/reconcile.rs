//! Tells a journal in doubt what the log knows of operations and it does not.

use std::io;
use std::path::Path;

use serde::Deserialize;
use tokio::runtime::Handle;

use super::scan::Held;
use crate::journal::error::StoreError;
use crate::journal::{
    Doubt, Journal, JournalError, OpenError, Person, Reader, Reconciled, Remembered,
};
use crate::net::clock::unix_millis;
use crate::policy::chain::{Chain, Line, Source, Summary};
use crate::policy::operation::{Digest, OperationId, State, UnixMillis};
use crate::policy::signature::parse_rfc3339;

/// Steps that the journal is told at a time.
const AT_ONCE: usize = 256;

/// Why the journal is in doubt as before.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// It was in no doubt.
    #[error("the journal knows everything that the audit log knows: there is nothing to reconcile")]
    NoDoubt,
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Log(#[from] io::Error),
    /// The journal cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
    /// The log may not know every operation.
    #[error(
        "the audit log may not know every operation: {what}. What it has was taken over, and guarded requests are refused as \
         before. It knows since {from}: put back what is missing, or compare with the bank's list from before that, and say \
         `priorgate operations reconcile --incomplete`"
    )]
    Incomplete {
        /// What is missing.
        what: String,
        /// The time of its first record.
        from: String,
    },
    /// The journal cannot be written. What was told before is there; doing it again does no harm.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// An operation's record, as the outbox writes it.
#[derive(Deserialize)]
struct Step {
    at: String,
    id: String,
    bank: String,
    route: String,
    state: String,
    #[serde(default)]
    delivered: bool,
    attempt: i64,
    uid: Option<u32>,
    #[serde(default)]
    request_id: String,
    key: String,
    fingerprint: String,
    subject: Option<String>,
    #[serde(default)]
    pointers: String,
}

/// A record that says that others are not here.
#[derive(Deserialize)]
struct Gap {
    lost: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the journal was told.
    pub told: Reconciled,
    /// Lines that are faulty. They are taken all the same, as far as they can be read: an operation that is `unknown`
    /// without need harms less than one that is forgotten.
    pub faults: u64,
    /// The time of the log's first record.
    pub from: String,
    /// What of the log is missing, if the person was content with that.
    pub missing: Option<String>,
}

/// Reads the whole log and tells the journal what it has no memory of. Blocks: call it from a blocking thread, with the
/// runtime that the journal is asked on. `incomplete`: the person is content with a log that may not know everything.
///
/// # Errors
/// [`ReconcileError`]: guarded requests are refused as before.
pub fn reconcile(
    log: &Path,
    journal: &Journal,
    incomplete: bool,
    person: Person,
    runtime: &Handle,
) -> Result<Outcome, ReconcileError> {
    let doubt = Reader::open(journal.path())?.doubt()?;
    let (own, doubt) = doubt.ok_or(ReconcileError::NoDoubt)?;
    // Before the journal is told anything: what it is told goes to the log as well, and may have its file set aside.
    let files = Held::of(log)?;
    let mut told = Reconciled::default();
    let mut steps = Vec::with_capacity(AT_ONCE);
    let mut chain = Chain::new(None);
    let mut seen = Seen::default();
    let mut tell = |steps: &mut Vec<Remembered>| -> Result<(), JournalError> {
        let known = std::mem::take(steps);
        told = told.and(runtime.block_on(journal.remember(known, unix_millis()))?);
        Ok(())
    };
    for file in files.files() {
        let (mut lines, live) = file?;
        while let Some(line) = lines.next()? {
            if live && line.unfinished {
                // Being written: of after the start, which repairs what was not finished before it.
                break;
            }
            // A fault is counted by the chain.
            let _ = chain.take(line.bytes);
            let Ok(read) = Line::parse(line.bytes) else {
                continue;
            };
            seen.note(&read, line.bytes, own, &doubt);
            let covered = |mark| doubt.covers(own, mark);
            if read.event != "operation" || !read.source.mark().is_some_and(covered) {
                continue;
            }
            match serde_json::from_slice(line.bytes).ok().and_then(Step::read) {
                Some(step) => steps.push(step),
                None => seen.unreadable += 1,
            }
            if steps.len() >= AT_ONCE {
                tell(&mut steps)?;
            }
        }
    }
    tell(&mut steps)?;
    let summary = chain.summary();
    let from = summary.first_at.clone();
    let missing = seen.missing(&doubt, summary);
    if let (Some(what), false) = (&missing, incomplete) {
        return Err(ReconcileError::Incomplete {
            what: what.clone(),
            from,
        });
    }
    let partly = missing.is_some();
    runtime.block_on(journal.reconciled(partly, person, unix_millis()))?;
    Ok(Outcome {
        told,
        faults: summary.faults,
        from,
        missing,
    })
}

/// What of the log was there, as far as the doubt needs it.
#[derive(Default)]
struct Seen {
    /// Rows of this journal that the doubt is about, and the last of them.
    rows: i64,
    last: i64,
    /// The record of this journal's row that the log had not, once.
    found: bool,
    /// The log says that rows of a journal are not in it.
    lost: bool,
    /// Operations that are not to be made out.
    unreadable: u64,
}

impl Seen {
    fn note(&mut self, line: &Line, bytes: &[u8], own: u64, doubt: &Doubt) {
        self.lost |= line.event == "gap"
            && serde_json::from_slice::<Gap>(bytes)
                .is_ok_and(|gap| matches!(&*gap.lost, "journal rows" | "records"));
        let Source::Row(mark) = line.source else {
            return;
        };
        if mark.journal != own {
            return;
        }
        self.found |= doubt.absent == Some(mark.row);
        // What was written again after the file was taken away counts once.
        if doubt.covers(own, mark) && mark.row > self.last {
            self.rows = self.rows.saturating_add(1);
            self.last = mark.row;
        }
    }

    /// Why operations may be unknown to the log: for a person, who decides.
    fn missing(&self, doubt: &Doubt, summary: &Summary) -> Option<String> {
        if summary.records == 0 {
            return Some("the log is empty".to_owned());
        }
        if summary.faults > 0 || self.unreadable > 0 {
            let lines = summary.faults.saturating_add(self.unreadable);
            return Some(format!(
                "{lines} lines are faulty or missing (see `priorgate audit verify`)"
            ));
        }
        if doubt.behind_signer {
            return Some(
                "the keyholder has signed a later end of it: it is an old copy".to_owned(),
            );
        }
        if doubt.absent.is_some() && !self.found {
            return Some("it is not the one that this journal was written beside".to_owned());
        }
        let rows = doubt
            .rows
            .map_or(0, |(after, upto)| upto.saturating_sub(after));
        if self.rows < rows {
            let rows = rows - self.rows;
            return Some(format!("{rows} records of this journal are not in it"));
        }
        // Of a journal of which nothing is left everything is needed, from its first day on.
        if doubt.foreign && summary.first != Some(1) {
            return Some("its beginning was ended (audit.keep) or is missing".to_owned());
        }
        if doubt.foreign && self.lost {
            return Some("it has a gap".to_owned());
        }
        None
    }
}

impl Step {
    fn read(self) -> Option<Remembered> {
        Some(Remembered {
            id: OperationId::parse(&self.id)?,
            bank: self.bank,
            route: self.route,
            state: State::parse(&self.state)?,
            delivered: self.delivered,
            attempt: self.attempt,
            uid: self.uid,
            request_id: self.request_id,
            key: Digest::parse(&self.key)?,
            fingerprint: Digest::parse(&self.fingerprint)?,
            subject: match &self.subject {
                Some(subject) => Some(Digest::parse(subject)?),
                None => None,
            },
            pointers: self.pointers,
            at: parse_rfc3339(&self.at).unwrap_or(UnixMillis(0)),
        })
    }
}
