//! The admin server by HTTP: its responses, the changes it makes, and the requests it refuses.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::admin_site::{HOST, JSON, Site, TOKEN};
use hedgerow::admin::{ManualHealth, ProcessChange, ServerChange};

#[test]
fn health_is_that_it_runs_and_readiness_that_it_takes_queries() {
    let site = Site::start();
    assert_eq!(site.ask("GET /healthz").status, 200);
    assert_eq!(site.ask("GET /readyz").status, 200);
    site.condition.set_ready(false);
    assert_eq!(site.ask("GET /healthz").status, 200);
    assert_eq!(site.ask("GET /readyz").status, 503);
    site.condition.set_stall(Some("worker 1 has made no progress for 10 s".to_owned()));
    let sick = site.ask("GET /healthz");
    assert_eq!((sick.status, &*sick.body), (503, "worker 1 has made no progress for 10 s\n"));
    site.condition.set_stall(None);
    assert_eq!(site.ask("GET /healthz").status, 200);
}

#[test]
fn metrics_come_in_the_format_that_was_asked_for() {
    let site = Site::start();
    let sample = "hedgerow_attempts_total{pool=\"ts\",backend=\"ts1\",kind=\"hedge\"} 2\n";
    let plain = site.ask("GET /metrics");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", plain.head);
    assert!(plain.body.contains(sample) && !plain.body.contains("# EOF"), "{}", plain.body);
    let open = site.ask_with("GET /metrics", &[HOST, "Accept: application/openmetrics-text;version=1.0.0"], "");
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.contains(sample) && open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[test]
fn status_tells_of_every_backend() {
    let answer = Site::start().ask("GET /api/v1/status");
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let status: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["uptime_seconds"], &status["workers"]), (&3_600.into(), &2.into()));
    let pool = &status["pools"][0];
    assert_eq!((&pool["name"], &pool["in_flight"]), (&"ts".into(), &7.into()));
    assert_eq!((&pool["hedges_denied"], &pool["hedges_wasted"]), (&6.into(), &9.into()));
    let regret = serde_json::json!({
        "ratio": 1.25, "percentile": 99.9, "achieved_ms": 5.0, "best_ms": 4.0, "budget": 0.05, "delay_ms": 2.0,
        "probability": 0.8,
    });
    assert_eq!(pool["regret"], regret);
    let backend = &pool["backends"][0];
    for (key, value) in [
        ("name", "ts1".into()),
        ("address", "192.0.2.1:53".into()),
        ("weight", 3.into()),
        ("state", "down".into()),
        ("by_hand", true.into()),
        ("in_flight", 1.into()),
        ("errors", 3.into()),
        ("timeouts", 4.into()),
        ("attempts", serde_json::json!({ "first": 10, "hedge": 2, "failover": 1, "probe": 5 })),
        ("wins", serde_json::json!({ "first": 9, "hedge": 1, "failover": 0 })),
    ] {
        assert_eq!(backend[key], value, "{key}");
    }
    let seconds = backend["since_seconds"].as_u64().expect("a number");
    assert!((90..300).contains(&seconds), "{seconds}");
    let since = humantime::parse_rfc3339(backend["since"].as_str().expect("text")).expect("RFC 3339");
    assert!(since.elapsed().is_ok_and(|age| age.as_secs() >= 90));
    for part in ["p50", "p95", "p99"] {
        let milliseconds = backend["latency_ms"][part].as_f64().expect("a number");
        assert!((1.8..2.2).contains(&milliseconds), "{part}: {milliseconds}");
    }
}

#[test]
fn changes_reach_the_control_thread_as_they_were_asked_for() {
    let site = Site::start();
    let place = || ("ts".to_owned(), "ts1".to_owned());
    let mut expected = Vec::new();
    let mut check = |what: &str, body: &str, change: ServerChange| {
        let answer = site.change(what, body);
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert!(!answer.message().is_empty());
        expected.push(change);
        assert_eq!(site.changes(), expected);
    };
    let address = "[2001:db8::1]:53".parse().expect("an address");
    check(
        "POST /api/v1/pools/ts/backends",
        r#"{"address": "[2001:db8::1]:53", "weight": 7}"#,
        ServerChange::Add { pool: "ts".to_owned(), address, weight: 7 },
    );
    check(
        "POST /api/v1/pools/ts/backends",
        r#"{"address": "[2001:db8::1]:53"}"#,
        ServerChange::Add { pool: "ts".to_owned(), address, weight: 1 },
    );
    let (pool, backend) = place();
    check(
        "POST /api/v1/pools/ts/backends/ts1/drain",
        "",
        ServerChange::Drain { pool, backend, lasts: None, is_forced: false },
    );
    for (action, to) in [("up", ManualHealth::Up), ("down", ManualHealth::Down), ("auto", ManualHealth::Auto)] {
        let (pool, backend) = place();
        check(
            &format!("POST /api/v1/pools/ts/backends/ts1/{action}"),
            "",
            ServerChange::Set { pool, backend, to, lasts: None, is_forced: false },
        );
    }
    let (pool, backend) = ("ts".to_owned(), "[::1]:53".to_owned());
    check("DELETE /api/v1/pools/ts/backends/%5B%3A%3A1%5D%3A53", "", ServerChange::Remove { pool, backend });
}

#[test]
fn changes_of_processes_reach_the_control_thread() {
    let site = Site::start();
    let mut expected = Vec::new();
    for (what, body, change) in [
        ("restart", "", ProcessChange::Restart { is_cold: false }),
        ("restart", "{\"cold\": false}", ProcessChange::Restart { is_cold: false }),
        ("upgrade", "{}", ProcessChange::Upgrade { is_cold: false }),
        ("stop", "", ProcessChange::Stop),
    ] {
        let answer = site.change(&format!("POST /api/v1/{what}"), body);
        assert_eq!((answer.status, answer.message()), (200, format!("{what} is done")), "{body}");
        expected.push(ServerChange::Processes(change));
        assert_eq!(site.changes(), expected);
    }
    let cold = "{\"cold\": true}";
    let check = |what: &str, body: &str, status: u16, message: &str| {
        let answer = site.change(what, body);
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        assert!(answer.message().contains(message), "{what} {body}: {answer:?}");
    };
    check("POST /api/v1/restart", cold, 409, "another restart is under way");
    check("POST /api/v1/upgrade", cold, 400, "the new process has ended: status 2");
    let asked = site.changes().len();
    // A request cannot name a file to run.
    check("POST /api/v1/upgrade", "{\"cold\": false, \"file\": \"/bin/sh\"}", 400, "unknown field `file`");
    check("POST /api/v1/restart", "{\"cold\": 1}", 400, "expected JSON such as");
    for what in ["restart", "upgrade", "stop"] {
        let answer = site.ask_with(&format!("POST /api/v1/{what}"), &[HOST, JSON], "");
        assert_eq!(answer.status, 403, "{what} without a token: {answer:?}");
        assert_eq!(site.ask(&format!("GET /api/v1/{what}")).status, 405);
    }
    assert_eq!(site.changes().len(), asked);
}

#[test]
fn status_tells_of_every_process() {
    let status = Site::start().ask_json("GET /api/v1/status");
    assert_eq!((&status["supervisor"]["pid"], &status["supervisor"]["successions"]), (&10.into(), &1.into()));
    assert!(humantime::parse_rfc3339(status["supervisor"]["since"].as_str().expect("text")).is_ok());
    let roles = [("supervisor", 10), ("server", 11), ("failed", 12)];
    for (process, (role, pid)) in status["processes"].as_array().expect("a list").iter().zip(roles) {
        assert_eq!((&process["role"], &process["pid"]), (&role.into(), &pid.into()));
        assert_eq!((&process["version"], &process["edition"]), (&"1.2.3".into(), &4.into()));
        assert!(process["since_seconds"].as_u64().is_some_and(|seconds| (90..300).contains(&seconds)), "{process}");
        assert!(humantime::parse_rfc3339(process["since"].as_str().expect("text")).is_ok());
    }
    assert_eq!(status["processes"][1]["problem"], serde_json::Value::Null);
    assert_eq!(status["processes"][2]["problem"], "a.txt:1: wrong");
}

#[test]
fn what_cannot_be_done_is_told() {
    let site = Site::start();
    let check = |what: &str, body: &str, status: u16, message: &str| {
        let answer = if what.starts_with("GET") { site.ask(what) } else { site.change(what, body) };
        assert_eq!(answer.status, status, "{what} {body}: {answer:?}");
        assert!(answer.message().contains(message), "{what} {body}: {answer:?}");
    };
    check("POST /api/v1/reload", "", 400, "config.toml:1:1: nothing to run");
    check("DELETE /api/v1/pools/tss/backends/ts1", "", 404, "there is no pool \"tss\", expected one of ts");
    check("DELETE /api/v1/pools/ts/backends/ts2x", "", 404, "there is no backend \"ts2x\", expected one of ts1, busy");
    check("POST /api/v1/pools/ts/backends/bsuy/drain", "", 404, "did you mean \"busy\"?");
    check("POST /api/v1/pools/ts/backends/busy/drain", "", 409, "busy is the last backend of ts");
    check("POST /api/v1/pools/ts/backends/ts1/drian", "", 404, "did you mean \"drain\"?");
    check("GET /metric", "", 404, "/metrics");
    check("GET /api/v1/reload", "", 405, "POST");
    check("POST /metrics", "", 405, "GET");
    let add = "POST /api/v1/pools/ts/backends";
    check(add, "", 400, "expected JSON such as");
    check(add, "{\"addres\": \"192.0.2.1:53\"}", 400, "unknown field `addres`");
    check(add, "{\"address\": \"dns.example\"}", 400, "an IP address with its port, not a host name");
    check(add, "{\"address\": \"0.0.0.0:53\"}", 400, "the address of one host");
    check(add, "{\"address\": \"192.0.2.1:53\", \"weight\": 0}", 400, "expected an integer from 1 to 1000");
    check(add, &" ".repeat(10_000), 400, "length limit");
    assert!(site.changes().iter().all(|change| !matches!(change, ServerChange::Add { .. })));
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let answer = Site::start().ask("POST /api/v1/status");
    assert!(answer.head.contains("allow: get"), "{}", answer.head);
}

#[test]
fn web_pages_change_nothing() {
    let site = Site::start();
    let authorized = format!("Authorization: Bearer {TOKEN}");
    for (headers, status) in [
        (&[HOST][..], 403),
        (&[HOST, "Content-Type: text/plain", "Origin: http://evil.example"], 403),
        (&[HOST, "Content-Type: application/x-www-form-urlencoded"], 403),
        (&["Host: evil.example", JSON], 403),
        (&[HOST, JSON, "Authorization: Bearer 0123456789abcdeg"], 403),
        (&[HOST, JSON, "X-Requested-With: curl"], 403),
        (&["Host: ls1.example", &authorized], 200),
    ] {
        let before = site.changes().len();
        let answer = site.ask_with("POST /api/v1/pools/ts/backends/ts1/down", headers, "");
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert_eq!(site.changes().len() - before, usize::from(status == 200), "{headers:?}");
    }
    // A page whose name was rebound cannot even read, and no other origin may send requests.
    assert_eq!(site.ask_with("GET /api/v1/status", &["Host: evil.example:5380"], "").status, 403);
    let asked = site.ask_with(
        "OPTIONS /api/v1/reload",
        &[HOST, "Origin: http://evil.example", "Access-Control-Request-Method: POST"],
        "",
    );
    assert!(!asked.head.contains("access-control-allow"), "{}", asked.head);
}

#[test]
fn elsewhere_everybody_reads_by_any_name() {
    let site = Site::listen("0.0.0.0:0", false);
    assert_eq!(site.ask_with("GET /metrics", &["Host: ls1.example:5380"], "").status, 200);
    let change = "POST /api/v1/pools/ts/backends/ts1/down";
    for host in ["Host: ls1.example", HOST] {
        let answer = site.ask_with(change, &[host, JSON], "");
        assert_eq!(answer.status, 403, "{host}");
        assert!(answer.message().contains(&site.socket.display().to_string()), "{answer:?}");
    }
    assert_eq!(site.ask(change).status, 200, "over the socket");
}

#[test]
fn a_connection_takes_one_question_after_the_other() {
    let site = Site::start();
    let mut stream = TcpStream::connect(site.address).expect("it listens");
    let question = format!("GET /healthz HTTP/1.1\r\n{HOST}\r\n");
    write!(stream, "{question}\r\n{question}Connection: close\r\n\r\n").expect("it reads");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("it closes in time");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[test]
fn the_longest_idle_connection_makes_room() {
    let site = Site::start();
    let question = format!("GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n");
    let ask = |stream: &mut TcpStream| stream.write_all(question.as_bytes()).expect("room for it");
    let hear = |stream: &mut TcpStream| stream.read(&mut [0; 1024]).map(|octets| octets > 0);
    // Each has had an answer, so each has a place, and the later the younger: 24 are what one peer may have.
    let mut served: Vec<_> = (0..24).map(|_| TcpStream::connect(site.address).expect("the kernel takes it")).collect();
    for stream in &mut served {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).expect("not zero");
        ask(stream);
        assert!(hear(stream).expect("an answer"));
    }
    let mut late = TcpStream::connect(site.address).expect("the kernel takes it");
    ask(&mut late);
    assert!(hear(&mut late).expect("an answer"));
    assert!(!hear(&mut served[0]).expect("an end"), "it was idle for the longest");
    for stream in &mut served[1..] {
        ask(stream);
        assert!(hear(stream).expect("an answer"));
    }
}
