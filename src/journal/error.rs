//! What can go wrong with the journal, at its opening and later.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::policy::operation::{Closed, State};

/// Why the journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory or file that cannot be used.
    #[error("journal {path}: {what}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others could read or write it.
    #[error("journal {path}: {reason}; {advice}")]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// Who could do what.
        reason: &'static str,
        /// The next step.
        advice: String,
    },
    /// Another gate has it.
    #[error(
        "journal {0} is in use by another gate: two gates on one journal would send one refund twice. Stop the other one \
         (`priorgate status` on its admin socket names its pid)"
    )]
    InUse(PathBuf),
    /// On a file system that keeps no promise about syncs or locks.
    #[error(
        "journal {path}: {kind} does not keep what it was told to keep; put journal.sqlite on a local disk{advice}"
    )]
    FileSystem {
        /// Where.
        path: PathBuf,
        /// Which file system.
        kind: &'static str,
        /// For a volatile one: the switch of demos and tests.
        advice: &'static str,
    },
    /// Not ours, or not of this version.
    #[error("journal {path}: {reason}")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The check at the start found damage.
    #[error(
        "journal {path} is damaged ({finding}). Keep a copy of it with its -wal file and restore the last backup; see \
         docs/operations.md, \"The journal\""
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The first finding.
        finding: String,
    },
    /// The linked library is one that is known to lose data.
    #[error("SQLite {0} has the WAL-reset bug; at least 3.51.3 is needed")]
    Library(String),
    /// Somebody reads or writes it with another program.
    #[error(
        "journal {0} is held open by another program (a shell, a backup?): close it and start again"
    )]
    Held(PathBuf),
    /// The audit log, which says whether the journal is the one that it should be.
    #[error(
        "the audit log cannot be read, and only it knows whether journal {path} is an old copy"
    )]
    Audit {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite failed.
    #[error("journal {path}: {what}")]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: StoreError,
    },
}

/// SQLite's own error, of which only the text goes further.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(rusqlite::Error);

impl StoreError {
    pub(super) fn is_full(&self) -> bool {
        fault(&self.0) == Fault::Full
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

/// Why something was not written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JournalError {
    /// More waits for the disk than may wait.
    #[error("too much waits for the journal's disk")]
    Busy,
    /// An I/O error closed the journal for this process.
    #[error("the journal was closed after an I/O error; the gate ends and starts anew")]
    Failed,
    /// No guarded request may run now.
    #[error("{}", match .0 {
        Closed::AuditBehind => "too much waits for the audit log",
        Closed::Doubted => "the journal does not know what the audit log knows",
        Closed::Frozen => "guarded routes are frozen",
    })]
    Closed(Closed),
    /// The disk has no space for a new operation.
    #[error("the journal's disk is full")]
    Full,
    /// Another program holds the file's lock.
    #[error("another program holds the journal")]
    Held,
    /// A mistake of ours.
    #[error("the journal refused a statement of ours: {0}")]
    Internal(String),
    /// No such operation.
    #[error("the journal has no such operation")]
    NotFound,
    /// The step does not exist from this state.
    #[error("the operation is {}", match .0 { (state, true) => format!("{state} and still listens for the bank's answer"), (state, false) => state.to_string() })]
    Forbidden((State, bool)),
    /// The operation is no longer this attempt's.
    #[error("the operation is no longer this attempt's")]
    Stale,
}

/// What an error of SQLite means for the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// No space: undone, and usable again when there is.
    Full,
    /// Another program holds the file.
    Held,
    /// A statement of ours.
    Statement,
    /// Nothing that the file says can be relied on any more.
    Broken,
}

/// `SQLITE_IOERR_SHMSIZE`: the index of the WAL could not grow, which on a full disk is all that it says.
const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    let Some(sqlite) = error.sqlite_error() else {
        return Fault::Statement;
    };
    match sqlite.code {
        ErrorCode::DiskFull => Fault::Full,
        _ if sqlite.extended_code == IOERR_SHMSIZE => Fault::Full,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Fault::Held,
        ErrorCode::ConstraintViolation
        | ErrorCode::TypeMismatch
        | ErrorCode::ApiMisuse
        | ErrorCode::ParameterOutOfRange
        | ErrorCode::TooBig
        | ErrorCode::Unknown => Fault::Statement,
        _ => Fault::Broken,
    }
}
