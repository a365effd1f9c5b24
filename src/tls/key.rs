//! The signing key as rustls sees it, and the one place that will ask another process to sign.
//!
//! Today the key lies in this process. `sign` blocks either way, which is why handshakes run on blocking threads.

use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

/// The key did not sign. Marks the handshake's error, so that it becomes `identity_unavailable` and nothing else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the private key could not sign the handshake: {reason}")]
pub struct SigningFailed {
    reason: String,
}

impl SigningFailed {
    /// `reason` is for the operator's log.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// A [`SigningKey`] whose failures can be told from every other failure of a handshake.
#[derive(Debug)]
pub struct ClientKey {
    inner: Arc<dyn SigningKey>,
}

impl ClientKey {
    /// Wraps a key of this process.
    #[must_use]
    pub fn local(inner: Arc<dyn SigningKey>) -> Self {
        Self { inner }
    }
}

impl SigningKey for ClientKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.inner.choose_scheme(offered)?;
        Some(Box::new(ClientSigner { signer }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.inner.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

#[derive(Debug)]
struct ClientSigner {
    signer: Box<dyn Signer>,
}

impl Signer for ClientSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.signer.sign(message).map_err(|error| {
            Error::Other(OtherError(Arc::new(SigningFailed::new(error.to_string()))))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key that offers every scheme and signs nothing.
    #[derive(Debug)]
    pub(crate) struct DeadKey(pub(crate) Arc<dyn SigningKey>);

    impl SigningKey for DeadKey {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            let scheme = self.0.choose_scheme(offered)?.scheme();
            Some(Box::new(DeadSigner(scheme)))
        }

        fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
            self.0.public_key()
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            self.0.algorithm()
        }
    }

    #[derive(Debug)]
    struct DeadSigner(SignatureScheme);

    impl Signer for DeadSigner {
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
            Err(Error::General("no answer".to_owned()))
        }

        fn scheme(&self) -> SignatureScheme {
            self.0
        }
    }
}
