//! `priorgate run`: configuration, log, then the life of the gate until it is told to end.
//!
//! A mistake in the configuration is told on stderr as text, whatever the log's format would be:
//! there is no log yet.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::{CONFIG, OK, PROBLEM, complain};
use crate::config::Config;
use crate::harden::rules;
use crate::lifecycle;
use crate::net::exchange::chain;
use crate::net::inherit::Inherited;
use crate::telemetry;

/// How long the last log lines may take. The service manager's patience is for the drain.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs the gate. Gives the exit code.
pub(super) fn run(config: &Path, err: &mut dyn Write) -> u8 {
    // First of all, while there is one thread.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            complain(err, &chain(&error));
            return PROBLEM;
        }
    };
    let config =
        match Config::load(config).and_then(|config| rules::refuse(&config).map(|()| config)) {
            Ok(config) => config,
            Err(error) => {
                complain(err, &error.to_string());
                return CONFIG;
            }
        };
    let mut telemetry = match telemetry::init(config.log.format, config.log.level) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            complain(err, &chain(&error));
            return PROBLEM;
        }
    };
    let code = match lifecycle::run(config, &mut telemetry, inherited) {
        Ok(()) => OK,
        Err(error) => {
            tracing::error!(error = chain(&error), "priorgate ends with an error");
            PROBLEM
        }
    };
    telemetry.shutdown(LAST_LINES);
    code
}
