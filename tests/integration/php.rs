//! PHP's real cURL against the real gate and the sandbox bank.
//!
//! Without `php` these print `skipped: no php`, unless `CI` is set: there they fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use priorgate::sandbox::CallbackAlgorithm;

use crate::callbacks;
use crate::support::client::Target;
use crate::support::gate::{Gate, Setup, me};
use crate::support::pki::replace;
use crate::support::sandbox::SandboxBank;
use crate::support::until;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/php")
        .join(name)
}

/// Whether there is PHP with cURL.
fn php_is_here() -> bool {
    let found = Command::new("php")
        .args(["-r", "exit(function_exists('curl_init') ? 0 : 1);"])
        .output();
    let here = found.is_ok_and(|output| output.status.success());
    if !here {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have php-cli and php-curl"
        );
        println!("skipped: no php");
    }
    here
}

fn php(name: &str, args: &[&str]) -> Output {
    Command::new("php")
        .arg(script(name))
        .args(args)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A gate in front of a sandbox bank.
fn gate(bank: &SandboxBank, adjust: impl FnOnce(Setup) -> Setup) -> Gate {
    let port = bank.port();
    let setup = Setup::new(port).bank(&format!(
        "url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: localhost}}\n    identity: {{cert_file: client.crt, key_file: client.key}}"
    ));
    bank.write_pki(setup.path());
    adjust(setup).start()
}

/// One session was created and 250.00 of it refunded, and the bank knows who asked.
fn assert_created_and_refunded(bank: &SandboxBank, output: &Output) {
    let told = lines(output).remove(0);
    let session = told["session"]["session_id"].as_str().unwrap();
    assert!(told["session"]["payment_url"].is_string());
    assert_eq!(told["state"]["status"], "APPROVED");
    assert!(told["refund"]["refund_id"].is_string());
    let ledger = bank.ledger();
    let session = ledger.session(session).unwrap();
    assert_eq!(session.refunded.to_string(), "250.00");
    assert_eq!(ledger.clients.len(), 1);
    assert!(
        bank.log()
            .iter()
            .all(|line| line.contains("CN=shop.sandbox.example"))
    );
}

#[test]
fn the_class_of_a_shop_works_with_only_its_base_url_and_certificate_options_changed() {
    if !php_is_here() {
        return;
    }
    let bank = SandboxBank::start();
    let gate = gate(&bank, |setup| setup);
    let url = format!("http://{}", gate.tcp_addr());
    assert_created_and_refunded(&bank, &php("create_and_refund.php", &[&url]));
    let outcomes = gate.expect_records(3);
    assert!(
        outcomes
            .iter()
            .all(|record| record["outcome"] == "answered")
    );
}

#[test]
fn with_a_token_the_same_class_needs_two_header_lines() {
    if !php_is_here() {
        return;
    }
    let bank = SandboxBank::start();
    let gate = gate(&bank, |setup| {
        replace(&setup.path().join("php.token"), TOKEN);
        setup.listen(&["{tcp: \"127.0.0.1:0\", token_files: [php.token]}"])
    });
    let url = format!("http://{}", gate.tcp_addr());
    assert_created_and_refunded(&bank, &php("create_and_refund.php", &[&url, TOKEN]));
    let without = php("create_and_refund.php", &[&url]);
    assert!(!without.status.success());
    assert!(
        String::from_utf8_lossy(&without.stdout).contains("token_required")
            || String::from_utf8_lossy(&without.stderr).contains("token_required")
    );
}

/// The README's configuration, moved to a directory, to free ports and to the user of this test.
fn readme_config(dir: &Path, port: u16) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (yaml, _) = rest.split_once("```").unwrap();
    let uid = rustix::process::getuid().as_raw();
    let moved = [
        (
            "https://api.bank.example",
            format!("https://localhost:{port}"),
        ),
        ("/run/priorgate", dir.to_str().unwrap().to_owned()),
        (
            "{sqlite: /var/lib/priorgate/journal.db}",
            format!(
                "{{sqlite: {}/journal.db, allow_volatile: true}}",
                dir.display()
            ),
        ),
        ("127.0.0.1:9180", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:9182", "127.0.0.1:0".to_owned()),
        ("/etc/priorgate-keys/", String::new()),
        ("group: www-data, ", String::new()),
        ("callers: [www-data]", format!("callers: [{}]", me())),
        ("operators: [root]", format!("operators: [{uid}]")),
    ];
    // One user and one directory for everything here, which `required` refuses.
    let yaml = format!("{yaml}hardening: best-effort\n");
    moved.iter().fold(yaml, |yaml, (from, to)| {
        assert!(yaml.contains(from), "the README has no {from} any more");
        yaml.replace(from, to)
    })
}

#[test]
fn the_readmes_configuration_serves_the_same_class() {
    if !php_is_here() {
        return;
    }
    let bank = SandboxBank::start();
    let setup = Setup::new(bank.port());
    bank.write_pki(setup.path());
    replace(&setup.path().join("php.token"), TOKEN);
    let yaml = readme_config(setup.path(), bank.port());
    let gate = setup.whole(&yaml).start();
    let url = format!("http://{}", gate.tcp_addr());
    let output = php("create_and_refund.php", &[&url, TOKEN, "refund-1"]);
    // 250.00 of it, once: asked for three times.
    assert_created_and_refunded(&bank, &output);
    let told = lines(&output).remove(0);
    assert_eq!(told["again"], told["refund"]);
    let other = told["other"].as_str().unwrap();
    assert!(
        other.starts_with("HTTP 409") && other.contains("duplicate_request"),
        "{other}"
    );
    gate.expect_records(5);
    // Without a key the gate says what is missing.
    let output = php("create_and_refund.php", &[&url, TOKEN]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("idempotency_key_required"), "{told}");
}

#[test]
fn bodies_above_the_limit_get_their_413_without_a_second_of_waiting() {
    if !php_is_here() {
        return;
    }
    let bank = SandboxBank::start();
    let gate = gate(&bank, |setup| setup);
    let url = format!("http://{}/installment/create", gate.tcp_addr());
    let socket = gate.path().join("gate.sock");
    let over_tcp = php("large_bodies.php", &[&url]);
    let over_unix = php(
        "large_bodies.php",
        &[
            "http://localhost/installment/create",
            socket.to_str().unwrap(),
        ],
    );
    for answer in lines(&over_tcp).iter().chain(&lines(&over_unix)) {
        assert_eq!(
            (&answer["status"], &answer["code"]),
            (&413.into(), &"body_too_large".into()),
            "{answer}"
        );
        assert!(answer["ms"].as_u64().unwrap() < 900, "{answer}");
    }
    assert_eq!(bank.ledger().totals.requests, 0);
}

/// PHP's own web server with one script. Killed when dropped.
struct PhpServer(std::process::Child);

impl Drop for PhpServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_examples_php_verifies_a_delivery_and_acknowledges_it() {
    if !php_is_here() {
        return;
    }
    let bank = SandboxBank::with_callbacks(CallbackAlgorithm::RsaPkcs1Sha256);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let shop = free.local_addr().unwrap();
    drop(free);
    let setup = callbacks::setup(&bank, shop, CallbackAlgorithm::RsaPkcs1Sha256);
    let secret = setup.path().join("deliver.secret");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/delivery.php");
    let server = Command::new("php")
        .args(["-S", &shop.to_string()])
        .arg(&example)
        .env("PRIORGATE_DELIVER_SECRET", &secret)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _server = PhpServer(server);
    until("PHP listens", || std::net::TcpStream::connect(shop).is_ok());
    // Anybody else is refused, and gets no acknowledgement.
    let forged = Target::Tcp(shop).post(
        "/hook.php",
        "webhook-id: x\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n",
        b"{}",
    );
    assert_eq!((forged.status, forged.header("priorgate-ack")), (403, None));
    let gate = callbacks::start(&bank, setup);
    callbacks::send(&bank, callbacks::order("s1", "APPROVED"));
    until("it is delivered", || {
        let listed = gate
            .tell(&serde_json::json!({"command": "callbacks.list"}))
            .unwrap();
        listed["result"]["events"][0]["state"] == "delivered"
    });
}
