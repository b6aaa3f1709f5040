//! One page of plain text for pipes and scripts: the verdict with its reasons, then tables without frames.

use comfy_table::CellAlignment;

use super::look::{TerminalStyle, count, ms};
use super::state::worst_first;
use crate::cli::ctl::connection::AdminTarget;
use crate::cli::ctl::table::{Column, table, time};
use crate::sight::live::{PoolSecond, Second};

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
    let pools = second.pools.iter().map(|pool| [vec![look.text(&pool.name)], pool_figures(pool)].concat());
    text.push_str(&format!("\n{}\n", table(&columns::<10>("POOL", &POOL_HEADS), pools)));
    let backends = second.pools.iter().flat_map(|pool| {
        let mut backends: Vec<_> = pool.backends.iter().collect();
        backends.sort_by(|a, b| worst_first(a, b));
        backends.into_iter().map(|backend| {
            vec![
                format!("{}/{}", look.text(&pool.name), look.text(&backend.name)),
                backend.state.clone(),
                count(backend.attempts),
                count(backend.wins),
                count(backend.errors),
                count(backend.timeouts),
                count(backend.in_flight),
                ms(backend.p50_ms),
                ms(backend.p99_ms),
            ]
        })
    });
    text.push_str(&format!("\n{}\n", table(&columns::<9>("POOL/BACKEND", &BACKEND_HEADS), backends)));
    let more: u64 = second.pools.iter().map(|pool| pool.more_backends).sum();
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn columns<const N: usize>(name: &'static str, heads: &[&'static str]) -> [Column; N] {
    std::array::from_fn(|index| match index.checked_sub(1) {
        None => (name, CellAlignment::Left),
        Some(index) => (heads[index], CellAlignment::Right),
    })
}

pub(super) fn totals(second: &Second) -> String {
    let named = |counts: &std::collections::BTreeMap<String, u64>| {
        // Late replies of hedges are no loss and are shown separately.
        let counts = counts.iter().filter(|(name, count)| **count > 0 && *name != LATE);
        counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = vec![format!("{} queries a second", second.queries)];
    let (responses, dropped) = (named(&second.responses), named(&second.dropped));
    parts.extend((!responses.is_empty()).then(|| format!("answers: {responses}")));
    parts.extend((!dropped.is_empty()).then(|| format!("dropped: {dropped}")));
    let late = second.dropped.get(LATE).copied().unwrap_or_default();
    parts.extend((late > 0).then(|| format!("late replies {late}")));
    parts.extend((second.failures > 0).then(|| format!("failures {}", second.failures)));
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

pub(super) const POOL_HEADS: [&str; 9] =
    ["Q/S", "IN FLIGHT", "P50 ms", "P99 ms", "P99.9 ms", "HEDGES", "WON", "DENIED", "TOKENS"];

/// Formats the figures of a pool under these heads.
pub(super) fn pool_figures(pool: &PoolSecond) -> Vec<String> {
    vec![
        count(pool.queries),
        count(pool.in_flight),
        ms(pool.p50_ms),
        ms(pool.p99_ms),
        ms(pool.p999_ms),
        count(pool.hedges.sent),
        count(pool.hedges.won),
        count(pool.hedges.denied),
        count(pool.hedges.tokens),
    ]
}

const BACKEND_HEADS: [&str; 8] = ["STATE", "Q/S", "WINS", "ERRORS", "TIMEOUTS", "IN FLIGHT", "P50 ms", "P99 ms"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::state::tests::second;

    #[test]
    fn a_page_has_the_verdict_first_and_the_worst_backend_first() {
        let target: AdminTarget = "http://127.0.0.1:5380".parse().expect("a target");
        let page = page(&second(), &target);
        let expected = "\
watch for 40s  http://127.0.0.1:5380
  backend-down: ts2 of pool ts has been down for 40 s

1000 queries a second; answers: backend 900, cache 100; late replies 2; cache hits 80.0 %

POOL   Q/S  IN FLIGHT  P50 ms  P99 ms  P99.9 ms  HEDGES  WON  DENIED  TOKENS
ts    1000          7    0.40    4.00      21.5      20   18       1       9

POOL/BACKEND  STATE  Q/S  WINS  ERRORS  TIMEOUTS  IN FLIGHT  P50 ms  P99 ms
ts/ts2         down    0     0       0         3          4       -       -
ts/slow?         up  500   100       0         0          2    3.00    9.00
ts/ts1           up  500   800       0         0          1    0.30    0.90
and 3 more
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn stale_hits_are_no_hits_and_late_replies_are_not_dropped() {
        let mut second = second();
        second.cache = Some(crate::sight::live::CacheSecond { hits: 50, stale_hits: 30, misses: 20 });
        second.failures = 9;
        second.dropped.insert("overload".to_owned(), 1);
        assert!(
            totals(&second)
                .ends_with("; dropped: overload 1; late replies 2; failures 9; cache hits 50.0 %; stale hits 30.0 %"),
            "{}",
            totals(&second)
        );
    }
}
