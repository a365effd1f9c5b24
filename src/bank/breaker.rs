//! The circuit breaker: a dead bank must not hold every PHP worker for `timeouts.connect`.

use std::time::Duration;

use tokio::time::Instant;

/// Counts failed connects in a row; after `failures` of them the next ones fail at once for `cooldown`, then one probe
/// goes through.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    cooldown: Duration,
    failed: u32,
    open_until: Option<Instant>,
    probing: bool,
}

/// What the breaker says before a connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Permission {
    /// Dial; tell [`Breaker::record`] how it went.
    Dial,
    /// Do not: the bank was unreachable just now.
    Refuse,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(failures: u32, cooldown: Duration) -> Self {
        Self {
            failures,
            cooldown,
            failed: 0,
            open_until: None,
            probing: false,
        }
    }

    /// Asks before a connect.
    pub fn ask(&mut self, now: Instant) -> Permission {
        match self.open_until {
            None => Permission::Dial,
            Some(until) if now < until || self.probing => Permission::Refuse,
            Some(_) => {
                self.probing = true;
                Permission::Dial
            }
        }
    }

    /// Tells how a permitted connect went.
    pub fn record(&mut self, connected: bool, now: Instant) {
        self.probing = false;
        if connected {
            self.failed = 0;
            self.open_until = None;
            return;
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed >= self.failures {
            self.open_until = now.checked_add(self.cooldown);
        }
    }

    /// A permitted connect was given up without a result (its caller's deadline passed first).
    pub fn abandon(&mut self) {
        self.probing = false;
    }

    /// `closed`, `open` or `probing`, for the status.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.open_until, self.probing) {
            (None, _) => "closed",
            (Some(_), true) => "probing",
            (Some(_), false) => "open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let mut breaker = Breaker::new(3, Duration::from_secs(2));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(breaker.ask(start), Permission::Dial);
            breaker.record(false, start);
        }
        assert_eq!(breaker.ask(start), Permission::Refuse);
        assert_eq!(breaker.state(), "open");
        let later = start + Duration::from_secs(2);
        assert_eq!(breaker.ask(later), Permission::Dial);
        assert_eq!(breaker.ask(later), Permission::Refuse, "one probe only");
        breaker.record(false, later);
        assert_eq!(breaker.ask(later), Permission::Refuse);
        let even_later = later + Duration::from_secs(2);
        assert_eq!(breaker.ask(even_later), Permission::Dial);
        breaker.record(true, even_later);
        assert_eq!(breaker.state(), "closed");
        assert_eq!(breaker.ask(even_later), Permission::Dial);
    }

    #[test]
    fn a_success_forgets_earlier_failures() {
        let mut breaker = Breaker::new(2, Duration::from_secs(2));
        let now = Instant::now();
        for connected in [false, true, false] {
            assert_eq!(breaker.ask(now), Permission::Dial);
            breaker.record(connected, now);
        }
        assert_eq!(breaker.ask(now), Permission::Dial);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let mut breaker = Breaker::new(1, Duration::ZERO);
        let now = Instant::now();
        assert_eq!(breaker.ask(now), Permission::Dial);
        breaker.record(false, now);
        assert_eq!(breaker.ask(now), Permission::Dial);
        breaker.abandon();
        assert_eq!(breaker.ask(now), Permission::Dial);
    }
}
