//! The durable store of operations and callbacks, in the domain's words: no type of SQLite leaves this folder.
//!
//! [`Journal`] is the gate's handle: it asks the one thread that writes, and what it is answered is on disk. [`Reader`] is
//! for commands, in this process or in another, while the gate runs or is down. All wall-clock time is passed in.

mod attempt;
mod ballast;
mod codec;
mod counts;
pub mod error;
pub mod failpoint;
mod hand;
pub mod inbox;
mod open;
mod operations;
mod outbox;
mod place;
pub mod read;
mod reconcile;
mod schema;
#[cfg(test)]
mod tests;
mod witness;
mod writer;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use crate::policy::operation::{
    BootTime, Digest, Event, Known, OperationId, Repeat, Resolution, State, UnixMillis,
};
use operations::{Afterthought, Ending};
use writer::{Class, Job, Message, Writer};

pub use attempt::{Attempt, Finish, Reserved};
pub use counts::Counts;
pub use error::{JournalError, OpenError};
pub use open::{OpenReport, Options};
pub use outbox::Owed;
pub use read::{Backlog, EventFilter, Reader};
pub use reconcile::{Reconciled, Remembered};
pub use witness::{Compared, Doubt, NOBODY, Outbox, Testimony, Witness};

/// How long keys, fingerprints, outcomes and answers are kept after an operation has ended: three years, the longest in
/// which a payment is disputed.
pub const KEEP_OPERATIONS: Duration = Duration::from_secs(3 * 366 * 86_400);
/// Operations that one pass of [`Journal::purge`] forgets at most: it must not hold the writer up.
const PURGE_AT_ONCE: u32 = 500;

/// A guarded request, as far as the journal must know it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bank's name.
    pub bank: String,
    /// The route's name.
    pub route: String,
    /// Stands in for the key.
    pub key: Digest,
    /// Of method, path, query and body.
    pub fingerprint: Digest,
    /// What it is about.
    pub subject: Option<Subject>,
    /// Whether the same request may be done again.
    pub repeat: Repeat,
    /// The caller.
    pub uid: Option<u32>,
    /// For the log.
    pub request_id: String,
}

/// What an operation is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Stands in for it.
    pub hash: Digest,
    /// Where in the body it was found: what the configuration said then.
    pub pointers: String,
    /// For operators.
    pub text: String,
}

/// A whole answer of the bank, as it is replayed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Those of its headers that a caller sees.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Who changed something by hand, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person {
    /// The uid of the command.
    pub uid: u32,
    /// Its process.
    pub pid: Option<i32>,
    /// Who logged in, where the kernel tells (`/proc/<pid>/loginuid`): `sudo` does not change it.
    pub login_uid: Option<u32>,
    /// In the person's own words.
    pub reason: String,
}

/// What open operations need of the configuration: with another name of the bank, or another subject, they would keep
/// nobody off any more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Dependency {
    /// The bank's name.
    pub bank: String,
    /// The pointers of their subject, as [`Subject::pointers`] has them.
    pub pointers: Option<String>,
    /// How many operations.
    pub operations: u64,
    /// The oldest of them.
    pub first: String,
}

/// What the file system of a journal means for it: the name of one that forgets, if that is allowed.
///
/// # Errors
/// [`OpenError`] when a journal would not be opened there.
pub fn file_system(path: &Path, allow_volatile: bool) -> Result<Option<&'static str>, OpenError> {
    place::file_system(path, allow_volatile)
}

/// Recalls at a time: they share the blocking threads with the handshakes.
const RECALLS: usize = 2;
/// How long a recall may take, waiting included.
const RECALL: Duration = Duration::from_secs(1);

type Afterthoughts = Arc<Mutex<Vec<Afterthought>>>;

/// A journal that was opened and has no thread yet: opening comes before confinement, threads after it.
pub struct Prepared {
    opened: open::Opened,
    path: PathBuf,
    process: String,
    options: Options,
}

/// The gate's handle. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    path: PathBuf,
    process: String,
    queue: SyncSender<Message>,
    afterthoughts: Afterthoughts,
    counts: Arc<Counts>,
    failed: watch::Receiver<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    unique: AtomicU64,
    recalls: Arc<Semaphore>,
    /// Counts what people did to events: whoever delivers them looks again.
    by_hand: watch::Sender<u64>,
    /// Kept until the thread is gone.
    _lock: place::Lock,
}

impl Prepared {
    /// Starts the writer.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self) -> std::io::Result<Journal> {
        let Self {
            opened,
            path,
            process,
            options,
        } = self;
        let (queue, inbox) = sync_channel(options.queue.max(1));
        let (failed, watch) = watch::channel(None);
        let afterthoughts = Afterthoughts::default();
        let counts = Arc::new(Counts::default());
        let writer = Writer {
            connection: opened.connection,
            queue: inbox,
            afterthoughts: Arc::clone(&afterthoughts),
            frames: opened.frames,
            ballast: opened.ballast,
            counts: Arc::clone(&counts),
            failed,
            last_batch: 0,
        };
        // Before the thread: a doubt or a freeze belongs into the first status, and into the warnings of the start.
        writer.count();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())?;
        Ok(Journal(Arc::new(Shared {
            path,
            process,
            queue,
            afterthoughts,
            counts,
            failed: watch,
            thread: Mutex::new(Some(thread)),
            unique: AtomicU64::new(RandomState::new().build_hasher().finish()),
            recalls: Arc::new(Semaphore::new(RECALLS)),
            by_hand: watch::Sender::new(0),
            _lock: opened.lock,
        })))
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal at `path`, making it if there is none, and closes what an earlier process left open.
    ///
    /// # Errors
    /// [`OpenError`], with the next step.
    pub fn open(
        path: &Path,
        options: Options,
        now: UnixMillis,
    ) -> Result<(Prepared, OpenReport), OpenError> {
        Self::open_beside(path, options, Outbox::AsItIs, now)
    }

    /// The same, beside an audit log or without one.
    ///
    /// # Errors
    /// [`OpenError`], with the next step.
    pub fn open_beside(
        path: &Path,
        options: Options,
        outbox: Outbox<'_>,
        now: UnixMillis,
    ) -> Result<(Prepared, OpenReport), OpenError> {
        // std seeds each RandomState from the system.
        let process = format!("{:016x}", RandomState::new().build_hasher().finish());
        let opened = open::open(path, options, outbox, &process, now)?;
        let report = opened.report.clone();
        Ok((
            Prepared {
                opened,
                path: path.to_owned(),
                process,
                options,
            },
            report,
        ))
    }

    /// Decides about a request, and takes its key if it may run.
    ///
    /// # Errors
    /// [`JournalError`]: nothing was decided, nothing may be sent.
    pub async fn reserve(
        &self,
        request: Request,
        now: UnixMillis,
    ) -> Result<Reserved, JournalError> {
        let fresh = self.fresh_id(now);
        let process = self.0.process.clone();
        let afterthoughts = Arc::clone(&self.0.afterthoughts);
        // Made after the commit and before the answer is sent, so that a reservation that nobody waits for any more is
        // given back by its drop.
        let attempt = move |reserved| match reserved {
            operations::Reserved::Run { row, attempt, id } => Reserved::Run(Attempt {
                id,
                row,
                number: attempt,
                settled: false,
                at: now,
                afterthoughts,
            }),
            operations::Reserved::Replay(operation, answer) => {
                Reserved::Replay { operation, answer }
            }
            operations::Reserved::Refuse(refusal) => Reserved::Refused(refusal),
        };
        let work = move |connection: &Connection| {
            operations::reserve(connection, &request, fresh, &process, now)
        };
        let (reserved, _) = self
            .ask("reserve", Class::Starts, 512, None, work, attempt)
            .await?;
        Ok(reserved)
    }

    /// What is known under a key, read beside the writer: for when that cannot be asked.
    ///
    /// # Errors
    /// [`JournalError::Busy`] when it cannot be read in time either.
    pub async fn recall(
        &self,
        bank: String,
        key: Digest,
    ) -> Result<Option<(Known, Option<StoredAnswer>)>, JournalError> {
        let recall = async {
            let place = self.0.recalls.clone().acquire_owned().await.ok()?;
            let path = self.0.path.clone();
            let read = tokio::task::spawn_blocking(move || {
                let _place = place;
                Reader::open(&path)
                    .ok()
                    .and_then(|reader| reader.recall(&bank, key).ok())
            });
            read.await.ok().flatten()
        };
        match timeout(RECALL, recall).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => Err(JournalError::Busy),
        }
    }

    /// Commits, before the first byte, that the request is about to be sent. Gives the moment at which the disk had it.
    ///
    /// # Errors
    /// [`JournalError`]: nothing may be sent; finish the attempt as not sent.
    pub async fn mark_sent(
        &self,
        attempt: &mut Attempt,
        now: UnixMillis,
    ) -> Result<BootTime, JournalError> {
        attempt.at = now;
        let (row, number) = (attempt.row, attempt.number);
        let (result, at) = self
            .call("sent", Class::Starts, 64, None, move |connection| {
                operations::mark_sent(connection, row, number, now)
            })
            .await?;
        result.map(|()| at)
    }

    /// Commits how an attempt ended. On a full disk the end is kept in memory and written when there is space.
    ///
    /// # Errors
    /// [`JournalError`]: the operation stays as it was, until that later moment or the next start.
    pub async fn finish(
        &self,
        attempt: &mut Attempt,
        finish: Finish,
        now: UnixMillis,
    ) -> Result<State, JournalError> {
        let (event, code, answer) = match finish {
            Finish::Answered { ending, answer } => (Event::Answered(ending), None, Some(answer)),
            // Before `sent` was on disk for sure, the row may be in either state; both know this step.
            Finish::NotSent { code } => (Event::NotSent, Some(code), None),
            Finish::Unknown { code, listening } => (Event::Lost { listening }, Some(code), None),
        };
        attempt.settled = !matches!(event, Event::Lost { listening: true });
        attempt.at = now;
        let ending = Ending {
            row: attempt.row,
            attempt: attempt.number,
            event,
            code,
            answer,
            at: now,
        };
        let bytes = ending
            .answer
            .as_ref()
            .map_or(64, |answer| answer.body.len());
        let later = Some(Afterthought::Settle(ending.clone()));
        let (state, _) = self
            .call("finish", Class::Settles, bytes, later, move |connection| {
                operations::finish(connection, &ending)
            })
            .await?;
        state
    }

    /// Notes that the answer of a `done` operation was handed to a caller: its subject is free. Written with whatever the
    /// journal does next, before anything that is asked after this call.
    pub fn delivered(&self, id: OperationId, now: UnixMillis) {
        push(&self.0.afterthoughts, Afterthought::Delivered(id, now));
    }

    /// Ends an `unknown` operation by a person's word.
    ///
    /// # Errors
    /// [`JournalError::Forbidden`] for any other state, and while the attempt still listens.
    pub async fn resolve(
        &self,
        id: OperationId,
        resolution: Resolution,
        answer: Option<StoredAnswer>,
        person: Person,
        now: UnixMillis,
    ) -> Result<State, JournalError> {
        let bytes = answer.as_ref().map_or(64, |answer| answer.body.len());
        self.call("resolve", Class::Settles, bytes, None, move |connection| {
            hand::resolve(connection, id, resolution, answer.as_ref(), &person, now)
        })
        .await?
        .0
    }

    /// Lets go of the subject of a `done` operation whose answer reached nobody.
    ///
    /// # Errors
    /// [`JournalError::Forbidden`] for any other.
    pub async fn release(
        &self,
        id: OperationId,
        person: Person,
        now: UnixMillis,
    ) -> Result<State, JournalError> {
        self.call("release", Class::Settles, 64, None, move |connection| {
            hand::release(connection, id, &person, now)
        })
        .await?
        .0
    }

    /// Refuses guarded routes, or takes them again. `false` if it was so already.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn freeze(
        &self,
        frozen: bool,
        person: Person,
        now: UnixMillis,
    ) -> Result<bool, JournalError> {
        let (changed, _) = self
            .call("freeze", Class::Settles, 64, None, move |connection| {
                hand::freeze(connection, frozen, &person, now)
            })
            .await?;
        Ok(changed)
    }

    /// Forgets a bounded number of operations whose time is over. Gives how many; nothing that is open is among them.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn purge(&self, now: UnixMillis) -> Result<usize, JournalError> {
        let before = now.before(KEEP_OPERATIONS);
        let (forgotten, _) = self
            .call("purge", Class::Starts, 64, None, move |connection| {
                operations::purge(connection, before, PURGE_AT_ONCE, now)
            })
            .await?;
        Ok(forgotten)
    }

    /// Why the journal is closed for this process, once it is.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.0.failed.clone()
    }

    /// Changes when a person has changed something in the inbox.
    #[must_use]
    pub fn changed_by_hand(&self) -> watch::Receiver<u64> {
        self.0.by_hand.subscribe()
    }

    /// Numbers for the status.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    fn process(&self) -> &str {
        &self.0.process
    }

    /// Writes what waits and ends the thread. Blocks; for the end of the process.
    pub fn close(&self) {
        // The queue may be full of work: the thread takes it in turn.
        let _ = self.0.queue.send(Message::Close);
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn fresh_id(&self, now: UnixMillis) -> OperationId {
        // A counter with a random start: two ids of one millisecond differ, and so do those of two processes.
        let unique = self.0.unique.fetch_add(1, Ordering::Relaxed);
        OperationId::new(now, (unique & u64::from(u32::MAX)) as u32)
    }

    async fn call<T, F>(
        &self,
        name: &'static str,
        class: Class,
        bytes: usize,
        later: Option<Afterthought>,
        work: F,
    ) -> Result<(T, BootTime), JournalError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask(name, class, bytes, later, work, |value| value)
            .await
    }

    async fn ask<T, U, F, G>(
        &self,
        name: &'static str,
        class: Class,
        bytes: usize,
        later: Option<Afterthought>,
        work: F,
        done: G,
    ) -> Result<(U, BootTime), JournalError>
    where
        T: Send + 'static,
        U: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        G: FnOnce(T) -> U + Send + 'static,
    {
        if self.0.failed.borrow().is_some() {
            return Err(JournalError::Failed);
        }
        let (reply, answer) = oneshot::channel();
        let kept = later.clone();
        let job = Job {
            name,
            class,
            bytes,
            work,
            result: None,
            done,
            reply,
            later,
        };
        match self.0.queue.try_send(Message::Task(Box::new(job))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if let Some(later) = kept {
                    push(&self.0.afterthoughts, later);
                }
                return Err(JournalError::Busy);
            }
            Err(TrySendError::Disconnected(_)) => return Err(JournalError::Failed),
        }
        answer.await.unwrap_or(Err(JournalError::Failed))
    }
}

fn push(afterthoughts: &Afterthoughts, afterthought: Afterthought) {
    afterthoughts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(afterthought);
}
