//! Freezing a journal while no gate runs, under the gate's own lock: a restored journal must not serve before somebody has
//! compared it with the bank.

use std::path::Path;

use crate::admin::books::login_of;
use crate::audit;
use crate::cli::client;
use crate::journal::{Journal, Options, Outbox, Person, Testimony};
use crate::net::clock::unix_millis;
use crate::net::exchange::chain;

/// Whether it changed anything. The text of an error says what to do.
pub(super) fn freeze(config: &Path, frozen: bool, reason: &str) -> Result<bool, String> {
    let path = client::journal_of(config)
        .ok_or_else(|| format!("{} names no journal", config.display()))?;
    let options = Options {
        // Whoever freezes it keeps nothing in it.
        allow_volatile: true,
        ..Options::default()
    };
    let told = |error: &dyn std::fmt::Display| {
        format!("{error} (run this as the user that runs the gate)")
    };
    // A restored journal must not give away numbers that the audit log has for other records.
    let log = client::audit_of(config);
    let witness = |journal| match &log {
        Some(log) => audit::testimony(&log.file, journal),
        None => Ok(Testimony::default()),
    };
    let outbox = match &log {
        Some(_) => Outbox::On(&witness),
        None => Outbox::AsItIs,
    };
    let (prepared, _) = Journal::open_beside(&path, options, outbox, unix_millis())
        .map_err(|error| told(&chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| error.to_string())?;
    let journal = prepared.start().map_err(|error| error.to_string())?;
    let pid = std::process::id().cast_signed();
    let person = Person {
        uid: rustix::process::getuid().as_raw(),
        pid: Some(pid),
        login_uid: login_of(pid),
        reason: reason.to_owned(),
    };
    let changed = runtime.block_on(journal.freeze(frozen, person, unix_millis()));
    journal.close();
    changed.map_err(|error| error.to_string())
}
