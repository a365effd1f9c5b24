//! What `check` finds, and what it leaves alone.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::*;

/// A directory with an identity, its CA and a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new(config: &str, intermediate: CertificateParams) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let middle_key = KeyPair::generate().unwrap();
        let middle = CertifiedIssuer::signed_by(intermediate, middle_key, &root).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default()
            .signed_by(&key, &middle)
            .unwrap();
        let chain = format!("{}{}", leaf.pem(), middle.pem());
        place.write("ca.pem", 0o644, &root.pem());
        place.write("c.crt", 0o644, &chain);
        place.write("c.key", 0o600, &key.serialize_pem());
        place.write("token", 0o640, "0123456789abcdef0123456789abcdef");
        place.write("config.yaml", 0o644, config);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn check(&self, json: bool) -> (u8, String) {
        let mut out = Vec::new();
        let config = self.path("config.yaml");
        let code = run(&config, 30, json, Style::plain(), &mut out);
        (code, String::from_utf8(out).unwrap())
    }
}

fn config(listen: &str, admin: &str) -> String {
    format!(
        "banks:\n  - name: b\n    url: https://bank.test\n    trust: {{ca_file: ca.pem}}\n    \
         identity: {{cert_file: c.crt, key_file: c.key}}\n    listen: [{listen}]\n    \
         routes: [{{name: r, method: GET, path: /}}]\nadmin: {admin}\n\
         hardening: disabled\n"
    )
}

fn quiet() -> String {
    config("{unix: s, callers: [1]}", "{unix: a, operators: [0]}")
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[test]
fn a_place_without_fault_has_neither_problem_nor_warning() {
    let (code, told) = Place::new(&quiet(), authority()).check(false);
    assert_eq!(code, OK, "{told}");
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn an_audit_log_without_a_key_is_a_warning_and_one_with_a_wrong_key_a_problem() {
    let with = |audit: &str| format!("{}{audit}\n", quiet());
    let (code, told) = Place::new(&with("audit: {file: a.jsonl}"), authority()).check(false);
    assert!(code == OK && told.contains("no key_file"), "{told}");
    let key = "audit: {file: a.jsonl, key_file: c.key, public_key_file: c.key}";
    let (code, told) = Place::new(&with(key), authority()).check(false);
    assert!(
        code == PROBLEM && told.contains("audit.public_key_file"),
        "{told}"
    );
    let place = Place::new(
        &with("audit: {file: a.jsonl, key_file: a.key, public_key_file: a.pub}"),
        authority(),
    );
    for (private, code, word) in [
        ("a.key", OK, "it belongs to audit.public_key_file"),
        ("b.key", PROBLEM, "it does not belong to"),
    ] {
        for name in ["a", "b"] {
            let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            place.write(&format!("{name}.key"), 0o600, &key.serialize_pem());
            place.write(&format!("{name}.pub"), 0o644, &key.public_key_pem());
        }
        fs::rename(place.path(private), place.path("a.key")).unwrap();
        let (found, told) = place.check(false);
        assert!(found == code && told.contains(word), "{told}");
    }
}

#[test]
fn a_callback_whose_last_key_ends_is_a_problem_and_a_rotation_is_none() {
    let place = |keys: &str| {
        let callbacks = format!(
            "{}callbacks:\n  - name: c\n    listen: [{{unix: cb}}]\n    path: /c\n    signature: {{header: X-Signature, keys: [{keys}]}}\n    event: {{id: [body-sha256]}}\n    deliver: {{url: \"http://127.0.0.1:1/\", host: shop.example, secret_files: [deliver.secret]}}\njournal: {{sqlite: j.db}}\n",
            quiet()
        );
        let place = Place::new(&callbacks, authority());
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        place.write("deliver.secret", 0o600, secret);
        for name in ["old.pub", "new.pub"] {
            let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            place.write(name, 0o644, &key.public_key_pem());
        }
        place.check(false)
    };
    let old = "{id: old, algorithm: ed25519, file: old.pub, not_after: 2001-01-01T00:00:00Z}";
    let (code, told) = place(old);
    assert!(
        code == PROBLEM
            && told.contains("the last of signature.keys ended at 2001-01-01T00:00:00Z"),
        "{told}"
    );
    for (new, end) in [
        ("", ""),
        (", not_after: 2199-01-01T00:00:00Z", "is good until 2199"),
    ] {
        let (code, told) = place(&format!(
            "{old}, {{id: new, algorithm: ed25519, file: new.pub{new}}}"
        ));
        assert!(code == OK && told.contains(end), "{told}");
    }
}

#[test]
fn an_expired_intermediate_certificate_is_a_problem() {
    let mut params = authority();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2001, 1, 1);
    let (code, told) = Place::new(&quiet(), params).check(false);
    assert_eq!(code, PROBLEM, "{told}");
    assert!(told.contains("an intermediate certificate"), "{told}");
    assert!(told.contains("expired at 2001-01-01"), "{told}");
}

#[test]
fn a_key_that_a_group_can_read_is_a_warning_and_told_once() {
    let place = Place::new(&quiet(), authority());
    for (mode, code, warnings) in [(0o640, OK, 1), (0o644, PROBLEM, 0), (0o660, PROBLEM, 0)] {
        let key = fs::read_to_string(place.path("c.key")).unwrap();
        place.write("c.key", mode, &key);
        let (found, told) = place.check(false);
        assert_eq!(found, code, "{mode:o}: {told}");
        let group = told.matches("its group can read it").count();
        assert_eq!(group, warnings, "{mode:o}: {told}");
    }
}

#[test]
fn a_readable_key_is_told_even_without_its_certificate() {
    let place = Place::new(&quiet(), authority());
    fs::remove_file(place.path("c.crt")).unwrap();
    let key = fs::read_to_string(place.path("c.key")).unwrap();
    place.write("c.key", 0o644, &key);
    let (code, told) = place.check(false);
    assert_eq!(code, PROBLEM, "{told}");
    assert!(told.contains("every local user can read it"), "{told}");
}

#[test]
fn what_is_allowed_but_dangerous_is_a_warning() {
    let listen = "{unix: s, callers: [1, root]}, {unix: t, callers: [root]}, \
                  {tcp: \"192.0.2.1:1\", unsafe_listen: true, token_files: [token]}";
    let text = config(listen, "{unix: a, operators: [0, 7]}");
    let (code, told) = Place::new(&text, authority()).check(false);
    assert_eq!(code, OK, "{told}");
    let both = told.matches("uid 0 is a caller and an operator").count();
    assert_eq!(both, 1, "{told}");
    assert!(told.contains("192.0.2.1:1: not loopback"), "{told}");
}

#[test]
fn what_required_refuses_is_a_problem_and_a_key_that_can_be_read_a_warning_below_it() {
    let listen = "{unix: s, callers: [root]}";
    let text = config(listen, "{unix: a, operators: [0]}");
    for (level, code, word) in [
        ("required", PROBLEM, "problem      identity.key_file"),
        ("required", PROBLEM, "problem      banks[0].listen"),
        ("best-effort", OK, "warning      identity.key_file"),
    ] {
        let text = text.replace("disabled", level);
        let (found, told) = Place::new(&text, authority()).check(false);
        assert_eq!(found, code, "{told}");
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn a_program_is_given_the_place_of_each_mistake() {
    let place = Place::new("banks: 5\n", authority());
    let (code, told) = place.check(true);
    assert_eq!(code, CONFIG);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let mistake = &told["mistakes"][0];
    assert_eq!(told["ok"], false);
    assert_eq!(
        (&mistake["line"], &mistake["key"]),
        (&1.into(), &"banks".into())
    );
    assert_eq!(mistake["message"], "expected a list, found a number");
}
