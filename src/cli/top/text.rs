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
    let pools = POOL_FIGURES.iter().fold(pools, |table, figure| table.right(figure.head, |pool| (figure.text)(pool)));
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

/// A column of numbers.
pub(super) struct Figure<T> {
    pub(super) head: &'static str,
    /// The width on the screen, in columns.
    pub(super) width: u16,
    /// The importance: on a narrow screen the column of the highest rank is left out first.
    pub(super) rank: u8,
    pub(super) text: fn(&T) -> String,
}

pub(super) const POOL_FIGURES: [Figure<PoolSecond>; 9] = [
    Figure { head: "Q/S", width: 6, rank: 0, text: |pool| count(pool.queries) },
    Figure { head: "IN FLIGHT", width: 9, rank: 7, text: |pool| count(pool.in_flight) },
    Figure { head: "P50 ms", width: 6, rank: 2, text: |pool| ms(pool.p50_ms) },
    Figure { head: "P99 ms", width: 6, rank: 1, text: |pool| ms(pool.p99_ms) },
    Figure { head: "P99.9 ms", width: 8, rank: 3, text: |pool| ms(pool.p999_ms) },
    Figure { head: "HEDGES", width: 6, rank: 4, text: |pool| count(pool.hedges.sent) },
    Figure { head: "WON", width: 5, rank: 5, text: |pool| count(pool.hedges.won) },
    Figure { head: "DENIED", width: 6, rank: 6, text: |pool| count(pool.hedges.denied) },
    Figure { head: "TOKENS", width: 6, rank: 8, text: |pool| count(pool.hedges.tokens) },
];

#[cfg(test)]
mod tests;
