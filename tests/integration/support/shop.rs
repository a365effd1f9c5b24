//! A toy shop: takes deliveries as PHP would, verifies them with the specification's own library, and acknowledges, or
//! does not.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use priorgate::policy::webhook::{WebhookSecret, acknowledgement, sign};
use standardwebhooks::Webhook;

use super::until;

/// Shared with the gate.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the shop does with a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mood {
    /// Acknowledges.
    Good,
    /// Answers 200 and no more, as a page of the site would.
    Forgetful,
    /// Answers 500.
    Broken,
    /// Takes so long.
    Slow(Duration),
}

/// A delivery whose signature was good.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) acknowledged: bool,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Seen {
    mood: Mutex<Mood>,
    deliveries: Mutex<Vec<Delivery>>,
    at_once: Mutex<AtOnce>,
    ended: AtomicBool,
}

/// Deliveries that are here now, and the most that ever were: of all, and of one session.
#[derive(Default)]
struct AtOnce {
    all: (usize, usize),
    sessions: HashMap<String, usize>,
    most_of_one: usize,
}

impl AtOnce {
    fn enter(&mut self, session: &str) {
        self.all.0 += 1;
        self.all.1 = self.all.1.max(self.all.0);
        let of_one = self.sessions.entry(session.to_owned()).or_default();
        *of_one += 1;
        self.most_of_one = self.most_of_one.max(*of_one);
    }

    fn leave(&mut self, session: &str) {
        self.all.0 -= 1;
        *self.sessions.get_mut(session).unwrap() -= 1;
    }
}

/// A running shop.
pub(crate) struct Shop {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

impl Shop {
    pub(crate) fn open() -> Self {
        Self::open_at("127.0.0.1:0".parse().unwrap())
    }

    /// At an address where one was before.
    pub(crate) fn open_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            mood: Mutex::new(Mood::Good),
            deliveries: Mutex::default(),
            at_once: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        serve_on(listener, Arc::clone(&seen));
        Self { addr, seen }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Nobody takes a connection any more, as when the web server is stopped.
    pub(crate) fn close(&self) {
        self.seen.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        until("the shop is closed", || {
            TcpStream::connect(self.addr).is_err()
        });
    }

    /// After [`Self::close`].
    pub(crate) fn reopen(&self) {
        self.seen.ended.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(self.addr).unwrap();
        serve_on(listener, Arc::clone(&self.seen));
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.seen.mood.lock().unwrap() = mood;
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.seen.deliveries.lock().unwrap().clone()
    }

    /// How many deliveries there were.
    pub(crate) fn count(&self) -> usize {
        self.seen.deliveries.lock().unwrap().len()
    }

    pub(crate) fn acknowledged(&self) -> Vec<Delivery> {
        let mut all = self.deliveries();
        all.retain(|delivery| delivery.acknowledged);
        all
    }

    /// The most that were here at a time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.seen.at_once.lock().unwrap().all.1
    }

    /// The most of one session that were here at a time.
    #[cfg(feature = "sandbox")]
    pub(crate) fn most_of_a_session(&self) -> usize {
        self.seen.at_once.lock().unwrap().most_of_one
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.seen.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve_on(listener: TcpListener, shared: Arc<Seen>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if shared.ended.load(Ordering::SeqCst) {
                return;
            }
            let seen = Arc::clone(&shared);
            std::thread::spawn(move || seen.serve(stream));
        }
    });
}

impl Seen {
    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let Some((headers, body)) = read(&mut stream) else {
            return;
        };
        let session = session_of(&body);
        self.at_once.lock().unwrap().enter(&session);
        assert!(
            is_the_gates(&headers, &body),
            "a delivery that is not the gate's"
        );
        let mood = *self.mood.lock().unwrap();
        if let Mood::Slow(time) = mood {
            std::thread::sleep(time);
        }
        let acknowledged = mood == Mood::Good || matches!(mood, Mood::Slow(_));
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let timestamp = headers["webhook-timestamp"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        self.deliveries.lock().unwrap().push(Delivery {
            headers,
            body,
            acknowledged,
        });
        self.at_once.lock().unwrap().leave(&session);
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let answer = match mood {
            Mood::Broken => "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Mood::Forgetful => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Mood::Good | Mood::Slow(_) => format!(
                "HTTP/1.1 200 OK\r\nPriorgate-Ack: {}\r\nContent-Length: 0\r\n\r\n",
                acknowledgement(&secret, &id, timestamp)
            ),
        };
        // A gate that was killed reads no more.
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// The session that a body names; without one it is a session of its own.
fn session_of(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let named = json.and_then(|json| json["session_id"].as_str().map(str::to_owned));
    named.unwrap_or_else(|| format!("{body:?}"))
}

fn is_the_gates(headers: &http::HeaderMap, body: &[u8]) -> bool {
    if str::from_utf8(body).is_ok() {
        return Webhook::new(SECRET).unwrap().verify(body, headers).is_ok();
    }
    // The specification's library takes text alone; the rule is the same.
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let secret = WebhookSecret::parse(SECRET).unwrap();
    let timestamp = text("webhook-timestamp").parse().unwrap();
    sign(&[secret], &text("webhook-id"), timestamp, body) == text("webhook-signature")
}

fn read(stream: &mut TcpStream) -> Option<(http::HeaderMap, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut headers = http::HeaderMap::new();
    for line in String::from_utf8(head).unwrap().lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ") {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((headers, body))
}
