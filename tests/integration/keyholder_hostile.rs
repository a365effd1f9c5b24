//! A bank, a gate or a full machine that would stop the keys, use them up, or hide that they were used.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use priorgate::policy::keyproto::{Answer, KeyId, PACKET_MAX, Request};
use priorgate::policy::signing::self_test_message;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::support::audit::Keys;
use crate::support::bank::{Bank, Demand, Session, Speaks};
use crate::support::gate::{Setup, me};
use crate::support::keyholder::{Caller, Keyholder, listener};
use crate::support::process::children;
use crate::support::world::World;
use crate::support::{eventually, is_root, until};

const P256: u16 = 0x0403;
/// The gate's user, where the tests are root.
const OTHER: u32 = 65_532;

fn start(rate: &str) -> (Setup, Keyholder, Caller, KeyId) {
    let setup = World::new().setup(1);
    let setup = setup.bank(&format!(
        "url: https://localhost:1\n    trust: {{ca_file: bank-ca.pem}}\n    identity: {{cert_file: client.crt, \
         key_file: client.key{rate}}}"
    ));
    setup.write();
    let (keyholder, mut caller) = Keyholder::connected(&setup.config());
    let key = caller.keys().1[0].key;
    (setup, keyholder, caller, key)
}

#[test]
fn a_bank_whose_handshake_no_packet_holds_loses_its_own_and_nobody_elses() {
    let world = World::new();
    let good = world.good_bank();
    let server = world.bank_ca.server("bank.test");
    let demand = Demand::OfManyNames(&world.client_ca);
    let hostile = Bank::start(&server, &demand, Speaks::Tls12, Session::serve);
    let rest = "dns: {addresses: [127.0.0.1]}\n    trust: {ca_file: bank-ca.pem, server_name: bank.test}\n    \
                identity: {cert_file: client.crt, key_file: client.key}\n    timeouts: {connect: 5s, response: 5s, total: 15s}";
    let two = format!(
        "url: https://localhost:{}\n    {rest}\n    tls: {{min_version: \"1.2\"}}\n    listen: [{{unix: hostile.sock, \
         callers: [{}]}}]\n    routes: [{{name: refund, method: POST, path: /installment/refund, connection: fresh}}]\n  - \
         name: second\n    url: https://localhost:{}\n    {rest}",
        hostile.port(),
        me(),
        good.port()
    );
    let gate = world.setup(1).bank(&two).start();
    let before = gate.status()["keyholder"].clone();
    let to_hostile = crate::support::client::Target::Unix(gate.path().join("hostile.sock"));
    for _ in 0..3 {
        let answer = to_hostile.post("/installment/refund", "", b"{}");
        assert_eq!(
            (answer.code().as_str(), answer.outcome()),
            ("identity_unavailable", "not_sent"),
            "{}",
            gate.log()
        );
        let answer = gate.unix().post("/installment/refund", "", b"{}");
        assert_eq!(answer.status, 200, "{}", gate.log());
    }
    let after = gate.status()["keyholder"].clone();
    assert_eq!(
        (&after["pid"], &after["restarts"]),
        (&before["pid"], &before["restarts"])
    );
    assert_eq!((hostile.connections(), good.connections()), (3, 3));
}

#[test]
fn packets_that_are_none_do_not_end_the_only_connection() {
    let (_setup, keyholder, mut caller, key) = start("");
    let (pid, _) = caller.keys();
    let too_long = Request::Sign {
        key,
        scheme: P256,
        message: &vec![0; PACKET_MAX],
    }
    .encode(7);
    for bad in [&b""[..], b"x", &[2; 40], &too_long, b""] {
        caller.send(bad);
        assert_eq!(caller.keys().0, pid);
    }
    assert_eq!(children(keyholder.monitor.id()), [pid]);
}

#[test]
fn reloads_give_no_signatures_beyond_the_rate() {
    let (_setup, _keyholder, mut caller, key) = start(", sign_rate: {burst: 6, per_second: 2}");
    let message = self_test_message();
    let started = Instant::now();
    let mut signed = 0;
    for _ in 0..=5 {
        while let Answer::Signed(_) = caller.sign(key, P256, &message) {
            signed += 1;
        }
        assert_eq!(caller.ask(&Request::Reload), Answer::Reloaded(Ok(())));
    }
    let most = 6 + 2 * (1 + started.elapsed().as_secs());
    assert!(signed >= 6 && signed <= most, "{signed} of {most}");
}

#[test]
fn a_signer_that_dies_gives_no_signatures_beyond_the_rate_either() {
    let (_setup, keyholder, mut caller, key) = start(", sign_rate: {burst: 50, per_second: 1}");
    let message = self_test_message();
    let started = Instant::now();
    let mut signed = 0;
    for _ in 0..3 {
        while let Answer::Signed(_) = caller.sign(key, P256, &message) {
            signed += 1;
        }
        let (old, _) = caller.keys();
        kill_process(Pid::from_raw(old.cast_signed()).unwrap(), Signal::KILL).unwrap();
        until("there is another", || {
            children(keyholder.monitor.id())
                .iter()
                .any(|pid| *pid != old)
        });
    }
    let most = 50 + 1 + started.elapsed().as_secs();
    assert!((50..=most).contains(&signed), "{signed} of {most}");
}

#[test]
fn reloads_that_a_gate_asks_for_are_paced() {
    let (_setup, _keyholder, mut caller, _) = start("");
    let started = Instant::now();
    for _ in 0..8 {
        assert_eq!(caller.ask(&Request::Reload), Answer::Reloaded(Ok(())));
    }
    // Five at once, and one a second after that.
    assert!(started.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_flood_of_refusals_leaves_room_in_the_log_for_the_signatures() {
    let (_setup, keyholder, mut caller, key) = start("");
    let started = Instant::now();
    for _ in 0..2000 {
        let answer = caller.sign(key, P256, b"pay");
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
    let signed = caller.sign(key, P256, &self_test_message());
    assert!(matches!(signed, Answer::Signed(_)));
    let refusal = "refused to sign: it is not what a TLS client signs";
    let summary = "more refusals, without a line for each";
    until("none is lost from the count", || {
        let summed: u64 = keyholder
            .lines(summary)
            .iter()
            .map(|line| line["count"].as_u64().unwrap())
            .sum();
        summed + keyholder.lines(refusal).len() as u64 == 2000
    });
    let written = keyholder.lines(refusal).len() + keyholder.lines(summary).len();
    let most = 21 + usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(written <= most, "{written} of {most}");
    assert_eq!(keyholder.lines("signed").len(), 1);
}

#[test]
fn a_process_that_cannot_be_made_at_a_reload_leaves_the_signer_alone() {
    let (_setup, keyholder, mut caller, key) = start("");
    let (pid, _) = caller.keys();
    let monitor = Pid::from_raw(keyholder.monitor.id().cast_signed());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = getrlimit(Resource::Nofile).current;
    let none = Rlimit {
        // As many as it polls, and fewer than it has.
        current: Some(4),
        maximum,
    };
    prlimit(monitor, Resource::Nofile, none).unwrap();
    let kept = caller.ask(&Request::Reload);
    assert!(
        matches!(&kept, Answer::Reloaded(Err(why)) if why.contains("cannot be started")),
        "{kept:?}"
    );
    let signed = caller.sign(key, P256, &self_test_message());
    assert!(matches!(signed, Answer::Signed(_)), "{signed:?}");
    assert_eq!(caller.keys().0, pid);
    prlimit(monitor, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    assert_eq!(caller.ask(&Request::Reload), Answer::Reloaded(Ok(())));
    assert_ne!(caller.keys().0, pid);
}

#[test]
fn a_signer_that_is_told_to_end_writes_its_count_down_first() {
    let setup = World::new().setup(1);
    let keys = Keys::make(setup.path());
    let setup = setup.top(&format!(
        "audit: {{file: audit.jsonl, key_file: audit.key, public_key_file: {}}}",
        keys.public.display()
    ));
    setup.write();
    let path = setup.path().join("sign.sock");
    let socket = listener(&path);
    let keyholder = Keyholder::listening(&setup.config(), &socket);
    let checkpoint = |caller: &mut Caller, sequence| {
        let head = [1; 32];
        match caller.ask(&Request::Checkpoint { sequence, head }) {
            Answer::Checkpoint { signatures, .. } => signatures,
            other => panic!("{other:?}"),
        }
    };
    let mut caller = Caller::at(&path);
    let (pid, held) = caller.keys();
    assert_eq!(checkpoint(&mut caller, 1), 0);
    for _ in 0..3 {
        let signed = caller.sign(held[0].key, P256, &self_test_message());
        assert!(matches!(signed, Answer::Signed(_)));
    }
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(caller.hear(), None);
    let mut caller = Caller::at(&path);
    assert_eq!(checkpoint(&mut caller, 2), 3, "{}", keyholder.log());
}

#[test]
fn a_signer_is_closed_to_its_own_user_before_it_reads_a_key() {
    if !is_root() {
        return;
    }
    let setup = World::new().setup(1);
    let key = setup.path().join("client.key");
    fs::remove_file(&key).unwrap();
    // Nobody writes to it: whoever opens it waits there.
    mknodat(CWD, &key, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    setup.write();
    let socket = listener(&setup.path().join("sign.sock"));
    chown(setup.path(), Some(OTHER), Some(OTHER)).unwrap();
    for file in fs::read_dir(setup.path()).unwrap() {
        chown(file.unwrap().path(), Some(OTHER), Some(OTHER)).unwrap();
    }
    let keyholder = Keyholder::start(&setup.config(), socket, |command| {
        command.uid(OTHER).gid(OTHER);
    });
    let signer = eventually("there is a signer", || {
        children(keyholder.monitor.id()).first().copied()
    });
    // What is not dumpable is root's, below /proc.
    for pid in [keyholder.monitor.id(), signer] {
        until("it is closed", || {
            fs::metadata(format!("/proc/{pid}/environ")).is_ok_and(|found| found.uid() == 0)
        });
    }
}
