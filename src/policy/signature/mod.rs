//! Is this callback the bank's? A signature over raw bytes is judged before anything reads the body.
//!
//! The story: [`field`] reads the signatures out of their header, [`message`] puts together the bytes that must have been
//! signed, [`freshness`] looks at a signed timestamp, and every [`key`] inside its window is tried. The body goes in with
//! the request and comes out only of [`Verified`]. [`diagnose`] is for people afterwards, when a signature does not fit.
//!
//! Which algorithm is used is a property of the key in the configuration. Nothing in a request chooses it.

pub mod algorithm;
pub mod diagnose;
pub mod field;
pub mod freshness;
pub mod key;
pub mod message;
mod read;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderName};

pub use algorithm::{Algorithm, AlgorithmError, EcdsaForm, Hash};
pub use diagnose::{Code, Hint, diagnose};
pub use field::{Encoding, Field, FieldError, FieldFault, List};
pub use freshness::{TOLERANCE_ADVISED, Timestamp, Unit, parse_rfc3339};
pub use key::{Fit, KeyError, PublicKey};
pub use message::{Part, Template, TemplateError};

use super::operation::UnixMillis;

/// The most keys of a verifier. Each is tried, so each is work that a stranger can ask for.
pub const KEYS_MAX: usize = 8;

/// The most characters of a key's id.
const KEY_ID_MAX: usize = 64;

/// One of the bank's keys, and when it may be used.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in records and deliveries.
    pub id: Arc<str>,
    /// The key.
    pub key: PublicKey,
    /// From when on, that moment included.
    pub not_before: Option<UnixMillis>,
    /// Until when, that moment included.
    pub not_after: Option<UnixMillis>,
}

impl Key {
    /// Whether it may be used now.
    #[must_use]
    pub fn is_in_window(&self, now: UnixMillis) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.not_after.is_none_or(|until| now <= until)
    }
}

/// The parts of a request's head that a signature may be about.
#[derive(Clone, Copy, Debug)]
pub struct Head<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path as it stood in the request, without its query.
    pub path: &'r str,
    /// The headers.
    pub headers: &'r HeaderMap,
}

/// How one sender's callbacks are verified.
#[derive(Clone, Debug)]
pub struct Verifier {
    header: HeaderName,
    field: Field,
    message: Template,
    keys: Vec<Key>,
    timestamp: Option<Timestamp>,
}

/// Why settings make no verifier.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SetupError {
    /// No key.
    #[error("keys is empty; give at least one of the bank's public keys")]
    NoKeys,
    /// Too many keys.
    #[error(
        "more than {KEYS_MAX} keys; each is tried for every callback, so remove those that are no longer used"
    )]
    TooManyKeys,
    /// An id that cannot stand in a header or a log.
    #[error("a key's id holds 1 to {KEY_ID_MAX} letters, digits, `.`, `_` and `-`")]
    KeyId,
    /// Two keys with one id.
    #[error("the key id `{0}` stands twice; records name keys by their ids, so each needs its own")]
    SameKeyId(Arc<str>),
    /// A window that ends before it begins.
    #[error("the key `{0}` can never be used: its not_after is before its not_before")]
    EmptyWindow(Arc<str>),
    /// A timestamp that is not signed.
    #[error(
        "the timestamp proves nothing unless it is signed; add header:{0} to message, or remove timestamp"
    )]
    UnsignedTimestamp(HeaderName),
    /// A signature over itself.
    #[error("header:{0} holds the signature itself and cannot be a part of message")]
    SignatureInMessage(HeaderName),
}

impl Verifier {
    /// Settings that were checked against each other.
    ///
    /// # Errors
    /// Every [`SetupError`].
    pub fn new(
        header: HeaderName,
        field: Field,
        message: Template,
        keys: Vec<Key>,
        timestamp: Option<Timestamp>,
    ) -> Result<Self, Vec<SetupError>> {
        let mut errors = Vec::new();
        match keys.len() {
            0 => errors.push(SetupError::NoKeys),
            1..=KEYS_MAX => {}
            _ => errors.push(SetupError::TooManyKeys),
        }
        let mut ids = HashSet::new();
        for Key {
            id,
            not_before,
            not_after,
            ..
        } in &keys
        {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !(1..=KEY_ID_MAX).contains(&id.len()) || !id.bytes().all(good) {
                errors.push(SetupError::KeyId);
            } else if !ids.insert(id) {
                errors.push(SetupError::SameKeyId(id.clone()));
            }
            if let (Some(from), Some(until)) = (not_before, not_after)
                && until < from
            {
                errors.push(SetupError::EmptyWindow(id.clone()));
            }
        }
        if let Some(timestamp) = &timestamp
            && !message.covers(&timestamp.header)
        {
            errors.push(SetupError::UnsignedTimestamp(timestamp.header.clone()));
        }
        if message.covers(&header) {
            errors.push(SetupError::SignatureInMessage(header.clone()));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            header,
            field,
            message,
            keys,
            timestamp,
        })
    }

    /// The keys, in the configuration's order.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Which bytes are signed.
    #[must_use]
    pub const fn message(&self) -> &Template {
        &self.message
    }

    /// The timestamp, if one is looked at.
    #[must_use]
    pub const fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The verdict on one request. Everything cheap comes before the first key is tried.
    pub fn judge(&self, head: &Head<'_>, body: Bytes, now: UnixMillis) -> Verdict {
        match self.matching(head, &body, now) {
            Ok(key) => Verdict::Accepted(Verified {
                body,
                key_id: key.id.clone(),
            }),
            Err(reason) => Verdict::Rejected(reason),
        }
    }

    fn matching(&self, head: &Head<'_>, body: &[u8], now: UnixMillis) -> Result<&Key, Reason> {
        let candidates = self.candidates(head.headers)?;
        let message = self.message.build(head, body)?;
        if let Some(timestamp) = &self.timestamp {
            let value = message::only(head.headers, &timestamp.header)?;
            let at = timestamp
                .unit
                .read(value.as_bytes())
                .ok_or(Reason::Malformed)?;
            if !timestamp.is_fresh(at, now) {
                return Err(Reason::Stale);
            }
        }
        let mut usable = self
            .keys
            .iter()
            .filter(|key| key.is_in_window(now))
            .peekable();
        if usable.peek().is_none() {
            return Err(Reason::NoKeyInWindow);
        }
        // The best that any pair of a key and a signature came to.
        let mut reason = Reason::WrongLength;
        for key in usable {
            for candidate in &candidates {
                match key.key.verify(&message, candidate) {
                    Fit::Fits => return Ok(key),
                    Fit::Fails => reason = Reason::Mismatch,
                    Fit::Malformed if reason == Reason::WrongLength => reason = Reason::Malformed,
                    Fit::Malformed | Fit::WrongLength => {}
                }
            }
        }
        Err(reason)
    }

    fn candidates(&self, headers: &HeaderMap) -> Result<Vec<Vec<u8>>, Reason> {
        let value = message::only(headers, &self.header).map_err(|reason| match reason {
            Reason::HeaderDoubled(_) => Reason::Doubled,
            _ => Reason::Missing,
        })?;
        self.field
            .read(value.as_bytes())
            .map_err(|fault| match fault {
                FieldFault::Missing => Reason::Missing,
                FieldFault::Malformed => Reason::Malformed,
            })
    }
}

/// What a request is.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// The bank's, and here is its body.
    Accepted(Verified),
    /// Not to be believed.
    Rejected(Reason),
}

/// A body whose signature fits. There is no other way to make one than [`Verifier::judge`].
pub struct Verified {
    body: Bytes,
    key_id: Arc<str>,
}

impl Verified {
    /// The bytes that were signed and received.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The same, given away.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// The id of the key that fits.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} bytes by {})", self.body.len(), self.key_id)
    }
}

/// Why a request is rejected. For records and operators; the sender is told none of it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// No signature.
    #[error("the signature is missing")]
    Missing,
    /// The signature's header stands more than once.
    #[error("the signature's header stands more than once")]
    Doubled,
    /// The signature or the timestamp is not written as the configuration says.
    #[error("the signature or the timestamp is malformed")]
    Malformed,
    /// No signature is as long as those of our keys.
    #[error("the signature has a wrong length")]
    WrongLength,
    /// A header of the message is not there.
    #[error("the signed header {0} is missing")]
    HeaderMissing(HeaderName),
    /// A header of the message stands more than once.
    #[error("the signed header {0} stands more than once")]
    HeaderDoubled(HeaderName),
    /// The timestamp is outside its tolerance.
    #[error("the timestamp is outside the tolerance")]
    Stale,
    /// No key may be used at this time: our fault, not the sender's.
    #[error("no key is inside its window")]
    NoKeyInWindow,
    /// A well-formed signature that no usable key fits.
    #[error("no key fits the signature")]
    Mismatch,
}

impl Reason {
    /// A stable name for records and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Malformed => "malformed",
            Self::WrongLength => "wrong-length",
            Self::HeaderMissing(_) => "header-missing",
            Self::HeaderDoubled(_) => "header-doubled",
            Self::Stale => "stale",
            Self::NoKeyInWindow => "no-key-in-window",
            Self::Mismatch => "mismatch",
        }
    }

    /// Whether it may be a rotation that nobody told us of: the configured answer, and an alarm.
    #[must_use]
    pub const fn is_mismatch(&self) -> bool {
        matches!(self, Self::Mismatch)
    }

    /// Whether it is our fault, so that the sender must be asked to send again.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::NoKeyInWindow)
    }
}
