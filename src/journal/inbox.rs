//! The inbox: events of the bank, kept until the shop has them, one session's in order and one at a time.
//!
//! The head of a session is marked, not computed, so that a claim stays cheap behind any backlog; a unique index makes "one
//! delivery at a time" a constraint of the database. A claim is a state and a fencing token, and lasts as long as the process
//! that made it, which the journal's lock tells apart from the next: no clock can end it while its request is still
//! running. What an event means is `policy/status`'s, when it is tried again is decided by whoever calls.

mod by_hand;
mod judge;
pub mod keep;
pub(super) mod store;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use std::time::Duration;

use bytes::Bytes;

use super::error::JournalError;
use super::writer::Class;
use super::{Journal, Person, UnixMillis};
use crate::policy::operation::Digest;
use crate::policy::status::{Mark, Policy, Status};

/// A verified event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The callback's name in the configuration.
    pub source: String,
    /// The event's identity, as the bank gives it.
    pub event: String,
    /// Of the body: the same identity with another body is another event.
    pub body_hash: Digest,
    /// Groups the events of one order. Without one the event is a session of its own.
    pub session: Option<String>,
    /// What it says; `None` for a word that is not known.
    pub status: Option<Status>,
    /// Which key verified it.
    pub key_id: String,
    /// As the bank sent it.
    pub content_type: Option<String>,
    /// Byte for byte.
    pub body: Bytes,
}

/// What became of an event that the bank sent. Whatever it is, the bank may be told that it is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// It is on disk.
    New {
        /// Its place.
        id: EventId,
        /// How it is marked.
        mark: Mark,
        /// What is done with it.
        fate: Fate,
    },
    /// It was on disk already, as the latest of its session.
    Repeat(EventId),
    /// It was on disk already, and later ones of its session too: not delivered, but worth somebody's look.
    Repeated(EventId),
}

/// What is done with a new event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It goes to the shop in its turn.
    Queued,
    /// It waits for a person.
    Held,
    /// It is kept and not delivered.
    Superseded,
}

/// An event's place in the inbox.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(pub(super) i64);

impl EventId {
    /// Reads a number: from 1.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number by which people and the shop know it.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

/// The right to deliver one event: until it is settled, or until the process has ended.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which.
    pub id: EventId,
    /// How often it was claimed, this time included: the fencing token.
    pub attempt: i64,
    /// The event.
    pub event: Event,
    /// Whether its body named a session.
    pub session_known: bool,
    /// How it is marked.
    pub mark: Mark,
    /// When it came.
    pub received_at: UnixMillis,
    /// Since when the shop has been answering what is no acknowledgement.
    pub refused_since: Option<UnixMillis>,
}

/// How a delivery ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settle {
    /// The shop has it.
    Delivered,
    /// It has not.
    Retry {
        /// When it is tried again.
        at: UnixMillis,
        /// From when the shop is done with it: no event of its session is tried before, whatever wakes it.
        free: UnixMillis,
        /// The shop answered, and it was no acknowledgement.
        refused: bool,
        /// The next event of its session need not wait for it any longer.
        let_next: bool,
        /// Why, for people.
        error: String,
    },
    /// Nobody tries again but by hand.
    Dead {
        /// From when the shop is done with it.
        free: UnixMillis,
        /// Why.
        error: String,
    },
}

impl Journal {
    /// Puts an event on disk. When this returns, the bank may be told so.
    ///
    /// # Errors
    /// [`JournalError`]: it may not; the bank must send it again.
    pub async fn accept(
        &self,
        event: Event,
        policy: Policy,
        now: UnixMillis,
    ) -> Result<Accepted, JournalError> {
        let bytes = event.body.len();
        let (accepted, _) = self
            .call("accept", Class::Starts, bytes, None, move |connection| {
                store::accept(connection, &event, policy, now)
            })
            .await?;
        Ok(accepted)
    }

    /// Claims the next due event. Nobody else gets it before it is settled, except the next process.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn claim(
        &self,
        source: &str,
        policy: Policy,
        now: UnixMillis,
    ) -> Result<Option<Claim>, JournalError> {
        let source = source.to_owned();
        let (claim, _) = self
            .call("claim", Class::Settles, 64, None, move |connection| {
                store::claim(connection, &source, policy, now)
            })
            .await?;
        Ok(claim)
    }

    /// When the next event of a source is due; `None` while there is none. Reads only.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn next_due(&self, source: &str) -> Result<Option<UnixMillis>, JournalError> {
        let source = source.to_owned();
        let (next, _) = self
            .call("look", Class::Settles, 64, None, move |connection| {
                store::next_due(connection, &source)
            })
            .await?;
        Ok(next)
    }

    /// Nothing of a source waits for a time further off than `longest`; after the clock went back by `step`, all of it is
    /// due that much earlier.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn pull_in(
        &self,
        source: &str,
        now: UnixMillis,
        step: Duration,
        longest: Duration,
    ) -> Result<usize, JournalError> {
        let source = source.to_owned();
        let (moved, _) = self
            .call("pull-in", Class::Settles, 64, None, move |connection| {
                store::pull_in(connection, &source, now, step, longest)
            })
            .await?;
        Ok(moved)
    }

    /// Ends a claim, and lets the session's next event up where this one holds it back no longer.
    ///
    /// # Errors
    /// [`JournalError::Stale`] when it is settled already.
    pub async fn settle(
        &self,
        claim: &Claim,
        settle: Settle,
        policy: Policy,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let (id, attempt) = (claim.id, claim.attempt);
        self.call("settle", Class::Settles, 64, None, move |connection| {
            store::settle(connection, id, attempt, &settle, policy, now)
        })
        .await?
        .0
    }

    /// Tries a dead event again, or a waiting one at once.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], also for an event that is in no such state.
    pub async fn retry_event(
        &self,
        id: EventId,
        person: Person,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let done = self
            .call("retry", Class::Settles, 64, None, move |connection| {
                by_hand::retry(connection, id, &person, now)
            })
            .await?
            .0;
        self.0
            .by_hand
            .send_modify(|count| *count = count.wrapping_add(1));
        done
    }

    /// Lets a held event go to the shop, marked.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], also for an event that is not held.
    pub async fn release_event(
        &self,
        id: EventId,
        person: Person,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let done = self
            .call("let-go", Class::Settles, 64, None, move |connection| {
                by_hand::release(connection, id, &person, now)
            })
            .await?
            .0;
        self.0
            .by_hand
            .send_modify(|count| *count = count.wrapping_add(1));
        done
    }

    /// Gives up on an event that the shop does not have.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], also for an event that is being delivered or was.
    pub async fn drop_event(
        &self,
        id: EventId,
        person: Person,
        now: UnixMillis,
    ) -> Result<(), JournalError> {
        let done = self
            .call("drop", Class::Settles, 64, None, move |connection| {
                by_hand::give_up(connection, id, &person, now)
            })
            .await?
            .0;
        self.0
            .by_hand
            .send_modify(|count| *count = count.wrapping_add(1));
        done
    }
}
