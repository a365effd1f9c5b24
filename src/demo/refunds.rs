//! The part of the demo in which money could be lost: a refund asked for twice, and one whose answer is lost.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Answer, Target};
use super::scenario::{Line, ORDER, Show, create, expect_member, expect_problem, judge, post};
use super::stage::Stage;
use crate::cli::client;

const REFUND: &str = "/installment/refund";

/// Plays it. `session` is an approved one.
pub(super) fn play(stage: &Stage, show: &mut Show<'_>, session: &str) -> io::Result<()> {
    let socket = Target::Socket(stage.socket.clone());
    let refund = |key: &str, body: &str| post(&socket, REFUND, &[("Idempotency-Key", key)], body);
    let body = format!(r#"{{"session_id":"{session}","amount":"250.00"}}"#);
    show.step(
        "refund of a part, with a key",
        expect_member(refund("refund-1", &body), "refund_id"),
    )?;
    show.step(
        "the same again, same key: the answer is replayed",
        expect_replay(refund("refund-1", &body), "refund_id"),
    )?;
    show.step(
        "the same again, new key: refused as a duplicate",
        expect_problem(
            refund("refund-2", &body),
            409,
            "duplicate_request",
            "answered",
        ),
    )?;
    show.step(
        "refunds that the bank counts for the session",
        counted(stage, session, 1),
    )?;

    let order = ORDER.replace("demo-1", "fault-refund-drop-after-read*1.demo-3");
    let lost = create(&socket, &[], &order)
        .ok()
        .and_then(|answer| answer.member("session_id"))
        .unwrap_or_default();
    let body = format!(r#"{{"session_id":"{lost}","amount":"10.00"}}"#);
    let answer = refund("refund-3", &body);
    let operation = operation(&answer);
    show.step(
        "a refund whose answer is lost",
        expect_problem(answer, 502, "bank_disconnected", "unknown"),
    )?;
    show.step(
        "the same key again: nothing is sent",
        expect_problem(refund("refund-3", &body), 409, "outcome_unknown", "unknown"),
    )?;
    let other = body.replace("10.00", "11.00");
    show.step(
        "a fresh key for the session: refused",
        expect_problem(refund("refund-4", &other), 409, "subject_busy", "unknown"),
    )?;
    show.step(
        "refunds that the bank counts for the session",
        counted(stage, &lost, 1),
    )?;
    show.step(
        "a person asks the bank, and says that it was done",
        resolve(stage, &operation),
    )?;
    show.step(
        "the same key again: the person's answer",
        expect_replay(refund("refund-3", &body), "resolved"),
    )
}

/// A success that comes from the journal, with this member in its body.
fn expect_replay(answer: io::Result<Answer>, member: &str) -> Line {
    let replayed = answer
        .as_ref()
        .is_ok_and(|answer| answer.header("Idempotency-Replayed") == "true");
    let line = expect_member(answer, member);
    Line {
        good: line.good && replayed,
        what: format!("{}, replayed", line.what),
        ..line
    }
}

/// The name in `Priorgate-Operation`.
fn operation(answer: &io::Result<Answer>) -> String {
    let value = answer
        .as_ref()
        .map_or("", |answer| answer.header("Priorgate-Operation"));
    value.split(';').next().unwrap_or_default().to_owned()
}

/// What the bank's own books say.
fn counted(stage: &Stage, session: &str, expected: u64) -> Line {
    let answer = super::client::send(
        &Target::Tcp(stage.control),
        "GET",
        "/control/state",
        &[],
        "",
    );
    let line = judge(answer, |answer| {
        let state: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let sessions = state.get("sessions").and_then(|found| found.as_array());
        let found = sessions
            .into_iter()
            .flatten()
            .find(|found| found.get("session_id").is_some_and(|id| id == session))
            .and_then(|found| found.get("refund_requests")?.as_u64());
        let told = found.map_or_else(|| "no such session".to_owned(), |count| count.to_string());
        (found == Some(expected), told)
    });
    Line {
        outcome: "the bank".to_owned(),
        ..line
    }
}

/// As `priorgate operations resolve` does it.
fn resolve(stage: &Stage, operation: &str) -> Line {
    let started = Instant::now();
    let command = json!({
        "command": "operations.resolve", "id": operation, "as": "done", "reason": "the bank has it",
        "body": r#"{"resolved":"by hand"}"#,
    });
    let result = client::ask_within(
        &stage.dir().join("admin.sock"),
        &command,
        Duration::from_secs(10),
    );
    let (good, what) = match result {
        Ok(_) => (true, "operations resolve --as done".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Line {
        good,
        outcome: "resolved".to_owned(),
        took: started.elapsed(),
        what,
    }
}
