//! A public key that checkpoints are verified with, and its name in records.

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

use super::{Tip, checkpoint_message};
use crate::policy::signature::{Algorithm, Fit, KeyError, PublicKey};

/// RFC 8410: a SubjectPublicKeyInfo of Ed25519 is this and 32 bytes.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A public key of the audit log.
#[derive(Clone, Debug)]
pub struct CheckpointKey {
    id: String,
    key: PublicKey,
}

/// What a signer vouches for: everything that its signature covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vouched {
    /// The record up to which it does.
    pub tip: Tip,
    /// The signer's clock, in milliseconds since 1970.
    pub at: u64,
    /// Signatures of TLS handshakes that it had counted.
    pub signatures: u64,
    /// What it had signed before that; [`Tip::GENESIS`] for the first one.
    pub before: Tip,
}

impl CheckpointKey {
    /// Reads the PEM of a public Ed25519 key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = PublicKey::parse(Algorithm::Ed25519, bytes)?;
        let mut spki = SPKI.to_vec();
        spki.extend(key.ed25519().unwrap_or_default());
        let mut id = String::with_capacity(16);
        for byte in Sha256::digest(&spki).iter().take(8) {
            // Writing into a string cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        Ok(Self { id, key })
    }

    /// The first 16 hexadecimal digits of the SHA-256 of its SubjectPublicKeyInfo: `key_id` in a record.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether its owner signed this.
    #[must_use]
    pub fn fits(&self, vouched: &Vouched, signature: &[u8]) -> bool {
        self.key.verify(&checkpoint_message(vouched), signature) == Fit::Fits
    }
}
