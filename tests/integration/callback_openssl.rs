//! Signatures of the `openssl` command, of every algorithm, over HTTP through a running gate; and the same with one bit of
//! the body, of the signed header or of the signature changed.
//!
//! Without `openssl` this prints `skipped: no openssl`, unless `CI` is set: there it fails.

use std::path::Path;
use std::process::Command;

use base64ct::{Base64, Encoding};

use crate::support::client::{Target, post};
use crate::support::gate::{Gate, Setup};
use crate::support::pki::replace;
use crate::support::until;

const PATH: &str = "/bank/callback";
/// Name in the configuration, arguments of `openssl genpkey`, and of `openssl dgst` (none: `pkeyutl -rawin`).
const ALGORITHMS: [(&str, &str, Option<&str>); 9] = [
    ("rsa-pkcs1-sha256", RSA, Some("-sha256")),
    ("rsa-pkcs1-sha384", RSA, Some("-sha384")),
    ("rsa-pkcs1-sha512", RSA, Some("-sha512")),
    ("rsa-pss-sha256", RSA, Some("-sha256")),
    ("rsa-pss-sha384", RSA, Some("-sha384")),
    ("rsa-pss-sha512", RSA, Some("-sha512")),
    ("ed25519", "-algorithm ed25519", None),
    ("ecdsa-p256-sha256", EC, Some("-sha256")),
    ("ecdsa-p256-sha256-p1363", EC, Some("-sha256")),
];
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const TIME: &str = "1795000000";
const BODY: &[u8] = b"{\"event_id\":\"e1\",\"session_id\":\"s1\",\"status\":\"APPROVED\"}";

fn openssl_is_here() -> bool {
    let found = Command::new("openssl").arg("version").output();
    let here = found.is_ok_and(|output| output.status.success());
    if !here {
        assert!(std::env::var_os("CI").is_none(), "CI must have openssl");
        println!("skipped: no openssl");
    }
    here
}

fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "openssl {args}: {output:?}");
}

/// Makes a key, signs the message with it, and gives the signature.
fn sign(dir: &Path, name: &str, genpkey: &str, hash: Option<&str>) -> Vec<u8> {
    openssl(dir, &format!("genpkey {genpkey} -out {name}.key"));
    openssl(dir, &format!("pkey -in {name}.key -pubout -out {name}.pub"));
    let message = [TIME.as_bytes(), b".", BODY].concat();
    std::fs::write(dir.join("message"), message).unwrap();
    match hash {
        None => openssl(
            dir,
            &format!("pkeyutl -sign -rawin -inkey {name}.key -in message -out {name}.sig"),
        ),
        Some(hash) => {
            let padding = if name.contains("pss") {
                " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"
            } else {
                ""
            };
            openssl(
                dir,
                &format!("dgst {hash} -sign {name}.key{padding} -out {name}.sig message"),
            );
        }
    }
    let signature = std::fs::read(dir.join(format!("{name}.sig"))).unwrap();
    if name.ends_with("p1363") {
        return two_integers(&signature);
    }
    signature
}

/// The integers of a DER signature with 32 bytes each.
fn two_integers(der: &[u8]) -> Vec<u8> {
    assert_eq!(der[0], 0x30);
    let mut rest = &der[2..];
    let mut both = Vec::new();
    for _ in 0..2 {
        assert_eq!(rest[0], 2);
        let (integer, more) = rest[2..].split_at(usize::from(rest[1]));
        let digits = integer.strip_prefix(&[0]).unwrap_or(integer);
        both.resize(both.len() + 32 - digits.len(), 0);
        both.extend_from_slice(digits);
        rest = more;
    }
    both
}

/// A gate with one callback for each algorithm, and nobody behind it.
fn start() -> (Gate, Vec<Vec<u8>>) {
    let setup = Setup::new(1).bank("url: http://127.0.0.1:1\n    allow_plaintext_loopback: true");
    let mut text = "callbacks:\n".to_owned();
    let mut signatures = Vec::new();
    for (index, (name, genpkey, hash)) in ALGORITHMS.into_iter().enumerate() {
        signatures.push(sign(setup.path(), name, genpkey, hash));
        text.push_str(&format!(
            "  - name: c{index}\n    listen: [{{unix: c{index}.sock, mode: \"0600\"}}]\n    path: {PATH}\n    signature:\n      header: X-Signature\n      message: [\"header:X-Time\", \"text:.\", body]\n      keys: [{{id: {name}, algorithm: {name}, file: {name}.pub}}]\n    event: {{id: [/event_id], session: /session_id, status: /status}}\n    deliver: {{url: \"http://127.0.0.1:1/hook.php\", host: shop.example, secret_files: [s{index}.secret]}}\n",
        ));
        let secret = Base64::encode_string(&[u8::try_from(index).unwrap() + 1; 32]);
        replace(
            &setup.path().join(format!("s{index}.secret")),
            &format!("whsec_{secret}"),
        );
    }
    (setup.guarded().top(text.trim_end()).start(), signatures)
}

fn headers(time: &str, signature: &[u8]) -> String {
    let signature = Base64::encode_string(signature);
    format!("X-Time: {time}\r\nX-Signature: {signature}\r\n")
}

/// Each byte with one of its bits turned, another one for the next byte.
fn turned(bytes: &[u8]) -> Vec<Vec<u8>> {
    let turn = |at: usize| {
        let mut turned = bytes.to_vec();
        turned[at] ^= 1 << (at % 8);
        turned
    };
    (0..bytes.len()).map(turn).collect()
}

fn raw_headers(time: &[u8], signature: &[u8]) -> Vec<u8> {
    [b"X-Time: ", time, b"\r\nX-Signature: ", signature, b"\r\n"].concat()
}

fn ask(target: &Target, headers: &[u8], body: &[u8]) -> u16 {
    let mut request = post(PATH, "", body);
    let at = request.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    request.splice(at..at, headers.iter().copied());
    target.send(&request).status
}

#[test]
fn what_openssl_signed_is_verified_and_with_one_bit_turned_it_is_not() {
    if !openssl_is_here() {
        return;
    }
    let (gate, signatures) = start();
    for (index, (name, ..)) in ALGORITHMS.into_iter().enumerate() {
        let signature = &signatures[index];
        let target = Target::Unix(gate.path().join(format!("c{index}.sock")));
        let encoded = Base64::encode_string(signature);
        let mut refused = 0;
        let mut forged = |headers: &[u8], body: &[u8]| {
            let status = ask(&target, headers, body);
            assert!(matches!(status, 400 | 403 | 503), "{name}: {status}");
            refused += 1;
        };
        for body in turned(BODY) {
            forged(headers(TIME, signature).as_bytes(), &body);
        }
        for time in turned(TIME.as_bytes()) {
            forged(&raw_headers(&time, encoded.as_bytes()), BODY);
        }
        for signature in turned(signature) {
            forged(headers(TIME, &signature).as_bytes(), BODY);
        }
        // In the text too: no two texts stand for one signature.
        for text in turned(encoded.as_bytes()) {
            forged(&raw_headers(TIME.as_bytes(), &text), BODY);
        }
        println!("{name}: {refused} forgeries refused");
        let status = || gate.status()["callbacks"][index].clone();
        assert_eq!(status()["accepted"], 0, "{name}");
        assert_eq!(
            ask(&target, headers(TIME, signature).as_bytes(), BODY),
            200,
            "{name}"
        );
        until("it is taken", || status()["accepted"] == 1);
    }
}
