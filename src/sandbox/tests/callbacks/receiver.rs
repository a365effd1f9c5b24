//! The shop's end of a callback: reads raw bytes and answers what it was told to.
//!
//! Owns a receiver (a thread per connection, nothing but `std`) and the check of signatures over the
//! bytes that came.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64ct::{Base64, Encoding as _};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use x509_cert::der::pem;

use super::super::PATIENCE;
use crate::sandbox::{CallbackAlgorithm, CallbackUrl};

pub(super) const PATH: &str = "/bank/callback";

/// A request as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// How many reads the body took, those with the head not counted.
    pub(super) pieces: usize,
}

impl Received {
    /// The values of a header, in their order.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn status(&self) -> String {
        self.json()["status"].as_str().unwrap().to_owned()
    }

    /// Does each signature fit, over these bytes?
    pub(super) fn fits(&self, algorithm: CallbackAlgorithm, public_pem: &str) -> Vec<bool> {
        self.fits_with(algorithm, public_pem, &self.body)
    }

    pub(super) fn fits_with(
        &self,
        algorithm: CallbackAlgorithm,
        public_pem: &str,
        message: &[u8],
    ) -> Vec<bool> {
        let algorithm: &'static dyn VerificationAlgorithm = match algorithm {
            CallbackAlgorithm::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            CallbackAlgorithm::Ed25519 => &ED25519,
            CallbackAlgorithm::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            CallbackAlgorithm::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        };
        let (label, spki) = pem::decode_vec(public_pem.as_bytes()).unwrap();
        assert_eq!(label, "PUBLIC KEY");
        let key = UnparsedPublicKey::new(algorithm, spki);
        let signatures = self.values("X-Signature").into_iter();
        signatures
            .map(|text| Base64::decode_vec(text).unwrap())
            .map(|signature| key.verify(message, &signature).is_ok())
            .collect()
    }
}

/// What the receiver does with a request.
#[derive(Clone, Copy)]
pub(super) enum Reply {
    Status(u16),
    /// Answers this when another request waits for the same: two are here at once.
    Together(u16),
    /// Closes without an answer.
    Close,
    /// Says nothing and waits for the other end to give up.
    Silence,
}

/// What the threads share.
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    both: Barrier,
}

/// The shop's end.
pub(super) struct Receiver {
    received: UnboundedReceiver<Received>,
    script: Arc<Script>,
    pub(super) url: CallbackUrl,
}

impl Receiver {
    /// Answers with these in turn, then with 200.
    pub(super) fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = CallbackUrl::tcp(listener.local_addr().unwrap(), PATH).unwrap();
        Self::serve(url, replies, move || listener.accept().unwrap().0)
    }

    /// The threads end with the test's process.
    pub(super) fn serve<S: Read + Write + Send + 'static>(
        url: CallbackUrl,
        replies: &[Reply],
        accept: impl Fn() -> S + Send + 'static,
    ) -> Self {
        let (sender, received) = unbounded_channel();
        let script = Arc::new(Script {
            replies: Mutex::new(replies.iter().copied().collect()),
            both: Barrier::new(2),
        });
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            loop {
                let (stream, sender, script) = (accept(), sender.clone(), Arc::clone(&shared));
                thread::spawn(move || answer(stream, &sender, &script));
            }
        });
        Self {
            received,
            script,
            url,
        }
    }

    pub(super) async fn next(&mut self) -> Received {
        let next = timeout(PATIENCE, self.received.recv()).await;
        next.expect("a callback comes").unwrap()
    }

    pub(super) fn reply(&self, reply: Reply) {
        self.script.replies.lock().unwrap().push_back(reply);
    }

    pub(super) fn nothing_more(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

fn answer(mut stream: impl Read + Write, sender: &UnboundedSender<Received>, script: &Script) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let mut pieces = 0;
    let received = loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end.map(|at| at + 4) {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.split("Content-Length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if bytes.len() >= end + length {
                let body = bytes[end..].to_vec();
                assert_eq!(body.len(), length);
                break Received { head, body, pieces };
            }
            pieces += 1;
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    };
    let reply = script.replies.lock().unwrap().pop_front();
    // A test that has seen enough is gone.
    let _ = sender.send(received);
    let reply = reply.unwrap_or(Reply::Status(200));
    if let Reply::Together(_) = reply {
        script.both.wait();
    }
    match reply {
        Reply::Status(status) | Reply::Together(status) => {
            let _ = write!(
                stream,
                "HTTP/1.1 {status} Sandbox\r\nContent-Length: 2\r\n\r\nok"
            );
        }
        Reply::Close => {}
        Reply::Silence => while matches!(stream.read(&mut chunk), Ok(n) if n > 0) {},
    }
}
