//! What people do to operations: each change with who, from where, and why, in the same transaction.

use rusqlite::Connection;

use super::error::JournalError;
use super::operations::{is_frozen, row_of, set_delivered, step, store};
use super::{Person, StoredAnswer, outbox};
use crate::policy::operation::{Event, OperationId, Resolution, Standing, State, UnixMillis};

/// A person's word on an `unknown` operation.
pub(super) fn resolve(
    connection: &Connection,
    id: OperationId,
    resolution: Resolution,
    answer: Option<&StoredAnswer>,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<State, JournalError>> {
    let what = match resolution {
        Resolution::Done => "resolved as done",
        Resolution::NotSent => "resolved as not_sent",
    };
    by_hand(
        connection,
        id,
        Event::Resolve(resolution),
        what,
        person,
        now,
        |row, next| store(connection, row, next, Some("resolved"), answer, now),
    )
}

/// A person lets the subject of an undelivered `done` go.
pub(super) fn release(
    connection: &Connection,
    id: OperationId,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<Result<State, JournalError>> {
    by_hand(
        connection,
        id,
        Event::Release,
        "released",
        person,
        now,
        |row, next| set_delivered(connection, row, next),
    )
}

fn by_hand(
    connection: &Connection,
    id: OperationId,
    event: Event,
    what: &str,
    person: &Person,
    now: UnixMillis,
    change: impl FnOnce(i64, Standing) -> rusqlite::Result<usize>,
) -> rusqlite::Result<Result<State, JournalError>> {
    let Some(row) = row_of(connection, id)? else {
        return Ok(Err(JournalError::NotFound));
    };
    let result = step(connection, row, None, event, now, |found, next| {
        change(found.row, next)
    })?;
    if result.is_ok() {
        note(connection, Some(row), what, person, now)?;
        outbox::command(connection, what, &id.to_string(), person, now)?;
    }
    Ok(result)
}

pub(super) fn note(
    connection: &Connection,
    row: Option<i64>,
    what: &str,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO intervention (operation, at, what, uid, pid, login_uid, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            row,
            now.0,
            what,
            person.uid,
            person.pid,
            person.login_uid,
            &person.reason,
        ))
        .map(drop)
}

/// Refuses guarded routes, or takes them again. `false` if it was so already.
pub(super) fn freeze(
    connection: &Connection,
    frozen: bool,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<bool> {
    if is_frozen(connection)? == frozen {
        return Ok(false);
    }
    if frozen {
        connection.execute(
            "INSERT INTO setting (name, value) VALUES ('frozen', ?1)",
            [now.0.to_string()],
        )?;
    } else {
        connection.execute("DELETE FROM setting WHERE name = 'frozen'", [])?;
    }
    let what = if frozen { "frozen" } else { "thawed" };
    note(connection, None, what, person, now)?;
    outbox::command(connection, what, "", person, now)?;
    Ok(true)
}
