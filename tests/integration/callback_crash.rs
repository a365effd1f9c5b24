//! The crash test of callbacks: the bank sends, the shop has its moods, and the gate is killed at every edge; at the end
//! the bank's books and the shop's agree.
//!
//! `PRIORGATE_CRASH_CYCLES=700 cargo test callback_crash -- --nocapture` for longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use priorgate::sandbox::{CallbackAlgorithm, CallbackUrl};

use crate::callbacks::{PATH, order, send, setup};
use crate::support::failpoints::armed;
use crate::support::gate::Gate;
use crate::support::sandbox::SandboxBank;
use crate::support::shop::{Mood, Shop};

/// Where the gate dies; `random` is a SIGKILL from outside.
const EDGES: [&str; 7] = [
    "accept.before_commit",
    "accept.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "settle.before_commit",
    "settle.after_commit",
    "random",
];
const HITS_EACH: usize = 5;
/// The longest that a cycle waits for its edge, and that the end may take.
const CYCLE: Duration = Duration::from_secs(6);
const END: Duration = Duration::from_secs(120);
const SESSIONS: usize = 8;

/// What the table of transitions lets be kept without a delivery: a `PENDING` that a later event made pointless.
fn superseded(gate: &Gate) -> BTreeSet<String> {
    let ask = json!({"command": "callbacks.list", "states": ["superseded"], "limit": 1_000});
    let listed = gate.tell(&ask).unwrap();
    let events = listed["result"]["events"].as_array().unwrap().iter();
    let pending = events.inspect(|event| assert_eq!(event["status"], "PENDING"));
    pending
        .map(|event| event["event"].as_str().unwrap().to_owned())
        .collect()
}

fn settled(bank: &SandboxBank, shop: &Shop, gate: &Gate) -> bool {
    let mut known = superseded(gate);
    known.extend(acknowledged(shop).into_iter().map(|(id, _)| id));
    let sent = bank.sandbox().callbacks();
    sent.iter()
        .all(|event| event.accepted > 0 && known.contains(&event.event_id))
}

/// Event id and session of each acknowledged delivery, in their order.
fn acknowledged(shop: &Shop) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    shop.acknowledged()
        .iter()
        .map(|delivery| {
            let body = delivery.json();
            (text(&body["event_id"]), text(&body["session_id"]))
        })
        .collect()
}

/// One life of the gate, while the bank goes on sending. Gives whether it died at its edge.
fn live(bank: &SandboxBank, shop: &Shop, gate: &mut Gate, edge: &str, cycle: usize) -> bool {
    // What the shop refuses settles as well, as a retry.
    let slow = Mood::Slow(Duration::from_millis(300));
    let hanging = Mood::Slow(Duration::from_millis(2_200));
    let moods = [
        Some(Mood::Good),
        Some(Mood::Forgetful),
        None,
        Some(Mood::Broken),
        Some(slow),
        Some(hanging),
    ];
    match moods[cycle % moods.len()] {
        Some(mood) => shop.mood(mood),
        None => shop.close(),
    }
    let until = match edge {
        "random" => Instant::now() + Duration::from_millis(20 + 13 * (cycle as u64 % 7)),
        _ => Instant::now() + CYCLE,
    };
    let mut sent = 0;
    while Instant::now() < until && !gate.has_ended() {
        if sent < 6 {
            let session = format!("s{}", (cycle + sent) % SESSIONS);
            send(
                bank,
                order(&session, ["PENDING", "APPROVED"][(cycle + sent / 2) % 2]),
            );
            sent += 1;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let hit = edge == "random" || gate.has_ended();
    gate.kill();
    if moods[cycle % moods.len()].is_none() {
        shop.reopen();
    }
    hit
}

#[test]
fn whatever_dies_when_every_callback_that_the_bank_was_told_of_reaches_the_shop_in_order() {
    let cycles = std::env::var("PRIORGATE_CRASH_CYCLES")
        .ok()
        .and_then(|cycles| cycles.parse().ok())
        .unwrap_or(6 * EDGES.len());
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    // The shop that hangs does so for longer than the delivery's deadline, and for less than it is left alone then.
    let setup = setup(&bank, shop.addr(), algorithm);
    let mut gate = setup
        .edit("timeout: 2s", "timeout: 2s\n      after_timeout: 4s")
        .start();
    let url = CallbackUrl::unix(&gate.path().join("callback.sock"), PATH).unwrap();
    bank.sandbox().redirect_callbacks(url).unwrap();
    let mut hits: BTreeMap<&str, usize> = EDGES.iter().map(|&edge| (edge, 0)).collect();
    for cycle in 0..cycles {
        let edge = EDGES[cycle % EDGES.len()];
        let failpoint = (edge != "random").then(|| format!("{edge}@{}:kill", 1 + cycle % 3));
        // With a backlog it may die before it is ready.
        gate = gate.crash_and_restart_at_once(|command| armed(&command, failpoint.as_deref()));
        if live(&bank, &shop, &mut gate, edge, cycle) {
            *hits.get_mut(edge).unwrap() += 1;
        }
    }
    shop.mood(Mood::Good);
    let gate = gate.crash_and_restart_with(|command| armed(&command, None));
    let until = Instant::now() + END;
    while !settled(&bank, &shop, &gate) && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let (sent, count) = (bank.sandbox().callbacks(), shop.count());
    let told: Vec<_> = sent.iter().filter(|event| event.accepted > 0).collect();
    let superseded = superseded(&gate);
    // One that was acknowledged, and written down as such, is not delivered by a later life.
    let gate = gate.crash_and_restart_with(|command| armed(&command, None));
    std::thread::park_timeout(Duration::from_millis(500));
    let arrived = acknowledged(&shop);
    assert_eq!(shop.count(), count, "delivered again after a restart");
    let lost: Vec<_> = told
        .iter()
        .filter(|event| !superseded.contains(&event.event_id))
        .filter(|event| !arrived.iter().any(|(id, _)| *id == event.event_id))
        .map(|event| &event.event_id)
        .collect();
    let again = arrived.len()
        - arrived
            .iter()
            .map(|(id, _)| id)
            .collect::<BTreeSet<_>>()
            .len();
    println!(
        "{cycles} cycles; kills: {hits:?}; {} sent, {} accepted, {} acknowledged, {} superseded, losses = {}, delivered again = {again}",
        sent.len(),
        told.len(),
        arrived.len(),
        superseded.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "told the bank that it has them: {lost:?}");
    assert_eq!(told.len(), sent.len(), "the bank sends until it is told");
    // An acknowledgement whose commit died with the process is the one reason to deliver again.
    assert!(again <= 4 * cycles, "{again} again in {cycles} kills");
    assert_eq!(
        shop.most_of_a_session(),
        1,
        "one at a time for each session"
    );
    for session in 0..SESSIONS {
        let name = format!("s{session}");
        let order: Vec<_> = sent
            .iter()
            .filter(|event| event.session_id == name)
            .collect();
        let mut first = Vec::new();
        for (id, of) in arrived.iter().filter(|(_, of)| *of == name) {
            assert_eq!(*of, name);
            if !first.contains(id) {
                first.push(id.clone());
            }
        }
        let mut expected: Vec<_> = order.iter().map(|event| event.event_id.clone()).collect();
        expected.retain(|id| !superseded.contains(id));
        // One that was delivered, but whose word died with the gate, may have been made pointless before the next try.
        first.retain(|id| !superseded.contains(id));
        assert_eq!(first, expected, "session {name} out of order");
    }
    if cycles >= EDGES.len() * HITS_EACH {
        let missed: Vec<_> = hits.iter().filter(|(_, hits)| **hits < HITS_EACH).collect();
        assert!(
            missed.is_empty(),
            "edges that were not hit often enough: {missed:?}"
        );
    }
    drop(gate);
}
