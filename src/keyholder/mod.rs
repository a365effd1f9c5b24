//! The process that has the keys and no network: a monitor that holds the socket, and a signer that holds the keys.
//!
//! The monitor keeps fd 0, whose other end is the gate's, and never reads a key. A signer inherits it, loads the keys,
//! confines itself and opens nothing after that. Between the two is a pair of sockets, fd 1 of the signer, on which a
//! few words are spoken (`Word`). Both are this program: `priorgate keyholder`, and the same with a hidden `--role`.

mod complaints;
mod line;
mod load;
mod monitor;
mod signer;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send};

use crate::config::{Config, ConfigError, Hardening, KeySource};
use crate::harden::{self, HardenError};
use load::LoadError;

/// The longest word; a reason is cut to it.
const WORD_MAX: usize = 1200;

/// Which of the two this process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Holds the socket and the other process.
    Monitor,
    /// Holds the keys.
    Signer,
}

/// The key that signs checkpoints of the audit log, and where the last one is remembered.
#[derive(Clone, Debug)]
pub struct AuditKey {
    /// PEM, Ed25519.
    pub key: KeySource,
    /// Written with each checkpoint. Made if it is missing.
    pub state_file: PathBuf,
}

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum KeyholderError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration, as the signer told it.
    #[error("{0}")]
    ConfigOfSigner(String),
    /// A key.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel does not take away what `hardening: required` wants gone.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// Not started by whoever passes a socket.
    #[error(
        "stdin is no SOCK_SEQPACKET socket: `priorgate run` starts the keyholder itself, and systemd passes one with StandardInput=socket"
    )]
    NoSocket,
    /// The monitor has tried often enough.
    #[error("the keyholder gives up: {0}")]
    GaveUp(String),
    /// The gate that started us was told why, and tells it in its own log.
    #[error("{0}")]
    Told(#[source] Box<Self>),
    /// The system.
    #[error("the system refused what the keyholder needs")]
    System(#[from] io::Error),
}

impl KeyholderError {
    /// Whether the configuration is at fault, so that another start would not help.
    #[must_use]
    pub fn is_config(&self) -> bool {
        match self {
            Self::Config(_) | Self::ConfigOfSigner(_) => true,
            Self::Told(error) => error.is_config(),
            Self::GaveUp(_)
            | Self::Harden(_)
            | Self::Load(_)
            | Self::NoSocket
            | Self::System(_) => false,
        }
    }
}

impl From<Errno> for KeyholderError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// Runs one of the two until there is nobody left to sign for.
///
/// # Errors
/// [`KeyholderError`].
pub fn run(config: &Path, role: Role) -> Result<(), KeyholderError> {
    // At any level, and before a key is read: what exec has made readable again no other process of this user reads.
    harden::not_dumpable();
    match role {
        Role::Monitor => monitor::run(config),
        Role::Signer => signer::run(config),
    }
}

/// The audit key of a configuration. What is remembered of checkpoints lies in the unit's own directory, or, without one,
/// beside the key: nowhere that the gate may write. It has the name of the log, not of its path nor of the key: a log that
/// moves to another disk, or gets another key, is the same, and a log with a new name is a new one.
fn audit_key(config: &Config) -> Option<AuditKey> {
    let audit = config.audit.as_ref()?;
    let key = &audit.key.as_ref()?.source;
    let mut name = audit.file.file_name()?.to_owned();
    name.push(".checkpoint");
    let state_file = match (std::env::var_os("STATE_DIRECTORY"), key) {
        (Some(directory), _) => Path::new(&directory).join(name),
        (None, KeySource::File(file)) => file.with_file_name(name),
        (None, KeySource::Credential(_)) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_default();
            Path::new(&directory).join(name)
        }
    };
    Some(AuditKey {
        key: key.clone(),
        state_file,
    })
}

/// What comes to stdin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// One end of a pair; the gate that started us has the other.
    Connected,
    /// A listening socket of the service manager.
    Listening,
}

impl Form {
    fn of_stdin() -> Result<Self, KeyholderError> {
        let stdin = io::stdin();
        let packets = socket_domain(&stdin) == Ok(AddressFamily::UNIX)
            && socket_type(&stdin) == Ok(SocketType::SEQPACKET);
        match socket_acceptconn(&stdin) {
            Ok(true) if packets => Ok(Self::Listening),
            Ok(false) if packets => Ok(Self::Connected),
            Ok(_) | Err(_) => Err(KeyholderError::NoSocket),
        }
    }
}

/// What monitor and signer say to each other.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Word {
    /// Signer: why it ends before it was ready.
    Failed(String),
    /// Monitor: you are the one after another; as [`Word::Go`], but what that one signed may have used the rate up.
    Follow,
    /// Monitor: you are the first; read the checkpoint state and serve.
    Go,
    /// Monitor: the candidate failed, so you stay.
    Kept(String),
    /// Signer: keys are loaded and tried.
    Ready,
    /// Signer: the gate asks for new keys.
    Reload,
    /// Monitor: the candidate is ready. What follows is the end of the connection, and of you.
    Reloaded,
}

impl Word {
    fn say(&self, to: impl AsFd) -> Result<(), Errno> {
        let (word, reason) = match self {
            Self::Failed(reason) => ("failed", reason.as_str()),
            Self::Follow => ("follow", ""),
            Self::Go => ("go", ""),
            Self::Kept(reason) => ("kept", reason.as_str()),
            Self::Ready => ("ready", ""),
            Self::Reload => ("reload", ""),
            Self::Reloaded => ("reloaded", ""),
        };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let reason: String = reason.chars().take(WORD_MAX / 4 - 8).collect();
        send(to, format!("{word} {reason}").as_bytes(), flags).map(|_| ())
    }

    /// The next word; `Ok(None)` at the end of the connection.
    fn hear(from: impl AsFd) -> Result<Option<Self>, Errno> {
        let mut buffer = [0; WORD_MAX];
        let (_, size) = recv(from, &mut buffer, RecvFlags::DONTWAIT)?;
        let heard = String::from_utf8_lossy(buffer.get(..size).unwrap_or_default());
        let Some((word, reason)) = heard.split_once(' ') else {
            return Ok(None);
        };
        let reason = reason.to_owned();
        Ok(Some(match word {
            "failed" => Self::Failed(reason),
            "follow" => Self::Follow,
            "go" => Self::Go,
            "kept" => Self::Kept(reason),
            "ready" => Self::Ready,
            "reload" => Self::Reload,
            "reloaded" => Self::Reloaded,
            _ => return Err(Errno::PROTO),
        }))
    }
}

/// What a role wanted and did not get.
#[derive(Debug, Default)]
struct Missing {
    /// Why memory is not locked: that wants `LimitMEMLOCK=`, and is never a reason not to start.
    lock: Option<String>,
    /// What is not in force, under `best-effort`.
    confinement: Vec<String>,
}

impl Missing {
    /// All of it, for a line; nothing where nothing is missing.
    fn note(self) -> Option<String> {
        let all: Vec<String> = self.lock.into_iter().chain(self.confinement).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The one place at which a role gives up what it does not need, for good (`harden`). Gives what is not in force though it
/// was wanted.
fn confine(role: Role, level: Hardening) -> Result<Missing, KeyholderError> {
    let mut lock = None;
    if role == Role::Signer {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = mlockall(flags) {
            lock = Some(format!(
                "memory is not locked ({error}): keys could be swapped out; see LimitMEMLOCK="
            ));
        }
    }
    let confined = match role {
        Role::Monitor => harden::confine_monitor(level)?,
        Role::Signer => harden::confine_signer(level)?,
    };
    Ok(Missing {
        lock,
        confinement: confined.failures(),
    })
}

#[cfg(test)]
mod tests;
