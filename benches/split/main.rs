//! What it costs that the key is in a process of its own: signatures, handshakes and first requests with a key of this
//! process beside the real keyholder, in alternating rounds of one run. A table, and with a FILE the same as JSON.
//!
//! Every process is this program in a role of its own, so that all are of one build; without a role it measures.

// A measurement that meets something unexpected has nothing to go on with, and its output is what it is for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod cpu;
mod roles;
mod work;
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use cpu::Pids;
use work::{Client, Latency, Rate, first_requests, runtime};
use world::{KINDS, Split, World, bank, gate, keyholder_of};

const ROUNDS: usize = 9;
/// Of signatures.
const SHORT: Duration = Duration::from_millis(250);
/// Of handshakes.
const LONG: Duration = Duration::from_millis(700);
const REQUESTS: usize = 300;
/// What is measured in each round before the count begins.
const WARM: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        // Monitor and signer, started by the one that measures, by a gate, or by the monitor.
        ["keyholder", ..] => return priorgate::cli::main(),
        ["bank", ca, cert, key] => roles::bank(ca.as_ref(), cert.as_ref(), key.as_ref()),
        ["gate", keys, config] => roles::gate(keys, config.as_ref()),
        [] => measure(None),
        [file] => measure(Some(file.as_ref())),
        _ => panic!("expected a file for JSON, or nothing"),
    }
    ExitCode::SUCCESS
}

/// One round of one key.
struct Round {
    sign: [Rate; 2],
    one: [Rate; 2],
    eight: [Rate; 2],
    first: [Latency; 2],
}

fn measure(file: Option<&Path>) {
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap();
    let before = load();
    println!("loadavg before: {}", before.trim());
    let world = World::new();
    let (bank, hands, requests) = bank(&world);
    let hands = SocketAddr::from(([127, 0, 0, 1], hands));
    let split = Split::start(&world);
    let gates = ["in-process", "keyholder"].map(|keys| gate(&world, keys, requests));
    let sockets = |kind: &str| ["in-process", "keyholder"].map(|gate| world.socket(gate, kind));
    // Of the two places, what has the key and who is looked at.
    let here = |gate, keyholder| Pids {
        gate,
        keyholder,
        bank: bank.pid(),
    };
    let me = std::process::id();
    let ours = [here(me, None), here(me, Some(split.pids()))];
    let theirs = [
        here(gates[0].pid(), None),
        here(gates[1].pid(), Some(keyholder_of(&gates[1]))),
    ];
    let runtime = runtime();
    let mut all = Vec::new();
    for (kind, _) in KINDS {
        let clients = [
            Client::in_process(&world, kind),
            Client::split(&world, kind, &split),
        ];
        let sockets = sockets(kind);
        for place in 0..2 {
            clients[place].shake(&runtime, hands, 8, &ours[place], WARM);
            first_requests(&sockets[place], &theirs[place], 20);
        }
        let rounds: Vec<Round> = (0..ROUNDS)
            .map(|number| Round {
                sign: both(number, |place| clients[place].sign(&ours[place], SHORT)),
                one: both(number, |place| {
                    clients[place].shake(&runtime, hands, 1, &ours[place], LONG)
                }),
                eight: both(number, |place| {
                    clients[place].shake(&runtime, hands, 8, &ours[place], LONG)
                }),
                first: both(number, |place| {
                    first_requests(&sockets[place], &theirs[place], REQUESTS)
                }),
            })
            .collect();
        let result = summary(&rounds);
        print(kind, &result);
        all.push((kind.to_owned(), result));
    }
    let after = load();
    println!("\nloadavg after: {}", after.trim());
    let Some(file) = file else { return };
    let all: serde_json::Map<String, Value> = all.into_iter().collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    let whole = json!({
        "rounds": ROUNDS,
        "machine": {"cores": cores, "kernel": kernel.trim(), "arch": std::env::consts::ARCH},
        "loadavg": {"before": before.trim(), "after": after.trim()},
        "keys": all,
    });
    std::fs::write(file, format!("{whole:#}\n")).unwrap();
}

/// Both places, each first in every other round.
fn both<T>(round: usize, measure: impl Fn(usize) -> T) -> [T; 2] {
    if round.is_multiple_of(2) {
        [0, 1].map(measure)
    } else {
        let [split, in_process] = [1, 0].map(measure);
        [in_process, split]
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Medians of both places, and of the ratio within each round: the second to the first.
fn compared(rounds: &[Round], of: impl Fn(&Round, usize) -> f64) -> Value {
    let place = |place| median(rounds.iter().map(|round| of(round, place)).collect());
    let ratio = median(
        rounds
            .iter()
            .map(|round| of(round, 1) / of(round, 0))
            .collect(),
    );
    let (in_process, keyholder): (f64, f64) = (place(0), place(1));
    json!({"in_process": in_process, "keyholder": keyholder, "ratio": ratio})
}

fn cpu(rounds: &[Round], of: impl Fn(&Round, usize) -> [f64; 4]) -> Value {
    let part = |index: usize| compared(rounds, |round, place| of(round, place)[index]);
    let mut all = json!({"shop_side": compared(rounds, |round, place| {
        of(round, place)[..3].iter().sum()
    })});
    for (index, name) in ["gate", "monitor", "signer", "bank"].iter().enumerate() {
        let mut part = part(index);
        // Where the first is nothing there is no ratio.
        if matches!(*name, "monitor" | "signer") {
            part["ratio"] = Value::Null;
        }
        all[*name] = part;
    }
    all
}

fn summary(rounds: &[Round]) -> Value {
    json!({
        "signatures": {
            "per_second": compared(rounds, |round, place| round.sign[place].per_second),
            "cpu_us": cpu(rounds, |round, place| round.sign[place].cpu),
        },
        "handshakes_1": {
            "per_second": compared(rounds, |round, place| round.one[place].per_second),
            "cpu_us": cpu(rounds, |round, place| round.one[place].cpu),
        },
        "handshakes_8": {
            "per_second": compared(rounds, |round, place| round.eight[place].per_second),
            "cpu_us": cpu(rounds, |round, place| round.eight[place].cpu),
        },
        "first_request": {
            "p50_us": compared(rounds, |round, place| round.first[place].p50),
            "p99_us": compared(rounds, |round, place| round.first[place].p99),
            "cpu_us": cpu(rounds, |round, place| round.first[place].cpu),
        },
    })
}

fn print(kind: &str, result: &Value) {
    println!("\n{kind:<44}  in process   keyholder   ratio");
    for (name, at) in [
        ("signatures/s, one at a time", "/signatures/per_second"),
        (
            "  CPU of shop's side, us each",
            "/signatures/cpu_us/shop_side",
        ),
        ("handshakes/s, one at a time", "/handshakes_1/per_second"),
        (
            "  CPU of shop's side, us each",
            "/handshakes_1/cpu_us/shop_side",
        ),
        ("    gate", "/handshakes_1/cpu_us/gate"),
        ("    signer", "/handshakes_1/cpu_us/signer"),
        ("    monitor", "/handshakes_1/cpu_us/monitor"),
        ("  CPU of the bank, us each", "/handshakes_1/cpu_us/bank"),
        ("handshakes/s, eight at a time", "/handshakes_8/per_second"),
        (
            "  CPU of shop's side, us each",
            "/handshakes_8/cpu_us/shop_side",
        ),
        (
            "first request through a gate, p50, us",
            "/first_request/p50_us",
        ),
        (
            "first request through a gate, p99, us",
            "/first_request/p99_us",
        ),
        (
            "  CPU of shop's side, us each",
            "/first_request/cpu_us/shop_side",
        ),
    ] {
        let row = result.pointer(at).unwrap();
        let number = |name: &str| row[name].as_f64();
        let ratio = number("ratio").map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let (in_process, keyholder) = (number("in_process").unwrap(), number("keyholder").unwrap());
        println!("{name:<44} {in_process:>11.0} {keyholder:>11.0} {ratio:>7}");
    }
}
