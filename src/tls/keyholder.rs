//! The gate's end of the keyholder: one connection, one question at a time, each with a deadline.
//!
//! One at a time costs nothing: the signer is one thread. Whoever asks owns the connection until it has its answer or
//! its deadline, so nobody else can read what it is owed; and what comes after a deadline has an id that nobody waits
//! for, so it is dropped. Blocks: ask from a blocking thread.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use crate::policy::chain::{Tip, Vouched};
use crate::policy::keyproto::{Answer, Held, KEYS_MAX, KeyId, Refused, Request};
use crate::policy::operation::Digest;

/// The longest answer: [`KEYS_MAX`] keys with ten schemes each.
const ANSWER_MAX: usize = 16 + KEYS_MAX * 53;
/// Between two attempts to reach a keyholder that is not there.
const PAUSE: Duration = Duration::from_millis(20);

/// The way to the process that has the keys.
#[derive(Debug)]
pub struct Keyholder {
    /// `None`: inherited, and no other can be had.
    path: Option<PathBuf>,
    line: Mutex<Line>,
    free: Condvar,
    /// 0 is the notices'.
    next: AtomicU64,
    up: AtomicBool,
    pid: AtomicU32,
    signatures: AtomicU64,
    restarts: AtomicU64,
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

/// Why an exchange ended without an answer.
enum Failed {
    Late,
    Lost(String),
}

enum Heard {
    Answer(Answer),
    Restarted,
}

impl Keyholder {
    /// Over a connected socket, whose other end this process has given to the keyholder that it started.
    #[must_use]
    pub fn inherited(socket: OwnedFd) -> Self {
        Self::new(None, Some(socket))
    }

    /// At a socket of the service manager.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self::new(Some(path.to_owned()), None)
    }

    fn new(path: Option<PathBuf>, socket: Option<OwnedFd>) -> Self {
        Self {
            path,
            line: Mutex::new(Line::Free(socket)),
            free: Condvar::new(),
            next: AtomicU64::new(1),
            up: AtomicBool::new(false),
            pid: AtomicU32::new(0),
            signatures: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
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
        let request = Request::Sign {
            key,
            scheme,
            message,
        };
        loop {
            match self.ask(&request, until)? {
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

    /// Has the keys loaded again, and waits for how it went.
    ///
    /// # Errors
    /// [`AskError::Kept`] when the old keys stay, and the others.
    pub fn reload(&self, until: Instant) -> Result<(), AskError> {
        match self.ask(&Request::Reload, until)? {
            Answer::Reloaded(Ok(())) => Ok(()),
            Answer::Reloaded(Err(reason)) => Err(AskError::Kept(reason)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks until there is an answer. What was lost with a signer is asked again under another id; whichever of this
    /// question's ids is answered first is the answer.
    fn ask(&self, request: &Request<'_>, until: Instant) -> Result<Answer, AskError> {
        let mut line = self.line(until)?;
        let mut ids = Vec::with_capacity(1);
        let mut cause = String::new();
        let result = loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            ids.push(id);
            match line.exchange(&request.encode(id), &ids, until) {
                Ok(Heard::Answer(answer)) => break Ok(answer),
                Ok(Heard::Restarted) => {}
                Err(Failed::Late) => break Err(AskError::TimedOut(cause)),
                Err(Failed::Lost(why)) => {
                    line.socket = None;
                    if self.path.is_none() {
                        break Err(AskError::Gone(why));
                    }
                    cause = format!(" ({why})");
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break Err(AskError::TimedOut(cause));
                    }
                    std::thread::sleep(PAUSE.min(left));
                }
            }
        };
        let up = result.is_ok();
        if self.up.swap(up, Ordering::Relaxed)
            && let Err(error) = &result
        {
            tracing::error!(%error, "the keyholder does not answer: no new connection to a bank can be made");
        }
        result
    }

    /// The connection, once nobody else has it.
    fn line(&self, until: Instant) -> Result<Owned<'_>, AskError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Line::Free(socket) = &mut *line {
                let socket = socket.take();
                *line = Line::Taken;
                return Ok(Owned { of: self, socket });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AskError::TimedOut(" (others wait for it, too)".to_owned()));
            }
            let waited = self.free.wait_timeout(line, left);
            (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn restarted(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed);
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

/// The connection while it is one asker's. Given back on drop, for the next.
struct Owned<'k> {
    of: &'k Keyholder,
    socket: Option<OwnedFd>,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        let mut line = self.of.line.lock().unwrap_or_else(PoisonError::into_inner);
        *line = Line::Free(self.socket.take());
        self.of.free.notify_one();
    }
}

impl Owned<'_> {
    fn exchange(&mut self, packet: &[u8], ids: &[u64], until: Instant) -> Result<Heard, Failed> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect(until)?,
        };
        let socket = self.socket.insert(socket);
        loop {
            match send(&*socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => break,
                Err(Errno::AGAIN | Errno::INTR) => ready(socket, PollFlags::OUT, until)?,
                Err(error) => return Err(lost(error)),
            }
        }
        let mut buffer = vec![0; ANSWER_MAX];
        let mut reset = false;
        loop {
            let size = match recv(&*socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(Failed::Lost("it closed the connection".to_owned())),
                Ok((size, _)) => size,
                Err(Errno::AGAIN | Errno::INTR) => {
                    ready(socket, PollFlags::IN, until)?;
                    continue;
                }
                // It ended with packets of ours unread. What it had said before comes after this.
                Err(Errno::CONNRESET) if !reset => {
                    reset = true;
                    continue;
                }
                Err(error) => return Err(lost(error)),
            };
            match Answer::decode(buffer.get(..size).unwrap_or_default()) {
                Ok((0, Answer::Restarted { pid })) => {
                    self.of.restarted(pid);
                    return Ok(Heard::Restarted);
                }
                // Its last words.
                Ok((0, Answer::Reloaded(Err(reason)))) => return Err(Failed::Lost(reason)),
                Ok((id, answer)) if ids.contains(&id) => return Ok(Heard::Answer(answer)),
                // To a question that nobody waits for any more.
                Ok(_) => {}
                Err(malformed) => return Err(Failed::Lost(malformed.to_string())),
            }
        }
    }

    fn connect(&self, until: Instant) -> Result<OwnedFd, Failed> {
        let Some(path) = &self.of.path else {
            return Err(Failed::Lost("its socket is closed".to_owned()));
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failed::Late);
        }
        let connected = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            // A full queue makes connecting wait.
            set_socket_timeout(&socket, Timeout::Send, Some(left))?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        connected().map_err(lost)
    }
}

/// Waits until the socket can be read or written.
fn ready(socket: &OwnedFd, wanted: PollFlags, until: Instant) -> Result<(), Failed> {
    let left = until.saturating_duration_since(Instant::now());
    // Above any deadline here there is no need for a larger one: the caller asks again.
    let timeout = Timespec::try_from(left.min(Duration::from_secs(3600)));
    let timeout = timeout.map_err(|_| Failed::Late)?;
    if left.is_zero() {
        return Err(Failed::Late);
    }
    match poll(&mut [PollFd::new(socket, wanted)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(lost(error)),
    }
}

fn lost(error: Errno) -> Failed {
    Failed::Lost(io::Error::from(error).to_string())
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
