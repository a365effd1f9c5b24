//! The forms in which a public key arrives: PEM, base64 with nothing around it, hex; and everything that is sent instead.
//!
//! It finds the numbers of a key and which type of key it is. Whether they are good numbers is [`super::key`]'s affair.
//! What it refuses it never repeats.

use base64ct::{Base64, Encoding as _};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::key::KeyError;

/// A certificate with an RSA-8192 key is under 8 KiB of PEM.
pub(super) const FILE_MAX: usize = 64 << 10;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVES: [(ObjectIdentifier, &str); 4] = [
    (P256, "P-256"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), "P-384"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), "P-521"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), "secp256k1"),
];
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// The key that was found, before anything about it is checked.
#[derive(Debug)]
pub(super) enum Found {
    /// RSA, for any padding.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// RSA, for PSS only, and perhaps for certain parameters only.
    RsaPss {
        n: Vec<u8>,
        e: Vec<u8>,
        parameters: Option<Vec<u8>>,
    },
    /// Ed25519.
    Ed25519([u8; 32]),
    /// A point that should be on P-256.
    P256(Vec<u8>),
    /// A key on another curve.
    OtherCurve(&'static str),
    /// A key of a type that is not supported.
    Unknown,
}

/// Reads any of the forms; the raw ones only for Ed25519, whose keys have no other structure.
pub(super) fn read(bytes: &[u8], raw_ed25519: bool) -> Result<Found, KeyError> {
    if bytes.len() > FILE_MAX {
        return Err(KeyError::TooLarge);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(binary(bytes));
    };
    if text.contains('\0') {
        return Err(binary(bytes));
    }
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.contains("-----BEGIN ") {
        return pem(text);
    }
    if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
        return Err(KeyError::OpenSsh);
    }
    if text.starts_with('{') {
        return Err(KeyError::Json);
    }
    if text.starts_with("whsec_") {
        return Err(KeyError::SharedSecret);
    }
    if text.starts_with("whsk_") {
        return Err(KeyError::PrivateKey);
    }
    if raw_ed25519 && let Some(found) = raw(text) {
        return found;
    }
    bare(text)
}

/// Binary may be a private key in DER: that is worth more words.
fn binary(bytes: &[u8]) -> KeyError {
    if is_private(bytes) {
        KeyError::PrivateKey
    } else {
        KeyError::Binary
    }
}

/// 32 bytes in hex or base64. `whpk_` is how Standard Webhooks marks a public key.
fn raw(text: &str) -> Option<Result<Found, KeyError>> {
    let bytes = super::field::hex(text.as_bytes())
        .or_else(|| Base64::decode_vec(text.strip_prefix("whpk_").unwrap_or(text)).ok())?;
    match bytes.len() {
        // libsodium's secret key: the seed and the public key.
        64 => Some(Err(KeyError::PrivateKey)),
        _ => bytes.try_into().ok().map(|key| Ok(Found::Ed25519(key))),
    }
}

/// Base64 of a SubjectPublicKeyInfo, or of a whole PEM file.
fn bare(text: &str) -> Result<Found, KeyError> {
    let decoded = Base64::decode_vec(&without_whitespace(text));
    let Ok(der) = decoded else {
        let one_word = text.len() <= 256 && !text.contains(char::is_whitespace);
        return Err(if one_word {
            KeyError::SharedSecret
        } else {
            KeyError::Unreadable
        });
    };
    if let Ok(inner) = std::str::from_utf8(&der)
        && inner.contains("-----BEGIN ")
    {
        return pem(inner);
    }
    if let Ok(found) = spki(&der) {
        return Ok(found);
    }
    Err(if is_private(&der) {
        KeyError::PrivateKey
    } else if pkcs1(&der).is_ok() {
        KeyError::NeedsPemLines("a PKCS#1 key", "RSA PUBLIC KEY")
    } else if Certificate::from_der(&der).is_ok() {
        KeyError::NeedsPemLines("a certificate", "CERTIFICATE")
    } else if der.first() == Some(&0x30) {
        KeyError::Damaged("base64 of an unknown structure")
    } else {
        KeyError::SharedSecret
    })
}

/// One block of PEM; text around it is ignored, as OpenSSL does.
fn pem(text: &str) -> Result<Found, KeyError> {
    // First of all, wherever it stands: a file with both halves is the wrong file.
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::PrivateKey);
    }
    let mut blocks = text.split("-----BEGIN ").skip(1);
    let block = blocks.next().unwrap_or_default();
    let more = blocks.count();
    if more > 0 {
        return Err(KeyError::SeveralBlocks(more.saturating_add(1)));
    }
    let (label, rest) = block
        .split_once("-----")
        .ok_or(KeyError::Damaged("its BEGIN line has no end"))?;
    let known = match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => Ok(()),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Err("a certificate request"),
        "PKCS7" | "CMS" => Err("a PKCS#7 bundle"),
        "EC PARAMETERS" | "DH PARAMETERS" | "DSA PARAMETERS" => Err("parameters"),
        "X509 CRL" => Err("a revocation list"),
        "PGP PUBLIC KEY BLOCK" | "PGP MESSAGE" | "PGP SIGNATURE" => Err("PGP data"),
        "SSH2 PUBLIC KEY" => return Err(KeyError::OpenSsh),
        _ => Err("something else"),
    };
    known.map_err(KeyError::OtherPem)?;
    let (body, end) = rest
        .split_once("-----END ")
        .ok_or(KeyError::Damaged("it has no END line"))?;
    if end.split_once("-----").map(|(end, _)| end) != Some(label) {
        return Err(KeyError::Damaged(
            "its END line is not that of its BEGIN line",
        ));
    }
    if body.contains("\\n") {
        return Err(KeyError::Damaged(
            "its line ends are written as \\n, as in JSON",
        ));
    }
    let der = Base64::decode_vec(&without_whitespace(body))
        .map_err(|_| KeyError::Damaged("what is between its lines is not base64"))?;
    let found = match label {
        "PUBLIC KEY" => spki(&der),
        "RSA PUBLIC KEY" => pkcs1(&der),
        _ => certificate(&der),
    };
    // A private key below the label of a public one.
    found.map_err(|error| match error {
        KeyError::Damaged(_) if is_private(&der) => KeyError::PrivateKey,
        error => error,
    })
}

fn without_whitespace(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

fn certificate(der: &[u8]) -> Result<Found, KeyError> {
    let damaged = KeyError::Damaged("the certificate cannot be read");
    let Ok(certificate) = Certificate::from_der(der) else {
        return Err(damaged);
    };
    let info = certificate.tbs_certificate().subject_public_key_info();
    info.to_der().map_or(Err(damaged), |der| spki(&der))
}

fn spki(der: &[u8]) -> Result<Found, KeyError> {
    let info = SubjectPublicKeyInfoRef::from_der(der)
        .map_err(|_| KeyError::Damaged("the key's structure cannot be read"))?;
    let damaged = || KeyError::Damaged("the key's parameters or its bits cannot be read");
    let key = info.subject_public_key.as_bytes().ok_or_else(damaged)?;
    let parameters = info.algorithm.parameters;
    match info.algorithm.oid {
        // RFC 3279: the parameters are NULL and are there.
        RSA_ENCRYPTION if parameters.is_some_and(|any| any.is_null()) => pkcs1(key),
        RSA_ENCRYPTION => Err(damaged()),
        RSASSA_PSS => {
            let parameters = parameters
                .map(|any| any.to_der())
                .transpose()
                .map_err(|_| damaged())?;
            match pkcs1(key)? {
                Found::Rsa { n, e } => Ok(Found::RsaPss { n, e, parameters }),
                other => Ok(other),
            }
        }
        ED25519 if parameters.is_none() => {
            key.try_into().map(Found::Ed25519).map_err(|_| damaged())
        }
        ED25519 => Err(damaged()),
        EC_PUBLIC_KEY => {
            let curve = info
                .algorithm
                .parameters_oid()
                .map_err(|_| KeyError::Damaged("the curve is not given by its name"))?;
            Ok(match CURVES.iter().find(|(oid, _)| *oid == curve) {
                Some((oid, _)) if *oid == P256 => Found::P256(key.to_vec()),
                Some((_, name)) => Found::OtherCurve(name),
                None => Found::OtherCurve("another curve"),
            })
        }
        _ => Ok(Found::Unknown),
    }
}

fn pkcs1(der: &[u8]) -> Result<Found, KeyError> {
    let numbers = || -> x509_cert::der::Result<_> {
        let mut reader = SliceReader::new(der)?;
        let (n, e) = reader.sequence(|reader| {
            Ok::<_, x509_cert::der::Error>((UintRef::decode(reader)?, UintRef::decode(reader)?))
        })?;
        reader.finish()?;
        Ok(Found::Rsa {
            n: n.as_bytes().to_vec(),
            e: e.as_bytes().to_vec(),
        })
    };
    numbers().map_err(|_| KeyError::Damaged("the RSA key's numbers cannot be read"))
}

/// PKCS#8, PKCS#1 and SEC1 private keys are a sequence that begins with a version of 0 or 1; encrypted PKCS#8 one of an
/// identifier of PKCS#5 or PKCS#12. No public key begins so.
fn is_private(der: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(der) else {
        return false;
    };
    let Ok(header) = x509_cert::der::Header::decode(&mut reader) else {
        return false;
    };
    if header.tag() != x509_cert::der::Tag::Sequence {
        return false;
    }
    let rest = der.get(
        der.len()
            .saturating_sub(u32::from(reader.remaining_len()) as usize)..,
    );
    matches!(rest, Some([0x02, 0x01, 0x00 | 0x01, ..]))
        || matches!(
            rest,
            Some([
                0x30,
                _,
                0x06,
                _,
                0x2a,
                0x86,
                0x48,
                0x86,
                0xf7,
                0x0d,
                0x01,
                5 | 12,
                ..
            ])
        )
}
