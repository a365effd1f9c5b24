//! Callbacks over real sockets, judged by a receiver of their own.
//!
//! Owns the scenarios. Waits for what is said to happen, never for time to pass.

mod receiver;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use self::receiver::{PATH, Received, Receiver, Reply};
use super::*;

fn options(receiver: &Receiver) -> CallbackOptions {
    CallbackOptions {
        retry_base: Duration::from_millis(5),
        // Small keys are made faster; what is signed is the same.
        algorithm: CallbackAlgorithm::Ed25519,
        ..CallbackOptions::new(receiver.url.clone())
    }
}

async fn sending(callbacks: CallbackOptions) -> Sandbox {
    let options = Options {
        callbacks: Some(callbacks),
        ..Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

/// The first events, once so many are settled.
async fn settled(sandbox: &Sandbox, count: usize) -> Vec<CallbackEvent> {
    let mut log = sandbox.follow();
    loop {
        let events = sandbox.callbacks();
        if events
            .iter()
            .filter(|event| event.state.is_settled())
            .count()
            >= count
        {
            return events;
        }
        timeout(PATIENCE, log.recv()).await.unwrap().unwrap();
    }
}

fn fits(sandbox: &Sandbox, received: &Received) -> Vec<bool> {
    let pem = sandbox.callback_key_pem().unwrap();
    received.fits(CallbackAlgorithm::Ed25519, &pem)
}

async fn decide(sandbox: &Sandbox, session: &str, status: &str) -> u16 {
    let path = format!("/control/sessions/{session}/status");
    let order = json!({"status": status}).to_string();
    control(sandbox, &post(&path, &order)).await.0
}

#[tokio::test]
async fn what_becomes_of_a_session_is_told_and_signed_by_every_algorithm() {
    for algorithm in CallbackAlgorithm::ALL {
        let mut receiver = Receiver::start(&[]);
        let callbacks = CallbackOptions {
            algorithm,
            ..options(&receiver)
        };
        let sandbox = sending(callbacks).await;
        let pem = sandbox.callback_key_pem().unwrap();
        let session = created(&sandbox, "Заказ 17").await;
        let approved = receiver.next().await;
        assert_eq!(approved.fits(algorithm, &pem), [true], "{algorithm}");
        let wrong = sandbox.callback_wrong_key_pem().unwrap();
        assert_eq!(approved.fits(algorithm, &wrong), [false], "{algorithm}");
        assert!(
            approved
                .head
                .starts_with("POST /bank/callback HTTP/1.1\r\nHost: 127.0.0.1:")
        );
        assert_eq!(approved.values("Content-Type"), ["application/json"]);
        let mut body = approved.json();
        let event_id = body.as_object_mut().unwrap().remove("event_id").unwrap();
        let expected = json!({
            "session_id": session, "order_ref": "Заказ 17", "status": "APPROVED",
            "amount": "149.90", "currency": "BYN",
        });
        assert_eq!(body, expected);

        let (_, answer) = refund(&sandbox, &session, "49.90").await;
        let part = receiver.next().await;
        assert_eq!(part.fits(algorithm, &pem), [true], "{algorithm}");
        let body = part.json();
        assert_ne!(body["event_id"], event_id);
        assert_eq!(body["refund_id"], answer["refund_id"]);
        let seen = ["status", "amount", "refund_amount", "refunded"].map(|name| &body[name]);
        assert_eq!(seen, ["REFUNDED", "149.90", "49.90", "49.90"]);
        refund(&sandbox, &session, "100.00").await;
        assert_eq!(receiver.next().await.json()["refunded"], "149.90");
        let events = settled(&sandbox, 3).await;
        assert_eq!(events[0].event_id, event_id.as_str().unwrap());
        assert_eq!(events[0].body, approved.body);
        assert!(events.iter().all(|event| {
            let counts = (event.attempts, event.accepted, event.last_answer);
            event.state == CallbackState::Accepted && counts == (1, 1, Some(200))
        }));
    }
}

#[tokio::test]
async fn a_decision_is_told_once_and_only_when_it_changes_something() {
    let mut receiver = Receiver::start(&[]);
    let options = Options {
        auto_approve: false,
        callbacks: Some(options(&receiver)),
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let [one, two] = [created(&sandbox, "1").await, created(&sandbox, "2").await];
    assert_eq!(decide(&sandbox, &one, "PENDING").await, 200);
    assert_eq!(decide(&sandbox, &one, "REJECTED").await, 200);
    assert_eq!(receiver.next().await.status(), "REJECTED");
    assert_eq!(decide(&sandbox, &one, "REJECTED").await, 200);
    assert_eq!(decide(&sandbox, &one, "APPROVED").await, 409);
    sandbox.decide(&two, SessionStatus::Approved).unwrap();
    sandbox.decide(&two, SessionStatus::Cancelled).unwrap();
    assert_eq!(receiver.next().await.status(), "APPROVED");
    assert_eq!(receiver.next().await.status(), "CANCELLED");
    assert_eq!(refund(&sandbox, &two, "1").await.0, 409);
    assert_eq!(settled(&sandbox, 3).await.len(), 3);
    assert!(receiver.nothing_more());
}

#[tokio::test]
async fn anything_but_2xx_makes_the_bank_send_the_same_bytes_again() {
    let bad = [
        Reply::Status(503),
        Reply::Close,
        Reply::Status(302),
        Reply::Silence,
        Reply::Status(403),
    ];
    let mut receiver = Receiver::start(&bad);
    let callbacks = CallbackOptions {
        patience: Duration::from_secs(2),
        // A signature with a salt would show that it was made again.
        algorithm: CallbackAlgorithm::RsaPssSha256,
        ..options(&receiver)
    };
    let sandbox = sending(callbacks).await;
    let session = created(&sandbox, "1").await;
    refund(&sandbox, &session, "1").await;
    let first = receiver.next().await;
    for _ in bad {
        assert_eq!(receiver.next().await, first);
    }
    assert_eq!(
        receiver.next().await.status(),
        "REFUNDED",
        "after it, not before"
    );
    let events = settled(&sandbox, 2).await;
    let seen = (
        events[0].attempts,
        events[0].accepted,
        events[0].last_answer,
    );
    assert_eq!(seen, (6, 1, Some(200)));
    let log: Vec<_> = sandbox
        .log()
        .into_iter()
        .filter(|entry| entry.event == LogEvent::Callback)
        .collect();
    let answers: Vec<_> = log.iter().map(|entry| entry.status).collect();
    let none = None;
    let expected = [
        Some(503),
        none,
        Some(302),
        none,
        Some(403),
        Some(200),
        Some(200),
    ];
    assert_eq!(answers, expected);
    let line = format!(
        "APPROVED of {session} to {}, attempt 4: no answer in time",
        receiver.url
    );
    assert_eq!(log[3].line, line);
    assert!(
        log[0].to_string().contains("callback APPROVED"),
        "{}",
        log[0]
    );
}

#[tokio::test]
async fn a_shop_that_never_accepts_is_given_up_and_its_session_goes_on() {
    let mut receiver = Receiver::start(&[Reply::Status(503), Reply::Status(500)]);
    let callbacks = CallbackOptions {
        attempts: 2,
        ..options(&receiver)
    };
    let sandbox = sending(callbacks).await;
    let session = created(&sandbox, "1").await;
    refund(&sandbox, &session, "1").await;
    let statuses = [
        receiver.next().await,
        receiver.next().await,
        receiver.next().await,
    ];
    let statuses = statuses.map(|received| received.status());
    assert_eq!(statuses, ["APPROVED", "APPROVED", "REFUNDED"]);
    let events = settled(&sandbox, 2).await;
    assert_eq!(events[0].state, CallbackState::GivenUp);
    assert_eq!((events[0].attempts, events[0].last_answer), (2, Some(500)));
    assert_eq!(events[1].state, CallbackState::Accepted);
}

#[tokio::test]
async fn a_shop_that_is_down_gets_it_when_it_is_back_elsewhere() {
    let mut receiver = Receiver::start(&[]);
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let callbacks = CallbackOptions {
        url: CallbackUrl::tcp(gone, PATH).unwrap(),
        ..options(&receiver)
    };
    let sandbox = sending(callbacks).await;
    let mut log = sandbox.follow();
    created(&sandbox, "1").await;
    loop {
        let entry = timeout(PATIENCE, log.recv()).await.unwrap().unwrap();
        if entry.event == LogEvent::Callback {
            assert_eq!(entry.status, None);
            break;
        }
    }
    sandbox.redirect_callbacks(receiver.url.clone()).unwrap();
    assert_eq!(receiver.next().await.status(), "APPROVED");
    let events = settled(&sandbox, 1).await;
    assert!(events[0].attempts > 1 && events[0].accepted == 1);
}

#[tokio::test]
async fn a_unix_socket_is_called_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("callback.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let url = CallbackUrl::unix(&socket, PATH).unwrap();
    let mut receiver = Receiver::serve(url, &[], move || listener.accept().unwrap().0);
    let options = Options {
        callbacks: Some(options(&receiver)),
        dir: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    created(&sandbox, "1").await;
    let received = receiver.next().await;
    assert_eq!(received.values("Host"), ["localhost"]);
    let file = sandbox.callback_key_file().unwrap();
    assert_eq!(file, dir.path().join("bank-callback.pem"));
    let pem = std::fs::read_to_string(file).unwrap();
    assert_eq!(received.fits(CallbackAlgorithm::Ed25519, &pem), [true]);
}

#[tokio::test]
async fn faults_of_the_signature_stay_with_their_callback_and_hit_no_other() {
    for (fault, signatures) in [
        ("wrong-key", &[false][..]),
        ("changed-byte", &[false]),
        ("re-encoded", &[false]),
        ("no-signature", &[]),
        ("two-signatures", &[true, false]),
    ] {
        let mut receiver = Receiver::start(&[Reply::Status(403)]);
        let sandbox = sending(options(&receiver)).await;
        sandbox.arm_callback(fault.parse().unwrap(), 1).unwrap();
        created(&sandbox, "17").await;
        let spoilt = receiver.next().await;
        assert_eq!(fits(&sandbox, &spoilt), signatures, "{fault}");
        assert_eq!(
            receiver.next().await,
            spoilt,
            "{fault}: the same bytes again"
        );
        let body = spoilt.json();
        let changed = body["amount"] != "149.90";
        assert_eq!(changed, fault == "changed-byte", "{body}");
        if fault == "re-encoded" {
            let first = String::from_utf8(spoilt.body.clone()).unwrap();
            let first = first
                .replace("\n  ", "")
                .replace("\": ", "\":")
                .replace('\n', "");
            let pem = sandbox.callback_key_pem().unwrap();
            let algorithm = CallbackAlgorithm::Ed25519;
            assert_eq!(spoilt.fits_with(algorithm, &pem, first.as_bytes()), [true]);
        }
        if fault == "wrong-key" {
            let pem = sandbox.callback_wrong_key_pem().unwrap();
            assert_eq!(spoilt.fits(CallbackAlgorithm::Ed25519, &pem), [true]);
        }
        created(&sandbox, "18").await;
        assert_eq!(fits(&sandbox, &receiver.next().await), [true], "{fault}");
        let events = settled(&sandbox, 2).await;
        assert_eq!(events[0].fault.as_deref(), Some(fault));
        assert_eq!((events[0].attempts, events[1].fault.as_deref()), (2, None));
    }
}

#[tokio::test]
async fn a_stale_callback_has_an_old_timestamp_under_a_good_signature() {
    let mut receiver = Receiver::start(&[]);
    let callbacks = CallbackOptions {
        timestamp_header: Some("X-Timestamp".to_owned()),
        ..options(&receiver)
    };
    let sandbox = sending(callbacks).await;
    sandbox.arm_callback(CallbackFault::Stale, 1).unwrap();
    created(&sandbox, "1").await;
    created(&sandbox, "2").await;
    let mut ages = Vec::new();
    for _ in 0..2 {
        let received = receiver.next().await;
        let timestamp = received.values("X-Timestamp")[0];
        let message = [timestamp.as_bytes(), b".", &received.body].concat();
        let pem = sandbox.callback_key_pem().unwrap();
        let fits = received.fits_with(CallbackAlgorithm::Ed25519, &pem, &message);
        assert_eq!(fits, [true]);
        let then = Duration::from_secs(timestamp.parse().unwrap());
        let age = std::time::UNIX_EPOCH.elapsed().unwrap() - then;
        ages.push((received.json()["order_ref"].clone(), age.as_secs() / 86_400));
    }
    // Two sessions do not wait for each other.
    ages.sort_by_key(|(order_ref, _)| order_ref.to_string());
    assert_eq!(ages, [(json!("1"), 365), (json!("2"), 0)]);
    for taken in ["x-signature", "Host", "X Y", ""] {
        let callbacks = CallbackOptions {
            timestamp_header: Some(taken.to_owned()),
            ..options(&receiver)
        };
        let options = Options {
            callbacks: Some(callbacks),
            ..Options::default()
        };
        assert!(Sandbox::start(options).await.is_err(), "{taken}");
    }
}

#[tokio::test]
async fn a_doubled_callback_comes_twice_at_once_and_one_acceptance_is_enough() {
    let mut receiver = Receiver::start(&[Reply::Together(503), Reply::Together(503)]);
    let sandbox = sending(options(&receiver)).await;
    sandbox.arm_callback(CallbackFault::Doubled, 2).unwrap();
    created(&sandbox, "1").await;
    let (one, two) = (receiver.next().await, receiver.next().await);
    assert_eq!(one, two);
    assert_eq!(fits(&sandbox, &one), [true]);
    assert_eq!(receiver.next().await, one, "the second attempt is single");
    let events = settled(&sandbox, 1).await;
    assert_eq!((events[0].attempts, events[0].accepted), (3, 1));
    let answers: Vec<_> = sandbox
        .log()
        .iter()
        .filter(|entry| entry.event == LogEvent::Callback)
        .map(|entry| entry.status)
        .collect();
    assert_eq!(answers, [Some(503), Some(503), Some(200)]);
    receiver.reply(Reply::Status(503));
    created(&sandbox, "2").await;
    let events = settled(&sandbox, 2).await;
    assert_eq!((events[1].attempts, events[1].accepted), (2, 1));
}

#[tokio::test]
async fn a_re_ordered_callback_comes_after_the_next_one_of_its_session() {
    let mut receiver = Receiver::start(&[]);
    let sandbox = sending(options(&receiver)).await;
    sandbox.arm_callback(CallbackFault::ReOrdered, 1).unwrap();
    let session = created(&sandbox, "1").await;
    created(&sandbox, "2").await;
    assert_eq!(receiver.next().await.json()["order_ref"], "2");
    assert_eq!(sandbox.callbacks()[0].state, CallbackState::Held);
    refund(&sandbox, &session, "1").await;
    assert_eq!(receiver.next().await.status(), "REFUNDED");
    assert_eq!(receiver.next().await.status(), "APPROVED");
    settled(&sandbox, 3).await;
}

#[tokio::test]
async fn a_slow_body_dribbles_and_is_whole() {
    let mut receiver = Receiver::start(&[Reply::Status(408)]);
    let sandbox = sending(options(&receiver)).await;
    sandbox
        .arm_callback("slow-body-400ms".parse().unwrap(), 1)
        .unwrap();
    created(&sandbox, "1").await;
    let slow = receiver.next().await;
    assert!(slow.pieces > 2, "{} pieces", slow.pieces);
    assert_eq!(fits(&sandbox, &slow), [true]);
    let again = receiver.next().await;
    assert_eq!((again.pieces <= 1, again.body), (true, slow.body));
}

#[tokio::test]
async fn the_control_api_sends_by_hand_whatever_it_is_told() {
    let mut receiver = Receiver::start(&[]);
    let sandbox = sending(options(&receiver)).await;
    let session = created(&sandbox, "17").await;
    refund(&sandbox, &session, "1").await;
    assert_eq!(receiver.next().await.status(), "APPROVED");
    assert_eq!(receiver.next().await.status(), "REFUNDED");
    let send = |order: Value| post("/control/callbacks", &order.to_string());
    let order = json!({"session_id": session, "status": "APPROVED", "event_id": "e-same"});
    let (status, event) = control(&sandbox, &send(order)).await;
    assert_eq!((status, &event["event_id"]), (202, &json!("e-same")));
    let received = receiver.next().await;
    assert_eq!(fits(&sandbox, &received), [true]);
    let body = received.json();
    let seen = ["event_id", "status", "order_ref", "amount"].map(|name| &body[name]);
    assert_eq!(seen, ["e-same", "APPROVED", "17", "149.90"]);
    assert_eq!(body.get("refund_id"), None);

    receiver.reply(Reply::Status(503));
    let order = json!({
        "session_id": "s-unknown", "status": "DONE", "fault": "wrong-key", "attempts": 1,
    });
    assert_eq!(control(&sandbox, &send(order)).await.0, 202);
    let forged = receiver.next().await;
    assert_eq!(fits(&sandbox, &forged), [false]);
    let names: Vec<_> = forged.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["event_id", "session_id", "status"]);
    settled(&sandbox, 4).await;
    let (status, list) = control(&sandbox, &get("/control/callbacks")).await;
    assert_eq!((status, &list["dropped"]), (200, &json!(0)));
    let mut last = list["events"][3].clone();
    last.as_object_mut().unwrap().remove("event_id").unwrap();
    let expected = json!({
        "number": 4, "session_id": "s-unknown", "status": "DONE", "fault": "wrong-key",
        "state": "given-up", "attempts": 1, "accepted": 0, "last_answer": 503,
    });
    assert_eq!(last, expected);
    for (order, code) in [
        (json!({"session_id": "s"}), "body"),
        (json!({"session_id": "", "status": "X"}), "body"),
        (json!({"session_id": "s", "status": "a\nb"}), "body"),
        (json!({"session_id": "s", "status": "X", "n": 1}), "body"),
        (
            json!({"session_id": "s", "status": "X", "fault": "reset"}),
            "fault",
        ),
        (
            json!({"session_id": "s", "status": "X", "fault": "stale"}),
            "fault",
        ),
        (
            json!({"session_id": "s", "status": "X", "attempts": 0}),
            "fault",
        ),
    ] {
        let (status, body) = control(&sandbox, &send(order.clone())).await;
        let seen = (status, body["error"]["code"].as_str());
        assert_eq!(seen, (400, Some(code)), "{order}");
    }
    assert!(receiver.nothing_more());
}

#[tokio::test]
async fn the_control_api_arms_lists_and_clears_faults_of_callbacks() {
    let mut receiver = Receiver::start(&[]);
    let sandbox = sending(options(&receiver)).await;
    let path = "/control/callbacks/faults";
    for arm in [
        r#"{"fault":"re-ordered"}"#,
        r#"{"fault":"slow-body-1s","times":3}"#,
    ] {
        assert_eq!(control(&sandbox, &post(path, arm)).await.0, 200);
    }
    created(&sandbox, "1").await;
    let (_, armed) = control(&sandbox, &get(path)).await;
    assert_eq!(
        armed,
        json!({"armed": [{"fault": "slow-body-1s", "times": 3}]})
    );
    let (_, armed) = control(&sandbox, &get(path).replace("GET", "DELETE")).await;
    assert_eq!(armed, json!({"armed": []}));
    assert_eq!(
        receiver.next().await.status(),
        "APPROVED",
        "the held one is let go"
    );
    for bad in [
        r#"{"fault":"explode"}"#,
        r#"{"fault":"wrong-key","times":0}"#,
        r#"{"fault":"stale"}"#,
        r#"{"fault":"doubled","route":"create"}"#,
    ] {
        assert_eq!(control(&sandbox, &post(path, bad)).await.0, 400, "{bad}");
    }
    let put = get("/control/callbacks").replace("GET", "DELETE");
    assert_eq!(control(&sandbox, &put).await.0, 404);
    let off = started().await;
    let (status, body) = control(&off, &get("/control/callbacks")).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (409, &json!("callbacks_off"))
    );
    let refused = off.send_callback(CallbackOrder::default());
    assert_eq!(refused, Err(CallbackError::Off));
    assert!(off.callbacks().is_empty() && off.callback_key_pem().is_none());
}
