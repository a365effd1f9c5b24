//! The inbox against a real file: order, claims, repeats, transitions, and people.

use rusqlite::Connection;

use super::*;
use crate::journal::tests::{NOW, Place};

mod backlog;

const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn event(id: &str, session: &str, status: Status) -> Event {
    let body = format!("{{\"id\":\"{id}\",\"status\":\"{status}\"}}");
    Event {
        source: "priorbank".to_owned(),
        event: id.to_owned(),
        body_hash: Digest::of("test", &[body.as_bytes()]),
        session: Some(session.to_owned()),
        status: Some(status),
        key_id: "bank-2026".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: Bytes::from(body),
    }
}

fn later(seconds: i64) -> UnixMillis {
    UnixMillis(NOW.0 + seconds * 1_000)
}

fn person() -> Person {
    Person {
        uid: 0,
        pid: None,
        login_uid: None,
        reason: "seen".to_owned(),
    }
}

pub(crate) async fn accept(journal: &Journal, event: Event) -> Accepted {
    journal.accept(event, Policy::Hold, NOW).await.unwrap()
}

async fn fate(journal: &Journal, event: Event) -> (Mark, Fate) {
    match accept(journal, event).await {
        Accepted::New { mark, fate, .. } => (mark, fate),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn claimed(journal: &Journal, now: UnixMillis) -> Option<Claim> {
    journal
        .claim("priorbank", Policy::Hold, now, LEASE)
        .await
        .unwrap()
}

async fn deliver(journal: &Journal, now: UnixMillis) -> String {
    let claim = claimed(journal, now).await.expect("something is due");
    journal
        .settle(&claim, Settle::Delivered, now)
        .await
        .unwrap();
    claim.event.event
}

fn retry(at: UnixMillis) -> Settle {
    Settle::Retry {
        at,
        earliest: at,
        refused: true,
        let_next: false,
        error: "answered 500".to_owned(),
    }
}

#[tokio::test]
async fn an_event_is_kept_once_and_delivered_byte_for_byte() {
    let place = Place::new();
    let (journal, _) = place.open();
    let first = event("e1", "s1", Status::Approved);
    let Accepted::New { id, .. } = accept(&journal, first.clone()).await else {
        panic!("not new");
    };
    assert_eq!(accept(&journal, first.clone()).await, Accepted::Repeat(id));
    let mut other = first.clone();
    other.body = Bytes::from_static(b"\xff\x00 anything");
    other.body_hash = Digest::of("test", &[&other.body]);
    let (mark, _) = fate(&journal, other.clone()).await;
    assert_eq!(mark, Mark::Conflict, "the same id with another body");
    let nobody = journal.claim("other", Policy::Hold, NOW, LEASE).await;
    assert!(nobody.unwrap().is_none());
    let claim = claimed(&journal, NOW).await.unwrap();
    assert_eq!((claim.id, &claim.event.body), (id, &first.body));
    journal
        .settle(&claim, Settle::Delivered, NOW)
        .await
        .unwrap();
    let claim = claimed(&journal, NOW).await.unwrap();
    assert_eq!(claim.event.body, other.body);
    journal.close();
}

#[tokio::test]
async fn a_repeat_of_old_news_is_kept_aside() {
    let place = Place::new();
    let (journal, _) = place.open();
    let old = event("e1", "s1", Status::Pending);
    let Accepted::New { id, .. } = accept(&journal, old.clone()).await else {
        panic!("not new");
    };
    accept(&journal, event("e2", "s1", Status::Approved)).await;
    for _ in 0..3 {
        assert_eq!(accept(&journal, old.clone()).await, Accepted::Repeated(id));
    }
    assert_eq!(
        deliver(&journal, NOW).await,
        "e2",
        "the pending one was superseded"
    );
    assert!(claimed(&journal, NOW).await.is_none());
    journal.close();
}

#[tokio::test]
async fn one_session_is_delivered_in_order_and_one_at_a_time() {
    let place = Place::new();
    let (journal, _) = place.open();
    for (id, session) in [("e1", "s1"), ("e2", "s1"), ("e3", "s2")] {
        accept(&journal, event(id, session, Status::Approved)).await;
    }
    let first = claimed(&journal, NOW).await.unwrap();
    let second = claimed(&journal, NOW).await.unwrap();
    assert_eq!((&*first.event.event, &*second.event.event), ("e1", "e3"));
    assert!(claimed(&journal, NOW).await.is_none(), "e2 waits for e1");
    journal.settle(&first, retry(later(5)), NOW).await.unwrap();
    assert!(claimed(&journal, later(4)).await.is_none());
    assert_eq!(journal.next_due("priorbank").await, Ok(Some(later(5))));
    let again = claimed(&journal, later(5)).await.unwrap();
    assert_eq!((&*again.event.event, again.attempt), ("e1", 2));
    assert_eq!(again.refused_since, Some(NOW));
    journal
        .settle(&again, Settle::Delivered, later(5))
        .await
        .unwrap();
    let next = claimed(&journal, later(5)).await.unwrap();
    assert_eq!(next.event.event, "e2");
    let dead = Settle::Dead {
        error: "expired".to_owned(),
    };
    journal.settle(&next, dead, later(5)).await.unwrap();
    let abandoned = claimed(&journal, later(1_000)).await.unwrap();
    assert_eq!(abandoned.event.event, "e3", "its lease has ended");
    journal.close();
}

#[tokio::test]
async fn a_head_that_the_shop_refuses_lets_the_next_pass_and_comes_back() {
    let place = Place::new();
    let (journal, _) = place.open();
    for id in ["e1", "e2", "e3"] {
        accept(&journal, event(id, "s1", Status::Rejected)).await;
    }
    let passing = |seconds| Settle::Retry {
        at: later(seconds),
        earliest: later(seconds),
        refused: true,
        let_next: true,
        error: "answered 500".to_owned(),
    };
    let first = claimed(&journal, NOW).await.unwrap();
    journal.settle(&first, passing(100), NOW).await.unwrap();
    let second = claimed(&journal, NOW).await.unwrap();
    assert_eq!(second.event.event, "e2");
    journal
        .settle(&second, Settle::Delivered, NOW)
        .await
        .unwrap();
    // Before e3 is tried the head is.
    assert!(claimed(&journal, later(99)).await.is_none());
    let head = claimed(&journal, later(100)).await.unwrap();
    assert_eq!(head.event.event, "e1");
    journal
        .settle(&head, passing(200), later(100))
        .await
        .unwrap();
    let third = claimed(&journal, later(100)).await.unwrap();
    assert_eq!(third.event.event, "e3");
    // It fails as well: the older one comes first again.
    journal
        .settle(&third, retry(later(150)), later(100))
        .await
        .unwrap();
    assert!(claimed(&journal, later(199)).await.is_none());
    assert_eq!(
        claimed(&journal, later(200)).await.unwrap().event.event,
        "e1"
    );
    journal.close();
}

#[tokio::test]
async fn a_new_event_wakes_its_head_but_not_before_the_shop_may_be_done() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    let claim = claimed(&journal, NOW).await.unwrap();
    let timed_out = Settle::Retry {
        at: later(3_600),
        earliest: later(60),
        refused: false,
        let_next: false,
        error: "no answer".to_owned(),
    };
    journal.settle(&claim, timed_out, NOW).await.unwrap();
    accept(&journal, event("e2", "s1", Status::Refunded)).await;
    assert!(claimed(&journal, later(59)).await.is_none());
    assert_eq!(
        claimed(&journal, later(60)).await.unwrap().event.event,
        "e1"
    );
    journal.close();
}

#[tokio::test]
async fn a_late_holder_of_a_claim_changes_nothing() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    let slow = claimed(&journal, NOW).await.unwrap();
    let next = claimed(&journal, later(61)).await.unwrap();
    assert_eq!((slow.attempt, next.attempt), (1, 2));
    let late = journal.settle(&slow, Settle::Delivered, later(62)).await;
    assert_eq!(late, Err(JournalError::Stale));
    let done = journal.settle(&next, Settle::Delivered, later(62)).await;
    assert_eq!(done, Ok(()));
    let twice = journal.settle(&next, Settle::Delivered, later(62)).await;
    assert_eq!(twice, Err(JournalError::Stale));
    journal.close();
}

#[tokio::test]
async fn what_the_last_process_was_delivering_is_delivered_again() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    drop(claimed(&journal, NOW).await.unwrap());
    journal.close();
    drop(journal);
    let (journal, _) = place.open();
    assert_eq!(claimed(&journal, NOW).await.unwrap().attempt, 2);
    journal.close();
}

#[tokio::test]
async fn contradictions_are_held_judged_again_and_let_go_by_a_person() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    assert_eq!(deliver(&journal, NOW).await, "e1");
    accept(&journal, event("e2", "s1", Status::Refunded)).await;
    // The refund has not reached the shop: an approval is queued behind it, and held when its turn comes.
    let queued = fate(&journal, event("e3", "s1", Status::Approved)).await;
    assert_eq!(queued, (Mark::Conflict, Fate::Queued));
    assert_eq!(deliver(&journal, NOW).await, "e2");
    assert!(claimed(&journal, NOW).await.is_none());
    let held = fate(&journal, event("e4", "s1", Status::Approved)).await;
    assert_eq!(held.1, Fate::Held);
    let silent = fate(&journal, event("e5", "s1", Status::Pending)).await;
    assert_eq!(silent.1, Fate::Superseded);
    assert!(claimed(&journal, NOW).await.is_none());
    journal
        .release_event(EventId(3), person(), NOW)
        .await
        .unwrap();
    let released = claimed(&journal, NOW).await.unwrap();
    assert_eq!((&*released.event.event, released.mark), ("e3", Mark::Stale));
    let again = journal.release_event(EventId(3), person(), NOW).await;
    assert_eq!(again, Err(JournalError::NotFound));
    journal.drop_event(EventId(4), person(), NOW).await.unwrap();
    journal.close();
}

#[tokio::test]
async fn a_refund_after_a_rejection_is_held_until_an_approval_explains_it() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Rejected)).await;
    let held = fate(&journal, event("e2", "s1", Status::Refunded)).await;
    assert_eq!(held.1, Fate::Held);
    let out = fate(&journal, event("e3", "s1", Status::Approved)).await;
    assert_eq!(out, (Mark::Conflict, Fate::Queued));
    assert_eq!(deliver(&journal, NOW).await, "e1");
    // e2 is no contradiction any more, and comes in the order in which it came.
    let mut rest = Vec::new();
    while let Some(claim) = claimed(&journal, NOW).await {
        journal
            .settle(&claim, Settle::Delivered, NOW)
            .await
            .unwrap();
        rest.push(claim.event.event);
    }
    assert!(rest.contains(&"e3".to_owned()), "{rest:?}");
    journal.close();
}

#[tokio::test]
async fn an_event_without_a_session_is_one_of_its_own() {
    let place = Place::new();
    let (journal, _) = place.open();
    for id in ["e1", "e2"] {
        let mut event = event(id, "", Status::Approved);
        (event.session, event.status) = (None, None);
        accept(&journal, event).await;
    }
    let first = claimed(&journal, NOW).await.unwrap();
    let second = claimed(&journal, NOW).await.unwrap();
    assert!(!first.session_known && !second.session_known);
    assert_eq!(first.event.session, None);
    journal.close();
}

#[tokio::test]
async fn a_dead_event_is_tried_again_by_hand() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    let claim = claimed(&journal, NOW).await.unwrap();
    let dead = Settle::Dead {
        error: "expired".to_owned(),
    };
    journal.settle(&claim, dead, NOW).await.unwrap();
    assert!(claimed(&journal, later(9_999)).await.is_none());
    journal
        .retry_event(claim.id, person(), later(9_999))
        .await
        .unwrap();
    let again = claimed(&journal, later(9_999)).await.unwrap();
    assert_eq!((again.id, again.received_at), (claim.id, later(9_999)));
    journal
        .settle(&again, Settle::Delivered, later(9_999))
        .await
        .unwrap();
    let over = journal.retry_event(claim.id, person(), NOW).await;
    assert_eq!(over, Err(JournalError::NotFound));
    journal.close();
}

#[test]
fn a_claim_is_searched_by_the_index_of_heads() {
    let place = Place::new();
    let (journal, _) = place.open();
    journal.close();
    drop(journal);
    let connection = Connection::open(&place.path).unwrap();
    let plan = |sql: &str| {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let marks = statement.parameter_count();
        let lines = statement
            .query_map(rusqlite::params_from_iter(vec![0; marks]), |row| {
                row.get::<_, String>(3)
            })
            .unwrap()
            .map(Result::unwrap);
        lines.collect::<Vec<_>>().join("; ")
    };
    assert!(
        plan(store::DUE).contains("callback_due"),
        "{}",
        plan(store::DUE)
    );
    let lease = "SELECT row FROM callback WHERE state = 'claimed' AND lease_until < ?1";
    assert!(plan(lease).contains("callback_lease"), "{}", plan(lease));
}
