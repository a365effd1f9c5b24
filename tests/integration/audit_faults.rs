//! The audit log's disk errs: operations go on and are on record afterwards, what was only in memory is counted, and the
//! chain holds. (A disk that is full is `audit_disk`'s.)

use std::process::Command;

use serde_json::Value;

use crate::audit::{audited, log};
use crate::support::audit::{of, ours, records};
use crate::support::operation::{REFUND, ask, bank, expected, refund, seen};
use crate::support::shim::Shim;
use crate::support::until;
use crate::support::world::World;

/// The rows of the journal in a log, in the log's order.
fn rows(file: &std::path::Path) -> Vec<i64> {
    let records = records(file);
    let rows = records.iter().filter_map(|record| record["row"].as_i64());
    rows.collect()
}

#[test]
fn a_disk_that_errs_costs_no_record_of_an_operation_and_says_what_else_it_cost() {
    for fault in ["db-write:EIO", "db-sync:EIO", "db-write:ENOSPC"] {
        let world = World::new();
        let bank = bank(&world);
        let setup = audited(&world, bank.port());
        // What the shim calls the database is the log here.
        let shim = Shim::new(&setup.path().join("audit.jsonl")).while_armed(fault);
        let mut gate = setup.start_with(|command| shim.over(command));
        let file = log(&gate);
        until("the log was begun", || !of(&file, "start").is_empty());
        let run = |key: &str| {
            let answer = ask(&gate.unix(), REFUND, key, &refund(key, 100, "answer"));
            assert_eq!(
                seen(&answer),
                expected(200, "", "answered", "done"),
                "{fault} {key}"
            );
        };
        run("before");
        shim.arm();
        run("meanwhile-1");
        until("the status says so", || {
            let failing = gate.status()["audit"]["failing"].clone();
            failing.as_str().is_some_and(|why| !why.is_empty())
        });
        // Nothing waits for that disk.
        run("meanwhile-2");
        until("requests are lost, and counted", || {
            let plain = gate.unix().get("/installment/1");
            assert_eq!(plain.status, 200, "{fault}");
            gate.status()["audit"]["lost"].as_u64() >= Some(1)
        });
        shim.disarm();
        until("the log is written again", || {
            gate.status()["audit"]["failing"] == Value::Null
        });
        run("after");
        let lost = gate.status()["audit"]["lost"].as_u64().unwrap();
        gate.finish();

        let rows = rows(&file);
        let whole = (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>();
        assert_eq!(rows, whole, "{fault}");
        let done = of(&file, "operation");
        let done = done.iter().filter(|record| record["delivered"] == true);
        assert_eq!(done.count(), 4, "{fault}");
        let gaps = of(&file, "gap");
        let told: u64 = gaps
            .iter()
            .filter(|gap| gap["lost"] == "requests")
            .map(|gap| gap["records"].as_u64().unwrap())
            .sum();
        assert_eq!(told, lost, "{fault}: {gaps:#?}");
        let said = ours(None, std::slice::from_ref(&file), &[]);
        assert!(said.good, "{fault}: {}", said.text);
    }
}

#[test]
fn a_gate_that_is_killed_while_the_disk_errs_owes_the_log_nothing_after_the_next_start() {
    let world = World::new();
    let bank = bank(&world);
    let setup = audited(&world, bank.port());
    let shim = Shim::new(&setup.path().join("audit.jsonl")).while_armed("db-write:EIO");
    let gate = setup.start_with(|command| shim.over(command));
    let file = log(&gate);
    until("the log was begun", || !of(&file, "start").is_empty());
    shim.arm();
    for key in ["k1", "k2"] {
        let answer = ask(&gate.unix(), REFUND, key, &refund(key, 100, "answer"));
        assert_eq!(answer.status, 200, "{key}");
    }
    let mut gate = gate.crash_and_restart();
    until("the log has what it was owed", || {
        let operations = of(&file, "operation");
        operations
            .iter()
            .filter(|record| record["state"] == "done")
            .count()
            >= 2
    });
    assert_eq!(gate.status()["journal"]["doubted"], false);
    gate.finish();
    let starts = of(&file, "start");
    assert_eq!(starts.last().unwrap()["after_crash"], true);
    let rows = rows(&file);
    let whole = (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>();
    assert_eq!(rows, whole);
    let said = ours(None, std::slice::from_ref(&file), &[]);
    assert!(said.good, "{}", said.text);
}

#[test]
fn a_log_that_cannot_be_synced_at_the_start_starts_no_gate() {
    let world = World::new();
    let bank = bank(&world);
    let setup = audited(&world, bank.port());
    setup.write();
    let shim = Shim::new(&setup.path().join("audit.jsonl")).always("db-sync:EIO");
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command.args(["run", "--config"]).arg(setup.config());
    let output = shim.over(command).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    for word in ["audit log", "cannot sync it", "os error 5"] {
        assert!(told.contains(word), "{told}");
    }
    assert!(!setup.path().join("gate.sock").exists());
}
