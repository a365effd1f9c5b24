//! What a bank's configuration names on disk, read and checked: CA, certificate, key, tokens, secret header values.
//!
//! One loader for `run`, reload and `check`, so that they cannot disagree.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use crate::config::{Bank, Listen, TcpAccess, Tls, Transport};
use crate::egress::CertificateFacts;
use crate::policy::caller::Access;
use crate::policy::secret::Secret;
use crate::tls::client::{TlsClient, TlsSetupError};
use crate::tls::identity::{Identity, IdentityError};
use crate::tls::key::ClientKey;
use crate::tls::secretfile::{self, SecretFileError};
use crate::tls::trust::{Trust, TrustError};

/// Everything that one bank's generation needs from files.
#[derive(Debug)]
pub struct Material {
    /// `None` for plaintext to loopback.
    pub tls: Option<Arc<TlsClient>>,
    /// Headers that we add, their values secret.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// What each listener asks, in the order of the config.
    pub access: Vec<Access>,
    /// Our leaf, for the status.
    pub certificate: Option<CertificateFacts>,
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

impl Material {
    /// Reads a bank's files.
    ///
    /// # Errors
    /// The first [`MaterialError`] found.
    pub fn load(bank: &Bank) -> Result<Self, MaterialError> {
        let (tls, certificate) = match &bank.transport {
            Transport::PlaintextLoopback => (None, None),
            Transport::Tls(tls) => {
                let (client, facts) = load_tls(tls)?;
                (Some(client), Some(facts))
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
            set,
            access,
            certificate,
        })
    }
}

fn load_tls(tls: &Tls) -> Result<(Arc<TlsClient>, CertificateFacts), MaterialError> {
    let identity = Identity::load(&tls.cert_file, &tls.key_file)?;
    let facts = CertificateFacts {
        subject: identity.leaf.subject.clone(),
        not_after: identity.leaf.not_after,
        spki_sha256: hex(&identity.leaf.spki_sha256),
    };
    let key = Arc::new(ClientKey::local(identity.key));
    let certified = Arc::new(CertifiedKey::new(identity.chain, key));
    let roots = Trust::load(&tls.ca_file)?.roots;
    let server_name = ServerName::try_from(tls.server_name.clone())?;
    let client = TlsClient::new(
        tls.min_version,
        roots,
        server_name,
        tls.spki_sha256.clone(),
        certified,
    )?;
    Ok((Arc::new(client), facts))
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(
        String::with_capacity(bytes.len().saturating_mul(2)),
        |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}
