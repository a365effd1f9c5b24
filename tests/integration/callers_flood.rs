//! Whoever may not call cannot keep those who may from calling, nor fill the log.

use std::io::Write;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::callers::{LISTED, NOBODY, allowed, as_user, create, denials, denied, gate, targets};
use crate::support::client::Target;
use crate::support::until;
use crate::support::world::World;

/// More than `limits.connections` has places.
const FLOOD: usize = 1500;

fn room_for_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.unwrap_or(8192).min(8192));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

#[test]
fn silent_connections_of_a_denied_user_take_no_callers_place() {
    if !crate::support::is_root() {
        return;
    }
    room_for_descriptors();
    let world = World::new();
    let bank = world.good_bank();
    let gate = gate(&world, &bank, &LISTED.to_string());
    for target in targets(&gate) {
        let before = denials(&gate)["total"].as_u64().unwrap();
        let silent: Vec<_> = as_user(NOBODY, || (0..FLOOD).map(|_| target.connect()).collect());
        // All but the few that wait for their answer (again and again, while these connect) are turned away, and counted.
        until("they were judged", || {
            denials(&gate)["total"].as_u64().unwrap() >= before + 1000
        });
        for target in targets(&gate) {
            allowed(&as_user(LISTED, || create(&target)));
        }
        drop(silent);
        until("a denied caller is told so again", || {
            as_user(NOBODY, || {
                let mut asked = target.connect();
                let request = crate::support::client::post("/installment/create", "", b"{}");
                asked.write_all(&request).is_ok() && asked.try_answer().is_ok()
            })
        });
    }
}

#[test]
fn a_denied_request_has_no_line_of_its_own_at_the_usual_level() {
    if !crate::support::is_root() {
        return;
    }
    let world = World::new();
    let bank = world.good_bank();
    let mut gate = gate(&world, &bank, &LISTED.to_string());
    for target in targets(&gate) {
        for _ in 0..5 {
            denied(&as_user(NOBODY, || create(&target)));
        }
        allowed(&as_user(LISTED, || create(&target)));
    }
    let records = gate.finish();
    assert_eq!(records.len(), 18);
    for record in &records {
        let expected = if record["code"] == "caller_denied" {
            "DEBUG"
        } else {
            "INFO"
        };
        assert_eq!(record["level"], expected, "{record}");
    }
    let told = gate.lines(|line| line["target"] == "priorgate::denied");
    assert!(told.iter().all(|line| line["level"] == "WARN"));
    let sum: u64 = told.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 15);
}

#[test]
fn denied_callers_of_a_callback_listener_take_no_place_either() {
    if !crate::support::is_root() {
        return;
    }
    room_for_descriptors();
    let world = World::new();
    let bank = world.good_bank();
    let gate = crate::callers::callback_gate(&world, &bank);
    let status = gate.status();
    let addr = status["callbacks"][0]["listen"][0]["tcp"].as_str().unwrap();
    let target = Target::Tcp(addr.parse().unwrap());
    let _silent: Vec<_> = as_user(NOBODY, || (0..FLOOD).map(|_| target.connect()).collect());
    until("they were judged", || {
        gate.status()["callbacks"][0]["denied"]["total"].as_u64() >= Some(1000)
    });
    // Served: without a signature it is 403, after its own check.
    assert_eq!(
        as_user(LISTED, || target.post("/cb", "", b"{}").status),
        403
    );
    until("by the check of signatures", || {
        !gate
            .lines(|line| line["target"] == "priorgate::callback" && line["code"] == "missing")
            .is_empty()
    });
}
