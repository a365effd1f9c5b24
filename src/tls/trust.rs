//! Whom we trust: the CA certificates of one file, and nobody else.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{self, Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;

use super::identity::{self, Leaf};
use super::pem::{self, PemError};

/// The trust anchors of one bank.
#[derive(Debug)]
pub struct Trust {
    /// For the verifier.
    pub roots: RootCertStore,
    /// What each certificate says, for `check`.
    pub certificates: Vec<Leaf>,
}

/// What is wrong with the trust anchors.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A certificate that is no CA's.
    #[error("{}: the certificate of {subject} is not a CA's (no basicConstraints CA:TRUE); name the bank's CA, not its server certificate", path.display())]
    NotCa {
        /// The file.
        path: PathBuf,
        /// Whom it names.
        subject: String,
    },
    /// Not X.509.
    #[error("the certificate is malformed: {0}")]
    Malformed(#[source] der::Error),
    /// A file.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// webpki does not take it.
    #[error("{}: a certificate cannot be a trust anchor", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl Trust {
    /// Reads the CA certificates of a PEM file.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn load(ca_file: &Path) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        for der in pem::certificates(ca_file)? {
            let facts = identity::describe(&der)?;
            if !is_ca(&der)? {
                return Err(TrustError::NotCa {
                    path: ca_file.to_owned(),
                    subject: facts.subject,
                });
            }
            roots.add(der).map_err(|source| TrustError::Unusable {
                path: ca_file.to_owned(),
                source,
            })?;
            certificates.push(facts);
        }
        Ok(Self {
            roots,
            certificates,
        })
    }

    /// When the first of them ends.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.certificates.iter().map(|facts| facts.not_after).min()
    }
}

/// Whether basicConstraints say CA (RFC 5280 section 4.2.1.9). A version 1 certificate has none and is taken: it can
/// only be a root that somebody configured.
fn is_ca(der: &CertificateDer<'_>) -> Result<bool, TrustError> {
    let certificate = Certificate::from_der(der).map_err(TrustError::Malformed)?;
    let tbs = certificate.tbs_certificate();
    let constraints = tbs
        .get_extension::<BasicConstraints>()
        .map_err(TrustError::Malformed)?;
    Ok(match constraints {
        Some((_, constraints)) => constraints.ca,
        None => tbs.version() == Version::V1,
    })
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha256sum` gives it.
///
/// # Errors
/// [`TrustError::Malformed`].
pub fn spki_sha256(der: &CertificateDer<'_>) -> Result<[u8; 32], TrustError> {
    let certificate = Certificate::from_der(der).map_err(TrustError::Malformed)?;
    let spki = certificate.tbs_certificate().subject_public_key_info();
    let bytes = spki.to_der().map_err(TrustError::Malformed)?;
    Ok(Sha256::digest(&bytes).into())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn file(params: CertificateParams) -> (tempfile::TempDir, PathBuf, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        (dir, path, key)
    }

    #[test]
    fn only_a_ca_is_trusted() {
        let (_dir, path, _) = file(CertificateParams::default());
        assert!(matches!(Trust::load(&path), Err(TrustError::NotCa { .. })));
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (_dir, path, _) = file(ca);
        assert_eq!(Trust::load(&path).unwrap().roots.len(), 1);
    }

    #[test]
    fn the_pin_is_the_hash_of_the_public_key_info() {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        let expected: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
        assert_eq!(spki_sha256(cert.der()).unwrap(), expected);
    }
}
