//! One connection to the sandbox bank: mutual TLS, then requests until either side has had enough.
//!
//! Owns the handshake, the reading of the client certificate and the playing of faults on the
//! socket. What an answer says is decided in `api`.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::api;
use super::bank::{Bank, LogEvent};
use super::faults::Fault;
use super::ledger::Client;
use super::pki::Pki;
use super::wire::{Answer, DEADLINE, ReadError, Wire};

/// Looks like an answer to nobody: no status line, a NUL and a byte that is no UTF-8.
const GARBAGE: &[u8] = b"\0\xffthis is no HTTP\r\n\r\n";

/// TLS 1.3 and 1.2, with a client certificate of the sandbox's own CA or not at all.
pub(super) fn tls(pki: &Pki) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pki.client_ca()).map_err(io::Error::other)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pki.server().certificate()], pki.server().key())
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves one connection to its end.
pub(super) async fn connection(stream: TcpStream, tls: TlsAcceptor, bank: Arc<Bank>) {
    bank.lock().ledger.totals.connections += 1;
    // An answer goes out in one write; waiting for more to send would only slow it down.
    let _ = stream.set_nodelay(true);
    let handshake = timeout(DEADLINE, tls.accept(stream));
    let accepted = match handshake.await {
        Ok(Ok(stream)) => client(&stream).map(|client| (stream, client)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("too slow".to_owned()),
    };
    let (stream, client) = match accepted {
        Ok(accepted) => accepted,
        Err(reason) => {
            let mut state = bank.lock();
            state.ledger.totals.handshakes_refused += 1;
            let event = LogEvent::HandshakeRefused;
            return bank.record(&mut state, event, reason, None, (None, None));
        }
    };
    bank.lock().ledger.connected(&client);
    requests(Wire::new(stream), &bank, &client).await;
}

async fn requests(mut wire: Wire<TlsStream<TcpStream>>, bank: &Bank, client: &Client) {
    while wire.wait().await {
        if dropped_unread(bank, client) {
            return;
        }
        let request = match wire.request().await {
            Ok(request) => request,
            Err(ReadError::Gone) => return,
            Err(ReadError::Refused(answer)) => {
                malformed(bank, client, &answer);
                let _ = wire.send(&answer.bytes(answer.body.len(), true)).await;
                return wire.close().await;
            }
        };
        let (answer, fault) = api::handle(bank, &request, client);
        let length = answer.body.len();
        let bytes = match fault {
            None | Some(Fault::Redirect | Fault::Status(_)) => answer.bytes(length, request.close),
            Some(Fault::Delay(time)) => {
                sleep(time).await;
                answer.bytes(length, request.close)
            }
            Some(Fault::DropAfterRead | Fault::DropBeforeRead) => return,
            Some(Fault::Reset) => {
                // Closing with a linger time of zero is what makes the kernel send RST.
                let stream = wire.into_inner();
                let _ = stream.get_ref().0.set_zero_linger();
                return;
            }
            Some(Fault::Truncate) => {
                let mut bytes = answer.bytes(length, false);
                bytes.truncate(bytes.len().saturating_sub(length.div_ceil(2)));
                let _ = wire.send(&bytes).await;
                return;
            }
            Some(Fault::WrongLength) => {
                let _ = wire.send(&answer.bytes(length / 2, false)).await;
                return wire.close().await;
            }
            Some(Fault::Garbage) => {
                let _ = wire.send(GARBAGE).await;
                return wire.close().await;
            }
        };
        if wire.send(&bytes).await.is_err() {
            return;
        }
        if request.close {
            break;
        }
    }
    wire.close().await;
}

/// Plays `drop-before-read`, if it is armed.
fn dropped_unread(bank: &Bank, client: &Client) -> bool {
    let mut state = bank.lock();
    let dropped = state.faults.take_unread();
    if dropped {
        state.ledger.totals.unread += 1;
        let fault = Some(Fault::DropBeforeRead.to_string());
        let line = "at the first byte".to_owned();
        bank.record(
            &mut state,
            LogEvent::Unread,
            line,
            Some(client),
            (None, fault),
        );
    }
    dropped
}

fn malformed(bank: &Bank, client: &Client, answer: &Answer) {
    let mut state = bank.lock();
    state.ledger.totals.malformed += 1;
    let played = (Some(answer.status), None);
    let reason = answer.reason.clone();
    bank.record(
        &mut state,
        LogEvent::Malformed,
        reason,
        Some(client),
        played,
    );
}

/// Who is on the other end, by the certificate that the handshake verified.
fn client(stream: &TlsStream<TcpStream>) -> Result<Client, String> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = chain.first().ok_or("no client certificate")?;
    describe(leaf).map_err(|error| format!("the client certificate cannot be read: {error}"))
}

fn describe(leaf: &CertificateDer<'_>) -> Result<Client, x509_cert::der::Error> {
    let certificate = Certificate::from_der(leaf)?;
    let tbs = certificate.tbs_certificate();
    let common_name = tbs.subject().common_name()?;
    Ok(Client {
        common_name: common_name.map_or_else(String::new, |name| name.value().into_owned()),
        serial: tbs.serial_number().to_string(),
        subject: tbs.subject().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_described_by_name_and_serial() {
        let pki = Pki::generate().unwrap();
        let client = describe(&pki.issue_client("Магазин, shop-7").unwrap().certificate()).unwrap();
        assert_eq!(client.common_name, "Магазин, shop-7");
        assert!(client.subject.contains("O=Sandbox"), "{}", client.subject);
        assert!(client.serial.contains(':'), "{}", client.serial);
    }
}
