//! The right to run an operation once: what it is given by, how it ends, and what becomes of it when nobody ends it.

use super::operations::{Afterthought, Ending};
use super::{Afterthoughts, StoredAnswer, UnixMillis, push};
use crate::policy::operation::{self, Event, Known, OperationId, Refusal};

/// What a reservation came to.
#[derive(Debug)]
#[must_use]
pub enum Reserved {
    /// The request runs, and this is its right to.
    Run(Attempt),
    /// It was done before; the answer is missing where a person resolved it without one.
    Replay {
        /// The operation.
        operation: Known,
        /// What the bank answered then.
        answer: Option<StoredAnswer>,
    },
    /// It is refused.
    Refused(Refusal),
}

/// The right to run an operation once. Dropping it unfinished settles the operation: `not_sent` before `sent` is on disk,
/// `unknown` after it.
#[derive(Debug)]
pub struct Attempt {
    pub(super) id: OperationId,
    pub(super) row: i64,
    /// The fencing token.
    pub(super) number: i64,
    pub(super) settled: bool,
    pub(super) at: UnixMillis,
    pub(super) afterthoughts: Afterthoughts,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Finish {
    /// The bank gave a whole answer.
    Answered {
        /// What it means.
        ending: operation::Ending,
        /// The answer.
        answer: StoredAnswer,
    },
    /// Provably, the bank has read nothing.
    NotSent {
        /// The problem's code.
        code: &'static str,
    },
    /// No usable answer.
    Unknown {
        /// The problem's code.
        code: &'static str,
        /// The attempt listens on: it will be finished once more.
        listening: bool,
    },
}

impl Attempt {
    /// The operation's name.
    #[must_use]
    pub fn id(&self) -> OperationId {
        self.id
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let ending = Ending {
            row: self.row,
            attempt: self.number,
            // As if its process had ended: `reserved` was not sent, `sent` is unknown.
            event: Event::Restart,
            code: Some("attempt_dropped"),
            answer: None,
            at: self.at,
        };
        push(&self.afterthoughts, Afterthought::Settle(ending));
    }
}
