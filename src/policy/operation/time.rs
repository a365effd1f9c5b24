//! The two clocks of the once guard, always passed in, and the one-second rule.

use std::time::Duration;

/// How long after the commit of `sent` a first byte may still be written.
///
/// A process that was frozen in between (a snapshot, a debugger, a starved machine) must not send what somebody may have
/// repeated or resolved since.
pub const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(1);

/// Wall-clock time in milliseconds since 1970. For people and for retention; it decides no order.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This much earlier; the beginning of time at the least.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

/// Time since the machine was started, suspension included (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BootTime(pub Duration);

/// Whether the first byte of a request, whose `sent` was committed at `sent`, may be written at `now`.
#[must_use]
pub fn may_write_first_byte(sent: BootTime, now: BootTime) -> bool {
    // A clock before the commit's is no clock to trust.
    now.0
        .checked_sub(sent.0)
        .is_some_and(|since| since <= FIRST_BYTE_WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_byte_is_written_within_a_second_or_not_at_all() {
        let at = |millis| BootTime(Duration::from_millis(millis));
        assert!(may_write_first_byte(at(5_000), at(5_000)));
        assert!(may_write_first_byte(at(5_000), at(6_000)));
        assert!(!may_write_first_byte(at(5_000), at(6_001)));
        assert!(!may_write_first_byte(at(5_000), at(4_999)));
    }

    #[test]
    fn time_before_time_began_is_its_beginning() {
        assert_eq!(
            UnixMillis(10).before(Duration::from_millis(3)),
            UnixMillis(7)
        );
        assert_eq!(
            UnixMillis(i64::MIN).before(Duration::MAX),
            UnixMillis(i64::MIN)
        );
    }
}
