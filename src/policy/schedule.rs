//! When a delivery is tried again, and when it ends.

use std::time::Duration;

use super::operation::UnixMillis;

/// After a time-out PHP may still be at it: by default no other attempt before this.
pub const AFTER_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration's part (`deliver`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// Pauses between attempts, the last one repeated. At least one.
    pub retry: Vec<Duration>,
    /// How long the head of a session holds the next event back, from its first answer that was no acknowledgement.
    pub max_head_wait: Duration,
    /// How long PHP may still be at it after a time-out: nothing of the session is tried before.
    pub after_timeout: Duration,
    /// When somebody is told.
    pub alarm_after: Duration,
    /// When it ends.
    pub expire_after: Duration,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// PHP answered something that is no acknowledgement.
    Answered,
    /// Nobody took it: no connection, or a web server with nothing behind it.
    Refused,
    /// No answer: the shop may have acted, or may be at it still.
    TimedOut,
}

/// What comes after a failed attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Next {
    /// Another attempt.
    Retry {
        /// When.
        at: UnixMillis,
    },
    /// None any more: kept, listed, retried by hand.
    Dead,
}

impl Schedule {
    /// After the `attempt`-th attempt (from 1) of an event that came at `received`.
    pub fn after(
        &self,
        attempt: u32,
        failure: Failure,
        received: UnixMillis,
        now: UnixMillis,
    ) -> Next {
        let age = elapsed(received, now);
        if age >= self.expire_after {
            return Next::Dead;
        }
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let pause = self
            .retry
            .get(index)
            .or_else(|| self.retry.last())
            .copied()
            .unwrap_or(AFTER_TIMEOUT);
        let pause = match failure {
            Failure::TimedOut => pause.max(self.after_timeout),
            Failure::Answered | Failure::Refused => pause,
        };
        // Not beyond the end: the last attempt is made when it comes.
        let pause = pause.min(self.expire_after.saturating_sub(age));
        Next::Retry {
            at: later(now, pause),
        }
    }

    /// No attempt is planned further off than this.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let pauses = self.retry.iter().copied().chain([self.after_timeout]);
        pauses.max().unwrap_or(AFTER_TIMEOUT)
    }

    /// Whether a head that the shop has been refusing since then still holds the next event of its session back.
    /// `APPROVED` always does: it is never overtaken.
    #[must_use]
    pub fn holds_back(
        &self,
        refused_since: Option<UnixMillis>,
        approved: bool,
        now: UnixMillis,
    ) -> bool {
        approved || refused_since.is_none_or(|since| elapsed(since, now) < self.max_head_wait)
    }
}

fn elapsed(since: UnixMillis, now: UnixMillis) -> Duration {
    // A clock that went back has let no time pass.
    Duration::from_millis(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
}

fn later(now: UnixMillis, pause: Duration) -> UnixMillis {
    let millis = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(now.0.saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: UnixMillis = UnixMillis(1_000_000);

    fn schedule() -> Schedule {
        Schedule {
            retry: [5, 30, 120].map(Duration::from_secs).to_vec(),
            max_head_wait: Duration::from_secs(120),
            after_timeout: AFTER_TIMEOUT,
            alarm_after: Duration::from_secs(600),
            expire_after: Duration::from_secs(3_600),
        }
    }

    fn at(seconds: u64) -> UnixMillis {
        later(RECEIVED, Duration::from_secs(seconds))
    }

    fn next(attempt: u32, failure: Failure, seconds: u64) -> Next {
        schedule().after(attempt, failure, RECEIVED, at(seconds))
    }

    #[test]
    fn pauses_grow_as_configured_and_the_last_one_repeats() {
        for (attempt, pause) in [(1, 5), (2, 30), (3, 120), (4, 120), (u32::MAX, 120)] {
            for failure in [Failure::Refused, Failure::Answered] {
                let expected = Next::Retry { at: at(10 + pause) };
                assert_eq!(next(attempt, failure, 10), expected, "{attempt}");
            }
        }
    }

    #[test]
    fn after_a_time_out_php_gets_its_minute() {
        let retry = |at| Next::Retry { at };
        assert_eq!(next(1, Failure::TimedOut, 0), retry(at(60)));
        assert_eq!(next(3, Failure::TimedOut, 0), retry(at(120)));
    }

    #[test]
    fn in_the_end_it_is_dead() {
        let last = Next::Retry { at: at(3_600) };
        assert_eq!(next(9, Failure::Refused, 3_590), last);
        assert_eq!(next(9, Failure::Refused, 3_600), Next::Dead);
    }

    #[test]
    fn a_head_holds_back_what_follows_until_the_shop_has_refused_it_long_enough() {
        let schedule = schedule();
        assert!(
            schedule.holds_back(None, false, at(100_000)),
            "never refused, only unreachable"
        );
        assert!(schedule.holds_back(Some(at(0)), false, at(119)));
        assert!(!schedule.holds_back(Some(at(0)), false, at(120)));
        assert!(
            schedule.holds_back(Some(at(0)), true, at(100_000)),
            "an approval is never overtaken"
        );
    }

    #[test]
    fn nothing_is_planned_further_off_than_the_longest_pause() {
        let longest = schedule().longest();
        for failure in [Failure::Answered, Failure::Refused, Failure::TimedOut] {
            for attempt in 1..9 {
                let Next::Retry { at: then } = next(attempt, failure, 0) else {
                    panic!("dead");
                };
                assert!(then <= at(longest.as_secs()), "{attempt}");
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_ends_nothing() {
        let next = schedule().after(1, Failure::Refused, RECEIVED, UnixMillis(0));
        assert!(matches!(next, Next::Retry { .. }));
    }
}
