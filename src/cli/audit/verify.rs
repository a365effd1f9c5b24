//! `priorgate audit verify`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::audit::verify::{Report, verify};
use crate::cli::page::moment;
use crate::cli::style::{Style, printable};
use crate::cli::{OK, PROBLEM, client, complain, print_json};
use crate::policy::chain::{CheckpointKey, Tip};
use crate::policy::operation::Digest;

/// Nobody watches a verification that is over by then.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(in crate::cli) struct Verify {
    /// The files, oldest first; without them, all of audit.file
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// PEM file with the public key [default: audit.public_key_file]; where the key was replaced,
    /// repeated for each key that signed
    #[arg(long = "public-key", value_name = "FILE")]
    public_keys: Vec<PathBuf>,
    /// Verify the chain alone: proves nothing against whoever can write the files
    #[arg(long, conflicts_with = "public_keys")]
    no_key: bool,
    /// An end of the chain that was noted elsewhere: `audit head` lines of the gate's log have seq
    /// and head; may be repeated
    #[arg(long = "anchor", value_name = "SEQ:HEAD", value_parser = anchor)]
    anchors: Vec<Tip>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn anchor(text: &str) -> Result<Tip, String> {
    let read = || {
        let (seq, head) = text.split_once(':')?;
        Some(Tip {
            seq: seq.parse().ok()?,
            hash: Digest::parse(head)?,
        })
    };
    read().ok_or_else(|| "expected a number, a colon and 64 hexadecimal digits".to_owned())
}

pub(super) fn run(
    args: Verify,
    config: &Path,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let files = match super::files(&args.files, config, err) {
        Ok(files) => files,
        Err(code) => return code,
    };
    let keys = match keys(&args, config) {
        Ok(keys) => keys,
        Err(message) => {
            complain(err, &message);
            return PROBLEM;
        }
    };
    let started = Instant::now();
    let mut told = started;
    let shows = io::stderr().is_terminal();
    let mut progress = |file: &Path, bytes: u64| {
        if shows && started.elapsed() > PATIENCE && told.elapsed() > PATIENCE {
            told = Instant::now();
            let _ = writeln!(err, "{} MiB, in {} …", bytes >> 20, file.display());
        }
    };
    let report = match verify(&files, keys.as_deref(), &args.anchors, &mut progress) {
        Ok(report) => report,
        Err((file, error)) => {
            complain(err, &format!("cannot read {}: {error}", file.display()));
            return PROBLEM;
        }
    };
    let good = report.is_good(keys.is_some());
    if args.json {
        print_json(out, &document(&report, good));
    } else {
        let _ = print(&report, keys.is_some(), good, style, out);
    }
    if good { OK } else { PROBLEM }
}

fn keys(args: &Verify, config: &Path) -> Result<Option<Vec<CheckpointKey>>, String> {
    if args.no_key {
        return Ok(None);
    }
    let mut paths = args.public_keys.clone();
    if paths.is_empty() {
        let configured = client::audit_of(config).and_then(|audit| audit.public_key_file);
        paths.push(configured.ok_or(
            "name the public key with --public-key, or verify the chain alone with --no-key",
        )?);
    }
    let read = |path: &PathBuf| {
        let named = |error: String| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(|error| named(error.to_string()))?;
        CheckpointKey::parse(&bytes).map_err(|error| named(error.to_string()))
    };
    paths.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn document(report: &Report, good: bool) -> serde_json::Value {
    let summary = &report.summary;
    let findings = report.findings.iter().map(|finding| {
        json!({
            "file": finding.file.display().to_string(), "line": finding.line, "what": finding.what.to_string(),
        })
    });
    let unseen = report.unseen.iter().map(|tip| tip.seq);
    let ends = report.ends.iter().map(ToString::to_string);
    json!({
        "good": good,
        "records": summary.records,
        "first": summary.first,
        "last": summary.last.map(|tip| tip.seq),
        "head": summary.last.map(|tip| tip.hash.to_string()),
        "signed_checkpoints": summary.signed,
        "covered": summary.covered.map(|covered| covered.tip.seq),
        "not_covered": report.uncovered,
        "unsigned_since": summary.unsigned,
        "gaps": summary.gaps,
        "faults": report.faults(),
        "findings": findings.collect::<Vec<_>>(),
        "ends": ends.collect::<Vec<_>>(),
        "noted_elsewhere_and_not_here": unseen.collect::<Vec<_>>(),
    })
}

fn print(
    report: &Report,
    with_key: bool,
    good: bool,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let summary = &report.summary;
    for finding in &report.findings {
        let (file, what) = (finding.file.display().to_string(), finding.what.to_string());
        let place = format!("{}:{}:", printable(&file), finding.line);
        writeln!(out, "{place} {}", style.bad(&printable(&what)))?;
    }
    for fault in &report.ends {
        writeln!(out, "{}", style.bad(&fault.to_string()))?;
    }
    for anchor in &report.unseen {
        let text = format!(
            "cut off: record {} was noted elsewhere and is not here any more",
            anchor.seq
        );
        writeln!(out, "{}", style.bad(&text))?;
    }
    let (Some(first), Some(last)) = (summary.first, summary.last) else {
        return writeln!(out, "no records");
    };
    writeln!(
        out,
        "{} records, {first} to {}, {} to {}",
        summary.records,
        last.seq,
        printable(&summary.first_at),
        printable(&summary.last_at)
    )?;
    if first > 1 && report.ends.is_empty() {
        writeln!(
            out,
            "records 1 to {} are not in these files: the `ended` records say when each file was ended (audit.keep)",
            first - 1
        )?;
    }
    if summary.gaps > 0 {
        writeln!(
            out,
            "{} records say that others were lost: `priorgate audit show --event gap`",
            summary.gaps
        )?;
    }
    match (&summary.covered, with_key) {
        (_, false) => writeln!(
            out,
            "{}",
            style.warn(
                "no signature was verified: whoever can write the files could have made them anew"
            )
        )?,
        (None, true) => writeln!(out, "{}", style.bad("no checkpoint is signed"))?,
        (Some(covered), true) => {
            let at = moment(i64::try_from(covered.at).unwrap_or(i64::MAX));
            writeln!(
                out,
                "{} signed checkpoints; the last covers record {} and was signed {at} by the signer's clock",
                summary.signed, covered.tip.seq
            )?;
            writeln!(
                out,
                "{} records after it could have been changed by somebody who can write the file",
                report.uncovered
            )?;
        }
    }
    let unsigned = summary
        .unsigned
        .filter(|_| with_key && summary.covered.is_some());
    if let Some(seq) = unsigned {
        let text = format!("from record {seq} on checkpoints have no signature");
        writeln!(out, "{}", style.bad(&text))?;
    }
    writeln!(out, "the end is {}:{}", last.seq, last.hash)?;
    let verdict = if good {
        style.good("good")
    } else {
        let faults = report.faults() + u64::from(unsigned.is_some());
        style.bad(&format!("NOT good: {} faults", faults.max(1)))
    };
    writeln!(out, "{verdict}")
}
