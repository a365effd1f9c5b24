//! What the audit log is owed: records that are written in the transaction of what they describe.
//!
//! Rows are numbered without holes for the journal's whole life, and go when the audit log has them on disk. Those of
//! operations and of people are always written; those of callbacks only while the table is below its bound, and what was
//! left out is itself recorded.

use rusqlite::{Connection, OptionalExtension};

use super::error::{JournalError, StoreError};
use super::writer::Class;
use super::{Journal, Person, Reader};
use crate::policy::chain::Fields;
use crate::policy::operation::{Digest, UnixMillis};
use crate::policy::webhook::delivery_id;

/// Rows that may wait for the audit log: some 40 MiB, a day of a busy shop. Past it no new operation begins.
const MAX: i64 = 65_536;
/// Rows that are read at a time.
const READ: usize = 500;

/// Whether an audit log is kept at all; set by every opening that knows.
const ENABLED: &str = "audit";
/// How many records of callbacks were left out, and since when.
const LEFT_OUT: &str = "outbox_left_out";

#[cfg(not(feature = "failpoints"))]
fn max() -> i64 {
    MAX
}

/// A test build can be told a bound that it reaches.
#[cfg(feature = "failpoints")]
fn max() -> i64 {
    let told = std::env::var("PRIORGATE_OUTBOX_MAX").ok();
    told.and_then(|max| max.parse().ok()).unwrap_or(MAX)
}

/// One row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owed {
    /// Its number.
    pub row: i64,
    /// When it happened.
    pub at: UnixMillis,
    /// What.
    pub record: Fields,
}

impl Reader {
    /// What the audit log is owed beyond the row `after`, oldest first, a bounded number at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owed(&self, after: i64) -> Result<Vec<Owed>, StoreError> {
        Ok(owed(self.connection(), after)?)
    }

    /// How many rows the audit log does not have yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owes(&self) -> Result<u64, StoreError> {
        Ok(waiting(self.connection())?.unsigned_abs())
    }
}

impl Journal {
    /// The audit log has every row up to this one on disk.
    ///
    /// # Errors
    /// [`JournalError`]: they are kept; it will be said again.
    pub async fn recorded(&self, row: i64, now: UnixMillis) -> Result<(), JournalError> {
        self.call("recorded", Class::Settles, 64, None, move |connection| {
            done(connection, row, now)
        })
        .await
        .map(drop)
    }

    /// Puts a command of a person on record that changes nothing in the journal: it was carried out, or is about to be.
    ///
    /// # Errors
    /// [`JournalError`]: it is on no record.
    pub async fn commanded(
        &self,
        what: &'static str,
        about: String,
        person: Person,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        self.call("commanded", Class::Settles, 64, None, move |connection| {
            command(connection, what, &about, &person, now)
        })
        .await
        .map(drop)
    }
}

pub(super) fn is_enabled(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM setting WHERE name = 'audit'")?
        .exists([])
}

pub(super) fn enable(connection: &Connection, enabled: bool) -> rusqlite::Result<()> {
    if enabled {
        set(connection, ENABLED, "on")
    } else {
        // Nobody would ever take them.
        connection.execute("DELETE FROM outbox", [])?;
        unset(connection, ENABLED)
    }
}

pub(super) fn setting(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM setting WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO setting (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute((name, value))
        .map(drop)
}

pub(super) fn unset(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM setting WHERE name = ?1")?
        .execute([name])
        .map(drop)
}

/// Whether the audit log is so far behind that nothing new may begin.
pub(super) fn is_full(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(waiting(connection)? >= max())
}

fn waiting(connection: &Connection) -> rusqlite::Result<i64> {
    // Rows have no holes, and go from the oldest on.
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT max(row) FROM outbox) - (SELECT min(row) FROM outbox) + 1, 0)",
        )?
        .query_row([], |row| row.get(0))
}

fn put(connection: &Connection, record: &Fields, now: UnixMillis) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO outbox (at, record) VALUES (?1, ?2)")?
        .execute((now.0, record.object()))
        .map(drop)
}

/// An operation took a step: its row is read back, so that the record says what is on disk.
pub(super) fn operation(
    connection: &Connection,
    row: i64,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if !is_enabled(connection)? {
        return Ok(());
    }
    let record = connection
        .prepare_cached(
            "SELECT id, bank, route, state, listening, delivered, attempt, uid, request_id, code, status, key_hash,
             fingerprint, subject_hash, subject_pointers FROM operation WHERE row = ?1",
        )?
        .query_row([row], |row| {
            let text = |name| row.get::<_, Option<String>>(name).map(Option::unwrap_or_default);
            Ok(Fields::of("operation")
                .text("id", &text("id")?)
                .text("bank", &text("bank")?)
                .text("route", &text("route")?)
                .text("state", &text("state")?)
                .flag("listening", row.get("listening")?)
                .flag("delivered", row.get("delivered")?)
                .number("attempt", row.get::<_, i64>("attempt")?)
                .optional("uid", row.get::<_, Option<u32>>("uid")?)
                .text("request_id", &text("request_id")?)
                .text("code", &text("code")?)
                .optional("status", row.get::<_, Option<u16>>("status")?)
                .digest("key", Some(&row.get("key_hash")?))
                .digest("fingerprint", Some(&row.get("fingerprint")?))
                .digest("subject", row.get::<_, Option<Digest>>("subject_hash")?.as_ref())
                .text("pointers", &text("subject_pointers")?))
        })?;
    put(connection, &record, now)
}

/// An event of the inbox took a step. Past the bound it is counted instead: the bank is never refused for the log's sake.
pub(super) fn callback(
    connection: &Connection,
    row: i64,
    change: &'static str,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if !is_enabled(connection)? {
        return Ok(());
    }
    if is_full(connection)? {
        let (count, since) = left_out(connection)?.unwrap_or((0, now));
        let value = format!("{} {}", count.saturating_add(1), since.0);
        return set(connection, LEFT_OUT, &value);
    }
    let record = connection
        .prepare_cached(
            "SELECT source, event, body_hash, session, session_known, status, state, mark, key_id, attempts FROM callback
             WHERE row = ?1",
        )?
        .query_row([row], |found| {
            let source: String = found.get("source")?;
            let (event, session): (String, String) = (found.get("event")?, found.get("session")?);
            let known: bool = found.get("session_known")?;
            let session = Digest::of("priorgate session", &[source.as_bytes(), session.as_bytes()]);
            let says: Option<String> = found.get("status")?;
            Ok(Fields::of("callback")
                .text("callback", &source)
                .text("change", change)
                .number("number", row)
                .text("delivery", &delivery_id(&source, &event, &found.get("body_hash")?))
                .digest("session", known.then_some(&session))
                .text("says", &says.unwrap_or_default())
                .text("state", &found.get::<_, String>("state")?)
                .text("mark", &found.get::<_, String>("mark")?)
                .text("key_id", &found.get::<_, String>("key_id")?)
                .number("attempts", found.get::<_, i64>("attempts")?))
        })?;
    put(connection, &record, now)
}

/// A person gave a command. `about` is the operation or the event that it was about.
pub(super) fn command(
    connection: &Connection,
    what: &str,
    about: &str,
    person: &Person,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if !is_enabled(connection)? {
        return Ok(());
    }
    let record = Fields::of("command")
        .text("what", what)
        .text("about", about)
        .number("uid", person.uid)
        .optional("pid", person.pid)
        .optional("login_uid", person.login_uid)
        .text("reason", &person.reason);
    put(connection, &record, now)
}

/// Old rows of the journal were forgotten.
pub(super) fn forgotten(
    connection: &Connection,
    operations: usize,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if operations == 0 || !is_enabled(connection)? {
        return Ok(());
    }
    let operations = i64::try_from(operations).unwrap_or(i64::MAX);
    let record = Fields::of("forgotten").number("operations", operations);
    put(connection, &record, now)
}

fn left_out(connection: &Connection) -> rusqlite::Result<Option<(u64, UnixMillis)>> {
    let value = setting(connection, LEFT_OUT)?;
    Ok(value.and_then(|value| {
        let (count, since) = value.split_once(' ')?;
        Some((count.parse().ok()?, UnixMillis(since.parse().ok()?)))
    }))
}

/// The log has everything up to `row` on disk. What was left out meanwhile is recorded now that there is room.
pub(super) fn done(connection: &Connection, row: i64, now: UnixMillis) -> rusqlite::Result<usize> {
    let gone = connection
        .prepare_cached("DELETE FROM outbox WHERE row <= ?1")?
        .execute([row])?;
    tell_left_out(connection, now)?;
    Ok(gone)
}

/// Puts on record how many records of callbacks were left out, if any were.
pub(super) fn tell_left_out(connection: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    if let Some((count, since)) = left_out(connection)? {
        let record = Fields::of("gap")
            .text("lost", "callbacks")
            .number("records", count)
            .number("since", since.0);
        put(connection, &record, now)?;
        unset(connection, LEFT_OUT)?;
    }
    Ok(())
}

/// What the log is owed beyond `after`, oldest first, a bounded number at a time.
pub(super) fn owed(connection: &Connection, after: i64) -> rusqlite::Result<Vec<Owed>> {
    connection
        .prepare_cached("SELECT row, at, record FROM outbox WHERE row > ?1 ORDER BY row LIMIT ?2")?
        .query_map((after, READ as i64), |row| {
            let text: String = row.get("record")?;
            Ok(Owed {
                row: row.get("row")?,
                at: UnixMillis(row.get("at")?),
                // Somebody else wrote into our journal; that is worth a record as well.
                record: Fields::from_object(&text).unwrap_or_else(|| Fields::of("unreadable")),
            })
        })?
        .collect()
}

/// The first row that waits, and the number of the last that was ever written.
pub(super) fn ends(connection: &Connection) -> rusqlite::Result<(Option<i64>, i64)> {
    let first = connection.query_row("SELECT min(row) FROM outbox", [], |row| row.get(0))?;
    let last: Option<i64> = connection
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok((first, last.unwrap_or(0)))
}

/// Numbers go on above `row`: those up to it are in a log that this journal was not there for.
pub(super) fn skip_to(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM outbox WHERE row <= ?1", [row])?;
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'", [])?;
    connection
        .execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)",
            [row],
        )
        .map(drop)
}
