//! A disk that is full, fails, writes half or takes its time: nothing is sent that is not on it, nothing that the bank
//! answered is withheld, and after the first failed sync nobody asks that disk again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use crate::support::bank::{self, Bank, Demand, Session, Speaks};
use crate::support::client::{Answer, Target};
use crate::support::disk::Disk;
use crate::support::gate::{Gate, Setup};
use crate::support::operation::{REFUND, ask, expected, refund, seen};
use crate::support::shim::{Event, File, Shim, arm};
use crate::support::world::World;
use crate::support::{eventually, until};

/// Longer than a scenario holds a request up.
const TIMEOUTS: &str = "timeouts: {connect: 10s, response: 15s, total: 18s, settle: 20s}";
const EIO: i32 = 5;
/// An unguarded request that the bank answers when it is let go.
const HELD: &str = "/installment/held";

/// What a scenario tells its bank.
#[derive(Default)]
struct Orders {
    /// Armed as soon as somebody connects.
    on_connect: OnceLock<PathBuf>,
    /// Armed before a request whose body says `arm` is answered.
    on_request: OnceLock<PathBuf>,
    /// Held requests that are let go: `held` for [`HELD`], `x` for a body that says `hold:x`.
    let_go: Mutex<Vec<String>>,
}

impl Orders {
    fn let_go(&self, name: &str) {
        self.let_go.lock().unwrap().push(name.to_owned());
    }

    fn wait_for(&self, name: &str) {
        until("a held request is let go", || {
            self.let_go.lock().unwrap().iter().any(|gone| gone == name)
        });
    }

    /// One connection to the bank. Each answer has a number of its own.
    fn serve(&self, mut session: Session, answers: &AtomicUsize) {
        while let Some(request) = session.request() {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let does = body["does"].as_str().unwrap_or("answer");
            if request.head.starts_with(&format!("GET {HELD} ")) {
                self.wait_for("held");
            } else if let Some(name) = does.strip_prefix("hold:") {
                self.wait_for(name);
            } else if does == "arm" {
                arm(self.on_request.get().unwrap());
            }
            let number = answers.fetch_add(1, Ordering::SeqCst) + 1;
            session.answer("200 OK", &json!({"refund_id": number}).to_string());
        }
    }
}

struct Stage {
    bank: Bank,
    orders: Arc<Orders>,
    setup: Setup,
}

impl Stage {
    fn new() -> Self {
        Self::with(TIMEOUTS, "journal.db")
    }

    fn with(timeouts: &str, journal: &str) -> Self {
        let world = World::new();
        let server = world.bank_ca.server("bank.test");
        let demand = Demand::Of(&world.client_ca);
        let tls = Arc::new(bank::config(&server, &demand, Speaks::Tls13));
        let orders = Arc::new(Orders::default());
        let (told, answers) = (Arc::clone(&orders), AtomicUsize::new(0));
        let bank = Bank::raw(move |socket, index, seen| {
            if let Some(control) = told.on_connect.get() {
                arm(control);
            }
            if let Ok(session) = bank::shake_hands(socket, Arc::clone(&tls), index, seen) {
                told.serve(session, &answers);
            }
        });
        let setup = world.setup(bank.port()).with(timeouts).guarded_by(journal);
        Self {
            bank,
            orders,
            setup,
        }
    }

    fn shim(&self) -> Shim {
        Shim::new(&self.setup.path().join("journal.db")).bank(self.bank.port())
    }

    /// Starts the gate under the shim.
    fn start(self, shim: &Shim) -> (Gate, Bank, Arc<Orders>) {
        let gate = self.setup.start_with(|command| shim.over(command));
        (gate, self.bank, self.orders)
    }
}

fn asked(gate: &Gate, key: &str, does: &str) -> Answer {
    ask(&gate.unix(), REFUND, key, &refund(key, 100, does))
}

/// The same from a thread of its own.
fn asking(gate: &Gate, key: &str, does: &str) -> std::thread::JoinHandle<Answer> {
    let (target, key, body) = (gate.unix(), key.to_owned(), refund(key, 100, does));
    std::thread::spawn(move || ask(&target, REFUND, &key, &body))
}

fn done() -> (u16, String, String, String) {
    expected(200, "", "answered", "done")
}

fn expect_replay(gate: &Gate, key: &str, does: &str, first: &Answer) {
    let again = asked(gate, key, does);
    assert_eq!(seen(&again), done());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.body, first.body);
}

fn wal(directory: &Path) -> PathBuf {
    directory.join("journal.db-wal")
}

/// Waits until all of the WAL is in the database and the file is empty, as an idle gate makes it.
fn until_idle(directory: &Path) {
    until("the WAL is emptied", || {
        fs::metadata(wal(directory)).is_ok_and(|facts| facts.len() == 0)
    });
}

#[test]
fn a_full_disk_takes_no_new_refunds_and_keeps_the_outcome_of_those_that_were_sent() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let journal = disk.path().join("journal.db");
    let stage = Stage::with(TIMEOUTS, journal.to_str().unwrap());
    let (bank, orders) = (stage.bank, stage.orders);
    let mut gate = stage.setup.start();
    let ballast = disk.path().join("journal.db.ballast");
    assert_eq!(fs::metadata(&ballast).unwrap().len(), 16 << 20);
    let first = asked(&gate, "k1", "answer");
    assert_eq!(seen(&first), done());
    let (early, late) = (
        asking(&gate, "early", "hold:early"),
        asking(&gate, "late", "hold:late"),
    );
    until("both are at the bank", || bank.requests().len() == 3);
    until_idle(disk.path());
    disk.fill(0);
    assert!(disk.free() < 4096 && !gate.log().contains("disk is full"));
    // The outcome itself finds the disk full, and is written in the ballast's place.
    orders.let_go("early");
    let early = early.join().unwrap();
    assert_eq!(seen(&early), done());
    assert!(gate.log().contains("disk is full"));
    // The ballast may have been made again, or may be so now. After this it cannot be.
    let mut attempts = 0..;
    eventually("nothing can be held back any more", || {
        if ballast.exists() {
            disk.fill(0);
            asked(&gate, &format!("n{}", attempts.next()?), "answer");
            return None;
        }
        disk.fill(8 << 20);
        (!ballast.exists() && disk.free() <= 8 << 20).then_some(())
    });
    let at_bank = bank.requests().len();
    for number in 0..5 {
        let refused = asked(&gate, &format!("r{number}"), "answer");
        assert_eq!(
            seen(&refused),
            expected(503, "journal_unavailable", "not_sent", "")
        );
        assert!(refused.header("retry-after").is_some());
    }
    // What is known under a key is told all the same.
    expect_replay(&gate, "k1", "answer", &first);
    assert_eq!(
        seen(&asked(&gate, "late", "hold:late")),
        expected(409, "operation_in_flight", "unknown", "open")
    );
    assert_eq!(bank.requests().len(), at_bank);
    // Routes that need no journal do not miss it.
    let status = gate.unix().get("/installment/s1");
    assert_eq!((status.status, status.outcome()), (200, "answered"));
    orders.let_go("late");
    let late = late.join().unwrap();
    assert_eq!(seen(&late), done());
    // Space returns, and the same process goes on.
    disk.empty();
    eventually("new refunds are taken", || {
        let answer = asked(&gate, "k2", "answer");
        (answer.status == 200).then_some(())
    });
    assert!(ballast.exists() && !gate.has_ended());
    assert_eq!(seen(&asked(&gate, "r0", "answer")), done());
    let at_bank = bank.requests().len();
    expect_replay(&gate, "k1", "answer", &first);
    expect_replay(&gate, "early", "hold:early", &early);
    expect_replay(&gate, "late", "hold:late", &late);
    let gate = gate.crash_and_restart();
    expect_replay(&gate, "late", "hold:late", &late);
    assert_eq!(bank.requests().len(), at_bank);
}

#[test]
fn an_outcome_that_finds_no_space_at_all_is_told_and_written_when_there_is() {
    let stage = Stage::new();
    let shim = stage.shim().while_armed("wal-write:ENOSPC");
    stage.orders.on_request.set(shim.control()).unwrap();
    let (mut gate, bank, _) = stage.start(&shim);
    let first = asked(&gate, "k1", "arm");
    // The bank's answer, though the journal knows only that it was asked.
    assert_eq!(seen(&first), expected(200, "", "answered", "open"));
    assert_eq!(first.json(), json!({"refund_id": 1}));
    assert_eq!(
        seen(&asked(&gate, "k2", "answer")),
        expected(503, "journal_unavailable", "not_sent", "")
    );
    assert_eq!(
        seen(&asked(&gate, "k1", "arm")),
        expected(409, "operation_in_flight", "unknown", "open")
    );
    assert_eq!(bank.requests().len(), 1);
    assert_eq!(gate.unix().get("/installment/s1").status, 200);
    shim.disarm();
    eventually("the journal takes refunds again", || {
        let answer = asked(&gate, "k2", "answer");
        (answer.status == 200).then_some(())
    });
    expect_replay(&gate, "k1", "arm", &first);
    assert_eq!(bank.requests().len(), 3);
    gate.finish();
}

/// Which commit meets the fault.
#[derive(Clone, Copy, Debug)]
enum Commit {
    Reserve,
    Sent,
}

impl Commit {
    fn arrange(self, shim: &Shim, orders: &Orders) {
        match self {
            Self::Reserve => shim.arm(),
            Self::Sent => orders.on_connect.set(shim.control()).unwrap(),
        }
    }
}

/// What of the last, failed commit is found by the next process. A failed sync leaves that open.
#[derive(Clone, Copy, Debug)]
enum Disks {
    /// Everything that was written.
    Keeps,
    /// What was synced.
    Loses,
}

impl Disks {
    /// Makes the WAL what such a disk has after a power cut.
    fn apply(self, directory: &Path, events: &[Event]) {
        if matches!(self, Self::Keeps) {
            return;
        }
        let synced = events.iter().rev().find_map(|event| match event {
            Event::SyncEnd {
                file: File::Wal,
                errno: 0,
                size,
            } => Some(*size),
            _ => None,
        });
        let wal = fs::OpenOptions::new()
            .write(true)
            .open(wal(directory))
            .unwrap();
        assert!(wal.metadata().unwrap().len() > synced.unwrap());
        wal.set_len(synced.unwrap()).unwrap();
    }
}

/// The gate ends by itself, telling why, and has not touched its journal after the sync that failed.
fn expect_end(gate: &mut Gate, events: impl Fn() -> Vec<Event>) {
    assert_eq!(gate.wait().code(), Some(1), "{}", gate.log());
    let events = events();
    let failed = |event: &Event| matches!(event, Event::SyncEnd { errno: EIO, .. });
    let failed = events.iter().position(failed).unwrap();
    let after: Vec<_> = events[failed + 1..]
        .iter()
        .filter(|event| !matches!(event, Event::Net { .. } | Event::Connect(_)))
        .collect();
    assert!(after.is_empty(), "{after:?}");
}

#[test]
fn a_sync_that_fails_before_anything_is_sent_sends_nothing_and_ends_the_gate() {
    for (commit, disk, again, at_bank) in [
        // Reserved or not there at all: nothing was sent either way, and the key runs.
        (Commit::Reserve, Disks::Keeps, done(), 1),
        (Commit::Reserve, Disks::Loses, done(), 1),
        // A `sent` that was not thought to be on the disk, and is: the next process cannot know better.
        (
            Commit::Sent,
            Disks::Keeps,
            expected(409, "outcome_unknown", "unknown", "unknown"),
            0,
        ),
        (Commit::Sent, Disks::Loses, done(), 1),
    ] {
        let stage = Stage::new();
        let shim = stage.shim().once_armed("wal-sync:EIO");
        // A row of its own before it, so that the WAL has something that was synced.
        let warm = stage.setup.path().to_owned();
        let (mut gate, bank, orders) = stage.start(&shim);
        assert_eq!(seen(&asked(&gate, "k0", "answer")), done());
        commit.arrange(&shim, &orders);
        let refused = asked(&gate, "k1", "answer");
        let state = match commit {
            Commit::Reserve => "",
            Commit::Sent => "not_sent",
        };
        assert_eq!(
            seen(&refused),
            expected(503, "journal_unavailable", "not_sent", state),
            "{commit:?}"
        );
        expect_end(&mut gate, || shim.events());
        assert_eq!(bank.requests().len(), 1);
        disk.apply(&warm, &shim.events());
        let gate = gate.crash_and_restart();
        assert_eq!(
            seen(&asked(&gate, "k1", "answer")),
            again,
            "{commit:?} {disk:?}"
        );
        assert_eq!(bank.requests().len(), 1 + at_bank, "{commit:?} {disk:?}");
    }
}

#[test]
fn a_sync_that_fails_for_an_outcome_withholds_no_answer_and_repeats_no_refund() {
    for disk in [Disks::Keeps, Disks::Loses] {
        let stage = Stage::new();
        let shim = stage.shim().once_armed("wal-sync:EIO");
        stage.orders.on_request.set(shim.control()).unwrap();
        let (mut gate, bank, orders) = stage.start(&shim);
        let before = asked(&gate, "k0", "answer");
        let unguarded = {
            let target = gate.unix();
            std::thread::spawn(move || target.get(HELD))
        };
        until("it is at the bank", || bank.requests().len() == 2);
        let first = asked(&gate, "k1", "arm");
        assert_eq!(seen(&first), expected(200, "", "answered", "open"));
        assert_eq!(first.json(), json!({"refund_id": 2}));
        until("it drains", || gate.status()["phase"] == "draining");
        // What needs no journal is served to the end.
        orders.let_go("held");
        let unguarded = unguarded.join().unwrap();
        assert_eq!((unguarded.status, unguarded.outcome()), (200, "answered"));
        expect_end(&mut gate, || shim.events());
        disk.apply(gate.path(), &shim.events());
        let gate = gate.crash_and_restart();
        match disk {
            Disks::Keeps => expect_replay(&gate, "k1", "arm", &first),
            Disks::Loses => {
                let again = asked(&gate, "k1", "arm");
                let unknown = expected(409, "outcome_unknown", "unknown", "unknown");
                assert_eq!(seen(&again), unknown);
            }
        }
        expect_replay(&gate, "k0", "answer", &before);
        assert_eq!(bank.requests().len(), 3);
    }
}

#[test]
fn a_checkpoint_that_fails_ends_the_gate_and_loses_nothing() {
    let stage = Stage::new();
    let shim = stage.shim().once_armed("db-sync:EIO");
    let (mut gate, bank, _) = stage.start(&shim);
    shim.arm();
    let first = asked(&gate, "k1", "answer");
    assert_eq!(seen(&first), done());
    // An idle gate copies its WAL within a second or two.
    expect_end(&mut gate, || shim.events());
    let gate = gate.crash_and_restart();
    expect_replay(&gate, "k1", "answer", &first);
    assert_eq!(bank.requests().len(), 1);
}

#[test]
fn a_disk_that_writes_half_of_what_it_is_given_loses_nothing() {
    let stage = Stage::new();
    let shim = stage
        .shim()
        .always("wal-write:short")
        .always("db-write:short");
    let (gate, bank, _) = stage.start(&shim);
    let firsts: Vec<_> = (0..20)
        .map(|number| asked(&gate, &format!("k{number}"), "answer"))
        .collect();
    until_idle(gate.path());
    for file in [File::Wal, File::Database] {
        let halves = shim.events().into_iter().filter(|event| match event {
            Event::Write {
                file: written,
                length,
                result,
            } => *written == file && *result > 0 && result.unsigned_abs() < *length,
            _ => false,
        });
        assert!(halves.count() > 20, "{file:?} was written in one piece");
    }
    let expect_all = |gate: &Gate| {
        for (number, first) in firsts.iter().enumerate() {
            assert_eq!(seen(first), done());
            expect_replay(gate, &format!("k{number}"), "answer", first);
        }
    };
    expect_all(&gate);
    expect_all(&gate.crash_and_restart());
    assert_eq!(bank.requests().len(), 20);
}

#[test]
fn a_disk_that_is_slower_than_the_caller_waits_sends_nothing_and_leaves_the_key_free() {
    for commit in [Commit::Reserve, Commit::Sent] {
        let stage = Stage::with(
            "timeouts: {connect: 1s, response: 1s, total: 1500ms}",
            "journal.db",
        );
        let shim = stage.shim().once_armed("wal-sync:slow:2500");
        let (gate, bank, orders) = stage.start(&shim);
        commit.arrange(&shim, &orders);
        let target: Target = gate.unix();
        let body = refund("k1", 100, "answer");
        let refused = ask(&target, REFUND, "k1", &body);
        let state = match commit {
            Commit::Reserve => "",
            Commit::Sent => "not_sent",
        };
        assert_eq!(
            seen(&refused),
            expected(503, "journal_unavailable", "not_sent", state),
            "{commit:?}"
        );
        assert_eq!(bank.requests().len(), 0);
        let again = eventually("the key runs", || {
            let answer = ask(&target, REFUND, "k1", &body);
            (answer.code() != "journal_unavailable" && answer.code() != "operation_in_flight")
                .then_some(answer)
        });
        assert_eq!(seen(&again), done(), "{commit:?}");
        assert_eq!(bank.requests().len(), 1);
    }
}
