//! One delivery: a POST to a loopback address or a Unix socket, and the judgement of what came back.
//!
//! It owns the signature of each attempt and what an acknowledgement is; it knows no journal and no schedule. A redirect is
//! a failure like any other answer: following it would hand a customer's payment to whoever configured it.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::callback::{Ack, Target};
use crate::net::exchange::chain;
use crate::policy::schedule::Failure;
use crate::policy::status::Mark;
use crate::policy::webhook::{self, WebhookSecret};

/// The header of an acknowledgement.
pub const ACK: HeaderName = HeaderName::from_static("priorgate-ack");

/// A shop, as one callback delivers to it.
#[derive(Clone, Debug)]
pub struct Shop {
    /// Where.
    pub target: Target,
    /// The `Host` header: Bitrix chooses the site by it.
    pub host: HeaderValue,
    /// Path and query.
    pub path: String,
    /// From the connect to the answer's head.
    pub timeout: Duration,
    /// What counts.
    pub ack: Ack,
    /// Every one signs; any one's acknowledgement will do.
    pub secrets: Vec<WebhookSecret>,
}

/// One attempt to hand an event over.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `webhook-id`: the same for each attempt.
    pub id: String,
    /// `webhook-timestamp`: this attempt's, in seconds.
    pub timestamp: i64,
    /// The callback's name.
    pub callback: String,
    /// Which of the bank's keys verified it.
    pub key_id: String,
    /// What it means after what came before.
    pub mark: Mark,
    /// Whether its body named a session.
    pub session_known: bool,
    /// As the bank sent it.
    pub content_type: Option<String>,
    /// Byte for byte.
    pub body: Bytes,
}

/// The shop has not acknowledged it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotDelivered {
    /// What that means for the next attempt.
    pub failure: Failure,
    /// For the operator: no body, no address of a customer.
    pub cause: String,
}

impl Shop {
    /// Tries once.
    ///
    /// # Errors
    /// [`NotDelivered`]; after a time-out the shop may have acted.
    pub async fn deliver(&self, delivery: &Delivery) -> Result<(), NotDelivered> {
        let request = self.request(delivery);
        let answer = match timeout(self.timeout, self.exchange(request)).await {
            Err(_) => {
                let cause = "no answer within deliver.timeout".to_owned();
                return Err(NotDelivered {
                    failure: Failure::TimedOut,
                    cause,
                });
            }
            Ok(Err(failed)) => return Err(failed),
            Ok(Ok(answer)) => answer,
        };
        let (status, headers) = answer;
        self.judge(delivery, status, &headers)
            .map_err(|cause| NotDelivered {
                failure: speaker(status, &headers),
                cause,
            })
    }

    fn judge(&self, delivery: &Delivery, status: u16, headers: &HeaderMap) -> Result<(), String> {
        if !(200..=299).contains(&status) {
            return Err(format!("answered {status}"));
        }
        let mut given = headers.get_all(ACK).iter();
        let (given, twice) = (given.next(), given.next());
        let acknowledged = match (self.ack, given, twice) {
            (Ack::Status, _, _) => true,
            (_, None, _) => return Err(format!("answered {status} without Priorgate-Ack")),
            (_, _, Some(_)) => return Err("answered with two Priorgate-Ack".to_owned()),
            (Ack::Header, Some(value), None) => value.as_bytes() == delivery.id.as_bytes(),
            (Ack::Signed, Some(value), None) => webhook::is_acknowledged(
                &self.secrets,
                &delivery.id,
                delivery.timestamp,
                value.as_bytes(),
            ),
        };
        if acknowledged {
            Ok(())
        } else {
            Err(format!(
                "answered {status} with a Priorgate-Ack that is not of this delivery"
            ))
        }
    }

    fn request(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(delivery.body.clone()));
        *request.method_mut() = http::Method::POST;
        // The configuration's check has taken it for a path; another one would be `/`.
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let signature = webhook::sign(
            &self.secrets,
            &delivery.id,
            delivery.timestamp,
            &delivery.body,
        );
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::CONTENT_LENGTH, delivery.body.len().into());
        let known = if delivery.session_known {
            "known"
        } else {
            "unknown"
        };
        for (name, value) in [
            ("webhook-id", &*delivery.id),
            ("webhook-timestamp", &*delivery.timestamp.to_string()),
            ("webhook-signature", &*signature),
            ("priorgate-callback", &*delivery.callback),
            ("priorgate-key-id", &*delivery.key_id),
            ("priorgate-transition", delivery.mark.as_str()),
            ("priorgate-session", known),
        ] {
            // All of them are ASCII of ours.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(content_type) = &delivery.content_type
            && let Ok(value) = HeaderValue::from_str(content_type)
        {
            headers.insert(header::CONTENT_TYPE, value);
        }
        request
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, HeaderMap), NotDelivered> {
        let connect = |error: io::Error| NotDelivered {
            failure: Failure::Refused,
            cause: format!("no connection ({})", error.kind()),
        };
        match &self.target {
            Target::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await.map_err(connect)?;
                send(stream, request).await
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(connect)?;
                send(stream, request).await
            }
        }
    }
}

/// Who it is that answers without an acknowledgement: PHP, a web server whose PHP is away, or one that PHP keeps waiting.
fn speaker(status: u16, headers: &HeaderMap) -> Failure {
    match status {
        _ if headers.contains_key(ACK) => Failure::Answered,
        502 | 503 => Failure::Refused,
        504 => Failure::TimedOut,
        _ => Failure::Answered,
    }
}

/// One request on a connection of its own. Only the answer's head matters; the rest is dropped with the connection.
///
/// Once there is a connection, a failure says nothing of what PHP has done or still does.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(u16, HeaderMap), NotDelivered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| NotDelivered {
        failure: Failure::TimedOut,
        cause: chain(&error),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answer = sender.send_request(request);
    let (connection, answer) = (std::pin::pin!(connection), std::pin::pin!(answer));
    let (parts, _body) = drive(connection, answer)
        .await
        .map_err(failed)?
        .into_parts();
    Ok((parts.status.as_u16(), parts.headers))
}

/// Drives the connection beside the answer; the connection may end first, with the answer on its way up.
async fn drive<C, A, T>(connection: C, mut answer: std::pin::Pin<&mut A>) -> hyper::Result<T>
where
    C: Future<Output = hyper::Result<()>>,
    A: Future<Output = hyper::Result<T>>,
{
    tokio::select! {
        biased;
        found = answer.as_mut() => found,
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn delivery() -> Delivery {
        Delivery {
            id: "priorbank_1".to_owned(),
            timestamp: 1_795_000_000,
            callback: "priorbank".to_owned(),
            key_id: "bank-2026".to_owned(),
            mark: Mark::Conflict,
            session_known: true,
            content_type: Some("application/json".to_owned()),
            body: Bytes::from_static(b"{\"a\":\xff}"),
        }
    }

    fn shop(target: Target, ack: Ack) -> Shop {
        Shop {
            target,
            host: HeaderValue::from_static("shop.example"),
            path: "/bitrix/tools/sale_ps_result.php?BX_HANDLER=PRIORBANK".to_owned(),
            timeout: Duration::from_secs(5),
            ack,
            secrets: vec![WebhookSecret::parse(SECRET).unwrap()],
        }
    }

    /// Answers one delivery with `answer`, and gives what it was sent.
    async fn attempt(ack: Ack, answer: String) -> (Result<(), NotDelivered>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shop = shop(Target::Tcp(listener.local_addr().unwrap()), ack);
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"{\"a\":\xff}") {
                let mut chunk = [0; 4096];
                let read = stream.read(&mut chunk).await.unwrap();
                got.extend_from_slice(&chunk[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            got
        };
        let sent = delivery();
        tokio::join!(shop.deliver(&sent), serve)
    }

    fn answer(status: &str, headers: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n")
    }

    #[tokio::test]
    async fn the_shop_gets_the_same_bytes_with_what_it_needs_to_trust_them() {
        let (delivered, got) = attempt(Ack::Status, answer("204 No Content", "")).await;
        assert_eq!(delivered, Ok(()));
        let text = String::from_utf8_lossy(&got).into_owned();
        let signature = webhook::sign(
            &[WebhookSecret::parse(SECRET).unwrap()],
            "priorbank_1",
            1_795_000_000,
            b"{\"a\":\xff}",
        );
        assert!(text.starts_with(
            "POST /bitrix/tools/sale_ps_result.php?BX_HANDLER=PRIORBANK HTTP/1.1\r\n"
        ));
        for line in [
            "host: shop.example",
            "content-type: application/json",
            "content-length: 7",
            "webhook-id: priorbank_1",
            "webhook-timestamp: 1795000000",
            &format!("webhook-signature: {signature}"),
            "priorgate-callback: priorbank",
            "priorgate-key-id: bank-2026",
            "priorgate-transition: conflict",
            "priorgate-session: known",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}: {text}");
        }
        assert!(got.ends_with(b"\r\n\r\n{\"a\":\xff}"));
    }

    #[tokio::test]
    async fn only_an_acknowledgement_of_this_attempt_counts() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let signed = webhook::acknowledgement(&secret, "priorbank_1", 1_795_000_000);
        let old = webhook::acknowledgement(&secret, "priorbank_1", 1_794_999_999);
        let header = |value: &str| format!("Priorgate-Ack: {value}\r\n");
        for (ack, status, headers, good) in [
            (Ack::Signed, "200 OK", header(&signed), true),
            (Ack::Signed, "200 OK", header(&old), false),
            (Ack::Signed, "200 OK", header("priorbank_1"), false),
            (Ack::Signed, "200 OK", header(&signed).repeat(2), false),
            (Ack::Signed, "200 OK", String::new(), false),
            (Ack::Signed, "500 Oops", header(&signed), false),
            (Ack::Header, "200 OK", header("priorbank_1"), true),
            (Ack::Header, "200 OK", header("priorbank_2"), false),
            (Ack::Header, "200 OK", String::new(), false),
            (Ack::Status, "200 OK", String::new(), true),
            (Ack::Status, "404 Not Found", String::new(), false),
            (
                Ack::Status,
                "302 Found",
                "Location: /\r\n".to_owned(),
                false,
            ),
        ] {
            let (delivered, _) = attempt(ack, answer(status, &headers)).await;
            assert_eq!(
                delivered.is_ok(),
                good,
                "{ack:?} {status} {headers}: {delivered:?}"
            );
            if let Err(error) = delivered {
                assert_eq!(error.failure, Failure::Answered);
            }
        }
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut slow = shop(Target::Tcp(addr), Ack::Status);
        slow.timeout = Duration::from_millis(50);
        let error = slow.deliver(&delivery()).await.unwrap_err();
        assert_eq!(error.failure, Failure::TimedOut);
        drop(listener);
        let error = slow.deliver(&delivery()).await.unwrap_err();
        assert_eq!(error.failure, Failure::Refused);
        let gone = shop(Target::Unix("/nonexistent/shop.sock".into()), Ack::Status);
        let error = gone.deliver(&delivery()).await.unwrap_err();
        assert_eq!(error.failure, Failure::Refused);
        assert!(!error.cause.contains("nonexistent"), "{}", error.cause);
    }

    #[tokio::test]
    async fn an_answer_that_is_none_says_nothing_of_what_the_shop_does() {
        for answer in ["what?\r\n\r\n", "", "HTTP/1.1 200 OK\r\n"] {
            let (delivered, _) = attempt(Ack::Status, answer.to_owned()).await;
            assert_eq!(
                delivered.unwrap_err().failure,
                Failure::TimedOut,
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_web_server_that_speaks_for_php_is_not_taken_for_it() {
        let ack = "Priorgate-Ack: no\r\n";
        for (status, headers, failure) in [
            ("502 Bad Gateway", "", Failure::Refused),
            ("503 Service Unavailable", "", Failure::Refused),
            ("504 Gateway Timeout", "", Failure::TimedOut),
            ("500 Internal Server Error", "", Failure::Answered),
            ("503 Service Unavailable", ack, Failure::Answered),
        ] {
            let (delivered, _) = attempt(Ack::Signed, answer(status, headers)).await;
            assert_eq!(delivered.unwrap_err().failure, failure, "{status}");
        }
    }
}
