//! The inbox against a real file: order, claims, repeats, transitions, and people.

use rusqlite::Connection;

use super::*;
use crate::journal::tests::{NOW, Place};

mod backlog;

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
    journal.claim("priorbank", Policy::Hold, now).await.unwrap()
}

async fn deliver(journal: &Journal, now: UnixMillis) -> String {
    let claim = claimed(journal, now).await.expect("something is due");
    journal
        .settle(&claim, Settle::Delivered, Policy::Hold, now)
        .await
        .unwrap();
    claim.event.event
}

fn retry(at: UnixMillis) -> Settle {
    Settle::Retry {
        at,
        free: at,
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
    let nobody = journal.claim("other", Policy::Hold, NOW).await;
    assert!(nobody.unwrap().is_none());
    let claim = claimed(&journal, NOW).await.unwrap();
    assert_eq!((claim.id, &claim.event.body), (id, &first.body));
    journal
        .settle(&claim, Settle::Delivered, Policy::Hold, NOW)
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
    journal
        .settle(&first, retry(later(5)), Policy::Hold, NOW)
        .await
        .unwrap();
    assert!(claimed(&journal, later(4)).await.is_none());
    assert_eq!(journal.next_due("priorbank").await, Ok(Some(later(5))));
    let again = claimed(&journal, later(5)).await.unwrap();
    assert_eq!((&*again.event.event, again.attempt), ("e1", 2));
    assert_eq!(again.refused_since, Some(NOW));
    journal
        .settle(&again, Settle::Delivered, Policy::Hold, later(5))
        .await
        .unwrap();
    let next = claimed(&journal, later(5)).await.unwrap();
    assert_eq!(next.event.event, "e2");
    let dead = Settle::Dead {
        free: NOW,
        error: "expired".to_owned(),
    };
    journal
        .settle(&next, dead, Policy::Hold, later(5))
        .await
        .unwrap();
    assert!(
        claimed(&journal, later(1_000_000)).await.is_none(),
        "e3 is being delivered, however long that takes"
    );
    journal.close();
}

fn passing(seconds: i64) -> Settle {
    Settle::Retry {
        at: later(seconds),
        free: NOW,
        refused: true,
        let_next: true,
        error: "answered 500".to_owned(),
    }
}

async fn settled(journal: &Journal, expected: &str, settle: Settle, now: UnixMillis) {
    let claim = claimed(journal, now).await.expect("something is due");
    assert_eq!(claim.event.event, expected);
    let done = journal.settle(&claim, settle, Policy::Hold, now).await;
    assert_eq!(done, Ok(()));
}

#[tokio::test]
async fn a_head_that_the_shop_refuses_lets_the_next_pass_and_comes_back() {
    let place = Place::new();
    let (journal, _) = place.open();
    for id in ["e1", "e2", "e3"] {
        accept(&journal, event(id, "s1", Status::Rejected)).await;
    }
    settled(&journal, "e1", passing(100), NOW).await;
    settled(&journal, "e2", Settle::Delivered, NOW).await;
    // Before e3 is tried the head is, and at once: e3 is due.
    settled(&journal, "e1", passing(200), later(1)).await;
    settled(&journal, "e3", retry(later(50)), later(1)).await;
    // The next round begins when the first of them is due, with the older one.
    assert!(claimed(&journal, later(49)).await.is_none());
    settled(&journal, "e1", passing(200), later(50)).await;
    settled(&journal, "e3", Settle::Delivered, later(50)).await;
    assert!(claimed(&journal, later(199)).await.is_none());
    settled(&journal, "e1", Settle::Delivered, later(200)).await;
    journal.close();
}

#[tokio::test]
async fn any_number_of_refused_events_keep_an_approval_waiting_only_once_each() {
    let place = Place::new();
    let (journal, _) = place.open();
    // Words that are not known are never superseded, and the shop refuses them for ever.
    for id in ["a", "b", "c"] {
        let mut unknown = event(id, "s1", Status::Rejected);
        unknown.status = None;
        accept(&journal, unknown).await;
    }
    accept(&journal, event("approved", "s1", Status::Approved)).await;
    accept(&journal, event("last", "s1", Status::Refunded)).await;
    for id in ["a", "b", "c"] {
        settled(&journal, id, passing(1_000), NOW).await;
    }
    // The approval is tried by its own clock, and never let past.
    settled(&journal, "approved", retry(later(5)), NOW).await;
    for now in [5, 10] {
        assert!(claimed(&journal, later(now - 1)).await.is_none());
        // Of those before it only the oldest is pulled to its time; the others come when they are due.
        settled(&journal, "a", passing(1_000), later(now)).await;
        let then = if now == 5 {
            retry(later(10))
        } else {
            Settle::Delivered
        };
        settled(&journal, "approved", then, later(now)).await;
    }
    settled(&journal, "a", passing(1_000), later(10)).await;
    settled(&journal, "last", Settle::Delivered, later(10)).await;
    for id in ["a", "b", "c"] {
        settled(&journal, id, Settle::Delivered, later(1_000)).await;
    }
    journal.close();
}

#[tokio::test]
async fn nothing_of_a_session_is_tried_while_the_shop_may_be_busy_with_another() {
    let place = Place::new();
    let (journal, _) = place.open();
    for id in ["e1", "e2"] {
        accept(&journal, event(id, "s1", Status::Rejected)).await;
    }
    settled(&journal, "e1", passing(1), NOW).await;
    settled(&journal, "e2", retry(later(1)), NOW).await;
    let timed_out = Settle::Retry {
        at: later(61),
        free: later(61),
        refused: false,
        let_next: true,
        error: "no answer".to_owned(),
    };
    settled(&journal, "e1", timed_out, later(1)).await;
    accept(&journal, event("e3", "s1", Status::Approved)).await;
    assert!(claimed(&journal, later(60)).await.is_none());
    settled(&journal, "e2", Settle::Delivered, later(61)).await;
    // What was given up after a time-out may be at work as well.
    let dead = Settle::Dead {
        free: later(122),
        error: "no answer".to_owned(),
    };
    settled(&journal, "e1", dead, later(62)).await;
    assert!(claimed(&journal, later(121)).await.is_none());
    settled(&journal, "e3", Settle::Delivered, later(122)).await;
    journal.close();
}

#[tokio::test]
async fn a_pending_that_was_with_the_shop_when_the_approval_came_does_not_come_back() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Pending)).await;
    let claim = claimed(&journal, NOW).await.unwrap();
    accept(&journal, event("e2", "s1", Status::Approved)).await;
    let settled = journal
        .settle(&claim, retry(later(1)), Policy::Hold, NOW)
        .await;
    assert_eq!(settled, Ok(()));
    assert_eq!(deliver(&journal, later(1)).await, "e2");
    assert!(claimed(&journal, later(9_999)).await.is_none());
    journal.close();
}

#[tokio::test]
async fn an_event_is_marked_by_what_the_shop_has_when_its_turn_comes() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Rejected)).await;
    let late = fate(&journal, event("e2", "s1", Status::Approved)).await;
    assert_eq!(late.0, Mark::Conflict, "after the rejection that waits");
    settled(&journal, "e1", passing(100), NOW).await;
    let approval = claimed(&journal, NOW).await.unwrap();
    assert_eq!(
        approval.mark,
        Mark::Expected,
        "the shop has heard of no rejection"
    );
    journal
        .settle(&approval, Settle::Delivered, Policy::Hold, NOW)
        .await
        .unwrap();
    let rejection = claimed(&journal, later(100)).await.unwrap();
    assert_eq!(
        rejection.mark,
        Mark::Conflict,
        "after the approval that the shop has"
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
        free: later(60),
        refused: false,
        let_next: false,
        error: "no answer".to_owned(),
    };
    journal
        .settle(&claim, timed_out, Policy::Hold, NOW)
        .await
        .unwrap();
    accept(&journal, event("e2", "s1", Status::Refunded)).await;
    assert!(claimed(&journal, later(59)).await.is_none());
    assert_eq!(
        claimed(&journal, later(60)).await.unwrap().event.event,
        "e1"
    );
    journal.close();
}

#[tokio::test]
async fn what_the_last_process_was_delivering_is_delivered_again_once_the_shop_may_be_done() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    let slow = claimed(&journal, NOW).await.unwrap();
    journal.close();
    drop(journal);
    let (journal, _) = place.open();
    accept(&journal, event("e2", "s1", Status::Refunded)).await;
    assert!(claimed(&journal, later(59)).await.is_none());
    let next = claimed(&journal, later(60)).await.unwrap();
    assert_eq!((slow.attempt, next.attempt), (1, 2));
    let settle = |claim| {
        let journal = &journal;
        async move {
            journal
                .settle(claim, Settle::Delivered, Policy::Hold, later(62))
                .await
        }
    };
    assert_eq!(
        settle(&slow).await,
        Err(JournalError::Stale),
        "of the last process"
    );
    assert_eq!(settle(&next).await, Ok(()));
    assert_eq!(settle(&next).await, Err(JournalError::Stale), "twice");
    journal.close();
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nothing_waiting() {
    let place = Place::new();
    let (journal, _) = place.open();
    accept(&journal, event("e1", "s1", Status::Approved)).await;
    let claim = claimed(&journal, NOW).await.unwrap();
    journal
        .settle(&claim, retry(later(5)), Policy::Hold, NOW)
        .await
        .unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let back = UnixMillis(NOW.0 - 3 * 3_600_000);
    let moved = journal.pull_in("priorbank", back, hours(3), hours(3)).await;
    assert_eq!(moved, Ok(1));
    assert_eq!(
        journal.next_due("priorbank").await,
        Ok(Some(UnixMillis(back.0 + 5_000)))
    );
    // A process that starts by the right clock does not know by how much the last one's was wrong.
    let far_back = UnixMillis(back.0 - 24 * 3_600_000);
    let moved = journal
        .pull_in("priorbank", far_back, hours(0), hours(3))
        .await;
    assert_eq!(moved, Ok(1));
    let furthest = UnixMillis(far_back.0 + 3 * 3_600_000);
    assert_eq!(journal.next_due("priorbank").await, Ok(Some(furthest)));
    let again = journal
        .pull_in("priorbank", far_back, hours(0), hours(3))
        .await;
    assert_eq!(again, Ok(0));
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
    let mut rest = Vec::new();
    while let Some(claim) = claimed(&journal, NOW).await {
        journal
            .settle(&claim, Settle::Delivered, Policy::Hold, NOW)
            .await
            .unwrap();
        rest.push(claim.event.event);
    }
    assert_eq!(
        rest,
        ["e3", "e2"],
        "the approval first: it explains the refund"
    );
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
        free: NOW,
        error: "expired".to_owned(),
    };
    journal
        .settle(&claim, dead, Policy::Hold, NOW)
        .await
        .unwrap();
    assert!(claimed(&journal, later(9_999)).await.is_none());
    journal
        .retry_event(claim.id, person(), later(9_999))
        .await
        .unwrap();
    let again = claimed(&journal, later(9_999)).await.unwrap();
    assert_eq!((again.id, again.received_at), (claim.id, later(9_999)));
    journal
        .settle(&again, Settle::Delivered, Policy::Hold, later(9_999))
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
}
