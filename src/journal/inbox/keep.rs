//! What of the inbox is forgotten, and when: bodies first, events much later, and only what is over.
//!
//! An event is kept as long as a key is accepted that verifies it, however old it is: the same signed bytes would be new
//! to a journal that has forgotten them, and an old `APPROVED` would pay an order again.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use crate::journal::error::JournalError;
use crate::journal::writer::Class;
use crate::journal::{Journal, UnixMillis};

/// Bodies hold what is personal: as long as a shop and a bank may argue about an order, and no longer.
pub const KEEP_BODIES: Duration = Duration::from_secs(90 * 86_400);
/// Thirteen months and a little: a chargeback's year, and the month in which it is noticed.
pub const KEEP_EVENTS: Duration = Duration::from_secs(400 * 86_400);
/// Rows that one pass looks at: it must not hold the writer up.
const AT_ONCE: u32 = 1_000;
/// The setting that says how far bodies were forgotten: `<ended_at>:<row>`.
const MARK: &str = "bodies_forgotten";

/// A key of the configuration, as events name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptedKey {
    /// The callback's name.
    pub source: String,
    /// The key's id.
    pub key_id: String,
}

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Forgotten {
    /// Events whose body was looked for: none is left to look for once this is 0.
    pub bodies: usize,
    /// Events.
    pub events: usize,
}

impl Journal {
    /// Forgets a bounded number of bodies and events whose time is over. Nothing that is open, and nothing that is dead, is
    /// among them: a person ends those.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn forget_events(
        &self,
        accepted: Arc<[AcceptedKey]>,
        now: UnixMillis,
    ) -> Result<Forgotten, JournalError> {
        let (forgotten, _) = self
            .call("forget", Class::Starts, 64, None, move |connection| {
                Ok(Forgotten {
                    bodies: bodies(connection, now.before(KEEP_BODIES))?,
                    events: events(connection, &accepted, now.before(KEEP_EVENTS))?,
                })
            })
            .await?;
        Ok(forgotten)
    }
}

/// Goes on where the last pass ended: events keep their rows long after their bodies, and are not looked at again.
fn bodies(connection: &Connection, before: UnixMillis) -> rusqlite::Result<usize> {
    let mark: Option<String> = connection
        .prepare_cached("SELECT value FROM setting WHERE name = ?1")?
        .query_row([MARK], |row| row.get(0))
        .optional()?;
    let (mut at, mut row) = mark.as_deref().and_then(parse).unwrap_or((i64::MIN, 0));
    let ended = connection
        .prepare_cached(
            "SELECT ended_at, row FROM callback INDEXED BY callback_ended
             WHERE ended_at IS NOT NULL AND (ended_at, row) > (?1, ?2) AND ended_at < ?3 AND state <> 'dead'
             ORDER BY ended_at, row LIMIT ?4",
        )?
        .query_map((at, row, before.0, AT_ONCE), |found| {
            Ok((found.get(0)?, found.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    if ended.is_empty() {
        return Ok(0);
    }
    let mut delete = connection.prepare_cached("DELETE FROM callback_body WHERE callback = ?1")?;
    for &(ended_at, ended_row) in &ended {
        delete.execute([ended_row])?;
        (at, row) = (ended_at, ended_row);
    }
    connection
        .prepare_cached(
            "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        )?
        .execute((MARK, format!("{at}:{row}")))?;
    Ok(ended.len())
}

fn parse(mark: &str) -> Option<(i64, i64)> {
    let (at, row) = mark.split_once(':')?;
    Some((at.parse().ok()?, row.parse().ok()?))
}

/// Callbacks and keys that the file knows: one look into the index for each, they are few and their events may be many.
const KEYS: &str = "WITH RECURSIVE known (source, key_id) AS (
    SELECT * FROM (SELECT source, key_id FROM callback INDEXED BY callback_key WHERE ended_at IS NOT NULL
        ORDER BY source, key_id LIMIT 1)
    UNION ALL
    SELECT next.source, next.key_id FROM known, callback AS next WHERE next.row = (
        SELECT row FROM callback INDEXED BY callback_key WHERE ended_at IS NOT NULL AND (source, key_id) > (known.source, known.key_id)
        ORDER BY source, key_id LIMIT 1)
) SELECT source, key_id FROM known";

fn events(
    connection: &Connection,
    accepted: &[AcceptedKey],
    before: UnixMillis,
) -> rusqlite::Result<usize> {
    let known = connection
        .prepare_cached(KEYS)?
        .query_map([], |row| {
            Ok(AcceptedKey {
                source: row.get(0)?,
                key_id: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut forgotten = 0;
    for key in known.iter().filter(|key| !accepted.contains(key)) {
        forgotten += connection
            .prepare_cached(
                "DELETE FROM callback WHERE row IN (SELECT row FROM callback INDEXED BY callback_key
                 WHERE source = ?1 AND key_id = ?2 AND ended_at < ?3 AND state <> 'dead' LIMIT ?4)",
            )?
            .execute((&key.source, &key.key_id, before.0, AT_ONCE))?;
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::inbox::Settle;
    use crate::journal::inbox::tests::{accept, claimed, event};
    use crate::journal::read::Depth;
    use crate::journal::tests::{NOW, Place};
    use crate::journal::{EventFilter, Reader};
    use crate::policy::status::{Policy, Status};

    const DEPTH: Depth = Depth {
        subject: true,
        body: true,
    };

    fn later(span: Duration) -> UnixMillis {
        UnixMillis(NOW.0 + i64::try_from(span.as_millis()).unwrap() + 1)
    }

    fn accepted(ids: &[&str]) -> Arc<[AcceptedKey]> {
        let key = |id: &&str| AcceptedKey {
            source: "priorbank".to_owned(),
            key_id: (*id).to_owned(),
        };
        ids.iter().map(key).collect()
    }

    /// The events that are left, and whether their bodies are.
    fn kept(place: &Place) -> Vec<(String, bool)> {
        let reader = Reader::open(&place.path).unwrap();
        let all = EventFilter {
            limit: 100,
            ..EventFilter::default()
        };
        let rows = reader.events(&all, DEPTH).unwrap().into_iter().rev();
        rows.map(|row| (row.event.unwrap(), row.bytes.is_some()))
            .collect()
    }

    #[test]
    fn the_keys_are_found_without_a_walk_through_their_events() {
        let place = Place::new();
        let (journal, _) = place.open();
        journal.close();
        drop(journal);
        let connection = Connection::open(&place.path).unwrap();
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {KEYS}"))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        // The first of an index is found by a scan that ends at once; nothing is sorted, and no table is walked.
        for step in &plan {
            assert!(!step.contains("TEMP B-TREE"), "{plan:#?}");
            let by_index = step.contains("callback_key") || step.contains("INTEGER PRIMARY KEY");
            assert!(
                by_index || !step.contains("callback") && !step.contains("next"),
                "{plan:#?}"
            );
        }
    }

    #[tokio::test]
    async fn bodies_go_first_events_with_their_key_and_what_waits_for_somebody_stays() {
        let place = Place::new();
        let (journal, _) = place.open();
        for (id, key) in [
            ("delivered", "old"),
            ("dead", "old"),
            ("young", "new"),
            ("open", "old"),
        ] {
            let mut event = event(id, id, Status::Approved);
            key.clone_into(&mut event.key_id);
            accept(&journal, event).await;
        }
        for (settle, at) in [
            (Settle::Delivered, NOW),
            (
                Settle::Dead {
                    free: NOW,
                    error: "expired".to_owned(),
                },
                NOW,
            ),
            (Settle::Delivered, NOW),
        ] {
            let claim = claimed(&journal, at).await.unwrap();
            journal
                .settle(&claim, settle, Policy::Hold, at)
                .await
                .unwrap();
        }
        let whole = |name: &str| (name.to_owned(), true);
        let bare = |name: &str| (name.to_owned(), false);
        let all = accepted(&["old", "new"]);
        let early = journal.forget_events(Arc::clone(&all), NOW).await;
        assert_eq!(early, Ok(Forgotten::default()));
        let at = later(KEEP_BODIES);
        let first = journal.forget_events(Arc::clone(&all), at).await.unwrap();
        assert_eq!((first.bodies, first.events), (2, 0));
        let again = journal.forget_events(Arc::clone(&all), at).await;
        assert_eq!(again, Ok(Forgotten::default()), "looked at once");
        let expected = [
            bare("delivered"),
            whole("dead"),
            bare("young"),
            whole("open"),
        ];
        assert_eq!(kept(&place), expected);
        let at = later(KEEP_EVENTS);
        let still = journal.forget_events(all, at).await;
        assert_eq!(still, Ok(Forgotten::default()), "its key is accepted");
        let rotated = journal.forget_events(accepted(&["new"]), at).await.unwrap();
        assert_eq!(rotated.events, 1);
        assert_eq!(kept(&place), [whole("dead"), bare("young"), whole("open")]);
        journal.close();
    }
}
