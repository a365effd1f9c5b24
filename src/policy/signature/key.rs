//! A bank's public key, bound to its algorithm, and the one question it answers: does this signature fit this message?
//!
//! The rules for a key that may be used at all stand here: sizes, exponents, points. `read` knows the files that
//! keys come in. Neither knows about time; when a key may be used is the verifier's affair.

use std::fmt;

use ed25519_dalek::VerifyingKey as Ed25519Key;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature as P256Signature, VerifyingKey as P256Key};
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, PublicKey as RsaKey};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::algorithm::{Algorithm, EcdsaForm, Hash};
use super::read::{self, Found};

/// The smallest RSA modulus, in bits.
pub const RSA_BITS_MIN: usize = 2048;
/// The largest one. Verification of larger keys would cost a stranger nothing and us milliseconds.
pub const RSA_BITS_MAX: usize = 8192;

/// What a DER signature over P-256 may be long: two integers of 1 to 33 bytes.
const P256_DER_LEN: std::ops::RangeInclusive<usize> = 8..=72;

/// A public key and the algorithm it is used with.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Rsa(RsaKey),
    Ed25519(Ed25519Key),
    P256(P256Key),
}

/// What a key says to a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Fit {
    /// The holder of the private key signed this message.
    Fits,
    /// A signature by its form, but not over this message or not by this key.
    Fails,
    /// Not as long as signatures by this key are. Nothing was computed.
    WrongLength,
    /// The right length, but not two integers in the range and the form that the algorithm wants. Nothing was computed.
    Malformed,
}

/// Why bytes are no key for an algorithm. Never a byte of them: they may be a secret that was pasted by mistake.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Nothing.
    #[error("the key is empty; put the bank's public key here, in PEM")]
    Empty,
    /// Too large.
    #[error(
        "larger than {} bytes: no public key; is this the right file?",
        read::FILE_MAX
    )]
    TooLarge,
    /// DER or PKCS#12.
    #[error(
        "binary (DER), not PEM; convert it: openssl pkey -pubin -inform DER -in FILE -out NEW.pem, or, if it is a \
         certificate, openssl x509 -inform DER -in FILE -out NEW.pem"
    )]
    Binary,
    /// A private key.
    #[error(
        "a PRIVATE key: whoever has it can sign callbacks in the bank's name, and the gate must not hold it. If the bank \
         sent it, ask for a new pair and for the public half only; if it is yours, it is the wrong file. The public half \
         of a key: openssl pkey -in FILE -pubout"
    )]
    PrivateKey,
    /// A secret for an HMAC.
    #[error(
        "neither PEM nor base64 of a public key; it looks like a shared secret (HMAC). Callbacks are verified with the \
         bank's public key: ask the bank for that, and treat this secret as disclosed if it stood in a readable file"
    )]
    SharedSecret,
    /// An OpenSSH line.
    #[error("an OpenSSH key; convert it: ssh-keygen -e -m PKCS8 -f FILE > NEW.pem")]
    OpenSsh,
    /// JSON.
    #[error(
        "JSON (a JWK?), not PEM; ask the bank for PEM, or convert it with a tool of your choice"
    )]
    Json,
    /// PEM of something else.
    #[error(
        "PEM, but of {0}, not of a public key; wanted is PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE"
    )]
    OtherPem(&'static str),
    /// More than one block.
    #[error(
        "{0} PEM blocks, and only one of them can be meant; keep the public key or the signer's own certificate, and give \
         every key of a rotation an entry of its own"
    )]
    SeveralBlocks(usize),
    /// PEM or base64 that cannot be decoded, or DER that is none.
    #[error("damaged ({0}); fetch the file again and keep its lines as they are")]
    Damaged(&'static str),
    /// Base64 without the PEM lines, of something that needs them.
    #[error(
        "the bare base64 of {0}; put it between the lines -----BEGIN {1}----- and -----END {1}-----"
    )]
    NeedsPemLines(&'static str, &'static str),
    /// Neither PEM nor base64.
    #[error(
        "neither PEM nor base64; wanted is the bank's public key (-----BEGIN PUBLIC KEY-----) or its certificate"
    )]
    Unreadable,
    /// A key of another type than the algorithm's.
    #[error("{found}, which does not fit the algorithm {wanted}; {advice}")]
    OtherType {
        /// What it is.
        found: &'static str,
        /// What the configuration says.
        wanted: Algorithm,
        /// What to do.
        advice: &'static str,
    },
    /// An RSA modulus that is too short or too long.
    #[error(
        "an RSA key of {0} bits; allowed are {RSA_BITS_MIN} to {RSA_BITS_MAX}. Ask the bank for a key of 2048 bits or more"
    )]
    ModulusBits(usize),
    /// A modulus or exponent that no RSA key has.
    #[error("an RSA key whose {0}; ask the bank for a proper one (exponent 65537)")]
    BadRsa(&'static str),
    /// A PSS key that is restricted to other parameters.
    #[error(
        "an RSASSA-PSS key that is restricted to other parameters than those of {0} (same hash for MGF1, salt as long as \
         the hash); choose the algorithm that it names"
    )]
    PssParameters(Algorithm),
    /// An elliptic curve that is not supported.
    #[error(
        "an EC key on {0}; supported is P-256 (prime256v1, secp256r1). Ask the bank for such a key"
    )]
    Curve(&'static str),
    /// No point of the curve, or one that fits anything.
    #[error("no usable {0} public key: {1}. Ask the bank for the key again")]
    BadPoint(&'static str, &'static str),
}

impl PublicKey {
    /// Reads a key: PEM of a SubjectPublicKeyInfo, of a PKCS#1 key or of a certificate; bare base64 of a
    /// SubjectPublicKeyInfo, or base64 of a whole PEM file; for Ed25519 also 32 raw bytes in hex or base64.
    ///
    /// Of a certificate only the key is used: neither its dates nor its issuer are looked at.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let found = read::read(bytes, algorithm == Algorithm::Ed25519)?;
        let material = match (algorithm, &found) {
            (Algorithm::RsaPkcs1(_) | Algorithm::RsaPss(_), Found::Rsa { n, e }) => {
                Material::Rsa(rsa(n, e)?)
            }
            (Algorithm::RsaPss(hash), Found::RsaPss { n, e, parameters }) => {
                if parameters
                    .as_ref()
                    .is_some_and(|p| *p != pss_parameters(hash))
                {
                    return Err(KeyError::PssParameters(algorithm));
                }
                Material::Rsa(rsa(n, e)?)
            }
            (Algorithm::Ed25519, Found::Ed25519(bytes)) => Material::Ed25519(ed25519(bytes)?),
            (Algorithm::EcdsaP256(_), Found::P256(point)) => Material::P256(p256(point)?),
            _ => return Err(other_type(&found, algorithm)),
        };
        Ok(Self {
            algorithm,
            material,
        })
    }

    /// The algorithm it is used with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes of an Ed25519 key.
    #[must_use]
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        match &self.material {
            Material::Ed25519(key) => Some(key.to_bytes()),
            Material::Rsa(_) | Material::P256(_) => None,
        }
    }

    /// Whether `signature` is one over `message`. The length is judged before any arithmetic.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Fit {
        match (&self.material, self.algorithm) {
            (Material::Rsa(key), algorithm) => {
                if signature.len() != key.size() {
                    return Fit::WrongLength;
                }
                Fit::of(
                    match algorithm {
                        Algorithm::RsaPkcs1(Hash::Sha256) => {
                            key.pkcs1v15_verify::<Sha256>(message, signature)
                        }
                        Algorithm::RsaPkcs1(Hash::Sha384) => {
                            key.pkcs1v15_verify::<Sha384>(message, signature)
                        }
                        Algorithm::RsaPkcs1(Hash::Sha512) => {
                            key.pkcs1v15_verify::<Sha512>(message, signature)
                        }
                        Algorithm::RsaPss(Hash::Sha256) => {
                            key.pss_verify::<Sha256>(message, signature)
                        }
                        Algorithm::RsaPss(Hash::Sha384) => {
                            key.pss_verify::<Sha384>(message, signature)
                        }
                        Algorithm::RsaPss(Hash::Sha512) => {
                            key.pss_verify::<Sha512>(message, signature)
                        }
                        // `parse` and `with_algorithm` never pair these with an RSA key.
                        Algorithm::Ed25519 | Algorithm::EcdsaP256(_) => return Fit::Fails,
                    }
                    .is_ok(),
                )
            }
            (Material::Ed25519(key), _) => match ed25519_dalek::Signature::from_slice(signature) {
                Ok(signature) => Fit::of(key.verify_strict(message, &signature).is_ok()),
                Err(_) => Fit::WrongLength,
            },
            (Material::P256(key), Algorithm::EcdsaP256(EcdsaForm::P1363)) => {
                if signature.len() != 64 {
                    return Fit::WrongLength;
                }
                p256_fit(key, message, P256Signature::from_slice(signature))
            }
            (Material::P256(key), _) => {
                if !P256_DER_LEN.contains(&signature.len()) {
                    return Fit::WrongLength;
                }
                p256_fit(key, message, P256Signature::from_der(signature))
            }
        }
    }

    /// Whether a PSS signature with a salt of any length fits: for diagnosis only, never for a verdict.
    pub(super) fn fits_with_any_salt(&self, message: &[u8], signature: &[u8]) -> bool {
        fn fits<D>(key: &RsaKey, message: &[u8], signature: &[u8]) -> bool
        where
            D: sha2::Digest + rsa::signature::digest::FixedOutputReset,
        {
            use rsa::signature::Verifier as _;
            rsa::pss::Signature::try_from(signature).is_ok_and(|signature| {
                rsa::pss::VerifyingKey::<D>::new_with_auto_salt_len(key.clone())
                    .verify(message, &signature)
                    .is_ok()
            })
        }
        match (&self.material, self.algorithm) {
            (Material::Rsa(key), Algorithm::RsaPss(Hash::Sha256)) => {
                fits::<Sha256>(key, message, signature)
            }
            (Material::Rsa(key), Algorithm::RsaPss(Hash::Sha384)) => {
                fits::<Sha384>(key, message, signature)
            }
            (Material::Rsa(key), Algorithm::RsaPss(Hash::Sha512)) => {
                fits::<Sha512>(key, message, signature)
            }
            _ => false,
        }
    }

    /// The same key with another algorithm of its type: for diagnosis only, never for a verdict.
    pub(super) fn with_algorithm(&self, algorithm: Algorithm) -> Option<Self> {
        let fits = matches!(
            (&self.material, algorithm),
            (
                Material::Rsa(_),
                Algorithm::RsaPkcs1(_) | Algorithm::RsaPss(_)
            ) | (Material::Ed25519(_), Algorithm::Ed25519)
                | (Material::P256(_), Algorithm::EcdsaP256(_))
        );
        fits.then(|| Self {
            algorithm,
            material: self.material.clone(),
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.material {
            Material::Rsa(key) => write!(
                f,
                "PublicKey({}, {} bits)",
                self.algorithm,
                key.n().bit_width()
            ),
            Material::Ed25519(_) | Material::P256(_) => write!(f, "PublicKey({})", self.algorithm),
        }
    }
}

impl Fit {
    const fn of(fits: bool) -> Self {
        if fits { Self::Fits } else { Self::Fails }
    }
}

fn p256_fit(
    key: &P256Key,
    message: &[u8],
    signature: Result<P256Signature, p256::ecdsa::Error>,
) -> Fit {
    match signature {
        Ok(signature) => Fit::of(
            key.verify_prehash(&Sha256::digest(message), &signature)
                .is_ok(),
        ),
        Err(_) => Fit::Malformed,
    }
}

/// `n` and `e` come without leading zeros.
fn rsa(n: &[u8], e: &[u8]) -> Result<RsaKey, KeyError> {
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(KeyError::ModulusBits(bits));
    }
    if n.last().is_some_and(|last| last % 2 == 0) {
        return Err(KeyError::BadRsa("modulus is even"));
    }
    match e {
        [.., last] if last % 2 == 0 => return Err(KeyError::BadRsa("exponent is even")),
        // With 1 every signature is its own message.
        [] | [1] => return Err(KeyError::BadRsa("exponent is below 3")),
        // The library's bound, 2^33 - 1, is there because work grows with the exponent.
        e if e.len() > 5 || e.len() == 5 && e.first() > Some(&1) => {
            return Err(KeyError::BadRsa("exponent has more than 33 bits"));
        }
        _ => {}
    }
    RsaKey::new_with_size_limits(
        BoxedUint::from_be_slice_vartime(n),
        BoxedUint::from_be_slice_vartime(e),
        RSA_BITS_MIN..=RSA_BITS_MAX,
    )
    .map_err(|_| KeyError::BadRsa("modulus and exponent do not belong together"))
}

fn ed25519(bytes: &[u8; 32]) -> Result<Ed25519Key, KeyError> {
    let bad = |why| KeyError::BadPoint("Ed25519", why);
    let key =
        Ed25519Key::from_bytes(bytes).map_err(|_| bad("its 32 bytes are no point of the curve"))?;
    // With a point of small order one signature fits almost every message.
    if key.is_weak() {
        return Err(bad(
            "its point has a small order, so that anybody could sign",
        ));
    }
    let point = key.to_edwards();
    // A key has one spelling: another one is nobody's honest output, and libraries differ on it.
    if point.compress().as_bytes() != bytes || !point.is_torsion_free() {
        return Err(bad("its 32 bytes are not what any key generation puts out"));
    }
    Ok(key)
}

fn p256(point: &[u8]) -> Result<P256Key, KeyError> {
    let bad = |why| KeyError::BadPoint("P-256", why);
    if !matches!(
        (point.first(), point.len()),
        (Some(4), 65) | (Some(2 | 3), 33)
    ) {
        return Err(bad(
            "its point is neither 65 bytes that begin with 4 nor 33 that begin with 2 or 3",
        ));
    }
    P256Key::from_sec1_bytes(point).map_err(|_| bad("it is no point of the curve"))
}

/// The DER of `RSASSA-PSS-params` for one hash throughout and a salt of its length: what OpenSSL writes.
fn pss_parameters(hash: Hash) -> Vec<u8> {
    let (last, salt) = match hash {
        Hash::Sha256 => (1, 32),
        Hash::Sha384 => (2, 48),
        Hash::Sha512 => (3, 64),
    };
    let identifier = [
        0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last, 0x05, 0x00,
    ];
    let mut der = vec![0x30, 0x34, 0xa0, 0x0f];
    der.extend(identifier);
    der.extend([
        0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    ]);
    der.extend(identifier);
    der.extend([0xa2, 0x03, 0x02, 0x01, salt]);
    der
}

fn other_type(found: &Found, wanted: Algorithm) -> KeyError {
    let (found, advice) = match found {
        Found::Rsa { .. } => (
            "an RSA key",
            "choose rsa-pkcs1-sha256 (most banks) or another rsa- algorithm, as the bank's document says",
        ),
        Found::RsaPss { .. } => (
            "an RSASSA-PSS key",
            "choose rsa-pss-sha256, -sha384 or -sha512",
        ),
        Found::Ed25519(_) => ("an Ed25519 key", "choose ed25519"),
        Found::P256(_) => (
            "an EC key on P-256",
            "choose ecdsa-p256-sha256, or ecdsa-p256-sha256-p1363 if signatures have 64 bytes",
        ),
        Found::OtherCurve(curve) => return KeyError::Curve(curve),
        Found::Unknown => (
            "a public key of another kind",
            "supported are RSA, Ed25519 and EC on P-256",
        ),
    };
    KeyError::OtherType {
        found,
        wanted,
        advice,
    }
}
