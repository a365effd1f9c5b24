//! The signing key as rustls sees it: it does not lie in this process, it asks the keyholder.
//!
//! `sign` blocks, which is why handshakes run on blocking threads. A key of this process exists for tests and for the
//! benchmark that says what the split costs; no configuration leads to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::sign::{Signer, SigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

use super::keyholder::{AskError, Keyholder};
use crate::policy::keyproto::Held;

/// How long a signature may take at most: a healthy signer needs a millisecond, a restarted one a tenth of a second.
const SIGN_MAX: Duration = Duration::from_secs(2);

/// The key did not sign. Marks the handshake's error, so that it becomes `identity_unavailable` and nothing else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the private key could not sign the handshake: {reason}")]
pub struct SigningFailed {
    reason: String,
    key_changed: bool,
}

impl SigningFailed {
    /// `reason` is for the operator's log.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            key_changed: false,
        }
    }

    /// Whether the keyholder has another key by now: a handshake with the new certificate may succeed.
    #[must_use]
    pub fn is_key_changed(&self) -> bool {
        self.key_changed
    }
}

impl From<AskError> for SigningFailed {
    fn from(error: AskError) -> Self {
        Self {
            reason: error.to_string(),
            key_changed: matches!(error, AskError::KeyChanged),
        }
    }
}

/// The key of a certificate. Cheap to clone.
#[derive(Clone, Debug)]
pub enum ClientKey {
    /// A key of this process: for tests and benchmarks.
    Local(Arc<dyn SigningKey>),
    /// A key of the keyholder.
    Remote(Arc<Keyholder>, Arc<Held>),
}

impl ClientKey {
    /// As rustls takes it, for one handshake that must be over at `until`.
    #[must_use]
    pub fn for_handshake(&self, until: Instant) -> Arc<dyn SigningKey> {
        Arc::new(HandshakeKey {
            key: self.clone(),
            until,
        })
    }
}

#[derive(Debug)]
struct HandshakeKey {
    key: ClientKey,
    until: Instant,
}

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(match &self.key {
            ClientKey::Local(key) => Box::new(LocalSigner(key.choose_scheme(offered)?)),
            ClientKey::Remote(keyholder, held) => {
                let mut ours = held.schemes.iter().copied().map(SignatureScheme::from);
                Box::new(RemoteSigner {
                    scheme: ours.find(|scheme| offered.contains(scheme))?,
                    keyholder: Arc::clone(keyholder),
                    held: Arc::clone(held),
                    until: self.until,
                })
            }
        })
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.key {
            ClientKey::Local(key) => key.algorithm(),
            ClientKey::Remote(_, held) => match held.schemes.first().map(|code| code & 0xff) {
                Some(3) => SignatureAlgorithm::ECDSA,
                Some(7) => SignatureAlgorithm::ED25519,
                Some(_) | None => SignatureAlgorithm::RSA,
            },
        }
    }
}

#[derive(Debug)]
struct RemoteSigner {
    keyholder: Arc<Keyholder>,
    held: Arc<Held>,
    scheme: SignatureScheme,
    until: Instant,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // Half of what is left is for the rest of the handshake, and for telling the caller why it failed.
        let now = Instant::now();
        let left = self.until.saturating_duration_since(now) / 2;
        let until = now.checked_add(left.min(SIGN_MAX)).unwrap_or(self.until);
        self.keyholder
            .sign(self.held.key, self.scheme.into(), message, until)
            .map_err(|error| failed(error.into()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[derive(Debug)]
struct LocalSigner(Box<dyn Signer>);

impl Signer for LocalSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.0.sign(message);
        signed.map_err(|error| failed(SigningFailed::new(error.to_string())))
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

fn failed(failed: SigningFailed) -> Error {
    Error::Other(OtherError(Arc::new(failed)))
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
