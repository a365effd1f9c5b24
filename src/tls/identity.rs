//! stub
#![allow(missing_docs)]
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::SigningKey;
use std::sync::Arc;
use std::time::SystemTime;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct IdentityError;
#[derive(Debug)]
pub struct Leaf {
    pub subject: String,
    pub not_after: SystemTime,
    pub spki_sha256: [u8; 32],
}
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Arc<dyn SigningKey>,
    pub leaf: Leaf,
}
impl Identity {
    pub fn load(c: &std::path::Path, k: &std::path::Path) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_file_iter(c)
            .map_err(|_| IdentityError)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| IdentityError)?;
        let key = PrivateKeyDer::from_pem_file(k).map_err(|_| IdentityError)?;
        let key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| IdentityError)?;
        Ok(Self {
            chain,
            key,
            leaf: Leaf {
                subject: "CN=x".into(),
                not_after: SystemTime::now(),
                spki_sha256: [0; 32],
            },
        })
    }
}
