//! The GET-only admin port on the wire: the same guard and server as the callers' listeners, below [`super::http`].

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};

use super::http::respond;
use super::{MAX_CONNECTIONS, Pages};
use crate::net::accept::{self, Accepted};
use crate::net::guard::Handle;
use crate::net::listen::Listener;
use crate::net::respond::{Reply, plain};
use crate::net::serve;
use crate::policy::head::Rules;

/// A probe's head is small.
const RULES: Rules = Rules {
    max_bytes: 8 << 10,
    max_headers: 32,
};
/// For a probe's head, and for its silence.
const PATIENCE: Duration = Duration::from_secs(5);
/// No request here has a body worth reading away.
const LINGER: usize = 16 << 10;

/// Serves health, status and metrics until `end` says so.
pub async fn serve_tcp(listener: Listener, pages: Pages, end: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    accept::run(listener, "admin", places, end.clone(), |accepted, place| {
        let Accepted::Tcp(stream) = accepted else {
            return;
        };
        let (pages, end) = (pages.clone(), end.clone());
        tokio::spawn(async move {
            let _place = place;
            let settings = serve::settings(RULES, PATIENCE, PATIENCE, PATIENCE, LINGER);
            let service = move |request, handle: Handle| {
                let reply = answer(&request, &handle, &pages);
                async move { reply }
            };
            serve::connection(stream, settings, end, service).await;
        });
    })
    .await;
}

fn answer(request: &Request<Incoming>, handle: &Handle, pages: &Pages) -> Reply {
    if handle.take_refusal().is_some() {
        let mut reply = plain(
            400,
            "text/plain; charset=utf-8",
            "malformed request\n".to_owned(),
        );
        reply
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        return reply;
    }
    let text = |name| request.headers().get(name)?.to_str().ok();
    let host = text(header::HOST);
    // Several lines of it are one list (RFC 9110 section 5.3); no scraper sends more than one.
    let accept = text(header::ACCEPT);
    let answer = respond(
        request.method().as_str(),
        request.uri().path(),
        host,
        accept,
        pages,
    );
    let mut reply = plain(answer.status, answer.content_type, answer.body);
    if let Some(allow) = answer.allow {
        reply
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    reply
}
