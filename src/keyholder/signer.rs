//! The process that holds the keys: it reads packets, judges, writes its line, signs, answers. Nothing else.
//!
//! One thread, no runtime, no file opened once it serves. It waits in one place only, for the next packet, and never
//! for whoever reads its answers or its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, accept_with, getsockname, recv, send,
};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::complaints::Complaints;
use super::line::Lines;
use super::load::{self, Audit, Key, Last};
use super::{Form, KeyholderError, Role, Word, audit_key, confine};
use crate::config::Config;
use crate::policy::chain::{Tip, Vouched, checkpoint_message};
use crate::policy::keyproto::{Answer, Held, PACKET_MAX, Refused, Request};
use crate::policy::operation::Digest;
use crate::policy::signing::rate::{Bucket, Pace, Rate};
use crate::policy::signing::{Refusal, Shape, Verdict, judge};

/// The gate, the one after it during a restart, and two to spare. More wait in the socket's queue.
const CONNECTIONS: usize = 4;
/// Reloads that wait for one candidate.
const RELOADS: usize = 8;
/// The gate asks once a second at most, and twice when it ends.
const CHECKPOINTS: Rate = Rate {
    burst: 10,
    per_second: 2,
};
/// How far a checkpoint may be after the last one: twice of what the journal owes the log at most, and each second twice of
/// what the gate's buffer can give it. A number at the end of all numbers would be the last one ever signed.
const RECORDS_AT_ONCE: u64 = 1 << 17;
const RECORDS_PER_SECOND: u64 = 1 << 15;
/// And the first one of all, of a log that had no key before: a thousand records a second for thirty years.
const RECORDS_AT_FIRST: u64 = 1_000_000_000_000;
/// What uids are shown as that a user namespace hides.
const NOBODY: u32 = 65_534;

/// What a signer knows.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<Key>,
    audit: Option<(Audit, Option<Last>)>,
    /// How often it is asked for checkpoints.
    checkpoints: Bucket,
    lines: Lines,
    /// Of this process: asked once, so that it is one system call less to allow.
    pid: u32,
    started: Instant,
    signatures: u64,
    complaints: Complaints,
}

/// A gate that may ask.
struct Connection {
    socket: OwnedFd,
    number: u64,
    /// Its process, for the log.
    pid: i32,
}

/// Who is at the door, and who may come in.
struct Door {
    /// The uid that may connect, where there is something to connect to.
    allowed: Option<u32>,
    connections: Vec<Connection>,
    /// The next connection's.
    number: u64,
    /// Who waits for a candidate: connection and id.
    reloads: Vec<(u64, u64)>,
    /// Readable once somebody has told us to end.
    ended: UnixStream,
    told: bool,
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
    let (mut signer, mut door) = prepared?;
    Word::Ready.say(control)?;
    loop {
        match hear(control)? {
            Some(Word::Go) => break,
            Some(Word::Follow) => {
                signer.follow();
                break;
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
    signer.take_over();
    signer.serve(control, &mut door)?;
    signer.end();
    Ok(())
}

/// Everything that needs a file, and then the confinement.
fn prepare(config: &Path) -> Result<(Signer, Door), KeyholderError> {
    let (ended, told) = UnixStream::pair()?;
    pipe::register(SIGTERM, told.try_clone()?)?;
    pipe::register(SIGINT, told)?;
    let door = match Form::of_stdin()? {
        Form::Listening => Door::listening(gate_uid()?, ended),
        Form::Connected => Door::connected(ended)?,
    };
    let lines = Lines::stderr()?;
    let config = Config::load(config)?;
    let audit = audit_key(&config).as_ref().map(Audit::open).transpose()?;
    let signer = Signer::new(load::keys(&config)?, audit, lines);
    let level = config.hardening;
    let missing = confine(Role::Signer, level)?;
    let fields = [
        ("keys", Value::from(signer.keys.len())),
        ("memory_locked", Value::from(missing.lock.is_none())),
        ("note", missing.note().into()),
    ];
    signer.lines.write("INFO", "keys are loaded", &fields);
    Ok((signer, door))
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
            Err(Errno::AGAIN | Errno::INTR) => {
                wait(&mut [PollFd::new(&control, PollFlags::IN)], None)?;
            }
            heard => return heard,
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], longest: Option<Duration>) -> Result<(), Errno> {
    let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
    match poll(fds, longest.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Signer {
    pub(super) fn new(keys: Vec<Key>, audit: Option<Audit>, lines: Lines) -> Self {
        Self {
            keys,
            audit: audit.map(|audit| (audit, None)),
            checkpoints: Bucket::new(CHECKPOINTS),
            lines,
            pid: std::process::id(),
            started: Instant::now(),
            signatures: 0,
            complaints: Complaints::default(),
        }
    }

    /// What the one before has signed is not known: whoever can have signers replaced gets no more than the rate.
    pub(super) fn follow(&mut self) {
        let now = self.started.elapsed();
        self.keys.iter_mut().for_each(|key| key.bucket.empty(now));
    }

    /// From now on no other signer writes the checkpoint state.
    pub(super) fn take_over(&mut self) {
        if let Some((audit, last)) = &mut self.audit {
            *last = audit.last();
            self.signatures = last.unwrap_or(Last::NONE).signatures;
        }
    }

    /// Leaves nothing unsaid and unwritten.
    fn end(&mut self) {
        self.complaints.summary(&self.lines, None);
        self.remember();
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
    fn serve(&mut self, control: BorrowedFd<'_>, door: &mut Door) -> Result<(), Errno> {
        let mut buffer = vec![0; PACKET_MAX + 1];
        loop {
            let (told, called, ready) = door.wait(control, self.complaints.pause())?;
            if door.told {
                return Ok(());
            }
            let now = self.started.elapsed();
            self.complaints.summary(&self.lines, Some(now));
            let mut gone = Vec::new();
            for index in ready {
                let Some(connection) = door.connections.get(index) else {
                    continue;
                };
                let number = connection.number;
                let listens = door.allowed.is_some();
                let reloads = &mut door.reloads;
                if self
                    .packet(connection, &mut buffer, control, listens, reloads)
                    .is_none()
                {
                    gone.push(number);
                }
            }
            door.connections.retain(|each| !gone.contains(&each.number));
            match door.allowed {
                None if door.connections.is_empty() => return Ok(()),
                Some(allowed) if called => {
                    door.number += 1;
                    let accepted = self.accept(io::stdin(), allowed, door.number);
                    door.connections.extend(accepted);
                }
                None | Some(_) => {}
            }
            if told && door.hear(control)?.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes the next connection in, if it is the gate's.
    fn accept(&mut self, listener: impl AsFd, allowed: u32, number: u64) -> Option<Connection> {
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
        self.complain("WARN", "a connection of another user was closed", &fields);
        None
    }

    /// A line that whoever is at the door can cause: only so many of them, and then a count.
    fn complain(&mut self, level: &str, message: &str, fields: &[(&str, Value)]) {
        let now = self.started.elapsed();
        self.complaints
            .line(&self.lines, now, level, message, fields);
    }

    /// Reads and answers one packet. `None` when the connection has ended, or must.
    fn packet(
        &mut self,
        from: &Connection,
        buffer: &mut [u8],
        control: BorrowedFd<'_>,
        listens: bool,
        reloads: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        let size = match recv(&from.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            // An empty packet is read as the end is. It is no message either.
            Ok((_, 0)) if has_ended(&from.socket) => return None,
            Ok((size, _)) => size,
            Err(Errno::AGAIN | Errno::INTR) => return Some(()),
            Err(_) => return None,
        };
        let Ok((id, request)) = Request::decode(buffer.get(..size)?) else {
            let fields = [("pid", from.pid.into())];
            // A pair is all that the gate has: it loses this question, not every later one.
            let (message, goes_on) = if listens {
                (
                    "a packet is not of this version's protocol: the connection is closed",
                    None,
                )
            } else {
                (
                    "a packet is not of this version's protocol: it is not answered",
                    Some(()),
                )
            };
            self.complain("ERROR", message, &fields);
            return goes_on;
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
                .checkpoint(sequence, head, pid)
                .unwrap_or_else(Answer::Refused),
            Request::Keys | Request::Reload => {
                let held = |key: &Key| Held {
                    key: key.id,
                    schemes: key.schemes.clone(),
                };
                Answer::Keys {
                    pid: self.pid,
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
                        let bank = Value::from(key.bank.as_str());
                        let fields = [("bank", bank), ("gate_pid", pid.into())];
                        self.complain("ERROR", &format!("refused to sign: {refusal}"), &fields);
                        return Answer::Refused(Refused::Judged(refusal));
                    }
                };
                if let Pace::Wait(pause) = key.bucket.take(self.started.elapsed()) {
                    return Answer::wait(pause);
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

    fn checkpoint(&mut self, seq: u64, head: [u8; 32], pid: i32) -> Result<Answer, Refused> {
        let (audit, last) = self.audit.as_mut().ok_or(Refused::NoAuditKey)?;
        if let Pace::Wait(pause) = self.checkpoints.take(self.started.elapsed()) {
            return Ok(Answer::wait(pause));
        }
        let known = last.ok_or(Refused::State)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = now.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let hash = Digest(head);
        let vouched = Vouched {
            tip: Tip { seq, hash },
            at,
            signatures: self.signatures,
            before: known.tip,
        };
        let fields = [
            ("seq", seq.into()),
            ("head", hash.to_string().into()),
            ("before", known.tip.seq.into()),
            ("gate_pid", pid.into()),
        ];
        if let Err(refused) = follows(&known, &vouched) {
            let why = format!("refused to sign a checkpoint: {refused}");
            self.lines.write("ERROR", &why, &fields);
            return Err(refused);
        }
        // First the line, as for a handshake: it is noted elsewhere, where the log is sent, whatever the gate says.
        if !self.lines.write("INFO", "checkpoint", &fields) {
            return Err(Refused::Log);
        }
        let signature = audit.sign(&checkpoint_message(&vouched));
        let signature = signature.ok_or(Refused::Failed)?;
        // Given only once it is remembered: a crash in between costs a checkpoint, never a second one.
        let next = Last {
            tip: vouched.tip,
            at,
            signatures: vouched.signatures,
        };
        audit.remember(next).ok_or(Refused::State)?;
        *last = Some(next);
        Ok(Answer::Checkpoint {
            at,
            signatures: vouched.signatures,
            before: vouched.before.seq,
            before_head: vouched.before.hash.0,
            signature,
        })
    }
}

/// Whether a log can be so far, after the last checkpoint.
fn follows(last: &Last, next: &Vouched) -> Result<(), Refused> {
    if next.tip == last.tip {
        return Err(Refused::Again);
    }
    let more = next.tip.seq.checked_sub(last.tip.seq);
    let more = more.filter(|more| *more > 0).ok_or(Refused::NotLater)?;
    let seconds = next.at.saturating_sub(last.at) / 1_000;
    let grown = RECORDS_PER_SECOND.saturating_mul(seconds);
    let most = match last.tip.seq {
        0 => RECORDS_AT_FIRST,
        _ => grown.saturating_add(RECORDS_AT_ONCE).min(RECORDS_AT_FIRST),
    };
    if more > most {
        return Err(Refused::TooFar);
    }
    Ok(())
}

impl Door {
    fn listening(allowed: u32, ended: UnixStream) -> Self {
        Self {
            allowed: Some(allowed),
            connections: Vec::new(),
            number: 0,
            reloads: Vec::new(),
            ended,
            told: false,
        }
    }

    fn connected(ended: UnixStream) -> Result<Self, Errno> {
        let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let pid = socket_peercred(&socket)?.pid.as_raw_nonzero().get();
        Ok(Self {
            allowed: None,
            connections: vec![Connection {
                socket,
                number: 0,
                pid,
            }],
            number: 0,
            reloads: Vec::new(),
            ended,
            told: false,
        })
    }

    /// Waits for the monitor, for somebody new, for packets: whether there is the first and the second, and which
    /// connections have the third.
    fn wait(
        &mut self,
        control: BorrowedFd<'_>,
        longest: Option<Duration>,
    ) -> Result<(bool, bool, Vec<usize>), Errno> {
        let stdin = io::stdin();
        let comes_in = self.allowed.is_some() && self.connections.len() < CONNECTIONS;
        let listens = if comes_in {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        // The service manager ends the whole group at once, but a gate that started us drains, and needs us for that: it
        // tells us by its own end.
        let asked = if self.allowed.is_some() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(control, PollFlags::IN),
            PollFd::new(&stdin, listens),
            PollFd::new(&self.ended, asked),
        ];
        let sockets = self.connections.iter().map(|each| &each.socket);
        fds.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::IN)));
        wait(&mut fds, longest)?;
        let mut happened = fds.iter().map(|fd| !fd.revents().is_empty());
        let told = happened.next() == Some(true);
        let called = happened.next() == Some(true);
        self.told = happened.next() == Some(true);
        let ready = happened.enumerate().filter(|(_, happened)| *happened);
        Ok((
            told,
            called && comes_in,
            ready.map(|(index, _)| index).collect(),
        ))
    }

    /// What the monitor says of a candidate. `None` when this signer's time is over.
    fn hear(&mut self, control: BorrowedFd<'_>) -> Result<Option<()>, Errno> {
        let result = match Word::hear(control) {
            Ok(Some(Word::Reloaded)) => Ok(()),
            Ok(Some(Word::Kept(reason))) => Err(reason),
            Ok(Some(_)) | Err(Errno::AGAIN | Errno::INTR) => return Ok(Some(())),
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        };
        let answer = Answer::Reloaded(result);
        for (number, id) in self.reloads.drain(..) {
            if let Some(asked) = self.connections.iter().find(|each| each.number == number) {
                give(&asked.socket, &answer, id);
            }
        }
        // Whoever was told so asks for the new keys at once: that packet is the new signer's.
        Ok((answer != Answer::Reloaded(Ok(()))).then_some(()))
    }
}

/// Whether the other end is closed: reading alone does not tell that from a packet of no bytes.
fn has_ended(socket: &OwnedFd) -> bool {
    let mut fd = [PollFd::new(socket, PollFlags::RDHUP)];
    let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    match poll(&mut fd, Some(&Timespec::default())) {
        Ok(_) => fd.iter().any(|fd| fd.revents().intersects(ended)),
        Err(_) => true,
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
