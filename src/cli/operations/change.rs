//! The commands that change something: what a person is asked before, and told after.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::document::Shown;
use super::{Found, Freeze, Reconcile, Release, Resolve, offline, show};
use crate::admin::commands::Request;
use crate::admin::operations::{self as asked, BODY_MAX};
use crate::cli::by_hand::{self, Input, Question, change};
use crate::cli::client::{ClientError, DEADLINE, ask_within};
use crate::cli::journal_file::ask;
use crate::cli::style::{Style, printable};
use crate::cli::{Failure, OK, PROBLEM, Target, USAGE, complain, failed, print_json};
use crate::config::Config;
use crate::gate::ledger::fits;
use crate::journal::Dependency;

pub(super) fn resolve(
    args: Resolve,
    config: PathBuf,
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let answered = args.status.is_some() || args.content_type.is_some() || args.body.is_some();
    let (found, becomes, then) = match args.found {
        Found::Done => (
            asked::Found::Done,
            "done: the bank has it",
            "is done: its key replays the answer that you gave",
        ),
        Found::NotSent if answered => {
            complain(
                err,
                "--status, --content-type and --body go with --as done: what was not sent has no answer",
            );
            return USAGE;
        }
        Found::NotSent => (
            asked::Found::NotSent,
            "not_sent: the bank has it not, and it may be sent again",
            "is not_sent: the same request may run again under its key",
        ),
    };
    let body = match args.body.as_deref().map(body_of).transpose() {
        Ok(body) => body,
        Err(message) => {
            complain(err, &message);
            return PROBLEM;
        }
    };
    let question = format!("Resolve {} as {becomes}?", args.id);
    if let Err(code) = confirm(&target, &args.id, (question, args.yes), input, out, err) {
        if is_down(&target) {
            let message = "where the gate does not start for the sake of this operation, add --yes: the journal's file is \
                           changed then";
            complain(err, message);
        }
        return code;
    }
    let resolve = asked::Resolve {
        id: args.id.clone(),
        r#as: found,
        status: args.status,
        content_type: args.content_type,
        body,
        reason: args.reason,
    };
    let said = |_: &Value| format!("resolved: {} {then}", args.id);
    if !is_down(&target) {
        return change(&target, &Request::Resolve(resolve), said, out, err);
    }
    match offline::resolve(&target.config, &resolve) {
        Ok(result) => {
            complain(err, "no gate is running; the journal's file was changed");
            if target.json {
                print_json(out, &result);
            } else {
                let _ = writeln!(out, "{}", said(&result));
            }
            OK
        }
        Err(error) => {
            complain(err, &format!("no gate is running, and {error}"));
            PROBLEM
        }
    }
}

/// Whether nobody listens on the admin socket.
fn is_down(target: &Target) -> bool {
    let asked = ask(target, &Request::Status {});
    matches!(asked, Err(Failure::Client(ClientError::NotRunning { .. })))
}

pub(super) fn release(
    args: Release,
    config: PathBuf,
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let question = format!("Let go of the subject of {}?", args.id);
    if let Err(code) = confirm(&target, &args.id, (question, args.yes), input, out, err) {
        return code;
    }
    let request = Request::Release(asked::Release {
        id: args.id.clone(),
        reason: args.reason,
    });
    let said = |_: &Value| {
        format!(
            "released: requests for the subject of {} may run under other keys",
            args.id
        )
    };
    change(&target, &request, said, out, err)
}

pub(super) fn freeze(
    frozen: bool,
    args: Freeze,
    config: PathBuf,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let reason = args.reason;
    let freeze = asked::Freeze {
        reason: reason.clone(),
    };
    let (request, new, old) = if frozen {
        (
            Request::Freeze(freeze),
            "frozen: every guarded request is refused until `priorgate operations thaw --reason TEXT`",
            "it was frozen already; nothing was changed",
        )
    } else {
        (
            Request::Thaw(freeze),
            "thawed: guarded requests are taken again",
            "it was not frozen; nothing was changed",
        )
    };
    let result = match ask(&target, &request) {
        // No gate: the file itself, so that a restored journal serves nobody before it was looked at.
        Err(Failure::Client(ClientError::NotRunning { .. })) => {
            match offline::freeze(&target.config, frozen, &reason) {
                Ok(changed) => {
                    complain(err, "no gate is running; the journal's file was changed");
                    json!({ "changed": changed })
                }
                Err(error) => {
                    complain(err, &format!("no gate is running, and {error}"));
                    return PROBLEM;
                }
            }
        }
        Err(failure) => return failed(failure, target.json, out, err),
        Ok(result) => result,
    };
    if target.json {
        print_json(out, &result);
    } else {
        let unchanged = result.get("changed") == Some(&Value::Bool(false));
        let _ = writeln!(out, "{}", if unchanged { old } else { new });
    }
    OK
}

/// The gate reads the whole log, which takes its time.
pub(super) fn reconcile(
    args: Reconcile,
    config: PathBuf,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let target = args.target.with(config);
    let request = Request::Reconcile(asked::Reconcile {
        reason: args.reason,
        incomplete: args.incomplete,
    });
    let within = asked::RECONCILE_DEADLINE.saturating_add(DEADLINE);
    let result = target
        .socket()
        .and_then(|socket| Ok(ask_within(&socket, &json!(request), within)?));
    let result = match result {
        Ok(result) => result,
        Err(failure) => return failed(failure, target.json, out, err),
    };
    if target.json {
        print_json(out, &result);
        return OK;
    }
    let number = |name: &str| result.get(name).and_then(Value::as_u64).unwrap_or(0);
    let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default();
    let (added, changed) = (number("added"), number("changed"));
    let _ = writeln!(
        out,
        "reconciled: {added} operations that the journal did not have and {changed} that it had otherwise may be at the bank \
         ({} of them were not done, says the log further on). Guarded requests run again, except for these: see \
         `priorgate operations list --open`. The log knows since {}: what was before that it cannot say",
        number("not_done"),
        printable(text("log_knows_from"))
    );
    if let Some(missing) = result.get("missing").and_then(Value::as_str) {
        let message = format!("the log may not know every operation: {missing}");
        complain(err, &printable(&message));
    }
    let needs = result.get("needs").cloned().unwrap_or_default();
    if let (Ok(needs), Ok(config)) = (
        serde_json::from_value::<Vec<Dependency>>(needs),
        Config::load(&target.config),
    ) && let Err(misfit) = fits(&config, &needs, &[])
    {
        let message = format!("the next start will be refused: {misfit}");
        complain(err, &message);
    }
    let faulty = number("faulty_lines");
    if faulty > 0 {
        let message = format!("{faulty} lines of the log are faulty: see `priorgate audit verify`");
        complain(err, &message);
    }
    OK
}

/// Shows the operation and wants a `yes`. Gives the exit code if there is none.
fn confirm(
    target: &Target,
    id: &str,
    (text, yes): (String, bool),
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), u8> {
    let question = Question {
        show: Request::Show(asked::Show {
            id: id.to_owned(),
            body: false,
        }),
        look: "priorgate operations show",
        text,
        yes,
    };
    let show = |shown: &Shown, err: &mut dyn Write| show::print(shown, Style::plain(), err);
    by_hand::confirm(target, &question, show, input, out, err)
}

fn body_of(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        // One more than there may be, to tell what is too much.
        File::open(path)?
            .take(BODY_MAX as u64 + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.len() > BODY_MAX {
        return Err(format!("{} has more than {BODY_MAX} bytes", path.display()));
    }
    Ok(text)
}
