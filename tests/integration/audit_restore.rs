//! A journal that is not the one that the audit log knows: it is noticed, nothing runs, and no refund is done twice.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::audit::{audited, log};
use crate::support::audit::{of, ours};
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, ask, bank, expected, operation, refund, seen};
use crate::support::world::World;

/// Copies the journal of a gate that was ended.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let of = |dir: &Path| dir.join(format!("journal.db{suffix}"));
        let _ = fs::remove_file(of(to));
        if of(from).exists() {
            fs::copy(of(from), of(to)).unwrap();
        }
    }
}

/// Another key's request is another one.
fn body(key: &str, session: &str) -> String {
    refund(
        session,
        u32::try_from(key.len()).unwrap() * 100 + u32::from(key.as_bytes()[1]),
        "answer",
    )
}

fn told(gate: &Gate, key: &str, session: &str) -> (u16, String, String, String) {
    seen(&ask(&gate.unix(), REFUND, key, &body(key, session)))
}

fn reconcile(gate: &Gate) -> serde_json::Value {
    let command =
        json!({"command": "operations.reconcile", "reason": "restored the backup of this morning"});
    gate.tell(&command).unwrap()
}

#[test]
fn a_restored_journal_is_noticed_and_no_refund_is_done_twice() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(
        told(&gate, "before", "s0"),
        expected(200, "", "answered", "done")
    );
    gate.finish();
    let backup = tempfile::tempdir().unwrap();
    copy(gate.path(), backup.path());

    // An hour of refunds, two of them of one session.
    let gate = gate.crash_and_restart();
    let (first, _) = operation(&ask(&gate.unix(), REFUND, "k1", &body("k1", "s1")));
    for (key, session) in [("k2", "s1"), ("k3", "s2")] {
        assert_eq!(told(&gate, key, session).0, 200, "{key}");
    }
    let mut gate = gate;
    gate.finish();
    let at_the_bank = bank.requests().len();
    assert_eq!(at_the_bank, 4);

    copy(backup.path(), gate.path());
    let gate = gate.crash_and_restart();
    let refused = expected(503, "journal_unavailable", "not_sent", "");
    for (key, session) in [("k1", "s1"), ("other", "s1"), ("new", "s9")] {
        assert_eq!(told(&gate, key, session), refused, "{key}");
    }
    let detail = ask(&gate.unix(), REFUND, "k1", &body("k1", "s1")).json()["detail"].clone();
    assert!(
        detail.as_str().unwrap().contains("operations reconcile"),
        "{detail}"
    );
    assert_eq!(
        told(&gate, "before", "s0"),
        expected(200, "", "answered", "done")
    );
    assert_eq!(gate.status()["journal"]["doubted"], true);
    // The doubt outlives the process, and what it writes to the log meanwhile.
    let gate = gate.crash_and_restart();
    assert_eq!(told(&gate, "k1", "s1"), refused);

    let done = reconcile(&gate);
    assert_eq!(done["result"]["added"], 3, "{done}");
    assert_eq!(gate.status()["journal"]["doubted"], false);
    let unknown = expected(409, "outcome_unknown", "unknown", "unknown");
    for (key, session) in [("k1", "s1"), ("k2", "s1"), ("k3", "s2")] {
        assert_eq!(told(&gate, key, session), unknown, "{key}");
    }
    let busy = expected(409, "subject_busy", "unknown", "unknown");
    assert_eq!(told(&gate, "other", "s1"), busy);
    assert_eq!(told(&gate, "other", "s2"), busy);
    assert_eq!(
        bank.requests().len(),
        at_the_bank,
        "a refund was done twice"
    );
    assert_eq!(
        told(&gate, "new", "s9"),
        expected(200, "", "answered", "done")
    );

    // A person asks the bank about each.
    let resolve = json!({"command": "operations.resolve", "id": first, "as": "done", "reason": "the bank has it"});
    assert_eq!(gate.tell(&resolve).unwrap()["ok"], true);
    assert_eq!(
        told(&gate, "other", "s1"),
        busy,
        "the second of the session is unknown as well"
    );
    assert_eq!(reconcile(&gate)["error"]["code"], "wrong_state");
    let mut gate = gate.crash_and_restart();
    assert_eq!(gate.status()["journal"]["doubted"], false);
    gate.finish();
    assert_eq!(of(&log(&gate), "doubt").len(), 2);
    let said = ours(None, &[log(&gate)], &[]);
    assert!(said.good, "{}", said.text);
}

#[test]
fn a_new_journal_beside_an_old_log_runs_nothing_until_it_has_what_the_log_knows() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(told(&gate, "k1", "s1").0, 200);
    gate.finish();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(gate.path().join(format!("journal.db{suffix}")));
    }
    let gate = gate.crash_and_restart();
    assert_eq!(told(&gate, "k2", "s1").0, 503);
    let said = gate.command(&["operations", "reconcile", "--reason", "the disk died"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.status.success() && text.contains("reconciled: 1 operations"),
        "{text}"
    );
    assert_eq!(
        told(&gate, "k1", "s1"),
        expected(409, "outcome_unknown", "unknown", "unknown")
    );
    assert_eq!(
        told(&gate, "k2", "s1"),
        expected(409, "subject_busy", "unknown", "unknown")
    );
    assert_eq!(bank.requests().len(), 1, "a refund was done twice");
}

#[test]
fn a_log_that_was_replaced_by_an_old_copy_says_what_it_does_not_have() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(told(&gate, "k1", "s1").0, 200);
    gate.finish();
    let file = log(&gate);
    let old = fs::read(&file).unwrap();
    let mut gate = gate.crash_and_restart();
    assert_eq!(told(&gate, "k2", "s2").0, 200);
    // Told that the log has them, the journal keeps them no longer.
    crate::support::until("the journal has nothing for the log", || {
        let path = gate.path().join("journal.db");
        let journal = rusqlite::Connection::open(path).unwrap();
        let rows: i64 = journal
            .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
            .unwrap();
        rows == 0
    });
    gate.kill();
    fs::write(&file, old).unwrap();
    let mut gate = gate.crash_and_restart();
    gate.finish();
    let gaps = of(&file, "gap");
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(
        (gaps[0]["from"].as_i64(), gaps[0]["to"].as_i64()),
        (Some(5), Some(8))
    );
}
