//! The display of a history for the page, `top` and `ctl`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::steps::{BackendStep, Percentile, PoolStep, ServerStep, StepRing};
use super::tracks::{BackendTrack, PoolTrack};
use super::{History, is_sick};
use crate::metrics::{BackendSnapshot, DropReason, PoolSnapshot, ResponseSource, Snapshot};
use crate::sight::live::{
    self, BackendHistory, BackendSecond, CacheHistory, CacheSecond, HedgesHistory, HedgesSecond, MAX_BACKENDS,
    PoolHistory, PoolSecond, Second, Span, Verdict,
};

impl History {
    /// Returns the last second, which ends at `at`; before the first one has ended all figures are 0.
    pub fn second(&self, at: u64, snapshot: &Snapshot, verdict: Verdict) -> Second {
        let latest = self.seconds.iter().next_back().copied().unwrap_or_default();
        let counts = |counts: &[u32], labels: &[&'static str]| {
            labels.iter().zip(counts).map(|(label, count)| ((*label).to_owned(), u64::from(*count))).collect()
        };
        let cache = |[hits, stale_hits, misses]: [u32; 3]| CacheSecond {
            hits: hits.into(),
            stale_hits: stale_hits.into(),
            misses: misses.into(),
        };
        Second {
            at,
            verdict,
            queries: latest.queries.into(),
            responses: counts(&latest.responses, &ResponseSource::ALL.map(ResponseSource::label)),
            failures: latest.failures.into(),
            dropped: counts(&latest.dropped, &DropReason::ALL.map(DropReason::label)),
            cache: snapshot.cache.as_ref().map(|_| latest.cache.map(cache).unwrap_or_default()),
            pools: snapshot.pools.iter().filter_map(|pool| self.pool_second(pool)).collect(),
        }
    }

    fn pool_second(&self, pool: &PoolSnapshot) -> Option<PoolSecond> {
        let PoolStep { queries, attempts, sent, won, denied, p50, p99, p999, .. } = self.pool(&pool.name)?.latest;
        let mut backends: Vec<_> = pool.backends.iter().collect();
        let more_backends = backends.len().saturating_sub(MAX_BACKENDS) as u64;
        // The sort is stable: equal backends keep the order of the config.
        backends.sort_by_cached_key(|backend| Reverse(self.badness(&pool.name, backend)));
        backends.truncate(MAX_BACKENDS);
        Some(PoolSecond {
            name: pool.name.clone(),
            queries: queries.into(),
            attempts: attempts.into(),
            in_flight: pool.counts.in_flight.0,
            p50_ms: p50.millis(),
            p99_ms: p99.millis(),
            p999_ms: p999.millis(),
            hedges: HedgesSecond { sent: sent.into(), won: won.into(), denied: denied.into(), tokens: pool.tokens },
            backends: backends.into_iter().map(|backend| self.backend_second(&pool.name, backend)).collect(),
            more_backends,
        })
    }

    /// Returns a sort key: sick, slow, failing, then the time to reply. That is a bucket of the last minute,
    /// because one of the second would change the order all the time.
    fn badness(&self, pool: &str, backend: &BackendSnapshot) -> (bool, bool, bool, Option<Percentile>) {
        let track = self.backends.find(pool, backend);
        let kept = track.and_then(|track| track.kept.as_ref());
        let has_failed = track.is_some_and(|track| track.latest.errors + track.latest.timeouts > 0);
        let latest = kept.and_then(|kept| kept.steps.iter().next_back());
        let p99 = latest.map(|step| step.p99).filter(|p99| *p99 != Percentile::NONE);
        (is_sick(backend.state), kept.is_some_and(|kept| kept.slow_for > 0), has_failed, p99)
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
            in_flight: backend.counts.in_flight.0,
            p50_ms: kept.and_then(|kept| kept.p50.millis()),
            p99_ms: kept.and_then(|kept| kept.p99.millis()),
        }
    }

    /// Returns the whole history.
    pub fn show(&self, span: Span, snapshot: &Snapshot) -> live::HistoryFigures {
        let steps = match span {
            Span::TenMinutes => &self.seconds,
            Span::Day => &self.minutes,
        };
        let column = |of: &dyn Fn(&ServerStep) -> u32| steps.iter().map(|step| of(step).into()).collect::<Vec<u64>>();
        let columns = |labels: &[&'static str], of: fn(&ServerStep, usize) -> u32| -> BTreeMap<String, Vec<u64>> {
            let column = |place| column(&move |step| of(step, place));
            labels.iter().enumerate().map(|(place, label)| ((*label).to_owned(), column(place))).collect()
        };
        let cache = |place: usize| steps.iter().map(|step| step.cache.map(|cache| cache[place].into())).collect();
        let has_backends = span == Span::TenMinutes;
        let kept = |pool: &&PoolSnapshot| self.pool(&pool.name).is_some_and(|track| track.kept.is_some());
        let pools: Vec<_> = snapshot.pools.iter().filter(kept).collect();
        live::HistoryFigures {
            step_seconds: span.step_seconds(),
            at: steps.iter().map(|step| step.at).collect(),
            verdict: steps.iter().map(|step| step.verdict).collect(),
            queries: column(&|step| step.queries),
            responses: columns(&ResponseSource::ALL.map(ResponseSource::label), |step, place| step.responses[place]),
            failures: column(&|step| step.failures),
            dropped: columns(&DropReason::ALL.map(DropReason::label), |step, place| step.dropped[place]),
            cache: snapshot.cache.as_ref().map(|_| CacheHistory {
                hits: cache(0),
                stale_hits: cache(1),
                misses: cache(2),
            }),
            more_pools: (snapshot.pools.len() - pools.len()) as u64,
            pools: pools.into_iter().filter_map(|pool| self.pool_history(span, pool)).collect(),
            backend_step_seconds: 10,
            backend_at: if has_backends { self.tens.iter().copied().collect() } else { Vec::new() },
        }
    }

    fn pool_history(&self, span: Span, pool: &PoolSnapshot) -> Option<PoolHistory> {
        let track: &PoolTrack = self.pool(&pool.name)?;
        let kept = track.kept.as_ref()?;
        let (steps, length) = match span {
            Span::TenMinutes => (&kept.seconds, self.seconds.len()),
            Span::Day => (&kept.minutes, self.minutes.len()),
        };
        let counts =
            |of: fn(&PoolStep) -> u32| padded(steps, length, |step| step.is_there.then(|| u64::from(of(step))));
        let times = |of: fn(&PoolStep) -> Percentile| padded(steps, length, |step| of(step).millis());
        let backends = match span {
            Span::TenMinutes => {
                let tracks = pool.backends.iter().filter_map(|backend| {
                    Some((backend, self.backends.find(&pool.name, backend).filter(|track| track.kept.is_some())?))
                });
                tracks.filter_map(|(backend, track)| self.backend_history(backend, track)).collect()
            }
            Span::Day => Vec::new(),
        };
        Some(PoolHistory {
            name: pool.name.clone(),
            queries: counts(|step| step.queries),
            attempts: counts(|step| step.attempts),
            in_flight: counts(|step| step.in_flight),
            p50_ms: times(|step| step.p50),
            p99_ms: times(|step| step.p99),
            p999_ms: times(|step| step.p999),
            hedges: HedgesHistory {
                sent: counts(|step| step.sent),
                won: counts(|step| step.won),
                denied: counts(|step| step.denied),
                tokens: counts(|step| step.tokens),
            },
            more_backends: (pool.backends.len() - backends.len()) as u64,
            backends,
        })
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

/// Returns a column as long as that of the server: a later pool has no values at first.
fn padded<T, V>(steps: &StepRing<T>, length: usize, of: impl Fn(&T) -> Option<V>) -> Vec<Option<V>> {
    let missing = length.saturating_sub(steps.len());
    std::iter::repeat_with(|| None).take(missing).chain(steps.iter().map(of)).collect()
}
