//! The signer's answers without a process around it: the checkpoint, the line, the count.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use super::line::Lines;
use super::load::{self, Audit};
use super::signer::Signer;
use super::*;
use crate::config::Config;
use crate::policy::chain::{Tip, Vouched, checkpoint_message};
use crate::policy::keyproto::{Answer, KeyId, Refused, Request};
use crate::policy::operation::Digest;
use crate::policy::signing::self_test_message;

const ED25519: u16 = 0x0807;

fn write_key(dir: &Path, name: &str) -> KeyPair {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    std::fs::write(dir.join(name), key.serialize_pem()).unwrap();
    key
}

fn config(dir: &Path) -> Config {
    let key = write_key(dir, "k");
    let cert = CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(dir.join("c"), cert.pem()).unwrap();
    let path = dir.join("config.yaml");
    let text = "banks: [{name: b, url: \"https://bank.test\", trust: {ca_file: ca}, identity: {cert_file: c, key_file: k}, \
                listen: [{unix: s, callers: [root]}], routes: [{name: r, method: GET, path: /}]}]";
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

fn audit(dir: &Path) -> AuditKey {
    AuditKey {
        key: KeySource::File(dir.join("audit.key")),
        state_file: dir.join("audit.state"),
    }
}

fn signer(dir: &Path, config: &Config, log: File) -> Signer {
    let audit = Audit::open(&audit(dir)).unwrap();
    let mut signer = Signer::new(load::keys(config).unwrap(), Some(audit), Lines::to(log));
    signer.take_over();
    signer
}

fn key_of(signer: &mut Signer) -> KeyId {
    match signer.answer(Request::Keys, 1) {
        Answer::Keys { keys, .. } => keys[0].key,
        other => panic!("{other:?}"),
    }
}

fn checkpoint(signer: &mut Signer, sequence: u64) -> Answer {
    let head = [9; 32];
    signer.answer(Request::Checkpoint { sequence, head }, 1)
}

fn log(dir: &Path) -> File {
    let mut options = File::options();
    options.append(true).create(true);
    options.open(dir.join("log")).unwrap()
}

fn signed(answer: Answer, tip: Tip) -> (Vouched, [u8; 64]) {
    let Answer::Checkpoint {
        at,
        signatures,
        before,
        before_head,
        signature,
    } = answer
    else {
        panic!("not signed: {answer:?}");
    };
    let before = Tip {
        seq: before,
        hash: Digest(before_head),
    };
    let vouched = Vouched {
        tip,
        at,
        signatures,
        before,
    };
    (vouched, signature)
}

#[test]
fn a_checkpoint_is_signed_once_and_by_no_later_signer_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let key = write_key(dir.path(), "audit.key");
    let mut first = signer(dir.path(), &config, log(dir.path()));
    let id = key_of(&mut first);
    let message = self_test_message();
    let request = Request::Sign {
        key: id,
        scheme: ED25519,
        message: &message,
    };
    assert!(matches!(first.answer(request, 1), Answer::Signed(_)));
    let tip = |seq| Tip {
        seq,
        hash: Digest([9; 32]),
    };
    let (vouched, signature) = signed(checkpoint(&mut first, 5), tip(5));
    assert_eq!((vouched.signatures, vouched.before), (1, Tip::GENESIS));
    let public: [u8; 32] = key.public_key_raw().try_into().unwrap();
    let public = ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap();
    let message = checkpoint_message(&vouched);
    let signature = ed25519_dalek::Signature::from_bytes(&signature);
    public.verify_strict(&message, &signature).unwrap();
    let mut second = signer(dir.path(), &config, log(dir.path()));
    for signer in [&mut first, &mut second] {
        for sequence in [0, 4] {
            assert_eq!(
                checkpoint(signer, sequence),
                Answer::Refused(Refused::NotLater)
            );
        }
        // An answer that was lost is no log that was cut back.
        assert_eq!(checkpoint(signer, 5), Answer::Refused(Refused::Again));
        assert!(!Refused::Again.to_string().contains("signed before"));
        let other = Request::Checkpoint {
            sequence: 5,
            head: [8; 32],
        };
        assert_eq!(signer.answer(other, 1), Answer::Refused(Refused::NotLater));
    }
    // And the next one says what the one before was.
    let (vouched, _) = signed(checkpoint(&mut second, 6), tip(6));
    assert_eq!((vouched.signatures, vouched.before), (1, tip(5)));
}

#[test]
fn a_jump_to_where_no_log_can_be_is_refused_and_the_next_checkpoint_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    write_key(dir.path(), "audit.key");
    let mut signer = signer(dir.path(), &config, log(dir.path()));
    let too_far = Answer::Refused(Refused::TooFar);
    assert_eq!(checkpoint(&mut signer, u64::MAX), too_far);
    assert!(matches!(
        checkpoint(&mut signer, 70),
        Answer::Checkpoint { .. }
    ));
    for sequence in [u64::MAX, 10_000_000] {
        assert_eq!(checkpoint(&mut signer, sequence), too_far);
    }
    // What the journal owes at most, at once.
    assert!(matches!(
        checkpoint(&mut signer, 70_000),
        Answer::Checkpoint { .. }
    ));
    let lines = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(
        lines.matches("no log can have grown so far").count(),
        3,
        "{lines}"
    );
}

#[test]
fn checkpoints_have_their_pace_and_each_its_line_before_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    write_key(dir.path(), "audit.key");
    let mut first = signer(dir.path(), &config, log(dir.path()));
    let answers: Vec<_> = (1..=40).map(|seq| checkpoint(&mut first, seq)).collect();
    let given = |answer: &&Answer| matches!(answer, Answer::Checkpoint { .. });
    let count = answers.iter().filter(given).count();
    // More than ten only if this took half a second.
    assert!((10..30).contains(&count), "{count}");
    assert!(
        matches!(answers[39], Answer::Wait(1..=501)),
        "{:?}",
        answers[39]
    );
    let lines = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(lines.matches("\"message\":\"checkpoint\"").count(), count);
    let head = "09".repeat(32);
    assert!(
        lines.contains("\"seq\":1,") && lines.contains(&head),
        "{lines}"
    );
    // Nobody reads the line: nothing is signed, and the next signer does not believe that it was.
    let (_reader, writer) = io::pipe().unwrap();
    let writer = std::os::fd::OwnedFd::from(writer);
    let full = File::from(writer);
    let mut second = signer(dir.path(), &config, full.try_clone().unwrap());
    rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&full, &[b'x'; 512]).is_ok() {}
    assert_eq!(checkpoint(&mut second, 50), Answer::Refused(Refused::Log));
    let mut third = signer(dir.path(), &config, log(dir.path()));
    assert!(matches!(
        checkpoint(&mut third, 50),
        Answer::Checkpoint { .. }
    ));
}

#[test]
fn a_log_has_its_state_by_its_name_whatever_its_directory_and_its_key() {
    let state = |file: &str, key: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.audit = Some(crate::config::Audit {
            file: file.into(),
            key: Some(crate::config::AuditKey {
                source: KeySource::File(key.into()),
                public_file: "audit.pub".into(),
            }),
            rotate: 1,
            keep: std::time::Duration::ZERO,
        });
        audit_key(&config).unwrap().state_file
    };
    let first = state("/var/lib/a/audit.jsonl", "/etc/keys/audit.key");
    assert_eq!(first, Path::new("/etc/keys/audit.jsonl.checkpoint"));
    assert_eq!(state("/mnt/audit.jsonl", "/etc/keys/second.key"), first);
    assert_ne!(
        state("/var/lib/a/audit-2.jsonl", "/etc/keys/audit.key"),
        first
    );
}

#[test]
fn a_damaged_state_signs_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    write_key(dir.path(), "audit.key");
    let (zeros, head) = ("0".repeat(20), "0".repeat(64));
    for state in [
        "5".to_owned(),
        " \n".to_owned(),
        format!("{zeros} {zeros} {}x {head}\n", &zeros[1..]),
        format!("{zeros} {zeros} +{} {head}\n", &zeros[1..]),
        format!("{zeros} {zeros} {zeros} {head}"),
        // Of a version before.
        format!("{zeros} {zeros}\n"),
    ] {
        std::fs::write(dir.path().join("audit.state"), &state).unwrap();
        let mut signer = signer(
            dir.path(),
            &config,
            File::create(dir.path().join("log")).unwrap(),
        );
        assert_eq!(
            checkpoint(&mut signer, 9),
            Answer::Refused(Refused::State),
            "{state:?}"
        );
    }
}

#[test]
fn an_audit_key_of_another_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = audit(dir.path());
    let pem = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(dir.path().join("audit.key"), pem).unwrap();
    let told = Audit::open(&wanted).unwrap_err().to_string();
    assert!(told.contains("must be Ed25519"), "{told}");
}

#[test]
fn a_signature_whose_line_cannot_be_written_is_not_given_and_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    write_key(dir.path(), "audit.key");
    let (mut reader, writer) = io::pipe().unwrap();
    let mut signer = signer(
        dir.path(),
        &config,
        File::from(std::os::fd::OwnedFd::from(writer)),
    );
    let key = key_of(&mut signer);
    let message = self_test_message();
    let request = Request::Sign {
        key,
        scheme: ED25519,
        message: &message,
    };
    let mut signed = 0;
    // The reader has stalled: a pipe of 64 KiB is full soon.
    let refused = loop {
        match signer.answer(request, 1) {
            Answer::Signed(_) => signed += 1,
            other => break other,
        }
    };
    assert_eq!(refused, Answer::Refused(Refused::Log));
    let mut lines = vec![0; 1 << 20];
    let read = reader.read(&mut lines).unwrap();
    let lines = String::from_utf8(lines[..read].to_vec()).unwrap();
    assert_eq!(lines.matches("\"signed\"").count(), signed);
    // It reads again.
    assert!(matches!(signer.answer(request, 1), Answer::Signed(_)));
    assert!(
        matches!(checkpoint(&mut signer, 1), Answer::Checkpoint { signatures, .. } if signatures == signed as u64 + 1)
    );
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    write_key(dir.path(), "k");
    let told = load::keys(&config).unwrap_err().to_string();
    assert!(
        told.contains("does not belong to the certificate"),
        "{told}"
    );
}

#[test]
fn a_word_is_heard_as_it_was_said() {
    let (one, other) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let words = [
        Word::Failed("a reason of several words".to_owned()),
        Word::Follow,
        Word::Go,
        Word::Kept(String::new()),
        Word::Ready,
        Word::Reload,
        Word::Reloaded,
    ];
    for word in words {
        word.say(&one).unwrap();
        assert_eq!(Word::hear(&other), Ok(Some(word)));
    }
    Word::Kept("я".repeat(5000)).say(&one).unwrap();
    assert!(matches!(Word::hear(&other), Ok(Some(Word::Kept(reason))) if !reason.is_empty()));
    drop(one);
    assert_eq!(Word::hear(&other), Ok(None));
}
