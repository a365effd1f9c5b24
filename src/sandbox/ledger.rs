//! What the sandbox bank remembers: sessions, refunds, and counts of who asked how often.
//!
//! Owns the money rules (a refund never exceeds what was approved) and the numbers that tests
//! compare with what the gate claims. In memory only. Knows nothing of HTTP, JSON bodies or time.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::money::Money;

/// More sessions than this are refused, not remembered.
const MAX_SESSIONS: usize = 10_000;
/// More partial refunds of one session than this are refused.
const MAX_REFUNDS: usize = 1_000;

/// Where a session is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionStatus {
    /// The customer has not decided.
    Pending,
    /// The instalment runs; the shop may refund.
    Approved,
    /// The bank or the customer said no.
    Rejected,
    /// Called off.
    Cancelled,
    /// All of it went back.
    Refunded,
}

impl SessionStatus {
    /// The word that the bank uses for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELLED",
            Self::Refunded => "REFUNDED",
        }
    }
}

/// One refund that was carried out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refund {
    /// The bank's name for it.
    pub refund_id: String,
    /// How much went back.
    pub amount: Money,
    /// What the shop gave as reason.
    pub reason: Option<String>,
}

/// One instalment session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Session {
    /// The bank's name for it.
    pub session_id: String,
    /// The shop's name for it; several sessions may share one.
    pub order_ref: String,
    /// Where it is.
    pub status: SessionStatus,
    /// The sum of the order.
    pub amount: Money,
    /// How much of it went back.
    pub refunded: Money,
    /// Always `BYN`.
    pub currency: String,
    /// Months.
    pub term: u32,
    /// Whose order it is: the common name of the certificate that it came with.
    pub shop: String,
    /// Where the customer goes who has agreed.
    pub success_url: Option<String>,
    /// Where any other customer goes.
    pub fail_url: Option<String>,
    /// The refunds that were carried out.
    pub refunds: Vec<Refund>,
    /// Refund requests that reached the ledger, refused ones included.
    pub refund_requests: u64,
}

/// How often something was done under one order reference.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct OrderCounts {
    /// Sessions made.
    pub creates: u64,
    /// Refunds carried out.
    pub refunds: u64,
}

/// A client certificate as the bank saw it in the handshake.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Client {
    /// The common name of its subject.
    pub common_name: String,
    /// Its serial number, upper-case hex with colons.
    pub serial: String,
    /// Its whole subject, as RFC 4514 writes it.
    pub subject: String,
}

/// A client certificate and what it was used for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClientCounts {
    /// The certificate.
    #[serde(flatten)]
    pub client: Client,
    /// Handshakes completed with it.
    pub connections: u64,
    /// Requests read over it.
    pub requests: u64,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// TCP connections accepted.
    pub connections: u64,
    /// TLS handshakes completed, each with a client certificate.
    pub handshakes: u64,
    /// TLS handshakes that failed: no certificate, a foreign one, or no TLS at all.
    pub handshakes_refused: u64,
    /// Requests dropped at their first byte (`drop-before-read`).
    pub unread: u64,
    /// Requests read whole, whatever became of them.
    pub requests: u64,
    /// Heads or bodies that were no acceptable request.
    pub malformed: u64,
}

/// Why the ledger did not do what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// The bound on sessions or refunds is reached.
    #[error("the sandbox is full; restart it")]
    Full,
    /// Refunds need an approved session.
    #[error("the session is not approved, so nothing of it can be refunded")]
    NotApproved,
    /// More than is left.
    #[error("the refund exceeds what was approved and not refunded yet")]
    RefundTooLarge,
    /// The status cannot become that one.
    #[error("the session cannot change to that status")]
    Transition,
    /// Nobody made this session.
    #[error("there is no such session")]
    Unknown,
}

/// What is needed to open a session.
#[derive(Clone, Debug)]
pub(super) struct NewSession {
    pub(super) order_ref: String,
    pub(super) amount: Money,
    pub(super) currency: String,
    pub(super) term: u32,
    pub(super) shop: String,
    pub(super) success_url: Option<String>,
    pub(super) fail_url: Option<String>,
}

/// All of it, in memory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: Vec<Session>,
    by_id: HashMap<String, usize>,
    orders: BTreeMap<String, OrderCounts>,
    /// Bounded by the certificates that our own CA issued: nobody else passes the handshake.
    clients: BTreeMap<Client, (u64, u64)>,
    pub(super) totals: Totals,
}

impl Ledger {
    /// Opens a session, `PENDING`.
    pub(super) fn create(&mut self, id: &str, new: NewSession) -> Result<&Session, LedgerError> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(LedgerError::Full);
        }
        let counts = self.orders.entry(new.order_ref.clone()).or_default();
        counts.creates = counts.creates.saturating_add(1);
        let at = self.sessions.len();
        self.by_id.insert(id.to_owned(), at);
        self.sessions.push(Session {
            session_id: id.to_owned(),
            order_ref: new.order_ref,
            status: SessionStatus::Pending,
            amount: new.amount,
            refunded: Money::default(),
            currency: new.currency,
            term: new.term,
            shop: new.shop,
            success_url: new.success_url,
            fail_url: new.fail_url,
            refunds: Vec::new(),
            refund_requests: 0,
        });
        self.sessions.get(at).ok_or(LedgerError::Unknown)
    }

    /// A session by its name.
    pub(super) fn session(&self, id: &str) -> Result<&Session, LedgerError> {
        let at = self.by_id.get(id).ok_or(LedgerError::Unknown)?;
        self.sessions.get(*at).ok_or(LedgerError::Unknown)
    }

    /// The customer's or the bank's decision. `REFUNDED` is reached by refunds only, and what was
    /// refunded in part is not called off any more.
    pub(super) fn decide(&mut self, id: &str, to: SessionStatus) -> Result<&Session, LedgerError> {
        use SessionStatus::{Approved, Cancelled, Pending, Rejected};
        let session = self.session_mut(id)?;
        let untouched = session.refunded == Money::default();
        let allowed = match (session.status, to) {
            (from, to) if from == to => true,
            (Pending, Approved | Rejected | Cancelled) => true,
            (Approved, Cancelled) => untouched,
            _ => false,
        };
        if !allowed {
            return Err(LedgerError::Transition);
        }
        session.status = to;
        Ok(session)
    }

    /// Gives money back: all that is left, or part of it.
    pub(super) fn refund(&mut self, id: &str, refund: Refund) -> Result<&Session, LedgerError> {
        let session = self.session_mut(id)?;
        session.refund_requests = session.refund_requests.saturating_add(1);
        match session.status {
            SessionStatus::Approved => {}
            // Nothing is left: that says more than "not approved".
            SessionStatus::Refunded => return Err(LedgerError::RefundTooLarge),
            SessionStatus::Pending | SessionStatus::Rejected | SessionStatus::Cancelled => {
                return Err(LedgerError::NotApproved);
            }
        }
        if session.refunds.len() >= MAX_REFUNDS {
            return Err(LedgerError::Full);
        }
        let refunded = session
            .refunded
            .checked_add(refund.amount)
            .filter(|refunded| *refunded <= session.amount)
            .ok_or(LedgerError::RefundTooLarge)?;
        session.refunded = refunded;
        session.refunds.push(refund);
        if refunded == session.amount {
            session.status = SessionStatus::Refunded;
        }
        let order_ref = session.order_ref.clone();
        let counts = self.orders.entry(order_ref).or_default();
        counts.refunds = counts.refunds.saturating_add(1);
        self.session(id)
    }

    /// A handshake was completed with this certificate.
    pub(super) fn connected(&mut self, client: &Client) {
        self.totals.handshakes = self.totals.handshakes.saturating_add(1);
        let (connections, _) = self.clients.entry(client.clone()).or_default();
        *connections = connections.saturating_add(1);
    }

    /// A request was read whole over this certificate's connection.
    pub(super) fn requested(&mut self, client: &Client) {
        self.totals.requests = self.totals.requests.saturating_add(1);
        let (_, requests) = self.clients.entry(client.clone()).or_default();
        *requests = requests.saturating_add(1);
    }

    /// A copy of everything, for tests and the control API.
    pub(super) fn snapshot(&self) -> Snapshot {
        let clients = self.clients.iter();
        Snapshot {
            totals: self.totals,
            sessions: self.sessions.clone(),
            orders: self.orders.clone(),
            clients: clients
                .map(|(client, (connections, requests))| ClientCounts {
                    client: client.clone(),
                    connections: *connections,
                    requests: *requests,
                })
                .collect(),
        }
    }

    fn session_mut(&mut self, id: &str) -> Result<&mut Session, LedgerError> {
        let at = self.by_id.get(id).ok_or(LedgerError::Unknown)?;
        self.sessions.get_mut(*at).ok_or(LedgerError::Unknown)
    }
}

/// The ledger at one moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Snapshot {
    /// Totals since the start.
    pub totals: Totals,
    /// Every session, oldest first.
    pub sessions: Vec<Session>,
    /// Counts by order reference.
    pub orders: BTreeMap<String, OrderCounts>,
    /// Every client certificate that was seen.
    pub clients: Vec<ClientCounts>,
}

impl Snapshot {
    /// A session by its name.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.sessions
            .iter()
            .find(|session| session.session_id == id)
    }

    /// The counts of an order reference; zeros when it was never seen.
    #[must_use]
    pub fn order(&self, order_ref: &str) -> OrderCounts {
        self.orders.get(order_ref).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(amount: u64) -> Ledger {
        let mut ledger = Ledger::default();
        let new = NewSession {
            order_ref: "order-1".to_owned(),
            amount: Money::from_minor(amount),
            currency: "BYN".to_owned(),
            term: 12,
            shop: "shop".to_owned(),
            success_url: None,
            fail_url: None,
        };
        ledger.create("s-1", new).unwrap();
        ledger
    }

    fn refund(amount: u64) -> Refund {
        Refund {
            refund_id: format!("r-{amount}"),
            amount: Money::from_minor(amount),
            reason: None,
        }
    }

    #[test]
    fn partial_refunds_add_up_to_what_was_approved_and_never_beyond() {
        let mut ledger = opened(1_000);
        ledger.decide("s-1", SessionStatus::Approved).unwrap();
        ledger.refund("s-1", refund(999)).unwrap();
        let refused = ledger.refund("s-1", refund(2));
        assert_eq!(refused.unwrap_err(), LedgerError::RefundTooLarge);
        let full = ledger.refund("s-1", refund(1)).unwrap();
        assert_eq!(full.status, SessionStatus::Refunded);
        let refused = ledger.refund("s-1", refund(1));
        assert_eq!(refused.unwrap_err(), LedgerError::RefundTooLarge);
        let snapshot = ledger.snapshot();
        let session = snapshot.session("s-1").unwrap();
        assert_eq!(session.refunded, Money::from_minor(1_000));
        assert_eq!((session.refunds.len(), session.refund_requests), (2, 4));
        assert_eq!(snapshot.order("order-1").refunds, 2);
    }

    #[test]
    fn an_enormous_refund_does_not_wrap() {
        let mut ledger = opened(1_000);
        ledger.decide("s-1", SessionStatus::Approved).unwrap();
        ledger.refund("s-1", refund(1)).unwrap();
        let refused = ledger.refund("s-1", refund(u64::MAX));
        assert_eq!(refused.unwrap_err(), LedgerError::RefundTooLarge);
    }

    #[test]
    fn only_an_approved_session_is_refunded() {
        for to in [
            SessionStatus::Pending,
            SessionStatus::Rejected,
            SessionStatus::Cancelled,
        ] {
            let mut ledger = opened(1_000);
            ledger.decide("s-1", to).unwrap();
            let refused = ledger.refund("s-1", refund(1));
            assert_eq!(refused.unwrap_err(), LedgerError::NotApproved, "{to:?}");
        }
        let refused = opened(1).refund("s-2", refund(1)).unwrap_err();
        assert_eq!(refused, LedgerError::Unknown);
    }

    #[test]
    fn a_decision_is_not_taken_back() {
        let mut ledger = opened(1_000);
        ledger.decide("s-1", SessionStatus::Rejected).unwrap();
        let back = ledger.decide("s-1", SessionStatus::Approved);
        assert_eq!(back.unwrap_err(), LedgerError::Transition);
        let mut ledger = opened(1_000);
        ledger.decide("s-1", SessionStatus::Approved).unwrap();
        ledger.refund("s-1", refund(1)).unwrap();
        for to in [SessionStatus::Cancelled, SessionStatus::Refunded] {
            let refused = ledger.decide("s-1", to);
            assert_eq!(refused.unwrap_err(), LedgerError::Transition, "{to:?}");
        }
    }

    #[test]
    fn sessions_are_bounded() {
        let mut ledger = Ledger::default();
        let new = |n: usize| NewSession {
            order_ref: format!("order-{n}"),
            amount: Money::from_minor(1),
            currency: "BYN".to_owned(),
            term: 1,
            shop: "shop".to_owned(),
            success_url: None,
            fail_url: None,
        };
        for n in 0..MAX_SESSIONS {
            ledger.create(&format!("s-{n}"), new(n)).unwrap();
        }
        assert_eq!(ledger.create("s", new(0)).unwrap_err(), LedgerError::Full);
    }
}
