//! Who may call, by uid: on Unix sockets and on TCP, with sockets of other users and in every state that a caller can leave
//! its socket in. Only root can be other users, so only root runs these.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::Uid;
use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::bank::Bank;
use crate::support::client::{Answer, Caller, Target, post};
use crate::support::gate::Gate;
use crate::support::pki::replace;
use crate::support::world::World;
use crate::support::{PATIENCE, eventually, is_root, until};

/// Two users that need no entry anywhere, and nobody, who has one.
pub(crate) const LISTED: u32 = 64_001;
const OTHER: u32 = 64_002;
pub(crate) const NOBODY: u32 = 65_534;

const PATH: &str = "/installment/create";

/// Runs as another user, in a thread of its own: the kernel keeps users by thread.
pub(crate) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let uid = Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A gate whose three listeners have the same callers.
pub(crate) fn gate(world: &World, bank: &Bank, callers: &str) -> Gate {
    let gate = world
        .setup(bank.port())
        .listen(&[
            &format!("{{unix: gate.sock, mode: \"0666\", callers: [{callers}]}}"),
            &format!("{{tcp: \"127.0.0.1:0\", callers: [{callers}]}}"),
            &format!("{{tcp: \"[::1]:0\", callers: [{callers}]}}"),
        ])
        .start();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), mode).unwrap();
    gate
}

/// The TCP listeners, IPv4 first.
fn tcp(gate: &Gate) -> Vec<SocketAddr> {
    let status = gate.status();
    let listen = status["banks"][0]["listen"].as_array().unwrap();
    let tcp = listen.iter().filter_map(|listen| listen["tcp"].as_str());
    tcp.map(|addr| addr.parse().unwrap()).collect()
}

pub(crate) fn targets(gate: &Gate) -> Vec<Target> {
    let mut found = vec![gate.unix()];
    found.extend(tcp(gate).into_iter().map(Target::Tcp));
    assert_eq!(found.len(), 3);
    found
}

pub(crate) fn create(target: &Target) -> Answer {
    target.post(PATH, "", b"{}")
}

pub(crate) fn allowed(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
}

pub(crate) fn denied(answer: &Answer) {
    let seen = (answer.status, answer.code(), answer.outcome().to_owned());
    assert_eq!(
        seen,
        (403, "caller_denied".to_owned(), "not_sent".to_owned())
    );
}

pub(crate) fn denials(gate: &Gate) -> Value {
    gate.status()["banks"][0]["denied"].clone()
}

#[test]
fn the_listed_uid_may_call_and_every_other_may_not() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = gate(&world, &bank, &LISTED.to_string());
    for target in targets(&gate) {
        allowed(&as_user(LISTED, || create(&target)));
        for uid in [OTHER, 0, NOBODY] {
            denied(&as_user(uid, || create(&target)));
            // Before anything of the request is judged.
            denied(&as_user(uid, || target.send(b"nonsense\r\n\r\n")));
        }
    }
    assert_eq!(bank.requests().len(), 3);
    until("the denials are told", || {
        denials(&gate)["last"].is_object()
    });
    assert_eq!(denials(&gate)["total"], 18);
    let records = gate.finish();
    let uid_of = |record: &Value| record["uid"].as_u64().unwrap();
    let listed = records.iter().filter(|it| uid_of(it) == u64::from(LISTED));
    assert_eq!((records.len(), listed.count()), (21, 3));
    let told = gate.lines(|line| line["target"] == "priorgate::denied");
    let sum: u64 = told.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 18, "{told:#?}");
    assert!(told.iter().all(|row| row["cause"] == "not_listed"));
    // Each caller on each listener has a row a second, not one a request.
    assert!(told.len() < 18, "{told:#?}");
}

#[test]
fn root_and_nobody_may_call_where_they_are_listed_by_name() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    for (name, listed, other) in [("root", 0, NOBODY), ("nobody", NOBODY, 0)] {
        let gate = gate(&world, &bank, name);
        for target in targets(&gate) {
            allowed(&as_user(listed, || create(&target)));
            denied(&as_user(other, || create(&target)));
        }
    }
}

#[test]
fn where_both_are_asked_both_must_hold() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let listen = format!("{{tcp: \"127.0.0.1:0\", callers: [{LISTED}], token_files: [php.token]}}");
    let setup = world.setup(bank.port()).listen(&[&listen]);
    replace(
        &setup.path().join("php.token"),
        "0123456789abcdef0123456789abcdef\n",
    );
    let gate = setup.start();
    let target = gate.tcp();
    let right = "Priorgate-Token: 0123456789abcdef0123456789abcdef\r\n";
    let wrong = "Priorgate-Token: 0123456789abcdef0123456789abcdee\r\n";
    let asked = |uid, headers: &str| as_user(uid, || target.post(PATH, headers, b"{}"));
    allowed(&asked(LISTED, right));
    denied(&asked(OTHER, right));
    denied(&asked(OTHER, wrong));
    for headers in [wrong, ""] {
        let answer = asked(LISTED, headers);
        assert_eq!(
            (answer.status, answer.code()),
            (401, "token_required".into())
        );
    }
    assert_eq!(
        (bank.requests().len(), &denials(&gate)["total"]),
        (1, &4.into())
    );
}

/// Lets nothing of `work` be seen by the gate before all of it is done.
fn behind_its_back<T>(gate: &Gate, work: impl FnOnce() -> T) -> T {
    gate.signal(Signal::STOP);
    let done = work();
    gate.signal(Signal::CONT);
    done
}

#[test]
fn a_socket_that_was_closed_or_half_closed_before_the_check_is_denied() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = gate(&world, &bank, &format!("{LISTED}, root, nobody"));
    for addr in tcp(&gate) {
        let target = Target::Tcp(addr);
        let begin = || {
            as_user(LISTED, || {
                let mut caller = target.connect();
                caller.write_all(&post(PATH, "", b"{}")).unwrap();
                caller
            })
        };
        let before = denials(&gate)["total"].as_u64().unwrap();
        behind_its_back(&gate, || drop(begin()));
        until("the closed one is denied", || {
            denials(&gate)["total"] == before + 1
        });
        let mut half: Caller = behind_its_back(&gate, || {
            let caller = begin();
            caller.half_close();
            caller
        });
        denied(&half.answer());
        // After the check a caller may close its half: it has said all it had to say.
        let mut later = as_user(LISTED, || target.connect());
        later.write_all(&post(PATH, "", b"{}")).unwrap();
        allowed(&later.answer());
        later.write_all(&post(PATH, "", b"{}")).unwrap();
        later.half_close();
        allowed(&later.answer());
    }
    // Root and nobody are listed: what the kernel says of such sockets must not be taken for them.
    until("both families were denied twice", || {
        denials(&gate)["total"] == 4 && denials(&gate)["last"]["cause"] == "unproven"
    });
    assert_eq!(bank.requests().len(), 4);
}

/// A connection from this port, even if an earlier one from it is in TIME_WAIT.
fn connect_from(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let local: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(local, port).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn asked_over(stream: TcpStream) -> Answer {
    let mut caller = Caller::Tcp(stream);
    caller.write_all(&post(PATH, "", b"{}")).unwrap();
    caller.answer()
}

#[test]
fn a_port_in_time_wait_that_another_user_takes_is_that_users() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = gate(&world, &bank, &format!("{LISTED}, root"));
    for addr in tcp(&gate) {
        for (first, second) in [(LISTED, OTHER), (OTHER, LISTED)] {
            // The caller closes first, so that its end waits.
            let port = as_user(first, || {
                let stream = connect_from(0, addr).unwrap();
                let port = stream.local_addr().unwrap().port();
                asked_over(stream);
                port
            });
            // The kernel lets it go after a second, for another connection between the same two ports.
            let answer = as_user(second, || {
                asked_over(eventually("the port is free again", || {
                    connect_from(port, addr).ok()
                }))
            });
            if second == LISTED {
                allowed(&answer);
            } else {
                denied(&answer);
            }
        }
    }
}

#[test]
fn a_connection_that_is_handed_on_stays_its_creators() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = gate(&world, &bank, &LISTED.to_string());
    let request = "POST /installment/create HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n{}";
    // The other process writes and reads; it has the connection as its standard input.
    let asked_by = |uid: u32, connection: OwnedFd| {
        let output = Command::new("sh")
            .args(["-c", "printf \"$0\" >&0 && cat <&0", request])
            .uid(uid)
            .stdin(Stdio::from(connection))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for target in targets(&gate) {
        let made_by = |uid| {
            as_user(uid, || match target.connect() {
                Caller::Tcp(stream) => OwnedFd::from(stream),
                Caller::Unix(stream) => OwnedFd::from(stream),
            })
        };
        let told = asked_by(OTHER, made_by(LISTED));
        assert!(told.starts_with("HTTP/1.1 200"), "{target:?}: {told}");
        let told = asked_by(LISTED, made_by(OTHER));
        assert!(told.starts_with("HTTP/1.1 403"), "{target:?}: {told}");
    }
    assert_eq!(bank.requests().len(), 3);
}

#[test]
fn an_ipv6_socket_may_call_an_ipv4_listener() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = gate(&world, &bank, &LISTED.to_string());
    let addr = tcp(&gate)[0];
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), addr.port());
    // As a Java program does: an IPv6 socket for everything.
    let asked = |uid| as_user(uid, || asked_over(TcpStream::connect(mapped).unwrap()));
    allowed(&asked(LISTED));
    denied(&asked(OTHER));
}

/// A gate whose two callback listeners have callers.
pub(crate) fn callback_gate(world: &World, bank: &Bank) -> Gate {
    let setup = world.setup(bank.port()).guarded().top(&format!(
        "callbacks:\n  - name: bank\n    listen: [{{tcp: \"127.0.0.1:0\", callers: [{LISTED}]}}, {{unix: callback.sock, mode: \"0666\", callers: [{LISTED}]}}]\n    path: /cb\n    signature: {{header: X-Signature, keys: [{{id: k, algorithm: rsa-pkcs1-sha256, file: bank-callback.pem}}]}}\n    deliver: {{url: \"http://127.0.0.1:1/\", secret_files: [deliver.secret]}}"
    ));
    let key =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures/bepaid.pub");
    std::fs::copy(key, setup.path().join("bank-callback.pem")).unwrap();
    replace(
        &setup.path().join("deliver.secret"),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    );
    let gate = setup.start();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), mode).unwrap();
    gate
}

#[test]
fn callback_listeners_ask_as_well_where_they_have_callers() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = callback_gate(&world, &bank);
    let status = gate.status();
    let addr = status["callbacks"][0]["listen"][0]["tcp"].as_str().unwrap();
    let targets = [
        Target::Tcp(addr.parse().unwrap()),
        Target::Unix(gate.path().join("callback.sock")),
    ];
    for target in &targets {
        let asked = |uid| as_user(uid, || target.post("/cb", "", b"{}").status);
        // 403 both times; which one it was the record says.
        assert_eq!((asked(LISTED), asked(OTHER)), (403, 403));
    }
    let records = eventually("every notification has its record", || {
        let records = gate.lines(|line| line["target"] == "priorgate::callback");
        (records.len() == 4).then_some(records)
    });
    let codes: Vec<_> = records
        .iter()
        .map(|it| it["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        ["missing", "caller_denied", "missing", "caller_denied"]
    );
    assert_eq!(gate.status()["callbacks"][0]["denied"]["total"], 2);
}

#[test]
fn callers_on_tcp_that_come_with_a_reload_want_a_restart_the_first_time_only() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).start();
    let config = std::fs::read_to_string(gate.config()).unwrap();
    let open = "open_to_every_local_user: true";
    replace(&gate.config(), &config.replace(open, "callers: [root]"));
    let reload = gate.command(&["reload"]);
    let told = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(
        !reload.status.success() && told.contains("restart needed"),
        "{told}"
    );
    allowed(&create(&gate.tcp()));
    drop(gate);
    let gate = self::gate(&world, &bank, "root");
    let mut open_before = gate.tcp().connect();
    let config = std::fs::read_to_string(gate.config()).unwrap();
    replace(
        &gate.config(),
        &config.replace("callers: [root]", &format!("callers: [{LISTED}]")),
    );
    assert!(gate.command(&["reload"]).status.success());
    // One question a connection, judged by the list in force.
    open_before.write_all(&post(PATH, "", b"{}")).unwrap();
    denied(&open_before.answer());
    allowed(&as_user(LISTED, || create(&gate.tcp())));
}

#[test]
fn where_the_kernel_cannot_say_who_calls_the_gate_does_not_start() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let setup = world
        .setup(bank.port())
        .listen(&["{tcp: \"0.0.0.0:0\", unsafe_listen: true, callers: [root]}"]);
    setup.write();
    // A network namespace whose loopback is down: it can listen, and not reach itself.
    let output = Command::new("unshare")
        .arg("--net")
        .arg(env!("CARGO_BIN_EXE_priorgate"))
        .arg("run")
        .arg("--config")
        .arg(setup.config())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("`callers` on TCP: cannot connect to 127.0.0.1"),
        "{told}"
    );
}
