//! Tests of replicas that disagree: different answers are found and reported, on every transport, and nothing
//! else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hedgerow::control::pools::replicas::divergence::CONFIRM_AFTER;
use serde_json::Value;
use testkit::*;

/// A server with one zone, of this version and with this address of `www.example`.
struct Replica(Server);

impl Replica {
    fn start(serial: u32, address: &str) -> Self {
        let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example' }]\n\
                      [admin]\nlisten = '127.0.0.1:0'\n";
        Self(Server::start_with_files(config, &[("z.zone", &zone(serial, address))]))
    }

    /// Loads another version of the zone.
    fn update(&self, serial: u32, address: &str) {
        self.0.reload("z.zone", &zone(serial, address));
    }
}

impl Asked for Replica {
    fn address(&self) -> std::net::SocketAddr {
        self.0.listener("ts")
    }
}

fn zone(serial: u32, address: &str) -> String {
    let hosts: String = (0..HOSTS).map(|host| format!("h{host} A {address}\n")).collect();
    format!("$TTL 300\n@ SOA ns h {serial} 3600 3600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A {address}\n{hosts}")
}

/// Further names with the same address.
const HOSTS: u32 = 5;

/// How many divergences were counted, of this kind or of all.
fn counted(server: &Server, kind: Option<&str>) -> u64 {
    let labels: Vec<_> = kind.iter().map(|kind| ("kind", *kind)).collect();
    server.admin().metrics().sum("hedgerow_divergence_total", &labels)
}

/// Asks again and again until a divergence is counted; returns how long that took.
fn ask_until_counted(server: &Server, name: &str, kind: &str) -> Duration {
    let client = server.client();
    let began = Instant::now();
    until("it is counted", || {
        client.try_ask(&query(name, A));
        (counted(server, Some(kind)) > 0).then_some(())
    });
    began.elapsed()
}

/// Returns the output of `ctl divergence` as JSON.
fn reported(server: &Server) -> Value {
    serde_json::from_str(&ctl(server, &["--json"])).expect("JSON")
}

fn ctl(server: &Server, words: &[&str]) -> String {
    let admin = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&[&["divergence", "--admin", &admin], words].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Every way of asking, and what finds a difference there.
const WAYS: [&str; 4] = [
    "dispatch = 'race'\nreplicas = true\ncompare = 1.0",
    "dispatch = 'hedge'\nreplicas = true\ncompare = 1.0\nhedge = { delay = '0ms', budget = 1.0 }",
    "dispatch = 'sequential'\nreplicas = true\naudit = '1s'",
    "dispatch = 'hedge'\nbalance = 'ordered'\nreplicas = true\naudit = '100ms'",
];

#[test]
fn one_record_changed_on_one_of_three_is_found_within_ten_seconds() {
    let replicas = [Replica::start(7, "192.0.2.1"), Replica::start(7, "192.0.2.1"), Replica::start(7, "192.0.2.9")];
    let asked: Vec<&dyn Asked> = replicas.iter().map(|replica| replica as &dyn Asked).collect();
    for keys in WAYS {
        let server = Forwarder::to(&asked, keys).admin().start();
        let took = ask_until_counted(&server, "www.example", "data");
        println!("{keys:?}: found after {took:?}");
        assert!(took < Duration::from_secs(10), "{keys}: {took:?}");
        let reported = &reported(&server)["divergences"];
        assert_eq!(
            (&reported[0]["name"], &reported[0]["type"], &reported[0]["kind"]),
            (&"www.example.".into(), &"A".into(), &"data".into())
        );
        let said = reported[0]["said"].as_array().expect("who says what");
        assert_eq!(said.len(), 3, "{reported}");
        for (said, address) in said.iter().zip(["192.0.2.1", "192.0.2.1", "192.0.2.9"]) {
            assert_eq!((&said["data"], &said["serial"]), (&format!("A {address}").into(), &7.into()), "{reported}");
        }
        assert_eq!(counted(&server, None), 1, "{keys}");
    }
}

#[test]
fn who_has_another_version_is_told_from_who_is_wrong() {
    let replicas = [Replica::start(7, "192.0.2.1"), Replica::start(8, "192.0.2.9"), Replica::start(7, "192.0.2.1")];
    let failing = Backend::new(servfail());
    let check = |last: &dyn Asked, kind: &str| {
        let keys = "dispatch = 'race'\nreplicas = true\ncompare = 1.0\naudit = '100ms'";
        let server = Forwarder::to(&[&replicas[0], last], keys).admin().start();
        ask_until_counted(&server, "www.example", kind);
        assert_eq!(counted(&server, None), 1, "{kind}");
        let metrics = server.admin().metrics();
        // Backends that are asked for comparison are probed, too.
        assert!(metrics.attempts(last.address(), Some("probe")) >= 5, "{}", metrics.0);
    };
    check(&replicas[1], "serial");
    check(&failing, "rcode");
    replicas[2].update(7, "192.0.2.9");
    let client = Client::of(Asked::address(&replicas[2]));
    until("it is in force", || (client.ask(&query("www.example", A)).answers() == ["192.0.2.9"]).then_some(()));
    check(&replicas[2], "data");
}

#[test]
fn a_reply_that_is_not_accepted_is_compared_with_the_one_that_is() {
    let slow = Backend::new(answer("192.0.2.1").after(ms(20)));
    let denying = Backend::new(nxdomain());
    // The odd one comes first and is kept, or after the race.
    for keys in ["accept = 'positive'", "accept = 'any'"] {
        let keys = format!("dispatch = 'race'\nreplicas = true\ncompare = 1.0\n{keys}");
        let server = Forwarder::to(&[&slow, &denying], &keys).admin().start();
        ask_until_counted(&server, "www.example", "rcode");
        let said = &reported(&server)["divergences"][0]["said"];
        let rcodes = [&said[0]["rcode"], &said[1]["rcode"]];
        assert_eq!(rcodes, [&Value::from("NOERROR"), &Value::from("NXDOMAIN")], "{said}");
    }
}

#[test]
fn a_share_of_the_questions_is_compared_and_none_without_it() {
    let backends = [Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.9"))];
    let check = |share: &str, is_right: fn(usize) -> bool| {
        let keys = format!("dispatch = 'race'\nreplicas = true\ncompare = {share}\naudit = '1h'");
        let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).admin().start();
        let client = server.client();
        (0..20).for_each(|name| drop(client.ask(&query(&format!("n{name}.example"), A))));
        let began = Instant::now();
        // Each is asked five times, twenty of all in a second.
        let known = until("all that differ are known", || {
            let known = reported(&server)["divergences"].as_array()?.len();
            (began.elapsed() > Duration::from_secs(8) || known == 20).then_some(known)
        });
        assert!(is_right(known), "{share}: {known}");
    };
    check("0.0", |known| known == 0);
    // One chance in 500,000 that it is none or all.
    check("0.5", |known| (1..20).contains(&known));
    check("1.0", |known| known == 20);
}

#[test]
fn what_is_known_is_shown_until_it_is_gone_and_counted_when_it_is_back() {
    let is_wrong = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_wrong);
    let odd = Backend::new(reply(move |reply| {
        let address = if switch.load(Ordering::Relaxed) { "192.0.2.9" } else { "192.0.2.1" };
        reply.with_flags(AA).answer(a(address))
    }));
    let (one, two) = (Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.1")));
    let keys = "dispatch = 'race'\nreplicas = true\ncompare = 1.0";
    let server = Forwarder::to(&[&one, &odd, &two], keys).admin().start();
    assert_eq!(ctl(&server, &[]).trim(), "no divergence is known");
    ask_until_counted(&server, "a.example", "data");
    let text = ctl(&server, &["all"]);
    let [head, first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(head.starts_with("all  a.example. A +RD  data  since 20") && head.ends_with('Z'), "{head}");
    assert_eq!(first, format!("  {}: NOERROR A 192.0.2.9", odd.address()));
    assert_eq!(second, format!("  {}, {}: NOERROR A 192.0.2.1", one.address(), two.address()));
    // The log does not report a second divergence within the minute.
    let client = server.client();
    until("another is counted", || {
        client.ask(&query("b.example", A));
        (counted(&server, Some("data")) == 2).then_some(())
    });
    let log = server.process.wait_for_log("replicas disagree");
    assert!(log.contains("a.example.") && log.contains("192.0.2.9"), "{log}");
    assert_eq!(server.process.log().matches("replicas disagree").count(), 1, "{}", server.process.log());
    let reason = serde_json::json!({
        "code": "divergence",
        "text": "backends of pool all answer 2 questions differently",
    });
    until("the verdict says so", || {
        let status: Value = serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("JSON");
        let reasons = status["verdict"]["reasons"].as_array().expect("reasons");
        (status["verdict"]["state"] == "watch" && reasons.contains(&reason)).then_some(())
    });
    // No client asks any more; the comparison is repeated nevertheless.
    is_wrong.store(false, Ordering::Relaxed);
    until("both are gone", || reported(&server)["divergences"].as_array()?.is_empty().then_some(()));
    assert_eq!(counted(&server, None), 2);
    is_wrong.store(true, Ordering::Relaxed);
    until("it is counted again", || {
        client.ask(&query("a.example", A));
        (counted(&server, Some("data")) == 3).then_some(())
    });
}

#[test]
fn only_a_pool_that_is_there_is_told_of() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let text = ctl(&server, &[]);
    assert_eq!(text, "no divergence is known\n\nnot compared, as neither compare nor audit is set: all\n");
    let admin = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["divergence", "al", "--admin", &admin]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("there is no pool \"al\", did you mean \"all\"?"), "{said}");
    let wrong = server.admin().try_get("/api/v1/divergence?pol=all").expect("an answer");
    assert!(wrong.status == 400 && wrong.body.contains("expected pool"), "{wrong:?}");
    assert_eq!(counted(&server, None), 0);
}

/// A reply with these addresses beginning at another one each time, and a TTL that falls.
fn rotating(addresses: &'static [&'static str], shown: usize) -> Script {
    let turn = AtomicUsize::new(0);
    reply(move |reply| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let ttl = 300_u32.saturating_sub(turn as u32);
        let addresses = addresses.iter().cycle().skip(turn % addresses.len()).take(shown);
        addresses.fold(reply.with_flags(AA), |reply, address| reply.answer(a(address).lasting(ttl)))
    })
}

#[test]
fn rotating_answers_and_falling_times_to_live_are_no_divergence() {
    const ADDRESSES: &[&str] = &["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    for shown in [3, 1] {
        let backends: Vec<_> = (0..3).map(|_| Backend::new(rotating(ADDRESSES, shown))).collect();
        let asked: Vec<&dyn Asked> = backends.iter().map(|backend| backend as &dyn Asked).collect();
        let keys = "dispatch = 'race'\nreplicas = true\ncompare = 1.0\naudit = '100ms'";
        let server = Forwarder::to(&asked, keys).admin().start();
        let client = server.client();
        let began = Instant::now();
        let asked_besides = || server.admin().metrics().attempts(backends[0].address(), Some("probe"));
        until("they were compared often", || {
            client.ask(&query("www.example", A));
            (began.elapsed() > Duration::from_secs(4) && asked_besides() >= 4).then_some(())
        });
        assert_eq!(
            (counted(&server, None), &reported(&server)["divergences"]),
            (0, &Value::Array(Vec::new())),
            "{shown}"
        );
    }
}

#[test]
fn ordinary_updates_are_no_divergence() {
    const UPDATES: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(250);
    // Each server lists the other, so one address must be known before the start.
    let source = free_address();
    let secondaries: Vec<_> = (0..2)
        .map(|_| {
            let zones = format!("zones = [{{ zone = 'example', primaries = ['{source}'], file = 's.zone' }}]");
            Server::start(&format!("[authorities.ts]\nlisten = ['127.0.0.1:0']\n{zones}\n"))
        })
        .collect();
    let addresses: Vec<_> = secondaries.iter().map(|server| server.listener("ts")).collect();
    let config = format!(
        "[authorities.ts]\nlisten = ['{source}']\nzones = [{{ file = 'z.zone', origin = 'example', \
         transfer_to = ['127.0.0.0/8'], also_notify = ['{}', '{}'] }}]\n",
        addresses[0], addresses[1]
    );
    let primary = Server::start_with_files(&config, &[("z.zone", &zone(1, "192.0.2.1"))]);
    let replicas: Vec<_> = [source].into_iter().chain(addresses).collect();
    let has = |at: &std::net::SocketAddr, address: &str| {
        Client::of(*at).try_ask(&query("www.example", A)).is_some_and(|response| response.answers() == [address])
    };
    let wait = |address: &str| {
        until("all have it", || replicas.iter().all(|replica| has(replica, address)).then_some(()));
    };
    wait("192.0.2.1");
    let backends: Vec<_> = replicas.iter().map(|address| format!("'{address}'")).collect();
    let server = Server::start(&format!(
        "workers = 2\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.all]\nbackends = [{}]\n\
         dispatch = 'race'\nreplicas = true\ncompare = 1.0\naudit = '100ms'\n",
        backends.join(", ")
    ));
    let client = server.client();
    let mut host = 0;
    // Addresses of updates that took so long that a difference may be reported. Disks may stall, and each
    // version is saved.
    let mut late = Vec::new();
    for serial in 2..2 + UPDATES {
        let address = format!("192.0.2.{serial}");
        // Before the file is written: a disk may stall between its new content and the end of the write.
        let began = Instant::now();
        primary.reload("z.zone", &zone(serial, &address));
        let mut arrived = None;
        // A client asks all the time, so that queries meet each update in the middle, and for a while after
        // it.
        until("all have it", || {
            host = (host + 1) % HOSTS;
            client.try_ask(&query(&format!("h{host}.example"), A));
            if arrived.is_none() && replicas.iter().all(|replica| has(replica, &address)) {
                arrived = Some(began.elapsed());
            }
            arrived.filter(|_| began.elapsed() > BETWEEN)
        });
        if arrived.is_some_and(|arrived| arrived >= CONFIRM_AFTER) {
            late.push(Value::from(format!("A {address}")));
        }
    }
    let probes = server.admin().metrics().attempts(replicas[0], Some("probe"));
    println!("{UPDATES} updates, {probes} questions besides");
    assert!(probes > u64::from(UPDATES), "{probes}");
    assert!(late.len() < UPDATES as usize / 2, "updates are slow: {late:?}");
    let shown = reported(&server)["divergences"].as_array().expect("an array").clone();
    let is_late = |shown: &Value| {
        let said = shown["said"].as_array().expect("an array");
        shown["kind"] == "serial" && said.iter().any(|said| late.contains(&said["data"]))
    };
    assert!(shown.iter().all(is_late), "{late:?} {shown:?}");
    assert!(!late.is_empty() || counted(&server, None) == 0, "{shown:?}");
    // And yet what is different from then on is found.
    let odd = Replica::start(1 + UPDATES, "192.0.2.254");
    let backends = "/api/v1/pools/all/backends";
    server.admin().post(backends, &format!("{{\"address\": \"{}\"}}", Asked::address(&odd)));
    server.admin().wait_for_state(Asked::address(&odd), true);
    let took = ask_until_counted(&server, "h0.example", "data");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
