//! Which event a verified notification is: its identity, its session, its status.
//!
//! A body that does not say so is an event all the same, a session of its own: the shop decides what it is, and nothing
//! that the bank signed is lost.

use http::{HeaderMap, HeaderName};

use super::operation::Digest;
use super::operation::subject::{self, Pointer};
use super::status::Status;

/// Where a notification says which event it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The parts of its identity. At least one.
    pub id: Vec<IdPart>,
    /// What groups the events of one order.
    pub session: Option<Pointer>,
    /// What it says.
    pub status: Option<Pointer>,
    /// The bank's words and what they mean, beside our own.
    pub statuses: Vec<(String, Status)>,
}

/// A part of an event's identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdPart {
    /// SHA-256 of the body.
    BodySha256,
    /// A signed header.
    Header(HeaderName),
    /// A value in the body.
    Pointer(Pointer),
}

/// Which event it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The same for the same event, whenever the bank sends it.
    pub id: String,
    /// What groups it; `None` if the body does not say.
    pub session: Option<String>,
    /// What it says; `None` if it says nothing that is known.
    pub status: Option<Status>,
    /// Of the body.
    pub body_hash: Digest,
}

impl Rules {
    /// Reads a notification. Only called with what was verified: headers that are no part of the signed message must not be
    /// named by [`IdPart::Header`], and the configuration's check sees to that.
    #[must_use]
    pub fn identify(&self, headers: &HeaderMap, body: &[u8]) -> Identity {
        let body_hash = Digest::of("priorgate event body", &[body]);
        let found = |pointer: &Pointer| subject::find(pointer, body);
        let id = self
            .id
            .iter()
            .map(|part| match part {
                IdPart::BodySha256 => Some(body_hash.to_string()),
                IdPart::Header(name) => headers
                    .get(name)
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
                IdPart::Pointer(pointer) => found(pointer),
            })
            .collect::<Option<Vec<_>>>();
        let id = match id.as_deref() {
            Some([one]) => one.clone(),
            // Quoted, so that two lists of parts never run together.
            Some(parts) => format!("{parts:?}"),
            None => body_hash.to_string(),
        };
        let word = self.status.as_ref().and_then(found);
        Identity {
            id,
            session: self.session.as_ref().and_then(found),
            status: word.and_then(|word| self.meaning(&word)),
            body_hash,
        }
    }

    /// The bank's words come first: it may use one of ours for something else.
    fn meaning(&self, word: &str) -> Option<Status> {
        let theirs = self.statuses.iter().find(|(bank, _)| bank == word);
        theirs
            .map(|(_, status)| *status)
            .or_else(|| Status::parse(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn rules() -> Rules {
        Rules {
            id: vec![IdPart::Pointer(pointer("/event_id"))],
            session: Some(pointer("/session_id")),
            status: Some(pointer("/status")),
            statuses: vec![("DONE".to_owned(), Status::Approved)],
        }
    }

    #[test]
    fn a_notification_says_which_event_it_is() {
        let body = br#"{"event_id":"e1","session_id":77,"status":"DONE"}"#;
        let identity = rules().identify(&HeaderMap::new(), body);
        assert_eq!(identity.id, "e1");
        assert_eq!(identity.session.as_deref(), Some("77"));
        assert_eq!(identity.status, Some(Status::Approved));
        let ours = rules().identify(&HeaderMap::new(), br#"{"status":"REFUNDED"}"#);
        assert_eq!(ours.status, Some(Status::Refunded));
    }

    #[test]
    fn what_says_nothing_is_an_event_by_its_bytes() {
        for body in [
            &b""[..],
            b"\xff",
            b"[]",
            b"{\"status\":\"DONE\"",
            b"{\"a\":1,\"a\":2}",
        ] {
            let identity = rules().identify(&HeaderMap::new(), body);
            assert_eq!(identity.id, identity.body_hash.to_string());
            assert_eq!(
                (identity.session, identity.status),
                (None, None),
                "{body:?}"
            );
        }
        let strange = rules().identify(&HeaderMap::new(), br#"{"event_id":"e","status":"ODD"}"#);
        assert_eq!(strange.status, None);
    }

    #[test]
    fn several_parts_make_one_identity_and_never_run_together() {
        let mut rules = rules();
        rules.id = vec![
            IdPart::Header(HeaderName::from_static("x-id")),
            IdPart::Pointer(pointer("/n")),
        ];
        let id = |header: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-id", header.parse().unwrap());
            rules.identify(&headers, body.as_bytes()).id
        };
        assert_eq!(id("a", r#"{"n":"b"}"#), r#"["a", "b"]"#);
        assert_ne!(
            id("a\", \"b", r#"{"n":"c"}"#),
            id("a", r#"{"n":"b\", \"c"}"#)
        );
        assert_ne!(
            id("a", r#"{"n":"b"}"#),
            id("a", "{}"),
            "a missing part is the body's hash"
        );
    }
}
