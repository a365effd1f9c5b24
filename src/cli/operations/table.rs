//! A list of operations for people, and under it the next step for what waits for one.

use std::io::{self, Write};

use super::document::{List, Operation};
use crate::cli::page::{self, moment};
use crate::cli::style::{Style, printable};

const HEADS: [&str; 8] = [
    "ID", "STATE", "BANK", "ROUTE", "WHEN", "STATUS", "ATTEMPT", "NOTE",
];

/// Prints the list. `limit` is what was asked for.
pub(super) fn print(list: &List, limit: u32, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if list.frozen {
        let frozen = style.bad("frozen");
        writeln!(
            out,
            "{frozen}: every guarded request is refused until `priorgate operations thaw --reason TEXT`\n"
        )?;
    }
    if list.operations.is_empty() {
        return writeln!(out, "no operations");
    }
    rows(&list.operations, style, out)?;
    if list.operations.len() >= limit as usize
        && let Some(last) = list.operations.last()
    {
        page::older(&last.id, out)?;
    }
    hints(&list.operations, out)
}

fn rows(operations: &[Operation], style: Style, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<_> = operations.iter().map(cells).collect();
    let paint = |row: usize, column, cell: &str| match operations.get(row) {
        Some(operation) => match (column, operation.state.as_str()) {
            (1, "unknown") => style.warn(cell),
            (1, "done") => style.good(cell),
            (7, "done") if operation.is_undelivered() => style.warn(cell),
            _ => cell.to_owned(),
        },
        None => cell.to_owned(),
    };
    page::table(HEADS, &rows, paint, style, out)
}

fn cells(operation: &Operation) -> [String; 8] {
    [
        printable(&operation.id),
        printable(&operation.state),
        printable(&operation.bank),
        printable(&operation.route),
        moment(operation.reserved_at),
        operation
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string()),
        operation.attempt.to_string(),
        note(operation),
    ]
}

fn note(operation: &Operation) -> String {
    let mut notes = Vec::new();
    if operation.listening {
        notes.push("listening".to_owned());
    }
    notes.extend(operation.code.as_deref().map(printable));
    if operation.is_undelivered() {
        notes.push("nobody got the answer".to_owned());
    }
    if operation.blocks() {
        notes.push("holds its subject".to_owned());
    }
    notes.join(", ")
}

/// For what waits for a person, its command: ready to be pasted if there is one, as a pattern if there are more.
fn hints(operations: &[Operation], out: &mut dyn Write) -> io::Result<()> {
    let of = |what: fn(&Operation) -> bool| {
        let found = operations.iter().filter(|operation| what(operation));
        page::named(found.map(|operation| operation.id.clone()))
    };
    let unknown = |operation: &Operation| operation.state == "unknown" && !operation.listening;
    let listening = |operation: &Operation| operation.state == "unknown" && operation.listening;
    if let Some((id, are)) = of(unknown) {
        writeln!(
            out,
            "\n{are} unknown: the bank may have acted, and nothing is tried again by itself. Ask the bank, with the\n\
             subject and the time that `priorgate operations show {id}` shows, and then say what it has:\n  \
             priorgate operations resolve {id} --as done|not-sent --reason TEXT"
        )?;
    }
    if let Some((id, are)) = of(listening) {
        writeln!(
            out,
            "\n{are} unknown and listening: the gate waits for the bank's late answer until timeouts.settle.\n\
             Look again after that:\n  \
             priorgate operations show {id}"
        )?;
    }
    if let Some((id, are)) = of(Operation::is_undelivered) {
        writeln!(
            out,
            "\n{are} done, but nobody got the bank's answer. The shop gets it by asking again under the same key;\n\
             if it never will, let go of the subject:\n  \
             priorgate operations release {id} --reason TEXT"
        )?;
    }
    Ok(())
}
