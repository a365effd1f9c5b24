//! Each alarm's cause, made for real: the scrape has the series that the alert reads, `/readyz` and the status say what is
//! wrong, and the log is told once.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use priorgate::sandbox::CallbackAlgorithm;
use rustix::process::Signal;

use crate::callbacks::{order, send, setup, start};
use crate::keyholder_life::packaged;
use crate::support::gate::Gate;
use crate::support::operation::{self, REFUND, ask, refund};
use crate::support::pki::{Ca, replace};
use crate::support::sandbox::SandboxBank;
use crate::support::scrape::{Scrape, until_value};
use crate::support::shop::{Mood, Shop};
use crate::support::until;
use crate::support::world::World;

const DAY: u64 = 86_400;

fn readyz(gate: &Gate) -> (u16, String) {
    let answer = gate.admin_tcp().get("/readyz");
    (answer.status, String::from_utf8(answer.body).unwrap())
}

fn warned(gate: &Gate, part: &str) -> bool {
    let status = gate.status();
    let mut warnings = status["warnings"].as_array().unwrap().iter();
    warnings.any(|warning| warning.as_str().unwrap().contains(part))
}

fn told(gate: &Gate, part: &str) -> usize {
    let lines = gate.lines(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains(part)
    });
    lines.len()
}

#[test]
fn callbacks_that_the_shop_does_not_take_are_late_and_then_dead() {
    let algorithm = CallbackAlgorithm::Ed25519;
    let (bank, shop) = (SandboxBank::with_callbacks(algorithm), Shop::open());
    shop.mood(Mood::Broken);
    let setup = setup(&bank, shop.addr(), algorithm).edit(
        "max_head_wait: 1s",
        "alarm_after: 1s\n      expire_after: 3s",
    );
    let gate = start(&bank, setup);
    let fine = Scrape::of(&gate);
    let (late, dead) = (
        r#"priorgate_callback_late{callback="bank"}"#,
        r#"priorgate_callback_events{callback="bank",state="dead"}"#,
    );
    assert_eq!((fine.value(late), fine.value(dead)), (0.0, 0.0));
    send(&bank, order("s1", "APPROVED"));
    until_value(&gate, dead, |events| events == 1.0);
    let scrape = Scrape::of(&gate);
    let deliveries = |result: &str| {
        scrape.value(&format!(
            r#"priorgate_callback_deliveries_total{{callback="bank",result="{result}"}}"#
        ))
    };
    assert_eq!((deliveries("dead"), deliveries("delivered")), (1.0, 0.0));
    assert!(deliveries("retried") >= 1.0);
    assert!(warned(
        &gate,
        "1 events were given up; see `priorgate callbacks list --state dead`"
    ));
    // Another that nobody gives up so soon: late, for as long as the shop does not take it.
    let patient = std::fs::read_to_string(gate.config()).unwrap();
    let patient = patient.replace("expire_after: 3s", "expire_after: 30d");
    replace(&gate.config(), &patient);
    assert!(gate.command(&["reload"]).status.success());
    send(&bank, order("s2", "APPROVED"));
    until_value(&gate, late, |late| late == 1.0);
    let age = r#"priorgate_callback_oldest_undelivered_seconds{callback="bank"}"#;
    assert!(Scrape::of(&gate).value(age) > 1.0);
    shop.mood(Mood::Good);
    until_value(&gate, late, |late| late == 0.0);
}

#[test]
fn an_unknown_operation_is_seen_until_somebody_ends_it() {
    let world = World::new();
    let bank = operation::bank(&world);
    let gate = world
        .setup(bank.port())
        .guarded()
        .with(World::SHORT)
        .start();
    let unknown = r#"priorgate_operations{state="unknown"}"#;
    assert_eq!(Scrape::of(&gate).value(unknown), 0.0);
    let lost = ask(&gate.unix(), REFUND, "k1", &refund("s1", 1, "lose"));
    assert_eq!(lost.outcome(), "unknown");
    assert_eq!(Scrape::of(&gate).value(unknown), 1.0);
    assert!(warned(&gate, "priorgate operations list --open"));
    until("the log is told", || {
        told(&gate, "may have reached the bank and have no answer") == 1
    });
    let id = operation::operation(&lost).0;
    let ended = gate.command(&[
        "operations",
        "resolve",
        &id,
        "--as",
        "not-sent",
        "--yes",
        "--reason",
        "asked",
    ]);
    assert!(ended.status.success(), "{ended:?}");
    until_value(&gate, unknown, |unknown| unknown == 0.0);
    assert_eq!(readyz(&gate), (200, "ready\n".to_owned()));
}

#[test]
fn a_killed_keyholder_is_noticed_without_a_request() {
    let world = World::new();
    let bank = world.good_bank();
    // The service manager's: a gate that has started its own ends with it.
    let (gate, mut keyholder, _socket) = packaged(&world, bank.port());
    assert_eq!(readyz(&gate), (200, "ready\n".to_owned()));
    keyholder.signal(Signal::KILL);
    keyholder.wait();
    until_value(&gate, "priorgate_keyholder_up", |up| up == 0.0);
    assert_eq!(Scrape::of(&gate).value("priorgate_ready"), 0.0);
    assert_eq!(
        readyz(&gate),
        (503, "not ready: the keyholder does not answer\n".to_owned())
    );
    assert_eq!(gate.admin_tcp().get("/livez").status, 200);
    assert!(warned(&gate, "the keyholder does not answer"));
    assert_eq!(told(&gate, "the keyholder does not answer"), 1);
    assert_eq!(bank.connections(), 0, "nobody dialled the bank for it");
    // A handshake that nobody signs is counted.
    assert_eq!(
        gate.unix().post("/installment/create", "", b"{}").status,
        502
    );
    let refused = r#"priorgate_keyholder_refusals_total{reason="unanswered"}"#;
    assert_eq!(Scrape::of(&gate).value(refused), 1.0);
}

/// A pair whose certificate ends so many days from now, and some minutes.
fn put(ca: &Ca, dir: &Path, days: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = now + Duration::from_secs(days * DAY + 600);
    ca.client_until("shop", end).write(dir, "client");
    // As it should be: `check` has nothing else to find.
    let mode = Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.join("client.key"), mode).unwrap();
}

#[test]
fn a_certificate_near_its_end_is_told_once_for_each_threshold() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    put(&world.client_ca, setup.path(), 13);
    let gate = setup.start();
    let words = "the client certificate (CN=shop) ends at";
    let series =
        r#"priorgate_certificate_not_after_timestamp_seconds{kind="client",name="bank",id="leaf"}"#;
    let left = |gate: &Gate| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (Scrape::of(gate).value(series) - now.as_secs_f64()) / 86_400.0
    };
    assert!((13.0..13.1).contains(&left(&gate)), "{}", left(&gate));
    assert!(warned(&gate, words));
    assert_eq!(told(&gate, words), 1);
    // `check` says so by its exit code, and with --days as somebody likes.
    let check = gate.command(&["check"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert_eq!(
        gate.command(&["check", "--days", "7"]).status.code(),
        Some(0)
    );
    // A reload with nothing new tells nothing new, and neither do the looks.
    assert!(gate.command(&["reload"]).status.success());
    let before = Scrape::of(&gate).value("priorgate_look_timestamp_seconds");
    until_value(&gate, "priorgate_look_timestamp_seconds", |at| at > before);
    assert_eq!(told(&gate, words), 1);
    let ends = |days| {
        put(&world.client_ca, gate.path(), days);
        assert!(gate.command(&["reload"]).status.success());
    };
    ends(200);
    assert!(!warned(&gate, words));
    ends(3);
    assert!((3.0..3.1).contains(&left(&gate)), "{}", left(&gate));
    assert_eq!(told(&gate, words), 2);
}

#[test]
fn a_failed_reload_is_seen_until_one_goes_well() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    let success = "priorgate_last_reload_success";
    let at = "priorgate_last_reload_timestamp_seconds";
    let before = Scrape::of(&gate);
    assert_eq!(before.value(success), 1.0);
    assert_eq!(
        before.value(at),
        before.value("priorgate_start_time_seconds")
    );
    let good = std::fs::read_to_string(gate.config()).unwrap();
    replace(&gate.config(), &good.replace("url:", "urll:"));
    assert!(!gate.command(&["reload"]).status.success());
    let failed = Scrape::of(&gate);
    assert_eq!(failed.value(success), 0.0);
    assert!(failed.value(at) >= before.value(at));
    // It serves on.
    assert_eq!(readyz(&gate), (200, "ready\n".to_owned()));
    replace(&gate.config(), &good);
    assert!(gate.command(&["reload"]).status.success());
    assert_eq!(Scrape::of(&gate).value(success), 1.0);
}
