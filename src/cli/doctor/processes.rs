//! The running gate and its keyholder: what the gate says, what the kernel says of each process, and where the key is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Findings, credentials};
use crate::admin::commands::Probed;
use crate::admin::status::Status;
use crate::cli::client;
use crate::config::{Config, Hardening, KeySource, Transport};
use crate::harden::memory::Marks;
use crate::harden::report::{self, Report};
use crate::net::exchange::chain;
use crate::tls::pem;

/// A probe may take the whole of `timeouts.connect` for each bank, and a moment for second thoughts.
const PROBE_MOMENT: Duration = Duration::from_secs(2);
/// Process ids that are looked at: the kernel's own limit on 64-bit machines is 4 million.
const PROCESSES: usize = 1 << 16;
/// The end of its control group's name.
const KEYHOLDER_UNIT: &str = "/priorgate-keyholder.service";

pub(super) fn look(config: &Config, findings: &mut Findings) {
    let Some(unix) = &config.admin.unix else {
        findings.yellow(
            "gate",
            "not asked: the configuration has no admin.unix",
            "add one: `status` and `reload` need it, too",
        );
        return;
    };
    let socket = &unix.socket.path;
    let status = client::ask(socket, &json!({"command": "status"}));
    let status = match status.map(serde_json::from_value::<Status>) {
        Ok(Ok(status)) => status,
        Ok(Err(_)) => {
            findings.yellow(
                "gate",
                "it is of another version than this command",
                "restart it after an upgrade",
            );
            return;
        }
        Err(error) => {
            findings.yellow(
                "gate",
                chain(&error),
                "start it, and run doctor again: the rest is asked of it",
            );
            return;
        }
    };
    gate(&status, findings);
    probe(config, findings);
    let others = keyholders(status.pid);
    process("gate", status.pid, config, findings);
    let needed = config
        .banks
        .iter()
        .any(|bank| matches!(bank.transport, Transport::Tls(_)));
    if others.is_empty() && needed {
        findings.yellow(
            "keyholder",
            "no process of it was found",
            "see `systemctl status priorgate-keyholder`; or run doctor as root, where others' processes are hidden",
        );
    }
    for (pid, name) in &others {
        process(name, *pid, config, findings);
    }
    memory(config, status.pid, findings);
}

/// What the gate read of itself: rules of files and ports cannot be seen from outside.
fn gate(status: &Status, findings: &mut Findings) {
    if status.phase.to_string() == "ready" {
        findings.green("gate", format!("process {} is ready", status.pid));
    } else {
        findings.yellow(
            "gate",
            format!("process {} is {}", status.pid, status.phase),
            "see its log",
        );
    }
    let confinement = &status.confinement;
    if confinement.missing.is_empty() {
        findings.green("gate: confinement", confinement.in_force.join(", "));
    } else {
        let next = "see docs/operations.md; `hardening: required` does not start without";
        findings.red(
            "gate: confinement",
            format!("missing: {}", confinement.missing.join(", ")),
            next,
        );
    }
    if !confinement.not_offered.is_empty() {
        let message = format!(
            "not offered by this kernel: {}",
            confinement.not_offered.join(", ")
        );
        findings.yellow(
            "gate: confinement",
            message,
            "a newer kernel has them (ports: 6.7, scopes: 6.12)",
        );
    }
    if let Some(why) = &confinement.restart_needed {
        findings.red("gate", format!("restart needed: {why}"), "restart it");
    }
    if let Some(journal) = &status.journal {
        let refused = [
            (
                journal.failed.is_some(),
                "the journal has failed",
                "see the gate's log",
            ),
            (journal.full, "the journal's disk is full", "make room"),
            (
                journal.frozen,
                "it was frozen by hand",
                "`priorgate operations thaw` when the time has come",
            ),
            (
                journal.doubted,
                "the journal does not know what the audit log knows",
                "`priorgate operations reconcile`",
            ),
        ];
        for (_, why, next) in refused.iter().filter(|(is, ..)| *is) {
            findings.red("gate", format!("guarded requests are refused: {why}"), next);
        }
    }
    if let Some(why) = status
        .audit
        .as_ref()
        .and_then(|audit| audit.failing.as_ref())
    {
        findings.red(
            "gate",
            format!("the audit log is not written: {why}"),
            "see its disk and docs/audit.md",
        );
    }
    for warning in &status.warnings {
        findings.yellow("gate", warning.clone(), "see docs/operations.md");
    }
}

/// Asked of the gate, which has the identity: a connection of its own to each bank.
fn probe(config: &Config, findings: &mut Findings) {
    let Some(unix) = &config.admin.unix else {
        return;
    };
    let patience = config.banks.iter().fold(client::DEADLINE, |all, bank| {
        all.saturating_add(bank.timeouts.connect)
            .saturating_add(PROBE_MOMENT)
    });
    let answer = client::ask_within(&unix.socket.path, &json!({"command": "probe"}), patience);
    match answer.map(serde_json::from_value::<Vec<Probed>>) {
        Ok(Ok(probed)) => {
            for bank in probed {
                let subject = format!("{}: handshake", bank.bank);
                match (bank.ok, bank.error) {
                    (true, _) => {
                        let took = bank.millis.unwrap_or_default();
                        findings.green(&subject, format!("the bank took the client certificate, in {took} ms"));
                    }
                    (false, error) => findings.red(
                        &subject,
                        error.unwrap_or_default(),
                        "compare bank, trust and identity in the configuration with what the bank says",
                    ),
                }
            }
        }
        Ok(Err(error)) => findings.yellow(
            "handshake",
            error.to_string(),
            "is the gate of this version?",
        ),
        Err(error) => findings.yellow(
            "handshake",
            chain(&error),
            "run doctor as one of admin.operators",
        ),
    }
}

fn process(name: &str, pid: u32, config: &Config, findings: &mut Findings) {
    let subject = format!("{name} (process {pid})");
    let facts = match report::of_process(pid) {
        Ok(facts) => facts,
        Err(error) => {
            findings.yellow(
                &subject,
                format!("/proc does not show it: {error}"),
                "run doctor as root",
            );
            return;
        }
    };
    let report = Report::of(&facts);
    let locked = format!("{} KiB locked in memory", facts.locked_kib);
    if report.missing.is_empty() {
        findings.green(
            &subject,
            format!("the kernel says: {}; {locked}", report.in_force.join(", ")),
        );
    } else if config.hardening == Hardening::Disabled {
        findings.yellow(
            &subject,
            format!("missing: {}", report.missing.join(", ")),
            "`hardening: required` is the default",
        );
    } else {
        let next = "is it the process that this configuration started?";
        findings.red(
            &subject,
            format!("missing: {}; {locked}", report.missing.join(", ")),
            next,
        );
    }
}

/// Monitors and signers: children of the gate, or in the keyholder's own unit. Whoever else runs a program of that name is
/// no business of ours.
fn keyholders(gate: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .take(PROCESSES);
    let named: Vec<(u32, u32)> = pids
        .filter(|pid| *pid != gate && is_keyholder(*pid))
        .map(|pid| (pid, parent(pid).unwrap_or(0)))
        .collect();
    let is_monitor = |(pid, parent): &&(u32, u32)| *parent == gate || is_of_unit(*pid);
    let monitors: Vec<u32> = named
        .iter()
        .filter(is_monitor)
        .map(|(pid, _)| *pid)
        .collect();
    let known = |(pid, parent): &(u32, u32)| monitors.contains(pid) || monitors.contains(parent);
    let ours: Vec<_> = named.into_iter().filter(known).collect();
    let monitor = |pid: u32| ours.iter().any(|(other, _)| *other == pid);
    let name = |(pid, parent): &(u32, u32)| {
        let role = if monitor(*parent) {
            "signer"
        } else {
            "keyholder monitor"
        };
        (*pid, role.to_owned())
    };
    ours.iter().map(name).collect()
}

fn is_keyholder(pid: u32) -> bool {
    let ours = fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.trim() == "priorgate");
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    ours && command
        .split(|byte| *byte == 0)
        .any(|word| word == b"keyholder")
}

/// Only the service manager says which unit a process is of.
fn is_of_unit(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|groups| groups.lines().any(|line| line.ends_with(KEYHOLDER_UNIT)))
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Whether the process that speaks to the network has the key. Only root can look.
fn memory(config: &Config, gate: u32, findings: &mut Findings) {
    for bank in &config.banks {
        let Transport::Tls(tls) = &bank.transport else {
            continue;
        };
        let subject = format!("{}: key in the gate's memory", bank.name);
        if !rustix::process::geteuid().is_root() {
            findings.yellow(&subject, "not looked for", "run doctor as root");
            continue;
        }
        let file = match &tls.key {
            KeySource::Credential(name) => credentials::plain_file(Path::new("/"), name),
            KeySource::File(file) => Some(file.clone()),
        };
        let Some(file) = file else {
            findings.yellow(
                &subject,
                "not looked for: the key comes encrypted, or from a place that only the service manager knows",
                "nothing to do, if only the keyholder's unit loads it",
            );
            continue;
        };
        let found = match pem::private_key(&file) {
            Ok(key) => Marks::of(&key)
                .search(gate)
                .map_err(|error| error.to_string()),
            Err(error) => Err(chain(&error)),
        };
        match found {
            Ok(found) if found.is_empty() => findings.yellow(
                &subject,
                "not looked for: nothing of a key of this kind is known by sight",
                "tell us which tool made it",
            ),
            Ok(found) if found.iter().all(|it| it.count == 0) => {
                findings.green(&subject, "none of its private values is there");
            }
            Ok(found) => {
                let places: Vec<_> = found
                    .iter()
                    .filter(|it| it.count > 0)
                    .map(|it| it.name)
                    .collect();
                let message = format!("it is there: {}", places.join(", "));
                findings.red(
                    &subject,
                    message,
                    "let the keyholder hold it, and restart the gate",
                );
            }
            Err(error) => findings.yellow(
                &subject,
                format!("not looked for: {error}"),
                "run doctor as root on the gate's machine",
            ),
        }
    }
}
