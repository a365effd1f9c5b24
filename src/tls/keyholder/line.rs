//! One packet there, one packet back: the connection to the keyholder while one asker has it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use super::{Keyholder, Line};
use crate::policy::keyproto::{Answer, KEYS_MAX};

/// The longest answer: [`KEYS_MAX`] keys with ten schemes each.
const ANSWER_MAX: usize = 16 + KEYS_MAX * 53;

/// Why an exchange ended without an answer.
pub(super) enum Failed {
    /// Others had the line until the deadline.
    Busy,
    /// It ended a connection that was made for this question: not one that had grown old.
    Closed(String),
    Late,
    Lost(String),
}

pub(super) enum Heard {
    Answer(Answer),
    Restarted,
}

impl Failed {
    /// Where every end of a connection counts.
    pub(super) fn closed(self) -> Self {
        match self {
            Self::Lost(why) => Self::Closed(why),
            other => other,
        }
    }
}

/// The connection while it is one asker's. Given back on drop, for the next.
pub(super) struct Owned<'k> {
    pub(super) of: &'k Keyholder,
    pub(super) socket: Option<OwnedFd>,
    /// Whether this asker made it.
    pub(super) fresh: bool,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        let mut line = self.of.line.lock().unwrap_or_else(PoisonError::into_inner);
        *line = Line::Free(self.socket.take());
        self.of.free.notify_one();
    }
}

impl Owned<'_> {
    /// Does one thing with it and gives it back: without the connection, if that has ended.
    pub(super) fn with<T>(
        mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let done = act(&mut self);
        if let Err(failed) = &done {
            self.drop_if_lost(failed);
        }
        done
    }

    pub(super) fn drop_if_lost(&mut self, failed: &Failed) {
        if matches!(failed, Failed::Closed(_) | Failed::Lost(_)) {
            self.socket = None;
        }
    }

    pub(super) fn exchange(
        &mut self,
        packet: &[u8],
        ids: &[u64],
        until: Instant,
    ) -> Result<Heard, Failed> {
        self.say(packet, until)?;
        loop {
            match self.read()? {
                None => ready(self.socket()?, PollFlags::IN, until)?,
                Some((0, Answer::Restarted { .. })) => return Ok(Heard::Restarted),
                Some((id, answer)) if ids.contains(&id) => return Ok(Heard::Answer(answer)),
                Some((id, answer)) => self.of.put_aside(id, answer),
            }
        }
    }

    /// Reads what is there, for whomever it may be.
    pub(super) fn look(&mut self) -> Result<(), Failed> {
        // A line that somebody else has lost, and nobody needed since.
        if self.socket.is_none() {
            self.of.epoch.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        while let Some((id, answer)) = self.read()? {
            self.of.put_aside(id, answer);
        }
        Ok(())
    }

    pub(super) fn say(&mut self, packet: &[u8], until: Instant) -> Result<(), Failed> {
        if self.socket.is_none() {
            self.socket = Some(self.connect(until)?);
            self.of.epoch.fetch_add(1, Ordering::Relaxed);
            self.fresh = true;
        }
        let socket = self.socket()?;
        loop {
            match send(socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN | Errno::INTR) => ready(socket, PollFlags::OUT, until)?,
                Err(error) => return Err(self.ended(lost(error))),
            }
        }
    }

    /// The next packet; `None` when there is none yet.
    fn read(&self) -> Result<Option<(u64, Answer)>, Failed> {
        let socket = self.socket()?;
        let mut buffer = vec![0; ANSWER_MAX];
        let mut reset = false;
        let size = loop {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    let closed = Failed::Lost("it closed the connection".to_owned());
                    return Err(self.ended(closed));
                }
                Ok((size, _)) => break size,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                // It ended with packets of ours unread. What it had said before comes after this.
                Err(Errno::CONNRESET) if !reset => reset = true,
                Err(error) => return Err(self.ended(lost(error))),
            }
        };
        match Answer::decode(buffer.get(..size).unwrap_or_default()) {
            Ok((0, Answer::Restarted { pid })) => {
                self.of.restarted(pid);
                Ok(Some((0, Answer::Restarted { pid })))
            }
            // Its last words.
            Ok((0, Answer::Reloaded(Err(reason)))) => Err(Failed::Lost(reason)),
            Ok(heard) => Ok(Some(heard)),
            Err(malformed) => Err(Failed::Lost(malformed.to_string())),
        }
    }

    fn socket(&self) -> Result<&OwnedFd, Failed> {
        let closed = || Failed::Lost("its socket is closed".to_owned());
        self.socket.as_ref().ok_or_else(closed)
    }

    /// A connection that ended, as it counts for the question.
    fn ended(&self, lost: Failed) -> Failed {
        if self.fresh { lost.closed() } else { lost }
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

/// What a keyholder that is gone has said at last.
pub(super) fn last_words(socket: &OwnedFd) -> Option<String> {
    let mut buffer = vec![0; ANSWER_MAX];
    let mut reset = false;
    // Its answers may be before them. After the end of it no more come: this ends.
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, size @ 1..)) => {
                let packet = buffer.get(..size).unwrap_or_default();
                if let Ok((0, Answer::Reloaded(Err(reason)))) = Answer::decode(packet) {
                    return Some(reason);
                }
            }
            // As in `read`.
            Err(Errno::CONNRESET) if !reset => reset = true,
            Ok(_) | Err(_) => return None,
        }
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
