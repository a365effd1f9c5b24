//! The handle: what the guard saw and the service above hyper must know.
//!
//! One cell per connection, written by the guard and read by the service. It holds at most one
//! head, since a connection serves one message at a time. The lock never leaves this module and is
//! never held across an await.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::policy::head;

/// Why the request that the service sees is not the caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The head was judged and refused.
    Head(head::Refusal),
    /// The caller closed its side inside the head. It may still be reading.
    Incomplete,
    /// The connection broke inside the head.
    Lost(io::ErrorKind),
    /// The head did not arrive in time.
    TimedOut,
}

/// The service's view of its connection's guard. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Cell>);

impl Handle {
    /// Takes the verdict on the request that the service was just called with, and marks that
    /// request as served. Must be the first thing in every call of the service: `Some` means that
    /// the request is the guard's harmless replacement, to be answered by an error.
    #[must_use]
    pub fn take_refusal(&self) -> Option<Refusal> {
        let mut state = self.0.lock();
        state.waiting = false;
        state.refusal.take()
    }

    /// When the first byte of the current request's head was seen. To be read when the service is
    /// called: afterwards the next head moves it on.
    #[must_use]
    pub fn head_started(&self) -> Option<Instant> {
        self.0.lock().started
    }

    /// Whether a head was started that no service was called for. Asked when the connection has
    /// ended (after a shutdown, say), so that this request gets its record too;
    /// [`Self::take_refusal`] then says what was wrong with it, if anything was.
    #[must_use]
    pub fn unserved(&self) -> bool {
        self.0.lock().waiting
    }

    pub(super) fn cell(&self) -> Arc<Cell> {
        Arc::clone(&self.0)
    }
}

/// What the guard and its handles share.
#[derive(Debug, Default)]
pub(super) struct Cell(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    started: Option<Instant>,
    /// From a head's first byte until the service takes the request.
    waiting: bool,
    refusal: Option<Refusal>,
}

impl Cell {
    /// The first byte of a head was seen.
    pub(super) fn start(&self, since: Instant) {
        self.hand_over(since, None);
    }

    /// A head is handed to hyper: the caller's own, or a replacement for the reason given.
    pub(super) fn hand_over(&self, since: Instant, refusal: Option<Refusal>) {
        *self.lock() = State {
            started: Some(since),
            waiting: true,
            refusal,
        };
    }

    /// Nothing that holds the lock can panic half way, so a poisoned lock guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
