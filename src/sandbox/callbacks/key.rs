//! The key by which the sandbox bank signs its callbacks: made at each start, kept in memory.
//!
//! Owns the algorithms, the making of a signature and the public key in PEM. By `aws-lc-rs`, and
//! never by the verifier of the gate: two implementations have to agree. Knows nothing of what is
//! signed.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding,
};
use x509_cert::der::pem::{self, LineEnding};

/// How callbacks are signed, by the names that the gate's configuration uses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CallbackAlgorithm {
    /// ECDSA over P-256 with SHA-256, the signature in DER.
    EcdsaP256Sha256,
    /// Ed25519.
    Ed25519,
    /// RSA PKCS#1 v1.5 with SHA-256 and a key of 2048 bits.
    #[default]
    RsaPkcs1Sha256,
    /// RSA-PSS with SHA-256, a salt of 32 bytes and a key of 2048 bits.
    RsaPssSha256,
}

impl CallbackAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RsaPkcs1Sha256,
        Self::RsaPssSha256,
        Self::Ed25519,
        Self::EcdsaP256Sha256,
    ];

    /// The name in configurations and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::Ed25519 => "ed25519",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::RsaPssSha256 => "rsa-pss-sha256",
        }
    }
}

impl fmt::Display for CallbackAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No algorithm of that name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected rsa-pkcs1-sha256, rsa-pss-sha256, ed25519 or ecdsa-p256-sha256")]
pub struct AlgorithmError;

impl FromStr for CallbackAlgorithm {
    type Err = AlgorithmError;

    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == text)
            .ok_or(AlgorithmError)
    }
}

/// The library refused to make a key or a signature; it gives no reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the machine's cryptography refused to make a key or a signature")]
pub struct KeyError;

impl From<Unspecified> for KeyError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

enum Private {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(rsa::KeyPair, &'static dyn RsaEncoding),
}

/// A private key with its algorithm.
pub(super) struct Signer {
    private: Private,
    public_pem: String,
}

impl Signer {
    /// A new key.
    pub(super) fn generate(algorithm: CallbackAlgorithm) -> Result<Self, KeyError> {
        let rsa = || rsa::KeyPair::generate(rsa::KeySize::Rsa2048);
        let private = match algorithm {
            CallbackAlgorithm::EcdsaP256Sha256 => {
                Private::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?)
            }
            CallbackAlgorithm::Ed25519 => Private::Ed25519(Ed25519KeyPair::generate()?),
            CallbackAlgorithm::RsaPkcs1Sha256 => Private::Rsa(rsa()?, &RSA_PKCS1_SHA256),
            CallbackAlgorithm::RsaPssSha256 => Private::Rsa(rsa()?, &RSA_PSS_SHA256),
        };
        let spki: PublicKeyX509Der<'_> = match &private {
            Private::Ecdsa(key) => key.public_key().as_der()?,
            Private::Ed25519(key) => key.public_key().as_der()?,
            Private::Rsa(key, _) => key.public_key().as_der()?,
        };
        let public_pem = pem::encode_string("PUBLIC KEY", LineEnding::LF, spki.as_ref());
        Ok(Self {
            public_pem: public_pem.map_err(|_| KeyError)?,
            private,
        })
    }

    /// The public key: `SubjectPublicKeyInfo` in PEM.
    pub(super) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The signature over a message, in binary.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ecdsa(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Private::Ed25519(key) => Ok(key.try_sign(message)?.as_ref().to_vec()),
            Private::Rsa(key, padding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*padding, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

/// A name that cannot be guessed: `<prefix>-<32 hex digits>`.
pub(super) fn identifier(prefix: &str) -> Result<String, KeyError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)?;
    Ok(format!("{prefix}-{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_written_as_it_is_read_and_an_unknown_one_is_refused() {
        for algorithm in CallbackAlgorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        for unknown in ["", "rsa", "RSA-PKCS1-SHA256", "rsa-pkcs1-sha1"] {
            let refused = unknown.parse::<CallbackAlgorithm>();
            assert_eq!(refused, Err(AlgorithmError), "{unknown}");
        }
    }

    #[test]
    fn two_keys_differ_and_are_written_as_pem() {
        for algorithm in CallbackAlgorithm::ALL {
            let [one, two] = [(), ()].map(|()| Signer::generate(algorithm).unwrap());
            assert_ne!(one.public_pem(), two.public_pem());
            assert!(one.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
        }
    }
}
