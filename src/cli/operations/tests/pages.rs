//! What people see of documents, wherever they came from.

use serde_json::{Value, json};

use super::super::{show, table};
use crate::cli::journal_file::Source;
use crate::cli::style::Style;

fn operation(number: u8, state: &str, more: Value) -> Value {
    let mut operation = json!({
        "id": format!("op_01a1ed6de000{number:08x}"), "bank": "priorbank", "route": "refund", "state": state,
        "listening": false, "delivered": false, "holds_subject": false, "attempt": 1,
        "reserved_at": 1_795_000_000_123_i64, "sent_at": null, "ended_at": null, "code": null, "status": null,
        "uid": 33, "request_id": "r-1", "key_sha256": "aa".repeat(32), "fingerprint_sha256": "bb".repeat(32),
        "subject_sha256": "cc".repeat(32), "a_newer_gates": "member",
    });
    for (name, value) in more.as_object().unwrap() {
        operation[name] = value.clone();
    }
    operation
}

fn unknown(number: u8) -> Value {
    let more = json!({"holds_subject": true, "code": "bank_timeout"});
    operation(number, "unknown", more)
}

fn listed(operations: &[Value], frozen: bool) -> String {
    let document = json!({"operations": operations, "frozen": frozen});
    let mut out = Vec::new();
    let list = serde_json::from_value(document).unwrap();
    table::print(&list, 4, Style::plain(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn shown(mut operation: Value, more: Value, source: Source) -> String {
    operation["answer"] = Value::Null;
    operation["interventions"] = json!([]);
    for (name, value) in more.as_object().unwrap() {
        operation[name] = value.clone();
    }
    let mut out = Vec::new();
    let document = serde_json::from_value(operation).unwrap();
    show::print(&document, Style::plain(), &mut out).unwrap();
    show::advise(&document, source, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_list_is_a_table_and_under_it_what_waits_for_a_person() {
    let undelivered = json!({"holds_subject": true, "status": 201, "attempt": 2});
    let text = listed(
        &[
            unknown(4),
            operation(3, "done", undelivered),
            operation(
                2,
                "done",
                json!({"delivered": true, "status": 200, "route": "create"}),
            ),
        ],
        false,
    );
    let expected = "\
ID                       STATE    BANK       ROUTE   WHEN                  STATUS  ATTEMPT  NOTE
op_01a1ed6de00000000004  unknown  priorbank  refund  2026-11-18T11:06:40Z  -       1        bank_timeout, holds its subject
op_01a1ed6de00000000003  done     priorbank  refund  2026-11-18T11:06:40Z  201     2        nobody got the answer, holds its subject
op_01a1ed6de00000000002  done     priorbank  create  2026-11-18T11:06:40Z  200     1

1 is unknown: the bank may have acted, and nothing is tried again by itself. Ask the bank, with the
subject and the time that `priorgate operations show op_01a1ed6de00000000004` shows, and then say what it has:
  priorgate operations resolve op_01a1ed6de00000000004 --as done|not-sent --reason TEXT

1 is done, but nobody got the bank's answer. The shop gets it by asking again under the same key;
if it never will, let go of the subject:
  priorgate operations release op_01a1ed6de00000000003 --reason TEXT
";
    assert_eq!(text, expected);
}

#[test]
fn a_list_says_when_there_is_nothing_or_more_or_everything_is_frozen() {
    assert_eq!(listed(&[], false), "no operations\n");
    let text = listed(&[], true);
    assert!(
        text.starts_with("frozen: every guarded request is refused"),
        "{text}"
    );
    let listening = operation(9, "unknown", json!({"listening": true}));
    let text = listed(&[listening, unknown(8), unknown(7), unknown(6)], false);
    for line in [
        "NOTE\n",
        "  listening\n",
        "\nThere may be older ones: --before op_01a1ed6de00000000006\n",
        "\n3 are unknown: the bank may have acted",
        "resolve ID --as done|not-sent",
        "\n1 is unknown and listening: ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_shown_operation_has_every_field_and_the_next_step() {
    let more = json!({
        "holds_subject": true, "code": "bank_timeout", "subject": "/session_id=\"s-1\"",
        "sent_at": 1_795_000_001_000_i64, "ended_at": 1_795_000_061_000_i64,
    });
    let text = shown(operation(4, "unknown", more), json!({}), Source::Running);
    let expected = "\
op_01a1ed6de00000000004  unknown
  bank           priorbank
  route          refund
  subject        /session_id=\"s-1\"
  attempt        1
  reserved       2026-11-18T11:06:40Z
  sent           2026-11-18T11:06:41Z
  ended          2026-11-18T11:07:41Z
  code           bank_timeout
  holds          its subject: requests for it under other keys are refused
  caller         uid 33
  request id     r-1
  key sha256     KEY
  request sha256 REQUEST
  subject sha256 SUBJECT

The bank may have acted, and nothing is tried again by itself. Ask priorbank whether it has this request:
  refund, for /session_id=\"s-1\", sent about 2026-11-18T11:06:41Z
If it has, its key replays the answer that you give:
  priorgate operations resolve op_01a1ed6de00000000004 --as done --reason TEXT [--status N] [--body FILE]
If it has not, the same request may run again under its key:
  priorgate operations resolve op_01a1ed6de00000000004 --as not-sent --reason TEXT
";
    let expected = expected
        .replace("KEY", &"aa".repeat(32))
        .replace("REQUEST", &"bb".repeat(32))
        .replace("SUBJECT", &"cc".repeat(32));
    assert_eq!(text, expected);
}

#[test]
fn a_resolved_operation_shows_who_said_so_and_what_its_key_replays() {
    let by_hand = json!({
        "at": 1_795_000_100_000_i64, "what": "resolved as done", "uid": 0, "pid": 7, "login_uid": 1000,
        "reason": "the bank's list has it",
    });
    let answer = json!({
        "status": 201, "content_type": "application/json", "bytes": 3000, "body": "{\n\"a\": 1", "body_cut": true,
    });
    let more = json!({"answer": answer, "interventions": [by_hand]});
    let done = operation(4, "done", json!({"delivered": true}));
    let text = shown(done, more, Source::Running);
    for line in [
        "  answer         201 of application/json, 3000 bytes\n",
        "  delivered      to a caller, or a person has seen to it\n",
        "  by hand        2026-11-18T11:08:20Z resolved as done (uid 0, logged in as uid 1000, pid 7): the bank's list has it\n",
        "\nbody:\n  {\n  \"a\": 1\n  … and more",
        "Nothing is to be done.",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn every_state_says_what_it_means_with_a_gate_and_without() {
    use Source::{Down, Running};
    let listening = json!({"listening": true});
    let delivered = json!({"delivered": true});
    let none = json!({});
    for (state, more, source, says) in [
        ("reserved", &none, Running, "It is running"),
        ("reserved", &none, Down, "the next start makes it not_sent"),
        (
            "sent",
            &none,
            Running,
            "ends by itself, after timeouts.settle",
        ),
        ("sent", &none, Down, "the next start makes it unknown"),
        (
            "unknown",
            &listening,
            Running,
            "still listens for its answer",
        ),
        ("unknown", &listening, Down, "start the gate, then ask the"),
        ("unknown", &none, Running, "which operators see"),
        (
            "done",
            &none,
            Running,
            "operations release op_01a1ed6de00000000001",
        ),
        ("done", &delivered, Running, "its key replays the answer"),
        ("refused", &none, Running, "done nothing"),
        ("not_sent", &none, Running, "has read nothing"),
    ] {
        let text = shown(operation(1, state, more.clone()), json!({}), source);
        assert!(text.contains(says), "{state} {source:?}: {text}");
    }
}

#[test]
fn nothing_from_the_journal_steers_the_terminal() {
    let evil = "a\u{1b}]0;owned\u{7}\r\nb\u{202e}c";
    let mut operation = operation(
        1,
        "unknown",
        json!({"subject": evil, "holds_subject": true}),
    );
    for name in [
        "id",
        "bank",
        "route",
        "code",
        "request_id",
        "key_sha256",
        "subject_sha256",
    ] {
        operation[name] = json!(evil);
    }
    let by_hand =
        json!({"at": 0, "what": evil, "uid": 0, "pid": null, "login_uid": null, "reason": evil});
    let answer = json!({"status": 200, "content_type": evil, "bytes": 1, "body": evil});
    let more = json!({"answer": answer, "interventions": [by_hand]});
    let other = self::operation(2, evil, json!({}));
    for text in [
        listed(&[operation.clone(), other.clone()], false),
        shown(operation, more, Source::Running),
        shown(other, json!({}), Source::Running),
    ] {
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
        assert!(text.contains("a\u{fffd}]0;owned\u{fffd}"), "{text}");
    }
}
