//! The gate's end of the keyholder: one connection, one question at a time, each with a deadline.
//!
//! One at a time costs nothing: the signer is one thread. Whoever asks owns the connection until it has its answer or
//! its deadline, so nobody else can read what it is owed; and what comes after a deadline has an id that nobody waits
//! for, so it is dropped. Only a reload, which may take seconds, leaves the connection to handshakes meanwhile: whoever
//! reads its answer puts it aside for it. Blocks: ask from a blocking thread.

mod line;
mod unsigned;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::Interest;

use crate::policy::chain::{Tip, Vouched};
use crate::policy::keyproto::{Answer, Held, KeyId, Refused, Request};
use crate::policy::operation::Digest;
use crate::policy::signing::{MESSAGE_MAX, Refusal};
use line::{Failed, Heard, Owned};
pub use unsigned::Unsigned;

/// Between two attempts to reach a keyholder that is not there.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks for the answer to a reload, which takes some 50 ms.
const LOOK: Duration = Duration::from_millis(5);
/// So many connections may end over one question: a signer that dies or is replaced ends one.
const CLOSED: u32 = 2;

/// The way to the process that has the keys.
#[derive(Debug)]
pub struct Keyholder {
    /// `None`: inherited, and no other can be had.
    path: Option<PathBuf>,
    /// The inherited socket once more: its end is looked for while nobody asks anything.
    watched: Option<UnixStream>,
    line: Mutex<Line>,
    free: Condvar,
    /// 0 is the notices'.
    next: AtomicU64,
    up: AtomicBool,
    pid: AtomicU32,
    signatures: AtomicU64,
    restarts: AtomicU64,
    unsigned: unsigned::Counts,
    /// One more whenever what was asked before is not answered any more: another signer, another connection.
    epoch: AtomicU64,
    /// Reloads that wait without the line, each with its answer once somebody has read it.
    reloads: Mutex<Vec<(u64, Option<Answer>)>>,
}

#[derive(Debug)]
enum Line {
    Free(Option<OwnedFd>),
    Taken,
}

/// What is known of the keyholder without asking it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Whether the last question was answered.
    pub up: bool,
    /// The signer's process; `None` before its first answer.
    pub pid: Option<u32>,
    /// Signatures that this process was given.
    pub signatures: u64,
    /// How often another signer took over.
    pub restarts: u64,
}

/// Why the keyholder gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It ends every connection that the question comes over.
    #[error(
        "the keyholder closes the connection instead of answering ({0}); is it of this version, and for this user? Its log says more"
    )]
    Closed(String),
    /// It is not there and will not come back.
    #[error("the keyholder is gone: {0}; a restart of priorgate starts another")]
    Gone(String),
    /// It reloaded nothing.
    #[error("the keyholder keeps its keys: {0}")]
    Kept(String),
    /// It has no such key, or no longer.
    #[error("the keyholder has no key for this certificate")]
    KeyChanged,
    /// It has signed as often as it may.
    #[error("the keyholder's sign_rate is used up")]
    Pace,
    /// It will not.
    #[error("the keyholder refused: {0}")]
    Refused(#[source] Refused),
    /// Nothing in time.
    #[error("the keyholder did not answer in time{0}")]
    TimedOut(String),
    /// An answer to something else.
    #[error("the keyholder's answer is of another version; restart both")]
    Unexpected,
}

/// What one question has gone through.
#[derive(Default)]
struct Trouble {
    /// The last failure, for the error.
    cause: String,
    /// Connections that ended over it.
    closed: u32,
}

impl Trouble {
    fn late(&mut self, failed: Failed) -> AskError {
        AskError::TimedOut(match failed {
            Failed::Busy => " (others wait for it, too)".to_owned(),
            Failed::Closed(_) | Failed::Late | Failed::Lost(_) => std::mem::take(&mut self.cause),
        })
    }
}

/// A reload that has been asked for. Forgotten when dropped.
struct Waiting<'k> {
    of: &'k Keyholder,
    id: u64,
}

impl<'k> Waiting<'k> {
    fn new(of: &'k Keyholder) -> Self {
        let id = of.next.fetch_add(1, Ordering::Relaxed);
        of.reloads().push((id, None));
        Self { of, id }
    }

    fn answer(&self) -> Option<Answer> {
        let mut reloads = self.of.reloads();
        let own = reloads.iter_mut().find(|(id, _)| *id == self.id)?;
        own.1.take()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of.reloads().retain(|(id, _)| *id != self.id);
    }
}

impl Keyholder {
    /// Over a connected socket, whose other end this process has given to the keyholder that it started.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn inherited(socket: OwnedFd) -> std::io::Result<Self> {
        // No stream, but nothing is read or written here.
        let watched = UnixStream::from(socket.try_clone()?);
        // Of both; whoever asks waits by `poll`.
        watched.set_nonblocking(true)?;
        Ok(Self {
            watched: Some(watched),
            ..Self::new(None, Some(socket))
        })
    }

    /// At a socket of the service manager.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self::new(Some(path.to_owned()), None)
    }

    fn new(path: Option<PathBuf>, socket: Option<OwnedFd>) -> Self {
        Self {
            path,
            watched: None,
            line: Mutex::new(Line::Free(socket)),
            free: Condvar::new(),
            next: AtomicU64::new(1),
            up: AtomicBool::new(false),
            pid: AtomicU32::new(0),
            signatures: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            unsigned: unsigned::Counts::default(),
            epoch: AtomicU64::new(0),
            reloads: Mutex::new(Vec::new()),
        }
    }

    /// Handshakes that were not signed, by why.
    #[must_use]
    pub fn unsigned(&self, why: Unsigned) -> u64 {
        self.unsigned.of(why)
    }

    /// What is known without asking.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let pid = self.pid.load(Ordering::Relaxed);
        Facts {
            up: self.up.load(Ordering::Relaxed),
            pid: (pid != 0).then_some(pid),
            signatures: self.signatures.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    /// Waits until the keyholder that this process has started is gone for good, and gives its last words. One of the
    /// service manager's comes back: then this waits for ever. Must run on the runtime.
    pub async fn gone(&self) -> String {
        let Some(watched) = &self.watched else {
            return std::future::pending().await;
        };
        let watched = watched
            .try_clone()
            .and_then(tokio::net::UnixStream::from_std);
        let ended = match watched {
            // Not for what can be read, which is its askers': the end comes with every interest.
            Ok(watched) => watched.ready(Interest::PRIORITY).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "the end of the keyholder will be noticed by the next handshake only");
            return std::future::pending().await;
        }
        self.last_words()
            .unwrap_or_else(|| "it was killed, or died without a word".to_owned())
    }

    /// What a keyholder that is gone has said before, unless somebody who asked is reading that.
    fn last_words(&self) -> Option<String> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Line::Free(Some(socket)) = &*line else {
            return None;
        };
        line::last_words(socket)
    }

    /// The keys that there are.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn keys(&self, until: Instant) -> Result<Vec<Held>, AskError> {
        match self.ask(&Request::Keys, until)? {
            Answer::Keys { pid, keys } => {
                self.pid.store(pid, Ordering::Relaxed);
                Ok(keys)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Signs a handshake. Waits as it is told to, but not beyond `until`.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn sign(
        &self,
        key: KeyId,
        scheme: u16,
        message: &[u8],
        until: Instant,
    ) -> Result<Vec<u8>, AskError> {
        // A bank can make a transcript of TLS 1.2 as long as it likes. What no packet holds is not worth one: the
        // keyholder would not understand it.
        let answer = if message.len() > MESSAGE_MAX {
            Err(AskError::Refused(Refused::Judged(Refusal::Message)))
        } else {
            let request = Request::Sign {
                key,
                scheme,
                message,
            };
            self.signed(&request, until)
        };
        answer.inspect_err(|error| self.unsigned.count(error))
    }

    fn signed(&self, request: &Request<'_>, until: Instant) -> Result<Vec<u8>, AskError> {
        loop {
            match self.ask(request, until)? {
                Answer::Signed(signature) => {
                    self.signatures.fetch_add(1, Ordering::Relaxed);
                    return Ok(signature);
                }
                Answer::Wait(millis) => wait(millis, until)?,
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Signs a checkpoint of the audit log: what the signer vouches for with it, and its Ed25519 signature over that.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn checkpoint(&self, tip: Tip, until: Instant) -> Result<(Vouched, [u8; 64]), AskError> {
        let request = Request::Checkpoint {
            sequence: tip.seq,
            head: tip.hash.0,
        };
        loop {
            match self.ask(&request, until)? {
                Answer::Checkpoint {
                    at,
                    signatures,
                    before,
                    before_head,
                    signature,
                } => {
                    let before = Tip {
                        seq: before,
                        hash: Digest(before_head),
                    };
                    let vouched = Vouched {
                        tip,
                        at,
                        signatures,
                        before,
                    };
                    return Ok((vouched, signature));
                }
                Answer::Wait(millis) => wait(millis, until)?,
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Has the keys loaded again, and waits for how it went. Others may ask meanwhile.
    ///
    /// # Errors
    /// [`AskError::Kept`] when the old keys stay, and the others.
    pub fn reload(&self, until: Instant) -> Result<(), AskError> {
        let mut trouble = Trouble::default();
        let result = loop {
            match self.try_reload(until) {
                Ok(Some(answer)) => break Ok(answer),
                // It was lost with the signer that had read it.
                Ok(None) => {}
                Err(failed) => {
                    if let Some(error) = self.pause(failed, &mut trouble, until) {
                        break Err(error);
                    }
                }
            }
        };
        match self.noted(result)? {
            Answer::Reloaded(Ok(())) => Ok(()),
            Answer::Reloaded(Err(reason)) => Err(AskError::Kept(reason)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks once; `None` when the question was lost.
    fn try_reload(&self, until: Instant) -> Result<Option<Answer>, Failed> {
        let waiting = Waiting::new(self);
        let own = self.line(until)?.with(|line| {
            line.say(&Request::Reload.encode(waiting.id), until)?;
            Ok(self.epoch.load(Ordering::Relaxed))
        })?;
        loop {
            let looked = self.line(until)?.with(Owned::look);
            if let Some(answer) = waiting.answer() {
                return Ok(Some(answer));
            }
            looked.map_err(Failed::closed)?;
            if self.epoch.load(Ordering::Relaxed) != own {
                return Ok(None);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failed::Late);
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    /// Asks until there is an answer. What was lost with a signer is asked again under another id; whichever of this
    /// question's ids is answered first is the answer.
    fn ask(&self, request: &Request<'_>, until: Instant) -> Result<Answer, AskError> {
        let mut trouble = Trouble::default();
        let line = self.line(until);
        let mut line = line.map_err(|failed| trouble.late(failed))?;
        let mut ids = Vec::with_capacity(1);
        let result = loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            ids.push(id);
            match line.exchange(&request.encode(id), &ids, until) {
                Ok(Heard::Answer(answer)) => break Ok(answer),
                Ok(Heard::Restarted) => {}
                Err(failed) => {
                    line.drop_if_lost(&failed);
                    if let Some(error) = self.pause(failed, &mut trouble, until) {
                        break Err(error);
                    }
                }
            }
        };
        self.noted(result)
    }

    /// After a failure: the end of the asking, or nothing once it is time for another attempt.
    fn pause(&self, failed: Failed, trouble: &mut Trouble, until: Instant) -> Option<AskError> {
        let (why, closed) = match failed {
            Failed::Busy | Failed::Late => return Some(trouble.late(failed)),
            Failed::Lost(why) => (why, false),
            Failed::Closed(why) => (why, true),
        };
        if self.path.is_none() {
            return Some(AskError::Gone(why));
        }
        trouble.closed += u32::from(closed);
        if trouble.closed >= CLOSED {
            return Some(AskError::Closed(why));
        }
        trouble.cause = format!(" ({why})");
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(trouble.late(Failed::Late));
        }
        std::thread::sleep(PAUSE.min(left));
        None
    }

    /// Keeps and says whether the last question was answered.
    fn noted(&self, result: Result<Answer, AskError>) -> Result<Answer, AskError> {
        let up = result.is_ok();
        if self.up.swap(up, Ordering::Relaxed)
            && let Err(error) = &result
        {
            tracing::error!(%error, "the keyholder does not answer: no new connection to a bank can be made");
        }
        result
    }

    /// The connection, once nobody else has it.
    fn line(&self, until: Instant) -> Result<Owned<'_>, Failed> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Line::Free(socket) = &mut *line {
                let socket = socket.take();
                *line = Line::Taken;
                return Ok(Owned {
                    of: self,
                    socket,
                    fresh: false,
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failed::Busy);
            }
            let waited = self.free.wait_timeout(line, left);
            (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn reloads(&self) -> MutexGuard<'_, Vec<(u64, Option<Answer>)>> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that whoever read it does not wait for: a reload's, or one that comes too late.
    fn put_aside(&self, id: u64, answer: Answer) {
        let mut reloads = self.reloads();
        if let Some(waiting) = reloads.iter_mut().find(|(waiting, _)| *waiting == id) {
            waiting.1 = Some(answer);
        }
    }

    fn restarted(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(pid, "the signer was restarted");
    }
}

/// Waits as it was told to, if there is so much time.
fn wait(millis: u32, until: Instant) -> Result<(), AskError> {
    let pause = Duration::from_millis(u64::from(millis));
    if pause >= until.saturating_duration_since(Instant::now()) {
        return Err(AskError::Pace);
    }
    std::thread::sleep(pause);
    Ok(())
}

fn unexpected(answer: &Answer) -> AskError {
    match answer {
        Answer::KeyChanged => AskError::KeyChanged,
        Answer::Refused(refused) => AskError::Refused(*refused),
        Answer::Checkpoint { .. }
        | Answer::Keys { .. }
        | Answer::Reloaded(_)
        | Answer::Restarted { .. }
        | Answer::Signed(_)
        | Answer::Wait(_) => AskError::Unexpected,
    }
}

#[cfg(test)]
mod tests;
