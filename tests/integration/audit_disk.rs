//! The audit log's disk is full: unguarded requests go on, guarded ones until the journal owes too much, callbacks for ever;
//! and when there is space again the log has what it was owed, and says what it was not.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::audit::audited;
use crate::support::audit::{of, ours, records};
use crate::support::disk::Disk;
use crate::support::failpoints::armed;
use crate::support::operation::{REFUND, ask, bank, expected, refund, seen};
use crate::support::until;
use crate::support::world::World;

/// Rows that the journal of this scenario may owe: four refunds'.
const BOUND: &str = "16";

#[test]
fn a_full_disk_of_the_log_stops_guarded_requests_at_the_bound_and_nothing_else() {
    let Some(disk) = Disk::mount() else { return };
    let world = World::new();
    let bank = bank(&world);
    let file = disk.path().join("audit.jsonl");
    let setup = world
        .setup(bank.port())
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 2s}")
        .top(&format!("audit: {{file: {}}}", file.display()));
    let bounded = |command: Command| {
        let mut command = armed(&command, None);
        command.env("PRIORGATE_OUTBOX_MAX", BOUND);
        command
    };
    let mut gate = setup.start_with(bounded);
    until("the log was opened", || !of(&file, "start").is_empty());
    disk.fill(0);

    let mut done = 0;
    let refused = loop {
        let answer = ask(
            &gate.unix(),
            REFUND,
            &format!("k{done}"),
            &refund(&format!("s{done}"), 100, "answer"),
        );
        if answer.status != 200 {
            break answer;
        }
        done += 1;
        assert!(done < 100, "it never stops");
    };
    assert_eq!(
        seen(&refused),
        expected(503, "journal_unavailable", "not_sent", "")
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("the audit log is not written"), "{detail}");
    assert!((2..=8).contains(&done), "{done} refunds before the bound");
    until("the status says so", || {
        gate.status()["audit"]["failing"] != Value::Null
    });
    // An unguarded request never waits on a disk. The file's last block takes some of them.
    until("requests are lost, and counted", || {
        let plain = gate
            .unix()
            .send(b"GET /installment/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(plain.status, 200);
        gate.status()["audit"]["lost"].as_u64() >= Some(1)
    });

    disk.empty();
    until("the log is written again", || {
        gate.status()["audit"]["failing"] == Value::Null
    });
    until("guarded requests run again", || {
        let answer = ask(
            &gate.unix(),
            REFUND,
            "after",
            &refund("after", 100, "answer"),
        );
        answer.status == 200
    });
    gate.finish();
    let said = ours(None, std::slice::from_ref(&file), &[]);
    assert!(said.good, "{}", said.text);
    let rows: Vec<_> = records(&file)
        .iter()
        .filter_map(|record| record["row"].as_i64())
        .collect();
    assert_eq!(
        rows,
        (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>()
    );
    let gaps = of(&file, "gap");
    assert!(
        gaps.iter().any(|gap| gap["lost"] == "requests"),
        "{gaps:#?}"
    );
    let _ = fs::remove_file(&file);
}

#[test]
fn a_gate_that_cannot_write_its_log_at_the_start_says_so_and_does_not_start() {
    let world = World::new();
    let bank = bank(&world);
    let setup = audited(&world, bank.port()).top("# the log's directory is not there");
    setup.write();
    let config = fs::read_to_string(setup.config()).unwrap();
    fs::write(
        setup.config(),
        config.replace("audit.jsonl", "nowhere/audit.jsonl"),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["run", "--config"])
        .arg(setup.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("audit log"), "{told}");
}
