//! What an operation is about: values that JSON pointers (RFC 6901) find in the body.
//!
//! The body is read strictly. A name that stands twice in an object has two values, and the bank may read the other one;
//! so such a body names nothing.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};

use super::key::Digest;

/// The longest value that names something.
pub const VALUE_MAX: usize = 256;

/// A JSON pointer (RFC 6901), decoded.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pointer(Vec<String>);

/// Why a text is no pointer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a JSON pointer (RFC 6901) such as `/session_id` or `/order/id`")]
pub struct PointerError;

impl Pointer {
    /// Reads a pointer. The empty one, which is the whole document, names nothing in it.
    ///
    /// # Errors
    /// [`PointerError`].
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let rest = text.strip_prefix('/').ok_or(PointerError)?;
        rest.split('/')
            .map(|part| {
                let mut decoded = String::with_capacity(part.len());
                let mut chars = part.chars();
                while let Some(c) = chars.next() {
                    match c {
                        '~' => match chars.next() {
                            Some('0') => decoded.push('~'),
                            Some('1') => decoded.push('/'),
                            _ => return Err(PointerError),
                        },
                        c if c.is_control() => return Err(PointerError),
                        c => decoded.push(c),
                    }
                }
                (!decoded.is_empty()).then_some(decoded).ok_or(PointerError)
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|part| write!(f, "/{}", part.replace('~', "~0").replace('/', "~1")))
    }
}

/// The values that pointers found, in the pointers' order.
#[derive(Clone, Eq, PartialEq)]
pub struct Subject(Vec<(Pointer, String)>);

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(…)")
    }
}

/// Why a body names no subject.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubjectError {
    /// Not one JSON value, or a name stands twice in an object.
    #[error("the body is not strict JSON (a name that stands twice in an object counts too)")]
    NotJson,
    /// Nothing there.
    #[error("the body has nothing at {0}")]
    Missing(Pointer),
    /// Something there that names nothing.
    #[error(
        "the body's {0} is neither an integer of at most 64 bits nor a string of 1 to {VALUE_MAX} bytes"
    )]
    NotAName(Pointer),
}

impl Subject {
    /// Finds every pointer's value. The order of the pointers does not matter, and an integer is the same as the string of
    /// its digits: banks take either, so a second spelling must not be a second subject.
    ///
    /// # Errors
    /// [`SubjectError`], for the first pointer that finds nothing.
    pub fn extract(pointers: &[Pointer], body: &[u8]) -> Result<Option<Self>, SubjectError> {
        if pointers.is_empty() {
            return Ok(None);
        }
        let mut pointers: Vec<&Pointer> = pointers.iter().collect();
        pointers.sort();
        pointers.dedup();
        let found = walk(&pointers, body)?;
        let mut pairs = Vec::with_capacity(pointers.len());
        for (pointer, found) in pointers.into_iter().zip(found) {
            match found {
                None => return Err(SubjectError::Missing(pointer.clone())),
                Some(Found::Other) => return Err(SubjectError::NotAName(pointer.clone())),
                Some(Found::Name(value)) => pairs.push((pointer.clone(), value)),
            }
        }
        Ok(Some(Self(pairs)))
    }

    /// For people who may see it: operators. `/session_id="s-77"`: quoted, so that a terminal shows it safely.
    #[must_use]
    pub fn text(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(pointer, value)| format!("{pointer}={value:?}"))
            .collect();
        pairs.join(" ")
    }

    /// What it is made of, as the configuration says it: `/order/id /line`.
    #[must_use]
    pub fn pointers(&self) -> String {
        pointers_text(self.0.iter().map(|(pointer, _)| pointer))
    }

    /// What stands in for it: a subject belongs to its bank, whichever route names it.
    #[must_use]
    pub fn digest(&self, bank: &str) -> Digest {
        // Of the values, not of a text for people, whose quoting may change with the standard library.
        let mut parts = vec![bank.as_bytes().to_vec()];
        for (pointer, value) in &self.0 {
            parts.push(pointer.to_string().into_bytes());
            parts.push(value.clone().into_bytes());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Digest::of("priorgate subject", &parts)
    }
}

/// A set of pointers, in an order of its own.
#[must_use]
pub fn pointers_text<'p>(pointers: impl Iterator<Item = &'p Pointer>) -> String {
    let mut texts: Vec<String> = pointers.map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts.join(" ")
}

/// What stands at a pointer, if the body is strict JSON and it names something.
#[must_use]
pub(in crate::policy) fn find(pointer: &Pointer, body: &[u8]) -> Option<String> {
    match walk(&[pointer], body).ok()?.pop()?? {
        Found::Name(value) => Some(value),
        Found::Other => None,
    }
}

fn walk(pointers: &[&Pointer], body: &[u8]) -> Result<Vec<Option<Found>>, SubjectError> {
    let mut found: Vec<Option<Found>> = vec![None; pointers.len()];
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walk = Walk {
        pointers,
        here: &mut Vec::new(),
        found: &mut found,
    };
    walk.deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|_| SubjectError::NotJson)?;
    Ok(found)
}

#[derive(Clone, Debug)]
enum Found {
    Name(String),
    Other,
}

/// Reads one JSON value to its end and notes what stands at the pointers.
struct Walk<'w> {
    pointers: &'w [&'w Pointer],
    here: &'w mut Vec<String>,
    found: &'w mut Vec<Option<Found>>,
}

impl Walk<'_> {
    fn note(&mut self, value: &Found) {
        for (pointer, found) in self.pointers.iter().zip(self.found.iter_mut()) {
            if pointer.0 == *self.here {
                *found = Some(value.clone());
            }
        }
    }

    fn below(&mut self) -> Walk<'_> {
        Walk {
            pointers: self.pointers,
            here: self.here,
            found: self.found,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        let named = (1..=VALUE_MAX).contains(&value.len());
        let found = if named {
            Found::Name(value.to_owned())
        } else {
            Found::Other
        };
        self.note(&found);
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.note(&Found::Name(value.to_string()));
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.note(&Found::Name(value.to_string()));
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.note(&Found::Other);
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.note(&Found::Other);
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.note(&Found::Other);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.note(&Found::Other);
        let mut index = 0_usize;
        loop {
            self.here.push(index.to_string());
            let more = seq.next_element_seed(self.below())?.is_some();
            self.here.pop();
            if !more {
                return Ok(());
            }
            index = index.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.note(&Found::Other);
        let mut names = HashSet::new();
        while let Some(Name(name)) = map.next_key()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("a name stands twice"));
            }
            self.here.push(name);
            map.next_value_seed(self.below())?;
            self.here.pop();
        }
        Ok(())
    }
}

/// A member's name.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts
            .iter()
            .map(|text| Pointer::parse(text).unwrap())
            .collect()
    }

    fn subject(texts: &[&str], body: &str) -> Result<String, String> {
        Subject::extract(&pointers(texts), body.as_bytes())
            .map(|subject| subject.unwrap().text())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_thing_has_one_subject_however_it_is_spelled() {
        let one = subject(&["/session_id"], r#"{"session_id":"77","amount":5}"#).unwrap();
        assert_eq!(one, r#"/session_id="77""#);
        for same in [
            r#"{"session_id":77}"#,
            r#" {"amount":9, "session_id" : "\u0037\u0037"} "#,
            r#"{"session\u005fid":"77"}"#,
            r#"{"other":{"session_id":"78"},"session_id":"77"}"#,
        ] {
            assert_eq!(subject(&["/session_id"], same).unwrap(), one, "{same}");
        }
        assert_ne!(
            subject(&["/session_id"], r#"{"session_id":"078"}"#).unwrap(),
            one
        );
    }

    #[test]
    fn several_pointers_make_one_subject_in_any_order() {
        let body = r#"{"order":{"id":5},"lines":[{"n":"a"},{"n":"b"}]}"#;
        let both = subject(&["/order/id", "/lines/1/n"], body).unwrap();
        assert_eq!(both, r#"/lines/1/n="b" /order/id="5""#);
        assert_eq!(
            subject(&["/lines/1/n", "/order/id", "/order/id"], body).unwrap(),
            both
        );
    }

    #[test]
    fn no_two_subjects_share_a_digest() {
        let digest = |body: &str| {
            let subject = Subject::extract(&pointers(&["/a", "/b"]), body.as_bytes());
            subject.unwrap().unwrap().digest("bank")
        };
        assert_ne!(
            digest(r#"{"a":"1","b":"23"}"#),
            digest(r#"{"a":"12","b":"3"}"#)
        );
        assert_eq!(digest(r#"{"a":"1","b":2}"#), digest(r#"{"b":"2","a":1}"#));
        let a = subject(&["/a", "/b"], r#"{"a":"1\" /b=\"2","b":"3"}"#).unwrap();
        let b = subject(&["/a", "/b"], r#"{"a":"1","b":"2\" /b=\"3"}"#).unwrap();
        assert_ne!(a, b);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for body in [
            "",
            "{",
            "session_id=77",
            r#"{"session_id":"77"} x"#,
            r#"{"session_id":"77","session_id":"78"}"#,
            r#"{"session_id":"77","a":{"b":1,"\u0062":2}}"#,
            "\u{feff}{\"session_id\":\"77\"}",
            r#"{"session_id":"\ud800"}"#,
        ] {
            let error = subject(&["/session_id"], body).unwrap_err();
            assert!(error.contains("not strict JSON"), "{body}: {error}");
        }
        for body in [
            r#"{}"#,
            r#"{"session":"77"}"#,
            r#"[{"session_id":"77"}]"#,
            "77",
        ] {
            let error = subject(&["/session_id"], body).unwrap_err();
            assert_eq!(error, "the body has nothing at /session_id", "{body}");
        }
        for value in [
            "null",
            "true",
            "1.5",
            "1e2",
            "\"\"",
            "{}",
            "[]",
            "99999999999999999999",
        ] {
            let error = subject(&["/s"], &format!(r#"{{"s":{value}}}"#)).unwrap_err();
            assert!(error.contains("neither an integer"), "{value}: {error}");
        }
        let long = format!(r#"{{"s":"{}"}}"#, "x".repeat(VALUE_MAX + 1));
        assert!(subject(&["/s"], &long).is_err());
        assert_eq!(Subject::extract(&[], b"anything"), Ok(None));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(subject(&["/s"], &deep).is_err());
    }

    #[test]
    fn a_pointer_is_read_and_written_as_rfc_6901_says() {
        for text in ["/a", "/a/b", "/a~0b/c~1d", "/0", "/ü"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "a", "/", "/a/", "//a", "/a~", "/a~2", "/a\n"] {
            assert_eq!(Pointer::parse(text), Err(PointerError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Subject::extract(&pointers(&["/a", "/b/0"]), &body);
        }

        #[test]
        fn any_string_value_is_found_again(value in "\\PC{1,40}") {
            let expected = format!("/x/y={value:?}");
            let body = serde_json::json!({"x": {"y": value}}).to_string();
            let subject = Subject::extract(&pointers(&["/x/y"]), body.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(subject.text(), expected);
        }
    }
}
