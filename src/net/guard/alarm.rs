//! A deadline that costs next to nothing to move.
//!
//! Setting it only writes a time down. The runtime's timer is touched when somebody waits, and
//! moved only when it would fire too late, or has fired too early: a connection that is busy all
//! the time keeps one old timer entry instead of making one for each request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline, or none.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Option<Instant>,
    /// Made at the first wait and used again for every later one.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Rings `delay` after `now`. A time too far for the clock to express never comes.
    pub(super) fn set_after(&mut self, now: Instant, delay: Duration) {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        self.at = now.checked_add(delay.min(FAR));
    }

    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    pub(super) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the deadline has passed; without one, never. Wakes the task then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const STEP: Duration = Duration::from_secs(1);

    /// Waits for the alarm and says after how long it rang.
    async fn ring(alarm: &mut Alarm) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| alarm.poll(cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_its_last_deadline_however_it_was_moved() {
        let mut alarm = Alarm::default();
        for steps in [3, 5, 1, 4, 2] {
            // A wait that ends early leaves the timer armed for a deadline that no longer counts.
            alarm.set_after(Instant::now(), 6 * STEP);
            let early = tokio::time::timeout(STEP / 2, ring(&mut alarm)).await;
            assert!(early.is_err());
            alarm.set_after(Instant::now(), steps * STEP);
            assert_eq!(ring(&mut alarm).await, steps * STEP);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cleared_alarm_never_rings() {
        let mut alarm = Alarm::default();
        alarm.set_after(Instant::now(), STEP);
        assert!(alarm.is_set());
        alarm.clear();
        assert!(!alarm.is_set());
        let waited = tokio::time::timeout(100 * STEP, ring(&mut alarm)).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_beyond_the_clock_is_no_panic() {
        let mut alarm = Alarm::default();
        alarm.set_after(Instant::now(), Duration::MAX);
        let waited = tokio::time::timeout(STEP, ring(&mut alarm)).await;
        assert!(waited.is_err());
    }
}
