//! One caller's connection: the guard, hyper above it, and a graceful end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::guard::{Guard, Handle, Settings};
use super::respond::Reply;
use crate::policy::head::Rules;

/// A connection that was accepted just before a drain gets so long for its first byte: a caller writes right after it
/// has connected, and must not find the door shut in between.
const FIRST_BYTE: Duration = Duration::from_millis(500);
/// How long the rest of a refused request is read away, so that the caller sees its answer and not a reset.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Serves the connection until it ends; `drain` turns keep-alive off and ends it after the request that runs.
///
/// The service is called once for each message, a refused one included: it finds the refusal in the [`Handle`].
pub async fn connection<S, F, R>(
    stream: S,
    settings: Settings,
    mut drain: watch::Receiver<bool>,
    service: F,
) -> Handle
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>, Handle) -> R,
    R: Future<Output = Reply>,
{
    // Two more than the guard lets through: hyper must never answer by itself.
    let hyper_headers = settings.rules.max_headers.saturating_add(2);
    let hyper_buffer = settings.rules.max_bytes.saturating_mul(2).max(64 << 10);
    let (guard, handle) = Guard::new(stream, settings);
    let service = {
        let handle = handle.clone();
        service_fn(move |request| {
            let reply = service(request, handle.clone());
            async move { Ok::<_, Infallible>(reply.await) }
        })
    };
    let connection = http1::Builder::new()
        // A caller that hangs up cancels nothing; and hyper does not read ahead while a request runs.
        .half_close(true)
        // The guard owns the deadlines.
        .header_read_timeout(None)
        .max_headers(hyper_headers)
        .max_buf_size(hyper_buffer)
        .serve_connection(TokioIo::new(guard), service);
    tokio::pin!(connection);
    let told_to_drain = async {
        // An error means that nobody is left to tell: the process ends.
        let _ = drain.wait_for(|drain| *drain).await;
    };
    let ended = tokio::select! {
        // The connection first: what has arrived by now is read, and gets its answer.
        biased;
        ended = connection.as_mut() => ended,
        () = told_to_drain => {
            let begun = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if handle.head_started().is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match timeout(FIRST_BYTE, begun).await {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %super::exchange::chain(&error), "a caller's connection broke");
    }
    handle
}

/// The guard's settings for a listener: `idle` bounds a caller's silence and a write without progress, `answer` the
/// reading of a whole answer.
#[must_use]
pub fn settings(
    rules: Rules,
    head: Duration,
    idle: Duration,
    answer: Duration,
    linger_bytes: usize,
) -> Settings {
    Settings {
        rules,
        head,
        idle,
        write_stall: idle,
        write_total: answer,
        linger_bytes,
        linger_time: LINGER_TIME,
    }
}
