//! A real hyper behind the guard, in memory where the clock matters and over loopback where the
//! system's own behaviour (resets) does.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::Mutex,
};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::timeout,
};

use super::*;
use crate::policy::head::{Reason, Refusal as HeadRefusal, judge};

const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: Settings = Settings {
    rules: Rules {
        max_bytes: 1024,
        max_headers: 8,
    },
    head: Duration::from_secs(5),
    idle: Duration::from_secs(30),
    write_stall: Duration::from_secs(10),
    linger_bytes: 1 << 20,
    linger_time: Duration::from_secs(1),
};

/// What the service saw of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Refused(Refusal),
    Whole {
        method: String,
        target: String,
        body: Vec<u8>,
    },
    Cut {
        method: String,
        target: String,
    },
}

/// A hyper server behind a guard on one connection, and what its service saw.
struct Server {
    handle: Handle,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<Notify>,
    task: JoinHandle<hyper::Result<()>>,
}

impl Server {
    fn start<S>(io: S, settings: Settings) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (guard, handle) = Guard::new(io, settings);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(Notify::new());
        let service = {
            let (handle, seen) = (handle.clone(), Arc::clone(&seen));
            service_fn(move |request| {
                let (handle, seen) = (handle.clone(), Arc::clone(&seen));
                async move {
                    assert!(handle.unserved() && handle.head_started().is_some());
                    let refusal = handle.take_refusal();
                    assert!(!handle.unserved() && handle.take_refusal().is_none());
                    Ok::<_, Infallible>(answer(request, refusal, &seen).await)
                }
            })
        };
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let connection = http1::Builder::new()
                .half_close(true)
                .header_read_timeout(None)
                .max_headers(settings.rules.max_headers)
                .serve_connection(TokioIo::new(guard), service);
            let mut connection = pin!(connection);
            tokio::select! {
                result = connection.as_mut() => return result,
                () = stopped.notified() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        });
        Self {
            handle,
            seen,
            stop,
            task,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The connection's result, once it has ended.
    async fn end(&mut self) -> hyper::Result<()> {
        timeout(1000 * SECOND, &mut self.task)
            .await
            .expect("ends")
            .expect("no panic")
    }
}

/// Every answer of the service has this; hyper's own answers have not.
const MARK: &str = "x-served";

async fn answer(
    request: Request<Incoming>,
    refusal: Option<Refusal>,
    seen: &Mutex<Vec<Seen>>,
) -> Response<Full<bytes::Bytes>> {
    let reply = |status: u16, body: Vec<u8>| {
        let response = Response::builder().status(status).header(MARK, "yes");
        response.body(Full::new(bytes::Bytes::from(body))).unwrap()
    };
    if let Some(refusal) = refusal {
        assert_eq!(request.headers().get(CONNECTION).unwrap(), "close");
        seen.lock().unwrap().push(Seen::Refused(refusal));
        return reply(400, b"refused".to_vec());
    }
    let method = request.method().to_string();
    let target = request.uri().to_string();
    let length = request.headers().get("content-length").cloned();
    if target == "/early" {
        seen.lock().unwrap().push(Seen::Cut { method, target });
        // As an answer that leaves a body unread should; hyper does not know of the body's end here.
        let mut response = reply(413, b"too large".to_vec());
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let large = target == "/large";
    let (seen_now, body) = match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes().to_vec();
            let expected = length.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
            assert_eq!(
                body.len(),
                expected,
                "hyper and the head agree on the length"
            );
            (
                Seen::Whole {
                    method,
                    target,
                    body,
                },
                b"fine".to_vec(),
            )
        }
        Err(_) => (Seen::Cut { method, target }, b"cut".to_vec()),
    };
    seen.lock().unwrap().push(seen_now);
    reply(200, if large { vec![b'x'; 1 << 20] } else { body })
}

/// What the service must see of these bytes, followed by the end of the stream, if no request among
/// them ends the connection.
fn expected(mut bytes: &[u8], rules: &Rules) -> Vec<Seen> {
    let mut expected = Vec::new();
    while !bytes.is_empty() {
        let accepted = match judge(bytes, rules) {
            Verdict::Accept(accepted) => accepted,
            Verdict::Refuse(refusal) => {
                expected.push(Seen::Refused(Refusal::Head(refusal)));
                break;
            }
            Verdict::Incomplete => {
                expected.push(Seen::Refused(Refusal::Incomplete));
                break;
            }
        };
        let text =
            |range: std::ops::Range<usize>| String::from_utf8(bytes[range].to_vec()).unwrap();
        let (method, target) = (text(accepted.method), text(accepted.target));
        let rest = &bytes[accepted.head_len..];
        let length = usize::try_from(accepted.content_length).unwrap();
        let Some((body, rest)) = rest.split_at_checked(length) else {
            expected.push(Seen::Cut { method, target });
            break;
        };
        bytes = rest;
        let body = body.to_vec();
        expected.push(Seen::Whole {
            method,
            target,
            body,
        });
    }
    expected
}

/// Sends the bytes in these pieces, closes, and gives what was seen and what came back.
async fn exchange(pieces: Vec<Vec<u8>>, pipe: usize) -> (Vec<Seen>, String) {
    let (mut client, io) = duplex(pipe);
    let mut server = Server::start(io, SETTINGS);
    let (mut reader, mut writer) = tokio::io::split(client);
    let sender = tokio::spawn(async move {
        for piece in pieces {
            // An error is a server that has had enough; what it saw is looked at below.
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            yield_now().await;
        }
        let _ = writer.shutdown().await;
        writer
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    client = reader.unsplit(sender.await.unwrap());
    drop(client);
    let _ = server.end().await;
    (server.seen(), String::from_utf8(received).unwrap())
}

/// Cuts the bytes at these places.
fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    ends.windows(2)
        .map(|pair| bytes[pair[0]..pair[1]].to_vec())
        .collect()
}

fn in_paused_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Well-formed requests that keep the connection: odd in every way that the rules allow.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}".prop_filter("CONNECT", |m| m != "CONNECT");
    let target = "/([a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2}){0,40}"
        .prop_filter("the service's own", |target| {
            target != "/early" && target != "/large"
        });
    let field = "X[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}:[ \t]{0,2}[ -~\t\u{80}-\u{ff}]{0,30}[ \t]{0,2}";
    let known = prop::sample::select(vec![
        "Upgrade: h2c",
        "upgrade:websocket",
        "Connection: keep-alive",
        "Connection: Upgrade",
        "Expect: 100-continue",
        "Expect: 200-ok",
        "TE: trailers",
        "Trailer: x",
        "Cookie: a=b",
    ]);
    let fields = prop::collection::vec(prop_oneof![field, known.prop_map(String::from)], 0..5);
    let body = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Some),
        prop::collection::vec(any::<u8>(), 5000..9000).prop_map(Some),
    ];
    (method, target, fields, body).prop_map(|(method, target, fields, body)| {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: [::1]:80\r\n");
        for field in fields {
            head.push_str(&field);
            head.push_str("\r\n");
        }
        if let Some(body) = &body {
            head.push_str(&format!("cOntent-lEngth:{}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.into_bytes(), body.unwrap_or_default()].concat()
    })
}

/// What an attacker changes in a request.
fn mutation() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\r\n",
            "\n",
            "\r",
            "\0",
            " ",
            "\t",
            ":",
            "\r\n ",
            "\r\n\r\n",
            "HTTP/1.0",
            "HTTP/0.9",
            "#",
            "Host: a\r\n",
            "\r\nTransfer-Encoding: chunked",
            "\r\nContent-Length: 3",
            "\r\nFoo : b",
            "Connection: close\r\n",
            "\r\nGET http://a/ HTTP/1.1",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "CONNECT",
            "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{e9}",
            "\u{1b}",
            "%",
            "%zz",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
        prop::sample::select(vec![600_usize, 2000]).prop_map(|length| vec![b'a'; length]),
    ];
    (any::<prop::sample::Index>(), 0_usize..4, piece)
}

proptest! {
    #[test]
    fn what_is_accepted_hyper_reads_in_the_same_way_and_serves_once_each_and_in_order(
        requests in prop::collection::vec(request(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        pipe in prop::sample::select(vec![7_usize, 1000, 1 << 16]),
    ) {
        let bytes = requests.concat();
        let expected = expected(&bytes, &SETTINGS.rules);
        prop_assert_eq!(expected.len(), requests.len(), "{}", bytes.escape_ascii());
        let (seen, received) = in_paused_time(exchange(cut(&bytes, &cuts), pipe));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(received.matches(MARK).count(), requests.len());
    }

    #[test]
    fn whatever_is_sent_hyper_never_answers_by_itself(
        requests in prop::collection::vec(request(), 1..3),
        mutations in prop::collection::vec(mutation(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = requests.concat();
        for (at, gone, piece) in mutations {
            let start = at.index(bytes.len() + 1);
            let end = (start + gone).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        let mut expected = expected(&bytes, &SETTINGS.rules);
        let (seen, received) = in_paused_time(exchange(cut(&bytes, &cuts), 1 << 16));
        // A request that closes the connection hides the ones after it; nothing else may be missing.
        prop_assert!(!seen.is_empty() || bytes.is_empty());
        expected.truncate(seen.len());
        prop_assert_eq!(&seen, &expected, "{}", bytes.escape_ascii());
        let continued = received.matches("HTTP/1.1 100 Continue\r\n\r\n").count();
        let answers = received.matches("HTTP/1.").count() - continued;
        prop_assert_eq!(answers, seen.len(), "{}", received);
        prop_assert_eq!(answers, received.matches(MARK).count(), "{}", received);
    }
}

/// Reads what there is to read in one call.
async fn read_some(guard: &mut Guard<DuplexStream>, room: usize) -> Vec<u8> {
    let mut space = vec![0; room];
    let mut buf = ReadBuf::new(&mut space);
    poll_fn(|cx| Pin::new(&mut *guard).poll_read(cx, &mut buf))
        .await
        .unwrap();
    buf.filled().to_vec()
}

#[tokio::test(start_paused = true)]
async fn no_byte_beyond_the_current_message_is_handed_over() {
    let first = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let second = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut client, io) = duplex(1 << 16);
    let (mut guard, _) = Guard::new(io, SETTINGS);
    client.write_all(first).await.unwrap();
    assert_eq!(read_some(&mut guard, 8192).await, first);
    // Not through the scratch buffer: straight from the socket, where more is waiting.
    client.write_all(b"ab").await.unwrap();
    assert_eq!(read_some(&mut guard, 8192).await, b"ab");
    client
        .write_all(&[&b"c"[..], second, b"GET"].concat())
        .await
        .unwrap();
    assert_eq!(read_some(&mut guard, 8192).await, b"c");
    assert_eq!(read_some(&mut guard, 10).await, second[..10]);
    assert_eq!(read_some(&mut guard, 8192).await, second[10..]);
    let next = timeout(SECOND, read_some(&mut guard, 8192)).await;
    assert!(
        next.is_err(),
        "a head that is not complete is not handed over"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_refused_head_only_the_harmless_one_is_readable() {
    let (mut client, io) = duplex(1 << 16);
    let (mut guard, handle) = Guard::new(io, SETTINGS);
    client
        .write_all(b"GET /\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_some(&mut guard, 5).await, HARMLESS[..5]);
    assert_eq!(read_some(&mut guard, 8192).await, HARMLESS[5..]);
    drop(client);
    let next = timeout(1000 * SECOND, read_some(&mut guard, 8192)).await;
    assert!(next.is_err(), "neither bytes nor an end of file");
    let refusal = HeadRefusal::Malformed(Reason::BareLineFeed);
    assert_eq!(handle.take_refusal(), Some(Refusal::Head(refusal)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_in_silence() {
    let start = Instant::now();
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    assert_eq!(client.read(&mut [0; 64]).await.unwrap(), 0);
    assert_eq!(start.elapsed(), SETTINGS.idle);
    server.end().await.unwrap();
    assert!(server.seen().is_empty() && !server.handle.unserved());
}

#[tokio::test(start_paused = true)]
async fn each_request_starts_the_idle_time_again() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    let mut space = [0; 1024];
    let start = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(SETTINGS.idle - SECOND).await;
        client
            .write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(client.read(&mut space).await.unwrap() > 0);
    }
    assert_eq!(client.read(&mut space).await.unwrap(), 0);
    assert_eq!(
        start.elapsed(),
        3 * (SETTINGS.idle - SECOND) + SETTINGS.idle
    );
    server.end().await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_times_out_from_its_first_byte_however_it_drips() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    tokio::time::sleep(20 * SECOND).await;
    let start = Instant::now();
    for byte in b"GET " {
        client.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    assert!(server.handle.unserved());
    assert_eq!(server.handle.head_started(), Some(start));
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    assert_eq!(start.elapsed(), SETTINGS.head);
    assert!(received.contains(MARK), "{received}");
    // The client may be sending still, so the end waits for it, but not for ever.
    server.end().await.unwrap();
    assert_eq!(start.elapsed(), SETTINGS.head + SETTINGS.linger_time);
    assert_eq!(server.seen(), [Seen::Refused(Refusal::TimedOut)]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_half_closes_gets_its_answer() {
    for (bytes, seen) in [
        (&b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"[..], None),
        (
            b"GET /a HTTP/1.1\r\nHost: a\r\n",
            Some(Seen::Refused(Refusal::Incomplete)),
        ),
        (
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
            Some(Seen::Cut {
                method: "POST".into(),
                target: "/a".into(),
            }),
        ),
    ] {
        let start = Instant::now();
        let (found, received) = exchange(vec![bytes.to_vec()], 1 << 16).await;
        assert_eq!(received.matches(MARK).count(), 1, "{received}");
        let whole = Seen::Whole {
            method: "GET".into(),
            target: "/a".into(),
            body: Vec::new(),
        };
        assert_eq!(found, [seen.unwrap_or(whole)]);
        assert_eq!(start.elapsed(), Duration::ZERO, "nothing is waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_inside_a_head_leaves_it_unserved() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    client.write_all(b"GET /a HTTP/1.1\r\nHo").await.unwrap();
    tokio::time::sleep(SECOND).await;
    server.stop.notify_one();
    server.end().await.unwrap();
    assert!(server.handle.unserved() && server.seen().is_empty());
    assert_eq!(server.handle.take_refusal(), None);
    assert_eq!(client.read(&mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_continue_is_sent_before_the_body_and_the_body_arrives() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut space = [0; 1024];
    let n = client.read(&mut space).await.unwrap();
    assert_eq!(&space[..n], b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    assert!(received.contains("200 OK"));
    server.end().await.unwrap();
    assert!(matches!(&server.seen()[..], [Seen::Whole { body, .. }] if body == b"body"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_reading_is_dropped_and_a_slow_one_is_not() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    client
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    let mut space = [0; 1000];
    for _ in 0..5 {
        tokio::time::sleep(SETTINGS.write_stall - SECOND).await;
        client.read_exact(&mut space).await.unwrap();
    }
    let error = server.end().await.expect_err("stalled");
    let cause = std::error::Error::source(&error)
        .unwrap()
        .downcast_ref::<io::Error>()
        .unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        start.elapsed(),
        5 * (SETTINGS.write_stall - SECOND) + SETTINGS.write_stall
    );
}

#[tokio::test(start_paused = true)]
async fn the_linger_is_bounded_in_time_and_in_bytes() {
    let head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n";
    // A caller that goes on slowly: time. One that goes on without end: bytes.
    for (pause, settings, ends_after) in [
        (SECOND / 10, SETTINGS, SETTINGS.linger_time),
        (
            SECOND / 10,
            Settings {
                linger_bytes: 0,
                ..SETTINGS
            },
            Duration::ZERO,
        ),
        (Duration::ZERO, SETTINGS, Duration::ZERO),
    ] {
        let (mut client, io) = duplex(1 << 12);
        let mut server = Server::start(io, settings);
        let start = Instant::now();
        client.write_all(head).await.unwrap();
        let sender = tokio::spawn(async move {
            let mut sent = 0;
            while client.write_all(&[0; 1 << 10]).await.is_ok() {
                sent += 1 << 10;
                tokio::time::sleep(pause).await;
            }
            sent
        });
        server.end().await.unwrap();
        let elapsed = start.elapsed();
        let sent = sender.await.unwrap();
        assert!(sent <= settings.linger_bytes + (1 << 14), "{sent}");
        assert!(
            elapsed >= ends_after && elapsed < ends_after + 3 * SECOND,
            "{elapsed:?}"
        );
    }
}

/// A server on a loopback socket, and a client connected to it.
async fn over_tcp() -> (TcpStream, Server) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (
        client.unwrap(),
        Server::start(accepted.unwrap().0, SETTINGS),
    )
}

#[tokio::test]
async fn an_early_answer_is_read_and_no_reset_while_the_body_was_still_coming() {
    // More than both sides' socket buffers hold: without the linger the client's write fails.
    let body = vec![b'x'; 1_000_000 - 4096];
    for (status, fields) in [
        (413, ""),
        (413, "Upgrade: h2c\r\n"),
        (400, "Transfer-Encoding: chunked\r\n"),
        (400, "Bad : field\r\n"),
    ] {
        let (mut client, mut server) = over_tcp().await;
        let length = body.len();
        let head =
            format!("POST /early HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.expect("the body is taken");
        client.shutdown().await.unwrap();
        let mut received = String::new();
        client
            .read_to_string(&mut received)
            .await
            .expect("an answer and no reset");
        assert!(
            received.starts_with(&format!("HTTP/1.1 {status}")),
            "{fields} {received}"
        );
        assert!(
            received.to_ascii_lowercase().contains("connection: close"),
            "{received}"
        );
        server.end().await.unwrap();
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_reset_inside_a_head_is_seen_by_the_service_and_one_before_it_by_nobody() {
    for bytes in [&b"GET /a HT"[..], b""] {
        let (mut client, mut server) = over_tcp().await;
        client.write_all(bytes).await.unwrap();
        timeout(10 * SECOND, async {
            while !bytes.is_empty() && !server.handle.unserved() {
                tokio::time::sleep(SECOND / 1000).await;
            }
        })
        .await
        .expect("the head starts");
        client.set_zero_linger().unwrap();
        drop(client);
        let _ = server.end().await;
        let lost = Seen::Refused(Refusal::Lost(io::ErrorKind::ConnectionReset));
        let expected = if bytes.is_empty() { vec![] } else { vec![lost] };
        assert_eq!(server.seen(), expected);
        assert!(!server.handle.unserved());
    }
}
