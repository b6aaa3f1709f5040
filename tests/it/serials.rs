//! Tests of replicas of which some are older: their denials are not believed, a replica that is older for
//! long is asked last, and all of that is shown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::*;

/// RFC 9660 section 6: the option's code.
const ZONEVERSION: u16 = 19;

/// A server with one zone, `example`, of a version that has so many further names.
struct Replica(Server);

impl Replica {
    fn start(serial: u32, names: usize) -> Self {
        let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example' }]\n\
                      [admin]\nlisten = '127.0.0.1:0'\n";
        Self(Server::start_with_files(config, &[("z.zone", &zone(serial, names))]))
    }

    /// Loads another version of the zone.
    fn update(&self, serial: u32, names: usize) {
        self.0.reload("z.zone", &zone(serial, names));
    }
}

impl Asked for Replica {
    fn address(&self) -> SocketAddr {
        self.0.listener("ts")
    }
}

fn zone(serial: u32, names: usize) -> String {
    let names: String = (0..names).map(|name| format!("n{name} A 192.0.2.7\n")).collect();
    format!("$TTL 60\n@ SOA ns h {serial} 3600 3600 86400 1\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n{names}")
}

/// The settings that every pool of this file shares.
const FAST: &str =
    "replicas = true\ntimeout = '3s'\nattempt_timeout = '500ms'\nhealth = { interval = '200ms', timeout = '200ms' }";

/// Returns the output of `ctl serials` as JSON.
fn reported(server: &Server) -> Value {
    serde_json::from_str(&ctl(server, &["--json"])).expect("JSON")
}

fn ctl(server: &Server, words: &[&str]) -> String {
    let admin = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&[&["serials", "--admin", &admin], words].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until it is known that members have these serials, in order of their ports.
fn wait_for_serials(server: &Server, zone: &str, expected: &[u32]) {
    until(&format!("{zone} is known as {expected:?}"), || {
        let reported = reported(server);
        let known = reported["zones"].as_array()?.iter().find(|known| known["zone"] == zone)?.clone();
        let mut serials: Vec<_> = known["members"].as_array()?.iter().map(|member| member["serial"].clone()).collect();
        serials.sort_by_key(Value::as_u64);
        (serials == expected.iter().map(|serial| Value::from(*serial)).collect::<Vec<_>>()).then_some(())
    });
}

fn stale_replies(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_stale_replies_total", &[])
}

/// How many members are in this state.
fn count(server: &Server, state: &str) -> u64 {
    server.admin().metrics().sum("hedgerow_pool_backends", &[("state", state)])
}

/// Every way of asking.
const WAYS: [&str; 5] = [
    "dispatch = 'sequential'",
    "dispatch = 'sequential'\nbalance = 'ordered'",
    "dispatch = 'hedge'",
    "dispatch = 'race'",
    "dispatch = 'race'\naccept = 'any'",
];

/// From 2 s after one of three has a thousand more names, no client gets NXDOMAIN for them.
#[test]
fn names_that_only_the_newest_has_are_answered_by_all() {
    for way in WAYS {
        let replicas = [Replica::start(7, 0), Replica::start(7, 0), Replica::start(7, 0)];
        let asked: Vec<&dyn Asked> = replicas.iter().map(|replica| replica as &dyn Asked).collect();
        // A replica that is behind would not be asked first, and so not deny the names that it lacks.
        let keys = format!("{way}\nmax_lag = '1h'\n{FAST}");
        let server = Forwarder::to(&asked, &keys).admin().cache("").start();
        let client = server.client();
        assert_eq!(client.ask(&query("www.example", A).edns(1232)).answers(), ["192.0.2.1"]);
        replicas[1].update(8, 1_000);
        let newest = Client::of(replicas[1].address());
        until("one has it", || (newest.ask(&query("n0.example", A)).rcode() == NOERROR).then_some(()));
        let since = Instant::now();
        // A client uses the zone; the versions of the replicas are found out beside that.
        until("that is 2 s ago", || {
            client.ask(&query("www.example", A));
            (since.elapsed() >= Duration::from_secs(2)).then_some(())
        });
        for name in 0..1_000 {
            let query = query(&format!("n{name}.example"), A);
            let query = if name % 2 == 0 { query } else { query.edns(1232) };
            let response = client.ask(&query);
            assert_eq!(
                (response.rcode(), response.answers()),
                (NOERROR, vec!["192.0.2.7".to_owned()]),
                "{way}: n{name}"
            );
            assert!(response.options().iter().all(|(code, _)| *code != ZONEVERSION), "it did not ask for it");
        }
        // All deny what none has, and that is final at once.
        let before = stale_replies(&server);
        assert_eq!(client.ask(&query("none.example", A)).rcode(), NXDOMAIN);
        if way.contains("sequential") {
            assert!(before >= 100, "{way}: {before}");
        }
        let text = ctl(&server, &[]);
        assert!(text.contains("example.  newest 8") && text.contains("older for"), "{text}");
    }
}

#[test]
fn who_is_older_for_long_is_behind_and_back_after_its_transfer() {
    let replicas = [Replica::start(7, 0), Replica::start(7, 0), Replica::start(7, 0)];
    let asked: Vec<&dyn Asked> = replicas.iter().map(|replica| replica as &dyn Asked).collect();
    let keys = format!("dispatch = 'sequential'\nmax_lag = '1s'\n{FAST}");
    let server = Forwarder::to(&asked, &keys).admin().start();
    let client = server.client();
    let ask = || assert_eq!(client.ask(&query("www.example", A).edns(1232)).answers(), ["192.0.2.1"]);
    ask();
    assert_eq!(count(&server, "behind"), 0);
    for replica in &replicas[1..] {
        replica.update(8, 0);
    }
    let log = server.process.wait_for_log("the backend is behind");
    assert!(log.contains(&replicas[0].address().to_string()), "{log}");
    assert_eq!((count(&server, "behind"), count(&server, "up")), (1, 2));
    let status: Value = serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("JSON");
    let behind: Vec<_> =
        status["pools"][0]["backends"].as_array().expect("a list").iter().map(|b| b["behind"].clone()).collect();
    assert_eq!(behind, [Value::from(true), false.into(), false.into()]);
    until("the verdict says so", || {
        let verdict = server.admin().get("/api/v1/status").body;
        verdict.contains("backend-behind").then_some(())
    });
    // Others come first, so it is not asked.
    let attempts = || server.admin().metrics().attempts(replicas[0].address(), Some("first"));
    let before = attempts();
    (0..100).for_each(|_| ask());
    assert_eq!(attempts(), before);
    // But it is, if no other replica is up.
    for replica in &replicas[1..] {
        let admin = format!("http://{}", server.listener("admin"));
        let output = server.process.ctl(&["down", "all", &replica.address().to_string(), "--admin", &admin]);
        assert!(output.status.success(), "{output:?}");
    }
    until("it is asked", || {
        ask();
        (attempts() > before).then_some(())
    });
    for replica in &replicas[1..] {
        let admin = format!("http://{}", server.listener("admin"));
        assert!(
            server.process.ctl(&["auto", "all", &replica.address().to_string(), "--admin", &admin]).status.success()
        );
    }
    replicas[0].update(8, 0);
    until("it has caught up", || {
        ask();
        (count(&server, "behind") == 0 && count(&server, "up") == 3).then_some(())
    });
}

#[test]
fn a_wild_serial_spoils_nothing() {
    for serial in [u32::MAX, 0, 1 << 31] {
        let replicas =
            [Replica::start(2_026_112_301, 10), Replica::start(2_026_112_301, 10), Replica::start(serial, 10)];
        let asked: Vec<&dyn Asked> = replicas.iter().map(|replica| replica as &dyn Asked).collect();
        let keys = format!("dispatch = 'sequential'\nmax_lag = '200ms'\n{FAST}");
        let server = Forwarder::to(&asked, &keys).admin().start();
        let client = server.client();
        client.ask(&query("www.example", A).edns(1232));
        let mut expected = [2_026_112_301, 2_026_112_301, serial];
        expected.sort_unstable();
        wait_for_serials(&server, "example.", &expected);
        for name in 0..10 {
            assert_eq!(client.ask(&query(&format!("n{name}.example"), A).edns(1232)).answers(), ["192.0.2.7"]);
            assert_eq!(client.ask(&query(&format!("x{name}.example"), A)).rcode(), NXDOMAIN);
        }
        assert!(count(&server, "behind") < 3, "never all");
    }
}

/// A script that returns a version of `example` in the option, if the query asks for it, and in the SOA
/// record of a negative answer.
fn versioned(serial: u32, has: &'static str) -> Script {
    Script::new(move |seen| {
        let soa = |owner: &str| {
            let names = [wire_name("ns.example"), wire_name("h.example")].concat();
            record(owner, SOA, &[&names[..], &serial.to_be_bytes(), &[0; 12], &[0, 0, 0, 1]].concat())
        };
        let reply = reply_to(&seen.bytes).with_flags(AA);
        let asks = seen.options().is_some_and(|options| options.iter().any(|(code, _)| *code == ZONEVERSION));
        let name = seen.name();
        let reply = match name.split('.').next() {
            Some("example") => reply.answer(soa("example")),
            Some(label) if label == has => reply.answer(a("192.0.2.1")),
            Some(_) | None => reply.rcode(NXDOMAIN).authority(soa("example")),
        };
        let [s0, s1, s2, s3] = serial.to_be_bytes();
        let reply = if asks { reply.option(ZONEVERSION, &[1, 0, s0, s1, s2, s3]) } else { reply };
        Some(reply.to_vec())
    })
}

#[test]
fn versions_are_asked_for_by_queries_that_bear_opt_and_told_to_who_asks() {
    let backend = Backend::new(versioned(7, "www"));
    let server = Forwarder::to(&[&backend], FAST).admin().start();
    let client = server.client();
    let option = (ZONEVERSION, vec![1, 0, 0, 0, 0, 7]);
    let reported = |response: &Response| response.options().contains(&option);
    let asked = |nth: usize| {
        let options = backend.wait_for_name("www.example", nth + 1)[nth].options();
        options.map(|options| options.into_iter().filter(|(code, _)| *code == ZONEVERSION).collect::<Vec<_>>())
    };
    assert!(!reported(&client.ask(&query("www.example", A).edns(1232))));
    assert_eq!(asked(0), Some(vec![(ZONEVERSION, Vec::new())]));
    assert!(reported(&client.ask(&query("www.example", A).edns(1232).option(ZONEVERSION, b""))));
    assert_eq!(asked(1), Some(vec![(ZONEVERSION, Vec::new())]), "once is enough");
    assert!(!client.ask(&query("www.example", A)).has_opt());
    assert_eq!(asked(2), Some(vec![(ZONEVERSION, Vec::new())]), "the forwarder adds OPT");
    // Without replicas the server sends no option unless a client does.
    let server = Forwarder::to(&[&backend], "").start();
    server.client().ask(&query("www.example", A).edns(1232));
    assert_eq!(asked(3), Some(Vec::new()));
}

#[test]
fn who_is_not_heard_about_a_zone_in_use_is_asked_for_its_soa_record() {
    let backends = [Backend::new(versioned(7, "www")), Backend::new(versioned(8, "www"))];
    let keys = format!("dispatch = 'sequential'\nbalance = 'ordered'\n{FAST}");
    let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).admin().start();
    let client = server.client();
    client.ask(&query("www.example", A).edns(1232));
    wait_for_serials(&server, "example.", &[7, 8]);
    let seen = backends[1].wait_for_name("example", 1);
    assert_eq!((word(&seen[0].bytes, 2), seen[0].tcp), (0, false), "no RD, by UDP");
    // Each of them is asked while the zone is in use, not more often than it must be; and it counts as a
    // probe.
    let began = Instant::now();
    let before = backends[0].queries_for("example").len();
    backends[0].wait_for_name("example", before + 2);
    assert!(began.elapsed() >= Duration::from_millis(1_700), "{:?}", began.elapsed());
    let probes = server.admin().metrics().attempts(backends[0].address(), Some("probe"));
    assert!(probes >= 2, "{probes}");
    // The older one's word alone is not taken for what it denies.
    client.ask(&query("none.example", A));
    assert_eq!(backends[1].wait_for_name("none.example", 1).len(), 1);
    assert_eq!(stale_replies(&server), 1);
}

#[test]
fn an_older_negative_is_told_if_there_is_nothing_better_and_never_kept() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let mut newest = versioned(8, "www");
    let silent = Arc::clone(&is_silent);
    let newest = Script::each_of(move |seen| {
        let has_none = seen.name() == "none.example" && silent.load(Ordering::Relaxed);
        if has_none { Vec::new() } else { newest.react(seen) }
    });
    let backends = [Backend::new(versioned(7, "www")), Backend::new(newest)];
    let keys = format!("dispatch = 'sequential'\nbalance = 'ordered'\n{}", FAST.replace("'3s'", "'1s'"));
    let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).admin().cache("").start();
    let client = server.client();
    client.ask(&query("www.example", A).edns(1232));
    wait_for_serials(&server, "example.", &[7, 8]);
    for asked in 1..=2 {
        assert_eq!(client.ask(&query("none.example", A)).rcode(), NXDOMAIN);
        assert_eq!(backends[0].queries_for("none.example").len(), asked, "it was not kept");
        assert!(!backends[1].queries_for("none.example").is_empty(), "the newest was asked");
    }
    is_silent.store(false, Ordering::Relaxed);
    until("the newest has said so", || {
        let before = backends[0].queries_for("none.example").len();
        assert_eq!(client.ask(&query("none.example", A)).rcode(), NXDOMAIN);
        // That is final, and kept.
        (backends[0].queries_for("none.example").len() == before).then_some(())
    });
}

#[test]
fn only_a_pool_that_is_there_is_told_of_and_one_without_replicas_says_so() {
    let backend = Backend::new(versioned(7, "www"));
    let server = Forwarder::to(&[&backend], "").admin().start();
    assert_eq!(
        ctl(&server, &[]).trim_end(),
        "no backend has reported the version of a zone yet\n\nnot asked, as replicas is not set: all"
    );
    let admin = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["serials", "al", "--admin", &admin]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("did you mean \"all\"?"), "{error}");
    assert_eq!(server.admin().get("/api/v1/serials?pol=x").status, 400);
}
