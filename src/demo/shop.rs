//! The demo's toy shop: takes deliveries as a page of Bitrix would, checks their signature, and acknowledges.
//!
//! It owns a port and what it was told; it knows nothing of the gate but the secret that both have.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

use crate::policy::webhook::{WebhookSecret, acknowledgement, sign};

const PATIENCE: Duration = Duration::from_secs(5);
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 1 << 20;
/// A signature older or newer than this is no signature (the specification's own tolerance).
const TOLERANCE: u64 = 300;

/// A running shop.
pub(super) struct Shop {
    addr: SocketAddr,
    books: Arc<Books>,
    thread: Option<JoinHandle<()>>,
}

struct Books {
    secret: WebhookSecret,
    closed: AtomicBool,
    told: Mutex<Vec<Told>>,
}

/// A delivery whose signature was good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) session: String,
    pub(super) status: String,
}

impl Shop {
    /// Opens on a free port of the loopback.
    pub(super) fn open(secret: WebhookSecret) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut shop = Self {
            addr: listener.local_addr()?,
            books: Arc::new(Books {
                secret,
                closed: AtomicBool::new(false),
                told: Mutex::default(),
            }),
            thread: None,
        };
        shop.serve(listener)?;
        Ok(shop)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the shop was told, in order.
    pub(super) fn told(&self) -> Vec<Told> {
        let told = self.books.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As when the web server is stopped: connections are refused.
    pub(super) fn close(&mut self) {
        self.books.closed.store(true, Ordering::SeqCst);
        // Wakes the thread, which then gives the port up.
        let _ = TcpStream::connect_timeout(&self.addr, PATIENCE);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// As when it is started again.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.addr)?;
        self.books.closed.store(false, Ordering::SeqCst);
        self.serve(listener)
    }

    fn serve(&mut self, listener: TcpListener) -> io::Result<()> {
        let books = Arc::clone(&self.books);
        let thread = std::thread::Builder::new()
            .name("shop".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    if books.closed.load(Ordering::SeqCst) {
                        return;
                    }
                    // One page at a time is enough for a toy; a caller that is gone is none of its business.
                    let _ = stream.and_then(|stream| books.answer(stream));
                }
            })?;
        self.thread = Some(thread);
        Ok(())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.close();
    }
}

impl Books {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = Request::read(&mut stream)?;
        let answer = match self.take(&request) {
            Some(acknowledgement) => {
                format!(
                    "HTTP/1.1 200 OK\r\nPriorgate-Ack: {acknowledgement}\r\nContent-Length: 0\r\n\r\n"
                )
            }
            None => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes())
    }

    /// Checks a delivery and writes it down; gives the acknowledgement.
    fn take(&self, request: &Request) -> Option<String> {
        let id = request.header("webhook-id")?;
        let timestamp: i64 = request.header("webhook-timestamp")?.parse().ok()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.ok()?.as_secs()).ok()?;
        let secret = std::slice::from_ref(&self.secret);
        let expected = sign(secret, id, timestamp, &request.body);
        let given = request.header("webhook-signature")?;
        let good = bool::from(given.as_bytes().ct_eq(expected.as_bytes()));
        if !good || now.abs_diff(timestamp) > TOLERANCE {
            return None;
        }
        let event: serde_json::Value = serde_json::from_slice(&request.body).ok()?;
        let text = |name: &str| Some(event.get(name)?.as_str()?.to_owned());
        let told = Told {
            session: text("session_id")?,
            status: text("status")?,
        };
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(told);
        Some(acknowledgement(&self.secret, id, timestamp))
    }
}

struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
            if head.len() > HEAD_MAX {
                return Err(bad("the head is too large"));
            }
        }
        let head = String::from_utf8(head).map_err(|_| bad("the head is no text"))?;
        let headers = head.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        let mut request = Self {
            headers: headers.collect(),
            body: Vec::new(),
        };
        let length = request.header("content-length");
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        if length > BODY_MAX {
            return Err(bad("the body is too large"));
        }
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body)?;
        Ok(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter();
        let mut found = found.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| &**value)
    }
}
