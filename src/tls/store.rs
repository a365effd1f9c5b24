//! The pair that a bank is shown: a certificate chain and the key that belongs to it, always both of one rotation.
//!
//! It is published whole: a certificate that no key fits is never shown. It owns no key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use rustls::pki_types::CertificateDer;

use super::identity::{self, IdentityError, Leaf};
use super::key::{ClientKey, SigningFailed};
use super::keyholder::Keyholder;
use super::pem;
use crate::policy::keyproto::Held;

/// A chain and its key.
#[derive(Debug)]
pub struct Pair {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: ClientKey,
    /// What the leaf says.
    pub leaf: Leaf,
}

/// The pair of one bank, as it is now.
#[derive(Debug)]
pub struct Store {
    source: Option<(PathBuf, Arc<Keyholder>)>,
    current: RwLock<Arc<Pair>>,
    /// One reads, the others then find it done.
    renewing: Mutex<()>,
}

impl Pair {
    /// Reads the certificate and finds its key among those that the keyholder has.
    ///
    /// # Errors
    /// [`IdentityError::NoKey`] when none fits, and what can be wrong with the file.
    pub fn match_up(
        cert_file: &Path,
        keyholder: &Arc<Keyholder>,
        keys: &[Held],
    ) -> Result<Self, IdentityError> {
        let chain = pem::certificates(cert_file)?;
        let leaf = identity::leaf(cert_file, &chain)?;
        let held = keys.iter().find(|held| held.key.0 == leaf.spki_sha256);
        let held = held.ok_or_else(|| IdentityError::NoKey {
            cert: cert_file.to_owned(),
            key: leaf.spki_sha256,
            held: keys.iter().map(|held| held.key.0).collect(),
        })?;
        Ok(Self {
            chain,
            key: ClientKey::Remote(Arc::clone(keyholder), Arc::new(held.clone())),
            leaf,
        })
    }
}

impl Store {
    /// The keyholder's; read again when its key changes.
    #[must_use]
    pub fn renewable(pair: Pair, cert_file: PathBuf, keyholder: Arc<Keyholder>) -> Self {
        Self::new(pair, Some((cert_file, keyholder)))
    }

    /// One that never changes.
    #[must_use]
    pub fn fixed(pair: Pair) -> Self {
        Self::new(pair, None)
    }

    fn new(pair: Pair, source: Option<(PathBuf, Arc<Keyholder>)>) -> Self {
        Self {
            source,
            current: RwLock::new(Arc::new(pair)),
            renewing: Mutex::new(()),
        }
    }

    /// The pair as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Pair> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Reads the certificate again, because the keyholder no longer has the key of `stale`. Blocks.
    ///
    /// # Errors
    /// [`SigningFailed`]; the old pair stays.
    pub fn renew(&self, stale: &Arc<Pair>, until: Instant) -> Result<(), SigningFailed> {
        let (cert_file, keyholder) = self
            .source
            .as_ref()
            .ok_or_else(|| SigningFailed::new("this key never changes"))?;
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.current(), stale) {
            return Ok(());
        }
        let keys = keyholder.keys(until)?;
        let pair = Pair::match_up(cert_file, keyholder, &keys)
            .map_err(|error| SigningFailed::new(error.to_string()))?;
        tracing::info!(
            subject = pair.leaf.subject,
            "the key was changed: its certificate is in use"
        );
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(pair);
        Ok(())
    }
}
