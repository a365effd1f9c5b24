//! Changing a journal while no gate runs, under the gate's own lock: a restored journal must not serve before somebody has
//! compared it with the bank, and a gate that does not start for the sake of an open operation must not be needed to end it.

use std::path::Path;

use serde_json::{Value, json};

use crate::admin::books::login_of;
use crate::admin::operations::{Resolve, resolution};
use crate::audit;
use crate::cli::client;
use crate::journal::{Journal, JournalError, Options, Outbox, Person, Testimony};
use crate::net::clock::unix_millis;
use crate::net::exchange::chain;

/// Whether it changed anything. The text of an error says what to do.
pub(super) fn freeze(config: &Path, frozen: bool, reason: &str) -> Result<bool, String> {
    change(config, reason, async |journal, person| {
        journal.freeze(frozen, person, unix_millis()).await
    })
}

/// The answer that a gate would give.
pub(super) fn resolve(config: &Path, asked: &Resolve) -> Result<Value, String> {
    let (id, resolution, answer) = resolution(asked)?;
    let state = change(config, &asked.reason, async |journal, person| {
        let now = unix_millis();
        journal.resolve(id, resolution, answer, person, now).await
    })?;
    Ok(json!({"id": id.to_string(), "state": state.as_str()}))
}

fn change<T>(
    config: &Path,
    reason: &str,
    work: impl AsyncFnOnce(&Journal, Person) -> Result<T, JournalError>,
) -> Result<T, String> {
    let path = client::journal_of(config)
        .ok_or_else(|| format!("{} names no journal", config.display()))?;
    let options = Options {
        // Whoever does this keeps nothing new in it.
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
    let changed = runtime.block_on(work(&journal, person));
    journal.close();
    changed.map_err(|error| error.to_string())
}
