//! What the service manager is told: `sd_notify(3)` by hand, over `NOTIFY_SOCKET`.
//!
//! It owns the datagrams and their one rule: after `STOPPING=1` nothing says `READY=1` again, because
//! [`Notifier::stopping`] consumes the notifier. It does not know when the gate is ready. A manager
//! that does not listen is no reason to stop serving: errors are logged and that is all.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long one message may wait for a manager whose queue is full. A lost `READY=1` would get us
/// killed at the start's time-out, so it is not given up at once.
const PATIENCE: Duration = Duration::from_millis(250);

/// The way to the service manager, or to nowhere when there is none.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

/// Tells the service manager that the process is alive, as often as it wants to hear it (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog {
    notifier: Notifier,
    every: Duration,
}

/// A notifier after `STOPPING=1`: only the status text can change.
#[derive(Debug)]
pub struct Stopping(Notifier);

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, once: a process that is told to reload keeps its manager.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(std::env::var_os("NOTIFY_SOCKET"))
    }

    /// For a process that has no manager of its own.
    #[must_use]
    pub fn to_nobody() -> Self {
        Self::new(None)
    }

    fn new(address: Option<OsString>) -> Self {
        let socket = address
            .filter(|address| !address.is_empty())
            .and_then(|address| {
                connect(&address)
                    .inspect_err(|error| {
                        tracing::debug!(?address, %error, "cannot reach the service manager");
                    })
                    .ok()
            });
        Self { socket }
    }

    /// Serving: at the start, and after a reload whether it went well or not.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)));
    }

    /// A reload begins. [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // `Type=notify-reload` wants the time of this very clock, to tell this reload from the last.
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The shutdown begins; there is no way back to `READY=1`.
    pub fn stopping(self, status: &str) -> Stopping {
        self.send(&format!("STOPPING=1\n{}", status_line(status)));
        Stopping(self)
    }

    /// One line of text for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&status_line(status));
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }
}

impl Watchdog {
    /// Where the manager watches this very process (sd_watchdog_enabled(3)).
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
            return None;
        }
        let limit = Duration::from_micros(number("WATCHDOG_USEC")?);
        let notifier = Notifier::from_env();
        // Two beats in each span: one late one is not the end. A span of nothing would be a mistake of the unit's.
        let every = (limit / 2).max(Duration::from_millis(10));
        notifier
            .socket
            .is_some()
            .then_some(Self { notifier, every })
    }

    /// The time between two beats.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.every
    }

    /// One beat.
    pub fn alive(&self) {
        self.notifier.send("WATCHDOG=1");
    }
}

impl Stopping {
    /// One line of text for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.0.status(status);
    }
}

/// A line break in the text would begin another assignment, `READY=1` for one.
fn status_line(status: &str) -> String {
    format!("STATUS={}", status.replace(char::is_control, " "))
}

/// An absolute path, or `@name` in the abstract namespace (sd_notify(3)).
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::other(
                "neither an absolute path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        manager
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let size = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn a_whole_life_is_told_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.into()));
        notifier.ready("serving");
        assert_eq!(received(&manager), "READY=1\nSTATUS=serving");
        let before = clock_gettime(ClockId::Monotonic).tv_sec;
        notifier.reloading();
        let reloading = received(&manager);
        let micros = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        let seconds = micros.parse::<i64>().unwrap() / 1_000_000;
        assert!((before..=before + 60).contains(&seconds), "{reloading}");
        notifier.status("serving; the last reload failed");
        assert_eq!(received(&manager), "STATUS=serving; the last reload failed");
        let stopping = notifier.stopping("draining");
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=draining");
        stopping.status("3 requests left");
        assert_eq!(received(&manager), "STATUS=3 requests left");
    }

    #[test]
    fn a_line_break_in_a_status_cannot_say_ready() {
        let name = format!("priorgate-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(format!("@{name}").into()));
        notifier.stopping("ended\nREADY=1");
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=ended READY=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for address in [
            None,
            Some(""),
            Some("relative"),
            Some("/nowhere/to/be/found"),
        ] {
            let notifier = Notifier::new(address.map(OsString::from));
            assert!(notifier.socket.is_none(), "{address:?}");
            notifier.ready("serving");
        }
    }

    #[test]
    fn a_manager_that_is_gone_or_never_reads_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.into()));
        // Fills the manager's queue without waiting, then waits once and gives up.
        let socket = notifier.socket.as_ref().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send(b"STATUS=").is_ok() {}
        socket.set_nonblocking(false).unwrap();
        let start = std::time::Instant::now();
        notifier.ready("serving");
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(manager);
        notifier.ready("serving");
    }
}
