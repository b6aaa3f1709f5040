//! The history of each pool and of each backend.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use metrics::{BackendCounts, BackendSnapshot, BackendState, HEDGE, PoolSnapshot};

use super::steps::{BackendStep, Counts, HistogramMark, Percentile, PoolStep, grown, median, prepend, push};
use super::{MARKS, MAX_KEPT_BACKENDS, MAX_TRACKED_BACKENDS, MIN_MINUTES, MINUTES, SECONDS, TEN_SECONDS, TENS};
use crate::control::observe::sight::live::{BackendMinute, HedgesSecond, PoolMinute};
use crate::control::observe::sight::verdict::{FailedAttempts, Flaps, is_failing, is_slow};

#[derive(Clone, Debug)]
pub(super) struct PoolTrack {
    pub(super) name: String,
    pub(super) is_there: bool,
    pub(super) latest: PoolStep,
    denied: u64,
    second: HistogramMark,
    /// The sum of all seconds, because backends come and go with their counters.
    sums: Sums,
    pub(super) kept: Option<Box<PoolRings>>,
}

#[derive(Clone, Debug)]
pub(super) struct PoolRings {
    pub(super) seconds: VecDeque<PoolStep>,
    pub(super) minutes: VecDeque<PoolStep>,
    open: PoolStep,
    minute: HistogramMark,
    marks: VecDeque<(Sums, HistogramMark)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    queries: u64,
    denied: u64,
    work: Totals,
}

impl PoolTrack {
    /// Creates the track of an existing pool. If `is_old`, its counts so far precede this history.
    pub(super) fn new(pool: &PoolSnapshot, is_old: bool, is_kept: bool) -> Self {
        let mark = || if is_old { HistogramMark::of(&pool.counts.duration) } else { HistogramMark::default() };
        let kept = is_kept.then(|| {
            Box::new(PoolRings {
                seconds: VecDeque::with_capacity(SECONDS),
                minutes: VecDeque::with_capacity(MINUTES),
                open: PoolStep::default(),
                minute: mark(),
                marks: [(Sums::default(), mark())].into(),
            })
        });
        Self {
            name: pool.name.clone(),
            is_there: true,
            latest: PoolStep {
                in_flight: small(pool.counts.in_flight.0),
                tokens: small(pool.tokens),
                ..PoolStep::default()
            },
            denied: if is_old { pool.counts.hedges_denied } else { 0 },
            second: mark(),
            sums: Sums::default(),
            kept,
        }
    }

    /// Takes a second of the pool, with that of its backends.
    pub(super) fn take(&mut self, pool: &PoolSnapshot, work: &Totals) {
        let counts = self.second.advance(&pool.counts.duration);
        let step = PoolStep {
            queries: small(counts.total()),
            attempts: small(work.attempts),
            in_flight: small(pool.counts.in_flight.0),
            sent: small(work.hedges),
            won: small(work.hedges_won),
            denied: grown(pool.counts.hedges_denied, self.denied),
            tokens: small(pool.tokens),
            p50: counts.percentile(0.5),
            p99: counts.percentile(0.99),
            p999: counts.percentile(0.999),
            is_there: true,
        };
        self.denied = pool.counts.hedges_denied;
        self.sums.queries += counts.total();
        self.sums.denied += u64::from(step.denied);
        self.sums.work.add(work);
        self.push(step);
    }

    pub(super) fn miss(&mut self) {
        if self.is_there {
            // If it comes back, its counters start at zero.
            (self.second, self.denied) = (HistogramMark::default(), 0);
            if let Some(kept) = &mut self.kept {
                kept.minute = HistogramMark::default();
                kept.marks.iter_mut().for_each(|(_, mark)| *mark = HistogramMark::default());
            }
        }
        self.push(PoolStep::default());
    }

    fn push(&mut self, step: PoolStep) {
        self.is_there = step.is_there;
        self.latest = step;
        if let Some(kept) = &mut self.kept {
            push(&mut kept.seconds, step, SECONDS);
            kept.open.extend(&step);
        }
    }

    pub(super) fn end_ten(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        let mark = pool.map(|pool| HistogramMark::of(&pool.counts.duration)).unwrap_or_default();
        push(&mut kept.marks, (self.sums, mark), MARKS);
    }

    pub(super) fn end_minute(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        let mut step = std::mem::take(&mut kept.open);
        if let Some(pool) = pool {
            let counts = kept.minute.advance(&pool.counts.duration);
            (step.p50, step.p99, step.p999) =
                (counts.percentile(0.5), counts.percentile(0.99), counts.percentile(0.999));
        }
        push(&mut kept.minutes, step, MINUTES);
    }

    pub(super) fn carry(&mut self, given: &PoolSnapshot) {
        self.denied += given.counts.hedges_denied;
        self.second.carry(&given.counts.duration);
        if let Some(kept) = &mut self.kept {
            kept.minute.carry(&given.counts.duration);
            kept.marks.iter_mut().for_each(|(_, mark)| mark.carry(&given.counts.duration));
        }
    }

    /// Puts seconds and minutes of a previous process, the newest first, before the own ones. The current
    /// minute begins with the first `open` of these seconds.
    pub(super) fn restore(&mut self, own: (usize, usize), seconds: Vec<PoolStep>, minutes: Vec<PoolStep>, open: usize) {
        let Some(kept) = &mut self.kept else { return };
        let own_part = std::mem::take(&mut kept.open);
        seconds.iter().take(open).rev().chain([&own_part]).for_each(|step| kept.open.extend(step));
        prepend(&mut kept.seconds, own.0, seconds.into_iter());
        prepend(&mut kept.minutes, own.1, minutes.into_iter());
    }

    pub(super) fn measured(&self, pool: &PoolSnapshot) -> Option<Counts> {
        let (_, mark) = self.kept.as_ref()?.marks.front()?;
        Some(mark.until(&pool.counts.duration))
    }

    pub(super) fn minute(&self, pool: &PoolSnapshot) -> Option<PoolMinute> {
        let counts = self.measured(pool)?;
        let (before, _) = self.kept.as_ref()?.marks.front()?;
        let work = self.sums.work.since(&before.work)?;
        let hedges = HedgesSecond {
            sent: work.hedges,
            won: work.hedges_won,
            denied: self.sums.denied - before.denied,
            tokens: pool.tokens,
        };
        Some(PoolMinute {
            queries: self.sums.queries - before.queries,
            attempts: work.attempts,
            p50_ms: counts.percentile(0.5).millis(),
            p99_ms: counts.percentile(0.99).millis(),
            p999_ms: counts.percentile(0.999).millis(),
            hedges,
        })
    }

    /// Returns the usual p99: the median over those of the last `count` minutes with enough queries.
    pub(super) fn usual_p99(&self, count: usize) -> Percentile {
        let Some(kept) = &self.kept else { return Percentile::NONE };
        let enough = kept.minutes.iter().rev().take(count).filter(|minute| minute.queries >= MIN_QUERIES);
        median(enough.map(|minute| minute.p99), MIN_MINUTES)
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| {
            let marks =
                kept.marks.capacity() * size_of::<(Sums, HistogramMark)>() + kept.marks.len() * HistogramMark::OCTETS;
            let steps = (kept.seconds.capacity() + kept.minutes.capacity()) * size_of::<PoolStep>();
            size_of::<PoolRings>() + steps + marks + HistogramMark::OCTETS
        });
        self.name.capacity() + HistogramMark::OCTETS + kept
    }
}

pub(super) fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) const HOUR: usize = 60;
/// The queries required for a p99, so that one query does not decide it.
const MIN_QUERIES: u32 = 100;

/// The backends in the order of the hashes of their names, because names, or a tree, would take more memory.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendTracks {
    tracks: Vec<BackendTrack>,
    turn: u32,
}

impl BackendTracks {
    /// Takes a second of all backends. If `is_old`, counts of new backends precede this history.
    pub(super) fn take(&mut self, pools: &[PoolSnapshot], is_old: bool) {
        self.turn = self.turn.wrapping_add(1);
        let (turn, known) = (self.turn, self.tracks.len());
        for (pool, backend) in all(pools) {
            let key = key(pool, backend);
            let place = match self.tracks[..known].binary_search_by_key(&key, |track| track.key) {
                Ok(place) => place,
                Err(_) if self.tracks.len() == MAX_TRACKED_BACKENDS => continue,
                Err(_) => {
                    self.tracks.push(BackendTrack::new(key, backend, is_old));
                    self.tracks.len() - 1
                }
            };
            self.tracks[place].turn = turn;
            self.tracks[place].take(backend);
        }
        self.tracks.retain(|track| track.turn == turn);
        self.tracks.sort_unstable_by_key(|track| track.key);
        let mut kept = self.tracks.iter().filter(|track| track.kept.is_some()).count();
        let mut pools = all(pools);
        while kept < MAX_KEPT_BACKENDS.min(self.tracks.len())
            && let Some((pool, backend)) = pools.next()
        {
            if let Some(track) = self.find_mut(pool, backend).filter(|track| track.kept.is_none()) {
                track.keep(backend);
                kept += 1;
            }
        }
    }

    pub(super) fn end_ten(&mut self, pools: &[PoolSnapshot]) {
        self.for_each(pools, BackendTrack::end_ten);
    }

    /// Puts steps of a previous process, the newest first, before the `own` ones of a backend.
    pub(super) fn restore(
        &mut self,
        (pool, backend): (&str, &BackendSnapshot),
        own: usize,
        steps: impl Iterator<Item = BackendStep>,
    ) {
        if let Some(kept) = self.find_mut(pool, backend).and_then(|track| track.kept.as_mut()) {
            prepend(&mut kept.steps, own, steps);
        }
    }

    pub(super) fn carry(&mut self, pools: &[PoolSnapshot]) {
        self.for_each(pools, BackendTrack::carry);
    }

    fn for_each(&mut self, pools: &[PoolSnapshot], change: fn(&mut BackendTrack, &BackendSnapshot)) {
        for (pool, backend) in all(pools) {
            if let Some(track) = self.find_mut(pool, backend) {
                change(track, backend);
            }
        }
    }

    pub(super) fn find(&self, pool: &str, backend: &BackendSnapshot) -> Option<&BackendTrack> {
        let place = self.tracks.binary_search_by_key(&key(pool, backend), |track| track.key).ok()?;
        Some(&self.tracks[place])
    }

    fn find_mut(&mut self, pool: &str, backend: &BackendSnapshot) -> Option<&mut BackendTrack> {
        let place = self.tracks.binary_search_by_key(&key(pool, backend), |track| track.key).ok()?;
        Some(&mut self.tracks[place])
    }

    /// Returns the last second of all backends of a pool.
    pub(super) fn work(&self, pool: &PoolSnapshot) -> Totals {
        let mut work = Totals::default();
        let tracks = pool.backends.iter().filter_map(|backend| self.find(&pool.name, backend));
        tracks.for_each(|track| work.add(&track.latest));
        work
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let kept = self.tracks.iter().filter_map(|track| track.kept.as_ref()).map(|kept| {
            let marks =
                kept.marks.capacity() * size_of::<(Totals, HistogramMark)>() + kept.marks.len() * HistogramMark::OCTETS;
            size_of::<HistoryBaseline>()
                + HistogramMark::OCTETS
                + marks
                + kept.steps.capacity() * size_of::<BackendStep>()
        });
        self.tracks.capacity() * size_of::<BackendTrack>() + kept.sum::<usize>()
    }
}

fn all(pools: &[PoolSnapshot]) -> impl Iterator<Item = (&str, &BackendSnapshot)> {
    pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| (&*pool.name, backend)))
}

fn key(pool: &str, backend: &BackendSnapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    (pool, &backend.name, backend.address).hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Debug, Default)]
pub(super) struct BackendTrack {
    key: u64,
    turn: u32,
    totals: Totals,
    pub(super) latest: Totals,
    was_up: Option<bool>,
    /// The seconds of the last changes between up and down, the oldest first; 0 for none.
    flaps: [u32; FLAPS],
    pub(super) kept: Option<Box<HistoryBaseline>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HistoryBaseline {
    second: HistogramMark,
    pub(super) p50: Percentile,
    pub(super) p99: Percentile,
    /// The medians of the last seconds with replies, the oldest first.
    recent: VecDeque<Percentile>,
    idle: u32,
    marks: VecDeque<(Totals, HistogramMark)>,
    pub(super) steps: VecDeque<BackendStep>,
    /// The usual median, without slow periods, which would otherwise come to look usual.
    pub(super) usual: Percentile,
    pub(super) slow_for: u32,
    /// The attempts and failures of each of the last ten seconds, by the number of the second.
    seconds: [[u32; 2]; TEN_SECONDS],
    /// The latest ten seconds in which most attempts failed, until it succeeds again.
    pub(super) failed: Option<FailedAttempts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) attempts: u64,
    pub(super) hedges: u64,
    pub(super) wins: u64,
    pub(super) hedges_won: u64,
    pub(super) errors: u64,
    pub(super) timeouts: u64,
}

impl Totals {
    fn of(backend: &BackendSnapshot) -> Self {
        let BackendCounts { attempts, wins, errors, timeouts, .. } = &backend.counts;
        Self {
            attempts: attempts.iter().sum(),
            hedges: attempts[HEDGE],
            wins: wins.iter().sum(),
            hedges_won: wins[HEDGE],
            errors: *errors,
            timeouts: *timeouts,
        }
    }

    /// Returns the growth; `None` if a counter was reset.
    fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            attempts: self.attempts.checked_sub(earlier.attempts)?,
            hedges: self.hedges.checked_sub(earlier.hedges)?,
            wins: self.wins.checked_sub(earlier.wins)?,
            hedges_won: self.hedges_won.checked_sub(earlier.hedges_won)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            timeouts: self.timeouts.checked_sub(earlier.timeouts)?,
        })
    }

    fn add(&mut self, more: &Self) {
        self.attempts += more.attempts;
        self.hedges += more.hedges;
        self.wins += more.wins;
        self.hedges_won += more.hedges_won;
        self.errors += more.errors;
        self.timeouts += more.timeouts;
    }
}

impl BackendTrack {
    fn new(key: u64, backend: &BackendSnapshot, is_old: bool) -> Self {
        let totals = if is_old { Totals::of(backend) } else { Totals::default() };
        Self { key, totals, ..Self::default() }
    }

    fn keep(&mut self, backend: &BackendSnapshot) {
        let mark = HistogramMark::of(&backend.counts.latency);
        let marks = [(self.totals, mark.clone())].into();
        let (recent, steps) = (VecDeque::with_capacity(RECENT), VecDeque::with_capacity(TENS));
        self.kept =
            Some(Box::new(HistoryBaseline { second: mark, marks, recent, steps, ..HistoryBaseline::default() }));
    }

    fn take(&mut self, backend: &BackendSnapshot) {
        let totals = Totals::of(backend);
        match totals.since(&self.totals) {
            Some(latest) => self.latest = latest,
            // The backend was removed and added between two seconds.
            None => {
                self.latest = totals;
                if let Some(kept) = &mut self.kept {
                    kept.marks = [(Totals::default(), HistogramMark::default())].into();
                }
            }
        }
        self.totals = totals;
        self.note_flap(backend);
        if let Some(kept) = &mut self.kept {
            let counts = kept.second.advance(&backend.counts.latency);
            (kept.p50, kept.p99) = (counts.percentile(0.5), counts.percentile(0.99));
            kept.judge();
            kept.judge_failures(self.turn, &self.latest);
        }
    }

    fn note_flap(&mut self, backend: &BackendSnapshot) {
        let is_up = match backend.state {
            _ if backend.by_hand => return,
            BackendState::Up | BackendState::Behind => true,
            BackendState::Down => false,
            BackendState::New | BackendState::Draining => return,
        };
        if self.was_up.replace(is_up).is_some_and(|was_up| was_up != is_up) {
            self.flaps.rotate_left(1);
            self.flaps[FLAPS - 1] = self.turn;
        }
    }

    pub(super) fn flaps(&self) -> Option<Flaps> {
        let (first, last) = (self.flaps[0], self.flaps[FLAPS - 1]);
        let seconds = |from: u32, to: u32| Duration::from_secs(to.wrapping_sub(from).into());
        (first > 0).then(|| Flaps { within: seconds(first, last), ago: seconds(last, self.turn) })
    }

    pub(super) fn is_flapping(&self) -> bool {
        self.flaps().is_some_and(|flaps| flaps.are_recent())
    }

    fn end_ten(&mut self, backend: &BackendSnapshot) {
        let totals = self.totals;
        let Some(kept) = &mut self.kept else { return };
        let (before, mark) = kept.marks.back().expect("there is one from the beginning");
        let counts = mark.until(&backend.counts.latency);
        let step = BackendStep {
            errors: grown(totals.errors, before.errors),
            timeouts: grown(totals.timeouts, before.timeouts),
            p50: counts.percentile(0.5),
            p99: counts.percentile(0.99),
            is_unusual: kept.slow_for > 0,
        };
        push(&mut kept.steps, step, TENS);
        push(&mut kept.marks, (totals, HistogramMark::of(&backend.counts.latency)), MARKS);
        let sound = kept.steps.iter().filter(|step| !step.is_unusual).map(|step| step.p50);
        let usual = median(sound, MIN_TENS);
        if kept.slow_for == 0 && usual != Percentile::NONE {
            kept.usual = usual;
        }
    }

    fn carry(&mut self, given: &BackendSnapshot) {
        let totals = Totals::of(given);
        self.totals.add(&totals);
        if let Some(kept) = &mut self.kept {
            kept.second.carry(&given.counts.latency);
            for (before, mark) in &mut kept.marks {
                before.add(&totals);
                mark.carry(&given.counts.latency);
            }
        }
    }

    pub(super) fn minute(&self, backend: &BackendSnapshot) -> Option<BackendMinute> {
        let (before, mark) = self.kept.as_ref()?.marks.front()?;
        let counts = mark.until(&backend.counts.latency);
        let Totals { attempts, hedges, wins, hedges_won, errors, timeouts } = self.totals.since(before)?;
        Some(BackendMinute {
            attempts,
            hedges,
            wins,
            hedges_won,
            errors,
            timeouts,
            p50_ms: counts.percentile(0.5).millis(),
            p99_ms: counts.percentile(0.99).millis(),
        })
    }
}

impl HistoryBaseline {
    fn judge(&mut self) {
        if self.p50 == Percentile::NONE {
            self.idle += 1;
            if self.idle >= MAX_IDLE {
                self.recent.clear();
            }
        } else {
            self.idle = 0;
            push(&mut self.recent, self.p50, RECENT);
        }
        let usual = self.usual.micros();
        let slow = |p50: &&Percentile| usual.zip(p50.micros()).is_some_and(|(usual, now)| is_slow(usual, now));
        if self.recent.iter().filter(slow).count() >= MIN_SLOW {
            self.slow_for += 1;
        } else {
            self.slow_for = 0;
        }
        if self.slow_for >= MAX_SLOW {
            // A delay of this length is usual by now.
            (self.slow_for, self.usual) = (0, Percentile::NONE);
            self.steps.iter_mut().for_each(|step| step.is_unusual = false);
        }
    }

    fn judge_failures(&mut self, turn: u32, latest: &Totals) {
        self.seconds[turn as usize % TEN_SECONDS] = [latest.attempts, latest.errors].map(small);
        let sum = |which: usize| self.seconds.iter().map(|second| u64::from(second[which])).sum();
        let now = FailedAttempts { attempts: sum(0), failures: sum(1), ago: Duration::ZERO };
        match is_failing(&now) {
            Some(true) => self.failed = Some(now),
            Some(false) => self.failed = None,
            // A failing backend gets few attempts, so a few successes prove nothing.
            None => {
                self.failed = self.failed.take().map(|failed| FailedAttempts { ago: failed.ago + SECOND, ..failed });
            }
        }
    }

    pub(super) fn recent_p50(&self) -> Percentile {
        median(self.recent.iter().copied(), 1)
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// The changes between up and down that count as flapping.
const FLAPS: usize = 4;
const RECENT: usize = 8;
/// The slow ones required among them: one is chance, five of eight are not.
const MIN_SLOW: usize = 5;
/// The seconds without a reply after which the past does not count.
const MAX_IDLE: u32 = 10;
/// The seconds after which slow is usual.
const MAX_SLOW: u32 = 3_600;
/// A usual value requires a minute.
const MIN_TENS: usize = 6;
