//! The statements of the inbox. Each runs inside a transaction of the writer's.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Accepted, Claim, Event, EventId, Fate, Settle};
use crate::journal::error::JournalError;
use crate::journal::{Person, UnixMillis, outbox};
use crate::policy::status::{self, Before, Mark, Policy, Status, Transition};

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
        .prepare_cached("SELECT 1 FROM callback WHERE source = ?1 AND event = ?2 LIMIT 1")?
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
    if fate == Fate::Queued {
        if let Some(status) = event.status {
            supersede(connection, &event.source, &session, row, status, now)?;
        }
        judge_held(connection, &event.source, &session, policy, now)?;
    }
    promote(connection, &event.source, &session)?;
    wake(connection, &event.source, &session, now)?;
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

/// Which earlier events count.
const QUEUED: &str = "state IN ('waiting', 'head', 'claimed', 'delivered')";
const DELIVERED: &str = "state = 'delivered'";

fn before(
    connection: &Connection,
    source: &str,
    session: &str,
    counted: &str,
) -> rusqlite::Result<Before> {
    let last = connection
        .prepare_cached(&format!(
            "SELECT status FROM callback WHERE source = ?1 AND session = ?2 AND status IS NOT NULL AND {counted}
             ORDER BY row DESC LIMIT 1"
        ))?
        .query_row((source, session), |row| row.get(0))
        .optional()?;
    let refund_delivered = connection
        .prepare_cached(
            "SELECT 1 FROM callback WHERE source = ?1 AND session = ?2 AND status = 'REFUNDED' AND state = 'delivered'",
        )?
        .exists((source, session))?;
    Ok(Before {
        last,
        refund_delivered,
    })
}

/// Queued events that a later one makes pointless. One that is being delivered is not touched.
fn supersede(
    connection: &Connection,
    source: &str,
    session: &str,
    row: i64,
    later: Status,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    for queued in Status::ALL {
        if !status::is_superseded(queued, later) {
            continue;
        }
        let gone = connection
            .prepare_cached(
                "UPDATE callback SET state = 'superseded', ended_at = ?1 WHERE source = ?2 AND session = ?3 AND status = ?4
                 AND state IN ('waiting', 'head') AND row <> ?5 RETURNING row",
            )?
            .query_map((now.0, source, session, queued, row), |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        for row in gone {
            outbox::callback(connection, row, "superseded", now)?;
        }
    }
    Ok(())
}

/// Held events may be no contradiction any more.
fn judge_held(
    connection: &Connection,
    source: &str,
    session: &str,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let mut held = connection.prepare_cached(
        "SELECT row, status FROM callback WHERE source = ?1 AND session = ?2 AND state = 'held' ORDER BY row",
    )?;
    let held = held
        .query_map((source, session), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Status>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (row, status) in held {
        let before = before(connection, source, session, QUEUED)?;
        if let Transition::Deliver(mark) = status::judge(policy, before, status) {
            connection
                .prepare_cached("UPDATE callback SET state = 'waiting', mark = ?1 WHERE row = ?2")?
                .execute((mark, row))?;
            outbox::callback(connection, row, "queued", now)?;
        }
    }
    Ok(())
}

/// Makes the oldest waiting event of a session its head, if the session has none.
fn promote(connection: &Connection, source: &str, session: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'head' WHERE row =
             (SELECT min(row) FROM callback WHERE source = ?1 AND session = ?2 AND state = 'waiting')
             AND NOT EXISTS (SELECT 1 FROM callback WHERE source = ?1 AND session = ?2 AND state IN ('head', 'claimed'))",
        )?
        .execute((source, session))
        .map(drop)
}

/// A new event wakes its session's head, but not before the shop may have finished with it.
fn wake(
    connection: &Connection,
    source: &str,
    session: &str,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE callback SET next_at = min(next_at, max(?1, earliest_at))
             WHERE source = ?2 AND session = ?3 AND state = 'head'",
        )?
        .execute((now.0, source, session))
        .map(drop)
}

pub(super) fn claim(
    connection: &Connection,
    source: &str,
    policy: Policy,
    now: UnixMillis,
    lease: Duration,
) -> rusqlite::Result<Option<Claim>> {
    // A lease that ended belongs to nobody.
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'head', next_at = ?1 WHERE state = 'claimed' AND lease_until < ?1",
        )?
        .execute([now.0])?;
    for _ in 0..PUT_ASIDE {
        let due = connection
            .prepare_cached(DUE)?
            .query_row((now.0, source), |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(row) = due else {
            return Ok(None);
        };
        if is_still_wanted(connection, row, policy, now)? {
            return take(connection, row, now, lease).map(Some);
        }
    }
    Ok(None)
}

/// Judges the event again, now that its turn has come, by what the shop has. Puts it aside if it is a contradiction by now.
fn is_still_wanted(
    connection: &Connection,
    row: i64,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<bool> {
    let (source, session, status, released): (String, String, Option<Status>, bool) = connection
        .prepare_cached("SELECT source, session, status, released FROM callback WHERE row = ?1")?
        .query_row([row], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    let Some(status) = status.filter(|_| !released) else {
        return Ok(true);
    };
    let before = before(connection, &source, &session, DELIVERED)?;
    let (state, ended) = match status::judge(policy, before, status) {
        Transition::Deliver(_) => return Ok(true),
        Transition::Hold => ("held", None),
        Transition::Supersede => ("superseded", Some(now.0)),
    };
    connection
        .prepare_cached(
            "UPDATE callback SET state = ?1, mark = 'stale', ended_at = ?2 WHERE row = ?3",
        )?
        .execute((state, ended, row))?;
    outbox::callback(connection, row, state, now)?;
    promote(connection, &source, &session)?;
    Ok(false)
}

fn take(
    connection: &Connection,
    row: i64,
    now: UnixMillis,
    lease: Duration,
) -> rusqlite::Result<Claim> {
    let until = now
        .0
        .saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'claimed', attempts = attempts + 1, lease_until = ?1 WHERE row = ?2",
        )?
        .execute((until, row))?;
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
    let head: Option<i64> = connection
        .prepare_cached(
            "SELECT next_at FROM callback WHERE state = 'head' AND source = ?1 ORDER BY next_at LIMIT 1",
        )?
        .query_row([source], |row| row.get(0))
        .optional()?;
    let lease: Option<i64> = connection
        .prepare_cached("SELECT min(lease_until) FROM callback WHERE state = 'claimed'")?
        .query_row([], |row| row.get(0))?;
    Ok(head.into_iter().chain(lease).min().map(UnixMillis))
}

pub(super) fn settle(
    connection: &Connection,
    id: EventId,
    attempt: i64,
    settle: &Settle,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    let (state, ended) = match settle {
        Settle::Delivered => ("delivered", Some(now.0)),
        Settle::Retry { .. } => ("head", None),
        Settle::Dead { .. } => ("dead", Some(now.0)),
    };
    let error = match settle {
        Settle::Delivered => None,
        Settle::Retry { error, .. } | Settle::Dead { error } => Some(error),
    };
    let session: Option<(String, String)> = connection
        .prepare_cached(
            "UPDATE callback SET state = ?1, ended_at = ?2, last_error = ?3, lease_until = NULL
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
    if let Settle::Retry {
        at,
        earliest,
        refused,
        let_next,
        ..
    } = settle
    {
        connection
            .prepare_cached(
                "UPDATE callback SET next_at = ?1, earliest_at = ?2, refused_since =
                 CASE WHEN ?3 THEN coalesce(refused_since, ?4) ELSE refused_since END WHERE row = ?5",
            )?
            .execute((at.0, earliest.0, refused, now.0, id.0))?;
        give_way(connection, id, &source, &session, *let_next, now)?;
    }
    promote(connection, &source, &session)?;
    Ok(Ok(()))
}

/// Who is tried next in a session whose event has failed: an older one that was let pass comes first; a younger one only if
/// this one holds it back no longer.
fn give_way(
    connection: &Connection,
    id: EventId,
    source: &str,
    session: &str,
    let_next: bool,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let find = |condition: &str| {
        connection
            .prepare_cached(&format!(
                "SELECT min(row) FROM callback WHERE source = ?1 AND session = ?2 AND state = 'waiting' AND {condition}"
            ))?
            .query_row((source, session, id.0), |row| row.get::<_, Option<i64>>(0))
    };
    let other = match find("row < ?3")? {
        Some(older) => Some((older, false)),
        None if let_next => find("row > ?3")?.map(|younger| (younger, true)),
        None => None,
    };
    let Some((other, at_once)) = other else {
        return Ok(());
    };
    connection
        .prepare_cached("UPDATE callback SET state = 'waiting' WHERE row = ?1")?
        .execute([id.0])?;
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'head', next_at = CASE WHEN ?1 THEN max(?2, earliest_at) ELSE next_at END
             WHERE row = ?3",
        )?
        .execute((at_once, now.0, other))
        .map(drop)
}

pub(super) fn retry(
    connection: &Connection,
    id: EventId,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    by_hand(
        connection,
        id,
        "UPDATE callback SET state = CASE state WHEN 'dead' THEN 'waiting' ELSE state END, ended_at = NULL,
         next_at = max(?1, earliest_at), received_at = CASE state WHEN 'dead' THEN ?1 ELSE received_at END
         WHERE row = ?2 AND state IN ('dead', 'head', 'waiting') RETURNING source, session",
        "retried",
        person,
        now,
    )
}

pub(super) fn release(
    connection: &Connection,
    id: EventId,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    by_hand(
        connection,
        id,
        "UPDATE callback SET state = 'waiting', released = 1, mark = 'stale', next_at = ?1
         WHERE row = ?2 AND state = 'held' RETURNING source, session",
        "released",
        person,
        now,
    )
}

pub(super) fn give_up(
    connection: &Connection,
    id: EventId,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    by_hand(
        connection,
        id,
        "UPDATE callback SET state = 'dropped', ended_at = ?1
         WHERE row = ?2 AND state IN ('waiting', 'head', 'held', 'dead') RETURNING source, session",
        "dropped",
        person,
        now,
    )
}

fn by_hand(
    connection: &Connection,
    id: EventId,
    change: &str,
    what: &'static str,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    let session: Option<(String, String)> = connection
        .prepare_cached(change)?
        .query_row((now.0, id.0), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((source, session)) = session else {
        return Ok(Err(JournalError::NotFound));
    };
    promote(connection, &source, &session)?;
    connection
        .prepare_cached(
            "INSERT INTO intervention (callback, at, what, uid, pid, login_uid, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            id.0,
            now.0,
            what,
            person.uid,
            person.pid,
            person.login_uid,
            &person.reason,
        ))?;
    outbox::callback(connection, id.0, what, now)?;
    outbox::command(connection, what, &format!("callback {}", id.0), person, now)?;
    Ok(Ok(()))
}

/// Claims of the last process: nobody knows whether the shop got them, so they are delivered again.
pub(in crate::journal) fn restart(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE callback SET state = 'head', lease_until = NULL WHERE state = 'claimed'",
        [],
    )
}
