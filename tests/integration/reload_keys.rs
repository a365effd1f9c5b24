//! A reload changes two processes: new keys here and new certificates there, or neither, or a word on who has what.

use crate::support::gate::Gate;
use crate::support::keyholder::{Keyholder, listener};
use crate::support::pki::replace;
use crate::support::process::children;
use crate::support::world::World;
use crate::support::{eventually, until};

/// The status and the code of a request with a handshake of its own.
fn fresh(gate: &Gate) -> (u16, String) {
    let answer = gate.unix().post("/installment/refund", "", b"{}");
    (answer.status, answer.code())
}

fn good() -> (u16, String) {
    (200, String::new())
}

/// The exit code of a reload and what it says.
fn reload(gate: &Gate) -> (i32, String) {
    let output = gate.command(&["reload"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), told)
}

fn signer_of(gate: &Gate) -> u32 {
    let gate = gate.pid().as_raw_nonzero().get().cast_unsigned();
    let monitor = children(gate)[0];
    eventually("there is one signer", || match children(monitor)[..] {
        [signer] => Some(signer),
        _ => None,
    })
}

fn generation(gate: &Gate) -> u64 {
    gate.status()["banks"][0]["generation"].as_u64().unwrap()
}

#[test]
fn half_of_a_new_pair_changes_neither_side_and_the_whole_changes_both() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    assert_eq!(fresh(&gate), good());
    let before = signer_of(&gate);
    let new = world.client_ca.client("new");
    let halves = [
        ("client.crt", new.cert.pem()),
        ("client.key", new.key.serialize_pem()),
    ];
    for (name, half) in &halves {
        let file = gate.path().join(name);
        let old = std::fs::read_to_string(&file).unwrap();
        replace(&file, half);
        let (code, told) = reload(&gate);
        assert_eq!(code, 1, "new {name}, and the other one old");
        assert!(
            told.contains("the keyholder keeps its keys")
                && told.contains("does not belong to the certificate"),
            "{told}"
        );
        assert_eq!((signer_of(&gate), generation(&gate)), (before, 1));
        assert_eq!(fresh(&gate), good());
        replace(&file, &old);
    }
    assert_eq!(bank.clients().len(), 1);
    for (name, half) in &halves {
        replace(&gate.path().join(name), half);
    }
    assert_eq!(reload(&gate).0, 0);
    assert_eq!((fresh(&gate), generation(&gate)), (good(), 2));
    assert_ne!(signer_of(&gate), before);
    assert_eq!(bank.clients()[1..], [new.der()]);
}

#[test]
fn a_reload_that_the_gate_refuses_leaves_the_keyholder_with_the_keys_that_it_has() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    assert_eq!(fresh(&gate), good());
    let before = signer_of(&gate);
    let new = world.client_ca.client("new");
    new.write(gate.path(), "next");
    let config = std::fs::read_to_string(gate.config()).unwrap();
    // A whole new pair under new names, and a listener that wants a restart.
    let named = config
        .replace("client.crt", "next.crt")
        .replace("client.key", "next.key");
    replace(&gate.config(), &named.replace("gate.sock", "other.sock"));
    let (code, told) = reload(&gate);
    assert_eq!(code, 1);
    assert!(told.contains("restart needed: the listeners"), "{told}");
    assert_eq!((signer_of(&gate), generation(&gate)), (before, 1));
    assert_eq!(fresh(&gate), good(), "the old pair is still whole");
    assert_eq!(bank.clients().len(), 1);
    // Without the listener it is taken.
    replace(&gate.config(), &named);
    assert_eq!(reload(&gate).0, 0);
    assert_eq!((fresh(&gate), generation(&gate)), (good(), 2));
    assert_eq!(bank.clients()[1..], [new.der()]);
}

#[test]
fn where_the_keyholder_took_a_key_that_no_certificate_of_the_gate_fits_the_error_says_who_has_what()
{
    let world = World::new();
    let bank = world.good_bank();
    // Two directories: each process has files of its own, as with a mistake in one of two units.
    let theirs = world.setup(bank.port());
    theirs.write();
    let ours = world.setup(bank.port()).with(World::SHORT);
    for name in ["client.crt", "client.key"] {
        std::fs::copy(ours.path().join(name), theirs.path().join(name)).unwrap();
    }
    let path = ours.path().join("sign.sock");
    let socket = listener(&path);
    let _keyholder = Keyholder::listening(&theirs.config(), &socket);
    let gate = ours.start_with(|mut command| {
        command.env("PRIORGATE_KEYHOLDER_SOCKET", &path);
        command
    });
    assert_eq!(fresh(&gate), good());
    let spki = gate.status()["banks"][0]["certificate"]["spki_sha256"].clone();
    let new = world.client_ca.client("new");
    new.write(theirs.path(), "client");
    let (code, told) = reload(&gate);
    assert_eq!(code, 1);
    for words in [
        "the keyholder has loaded its keys again, the gate keeps its certificates",
        "new connections to bank fail until certificate and key are of one pair",
        "client.crt: the keyholder has no key that belongs to this certificate",
        &format!("which has the key {}…", &spki.as_str().unwrap()[..12]),
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(generation(&gate), 1);
    assert_eq!(fresh(&gate), (502, "identity_unavailable".to_owned()));
    // What it says to do.
    new.write(gate.path(), "client");
    assert_eq!(reload(&gate).0, 0);
    until("the bank sees the new one", || {
        fresh(&gate) == good() && bank.clients().contains(&new.der())
    });
}
