//! One event for people: every field, what people did to it, what it means and what to do.

use std::io::{self, Write};

use super::document::{Body, Event, Shown};
use crate::cli::journal_file::Source;
use crate::cli::page::{self, moment};
use crate::cli::style::{Style, printable};

/// Prints all that is known.
pub(super) fn print(shown: &Shown, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let event = &shown.event;
    let state = printable(&event.state);
    let state = match event.state.as_str() {
        "delivered" => style.good(&state),
        "held" | "dead" => style.warn(&state),
        _ => state,
    };
    let id = style.bold(&event.id.to_string());
    writeln!(out, "{id}  {state}")?;
    page::facts(fields(event), style, out)?;
    page::interventions(&shown.interventions, style, out)?;
    shown.body.as_ref().map_or(Ok(()), |kept| body(kept, out))
}

fn fields(event: &Event) -> [(&'static str, Option<String>); 17] {
    let text = |text: &Option<String>| text.as_deref().map(printable);
    let session = if event.session_known {
        event.session()
    } else {
        "none in its body: a session of its own".to_owned()
    };
    let name = text(&event.event);
    let name = name.unwrap_or_else(|| format!("#{}", printable(&event.event_hash)));
    let status = text(&event.status);
    let status = status.unwrap_or_else(|| "none that the configuration knows".to_owned());
    let of = match text(&event.content_type) {
        Some(content_type) => format!("of {content_type}"),
        None => "without a content type".to_owned(),
    };
    let body = match event.bytes {
        Some(bytes) => format!("{bytes} bytes {of}"),
        None => format!("{of}; no longer kept"),
    };
    let received = match event.times_received {
        0 | 1 => moment(event.received_at),
        times => format!("{}, {times} times", moment(event.received_at)),
    };
    let refused = event.refused_since.map(|since| {
        let since = moment(since);
        format!("since {since}: it answers, and that is no acknowledgement")
    });
    let released = "by hand, although it was held".to_owned();
    [
        ("callback", Some(printable(&event.source))),
        ("session", Some(session)),
        ("event", Some(name)),
        ("status", Some(status)),
        ("mark", Some(printable(&event.mark))),
        ("released", event.released.then_some(released)),
        ("received", Some(received)),
        ("key", Some(printable(&event.key_id))),
        ("body", Some(body)),
        ("webhook-id", Some(printable(&event.delivery))),
        ("tries", Some(event.attempts.to_string())),
        ("next try", event.next_at.map(moment)),
        ("shop refuses", refused),
        ("last error", text(&event.last_error)),
        ("ended", event.ended_at.map(moment)),
        ("session hash", Some(printable(&event.session_hash))),
        ("event hash", Some(printable(&event.event_hash))),
    ]
}

fn body(kept: &Body, out: &mut dyn Write) -> io::Result<()> {
    match &kept.text {
        Some(text) => page::body(text, kept.cut, out),
        None => page::body(
            &format!("no text; in base64:\n{}", kept.base64),
            kept.cut,
            out,
        ),
    }
}

/// Says what it means and what comes next.
pub(super) fn advise(shown: &Shown, source: Source, out: &mut dyn Write) -> io::Result<()> {
    let event = &shown.event;
    let id = event.id;
    let down = source == Source::Down;
    let text = match event.state.as_str() {
        "waiting" | "head" if down => {
            "The shop does not have it, and no gate runs: the next start goes on with it.".to_owned()
        }
        "waiting" => {
            "Another event of its session comes first. Its turn comes by itself.".to_owned()
        }
        "head" if event.attempts > 0 => format!(
            "The shop has not acknowledged it yet, and it is tried again by itself. To try at once:\n  \
             priorgate callbacks retry {id} --reason TEXT"
        ),
        "head" => "It is the next one of its session, and goes to the shop by itself.".to_owned(),
        "claimed" if down => {
            "The gate that was delivering it is gone, and nobody knows whether the shop has it: the next start delivers it\n\
             again, and the shop tells by webhook-id whether it has it."
                .to_owned()
        }
        "claimed" => "It is being delivered.".to_owned(),
        "delivered" => "The shop has acknowledged it. Nothing is to be done.".to_owned(),
        "held" => format!(
            "After what came before it in its session, it would pay or un-pay an order once more, so the shop is not told. It\n\
             is judged again with each new event of its session. Ask {} what became of the order. If the shop is to have\n\
             it, marked stale:\n  \
             priorgate callbacks release {id} --reason TEXT\n\
             If it is not:\n  \
             priorgate callbacks drop {id} --reason TEXT",
            printable(&event.source)
        ),
        "dead" => format!(
            "The shop did not acknowledge it in time, and nothing is tried again by itself. Later events of its session are\n\
             not held back by it. Mend what `last error` says; then try again:\n  \
             priorgate callbacks retry {id} --reason TEXT\n\
             If the shop is not to have it any more:\n  \
             priorgate callbacks drop {id} --reason TEXT"
        ),
        "dropped" => "A person gave up on it: the shop was not told. Nothing is to be done.".to_owned(),
        "superseded" => {
            "A later event of its session says more: the shop was not told this one. Nothing is to be done.".to_owned()
        }
        "repeated" => {
            "The bank sent it again although later news of its session had come: it is kept, and the shop is not told again.\n\
             If that goes on, ask the bank whether it gets the gate's answers."
                .to_owned()
        }
        _ => return Ok(()),
    };
    writeln!(out, "\n{text}")?;
    if event.is_conflict() {
        writeln!(
            out,
            "\nIt contradicts what came before it in its session, or came under the name of another event: its delivery is\n\
             marked `conflict`. Compare the order in the shop with the bank's own list."
        )?;
    }
    Ok(())
}
