//! Listeners: what they bind, and what they ask of their callers. None asks nothing by accident.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Checker;
use crate::config::scalar::{FileMode, User};
use crate::config::{Listen, TcpAccess, UnixSocket, file};
use crate::policy::caller;

/// `sun_path` holds 108 bytes, the last of them NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// For the owner and one group: the web server's.
const SOCKET_MODE: u32 = 0o660;

impl Checker {
    pub(super) fn listen(&mut self, at: &str, raw: file::Listen) -> Option<Listen> {
        match (&raw.unix, &raw.tcp) {
            (Some(_), None) => self.listen_unix(at, raw),
            (None, Some(address)) => {
                let address = address.0;
                self.listen_tcp(at, raw, address)
            }
            _ => {
                self.mistake(
                    at,
                    "expected either `unix` or `tcp`",
                    "write one listener for each",
                );
                None
            }
        }
    }

    fn listen_unix(&mut self, at: &str, raw: file::Listen) -> Option<Listen> {
        if raw.token_files.is_some() || raw.open_to_every_local_user || raw.unsafe_listen {
            self.mistake(
                at,
                "token_files, open_to_every_local_user and unsafe_listen belong to `tcp`",
                "on a Unix socket the kernel says who calls: list them in `callers`",
            );
        }
        let path = raw.unix?;
        let socket = self.socket(&format!("{at}.unix"), at, &path.0, raw.mode, raw.group);
        let callers = self.callers(&format!("{at}.callers"), &raw.callers.unwrap_or_default());
        Some(Listen::Unix { socket, callers })
    }

    /// The users that may call. The uids that the kernel also gives where it knows nobody count only by name.
    pub(super) fn callers(&mut self, at: &str, users: &[User]) -> Vec<u32> {
        if users.is_empty() {
            self.mistake(
                at,
                "expected at least one user: nobody could call",
                "list the users that PHP runs as, for example [www-data]",
            );
        }
        for (index, user) in users.iter().enumerate() {
            if let User::Uid(uid) = user
                && caller::needs_name(*uid)
            {
                self.mistake(
                    format!("{at}[{index}]"),
                    format!("uid {uid} as a number: the kernel says it of sockets that are nobody's, too"),
                    "if this user is meant, write its name (root, nobody)",
                );
            }
        }
        self.users(at, users)
    }

    fn listen_tcp(&mut self, at: &str, raw: file::Listen, addr: SocketAddr) -> Option<Listen> {
        if raw.mode.is_some() || raw.group.is_some() {
            self.mistake(at, "mode and group belong to `unix`", "remove them");
        }
        self.taken(&format!("{at}.tcp"), addr);
        if !addr.ip().is_loopback() && !raw.unsafe_listen {
            self.mistake(
                format!("{at}.tcp"),
                "is not a loopback address: the network could use the shop's bank identity",
                "use 127.0.0.1 or [::1]; `unsafe_listen: true` overrides this",
            );
        }
        let callers = raw
            .callers
            .map(|users| self.callers(&format!("{at}.callers"), &users));
        let files = raw
            .token_files
            .filter(|files| !files.is_empty())
            .map(|files| {
                let files = files.iter().map(|file| self.resolve(&file.0));
                files.collect::<Vec<_>>()
            });
        let access = match (callers, files, raw.open_to_every_local_user) {
            (Some(callers), Some(files), false) => TcpAccess::CallersWithToken(callers, files),
            (Some(callers), None, false) => TcpAccess::Callers(callers),
            (None, Some(files), false) => TcpAccess::TokenFiles(files),
            (None, None, true) if !addr.ip().is_loopback() => {
                self.mistake(
                    format!("{at}.open_to_every_local_user"),
                    "on an address that is not loopback this is open to the network",
                    "use token_files",
                );
                return None;
            }
            (None, None, true) => TcpAccess::OpenToEveryLocalUser,
            (Some(_), _, true) | (_, Some(_), true) => {
                self.mistake(
                    at,
                    "open_to_every_local_user contradicts callers and token_files",
                    "keep either it or them",
                );
                return None;
            }
            (None, None, false) => {
                self.mistake(
                    at,
                    "expected callers or token_files: every local user could call",
                    "list the users that PHP runs as, for example `callers: [www-data]`; \
                     `open_to_every_local_user: true` overrides this",
                );
                return None;
            }
        };
        Some(Listen::Tcp { addr, access })
    }

    /// A socket file; `owner` is the key path that `group` stands under.
    pub(super) fn socket(
        &mut self,
        at: &str,
        owner: &str,
        path: &Path,
        mode: Option<FileMode>,
        group: Option<User>,
    ) -> UnixSocket {
        let path = self.resolve(path);
        if path.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            self.mistake(
                at,
                format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes"),
                "use a shorter one, for example below /run/priorgate",
            );
        }
        if !self.socket_files.insert(path.clone()) {
            self.mistake(at, "another listener has this path", "choose another");
        }
        let gid = group.and_then(|group| self.group(&format!("{owner}.group"), &group));
        UnixSocket {
            path,
            mode: mode.map_or(SOCKET_MODE, |mode| mode.0),
            gid,
        }
    }

    /// Port 0 is never taken: the kernel gives each listener its own.
    pub(super) fn taken(&mut self, at: &str, addr: SocketAddr) {
        let other = self.addresses.iter().find(|other| clash(**other, addr));
        if let Some(other) = other.filter(|_| addr.port() != 0) {
            let message = if *other == addr {
                "another listener has this address and port".to_owned()
            } else {
                format!("another listener's address, {other}, covers the same port")
            };
            self.mistake(at, message, "choose another port");
        }
        self.addresses.push(addr);
    }
}

/// Whether the kernel would refuse the second of the two: `0.0.0.0` is every IPv4 address, and `[::]` every address
/// (ipv6(7), `IPV6_V6ONLY` is off by default).
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_takes_the_port_of_those_that_it_covers() {
        let clash = |a: &str, b: &str| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(clash(a, b), clash(b, a));
            clash(a, b)
        };
        assert!(clash("127.0.0.1:1", "127.0.0.1:1"));
        assert!(clash("0.0.0.0:1", "127.0.0.1:1"));
        assert!(clash("[::]:1", "127.0.0.1:1"));
        assert!(clash("[::]:1", "[::1]:1"));
        assert!(!clash("0.0.0.0:1", "[::1]:1"));
        assert!(!clash("127.0.0.2:1", "127.0.0.1:1"));
        assert!(!clash("127.0.0.1:2", "127.0.0.1:1"));
    }
}
