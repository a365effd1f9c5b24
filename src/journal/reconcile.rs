//! Takes from the audit log what this journal does not know: operations that the bank may have become `unknown` here, and a
//! person asks the bank about each. The log has hashes, and hashes are what keys, requests and subjects are told by.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::error::JournalError;
use super::writer::Class;
use super::{Journal, Person, Reader, UnixMillis, hand, outbox, witness};
use crate::journal::error::StoreError;
use crate::policy::operation::{Digest, OperationId, Standing, State};

/// What an operation has for a code that was taken from the audit log.
const CODE: &str = "reconciled";
/// The same where the log says, further on, that the operation was done and its answer delivered: it depends on nothing that
/// is configured, or the configuration could not have been changed since.
const FINISHED: &str = "reconciled_done";
/// What a person did who was content with a part of the log.
const INCOMPLETE: &str = "reconciled with an incomplete log";

/// A step of an operation, as the audit log has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remembered {
    /// Its name.
    pub id: OperationId,
    /// The bank's name.
    pub bank: String,
    /// The route's.
    pub route: String,
    /// The state that the step led to.
    pub state: State,
    /// Its answer was handed to a caller.
    pub delivered: bool,
    /// Which attempt it was.
    pub attempt: i64,
    /// The caller.
    pub uid: Option<u32>,
    /// The request.
    pub request_id: String,
    /// Stands in for the key.
    pub key: Digest,
    /// Of the request.
    pub fingerprint: Digest,
    /// Stands in for the subject.
    pub subject: Option<Digest>,
    /// Where the subject stood.
    pub pointers: String,
    /// When.
    pub at: UnixMillis,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reconciled {
    /// Operations that the journal did not have.
    pub added: u64,
    /// Operations that the journal had, as what may run again.
    pub changed: u64,
    /// Operations that the log says, further on, had not been done.
    pub ended: u64,
}

impl Reconciled {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            added: self.added.saturating_add(other.added),
            changed: self.changed.saturating_add(other.changed),
            ended: self.ended.saturating_add(other.ended),
        }
    }
}

impl Reader {
    /// Why guarded requests are refused: what the audit log knows and this journal does not; and who this journal is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn doubt(&self) -> Result<Option<(u64, witness::Doubt)>, StoreError> {
        let Some(doubt) = witness::doubt(self.connection())? else {
            return Ok(None);
        };
        let (own, _) = witness::identity(self.connection())?;
        Ok(Some((own, doubt)))
    }
}

impl Journal {
    /// Takes steps of operations from the audit log, in the log's order.
    ///
    /// # Errors
    /// [`JournalError`]: none of them was taken.
    pub async fn remember(
        &self,
        steps: Vec<Remembered>,
        now: UnixMillis,
    ) -> Result<Reconciled, JournalError> {
        let process = self.process().to_owned();
        let bytes = steps.len().saturating_mul(512);
        let (reconciled, _) = self
            .call("remember", Class::Settles, bytes, None, move |connection| {
                let mut all = Reconciled::default();
                for step in &steps {
                    take(connection, step, &process, now, &mut all)?;
                }
                Ok(all)
            })
            .await?;
        Ok(reconciled)
    }

    /// The log was taken: guarded requests run again. `incomplete` is what of it is not there, where a person says that they
    /// run all the same.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn reconciled(
        &self,
        incomplete: bool,
        person: Person,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let what = if incomplete { INCOMPLETE } else { CODE };
        self.call("reconciled", Class::Settles, 64, None, move |connection| {
            witness::dispel(connection)?;
            hand::note(connection, None, what, &person, now)?;
            outbox::command(connection, what, "", &person, now)
        })
        .await
        .map(drop)
    }

    /// The keyholder says that it has signed a later end of a log than this one's: guarded requests are refused from now on.
    /// Whether that is news.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn behind_signer(&self) -> Result<bool, JournalError> {
        self.call("behind_signer", Class::Settles, 64, None, |connection| {
            witness::behind_signer(connection)
        })
        .await
        .map(|(news, _)| news)
    }

    /// The keyholder signs again.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn signed_again(&self) -> Result<(), JournalError> {
        self.call("signed_again", Class::Settles, 64, None, |connection| {
            witness::signed_again(connection)
        })
        .await
        .map(drop)
    }
}

fn take(
    connection: &Connection,
    step: &Remembered,
    process: &str,
    now: UnixMillis,
    all: &mut Reconciled,
) -> rusqlite::Result<()> {
    let known: Option<(i64, State, Option<String>)> = connection
        .prepare_cached("SELECT row, state, code FROM operation WHERE bank = ?1 AND key_hash = ?2")?
        .query_row((&step.bank, step.key), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    // `reserved` as well: that it went on may be what was lost.
    let may_be_done = match step.state {
        State::Reserved | State::Sent | State::Done | State::Unknown => true,
        State::Refused | State::NotSent => false,
    };
    match known {
        None if may_be_done => {
            let row = insert(connection, step, process)?;
            all.added = all.added.saturating_add(1);
            outbox::operation(connection, row, now)
        }
        Some((row, State::NotSent | State::Refused, _)) if may_be_done => {
            doubt(connection, row, step)?;
            all.changed = all.changed.saturating_add(1);
            outbox::operation(connection, row, now)
        }
        Some((row, State::Unknown, Some(was))) if may_be_done && is_ours(&was) => connection
            .prepare_cached("UPDATE operation SET code = ?1 WHERE row = ?2")?
            .execute((code(step), row))
            .map(drop),
        Some((row, State::Unknown, Some(was))) if is_ours(&was) => {
            connection
                .prepare_cached("UPDATE operation SET state = ?1, holds = 0 WHERE row = ?2")?
                .execute((step.state, row))?;
            all.ended = all.ended.saturating_add(1);
            outbox::operation(connection, row, now)?;
            next_holder(connection, row)
        }
        // What the journal says is at least as much.
        None | Some(_) => Ok(()),
    }
}

fn code(step: &Remembered) -> &'static str {
    if step.state == State::Done && step.delivered {
        FINISHED
    } else {
        CODE
    }
}

fn is_ours(code: &str) -> bool {
    code == CODE || code == FINISHED
}

/// Whether an `unknown` operation may hold its subject: another one may hold it already. Then it waits in line, and
/// [`next_holder`] lets it up; its key is taken all the same.
fn holds(connection: &Connection, step: &Remembered, row: i64) -> rusqlite::Result<bool> {
    let Some(subject) = step.subject else {
        return Ok(true);
    };
    let held = connection
        .prepare_cached(
            "SELECT 1 FROM operation WHERE bank = ?1 AND subject_hash = ?2 AND subject_hash IS NOT NULL AND holds = 1
             AND row <> ?3",
        )?
        .exists((&step.bank, subject, row))?;
    Ok(!held)
}

fn insert(connection: &Connection, step: &Remembered, process: &str) -> rusqlite::Result<i64> {
    let unknown = Standing::plain(State::Unknown);
    let holds = holds(connection, step, 0)?;
    connection
        .prepare_cached(
            "INSERT INTO operation (id, bank, route, key_hash, fingerprint, subject_hash, subject_pointers, state, listening,
             delivered, holds, attempt, process, reserved_at, sent_at, ended_at, code, uid, request_id)
             VALUES (:id, :bank, :route, :key, :fingerprint, :subject, :pointers, :state, 0, 0, :holds, :attempt, :process,
             :at, :at, :at, :code, :uid, :request_id)",
        )?
        .execute(named_params! {
            ":id": step.id.to_string(), ":bank": step.bank, ":route": step.route, ":key": step.key,
            ":fingerprint": step.fingerprint, ":subject": step.subject, ":pointers": pointers(step),
            ":state": unknown.state, ":holds": holds, ":attempt": step.attempt, ":process": process, ":at": step.at.0,
            ":code": code(step), ":uid": step.uid, ":request_id": step.request_id,
        })?;
    Ok(connection.last_insert_rowid())
}

fn doubt(connection: &Connection, row: i64, step: &Remembered) -> rusqlite::Result<()> {
    let holds = holds(connection, step, row)?;
    connection
        .prepare_cached(
            "UPDATE operation SET state = 'unknown', listening = 0, delivered = 0, holds = :holds, fingerprint = :fingerprint,
             subject_hash = :subject, subject_pointers = :pointers, attempt = max(attempt, :attempt), sent_at = :at,
             ended_at = :at, code = :code, status = NULL WHERE row = :row",
        )?
        .execute(named_params! {
            ":holds": holds, ":fingerprint": step.fingerprint, ":subject": step.subject, ":pointers": pointers(step),
            ":attempt": step.attempt, ":at": step.at.0, ":code": code(step), ":row": row,
        })?;
    connection
        .prepare_cached("DELETE FROM answer WHERE operation = ?1")?
        .execute([row])
        .map(drop)
}

fn pointers(step: &Remembered) -> Option<&str> {
    step.subject.is_some().then_some(step.pointers.as_str())
}

/// The subject of the operation in `row` may be free: an `unknown` one that waits for it in line holds it from now on.
pub(super) fn next_holder(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE operation SET holds = 1 WHERE row =
             (SELECT min(waiting.row) FROM operation AS waiting JOIN operation AS was ON was.row = ?1
              WHERE waiting.bank = was.bank AND waiting.subject_hash = was.subject_hash AND waiting.state = 'unknown'
              AND waiting.holds = 0 AND NOT EXISTS (SELECT 1 FROM operation AS holder WHERE holder.bank = was.bank
              AND holder.subject_hash = was.subject_hash AND holder.subject_hash IS NOT NULL AND holder.holds = 1))",
        )?
        .execute([row])
        .map(drop)
}
