//! Checkpoints of a running gate: signed by its keyholder, which has the key, and good for both verifiers.

use priorgate::audit::files_of;

use crate::support::audit::{Keys, of, ours, python};
use crate::support::world::World;

#[test]
fn the_keyholder_signs_the_chain_of_a_gate_and_goes_on_in_its_next_life() {
    let world = World::new();
    let bank = world.good_bank();
    // Not beneath a directory that the gate reads.
    let place = tempfile::tempdir().unwrap();
    let keys = Keys::make(place.path());
    let private = place.path().join("audit.key");
    let audit = format!(
        "audit: {{file: audit.jsonl, key_file: {}, public_key_file: {}}}",
        private.display(),
        keys.public.display()
    );
    let mut gate = world.setup(bank.port()).top(&audit).start();
    let log = gate.path().join("audit.jsonl");
    for life in 1..=2 {
        let answer = gate.unix().post("/installment/create", "", b"{}");
        assert_eq!(answer.status, 200);
        assert_eq!(gate.status()["audit"]["signs"], true);
        gate.signal(rustix::process::Signal::TERM);
        assert!(gate.wait().success(), "{}", gate.log());
        let checkpoints = of(&log, "checkpoint");
        assert!(checkpoints.len() >= life, "{checkpoints:?}");
        for checkpoint in &checkpoints {
            assert!(checkpoint["signature"].is_string(), "{checkpoint}");
        }
        let files = files_of(&log).unwrap();
        for said in [
            ours(Some(&keys.public), &files, &[]),
            python(&keys.public, &files, &[]),
        ] {
            assert!(said.good, "{}", said.text);
        }
        if life == 1 {
            gate = gate.crash_and_restart();
        }
    }
    // The gate never had it: another key's signature would not have passed, and this one's file is the keyholder's.
    let other = tempfile::tempdir().unwrap();
    let stranger = Keys::make(other.path());
    assert!(!ours(Some(&stranger.public), &files_of(&log).unwrap(), &[]).good);
}
