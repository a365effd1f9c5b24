//! `priorgate check`: `run` without binding. The same loader, the same files, and what an operator should know besides.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::SignatureScheme;
use serde::Serialize;

use super::style::Style;
use super::{CONFIG, OK, PROBLEM};
use crate::admin::status::Timestamp;
use crate::config::callback::Callback;
use crate::config::{
    AdminUnix, Audit, Bank, Config, ConfigError, Hardening, KeySource, Listen, TcpAccess, Tls,
    TlsVersion, Transport,
};
use crate::gate::ingress;
use crate::gate::material::{Files, Keys};
use crate::harden::rules;
use crate::net::exchange::chain;
use crate::policy::chain::{CheckpointKey, Tip, Vouched, checkpoint_message};
use crate::policy::operation::UnixMillis;
use crate::tls::identity::{self, Identity, IdentityError, Leaf};
use crate::tls::pem;
use crate::tls::secretfile::{self, SecretFileError};
use crate::tls::trust::{Trust, TrustError};

/// How a thing that was looked at is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Problem,
    /// This user may not read it; the gate's may.
    NotChecked,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) subject: String,
    pub(super) message: String,
}

/// Certificates that end within so many days are a problem, unless somebody says otherwise: banks take weeks.
pub(super) const DAYS: u32 = 30;

struct Report {
    findings: Vec<Finding>,
    days: u32,
    now: SystemTime,
}

/// Checks a configuration and everything that it names. Gives the exit code.
pub(super) fn run(config: &Path, days: u32, json: bool, style: Style, out: &mut dyn Write) -> u8 {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            // A closed pipe is noticed by the caller of this.
            let _ = if json {
                writeln!(out, "{}", mistakes(&error))
            } else {
                writeln!(out, "{error}")
            };
            return CONFIG;
        }
    };
    let report = Report::of(&config, days);
    let problems = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Problem)
        .count();
    let _ = report.print(problems, json, style, out);
    if problems == 0 { OK } else { PROBLEM }
}

/// What there is to say of a configuration that was loaded.
pub(super) fn findings(config: &Config, days: u32) -> Vec<Finding> {
    Report::of(config, days).findings
}

impl Report {
    fn of(config: &Config, days: u32) -> Self {
        let mut report = Self {
            findings: Vec::new(),
            days,
            now: SystemTime::now(),
        };
        report.add(
            Level::Ok,
            config.path.display().to_string(),
            "the configuration is well-formed",
        );
        for bank in &config.banks {
            report.bank(bank);
            report.two_hats(bank, config.admin.unix.as_ref());
        }
        let materials = config.callbacks.iter().filter_map(|callback| {
            let material = report.callback(callback)?;
            Some((&*callback.name, material))
        });
        let materials: Vec<_> = materials.collect();
        let pairs = materials.iter().map(|(name, material)| (*name, material));
        if let Err((name, error)) = ingress::distinct(pairs) {
            report.add(Level::Problem, format!("callback {name}"), chain(&error));
        }
        if let Some(audit) = &config.audit {
            report.audit(audit);
        }
        report.hardening(config);
        report
    }

    /// What `required` refuses; the key beneath what the gate can read is worth a warning anyhow.
    fn hardening(&mut self, config: &Config) {
        let refused = rules::refuse(config).err();
        let warned = || match config.hardening {
            Hardening::BestEffort => rules::keys(config),
            Hardening::Required | Hardening::Disabled => Vec::new(),
        };
        let (level, mistakes) = match refused {
            Some(error) => (Level::Problem, error.mistakes),
            None => (Level::Warning, warned()),
        };
        for mistake in mistakes {
            let message = format!("{}; {}", mistake.message, mistake.help);
            self.add(level, mistake.path, message);
        }
    }
}

/// The mistakes of a configuration for a program: one object each, as on the terminal.
pub(super) fn mistakes(error: &ConfigError) -> serde_json::Value {
    let mistakes = error.mistakes.iter().map(|mistake| {
        serde_json::json!({
            "line": mistake.position.map(|(line, _)| line),
            "column": mistake.position.map(|(_, column)| column),
            "key": mistake.path,
            "message": mistake.message,
            "help": mistake.help,
        })
    });
    let mistakes: Vec<_> = mistakes.collect();
    serde_json::json!({"ok": false, "file": error.file, "mistakes": mistakes})
}

impl Report {
    fn add(&mut self, level: Level, subject: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding {
            level,
            subject: subject.into(),
            message: message.into(),
        });
    }

    fn bank(&mut self, bank: &Bank) {
        let before = self.findings.len();
        if let Transport::Tls(tls) = &bank.transport {
            self.trust(&bank.name, tls);
            self.identity(&bank.name, tls);
            if tls.min_version == TlsVersion::Tls12 {
                let message = "TLS 1.2 is allowed; leave it out once the bank speaks 1.3";
                self.add(Level::Ok, format!("{}: tls", bank.name), message);
            }
        }
        for header in &bank.headers.set_files {
            self.secret(
                &bank.name,
                "headers.set_files",
                &header.file,
                secretfile::header_value(&header.file).err(),
            );
        }
        for listen in &bank.listen {
            match listen {
                Listen::Tcp {
                    addr,
                    access: TcpAccess::OpenToEveryLocalUser,
                } => {
                    let message = "open to every local user: any program on this machine can use the shop's bank identity";
                    self.add(Level::Warning, format!("{}: {addr}", bank.name), message);
                }
                Listen::Tcp { addr, access } => {
                    if !addr.ip().is_loopback() {
                        let message = "not loopback (unsafe_listen): tokens and requests cross the network in the clear";
                        self.add(Level::Warning, format!("{}: {addr}", bank.name), message);
                    }
                    if access.callers().is_none() {
                        let message = "token_files without callers: whoever reads a token can call; add `callers`, and both must hold";
                        self.add(Level::Warning, format!("{}: {addr}", bank.name), message);
                    }
                    for file in access.token_files() {
                        self.secret(
                            &bank.name,
                            "token_files",
                            file,
                            secretfile::token(file).err(),
                        );
                    }
                }
                Listen::Unix { .. } => {}
            }
        }
        // Whatever else the loader of `run` would refuse: a check that passes what `run` refuses would be worthless.
        let clean = self
            .findings
            .iter()
            .skip(before)
            .all(|finding| matches!(finding.level, Level::Ok | Level::Warning));
        if clean
            && let Err(error) = Files::read(bank).and_then(|files| files.with_keys(&Keys::Files))
        {
            self.add(Level::Problem, bank.name.clone(), chain(&error));
        }
    }

    fn callback(&mut self, callback: &Callback) -> Option<ingress::Material> {
        let name = format!("callback {}", callback.name);
        for file in &callback.deliver.secret_files {
            let error = secretfile::header_value(file).err();
            self.secret(&name, "deliver.secret_files", file, error);
        }
        for advice in callback.advice() {
            self.add(Level::Warning, &name, advice);
        }
        if let Some(end) = callback.keys_end() {
            self.last_key(&name, end);
        }
        match ingress::Material::load(callback) {
            Ok(material) => {
                self.add(Level::Ok, name, "the bank's keys fit their algorithms");
                Some(material)
            }
            Err(error) => {
                self.add(Level::Problem, name, chain(&error));
                None
            }
        }
    }

    /// The log itself is looked at by `priorgate audit verify`.
    fn audit(&mut self, audit: &Audit) {
        let Some(key) = &audit.key else {
            let message = "no key_file or key_credential: whoever can write the log can make it anew; `priorgate keygen audit` makes a key";
            self.add(Level::Warning, "audit", message);
            return;
        };
        let subject = match &key.source {
            KeySource::Credential(_) => "audit.key_credential",
            KeySource::File(file) => {
                self.key_mode("audit.key_file", file);
                "audit.key_file"
            }
        };
        let (named, file) = ("audit.public_key_file", key.public_file.display());
        let public = fs::read(&key.public_file).map_err(|error| error.to_string());
        let public = public
            .and_then(|bytes| CheckpointKey::parse(&bytes).map_err(|error| error.to_string()));
        match &public {
            Ok(_) => self.add(Level::Ok, named, format!("{file} is an Ed25519 key")),
            Err(error) => self.add(Level::Problem, named, format!("{file}: {error}")),
        }
        match pair(&key.source, public.as_ref().ok()) {
            Ok(true) => self.add(Level::Ok, subject, "it belongs to audit.public_key_file"),
            Ok(false) => {
                let message = format!(
                    "it does not belong to {file}: the gate would write no signature; put both of one pair in place"
                );
                self.add(Level::Problem, subject, message);
            }
            Err(IdentityError::NoCredential { .. }) => {
                let message = "only the keyholder's unit has the credential; the gate tries the pair with each signature";
                self.add(Level::NotChecked, subject, message);
            }
            Err(IdentityError::Pem(error)) if error.is_permission_denied() => {
                self.add(Level::NotChecked, subject, "this user may not read it");
            }
            Err(error) => self.add(Level::Problem, subject, chain(&error)),
        }
    }

    fn trust(&mut self, bank: &str, tls: &Tls) {
        let subject = format!("{bank}: trust.ca_file");
        match Trust::load(&tls.ca_file) {
            Ok(trust) => {
                for facts in &trust.certificates {
                    self.expiry(&subject, "the CA", facts);
                }
            }
            Err(TrustError::Pem(error)) if error.is_permission_denied() => {
                self.add(Level::NotChecked, subject, "this user may not read it");
            }
            Err(error) => self.add(Level::Problem, subject, chain(&error)),
        }
    }

    fn identity(&mut self, bank: &str, tls: &Tls) {
        let cert = format!("{bank}: identity.cert_file");
        let key_file = identity::key_path(&tls.key);
        let key = match &tls.key {
            KeySource::Credential(_) => format!("{bank}: identity.key_credential"),
            KeySource::File(_) => format!("{bank}: identity.key_file"),
        };
        let certificates = pem::certificates(&tls.cert_file).map_err(IdentityError::from);
        let facts = certificates.and_then(|chain| {
            let issuers = chain.iter().skip(1).map(identity::describe);
            let issuers: Vec<_> = issuers.collect();
            Ok((identity::leaf(&tls.cert_file, &chain)?, issuers))
        });
        // Whoever can read the key is worth knowing even when the certificate is not there.
        // A credential's mode is the service manager's care.
        if let KeySource::File(file) = &tls.key {
            self.key_mode(&key, file);
        }
        match facts {
            Ok((leaf, issuers)) => {
                self.expiry(&cert, "the client certificate", &leaf);
                for issuer in issuers {
                    match issuer {
                        Ok(facts) => self.expiry(&cert, "an intermediate certificate", &facts),
                        Err(error) => self.add(Level::Problem, &cert, chain(&error)),
                    }
                }
            }
            Err(IdentityError::Pem(error)) if error.is_permission_denied() => {
                self.add(Level::NotChecked, cert, "this user may not read it");
                return;
            }
            Err(error) => {
                self.add(Level::Problem, cert, chain(&error));
                return;
            }
        }
        match key_file.and_then(|key_file| Identity::load(&tls.cert_file, &key_file)) {
            Err(IdentityError::NoCredential { .. }) => {
                let message =
                    "only the keyholder's unit has the credential; its start checks the pair";
                self.add(Level::NotChecked, key, message);
            }
            Ok(_) => self.add(Level::Ok, key, "the private key belongs to the certificate"),
            Err(IdentityError::Pem(error)) if error.is_permission_denied() => {
                self.add(Level::NotChecked, key, "this user may not read it");
            }
            Err(error) => self.add(Level::Problem, key, chain(&error)),
        }
    }

    fn secret(&mut self, bank: &str, key: &str, file: &Path, error: Option<SecretFileError>) {
        let subject = format!("{bank}: {key}");
        self.mode(&subject, file);
        match error {
            None => self.add(
                Level::Ok,
                subject,
                format!("{}: well-formed", file.display()),
            ),
            Some(error) if error.is_permission_denied() => {
                self.add(Level::NotChecked, subject, "this user may not read it");
            }
            Some(error) => self.add(Level::Problem, subject, chain(&error)),
        }
    }

    /// As for every secret; a key needs no group besides, unlike a token, which PHP's reads.
    fn key_mode(&mut self, subject: &str, file: &Path) {
        self.mode(subject, file);
        let mode = fs::metadata(file).map_or(0, |metadata| metadata.mode() & 0o777);
        if mode & 0o066 == 0o040 {
            let message = format!(
                "{}: its group can read it (mode {mode:04o}); chmod g-r it, unless the group is the gate's alone",
                file.display()
            );
            self.add(Level::Warning, subject, message);
        }
    }

    /// A caller that is an operator, too: whoever takes over PHP could reload the gate.
    fn two_hats(&mut self, bank: &Bank, admin: Option<&AdminUnix>) {
        let callers = bank.listen.iter().flat_map(|listen| match listen {
            Listen::Unix { callers, .. } => callers.as_slice(),
            Listen::Tcp { access, .. } => access.callers().unwrap_or_default(),
        });
        let operators = admin.map_or(&[][..], |admin| &admin.operators);
        let both: BTreeSet<u32> = callers
            .filter(|uid| operators.contains(uid))
            .copied()
            .collect();
        for uid in both {
            let message = format!("uid {uid} is a caller and an operator; use two users");
            self.add(Level::Warning, format!("{}: callers", bank.name), message);
        }
    }

    /// Others must not read a secret, nor anybody but its owner write it. A group may read: PHP's, for a token.
    fn mode(&mut self, subject: &str, file: &Path) {
        // A file that cannot be looked at is reported by whoever reads it.
        let Ok(metadata) = fs::metadata(file) else {
            return;
        };
        let mode = metadata.mode() & 0o777;
        if mode & 0o004 != 0 {
            let message = format!(
                "{}: every local user can read it (mode {mode:04o}); chmod o-rwx it",
                file.display()
            );
            self.add(Level::Problem, subject, message);
        } else if mode & 0o022 != 0 {
            let message = format!(
                "{}: others than its owner can write it (mode {mode:04o}); chmod go-w it",
                file.display()
            );
            self.add(Level::Problem, subject, message);
        }
    }

    fn expiry(&mut self, subject: &str, what: &str, facts: &Leaf) {
        let until = Timestamp::from(facts.not_after);
        let margin = Duration::from_secs(u64::from(self.days).saturating_mul(86_400));
        let (level, message) = if facts.not_after < self.now {
            (
                Level::Problem,
                format!("{what} ({}) expired at {until}", facts.subject),
            )
        } else if facts.not_before > self.now {
            let from = Timestamp::from(facts.not_before);
            (
                Level::Problem,
                format!("{what} ({}) is not valid before {from}", facts.subject),
            )
        } else if self
            .now
            .checked_add(margin)
            .is_none_or(|then| facts.not_after < then)
        {
            let message = format!(
                "{what} ({}) ends within {} days, at {until}",
                facts.subject, self.days
            );
            (Level::Problem, message)
        } else {
            (
                Level::Ok,
                format!("{what} ({}) is valid until {until}", facts.subject),
            )
        };
        self.add(level, subject, message);
    }

    /// A key that another one follows may end: that is what a rotation looks like.
    fn last_key(&mut self, subject: &str, end: UnixMillis) {
        let end = u64::try_from(end.0).unwrap_or(0);
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(end));
        let end = end.unwrap_or(self.now);
        let until = Timestamp::from(end);
        let margin = Duration::from_secs(u64::from(self.days).saturating_mul(86_400));
        let soon = self.now.checked_add(margin).is_none_or(|then| end < then);
        let (level, message) = if end < self.now {
            (
                Level::Problem,
                format!("the last of signature.keys ended at {until}"),
            )
        } else if soon {
            (
                Level::Problem,
                format!(
                    "the last of signature.keys ends within {} days, at {until}",
                    self.days
                ),
            )
        } else {
            (
                Level::Ok,
                format!("the last of signature.keys is good until {until}"),
            )
        };
        self.add(level, subject, message);
    }

    fn print(
        &self,
        problems: usize,
        json: bool,
        style: Style,
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        if json {
            let document = serde_json::json!({"ok": problems == 0, "findings": self.findings});
            return writeln!(out, "{document}");
        }
        for finding in &self.findings {
            // Padded before it is coloured: escape codes have no width.
            let level = match finding.level {
                Level::Ok => style.good("ok         "),
                Level::Warning => style.warn("warning    "),
                Level::Problem => style.bad("problem    "),
                Level::NotChecked => style.warn("not checked"),
            };
            writeln!(out, "{level}  {}: {}", finding.subject, finding.message)?;
        }
        match problems {
            0 => writeln!(out, "no problem found"),
            1 => writeln!(out, "1 problem found"),
            n => writeln!(out, "{n} problems found"),
        }
    }
}

/// Whether a private audit key signs what the public one verifies.
fn pair(source: &KeySource, public: Option<&CheckpointKey>) -> Result<bool, IdentityError> {
    let path = identity::key_path(source)?;
    let signer = identity::private_key(&path)?.choose_scheme(&[SignatureScheme::ED25519]);
    let signer = signer.ok_or(IdentityError::Key { path })?;
    let tried = Vouched {
        tip: Tip::GENESIS,
        at: 0,
        signatures: 0,
        before: Tip::GENESIS,
    };
    let signature = signer.sign(&checkpoint_message(&tried)).unwrap_or_default();
    // A public key that cannot be read was told already.
    Ok(public.is_none_or(|public| public.fits(&tried, &signature)))
}

#[cfg(test)]
mod tests;
