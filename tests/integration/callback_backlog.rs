//! A backlog of 100,000 callbacks while the shop was away: what it costs at the start and in memory, and that delivery
//! resumes in order.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use priorgate::journal::inbox::Event;
use priorgate::journal::{Journal, Options};
use priorgate::policy::operation::{Digest, UnixMillis};
use priorgate::policy::status::{Policy, Status};

use crate::support::gate::{Gate, Setup};
use crate::support::pki::replace;
use crate::support::shop::{SECRET, Shop};
use crate::support::until;

const STORED: usize = 100_000;
/// Deliveries that are waited for, after the shop has come back.
const WATCHED: usize = 500;
/// What the gate may take.
const MEMORY: u64 = 64 << 20;
/// Of processor time: the wall clock of a machine with other work proves nothing.
const START: Duration = Duration::from_secs(2);
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

fn event(number: usize, sessions: usize) -> Event {
    let session = format!("s{}", number % sessions);
    let body = format!(
        "{{\"event_id\":\"e{number}\",\"session_id\":\"{session}\",\"status\":\"APPROVED\",\"amount\":\"120.00\",\"currency\":\"BYN\"}}"
    );
    Event {
        source: "bank".to_owned(),
        event: format!("e{number}"),
        body_hash: Digest::of("backlog", &[body.as_bytes()]),
        session: Some(session),
        status: Some(Status::Approved),
        key_id: "k".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: Bytes::from(body),
    }
}

/// Fills a journal by the way that callbacks take.
fn fill(path: &Path, sessions: usize) {
    let options = Options {
        allow_volatile: true,
        ..Options::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (prepared, _) = Journal::open(path, options, NOW).unwrap();
    let journal = prepared.start().unwrap();
    runtime.block_on(async {
        let mut running = std::collections::VecDeque::new();
        for number in 0..STORED {
            let (journal, event) = (journal.clone(), event(number, sessions));
            let accepted = tokio::task::unconstrained(async move {
                journal.accept(event, Policy::Hold, NOW).await.unwrap();
            });
            let mut accepted = Box::pin(accepted);
            // Asked for now, in order; waited for when many are under way.
            let early = std::future::poll_fn(|context| {
                std::task::Poll::Ready(accepted.as_mut().poll(context).is_ready())
            });
            if !early.await {
                running.push_back(accepted);
            }
            if running.len() >= 200 {
                running.pop_front().unwrap().await;
            }
        }
        for accepted in running {
            accepted.await;
        }
    });
    journal.close();
}

/// An address where nobody is.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn setup(shop: SocketAddr) -> Setup {
    let setup = Setup::new(1).bank("url: http://127.0.0.1:1\n    allow_plaintext_loopback: true");
    let key = ed25519_key();
    replace(&setup.path().join("bank.pub"), &key);
    replace(&setup.path().join("deliver.secret"), SECRET);
    setup.guarded().top(&format!(
        "callbacks:\n  - name: bank\n    listen: [{{unix: callback.sock, mode: \"0600\"}}]\n    path: /callback\n    signature: {{header: X-Signature, keys: [{{id: k, algorithm: ed25519, file: bank.pub}}]}}\n    event: {{id: [/event_id], session: /session_id, status: /status}}\n    deliver: {{url: \"http://{shop}/hook.php\", host: shop.example, secret_files: [deliver.secret], retry: [100ms, 200ms]}}"
    ))
}

fn ed25519_key() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    key.public_key_pem()
}

/// `VmHWM` of a process, in bytes: the most that it ever had.
fn peak_memory(gate: &Gate) -> u64 {
    let pid = gate.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// What a process has worked so far.
fn processor_time(gate: &Gate) -> Duration {
    let pid = gate.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: utime and stime are the fields 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn a_backlog_is_worked_off(sessions: usize) {
    let addr = nobody();
    let setup = setup(addr);
    let begin = Instant::now();
    fill(&setup.path().join("journal.db"), sessions);
    let filled = begin.elapsed();
    let begin = Instant::now();
    let gate = setup.start();
    let (started, worked) = (begin.elapsed(), processor_time(&gate));
    // It tries, and nobody is there.
    until("some were tried", || {
        gate.log()
            .matches("not delivered; it is tried again")
            .count()
            >= 50.min(sessions)
    });
    let before = peak_memory(&gate);
    let shop = Shop::open_at(addr);
    let patience = Instant::now() + Duration::from_secs(120);
    while shop.count() < WATCHED {
        assert!(Instant::now() < patience, "{} delivered", shop.count());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let after = peak_memory(&gate);
    println!(
        "{STORED} events, {sessions} sessions: written in {filled:?}, started in {started:?} ({worked:?} of processor time), {} MiB, then {} MiB",
        before >> 20,
        after >> 20
    );
    let mut last = BTreeMap::new();
    for delivery in shop.deliveries() {
        let body = delivery.json();
        let number: usize = body["event_id"].as_str().unwrap()[1..].parse().unwrap();
        let session = body["session_id"].as_str().unwrap().to_owned();
        let expected = last
            .get(&session)
            .map_or(number % sessions, |last| last + sessions);
        assert_eq!(number, expected, "session {session}");
        last.insert(session, number);
    }
    assert!(shop.most_at_once() <= 4.min(sessions));
    assert!(after < MEMORY, "{after} bytes");
    assert!(
        worked < START,
        "{worked:?} of processor time until it was ready"
    );
}

#[test]
fn a_backlog_of_one_session_costs_neither_memory_nor_time_nor_order() {
    a_backlog_is_worked_off(1);
}

#[test]
fn a_backlog_of_many_sessions_costs_neither_memory_nor_time_nor_order() {
    a_backlog_is_worked_off(10_000);
}
