//! `hedgerow ctl cache` and the paths behind it: what they show of a cache, what they flush, and which
//! clients may use them.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::CacheRules;
use engine::cache::{Cache, PoolId};
use testkit::{Backend, Forwarder};

use crate::support::admin_site::{HOST, JSON, Site, TOKEN, check_output, write};
use crate::support::cache::{Subject, a, answer, edns_query, query, reply, soa};
use hedgerow::admin::CacheAccess;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long before now the first entries were kept.
const PAST: Duration = Duration::from_secs(1000);

/// An admin server with a cache that has an entry of every kind for `www.example.org`, and three for other
/// names.
fn site() -> Site {
    let start = Instant::now().checked_sub(PAST).expect("the clock goes back that far");
    let cache = Cache::new(4 << 20, start);
    // Longer than any test runs.
    let rules = CacheRules { failure_ttl: Duration::from_secs(300), ..CacheRules::default() };
    let mut subject = Subject { cache, rules, start, now: start, pool: PoolId::of("ts") };
    let mut nodata = reply("www.example.org.", RecordType::AAAA, ResponseCode::NoError);
    nodata.add_authority(soa(300, 300));
    assert!(subject.keep(&nodata));
    subject.now = Instant::now();
    assert!(subject.keep(&answer(&[300])));
    let octets = answer(&[600]).to_vec().expect("hickory writes what it builds");
    assert!(subject.keep_octets(&octets, DNSSEC_OK | CHECKING_DISABLED));
    assert!(subject.keep(&reply("www.example.org.", RecordType::TXT, ResponseCode::ServFail)));
    subject.keep_silence(&query("www.example.org.", RecordType::MX));
    for name in ["example.org.", "mail.example.org.", "badexample.org."] {
        let mut answer = reply(name, RecordType::A, ResponseCode::NoError);
        answer.add_answer(a(name, 300, 1));
        assert!(subject.keep(&answer));
    }
    subject.ask(&query("www.example.org.", RecordType::A));
    subject.ask(&edns_query("www.example.org.", RecordType::A));
    subject.ask(&query("www.example.org.", RecordType::AAAA));
    subject.ask(&query("www.example.org.", RecordType::TXT));
    subject.ask(&query("missing.example.org.", RecordType::A));
    subject.pool = PoolId::of("ts before the last reload");
    assert!(subject.keep(&answer(&[300])));
    let pools = vec![(PoolId::of("other"), "other".to_owned()), (PoolId::of("ts"), "ts".to_owned())];
    Site::with_cache(CacheAccess { cache: Arc::new(subject.cache), rules: subject.rules, pools })
}

/// DO in a question's key.
const DNSSEC_OK: u8 = 0b100;

/// CD in a question's key.
const CHECKING_DISABLED: u8 = 0b010;

/// Runs `hedgerow ctl cache` with these words, for this server.
fn ctl(site: &Site, words: &str) -> Output {
    run(&format!("unix:{}", site.socket.display()), words)
}

/// Runs `hedgerow ctl cache` with these words, for the server at this place.
fn run(admin: &str, words: &str) -> Output {
    let folder = TempDir::new().expect("a folder for the test");
    write(&folder.path().join("wrong.token"), "fedcba9876543210");
    Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args(["ctl", "--admin", admin, "cache"])
        .args(words.split_whitespace())
        .current_dir(&folder)
        .output()
        .expect("cargo has built the binary")
}

/// The JSON that was printed.
fn read(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

#[test]
fn a_name_is_shown_with_all_that_is_kept_of_it() {
    let site = site();
    let entries = read(&ctl(&site, "show WWW.Example.org --json"));
    assert_eq!(entries, site.ask_json("GET /api/v1/cache/names/www.example.org"));
    let entries = entries.as_array().expect("a list");
    let find = |pool: Value, qtype: &str, dnssec_ok: bool| {
        let is_it = |entry: &&Value| entry["pool"] == pool && entry["type"] == qtype && entry["do"] == dnssec_ok;
        entries.iter().find(is_it).unwrap_or_else(|| panic!("no {pool} {qtype} {dnssec_ok}: {entries:#?}"))
    };
    let check = |entry: &Value, state: &str, rcode: Value, ttl: u64, stale: u64, hits: u64| {
        assert_eq!((&entry["state"], &entry["rcode"], &entry["hits"]), (&state.into(), &rcode, &hits.into()));
        assert_eq!(entry["class"], "IN");
        // The clock of the server goes on.
        for (key, expected) in [("ttl_seconds", ttl), ("stale_seconds", stale)] {
            let seconds = entry[key].as_u64().expect("a number");
            assert!((expected.saturating_sub(20)..=expected).contains(&seconds), "{key} of {entry}");
        }
    };
    const DAY: u64 = 86_400;
    check(find("ts".into(), "A", false), "fresh", "NOERROR".into(), 300, DAY, 2);
    check(find("ts".into(), "A", true), "fresh", "NOERROR".into(), 600, DAY, 0);
    check(find("ts".into(), "AAAA", false), "stale", "NOERROR".into(), 0, DAY - 700, 1);
    check(find("ts".into(), "TXT", false), "failure", "SERVFAIL".into(), 300, 0, 1);
    check(find("ts".into(), "MX", false), "silence", Value::Null, 300, 0, 0);
    check(find(Value::Null, "A", false), "fresh", "NOERROR".into(), 300, DAY, 0);
    assert_eq!(entries.len(), 6, "{entries:#?}");
    assert_eq!(find("ts".into(), "A", true)["cd"], true);
    assert_eq!(find("ts".into(), "A", false)["cd"], false);
    // A header, the question, one A record whose owner is a pointer.
    assert_eq!(find("ts".into(), "A", false)["bytes"], 12 + 21 + 16);
}

#[test]
fn a_name_is_shown_as_a_table() {
    let site = site();
    let output = ctl(&site, "show www.example.org");
    assert!(output.stdout.starts_with(b"POOL  TYPE  CLASS  FLAGS  STATE    RCODE"), "{output:?}");
    check_output(&output, 0, "\nts    A     IN     DO,CD  fresh    NOERROR", "");
    check_output(&output, 0, "\n-     A     IN     -      fresh    NOERROR", "");
    check_output(&ctl(&site, "show nothing.example.org"), 0, "the cache has no entry for nothing.example.org.\n", "");
    assert_eq!(read(&ctl(&site, "show nothing.example.org --json")), json!([]));
    // Nothing of a name gets lost on the way, nor is taken for a part of the path.
    let strange = r"a\.b/c%2F?d\032.example.org";
    check_output(
        &ctl(&site, &format!("show {strange}")),
        0,
        "the cache has no entry for a\\.b/c%2F?d\\032.example.org.",
        "",
    );
    check_output(&ctl(&site, "show ."), 0, "the cache has no entry for .\n", "");
}

#[test]
fn a_flush_tells_how_much_is_gone() {
    let site = site();
    check_output(&ctl(&site, "flush www.example.org"), 0, "6 entries of www.example.org. flushed\n", "");
    check_output(&ctl(&site, "flush WWW.EXAMPLE.ORG"), 0, "0 entries of WWW.EXAMPLE.ORG. flushed\n", "");
    check_output(&ctl(&site, "flush example.org --subtree"), 0, "2 entries at or below example.org. flushed\n", "");
    check_output(&ctl(&site, "flush"), 0, "1 entry flushed\n", "");
    check_output(&ctl(&site, "flush"), 0, "0 entries flushed\n", "");
    assert_eq!(read(&ctl(&site, "stats --json"))["entries"], 0);
}

#[test]
fn a_flush_by_http_gives_the_number() {
    let site = site();
    for (path, message, flushed) in [
        ("names/example.org", "1 entry of example.org. flushed", 1),
        ("subtrees/example.org", "7 entries at or below example.org. flushed", 7),
        ("subtrees/.", "1 entry at or below . flushed", 1),
    ] {
        let answer = site.ask_json(&format!("DELETE /api/v1/cache/{path}"));
        assert_eq!(answer, json!({ "message": message, "flushed": flushed }));
    }
    assert_eq!(site.ask_json("DELETE /api/v1/cache"), json!({ "message": "0 entries flushed", "flushed": 0 }));
}

#[test]
fn stats_stand_in_the_status_and_alone() {
    let site = site();
    let stats = read(&ctl(&site, "stats --json"));
    assert_eq!(stats, site.ask_json("GET /api/v1/status")["cache"]);
    for (key, value) in [
        ("size_bytes", 4 << 20),
        ("entries", 9),
        ("hits", 3),
        ("failure_hits", 1),
        ("stale_hits", 1),
        ("misses", 1),
        ("prefetches", 8),
    ] {
        assert_eq!(stats[key], value, "{key}");
    }
    let table = ctl(&site, "stats");
    assert!(table.stdout.starts_with(b"CACHE ENTRIES  OCTETS"), "{table:?}");
    check_output(&table, 0, "4MiB   80.0", "");
    let metrics = site.ask("GET /metrics").body;
    assert!(metrics.contains("\nhedgerow_cache_entries 9\n"), "{metrics}");
    assert!(metrics.contains("\nhedgerow_cache_hits_total 3\n"), "{metrics}");
    assert!(metrics.contains("\nhedgerow_cache_prefetches_total{pool=\"ts\"} 8\n"), "{metrics}");
}

#[test]
fn without_a_cache_that_is_said() {
    let site = Site::start();
    check_output(&ctl(&site, "stats"), 1, "", "the server has no cache: its config has no [cache]");
    for words in ["show example.org", "flush", "flush example.org", "flush example.org --subtree"] {
        check_output(&ctl(&site, words), 1, "", "refused: there is no cache: the config has no [cache]");
    }
    assert_eq!(site.ask_json("GET /api/v1/status")["cache"], Value::Null);
    assert_eq!(site.ask("GET /api/v1/cache/names/example.org").status, 404);
}

#[test]
fn what_is_no_name_is_told() {
    let site = site();
    for (words, message) in [
        ("show", "NAME"),
        ("show a..b", "empty label"),
        ("flush a..b", "empty label"),
        ("flush --subtree", "NAME"),
        ("flsuh", "flush"),
    ] {
        check_output(&ctl(&site, words), 2, "", message);
    }
    for what in ["GET /api/v1/cache/names/a..b", "DELETE /api/v1/cache/subtrees/a..b"] {
        let answer = site.ask(what);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.message().contains("name \"a..b\""), "{answer:?}");
    }
    // A path that has lost its name is not a flush of everything.
    for what in ["DELETE /api/v1/cache/", "DELETE /api/v1/cache/names/", "DELETE /api/v1/cache/names"] {
        assert_eq!(site.ask(what).status, 404, "{what}");
    }
    assert_eq!(site.ask_json("GET /api/v1/status")["cache"]["entries"], 9);
}

#[test]
fn only_who_may_change_may_flush() {
    let site = site();
    check_output(&run(&site.address.to_string(), "flush --token-file wrong.token"), 1, "", "this is not the token");
    for headers in [&[HOST][..], &["Host: evil.example", JSON], &[HOST, JSON, "X-Forwarded-For: 192.0.2.1"]] {
        for path in ["", "/names/example.org", "/subtrees/example.org"] {
            assert_eq!(site.ask_with(&format!("DELETE /api/v1/cache{path}"), headers, "").status, 403, "{headers:?}");
        }
    }
    assert_eq!(site.ask_json("GET /api/v1/status")["cache"]["entries"], 9);
    let authorized = format!("Authorization: Bearer {TOKEN}");
    let answer = site.ask_with("DELETE /api/v1/cache", &["Host: ls1.example", &authorized], "");
    assert_eq!((answer.status, answer.message().as_str()), (200, "9 entries flushed"));
}

#[test]
fn a_running_server_shows_and_flushes_what_it_keeps() {
    let backend = Backend::new(testkit::answer("192.0.2.1"));
    let server = Forwarder::to(&[&backend], "[cache]\nsize = '1MiB'\n").admin().start();
    let (client, admin) = (server.client(), server.listener("admin"));
    let admin = format!("unix:{}", server.process.admin_socket(admin).display());
    let ask = |name: &str| drop(client.ask(&testkit::query(name, testkit::A)));
    ["www.example.org", "www.example.org", "mail.example.org"].iter().for_each(|name| ask(name));
    let shown = read(&run(&admin, "show www.example.org --json"));
    assert_eq!((&shown[0]["pool"], &shown[0]["state"], &shown[0]["hits"]), (&"all".into(), &"fresh".into(), &1.into()));
    let stats = read(&run(&admin, "stats --json"));
    for (key, value) in [("size_bytes", 1 << 20), ("entries", 2), ("hits", 1), ("misses", 2), ("insertions", 2)] {
        assert_eq!(stats[key], value, "{key}");
    }
    check_output(&run(&admin, "flush www.example.org"), 0, "1 entry of www.example.org. flushed\n", "");
    ["www.example.org", "mail.example.org"].iter().for_each(|name| ask(name));
    let asked = |name| backend.queries_for(name).len();
    assert_eq!((asked("www.example.org"), asked("mail.example.org")), (2, 1));
    check_output(&run(&admin, "flush"), 0, "2 entries flushed\n", "");
}
