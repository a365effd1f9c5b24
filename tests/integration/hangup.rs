//! A caller that hangs up at any moment: exactly one record, none before a head's first byte, and the bank's count is right.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::bank::{Bank, Session, Speaks};
use crate::support::client::{Caller, Target, post};
use crate::support::gate::Gate;
use crate::support::until;
use crate::support::world::World;

/// How a caller leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Closes,
    HalfCloses,
    Resets,
}

const WAYS: [Leaves; 3] = [Leaves::Closes, Leaves::HalfCloses, Leaves::Resets];

/// Leaves; a half-closed connection stays to be read from.
fn leave(caller: Caller, how: Leaves) -> Option<Caller> {
    match how {
        Leaves::Closes => None,
        Leaves::HalfCloses => {
            caller.half_close();
            Some(caller)
        }
        Leaves::Resets => {
            caller.reset();
            None
        }
    }
}

/// A bank whose answer waits for a cue.
fn slow_bank(world: &World) -> (Bank, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let bank = world.bank(Speaks::Tls13, move |mut session: Session| {
        while session.request().is_some() {
            let _ = released
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(10));
            session.answer("200 OK", "{}");
        }
    });
    (bank, release)
}

fn targets(gate: &Gate) -> [Target; 2] {
    [gate.tcp(), gate.unix()]
}

#[test]
fn nothing_was_said_nothing_is_recorded() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    for target in targets(&gate) {
        for how in WAYS {
            drop(leave(target.connect(), how));
        }
    }
    // A later request is recorded, and alone.
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
    gate.expect_records(1);
}

#[test]
fn a_caller_that_leaves_inside_its_request_leaves_one_record_and_reaches_no_bank() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let request = post("/installment/create", "", b"{\"a\":1}");
    let head = request.len() - 7;
    let mut expected = 0;
    for target in targets(&gate) {
        for how in WAYS {
            for cut in [1, 10, head - 1, head, head + 1, request.len() - 1] {
                let mut caller = target.connect();
                caller.write_all(&request[..cut]).unwrap();
                let stays = leave(caller, how);
                expected += 1;
                let record = gate.expect_records(expected).remove(expected - 1);
                assert_eq!(
                    (&record["code"], &record["outcome"]),
                    (&"caller_gone".into(), &"not_sent".into()),
                    "{how:?} after {cut}"
                );
                if let Some(mut caller) = stays {
                    assert_eq!(caller.answer().status, 400, "it still listens");
                }
            }
        }
    }
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn a_caller_that_leaves_after_its_request_cancels_nothing() {
    let world = World::new();
    let (bank, release) = slow_bank(&world);
    let gate = world.setup(bank.port()).start();
    let request = post("/installment/create", "", b"{}");
    let mut expected = 0;
    for target in targets(&gate) {
        for how in WAYS {
            let mut caller = target.connect();
            caller.write_all(&request).unwrap();
            until("the bank has it", || bank.requests().len() == expected + 1);
            let stays = leave(caller, how);
            expected += 1;
            release.send(()).unwrap();
            let record = gate.expect_records(expected).remove(expected - 1);
            assert_eq!(
                (&record["status"], &record["outcome"]),
                (&200.into(), &"answered".into()),
                "{how:?}"
            );
            if let Some(mut caller) = stays {
                assert_eq!(
                    caller.answer().status,
                    200,
                    "a half-closed caller gets its answer"
                );
            }
        }
    }
    assert_eq!(bank.requests().len(), expected);
    assert_eq!(gate.counts(), (6, 0, 0));
}

#[test]
fn a_caller_that_never_reads_its_answer_is_let_go() {
    let world = World::new();
    let body = " ".repeat(900 << 10);
    let bank = world.bank(Speaks::Tls13, move |mut session: Session| {
        while session.request().is_some() {
            session.answer("200 OK", &body);
        }
    });
    let gate = world
        .setup(bank.port())
        .with("timeouts: {idle: 300ms}")
        .with("limits: {connections: 2}")
        .start();
    // Two such callers hold every place, for no longer than idle.
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut caller = gate.tcp().connect();
        if let Caller::Tcp(stream) = &caller {
            socket2::SockRef::from(stream)
                .set_recv_buffer_size(4096)
                .unwrap();
        }
        for _ in 0..8 {
            caller
                .write_all(&post("/installment/create", "", b"{}"))
                .unwrap();
        }
        stalled.push(caller);
    }
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        200
    );
}

#[test]
fn a_request_that_runs_when_the_drains_deadline_passes_is_recorded_as_unknown() {
    let world = World::new();
    let (bank, _release) = slow_bank(&world);
    let mut gate = world
        .setup(bank.port())
        .top("shutdown: {drain: 300ms}")
        .start();
    let mut caller = gate.unix().connect();
    caller
        .write_all(&post("/installment/create", "", b"{}"))
        .unwrap();
    until("the bank has it", || bank.requests().len() == 1);
    gate.signal(rustix::process::Signal::TERM);
    assert_eq!(gate.wait().code(), Some(0));
    let record = gate.expect_records(1).remove(0);
    assert_eq!(
        (&record["code"], &record["outcome"]),
        (&"caller_gone".into(), &"unknown".into())
    );
}

#[test]
fn a_caller_that_leaves_inside_its_answer_leaves_one_record() {
    let world = World::new();
    let body = " ".repeat(900 << 10);
    let bank = world.bank(Speaks::Tls13, move |mut session: Session| {
        while session.request().is_some() {
            session.answer("200 OK", &body);
        }
    });
    let mut gate = world.setup(bank.port()).start();
    let mut expected = 0;
    for target in targets(&gate) {
        for how in [Leaves::Closes, Leaves::Resets] {
            for read in [1, 1000, 100_000] {
                let mut caller = target.connect();
                caller
                    .write_all(&post("/installment/create", "", b"{}"))
                    .unwrap();
                caller.read_exact(&mut vec![0; read]).unwrap();
                leave(caller, how);
                expected += 1;
                let record = gate.expect_records(expected).remove(expected - 1);
                assert_eq!(record["outcome"], "answered", "{how:?} after {read}");
            }
        }
    }
    assert_eq!(bank.requests().len(), expected);
    assert_eq!(gate.finish().len(), expected);
}

/// One caller of the storm: who it is, how much of its request it sent, how it left.
#[derive(Debug)]
struct Left {
    id: String,
    whole: bool,
    how: Leaves,
}

/// Sends part of a request and leaves. Every fourth waits a moment in between.
fn come_and_go(target: &Target, number: usize) -> Left {
    let id = format!("storm-{number:08}");
    let body = vec![b' '; number % 5 * 20_000];
    let request = post(
        "/installment/create",
        &format!("X-Request-Id: {id}\r\n"),
        &body,
    );
    // A third send all of it; the others stop at places spread over head and body.
    let sent = match number % 3 {
        0 => request.len(),
        _ => 1 + number * 7919 % (request.len() - 1),
    };
    let how = WAYS[number / 3 % 3];
    let mut caller = target.connect();
    caller.write_all(&request[..sent]).unwrap();
    if number.is_multiple_of(4) {
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_micros(number as u64 % 11 * 200));
    }
    if let Some(mut caller) = leave(caller, how) {
        let answer = caller.answer();
        let whole = sent == request.len();
        assert_eq!(answer.status, if whole { 200 } else { 400 }, "{id}");
    }
    Left {
        id,
        whole: sent == request.len(),
        how,
    }
}

#[test]
fn a_storm_of_callers_that_leave_anywhere_leaves_one_record_each_and_no_request_twice() {
    const THREADS: usize = 4;
    const EACH: usize = 60;
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = world.setup(bank.port()).start();
    let storm: Vec<_> = (0..THREADS)
        .map(|thread| {
            let target = targets(&gate)[thread % 2].clone();
            std::thread::spawn(move || {
                (0..EACH)
                    .map(|n| come_and_go(&target, n * THREADS + thread))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let left: Vec<Left> = storm
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    gate.expect_records(left.len());
    let records = gate.finish();
    assert_eq!(records.len(), left.len());
    let requests = bank.requests();
    let at_the_bank = |id: &str| {
        let line = format!("x-request-id: {id}\r\n");
        requests.iter().filter(|r| r.head.contains(&line)).count()
    };
    for caller in &left {
        let told: Vec<_> = records
            .iter()
            .filter(|record| record["request_id"] == caller.id)
            .collect();
        let seen = at_the_bank(&caller.id);
        if caller.whole && !matches!(caller.how, Leaves::Resets) {
            assert_eq!((told.len(), seen), (1, 1), "{caller:?}");
            assert_eq!(told[0]["outcome"], "answered", "{caller:?}");
        } else if !caller.whole {
            // A head that was cut has no id to be found by; all that counts is that the bank never
            // heard of it.
            assert!(told.len() <= 1 && seen == 0, "{caller:?} {told:?}");
        } else {
            // A reset may outrun the request, but what was sent was sent once and says so.
            let sent = told.iter().filter(|r| r["outcome"] == "answered").count();
            assert!(seen <= 1 && sent == seen, "{caller:?} {told:?}");
        }
    }
    let answered = records.iter().filter(|r| r["outcome"] == "answered");
    assert_eq!(answered.count(), requests.len());
}
