//! Verifying the files of a log: every line, every signature, and what somebody noted elsewhere.
//!
//! Needs the files and the public key, nothing of ours: no journal, no running gate. Memory does not grow with the log.

use std::io;
use std::path::{Path, PathBuf};

use super::scan::Lines;
use crate::policy::chain::{Chain, CheckpointKey, Fault, Summary, Tip};

/// Something wrong, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// In which file.
    pub file: PathBuf,
    /// In which line of it, from 1.
    pub line: u64,
    /// What.
    pub what: What,
}

/// What is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum What {
    /// A line.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The file ends inside of a line: a process that died (the next start repairs it), or a cut.
    #[error("cut off: the file ends inside of this line")]
    Unfinished,
    /// A set-aside file that is another one.
    #[error("renamed: the file's name says that it begins with record {0}, and it does not")]
    Name(u64),
    /// A record that was noted elsewhere is another one here.
    #[error("replaced: record {0} is not the one whose hash was noted elsewhere")]
    Anchor(u64),
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// In sum.
    pub summary: Summary,
    /// The first findings; [`Summary::faults`] counts more.
    pub findings: Vec<Finding>,
    /// What is wrong with the whole.
    pub ends: Vec<Fault>,
    /// Records that were noted elsewhere and are not here: the log was cut off before them, or begins after them.
    pub unseen: Vec<Tip>,
    /// Records after the last signature: somebody who can write the file could have changed them.
    pub uncovered: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Findings that are kept.
const FINDINGS: usize = 100;

/// How far it is.
pub type Progress<'p> = &'p mut dyn FnMut(&Path, u64);

/// Verifies `files`, oldest first. `anchors` are ends of the chain that were noted elsewhere (the gate's log has them).
///
/// # Errors
/// A file that cannot be read.
pub fn verify(
    files: &[PathBuf],
    keys: Option<&[CheckpointKey]>,
    anchors: &[Tip],
    progress: Progress<'_>,
) -> Result<Report, (PathBuf, io::Error)> {
    let mut chain = Chain::new(keys);
    let mut findings = Vec::new();
    let mut unseen = anchors.to_vec();
    let mut bytes = 0_u64;
    for file in files {
        let failed = |error| (file.clone(), error);
        let mut lines = Lines::open(file).map_err(failed)?;
        let mut number = 0_u64;
        let named = first_by_name(file);
        while let Some(raw) = lines.next().map_err(failed)? {
            number += 1;
            bytes = bytes.saturating_add(raw.took);
            let judged = if raw.unfinished {
                let last = files.last() == Some(file);
                if last && lines.grows().map_err(failed)? {
                    // Its gate is writing it: the line is of after this look.
                    break;
                }
                Err(What::Unfinished)
            } else {
                let taken = chain.take(raw.bytes).map_err(What::from);
                taken.and_then(|line| {
                    unseen.retain(|anchor| *anchor != line.tip);
                    match named.filter(|first| number == 1 && *first != line.tip.seq) {
                        Some(first) => Err(What::Name(first)),
                        None => anchored(line.tip, anchors),
                    }
                })
            };
            if let Err(what) = judged
                && findings.len() < FINDINGS
            {
                findings.push(Finding {
                    file: file.clone(),
                    line: number,
                    what,
                });
            }
            progress(file, bytes);
        }
    }
    let replaced = |seq| {
        findings
            .iter()
            .any(|finding: &Finding| finding.what == What::Anchor(seq))
    };
    unseen.retain(|anchor| !replaced(anchor.seq));
    Ok(Report {
        summary: chain.summary().clone(),
        findings,
        ends: chain.end(),
        unseen,
        uncovered: chain.uncovered(),
        bytes,
    })
}

/// The number of the first record that the name of a set-aside file says.
fn first_by_name(file: &Path) -> Option<u64> {
    let (_, digits) = file.file_name()?.to_str()?.rsplit_once('.')?;
    let all = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

fn anchored(tip: Tip, anchors: &[Tip]) -> Result<(), What> {
    let other = |anchor: &&Tip| anchor.seq == tip.seq && anchor.hash != tip.hash;
    match anchors.iter().find(other) {
        Some(anchor) => Err(What::Anchor(anchor.seq)),
        None => Ok(()),
    }
}

impl Report {
    /// Whether nothing is wrong. With a key, that needs a signature: a chain alone stops nobody who can write the files; and
    /// a checkpoint without a signature after the last signed one may be somebody's who has no key.
    #[must_use]
    pub fn is_good(&self, with_key: bool) -> bool {
        let signed = !with_key || self.summary.covered.is_some() && self.summary.unsigned.is_none();
        self.faults() == 0 && signed
    }

    /// How many things are wrong.
    #[must_use]
    pub fn faults(&self) -> u64 {
        let lines = self.summary.faults.max(self.findings.len() as u64);
        lines.saturating_add((self.ends.len() + self.unseen.len()) as u64)
    }
}
