//! What people see of documents, wherever they came from.

use serde_json::{Value, json};

use super::super::{rejected, show, table};
use crate::cli::journal_file::Source;
use crate::cli::style::Style;

fn event(id: i64, state: &str, more: Value) -> Value {
    let mut event = json!({
        "id": id, "source": "priorbank", "event": format!("e{id}"), "event_hash": "aaaaaaaaaaaa", "session": "s-1",
        "session_hash": "bbbbbbbbbbbb", "session_known": true, "status": "APPROVED", "state": state,
        "mark": "expected", "released": false, "key_id": "bank-2026", "delivery": "priorbank_0a", "attempts": 0,
        "times_received": 1, "received_at": 1_795_000_000_123_i64, "next_at": null, "refused_since": null,
        "ended_at": null, "last_error": null, "content_type": "application/json", "bytes": 31,
        "a_newer_gates": "member",
    });
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn listed(events: &[Value]) -> String {
    let mut out = Vec::new();
    let list = serde_json::from_value(json!({"events": events})).unwrap();
    table::print(&list, 5, Style::plain(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn shown(mut event: Value, more: Value, source: Source) -> String {
    event["interventions"] = json!([]);
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    let mut out = Vec::new();
    let document = serde_json::from_value(event).unwrap();
    show::print(&document, Style::plain(), &mut out).unwrap();
    show::advise(&document, source, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn told(rejections: Value) -> String {
    let mut out = Vec::new();
    let rejected: Vec<_> = serde_json::from_value(rejections).unwrap();
    rejected::print(&rejected, None, Style::plain(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_list_is_a_table_and_under_it_what_waits_for_a_person() {
    let failed = json!({
        "attempts": 12, "last_error": "answered 500 Internal Server Error, which is no acknowledgement of anything",
    });
    let trying = json!({"attempts": 1, "next_at": 1_795_000_060_000_i64, "mark": "conflict", "session": null});
    let nobodys =
        json!({"session": null, "session_known": false, "status": null, "times_received": 3});
    let text = listed(&[
        event(4, "held", json!({"status": "REFUNDED", "mark": "stale"})),
        event(3, "dead", failed),
        event(2, "head", trying),
        event(1, "delivered", nobodys),
    ]);
    let expected = "\
ID  STATE      CALLBACK   SESSION        STATUS    RECEIVED              TRIES  NOTE
4   held       priorbank  s-1            REFUNDED  2026-11-18T11:06:40Z  0      stale
3   dead       priorbank  s-1            APPROVED  2026-11-18T11:06:40Z  12     answered 500 Internal Server Error, which is no acknowledgem…
2   head       priorbank  #bbbbbbbbbbbb  APPROVED  2026-11-18T11:06:40Z  1      conflict, next try 2026-11-18T11:07:40Z
1   delivered  priorbank  -              -         2026-11-18T11:06:40Z  0      came 3 times

1 is held: after what came before it, it would pay or un-pay an order once more, so the shop is not told.
See `priorgate callbacks show 4`, ask the bank, and then let it go to the shop, or give up on it:
  priorgate callbacks release 4 --reason TEXT
  priorgate callbacks drop 4 --reason TEXT

1 is dead: the shop did not acknowledge it in time, and nothing is tried again by itself. See the error with
`priorgate callbacks show 3`, mend the shop, and then try again, or give up on it:
  priorgate callbacks retry 3 --reason TEXT
  priorgate callbacks drop 3 --reason TEXT

1 is in conflict with what came before it, and goes to the shop all the same, marked so. Compare the order in
the shop with the bank's own list:
  priorgate callbacks show 2
";
    assert_eq!(text, expected);
}

#[test]
fn a_list_says_when_there_is_nothing_or_more() {
    assert_eq!(listed(&[]), "no events\n");
    let events: Vec<_> = (1..=5)
        .rev()
        .map(|id| event(id, if id < 3 { "repeated" } else { "held" }, json!({})))
        .collect();
    let text = listed(&events);
    for line in [
        "\nThere may be older ones: --before 1\n",
        "\n3 are held: ",
        "callbacks release ID --reason TEXT",
        "\n2 are repeated: ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_shown_event_has_every_field_and_the_next_step() {
    let more = json!({
        "attempts": 7, "last_error": "answered 500", "ended_at": 1_795_000_061_000_i64,
        "refused_since": 1_795_000_001_000_i64, "times_received": 2, "released": true, "mark": "stale",
    });
    let by_hand = json!({
        "at": 1_795_000_030_000_i64, "what": "released", "uid": 0, "pid": 7, "login_uid": 1000,
        "reason": "the bank says paid",
    });
    let more_shown = json!({
        "interventions": [by_hand],
        "body": {"base64": "ew==", "text": "{\n}", "cut": true},
    });
    let text = shown(event(4, "dead", more), more_shown, Source::Running);
    let expected = "\
4  dead
  callback       priorbank
  session        s-1
  event          e4
  status         APPROVED
  mark           stale
  released       by hand, although it was held
  received       2026-11-18T11:06:40Z, 2 times
  key            bank-2026
  body           31 bytes of application/json
  webhook-id     priorbank_0a
  tries          7
  shop refuses   since 2026-11-18T11:06:41Z: it answers, and that is no acknowledgement
  last error     answered 500
  ended          2026-11-18T11:07:41Z
  session hash   bbbbbbbbbbbb
  event hash     aaaaaaaaaaaa
  by hand        2026-11-18T11:07:10Z released (uid 0, logged in as uid 1000, pid 7): the bank says paid

body:
  {
  }
  … and more: it is too long to be shown whole

The shop did not acknowledge it in time, and nothing is tried again by itself. Later events of its session are
not held back by it. Mend what `last error` says; then try again:
  priorgate callbacks retry 4 --reason TEXT
If the shop is not to have it any more:
  priorgate callbacks drop 4 --reason TEXT
";
    assert_eq!(text, expected);
}

#[test]
fn what_an_event_does_not_have_is_said_and_what_readers_may_not_see_is_a_hash() {
    let more = json!({
        "event": null, "session": null, "status": null, "bytes": null, "content_type": null,
    });
    let text = shown(
        event(1, "delivered", more.clone()),
        json!({}),
        Source::Running,
    );
    for line in [
        "  session        #bbbbbbbbbbbb\n",
        "  event          #aaaaaaaaaaaa\n",
        "  status         none that the configuration knows\n",
        "  body           without a content type; no longer kept\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let mut nobodys = event(1, "head", more);
    nobodys["session_known"] = json!(false);
    let body = json!({"body": {"base64": "/wA=", "cut": false}});
    let text = shown(nobodys, body, Source::Running);
    assert!(text.contains("none in its body"), "{text}");
    assert!(
        text.contains("body:\n  no text; in base64:\n  /wA=\n"),
        "{text}"
    );
}

#[test]
fn every_state_says_what_it_means_with_a_gate_and_without() {
    use Source::{Down, Running};
    let tried = json!({"attempts": 1});
    let none = json!({});
    for (state, more, source, says) in [
        (
            "waiting",
            &none,
            Running,
            "Another event of its session comes first",
        ),
        ("waiting", &none, Down, "the next start goes on with it"),
        ("head", &none, Running, "goes to the shop by itself"),
        ("head", &tried, Running, "priorgate callbacks retry 1"),
        ("head", &tried, Down, "the next start goes on with it"),
        ("claimed", &none, Running, "It is being delivered"),
        ("claimed", &none, Down, "the next start delivers it"),
        ("delivered", &none, Running, "has acknowledged it"),
        ("held", &none, Running, "priorgate callbacks release 1"),
        ("dead", &none, Down, "priorgate callbacks retry 1"),
        ("dropped", &none, Running, "A person gave up on it"),
        (
            "superseded",
            &none,
            Running,
            "A later event of its session says more",
        ),
        ("repeated", &none, Running, "later news of its session"),
    ] {
        let text = shown(event(1, state, more.clone()), json!({}), source);
        assert!(text.contains(says), "{state} {source:?}: {text}");
    }
    let conflict = json!({"mark": "conflict"});
    let text = shown(event(1, "delivered", conflict), json!({}), Running);
    assert!(
        text.contains("It contradicts what came before it"),
        "{text}"
    );
}

#[test]
fn a_rejected_notification_shows_what_was_signed_and_the_beginning_of_its_body() {
    assert_eq!(
        told(json!([])),
        "nothing was rejected since the gate started\n"
    );
    let text = told(json!([
        {
            "at": 1_795_000_000_123_i64, "source": "priorbank", "reason": "mismatch",
            "headers": [["X-Signature", "c2ln"], ["X-Time", "1"]], "bytes": 200,
            "body": {"base64": "", "text": "a".repeat(200), "cut": false},
        },
        {
            "at": 1_795_000_000_123_i64, "source": "priorbank", "reason": "mismatch", "headers": [],
            "bytes": 2, "body": {"base64": "/wA=", "cut": false},
        },
    ]));
    let expected = format!(
        "1  2026-11-18T11:06:40Z  priorbank  mismatch, 200 bytes\n   \
         X-Signature: c2ln\n   X-Time: 1\n   {}…\n\
         2  2026-11-18T11:06:40Z  priorbank  mismatch, 2 bytes\n   \
         (a body that is no text, or a long one)\n\n",
        "a".repeat(160)
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(
        text.ends_with("  priorgate callbacks rejected --save DIR\n"),
        "{text}"
    );
}

#[test]
fn nothing_from_the_journal_or_the_bank_steers_the_terminal() {
    let evil = "a\u{1b}]0;owned\u{7}\r\nb\u{202e}c";
    let mut bad = event(1, "held", json!({}));
    for name in [
        "source",
        "event",
        "event_hash",
        "session",
        "session_hash",
        "status",
        "mark",
        "key_id",
        "delivery",
        "last_error",
        "content_type",
    ] {
        bad[name] = json!(evil);
    }
    let by_hand =
        json!({"at": 0, "what": evil, "uid": 0, "pid": null, "login_uid": null, "reason": evil});
    let more = json!({
        "interventions": [by_hand],
        "body": {"base64": evil, "text": evil, "cut": false},
    });
    let hashed = json!({"session": null, "session_hash": evil, "event": null, "event_hash": evil});
    let other = event(2, evil, hashed);
    let rejection = json!({
        "at": 0, "source": evil, "reason": evil, "headers": [[evil, evil]], "bytes": 1,
        "body": {"base64": "", "text": evil, "cut": false},
    });
    let no_text = json!({"body": {"base64": evil, "cut": false}});
    for text in [
        listed(&[bad.clone(), other.clone()]),
        shown(bad, more, Source::Running),
        shown(other, no_text, Source::Running),
        told(json!([rejection])),
        rejected::quoted(evil),
    ] {
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
        assert!(text.contains("a\u{fffd}]0;owned\u{fffd}"), "{text}");
    }
}
