//! The query log: each query is in it once and says what became of it; whatever happens to its file or its
//! reader, queries are answered and lines are whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use testkit::tree::Tree;
use testkit::*;

const ONE: &str = "192.0.2.1";

/// The lines of a log, each as it was written; the last one has to be whole too.
pub(super) fn read_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn: {:?}", text.lines().last());
    text.lines().map(parse).collect()
}

pub(super) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits until a log has so many lines.
fn wait_for_lines(path: &Path, count: usize) -> Vec<Value> {
    let lines = |text: &str| text.bytes().filter(|octet| *octet == b'\n').count();
    until(&format!("{count} lines in {}", path.display()), || {
        (lines(&fs::read_to_string(path).unwrap_or_default()) >= count).then_some(())
    });
    read_lines(path)
}

/// The text of a field; empty if it is not there.
fn text<'v>(line: &'v Value, key: &str) -> &'v str {
    line[key].as_str().unwrap_or_default()
}

/// Asks for these names, a few at a time, and waits for all responses.
pub(super) fn ask_all(client: &Client, names: &[String]) {
    for (index, names) in names.chunks(20).enumerate() {
        for (number, name) in names.iter().enumerate() {
            client.send(&query(name, A).id((index * 20 + number) as u16));
        }
        names.iter().for_each(|_| drop(client.receive()));
    }
}

/// A server with a query log of these keys, in front of this backend.
fn logging(backend: &Backend, keys: &str) -> Server {
    let forwarder = Forwarder::to(&[backend], "").admin().to_toml();
    Server::start(&format!("{forwarder}\n[query_log]\n{keys}"))
}

/// Lines that were written and dropped, as the metrics have them.
pub(super) fn records(metrics: &Metrics, fate: &str) -> u64 {
    metrics.sum("hedgerow_tap_records_total", &[("tap", "query_log"), ("fate", fate)])
}

#[test]
fn every_query_is_logged_once_and_agrees_with_the_metrics() {
    let (one, two) = (Backend::new(answer_for(3600, ONE)), Backend::new(answer_for(3600, ONE)));
    let (failing, slow, quiet) = (Backend::new(servfail()), Backend::new(answer(ONE).held()), Backend::new(silent()));
    let hedge = "dispatch = 'hedge'\nbalance = 'ordered'\n[hedge]\ndelay = '5ms'\nbudget = 1.0";
    let forwarder = Forwarder::new()
        .workers(2)
        .pool("plain", "plain.test", &[&one, &two], "dispatch = 'sequential'\ncache = false")
        .pool("cached", "cached.test", &[&one], "")
        .pool("over", "over.test", &[&failing, &two], "dispatch = 'sequential'\nbalance = 'ordered'\ncache = false")
        .pool("late", "late.test", &[&slow, &one], hedge)
        .pool("quiet", "quiet.test", &[&quiet], "timeout = '50ms'\ncache = false")
        .cache("size = '8MiB'")
        .admin();
    let config = format!(
        "{}\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['table']\nmiss = 'nxdomain'\n\
         [query_log]\nrotate = 'off'\nclient = 'full'\n",
        forwarder.to_toml()
    );
    let server = Server::start_with_files(&config, &[("table", "host.test 192.0.2.7 A\n")]);
    let names = |zone: &str, count: usize| (0..count).map(|n| format!("q{n}.{zone}.test")).collect::<Vec<_>>();
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    let all = [("plain", 4000), ("cached", 2000), ("over", 1500), ("late", 300), ("quiet", 100), ("unrouted", 100)];
    let client = server.client();
    for (zone, count) in all {
        let names = names(zone, count);
        ask_all(&client, &names);
        names.iter().for_each(|name| *asked.entry(format!("{name}.")).or_default() += 1);
    }
    ask_all(&client, &names("cached", 1900));
    names("cached", 1900).iter().for_each(|name| *asked.entry(format!("{name}.")).or_default() += 1);
    let mut by_tcp = server.tcp_client();
    for number in 0..50 {
        by_tcp.ask(&query(&format!("t{number}.plain.test"), A));
        asked.insert(format!("t{number}.plain.test."), 1);
    }
    let authority = Client::of(server.listener("ts"));
    for name in ["host.test", "none.test"] {
        let names = vec![name.to_owned(); 25];
        ask_all(&authority, &names);
        asked.insert(format!("{name}."), 25);
    }
    let total: usize = asked.values().sum();
    assert_eq!(total, 10_000);
    let lines = wait_for_lines(&server.path("queries.jsonl"), total);
    let mut logged: BTreeMap<String, usize> = BTreeMap::new();
    lines.iter().for_each(|line| *logged.entry(text(line, "name").to_owned()).or_default() += 1);
    assert_eq!(logged, asked);

    let mut found: HashMap<(String, String, String), usize> = HashMap::new();
    for line in &lines {
        let name = text(line, "name");
        let zone = name.rsplit('.').nth(2).expect("three labels");
        let story = (text(line, "source"), text(line, "backend"), text(line, "kind"), text(line, "rcode"));
        let is_right = match zone {
            "plain" => matches!(story, ("backend", _, "first", "NOERROR")),
            "cached" => matches!(story, ("backend", _, "first", "NOERROR") | ("cache", "", "", "NOERROR")),
            "over" => story == ("backend", &*two.address().to_string(), "failover", "NOERROR"),
            "late" => story == ("backend", &*one.address().to_string(), "hedge", "NOERROR"),
            "quiet" => matches!(story, ("synthesized", "", "", "NXDOMAIN")),
            "unrouted" => matches!(story, ("error", "", "", "REFUSED")),
            "host" => matches!(story, ("authority", "", "", "NOERROR")),
            "none" => matches!(story, ("authority", "", "", "NXDOMAIN")),
            zone => panic!("{zone}"),
        };
        assert!(is_right, "{line}");
        assert_eq!(text(line, "transport"), if name.starts_with('t') { "tcp" } else { "udp" }, "{line}");
        assert_eq!((text(line, "client"), text(line, "type"), &line["weight"]), ("127.0.0.1", "A", &1.into()));
        let attempts = match zone {
            "over" | "late" => Some(2),
            "plain" | "quiet" => Some(1),
            "cached" => Some(i64::from(text(line, "source") == "backend")),
            _ => None,
        };
        assert_eq!(line["attempts"].as_i64(), attempts, "{line}");
        let took = line["took_ms"].as_f64();
        assert_eq!(took.is_some(), text(line, "source") != "authority", "{line}");
        assert!(zone != "quiet" || took >= Some(50.0), "{line}");
        *found
            .entry((text(line, "pool").into(), text(line, "backend").into(), text(line, "kind").into()))
            .or_default() += 1;
    }
    let metrics = server.admin().metrics();
    for source in ["backend", "cache", "stale", "synthesized", "authority", "error"] {
        let logged = lines.iter().filter(|line| text(line, "source") == source).count() as u64;
        assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", source)]), logged, "{source}");
    }
    for ((pool, backend, kind), count) in found.iter().filter(|((_, backend, _), _)| !backend.is_empty()) {
        let labels = [("pool", &**pool), ("backend", &**backend), ("kind", &**kind)];
        assert_eq!(metrics.sum("hedgerow_wins_total", &labels), *count as u64, "{labels:?}");
    }
    assert_eq!((records(&metrics, "written"), records(&metrics, "dropped")), (total as u64, 0));
    let mode = fs::metadata(server.path("queries.jsonl")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_sample_is_a_share_of_the_questions_and_each_line_has_its_weight() {
    let backend = Backend::new(answer(ONE));
    let server = logging(&backend, "sample = 0.1\nalways = []\nnames = 'parent'");
    let names: Vec<_> = (0..4000).map(|number| format!("q{number}.test")).collect();
    ask_all(&server.client(), &names);
    let metrics = server.admin().wait_for("the sample is written", |metrics| records(metrics, "written") >= 295);
    assert_eq!(records(&metrics, "dropped"), 0);
    let lines = read_lines(&server.path("queries.jsonl"));
    // Five and a half standard deviations of a binomial distribution.
    assert!((295..=505).contains(&lines.len()), "{}", lines.len());
    for line in &lines {
        assert_eq!((text(line, "name"), text(line, "client")), ("test.", "127.0.0.0/24"));
        assert_eq!(line["weight"].as_f64(), Some(10.0));
    }
}

#[test]
fn failed_and_hedged_queries_are_logged_whatever_the_sample() {
    let (slow, quick) = (Backend::new(answer(ONE).held()), Backend::new(answer(ONE).except("bad", servfail())));
    let hedge = "dispatch = 'hedge'\nbalance = 'ordered'\n[hedge]\ndelay = '1ms'\nbudget = 1.0";
    let forwarder =
        Forwarder::new().pool("late", "late.test", &[&slow, &quick], hedge).pool("other", ".", &[&quick], "").admin();
    let log = "[query_log]\nsample = 0\nalways = ['failed', 'hedged']\nclient = 'none'\nformat = 'logfmt'";
    let server = Server::start(&format!("{}\n{log}", forwarder.to_toml()));
    ask_all(&server.client(), &["good.test".into(), "bad.test".into(), "a.late.test".into()]);
    server.admin().wait_for("two lines", |metrics| records(metrics, "written") == 2);
    let log = fs::read_to_string(server.path("queries.jsonl")).expect("it is there");
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable_by_key(|line| line.contains("a.late"));
    let expected = format!(
        " transport=udp name=bad.test. type=A rcode=SERVFAIL source=backend pool=other backend={}",
        quick.address()
    );
    assert!(lines[0].contains(&expected) && lines[0].ends_with(" weight=1"), "{log}");
    assert!(lines[1].contains(" name=a.late.test. ") && lines[1].contains(" kind=hedge "), "{log}");
    assert!(!log.contains("client="), "{log}");
}

/// A quick query may be slow on a busy machine: so the test checks that each logged query took as long as the
/// log says, and that all slow ones are there.
#[test]
fn slow_queries_are_logged_whatever_the_sample_and_quick_ones_are_not() {
    let backend = Backend::new(answer(ONE).except("slow", answer(ONE).held()));
    let forwarder = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").admin().to_toml();
    let log = "[query_log]\nsample = 0\nalways = ['slow']\n[slow]\nthreshold = '300ms'";
    let server = Server::start(&format!("{forwarder}\n{log}"));
    let (quick, slow, again) = (server.client(), server.client(), server.client());
    let began = Instant::now();
    let names: Vec<_> = (0..20).map(|number| format!("slow.q{number}.test")).collect();
    names.iter().for_each(|name| slow.send(&query(name, A)));
    // Another client asks for one of them as well, and does so twice.
    (0..2).for_each(|_| again.send(&query(&names[0], A).id(7)));
    backend.wait_for(names.len());
    let mut asked = 0;
    until("the slow ones have taken long enough", || {
        ask_all(&quick, &(asked..asked + 20).map(|number| format!("q{number}.test")).collect::<Vec<_>>());
        asked += 20;
        (began.elapsed() > ms(400)).then_some(())
    });
    server.admin().wait_for("all are taken", |metrics| metrics.sum("hedgerow_queries_total", &[]) == 22 + asked);
    backend.release();
    names.iter().for_each(|_| drop(slow.receive()));
    assert_eq!(again.receive().id(), 7);
    let lines = wait_for_lines(&server.path("queries.jsonl"), names.len() + 1);
    let mut weights: BTreeMap<&str, f64> = BTreeMap::new();
    for line in &lines {
        assert!(line["took_ms"].as_f64() > Some(300.0), "{line}");
        *weights.entry(text(line, "name")).or_default() += line["weight"].as_f64().expect("a number");
    }
    weights.retain(|name, _| name.starts_with("slow."));
    let expected = names.iter().enumerate().map(|(number, _)| if number == 0 { 3.0 } else { 1.0 });
    let expected: BTreeMap<_, _> = names.iter().map(|name| format!("{name}.")).zip(expected).collect();
    assert_eq!(
        weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect::<BTreeMap<_, _>>(),
        expected
    );
}

#[test]
fn slow_queries_are_logged_where_nobody_keeps_slow_races() {
    // Above `hedge.max_delay`, for there is no history.
    let backend = Backend::new(answer(ONE).except("slow", answer(ONE).after(ms(300))));
    let forwarder = Forwarder::to(&[&backend], "").to_toml();
    let server = Server::start(&format!("{forwarder}\n[query_log]\nsample = 0"));
    ask_all(&server.client(), &["slow.test".into()]);
    let line = &wait_for_lines(&server.path("queries.jsonl"), 1)[0];
    assert_eq!((text(line, "name"), line["weight"].as_f64()), ("slow.test.", Some(1.0)));
}

/// Those of `always` stand for themselves, those of the sample for others too.
#[test]
fn a_failure_that_the_sample_has_not_weighs_one() {
    let backend = Backend::new(answer(ONE).except("bad", servfail()));
    let forwarder = Forwarder::to(&[&backend], "").admin().to_toml();
    let server = Server::start(&format!("{forwarder}\n[query_log]\nsample = 0.01\nalways = ['failed']"));
    let names: Vec<_> = (0..100).map(|number| format!("bad.q{number}.test")).collect();
    ask_all(&server.client(), &names);
    let lines = wait_for_lines(&server.path("queries.jsonl"), names.len());
    let mut logged: Vec<_> = lines.iter().map(|line| text(line, "name")).collect();
    logged.sort_unstable();
    logged.dedup();
    assert_eq!((lines.len(), logged.len()), (names.len(), names.len()));
    for line in &lines {
        assert_eq!((text(line, "rcode"), line["weight"].as_f64()), ("SERVFAIL", Some(1.0)), "{line}");
    }
}

#[test]
fn a_reload_begins_changes_and_ends_the_log_and_opens_its_file_anew() {
    let backend = Backend::new(answer(ONE));
    // A process may write later where it was to write at the start.
    let cache = "persist = 'log/cache.bin'";
    let config = Forwarder::to(&[&backend], "cache = false").cache(cache).admin().to_toml();
    let server = Server::start_as(&config, &[], |command| {
        let config = Path::new(command.get_args().last().expect("the config file"));
        fs::create_dir(config.with_file_name("log")).expect("our own folder");
    });
    let (client, admin) = (server.client(), server.admin());
    let edition =
        |edition: u64| admin.wait_for("a reload", |metrics| metrics.sum("hedgerow_config_edition", &[]) == edition);
    let ask = |name: &str| drop(client.ask(&query(name, A)));
    ask("before.test");
    server.reload("config.toml", &format!("{config}\n[query_log]\nto = 'log/queries'"));
    edition(2);
    ask("one.test");
    let (log, moved, other) = (server.path("log/queries"), server.path("log/moved"), server.path("log/other"));
    wait_for_lines(&log, 1);
    fs::rename(&log, &moved).expect("it is there");
    ask("two.test");
    wait_for_lines(&moved, 2);
    server.reload("config.toml", &format!("{config}\n[query_log]\nto = 'log/queries'"));
    edition(3);
    ask("three.test");
    assert_eq!(text(&wait_for_lines(&log, 1)[0], "name"), "three.test.");
    server.reload("config.toml", &format!("{config}\n[query_log]\nto = 'log/other'\nnames = 'none'"));
    edition(4);
    ask("four.test");
    let lines = wait_for_lines(&other, 1);
    assert_eq!((&lines[0]["name"], text(&lines[0], "type")), (&Value::Null, "A"));
    server.reload("config.toml", &config);
    edition(5);
    ask("five.test");
    let metrics = admin.wait_for("what was logged is written", |metrics| records(metrics, "written") == 4);
    assert_eq!(records(&metrics, "dropped"), 0);
    assert_eq!([&log, &moved, &other].map(|file| read_lines(file).len()), [1, 2, 1]);
}

#[test]
fn lines_go_to_the_standard_error_stream_between_those_of_the_log() {
    let backend = Backend::new(answer(ONE));
    let server = logging(&backend, "to = 'stderr'");
    ask_all(&server.client(), &["www.test".into()]);
    let line = server.process.wait_for_log("\"name\":\"www.test.\"");
    assert_eq!(text(&parse(&line), "rcode"), "NOERROR");
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_query() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log.sock");
    let reader = UnixDatagram::bind(&path).expect("our own folder");
    let backend = Backend::new(answer_for(3600, ONE));
    let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().to_toml();
    let log = format!("[query_log]\nto = 'unix:{}'\nbuffer = '1MiB'", path.display());
    let server = Server::start(&format!("{forwarder}\n{log}"));
    let (client, admin) = (server.client(), server.admin());
    // What waits is in memory until that is full.
    let name = format!("{}.test", "long-label-that-takes-room.".repeat(7));
    let mut asked = 0;
    let is_full = |asked: &mut usize| {
        ask_all(&client, &vec![name.clone(); 2000]);
        *asked += 2000;
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    };
    until("there is no room any more", || is_full(&mut asked));
    ask_all(&client, &vec![name.clone(); 1000]);
    asked += 1000;
    server.process.wait_for_log("query_log: ");
    // Read from now on, what was not dropped is there.
    reader.set_read_timeout(Some(ms(20))).expect("a timeout above zero");
    let (mut lines, mut line) = (0, [0; 4096]);
    let dropped = until("all that is not dropped has come", || {
        while let Ok(length) = reader.recv(&mut line) {
            assert_eq!(text(&parse(str::from_utf8(&line[..length]).expect("text")), "rcode"), "NOERROR");
            lines += 1;
        }
        let metrics = admin.metrics();
        let (written, dropped) = (records(&metrics, "written"), records(&metrics, "dropped"));
        (written as usize == lines && written + dropped == asked as u64).then_some(dropped)
    });
    assert!(dropped > 0);
    assert_eq!(admin.metrics().sum("hedgerow_responses_total", &[]), asked as u64, "no query waited for the log");
}

#[test]
fn a_full_disk_costs_lines_and_no_query() {
    let backend = Backend::new(answer_for(3600, ONE));
    let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().to_toml();
    let server = Server::start(&format!("{forwarder}\n[query_log]\nto = '/dev/full'\nbuffer = '1MiB'"));
    let (client, admin) = (server.client(), server.admin());
    let name = format!("{}.test", "long-label-that-takes-room.".repeat(7));
    until("there is no room any more", || {
        ask_all(&client, &vec![name.clone(); 2000]);
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    });
    assert_eq!(records(&admin.metrics(), "written"), 0);
    let reported = server.process.wait_for_log("query_log: records cannot be written");
    assert!(reported.contains("No space left on device"), "{reported}");
    assert_eq!(server.process.log().matches("query_log: ").count(), 1, "it is logged once a minute");
}

#[test]
fn rotation_under_load_tears_and_loses_no_line() {
    let backend = Backend::new(answer_for(3600, ONE));
    let forwarder = Forwarder::to(&[&backend], "").cache("size = '4MiB'").admin().workers(2).to_toml();
    let server = Server::start(&format!("{forwarder}\n[query_log]\nrotate = '1MiB'\nkeep = 50"));
    let label = "a-label-that-makes-lines-longer.".repeat(4);
    let names: Vec<_> = (0..12_000).map(|number| format!("q{number}.{label}test")).collect();
    ask_all(&server.client(), &names);
    let metrics = server.admin().wait_for("all is written", |metrics| records(metrics, "written") == 12_000);
    assert_eq!(records(&metrics, "dropped"), 0);
    let mut logged = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(server.path(".")).expect("our own folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("queries.jsonl") {
            assert!(entry.metadata().expect("it is there").len() <= 1 << 20, "{entry:?}");
            logged.extend(read_lines(&entry.path()).iter().map(|line| text(line, "name").to_owned()));
            files += 1;
        }
    }
    assert!(files >= 3, "{files}");
    let mut asked: Vec<_> = names.iter().map(|name| format!("{name}.")).collect();
    asked.sort_unstable();
    logged.sort_unstable();
    assert_eq!(logged, asked);
}

/// Needs the program `logrotate`, of Debian's package of that name.
#[test]
fn logrotate_rotates_it() {
    let program = ["logrotate", "/usr/sbin/logrotate"].into_iter().find(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    let Some(program) = program else { return leave_out("logrotate", "it is not installed") };
    let backend = Backend::new(answer(ONE));
    let server = logging(&backend, "rotate = 'off'");
    let log = server.path("queries.jsonl");
    let client = server.client();
    drop(client.ask(&query("one.test", A)));
    wait_for_lines(&log, 1);
    let config = format!(
        "\"{}\" {{\n rotate 3\n nocreate\n nocompress\n postrotate\n  kill -HUP {}\n endscript\n}}\n",
        log.display(),
        server.process.id()
    );
    server.rewrite("logrotate.conf", &config);
    // It takes no config that others may write to.
    let file = server.path("logrotate.conf");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own file");
    fs::set_permissions(server.path("."), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let run = Command::new(program).arg("--force").arg("--state").arg(server.path("state")).arg(&file).output();
    let run = run.expect("it was there a moment ago");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    server.admin().wait_for("the reload", |metrics| metrics.sum("hedgerow_config_edition", &[]) == 2);
    drop(client.ask(&query("two.test", A)));
    assert_eq!(text(&wait_for_lines(&log, 1)[0], "name"), "two.test.");
    assert_eq!(text(&read_lines(&server.path("queries.jsonl.1"))[0], "name"), "one.test.");
}

#[test]
fn what_was_logged_is_written_before_the_end() {
    let backend = Backend::new(answer(ONE));
    let mut server = logging(&backend, "");
    let names: Vec<_> = (0..500).map(|number| format!("q{number}.test")).collect();
    ask_all(&server.client(), &names);
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    assert_eq!(read_lines(&server.path("queries.jsonl")).len(), 500);
}

#[test]
fn lines_of_the_next_server_go_on_in_the_same_file() {
    let tree = Tree::start("[query_log]");
    let log = tree.server.path("queries.jsonl");
    let ask = || {
        let client = tree.client();
        (0..10).for_each(|_| drop(client.ask(&query("www.example", A))));
    };
    ask();
    wait_for_lines(&log, 10);
    let killed = tree.pid("server");
    tree.kill(&[killed]);
    tree.server_other_than(&[killed]);
    ask();
    wait_for_lines(&log, 20);
    tree.wait_until_whole();
    tree.server.admin().post("/api/v1/restart", "");
    ask();
    let lines = wait_for_lines(&log, 30);
    assert_eq!(lines.len(), 30);
    assert!(lines.iter().all(|line| text(line, "name") == "www.example."), "{lines:?}");
}

#[test]
fn a_fifo_that_nobody_reads_holds_up_neither_queries_nor_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("our own folder");
    let backend = Backend::new(answer(ONE));
    let mut server = logging(&backend, &format!("to = '{}'", fifo.display()));
    let names: Vec<_> = (0..2000).map(|number| format!("q{number}.test")).collect();
    ask_all(&server.client(), &names[..1000]);
    server.process.wait_for_log("query_log: records cannot be written");
    let reader = File::options().read(true).open(&fifo).expect("the server opens it too");
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    for _ in 0..1000 {
        line.clear();
        reader.read_line(&mut line).expect("a line");
        parse(&line);
    }
    // It is open, and full.
    ask_all(&server.client(), &names[1000..]);
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("text");
    assert!(!rest.is_empty());
}
