//! The verifier against other people's vectors: OpenSSL's, Wycheproof's, and aws-lc-rs beside it.

mod diagnosis;
mod keys;
mod oracle;
mod vectors;
mod verdicts;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Algorithm, Encoding, Field, Head, Key, PublicKey, Template, Verifier};

/// A file of `tests/data/signatures/`.
macro_rules! data {
    ($($name:literal),+ $(,)?) => {
        /// The bytes of a file of `tests/data/signatures/`.
        pub(super) fn data(name: &str) -> &'static [u8] {
            match name {
                $($name => include_bytes!(concat!("../../../../tests/data/signatures/", $name)),)+
                _ => panic!("{name} is not in the list"),
            }
        }
    };
}

data!(
    "bepaid.http",
    "bepaid.pub",
    "discord.http",
    "discord.pub",
    "monobank.http",
    "monobank.pub",
    "oplati.http",
    "oplati.pub",
    "sendgrid.http",
    "sendgrid.pub",
    "standardwebhooks.http",
    "standardwebhooks.pub",
    "wechatpay.http",
    "wechatpay.pub",
    "wise.http",
    "wise.pub",
    "algorithms/ecdsa-p256-sha256-p1363.sig",
    "algorithms/ecdsa-p256-sha256.sig",
    "algorithms/ed25519.pub",
    "algorithms/ed25519.sig",
    "algorithms/message",
    "algorithms/p256-compressed.pub",
    "algorithms/p256.pub",
    "algorithms/p384.pub",
    "algorithms/rsa-pkcs1-sha256.sig",
    "algorithms/rsa-pkcs1-sha384.sig",
    "algorithms/rsa-pkcs1-sha512.sig",
    "algorithms/rsa-pss-restricted.pub",
    "algorithms/rsa-pss-restricted.sig",
    "algorithms/rsa-pss-sha256-saltmax.sig",
    "algorithms/rsa-pss-sha256.sig",
    "algorithms/rsa-pss-sha384.sig",
    "algorithms/rsa-pss-sha512.sig",
    "algorithms/rsa1024.pub",
    "algorithms/rsa2048-certificate.pub",
    "algorithms/rsa2048-pkcs1.pub",
    "algorithms/rsa2048.pub",
    "algorithms/rsa3072.pub",
    "algorithms/rsa8192.pub",
    "algorithms/rsa8192.sig",
);

/// The file of the key that made `algorithms/<algorithm>.sig`.
pub(super) fn key_file(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RsaPkcs1(_) | Algorithm::RsaPss(_) => "algorithms/rsa2048.pub",
        Algorithm::Ed25519 => "algorithms/ed25519.pub",
        Algorithm::EcdsaP256(_) => "algorithms/p256.pub",
    }
}

pub(super) fn public_key(algorithm: Algorithm, file: &str) -> PublicKey {
    PublicKey::parse(algorithm, data(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub(super) fn key(id: &str, algorithm: &str, file: &str) -> Key {
    Key {
        id: id.into(),
        key: public_key(Algorithm::parse(algorithm).unwrap(), file),
        not_before: None,
        not_after: None,
    }
}

/// A verifier of `X-Signature` in base64 over the body.
pub(super) fn verifier(keys: Vec<Key>) -> Verifier {
    verifier_of(Encoding::Base64, &["body"], keys)
}

pub(super) fn verifier_of(encoding: Encoding, message: &[&str], keys: Vec<Key>) -> Verifier {
    Verifier::new(
        HeaderName::from_static("x-signature"),
        Field::new(encoding, "", None).unwrap(),
        Template::parse(message).unwrap(),
        keys,
        None,
    )
    .unwrap()
}

/// A request with the headers given.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Request {
    pub(super) fn new(headers: &[(&str, &str)]) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Self {
            method: Method::POST,
            path: "/bank/callback".into(),
            headers: map,
        }
    }

    pub(super) fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
        }
    }
}
