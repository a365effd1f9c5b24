//! What the gate says of itself: collects the status document from the running parts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::expiry::{self, Told};
use super::ingress::CallbackGate;
use super::ledger::Facts;
use super::look::Look;
use super::{BankGate, Gate};
use crate::admin::commands::{ProbeFn, Probed};
use crate::admin::status;
use crate::admin::status::{
    AdminListeners, Bank, Breaker, Certificate, Confinement, Denied, LastDenied, LastReload,
    ListenAddress, Phase, Pool, Requests, Status, Timestamp, Transport,
};
use crate::audit::Audit;
use crate::config::{self, Hardening, Listen, TcpAccess};
use crate::harden::Confined;
use crate::net::denials::Denials;
use crate::policy::operation::UnixMillis;
use crate::policy::outcome::Outcome;
use crate::tls::keyholder::Keyholder;

const KEYHOLDER_DOWN: &str = "the keyholder does not answer, and no new connection to a bank can be made: see its log \
    (`journalctl -u priorgate-keyholder`), and start it again (`systemctl restart priorgate-keyholder`; where the gate starts \
    it itself, restart priorgate)";

/// What the process knows about its own life.
pub struct Life {
    started_at: SystemTime,
    log_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
    confined: Confined,
    state: Mutex<State>,
    /// Of which ends the log was told.
    pub(super) told: Told,
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
pub(super) struct BankView {
    pub(super) gate: BankGate,
    listen: Vec<Served>,
}

/// Everything that the status is read from.
#[derive(Debug)]
pub struct View {
    config: PathBuf,
    pub(super) banks: Vec<BankView>,
    admin: AdminListeners,
    pub(super) life: Arc<Life>,
    pub(super) ledger: Option<Facts>,
    pub(super) callbacks: Vec<CallbackGate>,
    pub(super) audit: Option<Audit>,
    /// A key is configured for the audit log.
    audit_key: bool,
    pub(super) keyholder: Option<Arc<Keyholder>>,
    pub(super) look: Look,
}

impl Life {
    /// At the start of the process.
    #[must_use]
    pub fn new(
        config: &config::Config,
        log_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
        confined: Confined,
    ) -> Self {
        let state = State {
            phase: Phase::Starting,
            last_reload: None,
            warnings: warnings(config),
        };
        Self {
            started_at: SystemTime::now(),
            log_dropped,
            confined,
            state: Mutex::new(state),
            told: Told::default(),
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

    /// What the kernel takes away from this process.
    #[must_use]
    pub fn confined(&self) -> &Confined {
        &self.confined
    }

    fn confinement(&self) -> Confinement {
        let report = self.confined.report();
        let level = match self.confined.level() {
            Hardening::Required => "required",
            Hardening::BestEffort => "best-effort",
            Hardening::Disabled => "disabled",
        };
        let replaced = self.confined.replaced_resolver();
        Confinement {
            level: level.to_owned(),
            missing: self.confined.missing(),
            in_force: report.in_force,
            not_offered: report.not_offered,
            restart_needed: replaced.map(|path| format!("{} was replaced", path.display())),
        }
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
            audit: gate.audit.clone(),
            audit_key: gate
                .config
                .audit
                .as_ref()
                .is_some_and(|audit| audit.key.is_some()),
            keyholder: gate.keyholder.clone(),
            look: Look::default(),
        }
    }

    /// The document as of now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.life.lock();
        let mut warnings = state.warnings.clone();
        let (endings, now) = (self.endings(), SystemTime::now());
        let urgent = expiry::urgent(&endings, now).into_iter();
        warnings.extend(urgent.map(|(_, ending)| ending.warning(now)));
        let found = self.look.found();
        if self.keyholder.as_ref().is_some_and(|it| !it.facts().up) {
            warnings.push(KEYHOLDER_DOWN.to_owned());
        }
        warnings.extend(self.ledger.iter().flat_map(Facts::warnings));
        if let (true, Some(free)) = (found.is_low(), found.disk_free) {
            warnings.push(format!(
                "the journal's disk is nearly full ({} MiB are left): free some space before new operations are refused",
                free >> 20
            ));
        }
        warnings.extend(
            self.audit
                .iter()
                .flat_map(|audit| audit_warnings(audit, self.audit_key)),
        );
        warnings.extend(self.callbacks.iter().flat_map(stuck));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: state.phase,
            pid: std::process::id(),
            started_at: self.life.started_at.into(),
            config: self.config.display().to_string(),
            last_reload: state.last_reload.clone(),
            confinement: self.life.confinement(),
            warnings,
            banks: self.banks.iter().map(BankView::status).collect(),
            callbacks: self.callbacks.iter().map(callback).collect(),
            keyholder: self.keyholder.as_deref().map(keyholder),
            journal: self.ledger.as_ref().map(|facts| status::Journal {
                size: found.journal_size,
                disk_free: found.disk_free,
                ..facts.status()
            }),
            audit: self.audit.as_ref().map(|audit| status::Audit {
                owed: found.owed,
                ..audit_status(audit)
            }),
            listeners_down: self.listeners_down(),
            admin: self.admin.clone(),
            log_dropped: (self.life.log_dropped)(),
        }
    }
}

impl View {
    /// What can end, of the generations in force.
    pub(super) fn endings(&self) -> Vec<expiry::Ending> {
        let banks: Vec<_> = self.banks.iter().map(|bank| bank.gate.clone()).collect();
        expiry::endings(&banks, &self.callbacks)
    }

    /// Tells the log of what ends, where it was not told yet.
    pub(super) fn tell_of_ends(&self, now: SystemTime) {
        self.life.told.tell(&self.endings(), now);
    }

    fn listeners_down(&self) -> Vec<String> {
        let banks = self.banks.iter().map(|bank| {
            let name = format!("bank {}", bank.gate.egress.name());
            (name, bank.gate.listening.down())
        });
        let callbacks = self.callbacks.iter().map(|callback| {
            (
                format!("callback {}", callback.name),
                callback.listening.down(),
            )
        });
        let down = banks.chain(callbacks).filter(|(_, down)| *down > 0);
        down.map(|(name, _)| name).collect()
    }
}

impl BankView {
    fn status(&self) -> Bank {
        use std::sync::atomic::Ordering::Relaxed;
        let generation = self.gate.egress.generation();
        let bank = &generation.bank;
        let requests = self.gate.egress.requests();
        Bank {
            name: self.gate.egress.name().to_owned(),
            url: generation.url.clone(),
            transport: match generation.identity {
                Some(_) => Transport::Mtls,
                None => Transport::PlaintextLoopback,
            },
            listen: self.listen.iter().map(listen_address).collect(),
            generation: generation.number,
            certificate: generation.identity.as_ref().map(|store| {
                let leaf = &store.current().leaf;
                Certificate {
                    subject: leaf.subject.clone(),
                    not_after: leaf.not_after.into(),
                    spki_sha256: hex(&leaf.spki_sha256),
                }
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

fn audit_status(audit: &Audit) -> status::Audit {
    use std::sync::atomic::Ordering::Relaxed;
    let counts = audit.counts();
    status::Audit {
        file: audit.path().display().to_string(),
        failing: audit.failing(),
        seq: counts.seq.load(Relaxed),
        signs: audit.signs(),
        signed: counts.signed.load(Relaxed),
        unsigned: audit.unsigned(),
        lost: counts.lost.load(Relaxed),
        journal_row: counts.row.load(Relaxed),
        // The look's.
        owed: 0,
    }
}

fn audit_warnings(audit: &Audit, key: bool) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(error) = audit.failing() {
        found.push(format!("the audit log is not written: {error}"));
    }
    if let Some(why) = audit.unsigned() {
        found.push(format!("the audit log is not signed now: {why}"));
    }
    match (key, audit.signs()) {
        (_, true) => {}
        (false, false) => found.push(
            "the audit log is not signed (no audit.key_file or key_credential): whoever can write the file can rewrite it".to_owned(),
        ),
        (true, false) => found.push(
            "an audit key is configured, and nobody signs with it in this process".to_owned(),
        ),
    }
    found
}

fn callback(callback: &CallbackGate) -> status::Callback {
    use std::sync::atomic::Ordering::Relaxed;
    let backlog = callback.standing.now().backlog;
    status::Callback {
        name: callback.name.to_string(),
        path: callback.path.clone(),
        listen: callback.listen.iter().map(listen_address).collect(),
        accepted: callback.counts.accepted.load(Relaxed),
        repeated: callback.counts.repeated.load(Relaxed),
        rejected: callback.counts.rejected.load(Relaxed),
        refused: callback.counts.refused.load(Relaxed),
        denied: denied(&callback.denials),
        waiting: backlog.waiting,
        oldest: backlog.oldest.map(|oldest| system_time(oldest).into()),
        held: backlog.held,
        dead: backlog.dead,
    }
}

/// What of a callback's events wants somebody's look.
fn stuck(callback: &CallbackGate) -> Vec<String> {
    let now = callback.standing.now();
    let (name, backlog) = (&callback.name, now.backlog);
    let mut found = Vec::new();
    if let (true, Some(oldest)) = (now.late, backlog.oldest) {
        let since = Timestamp::from(system_time(oldest));
        found.push(format!(
            "callback {name}: {} events wait for the shop, the oldest since {since}; see `priorgate callbacks list --open`",
            backlog.waiting
        ));
    }
    for (count, state, what) in [
        (backlog.dead, "dead", "were given up"),
        (backlog.held, "held", "contradict what the shop has"),
    ] {
        if count > 0 {
            found.push(format!(
                "callback {name}: {count} events {what}; see `priorgate callbacks list --state {state}`"
            ));
        }
    }
    found
}

pub(super) fn system_time(at: UnixMillis) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A fresh connection to every bank, one after the other, for whoever asks on the admin socket.
pub(super) fn probe(banks: &[BankGate]) -> ProbeFn {
    let banks = banks.to_vec();
    Arc::new(move || {
        let banks = banks.clone();
        Box::pin(async move {
            let mut all = Vec::with_capacity(banks.len());
            for gate in banks {
                let result = gate.egress.generation().bank.probe().await;
                let took = result.as_ref().ok();
                all.push(Probed {
                    bank: gate.egress.name().to_owned(),
                    ok: result.is_ok(),
                    millis: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                    error: result.err(),
                });
            }
            all
        })
    })
}

fn keyholder(keyholder: &Keyholder) -> status::Keyholder {
    let facts = keyholder.facts();
    status::Keyholder {
        up: facts.up,
        pid: facts.pid,
        signatures: facts.signatures,
        restarts: facts.restarts,
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

fn listen_address(served: &Served) -> ListenAddress {
    match served {
        Served::Unix(path) => ListenAddress::Unix(path.display().to_string()),
        Served::Tcp(addr) => ListenAddress::Tcp(addr.to_string()),
    }
}

/// The switches whose danger is spelled in their name.
fn warnings(config: &config::Config) -> Vec<String> {
    let advice = config.callbacks.iter();
    let mut found: Vec<_> = advice
        .flat_map(config::callback::Callback::advice)
        .collect();
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(
        String::with_capacity(bytes.len().saturating_mul(2)),
        |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}
