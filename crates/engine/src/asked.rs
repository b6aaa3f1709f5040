//! The facts that an explained question reports: what the engine knew before it asked a backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hedge::balance::Balance;
use hedge::latency::MIN_SAMPLES;
use hedge::ordering::BackendStats;
use hedge::race::{BackendIndex, Candidates};
use hedge::{Dispatch, HedgeDelay};
use metrics::BackendState;

use super::cached::PoolCache;
use super::explain::millis;
use super::pool::Pool;
use super::queries::ValidQuery;
use crate::cache::State;
use crate::explanation::{CacheSeen, Candidate};
use crate::state::{ForwarderState, SharedBackend, SharedPool};

pub(super) fn seen_in_cache(state: &ForwarderState, valid: &ValidQuery<'_>, now: Instant) -> CacheSeen {
    let ValidQuery { question, pool, .. } = *valid;
    let Some(cached) = PoolCache::of(state, &state.pools[pool.0]) else {
        return CacheSeen { state: "off".to_owned(), ..CacheSeen::default() };
    };
    let Some(entry) = cached.cache.peek(&cached.key(question), cached.rules, now) else {
        return CacheSeen { state: "none".to_owned(), ..CacheSeen::default() };
    };
    let state = match entry.state {
        State::Dead => "none",
        State::Answer if entry.fresh_for.is_zero() => "stale",
        State::Answer => "fresh",
        State::Failure => "failure",
        State::Silence => "silence",
    };
    CacheSeen {
        state: state.to_owned(),
        ttl_seconds: Some(entry.fresh_for.as_millis().div_ceil(1_000) as u64),
        stale_seconds: Some(entry.stale_for.as_secs()),
        hits: Some(entry.hits),
    }
}

pub(super) fn known_backends<'a>(
    pool: &Pool,
    backends: impl Iterator<Item = &'a Arc<SharedBackend>>,
    now: Instant,
) -> Vec<(Arc<SharedBackend>, Candidate)> {
    let rules = pool.plan.shared.rules();
    let seen = backends.map(|backend| {
        let number = backend.index;
        let part = |part| pool.latency[number.get()].quantile(part).map(millis);
        let stats = BackendStats { loads: &pool.loads, latency: &pool.latency, now };
        let is_stalled = stats.is_stalled(number, rules.race.attempt_timeout.longest());
        let why = if is_stalled { silent_for(stats.silence(number)) } else { String::new() };
        let candidate = Candidate {
            backend: backend.name.clone(),
            place: None,
            state: backend.state().label().to_owned(),
            tier: pool.plan.shared.tier(number),
            p50_ms: part(0.5),
            p99_ms: part(0.99),
            in_flight: backend.counted().map(|worker| worker.pending.in_flight.get()).sum(),
            why,
        };
        (Arc::clone(backend), candidate)
    });
    seen.collect()
}

/// Orders the backends as a race asks them, with the reasons. Backends that it does not ask come last.
pub(super) fn ordered(
    pool: &Pool,
    known: Vec<(Arc<SharedBackend>, Candidate)>,
    candidates: &Candidates,
) -> Vec<Candidate> {
    let balance = pool.plan.shared.rules().race.balance;
    let hedge = candidates.next_hedge();
    let mut ordered = known;
    for (backend, candidate) in &mut ordered {
        let place = candidates.iter().position(|asked| asked == backend.index);
        candidate.place = place.map(|place| place as u8 + 1);
        let is_hedge = place.is_some() && hedge == Some(backend.index);
        let silent = std::mem::take(&mut candidate.why);
        candidate.why = match (place, backend.state()) {
            (Some(_), _) if candidates.all_down() => "no backend is up, so all are asked".to_owned(),
            (Some(place), _) if !silent.is_empty() && place > 0 => format!("{silent}, so others come first"),
            (Some(0), _) if !silent.is_empty() => format!("{silent}, as the others are"),
            (Some(0), _) if candidate.tier > 0 => {
                let min_up = pool.plan.shared.rules().min_up;
                let tier = candidate.tier;
                format!("spare of tier {tier}, fewer than {min_up} of lower tiers are up; {}", first_because(balance))
            }
            (Some(0), _) => first_because(balance).to_owned(),
            (Some(_), BackendState::Behind) if candidates.is_last(backend.index) => {
                "behind: its zones are older than those of others, which come first".to_owned()
            }
            (Some(_), _) if candidates.is_last(backend.index) => {
                let min_up = pool.plan.shared.rules().min_up;
                let hedge = if is_hedge { ", a hedge would go here" } else { "" };
                format!("spare of tier {}: {min_up} or more of lower tiers are up{hedge}", candidate.tier)
            }
            (Some(_), _) if is_hedge && pool.plan.shared.rules().race.dispatch.is_hedging() => {
                "a hedge would go here".to_owned()
            }
            (Some(_), _) => then_because(balance).to_owned(),
            (None, BackendState::Down) => "down: asked when no backend is up".to_owned(),
            (None, BackendState::New) => "new: no probe was answered yet".to_owned(),
            (None, BackendState::Draining) => "draining: gets no queries any more".to_owned(),
            (None, BackendState::Behind) => "behind: its zones are older than those of others".to_owned(),
            (None, BackendState::Up) => "a race asks eight at most".to_owned(),
        };
    }
    ordered.sort_by_key(|(_, candidate)| candidate.place.unwrap_or(u8::MAX));
    ordered.into_iter().map(|(_, candidate)| candidate).collect()
}

pub(super) fn hedge_delay_of(pool: &Pool, backend: BackendIndex) -> (Duration, String) {
    let rules = &pool.plan.shared.rules().race;
    let (hedge, latency) = (&rules.hedge, &pool.latency[backend.get()]);
    let delay = rules.hedge_delay(latency);
    let name = &pool.backend(backend).name;
    if let (Dispatch::Auto, Some(tuned)) = (rules.dispatch, latency.tuned()) {
        let (part, target) = (percent(tuned.probability.into()), percent(hedge.target));
        let best = format!("best for p{target}, for {part} % of the races that begin at {name}");
        return (delay, format!("{best}{}", expected(&pool.plan.shared)));
    }
    let of = match hedge.delay {
        HedgeDelay::Fixed(_) => return (delay, "hedge.delay".to_owned()),
        HedgeDelay::Percentile(part) => format!("p{} of {name}", percent(part)),
        HedgeDelay::Auto => {
            format!("what the budget of {} % pays, by the latency of {name}", percent(hedge.budget))
        }
    };
    let from = if latency.quantile(0.5).is_none() {
        format!("hedge.max_delay, as {name} has given fewer than {MIN_SAMPLES} replies recently")
    } else if delay == hedge.min_delay {
        format!("hedge.min_delay, as {of} is less")
    } else if delay == hedge.max_delay {
        format!("hedge.max_delay, as {of} is more")
    } else {
        of
    };
    (delay, from)
}

/// Formats what the hedges of a pool shall achieve, and have achieved.
fn expected(pool: &SharedPool) -> String {
    let Some(tuning) = pool.tuning() else { return String::new() };
    let extra = percent(tuning.extra_load);
    let expected = tuning.expected_ms.map_or_else(String::new, |time| format!("; expected {time:.2} ms"));
    let achieved = pool.state.regret.latest().map(|regret| format!(", achieved {:.2} ms", millis(regret.achieved)));
    format!("{expected} with {extra} % more load{}", achieved.unwrap_or_default())
}

fn percent(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn silent_for(silence: Duration) -> String {
    format!("silent for {} ms", silence.as_millis())
}

fn first_because(balance: Balance) -> &'static str {
    match balance {
        Balance::Ordered => "first of the config that is up",
        Balance::RoundRobin => "its turn",
        Balance::Random => "drawn by chance",
        Balance::Sticky => "the name lives here, or it was its turn",
        Balance::Hash => "first by the hash of the name",
        Balance::LeastLoad => "least in flight, then fewest errors",
        Balance::Fastest => "the better of two drawn by chance",
    }
}

fn then_because(balance: Balance) -> &'static str {
    match balance {
        Balance::Ordered => "next of the config",
        Balance::RoundRobin | Balance::Sticky => "its turn comes next",
        Balance::Random => "drawn by chance",
        Balance::Hash => "next by the hash of the name",
        Balance::LeastLoad => "next by load and errors",
        Balance::Fastest => "next by latency and load",
    }
}
