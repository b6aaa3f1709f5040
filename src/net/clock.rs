//! The time of day, as messages bear it, the time that the machine has slept, which `Instant` leaves out, and the time that a thread
//! has had a processor.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Seconds since 1970, which is the time of TSIG (RFC 8945 section 4.2).
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When something was by the time of day, in seconds since 1970 to the microsecond, that is `ago` now.
pub fn unix_seconds(ago: Duration) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_micros() as f64 / 1e6
}

/// The same as DNS cookies have it: a serial number (RFC 9018 section 4.3).
pub fn unix_now_serial() -> u32 {
    unix_now() as u32
}

/// Time asleep: what CLOCK_BOOTTIME counts and CLOCK_MONOTONIC, which `Instant` reads, does not. What others say is good for a
/// time (a TTL, the expiry of a zone) runs out while the machine sleeps.
#[derive(Debug)]
pub struct SleepMeter {
    /// How much was told so far, that before the start of this meter included.
    told: Duration,
}

impl SleepMeter {
    /// One that counts from now on.
    pub fn new() -> Self {
        Self { told: time_asleep() }
    }

    /// How long the machine has slept since this was called last.
    pub fn take(&mut self) -> Duration {
        let (asleep, told) = (time_asleep(), self.told);
        self.told = asleep.max(told);
        asleep.saturating_sub(told)
    }
}

impl Default for SleepMeter {
    fn default() -> Self {
        Self::new()
    }
}

/// How long the machine has slept since it was started, or a bit less: whatever delays us between the two readings is taken
/// off, so it is never counted as sleep.
fn time_asleep() -> Duration {
    let boot = clock_gettime(ClockId::Boottime);
    let awake = clock_gettime(ClockId::Monotonic);
    duration(boot).saturating_sub(duration(awake))
}

/// How long this thread has had a processor so far.
pub fn thread_cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// A clock's reading.
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
        // As if the meter had been made an hour of sleep ago.
        let mut meter = SleepMeter { told: Duration::ZERO };
        let total = meter.take();
        assert!(total <= asleep);
        assert!(meter.take() < Duration::from_millis(1));
        // One that was told of more than there is never runs backwards.
        let mut meter = SleepMeter { told: asleep };
        assert_eq!((meter.take(), meter.told), (Duration::ZERO, asleep));
    }
}
