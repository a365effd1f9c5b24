//! The one form that a line has. It is read strictly: what two programs could read in two ways is no record.
//!
//! Bytes are compared with the form from left to right, and nothing is decoded: printable ASCII never stands there
//! escaped, so that one text has one spelling. docs/audit.md has the same as a grammar.

use super::{LINE_MAX, Mark, Source, Tip, time};
use crate::policy::operation::Digest;

/// Digits of a number. So many fit into 64 bits with a sign.
const DIGITS: usize = 18;

/// What a member holds, as it is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'l> {
    /// Between the quotes.
    Text(&'l str),
    Number(i64),
    True,
}

/// A line that has the form; what it says is not verified.
#[derive(Debug)]
pub(super) struct Record<'l> {
    pub(super) tip: Tip,
    pub(super) at: &'l str,
    /// The same in seconds since 1970.
    pub(super) second: i64,
    pub(super) source: Source,
    pub(super) event: &'l str,
    pub(super) prev: Digest,
    members: Vec<(&'l str, Value<'l>)>,
}

impl<'l> Record<'l> {
    /// Reads a line without its line break.
    pub(super) fn read(line: &'l [u8]) -> Result<Self, String> {
        if line.len() > LINE_MAX {
            return Err(format!("it is longer than {LINE_MAX} bytes"));
        }
        let printable = line.iter().all(|b| matches!(b, b' '..=b'~'));
        let text = std::str::from_utf8(line).ok().filter(|_| printable);
        let rest = text.ok_or("it is not in printable ASCII")?;
        let mut form = Form { rest };
        form.record().ok_or_else(|| {
            format!(
                "it has not the form of one, {} bytes before its end",
                form.rest.len()
            )
        })
    }

    pub(super) fn text(&self, name: &str) -> Option<&'l str> {
        match self.member(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.member(name) {
            Some(Value::Number(number)) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    /// A hash in hexadecimal digits.
    pub(super) fn digest(&self, name: &str) -> Option<Digest> {
        Digest::parse(self.text(name)?)
    }

    pub(super) fn member(&self, name: &str) -> Option<Value<'l>> {
        let mut members = self.members.iter();
        members
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    }
}

struct Form<'l> {
    rest: &'l str,
}

impl<'l> Form<'l> {
    fn record(&mut self) -> Option<Record<'l>> {
        self.expect("{\"seq\":")?;
        let seq = u64::try_from(self.number()?).ok()?;
        self.expect(",\"at\":\"")?;
        let at = self.run(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b));
        let second = time::seconds(at)?;
        self.expect("\",\"boot\":")?;
        self.text()?;
        self.expect(",\"journal\":")?;
        let (source, place) = self.source()?;
        self.expect(",\"event\":\"")?;
        let event = self.run(|b| b.is_ascii_lowercase() || b == b'_');
        self.expect("\"")?;
        let mut names = vec!["seq", "at", "boot", "journal", place, "event"];
        let mut members = Vec::new();
        let prev = loop {
            self.expect(",\"")?;
            let name = self.run(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            self.expect("\":")?;
            if name.is_empty() || names.contains(&name) {
                return None;
            }
            names.push(name);
            if name == "prev" {
                break self.digest()?;
            }
            members.push((name, self.value()?));
        };
        if names.contains(&"hash") {
            return None;
        }
        self.expect(",\"hash\":")?;
        let hash = self.digest()?;
        self.expect("}")?;
        let whole = self.rest.is_empty() && !event.is_empty();
        whole.then_some(Record {
            tip: Tip { seq, hash },
            at,
            second,
            source,
            event,
            prev,
            members,
        })
    }

    fn source(&mut self) -> Option<(Source, &'static str)> {
        if self.expect("null,\"after\":0").is_some() {
            return Some((Source::NoJournal, "after"));
        }
        self.expect("\"")?;
        let journal = self.run(is_hex);
        let journal = Some(journal).filter(|digits| digits.len() == 16)?;
        let journal = u64::from_str_radix(journal, 16).ok()?;
        let mark = |form: &mut Self| form.number().map(|row| Mark { journal, row });
        if self.expect("\",\"row\":").is_some() {
            return Some((Source::Row(mark(self)?), "row"));
        }
        self.expect("\",\"after\":")?;
        Some((Source::After(mark(self)?), "after"))
    }

    fn value(&mut self) -> Option<Value<'l>> {
        match self.rest.as_bytes().first()? {
            b'"' => self.text().map(Value::Text),
            b't' => self.expect("true").map(|()| Value::True),
            _ => self.number().map(Value::Number),
        }
    }

    /// A string, without its quotes.
    fn text(&mut self) -> Option<&'l str> {
        self.expect("\"")?;
        let (whole, bytes) = (self.rest, self.rest.as_bytes());
        let mut at = 0;
        loop {
            match bytes.get(at)? {
                b'"' => break,
                b'\\' => at += escape(whole.get(at + 1..)?)?,
                _ => at += 1,
            }
        }
        self.rest = whole.get(at + 1..)?;
        whole.get(..at)
    }

    /// 0, or digits that do not begin with one; a minus before them.
    fn number(&mut self) -> Option<i64> {
        if self.expect("0").is_some() {
            return Some(0);
        }
        let sign = if self.expect("-").is_some() { -1 } else { 1 };
        let digits = self.run(|b| b.is_ascii_digit());
        if digits.starts_with('0') || digits.len() > DIGITS {
            return None;
        }
        digits.parse::<i64>().ok().map(|number| sign * number)
    }

    fn digest(&mut self) -> Option<Digest> {
        self.expect("\"")?;
        let digits = self.run(is_hex);
        self.expect("\"")?;
        Digest::parse(digits)
    }

    fn expect(&mut self, what: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(what)?;
        Some(())
    }

    /// As many as there are.
    fn run(&mut self, of: impl Fn(u8) -> bool) -> &'l str {
        let end = self.rest.bytes().position(|b| !of(b));
        let (run, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        run
    }
}

/// How long an escape is, its backslash included: `\"`, `\\`, or `\u` and four digits of what has no other spelling.
fn escape(after: &str) -> Option<usize> {
    if after.starts_with(['"', '\\']) {
        return Some(2);
    }
    let digits = after.strip_prefix('u')?.get(..4)?;
    let hex = digits.bytes().all(is_hex);
    let unit = u16::from_str_radix(digits, 16).ok().filter(|_| hex)?;
    (!matches!(unit, 0x20..=0x7e)).then_some(6)
}

fn is_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"seq\":7,\"at\":\"2026-11-18T11:06:40.001Z\",\"boot\":\"b\",\"journal\":null,\"after\":0,\"event\":\"x\"";

    fn line(head: &str, members: &str) -> String {
        let zeros = "0".repeat(64);
        format!("{head}{members},\"prev\":\"{zeros}\",\"hash\":\"{zeros}\"}}")
    }

    #[test]
    fn what_we_write_has_the_form_and_its_members_are_found() {
        let line = line(
            HEAD,
            ",\"n\":-12,\"yes\":true,\"text\":\"a \\\"\\\\\\u00e9\"",
        );
        let record = Record::read(line.as_bytes()).unwrap();
        assert_eq!((record.tip.seq, record.event), (7, "x"));
        assert_eq!(record.second, 1_795_000_000);
        assert_eq!(record.member("n"), Some(Value::Number(-12)));
        assert_eq!(record.number("n"), None);
        assert_eq!(record.member("yes"), Some(Value::True));
        assert_eq!(record.text("text"), Some("a \\\"\\\\\\u00e9"));
        assert_eq!(record.member("none"), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_record() {
        let bad_members = [
            ",\"n\":1,\"n\":1",
            ",\"seq\":7",
            ",\"after\":0",
            ",\"hash\":\"x\"",
            ",\"n\":1.0",
            ",\"n\":1e3",
            ",\"n\":-0",
            ",\"n\":01",
            ",\"n\":-",
            ",\"n\":1234567890123456789",
            ",\"n\":null",
            ",\"n\":false",
            ",\"n\":[]",
            ",\"n\":{}",
            ", \"n\":1",
            ",\"n\": 1",
            ",\"N\":1",
            ",\"\":1",
            ",\"t\":\"\\u0041\"",
            ",\"t\":\"\\n\"",
            ",\"t\":\"\\u00E9\"",
            ",\"t\":\"\u{e9}\"",
            ",\"t\":\"\t\"",
        ];
        for members in bad_members {
            let line = line(HEAD, members);
            assert!(Record::read(line.as_bytes()).is_err(), "{line}");
        }
        let good = line(HEAD, "");
        for (from, to) in [
            ("{\"seq\"", "\u{feff}{\"seq\""),
            ("null,\"after\":0", "null,\"after\":1"),
            ("null,", "\"00\","),
            ("11:06:40", "11:06:4"),
            ("-11-", "-13-"),
            ("\"x\"", "\"\""),
            ("\"}", "\"} "),
            ("\"}", "\"}\r"),
        ] {
            let line = good.replacen(from, to, 1);
            assert_ne!(line, good);
            assert!(Record::read(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Record::read(good.as_bytes()).is_ok());
        let long = line(HEAD, &format!(",\"t\":\"{}\"", "a".repeat(LINE_MAX)));
        assert!(Record::read(long.as_bytes()).is_err());
    }
}
