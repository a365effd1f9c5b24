//! Who called: the place of its token, and who was denied, by listener, user and second, in the audit log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::audit::{of, ours};
use crate::support::client::Target;
use crate::support::gate::Gate;
use crate::support::pki::replace;
use crate::support::until;
use crate::support::world::World;

const FIRST: &str = "the-first-token-0123456789";
const SECOND: &str = "the-second-token-0123456789";
/// Nobody here has it.
const FOREIGN: u32 = 4_000_000;

fn with_token(gate: &Gate, token: &str) -> u16 {
    let header = format!("Priorgate-Token: {token}\r\n");
    gate.tcp()
        .post("/installment/create", &header, b"{}")
        .status
}

#[test]
fn the_record_of_a_request_says_which_token_it_showed_and_never_the_token() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world
        .setup(bank.port())
        .listen(&[
            "{tcp: \"127.0.0.1:0\", token_files: [first.token, second.token]}",
            &format!(
                "{{unix: gate.sock, callers: [{}]}}",
                crate::support::gate::me()
            ),
        ])
        .top("audit: {file: audit.jsonl}");
    replace(&setup.path().join("first.token"), FIRST);
    replace(&setup.path().join("second.token"), SECOND);
    let mut gate = setup.start();
    for token in [SECOND, FIRST] {
        assert_eq!(with_token(&gate, token), 200);
    }
    assert_eq!(gate.unix().get("/installment/1").status, 200);
    for wrong in ["the-third-token-0123456789", ""] {
        assert_eq!(with_token(&gate, wrong), 401);
    }
    gate.finish();
    let log = gate.path().join("audit.jsonl");
    let tokens: Vec<_> = of(&log, "request")
        .iter()
        .map(|record| record["token"].clone())
        .collect();
    assert_eq!(tokens, [json!(1), json!(0), Value::Null]);
    let denied = of(&log, "denied");
    let times: u64 = denied.iter().map(|it| it["times"].as_u64().unwrap()).sum();
    assert_eq!(times, 2, "{denied:#?}");
    for record in denied {
        assert_eq!(
            (&record["code"], &record["cause"], &record["token"]),
            (&json!("token_required"), &json!("token"), &Value::Null)
        );
    }
    let text = std::fs::read_to_string(&log).unwrap();
    for token in [FIRST, SECOND, "the-third-token"] {
        assert!(!text.contains(token), "a token is in the log");
    }
}

#[test]
fn a_foreign_caller_is_on_record_by_listener_user_and_second_and_the_chain_holds() {
    let world = World::new();
    let bank = world.good_bank();
    let key =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures/bepaid.pub");
    let setup = world
        .setup(bank.port())
        .guarded()
        .listen(&[
            &format!("{{unix: gate.sock, callers: [{FOREIGN}]}}"),
            &format!("{{tcp: \"127.0.0.1:0\", callers: [{FOREIGN}]}}"),
        ])
        .top("audit: {file: audit.jsonl}")
        .top(&format!(
            "callbacks:\n  - name: from-bank\n    listen: [{{unix: callback.sock, callers: [{FOREIGN}]}}]\n    path: /cb\n    signature: {{header: X-Signature, keys: [{{id: k, algorithm: rsa-pkcs1-sha256, file: bank-callback.pem}}]}}\n    deliver: {{url: \"http://127.0.0.1:1/\", secret_files: [deliver.secret]}}"
        ));
    std::fs::copy(key, setup.path().join("bank-callback.pem")).unwrap();
    replace(
        &setup.path().join("deliver.secret"),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    );
    let mut gate = setup.start();
    let callback = Target::Unix(gate.path().join("callback.sock"));
    for target in [gate.unix(), gate.tcp(), callback] {
        for _ in 0..5 {
            let answer = target.post("/installment/of-anna-ivanova", "", b"{\"card\":4111}");
            assert_eq!(
                (answer.status, answer.code()),
                (403, "caller_denied".into())
            );
        }
    }
    let log = gate.path().join("audit.jsonl");
    // Without a drain: at the end of the second.
    until("the log has them", || of(&log, "denied").len() >= 3);
    gate.finish();
    let uid = rustix::process::getuid().as_raw();
    let mut sums: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    for record in of(&log, "denied") {
        assert_eq!(
            (&record["uid"], &record["code"], &record["cause"]),
            (&json!(uid), &json!("caller_denied"), &json!("not_listed"))
        );
        let owner = ["bank", "callback"].map(|name| record[name].as_str().unwrap_or("-"));
        let kind = record["listener"].as_str().unwrap().split(':').next();
        let sum = sums
            .entry(format!("{} {}", owner.join(" "), kind.unwrap()))
            .or_default();
        sum.0 += record["times"].as_u64().unwrap();
        sum.1 += 1;
    }
    let told: Vec<_> = sums.iter().map(|(name, sum)| (&**name, sum.0)).collect();
    assert_eq!(
        told,
        [
            ("- from-bank unix", 5),
            ("bank - tcp", 5),
            ("bank - unix", 5)
        ]
    );
    // One record a second, not one a request; the second may have ended once in between.
    assert!(sums.values().all(|sum| sum.1 <= 2), "{sums:?}");
    assert!(of(&log, "request").is_empty() && bank.requests().is_empty());
    let text = std::fs::read_to_string(&log).unwrap();
    for personal in ["anna", "4111", "installment"] {
        assert!(!text.contains(personal), "{personal} is in the log");
    }
    let said = ours(None, &[log], &[]);
    assert!(said.good, "{}", said.text);
}
