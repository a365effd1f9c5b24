//! One bank: its origin, its transport, its routes and headers.

use std::collections::HashSet;
use std::net::IpAddr;

use http::{HeaderName, Uri, header};
use rustls::pki_types::ServerName;

use super::Checker;
use crate::config::{Bank, Headers, Remote, SetHeader, Tls, TlsVersion, Transport, file};
use crate::policy::headers::{IDEMPOTENCY_KEY, PRIORGATE_TOKEN, X_REQUEST_ID};
use crate::policy::route::{Connection, Route};

/// Names that `headers` may not touch: framing, routing, and what this program sets itself.
const OURS: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    IDEMPOTENCY_KEY,
    X_REQUEST_ID,
];

impl Checker {
    pub(super) fn bank(&mut self, at: &str, raw: file::Bank) -> Bank {
        let (remote, plain) = self.remote(&format!("{at}.url"), &raw.url);
        let transport = if plain {
            self.plaintext(at, &raw, &remote)
        } else {
            self.tls(at, &raw, &remote)
        };
        if raw.listen.is_empty() {
            self.mistake(
                format!("{at}.listen"),
                "expected at least one listener",
                "PHP could not call",
            );
        }
        let listen = raw.listen.into_iter().enumerate();
        let listen = listen
            .filter_map(|(index, listen)| self.listen(&format!("{at}.listen[{index}]"), listen))
            .collect();
        let routes = self.routes(&format!("{at}.routes"), raw.routes);
        let headers = self.headers(&format!("{at}.headers"), raw.headers);
        let timeouts = self.timeouts(&format!("{at}.timeouts"), raw.timeouts.unwrap_or_default());
        let limits = self.limits(&format!("{at}.limits"), raw.limits.unwrap_or_default());
        let pool = self.pool(
            &format!("{at}.pool"),
            raw.pool.unwrap_or_default(),
            limits.concurrency,
        );
        let breaker = self.breaker(&format!("{at}.breaker"), raw.breaker.unwrap_or_default());
        let dns = self.dns(&format!("{at}.dns"), raw.dns.unwrap_or_default());
        Bank {
            name: raw.name.0,
            remote,
            transport,
            listen,
            routes,
            headers,
            timeouts,
            limits,
            pool,
            breaker,
            dns,
        }
    }

    /// An origin, and whether it is plaintext.
    fn remote(&mut self, at: &str, url: &str) -> (Remote, bool) {
        let nowhere = Remote {
            host: String::new(),
            port: 0,
            authority: String::new(),
        };
        let expected =
            "expected an origin such as https://api.bank.example or https://api.bank.example:9345";
        let Ok(uri) = url.parse::<Uri>() else {
            self.mistake(at, expected, "paths belong to routes");
            return (nowhere, false);
        };
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => {
                self.mistake(at, expected, "start it with https://");
                return (nowhere, false);
            }
        };
        let bare = url.trim_end_matches('/').len().saturating_add(1) >= url.len()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none();
        let authority = uri
            .authority()
            .map(http::uri::Authority::as_str)
            .unwrap_or_default();
        if authority.contains('@') {
            self.mistake(
                at,
                "holds a user or a password, which would end in logs and process lists",
                "put the value of an Authorization header into a file: headers.set_files",
            );
            return (nowhere, plain);
        }
        if !bare || url.contains('#') {
            self.mistake(
                at,
                expected,
                "no path, query or fragment: paths belong to routes",
            );
            return (nowhere, plain);
        }
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let default = if plain { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        if host.is_empty() || port == 0 || ServerName::try_from(host.as_str()).is_err() {
            self.mistake(
                at,
                expected,
                "the host is a DNS name or an IP address, the port 1 to 65535",
            );
            return (nowhere, plain);
        }
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let authority = if port == default {
            shown
        } else {
            format!("{shown}:{port}")
        };
        (
            Remote {
                host,
                port,
                authority,
            },
            plain,
        )
    }

    fn plaintext(&mut self, at: &str, raw: &file::Bank, remote: &Remote) -> Transport {
        let loopback = remote.host == "localhost"
            || remote
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        let off_loopback = raw
            .dns
            .as_ref()
            .is_some_and(|dns| dns.addresses.iter().any(|ip| !ip.0.is_loopback()));
        if !loopback || off_loopback {
            self.mistake(
                format!("{at}.url"),
                "http:// is for loopback addresses only: nothing would protect the request",
                "use https://",
            );
        } else if !raw.allow_plaintext_loopback {
            self.mistake(
                format!("{at}.url"),
                "http:// must be spelled out",
                "use https://, or add `allow_plaintext_loopback: true` if a local proxy speaks TLS to the bank",
            );
        }
        if raw.tls.is_some() || raw.trust.is_some() || raw.identity.is_some() {
            self.mistake(
                at,
                "tls, trust and identity mean nothing with http://",
                "remove them",
            );
        }
        Transport::PlaintextLoopback
    }

    fn tls(&mut self, at: &str, raw: &file::Bank, remote: &Remote) -> Transport {
        if raw.allow_plaintext_loopback {
            self.mistake(
                format!("{at}.allow_plaintext_loopback"),
                "means nothing with https://",
                "remove it, so that it does not wait for a changed url",
            );
        }
        if raw.trust.is_none() {
            self.mistake(
                format!("{at}.trust"),
                "missing: the bank could not be told from anybody else",
                "add `trust: {ca_file: …}` with the bank's CA; the system's are never used",
            );
        }
        if raw.identity.is_none() {
            self.mistake(
                format!("{at}.identity"),
                "missing: the bank asks for a client certificate",
                "add `identity: {cert_file: …, key_file: …}`",
            );
        }
        let trust = raw.trust.as_ref();
        let server_name = trust
            .and_then(|trust| trust.server_name.clone())
            .unwrap_or_else(|| remote.host.clone());
        if ServerName::try_from(server_name.as_str()).is_err() && !server_name.is_empty() {
            self.mistake(
                format!("{at}.trust.server_name"),
                "expected a DNS name or an IP address",
                "write the name that stands in the bank's certificate",
            );
        }
        let identity = raw.identity.as_ref();
        let path = |file: Option<&super::super::scalar::FilePath>| {
            file.map(|file| self.resolve(&file.0)).unwrap_or_default()
        };
        Transport::Tls(Box::new(Tls {
            min_version: raw
                .tls
                .as_ref()
                .and_then(|tls| tls.min_version.as_ref())
                .map_or(TlsVersion::Tls13, |version| version.0),
            ca_file: path(trust.map(|trust| &trust.ca_file)),
            server_name,
            spki_sha256: trust
                .map(|trust| trust.spki_sha256.iter().map(|pin| pin.0).collect())
                .unwrap_or_default(),
            cert_file: path(identity.map(|identity| &identity.cert_file)),
            key_file: path(identity.map(|identity| &identity.key_file)),
        }))
    }

    fn routes(&mut self, at: &str, raw: Vec<file::Route>) -> Vec<Route> {
        if raw.is_empty() {
            self.mistake(
                at,
                "expected at least one route",
                "what is not listed is denied",
            );
        }
        let mut routes: Vec<Route> = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let route = Route {
                name: raw.name.0,
                method: raw.method.0,
                path: raw.path.0,
                query: raw.query,
                connection: match raw.connection {
                    Some(file::RouteConnection::Fresh) => Connection::Fresh,
                    Some(file::RouteConnection::Pooled) | None => Connection::Pooled,
                },
            };
            if routes.iter().any(|other| other.name == route.name) {
                let message = format!("`{}` is another route's name", route.name);
                self.mistake(format!("{at}[{index}].name"), message, "choose another");
            }
            let hidden = routes
                .iter()
                .find(|other| other.method == route.method && other.path.overlaps(&route.path));
            if let Some(other) = hidden {
                let message = format!("some paths match route `{}` as well", other.name);
                self.mistake(
                    format!("{at}[{index}].path"),
                    message,
                    "make the patterns differ in a literal segment",
                );
            }
            routes.push(route);
        }
        routes
    }

    fn headers(&mut self, at: &str, raw: Option<file::Headers>) -> Headers {
        let Some(raw) = raw else {
            return Headers::default();
        };
        let mut seen = HashSet::new();
        let mut pass = Vec::with_capacity(raw.pass.len());
        for (index, name) in raw.pass.into_iter().enumerate() {
            let at = format!("{at}.pass[{index}]");
            self.header_name(&at, &name.0);
            // The caller's own secret must not travel on: Priorgate's token may come as Authorization.
            if name.0 == header::AUTHORIZATION {
                self.mistake(
                    &at,
                    "Authorization may hold the gate's own token",
                    "set the bank's with set_files",
                );
            }
            if !seen.insert(name.0.clone()) {
                self.mistake(&at, "stands twice", "keep one");
            }
            pass.push(name.0);
        }
        let mut set_files = Vec::with_capacity(raw.set_files.len());
        for (index, set) in raw.set_files.into_iter().enumerate() {
            let at = format!("{at}.set_files[{index}].name");
            self.header_name(&at, &set.name.0);
            if !seen.insert(set.name.0.clone()) {
                self.mistake(&at, "stands twice, here or in pass", "keep one");
            }
            set_files.push(SetHeader {
                name: set.name.0,
                file: self.resolve(&set.file.0),
            });
        }
        Headers { pass, set_files }
    }

    fn header_name(&mut self, at: &str, name: &HeaderName) {
        let ours = OURS.contains(name)
            || *name == PRIORGATE_TOKEN
            || name.as_str().starts_with("priorgate-");
        if ours || name.as_str().contains('_') {
            self.mistake(
                at,
                format!("`{name}` cannot be configured"),
                "framing, routing and Priorgate-* headers are set by the gate; names with `_` are refused",
            );
        }
    }
}
