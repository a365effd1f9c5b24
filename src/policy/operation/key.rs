//! Idempotency keys and the digests that stand in for them: the key's value is never stored.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The longest key.
pub const KEY_MAX: usize = 255;

/// A SHA-256.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes parts so that no two lists of parts run together: each is preceded by its length.
    #[must_use]
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Reads a digest as it is printed: 64 hexadecimal digits, small letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 64 || !text.bytes().all(hex) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The first 12 hexadecimal digits: enough to tell operations of one shop apart.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.prefix())
    }
}

/// The value of `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07), quoted or bare: one key either way.
#[derive(Clone, Eq, PartialEq)]
pub struct Key(String);

/// Why a value is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Nothing, or nothing between the quotes.
    #[error("Idempotency-Key is empty")]
    Empty,
    /// More than [`KEY_MAX`] characters.
    #[error("Idempotency-Key is longer than {KEY_MAX} characters")]
    TooLong,
    /// A character outside the set.
    #[error(
        "Idempotency-Key may hold letters, digits and !#$%&'()*+-./:;<=>?@[]^_`{{|}}~ and may stand in double quotes; \
         no spaces, commas or backslashes"
    )]
    Character,
}

impl Key {
    /// Reads a header's value. Visible ASCII without `"`, `,` and `\`: a comma would be a list, and an escape would give one
    /// key two spellings.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        let bare = match value {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        if bare.is_empty() {
            return Err(KeyError::Empty);
        }
        let visible = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b'\\');
        if !bare.iter().all(visible) {
            return Err(KeyError::Character);
        }
        if bare.len() > KEY_MAX {
            return Err(KeyError::TooLong);
        }
        Ok(Self(bare.iter().map(|&b| char::from(b)).collect()))
    }

    /// What stands in for the key: a key belongs to its bank, not to a caller, listener or route.
    #[must_use]
    pub fn digest(&self, bank: &str) -> Digest {
        Digest::of("priorgate key", &[bank.as_bytes(), self.0.as_bytes()])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What must be the same for two requests to be one: method, path, query and the raw body.
#[must_use]
pub fn fingerprint(method: &str, target: &str, body: &[u8]) -> Digest {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let (mark, query): (&[u8], _) = query.map_or((b"0", ""), |query| (b"1", query));
    Digest::of(
        "priorgate fingerprint",
        &[
            method.as_bytes(),
            path.as_bytes(),
            mark,
            query.as_bytes(),
            body,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_bare_are_one_key() {
        let bare = Key::parse(b"refund-7f3a").unwrap();
        assert_eq!(Key::parse(b"\"refund-7f3a\"").unwrap(), bare);
        assert_eq!(
            bare.digest("b"),
            Key::parse(b"refund-7f3a").unwrap().digest("b")
        );
    }

    #[test]
    fn a_key_belongs_to_its_bank() {
        let key = Key::parse(b"k").unwrap();
        assert_ne!(key.digest("a"), key.digest("b"));
        // Nothing runs together: bank "ak" with key "k" is not bank "a" with key "kk".
        assert_ne!(key.digest("ak"), Key::parse(b"kk").unwrap().digest("a"));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        for (value, error) in [
            (&b""[..], KeyError::Empty),
            (b"\"\"", KeyError::Empty),
            (b"\"", KeyError::Character),
            (b"a b", KeyError::Character),
            (b"a,b", KeyError::Character),
            (b"\"a\\\"b\"", KeyError::Character),
            (b"a\"", KeyError::Character),
            (b"caf\xc3\xa9", KeyError::Character),
            (b"a\tb", KeyError::Character),
        ] {
            assert_eq!(Key::parse(value), Err(error), "{value:?}");
        }
        assert!(Key::parse(&[b'k'; KEY_MAX]).is_ok());
        assert_eq!(Key::parse(&[b'k'; KEY_MAX + 1]), Err(KeyError::TooLong));
    }

    #[test]
    fn every_part_of_a_request_is_in_its_fingerprint() {
        let base = fingerprint("POST", "/a?b", b"c");
        for other in [
            fingerprint("PUT", "/a?b", b"c"),
            fingerprint("POST", "/a", b"c"),
            fingerprint("POST", "/a?", b"c"),
            fingerprint("POST", "/a?bc", b""),
            fingerprint("POST", "/a?b", b"c "),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(
            fingerprint("POST", "/a", b""),
            fingerprint("POST", "/a?", b"")
        );
        assert_eq!(base, fingerprint("POST", "/a?b", b"c"));
    }

    #[test]
    fn neither_a_key_nor_a_whole_digest_is_in_debug_output() {
        let key = Key::parse(b"secret-key").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(format!("{:?}", key.digest("b")).len(), 20);
    }
}
