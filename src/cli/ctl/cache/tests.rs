//! Tests of the tables of `ctl cache`.

use super::*;

#[test]
fn stats_are_a_table_of_one_row() {
    let cache = CacheStatus {
        size_bytes: 64 << 20,
        stats: CacheStats {
            bytes: 1_500_000,
            entries: 9_876,
            hits: 900,
            stale_hits: 31,
            failure_hits: 2,
            misses: 69,
            insertions: 10_000,
            evictions: 124,
        },
        prefetches: 3,
    };
    let expected = "\
CACHE ENTRIES  OCTETS  OF     HIT %  HITS  STALE HITS  FAILURE HITS  MISSES  EVICTIONS  PREFETCHES
9876           1.4MiB  64MiB   93.1   900          31             2      69        124           3";
    assert_eq!(stats(&cache), expected);
    let unused = CacheStatus { stats: CacheStats::default(), ..cache };
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

#[test]
fn names_are_hidden_from_the_path() {
    let name = "a\\.b/c".parse().expect("a name");
    assert_eq!(entries_path(Some(&name), true), "cache/subtrees/a%5C%2Eb%2Fc%2E");
    assert_eq!(entries_path(Some(&name), false), "cache/names/a%5C%2Eb%2Fc%2E");
    assert_eq!(entries_path(None, false), "cache");
}
