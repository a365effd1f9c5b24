//! Whose turn it is in a session: one event at a time is its head, and nothing but the head is delivered.
//!
//! An event that the shop keeps refusing lets the next one pass after a while (`let_past`); the first that does not is the
//! last whose turn can come. A round goes through these in order, oldest first, and leaves out who is not due yet; it begins
//! again when the first of them is due. So before a later event is tried the older ones are, none is tried while the shop
//! may be busy with another, and no number of refused events keeps a later one waiting for ever.

use rusqlite::{Connection, OptionalExtension};

use crate::journal::UnixMillis;

/// A session of a callback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session<'s> {
    pub(super) source: &'s str,
    pub(super) session: &'s str,
}

/// The event that was tried last, if the round goes on behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) row: i64,
    /// From when the shop is done with it.
    pub(super) free: UnixMillis,
}

/// Makes an event the head of its session, if the session has none.
pub(super) fn choose(
    connection: &Connection,
    session: Session<'_>,
    tried: Option<Tried>,
) -> rusqlite::Result<()> {
    let Session { source, session } = session;
    let taken = connection
        .prepare_cached(
            "SELECT 1 FROM callback INDEXED BY callback_session_head
             WHERE source = ?1 AND session = ?2 AND state IN ('head', 'claimed')",
        )?
        .exists((source, session))?;
    if taken {
        return Ok(());
    }
    // Who lets nobody past; behind it nobody's turn comes.
    let blocking = connection
        .prepare_cached(
            "SELECT row, next_at FROM callback INDEXED BY callback_waiting
             WHERE source = ?1 AND session = ?2 AND state = 'waiting' AND let_past = 0 ORDER BY row LIMIT 1",
        )?
        .query_row((source, session), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (last, blocking_at) = match blocking {
        Some((row, next_at)) => (row, Some((row, next_at))),
        None => (i64::MAX, None),
    };
    if let Some(tried) = tried
        && let Some(row) = behind(connection, (source, session), tried, last, blocking_at)?
    {
        return connection
            .prepare_cached(
                "UPDATE callback SET state = 'head', next_at = max(next_at, ?1), earliest_at = max(earliest_at, ?1)
                 WHERE row = ?2",
            )?
            .execute((tried.free.0, row))
            .map(drop);
    }
    // A new round, when the first of them is due.
    let (oldest, first_due): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT min(row), min(next_at) FROM callback INDEXED BY callback_waiting
             WHERE source = ?1 AND session = ?2 AND state = 'waiting' AND let_past = 1 AND row < ?3",
        )?
        .query_row((source, session, last), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(oldest) = oldest.or_else(|| blocking_at.map(|(row, _)| row)) else {
        return Ok(());
    };
    let due = first_due
        .into_iter()
        .chain(blocking_at.map(|(_, at)| at))
        .min();
    let free = tried.map_or(0, |tried| tried.free.0);
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'head', next_at = max(earliest_at, ?1, min(next_at, ?2)),
             earliest_at = max(earliest_at, ?1) WHERE row = ?3",
        )?
        .execute((free, due.unwrap_or(0), oldest))
        .map(drop)
}

/// The next of the round: behind the one that was tried, up to the last, and due once the shop is free.
fn behind(
    connection: &Connection,
    (source, session): (&str, &str),
    tried: Tried,
    last: i64,
    blocking: Option<(i64, i64)>,
) -> rusqlite::Result<Option<i64>> {
    let passed: Option<i64> = connection
        .prepare_cached(
            "SELECT min(row) FROM callback INDEXED BY callback_waiting WHERE source = ?1 AND session = ?2
             AND state = 'waiting' AND let_past = 1 AND row > ?3 AND row < ?4 AND next_at <= ?5",
        )?
        .query_row((source, session, tried.row, last, tried.free.0), |row| {
            row.get(0)
        })?;
    let blocking = blocking
        .filter(|&(row, next_at)| row > tried.row && next_at <= tried.free.0)
        .map(|(row, _)| row);
    Ok(passed.or(blocking))
}

/// A new event, or a person, wakes the head, but not before the shop may have finished with it.
pub(super) fn wake(
    connection: &Connection,
    session: Session<'_>,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE callback INDEXED BY callback_session_head SET next_at = min(next_at, max(?1, earliest_at))
             WHERE source = ?2 AND session = ?3 AND state IN ('head', 'claimed') AND state = 'head'",
        )?
        .execute((now.0, session.source, session.session))
        .map(drop)
}
