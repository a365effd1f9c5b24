//! How often a key may sign: a token bucket as a value.
//!
//! Time comes in and an answer goes out. Nothing sleeps here: one bank's burst must not stall another's handshake.

use std::time::Duration;

/// How often a key may sign. The defaults of `sign_rate` stand in the configuration's table of bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// So many at once after a pause.
    pub burst: u32,
    /// So many a second in the long run. Never 0.
    pub per_second: u32,
}

/// The bucket, kept as the moment at which it would be full again: a single number cannot disagree with itself.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// One token's time.
    token: Duration,
    /// How far ahead of now `full_at` may be.
    depth: Duration,
    full_at: Duration,
}

/// Whether a key may sign now.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// It may, and the token is spent.
    Allowed,
    /// After so long it might.
    Wait(Duration),
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let token = Duration::from_secs(1) / rate.per_second.max(1);
        Self {
            token,
            depth: token.saturating_mul(rate.burst.max(1)),
            full_at: Duration::ZERO,
        }
    }

    /// Nothing is left of it: whoever follows another does not know how much that one gave away.
    pub fn empty(&mut self, now: Duration) {
        self.full_at = now.saturating_add(self.depth);
    }

    /// Takes a token. `now` is of any clock that never runs backwards.
    pub fn take(&mut self, now: Duration) -> Pace {
        let full_at = self.full_at.max(now).saturating_add(self.token);
        let latest = now.saturating_add(self.depth);
        match full_at.checked_sub(latest) {
            Some(early) if !early.is_zero() => Pace::Wait(early),
            Some(_) | None => {
                self.full_at = full_at;
                Pace::Allowed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_pace_is_kept() {
        let mut bucket = Bucket::new(Rate {
            burst: 3,
            per_second: 10,
        });
        let at = Duration::from_millis;
        for _ in 0..3 {
            assert_eq!(bucket.take(at(5_000)), Pace::Allowed);
        }
        assert_eq!(bucket.take(at(5_000)), Pace::Wait(at(100)));
        assert_eq!(bucket.take(at(5_099)), Pace::Wait(at(1)));
        assert_eq!(bucket.take(at(5_100)), Pace::Allowed);
        assert_eq!(bucket.take(at(5_100)), Pace::Wait(at(100)));
        // A long pause fills it, and no more than that.
        for _ in 0..3 {
            assert_eq!(bucket.take(at(900_000)), Pace::Allowed);
        }
        assert_eq!(bucket.take(at(900_000)), Pace::Wait(at(100)));
    }

    #[test]
    fn an_emptied_bucket_gives_a_token_after_a_tokens_time() {
        let mut bucket = Bucket::new(Rate {
            burst: 3,
            per_second: 10,
        });
        let at = Duration::from_millis;
        bucket.empty(at(5_000));
        assert_eq!(bucket.take(at(5_000)), Pace::Wait(at(100)));
        assert_eq!(bucket.take(at(5_100)), Pace::Allowed);
        assert_eq!(bucket.take(at(5_100)), Pace::Wait(at(100)));
    }

    proptest! {
        #[test]
        fn no_schedule_gets_more_than_burst_and_rate(
            burst in 1_u32..20, per_second in 1_u32..100, steps in proptest::collection::vec(0_u64..50, 1..300),
        ) {
            let mut bucket = Bucket::new(Rate { burst, per_second });
            let (mut now, mut allowed) = (0_u64, 0_u64);
            for step in steps {
                now += step;
                if bucket.take(Duration::from_millis(now)) == Pace::Allowed {
                    allowed += 1;
                }
            }
            // One more for the truncated nanoseconds of a token.
            assert!(allowed <= u64::from(burst) + now * u64::from(per_second) / 1000 + 1);
        }

        #[test]
        fn whoever_waits_as_told_is_let_in(burst in any::<u32>(), per_second in any::<u32>(), start in any::<u32>()) {
            let mut bucket = Bucket::new(Rate { burst: burst % 5, per_second });
            let mut now = Duration::from_millis(u64::from(start));
            for _ in 0..20 {
                if let Pace::Wait(more) = bucket.take(now) {
                    now += more;
                    assert_eq!(bucket.take(now), Pace::Allowed);
                }
            }
        }
    }
}
