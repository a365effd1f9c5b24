//! Binding listeners: loopback TCP and Unix sockets with their mode and group set before anyone can connect.
//!
//! It owns the rule about socket files: a stale one of ours is replaced, somebody else's never is. What the service
//! manager has bound already is taken over instead ([`Binder`]), and its file is the manager's.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::TcpListener;

use super::inherit::{InheritError, Inherited};

/// A bound listener that no runtime knows yet: start-up binds before it confines itself and starts threads.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket, and its file if it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// A listener on the serving runtime.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and its file if it is ours.
    Unix(tokio::net::UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket of ours: removed on drop, if it is still the one we made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Where listeners come from: passed on by the service manager where it has them, else bound here.
#[derive(Debug, Default)]
pub struct Binder(Inherited);

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port.
    #[error("cannot listen on {addr}; is another program using the port?")]
    Tcp {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else lies where the socket should be.
    #[error("{} exists and is {what}; it is left alone: remove it or configure another path", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A live process answers there.
    #[error("another process is listening on {}; stop it first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// What the service manager passes does not fit.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// A system call on the socket file failed.
    #[error("cannot {doing} {}", path.display())]
    Unix {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Binder {
    /// Takes over what was passed on.
    #[must_use]
    pub fn new(inherited: Inherited) -> Self {
        Self(inherited)
    }

    /// TCP.
    ///
    /// # Errors
    /// [`ListenError::Tcp`].
    pub fn tcp(&mut self, addr: SocketAddr) -> Result<Bound, ListenError> {
        let Some(listener) = self.0.tcp(addr) else {
            return Bound::tcp(addr);
        };
        let ready = listener.set_nonblocking(true);
        ready
            .map(|()| Bound::Tcp(listener))
            .map_err(|source| ListenError::Tcp { addr, source })
    }

    /// A Unix socket. Of one that is passed on the manager's unit decides mode and group.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn unix(&mut self, path: &Path, mode: u32, gid: Option<u32>) -> Result<Bound, ListenError> {
        let Some(listener) = self.0.unix(path) else {
            return Bound::unix(path, mode, gid);
        };
        let looked = listener
            .set_nonblocking(true)
            .and_then(|()| path.metadata());
        let metadata = looked.map_err(|source| ListenError::Unix {
            doing: "look at the passed socket",
            path: path.to_owned(),
            source,
        })?;
        let found = metadata.mode() & 0o777;
        if found != mode || gid.is_some_and(|gid| gid != metadata.gid()) {
            tracing::warn!(
                path = %path.display(),
                mode = format!("{found:04o}"),
                gid = metadata.gid(),
                "the .socket unit gives this socket another mode or group than the configuration: the unit's are in force"
            );
        }
        Ok(Bound::Unix(listener, None))
    }

    /// That nothing was passed on that nobody asked for.
    ///
    /// # Errors
    /// [`ListenError::Inherit`].
    pub fn finish(self) -> Result<(), ListenError> {
        Ok(self.0.finish()?)
    }
}

impl Bound {
    /// Binds TCP.
    ///
    /// # Errors
    /// [`ListenError::Tcp`].
    pub fn tcp(addr: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(Self::Tcp(listener))
        };
        bind().map_err(|source| ListenError::Tcp { addr, source })
    }

    /// Binds a Unix socket. Must run under a umask that lets nobody else connect before the mode is set (the process
    /// sets 0077 at start).
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn unix(path: &Path, mode: u32, gid: Option<u32>) -> Result<Self, ListenError> {
        remove_stale(path)?;
        let failed = |doing| {
            move |source| ListenError::Unix {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let listener = UnixListener::bind(path).map_err(failed("bind the socket"))?;
        let metadata = path
            .symlink_metadata()
            .map_err(failed("look at the socket"))?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        listener
            .set_nonblocking(true)
            .map_err(failed("prepare the socket"))?;
        if let Some(gid) = gid {
            chown(path, None, Some(gid)).map_err(failed("set the group of"))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(failed("set the mode of"))?;
        Ok(Self::Unix(listener, Some(file)))
    }

    /// The TCP address that was bound.
    #[must_use]
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Hands the listener to the runtime that this is called in.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor.
    pub fn serve(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => {
                Listener::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if still_ours {
            // Best effort: a file that stays is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that a dead process of ours left behind; refuses anything else.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let not_ours = |what| ListenError::NotOurs {
        path: path.to_owned(),
        what,
    };
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ListenError::Unix {
                doing: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return Err(not_ours("not a socket"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(not_ours("a socket of another user"));
    }
    match probe(path) {
        // A full queue, too, has somebody behind it.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse {
            path: path.to_owned(),
        }),
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(|source| ListenError::Unix {
            doing: "remove the stale socket",
            path: path.to_owned(),
            source,
        }),
        Err(errno) => Err(ListenError::Unix {
            doing: "probe the socket",
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// Whether somebody listens. Does not block: a connect to a full queue would wait for ever (unix(7)).
fn probe(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Result<Bound, ListenError> {
        Bound::unix(path, 0o600, None)
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = unix(&path).unwrap();
        assert!(matches!(unix(&path), Err(ListenError::InUse { .. })));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(unix(&path), Err(ListenError::NotOurs { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_socket_that_replaced_ours_is_not_removed_with_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let ours = unix(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }
}
