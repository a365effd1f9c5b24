//! The keyholder's own log: a line of JSON to stderr, whole and at once, or not at all.
//!
//! Not through `telemetry`, whose thread and queue would be more than the rest of the process, and whose queue may
//! drop: a signature without a line must not be given. It never waits: a reader that stalls must not stall the keys.

#[cfg(test)]
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::net::{SendFlags, send};
use serde_json::{Map, Value};
use x509_cert::der::DateTime;

/// Pipes take that much whole or not at all (POSIX's `PIPE_BUF`).
const LINE_MAX: usize = 4096;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines {
    fd: OwnedFd,
    socket: bool,
}

impl Lines {
    /// stderr. Call it before confinement: a pipe is opened anew, so that not waiting is ours alone and not the
    /// reader's and every other writer's.
    pub(super) fn stderr() -> io::Result<Self> {
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let kind = FileType::from_raw_mode(fstat(&stderr)?.st_mode);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let own = match kind {
            FileType::Fifo => open("/proc/self/fd/2", flags, Mode::empty()).ok(),
            _ => None,
        };
        Ok(Self {
            fd: own.unwrap_or(stderr),
            socket: kind == FileType::Socket,
        })
    }

    /// Any file: for tests.
    #[cfg(test)]
    pub(super) fn to(file: File) -> Self {
        Self {
            fd: file.into(),
            socket: false,
        }
    }

    /// Writes a line. `false` when it was not written.
    pub(super) fn write(&self, level: &str, message: &str, fields: &[(&str, Value)]) -> bool {
        let now = DateTime::from_system_time(SystemTime::now()).map(|now| now.to_string());
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), now.unwrap_or_default().into());
        line.insert("level".to_owned(), level.into());
        line.insert("message".to_owned(), message.into());
        for (name, value) in fields {
            line.insert((*name).to_owned(), value.clone());
        }
        line.insert("target".to_owned(), "priorgate::keyholder".into());
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        line.len() <= LINE_MAX && self.put(line.as_bytes())
    }

    fn put(&self, line: &[u8]) -> bool {
        if self.socket {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return send(&self.fd, line, flags) == Ok(line.len());
        }
        // Where a pipe could not be opened anew: one that says it has room takes a line.
        let mut room = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec::default();
        let has_room = poll(&mut room, Some(&now)).is_ok()
            && room.iter().all(|fd| fd.revents().contains(PollFlags::OUT));
        has_room && rustix::io::write(&self.fd, line) == Ok(line.len())
    }
}
