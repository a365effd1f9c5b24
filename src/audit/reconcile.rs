//! Tells a journal in doubt what the log knows of operations and it does not.

use std::io;
use std::path::Path;

use serde::Deserialize;
use tokio::runtime::Handle;

use super::scan::Held;
use crate::journal::error::StoreError;
use crate::journal::{Journal, JournalError, OpenError, Person, Reader, Reconciled, Remembered};
use crate::net::clock::unix_millis;
use crate::policy::chain::Chain;
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

/// Reads the whole log and tells the journal what it has no memory of. Blocks: call it from a blocking thread, with the
/// runtime that the journal is asked on. Gives what came of it and how many lines were faulty: those are taken all the same,
/// since an operation that is `unknown` without need harms less than one that is forgotten.
///
/// # Errors
/// [`ReconcileError`]: guarded requests are refused as before.
pub fn reconcile(
    log: &Path,
    journal: &Journal,
    person: Person,
    runtime: &Handle,
) -> Result<(Reconciled, u64), ReconcileError> {
    let doubt = Reader::open(journal.path())?.doubt()?;
    let (own, doubt) = doubt.ok_or(ReconcileError::NoDoubt)?;
    // Before the journal is told anything: what it is told goes to the log as well, and may have its file set aside.
    let files = Held::of(log)?;
    let mut all = Reconciled::default();
    let mut steps = Vec::with_capacity(AT_ONCE);
    let mut chain = Chain::new(None);
    let mut tell = |steps: &mut Vec<Remembered>| -> Result<(), JournalError> {
        let told = std::mem::take(steps);
        all = all.and(runtime.block_on(journal.remember(told, unix_millis()))?);
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
            let read = crate::policy::chain::Line::parse(line.bytes).ok();
            let unknown = read
                .filter(|line| line.event == "operation")
                .is_some_and(|line| {
                    line.source
                        .mark()
                        .is_some_and(|mark| doubt.covers(own, mark))
                });
            if !unknown {
                continue;
            }
            let step = serde_json::from_slice(line.bytes).ok();
            steps.extend(step.and_then(Step::read));
            if steps.len() >= AT_ONCE {
                tell(&mut steps)?;
            }
        }
    }
    tell(&mut steps)?;
    runtime.block_on(journal.reconciled(person, unix_millis()))?;
    Ok((all, chain.summary().faults))
}

impl Step {
    fn read(self) -> Option<Remembered> {
        Some(Remembered {
            id: OperationId::parse(&self.id)?,
            bank: self.bank,
            route: self.route,
            state: State::parse(&self.state)?,
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
