//! The other end of the admin socket: asks a running gate, with a deadline, from a plain thread.
//!
//! It owns where the socket is, and error texts that say what to do. It does not know what the
//! answers mean.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Deserialize;
use serde_json::Value;

/// Where a configuration has its audit log.
#[derive(Clone, Debug)]
pub struct AuditFiles {
    /// The file that is written.
    pub file: PathBuf,
    /// The public key of its checkpoints.
    pub public_key_file: Option<PathBuf>,
}

/// How long an answer may take that needs no work.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer. The longest is a bank's answer of `operations::SHOWN_MAX` bytes, each escaped.
const MAX_ANSWER: usize = 8 << 20;
/// Bytes of a configuration file, as for the gate itself.
const MAX_CONFIG: u64 = 1 << 20;
/// How often a connect to a full queue is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no gate listens on {}: start it (`systemctl start priorgate` or `priorgate run`), or \
         check that --config is the file it runs with",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket's mode and group do not let us in.
    #[error(
        "uid {uid} may not connect to {}: run this as a user in the socket's group, or with sudo \
         (see admin.mode and admin.group)",
        path.display()
    )]
    Permission {
        /// The socket.
        path: PathBuf,
        /// Who we are.
        uid: u32,
    },
    /// Connected or not, no whole answer in time.
    #[error(
        "the gate did not answer on {} within {} s: it may be stuck or have no free admin \
         connection; look at its log (`journalctl -u priorgate`)",
        path.display(),
        within.as_secs()
    )]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The deadline that passed.
        within: Duration,
    },
    /// It closed, or said something else.
    #[error(
        "what answered on {} is no gate that this command understands: it may be ending, or of \
         another version",
        path.display()
    )]
    NotAnAnswer {
        /// The socket.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot talk to the gate on {}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The gate answered that it did not do it.
    #[error("{message}")]
    Refused {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        message: String,
    },
}

/// Why the admin socket's path is not known.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The file.
    #[error(
        "cannot read {}: name another file with --config or the socket with --socket",
        path.display()
    )]
    Unreadable {
        /// The configuration file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no YAML, or `admin` has another form.
    #[error(
        "cannot find admin.unix in {}: run `priorgate check`, or name the socket with --socket",
        path.display()
    )]
    Malformed {
        /// The configuration file.
        path: PathBuf,
        /// Where. The parser's text names no value of a secret: `admin` has none.
        #[source]
        source: serde_yaml::Error,
    },
    /// No admin socket is configured.
    #[error(
        "{} has no admin.unix: a gate can be asked only through its admin socket",
        path.display()
    )]
    None {
        /// The configuration file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Envelope {
    ok: bool,
    result: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

/// The little of the configuration that this needs.
#[derive(Deserialize)]
struct AdminOnly {
    admin: Option<UnixOnly>,
}

#[derive(Deserialize)]
struct UnixOnly {
    unix: Option<PathBuf>,
}

/// The same of the journal.
#[derive(Deserialize)]
struct JournalOnly {
    journal: Option<SqliteOnly>,
}

#[derive(Deserialize)]
struct SqliteOnly {
    sqlite: Option<PathBuf>,
}

/// The same of the audit log.
#[derive(Deserialize)]
struct AuditOnly {
    audit: Option<AuditPaths>,
}

#[derive(Deserialize)]
struct AuditPaths {
    file: PathBuf,
    public_key_file: Option<PathBuf>,
}

impl ClientError {
    /// The stable name of the cause: the gate's own, or ours.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotRunning { .. } => "not_running",
            Self::Permission { .. } => "permission",
            Self::Timeout { .. } => "timeout",
            Self::NotAnAnswer { .. } => "not_an_answer",
            Self::System { .. } => "system",
            Self::Refused { code, .. } => code,
        }
    }
}

/// Asks for what takes no time. See [`ask_within`].
///
/// # Errors
/// [`ClientError`].
pub fn ask(socket: &Path, command: &Value) -> Result<Value, ClientError> {
    ask_within(socket, command, DEADLINE)
}

/// Sends one command and gives its result.
///
/// # Errors
/// [`ClientError`]; all of it, connecting included, ends within the deadline.
pub fn ask_within(socket: &Path, command: &Value, within: Duration) -> Result<Value, ClientError> {
    let until = Instant::now() + within;
    let line = exchange(socket, command, until).map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path, source }
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission {
                path,
                uid: rustix::process::geteuid().as_raw(),
            },
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                ClientError::Timeout { path, within }
            }
            // Closed in the middle: it is ending.
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData => ClientError::NotAnAnswer { path },
            _ => ClientError::System { path, source },
        }
    })?;
    match serde_json::from_slice(&line) {
        Ok(Envelope {
            ok: true,
            result: Some(result),
            ..
        }) => Ok(result),
        Ok(Envelope {
            ok: false,
            error: Some(Refusal { code, message }),
            ..
        }) => Err(ClientError::Refused { code, message }),
        _ => Err(ClientError::NotAnAnswer {
            path: socket.to_owned(),
        }),
    }
}

/// The admin socket of a configuration.
///
/// It reads `admin.unix` and nothing else: a gate can be asked, and told to reload and report what
/// is wrong, while the file has a mistake elsewhere.
///
/// # Errors
/// [`SocketError`].
pub fn socket_of(config: &Path) -> Result<PathBuf, SocketError> {
    let text = text_of(config).map_err(|source| SocketError::Unreadable {
        path: config.to_owned(),
        source,
    })?;
    let AdminOnly { admin } =
        serde_yaml::from_str(&text).map_err(|source| SocketError::Malformed {
            path: config.to_owned(),
            source,
        })?;
    let socket = admin
        .and_then(|admin| admin.unix)
        .ok_or_else(|| SocketError::None {
            path: config.to_owned(),
        })?;
    // A relative path is relative to the file's directory; an absolute one stays.
    Ok(config.with_file_name(socket))
}

/// The journal's file of a configuration, read as [`socket_of`] reads: for looking at operations while
/// no gate runs. None if the file does not say.
#[must_use]
pub fn journal_of(config: &Path) -> Option<PathBuf> {
    let JournalOnly { journal } = serde_yaml::from_str(&text_of(config).ok()?).ok()?;
    Some(config.with_file_name(journal?.sqlite?))
}

/// The audit log's files of a configuration, read as [`socket_of`] reads.
#[must_use]
pub fn audit_of(config: &Path) -> Option<AuditFiles> {
    let AuditOnly { audit } = serde_yaml::from_str(&text_of(config).ok()?).ok()?;
    let audit = audit?;
    Some(AuditFiles {
        file: config.with_file_name(audit.file),
        public_key_file: audit.public_key_file.map(|key| config.with_file_name(key)),
    })
}

fn text_of(config: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(config)?
        .take(MAX_CONFIG)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// One line there, one line back.
fn exchange(socket: &Path, command: &Value, until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = open(socket, until)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while line.last() != Some(&b'\n') {
        if line.len() > MAX_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => line.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// Connects within the deadline. A blocking connect to a full queue would wait for ever (unix(7)).
fn open(socket: &Path, until: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&fd, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN) => thread::sleep(left(until)?.min(RETRY)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    // Zero would mean "no time-out" to the system.
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
pub(super) mod tests;
