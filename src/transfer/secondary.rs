//! When a secondary asks which primary for what (RFC 1034 section 4.3.5, RFC 1995, RFC 1996).
//!
//! The algorithm, in plain lines:
//!
//! 1. Without a version, the zone is transferred at once. With one, saved by an earlier run perhaps, a primary is asked for
//!    its SOA at once, then each `refresh`.
//! 2. Primaries are asked in their order until one has our version or a newer one. An older one is passed over.
//! 3. A newer version is transferred by IXFR. If that fails in any way, by AXFR from the same primary. If that fails too,
//!    the next primary is asked.
//! 4. When all have failed, the next look is after `retry`; without a version, after a second, two, four, up to an hour.
//! 5. A NOTIFY from a primary has that one asked at once, unless it tells of a version that we have. One that comes while
//!    another look is under way is remembered.
//!    NOTIFY can be forged, so those looks begin a tenth of a second apart at least.
//! 6. `expire` after the last word of a primary that we are up to date, the zone is no longer served, until one says so
//!    again.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::records::Soa;
use super::serial::Serial;

/// The version of a zone that a secondary has, and how long it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its serial.
    pub serial: Serial,
    /// Time between two looks.
    refresh: Duration,
    /// Time to the next look after one in vain.
    retry: Duration,
    /// Time that it may be served without a word of a primary.
    expire: Duration,
}

impl Version {
    /// The version of this SOA, its times brought within bounds: a zero would have us ask without end, and a large number
    /// is mostly a slip.
    pub fn of(soa: &Soa<'_>) -> Self {
        let within =
            |seconds: u32, (least, most): (u64, u64)| Duration::from_secs(u64::from(seconds).clamp(least, most));
        let (refresh, retry) = (within(soa.refresh, REFRESH), within(soa.retry, RETRY));
        // RFC 1912 section 2.2: expire is longer than refresh, or a zone would lapse between two looks.
        let expire = within(soa.expire, EXPIRE).max(refresh + retry);
        Self { serial: soa.serial, refresh, retry, expire }
    }
}

/// Whether the zone is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It was never transferred: SERVFAIL.
    Absent,
    /// It is.
    Served,
    /// It was, but no primary has confirmed it for too long: SERVFAIL (RFC 1034 section 4.3.5).
    Expired,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondaryStep {
    /// Ask the primary of this index for its SOA, then call [`Secondary::on_soa`] or [`Secondary::on_failure`].
    AskSoa {
        /// The index.
        primary: usize,
    },
    /// Transfer the zone from the primary of this index, then call [`Secondary::on_transferred`],
    /// [`Secondary::on_up_to_date`] or [`Secondary::on_failure`].
    Transfer {
        /// The index.
        primary: usize,
        /// Whether by IXFR, from the version that we have.
        incremental: bool,
    },
    /// Nothing before this time, unless something is heard.
    WaitUntil(Instant),
}

/// One zone of a secondary. See the head of this file for the algorithm.
///
/// ```text
///             refresh or retry is over, NOTIFY             on_soa: newer
///   ┌──────┐ ─────────────────────────────▶ ┌───────────┐ ──────────────▶ ┌────────────────────┐
///   │ idle │                                │ AskSoa(p) │                 │ Transfer(p), IXFR  │
///   └──────┘ ◀───────────────────────────── └───────────┘                 └────────────────────┘
///      ▲ ▲       on_soa: ours                ▲  │ ▲ │ on_failure, older      │            │ on_failure
///      │ │                                   │  └─┘ │ ──▶ the next p         │            ▼
///      │ │            no primary is left     │      │             ┌──────────┼─────────────────────┐
///      │ └───────────────────────────────────┼──────┘             │          │ Transfer(p), AXFR   │ ◀── no version
///      │                                     └────────────────────┼──────────┼─────────────────────┘
///      │                            on_failure: the next p        │          │
///      └──────────────────────────────────────────────────────────┴──────────┘
///                                               on_transferred, on_up_to_date
/// ```
#[derive(Clone, Debug)]
pub struct Secondary {
    /// How many primaries there are, at least one.
    primaries: usize,
    /// What we have.
    version: Option<Version>,
    /// When that is no longer served.
    expires: Option<Instant>,
    /// What is under way.
    look: Option<Look>,
    /// When the next look begins.
    next_look: Instant,
    /// Where a NOTIFY came from that is to be followed.
    notified: Option<usize>,
    /// Before this, no NOTIFY is followed.
    next_notified: Instant,
    /// Without a version: how long to wait after all have failed.
    backoff: Duration,
}

/// One round of the primaries.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The first that was asked.
    first: usize,
    failed: usize,
    /// What is asked of the present one.
    stage: Stage,
    /// When that has failed, if nothing is heard; `None`: it is still to be asked.
    due: Option<Instant>,
    /// When it has failed, whatever is heard.
    latest: Instant,
}

/// What is asked of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its SOA.
    Soa,
    /// What changed.
    Ixfr,
    /// The zone.
    Axfr,
}

impl Secondary {
    /// A zone that was never transferred.
    pub fn new(primaries: usize, now: Instant) -> Self {
        Self {
            primaries: primaries.max(1),
            version: None,
            expires: None,
            look: None,
            next_look: now,
            notified: None,
            next_notified: now,
            backoff: FIRST_BACKOFF,
        }
    }

    /// A zone that an earlier run saved, when a primary confirmed it so long ago.
    pub fn from_saved(primaries: usize, version: Version, age: Duration, now: Instant) -> Self {
        let expires = Some(now + version.expire.saturating_sub(age));
        Self { version: Some(version), expires, ..Self::new(primaries, now) }
    }

    /// Whether the zone is answered from.
    pub fn service(&self, now: Instant) -> Service {
        match self.expires {
            None => Service::Absent,
            Some(expires) if now < expires => Service::Served,
            Some(_) => Service::Expired,
        }
    }

    /// The version that we have.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// What to do now; to be called after each input and when the time of a wait has come.
    pub fn next_step(&mut self, now: Instant, rng: &mut impl Rng) -> SecondaryStep {
        // At most twice for each primary and once more: IXFR, then AXFR, then the next.
        while let Some(due) = self.look.and_then(|look| look.due)
            && due <= now
        {
            self.fail(now, rng);
        }
        let next_look = match self.notified {
            Some(_) => self.next_look.min(self.next_notified),
            None => self.next_look,
        };
        if self.look.is_none() && now >= next_look {
            let first = self.notified.take().unwrap_or(0);
            self.next_notified = now + NOTIFY_GAP;
            self.look = Some(Look { first, failed: 0, stage: self.first_stage(), due: None, latest: now });
        }
        let Some(look) = &mut self.look else {
            // The time of expiry matters to whoever answers from the zone.
            let expiry = self.expires.filter(|&expires| now < expires);
            return SecondaryStep::WaitUntil(expiry.map_or(next_look, |expires| expires.min(next_look)));
        };
        if let Some(due) = look.due {
            return SecondaryStep::WaitUntil(due);
        }
        let primary = (look.first + look.failed) % self.primaries;
        let (step, patience) = match look.stage {
            Stage::Soa => (SecondaryStep::AskSoa { primary }, SOA_PATIENCE),
            Stage::Ixfr => (SecondaryStep::Transfer { primary, incremental: true }, TRANSFER_PATIENCE),
            Stage::Axfr => (SecondaryStep::Transfer { primary, incremental: false }, TRANSFER_PATIENCE),
        };
        (look.due, look.latest) = (Some(now + patience), now + MAX_TRANSFER);
        step
    }

    /// The primary that was asked has a version of this serial.
    pub fn on_soa(&mut self, serial: Serial, now: Instant, rng: &mut impl Rng) {
        let Some(look) = self.look.as_mut().filter(|look| look.stage == Stage::Soa && look.due.is_some()) else {
            return;
        };
        match self.version {
            Some(version) if version.serial == serial => self.confirm(version, now, rng),
            Some(version) if !serial.is_newer_than(version.serial) => self.fail(now, rng),
            Some(_) => (look.stage, look.due) = (Stage::Ixfr, None),
            None => (look.stage, look.due) = (Stage::Axfr, None),
        }
    }

    /// A transfer is under way and something of it came, or is being loaded: it is waited for anew, but not for ever.
    pub fn on_progress(&mut self, now: Instant) {
        if let Some(look) = self.look.as_mut().filter(|look| look.due.is_some()) {
            look.due = Some(look.latest.min(now + TRANSFER_PATIENCE));
        }
    }

    /// What is asked for waits for a turn at it: its time has not begun.
    pub fn on_waiting(&mut self, now: Instant) {
        if let Some(look) = self.look.as_mut().filter(|look| look.due.is_some()) {
            let patience = match look.stage {
                Stage::Soa => SOA_PATIENCE,
                Stage::Ixfr | Stage::Axfr => TRANSFER_PATIENCE,
            };
            (look.due, look.latest) = (Some(now + patience), now + MAX_TRANSFER);
        }
    }

    /// The zone was transferred, loaded and saved, and is now at this version.
    pub fn on_transferred(&mut self, version: Version, now: Instant, rng: &mut impl Rng) {
        self.confirm(version, now, rng);
    }

    /// An IXFR told that the primary has nothing newer.
    pub fn on_up_to_date(&mut self, now: Instant, rng: &mut impl Rng) {
        if let (Some(version), Some(_)) = (self.version, self.look) {
            self.confirm(version, now, rng);
        }
    }

    /// What was asked for last has failed, in whatever way; the result of a transfer that does not load is a failure too.
    pub fn on_failure(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.look.is_some_and(|look| look.due.is_some()) {
            self.fail(now, rng);
        }
    }

    /// The primary of this index sent a NOTIFY.
    pub fn on_notify(&mut self, primary: usize, hint: Option<Serial>) {
        let is_known = |serial: Serial| self.version.is_some_and(|version| !serial.is_newer_than(version.serial));
        if primary < self.primaries && !hint.is_some_and(is_known) {
            self.notified = Some(primary);
        }
    }

    /// What a primary is asked first.
    fn first_stage(&self) -> Stage {
        if self.version.is_some() { Stage::Soa } else { Stage::Axfr }
    }

    /// A primary has confirmed that this is the newest version.
    fn confirm(&mut self, version: Version, now: Instant, rng: &mut impl Rng) {
        // RFC 1996 section 3.7: a hint that came meanwhile may tell of this very version, but may as well of a later one.
        self.look = None;
        self.version = Some(version);
        self.expires = Some(now + version.expire);
        self.next_look = now + jittered(version.refresh, rng);
        self.backoff = FIRST_BACKOFF;
    }

    /// The present stage has failed: the next, the next primary, or the end of this look.
    fn fail(&mut self, now: Instant, rng: &mut impl Rng) {
        let first_stage = self.first_stage();
        let Some(look) = &mut self.look else {
            return;
        };
        look.due = None;
        if look.stage == Stage::Ixfr {
            look.stage = Stage::Axfr;
            return;
        }
        look.failed += 1;
        look.stage = first_stage;
        if look.failed < self.primaries {
            return;
        }
        self.look = None;
        let wait = match self.version {
            Some(version) => version.retry,
            None => {
                let wait = self.backoff;
                self.backoff = (wait * 2).min(LAST_BACKOFF);
                wait
            }
        };
        self.next_look = now + jittered(wait, rng);
    }
}

/// A bit less than this time, so that the zones and servers of one operator do not march in step.
fn jittered(time: Duration, rng: &mut impl Rng) -> Duration {
    time.mul_f64(rng.random_range(1.0 - JITTER..=1.0))
}

/// Seconds between two looks: hardly any load at the least, and with NOTIFY four weeks do no harm.
const REFRESH: (u64, u64) = (2, 28 * 86_400);

/// Seconds to the next look after one in vain.
const RETRY: (u64, u64) = (1, 14 * 86_400);

/// Seconds that a zone is served without a word; a zone that lapses at once cannot be meant.
const EXPIRE: (u64, u64) = (3, 365 * 86_400);

/// How long a primary may take for its SOA, repetitions and TCP included.
const SOA_PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing may come of a transfer.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(60);

/// How long a transfer may take in all, or a primary that sends a record a minute would keep us from the others.
const MAX_TRANSFER: Duration = Duration::from_secs(2 * 3600);

/// The least time from one look to the next that a NOTIFY has begin.
const NOTIFY_GAP: Duration = Duration::from_millis(100);

/// The first wait of a zone without a version.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait of a zone without a version.
const LAST_BACKOFF: Duration = Duration::from_secs(3600);

/// How much sooner than said a look may begin, as a part of the wait.
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests;
