//! Who is at the other end of an accepted connection: its uid, asked of the kernel once.
//!
//! A Unix socket's peer is the process that connected; a TCP connection's is the user that made the connecting socket,
//! whoever holds it now. Neither changes while the connection is open.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::accept::Accepted;
use super::sockdiag::SockDiag;
use crate::policy::sockdiag::{Reason, Verdict};

/// A connection's other end.
#[derive(Debug)]
pub struct Peer(Kind);

#[derive(Debug)]
enum Kind {
    Unix(Option<u32>),
    Tcp {
        /// The caller's end and ours, and whom to ask; none where no listener asks, or the connection is broken.
        question: Option<(SocketAddr, SocketAddr, Arc<SockDiag>)>,
        answer: OnceLock<Result<u32, Reason>>,
    },
}

impl Peer {
    /// Of this connection. `diag` is there if a TCP listener has callers.
    #[must_use]
    pub fn of(accepted: &Accepted, diag: Option<&Arc<SockDiag>>) -> Self {
        Self(match accepted {
            Accepted::Unix(stream) => {
                Kind::Unix(stream.peer_cred().ok().map(|credentials| credentials.uid()))
            }
            Accepted::Tcp(stream) => Kind::Tcp {
                question: diag.and_then(|diag| {
                    let (caller, ours) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
                    Some((caller, ours, Arc::clone(diag)))
                }),
                answer: OnceLock::new(),
            },
        })
    }

    /// Whether it came over TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.0, Kind::Tcp { .. })
    }

    /// The uid, or why it cannot be told. The first call on TCP asks the kernel; what it said then stands.
    ///
    /// # Errors
    /// The reason, for records.
    pub fn prove(&self) -> Result<u32, Reason> {
        match &self.0 {
            Kind::Unix(uid) => uid.ok_or(Reason::NoAnswer),
            Kind::Tcp { question, answer } => *answer.get_or_init(|| {
                let (caller, ours, diag) = question.as_ref().ok_or(Reason::NoSocket)?;
                match diag.ask(*caller, *ours) {
                    Verdict::Caller(uid) => Ok(uid),
                    Verdict::Denied(reason) => Err(reason),
                }
            }),
        }
    }

    /// The uid as far as it is known without asking.
    #[must_use]
    pub fn known_uid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Unix(uid) => *uid,
            Kind::Tcp { answer, .. } => answer.get().and_then(|answer| answer.ok()),
        }
    }
}
