//! What all connections of the sandbox bank share: the ledger, the faults and the log, under one
//! lock.
//!
//! Owns the lock, the log and the making of identifiers. The lock is never held across an await.
//! Knows nothing of sockets.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::SecureRandom;
use serde::Serialize;
use tokio::sync::broadcast;

use super::callbacks::{CallbackError, CallbackEvent, CallbackOrder, Callbacks};
use super::faults::Faults;
use super::ledger::{Client, Ledger, LedgerError, Refund, Session, SessionStatus};

/// Older lines than this many are forgotten.
const MAX_LOG: usize = 10_000;
/// How far a follower may fall behind before it misses lines.
const FOLLOW: usize = 1_024;

/// What a log line is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogEvent {
    /// A callback was attempted.
    Callback,
    /// A customer chose something on the bank's page.
    Customer,
    /// A TLS handshake failed: no certificate, a foreign one, or no TLS.
    HandshakeRefused,
    /// What came was no acceptable HTTP request.
    Malformed,
    /// A request was read whole.
    Request,
    /// A request was dropped at its first byte.
    Unread,
}

/// One line of the bank's log.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LogEntry {
    /// Counted from 1.
    pub number: u64,
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// What happened.
    pub event: LogEvent,
    /// The method and path, or, where there was no request, the reason. Of a callback: what was
    /// sent where, and why it had no answer.
    pub line: String,
    /// The status of the answer, whether or not a fault let it arrive; of a callback, the shop's.
    pub status: Option<u16>,
    /// The fault that was played.
    pub fault: Option<String>,
    /// The client certificate of the connection.
    pub client: Option<Client>,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Duration::from_millis(self.at_ms).as_secs_f64();
        write!(f, "{at:>8.3}s  ")?;
        match self.event {
            LogEvent::Callback => write!(f, "callback {}", self.line)?,
            LogEvent::Customer => write!(f, "customer {}", self.line)?,
            LogEvent::HandshakeRefused => write!(f, "handshake refused: {}", self.line)?,
            LogEvent::Malformed => write!(f, "malformed request: {}", self.line)?,
            LogEvent::Request => f.write_str(&self.line)?,
            LogEvent::Unread => write!(f, "dropped unread: {}", self.line)?,
        }
        if let Some(status) = self.status {
            write!(f, "  {status}")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, "  [fault {fault}]")?;
        }
        match &self.client {
            Some(client) => write!(f, "  <- {}", client.subject),
            None => Ok(()),
        }
    }
}

/// What the lock protects.
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    /// Absent when the bank was started without.
    pub(super) callbacks: Option<Callbacks>,
    log: VecDeque<LogEntry>,
    logged: u64,
}

impl State {
    /// The log, oldest line first.
    pub(super) fn log(&self) -> impl Iterator<Item = &LogEntry> {
        self.log.iter()
    }

    /// The customer's or the bank's decision; the shop is told when it changes anything.
    pub(super) fn decide(&mut self, id: &str, to: SessionStatus) -> Result<&Session, LedgerError> {
        let before = self.ledger.session(id)?.status;
        let session = self.ledger.decide(id, to)?;
        if let Some(callbacks) = self.callbacks.as_mut().filter(|_| before != to) {
            callbacks.tell(session, None);
        }
        Ok(session)
    }

    /// Gives money back and tells the shop.
    pub(super) fn refund(&mut self, id: &str, refund: Refund) -> Result<&Session, LedgerError> {
        let session = self.ledger.refund(id, refund)?;
        if let Some(callbacks) = &mut self.callbacks {
            callbacks.tell(session, session.refunds.last());
        }
        Ok(session)
    }

    /// Sends a callback by hand.
    pub(super) fn send_callback(
        &mut self,
        order: CallbackOrder,
    ) -> Result<CallbackEvent, CallbackError> {
        let callbacks = self.callbacks.as_mut().ok_or(CallbackError::Off)?;
        callbacks.send(order, &self.ledger)
    }
}

/// The bank behind its counters.
pub(super) struct Bank {
    state: Mutex<State>,
    followers: broadcast::Sender<LogEntry>,
    random: &'static dyn SecureRandom,
    started: Instant,
    /// A session starts `PENDING` and becomes `APPROVED` at once.
    pub(super) auto_approve: bool,
    /// Where the customer is sent, without the session's name.
    pub(super) pay_url: String,
}

impl Bank {
    pub(super) fn new(
        random: &'static dyn SecureRandom,
        auto_approve: bool,
        pay_url: String,
        callbacks: Option<Callbacks>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                ledger: Ledger::default(),
                faults: Faults::default(),
                callbacks,
                log: VecDeque::new(),
                logged: 0,
            }),
            followers: broadcast::Sender::new(FOLLOW),
            random,
            started: Instant::now(),
            auto_approve,
            pay_url,
        }
    }

    /// The shared state. A panic of another connection does not end the bank: every change to the
    /// state is complete before anything in it can panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver of the log lines to come.
    pub(super) fn follow(&self) -> broadcast::Receiver<LogEntry> {
        self.followers.subscribe()
    }

    /// Adds a log line. Number and time are set here.
    pub(super) fn record(
        &self,
        state: &mut State,
        event: LogEvent,
        line: String,
        client: Option<&Client>,
        played: (Option<u16>, Option<String>),
    ) {
        state.logged = state.logged.saturating_add(1);
        let entry = LogEntry {
            number: state.logged,
            at_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            event,
            line,
            status: played.0,
            fault: played.1,
            client: client.cloned(),
        };
        if state.log.len() >= MAX_LOG {
            state.log.pop_front();
        }
        state.log.push_back(entry.clone());
        // Without a follower the line has nowhere to go, which is fine.
        let _ = self.followers.send(entry);
    }

    /// A name that cannot be guessed: `<prefix>-<32 hex digits>`. `None` when the machine has no
    /// randomness.
    pub(super) fn identifier(&self, prefix: &str) -> Option<String> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).ok()?;
        Some(format!("{prefix}-{:032x}", u128::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> Bank {
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        Bank::new(random, true, String::new(), None)
    }

    #[test]
    fn the_log_is_bounded_and_keeps_counting() {
        let bank = bank();
        let mut state = bank.lock();
        for _ in 0..=MAX_LOG {
            bank.record(
                &mut state,
                LogEvent::Request,
                String::new(),
                None,
                (None, None),
            );
        }
        assert_eq!(state.log().count(), MAX_LOG);
        assert_eq!(state.log().last().unwrap().number, MAX_LOG as u64 + 1);
    }

    #[test]
    fn identifiers_fit_a_route_pattern_and_differ() {
        let bank = bank();
        let one = bank.identifier("s").unwrap();
        assert_ne!(one, bank.identifier("s").unwrap());
        assert_eq!(one.len(), 34);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        assert!(one.bytes().all(plain));
    }
}
