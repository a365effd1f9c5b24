//! `priorgate verify`: one notification's signature, offline, and on failure what it can be.
//!
//! It owns how the bytes and the rules are given on the command line. The judgement is `policy/signature`'s, the same as
//! in the running gate.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;

use super::style::{Style, printable};
use super::{CONFIG, OK, PROBLEM, USAGE, complain, print_json};
use crate::config::Config;
use crate::gate::ingress;
use crate::net::clock::unix_millis;
use crate::net::exchange::chain;
use crate::policy::operation::UnixMillis;
use crate::policy::signature::{
    Algorithm, Encoding, Field, Head, Key, PublicKey, Template, Verdict, Verifier, diagnose,
    parse_rfc3339,
};

/// A notification above this is none.
const BODY_MAX: u64 = 64 << 20;

/// What is verified, and by which rules.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The body, byte for byte; `-` for stdin
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// A header of the notification: 'X-Signature: …'; may be repeated, or hold a line for each
    #[arg(long = "header", value_name = "LINES", value_parser = lines)]
    headers: Vec<Arc<Lines>>,
    /// By the rules and keys of this callback of the configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key", "algorithm"])]
    callback: Option<String>,
    /// By this public key alone: the signature of the body, in base64
    #[arg(long, value_name = "FILE", requires = "algorithm")]
    key: Option<PathBuf>,
    /// The key's algorithm, as in the configuration
    #[arg(long, value_name = "NAME", requires = "key", value_parser = Algorithm::parse)]
    algorithm: Option<Algorithm>,
    /// The path that it came to; by default the callback's
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// As of this time (RFC 3339); by default now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<UnixMillis>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Header lines of one argument.
type Lines = Vec<(HeaderName, HeaderValue)>;

fn lines(text: &str) -> Result<Arc<Lines>, String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(header).collect::<Result<_, _>>().map(Arc::new)
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or("expected NAME: VALUE, as in the notification")?;
    let name = name.trim().parse().map_err(|_| "not a header's name")?;
    let value = value.trim().parse().map_err(|_| "not a header's value")?;
    Ok((name, value))
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-12-31T00:00:00Z".to_owned())
}

/// Verifies. Gives the exit code: 0 if a key fits, 1 if none does.
pub(super) fn run(
    args: Verify,
    config: &Path,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let body = match read(&args.body) {
        Ok(body) => body,
        Err(error) => {
            complain(
                err,
                &format!("{} cannot be read: {error}", args.body.display()),
            );
            return PROBLEM;
        }
    };
    let (verifier, path) = match rules(&args, config) {
        Ok(rules) => rules,
        Err((code, message)) => {
            complain(err, &message);
            return code;
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in args.headers.iter().flat_map(|lines| lines.iter()) {
        headers.append(name.clone(), value.clone());
    }
    let path = args.path.unwrap_or(path);
    let head = Head {
        method: &Method::POST,
        path: &path,
        headers: &headers,
    };
    let now = args.at.unwrap_or_else(unix_millis);
    match verifier.judge(&head, body.clone(), now) {
        Verdict::Accepted(verified) => {
            if args.json {
                print_json(out, &json!({"ok": true, "key": verified.key_id()}));
            } else {
                let good = style.good("verified");
                let _ = writeln!(out, "{good} by key {}", printable(verified.key_id()));
            }
            OK
        }
        Verdict::Rejected(reason) => {
            let hints = diagnose(&verifier, &head, &body, now);
            if args.json {
                let hints: Vec<_> = hints
                    .iter()
                    .map(|hint| json!({"code": hint.code.as_str(), "message": hint.sentence}))
                    .collect();
                let document = json!({"ok": false, "reason": reason.as_str(), "hints": hints});
                print_json(out, &document);
            } else {
                let _ = writeln!(out, "{}: {reason}", style.bad("not verified"));
                for hint in &hints {
                    let _ = writeln!(
                        out,
                        "  {}: {}",
                        hint.code.as_str(),
                        printable(&hint.sentence)
                    );
                }
                if hints.is_empty() {
                    let _ = writeln!(
                        out,
                        "  nothing that is often wrong explains it: is it the right key, and are these the very bytes?"
                    );
                }
            }
            PROBLEM
        }
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut body = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(BODY_MAX).read_to_end(&mut body)?;
    } else {
        fs::File::open(path)?
            .take(BODY_MAX)
            .read_to_end(&mut body)?;
    }
    Ok(Bytes::from(body))
}

/// The verifier and the path that it expects, or an exit code and why.
fn rules(args: &Verify, config: &Path) -> Result<(Verifier, String), (u8, String)> {
    if let (Some(file), Some(algorithm)) = (&args.key, args.algorithm) {
        let bytes = fs::read(file).map_err(|error| {
            (
                PROBLEM,
                format!("{} cannot be read: {error}", file.display()),
            )
        })?;
        let key = PublicKey::parse(algorithm, &bytes)
            .map_err(|error| (PROBLEM, format!("{}: {error}", file.display())))?;
        // The one header that was given holds the signature.
        let all: Vec<_> = args.headers.iter().flat_map(|lines| lines.iter()).collect();
        let [(name, _)] = all.as_slice() else {
            let message = "with --key give exactly one --header: the one with the signature";
            return Err((USAGE, message.to_owned()));
        };
        let key = Key {
            id: "given".into(),
            key,
            not_before: None,
            not_after: None,
        };
        let internal = |error: String| (PROBLEM, error);
        let field = Field::new(Encoding::Base64, "", None).map_err(|e| internal(e.to_string()))?;
        let body = Template::parse(&["body"]).map_err(|e| internal(e.to_string()))?;
        let verifier = Verifier::new(name.clone(), field, body, vec![key], None);
        let verifier = verifier.map_err(|errors| {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            internal(texts.join("; "))
        })?;
        return Ok((verifier, "/".to_owned()));
    }
    let Some(name) = &args.callback else {
        let message = "name a --callback of the configuration, or a --key and its --algorithm";
        return Err((USAGE, message.to_owned()));
    };
    let config = Config::load(config).map_err(|error| (CONFIG, error.to_string()))?;
    let callback = config
        .callbacks
        .iter()
        .find(|callback| callback.name == *name);
    let callback = callback.ok_or_else(|| {
        let message = format!("the configuration has no callback `{name}`");
        (PROBLEM, message)
    })?;
    // The secrets of the delivery are no business of a look at a signature: whoever asks may not be allowed to read them.
    let verifier = ingress::verifier(callback).map_err(|error| (PROBLEM, chain(&error)))?;
    Ok((verifier, callback.path.clone()))
}
