//! The whole gate under `hardening: required`: it serves, it rotates, and what it cannot have any more it says.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use rustix::process::{Gid, Signal, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bank::Bank;
use crate::support::failpoints::armed;
use crate::support::gate::{Gate, Setup};
use crate::support::operation::REFUND;
use crate::support::pki::replace;
use crate::support::world::World;
use crate::support::{eventually, until};

/// Nobody on any machine, and no user of ours.
const STRANGER: u32 = 65_533;

/// A directory that `required` takes: the key elsewhere, and nobody both caller and operator.
fn strict(world: &World, bank: &Bank) -> (Setup, TempDir) {
    let keys = tempfile::tempdir().unwrap();
    let port = bank.port();
    let setup = world.setup(port).with(World::SHORT);
    let key = keys.path().join("client.key");
    fs::copy(setup.path().join("client.key"), &key).unwrap();
    fs::remove_file(setup.path().join("client.key")).unwrap();
    let key = key.display();
    let lines = format!(
        "url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, \
         server_name: bank.test}}\n    identity: {{cert_file: client.crt, key_file: {key}}}"
    );
    let operators = STRANGER.to_string();
    let setup = setup
        .bank(&lines)
        .operators(&operators)
        .top("hardening: required");
    (setup, keys)
}

/// Asks by SIGHUP, since nobody here is an operator, and gives how the reload went.
pub(crate) fn reload(gate: &Gate) -> Value {
    let ended = || {
        let lines = gate.lines(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message == "reloaded" || message.starts_with("reload failed")
        });
        lines.len()
    };
    let before = ended();
    gate.signal(Signal::HUP);
    // The line comes before the phase is `ready` again.
    eventually("the reload is done", || {
        (ended() > before).then_some(())?;
        let status = gate.status();
        (status["phase"] == "ready").then(|| status["last_reload"].clone())
    })
}

fn refund(gate: &Gate, key: &str) -> u16 {
    let headers = format!("Idempotency-Key: {key}\r\n");
    let body = format!("{{\"session_id\":\"{key}\"}}");
    gate.unix().post(REFUND, &headers, body.as_bytes()).status
}

/// Runs a command that is not to stay.
fn failed(setup: &Setup, adjust: impl FnOnce(&mut Command)) -> Output {
    setup.write();
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command.arg("run").arg("--config").arg(setup.config());
    adjust(&mut command);
    command.output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn under_required_a_gate_refunds_and_rotates_by_rename_again_and_again() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, keys) = strict(&world, &bank);
    let gate = setup.guarded().start();
    let confinement = gate.status()["confinement"].clone();
    assert_eq!(confinement["level"], "required");
    assert_eq!(confinement["missing"], json!([]));
    let in_force = confinement["in_force"].to_string();
    for what in [
        "not dumpable",
        "no core files",
        "no new privileges",
        "no capabilities",
        "seccomp",
        "Landlock files",
    ] {
        assert!(in_force.contains(what), "{in_force}");
    }
    assert_eq!(refund(&gate, "first-key-0001"), 200);
    for (number, key) in ["second-key-0001", "third-key-00001"]
        .into_iter()
        .enumerate()
    {
        let client = world.client_ca.client(&format!("rotated-{number}"));
        replace(&gate.path().join("client.crt"), &client.cert.pem());
        replace(&keys.path().join("client.key"), &client.key.serialize_pem());
        let reloaded = reload(&gate);
        assert_eq!(reloaded["ok"], true, "{reloaded}");
        assert_eq!(refund(&gate, key), 200);
        assert_eq!(bank.clients().last(), Some(&client.der()));
    }
    // What was committed is read by a process of its own, whose journal the gate goes on writing.
    let listed = gate.command(&["operations", "list", "--json"]);
    assert!(listed.status.success(), "{}", words(&listed));
}

/// Whether this process, and so a gate that it starts, may empty its bounding set (CAP_SETPCAP, bit 8).
fn may_drop_the_bounding_set() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    u64::from_str_radix(line.unwrap(), 16).unwrap() >> 8 & 1 == 1
}

/// Of Landlock the kernel shows nothing here: `confinement_acts` tries it, from threads that began after it.
#[test]
fn every_thread_of_a_gate_has_the_filter_and_no_privileges() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, _keys) = strict(&world, &bank);
    let gate = setup.guarded().start();
    assert_eq!(refund(&gate, "some-key-000001"), 200);
    let tasks = format!("/proc/{}/task", gate.pid().as_raw_nonzero());
    let mut names = Vec::new();
    for task in fs::read_dir(tasks).unwrap() {
        let dir = task.unwrap().path();
        let status = fs::read_to_string(dir.join("status")).unwrap();
        for line in [
            "NoNewPrivs:\t1\n",
            "Seccomp:\t2\n",
            "CapEff:\t0000000000000000\n",
            "CapPrm:\t0000000000000000\n",
            "CapAmb:\t0000000000000000\n",
        ] {
            assert!(status.contains(line), "{line} {status}");
        }
        if may_drop_the_bounding_set() {
            assert!(status.contains("CapBnd:\t0000000000000000\n"), "{status}");
        }
        names.push(status.lines().next().unwrap().to_owned());
    }
    // The log's, the journal's, and one that the handshake ran on: it is kept for a while.
    for name in ["Name:\tlog", "Name:\tjournal", "Name:\ttokio-rt-worker"] {
        assert!(names.iter().any(|it| it == name), "{names:?}");
    }
}

#[test]
fn a_reload_that_needs_more_than_is_in_force_wants_a_restart() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, _keys) = strict(&world, &bank);
    let gate = setup.start();
    let config = fs::read_to_string(gate.config()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(
        gate.path().join("bank-ca.pem"),
        elsewhere.path().join("ca.pem"),
    )
    .unwrap();
    let ca = elsewhere.path().join("ca.pem").display().to_string();
    let port = bank.port().to_string();
    for (from, to, told) in [
        ("bank-ca.pem", ca.as_str(), "the directory"),
        (port.as_str(), "1", "TCP port 1 "),
        (
            &*format!("callers: [{}]", crate::support::gate::me()),
            "callers: [daemon]",
            "the user `daemon` is new",
        ),
    ] {
        replace(&gate.config(), &config.replace(from, to));
        let reloaded = reload(&gate);
        assert_eq!(reloaded["ok"], false, "{reloaded}");
        let error = reloaded["error"].as_str().unwrap();
        assert!(
            error.contains("restart needed: ") && error.contains(told),
            "{error}"
        );
    }
    replace(&gate.config(), &config);
    assert_eq!(reload(&gate)["ok"], true);
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
}

#[test]
fn a_directory_that_is_another_one_now_wants_a_restart() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, _keys) = strict(&world, &bank);
    let place = tempfile::tempdir().unwrap();
    let ca = fs::read(setup.path().join("bank-ca.pem")).unwrap();
    for name in ["one", "two", "three"] {
        fs::create_dir(place.path().join(name)).unwrap();
        fs::write(place.path().join(name).join("bank-ca.pem"), &ca).unwrap();
    }
    let at = |name: &str| place.path().join(name);
    std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
    setup.write();
    let text = fs::read_to_string(setup.config()).unwrap();
    let linked = at("link").join("bank-ca.pem");
    let setup = setup.whole(&text.replace("bank-ca.pem", linked.to_str().unwrap()));
    let gate = setup.start();
    assert_eq!(reload(&gate)["ok"], true);
    let refused = |what: &str| {
        let reloaded = reload(&gate);
        let error = reloaded["error"].as_str().unwrap_or_default().to_owned();
        assert!(
            error.contains("restart needed: the directory"),
            "{what}: {reloaded}"
        );
    };
    // The link leads elsewhere.
    std::os::unix::fs::symlink(at("two"), at("new")).unwrap();
    fs::rename(at("new"), at("link")).unwrap();
    refused("a link");
    std::os::unix::fs::symlink(at("one"), at("new")).unwrap();
    fs::rename(at("new"), at("link")).unwrap();
    assert_eq!(reload(&gate)["ok"], true);
    // The directory has another one's name.
    fs::rename(at("one"), at("old")).unwrap();
    fs::rename(at("three"), at("one")).unwrap();
    refused("a directory");
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
}

#[test]
fn a_name_that_was_looked_up_at_the_start_is_known_to_every_reload() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, _keys) = strict(&world, &bank);
    let me = crate::support::gate::me();
    let listen = format!("{{unix: gate.sock, callers: [{me}, daemon]}}");
    let gate = setup.listen(&[&listen]).start();
    assert_eq!(reload(&gate)["ok"], true);
    assert_eq!(reload(&gate)["ok"], true);
}

#[test]
fn a_key_that_the_gate_could_read_is_refused_with_its_place_and_the_next_step() {
    let world = World::new();
    let bank = world.good_bank();
    let operators = STRANGER.to_string();
    let setup = world
        .setup(bank.port())
        .operators(&operators)
        .top("hardening: required");
    let output = failed(&setup, |_| {});
    let told = words(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    for word in [
        "identity.key_file",
        "client.key lies beneath",
        "move the key",
    ] {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_place_to_write_session_keys_to_is_refused_at_any_level() {
    let world = World::new();
    let bank = world.good_bank();
    for level in ["required", "disabled"] {
        let (setup, _keys) = strict(&world, &bank);
        let setup = if level == "required" {
            setup
        } else {
            world.setup(bank.port()).top("hardening: disabled")
        };
        let output = failed(&setup, |command| {
            command.env("SSLKEYLOGFILE", "/dev/null");
        });
        assert_eq!(output.status.code(), Some(1));
        assert!(
            words(&output).contains("SSLKEYLOGFILE is set"),
            "{}",
            words(&output)
        );
    }
}

#[test]
fn an_older_kernel_gets_the_file_rules_and_the_status_says_what_it_lacks() {
    let world = World::new();
    let bank = world.good_bank();
    for (abi, lacks) in [
        ("2", json!(["Landlock ports", "Landlock scopes"])),
        ("4", json!(["Landlock scopes"])),
    ] {
        let (setup, _keys) = strict(&world, &bank);
        let gate = setup.guarded().start_with(|command| {
            let mut command = armed(&command, None);
            command.env("PRIORGATE_LANDLOCK_ABI", abi);
            command
        });
        let confinement = gate.status()["confinement"].clone();
        assert_eq!(confinement["not_offered"], lacks);
        assert_eq!(confinement["missing"], json!([]));
        let files = format!("Landlock files (ABI {abi})");
        assert!(
            confinement["in_force"].to_string().contains(&files),
            "{confinement}"
        );
        assert_eq!(refund(&gate, "old-kernel-0001"), 200);
        assert_eq!(reload(&gate)["ok"], true);
    }
}

#[test]
fn a_kernel_without_landlock_starts_no_gate_under_required_and_one_under_best_effort() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, _keys) = strict(&world, &bank);
    setup.write();
    let mut plain = Command::new("unused");
    plain.arg("run").arg("--config").arg(setup.config());
    let output = armed(&plain, None)
        .env("PRIORGATE_LANDLOCK_ABI", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("offers no Landlock"),
        "{}",
        words(&output)
    );
    assert!(!setup.path().join("gate.sock").exists());
    let gate = world.setup(bank.port()).start_with(|command| {
        let mut command = armed(&command, None);
        command.env("PRIORGATE_LANDLOCK_ABI", "0");
        command
    });
    let missing = gate.status()["confinement"]["missing"].to_string();
    assert!(
        missing.contains("Landlock files: this kernel offers no Landlock"),
        "{missing}"
    );
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
}

/// Opens a file as another user, from a thread that has become that user.
fn open_as(uid: u32, path: String) -> io::Result<File> {
    std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        File::open(path)
    })
    .join()
    .unwrap()
}

#[test]
fn neither_another_user_nor_its_own_can_look_into_a_gate() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, keys) = strict(&world, &bank);
    let root = rustix::process::geteuid().is_root();
    let own = if root {
        65_532
    } else {
        rustix::process::geteuid().as_raw()
    };
    if root {
        // The gate's user owns what it reads, and this process, root, is its caller.
        for dir in [setup.path(), keys.path()] {
            chown(dir, Some(own), Some(own)).unwrap();
            for file in fs::read_dir(dir).unwrap() {
                chown(file.unwrap().path(), Some(own), Some(own)).unwrap();
            }
        }
    }
    let as_own = |command: &mut Command| {
        if root {
            command.uid(own).gid(own);
        }
    };
    let mut control = Command::new("sleep");
    as_own(control.arg("60"));
    let mut control = control.spawn().unwrap();
    let gate = setup.start_with(|mut command| {
        as_own(&mut command);
        command
    });
    let place = |pid: u32, what: &str| format!("/proc/{pid}/{what}");
    let pid = gate.pid().as_raw_nonzero().get().unsigned_abs();
    for what in ["mem", "environ", "maps", "fd/0", "root/etc/passwd"] {
        for uid in [own, STRANGER] {
            let refused = open_as(uid, place(pid, what));
            // A reader of another user reads nothing whoever it asks.
            let kind = refused.map(drop).map_err(|error| error.kind());
            assert_eq!(
                kind,
                Err(io::ErrorKind::PermissionDenied),
                "{what} as {uid}"
            );
        }
    }
    // The control: a process that gave nothing up is open to its own user.
    let seen = open_as(own, place(control.id(), "environ"));
    control.kill().unwrap();
    control.wait().unwrap();
    seen.unwrap();
    let limits = fs::read_to_string(place(pid, "limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"]
    );
}

/// A gate that looks a name up, and believes that `resolver` is one of the files for it.
fn with_a_name(world: &World, bank: &Bank, managed: bool) -> (Gate, TempDir) {
    let place = tempfile::tempdir().unwrap();
    let resolver = place.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 192.0.2.1\n").unwrap();
    let lines = format!(
        "url: https://localhost:{}\n    dns: {{refresh: 1s}}\n    trust: {{ca_file: bank-ca.pem, server_name: \
         bank.test}}\n    identity: {{cert_file: client.crt, key_file: client.key}}",
        bank.port()
    );
    let gate = world.setup(bank.port()).bank(&lines).start_with(|command| {
        let mut command = armed(&command, None);
        command.env("PRIORGATE_RESOLVER_FILE", &resolver);
        command.env_remove("NOTIFY_SOCKET");
        // Whatever a unit starts has these two, and its children's children as well.
        command.env("INVOCATION_ID", "0123456789abcdef");
        command.env("SYSTEMD_EXEC_PID", "1");
        if managed {
            // As the manager does it: the process that it starts is the one that it names.
            let mut shell = Command::new("sh");
            shell.args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\""]);
            shell.arg(command.get_program()).args(command.get_args());
            let known = command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?)));
            shell.envs(known).env_remove("NOTIFY_SOCKET");
            return shell;
        }
        command
    });
    (gate, place)
}

#[test]
fn a_replaced_resolver_file_ends_a_gate_that_is_started_again() {
    let world = World::new();
    let bank = world.good_bank();
    let (mut gate, place) = with_a_name(&world, &bank, true);
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
    // Written in place it is the same file, which was granted.
    fs::write(place.path().join("resolv.conf"), "nameserver 192.0.2.2\n").unwrap();
    assert_eq!(gate.status()["confinement"]["restart_needed"], Value::Null);
    replace(&place.path().join("resolv.conf"), "nameserver 192.0.2.3\n");
    assert_eq!(gate.wait().code(), Some(1), "{}", gate.log());
    until("the log says why", || {
        gate.log().contains("was replaced, and a confined process")
    });
    assert!(gate.log().contains("drained"), "{}", gate.log());
}

#[test]
fn a_replaced_resolver_file_is_told_where_nobody_starts_the_gate_again() {
    let world = World::new();
    let bank = world.good_bank();
    let (mut gate, place) = with_a_name(&world, &bank, false);
    replace(&place.path().join("resolv.conf"), "nameserver 192.0.2.3\n");
    let needed = gate.status()["confinement"]["restart_needed"].to_string();
    assert!(needed.contains("resolv.conf was replaced"), "{needed}");
    until("the log says so", || {
        gate.log().contains("restart needed: the file was replaced")
    });
    assert!(!gate.has_ended());
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
}
