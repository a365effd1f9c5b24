//! The commands that change something: what a person is asked before, and told after.

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::document::Shown;
use super::{Change, show};
use crate::admin::callbacks::{self as asked, Which};
use crate::admin::commands::Request;
use crate::cli::by_hand::{self, Input, Question};
use crate::cli::style::Style;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Retry,
    Release,
    Drop,
}

pub(super) fn run(
    deed: Deed,
    args: Change,
    config: PathBuf,
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let id = args.id;
    let change = asked::Change {
        id,
        reason: args.reason,
    };
    let (request, text, said) = match deed {
        Deed::Retry => (
            Request::RetryEvent(change),
            format!("Try event {id} again?"),
            format!(
                "retried: event {id} goes to the shop as soon as it is the first of its session"
            ),
        ),
        Deed::Release => (
            Request::ReleaseEvent(change),
            format!("Let event {id} go to the shop although it contradicts what came before?"),
            format!("released: event {id} goes to the shop in its turn, marked stale"),
        ),
        Deed::Drop => (
            Request::DropEvent(change),
            format!("Give up on event {id}, which the shop does not have?"),
            format!("dropped: the shop is not told event {id}"),
        ),
    };
    let question = Question {
        show: Request::ShowEvent(asked::Show {
            id: Which::Number(id),
            body: false,
        }),
        look: "priorgate callbacks show",
        text,
        yes: args.yes,
    };
    let show = |shown: &Shown, err: &mut dyn Write| show::print(shown, Style::plain(), err);
    match by_hand::confirm(&target, &question, show, input, out, err) {
        Ok(()) => by_hand::change(&target, &request, |_: &Value| said, out, err),
        Err(code) => code,
    }
}
