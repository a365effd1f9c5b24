//! What a reload replaces takes effect for the very next request; what a drain finds half arrived
//! is finished or told so.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::post;
use crate::support::pki::{Ca, replace};
use crate::support::until;
use crate::support::world::World;

#[test]
fn a_rotated_token_is_taken_and_the_old_one_is_not() {
    const OLD: &str = "the-old-token-0123456789";
    const NEW: &str = "the-new-token-0123456789";
    let world = World::new();
    let bank = world.good_bank();
    let setup = world
        .setup(bank.port())
        .listen(&["{tcp: \"127.0.0.1:0\", token_files: [php.token]}"]);
    replace(&setup.path().join("php.token"), OLD);
    let gate = setup.start();
    let mut kept = gate.tcp().connect();
    let mut status = |token: &str| {
        let header = format!("Priorgate-Token: {token}\r\n");
        let fresh = gate
            .tcp()
            .post("/installment/create", &header, b"{}")
            .status;
        // A connection that was kept from before is asked like any other. A refusal ends it.
        let _ = kept.write_all(&post("/installment/create", &header, b"{}"));
        let old = kept.answer().status;
        if old != 200 {
            kept = gate.tcp().connect();
        }
        (fresh, old)
    };
    assert_eq!(status(OLD), (200, 200));
    replace(&gate.path().join("php.token"), NEW);
    // Nothing changes before the reload.
    assert_eq!(status(OLD), (200, 200));
    assert!(gate.command(&["reload"]).status.success());
    assert_eq!(status(OLD), (401, 401));
    assert_eq!(status(NEW), (200, 200));
    // A file that is no token keeps the last good one.
    replace(&gate.path().join("php.token"), "short");
    assert_eq!(gate.command(&["reload"]).status.code(), Some(1));
    assert_eq!(status(NEW), (200, 200));
    assert!(!gate.log().contains(OLD) && !gate.log().contains(NEW));
}

#[test]
fn a_kept_connection_does_not_outlive_the_trust_that_it_was_made_with() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let create = || gate.unix().post("/installment/create", "", b"{}");
    assert_eq!(create().status, 200);
    replace(
        &gate.path().join("bank-ca.pem"),
        &Ca::new("another ca").pem(),
    );
    assert_eq!((create().status, bank.connections()), (200, 1));
    assert!(gate.command(&["reload"]).status.success());
    let answer = create();
    assert_eq!(
        (&*answer.code(), answer.outcome()),
        ("bank_untrusted", "not_sent")
    );
    assert_eq!((bank.requests().len(), bank.connections()), (2, 2));
}

#[test]
fn a_drain_finishes_a_request_whose_body_is_still_coming() {
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = world.setup(bank.port()).start();
    let request = post(
        "/installment/create",
        "Expect: 100-continue\r\n",
        b"{\"a\":1}",
    );
    let mut caller = gate.unix().connect();
    caller.write_all(&request[..request.len() - 4]).unwrap();
    // The interim answer says that the request is being served.
    caller.read_exact(&mut [0; 25]).unwrap();
    gate.signal(Signal::TERM);
    until("it drains", || gate.status()["phase"] == "draining");
    caller.write_all(&request[request.len() - 4..]).unwrap();
    let answer = caller.answer();
    assert_eq!((answer.status, answer.outcome()), (200, "answered"));
    assert_eq!(gate.wait().code(), Some(0));
    assert_eq!(bank.requests()[0].body, b"{\"a\":1}");
}

#[test]
fn a_drain_does_not_wait_for_idle_callers_or_for_half_a_head() {
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = world
        .setup(bank.port())
        .top("shutdown: {drain: 15s}")
        .start();
    let mut idle = gate.tcp().connect();
    idle.write_all(&post("/installment/create", "", b"{}"))
        .unwrap();
    assert_eq!(idle.answer().status, 200);
    let mut slow = gate.unix().connect();
    slow.write_all(b"POST /installment/create HTTP/1.1\r\nHo")
        .unwrap();
    // A later connection that was served: the bytes before it have been read.
    assert_eq!(gate.unix().get("/installment/s1").status, 200);
    let started = Instant::now();
    let records = gate.finish();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap(), 0);
    let told: Vec<_> = records
        .iter()
        .map(|record| (record["code"].as_str(), record["outcome"].as_str()))
        .collect();
    let answered = (Some(""), Some("answered"));
    let draining = (Some("draining"), Some("not_sent"));
    assert_eq!(told, [answered, answered, draining]);
    assert_eq!(bank.requests().len(), 2);
}
