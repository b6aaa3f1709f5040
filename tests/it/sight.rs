//! What is seen at a glance, through HTTP: the verdict, each second as it comes, what was, and how many may
//! listen.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::Value;
use testkit::*;

const ONE: &str = "192.0.2.1";

/// A listener to the events, as a browser's `EventSource` is.
struct EventSource(BufReader<TcpStream>);

/// A second that was reported.
struct LiveEvent {
    id: u64,
    data: Value,
}

impl EventSource {
    /// Asks for a stream with these header lines; gives the status of the answer, and the stream if it is
    /// one.
    fn open(address: SocketAddr, lines: &str) -> (u16, Self) {
        let mut stream = TcpStream::connect(address).expect("the admin server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let request =
            format!("GET /api/v1/live HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut this = Self(BufReader::new(stream));
        let status = this.line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, this)
    }

    /// A stream that must be had.
    fn listen(address: SocketAddr, lines: &str) -> Self {
        let (status, this) = Self::open(address, lines);
        assert_eq!(status, 200);
        this
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("an answer in time") > 0, "the stream has ended");
        line
    }

    fn next(&mut self) -> LiveEvent {
        let mut id = None;
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().parse().ok();
            } else if let Some(text) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(text).expect("JSON in one line");
                return LiveEvent { id: id.expect("an id before the data"), data };
            }
        }
    }
}

/// The JSON at a path.
fn json(admin: &Admin, path: &str) -> Value {
    let answer = admin.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

/// The verdict in words: its state, and its reasons with their codes.
fn verdict(of: &Value) -> String {
    let reasons = of["verdict"]["reasons"].as_array().expect("a list of reasons");
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let text = |reason: &Value| format!(" {}: {}", word(&reason["code"]), word(&reason["text"]));
    format!("{}{}", of["verdict"]["state"].as_str().expect("a word"), reasons.iter().map(text).collect::<String>())
}

#[test]
fn each_second_is_told_and_what_was_missed_is_told_again() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let admin = server.admin();
    let mut events = EventSource::listen(admin.address(), "");
    let first = events.next();
    let reported: Vec<_> = (0..3).map(|_| events.next().id).collect();
    assert_eq!(reported, [first.id + 1, first.id + 2, first.id + 3]);
    let pool = &first.data["pools"][0];
    assert_eq!(
        (&pool["name"], &pool["p99_ms"], &pool["backends"][0]["state"]),
        (&"all".into(), &Value::Null, &"up".into())
    );
    assert_eq!((&first.data["verdict"]["state"], &first.data["responses"]["backend"]), (&"well".into(), &0.into()));
    drop(events);
    let mut again = EventSource::listen(admin.address(), &format!("Last-Event-ID: {}\r\n", first.id));
    let reported: Vec<_> = (0..4).map(|_| again.next().id).collect();
    assert_eq!(reported, (first.id + 1..=first.id + 4).collect::<Vec<_>>(), "what was missed, and what comes");
    // One that says nothing of use is one that comes for the first time.
    let last = again.next().id;
    let mut strange = EventSource::listen(admin.address(), "Last-Event-ID: x\r\n");
    assert!(strange.next().id >= last);
}

#[test]
fn queries_are_seen_by_second_by_minute_and_in_all() {
    let backend = Backend::new(answer(ONE).after(ms(20)));
    let server = Forwarder::to(&[&backend], "").cache("").admin().start();
    let admin = server.admin();
    let mut events = EventSource::listen(admin.address(), "");
    events.next();
    let client = server.client();
    (0..20).for_each(|number| drop(client.ask(&query(&format!("{number}.example"), A))));
    (0..5).for_each(|_| drop(client.ask(&query("0.example", A))));
    let (mut queries, mut attempts, mut hits) = (0, 0, 0);
    let p50 = until("all is reported", || {
        let second = events.next().data;
        let pool = &second["pools"][0];
        queries += second["queries"].as_u64().expect("a number");
        attempts += pool["backends"][0]["attempts"].as_u64().expect("a number");
        hits += second["cache"]["hits"].as_u64().expect("a number");
        assert_eq!(pool["p50_ms"].is_null(), pool["queries"] == 0, "{pool}");
        (queries == 25 && attempts >= 20 && hits == 5).then(|| pool["backends"][0]["p50_ms"].clone())
    });
    drop(p50);
    let status = json(&admin, "/api/v1/status");
    let minute = &status["pools"][0]["last_minute"];
    assert_eq!(minute["queries"], 25, "{minute}");
    let backend = &status["pools"][0]["backends"][0]["last_minute"];
    assert!(backend["p50_ms"].as_f64().is_some_and(|p50| p50 >= 18.0), "{backend}");
    let history = json(&admin, "/api/v1/history");
    assert_eq!((&history["step_seconds"], &history["pools"][0]["name"]), (&1.into(), &"all".into()));
    let sum = |column: &Value| column.as_array().expect("a column").iter().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!((sum(&history["queries"]), sum(&history["pools"][0]["queries"])), (25, 25));
    assert_eq!(sum(&history["responses"]["cache"]), 5);
    let length = |column: &Value| column.as_array().expect("a column").len();
    assert_eq!(length(&history["at"]), length(&history["pools"][0]["p99_ms"]));
    let day = json(&admin, "/api/v1/history?span=24h");
    assert_eq!((&day["step_seconds"], length(&day["at"])), (&60.into(), 0), "no minute is over");
    assert_eq!(admin.get("/api/v1/history?span=1h").status, 400);
}

#[test]
fn the_verdict_tells_who_is_down_and_that_it_is_well_again() {
    let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
    let health = "[health]\ninterval = '200ms'\ntimeout = '200ms'\nfall = 2\nrise = 1";
    let server = Forwarder::to(&[&backends[0], &backends[1]], health).admin().start();
    let admin = server.admin();
    let wait = |what: &str, is_so: &dyn Fn(&str) -> bool| {
        until(what, || {
            let reported = verdict(&json(&admin, "/api/v1/live?once"));
            is_so(&reported).then_some(reported)
        })
    };
    wait("a start is well", &|reported| reported == "well");
    backends[1].play_dead(true);
    let name = backends[1].address().to_string();
    wait("one is down", &|reported| {
        reported.starts_with(&format!("watch backend-down: {name} of pool all has been down for "))
    });
    assert_eq!(admin.metrics().sum("hedgerow_verdict", &[]), 1);
    let url = format!("http://{}", admin.address());
    let shown = String::from_utf8(server.process.ctl(&["status", "--admin", &url]).stdout).expect("UTF-8");
    let mut lines = shown.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("watch since 20")), "{shown}");
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with(&format!("  backend-down: {name} of pool all has been down for ")))
    );
    backends[0].play_dead(true);
    wait("all are down", &|reported| reported.starts_with("trouble pool-down: no backend of pool all is up: "));
    backends.iter().for_each(|backend| backend.play_dead(false));
    wait("all is well again", &|reported| reported == "well");
}

#[test]
fn a_reload_that_fails_is_told_with_its_place_until_one_succeeds() {
    let backend = Backend::new(answer(ONE));
    let forwarder = Forwarder::to(&[&backend], "").admin();
    let server = forwarder.start();
    let admin = server.admin();
    let reload = |config: &str| server.reload("config.toml", config);
    reload(&format!("{}\nno = 'key'\n", forwarder.to_toml()));
    let reported = until("it is sent", || {
        let reported = verdict(&json(&admin, "/api/v1/status"));
        (reported != "well").then_some(reported)
    });
    assert!(
        reported.starts_with("watch reload-failed: the reload at ") && reported.contains("config.toml:"),
        "{reported}"
    );
    assert!(reported.contains(": unknown key \"no\""), "{reported}");
    assert_eq!(admin.metrics().sum("hedgerow_config_last_reload_successful", &[]), 0);
    reload(&forwarder.to_toml());
    until("it is well", || (verdict(&json(&admin, "/api/v1/status")) == "well").then_some(()));
    assert_eq!(admin.metrics().sum("hedgerow_config_last_reload_successful", &[]), 1);
}

#[test]
fn of_a_thousand_listeners_28_are_served_and_nobody_else_notices() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let admin = server.admin();
    let address = admin.address();
    let mut listeners: Vec<_> = (0..28).map(|_| EventSource::listen(address, "")).collect();
    listeners.iter_mut().for_each(|listener| drop(listener.next()));
    let before = server.process.resident();
    let mut refused = Vec::new();
    for number in 28..1_000 {
        let (status, stream) = EventSource::open(address, "");
        assert_eq!(status, 503, "listener {number}");
        // Some stay connected, as a browser keeps its connections.
        if number % 100 < 10 {
            refused.push(stream);
        }
        if number % 100 == 0 {
            assert_eq!(admin.get("/metrics").status, 200, "a scrape beside {number} listeners");
            assert_eq!(admin.get("/api/v1/live?once").status, 200, "and who asks now and then");
        }
    }
    // The owner has places besides.
    let mut owner = UnixStream::connect(server.process.admin_socket(address)).expect("the socket is there");
    owner.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    owner.write_all(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut status = [0; 12];
    owner.read_exact(&mut status).expect("an answer in time");
    assert_eq!(status, *b"HTTP/1.1 200");
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} octets more after a thousand listeners");
    listeners.iter_mut().for_each(|listener| drop(listener.next()));
    // One that goes makes room for another.
    listeners.pop();
    until("there is a place", || (EventSource::open(address, "").0 == 200).then_some(()));
}

#[test]
fn who_does_not_read_is_given_up_and_costs_nobody_anything() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let address = server.admin().address();
    let _silent: Vec<_> = (0..4).map(|_| EventSource::listen(address, "")).collect();
    let mut reader = EventSource::listen(address, "");
    let first = reader.next().id;
    assert_eq!((0..5).map(|_| reader.next().id).last(), Some(first + 5));
}

#[test]
fn streams_end_with_the_server() {
    let backend = Backend::new(answer(ONE));
    let mut server = Forwarder::to(&[&backend], "").admin().start();
    let mut events = EventSource::listen(server.admin().address(), "");
    events.next();
    server.process.signal(Signal::TERM);
    let mut rest = Vec::new();
    events.0.read_to_end(&mut rest).expect("an orderly end");
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn pages_of_other_sites_and_rebound_names_read_nothing() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").cache("").admin().start();
    let admin = server.admin();
    for path in
        ["/api/v1/status", "/api/v1/live?once", "/api/v1/live", "/api/v1/history", "/api/v1/cache/names/a.example"]
    {
        for (line, expected) in [
            (("Sec-Fetch-Site", "cross-site"), 403),
            (("Sec-Fetch-Site", "same-site"), 403),
            (("Host", "evil.example"), 403),
        ] {
            assert_eq!(admin.send("GET", path, &[line], "").status, expected, "{path} with {line:?}");
        }
    }
    for site in ["same-origin", "none"] {
        assert_eq!(admin.send("GET", "/api/v1/status", &[("Sec-Fetch-Site", site)], "").status, 200);
    }
    let forwarded = [("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(admin.send("GET", "/api/v1/cache/names/a.example", &forwarded, "").status, 403, "names are private");
    assert_eq!(admin.send("GET", "/api/v1/status", &forwarded, "").status, 200, "figures are not");
}
