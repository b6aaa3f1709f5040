//! Thousands of backends of which few answer: probes find those that answer, and no query is lost while a
//! hundred come and go each second. `cargo bench --bench load -- --crowd` measures their cost.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::*;

/// True if this run is for figures.
const IS_WHOLE: bool = !cfg!(debug_assertions);

/// Backends of a large pool.
const MANY: u32 = 5_000;

const RATE: u32 = if IS_WHOLE { 5_000 } else { 500 };

/// For how long members come and go.
const CHANGING: Duration = if IS_WHOLE { Duration::from_secs(10) } else { Duration::from_secs(3) };

/// Returns an address of this host without a listener.
fn nobody(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x7F20_0000 + number), 5303))
}

/// Returns the config of a forwarder to these authorities and to so many addresses without a listener.
fn config(authorities: &[Authority], nobodies: u32, keys: &str) -> String {
    let absent: Vec<_> = (0..nobodies).map(nobody).collect();
    let mut asked: Vec<&dyn Asked> = authorities.iter().map(|authority| authority as &dyn Asked).collect();
    // The backends that answer stand among the others.
    asked.extend(absent.iter().map(|absent| absent as &dyn Asked));
    asked.rotate_left(authorities.len() / 2);
    let forwarder = Forwarder::to(&asked, keys).workers(2).admin().to_toml();
    format!("{forwarder}[forwarder.limits]\nwaiting = 100000\n")
}

/// Waits until probes have found which backends answer.
fn wait_for_states(admin: &Admin, up: u64, down: u64) {
    until_within(Duration::from_secs(120), "all were probed", || {
        let metrics = admin.metrics();
        let count = |state| metrics.sum("hedgerow_pool_backends", &[("state", state)]);
        (count("up") == up && count("down") + count("new") == down).then_some(())
    });
}

/// Waits for a condition longer than is usual.
fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn of_thousands_those_that_answer_are_asked() {
    let authorities: Vec<_> = (0..3).map(|_| Authority::start(&load_table())).collect();
    let began = Instant::now();
    let server =
        Server::start(&config(&authorities, MANY - 3, "dispatch = 'sequential'\nbalance = 'random'\nreplicas = true"));
    println!("ready with {MANY} backends after {:?}", began.elapsed());
    let admin = server.admin();
    wait_for_states(&admin, 3, u64::from(MANY) - 3);
    println!("all states known after {:?}", began.elapsed());
    let load = Load::start(server.listener("forwarder"), RATE);
    load.run_for(Duration::from_secs(2));
    load.stop().check("three of five thousand", &admin);
    // No series for each, but a sum for each state.
    let began = Instant::now();
    let text = admin.get("/metrics").body;
    println!("/metrics: {} octets in {:?}", text.len(), began.elapsed());
    assert!(!text.contains("hedgerow_backend_up{"), "{text}");
    let began = Instant::now();
    let status: Value = serde_json::from_str(&admin.get("/api/v1/status").body).expect("JSON");
    println!("status in {:?}", began.elapsed());
    assert_eq!(status["pools"][0]["backends"].as_array().map(Vec::len), Some(MANY as usize));
    println!("resident: {} KiB", server.process.resident() / 1024);
    let open = server.process.descriptors();
    assert!(open < 2_000, "{open} descriptors");
}

#[test]
fn no_query_is_lost_while_a_hundred_members_come_and_go_each_second() {
    let authorities: Vec<_> = (0..3).map(|_| Authority::start(&load_table())).collect();
    let nobodies = if IS_WHOLE { MANY } else { 500 };
    let keys = "dispatch = 'sequential'\nbalance = 'least-load'\nreplicas = true\ntimeout = '5s'";
    let server = Server::start(&config(&authorities, nobodies, keys));
    let admin = server.admin();
    wait_for_states(&admin, 3, nobodies.into());
    let load = Load::start(server.listener("forwarder"), RATE);
    let (began, mut changes, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let backends = "/api/v1/pools/all/backends";
    while began.elapsed() < CHANGING {
        let number = nobodies + changes / 2 % 50;
        let at = Instant::now();
        if changes % 2 == 0 {
            admin.post(backends, &format!("{{\"address\": \"{}\"}}", nobody(number)));
        } else {
            assert_eq!(admin.try_delete(&format!("{backends}/{}", nobody(number))).status, 200);
        }
        longest = longest.max(at.elapsed());
        changes += 1;
        load.run_for(Duration::from_millis(10));
    }
    // A backend that answers leaves, and another comes.
    let new = Authority::start(&load_table());
    admin.post(backends, &format!("{{\"address\": \"{}\"}}", new.address()));
    admin.wait_for("it is up", |metrics| metrics.sum("hedgerow_pool_backends", &[("state", "up")]) == 4);
    assert_eq!(admin.try_delete(&format!("{backends}/{}", authorities[0].address())).status, 200);
    load.run_for(Duration::from_millis(500));
    let report = load.stop();
    println!("{changes} changes in {:?}, each done within {longest:?} as ctl sees it", began.elapsed());
    let times = report.times(began, Instant::now());
    println!("answers: p50 {:?}, p99 {:?}, longest {:?}", percentile(&times, 50), percentile(&times, 99), times.last());
    report.check("members that come and go", &admin);
    // Nothing is in flight any more.
    let status = || -> Value { serde_json::from_str(&admin.get("/api/v1/status").body).expect("JSON") };
    until("all have ended", || {
        let status = status();
        let backends = status["pools"][0]["backends"].as_array()?.clone();
        backends.iter().all(|backend| backend["in_flight"] == 0).then_some(())
    });
}

#[test]
fn a_cache_of_replicas_stays_when_members_come_and_go() {
    for (keys, expected) in [("replicas = true", 1), ("replicas = false", 2)] {
        let backend = Backend::new(answer("192.0.2.1"));
        let server = Forwarder::to(&[&backend], keys).admin().cache("").start();
        let (admin, client) = (server.admin(), server.client());
        let ask = || assert_eq!(client.ask(&query("kept.example", A)).answers(), ["192.0.2.1"]);
        ask();
        admin.post("/api/v1/pools/all/backends", &format!("{{\"address\": \"{}\"}}", nobody(1)));
        ask();
        assert_eq!(backend.queries_for("kept.example").len(), expected, "{keys}");
    }
}

#[test]
fn each_balance_finds_those_that_answer_among_many() {
    for balance in ["ordered", "round-robin", "random", "sticky", "hash", "least-load", "fastest"] {
        let keys =
            format!("dispatch = 'sequential'\nbalance = '{balance}'\ncookies = false\n[health]\ninterval = '1h'");
        let authorities: Vec<_> = (0..2).map(|_| Authority::start(&load_table())).collect();
        let server = Server::start(&config(&authorities, 98, &keys));
        let admin = server.admin();
        wait_for_states(&admin, 2, 98);
        let load = Load::start(server.listener("forwarder"), RATE);
        load.run_for(Duration::from_millis(300));
        load.stop().check(balance, &admin);
    }
}
