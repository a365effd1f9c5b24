//! What a reconciliation must not miss, and when it must not say that it is done.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::audit::log;
use crate::support::audit_made::{Made, aside, refunded, refunds};
use crate::support::failpoints::armed;
use crate::support::gate::{Gate, Setup};
use crate::support::operation::{REFUND, ask, bank, refund};
use crate::support::world::World;
use priorgate::audit::files_of;
use priorgate::net::clock::unix_millis;

fn setup(world: &World, port: u16) -> (Setup, PathBuf) {
    let setup = world
        .setup(port)
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 2s}")
        .top("audit: {file: audit.jsonl, rotate: 1MiB}");
    let file = setup.path().join("audit.jsonl");
    (setup, file)
}

fn asked(gate: &Gate, key: &str) -> u16 {
    ask(&gate.unix(), REFUND, key, &refund(key, 100, "answer")).status
}

fn reconcile(gate: &Gate, incomplete: bool) -> Value {
    let mut command = json!({"command": "operations.reconcile", "reason": "the disk died"});
    if incomplete {
        command["incomplete"] = true.into();
    }
    gate.tell(&command).unwrap()
}

#[test]
fn a_file_that_is_set_aside_while_it_is_reconciled_is_read_all_the_same() {
    let world = World::new();
    let bank = bank(&world);
    let (setup, file) = setup(&world, bank.port());
    let mut made = Made::new(7);
    made.write(&aside(&file, 1), unix_millis(), refunds("old", 1_600));
    // All but full, so that what the journal is told of the first file fills it.
    let live = refunds("new", 1_300).chain([refunded("last", "sent", false)]);
    made.write(&file, unix_millis(), live);
    let size = std::fs::metadata(&file).unwrap().len();
    assert!((800_000..1_000_000).contains(&size), "{size}");
    // It is told 256 at a time; the pause is several of the log's looks.
    let pause = "remember.before_commit@4:pause:3000";
    let gate = setup.start_with(|command| armed(&command, Some(pause)));
    assert_eq!(files_of(&file).unwrap().len(), 2);
    let said = reconcile(&gate, false);
    assert_eq!(said["result"]["added"], 1_600 + 1_301, "{said}");
    assert!(files_of(&file).unwrap().len() > 2, "nothing was set aside meanwhile");
    assert_ne!(asked(&gate, "last"), 200);
    assert_eq!(bank.requests().len(), 0, "a refund was done twice");
    assert_eq!(log(&gate), file);
}
