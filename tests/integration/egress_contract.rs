//! The gate's own refusals, what passes in both directions, and what every answer carries.

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::bank::{Bank, Speaks};
use crate::support::client::{Answer, Target, post};
use crate::support::gate::Gate;
use crate::support::pki::replace;
use crate::support::until;
use crate::support::world::World;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A good bank and a gate with the standard listeners.
fn pair() -> (Bank, Gate) {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world.gate(bank.port());
    (bank, gate)
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(
        (answer.status, &*answer.code(), answer.outcome()),
        (status, code, "not_sent"),
        "{told}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json; charset=utf-8")
    );
    let json = answer.json();
    assert_eq!(json["type"], format!("urn:priorgate:problem:{code}"));
    assert_eq!(
        (&json["status"], &json["outcome"]),
        (&status.into(), &"not_sent".into())
    );
    assert_eq!(
        json["request_id"].as_str(),
        answer.header("priorgate-request-id")
    );
    assert!(!json["title"].as_str().unwrap().is_empty());
    assert!(!json["detail"].as_str().unwrap().is_empty());
}

#[test]
fn every_local_refusal_has_its_status_and_code_and_reaches_no_bank() {
    let (bank, gate) = pair();
    let tcp = gate.tcp();
    let post = |headers: &str| post("/installment/create", headers, b"{}");
    let raw = |text: &str| text.as_bytes().to_vec();
    let long = format!("X-Long: {}\r\n", "a".repeat(20 << 10));
    let many: String = (0..80).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (
            raw("POST /installment/create HTTP/1.1\nHost: localhost\n\n"),
            400,
            "bad_request",
        ),
        (
            raw("POST  /installment/create HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            raw("POST http://localhost/installment/create HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            raw("POST /installment/create HTTP/2.0\r\nHost: localhost\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            raw("POST /installment/create HTTP/1.1\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            raw(
                "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            ),
            400,
            "bad_request",
        ),
        (
            raw(
                "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1",
            ),
            400,
            "bad_request",
        ),
        (
            raw("CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            400,
            "bad_request",
        ),
        (post("X_Forwarded: 1\r\n"), 400, "bad_request"),
        (post("Content-Type: text/plain\r\n"), 400, "bad_request"),
        (
            raw("GET /installment/s1 HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            raw("GET /installment/s1?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            post("Origin: https://evil.example\r\n"),
            403,
            "browser_request",
        ),
        (
            post("Sec-Fetch-Site: cross-site\r\n"),
            403,
            "browser_request",
        ),
        (
            post("X-Forwarded-For: 192.0.2.1\r\n"),
            403,
            "proxied_request",
        ),
        (post("Forwarded: for=192.0.2.1\r\n"), 403, "proxied_request"),
        (post("Via: 1.1 proxy\r\n"), 403, "proxied_request"),
        (
            raw("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            404,
            "route_not_found",
        ),
        (
            raw("GET /installment/%61 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            404,
            "route_not_found",
        ),
        (
            raw("DELETE /installment/s1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            405,
            "method_not_allowed",
        ),
        (
            raw("TRACE /installment/s1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            405,
            "method_not_allowed",
        ),
        (
            raw(
                "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            411,
            "length_required",
        ),
        (
            post("Content-Encoding: gzip\r\n"),
            415,
            "unsupported_media_type",
        ),
        (post(&long), 431, "head_too_large"),
        (post(&many), 431, "head_too_large"),
    ];
    for (count, (request, status, code)) in cases.iter().enumerate() {
        let answer = tcp.send(request);
        assert_refused(&answer, *status, code);
        gate.expect_records(count + 1);
    }
    assert_eq!((bank.connections(), bank.requests().len()), (0, 0));
}

#[test]
fn a_405_names_the_methods_of_the_path() {
    let (_bank, gate) = pair();
    let answer = gate
        .unix()
        .send(b"PUT /installment/create HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.header("allow"), Some("GET, POST"));
}

#[test]
fn a_head_and_a_body_that_do_not_arrive_in_time_are_told_so() {
    let world = World::new();
    let bank = world.good_bank();
    let timeouts = "timeouts: {head: 300ms, body: 300ms, total: 3s}";
    let gate = world.setup(bank.port()).with(timeouts).start();
    for part in [
        &b"POST /installm"[..],
        b"POST /installment/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut caller = gate.unix().connect();
        caller.write_all(part).unwrap();
        assert_refused(&caller.answer(), 408, "request_timeout");
    }
    gate.expect_records(2);
    assert_eq!(bank.connections(), 0);
}

#[test]
fn an_idle_connection_is_closed_in_silence() {
    use std::io::Read;
    let world = World::new();
    let bank = world.good_bank();
    let gate = world
        .setup(bank.port())
        .with("timeouts: {idle: 200ms}")
        .start();
    let mut caller = gate.unix().connect();
    let mut nothing = Vec::new();
    caller.read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(gate.records().len(), 0);
}

#[test]
fn a_token_is_asked_for_and_only_the_right_one_is_taken() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world
        .setup(bank.port())
        .listen(&["{tcp: \"127.0.0.1:0\", token_files: [a.token, b.token]}"]);
    replace(&setup.path().join("a.token"), &format!("{TOKEN}\n"));
    replace(&setup.path().join("b.token"), "another-token-of-a-rotation");
    let gate = setup.start();
    let send = |headers: &str| gate.tcp().post("/installment/create", headers, b"{}");
    for good in [
        format!("Priorgate-Token: {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\n"),
        "Priorgate-Token: another-token-of-a-rotation\r\n".to_owned(),
    ] {
        assert_eq!(send(&good).status, 200, "{good}");
    }
    for bad in [
        String::new(),
        "Priorgate-Token: wrong\r\n".to_owned(),
        format!("Priorgate-Token: {TOKEN}0\r\n"),
        format!("Priorgate-Token: {TOKEN}\r\nPriorgate-Token: {TOKEN}\r\n"),
        format!("Priorgate-Token: {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
    ] {
        let answer = send(&bad);
        assert_refused(&answer, 401, "token_required");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // Neither the bank nor the log ever sees it.
    assert!(
        bank.requests()
            .iter()
            .all(|request| !request.head.contains(TOKEN))
    );
    assert!(!gate.log().contains(TOKEN));
}

#[test]
fn a_user_that_is_not_listed_is_denied() {
    let world = World::new();
    let bank = world.good_bank();
    let gate = world
        .setup(bank.port())
        .listen(&["{unix: gate.sock, callers: [65533]}"])
        .start();
    let answer = gate.unix().post("/installment/create", "", b"{}");
    assert_refused(&answer, 403, "caller_denied");
    // Before anything of the request is judged.
    assert_refused(&gate.unix().send(b"nonsense\r\n\r\n"), 403, "caller_denied");
    assert_eq!(bank.connections(), 0);
    let uid = rustix::process::getuid().as_raw();
    assert!(
        gate.expect_records(2)
            .iter()
            .all(|record| record["uid"] == uid)
    );
}

#[test]
fn the_body_arrives_byte_for_byte_and_only_listed_headers_pass() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world
        .setup(bank.port())
        .with("headers: {pass: [X-Shop], set_files: [{name: Authorization, file: bank.auth}]}");
    replace(&setup.path().join("bank.auth"), "Basic c2VjcmV0\n");
    let gate = setup.start();
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let headers = "Accept: application/json\r\nAccept-Language: be\r\nUser-Agent: shop/1\r\nIdempotency-Key: \"k-1\"\r\n\
        X-Request-Id: order-77-try-1\r\ntraceparent: 00-aa-bb-01\r\ntracestate: a=b\r\nX-Shop: 7\r\nX-Other: no\r\n\
        Cookie: no=1\r\nAuthorization: Bearer stranger\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\n";
    let answer = gate.unix().post("/installment/create", headers, &body);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("priorgate-request-id"),
        Some("order-77-try-1")
    );
    let request = bank.requests().remove(0);
    assert_eq!(request.body, body);
    let mut lines: Vec<String> = request.head.trim_end().lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "POST /installment/create HTTP/1.1");
    lines.sort();
    let port = bank.port();
    let host = format!("host: localhost:{port}");
    let expected = [
        "accept-language: be",
        "accept: application/json",
        "authorization: Basic c2VjcmV0",
        "content-length: 100000",
        "content-type: application/json",
        &host,
        "idempotency-key: \"k-1\"",
        "traceparent: 00-aa-bb-01",
        "tracestate: a=b",
        "user-agent: shop/1",
        "x-request-id: order-77-try-1",
        "x-shop: 7",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_insane_request_id_is_replaced() {
    let (bank, gate) = pair();
    let answer = gate
        .unix()
        .post("/installment/create", "X-Request-Id: short\r\n", b"{}");
    let id = answer.header("priorgate-request-id").unwrap().to_owned();
    assert_ne!(id, "short");
    assert!(
        bank.requests()[0]
            .head
            .contains(&format!("x-request-id: {id}\r\n"))
    );
    assert_eq!(gate.expect_records(1)[0]["request_id"], id);
}

#[test]
fn a_query_passes_undecoded_where_the_route_says_so() {
    let (bank, gate) = pair();
    assert_eq!(gate.unix().get("/search?q=%D0%B0&x=1+2").status, 200);
    assert!(
        bank.requests()[0]
            .head
            .starts_with("GET /search?q=%D0%B0&x=1+2 HTTP/1.1\r\n")
    );
    // Nor does it, or the path, reach the log.
    assert!(!gate.expect_records(1)[0].to_string().contains("%D0"));
}

#[test]
fn the_banks_hop_by_hop_headers_cookies_and_our_own_names_are_dropped() {
    let world = World::new();
    let bank = world.bank(Speaks::Tls13, |mut session| {
        session.request();
        session.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\nPriorgate-Outcome: not_sent\r\n\
              Priorgate-Operation: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Bank: 9\r\n\
              Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        );
    });
    let gate = world.gate(bank.port());
    let answer = gate.unix().post("/installment/create", "", b"{}");
    assert_eq!(
        (answer.status, answer.outcome(), &*answer.body),
        (201, "answered", &b"{}"[..])
    );
    let mut names: Vec<&str> = answer
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "date",
        "priorgate-outcome",
        "priorgate-request-id",
        "x-bank",
    ];
    assert_eq!(names, expected);
}

#[test]
fn http_1_0_is_answered_and_ended() {
    use std::io::Read;
    let (_bank, gate) = pair();
    let mut caller = gate.tcp().connect();
    caller
        .write_all(b"GET /installment/s1 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut all = String::new();
    caller.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n"), "{all}");
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    let (bank, gate) = pair();
    let mut caller = gate.unix().connect();
    let together: Vec<u8> = (0..3)
        .flat_map(|n| {
            post(
                "/installment/create",
                "",
                format!("{{\"n\":{n}}}").as_bytes(),
            )
        })
        .collect();
    caller.write_all(&together).unwrap();
    for _ in 0..3 {
        assert_eq!(caller.answer().status, 200);
    }
    let bodies: Vec<Vec<u8>> = bank
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!(bodies, [b"{\"n\":0}", b"{\"n\":1}", b"{\"n\":2}"]);
}

#[test]
fn nothing_behind_a_refused_head_is_ever_a_request() {
    let smuggled = post("/installment/create", "", b"{\"smuggled\":1}");
    let (bank, gate) = pair();
    for (count, refused) in [
        &b"POST /installment/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"GET /installment/s1 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: +9\r\n\r\n",
        b"POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        for target in [gate.tcp(), gate.unix()] {
            let mut caller = target.connect();
            caller.write_all(&[refused, &smuggled].concat()).unwrap();
            let answer = caller.answer();
            assert_eq!(answer.outcome(), "not_sent");
            assert_eq!(answer.header("connection"), Some("close"), "{count}");
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut caller, &mut rest);
            assert!(rest.is_empty(), "{count}");
        }
    }
    gate.expect_records(8);
    assert_eq!((bank.connections(), bank.requests().len()), (0, 0));
}

#[test]
fn after_a_refusal_that_read_its_message_the_connection_serves_on() {
    let (bank, gate) = pair();
    let mut caller = gate.tcp().connect();
    for (request, status) in [
        (post("/nowhere", "", b""), 404),
        (post("/installment/s1", "", b""), 405),
        (post("/installment/create", "", b"{}"), 200),
    ] {
        caller.write_all(&request).unwrap();
        assert_eq!(caller.answer().status, status);
    }
    assert_eq!(bank.requests().len(), 1);
    gate.expect_records(3);
}

#[test]
fn expect_100_continue_is_answered_at_once() {
    let (bank, gate) = pair();
    let mut caller = gate.tcp().connect();
    let head = "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    caller.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut caller, &mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    caller.write_all(b"{}").unwrap();
    assert_eq!(caller.answer().status, 200);
    assert_eq!(bank.requests()[0].body, b"{}");
    assert!(!bank.requests()[0].head.to_lowercase().contains("expect"));
}

#[test]
fn a_body_above_the_limit_gets_its_413_and_no_reset() {
    let (bank, gate) = pair();
    for target in [gate.tcp(), gate.unix()] {
        let started = Instant::now();
        assert_refused(
            &target.post("/installment/create", "", &vec![b' '; 300 << 10]),
            413,
            "body_too_large",
        );
        assert!(started.elapsed() < Duration::from_millis(900));
        // One that waits for 100 Continue is told at once, and sends nothing.
        let mut caller = target.connect();
        let head = "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2097152\r\n\r\n";
        caller.write_all(head.as_bytes()).unwrap();
        assert_refused(&caller.answer(), 413, "body_too_large");
    }
    assert_eq!(bank.connections(), 0);
}

#[test]
fn beyond_concurrency_and_queue_a_request_is_refused_at_once() {
    let world = World::new();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let bank = world.bank(Speaks::Tls13, move |mut session| {
        while session.request().is_some() {
            let _ = released
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(10));
            session.answer("200 OK", "{}");
        }
    });
    let gate = world
        .setup(bank.port())
        .with("limits: {concurrency: 1, queue: 1}")
        .start();
    let unix = gate.unix();
    let spawn =
        |target: Target| std::thread::spawn(move || target.post("/installment/create", "", b"{}"));
    let first = spawn(unix.clone());
    until("the bank has the first", || bank.requests().len() == 1);
    let second = spawn(unix.clone());
    until("the second waits", || {
        gate.status()["banks"][0]["queued"] == 1
    });
    let third = unix.post("/installment/create", "", b"{}");
    assert_refused(&third, 503, "overloaded");
    assert_eq!(third.header("retry-after"), Some("1"));
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(second.join().unwrap().status, 200);
    let status = gate.status();
    assert_eq!(
        (
            &status["banks"][0]["in_flight"],
            &status["banks"][0]["queued"]
        ),
        (&0.into(), &0.into())
    );
}

#[test]
fn plain_http_to_a_loopback_proxy_is_possible_where_it_is_spelled_out() {
    use std::io::Read;
    let world = World::new();
    let proxy = Bank::raw(|mut socket, _, _| {
        let mut head = [0; 4096];
        let _ = socket.read(&mut head);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    });
    let port = proxy.port();
    let lines = format!("url: http://127.0.0.1:{port}\n    allow_plaintext_loopback: true");
    let gate = world.setup(port).bank(&lines).start();
    let answer = gate.unix().post("/installment/create", "", b"{}");
    assert_eq!((answer.status, answer.outcome()), (200, "answered"));
    assert_eq!(gate.status()["banks"][0]["transport"], "plaintext_loopback");
    until("the log warns of it", || {
        gate.log().contains("plaintext to loopback")
    });
}
