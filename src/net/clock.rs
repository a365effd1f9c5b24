//! The clock that a first write is judged by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::policy::operation::BootTime;

/// Now, by `CLOCK_BOOTTIME`: it goes on while the machine sleeps and never jumps.
#[must_use]
pub fn boot_time() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    // Both fields are never negative on this clock.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    BootTime(Duration::new(seconds, nanos))
}
