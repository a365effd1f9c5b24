//! Between the gate and the log's thread: a bounded list behind a lock that is held for a push or a swap, nothing longer.
//!
//! A push wakes nobody, so that a request costs no system call; the thread looks twice a second, and is woken when the list
//! is half full.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;

use super::lock;
use crate::policy::chain::Fields;
use crate::policy::operation::{OperationId, UnixMillis};

/// Records that wait: half a second of sixteen thousand requests each. Some 2 MiB, when they are there.
pub(super) const CAPACITY: usize = 8_192;
/// Kinds of refusals that are counted apart in one second; more than these share one count.
const REJECTED_KINDS: usize = 256;

/// An ordinary request, as the log has it. Nothing of what it carried.
#[derive(Debug)]
pub struct Request {
    /// When it ended.
    pub at: UnixMillis,
    /// The bank's name.
    pub bank: Arc<str>,
    /// Where it came in.
    pub listener: String,
    /// Who sent it, where the kernel tells.
    pub uid: Option<u32>,
    /// Which of the listener's tokens it showed: 0 is the first of `token_files`.
    pub token: Option<u32>,
    /// Its id.
    pub request_id: String,
    /// Its method, if a route may name it.
    pub method: &'static str,
    /// The route's name.
    pub route: String,
    /// What was answered.
    pub status: u16,
    /// The problem's code.
    pub code: &'static str,
    /// What became of it.
    pub outcome: &'static str,
    /// The operation that it was answered from.
    pub operation: Option<OperationId>,
    /// The body's size.
    pub bytes_in: u64,
    /// The answer's.
    pub bytes_out: u64,
    /// Milliseconds that it took.
    pub ms: u64,
}

/// A notification was refused for its signature; equal ones of one second are one record.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Rejected {
    /// The callback's name.
    pub callback: Arc<str>,
    /// Where it came in.
    pub listener: Arc<str>,
    /// Who it was, where the kernel tells.
    pub uid: Option<u32>,
    /// Why.
    pub code: &'static str,
}

/// What the thread finds.
#[derive(Debug)]
pub(super) enum Pending {
    Event(UnixMillis, Fields),
    Request(Request),
}

/// Everything that was pushed since the last look.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) pending: Vec<Pending>,
    pub(super) rejected: HashMap<Rejected, u64>,
    /// Refusals beyond [`REJECTED_KINDS`].
    pub(super) rejected_else: u64,
    /// Records that found no place.
    pub(super) dropped: u64,
    pub(super) closing: bool,
}

impl Taken {
    /// How many records it would have been.
    pub(super) fn records(&self) -> u64 {
        let kinds = self.rejected.len() + usize::from(self.rejected_else > 0);
        self.dropped
            .saturating_add((self.pending.len() + kinds) as u64)
    }
}

pub(super) struct Buffer {
    taken: Mutex<Taken>,
    capacity: usize,
    thread: OnceLock<Thread>,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            taken: Mutex::default(),
            capacity,
            thread: OnceLock::new(),
        }
    }

    /// Who is woken.
    pub(super) fn wakes(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    pub(super) fn request(&self, request: Request) {
        self.push(Pending::Request(request));
    }

    pub(super) fn event(&self, fields: Fields, at: UnixMillis) {
        self.push(Pending::Event(at, fields));
    }

    fn push(&self, pending: Pending) {
        let waiting = {
            let mut taken = lock(&self.taken);
            if taken.pending.len() >= self.capacity {
                taken.dropped = taken.dropped.saturating_add(1);
                return;
            }
            taken.pending.push(pending);
            taken.pending.len()
        };
        if waiting == self.capacity.div_ceil(2) {
            self.wake();
        }
    }

    pub(super) fn rejected(&self, rejected: Rejected) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.rejected.get_mut(&rejected) {
            *count = count.saturating_add(1);
        } else if taken.rejected.len() < REJECTED_KINDS {
            taken.rejected.insert(rejected, 1);
        } else {
            taken.rejected_else = taken.rejected_else.saturating_add(1);
        }
    }

    pub(super) fn close(&self) {
        lock(&self.taken).closing = true;
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Everything but the refusals; those too, if their second is over.
    pub(super) fn take(&self, refusals: bool) -> Taken {
        let mut taken = lock(&self.taken);
        let closing = taken.closing;
        let mut all = Taken {
            pending: std::mem::take(&mut taken.pending),
            dropped: std::mem::take(&mut taken.dropped),
            closing,
            ..Taken::default()
        };
        if refusals || closing {
            all.rejected = std::mem::take(&mut taken.rejected);
            all.rejected_else = std::mem::take(&mut taken.rejected_else);
        }
        all
    }
}

impl Request {
    /// The record, and when it happened.
    pub(super) fn fields(&self) -> Fields {
        let operation = self.operation.map(|id| id.to_string());
        Fields::of("request")
            .text("bank", &self.bank)
            .text("route", &self.route)
            .text("method", self.method)
            .text("listener", &self.listener)
            .optional("uid", self.uid)
            .optional("token", self.token)
            .text("request_id", &self.request_id)
            .text("outcome", self.outcome)
            .number("status", self.status)
            .text("code", self.code)
            .text("operation", &operation.unwrap_or_default())
            .number("bytes_in", self.bytes_in)
            .number("bytes_out", self.bytes_out)
            .number("ms", self.ms)
    }
}

impl Rejected {
    pub(super) fn fields(&self, times: u64) -> Fields {
        Fields::of("denied")
            .text("callback", &self.callback)
            .text("listener", &self.listener)
            .optional("uid", self.uid)
            .text("code", self.code)
            .number("times", times)
    }
}
