//! `priorgate callbacks`: what became of the bank's notifications, and a person's word on what nothing else can end.
//!
//! It owns the subcommands. [`table`], [`show`](mod@show) and [`rejected`] own what people see, [`change`] what is asked of
//! them first. What a command means is the gate's.

mod change;
mod document;
mod rejected;
mod show;
mod table;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Target;
use super::by_hand::Input;
use super::journal_file::tell;
use super::style::Style;
use crate::admin::books;
use crate::admin::callbacks::{self as asked, LIST_DEFAULT, Which};
use crate::admin::commands::Request;
use crate::journal::Reader;
use crate::journal::read::{Depth, LIST_MAX};
use crate::net::clock::unix_millis;
use crate::policy::units::parse_duration;

/// What is done with callbacks.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the bank's events, newest first
    ///
    /// Everybody whom the admin socket lets in may; sessions are shown to operators only. While no
    /// gate runs, the journal's file is read.
    List(List),
    /// Show everything about one event, what it means, and what to do
    Show(Show),
    /// Try a dead event again, or one that waits for its next try at once
    ///
    /// Takes a uid listed in admin.operators, and is written down with who and why.
    Retry(Change),
    /// Let a held event go to the shop, marked stale
    ///
    /// Only after the bank was asked: a held event would pay or un-pay an order once more.
    Release(Change),
    /// Give up on an event that the shop does not have
    Drop(Change),
    /// Show the first and last notifications that no key verified
    ///
    /// They are in the running gate's memory, since its start. Takes a uid listed in admin.operators.
    Rejected(Rejected),
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Only in this state: waiting, head, claimed, delivered, held, dead, dropped, superseded or
    /// repeated; may be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = state)]
    states: Vec<String>,
    /// Only those of which something is still to become: waiting, head, claimed or held
    #[arg(long)]
    open: bool,
    /// Only of this callback of the configuration
    #[arg(long, value_name = "NAME")]
    callback: Option<String>,
    /// Only of this session, as the bank names it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only received longer ago than this, as in 2h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Only received within this time, as in 30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    newer_than: Option<Duration>,
    /// Only older than this event
    #[arg(long, value_name = "ID", value_parser = asked::parse_id)]
    before: Option<i64>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIST_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
    limit: u32,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Show {
    /// The event: its number in lists, or the webhook-id that the shop got
    #[arg(value_name = "ID", value_parser = asked::parse_which)]
    id: Which,
    /// With its body; takes a uid listed in admin.operators
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Change {
    /// The event, by its number in lists
    #[arg(value_name = "ID", value_parser = asked::parse_id)]
    id: i64,
    /// Why, and how you know. One line; do not name customers
    #[arg(long, value_name = "TEXT", value_parser = books::reason)]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
pub(super) struct Rejected {
    /// Write each into this directory, as N.body and N.headers, for `priorgate verify`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

fn state(text: &str) -> Result<String, String> {
    asked::state(text).map(|state| state.as_str().to_owned())
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
    use change::Deed;
    match command {
        Command::List(args) => list(args, config, style, out, err),
        Command::Show(args) => show(args, config, style, out, err),
        Command::Retry(args) => change::run(Deed::Retry, args, config, input, out, err),
        Command::Release(args) => change::run(Deed::Release, args, config, input, out, err),
        Command::Drop(args) => change::run(Deed::Drop, args, config, input, out, err),
        Command::Rejected(args) => rejected::run(args, config, style, out, err),
    }
}

fn list(args: List, config: PathBuf, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let target = args.target.with(config);
    let limit = args.limit;
    let now = unix_millis();
    let ago = |span: Option<Duration>| span.map(|span| now.before(span).0);
    let list = asked::List {
        states: args.states,
        open: args.open,
        source: args.callback,
        session: args.session,
        received_before: ago(args.older_than),
        received_after: ago(args.newer_than),
        before: args.before,
        limit: Some(limit),
    };
    let depth = Depth {
        subject: true,
        body: false,
    };
    let request = Request::ListEvents(list.clone());
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
    let request = Request::ShowEvent(asked::Show {
        id: args.id.clone(),
        body: args.body,
    });
    let print = |shown: &document::Shown, source, out: &mut dyn Write| {
        show::print(shown, style, out)?;
        show::advise(shown, source, out)
    };
    tell(&target, &request, file, print, out, err)
}
