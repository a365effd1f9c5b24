//! The life of the gate's process: start, reload, drain, end.
//!
//! One loop reads signals and the admin's commands. The order of a shutdown, here and in docs/operations.md: say
//! `draining`, tell the service manager, stop accepting, finish what runs, at the deadline cut off, exit.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::status::Phase;
use crate::admin::{Command, ReloadDone};
use crate::config::Config;
use crate::gate::reload::{ReloadError, Replacement};
use crate::gate::status::Life;
use crate::gate::{self, Gate, StartError};
use crate::harden::{self, Confined, HardenError};
use crate::journal::Journal;
use crate::net::clock::unix_millis;
use crate::net::inherit::Inherited;
use crate::net::listen::Binder;
use crate::notify::{Notifier, Watchdog};
use crate::policy::chain::Fields;
use crate::telemetry::Telemetry;
use crate::tls::keyholder::Keyholder;

/// Blocking threads besides the handshakes': a reload reads files, tokio itself may need one.
const SPARE_THREADS: usize = 4;
/// How long threads may take to end after everything was drained.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What a reload was asked by, and where its answer goes.
struct Asked {
    by: &'static str,
    reply: Option<tokio::sync::oneshot::Sender<Result<ReloadDone, String>>>,
}

/// Why a process ends otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error("priorgate does not start")]
    Start(#[from] StartError),
    /// It was not confined as it should be, or may not run in this environment.
    #[error("priorgate does not start")]
    Harden(#[from] HardenError),
    /// It cannot follow the resolver any more: only a new process may open its new file.
    #[error(
        "priorgate ends, so that it can be started anew: {0} was replaced, and a confined process cannot open the new one"
    )]
    Resolver(String),
    /// It has no journal any more: only a new process may look at the disk again.
    #[error("priorgate ends, so that it can be started anew: the journal failed: {0}")]
    Journal(String),
    /// The keyholder that it started is gone: a confined process can start nothing.
    #[error("priorgate ends, so that it can be started anew: its keyholder has ended: {0}")]
    Keyholder(String),
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self::Start(error.into())
    }
}

/// Runs the gate until SIGTERM or SIGINT, or until its journal fails or the keyholder that it started ends.
///
/// # Errors
/// [`RunError`].
pub fn run(
    config: Config,
    telemetry: &mut Telemetry,
    inherited: Inherited,
) -> Result<(), RunError> {
    // Before any file is made: sockets get their mode before anybody else can connect.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_descriptor_limit();
    harden::refuse_key_log()?;
    let level = config.hardening;
    let threads = config.threads.handshakes.saturating_add(SPARE_THREADS);
    // A keyholder of our own is started here, before anything is opened that it would inherit and before the confinement,
    // under which nothing can be started.
    let prepared = gate::prepare(config, Binder::new(inherited))?;
    // Everything is read and bound, and there is one thread: what it gives up now no later one gets.
    let confined = harden::confine_gate(prepared.needs(), level)?;
    telemetry.begin()?;
    for missing in confined.missing_where_wanted() {
        tracing::warn!(missing, "not in force (hardening: best-effort)");
    }
    // One thread serves: it beats the multi-threaded runtime at this work, and blocking work has threads of its own.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .build()?;
    let (mut journal, mut audit) = (None, None);
    let result = runtime.block_on(async {
        let (commands, inbox) = mpsc::channel(16);
        let dropped = telemetry.dropped_counter();
        let mut signals = Signals::new()?;
        let gate = prepared.start(commands, move || dropped.get(), confined)?;
        journal = gate.journal().cloned();
        audit = gate.audit().cloned();
        live(gate, inbox, &mut signals).await
    });
    // First the tasks: what still runs is dropped, and says so to the journal; then the journal.
    runtime.shutdown_timeout(LAST_MOMENT);
    if let Some(journal) = journal {
        journal.close();
    }
    // Then the log, which has everything that the journal was told.
    if let Some(audit) = audit {
        audit.close();
    }
    result
}

/// The usual soft limit of 1024 is there for programs that use `select`, and below what `limits.connections` may take.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Not fatal: without it the accept loop waits for descriptors, as at any limit.
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Why the journal is closed, once it is; never, without one.
async fn journal_failed(failed: &mut Option<watch::Receiver<Option<String>>>) -> String {
    match failed {
        None => std::future::pending().await,
        Some(failed) => match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Its thread is gone without a word: a mistake of ours, and no journal either.
            Err(_) => "its thread has ended".to_owned(),
        },
    }
}

/// Why the keyholder that this process has started is gone, once it is. One of the service manager's comes back.
async fn keyholder_gone(keyholder: Option<&Keyholder>) -> String {
    match keyholder {
        None => std::future::pending().await,
        Some(keyholder) => keyholder.gone().await,
    }
}

fn without_keyholder(reason: String) -> RunError {
    tracing::error!(
        reason,
        "shutting down: the keyholder that priorgate started has ended, and only a new process can start another; the \
         service manager does that (Restart=), elsewhere start priorgate again"
    );
    RunError::Keyholder(reason)
}

/// Looks for a replaced file of the resolver, and gives its path once a new process is to be started for it. Without a
/// service manager that would start one it says so and goes on: the last good addresses serve for `dns.stale`.
async fn resolver_replaced(life: &Life, pause: Option<Duration>) -> String {
    let Some(pause) = pause else {
        return std::future::pending().await;
    };
    let mut told = false;
    loop {
        tokio::time::sleep(pause).await;
        let Some(path) = life.confined().replaced_resolver() else {
            told = false;
            continue;
        };
        let path = path.display().to_string();
        if Confined::is_managed() {
            return path;
        }
        if !told {
            tracing::error!(
                path,
                "restart needed: the file was replaced, and a confined process cannot open the new one; the last good \
                 addresses serve until dns.stale"
            );
        }
        told = true;
    }
}

async fn live(
    mut gate: Gate,
    mut inbox: mpsc::Receiver<Command>,
    signals: &mut Signals,
) -> Result<(), RunError> {
    let mut failed = gate.journal().map(Journal::failed);
    let mut result = Ok(());
    let life = Arc::clone(gate.life());
    let replaced = resolver_replaced(&life, gate.resolver_pause());
    tokio::pin!(replaced);
    let keyholder = gate.keyholder();
    let gone = keyholder_gone(keyholder.as_deref());
    tokio::pin!(gone);
    let notifier = Notifier::from_env();
    // On the thread that serves: when that one hangs, nobody says that it is alive.
    let _watchdog = Watchdog::from_env().map(|watchdog| {
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(watchdog.every());
            loop {
                beat.tick().await;
                watchdog.alive();
            }
        })
    });
    gate.life().enter(Phase::Ready);
    notifier.ready("serving");
    tracing::info!("ready");
    loop {
        let asked = tokio::select! {
            _ = signals.hangup.recv() => Asked { by: "SIGHUP", reply: None },
            Some(Command::Reload { reply }) = inbox.recv() => Asked { by: "admin", reply: Some(reply) },
            name = async {
                tokio::select! {
                    _ = signals.terminate.recv() => "SIGTERM",
                    _ = signals.interrupt.recv() => "SIGINT",
                }
            } => {
                tracing::info!(signal = name, "shutting down");
                break;
            }
            reason = journal_failed(&mut failed) => {
                tracing::error!("shutting down: without a journal no guarded request may run");
                result = Err(RunError::Journal(reason));
                break;
            }
            reason = &mut gone => {
                result = Err(without_keyholder(reason));
                break;
            }
            path = &mut replaced => {
                tracing::error!(path, "shutting down, to be started anew: the file was replaced");
                result = Err(RunError::Resolver(path));
                break;
            }
        };
        // Reading may hang (a directory service, a network file system): a shutdown does not wait for it. Nothing is
        // published before everything was read, so there is nothing to undo.
        tokio::select! {
            () = reload(&mut gate, &notifier, asked) => {}
            name = signals.end() => {
                tracing::info!(signal = name, "shutting down during a reload");
                break;
            }
            reason = journal_failed(&mut failed) => {
                tracing::error!("shutting down during a reload: without a journal no guarded request may run");
                result = Err(RunError::Journal(reason));
                break;
            }
            reason = &mut gone => {
                result = Err(without_keyholder(reason));
                break;
            }
        }
    }
    // Whoever asks for a reload now is told at once that nobody carries it out.
    drop(inbox);
    gate.life().enter(Phase::Draining);
    let _stopping = notifier.stopping("draining");
    let deadline = gate.drain_deadline();
    tokio::select! {
        drained = gate.drain(deadline) => {
            if drained {
                tracing::info!("drained");
            } else {
                tracing::warn!("the drain's deadline passed; what still ran is cut off");
            }
        }
        name = signals.end() => tracing::warn!(signal = name, "told twice: ending at once"),
    }
    // It may have failed while it drained.
    if let Some(reason) = failed.and_then(|failed| failed.borrow().clone()) {
        result = Err(RunError::Journal(reason));
    }
    result
}

/// Reads, checks, publishes; a failure keeps what serves and says so in the log, the status and to whoever asked.
async fn reload(gate: &mut Gate, notifier: &Notifier, asked: Asked) {
    gate.life().enter(Phase::Reloading);
    notifier.reloading();
    let (bounds, keyholder) = (gate.bounds(), gate.keyholder());
    let read = move || Replacement::read(&bounds, keyholder.as_ref());
    let read = tokio::task::spawn_blocking(read).await;
    let result = match read {
        Ok(replacement) => replacement.and_then(|replacement| gate.replace(replacement)),
        Err(lost) => Err(ReloadError::System(std::io::Error::other(lost))),
    };
    let result = result.map_err(|error| crate::net::exchange::chain(&error));
    match &result {
        Ok(generation) => tracing::info!(by = asked.by, generation, "reloaded"),
        Err(error) => {
            tracing::error!(
                by = asked.by,
                error,
                "reload failed; the last good state serves on"
            );
        }
    }
    if let Some(audit) = gate.audit() {
        let fields = Fields::of("reload").text("by", asked.by);
        let fields = match &result {
            Ok(generation) => fields.number("generation", *generation),
            Err(_) => fields.flag("failed", true),
        };
        audit.event(fields, unix_millis());
    }
    gate.life().reloaded(match &result {
        Ok(_) => Ok(gate.config()),
        Err(error) => Err(error),
    });
    gate.life().enter(Phase::Ready);
    notifier.ready(if result.is_ok() {
        "serving"
    } else {
        "serving; the last reload failed"
    });
    if let Some(reply) = asked.reply {
        // Whoever asked may have left; the log and the status have it.
        let _ = reply.send(result.map(|generation| ReloadDone { generation }));
    }
}
