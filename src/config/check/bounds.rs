//! Deadlines and bounds: their defaults, each with its reason, and how far they may be turned.

use std::time::Duration;

use super::Checker;
use crate::config::scalar::{Size, Span};
use crate::config::{Breaker, Dns, Limits, Pool, Timeouts, file};
use crate::policy::signing::rate::Rate;

/// A count's default and range.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) default: u32,
    pub(super) min: u32,
    pub(super) max: u32,
}

/// A size's default and range, in bytes.
#[derive(Clone, Copy)]
struct Bytes {
    default: u64,
    min: u64,
    max: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Each holds a thread while it signs; a shop's peak is a handful.
pub(super) const HANDSHAKES: Count = Count {
    default: 16,
    min: 1,
    max: 256,
};
/// As long as the longest request may take (`timeouts.total`).
pub(super) const DRAIN: Duration = Duration::from_secs(30);

/// PHP's heads are under 1 KiB; nginx's default is 8 KiB. Above 48 KiB hyper's own limits would answer first.
const HEAD: Bytes = Bytes {
    default: 16 * KIB,
    min: KIB,
    max: 48 * KIB,
};
/// cURL sends about ten; hyper's own limit is 100.
const HEADERS: Count = Count {
    default: 64,
    min: 8,
    max: 100,
};
/// A basket of hundreds of positions is some 50 KiB.
const REQUEST_BODY: Bytes = Bytes {
    default: 256 * KIB,
    min: KIB,
    max: 64 * MIB,
};
/// A bank's answers are a few KiB; they are held whole in memory.
const RESPONSE_BODY: Bytes = Bytes {
    default: MIB,
    min: KIB,
    max: 64 * MIB,
};
/// More than PHP-FPM's usual pool sends at a time.
const CONCURRENCY: Count = Count {
    default: 32,
    min: 1,
    max: 4096,
};
/// Eight rounds of the above: a longer queue would only wait for its time-out.
const QUEUE: Count = Count {
    default: 256,
    min: 1,
    max: 65_536,
};
/// Far above a pool's size, far below the usual limit of descriptors.
const CONNECTIONS: Count = Count {
    default: 1024,
    min: 1,
    max: 65_536,
};
/// A refused 1 MiB upload still reads its 413.
const LINGER: Bytes = Bytes {
    default: MIB,
    min: KIB,
    max: 64 * MIB,
};
/// The article's way of counting: three in a row are no accident.
const FAILURES: Count = Count {
    default: 3,
    min: 1,
    max: 1000,
};
/// A restart of every connection of `limits.concurrency` at once, sixteen times over.
const SIGN_BURST: Count = Count {
    default: 512,
    min: 1,
    max: 65_536,
};
/// Pooled connections need a few a minute; a shop that opens one for every request stays below this.
const SIGN_PER_SECOND: Count = Count {
    default: 50,
    min: 1,
    max: 10_000,
};

impl Checker {
    pub(super) fn sign_rate(&mut self, at: &str, raw: Option<&file::SignRate>) -> Rate {
        let burst = raw.and_then(|raw| raw.burst);
        let per_second = raw.and_then(|raw| raw.per_second);
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Rate {
            burst: narrow(self.count(&format!("{at}.burst"), burst, SIGN_BURST)),
            per_second: narrow(self.count(
                &format!("{at}.per_second"),
                per_second,
                SIGN_PER_SECOND,
            )),
        }
    }

    pub(super) fn timeouts(&mut self, at: &str, raw: file::Timeouts) -> Timeouts {
        let seconds = Duration::from_secs;
        let total = raw.total.map_or_else(|| seconds(30), |span| span.0);
        let mut part = |name: &str, raw: Option<Span>, default: Duration| match raw {
            None => default.min(total),
            Some(Span(span)) => {
                if span > total {
                    self.mistake(
                        format!("{at}.{name}"),
                        "is longer than total, and would never be reached",
                        "raise total (and PHP's own time-out above it), or lower this",
                    );
                }
                span
            }
        };
        let head = part("head", raw.head, seconds(5));
        let body = part("body", raw.body, seconds(10));
        let connect = part("connect", raw.connect, seconds(5));
        let response = part("response", raw.response, seconds(25));
        // Long enough for a bank that is restarted under load; each such request keeps a connection that long.
        let settle = raw
            .settle
            .map_or_else(|| seconds(120).max(response), |span| span.0);
        if settle < response {
            self.mistake(
                format!("{at}.settle"),
                "is shorter than response, and would cut answers off that are in time",
                "raise it: it counts from the request's first byte, as response does",
            );
        }
        Timeouts {
            head,
            body,
            connect,
            response,
            settle,
            idle: raw.idle.map_or_else(|| seconds(30), |span| span.0),
            total,
        }
    }

    pub(super) fn limits(&mut self, at: &str, raw: file::Limits) -> Limits {
        Limits {
            head: self.bytes(&format!("{at}.head"), raw.head, HEAD),
            headers: self.count(&format!("{at}.headers"), raw.headers, HEADERS),
            request_body: self.bytes(
                &format!("{at}.request_body"),
                raw.request_body,
                REQUEST_BODY,
            ),
            response_body: self.bytes(
                &format!("{at}.response_body"),
                raw.response_body,
                RESPONSE_BODY,
            ),
            concurrency: self.count(&format!("{at}.concurrency"), raw.concurrency, CONCURRENCY),
            queue: self.count(&format!("{at}.queue"), raw.queue, QUEUE),
            connections: self.count(&format!("{at}.connections"), raw.connections, CONNECTIONS),
            linger: self.bytes(&format!("{at}.linger"), raw.linger, LINGER),
        }
    }

    pub(super) fn pool(&mut self, at: &str, raw: file::Pool, concurrency: usize) -> Pool {
        // Bounded, so that a mistaken concurrency is reported once.
        let default = u32::try_from(concurrency)
            .unwrap_or(u32::MAX)
            .clamp(1, CONCURRENCY.max);
        let range = Count {
            default,
            min: 1,
            max: CONCURRENCY.max,
        };
        Pool {
            // Below the 5 s after which the shortest-tempered servers close.
            idle_timeout: raw
                .idle_timeout
                .map_or(Duration::from_secs(4), |span| span.0),
            max_age: raw.max_age.map_or(Duration::from_secs(600), |span| span.0),
            max_idle: self.count(&format!("{at}.max_idle"), raw.max_idle, range),
        }
    }

    pub(super) fn breaker(&mut self, at: &str, raw: file::Breaker) -> Breaker {
        let failures = self.count(&format!("{at}.failures"), raw.failures, FAILURES);
        Breaker {
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            // A worker waits for at most one connect in two seconds.
            cooldown: raw.cooldown.map_or(Duration::from_secs(2), |span| span.0),
        }
    }

    pub(super) fn dns(&mut self, at: &str, raw: file::Dns) -> Dns {
        let refresh = raw.refresh.map_or(Duration::from_secs(30), |span| span.0);
        let stale = raw.stale.map_or(Duration::from_secs(3600), |span| span.0);
        if stale < refresh {
            self.mistake(
                format!("{at}.stale"),
                "is shorter than refresh: every answer would be too old before the next",
                "raise stale, or lower refresh",
            );
        }
        Dns {
            refresh,
            stale,
            addresses: raw.addresses.into_iter().map(|ip| ip.0).collect(),
        }
    }

    pub(super) fn count(&mut self, at: &str, raw: Option<u32>, range: Count) -> usize {
        let value = raw.unwrap_or(range.default);
        if !(range.min..=range.max).contains(&value) {
            let message = format!("expected a number from {} to {}", range.min, range.max);
            self.mistake(at, message, format!("the default is {}", range.default));
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    fn bytes(&mut self, at: &str, raw: Option<Size>, range: Bytes) -> usize {
        let value = raw.map_or(range.default, |size| size.0);
        if !(range.min..=range.max).contains(&value) {
            let message = format!(
                "expected a size from {}KiB to {}KiB",
                range.min / KIB,
                range.max / KIB
            );
            self.mistake(
                at,
                message,
                format!("the default is {}KiB", range.default / KIB),
            );
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }
}
