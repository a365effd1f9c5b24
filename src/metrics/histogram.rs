//! Durations in buckets of fixed bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds in microseconds, and as they are written. From a warm loopback to the longest time-out: one list for
/// everything that is timed, so that one panel can lay a bank's time over the whole.
pub(super) const BOUNDS: [(u64, &str); 15] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1.0"),
    (2_500_000, "2.5"),
    (5_000_000, "5.0"),
    (10_000_000, "10.0"),
    (30_000_000, "30.0"),
];

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is above the last. Not cumulated: an observation touches one of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Reading {
    /// For each bound, how many were at most that.
    pub cumulated: [u64; BOUNDS.len()],
    /// All of them.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let above = BOUNDS.iter().position(|(bound, _)| micros <= *bound);
        if let Some(bucket) = self.buckets.get(above.unwrap_or(BOUNDS.len())) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// It took no time at all: what did not have to wait.
    pub fn observe_nothing(&self) {
        if let Some(first) = self.buckets.first() {
            first.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it holds now. The count is that of the buckets, so the two always agree.
    #[must_use]
    pub(super) fn read(&self) -> Reading {
        let mut reading = Reading {
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
            ..Reading::default()
        };
        let mut buckets = self.buckets.iter();
        for (cumulated, bucket) in reading.cumulated.iter_mut().zip(buckets.by_ref()) {
            reading.count = reading.count.saturating_add(bucket.load(Ordering::Relaxed));
            *cumulated = reading.count;
        }
        for bucket in buckets {
            reading.count = reading.count.saturating_add(bucket.load(Ordering::Relaxed));
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_rise_and_are_written_as_they_are() {
        assert!(BOUNDS.is_sorted_by(|left, right| left.0 < right.0));
        for (micros, written) in BOUNDS {
            let seconds: f64 = written.parse().unwrap();
            assert!((seconds * 1e6 - micros as f64).abs() < 1e-6, "{written}");
        }
    }

    #[test]
    fn a_duration_falls_below_the_bound_that_it_reaches() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe_nothing();
        let reading = histogram.read();
        assert_eq!(reading.cumulated[..2], [3, 4]);
        assert_eq!(reading.cumulated[14], 5);
        assert_eq!((reading.count, reading.sum_micros), (6, 60_001_002));
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.read().count, 7);
    }
}
