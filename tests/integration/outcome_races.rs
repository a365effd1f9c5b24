//! Connections that die while a kept-alive request is on its way. Whatever the timing: a request
//! reaches the bank at most once, `not_sent` means that it never did, and `answered` that it did.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::bank::{Request, Session, Speaks};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::world::World;

const BODY: &[u8] = br#"{"order_ref":"1","amount":"1.00"}"#;

fn create(gate: &Gate) -> Answer {
    gate.unix().post("/installment/create", "", BODY)
}

fn wait(duration: Duration) {
    let (_hold, wait) = std::sync::mpsc::channel::<()>();
    let _ = wait.recv_timeout(duration);
}

#[test]
fn a_kept_connection_that_dies_with_the_request_is_unknown_and_nothing_is_sent_again() {
    type Row = (&'static str, fn(Session));
    let rows: [Row; 5] = [
        ("bank_disconnected", |mut session| {
            session.head();
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.head();
            session.bytes(BODY.len() / 2);
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.request();
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.request();
            session.close();
        }),
        ("bank_reply_invalid", |mut session| {
            session.request();
            session.write(b"HTTP/1.1 200");
            session.close();
        }),
    ];
    for (code, end) in rows {
        let world = World::new();
        let bank = world.bank(Speaks::Tls13, move |mut session| {
            session.request();
            session.answer("200 OK", "{}");
            end(session);
        });
        let gate = world.gate(bank.port());
        assert_eq!(create(&gate).status, 200);
        let answer = create(&gate);
        assert_eq!(
            (answer.status, &*answer.code(), answer.outcome()),
            (502, code, "unknown"),
            "{}",
            gate.log()
        );
        // A second try would have been seen on a second connection.
        assert_eq!((bank.requests().len(), bank.connections()), (2, 1));
        gate.expect_records(2);
        assert_eq!(gate.counts(), (1, 0, 1));
    }
}

#[test]
fn an_endless_row_of_interim_answers_is_a_time_out() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        session.request();
        for _ in 0..60 {
            session.write(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
            );
            wait(Duration::from_millis(50));
        }
    });
    let gate = world.gate(bank.port());
    let answer = create(&gate);
    assert_eq!(
        (answer.status, &*answer.code(), answer.outcome()),
        (504, "bank_timeout", "unknown")
    );
    assert_eq!((bank.requests().len(), bank.connections()), (1, 1));
}

/// The order in a request's body.
fn order(request: &Request) -> usize {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
    body["order"]
        .as_u64()
        .map_or(usize::MAX, |order| order.try_into().unwrap())
}

#[test]
fn a_bank_that_closes_at_any_moment_never_gets_a_request_twice() {
    const REQUESTS: usize = 300;
    let world = World::new();
    // Each connection answers one request and ends a little later, in one of three ways; the next
    // request comes at another little later. Both steps are short against the way between them, so
    // that every order of events is met.
    let bank = world.bank(Speaks::Tls13, |mut session| {
        if session.request().is_none() {
            return;
        }
        session.answer("200 OK", "{}");
        wait(Duration::from_micros(session.index as u64 % 17 * 100));
        match session.index % 3 {
            0 => session.close(),
            1 => session.reset(),
            _ => drop(session),
        }
    });
    let gate = world.gate(bank.port());
    let told: Vec<(String, String)> = (0..REQUESTS)
        .map(|order| {
            wait(Duration::from_micros(order as u64 % 13 * 100));
            let body = format!("{{\"order\":{order}}}");
            let answer = gate.unix().post("/installment/create", "", body.as_bytes());
            (answer.outcome().to_owned(), answer.code())
        })
        .collect();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for request in bank.requests() {
        *seen.entry(order(&request)).or_default() += 1;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (order, (outcome, code)) in told.iter().enumerate() {
        let at_the_bank = seen.get(&order).copied().unwrap_or(0);
        let right = match outcome.as_str() {
            "answered" => at_the_bank == 1,
            "not_sent" => at_the_bank == 0,
            "unknown" => at_the_bank <= 1,
            _ => false,
        };
        assert!(
            right,
            "order {order}: {outcome} {code}, {at_the_bank} times at the bank"
        );
        *counts.entry(outcome).or_default() += 1;
    }
    println!("{counts:?}");
    assert!(counts["answered"] > REQUESTS / 2, "{counts:?}");
    gate.expect_records(REQUESTS);
}
