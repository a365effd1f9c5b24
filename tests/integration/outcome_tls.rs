//! The rows of the outcome table that hang on TLS itself: when an alert about our certificate
//! proves that nothing was sent and when it proves nothing, and the same bank spoken to over TLS
//! 1.2.

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustls::{AlertDescription, ServerConnection};

use crate::support::PATIENCE;
use crate::support::bank::{self, Bank, Demand, Session, Speaks};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::pki::Ca;
use crate::support::world::World;

const BODY: &[u8] = br#"{"order_ref":"1","amount":"1.00"}"#;

fn create(gate: &Gate) -> Answer {
    gate.unix().post("/installment/create", "", BODY)
}

/// What PHP was answered, and that the last of `count` records says the same.
fn assert_told(gate: &Gate, answer: &Answer, count: usize, code: &str, outcome: &str) {
    assert_eq!(
        (&*answer.code(), answer.outcome()),
        (code, outcome),
        "{} {}",
        answer.json(),
        gate.log()
    );
    let record = gate.expect_records(count).remove(count - 1);
    assert_eq!(
        (&record["code"], &record["outcome"]),
        (&code.into(), &outcome.into())
    );
}

fn gate_over(world: &World, bank: &Bank, speaks: Speaks) -> Gate {
    let setup = world.setup(bank.port()).with(World::SHORT);
    match speaks {
        Speaks::Tls12 => setup.with("tls: {min_version: \"1.2\"}").start(),
        Speaks::Tls13 | Speaks::Tls13WithoutTickets => setup.start(),
    }
}

/// Keeps the socket open until the gate has left, so that the alert and nothing else ends the
/// connection.
fn hold(mut socket: TcpStream) {
    let _ = socket.read_to_end(&mut Vec::new());
}

#[test]
fn an_alert_about_the_certificate_before_anything_was_read_is_not_sent() {
    let world = World::new();
    for alert in [
        AlertDescription::BadCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRequired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::UnsupportedCertificate,
    ] {
        let bank = world.bank(Speaks::Tls13WithoutTickets, move |session| {
            hold(session.alert(alert));
        });
        let gate = gate_over(&world, &bank, Speaks::Tls13);
        assert_told(&gate, &create(&gate), 1, "identity_refused", "not_sent");
        assert_eq!((bank.requests().len(), bank.connections()), (0, 1));
    }
}

#[test]
fn an_alert_about_anything_else_proves_nothing() {
    let world = World::new();
    // `access_denied` comes after a certificate that was valid (RFC 8446 section 6.2), and here after the request.
    for alert in [
        AlertDescription::AccessDenied,
        AlertDescription::InternalError,
    ] {
        let bank = world.bank(Speaks::Tls13WithoutTickets, move |mut session| {
            session.request();
            hold(session.alert(alert));
        });
        let gate = gate_over(&world, &bank, Speaks::Tls13);
        assert_told(&gate, &create(&gate), 1, "bank_disconnected", "unknown");
        assert_eq!((bank.requests().len(), bank.connections()), (1, 1));
    }
}

#[test]
fn an_alert_about_the_certificate_after_a_ticket_is_unknown() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        session.request();
        hold(session.alert(AlertDescription::CertificateRevoked));
    });
    let gate = gate_over(&world, &bank, Speaks::Tls13);
    assert_told(&gate, &create(&gate), 1, "bank_disconnected", "unknown");
    assert_eq!((bank.requests().len(), bank.connections()), (1, 1));
}

#[test]
fn an_alert_about_the_certificate_after_an_answer_is_unknown() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13WithoutTickets, |mut session| {
        session.request();
        session.answer("200 OK", "{}");
        session.request();
        hold(session.alert(AlertDescription::CertificateRevoked));
    });
    let gate = gate_over(&world, &bank, Speaks::Tls13);
    assert_eq!(create(&gate).status, 200);
    assert_told(&gate, &create(&gate), 2, "bank_disconnected", "unknown");
    assert_eq!((bank.requests().len(), bank.connections()), (2, 1));
}

#[test]
fn an_alert_about_the_certificate_inside_an_answer_is_unknown() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13WithoutTickets, |mut session| {
        session.request();
        session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"half\":");
        hold(session.alert(AlertDescription::CertificateRevoked));
    });
    let gate = gate_over(&world, &bank, Speaks::Tls13);
    assert_told(&gate, &create(&gate), 1, "bank_reply_invalid", "unknown");
    assert_eq!(bank.requests().len(), 1);
}

#[test]
fn on_tls_1_2_an_alert_about_the_certificate_after_the_handshake_is_unknown() {
    let world = World::new();
    for read in [true, false] {
        let bank = world.bank(Speaks::Tls12, move |mut session| {
            if read {
                session.request();
            }
            hold(session.alert(AlertDescription::CertificateRevoked));
        });
        let gate = gate_over(&world, &bank, Speaks::Tls12);
        let answer = create(&gate);
        // Unread, the alert may come before the first byte was written: then, and only then,
        // nothing was sent. It may even come in one piece with the end of the handshake.
        if read || answer.outcome() == "unknown" {
            assert_told(&gate, &answer, 1, "bank_disconnected", "unknown");
        } else if answer.code() == "identity_refused" {
            assert_told(&gate, &answer, 1, "identity_refused", "not_sent");
        } else {
            assert_told(&gate, &answer, 1, "bank_unreachable", "not_sent");
        }
        assert_eq!(bank.requests().len(), usize::from(read));
    }
}

#[test]
fn a_refused_certificate_is_told_although_the_rest_of_a_large_request_meets_a_reset() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    let other = Ca::new("another client ca");
    let bank = Bank::start(&server, &Demand::Of(&other), Speaks::Tls13, Session::serve);
    let gate = gate_over(&world, &bank, Speaks::Tls13);
    for count in 1..=20 {
        let body = vec![b' '; 250 << 10];
        let answer = gate.unix().post("/installment/create", "", &body);
        assert_told(&gate, &answer, count, "identity_refused", "not_sent");
    }
    assert_eq!((bank.requests().len(), bank.connections()), (0, 20));
}

#[test]
fn a_reset_instead_of_an_alert_proves_nothing() {
    let world = World::new();
    let server = world.bank_ca.server("bank.test");
    let demand = Demand::Of(&world.client_ca);
    let config = Arc::new(bank::config(&server, &demand, Speaks::Tls13));
    let bank = Bank::raw(move |mut socket, _, _| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        // The client's hello is read and all of the server's flight is written; what comes then is
        // never looked at.
        while !tls.wants_write() {
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket).unwrap();
        }
        let _ = socket.read(&mut [0; 4096]);
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let gate = gate_over(&world, &bank, Speaks::Tls13);
    let answer = create(&gate);
    // The reset may also come before the gate's first byte of HTTP: then nothing was sent,
    // provably.
    match answer.outcome() {
        "not_sent" => assert_told(&gate, &answer, 1, "bank_unreachable", "not_sent"),
        _ => assert_told(&gate, &answer, 1, "bank_disconnected", "unknown"),
    }
}

#[test]
fn over_tls_1_2_a_server_that_is_not_the_bank_is_told_apart_as_well() {
    let world = World::new();
    for (server, word) in [
        (world.bank_ca.server("other.test"), "name"),
        (world.bank_ca.expired_server("bank.test"), "expired"),
        (Ca::new("somebody").server("bank.test"), "issuer"),
    ] {
        let demand = Demand::Of(&world.client_ca);
        let bank = Bank::start(&server, &demand, Speaks::Tls12, Session::serve);
        let gate = gate_over(&world, &bank, Speaks::Tls12);
        let answer = create(&gate);
        assert_told(&gate, &answer, 1, "bank_untrusted", "not_sent");
        let json = answer.json();
        let detail = json["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{word}: {detail}");
        assert_eq!(bank.requests().len(), 0);
    }
}

#[test]
fn over_tls_1_2_a_bank_that_leaves_with_the_request_is_unknown_as_well() {
    type Row = (&'static str, fn(Session));
    let rows: [Row; 7] = [
        ("bank_disconnected", |mut session| {
            session.head();
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.head();
            session.bytes(BODY.len() / 2);
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.request();
            session.reset();
        }),
        ("bank_disconnected", |mut session| {
            session.request();
            session.close();
        }),
        ("bank_reply_invalid", |mut session| {
            session.request();
            session.write(b"HTTP/1.1 200 OK\r\nContent-Le");
            session.close();
        }),
        ("bank_reply_invalid", |mut session| {
            session.request();
            session.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"session");
            session.close();
        }),
        ("bank_timeout", |mut session| {
            session.request();
            session.serve();
        }),
    ];
    for (code, handle) in rows {
        let world = World::new();
        let bank = world.bank(Speaks::Tls12, handle);
        let gate = gate_over(&world, &bank, Speaks::Tls12);
        assert_told(&gate, &create(&gate), 1, code, "unknown");
        assert_eq!((bank.requests().len(), bank.connections()), (1, 1));
    }
}

#[test]
fn over_tls_1_2_an_idle_connection_that_the_bank_closed_costs_nothing_but_a_new_one() {
    let world = World::new();
    let (closed, is_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let bank = world.bank(Speaks::Tls12, move |mut session| {
        if session.index > 0 {
            return session.serve();
        }
        session.request();
        session.answer("200 OK", "{}");
        session.close();
        closed.lock().unwrap().send(()).unwrap();
    });
    let gate = gate_over(&world, &bank, Speaks::Tls12);
    assert_eq!(create(&gate).status, 200);
    is_closed.recv().unwrap();
    assert_eq!(create(&gate).status, 200);
    assert_eq!((bank.requests().len(), bank.connections()), (2, 2));
    gate.expect_records(2);
}
