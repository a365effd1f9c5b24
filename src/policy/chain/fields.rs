//! The members of a record that say what happened: JSON in ASCII, in the order in which they were given.

use std::fmt::Write;

use crate::policy::operation::Digest;

/// The longest text that a member holds: longer ones (a reason, a route's name) are cut.
const TEXT_MAX: usize = 512;

/// Members of one record, `"event":…` first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fields(String);

impl Fields {
    /// Begins a record of an event.
    #[must_use]
    pub fn of(event: &'static str) -> Self {
        let mut text = String::with_capacity(512);
        text.push_str("\"event\":");
        quoted(&mut text, event);
        Self(text)
    }

    /// Takes members that were written by [`Self::object`].
    #[must_use]
    pub fn from_object(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        let ours = inner.starts_with("\"event\":") && inner.bytes().all(|b| matches!(b, 32..127));
        ours.then(|| Self(inner.to_owned()))
    }

    /// The members in braces: how the journal's outbox keeps them.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{{{}}}", self.0)
    }

    /// The members without braces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text; left out if it is empty.
    #[must_use]
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.name(name);
            quoted(&mut self.0, value);
        }
        self
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: impl Into<i128>) -> Self {
        self.name(name);
        // Writing into a string cannot fail.
        let _ = write!(self.0, "{}", value.into());
        self
    }

    /// A number, if there is one.
    #[must_use]
    pub fn optional(self, name: &'static str, value: Option<impl Into<i128>>) -> Self {
        match value {
            Some(value) => self.number(name, value),
            None => self,
        }
    }

    /// Yes; left out for no.
    #[must_use]
    pub fn flag(mut self, name: &'static str, value: bool) -> Self {
        if value {
            self.name(name);
            self.0.push_str("true");
        }
        self
    }

    /// A whole SHA-256, in hexadecimal digits.
    #[must_use]
    pub fn digest(mut self, name: &'static str, value: Option<&Digest>) -> Self {
        if let Some(value) = value {
            self.name(name);
            let _ = write!(self.0, "\"{value}\"");
        }
        self
    }

    fn name(&mut self, name: &'static str) {
        self.0.push(',');
        quoted(&mut self.0, name);
        self.0.push(':');
    }
}

/// A JSON string in printable ASCII: nothing in a record moves a terminal's cursor or turns a line around.
pub(super) fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars().take(TEXT_MAX) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_is_in_a_record_and_json_reads_it_back() {
        let nasty = "a\"b\\c\n\u{7f}\u{9b}31m\u{202e}é\u{1f4b3}\0";
        let fields = Fields::of("test").text("reason", nasty).text("empty", "");
        assert!(fields.as_str().bytes().all(|b| matches!(b, 32..127)));
        let read: serde_json::Value = serde_json::from_str(&fields.object()).unwrap();
        assert_eq!(read["reason"], nasty);
        assert!(read.get("empty").is_none());
        assert_eq!(Fields::from_object(&fields.object()), Some(fields));
    }

    #[test]
    fn members_keep_their_order_and_absent_ones_are_left_out() {
        let fields = Fields::of("x")
            .number("n", -1)
            .optional("none", None::<i64>)
            .flag("no", false)
            .flag("yes", true)
            .digest("hash", Some(&Digest([0xab; 32])));
        let hash = "ab".repeat(32);
        assert_eq!(
            fields.object(),
            format!("{{\"event\":\"x\",\"n\":-1,\"yes\":true,\"hash\":\"{hash}\"}}")
        );
    }

    #[test]
    fn what_is_not_ours_is_taken_for_no_record() {
        for text in [
            "",
            "{}",
            "{\"seq\":1}",
            "{\"event\":\"x\n\"}",
            "\"event\":\"x\"",
        ] {
            assert_eq!(Fields::from_object(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_cut_so_that_a_line_stays_a_line() {
        let fields = Fields::of("x").text("reason", &"\u{1f4b3}".repeat(5_000));
        assert!(fields.as_str().len() < 13 * TEXT_MAX);
    }
}
