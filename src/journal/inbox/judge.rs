//! What an event means after those of its session, when it comes and again when its turn has come: `policy/status` asked with
//! what the file knows.

use rusqlite::{Connection, OptionalExtension};

use super::turn::{self, Session};
use crate::journal::{UnixMillis, outbox};
use crate::policy::status::{self, Before, Mark, Policy, Status, Transition};

/// Which earlier events count. Word for word the condition of a partial index, which is named: without statistics SQLite
/// prefers the index of the whole session, and would walk through its backlog at every look.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    index: &'static str,
    condition: &'static str,
}

pub(super) const QUEUED: Counted = Counted {
    index: "callback_told",
    condition: "state IN ('waiting', 'head', 'claimed', 'delivered')",
};
pub(super) const DELIVERED: Counted = Counted {
    index: "callback_news",
    condition: "state = 'delivered'",
};

pub(super) fn before(
    connection: &Connection,
    source: &str,
    session: &str,
    counted: Counted,
) -> rusqlite::Result<Before> {
    let Counted { index, condition } = counted;
    let last = connection
        .prepare_cached(&format!(
            "SELECT status FROM callback INDEXED BY {index} WHERE source = ?1 AND session = ?2 AND status IS NOT NULL
             AND {condition} ORDER BY row DESC LIMIT 1"
        ))?
        .query_row((source, session), |row| row.get(0))
        .optional()?;
    let refund_delivered = connection
        .prepare_cached(
            "SELECT 1 FROM callback INDEXED BY callback_refunded
             WHERE source = ?1 AND session = ?2 AND status = 'REFUNDED' AND state = 'delivered' LIMIT 1",
        )?
        .exists((source, session))?;
    Ok(Before {
        last,
        refund_delivered,
    })
}

/// Queued events that a later one makes pointless. One that is being delivered is not touched.
pub(super) fn supersede(
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
        // The status is a literal for the sake of the partial index, as in DUE.
        let gone = connection
            .prepare_cached(&format!(
                "UPDATE callback INDEXED BY callback_pending SET state = 'superseded', ended_at = ?1
                 WHERE source = ?2 AND session = ?3 AND status = '{queued}' AND state IN ('waiting', 'head') AND row <> ?4
                 RETURNING row"
            ))?
            .query_map((now.0, source, session, row), |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        for row in gone {
            outbox::callback(connection, row, "superseded", now)?;
        }
    }
    Ok(())
}

/// Held events may be no contradiction any more, now that the shop has heard of something else.
pub(super) fn judge_held(
    connection: &Connection,
    source: &str,
    session: &str,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let mut held = connection.prepare_cached(
        "SELECT row, status FROM callback INDEXED BY callback_held
         WHERE source = ?1 AND session = ?2 AND state = 'held' ORDER BY row",
    )?;
    let held = held
        .query_map((source, session), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Status>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (row, status) in held {
        let before = before(connection, source, session, DELIVERED)?;
        if let Transition::Deliver(mark) = status::judge(policy, before, status) {
            connection
                .prepare_cached("UPDATE callback SET state = 'waiting', mark = ?1 WHERE row = ?2")?
                .execute((mark, row))?;
            outbox::callback(connection, row, "queued", now)?;
        }
    }
    Ok(())
}

/// What is judged again when an event's turn has come.
struct Judged {
    source: String,
    event: String,
    session: String,
    status: Option<Status>,
    mark: Mark,
    released: bool,
}

/// Judges the event again, now that its turn has come, by what the shop has: it is marked anew, or put aside if it is a
/// contradiction, or pointless, by now.
pub(super) fn is_still_wanted(
    connection: &Connection,
    row: i64,
    policy: Policy,
    now: UnixMillis,
) -> rusqlite::Result<bool> {
    let judged = connection
        .prepare_cached(
            "SELECT source, event, session, status, mark, released FROM callback WHERE row = ?1",
        )?
        .query_row([row], |row| {
            Ok(Judged {
                source: row.get(0)?,
                event: row.get(1)?,
                session: row.get(2)?,
                status: row.get(3)?,
                mark: row.get(4)?,
                released: row.get(5)?,
            })
        })?;
    let Some(status) = judged.status.filter(|_| !judged.released) else {
        return Ok(true);
    };
    let before = before(connection, &judged.source, &judged.session, DELIVERED)?;
    let transition = if policy == Policy::Hold && is_overtaken(connection, row, &judged, status)? {
        Transition::Supersede
    } else {
        status::judge(policy, before, status)
    };
    let (state, ended) = match transition {
        Transition::Deliver(mark) => {
            let mark = match mark {
                Mark::Expected if has_another_body(connection, row, &judged)? => Mark::Conflict,
                mark => mark,
            };
            if mark != judged.mark {
                connection
                    .prepare_cached("UPDATE callback SET mark = ?1 WHERE row = ?2")?
                    .execute((mark, row))?;
            }
            return Ok(true);
        }
        Transition::Hold => ("held", None),
        Transition::Supersede => ("superseded", Some(now.0)),
    };
    connection
        .prepare_cached(
            "UPDATE callback SET state = ?1, mark = 'stale', ended_at = ?2 WHERE row = ?3",
        )?
        .execute((state, ended, row))?;
    outbox::callback(connection, row, state, now)?;
    let session = Session {
        source: &judged.source,
        session: &judged.session,
    };
    turn::choose(connection, session, None)?;
    Ok(false)
}

/// A later event that makes this one pointless came while this one was with the shop. That a `PENDING` is what becomes so,
/// by anything else, is `policy/status`'s; here it is the condition of a partial index.
fn is_overtaken(
    connection: &Connection,
    row: i64,
    judged: &Judged,
    status: Status,
) -> rusqlite::Result<bool> {
    if !Status::ALL
        .iter()
        .any(|&later| status::is_superseded(status, later))
    {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "SELECT 1 FROM callback INDEXED BY callback_decided WHERE source = ?1 AND session = ?2 AND row > ?3
             AND status IS NOT NULL AND status <> 'PENDING' AND state IN ('waiting', 'head', 'claimed', 'delivered')
             LIMIT 1",
        )?
        .exists((&judged.source, &judged.session, row))
}

/// The same id came before, with another body.
fn has_another_body(connection: &Connection, row: i64, judged: &Judged) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM callback INDEXED BY callback_event
             WHERE source = ?1 AND event = ?2 AND state <> 'repeated' AND row < ?3 LIMIT 1",
        )?
        .exists((&judged.source, &judged.event, row))
}
