//! What is signed, and everything near it that is not.

use proptest::prelude::{any, proptest};

use super::*;
use crate::policy::chain::{Tip, Vouched, checkpoint_message};
use crate::policy::operation::Digest;

const ED25519: u16 = 0x0807;
const PKCS1: u16 = 0x0401;

fn tls13(hash: usize) -> Vec<u8> {
    let mut message = vec![0x20; 64];
    message.extend_from_slice(b"TLS 1.3, client CertificateVerify\0");
    message.extend(std::iter::repeat_n(0x5a, hash));
    message
}

fn transcript(kinds: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for kind in kinds {
        let body = [&TLS12[..], &[7; 40]].concat();
        message.push(*kind);
        message.extend_from_slice(&[0, 0, 42]);
        message.extend_from_slice(&body);
    }
    message
}

fn refused(message: &[u8]) -> bool {
    judge(message, ED25519, Lowest::Tls12) == Verdict::Refuse(Refusal::Message)
}

#[test]
fn both_shapes_are_signed_each_where_it_may() {
    for hash in [32, 48] {
        let message = tls13(hash);
        assert_eq!(message.len(), 98 + hash);
        for lowest in [Lowest::Tls12, Lowest::Tls13] {
            assert_eq!(
                judge(&message, ED25519, lowest),
                Verdict::Sign(Shape::Tls13)
            );
        }
    }
    let message = transcript(&TLS12_TRANSCRIPT);
    let verdict = |lowest| judge(&message, ED25519, lowest);
    assert_eq!(verdict(Lowest::Tls12), Verdict::Sign(Shape::Tls12));
    assert_eq!(verdict(Lowest::Tls13), Verdict::Refuse(Refusal::Version));
    let stapled = transcript(&[1, 2, 11, 22, 12, 13, 14, 11, 16]);
    assert_eq!(
        judge(&stapled, ED25519, Lowest::Tls12),
        Verdict::Sign(Shape::Tls12)
    );
    let own = judge(&self_test_message(), ED25519, Lowest::Tls13);
    assert_eq!(own, Verdict::Sign(Shape::Tls13));
}

#[test]
fn what_is_almost_a_certificate_verify_is_refused() {
    let server = [
        &[0x20; 64][..],
        b"TLS 1.3, server CertificateVerify\0",
        &[0; 32],
    ]
    .concat();
    assert!(refused(&server));
    for hash in [0, 20, 31, 33, 47, 49, 64] {
        assert!(refused(&tls13(hash)), "{hash}");
    }
    for spaces in [0, 63, 65] {
        let shifted = [&vec![0x20; spaces][..], &tls13(32)[64..]].concat();
        assert!(refused(&shifted), "{spaces}");
    }
    let mut no_zero = tls13(32);
    no_zero[97] = 1;
    assert!(refused(&no_zero));
}

#[test]
fn every_changed_bit_of_the_prefix_is_refused() {
    let good = tls13(32);
    for bit in 0..98 * 8 {
        let mut message = good.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&message), "bit {bit}");
    }
}

#[test]
fn a_transcript_is_whole_and_in_order_or_nothing() {
    let good = transcript(&TLS12_TRANSCRIPT);
    for end in 0..good.len() {
        assert!(refused(&good[..end]), "{end}");
    }
    assert!(refused(&[&good[..], &[0]].concat()));
    assert!(refused(&[&good[..], &transcript(&[15])].concat()));
    for left in 0..8 {
        for right in left + 1..8 {
            let mut kinds = TLS12_TRANSCRIPT;
            kinds.swap(left, right);
            if kinds != TLS12_TRANSCRIPT {
                assert!(refused(&transcript(&kinds)), "{kinds:?}");
            }
        }
    }
    for place in [0, 1, 2, 4, 5, 6, 7, 8] {
        let mut kinds = TLS12_TRANSCRIPT.to_vec();
        kinds.insert(place, CERTIFICATE_STATUS);
        assert!(refused(&transcript(&kinds)), "{kinds:?}");
    }
    // Another version in either hello.
    for at in [5, 46 + 5] {
        let mut other = good.clone();
        other[at] = 4;
        assert!(refused(&other));
    }
}

#[test]
fn only_the_listed_schemes_and_each_where_it_belongs() {
    let (new, old) = (tls13(32), transcript(&TLS12_TRANSCRIPT));
    for scheme in 0..=u16::MAX {
        let signs =
            |message: &[u8]| matches!(judge(message, scheme, Lowest::Tls12), Verdict::Sign(_));
        let listed = SCHEMES.contains(&scheme);
        assert_eq!(signs(&old), listed, "{scheme:#06x}");
        assert_eq!(
            signs(&new),
            listed && !ONLY_TLS12.contains(&scheme),
            "{scheme:#06x}"
        );
    }
    // SHA-1 in every form: rsa_pkcs1_sha1, ecdsa_sha1.
    assert!(!SCHEMES.contains(&0x0201) && !SCHEMES.contains(&0x0203));
    assert_eq!(
        judge(&new, PKCS1, Lowest::Tls12),
        Verdict::Refuse(Refusal::Scheme)
    );
}

#[test]
fn a_checkpoint_is_nothing_that_a_handshake_signs() {
    let tip = Tip {
        seq: 0x0102,
        hash: Digest([9; 32]),
    };
    let message = checkpoint_message(&Vouched {
        tip,
        at: 3,
        signatures: 4,
        before: tip,
    });
    assert!(message.starts_with(b"priorgate audit checkpoint v2\0"));
    assert!(refused(&message));
}

proptest! {
    #[test]
    fn nothing_else_is_signed(bytes in proptest::collection::vec(any::<u8>(), 0..400), scheme in any::<u16>()) {
        assert!(matches!(judge(&bytes, scheme, Lowest::Tls12), Verdict::Refuse(_)));
    }

    #[test]
    fn lengths_that_lie_are_refused(at in 0_usize..8, byte in 1_usize..4, value in any::<u8>()) {
        let mut message = transcript(&TLS12_TRANSCRIPT);
        let place = at * 46 + byte;
        if message[place] != value {
            message[place] = value;
            assert!(refused(&message));
        }
    }
}
