//! What each answer of the bank makes of an operation, and what a guarded request must have.

use crate::support::client::post;
use crate::support::operation::{REFUND, ask, bank, expected, operation, refund, seen};
use crate::support::world::World;

const CREATE: &str = "/installment/create";

#[test]
fn a_definitive_answer_is_kept_a_refusal_runs_again_and_the_rest_is_unknown() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    for (does, first, again, at_bank) in [
        (
            "answer",
            expected(200, "", "answered", "done"),
            expected(200, "", "answered", "done"),
            1,
        ),
        (
            "422",
            expected(422, "", "answered", "done"),
            expected(422, "", "answered", "done"),
            1,
        ),
        (
            "403",
            expected(403, "", "answered", "refused"),
            expected(403, "", "answered", "refused"),
            2,
        ),
        (
            "429",
            expected(429, "", "answered", "refused"),
            expected(429, "", "answered", "refused"),
            2,
        ),
        (
            "500",
            expected(500, "", "unknown", "unknown"),
            expected(409, "outcome_unknown", "unknown", "unknown"),
            1,
        ),
        (
            "html",
            expected(200, "", "unknown", "unknown"),
            expected(409, "outcome_unknown", "unknown", "unknown"),
            1,
        ),
        (
            "moved",
            expected(502, "bank_reply_invalid", "unknown", "unknown"),
            expected(409, "outcome_unknown", "unknown", "unknown"),
            1,
        ),
    ] {
        let before = bank.requests().len();
        let body = refund(does, 100, does);
        let answer = ask(&gate.unix(), REFUND, does, &body);
        assert_eq!(seen(&answer), first, "{does}");
        if answer.code().is_empty() {
            assert_ne!(
                answer.body, b"",
                "the bank's answer passes as it is: {does}"
            );
        }
        let repeated = ask(&gate.unix(), REFUND, does, &body);
        assert_eq!(seen(&repeated), again, "{does} again");
        assert_eq!(operation(&repeated).0, operation(&answer).0);
        assert_eq!(bank.requests().len() - before, at_bank, "{does}");
    }
}

#[test]
fn a_guarded_request_needs_a_key_and_a_subject() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    let good = refund("s1", 100, "answer");
    let key = "Idempotency-Key: k1\r\n";
    for (headers, body, status, code) in [
        ("", &*good, 400, "idempotency_key_required"),
        ("Idempotency-Key: a b\r\n", &good, 400, "bad_request"),
        ("Idempotency-Key: \"a\r\n", &good, 400, "bad_request"),
        (
            "Idempotency-Key: k1\r\nIdempotency-Key: k1\r\n",
            &good,
            400,
            "bad_request",
        ),
        (
            "Idempotency-Key: k1\r\nPriorgate-Repeat: yes\r\n",
            &good,
            400,
            "bad_request",
        ),
        (key, "{}", 400, "subject_required"),
        (key, "session_id=s1", 400, "subject_required"),
        (
            key,
            r#"{"session_id":"s1","session_id":"s2"}"#,
            400,
            "subject_required",
        ),
        (key, r#"{"session_id":null}"#, 400, "subject_required"),
        (key, r#"{"session_id":1.5}"#, 400, "subject_required"),
    ] {
        let answer = gate.unix().post(REFUND, headers, body.as_bytes());
        assert_eq!(
            (answer.status, &*answer.code(), answer.outcome()),
            (status, code, "not_sent"),
            "{headers:?} {body}"
        );
        assert_eq!(answer.header("priorgate-operation"), None);
    }
    assert!(bank.requests().is_empty());
    // A request that was refused for its form has not used its key up.
    assert_eq!(ask(&gate.unix(), REFUND, "k1", &good).status, 200);
}

#[test]
fn a_key_is_for_one_request_byte_for_byte() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    let first = ask(&gate.unix(), REFUND, "k1", &refund("s1", 100, "answer"));
    for (path, body) in [
        (REFUND, refund("s1", 101, "answer")),
        (REFUND, refund("s2", 100, "answer")),
        ("/installment/cancel", refund("s1", 100, "answer")),
        (REFUND, format!("{} ", refund("s1", 100, "answer"))),
    ] {
        let reused = ask(&gate.unix(), path, "k1", &body);
        assert_eq!(
            seen(&reused),
            expected(422, "idempotency_key_reused", "answered", "done")
        );
        assert_eq!(operation(&reused).0, operation(&first).0);
    }
    assert_eq!(bank.requests().len(), 1);
}

#[test]
fn the_same_refund_again_within_a_day_must_be_meant() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    let body = refund("s1", 100, "answer");
    assert_eq!(ask(&gate.unix(), REFUND, "k1", &body).status, 200);
    let twice = ask(&gate.unix(), REFUND, "k2", &body);
    assert_eq!(
        seen(&twice),
        expected(409, "duplicate_request", "answered", "done")
    );
    let meant = gate.unix().post(
        REFUND,
        "Idempotency-Key: k2\r\nPriorgate-Repeat: intended\r\n",
        body.as_bytes(),
    );
    assert_eq!(seen(&meant), expected(200, "", "answered", "done"));
    assert_eq!(bank.requests().len(), 2);
    assert!(!bank.requests()[1].head.contains("priorgate-repeat"));
}

#[test]
fn on_an_optional_route_the_key_decides() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    for _ in 0..2 {
        let plain = gate.unix().post(CREATE, "", b"{}");
        assert_eq!(plain.status, 200);
        assert_eq!(plain.header("priorgate-operation"), None);
    }
    assert_eq!(bank.requests().len(), 2);
    let guarded = ask(&gate.unix(), CREATE, "c1", "{\"n\":1}");
    assert_eq!(seen(&guarded), expected(200, "", "answered", "done"));
    let again = ask(&gate.unix(), CREATE, "c1", "{\"n\":1}");
    assert_eq!(again.body, guarded.body);
    assert_eq!(bank.requests().len(), 3);
    assert_eq!(bank.connections(), 1, "create keeps its pooled connection");
    // No subject: another key is another session, unless it is the same request.
    assert_eq!(ask(&gate.unix(), CREATE, "c2", "{\"n\":2}").status, 200);
    assert_eq!(
        ask(&gate.unix(), CREATE, "c3", "{\"n\":1}").code(),
        "duplicate_request"
    );
}

#[test]
fn a_kept_alive_caller_may_ask_on_without_waiting() {
    let world = World::new();
    let bank = bank(&world);
    let gate = world.setup(bank.port()).guarded().start();
    let mut caller = gate.unix().connect();
    // Three different refunds of one session in a row: each answer frees the subject before the next is read.
    for amount in 1..=3 {
        let key = format!("Idempotency-Key: k{amount}\r\n");
        let body = refund("s1", amount, "answer");
        std::io::Write::write_all(&mut caller, &post(REFUND, &key, body.as_bytes())).unwrap();
        let answer = caller.answer();
        assert_eq!(seen(&answer), expected(200, "", "answered", "done"));
    }
    assert_eq!(bank.requests().len(), 3);
}
