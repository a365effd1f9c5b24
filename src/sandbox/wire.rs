//! HTTP/1.1 for the sandbox bank, by hand: strict in what it reads, exact in what it writes.
//!
//! Owns reading one request at a time from a byte stream, with bounds and deadlines, and the bytes
//! of an answer. By hand because faults need every byte under control, and because the oracle must
//! not share a parser with what it judges. Knows nothing of TLS, routes or money.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

/// Every wait of the sandbox ends after this.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 1 << 20;
const MAX_HEADERS: usize = 100;
/// What is read and thrown away after an answer to a request that was not read to its end.
const MAX_LINGER: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// A request, read whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The client wants no further answer on this connection.
    pub(super) close: bool,
}

impl Request {
    /// The value of a header that came once, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        one(&self.headers, name).ok().flatten()
    }

    /// The media type is JSON, in UTF-8 where it says so.
    pub(super) fn is_json(&self) -> bool {
        let Some(value) = self.header("content-type") else {
            return false;
        };
        let value = value.to_ascii_lowercase();
        let mut parts = value.split(';').map(str::trim);
        parts.next() == Some("application/json")
            && parts.all(|part| matches!(part, "charset=utf-8" | "charset=\"utf-8\""))
    }

    /// The path without its query, and the query.
    pub(super) fn target(&self) -> (&str, &str) {
        self.path.split_once('?').unwrap_or((&self.path, ""))
    }

    /// `Host` is a name of this machine's own, so that no name of somebody else's points here.
    pub(super) fn is_to_loopback(&self) -> bool {
        let name = match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => self.host.as_str(),
        };
        matches!(name, "127.0.0.1" | "localhost" | "[::1]")
    }
}

/// Why no request came.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client went away, or was too slow; there is nobody to answer.
    Gone,
    /// The client deserves this answer, and then the connection ends.
    Refused(Answer),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// What an error says to a person, for the log; empty for any other answer.
    pub(super) reason: String,
}

impl Answer {
    /// A JSON answer.
    pub(super) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, "application/json", body),
            Err(error) => Self::new(500, "text/plain", error.to_string().into_bytes()),
        }
    }

    /// `{"error": {"code": …, "message": …}}`
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let error = serde_json::json!({"error": {"code": code, "message": message}});
        let mut answer = Self::json(status, &error);
        answer.reason = message.to_owned();
        answer
    }

    /// Plain text.
    pub(super) fn text(status: u16, text: String) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into_bytes())
    }

    /// A page.
    pub(super) fn html(status: u16, text: String) -> Self {
        Self::new(status, "text/html; charset=utf-8", text.into_bytes())
    }

    fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", content_type.to_owned())],
            body,
            reason: String::new(),
        }
    }

    /// One header more.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The head and the body, with a `Content-Length` that may be a lie.
    pub(super) fn bytes(&self, length: usize, close: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        head.push_str("Priorgate-Sandbox: not a bank\r\n");
        for (name, value) in &self.headers {
            // Writing to a String cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {length}\r\n");
        head.push_str(if close {
            "Connection: close\r\n\r\n"
        } else {
            "\r\n"
        });
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A stream and what was read from it ahead of use.
pub(super) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Waits for the first byte of a request. `false` when none comes in time.
    pub(super) async fn wait(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        matches!(timeout(DEADLINE, self.fill()).await, Ok(Ok(())))
    }

    /// Reads one request: its head within the deadline, then its body within another.
    pub(super) async fn request(&mut self) -> Result<Request, ReadError> {
        let deadline = Instant::now() + DEADLINE;
        let end = self.head_end(deadline).await?;
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = Head::parse(&head).map_err(ReadError::Refused)?;
        if head.length > MAX_BODY {
            let message = "the body is larger than 1 MiB";
            return Err(ReadError::Refused(Answer::error(
                413,
                "body_too_large",
                message,
            )));
        }
        let deadline = Instant::now() + DEADLINE;
        if head.expect && self.buffer.len() < head.length {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while self.buffer.len() < head.length {
            timeout_at(deadline, self.fill())
                .await
                .map_err(|_| ReadError::Gone)??;
        }
        Ok(Request {
            method: head.method,
            path: head.path,
            host: head.host,
            headers: head.headers,
            body: self.buffer.drain(..head.length).collect(),
            close: head.close,
        })
    }

    /// Writes bytes, within the deadline.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(DEADLINE, write).await?
    }

    /// Ends the connection properly: our end first, then what the client still sends is thrown away
    /// for a moment. Closing with unread bytes would reset the connection, and the client might
    /// lose the answer.
    pub(super) async fn close(mut self) {
        let _ = timeout(LINGER, self.stream.shutdown()).await;
        let drain = async {
            let mut thrown = self.buffer.len();
            while thrown < MAX_LINGER {
                self.buffer.clear();
                if self.fill().await.is_err() {
                    break;
                }
                thrown = thrown.saturating_add(self.buffer.len());
            }
        };
        let _ = timeout(LINGER, drain).await;
    }

    /// The stream, for whom a proper end is not wanted.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Reads some more bytes; the end of the stream is an error.
    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(4096);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Where the head ends, reading until it does.
    async fn head_end(&mut self, deadline: Instant) -> Result<usize, ReadError> {
        let mut seen = 0_usize;
        loop {
            let from = seen.saturating_sub(3);
            let fresh = self.buffer.get(from..).unwrap_or_default();
            let found = fresh.windows(4).position(|four| four == b"\r\n\r\n");
            seen = self.buffer.len();
            let end = found.map(|at| from + at + 4);
            if end.unwrap_or(seen) > MAX_HEAD {
                let message = "the head is larger than 16 KiB";
                let answer = Answer::error(431, "head_too_large", message);
                return Err(ReadError::Refused(answer));
            }
            if let Some(end) = end {
                return Ok(end);
            }
            timeout_at(deadline, self.fill())
                .await
                .map_err(|_| ReadError::Gone)??;
        }
    }
}

/// Answers a plain connection to its end.
pub(super) async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    answer: impl Fn(&Request) -> Answer,
) {
    let mut wire = Wire::new(stream);
    while wire.wait().await {
        let (answer, close) = match wire.request().await {
            Ok(request) => (answer(&request), request.close),
            Err(ReadError::Refused(answer)) => (answer, true),
            Err(ReadError::Gone) => return,
        };
        let bytes = answer.bytes(answer.body.len(), close);
        if wire.send(&bytes).await.is_err() {
            return;
        }
        if close {
            break;
        }
    }
    wire.close().await;
}

/// A parsed request head.
#[derive(Debug)]
struct Head {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    length: usize,
    expect: bool,
    close: bool,
}

impl Head {
    /// RFC 9112, without its leniencies: CRLF only, no folding, one `Host`, a plain length.
    fn parse(bytes: &[u8]) -> Result<Self, Answer> {
        let bad = |message: &str| Answer::error(400, "bad_request", message);
        let text = str::from_utf8(bytes)
            .ok()
            .filter(|text| text.is_ascii())
            .and_then(|text| text.strip_suffix("\r\n\r\n"))
            .ok_or_else(|| bad("the head is not ASCII"))?;
        let mut lines = text.split("\r\n");
        let mut parts = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(path), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("the request line is not `METHOD PATH HTTP/1.1`"));
        };
        if version != "HTTP/1.1" {
            return Err(Answer::error(
                505,
                "version",
                "only HTTP/1.1 is spoken here",
            ));
        }
        if !is_token(method) {
            return Err(bad("the method is not a token"));
        }
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !path.starts_with('/') || !path.bytes().all(visible) {
            return Err(bad("the request target is not a path"));
        }
        let headers: Vec<(String, String)> =
            lines.map(header).collect::<Option<_>>().ok_or_else(|| {
                bad("a header is not `Name: value` on one line of visible characters")
            })?;
        if headers.len() > MAX_HEADERS {
            return Err(Answer::error(
                431,
                "head_too_large",
                "more than 100 headers",
            ));
        }
        let single = |name: &str| {
            one(&headers, name).map_err(|()| bad(&format!("`{name}` must be given once only")))
        };
        let host = single("host")?
            .ok_or_else(|| bad("`Host` is missing"))?
            .to_owned();
        single("content-type")?;
        if headers.iter().any(|(name, _)| name == "transfer-encoding") {
            let message = "give a Content-Length instead of Transfer-Encoding";
            return Err(Answer::error(411, "length_required", message));
        }
        let length = match single("content-length")? {
            None if matches!(method, "POST" | "PUT" | "PATCH") => {
                return Err(Answer::error(
                    411,
                    "length_required",
                    "Content-Length is missing",
                ));
            }
            None => 0,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .map_err(|_| bad("Content-Length is no length"))?,
            Some(_) => return Err(bad("Content-Length is no length")),
        };
        let expect = match single("expect")? {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("100-continue") => true,
            Some(_) => return Err(Answer::error(417, "expectation", "expected 100-continue")),
        };
        let close = headers.iter().any(|(name, value)| {
            let mut options = value.split(',').map(str::trim);
            name == "connection" && options.any(|option| option.eq_ignore_ascii_case("close"))
        });
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            host,
            headers,
            length,
            expect,
            close,
        })
    }
}

/// `Name: value`, the name in lower case.
fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let value = value.trim_matches([' ', '\t']);
    let plain = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    (is_token(name) && value.bytes().all(plain))
        .then(|| (name.to_ascii_lowercase(), value.to_owned()))
}

/// RFC 9110 `token`.
fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// The value of a header that may come once at most.
fn one<'a>(headers: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.iter().filter(|(key, _)| key == name);
    let first = values.next().map(|(_, value)| value.as_str());
    if values.next().is_some() {
        return Err(());
    }
    Ok(first)
}

/// A reason phrase; clients ignore it, people read it.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        302 => "Found",
        303 => "See Other",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Sandbox",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Request, ReadError> {
        let (mut client, server) = tokio::io::duplex(4 << 20);
        client.write_all(bytes).await.unwrap();
        drop(client);
        Wire::new(server).request().await
    }

    async fn refused(bytes: &[u8]) -> u16 {
        match read(bytes).await {
            Err(ReadError::Refused(answer)) => answer.status,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_plain_request_is_read_whole() {
        let request = read(
            b"POST /installment/create HTTP/1.1\r\nHost: localhost:1\r\n\
              Content-Type: Application/JSON; charset=UTF-8\r\ncontent-length: 2\r\n\
              Connection: keep-alive, Close\r\n\r\n{}",
        )
        .await
        .unwrap();
        assert_eq!(
            (request.method.as_str(), request.body.as_slice()),
            ("POST", &b"{}"[..])
        );
        assert_eq!(request.host, "localhost:1");
        assert!(request.is_json() && request.close);
    }

    #[tokio::test]
    async fn two_requests_on_one_connection_are_kept_apart() {
        let (mut client, server) = tokio::io::duplex(4096);
        let one = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
        let two = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(one).await.unwrap();
        client.write_all(two).await.unwrap();
        let mut wire = Wire::new(server);
        assert_eq!(wire.request().await.unwrap().body, b"1");
        assert!(wire.wait().await);
        assert_eq!(wire.request().await.unwrap().path, "/b");
    }

    #[tokio::test]
    async fn ambiguous_or_malformed_heads_are_refused() {
        for (status, head) in [
            (400, "GET / HTTP/1.1\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n"),
            (400, "GET  / HTTP/1.1\r\nHost: a\r\n"),
            (400, "GET http://a/ HTTP/1.1\r\nHost: a\r\n"),
            (400, "GET /#x HTTP/1.1\r\nHost: a\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: \u{430}\r\n"),
            (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n"),
            (
                400,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            ),
            (411, "POST / HTTP/1.1\r\nHost: a\r\n"),
            (
                411,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                413,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n",
            ),
            (
                417,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: tea\r\n",
            ),
            (505, "GET / HTTP/1.0\r\nHost: a\r\n"),
        ] {
            assert_eq!(
                refused(format!("{head}\r\n").as_bytes()).await,
                status,
                "{head}"
            );
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(MAX_HEAD));
        assert_eq!(refused(long.as_bytes()).await, 431);
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_the_middle_is_gone() {
        for part in [
            "GET / HT",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1",
        ] {
            let gone = read(part.as_bytes()).await;
            assert!(matches!(gone, Err(ReadError::Gone)), "{part}");
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_before_sending_its_body_is_told_to_go_on() {
        let (mut client, server) = tokio::io::duplex(4096);
        let reading = tokio::spawn(async move { Wire::new(server).request().await });
        let head =
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut answer = [0; 25];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"ok").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap().body, b"ok");
    }

    #[test]
    fn every_answer_says_that_this_is_not_a_bank() {
        let bytes = Answer::error(404, "x", "y").bytes(3, true);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\nPriorgate-Sandbox: not a bank\r\n"));
        assert!(text.contains("Content-Length: 3\r\nConnection: close\r\n\r\n{\"error\""));
    }
}
