//! The process that holds the keys: it reads packets, judges, writes its line, signs, answers. Nothing else.
//!
//! One thread, no runtime, no file opened once it serves. It waits in one place only, for the next packet, and never
//! for whoever reads its answers or its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, accept_with, getsockname, recv, send,
};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::line::Lines;
use super::load::{self, Audit, Key, Last};
use super::{Form, KeyholderError, Role, Word, audit_key, confine};
use crate::config::Config;
use crate::policy::keyproto::{Answer, Held, PACKET_MAX, Refused, Request};
use crate::policy::signing::rate::Pace;
use crate::policy::signing::{Refusal, Shape, Verdict, checkpoint_message, judge};

/// The gate, the one after it during a restart, and two to spare. More wait in the socket's queue.
const CONNECTIONS: usize = 4;
/// Reloads that wait for one candidate.
const RELOADS: usize = 8;
/// What uids are shown as that a user namespace hides.
const NOBODY: u32 = 65_534;

/// What a signer knows.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<Key>,
    audit: Option<(Audit, Option<Last>)>,
    lines: Lines,
    started: Instant,
    signatures: u64,
}

/// A gate that may ask.
struct Connection {
    socket: OwnedFd,
    number: u64,
    /// Its process, for the log.
    pid: i32,
}

pub(super) fn run(config: &Path) -> Result<(), KeyholderError> {
    let stdout = io::stdout();
    let control = stdout.as_fd();
    let prepared = prepare(config);
    if let Err(error) = &prepared {
        let reason = crate::net::exchange::chain(error);
        // A monitor that is gone needs no reason.
        let _ = Word::Failed(reason).say(control);
    }
    let (mut signer, allowed) = prepared?;
    Word::Ready.say(control)?;
    loop {
        match hear(control)? {
            Some(Word::Go) => break,
            Some(_) => {}
            None => return Ok(()),
        }
    }
    signer.take_over();
    signer.serve(control, allowed)?;
    signer.remember();
    Ok(())
}

/// Everything that needs a file, and then the confinement.
fn prepare(config: &Path) -> Result<(Signer, Option<u32>), KeyholderError> {
    let allowed = match Form::of_stdin()? {
        Form::Listening => Some(gate_uid()?),
        Form::Connected => {
            // The service manager ends the whole group at once, but the gate drains, and needs us for that.
            let ignored = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(SIGTERM, Arc::clone(&ignored))?;
            signal_hook::flag::register(SIGINT, ignored)?;
            None
        }
    };
    let lines = Lines::stderr()?;
    let config = Config::load(config)?;
    let audit = audit_key(&config).as_ref().map(Audit::open).transpose()?;
    let signer = Signer::new(load::keys(&config)?, audit, lines);
    let missing = confine(Role::Signer)?;
    let fields = [
        ("keys", Value::from(signer.keys.len())),
        ("memory_locked", Value::from(missing.is_none())),
        ("note", missing.into()),
    ];
    signer.lines.write("INFO", "keys are loaded", &fields);
    Ok((signer, allowed))
}

/// Whom the service manager made the socket for: `SocketUser=` of its unit owns the file.
fn gate_uid() -> Result<u32, KeyholderError> {
    let address = SocketAddrUnix::try_from(getsockname(io::stdin())?)?;
    let path = address.path().ok_or(KeyholderError::NoSocket)?;
    let uid = rustix::fs::stat(path)?.st_uid;
    if uid == NOBODY {
        let hidden = "the socket's owner is hidden by a user namespace: PrivateUsers=no in the keyholder's unit";
        return Err(io::Error::other(hidden).into());
    }
    Ok(uid)
}

/// Waits for a word.
fn hear(control: BorrowedFd<'_>) -> Result<Option<Word>, Errno> {
    loop {
        match Word::hear(control) {
            Err(Errno::AGAIN | Errno::INTR) => wait(&mut [PollFd::new(&control, PollFlags::IN)])?,
            heard => return heard,
        }
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> Result<(), Errno> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Signer {
    pub(super) fn new(keys: Vec<Key>, audit: Option<Audit>, lines: Lines) -> Self {
        Self {
            keys,
            audit: audit.map(|audit| (audit, None)),
            lines,
            started: Instant::now(),
            signatures: 0,
        }
    }

    /// From now on no other signer writes the checkpoint state.
    pub(super) fn take_over(&mut self) {
        if let Some((audit, last)) = &mut self.audit {
            *last = audit.last();
            self.signatures = last.unwrap_or_default().signatures;
        }
    }

    /// The next signer counts on from here.
    fn remember(&self) {
        if let Some((audit, Some(last))) = &self.audit {
            let signatures = self.signatures;
            // Only a count is lost.
            let _ = audit.remember(Last {
                signatures,
                ..*last
            });
        }
    }

    /// Until the gate or the monitor is gone, or another signer takes over.
    fn serve(&mut self, control: BorrowedFd<'_>, allowed: Option<u32>) -> Result<(), Errno> {
        let stdin = io::stdin();
        let mut number = 0;
        let mut connections: Vec<Connection> = Vec::new();
        if allowed.is_none() {
            let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
            let pid = socket_peercred(&socket)?.pid.as_raw_nonzero().get();
            connections.push(Connection {
                socket,
                number,
                pid,
            });
        }
        let mut reloads: Vec<(u64, u64)> = Vec::new();
        let mut buffer = vec![0; PACKET_MAX + 1];
        loop {
            let full = connections.len() >= CONNECTIONS;
            let listens = if allowed.is_some() && !full {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            let mut fds = vec![
                PollFd::from_borrowed_fd(control, PollFlags::IN),
                PollFd::new(&stdin, listens),
            ];
            fds.extend(
                connections
                    .iter()
                    .map(|each| PollFd::new(&each.socket, PollFlags::IN)),
            );
            wait(&mut fds)?;
            let mut ready = fds
                .iter()
                .map(|fd| !fd.revents().is_empty())
                .collect::<Vec<_>>()
                .into_iter();
            let (told, called) = (ready.next() == Some(true), ready.next() == Some(true));
            let ready: Vec<bool> = ready.collect();
            let mut gone = Vec::new();
            for (connection, _) in connections.iter().zip(ready).filter(|(_, ready)| *ready) {
                if self
                    .packet(connection, &mut buffer, control, &mut reloads)
                    .is_none()
                {
                    gone.push(connection.number);
                }
            }
            connections.retain(|each| !gone.contains(&each.number));
            if allowed.is_none() && connections.is_empty() {
                return Ok(());
            }
            if let Some(allowed) = allowed.filter(|_| called && !full) {
                number += 1;
                connections.extend(self.accept(&stdin, allowed, number));
            }
            if told {
                let result = match Word::hear(control) {
                    Ok(Some(Word::Reloaded)) => Ok(()),
                    Ok(Some(Word::Kept(reason))) => Err(reason),
                    Ok(Some(_)) | Err(Errno::AGAIN | Errno::INTR) => continue,
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let answer = Answer::Reloaded(result);
                for (number, id) in reloads.drain(..) {
                    if let Some(asked) = connections.iter().find(|each| each.number == number) {
                        give(&asked.socket, &answer, id);
                    }
                }
                // Whoever was told so asks for the new keys at once: that packet is the new signer's.
                if answer == Answer::Reloaded(Ok(())) {
                    return Ok(());
                }
            }
        }
    }

    /// Takes the next connection in, if it is the gate's.
    fn accept(&self, listener: impl AsFd, allowed: u32, number: u64) -> Option<Connection> {
        let socket = accept_with(listener, SocketFlags::CLOEXEC).ok()?;
        let peer = socket_peercred(&socket).ok()?;
        let uid = peer.uid.as_raw();
        let pid = peer.pid.as_raw_nonzero().get();
        if uid == allowed {
            return Some(Connection {
                socket,
                number,
                pid,
            });
        }
        let fields = [
            ("uid", uid.into()),
            ("pid", pid.into()),
            ("allowed", allowed.into()),
        ];
        self.lines
            .write("WARN", "a connection of another user was closed", &fields);
        None
    }

    /// Reads and answers one packet. `None` when the connection has ended, or must.
    fn packet(
        &mut self,
        from: &Connection,
        buffer: &mut [u8],
        control: BorrowedFd<'_>,
        reloads: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        let size = match recv(&from.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return None,
            Ok((size, _)) => size,
            Err(Errno::AGAIN | Errno::INTR) => return Some(()),
            Err(_) => return None,
        };
        let Ok((id, request)) = Request::decode(buffer.get(..size)?) else {
            let fields = [("pid", from.pid.into())];
            self.lines.write(
                "ERROR",
                "a packet is not of this version's protocol: the connection is closed",
                &fields,
            );
            return None;
        };
        if request != Request::Reload {
            give(&from.socket, &self.answer(request, from.pid), id);
        } else if reloads.len() < RELOADS && Word::Reload.say(control).is_ok() {
            reloads.push((from.number, id));
        } else {
            let busy = Err("reloads are under way already".to_owned());
            give(&from.socket, &Answer::Reloaded(busy), id);
        }
        Some(())
    }

    /// The answer to anything but a reload.
    pub(super) fn answer(&mut self, request: Request<'_>, pid: i32) -> Answer {
        match request {
            Request::Checkpoint { sequence, head } => self
                .checkpoint(sequence, &head)
                .unwrap_or_else(Answer::Refused),
            Request::Keys | Request::Reload => {
                let held = |key: &Key| Held {
                    key: key.id,
                    schemes: key.schemes.clone(),
                };
                Answer::Keys {
                    pid: std::process::id(),
                    keys: self.keys.iter().map(held).collect(),
                }
            }
            Request::Sign {
                key,
                scheme,
                message,
            } => {
                let Some(key) = self.keys.iter_mut().find(|held| held.id == key) else {
                    return Answer::KeyChanged;
                };
                let shape = match judge(message, scheme, key.lowest) {
                    // Not a scheme of this kind of key: an RSA key does not sign as Ed25519.
                    Verdict::Sign(_) if !key.schemes.contains(&scheme) => {
                        return Answer::Refused(Refused::Judged(Refusal::Scheme));
                    }
                    Verdict::Sign(shape) => shape,
                    Verdict::Refuse(refusal) => {
                        let fields = [("bank", key.bank.as_str().into()), ("gate_pid", pid.into())];
                        self.lines
                            .write("ERROR", &format!("refused to sign: {refusal}"), &fields);
                        return Answer::Refused(Refused::Judged(refusal));
                    }
                };
                if let Pace::Wait(pause) = key.bucket.take(self.started.elapsed()) {
                    let millis = pause.saturating_add(Duration::from_millis(1)).as_millis();
                    return Answer::Wait(u32::try_from(millis).unwrap_or(u32::MAX));
                }
                let count = self.signatures.saturating_add(1);
                let fields = [
                    ("bank", key.bank.as_str().into()),
                    (
                        "tls",
                        if shape == Shape::Tls13 { "1.3" } else { "1.2" }.into(),
                    ),
                    ("scheme", format!("{scheme:#06x}").into()),
                    ("gate_pid", pid.into()),
                    ("signatures", count.into()),
                ];
                // First the line, then the signature: a hijacked gate cannot hide one.
                if !self.lines.write("INFO", "signed", &fields) {
                    return Answer::Refused(Refused::Log);
                }
                self.signatures = count;
                let signature = key.sign(scheme, message);
                signature.map_or(Answer::Refused(Refused::Failed), Answer::Signed)
            }
        }
    }

    fn checkpoint(&mut self, sequence: u64, head: &[u8; 32]) -> Result<Answer, Refused> {
        let (audit, last) = self.audit.as_mut().ok_or(Refused::NoAuditKey)?;
        let known = last.ok_or(Refused::State)?;
        if sequence <= known.sequence {
            return Err(Refused::NotLater);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = now.map_or(0, |since| since.as_secs());
        let signatures = self.signatures;
        let signature = audit.sign(&checkpoint_message(sequence, head, at, signatures));
        let signature = signature.ok_or(Refused::Failed)?;
        // Given only once it is remembered: a crash in between costs a checkpoint, never a second one.
        let next = Last {
            sequence,
            signatures,
        };
        audit.remember(next).ok_or(Refused::State)?;
        *last = Some(next);
        Ok(Answer::Checkpoint {
            at,
            signatures,
            signature,
        })
    }
}

/// Whoever does not read its answers goes without.
fn give(socket: impl AsFd, answer: &Answer, id: u64) {
    let _ = send(
        socket,
        &answer.encode(id),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    );
}
