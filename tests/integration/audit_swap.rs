//! Two journals that take turns under one audit log: each time nothing runs until the one that is there was told what the
//! other has done, and no refund is done twice.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::audit::{audited, log};
use crate::support::audit::{of, ours};
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, ask, bank, expected, refund, seen};
use crate::support::shim::Shim;
use crate::support::until;
use crate::support::world::World;

/// Moves the journal of a gate that was ended.
fn away(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("journal.db{suffix}");
        if from.join(&name).exists() {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
            fs::remove_file(from.join(&name)).unwrap();
        }
    }
}

/// One key is one refund of one session.
fn told(gate: &Gate, key: &str) -> (u16, String, String, String) {
    seen(&ask(&gate.unix(), REFUND, key, &refund(key, 100, "answer")))
}

fn reconcile(gate: &Gate) -> Value {
    let command = json!({"command": "operations.reconcile", "reason": "the other journal is back"});
    gate.tell(&command).unwrap()
}

#[test]
fn journals_that_are_swapped_back_and_forth_are_doubted_each_time_and_double_nothing() {
    let world = World::new();
    let bank = bank(&world);
    let (refused, done) = (
        expected(503, "journal_unavailable", "not_sent", ""),
        expected(200, "", "answered", "done"),
    );
    let unknown = expected(409, "outcome_unknown", "unknown", "unknown");
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(told(&gate, "turn-0"), done);
    let stores = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // Whose turn it is: the first journal's at the even turns, the second's, which is new at its first, at the odd ones.
    for turn in 1..=5 {
        gate.finish();
        away(gate.path(), stores[(turn + 1) % 2].path());
        away(stores[turn % 2].path(), gate.path());
        gate = gate.crash_and_restart();
        let (last, this) = (format!("turn-{}", turn - 1), format!("turn-{turn}"));
        assert_eq!(gate.status()["journal"]["doubted"], true, "{turn}");
        for key in [&last, &this] {
            assert_eq!(told(&gate, key), refused, "{turn} {key}");
        }
        // Another start changes nothing: the log ends with this journal's records by now.
        gate = gate.crash_and_restart();
        assert_eq!(told(&gate, &last), refused, "{turn}");
        let said = reconcile(&gate);
        // At the second journal's first turn everything is new to it; later on the last turn's is.
        assert_eq!(said["result"]["added"], 1, "{turn}: {said}");
        assert_eq!(told(&gate, &last), unknown, "{turn}");
        assert_eq!(told(&gate, &this), done, "{turn}");
        assert_eq!(
            bank.requests().len(),
            turn + 1,
            "a refund was done twice at turn {turn}"
        );
    }
    gate.finish();
    assert_eq!(of(&log(&gate), "doubt").len(), 10);
    let said = ours(None, &[log(&gate)], &[]);
    assert!(said.good, "{}", said.text);
}

#[test]
fn nothing_is_reconciled_while_the_log_is_not_written() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(told(&gate, "k1").0, 200);
    gate.finish();
    let elsewhere = tempfile::tempdir().unwrap();
    away(gate.path(), elsewhere.path());
    // What the shim calls the database is the log here: not even the start of the next gate gets onto its disk.
    let shim = Shim::new(&log(&gate)).while_armed("db-write:EIO");
    shim.arm();
    let gate = gate.crash_and_restart_with(|command| shim.over(command));
    until("the status says so", || {
        gate.status()["audit"]["failing"] != Value::Null
    });
    let said = reconcile(&gate);
    let message = said["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the audit log is not written"), "{said}");
    assert_eq!(told(&gate, "k2").0, 503);
    shim.disarm();
    until("the log is written again", || {
        gate.status()["audit"]["failing"] == Value::Null
    });
    assert_eq!(reconcile(&gate)["result"]["added"], 1);
    assert_eq!(told(&gate, "k2").0, 200);
}
