//! From the kernel's time since boot to the time of day.
//!
//! Records carry `CLOCK_BOOTTIME`, which no one sets. The offset to the time of day is sampled and kept steady:
//! the small corrections of a time daemon would make events of one connection trade places, so it follows
//! only once it is off by more than [`TOLERANCE`].

use rustix::time::{ClockId, clock_gettime};

use crate::capture::Time;

/// Nanoseconds that the offset may be off: finer than any threshold that a detection has.
const TOLERANCE: u64 = 5_000_000;

/// Converts one clock into the other.
#[derive(Debug)]
pub(super) struct BootClock {
    /// Time of day less time since boot, in nanoseconds.
    offset: u64,
}

impl BootClock {
    pub(super) fn new() -> Self {
        Self { offset: sample() }
    }

    /// Nanoseconds since boot, now.
    #[allow(clippy::unused_self, reason = "callers hold the clock they read")]
    pub(super) fn boot_ns(&self) -> u64 {
        read(ClockId::Boottime)
    }

    /// The time of day at `boot_ns`.
    pub(super) const fn time(&self, boot_ns: u64) -> Time {
        Time(boot_ns.wrapping_add(self.offset))
    }

    /// Follows the time of day if somebody set it.
    pub(super) fn adjust(&mut self) {
        let offset = sample();
        if offset.abs_diff(self.offset) > TOLERANCE {
            self.offset = offset;
        }
    }
}

/// The offset now, from the reading of the boot clock that two readings of the time of day enclose.
fn sample() -> u64 {
    let before = read(ClockId::Realtime);
    let boot = read(ClockId::Boottime);
    let after = read(ClockId::Realtime);
    (before / 2 + after / 2).wrapping_sub(boot)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_small_corrections_out() {
        let mut clock = BootClock { offset: sample() + TOLERANCE / 2 };
        let before = clock.offset;
        clock.adjust();
        assert_eq!(clock.offset, before);
        clock.offset += 3600 * 1_000_000_000;
        clock.adjust();
        assert!(clock.offset.abs_diff(before) < 2 * TOLERANCE);
    }
}
