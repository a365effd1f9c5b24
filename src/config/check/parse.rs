//! What the YAML reader says, in words for an administrator and without a value.
//!
//! The reader quotes what it found. Where a list of token files is expected that may be the token itself, and for
//! `identity` the private key. So its sentences are taken apart here: what was expected is kept, what was found is
//! named by its kind.

use crate::config::error::Mistake;

/// Longer than our longest key with two letters too many: what is longer is no misspelling of ours, and may be a value.
const KEY_MAX: usize = 26;

/// The reader's message, its place and path pulled out of the sentence.
pub(super) fn mistake(error: &serde_yaml::Error, text: &str) -> Mistake {
    let position = error.location().map(|place| (place.line(), place.column()));
    let whole = error.to_string();
    let own = position
        .and_then(|(line, column)| whole.strip_suffix(&format!(" at line {line} column {column}")));
    // A syntax error names a second place; the first one is the mistake's.
    let own = own.unwrap_or_else(|| {
        whole
            .split_once(" at line ")
            .map_or(whole.as_str(), |(own, _)| own)
    });
    let (path, message) = match own.split_once(": ") {
        Some((path, rest)) if is_key_path(path) => (path, rest),
        _ => ("", own),
    };
    let help = help_for(message, path, text);
    Mistake {
        position,
        path: path.to_owned(),
        message: without_value(message),
        help,
    }
}

fn is_key_path(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.[]-?".contains(&b))
}

/// The same sentence without what was found. What is expected stands last, and is ours: a value cannot move it.
fn without_value(message: &str) -> String {
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let found = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    if let Some(found) = found {
        return wrong_kind(found, expected);
    }
    if message.starts_with("unknown variant") {
        let expected = expected.unwrap_or("another value");
        return format!("expected {expected}");
    }
    if message.starts_with("unknown field") {
        let name = match unknown_key(message) {
            Some(key) => format!("unknown field `{key}`"),
            None => "unknown field".to_owned(),
        };
        return match expected {
            Some(expected) => format!("{name}, expected {expected}"),
            None => name,
        };
    }
    if message.starts_with("deserializing from YAML containing more than one document") {
        return "holds more than one document".to_owned();
    }
    message.to_owned()
}

/// `found` starts with the kind of the value; the value follows in quotes.
fn wrong_kind(found: &str, expected: Option<&str>) -> String {
    let expected = match expected {
        Some("a sequence") => "a list",
        Some("a boolean") => "true or false",
        Some("a string") => "text",
        Some("u32") => "a whole number from 0 to 4294967295",
        Some(text) if text.starts_with("struct ") => "keys and values",
        Some(text) => text,
        None => return "is not of the kind that is expected".to_owned(),
    };
    let kind = found
        .split(['"', '`', ','])
        .next()
        .unwrap_or_default()
        .trim();
    let kind = match kind {
        "string" => "text",
        "sequence" => "a list",
        "map" => "keys and values",
        "unit value" => "nothing",
        "boolean" => "true or false",
        "integer" | "floating point" if expected.contains("number") => "another number",
        "integer" | "floating point" => "a number",
        _ => "something else",
    };
    format!("expected {expected}, found {kind}")
}

/// The unknown key, if it looks like one and not like a value that slipped to the left of a colon.
fn unknown_key(message: &str) -> Option<&str> {
    let (found, _) = message.rsplit_once(", expected ")?;
    let key = found.strip_prefix("unknown field `")?.strip_suffix('`')?;
    let good = key.len() <= KEY_MAX
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    good.then_some(key)
}

fn help_for(message: &str, path: &str, text: &str) -> String {
    let help = if message.starts_with("unknown field") {
        return help_for_unknown(message);
    } else if message.starts_with("missing field") {
        "add it; config.yaml.example shows how"
    } else if message.starts_with("duplicate") {
        "keep one of them"
    } else if message.contains("more than one document") {
        "keep one, and no line `---` between two"
    } else if text.contains('\t') && message.contains("token") {
        "indent with spaces: YAML takes no tabs"
    } else {
        help_for_key(message, path)
    };
    help.to_owned()
}

/// Where the form alone does not tell what to do.
fn help_for_key(message: &str, path: &str) -> &'static str {
    let key = path.rsplit('.').next().unwrap_or_default();
    let key = key.split('[').next().unwrap_or_default();
    match key {
        "identity" => "write `{cert_file: PATH, key_file: PATH}`: paths, never the key itself",
        "set_files" => "write `[{name: NAME, file: PATH}]`: the value stands in the file",
        "token_files" => "write `[PATH]`: the token stands in the file",
        "url" if message.contains("password") => {
            "put the value of an Authorization header into a file: headers.set_files"
        }
        "url" if message.contains("query") => "paths belong to routes",
        "url" => "take the bank's address from its contract",
        _ => "config.yaml.example shows the form of every key",
    }
}

fn help_for_unknown(message: &str) -> String {
    let known = message.rsplit_once(", expected ");
    let near = unknown_key(message).and_then(|unknown| {
        let known = known?.1.split('`').skip(1).step_by(2);
        known
            .map(|known| (distance(unknown, known), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
    });
    match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => "remove it, or look it up in config.yaml.example".to_owned(),
    }
}

/// Levenshtein's distance, for names of keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut last = i;
        let mut left = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let replace = last.saturating_add(usize::from(from != *to));
            last = *cell;
            left = replace
                .min(left.saturating_add(1))
                .min(cell.saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::File;

    fn told(yaml: &str) -> Mistake {
        let error = serde_yaml::from_str::<File>(yaml).unwrap_err();
        mistake(&error, yaml)
    }

    #[test]
    fn no_value_is_repeated_whatever_it_looks_like() {
        for value in [
            "hunter2",
            "x, expected hunter2",
            "hunter2 at line 1 column 1",
            "banks: hunter2",
            "`hunter2`, expected `a`",
            "hunter2-0123456789abcdef0123456789",
        ] {
            let value = serde_json::to_string(value).unwrap();
            for yaml in [
                format!("banks: {value}"),
                format!("banks: [{value}]"),
                format!("banks: [{{identity: {value}}}]"),
                format!("banks: [{{listen: [{{token_files: {value}}}]}}]"),
                format!("banks: [{{listen: [{{unsafe_listen: {value}}}]}}]"),
                format!("banks: [{{headers: {{set_files: [{value}]}}}}]"),
                format!("banks: [{{url: {value}}}]"),
                format!("log: {{format: {value}}}"),
                format!("threads: {{handshakes: {value}}}"),
                format!("shutdown: {{drain: {value}}}"),
                format!("journal: {value}"),
            ] {
                let told = told(&yaml);
                assert!(!format!("{told:?}").contains("hunter2"), "{yaml}: {told:?}");
            }
        }
    }

    #[test]
    fn a_key_is_named_only_if_it_looks_like_one() {
        assert!(told("hunter: 1").message.contains("`hunter`"));
        for yaml in [
            "\"Bearer hunter2\": 1",
            "0123456789abcdef0123456789hunter2: 1",
            "\"hunter2`, expected `a\": 1",
        ] {
            let told = told(yaml);
            assert!(told.message.starts_with("unknown field"), "{told:?}");
            assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
        }
    }

    #[test]
    fn kinds_are_named_in_words() {
        let message = |yaml: &str| told(yaml).message;
        assert_eq!(message("~"), "expected keys and values, found nothing");
        assert_eq!(message("banks: 5"), "expected a list, found a number");
        assert_eq!(
            message("threads: {handshakes: -1}"),
            "expected a whole number from 0 to 4294967295, found another number"
        );
        assert_eq!(
            message("log: {format: text}"),
            "expected `json` or `pretty`"
        );
    }
}
