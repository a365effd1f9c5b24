//! The signer is no oracle: whoever has the gate's socket gets TLS client handshakes signed, and nothing else.

use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use priorgate::policy::chain::{Tip, Vouched, checkpoint_message};
use priorgate::policy::keyproto::{Answer, KeyId, PACKET_MAX, Refused, Request};
use priorgate::policy::operation::Digest;
use priorgate::policy::signing::{Refusal, SCHEMES};

use crate::support::gate::Setup;
use crate::support::keyholder::{Caller, Keyholder, listener};
use crate::support::pki::Ca;
use crate::support::{eventually, is_root, until};

const P256: u16 = 0x0403;

fn certificate_verify() -> Vec<u8> {
    let mut message = vec![0x20; 64];
    message.extend_from_slice(b"TLS 1.3, client CertificateVerify\0");
    message.extend_from_slice(digest(&SHA256, b"a transcript").as_ref());
    message
}

fn transcript() -> Vec<u8> {
    let message = |kind: u8| [&[kind, 0, 0, 6, 3, 3][..], &[9; 4]].concat();
    [1, 2, 11, 12, 13, 14, 11, 16]
        .into_iter()
        .flat_map(message)
        .collect()
}

fn setup(bank: &str) -> Setup {
    let setup = Setup::new(1).with(bank);
    Ca::new("client ca")
        .client("shop")
        .write(setup.path(), "client");
    setup.write();
    setup
}

fn start(bank: &str) -> (Setup, Keyholder, Caller, KeyId) {
    let setup = setup(bank);
    let (keyholder, mut caller) = Keyholder::connected(&setup.config());
    let (_, keys) = caller.keys();
    let key = keys[0].key;
    (setup, keyholder, caller, key)
}

fn refused(answer: &Answer, why: Refusal) -> bool {
    *answer == Answer::Refused(Refused::Judged(why))
}

#[test]
fn the_two_shapes_are_signed_and_each_has_its_line() {
    let (_setup, keyholder, mut caller, key) = start("tls: {min_version: \"1.2\"}");
    for message in [certificate_verify(), transcript()] {
        let answer = caller.sign(key, P256, &message);
        assert!(matches!(answer, Answer::Signed(_)), "{answer:?}");
    }
    until("both lines are there", || {
        keyholder.lines("signed").len() == 2
    });
    let lines = keyholder.lines("signed");
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["tls"].as_str(), line["signatures"].as_u64()))
        .collect();
    assert_eq!(told, [(Some("1.3"), Some(1)), (Some("1.2"), Some(2))]);
    assert!(
        lines
            .iter()
            .all(|line| line["bank"] == "bank" && line["gate_pid"] == std::process::id())
    );
}

#[test]
fn nothing_that_a_thief_would_want_is_signed() {
    let (_setup, keyholder, mut caller, key) = start("tls: {min_version: \"1.2\"}");
    let good = certificate_verify();
    let with_context = |context: &[u8]| [&[0x20; 64][..], context, &good[98..]].concat();
    let csr_key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["shop".to_owned()]).unwrap();
    let csr = params.serialize_request(&csr_key).unwrap().der().to_vec();
    let tip = Tip {
        seq: 9,
        hash: Digest([1; 32]),
    };
    let wanted: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a server's CertificateVerify", with_context(b"TLS 1.3, server CertificateVerify\0")),
        ("a delegated credential", with_context(b"TLS, server delegated credentials\0\0")),
        ("an exported authenticator", with_context(b"Exported Authenticator\0")),
        ("one space less", good[1..].to_vec()),
        ("one space more", [&[0x20], &good[..]].concat()),
        ("a shorter hash", good[..good.len() - 1].to_vec()),
        ("a longer hash", [&good[..], &[0]].concat()),
        ("a hash of SHA-512", [&good[..98], &[7; 64]].concat()),
        ("a SHA-256 digest", digest(&SHA256, b"pay").as_ref().to_vec()),
        ("a digest in its DigestInfo", [&b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"[..], digest(&SHA256, b"pay").as_ref()].concat()),
        ("a CSR", csr),
        ("a JWT", b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzaG9wIn0".to_vec()),
        ("a payment order", br#"{"amount": "100.00", "to": "me"}"#.to_vec()),
        ("an HTTP signature base", b"\"@method\": POST\n\"@path\": /installment/refund".to_vec()),
        ("a checkpoint of the audit log", checkpoint_message(&Vouched { tip, at: 2, signatures: 3, before: tip })),
        ("a transcript and more", [&transcript()[..], &[20, 0, 0, 0]].concat()),
        ("a transcript cut short", transcript()[..70].to_vec()),
        ("a server's transcript", transcript()[..60].to_vec()),
    ];
    for (what, message) in &wanted {
        for scheme in SCHEMES {
            let answer = caller.sign(key, scheme, message);
            assert!(refused(&answer, Refusal::Message), "{what}: {answer:?}");
        }
    }
    assert!(keyholder.lines("signed").is_empty());
    // Checkpoints are built by the signer, and it has no audit key here.
    let head = [0; 32];
    let checkpoint = caller.ask(&Request::Checkpoint { sequence: 1, head });
    assert_eq!(checkpoint, Answer::Refused(Refused::NoAuditKey));
}

#[test]
fn one_hundred_thousand_mutated_messages_are_refused() {
    let (_setup, keyholder, mut caller, key) = start("tls: {min_version: \"1.2\"}");
    let (new, old) = (certificate_verify(), transcript());
    // xorshift: a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..100_000 {
        let mut message = if round % 2 == 0 {
            new.clone()
        } else {
            old.clone()
        };
        // Where the signer may not care: the hash, and the bodies of the transcript's messages.
        let structural = |at: usize| match round % 2 {
            0 => at < 98,
            _ => at % 10 < 4 || (at < 20 && at % 10 < 6),
        };
        match random(4) {
            0 => {
                let at = loop {
                    let at = random(message.len());
                    if structural(at) {
                        break at;
                    }
                };
                message[at] ^= u8::try_from(1 + random(255)).unwrap();
            }
            1 => message.truncate(random(message.len())),
            2 => message.insert(
                random(if round % 2 == 0 { 65 } else { 1 }),
                u8::try_from(random(255)).unwrap(),
            ),
            _ => message.extend((0..1 + random(15)).map(|byte| u8::try_from(byte).unwrap())),
        }
        let answer = caller.sign(key, P256, &message);
        assert!(
            refused(&answer, Refusal::Message),
            "round {round}: {answer:?} {message:?}"
        );
    }
    assert!(keyholder.lines("signed").is_empty());
    assert!(matches!(caller.sign(key, P256, &new), Answer::Signed(_)));
}

#[test]
fn other_schemes_are_refused_and_a_key_has_only_its_own() {
    let (_setup, keyholder, mut caller, key) = start("tls: {min_version: \"1.2\"}");
    let message = certificate_verify();
    for scheme in [
        0x0201, 0x0203, 0x0202, 0x0401, 0x0501, 0x0601, 0x0809, 0x0303, 0, 0xffff,
    ] {
        let answer = caller.sign(key, scheme, &message);
        assert!(
            refused(&answer, Refusal::Scheme),
            "{scheme:#06x}: {answer:?}"
        );
    }
    // Allowed ones, but of another kind of key.
    for scheme in SCHEMES
        .into_iter()
        .filter(|scheme| !matches!(*scheme, P256 | 0x0401 | 0x0501 | 0x0601))
    {
        let answer = caller.sign(key, scheme, &message);
        assert!(
            refused(&answer, Refusal::Scheme),
            "{scheme:#06x}: {answer:?}"
        );
    }
    assert_eq!(
        caller.sign(KeyId([0; 32]), P256, &message),
        Answer::KeyChanged
    );
    assert!(keyholder.lines("signed").is_empty());
}

#[test]
fn a_tls_1_2_handshake_needs_a_bank_that_allows_it() {
    let (_setup, _keyholder, mut caller, key) = start("tls: {min_version: \"1.3\"}");
    let answer = caller.sign(key, P256, &transcript());
    assert!(refused(&answer, Refusal::Version), "{answer:?}");
    assert!(matches!(
        caller.sign(key, P256, &certificate_verify()),
        Answer::Signed(_)
    ));
}

#[test]
fn more_than_the_rate_is_told_to_wait_at_once() {
    let setup = Setup::new(1);
    let lines = format!(
        "url: https://localhost:1\n    trust: {{ca_file: bank-ca.pem}}\n    identity: {{cert_file: client.crt, key_file: client.key, sign_rate: {}}}",
        "{burst: 3, per_second: 1}"
    );
    let setup = setup.bank(&lines);
    Ca::new("client ca")
        .client("shop")
        .write(setup.path(), "client");
    setup.write();
    let (_keyholder, mut caller) = Keyholder::connected(&setup.config());
    let key = caller.keys().1[0].key;
    let message = certificate_verify();
    for _ in 0..3 {
        assert!(matches!(
            caller.sign(key, P256, &message),
            Answer::Signed(_)
        ));
    }
    let started = Instant::now();
    let Answer::Wait(millis) = caller.sign(key, P256, &message) else {
        panic!("it signed more than it may");
    };
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "it waited itself"
    );
    assert!((1..=1001).contains(&millis), "{millis}");
    until("it signs again after that", || {
        matches!(caller.sign(key, P256, &message), Answer::Signed(_))
    });
    assert!(started.elapsed() >= Duration::from_millis(u64::from(millis) - 50));
}

#[test]
fn a_late_answer_carries_its_own_id_and_no_other() {
    let (_setup, _keyholder, caller, key) = start("tls: {min_version: \"1.3\"}");
    let message = certificate_verify();
    let sign = |message| Request::Sign {
        key,
        scheme: P256,
        message,
    };
    // Asked in one go, as by somebody who does not wait: good ones and bad ones in turn.
    for id in 1000..1040_u64 {
        let bad = b"bad";
        let request = if id % 2 == 0 {
            sign(&message)
        } else {
            sign(bad)
        };
        caller.send(&request.encode(id));
    }
    for expected in 1000..1040_u64 {
        let (id, answer) = caller.hear().unwrap();
        assert_eq!(id, expected);
        assert_eq!(
            matches!(answer, Answer::Signed(_)),
            id % 2 == 0,
            "{answer:?}"
        );
    }
}

#[test]
fn a_packet_that_is_none_ends_the_connection_and_the_next_one_is_served() {
    let setup = setup("tls: {min_version: \"1.3\"}");
    let path = setup.path().join("sign.sock");
    let socket = listener(&path);
    let keyholder = Keyholder::listening(&setup.config(), &socket);
    let mut neighbour = Caller::at(&path);
    let key = neighbour.keys().1[0].key;
    let too_long = Request::Sign {
        key,
        scheme: P256,
        message: &vec![0; PACKET_MAX],
    }
    .encode(1);
    let good = Request::Keys.encode(1);
    for bad in [
        &b"x"[..],
        &[2; 40],
        &good[..9],
        &[&good[..], &[0]].concat(),
        &too_long,
    ] {
        let caller = Caller::at(&path);
        caller.send(bad);
        assert_eq!(caller.hear(), None);
    }
    assert!(matches!(
        neighbour.sign(key, P256, &certificate_verify()),
        Answer::Signed(_)
    ));
    // The fifth at a time waits in the queue until one of four has gone.
    let mut four: Vec<Caller> = (0..4).map(|_| Caller::at(&path)).collect();
    for caller in &mut four[..3] {
        caller.keys();
    }
    four[3].send(&good);
    drop(neighbour);
    assert!(matches!(four[3].hear(), Some((1, Answer::Keys { .. }))));
    until("each has its line", || {
        let message = "a packet is not of this version's protocol: the connection is closed";
        keyholder.lines(message).len() == 5
    });
}

#[test]
fn another_user_is_turned_away() {
    if !is_root() {
        // The kernel then forbids what this scenario would try: there is one user only.
        return;
    }
    let setup = setup("tls: {min_version: \"1.3\"}");
    let path = setup.path().join("sign.sock");
    let socket = listener(&path);
    // The service manager has made it for somebody else.
    chown(&path, Some(12_345), None).unwrap();
    let keyholder = Keyholder::listening(&setup.config(), &socket);
    let caller = Caller::at(&path);
    caller.send(&Request::Keys.encode(1));
    assert_eq!(caller.hear(), None);
    let line = eventually("it says so", || {
        keyholder
            .lines("a connection of another user was closed")
            .pop()
    });
    assert_eq!(
        (line["uid"].as_u64(), line["allowed"].as_u64()),
        (Some(0), Some(12_345))
    );
    // Hidden by a user namespace: nobody can be told from anybody.
    chown(&path, Some(65_534), None).unwrap();
    let mut blind = Keyholder::listening(&setup.config(), &socket);
    assert_eq!(blind.wait().code(), Some(1));
    until("it says why", || blind.log().contains("PrivateUsers=no"));
}
