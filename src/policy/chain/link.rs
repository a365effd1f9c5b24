//! Whether a signature follows on the one before it: the signer says what it had signed last, and that must be here.
//!
//! Mostly it is the signature before. When an answer was lost (a crash between signature and record) it is a record
//! after that one, and the hashes since then tell.

use std::collections::VecDeque;

use super::Tip;
use crate::policy::operation::Digest;

/// Hashes that are kept, 8 MiB: four times of what the journal owes at most. A signature that was lost so many unsigned
/// records ago is not followed.
const KEPT: usize = 1 << 18;

/// The hashes since the last signature; before the first one, since the record before the first.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The number of the first hash.
    base: u64,
    hashes: VecDeque<Digest>,
    /// What was before this number nobody knows here: the record before the first one, until there was a signature; and
    /// after a hole.
    start: Option<u64>,
}

impl Links {
    /// Begins after this record.
    pub(super) fn begin(&mut self, before: Tip) {
        self.push(before);
        self.start = Some(before.seq);
    }

    /// The next record. After a hole, which is a fault of its own, it begins anew.
    pub(super) fn push(&mut self, tip: Tip) {
        if tip.seq != self.base.saturating_add(self.hashes.len() as u64) {
            self.hashes.clear();
            self.start = Some(tip.seq);
        }
        if self.hashes.is_empty() {
            self.base = tip.seq;
        }
        self.hashes.push_back(tip.hash);
        if self.hashes.len() > KEPT {
            self.hashes.pop_front();
            self.base += 1;
        }
    }

    /// Whether this was the end of this very log, at the last signature or after it. The first signature may follow on one
    /// of a file that was ended, or on none.
    pub(super) fn reach(&self, before: Tip) -> bool {
        if let Some(place) = before.seq.checked_sub(self.base) {
            let place = usize::try_from(place).ok();
            return place.and_then(|place| self.hashes.get(place)) == Some(&before.hash);
        }
        let gone = self.start.is_some_and(|start| before.seq < start);
        gone && (before.seq > 0 || before == Tip::GENESIS)
    }

    /// A signature: nothing before it will be asked for.
    pub(super) fn signed(&mut self, of: Tip) {
        self.start = None;
        while self.base < of.seq && self.hashes.pop_front().is_some() {
            self.base += 1;
        }
    }
}
