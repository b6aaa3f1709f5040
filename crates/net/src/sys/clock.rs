//! The time of day, the time that the machine has slept, which `Instant` leaves out, and the CPU time of a
//! thread.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Returns the seconds since 1970, which is the time of TSIG (RFC 8945 section 4.2).
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the time of day `ago`, in seconds since 1970 with microseconds.
pub fn unix_seconds(ago: Duration) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_micros() as f64 / 1e6
}

/// Returns the time of DNS cookies, a serial number (RFC 9018 section 4.3).
pub fn unix_now_serial() -> u32 {
    unix_now() as u32
}

/// Measures sleep: CLOCK_BOOTTIME counts it and CLOCK_MONOTONIC, which `Instant` reads, does not. TTLs and
/// zone expiry run out while the machine sleeps.
#[derive(Debug)]
pub struct SleepMeter {
    reported: Duration,
}

impl SleepMeter {
    /// Creates a meter that counts from now on.
    pub fn new() -> Self {
        Self { reported: time_asleep() }
    }

    /// Returns the sleep since the last call.
    pub fn take(&mut self) -> Duration {
        let (asleep, reported) = (time_asleep(), self.reported);
        self.reported = asleep.max(reported);
        asleep.saturating_sub(reported)
    }
}

impl Default for SleepMeter {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the sleep since boot, or slightly less: a delay between the two readings is subtracted, so it
/// never counts as sleep.
fn time_asleep() -> Duration {
    let boot = clock_gettime(ClockId::Boottime);
    let awake = clock_gettime(ClockId::Monotonic);
    duration(boot).saturating_sub(duration(awake))
}

/// Returns the CPU time of this thread.
pub fn thread_cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(of: Timespec) -> Duration {
    Duration::new(u64::try_from(of.tv_sec).unwrap_or_default(), u32::try_from(of.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_awake_is_not_counted() {
        let mut meter = SleepMeter::new();
        for _ in 0..1000 {
            std::thread::yield_now();
            assert!(meter.take() < Duration::from_millis(1));
        }
    }

    #[test]
    fn sleep_is_told_once() {
        let asleep = time_asleep() + Duration::from_secs(3600);
        // As if the meter had been created before an hour of sleep.
        let mut meter = SleepMeter { reported: Duration::ZERO };
        let total = meter.take();
        assert!(total <= asleep);
        assert!(meter.take() < Duration::from_millis(1));
        // A meter that is ahead never runs backwards.
        let mut meter = SleepMeter { reported: asleep };
        assert_eq!((meter.take(), meter.reported), (Duration::ZERO, asleep));
    }
}
