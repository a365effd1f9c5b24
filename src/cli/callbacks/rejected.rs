//! What no key verified: shown to a person, and saved so that `priorgate verify` can say why.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};

use super::document;
use super::document::Rejection;
use crate::admin::commands::Request;
use crate::cli::client::ClientError;
use crate::cli::journal_file::{ask, other_version};
use crate::cli::page::moment;
use crate::cli::style::{Style, printable};
use crate::cli::{Failure, OK, PROBLEM, complain, failed, print_json};

/// Characters of a body that are shown.
const GLANCE: usize = 160;

pub(super) fn run(
    args: super::Rejected,
    config: PathBuf,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let document = match ask(&target, &Request::Rejected {}) {
        Ok(document) => document,
        Err(failure) => {
            let down = matches!(failure, Failure::Client(ClientError::NotRunning { .. }));
            let code = failed(failure, target.json, out, err);
            if down && !target.json {
                complain(err, "what is rejected is only in a running gate's memory");
            }
            return code;
        }
    };
    if args.save.is_none() && target.json {
        print_json(out, &document);
        return OK;
    }
    let Ok(document::Rejected { rejected }) = serde_json::from_value(document.clone()) else {
        return other_version(err);
    };
    let code = match &args.save {
        Some(dir) => save_all(&rejected, dir, err),
        None => OK,
    };
    if target.json {
        print_json(out, &document);
    } else {
        let _ = print(&rejected, args.save.as_deref(), style, out);
    }
    code
}

pub(super) fn print(
    rejected: &[Rejection],
    saved: Option<&Path>,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if rejected.is_empty() {
        return writeln!(out, "nothing was rejected since the gate started");
    }
    for (number, one) in (1..).zip(rejected) {
        let head = style.bold(&number.to_string());
        let (at, source) = (moment(one.at), printable(&one.source));
        let reason = style.warn(&printable(&one.reason));
        writeln!(out, "{head}  {at}  {source}  {reason}, {} bytes", one.bytes)?;
        for (name, value) in &one.headers {
            writeln!(out, "   {}: {}", printable(name), printable(value))?;
        }
        writeln!(out, "   {}", glance(one))?;
        if let Some(dir) = saved.filter(|_| !one.body.cut) {
            writeln!(out, "   {}", verify(one, &paths(dir, number).0))?;
        }
    }
    if saved.is_some() {
        return writeln!(out, "\nThe `verify` lines say what is wrong with each.");
    }
    writeln!(
        out,
        "\nWell-formed, but no key of the configuration fits: a key that the bank has changed, a body that somebody on the way\n\
         has changed, or not the bank. To see which:\n  \
         priorgate callbacks rejected --save DIR"
    )
}

/// The beginning of a body, in one line.
fn glance(one: &Rejection) -> String {
    match &one.body.text {
        Some(text) if text.is_empty() => "(an empty body)".to_owned(),
        Some(text) => {
            let text = printable(text);
            let mut short: String = text.chars().take(GLANCE).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            short
        }
        None => "(a body that is no text, or a long one)".to_owned(),
    }
}

/// The command that says why, ready to be pasted.
fn verify(one: &Rejection, body: &Path) -> String {
    let mut line = format!(
        "priorgate verify --callback {} --body {}",
        quoted(&one.source),
        quoted(&body.to_string_lossy())
    );
    for (name, value) in &one.headers {
        line.push_str(&format!(
            " --header {}",
            quoted(&format!("{name}: {value}"))
        ));
    }
    line
}

/// A word for the shell. What a terminal would not show as it is, it cannot be pasted from: that is in the file.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", printable(text).replace('\'', r"'\''"))
}

fn paths(dir: &Path, number: usize) -> (PathBuf, PathBuf) {
    let path = |what| dir.join(format!("{number}.{what}"));
    (path("body"), path("headers"))
}

/// Gives the exit code. What cannot be given whole is not written: `verify` would say that it was changed.
fn save_all(rejected: &[Rejection], dir: &Path, err: &mut dyn Write) -> u8 {
    let mut code = OK;
    for (number, one) in (1..).zip(rejected) {
        if one.body.cut {
            let message = format!("{number} is too long to be given whole, and was not saved");
            complain(err, &message);
            code = PROBLEM;
            continue;
        }
        let Ok(body) = Base64::decode_vec(&one.body.base64) else {
            return other_version(err);
        };
        let lines = one
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"));
        let headers: String = lines.collect();
        let (body_path, headers_path) = paths(dir, number);
        for (path, bytes) in [(body_path, &body[..]), (headers_path, headers.as_bytes())] {
            if let Err(error) = save(&path, bytes) {
                let path = path.display();
                let message =
                    format!("cannot write {path}: {error}; name a new or empty directory");
                complain(err, &message);
                return PROBLEM;
            }
        }
    }
    code
}

/// Nobody but the owner reads it: it may well be the bank's. Nothing is written over: it may be what was saved last time.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}
