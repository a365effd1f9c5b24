//! The admin port's answers: health and status, for probes and dashboards on this machine.
//!
//! A pure function; sockets and hyper are elsewhere. GET only, no actions, no bodies, no ids.

use super::status::Status;
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

/// Answers a request by its method, its path without the query, and its `Host`.
///
/// Fails closed: a `Host` that is missing or no name of this machine is refused before anything
/// else, because a browser can be made to send requests here under another name (DNS rebinding).
#[must_use]
pub fn respond(
    method: &str,
    path: &str,
    host: Option<&str>,
    status: &dyn Fn() -> Status,
) -> Answer {
    if !host.is_some_and(|host| is_loopback_host(host.as_bytes())) {
        return text(403, "the Host must be 127.0.0.1, localhost or [::1]\n");
    }
    if !matches!(path, "/livez" | "/readyz" | "/status.json") {
        return text(404, "there are /livez, /readyz and /status.json\n");
    }
    if method != "GET" {
        return Answer {
            allow: Some("GET"),
            ..text(405, "only GET\n")
        };
    }
    match path {
        "/livez" => text(200, "ok\n"),
        "/readyz" => match status().not_ready() {
            None => text(200, "ready\n"),
            Some(reason) => text(503, &format!("not ready: {reason}\n")),
        },
        _ => match serde_json::to_string(&status()) {
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
    use super::*;
    use crate::admin::status::Phase;
    use crate::admin::status::tests::sample;

    fn get(path: &str) -> Answer {
        respond("GET", path, Some("127.0.0.1:9181"), &sample)
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
    fn a_gate_that_drains_is_alive_and_not_ready() {
        let draining = || Status {
            phase: Phase::Draining,
            ..sample()
        };
        let at = |path| respond("GET", path, Some("localhost"), &draining);
        assert_eq!(at("/livez").status, 200);
        assert_eq!(at("/readyz"), text(503, "not ready: draining\n"));
        assert_eq!(at("/status.json").status, 200);
    }

    #[test]
    fn only_get_is_answered() {
        for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"] {
            for path in ["/livez", "/readyz", "/status.json"] {
                let answer = respond(method, path, Some("localhost"), &sample);
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
            for path in ["/livez", "/status.json", "/nothing"] {
                assert_eq!(
                    respond("GET", path, host, &sample).status,
                    403,
                    "{host:?} {path}"
                );
            }
        }
        for host in ["127.0.0.1", "localhost:9181", "[::1]", "[::1]:9181"] {
            assert_eq!(
                respond("GET", "/livez", Some(host), &sample).status,
                200,
                "{host}"
            );
        }
    }

    #[test]
    fn there_is_nothing_else() {
        for path in ["", "/", "/status", "/livez/", "/reload", "*", "/../livez"] {
            assert_eq!(get(path).status, 404, "{path}");
        }
    }
}
