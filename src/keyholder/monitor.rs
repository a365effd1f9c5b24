//! The process that holds the socket, and sees to it that there is a signer behind it.
//!
//! A new signer is a candidate until its keys are loaded; only then is the old one told to stop, and only when that is
//! gone is the new one told to go. So the socket is read by one at a time, and a key that is not good yet changes
//! nothing. It reads no key.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair,
};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::line::Lines;
use super::{Form, KeyholderError, Role, Word, confine};
use crate::config::{Config, Hardening};
use crate::notify::Notifier;
use crate::policy::keyproto::Answer;
use crate::policy::signing::rate::{Bucket, Pace, Rate};

/// How long keys may take to load: a credential's file system, or a network's.
const LOADING: Duration = Duration::from_secs(10);
/// How long an old signer may take to finish its last packet.
const STOPPING: Duration = Duration::from_secs(2);
/// A signer that lived so long did not die of its start.
const SETTLED: Duration = Duration::from_secs(10);
/// The pause before the second start in a row; it doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// So many starts in a row, some six seconds, and then it gives up: something is wrong that no start repairs.
const STARTS: u32 = 8;
/// Reloads that a gate asks for: a person asks a few times in a row, and whoever asks on and on starts processes.
const RELOADS: Rate = Rate {
    burst: 5,
    per_second: 1,
};

struct Monitor {
    config: PathBuf,
    form: Form,
    lines: Lines,
    notifier: Notifier,
    current: Option<Process>,
    candidate: Option<Process>,
    /// Deaths in a row.
    deaths: u32,
    retry: Option<Instant>,
    /// Whether there ever was a signer.
    served: bool,
    /// Of the reloads that a gate asks for.
    reloads: Bucket,
    /// Whether one of them is what `retry` is for.
    asked: bool,
    started: Instant,
}

/// A signer. Killed when dropped.
struct Process {
    child: Child,
    control: OwnedFd,
    since: Instant,
}

pub(super) fn run(config: &Path) -> Result<(), KeyholderError> {
    let form = Form::of_stdin()?;
    let (mut hangup, told) = UnixStream::pair()?;
    hangup.set_nonblocking(true)?;
    pipe::register(SIGHUP, told)?;
    let (_ends, ignored) = UnixStream::pair()?;
    if form == Form::Connected {
        // Whoever ends the whole group at once ends the gate, which drains first and then ends us.
        pipe::register(SIGTERM, ignored.try_clone()?)?;
        pipe::register(SIGINT, ignored)?;
    }
    let mut monitor = Monitor {
        config: config.to_owned(),
        form,
        lines: Lines::stderr()?,
        notifier: match form {
            Form::Connected => Notifier::to_nobody(),
            Form::Listening => Notifier::from_env(),
        },
        current: None,
        candidate: None,
        deaths: 0,
        retry: None,
        served: false,
        reloads: Bucket::new(RELOADS),
        asked: false,
        started: Instant::now(),
    };
    // Of the configuration this one word; a file that is wrong is the signer's to tell.
    let level = Config::load(config).map_or(Hardening::Required, |config| config.hardening);
    if let Some(note) = confine(Role::Monitor, level)?.note() {
        let fields = [("note", Value::from(note))];
        let message = "not everything is in force in the monitor";
        monitor.lines.write("WARN", message, &fields);
    }
    monitor.start()?;
    monitor.watch(&mut hangup).map_err(|error| {
        let last_words = Answer::Reloaded(Err(crate::net::exchange::chain(&error)));
        if form == Form::Connected && tell_gate(&last_words) {
            KeyholderError::Told(Box::new(error))
        } else {
            error
        }
    })
}

impl Monitor {
    /// Until the gate is gone.
    fn watch(&mut self, hangup: &mut UnixStream) -> Result<(), KeyholderError> {
        loop {
            if self.retry.is_some_and(|at| at <= Instant::now()) {
                self.retry = None;
                if std::mem::take(&mut self.asked) {
                    self.reload()?;
                } else {
                    self.start()?;
                }
            }
            let [told, gate, current, candidate] = self.wait(hangup)?;
            if gate {
                // It sees the same end, and writes down what it has counted.
                let _ = self.current.take().map(Process::stop);
                return Ok(());
            }
            if told {
                while matches!(io::Read::read(hangup, &mut [0; 64]), Ok(1..)) {}
                self.start()?;
            }
            if current {
                self.hear_current()?;
            }
            if candidate || self.candidate.as_ref().is_some_and(Process::is_late) {
                self.hear_candidate()?;
            }
        }
    }

    /// Waits for something to happen: SIGHUP, the gate's end, a word of either signer.
    fn wait(&self, hangup: &UnixStream) -> Result<[bool; 4], KeyholderError> {
        let stdin = io::stdin();
        // Packets are the signer's: only the end of the gate is looked for. A listening socket has no such end.
        let mut fds = vec![
            PollFd::new(hangup, PollFlags::IN),
            PollFd::new(&stdin, PollFlags::RDHUP),
        ];
        let signers = [&self.current, &self.candidate];
        fds.extend(signers.iter().map(|signer| match signer {
            Some(signer) => PollFd::new(&signer.control, PollFlags::IN),
            // Nothing, at a place of its own.
            None => PollFd::new(hangup, PollFlags::empty()),
        }));
        let late = self
            .candidate
            .as_ref()
            .map(|candidate| candidate.since + LOADING);
        let next = late.into_iter().chain(self.retry).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok([false; 4]),
            Err(error) => return Err(error.into()),
        }
        let mut happened = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(std::array::from_fn(|_| happened.next() == Some(true)))
    }

    /// Starts a candidate. One that is still loading may have read what has changed since: it is dropped. A system that
    /// has no room for a process has not harmed the signer that there is.
    fn start(&mut self) -> Result<(), KeyholderError> {
        self.candidate = None;
        match self.spawn() {
            Ok(candidate) => {
                self.candidate = Some(candidate);
                Ok(())
            }
            Err(error) => {
                let error = crate::net::exchange::chain(&error);
                self.failed(format!("a signer cannot be started: {error}"), "")
            }
        }
    }

    fn spawn(&self) -> io::Result<Process> {
        let flags = SocketFlags::CLOEXEC;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("priorgate")
            .args(["keyholder", "--role", "signer", "--config"])
            .arg(&self.config)
            .stdin(Stdio::inherit())
            .stdout(Stdio::from(theirs))
            .env_remove("NOTIFY_SOCKET")
            .spawn()?;
        Ok(Process {
            child,
            control,
            since: Instant::now(),
        })
    }

    /// A gate asks for new keys: at once, or when it is time for another reload.
    fn reload(&mut self) -> Result<(), KeyholderError> {
        match self.reloads.take(self.started.elapsed()) {
            Pace::Allowed => self.start(),
            Pace::Wait(pause) => {
                // Instead of the candidate that may have read too early.
                self.candidate = None;
                self.retry = Some(Instant::now() + pause);
                self.asked = true;
                Ok(())
            }
        }
    }

    fn hear_current(&mut self) -> Result<(), KeyholderError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        match Word::hear(&current.control) {
            Ok(Some(Word::Reload)) => self.reload(),
            Ok(Some(_)) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok(None) | Err(_) => {
                let lived = current.since.elapsed();
                let ended = self.current.take().map(Process::end).unwrap_or_default();
                if lived >= SETTLED {
                    self.deaths = 0;
                }
                self.dead(format!("the signer ended ({ended})"))
            }
        }
    }

    fn hear_candidate(&mut self) -> Result<(), KeyholderError> {
        let Some(candidate) = self.candidate.take() else {
            return Ok(());
        };
        let reason = match Word::hear(&candidate.control) {
            Ok(Some(Word::Ready)) => return self.replace(candidate),
            Ok(Some(Word::Failed(reason))) => reason,
            Err(Errno::AGAIN | Errno::INTR) if !candidate.is_late() => {
                self.candidate = Some(candidate);
                return Ok(());
            }
            Err(Errno::AGAIN | Errno::INTR) => "the keys did not load in time".to_owned(),
            Ok(_) | Err(_) => String::new(),
        };
        let ended = candidate.end();
        let reason = if reason.is_empty() {
            format!("a signer ended ({ended})")
        } else {
            reason
        };
        self.failed(reason, &ended)
    }

    /// There is no candidate any more, or none came about.
    fn failed(&mut self, reason: String, ended: &str) -> Result<(), KeyholderError> {
        match &self.current {
            Some(current) => {
                let fields = [("reason", Value::from(reason.as_str()))];
                self.lines
                    .write("ERROR", "the keys stay as they are", &fields);
                self.notifier.status("the last reload of the keys failed");
                let _ = Word::Kept(reason).say(&current.control);
                Ok(())
            }
            // The same code as `priorgate run` would have: restarting does not help.
            None if !self.served && ended.ends_with(" 78") => {
                Err(KeyholderError::ConfigOfSigner(reason))
            }
            None if !self.served => Err(KeyholderError::GaveUp(reason)),
            None => self.dead(reason),
        }
    }

    /// Nobody signs: another start, at once the first time.
    fn dead(&mut self, reason: String) -> Result<(), KeyholderError> {
        self.deaths += 1;
        let fields = [
            ("reason", Value::from(reason.as_str())),
            ("in_a_row", self.deaths.into()),
        ];
        self.lines
            .write("ERROR", "the signer is started again", &fields);
        if self.deaths > STARTS {
            return Err(KeyholderError::GaveUp(format!(
                "{STARTS} signers ended in a row, the last one because: {reason}"
            )));
        }
        // A candidate that loads already is as good as another.
        if self.candidate.is_none() {
            let doubled = self.deaths.checked_sub(2).map(|times| PAUSE * (1 << times));
            self.retry = Some(Instant::now() + doubled.unwrap_or_default());
            self.asked = false;
        }
        Ok(())
    }

    /// The old one finishes, the new one begins.
    fn replace(&mut self, candidate: Process) -> Result<(), KeyholderError> {
        let pid = candidate.child.id();
        let whole = match self.current.take() {
            Some(current) => {
                let _ = Word::Reloaded.say(&current.control);
                current.stop()
            }
            None => !self.served,
        };
        // Only the first has the whole rate before it.
        let word = if self.served { Word::Follow } else { Word::Go };
        if word.say(&candidate.control).is_err() {
            return self.dead(format!("a signer ended ({})", candidate.end()));
        }
        self.current = Some(candidate);
        self.retry = None;
        self.asked = false;
        self.served = true;
        // What the last one had read and not answered is lost.
        if !whole && self.form == Form::Connected {
            let _ = tell_gate(&Answer::Restarted { pid });
        }
        self.lines
            .write("INFO", "a signer serves", &[("pid", pid.into())]);
        self.notifier.ready("the keys are loaded");
        Ok(())
    }
}

impl Process {
    fn is_late(&self) -> bool {
        self.since.elapsed() >= LOADING
    }

    /// Tells it to finish, and sees that it does. `false` when it had to be killed.
    fn stop(self) -> bool {
        let _ = shutdown(&self.control, Shutdown::Write);
        let until = Instant::now() + STOPPING;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut end = [PollFd::new(&self.control, PollFlags::empty())];
            match poll(&mut end, Some(&timeout)) {
                Err(Errno::INTR) => {}
                // Its end of the control socket closes with it.
                Ok(1) => return self.end().ends_with(" 0"),
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Reaps it, dead or alive; gives its end in words, the exit code last.
    fn end(mut self) -> String {
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string().replace("exit status:", "exit code"),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return "killed by the monitor".to_owned(),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ours, and not waited for: the id is still its. After `end` both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A notice on the socket that we share with the signer. A gate that is gone needs none.
fn tell_gate(notice: &Answer) -> bool {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    send(io::stdin(), &notice.encode(0), flags).is_ok()
}
