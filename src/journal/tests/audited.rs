//! A journal beside an audit log: what the log is owed, and what the log knows that the journal does not.

use super::*;
use crate::policy::chain::Mark;

fn person() -> Person {
    Person {
        uid: 1000,
        pid: None,
        login_uid: None,
        reason: "asked the bank".to_owned(),
    }
}

impl Place {
    /// Opened beside a log that says this.
    fn beside(&self, testimony: impl Fn(u64) -> Testimony) -> (Journal, Compared) {
        let witness = |journal| Ok(testimony(journal));
        let outbox = Outbox::On(&witness);
        let (prepared, report) = Journal::open_beside(&self.path, OPTIONS, outbox, NOW).unwrap();
        (prepared.start().unwrap(), report.compared.unwrap())
    }

    fn owed(&self, after: i64) -> Vec<(i64, serde_json::Value)> {
        let owed = Reader::open(&self.path).unwrap().owed(after).unwrap();
        let read = |owed: Owed| {
            (
                owed.row,
                serde_json::from_str(&owed.record.object()).unwrap(),
            )
        };
        owed.into_iter().map(read).collect()
    }
}

/// The lock goes with the last handle.
fn end(journal: Journal) {
    journal.close();
    drop(journal);
}

fn nothing(_: u64) -> Testimony {
    Testimony::default()
}

/// The log has this journal's rows up to one.
fn upto(row: i64) -> impl Fn(u64) -> Testimony {
    move |journal| Testimony {
        last: Some(Mark { journal, row }),
        ours: Some(row),
    }
}

async fn do_it(journal: &Journal, key: u8, subject: u8) -> OperationId {
    let mut attempt = run(journal, request(key, key, Some(subject))).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
    journal.delivered(attempt.id(), NOW);
    journal.freeze(false, person(), NOW).await.unwrap();
    attempt.id()
}

fn remembered(key: u8, subject: u8, state: State) -> Remembered {
    Remembered {
        id: OperationId::new(NOW, u32::from(key)),
        bank: "priorbank".to_owned(),
        route: "refund".to_owned(),
        state,
        delivered: false,
        attempt: 1,
        uid: Some(33),
        request_id: "r".to_owned(),
        key: Digest([key; 32]),
        fingerprint: Digest([key; 32]),
        subject: Some(Digest([subject; 32])),
        pointers: "/session_id".to_owned(),
        at: NOW,
    }
}

async fn refusal(journal: &Journal, key: u8, subject: u8) -> Refusal {
    match journal.reserve(request(key, key, Some(subject)), NOW).await {
        Ok(Reserved::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_step_of_an_operation_is_owed_in_its_order_and_names_no_value() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    let id = do_it(&journal, 1, 7).await;
    journal.freeze(true, person(), NOW).await.unwrap();
    end(journal);
    let owed = place.owed(0);
    let seen: Vec<_> = owed
        .iter()
        .map(|(row, record)| {
            (
                *row,
                record["event"].as_str().unwrap(),
                record["state"].clone(),
            )
        })
        .collect();
    let state = serde_json::Value::from;
    assert_eq!(
        seen,
        [
            (1, "operation", state("reserved")),
            (2, "operation", state("sent")),
            (3, "operation", state("done")),
            (4, "operation", state("done")),
            (5, "command", serde_json::Value::Null),
        ]
    );
    assert_eq!(owed[3].1["delivered"], true);
    let first = &owed[0].1;
    assert_eq!(first["id"], id.to_string());
    assert_eq!(first["key"], Digest([1; 32]).to_string());
    assert_eq!(first["subject"], Digest([7; 32]).to_string());
    let whole = serde_json::to_string(first).unwrap();
    assert!(
        !whole.contains("/session_id="),
        "the subject itself: {whole}"
    );
    assert_eq!(owed[4].1["reason"], "asked the bank");
}

#[tokio::test]
async fn without_an_audit_log_nothing_is_owed() {
    let place = Place::new();
    let (journal, _) = place.open();
    do_it(&journal, 1, 7).await;
    end(journal);
    assert_eq!(place.owed(0), []);
}

#[tokio::test]
async fn what_is_recorded_goes_and_its_numbers_never_come_again() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    do_it(&journal, 1, 7).await;
    journal.recorded(4, NOW).await.unwrap();
    assert_eq!(place.owed(0), []);
    do_it(&journal, 2, 8).await;
    end(journal);
    assert_eq!(place.owed(0).first().unwrap().0, 5);
    // Synced by the last process, which had no time to say so.
    let (journal, compared) = place.beside(upto(6));
    assert_eq!((compared.lost, compared.doubt), (None, None));
    assert_eq!(place.owed(0).first().unwrap().0, 7);
    end(journal);
}

#[tokio::test]
async fn what_was_left_out_is_told_by_the_next_process_at_the_latest() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    do_it(&journal, 1, 7).await;
    end(journal);
    Connection::open(&place.path)
        .unwrap()
        .execute(
            "INSERT INTO setting (name, value) VALUES ('outbox_left_out', '3 1795000000000')",
            [],
        )
        .unwrap();
    // The log has everything: nothing else would come to be told.
    let (journal, _) = place.beside(upto(4));
    end(journal);
    let owed = place.owed(4);
    let (row, gap) = owed.first().unwrap();
    assert_eq!((owed.len(), *row), (1, 5));
    assert_eq!(
        (gap["lost"].as_str(), gap["records"].as_u64()),
        (Some("callbacks"), Some(3))
    );
    let (journal, _) = place.beside(upto(5));
    end(journal);
    assert_eq!(place.owed(5), [], "told twice");
}

#[tokio::test]
async fn rows_that_are_in_neither_are_told() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    do_it(&journal, 1, 7).await;
    journal.recorded(3, NOW).await.unwrap();
    end(journal);
    let (journal, compared) = place.beside(upto(1));
    assert_eq!(compared.lost, Some((2, 3)));
    end(journal);
    let (journal, compared) = place.beside(nothing);
    assert_eq!(compared.lost, Some((1, 3)));
    end(journal);
}

#[tokio::test]
async fn a_journal_behind_its_log_runs_nothing_until_it_has_what_is_missing() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    do_it(&journal, 1, 7).await;
    end(journal);
    let (journal, compared) = place.beside(upto(9));
    let expected = Doubt {
        rows: Some((4, 9)),
        ..Doubt::default()
    };
    assert_eq!(compared.doubt, Some(expected));
    assert_eq!(
        refusal(&journal, 2, 8).await,
        Refusal::Closed(Closed::Doubted)
    );
    assert!(journal.counts().doubted.load(Ordering::Relaxed));
    // What it knows it says all the same.
    let replay = journal.reserve(request(1, 1, Some(7)), NOW).await;
    assert!(matches!(replay, Ok(Reserved::Replay { .. })), "{replay:?}");
    end(journal);
    // The doubt outlives the process, though the log's last record is this journal's by now.
    let (journal, compared) = place.beside(upto(9));
    assert_eq!(compared.doubt, Some(expected));

    let steps = [
        remembered(2, 8, State::Reserved),
        remembered(2, 8, State::Sent),
        remembered(2, 8, State::Done),
        remembered(3, 8, State::Done),
        remembered(4, 9, State::Reserved),
        remembered(4, 9, State::NotSent),
    ];
    let all = journal.remember(steps.to_vec(), NOW).await.unwrap();
    assert_eq!((all.added, all.changed, all.ended), (3, 0, 1));
    journal.reconciled(false, person(), NOW).await.unwrap();
    let id = |key| OperationId::new(NOW, key);
    assert!(
        matches!(refusal(&journal, 2, 8).await, Refusal::OutcomeUnknown(known) if known.id == id(2))
    );
    assert!(
        matches!(refusal(&journal, 3, 8).await, Refusal::OutcomeUnknown(known) if known.id == id(3))
    );
    assert!(
        matches!(refusal(&journal, 5, 8).await, Refusal::SubjectBusy(known) if known.id == id(2))
    );
    // What was not sent may run again.
    let again = journal.reserve(request(4, 4, Some(9)), NOW).await.unwrap();
    assert!(matches!(again, Reserved::Run(_)), "{again:?}");
    // Two operations of one subject end one after the other, and the subject is free only then.
    let resolution = Resolution::NotSent;
    journal
        .resolve(id(2), resolution, None, person(), NOW)
        .await
        .unwrap();
    assert!(
        matches!(refusal(&journal, 5, 8).await, Refusal::SubjectBusy(known) if known.id == id(3))
    );
    journal
        .resolve(id(3), resolution, None, person(), NOW)
        .await
        .unwrap();
    let free = journal.reserve(request(5, 5, Some(8)), NOW).await.unwrap();
    assert!(matches!(free, Reserved::Run(_)), "{free:?}");
    drop((again, free));
    end(journal);
    let last = place.owed(9);
    assert_eq!(last.first().unwrap().0, 10, "numbers go on above the log's");
    let (journal, compared) = place.beside(upto(last.last().unwrap().0));
    assert_eq!(compared.doubt, None);
    end(journal);
}

#[tokio::test]
async fn a_journal_that_is_new_beside_an_old_log_runs_nothing() {
    let place = Place::new();
    let old = |_| Testimony {
        last: Some(Mark { journal: 1, row: 5 }),
        ours: None,
    };
    let (journal, compared) = place.beside(old);
    let doubt = compared.doubt.unwrap();
    assert!(doubt.covers(compared.journal, Mark { journal: 1, row: 3 }));
    assert_eq!(
        refusal(&journal, 1, 1).await,
        Refusal::Closed(Closed::Doubted)
    );
    end(journal);
}

#[tokio::test]
async fn what_was_left_to_run_again_and_was_done_later_is_in_doubt() {
    let place = Place::new();
    let (journal, _) = place.beside(nothing);
    let mut attempt = run(&journal, request(1, 1, Some(7))).await;
    let finish = Finish::NotSent {
        code: "bank_unreachable",
    };
    journal.finish(&mut attempt, finish, NOW).await.unwrap();
    let all = journal
        .remember(vec![remembered(1, 7, State::Done)], NOW)
        .await
        .unwrap();
    assert_eq!(all.changed, 1);
    assert!(matches!(
        refusal(&journal, 1, 7).await,
        Refusal::OutcomeUnknown(_)
    ));
    assert!(matches!(
        refusal(&journal, 2, 7).await,
        Refusal::SubjectBusy(_)
    ));
    end(journal);
}
