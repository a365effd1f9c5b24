//! The second between the commit of `sent` and the first byte: a process that was frozen in it sends nothing any more.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Answer;
use crate::support::failpoints::armed;
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, ask, bank, expected, refund, seen};
use crate::support::until;
use crate::support::world::World;

/// Asks for a refund of a gate that is held between the commit and the first byte, and lets it go after `meanwhile`.
fn held(meanwhile: impl FnOnce(&Gate)) -> (Answer, Answer, usize) {
    let world = World::new();
    let bank = bank(&world);
    let setup = world.setup(bank.port()).guarded();
    let go = setup.path().join("go");
    let failpoint = format!("sent.after_commit:pause-file:{}", go.display());
    let gate = setup.start_with(|command| armed(&command, Some(&failpoint)));
    let (target, body) = (gate.unix(), refund("s1", 100, "answer"));
    let asked = std::thread::spawn(move || ask(&target, REFUND, "k1", &body));
    // The row is on disk, and its writer is held.
    until("sent is committed", || {
        let listed = gate.command(&["operations", "list", "--json"]);
        String::from_utf8_lossy(&listed.stdout).contains("\"state\": \"sent\"")
    });
    meanwhile(&gate);
    std::fs::write(&go, "").unwrap();
    let answer = asked.join().unwrap();
    let sent = bank.requests().len();
    let again = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    (answer, again, sent)
}

#[test]
fn a_gate_frozen_for_three_seconds_before_its_first_byte_sends_nothing() {
    let (answer, again, sent) = held(|gate| {
        gate.signal(Signal::STOP);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        gate.signal(Signal::CONT);
    });
    assert_eq!(sent, 0, "the bank got it all the same");
    assert_eq!(
        seen(&answer),
        expected(502, "bank_unreachable", "not_sent", "not_sent")
    );
    assert_eq!(
        seen(&again),
        expected(200, "", "answered", "done"),
        "its key runs again"
    );
}

#[test]
fn a_gate_that_was_only_held_a_moment_sends_it() {
    let (answer, again, sent) = held(|_| {});
    assert_eq!(seen(&answer), expected(200, "", "answered", "done"));
    assert_eq!(sent, 1);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}
