//! `priorgate operations`: what became of guarded requests, and a person's word on what nothing else can end.
//!
//! It owns the subcommands. [`table`] and [`show`](mod@show) own what people see, [`change`] what is asked of them first.
//! What a command means is the gate's.

mod change;
mod document;
mod offline;
mod show;
mod table;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Target;
use super::by_hand::Input;
use super::journal_file::tell;
use super::style::Style;
use crate::admin::books;
use crate::admin::commands::Request;
use crate::admin::operations::{self as asked, LIST_DEFAULT};
use crate::journal::Reader;
use crate::journal::read::{Depth, LIST_MAX};

/// What is done with operations.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List operations, newest first
    ///
    /// Everybody whom the admin socket lets in may. While no gate runs, the journal's file is read.
    List(List),
    /// Show everything about one operation, what it means, and what to do
    Show(Show),
    /// Say what became of an unknown operation, once the bank has been asked
    ///
    /// With `done` its key replays the answer that you give from now on; with `not-sent` its request
    /// may run again. Takes a uid listed in admin.operators, and is written down with who and why.
    Resolve(Resolve),
    /// Let go of the subject of a done operation whose answer nobody got
    ///
    /// Only for what will never be asked for again under its own key.
    Release(Release),
    /// Refuse every guarded request, until `thaw`: before an old journal is restored
    Freeze(Freeze),
    /// Take guarded requests again
    Thaw(Freeze),
    /// Take from the audit log what a new or restored journal does not know
    ///
    /// Every operation of the log that the bank may have, and the journal has not, becomes `unknown`:
    /// ask the bank about each, then `resolve` it. Until this is done guarded requests are refused.
    Reconcile(Reconcile),
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Only in this state: reserved, sent, done, refused, not-sent or unknown; may be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = state)]
    states: Vec<String>,
    /// Only what keeps other keys off its subject: open, unknown, or answered to nobody
    #[arg(long)]
    open: bool,
    /// Only of this bank
    #[arg(long, value_name = "NAME")]
    bank: Option<String>,
    /// Only under this Idempotency-Key of the bank
    #[arg(long, value_name = "KEY", requires = "bank")]
    key: Option<String>,
    /// Only older than this operation
    #[arg(long, value_name = "ID", value_parser = id)]
    before: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIST_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
    limit: u32,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Show {
    /// The operation, as in Priorgate-Operation
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// With the body of the bank's answer; takes a uid listed in admin.operators
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Resolve {
    /// The operation, as in Priorgate-Operation
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// What the bank says: it has it, or not
    #[arg(long = "as", value_name = "WHAT")]
    found: Found,
    /// How you know: who at the bank said so, when. One line; do not name customers
    #[arg(long, value_name = "TEXT", value_parser = books::reason)]
    reason: String,
    /// With done: the status that its key replays [default: 200]
    #[arg(long, value_name = "N", value_parser = status)]
    status: Option<u16>,
    /// With done: the content type that its key replays [default: application/json]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// With done: a file with the body that its key replays [default: {}]
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Found {
    Done,
    #[value(alias = "not_sent")]
    NotSent,
}

#[derive(Args, Debug)]
pub(super) struct Release {
    /// The operation, as in Priorgate-Operation
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// Why nobody waits for its answer. One line; do not name customers
    #[arg(long, value_name = "TEXT", value_parser = books::reason)]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Freeze {
    /// Why. One line
    #[arg(long, value_name = "TEXT", value_parser = books::reason)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Reconcile {
    /// Why. One line
    #[arg(long, value_name = "TEXT", value_parser = books::reason)]
    reason: String,
    /// With a log that may not know every operation: after comparing with the bank's own list from
    /// before the day that it knows
    #[arg(long)]
    incomplete: bool,
    #[command(flatten)]
    target: Target,
}

fn state(text: &str) -> Result<String, String> {
    asked::state(text).map(|state| state.as_str().to_owned())
}

fn id(text: &str) -> Result<String, String> {
    asked::parse_id(text).map(|id| id.to_string())
}

fn status(text: &str) -> Result<u16, String> {
    asked::status(text.parse().unwrap_or(0)).map(|status| status.as_u16())
}

/// Carries out a command. Gives the exit code.
pub(super) fn run(
    command: Command,
    config: PathBuf,
    input: Input<'_>,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    match command {
        Command::List(args) => list(args, config, style, out, err),
        Command::Show(args) => show(args, config, style, out, err),
        Command::Resolve(args) => change::resolve(args, config, input, out, err),
        Command::Release(args) => change::release(args, config, input, out, err),
        Command::Freeze(args) => change::freeze(true, args, config, out, err),
        Command::Thaw(args) => change::freeze(false, args, config, out, err),
        Command::Reconcile(args) => change::reconcile(args, config, out, err),
    }
}

fn list(args: List, config: PathBuf, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let target = args.target.with(config);
    let limit = args.limit;
    let list = asked::List {
        states: args.states,
        holding: args.open,
        bank: args.bank,
        key: args.key,
        before: args.before,
        limit: Some(limit),
    };
    let depth = Depth {
        subject: true,
        body: false,
    };
    let request = Request::List(list.clone());
    let file = |reader: &Reader| asked::list(reader, &list, depth);
    let print =
        |list: &document::List, _, out: &mut dyn Write| table::print(list, limit, style, out);
    tell(&target, &request, file, print, out, err)
}

fn show(args: Show, config: PathBuf, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let target = args.target.with(config);
    let depth = Depth {
        subject: true,
        body: args.body,
    };
    let file = |reader: &Reader| asked::show(reader, &args.id, depth);
    let request = Request::Show(asked::Show {
        id: args.id.clone(),
        body: args.body,
    });
    let print = |shown: &document::Shown, source, out: &mut dyn Write| {
        show::print(shown, style, out)?;
        show::advise(shown, source, out)
    };
    tell(&target, &request, file, print, out, err)
}
