//! What is measured: signatures, handshakes, and first requests, each the same for both places of the key.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use priorgate::config::TlsVersion;
use priorgate::net::meter::Meter;
use priorgate::tls::client::{TlsClient, TlsSetup};
use priorgate::tls::identity::Identity;
use priorgate::tls::key::ClientKey;
use priorgate::tls::store::{Pair, Store};
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::cpu::{Pids, Times};
use crate::world::{NAME, Split, World};

const BODY: &str = r#"{"order_ref":"17","amount":"1250.50","currency":"BYN","term":12,"items":[]}"#;
const LATE: Duration = Duration::from_secs(10);

/// How often in a second, and what it took of the processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Microseconds of each process for one.
    pub(crate) cpu: [f64; 4],
}

/// How long requests took, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu: [f64; 4],
}

/// A client of the bank with its key in this process, or in the keyholder.
pub(crate) struct Client {
    key: ClientKey,
    tls: Arc<TlsClient>,
}

impl Client {
    pub(crate) fn in_process(world: &World, kind: &str) -> Self {
        let identity = Identity::load(&world.cert(kind), &world.key(kind)).unwrap();
        Self::with(
            world,
            Pair {
                chain: identity.chain,
                key: ClientKey::Local(identity.key),
                leaf: identity.leaf,
            },
        )
    }

    pub(crate) fn split(world: &World, kind: &str, split: &Split) -> Self {
        let pair = Pair::match_up(&world.cert(kind), &split.keyholder, &split.held);
        Self::with(world, pair.unwrap())
    }

    fn with(world: &World, pair: Pair) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(world.ca()).unwrap();
        roots.add(ca).unwrap();
        let key = pair.key.clone();
        let name = ServerName::try_from(NAME).unwrap();
        let store = Arc::new(Store::fixed(pair));
        let setup = TlsSetup::new(TlsVersion::Tls13, roots, name, vec![]).unwrap();
        Self {
            key,
            tls: Arc::new(setup.with_identity(store)),
        }
    }

    /// Signatures alone, one after the other, each over what a handshake has signed.
    pub(crate) fn sign(&self, pids: &Pids, round: Duration) -> Rate {
        let message = [
            &[b' '; 64][..],
            b"TLS 1.3, client CertificateVerify\0",
            &[7; 32],
        ]
        .concat();
        let offered = [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ];
        measured(pids, |begun| {
            let mut count = 0;
            while begun.elapsed() < round {
                let key = self.key.for_handshake(Instant::now() + LATE);
                let signer = key.choose_scheme(&offered).unwrap();
                assert!(!signer.sign(&message).unwrap().is_empty());
                count += 1;
            }
            count
        })
    }

    /// Whole handshakes, `at_once` at a time, until the bank says that it has verified ours: each on a blocking thread, as
    /// the gate has them.
    pub(crate) fn shake(
        &self,
        runtime: &Runtime,
        bank: SocketAddr,
        at_once: usize,
        pids: &Pids,
        round: Duration,
    ) -> Rate {
        measured(pids, |begun| {
            runtime.block_on(async {
                let callers: Vec<_> = (0..at_once)
                    .map(|_| {
                        let tls = Arc::clone(&self.tls);
                        tokio::spawn(async move {
                            let mut count = 0;
                            while begun.elapsed() < round {
                                shake_once(Arc::clone(&tls), bank).await;
                                count += 1;
                            }
                            count
                        })
                    })
                    .collect();
                let mut all = 0;
                for caller in callers {
                    all += caller.await.unwrap();
                }
                all
            })
        })
    }
}

async fn shake_once(tls: Arc<TlsClient>, bank: SocketAddr) {
    let socket = TcpStream::connect(bank).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (meter, _probe) = Meter::new(socket);
    let handle = Handle::current();
    let shaken = tokio::task::spawn_blocking(move || {
        handle.block_on(tls.connect(meter, Instant::now() + LATE))
    });
    let mut stream = shaken.await.unwrap().unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"!");
}

/// The runtime of a gate, but that its threads stay: what they have used is read as long as they live.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(3_600))
        .build()
        .unwrap()
}

/// Requests through a gate that opens a connection for each, one after the other.
pub(crate) fn first_requests(socket: &Path, pids: &Pids, count: usize) -> Latency {
    let mut took = Vec::with_capacity(count);
    let rate = measured(pids, |_| {
        for _ in 0..count {
            let begun = Instant::now();
            request(socket);
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        count
    });
    took.sort_by(f64::total_cmp);
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    Latency {
        p50: at(50),
        p99: at(99),
        cpu: rate.cpu,
    }
}

fn request(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LATE)).unwrap();
    let length = BODY.len();
    write!(
        stream,
        "POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: \
         {length}\r\nConnection: close\r\n\r\n{BODY}"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.ends_with("{\"session_id\":\"s\"}"), "{answer}");
}

fn measured(pids: &Pids, work: impl FnOnce(Instant) -> usize) -> Rate {
    let before = pids.times();
    let begun = Instant::now();
    let count = work(begun) as f64;
    let seconds = begun.elapsed().as_secs_f64();
    let Times {
        gate,
        monitor,
        signer,
        bank,
    } = pids.times().since(&before);
    Rate {
        per_second: count / seconds,
        cpu: [gate, monitor, signer, bank].map(|nanos| nanos as f64 / 1e3 / count),
    }
}
