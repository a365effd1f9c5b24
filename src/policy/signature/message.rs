//! The signed message: a closed template that says which bytes of a request the sender signed, in which order.
//!
//! It always holds the body, whole or as its digest: a signature that does not cover the body proves nothing about it.

use std::borrow::Cow;
use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::freshness::Timestamp;
use super::{Head, Reason};

/// The most parts of a template.
pub const PARTS_MAX: usize = 16;

/// The longest literal, in bytes.
const TEXT_MAX: usize = 256;

/// One part of the message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// The raw body.
    Body,
    /// The SHA-256 of the raw body, in lower-case hex.
    BodySha256,
    /// The value of a header, which must stand exactly once.
    Header(HeaderName),
    /// The method.
    Method,
    /// The path, without its query.
    Path,
    /// These bytes.
    Text(String),
}

/// Which bytes are signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Part>);

/// Why a template is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// A part that is not on the list.
    #[error(
        "`{0}` is no part of a message; expected body, body-sha256, header:NAME, method, path or text:LITERAL (a new line \
         is \"text:\\n\" in double quotes)"
    )]
    Unknown(String),
    /// A header's name that is none.
    #[error(
        "`{0}` is no header's name; write header:NAME with the name as the sender documents it"
    )]
    HeaderName(String),
    /// A literal that is empty or too long.
    #[error("a text: part holds 1 to {TEXT_MAX} bytes")]
    Text,
    /// The body is not in it.
    #[error(
        "the message must hold body or body-sha256: otherwise the signature says nothing about the body"
    )]
    NoBody,
    /// Too many parts.
    #[error("a message has at most {PARTS_MAX} parts")]
    TooLong,
}

impl Template {
    /// Reads the parts of the configuration's list.
    ///
    /// # Errors
    /// [`TemplateError`], for the first part that is wrong.
    pub fn parse<S: AsRef<str>>(parts: &[S]) -> Result<Self, TemplateError> {
        if parts.len() > PARTS_MAX {
            return Err(TemplateError::TooLong);
        }
        let parts: Vec<Part> = parts
            .iter()
            .map(|part| Part::parse(part.as_ref()))
            .collect::<Result<_, _>>()?;
        if !parts
            .iter()
            .any(|part| matches!(part, Part::Body | Part::BodySha256))
        {
            return Err(TemplateError::NoBody);
        }
        Ok(Self(parts))
    }

    /// Its parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a header's value is signed.
    #[must_use]
    pub fn covers(&self, header: &HeaderName) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Header(name) if name == header))
    }

    /// The first two parts of unknown length with nothing between them: bytes could move from one to the other under the
    /// same signature. `check` warns of it; senders that sign so exist. A timestamp is of known length.
    #[must_use]
    pub fn runs_together(&self, timestamp: Option<&Timestamp>) -> Option<(&Part, &Part)> {
        let of_unknown_length = |part: &Part| match part {
            Part::Body | Part::Path => true,
            Part::Header(name) => timestamp.is_none_or(|timestamp| timestamp.header != *name),
            // No method holds the `/` that every path begins with.
            Part::Method | Part::BodySha256 | Part::Text(_) => false,
        };
        self.0
            .iter()
            .zip(self.0.iter().skip(1))
            .find(|(left, right)| match (left, right) {
                (Part::Method, right) => !matches!(right, Part::Path | Part::Text(_)),
                (left, right) => of_unknown_length(left) && !matches!(right, Part::Text(_)),
            })
    }

    /// The bytes that must have been signed.
    ///
    /// # Errors
    /// A header of the template that is not there, or stands more than once.
    pub fn build<'b>(&self, head: &Head<'_>, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Reason> {
        if self.0 == [Part::Body] {
            return Ok(Cow::Borrowed(body));
        }
        let mut message = Vec::new();
        for part in &self.0 {
            match part {
                Part::Body => message.extend_from_slice(body),
                Part::BodySha256 => message.extend_from_slice(&sha256_hex(body)),
                Part::Header(name) => {
                    message.extend_from_slice(only(head.headers, name)?.as_bytes());
                }
                Part::Method => message.extend_from_slice(head.method.as_str().as_bytes()),
                Part::Path => message.extend_from_slice(head.path.as_bytes()),
                Part::Text(text) => message.extend_from_slice(text.as_bytes()),
            }
        }
        Ok(Cow::Owned(message))
    }
}

/// The value of a header that the template names.
pub(super) fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<&'h HeaderValue, Reason> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Reason::HeaderMissing(name.clone())),
        (Some(_), Some(_)) => Err(Reason::HeaderDoubled(name.clone())),
    }
}

fn sha256_hex(body: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    };
    Sha256::digest(body)
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

impl Part {
    /// Reads one part.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        match text {
            "body" => return Ok(Self::Body),
            "body-sha256" => return Ok(Self::BodySha256),
            "method" => return Ok(Self::Method),
            "path" => return Ok(Self::Path),
            _ => {}
        }
        if let Some(literal) = text.strip_prefix("text:") {
            let fits = (1..=TEXT_MAX).contains(&literal.len());
            return fits
                .then(|| Self::Text(literal.to_owned()))
                .ok_or(TemplateError::Text);
        }
        match text.strip_prefix("header:") {
            Some(name) => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| TemplateError::HeaderName(name.to_owned())),
            None => Err(TemplateError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("body"),
            Self::BodySha256 => f.write_str("body-sha256"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Text(text) => write!(f, "text:{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use proptest::prelude::*;

    use super::super::freshness::Unit;
    use super::*;

    fn template(parts: &[&str]) -> Template {
        Template::parse(parts).unwrap()
    }

    fn built(parts: &[&str], headers: &[(&'static str, &'static str)]) -> Result<Vec<u8>, Reason> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let head = Head {
            method: &Method::POST,
            path: "/cb",
            headers: &map,
        };
        template(parts).build(&head, b"{}").map(Cow::into_owned)
    }

    #[test]
    fn parts_are_concatenated_in_order() {
        let parts = [
            "method",
            "text: ",
            "path",
            "text:\n",
            "header:X-Time",
            "text:.",
            "body",
        ];
        assert_eq!(
            built(&parts, &[("x-time", "17")]).unwrap(),
            b"POST /cb\n17.{}"
        );
        assert_eq!(built(&["body"], &[]).unwrap(), b"{}");
        assert_eq!(
            built(&["body-sha256"], &[]).unwrap(),
            b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn a_header_of_the_template_stands_exactly_once() {
        let parts = ["header:X-Time", "body"];
        let name = HeaderName::from_static("x-time");
        assert_eq!(built(&parts, &[]), Err(Reason::HeaderMissing(name.clone())));
        let twice = [("x-time", "17"), ("x-time", "17")];
        assert_eq!(built(&parts, &twice), Err(Reason::HeaderDoubled(name)));
        // An empty value is one.
        assert_eq!(built(&parts, &[("x-time", "")]).unwrap(), b"{}");
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_reason() {
        let parse = |parts: &[&str]| Template::parse(parts).unwrap_err();
        assert_eq!(parse(&[]), TemplateError::NoBody);
        assert_eq!(parse(&["header:x", "text:body"]), TemplateError::NoBody);
        assert_eq!(parse(&["Body"]), TemplateError::Unknown("Body".into()));
        assert_eq!(
            parse(&["body", "query"]),
            TemplateError::Unknown("query".into())
        );
        assert_eq!(
            parse(&["body", "header:"]),
            TemplateError::HeaderName(String::new())
        );
        assert_eq!(
            parse(&["body", "header:a b"]),
            TemplateError::HeaderName("a b".into())
        );
        assert_eq!(parse(&["body", "text:"]), TemplateError::Text);
        assert_eq!(
            parse(&["body", &format!("text:{}", "x".repeat(257))]),
            TemplateError::Text
        );
        assert_eq!(parse(&["body"; PARTS_MAX + 1]), TemplateError::TooLong);
    }

    #[test]
    fn parts_between_which_bytes_could_move_are_found() {
        let timestamp = Timestamp {
            header: HeaderName::from_static("x-time"),
            unit: Unit::Seconds,
            tolerance: Duration::from_secs(1),
        };
        let together = |parts: &[&str]| template(parts).runs_together(Some(&timestamp)).is_some();
        assert!(together(&["header:x-id", "body"]));
        assert!(together(&["path", "body"]));
        assert!(together(&["method", "body"]));
        for parts in [
            &["body"][..],
            &["header:x-time", "body"],
            &["header:x-id", "text:.", "header:x-time", "text:.", "body"],
            &["method", "path", "text:\n", "body-sha256", "header:x-id"],
        ] {
            assert!(!together(parts), "{parts:?}");
        }
        assert!(
            template(&["header:x-time", "body"])
                .runs_together(None)
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(parts in proptest::collection::vec(
            "body|body-sha256|method|path|header:[a-z][a-z0-9-]{0,8}|text:.{1,8}", 1..8,
        )) {
            if let Ok(template) = Template::parse(&parts) {
                let written: Vec<String> = template.parts().iter().map(ToString::to_string).collect();
                prop_assert_eq!(written, parts);
            }
        }
    }
}
