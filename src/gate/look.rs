//! A look every few seconds at what changes without a request: the keyholder, the disk, the audit log's backlog, ends of
//! certificates. What it finds the status and the metrics show; what begins or is over is told to the log, once.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use super::status::View;
use crate::journal::Reader;

/// How often. A person is told in minutes; the look costs a question to the keyholder and some system calls.
const LOOK: Duration = Duration::from_secs(5);
/// How long the keyholder may take for its answer: it is one thread that signs, too.
const ANSWER: Duration = Duration::from_secs(2);
/// Below this the disk is low: the write-ahead log, what may wait for the audit log, and some days of a busy shop, so that
/// there is time to act before new operations are refused.
pub(super) const DISK_LOW: u64 = 256 << 20;

/// What the last look found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) at: SystemTime,
    /// Of the journal's file system; `None` without a journal.
    pub(super) disk_free: Option<u64>,
    /// The journal's files.
    pub(super) journal_size: u64,
    /// Rows that the audit log does not have yet.
    pub(super) owed: u64,
    /// Operations that are `unknown`.
    unknown: u64,
}

/// Where it is shown.
#[derive(Debug)]
pub(super) struct Look(Mutex<Found>);

impl Default for Look {
    fn default() -> Self {
        Self(Mutex::new(Found {
            at: SystemTime::UNIX_EPOCH,
            disk_free: None,
            journal_size: 0,
            owed: 0,
            unknown: 0,
        }))
    }
}

impl Found {
    pub(super) fn is_low(&self) -> bool {
        self.disk_free.is_some_and(|free| free < DISK_LOW)
    }
}

impl Look {
    /// The last one.
    pub(super) fn found(&self) -> Found {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, found: Found) -> Found {
        std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            found,
        )
    }
}

/// Looks until `end` says so.
pub(super) async fn run(view: Arc<View>, mut end: watch::Receiver<bool>) {
    loop {
        let looked = Arc::clone(&view);
        let found = tokio::task::spawn_blocking(move || {
            if let Some(keyholder) = &looked.keyholder {
                // Whoever asks first after it has gone notices; this is for when nobody does.
                let _ = keyholder.keys(Instant::now() + ANSWER);
            }
            once(&looked)
        });
        if let Ok(found) = found.await {
            let before = view.look.set(found);
            tell(&view, before, found);
            view.tell_of_ends(found.at);
        }
        let told = end.wait_for(|end| *end);
        if timeout(LOOK, told).await.is_ok() {
            return;
        }
    }
}

/// Looks at what does not block for long, so that the first status has it.
pub(super) fn first(view: &View) {
    let found = once(view);
    let before = Found {
        // The journal's opening has told of these.
        unknown: found.unknown,
        ..view.look.set(found)
    };
    tell(view, before, found);
    view.tell_of_ends(found.at);
}

fn once(view: &View) -> Found {
    let mut found = Found {
        at: SystemTime::now(),
        ..Look::default().found()
    };
    let Some(facts) = &view.ledger else {
        return found;
    };
    let path = facts.journal.path();
    found.disk_free = free(path);
    found.journal_size = size(path);
    found.unknown = facts.journal.counts().unknown.load(Relaxed);
    if view.audit.is_some() {
        let owed = Reader::open(path)
            .ok()
            .and_then(|reader| reader.owes().ok());
        found.owed = owed.unwrap_or(found.owed);
    }
    found
}

fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path.parent()?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The database and its write-ahead log.
fn size(path: &Path) -> u64 {
    let mut log = PathBuf::from(path).into_os_string();
    log.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    size(path).saturating_add(size(Path::new(&log)))
}

fn tell(view: &View, before: Found, now: Found) {
    let Some(facts) = &view.ledger else { return };
    let journal = facts.journal.path().display();
    match (before.is_low(), now.is_low()) {
        (false, true) => tracing::error!(
            %journal,
            free = now.disk_free,
            "the journal's disk is nearly full: free some space before new operations are refused"
        ),
        (true, false) => {
            tracing::info!(%journal, free = now.disk_free, "the journal's disk has space again")
        }
        (true, true) | (false, false) => {}
    }
    if now.unknown > before.unknown {
        tracing::warn!(
            unknown = now.unknown,
            "operations may have reached the bank and have no answer; see `priorgate operations list --open`"
        );
    }
}
