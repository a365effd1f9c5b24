//! The machine under the gate: its clock, the journal's disk, and what the service manager says of the units.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::Findings;
use crate::config::Config;
use crate::journal;
use crate::net::exchange::chain;

/// Below this new operations are about to be refused.
const SPACE_RED: u64 = 64 << 20;
/// Below this somebody should look.
const SPACE_YELLOW: u64 = 512 << 20;
/// A file can be made a little later than our clock says, by a network file system for one.
const CLOCK_SLACK: Duration = Duration::from_secs(300);
/// systemd-analyze asks the manager over a bus.
const ANALYSIS: Duration = Duration::from_secs(10);
const UNITS: [&str; 2] = ["priorgate.service", "priorgate-keyholder.service"];

pub(super) fn look(config: &Config, findings: &mut Findings) {
    clock(config, findings);
    if let Some(journal) = &config.journal {
        disk(&journal.path, journal.allow_volatile, findings);
    }
    // sd_booted(3).
    if Path::new("/run/systemd/system").exists() {
        for unit in UNITS {
            exposure(unit, findings);
        }
    } else {
        findings.yellow(
            "unit exposure",
            "not run: systemd does not run here",
            "confinement by systemd is not in force",
        );
    }
}

/// A clock that is behind makes every certificate not yet valid, and one that is ahead makes them end.
fn clock(config: &Config, findings: &mut Findings) {
    let written = std::fs::metadata(&config.path).and_then(|found| found.modified());
    let now = SystemTime::now();
    match written {
        Ok(written) if written > now.checked_add(CLOCK_SLACK).unwrap_or(now) => findings.red(
            "clock",
            format!(
                "{} was written in the future: the clock is behind",
                config.path.display()
            ),
            "set the clock (timedatectl); certificates are judged by it",
        ),
        _ => findings.green(
            "clock",
            "not behind the files; certificates above are judged by it",
        ),
    }
}

fn disk(journal: &Path, allow_volatile: bool, findings: &mut Findings) {
    let dir = journal.parent().unwrap_or(journal);
    match journal::file_system(journal, allow_volatile) {
        Ok(None) => findings.green("journal", "its file system keeps what it is given"),
        Ok(Some(kind)) => findings.yellow(
            "journal",
            format!("{} lies on {kind}, which forgets", dir.display()),
            "for demos and tests only: move it to a disk and leave allow_volatile out",
        ),
        Err(error) => findings.red(
            "journal",
            chain(&error),
            "name a directory on a local disk in journal.sqlite",
        ),
    }
    let next = "make room: without it guarded requests and callbacks are refused";
    space("journal's disk", dir, next, findings);
}

/// How much room there is.
pub(super) fn space(subject: &str, dir: &Path, next: &str, findings: &mut Findings) {
    match rustix::fs::statvfs(dir) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let message = format!("{} MiB are free in {}", free >> 20, dir.display());
            if free < SPACE_RED {
                findings.red(subject, message, next);
            } else if free < SPACE_YELLOW {
                findings.yellow(subject, message, next);
            } else {
                findings.green(subject, message);
            }
        }
        Err(error) => findings.yellow(
            subject,
            format!("{}: {error}", dir.display()),
            "run doctor as root",
        ),
    }
}

/// What systemd takes away from a unit: it does not see what the process gives up by itself.
fn exposure(unit: &str, findings: &mut Findings) {
    let subject = format!("unit exposure: {unit}");
    let not_run = "`systemd-analyze security` says more";
    match analysis(unit) {
        Some(text) => match level(&text) {
            Some((level, words)) if level <= 2.0 => findings.green(&subject, words),
            Some((_, words)) => {
                findings.yellow(&subject, words, "use the unit files of the package")
            }
            None => findings.yellow(&subject, "not run: systemd knows no such unit", not_run),
        },
        None => findings.yellow(
            &subject,
            "not run: systemd-analyze is missing or does not answer",
            not_run,
        ),
    }
}

fn analysis(unit: &str) -> Option<String> {
    let mut child = Command::new("systemd-analyze")
        .args(["security", "--no-pager", unit])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + ANALYSIS;
    // Its table is a few kilobytes, which a pipe holds while nobody reads.
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `→ Overall exposure level for priorgate.service: 1.3 OK`
fn level(text: &str) -> Option<(f64, String)> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("exposure level"))?;
    let words = line.split_once(": ")?.1;
    let number = words.split_whitespace().next()?.parse().ok()?;
    Some((number, words.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_read_from_the_last_line() {
        let text = "  NAME  DESCRIPTION\n✗ PrivateNetwork=  0.5\n\n→ Overall exposure level for priorgate.service: 1.3 OK 🙂\n";
        assert_eq!(level(text), Some((1.3, "1.3 OK 🙂".to_owned())));
        assert_eq!(level("Unit not found\n"), None);
    }
}
