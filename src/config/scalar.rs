//! Scalars with a form of their own: parsed while the YAML is read, where the position is exact.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::origin::Origin;
use crate::policy::operation::{MediaType, Pointer, StatusPattern, UnixMillis};
use crate::policy::route::{Method, PathPattern};
use crate::policy::signature::{Algorithm, parse_rfc3339};
use crate::policy::units::{parse_duration, parse_size};

/// Declares a scalar that is written as a string: its type, its parser, and what a schema says of it.
macro_rules! scalar {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text { what: $what, parse: $parse }).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $what })
            }
        }
    };
}

const SPAN_MAX: Duration = Duration::from_secs(400 * 86_400);

/// Takes a string and parses it while the reader still knows its place; says what was expected where it is none.
struct Text<T> {
    what: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

scalar!(
    /// A duration, never zero.
    Span(Duration),
    "a duration such as 250ms, 5s, 10m, 1h or 30d",
    |text| match parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("expected a duration above zero".to_owned()),
        // Far above any use, far below where clocks overflow.
        span if span > SPAN_MAX => Err("expected a duration of at most 400d".to_owned()),
        span => Ok(span),
    }
);
scalar!(
    /// A size, never zero.
    Size(u64),
    "a size such as 512B, 16KiB or 1MiB",
    |text| match parse_size(text).map_err(|error| error.to_string())? {
        0 => Err("expected a size above zero".to_owned()),
        size => Ok(size),
    }
);
scalar!(
    /// `[a-z0-9-]{1,32}`: a bank's label in logs and commands.
    BankName(String),
    "a name of 1 to 32 lower-case letters, digits and `-`",
    |text| label(text, b"-").ok_or_else(|| "expected a name of 1 to 32 lower-case letters, digits and `-`".to_owned())
);
scalar!(
    /// `[a-z0-9_-]{1,32}`: a route's label in logs and commands.
    Name(String),
    "a name of 1 to 32 lower-case letters, digits, `-` and `_`",
    |text| label(text, b"-_").ok_or_else(|| "expected a name of 1 to 32 lower-case letters, digits, `-` and `_`".to_owned())
);
scalar!(
    /// The name of a systemd credential: it becomes a file's name in one directory, and must not leave it.
    Credential(String),
    "the name of a credential, as in LoadCredential=",
    |text| {
        let good = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if good {
            Ok(text.to_owned())
        } else {
            Err("expected a name of 1 to 64 letters, digits, `.`, `_` and `-`, not beginning with `.`".to_owned())
        }
    }
);
scalar!(
    /// A bank's origin.
    Url(Origin),
    "an origin such as https://api.bank.example",
    |text| Origin::parse(text).map_err(|error| error.to_string())
);
scalar!(
    /// An HTTP method that a route may name.
    RouteMethod(Method),
    "an HTTP method: DELETE, GET, PATCH, POST or PUT",
    |text| Method::parse(text).ok_or_else(|| "expected DELETE, GET, PATCH, POST or PUT, in capitals".to_owned())
);
scalar!(
    /// A route's path.
    RoutePath(PathPattern),
    "a path such as /installment/create or /installment/{id}",
    |text| PathPattern::parse(text).map_err(|error| error.to_string())
);
scalar!(
    /// The exact path of a callback.
    CallbackPath(String),
    "a path such as /bank/priorbank/callback",
    |text| match PathPattern::parse(text) {
        Ok(_) if text.contains('{') => Err("expected an exact path, without `{id}`".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
);
scalar!(
    /// A signature algorithm of a callback's key.
    KeyAlgorithm(Algorithm),
    "a signature algorithm such as rsa-pkcs1-sha256 or ed25519",
    |text| Algorithm::parse(text).map_err(|error| error.to_string())
);
scalar!(
    /// A moment, RFC 3339.
    Moment(UnixMillis),
    "a time such as 2027-12-31T00:00:00Z",
    |text| parse_rfc3339(text).ok_or_else(|| "expected a time such as 2027-12-31T00:00:00Z".to_owned())
);
scalar!(
    /// A JSON pointer into a request's body.
    BodyPointer(Pointer),
    "a JSON pointer such as /session_id",
    |text| Pointer::parse(text).map_err(|error| error.to_string())
);
scalar!(
    /// A content type of a definitive answer.
    AnswerType(MediaType),
    "a content type such as application/json, or none",
    |text| MediaType::parse(text)
        .ok_or_else(|| "expected a content type such as application/json, without parameters, or `none`".to_owned())
);
scalar!(
    /// A file, relative to the configuration file.
    FilePath(PathBuf),
    "the path of a file",
    |text| match text {
        "" => Err("expected a path, found an empty string".to_owned()),
        _ if text.contains('\0') => Err("expected a path without NUL".to_owned()),
        _ => Ok(text.into()),
    }
);
scalar!(
    /// An address and port.
    Address(SocketAddr),
    "an IP address and port such as 127.0.0.1:9180 or [::1]:9180",
    |text| text.parse().map_err(|_| "expected an IP address and port such as 127.0.0.1:9180".to_owned())
);
scalar!(
    /// An IP address.
    Ip(IpAddr),
    "an IP address",
    |text| text.parse().map_err(|_| "expected an IP address such as 203.0.113.7".to_owned())
);
scalar!(
    /// SHA-256 in hex.
    Sha256([u8; 32]),
    "the SHA-256 of a SubjectPublicKeyInfo, 64 hexadecimal digits",
    parse_sha256
);
scalar!(
    /// Permission bits in octal.
    FileMode(u32),
    "permission bits in octal, in quotes, such as \"0660\"",
    |text| match u32::from_str_radix(text, 8) {
        // A sign would be taken, too.
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        Ok(_) | Err(_) => Err("expected permission bits in octal and in quotes, such as \"0660\"".to_owned()),
    }
);
scalar!(
    /// A header's name.
    Header(http::HeaderName),
    "a header name",
    |text| http::HeaderName::from_bytes(text.as_bytes()).map_err(|_| "expected a header name".to_owned())
);
scalar!(
    /// A TLS version.
    Version(super::TlsVersion),
    "a TLS version in quotes: \"1.3\" or \"1.2\"",
    |text| match text {
        "1.2" => Ok(super::TlsVersion::Tls12),
        "1.3" => Ok(super::TlsVersion::Tls13),
        _ => Err("expected \"1.3\" or \"1.2\", in quotes".to_owned()),
    }
);
scalar!(
    /// A log level.
    Level(tracing::Level),
    "a log level: error, warn, info, debug or trace",
    |text| match text {
        "error" => Ok(tracing::Level::ERROR),
        "warn" => Ok(tracing::Level::WARN),
        "info" => Ok(tracing::Level::INFO),
        "debug" => Ok(tracing::Level::DEBUG),
        "trace" => Ok(tracing::Level::TRACE),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    }
);

fn label(text: &str, marks: &[u8]) -> Option<String> {
    let good = (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || marks.contains(&b));
    good.then(|| text.to_owned())
}

fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "expected 64 hexadecimal digits".to_owned();
    let mut out = [0_u8; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(out)
}

/// A user or a group: a name, or a uid or gid as a number.
#[derive(Clone, Debug)]
pub enum User {
    /// Resolved when the configuration is checked.
    Name(String),
    /// As it is.
    Uid(u32),
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UserVisitor;
        impl Visitor<'_> for UserVisitor {
            type Value = User;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a uid or gid as a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<User, E> {
                match text.parse() {
                    Ok(id) => self.visit_u64(id),
                    Err(_) => Ok(User::Name(text.to_owned())),
                }
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<User, E> {
                match u32::try_from(id) {
                    // chown(2) reads the largest as "no change", SO_PEERCRED gives it for "nobody known".
                    Ok(id) if id < u32::MAX => Ok(User::Uid(id)),
                    Ok(_) | Err(_) => Err(E::custom("expected a uid or gid below 4294967295")),
                }
            }
        }
        deserializer.deserialize_any(UserVisitor)
    }
}

impl JsonSchema for User {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "User".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "a name, or a uid or gid as a number" })
    }
}

/// A status or a class of them: `404`, `2xx`. A number or a text.
#[derive(Clone, Copy, Debug)]
pub struct Statuses(pub StatusPattern);

const STATUSES: &str = "a status from 200 to 599 that is no redirect, or a class: 2xx, 4xx, 5xx";

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

struct StatusesVisitor;

impl Visitor<'_> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STATUSES)
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
        self.visit_str(&status.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        let pattern = StatusPattern::parse(text);
        pattern
            .map(Statuses)
            .ok_or_else(|| E::custom(format!("expected {STATUSES}")))
    }
}

impl JsonSchema for Statuses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": STATUSES })
    }
}
