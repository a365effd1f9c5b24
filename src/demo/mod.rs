//! `priorgate demo`: the main job on a machine with nothing installed.
//!
//! It makes a throw-away PKI, starts the sandbox bank in this process and the real gate in another, plays the scenario
//! and prints what happened. It owns the stage; what is played is in `scenario`.

mod callbacks;
mod client;
mod process;
mod refunds;
mod scenario;
mod shop;
mod stage;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::style::Style;
use stage::{Stage, StageError};

/// What `priorgate demo` was asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Play the scenario and exit.
    pub once: bool,
    /// Keep `config.yaml`, the PKI and `demo.env` here; a temporary directory otherwise.
    pub dir: Option<PathBuf>,
}

/// Plays the demo. Gives the exit code: 0 if every step went as it should, 1 otherwise.
pub fn run(options: &Options, style: Style, out: &mut dyn Write) -> u8 {
    match play(options, style, out) {
        Ok(true) => 0,
        Ok(false) => 1,
        // Whoever reads has left; there is nobody to tell.
        Err(Failure::Output(_)) => 1,
        Err(Failure::Stage(error)) => {
            let _ = writeln!(
                out,
                "{}",
                style.bad(&format!("the demo could not start: {error}"))
            );
            1
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error(transparent)]
    Stage(#[from] StageError),
}

fn play(options: &Options, style: Style, out: &mut dyn Write) -> Result<bool, Failure> {
    writeln!(
        out,
        "{}",
        style.bold("priorgate demo: a throw-away bank, a throw-away certificate, the real gate")
    )?;
    writeln!(out)?;
    out.flush()?;
    let mut stage = Stage::build(options.dir.as_deref())?;
    writeln!(
        out,
        "  {:<6} https://{}   demands a client certificate; it is not a bank",
        "bank", stage.bank
    )?;
    writeln!(out, "  {:<6} {}", "gate", quoted(&stage.socket))?;
    writeln!(out, "  {:<6} http://{}", "", stage.tcp)?;
    writeln!(
        out,
        "  {:<6} http://{}   takes what the gate delivers; it is not a shop",
        "shop",
        stage.shop.addr()
    )?;
    writeln!(out, "  {:<6} {}", "files", quoted(stage.dir()))?;
    writeln!(out)?;
    let good = scenario::play(&mut stage, style, out)?;
    if options.once || stage.is_interrupted() {
        return Ok(good);
    }
    print_curl(&stage, style, out)?;
    stage.wait_for_interrupt();
    Ok(good)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Lines that work when pasted into another terminal.
fn print_curl(stage: &Stage, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let dir = quoted(stage.dir());
    writeln!(out)?;
    writeln!(
        out,
        "{}",
        style.bold("Everything stays up until Ctrl-C. In another terminal:")
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "# over the Unix socket: the kernel tells the gate who calls"
    )?;
    writeln!(
        out,
        "curl -sS --unix-socket {} http://localhost/installment/create \\",
        quoted(&stage.socket)
    )?;
    writeln!(
        out,
        "  -H 'Content-Type: application/json' -d @{dir}/order.json"
    )?;
    writeln!(out)?;
    writeln!(out, "# over TCP: with a token")?;
    writeln!(
        out,
        "curl -sS -i http://{}/installment/create -H \"Priorgate-Token: $(cat {dir}/php.token)\" \\",
        stage.tcp
    )?;
    writeln!(
        out,
        "  -H 'Content-Type: application/json' -d @{dir}/order.json"
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "# one whose customer decides: open the answer's payment_url in a browser"
    )?;
    writeln!(
        out,
        "curl -sS --unix-socket {} http://localhost/installment/create \\",
        quoted(&stage.socket)
    )?;
    writeln!(
        out,
        "  -H 'Content-Type: application/json' -d @{dir}/pending.json"
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "# straight at the bank, without the certificate: refused"
    )?;
    writeln!(
        out,
        "curl -sS --cacert {dir}/bank-ca.pem https://{}/installment/create -d @{dir}/order.json",
        stage.bank
    )?;
    writeln!(out)?;
    writeln!(out, "# what the gate and the bank say of it")?;
    writeln!(out, "curl -sS http://{}/status.json", stage.admin)?;
    writeln!(out, "curl -sS http://{}/control/state", stage.control)?;
    writeln!(out)?;
    out.flush()
}

/// How long the gate's process may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(15);
