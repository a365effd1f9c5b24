//! The gate's side of the keyholder's life: reach it, or start it.
//!
//! The service manager says where it is by `PRIORGATE_KEYHOLDER_SOCKET`: that belongs to how the process is started,
//! not to the banks, so one configuration file serves both forms and both processes. Without it the gate starts the
//! keyholder itself, over a socket that no path leads to.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::material::Keys;
use crate::audit::{CheckpointSigner, SignedCheckpoint, Unsigned};
use crate::config::{Config, Transport};
use crate::net::exchange::chain;
use crate::policy::chain::CheckpointKey;
use crate::policy::keyproto::Refused;
use crate::tls::keyholder::{AskError, Keyholder};
use crate::tls::pem;

/// Where the service manager's socket is.
pub const SOCKET: &str = "PRIORGATE_KEYHOLDER_SOCKET";
/// How long the keys may take at the start: another start of the keyholder may be under way, or a slow disk.
const START: Duration = Duration::from_secs(15);
/// How long the signature over a checkpoint may take: nobody waits for it but the audit log's thread.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// How long a reload of the keys may take: a signer starts, and the one before it finishes.
const RELOAD: Duration = Duration::from_secs(15);

/// Why there is no keyholder.
#[derive(Debug, thiserror::Error)]
pub enum KeyholderError {
    /// It does not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It cannot be started.
    #[error("the keyholder cannot be started")]
    Start(#[from] io::Error),
}

/// Reaches the keyholder or starts it. `None` when no bank asks for a certificate and no key signs the audit log.
///
/// # Errors
/// [`KeyholderError::Start`].
pub fn start(config: &Config) -> Result<Option<Arc<Keyholder>>, KeyholderError> {
    let needed = config
        .banks
        .iter()
        .any(|bank| matches!(bank.transport, Transport::Tls(_)));
    let audited = config
        .audit
        .as_ref()
        .is_some_and(|audit| audit.key.is_some());
    if !needed && !audited {
        return Ok(None);
    }
    let keyholder = match std::env::var_os(SOCKET) {
        Some(path) => Keyholder::at(Path::new(&path)),
        None => spawn(&config.path)?,
    };
    Ok(Some(Arc::new(keyholder)))
}

fn spawn(config: &Path) -> io::Result<Keyholder> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // This very program, even if an upgrade has replaced its file meanwhile.
    Command::new("/proc/self/exe")
        .arg0("priorgate")
        .arg("keyholder")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        // A Ctrl-C is for the gate, which drains and then ends it.
        .process_group(0)
        // What the service manager says to the gate, and hears from it, is the gate's alone.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("WATCHDOG_USEC")
        // The gate may write there: what the signer remembers of checkpoints must lie elsewhere.
        .env_remove("STATE_DIRECTORY")
        .spawn()?;
    Keyholder::inherited(ours)
}

/// Has the keyholder sign the audit log's checkpoints, if a key is configured for that.
pub(super) fn checkpoint_signer(
    config: &Config,
    keyholder: Option<&Arc<Keyholder>>,
) -> io::Result<Option<CheckpointSigner>> {
    let key = config.audit.as_ref().and_then(|audit| audit.key.as_ref());
    let (Some(key), Some(keyholder)) = (key, keyholder.cloned()) else {
        return Ok(None);
    };
    let path = key.public_file.clone();
    let public = public_key(&path)?;
    Ok(Some(Box::new(move |tip| {
        let now = Instant::now();
        let until = now.checked_add(CHECKPOINT).unwrap_or(now);
        let (vouched, signature) =
            keyholder
                .checkpoint(tip, until)
                .map_err(|error| match error {
                    AskError::Refused(Refused::NotLater) => Unsigned::Behind(chain(&error)),
                    error => Unsigned::Other(chain(&error)),
                })?;
        // What nobody can verify is no evidence: better to know it now than when it is needed.
        if !public.fits(&vouched, &signature) {
            return Err(Unsigned::Other(format!(
                "the keyholder's signature does not fit audit.public_key_file {}: the two are of different pairs, or one was \
                 replaced without the other; put both in place and restart the keyholder and the gate",
                path.display()
            )));
        }
        Ok(SignedCheckpoint {
            vouched,
            signature,
            key_id: public.id().to_owned(),
        })
    })))
}

fn public_key(path: &Path) -> io::Result<CheckpointKey> {
    let named = |what: String| {
        let place = path.display();
        io::Error::other(format!("audit.public_key_file: {place}: {what}"))
    };
    let bytes = pem::read_public(path).map_err(|error| named(error.to_string()))?;
    CheckpointKey::parse(&bytes).map_err(|error| named(error.to_string()))
}

/// The keys as they are at the start.
///
/// # Errors
/// [`AskError`].
pub fn keys(keyholder: Option<&Arc<Keyholder>>) -> Result<Keys, AskError> {
    ask(keyholder, |_, _| Ok(()), START)
}

/// Has the keys loaded again. Blocks.
///
/// # Errors
/// [`AskError::Kept`] when the old ones stay.
pub fn reload(keyholder: Option<&Arc<Keyholder>>) -> Result<Keys, AskError> {
    ask(keyholder, Keyholder::reload, RELOAD)
}

fn ask(
    keyholder: Option<&Arc<Keyholder>>,
    first: impl Fn(&Keyholder, Instant) -> Result<(), AskError>,
    patience: Duration,
) -> Result<Keys, AskError> {
    let Some(keyholder) = keyholder else {
        return Ok(Keys::Nowhere);
    };
    let now = Instant::now();
    let until = now.checked_add(patience).unwrap_or(now);
    first(keyholder, until)?;
    Ok(Keys::Keyholder {
        held: keyholder.keys(until)?,
        keyholder: Arc::clone(keyholder),
    })
}
