//! Notifications of the sandbox bank, through a running gate, to a shop that checks what it is given.

use std::net::SocketAddr;

use priorgate::sandbox::{CallbackAlgorithm, CallbackOrder, CallbackUrl};
use serde_json::json;

use crate::support::gate::{Gate, Setup};
use crate::support::pki::replace;
use crate::support::sandbox::SandboxBank;
use crate::support::shop::{Mood, SECRET, Shop};
use crate::support::{eventually, until};

pub(crate) const PATH: &str = "/bank/callback";

pub(crate) fn setup(bank: &SandboxBank, shop: SocketAddr, algorithm: CallbackAlgorithm) -> Setup {
    let setup = Setup::new(bank.port());
    bank.write_pki(setup.path());
    let key = bank.sandbox().callback_key_pem().unwrap();
    replace(&setup.path().join("bank-callback.pem"), &key);
    replace(&setup.path().join("deliver.secret"), SECRET);
    let algorithm = algorithm.to_string();
    setup.guarded().top(&format!(
        "callbacks:\n  - name: bank\n    listen: [{{unix: callback.sock, mode: \"0600\"}}, {{tcp: \"127.0.0.1:0\"}}]\n    path: {PATH}\n    signature:\n      header: X-Signature\n      keys: [{{id: bank-2026, algorithm: {algorithm}, file: bank-callback.pem}}]\n    event: {{id: [/event_id], session: /session_id, status: /status}}\n    deliver:\n      url: http://{shop}/hook.php?HANDLER=BANK\n      host: shop.example\n      secret_files: [deliver.secret]\n      timeout: 2s\n      retry: [100ms, 200ms]\n      max_head_wait: 1s"
    ))
}

pub(crate) fn start(bank: &SandboxBank, setup: Setup) -> Gate {
    let gate = setup.start();
    let url = CallbackUrl::unix(&gate.path().join("callback.sock"), PATH).unwrap();
    bank.sandbox().redirect_callbacks(url).unwrap();
    gate
}

pub(crate) fn order(session: &str, status: &str) -> CallbackOrder {
    CallbackOrder {
        session_id: session.to_owned(),
        status: status.to_owned(),
        event_id: None,
        fault: None,
        attempts: None,
    }
}

pub(crate) fn send(bank: &SandboxBank, order: CallbackOrder) -> Vec<u8> {
    bank.sandbox().send_callback(order).unwrap().body.to_vec()
}

fn events(gate: &Gate) -> serde_json::Value {
    gate.status()["callbacks"][0].clone()
}

#[test]
fn every_algorithm_of_the_bank_is_verified_and_its_bytes_reach_the_shop() {
    for algorithm in [
        CallbackAlgorithm::RsaPkcs1Sha256,
        CallbackAlgorithm::RsaPssSha256,
        CallbackAlgorithm::Ed25519,
        CallbackAlgorithm::EcdsaP256Sha256,
    ] {
        let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
        let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
        let body = send(&bank, order("s1", "APPROVED"));
        until("it is delivered", || !shop.deliveries().is_empty());
        let delivery = shop.deliveries().remove(0);
        assert_eq!(delivery.body, body, "{algorithm}");
        for (header, value) in [
            ("host", "shop.example"),
            ("content-type", "application/json"),
            ("priorgate-callback", "bank"),
            ("priorgate-key-id", "bank-2026"),
            ("priorgate-transition", "expected"),
            ("priorgate-session", "known"),
        ] {
            assert_eq!(delivery.header(header), value);
        }
        assert!(delivery.headers.get("x-signature").is_none());
        assert_eq!(events(&gate)["accepted"], 1);
    }
}

#[test]
fn what_is_not_the_banks_is_refused_in_one_way_and_reaches_nobody() {
    let algorithm = CallbackAlgorithm::RsaPkcs1Sha256;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    for (fault, status) in [
        ("wrong-key", 503),
        ("changed-byte", 503),
        ("re-encoded", 503),
        ("no-signature", 403),
        ("two-signatures", 403),
    ] {
        let mut order = order(&format!("s-{fault}"), "APPROVED");
        (order.fault, order.attempts) = (Some(fault.to_owned()), Some(1));
        let sent = bank.sandbox().send_callback(order).unwrap();
        let answer = eventually("the bank has its answer", || {
            let events = bank.sandbox().callbacks();
            let event = events
                .iter()
                .find(|event| event.event_id == sent.event_id)?;
            event.last_answer
        });
        assert_eq!(answer, status, "{fault}");
    }
    // Raw: no answer says more than another.
    let socket = crate::support::client::Target::Unix(gate.path().join("callback.sock"));
    for (headers, status) in [
        ("", 403),
        ("X-Signature: AAAA\r\n", 403),
        ("X-Signature: !\r\n", 403),
    ] {
        let answer = socket.post(PATH, headers, b"{}");
        assert_eq!((answer.status, &answer.body[..]), (status, &b"{}"[..]));
    }
    let allow = socket.get(PATH);
    assert_eq!(allow.header("allow"), Some("POST"));
    for (path, status) in [("/elsewhere", 404), (PATH, 405)] {
        let answer = if status == 405 {
            socket.get(path)
        } else {
            socket.post(path, "", b"{}")
        };
        assert_eq!(answer.status, status);
    }
    let encoded = socket.post(PATH, "Content-Encoding: gzip\r\n", b"{}");
    assert_eq!(encoded.status, 415);
    assert!(shop.deliveries().is_empty());
    assert_eq!(events(&gate)["rejected"], 8);
    // Those that fit no key are kept for operators.
    let rejected = gate.command(&["callbacks", "rejected", "--json"]);
    let rejected = String::from_utf8(rejected.stdout).unwrap();
    assert_eq!(rejected.matches("\"mismatch\"").count(), 3, "{rejected}");
    // And say what is wrong with them.
    let saved = gate.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    let told = gate.command(&["callbacks", "rejected", "--save", saved.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let verify = |number: usize| {
        let body = saved.join(format!("{number}.body"));
        let headers = std::fs::read_to_string(saved.join(format!("{number}.headers"))).unwrap();
        let mut args = vec![
            "verify",
            "--callback",
            "bank",
            "--body",
            body.to_str().unwrap(),
        ];
        for line in headers.lines() {
            args.extend(["--header", line]);
        }
        let output = gate.command(&args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        verify(1).contains("not verified: no key fits"),
        "{}",
        verify(1)
    );
    assert!(verify(3).contains("json"), "{}", verify(3));
}

#[test]
fn a_published_notification_is_verified_offline() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures");
    let http = std::fs::read(data.join("bepaid.http")).unwrap();
    let text = String::from_utf8(http).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let line = head
        .lines()
        .find(|line| line.starts_with("Content-Signature"))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    for (body, code, said) in [
        (body, 0, "verified by key"),
        (&*format!("{body}\n"), 1, "line-end"),
    ] {
        std::fs::write(&file, body).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_priorgate"))
            .args([
                "verify",
                "--algorithm",
                "rsa-pkcs1-sha256",
                "--header",
                line,
                "--key",
            ])
            .arg(data.join("bepaid.pub"))
            .arg("--body")
            .arg(&file)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_callback_arrives_although_the_shop_was_down_and_the_gate_killed() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let bank = SandboxBank::with_callbacks(algorithm);
    let addr = Shop::open().addr();
    let gate = start(
        &bank,
        setup(&bank, addr, algorithm).edit("timeout: 2s", "timeout: 2s\n      after_timeout: 1s"),
    );
    let body = send(&bank, order("s1", "APPROVED"));
    until("the bank was told", || events(&gate)["accepted"] == 1);
    let gate = gate.crash_and_restart();
    let shop = Shop::open_at(addr);
    until("it is delivered", || !shop.acknowledged().is_empty());
    assert_eq!(shop.deliveries().len(), 1);
    assert_eq!(shop.deliveries()[0].body, body);
    assert_eq!(events(&gate)["accepted"], 0, "of this process");
}

#[test]
fn only_an_acknowledgement_ends_a_delivery_and_each_attempt_is_the_same_event() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let _gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    shop.mood(Mood::Forgetful);
    send(&bank, order("s1", "APPROVED"));
    until("it was tried again", || shop.deliveries().len() >= 2);
    shop.mood(Mood::Broken);
    let tried = shop.deliveries().len();
    until("it was tried again", || shop.deliveries().len() > tried);
    shop.mood(Mood::Good);
    until("it is acknowledged", || !shop.acknowledged().is_empty());
    let ids: Vec<String> = shop
        .deliveries()
        .iter()
        .map(|delivery| delivery.header("webhook-id").to_owned())
        .collect();
    assert!(
        ids.iter()
            .all(|id| *id == ids[0] && id.starts_with("bank_")),
        "{ids:?}"
    );
    // Nothing comes after it: the next event of another session is the next delivery.
    send(&bank, order("s2", "APPROVED"));
    until("the next one", || shop.acknowledged().len() == 2);
    assert_ne!(shop.acknowledged()[1].header("webhook-id"), ids[0]);
}

#[test]
fn a_thousand_doubled_callbacks_are_a_thousand_deliveries_one_at_a_time_for_each_session() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    for number in 0..1_000 {
        let mut order = order(&format!("s{}", number % 250), "APPROVED");
        order.fault = Some("doubled".to_owned());
        send(&bank, order);
    }
    let all = std::time::Duration::from_secs(60);
    let until_then = std::time::Instant::now() + all;
    while shop.acknowledged().len() < 1_000 && std::time::Instant::now() < until_then {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    assert_eq!(shop.deliveries().len(), 1_000);
    assert!(shop.most_at_once() <= 4, "{} at once", shop.most_at_once());
    assert_eq!(shop.most_of_a_session(), 1);
    let mut ids: Vec<String> = shop
        .deliveries()
        .iter()
        .map(|delivery| delivery.header("webhook-id").to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1_000);
    until("each was taken twice", || {
        events(&gate)["repeated"] == 1_000
    });
}

#[test]
fn contradictions_wait_for_a_person() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    let next = |status: &str, count: usize| {
        send(&bank, order("s1", status));
        until("it is taken", || events(&gate)["accepted"] == count);
    };
    next("APPROVED", 1);
    until("approved", || shop.acknowledged().len() == 1);
    next("REFUNDED", 2);
    until("refunded", || shop.acknowledged().len() == 2);
    // A late approval would pay the order again, a late pending un-pay it.
    next("APPROVED", 3);
    next("PENDING", 4);
    let listed = gate.tell(&json!({"command": "callbacks.list"})).unwrap();
    let states: Vec<&str> = listed["result"]["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        ["superseded", "held", "delivered", "delivered"],
        "{listed}"
    );
    let id = listed["result"]["events"][1]["id"].to_string();
    let id = id.trim_matches('"');
    let released = gate.command(&[
        "callbacks",
        "release",
        id,
        "--reason",
        "the bank says so",
        "--yes",
    ]);
    assert_eq!(released.status.code(), Some(0), "{released:?}");
    until("it is delivered", || shop.acknowledged().len() == 3);
    let late = &shop.acknowledged()[2];
    assert_eq!(late.header("priorgate-transition"), "stale");
    assert_eq!(late.json()["status"], "APPROVED");
}

#[test]
fn a_shop_that_did_not_answer_in_time_gets_its_minute() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = start(&bank, setup(&bank, shop.addr(), algorithm));
    // Longer than deliver.timeout.
    shop.mood(Mood::Slow(std::time::Duration::from_millis(2_500)));
    send(&bank, order("s1", "APPROVED"));
    let waits = eventually("the attempt has failed", || {
        let listed = gate.tell(&json!({"command": "callbacks.list"}))?;
        let event = &listed["result"]["events"][0];
        (event["state"] == "head" && event["attempts"] == 1).then_some(())?;
        Some(event["next_at"].as_i64()? - event["received_at"].as_i64()?)
    });
    assert!(waits >= 60_000, "tried again after {waits} ms");
    // Another event of the session does not wake it before that.
    send(&bank, order("s1", "REFUNDED"));
    until("it is taken", || events(&gate)["accepted"] == 2);
    let listed = gate.tell(&json!({"command": "callbacks.list"})).unwrap();
    let head = &listed["result"]["events"][1];
    assert_eq!(head["state"], "head", "{listed}");
    assert!(head["next_at"].as_i64().unwrap() - head["received_at"].as_i64().unwrap() >= 60_000);
}

#[test]
fn what_the_shop_does_not_take_is_counted_told_once_and_told_again_when_it_is_over() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    shop.mood(Mood::Broken);
    let setup = setup(&bank, shop.addr(), algorithm).edit("max_head_wait: 1s", "alarm_after: 1s");
    let gate = start(&bank, setup);
    for (session, status) in [("s1", "APPROVED"), ("s2", "REJECTED"), ("s2", "REFUNDED")] {
        send(&bank, order(session, status));
    }
    let warned = |part: &str| {
        let status = gate.status();
        let warnings = status["warnings"].as_array().unwrap().iter();
        warnings
            .filter_map(|warning| warning.as_str())
            .any(|warning| warning.contains(part))
    };
    until("somebody is told", || {
        warned("2 events wait for the shop, the oldest since")
    });
    until("and of the contradiction", || {
        warned("1 events contradict what the shop has")
    });
    let standing = events(&gate);
    assert_eq!(
        (&standing["waiting"], &standing["held"]),
        (&json!(2), &json!(1))
    );
    assert!(standing["oldest"].is_string(), "{standing}");
    let table = gate.command(&["status"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("2 waiting since"), "{table}");
    shop.mood(Mood::Good);
    until("it is over", || !warned("wait for the shop"));
    for text in [
        "longer than deliver.alarm_after",
        "the shop takes events again",
    ] {
        assert_eq!(gate.log().matches(text).count(), 1, "{text}");
    }
}

#[test]
fn check_advises_against_what_is_weak_and_takes_it_all_the_same() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    let gate = setup(&bank, shop.addr(), algorithm)
        .edit(
            "header: X-Signature\n",
            "header: X-Signature\n      message: [\"header:X-Time\", \"header:X-Part\", body]\n      timestamp: {header: X-Time, unit: s, tolerance: 5m}\n",
        )
        .edit("timeout: 2s", "ack: status\n      timeout: 2s")
        .start();
    let output = gate.command(&["check"]);
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for advice in [
        "timestamp.tolerance is under 24h",
        "in signature.message `header:x-part` and `body` run together",
        "an unsigned acknowledgement over TCP",
    ] {
        assert!(told.contains(advice), "{advice}: {told}");
    }
    assert_ne!(output.status.code(), Some(78), "it is no mistake: {told}");
}

#[test]
fn a_callback_keeps_its_name_while_its_events_wait_and_two_do_not_share_a_secret() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let bank = SandboxBank::with_callbacks(algorithm);
    let nobody = Shop::open().addr();
    let gate = start(&bank, setup(&bank, nobody, algorithm));
    send(&bank, order("s1", "APPROVED"));
    until("it is taken", || events(&gate)["accepted"] == 1);
    let config = std::fs::read_to_string(gate.config()).unwrap();
    let renamed = config.replace("callbacks:\n  - name: bank", "callbacks:\n  - name: other");
    replace(&gate.config(), &renamed);
    let reload = gate.command(&["reload"]);
    let told = String::from_utf8([reload.stdout, reload.stderr].concat()).unwrap();
    assert_eq!(reload.status.code(), Some(1), "{told}");
    // A new process would not even know of it.
    let mut gate = gate.crash_and_restart_at_once(|command| command);
    let status = gate.wait();
    assert_eq!(status.code(), Some(1), "{}", gate.log());
    assert!(
        gate.log().contains("1 events of callback `bank`"),
        "{}",
        gate.log()
    );
    // A copy of a secret is the same secret, whatever its file is called.
    let (_, callback) = config.split_once("callbacks:\n").unwrap();
    let lines = callback.split_inclusive('\n');
    let callback: String = lines.take_while(|line| line.starts_with(' ')).collect();
    let second = callback
        .replace("name: bank", "name: second")
        .replace("callback.sock", "second.sock")
        .replace("deliver.secret", "copy.secret");
    replace(&gate.path().join("copy.secret"), SECRET);
    replace(
        &gate.config(),
        &config.replace("callbacks:\n", &format!("callbacks:\n{second}")),
    );
    let check = gate.command(&["check"]);
    let told = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(
        told.contains("a secret is that of callback `second` too"),
        "{told}"
    );
}
