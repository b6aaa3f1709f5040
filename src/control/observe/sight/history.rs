//! History: by second for ten minutes and by minute for 24 hours, of the server and of each pool; by ten
//! seconds of each backend.
//!
//! Once a second [`History::take`] gets all counters and notes the growth: percentiles come from differences
//! of histograms, so they are of that second and not since the start. Bounds limit the memory to
//! [`MAX_OCTETS`] with any number of pools and backends.

mod saved;
mod show;
mod steps;
mod tracks;

use std::collections::VecDeque;
use std::time::{Duration, Instant, UNIX_EPOCH};

use metrics::{BackendSnapshot, DropReason, PoolSnapshot, Snapshot, Tap, TapFate};

pub use self::saved::SavedHistory;
use self::steps::{ServerStep, ServerTotals, TapTotals, push};
#[cfg(test)]
pub(super) use self::tests::{Site, backend, pool};
use self::tracks::{BackendTrack, BackendTracks, HOUR, PoolTrack};
use super::live::{BackendMinute, PoolMinute, VerdictState};
use super::verdict::{AnswerShare, BackendFacts, Facts, PoolFacts, RecentShare, TapFacts, slow_bound};

/// The history of a server.
#[derive(Debug)]
pub struct History {
    latest: Instant,
    ten: Instant,
    minute: Instant,
    totals: ServerTotals,
    tap_totals: TapTotals,
    /// By second, for [`SECONDS_OF_TAPS`].
    taps: VecDeque<TapTotals>,
    seconds: VecDeque<ServerStep>,
    minutes: VecDeque<ServerStep>,
    open: ServerStep,
    tens: VecDeque<u64>,
    pools: Vec<PoolTrack>,
    backends: BackendTracks,
}

impl History {
    /// Starts a history; the counts so far are not part of it.
    pub fn new(now: Instant, snapshot: &Snapshot) -> Self {
        let mut this = Self {
            latest: now,
            ten: now,
            minute: now,
            totals: ServerTotals::of(snapshot),
            tap_totals: TapTotals(snapshot.counts.taps),
            taps: VecDeque::with_capacity(SECONDS_OF_TAPS),
            seconds: VecDeque::with_capacity(SECONDS),
            minutes: VecDeque::with_capacity(MINUTES),
            open: ServerStep::default(),
            tens: VecDeque::with_capacity(TENS),
            pools: Vec::new(),
            backends: BackendTracks::default(),
        };
        this.pools.reserve_exact(snapshot.pools.len().min(MAX_TRACKED_POOLS));
        this.welcome(&snapshot.pools, true);
        this.backends.take(&snapshot.pools, true);
        this
    }

    /// Takes the second that ends now. Returns false if the last one has just ended.
    pub fn take(&mut self, now: Instant, at: u64, snapshot: &Snapshot) -> bool {
        if now.saturating_duration_since(self.latest) < MIN_SECOND {
            return false;
        }
        self.latest = now;
        let totals = ServerTotals::of(snapshot);
        let step = ServerStep { at, counts: totals.since(&self.totals), ..ServerStep::default() };
        self.totals = totals;
        let taps = TapTotals(snapshot.counts.taps);
        push(&mut self.taps, taps.since(&self.tap_totals), SECONDS_OF_TAPS);
        self.tap_totals = taps;
        push(&mut self.seconds, step, SECONDS);
        self.open.extend(&step);
        self.backends.take(&snapshot.pools, false);
        self.welcome(&snapshot.pools, false);
        let pool_of = |track: &PoolTrack| snapshot.pools.iter().find(|pool| pool.name == track.name);
        for track in &mut self.pools {
            match pool_of(track) {
                Some(pool) => track.take(pool, &self.backends.work(pool)),
                None => track.miss(),
            }
        }
        if is_over(now, &mut self.ten, TEN) {
            push(&mut self.tens, at, TENS);
            self.backends.end_ten(&snapshot.pools);
            self.pools.iter_mut().for_each(|track| track.end_ten(pool_of(track)));
        }
        if is_over(now, &mut self.minute, MINUTE) {
            push(&mut self.minutes, std::mem::take(&mut self.open), MINUTES);
            self.pools.iter_mut().for_each(|track| track.end_minute(pool_of(track)));
        }
        true
    }

    /// Notes the verdict on the last second.
    pub fn note(&mut self, verdict: VerdictState) {
        if let Some(second) = self.seconds.back_mut() {
            second.verdict = verdict;
        }
        self.open.verdict = self.open.verdict.max(verdict);
    }

    /// Adds the counts of another process to the baselines, because the totals have grown by them at once. So
    /// they do not appear as new.
    pub fn carry(&mut self, given: &Snapshot) {
        self.totals.add(&ServerTotals::of(given));
        self.tap_totals.add(&TapTotals(given.counts.taps));
        for pool in &given.pools {
            if let Some(track) = self.pools.iter_mut().find(|track| track.name == pool.name) {
                track.carry(pool);
            }
        }
        self.backends.carry(&given.pools);
    }

    /// Returns the last minute of a pool; `None` beyond the bounds.
    pub fn pool_minute(&self, pool: &PoolSnapshot) -> Option<PoolMinute> {
        self.pool(&pool.name)?.minute(pool)
    }

    /// Returns the last minute of a backend; `None` beyond the bounds.
    pub fn backend_minute(&self, pool: &str, backend: &BackendSnapshot) -> Option<BackendMinute> {
        self.backends.find(pool, backend)?.minute(backend)
    }

    /// Returns the input of the verdict. `at` is the current Unix time.
    pub fn facts<'s>(&self, at: Duration, snapshot: &'s Snapshot) -> Facts<'s> {
        let mut last = ServerTotals::default();
        own(&self.seconds, TEN_SECONDS).for_each(|step| last.add(&step.counts));
        let share = |of: fn(&ServerTotals) -> u64| RecentShare {
            now: AnswerShare { part: of(&last), answered: last.answered() },
            usual: self.usual_share(of),
        };
        Facts {
            snapshot,
            queries: last.all_queries(),
            overload: last.dropped[DropReason::Overload as usize],
            made_up: share(ServerTotals::made_up),
            failures: share(|counts| counts.failures),
            pools: snapshot.pools.iter().map(|pool| self.pool_facts(at, pool)).collect(),
            taps: Tap::ALL.iter().map(|tap| self.tap_facts(*tap)).collect(),
            crashed_for: snapshot.processes.crashed_at.map(|crashed_at| at.saturating_sub(crashed_at)),
        }
    }

    fn pool_facts<'s>(&self, at: Duration, pool: &'s PoolSnapshot) -> PoolFacts<'s> {
        let track = self.pool(&pool.name);
        let measured = track.and_then(|track| track.measured(pool));
        let usual =
            track.map(|track| track.usual_p99(own(&self.minutes, HOUR).count())).and_then(steps::Percentile::micros);
        let seconds = own(&self.seconds, TEN_SECONDS).count();
        let hedges = |of: fn(&steps::PoolStep) -> u32| {
            let kept = track.and_then(|track| track.kept.as_ref());
            kept.map_or(0, |kept| kept.seconds.iter().rev().take(seconds).map(|step| u64::from(of(step))).sum())
        };
        let backend = |backend: &'s BackendSnapshot| {
            let track = self.backends.find(&pool.name, backend);
            let kept = track.and_then(|track| track.kept.as_ref());
            let since = backend.since.duration_since(UNIX_EPOCH).unwrap_or_default();
            BackendFacts {
                name: &backend.name,
                state: backend.state,
                by_hand: backend.by_hand,
                state_for: at.saturating_sub(since),
                flaps: track.and_then(BackendTrack::flaps),
                failed: kept.and_then(|kept| kept.failed),
                slow_for: kept.map_or(0, |kept| kept.slow_for.into()),
                p50: kept.and_then(|kept| kept.recent_p50().micros()),
                usual_p50: kept.and_then(|kept| kept.usual.micros()),
            }
        };
        PoolFacts {
            name: &pool.name,
            measured: measured.as_ref().map_or(0, steps::Counts::total),
            slow: measured.as_ref().zip(usual).map_or(0, |(counts, usual)| counts.from(slow_bound(usual))),
            p99: measured.and_then(|counts| counts.percentile(0.99).micros()),
            usual_p99: usual,
            hedges_sent: hedges(|step| step.sent),
            hedges_denied: hedges(|step| step.denied),
            divergent: pool.divergent,
            sources: &pool.sources,
            backends: pool.backends.iter().map(backend).collect(),
        }
    }

    fn tap_facts(&self, tap: Tap) -> TapFacts {
        let sum = |fate| self.taps.iter().map(|TapTotals(counts)| counts[tap as usize][fate as usize]).sum();
        TapFacts { name: tap.label(), written: sum(TapFate::Written), dropped: sum(TapFate::Dropped) }
    }

    /// Returns the usual share of `such` answers in the last hour, or else in the last day.
    fn usual_share(&self, such: fn(&ServerTotals) -> u64) -> Option<AnswerShare> {
        if own(&self.minutes, MIN_MINUTES).count() < MIN_MINUTES {
            return None;
        }
        let of = |count| {
            let add = |sum: AnswerShare, step: &ServerStep| AnswerShare {
                part: sum.part + such(&step.counts),
                answered: sum.answered + step.counts.answered(),
            };
            own(&self.minutes, count).fold(AnswerShare::default(), add)
        };
        [HOUR, MINUTES].into_iter().map(of).find(|usual| usual.answered >= MIN_ANSWERED)
    }

    fn welcome(&mut self, pools: &[PoolSnapshot], is_old: bool) {
        for pool in pools {
            if self.pools.iter().any(|track| track.name == pool.name) {
                continue;
            }
            if self.pools.len() >= MAX_TRACKED_POOLS || self.kept_pools() >= MAX_KEPT_POOLS {
                self.pools.retain(|track| pools.iter().any(|pool| pool.name == track.name));
            }
            if self.pools.len() < MAX_TRACKED_POOLS {
                let is_kept = self.kept_pools() < MAX_KEPT_POOLS;
                self.pools.push(PoolTrack::new(pool, is_old, is_kept));
            }
        }
    }

    fn kept_pools(&self) -> usize {
        self.pools.iter().filter(|track| track.kept.is_some()).count()
    }

    fn pool(&self, name: &str) -> Option<&PoolTrack> {
        self.pools.iter().find(|track| track.name == name)
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let pools = self.pools.capacity() * size_of::<PoolTrack>();
        let pools = pools + self.pools.iter().map(PoolTrack::octets).sum::<usize>();
        let steps = (self.seconds.capacity() + self.minutes.capacity()) * size_of::<ServerStep>();
        let taps = self.taps.capacity() * size_of::<TapTotals>();
        steps + taps + self.tens.capacity() * size_of::<u64>() + pools + self.backends.octets()
    }
}

/// Returns the last steps that this process has counted, `max` at most, the newest first. A verdict judges
/// only these: after a gap, or with a cold cache, the steps of a previous process are no measure.
fn own(steps: &VecDeque<ServerStep>, max: usize) -> impl Iterator<Item = &ServerStep> {
    steps.iter().rev().take(max).take_while(|step| !step.is_carried)
}

/// Returns true if a period is over; the next one begins at its end, unless that is long ago.
fn is_over(now: Instant, began: &mut Instant, length: Duration) -> bool {
    // A tick that is slightly early ends the period too.
    if now.saturating_duration_since(*began) + MIN_SECOND < length {
        return false;
    }
    let next = *began + length;
    *began = if now.saturating_duration_since(next) < length { next } else { now };
    true
}

const SECONDS: usize = 600;
/// Steps by minute: 24 hours.
const MINUTES: usize = 1_440;
const TENS: usize = 60;
/// The number of seconds by which taps are judged: a minute, because they write in bursts.
const SECONDS_OF_TAPS: usize = 60;
const MARKS: usize = 6;
const TEN_SECONDS: usize = 10;
/// An earlier tick belongs to the same second: missed ticks come together.
const MIN_SECOND: Duration = Duration::from_millis(500);
const TEN: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

const MIN_MINUTES: usize = 5;
const MIN_ANSWERED: u64 = 500;

const MAX_KEPT_POOLS: usize = 16;
const MAX_TRACKED_POOLS: usize = 64;
const MAX_KEPT_BACKENDS: usize = 256;
/// Backends with a last second; the others only have a state.
const MAX_TRACKED_BACKENDS: usize = 2_048;
/// The memory limit, with the kept events: 4.5 MiB.
pub const MAX_OCTETS: usize = 9 << 19;

#[cfg(test)]
mod tests;
