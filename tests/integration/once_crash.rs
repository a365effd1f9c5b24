//! The crash test: a bank and a shop go on asking while the gate is killed at every edge and in between, and at the end
//! the books are compared.
//!
//! `PRIORGATE_CRASH_CYCLES=2000 cargo test once_crash -- --nocapture` for longer; 200 cycles otherwise.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bank::{Bank, Session, Speaks};
use crate::support::client::{Answer, Target};
use crate::support::failpoints::armed;
use crate::support::gate::Gate;
use crate::support::operation::{REFUND, bytes};
use crate::support::world::World;

/// Where the gate dies. `random` is a SIGKILL from outside.
const EDGES: [&str; 11] = [
    "reserve.before_commit",
    "reserve.after_commit",
    "sent.before_commit",
    "sent.after_commit",
    "finish.before_commit",
    "finish.after_commit",
    "afterwards.before_commit",
    "afterwards.after_commit",
    "resolve.before_commit",
    "resolve.after_commit",
    "random",
];
const HITS_EACH: u64 = 5;
const SHOPS: u64 = 4;
/// The longest that a cycle waits for its edge.
const CYCLE: Duration = Duration::from_secs(3);

/// A refund as the shop knows it.
#[derive(Clone)]
struct Refund {
    key: String,
    session: String,
    body: String,
    cycle: u64,
    /// The first answer of the bank that was seen for it.
    answer: Option<Vec<u8>>,
}

#[derive(Default)]
struct Books {
    refunds: Vec<Refund>,
    sessions: u64,
    /// Since when the shop knows that the last word on a session is `unknown`.
    unknown: BTreeMap<String, Instant>,
    /// Refunds whose outcome the shop was told is unknown: it asks for them again now and then, as long as it is.
    doubtful: Vec<Refund>,
    /// What the bank received: when, for which session, under which key.
    bank: Vec<(Instant, String, String)>,
    faults: Vec<String>,
}

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

struct Play {
    books: Mutex<Books>,
    cycle: AtomicU64,
    stop: AtomicBool,
}

impl Play {
    fn serve(&self, mut session: Session) {
        while let Some(request) = session.request() {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            if body.is_null() {
                // Cut off by a kill: the bank acts on whole requests only.
                return;
            }
            let key = header(&request.head, "idempotency-key: ");
            let name = body["session_id"].as_str().unwrap().to_owned();
            let number = {
                let mut books = self.books.lock().unwrap();
                books.bank.push((Instant::now(), name, key));
                books.bank.len()
            };
            match body["does"].as_str().unwrap() {
                "lose" => return session.reset(),
                "wait" => std::thread::sleep(Duration::from_millis(4)),
                _ => {}
            }
            session.answer("200 OK", &json!({"refund_id": number}).to_string());
        }
    }

    /// What a shop asks next: mostly new refunds, often old ones again, and what it should not.
    fn next(&self, dice: &mut Dice) -> Refund {
        let mut books = self.books.lock().unwrap();
        let cycle = self.cycle.load(Ordering::SeqCst);
        let does = match dice.roll(10) {
            0 => "lose",
            1..=3 => "wait",
            _ => "answer",
        };
        let choice = dice.roll(100);
        if !books.doubtful.is_empty() && dice.roll(10) == 0 {
            let one = usize::try_from(dice.roll(books.doubtful.len() as u64)).unwrap();
            return books.doubtful.swap_remove(one);
        }
        if !books.refunds.is_empty() && choice < 50 {
            // The latest ones: those that a kill has just cut.
            let back = dice.roll(12.min(books.refunds.len() as u64));
            let old =
                books.refunds[books.refunds.len() - 1 - usize::try_from(back).unwrap()].clone();
            if choice < 25 {
                return old;
            }
            let mut fresh = old;
            fresh.key = format!("k{}", books.refunds.len());
            fresh.answer = None;
            fresh.cycle = cycle;
            if choice < 42 {
                // Another amount: not the same request, but the same session.
                fresh.body = body(&fresh.session, dice.roll(1_000_000), does);
            }
            books.refunds.push(fresh.clone());
            return fresh;
        }
        books.sessions += 1;
        let session = format!("s{}", books.sessions);
        let refund = Refund {
            key: format!("k{}", books.refunds.len()),
            body: body(&session, dice.roll(1_000_000), does),
            session,
            cycle,
            answer: None,
        };
        books.refunds.push(refund.clone());
        refund
    }

    /// Compares an answer with the books. Gives the operation, if somebody should resolve it.
    fn note(&self, refund: &Refund, answer: &Answer) -> Option<String> {
        let mut books = self.books.lock().unwrap();
        if answer.status == 200 {
            let known = books
                .refunds
                .iter_mut()
                .find(|known| known.key == refund.key)
                .unwrap();
            match &known.answer {
                None => known.answer = Some(answer.body.clone()),
                Some(first) if *first == answer.body => {}
                Some(_) => books
                    .faults
                    .push(format!("{}: another answer than before", refund.key)),
            }
            return None;
        }
        if answer.code() != "outcome_unknown" {
            return None;
        }
        books
            .unknown
            .entry(refund.session.clone())
            .or_insert_with(Instant::now);
        books.doubtful.push(refund.clone());
        let old = refund.cycle + 1 < self.cycle.load(Ordering::SeqCst);
        old.then(|| {
            answer.json()["operation"]["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
    }

    /// A person asks the bank and tells the gate. Only long after the crash: by then the bank has read what there was.
    fn resolve(&self, admin: &Target, refund: &Refund, id: &str) {
        let has_it = {
            let mut books = self.books.lock().unwrap();
            books.unknown.remove(&refund.session);
            books.bank.iter().any(|(_, _, key)| *key == refund.key)
        };
        let word = if has_it { "done" } else { "not_sent" };
        let command = json!({"command": "operations.resolve", "id": id, "as": word, "reason": "asked the bank"});
        let Ok(mut socket) = admin.try_connect() else {
            return;
        };
        // The gate may die of it; then the operation is as it was, or as it was told.
        let _ = std::io::Write::write_all(&mut socket, format!("{command}\n").as_bytes());
        let _ = std::io::Read::read(&mut socket, &mut [0; 512]);
    }

    fn shop(&self, gate: &Target, admin: &Target, seed: u64) {
        let mut dice = Dice(seed);
        while !self.stop.load(Ordering::SeqCst) {
            let refund = self.next(&mut dice);
            let Ok(mut caller) = gate.try_connect() else {
                return;
            };
            caller.set_read_timeout(CYCLE);
            let request = bytes(REFUND, &refund.key, &refund.body);
            if std::io::Write::write_all(&mut caller, &request).is_err() {
                return;
            }
            let Ok(answer) = caller.try_answer() else {
                return;
            };
            if let Some(id) = self.note(&refund, &answer) {
                self.resolve(admin, &refund, &id);
            }
        }
    }
}

fn body(session: &str, amount: u64, does: &str) -> String {
    json!({"session_id": session, "amount": amount, "does": does}).to_string()
}

fn header(head: &str, name: &str) -> String {
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with(name));
    line.map(|line| line[name.len()..].to_owned())
        .unwrap_or_default()
}

/// One life of the gate. Gives whether it died at its edge.
fn live(play: &Arc<Play>, gate: &mut Gate, edge: &str, dice: &mut Dice) -> bool {
    play.stop.store(false, Ordering::SeqCst);
    let (socket, admin) = (gate.unix(), Target::Unix(gate.path().join("admin.sock")));
    let shops: Vec<_> = (0..SHOPS)
        .map(|_| {
            let (play, socket, admin) = (Arc::clone(play), socket.clone(), admin.clone());
            let seed = dice.roll(u64::MAX) | 1;
            std::thread::spawn(move || play.shop(&socket, &admin, seed))
        })
        .collect();
    let until = match edge {
        "random" => Instant::now() + Duration::from_millis(5 + dice.roll(60)),
        _ => Instant::now() + CYCLE,
    };
    while Instant::now() < until && !gate.has_ended() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let hit = edge == "random" || gate.has_ended();
    gate.kill();
    play.stop.store(true, Ordering::SeqCst);
    for shop in shops {
        shop.join().unwrap();
    }
    hit
}

#[test]
fn whatever_dies_when_no_refund_is_done_twice_and_no_answer_is_forgotten() {
    let cycles = std::env::var("PRIORGATE_CRASH_CYCLES")
        .ok()
        .and_then(|cycles| cycles.parse().ok())
        .unwrap_or(200_u64);
    let seed = std::env::var("PRIORGATE_CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x2545_f491_4f6c_dd1d_u64);
    let mut dice = Dice(seed);
    let world = World::new();
    let play = Arc::new(Play {
        books: Mutex::new(Books::default()),
        cycle: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let serving = Arc::clone(&play);
    let bank: Bank = world.bank(Speaks::Tls13, move |session| serving.serve(session));
    let arm = |edge: &str, passing: u64| {
        let failpoint = (edge != "random").then(|| format!("{edge}@{passing}:kill"));
        move |command: Command| armed(&command, failpoint.as_deref())
    };
    let mut hits: BTreeMap<&str, u64> = EDGES.iter().map(|&edge| (edge, 0)).collect();
    let mut gate = world
        .setup(bank.port())
        .guarded()
        .with("timeouts: {connect: 2s, response: 1s, total: 3s, settle: 2s}")
        .start_with(arm("random", 1));
    for cycle in 0..cycles {
        play.cycle.store(cycle, Ordering::SeqCst);
        let edge = EDGES[usize::try_from(cycle).unwrap() % EDGES.len()];
        // What a person does is rarer than what a shop does.
        let passing = if edge.starts_with("resolve") { 2 } else { 8 };
        gate = gate.crash_and_restart_with(arm(edge, 1 + dice.roll(passing)));
        if live(&play, &mut gate, edge, &mut dice) {
            *hits.get_mut(edge).unwrap() += 1;
        }
    }
    // At rest: every key is asked once more, of a gate that nobody kills.
    let gate = gate.crash_and_restart_with(arm("random", 1));
    let refunds = play.books.lock().unwrap().refunds.clone();
    let mut losses = 0;
    for refund in &refunds {
        let answer = gate.unix().send(&bytes(REFUND, &refund.key, &refund.body));
        play.note(refund, &answer);
        if refund.answer.is_some() && answer.status != 200 {
            losses += 1;
            println!("lost: {} {answer:?}", refund.key);
        }
    }
    let path = gate.path().join("journal.db");
    let mut gate = gate;
    gate.kill();
    let report = Report::new(&play.books.lock().unwrap(), path, losses);
    let mut text = format!("{cycles} cycles, seed {seed}; kills:");
    for (edge, hits) in &hits {
        write!(text, " {edge} {hits}").unwrap();
    }
    println!("{text}\n{report}");
    assert!(report.is_clean(), "{report}");
    if cycles >= 3 * EDGES.len() as u64 * HITS_EACH {
        let missed: Vec<_> = hits.iter().filter(|(_, hits)| **hits < HITS_EACH).collect();
        assert!(
            missed.is_empty(),
            "edges that were not hit often enough: {missed:?}"
        );
    }
    drop(gate);
}

/// What the comparison of the books came to.
struct Report {
    asked: usize,
    refunds: usize,
    losses: usize,
    doubles: Vec<String>,
    after_unknown: Vec<String>,
    faults: Vec<String>,
    integrity: String,
}

impl Report {
    fn new(books: &Books, journal: PathBuf, losses: usize) -> Self {
        let mut by_key: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, _, key) in &books.bank {
            *by_key.entry(key).or_default() += 1;
        }
        let after_unknown = books
            .bank
            .iter()
            .filter(|(at, session, _)| books.unknown.get(session).is_some_and(|since| at > since))
            .map(|(_, session, key)| format!("{session} by {key}"))
            .collect();
        let database = rusqlite::Connection::open(journal).unwrap();
        let integrity = database
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .unwrap();
        Self {
            asked: books.refunds.len(),
            refunds: books.bank.len(),
            losses,
            doubles: by_key
                .into_iter()
                .filter(|(_, times)| *times > 1)
                .map(|(key, times)| format!("{key} {times} times"))
                .collect(),
            after_unknown,
            faults: books.faults.clone(),
            integrity,
        }
    }

    fn is_clean(&self) -> bool {
        self.losses == 0
            && self.doubles.is_empty()
            && self.after_unknown.is_empty()
            && self.faults.is_empty()
            && self.integrity == "ok"
            && self.refunds > 0
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} keys asked, {} refunds at the bank, losses = {}, doubles = {} {:?}, after unknown = {} {:?}, faults = {:?}, \
             integrity {}",
            self.asked,
            self.refunds,
            self.losses,
            self.doubles.len(),
            self.doubles,
            self.after_unknown.len(),
            self.after_unknown,
            self.faults,
            self.integrity
        )
    }
}
