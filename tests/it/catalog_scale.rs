//! Thousands of zones by the word of one catalog, from Knot: how long it takes until all are served, what
//! memory they take, that a restart serves them at once and without their primary, and that the server
//! answers all the while.
//!
//! `cargo test --release --test it -- catalog_scale:: --nocapture` has 10,000 of them and prints the figures;
//! a build without optimization has fewer.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::peers::catalog::{CATALOG, CatalogPeer, member_text};
use testkit::*;

/// How many zones the catalog lists.
const ZONES: usize = if cfg!(debug_assertions) { 500 } else { 10_000 };

/// How long is waited for all of them. No figure: only a server that has lost some waits so long.
const ALL: Duration = Duration::from_secs(1_200);

/// How many zones are served.
fn served(server: &Server) -> usize {
    let served = server.admin().metrics().sum("hedgerow_zones", &[("authority", "ts"), ("state", "served")]);
    usize::try_from(served).expect("a count")
}

/// Waits until so many zones are served, and asks another zone all the while; the longest that an answer to
/// that took.
fn wait_for(server: &Server, count: usize) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while served(server) != count {
        assert!(began.elapsed() < ALL, "{} of {count} are served", served(server));
        for _ in 0..20 {
            let asked = Instant::now();
            let response = Client::of(server.listener("ts")).ask(&query("www.own.test", A));
            assert_eq!(response.answers(), ["192.0.2.7"]);
            longest = longest.max(asked.elapsed());
        }
    }
    longest
}

#[test]
fn thousands_of_zones_are_had_and_served_again_at_once() {
    let (folder, address, theirs) = (TempDir::new().expect("a temporary folder"), free_address(), free_address());
    let names: Vec<String> = (0..=ZONES).map(|zone| format!("zone{zone}.example")).collect();
    let zones: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let config = format!(
        "[admin]\nlisten = '127.0.0.1:0'\n[authorities.ts]\nlisten = ['{address}']\nzones = [\n\
         {{ file = 'own.zone', origin = 'own.test' }},\n\
         {{ catalog = '{CATALOG}', primaries = ['{theirs}'], file = '{}/cat.zone' }} ]\n",
        folder.path().display()
    );
    let own = member_text(7);
    let start = || {
        Server::start_as(&config, &[("own.zone", own.as_str())], |command| {
            command.env("HEDGEROW_LOG", "warn,hedgerow::cli=info");
        })
    };
    let server = start();
    let before = server.process.resident();
    let began = Instant::now();
    let Some(peer) = CatalogPeer::knot_producer(theirs, address, &zones[..ZONES]) else { return };
    until("Knot has read its zones", || ask(theirs, &names[ZONES - 1]));
    let ready = Instant::now();
    // The zones, and the catalog itself.
    let longest = wait_for(&server, ZONES + 1);
    let (all, with_knot) = (ready.elapsed(), began.elapsed());
    let memory = server.process.resident() - before;
    eprintln!(
        "{ZONES} zones of a catalog from Knot: all served after {all:.1?} ({with_knot:.1?} with the start of Knot), \
         {:.1} MiB, {} octets a zone; longest answer meanwhile {longest:.1?}",
        memory as f64 / f64::from(1 << 20),
        memory / ZONES,
    );
    let changed = Instant::now();
    peer.set_knot_zones(address, &zones);
    wait_for(&server, ZONES + 2);
    eprintln!("one more zone: served after {:.2?}, the reload of Knot included", changed.elapsed());
    drop((peer, server));
    let restarted = Instant::now();
    let server = start();
    let ready = restarted.elapsed();
    assert_eq!(served(&server), ZONES + 2, "all are served before anything is asked of anybody");
    for name in names.iter().step_by(97) {
        assert_eq!(ask(address, name), Some(()), "{name}");
    }
    eprintln!("restart without Knot: all served after {ready:.2?}");
}

/// Returns `Some` if a server answers from the first version of a zone.
fn ask(server: std::net::SocketAddr, zone: &str) -> Option<()> {
    let response = Client::of(server).try_ask(&query(&format!("www.{zone}"), A))?;
    (response.answers() == ["192.0.2.1"]).then_some(())
}
