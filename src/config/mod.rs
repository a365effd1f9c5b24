//! The configuration as the rest of the program sees it: checked domain types, nothing optional that must be there.
//!
//! [`mod@file`] mirrors the YAML, [`check`] turns it into these types or into a list of mistakes ([`error`]).
//! A layer is handed the piece it needs ([`Bank`], [`Timeouts`], …), never the whole.

pub mod callback;
pub mod check;
pub mod error;
pub mod file;
pub mod names;
pub mod origin;
pub mod scalar;
pub mod schema;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::policy::route::Route;
use crate::policy::signing::rate::Rate;

pub use error::ConfigError;
pub use names::Names;

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_PATH: &str = "/etc/priorgate/config.yaml";

/// A configuration that has passed every check that needs no network.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The banks, each with its own identity, trust and routes. At least one; names are unique.
    pub banks: Vec<Bank>,
    /// The administrator's listeners.
    pub admin: Admin,
    /// What the log looks like.
    pub log: Log,
    /// Threads that may block.
    pub threads: Threads,
    /// How long a shutdown may take.
    pub shutdown: Shutdown,
    /// Notifications of banks. Names are unique.
    pub callbacks: Vec<callback::Callback>,
    /// Where operations and events are kept. Always there if a route is guarded or a callback is configured.
    pub journal: Option<Journal>,
    /// The log of who used the identity for what.
    pub audit: Option<Audit>,
    /// What the kernel is asked to take away from our processes.
    pub hardening: Hardening,
    /// The users and groups that were looked up for it.
    pub names: Names,
}

/// What happens when the kernel takes less away from a process than it is asked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hardening {
    /// The process does not start.
    Required,
    /// It starts and says what is missing.
    BestEffort,
    /// Nothing is asked.
    Disabled,
}

/// The audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audit {
    /// The file that is written; older ones lie beside it.
    pub file: PathBuf,
    /// The key pair that signs checkpoints, if there is one.
    pub key: Option<AuditKey>,
    /// Bytes at which a file is set aside for a new one.
    pub rotate: u64,
    /// How long a file is kept after its last record.
    pub keep: Duration,
}

/// The key pair of the audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditKey {
    /// The private key: the keyholder's to open, nobody else's.
    pub source: KeySource,
    /// The public key.
    pub public_file: PathBuf,
}

/// Where operations are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Journal {
    /// The SQLite file.
    pub path: PathBuf,
    /// Accepts a file system that forgets.
    pub allow_volatile: bool,
}

/// A configured remote.
#[derive(Clone, Debug)]
pub struct Bank {
    /// `[a-z0-9-]{1,32}`: a label in records, metrics and commands.
    pub name: String,
    /// Where it is.
    pub remote: Remote,
    /// How it is spoken to.
    pub transport: Transport,
    /// Where PHP reaches it. At least one.
    pub listen: Vec<Listen>,
    /// What may be asked. At least one; no two of one method overlap.
    pub routes: Vec<Route>,
    /// Which request headers pass besides the fixed ones, and which are added.
    pub headers: Headers,
    /// A deadline for every phase.
    pub timeouts: Timeouts,
    /// A bound for everything that grows.
    pub limits: Limits,
    /// Connections kept for the next request.
    pub pool: Pool,
    /// When to stop dialling a dead bank.
    pub breaker: Breaker,
    /// Name look-ups.
    pub dns: Dns,
}

/// The bank's address: an origin, never a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// Host name or IP literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The `Host` header: host, and the port when it is not the scheme's own. IPv6 in brackets.
    pub authority: String,
}

/// TLS, or the one spelled-out exception.
#[derive(Clone, Debug)]
pub enum Transport {
    /// `http://` to a loopback address, with `allow_plaintext_loopback: true`: another local proxy speaks TLS.
    PlaintextLoopback,
    /// Mutual TLS.
    Tls(Box<Tls>),
}

/// Mutual TLS towards one bank.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The lowest version that is accepted.
    pub min_version: TlsVersion,
    /// PEM file with the only CA certificates that are trusted.
    pub ca_file: PathBuf,
    /// The name that the bank's certificate must carry.
    pub server_name: String,
    /// SHA-256 of the SubjectPublicKeyInfo; empty, or one of these in addition to chain and name.
    pub spki_sha256: Vec<[u8; 32]>,
    /// PEM file with our certificate chain, leaf first.
    pub cert_file: PathBuf,
    /// Where the keyholder finds our private key.
    pub key: KeySource,
    /// How often it may sign.
    pub sign_rate: Rate,
}

/// Where a private key lies. Only the keyholder opens it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// A systemd credential of the keyholder's unit.
    Credential(String),
    /// A PEM file.
    File(PathBuf),
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// One listener and what it asks of its callers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    /// A Unix socket; the peer's uid must be listed.
    Unix {
        /// The socket file.
        socket: UnixSocket,
        /// The uids that may call.
        callers: Vec<u32>,
    },
    /// TCP; loopback unless `unsafe_listen: true`.
    Tcp {
        /// Port 0 asks the kernel for a free one (tests and the demo).
        addr: SocketAddr,
        /// What a caller must show.
        access: TcpAccess,
    },
}

/// A Unix socket file of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnixSocket {
    /// At most 107 bytes (`sockaddr_un`).
    pub path: PathBuf,
    /// Permission bits, `0o660` by default.
    pub mode: u32,
    /// The gid that the socket file is given, if any.
    pub gid: Option<u32>,
}

/// What a caller on TCP must show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TcpAccess {
    /// That its socket is one of these users'. At least one.
    Callers(Vec<u32>),
    /// One of the tokens in these files. At least one file.
    TokenFiles(Vec<PathBuf>),
    /// Both.
    CallersWithToken(Vec<u32>, Vec<PathBuf>),
    /// Nothing: spelled out as `open_to_every_local_user: true`.
    OpenToEveryLocalUser,
}

/// Header rules beyond the fixed allow-list.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Lower-case names that pass as they came.
    pub pass: Vec<http::HeaderName>,
    /// Headers that we add, their values read from files (secrets).
    pub set_files: Vec<SetHeader>,
}

/// A header whose value is a secret in a file.
#[derive(Clone, Debug)]
pub struct SetHeader {
    /// The header's name.
    pub name: http::HeaderName,
    /// The file that holds the value (a trailing line break is dropped).
    pub file: PathBuf,
}

/// A deadline for every phase of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// From a head's first byte to its last.
    pub head: Duration,
    /// For the caller's body.
    pub body: Duration,
    /// Waiting for a place, looking up, connecting and shaking hands: each within this.
    pub connect: Duration,
    /// From the request's first byte to the answer's last.
    pub response: Duration,
    /// For the whole request; above the others, below PHP's own. As long again may the answer wait for its reader.
    pub total: Duration,
    /// From a guarded request's first byte: how long its answer is listened for, whether or not somebody still waits.
    pub settle: Duration,
    /// How long a kept-alive caller may be silent, and how long it may leave an answer unread.
    pub idle: Duration,
}

/// A bound for everything that grows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of a request's head, and of an answer's.
    pub head: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// Bytes of a request's body.
    pub request_body: usize,
    /// Bytes of an answer's body.
    pub response_body: usize,
    /// Requests at the bank at a time.
    pub concurrency: usize,
    /// Requests waiting for one of those places.
    pub queue: usize,
    /// Open connections of callers, all listeners of this bank together.
    pub connections: usize,
    /// Bytes of an unread request that are discarded so that the caller can read its answer.
    pub linger: usize,
}

/// Kept connections to the bank.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// An idle connection older than this is closed. Below the bank's own idle time-out.
    pub idle_timeout: Duration,
    /// A connection older than this is not used again.
    pub max_age: Duration,
    /// How many idle connections are kept.
    pub max_idle: usize,
}

/// When to stop dialling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Breaker {
    /// Failed connects in a row.
    pub failures: u32,
    /// For how long requests then fail at once.
    pub cooldown: Duration,
}

/// Name look-ups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dns {
    /// How often a name is looked up again.
    pub refresh: Duration,
    /// For how long the last good answer serves while look-ups fail.
    pub stale: Duration,
    /// Fixed addresses instead of look-ups.
    pub addresses: Vec<IpAddr>,
}

/// The administrator's listeners. Either may be absent.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Commands.
    pub unix: Option<AdminUnix>,
    /// GET only, loopback only.
    pub tcp: Option<SocketAddr>,
}

/// The admin socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminUnix {
    /// The socket file.
    pub socket: UnixSocket,
    /// The uids that may change things. Whoever else the socket's mode lets in may read.
    pub operators: Vec<u32>,
}

/// The log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// JSON lines, or text for people.
    pub format: LogFormat,
    /// The lowest level that is written.
    pub level: tracing::Level,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Pretty,
}

/// Threads that may block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Threads {
    /// TLS handshakes at a time (signing blocks).
    pub handshakes: usize,
}

/// Shutdown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shutdown {
    /// How long running requests may take after SIGTERM.
    pub drain: Duration,
}

impl TcpAccess {
    /// The users whose sockets may call, where it matters.
    #[must_use]
    pub fn callers(&self) -> Option<&[u32]> {
        match self {
            Self::Callers(callers) | Self::CallersWithToken(callers, _) => Some(callers),
            Self::TokenFiles(_) | Self::OpenToEveryLocalUser => None,
        }
    }

    /// The files of tokens; none where no token is asked for.
    #[must_use]
    pub fn token_files(&self) -> &[PathBuf] {
        match self {
            Self::TokenFiles(files) | Self::CallersWithToken(_, files) => files,
            Self::Callers(_) | Self::OpenToEveryLocalUser => &[],
        }
    }
}

impl Config {
    /// The TCP listeners that ask who calls: these need the kernel's `sock_diag`.
    pub fn tcp_with_callers(&self) -> impl Iterator<Item = SocketAddr> {
        let banks = self.banks.iter().flat_map(|bank| &bank.listen);
        let banks = banks.filter_map(|listen| match listen {
            Listen::Tcp { addr, access } => access.callers().map(|_| *addr),
            Listen::Unix { .. } => None,
        });
        let callbacks = self.callbacks.iter().flat_map(|callback| &callback.listen);
        let callbacks = callbacks.filter_map(|listen| match (&listen.socket, &listen.callers) {
            (callback::Socket::Tcp(addr), Some(_)) => Some(*addr),
            _ => None,
        });
        banks.chain(callbacks)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] holds every mistake that was found, each with file, line where known, key path and next step.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        check::load(path, Names::default())
    }

    /// The same in a process that cannot look users and groups up any more: `known` has those that it may name.
    ///
    /// # Errors
    /// As [`Self::load`]; a name that is not known wants a restart, and the mistake says so.
    pub fn load_knowing(path: &Path, known: &Names) -> Result<Self, ConfigError> {
        check::load(path, known.only())
    }
}
