//! What the signer may sign: its whole judgement, as functions of bytes.
//!
//! The signer must not be an oracle: whoever has taken over the gate may not get a payment order, a CSR or a token
//! signed. So it is handed whole messages, never digests, and signs the two shapes that a TLS client signs and the
//! checkpoint that it builds itself. How a key signs, and who may ask, is not known here.

pub mod rate;

/// RFC 8446 section 4.4.3: 64 spaces, the context of a *client*, a zero byte.
const TLS13_PREFIX: &[u8; 98] =
    b"                                                                TLS 1.3, client CertificateVerify\0";
/// Only the transcript hashes of the defined suites: SHA-256 and SHA-384.
const TLS13_HASHES: [usize; 2] = [32, 48];
/// `legacy_version` of both hellos (RFC 5246 sections 7.4.1.2 and 7.4.1.3).
const TLS12: [u8; 2] = [3, 3];
/// Handshake types of RFC 5246 section 7.4, in the order in which a client's signature covers them.
const TLS12_TRANSCRIPT: [u8; 8] = [
    1,  // ClientHello
    2,  // ServerHello
    11, // Certificate, the server's
    12, // ServerKeyExchange
    13, // CertificateRequest
    14, // ServerHelloDone
    11, // Certificate, ours
    16, // ClientKeyExchange
];
/// CertificateStatus (RFC 6066 section 8): a stapled OCSP answer, directly after the server's certificate.
const CERTIFICATE_STATUS: u8 = 22;
/// Where it may stand among the others.
const STATUS_AFTER: usize = 3;
/// The longest message that is looked at: a TLS 1.2 transcript with both chains is a few KiB.
pub const MESSAGE_MAX: usize = 64 << 10;

/// The signature schemes that are ever used (RFC 8446 section 4.2.3). SHA-1 is not among them.
pub const SCHEMES: [u16; 10] = [
    0x0403, // ecdsa_secp256r1_sha256
    0x0503, // ecdsa_secp384r1_sha384
    0x0603, // ecdsa_secp521r1_sha512
    0x0807, // ed25519
    0x0804, // rsa_pss_rsae_sha256
    0x0805, // rsa_pss_rsae_sha384
    0x0806, // rsa_pss_rsae_sha512
    0x0401, // rsa_pkcs1_sha256
    0x0501, // rsa_pkcs1_sha384
    0x0601, // rsa_pkcs1_sha512
];
/// Of those, what TLS 1.3 forbids in a handshake.
const ONLY_TLS12: [u16; 3] = [0x0401, 0x0501, 0x0601];

/// What may be signed with a key, from its bank's configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lowest {
    /// `min_version: "1.2"`: a TLS 1.2 transcript, too.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// Whether a message may be signed.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is what a TLS client signs.
    Sign(Shape),
    /// It is not, or not here.
    Refuse(Refusal),
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// The transcript of a TLS 1.2 handshake.
    Tls12,
    /// The content of a TLS 1.3 client `CertificateVerify`.
    Tls13,
}

/// Why a message is not signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Neither of the two shapes.
    #[error("it is not what a TLS client signs")]
    Message,
    /// A scheme that is not allowed for it.
    #[error("the signature scheme is not allowed for it")]
    Scheme,
    /// TLS 1.2, and the configuration says 1.3.
    #[error("it is a TLS 1.2 handshake, and the bank's tls.min_version is 1.3")]
    Version,
}

/// Judges a message and the scheme that it is to be signed with.
pub fn judge(message: &[u8], scheme: u16, lowest: Lowest) -> Verdict {
    let shape = if is_tls13(message) {
        Shape::Tls13
    } else if is_tls12(message) {
        Shape::Tls12
    } else {
        return Verdict::Refuse(Refusal::Message);
    };
    if shape == Shape::Tls12 && lowest == Lowest::Tls13 {
        return Verdict::Refuse(Refusal::Version);
    }
    let allowed =
        SCHEMES.contains(&scheme) && (shape == Shape::Tls12 || !ONLY_TLS12.contains(&scheme));
    if allowed {
        Verdict::Sign(shape)
    } else {
        Verdict::Refuse(Refusal::Scheme)
    }
}

fn is_tls13(message: &[u8]) -> bool {
    message
        .strip_prefix(TLS13_PREFIX)
        .is_some_and(|hash| TLS13_HASHES.contains(&hash.len()))
}

/// A content that [`judge`] takes, over a hash that no handshake has: a new signer tries its keys with it.
#[must_use]
pub fn self_test_message() -> Vec<u8> {
    let mut message = TLS13_PREFIX.to_vec();
    message.resize(TLS13_PREFIX.len() + 32, 0);
    message
}

/// Walks a transcript: each message whole, each type in its place, the last one ending where the bytes do.
fn is_tls12(message: &[u8]) -> bool {
    if message.len() > MESSAGE_MAX {
        return false;
    }
    let mut rest = message;
    for (index, expected) in TLS12_TRANSCRIPT.into_iter().enumerate() {
        if index == STATUS_AFTER && rest.first() == Some(&CERTIFICATE_STATUS) {
            let Some((_, _, after)) = handshake(rest) else {
                return false;
            };
            rest = after;
        }
        let Some((found, body, after)) = handshake(rest) else {
            return false;
        };
        let hello = matches!(found, 1 | 2);
        if found != expected || (hello && !body.starts_with(&TLS12)) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// Type, body, and what follows (RFC 5246 section 7.4: u8, u24, bytes).
fn handshake(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let [kind, a, b, c] = *head;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    let (body, after) = rest.split_at_checked(length)?;
    Some((kind, body, after))
}

#[cfg(test)]
mod tests;
