//! Verifications per second, each algorithm: the whole verdict of ours (header, message, window, arithmetic) beside bare
//! aws-lc-rs over the same bytes, in alternating rounds. With `sign COUNT` it prints a key and that many signed
//! notifications instead, for `benches/callbacks/measure.py`.

// A measurement that meets something unexpected has nothing to go on with, and its output is what it is for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as aws, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, Method};
use priorgate::policy::operation::UnixMillis;
use priorgate::policy::signature::{
    Algorithm, Encoding, Field, Head, Key, PublicKey, Template, Verdict, Verifier,
};

const ROUND: Duration = Duration::from_millis(200);
const ROUNDS: usize = 7;
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

type Verify = Box<dyn Fn(&[u8], &[u8]) -> bool>;

struct Case {
    algorithm: &'static str,
    /// Bare base64: SPKI, or 32 bytes.
    ours: String,
    theirs: Verify,
    signature: Vec<u8>,
}

fn body(number: usize) -> Vec<u8> {
    format!(
        "{{\"event_id\":\"e{number}\",\"session_id\":\"s{number}\",\"status\":\"APPROVED\",\"order_ref\":\"order-{number}\",\"amount\":\"1250.50\",\"currency\":\"BYN\",\"term\":12,\"customer\":{{\"name\":\"A\",\"phone\":\"+375290000000\"}},\"created_at\":\"2026-11-24T12:00:00Z\"}}"
    )
    .into_bytes()
}

fn verifier(algorithm: &str, key: &str) -> Verifier {
    let algorithm = Algorithm::parse(algorithm).unwrap();
    let key = Key {
        id: "bank".into(),
        key: PublicKey::parse(algorithm, key.as_bytes()).unwrap(),
        not_before: None,
        not_after: None,
    };
    Verifier::new(
        HeaderName::from_static("x-signature"),
        Field::new(Encoding::Base64, "", None).unwrap(),
        Template::parse(&["body"]).unwrap(),
        vec![key],
        None,
    )
    .unwrap()
}

fn rsa(
    algorithm: &'static str,
    padding: &'static dyn aws::RsaEncoding,
    check: &'static dyn aws::VerificationAlgorithm,
    pair: &RsaKeyPair,
) -> Case {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), &body(0), &mut signature)
        .unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let theirs = aws::UnparsedPublicKey::new(check, pair.public_key().as_ref().to_vec());
    Case {
        algorithm,
        ours: Base64::encode_string(spki.as_ref()),
        theirs: Box::new(move |body, signature| theirs.verify(body, signature).is_ok()),
        signature,
    }
}

fn ecdsa() -> Case {
    let pair = EcdsaKeyPair::generate(&aws::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let signature = pair.sign(&SystemRandom::new(), &body(0)).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let point = pair.public_key().as_ref().to_vec();
    let theirs = aws::UnparsedPublicKey::new(&aws::ECDSA_P256_SHA256_ASN1, point);
    Case {
        algorithm: "ecdsa-p256-sha256",
        ours: Base64::encode_string(spki.as_ref()),
        theirs: Box::new(move |body, signature| theirs.verify(body, signature).is_ok()),
        signature: signature.as_ref().to_vec(),
    }
}

fn ed25519(pair: &Ed25519KeyPair) -> Case {
    let point = pair.public_key().as_ref().to_vec();
    let ours = Base64::encode_string(&point);
    let theirs = aws::UnparsedPublicKey::new(&aws::ED25519, point);
    Case {
        algorithm: "ed25519",
        ours,
        theirs: Box::new(move |body, signature| theirs.verify(body, signature).is_ok()),
        signature: pair.sign(&body(0)).as_ref().to_vec(),
    }
}

/// Calls in a round, as a rate.
fn rate(mut call: impl FnMut() -> bool) -> f64 {
    let begin = Instant::now();
    let mut calls = 0_u32;
    while begin.elapsed() < ROUND {
        assert!(black_box(call()));
        calls += 1;
    }
    f64::from(calls) / begin.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn compare(case: &Case) {
    let verifier = verifier(case.algorithm, &case.ours);
    let mut headers = HeaderMap::new();
    let value = Base64::encode_string(&case.signature).parse().unwrap();
    headers.insert("x-signature", value);
    let head = Head {
        method: &Method::POST,
        path: "/callback",
        headers: &headers,
    };
    let body = Bytes::from(body(0));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(rate(|| {
            matches!(
                verifier.judge(&head, body.clone(), NOW),
                Verdict::Accepted(_)
            )
        }));
        theirs.push(rate(|| (case.theirs)(&body, &case.signature)));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{:<18} {ours:>9.0} verdicts/s   aws-lc-rs {theirs:>9.0} verifications/s   {:.2}",
        case.algorithm,
        ours / theirs
    );
}

fn sign(count: usize) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut out = Base64::encode_string(pair.public_key().as_ref());
    for number in 0..count {
        let body = body(number);
        let signature = Base64::encode_string(pair.sign(&body).as_ref());
        let _ = write!(out, "\n{signature} {}", String::from_utf8(body).unwrap());
    }
    println!("{out}");
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if let [mode, count] = &args[..] {
        assert_eq!(mode, "sign", "expected `sign COUNT`, or nothing");
        return sign(count.parse().unwrap());
    }
    let (small, large) = (
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        RsaKeyPair::generate(KeySize::Rsa4096).unwrap(),
    );
    let pair = Ed25519KeyPair::generate().unwrap();
    for (bits, pair) in [(2048, &small), (4096, &large)] {
        println!("RSA of {bits} bits:");
        for case in [
            rsa(
                "rsa-pkcs1-sha256",
                &aws::RSA_PKCS1_SHA256,
                &aws::RSA_PKCS1_2048_8192_SHA256,
                pair,
            ),
            rsa(
                "rsa-pkcs1-sha384",
                &aws::RSA_PKCS1_SHA384,
                &aws::RSA_PKCS1_2048_8192_SHA384,
                pair,
            ),
            rsa(
                "rsa-pkcs1-sha512",
                &aws::RSA_PKCS1_SHA512,
                &aws::RSA_PKCS1_2048_8192_SHA512,
                pair,
            ),
            rsa(
                "rsa-pss-sha256",
                &aws::RSA_PSS_SHA256,
                &aws::RSA_PSS_2048_8192_SHA256,
                pair,
            ),
            rsa(
                "rsa-pss-sha384",
                &aws::RSA_PSS_SHA384,
                &aws::RSA_PSS_2048_8192_SHA384,
                pair,
            ),
            rsa(
                "rsa-pss-sha512",
                &aws::RSA_PSS_SHA512,
                &aws::RSA_PSS_2048_8192_SHA512,
                pair,
            ),
        ] {
            compare(&case);
        }
    }
    println!("Others:");
    compare(&ecdsa());
    compare(&ed25519(&pair));
}
