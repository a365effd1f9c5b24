//! A TLS server that does what a scenario says, however wrong, and counts what it received.
//!
//! Blocking threads and rustls' server half: it shares no code with the path that it tests.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{DistinguishedName, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::pki::{Ca, Issued};

/// Whom the bank asks for a certificate.
pub(crate) enum Demand<'a> {
    /// A certificate of this CA.
    Of(&'a Ca),
    /// The same, by a request that names so many others that no packet of the keyholder's protocol holds a transcript
    /// with it.
    OfManyNames(&'a Ca),
    /// None at all.
    Nothing,
}

/// Which TLS the bank speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaks {
    Tls12,
    Tls13,
    /// TLS 1.3 without session tickets: before its first answer nothing tells that it accepted the
    /// certificate.
    Tls13WithoutTickets,
}

/// A running bank.
pub(crate) struct Bank {
    port: u16,
    seen: Arc<Seen>,
}

/// What it received.
#[derive(Default)]
pub(crate) struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    clients: Mutex<Vec<CertificateDer<'static>>>,
    ended: AtomicBool,
}

/// A request as it arrived. `body` is shorter than announced when the connection ended.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A connection after its handshake.
pub(crate) struct Session {
    pub(super) stream: StreamOwned<ServerConnection, TcpStream>,
    seen: Arc<Seen>,
    /// The place of this connection's last request among all that the bank has seen.
    current: usize,
    /// 0 for the first connection of this bank.
    pub(crate) index: usize,
}

impl Bank {
    /// A bank with a server certificate, whose sessions are handled by `handle`.
    pub(crate) fn start(
        server: &Issued,
        demand: &Demand<'_>,
        speaks: Speaks,
        handle: impl Fn(Session) + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config(server, demand, speaks));
        Self::raw(move |socket, index, seen| {
            let Ok(session) = shake_hands(socket, Arc::clone(&config), index, seen) else {
                return;
            };
            handle(session);
        })
    }

    /// A bank that never gets as far as TLS.
    pub(crate) fn raw(
        handle: impl Fn(TcpStream, usize, Arc<Seen>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let handle = Arc::new(handle);
        let counted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if counted.ended.load(Ordering::SeqCst) {
                    return;
                }
                let index = counted.connections.fetch_add(1, Ordering::SeqCst);
                let (handle, seen) = (Arc::clone(&handle), Arc::clone(&counted));
                std::thread::spawn(move || handle(socket, index, seen));
            }
        });
        Self { port, seen }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Every request whose head arrived.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Distinct client certificates, in the order of their first handshake.
    pub(crate) fn clients(&self) -> Vec<CertificateDer<'static>> {
        let mut distinct = Vec::new();
        for client in self.seen.clients.lock().unwrap().iter() {
            if !distinct.contains(client) {
                distinct.push(client.clone());
            }
        }
        distinct
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.seen.ended.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then sees its end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What rustls' server half needs to be this bank.
pub(crate) fn config(server: &Issued, demand: &Demand<'_>, speaks: Speaks) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let version = match speaks {
        Speaks::Tls12 => &rustls::version::TLS12,
        Speaks::Tls13 | Speaks::Tls13WithoutTickets => &rustls::version::TLS13,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = match demand {
        Demand::Nothing => builder.with_no_client_auth(),
        Demand::Of(ca) | Demand::OfManyNames(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der()).unwrap();
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if matches!(demand, Demand::OfManyNames(_)) {
                // 64,384 bytes with their lengths: a message has 65,535 at most, and what comes with it is read, too.
                let name = || DistinguishedName::from(vec![0x30; 1004]);
                verifier = verifier.add_root_hint_subjects((0..64).map(|_| name()));
            }
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder
        .with_single_cert(vec![server.der()], server.key_der())
        .unwrap();
    // For `Session::alert`.
    config.enable_secret_extraction = true;
    if matches!(speaks, Speaks::Tls13WithoutTickets) {
        config.send_tls13_tickets = 0;
    }
    config
}

/// What [`Bank::start`] does with a new connection before its `handle`.
pub(crate) fn shake_hands(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    index: usize,
    seen: Arc<Seen>,
) -> io::Result<Session> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut socket) {
            // The alert, if there is one to send; then the socket is dropped, as a real server would.
            while tls.wants_write() && tls.write_tls(&mut socket).is_ok() {}
            return Err(error);
        }
    }
    if let Some(client) = tls.peer_certificates().and_then(|chain| chain.first()) {
        seen.clients
            .lock()
            .unwrap()
            .push(client.clone().into_owned());
    }
    Ok(Session {
        stream: StreamOwned::new(tls, socket),
        seen,
        current: 0,
        index,
    })
}

impl Session {
    /// Reads a request's head, and counts it. `None` at the end of the connection.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) | Err(_) => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let request = Request {
            head: head.clone(),
            body: Vec::new(),
        };
        let mut requests = self.seen.requests.lock().unwrap();
        self.current = requests.len();
        requests.push(request);
        Some(head)
    }

    /// Reads a whole request.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.trim().parse().unwrap());
        let body = self.bytes(length);
        let request = Request { head, body };
        let mut requests = self.seen.requests.lock().unwrap();
        requests[self.current] = request.clone();
        Some(request)
    }

    /// Reads up to `count` bytes, fewer at the end of the connection.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut body = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.stream.read(&mut body[filled..]) {
                Ok(0) | Err(_) => break,
                Ok(n) => filled += n,
            }
        }
        body.truncate(filled);
        body
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // A gate that has given up reads no more; that is its right.
        let _ = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
    }

    /// Answers with JSON.
    pub(crate) fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.write(
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        );
    }

    /// Answers every request of the connection with 200 and the same JSON.
    pub(crate) fn serve(mut self) {
        while self.request().is_some() {
            self.answer(
                "200 OK",
                r#"{"session_id":"s1","payment_url":"https://pay.example/s1"}"#,
            );
        }
    }

    /// A TLS close and a TCP FIN: the polite end.
    pub(crate) fn close(mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
    }

    /// A TCP reset: what was written may be lost.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream.sock)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// The socket below TLS.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }
}
