//! What each confined process cannot do, by one that tries (`priorgate forbidden`, in the test build only): an act a
//! process, since some of them are its end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::failpoints::binary;

/// What came of an act.
#[derive(Debug, Eq, PartialEq)]
enum End {
    Done,
    /// The kernel refused it, with this errno.
    Refused(i32),
    /// The kernel ended the process (SIGSYS).
    Killed,
    Other(String),
}

const EPERM: End = End::Refused(1);
const EACCES: End = End::Refused(13);
const ECONNREFUSED: End = End::Refused(111);
/// SIGSYS, on every machine that we build for.
const SIGSYS: i32 = 31;

/// A gate's directory; its bank is a port on which nobody listens.
struct Place {
    dir: TempDir,
    keys: TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            keys: tempfile::tempdir().unwrap(),
            port,
        };
        fs::write(place.keys.path().join("client.key"), "key").unwrap();
        for dir in ["conf", "own", "journal", "run"] {
            fs::create_dir(place.dir.path().join(dir)).unwrap();
        }
        fs::write(place.dir.path().join("own/client.crt"), "").unwrap();
        let key = place.keys.path().join("client.key");
        let config = format!(
            "banks: [{{name: b, url: \"https://127.0.0.1:{port}\", trust: {{ca_file: ca.pem}}, identity: {{cert_file: \
             ../own/client.crt, key_file: {}}}, listen: [{{unix: ../run/b.sock, callers: [33]}}], routes: [{{name: r, \
             method: GET, path: /}}]}}]\njournal: {{sqlite: ../journal/j.db, allow_volatile: true}}\n",
            key.display()
        );
        fs::write(place.config(), config).unwrap();
        place
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("conf/config.yaml")
    }

    fn act(&self, role: &str, act: &str) -> End {
        self.act_on("6", role, act)
    }

    /// The same on a kernel with an older Landlock.
    fn act_on(&self, abi: &str, role: &str, act: &str) -> End {
        let output = Command::new(binary())
            .args(["forbidden", role, act, "--config"])
            .arg(self.config())
            .env("PRIORGATE_LANDLOCK_ABI", abi)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.signal() == Some(SIGSYS) {
            return End::Killed;
        }
        if told == "done" {
            return End::Done;
        }
        let errno = told
            .rsplit_once("(os error ")
            .and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
        errno.map_or(End::Other(told), End::Refused)
    }

    fn in_dir(&self, verb: &str, name: &str) -> String {
        on(verb, &self.dir.path().join(name))
    }
}

fn on(verb: &str, path: &Path) -> String {
    format!("{verb}:{}", path.display())
}

#[test]
fn a_gate_opens_what_it_needs_and_nothing_else() {
    let place = Place::new();
    let key = on("read", &place.keys.path().join("client.key"));
    for (act, end) in [
        (place.in_dir("read", "conf/config.yaml"), End::Done),
        (place.in_dir("read", "own/client.crt"), End::Done),
        (place.in_dir("write", "journal/j.db-wal"), End::Done),
        (place.in_dir("write", "own/client.crt"), EACCES),
        (place.in_dir("write", "conf/new"), EACCES),
        (place.in_dir("write", "run/new"), EACCES),
        (key, EACCES),
        ("read:/etc/passwd".to_owned(), EACCES),
        ("read:/proc/self/mem".to_owned(), EACCES),
        ("read:/dev/null".to_owned(), EACCES),
        ("list:/".to_owned(), EACCES),
    ] {
        assert_eq!(place.act("gate", &act), end, "{act}");
    }
}

#[test]
fn a_gate_connects_to_its_bank_alone_and_binds_nothing() {
    let place = Place::new();
    let bank = format!("connect:127.0.0.1:{}", place.port);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("connect:{}", other.local_addr().unwrap());
    assert_eq!(place.act("gate", &bank), ECONNREFUSED);
    assert_eq!(place.act("gate", &other), EACCES);
    assert_eq!(place.act("gate", "bind:127.0.0.1:0"), EACCES);
    assert_eq!(place.act("gate", "packet"), EPERM);
    // The rules of ports are those of ABI 4; without them every port is open, and a file is not.
    assert_eq!(place.act_on("4", "gate", &other), EACCES);
    assert_eq!(place.act_on("2", "gate", &other), End::Done);
    assert_eq!(place.act_on("2", "gate", "read:/etc/passwd"), EACCES);
}

#[test]
fn a_gate_starts_threads_and_no_program_and_signals_nobody() {
    let place = Place::new();
    for (act, end) in [
        ("thread", End::Done),
        ("unix", End::Done),
        ("exec:/bin/true", End::Killed),
        ("spawn:/bin/true", EPERM),
        ("signal:1", EPERM),
        ("dumpable", EPERM),
    ] {
        assert_eq!(place.act("gate", act), end, "{act}");
    }
}

#[test]
fn a_signer_that_does_anything_but_sign_is_killed() {
    let place = Place::new();
    assert_eq!(place.act("signer", "nothing"), End::Done);
    for act in [
        "read:/etc/passwd",
        "write:/tmp/x",
        "list:/",
        "unix",
        "packet",
        "connect:127.0.0.1:1",
        "bind:127.0.0.1:0",
        "thread",
        "exec:/bin/true",
        "spawn:/bin/true",
        "signal:1",
        "dumpable",
    ] {
        assert_eq!(place.act("signer", act), End::Killed, "{act}");
    }
}

#[test]
fn a_monitor_starts_programs_and_has_no_network() {
    let place = Place::new();
    for (act, end) in [
        ("spawn:/bin/true", End::Done),
        ("unix", End::Done),
        ("read:/etc/passwd", End::Done),
        ("connect:127.0.0.1:1", EPERM),
        ("bind:127.0.0.1:0", EPERM),
        ("packet", EPERM),
        ("signal:1", EPERM),
    ] {
        assert_eq!(place.act("monitor", act), end, "{act}");
    }
}
