//! The inbox: events of the bank, kept until the shop has them, one session's in order and one at a time.
//!
//! The head of a session is marked, not computed, so that a claim stays cheap behind any backlog; a unique index makes "one
//! delivery at a time" a constraint of the database. A claim is a state, a lease and a fencing token: whoever comes back
//! late with an old token changes nothing. What an event means, and when it is tried again, is decided by whoever calls.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, named_params};

use super::error::JournalError;
use super::writer::Class;
use super::{Journal, UnixMillis};
use crate::policy::operation::Digest;

/// A verified event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The callback's name in the configuration.
    pub source: String,
    /// The event's identity, as the bank gives it.
    pub event: String,
    /// Of the body: the same identity with another body is another event.
    pub body_hash: Digest,
    /// Groups the events of one order.
    pub session: String,
    /// What it says, in our words.
    pub status: String,
    /// Which key verified it.
    pub key_id: String,
    /// As the bank sent it.
    pub content_type: Option<String>,
    /// Byte for byte.
    pub body: Bytes,
}

/// What became of an event that the bank sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// It is on disk.
    New(EventId),
    /// It was on disk already.
    Repeat(EventId),
}

/// An event's place in the inbox.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(i64);

/// The right to deliver one event, until its lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which.
    pub id: EventId,
    /// How often it was claimed, this time included: the fencing token.
    pub attempt: i64,
    /// The event.
    pub event: Event,
    /// When it came.
    pub received_at: UnixMillis,
}

/// How a delivery ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settle {
    /// The shop has it.
    Delivered,
    /// It has not: try again at this time. The text is for people.
    Retry {
        /// When.
        at: UnixMillis,
        /// Why.
        error: String,
    },
    /// Nobody tries again but by hand.
    Dead {
        /// Why.
        error: String,
    },
}

impl Journal {
    /// Puts an event on disk. When this returns, the bank may be told so.
    ///
    /// # Errors
    /// [`JournalError`]: it may not; the bank must send it again.
    pub async fn accept(&self, event: Event, now: UnixMillis) -> Result<Accepted, JournalError> {
        let bytes = event.body.len();
        let (accepted, _) = self
            .call("accept", Class::Starts, bytes, None, move |connection| {
                accept(connection, &event, now)
            })
            .await?;
        Ok(accepted)
    }

    /// Claims the next due event, for as long as the lease.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn claim(
        &self,
        source: &str,
        now: UnixMillis,
        lease: Duration,
    ) -> Result<Option<Claim>, JournalError> {
        let source = source.to_owned();
        let (claim, _) = self
            .call("claim", Class::Settles, 64, None, move |connection| {
                claim(connection, &source, now, lease)
            })
            .await?;
        Ok(claim)
    }

    /// Ends a claim, and lets the session's next event up where this one holds it back no longer.
    ///
    /// # Errors
    /// [`JournalError::Stale`] when the lease ended and somebody else has it.
    pub async fn settle(
        &self,
        claim: &Claim,
        settle: Settle,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let (id, attempt) = (claim.id, claim.attempt);
        self.call("settle", Class::Settles, 64, None, move |connection| {
            settled(connection, id, attempt, &settle, now)
        })
        .await?
        .0
    }
}

fn accept(connection: &Connection, event: &Event, now: UnixMillis) -> rusqlite::Result<Accepted> {
    // Not OR IGNORE, which swallows every other constraint as well.
    let inserted = connection
        .prepare_cached(
            "INSERT INTO callback (source, event, body_hash, session, status, key_id, content_type, mark, state, received_at,
             next_at)
             VALUES (:source, :event, :hash, :session, :status, :key, :type, 'expected', 'waiting', :now, :now)
             ON CONFLICT (source, event, body_hash) DO NOTHING",
        )?
        .execute(named_params! {
            ":source": event.source, ":event": event.event, ":hash": event.body_hash, ":session": event.session,
            ":status": event.status, ":key": event.key_id, ":type": event.content_type, ":now": now.0,
        })?;
    if inserted == 0 {
        let row = connection
            .prepare_cached(
                "SELECT row FROM callback WHERE source = ?1 AND event = ?2 AND body_hash = ?3",
            )?
            .query_row((&event.source, &event.event, event.body_hash), |row| {
                row.get(0)
            })?;
        return Ok(Accepted::Repeat(EventId(row)));
    }
    let row = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO callback_body (callback, body) VALUES (?1, ?2)")?
        .execute((row, &event.body[..]))?;
    promote(connection, &event.source, &event.session)?;
    Ok(Accepted::New(EventId(row)))
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

fn claim(
    connection: &Connection,
    source: &str,
    now: UnixMillis,
    lease: Duration,
) -> rusqlite::Result<Option<Claim>> {
    // A lease that ended belongs to nobody.
    connection
        .prepare_cached(
            "UPDATE callback SET state = 'head', next_at = ?1 WHERE state = 'claimed' AND lease_until < ?1",
        )?
        .execute([now.0])?;
    let due = connection
        .prepare_cached(DUE)?
        .query_row((now.0, source), |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(row) = due else {
        return Ok(None);
    };
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
            "SELECT source, event, body_hash, session, status, key_id, content_type, attempts, received_at, body
             FROM callback JOIN callback_body ON callback = row WHERE row = ?1",
        )?
        .query_row([row], |found| {
            Ok(Claim {
                id: EventId(row),
                attempt: found.get("attempts")?,
                received_at: UnixMillis(found.get("received_at")?),
                event: Event {
                    source: found.get("source")?,
                    event: found.get("event")?,
                    body_hash: found.get("body_hash")?,
                    session: found.get("session")?,
                    status: found.get("status")?,
                    key_id: found.get("key_id")?,
                    content_type: found.get("content_type")?,
                    body: Bytes::from(found.get::<_, Vec<u8>>("body")?),
                },
            })
        })
        .map(Some)
}

/// The condition on `state` is a literal: with a parameter SQLite would not use the partial index.
const DUE: &str = "SELECT row FROM callback WHERE state = 'head' AND next_at <= ?1 AND source = ?2 ORDER BY next_at LIMIT 1";

fn settled(
    connection: &Connection,
    id: EventId,
    attempt: i64,
    settle: &Settle,
    now: UnixMillis,
) -> rusqlite::Result<Result<(), JournalError>> {
    let (state, next_at, ended_at, error) = match settle {
        Settle::Delivered => ("delivered", now, Some(now.0), None),
        Settle::Retry { at, error } => ("head", *at, None, Some(error)),
        Settle::Dead { error } => ("dead", now, Some(now.0), Some(error)),
    };
    let session: Option<(String, String)> = connection
        .prepare_cached(
            "UPDATE callback SET state = ?1, next_at = ?2, ended_at = ?3, last_error = ?4, lease_until = NULL
             WHERE row = ?5 AND attempts = ?6 AND state = 'claimed' RETURNING source, session",
        )?
        .query_row((state, next_at.0, ended_at, error, id.0, attempt), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((source, session)) = session else {
        return Ok(Err(JournalError::Stale));
    };
    promote(connection, &source, &session)?;
    Ok(Ok(()))
}

/// Claims of the last process: nobody knows whether the shop got them, so they are delivered again.
pub(super) fn restart(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE callback SET state = 'head', lease_until = NULL WHERE state = 'claimed'",
        [],
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, Place};
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn event(id: &str, session: &str, body: &str) -> Event {
        Event {
            source: "priorbank".to_owned(),
            event: id.to_owned(),
            body_hash: Digest::of("test", &[body.as_bytes()]),
            session: session.to_owned(),
            status: "APPROVED".to_owned(),
            key_id: "bank-2026".to_owned(),
            content_type: Some("application/json".to_owned()),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn later(seconds: i64) -> UnixMillis {
        UnixMillis(NOW.0 + seconds * 1_000)
    }

    async fn claimed(journal: &Journal, now: UnixMillis) -> Option<Claim> {
        journal.claim("priorbank", now, LEASE).await.unwrap()
    }

    #[tokio::test]
    async fn an_event_is_kept_once_and_delivered_byte_for_byte() {
        let place = Place::new();
        let (journal, _) = place.open();
        let first = journal.accept(event("e1", "s1", "{ }"), NOW).await.unwrap();
        let Accepted::New(id) = first else {
            panic!("{first:?}");
        };
        let again = journal.accept(event("e1", "s1", "{ }"), NOW).await;
        assert_eq!(again, Ok(Accepted::Repeat(id)));
        let other = journal.accept(event("e1", "s1", "{}"), NOW).await.unwrap();
        assert!(
            matches!(other, Accepted::New(_)),
            "another body is another event"
        );
        assert!(journal.claim("other", NOW, LEASE).await.unwrap().is_none());
        let claim = claimed(&journal, NOW).await.unwrap();
        assert_eq!((claim.id, &claim.event.body[..]), (id, &b"{ }"[..]));
        journal.close();
    }

    #[tokio::test]
    async fn one_session_is_delivered_in_order_and_one_at_a_time() {
        let place = Place::new();
        let (journal, _) = place.open();
        for (id, session) in [("e1", "s1"), ("e2", "s1"), ("e3", "s2")] {
            journal.accept(event(id, session, id), NOW).await.unwrap();
        }
        let first = claimed(&journal, NOW).await.unwrap();
        let second = claimed(&journal, NOW).await.unwrap();
        assert_eq!((&*first.event.event, &*second.event.event), ("e1", "e3"));
        assert!(claimed(&journal, NOW).await.is_none(), "e2 waits for e1");
        let retry = Settle::Retry {
            at: later(5),
            error: "connection refused".to_owned(),
        };
        journal.settle(&first, retry, NOW).await.unwrap();
        assert!(claimed(&journal, later(4)).await.is_none());
        let again = claimed(&journal, later(5)).await.unwrap();
        assert_eq!((&*again.event.event, again.attempt), ("e1", 2));
        journal
            .settle(&again, Settle::Delivered, later(5))
            .await
            .unwrap();
        let next = claimed(&journal, later(5)).await.unwrap();
        assert_eq!(next.event.event, "e2");
        let dead = Settle::Dead {
            error: "expired".to_owned(),
        };
        journal.settle(&next, dead, later(5)).await.unwrap();
        assert!(
            claimed(&journal, later(1_000)).await.unwrap().event.event == "e3",
            "its lease has ended"
        );
        journal.close();
    }

    #[tokio::test]
    async fn a_late_holder_of_a_claim_changes_nothing() {
        let place = Place::new();
        let (journal, _) = place.open();
        journal.accept(event("e1", "s1", "x"), NOW).await.unwrap();
        let slow = claimed(&journal, NOW).await.unwrap();
        let next = claimed(&journal, later(61)).await.unwrap();
        assert_eq!((slow.attempt, next.attempt), (1, 2));
        let late = journal.settle(&slow, Settle::Delivered, later(62)).await;
        assert_eq!(late, Err(JournalError::Stale));
        assert_eq!(
            journal.settle(&next, Settle::Delivered, later(62)).await,
            Ok(())
        );
        let twice = journal.settle(&next, Settle::Delivered, later(62)).await;
        assert_eq!(twice, Err(JournalError::Stale));
        journal.close();
    }

    #[tokio::test]
    async fn what_the_last_process_was_delivering_is_delivered_again() {
        let place = Place::new();
        let (journal, _) = place.open();
        journal.accept(event("e1", "s1", "x"), NOW).await.unwrap();
        drop(claimed(&journal, NOW).await.unwrap());
        journal.close();
        drop(journal);
        let (journal, _) = place.open();
        let again = claimed(&journal, NOW).await.unwrap();
        assert_eq!(again.attempt, 2);
        journal.close();
    }

    #[test]
    fn a_claim_is_searched_by_the_index_of_heads() {
        let place = Place::new();
        let (journal, _) = place.open();
        journal.close();
        drop(journal);
        let connection = Connection::open(&place.path).unwrap();
        let plan = |sql: &str| {
            let mut statement = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            let marks = statement.parameter_count();
            let lines = statement
                .query_map(rusqlite::params_from_iter(vec![0; marks]), |row| {
                    row.get::<_, String>(3)
                })
                .unwrap()
                .map(Result::unwrap);
            lines.collect::<Vec<_>>().join("; ")
        };
        assert!(plan(DUE).contains("callback_due"), "{}", plan(DUE));
        let lease = "SELECT row FROM callback WHERE state = 'claimed' AND lease_until < ?1";
        assert!(plan(lease).contains("callback_lease"), "{}", plan(lease));
    }
}
