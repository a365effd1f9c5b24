//! Well-formed notifications that no key verifies, kept in memory for operators: the first of them and the latest, never
//! on disk. After a rotation that nobody told us of they are what `priorgate verify` needs.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderMap;

use crate::policy::operation::UnixMillis;
use crate::policy::signature::{Part, Template};

/// How many of the first, and how many of the latest.
const KEPT: usize = 8;

/// One of them.
#[derive(Clone, Debug)]
pub struct RejectedBody {
    /// When it came.
    pub at: UnixMillis,
    /// Why it was rejected.
    pub reason: &'static str,
    /// The header of the signature and those of the message; no others.
    pub headers: Vec<(String, String)>,
    /// Byte for byte.
    pub body: Bytes,
}

/// Those of one callback. Bounded by the limit of a body.
#[derive(Debug, Default)]
pub struct Rejected(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    first: Vec<RejectedBody>,
    latest: VecDeque<RejectedBody>,
}

impl Rejected {
    /// Keeps one.
    pub fn keep(&self, rejected: RejectedBody) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.first.len() < KEPT {
            kept.first.push(rejected);
            return;
        }
        if kept.latest.len() == KEPT {
            kept.latest.pop_front();
        }
        kept.latest.push_back(rejected);
    }

    /// All that are kept, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<RejectedBody> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.first.iter().chain(&kept.latest).cloned().collect()
    }
}

/// The headers that a verification looks at.
#[must_use]
pub fn looked_at(
    signature: &http::HeaderName,
    message: &Template,
    headers: &HeaderMap,
) -> Vec<(String, String)> {
    let signed = message.parts().iter().filter_map(|part| match part {
        Part::Header(name) => Some(name),
        _ => None,
    });
    std::iter::once(signature)
        .chain(signed)
        .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_latest_are_kept() {
        let rejected = Rejected::default();
        for at in 0..100 {
            rejected.keep(RejectedBody {
                at: UnixMillis(at),
                reason: "mismatch",
                headers: Vec::new(),
                body: Bytes::new(),
            });
        }
        let at: Vec<i64> = rejected.all().iter().map(|body| body.at.0).collect();
        let expected: Vec<i64> = (0..8).chain(92..100).collect();
        assert_eq!(at, expected);
    }
}
