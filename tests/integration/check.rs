//! `priorgate check`: what `run` would refuse, what an operator should know, and the documented exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::gate::Setup;
use crate::support::pki::replace;
use crate::support::world::World;

/// A directory in which everything is as it should be.
fn good() -> (World, Setup) {
    let world = World::new();
    let setup = world.setup(1).listen(&[
        "{unix: gate.sock, callers: [root]}",
        "{tcp: \"127.0.0.1:0\", token_files: [php.token]}",
    ]);
    replace(
        &setup.path().join("php.token"),
        "0123456789abcdef0123456789abcdef\n",
    );
    chmod(setup.path(), "php.token", 0o640);
    chmod(setup.path(), "client.key", 0o600);
    setup.write();
    (world, setup)
}

fn chmod(dir: &Path, name: &str, mode: u32) {
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn check(setup: &Setup, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    let output = command
        .arg("check")
        .arg("--config")
        .arg(setup.config())
        .args(more)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn assert_problem(setup: &Setup, words: &str) {
    let (code, told) = check(setup, &[]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains(words), "{told}");
}

#[test]
fn a_key_in_a_file_that_the_gate_reads_is_a_problem_with_the_command_for_it() {
    for name in ["client.crt", "bank-ca.pem"] {
        let (_world, setup) = good();
        let file = setup.path().join(name);
        let both = [file.clone(), setup.path().join("client.key")];
        let both: String = both
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        replace(&file, &both);
        assert_problem(&setup, "holds a private key");
        assert_problem(&setup, &format!("openssl x509 -in {}", file.display()));
        // `run` refuses it as well, at every level.
        let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
        command.arg("run").arg("--config").arg(setup.config());
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains("holds a private key"),
            "{told}"
        );
    }
}

#[test]
fn a_good_directory_has_no_problem() {
    let (_world, setup) = good();
    let (code, told) = check(&setup, &[]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("no problem found"));
    let (code, told) = check(&setup, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &document["ok"]), (0, &true.into()));
}

#[test]
fn a_key_that_does_not_match_is_a_problem() {
    let (world, setup) = good();
    let other = world.client_ca.client("other");
    replace(&setup.path().join("client.key"), &other.key.serialize_pem());
    chmod(setup.path(), "client.key", 0o600);
    assert_problem(&setup, "does not belong to the certificate");
}

#[test]
fn a_certificate_that_ends_soon_is_a_problem_and_the_margin_can_be_set() {
    let (_world, setup) = good();
    // rcgen's certificates end in the year 4096.
    let (code, told) = check(&setup, &["--days", "800000"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("ends within 800000 days"), "{told}");
}

#[test]
fn an_expired_certificate_is_a_problem() {
    let (world, setup) = good();
    let expired = world.client_ca.expired_server("shop");
    expired.write(setup.path(), "client");
    chmod(setup.path(), "client.key", 0o600);
    assert_problem(&setup, "expired at 2001-01-01");
}

#[test]
fn secrets_that_others_can_read_are_a_problem() {
    for name in ["client.key", "php.token"] {
        let (_world, setup) = good();
        chmod(setup.path(), name, 0o644);
        assert_problem(&setup, "every local user can read it");
        chmod(setup.path(), name, 0o620);
        assert_problem(&setup, "others than its owner can write it");
    }
}

#[test]
fn a_ca_that_is_no_ca_is_a_problem() {
    let (world, setup) = good();
    replace(
        &setup.path().join("bank-ca.pem"),
        &world.bank_ca.server("bank.test").cert.pem(),
    );
    assert_problem(&setup, "is not a CA's");
}

#[test]
fn an_encrypted_key_is_a_problem_that_names_the_way_out() {
    let (_world, setup) = good();
    let key = fs::read_to_string(setup.path().join("client.key")).unwrap();
    replace(
        &setup.path().join("client.key"),
        &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    );
    chmod(setup.path(), "client.key", 0o600);
    assert_problem(&setup, "openssl pkey -in");
}

#[test]
fn a_token_that_could_be_guessed_is_a_problem() {
    let (_world, setup) = good();
    fs::write(setup.path().join("php.token"), "short").unwrap();
    assert_problem(&setup, "a token has at least 16 characters");
}

#[test]
fn what_this_user_may_not_read_is_not_checked() {
    // Root may read everything: the check runs as nobody, in a directory that nobody may enter.
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let (_world, setup) = good();
    fs::set_permissions(setup.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["config.yaml", "bank-ca.pem", "client.crt"] {
        chmod(setup.path(), name, 0o644);
    }
    // A place that nobody may read: the build's own directory may not be one.
    let program = setup.path().join("priorgate");
    fs::copy(env!("CARGO_BIN_EXE_priorgate"), &program).unwrap();
    chmod(setup.path(), "priorgate", 0o755);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["check", "--config"])
        .arg(setup.config())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(told.matches("not checked").count(), 2, "{told}");
}

#[test]
fn the_shipped_example_with_real_files_beside_it_has_no_problem() {
    let (_world, setup) = good();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml.example");
    // A directory of its own for the key, as the example says.
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("client.key");
    fs::copy(setup.path().join("client.key"), &key).unwrap();
    chmod(keys.path(), "client.key", 0o600);
    let text = fs::read_to_string(example).unwrap();
    let text = text.replace("/etc/priorgate-keys/client.key", key.to_str().unwrap());
    replace(&setup.config(), &text);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    fs::write(setup.path().join("deliver.secret"), secret).unwrap();
    chmod(setup.path(), "deliver.secret", 0o600);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures/bepaid.pub");
    fs::copy(key, setup.path().join("bank-callback.pem")).unwrap();
    let (code, told) = check(&setup, &[]);
    assert_eq!(code, 0, "{told}");
}

#[test]
fn the_shipped_example_alone_names_each_file_that_is_missing() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml.example");
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["check", "--config"])
        .arg(example)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for file in ["bank-ca.pem", "client.crt", "php.token"] {
        assert!(told.contains(file), "{told}");
    }
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["check", "--colour"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}
