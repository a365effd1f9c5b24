//! Opening: place, lock, settings, version, check, an empty WAL, and what the last process left open.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::Dependency;
use super::ballast::Ballast;
use super::error::{Fault, OpenError, fault};
use super::operations::{self, Restarted};
use super::outbox as owed;
use super::place::{self, Lock};
use super::schema::{self, Found};
use super::witness::{self, Compared, Outbox};
use crate::policy::operation::UnixMillis;
use crate::policy::schedule::AFTER_TIMEOUT;

/// The first version without the WAL-reset bug, which loses committed transactions.
const OLDEST_SQLITE: i32 = 3_051_003;
/// How long a statement waits for another program's lock.
const BUSY: Duration = Duration::from_secs(2);
/// Statements that are kept compiled.
const STATEMENTS: usize = 64;

/// What the caller decides about a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Accept a file system that forgets: demos and tests.
    pub allow_volatile: bool,
    /// Works that may wait for the writer.
    pub queue: usize,
    /// Bytes held back for a full disk.
    pub ballast: u64,
    /// How long the shop may still be busy with what the last process was delivering.
    pub after_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_volatile: false,
            queue: 4_096,
            ballast: super::ballast::SIZE,
            after_timeout: AFTER_TIMEOUT,
        }
    }
}

/// What was found at the opening.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenReport {
    /// There was no journal before.
    pub created: bool,
    /// Operations of the last process that had not been sent: now `not_sent`.
    pub not_sent: u64,
    /// Operations of the last process that may have been sent: now `unknown`.
    pub unknown: u64,
    /// The file system, where it forgets.
    pub volatile: Option<&'static str>,
    /// What open operations need of the configuration.
    pub dependencies: Vec<Dependency>,
    /// Operations that wait for a person, those of [`Self::unknown`] included.
    pub waiting: u64,
    /// Whether the disk had room for the ballast.
    pub ballast: bool,
    /// Callbacks whose events are still to be delivered or judged, and how many.
    pub sources: Vec<(String, u64)>,
    /// What the audit log says of it, where one is kept.
    pub compared: Option<Compared>,
}

/// An open journal without its thread.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: Lock,
    pub(super) ballast: Ballast,
    pub(super) frames: Arc<AtomicI32>,
    pub(super) report: OpenReport,
}

pub(super) fn open(
    path: &Path,
    options: Options,
    outbox: Outbox<'_>,
    process: &str,
    now: UnixMillis,
) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::Library(rusqlite::version().to_owned()));
    }
    let volatile = place::file_system(path, options.allow_volatile)?;
    place::exposure(path)?;
    let lock = place::lock(path)?;
    let ballast_path = place::beside(path, ".ballast");
    let after_timeout = options.after_timeout;
    let open = || ready(path, outbox, process, now, after_timeout);
    let (mut connection, created, restarted, compared) = match open() {
        // A disk that filled up while we were away: the ballast is there for that.
        Err(OpenError::Sqlite { source, .. }) if source.is_full() && ballast_path.exists() => {
            let _ = std::fs::remove_file(&ballast_path);
            open()?
        }
        ready => ready?,
    };
    place::sync_directory(path).map_err(|source| OpenError::File {
        path: place::directory(path).to_owned(),
        what: "cannot sync the directory",
        source,
    })?;
    let frames = Arc::new(AtomicI32::new(0));
    let seen = Arc::clone(&frames);
    connection
        .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))
        .map_err(sqlite(path, "cannot watch its WAL"))?;
    let ballast = Ballast::new(ballast_path, options.ballast);
    let report = OpenReport {
        created,
        not_sent: restarted.not_sent,
        unknown: restarted.unknown,
        dependencies: operations::dependencies(&connection)
            .map_err(sqlite(path, "cannot read what is open"))?,
        waiting: operations::holding(&connection)
            .map_err(sqlite(path, "cannot count what waits"))?
            .unknown,
        volatile,
        ballast: ballast.is_held(),
        sources: super::inbox::store::open_sources(&connection)
            .map_err(sqlite(path, "cannot read what is to be delivered"))?,
        compared,
    };
    Ok(Opened {
        connection,
        lock,
        ballast,
        frames,
        report,
    })
}

fn ready(
    path: &Path,
    outbox: Outbox<'_>,
    process: &str,
    now: UnixMillis,
    after_timeout: Duration,
) -> Result<(Connection, bool, Restarted, Option<Compared>), OpenError> {
    // SQLite makes its files with the umask's mode; ours is made first, by us, for the owner alone. The WAL and its index
    // inherit that.
    let created = match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(source) => {
            return Err(OpenError::File {
                path: path.to_owned(),
                what: "cannot make the file",
                source,
            });
        }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(sqlite(path, "cannot open it"))?;
    settings(path, &connection)?;
    let found = schema::look(&connection).map_err(sqlite(path, "cannot read its head"))?;
    let version = match found {
        Found::Empty => 0,
        Found::Ours(version) => version,
        Found::Newer(version) => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
                reason: format!(
                    "it is of version {version}, written by a newer priorgate; this one knows up to {}. Run that one, or \
                     restore the copy from before the upgrade",
                    schema::VERSION
                ),
            });
        }
        Found::Foreign => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
                reason:
                    "it is a database of another program; name a file of its own in journal.sqlite"
                        .to_owned(),
            });
        }
    };
    check(path, &connection)?;
    schema::migrate(&mut connection, version)
        .map_err(sqlite(path, "cannot bring it up to date"))?;
    // After a failed sync and a restart the WAL may hold frames that the kernel calls clean and the disk never got:
    // commits on top of them would be lost together with them. So every process starts with an empty one.
    if !checkpoint(&connection, "TRUNCATE").map_err(sqlite(path, "cannot empty its WAL"))? {
        return Err(OpenError::Held(path.to_owned()));
    }
    // Before anything is written that the audit log is owed: its numbers depend on what the log has.
    let compared = compare(path, &mut connection, outbox, now)?;
    let restarted = operations::restart(&mut connection, process, now, after_timeout)
        .map_err(sqlite(path, "cannot close what the last process left open"))?;
    Ok((connection, created, restarted, compared))
}

fn compare(
    path: &Path,
    connection: &mut Connection,
    outbox: Outbox<'_>,
    now: UnixMillis,
) -> Result<Option<Compared>, OpenError> {
    let failed = "cannot compare it with the audit log";
    let witness = match outbox {
        Outbox::AsItIs => return Ok(None),
        Outbox::Off => {
            owed::enable(connection, false).map_err(sqlite(path, failed))?;
            return Ok(None);
        }
        Outbox::On(witness) => witness,
    };
    let (journal, fresh) = witness::identity(connection).map_err(sqlite(path, failed))?;
    let asked = if fresh { witness::NOBODY } else { journal };
    let testimony = witness(asked).map_err(|source| OpenError::Audit {
        path: path.to_owned(),
        source,
    })?;
    let compared = || {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        owed::enable(&tx, true)?;
        let compared = witness::compare(&tx, journal, testimony)?;
        // The last process ended before there was room, or before it could say so.
        if !owed::is_full(&tx)? {
            owed::tell_left_out(&tx, now)?;
        }
        tx.commit()?;
        Ok(compared)
    };
    let mut compared = compared;
    compared().map(Some).map_err(sqlite(path, failed))
}

fn settings(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    connection
        .busy_timeout(BUSY)
        .map_err(sqlite(path, "cannot set it up"))?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(sqlite(path, "cannot set its mode"))?;
    if mode != "wal" {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
            reason: format!("its file system takes no write-ahead log (mode `{mode}`)"),
        });
    }
    // FULL syncs the WAL at every commit: NORMAL loses commits at a power cut.
    let set = connection
        .pragma_update(None, "synchronous", synchronous())
        .and_then(|()| connection.pragma_update(None, "foreign_keys", true))
        .and_then(|()| connection.pragma_update(None, "trusted_schema", false))
        // A confined gate can make no file in a directory for temporary ones.
        .and_then(|()| connection.pragma_update(None, "temp_store", "MEMORY"))
        .and_then(|()| connection.pragma_update(None, "wal_autocheckpoint", 0));
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    set.map_err(sqlite(path, "cannot set it up"))
}

#[cfg(not(feature = "failpoints"))]
fn synchronous() -> String {
    "FULL".to_owned()
}

/// A test build can be told to be careless, so that the test of the order of syncs can be seen to fail.
#[cfg(feature = "failpoints")]
fn synchronous() -> String {
    std::env::var("PRIORGATE_SYNCHRONOUS").unwrap_or_else(|_| "FULL".to_owned())
}

fn check(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let finding: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(sqlite(path, "cannot check it"))?;
    if finding == "ok" {
        Ok(())
    } else {
        Err(OpenError::Damaged {
            path: path.to_owned(),
            finding,
        })
    }
}

/// Copies the WAL into the database. `false` if a reader kept some of it.
///
/// Never waits for a reader: requests would wait with it. What a reader keeps is copied the next time.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let done = connection.query_row(&sql, [], |row| row.get::<_, i64>(0).map(|busy| busy == 0));
    connection.busy_timeout(BUSY)?;
    done
}

fn sqlite(path: &Path, what: &'static str) -> impl FnOnce(rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    move |error| match fault(&error) {
        Fault::Held => OpenError::Held(path),
        Fault::Full | Fault::Statement | Fault::Broken => OpenError::Sqlite {
            path,
            what,
            source: error.into(),
        },
    }
}
