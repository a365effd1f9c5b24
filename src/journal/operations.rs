//! The statements of the once guard. Each runs inside a transaction of the writer's; the decisions are `policy/operation`'s.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params};

use super::codec::{answer, header_lines};
use super::error::JournalError;
use super::{Dependency, Request, StoredAnswer, inbox, outbox, reconcile, witness};
use crate::policy::operation::decide::DUPLICATE_WITHIN;
use crate::policy::operation::{
    Asked, Closed, Decision, Digest, Event, Known, OperationId, Situation, Standing, State,
    UnixMillis, decide,
};

/// What is written without anybody waiting for it: with the next batch, or within a second.
#[derive(Clone, Debug)]
pub(super) enum Afterthought {
    /// An attempt ended: its task was dropped, or the disk was full when it wanted to say so.
    Settle(Ending),
    /// An answer was handed to a caller.
    Delivered(OperationId, UnixMillis),
}

impl Afterthought {
    /// That an attempt ended, and no more. `None` if this says so already, or says nothing of an attempt.
    pub(super) fn ended(self) -> Option<Self> {
        match self {
            Self::Settle(ending) if ending.event != Event::Restart => Some(Self::Settle(Ending {
                event: Event::Restart,
                answer: None,
                ..ending
            })),
            Self::Settle(_) | Self::Delivered(..) => None,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) row: i64,
    pub(super) attempt: i64,
    pub(super) event: Event,
    pub(super) code: Option<&'static str>,
    pub(super) answer: Option<StoredAnswer>,
    pub(super) at: UnixMillis,
}

/// What a reservation came to.
pub(super) enum Reserved {
    Run {
        row: i64,
        attempt: i64,
        id: OperationId,
    },
    Replay(Known, Option<StoredAnswer>),
    Refuse(crate::policy::operation::Refusal),
}

/// What was open when the process started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Restarted {
    pub(super) not_sent: u64,
    pub(super) unknown: u64,
}

/// Operations that hold their subject.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holding {
    pub(super) open: u64,
    pub(super) unknown: u64,
    pub(super) undelivered: u64,
    pub(super) frozen: bool,
    pub(super) doubted: bool,
}

const KNOWN: &str = "row, id, state, listening, delivered, fingerprint, attempt";

pub(super) struct Found {
    pub(super) row: i64,
    attempt: i64,
    known: Known,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        row: row.get("row")?,
        attempt: row.get("attempt")?,
        known: Known {
            id: row.get("id")?,
            standing: Standing {
                state: row.get("state")?,
                listening: row.get("listening")?,
                delivered: row.get("delivered")?,
            },
            fingerprint: row.get("fingerprint")?,
        },
    })
}

/// Decides about a request and takes its key, in one transaction: the unique indexes decide races.
pub(super) fn reserve(
    connection: &Connection,
    request: &Request,
    fresh: OperationId,
    process: &str,
    now: UnixMillis,
) -> rusqlite::Result<Reserved> {
    let own = own(connection, &request.bank, request.key)?;
    let own_row = own.as_ref().map_or(0, |own| own.row);
    let subject = request.subject.as_ref();
    let holder = match subject {
        None => None,
        Some(subject) => connection
            .prepare_cached(&format!(
                "SELECT {KNOWN} FROM operation WHERE bank = ?1 AND subject_hash = ?2 AND subject_hash IS NOT NULL
                 AND holds = 1 AND row <> ?3"
            ))?
            .query_row((&request.bank, subject.hash, own_row), found)
            .optional()?,
    };
    let twin = connection
        .prepare_cached(&format!(
            "SELECT {KNOWN} FROM operation WHERE bank = ?1 AND fingerprint = ?2 AND ended_at >= ?3 AND state = 'done'
             AND row <> ?4 ORDER BY ended_at DESC LIMIT 1"
        ))?
        .query_row(
            (
                &request.bank,
                request.fingerprint,
                now.before(DUPLICATE_WITHIN).0,
                own_row,
            ),
            found,
        )
        .optional()?;
    let situation = Situation {
        closed: closed(connection)?,
        own: own.as_ref().map(|own| own.known),
        holder: holder.map(|holder| holder.known),
        twin: twin.map(|twin| twin.known),
    };
    let asked = Asked {
        fingerprint: request.fingerprint,
        repeat: request.repeat,
    };
    match decide(&asked, &situation) {
        Decision::Refuse(refusal) => Ok(Reserved::Refuse(refusal)),
        Decision::Replay(known) => Ok(Reserved::Replay(known, answer(connection, own_row)?)),
        Decision::Run => take(connection, request, own, fresh, process, now),
    }
}

fn own(connection: &Connection, bank: &str, key: Digest) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(&format!(
            "SELECT {KNOWN} FROM operation WHERE bank = ?1 AND key_hash = ?2"
        ))?
        .query_row((bank, key), found)
        .optional()
}

/// The operation under a key, with its row.
pub(super) fn under_key(
    connection: &Connection,
    bank: &str,
    key: Digest,
) -> rusqlite::Result<Option<(i64, Known)>> {
    Ok(own(connection, bank, key)?.map(|own| (own.row, own.known)))
}

fn take(
    connection: &Connection,
    request: &Request,
    own: Option<Found>,
    fresh: OperationId,
    process: &str,
    now: UnixMillis,
) -> rusqlite::Result<Reserved> {
    let subject = request.subject.as_ref();
    let hash = subject.map(|subject| subject.hash);
    let pointers = subject.map(|subject| &subject.pointers);
    let text = subject.map(|subject| &subject.text);
    // `decide` has said that it may; the table of steps has the last word.
    let next = own.as_ref().map_or(Some(Standing::NEW), |own| {
        own.known.standing.after(Event::Reserve)
    });
    let Some(next) = next else {
        return Err(rusqlite::Error::InvalidQuery);
    };
    let holds = next.holds();
    let (row, attempt, id) = match own {
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO operation (id, bank, route, key_hash, fingerprint, subject_hash, subject_pointers, subject, state,
                     listening, delivered, holds, attempt, process, reserved_at, uid, request_id)
                     VALUES (:id, :bank, :route, :key, :fingerprint, :hash, :pointers, :subject, :state, 0, 0, :holds, 1, :process,
                     :now, :uid, :request_id)",
                )?
                .execute(named_params! {
                    ":id": fresh.to_string(), ":bank": request.bank, ":route": request.route, ":key": request.key,
                    ":fingerprint": request.fingerprint, ":hash": hash, ":pointers": pointers,
                    ":subject": text, ":state": next.state, ":holds": holds, ":process": process, ":now": now.0,
                    ":uid": request.uid, ":request_id": request.request_id,
                })?;
            (connection.last_insert_rowid(), 1, fresh)
        }
        Some(own) => {
            let attempt = own.attempt.saturating_add(1);
            connection
                .prepare_cached(
                    "UPDATE operation SET route = :route, subject_hash = :hash, subject_pointers = :pointers,
                     subject = :subject, state = :state,
                     listening = 0, delivered = 0, holds = :holds, attempt = :attempt, process = :process,
                     reserved_at = :now, sent_at = NULL, ended_at = NULL, code = NULL, status = NULL, uid = :uid,
                     request_id = :request_id WHERE row = :row",
                )?
                .execute(named_params! {
                    ":route": request.route, ":hash": hash, ":pointers": pointers, ":subject": text,
                    ":state": next.state,
                    ":holds": holds, ":attempt": attempt, ":process": process, ":now": now.0, ":uid": request.uid,
                    ":request_id": request.request_id, ":row": own.row,
                })?;
            connection
                .prepare_cached("DELETE FROM answer WHERE operation = ?1")?
                .execute([own.row])?;
            (own.row, attempt, own.known.id)
        }
    };
    outbox::operation(connection, row, now)?;
    Ok(Reserved::Run { row, attempt, id })
}

/// The last word before the first byte.
pub(super) fn mark_sent(
    connection: &Connection,
    row: i64,
    attempt: i64,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    // Frozen while it connected: nothing is sent any more.
    if is_frozen(connection)? {
        return Ok(Err(JournalError::Closed(Closed::Frozen)));
    }
    step(
        connection,
        row,
        Some(attempt),
        Event::Sent,
        now,
        |found, next| {
            connection
                .prepare_cached(
                    "UPDATE operation SET state = ?1, holds = ?2, sent_at = ?3 WHERE row = ?4",
                )?
                .execute((next.state, next.holds(), now.0, found.row))
        },
    )
    .map(|result| result.map(|_| ()))
}

/// How an attempt ended. Gives the state that it led to.
pub(super) fn finish(
    connection: &Connection,
    ending: &Ending,
) -> rusqlite::Result<Result<State, JournalError>> {
    let row = ending.row;
    step(
        connection,
        row,
        Some(ending.attempt),
        ending.event,
        ending.at,
        |_, next| {
            store(
                connection,
                row,
                next,
                ending.code,
                ending.answer.as_ref(),
                ending.at,
            )
        },
    )
}

pub(super) fn store(
    connection: &Connection,
    row: i64,
    next: Standing,
    code: Option<&str>,
    answer: Option<&StoredAnswer>,
    at: UnixMillis,
) -> rusqlite::Result<usize> {
    let status = answer.map(|answer| answer.status.as_u16());
    let changed = connection
        .prepare_cached(
            // What is done and about nothing keeps nobody off.
            "UPDATE operation SET state = ?1, listening = ?2, delivered = ?3,
             holds = ?4 AND (subject_hash IS NOT NULL OR ?1 <> 'done'), ended_at = ?5, code = ?6, status = ?7
             WHERE row = ?8",
        )?
        .execute((
            next.state,
            next.listening,
            next.delivered,
            next.holds(),
            at.0,
            code,
            status,
            row,
        ))?;
    if let Some(answer) = answer {
        connection
            .prepare_cached(
                "INSERT INTO answer (operation, status, headers, body) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (operation) DO UPDATE SET status = excluded.status, headers = excluded.headers,
                 body = excluded.body",
            )?
            .execute((
                row,
                answer.status.as_u16(),
                header_lines(&answer.headers),
                &answer.body[..],
            ))?;
    }
    Ok(changed)
}

pub(super) fn afterwards(
    connection: &Connection,
    afterthought: &Afterthought,
) -> rusqlite::Result<()> {
    match afterthought {
        // A step that does not exist any more was taken by somebody else: a person, or the attempt itself.
        Afterthought::Settle(ending) => finish(connection, ending).map(drop),
        Afterthought::Delivered(id, at) => {
            let Some(row) = row_of(connection, *id)? else {
                return Ok(());
            };
            step(
                connection,
                row,
                None,
                Event::Delivered,
                *at,
                |found, next| set_delivered(connection, found.row, next),
            )
            .map(drop)
        }
    }
}

pub(super) fn set_delivered(
    connection: &Connection,
    row: i64,
    next: Standing,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("UPDATE operation SET delivered = ?1, holds = ?2 WHERE row = ?3")?
        .execute((next.delivered, next.holds(), row))
}

/// Why no guarded request may run now. What the journal may not know of comes before what somebody did.
fn closed(connection: &Connection) -> rusqlite::Result<Option<Closed>> {
    if witness::is_doubted(connection)? {
        return Ok(Some(Closed::Doubted));
    }
    if is_frozen(connection)? {
        return Ok(Some(Closed::Frozen));
    }
    let behind = outbox::is_enabled(connection)? && outbox::is_full(connection)?;
    Ok(behind.then_some(Closed::AuditBehind))
}

pub(super) fn is_frozen(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM setting WHERE name = 'frozen'")?
        .exists([])
}

/// What the last process left open.
pub(super) fn restart(
    connection: &mut Connection,
    process: &str,
    now: UnixMillis,
    after_timeout: Duration,
) -> rusqlite::Result<Restarted> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut restarted = Restarted::default();
    {
        let mut open = tx.prepare(&format!(
            "SELECT {KNOWN} FROM operation WHERE holds = 1 AND (state IN ('reserved', 'sent') OR listening = 1)
             AND process <> ?1"
        ))?;
        let open = open
            .query_map([process], found)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for operation in open {
            let Some(next) = operation.known.standing.after(Event::Restart) else {
                continue;
            };
            match (operation.known.standing.state, next.state) {
                (State::Reserved, _) => restarted.not_sent += 1,
                (State::Sent, _) => restarted.unknown += 1,
                _ => {}
            }
            tx.execute(
                "UPDATE operation SET state = ?1, listening = ?2, holds = ?3, code = 'gate_stopped',
                 ended_at = coalesce(ended_at, ?4) WHERE row = ?5",
                (next.state, next.listening, next.holds(), now.0, operation.row),
            )?;
            outbox::operation(&tx, operation.row, now)?;
        }
    }
    inbox::store::restart(&tx, now, after_timeout)?;
    tx.commit()?;
    Ok(restarted)
}

pub(super) fn holding(connection: &Connection) -> rusqlite::Result<Holding> {
    let mut holding = Holding {
        frozen: is_frozen(connection)?,
        doubted: witness::is_doubted(connection)?,
        ..Holding::default()
    };
    let mut statement = connection
        .prepare_cached("SELECT state, count(*) FROM operation WHERE holds = 1 GROUP BY state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match row.get(0)? {
            State::Reserved | State::Sent => holding.open += count,
            State::Unknown => holding.unknown += count,
            State::Done => holding.undelivered += count,
            State::Refused | State::NotSent => {}
        }
    }
    Ok(holding)
}

/// What open operations depend on: which banks, and by which pointers their subjects were found.
pub(super) fn dependencies(connection: &Connection) -> rusqlite::Result<Vec<Dependency>> {
    connection
        .prepare_cached(
            // What was done and delivered before the journal was lost held nothing then.
            "SELECT bank, subject_pointers, count(*), min(id) FROM operation WHERE holds = 1
             AND code IS NOT 'reconciled_done' GROUP BY bank, subject_pointers",
        )?
        .query_map([], |row| {
            Ok(Dependency {
                bank: row.get(0)?,
                pointers: row.get(1)?,
                operations: row.get::<_, i64>(2)?.unsigned_abs(),
                first: row.get(3)?,
            })
        })?
        .collect()
}

/// Forgets what ended before `before`: at most `limit` of it. Nothing that holds its subject is ever forgotten.
pub(super) fn purge(
    connection: &Connection,
    before: UnixMillis,
    limit: u32,
    now: UnixMillis,
) -> rusqlite::Result<usize> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM operation WHERE row IN
             (SELECT row FROM operation WHERE holds = 0 AND ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
        )?
        .execute((before.0, limit))?;
    outbox::forgotten(connection, forgotten, now)?;
    Ok(forgotten)
}

/// Loads, asks the policy, and lets `change` write; nothing is written for a step that does not exist.
pub(super) fn step(
    connection: &Connection,
    row: i64,
    attempt: Option<i64>,
    event: Event,
    at: UnixMillis,
    change: impl FnOnce(&Found, Standing) -> rusqlite::Result<usize>,
) -> rusqlite::Result<Result<State, JournalError>> {
    let found = connection
        .prepare_cached(&format!("SELECT {KNOWN} FROM operation WHERE row = ?1"))?
        .query_row([row], found)
        .optional()?;
    let Some(found) = found else {
        return Ok(Err(JournalError::NotFound));
    };
    if attempt.is_some_and(|attempt| attempt != found.attempt) {
        return Ok(Err(JournalError::Stale));
    }
    let standing = found.known.standing;
    let Some(next) = standing.after(event) else {
        return Ok(Err(match attempt {
            Some(_) => JournalError::Stale,
            None => JournalError::Forbidden((standing.state, standing.listening)),
        }));
    };
    change(&found, next)?;
    // An answer that is replayed is delivered again, which changes nothing.
    if next != standing {
        outbox::operation(connection, row, at)?;
    }
    if standing.holds() && !next.holds() {
        reconcile::next_holder(connection, row)?;
    }
    Ok(Ok(next.state))
}

pub(super) fn row_of(connection: &Connection, id: OperationId) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT row FROM operation WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()
}
