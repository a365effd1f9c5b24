//! The audit log of a real gate: each edge of an operation, each command, each request and each refusal leaves its record,
//! and nothing of what they carried.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::audit::{of, ours, records};
use crate::support::gate::{Gate, Setup};
use crate::support::operation::{REFUND, ask, bank, operation, refund};
use crate::support::until;
use crate::support::world::World;

/// A gate with guarded routes and an audit log.
pub(crate) fn audited(world: &World, port: u16) -> Setup {
    world
        .setup(port)
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 2s}")
        .top("audit: {file: audit.jsonl}")
}

pub(crate) fn log(gate: &Gate) -> PathBuf {
    gate.path().join("audit.jsonl")
}

/// The states through which each operation went, by its id.
fn states(records: &[Value], id: &str) -> Vec<String> {
    let of = records
        .iter()
        .filter(|record| record["event"] == "operation" && record["id"] == id);
    of.map(|record| {
        let delivered = if record["delivered"] == true {
            " delivered"
        } else {
            ""
        };
        format!("{}{delivered}", record["state"].as_str().unwrap())
    })
    .collect()
}

#[test]
fn every_edge_of_an_operation_and_every_command_is_on_record_and_no_value_is() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    let done = ask(
        &gate.unix(),
        REFUND,
        "key-of-one",
        &refund("session-of-one", 100, "answer"),
    );
    let (done, _) = operation(&done);
    let lost = ask(
        &gate.unix(),
        REFUND,
        "key-of-two",
        &refund("session-of-two", 100, "lose"),
    );
    let (lost, _) = operation(&lost);
    let command = json!({"command": "operations.resolve", "id": lost, "as": "not_sent", "reason": "asked\u{202e} Anna"});
    assert_eq!(gate.tell(&command).unwrap()["ok"], true, "{command}");
    let shown = json!({"command": "operations.show", "id": done, "body": true});
    assert_eq!(gate.tell(&shown).unwrap()["ok"], true);
    let reload = json!({"command": "reload"});
    assert_eq!(gate.tell(&reload).unwrap()["ok"], true);
    gate.finish();

    let log = log(&gate);
    let all = records(&log);
    assert_eq!(
        states(&all, &done),
        ["reserved", "sent", "done", "done delivered"]
    );
    assert_eq!(
        states(&all, &lost),
        ["reserved", "sent", "unknown", "not_sent"]
    );
    let commands: Vec<_> = of(&log, "command")
        .iter()
        .map(|record| {
            (
                record["what"].clone(),
                record["about"].clone(),
                record["reason"].clone(),
            )
        })
        .collect();
    let uid = rustix::process::getuid().as_raw();
    assert!(
        of(&log, "command")
            .iter()
            .all(|record| record["uid"] == uid)
    );
    let expected = [
        (
            json!("resolved as not_sent"),
            json!(lost),
            json!("asked\u{202e} Anna"),
        ),
        (json!("operations show --body"), json!(done), Value::Null),
        (json!("reload"), Value::Null, Value::Null),
    ];
    assert_eq!(commands, expected);
    assert_eq!(of(&log, "reload").len(), 1);
    assert_eq!(all.first().unwrap()["event"], "start");
    let ends: Vec<_> = all
        .iter()
        .rev()
        .take(2)
        .map(|record| record["event"].clone())
        .collect();
    assert_eq!(ends, ["checkpoint", "stop"]);

    // Rows of the journal, each once and without a hole.
    let rows: Vec<_> = all
        .iter()
        .filter_map(|record| record["row"].as_i64())
        .collect();
    assert_eq!(
        rows,
        (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>()
    );
    let text = std::fs::read_to_string(&log).unwrap();
    for value in ["key-of-", "session-of-", "refund_id", "\u{202e}"] {
        assert!(!text.contains(value), "{value} is in the log");
    }
    let said = ours(None, &[log], &[]);
    assert!(said.good, "{}", said.text);
}

#[test]
fn an_ordinary_request_is_on_record_and_refusals_are_counted_by_the_second() {
    let world = World::new();
    let bank = world.good_bank();
    let listen = [
        "{unix: gate.sock, callers: [4000000]}",
        "{tcp: \"127.0.0.1:0\", open_to_every_local_user: true}",
    ];
    let mut gate = world
        .setup(bank.port())
        .listen(&listen)
        .top("audit: {file: audit.jsonl}")
        .start();
    let answer = gate
        .tcp()
        .send(b"GET /installment/secret-id HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.status, 200);
    for _ in 0..20 {
        let refused = gate
            .unix()
            .send(b"GET /installment/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(refused.status, 403);
    }
    gate.finish();
    let log = log(&gate);
    let requests = of(&log, "request");
    assert_eq!(requests.len(), 1, "{requests:#?}");
    let request = &requests[0];
    for (member, value) in [
        ("bank", json!("bank")),
        ("route", json!("status")),
        ("method", json!("GET")),
        ("outcome", json!("answered")),
        ("status", json!(200)),
        ("journal", Value::Null),
    ] {
        assert_eq!(request[member], value, "{member}");
    }
    let denied = of(&log, "denied");
    let times: u64 = denied
        .iter()
        .map(|record| record["times"].as_u64().unwrap())
        .sum();
    assert_eq!(times, 20);
    assert!(
        denied.len() < 20,
        "{} records for one second's refusals",
        denied.len()
    );
    let uid = rustix::process::getuid().as_raw();
    assert!(
        denied
            .iter()
            .all(|record| record["uid"] == uid && record["code"] == "caller_denied")
    );
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("secret-id"), "a path is in the log");
}

#[test]
fn what_a_crash_left_of_a_line_is_cut_off_and_on_record() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    until("the log has it", || {
        !of(&log(&gate), "operation").is_empty()
    });
    gate.kill();
    let file = log(&gate);
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"seq\":99,\"at\":\"20");
    std::fs::write(&file, &text).unwrap();
    let mut gate = gate.crash_and_restart();
    gate.finish();
    let starts = of(&file, "start");
    assert_eq!((starts.len(), &starts[1]["after_crash"]), (2, &json!(true)));
    let mut gate = gate.crash_and_restart();
    gate.finish();
    assert_eq!(of(&file, "start")[2]["after_crash"], Value::Null);
    let repaired = of(&file, "repaired");
    assert_eq!(repaired.len(), 1);
    assert_eq!(repaired[0]["cut_off_bytes"], 18);
    let said = ours(None, &[file], &[]);
    assert!(said.good, "{}", said.text);
}

#[test]
fn a_last_record_that_somebody_edited_keeps_the_gate_from_starting() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    gate.finish();
    let file = log(&gate);
    let text = std::fs::read_to_string(&file).unwrap();
    let at = text.rfind("\"event\":\"checkpoint\"").unwrap();
    std::fs::write(
        &file,
        format!(
            "{}{}",
            &text[..at],
            text[at..].replacen("\"of\":2", "\"of\":3", 1)
        ),
    )
    .unwrap();
    let output = gate.command(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("does not end with a record of ours"),
        "{told}"
    );
}

#[test]
fn the_file_is_for_its_owner_and_its_group_and_the_status_tells_of_it() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let bank = bank(&world);
    let gate = audited(&world, bank.port()).start();
    let file = log(&gate);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    until("the status has the last row", || {
        gate.status()["audit"]["journal_row"].as_i64() >= Some(4)
    });
    let audit = gate.status()["audit"].clone();
    assert_eq!(audit["failing"], Value::Null);
    assert_eq!(audit["signs"], false);
    let warnings = gate.status()["warnings"].to_string();
    assert!(
        warnings.contains("the audit log is not signed"),
        "{warnings}"
    );
    let shown = gate.command(&["audit", "show", "--event", "operation", "--last", "1"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("state=done") && shown.lines().count() == 1,
        "{shown}"
    );
}

#[test]
fn a_command_that_somebody_may_not_give_is_on_record_and_so_is_a_probe() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).operators("4000000").start();
    for _ in 0..3 {
        let refused = gate.tell(&json!({"command": "reload"})).unwrap();
        assert_eq!(refused["error"]["code"], "operator_required");
    }
    let file = log(&gate);
    let times = || {
        let denied = of(&file, "denied");
        assert!(
            denied
                .iter()
                .all(|record| record["code"] == "operator_required")
        );
        denied
            .iter()
            .map(|record| record["times"].as_u64().unwrap())
            .sum::<u64>()
    };
    until("the log has them", || times() == 3);
    assert_eq!(
        of(&file, "denied")[0]["uid"],
        rustix::process::getuid().as_raw()
    );
    gate.finish();

    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(gate.tell(&json!({"command": "probe"})).unwrap()["ok"], true);
    gate.finish();
    assert_eq!(of(&log(&gate), "command")[0]["what"], "probe");
}
