//! Overload of one UDP socket: when it is noticed, and what is done about it.
//!
//! Queries that wait for longer than their clients do are work that is lost, and a queue that is full makes all wait as long
//! as it is. In plain lines:
//!
//! 1. While calls find the socket empty nothing is measured, and nothing is done.
//! 2. After [`FULL`] full batches in a row the kernel is asked to stamp datagrams with the time at which they came.
//! 3. If the socket is not found empty for [`STANDING`], that is no burst: it is overload. What has waited for longer than
//!    [`MAX_WAIT`] is then passed over unread: the newest are served, and whoever sent the others asks again.
//! 4. To receive a datagram only to drop it costs a good part of answering it. So the receive buffer is made so small that what
//!    it holds is dealt with in [`TARGET`]; the kernel refuses the rest, which costs a fraction.
//! 5. When the socket has been found empty time and again for [`RELIEF`], all is as it was before.
//!
//! Where many ask at once, and where the process was stopped for a moment, the queue is long too. But it has an end, and all get
//! their answers.
//!
//! Pure: the socket that obeys is [`super::udp`].

use std::time::{Duration, Instant};

/// How one socket copes.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Full batches in a row.
    full: u32,
    /// Set while there is pressure.
    under: Option<Under>,
}

/// What is known under pressure.
#[derive(Debug)]
struct Under {
    /// Since when the socket was never found empty; `None` once that was so for [`STANDING`].
    began: Option<Instant>,
    /// Octets of the receive buffer.
    buffer: usize,
    /// When that was looked at last.
    measured: Instant,
    /// Since when the socket was found empty now and then; `None` if it was not of late.
    relieved: Option<Instant>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adjustment {
    /// Nothing.
    Nothing,
    /// Datagrams are to be stamped from now on.
    Begin,
    /// It is time to see what the kernel has refused, and for a receive buffer of so many octets if another is wanted.
    Measure(Option<usize>),
    /// All is to be as before.
    End,
}

impl Pressure {
    /// Notes whether a call has filled all buffers. Returns whether there is pressure, and [`look`](Self::look) to be called.
    pub(super) fn note(&mut self, is_full: bool) -> bool {
        self.full = if is_full { self.full.saturating_add(1) } else { 0 };
        self.under.is_some() || self.full >= FULL
    }

    /// Whether what has waited for too long is to be dropped.
    pub(super) fn is_overload(&self) -> bool {
        self.under.as_ref().is_some_and(|under| under.began.is_none())
    }

    /// Looks at what the last call has found: how long the oldest datagram has waited, and what the buffer holds at the start.
    pub(super) fn look(
        &mut self,
        waited: Option<Duration>,
        buffer: impl FnOnce() -> usize,
        now: Instant,
    ) -> Adjustment {
        let Some(under) = &mut self.under else {
            self.under = Some(Under { began: Some(now), buffer: buffer(), measured: now, relieved: None });
            return Adjustment::Begin;
        };
        if self.full >= FULL {
            under.relieved = None;
        } else if self.full == 0 && now.saturating_duration_since(*under.relieved.get_or_insert(now)) >= RELIEF {
            self.under = None;
            return Adjustment::End;
        }
        if let Some(began) = &mut under.began {
            if self.full == 0 {
                *began = now;
            }
            if now.saturating_duration_since(*began) < STANDING {
                return Adjustment::Nothing;
            }
            under.began = None;
        }
        if now.saturating_duration_since(under.measured) < INTERVAL {
            return Adjustment::Nothing;
        }
        under.measured = now;
        // What waits is as long as the buffer lets it be, or less.
        let Some(waited) = waited else { return Adjustment::Measure(None) };
        let ratio = (TARGET.as_secs_f64() / waited.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.5, 2.0);
        let wanted = ((under.buffer as f64 * ratio) as usize).clamp(MIN_BUFFER, super::bind::SOCKET_BUFFER);
        // Each change costs a call, and small ones change nothing.
        if wanted.abs_diff(under.buffer) < under.buffer / 8 {
            return Adjustment::Measure(None);
        }
        under.buffer = wanted;
        Adjustment::Measure(Some(wanted))
    }
}

/// Full batches in a row that are more than a burst: a thousand queries, during which the socket was never found empty.
const FULL: u32 = 16;

/// How long a socket that is never found empty is taken for one that many ask at once. Stub resolvers wait for a second at the
/// least before they ask again, so until then nothing has been done in vain.
const STANDING: Duration = Duration::from_secs(1);

/// What has waited for longer is dropped under overload. Stub resolvers ask again after a second at the soonest, but the queries of one page
/// wait for each other; and a queue of this length is none that a moment's burst leaves.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(100);

/// How long what finds a place in the buffer is to wait: half of what it may, since the rate at which it is served changes.
const TARGET: Duration = Duration::from_millis(50);

/// How often the buffer is looked at: as long as what it holds takes, so that a change has shown its effect.
const INTERVAL: Duration = Duration::from_millis(50);

/// Octets that a buffer has at the least: the kernel counts 832 for a small query and grants twice of this, which holds two batches.
const MIN_BUFFER: usize = 64 << 10;

/// After so long without [`FULL`] the pressure is over.
const RELIEF: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BUFFER: usize = crate::net::bind::SOCKET_BUFFER;

    /// A socket under test, and its clock.
    struct Bench(Pressure, Instant);

    impl Bench {
        /// One that has just come under pressure.
        fn under() -> Self {
            let mut bench = Self(Pressure::default(), Instant::now());
            assert_eq!((1..FULL).map(|_| bench.0.note(true)).find(|is_under| *is_under), None);
            assert!(bench.0.note(true));
            assert_eq!(bench.0.look(None, || MAX_BUFFER, bench.1), Adjustment::Begin);
            bench
        }

        /// One that has been so for long enough.
        fn overloaded() -> Self {
            let mut bench = Self::under();
            bench.call(STANDING - Duration::from_millis(1), true, 0);
            assert!(!bench.0.is_overload());
            assert_eq!(bench.call(Duration::from_millis(1), true, 50), Adjustment::Measure(None));
            assert!(bench.0.is_overload());
            bench
        }

        /// A call so much later, of which the oldest datagram has waited so many milliseconds.
        fn call(&mut self, later: Duration, is_full: bool, waited: u64) -> Adjustment {
            self.1 += later;
            assert!(self.0.note(is_full));
            self.0.look(Some(Duration::from_millis(waited)), || unreachable!("it is known"), self.1)
        }
    }

    #[test]
    fn bursts_are_no_pressure() {
        let mut pressure = Pressure::default();
        for _ in 0..10 {
            assert!((1..FULL).all(|_| !pressure.note(true)));
            assert!(!pressure.note(false));
        }
    }

    #[test]
    fn queue_that_has_an_end_is_no_overload() {
        let mut bench = Bench::under();
        assert_eq!(bench.call(STANDING / 2, true, 500), Adjustment::Nothing);
        assert_eq!(bench.call(STANDING / 4, false, 500), Adjustment::Nothing);
        assert_eq!(bench.call(STANDING / 2, true, 500), Adjustment::Nothing);
        assert!(!bench.0.is_overload());
        bench.call(STANDING / 2, true, 500);
        assert!(bench.0.is_overload());
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
