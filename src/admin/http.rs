//! The admin port's answers: health, status and metrics, for probes and dashboards on this machine.
//!
//! A pure function; sockets and hyper are elsewhere. GET only, no actions, no bodies, no ids.

use super::Pages;
use crate::metrics::text::Format;
use crate::policy::headers::is_loopback_host;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// An answer, ready to be put on the wire. All of them are `Cache-Control: no-store`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The `Allow` of a 405 (RFC 9110 section 15.5.6).
    pub allow: Option<&'static str>,
    /// The body.
    pub body: String,
}

/// Answers a request by its method, its path without the query, its `Host` and its `Accept`.
///
/// Fails closed: a `Host` that is missing or no name of this machine is refused before anything
/// else, because a browser can be made to send requests here under another name (DNS rebinding).
#[must_use]
pub fn respond(
    method: &str,
    path: &str,
    host: Option<&str>,
    accept: Option<&str>,
    pages: &Pages,
) -> Answer {
    if !host.is_some_and(|host| is_loopback_host(host.as_bytes())) {
        return text(403, "the Host must be 127.0.0.1, localhost or [::1]\n");
    }
    if !matches!(path, "/livez" | "/metrics" | "/readyz" | "/status.json") {
        return text(
            404,
            "there are /livez, /readyz, /metrics and /status.json\n",
        );
    }
    if method != "GET" {
        return Answer {
            allow: Some("GET"),
            ..text(405, "only GET\n")
        };
    }
    match path {
        "/livez" => text(200, "ok\n"),
        "/metrics" => {
            let format = Format::wanted(accept);
            Answer {
                status: 200,
                content_type: format.content_type(),
                allow: None,
                body: (pages.metrics)(format),
            }
        }
        "/readyz" => match (pages.status)().failing() {
            failing if failing.is_empty() => text(200, "ready\n"),
            failing => text(503, &format!("not ready: {}\n", failing.join("; "))),
        },
        _ => match serde_json::to_string(&(pages.status)()) {
            Ok(body) => Answer {
                status: 200,
                content_type: JSON,
                allow: None,
                body,
            },
            Err(_) => text(500, "the status cannot be written\n"),
        },
    }
}

fn text(status: u16, body: &str) -> Answer {
    Answer {
        status,
        content_type: TEXT,
        allow: None,
        body: body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::status::tests::sample;
    use crate::admin::status::{Phase, Status};

    fn pages(status: impl Fn() -> Status + Send + Sync + 'static) -> Pages {
        Pages {
            status: Arc::new(status),
            metrics: Arc::new(|format| format!("{format:?}\n")),
        }
    }

    fn ask(method: &str, path: &str, host: Option<&str>) -> Answer {
        respond(method, path, host, None, &pages(sample))
    }

    fn get(path: &str) -> Answer {
        ask("GET", path, Some("127.0.0.1:9181"))
    }

    #[test]
    fn health_and_status_are_answered() {
        assert_eq!(get("/livez"), text(200, "ok\n"));
        assert_eq!(get("/readyz"), text(200, "ready\n"));
        let status = get("/status.json");
        assert_eq!(
            (status.status, status.content_type),
            (200, "application/json")
        );
        assert_eq!(
            serde_json::from_str::<Status>(&status.body).unwrap(),
            sample()
        );
    }

    #[test]
    fn a_scrape_comes_in_the_format_that_is_asked_for() {
        let scrape = |accept| respond("GET", "/metrics", Some("localhost"), accept, &pages(sample));
        for (accept, body, content_type) in [
            (
                None,
                "Prometheus\n",
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            (
                Some("application/openmetrics-text"),
                "OpenMetrics\n",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ] {
            let answer = scrape(accept);
            assert_eq!((answer.status, &*answer.body), (200, body));
            assert_eq!(answer.content_type, content_type);
        }
    }

    #[test]
    fn a_gate_that_drains_is_alive_and_not_ready() {
        let draining = pages(|| Status {
            phase: Phase::Draining,
            ..sample()
        });
        let at = |path| respond("GET", path, Some("localhost"), None, &draining);
        assert_eq!(at("/livez").status, 200);
        assert_eq!(at("/readyz"), text(503, "not ready: draining\n"));
        assert_eq!(at("/status.json").status, 200);
        assert_eq!(at("/metrics").status, 200);
    }

    #[test]
    fn all_that_fails_is_said_at_once() {
        let broken = pages(|| {
            let mut status = sample();
            status.keyholder.as_mut().unwrap().up = false;
            status.journal.as_mut().unwrap().full = true;
            status.listeners_down = vec!["bank priorbank".to_owned()];
            status
        });
        let answer = respond("GET", "/readyz", Some("localhost"), None, &broken);
        let expected = "not ready: the keyholder does not answer; the journal's disk is full; a listener of bank priorbank \
                        is down\n";
        assert_eq!(answer, text(503, expected));
    }

    #[test]
    fn only_get_is_answered() {
        for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"] {
            for path in ["/livez", "/readyz", "/status.json", "/metrics"] {
                let answer = ask(method, path, Some("localhost"));
                assert_eq!(
                    (answer.status, answer.allow),
                    (405, Some("GET")),
                    "{method} {path}"
                );
            }
        }
    }

    #[test]
    fn a_host_that_is_not_this_machine_is_refused_before_all_else() {
        for host in [
            None,
            Some(""),
            Some("bank.example"),
            Some("localhost.evil.example"),
        ] {
            for path in ["/livez", "/status.json", "/metrics", "/nothing"] {
                assert_eq!(ask("GET", path, host).status, 403, "{host:?} {path}");
            }
        }
        for host in ["127.0.0.1", "localhost:9181", "[::1]", "[::1]:9181"] {
            assert_eq!(ask("GET", "/livez", Some(host)).status, 200, "{host}");
        }
    }

    #[test]
    fn there_is_nothing_else() {
        for path in ["", "/", "/status", "/livez/", "/reload", "*", "/../livez"] {
            assert_eq!(get(path).status, 404, "{path}");
        }
    }
}
