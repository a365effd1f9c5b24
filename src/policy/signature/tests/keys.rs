//! What is no key, and what the error says of it: what it is instead, what to do, and not a byte of it.

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;

use super::super::{Algorithm, EcdsaForm, Hash, KeyError, PublicKey};
use super::data;

const PKCS1: Algorithm = Algorithm::RsaPkcs1(Hash::Sha256);
const PSS: Algorithm = Algorithm::RsaPss(Hash::Sha256);
const ECDSA: Algorithm = Algorithm::EcdsaP256(EcdsaForm::Der);

fn error(algorithm: Algorithm, bytes: &[u8]) -> KeyError {
    PublicKey::parse(algorithm, bytes).unwrap_err()
}

fn text(file: &str) -> &'static str {
    std::str::from_utf8(data(file)).unwrap()
}

fn der(file: &str) -> Vec<u8> {
    let base64: String = text(file)
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    Base64::decode_vec(&base64).unwrap()
}

/// A DER value with a long or a short length.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

fn rsa(n: &[u8], e: &[u8]) -> String {
    let numbers = [tlv(2, n), tlv(2, e)].concat();
    let base64 = Base64::encode_string(&tlv(0x30, &numbers));
    format!("-----BEGIN RSA PUBLIC KEY-----\n{base64}\n-----END RSA PUBLIC KEY-----\n")
}

/// A modulus of so many bits, with the zero that keeps it positive.
fn modulus(bits: usize) -> Vec<u8> {
    let mut n = vec![0xff; bits.div_ceil(8)];
    n[0] = 0xff >> (bits.div_ceil(8) * 8 - bits);
    if n[0] & 0x80 != 0 {
        n.insert(0, 0);
    }
    n
}

#[test]
fn sizes_and_exponents_are_enforced() {
    for (bits, good) in [
        (2047, false),
        (2048, true),
        (2049, true),
        (4097, true),
        (8192, true),
        (8193, false),
    ] {
        let parsed = PublicKey::parse(PKCS1, rsa(&modulus(bits), &[1, 0, 1]).as_bytes());
        match good {
            true => assert!(parsed.is_ok(), "{bits}"),
            false => assert_eq!(parsed.unwrap_err(), KeyError::ModulusBits(bits)),
        }
    }
    assert_eq!(
        error(PKCS1, data("algorithms/rsa1024.pub")),
        KeyError::ModulusBits(1024)
    );
    let n = modulus(2048);
    for (e, good) in [
        (&[3][..], true),
        (&[1, 0, 1], true),
        (&[1, 0xff, 0xff, 0xff, 0xff], true),
        (&[0], false),
        (&[1], false),
        (&[2], false),
        (&[1, 0, 0], false),
        (&[2, 0, 0, 0, 1], false),
        (&[1, 0, 0, 0, 0, 1], false),
        (&[0x81], false),
    ] {
        assert_eq!(
            PublicKey::parse(PKCS1, rsa(&n, e).as_bytes()).is_ok(),
            good,
            "{e:?}"
        );
    }
    let mut even = modulus(2048);
    *even.last_mut().unwrap() = 0xfe;
    assert_eq!(
        error(PKCS1, rsa(&even, &[3]).as_bytes()),
        KeyError::BadRsa("modulus is even")
    );
}

#[test]
fn a_key_must_be_of_its_algorithms_type() {
    for (algorithm, file, says) in [
        (
            PKCS1,
            "ed25519.pub",
            "an Ed25519 key, which does not fit the algorithm rsa-pkcs1-sha256; choose ed25519",
        ),
        (PKCS1, "p256.pub", "choose ecdsa-p256-sha256"),
        (PKCS1, "rsa-pss-restricted.pub", "choose rsa-pss-sha256"),
        (Algorithm::Ed25519, "rsa2048.pub", "an RSA key"),
        (ECDSA, "rsa2048-certificate.pub", "an RSA key"),
        (ECDSA, "p384.pub", "an EC key on P-384; supported is P-256"),
        (PKCS1, "p384.pub", "P-384"),
        (
            Algorithm::RsaPss(Hash::Sha512),
            "rsa-pss-restricted.pub",
            "other parameters than those of rsa-pss-sha512",
        ),
    ] {
        let said = error(algorithm, data(&format!("algorithms/{file}"))).to_string();
        assert!(said.contains(says), "{file} for {algorithm}: {said}");
    }
    assert!(PublicKey::parse(PSS, data("algorithms/rsa2048.pub")).is_ok());
}

#[test]
fn a_private_key_is_refused_in_every_form() {
    // Shapes of private keys, without a key in them.
    let pkcs8 = tlv(
        0x30,
        &[
            tlv(2, &[0]),
            tlv(0x30, &[6, 3, 0x2b, 0x65, 0x70]),
            tlv(4, &tlv(4, &[7; 32])),
        ]
        .concat(),
    );
    let pkcs1 = tlv(
        0x30,
        &[tlv(2, &[0]), tlv(2, &modulus(2048)), tlv(2, &[3])].concat(),
    );
    let sec1 = tlv(0x30, &[tlv(2, &[1]), tlv(4, &[7; 32])].concat());
    for der in [&pkcs8, &pkcs1, &sec1] {
        let base64 = Base64::encode_string(der);
        let forms = [
            base64.clone(),
            format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----"),
            format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----"),
            format!("-----BEGIN EC PRIVATE KEY-----\n{base64}"),
            format!(
                "{}-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
                text("algorithms/p256.pub")
            ),
        ];
        for form in forms {
            for algorithm in [PKCS1, ECDSA, Algorithm::Ed25519] {
                let error = error(algorithm, form.as_bytes());
                assert_eq!(error, KeyError::PrivateKey, "{form}");
                assert!(error.to_string().contains("PRIVATE key"));
            }
        }
        assert_eq!(
            error(ECDSA, der),
            if der.contains(&0xff) {
                KeyError::PrivateKey
            } else {
                error(ECDSA, der)
            }
        );
    }
    // libsodium's 64 bytes, and what Standard Webhooks calls a secret key.
    assert_eq!(
        error(Algorithm::Ed25519, "ab".repeat(64).as_bytes()),
        KeyError::PrivateKey
    );
    assert_eq!(
        error(Algorithm::Ed25519, b"whsk_AAAA"),
        KeyError::PrivateKey
    );
}

#[test]
fn other_things_are_called_by_their_names() {
    let spki = text("algorithms/rsa2048.pub");
    let bare = |file: &str| Base64::encode_string(&der(file));
    let certificate: String = {
        let pem = text("algorithms/rsa2048-certificate.pub");
        let (_, pem) = pem.split_once("-----BEGIN CERTIFICATE-----").unwrap();
        pem.lines().filter(|line| !line.starts_with('-')).collect()
    };
    for (bytes, says) in [
        (String::new(), "the key is empty"),
        (" \n".into(), "the key is empty"),
        ("x".repeat(70_000), "larger than 65536 bytes"),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLbSw".into(),
            "a shared secret (HMAC)",
        ),
        (
            "correct-horse-battery-staple".into(),
            "a shared secret (HMAC)",
        ),
        ("c2VjcmV0LXNlY3JldA==".into(), "a shared secret (HMAC)"),
        ("some words in a file".into(), "neither PEM nor base64"),
        (
            "ssh-rsa AAAAB3NzaC1yc2E bank".into(),
            "ssh-keygen -e -m PKCS8",
        ),
        (r#"{"kty":"RSA"}"#.into(), "a JWK?"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----".into(),
            "a certificate request",
        ),
        (format!("{spki}{spki}"), "2 PEM blocks"),
        (spki.replace("END PUBLIC", "END RSA PUBLIC"), "END line"),
        (spki.replace("-----END PUBLIC KEY-----", ""), "no END line"),
        (spki.replace('\n', "\\n"), "as in JSON"),
        (spki.replace("MII", "M*I"), "not base64"),
        (spki.replace("MIIB", "MIIA"), "structure cannot be read"),
        (
            bare("algorithms/rsa2048-pkcs1.pub"),
            "-----BEGIN RSA PUBLIC KEY-----",
        ),
        (certificate, "-----BEGIN CERTIFICATE-----"),
    ] {
        let said = error(PKCS1, bytes.as_bytes()).to_string();
        assert!(said.contains(says), "{bytes:.60}: {said}");
    }
    assert_eq!(
        error(PKCS1, &der("algorithms/rsa2048.pub")),
        KeyError::Binary
    );
}

#[test]
fn points_are_checked() {
    // y = p: a second spelling of y = 0, which is of small order as well.
    let mut bytes = [0xff_u8; 32];
    (bytes[0], bytes[31]) = (0xed, 0x7f);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert!(matches!(
        error(Algorithm::Ed25519, hex(&bytes).as_bytes()),
        KeyError::BadPoint(..)
    ));
    // y = p + 3 is on the curve and of large order; only its spelling is wrong.
    let refused = (0..19_u8).filter(|more| {
        bytes[0] = 0xed + more;
        PublicKey::parse(Algorithm::Ed25519, hex(&bytes).as_bytes()).is_err()
    });
    assert_eq!(refused.count(), 19);
    let mut point = der("algorithms/p256.pub");
    *point.last_mut().unwrap() ^= 1;
    let said = error(ECDSA, Base64::encode_string(&point).as_bytes()).to_string();
    assert!(said.contains("no point of the curve"), "{said}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic_and_never_repeated(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[A-Za-z0-9+/=]{20,80}".prop_map(String::into_bytes),
            "-----BEGIN [A-Z ]{1,16}-----\n[A-Za-z0-9]{20,40}\n-----END [A-Z ]{1,12}-----".prop_map(String::into_bytes),
        ]
    ) {
        for algorithm in [PKCS1, ECDSA, Algorithm::Ed25519] {
            if let Err(error) = PublicKey::parse(algorithm, &bytes) {
                let said = error.to_string();
                let text = String::from_utf8_lossy(&bytes);
                for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 12) {
                    prop_assert!(!said.contains(word));
                }
            }
        }
    }
}
