//! What a reconciliation must not miss, and when it must not say that it is done.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::audit::{audited, log};
use crate::support::audit::of;
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
    let size = fs::metadata(&file).unwrap().len();
    assert!((800_000..1_000_000).contains(&size), "{size}");
    // It is told 256 at a time; the pause is several of the log's looks.
    let pause = "remember.before_commit@4:pause:3000";
    let gate = setup.start_with(|command| armed(&command, Some(pause)));
    assert_eq!(files_of(&file).unwrap().len(), 2);
    let said = reconcile(&gate, false);
    assert_eq!(said["result"]["added"], 1_600 + 1_301, "{said}");
    assert!(
        files_of(&file).unwrap().len() > 2,
        "nothing was set aside meanwhile"
    );
    assert_ne!(asked(&gate, "last"), 200);
    assert_eq!(bank.requests().len(), 0, "a refund was done twice");
    assert_eq!(log(&gate), file);
}

#[test]
fn a_log_that_does_not_know_everything_lifts_no_doubt_unless_a_person_says_so() {
    let world = World::new();
    let bank = bank(&world);
    let line = "{\"seq\": no record at all}\n";
    // Its beginning was ended, a file is missing, a line is none.
    for case in ["beginning", "missing", "malformed"] {
        let (setup, file) = setup(&world, bank.port());
        let mut made = Made::new(7);
        match case {
            "beginning" => made = made.after(500),
            _ => made.write(&aside(&file, 1), unix_millis(), refunds("old", 3)),
        }
        let middle = aside(&file, made.next());
        made.write(&middle, unix_millis(), [refunded("middle", "sent", false)]);
        made.write(&file, unix_millis(), [refunded("last", "sent", false)]);
        match case {
            "missing" => fs::remove_file(&middle).unwrap(),
            "malformed" => fs::write(&middle, line).unwrap(),
            _ => {}
        }
        let mut gate = setup.start();
        let said = reconcile(&gate, false);
        assert_eq!(said["error"]["code"], "incomplete", "{case}: {said}");
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains("knows since 20"), "{case}: {message}");
        assert_eq!(gate.status()["journal"]["doubted"], true, "{case}");
        assert_eq!(asked(&gate, "fresh"), 503, "{case}");
        assert_eq!(
            asked(&gate, "last"),
            422,
            "{case}: what it has is taken over"
        );

        let output = gate.command(&[
            "operations",
            "reconcile",
            "--incomplete",
            "--reason",
            "compared",
        ]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && told.contains("may not know"),
            "{case}: {told}"
        );
        assert_eq!(asked(&gate, "fresh"), 200, "{case}");
        gate.finish();
        let written = fs::read_to_string(&file).unwrap();
        let mut written = written
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let last = written
            .rfind(|record| record["event"] == "command")
            .unwrap();
        assert_eq!(
            (last["what"].as_str(), last["reason"].as_str()),
            (Some("reconciled with an incomplete log"), Some("compared")),
            "{case}"
        );
    }
}

#[test]
fn a_journal_beside_a_log_that_is_not_there_runs_nothing_until_it_is_and_a_person_says_so() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(asked(&gate, "k1"), 200);
    let journal = gate.path().join("journal.db");
    crate::support::until("the journal was told that the log has it", || {
        let journal = rusqlite::Connection::open(&journal).unwrap();
        let count = journal.query_row("SELECT count(*) FROM outbox", [], |row| {
            row.get::<_, i64>(0)
        });
        count.unwrap() == 0
    });
    gate.finish();
    let (file, elsewhere) = (log(&gate), gate.path().join("unmounted"));
    fs::rename(&file, &elsewhere).unwrap();
    let mut gate = gate.crash_and_restart();
    assert_eq!(gate.status()["journal"]["doubted"], true);
    crate::support::until("it is in the gate's log", || {
        gate.log().contains("has nothing of this journal")
    });
    assert_eq!(asked(&gate, "k2"), 503);
    assert_eq!(reconcile(&gate, false)["error"]["code"], "incomplete");
    // What is written in its place meanwhile is no sign that it is back.
    gate.finish();
    let mut gate = gate.crash_and_restart();
    assert_eq!(gate.status()["journal"]["doubted"], true);
    assert_eq!(asked(&gate, "k2"), 503);
    // Mounted again: the log is whole, and a person says so.
    gate.finish();
    fs::rename(&elsewhere, &file).unwrap();
    let mut gate = gate.crash_and_restart();
    assert_eq!(asked(&gate, "k2"), 503);
    let done = reconcile(&gate, false);
    assert!(done["error"].is_null(), "{done}");
    assert_eq!(gate.status()["journal"]["doubted"], false);
    assert_eq!(asked(&gate, "k2"), 200);
    gate.finish();
    // Or it never comes back, and a person knows it.
    fs::remove_file(&file).unwrap();
    let gate = gate.crash_and_restart();
    assert_eq!(asked(&gate, "k3"), 503);
    assert!(reconcile(&gate, true)["result"]["missing"].is_string());
    assert_eq!(asked(&gate, "k3"), 200);
}

#[test]
fn what_a_reconciliation_took_over_keeps_no_gate_from_starting_for_ever() {
    let world = World::new();
    let bank = bank(&world);
    let (setup, file) = setup(&world, bank.port());
    // One was done and delivered under a subject that is not configured any more; what became of the other is not known.
    let renamed = |key: &str, state, delivered| {
        let text = refunded(key, state, delivered).object();
        let text = text.replace("/session_id", "/order");
        priorgate::policy::chain::Fields::from_object(&text).unwrap()
    };
    let mut made = Made::new(7);
    let rows = [
        renamed("finished", "sent", false),
        renamed("finished", "done", true),
        refunded("open", "sent", false),
    ];
    made.write(&file, unix_millis(), rows);
    let mut gate = setup.start();
    assert_eq!(reconcile(&gate, false)["result"]["added"], 2);
    // What is finished stops no start, and its key runs no more.
    gate.finish();
    let mut gate = gate.crash_and_restart();
    assert_ne!(asked(&gate, "finished"), 200);
    gate.finish();
    // What is open does, and is ended without a gate.
    let config = fs::read_to_string(gate.config()).unwrap();
    fs::write(gate.config(), config.replace("/session_id", "/order")).unwrap();
    let output = gate.command(&["run"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("operations resolve"), "{told}");
    let list = gate.command(&["operations", "list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let open = list["operations"].as_array().unwrap().iter();
    let open = open
        .clone()
        .find(|found| found["code"] == "reconciled")
        .unwrap();
    let id = open["id"].as_str().unwrap();
    let resolve = [
        "operations",
        "resolve",
        id,
        "--as",
        "not-sent",
        "--reason",
        "the bank has it not",
    ];
    let unasked = gate.command(&resolve);
    let told = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(
        !unasked.status.success() && told.contains("--yes"),
        "{told}"
    );
    let output = gate.command(&[&resolve[..], &["--yes"]].concat());
    assert!(output.status.success(), "{output:?}");
    let mut gate = gate.crash_and_restart();
    gate.finish();
    let commands = of(&file, "command");
    assert_eq!(commands.last().unwrap()["what"], "resolved as not_sent");
    assert_eq!(bank.requests().len(), 0);
}
