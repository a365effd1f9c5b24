//! Scenario tests of the sandbox over real sockets, with a client written for them.

mod callbacks;
mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Who the client claims to be.
enum As<'a> {
    Nobody,
    Someone(&'a Issued),
}

async fn connect_with(
    sandbox: &Sandbox,
    who: As<'_>,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(sandbox.pki().bank_ca()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match who {
        As::Nobody => config.with_no_client_auth(),
        As::Someone(issued) => config
            .with_client_auth_cert(vec![issued.certificate()], issued.key())
            .unwrap(),
    };
    let stream = TcpStream::connect(sandbox.bank_addr()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn connect(sandbox: &Sandbox) -> TlsStream<TcpStream> {
    let client = As::Someone(sandbox.pki().client());
    connect_with(sandbox, client, &[&rustls::version::TLS13])
        .await
        .unwrap()
}

/// Sends a request and gives back every byte that comes, until the bank closes.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    match read.map_err(|error| error.kind()) {
        Ok(_) | Err(io::ErrorKind::UnexpectedEof) => {}
        Err(io::ErrorKind::ConnectionReset) => bytes.extend_from_slice(b"<reset>"),
        Err(other) => panic!("{other}"),
    }
    bytes
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Status and body of one whole answer.
fn parsed(bytes: &[u8]) -> (u16, Value) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    assert!(
        head.contains("\r\nPriorgate-Sandbox: not a bank\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn ask(sandbox: &Sandbox, request: &str) -> (u16, Value) {
    parsed(&exchange(connect(sandbox).await, request).await)
}

async fn control(sandbox: &Sandbox, request: &str) -> (u16, Value) {
    let stream = TcpStream::connect(sandbox.control_addr()).await.unwrap();
    parsed(&exchange(stream, request).await)
}

fn order(order_ref: &str) -> String {
    json!({
        "order_ref": order_ref, "amount": 149.9, "currency": "BYN", "term": 12,
        "items": [
            {"name": "Чайник «Заря»", "qty": 1, "price": "100.00"},
            {"name": "Доставка", "qty": "1", "price": 49.9},
        ],
        "customer": {"name": "Анна", "phone": "+375290000000"},
        "success_url": "https://shop.example/ok", "fail_url": "https://shop.example/no",
        "callback_url": "https://shop.example/callback",
    })
    .to_string()
}

async fn created(sandbox: &Sandbox, order_ref: &str) -> String {
    let (status, body) = ask(sandbox, &post("/installment/create", &order(order_ref))).await;
    assert_eq!(status, 201, "{body}");
    body["session_id"].as_str().unwrap().to_owned()
}

async fn refund(sandbox: &Sandbox, session: &str, amount: &str) -> (u16, Value) {
    let body = json!({"session_id": session, "amount": amount, "reason": "Возврат"});
    ask(sandbox, &post("/installment/refund", &body.to_string())).await
}

async fn started() -> Sandbox {
    Sandbox::start(Options::default()).await.unwrap()
}

#[tokio::test]
async fn a_session_is_created_shown_and_refunded_and_the_ledger_knows_who_did_it() {
    let sandbox = started().await;
    let session = created(&sandbox, "17").await;
    let (status, body) = ask(&sandbox, &get(&format!("/installment/{session}"))).await;
    let expected = json!({
        "session_id": session, "status": "APPROVED", "amount": "149.90", "refunded": "0.00",
        "currency": "BYN", "order_ref": "17",
    });
    assert_eq!((status, body), (200, expected));
    let (status, body) = refund(&sandbox, &session, "149.90").await;
    assert_eq!(status, 200);
    assert!(body["refund_id"].as_str().unwrap().starts_with("r-"));
    let (status, body) = refund(&sandbox, &session, "0.01").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (422, Some("refund_too_large"))
    );

    let ledger = sandbox.ledger();
    assert_eq!(
        ledger.session(&session).unwrap().status,
        SessionStatus::Refunded
    );
    let once = OrderCounts {
        creates: 1,
        refunds: 1,
    };
    assert_eq!(ledger.order("17"), once);
    assert_eq!((ledger.totals.requests, ledger.totals.handshakes), (4, 4));
    assert_eq!(ledger.clients.len(), 1);
    assert_eq!(ledger.clients[0].client.common_name, "shop.sandbox.example");
    assert_eq!(ledger.clients[0].requests, 4);
    let log = sandbox.log();
    let (line, client) = (&log[0].line, log[0].client.as_ref().unwrap());
    assert_eq!(line, "POST /installment/create");
    assert!(client.subject.contains("CN=shop.sandbox.example"));
}

#[tokio::test]
async fn a_connection_carries_many_requests_in_tls_1_2_too() {
    let sandbox = started().await;
    let client = As::Someone(sandbox.pki().client());
    let stream = connect_with(&sandbox, client, &[&rustls::version::TLS12])
        .await
        .unwrap();
    let kept = get("/installment/s-none").replace("Connection: close\r\n", "");
    let bytes = exchange(stream, &format!("{kept}{}", get("/installment/s-none"))).await;
    assert_eq!(
        String::from_utf8(bytes)
            .unwrap()
            .matches("HTTP/1.1 404")
            .count(),
        2
    );
    let totals = sandbox.ledger().totals;
    assert_eq!((totals.connections, totals.requests), (1, 2));
}

#[tokio::test]
async fn without_a_certificate_of_its_ca_nobody_gets_a_word() {
    let sandbox = started().await;
    let foreign = Pki::generate().unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for who in [As::Nobody, As::Someone(foreign.client())] {
            // In TLS 1.3 the client hears of it only when it reads.
            let refused = match connect_with(&sandbox, who, &[version]).await {
                Err(_) => true,
                Ok(mut stream) => {
                    let _ = stream.write_all(get("/installment/x").as_bytes()).await;
                    stream.read_u8().await.is_err()
                }
            };
            assert!(refused);
        }
    }
    let totals = sandbox.ledger().totals;
    assert_eq!((totals.handshakes, totals.requests), (0, 0));
    assert_eq!(totals.handshakes_refused, 4);
    assert!(
        sandbox
            .log()
            .iter()
            .all(|entry| entry.event == LogEvent::HandshakeRefused)
    );
}

#[tokio::test]
async fn a_rotated_certificate_is_counted_apart() {
    let sandbox = started().await;
    created(&sandbox, "1").await;
    let rotated = sandbox.pki().issue_client("shop-2").unwrap();
    let client = As::Someone(&rotated);
    let stream = connect_with(&sandbox, client, &[&rustls::version::TLS13])
        .await
        .unwrap();
    exchange(stream, &get("/installment/x")).await;
    let ledger = sandbox.ledger();
    let mut names: Vec<_> = ledger
        .clients
        .iter()
        .map(|seen| &seen.client.common_name)
        .collect();
    names.sort();
    assert_eq!(names, ["shop-2", "shop.sandbox.example"]);
}

#[tokio::test]
async fn what_is_not_exactly_right_is_refused_and_leaves_no_session() {
    let sandbox = started().await;
    let good = post("/installment/create", &order("1"));
    for (request, status, code) in [
        (
            good.replace("application/json", "text/plain"),
            415,
            "content_type",
        ),
        (
            good.replace("Content-Type: application/json\r\n", ""),
            415,
            "content_type",
        ),
        (
            good.replace("Host: localhost", "Host: elsewhere"),
            421,
            "misdirected",
        ),
        (good.replace("/create ", "/creates "), 405, "method"),
        (good.replace("POST ", "PUT "), 405, "method"),
        (good.replace("/installment/", "/instalment/"), 404, "route"),
        (good.replace("/create ", "/create? "), 404, "route"),
        (post("/installment/create", "{}"), 400, "body"),
        (
            post("/installment/create", &order("fault-reste")),
            400,
            "fault",
        ),
        (get("/installment/create"), 405, "method"),
        (get("/installment/s-none"), 404, "session_unknown"),
    ] {
        let (seen, body) = ask(&sandbox, &request).await;
        assert_eq!(
            (seen, body["error"]["code"].as_str()),
            (status, Some(code)),
            "{request}"
        );
    }
    let (status, body) = refund(&sandbox, "s-none", "1").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (404, Some("session_unknown"))
    );
    assert!(sandbox.ledger().sessions.is_empty());
}

#[tokio::test]
async fn an_ambiguous_head_is_counted_as_malformed_and_not_as_a_request() {
    let sandbox = started().await;
    let request = get("/installment/x").replace("Host: ", "Host: a\r\nHost: ");
    assert_eq!(ask(&sandbox, &request).await.0, 400);
    let big = post("/installment/create", "{}").replace("Length: 2", "Length: 2000000");
    assert_eq!(ask(&sandbox, &big).await.0, 413);
    let totals = sandbox.ledger().totals;
    assert_eq!((totals.malformed, totals.requests), (2, 0));
}

#[tokio::test]
async fn without_auto_approval_a_session_waits_for_a_decision() {
    let options = Options {
        auto_approve: false,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let session = created(&sandbox, "1").await;
    let (status, body) = refund(&sandbox, &session, "1").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (409, Some("not_approved"))
    );
    let path = format!("/control/sessions/{session}/status");
    let (status, body) = control(&sandbox, &post(&path, r#"{"status":"APPROVED"}"#)).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("APPROVED")));
    assert_eq!(refund(&sandbox, &session, "149.89").await.0, 200);
    assert_eq!(refund(&sandbox, &session, "0.02").await.0, 422);
    let (status, _) = control(&sandbox, &post(&path, r#"{"status":"CANCELLED"}"#)).await;
    assert_eq!(status, 409);
}

/// What the client saw, and how many sessions there are after it.
async fn played(fault: &str) -> (String, usize) {
    let sandbox = started().await;
    let order_ref = format!("fault-{fault}.1");
    let request = post("/installment/create", &order(&order_ref));
    let bytes = exchange(connect(&sandbox).await, &request).await;
    assert_eq!(sandbox.ledger().totals.requests, 1);
    assert_eq!(sandbox.log()[0].fault.as_deref(), Some(fault));
    let seen = String::from_utf8_lossy(&bytes).into_owned();
    (seen, sandbox.ledger().sessions.len())
}

#[tokio::test]
async fn faults_that_lose_the_answer_leave_the_session_behind() {
    assert_eq!(played("drop-after-read").await, (String::new(), 1));
    assert_eq!(played("reset").await, ("<reset>".to_owned(), 1));
    let (seen, sessions) = played("garbage").await;
    assert!(!seen.starts_with("HTTP/") && !seen.is_empty());
    assert_eq!(sessions, 1);
}

#[tokio::test]
async fn faults_in_the_length_are_exactly_that() {
    let lengths = |seen: &str| {
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        let stated = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        (stated.unwrap().parse::<usize>().unwrap(), body.len())
    };
    let (seen, sessions) = played("truncate").await;
    let (stated, sent) = lengths(&seen);
    assert!(sent < stated && sent > 0 && sessions == 1, "{seen}");
    let (seen, sessions) = played("wrong-length").await;
    let (stated, sent) = lengths(&seen);
    assert!(sent > stated && sessions == 1, "{seen}");
}

#[tokio::test]
async fn faults_instead_of_an_answer_leave_no_session() {
    assert_eq!(played("drop-before-read").await, (String::new(), 0));
    for (fault, status) in [("redirect", 302), ("status-404", 404), ("status-503", 503)] {
        let (seen, sessions) = played(fault).await;
        assert_eq!((parsed(seen.as_bytes()).0, sessions), (status, 0));
        assert_eq!(seen.contains("\r\nLocation: "), fault == "redirect");
    }
}

#[tokio::test]
async fn a_delayed_answer_comes_late_and_whole() {
    let from = Instant::now();
    let (seen, sessions) = played("delay-200ms").await;
    assert!(from.elapsed() >= Duration::from_millis(200));
    assert_eq!((parsed(seen.as_bytes()).0, sessions), (201, 1));
}

#[tokio::test]
async fn a_refund_fault_hits_the_refunds_of_its_session_as_often_as_it_says() {
    let sandbox = started().await;
    let session = created(&sandbox, "fault-refund-drop-after-read*1.9").await;
    let body = json!({"session_id": session, "amount": "1.00"}).to_string();
    let lost = post("/installment/refund", &body);
    assert_eq!(exchange(connect(&sandbox).await, &lost).await, b"");
    assert_eq!(sandbox.ledger().session(&session).unwrap().refunds.len(), 1);
    assert_eq!(refund(&sandbox, &session, "1.00").await.0, 200);
    assert_eq!(sandbox.ledger().session(&session).unwrap().refunds.len(), 2);
}

#[tokio::test]
async fn an_armed_drop_reads_nothing_and_is_spent() {
    let sandbox = started().await;
    let arm = post("/control/faults", r#"{"fault":"drop-before-read"}"#);
    let (status, body) = control(&sandbox, &arm).await;
    assert_eq!((status, body["armed"][0]["times"].as_u64()), (200, Some(1)));
    let request = post("/installment/create", &order("1"));
    let bytes = exchange(connect(&sandbox).await, &request).await;
    assert!(
        bytes.is_empty() || bytes == b"<reset>",
        "nothing was answered"
    );
    let totals = sandbox.ledger().totals;
    assert_eq!((totals.requests, totals.unread), (0, 1));
    created(&sandbox, "1").await;
}

#[tokio::test]
async fn the_control_api_arms_lists_and_clears_faults() {
    let sandbox = started().await;
    let arm = r#"{"fault":"status-500","times":2,"route":"status"}"#;
    control(&sandbox, &post("/control/faults", arm)).await;
    created(&sandbox, "1").await;
    assert_eq!(ask(&sandbox, &get("/installment/x")).await.0, 500);
    let (_, body) = control(&sandbox, &get("/control/faults")).await;
    let left = json!({"armed": [{"fault": "status-500", "times": 1, "route": "status"}]});
    assert_eq!(body, left);
    control(&sandbox, &get("/control/faults").replace("GET", "DELETE")).await;
    assert_eq!(ask(&sandbox, &get("/installment/x")).await.0, 404);
    for bad in [
        r#"{"fault":"explode"}"#,
        r#"{"fault":"reset","times":0}"#,
        r#"{"fault":"reset","n":1}"#,
        r#"{"fault":"drop-before-read","route":"create"}"#,
    ] {
        assert_eq!(
            control(&sandbox, &post("/control/faults", bad)).await.0,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn the_control_api_shows_state_and_log_and_refuses_web_pages() {
    let sandbox = started().await;
    let session = created(&sandbox, "1").await;
    let (_, state) = control(&sandbox, &get("/control/state")).await;
    assert_eq!(state["sessions"][0]["amount"], "149.90");
    assert_eq!(state["orders"]["1"]["creates"], 1);
    assert_eq!(state["clients"][0]["common_name"], "shop.sandbox.example");
    assert_eq!(state["totals"]["requests"], 1);
    let (_, log) = control(&sandbox, &get("/control/log")).await;
    assert_eq!(log[0]["event"], "request");
    let rebound = get("/control/state").replace("localhost", "evil.example");
    assert_eq!(control(&sandbox, &rebound).await.0, 403);
    let script = post(&format!("/control/sessions/{session}/status"), "{}")
        .replace("Connection", "Origin: https://evil.example\r\nConnection");
    assert_eq!(control(&sandbox, &script).await.0, 403);
}

#[tokio::test]
async fn only_loopback_is_served_and_everything_ends_with_the_sandbox() {
    for outside in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let outside: SocketAddr = outside.parse().unwrap();
        let inside = Options::default;
        for options in [
            Options {
                bank_addr: outside,
                ..inside()
            },
            Options {
                control_addr: outside,
                ..inside()
            },
            Options {
                page_addr: outside,
                ..inside()
            },
        ] {
            let refused = Sandbox::start(options).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
    let sandbox = started().await;
    let mut open = connect(&sandbox).await;
    let address = sandbox.bank_addr();
    drop(sandbox);
    assert!(timeout(PATIENCE, open.read_u8()).await.unwrap().is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_directory_gets_the_files_that_a_shop_needs() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let ca = std::fs::read_to_string(&sandbox.files().unwrap().bank_ca).unwrap();
    assert_eq!(ca, sandbox.pki().bank_ca_pem());
}
