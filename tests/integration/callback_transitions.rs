//! The tables of `docs/transitions.md`, cell by cell, through a running gate.

use priorgate::sandbox::CallbackAlgorithm;
use serde_json::{Value, json};

use crate::callbacks::{order, send, setup, start};
use crate::support::gate::Gate;
use crate::support::sandbox::SandboxBank;
use crate::support::shop::{Mood, Shop};
use crate::support::until;

/// The rows under a heading: the last status, the event's, and what is done.
fn transitions(heading: &str) -> Vec<(String, String, String)> {
    let table = include_str!("../../docs/transitions.md");
    let (_, table) = table.split_once(heading).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    let heads = rows[0][1..].to_vec();
    let mut all = Vec::new();
    for row in &rows[2..] {
        for (head, cell) in heads.iter().zip(&row[1..]) {
            all.push((row[0].clone(), head.clone(), cell.clone()));
        }
    }
    assert_eq!(all.len(), 30);
    all
}

fn latest(gate: &Gate, session: &str) -> Value {
    let ask = json!({"command": "callbacks.list", "session": session});
    let listed = gate.tell(&ask).unwrap();
    listed["result"]["events"][0].clone()
}

fn every_cell(heading: &str, policy: &str) {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let setup = setup(&bank, shop.addr(), algorithm);
    let path = "    path: /bank/callback\n";
    let setup = setup.edit(path, &format!("{path}    transitions: {policy}\n"));
    let gate = start(&bank, setup);
    let accepted = || gate.status()["callbacks"][0]["accepted"].clone();
    let table = transitions(heading);
    let session = |last: &str, event: &str| format!("{last}-{event}");
    let firsts = table.iter().filter(|(last, ..)| last != "none");
    for (last, event, _) in firsts.clone() {
        send(&bank, order(&session(last, event), last));
    }
    until("the first of each is with the shop", || {
        shop.acknowledged().len() == firsts.clone().count()
    });
    for (last, event, _) in &table {
        send(&bank, order(&session(last, event), event));
    }
    let delivered = table
        .iter()
        .filter(|(_, _, cell)| !matches!(&**cell, "held" | "superseded"))
        .count();
    let sent = firsts.count() + table.len();
    until("all are taken", || accepted() == sent);
    until("what may be delivered is", || {
        shop.acknowledged().len() == sent - table.len() + delivered
    });
    for (last, event, cell) in &table {
        let latest = latest(&gate, &session(last, event));
        let (state, mark) = match &**cell {
            "held" | "superseded" => (&**cell, "stale"),
            mark => ("delivered", mark),
        };
        assert_eq!(latest["state"], state, "{last} → {event}: {latest}");
        assert_eq!(latest["mark"], mark, "{last} → {event}");
    }
    // And the shop was told so.
    for delivery in shop.acknowledged() {
        let body = delivery.json();
        let name = body["session_id"].as_str().unwrap();
        let (last, event) = name.split_once('-').unwrap();
        if last != "none" && last != event && body["status"] == event {
            let row = table.iter().find(|row| (&*row.0, &*row.1) == (last, event));
            assert_eq!(
                delivery.header("priorgate-transition"),
                row.unwrap().2,
                "{name}"
            );
        }
    }
}

#[test]
fn every_cell_of_hold_is_what_the_running_gate_does() {
    every_cell("## `transitions: hold`", "hold");
}

#[test]
fn every_cell_of_pass_is_what_the_running_gate_does() {
    every_cell("## `transitions: pass`", "pass");
}

#[test]
fn an_approval_behind_a_refund_on_its_way_is_queued_and_held_once_the_shop_has_the_refund() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    let accepted = || gate.status()["callbacks"][0]["accepted"].clone();
    send(&bank, order("s1", "APPROVED"));
    until("the approval is with the shop", || {
        shop.acknowledged().len() == 1
    });
    shop.mood(Mood::Broken);
    send(&bank, order("s1", "REFUNDED"));
    until("it is taken", || accepted() == 2);
    send(&bank, order("s1", "APPROVED"));
    until("it is taken", || accepted() == 3);
    let queued = latest(&gate, "s1");
    assert_eq!(
        (&queued["state"], &queued["mark"]),
        (&json!("waiting"), &json!("conflict"))
    );
    shop.mood(Mood::Good);
    until("it is held", || latest(&gate, "s1")["state"] == "held");
    let statuses: Vec<Value> = shop
        .acknowledged()
        .iter()
        .map(|d| d.json()["status"].clone())
        .collect();
    assert_eq!(statuses, ["APPROVED", "REFUNDED"]);
}
