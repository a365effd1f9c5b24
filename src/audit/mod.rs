//! The audit log: who used the identity for what, in a chain that cannot be changed unseen.
//!
//! [`Audit`] is the gate's handle: what it is told costs a push, and one thread makes lines of it. What the journal owes
//! (operations, callbacks, commands of people) that thread fetches itself, and nothing of it is ever lost; records of
//! ordinary requests may be, and the log then says how many. The bytes are `policy/chain`'s; docs/audit.md explains them.

mod buffer;
mod files;
mod reconcile;
mod scan;
#[cfg(test)]
mod tests;
pub mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config;
use crate::journal::{Compared, Journal, Testimony};
use crate::net::clock::{boot_time, unix_millis};
use crate::policy::chain::{Fields, TAIL_SECONDS, Tip, Vouched};
use crate::policy::operation::UnixMillis;
use buffer::Buffer;
use files::Log;
use writer::{Owing, Writer};

pub use buffer::{Rejected, Request};
pub use files::AuditError;
pub use reconcile::{Outcome, ReconcileError, reconcile};
pub use scan::{files_of, testimony};

/// What the keyholder gives back for a checkpoint: it signs `policy::chain::checkpoint_message`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCheckpoint {
    /// What the signer vouches for.
    pub vouched: Vouched,
    /// Ed25519, over the message that the signer has built itself.
    pub signature: [u8; 64],
    /// Which key: the first 16 hexadecimal digits of the SHA-256 of its SubjectPublicKeyInfo.
    pub key_id: String,
}

/// Why the end of the chain was not signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsigned {
    /// The signer has signed this end of a log or a later one: the log is an old copy.
    #[error("{0}")]
    Behind(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<String> for Unsigned {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Asks for the signature over the end of the chain. It may block for a moment, with a deadline of its own.
pub type CheckpointSigner = Box<dyn FnMut(Tip) -> Result<SignedCheckpoint, Unsigned> + Send>;

/// How long a start waits for the first signature: the signer's own deadline, and a moment.
const FIRST_LOOK: Duration = Duration::from_secs(6);

/// Numbers for the status.
#[derive(Debug, Default)]
pub struct Counts {
    /// The last record's number.
    pub seq: AtomicU64,
    /// Records that are not in the log.
    pub lost: AtomicU64,
    /// How far the last signature reaches.
    pub signed: AtomicU64,
    /// Since when, in milliseconds since 1970, there are records without a signature; 0 for now.
    pub unsigned_since: AtomicI64,
    /// The last row of the journal that is in the log.
    pub row: AtomicI64,
}

/// An open log without its thread: opening comes before confinement, threads after it.
pub struct Prepared {
    log: Log,
    config: config::Audit,
    boot: String,
}

/// The gate's handle. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    path: PathBuf,
    buffer: Buffer,
    counts: Counts,
    /// Why nothing is written now.
    failing: Mutex<Option<String>>,
    /// Why the last checkpoint has no signature.
    unsigned: Mutex<Option<String>>,
    signs: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the log, making its file if there is none. What a crash left of a last line is cut off and put on record.
///
/// # Errors
/// [`AuditError`], with the next step.
pub fn open(config: &config::Audit) -> Result<Prepared, AuditError> {
    Ok(Prepared {
        log: Log::open(&config.file)?,
        config: config.clone(),
        boot: boot_id(),
    })
}

impl Prepared {
    /// What the log says of a journal.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn testimony(&self, journal: u64) -> io::Result<Testimony> {
        scan::testimony_of(&self.config.file, self.log.mark(), journal)
    }

    /// Starts the writer. `journal` is the one that owes, and what the log says of it. With a signer it returns when that has
    /// answered, or failed to: before a request is taken it is known whether the log is the last that was signed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        self,
        journal: Option<(Journal, Compared)>,
        signer: Option<CheckpointSigner>,
    ) -> io::Result<Audit> {
        self.start_with(journal, signer, buffer::CAPACITY)
    }

    fn start_with(
        self,
        journal: Option<(Journal, Compared)>,
        signer: Option<CheckpointSigner>,
        capacity: usize,
    ) -> io::Result<Audit> {
        let Self { log, config, boot } = self;
        let shared = Arc::new(Shared {
            path: config.file.clone(),
            buffer: Buffer::new(capacity),
            counts: Counts::default(),
            failing: Mutex::default(),
            unsigned: Mutex::default(),
            signs: signer.is_some(),
            thread: Mutex::default(),
        });
        let owing = journal
            .map(|(journal, compared)| Owing::new(journal, compared))
            .transpose()?;
        let writer = Writer::new(Arc::clone(&shared), log, config, boot, owing, signer);
        let (looked, first_look) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&looked))?;
        shared.buffer.wakes(thread.thread().clone());
        *lock(&shared.thread) = Some(thread);
        if shared.signs {
            let _ = first_look.recv_timeout(FIRST_LOOK);
        }
        Ok(Audit(shared))
    }
}

impl Audit {
    /// An ordinary request ended. Never waits: what finds no place is counted.
    pub fn request(&self, request: Request) {
        self.0.buffer.request(request);
    }

    /// A notification's signature did not fit: counted for the second.
    pub fn rejected(&self, rejected: Rejected) {
        self.0.buffer.rejected(rejected);
    }

    /// Something else happened to the gate.
    pub fn event(&self, fields: Fields, at: UnixMillis) {
        self.0.buffer.event(fields, at);
    }

    /// Numbers for the status.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Why nothing is written now, if that is so.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        lock(&self.0.failing).clone()
    }

    /// What is wrong with the signatures: the last one was refused, or two periods went by without one.
    #[must_use]
    pub fn unsigned(&self) -> Option<String> {
        if !self.0.signs {
            return None;
        }
        let refused = lock(&self.0.unsigned).clone();
        refused.or_else(|| {
            let since = self.0.counts.unsigned_since.load(Ordering::Relaxed);
            let waits = unix_millis().0.saturating_sub(since) / 1_000;
            let late = since != 0 && waits > TAIL_SECONDS;
            late.then(|| format!("there are records without a signature for {waits} s"))
        })
    }

    /// Whether somebody signs checkpoints.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.0.signs
    }

    /// The file that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Writes what waits, a last record and a checkpoint, and ends the thread. Blocks; after the journal was closed, so
    /// that everything it owes is there.
    pub fn close(&self) {
        self.0.buffer.close();
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Says why nothing is written, once for each reason; and that it is again.
    fn fails(&self, reason: Option<String>) {
        let mut failing = lock(&self.failing);
        if *failing == reason {
            return;
        }
        match &reason {
            Some(error) => tracing::error!(
                audit = %self.path.display(), error,
                "the audit log is not written; what the journal owes it waits, and past its bound guarded requests are refused"
            ),
            None => tracing::info!(audit = %self.path.display(), "the audit log is written again"),
        }
        *failing = reason;
    }

    /// Records were written that nobody has signed yet.
    fn written(&self) {
        let since = &self.counts.unsigned_since;
        let _ = since.compare_exchange(0, unix_millis().0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why the last checkpoint has no signature, or that it has one.
    fn unsigned(&self, why: Option<Unsigned>) {
        *lock(&self.unsigned) = why.map(|why| why.to_string());
    }

    fn lose(&self, records: u64) {
        self.counts.lost.fetch_add(records, Ordering::Relaxed);
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("audit::Prepared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's name for this run of the machine; where it is hidden (`ProcSubset=pid`), the second it began in.
fn boot_id() -> String {
    if let Ok(id) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        return id.trim().to_owned();
    }
    let since = i64::try_from(boot_time().0.as_millis()).unwrap_or(0);
    format!("boot-{}", unix_millis().0.saturating_sub(since) / 1_000)
}
