//! The gate's answers about operations, as this command reads them. Unknown members are ignored, so that an older command
//! line reads a newer gate.

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use crate::admin::status::Timestamp;

/// A list.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) operations: Vec<Operation>,
    pub(super) frozen: bool,
}

/// One operation.
#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) bank: String,
    pub(super) route: String,
    pub(super) state: String,
    pub(super) listening: bool,
    pub(super) delivered: bool,
    pub(super) holds_subject: bool,
    pub(super) attempt: i64,
    pub(super) reserved_at: i64,
    pub(super) sent_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) code: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) uid: Option<u32>,
    pub(super) request_id: String,
    pub(super) key_sha256: String,
    pub(super) fingerprint_sha256: String,
    pub(super) subject_sha256: Option<String>,
    pub(super) subject: Option<String>,
}

/// Everything about one.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) operation: Operation,
    pub(super) answer: Option<Answer>,
    pub(super) interventions: Vec<Intervention>,
}

/// What its key replays.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) bytes: u64,
    pub(super) body: Option<String>,
    #[serde(default)]
    pub(super) body_cut: bool,
}

/// What a person did.
#[derive(Debug, Deserialize)]
pub(super) struct Intervention {
    pub(super) at: i64,
    pub(super) what: String,
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    pub(super) login_uid: Option<u32>,
    pub(super) reason: String,
}

impl Operation {
    /// Whether its answer is there and nobody has it.
    pub(super) fn is_undelivered(&self) -> bool {
        self.state == "done" && !self.delivered
    }

    /// Whether it keeps other keys off something. One without a subject is in nobody's way.
    pub(super) fn blocks(&self) -> bool {
        self.holds_subject && self.subject_sha256.is_some()
    }
}

/// Milliseconds since 1970, as RFC 3339 in UTC.
pub(super) fn moment(millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    Timestamp::from(time).to_string()
}
