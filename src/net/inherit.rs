//! Listening sockets that the service manager holds and passes on (sd_listen_fds(3)): it keeps them open over a restart, so
//! that callers wait in the kernel's queue instead of being refused.
//!
//! They are matched by address, never by order or name: what a listener asks of its callers stands beside its address in the
//! configuration, and a socket that stands nowhere asks nothing.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// A unit has a handful. More is a mistake in the environment.
const SOCKETS_MAX: usize = 64;

/// The sockets that were passed and not matched yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Passed>);

#[derive(Debug)]
enum Passed {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Why the passed sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// More than anybody has.
    #[error(
        "the service manager passes {0} sockets, and {SOCKETS_MAX} are the most that are taken"
    )]
    TooMany(usize),
    /// Not a stream socket that listens and has a name.
    #[error(
        "socket {0} of those that the service manager passes is no listening TCP or Unix stream socket; look at the .socket \
         units"
    )]
    NotAListener(usize, #[source] io::Error),
    /// A listener that nobody has configured.
    #[error(
        "the service manager passes {0}, and nothing in the configuration listens there: add it to a `listen`, or disable \
         its .socket unit"
    )]
    NotConfigured(String),
}

impl Inherited {
    /// Takes the sockets that are meant for this very process; none of them stays open in a program that it starts. To be
    /// called first of all: it changes the environment, which other threads might be reading.
    ///
    /// # Errors
    /// [`InheritError`]; without a service manager there is nothing to take, and no error.
    pub fn take() -> Result<Self, InheritError> {
        // A child of whoever the sockets were passed to inherits the variables, and other things under the same numbers.
        let meant_for = std::env::var("LISTEN_PID").ok();
        if meant_for.and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        if count > SOCKETS_MAX {
            return Err(InheritError::TooMany(count));
        }
        let sockets = (0..count).map(|index| {
            take(&mut passed, index).map_err(|source| InheritError::NotAListener(index, source))
        });
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// The listener at this address, if it was passed.
    pub(super) fn tcp(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let found = |passed: &Passed| matches!(passed, Passed::Tcp(_, addr) if *addr == wanted);
        match self.remove(found)? {
            Passed::Tcp(listener, _) => Some(listener),
            Passed::Unix(..) => None,
        }
    }

    /// The listener at this path, if it was passed.
    pub(super) fn unix(&mut self, wanted: &Path) -> Option<UnixListener> {
        let found = |passed: &Passed| matches!(passed, Passed::Unix(_, path) if path == wanted);
        match self.remove(found)? {
            Passed::Unix(listener, _) => Some(listener),
            Passed::Tcp(..) => None,
        }
    }

    /// That every socket has found its place in the configuration.
    ///
    /// # Errors
    /// [`InheritError::NotConfigured`] names the first that has not.
    pub(super) fn finish(&self) -> Result<(), InheritError> {
        match self.0.first() {
            None => Ok(()),
            Some(passed) => Err(InheritError::NotConfigured(passed.to_string())),
        }
    }

    fn remove(&mut self, found: impl Fn(&Passed) -> bool) -> Option<Passed> {
        let at = self.0.iter().position(found)?;
        Some(self.0.swap_remove(at))
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<Passed> {
    // What is not of the one kind stays where it is and may be of the other.
    let taken = match passed.take_unix_listener(index) {
        Ok(Some(listener)) => {
            let address = listener.local_addr()?;
            let path = address.as_pathname().ok_or(io::ErrorKind::Unsupported)?;
            let path = path.to_owned();
            (socket_acceptconn(&listener)?, Passed::Unix(listener, path))
        }
        _ => {
            let listener = passed
                .take_tcp_listener(index)?
                .ok_or(io::ErrorKind::NotFound)?;
            let addr = listener.local_addr()?;
            (socket_acceptconn(&listener)?, Passed::Tcp(listener, addr))
        }
    };
    match taken {
        (true, passed) => Ok(passed),
        (false, _) => Err(io::ErrorKind::NotConnected.into()),
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, addr) => write!(f, "tcp {addr}"),
            Self::Unix(_, path) => write!(f, "unix {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Inherited, SocketAddr, PathBuf, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let passed = vec![Passed::Tcp(tcp, addr), Passed::Unix(unix, path.clone())];
        (Inherited(passed), addr, path, dir)
    }

    #[test]
    fn each_socket_is_given_once_to_whoever_names_its_address() {
        let (mut inherited, addr, path, _dir) = two();
        assert!(inherited.tcp("127.0.0.1:1".parse().unwrap()).is_none());
        assert!(inherited.unix(Path::new("/elsewhere")).is_none());
        assert!(inherited.unix(&path).is_some());
        assert!(inherited.unix(&path).is_none());
        assert!(inherited.tcp(addr).is_some());
        assert!(inherited.finish().is_ok());
    }

    #[test]
    fn a_socket_that_nobody_names_is_an_error() {
        let (mut inherited, addr, path, _dir) = two();
        drop(inherited.unix(&path));
        let told = inherited.finish().unwrap_err().to_string();
        assert!(told.contains(&format!("tcp {addr}")), "{told}");
    }
}
