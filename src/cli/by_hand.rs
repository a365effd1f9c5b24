//! Changes by hand: what a person is shown and asked before one, and told after it. It does not know what is changed.

use std::io::{self, BufRead, IsTerminal, Read as _, Write};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::ClientError;
use super::journal_file::{ask, other_version};
use super::{Failure, OK, PROBLEM, Target, USAGE, complain, failed, print_json};
use crate::admin::commands::Request;

/// Bytes of an answer to a question.
const MAX_WORD: u64 = 1024;

/// Where a person answers.
pub(super) struct Input<'i> {
    /// Whether there is one.
    pub(super) terminal: bool,
    /// What they type.
    pub(super) lines: &'i mut dyn BufRead,
}

impl<'i> Input<'i> {
    /// Asks where `lines` come from.
    pub(super) fn new<L: BufRead + IsTerminal>(lines: &'i mut L) -> Self {
        Self {
            terminal: lines.is_terminal(),
            lines,
        }
    }
}

/// What a person is asked before a change.
pub(super) struct Question {
    /// Gives what they are shown first.
    pub(super) show: Request,
    /// The command that shows it.
    pub(super) look: &'static str,
    /// The question.
    pub(super) text: String,
    /// They have answered it on the command line.
    pub(super) yes: bool,
}

/// Shows what is to be changed and wants a `yes`. Gives the exit code if there is none.
pub(super) fn confirm<D: DeserializeOwned>(
    target: &Target,
    question: &Question,
    show: impl FnOnce(&D, &mut dyn Write) -> io::Result<()>,
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), u8> {
    if question.yes {
        return Ok(());
    }
    if !input.terminal {
        let look = question.look;
        let message =
            format!("stdin is no terminal, so nobody can be asked: look at `{look}` and add --yes");
        complain(err, &message);
        return Err(USAGE);
    }
    let document = match ask(target, &question.show) {
        Ok(document) => document,
        Err(failure) => return Err(not_done(failure, target, out, err)),
    };
    let Ok(shown) = serde_json::from_value(document) else {
        return Err(other_version(err));
    };
    // On stderr: stdout is for the result.
    let _ = show(&shown, err);
    let _ = write!(err, "\n{} Type yes: ", question.text);
    let _ = err.flush();
    let mut word = String::new();
    let read = input.lines.take(MAX_WORD).read_line(&mut word);
    if read.is_ok() && word.trim() == "yes" {
        return Ok(());
    }
    complain(err, "nothing was changed");
    Err(PROBLEM)
}

/// Asks for the change and tells what became of it. Gives the exit code.
pub(super) fn change(
    target: &Target,
    request: &Request,
    said: impl FnOnce(&Value) -> String,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let result = match ask(target, request) {
        Ok(result) => result,
        Err(failure) => return not_done(failure, target, out, err),
    };
    if target.json {
        print_json(out, &result);
    } else {
        let _ = writeln!(out, "{}", said(&result));
    }
    OK
}

fn not_done(failure: Failure, target: &Target, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let down = matches!(failure, Failure::Client(ClientError::NotRunning { .. }));
    let code = failed(failure, target.json, out, err);
    if down && !target.json {
        complain(
            err,
            "nothing was changed: only a running gate writes the journal, so start it first",
        );
    }
    code
}
