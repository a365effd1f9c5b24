//! What the sandbox bank tells the shop by itself: signed callbacks, sent until they are accepted.
//!
//! Owns when a callback is made and what the bank's operator may ask for. Reading order: [`letter`]
//! (the bytes and their signature), [`queue`] (when), `send` (how), [`fault`] (what goes wrong).
//! Made and signed under the bank's lock, so that callbacks are in the order of what they tell.

mod fault;
mod key;
mod letter;
mod queue;
mod send;
mod url;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::fault::Armed;
pub use self::fault::CallbackFault;
use self::key::Signer;
pub use self::key::{AlgorithmError, CallbackAlgorithm, KeyError};
use self::letter::{Keys, Letter, Notification};
pub use self::queue::{CallbackEvent, CallbackState};
use self::queue::{New, Queue, Retry};
pub(super) use self::send::run;
pub use self::url::{CallbackUrl, UrlError};
use super::ledger::{Ledger, Refund, Session, SessionStatus};

/// What an identifier or a status may be long at most.
const MAX_TEXT: usize = 64;

/// How to send callbacks.
#[derive(Clone, Debug)]
pub struct CallbackOptions {
    /// Where to.
    pub url: CallbackUrl,
    /// How they are signed.
    pub algorithm: CallbackAlgorithm,
    /// The header of a timestamp in Unix seconds; with one, `<timestamp>.<body>` is signed.
    pub timestamp_header: Option<String>,
    /// The pause after the first attempt; each next one is twice as long.
    pub retry_base: Duration,
    /// No pause is longer.
    pub retry_longest: Duration,
    /// After so many attempts the bank gives up.
    pub attempts: u32,
    /// How long the bank waits for an answer.
    pub patience: Duration,
}

impl CallbackOptions {
    /// Signed by RSA PKCS#1 without a timestamp; again after 1 s, 2 s, 4 s and so on up to 60 s,
    /// 20 times; 10 s for each answer.
    #[must_use]
    pub const fn new(url: CallbackUrl) -> Self {
        Self {
            url,
            algorithm: CallbackAlgorithm::RsaPkcs1Sha256,
            timestamp_header: None,
            retry_base: Duration::from_secs(1),
            retry_longest: Duration::from_secs(60),
            attempts: 20,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why a callback was not made, or a fault not armed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CallbackError {
    /// No such name, or a bad argument.
    #[error(
        "unknown fault; expected wrong-key, changed-byte, stale, doubled, re-ordered, re-encoded, \
         no-signature, two-signatures, slow-body or slow-body-<duration up to 5m>"
    )]
    Fault,
    /// Too many wait.
    #[error("too many callbacks or faults wait already")]
    Full,
    /// One of this session waits for the next one.
    #[error("a callback of this session is held already, until the next one")]
    Held,
    /// No key, no signature, or no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a header's name, or one that is taken.
    #[error("the timestamp's header needs a name of letters, digits and `-` that is free")]
    Header,
    /// The sandbox was started without callbacks.
    #[error("the sandbox sends no callbacks; start it with --callback-url")]
    Off,
    /// A text that no bank would send.
    #[error("an identifier or a status needs 1 to {MAX_TEXT} characters, none of them a control")]
    Text,
    /// Not a sensible count.
    #[error("expected a count of times between 1 and 1000000")]
    Times,
    /// `stale`, where nothing says when.
    #[error("without a timestamp nothing is stale; start the sandbox with --callback-timestamp")]
    Timestamp,
}

/// A callback by hand: whatever the ledger says, and for a session that it may not know.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CallbackOrder {
    /// Whose. Of a known session the rest is told as well.
    pub session_id: String,
    /// The status; also a word that the ledger does not have.
    pub status: String,
    /// The identifier, to send one twice with different bodies; a new one by default.
    pub event_id: Option<String>,
    /// What goes wrong, by name. The armed faults are left alone.
    pub fault: Option<String>,
    /// After so many attempts no more; by default as often as any other.
    pub attempts: Option<u32>,
}

/// The bank's side of callbacks, under the bank's lock.
pub(super) struct Callbacks {
    url: CallbackUrl,
    keys: Keys,
    armed: Armed,
    queue: Queue,
    patience: Duration,
    wake: Arc<Notify>,
    /// How many were not made, because too many waited or the machine refused to sign.
    dropped: u64,
}

impl Callbacks {
    /// Makes the keys. What is queued wakes whoever waits for `wake`.
    pub(super) fn new(options: CallbackOptions, wake: Arc<Notify>) -> Result<Self, CallbackError> {
        let timestamp = options.timestamp_header;
        if !timestamp.as_deref().is_none_or(is_free_header) {
            return Err(CallbackError::Header);
        }
        Ok(Self {
            url: options.url,
            keys: Keys {
                own: Signer::generate(options.algorithm)?,
                wrong: Signer::generate(options.algorithm)?,
                timestamp,
            },
            armed: Armed::default(),
            queue: Queue::new(Retry {
                base: options.retry_base,
                longest: options.retry_longest,
                attempts: options.attempts,
            }),
            patience: options.patience,
            wake,
            dropped: 0,
        })
    }

    /// The bank's public key in PEM.
    pub(super) fn key_pem(&self) -> &str {
        self.keys.own.public_pem()
    }

    /// The public key of the fault `wrong-key` in PEM.
    pub(super) fn wrong_key_pem(&self) -> &str {
        self.keys.wrong.public_pem()
    }

    /// From the next attempt on, callbacks go there.
    pub(super) fn redirect(&mut self, url: CallbackUrl) {
        self.url = url;
    }

    /// Something became of a session: a decision, or this refund.
    pub(super) fn tell(&mut self, session: &Session, refund: Option<&Refund>) {
        let status = match refund {
            // Also a part: the session itself may stay approved.
            Some(_) => SessionStatus::Refunded,
            None => session.status,
        };
        let fault = self.armed.take(self.queue.awaited(&session.session_id));
        let notification = Notification::of(session, status.as_str(), refund);
        if self.queue(notification, fault, None).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Makes a callback by hand.
    pub(super) fn send(
        &mut self,
        order: CallbackOrder,
        ledger: &Ledger,
    ) -> Result<CallbackEvent, CallbackError> {
        let event_id = order.event_id.unwrap_or_default();
        let texts = [&order.session_id, &order.status, &event_id];
        // An empty identifier is replaced by a new one.
        let empty = order.session_id.is_empty() || order.status.is_empty();
        if empty || !texts.into_iter().all(|text| is_text(text)) {
            return Err(CallbackError::Text);
        }
        if order.attempts == Some(0) {
            return Err(CallbackError::Times);
        }
        let fault = order.fault.map(|fault| fault.parse()).transpose()?;
        self.possible(fault)?;
        let mut notification = match ledger.session(&order.session_id) {
            Ok(session) => {
                let refunded = order.status == SessionStatus::Refunded.as_str();
                let refund = session.refunds.last().filter(|_| refunded);
                Notification::of(session, &order.status, refund)
            }
            Err(_) => Notification::unknown(order.session_id, order.status),
        };
        notification.event_id = event_id;
        self.queue(notification, fault, order.attempts)
    }

    /// Arms a fault for so many callbacks to come.
    pub(super) fn arm(&mut self, fault: CallbackFault, times: u32) -> Result<(), CallbackError> {
        self.possible(Some(fault))?;
        self.armed.arm(fault, times)
    }

    /// Forgets the armed faults and lets go what waits for a next callback.
    pub(super) fn disarm(&mut self) {
        self.armed.clear();
        self.queue.release(Instant::now());
        self.wake.notify_one();
    }

    /// The armed faults, in the order of arming.
    pub(super) fn armed(&self) -> impl Iterator<Item = (CallbackFault, u32)> {
        self.armed.list()
    }

    /// What was made, oldest first.
    pub(super) fn events(&self) -> Vec<CallbackEvent> {
        self.queue.events()
    }

    /// How many were not made.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn possible(&self, fault: Option<CallbackFault>) -> Result<(), CallbackError> {
        if fault == Some(CallbackFault::Stale) && self.keys.timestamp.is_none() {
            return Err(CallbackError::Timestamp);
        }
        Ok(())
    }

    fn queue(
        &mut self,
        mut notification: Notification,
        fault: Option<CallbackFault>,
        attempts: Option<u32>,
    ) -> Result<CallbackEvent, CallbackError> {
        if notification.event_id.is_empty() {
            notification.event_id = key::identifier("e")?;
        }
        let letter = Letter::new(&self.keys, &notification, fault, SystemTime::now())?;
        let new = New {
            event_id: notification.event_id,
            session_id: notification.session_id,
            status: notification.status,
            fault,
            letter,
            attempts,
        };
        let event = self.queue.push(new, Instant::now())?;
        self.wake.notify_one();
        Ok(event)
    }
}

fn is_text(text: &str) -> bool {
    text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control)
}

/// A header's name that this request does not have already.
fn is_free_header(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let taken = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-signature",
    ];
    !name.is_empty()
        && name.len() <= MAX_TEXT
        && name.bytes().all(plain)
        && !taken.iter().any(|taken| taken.eq_ignore_ascii_case(name))
}
