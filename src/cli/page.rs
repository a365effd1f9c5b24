//! What pages about operations and about callbacks are made of: tables, facts, what people did, moments, bodies.
//!
//! Text in a cell or a fact has been through `printable` before; what comes whole is made so here.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::style::{Style, printable};
use crate::admin::status::Timestamp;

/// Columns of names.
const NAME: usize = 14;

/// What a person did, as the gate tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Intervention {
    pub(super) at: i64,
    pub(super) what: String,
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    pub(super) login_uid: Option<u32>,
    pub(super) reason: String,
}

/// Prints a table. `paint` gets row, column and cell.
pub(super) fn table<const N: usize>(
    heads: [&str; N],
    rows: &[[String; N]],
    paint: impl Fn(usize, usize, &str) -> String,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N], paint: &dyn Fn(usize, &str) -> String| {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            // Spaces outside of the colour: the codes count as width in a format.
            let gap = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(&paint(index, cell));
            line.push_str(&" ".repeat(gap));
        }
        line
    };
    let heads = line(&heads.map(str::to_owned), &|_, cell| style.dim(cell));
    writeln!(out, "{}", heads.trim_end())?;
    for (number, row) in rows.iter().enumerate() {
        let cells = line(row, &|column, cell| paint(number, column, cell));
        writeln!(out, "{}", cells.trim_end())?;
    }
    Ok(())
}

/// Says where a list that is full goes on.
pub(super) fn older(last: &str, out: &mut dyn Write) -> io::Result<()> {
    let last = printable(last);
    writeln!(out, "\nThere may be older ones: --before {last}")
}

/// What a hint names: the id, ready to be pasted, if there is one, a pattern if there are more; and how many there are.
pub(super) fn named(mut ids: impl Iterator<Item = String>) -> Option<(String, String)> {
    let first = ids.next()?;
    Some(match ids.count() {
        0 => (printable(&first), "1 is".to_owned()),
        more => ("ID".to_owned(), format!("{} are", more + 1)),
    })
}

/// Prints what is known, a name and its value a line.
pub(super) fn facts<const N: usize>(
    facts: [(&str, Option<String>); N],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (name, value) in facts {
        if let Some(value) = value {
            let name = style.dim(&format!("{name:<NAME$}"));
            writeln!(out, "  {name} {value}")?;
        }
    }
    Ok(())
}

/// Prints what people did.
pub(super) fn interventions(
    interventions: &[Intervention],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    for intervention in interventions {
        let name = style.dim(&format!("{:<NAME$}", "by hand"));
        let mut who = format!("uid {}", intervention.uid);
        if let Some(login) = intervention.login_uid {
            who.push_str(&format!(", logged in as uid {login}"));
        }
        if let Some(pid) = intervention.pid {
            who.push_str(&format!(", pid {pid}"));
        }
        let at = moment(intervention.at);
        let (what, reason) = (&intervention.what, &intervention.reason);
        let (what, reason) = (printable(what), printable(reason));
        writeln!(out, "  {name} {at} {what} ({who}): {reason}")?;
    }
    Ok(())
}

/// Prints a body that is text, line by line.
pub(super) fn body(text: &str, cut: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nbody:")?;
    for line in text.lines() {
        writeln!(out, "  {}", printable(line))?;
    }
    if cut {
        writeln!(out, "  … and more: it is too long to be shown whole")?;
    }
    Ok(())
}

/// Milliseconds since 1970, as RFC 3339 in UTC.
pub(super) fn moment(millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    Timestamp::from(time).to_string()
}
