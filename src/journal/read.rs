//! Reading: lists and single operations, over a connection of their own that never writes.
//!
//! Works beside a running gate and without one. Short on purpose: while somebody reads, the WAL cannot shrink.

mod backlog;
mod events;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params_from_iter};
use serde::Serialize;

use super::error::{OpenError, StoreError};
use super::schema::{self, Found};
use super::{Dependency, StoredAnswer, codec, operations, place};
use crate::policy::operation::{Digest, Known, OperationId, State};

pub use backlog::Backlog;
pub use events::{EventFilter, EventRow, EventState, ShownEvent};

/// The longest that a reader may be at it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long it waits for a lock.
const BUSY: Duration = Duration::from_secs(1);
/// SQLite's steps between two looks at the clock.
const STEPS: i32 = 10_000;
/// The most that one list shows.
pub const LIST_MAX: u32 = 1_000;

/// A read-only view of a journal.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// Which operations a list shows: all of what is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One of these states; all, if empty.
    pub states: Vec<State>,
    /// Only what holds its subject: open, unknown, or answered to nobody.
    pub holding: bool,
    /// This bank.
    pub bank: Option<String>,
    /// This key, by what stands in for it.
    pub key: Option<Digest>,
    /// Older than this one.
    pub before: Option<OperationId>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// One operation, as commands show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// Its name.
    pub id: String,
    /// The bank.
    pub bank: String,
    /// The route.
    pub route: String,
    /// Its state.
    pub state: &'static str,
    /// `unknown`, and the attempt still listens.
    pub listening: bool,
    /// `done`, and a caller was handed the answer, or a person has seen to it.
    pub delivered: bool,
    /// Whether it keeps other keys off its subject.
    pub holds_subject: bool,
    /// How often its key ran.
    pub attempt: i64,
    /// Milliseconds since 1970.
    pub reserved_at: i64,
    /// When `sent` was committed.
    pub sent_at: Option<i64>,
    /// When the last attempt ended.
    pub ended_at: Option<i64>,
    /// The problem of the last attempt.
    pub code: Option<String>,
    /// The bank's status.
    pub status: Option<u16>,
    /// The caller of the last attempt.
    pub uid: Option<u32>,
    /// Its request id.
    pub request_id: String,
    /// Stands in for the key.
    pub key_sha256: String,
    /// Of the request.
    pub fingerprint_sha256: String,
    /// Stands in for the subject.
    pub subject_sha256: Option<String>,
    /// The subject itself: for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Everything about one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// As in a list.
    #[serde(flatten)]
    pub operation: Operation,
    /// The bank's answer, if one is kept.
    pub answer: Option<Answer>,
    /// What people did to it.
    pub interventions: Vec<Intervention>,
}

/// A kept answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The bank's status.
    pub status: u16,
    /// Its content type.
    pub content_type: Option<String>,
    /// How long its body is.
    pub bytes: usize,
    /// The body, where it was asked for by somebody who may see it; bytes that are no UTF-8 are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Intervention {
    /// Milliseconds since 1970.
    pub at: i64,
    /// What.
    pub what: String,
    /// The uid of the command.
    pub uid: u32,
    /// Its process.
    pub pid: Option<i32>,
    /// Who had logged in.
    pub login_uid: Option<u32>,
    /// Why.
    pub reason: String,
}

/// How much of an operation is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Depth {
    /// Subjects: for operators.
    pub subject: bool,
    /// Bodies: for operators who ask.
    pub body: bool,
}

impl Reader {
    /// Opens a journal for reading. Whether a gate is using it does not matter.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // SQLite says only "unable to open"; the system says why.
        if let Err(source) = std::fs::metadata(path) {
            return Err(OpenError::File {
                path: path.to_owned(),
                what: "cannot read it",
                source,
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |what| {
            let path = path.to_owned();
            move |error: rusqlite::Error| OpenError::Sqlite {
                path,
                what,
                source: error.into(),
            }
        };
        let mut connection =
            Connection::open_with_flags(path, flags).map_err(failed("cannot open it"))?;
        let until = Instant::now() + DEADLINE;
        connection
            .busy_timeout(BUSY)
            .and_then(|()| connection.progress_handler(STEPS, Some(move || Instant::now() > until)))
            .and_then(|()| connection.pragma_update(None, "trusted_schema", false))
            // A confined gate can make no file in a directory for temporary ones.
            .and_then(|()| connection.pragma_update(None, "temp_store", "MEMORY"))
            .map_err(failed("cannot set it up"))?;
        match schema::look(&connection).map_err(failed("cannot read its head"))? {
            Found::Ours(_) => Ok(Self {
                connection,
                path: path.to_owned(),
            }),
            Found::Newer(version) => Err(OpenError::Foreign {
                path: path.to_owned(),
                reason: format!("it is of version {version}, written by a newer priorgate"),
            }),
            Found::Empty | Found::Foreign => Err(OpenError::Foreign {
                path: path.to_owned(),
                reason: "it is no journal of priorgate".to_owned(),
            }),
        }
    }

    /// Whether a gate is using the journal.
    #[must_use]
    pub fn in_use(&self) -> bool {
        place::is_locked(&self.path)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether guarded routes are frozen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_frozen(&self) -> Result<bool, StoreError> {
        Ok(operations::is_frozen(&self.connection)?)
    }

    /// Operations, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(&self, filter: &Filter, depth: Depth) -> Result<Vec<Operation>, StoreError> {
        let mut sql = format!("SELECT {COLUMNS} FROM operation WHERE 1");
        let mut values: Vec<Box<dyn rusqlite::ToSql>> = Vec::new();
        if !filter.states.is_empty() {
            let marks = vec!["?"; filter.states.len()].join(", ");
            sql.push_str(&format!(" AND state IN ({marks})"));
            for state in &filter.states {
                values.push(Box::new(*state));
            }
        }
        if filter.holding {
            sql.push_str(" AND holds = 1");
        }
        if let Some(bank) = &filter.bank {
            sql.push_str(" AND bank = ?");
            values.push(Box::new(bank.clone()));
        }
        if let Some(key) = filter.key {
            sql.push_str(" AND key_hash = ?");
            values.push(Box::new(key));
        }
        if let Some(before) = filter.before {
            sql.push_str(" AND id < ?");
            values.push(Box::new(before.to_string()));
        }
        sql.push_str(" ORDER BY id DESC LIMIT ?");
        values.push(Box::new(filter.limit.clamp(1, LIST_MAX)));
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| operation(row, depth))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What open operations need of the configuration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dependencies(&self) -> Result<Vec<Dependency>, StoreError> {
        Ok(operations::dependencies(&self.connection)?)
    }

    /// The operation under a key, and its answer if one is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recall(
        &self,
        bank: &str,
        key: Digest,
    ) -> Result<Option<(Known, Option<StoredAnswer>)>, StoreError> {
        let Some((row, known)) = operations::under_key(&self.connection, bank, key)? else {
            return Ok(None);
        };
        Ok(Some((known, codec::answer(&self.connection, row)?)))
    }

    /// One operation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn show(&self, id: OperationId, depth: Depth) -> Result<Option<Shown>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, row FROM operation WHERE id = ?1");
        let found = self
            .connection
            .query_row(&sql, [id.to_string()], |row| {
                Ok((operation(row, depth)?, row.get::<_, i64>("row")?))
            })
            .optional()?;
        let Some((operation, row)) = found else {
            return Ok(None);
        };
        let answer = codec::answer(&self.connection, row)?.map(|answer| Answer {
            status: answer.status.as_u16(),
            content_type: answer
                .headers
                .get(http::header::CONTENT_TYPE)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            bytes: answer.body.len(),
            body: depth
                .body
                .then(|| String::from_utf8_lossy(&answer.body).into_owned()),
        });
        Ok(Some(Shown {
            operation,
            answer,
            interventions: interventions(&self.connection, "operation", row)?,
        }))
    }
}

/// What people did to a row. `of` is the column that names it.
fn interventions(
    connection: &Connection,
    of: &'static str,
    row: i64,
) -> rusqlite::Result<Vec<Intervention>> {
    let mut statement = connection.prepare(&format!(
        "SELECT at, what, uid, pid, login_uid, reason FROM intervention WHERE {of} = ?1 ORDER BY row"
    ))?;
    let found = statement.query_map([row], |row| {
        Ok(Intervention {
            at: row.get(0)?,
            what: row.get(1)?,
            uid: row.get(2)?,
            pid: row.get(3)?,
            login_uid: row.get(4)?,
            reason: row.get(5)?,
        })
    })?;
    found.collect()
}

const COLUMNS: &str = "id, bank, route, state, listening, delivered, holds, attempt, reserved_at, sent_at, ended_at, code, \
    status, uid, request_id, key_hash, fingerprint, subject_hash, subject";

fn operation(row: &Row<'_>, depth: Depth) -> rusqlite::Result<Operation> {
    let state: State = row.get("state")?;
    let subject_hash: Option<Digest> = row.get("subject_hash")?;
    Ok(Operation {
        id: row.get("id")?,
        bank: row.get("bank")?,
        route: row.get("route")?,
        state: state.as_str(),
        listening: row.get("listening")?,
        delivered: row.get("delivered")?,
        holds_subject: row.get("holds")?,
        attempt: row.get("attempt")?,
        reserved_at: row.get("reserved_at")?,
        sent_at: row.get("sent_at")?,
        ended_at: row.get("ended_at")?,
        code: row.get("code")?,
        status: row.get("status")?,
        uid: row.get("uid")?,
        request_id: row.get("request_id")?,
        key_sha256: row.get::<_, Digest>("key_hash")?.to_string(),
        fingerprint_sha256: row.get::<_, Digest>("fingerprint")?.to_string(),
        subject_sha256: subject_hash.map(|hash| hash.to_string()),
        subject: if depth.subject {
            row.get("subject")?
        } else {
            None
        },
    })
}
