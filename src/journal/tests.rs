//! The journal against real files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::read::{Depth, Filter};
use super::*;
use crate::policy::operation::{Closed, Ending as AnswerEnding, Refusal, Standing};

mod audited;
mod files;
mod others;

pub(super) const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const OPTIONS: Options = Options {
    allow_volatile: true,
    queue: 256,
    ballast: 64 << 10,
    after_timeout: Duration::from_secs(60),
};
const EVERYTHING: Depth = Depth {
    subject: true,
    body: true,
};

pub(super) struct Place {
    _dir: TempDir,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        Self { _dir: dir, path }
    }

    pub(super) fn open(&self) -> (Journal, OpenReport) {
        let (prepared, report) = Journal::open(&self.path, OPTIONS, NOW).unwrap();
        (prepared.start().unwrap(), report)
    }

    fn state(&self, id: OperationId) -> Standing {
        let shown = Reader::open(&self.path)
            .unwrap()
            .show(id, EVERYTHING)
            .unwrap()
            .unwrap();
        Standing {
            state: State::parse(shown.operation.state).unwrap(),
            listening: shown.operation.listening,
            delivered: shown.operation.delivered,
        }
    }
}

fn request(key: u8, request: u8, subject: Option<u8>) -> Request {
    Request {
        bank: "priorbank".to_owned(),
        route: "refund".to_owned(),
        key: Digest([key; 32]),
        fingerprint: Digest([request; 32]),
        subject: subject.map(|subject| Subject {
            hash: Digest([subject; 32]),
            pointers: "/session_id".to_owned(),
            text: format!("/session_id=\"{subject}\""),
        }),
        repeat: Repeat::Mistaken,
        uid: Some(33),
        request_id: format!("r-{key}"),
    }
}

fn answer(body: &str) -> StoredAnswer {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.append("x-two", "a".parse().unwrap());
    headers.append("x-two", "b: c".parse().unwrap());
    StoredAnswer {
        status: StatusCode::CREATED,
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn done(body: &str) -> Finish {
    Finish::Answered {
        ending: AnswerEnding::Done,
        answer: answer(body),
    }
}

fn person() -> Person {
    Person {
        uid: 0,
        pid: Some(7),
        login_uid: Some(1000),
        reason: "the bank says no".to_owned(),
    }
}

async fn run(journal: &Journal, request: Request) -> Attempt {
    match journal.reserve(request, NOW).await.unwrap() {
        Reserved::Run(attempt) => attempt,
        other => panic!("{other:?}"),
    }
}

async fn refused(journal: &Journal, request: Request) -> Refusal {
    match journal.reserve(request, NOW).await.unwrap() {
        Reserved::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operation_runs_once_and_its_answer_is_replayed_as_it_was() {
    let place = Place::new();
    let (journal, report) = place.open();
    assert!(report.created);
    let mut attempt = run(&journal, request(1, 1, Some(1))).await;
    assert!(matches!(
        refused(&journal, request(1, 1, Some(1))).await,
        Refusal::InFlight(_)
    ));
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    let state = journal
        .finish(&mut attempt, done("{\"refund_id\":1}"), NOW)
        .await;
    assert_eq!(state, Ok(State::Done));
    let Reserved::Replay {
        operation,
        answer: replayed,
    } = journal.reserve(request(1, 1, Some(1)), NOW).await.unwrap()
    else {
        panic!("no replay");
    };
    assert_eq!(operation.id, attempt.id());
    assert_eq!(replayed, Some(answer("{\"refund_id\":1}")));
    assert!(matches!(
        refused(&journal, request(1, 2, Some(1))).await,
        Refusal::KeyReused(_)
    ));
    journal.close();
    // The file is the owner's alone, and a clean end leaves no log beside it.
    assert_eq!(
        fs::metadata(&place.path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!place::beside(&place.path, "-wal").exists());
}

#[tokio::test]
async fn an_undelivered_answer_holds_its_subject_until_it_is_delivered() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, Some(1))).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
    assert!(matches!(
        refused(&journal, request(2, 2, Some(1))).await,
        Refusal::SubjectBusy(known) if known.id == attempt.id()
    ));
    journal.delivered(attempt.id(), NOW);
    // The same request under another key is a duplicate; another one runs.
    assert!(matches!(
        refused(&journal, request(3, 1, Some(1))).await,
        Refusal::Duplicate(_)
    ));
    drop(run(&journal, request(2, 2, Some(1))).await);
    journal.close();
}

#[tokio::test]
async fn a_dropped_attempt_settles_as_far_as_it_had_come() {
    let place = Place::new();
    let (journal, _) = place.open();
    let unsent = run(&journal, request(1, 1, None)).await;
    let mut sent = run(&journal, request(2, 2, None)).await;
    let mut listening = run(&journal, request(3, 3, None)).await;
    journal.mark_sent(&mut sent, NOW).await.unwrap();
    journal.mark_sent(&mut listening, NOW).await.unwrap();
    let late = Finish::Unknown {
        code: "bank_timeout",
        listening: true,
    };
    journal.finish(&mut listening, late, NOW).await.unwrap();
    let ids = [unsent.id(), sent.id(), listening.id()];
    drop((unsent, sent, listening));
    // Anything that comes next finds them settled.
    drop(run(&journal, request(9, 9, None)).await);
    let states = ids.map(|id| place.state(id));
    assert_eq!(
        states,
        [State::NotSent, State::Unknown, State::Unknown].map(Standing::plain)
    );
    journal.close();
}

#[tokio::test]
async fn a_late_answer_of_its_own_attempt_ends_an_unknown() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, Some(1))).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    let late = Finish::Unknown {
        code: "bank_timeout",
        listening: true,
    };
    journal.finish(&mut attempt, late, NOW).await.unwrap();
    let id = attempt.id();
    // Nobody resolves it while it listens.
    let resolved = journal
        .resolve(id, Resolution::NotSent, None, person(), NOW)
        .await;
    assert_eq!(
        resolved,
        Err(JournalError::Forbidden((State::Unknown, true)))
    );
    journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
    assert_eq!(place.state(id), Standing::plain(State::Done));
    // Its caller had a time-out by then: another key still waits, until a person lets go.
    assert!(matches!(
        refused(&journal, request(2, 2, Some(1))).await,
        Refusal::SubjectBusy(_)
    ));
    journal.release(id, person(), NOW).await.unwrap();
    drop(run(&journal, request(2, 2, Some(1))).await);
    let again = journal.release(id, person(), NOW).await;
    assert_eq!(again, Err(JournalError::Forbidden((State::Done, false))));
    journal.close();
}

#[tokio::test]
async fn a_new_process_closes_what_the_last_one_left_open() {
    let place = Place::new();
    let (journal, _) = place.open();
    let reserved = run(&journal, request(1, 1, None)).await;
    let mut sent = run(&journal, request(2, 2, None)).await;
    journal.mark_sent(&mut sent, NOW).await.unwrap();
    let ids = [reserved.id(), sent.id()];
    // As a kill would leave it: neither settled.
    std::mem::forget((reserved, sent));
    journal.close();
    drop(journal);
    let (journal, report) = place.open();
    assert_eq!(
        (report.created, report.not_sent, report.unknown),
        (false, 1, 1)
    );
    assert_eq!(
        ids.map(|id| place.state(id)),
        [State::NotSent, State::Unknown].map(Standing::plain)
    );
    // What was not sent runs again under its key; the attempt of the old process is fenced off.
    let again = run(&journal, request(1, 1, None)).await;
    assert_eq!((again.id(), again.number), (ids[0], 2));
    assert_eq!(journal.counts().unknown.load(Ordering::Relaxed), 1);
    journal.close();
}

#[tokio::test]
async fn an_old_attempt_cannot_write_over_a_new_one() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut first = run(&journal, request(1, 1, None)).await;
    let not_sent = Finish::NotSent {
        code: "bank_unreachable",
    };
    journal.finish(&mut first, not_sent, NOW).await.unwrap();
    let mut second = run(&journal, request(1, 1, None)).await;
    assert_eq!(
        journal.mark_sent(&mut first, NOW).await,
        Err(JournalError::Stale)
    );
    assert_eq!(
        journal.finish(&mut first, done("{}"), NOW).await,
        Err(JournalError::Stale)
    );
    journal.mark_sent(&mut second, NOW).await.unwrap();
    assert_eq!(place.state(second.id()), Standing::plain(State::Sent));
    journal.close();
}

#[tokio::test]
async fn a_person_resolves_an_unknown_either_way() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut ids = Vec::new();
    for key in [1, 2] {
        let mut attempt = run(&journal, request(key, key, Some(key))).await;
        journal.mark_sent(&mut attempt, NOW).await.unwrap();
        ids.push(attempt.id());
        drop(attempt);
    }
    let unknown = refused(&journal, request(1, 1, Some(1))).await;
    assert!(matches!(unknown, Refusal::OutcomeUnknown(_)), "{unknown:?}");
    let state = journal
        .resolve(ids[0], Resolution::NotSent, None, person(), NOW)
        .await;
    assert_eq!(state, Ok(State::NotSent));
    drop(run(&journal, request(1, 1, Some(1))).await);
    let state = journal
        .resolve(
            ids[1],
            Resolution::Done,
            Some(answer("{\"by\":\"hand\"}")),
            person(),
            NOW,
        )
        .await;
    assert_eq!(state, Ok(State::Done));
    let replay = journal.reserve(request(2, 2, Some(2)), NOW).await.unwrap();
    assert!(
        matches!(
            replay,
            Reserved::Replay {
                answer: Some(_),
                ..
            }
        ),
        "{replay:?}"
    );
    let shown = Reader::open(&place.path)
        .unwrap()
        .show(ids[1], EVERYTHING)
        .unwrap()
        .unwrap();
    assert_eq!(shown.interventions.len(), 1);
    assert_eq!(shown.interventions[0].what, "resolved as done");
    assert_eq!(shown.interventions[0].login_uid, Some(1000));
    assert_eq!(
        shown.answer.unwrap().body.as_deref(),
        Some("{\"by\":\"hand\"}")
    );
    let twice = journal
        .resolve(ids[1], Resolution::NotSent, None, person(), NOW)
        .await;
    assert_eq!(twice, Err(JournalError::Forbidden((State::Done, false))));
    let missing = OperationId::new(UnixMillis(5), 5);
    let missing = journal.release(missing, person(), NOW).await;
    assert_eq!(missing, Err(JournalError::NotFound));
    journal.close();
}

#[tokio::test]
async fn a_frozen_journal_takes_nothing_and_lets_nothing_be_sent() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, None)).await;
    assert_eq!(journal.freeze(true, person(), NOW).await, Ok(true));
    assert_eq!(journal.freeze(true, person(), NOW).await, Ok(false));
    assert!(matches!(
        refused(&journal, request(1, 1, None)).await,
        Refusal::InFlight(_)
    ));
    assert_eq!(
        refused(&journal, request(2, 2, None)).await,
        Refusal::Closed(Closed::Frozen)
    );
    assert_eq!(
        journal.mark_sent(&mut attempt, NOW).await,
        Err(JournalError::Closed(Closed::Frozen))
    );
    journal.close();
    drop((attempt, journal));
    let (journal, _) = place.open();
    assert!(Reader::open(&place.path).unwrap().is_frozen().unwrap());
    assert_eq!(
        refused(&journal, request(2, 2, None)).await,
        Refusal::Closed(Closed::Frozen)
    );
    assert_eq!(journal.freeze(false, person(), NOW).await, Ok(true));
    drop(run(&journal, request(2, 2, None)).await);
    journal.close();
}

#[tokio::test]
async fn a_second_gate_is_refused_and_a_reader_is_not() {
    let place = Place::new();
    let (journal, _) = place.open();
    let second = Journal::open(&place.path, OPTIONS, NOW).unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    let reader = Reader::open(&place.path).unwrap();
    assert!(reader.in_use());
    journal.close();
    drop(journal);
    assert!(!reader.in_use());
    drop(reader);
    let (journal, _) = place.open();
    journal.close();
}

#[tokio::test]
async fn what_is_known_under_a_key_is_recalled_beside_the_writer() {
    let place = Place::new();
    let (journal, _) = place.open();
    let bank = || "priorbank".to_owned();
    let mut attempt = run(&journal, request(1, 1, None)).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    let key = Digest([1; 32]);
    let (known, kept) = journal.recall(bank(), key).await.unwrap().unwrap();
    assert_eq!(
        (known.id, known.standing.state, kept),
        (attempt.id(), State::Sent, None)
    );
    journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
    let (known, kept) = journal.recall(bank(), key).await.unwrap().unwrap();
    assert_eq!(
        (known.standing.state, kept),
        (State::Done, Some(answer("{}")))
    );
    assert_eq!(journal.recall(bank(), Digest([2; 32])).await, Ok(None));
    journal.close();
}

#[tokio::test]
async fn lists_are_filtered_newest_first_and_keep_subjects_from_readers() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut ids = Vec::new();
    for key in 1..=5 {
        let mut attempt = run(&journal, request(key, key, Some(key))).await;
        ids.push(attempt.id().to_string());
        if key % 2 == 0 {
            journal.mark_sent(&mut attempt, NOW).await.unwrap();
            journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
            journal.delivered(attempt.id(), NOW);
        }
    }
    journal.freeze(true, person(), NOW).await.unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let plain = Depth {
        subject: false,
        body: false,
    };
    let list = |filter: Filter| {
        let filter = Filter {
            limit: filter.limit.max(2),
            ..filter
        };
        let list = reader.list(&filter, plain).unwrap();
        list.into_iter()
            .map(|operation| operation.id)
            .collect::<Vec<_>>()
    };
    let newest = [ids[4].clone(), ids[3].clone()];
    assert_eq!(list(Filter::default()), newest);
    let before = Filter {
        before: OperationId::parse(&ids[3]),
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(list(before).len(), 3);
    let done = Filter {
        states: vec![State::Done, State::Refused],
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(list(done), [ids[3].clone(), ids[1].clone()]);
    let key = Filter {
        key: Some(Digest([1; 32])),
        ..Filter::default()
    };
    assert_eq!(list(key), [ids[0].clone()]);
    let bank = Filter {
        bank: Some("other".to_owned()),
        ..Filter::default()
    };
    assert!(list(bank).is_empty());
    let holding = Filter {
        holding: true,
        limit: 10,
        ..Filter::default()
    };
    assert!(
        list(holding).is_empty(),
        "dropped before they were sent, or delivered"
    );
    let all = reader
        .list(
            &Filter {
                limit: 9,
                ..Filter::default()
            },
            plain,
        )
        .unwrap();
    assert!(all.iter().all(|operation| operation.subject.is_none()));
    assert!(
        all.iter()
            .all(|operation| operation.subject_sha256.is_some())
    );
    journal.close();
}

#[tokio::test]
async fn what_is_over_is_forgotten_in_time_and_what_is_open_never() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut kept = Vec::new();
    for (key, finish, delivered) in [
        (1, Some(done("{}")), true),
        (2, Some(done("{}")), false),
        (3, Some(Finish::NotSent { code: "x" }), false),
        (
            4,
            Some(Finish::Unknown {
                code: "x",
                listening: false,
            }),
            false,
        ),
        (5, None, false),
    ] {
        let mut attempt = run(&journal, request(key, key, Some(key))).await;
        journal.mark_sent(&mut attempt, NOW).await.unwrap();
        if let Some(finish) = finish {
            journal.finish(&mut attempt, finish, NOW).await.unwrap();
        }
        if delivered {
            journal.delivered(attempt.id(), NOW);
        }
        kept.push(attempt);
    }
    let later = |span: Duration| UnixMillis(NOW.0 + i64::try_from(span.as_millis()).unwrap());
    assert_eq!(journal.purge(later(KEEP_OPERATIONS)).await, Ok(0));
    let after = later(KEEP_OPERATIONS + Duration::from_secs(1));
    assert_eq!(journal.purge(after).await, Ok(2));
    for (index, attempt) in kept.iter().enumerate() {
        let shown = Reader::open(&place.path)
            .unwrap()
            .show(attempt.id(), EVERYTHING)
            .unwrap();
        assert_eq!(shown.is_none(), index == 0 || index == 2, "{index}");
    }
    journal.close();
}

#[tokio::test]
async fn works_that_wait_together_share_a_commit() {
    let place = Place::new();
    let (journal, _) = place.open();
    let all = (0..64).map(|key| {
        let journal = journal.clone();
        async move { run(&journal, request(key, key, None)).await }
    });
    let attempts = futures_of(all).await;
    let commits = journal.counts().commits.load(Ordering::Relaxed);
    assert_eq!(attempts.len(), 64);
    assert!(commits <= 32, "{commits} commits for 64 works");
    assert_eq!(journal.counts().open.load(Ordering::Relaxed), 64);
    journal.close();
}

/// All of them at once, on this task's runtime.
async fn futures_of<F>(all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = all.map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}
