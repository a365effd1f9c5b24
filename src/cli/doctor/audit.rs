//! The audit log: where it lies, who can write there, whether its chain holds, and whether somebody signs it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::space;
use super::{Findings, credentials, keys};
use crate::audit::files_of;
use crate::audit::verify::{Report, What, verify};
use crate::config::{Audit, Config, KeySource};
use crate::net::clock::unix_millis;
use crate::policy::chain::{CheckpointKey, Fault, Vouched};
use crate::policy::operation::UnixMillis;
use crate::policy::signature::parse_rfc3339;

/// Verified at most, from the newest file back: some seconds. `audit verify` takes everything.
const VERIFIED_MAX: u64 = 256 << 20;
/// A checkpoint is due each minute in which something happened: five are more than a slow keyholder.
const UNSIGNED_MAX: Duration = Duration::from_secs(300);
const SUBJECT: &str = "audit log";
const SIGNED: &str = "audit log: signatures";

pub(super) fn look(config: &Config, root: &Path, findings: &mut Findings) {
    let Some(audit) = &config.audit else {
        findings.yellow(
            SUBJECT,
            "none is kept: nobody can tell afterwards who used the identity",
            "add `audit: {file: …}`; `priorgate keygen audit` makes its keys",
        );
        return;
    };
    place(audit, findings);
    if let Some(key) = &audit.key {
        let subject = "audit log: private key";
        let named = match &key.source {
            KeySource::Credential(name) => Ok(name.as_str()),
            KeySource::File(file) => credentials::named_by(file).ok_or(file),
        };
        match named {
            Ok(name) => credentials::look(root, None, subject, name, findings),
            Err(file) => {
                keys::readers(subject, file, findings);
                keys::replacers(subject, file, findings);
            }
        }
    }
    chain(audit, findings);
}

/// Whoever may write to the directory can put another log there; whoever may read has who did what when.
fn place(audit: &Audit, findings: &mut Findings) {
    let directory = audit.file.parent().unwrap_or(&audit.file);
    let subject = "audit log: directory";
    let shown = directory.display();
    let Ok(found) = fs::metadata(directory) else {
        findings.red(
            subject,
            format!("{shown} is not there, or may not be looked at"),
            "make it, owned by the gate's user, 0750; or run doctor as root",
        );
        return;
    };
    let mode = found.mode() & 0o7777;
    let open = mode & 0o022 != 0 && mode & 0o1000 == 0;
    let owner = fs::metadata(&audit.file).map(|file| (file.uid(), file.mode() & 0o777));
    match owner {
        _ if open => findings.red(
            subject,
            format!("others may write to {shown} (mode {mode:o}) and replace the log"),
            &format!("chmod go-w {shown}"),
        ),
        Ok((uid, _)) if uid != found.uid() && found.uid() != 0 => findings.yellow(
            subject,
            format!(
                "{shown} is uid {}'s, and the log is uid {uid}'s: the first may replace it",
                found.uid()
            ),
            &format!("chown it to the gate's user: chown {uid} {shown}"),
        ),
        _ => findings.green(
            subject,
            format!("only uid {} and root may write to {shown}", found.uid()),
        ),
    }
    if let Ok((uid, mode)) = owner {
        let (file, next) = (
            audit.file.display(),
            format!("chmod 640 {}", audit.file.display()),
        );
        let message = format!("{file} is uid {uid}'s, mode {mode:o}");
        match mode {
            _ if mode & 0o022 != 0 => findings.red(SUBJECT, message, &next),
            _ if mode & 0o004 != 0 => findings.yellow(SUBJECT, message, &next),
            _ => findings.green(SUBJECT, message),
        }
    }
    space(
        "audit log's disk",
        directory,
        "make room: without it the journal keeps what it owes the log, and past its bound guarded requests are refused",
        findings,
    );
}

/// The newest files, as many as are read in a moment; and how many there are.
fn newest(audit: &Audit) -> std::io::Result<(Vec<PathBuf>, usize)> {
    let mut all = files_of(&audit.file)?;
    let count = all.len();
    let mut bytes = 0_u64;
    let taken = all.iter().rev().take_while(|file| {
        let before = bytes;
        bytes = bytes.saturating_add(fs::metadata(file).map_or(0, |found| found.len()));
        before == 0 || bytes <= VERIFIED_MAX
    });
    let taken = taken.count();
    Ok((all.split_off(count.saturating_sub(taken)), count))
}

fn chain(audit: &Audit, findings: &mut Findings) {
    let (files, count) = match newest(audit) {
        Ok((files, _)) if files.is_empty() => {
            let message = format!("there is no {} yet", audit.file.display());
            return findings.yellow(SUBJECT, message, "it is made when the gate starts");
        }
        Ok(found) => found,
        Err(error) => {
            let message = format!("{}: {error}", audit.file.display());
            return findings.yellow(SUBJECT, message, "run doctor as root");
        }
    };
    // What is wrong with the key is said by `check`.
    let key = audit.key.as_ref().and_then(|key| {
        let bytes = fs::read(&key.public_file).ok()?;
        CheckpointKey::parse(&bytes).ok()
    });
    let report = match verify(
        &files,
        key.as_ref().map(std::slice::from_ref),
        &[],
        &mut |_, _| {},
    ) {
        Ok(report) => report,
        Err((file, error)) => {
            let message = format!("{}: {error}", file.display());
            let next = "run doctor as root, or as a member of the log's group";
            return findings.yellow(SUBJECT, message, next);
        }
    };
    let looked = if files.len() == count {
        format!("{count} file(s)")
    } else {
        format!("the newest {} of {count} files", files.len())
    };
    intact(&report, files.len() == count, &looked, findings);
    match key {
        None => findings.yellow(
            SIGNED,
            "no public key is configured or can be read: the chain alone stops nobody who can write the file",
            "`priorgate keygen audit` makes a pair; name it in audit.key_file and audit.public_key_file",
        ),
        Some(_) => signed(&report, unix_millis(), findings),
    }
}

/// Of `whole` the beginning is looked at as well.
fn intact(report: &Report, whole: bool, looked: &str, findings: &mut Findings) {
    let summary = &report.summary;
    // The gate may be writing the last line while it is read.
    let mut faults = report
        .findings
        .iter()
        .filter(|finding| finding.what != What::Unfinished);
    if let Some(first) = faults.next() {
        let message = format!(
            "{} fault(s) in {looked}; the first in {}, line {}: {}",
            faults.count() + 1,
            first.file.display(),
            first.line,
            first.what
        );
        let next = "keep the files as they are; `priorgate audit verify` lists all, and docs/audit.md says what they mean";
        findings.red(SUBJECT, message, next);
        return;
    }
    // An end without a signature is told with the signatures.
    let wrong = |end: &&Fault| match end {
        Fault::Tail { .. } => false,
        Fault::Beginning(_) => whole,
        _ => true,
    };
    if let Some(end) = report.ends.iter().find(wrong) {
        let next = "keep the files as they are; docs/audit.md says what it means";
        findings.red(SUBJECT, format!("{looked}: {end}"), next);
        return;
    }
    let last = summary.last.map_or(0, |tip| tip.seq);
    let message = format!(
        "the chain of {looked} holds: {} records, the last is {last} of {}",
        summary.records, summary.last_at
    );
    if summary.gaps > 0 {
        let message = format!(
            "{message}; {} of them say that others were lost",
            summary.gaps
        );
        findings.yellow(
            SUBJECT,
            message,
            "`priorgate audit show --event gap` shows what and when",
        );
    } else {
        findings.green(SUBJECT, message);
    }
}

/// Whether the end is signed: a log that nobody writes to may be old, its last records may not be without a signature.
fn signed(report: &Report, now: UnixMillis, findings: &mut Findings) {
    let (summary, uncovered) = (&report.summary, report.uncovered);
    let Some(Vouched { tip, at, .. }) = summary.covered else {
        return findings.yellow(
            SIGNED,
            "no checkpoint is signed yet",
            "one comes each minute in which something happens; none after two: see `keyholder` in `priorgate status`",
        );
    };
    let at = UnixMillis(i64::try_from(at).unwrap_or(i64::MAX));
    let age = now.0.saturating_sub(at.0) / 1_000;
    let message = format!(
        "signed up to record {}, {age} s ago; {uncovered} record(s) since",
        tip.seq
    );
    let late = parse_rfc3339(&summary.last_at).is_some_and(|last| last.before(UNSIGNED_MAX) > at);
    if let Some(since) = summary.unsigned {
        let message = format!("{message}; from record {since} on checkpoints have no signature");
        findings.red(
            SIGNED,
            message,
            "is the keyholder up, with audit.key_file? See its log",
        );
    } else if uncovered > 0 && late {
        findings.red(
            SIGNED,
            message,
            "is the keyholder up? See `priorgate status` and its log",
        );
    } else {
        findings.green(SIGNED, message);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::Colour;
    use super::*;
    use crate::audit;
    use crate::policy::chain::{Fields, Tip};

    /// A log that somebody has written and closed, unsigned.
    fn log() -> (TempDir, Audit) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let config = Audit {
            file: dir.path().join("audit.jsonl"),
            key: None,
            rotate: 64 << 20,
            keep: Duration::from_secs(86_400),
        };
        let log = audit::open(&config).unwrap().start(None, None).unwrap();
        for _ in 0..3 {
            log.event(Fields::of("reload").text("by", "a test"), unix_millis());
        }
        log.close();
        (dir, config)
    }

    fn told(look: impl Fn(&mut Findings)) -> Vec<(String, Colour, String)> {
        let mut findings = Findings::default();
        look(&mut findings);
        let lines = findings.0.into_iter();
        lines
            .map(|line| (line.subject, line.colour, line.message))
            .collect()
    }

    #[test]
    fn the_log_is_judged_by_who_may_write_and_read_it() {
        let (dir, config) = log();
        let colours = |directory: u32, file: u32| {
            let set = |path: &Path, mode| {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            };
            set(dir.path(), directory);
            set(&config.file, file);
            let told = told(|findings| place(&config, findings));
            (told[0].1, told[1].1)
        };
        assert_eq!(colours(0o750, 0o640), (Colour::Green, Colour::Green));
        assert_eq!(colours(0o770, 0o640), (Colour::Red, Colour::Green));
        assert_eq!(colours(0o1777, 0o640), (Colour::Green, Colour::Green));
        assert_eq!(colours(0o755, 0o644), (Colour::Green, Colour::Yellow));
        assert_eq!(colours(0o755, 0o660), (Colour::Green, Colour::Red));
    }

    #[test]
    fn a_whole_chain_is_green_an_edited_one_red_and_half_a_last_line_is_somebody_writing() {
        let (_dir, config) = log();
        let seen = || told(|findings| chain(&config, findings));
        let whole = seen();
        assert_eq!((whole[0].1, whole[1].1), (Colour::Green, Colour::Yellow));
        assert!(whole[0].2.contains("holds: 6 records"), "{whole:?}");
        assert!(whole[1].2.contains("no public key"), "{whole:?}");
        let text = fs::read_to_string(&config.file).unwrap();
        fs::write(&config.file, format!("{text}{{\"seq\":")).unwrap();
        assert_eq!(seen()[0].1, Colour::Green);
        fs::write(&config.file, text.replacen("a test", "a tesT", 1)).unwrap();
        let edited = seen();
        assert_eq!(edited[0].1, Colour::Red);
        assert!(edited[0].2.contains("edited"), "{edited:?}");
        fs::remove_file(&config.file).unwrap();
        assert_eq!(seen()[0].1, Colour::Yellow);
    }

    #[test]
    fn an_end_that_nobody_signs_any_more_is_red_and_an_old_log_that_rests_is_not() {
        let report = |covered: u64, last_at: &str, last: u64, unsigned| {
            let (dir, config) = log();
            let mut report = verify(&[config.file], None, &[], &mut |_, _| {}).unwrap();
            drop(dir);
            report.summary.covered = Some(Vouched {
                tip: Tip {
                    seq: covered,
                    hash: Tip::GENESIS.hash,
                },
                at: 1_795_000_000_000,
                signatures: 1,
                before: Tip::GENESIS,
            });
            report.uncovered = last - covered - 1;
            report.summary.unsigned = unsigned;
            last_at.clone_into(&mut report.summary.last_at);
            report.summary.last.as_mut().unwrap().seq = last;
            report
        };
        let colour = |report: Report| {
            let now = UnixMillis(1_795_000_000_000 + 86_400_000);
            told(|findings| signed(&report, now, findings))[0].1
        };
        // 1,795,000,000 is 2026-11-18T11:06:40Z.
        let (soon, late) = ("2026-11-18T11:07:00Z", "2026-11-18T11:20:00Z");
        assert_eq!(colour(report(5, soon, 6, None)), Colour::Green);
        assert_eq!(colour(report(5, late, 6, None)), Colour::Green);
        assert_eq!(colour(report(5, soon, 9, None)), Colour::Green);
        assert_eq!(colour(report(5, late, 9, None)), Colour::Red);
        assert_eq!(colour(report(5, soon, 9, Some(7))), Colour::Red);
    }
}
