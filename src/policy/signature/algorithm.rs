//! The closed list of algorithms and their names in the configuration.
//!
//! An algorithm belongs to a key and is written next to it. Nothing in a message chooses it.

use std::fmt;

/// A hash of the SHA-2 family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];
}

/// How the two integers of an ECDSA signature are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EcdsaForm {
    /// An ASN.1 sequence of two integers: what OpenSSL and Java write.
    Der,
    /// Both integers with 32 bytes each (IEEE P1363): what browsers, .NET and JWS write.
    P1363,
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS with a salt as long as the hash and MGF1 over the same hash.
    RsaPss(Hash),
    /// Ed25519 (RFC 8032), verified strictly.
    Ed25519,
    /// ECDSA over P-256 with SHA-256.
    EcdsaP256(EcdsaForm),
}

/// A name that is not on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "expected one of rsa-pkcs1-sha256, rsa-pkcs1-sha384, rsa-pkcs1-sha512, rsa-pss-sha256, rsa-pss-sha384, \
     rsa-pss-sha512, ed25519, ecdsa-p256-sha256 (DER), ecdsa-p256-sha256-p1363"
)]
pub struct AlgorithmError;

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RsaPkcs1(Hash::Sha256),
        Self::RsaPkcs1(Hash::Sha384),
        Self::RsaPkcs1(Hash::Sha512),
        Self::RsaPss(Hash::Sha256),
        Self::RsaPss(Hash::Sha384),
        Self::RsaPss(Hash::Sha512),
        Self::Ed25519,
        Self::EcdsaP256(EcdsaForm::Der),
        Self::EcdsaP256(EcdsaForm::P1363),
    ];

    /// Reads a name from the configuration.
    ///
    /// # Errors
    /// [`AlgorithmError`], which has the list.
    pub fn parse(name: &str) -> Result<Self, AlgorithmError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(AlgorithmError)
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaPkcs1(Hash::Sha256) => "rsa-pkcs1-sha256",
            Self::RsaPkcs1(Hash::Sha384) => "rsa-pkcs1-sha384",
            Self::RsaPkcs1(Hash::Sha512) => "rsa-pkcs1-sha512",
            Self::RsaPss(Hash::Sha256) => "rsa-pss-sha256",
            Self::RsaPss(Hash::Sha384) => "rsa-pss-sha384",
            Self::RsaPss(Hash::Sha512) => "rsa-pss-sha512",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256(EcdsaForm::Der) => "ecdsa-p256-sha256",
            Self::EcdsaP256(EcdsaForm::P1363) => "ecdsa-p256-sha256-p1363",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_and_nothing_else_is() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Ok(algorithm));
            assert!(AlgorithmError.to_string().contains(algorithm.as_str()));
        }
        for name in [
            "",
            "none",
            "RSA-PKCS1-SHA256",
            "rsa-pkcs1-sha1",
            "hmac-sha256",
            " ed25519",
        ] {
            assert_eq!(Algorithm::parse(name), Err(AlgorithmError), "{name:?}");
        }
    }
}
