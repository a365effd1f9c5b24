//! Why does this signature not fit? Offline help for the person whom the bank's first callback was refused.
//!
//! It tries what usually goes wrong, alone and together, until something fits, and says what that was. A hint is never a
//! verdict: nothing here is reached from a request.

mod rewrite;

use std::fmt;

use base64ct::{Base64Unpadded, Encoding as _};
use sha2::{Digest as _, Sha256};

use self::rewrite::Change;
use super::algorithm::{Algorithm, EcdsaForm, Hash};
use super::field::Encoding;
use super::freshness::Unit;
use super::key::{Fit, PublicKey};
use super::{Head, Reason, Verifier, message};
use crate::policy::operation::UnixMillis;

/// The most mistakes that are looked for together.
const TOGETHER_MAX: usize = 3;

/// What went wrong. The names are stable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// The signature's header is not there, or has nothing of ours in it.
    SignatureMissing,
    /// The signature's header stands more than once.
    SignatureDoubled,
    /// A header of the message is not there once.
    SignedHeader,
    /// The timestamp is outside its tolerance.
    Timestamp,
    /// The timestamp is in another unit.
    TimestampUnit,
    /// A key fits outside its window.
    KeyWindow,
    /// The value has another prefix.
    Prefix,
    /// The signature is in another encoding.
    Encoding,
    /// The signature is encoded twice.
    DoubleEncoding,
    /// PKCS#1 v1.5 and PSS are confused.
    Padding,
    /// Another size of hash.
    Hash,
    /// PSS with a salt of another length.
    PssSalt,
    /// DER and P1363 are confused.
    EcdsaForm,
    /// The signed body has other line ends, at its end or everywhere.
    LineEnd,
    /// The signed body has a byte order mark, or none.
    Bom,
    /// The signed body is the same JSON, written in another way.
    Json,
    /// Another message than the template's was signed.
    Message,
    /// Nothing fits.
    WrongKey,
}

impl Code {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature-missing",
            Self::SignatureDoubled => "signature-doubled",
            Self::SignedHeader => "signed-header",
            Self::Timestamp => "timestamp",
            Self::TimestampUnit => "timestamp-unit",
            Self::KeyWindow => "key-window",
            Self::Prefix => "prefix",
            Self::Encoding => "encoding",
            Self::DoubleEncoding => "double-encoding",
            Self::Padding => "padding",
            Self::Hash => "hash",
            Self::PssSalt => "pss-salt",
            Self::EcdsaForm => "ecdsa-form",
            Self::LineEnd => "line-end",
            Self::Bom => "bom",
            Self::Json => "json",
            Self::Message => "message",
            Self::WrongKey => "wrong-key",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, and the next step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hint {
    /// What it is.
    pub code: Code,
    /// A sentence with the next step.
    pub sentence: String,
}

impl Hint {
    fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }
}

/// One of the ways to read a part of the request, and what is wrong if it is the right one.
struct Guess<T> {
    value: T,
    hints: Vec<Hint>,
}

impl<T> Guess<T> {
    fn and(&self, hint: Hint) -> Vec<Hint> {
        self.hints.iter().cloned().chain([hint]).collect()
    }
}

/// What is wrong with a request that the verifier rejects: nothing if it accepts it, else at least one hint.
///
/// The work is bounded, but it is seconds for a large body and many keys: for a command line, not for a server.
#[must_use]
pub fn diagnose(verifier: &Verifier, head: &Head<'_>, body: &[u8], now: UnixMillis) -> Vec<Hint> {
    let Err(reason) = verifier.matching(head, body, now) else {
        return Vec::new();
    };
    let mut hints = plain(verifier, head, &reason, now);
    let signatures = signatures(verifier, head);
    if let Some(found) = search(
        &signatures,
        &messages(verifier, head, body),
        &keys(verifier, now),
    ) {
        hints.extend(found);
    } else if !signatures.is_empty() {
        hints.push(Hint::new(
            Code::WrongKey,
            "No key fits, not even with the usual mistakes: ask the bank for its current public key of this environment \
             (test and production differ), make sure that the body is what arrived, byte for byte, and compare `message` \
             with the bank's document",
        ));
    }
    if hints.is_empty() {
        hints.push(Hint::new(
            Code::Encoding,
            format!(
                "The signature, or one of the list, cannot be decoded: compare it character by character with {}, and see \
                 whether something cut it off",
                verifier.field.encoding().as_str()
            ),
        ));
    }
    hints
}

/// What needs no arithmetic.
fn plain(verifier: &Verifier, head: &Head<'_>, reason: &Reason, now: UnixMillis) -> Vec<Hint> {
    let mut hints = Vec::new();
    match reason {
        Reason::Missing => hints.push(Hint::new(
            Code::SignatureMissing,
            format!(
                "The header {} is not there or holds no signature of the configured kind: compare `header` (and `list`) with \
                 the bank's document, and see whether a proxy in front removes it",
                verifier.header
            ),
        )),
        Reason::Doubled => hints.push(Hint::new(
            Code::SignatureDoubled,
            format!("The header {} stands more than once: a proxy in front adds to it, or the bank sends two; one must go", verifier.header),
        )),
        Reason::HeaderMissing(name) | Reason::HeaderDoubled(name) => hints.push(Hint::new(
            Code::SignedHeader,
            format!("{reason}: `message` needs header:{name} exactly once; see what the bank sends and what a proxy in front changes"),
        )),
        _ => {}
    }
    let Some(timestamp) = &verifier.timestamp else {
        return hints;
    };
    let Ok(value) = message::only(head.headers, &timestamp.header) else {
        return hints;
    };
    let value = value.as_bytes();
    match timestamp.unit.read(value) {
        Some(at) if timestamp.is_fresh(at, now) => {}
        Some(at) => {
            let (distance, side) = (
                at.0.abs_diff(now.0) / 1000,
                if at < now { "behind" } else { "ahead of" },
            );
            hints.push(Hint::new(
                Code::Timestamp,
                format!(
                    "The timestamp is {distance} s {side} the time of judging, and {} s are allowed: an old callback is judged \
                     with --now, a wrong clock is repaired, and a bank that repeats the same bytes needs a longer tolerance or none",
                    timestamp.tolerance.as_secs()
                ),
            ));
        }
        None => {
            let unit = Unit::ALL
                .into_iter()
                .find(|unit| unit.read(value).is_some());
            let advice = unit.map_or_else(
                || "it is none of s (ten digits), ms (thirteen digits) and rfc3339".to_owned(),
                |unit| format!("it is in {}: set `unit: {}`", unit.as_str(), unit.as_str()),
            );
            hints.push(Hint::new(
                Code::TimestampUnit,
                format!(
                    "The timestamp cannot be read as {}; {advice}",
                    timestamp.unit.as_str()
                ),
            ));
        }
    }
    hints
}

/// Every way to read the signature's header.
fn signatures(verifier: &Verifier, head: &Head<'_>) -> Vec<Guess<Vec<u8>>> {
    let mut found = Vec::new();
    for value in head.headers.get_all(&verifier.header) {
        let value = value.as_bytes();
        for text in texts(verifier, value) {
            let configured = verifier.field.encoding();
            for (encoding, bytes) in decoded(text.value) {
                let hints = if encoding == Some(configured) {
                    text.hints.clone()
                } else {
                    text.and(Hint::new(
                        Code::Encoding,
                        encoding_advice(encoding, configured),
                    ))
                };
                let outer = Guess {
                    value: bytes,
                    hints,
                };
                for (_, inner) in decoded(&outer.value) {
                    let hint = Hint::new(
                        Code::DoubleEncoding,
                        "The signature is encoded twice (such as base64 of hex): the sender should encode the raw bytes once",
                    );
                    found.push(Guess {
                        value: inner,
                        hints: outer.and(hint),
                    });
                }
                found.push(outer);
            }
        }
    }
    found
}

fn encoding_advice(encoding: Option<Encoding>, configured: Encoding) -> String {
    encoding.map_or_else(
        || "The signature is base64 without its padding: set `encoding: base64url` if it has no + or /, or ask the sender to pad it".to_owned(),
        |encoding| format!("The signature is {0}, not {1}: set `encoding: {0}`", encoding.as_str(), configured.as_str()),
    )
}

/// The configured reading, or else what stands behind another prefix.
fn texts<'v>(verifier: &Verifier, value: &'v [u8]) -> Vec<Guess<&'v [u8]>> {
    if let Ok(texts) = verifier.field.texts(value) {
        return texts
            .into_iter()
            .map(|value| Guess {
                value,
                hints: Vec::new(),
            })
            .collect();
    }
    let hint = || {
        Hint::new(
            Code::Prefix,
            format!(
                "The header's value does not begin as configured (`prefix`, `list`; prefix is {:?}): set them as the value is",
                verifier.field.prefix()
            ),
        )
    };
    // `sha256=…`, `v1,…`: the signature is behind the first mark, or there is no mark.
    let behind = value
        .iter()
        .position(|byte| b"=,: ".contains(byte))
        .and_then(|at| value.get(at + 1..));
    [Some(value), behind]
        .into_iter()
        .flatten()
        .map(|value| Guess {
            value,
            hints: vec![hint()],
        })
        .collect()
}

/// Every encoding that the text may be in; base64 without padding has no name of its own.
fn decoded(text: &[u8]) -> Vec<(Option<Encoding>, Vec<u8>)> {
    let named = Encoding::ALL
        .into_iter()
        .map(|encoding| (Some(encoding), encoding.decode(text)));
    let unpadded = std::str::from_utf8(text)
        .ok()
        .and_then(|text| Base64Unpadded::decode_vec(text).ok());
    named
        .chain([(None, unpadded)])
        .filter_map(|(encoding, bytes)| Some((encoding, bytes.filter(|bytes| !bytes.is_empty())?)))
        .collect()
}

/// Every message that may have been signed.
fn messages(verifier: &Verifier, head: &Head<'_>, body: &[u8]) -> Vec<Guess<Vec<u8>>> {
    let mut found = Vec::new();
    let original = Guess {
        value: body.to_vec(),
        hints: Vec::new(),
    };
    let changed = rewrite::originals(body)
        .into_iter()
        .map(|(change, value)| Guess {
            value,
            hints: vec![body_hint(change)],
        });
    for body in [original].into_iter().chain(changed) {
        let hint = |what| {
            body.and(Hint::new(
                Code::Message,
                format!("The signature is over {what}, not over the configured message: set `message: [{what}]` if the bank documents it so"),
            ))
        };
        if let Ok(message) = verifier.message.build(head, &body.value) {
            found.push(Guess {
                value: message.into_owned(),
                hints: body.hints.clone(),
            });
        }
        let digest: String = Sha256::digest(&body.value)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        found.push(Guess {
            value: digest.into_bytes(),
            hints: hint("body-sha256"),
        });
        found.push(Guess {
            hints: hint("body"),
            value: body.value,
        });
    }
    found
}

fn body_hint(change: Change) -> Hint {
    const NEXT: &str = "the gate must get the bytes that the bank sent, so look for what stores or rewrites them on the way \
                        (a proxy with a script, an editor that saved the file, a test client)";
    match change {
        Change::LineEnd(how) => Hint::new(
            Code::LineEnd,
            format!("The signed body is this one {how}: {NEXT}"),
        ),
        Change::Bom(how) => Hint::new(
            Code::Bom,
            format!("The signed body is this one {how}: {NEXT}"),
        ),
        Change::Json(style) => Hint::new(
            Code::Json,
            format!(
                "The signed body is the same JSON written otherwise ({}): it was read and written again, and {NEXT}",
                style.describe()
            ),
        ),
        Change::SortedJson => Hint::new(
            Code::Json,
            format!(
                "The signed body is the same JSON with its names in alphabetical order: it was read and written again, and {NEXT}"
            ),
        ),
    }
}

/// A key, and whether any length of salt is taken.
type AsUsed = (PublicKey, bool);

/// Every way to use the keys.
fn keys(verifier: &Verifier, now: UnixMillis) -> Vec<Guess<AsUsed>> {
    let mut found = Vec::new();
    for key in &verifier.keys {
        let mut window = Vec::new();
        if !key.is_in_window(now) {
            window.push(Hint::new(
                Code::KeyWindow,
                format!("The key {} fits, but is outside its window: correct its not_before or not_after if the bank still uses it", key.id),
            ));
        }
        let base = Guess {
            value: (),
            hints: window,
        };
        let configured = key.key.algorithm();
        for algorithm in Algorithm::ALL {
            let Some(other) = key.key.with_algorithm(algorithm) else {
                continue;
            };
            let mut hints = base.hints.clone();
            hints.extend(algorithm_hint(configured, algorithm));
            if matches!(algorithm, Algorithm::RsaPss(_)) {
                let salt = Hint::new(
                    Code::PssSalt,
                    "The PSS salt is not as long as the hash, and only that length is accepted: ask the bank to sign with it \
                     (OpenSSL: rsa_pss_saltlen:digest)",
                );
                let hints = hints.iter().cloned().chain([salt]).collect();
                found.push(Guess {
                    value: (other.clone(), true),
                    hints,
                });
            }
            found.push(Guess {
                value: (other, false),
                hints,
            });
        }
    }
    found
}

fn algorithm_hint(configured: Algorithm, fits: Algorithm) -> Option<Hint> {
    let parts = |algorithm| match algorithm {
        Algorithm::RsaPkcs1(hash) => Some((false, hash)),
        Algorithm::RsaPss(hash) => Some((true, hash)),
        Algorithm::Ed25519 | Algorithm::EcdsaP256(_) => None,
    };
    if configured == fits {
        return None;
    }
    Some(match (parts(configured), parts(fits)) {
        (Some((padding, _)), Some((other, _))) if padding != other => Hint::new(
            Code::Padding,
            format!(
                "The signature is {fits}, not {configured}: PKCS#1 v1.5 and PSS are confused; set `algorithm: {fits}`"
            ),
        ),
        (Some((_, hash)), _) => Hint::new(
            Code::Hash,
            format!(
                "The signature is {fits}, not {configured}: another hash than {}; set `algorithm: {fits}`",
                hash_name(hash)
            ),
        ),
        (None, _) => {
            let form = if fits == Algorithm::EcdsaP256(EcdsaForm::Der) {
                "DER"
            } else {
                "P1363 (64 bytes)"
            };
            Hint::new(
                Code::EcdsaForm,
                format!("The signature is in the form of {form}: set `algorithm: {fits}`"),
            )
        }
    })
}

const fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "SHA-256",
        Hash::Sha384 => "SHA-384",
        Hash::Sha512 => "SHA-512",
    }
}

/// The fewest mistakes with which something fits.
fn search(
    signatures: &[Guess<Vec<u8>>],
    messages: &[Guess<Vec<u8>>],
    keys: &[Guess<AsUsed>],
) -> Option<Vec<Hint>> {
    (0..=TOGETHER_MAX).find_map(|mistakes| {
        keys.iter().find_map(|key| {
            signatures.iter().find_map(|signature| {
                let left = mistakes.checked_sub(key.hints.len() + signature.hints.len())?;
                let (public, any_salt) = &key.value;
                messages
                    .iter()
                    .filter(|message| message.hints.len() == left)
                    .find(|message| match any_salt {
                        true => public.fits_with_any_salt(&message.value, &signature.value),
                        false => public.verify(&message.value, &signature.value) == Fit::Fits,
                    })
                    .map(|message| [&key.hints[..], &signature.hints, &message.hints].concat())
            })
        })
    })
}
