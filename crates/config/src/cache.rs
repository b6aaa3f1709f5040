//! `[cache]`: size of the cache, and lifetimes of replies.

use std::time::Duration;

use super::limits::{self, Limits, ms, secs};
use super::readers::{duration, file, number, seconds, text};
use super::section::ConfigSection;
use super::{CacheConfig, words};

/// Lifetimes of cached replies, passed to each call, so that a reload changes them at once.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRules {
    /// Raises shorter TTLs to this one; zero stays zero. Whole seconds.
    pub min_ttl: Duration,
    /// Lowers longer TTLs to this one. Whole seconds.
    pub max_ttl: Duration,
    /// Lowers longer TTLs of negative answers to this one. Whole seconds.
    pub max_negative_ttl: Duration,
    /// The time beyond its TTL for which an answer is kept as a stale one; 0 disables that.
    pub stale: Duration,
    /// The time that a client waits for a race before it gets a stale answer.
    pub stale_answer_after: Duration,
    /// The TTL of stale answers. Whole seconds.
    pub stale_ttl: Duration,
    /// The remaining share of its TTL at which a popular entry is refreshed; 0 disables that.
    pub prefetch: f64,
    /// The lifetime of a failure. Whole seconds.
    pub failure_ttl: Duration,
}

impl Default for CacheRules {
    fn default() -> Self {
        Self {
            min_ttl: Duration::ZERO,
            // A day: a longer time hardly gains a hit, and a mistake in a zone is gone the next day.
            max_ttl: Duration::from_secs(86_400),
            // RFC 2308 section 5: one to three hours have been found to work well.
            max_negative_ttl: Duration::from_secs(3 * 3600),
            // RFC 8767 section 5: one to three days.
            stale: Duration::from_secs(86_400),
            // RFC 8767 section 5: before a stub resolver's usual timeout of 2 s.
            stale_answer_after: Duration::from_millis(1800),
            // RFC 8767 section 4: 30 seconds.
            stale_ttl: Duration::from_secs(30),
            // Early enough for the fresh answer to arrive in time, late enough to cost little.
            prefetch: 0.1,
            // RFC 9520 section 3.2: 1 s at the least, 5 min at the most, 5 s to begin with. Deviation:
            // repeated failures are not remembered longer. One race each 5 s costs little, and a recovered
            // server is found quickly.
            failure_ttl: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(section: &mut ConfigSection<'_>) -> CacheConfig {
    CacheConfig {
        size: section.read("size", CacheConfig::SIZE, text(words::size)),
        rules: read_rules(section),
        persist: section.optional("persist", file),
        persist_every: section.read("persist_every", Some(CacheConfig::PERSIST_EVERY), text(read_interval)),
    }
}

fn read_rules(section: &mut ConfigSection<'_>) -> CacheRules {
    let rules = read_keys!(section, CacheRules::default() => CacheRules {
        // Beyond a day it would overrule every server.
        min_ttl: seconds(secs(0)..=secs(86_400)),
        max_ttl: seconds(limits::MAX_TTL),
        max_negative_ttl: seconds(limits::MAX_TTL),
        // RFC 8767 section 5: one to three days; 0 disables it.
        stale: duration(secs(0)..=secs(7 * 86_400)),
        stale_answer_after: duration(ms(0)..=secs(60)),
        // RFC 8767 section 4: more than 0, or clients would retry at once.
        stale_ttl: seconds(secs(1)..=secs(3600)),
        prefetch: number(0.0..=0.9),
        failure_ttl: seconds(limits::FAILURE_TTL),
    });
    for (key, max) in [("max_ttl", rules.max_ttl), ("max_negative_ttl", rules.max_negative_ttl)] {
        if rules.min_ttl > max {
            let (min, max) = (humantime::format_duration(rules.min_ttl), humantime::format_duration(max));
            section.spot_of("min_ttl").note(format!("min_ttl {min} is above {key} {max}"));
        }
    }
    rules
}

fn read_interval(text: &str) -> Result<Option<Duration>, words::Expectation> {
    // Shorter would write all the time.
    Limits { min: secs(10), max: secs(86_400) }.parse_or_never(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    const REST: &str = "[forwarder]\n[pools.a]\nbackends = [\"192.0.2.1:53\"]\n";

    fn read_section(content: &str) -> CacheConfig {
        let text = format!("[cache]\n{content}\n{REST}");
        let config =
            Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        config.cache.expect("a cache")
    }

    #[test]
    fn an_empty_section_is_a_cache_of_defaults() {
        let usual = CacheConfig {
            size: 64 << 20,
            rules: CacheRules::default(),
            persist: None,
            persist_every: Some(Duration::from_secs(900)),
        };
        assert_eq!(read_section(""), usual);
    }

    #[test]
    fn every_key_of_the_cache_is_read() {
        let read = read_section(
            r#"
            size = "1GiB"
            min_ttl = "5s"
            max_ttl = "1h"
            max_negative_ttl = "10m"
            stale = "0s"
            stale_answer_after = "500ms"
            stale_ttl = "10s"
            prefetch = 0
            failure_ttl = "1s"
            persist = "cache.bin"
            persist_every = "10s"
            "#,
        );
        let seconds = Duration::from_secs;
        let rules = CacheRules {
            min_ttl: seconds(5),
            max_ttl: seconds(3600),
            max_negative_ttl: seconds(600),
            stale: Duration::ZERO,
            stale_answer_after: Duration::from_millis(500),
            stale_ttl: seconds(10),
            prefetch: 0.0,
            failure_ttl: seconds(1),
        };
        let (persist, persist_every) = (Some("/etc/hedgerow/cache.bin".into()), Some(seconds(10)));
        assert_eq!(read, CacheConfig { size: 1 << 30, rules, persist, persist_every });
        assert_eq!(read_section("persist_every = \"0s\"").persist_every, None);
    }

    #[test]
    fn a_cache_is_checked() {
        let size = "expected a size with its unit, KiB, MiB or GiB, such as \"64MiB\"";
        for (line, expected) in [
            (
                "size = 64",
                "8: cache.size: expected a size with its unit, KiB, MiB or GiB, such as \"64MiB\", not an integer",
            ),
            ("size = \"64\"", &*format!("8: cache.size: invalid value \"64\": {size}")),
            ("size = \"1.5GiB\"", &*format!("8: cache.size: invalid value \"1.5GiB\": {size}")),
            ("size = \"512KiB\"", "8: cache.size: invalid value \"512KiB\": expected a size from 1MiB to 64GiB"),
            ("size = \"65GiB\"", "8: cache.size: invalid value \"65GiB\": expected a size from 1MiB to 64GiB"),
            (
                "min_ttl = \"1500ms\"",
                "11: cache.min_ttl: invalid value \"1500ms\": expected whole seconds from 0s to 1day",
            ),
            ("max_ttl = \"0s\"", "11: cache.max_ttl: invalid value \"0s\": expected whole seconds from 1s to 7days"),
            (
                "failure_ttl = \"6m\"",
                "15: cache.failure_ttl: invalid value \"6m\": expected whole seconds from 1s to 5m",
            ),
            ("prefetch = 1", "12: cache.prefetch: invalid value 1: expected a number from 0 to 0.9"),
            (
                "stale = \"off\"",
                "9: cache.stale: invalid value \"off\": expected a duration such as \"250ms\" or \"3s\"",
            ),
            ("stale = \"8d\"", "9: cache.stale: invalid value \"8d\": expected a duration from 0s to 7days"),
            (
                "persist_every = \"9s\"",
                "17: cache.persist_every: invalid value \"9s\": expected a duration from 10s to 1day, or \"0s\" for never",
            ),
            ("sice = \"1MiB\"", "1: cache: unknown key \"sice\", did you mean \"size\"?"),
        ] {
            check(&format!("[cache]\n{line}\n{REST}"), &[&format!("2:{expected}")]);
        }
        for (keys, expected) in [
            ("max_ttl = \"1h\"", &["2:11: cache.min_ttl: min_ttl 2h is above max_ttl 1h"][..]),
            ("max_negative_ttl = \"1h\"", &["2:11: cache.min_ttl: min_ttl 2h is above max_negative_ttl 1h"]),
        ] {
            check(&format!("[cache]\nmin_ttl = \"2h\"\n{keys}\n{REST}"), expected);
        }
    }

    #[test]
    fn a_pool_can_do_without() {
        let config = |line: &str| {
            let text = format!("[cache]\n{REST}{line}\n");
            Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"))
        };
        assert!(config("").pools[0].cache);
        assert!(config("cache = true").pools[0].cache);
        assert!(!config("cache = false").pools[0].cache);
        let expected = "5:9: pools.a.cache: expected true or false, not a string";
        check(&format!("[cache]\n{REST}cache = \"off\"\n"), &[expected]);
    }
}
