//! The signature's header: which byte strings it offers as signatures.
//!
//! Decoding is strict. A signature that can be written in two ways is not wrong in itself, but a reader that is generous
//! here is generous to whoever looks for a difference between two readers.

use base64ct::{Base64, Base64Url, Base64UrlUnpadded, Encoding as _};

/// The most signatures in a list. A sender in the middle of a rotation has two.
pub const CANDIDATES_MAX: usize = 16;

/// The most characters of a prefix.
const PREFIX_MAX: usize = 64;

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// RFC 4648 section 4, with its padding.
    Base64,
    /// RFC 4648 section 5, with or without padding.
    Base64Url,
    /// Lower or upper case, not both.
    Hex,
}

/// A name that is not on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected base64, base64url or hex")]
pub struct EncodingError;

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Base64, Self::Base64Url, Self::Hex];

    /// Reads a name from the configuration.
    ///
    /// # Errors
    /// [`EncodingError`].
    pub fn parse(name: &str) -> Result<Self, EncodingError> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.as_str() == name)
            .ok_or(EncodingError)
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
        }
    }

    /// The bytes, if the text is the encoding of any: no whitespace, no foreign character, no bit left over.
    #[must_use]
    pub fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        let ascii = || std::str::from_utf8(text).ok();
        match self {
            Self::Base64 => Base64::decode_vec(ascii()?).ok(),
            Self::Base64Url if text.ends_with(b"=") => Base64Url::decode_vec(ascii()?).ok(),
            Self::Base64Url => Base64UrlUnpadded::decode_vec(ascii()?).ok(),
            Self::Hex => hex(text),
        }
    }
}

/// Hex in one case.
pub(super) fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    let upper = text.iter().any(u8::is_ascii_uppercase);
    let lower = text.iter().any(u8::is_ascii_lowercase);
    if upper && lower {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

/// Several signatures in one header: `v1a,… v1a,…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List {
    /// What stands between them.
    pub separator: char,
    /// What a signature of ours begins with. Others are passed over: they may be of another kind.
    pub prefix: String,
}

/// How the header is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    encoding: Encoding,
    prefix: String,
    list: Option<List>,
}

/// Why settings make no sense together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FieldError {
    /// A prefix that cannot stand in a header.
    #[error("a prefix may hold up to {PREFIX_MAX} visible ASCII characters, and no spaces")]
    Prefix,
    /// A separator that may be a part of a signature.
    #[error(
        "the separator must be a space or a punctuation mark that no encoding uses (not + / - _ =), as in `separator: \" \"`"
    )]
    Separator,
    /// The separator stands in a prefix.
    #[error("the prefix holds the separator, so that no signature could ever begin with it")]
    SeparatorInPrefix,
}

/// Why a header offers nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldFault {
    /// No signature of ours in it.
    Missing,
    /// Not what the settings say.
    Malformed,
}

impl Field {
    /// Settings that were checked against each other.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn new(encoding: Encoding, prefix: &str, list: Option<List>) -> Result<Self, FieldError> {
        let prefixes = [prefix, list.as_ref().map_or("", |list| &list.prefix)];
        for prefix in prefixes {
            if prefix.len() > PREFIX_MAX || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(FieldError::Prefix);
            }
        }
        if let Some(list) = &list {
            let separates = list.separator == ' ' || list.separator.is_ascii_punctuation();
            if !separates || "+/-_=".contains(list.separator) {
                return Err(FieldError::Separator);
            }
            if list.prefix.contains(list.separator) {
                return Err(FieldError::SeparatorInPrefix);
            }
        }
        Ok(Self {
            encoding,
            prefix: prefix.to_owned(),
            list,
        })
    }

    /// How the signature is encoded.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The signatures in a header's value: at least one and at most [`CANDIDATES_MAX`].
    ///
    /// # Errors
    /// [`FieldFault`].
    pub fn read(&self, value: &[u8]) -> Result<Vec<Vec<u8>>, FieldFault> {
        self.texts(value)?
            .into_iter()
            .map(|text| {
                let bytes = self.encoding.decode(text);
                bytes
                    .filter(|bytes| !bytes.is_empty())
                    .ok_or(FieldFault::Malformed)
            })
            .collect()
    }

    /// The signatures as they stand there, without prefixes.
    pub(super) fn texts<'v>(&self, value: &'v [u8]) -> Result<Vec<&'v [u8]>, FieldFault> {
        if value.is_empty() {
            return Err(FieldFault::Missing);
        }
        let value = value
            .strip_prefix(self.prefix.as_bytes())
            .ok_or(FieldFault::Malformed)?;
        let Some(list) = &self.list else {
            return Ok(vec![value]);
        };
        let mut found = Vec::new();
        for item in value.split(|&byte| char::from(byte) == list.separator) {
            let Some(text) = item.strip_prefix(list.prefix.as_bytes()) else {
                continue;
            };
            if found.len() == CANDIDATES_MAX {
                return Err(FieldFault::Malformed);
            }
            found.push(text);
        }
        if found.is_empty() {
            return Err(FieldFault::Missing);
        }
        Ok(found)
    }

    /// The same settings without a prefix, for diagnosis.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(encoding: Encoding) -> Field {
        Field::new(encoding, "", None).unwrap()
    }

    fn list(separator: char, prefix: &str) -> Option<List> {
        Some(List {
            separator,
            prefix: prefix.to_owned(),
        })
    }

    #[test]
    fn decoding_is_strict() {
        let good: &[(Encoding, &[u8], &[u8])] = &[
            (Encoding::Base64, b"+/8=", &[0xfb, 0xff]),
            (Encoding::Base64Url, b"-_8=", &[0xfb, 0xff]),
            (Encoding::Base64Url, b"-_8", &[0xfb, 0xff]),
            (Encoding::Hex, b"fbff", &[0xfb, 0xff]),
            (Encoding::Hex, b"FBFF", &[0xfb, 0xff]),
        ];
        for (encoding, text, bytes) in good {
            assert_eq!(field(*encoding).read(text), Ok(vec![bytes.to_vec()]));
        }
        let bad: &[(Encoding, &[&[u8]])] = &[
            (
                Encoding::Base64,
                // Alphabet, padding, a bit left over, whitespace, two values.
                &[
                    b"-_8=",
                    b"+/8",
                    b"+/8==",
                    b"+/9=",
                    b"+/8=\n",
                    b" +/8=",
                    b"+/\t8=",
                    b"+/8=+/8=",
                    b"====",
                    b"\xff",
                ],
            ),
            (
                Encoding::Base64Url,
                &[b"+/8", b"-_9", b"-_8==", b"-_8 ", b"-", b"="],
            ),
            (
                Encoding::Hex,
                &[b"fbF", b"FbfF", b"0xfb", b"fb ff", b"fg", b"\xff\xff"],
            ),
        ];
        for (encoding, texts) in bad {
            for text in *texts {
                let read = field(*encoding).read(text);
                assert_eq!(
                    read,
                    Err(FieldFault::Malformed),
                    "{encoding:?} {:?}",
                    text.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn nothing_is_missing_and_a_prefix_must_be_there() {
        assert_eq!(field(Encoding::Hex).read(b""), Err(FieldFault::Missing));
        let prefixed = Field::new(Encoding::Hex, "sha256=", None).unwrap();
        assert_eq!(prefixed.read(b"sha256=00"), Ok(vec![vec![0]]));
        for value in [
            &b"00"[..],
            b"SHA256=00",
            b"sha256=",
            b"sha256=sha256=00",
            b"sha1=00",
        ] {
            assert_eq!(prefixed.read(value), Err(FieldFault::Malformed));
        }
    }

    #[test]
    fn a_list_offers_those_of_our_kind() {
        let field = Field::new(Encoding::Base64, "", list(' ', "v1a,")).unwrap();
        assert_eq!(
            field.read(b"v1,AAA= v1a,AQ== v1a,Ag=="),
            Ok(vec![vec![1], vec![2]])
        );
        assert_eq!(field.read(b"v1,AAA="), Err(FieldFault::Missing));
        // One that is broken makes the whole header broken: nobody sends such a thing by accident.
        assert_eq!(field.read(b"v1a,AQ== v1a,A"), Err(FieldFault::Malformed));
        let many = |n| vec!["v1a,AQ=="; n].join(" ");
        assert_eq!(
            field.read(many(CANDIDATES_MAX).as_bytes()).unwrap().len(),
            CANDIDATES_MAX
        );
        assert_eq!(
            field.read(many(CANDIDATES_MAX + 1).as_bytes()),
            Err(FieldFault::Malformed)
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let new = |prefix: &str, list| Field::new(Encoding::Base64, prefix, list);
        assert_eq!(new("a b", None), Err(FieldError::Prefix));
        assert_eq!(new(&"x".repeat(65), None), Err(FieldError::Prefix));
        assert_eq!(new("", list(' ', "ü")), Err(FieldError::Prefix));
        for separator in ['a', '=', '+', '_', '\n', 'é'] {
            assert_eq!(new("", list(separator, "")), Err(FieldError::Separator));
        }
        assert_eq!(
            new("", list(',', "v1a,")),
            Err(FieldError::SeparatorInPrefix)
        );
        assert!(new("sig=", list(';', "v1:")).is_ok());
    }

    #[test]
    fn encodings_have_names() {
        for encoding in Encoding::ALL {
            assert_eq!(Encoding::parse(encoding.as_str()), Ok(encoding));
        }
        assert_eq!(Encoding::parse("Base64"), Err(EncodingError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            let written = [
                (Encoding::Base64, Base64::encode_string(&bytes)),
                (Encoding::Base64Url, Base64Url::encode_string(&bytes)),
                (Encoding::Base64Url, Base64UrlUnpadded::encode_string(&bytes)),
                (Encoding::Hex, bytes.iter().map(|b| format!("{b:02x}")).collect()),
                (Encoding::Hex, bytes.iter().map(|b| format!("{b:02X}")).collect()),
            ];
            for (encoding, text) in written {
                prop_assert_eq!(field(encoding).read(text.as_bytes()), Ok(vec![bytes.clone()]));
            }
        }

        #[test]
        fn whatever_is_read_is_what_was_written(text in "[A-Za-z0-9+/=_-]{0,24}") {
            for encoding in Encoding::ALL {
                let Some(bytes) = encoding.decode(text.as_bytes()) else { continue };
                let again = match encoding {
                    Encoding::Base64 => Base64::encode_string(&bytes),
                    Encoding::Base64Url => Base64UrlUnpadded::encode_string(&bytes),
                    Encoding::Hex => bytes.iter().map(|b| format!("{b:02x}")).collect(),
                };
                let bare = match encoding {
                    Encoding::Base64 => text.clone(),
                    Encoding::Base64Url => text.trim_end_matches('=').to_owned(),
                    Encoding::Hex => text.to_ascii_lowercase(),
                };
                prop_assert_eq!(again, bare);
            }
        }
    }
}
