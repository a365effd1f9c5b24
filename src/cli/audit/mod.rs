//! `priorgate audit`: the log for whoever asks afterwards. It reads files and asks no gate.

mod show;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::style::Style;
use super::{CONFIG, PROBLEM, client, complain};
use crate::audit::files_of;

/// What is done with the log.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify that nothing in the log was edited, deleted, swapped or cut off
    ///
    /// Needs the files and the public key, no secret and no gate. Without FILE all files of
    /// audit.file are verified, oldest first. Exit code 1 when something is wrong.
    Verify(verify::Verify),
    /// Show records, oldest first
    Show(show::Show),
}

pub(super) fn run(
    command: Command,
    config: &Path,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    match command {
        Command::Verify(args) => verify::run(args, config, style, out, err),
        Command::Show(args) => show::run(&args, config, out, err),
    }
}

/// The files that were named, or all of the configuration's.
fn files(named: &[PathBuf], config: &Path, err: &mut dyn Write) -> Result<Vec<PathBuf>, u8> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let Some(of) = client::audit_of(config) else {
        let message = format!("{} names no audit.file: name the files", config.display());
        complain(err, &message);
        return Err(CONFIG);
    };
    match files_of(&of.file) {
        Ok(files) if files.is_empty() => {
            complain(err, &format!("there is no {}", of.file.display()));
            Err(PROBLEM)
        }
        Ok(files) => Ok(files),
        Err(error) => {
            let message = format!("cannot list the files of {}: {error}", of.file.display());
            complain(err, &message);
            Err(PROBLEM)
        }
    }
}
