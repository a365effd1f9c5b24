//! The wiring: from a configuration to listeners, banks and admin, and from one generation to the next.
//!
//! The only module that knows every adapter. [`prepare`] reads every file and binds every listener without a runtime or
//! a thread; [`Prepared::start`] puts them on the runtime; [`Gate::replace`] publishes a new generation whole.

mod denied;
mod expiry;
pub mod ingress;
pub mod keyholder;
pub mod ledger;
mod listening;
mod look;
pub mod material;
pub mod reload;
mod scrape;
pub mod status;
mod tidy;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::admin::{self, Command};
use crate::audit::{self, Audit, AuditError, CheckpointSigner};
use crate::bank::Bank;
use crate::bank::dial::Dialler;
use crate::bank::resolve::Resolver;
use crate::bank::send::{Counts, Parts};
use crate::config::{self, Config, Listen};
use crate::egress::callers::Callers;
use crate::egress::{Egress, Generation};
use crate::harden::Confined;
use crate::harden::needs::GateNeeds;
use crate::journal::inbox::keep::AcceptedKey;
use crate::journal::{Journal, OpenError};
use crate::metrics::Requests;
use crate::net::accept;
use crate::net::denials::Denials;
use crate::net::exchange::AnswerLimits;
use crate::net::ids::RequestIds;
use crate::net::listen::{Binder, Bound, ListenError};
use crate::net::sockdiag::{ProbeError, SockDiag};
use crate::tls::keyholder::Keyholder;
use ingress::CallbackGate;
use ledger::{Facts, Ledger, Misfit};
use listening::Listening;
use material::{Files, Keys, Material, MaterialError};
use status::Life;

/// Everything read and bound, nothing running.
pub struct Prepared {
    config: Config,
    ledger: Option<Ledger>,
    audit: Option<audit::Prepared>,
    signer: Option<CheckpointSigner>,
    banks: Vec<(Material, Vec<Bound>)>,
    callbacks: Vec<ingress::Prepared>,
    keyholder: Option<Arc<Keyholder>>,
    admin_unix: Option<Bound>,
    admin_tcp: Option<Bound>,
    diag: Option<Arc<SockDiag>>,
}

/// Why the gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The keyholder.
    #[error(transparent)]
    Keyholder(#[from] keyholder::KeyholderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Open operations and a configuration without what they depend on.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Callers on TCP that could not be told apart.
    #[error(transparent)]
    Callers(#[from] ProbeError),
    /// A file that the configuration names.
    #[error("banks: {bank}: {source}")]
    Material {
        /// The bank's name.
        bank: String,
        /// What is wrong.
        #[source]
        source: Box<MaterialError>,
    },
    /// A file that the configuration of a callback names.
    #[error("callbacks: {callback}: {source}")]
    Callback {
        /// The callback's name.
        callback: String,
        /// What is wrong.
        #[source]
        source: Box<ingress::MaterialError>,
    },
    /// The runtime, a thread or a descriptor.
    #[error("the system refused a thread or a descriptor")]
    System(#[from] io::Error),
}

/// The running gate.
#[derive(Debug)]
pub struct Gate {
    config: Config,
    banks: Vec<BankGate>,
    handshakes: Arc<Semaphore>,
    draining: watch::Sender<bool>,
    /// Stops the admin listeners, which serve until the end of a drain.
    ended: watch::Sender<bool>,
    life: Arc<Life>,
    ledger: Option<Facts>,
    audit: Option<Audit>,
    callbacks: Vec<CallbackGate>,
    /// What verifies notifications, for the tidying.
    keys: watch::Sender<Arc<[AcceptedKey]>>,
    keyholder: Option<Arc<Keyholder>>,
}

/// One bank of the running gate.
#[derive(Clone, Debug)]
struct BankGate {
    egress: Arc<Egress>,
    publish: watch::Sender<Arc<Generation>>,
    counts: Arc<Counts>,
    places: Arc<Semaphore>,
    connections: u32,
    listening: Listening,
}

/// Reads every file and binds every listener.
///
/// # Errors
/// [`StartError`]; what was bound before is given back.
pub fn prepare(config: Config, binder: Binder) -> Result<Prepared, StartError> {
    // Before anything else is opened: what it inherits is one socket.
    let keyholder = keyholder::start(&config)?;
    let keys = keyholder::keys(keyholder.as_ref()).map_err(keyholder::KeyholderError::from)?;
    prepare_with(config, binder, keyholder, &keys)
}

/// The same with keys that are had already: for the benchmark that says what the keyholder costs. Nothing else leads to a
/// key in the gate's own process.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    config: Config,
    mut binder: Binder,
    keyholder: Option<Arc<Keyholder>>,
    keys: &Keys,
) -> Result<Prepared, StartError> {
    let signer = keyholder::checkpoint_signer(&config, keyholder.as_ref())?;
    // The log first: only it knows whether the journal is an old copy.
    let audit = config.audit.as_ref().map(audit::open).transpose()?;
    let ledger = ledger::open(&config, audit.as_ref())?;
    let mut banks = Vec::with_capacity(config.banks.len());
    for bank in &config.banks {
        let material = load(bank, keys).map_err(|source| StartError::Material {
            bank: bank.name.clone(),
            source: Box::new(source),
        })?;
        let listeners = bank
            .listen
            .iter()
            .map(|listen| bind(listen, &mut binder))
            .collect::<Result<Vec<_>, _>>()?;
        banks.push((material, listeners));
    }
    let callbacks = ingress::prepare(&config.callbacks, &mut binder)?;
    let admin_unix = match &config.admin.unix {
        Some(unix) => Some(bind_unix(&unix.socket, &mut binder)?),
        None => None,
    };
    let admin_tcp = config.admin.tcp;
    let admin_tcp = admin_tcp.map(|addr| binder.tcp(addr)).transpose()?;
    binder.finish()?;
    let diag = open_diag(&config)?;
    Ok(Prepared {
        config,
        ledger,
        audit,
        signer,
        banks,
        callbacks,
        keyholder,
        admin_unix,
        admin_tcp,
        diag,
    })
}

fn load(bank: &config::Bank, keys: &Keys) -> Result<Material, MaterialError> {
    Files::read(bank)?.with_keys(keys)
}

/// The way to ask the kernel for TCP callers, where a listener wants to know: tried before anybody is served.
fn open_diag(config: &Config) -> Result<Option<Arc<SockDiag>>, ProbeError> {
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = config
        .tcp_with_callers()
        .map(|addr| addr.ip())
        .partition(std::net::IpAddr::is_ipv6);
    if ipv4.is_empty() && ipv6.is_empty() {
        return Ok(None);
    }
    let diag = SockDiag::open(!ipv4.is_empty(), !ipv6.is_empty())?;
    Ok(Some(Arc::new(diag)))
}

fn bind(listen: &Listen, binder: &mut Binder) -> Result<Bound, ListenError> {
    match listen {
        Listen::Tcp { addr, .. } => binder.tcp(*addr),
        Listen::Unix { socket, .. } => bind_unix(socket, binder),
    }
}

fn bind_unix(socket: &config::UnixSocket, binder: &mut Binder) -> Result<Bound, ListenError> {
    binder.unix(&socket.path, socket.mode, socket.gid)
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("gate::Prepared")
            .field("config", &self.config.path)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    /// What this gate needs of the kernel from now on.
    #[must_use]
    pub fn needs(&self) -> GateNeeds {
        GateNeeds::of(&self.config)
    }

    /// Puts everything on the runtime that this is called in, and starts to serve.
    ///
    /// # Errors
    /// [`StartError::System`].
    pub fn start(
        self,
        commands: mpsc::Sender<Command>,
        log_dropped: impl Fn() -> u64 + Send + Sync + 'static,
        confined: Confined,
    ) -> Result<Gate, StartError> {
        let Self {
            config,
            ledger,
            audit,
            signer,
            banks: prepared,
            callbacks: prepared_callbacks,
            keyholder,
            admin_unix,
            admin_tcp,
            diag,
        } = self;
        let (keys, keys_in_force) = watch::channel(tidy::keys_of(&config));
        let ledger = ledger
            .map(|ledger| ledger.start(keys_in_force))
            .transpose()?;
        let journal = ledger.as_ref().map(|facts| &facts.journal);
        let owing = ledger.as_ref().and_then(Facts::owing);
        let audit = audit.map(|log| log.start(owing, signer)).transpose()?;
        let (draining, drain) = watch::channel(false);
        let (ended, end) = watch::channel(false);
        let handshakes = Arc::new(Semaphore::new(config.threads.handshakes));
        let ids = Arc::new(RequestIds::default());
        let mut banks = Vec::with_capacity(prepared.len());
        let mut served = Vec::new();
        for (bank, (material, bound)) in config.banks.iter().zip(prepared) {
            let counts = Arc::new(Counts::default());
            let requests = Arc::new(Requests::default());
            let resolver = Arc::new(Resolver::start(&bank.remote, &bank.dns)?);
            let generation = generation(
                1,
                bank,
                material,
                resolver,
                &handshakes,
                Arc::clone(&counts),
                &requests,
            );
            let (publish, current) = watch::channel(Arc::new(generation));
            let egress = Egress::new(
                bank.name.clone(),
                current,
                drain.clone(),
                Arc::clone(&ids),
                journal.cloned(),
                Callers {
                    diag: diag.clone(),
                    denials: Arc::new(Denials::new(
                        format!("bank {}", bank.name),
                        audit
                            .as_ref()
                            .map(|log| denied::sink(log, "bank", &bank.name)),
                    )),
                },
                requests,
            );
            let egress = Arc::new(egress.audited(audit.as_ref()));
            let connections = u32::try_from(bank.limits.connections).unwrap_or(u32::MAX);
            let places = Arc::new(Semaphore::new(bank.limits.connections));
            let (names, listening) = serve_bank(&egress, bank, bound, &places, &drain)?;
            served.push(names);
            banks.push(BankGate {
                egress,
                publish,
                counts,
                places,
                connections,
                listening,
            });
        }
        let mut callbacks = Vec::with_capacity(prepared_callbacks.len());
        for (callback, prepared) in config.callbacks.iter().zip(prepared_callbacks) {
            // The configuration's check wants a journal where there is a callback.
            let Some(journal) = journal else { continue };
            let (audit, diag) = (audit.as_ref(), diag.as_ref());
            callbacks.push(ingress::start(
                callback, prepared, journal, audit, &ids, &drain, diag,
            )?);
        }
        let life = Arc::new(Life::new(&config, Box::new(log_dropped), confined));
        for warning in life.warnings() {
            tracing::warn!("{warning}");
        }
        let gate = Gate {
            config,
            banks,
            handshakes,
            draining,
            ended,
            life,
            ledger,
            audit,
            callbacks,
            keys,
            keyholder,
        };
        let view = status::View::new(&gate, served, admin_tcp.as_ref().and_then(Bound::tcp_addr));
        let view = Arc::new(view);
        look::first(&view);
        tokio::spawn(look::run(Arc::clone(&view), end.clone()));
        gate.serve_admin(view, admin_unix, admin_tcp, commands, &end)?;
        Ok(gate)
    }
}

/// Starts a bank's accept loops; gives the listeners' names as the status shows them.
fn serve_bank(
    egress: &Arc<Egress>,
    bank: &config::Bank,
    bound: Vec<Bound>,
    places: &Arc<Semaphore>,
    drain: &watch::Receiver<bool>,
) -> io::Result<(Vec<status::Served>, Listening)> {
    let mut names = Vec::with_capacity(bound.len());
    let mut listening = Listening::default();
    for (index, (bound, listen)) in bound.into_iter().zip(&bank.listen).enumerate() {
        let served = match (listen, bound.tcp_addr()) {
            (Listen::Unix { socket, .. }, _) => status::Served::Unix(socket.path.clone()),
            (Listen::Tcp { addr, .. }, bound) => status::Served::Tcp(bound.unwrap_or(*addr)),
        };
        let name: Arc<str> = served.to_string().into();
        let listener = bound.serve()?;
        let (egress, places, drain) = (Arc::clone(egress), Arc::clone(places), drain.clone());
        tracing::info!(bank = egress.name(), listener = &*name, "listening");
        let mark = listening.mark();
        tokio::spawn(async move {
            let _mark = mark;
            let for_each = Arc::clone(&name);
            accept::run(listener, &name, places, drain, move |accepted, place| {
                let egress = Arc::clone(&egress);
                tokio::spawn(egress.connection(accepted, Arc::clone(&for_each), index, place));
            })
            .await;
        });
        names.push(served);
    }
    Ok((names, listening))
}

fn generation(
    number: u64,
    bank: &config::Bank,
    material: Material,
    resolver: Arc<Resolver>,
    handshakes: &Arc<Semaphore>,
    counts: Arc<Counts>,
    requests: &Requests,
) -> Generation {
    let answer = AnswerLimits {
        head: bank.limits.head,
        body: bank.limits.response_body,
    };
    let identity = material.tls.as_ref().map(|tls| Arc::clone(tls.store()));
    let dialler = Dialler::new(
        material.tls,
        Arc::clone(handshakes),
        answer,
        Arc::clone(&counts),
    );
    let authority = HeaderValue::from_str(&bank.remote.authority)
        // The config takes host names and addresses only; all of them are header values.
        .unwrap_or_else(|_| HeaderValue::from_static("invalid"));
    let parts = Parts {
        authority,
        dialler,
        resolver,
        pool: bank.pool.clone(),
        breaker: bank.breaker.clone(),
        timeouts: bank.timeouts.clone(),
        limits: bank.limits.clone(),
        counts,
    };
    Generation {
        number,
        routes: bank.routes.clone(),
        meters: bank
            .routes
            .iter()
            .map(|route| requests.route(&route.name))
            .collect(),
        cas: material.cas,
        pass: bank.headers.pass.clone(),
        set: material.set,
        timeouts: bank.timeouts.clone(),
        limits: bank.limits.clone(),
        access: material.access,
        bank: Bank::new(parts),
        url: url_of(bank),
        identity,
    }
}

fn url_of(bank: &config::Bank) -> String {
    let scheme = match &bank.transport {
        config::Transport::PlaintextLoopback => "http",
        config::Transport::Tls(_) => "https",
    };
    format!("{scheme}://{}", bank.remote.authority)
}

impl BankGate {
    /// Connections of callers that stand.
    fn connected(&self) -> usize {
        let connections = usize::try_from(self.connections).unwrap_or(usize::MAX);
        connections.saturating_sub(self.places.available_permits())
    }
}

impl Gate {
    /// What the process knows about its own life: phase, last reload.
    #[must_use]
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The way to the keys; `None` when no bank needs one.
    #[must_use]
    pub fn keyholder(&self) -> Option<Arc<Keyholder>> {
        self.keyholder.clone()
    }

    /// How long a drain may take.
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        self.config.shutdown.drain
    }

    /// How often a replaced file of the resolver is looked for: as often as names are, and well before the last good
    /// address is stale. `None` when no name is looked up.
    #[must_use]
    pub fn resolver_pause(&self) -> Option<Duration> {
        let looked_up = self.config.banks.iter().filter(|bank| {
            let literal = bank.remote.host.parse::<std::net::IpAddr>().is_ok();
            bank.dns.addresses.is_empty() && !literal
        });
        let pauses = looked_up.map(|bank| bank.dns.refresh.min(bank.dns.stale / 2));
        pauses.min().map(|pause| pause.max(Duration::from_secs(1)))
    }

    /// The audit log, if one is kept.
    #[must_use]
    pub fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// The journal, if there is one.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.ledger.as_ref().map(|facts| &facts.journal)
    }

    /// Stops accepting, lets what runs finish until the deadline, then stops the admin listeners.
    ///
    /// Gives `false` when the deadline passed first: what still ran is cut off, and its records say `caller_gone`.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.draining.send_replace(true);
        let all_gone = async {
            for bank in &self.banks {
                // Every connection holds one place until it ends.
                let _all = bank.places.acquire_many(bank.connections).await;
            }
            for callback in &self.callbacks {
                callback.drained().await;
            }
        };
        let drained = timeout(deadline, all_gone).await.is_ok();
        for denials in self.denials() {
            denials.flush();
        }
        self.ended.send_replace(true);
        drained
    }

    fn denials(&self) -> impl Iterator<Item = &Denials> {
        let banks = self.banks.iter().map(|bank| bank.egress.denials());
        banks.chain(self.callbacks.iter().map(|callback| &*callback.denials))
    }

    fn serve_admin(
        &self,
        view: Arc<status::View>,
        unix: Option<Bound>,
        tcp: Option<Bound>,
        commands: mpsc::Sender<Command>,
        end: &watch::Receiver<bool>,
    ) -> io::Result<()> {
        let status: admin::StatusFn = {
            let view = Arc::clone(&view);
            Arc::new(move || view.status())
        };
        if let (Some(bound), Some(config)) = (unix, &self.config.admin.unix) {
            let listener = bound.serve()?;
            let operators = config.operators.clone();
            let server = admin::Server::new(
                operators,
                Arc::clone(&status),
                commands,
                self.journal().cloned(),
                Some(ingress::rejected_by(&self.callbacks)),
            )
            .with_probe(status::probe(&self.banks))
            .audited(self.audit.clone());
            tokio::spawn(admin::serve_unix(listener, server, end.clone()));
        }
        if let Some(bound) = tcp {
            let listener = bound.serve()?;
            let pages = admin::Pages {
                status,
                metrics: Arc::new(move |format| view.scrape(format)),
            };
            tokio::spawn(admin::serve_tcp(listener, pages, end.clone()));
        }
        Ok(())
    }
}
