//! Command lines as they are typed: what is printed where, and the exit code.

pub(super) mod world;

use std::path::Path;

use serde_json::json;

use super::client::tests::fake_gate;
use super::*;
use crate::admin::status::tests::sample;

struct Done {
    code: u8,
    out: String,
    err: String,
}

fn priorgate(args: &[&str]) -> Done {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["priorgate"].iter().chain(args).map(OsString::from);
    let code = start(args, Style::plain(), &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done {
        code,
        out: text(out),
        err: text(err),
    }
}

/// Runs a command against a gate that answers so, and checks what the gate was asked.
fn asked(command: &str, flags: &[&str], answer: &Value) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "admin: {unix: admin.sock}\n").unwrap();
    let gate = fake_gate(&socket, vec![format!("{answer}\n")]);
    let mut args = vec![command, "--config", config.to_str().unwrap()];
    args.extend(flags);
    let done = priorgate(&args);
    assert_eq!(gate.join().unwrap(), [json!({"command": command})]);
    done
}

#[test]
fn the_definitions_are_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn help_and_version_are_answers_and_go_to_stdout() {
    let version = priorgate(&["--version"]);
    assert_eq!((version.code, version.err.as_str()), (OK, ""));
    assert_eq!(
        version.out,
        concat!("priorgate ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for args in [
        &["--help"][..],
        &["-h"],
        &["status", "--help"],
        &["check", "-h"],
    ] {
        let help = priorgate(args);
        assert_eq!((help.code, help.err.as_str()), (OK, ""), "{args:?}");
        assert!(help.out.contains("--config"), "{}", help.out);
    }
    assert!(
        priorgate(&["--help"])
            .out
            .contains("78  the configuration is wrong")
    );
}

#[test]
fn what_is_not_understood_is_64_and_goes_to_stderr() {
    let bad: [&[&str]; 7] = [
        &[],
        &["serve"],
        &["status", "--jsn"],
        &["check", "--days", "-1"],
        &["check", "--days", "soon"],
        &["run", "extra"],
        &["status", "--config"],
    ];
    for args in bad {
        let usage = priorgate(args);
        assert_eq!((usage.code, usage.out.as_str()), (USAGE, ""), "{args:?}");
        assert!(usage.err.contains("--help"), "{args:?}: {}", usage.err);
    }
}

#[test]
fn the_configuration_is_named_before_or_after_the_command() {
    for args in [
        &["priorgate", "--config", "/x.yaml", "run"][..],
        &["priorgate", "run", "--config", "/x.yaml"],
        &["priorgate", "status", "--json", "--config=/x.yaml"],
    ] {
        assert_eq!(
            Cli::try_parse_from(args).unwrap().config,
            Path::new("/x.yaml")
        );
    }
    let default = Cli::try_parse_from(["priorgate", "run"]).unwrap();
    assert_eq!(default.config, Path::new("/etc/priorgate/config.yaml"));
}

#[test]
fn a_bad_configuration_does_not_run() {
    let done = priorgate(&["run", "--config", "/nowhere/config.yaml"]);
    assert_eq!((done.code, done.out.as_str()), (CONFIG, ""));
    assert!(done.err.starts_with("priorgate: "), "{}", done.err);
}

#[test]
fn the_status_is_a_table_or_the_document() {
    let answer = json!({"ok": true, "result": sample()});
    let table = asked("status", &[], &answer);
    assert_eq!((table.code, table.err.as_str()), (OK, ""));
    assert!(
        table.out.starts_with("priorgate 0.1.0  ready\n"),
        "{}",
        table.out
    );
    let document = asked("status", &["--json"], &answer);
    assert_eq!(document.code, OK);
    let document: Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document, answer["result"]);
}

#[test]
fn a_status_of_another_version_is_shown_only_as_json() {
    let answer = json!({"ok": true, "result": {"version": "9"}});
    let table = asked("status", &[], &answer);
    assert_eq!((table.code, table.out.as_str()), (PROBLEM, ""));
    assert!(table.err.contains("--json"), "{}", table.err);
    assert_eq!(asked("status", &["--json"], &answer).code, OK);
}

#[test]
fn a_reload_says_what_became_of_it() {
    let done = asked(
        "reload",
        &[],
        &json!({"ok": true, "result": {"generation": 2}}),
    );
    assert_eq!(
        (done.code, done.out.as_str()),
        (OK, "reloaded: generation 2 serves\n")
    );
    let error = json!({"code": "reload_failed", "message": "the key does not fit"});
    let failed = json!({"ok": false, "error": error});
    let done = asked("reload", &[], &failed);
    assert_eq!((done.code, done.out.as_str()), (PROBLEM, ""));
    assert_eq!(done.err, "priorgate: the key does not fit\n");
    let done = asked("reload", &["--json"], &failed);
    assert_eq!((done.code, done.err.as_str()), (PROBLEM, ""));
    assert_eq!(serde_json::from_str::<Value>(&done.out).unwrap(), failed);
}

#[test]
fn without_a_gate_or_a_way_to_it_the_exit_code_says_which() {
    for command in ["status", "reload"] {
        let done = priorgate(&[command, "--socket", "/nowhere/admin.sock"]);
        assert_eq!(done.code, PROBLEM);
        assert!(done.err.contains("no gate listens"), "{}", done.err);
        let done = priorgate(&[command, "--config", "/nowhere/config.yaml", "--json"]);
        assert_eq!((done.code, done.err.as_str()), (CONFIG, ""));
        let error = serde_json::from_str::<Value>(&done.out).unwrap();
        assert_eq!(error["error"]["code"], "config");
    }
}

#[test]
fn a_reader_that_leaves_changes_no_exit_code_and_a_full_disk_does() {
    struct Failing(io::ErrorKind);
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let version = |kind| {
        let args = ["priorgate", "--version"].map(OsString::from);
        let mut err = Vec::new();
        let code = start(args, Style::plain(), &mut Failing(kind), &mut err);
        (code, err.is_empty())
    };
    assert_eq!(version(io::ErrorKind::BrokenPipe), (OK, true));
    assert_eq!(version(io::ErrorKind::StorageFull), (PROBLEM, false));
}
