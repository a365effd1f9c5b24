//! The marks of each kind of key, and the search in a child's memory that is known to hold them.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

fn key(algorithm: &'static SignatureAlgorithm) -> PrivateKeyDer<'static> {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    PrivatePkcs8KeyDer::from(pair.serialize_der()).into()
}

fn names(marks: &Marks) -> Vec<&'static str> {
    let mut names: Vec<_> = marks.0.iter().map(|mark| mark.name).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn every_kind_of_key_has_its_marks() {
    let ed = Marks::of(&key(&PKCS_ED25519));
    assert_eq!(names(&ed), ["der", "seed", "seed reversed"]);
    let ec = Marks::of(&key(&PKCS_ECDSA_P256_SHA256));
    assert_eq!(names(&ec), ["d", "d reversed", "der"]);
    let rsa = Marks::of(&key(&PKCS_RSA_SHA256));
    let expected = [
        "d",
        "d reversed",
        "der",
        "p",
        "p reversed",
        "pem",
        "q",
        "q reversed",
    ];
    assert_eq!(names(&rsa), expected);
}

#[test]
fn a_mark_is_found_once_where_it_is_and_also_across_two_chunks() {
    let marks = Marks(vec![Mark {
        name: "d",
        bytes: Zeroizing::new(b"secret".to_vec()),
    }]);
    let count = |bytes: &[u8], kept| {
        let mut counts = [0];
        marks.count(bytes, kept, &mut counts);
        counts[0]
    };
    assert_eq!(count(b"a secret, and a secret", 0), 2);
    assert_eq!(count(b"secre", 0), 0);
    // The first five bytes were seen before, and end no mark.
    assert_eq!(count(b"secret", 5), 1);
    assert_eq!(count(b"secret", 6), 0);
}

#[test]
fn a_process_that_holds_the_key_is_found_out_and_another_is_not() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let marks = Marks::of(&key);
    // This process holds it; its own memory is open to itself whoever runs the tests.
    let found = marks.search(std::process::id()).unwrap();
    assert!(found.iter().all(|it| it.count > 0), "{found:?}");
    let mut other = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let found = marks.search(other.id());
    other.kill().unwrap();
    other.wait().unwrap();
    // Not root: a child of ours may be looked into, unless the machine forbids it.
    if let Ok(found) = found {
        assert!(found.iter().all(|it| it.count == 0), "{found:?}");
    }
}

#[test]
fn only_memory_is_read() {
    let line = |text| readable(text).is_some();
    assert!(line("7f00-7f10 rw-p 00000000 00:00 0 [heap]"));
    assert!(line("7f00-7f10 r--p 00000000 00:00 0"));
    assert!(!line("7f00-7f10 ---p 00000000 00:00 0"));
    assert!(!line("7f00-7f10 r--p 00000000 00:00 0 [vvar]"));
    assert!(!line("7f00-7f10 rw-s 00000000 00:05 0 /dev/mem"));
    assert!(!line("nonsense"));
}
