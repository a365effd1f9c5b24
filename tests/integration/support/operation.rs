//! Guarded requests, and a bank that does with each what its body says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::bank::{Bank, Session, Speaks};
use super::client::{Answer, Target, post};
use super::world::World;

pub(crate) const REFUND: &str = "/installment/refund";

/// A refund's body. `does` tells the bank what to do: `answer`, `lose`, `html`, `moved`, a status, or `wait:<ms>`.
pub(crate) fn refund(session: &str, amount: u32, does: &str) -> String {
    json!({"session_id": session, "amount": amount, "does": does}).to_string()
}

/// A guarded request as raw bytes.
pub(crate) fn bytes(path: &str, key: &str, body: &str) -> Vec<u8> {
    post(
        path,
        &format!("Idempotency-Key: {key}\r\n"),
        body.as_bytes(),
    )
}

/// Asks and waits for the answer.
pub(crate) fn ask(target: &Target, path: &str, key: &str, body: &str) -> Answer {
    target.send(&bytes(path, key, body))
}

/// The operation's id and state from an answer's header.
pub(crate) fn operation(answer: &Answer) -> (String, String) {
    let value = answer
        .header("priorgate-operation")
        .unwrap_or_else(|| panic!("no operation: {answer:?}"));
    let (id, state) = value.split_once("; state=").unwrap();
    (id.to_owned(), state.to_owned())
}

/// Status, code, outcome and state of an answer, for one comparison.
pub(crate) fn seen(answer: &Answer) -> (u16, String, String, String) {
    let state = answer
        .header("priorgate-operation")
        .and_then(|value| value.split_once("; state="))
        .map_or("", |(_, state)| state);
    (
        answer.status,
        answer.code(),
        answer.outcome().to_owned(),
        state.to_owned(),
    )
}

/// The same as it is written in a test.
pub(crate) fn expected(
    status: u16,
    code: &str,
    outcome: &str,
    state: &str,
) -> (u16, String, String, String) {
    (
        status,
        code.to_owned(),
        outcome.to_owned(),
        state.to_owned(),
    )
}

/// A bank that answers each request with a number of its own, after doing what the body says.
pub(crate) fn bank(world: &World) -> Bank {
    let refunds = Arc::new(AtomicUsize::new(0));
    world.bank(Speaks::Tls13, move |session| serve(session, &refunds))
}

/// One connection of such a bank.
pub(crate) fn serve(mut session: Session, refunds: &AtomicUsize) {
    while let Some(request) = session.request() {
        let number = refunds.fetch_add(1, Ordering::SeqCst) + 1;
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let answer = json!({"refund_id": number}).to_string();
        match body["does"].as_str().unwrap_or("answer") {
            "answer" => session.answer("200 OK", &answer),
            "lose" => return session.reset(),
            "html" => session.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<ok>",
            ),
            "moved" => session
                .write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
            does => match does.strip_prefix("wait:") {
                Some(millis) => {
                    std::thread::sleep(Duration::from_millis(millis.parse().unwrap()));
                    session.answer("200 OK", &answer);
                }
                None => session.answer(&format!("{does} As Told"), &answer),
            },
        }
    }
}
