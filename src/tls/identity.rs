//! Who we are towards a bank: a certificate chain and the private key that belongs to it, read and matched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroize;

use super::pem::{self, PemError};
use super::trust::{self, TrustError};
use crate::config::KeySource;

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: Arc<dyn SigningKey>,
    /// What the leaf says.
    pub leaf: Leaf,
}

/// What a certificate says, as far as an operator asks.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Whom it names, as RFC 4514 writes it.
    pub subject: String,
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be understood.
    #[error("{}: the certificate cannot be understood", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The key is of a kind that TLS cannot use here.
    #[error("{}: the private key is of no supported kind (RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519)", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// No key of the keyholder's belongs to the certificate.
    #[error(
        "{}: the keyholder has no key that belongs to this certificate (which has the key {}, and the keyholder {}); nothing \
         works until both are of one pair",
        cert.display(),
        short(key),
        if held.is_empty() { "none".to_owned() } else { held.iter().map(short).collect::<Vec<_>>().join(", ") }
    )]
    NoKey {
        /// The certificate's file.
        cert: PathBuf,
        /// SHA-256 of its SubjectPublicKeyInfo.
        key: [u8; 32],
        /// Those of the keyholder's keys.
        held: Vec<[u8; 32]>,
    },
    /// A credential that the service manager did not pass.
    #[error(
        "there is no credential `{name}`: add `LoadCredential={name}:PATH` to the unit of priorgate-keyholder ($CREDENTIALS_DIRECTORY)"
    )]
    NoCredential {
        /// Its name in the configuration.
        name: String,
    },
    /// They do not belong together.
    #[error(
        "{} does not belong to the certificate in {}; nothing works until both are of one pair",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A file.
    #[error(transparent)]
    Pem(#[from] PemError),
}

/// Enough of a hash to tell two keys apart; the status has the whole one.
fn short(spki_sha256: &[u8; 32]) -> String {
    let digits = spki_sha256.iter().take(6);
    digits
        .map(|byte| format!("{byte:02x}"))
        .chain(["…".to_owned()])
        .collect()
}

impl Identity {
    /// Reads both files and checks that they are a pair.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, IdentityError> {
        let chain = pem::certificates(cert_file)?;
        let leaf = leaf(cert_file, &chain)?;
        let key = private_key(key_file)?;
        match CertifiedKey::new(chain.clone(), Arc::clone(&key)).keys_match() {
            Ok(()) => Ok(Self { chain, key, leaf }),
            Err(_) => Err(IdentityError::Mismatch {
                cert: cert_file.to_owned(),
                key: key_file.to_owned(),
            }),
        }
    }
}

/// Reads a key; its file's bytes are wiped.
///
/// # Errors
/// [`IdentityError::Pem`] and [`IdentityError::Key`].
pub fn private_key(path: &Path) -> Result<Arc<dyn SigningKey>, IdentityError> {
    let mut der = pem::private_key(path)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| IdentityError::Key {
        path: path.to_owned(),
    })
}

/// Where a key lies: a file, or a file in the directory of the process's credentials.
///
/// # Errors
/// [`IdentityError::NoCredential`] when the process has no such directory.
pub fn key_path(source: &KeySource) -> Result<PathBuf, IdentityError> {
    match source {
        KeySource::File(path) => Ok(path.clone()),
        KeySource::Credential(name) => std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join(name))
            .ok_or_else(|| IdentityError::NoCredential { name: name.clone() }),
    }
}

/// What the first certificate of a chain says.
///
/// # Errors
/// [`IdentityError::Certificate`] and [`IdentityError::Pem`].
pub fn leaf(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Leaf, IdentityError> {
    let first = chain.first().ok_or_else(|| PemError::NoCertificate {
        path: path.to_owned(),
    })?;
    describe(first).map_err(|source| IdentityError::Certificate {
        path: path.to_owned(),
        source,
    })
}

/// What a certificate says.
///
/// # Errors
/// [`TrustError::Malformed`].
pub fn describe(der: &CertificateDer<'_>) -> Result<Leaf, TrustError> {
    let certificate = Certificate::from_der(der).map_err(TrustError::Malformed)?;
    let tbs = certificate.tbs_certificate();
    let validity = tbs.validity();
    Ok(Leaf {
        subject: tbs.subject().to_string(),
        not_before: validity.not_before.to_system_time(),
        not_after: validity.not_after.to_system_time(),
        spki_sha256: trust::spki_sha256(der)?,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_pair_is_read_and_a_mismatch_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "shop");
        let cert = params.self_signed(&key).unwrap();
        let cert_file = write(dir.path(), "c.pem", &cert.pem());
        let key_file = write(dir.path(), "k.pem", &key.serialize_pem());
        let identity = Identity::load(&cert_file, &key_file).unwrap();
        assert_eq!(identity.leaf.subject, "CN=shop");
        assert!(identity.leaf.not_after > SystemTime::now());
        let other = write(
            dir.path(),
            "o.pem",
            &KeyPair::generate().unwrap().serialize_pem(),
        );
        assert!(matches!(
            Identity::load(&cert_file, &other),
            Err(IdentityError::Mismatch { .. })
        ));
    }
}
