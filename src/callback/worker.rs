//! Hands stored events to the shop: claims, delivers, settles, and sleeps until the next one is due.
//!
//! One loop for each callback. It knows the journal's inbox and the shop, and asks `policy/schedule` what comes after a
//! failure; it never sees a bank.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::record::Counts;
use crate::app::{Delivery, NotDelivered, Shop};
use crate::journal::inbox::{Claim, Settle};
use crate::journal::{Journal, JournalError};
use crate::net::clock::{monotonic, unix_millis};
use crate::policy::operation::UnixMillis;
use crate::policy::schedule::{Failure, Next, Schedule};
use crate::policy::status::{Policy, Status};
use crate::policy::webhook;

/// The longest that it sleeps, and so how long a clock that was set may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A clock that is slewed moves less than this between two looks; one that is set, more.
const STEP: Duration = Duration::from_secs(1);
/// How long it waits for a journal that takes nothing.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);

/// What a reload may replace.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where to.
    pub shop: Shop,
    /// When again.
    pub schedule: Schedule,
    /// What of contradictions.
    pub policy: Policy,
}

/// One callback's loop.
#[derive(Debug)]
pub struct Worker {
    /// The callback's name.
    pub name: Arc<str>,
    /// Where events are kept.
    pub journal: Journal,
    /// The terms in force.
    pub terms: watch::Receiver<Arc<Terms>>,
    /// Deliveries at a time.
    pub places: Arc<Semaphore>,
    /// Told of each new event.
    pub wake: Arc<Notify>,
    /// How attempts ended.
    pub counts: Arc<Counts>,
    /// Told to stop.
    pub stop: watch::Receiver<bool>,
}

impl Worker {
    /// Runs until told to stop; deliveries that run then go on to their end, and hold their places.
    pub async fn run(mut self) {
        let mut by_hand = self.journal.changed_by_hand();
        let mut clock = Clock::start();
        // What the last process planned by a clock that was wrong.
        self.pull_in(Duration::ZERO).await;
        loop {
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place,
                () = stopped(&mut self.stop) => return,
            };
            let Ok(place) = place else {
                return;
            };
            let terms = Arc::clone(&self.terms.borrow());
            if let Some(step) = clock.set_back() {
                tracing::warn!(
                    callback = &*self.name,
                    ?step,
                    "the clock was set back; deliveries are moved with it"
                );
                self.pull_in(step).await;
            }
            let now = unix_millis();
            match self.journal.claim(&self.name, terms.policy, now).await {
                Ok(Some(claim)) => {
                    let (journal, wake) = (self.journal.clone(), Arc::clone(&self.wake));
                    let counts = Arc::clone(&self.counts);
                    tokio::spawn(async move {
                        attempt(&terms, &journal, &claim, &counts).await;
                        drop(place);
                        wake.notify_one();
                    });
                }
                Ok(None) => {
                    drop(place);
                    let pause = self.until_due().await;
                    let woken = self.wake.notified();
                    tokio::select! {
                        _ = timeout(pause, woken) => {}
                        _ = by_hand.changed() => {}
                        () = stopped(&mut self.stop) => return,
                    }
                }
                Err(JournalError::Failed) => return,
                Err(error) => {
                    drop(place);
                    tracing::debug!(callback = &*self.name, %error, "the journal gives no event to deliver");
                    tokio::select! {
                        () = sleep(JOURNAL_PAUSE) => {}
                        () = stopped(&mut self.stop) => return,
                    }
                }
            }
        }
    }

    async fn pull_in(&self, step: Duration) {
        let longest = self.terms.borrow().schedule.longest();
        let moved = self
            .journal
            .pull_in(&self.name, unix_millis(), step, longest)
            .await;
        if let Err(error) = moved {
            tracing::warn!(callback = &*self.name, %error, "deliveries may wait for a time that the clock has left");
        }
    }

    async fn until_due(&self) -> Duration {
        let next = self.journal.next_due(&self.name).await.ok().flatten();
        next.map_or(LOOK_AGAIN, |next| {
            let left = next.0.saturating_sub(unix_millis().0);
            Duration::from_millis(u64::try_from(left.saturating_add(1)).unwrap_or(0))
                .min(LOOK_AGAIN)
        })
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so: the process ends.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One attempt, from the signature to the word on disk.
async fn attempt(terms: &Terms, journal: &Journal, claim: &Claim, counts: &Counts) {
    let delivery = delivery(claim, unix_millis());
    let (shop, sent) = (terms.shop.clone(), delivery.clone());
    // On a task of its own: should it panic, its event does not stay claimed for ever.
    let deliver = tokio::spawn(async move { shop.deliver(&sent).await });
    let result = deliver.await.unwrap_or_else(|lost| {
        Err(NotDelivered {
            failure: Failure::TimedOut,
            cause: format!("a mistake of ours: {lost}"),
        })
    });
    let now = unix_millis();
    let settle = match &result {
        Ok(()) => Settle::Delivered,
        Err(failed) => after(&terms.schedule, claim, failed, now),
    };
    tell(claim, &delivery, &result, &settle);
    let ended = match settle {
        Settle::Delivered => &counts.delivered,
        Settle::Retry { .. } => &counts.retried,
        Settle::Dead { .. } => &counts.dead,
    };
    ended.fetch_add(1, Ordering::Relaxed);
    // Until it is written down: an acknowledged event that is forgotten would be delivered once more.
    loop {
        match journal
            .settle(claim, settle.clone(), terms.policy, now)
            .await
        {
            Ok(()) => return,
            Err(error @ (JournalError::Failed | JournalError::Stale)) => {
                tracing::warn!(delivery = delivery.id, %error, "how a delivery ended was not written");
                return;
            }
            Err(error) => {
                tracing::warn!(delivery = delivery.id, %error, "how a delivery ended is not written yet; trying again");
                sleep(JOURNAL_PAUSE).await;
            }
        }
    }
}

/// Notices when the wall clock is set back.
struct Clock {
    /// The wall clock beside one that nobody sets, at the last look.
    offset: i64,
}

impl Clock {
    fn start() -> Self {
        Self { offset: offset() }
    }

    fn set_back(&mut self) -> Option<Duration> {
        let (before, now) = (self.offset, offset());
        self.offset = now;
        let step = Duration::from_millis(u64::try_from(before.saturating_sub(now)).ok()?);
        (step > STEP).then_some(step)
    }
}

fn offset() -> i64 {
    let monotonic = i64::try_from(monotonic().as_millis()).unwrap_or(i64::MAX);
    unix_millis().0.saturating_sub(monotonic)
}

fn after(schedule: &Schedule, claim: &Claim, failed: &NotDelivered, now: UnixMillis) -> Settle {
    let attempt = u32::try_from(claim.attempt).unwrap_or(u32::MAX);
    let error = failed.cause.clone();
    let busy = match failed.failure {
        Failure::TimedOut => schedule.after_timeout,
        Failure::Answered | Failure::Refused => Duration::ZERO,
    };
    let busy = i64::try_from(busy.as_millis()).unwrap_or(i64::MAX);
    let free = UnixMillis(now.0.saturating_add(busy));
    let Next::Retry { at } = schedule.after(attempt, failed.failure, claim.received_at, now) else {
        return Settle::Dead { free, error };
    };
    let refused = failed.failure == Failure::Answered;
    let refused_since = claim.refused_since.or_else(|| refused.then_some(now));
    let approved = claim.event.status == Some(Status::Approved);
    Settle::Retry {
        at,
        free,
        refused,
        let_next: !schedule.holds_back(refused_since, approved, now),
        error,
    }
}

/// The delivery's name is made of what the event is, so that it stays the same over attempts, restarts and restored
/// journals: the shop tells repeats by it.
fn delivery(claim: &Claim, now: UnixMillis) -> Delivery {
    let event = &claim.event;
    Delivery {
        id: webhook::delivery_id(&event.source, &event.event, &event.body_hash),
        timestamp: now.0.div_euclid(1_000),
        callback: event.source.clone(),
        key_id: event.key_id.clone(),
        mark: claim.mark,
        session_known: claim.session_known,
        content_type: event.content_type.clone(),
        body: event.body.clone(),
    }
}

fn tell(claim: &Claim, delivery: &Delivery, result: &Result<(), NotDelivered>, settle: &Settle) {
    let (callback, id, attempt) = (&*claim.event.source, &*delivery.id, claim.attempt);
    match (result, settle) {
        (Ok(()), _) => {
            tracing::info!(callback, delivery = id, attempt, "delivered");
        }
        (Err(failed), Settle::Dead { .. }) => {
            tracing::error!(
                callback,
                delivery = id,
                attempt,
                cause = failed.cause,
                "an event of the bank was given up: see `priorgate callbacks list --state dead`"
            );
        }
        (Err(failed), _) => {
            tracing::warn!(
                callback,
                delivery = id,
                attempt,
                cause = failed.cause,
                "not delivered; it is tried again"
            );
        }
    }
}
