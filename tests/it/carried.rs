//! What one server hands over to the next: a server of the same config that is made from another's image
//! behaves as that would have. Both run in this process, and what goes from one to the other goes as JSON and
//! octets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hedgerow::control::{CarriedCache, CarriedState};
use metrics::exposition::{self, ExpositionFormat};
use metrics::{ProcessesSnapshot, Snapshot, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use testkit::*;

use crate::support::running::Running;

const ADDRESS: &str = "192.0.2.1";

/// Returns a value as another process receives it.
fn sent<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("plain data")).expect("what was written")
}

/// A successor of a server with this config.
fn successor(of: &Running, config: &str) -> Running {
    let (known, learnt, counted, cache) = (sent(&of.known()), sent(&of.learnt()), sent(&of.counted()), of.cache());
    let successor = Running::start(config, move |setup| {
        let loaded = learnt.load_cache(&setup.config, &known, &cache[..]).expect("it is whole");
        let (loaded, _) = loaded.expect("the config has a cache");
        CarriedState {
            known,
            learnt: Some(learnt),
            cache: CarriedCache::Sent(loaded),
            edition: Some(7),
            ..CarriedState::default()
        }
    });
    successor.run(move |server| {
        server.add_counted(&counted);
        std::future::ready(())
    });
    successor
}

/// A config with a pool that is kept in the cache and a `sticky` one that is not.
fn config(kept: &[&Backend], sticky: &[&Backend]) -> String {
    let kept: Vec<&dyn Asked> = kept.iter().map(|backend| *backend as &dyn Asked).collect();
    let sticky: Vec<&dyn Asked> = sticky.iter().map(|backend| *backend as &dyn Asked).collect();
    let pools = Forwarder::to(&kept, "dispatch = 'hedge'\nbalance = 'round-robin'").workers(2);
    let keys = "dispatch = 'sequential'\nbalance = 'sticky'\ncache = false";
    let admin = "[admin]\nlisten = '127.0.0.1:0'\nsocket = 'SOCKET'\n";
    pools.pool("lived", "sticky.test", &sticky, keys).cache("").to_toml() + admin
}

#[test]
fn a_successor_behaves_as_the_server_before_it() {
    let kept = [Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS))];
    let sticky = [Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS))];
    let config = config(&[&kept[0], &kept[1]], &[&sticky[0], &sticky[1]]);
    let first = Running::start(&config, |_| CarriedState::default());
    let pool = |name: &str| format!("/api/v1/pools/{name}/backends");
    first.admin.post(&pool("all"), &format!("{{\"address\": \"{}\", \"weight\": 3}}", kept[2].address()));
    first.admin.wait_for_state(kept[2].address(), true);
    first.admin.post(&format!("{}/{}/down", pool("all"), kept[0].address()), "{\"for_seconds\": 3600}");
    let client = first.client();
    let ask = |client: &Client, name: &str| assert_eq!(client.ask(&query(name, A)).answers(), [ADDRESS], "{name}");
    (0..120).for_each(|number| ask(&client, &format!("n{number}.example")));
    (0..30).for_each(|number| ask(&client, &format!("n{number}.sticky.test")));
    let settled = |running: &Running| {
        // The last attempts of a race end after its response.
        until("nothing is in flight", || {
            running
                .counted()
                .pools
                .iter()
                .flat_map(|pool| &pool.backends)
                .all(|b| b.counts.pending.in_flight.0 == 0)
                .then_some(())
        });
    };
    settled(&first);
    let second = successor(&first, &config);
    assert_eq!(second.counters(), first.counters());
    assert_eq!(second.known(), first.known());
    let status: Value = serde_json::from_str(&second.admin.get("/api/v1/status").body).expect("JSON");
    assert_eq!(status["edition"], 7);
    assert_eq!(second.admin.backend(&kept[2].address().to_string())["weight"], 3);
    assert_eq!(second.admin.backend(&kept[0].address().to_string())["state"], "down");
    assert_eq!(second.admin.backend(&kept[0].address().to_string())["by_hand"], true);
    let until = |running: &Running| running.admin.backend(&kept[0].address().to_string())["by_hand_until"].clone();
    assert!(until(&first).is_string() && until(&first) == until(&second));
    // The state that it received is the state that it sends to its own successor.
    let image = |running: &Running| serde_json::to_value(running.learnt()).expect("plain data");
    let (ours, theirs) = (image(&second), image(&first));
    assert_eq!((&ours["seed"], &ours["pools"][0]["budget"]), (&theirs["seed"], &theirs["pools"][0]["budget"]));
    assert_eq!(ours["pools"][1]["affinity"], theirs["pools"][1]["affinity"]);
    assert_eq!(ours["workers"].as_array().map(Vec::len), Some(2));
    let mut measured = 0;
    for (ours, theirs) in ours["workers"].as_array().into_iter().zip(theirs["workers"].as_array()) {
        for (ours, theirs) in ours.iter().flat_map(flat).zip(theirs.iter().flat_map(flat)) {
            assert_eq!(ours["latency"]["short"]["current"], theirs["latency"]["short"]["current"]);
            assert_eq!(ours["latency"]["long"]["previous"], theirs["latency"]["long"]["previous"]);
            measured += theirs["latency"]["short"]["current"].as_array().expect("a list").len();
        }
    }
    assert!(measured > 0, "{theirs}");
    // The cache answers, and names go where they live.
    let places = |backends: &[Backend]| -> Vec<Vec<String>> {
        backends.iter().map(|b| b.queries().iter().map(|q| q.name().to_lowercase()).collect()).collect()
    };
    let (asked, lived) = (places(&kept), places(&sticky));
    let client = second.client();
    (0..120).for_each(|number| ask(&client, &format!("n{number}.example")));
    assert_eq!(places(&kept), asked);
    (0..30).for_each(|number| ask(&client, &format!("n{number}.sticky.test")));
    for (before, after) in lived.iter().zip(places(&sticky)) {
        let (mut before, mut again) = (before.clone(), after[before.len()..].to_vec());
        before.sort_unstable();
        again.sort_unstable();
        assert_eq!(before, again);
    }
    // Neither has the first, which drains, ceased to count.
    let earlier = first.counted();
    let counted = second.counted();
    let client = first.client();
    (0..40).for_each(|number| ask(&client, &format!("late{number}.example")));
    settled(&first);
    let rest = sent(&first.counted().since(&earlier));
    second.run(move |server| {
        server.add_counted(&rest);
        std::future::ready(())
    });
    let grown = second.counted().since(&counted);
    assert_eq!(grown.counts.queries.iter().sum::<u64>(), 40);
    assert_eq!(grown.pools[0].counts.duration.count(), 40);
    assert_eq!(grown.cache.map(|cache| (cache.stats.misses, cache.stats.insertions)), Some((40, 40)));
}

/// A planned restart sends all numbers at the switch, and their growth at the end of the drain.
#[test]
fn every_counter_goes_on_to_the_unit_over_both_messages() {
    let (backend, folder) = (Backend::new(answer(ADDRESS)), TempDir::new().expect("a temporary folder"));
    let (chain, key) = CertificateAuthority::new().issue("dns.example");
    for (name, text) in [("chain.pem", &*chain), ("key.pem", &*key), ("members.json", "[]")] {
        std::fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let folder = folder.path().display();
    let keys = format!("discover.file = '{folder}/members.json'");
    let config = Forwarder::to(&[&backend], &keys).cache("").to_toml()
        + &format!("[certificates.main]\nchain = '{folder}/chain.pem'\nkey = '{folder}/key.pem'\n")
        + "[admin]\nlisten = '127.0.0.1:0'\nsocket = 'SOCKET'\n";
    let server = Running::start(&config, |_| CarriedState::default());
    until("the file is read", || (!server.counted().pools[0].sources.is_empty()).then_some(()));
    let empty = server.counted();
    let grown = |times: u64| {
        let mut next = 0;
        let mut set = |count: &mut u64| {
            next += 1;
            *count += next * times;
        };
        let mut all = empty.clone();
        let counts = &mut all.counts;
        counts.queries.iter_mut().chain(&mut counts.dropped).chain(&mut counts.cookies).for_each(&mut set);
        counts.taps.iter_mut().flatten().for_each(&mut set);
        counts.connections.http.iter_mut().for_each(&mut set);
        counts.connections.fates.iter_mut().flatten().for_each(&mut set);
        counts.connections.handshakes.iter_mut().flatten().for_each(&mut set);
        all.limited.iter_mut().for_each(|(_, _, count)| set(count));
        for certificate in &mut all.certificates {
            set(&mut certificate.loads);
            set(&mut certificate.refusals);
        }
        [&mut all.counts.explained, &mut all.run.tasks_lost, &mut all.run.worker_replacements]
            .into_iter()
            .for_each(&mut set);
        [&mut all.reload.succeeded, &mut all.reload.failed].into_iter().for_each(&mut set);
        let cache = &mut all.cache.as_mut().expect("the config has a cache").stats;
        [&mut cache.hits, &mut cache.stale_hits, &mut cache.failure_hits, &mut cache.misses]
            .into_iter()
            .for_each(&mut set);
        [&mut cache.insertions, &mut cache.evictions].into_iter().for_each(&mut set);
        let pool = &mut all.pools[0];
        let counts = &mut pool.counts;
        [&mut counts.hedges_denied, &mut counts.hedges_wasted, &mut counts.stale_replies]
            .into_iter()
            .for_each(&mut set);
        [&mut counts.slow_races, &mut counts.prefetches].into_iter().for_each(&mut set);
        counts.fetches.iter_mut().chain(&mut counts.divergences).for_each(&mut set);
        pool.sources.iter_mut().flat_map(|source| &mut source.changes).for_each(&mut set);
        let counts = &mut pool.backends[0].counts;
        counts.attempts.iter_mut().chain(&mut counts.wins).for_each(&mut set);
        [&mut counts.unreachable, &mut counts.lost_attempts, &mut counts.errors, &mut counts.decisions]
            .into_iter()
            .for_each(&mut set);
        counts.again.iter_mut().chain(&mut counts.unsent).for_each(&mut set);
        all
    };
    // The server has the numbers of `empty` by itself.
    let (first, whole) = (grown(1), grown(3));
    let messages = [sent(&first.since(&empty)), sent(&whole.since(&first))];
    server.run(move |server| {
        messages.iter().for_each(|counted| server.add_counted(counted));
        std::future::ready(())
    });
    let text_of = |snapshot: Snapshot| exposition::write(&snapshot, &Usage::default(), ExpositionFormat::Prometheus);
    let counted = |text: &str| {
        // No query is asked here, so histograms are empty; the supervisor counts processes; probes go on.
        let is_left_out = |line: &str| {
            ["hedgerow_takeovers", "hedgerow_successions", "hedgerow_worker_cpu", "process_", "#"]
                .iter()
                .any(|start| line.starts_with(start))
                || line.contains("\"probe\"")
        };
        let is_counter = |line: &&str| line.split(['{', ' ']).next().is_some_and(|name| name.ends_with("_total"));
        text.lines().filter(|line| is_counter(line) && !is_left_out(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = counted(&text_of(whole));
    assert!(expected.iter().all(|line| !line.ends_with(" 0")), "each counter has a value here: {expected:#?}");
    assert_eq!(counted(&text_of(server.counted())), expected);
}

/// The backends that a worker has learnt of.
fn flat(worker: &Value) -> impl Iterator<Item = &Value> {
    worker.as_array().into_iter().flatten()
}

/// Two processes hold the admin listener for a while, and a scraper does not know which of them answers.
#[test]
fn whoever_scrapes_sees_no_counter_fall() {
    let backend = Backend::new(answer(ADDRESS));
    let config = config(&[&backend], &[&backend]);
    let first = Running::start(&config, |_| CarriedState::default());
    let client = first.client();
    (0..50).for_each(|number| drop(client.ask(&query(&format!("n{number}.example"), A))));
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Admin::of(first.admin.address(), Default::default()));
    let is_over = Arc::clone(&stop);
    let scraper = thread::spawn(move || {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            seen.push(stopped.metrics().sum("hedgerow_queries_total", &[]));
        }
        seen
    });
    let learnt = sent(&first.learnt());
    let counted = first.run(|server| std::future::ready(server.hand_over_counted()));
    let second =
        Running::beside(&first, &config, move |_| CarriedState { learnt: Some(learnt), ..CarriedState::default() });
    let client = first.client();
    (0..50).for_each(|number| drop(client.ask(&query(&format!("n{number}.example"), A))));
    let (handed_over, reported) = (sent(&counted), sent(&counted));
    second.run(move |server| {
        server.add_counted(&reported);
        std::future::ready(())
    });
    let (earlier, known) = (first.counted(), sent(&first.counted().since(&handed_over)));
    second.run(move |server| {
        server.add_counted(&known);
        std::future::ready(())
    });
    let rest = sent(&first.counted().since(&earlier));
    assert_eq!(rest.counts.queries.iter().sum::<u64>(), 0, "no client asks any more");
    second.admin.wait_for("all are counted", |metrics| metrics.sum("hedgerow_queries_total", &[]) == 100);
    stop.store(true, Ordering::Relaxed);
    let seen = scraper.join().expect("every scrape is answered");
    assert!(seen.is_sorted() && seen.contains(&50), "{seen:?}");
}

#[test]
fn what_a_successor_does_not_have_is_left_aside() {
    let (one, two, other) =
        (Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)));
    let first = Running::start(&config(&[&one, &two], &[&one, &two]), |_| CarriedState::default());
    let client = first.client();
    (0..20).for_each(|number| drop(client.ask(&query(&format!("n{number}.example"), A))));
    // Without the second pool, and with other backends; fewer workers.
    let changed = Forwarder::to(&[&one, &other], "").workers(1).cache("").to_toml()
        + "[admin]\nlisten = '127.0.0.1:0'\nsocket = 'SOCKET'\n";
    let second = successor(&first, &changed);
    assert_eq!(second.client().ask(&query("m.example", A)).answers(), [ADDRESS]);
    second.admin.wait_for_state(other.address(), true);
    let attempts = |running: &Running| running.admin.metrics().attempts(one.address(), None);
    assert!(attempts(&second) >= 10, "{}", attempts(&second));
}

#[test]
fn by_hand_changes_and_states_are_told_as_they_change() {
    let backends = [Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS))];
    let config = config(&[&backends[0], &backends[1]], &[&backends[0]]);
    let probed = "balance = 'round-robin'\n[pools.all.health]\ninterval = '200ms'";
    let config = config.replace("balance = 'round-robin'", probed);
    let first = Running::start(&config, |_| CarriedState::default());
    first.run(|server| {
        server.process.set_list(ProcessesSnapshot::default());
        std::future::ready(())
    });
    let reported = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        until(what, || {
            // This request lets the writer take the lock: a loop that only looks would keep it.
            first.admin.get("/healthz");
            let reported = first.reported.lock().expect("nothing panics here");
            let last = reported.last().map(|known| serde_json::to_value(known).expect("plain data"));
            last.filter(|known| is_so(&known["pools"][0]))
        })
    };
    let standing = |pool: &Value, place: usize, key: &str| pool["backends"][place][2][key].clone();
    let address = |place: usize| backends[place].address().to_string();
    let pool = "/api/v1/pools/all/backends";
    first.admin.post(&format!("{pool}/{}/drain", address(0)), "");
    reported("a drain", &|pool| standing(pool, 0, "is_draining") == true);
    first.admin.post(pool, &format!("{{\"address\": \"{}\"}}", address(2)));
    reported("an addition", &|pool| pool["added"][0]["address"] == address(2).as_str());
    // One that was never up would not be found down either.
    reported("that it is up", &|pool| standing(pool, 2, "health") == "Up");
    assert_eq!(first.admin.try_delete(&format!("{pool}/{}", address(1))).status, 200);
    reported("a removal", &|pool| pool["removed"][0] == address(1).as_str());
    backends[2].play_dead(true);
    reported("a death", &|pool| standing(pool, 1, "health") == "Down");
    // What a process that knew the beginning only takes of that, while it runs.
    let second = Running::start(&config, |_| CarriedState::default());
    let known = first.reported.lock().expect("nothing panics here").last().cloned().expect("something");
    let expected = sent(&known);
    second.run(move |server| {
        server.pools.take_known(&known);
        std::future::ready(())
    });
    assert_eq!(second.known(), expected);
    assert_eq!(second.admin.backend(&address(1)), Value::Null);
    assert_eq!(second.admin.backend(&address(0))["state"], "draining");
    // It is probed as what it stands for: it comes up when it is.
    backends[2].play_dead(false);
    second.admin.wait_for_state(backends[2].address(), true);
}
