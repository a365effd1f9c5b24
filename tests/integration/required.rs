//! A shop's whole day under `hardening: required`: the gate and the keyholder that it starts are one user's, PHP is another,
//! the bank is the sandbox. Created, approved by callback, refunded once, reloaded, rotated by rename, drained.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use priorgate::audit::files_of;
use priorgate::sandbox::{CallbackAlgorithm, CallbackUrl};
use rustix::process::{Gid, Signal, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::callbacks::PATH;
use crate::confinement::reload;
use crate::support::audit::{Keys, of, ours, python};
use crate::support::client::{Answer, Target, post};
use crate::support::gate::{Gate, Setup, me};
use crate::support::operation::REFUND;
use crate::support::pki::replace;
use crate::support::sandbox::SandboxBank;
use crate::support::shop::{SECRET, Shop};
use crate::support::until;

/// Where this runs as root, the gate and its keyholder are one user, and the caller is another: nobody's on any machine.
const GATE: u32 = 65_532;
const PHP: u32 = 65_531;
/// And where it does not, all are this user, and so nobody else may be.
const STRANGER: u32 = 65_533;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a file or a directory to the gate's user.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(GATE), Some(GATE)).unwrap();
    }
}

/// Writes a file of the gate's user, which is there whole or not at all.
fn put(path: &Path, text: &str) {
    let mut new = path.to_owned();
    new.as_mut_os_string().push(".given");
    replace(&new, text);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    give(&new);
    fs::rename(&new, path).unwrap();
}

/// Sends as PHP: from a thread that has become that user, whom the kernel names to the gate.
fn php(target: Target, request: Vec<u8>) -> Answer {
    std::thread::spawn(move || {
        if is_root() {
            let (uid, gid) = (Uid::from_raw(PHP), Gid::from_raw(PHP));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        target.send(&request)
    })
    .join()
    .unwrap()
}

fn ask(gate: &Gate, path: &str, key: &str, body: &Value) -> Answer {
    let headers = format!("Idempotency-Key: {key}\r\n");
    let body = body.to_string();
    php(gate.unix(), post(path, &headers, body.as_bytes()))
}

fn order(reference: &str) -> Value {
    json!({"order_ref": reference, "amount": "300.00", "currency": "BYN", "term": 6,
           "items": [{"name": "x", "qty": 1, "price": "300.00"}]})
}

/// The gate's directory, and one of keys that the gate may not read.
fn stage(bank: &SandboxBank, shop: &Shop) -> (Setup, TempDir, Keys) {
    let keys = tempfile::tempdir().unwrap();
    let audit = Keys::make(keys.path());
    let port = bank.port();
    let setup = Setup::new(port);
    let dir = setup.path().to_owned();
    let pki = bank.sandbox().pki();
    for (name, text) in [
        ("bank-ca.pem", pki.bank_ca_pem()),
        ("client.crt", pki.client().certificate_pem()),
        (
            "bank-callback.pem",
            &bank.sandbox().callback_key_pem().unwrap(),
        ),
        ("deliver.secret", SECRET),
        ("audit.pub", &fs::read_to_string(&audit.public).unwrap()),
    ] {
        put(&dir.join(name), text);
    }
    put(&keys.path().join("client.key"), &pki.client().key_pem());
    for file in ["audit.key", "audit.pub"] {
        give(&keys.path().join(file));
    }
    fs::create_dir(dir.join("state")).unwrap();
    for place in [&dir, &dir.join("state"), keys.path()] {
        give(place);
    }
    // Callers reach the socket; what else lies there has modes of its own.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
    let (caller, operator) = if is_root() {
        (PHP.to_string(), 0)
    } else {
        (me(), STRANGER)
    };
    let (keys_at, shop_at) = (keys.path().display(), shop.addr());
    let setup = setup.whole(&format!(
        "banks:
  - name: bank
    url: https://localhost:{port}
    dns: {{addresses: [127.0.0.1]}}
    trust: {{ca_file: bank-ca.pem, server_name: localhost}}
    identity: {{cert_file: client.crt, key_file: {keys_at}/client.key}}
    listen: [{{unix: gate.sock, mode: \"0666\", callers: [{caller}]}}]
    routes:
      - {{name: create, method: POST, path: /installment/create, idempotency: optional}}
      - {{name: status, method: GET, path: \"/installment/{{id}}\"}}
      - {{name: refund, method: POST, path: {REFUND}, idempotency: required, subject: [/session_id]}}
callbacks:
  - name: bank
    listen: [{{unix: callback.sock, mode: \"0600\"}}]
    path: {PATH}
    signature:
      header: X-Signature
      keys: [{{id: bank-2026, algorithm: rsa-pkcs1-sha256, file: bank-callback.pem}}]
    event: {{id: [/event_id], session: /session_id, status: /status}}
    deliver:
      url: http://{shop_at}/hook.php
      host: shop.example
      secret_files: [deliver.secret]
      ack: signed
      retry: [100ms, 200ms]
journal: {{sqlite: state/journal.db, allow_volatile: true}}
audit: {{file: state/audit.jsonl, key_file: {keys_at}/audit.key, public_key_file: audit.pub}}
admin: {{unix: admin.sock, operators: [{operator}]}}
hardening: required
log: {{level: debug}}
"
    ));
    (setup, keys, audit)
}

/// The gate is confined as `required` promises, by its own report.
fn assert_confined(gate: &Gate) {
    let confinement = gate.status()["confinement"].clone();
    assert_eq!(confinement["level"], "required");
    assert_eq!(confinement["missing"], json!([]), "{confinement}");
}

#[test]
fn under_required_a_shop_creates_is_called_back_refunds_reloads_rotates_and_drains() {
    let bank = SandboxBank::with_callbacks(CallbackAlgorithm::RsaPkcs1Sha256);
    let shop = Shop::open();
    let (setup, keys, audit_keys) = stage(&bank, &shop);
    let mut gate = setup.start_with(|mut command| {
        if is_root() {
            command.uid(GATE).gid(GATE);
        }
        command
    });
    assert_confined(&gate);
    let url = CallbackUrl::unix(&gate.path().join("callback.sock"), PATH).unwrap();
    bank.sandbox().redirect_callbacks(url).unwrap();

    // Created by PHP, and by nobody else.
    let created = ask(&gate, "/installment/create", "order-0001", &order("17"));
    assert_eq!(created.status, 201, "{created:?}");
    let session = created.json()["session_id"].as_str().unwrap().to_owned();
    if is_root() {
        let stranger = gate.unix().post("/installment/create", "", b"{}");
        assert_eq!(
            (stranger.status, stranger.code().as_str()),
            (403, "caller_denied")
        );
    }

    // Approved: verified, delivered, acknowledged.
    until("the approval is acknowledged", || {
        let all = shop.acknowledged();
        all.iter().any(|delivery| {
            let body = delivery.json();
            body["status"] == "APPROVED" && body["session_id"] == session.as_str()
        })
    });
    until("the gate has heard it", || {
        let status = gate.status()["callbacks"][0].clone();
        (&status["accepted"], &status["waiting"]) == (&json!(1), &json!(0))
    });

    // Refunded once, whoever asks how often.
    let refund = json!({"session_id": session, "amount": "100.00"});
    let first = ask(&gate, REFUND, "refund-0001", &refund);
    assert_eq!(first.status, 200, "{first:?}");
    let again = ask(&gate, REFUND, "refund-0001", &refund);
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, Some("true"))
    );
    assert_eq!(first.json(), again.json());
    until("the refund is called back", || {
        let all = shop.acknowledged();
        all.iter()
            .any(|delivery| delivery.json()["status"] == "REFUNDED")
    });
    let refunded = || {
        let ledger = bank.ledger();
        ledger.session(&session).unwrap().refunded.to_string()
    };
    assert_eq!(refunded(), "100.00");

    // Reloaded, and rotated by rename; the key lies where the gate cannot look.
    assert_eq!(reload(&gate)["ok"], true);
    let next = bank.sandbox().pki().issue_client("rotated.shop").unwrap();
    put(&keys.path().join("client.key"), &next.key_pem());
    put(&gate.path().join("client.crt"), next.certificate_pem());
    let reloaded = reload(&gate);
    assert_eq!(reloaded["ok"], true, "{reloaded}");
    let rest = json!({"session_id": session, "amount": "200.00"});
    let last = ask(&gate, REFUND, "refund-0002", &rest);
    assert_eq!(last.status, 200, "{last:?}");
    assert_eq!(refunded(), "300.00");
    let log = bank.log();
    // Its callback may be the last line already.
    let shown = |line: &String| line.contains("CN=rotated.shop");
    assert!(log.iter().any(shown), "{log:#?}");
    assert_confined(&gate);

    // Drained: what is under way is answered.
    let (target, slow) = (gate.unix(), order("fault-delay-1s.18").to_string());
    let under_way = std::thread::spawn(move || {
        let headers = "Idempotency-Key: order-0002\r\n";
        php(
            target,
            post("/installment/create", headers, slow.as_bytes()),
        )
    });
    until("the bank has it", || {
        bank.log().len() > log.len() || gate.status()["banks"][0]["in_flight"] == 1
    });
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait().code(), Some(0), "{}", gate.log());
    assert_eq!(under_way.join().unwrap().status, 201);

    let file = gate.path().join("state/audit.jsonl");
    let states: Vec<Value> = of(&file, "operation")
        .iter()
        .filter(|record| record["route"] == "refund" && record["delivered"] == true)
        .map(|record| record["state"].clone())
        .collect();
    assert_eq!(states, ["done", "done"]);
    let files = files_of(&file).unwrap();
    for said in [
        ours(Some(&audit_keys.public), &files, &[]),
        python(&audit_keys.public, &files, &[]),
    ] {
        assert!(said.good, "{}", said.text);
    }
}
