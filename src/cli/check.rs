//! `priorgate check`: `run` without binding. The same loader, the same files, and what an operator should know besides.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::style::Style;
use super::{CONFIG, OK, PROBLEM};
use crate::admin::status::Timestamp;
use crate::config::{Bank, Config, Listen, TcpAccess, Tls, TlsVersion, Transport};
use crate::gate::material::Material;
use crate::net::exchange::chain;
use crate::tls::identity::{self, Identity, IdentityError, Leaf};
use crate::tls::pem;
use crate::tls::secretfile::{self, SecretFileError};
use crate::tls::trust::{Trust, TrustError};

/// How a thing that was looked at is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Problem,
    /// This user may not read it; the gate's may.
    NotChecked,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: String,
    message: String,
}

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
                let mistakes: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
                writeln!(
                    out,
                    "{}",
                    serde_json::json!({"ok": false, "configuration": mistakes})
                )
            } else {
                writeln!(out, "{error}")
            };
            return CONFIG;
        }
    };
    let mut report = Report {
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
    }
    let problems = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Problem)
        .count();
    let _ = report.print(problems, json, style, out);
    if problems == 0 { OK } else { PROBLEM }
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
                    access: TcpAccess::TokenFiles(files),
                    ..
                } => {
                    for file in files {
                        self.secret(
                            &bank.name,
                            "token_files",
                            file,
                            secretfile::token(file).err(),
                        );
                    }
                }
                Listen::Tcp {
                    addr,
                    access: TcpAccess::OpenToEveryLocalUser,
                } => {
                    let message = "open to every local user: any program on this machine can use the shop's bank identity";
                    self.add(Level::Warning, format!("{}: {addr}", bank.name), message);
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
        if clean && let Err(error) = Material::load(bank) {
            self.add(Level::Problem, bank.name.clone(), chain(&error));
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
        let key = format!("{bank}: identity.key_file");
        let leaf = pem::certificates(&tls.cert_file)
            .map_err(IdentityError::from)
            .and_then(|chain| identity::leaf(&tls.cert_file, &chain));
        match &leaf {
            Ok(facts) => self.expiry(&cert, "the client certificate", facts),
            Err(IdentityError::Pem(error)) if error.is_permission_denied() => {
                self.add(Level::NotChecked, cert, "this user may not read it");
                return;
            }
            Err(error) => {
                self.add(Level::Problem, cert, chain(error));
                return;
            }
        }
        self.mode(&key, &tls.key_file);
        match Identity::load(&tls.cert_file, &tls.key_file) {
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
