//! Connections to the bank: which are used again, when none is made, and whose fault it is that there is none.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::bank::{Bank, Speaks};
use crate::support::client::{Answer, post};
use crate::support::gate::Gate;
use crate::support::world::World;
use crate::support::{eventually, until};

const BODY: &[u8] = br#"{"order_ref":"1","amount":"1.00"}"#;

fn create(gate: &Gate) -> Answer {
    gate.unix().post("/installment/create", "", BODY)
}

#[test]
fn an_idle_connection_is_used_again() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    for _ in 0..5 {
        assert_eq!(create(&gate).status, 200);
    }
    assert_eq!((bank.connections(), bank.requests().len()), (1, 5));
    // A route with `connection: fresh` never does.
    let refund = gate.unix().post("/installment/refund", "", BODY);
    assert_eq!(refund.status, 200);
    assert_eq!(bank.connections(), 2);
}

#[test]
fn after_three_failed_connects_a_dead_bank_is_not_dialled_for_a_while() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let gate = world
        .setup(port)
        .with("breaker: {failures: 3, cooldown: 30s}")
        .start();
    for _ in 0..3 {
        assert_eq!(create(&gate).code(), "bank_unreachable");
    }
    assert_eq!(gate.status()["banks"][0]["breaker"], "open");
    let answer = create(&gate);
    assert_eq!(
        (&*answer.code(), answer.outcome()),
        ("bank_unreachable", "not_sent")
    );
    assert_eq!(gate.expect_records(4)[3]["cause"], "breaker open");
}

#[test]
fn the_overload_that_a_dead_bank_causes_does_not_close_the_breaker() {
    let world = World::new();
    let bank = Bank::raw(|socket, _, _| {
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(10));
        drop(socket);
    });
    let gate = world
        .setup(bank.port())
        .with("timeouts: {connect: 500ms}")
        .with("breaker: {failures: 1, cooldown: 30s}")
        .top("threads: {handshakes: 1}")
        .start();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let target = gate.unix();
            std::thread::spawn(move || target.post("/installment/create", "", BODY))
        })
        .collect();
    for caller in callers {
        let answer = caller.join().unwrap();
        assert_eq!(answer.outcome(), "not_sent");
        let code = answer.code();
        assert!(
            ["bank_timeout", "overloaded", "bank_unreachable"].contains(&&*code),
            "{code}"
        );
    }
    assert_eq!(gate.status()["banks"][0]["breaker"], "open");
}

#[test]
fn running_out_of_descriptors_is_not_blamed_on_the_bank() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.setup(bank.port()).start_with(|command| {
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args());
        limited
    });
    let mut caller = gate.unix().connect();
    let tcp = gate.tcp();
    // More than there are descriptors: those that are not accepted wait for the next that comes free.
    let idle: Vec<_> = (0..60).filter_map(|_| tcp.try_connect().ok()).collect();
    let answer = eventually("it runs out", || {
        // A route that always dials, over a connection that stands already.
        caller
            .write_all(&post("/installment/refund", "", BODY))
            .unwrap();
        let answer = caller.answer();
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (&*answer.code(), answer.outcome()),
        ("overloaded", "not_sent")
    );
    drop(idle);
    until("it recovers", || {
        gate.unix().post("/installment/create", "", BODY).status == 200
    });
    assert_eq!(gate.status()["banks"][0]["breaker"], "closed");
}

#[test]
fn a_connection_on_which_a_rest_of_a_request_lies_takes_no_other() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        if session.index > 0 {
            return session.serve();
        }
        // Answers early, reads no body, and keeps the connection.
        session.head();
        session.answer("413 Too Large", "{}");
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(10));
    });
    let gate = world
        .setup(bank.port())
        .with("limits: {request_body: 32MiB}")
        .start();
    let answer = gate
        .unix()
        .post("/installment/create", "", &vec![b' '; 24 << 20]);
    assert_eq!((answer.status, answer.outcome()), (413, "answered"));
    let started = Instant::now();
    assert_eq!(create(&gate).status, 200);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it waited for the old connection"
    );
    assert_eq!(bank.connections(), 2);
}
