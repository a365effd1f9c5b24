//! The writer against real files, with a signer that does what a scenario wants.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::policy::chain::{Chain, Vouched};

struct Place {
    _dir: TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("audit.jsonl");
        Self { _dir: dir, file }
    }

    fn prepared(&self) -> Prepared {
        open(&config::Audit {
            file: self.file.clone(),
            key: None,
            rotate: 64 << 20,
            keep: Duration::from_secs(400 * 86_400),
        })
        .unwrap()
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut chain = Chain::new(None);
        whole
            .lines()
            .map(|line| {
                chain.take(line.as_bytes()).unwrap();
                serde_json::from_str(line).unwrap()
            })
            .collect()
    }

    fn of(&self, event: &str) -> Vec<Value> {
        let mut all = self.records();
        all.retain(|record| record["event"] == event);
        all
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "never happened: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn request(number: u64) -> Request {
    Request {
        at: UnixMillis(1_795_000_000_000),
        bank: "priorbank".into(),
        listener: "unix:/run/x.sock".to_owned(),
        uid: Some(33),
        token: None,
        request_id: format!("r{number}"),
        method: "GET",
        route: "status".to_owned(),
        status: 200,
        code: "",
        outcome: "answered",
        operation: None,
        bytes_in: 0,
        bytes_out: 2,
        ms: 1,
    }
}

fn signed(tip: Tip) -> SignedCheckpoint {
    SignedCheckpoint {
        vouched: Vouched {
            tip,
            at: 1,
            signatures: 1,
            before: Tip::GENESIS,
        },
        signature: [0; 64],
        key_id: "0011223344556677".to_owned(),
    }
}

/// A signer that says when it is asked, and waits until it is told to go on.
fn held() -> (CheckpointSigner, Receiver<Tip>, Sender<()>) {
    let (asks, asked) = channel();
    let (go, waits) = channel::<()>();
    let signer = Box::new(move |tip| {
        let _ = asks.send(tip);
        let _ = waits.recv_timeout(Duration::from_secs(20));
        Err(Unsigned::Other("held by a test".to_owned()))
    });
    (signer, asked, go)
}

#[test]
fn a_request_never_waits_for_a_writer_that_is_held_and_what_found_no_place_is_on_record() {
    let place = Place::new();
    let (signer, asked, go) = held();
    let audit = place
        .prepared()
        .start_with(None, Some(signer), 200)
        .unwrap();
    // A checkpoint is due with the hundredth record, and its signer holds the thread.
    for number in 0..100 {
        audit.request(request(number));
    }
    asked.recv_timeout(Duration::from_secs(20)).unwrap();
    let started = Instant::now();
    for number in 100..450 {
        audit.request(request(number));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "somebody waited"
    );
    go.send(()).unwrap();
    eventually("the gap is on record", || !place.of("gap").is_empty());
    drop(go);
    audit.close();
    let gap = &place.of("gap")[0];
    assert_eq!(
        (gap["lost"].as_str(), gap["records"].as_u64()),
        (Some("requests"), Some(150))
    );
    assert_eq!(place.of("request").len(), 300);
    assert_eq!(audit.counts().lost.load(Ordering::Relaxed), 150);
}

#[test]
fn a_checkpoint_comes_after_a_hundred_records_and_at_the_end() {
    let place = Place::new();
    let audit = place.prepared().start(None, None).unwrap();
    for number in 0..120 {
        audit.request(request(number));
    }
    eventually("a checkpoint", || !place.of("checkpoint").is_empty());
    audit.request(request(120));
    audit.close();
    let checkpoints = place.of("checkpoint");
    assert_eq!(checkpoints.len(), 2);
    let last = place.records().len() as u64;
    assert_eq!(checkpoints[1]["of"].as_u64(), Some(last - 1));
    assert_eq!(checkpoints[1]["unsigned"], "no key");
}

#[test]
fn a_signature_that_is_refused_or_late_is_told() {
    let place = Place::new();
    let refuses: CheckpointSigner =
        Box::new(|_| Err(Unsigned::Other("refused by a test".to_owned())));
    let audit = place.prepared().start(None, Some(refuses)).unwrap();
    assert_eq!(audit.unsigned(), None);
    // As if the first record had been written three minutes ago, and nobody had answered.
    let since = &audit.counts().unsigned_since;
    eventually("a record waits", || since.load(Ordering::Relaxed) != 0);
    since.fetch_sub(180_000, Ordering::Relaxed);
    assert!(
        audit
            .unsigned()
            .unwrap()
            .contains("without a signature for 18")
    );
    audit.close();
    assert_eq!(audit.unsigned().as_deref(), Some("refused by a test"));
}

#[test]
fn a_second_gate_on_one_log_is_refused() {
    let place = Place::new();
    let first = place.prepared();
    let config = first.config.clone();
    assert!(matches!(open(&config), Err(AuditError::InUse(_))));
    drop(first);
    assert!(open(&config).is_ok());
}

#[test]
fn refusals_of_one_second_are_one_record_and_their_kinds_are_bounded() {
    let place = Place::new();
    let audit = place.prepared().start(None, None).unwrap();
    let rejected = |uid| Rejected {
        callback: "priorbank".into(),
        listener: "unix:/run/x.sock".into(),
        uid: Some(uid),
        code: "mismatch",
    };
    for _ in 0..1_000 {
        audit.rejected(rejected(1));
    }
    for uid in 1_000..2_000 {
        audit.rejected(rejected(uid));
    }
    audit.close();
    let records = place.of("denied");
    let times = |record: &Value| record["times"].as_u64().unwrap();
    assert_eq!(records.iter().map(times).sum::<u64>(), 2_000);
    // Twice as many, should a second have ended in between.
    assert!(records.len() <= 2 * 257, "{}", records.len());
}

#[test]
fn a_file_that_is_no_log_is_not_written_to() {
    let place = Place::new();
    std::fs::write(&place.file, "a log of something else\n").unwrap();
    let config = config::Audit {
        file: place.file,
        key: None,
        rotate: 64 << 20,
        keep: Duration::from_secs(86_400),
    };
    assert!(matches!(open(&config), Err(AuditError::Foreign { .. })));
}

#[test]
fn a_line_that_is_being_written_is_no_fault_and_one_that_stays_half_is() {
    let place = Place::new();
    let audit = place.prepared().start(None, None).unwrap();
    audit.close();
    let whole = std::fs::read(&place.file).unwrap();
    let half = whole.len() - 20;
    std::fs::write(&place.file, &whole[..half]).unwrap();
    let files = [place.file.clone()];
    let verified = || verify::verify(&files, None, &[], &mut |_, _| {}).unwrap();
    assert_eq!(verified().findings.len(), 1);
    let (file, rest) = (place.file, whole[half..].to_vec());
    let gate = thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(100));
        let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(&rest).unwrap();
    });
    assert_eq!(verified().findings, []);
    gate.join().unwrap();
}

#[test]
fn a_journal_that_is_new_has_no_years_of_a_log_read_and_what_cannot_be_read_stops_no_start() {
    use crate::policy::chain::{Mark, Source, seal};
    let place = Place::new();
    let mut lines = Vec::new();
    let fields = Fields::of("command");
    let mark = |journal, row| Source::Row(Mark { journal, row });
    let at = UnixMillis(1_795_000_000_000);
    let tip = seal(&mut lines, Tip::GENESIS, at, "boot", mark(5, 1), &fields);
    let aside = |first| {
        place
            .file
            .with_file_name(format!("audit.jsonl.{first:016}"))
    };
    std::fs::write(aside(1), &lines).unwrap();
    // Nothing can be read there.
    std::fs::create_dir(aside(2)).unwrap();
    lines.clear();
    seal(&mut lines, tip, at, "boot", mark(6, 9), &fields);
    std::fs::write(&place.file, &lines).unwrap();
    let prepared = place.prepared();
    let last = Some(Mark { journal: 6, row: 9 });
    let says = |journal| prepared.testimony(journal).unwrap();
    let of = |ours| Testimony { last, ours };
    assert_eq!(says(6), of(Some(9)));
    assert_eq!(says(5), of(Some(1)));
    std::fs::remove_file(aside(1)).unwrap();
    std::os::unix::fs::symlink("nowhere", aside(1)).unwrap();
    assert_eq!(
        (says(5), says(crate::journal::NOBODY)),
        (of(None), of(None))
    );
}

#[test]
fn a_log_that_ends_before_what_its_signer_has_signed_is_a_doubt_before_the_first_request() {
    use crate::journal::{Options, Outbox, Person};
    let place = Place::new();
    let path = place.file.with_file_name("journal.db");
    let life = |signing: bool| {
        let prepared = place.prepared();
        let witness = |journal| prepared.testimony(journal);
        let options = Options {
            allow_volatile: true,
            ..Options::default()
        };
        let outbox = Outbox::On(&witness);
        let opened = Journal::open_beside(&path, options, outbox, unix_millis());
        let (journal, report) = opened.unwrap();
        let journal = journal.start().unwrap();
        let signer: CheckpointSigner = Box::new(move |tip| {
            if signing {
                return Ok(signed(tip));
            }
            Err(Unsigned::Behind("it has signed a later one".to_owned()))
        });
        let owing = Some((journal.clone(), report.compared.unwrap()));
        let audit = prepared.start(owing, Some(signer)).unwrap();
        (journal, audit)
    };
    let end = |journal: Journal, audit: Audit| {
        journal.close();
        audit.close();
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let person = || Person {
        uid: 0,
        pid: None,
        login_uid: None,
        reason: "restored both".to_owned(),
    };
    let doubted = |journal: &Journal| journal.counts().doubted.load(Ordering::Relaxed);

    let (journal, audit) = life(true);
    assert!(!doubted(&journal));
    end(journal, audit);
    // Both were restored, and fit each other.
    let (journal, audit) = life(false);
    assert!(doubted(&journal));
    let run = |incomplete| {
        reconcile(
            &place.file,
            &journal,
            incomplete,
            person(),
            runtime.handle(),
        )
    };
    assert!(matches!(run(false), Err(ReconcileError::Incomplete { .. })));
    assert!(doubted(&journal));
    assert!(run(true).unwrap().missing.is_some());
    assert!(!doubted(&journal));
    end(journal, audit);
    // A person knows it by now.
    let (journal, audit) = life(false);
    assert!(!doubted(&journal));
    end(journal, audit);
    // Until it signs again: the next time is another one.
    let (journal, audit) = life(true);
    end(journal, audit);
    let (journal, audit) = life(false);
    assert!(doubted(&journal));
    end(journal, audit);
    let told = place.of("doubt");
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().all(|doubt| doubt["behind_signer"] == true));
}

#[test]
fn refusals_that_cannot_be_written_are_counted_among_what_is_lost() {
    let buffer = Buffer::new(1);
    let rejected = |uid| Rejected {
        callback: "priorbank".into(),
        listener: "unix:/run/x.sock".into(),
        uid: Some(uid),
        code: "signature_mismatch",
    };
    for uid in [1, 2, 2] {
        buffer.rejected(rejected(uid));
    }
    // The second finds no place.
    buffer.request(request(1));
    buffer.request(request(2));
    // Two records of refusals, one of a request, and the one that was dropped.
    assert_eq!(buffer.take(true).records(), 4);
}
