//! `hedgerow ctl cache`: shows the cache, and flushes it.

use clap::Subcommand;
use comfy_table::CellAlignment;

use super::connection::{AdminConnection, AdminOrder};
use super::table::{Column, table, time};
use super::{CommandFailure, Show, to_json};
use crate::admin::status::{CacheStatus, EntryStatus};
use crate::config::words;
use crate::wire::Name;

#[derive(Debug, Subcommand)]
pub(super) enum CacheAction {
    /// Show the size and the hit rate of the cache
    Stats(Show),
    /// Show the cached records of a name
    Show(CachedNameArgs),
    /// Flush the whole cache, or a name
    Flush {
        /// Flush only this name
        #[arg(value_parser = words::domain_name)]
        name: Option<Name>,
        /// Also flush all names below it
        #[arg(long, requires = "name")]
        subtree: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CachedNameArgs {
    /// The name; the last dot may be left out
    #[arg(value_parser = words::domain_name)]
    name: Name,
    #[command(flatten)]
    show: Show,
}

pub(super) fn obey(connection: &AdminConnection, action: &CacheAction) -> Result<String, CommandFailure> {
    match action {
        CacheAction::Stats(show) => {
            let cache = connection.status()?.cache;
            let cache = cache.ok_or_else(|| {
                CommandFailure::Server("the server has no cache: its config has no [cache]".to_owned())
            })?;
            Ok(if show.json { to_json(&cache) } else { stats(&cache) })
        }
        CacheAction::Show(CachedNameArgs { name, show }) => {
            let entries = connection.entries(name)?;
            Ok(if show.json { to_json(&entries) } else { list(name, &entries) })
        }
        CacheAction::Flush { name, subtree } => connection.change(AdminOrder::flush(name.as_ref(), *subtree)),
    }
}

pub(super) fn stats(cache: &CacheStatus) -> String {
    let hits = cache.hits + cache.stale_hits;
    let asked = hits + cache.misses;
    let share = if asked == 0 { "-".to_owned() } else { format!("{:.1}", hits as f64 / asked as f64 * 100.0) };
    let row = vec![
        cache.entries.to_string(),
        size(cache.bytes),
        size(cache.size_bytes),
        share,
        cache.hits.to_string(),
        cache.stale_hits.to_string(),
        cache.failure_hits.to_string(),
        cache.misses.to_string(),
        cache.evictions.to_string(),
        cache.prefetches.to_string(),
    ];
    table(&STATS_COLUMNS, [row].into_iter())
}

const STATS_COLUMNS: [Column; 10] = [
    ("CACHE ENTRIES", CellAlignment::Left),
    ("OCTETS", CellAlignment::Right),
    ("OF", CellAlignment::Left),
    ("HIT %", CellAlignment::Right),
    ("HITS", CellAlignment::Right),
    ("STALE HITS", CellAlignment::Right),
    ("FAILURE HITS", CellAlignment::Right),
    ("MISSES", CellAlignment::Right),
    ("EVICTIONS", CellAlignment::Right),
    ("PREFETCHES", CellAlignment::Right),
];

fn list(name: &Name, entries: &[EntryStatus]) -> String {
    if entries.is_empty() {
        return format!("the cache has no entry for {name}");
    }
    table(&ENTRY_COLUMNS, entries.iter().map(entry_row))
}

const ENTRY_COLUMNS: [Column; 10] = [
    ("POOL", CellAlignment::Left),
    ("TYPE", CellAlignment::Left),
    ("CLASS", CellAlignment::Left),
    ("FLAGS", CellAlignment::Left),
    ("STATE", CellAlignment::Left),
    ("RCODE", CellAlignment::Left),
    ("TTL s", CellAlignment::Right),
    ("STALE FOR", CellAlignment::Left),
    ("OCTETS", CellAlignment::Right),
    ("HITS", CellAlignment::Right),
];

fn entry_row(entry: &EntryStatus) -> Vec<String> {
    let nothing = || "-".to_owned();
    let flags = match (entry.dnssec_ok, entry.checking_disabled) {
        (false, false) => "-",
        (true, false) => "DO",
        (false, true) => "CD",
        (true, true) => "DO,CD",
    };
    let more = if entry.hits == EntryStatus::MAX_HITS { "+" } else { "" };
    vec![
        entry.pool.clone().unwrap_or_else(nothing),
        entry.qtype.clone(),
        entry.class.clone(),
        flags.to_owned(),
        entry.state.clone(),
        entry.rcode.clone().unwrap_or_else(nothing),
        entry.ttl_seconds.to_string(),
        time(entry.stale_seconds),
        entry.bytes.to_string(),
        format!("{}{more}", entry.hits),
    ]
}

fn size(octets: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| octets >> shift > 0);
    let Some((unit, shift)) = unit else { return octets.to_string() };
    let text = format!("{:.1}", octets as f64 / f64::from(1_u32 << shift));
    format!("{}{unit}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_a_table_of_one_row() {
        let cache = CacheStatus {
            size_bytes: 64 << 20,
            bytes: 1_500_000,
            entries: 9_876,
            hits: 900,
            stale_hits: 31,
            failure_hits: 2,
            misses: 69,
            insertions: 10_000,
            evictions: 124,
            prefetches: 3,
        };
        let expected = "\
CACHE ENTRIES  OCTETS  OF     HIT %  HITS  STALE HITS  FAILURE HITS  MISSES  EVICTIONS  PREFETCHES
9876           1.4MiB  64MiB   93.1   900          31             2      69        124           3";
        assert_eq!(stats(&cache), expected);
        let unused = CacheStatus { hits: 0, stale_hits: 0, misses: 0, ..cache };
        assert!(stats(&unused).contains("64MiB      -     0"), "{}", stats(&unused));
    }

    #[test]
    fn sizes_are_in_the_unit_that_suits_them() {
        for (octets, expected) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1024KiB"),
            (64 << 20, "64MiB"),
            (64 << 30, "64GiB"),
        ] {
            assert_eq!(size(octets), expected);
        }
    }

    #[test]
    fn entries_are_a_row_each() {
        let fresh = EntryStatus {
            pool: Some("ts".to_owned()),
            qtype: "A".to_owned(),
            class: "IN".to_owned(),
            dnssec_ok: false,
            checking_disabled: false,
            state: "fresh".to_owned(),
            rcode: Some("NOERROR".to_owned()),
            ttl_seconds: 299,
            stale_seconds: 86_400,
            bytes: 50,
            hits: 255,
        };
        let silence = EntryStatus {
            pool: None,
            dnssec_ok: true,
            checking_disabled: true,
            state: "silence".to_owned(),
            rcode: None,
            ttl_seconds: 5,
            stale_seconds: 0,
            hits: 1,
            ..fresh.clone()
        };
        let expected = "\
POOL  TYPE  CLASS  FLAGS  STATE    RCODE    TTL s  STALE FOR  OCTETS  HITS
ts    A     IN     -      fresh    NOERROR    299  1day           50  255+
-     A     IN     DO,CD  silence  -            5  0s             50     1";
        let name = "www.example.org".parse().expect("a name");
        assert_eq!(list(&name, &[fresh, silence]), expected);
        assert_eq!(list(&name, &[]), "the cache has no entry for www.example.org.");
    }
}
