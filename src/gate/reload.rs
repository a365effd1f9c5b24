//! A reload: the file and everything it names read again, then published whole or not at all.
//!
//! Two processes change: so everything that can fail here comes first, then the keyholder is asked for its new keys, which
//! it takes whole or not at all, then certificates are matched with them, and then all is published at once. It owns what a
//! running process can change and the list of what it cannot. It does not know who asked.

use std::sync::Arc;

use super::ingress;
use super::ledger::Facts;
use super::material::{Files, Keys, Material, MaterialError};
use super::status::Life;
use super::{Gate, Resolver, expiry, generation, keyholder, tidy};
use crate::config::{self, Config, Listen};
use crate::harden::needs::GateNeeds;
use crate::harden::rules;
use crate::tls::keyholder::{AskError, Keyholder};
use crate::tls::store::Store;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The keyholder has new keys, and the gate keeps the certificates that it had.
    #[error(
        "the keyholder has loaded its keys again, the gate keeps its certificates, and {serves}; put this right and reload again: {source}"
    )]
    Apart {
        /// What the old certificates are good for.
        serves: String,
        /// Why the gate keeps them.
        #[source]
        source: Box<Self>,
    },
    /// The file.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The keys: the old ones stay.
    #[error(transparent)]
    Keyholder(AskError),
    /// The keyholder did not say how it went.
    #[error(
        "the gate keeps what it has, and the keyholder may have loaded its keys again or not: reload again: {0}"
    )]
    KeyholderSilent(#[source] AskError),
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
    /// The new state lacks what open operations depend on.
    #[error("{0}")]
    OpenOperations(String),
    /// What only a new process can change.
    #[error("restart needed: {0}")]
    RestartNeeded(String),
    /// The runtime, a thread or a descriptor.
    #[error("the system refused a thread or a descriptor")]
    System(#[from] std::io::Error),
}

/// What a reload begins with: what is in force, and what bounds it in a confined process.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// With the users and groups that were looked up while that was possible.
    config: Config,
    ledger: Option<Facts>,
    /// What each bank is shown.
    shown: Vec<(String, Arc<Store>)>,
    life: Arc<Life>,
}

/// A new generation of every bank, read and checked, not yet published.
#[derive(Debug)]
pub struct Replacement {
    bounds: Bounds,
    config: Config,
    keys: Keys,
    materials: Vec<Material>,
    /// Of banks whose address or name look-up has changed.
    resolvers: Vec<Option<Resolver>>,
    callbacks: Vec<ingress::Material>,
}

impl Bounds {
    /// What can be said without reading a file that the configuration names.
    fn allow(&self, config: &Config) -> Result<(), ReloadError> {
        rules::refuse(config)?;
        // Before the files are read: what cannot be opened any more is not what is wrong with them.
        let beyond = self.life.confined().beyond(&GateNeeds::of(config));
        match beyond.or_else(|| needs_restart(&self.config, config)) {
            Some(what) => Err(ReloadError::RestartNeeded(what)),
            None => Ok(()),
        }
    }

    /// Open operations and events keep what they depend on.
    fn fits(&self, config: &Config) -> Result<(), ReloadError> {
        match &self.ledger {
            Some(facts) => facts.fits(config).map_err(ReloadError::OpenOperations),
            None => Ok(()),
        }
    }

    fn resolvers(&self, config: &Config) -> std::io::Result<Vec<Option<Resolver>>> {
        let banks = config.banks.iter().zip(&self.config.banks);
        banks
            .map(|(bank, old)| {
                let changed = (&bank.remote, &bank.dns) != (&old.remote, &old.dns);
                changed
                    .then(|| Resolver::start(&bank.remote, &bank.dns))
                    .transpose()
            })
            .collect()
    }

    /// An error that comes after the keyholder has changed its keys: which side has what.
    fn apart(&self, error: ReloadError, keys: &Keys) -> ReloadError {
        let Keys::Keyholder { held, .. } = keys else {
            return error;
        };
        let has = |store: &Store| {
            let shown = store.current().leaf.spki_sha256;
            held.iter().any(|held| held.key.0 == shown)
        };
        let lost = self.shown.iter().filter(|(_, store)| !has(store));
        let lost: Vec<_> = lost.map(|(bank, _)| bank.as_str()).collect();
        let serves = if lost.is_empty() {
            "their keys are still there: they serve on".to_owned()
        } else {
            format!(
                "new connections to {} fail until certificate and key are of one pair",
                lost.join(", ")
            )
        };
        ReloadError::Apart {
            serves,
            source: Box::new(error),
        }
    }
}

impl Replacement {
    /// Reads the file and everything it names again, and then has the keyholder do the same. Blocks: call it from a
    /// blocking thread of the runtime.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed but in [`ReloadError::Apart`] and, perhaps, [`ReloadError::KeyholderSilent`].
    pub fn read(bounds: &Bounds, keyholder: Option<&Arc<Keyholder>>) -> Result<Self, ReloadError> {
        let (path, names) = (&bounds.config.path, &bounds.config.names);
        let config = if bounds.life.confined().closes_files() {
            Config::load_knowing(path, names)?
        } else {
            Config::load(path)?
        };
        bounds.allow(&config)?;
        let named = |bank: &config::Bank, source| ReloadError::Material {
            bank: bank.name.clone(),
            source: Box::new(source),
        };
        let files = config
            .banks
            .iter()
            .map(|bank| Files::read(bank).map_err(|source| named(bank, source)))
            .collect::<Result<Vec<_>, _>>()?;
        let callbacks = ingress::load(&config.callbacks)
            .map_err(|(callback, source)| ReloadError::Callback { callback, source })?;
        bounds.fits(&config)?;
        let resolvers = bounds.resolvers(&config)?;
        let keys = keyholder::reload(keyholder).map_err(|error| match error {
            AskError::TimedOut(_) | AskError::Unexpected => ReloadError::KeyholderSilent(error),
            error => ReloadError::Keyholder(error),
        })?;
        let materials = files
            .into_iter()
            .zip(&config.banks)
            .map(|(files, bank)| {
                let material = files.with_keys(&keys);
                material.map_err(|source| named(bank, source))
            })
            .collect::<Result<_, _>>()
            .map_err(|error| bounds.apart(error, &keys))?;
        Ok(Self {
            bounds: bounds.clone(),
            config,
            keys,
            materials,
            resolvers,
            callbacks,
        })
    }
}

impl Gate {
    /// What the next reload may read.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let shown = |gate: &super::BankGate| {
            let store = gate.egress.generation().identity.clone()?;
            Some((gate.egress.name().to_owned(), store))
        };
        Bounds {
            config: self.config.clone(),
            ledger: self.ledger.clone(),
            shown: self.banks.iter().filter_map(shown).collect(),
            life: Arc::clone(&self.life),
        }
    }

    /// Publishes a new generation of every bank and retires the old ones. All or nothing.
    ///
    /// # Errors
    /// [`ReloadError::OpenOperations`], within [`ReloadError::Apart`], when one has begun since it was read; nothing is
    /// published then.
    pub fn replace(&mut self, replacement: Replacement) -> Result<u64, ReloadError> {
        let Replacement {
            bounds,
            config,
            keys,
            materials,
            resolvers,
            callbacks,
        } = replacement;
        let fits = bounds.fits(&config);
        fits.map_err(|error| bounds.apart(error, &keys))?;
        let mut next = Vec::with_capacity(self.banks.len());
        let mut number = 0;
        for (((gate, bank), resolver), material) in self
            .banks
            .iter()
            .zip(&config.banks)
            .zip(resolvers)
            .zip(materials)
        {
            let current = gate.egress.generation();
            number = current.number.saturating_add(1);
            let resolver = match resolver {
                Some(resolver) => Arc::new(resolver),
                None => Arc::clone(current.bank.resolver()),
            };
            let counts = Arc::clone(&gate.counts);
            next.push(generation(
                number,
                bank,
                material,
                resolver,
                &self.handshakes,
                counts,
                gate.egress.requests(),
            ));
        }
        for (gate, generation) in self.banks.iter().zip(next) {
            let old = gate.publish.send_replace(Arc::new(generation));
            old.bank.retire();
        }
        let replaced = self.callbacks.iter().zip(&config.callbacks).zip(callbacks);
        for ((gate, callback), material) in replaced {
            gate.replace(callback, material);
        }
        self.keys.send_replace(tidy::keys_of(&config));
        self.config = config;
        let endings = expiry::endings(&self.banks, &self.callbacks);
        self.life.told.tell(&endings, std::time::SystemTime::now());
        Ok(number)
    }
}

/// The first thing that a running process cannot change.
fn needs_restart(old: &Config, new: &Config) -> Option<String> {
    let names = |config: &Config| {
        config
            .banks
            .iter()
            .map(|bank| bank.name.clone())
            .collect::<Vec<_>>()
    };
    if names(old) != names(new) {
        return Some("the list of banks has changed".to_owned());
    }
    for (old, new) in old.banks.iter().zip(&new.banks) {
        let sockets = |bank: &config::Bank| bank.listen.iter().map(socket_of).collect::<Vec<_>>();
        if sockets(old) != sockets(new) {
            return Some(format!("the listeners of bank {} have changed", new.name));
        }
        if old.limits.connections != new.limits.connections {
            return Some(format!(
                "limits.connections of bank {} has changed",
                new.name
            ));
        }
    }
    if (&old.admin.unix, old.admin.tcp) != (&new.admin.unix, new.admin.tcp) {
        return Some("admin has changed".to_owned());
    }
    if old.tcp_with_callers().next().is_none() && new.tcp_with_callers().next().is_some() {
        return Some("the first `callers` on TCP want a look at the kernel's sock_diag".to_owned());
    }
    if let Some(change) = ingress::needs_restart(&old.callbacks, &new.callbacks) {
        return Some(change);
    }
    if old.hardening != new.hardening {
        return Some("hardening has changed".to_owned());
    }
    if old.journal != new.journal {
        return Some("journal has changed".to_owned());
    }
    if old.audit != new.audit {
        return Some("audit has changed".to_owned());
    }
    if old.threads != new.threads {
        return Some("threads has changed".to_owned());
    }
    if old.log != new.log {
        return Some("log has changed".to_owned());
    }
    None
}

/// A listener without what it asks of its callers, which a reload may change.
fn socket_of(listen: &Listen) -> Listen {
    match listen {
        Listen::Unix { socket, .. } => Listen::Unix {
            socket: socket.clone(),
            callers: Vec::new(),
        },
        Listen::Tcp { addr, .. } => Listen::Tcp {
            addr: *addr,
            access: config::TcpAccess::OpenToEveryLocalUser,
        },
    }
}
