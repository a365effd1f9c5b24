//! How a callback's events stand: what waits, since when, and what waits for a person.

use super::Reader;
use crate::journal::UnixMillis;
use crate::journal::error::StoreError;
use crate::journal::inbox::store;

/// One callback's events of which something is still to become, and those that were given up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// To be delivered, those that are under way included.
    pub waiting: u64,
    /// When the oldest of them came.
    pub oldest: Option<UnixMillis>,
    /// Held as contradictions.
    pub held: u64,
    /// Given up.
    pub dead: u64,
}

/// Both are answered by their index alone: the look is taken every few seconds, behind any backlog.
const OPEN: &str = "SELECT state, count(*), min(received_at) FROM callback INDEXED BY callback_open \
    WHERE state IN ('waiting', 'head', 'claimed', 'held') AND source = ?1 AND ended_at IS NULL GROUP BY state";
const DEAD: &str =
    "SELECT count(*) FROM callback INDEXED BY callback_dead WHERE source = ?1 AND state = 'dead'";

impl Reader {
    /// Callbacks whose events are still to be delivered or judged, and how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_sources(&self) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(store::open_sources(&self.connection)?)
    }

    /// How the events of a callback stand.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backlog(&self, source: &str) -> Result<Backlog, StoreError> {
        let mut backlog = Backlog {
            dead: self.connection.query_row(DEAD, [source], count)?,
            ..Backlog::default()
        };
        let mut statement = self.connection.prepare(OPEN)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            let events = row.get::<_, i64>(1)?.unsigned_abs();
            if row.get::<_, String>(0)? == "held" {
                backlog.held = events;
                continue;
            }
            let came = UnixMillis(row.get(2)?);
            backlog.waiting = backlog.waiting.saturating_add(events);
            backlog.oldest = Some(backlog.oldest.map_or(came, |oldest| oldest.min(came)));
        }
        Ok(backlog)
    }
}

fn count(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::inbox::Settle;
    use crate::journal::inbox::tests::{accept, claimed, event};
    use crate::journal::tests::{NOW, Place};
    use crate::policy::status::{Policy, Status};

    #[tokio::test]
    async fn what_waits_what_is_held_and_what_is_dead_is_counted_for_each_callback() {
        let place = Place::new();
        let (journal, _) = place.open();
        let of = |source: &str| Reader::open(&place.path).unwrap().backlog(source).unwrap();
        assert_eq!(of("priorbank"), Backlog::default());
        for (id, session, status) in [
            ("e1", "s1", Status::Approved),
            ("e2", "s2", Status::Rejected),
            ("e3", "s2", Status::Refunded),
            ("e4", "s3", Status::Approved),
            ("e5", "s3", Status::Approved),
        ] {
            accept(&journal, event(id, session, status)).await;
        }
        let dead = Settle::Dead {
            free: NOW,
            error: "expired".to_owned(),
        };
        let claim = claimed(&journal, NOW).await.unwrap();
        journal
            .settle(&claim, dead, Policy::Hold, NOW)
            .await
            .unwrap();
        let expected = Backlog {
            waiting: 3,
            oldest: Some(NOW),
            held: 1,
            dead: 1,
        };
        assert_eq!(of("priorbank"), expected);
        assert_eq!(of("other"), Backlog::default());
        journal.close();
    }

    #[test]
    fn the_look_is_answered_by_its_indexes_alone() {
        let place = Place::new();
        let (journal, _) = place.open();
        journal.close();
        drop(journal);
        let reader = Reader::open(&place.path).unwrap();
        for sql in [OPEN, DEAD] {
            let plan: String = reader
                .connection
                .query_row(&format!("EXPLAIN QUERY PLAN {sql}"), ["a"], |row| {
                    row.get(3)
                })
                .unwrap();
            assert!(plan.contains("USING COVERING INDEX"), "{plan}");
        }
    }
}
