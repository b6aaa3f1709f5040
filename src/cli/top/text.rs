//! One page of plain text for pipes and scripts: the verdict with its reasons, then tables without frames.

use super::look::{TerminalStyle, count, ms};
use super::state::worst_first;
use crate::cli::ctl::connection::AdminTarget;
use crate::cli::ctl::table::{TextTable, time};
use crate::control::observe::sight::live::{PoolSecond, Second};

pub(super) fn verdict_for(second: &Second) -> Option<String> {
    let since = Some(second.verdict.since).filter(|since| *since > 0)?;
    Some(time(second.at.saturating_sub(since)))
}

pub(super) fn page(second: &Second, target: &AdminTarget) -> String {
    // A pipe accepts all of UTF-8.
    let look = TerminalStyle { has_colors: false, is_ascii: false };
    let time = verdict_for(second).map(|time| format!(" for {time}")).unwrap_or_default();
    let mut text = format!("{}{time}  {target}\n", second.verdict.state.label());
    for reason in &second.verdict.reasons {
        text.push_str(&format!("  {}: {}\n", reason.code, look.text(&reason.text)));
    }
    text.push_str(&format!("\n{}\n", totals(second)));
    if second.pools.is_empty() {
        return text;
    }
    let pools = TextTable::of(&second.pools).left("POOL", |pool| look.text(&pool.name));
    let pools = POOL_FIGURES.iter().fold(pools, |table, (head, _, figure)| table.right(head, |pool| figure(pool)));
    let backends = second.pools.iter().flat_map(|pool| {
        let mut backends: Vec<_> = pool.backends.iter().collect();
        backends.sort_by(|a, b| worst_first(a, b));
        backends.into_iter().map(move |backend| (pool, backend))
    });
    let backends = TextTable::of(backends)
        .left("POOL/BACKEND", |(pool, backend)| format!("{}/{}", look.text(&pool.name), look.text(&backend.name)))
        .right("STATE", |(_, backend)| &backend.state)
        .right("Q/S", |(_, backend)| count(backend.attempts))
        .right("WINS", |(_, backend)| count(backend.wins))
        .right("ERRORS", |(_, backend)| count(backend.errors))
        .right("TIMEOUTS", |(_, backend)| count(backend.timeouts))
        .right("IN FLIGHT", |(_, backend)| count(backend.in_flight))
        .right("P50 ms", |(_, backend)| ms(backend.p50_ms))
        .right("P99 ms", |(_, backend)| ms(backend.p99_ms));
    text.push_str(&format!("\n{}\n\n{}\n", pools.text(), backends.text()));
    let more: u64 = second.pools.iter().map(|pool| pool.more_backends).sum();
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

pub(super) fn totals(second: &Second) -> String {
    let named = |counts: &std::collections::BTreeMap<String, u64>| {
        // Late replies of hedges are no loss and are shown separately.
        let counts = counts.iter().filter(|(name, count)| **count > 0 && *name != LATE);
        counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = vec![format!("{} queries a second", second.answers.queries)];
    let (responses, dropped) = (named(&second.answers.responses), named(&second.answers.dropped));
    parts.extend((!responses.is_empty()).then(|| format!("answers: {responses}")));
    parts.extend((!dropped.is_empty()).then(|| format!("dropped: {dropped}")));
    let late = second.answers.dropped.get(LATE).copied().unwrap_or_default();
    parts.extend((late > 0).then(|| format!("late replies {late}")));
    parts.extend((second.answers.failures > 0).then(|| format!("failures {}", second.answers.failures)));
    if let Some(cache) = &second.cache {
        let looked_up = cache.hits + cache.stale_hits + cache.misses;
        let share = |count: u64| 100.0 * count as f64 / looked_up.max(1) as f64;
        parts.extend((looked_up > 0).then(|| format!("cache hits {:.1} %", share(cache.hits))));
        // These hits also cause a query to a backend.
        parts.extend((cache.stale_hits > 0).then(|| format!("stale hits {:.1} %", share(cache.stale_hits))));
    }
    parts.join("; ")
}

/// The label of replies that arrive after the response of their race.
const LATE: &str = "late";

/// The head of a figure, its width on the screen, and its text.
type PoolFigure = (&'static str, u16, fn(&PoolSecond) -> String);

pub(super) const POOL_FIGURES: [PoolFigure; 9] = [
    ("Q/S", 6, |pool| count(pool.queries)),
    ("IN FLIGHT", 9, |pool| count(pool.in_flight)),
    ("P50 ms", 6, |pool| ms(pool.p50_ms)),
    ("P99 ms", 6, |pool| ms(pool.p99_ms)),
    ("P99.9 ms", 8, |pool| ms(pool.p999_ms)),
    ("HEDGES", 6, |pool| count(pool.hedges.sent)),
    ("WON", 5, |pool| count(pool.hedges.won)),
    ("DENIED", 6, |pool| count(pool.hedges.denied)),
    ("TOKENS", 6, |pool| count(pool.hedges.tokens)),
];

#[cfg(test)]
mod tests;
