//! What a configuration may not say under `hardening: required`, although each of it is well-formed.
//!
//! These are found here and not by the check of the file: a link decides whether a key lies beneath a directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::needs::GateNeeds;
use crate::config::callback::{Ack, Target};
use crate::config::error::Mistake;
use crate::config::{Config, ConfigError, Hardening, Listen};

/// Refuses what only a weaker level may say.
///
/// # Errors
/// [`ConfigError`] with every objection, under [`Hardening::Required`].
pub fn refuse(config: &Config) -> Result<(), ConfigError> {
    if config.hardening != Hardening::Required {
        return Ok(());
    }
    let mistakes: Vec<Mistake> = keys(config)
        .into_iter()
        .chain(two_hats(config))
        .chain(unsigned(config))
        .collect();
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(ConfigError {
        file: config.path.clone(),
        mistakes,
    })
}

/// Private keys that the gate could read: a rule of the kernel reaches down and nothing can be taken out of it.
#[must_use]
pub fn keys(config: &Config) -> Vec<Mistake> {
    let exposed = GateNeeds::of(config).exposed_keys(real);
    let mistake = |(key, root): (PathBuf, PathBuf)| {
        Mistake::at(
            "identity.key_file",
            format!(
                "{} lies beneath {}, which the gate must be able to read: hardening: required keeps the key from it",
                key.display(),
                root.display()
            ),
            "move the key to a directory of its own, such as /etc/priorgate-keys, or write `hardening: best-effort`",
        )
    };
    exposed.into_iter().map(mistake).collect()
}

/// Whoever takes over PHP must not be able to reload the gate or to resolve an operation.
fn two_hats(config: &Config) -> Vec<Mistake> {
    let Some(admin) = &config.admin.unix else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, bank) in config.banks.iter().enumerate() {
        let callers = bank.listen.iter().flat_map(|listen| match listen {
            Listen::Unix { callers, .. } => callers.as_slice(),
            Listen::Tcp { access, .. } => access.callers().unwrap_or_default(),
        });
        let both: BTreeSet<u32> = callers
            .filter(|uid| admin.operators.contains(uid))
            .copied()
            .collect();
        found.extend(both.into_iter().map(|uid| {
            Mistake::at(
                format!("banks[{index}].listen"),
                format!(
                    "uid {uid} is a caller and an operator, which hardening: required keeps apart"
                ),
                "use two users, or write `hardening: best-effort`",
            )
        }));
    }
    found
}

/// Whoever takes the port while the web server is down could acknowledge a payment.
fn unsigned(config: &Config) -> Vec<Mistake> {
    let callbacks = config.callbacks.iter().enumerate();
    callbacks
        .filter(|(_, callback)| {
            callback.deliver.ack != Ack::Signed && matches!(callback.deliver.target, Target::Tcp(_))
        })
        .map(|(index, _)| {
            Mistake::at(
                format!("callbacks[{index}].deliver.ack"),
                "an unsigned acknowledgement over TCP: whoever takes the port while the web server is down could \
                 acknowledge, and hardening: required refuses it",
                "write `ack: signed`, deliver to a unix socket, or write `hardening: best-effort`",
            )
        })
        .collect()
}

/// A path without links and dots; `None` for what is not there.
pub(super) fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::parse;

    fn mistakes(dir: &Path, key: &str, hardening: &str, operator: u32) -> Vec<String> {
        let text = format!(
            "banks: [{{name: b, url: \"https://bank.test\", trust: {{ca_file: ca}}, identity: {{cert_file: c, key_file: \
             {key}}}, listen: [{{unix: s, callers: [33]}}, {{tcp: \"127.0.0.1:1\", callers: [34]}}, \
             {{tcp: \"127.0.0.1:2\", callers: [35], token_files: [t]}}], routes: [{{name: r, method: GET, path: /}}]}}]\nadmin: {{unix: \
             a, operators: [{operator}]}}\nhardening: {hardening}\n"
        );
        let config = parse(&dir.join("config.yaml"), &text).unwrap();
        match refuse(&config) {
            Ok(()) => Vec::new(),
            Err(error) => error.mistakes.into_iter().map(|it| it.path).collect(),
        }
    }

    #[test]
    fn a_key_beneath_what_the_gate_reads_is_refused_under_required_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |key: &str, hardening: &str| mistakes(dir.path(), key, hardening, 0);
        assert_eq!(at("k", "required"), ["identity.key_file"]);
        assert_eq!(at("keys/k", "required"), ["identity.key_file"]);
        assert_eq!(at("k", "best-effort"), [""; 0]);
        assert_eq!(at("/elsewhere/k", "required"), [""; 0]);
    }

    #[test]
    fn a_link_hides_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("k"), "").unwrap();
        let link = outside.path().join("k");
        std::os::unix::fs::symlink(dir.path().join("k"), &link).unwrap();
        let found = mistakes(dir.path(), link.to_str().unwrap(), "required", 0);
        assert_eq!(found, ["identity.key_file"]);
    }

    #[test]
    fn a_caller_is_no_operator_under_required() {
        let dir = tempfile::tempdir().unwrap();
        let at =
            |hardening: &str, operator| mistakes(dir.path(), "/elsewhere/k", hardening, operator);
        // On the Unix socket, on TCP, and on TCP with a token besides.
        for operator in [33, 34, 35] {
            assert_eq!(at("required", operator), ["banks[0].listen"], "{operator}");
            assert_eq!(at("best-effort", operator), [""; 0]);
        }
        assert_eq!(at("required", 36), [""; 0]);
    }
}
