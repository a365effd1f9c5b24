//! The callbacks commands over a real journal: who may what, what is refused, and what is written down.

use super::*;
use crate::admin::commands::Server;
use crate::admin::operations::tests::{NOW, OPERATOR, READER, Stage, ask, operator, server};
use crate::journal::inbox::tests::event;
use crate::journal::inbox::{Accepted, Event, Settle};
use crate::policy::status::{Policy, Status};

/// How far an event of a test came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Came {
    Head,
    Claimed,
    Delivered,
    Held,
    Dead,
}

impl Stage {
    async fn accept(&self, event: Event) -> i64 {
        match self.journal.accept(event, Policy::Hold, NOW).await.unwrap() {
            Accepted::New { id, .. } => id.number(),
            known => panic!("{known:?}"),
        }
    }

    /// An event of a session of its own.
    pub(crate) async fn event(&self, name: &str, came: Came) -> i64 {
        let session = format!("s-{name}");
        if came == Came::Held {
            let before = format!("{name}-before");
            self.accept(event(&before, &session, Status::Rejected))
                .await;
            return self.accept(event(name, &session, Status::Refunded)).await;
        }
        let id = self.accept(event(name, &session, Status::Approved)).await;
        let settle = match came {
            Came::Head | Came::Held => return id,
            Came::Claimed => None,
            Came::Delivered => Some(Settle::Delivered),
            Came::Dead => Some(Settle::Dead {
                free: NOW,
                error: "answered 500".to_owned(),
            }),
        };
        // Whatever else is due has its turn before it.
        while let Some(claim) = self
            .journal
            .claim("priorbank", Policy::Hold, NOW)
            .await
            .unwrap()
        {
            if claim.id.number() == id {
                if let Some(settle) = settle {
                    self.journal
                        .settle(&claim, settle, Policy::Hold, NOW)
                        .await
                        .unwrap();
                }
                return id;
            }
        }
        panic!("event {id} is not due");
    }

    fn event_shown(&self, id: i64) -> Value {
        let everything = Depth {
            subject: true,
            body: true,
        };
        let reader = Reader::open(&self.path).unwrap();
        show(&reader, &Which::Number(id), everything).unwrap()
    }
}

pub(crate) fn rejected_one(body: &[u8]) -> RejectedBody {
    RejectedBody {
        at: NOW.0,
        source: "priorbank".to_owned(),
        reason: "mismatch".to_owned(),
        headers: vec![("X-Signature".to_owned(), "c2ln".to_owned())],
        body: body.to_vec(),
    }
}

fn every_change(id: i64) -> [Value; 3] {
    ["retry", "release", "drop"].map(
        |deed| json!({"command": format!("callbacks.{deed}"), "id": id, "reason": "the shop was down"}),
    )
}

async fn listed(server: &Server, mut request: Value) -> Vec<i64> {
    request["command"] = json!("callbacks.list");
    let list = ask(server, READER, request).await.unwrap();
    let events = list["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn readers_see_how_events_stand_and_operators_also_whose_they_are() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.event("e1", Came::Dead).await;
    for (peer, session) in [(READER, Value::Null), (OPERATOR, json!("s-e1"))] {
        let list = ask(&server, peer, json!({"command": "callbacks.list"}));
        let event = list.await.unwrap()["events"][0].clone();
        let show = json!({"command": "callbacks.show", "id": id});
        let shown = ask(&server, peer, show).await.unwrap();
        for event in [event, shown] {
            assert_eq!(event["session"], session);
            assert_eq!(event["state"], "dead");
            assert_eq!(event["body"], Value::Null);
        }
    }
    let body = json!({"command": "callbacks.show", "id": id, "body": true});
    let refused = ask(&server, READER, body.clone()).await.unwrap_err();
    assert_eq!(refused.0, "operator_required");
    let shown = ask(&server, OPERATOR, body).await.unwrap();
    let text = "{\"id\":\"e1\",\"status\":\"APPROVED\"}";
    let expected =
        json!({"base64": Base64::encode_string(text.as_bytes()), "text": text, "cut": false});
    assert_eq!(shown["body"], expected);
    stage.journal.close();
}

#[tokio::test]
async fn a_list_shows_what_fits_all_that_is_asked() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let delivered = stage.event("e1", Came::Delivered).await;
    let dead = stage.event("e2", Came::Dead).await;
    let head = stage.event("e3", Came::Head).await;
    for (filter, expected) in [
        (json!({}), vec![head, dead, delivered]),
        (json!({"states": ["dead"]}), vec![dead]),
        (json!({"open": true}), vec![head]),
        (json!({"source": "other"}), vec![]),
        (json!({"session": "s-e1"}), vec![delivered]),
        (json!({"received_before": NOW.0}), vec![]),
        (json!({"received_after": NOW.0, "limit": 1}), vec![head]),
        (json!({"before": dead}), vec![delivered]),
    ] {
        assert_eq!(listed(&server, filter.clone()).await, expected, "{filter}");
    }
    for (filter, why) in [
        (json!({"states": ["open"]}), "a state is one of waiting"),
        (json!({"before": 0}), "a number from 1"),
        (json!({"before": "e1"}), "expected i64"),
        (json!({"limit": 0}), "1 to 1000"),
        (json!({"limit": 1001}), "1 to 1000"),
        (json!({"event": "e1"}), "unknown field"),
    ] {
        let mut request = filter.clone();
        request["command"] = json!("callbacks.list");
        let (code, message) = ask(&server, READER, request).await.unwrap_err();
        assert_eq!(code, "bad_request", "{filter}");
        assert!(message.contains(why), "{message}");
    }
    stage.journal.close();
}

#[tokio::test]
async fn only_an_operator_changes_an_event_or_sees_what_was_rejected() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.event("e1", Came::Held).await;
    let before = stage.event_shown(id);
    let rejected = json!({"command": "callbacks.rejected"});
    let root = Peer { uid: 0, pid: None };
    for peer in [READER, root] {
        for request in every_change(id).into_iter().chain([rejected.clone()]) {
            let refused = ask(&server, peer, request).await.unwrap_err();
            assert_eq!(refused.0, "operator_required");
        }
    }
    assert_eq!(stage.event_shown(id), before);
    stage.journal.close();
}

#[tokio::test]
async fn what_a_person_does_to_an_event_is_done_and_written_down() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let dead = stage.event("e1", Came::Dead).await;
    let gone = stage.event("e2", Came::Dead).await;
    let held = stage.event("e3", Came::Held).await;
    for (id, deed, what, states) in [
        (dead, 0, "retried", ["head"]),
        // Behind the rejection of its session, which is not delivered yet.
        (held, 1, "released", ["waiting"]),
        (gone, 2, "dropped", ["dropped"]),
    ] {
        let answer = ask(&server, OPERATOR, every_change(id)[deed].clone()).await;
        assert_eq!(answer.unwrap(), json!({"id": id, "what": what}));
        let shown = stage.event_shown(id);
        assert_eq!([&shown["state"]], states);
        let by_hand = &shown["interventions"][0];
        assert_eq!(by_hand["what"], what);
        assert_eq!(by_hand["uid"], 1000);
        assert_eq!(by_hand["reason"], "the shop was down");
    }
    stage.journal.close();
}

#[tokio::test]
async fn a_change_that_the_state_does_not_have_is_refused_with_the_state() {
    let stage = Stage::new();
    let server = stage.server(operator());
    for (came, refused) in [
        (Came::Delivered, &[0, 1, 2][..]),
        (Came::Claimed, &[0, 1, 2]),
        (Came::Dead, &[1]),
        (Came::Held, &[0]),
        (Came::Head, &[1]),
    ] {
        let name = format!("{came:?}").to_lowercase();
        let id = stage.event(&name, came).await;
        let before = stage.event_shown(id);
        for deed in refused {
            let request = every_change(id)[*deed].clone();
            let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
            assert_eq!(code, "wrong_state", "{came:?} {deed}");
            let says = format!("event {id} is {name}: only one that is ");
            assert!(message.starts_with(&says), "{message}");
        }
        assert_eq!(stage.event_shown(id), before);
    }
    stage.journal.close();
}

#[tokio::test]
async fn an_event_that_is_not_there_is_not_found_by_number_or_delivery() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.event("e1", Came::Head).await;
    let delivery = stage.event_shown(id)["delivery"].clone();
    let show = |id: Value| json!({"command": "callbacks.show", "id": id});
    let shown = ask(&server, READER, show(delivery)).await.unwrap();
    assert_eq!(shown["id"], id);
    let missing = [show(json!(99)), show(json!("priorbank_00"))];
    for request in every_change(99).into_iter().chain(missing) {
        let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
        assert_eq!(code, "not_found");
        assert!(
            message.starts_with("the journal has no event "),
            "{message}"
        );
    }
    stage.journal.close();
}

#[tokio::test]
async fn what_a_person_gives_is_checked_before_it_is_written() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.event("e1", Came::Dead).await;
    let before = stage.event_shown(id);
    for (given, why) in [
        (json!({"reason": " \n"}), "a reason is needed"),
        (json!({"reason": "x".repeat(501)}), "at most 500"),
        (json!({"reason": "a\u{1b}[2Jb"}), "control"),
        (json!({"id": 0}), "a number from 1"),
        (json!({"id": -1}), "a number from 1"),
        (json!({"id": "1"}), "expected i64"),
        (json!({"force": true}), "unknown field"),
    ] {
        for mut request in every_change(id) {
            for (name, value) in given.as_object().unwrap() {
                request[name] = value.clone();
            }
            let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
            assert_eq!(code, "bad_request", "{given}");
            assert!(message.contains(why), "{given}: {message}");
        }
    }
    assert_eq!(stage.event_shown(id), before);
    stage.journal.close();
}

#[tokio::test]
async fn without_a_journal_every_command_but_rejected_says_that_one_must_be_configured() {
    let server = server(operator(), None, None);
    let list = json!({"command": "callbacks.list"});
    let show = json!({"command": "callbacks.show", "id": 1});
    for request in every_change(1).into_iter().chain([list, show]) {
        let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
        assert_eq!(code, "no_journal");
        assert!(message.contains("`journal` is not configured"), "{message}");
    }
    let rejected = json!({"command": "callbacks.rejected"});
    let (code, _) = ask(&server, OPERATOR, rejected).await.unwrap_err();
    assert_eq!(code, "no_callbacks");
}

#[tokio::test]
async fn rejected_bodies_come_byte_for_byte_with_what_was_signed() {
    let bodies = [
        &b"{\"a\": 1}\r\n"[..],
        b"\xff\x00",
        b"",
        &[b'x'; REJECTED_TEXT_MAX + 1],
        &[b'x'; REJECTED_MAX + 1],
    ];
    let held: Vec<_> = bodies.iter().map(|body| rejected_one(body)).collect();
    let server = server(operator(), None, Some(Arc::new(move || held.clone())));
    let request = json!({"command": "callbacks.rejected"});
    let answer = ask(&server, OPERATOR, request).await.unwrap();
    let rejected = answer["rejected"].as_array().unwrap();
    let texts = [Some("{\"a\": 1}\r\n"), None, Some(""), None, None];
    for ((one, body), text) in rejected.iter().zip(bodies).zip(texts) {
        assert_eq!(one["headers"], json!([["X-Signature", "c2ln"]]));
        assert_eq!(
            (&one["source"], &one["reason"]),
            (&json!("priorbank"), &json!("mismatch"))
        );
        assert_eq!(
            (&one["at"], &one["bytes"]),
            (&json!(NOW.0), &json!(body.len()))
        );
        let cut = body.len() > REJECTED_MAX;
        assert_eq!(one["body"]["cut"], cut);
        assert_eq!(one["body"].get("text").and_then(Value::as_str), text);
        let given = Base64::decode_vec(one["body"]["base64"].as_str().unwrap()).unwrap();
        assert_eq!(given, body[..body.len().min(REJECTED_MAX)]);
    }
    assert_eq!(rejected.len(), bodies.len());
}

#[test]
fn what_was_rejected_fits_the_answer_that_commands_read_however_many_callbacks_there_are() {
    for count in [REJECTED, 5 * REJECTED] {
        for length in [
            REJECTED_TEXT_MAX,
            REJECTED_TEXT_MAX * REJECTED / count,
            REJECTED_MAX,
        ] {
            let rejected = vec![rejected_one(&vec![0; length]); count];
            let told = rejections(&rejected).to_string().len();
            assert!(told < 7_500_000, "{count} of {length}: {told}");
        }
    }
    let few = rejections(&[rejected_one(&[0; REJECTED_MAX])]);
    assert_eq!(few["rejected"][0]["body"]["cut"], false);
}

#[test]
fn a_long_body_is_cut_where_a_character_ends_and_says_so() {
    let text = format!("x{}", "й".repeat(4));
    let cut = body(text.as_bytes(), 4, 4);
    assert_eq!(cut["cut"], true);
    assert_eq!(cut["text"], "xй");
    assert_eq!(
        Base64::decode_vec(cut["base64"].as_str().unwrap())
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn an_event_is_named_by_its_number_or_by_its_delivery() {
    let delivery = format!("prior_bank_{}", "0a".repeat(16));
    assert_eq!(parse_which("17"), Ok(Which::Number(17)));
    assert_eq!(
        parse_which(&delivery),
        Ok(Which::Delivery(delivery.clone()))
    );
    for text in [
        "0",
        "-1",
        "",
        "e1",
        "99999999999999999999",
        "_0a",
        "priorbank_0a",
        &delivery[10..],
    ] {
        assert!(parse_which(text).is_err(), "{text}");
        assert!(parse_id(text).is_err(), "{text}");
    }
}
