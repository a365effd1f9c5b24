//! The one thread that writes: batches, commits, checkpoints, and what an error means for everybody who waits.
//!
//! It knows transactions and their faults, and nothing of what is in them: a [`Task`] brings its own statements.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::ballast::Ballast;
use super::error::{Fault, JournalError, fault};
use super::operations::{self, Afterthought};
use super::{Counts, failpoint, open};
use crate::net::clock::boot_time;
use crate::policy::operation::BootTime;

/// Items of one transaction.
const BATCH_ITEMS: usize = 256;
/// Bytes of one transaction.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch waits for company, when the last one had some.
const BATCH_WAIT: Duration = Duration::from_micros(200);
/// How often an idle writer looks after its files.
const TICK: Duration = Duration::from_secs(1);
/// Frames of the WAL after which they are copied into the database.
const CHECKPOINT_FRAMES: i32 = 1_000;
/// Frames (16 MiB) after which the WAL is cut, busy or not.
const TRUNCATE_FRAMES: i32 = 4_000;
/// Afterthoughts that wait for space. More than can be open at a time is a mistake of ours.
const AFTERTHOUGHTS: usize = 16_384;

/// What the writer is told.
pub(super) enum Message {
    /// Do this.
    Task(Box<dyn Task>),
    /// Finish what waits, and end.
    Close,
}

/// Whether a task starts something new or records what has happened. On a full disk only the latter is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Starts,
    Settles,
}

/// One item of a batch. It may run more than once: a batch that failed is taken apart.
pub(super) trait Task: Send {
    fn name(&self) -> &'static str;
    fn class(&self) -> Class;
    fn bytes(&self) -> usize;
    /// Inside the transaction.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// After the commit, with the moment at which it returned; or instead of it.
    fn answer(self: Box<Self>, result: Result<BootTime, JournalError>);
    /// On a full disk: what is to be done later, if this can be.
    fn afterthought(&mut self) -> Option<Afterthought>;
}

/// A task made of two closures: `work` in the transaction, as often as that is tried, and `done` once, after the commit.
pub(super) struct Job<F, T, G, U> {
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) bytes: usize,
    pub(super) work: F,
    pub(super) result: Option<T>,
    pub(super) done: G,
    pub(super) reply: oneshot::Sender<Result<(U, BootTime), JournalError>>,
    pub(super) later: Option<Afterthought>,
}

impl<F, T, G, U> Task for Job<F, T, G, U>
where
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
    G: FnOnce(T) -> U + Send,
    U: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn class(&self) -> Class {
        self.class
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<BootTime, JournalError>) {
        let result = match (result, self.result) {
            (Ok(at), Some(value)) => Ok(((self.done)(value), at)),
            (Ok(_), None) => Err(JournalError::Internal("a task did not run".to_owned())),
            (Err(error), _) => Err(error),
        };
        // Whoever asked may have left; what is on disk stays.
        let _ = self.reply.send(result);
    }

    fn afterthought(&mut self) -> Option<Afterthought> {
        self.later.take()
    }
}

/// What goes into one transaction.
type Batch = VecDeque<Box<dyn Task>>;

/// The thread's state.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Receiver<Message>,
    pub(super) afterthoughts: Arc<Mutex<Vec<Afterthought>>>,
    pub(super) frames: Arc<AtomicI32>,
    pub(super) ballast: Ballast,
    pub(super) counts: Arc<Counts>,
    pub(super) failed: watch::Sender<Option<String>>,
    pub(super) last_batch: usize,
}

impl Writer {
    /// Runs until told to close.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.queue.recv_timeout(TICK) {
                Ok(Message::Task(task)) => task,
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.idle();
                    continue;
                }
            };
            let (batch, close) = self.collect(first);
            self.carry_out(batch);
            self.checkpoint_if_due();
            if close {
                break;
            }
        }
        self.close();
    }

    fn is_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Takes what waits already, and a little of what comes, if the last batch had company.
    fn collect(&mut self, first: Box<dyn Task>) -> (Batch, bool) {
        let until = (self.last_batch > 1).then(|| Instant::now() + BATCH_WAIT);
        let mut bytes = first.bytes();
        let mut batch = VecDeque::from([first]);
        let mut close = false;
        while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            let next = match self.queue.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    let left = until
                        .map(|until| until.saturating_duration_since(Instant::now()))
                        .filter(|left| !left.is_zero());
                    match left.map(|left| self.queue.recv_timeout(left)) {
                        Some(Ok(message)) => message,
                        Some(Err(_)) | None => break,
                    }
                }
            };
            match next {
                Message::Task(task) => {
                    bytes = bytes.saturating_add(task.bytes());
                    batch.push_back(task);
                }
                Message::Close => {
                    close = true;
                    break;
                }
            }
        }
        self.last_batch = batch.len();
        (batch, close)
    }

    /// Answers every task of a batch, one way or another.
    fn carry_out(&mut self, batch: Batch) {
        if self.is_failed() {
            refuse(batch, &JournalError::Failed);
            return;
        }
        let batch = if self.ballast.restore() {
            batch
        } else {
            let (start, settle) = split(batch);
            refuse(start, &JournalError::Full);
            settle
        };
        let before = self.take_afterthoughts();
        if batch.is_empty() && before.is_empty() {
            return;
        }
        self.attempt(batch, before);
    }

    fn attempt(&mut self, mut batch: Batch, before: Vec<Afterthought>) {
        let error = match self.transaction(&mut batch, &before) {
            Ok(at) => {
                self.count();
                for task in batch {
                    task.answer(Ok(at));
                }
                return;
            }
            Err(error) => error,
        };
        match fault(&error) {
            Fault::Full => {
                let (start, settle) = split(batch);
                refuse(start, &JournalError::Full);
                let spent = self.ballast.spend();
                self.counts.full.store(true, Ordering::Relaxed);
                if spent {
                    tracing::error!(
                        "the journal's disk is full: new operations are refused before they are sent, until there is space"
                    );
                    self.attempt(settle, before);
                } else {
                    // Even the ballast is gone. What can be done later is kept, so that it is not forgotten while we live.
                    self.keep(before);
                    for mut task in settle {
                        let later = task.afterthought();
                        self.keep(later);
                        task.answer(Err(JournalError::Full));
                    }
                }
            }
            Fault::Held => {
                tracing::error!(
                    "another program holds the journal: nothing can be written until it lets go"
                );
                self.keep(before);
                for mut task in batch {
                    let later = task.afterthought();
                    self.keep(later);
                    task.answer(Err(JournalError::Held));
                }
            }
            Fault::Statement => self.apart(batch, before, &error),
            Fault::Broken => {
                self.fail(&error);
                refuse(batch, &JournalError::Failed);
            }
        }
    }

    /// One item's mistake must not fail its neighbours.
    fn apart(&mut self, mut batch: Batch, mut before: Vec<Afterthought>, error: &rusqlite::Error) {
        if batch.len() + before.len() <= 1 {
            tracing::error!(%error, "the journal refused a statement of ours");
            for mut task in batch {
                // What it wanted to say cannot be said; that it ended can.
                let ended = task.afterthought().and_then(Afterthought::ended);
                self.keep(ended);
                task.answer(Err(JournalError::Internal(error.to_string())));
            }
            return;
        }
        for afterthought in before.drain(..) {
            // After a failure nothing is written any more.
            if !self.is_failed() {
                self.attempt(VecDeque::new(), vec![afterthought]);
            }
        }
        while let Some(task) = batch.pop_front() {
            if self.is_failed() {
                task.answer(Err(JournalError::Failed));
            } else {
                self.attempt(VecDeque::from([task]), Vec::new());
            }
        }
    }

    /// Everything or nothing, durable when it returns. An error inside a commit means "unknown", not "no": only a restart
    /// can tell (journal.md in the design notes calls this the fsync gate).
    fn transaction(
        &self,
        batch: &mut Batch,
        before: &[Afterthought],
    ) -> rusqlite::Result<BootTime> {
        let names: Vec<&'static str> = (!before.is_empty())
            .then_some("afterwards")
            .into_iter()
            .chain(batch.iter().map(|task| task.name()))
            .collect();
        let begun = Instant::now();
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = before
            .iter()
            .try_for_each(|afterthought| operations::afterwards(&self.connection, afterthought))
            .and_then(|()| {
                batch
                    .iter_mut()
                    .try_for_each(|task| task.run(&self.connection))
            })
            .and_then(|()| {
                for name in &names {
                    failpoint::at(name, "before_commit");
                }
                self.connection.execute_batch("COMMIT")
            });
        let at = boot_time();
        match done {
            Ok(()) => {
                for name in &names {
                    failpoint::at(name, "after_commit");
                }
                self.counts.commits.fetch_add(1, Ordering::Relaxed);
                self.counts.commit.observe(begun.elapsed());
                self.counts
                    .rows
                    .fetch_add(batch.len() as u64, Ordering::Relaxed);
                Ok(at)
            }
            Err(error) => {
                // SQLite may have rolled back by itself; a second ROLLBACK would be an error that hides the first.
                if !self.connection.is_autocommit() {
                    self.connection.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    /// Publishes what there is now.
    pub(super) fn count(&self) {
        self.counts
            .full
            .store(!self.ballast.is_held(), Ordering::Relaxed);
        match operations::holding(&self.connection) {
            Ok(holding) => self.counts.set(holding),
            Err(error) => tracing::debug!(%error, "the journal's counts are old"),
        }
    }

    fn take_afterthoughts(&self) -> Vec<Afterthought> {
        std::mem::take(&mut *self.lock())
    }

    fn keep(&self, afterthoughts: impl IntoIterator<Item = Afterthought>) {
        let mut kept = self.lock();
        kept.extend(afterthoughts);
        // Losing the oldest leaves its row as it is: `sent` becomes `unknown` at the next start, never less.
        let surplus = kept.len().saturating_sub(AFTERTHOUGHTS);
        kept.drain(..surplus);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Afterthought>> {
        self.afterthoughts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&mut self) {
        if self.is_failed() {
            return;
        }
        self.last_batch = 0;
        let was_held = self.ballast.is_held();
        if self.ballast.restore() && !was_held {
            tracing::info!("the journal's disk has space again: new operations are taken");
            self.count();
        }
        let before = self.take_afterthoughts();
        if !before.is_empty() {
            self.attempt(VecDeque::new(), before);
        }
        if self.frames.load(Ordering::Relaxed) > 0 {
            self.checkpoint("TRUNCATE");
        }
    }

    fn checkpoint_if_due(&mut self) {
        match self.frames.load(Ordering::Relaxed) {
            _ if self.is_failed() => {}
            frames if frames > TRUNCATE_FRAMES => self.checkpoint("TRUNCATE"),
            frames if frames >= CHECKPOINT_FRAMES => self.checkpoint("PASSIVE"),
            _ => {}
        }
    }

    fn checkpoint(&mut self, mode: &str) {
        match open::checkpoint(&self.connection, mode) {
            Ok(_) => self.frames.store(0, Ordering::Relaxed),
            Err(error) => match fault(&error) {
                Fault::Full => {
                    self.ballast.spend();
                }
                // A reader is at it: the next one will do.
                Fault::Held | Fault::Statement => {}
                Fault::Broken => self.fail(&error),
            },
        }
    }

    /// From here on nothing is written by this process any more.
    fn fail(&self, error: &rusqlite::Error) {
        let text = error.to_string();
        tracing::error!(
            error = text,
            "the journal failed and is closed for this process"
        );
        self.failed.send_replace(Some(text));
    }

    fn close(mut self) {
        while let Ok(message) = self.queue.try_recv() {
            if let Message::Task(task) = message {
                self.carry_out(VecDeque::from([task]));
            }
        }
        if !self.is_failed() {
            let before = self.take_afterthoughts();
            if !before.is_empty() {
                self.attempt(VecDeque::new(), before);
            }
        }
        if self.is_failed() {
            // Closing would checkpoint, that is, sync again what failed to sync once: the pages count as clean by now, and
            // the second sync would lie. The process ends; the kernel closes.
            std::mem::forget(self.connection);
            return;
        }
        if let Err(error) = open::checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the journal's last checkpoint was left to the next start");
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the journal was not closed cleanly");
        }
    }
}

fn split(batch: Batch) -> (Batch, Batch) {
    batch
        .into_iter()
        .partition(|task| task.class() == Class::Starts)
}

fn refuse(batch: impl IntoIterator<Item = Box<dyn Task>>, error: &JournalError) {
    for task in batch {
        task.answer(Err(error.clone()));
    }
}
