//! Overload of one UDP socket: detection and countermeasures. Pure; [`super::udp`] applies the adjustments.
//!
//! Answers to queries that have waited longer than their clients are wasted, and a full queue delays all
//! queries.
//!
//! 1. While calls find the socket empty, nothing is measured.
//! 2. After `FULL` full batches in a row, the kernel is asked to stamp datagrams with their arrival time.
//! 3. If the socket is not found empty for `STANDING`, this is overload and no burst. Queries older than
//!    `MAX_WAIT` are then dropped: the newest are served, and other clients retry.
//! 4. Receiving a datagram to drop it costs a good part of an answer. So the receive buffer shrinks until it
//!    holds only as much as is served in `TARGET`; the kernel drops the rest at a fraction of the cost.
//! 5. When the socket has repeatedly been found empty for `RELIEF`, everything is reset.
//!
//! A burst, or a stop of the process, also makes a long queue. But that queue ends, and all its queries get
//! answers.

use std::time::{Duration, Instant};

/// The pressure on one socket.
#[derive(Debug, Default)]
pub struct UdpPressure {
    full: u32,
    under: Option<Under>,
}

#[derive(Debug)]
struct Under {
    /// The time for which the socket was never empty; `None` once that is [`STANDING`].
    stood: Option<Duration>,
    looked: Instant,
    buffer: usize,
    measured: Instant,
    /// The time since when the socket was empty now and then; `None` if it was not lately.
    relieved: Option<Instant>,
}

/// A change of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// No change.
    Nothing,
    /// Ask the kernel to stamp datagrams with their arrival time.
    Begin,
    /// Count the kernel's drops, and set the receive buffer to this size if there is one.
    Measure(Option<usize>),
    /// Reset everything.
    End,
}

impl UdpPressure {
    /// Records if a call has filled all buffers. Returns true if there is pressure and [`look`](Self::look)
    /// has to be called.
    pub fn note(&mut self, is_full: bool) -> bool {
        self.full = if is_full { self.full.saturating_add(1) } else { 0 };
        self.under.is_some() || self.full >= FULL
    }

    /// Returns true if the pressure is overload and no burst.
    pub fn is_overload(&self) -> bool {
        self.under.as_ref().is_some_and(|under| under.stood.is_none())
    }

    /// Returns the change that is due. `waited` is the age of the oldest datagram, and `buffer` returns the
    /// size of the receive buffer.
    pub fn look(&mut self, waited: Option<Duration>, buffer: impl FnOnce() -> usize, now: Instant) -> Adjustment {
        let Some(under) = &mut self.under else {
            self.under = Some(Under {
                stood: Some(Duration::ZERO),
                looked: now,
                buffer: buffer(),
                measured: now,
                relieved: None,
            });
            return Adjustment::Begin;
        };
        if self.full >= FULL {
            under.relieved = None;
        } else if self.full == 0 && now.saturating_duration_since(*under.relieved.get_or_insert(now)) >= RELIEF {
            self.under = None;
            return Adjustment::End;
        }
        let step = now.saturating_duration_since(under.looked).min(MAX_STEP);
        under.looked = now;
        if let Some(stood) = &mut under.stood {
            *stood = if self.full == 0 { Duration::ZERO } else { *stood + step };
            if *stood < STANDING {
                return Adjustment::Nothing;
            }
            under.stood = None;
        }
        if now.saturating_duration_since(under.measured) < INTERVAL {
            return Adjustment::Nothing;
        }
        under.measured = now;
        // The queue is as long as the buffer allows, or shorter.
        let Some(waited) = waited else { return Adjustment::Measure(None) };
        let ratio = (TARGET.as_secs_f64() / waited.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.5, 2.0);
        let wanted = ((under.buffer as f64 * ratio) as usize).clamp(MIN_BUFFER, crate::sys::bind::SOCKET_BUFFER);
        // Each change costs a call, and small ones have no effect.
        if wanted.abs_diff(under.buffer) < under.buffer / 8 {
            return Adjustment::Measure(None);
        }
        under.buffer = wanted;
        Adjustment::Measure(Some(wanted))
    }
}

/// More full batches in a row than a burst: a thousand queries, during which the socket was never empty.
const FULL: u32 = 16;

/// The time without an empty socket that counts as a burst. Stub resolvers wait at least a second before a
/// retry, so until then no work is wasted.
const STANDING: Duration = Duration::from_secs(1);

/// The longest time between two calls that counts towards [`STANDING`]. A process that was stopped for longer
/// was not too slow.
const MAX_STEP: Duration = Duration::from_millis(100);

/// The age above which queries are dropped under overload. Stub resolvers retry after at least a second, but
/// the queries of a page wait for each other, and a short burst leaves no queue of this length.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(100);

/// The intended wait in the buffer: half of the limit, because the service rate changes.
const TARGET: Duration = Duration::from_millis(50);

/// The interval of measurements: the time in which the buffer drains, so that a change has taken effect.
const INTERVAL: Duration = Duration::from_millis(50);

/// The minimum buffer in bytes: the kernel counts 832 for a small query and grants twice of this, which holds
/// two batches.
const MIN_BUFFER: usize = 64 << 10;

const RELIEF: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BUFFER: usize = crate::sys::bind::SOCKET_BUFFER;

    /// A socket under test, and its clock.
    struct Bench(UdpPressure, Instant);

    impl Bench {
        /// Creates a socket that has just come under pressure.
        fn under() -> Self {
            let mut bench = Self(UdpPressure::default(), Instant::now());
            assert_eq!((1..FULL).map(|_| bench.0.note(true)).find(|is_under| *is_under), None);
            assert!(bench.0.note(true));
            assert_eq!(bench.0.look(None, || MAX_BUFFER, bench.1), Adjustment::Begin);
            bench
        }

        /// Creates a socket under overload.
        fn overloaded() -> Self {
            let mut bench = Self::under();
            bench.stand(STANDING - MAX_STEP);
            assert!(!bench.0.is_overload());
            assert_eq!(bench.call(MAX_STEP, true, 50), Adjustment::Measure(None));
            assert!(bench.0.is_overload());
            bench
        }

        /// Calls that find the socket full for this time.
        fn stand(&mut self, time: Duration) {
            for _ in 0..time.as_millis() / MAX_STEP.as_millis() {
                self.call(MAX_STEP, true, 500);
            }
        }

        /// A call after `later`; the oldest datagram has waited `waited` ms.
        fn call(&mut self, later: Duration, is_full: bool, waited: u64) -> Adjustment {
            self.1 += later;
            assert!(self.0.note(is_full));
            self.0.look(Some(Duration::from_millis(waited)), || unreachable!("it is known"), self.1)
        }
    }

    #[test]
    fn bursts_are_no_pressure() {
        let mut pressure = UdpPressure::default();
        for _ in 0..10 {
            assert!((1..FULL).all(|_| !pressure.note(true)));
            assert!(!pressure.note(false));
        }
    }

    #[test]
    fn queue_that_has_an_end_is_no_overload() {
        let mut bench = Bench::under();
        bench.stand(STANDING / 2);
        assert_eq!(bench.call(STANDING / 4, false, 500), Adjustment::Nothing);
        bench.stand(STANDING / 2);
        assert!(!bench.0.is_overload());
        bench.stand(STANDING / 2);
        assert!(bench.0.is_overload());
    }

    #[test]
    fn stops_of_the_process_are_no_overload() {
        let mut bench = Bench::under();
        for _ in 0..5 {
            assert_eq!(bench.call(STANDING * 2, true, 2_000), Adjustment::Nothing);
        }
        assert!(!bench.0.is_overload());
    }

    #[test]
    fn buffer_follows_the_wait() {
        let mut bench = Bench::overloaded();
        assert_eq!(bench.call(INTERVAL / 2, true, 400), Adjustment::Nothing);
        assert_eq!(bench.call(INTERVAL / 2, true, 400), Adjustment::Measure(Some(MAX_BUFFER / 2)));
        assert_eq!(bench.call(INTERVAL, true, 200), Adjustment::Measure(Some(MAX_BUFFER / 4)));
        assert_eq!(bench.call(INTERVAL, true, 75), Adjustment::Measure(Some(MAX_BUFFER / 6)));
        assert_eq!(bench.call(INTERVAL, true, 52), Adjustment::Measure(None));
        assert_eq!(bench.call(INTERVAL, true, 10), Adjustment::Measure(Some(MAX_BUFFER / 6 * 2)));
        for _ in 0..10 {
            bench.call(INTERVAL, true, 90_000);
        }
        assert_eq!(bench.0.under.as_ref().map(|under| under.buffer), Some(MIN_BUFFER));
        for _ in 0..10 {
            bench.call(INTERVAL, true, 0);
        }
        assert_eq!(bench.0.under.as_ref().map(|under| under.buffer), Some(MAX_BUFFER));
    }

    #[test]
    fn pressure_ends_when_the_socket_was_found_empty_for_a_while() {
        let mut bench = Bench::under();
        assert_ne!(bench.call(RELIEF, false, 0), Adjustment::End);
        // A few full batches are usual near the limit.
        bench.call(RELIEF / 4, true, 1);
        assert_ne!(bench.call(RELIEF / 4, false, 0), Adjustment::End);
        assert_eq!(bench.call(RELIEF / 2, false, 0), Adjustment::End);
        assert!(!bench.0.note(false));
    }

    #[test]
    fn pressure_that_comes_back_begins_anew_to_be_waited_out() {
        let mut bench = Bench::overloaded();
        bench.call(INTERVAL, false, 0);
        for _ in 0..FULL {
            bench.call(Duration::ZERO, true, 0);
        }
        assert_ne!(bench.call(RELIEF, false, 0), Adjustment::End);
        assert_eq!(bench.call(RELIEF, false, 0), Adjustment::End);
    }
}
