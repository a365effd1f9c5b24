//! What the kernel says is in force: of ourselves, and of any other process that may be looked at.
//!
//! Read from `/proc`, never from our own intention. Our own files there are opened before the confinement, which hides
//! them, and are read anew each time. Landlock has no line in `/proc`: whether it holds is tried, by opening `/`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior};

use super::landlock::InForce;

/// `/proc/PID/status` and `limits` are some kilobytes.
const FILE_MAX: usize = 16 << 10;

/// What `/proc` says of one process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// It can gain no privileges.
    pub no_new_privs: bool,
    /// System calls are filtered.
    pub seccomp: bool,
    /// Capabilities that it has or could take: permitted, effective and ambient.
    pub capabilities: u64,
    /// Capabilities that a program it starts could have.
    pub bounding: u64,
    /// It may leave a core file.
    pub core: bool,
    /// Memory that cannot be swapped, in KiB.
    pub locked_kib: u64,
    /// Whether others may look into it; nothing when that cannot be known from here.
    pub dumpable: Option<bool>,
}

/// Our own files in `/proc`.
#[derive(Debug)]
pub(super) struct Own {
    status: File,
    limits: File,
}

impl Own {
    /// Must come before the process is no longer dumpable: then they belong to root.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            status: File::open("/proc/self/status")?,
            limits: File::open("/proc/self/limits")?,
        })
    }

    pub(super) fn facts(&self) -> io::Result<Facts> {
        let mut facts = parse(&text(&self.status)?, &text(&self.limits)?);
        let dumpable = dumpable_behavior().map(|found| found != DumpableBehavior::NotDumpable);
        facts.dumpable = dumpable.ok();
        Ok(facts)
    }
}

fn text(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while bytes.len() < FILE_MAX {
        let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match file.read_at(&mut chunk, offset)? {
            0 => break,
            read => bytes.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of another process.
///
/// # Errors
/// When it is gone, or `/proc` hides it.
pub fn of_process(pid: u32) -> io::Result<Facts> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let status = File::open(dir.join("status"))?;
    let limits = File::open(dir.join("limits"))?;
    let status = text(&status)?;
    let mut facts = parse(&status, &text(&limits)?);
    // The files of a process that is not dumpable belong to root; those of a process of root always do.
    let uid = numbers(&status, "Uid:").get(1).copied();
    let owner = std::fs::metadata(dir.join("status"))?.uid();
    facts.dumpable = match uid {
        Some(uid) if uid != 0 => Some(u64::from(owner) == uid),
        Some(_) | None => None,
    };
    Ok(facts)
}

fn parse(status: &str, limits: &str) -> Facts {
    let hex = |name: &str| {
        let value = value(status, name).unwrap_or_default();
        // What cannot be read is not known to be nothing.
        u64::from_str_radix(value, 16).unwrap_or(u64::MAX)
    };
    let first = |name: &str| numbers(status, name).first().copied();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    Facts {
        no_new_privs: first("NoNewPrivs:") == Some(1),
        seccomp: first("Seccomp:") == Some(2),
        capabilities: hex("CapPrm:") | hex("CapEff:") | hex("CapAmb:"),
        bounding: hex("CapBnd:"),
        core: core != Some(vec!["0", "0"]),
        locked_kib: first("VmLck:").unwrap_or(0),
        dumpable: None,
    }
}

fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn numbers(text: &str, name: &str) -> Vec<u64> {
    value(text, name)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Whether a rule of files holds: every process may list `/`, but for one with rules.
fn root_is_closed() -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    matches!(
        rustix::fs::open("/", flags, Mode::empty()),
        Err(Errno::ACCESS)
    )
}

/// The name of the filter of system calls.
pub(super) const SECCOMP: &str = "seccomp";
/// The name of the rules of files.
pub(super) const FILES: &str = "Landlock files";

/// What is in force and what is not, in the words of the status.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// What the kernel takes away.
    pub in_force: Vec<String>,
    /// What it should take away and does not.
    pub missing: Vec<String>,
    /// What this kernel is too old for.
    pub not_offered: Vec<String>,
}

impl Report {
    /// Of another process. Its rules of files cannot be seen from outside.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let mut report = Self::default();
        let mut sort = |holds: bool, what: &str| {
            let list = if holds {
                &mut report.in_force
            } else {
                &mut report.missing
            };
            list.push(what.to_owned());
        };
        if let Some(dumpable) = facts.dumpable {
            sort(!dumpable, "not dumpable");
        }
        sort(!facts.core, "no core files");
        sort(facts.no_new_privs, "no new privileges");
        sort(facts.capabilities == 0, "no capabilities");
        sort(facts.seccomp, SECCOMP);
        report
    }

    /// Of ourselves.
    pub(super) fn own(facts: &Facts, landlock: InForce) -> Self {
        let mut report = Self::of(facts);
        if landlock.files && root_is_closed() {
            report
                .in_force
                .push(format!("{FILES} (ABI {})", landlock.abi));
        } else {
            report.missing.push(FILES.to_owned());
        }
        for (holds, what) in [
            (landlock.ports, "Landlock ports"),
            (landlock.scopes, "Landlock scopes"),
        ] {
            let list = if holds {
                &mut report.in_force
            } else {
                &mut report.not_offered
            };
            list.push(what.to_owned());
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpriorgate\nUid:\t33\t33\t33\t33\nVmLck:\t    64 kB\nCapInh:\t0000000000000000\nCapPrm:\t\
         0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t\
         1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \nMax core file \
         size        0                    0                    bytes     \n";

    #[test]
    fn a_confined_process_is_read_as_one() {
        let facts = parse(STATUS, LIMITS);
        let expected = Facts {
            no_new_privs: true,
            seccomp: true,
            bounding: 0x1ff_ffff_ffff,
            locked_kib: 64,
            ..Facts::default()
        };
        assert_eq!(facts, expected);
        assert_eq!(Report::of(&facts).missing, [""; 0]);
    }

    #[test]
    fn what_is_not_there_is_missing_and_never_in_force() {
        for (from, to, missing) in [
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no new privileges"),
            ("Seccomp:\t2", "Seccomp:\t0", "seccomp"),
            ("CapPrm:\t0", "CapPrm:\t8", "no capabilities"),
            ("CapAmb:", "Other:", "no capabilities"),
        ] {
            assert!(STATUS.contains(from), "{from}");
            let facts = parse(&STATUS.replace(from, to), LIMITS);
            assert_eq!(Report::of(&facts).missing, [missing]);
        }
        let facts = parse(
            STATUS,
            &LIMITS.replace("0                    0", "0 unlimited"),
        );
        assert_eq!(Report::of(&facts).missing, ["no core files"]);
        assert_eq!(Report::of(&parse("", "")).in_force, [""; 0]);
    }

    #[test]
    fn this_process_is_not_confined_and_the_report_says_so() {
        let report = Report::own(&Own::open().unwrap().facts().unwrap(), InForce::default());
        for missing in ["not dumpable", "seccomp", "Landlock files"] {
            assert!(report.missing.iter().any(|it| it == missing), "{report:?}");
        }
    }
}
