//! The command line: one file per command, and here their names, their help and their exit codes.
//!
//! Commands print to writers that are passed in; [`main`] alone opens stdout and stderr. What a
//! command does is in its own file or below `cli`.

mod audit;
mod by_hand;
mod callbacks;
mod check;
pub mod client;
mod doctor;
#[cfg(feature = "failpoints")]
mod forbidden;
mod journal_file;
mod keygen;
mod keyholder;
mod operations;
mod output;
mod page;
mod reload;
mod run;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod schema;
mod status;
pub mod style;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::admin::books::ReadError;
use crate::config::DEFAULT_PATH;
use crate::net::exchange::chain;
use by_hand::Input;
use client::{ClientError, SocketError};
use output::Output;
use style::Style;

#[cfg(feature = "sandbox")]
use crate::demo;

/// Everything went as it should.
const OK: u8 = 0;
/// A problem was found.
const PROBLEM: u8 = 1;
/// The command line was not understood (`EX_USAGE` of sysexits(3)).
const USAGE: u8 = 64;
/// The configuration is wrong (`EX_CONFIG`). Restarting does not help, and the unit file knows.
const CONFIG: u8 = 78;

const EXIT_CODES: &str = "\
Exit codes:
  0   everything went as it should
  1   a problem was found; the output says which
  64  the command line was not understood
  78  the configuration is wrong; every mistake is listed";

/// A localhost sidecar that owns a shop's bank identity: plain HTTP in, mutual TLS out.
#[derive(Debug, Parser)]
#[command(name = "priorgate", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    /// The configuration file
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; SIGHUP reloads
    ///
    /// Reads the configuration and every file it names, binds every listener, and only then serves:
    /// one mistake and it does not start. The log goes to stderr.
    Run,
    /// Hold the private keys, and sign TLS handshakes for the gate; started by `run` or systemd
    ///
    /// Reads the configuration for its identities only. The gate is at the other end of stdin, or
    /// connects to it. SIGHUP loads the keys again; keys that do not fit their certificate change
    /// nothing.
    Keyholder {
        /// Which of its two processes this is
        #[arg(long, hide = true, value_enum, default_value_t = keyholder::Role::Monitor)]
        role: keyholder::Role,
    },
    /// Check the configuration and every file it names, without serving
    ///
    /// The same loading as `run`, and more: certificates that end soon, keys that others can read.
    /// What this user may not read is listed as not checked.
    Check {
        /// Report certificates that end within so many days
        #[arg(long, value_name = "N", default_value_t = check::DAYS)]
        days: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at everything: files, keys, clock, journal, the bank, and what confines the running processes
    ///
    /// One line each, green, yellow or red, with what to do. Run it as root: the rest is told as not
    /// looked at. The bank is asked by the running gate, over a connection of its own. The exit code
    /// is 1 when something is red.
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the running gate read its configuration and certificates again
    ///
    /// Asks on the admin socket, which takes a uid listed in admin.operators, and waits. When
    /// anything is wrong the last good state serves on, the reason is printed, and the exit code
    /// is 1.
    Reload(Target),
    /// Show what the running gate says of itself
    ///
    /// Phase, last reload, and for each bank its listeners, certificate, connections and requests.
    Status(Target),
    /// See what became of guarded requests, and end what only a person can end
    ///
    /// A guarded request is an operation: under one Idempotency-Key the bank gets it once. When nobody
    /// knows whether the bank has it, it is `unknown` until a person has asked the bank.
    #[command(subcommand, disable_help_subcommand = true)]
    Operations(operations::Command),
    /// See what became of the bank's notifications, and end what only a person can end
    ///
    /// A verified notification is an event: it is kept, and handed to the shop until the shop has
    /// acknowledged it. What contradicts the events before it is `held` until a person has asked the
    /// bank; what the shop did not acknowledge in time is `dead`.
    #[command(subcommand, disable_help_subcommand = true)]
    Callbacks(callbacks::Command),
    /// Verify or show the audit log: who used the identity for what
    #[command(subcommand, disable_help_subcommand = true)]
    Audit(audit::Command),
    /// Make a key pair, a secret or a token
    #[command(subcommand, disable_help_subcommand = true)]
    Keygen(keygen::Command),
    /// Verify one notification's signature offline, and say what is wrong with it
    ///
    /// For the first callback that is refused: `callbacks rejected --save DIR` has its bytes.
    Verify(verify::Verify),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Watch the whole way of a payment with a throw-away bank; needs nothing installed
    ///
    /// Makes a throw-away PKI, starts the sandbox bank and a real gate, plays the scenario and
    /// stays up with `curl` lines to paste.
    #[cfg(feature = "sandbox")]
    Demo {
        /// Play the scenario once and exit: 0 if every step went as it should, 1 otherwise
        #[arg(long)]
        once: bool,
        /// Keep config.yaml, the PKI and demo.env here
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Test builds only: confine this process as one of ours (gate, signer, monitor), then try an act
    #[cfg(feature = "failpoints")]
    #[command(hide = true)]
    Forbidden {
        /// gate, signer or monitor
        role: String,
        /// What is tried, such as `read:/etc/passwd`
        act: String,
    },
    /// Run the sandbox bank alone. It is not a bank: loopback only, in memory only
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Args),
}

/// Which running gate is asked, and how its answer is printed.
#[derive(Args, Clone, Debug)]
struct Target {
    /// The admin socket; without it, admin.unix of the configuration file
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Filled in from the global option.
    #[arg(skip)]
    config: PathBuf,
}

/// Why a command that asks a gate has no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Journal(#[from] ReadError),
}

/// The program. Its exit code is one of the documented ones.
#[must_use]
pub fn main() -> ExitCode {
    // Not locked: the log's thread and others write as well while a command runs.
    let (mut out, mut err) = (io::stdout(), io::stderr());
    ExitCode::from(start(
        std::env::args_os(),
        Style::for_stdout(),
        &mut out,
        &mut err,
    ))
}

fn start(
    args: impl IntoIterator<Item = OsString>,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut out = Output::new(out);
    let code = match Cli::try_parse_from(args) {
        Ok(cli) => carry_out(cli, style, &mut out, err),
        // Asked for: help and version.
        Err(error) if !error.use_stderr() => {
            let _ = write!(out, "{error}");
            OK
        }
        Err(error) => {
            let _ = write!(err, "{error}");
            USAGE
        }
    };
    match out.finish() {
        None => code,
        Some(error) => {
            complain(err, &format!("cannot write the output: {error}"));
            code.max(PROBLEM)
        }
    }
}

fn carry_out(cli: Cli, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let config = cli.config;
    match cli.command {
        Command::Run => run::run(&config, err),
        Command::Keyholder { role } => keyholder::run(&config, role, err),
        Command::Check { days, json } => check::run(&config, days, json, style, out),
        Command::Doctor { json } => doctor::run(&config, json, style, out, err),
        Command::Reload(target) => reload::run(&target.with(config), style, out, err),
        Command::Status(target) => status::run(&target.with(config), style, out, err),
        Command::Operations(command) => {
            let mut lines = io::stdin().lock();
            let input = Input::new(&mut lines);
            operations::run(command, config, input, style, out, err)
        }
        Command::Callbacks(command) => {
            let mut lines = io::stdin().lock();
            let input = Input::new(&mut lines);
            callbacks::run(command, config, input, style, out, err)
        }
        Command::Audit(command) => audit::run(command, &config, style, out, err),
        Command::Keygen(command) => keygen::run(&command, out, err),
        Command::Verify(args) => verify::run(args, &config, style, out, err),
        Command::Schema => schema::run(out),
        #[cfg(feature = "failpoints")]
        Command::Forbidden { role, act } => forbidden::run(&config, &role, &act, out),
        #[cfg(feature = "sandbox")]
        Command::Demo { once, dir } => demo::run(&demo::Options { once, dir }, style, out),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => sandbox::run(&args, out),
    }
}

impl Target {
    fn with(self, config: PathBuf) -> Self {
        Self { config, ..self }
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => Ok(client::socket_of(&self.config)?),
        }
    }
}

impl Failure {
    fn code(&self) -> &str {
        match self {
            Self::Client(error) => error.code(),
            Self::Socket(_) => "config",
            Self::Journal(error) => error.code(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(_) | Self::Journal(_) => PROBLEM,
            Self::Socket(_) => CONFIG,
        }
    }
}

/// Tells a failure in the form that was asked for. Gives the exit code.
fn failed(failure: Failure, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let message = chain(&failure);
    if json {
        let error = serde_json::json!({"code": failure.code(), "message": message});
        print_json(out, &serde_json::json!({"ok": false, "error": error}));
    } else {
        complain(err, &message);
    }
    failure.exit_code()
}

fn print_json(out: &mut dyn Write, document: &Value) {
    let _ = writeln!(out, "{document:#}");
}

/// One message on stderr. If that fails too there is nobody left to tell.
fn complain(err: &mut dyn Write, message: &str) {
    let _ = writeln!(err, "priorgate: {message}");
}

#[cfg(test)]
mod tests;
