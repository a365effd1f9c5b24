//! The writer against real files, with a signer that does what a scenario wants.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::policy::chain::Chain;

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

/// A signer that says when it is asked, and waits until it is told to go on.
fn held() -> (CheckpointSigner, Receiver<Tip>, Sender<()>) {
    let (asks, asked) = channel();
    let (go, waits) = channel::<()>();
    let signer = Box::new(move |tip| {
        let _ = asks.send(tip);
        let _ = waits.recv_timeout(Duration::from_secs(20));
        Err("held by a test".to_owned())
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
    let denied = |uid| Denied {
        at: "priorbank".into(),
        callback: false,
        listener: "unix:/run/x.sock".to_owned(),
        uid: Some(uid),
        code: "caller_denied",
    };
    for _ in 0..1_000 {
        audit.denied(denied(1));
    }
    for uid in 1_000..2_000 {
        audit.denied(denied(uid));
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
fn refusals_that_cannot_be_written_are_counted_among_what_is_lost() {
    let buffer = Buffer::new(1);
    let denied = |uid| Denied {
        at: "priorbank".into(),
        callback: false,
        listener: "unix:/run/x.sock".to_owned(),
        uid: Some(uid),
        code: "caller_denied",
    };
    for uid in [1, 2, 2] {
        buffer.denied(denied(uid));
    }
    // The second finds no place.
    buffer.request(request(1));
    buffer.request(request(2));
    // Two records of refusals, one of a request, and the one that was dropped.
    assert_eq!(buffer.take(true).records(), 4);
}
