//! Scrapes of a running gate: everything that is documented is there, and nothing that a caller can make up.

use std::collections::BTreeSet;

use priorgate::metrics::catalog::{ALL, Family};
use serde_json::json;

use crate::support::client::Target;
use crate::support::gate::{Gate, Setup};
use crate::support::operation::{self, REFUND, ask, refund};
use crate::support::pki::replace;
use crate::support::scrape::{Scrape, until_value};
use crate::support::until;
use crate::support::world::World;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A callback beside the bank, and an audit log: every family has something to say.
fn whole(world: &World, port: u16) -> Setup {
    let setup = world.setup(port).guarded();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    replace(&setup.path().join("bank.pub"), &key.public_key_pem());
    replace(&setup.path().join("deliver.secret"), SECRET);
    setup
        .top("callbacks:\n  - name: calls\n    listen: [{unix: callback.sock, mode: \"0600\"}]\n    path: /callback\n    signature: {header: X-Signature, keys: [{id: k, algorithm: ed25519, file: bank.pub}]}\n    event: {id: [/event_id], session: /session_id, status: /status}\n    deliver: {url: \"http://127.0.0.1:1/hook.php\", host: shop.example, secret_files: [deliver.secret]}")
        .top("audit: {file: audit.jsonl}")
}

fn callbacks(gate: &Gate) -> Target {
    Target::Unix(gate.path().join("callback.sock"))
}

#[test]
fn with_traffic_and_callbacks_every_documented_family_has_samples() {
    let world = World::new();
    let bank = operation::bank(&world);
    let gate = whole(&world, bank.port()).start();
    for (key, does) in [("k1", "answer"), ("k2", "404"), ("k3", "lose")] {
        let _ = ask(&gate.unix(), REFUND, key, &refund(key, 1, does));
    }
    for _ in 0..2 {
        let created = gate.unix().post("/installment/create", "", b"{}");
        assert_eq!(created.status, 200);
    }
    assert_eq!(gate.unix().get("/nowhere").status, 404);
    let rejected = callbacks(&gate).post("/callback", "X-Signature: AAAA\r\n", b"{}");
    assert_eq!(rejected.status, 403);
    gate.expect_records(6);
    let scrape = Scrape::of(&gate);
    let silent: Vec<_> = ALL
        .iter()
        .map(|family| family.name)
        .filter(|name| !scrape.has(name))
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
    for (series, value) in [
        (
            r#"priorgate_requests_total{bank="bank",route="refund",code="2xx",outcome="answered"}"#,
            1.0,
        ),
        (
            r#"priorgate_requests_total{bank="bank",route="refund",code="4xx",outcome="answered"}"#,
            1.0,
        ),
        (
            r#"priorgate_requests_total{bank="bank",route="refund",code="bank_disconnected",outcome="unknown"}"#,
            1.0,
        ),
        (
            r#"priorgate_requests_total{bank="bank",route="create",code="2xx",outcome="answered"}"#,
            2.0,
        ),
        (
            r#"priorgate_requests_total{bank="bank",route="",code="route_not_found",outcome="not_sent"}"#,
            1.0,
        ),
        (
            r#"priorgate_request_duration_seconds_count{bank="bank",route="refund"}"#,
            3.0,
        ),
        (
            r#"priorgate_bank_exchange_duration_seconds_count{bank="bank"}"#,
            5.0,
        ),
        (
            r#"priorgate_bank_queue_duration_seconds_count{bank="bank"}"#,
            5.0,
        ),
        // Each refund has its own; of the two creates the second finds the first one's.
        (
            r#"priorgate_bank_handshake_duration_seconds_count{bank="bank"}"#,
            4.0,
        ),
        (
            r#"priorgate_bank_connections_opened_total{bank="bank"}"#,
            4.0,
        ),
        (
            r#"priorgate_bank_connections_reused_total{bank="bank"}"#,
            1.0,
        ),
        (r#"priorgate_bank_connections_spare{bank="bank"}"#, 1.0),
        (r#"priorgate_bank_connections_open{bank="bank"}"#, 1.0),
        (
            r#"priorgate_callbacks_total{callback="calls",verdict="rejected"}"#,
            1.0,
        ),
        (
            r#"priorgate_certificate_not_after_timestamp_seconds{kind="callback_key",name="calls",id="k"}"#,
            f64::INFINITY,
        ),
        (r#"priorgate_operations{state="unknown"}"#, 1.0),
        ("priorgate_keyholder_signatures_total", 4.0),
        ("priorgate_keyholder_up", 1.0),
        ("priorgate_ready", 1.0),
        (r#"priorgate_confinement_missing{process="gate"}"#, 0.0),
        (
            r#"priorgate_confinement_in_force{process="gate",measure="seccomp"}"#,
            1.0,
        ),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    let not_after = scrape.value(
        r#"priorgate_certificate_not_after_timestamp_seconds{kind="client",name="bank",id="leaf"}"#,
    );
    assert!(not_after > 1.8e9, "{not_after}");
    assert!(scrape.value("priorgate_journal_size_bytes") > 0.0);
    assert!(scrape.value("priorgate_journal_disk_free_bytes") > 0.0);
    until_value(&gate, "priorgate_audit_outbox_rows", |rows| rows == 0.0);
    // Counters outlive a reload, and the new generation counts on.
    assert!(gate.command(&["reload"]).status.success());
    let created = gate.unix().post("/installment/create", "", b"{}");
    assert_eq!(created.status, 200);
    gate.expect_records(7);
    let create =
        r#"priorgate_requests_total{bank="bank",route="create",code="2xx",outcome="answered"}"#;
    assert_eq!(Scrape::of(&gate).value(create), 3.0);
    until("the old generation's connection is closed", || {
        Scrape::of(&gate).value(r#"priorgate_bank_connections_open{bank="bank"}"#) == 1.0
    });
}

/// What a caller can make up, the `n`th of each kind.
fn hostile(n: usize) -> Vec<Vec<u8>> {
    let post = |path: &str, headers: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 2\r\n\r\n{{}}")
            .into_bytes()
    };
    vec![
        post(&format!("/installment/create{n}"), ""),
        post(&format!("/{n}\"}} 1/../%22"), ""),
        post("/installment/create", &format!("X-H{n}\"}}: {n}\r\n")),
        post("/installment/create", &format!("X_{n}: 1\r\n")),
        post(
            "/installment/create",
            &format!("X-Request-Id: id-{n}\"\\n\r\nOrigin: http://{n}\r\n"),
        ),
        post(
            "/installment/refund",
            &format!("Idempotency-Key: \"k{n}\r\n"),
        ),
        format!("M{n} /installment/create HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        format!("GET /installment/{n}-\u{444} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        format!("GET /installment/x HTTP/1.1\r\nHost: h{n}\r\nHost: g{n}\r\n\r\n").into_bytes(),
        format!("\u{0}{n}\r\n\r\n").into_bytes(),
    ]
}

fn series(scrape: &Scrape) -> BTreeSet<String> {
    scrape.0.keys().cloned().collect()
}

#[test]
fn no_path_header_method_or_token_makes_a_series() {
    let world = World::new();
    let bank = operation::bank(&world);
    let gate =
        whole(&world, bank.port()).listen(&["{tcp: \"127.0.0.1:0\", token_files: [php.token]}"]);
    replace(
        &gate.path().join("php.token"),
        "0123456789abcdef0123456789abcdef",
    );
    let gate = gate.start();
    let token = |n: usize, bytes: &[u8]| {
        // Every other one comes with the right token, so that what is behind it is reached.
        let token = if n.is_multiple_of(2) {
            "0123456789abcdef0123456789abcdef".to_owned()
        } else {
            format!("{n:032}")
        };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replacen("\r\n", &format!("\r\nPriorgate-Token: {token}\r\n"), 1)
            .into_bytes()
    };
    let target = gate.tcp();
    let send = |n: usize| {
        for request in hostile(n) {
            let _ = target.send(&token(n, &request));
            let _ = callbacks(&gate).send(&request);
        }
    };
    // One of each kind, with and without its token: what can be seen is there then.
    send(0);
    send(1);
    let before = Scrape::of(&gate);
    for n in 2..52 {
        send(n);
    }
    let after = Scrape::of(&gate);
    assert_eq!(series(&after), series(&before));
    let requests: f64 = after
        .0
        .iter()
        .filter(|(series, _)| series.starts_with("priorgate_requests_total"))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum();
    let refused: f64 = after
        .0
        .iter()
        .filter(|(series, _)| series.starts_with("priorgate_callbacks_total"))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum();
    println!(
        "{} series, {requests} requests, {refused} notifications",
        after.0.len()
    );
    assert!(requests + refused >= 1_000.0, "{requests} {refused}");
    // And what there is comes from the catalogue, label by label.
    for series in after.0.keys() {
        assert!(is_known(series), "{series}");
    }
}

fn is_known(series: &str) -> bool {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let bare = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .filter(|bare| ALL.iter().any(|family| family.name == *bare));
    let family = ALL
        .iter()
        .find(|family| family.name == bare.unwrap_or(name));
    family.is_some_and(|family| has_its_labels(family, labels))
}

fn has_its_labels(family: &Family, labels: &str) -> bool {
    let names: Vec<_> = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('=').map(|(name, _)| name))
        .filter(|name| *name != "le")
        .collect();
    let wanted: Vec<_> = family.labels.iter().map(|(name, _)| *name).collect();
    names == wanted
}

#[test]
fn the_admin_port_gives_both_formats_to_this_machine_and_to_get_alone() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let ask = |method: &str, host: &str, accept: &str| {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n");
        gate.admin_tcp().send(request.as_bytes())
    };
    let plain = ask("GET", "localhost", "text/plain");
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let open = ask(
        "GET",
        "127.0.0.1",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.body.ends_with(b"# EOF\n"));
    let names = |body: &[u8]| series(&Scrape::parse(str::from_utf8(body).unwrap()));
    assert_eq!(names(&plain.body), names(&open.body));
    assert_eq!(ask("POST", "localhost", "*/*").status, 405);
    assert_eq!(ask("GET", "evil.example", "*/*").status, 403);
    assert_eq!(gate.status()["listeners_down"], json!([]));
}
