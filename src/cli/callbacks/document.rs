//! The gate's answers about callbacks, as this command reads them. Unknown members are ignored, so that an older command
//! line reads a newer gate.

use serde::Deserialize;

use crate::cli::page::Intervention;
use crate::cli::style::printable;

/// A list.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) events: Vec<Event>,
}

/// One event.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) id: i64,
    pub(super) source: String,
    pub(super) event: Option<String>,
    pub(super) event_hash: String,
    pub(super) session: Option<String>,
    pub(super) session_hash: String,
    pub(super) session_known: bool,
    pub(super) status: Option<String>,
    pub(super) state: String,
    pub(super) mark: String,
    pub(super) released: bool,
    pub(super) key_id: String,
    pub(super) delivery: String,
    pub(super) attempts: i64,
    pub(super) times_received: i64,
    pub(super) received_at: i64,
    pub(super) next_at: Option<i64>,
    pub(super) refused_since: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) last_error: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) bytes: Option<u64>,
}

/// Everything about one.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) event: Event,
    pub(super) interventions: Vec<Intervention>,
    pub(super) body: Option<Body>,
}

/// A body: its text only if it is one.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    pub(super) base64: String,
    pub(super) text: Option<String>,
    pub(super) cut: bool,
}

/// What no key verified.
#[derive(Debug, Deserialize)]
pub(super) struct Rejected {
    pub(super) rejected: Vec<Rejection>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(super) struct Rejection {
    pub(super) at: i64,
    pub(super) source: String,
    pub(super) reason: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) bytes: u64,
    pub(super) body: Body,
}

impl Event {
    /// The session for people, or what stands in for it.
    pub(super) fn session(&self) -> String {
        match &self.session {
            Some(session) => printable(session),
            None if self.session_known => format!("#{}", printable(&self.session_hash)),
            None => "-".to_owned(),
        }
    }

    /// Whether the shop is told, or was told, that it contradicts what came before.
    pub(super) fn is_conflict(&self) -> bool {
        self.mark == "conflict"
    }
}
