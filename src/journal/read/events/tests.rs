//! Reading an inbox of a real file: what fits a filter, who sees what, and by which index it is found.

use super::*;
use crate::journal::inbox::tests::event;
use crate::journal::inbox::{Accepted, Event, Settle};
use crate::journal::tests::{NOW, Place};
use crate::journal::{Journal, Person};
use crate::policy::status::Policy;
use Status::{Approved, Pending, Refunded, Rejected};

const EVERYTHING: Depth = Depth {
    subject: true,
    body: true,
};
const NOTHING: Depth = Depth {
    subject: false,
    body: false,
};

async fn accept(journal: &Journal, event: Event, now: UnixMillis) -> EventId {
    match journal.accept(event, Policy::Hold, now).await.unwrap() {
        Accepted::New { id, .. } | Accepted::Repeat(id) | Accepted::Repeated(id) => id,
    }
}

fn of(source: &str, event: Event) -> Event {
    Event {
        source: source.to_owned(),
        ..event
    }
}

/// Six events of two callbacks: delivered, dead, held, head, waiting, and one without names.
async fn inbox(journal: &Journal) {
    let after = |seconds: i64| UnixMillis(NOW.0 + seconds * 1_000);
    for (at, event) in [
        (1, event("e1", "s1", Rejected)),
        (2, event("e2", "s2", Approved)),
    ] {
        accept(journal, event, after(at)).await;
    }
    for settle in [
        Settle::Delivered,
        Settle::Dead {
            free: NOW,
            error: "answered 500".to_owned(),
        },
    ] {
        let claim = journal.claim("priorbank", Policy::Hold, after(2));
        let claim = claim.await.unwrap().unwrap();
        journal
            .settle(&claim, settle, Policy::Hold, after(2))
            .await
            .unwrap();
    }
    let mut unnamed = of("other", event("e6", "", Pending));
    (unnamed.session, unnamed.status) = (None, None);
    for (at, event) in [
        (3, event("e3", "s1", Refunded)),
        (4, of("other", event("e4", "s1", Approved))),
        (5, of("other", event("e5", "s1", Approved))),
        (6, unnamed),
    ] {
        accept(journal, event, after(at)).await;
    }
}

fn ids(reader: &Reader, filter: EventFilter) -> Vec<i64> {
    let limit = if filter.limit == 0 { 50 } else { filter.limit };
    let filter = EventFilter { limit, ..filter };
    let events = reader.events(&filter, NOTHING).unwrap();
    events.iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn a_list_shows_what_fits_all_that_is_asked_newest_first() {
    let place = Place::new();
    let (journal, _) = place.open();
    inbox(&journal).await;
    let reader = Reader::open(&place.path).unwrap();
    let at = |seconds: i64| Some(UnixMillis(NOW.0 + seconds * 1_000));
    let all = EventFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let in_states = |states: &[EventState]| EventFilter {
        states: states.to_vec(),
        ..all()
    };
    for (filter, expected) in [
        (all(), vec![6, 5, 4, 3, 2, 1]),
        (in_states(&[EventState::Held]), vec![3]),
        (
            in_states(&[EventState::Dead, EventState::Head]),
            vec![6, 4, 2],
        ),
        (in_states(&[EventState::Waiting]), vec![5]),
        (
            EventFilter {
                open: true,
                ..all()
            },
            vec![6, 5, 4, 3],
        ),
        (
            EventFilter {
                open: true,
                states: vec![EventState::Dead],
                ..all()
            },
            vec![],
        ),
        (
            EventFilter {
                source: text("other"),
                ..all()
            },
            vec![6, 5, 4],
        ),
        (
            EventFilter {
                session: text("s1"),
                ..all()
            },
            vec![5, 4, 3, 1],
        ),
        (
            EventFilter {
                source: text("priorbank"),
                session: text("s1"),
                ..all()
            },
            vec![3, 1],
        ),
        (
            EventFilter {
                session: text(""),
                ..all()
            },
            vec![],
        ),
        (
            EventFilter {
                session: text("s9"),
                ..all()
            },
            vec![],
        ),
        (
            EventFilter {
                received_before: at(3),
                ..all()
            },
            vec![2, 1],
        ),
        (
            EventFilter {
                received_after: at(3),
                ..all()
            },
            vec![6, 5, 4, 3],
        ),
        (
            EventFilter {
                before: EventId::new(3),
                ..all()
            },
            vec![2, 1],
        ),
        (EventFilter { limit: 2, ..all() }, vec![6, 5]),
    ] {
        assert_eq!(ids(&reader, filter.clone()), expected, "{filter:?}");
    }
    drop(reader);
    journal.close();
}

#[tokio::test]
async fn only_with_the_subject_does_an_event_say_whose_it_is() {
    let place = Place::new();
    let (journal, _) = place.open();
    inbox(&journal).await;
    let reader = Reader::open(&place.path).unwrap();
    let third = EventId::new(3).unwrap();
    let shown = reader.event(third, NOTHING).unwrap().unwrap();
    assert_eq!(shown.body, None);
    let document = serde_json::to_string(&shown.event).unwrap();
    assert!(
        !document.contains("e3") && !document.contains("s1"),
        "{document}"
    );
    let named = reader.event(third, EVERYTHING).unwrap().unwrap();
    let EventRow { event, session, .. } = &named.event;
    assert_eq!(
        (event.as_deref(), session.as_deref()),
        (Some("e3"), Some("s1"))
    );
    assert_eq!(
        named.body.as_deref(),
        Some(&b"{\"id\":\"e3\",\"status\":\"REFUNDED\"}"[..])
    );
    let nobodys = reader.event(EventId::new(6).unwrap(), EVERYTHING);
    let nobodys = nobodys.unwrap().unwrap().event;
    assert_eq!((nobodys.session, nobodys.session_known), (None, false));
    // Hashes group what is one session, and only that.
    let hashes: Vec<_> = (1..=6)
        .map(|id| reader.event(EventId::new(id).unwrap(), NOTHING).unwrap())
        .map(|shown| shown.unwrap().event.session_hash)
        .collect();
    assert_eq!(hashes[0], hashes[2]);
    assert_eq!(hashes[3], hashes[4]);
    assert!(hashes[0] != hashes[3] && hashes[0] != hashes[1] && hashes[3] != hashes[5]);
    assert_eq!(
        reader.event(EventId::new(7).unwrap(), EVERYTHING).unwrap(),
        None
    );
    drop(reader);
    journal.close();
}

#[tokio::test]
async fn an_event_says_where_it_stands_and_what_people_did() {
    let place = Place::new();
    let (journal, _) = place.open();
    inbox(&journal).await;
    accept(&journal, event("e1", "s1", Rejected), NOW).await;
    let person = Person {
        uid: 0,
        pid: Some(7),
        login_uid: Some(1000),
        reason: "the shop was down".to_owned(),
    };
    let second = EventId::new(2).unwrap();
    let before = Reader::open(&place.path).unwrap();
    let dead = before.event(second, NOTHING).unwrap().unwrap().event;
    assert_eq!(
        (dead.state, dead.last_error.as_deref()),
        ("dead", Some("answered 500"))
    );
    assert_eq!((dead.attempts, dead.next_at), (1, None));
    assert!(dead.ended_at.is_some());
    drop(before);
    journal.retry_event(second, person, NOW).await.unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let again = reader.event(second, NOTHING).unwrap().unwrap();
    assert_eq!(
        (again.event.state, again.event.next_at),
        ("head", Some(NOW.0))
    );
    let [by_hand] = &again.interventions[..] else {
        panic!("{:?}", again.interventions);
    };
    assert_eq!(
        (&*by_hand.what, &*by_hand.reason),
        ("retried", "the shop was down")
    );
    let held = reader
        .event(EventId::new(3).unwrap(), NOTHING)
        .unwrap()
        .unwrap();
    assert_eq!((held.event.state, held.event.mark), ("held", "stale"));
    let first = reader
        .event(EventId::new(1).unwrap(), NOTHING)
        .unwrap()
        .unwrap();
    assert_eq!(first.event.times_received, 2);
    assert_eq!(first.event.bytes, Some(31));
    drop(reader);
    journal.close();
}

#[tokio::test]
async fn an_event_is_found_by_the_name_that_the_shop_knows() {
    let place = Place::new();
    let (journal, _) = place.open();
    inbox(&journal).await;
    let reader = Reader::open(&place.path).unwrap();
    for id in 1..=6 {
        let id = EventId::new(id).unwrap();
        let delivery = reader.event(id, NOTHING).unwrap().unwrap().event.delivery;
        assert_eq!(reader.delivered_as(&delivery).unwrap(), Some(id));
        assert_eq!(reader.delivered_as(&format!("{delivery}0")).unwrap(), None);
    }
    assert_eq!(reader.delivered_as("nothing").unwrap(), None);
    drop(reader);
    journal.close();
}

#[test]
fn what_is_open_and_what_is_of_a_session_is_searched_by_index() {
    let place = Place::new();
    let (journal, _) = place.open();
    journal.close();
    drop(journal);
    let reader = Reader::open(&place.path).unwrap();
    let plan = |sql: &str, values: Vec<Box<dyn ToSql>>| {
        let mut statement = reader
            .connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let lines = statement
            .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
            .unwrap()
            .map(Result::unwrap);
        lines.collect::<Vec<_>>().join("; ")
    };
    let planned = |filter: &EventFilter, sources: &[&str]| {
        let sources: Vec<_> = sources.iter().map(|&name| name.to_owned()).collect();
        let (sql, values) = query(filter, &sources);
        plan(&sql, values)
    };
    let open = EventFilter {
        open: true,
        ..EventFilter::default()
    };
    let held = EventFilter {
        states: vec![EventState::Held],
        ..EventFilter::default()
    };
    let session = EventFilter {
        session: Some("s1".to_owned()),
        ..open.clone()
    };
    for (filter, sources, expected) in [
        (&open, &[][..], "USING INDEX callback_open"),
        (&open, &["a"], "USING INDEX callback_open"),
        (
            &held,
            &[],
            "SEARCH callback USING INDEX callback_open (state=?)",
        ),
        (
            &session,
            &["a", "b"],
            "SEARCH callback USING INDEX callback_session (source=? AND session=?)",
        ),
    ] {
        let plan = planned(filter, sources);
        assert!(plan.contains(expected), "{filter:?}: {plan}");
    }
    let names = plan(SOURCES, Vec::new());
    assert!(!names.contains("SCAN callback"), "{names}");
    let everything = planned(&EventFilter::default(), &[]);
    assert!(!everything.contains("TEMP B-TREE"), "{everything}");
}

#[test]
fn a_state_is_open_exactly_when_its_name_says_so() {
    for state in EventState::ALL {
        assert_eq!(EventState::parse(state.as_str()), Some(state));
    }
    assert_eq!(EventState::parse("open"), None);
    let open = EventState::ALL.into_iter().filter(|state| state.is_open());
    assert_eq!(open.count(), 4);
}
