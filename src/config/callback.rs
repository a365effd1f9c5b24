//! A configured callback: how the bank's notifications come in, what they must prove, and where they go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Limits, Timeouts, UnixSocket};
use crate::policy::event;
use crate::policy::operation::{MediaType, UnixMillis};
use crate::policy::schedule::{AFTER_TIMEOUT, Schedule};
use crate::policy::signature::{Algorithm, Field, TOLERANCE_ADVISED, Template, Timestamp};
use crate::policy::status::Policy;

/// One callback.
#[derive(Clone, Debug)]
pub struct Callback {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Where nginx passes notifications on to. At least one.
    pub listen: Vec<Listen>,
    /// The exact path.
    pub path: String,
    /// What a notification must prove.
    pub signature: Signature,
    /// What in it says which event it is.
    pub event: event::Rules,
    /// What happens to contradictions.
    pub policy: Policy,
    /// Content types that are taken; empty for any.
    pub content_types: Vec<MediaType>,
    /// Deadlines; those towards a bank mean nothing here.
    pub timeouts: Timeouts,
    /// Bounds; those towards a bank mean nothing here.
    pub limits: Limits,
    /// Verifications at a time: each holds a thread.
    pub verify_concurrency: usize,
    /// What the bank wants to hear.
    pub answer: Answer,
    /// Where events go.
    pub deliver: Deliver,
}

/// A listener. The signature authenticates; callers may be given besides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// What is bound.
    pub socket: Socket,
    /// The uids that may connect, if not every local user (on a Unix socket: whom its mode lets in).
    pub callers: Option<Vec<u32>>,
}

/// What is bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Socket {
    /// A loopback address, unless `unsafe_listen: true`.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(UnixSocket),
}

/// What a notification must prove.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The header that holds it.
    pub header: HeaderName,
    /// How it is written.
    pub field: Field,
    /// What is signed.
    pub message: Template,
    /// A signed time, and how old it may be.
    pub timestamp: Option<Timestamp>,
    /// The bank's keys. At least one.
    pub keys: Vec<Key>,
    /// The status for a well-formed signature that no key verifies: 503, so that the bank sends it again, or 403.
    pub on_mismatch: u16,
}

/// A public key of the bank.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in records and deliveries.
    pub id: String,
    /// The only algorithm that it is used with.
    pub algorithm: Algorithm,
    /// Its file.
    pub file: PathBuf,
    /// From when.
    pub not_before: Option<UnixMillis>,
    /// Until when.
    pub not_after: Option<UnixMillis>,
}

/// What the bank wants to hear.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// A 2xx.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// Where the shop listens.
    pub target: Target,
    /// The `Host` header.
    pub host: HeaderValue,
    /// Path and query.
    pub path: String,
    /// Files with `whsec_…`.
    pub secret_files: Vec<PathBuf>,
    /// What counts as an acknowledgement.
    pub ack: Ack,
    /// For one attempt.
    pub timeout: Duration,
    /// Deliveries at a time.
    pub concurrency: usize,
    /// When again.
    pub schedule: Schedule,
}

/// Where the shop listens: this machine only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What counts as an acknowledgement, all of them behind a 2xx.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ack {
    /// `Priorgate-Ack` with the delivery's id.
    Header,
    /// `Priorgate-Ack` with a signature over this attempt.
    Signed,
    /// The status alone.
    Status,
}

impl Callback {
    /// When the last of its keys ends: nothing is verified after that. `None` when one of them never does.
    #[must_use]
    pub fn keys_end(&self) -> Option<UnixMillis> {
        let ends = self.signature.keys.iter().map(|key| key.not_after);
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// What `check` says of a callback that may be meant as it is.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let mut found = Vec::new();
        let name = &self.name;
        if let Some(timestamp) = &self.signature.timestamp
            && timestamp.tolerance < TOLERANCE_ADVISED
        {
            found.push(format!(
            "callback {name}: timestamp.tolerance is under 24h: banks send the same signed bytes again for days, and the \
             repeats would be refused"
        ));
        }
        if self.deliver.schedule.after_timeout < AFTER_TIMEOUT {
            found.push(format!(
                "callback {name}: deliver.after_timeout is under 60s: PHP may work on two events of one order at a time"
            ));
        }
        let signature = &self.signature;
        if let Some((left, right)) = signature
            .message
            .runs_together(signature.timestamp.as_ref())
        {
            found.push(format!(
                "callback {name}: in signature.message `{left}` and `{right}` run together: bytes could move from one to the \
                 other under one signature. If the bank signs so, rely on neither alone"
            ));
        }
        if self.deliver.ack != Ack::Signed && matches!(self.deliver.target, Target::Tcp(_)) {
            found.push(format!(
            "callback {name}: an unsigned acknowledgement over TCP: whoever takes the port while the web server is down \
             could acknowledge"
        ));
        }
        found
    }
}
