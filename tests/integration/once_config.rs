//! Open operations while the configuration, or the journal's thread, changes under them.

use crate::support::failpoints::armed;
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, ask, bank, refund};
use crate::support::until;
use crate::support::world::World;

/// Writes the configuration anew with one thing replaced.
fn change(gate: &Gate, from: &str, to: &str) {
    let text = std::fs::read_to_string(gate.config()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(gate.config(), text.replace(from, to)).unwrap();
}

#[test]
fn a_subject_that_an_open_operation_depends_on_cannot_be_changed_away() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    let lost = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "lose"));
    assert_eq!(lost.outcome(), "unknown");
    let (now, then) = ("subject: [/session_id]", "subject: [/session_id, /amount]");
    change(&gate, now, then);
    let reload = gate.admin("reload");
    let why = reload["error"]["message"].as_str().unwrap();
    assert!(
        why.contains("subject `/session_id` of bank `bank`"),
        "{why}"
    );
    let busy = ask(&gate.unix(), REFUND, "k2", &refund("s1", 1, "answer"));
    assert_eq!(busy.code(), "subject_busy", "the old state serves on");
    assert_eq!(bank.requests().len(), 1);
    // More subjects beside it are no harm.
    change(&gate, then, now);
    change(
        &gate,
        "path: /installment/cancel, idempotency: required, subject: [/session_id]",
        "path: /installment/cancel, idempotency: required, subject: [/cancel_id]",
    );
    assert_eq!(gate.admin("reload")["ok"], true);
}

#[test]
fn a_bank_with_open_operations_cannot_be_renamed_by_a_restart() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = world.setup(bank.port()).guarded().start();
    let lost = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "lose"));
    assert_eq!(lost.outcome(), "unknown");
    gate.finish();
    change(&gate, "- name: bank\n", "- name: renamed\n");
    let started = gate.command(&["run"]);
    assert_eq!(started.status.code(), Some(1));
    let told = String::from_utf8(started.stderr).unwrap();
    assert!(
        told.contains("of bank `bank`") && told.contains("op_"),
        "{told}"
    );
    change(&gate, "- name: renamed\n", "- name: bank\n");
    let gate = gate.crash_and_restart();
    let again = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "lose"));
    assert_eq!(again.code(), "outcome_unknown");
}

#[test]
fn a_gate_whose_journal_thread_is_gone_ends() {
    let world = World::new();
    let bank = bank(&world);
    let setup = world.setup(bank.port()).guarded();
    let mut gate = setup.start_with(|command| armed(&command, Some("sent.before_commit:panic")));
    let answer = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    assert_eq!((answer.status, answer.outcome()), (503, "not_sent"));
    assert_eq!(gate.wait().code(), Some(1));
    assert!(bank.requests().is_empty());
    until("it says why", || {
        gate.log().contains("its thread has ended")
    });
    let gate = gate.crash_and_restart();
    let again = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    assert_eq!(again.status, 200);
}
