//! Deaths, rotations and stalls of the keyholder, as a caller of the gate sees them: not at all, or as one problem.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::gate::Gate;
use crate::support::keyholder::{Keyholder, listener};
use crate::support::pki::replace;
use crate::support::process::{children, is_alive, parent};
use crate::support::world::World;
use crate::support::{eventually, until};

/// A request on a connection of its own, and so with a handshake of its own.
fn fresh(gate: &Gate) -> (u16, String, String) {
    let answer = gate.unix().post("/installment/refund", "", b"{}");
    let (code, outcome) = match answer.status {
        200 => (String::new(), answer.outcome().to_owned()),
        _ => (answer.code(), answer.outcome().to_owned()),
    };
    (answer.status, code, outcome)
}

fn good() -> (u16, String, String) {
    (200, String::new(), "answered".to_owned())
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).unwrap()
}

/// The gate's keyholder: monitor and signer.
fn keyholder_of(gate: &Gate) -> (u32, u32) {
    let monitor = eventually("there is a monitor", || {
        children(gate.pid().as_raw_nonzero().get().cast_unsigned())
            .first()
            .copied()
    });
    let signer = eventually("there is a signer", || children(monitor).first().copied());
    (monitor, signer)
}

/// The socket of a service manager, and a gate that knows where it is.
pub(crate) fn packaged(world: &World, port: u16) -> (Gate, Keyholder, OwnedFd) {
    let setup = world.setup(port).with(World::SHORT);
    setup.write();
    let path = setup.path().join("sign.sock");
    let socket = listener(&path);
    let keyholder = Keyholder::listening(&setup.config(), &socket);
    let gate = setup.start_with(|mut command| {
        command.env("PRIORGATE_KEYHOLDER_SOCKET", &path);
        command
    });
    (gate, keyholder, socket)
}

#[test]
fn a_killed_signer_is_replaced_before_the_next_handshake_notices() {
    let world = World::new();
    let bank = world.good_bank();
    // The deadlines as they are by default: a signature may take 2 s.
    let gate = world.setup(bank.port()).start();
    assert_eq!(fresh(&gate), good());
    let (monitor, mut last) = keyholder_of(&gate);
    for death in 1..=3_u64 {
        kill_process(pid(last), Signal::KILL).unwrap();
        // At once: the request may wait in the socket, or be read by the one that dies.
        assert_eq!(fresh(&gate), good(), "{}", gate.log());
        let (same, next) = keyholder_of(&gate);
        assert_eq!(same, monitor);
        assert_ne!(next, last);
        last = next;
        until("the gate was told", || {
            gate.status()["keyholder"]["restarts"] == death
        });
    }
    let status = gate.status()["keyholder"].clone();
    assert_eq!(
        (status["up"].as_bool(), status["pid"].as_u64()),
        (Some(true), Some(u64::from(last)))
    );
    assert!(status["signatures"].as_u64().unwrap() >= 4);
    assert!(gate.log().contains("the signer was restarted"));
}

#[test]
fn under_load_a_signer_that_is_killed_again_and_again_fails_no_handshake() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world
        .setup(bank.port())
        .with("timeouts: {connect: 5s, response: 5s, total: 15s}")
        .start();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, target) = (Arc::clone(&stop), gate.unix());
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.push(target.post("/installment/refund", "", b"{}").status);
                }
                seen
            })
        })
        .collect();
    for _ in 0..4 {
        let before = bank.connections();
        until("handshakes go on", || bank.connections() > before + 5);
        let (_, signer) = keyholder_of(&gate);
        // It may be the last one's, just gone.
        let _ = kill_process(pid(signer), Signal::KILL);
    }
    let before = bank.connections();
    until("handshakes go on", || bank.connections() > before + 5);
    stop.store(true, Ordering::Relaxed);
    let seen: Vec<u16> = callers
        .into_iter()
        .flat_map(|caller| caller.join().unwrap())
        .collect();
    assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
}

#[test]
fn a_killed_gate_leaves_no_process_of_the_keyholder() {
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = world.gate(bank.port());
    assert_eq!(fresh(&gate), good());
    let (monitor, signer) = keyholder_of(&gate);
    gate.kill();
    until("both are gone", || !is_alive(monitor) && !is_alive(signer));
}

#[test]
fn a_gate_that_ends_in_order_leaves_none_either_and_has_it_until_the_last_request() {
    let world = World::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let bank = world.bank(crate::support::bank::Speaks::Tls13, move |mut session| {
        session.request();
        if session.index == 0 {
            let _ = released
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(10));
        }
        session.answer("200 OK", "{}");
    });
    let mut gate = world.setup(bank.port()).start();
    let (monitor, signer) = keyholder_of(&gate);
    let target = gate.unix();
    let running = std::thread::spawn(move || target.post("/installment/create", "", b"{}").status);
    until("the bank has it", || bank.requests().len() == 1);
    // As a service manager stops a whole group: everybody is told at once.
    for process in [monitor, signer] {
        kill_process(pid(process), Signal::TERM).unwrap();
    }
    gate.signal(Signal::TERM);
    until("it drains", || gate.status()["phase"] == "draining");
    assert!(is_alive(monitor) && is_alive(signer));
    release.send(()).unwrap();
    assert_eq!(running.join().unwrap(), 200);
    assert_eq!(gate.wait().code(), Some(0));
    until("both are gone", || !is_alive(monitor) && !is_alive(signer));
}

#[test]
fn a_killed_monitor_takes_its_signer_with_it_and_the_gate_drains_and_ends_to_be_started_anew() {
    let world = World::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let bank = world.bank(crate::support::bank::Speaks::Tls13, move |mut session| {
        session.request();
        let _ = released
            .lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(10));
        session.answer("200 OK", "{}");
    });
    let mut gate = world.setup(bank.port()).start();
    let (monitor, signer) = keyholder_of(&gate);
    let target = gate.unix();
    let running = std::thread::spawn(move || target.post("/installment/create", "", b"{}").status);
    until("the bank has it", || bank.requests().len() == 1);
    kill_process(pid(monitor), Signal::KILL).unwrap();
    until("the signer is gone", || !is_alive(signer));
    // Nobody asks for a signature now: it is noticed all the same.
    until("it drains", || gate.status()["phase"] == "draining");
    release.send(()).unwrap();
    assert_eq!(
        running.join().unwrap(),
        200,
        "what runs ends as it would have"
    );
    assert_eq!(gate.wait().code(), Some(1));
    until("the log is whole", || {
        gate.log().contains("priorgate ends with an error")
    });
    let told = gate.lines(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("shutting down: the keyholder that priorgate started has ended")
    });
    assert_eq!(told.len(), 1, "{}", gate.log());
    assert_eq!(told[0]["level"], "ERROR");
    let message = told[0]["message"].as_str().unwrap();
    assert!(message.contains("start priorgate again"), "{message}");
}

#[test]
fn a_stalled_signer_fails_handshakes_in_time_and_nothing_else() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let pooled = || gate.unix().post("/installment/create", "", b"{}").status;
    assert_eq!(pooled(), 200);
    let (_, signer) = keyholder_of(&gate);
    kill_process(pid(signer), Signal::STOP).unwrap();
    let started = Instant::now();
    let target = gate.unix();
    let stalled = std::thread::spawn(move || {
        let answer = target.post("/installment/refund", "", b"{}");
        (
            answer.code(),
            answer.outcome().to_owned(),
            started.elapsed(),
        )
    });
    let mut slowest = Duration::ZERO;
    let mut served = 0;
    while !stalled.is_finished() {
        let before = Instant::now();
        assert_eq!(pooled(), 200);
        slowest = slowest.max(before.elapsed());
        served += 1;
    }
    let (code, outcome, took) = stalled.join().unwrap();
    assert_eq!(
        (code.as_str(), outcome.as_str()),
        ("identity_unavailable", "not_sent")
    );
    // timeouts.connect is 2 s; half of it is the signature's.
    assert!(took < Duration::from_millis(1900), "{took:?}");
    assert!(
        served > 20 && slowest < Duration::from_millis(500),
        "{served} {slowest:?}"
    );
    kill_process(pid(signer), Signal::CONT).unwrap();
    until("it signs again", || fresh(&gate) == good());
}

#[test]
fn either_file_first_no_handshake_fails_and_the_pair_changes_whole() {
    let world = World::new();
    for certificate_first in [true, false] {
        let bank = world.good_bank();
        let gate = world.gate(bank.port());
        assert_eq!(fresh(&gate), good());
        let (monitor, old) = keyholder_of(&gate);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, target) = (Arc::clone(&stop), gate.unix());
        let load = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let answer = target.post("/installment/refund", "", b"{}");
                if answer.status != 200 {
                    failed.push((answer.status, answer.code().to_string()));
                }
            }
            failed
        });
        let new = world.client_ca.client("new");
        let halves = [
            ("client.crt", new.cert.pem()),
            ("client.key", new.key.serialize_pem()),
        ];
        let order: &[usize] = if certificate_first { &[0, 1] } else { &[1, 0] };
        replace(&gate.path().join(halves[order[0]].0), &halves[order[0]].1);
        kill_process(pid(monitor), Signal::HUP).unwrap();
        // Only half of the pair is there.
        until("the keys stay", || {
            gate.log().contains("the keys stay as they are")
        });
        assert!(is_alive(old));
        replace(&gate.path().join(halves[order[1]].0), &halves[order[1]].1);
        kill_process(pid(monitor), Signal::HUP).unwrap();
        until("the bank sees the new one", || {
            bank.clients().contains(&new.der())
        });
        stop.store(true, Ordering::Relaxed);
        let failed = load.join().unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(bank.clients().len(), 2);
        assert!(!is_alive(old));
        // The gate has found the new certificate by itself, and shows it.
        let subject = gate.status()["banks"][0]["certificate"]["subject"].clone();
        assert!(subject.as_str().unwrap().contains("new"), "{subject}");
    }
}

#[test]
fn a_bad_key_keeps_the_old_one_for_whoever_asks() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let (monitor, signer) = keyholder_of(&gate);
    for (bad, told) in [
        ("not a key", "holds no private key"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "of no supported kind",
        ),
    ] {
        replace(&gate.path().join("client.key"), bad);
        let reload = gate.command(&["reload"]);
        assert_eq!(reload.status.code(), Some(1));
        let said = String::from_utf8_lossy(&reload.stderr).into_owned();
        assert!(said.contains(told), "{said}");
        assert_eq!(keyholder_of(&gate), (monitor, signer));
        assert_eq!(fresh(&gate), good());
    }
    assert_eq!(bank.clients().len(), 1);
}

#[test]
fn the_keyholder_of_a_service_manager_may_come_and_go() {
    let world = World::new();
    let bank = world.good_bank();
    let (gate, mut keyholder, socket) = packaged(&world, bank.port());
    assert!(children(gate.pid().as_raw_nonzero().get().cast_unsigned()).is_empty());
    assert_eq!(fresh(&gate), good());
    // The signer dies.
    let signer = children(keyholder.monitor.id())[0];
    kill_process(pid(signer), Signal::KILL).unwrap();
    assert_eq!(fresh(&gate), good());
    // A rotation.
    let new = world.client_ca.client("new");
    new.write(gate.path(), "client");
    keyholder.signal(Signal::HUP);
    until("the bank sees the new one", || {
        assert_eq!(fresh(&gate), good());
        bank.clients().contains(&new.der())
    });
    // All of it dies. The gate does not: it says what it cannot do, and looks for the next one.
    keyholder.signal(Signal::KILL);
    keyholder.wait();
    let unavailable = (
        502,
        "identity_unavailable".to_owned(),
        "not_sent".to_owned(),
    );
    assert_eq!(fresh(&gate), unavailable);
    let status = gate.status();
    assert_eq!(
        (&status["phase"], &status["keyholder"]["up"]),
        (&"ready".into(), &false.into())
    );
    // The manager keeps the socket, and the next one finds what waits in it.
    let target = gate.unix();
    let waiting = std::thread::spawn(move || target.post("/installment/refund", "", b"{}").status);
    let _next = Keyholder::listening(&gate.config(), &socket);
    assert_eq!(waiting.join().unwrap(), 200);
    assert_eq!(gate.status()["keyholder"]["up"], true);
}

#[test]
fn a_keyholder_without_a_socket_or_with_a_bad_configuration_says_so() {
    let world = World::new();
    let setup = world.setup(1);
    setup.write();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
        command.arg("keyholder").arg("--config").arg(setup.config());
        command.stdin(std::process::Stdio::null());
        command.output().unwrap()
    };
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("StandardInput=socket"));
    replace(&setup.config(), "banks: []\n");
    let socket = listener(&setup.path().join("sign.sock"));
    let mut keyholder = Keyholder::listening(&setup.config(), &socket);
    assert_eq!(keyholder.wait().code(), Some(78));
    until("it says why", || {
        keyholder.log().contains("at least one bank")
    });
}

#[test]
fn a_signer_that_cannot_start_again_is_tried_some_seconds_and_then_the_keyholder_gives_up() {
    let world = World::new();
    let setup = world.setup(1);
    setup.write();
    let socket = listener(&setup.path().join("sign.sock"));
    let mut keyholder = Keyholder::listening(&setup.config(), &socket);
    let signer = eventually("there is a signer", || {
        let serves = !keyholder.lines("a signer serves").is_empty();
        children(keyholder.monitor.id())
            .first()
            .copied()
            .filter(|_| serves)
    });
    std::fs::remove_file(setup.path().join("client.key")).unwrap();
    let started = Instant::now();
    kill_process(pid(signer), Signal::KILL).unwrap();
    assert_eq!(keyholder.wait().code(), Some(1));
    assert!(
        started.elapsed() >= Duration::from_secs(3),
        "without a pause"
    );
    until("it says why", || {
        keyholder.log().contains("the keyholder gives up") && keyholder.log().contains("client.key")
    });
}

#[test]
fn a_credential_is_found_by_its_name() {
    let world = World::new();
    let bank = world.good_bank();
    let lines = format!(
        "url: https://localhost:{}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: bank.test}}\n    identity: {{cert_file: client.crt, key_credential: shop.key}}",
        bank.port()
    );
    let setup = world.setup(bank.port()).bank(&lines);
    let credentials = setup.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::rename(
        setup.path().join("client.key"),
        credentials.join("shop.key"),
    )
    .unwrap();
    let mut gate = setup.start_with(|mut command| {
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        command
    });
    assert_eq!(fresh(&gate), good());
    let check = gate.command(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        check.status.success() && said.contains("only the keyholder's unit has the credential"),
        "{said}"
    );
    let (_, signer) = keyholder_of(&gate);
    assert_eq!(parent(signer), Some(keyholder_of(&gate).0));
    gate.kill();
}
