//! One bank: its origin, its transport, its routes and headers.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rustls::pki_types::ServerName;

use super::Checker;
use crate::config::origin::Origin;
use crate::config::{
    Bank, Headers, KeySource, Remote, SetHeader, Tls, TlsVersion, Transport, file,
};
use crate::policy::headers::{self, IDEMPOTENCY_KEY, PRIORGATE_TOKEN, X_REQUEST_ID};
use crate::policy::operation::answer::Guard;
use crate::policy::route::{Connection, Route};

/// Names that `headers` may not touch: framing, hop-by-hop fields (RFC 9110 section 7.6.1), routing, and what this
/// program sets itself. Cookies belong to a browser's session, and no browser may call.
const OURS: [HeaderName; 15] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    IDEMPOTENCY_KEY,
    X_REQUEST_ID,
];

impl Checker {
    pub(super) fn bank(&mut self, at: &str, raw: file::Bank) -> Bank {
        let Origin { plain, remote } = raw.url.0.clone();
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
        let limits = raw.limits.unwrap_or_default();
        if limits.verify_concurrency.is_some() {
            self.mistake(
                format!("{at}.limits.verify_concurrency"),
                "belongs to a callback: a bank's answers are not signed",
                "remove it",
            );
        }
        let limits = self.limits(&format!("{at}.limits"), limits);
        let pool = self.pool(
            &format!("{at}.pool"),
            raw.pool.unwrap_or_default(),
            limits.concurrency,
        );
        let breaker = self.breaker(&format!("{at}.breaker"), raw.breaker.unwrap_or_default());
        let dns = self.dns(&format!("{at}.dns"), raw.dns.unwrap_or_default());
        if !dns.addresses.is_empty() && remote.host.parse::<IpAddr>().is_ok() {
            self.mistake(
                format!("{at}.dns.addresses"),
                "means nothing where the host of url is an address already",
                "keep one: a name in url with addresses here, or the address in url alone",
            );
        }
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
        if ServerName::try_from(server_name.as_str()).is_err() {
            self.mistake(
                format!("{at}.trust.server_name"),
                "expected a DNS name or an IP address",
                "write the name that stands in the bank's certificate",
            );
        }
        let identity = raw.identity.as_ref();
        let at = format!("{at}.identity");
        let key = self.key(&at, identity);
        let rate = identity.and_then(|identity| identity.sign_rate.as_ref());
        let sign_rate = self.sign_rate(&format!("{at}.sign_rate"), rate);
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
            key,
            sign_rate,
        }))
    }

    fn key(&mut self, at: &str, identity: Option<&file::Identity>) -> KeySource {
        let file = identity.and_then(|identity| identity.key_file.as_ref());
        let credential = identity.and_then(|identity| identity.key_credential.as_ref());
        match (file, credential) {
            (Some(file), None) => return KeySource::File(self.resolve(&file.0)),
            (None, Some(credential)) => return KeySource::Credential(credential.0.clone()),
            (Some(_), Some(_)) => self.mistake(
                at,
                "key_file and key_credential are two places for one key",
                "keep one of them",
            ),
            (None, None) if identity.is_some() => self.mistake(
                at,
                "missing: one of key_file and key_credential",
                "add `key_file: PATH`, or `key_credential: NAME` for LoadCredential= of the keyholder's unit",
            ),
            // The missing identity is a mistake of its own.
            (None, None) => {}
        }
        KeySource::File(PathBuf::new())
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
            let rules = self.guard(&format!("{at}[{index}]"), &raw);
            let always = rules
                .as_ref()
                .is_some_and(|rules| rules.guard == Guard::Required);
            let route = Route {
                name: raw.name.0,
                method: raw.method.0,
                path: raw.path.0,
                query: raw.query,
                connection: match raw.connection {
                    Some(file::RouteConnection::Fresh) => Connection::Fresh,
                    Some(file::RouteConnection::Pooled) => Connection::Pooled,
                    // No race with a bank that closes an idle connection can make such a request `unknown`.
                    None if always => Connection::Fresh,
                    None => Connection::Pooled,
                },
                rules: rules.map(Arc::new),
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
            if is_refused(&name.0) {
                self.mistake(
                    &at,
                    format!("a request with `{}` is refused, so it never passes", name.0),
                    "remove it: a browser or a proxy sends it, and neither may use the bank identity",
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

/// Whether the gate refuses every request with this header. Names with `_` have their own mistake.
fn is_refused(name: &HeaderName) -> bool {
    let one = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(""))]);
    !name.as_str().contains('_') && headers::judge(&one, std::slice::from_ref(name), false).is_err()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::check::parse;

    /// The key paths of the mistakes in a bank with this name and this trust.
    fn mistakes(name: &str, trust: &str) -> Vec<String> {
        let text = format!(
            "banks: [{{name: {name}, url: \"https://bank.test\", trust: {{{trust}}}, identity: \
             {{cert_file: c, key_file: k}}, listen: [{{unix: s, callers: [1]}}], routes: \
             [{{name: r_1, method: GET, path: /}}]}}]"
        );
        match parse(Path::new("/config.yaml"), &text) {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes.into_iter().map(|it| it.path).collect(),
        }
    }

    #[test]
    fn a_route_may_have_an_underscore_in_its_name_and_a_bank_may_not() {
        assert_eq!(mistakes("prior-bank", "ca_file: ca"), [""; 0]);
        assert_eq!(mistakes("prior_bank", "ca_file: ca"), ["banks[0].name"]);
    }

    #[test]
    fn an_empty_server_name_is_not_the_default() {
        let trust = "ca_file: ca, server_name: \"\"";
        assert_eq!(mistakes("b", trust), ["banks[0].trust.server_name"]);
    }
}
