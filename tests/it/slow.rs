//! Slow races: which are kept, in which order, with what reason, and which clients may read them.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// The slow races that these words ask for.
fn slow(server: &Server, words: &str) -> Vec<Value> {
    let answer = server.admin().get(&format!("/api/v1/slow{words}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let json: Value = serde_json::from_str(&answer.body).expect("JSON");
    json["races"].as_array().expect("a list").clone()
}

/// How many there were, kept or not.
fn counted(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_slow_races_total", &[("pool", "all")])
}

/// Waits until so many are kept.
fn wait_for(server: &Server, count: usize) -> Vec<Value> {
    until("slow races are kept", || Some(slow(server, "")).filter(|races| races.len() >= count))
}

/// A server that keeps these.
fn keeping(backends: &[&dyn Asked], pool: &str, section: &str) -> Server {
    let config = Forwarder::to(backends, pool).admin().to_toml();
    Server::start(&format!("{config}[slow]\n{section}\n"))
}

/// The delays are far from the threshold on both sides, and what is quick here may be slow on a busy machine:
/// so whatever is kept must have taken as long as it says, and all that had to be slow is there.
#[test]
fn all_slow_races_are_found_in_order_and_none_of_the_fast() {
    const SLOW: Duration = Duration::from_millis(400);
    let backend = Backend::new(answer(ONE).except("slow", answer(ONE).after(SLOW)));
    let server = keeping(
        &[&backend],
        "dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'",
        "threshold = '300ms'\nkeep = 10000",
    );
    // Few at a time: so many at once would be slow on a busy machine, and of more than a hundred slow ones a
    // second the rest is only counted.
    let (slow, fast) = (server.client(), server.client());
    let mut asked = Vec::new();
    for turn in 0..40 {
        asked.push(format!("slow.{turn}.example."));
        slow.send(&query(&format!("slow.{turn}.example"), A));
        (1..25).for_each(|number| fast.send(&query(&format!("{turn}.{number}.example"), A)));
        (1..25).for_each(|_| drop(fast.receive()));
    }
    asked.iter().for_each(|_| drop(slow.receive()));
    let races = wait_for(&server, asked.len());
    let mut found: Vec<String> = Vec::new();
    for race in &races {
        assert!(race["took_ms"].as_f64().is_some_and(|took| took > 300.0), "{race}");
        let name = race["name"].as_str().expect("a name").to_owned();
        if name.starts_with("slow.") {
            found.push(name);
        }
    }
    found.sort();
    asked.sort();
    assert_eq!(found, asked);
    let ends: Vec<f64> =
        races.iter().filter_map(|race| Some(race["at"].as_f64()? + race["took_ms"].as_f64()? / 1e3)).collect();
    assert!(ends.windows(2).all(|pair| pair[0] + 0.01 >= pair[1]), "newest first: {ends:?}");
    let counted = server.admin().metrics().sum("hedgerow_slow_races_total", &[("pool", "all")]);
    assert_eq!(counted, races.len() as u64);
}

#[test]
fn a_late_reply_joins_its_race() {
    let late = Backend::new(answer(ONE).held());
    let quick = Backend::new(answer(TWO));
    let pool =
        "dispatch = 'hedge'\nbalance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n[hedge]\ndelay = '20ms'";
    let server = keeping(&[&late, &quick], pool, "threshold = '1ms'");
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [TWO]);
    let races = wait_for(&server, 1);
    assert_eq!(races[0]["attempts"][0]["fate"], "beaten");
    late.release();
    let race = until("the late reply is joined", || {
        slow(&server, "").into_iter().find(|race| race["attempts"][0]["fate"] == "late")
    });
    assert_eq!(
        (&race["attempts"][0]["rank"], &race["winner"]),
        (&"positive".into(), &quick.address().to_string().into())
    );
    let why = race["why"].as_str().expect("a sentence");
    assert!(why.starts_with(&format!("{} replied after ", late.address())) && why.contains("too late; "), "{why}");
}

/// The reply comes after `QUARANTINE`, which ends the reservation of its ID unless the late reply is to be
/// reported.
#[test]
fn a_reply_that_is_seconds_late_joins_its_race() {
    const LATE: Duration = Duration::from_millis(2_500);
    let late = Backend::new(answer(ONE).after(LATE));
    let quick = Backend::new(answer(TWO));
    let pool =
        "dispatch = 'hedge'\nbalance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n[hedge]\ndelay = '1ms'";
    let server = keeping(&[&late, &quick], pool, "threshold = '1us'");
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [TWO]);
    let race = until("the late reply is joined", || {
        slow(&server, "").into_iter().find(|race| race["attempts"][0]["fate"] == "late")
    });
    let took = race["attempts"][0]["took_ms"].as_f64().expect("a time");
    assert!(took >= LATE.as_secs_f64() * 1e3, "{race}");
    // It was silent before it was late, and is counted once.
    let attempts = server.admin().metrics().attempts(late.address(), None);
    assert_eq!(attempts, 1);
}

#[test]
fn what_failed_is_kept_however_quick_unless_nothing_is() {
    let backend = Backend::new(servfail());
    let server = keeping(&[&backend], "", "threshold = '1m'");
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), SERVFAIL);
    let races = wait_for(&server, 1);
    assert_eq!((&races[0]["rcode"], &races[0]["outcome"]), (&"SERVFAIL".into(), &"kept".into()));
    assert!(slow(&server, "?pool=other").is_empty());
    assert_eq!(slow(&server, "?pool=all&since=10m&limit=1").len(), 1);
    assert_eq!(server.admin().get("/api/v1/slow?limit=x").status, 400);
    let url = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["--admin", &url, "slow", "all", "--since", "10m"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("www.example. A") && text.contains("replied with a failure in "), "{output:?}");
    let server = keeping(&[&backend], "", "threshold = 'off'");
    let client = server.client();
    for name in ["one", "two"] {
        assert_eq!(client.ask(&query(name, A)).rcode(), SERVFAIL);
    }
    assert_eq!(counted(&server), 0);
    assert!(slow(&server, "").is_empty());
}

#[test]
fn of_many_slow_races_some_are_kept_each_second_and_all_are_counted() {
    let backend = Backend::new(answer(ONE));
    let pool = "dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'";
    let server = keeping(&[&backend], pool, "threshold = '1us'\nkeep = 100000");
    let (client, admin) = (server.client(), server.admin());
    let records =
        |metrics: &Metrics, fate| metrics.sum("hedgerow_tap_records_total", &[("tap", "slow"), ("fate", fate)]);
    let mut asked = 0;
    let mut ask = |count: u64| {
        (asked..asked + count).for_each(|number| client.send(&query(&format!("q{number}.example"), A)));
        (0..count).for_each(|_| drop(client.receive()));
        asked += count;
        asked
    };
    let began = Instant::now();
    until("more come than are logged", || {
        for _ in 0..20 {
            ask(20);
        }
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    });
    let seconds = began.elapsed().as_secs() + 1;
    let asked = ask(1);
    let metrics = admin.wait_for("each is logged or dropped", |metrics| {
        records(metrics, "written") + records(metrics, "dropped") == asked
    });
    assert_eq!(metrics.sum("hedgerow_slow_races_total", &[("pool", "all")]), asked);
    let reported = records(&metrics, "written");
    assert!((100..=1_000 * seconds + 1).contains(&reported), "{reported} in {seconds} seconds");
    assert_eq!(slow(&server, "").len() as u64, reported);
    until("the next second has room", || {
        ask(1);
        (records(&admin.metrics(), "written") > reported).then_some(())
    });
}

/// A quick answer may be slow once on a busy machine, but not each time.
#[test]
fn auto_follows_what_the_pool_takes() {
    let backend =
        Backend::new(answer(ONE).except("slow", answer(ONE).after(ms(400))).except("late", answer(ONE).after(ms(100))));
    let server = keeping(&[&backend], "dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'", "");
    let client = server.client();
    let mut number = 0;
    let mut is_slow = |kind: &str| {
        number += 1;
        let before = counted(&server);
        client.ask(&query(&format!("{kind}.{number}.example"), A));
        counted(&server) > before
    };
    assert!(is_slow("slow"), "it takes longer than a hedge is waited for at most");
    assert!((0..3).any(|_| !is_slow("late")), "without history a tenth of a second is not slow");
    // The threshold is the 99.9th percentile, so of a thousand races less than one may be late.
    until("the usual latency is known, and a tenth of a second is far above it", || {
        for _ in 0..150 {
            (0..20).for_each(|number| client.send(&query(&format!("usual.{number}.example"), A)));
            (0..20).for_each(|_| drop(client.receive()));
        }
        is_slow("late").then_some(())
    });
}

#[test]
fn names_of_slow_races_are_for_this_host() {
    let backend = Backend::new(servfail());
    let server = keeping(&[&backend], "", "");
    let admin = server.admin();
    assert_eq!(admin.send("GET", "/api/v1/slow", &[], "").status, 200);
    assert_eq!(admin.send("GET", "/api/v1/slow", &[("Host", "evil.example")], "").status, 403);
    assert_eq!(admin.send("GET", "/api/v1/slow", &[("X-Forwarded-For", "127.0.0.1")], "").status, 403);
}
