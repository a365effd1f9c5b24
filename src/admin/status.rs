//! The status document: what the gate says of itself, to the command line and to monitoring.
//!
//! It owns the names in the JSON, which are a contract. It does not know where the numbers come from.
//! Unknown members are ignored when it is read, so that an older command line reads a newer gate.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x509_cert::der::DateTime;

/// The whole document.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Where in its life the process is.
    pub phase: Phase,
    /// The gate's process id.
    pub pid: u32,
    /// When the process started.
    pub started_at: Timestamp,
    /// The configuration file.
    pub config: String,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// What the kernel takes away from the process.
    pub confinement: Confinement,
    /// What an administrator should know: dangerous switches that are on.
    pub warnings: Vec<String>,
    /// Each bank, in the order of the configuration.
    pub banks: Vec<Bank>,
    /// Each callback, in the order of the configuration.
    #[serde(default)]
    pub callbacks: Vec<Callback>,
    /// Where operations are kept; none without guarded routes.
    #[serde(default)]
    pub journal: Option<Journal>,
    /// The process that has the keys; none without TLS.
    #[serde(default)]
    pub keyholder: Option<Keyholder>,
    /// The audit log, where one is kept.
    #[serde(default)]
    pub audit: Option<Audit>,
    /// The administrator's listeners.
    pub admin: AdminListeners,
    /// Log lines that were lost because nobody read them.
    pub log_dropped: u64,
    /// Banks and callbacks of which a listener accepts no more, though the gate serves.
    #[serde(default)]
    pub listeners_down: Vec<String>,
}

/// What the kernel takes away from the gate's process, as the kernel says now.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Confinement {
    /// What was asked for: `required`, `best-effort` or `disabled`.
    pub level: String,
    /// What is in force.
    pub in_force: Vec<String>,
    /// What was asked for and is not, each with the reason where there is one.
    pub missing: Vec<String>,
    /// What this kernel is too old for.
    pub not_offered: Vec<String>,
    /// What a new process would see and this one cannot.
    pub restart_needed: Option<String>,
}

/// The audit log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Audit {
    /// The file that is written.
    pub file: String,
    /// Why nothing is written now.
    pub failing: Option<String>,
    /// The last record's number.
    pub seq: u64,
    /// Whether somebody signs checkpoints.
    pub signs: bool,
    /// Up to which record the last signature of this process reaches.
    pub signed: u64,
    /// Why the last signature is missing or late.
    pub unsigned: Option<String>,
    /// Records of ordinary requests that are not in it; it says so itself.
    pub lost: u64,
    /// The last row of the journal that is in it.
    pub journal_row: i64,
    /// Rows of the journal that are not in it yet.
    #[serde(default)]
    pub owed: u64,
}

/// Where in its life the process is. Draining is the last one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Serving the old state while the new one is read.
    Reloading,
    /// Finishing what runs; nothing new is accepted.
    Draining,
}

/// What became of a reload.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LastReload {
    /// When it ended.
    pub at: Timestamp,
    /// Whether the new state serves.
    pub ok: bool,
    /// Why not: the last good state serves on.
    pub error: Option<String>,
}

/// One bank.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Bank {
    /// Its name in the configuration.
    pub name: String,
    /// Its origin.
    pub url: String,
    /// How it is spoken to.
    pub transport: Transport,
    /// Where PHP reaches it.
    pub listen: Vec<ListenAddress>,
    /// Counts the published states, from 1.
    pub generation: u64,
    /// The shop's certificate towards it; none without TLS or before one is loaded.
    pub certificate: Option<Certificate>,
    /// Its addresses as last looked up.
    pub addresses: Vec<String>,
    /// Whether it is dialled.
    pub breaker: Breaker,
    /// Connections.
    pub pool: Pool,
    /// Requests at the bank now.
    pub in_flight: u64,
    /// Requests waiting for a place.
    pub queued: u64,
    /// Requests since the start, by outcome.
    pub requests: Requests,
    /// Requests whose caller was denied, since the start.
    #[serde(default)]
    pub denied: Denied,
}

/// The process that has the keys, as the gate knows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Keyholder {
    /// Whether it answered the last time that it was asked.
    pub up: bool,
    /// The signer's process id.
    pub pid: Option<u32>,
    /// Handshakes that it signed for this gate: the signer's own log has a line for each.
    pub signatures: u64,
    /// How often another signer took over in this gate's life.
    pub restarts: u64,
}

/// One callback.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Callback {
    /// Its name in the configuration.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Where nginx reaches it.
    pub listen: Vec<ListenAddress>,
    /// New events on disk, since the start.
    pub accepted: u64,
    /// Events that were on disk already.
    pub repeated: u64,
    /// Notifications refused for their signature.
    pub rejected: u64,
    /// Notifications refused for anything else.
    pub refused: u64,
    /// Events that the shop has not taken yet.
    #[serde(default)]
    pub waiting: u64,
    /// When the oldest of them came.
    #[serde(default)]
    pub oldest: Option<Timestamp>,
    /// Events that wait for a person, as contradictions.
    #[serde(default)]
    pub held: u64,
    /// Events that were given up.
    #[serde(default)]
    pub dead: u64,
    /// Requests whose caller was denied, since the start; among the refused.
    #[serde(default)]
    pub denied: Denied,
}

/// Callers that were denied.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Denied {
    /// How many requests.
    pub total: u64,
    /// The last ones, of one caller within one second.
    pub last: Option<LastDenied>,
}

/// Denials of one caller within one second.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LastDenied {
    /// When.
    pub at: Timestamp,
    /// The listener.
    pub listener: String,
    /// The caller, where the kernel told who it is.
    pub uid: Option<u32>,
    /// `not_listed`, `unproven`, `token`, or `many` callers.
    pub cause: String,
    /// How many requests.
    pub count: u64,
}

/// Where operations are kept, and how many need somebody's attention.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Journal {
    /// The file.
    pub file: String,
    /// Why it is closed for this process, if it is: the gate is ending.
    pub failed: Option<String>,
    /// Guarded routes are refused by hand.
    pub frozen: bool,
    /// The journal does not know what the audit log knows: guarded requests are refused until `operations reconcile`.
    #[serde(default)]
    pub doubted: bool,
    /// The disk has no space for new operations.
    pub full: bool,
    /// Operations that run.
    pub open: u64,
    /// Operations that may have reached the bank, without an answer.
    pub unknown: u64,
    /// Operations that the bank answered, and nobody got the answer.
    pub undelivered: u64,
    /// Transactions of this process, each synced once.
    #[serde(default)]
    pub commits: u64,
    /// Works in them: what came together shares a commit.
    #[serde(default)]
    pub works: u64,
    /// Bytes of its files.
    #[serde(default)]
    pub size: u64,
    /// Bytes that its file system has left.
    #[serde(default)]
    pub disk_free: Option<u64>,
}

/// How a bank is spoken to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Mutual TLS.
    Mtls,
    /// Plain HTTP to a loopback address.
    PlaintextLoopback,
}

/// A listener, as bound: `{"unix": path}` or `{"tcp": "127.0.0.1:9180"}`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenAddress {
    /// A Unix socket's path.
    Unix(String),
    /// An address and port.
    Tcp(String),
}

/// The certificate that the shop shows the bank.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Its last moment.
    pub not_after: Timestamp,
    /// SHA-256 of its SubjectPublicKeyInfo, in hex.
    pub spki_sha256: String,
}

/// Whether a bank is dialled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Breaker {
    /// It is.
    Closed,
    /// It is not: too many connects failed in a row.
    Open,
    /// One request is trying whether it is back.
    Probing,
}

/// Connections to a bank.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pool {
    /// Kept for the next request, now.
    pub idle: u64,
    /// Made since the start.
    pub opened: u64,
    /// Requests since the start that found one.
    pub reused: u64,
}

/// Requests by outcome, since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Requests {
    /// The bank answered.
    pub answered: u64,
    /// Provably never left.
    pub not_sent: u64,
    /// May have reached the bank.
    pub unknown: u64,
}

/// The administrator's listeners.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AdminListeners {
    /// The admin socket's path.
    pub unix: Option<String>,
    /// The address of health and status over HTTP.
    pub tcp: Option<String>,
}

/// A moment in whole seconds; RFC 3339 in UTC when written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(DateTime);

impl Status {
    /// Everything for which new requests are not to be sent here; nothing when they are. Nobody dials a bank for it.
    #[must_use]
    pub fn failing(&self) -> Vec<String> {
        match self.phase {
            Phase::Ready | Phase::Reloading => {}
            // Its listeners are closed then, and what else is wrong matters no more.
            Phase::Starting | Phase::Draining => return vec![self.phase.to_string()],
        }
        let mut failing = Vec::new();
        if self.banks.is_empty() {
            failing.push("no bank is loaded".to_owned());
        }
        let bare = self
            .banks
            .iter()
            .filter(|bank| bank.transport == Transport::Mtls && bank.certificate.is_none());
        failing.extend(bare.map(|bank| format!("bank {} has no identity loaded", bank.name)));
        if self
            .keyholder
            .as_ref()
            .is_some_and(|keyholder| !keyholder.up)
        {
            failing.push("the keyholder does not answer".to_owned());
        }
        if let Some(journal) = &self.journal {
            if let Some(reason) = &journal.failed {
                failing.push(format!("the journal has failed: {reason}"));
            }
            if journal.full {
                failing.push("the journal's disk is full".to_owned());
            }
        }
        let down = self.listeners_down.iter();
        failing.extend(down.map(|name| format!("a listener of {name} is down")));
        failing
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Reloading => "reloading",
            Self::Draining => "draining",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mtls => "mtls",
            Self::PlaintextLoopback => "plaintext_loopback",
        })
    }
}

impl fmt::Display for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Probing => "probing",
        })
    }
}

impl From<SystemTime> for Timestamp {
    /// What RFC 3339 cannot write (before 1970, after 9999) becomes the nearest that it can: a
    /// certificate without an end says 9999 (RFC 5280 section 4.1.2.5).
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = Duration::from_secs(since.as_secs());
        Self(DateTime::from_unix_duration(seconds).unwrap_or(DateTime::INFINITY))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.0.to_system_time()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = &"a time such as 2026-01-31T12:00:00Z";
        text.parse()
            .map(Self)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), expected))
    }
}

#[cfg(test)]
pub(crate) mod tests;
