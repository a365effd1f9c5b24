//! The document's names, which scripts depend on.

use super::*;

/// A status with one bank, as a gate in service gives it.
pub(crate) fn sample() -> Status {
    let moment = |seconds| Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds));
    Status {
        version: "0.1.0".to_owned(),
        phase: Phase::Ready,
        pid: 4711,
        started_at: moment(1_790_000_000),
        config: "/etc/priorgate/config.yaml".to_owned(),
        last_reload: None,
        confinement: Confinement {
            level: "required".to_owned(),
            in_force: vec!["not dumpable".to_owned(), "seccomp".to_owned()],
            missing: Vec::new(),
            not_offered: vec!["Landlock scopes".to_owned()],
            restart_needed: None,
        },
        warnings: Vec::new(),
        banks: vec![Bank {
            name: "priorbank".to_owned(),
            url: "https://api.bank.example".to_owned(),
            transport: Transport::Mtls,
            listen: vec![
                ListenAddress::Unix("/run/priorgate/priorbank.sock".to_owned()),
                ListenAddress::Tcp("127.0.0.1:9180".to_owned()),
            ],
            generation: 1,
            certificate: Some(Certificate {
                subject: "CN=shop".to_owned(),
                not_after: moment(1_800_000_000),
                spki_sha256: "ab".repeat(32),
            }),
            addresses: vec!["192.0.2.7".to_owned()],
            breaker: Breaker::Closed,
            pool: Pool {
                idle: 1,
                opened: 2,
                reused: 40,
            },
            in_flight: 3,
            queued: 0,
            requests: Requests {
                answered: 41,
                not_sent: 2,
                unknown: 1,
            },
            denied: Denied {
                total: 3,
                last: Some(LastDenied {
                    at: moment(1_790_000_000),
                    listener: "tcp:127.0.0.1:9180".to_owned(),
                    uid: Some(1001),
                    cause: "not_listed".to_owned(),
                    count: 2,
                }),
            },
        }],
        callbacks: vec![Callback {
            name: "priorbank".to_owned(),
            path: "/bank/priorbank/callback".to_owned(),
            listen: vec![ListenAddress::Tcp("127.0.0.1:9181".to_owned())],
            accepted: 5,
            repeated: 6,
            rejected: 7,
            refused: 8,
            waiting: 9,
            oldest: None,
            held: 10,
            dead: 11,
            denied: Denied::default(),
        }],
        journal: Some(Journal {
            file: "/var/lib/priorgate/journal.db".to_owned(),
            failed: None,
            frozen: false,
            doubted: false,
            full: false,
            open: 1,
            unknown: 2,
            undelivered: 3,
            commits: 4,
            works: 9,
            size: 5,
            disk_free: Some(6),
        }),
        keyholder: Some(Keyholder {
            up: true,
            pid: Some(4713),
            signatures: 17,
            restarts: 0,
        }),
        admin: AdminListeners {
            unix: Some("/run/priorgate/admin.sock".to_owned()),
            tcp: None,
        },
        audit: None,
        log_dropped: 0,
        listeners_down: Vec::new(),
    }
}

#[test]
fn the_document_has_the_names_of_the_contract() {
    let document = serde_json::to_value(sample()).unwrap();
    let expected = serde_json::json!({
        "version": "0.1.0", "phase": "ready", "pid": 4711,
        "started_at": "2026-09-21T14:13:20Z", "config": "/etc/priorgate/config.yaml",
        "last_reload": null, "confinement": {
            "level": "required", "in_force": ["not dumpable", "seccomp"], "missing": [],
            "not_offered": ["Landlock scopes"], "restart_needed": null,
        }, "warnings": [],
        "banks": [{
            "name": "priorbank", "url": "https://api.bank.example", "transport": "mtls",
            "listen": [{"unix": "/run/priorgate/priorbank.sock"}, {"tcp": "127.0.0.1:9180"}],
            "generation": 1,
            "certificate": {
                "subject": "CN=shop", "not_after": "2027-01-15T08:00:00Z",
                "spki_sha256": "ab".repeat(32),
            },
            "addresses": ["192.0.2.7"], "breaker": "closed",
            "pool": {"idle": 1, "opened": 2, "reused": 40}, "in_flight": 3, "queued": 0,
            "requests": {"answered": 41, "not_sent": 2, "unknown": 1},
            "denied": {
                "total": 3, "last": {
                    "at": "2026-09-21T14:13:20Z", "listener": "tcp:127.0.0.1:9180", "uid": 1001,
                    "cause": "not_listed", "count": 2,
                },
            },
        }],
        "callbacks": [{
            "name": "priorbank", "path": "/bank/priorbank/callback", "listen": [{"tcp": "127.0.0.1:9181"}],
            "accepted": 5, "repeated": 6, "rejected": 7, "refused": 8,
            "waiting": 9, "oldest": null, "held": 10, "dead": 11,
            "denied": {"total": 0, "last": null},
        }],
        "journal": {
            "file": "/var/lib/priorgate/journal.db", "failed": null, "frozen": false, "doubted": false, "full": false,
            "open": 1, "unknown": 2, "undelivered": 3, "commits": 4, "works": 9, "size": 5, "disk_free": 6,
        },
        "keyholder": {"up": true, "pid": 4713, "signatures": 17, "restarts": 0},
        "audit": null, "admin": {"unix": "/run/priorgate/admin.sock", "tcp": null}, "log_dropped": 0, "listeners_down": [],
    });
    assert_eq!(document, expected);
    assert_eq!(
        serde_json::from_value::<Status>(document).unwrap(),
        sample()
    );
}

#[test]
fn a_newer_gates_document_is_read() {
    let mut document = serde_json::to_value(sample()).unwrap();
    document["novelties"] = serde_json::json!({"accepted": 1});
    assert_eq!(
        serde_json::from_value::<Status>(document).unwrap(),
        sample()
    );
}

#[test]
fn every_word_is_shown_as_it_is_written() {
    fn same<T: Serialize + fmt::Display>(words: &[T]) {
        for word in words {
            assert_eq!(serde_json::to_value(word).unwrap(), word.to_string());
        }
    }
    same(&[
        Phase::Starting,
        Phase::Ready,
        Phase::Reloading,
        Phase::Draining,
    ]);
    same(&[Transport::Mtls, Transport::PlaintextLoopback]);
    same(&[Breaker::Closed, Breaker::Open, Breaker::Probing]);
}

#[test]
fn a_time_that_cannot_be_written_becomes_the_nearest_that_can() {
    let text = |time: SystemTime| Timestamp::from(time).to_string();
    assert_eq!(
        text(UNIX_EPOCH - Duration::from_secs(1)),
        "1970-01-01T00:00:00Z"
    );
    assert_eq!(
        text(UNIX_EPOCH + Duration::from_millis(1_999)),
        "1970-01-01T00:00:01Z"
    );
    let far = UNIX_EPOCH + Duration::from_secs(300_000_000_000);
    assert_eq!(text(far), "9999-12-31T23:59:59Z");
}

#[test]
fn only_a_serving_gate_with_every_identity_is_ready() {
    let nothing: [&str; 0] = [];
    let mut status = sample();
    assert_eq!(status.failing(), nothing);
    status.phase = Phase::Reloading;
    assert_eq!(status.failing(), nothing);
    status.banks[0].certificate = None;
    assert_eq!(status.failing(), ["bank priorbank has no identity loaded"]);
    status.banks[0].transport = Transport::PlaintextLoopback;
    assert_eq!(status.failing(), nothing);
    status.banks.clear();
    status.journal.as_mut().unwrap().failed = Some("disk I/O error".to_owned());
    assert_eq!(
        status.failing(),
        [
            "no bank is loaded",
            "the journal has failed: disk I/O error"
        ]
    );
    for phase in [Phase::Starting, Phase::Draining] {
        assert_eq!(Status { phase, ..sample() }.failing(), [phase.to_string()]);
    }
}
