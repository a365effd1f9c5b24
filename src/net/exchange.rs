//! One request and its whole answer over one standing connection to the bank.
//!
//! It owns what is seen of an attempt: how it ended, what the meter counted, what TLS said about our certificate. What
//! that means is decided in [`policy::outcome`](crate::policy::outcome); whether to try again, in `bank::send`.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::meter::Probe;
use super::wire::Wire;
use crate::policy::operation::BootTime;
use crate::policy::outcome::{Attempt, Certificate, End};

/// How long a connection that has ended may be read for an alert that explains the end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much of it is read.
const LAST_WORDS_MAX: usize = 64 << 10;

/// A standing connection to the bank.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<Full<Bytes>>,
    probe: Probe,
    received: Arc<AtomicU64>,
    task: JoinHandle<Ending>,
    opened: Instant,
    counted: Option<Counted>,
}

/// One connection among those that stand, until it is dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A whole answer of the bank.
#[derive(Debug)]
pub struct Answer {
    /// Its status; never 1xx or 3xx.
    pub status: StatusCode,
    /// Its headers as they came.
    pub headers: HeaderMap,
    /// Its body, at most the limit.
    pub body: Bytes,
}

/// An attempt without a usable answer.
#[derive(Debug)]
pub struct Failed {
    /// What was seen.
    pub attempt: Attempt,
    /// The request, when none of it was serialised.
    pub request: Option<Request<Full<Bytes>>>,
    /// The cause in the words of the layer that noticed it: for the operator's log, without anything of the caller's.
    pub cause: String,
}

/// How a connection ended, as its own task saw it.
#[derive(Debug, Default)]
struct Ending {
    alert: Option<AlertDescription>,
    tls13: bool,
    ticket: bool,
    cause: String,
}

/// What bounds an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// Bytes of its head.
    pub head: usize,
    /// Bytes of its body.
    pub body: usize,
}

impl Link {
    /// Starts HTTP/1.1 on a connected stream. Must be called on the runtime that will serve it.
    ///
    /// # Errors
    /// Whatever hyper says; with HTTP/1 nothing is written here.
    pub async fn start(wire: Wire, probe: Probe, limits: AnswerLimits) -> hyper::Result<Self> {
        let received = wire.received();
        let (sender, connection) = http1::Builder::new()
            // hyper's floor is 8 KiB.
            .max_buf_size(limits.head.max(8 << 10))
            .handshake(TokioIo::new(wire))
            .await?;
        let task = tokio::spawn(drive(connection, Arc::clone(&received)));
        Ok(Self {
            sender,
            probe,
            received,
            task,
            opened: Instant::now(),
            counted: None,
        })
    }

    /// Counts it among those that stand, for as long as it does.
    pub fn counted(&mut self, among: &Arc<AtomicUsize>) {
        among.fetch_add(1, Ordering::Relaxed);
        self.counted = Some(Counted(Arc::clone(among)));
    }

    /// When the connection was made.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// The next request was committed as sent at this moment (see [`Probe::first_byte_after`]).
    pub fn first_byte_after(&self, committed: BootTime) {
        self.probe.first_byte_after(committed);
    }

    /// Whether an idle connection may take a request: open, and the bank has not spoken unasked.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.probe.is_quiet()
    }

    /// Whether hyper has ended the connection (the bank's `Connection: close`, or worse).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the last exchange is over on both sides. A bank that answers early, without reading the request to its end,
    /// leaves a rest of it here: such a connection takes no other. Gives hyper a moment of the runtime to notice the end.
    pub async fn is_done(&mut self) -> bool {
        let ready = self.sender.ready();
        tokio::pin!(ready);
        for _ in 0..2 {
            let now = poll_fn(|cx| Poll::Ready(ready.as_mut().poll(cx))).await;
            match now {
                Poll::Ready(result) => return result.is_ok(),
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        false
    }

    /// Waits whether the bank ends an unused connection, and gives how: under TLS 1.3 a refused client certificate comes
    /// after the handshake. `None` when it was still open at the end.
    pub async fn ends_within(mut self, patience: Duration) -> Option<String> {
        let ending = timeout(patience, &mut self.task).await.ok()?;
        let ending = ending.unwrap_or_default();
        Some(match ending.alert {
            Some(alert) => format!("the bank sent the TLS alert {alert:?}"),
            None if ending.cause.is_empty() => "the bank closed the connection at once".to_owned(),
            None => ending.cause,
        })
    }

    /// Sends one request and reads its whole answer. After an error the connection must be dropped.
    ///
    /// # Errors
    /// [`Failed`] says what was seen; the meter is poisoned by then.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        limits: AnswerLimits,
    ) -> Result<Answer, Failed> {
        let mark = Mark {
            written: self.probe.written(),
            received: self.received.load(Ordering::Relaxed),
        };
        match timeout_at(deadline, self.sender.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(self
                    .failed(
                        mark,
                        self.end_of(&error, mark),
                        Cause::of(&error),
                        Some(request),
                    )
                    .await);
            }
            Err(elapsed) => {
                return Err(self
                    .failed(mark, End::TimedOut, Cause::of(&elapsed), Some(request))
                    .await);
            }
        }
        let response = match timeout_at(deadline, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut refused)) => {
                let request = refused.take_message();
                let error = refused.into_error();
                return Err(self
                    .failed(mark, self.end_of(&error, mark), Cause::of(&error), request)
                    .await);
            }
            Err(elapsed) => {
                return Err(self
                    .failed(mark, End::TimedOut, Cause::of(&elapsed), None)
                    .await);
            }
        };
        let (parts, body) = response.into_parts();
        if let Some(end) = unusable(parts.status) {
            return Err(self
                .failed(mark, end, Cause::of(&Unusable(parts.status)), None)
                .await);
        }
        match timeout_at(deadline, collect(body, limits.body)).await {
            Ok(Ok(body)) => Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            }),
            Ok(Err(BodyError::TooLarge)) => Err(self
                .failed(mark, End::TooLarge, Cause::of(&BodyError::TooLarge), None)
                .await),
            Ok(Err(BodyError::Broken(error))) => {
                let end = if error
                    .downcast_ref::<hyper::Error>()
                    .is_some_and(hyper::Error::is_parse)
                {
                    End::Malformed
                } else {
                    End::Truncated
                };
                Err(self
                    .failed(mark, end, Cause::of(error.as_ref()), None)
                    .await)
            }
            Err(elapsed) => Err(self
                .failed(mark, End::TimedOut, Cause::of(&elapsed), None)
                .await),
        }
    }

    fn end_of(&self, error: &hyper::Error, mark: Mark) -> End {
        if error.is_parse_too_large() {
            End::TooLarge
        } else if error.is_parse() {
            End::Malformed
        } else if self.received.load(Ordering::Relaxed) > mark.received {
            End::Truncated
        } else {
            End::Closed
        }
    }

    /// Poisons first, reads the count second: in the other order a write could slip between.
    async fn failed(
        &mut self,
        mark: Mark,
        end: End,
        cause: Cause,
        request: Option<Request<Full<Bytes>>>,
    ) -> Failed {
        self.probe.poison();
        let written = self.probe.written().saturating_sub(mark.written);
        let ending = match end {
            // The connection may live on; it has nothing to tell.
            End::TimedOut
            | End::TooLarge
            | End::Redirect
            | End::SwitchedProtocols
            | End::Malformed => {
                self.task.abort();
                Ending::default()
            }
            End::Closed | End::Truncated => {
                match timeout(LAST_WORDS.saturating_mul(2), &mut self.task).await {
                    Ok(Ok(ending)) => ending,
                    Ok(Err(_)) | Err(_) => Ending::default(),
                }
            }
        };
        let alert = cause.alert.or(ending.alert);
        let certificate = match alert {
            None => Certificate::NotQuestioned,
            Some(_)
                if ending.tls13 && !ending.ticket && self.received.load(Ordering::Relaxed) == 0 =>
            {
                Certificate::Refused
            }
            Some(_) => Certificate::RefusedLate,
        };
        let cause = match alert {
            Some(alert) => format!("the bank sent the TLS alert {alert:?}"),
            None if ending.cause.is_empty() => cause.text,
            None => format!("{}; {}", cause.text, ending.cause),
        };
        Failed {
            attempt: Attempt {
                handed_back: request.is_some(),
                written,
                certificate,
                end,
            },
            request,
            cause,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The task holds the socket: aborting it closes the connection without another write.
        self.probe.poison();
        self.task.abort();
    }
}

/// What an error says, without the error: hyper's are not to be held over an await.
struct Cause {
    alert: Option<AlertDescription>,
    text: String,
}

impl Cause {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        Self {
            alert: certificate_alert(error),
            text: chain(error),
        }
    }
}

/// The counts at checkout.
#[derive(Clone, Copy)]
struct Mark {
    written: u64,
    received: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the answer's status was {0}")]
struct Unusable(StatusCode);

fn unusable(status: StatusCode) -> Option<End> {
    if status.is_informational() {
        Some(End::SwitchedProtocols)
    } else if status.is_redirection() {
        Some(End::Redirect)
    } else {
        None
    }
}

#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the answer's body is above the limit")]
    TooLarge,
    #[error(transparent)]
    Broken(Box<dyn StdError + Send + Sync>),
}

/// Reads the whole body. Refuses at once what announces too much.
async fn collect(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(BodyError::TooLarge),
        Err(error) => Err(BodyError::Broken(error)),
    }
}

/// Drives a connection to its end and listens for last words: after a write error hyper does not read any more, but an
/// alert that explains the error may lie in the socket already.
async fn drive(
    mut connection: http1::Connection<TokioIo<Wire>, Full<Bytes>>,
    received: Arc<AtomicU64>,
) -> Ending {
    let result = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let mut wire = connection.into_parts().io.into_inner();
    let mut ending = Ending::default();
    if let Err(error) = &result {
        ending.alert = certificate_alert(error);
        ending.cause = chain(error);
    }
    if ending.alert.is_none() && received.load(Ordering::Relaxed) == 0 {
        ending.alert = last_words(&mut wire).await;
    }
    if let Some(facts) = wire.tls_facts() {
        ending.tls13 = facts.tls13;
        ending.ticket = facts.ticket;
    }
    ending
}

async fn last_words(wire: &mut Wire) -> Option<AlertDescription> {
    let listen = async {
        let mut scrap = [0_u8; 4096];
        let mut total = 0_usize;
        while total < LAST_WORDS_MAX {
            match wire.read(&mut scrap).await {
                Ok(0) => return None,
                Ok(n) => total = total.saturating_add(n),
                Err(error) => return certificate_alert(&error),
            }
        }
        None
    };
    timeout(LAST_WORDS, listen).await.ok().flatten()
}

/// The TLS alert about our certificate in an error's chain, if there is one (RFC 8446 section 6.2).
///
/// `access_denied` is none: it is about a certificate that was valid, and a server may come to it after it has read the
/// request, so it proves nothing.
#[must_use]
pub fn certificate_alert(error: &(dyn StdError + 'static)) -> Option<AlertDescription> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::NoCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate
        )
        .then_some(*alert),
        _ => None,
    }
}

/// The rustls error in an error's chain, if there is one. `io::Error` hides its inner error from `source`.
#[must_use]
pub fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// An error with its sources, in one line.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

/// A request as hyper takes it: origin-form target, `Host` of the bank.
///
/// # Errors
/// When the target is no origin-form path; the guard has refused such a head before.
pub fn request(
    method: &str,
    target: &str,
    authority: &header::HeaderValue,
    headers: HeaderMap,
    body: Bytes,
) -> http::Result<Request<Full<Bytes>>> {
    let length = body.len();
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(body))?;
    *request.headers_mut() = headers;
    request
        .headers_mut()
        .insert(header::HOST, authority.clone());
    // hyper says nothing about an empty body; RFC 9110 section 8.6 wants the zero where the method implies a body.
    if length > 0 || matches!(method, "PATCH" | "POST" | "PUT") {
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(request)
}
