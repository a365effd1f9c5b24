//! The table of observation and outcome, row by row, against a real TLS server that misbehaves that way.
//!
//! Each row: what PHP is answered, that there is exactly one record, and that the bank's own count agrees with the outcome.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bank::{Bank, Demand, Session, Speaks};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::pki::Ca;
use crate::support::until;
use crate::support::world::World;

const BODY: &[u8] = br#"{"order_ref":"1","amount":"1.00"}"#;

fn create(gate: &Gate) -> Answer {
    gate.unix().post("/installment/create", "", BODY)
}

/// One problem, told the same way in status, header, body and record.
fn assert_problem(gate: &Gate, answer: &Answer, status: u16, code: &str, outcome: &str) -> Value {
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(
        (answer.status, &*answer.code(), answer.outcome()),
        (status, code, outcome),
        "{told} {}",
        gate.log()
    );
    assert_eq!(answer.json()["outcome"], outcome);
    assert_eq!(answer.json()["status"], status);
    assert_eq!(
        answer.header("content-type").unwrap().split(';').next(),
        Some("application/problem+json")
    );
    let record = gate.expect_records(1).remove(0);
    assert_eq!(
        (&record["code"], &record["outcome"]),
        (&code.into(), &outcome.into())
    );
    assert_eq!(
        record["request_id"].as_str(),
        answer.header("priorgate-request-id")
    );
    record
}

#[test]
fn a_bank_that_refuses_connections_is_unreachable_and_nothing_was_sent() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let gate = world.gate(port);
    assert_problem(&gate, &create(&gate), 502, "bank_unreachable", "not_sent");
}

#[test]
fn a_name_that_does_not_resolve_is_unreachable_and_nothing_was_sent() {
    let world = World::new();
    // RFC 6761 section 6.4: it never does.
    let lines = "url: https://bank.invalid\n    trust: {ca_file: bank-ca.pem}\n    identity: {cert_file: client.crt, key_file: client.key}";
    let gate = world.setup(443).bank(lines).with(World::SHORT).start();
    let answer = create(&gate);
    assert_problem(&gate, &answer, 502, "bank_unreachable", "not_sent");
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .starts_with("DNS: ")
    );
}

#[test]
fn a_reset_in_the_handshake_is_unreachable_and_nothing_was_sent() {
    let world = World::new();
    let bank = Bank::raw(|mut socket, _, _| {
        use std::io::Read;
        let mut hello = [0; 64];
        let _ = socket.read(&mut hello);
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 502, "bank_unreachable", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn a_handshake_that_never_ends_is_a_time_out_and_nothing_was_sent() {
    let world = World::new();
    let bank = Bank::raw(|socket, _, _| {
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(10));
        drop(socket);
    });
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 504, "bank_timeout", "not_sent");
}

#[test]
fn another_name_is_not_the_bank() {
    let world = World::new();
    let server = world.bank_ca.server("other.test");
    let bank = Bank::start(
        &server,
        &Demand::Of(&world.client_ca),
        Speaks::Tls13,
        Session::serve,
    );
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 502, "bank_untrusted", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn an_expired_certificate_is_not_the_bank() {
    let world = World::new();
    let server = world.bank_ca.expired_server("bank.test");
    let bank = Bank::start(
        &server,
        &Demand::Of(&world.client_ca),
        Speaks::Tls13,
        Session::serve,
    );
    let gate = world.gate(bank.port());
    let answer = create(&gate);
    assert_problem(&gate, &answer, 502, "bank_untrusted", "not_sent");
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("expired")
    );
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn another_ca_is_not_the_bank() {
    let world = World::new();
    let server = Ca::new("somebody").server("bank.test");
    let bank = Bank::start(
        &server,
        &Demand::Of(&world.client_ca),
        Speaks::Tls13,
        Session::serve,
    );
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 502, "bank_untrusted", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn another_public_key_than_the_pinned_is_not_the_bank() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, Session::serve);
    let pin = "ab".repeat(32);
    let port = bank.port();
    let gate = world
        .setup(port)
        .bank(&format!("url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: bank.test, spki_sha256: [{pin}]}}\n    identity: {{cert_file: client.crt, key_file: client.key}}"))
        .start();
    assert_problem(&gate, &create(&gate), 502, "bank_untrusted", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn the_pinned_public_key_is_the_bank() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    let pin = priorgate::tls::trust::spki_sha256(&server.der()).unwrap();
    let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
    let bank = Bank::start(
        &server,
        &Demand::Of(&world.client_ca),
        Speaks::Tls13,
        Session::serve,
    );
    let port = bank.port();
    let gate = world
        .setup(port)
        .bank(&format!("url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: bank.test, spki_sha256: [{pin}]}}\n    identity: {{cert_file: client.crt, key_file: client.key}}"))
        .start();
    assert_eq!(create(&gate).status, 200);
}

#[test]
fn on_tls_1_3_a_refused_certificate_is_not_sent_although_bytes_were_written() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    let other = Ca::new("another client ca");
    let bank = Bank::start(&server, &Demand::Of(&other), Speaks::Tls13, Session::serve);
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 502, "identity_refused", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn on_tls_1_2_a_refused_certificate_ends_the_handshake_and_nothing_was_sent() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    let other = Ca::new("another client ca");
    let bank = Bank::start(&server, &Demand::Of(&other), Speaks::Tls12, Session::serve);
    let gate = world
        .setup(bank.port())
        .with("tls: {min_version: \"1.2\"}")
        .with(World::SHORT)
        .start();
    assert_problem(&gate, &create(&gate), 502, "identity_refused", "not_sent");
    assert_eq!(bank.requests().len(), 0);
}

#[test]
fn tls_1_2_is_spoken_where_it_is_allowed_and_only_there() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls12, Session::serve);
    let gate = world
        .setup(bank.port())
        .with("tls: {min_version: \"1.2\"}")
        .start();
    assert_eq!(create(&gate).status, 200);
    let gate = world.gate(bank.port());
    assert_problem(&gate, &create(&gate), 502, "bank_unreachable", "not_sent");
}

#[test]
fn a_server_that_asks_for_no_certificate_is_not_the_bank() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    for speaks in [Speaks::Tls13, Speaks::Tls12] {
        let bank = Bank::start(&server, &Demand::Nothing, speaks, Session::serve);
        let gate = world
            .setup(bank.port())
            .with("tls: {min_version: \"1.2\"}")
            .with(World::SHORT)
            .start();
        assert_problem(&gate, &create(&gate), 502, "bank_untrusted", "not_sent");
        assert_eq!(bank.requests().len(), 0);
    }
}

#[test]
fn an_idle_connection_that_the_bank_closed_costs_nothing_but_a_new_one() {
    let world = World::new();
    let (cue, cued) = mpsc::channel::<()>();
    let cued = std::sync::Mutex::new(cued);
    let (closed, is_closed) = mpsc::channel();
    let bank = world.bank(Speaks::Tls13, move |mut session| {
        if session.index > 0 {
            return session.serve();
        }
        session.request();
        session.answer("200 OK", "{}");
        cued.lock().unwrap().recv().unwrap();
        session.close();
        closed.send(()).unwrap();
    });
    let gate = world.gate(bank.port());
    assert_eq!(create(&gate).status, 200);
    until("the connection is idle", || {
        gate.status()["banks"][0]["pool"]["idle"] == 1
    });
    cue.send(()).unwrap();
    is_closed.recv().unwrap();
    let answer = create(&gate);
    assert_eq!(
        (answer.status, answer.outcome()),
        (200, "answered"),
        "{}",
        gate.log()
    );
    assert_eq!(bank.requests().len(), 2);
    assert_eq!(bank.connections(), 2);
    gate.expect_records(2);
}

#[test]
fn a_bank_that_accepts_and_never_reads_is_a_time_out_with_an_unknown_outcome() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |session| {
        socket2::SockRef::from(session.socket())
            .set_recv_buffer_size(4096)
            .unwrap();
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(10));
    });
    let gate = world
        .setup(bank.port())
        .with(World::SHORT)
        .with("limits: {request_body: 16MiB}")
        .start();
    let started = Instant::now();
    let answer = gate
        .unix()
        .post("/installment/create", "", &vec![b' '; 12 << 20]);
    assert_problem(&gate, &answer, 504, "bank_timeout", "unknown");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(bank.requests().len(), 0);
}

/// Rows in which the bank has the request, whole or in part, and PHP must not know better than `unknown`.
fn unknown_row(code: &str, status: u16, handle: impl Fn(Session) + Send + Sync + 'static) {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, handle);
    let gate = world.gate(bank.port());
    let answer = create(&gate);
    assert_problem(&gate, &answer, status, code, "unknown");
    assert_eq!(bank.requests().len(), 1, "sent once, and never again");
    assert_eq!(gate.counts(), (0, 0, 1));
}

#[test]
fn a_reset_after_the_head_is_unknown() {
    unknown_row("bank_disconnected", 502, |mut session| {
        session.head();
        session.reset();
    });
}

#[test]
fn a_reset_after_half_the_body_is_unknown() {
    unknown_row("bank_disconnected", 502, |mut session| {
        session.head();
        session.bytes(BODY.len() / 2);
        session.reset();
    });
}

#[test]
fn a_reset_after_the_whole_request_is_unknown() {
    unknown_row("bank_disconnected", 502, |mut session| {
        session.request();
        session.reset();
    });
}

#[test]
fn a_polite_close_after_the_whole_request_is_unknown() {
    unknown_row("bank_disconnected", 502, |mut session| {
        session.request();
        session.close();
    });
}

#[test]
fn half_a_head_is_no_answer() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nContent-Le");
        session.close();
    });
}

#[test]
fn half_a_body_is_no_answer() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"session");
        session.close();
    });
}

#[test]
fn a_body_that_ends_with_the_connection_needs_a_tls_end_to_be_whole() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"half\":");
        // A FIN without close_notify: anybody on the way could have sent it.
        let _ = session.socket().shutdown(std::net::Shutdown::Write);
        let _ = session.socket().flush();
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_millis(500));
    });
}

#[test]
fn more_than_the_limit_is_no_answer() {
    for chunked in [false, true] {
        let world = World::new();
        let bank = world.bank(Speaks::Tls13, move |mut session| {
            session.request();
            if chunked {
                session.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n");
                session.write(&[b' '; 0x10000]);
                session.write(b"\r\n0\r\n\r\n");
            } else {
                session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n");
                session.write(&[b' '; 0x10000]);
            }
        });
        let gate = world
            .setup(bank.port())
            .with(World::SHORT)
            .with("limits: {response_body: 32KiB}")
            .start();
        assert_problem(&gate, &create(&gate), 502, "bank_reply_invalid", "unknown");
        assert_eq!(bank.requests().len(), 1);
    }
}

#[test]
fn bytes_behind_an_answer_never_become_the_next_answer() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        while session.request().is_some() {
            session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
        }
    });
    let gate = world.gate(bank.port());
    for _ in 0..3 {
        let answer = create(&gate);
        assert_eq!((answer.status, &*answer.body), (200, &b"{}"[..]));
    }
    assert_eq!(bank.requests().len(), 3);
}

#[test]
fn garbage_is_no_answer() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n");
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(1));
    });
}

#[test]
fn a_head_above_the_limit_is_no_answer() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nX-Long: ");
        session.write(&[b'a'; 64 << 10]);
        session.write(b"\r\n\r\n");
        let (_hold, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_secs(1));
    });
}

#[test]
fn a_redirect_is_neither_followed_nor_passed_on() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        );
        session.serve();
    });
}

#[test]
fn a_101_is_no_answer() {
    unknown_row("bank_reply_invalid", 502, |mut session| {
        session.request();
        session.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        );
        session.serve();
    });
}

#[test]
fn a_bank_that_never_answers_is_a_time_out() {
    unknown_row("bank_timeout", 504, |mut session| {
        session.request();
        session.serve();
    });
}

#[test]
fn an_answer_that_trickles_past_the_deadline_is_a_time_out() {
    unknown_row("bank_timeout", 504, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        for _ in 0..40 {
            session.write(b" ");
            let (_hold, wait) = mpsc::channel::<()>();
            let _ = wait.recv_timeout(Duration::from_millis(50));
        }
    });
}

#[test]
fn interim_answers_are_skipped_and_never_passed_on() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        session.answer("200 OK", "{}");
    });
    let gate = world.gate(bank.port());
    let answer = create(&gate);
    assert_eq!((answer.status, answer.outcome()), (200, "answered"));
    assert_eq!(bank.requests().len(), 1);
    gate.expect_records(1);
}

#[test]
fn the_banks_own_errors_are_passed_on_as_they_are() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        while session.request().is_some() {
            session.answer("500 Oops", r#"{"error":"internal"}"#);
        }
    });
    let gate = world.gate(bank.port());
    let answer = create(&gate);
    assert_eq!((answer.status, answer.outcome()), (500, "answered"));
    assert_eq!(answer.body, br#"{"error":"internal"}"#);
}
