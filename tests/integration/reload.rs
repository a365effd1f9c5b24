//! Reload, rotation, drain, and a process that survives what its machine does to it.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Target, post};
use crate::support::gate::Gate;
use crate::support::pki::{Ca, replace};
use crate::support::world::World;
use crate::support::{eventually, until};

fn create(gate: &Gate) -> u16 {
    gate.unix().post("/installment/create", "", b"{}").status
}

fn generation(gate: &Gate) -> u64 {
    gate.status()["banks"][0]["generation"].as_u64().unwrap()
}

#[test]
fn a_renamed_certificate_is_used_after_sighup_and_after_the_command() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    assert_eq!(create(&gate), 200);
    let first = world.client_ca.client("second");
    first.write(gate.path(), "client");
    gate.signal(Signal::HUP);
    until("the reload is done", || generation(&gate) == 2);
    assert_eq!(create(&gate), 200);
    let second = world.client_ca.client("third");
    second.write(gate.path(), "client");
    let reload = gate.command(&["reload"]);
    assert!(
        reload.status.success(),
        "{}",
        String::from_utf8_lossy(&reload.stderr)
    );
    assert_eq!(create(&gate), 200);
    let seen = bank.clients();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1..], [first.der(), second.der()]);
    let status = gate.status();
    assert_eq!(
        (&status["last_reload"]["ok"], generation(&gate)),
        (&true.into(), 3)
    );
    assert_eq!(status["banks"][0]["certificate"]["subject"], "CN=third");
}

#[test]
fn a_bad_pair_keeps_the_last_good_one_and_says_so_everywhere() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    assert_eq!(create(&gate), 200);
    // Only half of a new pair has arrived.
    let new = world.client_ca.client("new");
    replace(&gate.path().join("client.crt"), &new.cert.pem());
    let reload = gate.command(&["reload"]);
    assert_eq!(reload.status.code(), Some(1));
    let told = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(
        told.contains("does not belong to the certificate"),
        "{told}"
    );
    let status = gate.status();
    assert_eq!(status["last_reload"]["ok"], false);
    assert!(
        status["last_reload"]["error"]
            .as_str()
            .unwrap()
            .contains("client.key")
    );
    until("the log says so", || {
        gate.log()
            .contains("reload failed; the last good state serves on")
    });
    assert_eq!(
        (create(&gate), generation(&gate), bank.clients().len()),
        (200, 1, 1)
    );
    // The other half comes.
    replace(&gate.path().join("client.key"), &new.key.serialize_pem());
    assert!(gate.command(&["reload"]).status.success());
    assert_eq!((create(&gate), bank.clients().len()), (200, 2));
}

#[test]
fn an_expired_certificate_is_warned_of_in_the_log_and_the_status() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let words = "the client certificate (CN=late) has expired at 2001-01-01T00:00:00Z";
    assert!(
        !gate.status()["warnings"]
            .to_string()
            .contains("certificate")
    );
    world
        .client_ca
        .expired_server("late")
        .write(gate.path(), "client");
    assert!(gate.command(&["reload"]).status.success());
    assert!(gate.status()["warnings"].to_string().contains(words));
    until("the log says so", || gate.log().contains(words));
}

#[test]
fn a_bad_configuration_keeps_the_last_good_one() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let good = std::fs::read_to_string(gate.config()).unwrap();
    for (bad, told) in [
        (good.replace("url:", "urll:"), "did you mean `url`?"),
        (
            good.replace("name: bank", "name: another"),
            "restart needed: the list of banks has changed",
        ),
        (
            good.replace("gate.sock", "other.sock"),
            "restart needed: the listeners of bank bank have changed",
        ),
    ] {
        replace(&gate.config(), &bad);
        let reload = gate.command(&["reload"]);
        assert_eq!(reload.status.code(), Some(1), "{told}");
        let stderr = String::from_utf8_lossy(&reload.stderr).into_owned();
        assert!(stderr.contains(told), "{stderr}");
        assert_eq!((create(&gate), generation(&gate)), (200, 1));
    }
    // Routes and callers may change in place.
    replace(
        &gate.config(),
        &good.replace("/installment/create", "/v2/create"),
    );
    assert!(gate.command(&["reload"]).status.success());
    assert_eq!(create(&gate), 405);
    assert_eq!(gate.unix().post("/v2/create", "", b"{}").status, 200);
}

#[test]
fn a_reload_that_changes_the_bank_shows_in_the_status() {
    let world = World::new();
    let (first, second) = (world.good_bank(), world.good_bank());
    // Another port is one of the things that a confined process cannot have (see `confinement`).
    let setup = world.setup(first.port()).with(World::SHORT);
    let gate = setup.top("hardening: disabled").start();
    assert_eq!(create(&gate), 200);
    let (old, new) = (first.port().to_string(), second.port().to_string());
    let config = std::fs::read_to_string(gate.config()).unwrap();
    replace(&gate.config(), &config.replace(&old, &new));
    assert!(gate.command(&["reload"]).status.success());
    assert_eq!(create(&gate), 200);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    let url = format!("https://localhost:{new}");
    assert_eq!(gate.status()["banks"][0]["url"], url);
}

#[test]
fn a_request_that_runs_during_a_reload_ends_as_it_would_have() {
    let world = World::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let bank = world.bank(crate::support::bank::Speaks::Tls13, move |mut session| {
        while session.request().is_some() {
            let _ = released
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(10));
            session.answer("200 OK", "{}");
        }
    });
    let gate = world.setup(bank.port()).start();
    let target = gate.unix();
    let running = std::thread::spawn(move || target.post("/installment/create", "", b"{}").status);
    until("the bank has it", || bank.requests().len() == 1);
    assert!(gate.command(&["reload"]).status.success());
    release.send(()).unwrap();
    assert_eq!(running.join().unwrap(), 200);
    assert_eq!(bank.requests().len(), 1);
}

/// The load of the rotation scenario: requests on kept-alive connections, until told to stop.
fn load(target: Target, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Vec<String> {
    let request = post("/installment/create", "", b"{\"order_ref\":\"1\"}");
    let mut caller = target.connect();
    let mut failed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        caller.write_all(&request).unwrap();
        let answer = caller.answer();
        if (answer.status, answer.outcome()) != (200, "answered") {
            failed.push(format!("{} {}", answer.status, answer.code()));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    failed
}

#[test]
fn a_new_certificate_every_second_under_load_fails_no_request_and_the_bank_sees_each() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).start();
    let stop = Arc::new(AtomicBool::new(false));
    let over_tcp = Arc::new(AtomicUsize::new(0));
    let over_unix = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = [gate.tcp(), gate.unix(), gate.tcp(), gate.unix()]
        .into_iter()
        .map(|target| {
            let done = match target {
                Target::Tcp(_) => Arc::clone(&over_tcp),
                Target::Unix(_) => Arc::clone(&over_unix),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || load(target, stop, done))
        })
        .collect();
    let started = Instant::now();
    let mut issued = vec![];
    for second in 1..=8_u64 {
        until("a second has passed", || {
            started.elapsed() >= Duration::from_secs(second)
        });
        let client = world.client_ca.client(&format!("shop {second}"));
        client.write(gate.path(), "client");
        let reload = gate.command(&["reload"]);
        assert!(
            reload.status.success(),
            "{}",
            String::from_utf8_lossy(&reload.stderr)
        );
        issued.push(client.der());
    }
    let done = || over_tcp.load(Ordering::Relaxed) + over_unix.load(Ordering::Relaxed);
    let last = done();
    until("the last certificate is used", || done() > last + 100);
    stop.store(true, Ordering::Relaxed);
    let took = started.elapsed();
    let failed: Vec<String> = callers
        .into_iter()
        .flat_map(|caller| caller.join().unwrap())
        .collect();
    let done = done();
    println!(
        "{done} requests in {took:?}, {} certificates, {} failed",
        issued.len() + 1,
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    // 5,000 in 10 s, half of them over each kind of socket.
    for (kind, count) in [("TCP", &over_tcp), ("Unix", &over_unix)] {
        let a_second = count.load(Ordering::Relaxed) as f64 / took.as_secs_f64();
        assert!(a_second >= 250.0, "{kind}: {a_second} requests a second");
    }
    let seen = bank.clients();
    assert_eq!(seen.len(), issued.len() + 1);
    assert_eq!(seen[1..], issued[..]);
    assert_eq!(bank.requests().len(), done);
    // At most one connection for each caller and certificate: everything else was used again.
    let opened = bank.connections();
    assert!(opened <= 4 * (issued.len() + 1), "{opened} connections");
}

#[test]
fn sigterm_finishes_what_runs_and_exits_0() {
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
    let (unix, tcp, probe) = (gate.unix(), gate.tcp(), gate.admin_tcp());
    let target = unix.clone();
    let running = std::thread::spawn(move || target.post("/installment/create", "", b"{}").status);
    until("the bank has it", || bank.requests().len() == 1);
    gate.signal(Signal::TERM);
    until("it says so", || gate.status()["phase"] == "draining");
    assert_eq!(
        (probe.get("/livez").status, probe.get("/readyz").status),
        (200, 503)
    );
    until("nobody new is let in", || {
        tcp.try_connect().is_err() && unix.try_connect().is_err()
    });
    // A reload now must neither kill the process nor bring it back.
    gate.signal(Signal::HUP);
    assert_eq!(gate.status()["phase"], "draining");
    release.send(()).unwrap();
    assert_eq!(running.join().unwrap(), 200);
    assert_eq!(gate.wait().code(), Some(0));
    assert!(!gate.path().join("gate.sock").exists());
    assert!(!gate.path().join("admin.sock").exists());
}

#[test]
fn the_service_manager_is_told_of_every_phase() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    let path = setup.path().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut gate = setup.start_with(|mut command| {
        command.env("NOTIFY_SOCKET", &path);
        command
    });
    let told = || {
        let mut buffer = [0; 512];
        let read = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    };
    assert!(told().starts_with("READY=1\n"));
    gate.signal(Signal::HUP);
    let reloading = told();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert!(told().starts_with("READY=1\n"));
    gate.signal(Signal::TERM);
    assert!(told().starts_with("STOPPING=1\n"));
    assert_eq!(gate.wait().code(), Some(0));
}

#[test]
fn a_stale_socket_of_ours_is_replaced_and_somebody_elses_file_never_is() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    drop(UnixListener::bind(setup.path().join("gate.sock")).unwrap());
    let gate = setup.start();
    assert_eq!(create(&gate), 200);
    // A second gate with the same configuration finds a live socket, and leaves.
    let second = gate.command(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("another process is listening"), "{told}");
    assert_eq!(create(&gate), 200);

    let setup = world.setup(bank.port());
    replace(&setup.path().join("gate.sock"), "precious");
    setup.write();
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    let output = command
        .arg("run")
        .arg("--config")
        .arg(setup.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a socket"));
    assert_eq!(
        std::fs::read_to_string(setup.path().join("gate.sock")).unwrap(),
        "precious"
    );
}

#[test]
fn running_out_of_descriptors_ends_no_listener() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).start_with(|command| {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
            .arg(command.get_program());
        limited.args(command.get_args());
        limited
    });
    let target = gate.tcp();
    let flood: Vec<_> = (0..80).filter_map(|_| target.try_connect().ok()).collect();
    until("it has run out", || {
        gate.log().contains("cannot accept; trying again")
    });
    drop(flood);
    let answer = eventually("it accepts again", || {
        let mut caller = target.try_connect().ok()?;
        caller.set_read_timeout(Duration::from_secs(3));
        caller
            .write_all(&post("/installment/create", "", b"{}"))
            .ok()?;
        caller
            .try_answer()
            .ok()
            .filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.outcome(), "answered");
    let complaints = gate.log().matches("cannot accept").count();
    assert!(complaints < 20, "{complaints} lines about one state");
}

#[test]
fn health_and_status_are_get_only_and_for_this_machine_only() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let admin = gate.admin_tcp();
    assert_eq!(
        (admin.get("/livez").status, admin.get("/readyz").status),
        (200, 200)
    );
    let status = admin.get("/status.json");
    assert_eq!(status.header("content-type"), Some("application/json"));
    assert_eq!(status.json()["banks"][0]["name"], "bank");
    let posted = admin.post("/status.json", "", b"");
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET")));
    assert_eq!(
        admin
            .send(b"GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            .status,
        403
    );
    assert_eq!(
        admin
            .send(b"GET /status.json HTTP/1.1\nHost: localhost\n\n")
            .status,
        400
    );
    assert_eq!(admin.get("/reload").status, 404);
}

#[test]
fn whoever_is_no_operator_may_look_and_not_reload() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    setup.write();
    let gate = setup.start();
    let config = std::fs::read_to_string(gate.config()).unwrap();
    drop(gate);
    let uid = rustix::process::getuid().as_raw();
    let setup = world.setup(bank.port());
    replace(
        &setup.config(),
        &config.replace(&format!("operators: [{uid}]"), "operators: [65533]"),
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .arg("run")
        .arg("--config")
        .arg(setup.config())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ask = |command: &str| {
        Command::new(env!("CARGO_BIN_EXE_priorgate"))
            .args([command, "--json", "--config"])
            .arg(setup.config())
            .output()
            .unwrap()
    };
    until("it runs", || ask("status").status.success());
    let reload = ask("reload");
    assert_eq!(reload.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&reload.stdout).contains("operator_required"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_gate_that_cannot_start_says_why_in_one_line() {
    let world = World::new();
    let bank = world.good_bank();
    let start = |setup: &crate::support::gate::Setup| {
        setup.write();
        let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
        let output = command
            .arg("run")
            .arg("--config")
            .arg(setup.config())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let setup = world.setup(bank.port());
    std::fs::remove_file(setup.path().join("client.key")).unwrap();
    let (code, told) = start(&setup);
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("client.key"), "{told}");
    let setup = world.setup(bank.port());
    replace(
        &setup.path().join("bank-ca.pem"),
        &Ca::new("x").client("not a ca").cert.pem(),
    );
    let (code, told) = start(&setup);
    assert_eq!(code, Some(1));
    assert!(told.contains("is not a CA"), "{told}");
}
