//! What people do to events: try again, let go, give up. Each change is kept with who and why.

use rusqlite::{Connection, OptionalExtension};

use super::EventId;
use super::turn::{self, Session};
use crate::journal::error::JournalError;
use crate::journal::{Person, UnixMillis, outbox};

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
         let_past = CASE state WHEN 'dead' THEN 0 ELSE let_past END, next_at = max(?1, earliest_at), received_at = CASE state WHEN 'dead' THEN ?1 ELSE received_at END
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
    let name = Session {
        source: &source,
        session: &session,
    };
    turn::choose(connection, name, None)?;
    turn::wake(connection, name, now)?;
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
