//! What the gate says of itself: collects the status document from the running parts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ingress::CallbackGate;
use super::ledger::Facts;
use super::{BankGate, Gate};
use crate::admin::status;
use crate::admin::status::{
    AdminListeners, Bank, Breaker, Certificate, Denied, LastDenied, LastReload, ListenAddress,
    Phase, Pool, Requests, Status, Timestamp, Transport,
};
use crate::config::{self, Listen, TcpAccess};
use crate::egress::Egress;
use crate::net::denials::Denials;
use crate::policy::outcome::Outcome;

/// Banks take weeks to issue a certificate.
const EXPIRY_MARGIN: Duration = Duration::from_secs(30 * 86_400);
/// What is in force of the confinement; nothing, until the keyholder comes.
const CONFINEMENT: &str = "none: not in this version";

/// What the process knows about its own life.
pub struct Life {
    started_at: SystemTime,
    log_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    last_reload: Option<LastReload>,
    warnings: Vec<String>,
}

/// A listener as it was bound.
#[derive(Clone, Debug)]
pub enum Served {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP, with the port that the kernel chose where the config said 0.
    Tcp(SocketAddr),
}

/// One bank's part of the view: what does not change over reloads.
#[derive(Debug)]
struct BankView {
    gate: BankGate,
    listen: Vec<Served>,
}

/// Everything that the status is read from.
#[derive(Debug)]
pub struct View {
    config: PathBuf,
    banks: Vec<BankView>,
    admin: AdminListeners,
    life: Arc<Life>,
    ledger: Option<Facts>,
    callbacks: Vec<CallbackGate>,
}

impl Life {
    /// At the start of the process.
    #[must_use]
    pub fn new(config: &config::Config, log_dropped: Box<dyn Fn() -> u64 + Send + Sync>) -> Self {
        let state = State {
            phase: Phase::Starting,
            last_reload: None,
            warnings: warnings(config),
        };
        Self {
            started_at: SystemTime::now(),
            log_dropped,
            state: Mutex::new(state),
        }
    }

    /// Enters a phase. From `Draining` there is no way back.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::Draining {
            state.phase = phase;
        }
    }

    /// Notes how a reload went.
    pub fn reloaded(&self, result: Result<&config::Config, &str>) {
        let mut state = self.lock();
        if let Ok(config) = result {
            state.warnings = warnings(config);
        }
        state.last_reload = Some(LastReload {
            at: SystemTime::now().into(),
            ok: result.is_ok(),
            error: result.err().map(str::to_owned),
        });
    }

    /// What an administrator should know, at the start and in the status.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("state", &*self.lock())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp:{addr}"),
        }
    }
}

impl View {
    /// `served` are the listeners of each bank, in the order of the config.
    #[must_use]
    pub fn new(gate: &Gate, served: Vec<Vec<Served>>, admin_tcp: Option<SocketAddr>) -> Self {
        let banks = gate.banks.iter().zip(served);
        let banks = banks
            .map(|(gate, listen)| BankView {
                gate: gate.clone(),
                listen,
            })
            .collect();
        let unix = gate.config.admin.unix.as_ref();
        let admin = AdminListeners {
            unix: unix.map(|unix| unix.socket.path.display().to_string()),
            tcp: admin_tcp.map(|addr| addr.to_string()),
        };
        Self {
            config: gate.config.path.clone(),
            banks,
            admin,
            life: Arc::clone(&gate.life),
            ledger: gate.ledger.clone(),
            callbacks: gate.callbacks.clone(),
        }
    }

    /// The document as of now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.life.lock();
        let mut warnings = state.warnings.clone();
        warnings.extend(
            self.banks
                .iter()
                .filter_map(|bank| expiry_warning(&bank.gate.egress)),
        );
        warnings.extend(self.ledger.iter().flat_map(Facts::warnings));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: state.phase,
            pid: std::process::id(),
            started_at: self.life.started_at.into(),
            config: self.config.display().to_string(),
            last_reload: state.last_reload.clone(),
            confinement: CONFINEMENT.to_owned(),
            warnings,
            banks: self.banks.iter().map(BankView::status).collect(),
            callbacks: self.callbacks.iter().map(callback).collect(),
            journal: self.ledger.as_ref().map(Facts::status),
            admin: self.admin.clone(),
            log_dropped: (self.life.log_dropped)(),
        }
    }
}

impl BankView {
    fn status(&self) -> Bank {
        use std::sync::atomic::Ordering::Relaxed;
        let generation = self.gate.egress.generation();
        let bank = &generation.bank;
        let requests = self.gate.egress.counts();
        Bank {
            name: self.gate.egress.name().to_owned(),
            url: generation.url.clone(),
            transport: match generation.certificate {
                Some(_) => Transport::Mtls,
                None => Transport::PlaintextLoopback,
            },
            listen: self.listen.iter().map(listen_address).collect(),
            generation: generation.number,
            certificate: generation.certificate.as_ref().map(|facts| Certificate {
                subject: facts.subject.clone(),
                not_after: facts.not_after.into(),
                spki_sha256: facts.spki_sha256.clone(),
            }),
            addresses: bank
                .resolver()
                .current()
                .iter()
                .map(ToString::to_string)
                .collect(),
            breaker: match bank.breaker_state() {
                "open" => Breaker::Open,
                "probing" => Breaker::Probing,
                _ => Breaker::Closed,
            },
            pool: Pool {
                idle: bank.idle() as u64,
                opened: self.gate.counts.opened.load(Relaxed),
                reused: self.gate.counts.reused.load(Relaxed),
            },
            in_flight: bank.in_flight() as u64,
            queued: bank.queued() as u64,
            requests: Requests {
                answered: requests.of(Outcome::Answered),
                not_sent: requests.of(Outcome::NotSent),
                unknown: requests.of(Outcome::Unknown),
            },
            denied: denied(self.gate.egress.denials()),
        }
    }
}

fn callback(callback: &CallbackGate) -> status::Callback {
    use std::sync::atomic::Ordering::Relaxed;
    status::Callback {
        name: callback.name.to_string(),
        path: callback.path.clone(),
        listen: callback.listen.iter().map(listen_address).collect(),
        accepted: callback.counts.accepted.load(Relaxed),
        repeated: callback.counts.repeated.load(Relaxed),
        rejected: callback.counts.rejected.load(Relaxed),
        refused: callback.counts.refused.load(Relaxed),
        denied: denied(&callback.denials),
    }
}

fn denied(denials: &Denials) -> Denied {
    Denied {
        total: denials.total(),
        last: denials.last().map(|row| LastDenied {
            at: (UNIX_EPOCH + Duration::from_secs(row.second)).into(),
            listener: row.listener.to_string(),
            uid: row.uid,
            cause: row.cause.as_str().to_owned(),
            count: row.count,
        }),
    }
}

/// A client certificate that has ended or ends soon. It is used all the same: the clock may be wrong, and only the bank
/// decides what it takes.
pub(super) fn expiry_warning(egress: &Egress) -> Option<String> {
    let generation = egress.generation();
    let facts = generation.certificate.as_ref()?;
    let now = SystemTime::now();
    let soon = now.checked_add(EXPIRY_MARGIN)?;
    if facts.not_after >= soon {
        return None;
    }
    let until = Timestamp::from(facts.not_after);
    let verb = if facts.not_after < now {
        "has expired at"
    } else {
        "ends at"
    };
    Some(format!(
        "bank {}: the client certificate ({}) {verb} {until}",
        egress.name(),
        facts.subject
    ))
}

fn listen_address(served: &Served) -> ListenAddress {
    match served {
        Served::Unix(path) => ListenAddress::Unix(path.display().to_string()),
        Served::Tcp(addr) => ListenAddress::Tcp(addr.to_string()),
    }
}

/// The switches whose danger is spelled in their name, and the confinement that is not there yet.
fn warnings(config: &config::Config) -> Vec<String> {
    let mut found =
        vec!["the private key lies in the process that speaks to the network".to_owned()];
    found.extend(
        config
            .callbacks
            .iter()
            .flat_map(config::callback::Callback::advice),
    );
    for bank in &config.banks {
        let name = &bank.name;
        if matches!(bank.transport, config::Transport::PlaintextLoopback) {
            found.push(format!(
                "bank {name}: plaintext to loopback (allow_plaintext_loopback)"
            ));
        }
        for listen in &bank.listen {
            if let Listen::Tcp { addr, access } = listen {
                if *access == TcpAccess::OpenToEveryLocalUser {
                    found.push(format!("bank {name}: {addr} is open to every local user"));
                }
                if !addr.ip().is_loopback() {
                    found.push(format!(
                        "bank {name}: {addr} is not loopback (unsafe_listen)"
                    ));
                }
            }
        }
    }
    found
}
