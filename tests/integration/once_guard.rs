//! The once guard's promise: one refund is one refund, whatever the caller, the bank or the process does.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Target;
use crate::support::gate::{Gate, me};
use crate::support::operation::{REFUND, ask, bank, bytes, expected, operation, refund, seen};
use crate::support::world::World;
use crate::support::{eventually, until};

const CANCEL: &str = "/installment/cancel";

fn gate(world: &World, port: u16) -> Gate {
    world
        .setup(port)
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 4s}")
        .start()
}

#[test]
fn a_refund_that_is_asked_for_twice_is_sent_once_and_answered_twice() {
    let world = World::new();
    let bank = bank(&world);
    let gate = gate(&world, bank.port());
    let body = refund("s1", 100, "answer");
    let first = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(seen(&first), expected(200, "", "answered", "done"));
    assert_eq!(first.header("idempotency-replayed"), None);
    // The quoted form is the same key, and so is the key over another listener.
    for (target, key) in [(gate.unix(), "\"k1\""), (gate.tcp(), "k1")] {
        let again = ask(&target, REFUND, key, &body);
        assert_eq!(seen(&again), seen(&first));
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(operation(&again), operation(&first));
    }
    assert_eq!(bank.requests().len(), 1);
    // Each refund has a connection of its own, and the bank sees the key.
    let another = ask(&gate.unix(), REFUND, "k2", &refund("s1", 50, "answer"));
    assert_eq!(seen(&another), expected(200, "", "answered", "done"));
    assert_eq!((bank.requests().len(), bank.connections()), (2, 2));
    assert!(bank.requests()[1].head.contains("idempotency-key: k2\r\n"));
}

#[test]
fn a_lost_answer_stays_unknown_and_no_other_key_route_or_user_walks_around_it() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world
        .setup(bank.port())
        .guarded()
        .listen(&[
            "{unix: gate.sock, mode: \"0666\", callers: [nobody, CALLER]}"
                .replace("CALLER", &me())
                .as_str(),
            "{tcp: \"127.0.0.1:0\", open_to_every_local_user: true}",
        ])
        .start();
    let lost = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "lose"));
    assert_eq!(
        seen(&lost),
        expected(502, "bank_disconnected", "unknown", "unknown")
    );
    let id = operation(&lost).0;
    let again = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "lose"));
    assert_eq!(
        seen(&again),
        expected(409, "outcome_unknown", "unknown", "unknown")
    );
    assert!(again.json()["detail"].as_str().unwrap().contains(&id));
    for (path, body) in [
        (REFUND, refund("s1", 100, "answer")),
        (REFUND, refund("s1", 1, "answer")),
        (CANCEL, refund("s1", 100, "answer")),
    ] {
        let busy = ask(&gate.tcp(), path, "fresh", &body);
        assert_eq!(
            seen(&busy),
            expected(409, "subject_busy", "unknown", "unknown")
        );
        assert_eq!(operation(&busy).0, id, "the operation that blocks is named");
    }
    if let Some(status) = as_another_user(&gate, &refund("s1", 3, "answer")) {
        assert_eq!(status, "409");
    }
    assert_eq!(bank.requests().len(), 1, "the bank counts one refund");
    let other = ask(&gate.unix(), REFUND, "k3", &refund("s2", 100, "answer"));
    assert_eq!(other.status, 200, "another session is none of its business");
}

/// The status that user 65534 gets over the socket. Only root can become somebody else.
fn as_another_user(gate: &Gate, body: &str) -> Option<String> {
    use std::os::unix::process::CommandExt;
    if !rustix::process::getuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must be able to change users"
        );
        return None;
    }
    // The socket lies in a directory that only its owner may enter.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), mode).unwrap();
    let output = Command::new("curl")
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
        ])
        .arg(gate.path().join("gate.sock"))
        .args(["-H", "Idempotency-Key: other-user", "-d", body])
        .arg(format!("http://localhost{REFUND}"))
        .uid(65534)
        .output()
        .unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn of_sixty_four_at_once_under_one_key_one_reaches_the_bank() {
    let world = World::new();
    let bank = bank(&world);
    let gate = Arc::new(gate(&world, bank.port()));
    let body = Arc::new(refund("s1", 100, "wait:300"));
    let asked: Vec<_> = (0..64)
        .map(|index| {
            let (gate, body) = (Arc::clone(&gate), Arc::clone(&body));
            let target = if index % 2 == 0 {
                gate.unix()
            } else {
                gate.tcp()
            };
            std::thread::spawn(move || ask(&target, REFUND, "k1", &body))
        })
        .collect();
    let answers: Vec<_> = asked
        .into_iter()
        .map(|asked| asked.join().unwrap())
        .collect();
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    let busy = answers
        .iter()
        .filter(|answer| answer.code() == "operation_in_flight")
        .inspect(|answer| assert!(answer.header("retry-after").is_some()))
        .count();
    assert_eq!(bank.requests().len(), 1);
    assert!(done >= 1, "nobody got the answer");
    assert_eq!(done + busy, 64);
    let again = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!((again.status, bank.requests().len()), (200, 1));
}

#[test]
fn a_caller_that_hangs_up_finds_its_answer_under_its_key() {
    let world = World::new();
    let bank = bank(&world);
    let gate = gate(&world, bank.port());
    for (index, target) in [gate.unix(), gate.tcp()].into_iter().enumerate() {
        for (kind, hang_up) in [("close", false), ("reset", true)] {
            let session = format!("s{index}{kind}");
            let body = refund(&session, 100, "wait:200");
            let before = bank.requests().len();
            let mut caller = target.connect();
            std::io::Write::write_all(&mut caller, &bytes(REFUND, &session, &body)).unwrap();
            if hang_up {
                // A reset that overtakes the request would take it away: that is another scenario.
                until("the bank has it", || bank.requests().len() > before);
                caller.reset();
            } else {
                drop(caller);
            }
            until("the bank has it", || bank.requests().len() > before);
            // Until its own key has asked, its subject is held: nobody has seen the answer.
            let answer = eventually("the operation is over", || {
                let busy = ask(
                    &gate.unix(),
                    CANCEL,
                    "other",
                    &refund(&session, 1, "answer"),
                );
                assert_eq!(busy.code(), "subject_busy");
                (operation(&busy).1 == "done").then_some(busy)
            });
            assert_eq!(answer.outcome(), "answered");
            let again = ask(&gate.unix(), REFUND, &session, &body);
            assert_eq!(seen(&again), expected(200, "", "answered", "done"));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(bank.requests().len(), before + 1);
            let free = ask(
                &gate.unix(),
                CANCEL,
                &format!("c{session}"),
                &refund(&session, 1, "answer"),
            );
            assert_eq!(free.status, 200, "{free:?}");
        }
    }
}

#[test]
fn an_answer_after_the_time_out_is_kept_for_its_key_and_lets_no_other_key_through() {
    let world = World::new();
    let bank = bank(&world);
    let gate = gate(&world, bank.port());
    let body = refund("s1", 100, "wait:1800");
    let started = Instant::now();
    let late = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(
        seen(&late),
        expected(504, "bank_timeout", "unknown", "unknown")
    );
    assert!(
        started.elapsed() < Duration::from_millis(1_700),
        "PHP is told in time"
    );
    let listening = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(
        seen(&listening),
        expected(409, "outcome_unknown", "unknown", "unknown")
    );
    assert!(
        listening.json()["detail"]
            .as_str()
            .unwrap()
            .contains("still listens")
    );
    let other = || ask(&gate.unix(), REFUND, "k2", &refund("s1", 1, "answer"));
    let busy = eventually("the bank has answered", || {
        let busy = other();
        assert_eq!(busy.code(), "subject_busy");
        (operation(&busy).1 == "done").then_some(busy)
    });
    assert_eq!(busy.outcome(), "answered");
    let same = ask(&gate.unix(), REFUND, "k3", &body);
    assert_eq!(
        seen(&same),
        expected(409, "duplicate_request", "answered", "done")
    );
    let replayed = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(seen(&replayed), expected(200, "", "answered", "done"));
    assert_eq!(bank.requests().len(), 1);
    // Now somebody knows: another operation may follow, the same one is still a duplicate.
    let same = ask(&gate.unix(), REFUND, "k4", &body);
    assert_eq!(same.code(), "duplicate_request");
    assert_eq!(other().status, 200);
    assert_eq!(bank.requests().len(), 2);
}

#[test]
fn a_bank_that_never_answers_leaves_it_unknown_after_settle() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world
        .setup(bank.port())
        .guarded()
        .with("timeouts: {connect: 2s, response: 300ms, total: 3s, settle: 600ms}")
        .start();
    let body = refund("s1", 100, "wait:4000");
    let late = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(late.status, 504);
    let unknown = eventually("nobody listens any more", || {
        let unknown = ask(&gate.unix(), REFUND, "k1", &body);
        assert_eq!(unknown.code(), "outcome_unknown");
        let detail = unknown.json()["detail"].as_str().unwrap().to_owned();
        (!detail.contains("still listens")).then_some(detail)
    });
    assert!(unknown.contains("operations resolve"), "{unknown}");
    assert_eq!(bank.requests().len(), 1);
}

#[test]
fn a_kill_in_the_middle_leaves_it_unknown_for_the_next_process() {
    let world = World::new();
    let bank = bank(&world);
    let gate = gate(&world, bank.port());
    let body = refund("s1", 100, "wait:60000");
    let mut caller = gate.unix().connect();
    std::io::Write::write_all(&mut caller, &bytes(REFUND, "k1", &body)).unwrap();
    until("the bank has it", || bank.requests().len() == 1);
    let mut gate = gate.crash_and_restart();
    let again = ask(&gate.unix(), REFUND, "k1", &body);
    assert_eq!(
        seen(&again),
        expected(409, "outcome_unknown", "unknown", "unknown")
    );
    let other = ask(&gate.unix(), REFUND, "k2", &refund("s1", 1, "answer"));
    assert_eq!(other.code(), "subject_busy");
    assert_eq!(bank.requests().len(), 1);
    assert_eq!(gate.status()["journal"]["unknown"], 1);
    gate.finish();
    let log = gate.log();
    for secret in ["k1", "\"s1\"", "session_id="] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_second_gate_on_the_same_journal_ends_at_once_and_disturbs_nothing() {
    let world = World::new();
    let bank = bank(&world);
    let gate = gate(&world, bank.port());
    let second = gate.command(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("in use by another gate"), "{text}");
    let answer = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    assert_eq!(answer.status, 200, "the first one's socket is still there");
}

#[test]
fn a_drain_waits_for_the_caller_of_a_running_operation() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = gate(&world, bank.port());
    let (target, body) = (gate.unix(), refund("s1", 100, "wait:500"));
    let asked = std::thread::spawn(move || ask(&target, REFUND, "k1", &body));
    until("the bank has it", || bank.requests().len() == 1);
    gate.signal(Signal::TERM);
    assert_eq!(asked.join().unwrap().status, 200);
    assert_eq!(gate.wait().code(), Some(0));
    let gate = gate.crash_and_restart();
    let again = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "wait:500"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[test]
fn a_request_that_left_nothing_behind_runs_again_under_its_key() {
    let world = World::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let gate = gate(&world, port);
    let body = refund("s1", 100, "answer");
    for _ in 0..2 {
        let unreachable = ask(&gate.unix(), REFUND, "k1", &body);
        assert_eq!(
            seen(&unreachable),
            expected(502, "bank_unreachable", "not_sent", "not_sent")
        );
    }
    let Target::Unix(_) = gate.unix() else {
        panic!("a socket");
    };
    let other = ask(&gate.unix(), REFUND, "k2", &refund("s1", 1, "answer"));
    assert_eq!(
        other.outcome(),
        "not_sent",
        "the subject is free: {other:?}"
    );
}
