//! `hedgerow ctl cache`: shows the cache, and flushes it.

use clap::Subcommand;
use config::words;
use dns::Name;

use super::connection::{AdminConnection, AdminOrder, encoded};
use super::table::{TextTable, or_dash, time};
use super::{CommandFailure, Show};
use crate::admin::status::{CacheStats, CacheStatus, EntryStatus};

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
            let none = || CommandFailure::Server("the server has no cache: its config has no [cache]".to_owned());
            Ok(show.print(&connection.status()?.cache.ok_or_else(none)?, stats))
        }
        CacheAction::Show(CachedNameArgs { name, show }) => {
            show.fetch(connection, &entries_path(Some(name), false), &[], |entries: &Vec<EntryStatus>| {
                list(name, entries)
            })
        }
        CacheAction::Flush { name, subtree } => {
            connection.change(&AdminOrder::delete(entries_path(name.as_ref(), *subtree)))
        }
    }
}

/// Returns the path of the entries of a name, or of all.
fn entries_path(name: Option<&Name>, is_subtree: bool) -> String {
    let scope = if is_subtree { "subtrees" } else { "names" };
    name.map_or_else(|| "cache".to_owned(), |name| format!("cache/{scope}/{}", encoded(&name.to_string())))
}

pub(super) fn stats(cache: &CacheStatus) -> String {
    let CacheStats { hits, stale_hits, misses, .. } = cache.stats;
    let hits = hits + stale_hits;
    let asked = Some(hits + misses).filter(|asked| *asked > 0);
    let share = asked.map(|asked| format!("{:.1}", hits as f64 / asked as f64 * 100.0));
    TextTable::of([cache])
        .left("CACHE ENTRIES", |cache| cache.stats.entries)
        .right("OCTETS", |cache| size(cache.stats.bytes))
        .left("OF", |cache| size(cache.size_bytes))
        .right("HIT %", |_| or_dash(share.as_ref()))
        .right("HITS", |cache| cache.stats.hits)
        .right("STALE HITS", |cache| cache.stats.stale_hits)
        .right("FAILURE HITS", |cache| cache.stats.failure_hits)
        .right("MISSES", |cache| cache.stats.misses)
        .right("EVICTIONS", |cache| cache.stats.evictions)
        .right("PREFETCHES", |cache| cache.prefetches)
        .text()
}

fn list(name: &Name, entries: &[EntryStatus]) -> String {
    if entries.is_empty() {
        return format!("the cache has no entry for {name}");
    }
    let flags = |entry: &EntryStatus| match (entry.dnssec_ok, entry.checking_disabled) {
        (false, false) => "-",
        (true, false) => "DO",
        (false, true) => "CD",
        (true, true) => "DO,CD",
    };
    let more = |entry: &EntryStatus| if entry.hits == EntryStatus::MAX_HITS { "+" } else { "" };
    TextTable::of(entries)
        .left("POOL", |entry| or_dash(entry.pool.as_ref()))
        .left("TYPE", |entry| &entry.qtype)
        .left("CLASS", |entry| &entry.class)
        .left("FLAGS", |entry| flags(entry))
        .left("STATE", |entry| &entry.state)
        .left("RCODE", |entry| or_dash(entry.rcode.as_ref()))
        .right("TTL s", |entry| entry.ttl_seconds)
        .left("STALE FOR", |entry| time(entry.stale_seconds))
        .right("OCTETS", |entry| entry.bytes)
        .right("HITS", |entry| format!("{}{}", entry.hits, more(entry)))
        .text()
}

fn size(octets: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| octets >> shift > 0);
    let Some((unit, shift)) = unit else { return octets.to_string() };
    let text = format!("{:.1}", octets as f64 / f64::from(1_u32 << shift));
    format!("{}{unit}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests;
