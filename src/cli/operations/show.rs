//! One operation for people: every field, what people did to it, what it means and what to do.

use std::io::{self, Write};

use super::document::{Answer, Operation, Shown};
use crate::cli::journal_file::Source;
use crate::cli::page::{self, moment};
use crate::cli::style::{Style, printable};

/// Prints all that is known.
pub(super) fn print(shown: &Shown, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let Shown {
        operation,
        answer,
        interventions,
    } = shown;
    let state = printable(&operation.state);
    let state = match operation.state.as_str() {
        "done" => style.good(&state),
        "unknown" => style.warn(&state),
        _ => state,
    };
    let id = style.bold(&printable(&operation.id));
    let listening = if operation.listening {
        ", listening"
    } else {
        ""
    };
    writeln!(out, "{id}  {state}{listening}")?;
    page::facts(fields(operation, answer.as_ref()), style, out)?;
    page::interventions(interventions, style, out)?;
    match answer
        .as_ref()
        .map(|answer| (&answer.body, answer.body_cut))
    {
        Some((Some(body), cut)) => page::body(body, cut, out),
        _ => Ok(()),
    }
}

fn fields(operation: &Operation, answer: Option<&Answer>) -> [(&'static str, Option<String>); 17] {
    let text = |text: &Option<String>| text.as_deref().map(printable);
    let holds = operation
        .blocks()
        .then(|| "its subject: requests for it under other keys are refused".to_owned());
    let delivered = (operation.state == "done").then(|| {
        let yes = "to a caller, or a person has seen to it";
        if operation.delivered {
            yes
        } else {
            "to nobody"
        }
        .to_owned()
    });
    let answer = answer.map(|answer| {
        let of = answer.content_type.as_deref().map_or_else(
            || "without a content type".to_owned(),
            |content_type| format!("of {}", printable(content_type)),
        );
        format!("{} {of}, {} bytes", answer.status, answer.bytes)
    });
    [
        ("bank", Some(printable(&operation.bank))),
        ("route", Some(printable(&operation.route))),
        ("subject", text(&operation.subject)),
        ("attempt", Some(operation.attempt.to_string())),
        ("reserved", Some(moment(operation.reserved_at))),
        ("sent", operation.sent_at.map(moment)),
        ("ended", operation.ended_at.map(moment)),
        ("code", text(&operation.code)),
        ("status", operation.status.map(|status| status.to_string())),
        ("answer", answer),
        ("delivered", delivered),
        ("holds", holds),
        ("caller", operation.uid.map(|uid| format!("uid {uid}"))),
        ("request id", Some(printable(&operation.request_id))),
        ("key sha256", Some(printable(&operation.key_sha256))),
        (
            "request sha256",
            Some(printable(&operation.fingerprint_sha256)),
        ),
        ("subject sha256", text(&operation.subject_sha256)),
    ]
}

/// Says what it means and what comes next.
pub(super) fn advise(shown: &Shown, source: Source, out: &mut dyn Write) -> io::Result<()> {
    let operation = &shown.operation;
    let id = printable(&operation.id);
    let down = source == Source::Down;
    let text = match operation.state.as_str() {
        "reserved" if down => {
            "Nothing has left this machine, and the gate that ran it is gone: the next start makes it not_sent.".to_owned()
        }
        "reserved" => {
            "Its key is taken and nothing has left this machine. It is running: it ends by itself.".to_owned()
        }
        "sent" if down => {
            "The bank may have it, and the gate that ran it is gone: the next start makes it unknown.".to_owned()
        }
        "sent" => {
            "It is running and the bank may have it. It ends by itself, after timeouts.settle at the latest.".to_owned()
        }
        "unknown" if operation.listening && down => {
            "The bank may have acted, and the gate that listened for its answer is gone: start the gate, then ask the\n\
             bank and resolve it."
                .to_owned()
        }
        "unknown" if operation.listening => {
            "The bank may have acted. The gate still listens for its answer, until timeouts.settle: look again after that."
                .to_owned()
        }
        "unknown" => unknown(operation, &id),
        "done" if operation.is_undelivered() => format!(
            "The bank has answered, but nobody got the answer. The shop gets it by asking again under the same key. If it\n\
             never will, let go of the subject, so that other keys may run for it:\n  \
             priorgate operations release {id} --reason TEXT"
        ),
        "done" => "The bank has answered, and its key replays the answer. Nothing is to be done.".to_owned(),
        "refused" => {
            "The bank has answered and done nothing. The same key may run again. Nothing is to be done here.".to_owned()
        }
        "not_sent" => {
            "Provably, the bank has read nothing. The same key may run again. Nothing is to be done here.".to_owned()
        }
        _ => return Ok(()),
    };
    writeln!(out, "\n{text}")
}

fn unknown(operation: &Operation, id: &str) -> String {
    let (route, bank) = (printable(&operation.route), printable(&operation.bank));
    let subject = match (&operation.subject, &operation.subject_sha256) {
        (Some(subject), _) => format!("for {}", printable(subject)),
        (None, Some(_)) => "for its subject, which operators see".to_owned(),
        (None, None) => "without a subject".to_owned(),
    };
    let sent = moment(operation.sent_at.unwrap_or(operation.reserved_at));
    format!(
        "The bank may have acted, and nothing is tried again by itself. Ask {bank} whether it has this request:\n  \
         {route}, {subject}, sent about {sent}\n\
         If it has, its key replays the answer that you give:\n  \
         priorgate operations resolve {id} --as done --reason TEXT [--status N] [--body FILE]\n\
         If it has not, the same request may run again under its key:\n  \
         priorgate operations resolve {id} --as not-sent --reason TEXT"
    )
}
