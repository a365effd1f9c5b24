//! The gate is killed fifty times, at every edge and in between, while refunds run; at the end the log's chain is whole and
//! has every change of the journal once.
//!
//! `PRIORGATE_CRASH_CYCLES=500 cargo test audit_crash -- --nocapture` for longer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::audit::{audited, log};
use crate::support::audit::{ours, records};
use crate::support::client::Target;
use crate::support::failpoints::armed;
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, bank, bytes, refund};
use crate::support::world::World;

/// Where the gate dies; `random` is a SIGKILL from outside.
const EDGES: [&str; 10] = [
    "reserve.before_commit",
    "reserve.after_commit",
    "random",
    "sent.after_commit",
    "finish.before_commit",
    "random",
    "finish.after_commit",
    "afterwards.before_commit",
    "random",
    "afterwards.after_commit",
];
/// The journal is told every five seconds what it need not keep: these are waited for longer, and once each.
const RARE: [&str; 2] = ["recorded.before_commit", "recorded.after_commit"];
const SHOPS: u64 = 3;

/// Asks for one refund after the other until told to stop or until nobody answers.
fn shop(target: &Target, numbers: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let does = if number.is_multiple_of(7) {
            "lose"
        } else {
            "answer"
        };
        let body = refund(&format!("s{number}"), 100, does);
        let Ok(mut caller) = target.try_connect() else {
            return;
        };
        caller.set_read_timeout(Duration::from_secs(5));
        let request = bytes(REFUND, &format!("k{number}"), &body);
        if caller.write_all(&request).is_err() || !matches!(caller.read(&mut [0; 4096]), Ok(1..)) {
            return;
        }
    }
}

fn live(gate: &mut Gate, numbers: &Arc<AtomicU64>, within: Duration) -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    let shops: Vec<_> = (0..SHOPS)
        .map(|_| {
            let (target, numbers, stop) = (gate.unix(), Arc::clone(numbers), Arc::clone(&stop));
            std::thread::spawn(move || shop(&target, &numbers, &stop))
        })
        .collect();
    let until = Instant::now() + within;
    while Instant::now() < until && !gate.has_ended() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let died = gate.has_ended();
    gate.kill();
    stop.store(true, Ordering::SeqCst);
    for shop in shops {
        shop.join().unwrap();
    }
    died
}

#[test]
fn whatever_dies_when_the_chain_is_whole_and_has_every_change_once() {
    let cycles = std::env::var("PRIORGATE_CRASH_CYCLES")
        .ok()
        .and_then(|cycles| cycles.parse().ok())
        .unwrap_or(50_u64);
    let world = World::new();
    let bank = bank(&world);
    let numbers = Arc::new(AtomicU64::new(1));
    let mut gate = audited(&world, bank.port()).start_with(|command| armed(&command, None));
    let mut died: BTreeMap<&str, u64> = BTreeMap::new();
    for cycle in 0..cycles {
        let rare = (cycle % 25 == 24).then(|| RARE[usize::try_from(cycle / 25).unwrap() % 2]);
        let usual = EDGES[usize::try_from(cycle).unwrap() % EDGES.len()];
        let edge = rare.unwrap_or(usual);
        let within = match edge {
            "random" => Duration::from_millis(20 + cycle * 37 % 900),
            _ if rare.is_some() => Duration::from_secs(15),
            _ => Duration::from_secs(3),
        };
        let failpoint = (edge != "random").then(|| {
            let passing = if rare.is_some() { 1 } else { 1 + cycle % 9 };
            format!("{edge}@{passing}:kill")
        });
        gate = gate.crash_and_restart_with(|command| armed(&command, failpoint.as_deref()));
        let by_itself = live(&mut gate, &numbers, within);
        *died.entry(edge).or_default() += u64::from(by_itself || edge == "random");
    }
    let mut gate = gate.crash_and_restart_with(|command| armed(&command, None));
    gate.finish();

    let log = log(&gate);
    let said = ours(None, std::slice::from_ref(&log), &[]);
    assert!(said.good, "{}", said.text);
    let all = records(&log);
    let rows: Vec<i64> = all
        .iter()
        .filter_map(|record| record["row"].as_i64())
        .collect();
    let journal = rusqlite::Connection::open(gate.path().join("journal.db")).unwrap();
    let written: i64 = journal
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    println!(
        "{cycles} kills {died:?}: {} records, {written} changes of the journal",
        all.len()
    );
    assert_eq!(
        rows,
        (1..=written).collect::<Vec<_>>(),
        "each once, in order"
    );

    // And they say what the journal says.
    let mut last: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for record in all.iter().filter(|record| record["event"] == "operation") {
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        last.insert(text("id"), (text("state"), record["delivered"] == true));
    }
    let mut statement = journal
        .prepare("SELECT id, state, delivered FROM operation")
        .unwrap();
    let kept: BTreeMap<String, (String, bool)> = statement
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(kept.len() > 20, "only {} operations", kept.len());
    assert_eq!(last, kept);
    assert!(
        all.iter().all(|record| record["event"] != "gap"),
        "nothing was lost"
    );
    if cycles >= 50 {
        let missed: Vec<_> = EDGES
            .iter()
            .chain(&RARE)
            .filter(|edge| died.get(*edge).is_none_or(|died| *died == 0))
            .collect();
        assert!(
            missed.is_empty(),
            "edges at which it never died: {missed:?}"
        );
    }
}
