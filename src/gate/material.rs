//! What a bank's configuration names on disk, read and checked: CA, certificate, key, tokens, secret header values.
//!
//! One loader for `run`, reload and `check`, so that they cannot disagree. Files are read first and keys matched then,
//! so that a reload asks the keyholder for new keys only when everything else is good.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use crate::config::{Bank, Listen, TcpAccess, Tls, Transport};
use crate::policy::caller::Access;
use crate::policy::keyproto::Held;
use crate::policy::secret::Secret;
use crate::tls::client::{TlsClient, TlsSetup, TlsSetupError};
use crate::tls::identity::{self, Identity, IdentityError, Leaf};
use crate::tls::key::ClientKey;
use crate::tls::keyholder::Keyholder;
use crate::tls::pem;
use crate::tls::secretfile::{self, SecretFileError};
use crate::tls::store::{Pair, Store};
use crate::tls::trust::{Trust, TrustError};

/// Where the keys are.
#[derive(Debug)]
pub enum Keys {
    /// In the files, read by this process: for `check`, which serves nobody.
    Files,
    /// In the keyholder.
    Keyholder {
        /// The way to it.
        keyholder: Arc<Keyholder>,
        /// What it has.
        held: Vec<Held>,
    },
    /// Nowhere: no bank needed one at the start.
    Nowhere,
}

/// A bank's files, read; its certificate not yet matched with a key.
#[derive(Debug)]
pub struct Files {
    tls: Option<(Box<Tls>, TlsSetup)>,
    cas: Vec<Leaf>,
    set: Vec<(HeaderName, HeaderValue)>,
    access: Vec<Access>,
}

/// Everything that one bank's generation needs from files.
#[derive(Debug)]
pub struct Material {
    /// `None` for plaintext to loopback.
    pub tls: Option<Arc<TlsClient>>,
    /// What the certificates of `trust.ca_file` say.
    pub cas: Vec<Leaf>,
    /// Headers that we add, their values secret.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// What each listener asks, in the order of the config.
    pub access: Vec<Access>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A token or a header value.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The name to verify.
    #[error("trust.server_name is neither a DNS name nor an address")]
    ServerName(#[from] rustls::pki_types::InvalidDnsNameError),
    /// A bank that needs a key, in a process that was started without a keyholder.
    #[error(
        "restart needed: this gate was started without a keyholder, and the bank asks for a certificate"
    )]
    NoKeyholder,
    /// TLS itself.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The CA.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A header value that no header can carry.
    #[error("headers.set_files: the value for {0} holds characters that no header may")]
    Value(HeaderName),
}

impl Files {
    /// Reads a bank's files.
    ///
    /// # Errors
    /// The first [`MaterialError`] found.
    pub fn read(bank: &Bank) -> Result<Self, MaterialError> {
        let (tls, cas) = match &bank.transport {
            Transport::PlaintextLoopback => (None, Vec::new()),
            Transport::Tls(tls) => {
                // Read again with the key, which may be another by then; a bad one is told before it is asked for.
                identity::leaf(
                    &tls.cert_file,
                    &pem::certificates(&tls.cert_file).map_err(IdentityError::from)?,
                )?;
                let trust = Trust::load(&tls.ca_file)?;
                let setup = setup(tls, trust.roots)?;
                (Some((tls.clone(), setup)), trust.certificates)
            }
        };
        let mut set = Vec::with_capacity(bank.headers.set_files.len());
        for header in &bank.headers.set_files {
            let secret = secretfile::header_value(&header.file)?;
            let mut value = HeaderValue::from_bytes(secret.expose())
                .map_err(|_| MaterialError::Value(header.name.clone()))?;
            value.set_sensitive(true);
            set.push((header.name.clone(), value));
        }
        let access = bank
            .listen
            .iter()
            .map(load_access)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tls,
            cas,
            set,
            access,
        })
    }

    /// Matches the certificate with its key: the only thing that can be wrong by now.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn with_keys(self, keys: &Keys) -> Result<Material, MaterialError> {
        let tls = match self.tls {
            None => None,
            Some((tls, setup)) => {
                let store = Arc::new(store(&tls, keys)?);
                Some(Arc::new(setup.with_identity(store)))
            }
        };
        Ok(Material {
            tls,
            cas: self.cas,
            set: self.set,
            access: self.access,
        })
    }
}

fn store(tls: &Tls, keys: &Keys) -> Result<Store, MaterialError> {
    match keys {
        Keys::Files => {
            let identity = Identity::load(&tls.cert_file, &identity::key_path(&tls.key)?)?;
            Ok(Store::fixed(Pair {
                chain: identity.chain,
                key: ClientKey::Local(identity.key),
                leaf: identity.leaf,
            }))
        }
        Keys::Keyholder { keyholder, held } => {
            let pair = Pair::match_up(&tls.cert_file, keyholder, held)?;
            let cert_file = tls.cert_file.clone();
            Ok(Store::renewable(pair, cert_file, Arc::clone(keyholder)))
        }
        Keys::Nowhere => Err(MaterialError::NoKeyholder),
    }
}

fn setup(tls: &Tls, roots: RootCertStore) -> Result<TlsSetup, MaterialError> {
    let server_name = ServerName::try_from(tls.server_name.clone())?;
    let pins = tls.spki_sha256.clone();
    Ok(TlsSetup::new(tls.min_version, roots, server_name, pins)?)
}

fn load_access(listen: &Listen) -> Result<Access, SecretFileError> {
    Ok(match listen {
        Listen::Unix { callers, .. } => Access::Uids(callers.clone()),
        Listen::Tcp { access, .. } => match access {
            TcpAccess::OpenToEveryLocalUser => Access::OpenToEveryLocalUser,
            TcpAccess::Callers(callers) => Access::Uids(callers.clone()),
            TcpAccess::TokenFiles(files) => Access::Tokens(load_tokens(files)?),
            TcpAccess::CallersWithToken(callers, files) => {
                Access::Both(callers.clone(), load_tokens(files)?)
            }
        },
    })
}

fn load_tokens(files: &[PathBuf]) -> Result<Vec<Secret>, SecretFileError> {
    files.iter().map(|file| secretfile::token(file)).collect()
}
