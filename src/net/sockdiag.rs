//! Asks the kernel which user a TCP connection on this machine belongs to: `sock_diag`, one exact question for one
//! connection, on a netlink socket that is kept.
//!
//! It owns that socket and its waits; what an answer is worth is `policy/sockdiag`'s. A caller in another network
//! namespace cannot be found here, nor one on another machine: both are denied.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with,
};

use crate::policy::sockdiag::{Question, Reason, Verdict};

/// The kernel answers within the call that asks, in microseconds; this bounds what nobody expects, on the one thread that
/// serves.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// An answer has 88 bytes and some attributes.
const ANSWER_MAX: usize = 1024;
/// Late answers that are read away before a question: more than that many are no accident.
const LATE_MAX: usize = 16;

/// The kept socket.
#[derive(Debug)]
pub struct SockDiag(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    sequence: u32,
    /// An answer may still be on its way: the last question did not end with its own.
    late: bool,
}

/// Why TCP callers cannot be told apart on this machine.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No netlink socket.
    #[error(
        "`callers` on TCP: the kernel gives no sock_diag socket; allow AF_NETLINK (systemd: RestrictAddressFamilies=), or \
         use a Unix socket"
    )]
    Socket(#[source] io::Error),
    /// No connection to ourselves.
    #[error("`callers` on TCP: cannot connect to {0} to try the look-up of callers")]
    Connect(IpAddr, #[source] io::Error),
    /// The kernel does not say who we are.
    #[error(
        "`callers` on TCP: the kernel cannot say whose a connection from {0} is: {1}. Is its module tcp_diag there? A Unix \
         socket needs none"
    )]
    Denied(IpAddr, Reason),
    /// It says somebody else.
    #[error(
        "`callers` on TCP: the kernel says that our own connection from {address} is uid {found}'s, and we are {expected}: \
         uids mean nothing here (systemd: PrivateUsers= must be no)"
    )]
    SomebodyElse {
        /// Where we asked.
        address: IpAddr,
        /// What it says.
        found: u32,
        /// Who we are.
        expected: u32,
    },
}

impl SockDiag {
    /// Opens the socket, and sees that the kernel knows us by it: for each address family, a connection to ourselves.
    ///
    /// # Errors
    /// [`ProbeError`]: what cannot be proved here could be proved of nobody.
    pub fn open(ipv4: bool, ipv6: bool) -> Result<Self, ProbeError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        );
        let diag = Self(Mutex::new(Inner {
            socket: socket.map_err(|errno| ProbeError::Socket(errno.into()))?,
            sequence: 0,
            late: false,
        }));
        if ipv4 {
            diag.probe(Ipv4Addr::LOCALHOST.into())?;
        }
        if ipv6 {
            diag.probe(Ipv6Addr::LOCALHOST.into())?;
        }
        Ok(diag)
    }

    /// Whose the connection's other end is.
    pub fn ask(&self, caller: SocketAddr, ours: SocketAddr) -> Verdict {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ask(caller, ours)
    }

    fn probe(&self, address: IpAddr) -> Result<(), ProbeError> {
        let connect = || {
            let listener = TcpListener::bind((address, 0))?;
            let ours = listener.local_addr()?;
            // The queue takes it: nobody needs to accept.
            let caller = TcpStream::connect(ours)?;
            Ok((caller.local_addr()?, ours, caller, listener))
        };
        let (caller, ours, _open, _listener) =
            connect().map_err(|source| ProbeError::Connect(address, source))?;
        let expected = rustix::process::geteuid().as_raw();
        match self.ask(caller, ours) {
            Verdict::Caller(found) if found == expected => Ok(()),
            Verdict::Caller(found) => Err(ProbeError::SomebodyElse {
                address,
                found,
                expected,
            }),
            Verdict::Denied(reason) => Err(ProbeError::Denied(address, reason)),
        }
    }
}

impl Inner {
    fn ask(&mut self, caller: SocketAddr, ours: SocketAddr) -> Verdict {
        if self.late && self.read_away().is_err() {
            return Verdict::Denied(Reason::NoAnswer);
        }
        self.late = true;
        self.sequence = self.sequence.wrapping_add(1);
        let question = Question {
            caller,
            ours,
            sequence: self.sequence,
        };
        let mut answer = [0; ANSWER_MAX];
        let Ok(length) = self.exchange(&question, &mut answer) else {
            return Verdict::Denied(Reason::NoAnswer);
        };
        let Some(answer) = answer.get(..length) else {
            return Verdict::Denied(Reason::Malformed);
        };
        let verdict = question.judge(answer);
        self.late = verdict == Verdict::Denied(Reason::OtherQuestion);
        verdict
    }

    /// One datagram out, one in; its length may be more than there was room for.
    fn exchange(
        &self,
        question: &Question,
        answer: &mut [u8; ANSWER_MAX],
    ) -> rustix::io::Result<usize> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = sendto(
            &self.socket,
            &question.encode(),
            SendFlags::empty(),
            &kernel,
        )?;
        if sent != crate::policy::sockdiag::QUESTION {
            return Err(Errno::MSGSIZE);
        }
        let mut readable = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut readable, Some(&PATIENCE))? == 0 {
            return Err(Errno::TIMEDOUT);
        }
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length, from) = recvfrom(&self.socket, &mut answer[..], flags)?;
        // A process with the privilege could send to us as well.
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        match from {
            Some(from) if from.pid() == 0 => Ok(length),
            _ => Err(Errno::ACCESS),
        }
    }

    fn read_away(&mut self) -> rustix::io::Result<()> {
        let mut late = [0; ANSWER_MAX];
        for _ in 0..LATE_MAX {
            match recvfrom(&self.socket, &mut late[..], RecvFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN) => {
                    self.late = false;
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diag() -> SockDiag {
        SockDiag::open(true, true).unwrap()
    }

    /// A connection: our end, the caller's.
    fn connection(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, caller)
    }

    fn asked(diag: &SockDiag, ours: &TcpStream) -> Verdict {
        diag.ask(ours.peer_addr().unwrap(), ours.local_addr().unwrap())
    }

    #[test]
    fn an_open_connection_is_its_users_and_a_closed_one_nobodys() {
        let me = rustix::process::geteuid().as_raw();
        let diag = diag();
        for address in ["127.0.0.1", "::1"] {
            let (ours, caller) = connection(address);
            assert_eq!(asked(&diag, &ours), Verdict::Caller(me), "{address}");
            caller.shutdown(std::net::Shutdown::Write).unwrap();
            let denied = Verdict::Denied(Reason::NotEstablished);
            assert_eq!(asked(&diag, &ours), denied, "half-closed, {address}");
            drop(caller);
            assert_eq!(asked(&diag, &ours), denied, "closed, {address}");
        }
    }

    #[test]
    fn a_connection_that_never_was_is_nobodys() {
        let diag = diag();
        let (ours, _caller) = connection("127.0.0.1");
        let ours_at = ours.local_addr().unwrap();
        // Nobody listens on port 1 of this machine, and nobody calls from there.
        let never = diag.ask("127.0.0.1:1".parse().unwrap(), ours_at);
        assert_eq!(never, Verdict::Denied(Reason::NoSocket));
        // A listener on the port is no connection.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let listening = diag.ask(at, ours_at);
        assert_eq!(listening, Verdict::Denied(Reason::NotEstablished));
    }

    #[test]
    fn a_late_answer_is_read_away_before_the_next_question() {
        let diag = diag();
        let (ours, _caller) = connection("127.0.0.1");
        let (other, other_caller) = connection("127.0.0.1");
        {
            // A question whose answer nobody took.
            let mut inner = diag.0.lock().unwrap();
            let question = Question {
                caller: other.peer_addr().unwrap(),
                ours: other.local_addr().unwrap(),
                sequence: inner.sequence.wrapping_add(1),
            };
            let kernel = SocketAddrNetlink::new(0, 0);
            sendto(
                &inner.socket,
                &question.encode(),
                SendFlags::empty(),
                &kernel,
            )
            .unwrap();
            inner.sequence = question.sequence;
        }
        let denied = Verdict::Denied(Reason::OtherQuestion);
        assert_eq!(asked(&diag, &ours), denied, "fails closed");
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(asked(&diag, &ours), Verdict::Caller(me), "and recovers");
        drop(other_caller);
    }
}
