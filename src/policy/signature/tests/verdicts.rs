//! The verdict's reasons, the keys' windows, and that a body comes out only as it went in.

use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use http::header::HeaderName;
use proptest::prelude::*;

use super::super::{
    Encoding, Field, List, Reason, SetupError, Template, Timestamp, Unit, Verdict, Verifier,
};
use super::{Request, data, key, verifier};
use crate::policy::operation::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_795_532_645_000);

fn signature() -> String {
    Base64::encode_string(data("algorithms/rsa-pkcs1-sha256.sig"))
}

fn rsa() -> super::Key {
    key("rsa", "rsa-pkcs1-sha256", "algorithms/rsa2048.pub")
}

fn judge(verifier: &Verifier, headers: &[(&str, &str)]) -> Result<String, Reason> {
    let body = Bytes::from_static(data("algorithms/message"));
    match verifier.judge(&Request::new(headers).head(), body, NOW) {
        Verdict::Accepted(verified) => Ok(verified.key_id().to_owned()),
        Verdict::Rejected(reason) => Err(reason),
    }
}

#[test]
fn each_reason_has_its_case() {
    let verifier = verifier(vec![rsa()]);
    let good = signature();
    let wrong = Base64::encode_string(data("algorithms/rsa-pkcs1-sha512.sig"));
    let short = Base64::encode_string(&data("algorithms/rsa-pkcs1-sha256.sig")[1..]);
    assert_eq!(
        judge(&verifier, &[("X-SIGNATURE", &good)]),
        Ok("rsa".into())
    );
    for (headers, reason) in [
        (&[][..], Reason::Missing),
        (&[("x-signature", "")], Reason::Missing),
        (&[("x-signature2", &good)], Reason::Missing),
        (
            &[("x-signature", &good), ("x-signature", &good)],
            Reason::Doubled,
        ),
        (&[("x-signature", "***")], Reason::Malformed),
        (&[("x-signature", &format!("{good} "))], Reason::Malformed),
        (
            &[("x-signature", &format!("{good},{good}"))],
            Reason::Malformed,
        ),
        (&[("x-signature", &short)], Reason::WrongLength),
        (&[("x-signature", &wrong)], Reason::Mismatch),
    ] {
        assert_eq!(judge(&verifier, headers), Err(reason), "{headers:?}");
    }
}

#[test]
fn what_a_reason_means_for_the_answer_is_one_of_three() {
    let name = || HeaderName::from_static("x");
    let reasons = [
        Reason::Missing,
        Reason::Doubled,
        Reason::Malformed,
        Reason::WrongLength,
        Reason::HeaderMissing(name()),
        Reason::HeaderDoubled(name()),
        Reason::Stale,
        Reason::NoKeyInWindow,
        Reason::Mismatch,
    ];
    let page = include_str!("../../../../docs/signatures.md");
    for reason in reasons {
        assert_eq!(reason.is_mismatch(), reason == Reason::Mismatch);
        assert_eq!(reason.is_ours(), reason == Reason::NoKeyInWindow);
        assert!(
            page.contains(&format!("`{}`", reason.as_str())),
            "{reason:?}"
        );
    }
}

#[test]
fn every_key_inside_its_window_is_tried() {
    let good = signature();
    let headers = [("x-signature", good.as_str())];
    let mut old = rsa();
    let other = key("other", "rsa-pkcs1-sha256", "oplati.pub");
    let larger = key("larger", "rsa-pkcs1-sha256", "algorithms/rsa3072.pub");
    let keys = vec![larger, other.clone(), old.clone()];
    assert_eq!(judge(&verifier(keys), &headers), Ok("rsa".into()));
    for (not_before, not_after, inside) in [
        (None, Some(NOW), true),
        (Some(NOW), None, true),
        (Some(NOW), Some(NOW), true),
        (None, Some(UnixMillis(NOW.0 - 1)), false),
        (Some(UnixMillis(NOW.0 + 1)), None, false),
    ] {
        (old.not_before, old.not_after) = (not_before, not_after);
        let alone = judge(&verifier(vec![old.clone()]), &headers);
        let beside = judge(&verifier(vec![old.clone(), other.clone()]), &headers);
        if inside {
            assert_eq!((alone, beside), (Ok("rsa".into()), Ok("rsa".into())));
        } else {
            assert_eq!(
                (alone, beside),
                (Err(Reason::NoKeyInWindow), Err(Reason::Mismatch))
            );
        }
    }
}

#[test]
fn a_der_signature_must_be_one() {
    let verifier = verifier(vec![key("ec", "ecdsa-p256-sha256", "algorithms/p256.pub")]);
    let p1363 = Base64::encode_string(data("algorithms/ecdsa-p256-sha256-p1363.sig"));
    assert_eq!(
        judge(&verifier, &[("x-signature", &p1363)]),
        Err(Reason::Malformed)
    );
}

fn timed(timestamp: &str, message: &[&str]) -> Result<Verifier, Vec<SetupError>> {
    Verifier::new(
        HeaderName::from_static("x-signature"),
        Field::new(Encoding::Base64, "", None).unwrap(),
        Template::parse(message).unwrap(),
        vec![rsa()],
        Some(Timestamp {
            header: timestamp.parse().unwrap(),
            unit: Unit::Seconds,
            tolerance: Duration::from_secs(60),
        }),
    )
}

#[test]
fn a_timestamp_is_judged_before_any_key_is_tried() {
    let verifier = timed("x-time", &["header:x-time", "body"]).unwrap();
    let good = signature();
    let signed = ("x-signature", good.as_str());
    let name = HeaderName::from_static("x-time");
    for (times, reason) in [
        (&[][..], Reason::HeaderMissing(name.clone())),
        (&["1795532645", "1795532645"], Reason::HeaderDoubled(name)),
        (&["now"], Reason::Malformed),
        (&["1795532584"], Reason::Stale),
        (&["1795532706"], Reason::Stale),
        (&["1795532585"], Reason::Mismatch),
        (&["1795532705"], Reason::Mismatch),
    ] {
        let headers: Vec<_> = times
            .iter()
            .map(|time| ("x-time", *time))
            .chain([signed])
            .collect();
        assert_eq!(judge(&verifier, &headers), Err(reason), "{times:?}");
    }
}

#[test]
fn settings_that_prove_nothing_are_refused_all_at_once() {
    assert_eq!(
        timed("x-time", &["body"]).unwrap_err(),
        [SetupError::UnsignedTimestamp(HeaderName::from_static(
            "x-time"
        ))]
    );
    let mut late = rsa();
    (late.not_before, late.not_after) = (Some(NOW), Some(UnixMillis(NOW.0 - 1)));
    let mut nameless = rsa();
    nameless.id = "a b".into();
    let new = |message: &[&str], keys| {
        let list = List {
            separator: ' ',
            prefix: String::new(),
        };
        Verifier::new(
            HeaderName::from_static("x-signature"),
            Field::new(Encoding::Hex, "", Some(list)).unwrap(),
            Template::parse(message).unwrap(),
            keys,
            None,
        )
    };
    assert_eq!(
        new(&["body", "header:X-Signature"], vec![rsa(), late, nameless]).unwrap_err(),
        [
            SetupError::SameKeyId("rsa".into()),
            SetupError::EmptyWindow("rsa".into()),
            SetupError::KeyId,
            SetupError::SignatureInMessage(HeaderName::from_static("x-signature")),
        ]
    );
    assert_eq!(
        new(&["body"], Vec::new()).unwrap_err(),
        [SetupError::NoKeys]
    );
    let keys = (0..9)
        .map(|n| {
            let mut key = rsa();
            key.id = format!("k{n}").into();
            key
        })
        .collect();
    assert_eq!(new(&["body"], keys).unwrap_err(), [SetupError::TooManyKeys]);
}

#[test]
fn a_verified_body_is_not_in_debug_output() {
    let good = signature();
    let body = Bytes::from_static(data("algorithms/message"));
    let verdict =
        verifier(vec![rsa()]).judge(&Request::new(&[("x-signature", &good)]).head(), body, NOW);
    assert_eq!(
        format!("{verdict:?}"),
        "Accepted(Verified(35 bytes by rsa))"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_signed_body_comes_out_as_it_went_in(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public: String = pair.public_key().as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let mut key = rsa();
        key.key = super::PublicKey::parse(super::Algorithm::Ed25519, public.as_bytes()).unwrap();
        let verifier = verifier(vec![key]);
        let signature = Base64::encode_string(pair.sign(&body).as_ref());
        let request = Request::new(&[("x-signature", &signature)]);
        match verifier.judge(&request.head(), body.clone().into(), NOW) {
            Verdict::Accepted(verified) => prop_assert_eq!(verified.into_body(), body),
            Verdict::Rejected(reason) => prop_assert!(false, "{:?}", reason),
        }
    }

    #[test]
    fn any_header_is_judged_without_a_panic(value in "[ -~]{0,200}") {
        for encoding in Encoding::ALL {
            let verifier = super::verifier_of(encoding, &["body"], vec![rsa()]);
            prop_assert!(judge(&verifier, &[("x-signature", &value)]).is_err());
        }
    }
}
