//! Each mistake that is looked for, made on purpose: the hint names it, and nothing else.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use http::header::HeaderName;

use super::super::{Code, Encoding, Field, Template, Timestamp, Unit, Verifier, diagnose};
use super::{Key, Request, data, key, key_file, verifier, verifier_of};
use crate::policy::operation::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_795_532_645_000);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn codes(verifier: &Verifier, headers: &[(&str, &str)], body: &[u8]) -> Vec<Code> {
    let hints = diagnose(verifier, &Request::new(headers).head(), body, NOW);
    for hint in &hints {
        assert!(hint.sentence.len() > 40, "{hint:?}");
    }
    hints.into_iter().map(|hint| hint.code).collect()
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn ed25519(id: &str) -> Key {
    let mut key = key(id, "ed25519", "algorithms/ed25519.pub");
    let public = hex(pair().public_key().as_ref());
    key.key = super::PublicKey::parse(super::Algorithm::Ed25519, public.as_bytes()).unwrap();
    key
}

/// The codes for a body that arrives otherwise than it was signed.
fn body_codes(signed: &[u8], arrived: &[u8]) -> Vec<Code> {
    let signature = Base64::encode_string(pair().sign(signed).as_ref());
    codes(
        &verifier(vec![ed25519("a")]),
        &[("x-signature", &signature)],
        arrived,
    )
}

#[test]
fn a_good_request_has_no_hint() {
    assert_eq!(body_codes(b"{}", b"{}"), []);
}

#[test]
fn changed_bodies_are_recognised() {
    for (signed, arrived, code) in [
        ("{}", "{}\n", Code::LineEnd),
        ("{}", "{}\r\n", Code::LineEnd),
        ("{}\n", "{}", Code::LineEnd),
        ("{}\r\n", "{}", Code::LineEnd),
        ("{\r\n}", "{\n}", Code::LineEnd),
        ("{}", "\u{feff}{}", Code::Bom),
        ("\u{feff}{}", "{}", Code::Bom),
        (
            r#"{"b": "https:\/\/a", "a": "\u0416"}"#,
            r#"{"b":"https://a","a":"Ж"}"#,
            Code::Json,
        ),
        (
            r#"{"b":"https://a","a":"Ж"}"#,
            r#"{"b":"https:\/\/a","a":"\u0416"}"#,
            Code::Json,
        ),
        ("{\n    \"a\": 1.0\n}", r#"{"a":1.0}"#, Code::Json),
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, Code::Json),
        (
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "{}",
            Code::Message,
        ),
        ("something else", "{}", Code::WrongKey),
    ] {
        assert_eq!(
            body_codes(signed.as_bytes(), arrived.as_bytes()),
            [code],
            "{signed:?} {arrived:?}"
        );
    }
}

#[test]
fn encodings_are_recognised() {
    let raw = pair().sign(b"{}");
    let raw = raw.as_ref();
    let base64 = Base64::encode_string(raw);
    for (configured, value, expected) in [
        (Encoding::Base64, hex(raw), Code::Encoding),
        (
            Encoding::Base64,
            Base64UrlUnpadded::encode_string(raw),
            Code::Encoding,
        ),
        (
            Encoding::Base64,
            base64.trim_end_matches('=').to_owned(),
            Code::Encoding,
        ),
        (Encoding::Hex, base64.clone(), Code::Encoding),
        (Encoding::Base64Url, hex(raw), Code::Encoding),
        (
            Encoding::Base64,
            Base64::encode_string(hex(raw).as_bytes()),
            Code::DoubleEncoding,
        ),
        (
            Encoding::Base64,
            Base64::encode_string(base64.as_bytes()),
            Code::DoubleEncoding,
        ),
    ] {
        let verifier = verifier_of(configured, &["body"], vec![ed25519("a")]);
        assert_eq!(
            codes(&verifier, &[("x-signature", &value)], b"{}"),
            [expected],
            "{value}"
        );
    }
    let verifier = verifier_of(Encoding::Hex, &["body"], vec![ed25519("a")]);
    let value = format!("v1={}", hex(raw));
    let found = codes(&verifier, &[("x-signature", &value)], b"{}");
    assert!(
        found == [Code::WrongKey] || found == [Code::Encoding] || found == [Code::Prefix],
        "{found:?}"
    );
    let prefixed = |value: &str| {
        let verifier = Verifier::new(
            HeaderName::from_static("x-signature"),
            Field::new(Encoding::Hex, "sha256=", None).unwrap(),
            Template::parse(&["body"]).unwrap(),
            vec![ed25519("a")],
            None,
        );
        codes(&verifier.unwrap(), &[("x-signature", value)], b"{}")
    };
    assert_eq!(prefixed(&hex(raw)), [Code::Prefix]);
    assert_eq!(prefixed(&value), [Code::Prefix]);
}

#[test]
fn algorithms_are_recognised() {
    let message = data("algorithms/message");
    for (configured, made, expected) in [
        ("rsa-pkcs1-sha256", "rsa-pss-sha256", Code::Padding),
        ("rsa-pss-sha512", "rsa-pkcs1-sha512", Code::Padding),
        ("rsa-pkcs1-sha256", "rsa-pkcs1-sha512", Code::Hash),
        ("rsa-pss-sha384", "rsa-pss-sha256", Code::Hash),
        ("rsa-pss-sha256", "rsa-pss-sha256-saltmax", Code::PssSalt),
        (
            "ecdsa-p256-sha256",
            "ecdsa-p256-sha256-p1363",
            Code::EcdsaForm,
        ),
        (
            "ecdsa-p256-sha256-p1363",
            "ecdsa-p256-sha256",
            Code::EcdsaForm,
        ),
    ] {
        let signature = Base64::encode_string(data(&format!("algorithms/{made}.sig")));
        let file = key_file(super::Algorithm::parse(configured).unwrap());
        let verifier = verifier(vec![key("a", configured, file)]);
        let found = codes(&verifier, &[("x-signature", &signature)], message);
        assert_eq!(found, [expected], "{made} for {configured}");
    }
}

#[test]
fn keys_outside_their_window_are_recognised() {
    let signature = Base64::encode_string(pair().sign(b"{}").as_ref());
    let mut old = ed25519("old");
    old.not_after = Some(UnixMillis(NOW.0 - 1));
    let new = key("new", "ed25519", "algorithms/ed25519.pub");
    for keys in [vec![old.clone(), new], vec![old]] {
        assert_eq!(
            codes(&verifier(keys), &[("x-signature", &signature)], b"{}"),
            [Code::KeyWindow]
        );
    }
}

#[test]
fn mistakes_are_found_together() {
    let signature = hex(pair().sign(br#"{"a": 1}"#).as_ref());
    let mut old = ed25519("old");
    old.not_before = Some(UnixMillis(NOW.0 + 1));
    let found = codes(
        &verifier(vec![old]),
        &[("x-signature", &signature)],
        br#"{"a":1}"#,
    );
    assert_eq!(found, [Code::KeyWindow, Code::Encoding, Code::Json]);
}

#[test]
fn headers_and_timestamps_are_explained() {
    let verifier = Verifier::new(
        HeaderName::from_static("x-signature"),
        Field::new(Encoding::Base64, "", None).unwrap(),
        Template::parse(&["header:x-time", "text:.", "body"]).unwrap(),
        vec![ed25519("a")],
        Some(Timestamp {
            header: HeaderName::from_static("x-time"),
            unit: Unit::Seconds,
            tolerance: Duration::from_secs(300),
        }),
    )
    .unwrap();
    let sign =
        |time: &str| Base64::encode_string(pair().sign(format!("{time}.{{}}").as_bytes()).as_ref());
    let stale = sign("1795530000");
    let headers = [("x-signature", stale.as_str()), ("x-time", "1795530000")];
    assert_eq!(codes(&verifier, &headers, b"{}"), [Code::Timestamp]);
    let millis = sign("1795532645000");
    let headers = [
        ("x-signature", millis.as_str()),
        ("x-time", "1795532645000"),
    ];
    assert_eq!(codes(&verifier, &headers, b"{}"), [Code::TimestampUnit]);
    let headers = [("x-time", "1795532645")];
    assert_eq!(codes(&verifier, &headers, b"{}"), [Code::SignatureMissing]);
    let good = sign("1795532645");
    let headers = [
        ("x-signature", good.as_str()),
        ("x-signature", &good),
        ("x-time", "1795532645"),
    ];
    assert_eq!(codes(&verifier, &headers, b"{}"), [Code::SignatureDoubled]);
    let headers = [("x-signature", good.as_str())];
    assert_eq!(
        codes(&verifier, &headers, b"{}"),
        [Code::SignedHeader, Code::WrongKey]
    );
    let headers = [("x-signature", "%%%"), ("x-time", "1795532645")];
    assert_eq!(codes(&verifier, &headers, b"{}"), [Code::Encoding]);
}

#[test]
fn the_page_names_every_code() {
    let page = include_str!("../../../../docs/signatures.md");
    for code in [
        Code::SignatureMissing,
        Code::SignatureDoubled,
        Code::SignedHeader,
        Code::Timestamp,
        Code::TimestampUnit,
        Code::KeyWindow,
        Code::Prefix,
        Code::Encoding,
        Code::DoubleEncoding,
        Code::Padding,
        Code::Hash,
        Code::PssSalt,
        Code::EcdsaForm,
        Code::LineEnd,
        Code::Bom,
        Code::Json,
        Code::Message,
        Code::WrongKey,
    ] {
        assert!(page.contains(&format!("`{code}`")), "{code}");
    }
}
