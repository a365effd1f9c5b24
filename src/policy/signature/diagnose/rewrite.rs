//! What may have become of a body between the bank's signature and here: line ends, a byte order mark, JSON that was read
//! and written again.
//!
//! JSON is rewritten token by token, so that names keep their order and numbers their digits, whatever the style.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;

/// Deeper documents are not rewritten: indentation would grow with the square of their size.
const DEPTH_MAX: usize = 64;

/// How a body was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The signed one ended otherwise.
    LineEnd(&'static str),
    /// The signed one began otherwise.
    Bom(&'static str),
    /// The signed one was the same JSON in this style.
    Json(Style),
    /// The signed one had the names of its objects in alphabetical order.
    SortedJson,
}

/// How JSON is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Style {
    spacing: Spacing,
    /// Everything beyond ASCII as `\u`.
    ascii: bool,
    /// `/` as `\/`.
    slashes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spacing {
    /// None.
    Compact,
    /// A space after each comma and colon.
    Spaced,
    /// A line for each member, indented by so many spaces.
    Pretty(usize),
}

impl Style {
    /// For a sentence.
    pub(super) fn describe(self) -> String {
        let spacing = match self.spacing {
            Spacing::Compact => "compact".to_owned(),
            Spacing::Spaced => "with a space after each comma and colon".to_owned(),
            Spacing::Pretty(indent) => format!("indented by {indent} spaces"),
        };
        let ascii = if self.ascii { ", with \\u escapes" } else { "" };
        let slashes = if self.slashes { ", with \\/ for /" } else { "" };
        format!("{spacing}{ascii}{slashes}")
    }
}

/// Every body that the bank may have signed if this one was changed on its way, each once.
pub(super) fn originals(body: &[u8]) -> Vec<(Change, Vec<u8>)> {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    let mut found = Vec::new();
    let with_end = |end: &[u8]| [body, end].concat();
    for end in [&b"\r\n"[..], b"\n"] {
        if let Some(shorter) = body.strip_suffix(end) {
            found.push((
                Change::LineEnd("without the line end that it has here"),
                shorter.to_vec(),
            ));
        }
    }
    found.push((
        Change::LineEnd("with a line feed at its end"),
        with_end(b"\n"),
    ));
    found.push((
        Change::LineEnd("with a carriage return and a line feed at its end"),
        with_end(b"\r\n"),
    ));
    let lf = replace(body, b"\r\n", b"\n");
    found.push((
        Change::LineEnd("with CR LF for every line end"),
        replace(&lf, b"\n", b"\r\n"),
    ));
    found.push((Change::LineEnd("with LF for every line end"), lf));
    match body.strip_prefix(BOM) {
        Some(bare) => found.push((
            Change::Bom("without the byte order mark that it has here"),
            bare.to_vec(),
        )),
        None => found.push((
            Change::Bom("with a byte order mark before it"),
            [BOM, body].concat(),
        )),
    }
    if let Ok(text) = std::str::from_utf8(body) {
        found.extend(json(text.trim_start_matches('\u{feff}')));
    }
    let mut seen = BTreeSet::from([body.to_vec()]);
    found.retain(|(_, original)| seen.insert(original.clone()));
    found
}

fn json(text: &str) -> Vec<(Change, Vec<u8>)> {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for spacing in [
        Spacing::Compact,
        Spacing::Spaced,
        Spacing::Pretty(4),
        Spacing::Pretty(2),
    ] {
        for (ascii, slashes) in [(true, true), (false, false), (false, true), (true, false)] {
            let style = Style {
                spacing,
                ascii,
                slashes,
            };
            if let Some(text) = write(text, style) {
                found.push((Change::Json(style), text.into_bytes()));
            }
        }
    }
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        found.push((Change::SortedJson, value.to_string().into_bytes()));
    }
    found
}

/// Valid JSON in another style.
fn write(text: &str, style: Style) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '"' => {
                let length = string_length(rest)?;
                let (literal, after) = rest.split_at_checked(length)?;
                write_string(
                    &serde_json::from_str::<String>(literal).ok()?,
                    style,
                    &mut out,
                )?;
                rest = after;
                continue;
            }
            '{' | '[' => {
                out.push(c);
                let close = if c == '{' { '}' } else { ']' };
                let inside = rest.get(1..)?.trim_start_matches([' ', '\t', '\n', '\r']);
                if let Some(after) = inside.strip_prefix(close) {
                    out.push(close);
                    rest = after;
                    continue;
                }
                depth = depth.checked_add(1).filter(|&depth| depth <= DEPTH_MAX)?;
                new_line(style.spacing, depth, &mut out);
            }
            '}' | ']' => {
                depth = depth.checked_sub(1)?;
                new_line(style.spacing, depth, &mut out);
                out.push(c);
            }
            ',' => {
                out.push(',');
                if style.spacing == Spacing::Spaced {
                    out.push(' ');
                }
                new_line(style.spacing, depth, &mut out);
            }
            ':' => out.push_str(if style.spacing == Spacing::Compact {
                ":"
            } else {
                ": "
            }),
            other => out.push(other),
        }
        rest = rest.get(c.len_utf8()..)?;
    }
    Some(out)
}

fn new_line(spacing: Spacing, depth: usize, out: &mut String) {
    if let Spacing::Pretty(indent) = spacing {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
}

/// The bytes of the string literal that the text begins with.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(at, byte)| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends.then_some(at + 1)
    })
}

fn write_string(value: &str, style: Style, out: &mut String) -> Option<()> {
    for c in serde_json::to_string(value).ok()?.chars() {
        match c {
            '/' if style.slashes => out.push_str("\\/"),
            c if style.ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    Some(())
}

fn replace(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = after;
        } else {
            out.push(first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(body: &str, original: &str) -> bool {
        originals(body.as_bytes())
            .iter()
            .any(|(_, bytes)| bytes == original.as_bytes())
    }

    #[test]
    fn json_is_found_in_every_usual_style() {
        let written = r#"{"url":"https:\/\/a","name":"Ж😀","n":1.50,"l":[],"o":{"b":[1,2]}}"#;
        for original in [
            r#"{"url":"https:\/\/a","name":"\u0416\ud83d\ude00","n":1.50,"l":[],"o":{"b":[1,2]}}"#,
            r#"{"url":"https://a","name":"Ж😀","n":1.50,"l":[],"o":{"b":[1,2]}}"#,
            r#"{"url": "https://a", "name": "\u0416\ud83d\ude00", "n": 1.50, "l": [], "o": {"b": [1, 2]}}"#,
            "{\n    \"url\": \"https:\\/\\/a\",\n    \"name\": \"\\u0416\\ud83d\\ude00\",\n    \"n\": 1.50,\n    \"l\": [],\n    \
             \"o\": {\n        \"b\": [\n            1,\n            2\n        ]\n    }\n}",
        ] {
            assert!(has(written, original), "{original}");
            assert!(has(original, written) || written == original, "{original}");
        }
        assert!(has(r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#));
    }

    #[test]
    fn ends_and_marks_are_tried_both_ways() {
        for (body, original) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a", "a\n"),
            ("a", "a\r\n"),
            ("a\nb", "a\r\nb"),
            ("a\r\nb", "a\nb"),
            ("\u{feff}a", "a"),
            ("a", "\u{feff}a"),
        ] {
            assert!(has(body, original), "{body:?} {original:?}");
        }
    }

    #[test]
    fn deep_documents_are_left_alone() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(originals(deep.as_bytes()).len() < 8);
    }

    proptest! {
        #[test]
        fn a_rewritten_document_has_the_same_value(text in "\\PC{0,12}", more in "\\PC{0,6}") {
            let value = serde_json::json!({"a": [text, {}, [], {more: 1.5}], "b": null});
            let body = value.to_string();
            for (change, original) in originals(body.as_bytes()) {
                if matches!(change, Change::Json(_) | Change::SortedJson) {
                    let again: serde_json::Value = serde_json::from_slice(&original).unwrap();
                    prop_assert_eq!(&again, &value);
                }
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = originals(&body);
        }
    }
}
