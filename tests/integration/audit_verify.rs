//! A signed log, what somebody does to it, and both verifiers: the program's own and the auditor's in Python.

use std::path::{Path, PathBuf};
use std::time::Duration;

use priorgate::audit::{self, Audit, CheckpointSigner, files_of};
use priorgate::config;
use priorgate::policy::chain::Fields;
use priorgate::policy::operation::UnixMillis;
use tempfile::TempDir;

use crate::support::audit::{Keys, of, ours, python};
use crate::support::until;

const AT: UnixMillis = UnixMillis(1_795_000_000_000);

/// Long before any time at which this runs.
const LONG_AGO: UnixMillis = UnixMillis(1_000_000_000_000);

fn start(dir: &Path, signer: Option<CheckpointSigner>, rotate: u64) -> Audit {
    let config = config::Audit {
        file: dir.join("audit.jsonl"),
        key: None,
        rotate,
        keep: Duration::from_secs(4_000 * 86_400),
    };
    audit::open(&config).unwrap().start(None, signer).unwrap()
}

/// A log with a signed checkpoint in the middle and one at the end.
struct Log {
    _dir: TempDir,
    file: PathBuf,
    keys: Keys,
    lines: Vec<String>,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, keys) = (dir.path().join("audit.jsonl"), Keys::make(dir.path()));
        for part in 0..2 {
            let audit = start(dir.path(), Some(keys.signer()), 64 << 20);
            for number in 0..20 {
                let id = format!("op_{part}_{number}");
                audit.event(Fields::of("operation").text("id", &id), AT);
            }
            audit.close();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        Self {
            _dir: dir,
            file,
            keys,
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    fn write(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.file, text).unwrap();
    }

    /// Both find it, in this line, and the program says what it is.
    fn found(&self, what: &str, lines: &[String], line: usize, word: &str) {
        self.write(lines);
        let files = [self.file.clone()];
        let ours = ours(Some(&self.keys.public), &files, &[]);
        let python = python(&self.keys.public, &files, &[]);
        let place = format!("audit.jsonl:{line}:");
        assert!(
            !ours.good && ours.text.contains(&place),
            "{what}: {}",
            ours.text
        );
        assert!(ours.text.contains(word), "{what}: {}", ours.text);
        assert!(
            !python.good && python.text.contains(&place),
            "{what}: {}",
            python.text
        );
    }

    fn anchor(&self, line: usize) -> String {
        let record: serde_json::Value = serde_json::from_str(&self.lines[line]).unwrap();
        format!("{}:{}", record["seq"], record["hash"].as_str().unwrap())
    }
}

#[test]
fn an_untouched_log_is_good_to_both_verifiers() {
    let log = Log::new();
    let files = [log.file.clone()];
    let (ours, python) = (
        ours(Some(&log.keys.public), &files, &[]),
        python(&log.keys.public, &files, &[]),
    );
    assert!(ours.good, "{}", ours.text);
    assert!(python.good, "{}", python.text);
    assert_eq!(log.lines.len(), 2 * (1 + 20 + 1 + 1));
    // What lies at the end is nothing but the last checkpoint.
    assert!(ours.text.contains("\n0 records after it"), "{}", ours.text);
}

#[test]
fn an_edit_a_deletion_a_swap_and_a_false_signature_are_found_where_they_are() {
    let log = Log::new();
    let mut edited = log.lines.clone();
    edited[4] = edited[4].replace("op_0_3", "op_0_9");
    assert_ne!(edited, log.lines);
    log.found("an edit", &edited, 5, "edited");

    let mut deleted = log.lines.clone();
    deleted.remove(4);
    log.found("a deletion", &deleted, 5, "record 5 is missing");

    let mut swapped = log.lines.clone();
    swapped.swap(4, 5);
    log.found("a swap", &swapped, 6, "out of order");

    // The checkpoint of the first process, said to be of a later time.
    let mut forged = log.lines.clone();
    let checkpoint = forged
        .iter()
        .position(|line| line.contains("\"checkpoint\""))
        .unwrap();
    forged[checkpoint] = forged[checkpoint].replace("\"signatures\":1", "\"signatures\":7");
    log.found("a forgery", &forged, checkpoint + 1, "edited");

    // The end of the first process cut out of the middle.
    let mut cut = log.lines.clone();
    cut.drain(15..25);
    log.found("a cut before the last checkpoint", &cut, 16, "are missing");

    let mut half = log.lines.clone();
    let last = half.pop().unwrap();
    log.write(&half);
    let text = std::fs::read_to_string(&log.file).unwrap();
    std::fs::write(&log.file, format!("{text}{}", &last[..last.len() / 2])).unwrap();
    let said = ours(Some(&log.keys.public), std::slice::from_ref(&log.file), &[]);
    assert!(!said.good && said.text.contains("cut off"), "{}", said.text);
}

#[test]
fn a_log_that_was_cut_short_is_found_by_what_was_noted_elsewhere() {
    let log = Log::new();
    let files = [log.file.clone()];
    let noted = [log.anchor(44)];
    let whole = ours(Some(&log.keys.public), &files, &noted);
    assert!(whole.good, "{}", whole.text);
    assert!(python(&log.keys.public, &files, &noted).good);

    // To the end of the first process: nothing in the file itself shows it.
    log.write(&log.lines[..23]);
    assert!(ours(Some(&log.keys.public), &files, &[]).good);
    let cut = ours(Some(&log.keys.public), &files, &noted);
    assert!(
        !cut.good && cut.text.contains("record 45 was noted elsewhere"),
        "{}",
        cut.text
    );
    let cut = python(&log.keys.public, &files, &noted);
    assert!(
        !cut.good && cut.text.contains("record 45 was noted"),
        "{}",
        cut.text
    );
}

#[test]
fn another_key_verifies_nothing_and_a_log_without_signatures_proves_nothing() {
    let log = Log::new();
    let files = [log.file.clone()];
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Keys::make(elsewhere.path());
    let said = ours(Some(&other.public), &files, &[]);
    assert!(
        !said.good && said.text.contains("signed by another key"),
        "{}",
        said.text
    );
    assert!(python(&other.public, &files, &[]).text.contains("forged"));

    let unsigned = tempfile::tempdir().unwrap();
    let audit = start(unsigned.path(), None, 64 << 20);
    audit.event(Fields::of("operation").text("id", "op_1"), AT);
    audit.close();
    let files = [unsigned.path().join("audit.jsonl")];
    assert!(!ours(Some(&log.keys.public), &files, &[]).good);
    assert!(!python(&log.keys.public, &files, &[]).good);
    let chain = ours(None, &files, &[]);
    assert!(
        chain.good && chain.text.contains("no signature was verified"),
        "{}",
        chain.text
    );
}

#[test]
fn the_chain_goes_on_over_files_and_a_missing_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::make(dir.path());
    let file = dir.path().join("audit.jsonl");
    // A few records fill a file.
    let audit = start(dir.path(), Some(keys.signer()), 2_000);
    for part in 1..=4 {
        for _ in 0..8 {
            audit.event(Fields::of("operation").text("id", "op_1"), AT);
        }
        until("a full file is set aside", || {
            files_of(&file).unwrap().len() > part
        });
    }
    audit.close();
    let files = files_of(&file).unwrap();
    assert!(files.len() >= 5, "{files:?}");
    let (good, also) = (
        ours(Some(&keys.public), &files, &[]),
        python(&keys.public, &files, &[]),
    );
    assert!(good.good, "{}", good.text);
    assert!(also.good, "{}", also.text);
    // Without the oldest: `keep` would have left a record of that.
    let rest = ours(Some(&keys.public), &files[1..], &[]);
    let also = python(&keys.public, &files[1..], &[]);
    for said in [rest, also] {
        assert!(
            !said.good && said.text.contains("are not here"),
            "{}",
            said.text
        );
    }
    let mut holed = files;
    holed.remove(1);
    let said = ours(Some(&keys.public), &holed, &[]);
    assert!(!said.good && said.text.contains("missing"), "{}", said.text);
    assert!(!python(&keys.public, &holed, &[]).good);
}

#[test]
fn an_old_file_ends_as_a_whole_and_that_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::make(dir.path());
    let file = dir.path().join("audit.jsonl");
    let audit = start(dir.path(), Some(keys.signer()), 2_000);
    for _ in 0..8 {
        audit.event(Fields::of("operation").text("id", "op_old"), LONG_AGO);
    }
    until("the old file is ended", || !of(&file, "ended").is_empty());
    audit.close();
    let ended = of(&file, "ended");
    assert_eq!((ended.len(), ended[0]["first"].as_u64()), (1, Some(1)));
    let files = files_of(&file).unwrap();
    assert_eq!(files, [file]);
    let said = ours(Some(&keys.public), &files, &[]);
    let gone = format!("records 1 to {} are not in these files", ended[0]["last"]);
    assert!(said.good && said.text.contains(&gone), "{}", said.text);
    assert!(python(&keys.public, &files, &[]).good);
}
