//! Tests of slow races as traces: they arrive whole, reveal no more of a name than they may, and a collector
//! that is away, hangs or has no time costs traces and no query.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

struct Collector {
    address: SocketAddr,
    /// The status of its responses; with 0 it never responds.
    status: Arc<AtomicU16>,
    /// The posts, each with the status of its response.
    posts: Receiver<(u16, Post)>,
}

/// A message to a collector.
struct Post {
    head: String,
    body: String,
}

impl Collector {
    fn start(status: u16) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), status)
    }

    fn on(listener: TcpListener, status: u16) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let (sender, posts) = channel();
        let status = Arc::new(AtomicU16::new(status));
        let answered = Arc::clone(&status);
        // Ends with the test.
        thread::spawn(move || {
            let mut hung = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let post = read(&stream);
                let status = answered.load(Relaxed);
                if sender.send((status, post)).is_err() {
                    return;
                }
                if status == 0 {
                    hung.push(stream);
                    continue;
                }
                // It may be gone.
                let _ = write!(&stream, "HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n\r\n{{}}");
            }
        });
        Self { address, status, posts }
    }

    /// The section of a config.
    fn section(&self) -> String {
        format!("[traces]\notlp = 'http://{}/v1/traces?a=b'\n", self.address)
    }

    /// Answers this from now on.
    fn set(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    /// Waits for the next message.
    fn next(&self) -> (u16, Post) {
        self.posts.recv_timeout(PATIENCE).expect("something is posted")
    }

    /// The messages so far, since the last one that was waited for.
    fn rest(&self) -> Vec<(u16, Post)> {
        self.posts.try_iter().collect()
    }
}

fn read(stream: &TcpStream) -> Post {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a head"), 0, "it ends early: {head}");
    }
    let len = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; len.expect("a length")];
    reader.read_exact(&mut body).expect("a whole body");
    Post { head, body: String::from_utf8(body).expect("text") }
}

impl Post {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn spans(&self) -> Vec<Value> {
        self.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("a list").clone()
    }

    /// The numbers of its traces.
    fn traces(&self) -> BTreeSet<String> {
        self.spans().iter().map(|span| span["traceId"].as_str().expect("text").to_owned()).collect()
    }

    /// The names that were asked for.
    fn names(&self) -> BTreeSet<String> {
        self.spans().iter().filter_map(|span| Some(attributes(span).get("dns.question.name")?.clone())).collect()
    }
}

/// The attributes of a span.
fn attributes(span: &Value) -> BTreeMap<String, String> {
    let value = |value: &Value| match value.as_object().and_then(|value| value.values().next()) {
        Some(Value::String(text)) => text.clone(),
        other => other.map(Value::to_string).unwrap_or_default(),
    };
    let list = span["attributes"].as_array().expect("a list").iter();
    list.map(|attribute| (attribute["key"].as_str().expect("a key").to_owned(), value(&attribute["value"]))).collect()
}

/// When a span began and ended, in nanoseconds.
fn times(span: &Value) -> (u64, u64) {
    let time = |key: &str| span[key].as_str().and_then(|time| time.parse().ok()).expect("nanoseconds as text");
    (time("startTimeUnixNano"), time("endTimeUnixNano"))
}

/// Returns the number of records of a tap with this fate.
fn records(metrics: &Metrics, tap: &str, fate: &str) -> u64 {
    metrics.sum("hedgerow_tap_records_total", &[("tap", tap), ("fate", fate)])
}

/// Makes races fail until so many are reported. No more than a hundred a second are.
fn fail(server: &Server, count: u64) {
    let (client, admin) = (server.client(), server.admin());
    let mut next = 0..;
    until("so many are exported", || {
        let reported = records(&admin.metrics(), "slow", "written");
        let names = next.by_ref().take(count.saturating_sub(reported).min(20) as usize);
        let asked = names.map(|number| client.send(&query(&format!("q{number}.{reported}.test"), A))).count();
        (0..asked).for_each(|_| assert_eq!(client.receive().rcode(), SERVFAIL));
        // Races that were begun may still be reported.
        let races = admin.metrics().sum("hedgerow_slow_races_total", &[]);
        let settled =
            |metrics: &Metrics| records(metrics, "slow", "written") + records(metrics, "slow", "dropped") >= races;
        let metrics = admin.wait_for("all of them are exported", settled);
        (records(&metrics, "slow", "written") >= count).then_some(())
    });
}

/// A config of a server whose races all fail, and are slow for that.
fn failing(backend: &Backend) -> String {
    format!("{}[slow]\nthreshold = '1m'\n", Forwarder::to(&[backend], "").admin().to_toml())
}

#[test]
fn a_slow_race_arrives_with_its_attempts_and_a_late_reply() {
    let collector = Collector::start(200);
    let (late, quick) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let named = format!("{{ address = '{}', name = 'late' }}", late.address());
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n[slow]\nthreshold = '1ms'\n\
         [pools.all]\nbackends = [{named}, '{}']\ndispatch = 'hedge'\nbalance = 'ordered'\ntimeout = '20s'\n\
         attempt_timeout = '20s'\n[pools.all.hedge]\ndelay = '20ms'\n{}",
        quick.address(),
        collector.section()
    );
    let server = Server::start(&config);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [TWO]);
    late.release();
    let (_, post) = collector.next();
    assert!(post.head.starts_with("POST /v1/traces?a=b HTTP/1.1\r\n"), "{}", post.head);
    let head = post.head.to_lowercase();
    assert!(head.contains(&format!("\r\nhost: {}\r\n", collector.address)), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    let resource = &post.json()["resourceSpans"][0]["resource"];
    assert_eq!(attributes(resource)["service.name"], "hedgerow");
    let spans = post.spans();
    let [query, first, hedge] = &spans[..] else { panic!("a query and two attempts: {spans:?}") };
    assert_eq!((&query["kind"], &first["kind"]), (&2.into(), &3.into()));
    assert_eq!(query.get("parentSpanId"), None);
    let reported = attributes(query);
    assert_eq!((&*reported["dns.question.name"], &*reported["hedgerow.outcome"]), ("www.example.", "won"));
    assert!(reported["hedgerow.why"].contains("too late; "), "{reported:?}");
    let (began, ended) = times(query);
    for (attempt, backend, name, kind, fate) in [
        (first, &late, "late".to_owned(), "first", "late"),
        (hedge, &quick, quick.address().to_string(), "hedge", "won"),
    ] {
        assert_eq!(attempt["traceId"], query["traceId"]);
        assert_eq!(attempt["parentSpanId"], query["spanId"]);
        assert_ne!(attempt["spanId"], query["spanId"]);
        let reported = attributes(attempt);
        assert_eq!(reported["server.port"], backend.address().port().to_string());
        assert_eq!((&*reported["network.peer.address"], &reported["hedgerow.backend"]), ("127.0.0.1", &name));
        assert_eq!((&*reported["hedgerow.attempt.kind"], &*reported["hedgerow.attempt.fate"]), (kind, fate));
        let (asked, replied) = times(attempt);
        assert!(began <= asked && asked <= ended && asked <= replied, "{attempt}");
    }
    assert!(times(first).1 > ended, "its reply came late");
    assert!(times(hedge).0 >= began + 20_000_000, "it was sent after the delay");
    let metrics = server.admin().wait_for("it is counted", |metrics| records(metrics, "traces", "written") > 0);
    assert_eq!((records(&metrics, "traces", "written"), records(&metrics, "traces", "dropped")), (1, 0));
}

#[test]
fn what_waits_at_the_end_is_sent_and_names_are_told_as_far_as_they_may_be() {
    for (keys, expected) in [("", "www.secret.test."), ("names = 'parent'", "secret.test."), ("names = 'none'", "")] {
        let (collector, backend) = (Collector::start(200), Backend::new(servfail()));
        let mut server = Server::start(&format!("{}{}{keys}\n", failing(&backend), collector.section()));
        assert_eq!(server.client().ask(&query("www.secret.test", A)).rcode(), SERVFAIL);
        server.process.signal(Signal::TERM);
        assert!(server.process.wait_for_exit().success());
        let (_, post) = collector.next();
        let names: Vec<_> = post.names().into_iter().collect();
        assert_eq!(names, [expected].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>());
        assert_eq!(post.body.contains("www"), keys.is_empty(), "{}", post.body);
        assert_eq!(post.body.contains("secret"), !expected.is_empty(), "{}", post.body);
        assert!(collector.rest().is_empty(), "it is sent once");
    }
}

#[test]
fn a_collector_that_is_away_or_refuses_costs_traces_and_gets_the_next() {
    let address = free_address();
    let backend = Backend::new(servfail());
    let server = Server::start(&format!("{}[traces]\notlp = 'http://{address}/'\n", failing(&backend)));
    let admin = server.admin();
    fail(&server, 100);
    admin.wait_for("all are dropped", |metrics| records(metrics, "traces", "dropped") == 100);
    server.process.wait_for_log("traces: records cannot be delivered; ");
    let collector = Collector::on(TcpListener::bind(address).expect("it was free"), 400);
    fail(&server, 200);
    admin.wait_for("they are refused", |metrics| records(metrics, "traces", "dropped") == 200);
    let refused: BTreeSet<_> = collector.rest().iter().flat_map(|(_, post)| post.traces()).collect();
    assert_eq!(refused.len(), 100);
    collector.set(200);
    fail(&server, 300);
    let metrics = admin.wait_for("they are written", |metrics| records(metrics, "traces", "written") == 100);
    assert_eq!(records(&metrics, "traces", "dropped"), 200);
    let arrived: BTreeSet<_> = collector.rest().iter().flat_map(|(_, post)| post.traces()).collect();
    assert!(arrived.len() == 100 && arrived.is_disjoint(&refused));
}

#[test]
fn a_collector_that_has_no_time_gets_the_same_once_more() {
    let (collector, backend) = (Collector::start(503), Backend::new(servfail()));
    let server = Server::start(&format!("{}{}", failing(&backend), collector.section()));
    fail(&server, 100);
    let (status, put_off) = collector.next();
    assert_eq!(status, 503);
    collector.set(200);
    let metrics = server.admin().wait_for("all are written", |metrics| records(metrics, "traces", "written") == 100);
    assert_eq!(records(&metrics, "traces", "dropped"), 0);
    let posts = collector.rest();
    assert!(posts[0].1.traces().is_superset(&put_off.traces()), "they go first, by the same numbers");
    assert_eq!(posts.iter().map(|(_, post)| post.traces().len()).sum::<usize>(), 100);
}

#[test]
fn a_collector_that_hangs_costs_traces_and_no_query() {
    let (collector, backend) = (Collector::start(0), Backend::new(servfail()));
    let server = Server::start(&format!("{}{}", failing(&backend), collector.section()));
    fail(&server, 100);
    let (status, hung) = collector.next();
    assert_eq!(status, 0);
    collector.set(200);
    // While it hangs all queries are answered.
    let mut asked = 100;
    until("the batch is given up", || {
        asked += 20;
        fail(&server, asked);
        server.process.log().contains("no answer within 5 s").then_some(())
    });
    let metrics = server.admin().wait_for("each is written or dropped", |metrics| {
        let ended = records(metrics, "traces", "written") + records(metrics, "traces", "dropped");
        ended == records(metrics, "slow", "written")
    });
    assert!(records(&metrics, "traces", "dropped") >= hung.traces().len() as u64);
    let posts = collector.rest();
    let arrived: BTreeSet<_> = posts.iter().flat_map(|(_, post)| post.traces()).collect();
    assert_eq!(arrived.len() as u64, records(&metrics, "traces", "written"));
    assert!(!arrived.is_empty(), "later ones arrive");
    assert!(arrived.is_disjoint(&hung.traces()), "what was given up is not sent again");
}

#[test]
fn traces_end_and_begin_at_a_reload() {
    let (collector, backend) = (Collector::start(200), Backend::new(servfail()));
    let without = failing(&backend);
    let with = format!("{without}{}", collector.section());
    let mut server = Server::start(&with);
    let (admin, client) = (server.admin(), server.client());
    let reported =
        |count: u64| drop(admin.wait_for("it is sent", |metrics| records(metrics, "slow", "written") == count));
    let reload = |config: &str, number: u64| {
        server.reload("config.toml", config);
        let count = |metrics: &Metrics| metrics.sum("hedgerow_reloads_total", &[("result", "ok")]);
        admin.wait_for("it is reloaded", |metrics| count(metrics) == number);
    };
    client.ask(&query("one.test", A));
    reported(1);
    reload(&without, 1);
    // What waits is sent before they end.
    assert_eq!(collector.next().1.names(), BTreeSet::from(["one.test.".to_owned()]));
    client.ask(&query("two.test", A));
    reported(2);
    reload(&with, 2);
    client.ask(&query("three.test", A));
    reported(3);
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    let posts = collector.rest();
    let names: Vec<_> = posts.iter().map(|(_, post)| post.names()).collect();
    assert_eq!(names, [BTreeSet::from(["three.test.".to_owned()])]);
}
