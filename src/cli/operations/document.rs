//! The gate's answers about operations, as this command reads them. Unknown members are ignored, so that an older command
//! line reads a newer gate.

use serde::Deserialize;

use crate::cli::page::Intervention;

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
