//! What a signer holds: keys with what each may sign, and the audit key with its state. Everything is opened here.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::{pread, pwrite};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;

use super::AuditKey;
use crate::config::{Config, TlsVersion, Transport};
use crate::policy::chain::Tip;
use crate::policy::keyproto::{KEYS_MAX, KeyId};
use crate::policy::operation::Digest;
use crate::policy::signing::rate::Bucket;
use crate::policy::signing::{Lowest, SCHEMES, self_test_message};
use crate::tls::identity::{self, Identity, IdentityError};

/// Three numbers of twenty digits and a head of 64: one write of one sector.
const STATE_SIZE: usize = 3 * 21 + 65;

/// A key and what it may sign.
#[derive(Debug)]
pub(super) struct Key {
    /// The first bank that it is of.
    pub(super) bank: String,
    /// Which.
    pub(super) id: KeyId,
    /// How it can sign.
    pub(super) schemes: Vec<u16>,
    /// What its banks allow.
    pub(super) lowest: Lowest,
    /// How often it may.
    pub(super) bucket: Bucket,
    key: Arc<dyn SigningKey>,
}

/// The key for checkpoints, and the last one.
#[derive(Debug)]
pub(super) struct Audit {
    key: Arc<dyn SigningKey>,
    state: File,
}

/// The last checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Last {
    /// What was signed.
    pub(super) tip: Tip,
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    /// Signatures of handshakes until then.
    pub(super) signatures: u64,
}

impl Last {
    /// Before the first.
    pub(super) const NONE: Self = Self {
        tip: Tip::GENESIS,
        at: 0,
        signatures: 0,
    };

    /// As it is kept.
    fn text(&self) -> String {
        let Self {
            tip,
            at,
            signatures,
        } = self;
        format!("{:020} {at:020} {signatures:020} {}\n", tip.seq, tip.hash)
    }
}

/// Why a signer does not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The audit key is of another kind.
    #[error("{}: the audit key must be Ed25519: openssl genpkey -algorithm ed25519", path.display())]
    AuditKey {
        /// The file.
        path: PathBuf,
    },
    /// The checkpoint state.
    #[error(
        "{}: the state of audit checkpoints cannot be opened; the keyholder's user must be able to write there (StateDirectory= \
         of its unit)", path.display()
    )]
    AuditState {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key or its certificate.
    #[error("banks: {bank}: {source}")]
    Identity {
        /// The bank's name.
        bank: String,
        /// What is wrong.
        #[source]
        source: Box<IdentityError>,
    },
    /// The audit key's file.
    #[error("audit: {0}")]
    Pem(#[source] Box<IdentityError>),
    /// A key that does not sign.
    #[error("banks: {0}: the key does not sign")]
    Dead(String),
    /// More than an answer can list.
    #[error("there are more than {KEYS_MAX} keys")]
    TooMany,
}

/// Reads every bank's key, sees that it fits its certificate, and tries it once: that warms the random generator and
/// RSA's lazy tables before the confinement.
pub(super) fn keys(config: &Config) -> Result<Vec<Key>, LoadError> {
    let mut keys: Vec<Key> = Vec::new();
    for bank in &config.banks {
        let Transport::Tls(tls) = &bank.transport else {
            continue;
        };
        let identity = identity::key_path(&tls.key)
            .and_then(|key_file| Identity::load(&tls.cert_file, &key_file))
            .map_err(|source| LoadError::Identity {
                bank: bank.name.clone(),
                source: Box::new(source),
            })?;
        let lowest = match tls.min_version {
            TlsVersion::Tls12 => Lowest::Tls12,
            TlsVersion::Tls13 => Lowest::Tls13,
        };
        let id = KeyId(identity.leaf.spki_sha256);
        if let Some(other) = keys.iter_mut().find(|other| other.id == id) {
            // One key for two banks: it may do what either allows, at the first one's rate.
            if lowest == Lowest::Tls12 {
                other.lowest = lowest;
            }
            continue;
        }
        let can = |scheme: &u16| {
            let scheme = SignatureScheme::from(*scheme);
            identity.key.choose_scheme(&[scheme]).is_some()
        };
        let key = Key {
            bank: bank.name.clone(),
            id,
            schemes: SCHEMES.iter().copied().filter(can).collect(),
            lowest,
            bucket: Bucket::new(tls.sign_rate),
            key: identity.key,
        };
        let scheme = key.schemes.first().copied().unwrap_or_default();
        if key.sign(scheme, &self_test_message()).is_none() {
            return Err(LoadError::Dead(key.bank));
        }
        keys.push(key);
    }
    if keys.len() > KEYS_MAX {
        return Err(LoadError::TooMany);
    }
    Ok(keys)
}

impl Key {
    /// Signs. What may be signed has been judged before.
    pub(super) fn sign(&self, scheme: u16, message: &[u8]) -> Option<Vec<u8>> {
        sign(&self.key, scheme, message)
    }
}

fn sign(key: &Arc<dyn SigningKey>, scheme: u16, message: &[u8]) -> Option<Vec<u8>> {
    let signer = key.choose_scheme(&[SignatureScheme::from(scheme)])?;
    signer.sign(message).ok()
}

impl Audit {
    /// Reads the key and opens the state; what is in it is read when the signer's turn comes.
    pub(super) fn open(wanted: &AuditKey) -> Result<Self, LoadError> {
        let path = identity::key_path(&wanted.key);
        let read = path.and_then(|path| Ok((identity::private_key(&path)?, path)));
        let (key, path) = read.map_err(|error| LoadError::Pem(Box::new(error)))?;
        if key.choose_scheme(&[SignatureScheme::ED25519]).is_none() {
            return Err(LoadError::AuditKey { path });
        }
        let state = open_state(&wanted.state_file).map_err(|source| LoadError::AuditState {
            path: wanted.state_file.clone(),
            source,
        })?;
        Ok(Self { key, state })
    }

    /// Signs a checkpoint's message.
    pub(super) fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        sign(&self.key, SignatureScheme::ED25519.into(), message)?
            .try_into()
            .ok()
    }

    /// The last checkpoint; `None` when the state is damaged, and nothing may be signed.
    pub(super) fn last(&self) -> Option<Last> {
        let mut buffer = [0; STATE_SIZE + 1];
        let size = pread(&self.state, &mut buffer, 0).ok()?;
        if size == 0 {
            return Some(Last::NONE);
        }
        let text = std::str::from_utf8(buffer.get(..size)?).ok()?;
        let mut parts = text.strip_suffix('\n')?.split(' ');
        let mut number = || parts.next()?.parse().ok();
        let (seq, at, signatures) = (number()?, number()?, number()?);
        let hash = Digest::parse(parts.next()?)?;
        let last = Last {
            tip: Tip { seq, hash },
            at,
            signatures,
        };
        (last.text() == text).then_some(last)
    }

    /// Remembers a checkpoint; `None` when that failed, and it may not be given.
    pub(super) fn remember(&self, last: Last) -> Option<()> {
        let written = pwrite(&self.state, last.text().as_bytes(), 0).ok()?;
        rustix::fs::fdatasync(&self.state).ok()?;
        (written == STATE_SIZE).then_some(())
    }
}

fn open_state(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}
