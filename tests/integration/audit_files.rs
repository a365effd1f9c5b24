//! The log's files, when something goes wrong with them while the gate runs: nothing is overwritten, and what is gone is
//! noticed and on record.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::audit::{audited, log};
use crate::support::audit::{of, ours, records};
use crate::support::audit_made::{Made, aside, refunds};
use crate::support::failpoints::armed;
use crate::support::gate::{Gate, Setup};
use crate::support::operation::{REFUND, ask, bank, refund};
use crate::support::shim::Shim;
use crate::support::until;
use crate::support::world::World;
use priorgate::audit::files_of;
use priorgate::net::clock::unix_millis;
use priorgate::policy::chain::Fields;

const MIB: usize = 1 << 20;

/// No operation, so that the journal beside it is in no doubt worth a name.
fn plain(count: usize) -> impl Iterator<Item = Fields> {
    (0..count).map(|number| {
        Fields::of("made")
            .text("text", &"x".repeat(900))
            .number("number", number as u64)
    })
}

/// A gate that sets its log aside at the least size.
fn rotating(world: &World, port: u16, file: &Path) -> Setup {
    let audit = format!("audit: {{file: {}, rotate: 1MiB}}", file.display());
    world
        .setup(port)
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 2s}")
        .top(&audit)
}

fn refunded(gate: &Gate, key: &str) -> u16 {
    ask(&gate.unix(), REFUND, key, &refund(key, 100, "answer")).status
}

/// Rows of the journal in the log, and those that the journal still has for it.
fn rows(gate: &Gate) -> (Vec<i64>, Vec<i64>) {
    let records = records(&log(gate));
    let logged = records.iter().filter_map(|record| record["row"].as_i64());
    let journal = rusqlite::Connection::open(gate.path().join("journal.db")).unwrap();
    let mut kept = journal
        .prepare("SELECT row FROM outbox ORDER BY row")
        .unwrap();
    let kept = kept.query_map([], |row| row.get(0)).unwrap();
    (logged.collect(), kept.map(Result::unwrap).collect())
}

fn good(files: &[PathBuf]) {
    let said = ours(None, files, &[]);
    assert!(said.good, "{}", said.text);
}

/// What is there holds, and whoever verifies it is told that there was more before.
fn good_but_for_its_beginning(file: &PathBuf) {
    let said = ours(None, std::slice::from_ref(file), &[]);
    let gone = said.text.contains("deleted: records 1 to ");
    let text = &said.text;
    assert!(
        !said.good && gone && text.contains("NOT good: 1 faults"),
        "{text}"
    );
}

#[test]
fn a_directory_that_cannot_be_synced_costs_no_file_that_was_set_aside() {
    let world = World::new();
    let bank = world.good_bank();
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("audit.jsonl");
    Made::new(7).write(&file, unix_millis(), plain(1_280));
    let full = fs::metadata(&file).unwrap().len();
    assert!((950_000..MIB as u64).contains(&full), "{full}");
    // What the shim calls the database is the log's directory here.
    let shim = Shim::new(logs.path()).while_armed("db-sync:EIO");
    let setup = world.setup(bank.port()).top(&format!(
        "audit: {{file: {}, rotate: 1MiB}}",
        file.display()
    ));
    let mut gate = setup.start_with(|command| shim.over(command));
    shim.arm();
    let old = aside(&file, 1);
    until("the file is set aside", || {
        for _ in 0..20 {
            assert_eq!(gate.unix().get("/installment/1").status, 200);
        }
        old.exists()
    });
    until("what follows is not on the disk", || {
        gate.status()["audit"]["failing"] != Value::Null
    });
    // Three more looks of the writer.
    std::thread::park_timeout(Duration::from_millis(1_600));
    let size = fs::metadata(&old).unwrap().len();
    assert!(size >= full, "{size} bytes are left of {full}");
    shim.disarm();
    until("the log is written again", || {
        gate.status()["audit"]["failing"] == Value::Null
    });
    gate.finish();
    assert_eq!(of(&file, "rotated").len(), 1);
    good(&files_of(&file).unwrap());
}

#[test]
fn a_file_that_is_set_aside_already_is_never_overwritten() {
    let world = World::new();
    let bank = bank(&world);
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("audit.jsonl");
    let old = aside(&file, 1);
    fs::write(&old, "somebody's evidence\n").unwrap();
    Made::new(7).write(&file, unix_millis(), plain(1_400));
    let mut gate = rotating(&world, bank.port(), &file).start();
    until("it is said", || gate.log().contains("was not set aside"));
    assert_eq!(fs::read_to_string(&old).unwrap(), "somebody's evidence\n");
    // It goes on in the full one; when the other is gone, it is set aside.
    fs::rename(&old, logs.path().join("evidence")).unwrap();
    until("it is set aside", || old.exists());
    gate.finish();
    assert_eq!(gate.log().matches("was not set aside").count(), 1);
    good(&files_of(&file).unwrap());
}

#[test]
fn a_log_that_is_deleted_while_the_gate_runs_is_noticed_and_what_the_journal_has_of_it_is_written_again()
 {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(refunded(&gate, "k1"), 200);
    let file = log(&gate);
    until("the log has it", || of(&file, "operation").len() == 4);
    let (_, kept) = rows(&gate);
    fs::remove_file(&file).unwrap();
    until("it is said", || {
        file.exists() && !of(&file, "gap").is_empty()
    });
    until("it is in the gate's log", || {
        gate.log().contains("deleted or moved away")
    });
    assert_eq!(refunded(&gate, "k2"), 200);
    until("the log has that as well", || {
        of(&file, "operation")
            .iter()
            .any(|record| record["row"] == 8)
    });
    let (logged, _) = rows(&gate);
    gate.finish();
    let from = kept.first().copied().unwrap_or(5);
    assert_eq!(logged, (from..=8).collect::<Vec<_>>());
    let gaps = of(&file, "gap");
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(
        (&gaps[0]["lost"], &gaps[0]["from"]),
        (&Value::from("records"), &Value::from(1))
    );
    good_but_for_its_beginning(&file);
}

#[test]
fn a_log_that_is_cut_short_while_the_gate_runs_is_not_filled_up_with_zeros() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    assert_eq!(refunded(&gate, "k1"), 200);
    let file = log(&gate);
    until("the log has it", || of(&file, "operation").len() == 4);
    // As logrotate's copytruncate does.
    let copy = fs::read(&file).unwrap();
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&file)
        .unwrap();
    until("it is said", || {
        !fs::read(&file).unwrap().is_empty() && !of(&file, "gap").is_empty()
    });
    assert_eq!(refunded(&gate, "k2"), 200);
    gate.finish();
    assert!(!fs::read(&file).unwrap().contains(&0), "zeros");
    assert_eq!(of(&file, "gap")[0]["file"], "cut short");
    good_but_for_its_beginning(&file);
    // And nothing of the chain is twice there.
    let rotated = gate.path().join("rotated");
    fs::write(&rotated, copy).unwrap();
    good(&[rotated, file]);
}

#[test]
fn a_file_that_somebody_puts_in_the_place_of_the_log_is_not_written_to() {
    let world = World::new();
    let bank = bank(&world);
    let mut gate = audited(&world, bank.port()).start();
    let file = log(&gate);
    until("the log was begun", || !of(&file, "start").is_empty());
    let other = gate.path().join("other");
    fs::write(&other, "not ours\n").unwrap();
    fs::rename(&other, &file).unwrap();
    until("the status says so", || {
        let failing = gate.status()["audit"]["failing"].clone();
        failing
            .as_str()
            .is_some_and(|why| why.contains("put in its place"))
    });
    assert_eq!(refunded(&gate, "k1"), 200);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not ours\n");
    fs::remove_file(&file).unwrap();
    until("the log has what it was owed", || {
        file.exists() && of(&file, "operation").len() == 4
    });
    gate.finish();
    good_but_for_its_beginning(&file);
}

/// Two files of two years ago, and one of today.
fn years(world: &World, port: u16, logs: &Path) -> (Setup, PathBuf, [PathBuf; 2]) {
    let file = logs.join("audit.jsonl");
    let mut made = Made::new(7);
    let long_ago = unix_millis().before(Duration::from_secs(730 * 86_400));
    let first = aside(&file, made.next());
    made.write(&first, long_ago, refunds("a", 3));
    let second = aside(&file, made.next());
    made.write(&second, long_ago, refunds("b", 3));
    made.write(&file, unix_millis(), refunds("c", 3));
    let setup = world
        .setup(port)
        .top(&format!("audit: {{file: {}, keep: 400d}}", file.display()));
    (setup, file, [first, second])
}

#[test]
fn an_old_file_is_on_record_before_it_is_removed_whatever_comes_in_between() {
    let world = World::new();
    let bank = world.good_bank();
    let logs = tempfile::tempdir().unwrap();
    let (setup, file, [first, second]) = years(&world, bank.port(), logs.path());
    // Nothing can be read there.
    fs::remove_file(&second).unwrap();
    std::os::unix::fs::symlink("nowhere", &second).unwrap();
    let mut gate = setup.start();
    until("the first is removed", || !first.exists());
    gate.kill();
    let ended = |number: usize| {
        let ended = of(&file, "ended");
        (
            ended[number]["first"].clone(),
            ended[number]["last"].clone(),
        )
    };
    fs::remove_file(&second).unwrap();
    assert_eq!(ended(0), (1.into(), 3.into()));
}

/// A gate that dies at an edge, which may be before it is ready.
fn dies(setup: &Setup, edge: &str) {
    setup.write();
    let mut command = Command::new("priorgate");
    command.args(["run", "--config"]).arg(setup.config());
    let mut gate = armed(&command, Some(&format!("{edge}:kill")))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it dies", || gate.try_wait().unwrap().is_some());
}

#[test]
fn a_gate_that_dies_while_it_ends_old_files_leaves_none_that_is_on_no_record() {
    for edge in ["audit.ended@1", "audit.ended@2", "audit.removed"] {
        let world = World::new();
        let bank = world.good_bank();
        let logs = tempfile::tempdir().unwrap();
        let (setup, file, old) = years(&world, bank.port(), logs.path());
        dies(&setup, edge);
        assert_eq!(of(&file, "ended").len(), 2, "{edge}");
        let mut gate = setup.start();
        until("they are removed", || !old.iter().any(|path| path.exists()));
        gate.finish();
        good(&files_of(&file).unwrap());
    }
}

#[test]
fn a_gate_that_dies_while_it_sets_a_file_aside_goes_on_with_the_same_chain() {
    for edge in ["audit.renamed", "audit.begun", "audit.appended@2"] {
        let world = World::new();
        let bank = bank(&world);
        let logs = tempfile::tempdir().unwrap();
        let file = logs.path().join("audit.jsonl");
        Made::new(7).write(&file, unix_millis(), plain(1_400));
        let setup = rotating(&world, bank.port(), &file);
        dies(&setup, edge);
        let mut gate = setup.start();
        assert_eq!(refunded(&gate, "k1"), 503, "another journal's log");
        until("it is set aside", || aside(&file, 1).exists());
        gate.finish();
        let files = files_of(&file).unwrap();
        assert_eq!(files.len(), 2, "{edge}: {files:?}");
        good(&files);
    }
}
