//! A callback: its listeners, what a notification must prove, and where events go.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;

use super::Checker;
use super::bounds::Count;
use crate::config::callback::{
    Ack, Answer, Callback, Deliver, Key, Listen, Signature, Socket, Target,
};
use crate::config::file;
use crate::config::file::callback as raw;
use crate::policy::event::{self, IdPart};
use crate::policy::operation::Pointer;
use crate::policy::schedule::{AFTER_TIMEOUT, Schedule};
use crate::policy::signature::{Encoding, Field, List, Part, Template, Timestamp, Unit};
use crate::policy::status::{Policy, Status};

/// A verification holds a thread for up to a millisecond.
const VERIFY: Count = Count {
    default: 4,
    min: 1,
    max: 64,
};
/// PHP-FPM's pool is small.
const CONCURRENCY: Count = Count {
    default: 4,
    min: 1,
    max: 256,
};
/// Bitrix's handler may take its time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses of the Standard Webhooks specification, shortened at the beginning: a deployment takes seconds.
const RETRY: [u64; 7] = [5, 30, 120, 600, 1_800, 3_600, 10_800];

impl Checker {
    /// All callbacks.
    pub(super) fn callbacks(&mut self, raw: Vec<raw::Callback>, journal: bool) -> Vec<Callback> {
        if !raw.is_empty() && !journal {
            self.mistake(
                "callbacks",
                "there is no journal to keep events in",
                "add `journal: {sqlite: /var/lib/priorgate/journal.db}`",
            );
        }
        let mut names = HashSet::new();
        let mut secrets = HashSet::new();
        let callbacks = raw.into_iter().enumerate().filter_map(|(index, callback)| {
            let at = format!("callbacks[{index}]");
            if !names.insert(callback.name.0.clone()) {
                let message = format!("`{}` is another callback's name", callback.name.0);
                self.mistake(format!("{at}.name"), message, "choose another");
            }
            let checked = self.callback(&at, callback)?;
            for file in &checked.deliver.secret_files {
                if !secrets.insert(file.clone()) {
                    self.mistake(
                        format!("{at}.deliver.secret_files"),
                        "a secret of another callback, or the same twice",
                        "make one for each: what verifies for one must not verify for the other",
                    );
                }
            }
            Some(checked)
        });
        callbacks.collect()
    }

    fn callback(&mut self, at: &str, raw: raw::Callback) -> Option<Callback> {
        if raw.listen.is_empty() {
            self.mistake(
                format!("{at}.listen"),
                "expected at least one listener",
                "nginx could not pass anything on",
            );
        }
        let listen = raw.listen.into_iter().enumerate();
        let listen = listen
            .filter_map(|(index, listen)| self.ingress(&format!("{at}.listen[{index}]"), listen))
            .collect();
        let signature = self.signature(&format!("{at}.signature"), raw.signature);
        let event = self.event(&format!("{at}.event"), raw.event, signature.as_ref());
        let deliver = self.deliver(&format!("{at}.deliver"), raw.deliver);
        let timeouts = self.timeouts(&format!("{at}.timeouts"), raw.timeouts.unwrap_or_default());
        let limits = raw.limits.unwrap_or_default();
        let verify = limits.verify_concurrency;
        let limits = self.limits(&format!("{at}.limits"), limits);
        let answer = self.answer(&format!("{at}.answer"), raw.answer);
        Some(Callback {
            name: raw.name.0,
            listen,
            path: raw.path.0,
            signature: signature?,
            event: event?,
            policy: match raw.transitions {
                Some(raw::Transitions::Pass) => Policy::Pass,
                Some(raw::Transitions::Hold) | None => Policy::Hold,
            },
            content_types: raw
                .content_types
                .into_iter()
                .flatten()
                .map(|media| media.0)
                .collect(),
            timeouts,
            limits,
            verify_concurrency: self.count(
                &format!("{at}.limits.verify_concurrency"),
                verify,
                VERIFY,
            ),
            answer,
            deliver: deliver?,
        })
    }

    fn ingress(&mut self, at: &str, raw: file::Listen) -> Option<Listen> {
        if raw.token_files.is_some() || raw.open_to_every_local_user {
            self.mistake(
                at,
                "token_files and open_to_every_local_user are for callers with the bank identity",
                "remove them: here the bank's signature decides",
            );
        }
        let callers = raw
            .callers
            .map(|users| self.callers(&format!("{at}.callers"), &users));
        match (raw.unix, raw.tcp) {
            (Some(path), None) => {
                let socket = self.socket(&format!("{at}.unix"), at, &path.0, raw.mode, raw.group);
                Some(Listen {
                    socket: Socket::Unix(socket),
                    callers,
                })
            }
            (None, Some(address)) => {
                self.taken(&format!("{at}.tcp"), address.0);
                if !address.0.ip().is_loopback() && !raw.unsafe_listen {
                    self.mistake(
                        format!("{at}.tcp"),
                        "is not a loopback address: TLS towards the bank is nginx's",
                        "use 127.0.0.1 or [::1]; `unsafe_listen: true` overrides this",
                    );
                }
                Some(Listen {
                    socket: Socket::Tcp(address.0),
                    callers,
                })
            }
            _ => {
                self.mistake(
                    at,
                    "expected either `unix` or `tcp`",
                    "write one listener for each",
                );
                None
            }
        }
    }

    fn signature(&mut self, at: &str, raw: raw::Signature) -> Option<Signature> {
        let encoding = match raw.encoding {
            Some(raw::Encoding::Base64) | None => Encoding::Base64,
            Some(raw::Encoding::Base64url) => Encoding::Base64Url,
            Some(raw::Encoding::Hex) => Encoding::Hex,
        };
        let list = raw.list.and_then(|list| {
            let mut separator = list.separator.chars();
            match (separator.next(), separator.next()) {
                (Some(separator), None) => Some(List {
                    separator,
                    prefix: list.prefix,
                }),
                _ => {
                    self.mistake(
                        format!("{at}.list.separator"),
                        "expected one character",
                        "a space, for Standard Webhooks",
                    );
                    None
                }
            }
        });
        let field = Field::new(encoding, &raw.prefix, list).map_err(|error| {
            self.mistake(at, error.to_string(), "docs/signatures.md has examples")
        });
        let message = raw.message.unwrap_or_else(|| vec!["body".to_owned()]);
        let message = Template::parse(&message).map_err(|error| {
            self.mistake(
                format!("{at}.message"),
                error.to_string(),
                "docs/signatures.md has examples",
            );
        });
        let timestamp = raw.timestamp.map(|timestamp| Timestamp {
            header: timestamp.header.0,
            unit: match timestamp.unit {
                raw::Unit::Ms => Unit::Millis,
                raw::Unit::Rfc3339 => Unit::Rfc3339,
                raw::Unit::S => Unit::Seconds,
            },
            tolerance: timestamp.tolerance.0,
        });
        let on_mismatch = match raw.on_mismatch {
            None | Some(503) => 503,
            Some(403) => 403,
            Some(_) => {
                self.mistake(
                    format!("{at}.on_mismatch"),
                    "expected 503 or 403",
                    "503 makes the bank send it again: it may be a rotation that nobody was told of",
                );
                503
            }
        };
        if raw.keys.is_empty() {
            self.mistake(
                format!("{at}.keys"),
                "expected at least one key",
                "nothing could be verified",
            );
        }
        let mut ids = HashSet::new();
        let mut keys = Vec::with_capacity(raw.keys.len());
        for (index, key) in raw.keys.into_iter().enumerate() {
            let at = format!("{at}.keys[{index}]");
            if !ids.insert(key.id.0.clone()) {
                let message = format!("`{}` is another key's id", key.id.0);
                self.mistake(
                    format!("{at}.id"),
                    message,
                    "records name keys by it: choose another",
                );
            }
            let (not_before, not_after) =
                (key.not_before.map(|at| at.0), key.not_after.map(|at| at.0));
            if let (Some(from), Some(until)) = (not_before, not_after)
                && until < from
            {
                self.mistake(
                    format!("{at}.not_after"),
                    "is before not_before: the key could never be used",
                    "exchange the two",
                );
            }
            keys.push(Key {
                id: key.id.0,
                algorithm: key.algorithm.0,
                file: self.resolve(&key.file.0),
                not_before,
                not_after,
            });
        }
        let (field, message) = (field.ok()?, message.ok()?);
        if let Some(timestamp) = &timestamp
            && !message.covers(&timestamp.header)
        {
            self.mistake(
                format!("{at}.timestamp.header"),
                "is no part of message: anybody could write a new time beside an old signature",
                format!(
                    "add `header:{}` to message, or leave timestamp out",
                    timestamp.header
                ),
            );
        }
        if message.covers(&raw.header.0) {
            self.mistake(
                format!("{at}.message"),
                "holds the header with the signature itself",
                "remove it",
            );
        }
        Some(Signature {
            header: raw.header.0,
            field,
            message,
            timestamp,
            keys,
            on_mismatch,
        })
    }

    fn event(
        &mut self,
        at: &str,
        raw: raw::Event,
        signature: Option<&Signature>,
    ) -> Option<event::Rules> {
        let parts = raw.id.unwrap_or_else(|| vec!["body-sha256".to_owned()]);
        let at_id = format!("{at}.id");
        if parts.is_empty() {
            self.mistake(
                &at_id,
                "expected at least one part",
                "`[body-sha256]` is the default",
            );
        }
        let mut id = Vec::with_capacity(parts.len());
        for part in &parts {
            match id_part(part) {
                Some(IdPart::Header(name))
                    if signature.is_some_and(|signature| !signature.message.covers(&name)) =>
                {
                    self.mistake(
                        &at_id,
                        format!("{name} is not signed: anybody could make one event of two"),
                        format!("add `header:{name}` to signature.message, or use a pointer into the body"),
                    );
                }
                Some(part) => id.push(part),
                None => self.mistake(
                    &at_id,
                    "expected `body-sha256`, a JSON pointer, or `header:NAME`",
                    "for example [/event_id]",
                ),
            }
        }
        let mut statuses = Vec::with_capacity(raw.statuses.len());
        for (index, word) in raw.statuses.into_iter().enumerate() {
            match Status::parse(&word.means) {
                Some(status) => statuses.push((word.bank, status)),
                None => self.mistake(
                    format!("{at}.statuses[{index}].means"),
                    "expected PENDING, APPROVED, REJECTED, CANCELLED or REFUNDED",
                    "write what the bank's word comes to",
                ),
            }
        }
        (!id.is_empty()).then_some(event::Rules {
            id,
            session: raw.session.map(|pointer| pointer.0),
            status: raw.status.map(|pointer| pointer.0),
            statuses,
        })
    }

    fn answer(&mut self, at: &str, raw: Option<raw::Answer>) -> Answer {
        let (status, body) = raw.map_or((None, None), |raw| (raw.status, raw.body));
        let status = match status.map(u16::try_from) {
            None => 200,
            Some(Ok(status @ 200..=299)) => status,
            Some(_) => {
                self.mistake(
                    format!("{at}.status"),
                    "expected a 2xx: the event is on disk by then",
                    "200 is the default",
                );
                200
            }
        };
        Answer {
            status,
            body: body.unwrap_or_else(|| r#"{"accepted":true}"#.to_owned()),
        }
    }

    fn deliver(&mut self, at: &str, raw: raw::Deliver) -> Option<Deliver> {
        let ack = match raw.ack {
            Some(raw::Ack::Signed) | None => Ack::Signed,
            Some(raw::Ack::Header) => Ack::Header,
            Some(raw::Ack::Status) => Ack::Status,
        };
        if raw.secret_files.is_empty() {
            self.mistake(
                format!("{at}.secret_files"),
                "expected at least one: the shop could not tell our deliveries from anybody's",
                "name a file with `whsec_` and the base64 of 32 random bytes",
            );
        }
        let unix = raw.unix.map(|path| self.resolve(&path.0));
        let place = place(&raw.url, unix.is_some());
        let (address, path) = match place {
            Ok(place) => place,
            Err((message, help)) => {
                self.mistake(format!("{at}.url"), message, help);
                return None;
            }
        };
        let host = raw.host.unwrap_or_else(|| {
            address.map_or_else(|| "localhost".to_owned(), |addr| addr.to_string())
        });
        let target = match (unix, address) {
            (Some(path), _) => Target::Unix(path),
            (None, Some(addr)) => Target::Tcp(addr),
            (None, None) => return None,
        };
        let Ok(host) = HeaderValue::from_str(&host) else {
            self.mistake(format!("{at}.host"), "is no host name", "write the shop's");
            return None;
        };
        let seconds = Duration::from_secs;
        let retry = raw.retry.map_or_else(
            || RETRY.map(seconds).to_vec(),
            |pauses| pauses.iter().map(|pause| pause.0).collect(),
        );
        if retry.is_empty() {
            self.mistake(
                format!("{at}.retry"),
                "expected at least one pause",
                "the last one repeats until expire_after",
            );
        }
        let span =
            |raw: Option<crate::config::scalar::Span>, default| raw.map_or(default, |span| span.0);
        Some(Deliver {
            target,
            host,
            path,
            secret_files: raw
                .secret_files
                .iter()
                .map(|file| self.resolve(&file.0))
                .collect(),
            ack,
            timeout: span(raw.timeout, TIMEOUT),
            concurrency: self.count(&format!("{at}.concurrency"), raw.concurrency, CONCURRENCY),
            schedule: Schedule {
                retry,
                max_head_wait: span(raw.max_head_wait, seconds(120)),
                after_timeout: span(raw.after_timeout, AFTER_TIMEOUT),
                alarm_after: span(raw.alarm_after, seconds(600)),
                expire_after: span(raw.expire_after, seconds(30 * 86_400)),
            },
        })
    }
}

fn id_part(text: &str) -> Option<IdPart> {
    if text == "body-sha256" {
        return Some(IdPart::BodySha256);
    }
    if text.starts_with("header:") {
        return match Part::parse(text) {
            Ok(Part::Header(name)) => Some(IdPart::Header(name)),
            _ => None,
        };
    }
    Pointer::parse(text).ok().map(IdPart::Pointer)
}

/// The address and the path of a delivery's URL, or what is wrong with it and what to do.
fn place(
    url: &str,
    unix: bool,
) -> Result<(Option<SocketAddr>, String), (&'static str, &'static str)> {
    let path_is_good = |path: &str| {
        path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
            && path.parse::<http::uri::PathAndQuery>().is_ok()
    };
    if unix {
        return if path_is_good(url) {
            Ok((None, url.to_owned()))
        } else {
            Err((
                "expected a path, since `unix` says where",
                "write /bitrix/tools/… with its query",
            ))
        };
    }
    let rest = url.strip_prefix("http://").ok_or((
        "expected http:// and a loopback address",
        "deliveries stay on this machine; TLS would protect nothing",
    ))?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let authority = authority.replace("localhost", "127.0.0.1");
    let address = authority.parse::<SocketAddr>().ok().or_else(|| {
        let ip: IpAddr = authority.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, 80))
    });
    match address {
        Some(address) if address.ip().is_loopback() => {}
        Some(_) | None => {
            return Err((
                "is not on this machine",
                "use 127.0.0.1 or [::1] and a port, or `unix: PATH`",
            ));
        }
    }
    if path_is_good(path) {
        Ok((address, path.to_owned()))
    } else {
        Err((
            "holds no path",
            "for example /bitrix/tools/sale_ps_result.php?BX_HANDLER=PRIORBANK",
        ))
    }
}
