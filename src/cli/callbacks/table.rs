//! A list of events for people, and under it the next step for what waits for one.

use std::io::{self, Write};

use super::document::{Event, List};
use crate::cli::page::{self, moment};
use crate::cli::style::{Style, printable};

const HEADS: [&str; 8] = [
    "ID", "STATE", "CALLBACK", "SESSION", "STATUS", "RECEIVED", "TRIES", "NOTE",
];
/// Characters of an error in a note; `show` has all of it.
const ERROR: usize = 60;

/// Prints the list. `limit` is what was asked for.
pub(super) fn print(list: &List, limit: u32, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let events = &list.events;
    if events.is_empty() {
        return writeln!(out, "no events");
    }
    let rows: Vec<_> = events.iter().map(cells).collect();
    let paint = |row: usize, column, cell: &str| match events.get(row) {
        Some(event) => match (column, event.state.as_str()) {
            (1, "held" | "dead") => style.warn(cell),
            (1, "delivered") => style.good(cell),
            (7, _) if event.is_conflict() => style.warn(cell),
            _ => cell.to_owned(),
        },
        None => cell.to_owned(),
    };
    page::table(HEADS, &rows, paint, style, out)?;
    if events.len() >= limit as usize
        && let Some(last) = events.last()
    {
        page::older(&last.id.to_string(), out)?;
    }
    hints(events, out)
}

fn cells(event: &Event) -> [String; 8] {
    [
        event.id.to_string(),
        printable(&event.state),
        printable(&event.source),
        event.session(),
        event
            .status
            .as_deref()
            .map_or_else(|| "-".to_owned(), printable),
        moment(event.received_at),
        event.attempts.to_string(),
        note(event),
    ]
}

fn note(event: &Event) -> String {
    let mut notes = Vec::new();
    if event.mark != "expected" {
        notes.push(printable(&event.mark));
    }
    if event.released {
        notes.push("released".to_owned());
    }
    if event.times_received > 1 {
        notes.push(format!("came {} times", event.times_received));
    }
    if let Some(next) = event.next_at.filter(|_| event.attempts > 0) {
        notes.push(format!("next try {}", moment(next)));
    }
    if let Some(error) = &event.last_error {
        let error = printable(error);
        let mut short: String = error.chars().take(ERROR).collect();
        if short.len() < error.len() {
            short.push('…');
        }
        notes.push(short);
    }
    notes.join(", ")
}

/// For what waits for a person, its command: ready to be pasted if there is one, as a pattern if there are more.
fn hints(events: &[Event], out: &mut dyn Write) -> io::Result<()> {
    let of = |what: &dyn Fn(&Event) -> bool| {
        let found = events.iter().filter(|event| what(event));
        page::named(found.map(|event| event.id.to_string()))
    };
    if let Some((id, are)) = of(&|event| event.state == "held") {
        writeln!(
            out,
            "\n{are} held: after what came before it, it would pay or un-pay an order once more, so the shop is not told.\n\
             See `priorgate callbacks show {id}`, ask the bank, and then let it go to the shop, or give up on it:\n  \
             priorgate callbacks release {id} --reason TEXT\n  \
             priorgate callbacks drop {id} --reason TEXT"
        )?;
    }
    if let Some((id, are)) = of(&|event| event.state == "dead") {
        writeln!(
            out,
            "\n{are} dead: the shop did not acknowledge it in time, and nothing is tried again by itself. See the error with\n\
             `priorgate callbacks show {id}`, mend the shop, and then try again, or give up on it:\n  \
             priorgate callbacks retry {id} --reason TEXT\n  \
             priorgate callbacks drop {id} --reason TEXT"
        )?;
    }
    if let Some((id, are)) = of(&|event| event.is_conflict()) {
        writeln!(
            out,
            "\n{are} in conflict with what came before it, and goes to the shop all the same, marked so. Compare the order in\n\
             the shop with the bank's own list:\n  \
             priorgate callbacks show {id}"
        )?;
    }
    if let Some((_, are)) = of(&|event| event.state == "repeated") {
        writeln!(
            out,
            "\n{are} repeated: the bank sent it again although later news had come, and the shop is not told again. If that\n\
             goes on, ask the bank whether it gets the gate's answers."
        )?;
    }
    Ok(())
}
