//! The display of a history for the page, `top` and `ctl`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use dns::Transport;
use metrics::{BackendSnapshot, DropReason, PoolSnapshot, ResponseSource, Snapshot};

use super::History;
use super::steps::{BackendStep, Percentile, PoolStep, RCODES, ServerStep, ServerTotals};
use super::tracks::BackendTrack;
use crate::control::observe::sight::live::{
    AnswerCounts, BackendHistory, BackendSecond, CacheLookups, Column, HedgeFigures, HistoryFigures, MAX_BACKENDS,
    PoolFigures, PoolHistory, PoolSecond, Second, Span, Verdict,
};

impl History {
    /// Returns the last second, which ends at `at`; before the first one has ended all figures are 0.
    pub fn second(&self, at: u64, snapshot: &Snapshot, verdict: Verdict) -> Second {
        let ServerStep { counts, .. } = self.seconds.back().copied().unwrap_or_default();
        let [hits, stale_hits, misses] = counts.cache.unwrap_or_default();
        Second {
            at,
            verdict,
            answers: AnswerCounts {
                queries: counts.all_queries(),
                transports: by_label(&Transport::ALL.map(Transport::label), |place| counts.queries[place]),
                responses: by_label(&ResponseSource::ALL.map(ResponseSource::label), |place| counts.responses[place]),
                rcodes: by_rcode(|place| counts.rcodes[place]),
                failures: counts.failures,
                dropped: by_label(&DropReason::ALL.map(DropReason::label), |place| counts.dropped[place]),
            },
            cache: snapshot.cache.as_ref().map(|_| CacheLookups { hits, stale_hits, misses }),
            pools: snapshot.pools.iter().filter_map(|pool| self.pool_second(pool)).collect(),
        }
    }

    fn pool_second(&self, pool: &PoolSnapshot) -> Option<PoolSecond> {
        let latest = &self.pool(&pool.name)?.latest;
        let mut backends: Vec<_> = pool.backends.iter().collect();
        // The sort is stable: equal backends keep the order of the config.
        backends.sort_by_cached_key(|backend| Reverse(self.badness(&pool.name, backend)));
        backends.truncate(MAX_BACKENDS);
        let backends = backends.into_iter().map(|backend| self.backend_second(&pool.name, backend)).collect();
        Some(pool_figures(pool, |of| of(latest).into(), |of| of(latest).millis(), backends))
    }

    /// Returns a sort key: sick, flapping, slow, failing, then the time to reply. That is a bucket of the
    /// last minute, because one of the second would change the order all the time.
    fn badness(&self, pool: &str, backend: &BackendSnapshot) -> (bool, bool, bool, bool, Option<Percentile>) {
        let track = self.backends.find(pool, backend);
        let kept = track.and_then(|track| track.kept.as_ref());
        let has_failed = track.is_some_and(|track| track.latest.errors + track.latest.timeouts > 0);
        let latest = kept.and_then(|kept| kept.steps.back());
        let p99 = latest.map(|step| step.p99).filter(|p99| *p99 != Percentile::NONE);
        let is_flapping = track.is_some_and(BackendTrack::is_flapping);
        (!backend.state.is_up(), is_flapping, kept.is_some_and(|kept| kept.slow_for > 0), has_failed, p99)
    }

    fn backend_second(&self, pool: &str, backend: &BackendSnapshot) -> BackendSecond {
        let track = self.backends.find(pool, backend);
        let latest = track.map(|track| track.latest).unwrap_or_default();
        let kept = track.and_then(|track| track.kept.as_ref());
        BackendSecond {
            name: backend.name.clone(),
            state: backend.state.label().to_owned(),
            attempts: latest.attempts,
            wins: latest.wins,
            errors: latest.errors,
            timeouts: latest.timeouts,
            in_flight: backend.counts.pending.in_flight.0,
            p50_ms: kept.and_then(|kept| kept.p50.millis()),
            p99_ms: kept.and_then(|kept| kept.p99.millis()),
            is_flapping: track.is_some_and(BackendTrack::is_flapping),
        }
    }

    /// Returns the whole history.
    pub fn show(&self, span: Span, snapshot: &Snapshot) -> HistoryFigures {
        let steps = match span {
            Span::TenMinutes => &self.seconds,
            Span::Day => &self.minutes,
        };
        fn column(steps: &VecDeque<ServerStep>, of: impl Fn(&ServerTotals) -> u64) -> Vec<u64> {
            steps.iter().map(|step| of(&step.counts)).collect()
        }
        let cache = |place: usize| steps.iter().map(|step| step.counts.cache.map(|cache| cache[place])).collect();
        let kept = |pool: &&PoolSnapshot| self.pool(&pool.name).is_some_and(|track| track.kept.is_some());
        let pools: Vec<_> = snapshot.pools.iter().filter(kept).collect();
        HistoryFigures {
            step_seconds: span.step_seconds(),
            at: steps.iter().map(|step| step.at).collect(),
            verdict: steps.iter().map(|step| step.verdict).collect(),
            answers: AnswerCounts {
                queries: column(steps, ServerTotals::all_queries),
                transports: by_label(&Transport::ALL.map(Transport::label), |place| {
                    column(steps, |counts| counts.queries[place])
                }),
                responses: by_label(&ResponseSource::ALL.map(ResponseSource::label), |place| {
                    column(steps, |counts| counts.responses[place])
                }),
                rcodes: by_rcode(|place| column(steps, |counts| counts.rcodes[place])),
                failures: column(steps, |counts| counts.failures),
                dropped: by_label(&DropReason::ALL.map(DropReason::label), |place| {
                    column(steps, |counts| counts.dropped[place])
                }),
            },
            cache: snapshot.cache.as_ref().map(|_| CacheLookups {
                hits: cache(0),
                stale_hits: cache(1),
                misses: cache(2),
            }),
            more_pools: (snapshot.pools.len() - pools.len()) as u64,
            pools: pools.into_iter().filter_map(|pool| self.pool_history(span, pool)).collect(),
            backend_step_seconds: 10,
            backend_at: match span {
                Span::TenMinutes => self.tens.iter().copied().collect(),
                Span::Day => Vec::new(),
            },
        }
    }

    fn pool_history(&self, span: Span, pool: &PoolSnapshot) -> Option<PoolHistory> {
        let kept = self.pool(&pool.name)?.kept.as_ref()?;
        let find = |backend| Some((backend, self.backends.find(&pool.name, backend)?));
        let history = |(backend, track)| self.backend_history(backend, track);
        let (steps, length, backends) = match span {
            Span::TenMinutes => {
                let backends = pool.backends.iter().filter_map(find).filter_map(history).collect();
                (&kept.seconds, self.seconds.len(), backends)
            }
            Span::Day => (&kept.minutes, self.minutes.len(), Vec::new()),
        };
        Some(pool_figures(
            pool,
            |of| padded(steps, length, |step| step.is_there.then(|| u64::from(of(step)))),
            |of| padded(steps, length, |step| of(step).millis()),
            backends,
        ))
    }

    fn backend_history(&self, backend: &BackendSnapshot, track: &BackendTrack) -> Option<BackendHistory> {
        let (steps, length) = (&track.kept.as_ref()?.steps, self.tens.len());
        let counts = |of: fn(&BackendStep) -> u32| padded(steps, length, |step| Some(u64::from(of(step))));
        let times = |of: fn(&BackendStep) -> Percentile| padded(steps, length, |step| of(step).millis());
        Some(BackendHistory {
            name: backend.name.clone(),
            p50_ms: times(|step| step.p50),
            p99_ms: times(|step| step.p99),
            errors: counts(|step| step.errors),
            timeouts: counts(|step| step.timeouts),
        })
    }
}

/// Returns the figures of a pool: each count and each time is read from one step, or from all.
fn pool_figures<N, T, B>(
    pool: &PoolSnapshot,
    count: impl Fn(fn(&PoolStep) -> u32) -> N,
    time: impl Fn(fn(&PoolStep) -> Percentile) -> T,
    backends: Vec<B>,
) -> PoolFigures<N, T, B> {
    PoolFigures {
        name: pool.name.clone(),
        queries: count(|step| step.queries),
        attempts: count(|step| step.attempts),
        in_flight: count(|step| step.in_flight),
        p50_ms: time(|step| step.p50),
        p99_ms: time(|step| step.p99),
        p999_ms: time(|step| step.p999),
        hedges: HedgeFigures {
            sent: count(|step| step.sent),
            won: count(|step| step.won),
            denied: count(|step| step.denied),
            tokens: count(|step| step.tokens),
        },
        more_backends: (pool.backends.len() - backends.len()) as u64,
        backends,
    }
}

fn by_rcode<V>(value: impl Fn(usize) -> V) -> BTreeMap<String, V> {
    rcode_labels().into_iter().enumerate().map(|(place, label)| (label, value(place))).collect()
}

pub(super) fn rcode_labels() -> [String; RCODES.len() + 1] {
    std::array::from_fn(|place| RCODES.get(place).map_or_else(|| "other".to_owned(), ToString::to_string))
}

fn by_label<V>(labels: &[&str], value: impl Fn(usize) -> V) -> BTreeMap<String, V> {
    labels.iter().enumerate().map(|(place, label)| ((*label).to_owned(), value(place))).collect()
}

/// Returns a column as long as that of the server: a later pool has no values at first.
fn padded<T, V>(steps: &VecDeque<T>, length: usize, of: impl Fn(&T) -> Option<V>) -> Column<V> {
    let missing = length.saturating_sub(steps.len());
    std::iter::repeat_with(|| None).take(missing).chain(steps.iter().map(of)).collect()
}
