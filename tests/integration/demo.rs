//! `priorgate demo`, and the `curl` lines that it prints, pasted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;

#[test]
fn the_demo_plays_every_step_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["demo", "--once", "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("24 of 24 steps went as they should."),
        "{told}"
    );
    assert!(told.contains("CN=shop.sandbox.example"), "{told}");
    assert!(!told.contains('\u{1b}'), "no colours without a terminal");
    let env = std::fs::read_to_string(dir.path().join("demo.env")).unwrap();
    for name in [
        "EGRESS_URL=http://127.0.0.1:",
        "EGRESS_SOCKET=",
        "BANK_URL=https://",
        "ADMIN_URL=http://",
        "CALLBACK_URL=http://127.0.0.1:",
        "APP_URL=http://127.0.0.1:",
    ] {
        assert!(env.contains(name), "{env}");
    }
    let check = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["check", "--config"])
        .arg(dir.path().join("config.yaml"))
        .output()
        .unwrap();
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    assert!(!dir.path().join("priorbank.sock").exists());
}

/// A demo that stays up; ended by SIGINT, as a person would.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        let _ = kill_process(pid, Signal::INT);
        eventually("the demo ends", || self.0.try_wait().unwrap());
    }
}

#[test]
fn the_curl_lines_of_the_demo_work_when_pasted() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must have curl");
        println!("skipped: no curl");
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _demo = Demo(child);
    // The lines between the first comment and the last command, continued ones joined.
    let mut commands: Vec<String> = Vec::new();
    for line in lines.map_while(Result::ok) {
        let continued = commands.last().is_some_and(|last| last.ends_with('\\'));
        if continued {
            let last = commands.last_mut().unwrap();
            last.pop();
            last.push_str(line.trim_start());
        } else if line.starts_with("curl ") {
            commands.push(line.clone());
        }
        if line.contains("/control/state") {
            break;
        }
    }
    assert_eq!(commands.len(), 6, "{commands:#?}");
    let pasted: Vec<(bool, String)> = commands
        .iter()
        .map(|command| {
            let output = Command::new("sh").args(["-c", command]).output().unwrap();
            let told = [output.stdout, output.stderr].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&told).into_owned(),
            )
        })
        .collect();
    assert!(
        pasted[0].0 && pasted[0].1.contains("payment_url"),
        "over the socket: {pasted:#?}"
    );
    assert!(
        pasted[1].0 && pasted[1].1.contains("payment_url"),
        "over TCP: {pasted:#?}"
    );
    assert!(
        pasted[1]
            .1
            .to_lowercase()
            .contains("priorgate-outcome: answered")
    );
    let answer: serde_json::Value = serde_json::from_str(&pasted[2].1).unwrap();
    let url = answer["payment_url"].as_str().unwrap();
    let page = Command::new("curl").args(["-sS", url]).output().unwrap();
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("data-status=\"PENDING\""), "{page}");
    assert!(!pasted[3].0, "straight at the bank: {pasted:#?}");
    assert!(pasted[3].1.contains("certificate required"), "{pasted:#?}");
    assert!(pasted[4].1.contains("\"phase\":\"ready\""), "{pasted:#?}");
    assert!(
        pasted[5].1.contains("CN=shop.sandbox.example"),
        "{pasted:#?}"
    );
}

fn once(dir: &std::path::Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["demo", "--once", "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn the_demo_replaces_nothing_in_a_directory_that_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("client.key"), "precious").unwrap();
    let (code, told) = once(dir.path());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("not empty and not a demo's"), "{told}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("client.key")).unwrap(),
        "precious"
    );
}

#[test]
fn the_demo_takes_a_directory_of_any_name_and_takes_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a, b: 'c' #d");
    for _ in 0..2 {
        let (code, told) = once(&odd);
        assert_eq!(code, Some(0), "{told}");
    }
}

#[test]
fn a_demo_that_is_told_to_end_leaves_no_gate_and_no_files() {
    let child = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = Demo(child);
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let files = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("  files  ").map(str::to_owned))
        .unwrap();
    let socket = std::path::Path::new(&files).join("priorbank.sock");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let pid = Pid::from_raw(demo.0.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    eventually("the demo ends", || demo.0.try_wait().unwrap());
    assert!(!std::path::Path::new(&files).exists());
    let gates = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| {
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            command.contains(&files)
        });
    assert_eq!(gates.count(), 0, "a gate lives on");
}
