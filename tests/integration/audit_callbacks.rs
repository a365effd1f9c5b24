//! The audit log of callbacks: accepted, again, not delivered, delivered, rejected, and what a person did and looked at.

use priorgate::sandbox::{CallbackAlgorithm, CallbackUrl};
use serde_json::{Value, json};

use crate::callbacks::{PATH, order, send, setup, start};
use crate::support::audit::{of, ours};
use crate::support::client::{Target, post};
use crate::support::disk::Disk;
use crate::support::failpoints::armed;
use crate::support::operation::{REFUND, ask, expected, refund, seen};
use crate::support::sandbox::SandboxBank;
use crate::support::shop::{Mood, Shop};
use crate::support::until;

#[test]
fn every_edge_of_a_callback_is_on_record_and_nothing_of_what_it_says() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    shop.mood(Mood::Broken);
    let setup = setup(&bank, shop.addr(), algorithm).top("audit: {file: audit.jsonl}");
    let mut gate = start(&bank, setup);
    let file = gate.path().join("audit.jsonl");
    let changes = || -> Vec<Value> {
        of(&file, "callback")
            .iter()
            .map(|record| record["change"].clone())
            .collect()
    };
    send(&bank, order("session-of-somebody", "APPROVED"));
    until("a failed delivery is on record", || {
        changes().contains(&json!("not_delivered"))
    });
    shop.mood(Mood::Good);
    until("the delivery is on record", || {
        changes().contains(&json!("delivered"))
    });
    let callback = Target::Unix(gate.path().join("callback.sock"));
    for _ in 0..10 {
        let forged = callback.send(&post(PATH, "X-Signature: AAAA\r\n", b"{}"));
        assert_eq!(forged.status, 403);
    }
    for command in [
        json!({"command": "callbacks.show", "id": 1, "body": true}),
        json!({"command": "callbacks.rejected"}),
    ] {
        assert_eq!(gate.tell(&command).unwrap()["ok"], true, "{command}");
    }
    gate.finish();

    let seen = changes();
    assert_eq!(seen.first(), Some(&json!("accepted")));
    assert_eq!(seen.last(), Some(&json!("delivered")));
    let accepted = &of(&file, "callback")[0];
    assert_eq!(
        (&accepted["says"], &accepted["callback"]),
        (&json!("APPROVED"), &json!("bank"))
    );
    let commands: Vec<_> = of(&file, "command")
        .iter()
        .map(|record| (record["what"].clone(), record["about"].clone()))
        .collect();
    let expected = [
        (json!("callbacks show --body"), json!("callback 1")),
        (json!("callbacks rejected"), Value::Null),
    ];
    assert_eq!(commands, expected);
    let denied = of(&file, "denied");
    let times: u64 = denied
        .iter()
        .map(|record| record["times"].as_u64().unwrap())
        .sum();
    assert_eq!(times, 10, "{denied:#?}");
    assert!(denied.len() < 10 && denied[0]["callback"] == "bank");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("session-of-somebody"),
        "a session is in the log"
    );
    let said = ours(None, &[file], &[]);
    assert!(said.good, "{}", said.text);
}

/// Rows that the journal of this scenario may owe: eight callbacks' that are delivered.
const BOUND: &str = "16";
const CALLBACKS: usize = 20;

#[test]
fn past_the_bound_callbacks_go_on_guarded_requests_do_not_and_the_gap_is_on_record() {
    let Some(disk) = Disk::mount() else { return };
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let file = disk.path().join("audit.jsonl");
    let setup =
        setup(&bank, shop.addr(), algorithm).top(&format!("audit: {{file: {}}}", file.display()));
    let mut gate = setup.start_with(|command| {
        let mut command = armed(&command, None);
        command.env("PRIORGATE_OUTBOX_MAX", BOUND);
        command
    });
    let url = CallbackUrl::unix(&gate.path().join("callback.sock"), PATH).unwrap();
    bank.sandbox().redirect_callbacks(url).unwrap();
    until("the log was begun", || !of(&file, "start").is_empty());
    disk.fill(0);
    for number in 0..CALLBACKS {
        send(&bank, order(&format!("s{number}"), "APPROVED"));
        // One after the other, so that what finds no place are the last ones.
        until("it is delivered", || shop.count() > number);
    }
    assert_eq!(shop.acknowledged().len(), CALLBACKS);
    assert_eq!(
        gate.status()["callbacks"][0]["accepted"],
        json!(CALLBACKS),
        "{}",
        gate.status()
    );
    let closed = || {
        seen(&ask(
            &gate.unix(),
            REFUND,
            "k",
            &refund("session-1", 100, "answer"),
        ))
    };
    let refused = expected(503, "journal_unavailable", "not_sent", "");
    assert_eq!(closed(), refused);

    disk.empty();
    until("the log is written again", || {
        gate.status()["audit"]["failing"] == Value::Null
    });
    until("the gap is on record", || {
        of(&file, "gap")
            .iter()
            .any(|gap| gap["lost"] == "callbacks")
    });
    until("guarded requests are asked of the bank again", || {
        closed().1 != "journal_unavailable"
    });
    gate.finish();
    let gaps = of(&file, "gap");
    let left_out: u64 = gaps
        .iter()
        .filter(|gap| gap["lost"] == "callbacks")
        .map(|gap| gap["records"].as_u64().unwrap())
        .sum();
    let records = of(&file, "callback").len();
    assert!(left_out > 0 && records > 0, "{left_out} {records}");
    // Each is accepted and delivered: what is not on record is counted.
    assert_eq!(records as u64 + left_out, 2 * CALLBACKS as u64, "{gaps:#?}");
    let said = ours(None, std::slice::from_ref(&file), &[]);
    assert!(said.good, "{}", said.text);
    let _ = std::fs::remove_file(&file);
}
