//! Why handshakes were not signed, counted for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::AskError;

/// Why a handshake was not signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unsigned {
    /// It has no such key any more: a rotation, and the handshake starts over.
    KeyChanged,
    /// It will not sign this.
    Refused,
    /// `sign_rate` is used up.
    SignRate,
    /// No answer.
    Unanswered,
}

impl Unsigned {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::KeyChanged,
        Self::Refused,
        Self::SignRate,
        Self::Unanswered,
    ];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyChanged => "key_changed",
            Self::Refused => "refused",
            Self::SignRate => "sign_rate",
            Self::Unanswered => "unanswered",
        }
    }

    fn of(error: &AskError) -> Self {
        match error {
            AskError::KeyChanged => Self::KeyChanged,
            AskError::Refused(_) => Self::Refused,
            AskError::Pace => Self::SignRate,
            AskError::Closed(_)
            | AskError::Gone(_)
            | AskError::Kept(_)
            | AskError::TimedOut(_)
            | AskError::Unexpected => Self::Unanswered,
        }
    }
}

/// One count for each.
#[derive(Debug)]
pub(super) struct Counts([AtomicU64; Unsigned::ALL.len()]);

impl Counts {
    pub(super) fn of(&self, why: Unsigned) -> u64 {
        let cell = self.0.get(why as usize);
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn count(&self, error: &AskError) {
        if let Some(cell) = self.0.get(Unsigned::of(error) as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Unsigned::ALL.len()])
    }
}
