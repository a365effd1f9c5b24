//! Test builds only: what a confined process of ours cannot do, shown by one that tries.

use std::io::Write;
use std::path::Path;

use super::{CONFIG, OK, PROBLEM};
use crate::config::{Config, Hardening};
use crate::harden::forbidden::attempt;
use crate::harden::needs::GateNeeds;
use crate::harden::{Confined, HardenError, confine_gate, confine_monitor, confine_signer};
use crate::net::exchange::chain;

/// Prints `done`, or what the kernel said; nothing when it was the end of the process.
pub(super) fn run(config: &Path, role: &str, act: &str, out: &mut dyn Write) -> u8 {
    let confined = match role {
        "gate" => match Config::load(config) {
            // Without the keys, which the gate is not to read.
            Ok(config) => confine_gate(GateNeeds::of(&config), config.hardening),
            Err(error) => {
                let _ = writeln!(out, "{error}");
                return CONFIG;
            }
        },
        "signer" => confine_signer(Hardening::Required),
        _ => confine_monitor(Hardening::Required),
    };
    let told = told(confined, act);
    let _ = writeln!(out, "{}", told.as_deref().unwrap_or_else(|told| told));
    // A confined signer cannot be flushed later than this.
    let _ = out.flush();
    if told.is_ok() { OK } else { PROBLEM }
}

fn told(confined: Result<Confined, HardenError>, act: &str) -> Result<String, String> {
    confined.map_err(|error| chain(&error))?;
    match attempt(act) {
        Ok(()) => Ok("done".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
