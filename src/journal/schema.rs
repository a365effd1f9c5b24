//! The tables, their versions, and how one version becomes the next.
//!
//! The file is the product's most valuable one, so its names are for people too: `sqlite3 -readonly` is a documented way
//! to look at it. Writing with any other program is not (docs/operations.md).

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id`: "prgt". file(1) and we tell our files by it.
pub(super) const APPLICATION_ID: i32 = 0x7072_6774;

/// One script a version, applied in order. A released script never changes.
const MIGRATIONS: [&str; 2] = [VERSION_1, VERSION_2];

/// States are words and flags are 0 or 1, as `policy/operation` decides them. `holds` repeats what follows from them, so
/// that "one operation at a time for one subject" is a constraint of the database and not a hope of the code.
const VERSION_1: &str = "
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE operation (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    bank TEXT NOT NULL,
    route TEXT NOT NULL,
    key_hash BLOB NOT NULL CHECK (length(key_hash) = 32),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    subject_hash BLOB CHECK (length(subject_hash) = 32),
    subject_pointers TEXT,
    subject TEXT,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'sent', 'done', 'refused', 'not_sent', 'unknown')),
    listening INTEGER NOT NULL CHECK (listening IN (0, 1)),
    delivered INTEGER NOT NULL CHECK (delivered IN (0, 1)),
    holds INTEGER NOT NULL CHECK (holds IN (0, 1)),
    attempt INTEGER NOT NULL,
    process TEXT NOT NULL,
    reserved_at INTEGER NOT NULL,
    sent_at INTEGER,
    ended_at INTEGER,
    code TEXT,
    status INTEGER,
    uid INTEGER,
    request_id TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX operation_key ON operation (bank, key_hash);
CREATE UNIQUE INDEX operation_subject ON operation (bank, subject_hash) WHERE holds = 1 AND subject_hash IS NOT NULL;
CREATE INDEX operation_holding ON operation (state) WHERE holds = 1;
CREATE INDEX operation_done ON operation (bank, fingerprint, ended_at) WHERE state = 'done';
CREATE INDEX operation_ended ON operation (ended_at) WHERE holds = 0;

CREATE TABLE answer (
    operation INTEGER PRIMARY KEY REFERENCES operation (row) ON DELETE CASCADE,
    status INTEGER NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE intervention (
    row INTEGER PRIMARY KEY,
    operation INTEGER REFERENCES operation (row) ON DELETE CASCADE,
    callback INTEGER REFERENCES callback (row) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    uid INTEGER NOT NULL,
    pid INTEGER,
    login_uid INTEGER,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX intervention_operation ON intervention (operation);
CREATE INDEX intervention_callback ON intervention (callback);

CREATE TABLE callback (
    row INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    event TEXT NOT NULL,
    body_hash BLOB NOT NULL CHECK (length(body_hash) = 32),
    session TEXT NOT NULL,
    session_known INTEGER NOT NULL CHECK (session_known IN (0, 1)),
    status TEXT CHECK (status IN ('PENDING', 'APPROVED', 'REJECTED', 'CANCELLED', 'REFUNDED')),
    key_id TEXT NOT NULL,
    content_type TEXT,
    mark TEXT NOT NULL CHECK (mark IN ('expected', 'conflict', 'stale')),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'head', 'claimed', 'delivered', 'held', 'dead', 'dropped',
        'superseded', 'repeated')),
    released INTEGER NOT NULL DEFAULT 0 CHECK (released IN (0, 1)),
    attempts INTEGER NOT NULL DEFAULT 0,
    times_received INTEGER NOT NULL DEFAULT 1,
    received_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    earliest_at INTEGER NOT NULL DEFAULT 0,
    refused_since INTEGER,
    let_past INTEGER NOT NULL DEFAULT 0 CHECK (let_past IN (0, 1)),
    ended_at INTEGER,
    last_error TEXT
) STRICT;
CREATE UNIQUE INDEX callback_event ON callback (source, event, body_hash) WHERE state <> 'repeated';
CREATE UNIQUE INDEX callback_repeated ON callback (source, event, body_hash) WHERE state = 'repeated';
CREATE UNIQUE INDEX callback_session_head ON callback (source, session) WHERE state IN ('head', 'claimed');
CREATE INDEX callback_due ON callback (source, next_at) WHERE state = 'head';
CREATE INDEX callback_waiting ON callback (source, session, let_past, row) WHERE state = 'waiting';
CREATE INDEX callback_pending ON callback (source, session) WHERE status = 'PENDING' AND state IN ('waiting', 'head');
CREATE INDEX callback_held ON callback (source, session, row) WHERE state = 'held';
CREATE INDEX callback_told ON callback (source, session, row) WHERE status IS NOT NULL
    AND state IN ('waiting', 'head', 'claimed', 'delivered');
CREATE INDEX callback_decided ON callback (source, session, row) WHERE status IS NOT NULL AND status <> 'PENDING'
    AND state IN ('waiting', 'head', 'claimed', 'delivered');
CREATE INDEX callback_news ON callback (source, session, row) WHERE status IS NOT NULL AND state = 'delivered';
CREATE INDEX callback_refunded ON callback (source, session) WHERE status = 'REFUNDED' AND state = 'delivered';
CREATE INDEX callback_session ON callback (source, session, row);
CREATE INDEX callback_open ON callback (state, source, received_at, ended_at) WHERE ended_at IS NULL;
CREATE INDEX callback_dead ON callback (source, state) WHERE state = 'dead';
CREATE INDEX callback_ended ON callback (ended_at, row) WHERE ended_at IS NOT NULL;
CREATE INDEX callback_key ON callback (source, key_id, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE callback_body (
    callback INTEGER PRIMARY KEY REFERENCES callback (row) ON DELETE CASCADE,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE outbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
";

/// Operations that were taken from the audit log and wait in line for their subject (`reconcile`): mostly none.
const VERSION_2: &str = "
CREATE INDEX operation_in_line ON operation (bank, subject_hash) WHERE state = 'unknown' AND holds = 0;
";

/// The version that this program writes.
pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Nothing in it yet.
    Empty,
    /// Ours, of this version or an older one.
    Ours(i32),
    /// Ours, of a newer version.
    Newer(i32),
    /// Another program's.
    Foreign,
}

pub(super) fn look(connection: &Connection) -> rusqlite::Result<Found> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (id, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (id, tables) {
        (0, 0) => Found::Empty,
        (APPLICATION_ID, _) if version > VERSION => Found::Newer(version),
        (APPLICATION_ID, _) => Found::Ours(version),
        _ => Found::Foreign,
    })
}

/// Brings a file of `version` to [`VERSION`], all in one transaction.
pub(super) fn migrate(connection: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(version).unwrap_or(0);
    for script in MIGRATIONS.iter().skip(done) {
        tx.execute_batch(script)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()
}
