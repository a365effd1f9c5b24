//! Lines of the keyholder's log that a gate can cause at will: a few, and then a count.
//!
//! A log that takes ten thousand lines and drops the rest hides what comes after them. The lines of signatures are bounded
//! by `sign_rate`; these would have no bound of their own.

use std::time::Duration;

use serde_json::Value;

use super::line::Lines;
use crate::policy::signing::rate::{Bucket, Pace, Rate};

/// A mistake is seen with the first line; twenty show whether it is always the same one.
const RATE: Rate = Rate {
    burst: 20,
    per_second: 1,
};

/// How many lines there were room for, and how many there were not.
#[derive(Debug)]
pub(super) struct Complaints {
    bucket: Bucket,
    left_out: u64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            bucket: Bucket::new(RATE),
            left_out: 0,
        }
    }
}

impl Complaints {
    /// Writes the line, or counts it.
    pub(super) fn line(
        &mut self,
        lines: &Lines,
        now: Duration,
        level: &str,
        message: &str,
        fields: &[(&str, Value)],
    ) {
        let written = self.bucket.take(now) == Pace::Allowed && lines.write(level, message, fields);
        if !written {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Says how many were left out, if there is room for that again. `None` as time: this is the end.
    pub(super) fn summary(&mut self, lines: &Lines, now: Option<Duration>) {
        let room = |bucket: &mut Bucket| now.is_none_or(|now| bucket.take(now) == Pace::Allowed);
        if self.left_out == 0 || !room(&mut self.bucket) {
            return;
        }
        let fields = [("count", Value::from(self.left_out))];
        if lines.write("WARN", "more refusals, without a line for each", &fields) {
            self.left_out = 0;
        }
    }

    /// When to look again, where something was left out.
    pub(super) fn pause(&self) -> Option<Duration> {
        (self.left_out > 0).then_some(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_twenty_lines_and_a_count_of_the_others() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines = Lines::to(log.reopen().unwrap());
        let mut complaints = Complaints::default();
        let now = Duration::from_secs(9);
        for _ in 0..50_000 {
            complaints.line(&lines, now, "ERROR", "no", &[]);
            complaints.summary(&lines, Some(now));
        }
        let written = || std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(written().lines().count(), 20);
        assert!(complaints.pause().is_some());
        complaints.summary(&lines, Some(now + Duration::from_secs(1)));
        assert_eq!(written().lines().count(), 21);
        assert!(written().contains("\"count\":49980"), "{}", written());
        assert!(complaints.pause().is_none());
        complaints.line(&lines, now + Duration::from_secs(1), "ERROR", "no", &[]);
        complaints.summary(&lines, None);
        assert!(written().contains("\"count\":1,"), "{}", written());
    }
}
