//! What the writer counts for the status.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::operations;
use crate::metrics::Histogram;

/// Numbers for the status.
#[derive(Debug, Default)]
pub struct Counts {
    /// Operations that are `reserved` or `sent`.
    pub open: AtomicU64,
    /// Operations that are `unknown`.
    pub unknown: AtomicU64,
    /// Operations that are `done` and whose answer reached nobody.
    pub undelivered: AtomicU64,
    /// Guarded routes are frozen.
    pub frozen: AtomicBool,
    /// The journal does not know what the audit log knows.
    pub doubted: AtomicBool,
    /// New operations are refused until the disk has space.
    pub full: AtomicBool,
    /// Transactions committed by this process.
    pub commits: AtomicU64,
    /// Works in them.
    pub rows: AtomicU64,
    /// How long they took, from their begin to the disk's word.
    pub commit: Histogram,
}

impl Counts {
    pub(super) fn set(&self, holding: operations::Holding) {
        let pairs: [(&AtomicU64, u64); 3] = [
            (&self.open, holding.open),
            (&self.unknown, holding.unknown),
            (&self.undelivered, holding.undelivered),
        ];
        for (cell, value) in pairs {
            cell.store(value, Ordering::Relaxed);
        }
        self.frozen.store(holding.frozen, Ordering::Relaxed);
        self.doubted.store(holding.doubted, Ordering::Relaxed);
    }
}
