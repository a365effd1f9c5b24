//! Callbacks in the gate: their files, their listeners, their workers, and from one generation to the next.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};
use zeroize::Zeroizing;

use super::listening::Listening;
use super::{denied, status};
use crate::admin::callbacks::{RejectedBody, RejectedFn};
use crate::app::Shop;
use crate::audit::Audit;
use crate::callback::alarm::{Standing, Watch};
use crate::callback::record::Counts;
use crate::callback::rejected::Rejected;
use crate::callback::worker::{Terms, Worker};
use crate::callback::{Callback, Generation};
use crate::config::callback::{self as config, Socket};
use crate::journal::Journal;
use crate::net::accept;
use crate::net::denials::Denials;
use crate::net::ids::RequestIds;
use crate::net::listen::{Binder, Bound, ListenError};
use crate::net::sockdiag::SockDiag;
use crate::policy::signature::{Key, KeyError, PublicKey, SetupError, Verifier};
use crate::policy::webhook::{SecretError, WebhookSecret};
use crate::tls::secretfile::{self, SecretFileError};

/// A public key's file is some hundred bytes, a certificate's a few thousand.
const KEY_FILE_MAX: u64 = 64 << 10;

/// Everything that one callback's generation needs from files.
#[derive(Debug)]
pub struct Material {
    verifier: Verifier,
    secrets: Vec<WebhookSecret>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A key cannot be read.
    #[error("signature.keys: {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key is none, or none for its algorithm.
    #[error("signature.keys: {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        source: KeyError,
    },
    /// The keys do not go together.
    #[error("signature: {0}")]
    Setup(SetupError),
    /// A secret cannot be read.
    #[error("deliver.secret_files")]
    SecretFile(#[from] SecretFileError),
    /// A secret is another callback's as well.
    #[error(
        "deliver.secret_files: a secret is that of callback `{other}` too: each needs its own, or one could speak for the \
         other (`priorgate keygen deliver` makes one)"
    )]
    Shared {
        /// The other callback.
        other: String,
    },
    /// A secret is none.
    #[error("deliver.secret_files: {}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is expected.
        #[source]
        source: SecretError,
    },
}

/// Reads a callback's public keys: the rules by which its notifications are judged.
///
/// # Errors
/// The first [`MaterialError`] found.
pub fn verifier(callback: &config::Callback) -> Result<Verifier, MaterialError> {
    let signature = &callback.signature;
    let mut keys = Vec::with_capacity(signature.keys.len());
    for key in &signature.keys {
        let path = || key.file.clone();
        let bytes = read(&key.file).map_err(|source| MaterialError::Unreadable {
            path: path(),
            source,
        })?;
        let parsed =
            PublicKey::parse(key.algorithm, &bytes).map_err(|source| MaterialError::Key {
                path: path(),
                source,
            })?;
        keys.push(Key {
            id: key.id.as_str().into(),
            key: parsed,
            not_before: key.not_before,
            not_after: key.not_after,
        });
    }
    let verifier = Verifier::new(
        signature.header.clone(),
        signature.field.clone(),
        signature.message.clone(),
        keys,
        signature.timestamp.clone(),
    );
    verifier.map_err(|mut errors| {
        // The check of the configuration has found all but what the keys themselves say; there is at least one.
        MaterialError::Setup(errors.pop().unwrap_or(SetupError::NoKeys))
    })
}

impl Material {
    /// Reads a callback's files.
    ///
    /// # Errors
    /// The first [`MaterialError`] found.
    pub fn load(callback: &config::Callback) -> Result<Self, MaterialError> {
        let verifier = verifier(callback)?;
        let mut secrets = Vec::with_capacity(callback.deliver.secret_files.len());
        for path in &callback.deliver.secret_files {
            let secret = secretfile::header_value(path)?;
            let text = str::from_utf8(secret.expose()).unwrap_or_default();
            let secret = WebhookSecret::parse(text).map_err(|source| MaterialError::Secret {
                path: path.clone(),
                source,
            })?;
            secrets.push(secret);
        }
        Ok(Self { verifier, secrets })
    }
}

/// Two callbacks with one secret could speak for each other towards the shop. The configuration's check compares the names
/// of the files; a copy has another.
///
/// # Errors
/// [`MaterialError::Shared`], with the name of the later one.
pub fn distinct<'c>(
    loaded: impl IntoIterator<Item = (&'c str, &'c Material)>,
) -> Result<(), (String, MaterialError)> {
    let mut before: Vec<(&str, &WebhookSecret)> = Vec::new();
    for (name, material) in loaded {
        for secret in &material.secrets {
            if let Some((other, _)) = before
                .iter()
                .find(|(other, known)| *other != name && known.is(secret))
            {
                let other = (*other).to_owned();
                return Err((name.to_owned(), MaterialError::Shared { other }));
            }
        }
        before.extend(material.secrets.iter().map(|secret| (name, secret)));
    }
    Ok(())
}

/// Into a buffer that is wiped and does not grow: it may turn out to be a private key.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // `read_to_end` asks for a little more than there may be.
    let mut bytes = Zeroizing::new(Vec::with_capacity((64 << 10) + 64));
    File::open(path)?
        .take(KEY_FILE_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One callback, bound and not running.
#[derive(Debug)]
pub(super) struct Prepared {
    material: Material,
    bound: Vec<Bound>,
}

/// Reads the files of all callbacks.
///
/// # Errors
/// The name of the callback, and what is wrong.
pub(super) fn load(
    callbacks: &[config::Callback],
) -> Result<Vec<Material>, (String, Box<MaterialError>)> {
    let mut all = Vec::with_capacity(callbacks.len());
    for callback in callbacks {
        let material = Material::load(callback);
        all.push(material.map_err(|error| (callback.name.clone(), Box::new(error)))?);
    }
    let names = callbacks.iter().map(|callback| &*callback.name);
    distinct(names.zip(&all)).map_err(|(name, error)| (name, Box::new(error)))?;
    Ok(all)
}

/// Reads the files of all callbacks and binds their listeners.
pub(super) fn prepare(
    callbacks: &[config::Callback],
    binder: &mut Binder,
) -> Result<Vec<Prepared>, super::StartError> {
    let materials = load(callbacks)
        .map_err(|(callback, source)| super::StartError::Callback { callback, source })?;
    let pairs = callbacks.iter().zip(materials);
    pairs
        .map(|(callback, material)| bind(callback, material, binder))
        .collect()
}

fn bind(
    callback: &config::Callback,
    material: Material,
    binder: &mut Binder,
) -> Result<Prepared, super::StartError> {
    let bound = callback
        .listen
        .iter()
        .map(|listen| match &listen.socket {
            Socket::Tcp(addr) => binder.tcp(*addr),
            Socket::Unix(socket) => binder.unix(&socket.path, socket.mode, socket.gid),
        })
        .collect::<Result<Vec<_>, ListenError>>()?;
    Ok(Prepared { material, bound })
}

/// One callback of the running gate.
#[derive(Clone, Debug)]
pub(super) struct CallbackGate {
    pub(super) name: Arc<str>,
    pub(super) path: String,
    pub(super) listen: Vec<status::Served>,
    pub(super) counts: Arc<Counts>,
    pub(super) denials: Arc<Denials>,
    pub(super) rejected: Arc<Rejected>,
    pub(super) standing: Arc<Standing>,
    publish: watch::Sender<Arc<Generation>>,
    terms: watch::Sender<Arc<Terms>>,
    wake: Arc<Notify>,
    places: Arc<Semaphore>,
    connections: u32,
    deliveries: Arc<Semaphore>,
    concurrency: u32,
    pub(super) listening: Listening,
}

/// Starts a callback's listeners and its worker.
pub(super) fn start(
    callback: &config::Callback,
    prepared: Prepared,
    journal: &Journal,
    audit: Option<&Audit>,
    ids: &Arc<RequestIds>,
    drain: &watch::Receiver<bool>,
    diag: Option<&Arc<SockDiag>>,
) -> io::Result<CallbackGate> {
    let Prepared { material, bound } = prepared;
    let name: Arc<str> = callback.name.as_str().into();
    let (generation, terms) = generation(callback, material);
    let (publish, current) = watch::channel(Arc::new(generation));
    let (terms, terms_in_force) = watch::channel(Arc::new(terms));
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let wake = Arc::new(Notify::new());
    let deliveries = Arc::new(Semaphore::new(callback.deliver.concurrency));
    let places = Arc::new(Semaphore::new(callback.limits.connections));
    let (counts, rejected) = (Arc::new(Counts::default()), Arc::new(Rejected::default()));
    let sink = audit.map(|log| denied::sink(log, "callback", &name));
    let denials = Arc::new(Denials::new(format!("callback {name}"), sink));
    let flow = Arc::new(Callback {
        name: Arc::clone(&name),
        current,
        draining: drain.clone(),
        journal: journal.clone(),
        wake: Arc::clone(&wake),
        verifying: Arc::new(Semaphore::new(callback.verify_concurrency)),
        rejected: Arc::clone(&rejected),
        counts: Arc::clone(&counts),
        audit: audit.cloned(),
        ids: Arc::clone(ids),
        diag: diag.cloned(),
        denials: Arc::clone(&denials),
    });
    let mut listen = Vec::with_capacity(bound.len());
    let mut listening = Listening::default();
    for (index, (bound, configured)) in bound.into_iter().zip(&callback.listen).enumerate() {
        let served = match (&configured.socket, bound.tcp_addr()) {
            (Socket::Unix(socket), _) => status::Served::Unix(socket.path.clone()),
            (Socket::Tcp(addr), bound) => status::Served::Tcp(bound.unwrap_or(*addr)),
        };
        let label: Arc<str> = served.to_string().into();
        let listener = bound.serve()?;
        tracing::info!(callback = &*name, listener = &*label, "listening");
        let (flow, places, drain) = (Arc::clone(&flow), Arc::clone(&places), drain.clone());
        let mark = listening.mark();
        tokio::spawn(async move {
            let _mark = mark;
            let for_each = Arc::clone(&label);
            accept::run(listener, &label, places, drain, move |accepted, place| {
                let (flow, label) = (Arc::clone(&flow), Arc::clone(&for_each));
                tokio::spawn(flow.connection(accepted, label, index, place));
            })
            .await;
        });
        listen.push(served);
    }
    let worker = Worker {
        name: Arc::clone(&name),
        journal: journal.clone(),
        terms: terms_in_force,
        places: Arc::clone(&deliveries),
        wake: Arc::clone(&wake),
        counts: Arc::clone(&counts),
        stop: drain.clone(),
    };
    tokio::spawn(worker.run());
    let standing = Arc::new(Standing::default());
    let watch = Watch {
        name: Arc::clone(&name),
        journal: journal.clone(),
        terms: terms.subscribe(),
        standing: Arc::clone(&standing),
        stop: drain.clone(),
    };
    tokio::spawn(watch.run());
    Ok(CallbackGate {
        name,
        path: callback.path.clone(),
        listen,
        counts,
        denials,
        rejected,
        standing,
        publish,
        terms,
        wake,
        places,
        connections: number(callback.limits.connections),
        deliveries,
        concurrency: number(callback.deliver.concurrency),
        listening,
    })
}

fn generation(callback: &config::Callback, material: Material) -> (Generation, Terms) {
    let generation = Generation {
        path: callback.path.clone(),
        header: callback.signature.header.clone(),
        verifier: material.verifier,
        on_mismatch: callback.signature.on_mismatch,
        event: callback.event.clone(),
        policy: callback.policy,
        content_types: callback.content_types.clone(),
        timeouts: callback.timeouts.clone(),
        limits: callback.limits.clone(),
        callers: callback
            .listen
            .iter()
            .map(|listen| listen.callers.clone())
            .collect(),
        answer: callback.answer.clone(),
    };
    let deliver = &callback.deliver;
    let terms = Terms {
        shop: Shop {
            target: deliver.target.clone(),
            host: deliver.host.clone(),
            path: deliver.path.clone(),
            timeout: deliver.timeout,
            ack: deliver.ack,
            secrets: material.secrets,
        },
        schedule: deliver.schedule.clone(),
        policy: callback.policy,
    };
    (generation, terms)
}

impl CallbackGate {
    /// Publishes a new generation.
    pub(super) fn replace(&self, callback: &config::Callback, material: Material) {
        let (generation, terms) = generation(callback, material);
        self.publish.send_replace(Arc::new(generation));
        self.terms.send_replace(Arc::new(terms));
        // A shop that has moved is tried at once.
        self.wake.notify_one();
    }

    /// The generation in force.
    pub(super) fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.publish.borrow())
    }

    /// Connections of callers that stand.
    pub(super) fn connected(&self) -> usize {
        let connections = usize::try_from(self.connections).unwrap_or(usize::MAX);
        connections.saturating_sub(self.places.available_permits())
    }

    /// Waits until no caller is connected and nothing is being delivered.
    pub(super) async fn drained(&self) {
        let _connections = self.places.acquire_many(self.connections).await;
        let _deliveries = self.deliveries.acquire_many(self.concurrency).await;
    }
}

/// What no key verified, of all callbacks, for the admin socket.
pub(super) fn rejected_by(callbacks: &[CallbackGate]) -> RejectedFn {
    let callbacks = callbacks.to_vec();
    Arc::new(move || {
        let of = |callback: &CallbackGate| {
            let source = callback.name.to_string();
            let kept = callback.rejected.all().into_iter();
            kept.map(move |rejected| RejectedBody {
                at: rejected.at.0,
                source: source.clone(),
                reason: rejected.reason.to_owned(),
                headers: rejected.headers,
                body: rejected.body.to_vec(),
            })
            .collect::<Vec<_>>()
        };
        let mut all: Vec<_> = callbacks.iter().flat_map(of).collect();
        all.sort_by_key(|rejected| rejected.at);
        all
    })
}

/// The first thing of callbacks that a running process cannot change.
pub(super) fn needs_restart(old: &[config::Callback], new: &[config::Callback]) -> Option<String> {
    let names = |all: &[config::Callback]| -> Vec<String> {
        all.iter().map(|callback| callback.name.clone()).collect()
    };
    if names(old) != names(new) {
        return Some("the list of callbacks has changed".to_owned());
    }
    for (old, new) in old.iter().zip(new) {
        let sockets = |callback: &config::Callback| -> Vec<Socket> {
            let listen = callback.listen.iter();
            listen.map(|listen| listen.socket.clone()).collect()
        };
        if sockets(old) != sockets(new) {
            return Some(format!(
                "the listeners of callback {} have changed",
                new.name
            ));
        }
        let counts = |callback: &config::Callback| {
            (
                callback.limits.connections,
                callback.deliver.concurrency,
                callback.verify_concurrency,
            )
        };
        if counts(old) != counts(new) {
            return Some(format!(
                "limits.connections, limits.verify_concurrency or deliver.concurrency of callback {} has changed",
                new.name
            ));
        }
    }
    None
}
