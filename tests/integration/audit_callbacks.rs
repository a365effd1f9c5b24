//! The audit log of callbacks: accepted, again, not delivered, delivered, rejected, and what a person did and looked at.

use priorgate::sandbox::CallbackAlgorithm;
use serde_json::{Value, json};

use crate::callbacks::{order, send, setup, start};
use crate::support::audit::{of, ours};
use crate::support::client::Target;
use crate::support::client::post;
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
        let forged = callback.send(&post(
            crate::callbacks::PATH,
            "X-Signature: AAAA\r\n",
            b"{}",
        ));
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
