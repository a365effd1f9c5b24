//! Where an answer about the journal comes from: the running gate or, when there is none, the journal's file, which is only
//! read. It does not know what is asked.

use std::io::{self, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{self, ClientError};
use super::{Failure, OK, PROBLEM, Target, complain, failed, print_json};
use crate::admin::books::{self, ReadError};
use crate::admin::commands::Request;
use crate::journal::Reader;

/// The gate says itself that its journal takes too long; that answer must still arrive.
const DEADLINE: Duration = books::DEADLINE.saturating_add(client::DEADLINE);

/// Where a document came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// A gate runs, and will end what is open.
    Running,
    /// The file was read, and no gate has it.
    Down,
}

/// Asks the gate.
pub(super) fn ask(target: &Target, request: &Request) -> Result<Value, Failure> {
    let socket = target.socket()?;
    Ok(client::ask_within(&socket, &json!(request), DEADLINE)?)
}

/// Reads a document and prints it: as it is, or with `print` for people. Gives the exit code.
pub(super) fn tell<D: DeserializeOwned>(
    target: &Target,
    request: &Request,
    file: impl FnOnce(&Reader) -> Result<Value, ReadError>,
    print: impl FnOnce(&D, Source, &mut dyn Write) -> io::Result<()>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (document, source) = match read(target, request, file, err) {
        Ok(read) => read,
        Err(failure) => return failed(failure, target.json, out, err),
    };
    if target.json {
        print_json(out, &document);
        return OK;
    }
    let Ok(document) = serde_json::from_value(document) else {
        return other_version(err);
    };
    let _ = print(&document, source, out);
    OK
}

/// Asks the gate, or reads the journal's file if no gate listens: the question is most urgent when it is down. Whoever may
/// open the file is its owner or root, and sees what operators see.
fn read(
    target: &Target,
    request: &Request,
    file: impl FnOnce(&Reader) -> Result<Value, ReadError>,
    err: &mut dyn Write,
) -> Result<(Value, Source), Failure> {
    let error = match ask(target, request) {
        Ok(document) => return Ok((document, Source::Running)),
        Err(error) => error,
    };
    let Failure::Client(ClientError::NotRunning { path: socket, .. }) = &error else {
        return Err(error);
    };
    let Some(journal) = client::journal_of(&target.config) else {
        return Err(error);
    };
    let note = format!(
        "no gate listens on {}; reading {} instead",
        socket.display(),
        journal.display()
    );
    complain(err, &note);
    let reader = Reader::open(&journal).map_err(ReadError::from)?;
    let source = if reader.in_use() {
        complain(
            err,
            "a gate has this journal open: it runs with another admin socket",
        );
        Source::Running
    } else {
        Source::Down
    };
    Ok((file(&reader)?, source))
}

/// For an answer that lacks what this command needs. Gives the exit code.
pub(super) fn other_version(err: &mut dyn Write) -> u8 {
    let message = "the gate is of another version than this command; --json shows its answer";
    complain(err, message);
    PROBLEM
}
