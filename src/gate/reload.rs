//! A reload: the file and everything it names read again, then published whole or not at all.
//!
//! It owns what a running process can change and the list of what it cannot. It does not know who asked.

use std::path::PathBuf;
use std::sync::Arc;

use super::ingress;
use super::material::{Files, Material, MaterialError};
use super::status::Life;
use super::{Gate, Resolver, expiry, generation, keyholder, tidy};
use crate::config::{self, Config, Listen, Names};
use crate::harden::needs::GateNeeds;
use crate::harden::rules;
use crate::tls::keyholder::{AskError, Keyholder};

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The keys.
    #[error(transparent)]
    Keyholder(#[from] AskError),
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

/// What a reload reads, and what bounds it in a confined process.
#[derive(Clone, Debug)]
pub struct Bounds {
    path: PathBuf,
    /// Users and groups that were looked up while that was possible.
    names: Names,
    life: Arc<Life>,
}

/// A new generation of every bank, read and checked, not yet published.
#[derive(Debug)]
pub struct Replacement {
    config: Config,
    materials: Vec<Material>,
    callbacks: Vec<ingress::Material>,
}

impl Replacement {
    /// Reads the file and everything it names again, and then has the keyholder do the same. Blocks: call it from a
    /// blocking thread.
    ///
    /// # Errors
    /// [`ReloadError::Config`], [`ReloadError::RestartNeeded`], [`ReloadError::Keyholder`] and those of the files.
    pub fn read(bounds: &Bounds, keyholder: Option<&Arc<Keyholder>>) -> Result<Self, ReloadError> {
        let confined = bounds.life.confined();
        let config = if confined.closes_files() {
            Config::load_knowing(&bounds.path, &bounds.names)?
        } else {
            Config::load(&bounds.path)?
        };
        rules::refuse(&config)?;
        // Before the files are read: what cannot be opened any more is not what is wrong with them.
        if let Some(what) = confined.beyond(&GateNeeds::of(&config)) {
            return Err(ReloadError::RestartNeeded(what));
        }
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
        let keys = keyholder::reload(keyholder)?;
        let materials = files
            .into_iter()
            .zip(&config.banks)
            .map(|(files, bank)| {
                let material = files.with_keys(&keys);
                material.map_err(|source| named(bank, source))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            materials,
            callbacks,
        })
    }
}

impl Gate {
    /// What the next reload may read.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            path: self.config.path.clone(),
            names: self.config.names.clone(),
            life: Arc::clone(&self.life),
        }
    }

    /// Publishes a new generation of every bank and retires the old ones. All or nothing.
    ///
    /// # Errors
    /// [`ReloadError::RestartNeeded`] when something changed that a running process keeps; nothing is published then.
    pub fn replace(&mut self, replacement: Replacement) -> Result<u64, ReloadError> {
        let Replacement {
            config,
            materials,
            callbacks,
        } = replacement;
        if let Some(change) = needs_restart(&self.config, &config) {
            return Err(ReloadError::RestartNeeded(change));
        }
        if let Some(facts) = &self.ledger {
            facts.fits(&config).map_err(ReloadError::OpenOperations)?;
        }
        let mut next = Vec::with_capacity(self.banks.len());
        let mut number = 0;
        for (((gate, bank), old), material) in self
            .banks
            .iter()
            .zip(&config.banks)
            .zip(&self.config.banks)
            .zip(materials)
        {
            let current = gate.egress.generation();
            number = current.number.saturating_add(1);
            let resolver = if (&bank.remote, &bank.dns) == (&old.remote, &old.dns) {
                Arc::clone(current.bank.resolver())
            } else {
                Arc::new(Resolver::start(&bank.remote, &bank.dns)?)
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
