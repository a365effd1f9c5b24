//! Exactly one record for each notification, whatever ends it, and the counts behind the status.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::journal::inbox::{Accepted, Fate};
use crate::policy::event::Identity;
use crate::policy::status::{Mark, Status};

/// What became of notifications since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// New events on disk.
    pub accepted: AtomicU64,
    /// Events that were on disk already.
    pub repeated: AtomicU64,
    /// Refused for their signature.
    pub rejected: AtomicU64,
    /// Refused for anything else, our own trouble included.
    pub refused: AtomicU64,
    /// Events that the shop has acknowledged.
    pub delivered: AtomicU64,
    /// Attempts that failed, and another follows.
    pub retried: AtomicU64,
    /// Events that were given up.
    pub dead: AtomicU64,
}

/// One notification's record in the making. Dropped unfinished it says `caller_gone`.
#[derive(Debug)]
pub struct Record<'c> {
    callback: &'c str,
    counts: &'c Counts,
    uid: Option<u32>,
    started: Instant,
    id: String,
    bytes_in: usize,
    key_id: String,
    event: String,
    status_word: &'static str,
    fate: &'static str,
    mark: &'static str,
    repeated: bool,
    written: bool,
}

impl<'c> Record<'c> {
    /// Begins a record.
    #[must_use]
    pub fn begin(
        callback: &'c str,
        counts: &'c Counts,
        uid: Option<u32>,
        started: Instant,
        id: String,
    ) -> Self {
        Self {
            callback,
            counts,
            uid,
            started,
            id,
            bytes_in: 0,
            key_id: String::new(),
            event: String::new(),
            status_word: "",
            fate: "",
            mark: "",
            repeated: false,
            written: false,
        }
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The body's size.
    pub fn bytes_in(&mut self, bytes: usize) {
        self.bytes_in = bytes;
    }

    /// The key that fits.
    pub fn key(&mut self, id: &str) {
        id.clone_into(&mut self.key_id);
    }

    /// Which event it is: by a prefix of its body's hash, never by what the body says of a customer.
    pub fn event(&mut self, identity: &Identity) {
        self.event = identity.body_hash.prefix();
        self.status_word = identity.status.map_or("", Status::as_str);
    }

    /// What became of it.
    pub fn accepted(&mut self, accepted: &Accepted) {
        match accepted {
            Accepted::New { mark, fate, .. } => {
                self.mark = mark.as_str();
                self.fate = match fate {
                    Fate::Queued => "queued",
                    Fate::Held => "held",
                    Fate::Superseded => "superseded",
                };
                if *fate == Fate::Held || *mark == Mark::Conflict {
                    tracing::warn!(
                        callback = self.callback,
                        event = self.event,
                        state = self.fate,
                        mark = self.mark,
                        "an event contradicts what came before: see docs/transitions.md"
                    );
                }
            }
            Accepted::Repeat(_) => {
                self.repeated = true;
                self.fate = "repeat";
            }
            Accepted::Repeated(_) => {
                self.repeated = true;
                self.fate = "repeated";
                tracing::warn!(
                    callback = self.callback,
                    event = self.event,
                    "old news of the bank came again, after newer ones: it is kept and not delivered"
                );
            }
        }
    }

    /// It is answered. `code` is empty for an accepted one; `rejected` says that it was the signature.
    pub fn finish(&mut self, status: u16, code: &str, rejected: bool) {
        self.write(status, code, rejected);
    }

    fn write(&mut self, status: u16, code: &str, rejected: bool) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let count = match (code.is_empty(), rejected, self.repeated) {
            (true, _, false) => &self.counts.accepted,
            (true, _, true) => &self.counts.repeated,
            (false, true, _) => &self.counts.rejected,
            (false, false, _) => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "priorgate::callback",
                    callback = self.callback,
                    status,
                    code,
                    request_id = self.id,
                    uid = self.uid,
                    bytes_in = self.bytes_in,
                    key_id = self.key_id,
                    event = self.event,
                    says = self.status_word,
                    fate = self.fate,
                    mark = self.mark,
                    ms,
                    "notification"
                )
            };
        }
        // Anybody on the network can be refused; what fits no key may be a rotation that we were not told of.
        match code {
            "mismatch" | "no-key-in-window" | "journal_unavailable" => line!(warn),
            // As often as it likes, and told once a second (net/denials).
            "caller_denied" => line!(debug),
            _ => line!(info),
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.write(0, "caller_gone", false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_once_by_what_became_of_it() {
        let counts = Counts::default();
        let begin = || Record::begin("c", &counts, None, Instant::now(), "id".to_owned());
        begin().finish(200, "", false);
        let mut repeat = begin();
        repeat.repeated = true;
        repeat.finish(200, "", false);
        repeat.finish(403, "missing", true);
        begin().finish(403, "missing", true);
        drop(begin());
        let seen = [
            &counts.accepted,
            &counts.repeated,
            &counts.rejected,
            &counts.refused,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        assert_eq!(seen, [1, 1, 1, 1]);
    }
}
