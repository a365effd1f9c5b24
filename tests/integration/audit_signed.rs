//! Checkpoints of a running gate: signed by its keyholder, which has the key, and good for both verifiers.

use priorgate::audit::files_of;
use rustix::process::Signal;

use crate::support::audit::{Keys, of, ours, ours_by, python};
use crate::support::eventually;
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
        gate.signal(Signal::TERM);
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

/// Beneath no directory that the gate reads.
fn audited(key: &str, public: &std::path::Path) -> String {
    format!(
        "audit: {{file: audit.jsonl, {key}, public_key_file: {}}}",
        public.display()
    )
}

#[test]
fn a_key_that_was_replaced_and_a_log_that_was_begun_anew_go_on_with_what_the_signer_remembers() {
    let world = World::new();
    let bank = world.good_bank();
    let place = tempfile::tempdir().unwrap();
    let old = Keys::make(place.path());
    let key = format!("key_file: {}", place.path().join("audit.key").display());
    let top = audited(&key, &old.public);
    let mut gate = world.setup(bank.port()).top(&top).start();
    let log = gate.path().join("audit.jsonl");
    gate.signal(Signal::TERM);
    assert!(gate.wait().success(), "{}", gate.log());

    // Under the same names, as an operator puts a new pair in place.
    for name in ["audit.key", "audit.pub"] {
        std::fs::rename(
            place.path().join(name),
            place.path().join(format!("old-{name}")),
        )
        .unwrap();
    }
    let old = place.path().join("old-audit.pub");
    let new = Keys::make(place.path()).public;
    let mut gate = gate.crash_and_restart();
    gate.signal(Signal::TERM);
    assert!(gate.wait().success(), "{}", gate.log());
    let files = files_of(&log).unwrap();
    let both = ours_by(&[&new, &old], &files);
    assert!(both.good, "{}", both.text);
    let script_files = [vec![old.clone()], files.clone()].concat();
    let also = python(&new, &script_files, &[]);
    assert!(also.good, "{}", also.text);
    for one in [&new, &old] {
        assert!(!ours(Some(one), &files, &[]).good);
        assert!(!python(one, &files, &[]).good);
    }

    // A new name is a new log, to the signer as well.
    let text = std::fs::read_to_string(gate.config()).unwrap();
    std::fs::write(gate.config(), text.replace("audit.jsonl", "audit-2.jsonl")).unwrap();
    let mut gate = gate.crash_and_restart();
    let second = gate.path().join("audit-2.jsonl");
    gate.signal(Signal::TERM);
    assert!(gate.wait().success(), "{}", gate.log());
    let files = files_of(&second).unwrap();
    for said in [ours(Some(&new), &files, &[]), python(&new, &files, &[])] {
        assert!(said.good, "{}", said.text);
    }
}

#[test]
fn a_credential_signs_and_halves_of_two_pairs_are_noticed_before_a_record_says_signed() {
    let world = World::new();
    let bank = world.good_bank();
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = Keys::make(place.path());
    let stranger = Keys::make(other.path());
    let credentials = |mut command: std::process::Command| {
        command.env("CREDENTIALS_DIRECTORY", place.path());
        command
    };
    let top = audited("key_credential: audit.key", &keys.public);
    let mut gate = world.setup(bank.port()).top(&top).start_with(credentials);
    gate.signal(Signal::TERM);
    assert!(gate.wait().success(), "{}", gate.log());
    let files = files_of(&gate.path().join("audit.jsonl")).unwrap();
    let said = ours(Some(&keys.public), &files, &[]);
    assert!(said.good, "{}", said.text);

    let top = audited("key_credential: audit.key", &stranger.public);
    let mut gate = world.setup(bank.port()).top(&top).start_with(credentials);
    for _ in 0..110 {
        gate.unix().post("/installment/create", "", b"{}");
    }
    let warned = eventually("the status tells", || {
        let status = gate.status();
        let warnings = status["warnings"].as_array().unwrap().iter();
        let mut found = warnings.filter_map(|warning| warning.as_str());
        found
            .find(|text| text.contains("does not fit audit.public_key_file"))
            .map(str::to_owned)
    });
    assert!(warned.contains("not signed now"), "{warned}");
    gate.signal(Signal::TERM);
    assert!(gate.wait().success(), "{}", gate.log());
    let checkpoints = of(&gate.path().join("audit.jsonl"), "checkpoint");
    assert!(
        checkpoints
            .iter()
            .all(|checkpoint| checkpoint["signature"].is_null())
    );
    let check = gate.command(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        said.contains("only the keyholder's unit has the credential"),
        "{said}"
    );
}
