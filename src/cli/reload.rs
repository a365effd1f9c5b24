//! `priorgate reload`: asks the running gate, waits for what became of it, and says so.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::style::Style;
use super::{OK, Target, client, failed, print_json};
use crate::admin::ReloadDone;
use crate::admin::commands::RELOAD_DEADLINE;

/// The gate says itself that a reload takes too long; that answer must still arrive.
const DEADLINE: Duration = RELOAD_DEADLINE.saturating_add(client::DEADLINE);

/// Asks for a reload. Gives the exit code: 1 when the old state serves on.
pub(super) fn run(target: &Target, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let socket = match target.socket() {
        Ok(socket) => socket,
        Err(failure) => return failed(failure, target.json, out, err),
    };
    let result = match client::ask_within(&socket, &json!({"command": "reload"}), DEADLINE) {
        Ok(result) => result,
        Err(error) => return failed(error.into(), target.json, out, err),
    };
    if target.json {
        print_json(out, &json!({"ok": true, "result": result}));
        return OK;
    }
    // `Output` keeps its errors for the exit code; so everywhere below `cli`.
    let _ = match serde_json::from_value(result) {
        Ok(ReloadDone { generation }) => {
            writeln!(
                out,
                "{}: generation {generation} serves",
                style.good("reloaded")
            )
        }
        Err(_) => writeln!(out, "{}", style.good("reloaded")),
    };
    OK
}
