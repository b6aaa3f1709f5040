//! The schedule of a secondary: SOA queries and transfers from its primaries (RFC 1034 section 4.3.5, RFC
//! 1995, RFC 1996).
//!
//! The algorithm:
//!
//! 1. Without a version, the zone is transferred at once. With one, perhaps saved by an earlier run, the SOA
//!    is queried at once, then each `refresh`.
//! 2. Primaries are asked in order until one has the present version or a newer one. An older one is passed
//!    over.
//! 3. A newer version is transferred by IXFR. If that fails in any way, by AXFR from the same primary, then
//!    from the next.
//! 4. When all have failed, the next look is after `retry`; without a version, after 1 s, 2 s, 4 s, up to an
//!    hour.
//! 5. After a NOTIFY, its primary is asked at once, unless the hint is the present version and it has not
//!    expired. During another look the NOTIFY is remembered. If the primary still returns the present version
//!    (another thread of it may answer), it is asked once more after 1 s. NOTIFY can be forged, so those
//!    looks begin at least 0.1 s apart.
//! 6. `expire` after the last confirmation by a primary, the zone is not served until the next confirmation.

use std::time::{Duration, Instant};

use hedge::backoff::Backoff;
use rand::{Rng, RngExt};

use super::records::{Serial, Soa};

/// The version of a zone on a secondary, and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondaryVersion {
    /// The serial of the version.
    pub serial: Serial,
    refresh: Duration,
    retry: Duration,
    expire: Duration,
}

impl SecondaryVersion {
    /// Reads the version of this SOA. Its times are clamped, because a zero would cause endless queries.
    pub fn of(soa: &Soa<'_>) -> Self {
        let within =
            |seconds: u32, (least, most): (u64, u64)| Duration::from_secs(u64::from(seconds).clamp(least, most));
        let (refresh, retry) = (within(soa.refresh, REFRESH), within(soa.retry, RETRY));
        // RFC 1912 section 2.2: expire is longer than refresh, or a zone would lapse between two looks.
        let expire = within(soa.expire, EXPIRE).max(refresh + retry);
        Self { serial: soa.serial, refresh, retry, expire }
    }
}

/// The state of the zone for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneService {
    /// The zone was never transferred: SERVFAIL.
    Absent,
    /// The zone is served.
    Served,
    /// No primary has confirmed the zone for too long: SERVFAIL (RFC 1034 section 4.3.5).
    Expired,
}

/// The next step of a secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondaryStep {
    /// Query the primary's SOA, then call [`Secondary::on_soa`] or [`Secondary::on_failure`].
    AskSoa {
        /// The index of the primary.
        primary: usize,
    },
    /// Transfer the zone, then call `on_transferred`, `on_up_to_date` or `on_failure`.
    Transfer {
        /// The index of the primary.
        primary: usize,
        /// True for IXFR from the present version.
        incremental: bool,
    },
    /// Wait until this time or an event.
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
///      │ └───────────────────────────────────┼──────┘             │          │ Transfer(p), AXFR   │
///      │                                     └────────────────────┼──────────┼─────────────────────┘
///      │                            on_failure: the next p        │          │     ▲ no version
///      └──────────────────────────────────────────────────────────┴──────────┘
///                                               on_transferred, on_up_to_date
/// ```
#[derive(Clone, Debug)]
pub struct Secondary {
    primaries: usize,
    version: Option<SecondaryVersion>,
    expires: Option<Instant>,
    look: Option<RefreshAttempt>,
    next_look: Instant,
    /// The primary and the hint of the last NOTIFY.
    notified: Option<(usize, Option<Serial>)>,
    next_notified: Instant,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
struct RefreshAttempt {
    first: usize,
    /// The version that a NOTIFY has announced.
    announced: Option<Serial>,
    failed: usize,
    stage: RefreshStage,
    /// The timeout of the stage, which progress extends. `None` before the request.
    due: Option<Instant>,
    /// The time limit of the stage, which progress does not extend.
    latest: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefreshStage {
    Soa,
    Ixfr,
    Axfr,
}

impl Secondary {
    /// Makes a zone that was never transferred.
    pub fn new(primaries: usize, now: Instant) -> Self {
        Self {
            primaries: primaries.max(1),
            version: None,
            expires: None,
            look: None,
            next_look: now,
            notified: None,
            next_notified: now,
            backoff: Backoff::new(FIRST_BACKOFF),
        }
    }

    /// Makes a zone that an earlier run saved, `age` after a primary confirmed it.
    pub fn from_saved(primaries: usize, version: SecondaryVersion, age: Duration, now: Instant) -> Self {
        let expires = Some(now + version.expire.saturating_sub(age));
        Self { version: Some(version), expires, ..Self::new(primaries, now) }
    }

    /// Returns the state of the zone for queries.
    pub fn service(&self, now: Instant) -> ZoneService {
        match self.expires {
            None => ZoneService::Absent,
            Some(expires) if now < expires => ZoneService::Served,
            Some(_) => ZoneService::Expired,
        }
    }

    /// Returns the present version.
    pub fn version(&self) -> Option<SecondaryVersion> {
        self.version
    }

    /// Returns the next step. Call it after each input and after each wait.
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
            let (first, announced) = self.notified.take().unwrap_or_default();
            self.next_notified = now + NOTIFY_GAP;
            let stage = self.first_stage();
            self.look = Some(RefreshAttempt { first, announced, failed: 0, stage, due: None, latest: now });
        }
        let Some(look) = &mut self.look else {
            let expiry = self.expires.filter(|&expires| now < expires);
            return SecondaryStep::WaitUntil(expiry.map_or(next_look, |expires| expires.min(next_look)));
        };
        if let Some(due) = look.due {
            return SecondaryStep::WaitUntil(due);
        }
        let primary = (look.first + look.failed) % self.primaries;
        let (step, patience) = match look.stage {
            RefreshStage::Soa => (SecondaryStep::AskSoa { primary }, SOA_PATIENCE),
            RefreshStage::Ixfr => (SecondaryStep::Transfer { primary, incremental: true }, TRANSFER_PATIENCE),
            RefreshStage::Axfr => (SecondaryStep::Transfer { primary, incremental: false }, TRANSFER_PATIENCE),
        };
        (look.due, look.latest) = (Some(now + patience), now + MAX_TRANSFER);
        step
    }

    /// Reports the serial from the primary that was asked.
    pub fn on_soa(&mut self, serial: Serial, now: Instant, rng: &mut impl Rng) {
        let Some(look) = self.look.as_mut().filter(|look| look.stage == RefreshStage::Soa && look.due.is_some()) else {
            return;
        };
        match self.version {
            Some(version) if version.serial == serial => {
                let is_announced = look.announced.is_some_and(|announced| announced.is_newer_than(serial));
                self.confirm(version, now, rng);
                if is_announced {
                    self.next_look = self.next_look.min(now + ANNOUNCED_AGAIN);
                }
            }
            Some(version) if !serial.is_newer_than(version.serial) => self.fail(now, rng),
            Some(_) => (look.stage, look.due) = (RefreshStage::Ixfr, None),
            None => (look.stage, look.due) = (RefreshStage::Axfr, None),
        }
    }

    /// Reports progress of a transfer or of loading. It extends the timeout, but not the time limit.
    pub fn on_progress(&mut self, now: Instant) {
        if let Some(look) = self.look.as_mut().filter(|look| look.due.is_some()) {
            look.due = Some(look.latest.min(now + TRANSFER_PATIENCE));
        }
    }

    /// Reports that the request is queued: its time has not begun.
    pub fn on_waiting(&mut self, now: Instant) {
        if let Some(look) = self.look.as_mut().filter(|look| look.due.is_some()) {
            let patience = match look.stage {
                RefreshStage::Soa => SOA_PATIENCE,
                RefreshStage::Ixfr | RefreshStage::Axfr => TRANSFER_PATIENCE,
            };
            (look.due, look.latest) = (Some(now + patience), now + MAX_TRANSFER);
        }
    }

    /// Reports that the zone was transferred, loaded and saved, and now has this version.
    pub fn on_transferred(&mut self, version: SecondaryVersion, now: Instant, rng: &mut impl Rng) {
        self.confirm(version, now, rng);
    }

    /// Reports an IXFR without a newer version.
    pub fn on_up_to_date(&mut self, now: Instant, rng: &mut impl Rng) {
        if let (Some(version), Some(_)) = (self.version, self.look) {
            self.confirm(version, now, rng);
        }
    }

    /// Reports a failure of the last request of any kind, also if the result of a transfer does not load.
    pub fn on_failure(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.look.is_some_and(|look| look.due.is_some()) {
            self.fail(now, rng);
        }
    }

    /// Reports a NOTIFY of the primary of this index.
    pub fn on_notify(&mut self, primary: usize, hint: Option<Serial>, now: Instant) {
        let is_served = self.service(now) == ZoneService::Served;
        let is_known = |serial: Serial| self.version.is_some_and(|version| !serial.is_newer_than(version.serial));
        if primary < self.primaries && !(is_served && hint.is_some_and(is_known)) {
            self.notified = Some((primary, hint));
        }
    }

    fn first_stage(&self) -> RefreshStage {
        if self.version.is_some() { RefreshStage::Soa } else { RefreshStage::Axfr }
    }

    fn confirm(&mut self, version: SecondaryVersion, now: Instant, rng: &mut impl Rng) {
        // RFC 1996 section 3.7: an earlier hint may be about this version, but also about a later one.
        self.look = None;
        self.version = Some(version);
        self.expires = Some(now + version.expire);
        self.next_look = now + jittered(version.refresh, rng);
        self.backoff.reset();
    }

    fn fail(&mut self, now: Instant, rng: &mut impl Rng) {
        let first_stage = self.first_stage();
        let Some(look) = &mut self.look else {
            return;
        };
        look.due = None;
        if look.stage == RefreshStage::Ixfr {
            look.stage = RefreshStage::Axfr;
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
            None => self.backoff.wait(LAST_BACKOFF),
        };
        self.next_look = now + jittered(wait, rng);
    }
}

/// Returns a slightly shorter time, so that zones and servers of one operator do not ask at the same moment.
fn jittered(time: Duration, rng: &mut impl Rng) -> Duration {
    time.mul_f64(rng.random_range(1.0 - JITTER..=1.0))
}

/// Seconds between two looks. The least causes hardly any load, and with NOTIFY four weeks do no harm.
const REFRESH: (u64, u64) = (2, 28 * 86_400);

const RETRY: (u64, u64) = (1, 14 * 86_400);

/// Seconds that a zone is served without confirmation. A zone that lapses at once cannot be intended.
const EXPIRE: (u64, u64) = (3, 365 * 86_400);

const SOA_PATIENCE: Duration = Duration::from_secs(10);

const TRANSFER_PATIENCE: Duration = Duration::from_secs(60);

/// Time limit of a transfer, because a primary that sends a record a minute would block the others.
const MAX_TRANSFER: Duration = Duration::from_secs(2 * 3600);

/// The wait before a primary is asked again for a version that it has announced and does not return yet.
const ANNOUNCED_AGAIN: Duration = Duration::from_secs(1);

const NOTIFY_GAP: Duration = Duration::from_millis(100);

const FIRST_BACKOFF: Duration = Duration::from_secs(1);

const LAST_BACKOFF: Duration = Duration::from_secs(3600);

const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests;
