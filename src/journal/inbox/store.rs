//! The statements of the inbox. Each runs inside a transaction of the writer's.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, named_params};

use super::judge::{QUEUED, before, is_still_wanted, judge_held, supersede};
use super::turn::{self, Session, Tried};
use super::{Accepted, Claim, Event, EventId, Fate, Settle};
use crate::journal::UnixMillis;
use crate::journal::error::JournalError;
use crate::journal::outbox;
use crate::policy::status::{self, Mark, Policy, Status, Transition};

/// Events that a claim may look at and put aside (held, superseded) before it gives up for this time.
const PUT_ASIDE: usize = 16;

/// The condition on `state` is a literal: with a parameter SQLite would not use the partial index.
pub(super) const DUE: &str = "SELECT row FROM callback WHERE state = 'head' AND next_at <= ?1 AND source = ?2 ORDER BY next_at LIMIT 1";

impl ToSql for Status {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Mark {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Mark {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "expected" => Ok(Self::Expected),
            "conflict" => Ok(Self::Conflict),
            "stale" => Ok(Self::Stale),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A session: the one that the body names, or, without a name, the event's own. The names cannot meet: one has a prefix.
fn session_of(event: &Event) -> String {
    match &event.session {
        Some(session) => format!("s:{session}"),
        None => format!("e:{}:{}", event.event, event.body_hash),
    }
}

pub(super) fn accept(
    connection: &Connection,
    event: &Event,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<Accepted> {
    let session = session_of(event);
    if let Some(known) = known(connection, event, &session, now)? {
        let (EventId(row), change) = match known {
            Accepted::Repeated(id) => (id, "repeated"),
            Accepted::Repeat(id) | Accepted::New { id, .. } => (id, "repeat"),
        };
        outbox::callback(connection, row, change, now)?;
        return Ok(known);
    }
    let same_id = connection
        .prepare_cached("SELECT 1 FROM callback INDEXED BY callback_event WHERE source = ?1 AND event = ?2 AND state <> 'repeated' LIMIT 1")?
        .exists((&event.source, &event.event))?;
    let before = before(connection, &event.source, &session, QUEUED)?;
    let transition = match event.status {
        Some(status) => status::judge(policy, before, status),
        None => Transition::Deliver(Mark::Expected),
    };
    let (state, mark, fate) = match transition {
        Transition::Deliver(Mark::Expected) if same_id => ("waiting", Mark::Conflict, Fate::Queued),
        Transition::Deliver(mark) => ("waiting", mark, Fate::Queued),
        Transition::Hold => ("held", Mark::Stale, Fate::Held),
        Transition::Supersede => ("superseded", Mark::Stale, Fate::Superseded),
    };
    let ended = (fate == Fate::Superseded).then_some(now.0);
    connection
        .prepare_cached(
            "INSERT INTO callback (source, event, body_hash, session, session_known, status, key_id, content_type, mark,
             state, received_at, next_at, ended_at)
             VALUES (:source, :event, :hash, :session, :known, :status, :key, :type, :mark, :state, :now, :now, :ended)",
        )?
        .execute(named_params! {
            ":source": event.source, ":event": event.event, ":hash": event.body_hash, ":session": session,
            ":known": event.session.is_some(), ":status": event.status, ":key": event.key_id,
            ":type": event.content_type, ":mark": mark, ":state": state, ":now": now.0, ":ended": ended,
        })?;
    let row = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO callback_body (callback, body) VALUES (?1, ?2)")?
        .execute((row, &event.body[..]))?;
    outbox::callback(connection, row, "accepted", now)?;
    if let (Fate::Queued, Some(status), Policy::Hold) = (fate, event.status, policy) {
        supersede(connection, &event.source, &session, row, status, now)?;
    }
    let session = Session {
        source: &event.source,
        session: &session,
    };
    turn::choose(connection, session, None)?;
    turn::wake(connection, session, now)?;
    Ok(Accepted::New {
        id: EventId(row),
        mark,
        fate,
    })
}

/// The same event with the same body, if it came before.
fn known(
    connection: &Connection,
    event: &Event,
    session: &str,
    now: UnixMillis,
) -> rusqlite::Result<Option<Accepted>> {
    let row: Option<i64> = connection
        .prepare_cached(
            "UPDATE callback SET times_received = times_received + 1
             WHERE source = ?1 AND event = ?2 AND body_hash = ?3 AND state <> 'repeated' RETURNING row",
        )?
        .query_row((&event.source, &event.event, event.body_hash), |row| row.get(0))
        .optional()?;
    let Some(row) = row else {
        return Ok(None);
    };
    let latest: i64 = connection
        .prepare_cached(
            "SELECT max(row) FROM callback WHERE source = ?1 AND session = ?2 AND state <> 'repeated'",
        )?
        .query_row((&event.source, session), |row| row.get(0))?;
    if latest == row {
        return Ok(Some(Accepted::Repeat(EventId(row))));
    }
    // Not delivered again: the shop has later news. One row for all of them, however often it comes.
    connection
        .prepare_cached(
            "INSERT INTO callback (source, event, body_hash, session, session_known, status, key_id, content_type, mark,
             state, received_at, next_at, ended_at)
             SELECT source, event, body_hash, session, session_known, status, key_id, content_type, 'stale', 'repeated',
             ?1, ?1, ?1 FROM callback WHERE row = ?2
             ON CONFLICT (source, event, body_hash) WHERE state = 'repeated'
             DO UPDATE SET times_received = times_received + 1, ended_at = ?1",
        )?
        .execute((now.0, row))?;
    Ok(Some(Accepted::Repeated(EventId(row))))
}

pub(super) fn claim(
    connection: &Connection,
    source: &str,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<Option<Claim>> {
    for _ in 0..PUT_ASIDE {
        let due = connection
            .prepare_cached(DUE)?
            .query_row((now.0, source), |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(row) = due else {
            return Ok(None);
        };
        if is_still_wanted(connection, row, policy, now)? {
            return take(connection, row).map(Some);
        }
    }
    Ok(None)
}

fn take(connection: &Connection, row: i64) -> rusqlite::Result<Claim> {
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'claimed', attempts = attempts + 1 WHERE row = ?1",
        )?
        .execute([row])?;
    connection
        .prepare_cached(
            "SELECT source, event, body_hash, session, session_known, status, key_id, content_type, mark, attempts,
             received_at, refused_since, body FROM callback JOIN callback_body ON callback = row WHERE row = ?1",
        )?
        .query_row([row], |found| {
            let session: String = found.get("session")?;
            let session_known: bool = found.get("session_known")?;
            Ok(Claim {
                id: EventId(row),
                attempt: found.get("attempts")?,
                mark: found.get("mark")?,
                received_at: UnixMillis(found.get("received_at")?),
                refused_since: found
                    .get::<_, Option<i64>>("refused_since")?
                    .map(UnixMillis),
                session_known,
                event: Event {
                    source: found.get("source")?,
                    event: found.get("event")?,
                    body_hash: found.get("body_hash")?,
                    session: session.strip_prefix("s:").map(str::to_owned),
                    status: found.get("status")?,
                    key_id: found.get("key_id")?,
                    content_type: found.get("content_type")?,
                    body: Bytes::from(found.get::<_, Vec<u8>>("body")?),
                },
            })
        })
}

pub(super) fn next_due(
    connection: &Connection,
    source: &str,
) -> rusqlite::Result<Option<UnixMillis>> {
    connection
        .prepare_cached(
            "SELECT next_at FROM callback WHERE state = 'head' AND source = ?1 ORDER BY next_at LIMIT 1",
        )?
        .query_row([source], |row| row.get(0).map(UnixMillis))
        .optional()
}

pub(super) fn settle(
    connection: &Connection,
    id: EventId,
    attempt: i64,
    settle: &Settle,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    let (state, ended) = match settle {
        Settle::Delivered => ("delivered", Some(now.0)),
        Settle::Retry { .. } => ("waiting", None),
        Settle::Dead { .. } => ("dead", Some(now.0)),
    };
    let error = match settle {
        Settle::Delivered => None,
        Settle::Retry { error, .. } | Settle::Dead { error, .. } => Some(error),
    };
    let session: Option<(String, String)> = connection
        .prepare_cached(
            "UPDATE callback SET state = ?1, ended_at = ?2, last_error = ?3
             WHERE row = ?4 AND attempts = ?5 AND state = 'claimed' RETURNING source, session",
        )?
        .query_row((state, ended, error, id.0, attempt), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((source, session)) = session else {
        return Ok(Err(JournalError::Stale));
    };
    let change = match settle {
        Settle::Delivered => "delivered",
        Settle::Retry { .. } => "not_delivered",
        Settle::Dead { .. } => "dead",
    };
    outbox::callback(connection, id.0, change, now)?;
    let name = Session {
        source: &source,
        session: &session,
    };
    let free = match settle {
        Settle::Delivered => {
            judge_held(connection, &source, &session, policy, now)?;
            return turn::choose(connection, name, None).map(Ok);
        }
        Settle::Dead { free, .. } => free,
        Settle::Retry {
            at,
            free,
            refused,
            let_next,
            ..
        } => {
            connection
                .prepare_cached(
                    "UPDATE callback SET next_at = max(?1, ?2), earliest_at = ?2, let_past = ?3, refused_since =
                     CASE WHEN ?4 THEN coalesce(refused_since, ?5) ELSE refused_since END WHERE row = ?6",
                )?
                .execute((at.0, free.0, let_next, refused, now.0, id.0))?;
            free
        }
    };
    let tried = Tried {
        row: id.0,
        free: *free.max(&now),
    };
    turn::choose(connection, name, Some(tried)).map(Ok)
}

/// Claims of the last process: nobody knows whether the shop got them, so they are delivered again, but not while it may
/// still be busy with them.
pub(in crate::journal) fn restart(
    connection: &Connection,
    now: UnixMillis,
    after_timeout: Duration,
) -> rusqlite::Result<usize> {
    let free = now.0.saturating_add(millis(after_timeout));
    connection.execute(
        "UPDATE callback SET state = 'head', next_at = max(next_at, ?1), earliest_at = max(earliest_at, ?1) WHERE state = 'claimed'",
        [free],
    )
}

/// After the clock went back by `step`, and at the start of a process: nothing waits for a time further off than `longest`.
pub(super) fn pull_in(
    connection: &Connection,
    source: &str,
    now: UnixMillis,
    step: Duration,
    longest: Duration,
) -> rusqlite::Result<usize> {
    let (step, furthest) = (millis(step), now.0.saturating_add(millis(longest)));
    connection
        .prepare_cached(
            "UPDATE callback INDEXED BY callback_open
             SET next_at = min(next_at - ?1, ?2), earliest_at = min(earliest_at - ?1, ?2)
             WHERE state IN ('waiting', 'head') AND source = ?3 AND ended_at IS NULL
             AND (?1 > 0 OR next_at > ?2 OR earliest_at > ?2)",
        )?
        .execute((step, furthest, source))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Callbacks whose events are still to be delivered or judged, and how many.
pub(in crate::journal) fn open_sources(
    connection: &Connection,
) -> rusqlite::Result<Vec<(String, u64)>> {
    connection
        .prepare(
            "SELECT source, count(*) FROM callback INDEXED BY callback_open WHERE ended_at IS NULL GROUP BY source",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}
