//! What a backlog costs: the work of each statement, counted in steps of SQLite's machine, must not grow with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::super::store;
use super::*;
use crate::journal::schema;

/// Steps between two looks of the counter.
const GRAIN: i32 = 10;
const SOURCE: &str = "priorbank";

struct Machine {
    connection: Connection,
    steps: Arc<AtomicU64>,
}

impl Machine {
    fn new() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection, 0).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(GRAIN, Some(count)).unwrap();
        Self { connection, steps }
    }

    fn accept(&self, number: usize, session: &str, status: Status) {
        let event = event(&format!("e{number}"), session, status);
        store::accept(&self.connection, &event, Policy::Hold, NOW).unwrap();
    }

    /// Steps of what `work` does, divided by the grain.
    fn cost(&self, work: impl FnOnce(&Connection)) -> u64 {
        let before = self.steps.load(Ordering::Relaxed);
        work(&self.connection);
        self.steps.load(Ordering::Relaxed) - before
    }
}

/// A new event, a repeat, a claim, a failed attempt, a delivery and the look for the next one, behind so many events.
fn life(events: usize, sessions: usize, status: Status, deliver: bool) -> Vec<u64> {
    let machine = Machine::new();
    machine.connection.execute_batch("BEGIN").unwrap();
    for number in 0..events {
        machine.accept(number, &format!("s{}", number % sessions), status);
    }
    if deliver {
        let sql = "UPDATE callback SET state = 'delivered', ended_at = 1";
        machine.connection.execute_batch(sql).unwrap();
    }
    // The same status again contradicts nothing, and makes no queued event pointless (which has to touch each, once).
    let mut costs = Vec::new();
    let mut claim = None;
    costs.push(machine.cost(|_| machine.accept(events, "s0", status)));
    costs.push(machine.cost(|_| machine.accept(events, "s0", status)));
    for settle in [retry(NOW), Settle::Delivered] {
        costs.push(machine.cost(|connection| {
            claim = store::claim(connection, SOURCE, Policy::Hold, NOW).unwrap();
        }));
        let claim = claim.take().expect("something is due");
        costs.push(machine.cost(|connection| {
            let settled = store::settle(
                connection,
                claim.id,
                claim.attempt,
                &settle,
                Policy::Hold,
                NOW,
            );
            settled.unwrap().unwrap();
        }));
    }
    costs.push(machine.cost(|connection| {
        store::next_due(connection, SOURCE).unwrap();
    }));
    costs
}

#[test]
fn no_statement_of_the_inbox_works_harder_behind_a_backlog() {
    for status in Status::ALL {
        for deliver in [false, true] {
            let few = life(10, 1, status, deliver);
            for sessions in [1, 150] {
                let many = life(1_500, sessions, status, deliver);
                for (step, (many, few)) in many.iter().zip(&few).enumerate() {
                    // A binary search is a few steps longer in a deeper tree.
                    assert!(
                        *many <= few + 40,
                        "step {step} with {status}, {sessions} sessions, delivered: {deliver}: {many} for {few}"
                    );
                }
            }
        }
    }
}
