//! Which headers a request may carry, which of them reach the bank, and which of the bank's reach the caller.
//!
//! Unwanted request headers are refused, not stripped, where their presence says that somebody else is calling: a
//! browser, or a proxy that hands on a stranger's request.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Names that always pass to the bank. `X-Request-Id` and `Host` are set by us.
const PASSED: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    IDEMPOTENCY_KEY,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The `Idempotency-Key` header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The `X-Request-Id` header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The `Priorgate-Repeat` header.
pub const PRIORGATE_REPEAT: HeaderName = HeaderName::from_static("priorgate-repeat");
/// The token of a caller on TCP.
pub const PRIORGATE_TOKEN: HeaderName = HeaderName::from_static("priorgate-token");

/// A header that only a proxy adds.
const PROXY: [HeaderName; 3] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
];

/// Hop-by-hop fields (RFC 9110 section 7.6.1), and what must not leak from the bank to PHP.
const DROPPED_FROM_ANSWER: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why a request's headers are refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `Origin` or `Sec-Fetch-*`.
    Browser,
    /// A `Content-Encoding` that the config does not pass.
    ContentEncoding,
    /// A header that may stand once stands twice.
    Doubled(HeaderName),
    /// On TCP: a `Host` that is no loopback name (DNS rebinding).
    Host,
    /// `Forwarded`, `X-Forwarded-*`, `Via`, `X-Real-IP`.
    Proxied(HeaderName),
    /// A name with `_`: PHP and CGI fold it into the name with `-`.
    Underscore,
}

/// Judges the headers of a request. `tcp` turns the check of `Host` on.
///
/// # Errors
/// The first [`Refusal`] found.
pub fn judge(headers: &HeaderMap, pass: &[HeaderName], tcp: bool) -> Result<(), Refusal> {
    for name in headers.keys() {
        let text = name.as_str();
        if text.contains('_') {
            return Err(Refusal::Underscore);
        }
        if name == header::ORIGIN || text.starts_with("sec-fetch-") {
            return Err(Refusal::Browser);
        }
        if PROXY.contains(name) || text.starts_with("x-forwarded-") {
            return Err(Refusal::Proxied(name.clone()));
        }
    }
    for once in [header::CONTENT_TYPE, IDEMPOTENCY_KEY, X_REQUEST_ID] {
        if headers.get_all(&once).iter().nth(1).is_some() {
            return Err(Refusal::Doubled(once));
        }
    }
    if tcp
        && !headers
            .get(header::HOST)
            .is_some_and(|host| is_loopback_host(host.as_bytes()))
    {
        return Err(Refusal::Host);
    }
    if headers.contains_key(header::CONTENT_ENCODING) && !pass.contains(&header::CONTENT_ENCODING) {
        return Err(Refusal::ContentEncoding);
    }
    Ok(())
}

/// Whether a `Host` is one that can only mean this machine: `127.0.0.1`, `localhost`, `[::1]`, with or without a port.
#[must_use]
pub fn is_loopback_host(host: &[u8]) -> bool {
    [&b"127.0.0.1"[..], b"localhost", b"[::1]"]
        .iter()
        .any(|name| {
            host.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
                && match host.get(name.len()..) {
                    None | Some([]) => true,
                    Some([b':', port @ ..]) => {
                        (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
                    }
                    Some(_) => false,
                }
        })
}

/// The headers that go to the bank: the fixed list, those of `pass`, and those of `set`. Framing, `Host` and the
/// request id are added by whoever sends.
#[must_use]
pub fn towards_bank(
    headers: &HeaderMap,
    pass: &[HeaderName],
    set: &[(HeaderName, HeaderValue)],
) -> HeaderMap {
    let mut out =
        HeaderMap::with_capacity(headers.len().saturating_add(set.len()).saturating_add(3));
    for (name, value) in headers {
        let ours = set.iter().any(|(set_name, _)| set_name == name);
        if !ours && (PASSED.contains(name) || pass.contains(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    for (name, value) in set {
        out.insert(name.clone(), value.clone());
    }
    out
}

/// The headers of the bank's answer that reach the caller.
#[must_use]
pub fn towards_caller(mut headers: HeaderMap) -> HeaderMap {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in DROPPED_FROM_ANSWER.iter().chain(&nominated) {
        headers.remove(name);
    }
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("priorgate-"))
        .cloned()
        .collect();
    for name in &ours {
        headers.remove(name);
    }
    headers
}

/// The tokens that a request presents: every `Priorgate-Token`, and every `Authorization: Bearer`.
#[must_use]
pub fn tokens(headers: &HeaderMap) -> Vec<&[u8]> {
    let own = headers
        .get_all(PRIORGATE_TOKEN)
        .iter()
        .map(HeaderValue::as_bytes);
    let bearer = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| {
            let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then(|| rest.trim_ascii())
        });
    own.chain(bearer).collect()
}

/// Whether a caller's request id is kept: 8 to 64 letters, digits, `-`, `_`, `.`; anything else might be personal, or
/// forge a log line.
#[must_use]
pub fn is_sane_request_id(value: &[u8]) -> bool {
    (8..=64).contains(&value.len())
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn browsers_proxies_and_folded_names_are_refused() {
        let refusal = |lines: &[(&str, &str)]| judge(&map(lines), &[], false).unwrap_err();
        assert_eq!(refusal(&[("Origin", "null")]), Refusal::Browser);
        assert_eq!(refusal(&[("Sec-Fetch-Mode", "cors")]), Refusal::Browser);
        assert_eq!(refusal(&[("Via", "1.1 x")]), Refusal::Proxied(header::VIA));
        assert!(matches!(
            refusal(&[("X-Forwarded-For", "1.2.3.4")]),
            Refusal::Proxied(_)
        ));
        assert!(matches!(
            refusal(&[("X-Real-IP", "1.2.3.4")]),
            Refusal::Proxied(_)
        ));
        assert_eq!(refusal(&[("X_Request_Id", "1")]), Refusal::Underscore);
        assert_eq!(
            refusal(&[("Content-Encoding", "gzip")]),
            Refusal::ContentEncoding
        );
        assert!(matches!(
            refusal(&[("Content-Type", "a/b"), ("Content-Type", "c/d")]),
            Refusal::Doubled(_)
        ));
        assert_eq!(
            judge(
                &map(&[("Content-Encoding", "gzip")]),
                &[header::CONTENT_ENCODING],
                false
            ),
            Ok(())
        );
        assert_eq!(judge(&map(&[("Accept", "*/*")]), &[], false), Ok(()));
    }

    #[test]
    fn on_tcp_only_a_loopback_host_is_taken() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9180",
            "localhost",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:9180",
        ] {
            assert_eq!(judge(&map(&[("Host", host)]), &[], true), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost:",
            "localhost:x",
            "127.0.0.2",
            "::1",
            "localhost:123456",
        ] {
            assert_eq!(
                judge(&map(&[("Host", host)]), &[], true),
                Err(Refusal::Host),
                "{host}"
            );
        }
        assert_eq!(judge(&map(&[]), &[], true), Err(Refusal::Host));
        assert_eq!(judge(&map(&[("Host", "shop.example")]), &[], false), Ok(()));
    }

    #[test]
    fn only_listed_headers_reach_the_bank() {
        let secret = (
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_static("s"),
        );
        let sent = towards_bank(
            &map(&[
                ("Accept", "a"),
                ("Cookie", "c"),
                ("Authorization", "Bearer t"),
                ("Priorgate-Token", "t"),
                ("X-Api-Key", "forged"),
                ("X-Shop", "1"),
                ("Connection", "close"),
            ]),
            &[
                HeaderName::from_static("x-shop"),
                HeaderName::from_static("x-api-key"),
            ],
            &[secret],
        );
        assert_eq!(
            sent,
            map(&[("accept", "a"), ("x-shop", "1"), ("x-api-key", "s")])
        );
    }

    #[test]
    fn the_banks_hop_by_hop_headers_and_cookies_stay_here() {
        let kept = towards_caller(map(&[
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
            ("Priorgate-Outcome", "answered"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Type", "application/json"),
        ]));
        assert_eq!(kept, map(&[("content-type", "application/json")]));
    }

    #[test]
    fn every_presented_token_is_seen() {
        let headers = map(&[
            ("Priorgate-Token", "one"),
            ("Authorization", "bearer two"),
            ("Authorization", "Basic eA=="),
        ]);
        assert_eq!(tokens(&headers), [&b"one"[..], b"two"]);
    }

    #[test]
    fn only_a_plain_request_id_is_kept() {
        assert!(is_sane_request_id(b"order-77_retry.2"));
        for id in [
            &b"short"[..],
            b"with space",
            b"a\"quote12",
            "имя-покупателя".as_bytes(),
            &[b'a'; 65],
        ] {
            assert!(!is_sane_request_id(id));
        }
    }
}
