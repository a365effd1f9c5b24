//! `priorgate doctor` beside a running gate, beside none, and beside one whose bank does not want it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::audit::Keys;
use crate::support::bank::{Bank, Demand, Session, Speaks};
use crate::support::gate::Gate;
use crate::support::pki::Ca;
use crate::support::until;
use crate::support::world::World;

fn doctor(gate: &Gate) -> (i32, Value) {
    let output = gate.command(&["doctor", "--json"]);
    let code = output.status.code().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

/// The colours and messages of a subject.
fn lines(report: &Value, subject: &str) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of = findings.filter(|line| line["subject"].as_str().unwrap().starts_with(subject));
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    of.map(|line| (text(line, "colour"), text(line, "message")))
        .collect()
}

fn one(report: &Value, subject: &str) -> (String, String) {
    let found = lines(report, subject);
    assert_eq!(found.len(), 1, "{subject}: {report:#}");
    found[0].clone()
}

#[test]
fn the_doctor_asks_the_gate_the_bank_and_the_kernel() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port()).with(World::SHORT).guarded();
    let key = setup.path().join("client.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    let gate = setup.start();
    let before = gate.counts();
    let (_, report) = doctor(&gate);
    let (colour, message) = one(&report, "bank: handshake");
    assert_eq!(colour, "green", "{message}");
    assert_eq!(bank.clients().len(), 1, "a connection of its own");
    assert_eq!(gate.counts(), before, "and no request");
    let (colour, message) = one(&report, "gate: confinement");
    assert_eq!(colour, "green", "{message}");
    let (colour, message) = one(&report, "gate (process");
    assert_eq!(colour, "green", "{message}");
    assert!(
        message.contains("seccomp") && message.contains("no capabilities"),
        "{message}"
    );
    for subject in ["names", "clock", "journal's disk"] {
        assert_eq!(one(&report, subject).0, "green", "{subject}");
    }
    // The harness puts the key beside the configuration, which the gate reads.
    let beneath = lines(&report, "identity.key_file");
    assert!(
        beneath
            .iter()
            .any(|(colour, message)| colour == "yellow" && message.contains("lies beneath"))
    );
    // `check`, whose words say what to do, has nothing to complain of here.
    for line in report["findings"].as_array().unwrap() {
        if line["colour"] == "red" && line["next"].is_null() {
            panic!("{line}");
        }
    }
}

#[test]
fn the_doctor_looks_at_the_audit_log_its_signatures_and_its_key() {
    let world = World::new();
    let bank = world.good_bank();
    // The key not beneath what the gate reads.
    let place = tempfile::tempdir().unwrap();
    let keys = Keys::make(place.path());
    let audit = format!(
        "audit: {{file: audit.jsonl, key_file: {}, public_key_file: {}}}",
        place.path().join("audit.key").display(),
        keys.public.display()
    );
    let mut gate = world.setup(bank.port()).top(&audit).start();
    assert_eq!(gate.unix().get("/installment/1").status, 200);
    let (_, report) = doctor(&gate);
    for subject in [
        "audit log: directory",
        "audit log's disk",
        "audit log: private key",
    ] {
        let (colour, message) = lines(&report, subject)[0].clone();
        assert_eq!(colour, "green", "{subject}: {message}");
    }
    gate.finish();
    let (_, report) = doctor(&gate);
    let of_log = |report: &Value, words: &str| {
        let found = lines(report, "audit log").into_iter();
        let mut found = found.filter(|(_, message)| message.contains(words));
        found
            .next()
            .unwrap_or_else(|| panic!("{words}: {report:#}"))
    };
    assert_eq!(of_log(&report, "the chain of 1 file(s) holds").0, "green");
    assert_eq!(of_log(&report, "signed up to record").0, "green");
    // Somebody who may write the file.
    let log = gate.path().join("audit.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let edited = text.replacen("\"status\":200", "\"status\":500", 1);
    assert_ne!(edited, text);
    fs::write(&log, edited).unwrap();
    let (code, report) = doctor(&gate);
    assert_eq!((code, of_log(&report, "edited").0.as_str()), (1, "red"));
}

#[test]
fn the_doctor_says_which_unit_loads_a_key_that_is_a_credential() {
    let world = World::new();
    let bank = world.good_bank();
    let lines_of_bank = format!(
        "url: https://localhost:{}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: bank.test}}\n    identity: {{cert_file: client.crt, key_credential: no-such.key}}",
        bank.port()
    );
    let setup = world.setup(bank.port()).bank(&lines_of_bank);
    setup.write();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["doctor", "--json", "--config"])
        .arg(setup.config())
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Whether or not this machine has the package's units, none loads this one.
    let (colour, message) = one(&report, "bank: private key");
    assert_ne!(colour, "green", "{message}");
    assert!(
        message.contains("priorgate-keyholder.service") && message.contains("no-such.key"),
        "{message}"
    );
}

#[test]
fn the_doctor_finds_no_key_in_the_memory_of_the_gate() {
    if !crate::support::is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).start();
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
    let (_, report) = doctor(&gate);
    // That the scan sees a key where one is, is shown on the signer (keyholder_memory).
    let (colour, message) = one(&report, "bank: key in the gate's memory");
    assert_eq!(colour, "green", "{message}");
}

#[test]
fn a_bank_that_refuses_the_certificate_after_the_handshake_is_found_out() {
    let world = World::new();
    let stranger = Ca::new("another client ca");
    let server = world.bank_ca.server("bank.test");
    let bank = Bank::start(
        &server,
        &Demand::Of(&stranger),
        Speaks::Tls13,
        Session::serve,
    );
    let gate = world.setup(bank.port()).with(World::SHORT).start();
    let (code, report) = doctor(&gate);
    let (colour, message) = one(&report, "bank: handshake");
    assert_eq!((code, colour.as_str()), (1, "red"), "{message}");
    assert!(message.contains("alert"), "{message}");
}

#[test]
fn without_a_gate_the_doctor_says_what_it_could_not_ask() {
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = world.setup(bank.port()).start();
    gate.kill();
    let (_, report) = doctor(&gate);
    let (colour, message) = one(&report, "gate");
    assert_eq!(colour, "yellow", "{message}");
    assert!(lines(&report, "bank: handshake").is_empty());
    let text = gate.command(&["doctor"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("yellow  gate: ") && text.contains(" yellow\n"),
        "{text}"
    );
}

#[test]
fn only_an_operator_may_have_the_bank_asked() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).operators("65533").start();
    let answer = gate.admin("probe");
    assert_eq!(answer["error"]["code"], "operator_required", "{answer}");
    let (_, report) = doctor(&gate);
    assert_eq!(one(&report, "handshake").0, "yellow");
    until("nobody connected", || bank.connections() == 0);
}
