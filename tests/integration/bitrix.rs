//! The Bitrix handler: its own tests, and the real handler in a stand-in shop against the real gate and the sandbox bank.
//!
//! Without `php` (with cURL and SQLite) these print `skipped: no php`, unless `CI` is set: there they fail.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use priorgate::sandbox::{Armed, CallbackAlgorithm, CallbackFault, Fault, Route, SessionStatus};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::callbacks;
use crate::support::client::Target;
use crate::support::gate::Gate;
use crate::support::sandbox::SandboxBank;
use crate::support::{PATIENCE, until};

const RESULT: &str = "/bitrix/tools/sale_ps_result.php?BX_HANDLER=PRIORGATE";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bitrix")
        .join(name)
}

fn php_is_here() -> bool {
    let found = Command::new("php")
        .args([
            "-r",
            "exit(function_exists('curl_init') && class_exists('SQLite3') ? 0 : 1);",
        ])
        .output();
    let here = found.is_ok_and(|output| output.status.success());
    if !here {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have php-cli, php-curl and php-sqlite3"
        );
        println!("skipped: no php");
    }
    here
}

#[test]
fn the_handlers_own_tests_pass() {
    if !php_is_here() {
        return;
    }
    let output = Command::new("php").arg(script("run.php")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains(" 0 failed, 0 skipped"), "{told}");
    assert!(output.stderr.is_empty(), "no warning: {output:?}");
}

/// The stand-in shop under PHP's own web server.
struct Shop {
    addr: SocketAddr,
    child: Child,
}

impl Shop {
    fn open(gate: &Gate, addr: SocketAddr) -> Self {
        let child = Command::new("php")
            .args(["-d", "display_errors=stderr", "-S", &addr.to_string()])
            .arg(script("shop.php"))
            .env("SHOP_DB", gate.path().join("shop.db"))
            .env("SHOP_SOCKET", gate.path().join("gate.sock"))
            .env("SHOP_SECRET", gate.path().join("deliver.secret"))
            .env("SHOP_TEST", "Y")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shop = Self { addr, child };
        until("PHP listens", || TcpStream::connect(addr).is_ok());
        shop
    }

    fn ask(&self, path: &str) -> Value {
        let answer = Target::Tcp(self.addr).post(path, "", b"");
        serde_json::from_slice(&answer.body)
            .unwrap_or_else(|_| panic!("{path}: {}", String::from_utf8_lossy(&answer.body)))
    }

    fn refund(&self, query: &str) -> String {
        self.ask(&format!("/admin/refund{query}"))["errors"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn state(&self, name: &str) -> String {
        self.ask("/state")[name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The bank, the gate, and where the shop is to be.
fn set_up() -> (SandboxBank, Gate, SocketAddr) {
    let algorithm = CallbackAlgorithm::RsaPkcs1Sha256;
    let (bank, addr) = (SandboxBank::with_pending_callbacks(algorithm), free_port());
    let port = bank.port();
    let setup = callbacks::setup(&bank, addr, algorithm)
        .bank(&format!(
            "url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: localhost}}\n    identity: {{cert_file: client.crt, key_file: client.key}}"
        ))
        .edit("/hook.php?HANDLER=BANK", RESULT);
    let secret = setup.path().join("deliver.secret");
    std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o440)).unwrap();
    let gate = callbacks::start(&bank, setup);
    (bank, gate, addr)
}

/// What the bank has given back.
fn refunded(bank: &SandboxBank, session: &str) -> String {
    bank.ledger().session(session).unwrap().refunded.to_string()
}

#[test]
fn an_order_is_paid_and_refunded_once_through_the_real_gate() {
    if !php_is_here() {
        return;
    }
    let (bank, gate, addr) = set_up();
    let shop = Shop::open(&gate, addr);
    let url = shop.ask("/pay")["url"].as_str().unwrap().to_owned();
    assert!(url.contains("/pay/s-"), "{url}");
    assert_eq!(shop.ask("/pay")["url"], url, "no second session");
    let session = shop.state("PS_INVOICE_ID");
    // Forged, straight to the shop: 200 as Bitrix has it, and nothing more.
    let forged = format!(
        r#"{{"session_id":"{session}","order_ref":"1","status":"APPROVED","amount":"149.90","currency":"BYN"}}"#
    );
    let answer = Target::Tcp(addr).post(
        RESULT,
        "webhook-id: x\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n",
        forged.as_bytes(),
    );
    assert_eq!((answer.status, answer.header("priorgate-ack")), (200, None));
    assert_eq!(shop.state("PAID"), "N");
    // The customer agrees; the bank tells it twice at once.
    bank.sandbox()
        .arm_callback(CallbackFault::Doubled, 1)
        .unwrap();
    bank.sandbox()
        .decide(&session, SessionStatus::Approved)
        .unwrap();
    until("the order is paid", || shop.state("PAID") == "Y");
    assert_eq!(shop.ask("/state")["receipts"], 1);
    // A part whose save fails is not paid twice, and another sum is refused.
    assert_eq!(
        shop.refund("?sum=50.00&fail_save=1"),
        "the order was not saved"
    );
    assert_eq!(refunded(&bank, &session), "50.00");
    let said = shop.refund("?sum=70.00");
    assert!(said.contains("An earlier refund of 50.00"), "{said}");
    assert_eq!(shop.refund("?sum=50.00"), "");
    let said = shop.refund("?sum=50.00");
    assert!(said.contains("repeat-"), "{said}");
    assert_eq!(refunded(&bank, &session), "50.00");
    until("the part's notification is delivered", || {
        delivered(&gate) == 2
    });
    assert_eq!(shop.state("PAID"), "Y");
    // The rest, twice.
    assert_eq!(shop.refund(""), "");
    // Bitrix takes a second return of the same payment for done; from code it is refused.
    assert_eq!(shop.refund(""), "");
    assert!(shop.refund("?sum=1.00").contains("not paid"));
    assert_eq!(refunded(&bank, &session), "149.90");
    until("the rest's notification is delivered", || {
        delivered(&gate) == 3
    });
    assert_eq!(
        (
            shop.state("PAID").as_str(),
            shop.state("IS_RETURN").as_str()
        ),
        ("N", "P")
    );
    let ledger = bank.ledger();
    let refunds = &ledger.session(&session).unwrap().refunds;
    assert_eq!(refunds.len(), 2, "{refunds:?}");
}

#[test]
fn a_refund_whose_answer_is_lost_is_not_sent_again_and_the_banks_notification_settles_the_order() {
    if !php_is_here() {
        return;
    }
    let (bank, gate, addr) = set_up();
    let shop = Shop::open(&gate, addr);
    shop.ask("/pay");
    let session = shop.state("PS_INVOICE_ID");
    bank.sandbox()
        .decide(&session, SessionStatus::Approved)
        .unwrap();
    until("the order is paid", || shop.state("PAID") == "Y");
    bank.sandbox()
        .arm(Armed {
            fault: Fault::Reset,
            route: Some(Route::Refund),
            times: 1,
        })
        .unwrap();
    let said = shop.refund("");
    assert!(said.contains("Do NOT repeat"), "{said}");
    // The bank's own word un-pays the order meanwhile.
    until("the notification un-pays", || shop.state("PAID") == "N");
    assert!(shop.refund("?sum=149.90").contains("not paid"));
    let said = shop.ask("/admin/check")["said"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(said.contains("REFUNDED, refunded 149.90"), "{said}");
    assert!(said.contains("was made"), "{said}");
    let ledger = bank.ledger();
    assert_eq!(ledger.session(&session).unwrap().refund_requests, 1);
}

fn delivered(gate: &Gate) -> usize {
    let listed = gate
        .tell(&serde_json::json!({"command": "callbacks.list"}))
        .unwrap();
    let events = listed["result"]["events"].as_array().unwrap().clone();
    events
        .iter()
        .filter(|event| event["state"] == "delivered")
        .count()
}

/// `examples/bitrix/try`, which is a group of its own, so that an interrupt reaches all of it, as Ctrl-C does.
struct Tried(Child);

impl Drop for Tried {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        let _ = kill_process_group(group, Signal::INT);
        let _ = self.0.wait();
    }
}

#[test]
fn the_shop_to_click_through_sells_an_order_and_leaves_nothing_behind() {
    if !php_is_here() {
        return;
    }
    let (addr, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut child = Command::new(script("../../examples/bitrix/try"))
        .env("PRIORGATE", env!("CARGO_BIN_EXE_priorgate"))
        .env("SHOP_PORT", addr.port().to_string())
        .env("TMPDIR", dir.path())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let tried = Tried(child);
    let ready = lines
        .map_while(Result::ok)
        .any(|line| line.contains("Ctrl-C"));
    assert!(ready, "it ended by itself");
    let bought = browse(addr, "POST", "/buy", "");
    assert!(
        bought.contains("\r\nLocation: /order?order=2&lang=en\r\n"),
        "{bought}"
    );
    let page = browse(addr, "GET", "/order?order=2", "");
    let link = page.split("href=\"http://").nth(1).unwrap();
    let (bank, path) = link.split('"').next().unwrap().split_once('/').unwrap();
    let chosen = browse(
        bank.parse().unwrap(),
        "POST",
        &format!("/{path}"),
        "choice=approve",
    );
    let back = format!("\r\nLocation: http://{addr}/order?order=2&lang=en\r\n");
    assert!(chosen.contains(&back), "{chosen}");
    until("the order is paid", || {
        browse(addr, "GET", "/order?order=2", "").contains("Paid. Thank you!")
    });
    drop(tried);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What a browser gets: head and body.
fn browse(addr: SocketAddr, method: &str, path: &str, form: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
