//! Requests and signatures that OpenSSL made, and the examples of `docs/signatures.md` that must verify them.

use bytes::Bytes;
use http::header::HeaderValue;
use serde::Deserialize;

use super::super::{
    Algorithm, EcdsaForm, Encoding, Field, Fit, Hash, Key, List, Part, PublicKey, Template,
    Timestamp, Unit, Verdict, Verifier, parse_rfc3339,
};
use super::{Request, data, key_file, public_key};
use crate::policy::operation::UnixMillis;
use crate::policy::units::parse_duration;

/// A minute after the vectors' timestamps.
const NOW: UnixMillis = UnixMillis(1_795_532_705_000);

/// The `signature` section of a callback, as design and configuration write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    signature: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    header: String,
    encoding: String,
    #[serde(default)]
    prefix: String,
    list: Option<ListSettings>,
    message: Vec<String>,
    timestamp: Option<TimestampSettings>,
    keys: Vec<KeySettings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListSettings {
    separator: char,
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampSettings {
    header: String,
    unit: String,
    tolerance: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySettings {
    id: String,
    algorithm: String,
    file: String,
    not_before: Option<String>,
    not_after: Option<String>,
}

impl Settings {
    fn verifier(&self) -> Verifier {
        let list = self.list.as_ref().map(|list| List {
            separator: list.separator,
            prefix: list.prefix.clone(),
        });
        let timestamp = self.timestamp.as_ref().map(|timestamp| Timestamp {
            header: timestamp.header.parse().unwrap(),
            unit: Unit::parse(&timestamp.unit).unwrap(),
            tolerance: parse_duration(&timestamp.tolerance).unwrap(),
        });
        let moment = |text: &Option<String>| text.as_ref().map(|text| parse_rfc3339(text).unwrap());
        let keys = self.keys.iter().map(|key| Key {
            id: key.id.as_str().into(),
            key: public_key(Algorithm::parse(&key.algorithm).unwrap(), &key.file),
            not_before: moment(&key.not_before),
            not_after: moment(&key.not_after),
        });
        Verifier::new(
            self.header.parse().unwrap(),
            Field::new(Encoding::parse(&self.encoding).unwrap(), &self.prefix, list).unwrap(),
            Template::parse(&self.message).unwrap(),
            keys.collect(),
            timestamp,
        )
        .unwrap()
    }
}

/// The senders of `docs/signatures.md`: the name of their files, and their settings.
fn examples() -> Vec<(String, Settings)> {
    let page = include_str!("../../../../docs/signatures.md");
    page.split("\n```yaml\n")
        .skip(1)
        .map(|part| {
            let (yaml, after) = part.split_once("```").unwrap();
            let (_, vector) = after.split_once("Vector: `").unwrap();
            let (name, _) = vector.split_once(".http`").unwrap();
            let example: Example = serde_yaml::from_str(yaml).unwrap();
            (name.to_owned(), example.signature)
        })
        .collect()
}

/// A request as it went over the wire.
fn request(raw: &[u8]) -> (Request, Vec<u8>) {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = raw.split_at(end + 4);
    let head = std::str::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let headers: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let mut request = Request::new(&headers);
    request.method = line[0].parse().unwrap();
    request.path = line[1].to_owned();
    assert_eq!(request.headers["content-length"], body.len().to_string());
    (request, body.to_vec())
}

fn accepts(verifier: &Verifier, request: &Request, body: &[u8]) -> bool {
    let verdict = verifier.judge(&request.head(), Bytes::copy_from_slice(body), NOW);
    matches!(verdict, Verdict::Accepted(_))
}

#[test]
fn the_documented_settings_verify_each_sender() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "bepaid",
        "oplati",
        "wise",
        "monobank",
        "wechatpay",
        "discord",
        "sendgrid",
        "standardwebhooks",
    ];
    assert_eq!(names, expected);
    for (name, settings) in &examples {
        let (request, body) = request(data(&format!("{name}.http")));
        let verdict = settings
            .verifier()
            .judge(&request.head(), body.clone().into(), NOW);
        let Verdict::Accepted(verified) = verdict else {
            panic!("{name}: {verdict:?}");
        };
        assert_eq!(verified.key_id(), settings.keys.last().unwrap().id);
        assert_eq!(verified.body().as_ref(), body);
        assert_eq!(verified.into_body(), body);
    }
}

#[test]
fn no_bit_of_body_signature_or_signed_header_may_change() {
    for (name, settings) in examples() {
        let verifier = settings.verifier();
        let (mut request, body) = request(data(&format!("{name}.http")));
        for at in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(
                !accepts(&verifier, &request, &changed),
                "{name}: body, bit {at}"
            );
        }
        let signed = verifier
            .message()
            .parts()
            .iter()
            .filter_map(|part| match part {
                Part::Header(header) => Some(header.clone()),
                _ => None,
            });
        for header in signed.chain([settings.header.parse().unwrap()]) {
            let value = request.headers[&header].clone();
            // Of a list, the one signature that fits: the last.
            let from = value
                .as_bytes()
                .iter()
                .rposition(|&b| b == b' ')
                .map_or(0, |at| at + 1);
            for at in from * 8..value.len() * 8 {
                let mut changed = value.as_bytes().to_vec();
                changed[at / 8] ^= 1 << (at % 8);
                let Ok(changed) = HeaderValue::from_bytes(&changed) else {
                    continue;
                };
                request.headers.insert(header.clone(), changed);
                assert!(
                    !accepts(&verifier, &request, &body),
                    "{name}: {header}, bit {at}"
                );
            }
            request.headers.insert(header, value);
        }
        assert!(accepts(&verifier, &request, &body));
    }
}

#[test]
fn openssl_and_the_verifier_agree_on_each_algorithm() {
    let message = data("algorithms/message");
    for algorithm in Algorithm::ALL {
        let key = public_key(algorithm, key_file(algorithm));
        for other in Algorithm::ALL {
            let signature = data(&format!("algorithms/{other}.sig"));
            let fits = key.verify(message, signature) == Fit::Fits;
            assert_eq!(fits, other == algorithm, "{other} by {key:?}");
        }
        let mut longer = data(&format!("algorithms/{algorithm}.sig")).to_vec();
        longer.extend([0; 80]);
        assert_eq!(key.verify(message, &longer), Fit::WrongLength);
        assert_eq!(key.verify(message, &[]), Fit::WrongLength);
    }
    let pkcs1 = Algorithm::RsaPkcs1(Hash::Sha256);
    let key = public_key(pkcs1, "algorithms/rsa8192.pub");
    assert_eq!(
        key.verify(message, data("algorithms/rsa8192.sig")),
        Fit::Fits
    );
    let pss = Algorithm::RsaPss(Hash::Sha256);
    let key = public_key(pss, "algorithms/rsa-pss-restricted.pub");
    assert_eq!(
        key.verify(message, data("algorithms/rsa-pss-restricted.sig")),
        Fit::Fits
    );
    let key = public_key(pss, "algorithms/rsa2048.pub");
    assert_eq!(
        key.verify(message, data("algorithms/rsa-pss-sha256-saltmax.sig")),
        Fit::Fails
    );
}

#[test]
fn every_form_of_a_key_is_the_same_key() {
    let message = data("algorithms/message");
    let pkcs1 = Algorithm::RsaPkcs1(Hash::Sha256);
    for file in [
        "rsa2048.pub",
        "rsa2048-pkcs1.pub",
        "rsa2048-certificate.pub",
    ] {
        let key = public_key(pkcs1, &format!("algorithms/{file}"));
        assert_eq!(
            key.verify(message, data("algorithms/rsa-pkcs1-sha256.sig")),
            Fit::Fits,
            "{file}"
        );
    }
    let der = Algorithm::EcdsaP256(EcdsaForm::Der);
    for file in ["p256.pub", "p256-compressed.pub"] {
        let key = public_key(der, &format!("algorithms/{file}"));
        assert_eq!(
            key.verify(message, data("algorithms/ecdsa-p256-sha256.sig")),
            Fit::Fits,
            "{file}"
        );
    }
    let pem = std::str::from_utf8(data("algorithms/ed25519.pub")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = Encoding::Base64.decode(base64.as_bytes()).unwrap();
    let raw = &spki[spki.len() - 32..];
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let raw = <base64ct::Base64 as base64ct::Encoding>::encode_string(raw);
    let whole = <base64ct::Base64 as base64ct::Encoding>::encode_string(pem.as_bytes());
    for form in [
        pem.to_owned(),
        format!("\u{feff}a note\r\n\r\n{}", pem.replace('\n', "\r\n")),
        base64,
        whole,
        hex.to_uppercase(),
        format!("{hex}\n"),
        format!("whpk_{raw}"),
        raw,
    ] {
        let key = PublicKey::parse(Algorithm::Ed25519, form.as_bytes()).unwrap();
        assert_eq!(
            key.verify(message, data("algorithms/ed25519.sig")),
            Fit::Fits,
            "{form}"
        );
    }
}
