//! A real hyper behind the guard, in memory where the clock matters and over loopback where the
//! system's own behaviour (resets) does.

use std::{convert::Infallible, future::poll_fn, sync::Mutex};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::timeout,
};

use super::*;
use crate::policy::head::{Reason, Refusal as HeadRefusal};

mod property;

const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: Settings = Settings {
    rules: Rules {
        max_bytes: 1024,
        max_headers: 8,
    },
    head: Duration::from_secs(5),
    idle: Duration::from_secs(30),
    write_stall: Duration::from_secs(10),
    write_total: Duration::from_secs(60),
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
        // As an answer that leaves a body unread should; hyper does not know of the body's end
        // here.
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
async fn a_caller_that_reads_just_enough_for_ever_is_dropped_all_the_same() {
    let (mut client, io) = duplex(1 << 16);
    let mut server = Server::start(io, SETTINGS);
    client
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    let reader = tokio::spawn(async move {
        let mut space = [0; 10];
        while client.read_exact(&mut space).await.is_ok() {
            tokio::time::sleep(SETTINGS.write_stall - SECOND).await;
        }
    });
    server.end().await.expect_err("too slow in all");
    assert!(start.elapsed() <= SETTINGS.write_total + SETTINGS.write_stall);
    reader.abort();
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

/// A server on a loopback socket, and a client connected to it. The system holds little in between,
/// so that a body of some size is still on its way when the server answers.
async fn over_tcp() -> (TcpStream, Server) {
    let (listening, connecting) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    listening.set_recv_buffer_size(1 << 14).unwrap();
    connecting.set_send_buffer_size(1 << 14).unwrap();
    listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = listening.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(connecting.connect(address), listener.accept());
    (
        client.unwrap(),
        Server::start(accepted.unwrap().0, SETTINGS),
    )
}

#[tokio::test]
async fn an_early_answer_is_read_and_no_reset_while_the_body_was_still_coming() {
    let body = vec![b'x'; 300 << 10];
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
