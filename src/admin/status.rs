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
    pub confinement: String,
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
    /// The administrator's listeners.
    pub admin: AdminListeners,
    /// Log lines that were lost because nobody read them.
    pub log_dropped: u64,
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
    /// Why new requests are not to be sent here, or `None` when they are.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        match self.phase {
            Phase::Ready | Phase::Reloading => {}
            Phase::Starting | Phase::Draining => return Some(self.phase.to_string()),
        }
        if self.banks.is_empty() {
            return Some("no bank is loaded".to_owned());
        }
        self.banks
            .iter()
            .find(|bank| bank.transport == Transport::Mtls && bank.certificate.is_none())
            .map(|bank| format!("bank {} has no identity loaded", bank.name))
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
pub(crate) mod tests {
    use super::*;

    /// A status with one bank, as a gate in service gives it.
    pub(crate) fn sample() -> Status {
        let moment = |seconds| Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds));
        Status {
            version: "0.1.0".to_owned(),
            phase: Phase::Ready,
            pid: 4711,
            started_at: moment(1_790_000_000),
            config: "/etc/priorgate/config.yaml".to_owned(),
            last_reload: None,
            confinement: "none: not in this version".to_owned(),
            warnings: Vec::new(),
            banks: vec![Bank {
                name: "priorbank".to_owned(),
                url: "https://api.bank.example".to_owned(),
                transport: Transport::Mtls,
                listen: vec![
                    ListenAddress::Unix("/run/priorgate/priorbank.sock".to_owned()),
                    ListenAddress::Tcp("127.0.0.1:9180".to_owned()),
                ],
                generation: 1,
                certificate: Some(Certificate {
                    subject: "CN=shop".to_owned(),
                    not_after: moment(1_800_000_000),
                    spki_sha256: "ab".repeat(32),
                }),
                addresses: vec!["192.0.2.7".to_owned()],
                breaker: Breaker::Closed,
                pool: Pool {
                    idle: 1,
                    opened: 2,
                    reused: 40,
                },
                in_flight: 3,
                queued: 0,
                requests: Requests {
                    answered: 41,
                    not_sent: 2,
                    unknown: 1,
                },
                denied: Denied {
                    total: 3,
                    last: Some(LastDenied {
                        at: moment(1_790_000_000),
                        listener: "tcp:127.0.0.1:9180".to_owned(),
                        uid: Some(1001),
                        cause: "not_listed".to_owned(),
                        count: 2,
                    }),
                },
            }],
            callbacks: vec![Callback {
                name: "priorbank".to_owned(),
                path: "/bank/priorbank/callback".to_owned(),
                listen: vec![ListenAddress::Tcp("127.0.0.1:9181".to_owned())],
                accepted: 5,
                repeated: 6,
                rejected: 7,
                refused: 8,
                denied: Denied::default(),
            }],
            journal: Some(Journal {
                file: "/var/lib/priorgate/journal.db".to_owned(),
                failed: None,
                frozen: false,
                full: false,
                open: 1,
                unknown: 2,
                undelivered: 3,
                commits: 4,
                works: 9,
            }),
            admin: AdminListeners {
                unix: Some("/run/priorgate/admin.sock".to_owned()),
                tcp: None,
            },
            log_dropped: 0,
        }
    }

    #[test]
    fn the_document_has_the_names_of_the_contract() {
        let document = serde_json::to_value(sample()).unwrap();
        let expected = serde_json::json!({
            "version": "0.1.0", "phase": "ready", "pid": 4711,
            "started_at": "2026-09-21T14:13:20Z", "config": "/etc/priorgate/config.yaml",
            "last_reload": null, "confinement": "none: not in this version", "warnings": [],
            "banks": [{
                "name": "priorbank", "url": "https://api.bank.example", "transport": "mtls",
                "listen": [{"unix": "/run/priorgate/priorbank.sock"}, {"tcp": "127.0.0.1:9180"}],
                "generation": 1,
                "certificate": {
                    "subject": "CN=shop", "not_after": "2027-01-15T08:00:00Z",
                    "spki_sha256": "ab".repeat(32),
                },
                "addresses": ["192.0.2.7"], "breaker": "closed",
                "pool": {"idle": 1, "opened": 2, "reused": 40}, "in_flight": 3, "queued": 0,
                "requests": {"answered": 41, "not_sent": 2, "unknown": 1},
                "denied": {
                    "total": 3, "last": {
                        "at": "2026-09-21T14:13:20Z", "listener": "tcp:127.0.0.1:9180", "uid": 1001,
                        "cause": "not_listed", "count": 2,
                    },
                },
            }],
            "callbacks": [{
                "name": "priorbank", "path": "/bank/priorbank/callback", "listen": [{"tcp": "127.0.0.1:9181"}],
                "accepted": 5, "repeated": 6, "rejected": 7, "refused": 8, "denied": {"total": 0, "last": null},
            }],
            "journal": {
                "file": "/var/lib/priorgate/journal.db", "failed": null, "frozen": false, "full": false,
                "open": 1, "unknown": 2, "undelivered": 3, "commits": 4, "works": 9,
            },
            "admin": {"unix": "/run/priorgate/admin.sock", "tcp": null}, "log_dropped": 0,
        });
        assert_eq!(document, expected);
        assert_eq!(
            serde_json::from_value::<Status>(document).unwrap(),
            sample()
        );
    }

    #[test]
    fn a_newer_gates_document_is_read() {
        let mut document = serde_json::to_value(sample()).unwrap();
        document["novelties"] = serde_json::json!({"accepted": 1});
        assert_eq!(
            serde_json::from_value::<Status>(document).unwrap(),
            sample()
        );
    }

    #[test]
    fn every_word_is_shown_as_it_is_written() {
        fn same<T: Serialize + fmt::Display>(words: &[T]) {
            for word in words {
                assert_eq!(serde_json::to_value(word).unwrap(), word.to_string());
            }
        }
        same(&[
            Phase::Starting,
            Phase::Ready,
            Phase::Reloading,
            Phase::Draining,
        ]);
        same(&[Transport::Mtls, Transport::PlaintextLoopback]);
        same(&[Breaker::Closed, Breaker::Open, Breaker::Probing]);
    }

    #[test]
    fn a_time_that_cannot_be_written_becomes_the_nearest_that_can() {
        let text = |time: SystemTime| Timestamp::from(time).to_string();
        assert_eq!(
            text(UNIX_EPOCH - Duration::from_secs(1)),
            "1970-01-01T00:00:00Z"
        );
        assert_eq!(
            text(UNIX_EPOCH + Duration::from_millis(1_999)),
            "1970-01-01T00:00:01Z"
        );
        let far = UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        assert_eq!(text(far), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn only_a_serving_gate_with_every_identity_is_ready() {
        let mut status = sample();
        assert_eq!(status.not_ready(), None);
        status.phase = Phase::Reloading;
        assert_eq!(status.not_ready(), None);
        status.banks[0].certificate = None;
        let reason = status.not_ready();
        assert_eq!(
            reason.as_deref(),
            Some("bank priorbank has no identity loaded")
        );
        status.banks[0].transport = Transport::PlaintextLoopback;
        assert_eq!(status.not_ready(), None);
        status.banks.clear();
        assert_eq!(status.not_ready().as_deref(), Some("no bank is loaded"));
        for phase in [Phase::Starting, Phase::Draining] {
            assert_eq!(
                Status { phase, ..sample() }.not_ready(),
                Some(phase.to_string())
            );
        }
    }
}
