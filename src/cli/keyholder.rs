//! `priorgate keyholder`: the process that has the keys.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;

use super::{CONFIG, OK, PROBLEM, complain};
use crate::keyholder::{self, KeyholderError};
use crate::net::exchange::chain;

/// Which of its two processes it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Role {
    Monitor,
    Signer,
}

/// Runs it until the gate is gone. Gives the exit code.
pub(super) fn run(config: &Path, role: Role, err: &mut dyn Write) -> u8 {
    let result = match role {
        Role::Monitor => keyholder::run(config, keyholder::Role::Monitor),
        Role::Signer => keyholder::run(config, keyholder::Role::Signer),
    };
    let Err(error) = result else { return OK };
    // The signer has told the monitor, which tells whoever is to know.
    if role == Role::Monitor && !matches!(error, KeyholderError::Told(_)) {
        complain(err, &chain(&error));
    }
    if error.is_config() { CONFIG } else { PROBLEM }
}
