//! From the YAML to checked types: defaults, resolution of names and paths, and every rule between keys.
//!
//! A mistake inside a value is found while the YAML is read, and reading ends there. Everything else is collected, so
//! that one run tells all of it.

mod audit;
mod bank;
mod bounds;
mod callback;
mod guard;
mod listen;
mod parse;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::Mistake;
use super::names::NoNumber;
use super::scalar::User;
use super::{
    Admin, AdminUnix, Bank, Config, ConfigError, Hardening, Journal, Log, LogFormat, Names,
    Shutdown, Threads, file,
};

/// A configuration larger than this is a mistake, not a configuration.
const FILE_MAX: u64 = 1 << 20;

/// What every check is handed: where relative paths start, what was found so far, which sockets are taken.
struct Checker {
    dir: PathBuf,
    mistakes: Vec<Mistake>,
    socket_files: HashSet<PathBuf>,
    addresses: Vec<SocketAddr>,
    names: Names,
}

/// Reads and checks a file.
///
/// # Errors
/// See [`Config::load`].
pub fn load(path: &Path, names: Names) -> Result<Config, ConfigError> {
    let text = read(path).map_err(|mistake| ConfigError {
        file: path.to_owned(),
        mistakes: vec![mistake],
    })?;
    parse_knowing(path, &text, names)
}

/// Checks a text as if it were the file at `path`.
///
/// # Errors
/// See [`Config::load`].
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    parse_knowing(path, text, Names::default())
}

fn parse_knowing(path: &Path, text: &str, names: Names) -> Result<Config, ConfigError> {
    // Windows' editors write one, and the reader takes it for a document of its own.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let raw: file::File = serde_yaml::from_str(text).map_err(|error| ConfigError {
        file: path.to_owned(),
        mistakes: vec![parse::mistake(&error, text)],
    })?;
    // Resolved once: a later change of the working directory must not move what is relative.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut checker = Checker {
        dir,
        mistakes: Vec::new(),
        socket_files: HashSet::new(),
        addresses: Vec::new(),
        names,
    };
    let config = checker.config(path.clone(), raw);
    if checker.mistakes.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError {
            file: path,
            mistakes: checker.mistakes,
        })
    }
}

fn read(path: &Path) -> Result<String, Mistake> {
    let whole = |message: String, help: &str| Mistake::at("", message, help);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let directory = file.metadata()?.is_dir();
        if directory {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        let help = match error.kind() {
            io::ErrorKind::NotFound => {
                "create it (config.yaml.example is a start), or name another with --config"
            }
            io::ErrorKind::PermissionDenied => "let this user read it, or run as the user that may",
            _ => "name a readable file with --config",
        };
        return Err(whole(format!("cannot be read: {error}"), help));
    }
    if bytes.len() as u64 > FILE_MAX {
        return Err(whole(
            "is larger than 1 MiB".to_owned(),
            "is this the right file?",
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| whole("is not UTF-8".to_owned(), "save it as UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(whole(
            "is empty".to_owned(),
            "config.yaml.example is a start",
        ));
    }
    Ok(text)
}

impl Checker {
    fn mistake(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.mistakes.push(Mistake::at(path, message, help));
    }

    /// A path of the file, relative to the file's directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    fn config(&mut self, path: PathBuf, raw: file::File) -> Config {
        if raw.banks.is_empty() {
            self.mistake(
                "banks",
                "expected at least one bank",
                "add one; config.yaml.example shows how",
            );
        }
        let mut names = HashSet::new();
        let banks: Vec<Bank> = raw
            .banks
            .into_iter()
            .enumerate()
            .map(|(index, bank)| {
                let at = format!("banks[{index}]");
                if !names.insert(bank.name.0.clone()) {
                    let name = &bank.name.0;
                    self.mistake(
                        format!("{at}.name"),
                        format!("`{name}` is another bank's name"),
                        "choose another",
                    );
                }
                self.bank(&at, bank)
            })
            .collect();
        let journal = raw.journal.map(|journal| Journal {
            path: self.resolve(&journal.sqlite.0),
            allow_volatile: journal.allow_volatile,
        });
        self.journal(&banks, journal.as_ref());
        let audit = raw.audit.map(|audit| self.audit(audit, journal.as_ref()));
        let callbacks = self.callbacks(raw.callbacks, journal.is_some());
        let admin = self.admin(raw.admin.unwrap_or_default());
        let log = raw.log.unwrap_or_default();
        let threads = raw.threads.unwrap_or_default();
        Config {
            path,
            banks,
            admin,
            log: Log {
                format: match log.format {
                    Some(file::LogFormat::Pretty) => LogFormat::Pretty,
                    Some(file::LogFormat::Json) | None => LogFormat::Json,
                },
                level: log.level.map_or(tracing::Level::INFO, |level| level.0),
            },
            threads: Threads {
                handshakes: self.count(
                    "threads.handshakes",
                    threads.handshakes,
                    bounds::HANDSHAKES,
                ),
            },
            shutdown: Shutdown {
                drain: raw
                    .shutdown
                    .and_then(|shutdown| shutdown.drain)
                    .map_or(bounds::DRAIN, |span| span.0),
            },
            journal,
            callbacks,
            hardening: match raw.hardening {
                Some(file::Hardening::Required) | None => Hardening::Required,
                Some(file::Hardening::BestEffort) => Hardening::BestEffort,
                Some(file::Hardening::Disabled) => Hardening::Disabled,
            },
            names: std::mem::take(&mut self.names),
            audit,
        }
    }

    fn admin(&mut self, raw: file::Admin) -> Admin {
        let unix = match raw.unix {
            Some(path) => {
                let socket = self.socket("admin.unix", "admin", &path.0, raw.mode, raw.group);
                // Absent means root alone, as on any other control socket.
                let operators = match raw.operators {
                    Some(users) => self.users("admin.operators", &users),
                    None => vec![0],
                };
                Some(AdminUnix { socket, operators })
            }
            None => {
                let orphan = raw.mode.is_some() || raw.group.is_some() || raw.operators.is_some();
                if orphan {
                    self.mistake(
                        "admin",
                        "mode, group and operators belong to `unix`",
                        "add `unix: PATH`",
                    );
                }
                None
            }
        };
        let tcp = raw.tcp.map(|address| {
            self.taken("admin.tcp", address.0);
            if !address.0.ip().is_loopback() {
                self.mistake(
                    "admin.tcp",
                    "health and status are served on loopback only",
                    "use 127.0.0.1 or [::1], and a proxy of your own if it must be seen from elsewhere",
                );
            }
            address.0
        });
        Admin { unix, tcp }
    }

    fn users(&mut self, at: &str, users: &[User]) -> Vec<u32> {
        let resolved = users.iter().enumerate();
        resolved
            .filter_map(|(index, user)| self.user(&format!("{at}[{index}]"), user))
            .collect()
    }

    fn user(&mut self, at: &str, user: &User) -> Option<u32> {
        match user {
            User::Uid(uid) => Some(*uid),
            User::Name(name) => {
                let found = self.names.user(name);
                self.number(at, name, "user", "a uid", found)
            }
        }
    }

    fn group(&mut self, at: &str, group: &User) -> Option<u32> {
        match group {
            User::Uid(gid) => Some(*gid),
            User::Name(name) => {
                let found = self.names.group(name);
                self.number(at, name, "group", "a gid", found)
            }
        }
    }

    fn number(
        &mut self,
        at: &str,
        name: &str,
        what: &str,
        number: &str,
        found: Result<u32, NoNumber>,
    ) -> Option<u32> {
        let (message, help) = match found {
            Ok(found) => return Some(found),
            Err(NoNumber::Unknown) => (
                format!("no {what} is named `{name}`"),
                format!("create it, or write {number}"),
            ),
            Err(NoNumber::Closed) => (
                format!(
                    "restart needed: the {what} `{name}` is new, and a confined process looks nobody up"
                ),
                format!("restart, or write {number}"),
            ),
            Err(NoNumber::Failed(error)) => (
                format!("`{name}` cannot be looked up: {error}"),
                format!("write {number}"),
            ),
        };
        self.mistake(at, message, help);
        None
    }
}
