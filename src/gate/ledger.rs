//! The journal's place in the gate: opened before the listeners, and started with them.

use std::sync::atomic::Ordering::Relaxed;

use super::StartError;
use super::tidy::{self, KeysInForce};
use crate::admin::status;
use crate::audit;
use crate::config::Config;
use crate::journal::{
    Compared, Dependency, Journal, OpenReport, Options, Outbox, Prepared, Reader, Testimony,
};
use crate::net::clock::unix_millis;
use crate::policy::operation::subject::pointers_text;

/// A configuration that what is open in the journal does not fit.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Misfit {
    /// Operations: under it they would keep nobody off any more.
    #[error(
        "the journal has {} open operations ({} and on) of {what}, which this configuration does not have any more: a second \
         refund could walk around them. Put it back, or end them (`priorgate operations list --open`, `priorgate operations \
         resolve ID --yes`: both work while no gate runs), then change it",
        .dependency.operations, .dependency.first
    )]
    Operations {
        /// What is missing.
        what: String,
        /// What needs it.
        dependency: Dependency,
    },
    /// Events: nobody would deliver them, though the bank was told that they are kept.
    #[error(
        "the journal has {events} events of callback `{source_name}` that are still to be delivered or judged, and this \
         configuration has no such callback (a callback keeps its name for life). Put it back, wait for them or drop them \
         (`priorgate callbacks list --open --callback {source_name}`), then change it"
    )]
    Events {
        /// The callback's name.
        source_name: String,
        /// How many.
        events: u64,
    },
}

/// Whether everything that open operations and events depend on is still configured.
///
/// # Errors
/// The first that is not.
pub fn fits(
    config: &Config,
    dependencies: &[Dependency],
    sources: &[(String, u64)],
) -> Result<(), Misfit> {
    for (source, events) in sources {
        if !config
            .callbacks
            .iter()
            .any(|callback| callback.name == *source)
        {
            return Err(Misfit::Events {
                source_name: source.clone(),
                events: *events,
            });
        }
    }
    for dependency in dependencies {
        let bank = config
            .banks
            .iter()
            .find(|bank| bank.name == dependency.bank);
        let what = match (bank, &dependency.pointers) {
            (None, _) => format!("bank `{}`", dependency.bank),
            (Some(_), None) => continue,
            (Some(bank), Some(pointers)) => {
                let subjects = bank.routes.iter().filter_map(|route| route.rules.as_ref());
                let known = subjects
                    .map(|rules| pointers_text(rules.subject.iter()))
                    .any(|subject| subject == *pointers);
                if known {
                    continue;
                }
                format!("subject `{pointers}` of bank `{}`", bank.name)
            }
        };
        return Err(Misfit::Operations {
            what,
            dependency: dependency.clone(),
        });
    }
    Ok(())
}

/// Works that may wait for the disk for each connection of a caller: its own, and one that it gave up.
const WORKS_PER_CONNECTION: usize = 2;

/// A journal with what was found in it.
#[derive(Debug)]
pub(super) struct Ledger {
    prepared: Prepared,
    report: OpenReport,
}

/// What the status says besides the counts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) journal: Journal,
    pub(super) volatile: Option<&'static str>,
    /// What the audit log said of it.
    pub(super) compared: Option<Compared>,
}

/// Opens the journal that the configuration names. Before any listener: a second gate on the same journal must not take
/// the first one's sockets away.
pub(super) fn open(
    config: &Config,
    audit: Option<&audit::Prepared>,
) -> Result<Option<Ledger>, StartError> {
    let Some(journal) = &config.journal else {
        return Ok(None);
    };
    let connections: usize = config
        .banks
        .iter()
        .map(|bank| bank.limits.connections)
        .sum();
    let defaults = Options::default();
    let pauses = config.callbacks.iter();
    let after_timeout = pauses
        .map(|callback| callback.deliver.schedule.after_timeout)
        .max();
    let options = Options {
        after_timeout: after_timeout.unwrap_or(defaults.after_timeout),
        allow_volatile: journal.allow_volatile,
        queue: connections
            .saturating_mul(WORKS_PER_CONNECTION)
            .max(defaults.queue),
        ..defaults
    };
    let witness = |journal| match audit {
        Some(log) => log.testimony(journal),
        None => Ok(Testimony::default()),
    };
    let outbox = match audit {
        Some(_) => Outbox::On(&witness),
        None => Outbox::Off,
    };
    let (prepared, report) = Journal::open_beside(&journal.path, options, outbox, unix_millis())?;
    fits(config, &report.dependencies, &report.sources)?;
    Ok(Some(Ledger { prepared, report }))
}

impl Ledger {
    /// Starts the writer and the tidying, and says what was found.
    pub(super) fn start(self, keys: KeysInForce) -> std::io::Result<Facts> {
        let Self { prepared, report } = self;
        let journal = prepared.start()?;
        let path = journal.path().display();
        if report.created {
            tracing::warn!(
                journal = %path,
                "the journal is new: if this shop has refunded before, earlier operations are not in it, and keys from \
                 before it are not known"
            );
        }
        if report.not_sent > 0 || report.unknown > 0 {
            tracing::warn!(
                journal = %path,
                not_sent = report.not_sent,
                unknown = report.unknown,
                "operations that the last process left open; see `priorgate operations list --open`"
            );
        }
        if report.waiting > 0 {
            tracing::warn!(
                journal = %path,
                unknown = report.waiting,
                "operations that may have reached the bank wait for a person; see `priorgate operations list --open`"
            );
        }
        if !report.ballast {
            tracing::error!(journal = %path, "the journal's disk has no space: new operations are refused until it has");
        }
        let doubt = report.compared.and_then(|compared| compared.doubt);
        if doubt.is_some_and(|doubt| doubt.absent.is_some()) {
            tracing::error!(
                journal = %path,
                "the audit log has nothing of this journal, which wrote into one before: is its disk mounted, its file the \
                 right one? Guarded requests are refused until it is there again, or until `priorgate operations reconcile \
                 --incomplete`"
            );
        } else if doubt.is_some() {
            tracing::error!(
                journal = %path,
                "the journal does not know what the audit log knows: it is new, or a restored backup. Guarded requests are \
                 refused until `priorgate operations reconcile`"
            );
        }
        tokio::spawn(tidy::run(journal.clone(), keys));
        Ok(Facts {
            journal,
            volatile: report.volatile,
            compared: report.compared,
        })
    }
}

impl Facts {
    /// Whether a new configuration still has what open operations depend on. What cannot be read is not known to fit.
    pub(super) fn fits(&self, config: &Config) -> Result<(), String> {
        let read = Reader::open(self.journal.path())
            .map_err(|error| error.to_string())
            .and_then(|reader| {
                let dependencies = reader.dependencies().map_err(|error| error.to_string())?;
                let sources = reader.open_sources().map_err(|error| error.to_string())?;
                Ok((dependencies, sources))
            });
        let (dependencies, sources) = read?;
        fits(config, &dependencies, &sources).map_err(|misfit| misfit.to_string())
    }

    /// What owes the audit log its records.
    pub(super) fn owing(&self) -> Option<(Journal, Compared)> {
        Some((self.journal.clone(), self.compared?))
    }

    /// For the status document.
    pub(super) fn status(&self) -> status::Journal {
        let counts = self.journal.counts();
        status::Journal {
            file: self.journal.path().display().to_string(),
            failed: self.journal.failed().borrow().clone(),
            frozen: counts.frozen.load(Relaxed),
            doubted: counts.doubted.load(Relaxed),
            full: counts.full.load(Relaxed),
            open: counts.open.load(Relaxed),
            unknown: counts.unknown.load(Relaxed),
            undelivered: counts.undelivered.load(Relaxed),
            commits: counts.commits.load(Relaxed),
            works: counts.rows.load(Relaxed),
            // The look's.
            size: 0,
            disk_free: None,
        }
    }

    /// What an administrator should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let counts = self.journal.counts();
        let mut found = Vec::new();
        if let Some(kind) = self.volatile {
            found.push(format!(
                "the journal lies on {kind}, which forgets (allow_volatile)"
            ));
        }
        if counts.frozen.load(Relaxed) {
            found.push(
                "guarded routes are frozen; `priorgate operations thaw` ends that".to_owned(),
            );
        }
        if counts.doubted.load(Relaxed) {
            found.push(
                "the journal does not know what the audit log knows (it is new, or a restored backup): guarded requests are \
                 refused; `priorgate operations reconcile` ends that"
                    .to_owned(),
            );
        }
        if counts.full.load(Relaxed) {
            found.push("the journal's disk is full: guarded requests are refused".to_owned());
        }
        let unknown = counts.unknown.load(Relaxed);
        if unknown > 0 {
            found.push(format!(
                "{unknown} operations may have reached the bank and have no answer; see `priorgate operations list --open`"
            ));
        }
        found
    }
}
