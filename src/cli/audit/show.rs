//! `priorgate audit show`: records that fit, as they are or a line for people.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::{OK, PROBLEM, complain};
use crate::policy::chain::LINE_MAX;
use crate::policy::operation::UnixMillis;
use crate::policy::signature::parse_rfc3339;

/// Members that every record has.
const ENVELOPE: [&str; 10] = [
    "seq",
    "at",
    "boot",
    "journal",
    "row",
    "after",
    "event",
    "prev",
    "hash",
    "signature",
];
/// The most that is kept to show the last ones.
const LAST_MAX: u32 = 100_000;

#[derive(Args, Debug)]
pub(in crate::cli) struct Show {
    /// The files, oldest first; without them, all of audit.file
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only this event: operation, callback, command, request, denied, checkpoint, start, stop,
    /// reload, gap, …; may be repeated
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Only this operation, as in Priorgate-Operation
    #[arg(long, value_name = "ID")]
    operation: Option<String>,
    /// Only of this uid
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Only from this moment on, as in 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<UnixMillis>,
    /// The last so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(LAST_MAX)))]
    last: u32,
    /// Print the records as they are
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-12-31T00:00:00Z".to_owned())
}

pub(super) fn run(args: &Show, config: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let files = match super::files(&args.files, config, err) {
        Ok(files) => files,
        Err(code) => return code,
    };
    let mut kept = VecDeque::new();
    for file in &files {
        let read = each_line(file, |line| {
            let Some(text) = args.fits(line) else { return };
            if args.last == 0 {
                let _ = writeln!(out, "{text}");
                return;
            }
            if kept.len() >= args.last as usize {
                kept.pop_front();
            }
            kept.push_back(text);
        });
        if let Err(error) = read {
            complain(err, &format!("cannot read {}: {error}", file.display()));
            return PROBLEM;
        }
    }
    for text in kept {
        let _ = writeln!(out, "{text}");
    }
    OK
}

fn each_line(file: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(LINE_MAX as u64 + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        take(&line);
    }
}

impl Show {
    /// The text of a record that fits. What is no record is for `verify`.
    fn fits(&self, line: &[u8]) -> Option<String> {
        let record: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
        let event = text("event");
        let wanted = self.events.is_empty() || self.events.iter().any(|wanted| wanted == event);
        let about = self.operation.as_deref().is_none_or(|id| {
            ["id", "operation", "about"]
                .iter()
                .any(|name| text(name) == id)
        });
        let by = self
            .uid
            .is_none_or(|uid| record.get("uid").and_then(Value::as_u64) == Some(uid.into()));
        let late = self
            .since
            .is_none_or(|since| parse_rfc3339(text("at")).is_some_and(|at| at >= since));
        if !(wanted && about && by && late) {
            return None;
        }
        if self.json {
            // It is ASCII without control characters: it steers no terminal.
            let ascii = line.iter().all(|b| matches!(b, 32..127));
            return ascii.then(|| String::from_utf8_lossy(line).into_owned());
        }
        let seq = record.get("seq").and_then(Value::as_u64).unwrap_or(0);
        let mut shown = format!("{seq:>8}  {}  {event:<10}", text("at"));
        for (name, value) in &record {
            if !ENVELOPE.contains(&name.as_str()) {
                shown.push_str(&format!("  {name}={}", short(value)));
            }
        }
        Some(crate::cli::style::printable(&shown))
    }
}

/// Hashes are for programs.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() == 64 && !text.contains(' ') => {
            text.chars().take(12).collect()
        }
        Value::String(text) if !text.contains([' ', '=', '"']) => text.clone(),
        other => other.to_string(),
    }
}
