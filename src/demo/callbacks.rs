//! The part of the demo in which a paid order could look unpaid: the bank's notifications, forged ones, and a shop that is
//! down when they come.

use std::io;
use std::time::{Duration, Instant};

use super::scenario::{Line, Show};
use super::stage::Stage;
use crate::sandbox::{CallbackEvent, CallbackOrder};

/// How long the shop stays closed.
const DOWN: Duration = Duration::from_secs(2);
/// Longer than any step of the play takes: the shop is tried again every half second.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Plays it. `session` was approved and refunded in part.
pub(super) fn play(stage: &mut Stage, show: &mut Show<'_>, session: &str) -> io::Result<()> {
    for status in ["APPROVED", "REFUNDED"] {
        show.step(
            &format!("the bank's {status} has reached the shop"),
            told(stage, session, status, 1),
        )?;
    }

    let forged = send(stage, "forged", "APPROVED", Some("wrong-key"));
    show.step(
        "a forged APPROVED: refused, the shop hears nothing",
        answered(stage, &forged, 503, 0),
    )?;

    stage.shop.close();
    let sent = send(stage, "while-down", "APPROVED", None);
    show.step(
        "an APPROVED while the shop is down: taken, on disk",
        answered(stage, &sent, 200, 0),
    )?;
    std::thread::park_timeout(DOWN);
    stage.shop.reopen()?;
    show.step(
        "two seconds later, the shop is back: it has it",
        told(stage, "while-down", "APPROVED", 1),
    )?;

    let doubled = send(stage, "doubled", "APPROVED", Some("doubled"));
    // Both copies have their answer before the shop's books are looked at.
    let _ = poll(|| {
        let all = stage.sandbox().callbacks();
        let number = doubled.as_ref()?.number;
        all.iter()
            .any(|event| event.number == number && event.accepted == 2)
            .then_some(())
    });
    show.step(
        "the bank sends one twice at once: delivered once",
        told(stage, "doubled", "APPROVED", 1),
    )
}

fn send(stage: &Stage, session: &str, status: &str, fault: Option<&str>) -> Option<CallbackEvent> {
    let order = CallbackOrder {
        session_id: session.to_owned(),
        status: status.to_owned(),
        fault: fault.map(str::to_owned),
        attempts: Some(1),
        ..CallbackOrder::default()
    };
    stage.sandbox().send_callback(order).ok()
}

/// What the bank got for an answer; and how often the shop has heard of the session by then.
fn answered(stage: &Stage, sent: &Option<CallbackEvent>, status: u16, heard: usize) -> Line {
    let started = Instant::now();
    let answer = poll(|| {
        let sent = sent.as_ref()?;
        let all = stage.sandbox().callbacks();
        let event = all.into_iter().find(|event| event.number == sent.number)?;
        event.last_answer
    });
    let session = sent.as_ref().map_or("", |sent| &*sent.session_id);
    let known = count(stage, session, "APPROVED");
    Line {
        good: answer == Some(status) && known <= heard,
        outcome: "the bank".to_owned(),
        took: started.elapsed(),
        what: answer.map_or_else(|| "no answer".to_owned(), |answer| format!("got {answer}")),
    }
}

/// Whether the shop has heard of it, just so often.
fn told(stage: &Stage, session: &str, status: &str, times: usize) -> Line {
    let started = Instant::now();
    let _ = poll(|| (count(stage, session, status) >= times).then_some(()));
    let heard = count(stage, session, status);
    Line {
        good: heard == times,
        outcome: "the shop".to_owned(),
        took: started.elapsed(),
        what: format!("{heard} signed delivery, acknowledged"),
    }
}

fn count(stage: &Stage, session: &str, status: &str) -> usize {
    let told = stage.shop.told();
    let of = told.iter();
    of.filter(|told| told.session == session && told.status == status)
        .count()
}

fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::park_timeout(POLL);
    }
}
