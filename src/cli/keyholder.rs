//! `priorgate keyholder`: the process that has the keys.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;

use super::{CONFIG, OK, PROBLEM, complain};
use crate::keyholder::{self, KeyholderError};
use crate::net::exchange::chain;

/// Which of its two processes it is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    Monitor,
    Signer,
}

/// Runs it until the gate is gone. Gives the exit code.
pub(super) fn run(config: &Path, role: Role, err: &mut dyn Write) -> u8 {
    let (role, loud) = match role {
        Role::Monitor => (keyholder::Role::Monitor, true),
        // The monitor tells it.
        Role::Signer => (keyholder::Role::Signer, false),
    };
    match keyholder::run(config, role) {
        Ok(()) => OK,
        Err(error) => {
            if loud {
                complain(err, &chain(&error));
            }
            match error {
                KeyholderError::Config(_) | KeyholderError::ConfigOfSigner(_) => CONFIG,
                _ => PROBLEM,
            }
        }
    }
}
