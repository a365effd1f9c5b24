//! On the disk before on the wire: between the handshake of a guarded request and its first byte the journal was written
//! and synced, for every one of them. And the judge of that is not blind: it finds a gate that does not sync.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use serde_json::json;

use crate::support::bank::{Bank, Speaks};
use crate::support::client::Target;
use crate::support::failpoints::armed;
use crate::support::operation::{self, REFUND, ask, expected, seen};
use crate::support::shim::{Event, File, Shim};
use crate::support::world::World;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// More than a whole handshake takes, so that a request cannot be taken for a part of one.
const PADDING: usize = 6_000;

/// How refunds are asked for.
#[derive(Clone, Copy)]
enum Pace {
    OneByOne,
    FourAtOnce,
}

/// What the judge found.
#[derive(Debug, Default)]
struct Verdict {
    /// Requests whose first byte went out.
    requests: usize,
    /// Those of them that were not on the disk, and why.
    early: Vec<String>,
}

#[test]
fn a_thousand_refunds_are_on_the_disk_before_their_first_byte_is_sent() {
    let run = |command| command;
    let one_by_one = watch(Speaks::Tls13, 700, Pace::OneByOne, run);
    assert_eq!(one_by_one.early, Vec::<String>::new());
    assert_eq!(one_by_one.requests, 700);
    let together = watch(Speaks::Tls13, 300, Pace::FourAtOnce, run);
    assert_eq!(together.early, Vec::<String>::new());
    assert_eq!(together.requests, 300);
}

#[test]
fn so_they_are_under_tls_1_2_where_application_data_is_told_from_a_handshake_by_its_type() {
    let verdict = watch(Speaks::Tls12, 100, Pace::OneByOne, |command| command);
    assert_eq!(verdict.early, Vec::<String>::new());
    assert_eq!(verdict.requests, 100);
}

#[test]
fn a_gate_that_does_not_sync_its_journal_is_caught_at_every_refund() {
    for careless in ["OFF", "NORMAL"] {
        let verdict = watch(Speaks::Tls13, 50, Pace::OneByOne, |command| {
            let mut command = armed(&command, None);
            command.env("PRIORGATE_SYNCHRONOUS", careless);
            command
        });
        assert_eq!(verdict.requests, 50, "{careless}");
        assert_eq!(verdict.early.len(), 50, "{careless}: {:?}", verdict.early);
    }
}

/// Asks for `count` refunds, and judges what the gate did.
fn watch(
    speaks: Speaks,
    count: usize,
    pace: Pace,
    adjust: impl FnOnce(Command) -> Command,
) -> Verdict {
    let world = World::new();
    let refunds = Arc::new(AtomicUsize::new(0));
    let bank = {
        let refunds = Arc::clone(&refunds);
        world.bank(speaks, move |session| operation::serve(session, &refunds))
    };
    let oldest = match speaks {
        Speaks::Tls12 => "1.2",
        Speaks::Tls13 | Speaks::Tls13WithoutTickets => "1.3",
    };
    let setup = world
        .setup(bank.port())
        .with(&format!("tls: {{min_version: \"{oldest}\"}}"))
        .with("timeouts: {connect: 10s, response: 10s, total: 20s}")
        .guarded();
    let shim = Shim::new(&setup.path().join("journal.db")).bank(bank.port());
    let mut gate = setup.start_with(|command| shim.over(adjust(command)));
    let target = gate.unix();
    match pace {
        Pace::OneByOne => refund(&target, 0..count),
        Pace::FourAtOnce => std::thread::scope(|scope| {
            for part in 0..4 {
                let (target, each) = (&target, count / 4);
                scope.spawn(move || refund(target, part * each..(part + 1) * each));
            }
        }),
    }
    // What the gate says goodbye with is in the log, too.
    gate.finish();
    expect_one_each(&bank, count);
    judge(&shim.events(), speaks, pace)
}

fn refund(target: &Target, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let body = json!({
            "session_id": format!("s{number}"),
            "amount": number,
            "padding": "x".repeat(PADDING),
        });
        let answer = ask(target, REFUND, &format!("k{number}"), &body.to_string());
        assert_eq!(seen(&answer), expected(200, "", "answered", "done"));
    }
}

fn expect_one_each(bank: &Bank, count: usize) {
    let bodies: std::collections::BTreeSet<_> = bank
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!((bank.requests().len(), bodies.len()), (count, count));
    // A fresh one for each: what is said of connections is said of requests.
    assert_eq!(bank.connections(), count);
}

/// Looks at each connection to the bank. Its client speaks three times: a hello; the rest of the handshake, which ends with
/// a change of cipher (in TLS 1.3 for the sake of middleboxes; all behind it is of the type of application data); the
/// request.
fn judge(events: &[Event], speaks: Speaks, pace: Pace) -> Verdict {
    let mut writes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        if let Event::Net { connection, .. } = event {
            writes.entry(*connection).or_default().push(place);
        }
    }
    let mut verdict = Verdict::default();
    for (connection, writes) in writes {
        let changes = |place: &usize| types(&events[*place]).contains(&CHANGE_CIPHER_SPEC);
        let handshake = writes.iter().rposition(changes);
        let handshake = handshake.unwrap_or_else(|| panic!("{connection} has no handshake"));
        let Some(&first) = writes.get(handshake + 1) else {
            continue;
        };
        let request = &writes[handshake + 1..];
        expect_request(events, &writes[..=handshake], request, speaks);
        verdict.requests += 1;
        let between = &events[writes[handshake] + 1..first];
        if let Err(why) = is_on_disk(between, pace) {
            verdict.early.push(format!("{connection}: {why}"));
        }
    }
    verdict
}

fn types(event: &Event) -> &[u8] {
    match event {
        Event::Net { types, .. } => types,
        _ => &[],
    }
}

/// That what is taken for the request is one: it alone is as long as one, and under TLS 1.2 it alone is application data.
fn expect_request(events: &[Event], before: &[usize], request: &[usize], speaks: Speaks) {
    let total = |places: &[usize]| {
        let lengths = places.iter().map(|&place| match &events[place] {
            Event::Net { length, .. } => *length,
            _ => 0,
        });
        lengths.sum::<u64>()
    };
    let told = || {
        let all = before.iter().chain(request).map(|&place| &events[place]);
        format!("{:?}", all.collect::<Vec<_>>())
    };
    let padding = PADDING as u64;
    assert!(
        total(before) < padding && total(request) > padding,
        "{}",
        told()
    );
    assert_eq!(
        types(&events[request[0]]).first(),
        Some(&APPLICATION_DATA),
        "{}",
        told()
    );
    if matches!(speaks, Speaks::Tls12) {
        let all = |places: &[usize], allowed: &dyn Fn(u8) -> bool| {
            let mut types = places.iter().flat_map(|&place| types(&events[place]));
            types.all(|&found| allowed(found))
        };
        assert!(
            all(before, &|found| found != APPLICATION_DATA),
            "{}",
            told()
        );
        let after = |found| found == APPLICATION_DATA || found == ALERT;
        assert!(all(request, &after), "{}", told());
    }
}

/// Whether a page was written to the journal's WAL in these events, and then synced.
fn is_on_disk(between: &[Event], pace: Pace) -> Result<(), &'static str> {
    // The WAL's own head, which is synced by itself when it starts over, is no page.
    let page = |event: &Event| match event {
        Event::Write { file, length, .. } => *file == File::Wal && *length > 32,
        _ => false,
    };
    // Among others, what follows the first is somebody else's. Alone, the last must be on the disk.
    let written = match pace {
        Pace::OneByOne => between.iter().rposition(page),
        Pace::FourAtOnce => between.iter().position(page),
    };
    let rest = &between[written.ok_or("the WAL was not written")?..];
    let begin = rest
        .iter()
        .position(|event| *event == Event::SyncBegin(File::Wal))
        .ok_or("the WAL was written and not synced")?;
    let synced = |event: &Event| match event {
        Event::SyncEnd { file, errno, .. } => *file == File::Wal && *errno == 0,
        _ => false,
    };
    match rest[begin..].iter().any(synced) {
        true => Ok(()),
        false => Err("the sync of the WAL had not returned"),
    }
}
