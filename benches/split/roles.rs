//! The processes that are measured, each a role of this program: the bank, and a whole gate with its key here or there.
//! The keyholder's two are `priorgate keyholder` as it is.

use std::future::pending;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use priorgate::config::Config;
use priorgate::gate::material::Keys;
use priorgate::gate::{prepare, prepare_with};
use priorgate::harden::{confine_gate, rules};
use priorgate::net::inherit::Inherited;
use priorgate::net::listen::Binder;
use priorgate::telemetry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const ANSWER: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"session_id\":\"s\"}";
/// The longest that a process of this run stays, whatever becomes of the one that measures.
const LIFE: u32 = 1_800;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// A bank that demands a certificate of our CA, on one thread.
pub(crate) fn bank(ca: &Path, cert: &Path, key: &Path) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let demand =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(demand.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    // Nobody here resumes a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    runtime().block_on(async move {
        let hands = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let requests = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        say(&format!("{} {}", port(&hands), port(&requests)));
        let serve = accept(requests, acceptor.clone(), serve);
        let both = async { tokio::join!(accept(hands, acceptor, greet), serve) };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(LIFE.into()), both).await;
    });
}

async fn accept<F>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    then: impl Fn(TlsStream<TcpStream>) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(socket).await {
                then(stream).await;
            }
        });
    }
}

/// One byte once the client's certificate and signature were verified.
async fn greet(mut stream: TlsStream<TcpStream>) {
    let _ = stream.write_all(b"!").await;
    let _ = stream.flush().await;
    // Until the other side goes.
    let _ = stream.read(&mut [0]).await;
}

async fn serve(mut stream: TlsStream<TcpStream>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(size @ 1..) = stream.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..size]);
        let end = seen.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if seen.len() >= end + 4 + length {
            seen.clear();
            let _ = stream.write_all(ANSWER).await;
            let _ = stream.flush().await;
        }
    }
}

/// A gate as `priorgate run` makes it, but for where its key is. It runs until it is killed.
pub(crate) fn gate(keys: &str, config: &Path) {
    let config = Config::load(config).unwrap();
    rules::refuse(&config).unwrap();
    let mut telemetry = telemetry::init(config.log.format, config.log.level).unwrap();
    let level = config.hardening;
    let threads = config.threads.handshakes + 4;
    let binder = Binder::new(Inherited::take().unwrap());
    let prepared = match keys {
        "keyholder" => prepare(config, binder),
        "in-process" => prepare_with(config, binder, None, &Keys::Files),
        other => panic!("no such place for a key: {other}"),
    }
    .unwrap();
    let confined = confine_gate(prepared.needs(), level).unwrap();
    telemetry.begin().unwrap();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads)
        // What its threads have used is read as long as they live.
        .thread_keep_alive(std::time::Duration::from_secs(LIFE.into()))
        .build()
        .unwrap();
    runtime.block_on(async move {
        let (commands, _inbox) = mpsc::channel(1);
        let _gate = prepared.start(commands, || 0, confined).unwrap();
        say("ready");
        let life = std::time::Duration::from_secs(LIFE.into());
        let _ = tokio::time::timeout(life, pending::<()>()).await;
    });
}
