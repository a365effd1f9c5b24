//! The YAML as it is written: every key of the contract, nothing resolved, no default but absence.
//!
//! Unknown and doubled keys are errors. What a key means, and what an absent one stands for, is in [`super::check`].

pub mod callback;

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{
    Address, AnswerType, BankName, BodyPointer, Credential, FileMode, FilePath, Header, Ip, Level,
    Name, RouteMethod, RoutePath, Sha256, Size, Span, Statuses, Url, User, Version,
};

/// The configuration of priorgate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The banks, each with its own identity, trust and routes.
    pub banks: Vec<Bank>,
    /// The administrator's listeners.
    pub admin: Option<Admin>,
    /// What the log looks like.
    pub log: Option<Log>,
    /// Threads that may block.
    pub threads: Option<Threads>,
    /// How long a shutdown may take.
    pub shutdown: Option<Shutdown>,
    /// How the process is confined.
    pub hardening: Option<Hardening>,
    /// Where operations are kept.
    pub journal: Option<Journal>,
    /// Notifications of banks: how they are verified, and where they go.
    #[serde(default)]
    pub callbacks: Vec<callback::Callback>,
    /// The log of who used the identity for what.
    pub audit: Option<Audit>,
}

/// A remote with its own identity, trust and routes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bank {
    /// A label in records and commands.
    pub name: BankName,
    /// The origin: `https://host[:port]`.
    pub url: Url,
    /// Allows an `http://` URL to a loopback address.
    #[serde(default)]
    pub allow_plaintext_loopback: bool,
    /// TLS versions.
    pub tls: Option<Tls>,
    /// What is trusted.
    pub trust: Option<Trust>,
    /// Who we are.
    pub identity: Option<Identity>,
    /// Where PHP reaches it.
    pub listen: Vec<Listen>,
    /// What may be asked.
    pub routes: Vec<Route>,
    /// Further headers.
    pub headers: Option<Headers>,
    /// Deadlines.
    pub timeouts: Option<Timeouts>,
    /// Bounds.
    pub limits: Option<Limits>,
    /// Kept connections.
    pub pool: Option<Pool>,
    /// When to stop dialling.
    pub breaker: Option<Breaker>,
    /// Name look-ups.
    pub dns: Option<Dns>,
}

/// TLS versions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The lowest version that is accepted.
    pub min_version: Option<Version>,
}

/// What is trusted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// PEM file with the only CA certificates that are trusted.
    pub ca_file: FilePath,
    /// The name that the bank's certificate must carry; the host of `url` by default.
    pub server_name: Option<String>,
    /// Pins, in addition to chain and name.
    #[serde(default)]
    pub spki_sha256: Vec<Sha256>,
}

/// Who we are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PEM file with the certificate chain, leaf first.
    pub cert_file: FilePath,
    /// PEM file with the private key, which the keyholder alone opens.
    pub key_file: Option<FilePath>,
    /// Instead of it: the name of a systemd credential of the keyholder.
    pub key_credential: Option<Credential>,
    /// How often the key may sign.
    pub sign_rate: Option<SignRate>,
}

/// How often a key may sign.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignRate {
    /// Signatures at once.
    pub burst: Option<u32>,
    /// Signatures a second in the long run.
    pub per_second: Option<u32>,
}

/// A listener: `unix` or `tcp`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The path of a Unix socket.
    pub unix: Option<FilePath>,
    /// Its permission bits.
    pub mode: Option<FileMode>,
    /// Its group.
    pub group: Option<User>,
    /// The users that may call: names, or uids other than root's and nobody's.
    pub callers: Option<Vec<User>>,
    /// An address and port.
    pub tcp: Option<Address>,
    /// Files with tokens, one of which a caller must present.
    pub token_files: Option<Vec<FilePath>>,
    /// Lets every local user in.
    #[serde(default)]
    pub open_to_every_local_user: bool,
    /// Allows an address that is not loopback.
    #[serde(default)]
    pub unsafe_listen: bool,
}

/// An allowed method and path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The name in records.
    pub name: Name,
    /// The exact method.
    pub method: RouteMethod,
    /// The exact path; `{id}` stands for one segment.
    pub path: RoutePath,
    /// Whether a query may follow.
    #[serde(default)]
    pub query: bool,
    /// Pooled or fresh.
    pub connection: Option<RouteConnection>,
    /// Whether a request needs an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
    /// Where the body names what the operation is about: JSON pointers.
    pub subject: Option<Vec<BodyPointer>>,
    /// Statuses of a definitive answer.
    pub definitive: Option<Vec<Statuses>>,
    /// Statuses with which the bank says that it did nothing.
    pub refused: Option<Vec<Statuses>>,
    /// Content types of a definitive answer.
    pub answer_types: Option<Vec<AnswerType>>,
}

/// Whether a request needs an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Idempotency {
    /// No request of the route is guarded: the default.
    None,
    /// A request with a key is guarded.
    Optional,
    /// Every request is guarded, and one without a key is refused.
    Required,
}

/// Which connection a route uses.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteConnection {
    /// A kept-alive one where there is one.
    Pooled,
    /// A new one for each request.
    Fresh,
}

/// Further headers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Headers {
    /// More request headers that pass.
    #[serde(default)]
    pub pass: Vec<Header>,
    /// Headers that are added, their values read from files.
    #[serde(default)]
    pub set_files: Vec<SetFile>,
}

/// A header whose value is secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetFile {
    /// Its name.
    pub name: Header,
    /// The file that holds its value.
    pub file: FilePath,
}

/// A deadline for every phase.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// From a head's first byte to its last.
    pub head: Option<Span>,
    /// For the caller's body.
    pub body: Option<Span>,
    /// Waiting for a place, connecting, shaking hands.
    pub connect: Option<Span>,
    /// From the request's first byte to the answer's last.
    pub response: Option<Span>,
    /// For the whole request.
    pub total: Option<Span>,
    /// A kept-alive caller's silence.
    pub idle: Option<Span>,
    /// How long a guarded request is listened for after its caller was told that the time is over.
    pub settle: Option<Span>,
}

/// A bound for everything that grows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// A request's head.
    pub head: Option<Size>,
    /// A request's header lines.
    pub headers: Option<u32>,
    /// A request's body.
    pub request_body: Option<Size>,
    /// An answer's body.
    pub response_body: Option<Size>,
    /// Requests at the bank at a time.
    pub concurrency: Option<u32>,
    /// Requests that wait for one of those places.
    pub queue: Option<u32>,
    /// Open connections of callers.
    pub connections: Option<u32>,
    /// What is read away of an unread request.
    pub linger: Option<Size>,
    /// Of a callback: verifications at a time.
    pub verify_concurrency: Option<u32>,
}

/// Kept connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// An idle connection older than this is closed.
    pub idle_timeout: Option<Span>,
    /// A connection older than this is not used again.
    pub max_age: Option<Span>,
    /// How many idle connections are kept.
    pub max_idle: Option<u32>,
}

/// When to stop dialling.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failed connects in a row.
    pub failures: Option<u32>,
    /// How long requests then fail at once.
    pub cooldown: Option<Span>,
}

/// Name look-ups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// How often a name is looked up again.
    pub refresh: Option<Span>,
    /// How long the last good answer serves.
    pub stale: Option<Span>,
    /// Fixed addresses instead.
    #[serde(default)]
    pub addresses: Vec<Ip>,
}

/// The administrator's listeners.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The path of the admin socket.
    pub unix: Option<FilePath>,
    /// Its permission bits.
    pub mode: Option<FileMode>,
    /// Its group.
    pub group: Option<User>,
    /// Who may change things.
    pub operators: Option<Vec<User>>,
    /// Health and status over HTTP, loopback only.
    pub tcp: Option<Address>,
}

/// The log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// JSON lines, or text for people.
    pub format: Option<LogFormat>,
    /// The lowest level that is written.
    pub level: Option<Level>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Pretty,
}

/// Threads that may block.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threads {
    /// TLS handshakes at a time.
    pub handshakes: Option<u32>,
}

/// Shutdown.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long running requests may take after SIGTERM.
    pub drain: Option<Span>,
}

/// Where operations are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The SQLite file.
    pub sqlite: FilePath,
    /// Accepts a file system that forgets (tmpfs, overlay): demos and tests.
    #[serde(default)]
    pub allow_volatile: bool,
}

/// The log of who used the identity for what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The file that is written; older ones lie beside it.
    pub file: FilePath,
    /// PEM file with the private Ed25519 key that signs checkpoints; only the keyholder opens it.
    pub key_file: Option<FilePath>,
    /// The name of a credential that the service manager passes to the keyholder, instead of `key_file`.
    pub key_credential: Option<Credential>,
    /// PEM file with its public key.
    pub public_key_file: Option<FilePath>,
    /// A file that has grown to this is set aside for a new one.
    pub rotate: Option<Size>,
    /// How long a file is kept after its last record.
    pub keep: Option<Span>,
}

/// How the process is confined.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hardening {
    /// The kernel takes it all away, or the process does not start: the default.
    Required,
    /// It starts and says what is missing.
    BestEffort,
    /// Nothing is confined.
    Disabled,
}
