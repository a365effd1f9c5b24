//! `priorgate doctor`: everything that can be looked at from outside the gate, one line each, with what to do.
//!
//! It owns the lines and their colours. What `check` finds comes first; then the keys on disk ([`keys`]) and those that a
//! unit loads ([`credentials`]), the audit log ([`audit`]), the machine ([`machine`]), and the running processes
//! ([`processes`]). It changes nothing, and as root it sees more.

mod audit;
mod credentials;
mod keys;
mod machine;
mod processes;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::check::{self, Level};
use super::style::{Style, printable};
use super::{CONFIG, OK, PROBLEM, complain};
use crate::config::Config;

/// How a thing is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Colour {
    /// As it should be.
    Green,
    /// Worth a look, or could not be looked at.
    Yellow,
    /// Wrong.
    Red,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Line {
    colour: Colour,
    subject: String,
    message: String,
    /// What to do; none when nothing is.
    next: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Line>);

impl Findings {
    fn green(&mut self, subject: &str, message: impl Into<String>) {
        self.add(Colour::Green, subject, message, None);
    }

    fn yellow(&mut self, subject: &str, message: impl Into<String>, next: &str) {
        self.add(Colour::Yellow, subject, message, Some(next));
    }

    fn red(&mut self, subject: &str, message: impl Into<String>, next: &str) {
        self.add(Colour::Red, subject, message, Some(next));
    }

    fn add(
        &mut self,
        colour: Colour,
        subject: &str,
        message: impl Into<String>,
        next: Option<&str>,
    ) {
        self.0.push(Line {
            colour,
            subject: subject.to_owned(),
            message: message.into(),
            next: next.map(str::to_owned),
        });
    }
}

/// Looks at everything. Gives the exit code: 1 when something is red.
pub(super) fn run(
    config: &Path,
    json: bool,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            if json {
                let _ = writeln!(out, "{}", check::mistakes(&error));
            } else {
                complain(err, &error.to_string());
            }
            return CONFIG;
        }
    };
    let mut findings = Findings::default();
    for finding in check::findings(&config, check::DAYS) {
        let colour = match finding.level {
            Level::Ok => Colour::Green,
            Level::Warning | Level::NotChecked => Colour::Yellow,
            Level::Problem => Colour::Red,
        };
        // What to do is part of what `check` says.
        let next = (finding.level == Level::NotChecked).then_some("run doctor as root");
        findings.add(colour, &finding.subject, finding.message, next);
    }
    // Names that do not resolve are mistakes, which would have ended this above.
    findings.green(
        "names",
        "every user and group of the configuration is known",
    );
    let root = Path::new("/");
    keys::look(&config, root, &mut findings);
    audit::look(&config, root, &mut findings);
    machine::look(&config, &mut findings);
    processes::look(&config, &mut findings);
    let red = findings.0.iter().any(|line| line.colour == Colour::Red);
    let _ = print(&findings, json, style, out);
    if red { PROBLEM } else { OK }
}

fn print(findings: &Findings, json: bool, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let count = |colour| {
        findings
            .0
            .iter()
            .filter(|line| line.colour == colour)
            .count()
    };
    let (red, yellow) = (count(Colour::Red), count(Colour::Yellow));
    if json {
        let document = serde_json::json!({"ok": red == 0, "red": red, "yellow": yellow, "findings": findings.0});
        return writeln!(out, "{document:#}");
    }
    for line in &findings.0 {
        // Padded before it is coloured: escape codes have no width.
        let colour = match line.colour {
            Colour::Green => style.good("green "),
            Colour::Yellow => style.warn("yellow"),
            Colour::Red => style.bad("red   "),
        };
        let next = line.next.as_deref().map(|next| format!("; {next}"));
        let text = format!(
            "{}: {}{}",
            line.subject,
            line.message,
            next.unwrap_or_default()
        );
        writeln!(out, "{colour}  {}", printable(&text))?;
    }
    writeln!(out, "{red} red, {yellow} yellow")
}
