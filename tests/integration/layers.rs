//! Holds the layers of `docs/architecture.md`: a path in `src/` that runs upward fails here, with
//! its file and line.
//!
//! Owns the table of layers and the exceptions; [`scan`] reads the sources. Also holds what is true
//! of every file: its size, its first paragraph, and that `policy/` does no IO, reads no clock and
//! awaits nothing.

mod scan;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use scan::{Scan, Target};

/// From the bottom up. A module imports itself and the rows below it; where `siblings` is set, its
/// own row as well.
const ROWS: [Row; 12] = [
    Row {
        modules: &["policy"],
        siblings: false,
    },
    Row {
        modules: &["config"],
        siblings: false,
    },
    Row {
        modules: &["metrics"],
        siblings: false,
    },
    Row {
        modules: &["net"],
        siblings: false,
    },
    Row {
        modules: &["tls"],
        siblings: false,
    },
    Row {
        modules: &["app", "bank"],
        siblings: false,
    },
    Row {
        modules: &["journal"],
        siblings: false,
    },
    Row {
        modules: &["audit"],
        siblings: false,
    },
    Row {
        modules: &["admin", "callback", "egress"],
        siblings: false,
    },
    Row {
        modules: PROCESS,
        siblings: true,
    },
    Row {
        modules: &["cli", "demo", "sandbox"],
        siblings: true,
    },
    Row {
        modules: &["bin"],
        siblings: false,
    },
];

/// Wiring. Only `gate` knows every adapter, and these imply no cycle among themselves.
const PROCESS: &[&str] = &[
    "gate",
    "harden",
    "keyholder",
    "lifecycle",
    "notify",
    "telemetry",
];

/// What only `gate` may wire, of all the process row.
const WIRED_BY_GATE: &[&str] = &["app", "bank", "callback", "egress"];

/// No file is longer, tests included.
const LONGEST: usize = 600;

/// What `policy/` must not touch: the start of a path.
const IO: &[&[&str]] = &[
    &["hyper"],
    &["rustix"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["tokio"],
];

struct Row {
    modules: &'static [&'static str],
    siblings: bool,
}

struct Source {
    file: String,
    /// From the crate's root: `["net", "guard"]`; empty for `lib.rs`.
    module: Vec<String>,
    text: String,
}

impl Source {
    /// The top-level module, a row's entry. `lib.rs` has none: it is the map of all modules.
    fn unit(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// A binary is a crate of its own, whose library goes by its name.
    fn scan(&self) -> (Scan, Option<&'static str>) {
        if self.unit() == Some("bin") {
            (Scan::new(&self.text, &[]), Some("priorgate"))
        } else {
            (Scan::new(&self.text, &self.module), None)
        }
    }
}

fn row(unit: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.modules.contains(&unit))
}

/// Whether `from` may name `to` (segments from the crate's root), or why not.
fn judge(from: &str, to: &[String]) -> Result<(), String> {
    let Some(to_unit) = to.first().map(String::as_str) else {
        return Err("opens the crate's root: name the module instead".to_owned());
    };
    if to_unit == from {
        return Ok(());
    }
    let from_row =
        row(from).ok_or_else(|| format!("`{from}` has no row in the table of layers"))?;
    let to_row =
        row(to_unit).ok_or_else(|| format!("`{to_unit}` has no row in the table of layers"))?;
    let second = to.get(1).map(String::as_str);
    if from == "sandbox" && (to_unit, second) != ("policy", Some("units")) {
        return Err("`sandbox` is the tests' oracle: it may use only `policy::units`".to_owned());
    }
    if PROCESS.contains(&from) && from != "gate" && WIRED_BY_GATE.contains(&to_unit) {
        return Err(format!("only `gate` wires `{to_unit}`"));
    }
    let siblings = ROWS.get(from_row).is_some_and(|row| row.siblings);
    if to_row > from_row || (to_row == from_row && !siblings) {
        return Err(format!(
            "`{from}` may not import `{to_unit}`: that is not below it"
        ));
    }
    let below_wiring = row("gate").is_some_and(|gate| from_row < gate);
    if below_wiring && (to_unit, second) == ("config", Some("Config")) {
        return Err(format!(
            "`{from}` takes the piece of the configuration it needs, not the whole"
        ));
    }
    Ok(())
}

/// Every violation in a file, and every top-level module that it names.
fn examine(source: &Source) -> (Vec<String>, BTreeSet<String>) {
    let mut violations = Vec::new();
    let mut named = BTreeSet::new();
    let Some(unit) = source.unit() else {
        return (violations, named);
    };
    if row(unit).is_none() {
        violations.push(format!(
            "{}: `{unit}` has no row in the table of layers",
            source.file
        ));
    }
    let (scan, library) = source.scan();
    for line in &scan.hidden {
        violations.push(format!("{}:{line}: hides code from this test", source.file));
    }
    for path in &scan.paths {
        let verdict = match path.target(library) {
            Target::Elsewhere => Ok(()),
            // `pub(crate)`, and `self` or `super` as values of a type: nothing comes into scope.
            Target::Inside(to) if to.is_empty() && !path.opened => Ok(()),
            Target::AboveRoot => Err("leaves the crate".to_owned()),
            Target::Inside(to) => {
                named.extend(to.first().cloned());
                judge(unit, &to)
            }
        };
        if let Err(why) = verdict {
            let written = path.segments.join("::");
            violations.push(format!("{}:{}: `{written}`: {why}", source.file, path.line));
        }
    }
    (violations, named)
}

/// What in a file of `policy/` is not a pure function of its arguments.
fn impurities(source: &Source) -> Vec<String> {
    let (scan, _) = source.scan();
    let mut found = Vec::new();
    for path in &scan.paths {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let io = IO.iter().any(|start| segments.starts_with(start));
        let clock = match segments.as_slice() {
            [.., "SystemTime" | "Instant", "now"] => true,
            // Under another name its `now` would not be seen.
            ["std", "time", "SystemTime" | "Instant"] => path.opened,
            _ => false,
        };
        let waits = matches!(segments.as_slice(), ["async"] | ["await"]);
        if io || clock || waits {
            let written = segments.join("::");
            found.push(format!("{}:{}: `{written}`", source.file, path.line));
        }
    }
    found
}

/// Every import that leads back to where it came from, within one row.
fn cycles(row: &[&str], edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut found = Vec::new();
    for start in row {
        let mut reached = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(at) = open.pop() {
            for (_, to) in edges
                .iter()
                .filter(|(from, to)| from == at && row.contains(&to.as_str()))
            {
                if reached.insert(to.as_str()) {
                    open.push(to);
                }
            }
        }
        if reached.contains(start) {
            found.push((*start).to_owned());
        }
    }
    found
}

/// The module that a file below `src/` is: `net/guard/mod.rs` and `net/guard.rs` are `net::guard`.
fn module_of(relative: &FilePath) -> Vec<String> {
    let mut module: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.len() == 1 && module == ["lib"] || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory of the repository, in order.
fn sources(below: &str) -> Vec<Source> {
    let base = root().join(below);
    let mut open = vec![base.clone()];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&base).unwrap();
                found.push(Source {
                    file: format!("{below}/{}", relative.display()),
                    module: module_of(relative),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(!found.is_empty(), "no Rust file below {below}");
    found
}

fn planted(file: &str, text: &str) -> Source {
    Source {
        file: format!("src/{file}"),
        module: module_of(FilePath::new(file)),
        text: text.to_owned(),
    }
}

#[test]
fn no_path_in_the_sources_runs_upward() {
    let violations: Vec<_> = sources("src")
        .iter()
        .flat_map(|source| examine(source).0)
        .collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_modules_that_wire_the_process_form_no_cycle() {
    let mut edges = BTreeSet::new();
    for source in sources("src") {
        for to in examine(&source).1 {
            let from = source.unit().unwrap_or_default().to_owned();
            if from != to {
                edges.insert((from, to));
            }
        }
    }
    assert_eq!(cycles(PROCESS, &edges), Vec::<String>::new(), "{edges:?}");
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let long: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .map(|source| (source.text.lines().count(), source.file))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_file_begins_by_saying_what_it_owns() {
    let silent: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.file)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn policy_does_no_io_and_reads_no_clock() {
    let impure: Vec<_> = sources("src")
        .iter()
        .filter(|source| source.unit() == Some("policy"))
        .flat_map(impurities)
        .collect();
    assert!(impure.is_empty(), "\n{}\n", impure.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let cases = [
        ("policy/route.rs", "use crate::config::Limits;"),
        ("config/mod.rs", "use crate::{policy::units, net};"),
        (
            "net/guard.rs",
            "fn f() { let x: crate::bank::pool::Pool = y; }",
        ),
        ("net/guard.rs", "use super::super::egress;"),
        ("tls/mod.rs", "mod tests { use super::super::bank; }"),
        ("bank/dial.rs", "impl From<crate::app::Error> for E {}"),
        ("journal/mod.rs", "use crate::audit;"),
        ("egress/mod.rs", "fn f() { crate::admin::g() }"),
        ("egress/mod.rs", "use crate::config::{Bank, Config};"),
        ("admin/mod.rs", "use crate::lifecycle::Phase;"),
        ("telemetry.rs", "use super::cli;"),
        ("lifecycle.rs", "use crate::bank::pool;"),
        ("gate.rs", "use crate::sandbox::Sandbox;"),
        ("sandbox/api.rs", "use crate::policy::{units, secret};"),
        ("sandbox/api.rs", "use crate::net;"),
        ("net/mod.rs", "use crate as root;"),
        ("net/mod.rs", "use crate::{self};"),
        ("net/mod.rs", "use super::*;"),
        ("net/mod.rs", "use crate::helpers::x;"),
        ("helpers.rs", "fn f() {}"),
        ("net/mod.rs", "#[path = \"../egress/mod.rs\"] mod egress;"),
        ("policy/mod.rs", "use super::super::x;"),
    ];
    for (file, text) in cases {
        let (violations, _) = examine(&planted(file, text));
        assert_eq!(violations.len(), 1, "{file}: {text}: {violations:?}");
    }
}

#[test]
fn what_runs_downward_is_left_alone() {
    let cases = [
        (
            "policy/route.rs",
            "use crate::policy::units; mod tests { use super::*; }",
        ),
        (
            "config/check.rs",
            "use super::{Config, file}; use crate::policy::route::Route;",
        ),
        (
            "net/mod.rs",
            "pub(crate) fn f(self) -> Self { /* crate::egress */ \"crate::cli\" }",
        ),
        (
            "net/guard/mod.rs",
            "pub(in crate::net) mod tests; use super::listen;",
        ),
        (
            "egress/mod.rs",
            "use crate::{bank::pool::Pool, config::Bank, net, policy::problem::Code};",
        ),
        (
            "gate.rs",
            "use crate::{admin, bank, config::Config, egress, net, telemetry, tls};",
        ),
        (
            "lifecycle.rs",
            "use crate::{admin::commands::Command, gate, notify};",
        ),
        (
            "cli/run.rs",
            "use crate::{config::Config, demo, lifecycle, sandbox};",
        ),
        (
            "sandbox/pki.rs",
            "use crate::policy::units::Size; use super::ledger; use crate::sandbox::api;",
        ),
        ("bin/priorgate.rs", "fn main() { priorgate::cli::main() }"),
        ("lib.rs", "pub mod cli; pub mod net;"),
    ];
    for (file, text) in cases {
        let (violations, _) = examine(&planted(file, text));
        assert!(violations.is_empty(), "{file}: {text}: {violations:?}");
    }
}

#[test]
fn planted_io_in_policy_is_found() {
    for text in [
        "use std::{collections::BTreeMap, fs};",
        "fn f() { let now = std::time::Instant::now(); }",
        "fn f() { SystemTime::now(); }",
        "use std::time::SystemTime as Clock;",
        "use tokio::time::sleep;",
        "async fn f() {}",
    ] {
        assert_eq!(impurities(&planted("policy/x.rs", text)).len(), 1, "{text}");
    }
    assert!(
        impurities(&planted(
            "policy/x.rs",
            "// std::fs\nuse std::time::SystemTime;"
        ))
        .is_empty()
    );
}

#[test]
fn a_planted_cycle_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let edges = BTreeSet::from([
        edge("gate", "notify"),
        edge("lifecycle", "gate"),
        edge("notify", "lifecycle"),
    ]);
    assert_eq!(cycles(PROCESS, &edges), ["gate", "lifecycle", "notify"]);
    let edges = BTreeSet::from([edge("gate", "notify"), edge("lifecycle", "gate")]);
    assert!(cycles(PROCESS, &edges).is_empty());
}
