//! Tests of the history: counters that grow, fall, come and go.

mod saved;

use std::time::{Duration, Instant, SystemTime};

use metrics::{
    Aggregate, BackendCounts, BackendState, CacheSnapshot, CacheStats, Histogram, MembershipSnapshot, ResponseSource,
};

use super::*;
use crate::control::observe::sight::live::{Second, Span, Verdict};
use crate::control::observe::sight::{Event, Sight};

/// A server with one snapshot each second.
pub(in crate::control::observe::sight) struct Site {
    pub(in crate::control::observe::sight) snapshot: Snapshot,
    pub(in crate::control::observe::sight) sight: Sight,
    history: History,
    start: Instant,
    seconds: u64,
}

impl Site {
    /// Creates a server with these pools, which has just started.
    pub(in crate::control::observe::sight) fn new(pools: Vec<PoolSnapshot>) -> Self {
        Self::running(Snapshot { pools, ..Snapshot::default() })
    }

    fn running(snapshot: Snapshot) -> Self {
        let start = Instant::now();
        let sight = Sight::new(start, START, &snapshot);
        let history = History::new(start, &snapshot);
        Self { snapshot, sight, history, start, seconds: 0 }
    }

    /// Returns the current Unix time.
    pub(in crate::control::observe::sight) fn at(&self) -> Duration {
        START + Duration::from_secs(self.seconds)
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    pub(in crate::control::observe::sight) fn sight_second(&mut self) -> Option<Event> {
        self.seconds += 1;
        self.sight.take(self.now(), self.at(), &self.snapshot)
    }

    /// Ends a second for the history alone.
    fn second(&mut self) -> Second {
        self.seconds += 1;
        let (now, at) = (self.now(), self.at().as_secs());
        assert!(self.history.take(now, at, &self.snapshot));
        self.history.second(at, &self.snapshot, Verdict::default())
    }

    /// The first backend of a pool answers `queries` queries in `micros` µs each.
    fn answer(&mut self, pool: usize, queries: u64, micros: u64) {
        let pool = &mut self.snapshot.pools[pool];
        let measured = Histogram::default();
        (0..queries).for_each(|_| measured.record(Duration::from_micros(micros)));
        pool.counts.duration.collect(&measured);
        let backend = &mut pool.backends[0];
        backend.counts.latency.collect(&measured);
        backend.counts.attempts[0] += queries;
        backend.counts.wins[0] += queries;
    }

    fn show(&self, span: Span) -> crate::control::observe::sight::live::HistoryFigures {
        self.history.show(span, &self.snapshot)
    }
}

/// The Unix time at which the tests begin.
const START: Duration = Duration::from_secs(1_767_225_600);

/// Returns a pool without traffic.
pub(in crate::control::observe::sight) fn pool(name: &str, backends: Vec<BackendSnapshot>) -> PoolSnapshot {
    PoolSnapshot { name: name.to_owned(), backends, ..PoolSnapshot::default() }
}

/// Returns a backend that is up and got no queries.
pub(in crate::control::observe::sight) fn backend(name: &str) -> BackendSnapshot {
    BackendSnapshot {
        name: name.to_owned(),
        address: "192.0.2.1:53".parse().expect("an address"),
        weight: 1,
        state: BackendState::Up,
        by_hand: false,
        by_hand_until: None,
        since: SystemTime::UNIX_EPOCH,
        probes: 0,
        counts: BackendCounts::default(),
        connection_problem: None,
        probe_problem: None,
        membership: MembershipSnapshot::default(),
    }
}

fn cache(stats: CacheStats) -> CacheSnapshot {
    CacheSnapshot { size: 0, stats }
}

fn site() -> Site {
    Site::new(vec![pool("ts", vec![backend("ts1"), backend("ts2")])])
}

/// Returns true if milliseconds are close to `expected`.
fn is_about(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found / expected - 1.0).abs() < 0.07)
}

#[test]
fn figures_are_of_that_second_and_null_where_nothing_was_measured() {
    let mut site = site();
    site.answer(0, 990, 1_000);
    site.answer(0, 10, 50_000);
    site.snapshot.pools[0].backends[0].counts.attempts[1] = 3;
    site.snapshot.pools[0].backends[0].counts.wins[1] = 2;
    site.snapshot.pools[0].counts.hedges_denied = 1;
    site.snapshot.pools[0].tokens = 9;
    site.snapshot.pools[0].counts.in_flight.0 = 4;
    site.snapshot.counts.queries[..2].copy_from_slice(&[700, 300]);
    site.snapshot.counts.responses[ResponseSource::Backend as usize][..4].copy_from_slice(&[900, 0, 0, 90]);
    site.snapshot.counts.responses[ResponseSource::Cache as usize][0] = 10;
    // FORMERR, and a number that is not assigned.
    site.snapshot.counts.responses[ResponseSource::Error as usize][1] = 3;
    *site.snapshot.counts.responses[ResponseSource::Error as usize].last_mut().expect("others") = 4;
    site.snapshot.counts.dropped[DropReason::Late as usize] = 5;
    site.snapshot.cache = Some(cache(CacheStats { hits: 10, misses: 990, ..CacheStats::default() }));
    let second = site.second();
    assert_eq!((second.at, second.answers.queries, second.answers.responses["backend"]), (1_767_225_601, 1_000, 990));
    assert_eq!(
        (second.answers.responses["cache"], second.answers.responses["stale"], second.answers.dropped["late"]),
        (10, 0, 5)
    );
    let json = |counts: &std::collections::BTreeMap<String, u64>| serde_json::to_value(counts).expect("plain data");
    let rcodes = serde_json::json!({ "NOERROR": 910, "NXDOMAIN": 90, "SERVFAIL": 0, "REFUSED": 0, "other": 7 });
    assert_eq!(json(&second.answers.rcodes), rcodes);
    let transports = serde_json::json!({ "udp": 700, "tcp": 300, "tls": 0, "https": 0, "http": 0, "quic": 0 });
    assert_eq!(json(&second.answers.transports), transports);
    assert_eq!(second.cache.map(|cache| (cache.hits, cache.misses)), Some((10, 990)));
    let pool = &second.pools[0];
    assert_eq!((pool.queries, pool.attempts, pool.in_flight), (1_000, 1_003, 4));
    assert!(is_about(pool.p50_ms, 1.0) && is_about(pool.p99_ms, 1.0) && is_about(pool.p999_ms, 50.0), "{pool:?}");
    let hedges = pool.hedges;
    assert_eq!((hedges.sent, hedges.won, hedges.denied, hedges.tokens), (3, 2, 1, 9));
    let (asked, idle) = (&pool.backends[0], &pool.backends[1]);
    assert_eq!((&*asked.name, asked.attempts, asked.wins), ("ts1", 1_003, 1_002));
    assert!(is_about(asked.p50_ms, 1.0));
    assert_eq!((&*idle.name, idle.attempts, idle.p50_ms), ("ts2", 0, None));

    let next = site.second();
    assert_eq!((next.answers.queries, next.pools[0].queries, next.pools[0].hedges.sent), (0, 0, 0));
    assert_eq!((next.pools[0].p50_ms, next.pools[0].p999_ms, next.pools[0].in_flight), (None, None, 4));
}

#[test]
fn what_was_counted_before_the_start_is_no_part_of_it() {
    let mut snapshot = site().snapshot;
    snapshot.counts.queries[0] = 1_000_000;
    let mut site = Site::running(snapshot);
    site.answer(0, 7, 1_000);
    let mut site = Site::running(site.snapshot.clone());
    site.answer(0, 1, 1_000);
    let second = site.second();
    assert_eq!((second.answers.queries, second.pools[0].queries, second.pools[0].attempts), (0, 1, 1));
}

#[test]
fn what_another_process_has_counted_is_no_part_of_it() {
    let mut earlier = site();
    earlier.answer(0, 5_000, 80_000);
    earlier.snapshot.counts.queries[0] = 5_000;
    earlier.snapshot.pools[0].counts.hedges_denied = 50;
    earlier.snapshot.pools[0].backends[0].counts.errors = 8;
    let given = earlier.snapshot.clone();

    let mut site = site();
    site.answer(0, 10, 1_000);
    site.snapshot.counts.queries[0] = 10;
    site.second();
    // Counts are added as `Server::add_counted` does, beside other traffic.
    site.history.carry(&given);
    let measured = &earlier.snapshot.pools[0];
    let mut sum = measured.clone();
    std::mem::swap(&mut sum, &mut site.snapshot.pools[0]);
    let own = sum;
    site.snapshot.pools[0].counts.duration = added(&own.counts.duration, &measured.counts.duration);
    site.snapshot.pools[0].backends[0].counts.latency =
        added(&own.backends[0].counts.latency, &measured.backends[0].counts.latency);
    site.snapshot.pools[0].backends[0].counts.attempts[0] = own.backends[0].counts.attempts[0] + 5_000;
    site.snapshot.pools[0].backends[0].counts.wins[0] = own.backends[0].counts.wins[0] + 5_000;
    site.snapshot.counts.queries[0] = 5_010;
    site.answer(0, 3, 1_000);
    let second = site.second();
    assert_eq!((second.answers.queries, second.pools[0].queries, second.pools[0].hedges.denied), (0, 3, 0));
    let backend = &second.pools[0].backends[0];
    assert_eq!((backend.attempts, backend.errors), (3, 0));
    assert!(is_about(backend.p99_ms, 1.0), "{backend:?}");
    let minute = site.history.pool_minute(&site.snapshot.pools[0]).expect("it is kept");
    assert_eq!(minute.queries, 13);
    assert!(is_about(minute.p99_ms, 1.0), "{minute:?}");
}

fn added(one: &metrics::HistogramSnapshot, other: &metrics::HistogramSnapshot) -> metrics::HistogramSnapshot {
    let sum = Histogram::default();
    one.carry(&sum);
    other.carry(&sum);
    let mut snapshot = metrics::HistogramSnapshot::default();
    snapshot.collect(&sum);
    snapshot
}

#[test]
fn counters_that_begin_anew_count_from_nothing() {
    let mut site = site();
    site.answer(0, 1_000, 1_000);
    site.snapshot.pools[0].counts.hedges_denied = 100;
    site.snapshot.cache = Some(cache(CacheStats { hits: 100, ..CacheStats::default() }));
    site.second();
    // The pool was replaced between two seconds, and so was the cache.
    site.snapshot.pools[0] = pool("ts", vec![backend("ts1")]);
    site.snapshot.cache = Some(cache(CacheStats { hits: 3, ..CacheStats::default() }));
    site.answer(0, 4, 9_000);
    let second = site.second();
    let pool = &second.pools[0];
    assert_eq!((pool.queries, pool.attempts, pool.hedges.denied), (4, 4, 0));
    assert!(is_about(pool.p50_ms, 9.0) && is_about(pool.backends[0].p50_ms, 9.0), "{pool:?}");
    assert_eq!(second.cache.map(|cache| cache.hits), Some(3));
}

#[test]
fn pools_come_and_go_with_reloads() {
    let mut site = site();
    site.answer(0, 10, 1_000);
    site.second();
    site.snapshot.pools.insert(0, pool("new", vec![backend("a")]));
    site.answer(0, 5, 2_000);
    let second = site.second();
    assert_eq!((&*second.pools[0].name, second.pools[0].queries), ("new", 5), "all that a new pool has counted is new");
    assert_eq!(second.pools[1].queries, 0);

    let gone = site.snapshot.pools.pop().expect("there are two");
    site.second();
    assert_eq!(site.show(Span::TenMinutes).pools.len(), 1);
    site.snapshot.pools.push(gone);
    site.second();
    let history = site.show(Span::TenMinutes);
    let columns: Vec<_> = history.pools.iter().map(|pool| (&*pool.name, &*pool.queries)).collect();
    let expected: [(&str, &[Option<u64>]); 2] =
        [("new", &[None, Some(5), Some(0), Some(0)]), ("ts", &[Some(10), Some(0), None, Some(10)])];
    // All of its counts are newer than its return.
    assert_eq!(columns, expected);
    assert_eq!(history.at.len(), 4);
}

#[test]
fn pools_that_are_gone_make_room() {
    let many = |from: usize, count: usize| -> Vec<_> {
        (from..from + count).map(|number| pool(&format!("p{number}"), vec![backend("a")])).collect()
    };
    let mut site = Site::new(many(0, MAX_KEPT_POOLS + 4));
    site.second();
    let history = site.show(Span::TenMinutes);
    assert_eq!((history.pools.len(), history.more_pools), (MAX_KEPT_POOLS, 4));
    assert!(site.history.pool_minute(&site.snapshot.pools[MAX_KEPT_POOLS]).is_none(), "it is not kept");
    site.snapshot.pools = many(100, MAX_KEPT_POOLS);
    site.answer(3, 6, 1_000);
    site.second();
    let history = site.show(Span::TenMinutes);
    assert_eq!((history.pools.len(), history.more_pools), (MAX_KEPT_POOLS, 0));
    assert_eq!(history.pools[3].queries, [None, Some(6)]);
}

#[test]
fn backends_beyond_those_that_are_kept_have_counts_without_percentiles() {
    let backends = (0..MAX_KEPT_BACKENDS + 10).map(|number| backend(&format!("b{number}"))).collect();
    let mut site = Site::new(vec![pool("ts", backends)]);
    site.second();
    let last = MAX_KEPT_BACKENDS + 9;
    let measured = Histogram::default();
    measured.record(Duration::from_millis(1));
    let backend = &mut site.snapshot.pools[0].backends[last];
    (backend.state, backend.counts.errors, backend.counts.attempts[0]) = (BackendState::Down, 2, 5);
    backend.counts.latency.collect(&measured);
    let second = site.second();
    let pool = &second.pools[0];
    assert_eq!((pool.backends.len(), pool.more_backends), (64, 202));
    let worst = &pool.backends[0];
    assert_eq!((&*worst.name, &*worst.state, worst.errors, worst.attempts), ("b265", "down", 2, 5));
    assert_eq!((worst.p50_ms, pool.attempts), (None, 5));
    assert_eq!(pool.backends[1].name, "b0", "all others are alike, and stay in order");
    // A kept backend goes: another one takes its place.
    site.snapshot.pools[0].backends.remove(0);
    site.second();
    let find = |site: &Site, name: &str| {
        let backends = &site.snapshot.pools[0].backends;
        let backend = backends.iter().find(|backend| backend.name == name).expect("it is there");
        site.history.backend_minute("ts", backend).is_some()
    };
    assert!(find(&site, "b256") && !find(&site, "b257"));
}

#[test]
fn minutes_have_percentiles_of_their_own() {
    let mut site = site();
    for second in 0..130 {
        // One slow answer in the first minute, which only one second shows.
        site.answer(0, 10, if second == 20 { 500_000 } else { 1_000 });
        site.second();
    }
    let history = site.show(Span::Day);
    assert_eq!((history.step_seconds, history.at.len()), (60, 2));
    assert_eq!(history.at[1] - history.at[0], 60);
    let pool = &history.pools[0];
    assert_eq!(pool.queries, [Some(600), Some(600)]);
    assert!(is_about(pool.p50_ms[0], 1.0) && is_about(pool.p99_ms[0], 500.0), "{:?}", pool.p99_ms);
    assert!(is_about(pool.p99_ms[1], 1.0) && is_about(pool.p999_ms[1], 1.0), "{:?}", pool.p999_ms);
    assert_eq!((pool.backends.len(), history.backend_at.len()), (0, 0));

    let history = site.show(Span::TenMinutes);
    assert_eq!((history.step_seconds, history.at.len(), history.backend_step_seconds), (1, 130, 10));
    let backend = &history.pools[0].backends[0];
    assert_eq!((history.backend_at.len(), backend.p50_ms.len()), (13, 13));
    assert!(is_about(backend.p99_ms[2], 500.0) && is_about(backend.p99_ms[3], 1.0), "{:?}", backend.p99_ms);
    assert_eq!(history.pools[0].backends[1].p50_ms, [None; 13]);
}

#[test]
fn rings_hold_ten_minutes_and_a_day() {
    let mut site = site();
    // A second that ends a minute late is a minute, too.
    for step in std::iter::repeat_n(60, 1_500).chain(std::iter::repeat_n(1, 700)) {
        site.seconds += step;
        let (now, at) = (site.now(), site.at().as_secs());
        assert!(site.history.take(now, at, &site.snapshot));
    }
    let (seconds, minutes) = (site.show(Span::TenMinutes), site.show(Span::Day));
    assert_eq!((seconds.at.len(), minutes.at.len(), seconds.backend_at.len()), (600, 1_440, 60));
    assert_eq!(seconds.at[599] - seconds.at[0], 599);
    assert_eq!(minutes.at[1_439] - minutes.at[0], 1_439 * 60);
    assert_eq!(minutes.pools[0].queries.len(), 1_440);
}

#[test]
fn time_in_which_nobody_looked_shows_in_the_moments() {
    let mut site = site();
    site.second();
    site.seconds += 3_600;
    site.answer(0, 4, 1_000);
    let second = site.second();
    assert_eq!(second.pools[0].queries, 4);
    let history = site.show(Span::TenMinutes);
    assert_eq!(history.at[1] - history.at[0], 3_601);
    site.second();
    assert_eq!(site.show(Span::Day).at.len(), 1, "an hour that was slept through is one step");
}

#[test]
fn the_last_minute_forgets_what_is_older() {
    let mut site = site();
    site.answer(0, 100, 90_000);
    site.second();
    for _ in 0..80 {
        site.answer(0, 1, 1_000);
        site.second();
    }
    let pool = site.history.pool_minute(&site.snapshot.pools[0]).expect("it is kept");
    assert!((50..=60).contains(&pool.queries) && is_about(pool.p999_ms, 1.0), "{pool:?}");
    let backend = &site.snapshot.pools[0].backends[0];
    let minute = site.history.backend_minute("ts", backend).expect("it is kept");
    assert_eq!((minute.attempts, minute.wins), (pool.attempts, pool.queries));
    assert!(is_about(minute.p99_ms, 1.0), "{minute:?}");
}

/// Feeds a backend for some time, and returns for how many seconds it has been slow.
fn slow_for(site: &mut Site, seconds: u64, millis: &dyn Fn(u64) -> Option<u64>) -> u64 {
    for second in 0..seconds {
        if let Some(millis) = millis(second) {
            site.answer(0, 10, millis * 1_000);
        }
        site.second();
    }
    site.history.facts(site.at(), &site.snapshot).pools[0].backends[0].slow_for
}

#[test]
fn a_backend_is_slow_by_five_seconds_of_eight_against_its_own_usual() {
    // The usual median is known after a minute; 5 ms: the bound is 25 ms.
    for (usual_for, now, is_slow) in [(120, 27, true), (120, 23, false), (49, 27, false)] {
        let mut site = site();
        assert_eq!(slow_for(&mut site, usual_for, &|_| Some(5)), 0);
        assert_eq!(slow_for(&mut site, 5, &|_| Some(now)) > 0, is_slow, "{now} ms after {usual_for} s");
    }
    let mut site = site();
    slow_for(&mut site, 120, &|_| Some(5));
    assert_eq!(slow_for(&mut site, 4, &|_| Some(90)), 0, "four seconds are chance");
    assert_eq!(slow_for(&mut site, 40, &|second| Some(if second % 2 == 0 { 90 } else { 5 })), 0, "and half of them");
}

#[test]
fn a_slow_backend_stays_slow_until_it_is_not_or_that_is_usual() {
    let mut site = site();
    slow_for(&mut site, 120, &|_| Some(5));
    assert!(slow_for(&mut site, 1_500, &|_| Some(90)) > 1_400, "far longer than what is usual is looked at");
    assert_eq!(slow_for(&mut site, 8, &|_| Some(5)), 0, "well again");
    assert!(slow_for(&mut site, 20, &|_| Some(90)) > 0);
    assert_eq!(slow_for(&mut site, 10, &|_| None), 0, "nothing is known of one that is not asked");
    assert!(slow_for(&mut site, 3_000, &|_| Some(90)) > 0);
    assert_eq!(slow_for(&mut site, 1_500, &|_| Some(90)), 0, "after an hour that is how it is");
}

#[test]
fn changes_between_up_and_down_count_unless_they_are_by_hand() {
    use BackendState::{Behind, Down, Draining, New, Up};
    let flaps = |states: &[(BackendState, bool)]| {
        let mut site = site();
        for &(state, by_hand) in states {
            let backend = &mut site.snapshot.pools[0].backends[0];
            (backend.state, backend.by_hand) = (state, by_hand);
            site.second();
        }
        let flaps = site.history.facts(site.at(), &site.snapshot).pools[0].backends[0].flaps;
        let second = site.history.second(0, &site.snapshot, Verdict::default());
        assert_eq!(second.pools[0].backends[0].is_flapping, flaps.is_some());
        flaps.map(|flaps| (flaps.within.as_secs(), flaps.ago.as_secs()))
    };
    let by_probes = |states: &[BackendState]| flaps(&states.iter().map(|state| (*state, false)).collect::<Vec<_>>());
    assert_eq!(by_probes(&[Down, Down, Up, Down, Behind, Up]), Some((4, 1)));
    assert_eq!(by_probes(&[Down, Up, Down]), None, "three changes");
    assert_eq!(by_probes(&[Down, Draining, Down, New, Up, Behind, Down]), None, "the same three");
    assert_eq!(flaps(&[(Down, false), (Up, true), (Down, true), (Up, false), (Down, true)]), None);
}

#[test]
fn a_backend_fails_by_ten_seconds_until_as_many_attempts_do_well() {
    let mut site = site();
    let mut failed = |attempts: u64, errors: u64, seconds: u64| {
        for _ in 0..seconds {
            let backend = &mut site.snapshot.pools[0].backends[0];
            backend.counts.attempts[0] += attempts;
            backend.counts.errors += errors;
            site.second();
        }
        let failed = site.history.facts(site.at(), &site.snapshot).pools[0].backends[0].failed;
        failed.map(|failed| (failed.attempts, failed.failures, failed.ago.as_secs()))
    };
    assert_eq!(failed(2, 1, 10), None, "half of them");
    assert_eq!(failed(2, 2, 1), Some((20, 11, 0)));
    assert_eq!(failed(2, 2, 9), Some((20, 20, 0)));
    assert_eq!(failed(0, 0, 30), Some((20, 20, 30)), "too few to know better");
    assert_eq!(failed(30, 0, 1), None);
    assert_eq!(failed(1, 1, 30), None, "too few");
}
