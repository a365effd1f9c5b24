//! Which callback is sent next, when again, and when not any more.
//!
//! Owns the order (one session's callbacks one at a time, in the order of what happened, unless a
//! fault says otherwise; sessions do not wait for each other), the back-off and the bounds. A pure
//! state machine: the time comes as an argument. Knows nothing of sockets or signatures.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::CallbackError;
use super::fault::CallbackFault;
use super::letter::Letter;

/// How many callbacks may wait at once. A bank's queue ends too.
const MAX_WAITING: usize = 10_000;
/// How many are remembered, those that wait included.
const MAX_KEPT: usize = 20_000;

/// When a callback without a 2xx is sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// The first pause; each next one is twice as long.
    pub(super) base: Duration,
    /// No pause is longer.
    pub(super) longest: Duration,
    /// After so many attempts the bank gives up.
    pub(super) attempts: u32,
}

impl Retry {
    /// The pause after the attempt of this number, from 1.
    fn pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.longest)
    }
}

/// Where a callback is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallbackState {
    /// Waits for its turn, or for the next attempt.
    Queued,
    /// Waits for the session's next callback, which it is to follow.
    Held,
    /// An attempt is under way.
    Sending,
    /// Was answered with a 2xx.
    Accepted,
    /// Was attempted as often as the bank does.
    GivenUp,
}

impl CallbackState {
    /// Will nothing more be sent?
    #[must_use]
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Accepted | Self::GivenUp)
    }
}

/// A callback and what became of it so far.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CallbackEvent {
    /// Counted from 1, in the order of what happened.
    pub number: u64,
    /// The bank's name for it.
    pub event_id: String,
    /// Whose it is.
    pub session_id: String,
    /// What it says.
    pub status: String,
    /// What is wrong with it.
    pub fault: Option<String>,
    /// Where it is.
    pub state: CallbackState,
    /// Requests made, each of a doubled one counted.
    pub attempts: u32,
    /// Requests answered with a 2xx.
    pub accepted: u32,
    /// The status of the last answer; none as long as none came.
    pub last_answer: Option<u16>,
    /// The body that is sent, byte for byte.
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// A callback to be queued.
pub(super) struct New {
    pub(super) event_id: String,
    pub(super) session_id: String,
    pub(super) status: String,
    pub(super) fault: Option<CallbackFault>,
    pub(super) letter: Letter,
    /// After so many attempts no more; `None` is the bank's custom.
    pub(super) attempts: Option<u32>,
}

/// What is to be sent now.
pub(super) struct Parcel {
    pub(super) number: u64,
    pub(super) letter: Arc<Letter>,
    /// How many times at once.
    pub(super) copies: u32,
    /// How long its body takes.
    pub(super) slow: Option<Duration>,
}

struct Entry {
    event: CallbackEvent,
    fault: Option<CallbackFault>,
    letter: Arc<Letter>,
    attempts: u32,
}

/// All callbacks.
pub(super) struct Queue {
    retry: Retry,
    entries: BTreeMap<u64, Entry>,
    /// What is not settled, per session, in the order of sending.
    sessions: HashMap<String, VecDeque<u64>>,
    /// The heads of sessions that are neither held nor under way, by the time of their attempt.
    due: BTreeSet<(Instant, u64)>,
    waiting: usize,
    made: u64,
}

impl Queue {
    pub(super) fn new(retry: Retry) -> Self {
        Self {
            retry,
            entries: BTreeMap::new(),
            sessions: HashMap::new(),
            due: BTreeSet::new(),
            waiting: 0,
            made: 0,
        }
    }

    /// Does a held callback of this session wait for the next one?
    pub(super) fn awaited(&self, session_id: &str) -> bool {
        self.held(session_id).is_some()
    }

    /// Adds a callback.
    pub(super) fn push(&mut self, new: New, now: Instant) -> Result<CallbackEvent, CallbackError> {
        if self.waiting >= MAX_WAITING {
            return Err(CallbackError::Full);
        }
        let held = self.held(&new.session_id);
        let holds = new.fault == Some(CallbackFault::ReOrdered);
        if held.is_some() && holds {
            return Err(CallbackError::Held);
        }
        self.forget();
        self.made = self.made.saturating_add(1);
        self.waiting = self.waiting.saturating_add(1);
        let number = self.made;
        let state = if holds {
            CallbackState::Held
        } else {
            CallbackState::Queued
        };
        let event = CallbackEvent {
            number,
            event_id: new.event_id,
            session_id: new.session_id,
            status: new.status,
            fault: new.fault.map(|fault| fault.to_string()),
            state,
            attempts: 0,
            accepted: 0,
            last_answer: None,
            body: new.letter.body.clone(),
        };
        let queue = self.sessions.entry(event.session_id.clone()).or_default();
        match held {
            // A held one is the last of its session.
            Some(_) => queue.insert(queue.len().saturating_sub(1), number),
            None => queue.push_back(number),
        }
        let first = queue.front() == Some(&number);
        let entry = Entry {
            event: event.clone(),
            fault: new.fault,
            letter: Arc::new(new.letter),
            attempts: new.attempts.unwrap_or(self.retry.attempts).max(1),
        };
        self.entries.insert(number, entry);
        if let Some(entry) = held.and_then(|held| self.entries.get_mut(&held)) {
            entry.event.state = CallbackState::Queued;
        }
        if first && !holds {
            self.due.insert((now, number));
        }
        Ok(event)
    }

    /// The next callback whose time has come. It is under way until it is [settled](Self::settle).
    pub(super) fn take(&mut self, now: Instant) -> Option<Parcel> {
        let (at, number) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let entry = self.entries.get_mut(&number)?;
        entry.event.state = CallbackState::Sending;
        let (copies, slow) = match entry.fault {
            Some(CallbackFault::Doubled) if entry.event.attempts == 0 => (2, None),
            Some(CallbackFault::SlowBody(time)) if entry.event.attempts == 0 => (1, Some(time)),
            _ => (1, None),
        };
        Some(Parcel {
            number,
            letter: Arc::clone(&entry.letter),
            copies,
            slow,
        })
    }

    /// When the next attempt is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What came of an attempt: a status for each copy that was answered. Gives back the callback
    /// as it is now.
    pub(super) fn settle(
        &mut self,
        number: u64,
        answers: &[Option<u16>],
        now: Instant,
    ) -> Option<CallbackEvent> {
        let entry = self.entries.get_mut(&number)?;
        let event = &mut entry.event;
        let good = |status: &u16| (200..300).contains(status);
        let accepted = answers.iter().flatten().filter(|status| good(status));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        event.attempts = event.attempts.saturating_add(count(answers.len()));
        event.accepted = event.accepted.saturating_add(count(accepted.count()));
        event.last_answer = answers.iter().flatten().next_back().copied();
        event.state = if event.accepted > 0 {
            CallbackState::Accepted
        } else if event.attempts >= entry.attempts {
            CallbackState::GivenUp
        } else {
            CallbackState::Queued
        };
        let event = event.clone();
        if event.state.is_settled() {
            self.waiting = self.waiting.saturating_sub(1);
            self.follow(&event.session_id, now);
        } else {
            let pause = self.retry.pause(event.attempts);
            self.due.insert((now + pause, number));
        }
        Some(event)
    }

    /// Lets go what waits for a next callback that may never come.
    pub(super) fn release(&mut self, now: Instant) {
        let mut heads = Vec::new();
        for entry in self.entries.values_mut() {
            if entry.event.state == CallbackState::Held {
                entry.event.state = CallbackState::Queued;
                let session = self.sessions.get(&entry.event.session_id);
                if session.and_then(VecDeque::front) == Some(&entry.event.number) {
                    heads.push((now, entry.event.number));
                }
            }
        }
        self.due.extend(heads);
    }

    /// A copy of everything that is remembered, oldest first.
    pub(super) fn events(&self) -> Vec<CallbackEvent> {
        let entries = self.entries.values();
        entries.map(|entry| entry.event.clone()).collect()
    }

    /// The held callback of a session; there is one at most, the last of its queue.
    fn held(&self, session_id: &str) -> Option<u64> {
        let last = self.sessions.get(session_id)?.back()?;
        let entry = self.entries.get(last)?;
        (entry.event.state == CallbackState::Held).then_some(*last)
    }

    /// The head of a session is settled: the next one's turn.
    fn follow(&mut self, session_id: &str, now: Instant) {
        let Some(queue) = self.sessions.get_mut(session_id) else {
            return;
        };
        queue.pop_front();
        let Some(next) = queue.front().copied() else {
            self.sessions.remove(session_id);
            return;
        };
        let state = self.entries.get(&next).map(|entry| entry.event.state);
        if state == Some(CallbackState::Queued) {
            self.due.insert((now, next));
        }
    }

    /// Makes room for one more by forgetting the oldest settled one. There is one, because fewer
    /// may wait than are kept.
    fn forget(&mut self) {
        if self.entries.len() < MAX_KEPT {
            return;
        }
        let mut entries = self.entries.iter();
        let oldest = entries.find(|(_, entry)| entry.event.state.is_settled());
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.entries.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        base: Duration::from_secs(1),
        longest: Duration::from_secs(60),
        attempts: 20,
    };

    fn new(session_id: &str, fault: Option<CallbackFault>) -> New {
        New {
            event_id: "e".to_owned(),
            session_id: session_id.to_owned(),
            status: "APPROVED".to_owned(),
            fault,
            letter: Letter {
                headers: Vec::new(),
                body: Vec::new(),
            },
            attempts: None,
        }
    }

    /// Takes the next one, and answers it with 200.
    fn sent(queue: &mut Queue, now: Instant) -> Option<u64> {
        let number = queue.take(now)?.number;
        queue.settle(number, &[Some(200)], now);
        Some(number)
    }

    #[test]
    fn the_pauses_double_up_to_the_longest() {
        let seconds = [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs);
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 99].map(|n| RETRY.pause(n)), seconds);
    }

    #[test]
    fn a_session_is_in_order_one_at_a_time_and_holds_up_no_other() {
        let mut queue = Queue::new(RETRY);
        let now = Instant::now();
        for session in ["a", "a", "b"] {
            queue.push(new(session, None), now).unwrap();
        }
        assert_eq!(queue.take(now).unwrap().number, 1);
        assert_eq!(queue.take(now).unwrap().number, 3);
        assert!(queue.take(now).is_none(), "the first is still under way");
        let failed = queue.settle(1, &[None], now).unwrap();
        assert_eq!(failed.state, CallbackState::Queued);
        assert!(queue.take(now).is_none(), "the second does not overtake");
        assert_eq!(queue.next(), Some(now + RETRY.base));
        let now = now + RETRY.base;
        assert_eq!(sent(&mut queue, now), Some(1));
        assert_eq!(sent(&mut queue, now), Some(2));
        assert_eq!(queue.events()[0].attempts, 2);
    }

    #[test]
    fn a_callback_is_given_up_after_its_attempts_and_the_next_one_follows() {
        let mut queue = Queue::new(RETRY);
        let mut now = Instant::now();
        queue.push(new("a", None), now).unwrap();
        let once = New {
            attempts: Some(1),
            ..new("a", None)
        };
        queue.push(once, now).unwrap();
        for _ in 0..RETRY.attempts {
            now += RETRY.longest;
            assert_eq!(queue.take(now).unwrap().number, 1);
            queue.settle(1, &[Some(503)], now);
        }
        assert_eq!(queue.take(now).unwrap().number, 2);
        queue.settle(2, &[Some(403)], now);
        let events = queue.events();
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.state, event.attempts, event.last_answer))
            .collect();
        let given_up = CallbackState::GivenUp;
        assert_eq!(seen, [(given_up, 20, Some(503)), (given_up, 1, Some(403))]);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_re_ordered_callback_waits_for_the_next_one_and_follows_it() {
        let mut queue = Queue::new(RETRY);
        let now = Instant::now();
        let held = || new("a", Some(CallbackFault::ReOrdered));
        queue.push(held(), now).unwrap();
        assert!(queue.awaited("a") && !queue.awaited("b"));
        assert!(sent(&mut queue, now).is_none());
        assert_eq!(queue.push(held(), now), Err(CallbackError::Held));
        queue.push(new("a", None), now).unwrap();
        assert_eq!(sent(&mut queue, now), Some(2));
        assert_eq!(sent(&mut queue, now), Some(1));
        queue.push(new("a", None), now).unwrap();
        queue.push(held(), now).unwrap();
        assert_eq!(sent(&mut queue, now), Some(3));
        assert!(sent(&mut queue, now).is_none());
        queue.release(now);
        assert_eq!(sent(&mut queue, now), Some(4), "nothing waits for ever");
    }

    #[test]
    fn only_the_first_attempt_is_doubled_or_slow() {
        let mut queue = Queue::new(RETRY);
        let now = Instant::now();
        let slow = Duration::from_secs(3);
        let faults = [CallbackFault::Doubled, CallbackFault::SlowBody(slow)];
        for (fault, seen) in faults.into_iter().zip([(2, None), (1, Some(slow))]) {
            let pushed = queue.push(new("a", Some(fault)), now).unwrap();
            let parcel = queue.take(now).unwrap();
            assert_eq!((parcel.copies, parcel.slow), seen);
            queue.settle(pushed.number, &[None], now);
            let later = queue.take(now + RETRY.longest).unwrap();
            assert_eq!((later.copies, later.slow), (1, None));
            queue.settle(pushed.number, &[Some(204)], now);
        }
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded() {
        let mut queue = Queue::new(RETRY);
        let now = Instant::now();
        queue
            .push(new("held", Some(CallbackFault::ReOrdered)), now)
            .unwrap();
        for _ in 0..MAX_KEPT {
            queue.push(new("a", None), now).unwrap();
            sent(&mut queue, now).unwrap();
        }
        let events = queue.events();
        assert_eq!((events.len(), events[0].number), (MAX_KEPT, 1));
        for _ in 1..MAX_WAITING {
            queue.push(new("a", None), now).unwrap();
        }
        assert_eq!(queue.push(new("a", None), now), Err(CallbackError::Full));
    }
}
