//! What a bank's whole answer means for an operation: definitive, refused, or nothing that can be relied on.

use super::state::State;
use super::subject::Pointer;

/// What an answer makes of an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Definitive: kept and replayed.
    Done,
    /// The bank did nothing: the key may run again.
    Refused,
    /// The bank may have acted: nothing is replayed, nothing is tried again.
    Unknown,
}

impl Ending {
    /// The state that it leads to.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Done => State::Done,
            Self::Refused => State::Refused,
            Self::Unknown => State::Unknown,
        }
    }
}

/// A status, or a class of them: `404`, `2xx`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusPattern {
    /// All of 200 to 299, say.
    Class(u8),
    /// Exactly this one.
    Exact(u16),
}

impl StatusPattern {
    /// Reads `404` or `2xx`. 1xx and 3xx are never passed on, so they are nothing to classify.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            return match class {
                "2" => Some(Self::Class(2)),
                "4" => Some(Self::Class(4)),
                "5" => Some(Self::Class(5)),
                _ => None,
            };
        }
        if text.len() != 3 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let status: u16 = text.parse().ok()?;
        matches!(status, 200..=299 | 400..=599).then_some(Self::Exact(status))
    }

    fn matches(self, status: u16) -> bool {
        match self {
            Self::Class(class) => status / 100 == u16::from(class),
            Self::Exact(exact) => status == exact,
        }
    }
}

/// A content type that a definitive answer may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MediaType {
    /// No `Content-Type` at all, as with a 204.
    Absent,
    /// `type/subtype` in lower case. `application/json` also stands for `application/<name>+json` (RFC 6839).
    Named(String),
}

impl MediaType {
    /// Reads `type/subtype` or `none`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::Absent);
        }
        let token = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        let (kind, subtype) = text.split_once('/')?;
        (token(kind) && token(subtype)).then(|| Self::Named(text.to_ascii_lowercase()))
    }

    /// Whether a `Content-Type` is this one. A value that is no text is none that has a name.
    #[must_use]
    pub fn is(&self, given: Option<&[u8]>) -> bool {
        self.matches(given.map(|value| str::from_utf8(value).unwrap_or("?")))
    }

    fn matches(&self, given: Option<&str>) -> bool {
        match (self, given) {
            (Self::Absent, None) => true,
            (Self::Named(named), Some(given)) => {
                let given = given.split(';').next().unwrap_or("").trim();
                let given = given.to_ascii_lowercase();
                given == *named
                    || (named == "application/json"
                        && given
                            .strip_prefix("application/")
                            .is_some_and(|subtype| subtype.ends_with("+json")))
            }
            (Self::Absent, Some(_)) | (Self::Named(_), None) => false,
        }
    }
}

/// Whether a route's requests need a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// With a key: guarded. Without: an ordinary request.
    Optional,
    /// Always guarded.
    Required,
}

/// How a route is guarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Whether a key is needed.
    pub guard: Guard,
    /// Where the body names what the operation is about; may be empty under [`Guard::Optional`].
    pub subject: Vec<Pointer>,
    /// Statuses of a definitive answer.
    pub definitive: Vec<StatusPattern>,
    /// Statuses with which the bank says that it did nothing. They win over `definitive`.
    pub refused: Vec<StatusPattern>,
    /// Content types of a definitive answer.
    pub answer_types: Vec<MediaType>,
}

impl Rules {
    /// The defaults for the three lists.
    #[must_use]
    pub fn new(guard: Guard, subject: Vec<Pointer>) -> Self {
        let exact = |codes: &[u16]| {
            codes
                .iter()
                .map(|&code| StatusPattern::Exact(code))
                .collect()
        };
        let mut definitive: Vec<StatusPattern> = exact(&[400, 404, 409, 410, 422]);
        definitive.insert(0, StatusPattern::Class(2));
        Self {
            guard,
            subject,
            definitive,
            refused: exact(&[401, 403, 429]),
            answer_types: vec![MediaType::Named("application/json".to_owned())],
        }
    }

    /// What a whole answer means.
    #[must_use]
    pub fn classify(&self, status: u16, content_type: Option<&[u8]>) -> Ending {
        let any = |patterns: &[StatusPattern]| patterns.iter().any(|p| p.matches(status));
        if any(&self.refused) {
            return Ending::Refused;
        }
        // A type that is no text is a type that no list names.
        let content_type = content_type.map(|value| str::from_utf8(value).unwrap_or("?"));
        let typed = self
            .answer_types
            .iter()
            .any(|media| media.matches(content_type));
        if any(&self.definitive) && typed {
            Ending::Done
        } else {
            Ending::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::new(Guard::Required, Vec::new())
    }

    #[test]
    fn an_answer_is_definitive_by_status_and_type_together() {
        let json = Some(&b"application/json; charset=utf-8"[..]);
        for (status, content_type, ending) in [
            (200, json, Ending::Done),
            (201, Some(&b"Application/JSON"[..]), Ending::Done),
            (422, Some(b"application/problem+json"), Ending::Done),
            (404, json, Ending::Done),
            (200, Some(b"text/html"), Ending::Unknown),
            (200, Some(b"application/jsonp"), Ending::Unknown),
            (200, Some(b"text/x+json"), Ending::Unknown),
            (200, Some(b"\xff"), Ending::Unknown),
            (200, None, Ending::Unknown),
            (204, None, Ending::Unknown),
            (402, json, Ending::Unknown),
            (408, json, Ending::Unknown),
            (500, json, Ending::Unknown),
            (503, json, Ending::Unknown),
            (401, json, Ending::Refused),
            (403, Some(b"text/html"), Ending::Refused),
            (429, None, Ending::Refused),
        ] {
            assert_eq!(
                rules().classify(status, content_type),
                ending,
                "{status} {content_type:?}"
            );
        }
    }

    #[test]
    fn lists_of_the_config_replace_the_defaults() {
        let mut rules = rules();
        rules.definitive = vec![StatusPattern::Class(4), StatusPattern::Exact(204)];
        rules.refused = vec![StatusPattern::Exact(409)];
        rules.answer_types.push(MediaType::Absent);
        assert_eq!(rules.classify(409, None), Ending::Refused);
        assert_eq!(rules.classify(204, None), Ending::Done);
        assert_eq!(rules.classify(403, Some(b"application/json")), Ending::Done);
        assert_eq!(
            rules.classify(200, Some(b"application/json")),
            Ending::Unknown
        );
    }

    #[test]
    fn patterns_are_a_status_or_a_class_that_can_reach_a_caller() {
        assert_eq!(StatusPattern::parse("2xx"), Some(StatusPattern::Class(2)));
        assert_eq!(StatusPattern::parse("404"), Some(StatusPattern::Exact(404)));
        for text in [
            "", "xx", "1xx", "3xx", "6xx", "2XX", "302", "99", "600", "+40", "0404",
        ] {
            assert_eq!(StatusPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_media_type_is_two_tokens_or_none() {
        assert_eq!(MediaType::parse("none"), Some(MediaType::Absent));
        assert_eq!(
            MediaType::parse("Application/JSON"),
            Some(MediaType::Named("application/json".to_owned()))
        );
        for text in ["", "json", "/", "a/", "a/b/c", "a/b; c=d", "*/*"] {
            assert_eq!(MediaType::parse(text), None, "{text}");
        }
    }
}
