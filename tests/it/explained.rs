//! `POST /api/v1/explain` and `hedgerow ctl explain` against backends that are slow, silent, failing or down:
//! the words are right, and no figure of clients counts them.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// A pool that hedges after so many milliseconds, asked in the order of the config.
fn hedging(keys: &str) -> String {
    format!("dispatch = 'hedge'\nbalance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n[hedge]\n{keys}")
}

/// Has a name explained.
fn explain(server: &Server, name: &str, fresh: bool) -> Value {
    let body = json!({ "name": name, "type": "A", "fresh": fresh }).to_string();
    let answer = server.admin().try_post("/api/v1/explain", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

fn why(explained: &Value) -> &str {
    explained["why"].as_str().expect("a sentence")
}

/// Returns the outcome of each attempt.
fn fates(explained: &Value) -> Vec<&str> {
    let attempts = explained["attempts"].as_array().expect("a list");
    attempts.iter().map(|attempt| attempt["fate"].as_str().expect("a word")).collect()
}

/// Checks that the clauses stand in the sentence, in this order.
fn check_why(explained: &Value, clauses: &[&str]) {
    let mut rest = why(explained);
    for clause in clauses {
        let (_, behind) = rest.split_once(clause).unwrap_or_else(|| panic!("no {clause:?} in {:?}", why(explained)));
        rest = behind;
    }
}

#[test]
fn a_slow_backend_is_named_and_its_response_is_whole() {
    let slow = Backend::new(answer(ONE).after(ms(150)));
    let server = Forwarder::to(&[&slow], "dispatch = 'sequential'").admin().start();
    let explained = explain(&server, "www.example", false);
    let address = slow.address().to_string();
    check_why(&explained, &[&format!("{address} replied in "), " ms"]);
    assert_eq!(explained["outcome"], "won");
    assert_eq!(explained["response"]["records"], json!([format!("www.example. 60 A {ONE}")]));
    assert_eq!(explained["winner"], json!(address));
    assert_eq!((&explained["route"], &explained["pool"]), (&json!("."), &json!("all")));
    assert_eq!((&explained["rcode"], &explained["response"]["source"]), (&json!("NOERROR"), &json!("backend")));
    assert!(explained["took_ms"].as_f64().is_some_and(|took| took >= 150.0), "{explained}");
    let candidate = &explained["candidates"][0];
    assert_eq!(
        (&candidate["backend"], &candidate["state"], &candidate["place"]),
        (&json!(address), &json!("up"), &json!(1))
    );
    assert_eq!((fates(&explained), &explained["cache"]["state"]), (vec!["won"], &json!("off")));
}

#[test]
fn of_many_backends_those_that_may_be_asked_are_told_and_the_rest_is_counted() {
    let backend = Backend::new(answer(ONE));
    let others: Vec<_> = (0..99).map(|number| SocketAddr::from(([127, 0, 9, number], 5303))).collect();
    let mut asked: Vec<&dyn Asked> = vec![&backend];
    asked.extend(others.iter().map(|other| other as &dyn Asked));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'";
    let server = Forwarder::to(&asked, keys).admin().start();
    let explained = explain(&server, "www.example", false);
    let candidates = explained["candidates"].as_array().expect("a list");
    assert!((1..=8).contains(&candidates.len()), "{explained}");
    assert_eq!(candidates[0]["backend"], json!(backend.address().to_string()));
    let places: Vec<_> = candidates.iter().map(|candidate| candidate["place"].as_u64()).collect();
    assert_eq!(places, (1..=candidates.len() as u64).map(Some).collect::<Vec<_>>());
    assert_eq!(explained["more_backends"], json!(100 - candidates.len()));
}

#[test]
fn a_late_loser_is_waited_for() {
    let slow = Backend::new(answer(ONE).after(ms(600)));
    let quick = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&slow, &quick], &hedging("delay = '20ms'")).admin().start();
    let explained = explain(&server, "www.example", false);
    assert_eq!(fates(&explained), ["late", "won"], "{explained}");
    check_why(
        &explained,
        &[&format!("{} replied after ", slow.address()), "too late; ", &format!("{} replied in", quick.address())],
    );
    assert_eq!((&explained["hedge_delay_ms"], &explained["hedge_delay_from"]), (&json!(20.0), &json!("hedge.delay")));
    assert_eq!(explained["attempts"][0]["rank"], "positive");
    assert_eq!(explained["tokens"], 10);
}

#[test]
fn who_never_replies_was_silent() {
    let silent = Backend::new(silent());
    let quick = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&silent, &quick], &hedging("delay = '20ms'")).admin().start();
    let explained = explain(&server, "www.example", false);
    assert_eq!(fates(&explained), ["silent", "won"]);
    check_why(&explained, &[&format!("{} silent; ", silent.address()), &format!("{} replied in ", quick.address())]);
}

#[test]
fn a_failure_moves_on_and_is_told() {
    let failing = Backend::new(servfail());
    let backend = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&failing, &backend], &hedging("budget = 0.0")).admin().start();
    let explained = explain(&server, "www.example", false);
    check_why(
        &explained,
        &[&format!("{} replied with a failure in ", failing.address()), &format!("{} replied in ", backend.address())],
    );
    assert_eq!(fates(&explained), ["failed", "won"]);
    assert_eq!(explained["attempts"][1]["kind"], "failover");
    // Where there is no budget there are no hedges.
    assert_eq!((&explained["hedge_delay_ms"], &explained["tokens"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_hedge_that_the_budget_denies_is_told() {
    let slow = Backend::new(answer(ONE).after(ms(300)));
    let quick = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&slow, &quick], &hedging("delay = '5ms'\nbudget = 0.001")).admin().start();
    let client = server.client();
    // The bucket pays for ten.
    (0..10).for_each(|i| assert_eq!(client.ask(&query(&format!("{i}.example"), A)).answers(), [TWO]));
    let explained = explain(&server, "www.example", false);
    let denial = format!("hedge to {} denied for ", quick.address());
    check_why(&explained, &[&format!("{} replied in ", slow.address()), &denial, "budget spent"]);
    assert_eq!((&explained["tokens"], &explained["hedges_denied"]), (&json!(0), &json!(1)));
    assert_eq!(fates(&explained), ["won"]);
}

#[test]
fn when_all_are_down_each_says_so() {
    let (one, two) = (Backend::dead(), Backend::dead());
    let health = "on_all_down = 'refused'\nattempt_timeout = '200ms'\n[health]\ninterval = '100ms'\ntimeout = '100ms'";
    let server = Forwarder::to(&[&one, &two], health).admin().start();
    server.admin().wait_for_state(one.address(), false);
    server.admin().wait_for_state(two.address(), false);
    let explained = explain(&server, "www.example", false);
    check_why(&explained, &["no backend was up, so all were asked; ", "silent; ", "REFUSED was synthesized after "]);
    assert_eq!((&explained["outcome"], &explained["rcode"]), (&json!("made-up"), &json!("REFUSED")));
    assert_eq!((&explained["all_down"], &explained["winner"]), (&json!(true), &Value::Null));
    for candidate in explained["candidates"].as_array().expect("a list") {
        assert_eq!(candidate["state"], "down");
        assert_eq!(candidate["why"], "no backend is up, so all are asked");
    }
    assert_eq!(explained["response"]["source"], "synthesized");
}

#[test]
fn a_truncated_reply_is_fetched_whole() {
    let backend = Backend::new(truncated().by_tcp(answer(ONE)));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let explained = explain(&server, "www.example", false);
    assert_eq!((&explained["outcome"], &explained["response"]["rcode"]), (&json!("won"), &json!("NOERROR")));
    assert!(backend.queries().iter().any(|seen| seen.tcp), "{explained}");
    let output =
        server.process.ctl(&["--admin", &format!("http://{}", server.listener("admin")), "explain", "www.example"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(&format!("A {ONE}\n")), "{output:?}");
}

#[test]
fn a_stale_answer_that_helps_out_is_told() {
    let backend = Backend::new(answer_for(1, ONE).then(silent()));
    let keys = "on_timeout = 'servfail'\ntimeout = '1s'\nattempt_timeout = '900ms'";
    let server = Forwarder::to(&[&backend], keys).cache("stale_answer_after = '100ms'\nprefetch = 0").admin().start();
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    let explained = until("it has run out", || {
        let explained = explain(&server, "www.example", false);
        (explained["cache"]["state"] == "stale" && explained["from_cache"] == false).then_some(explained)
    });
    assert_eq!((&explained["outcome"], &explained["response"]["source"]), (&json!("stale"), &json!("stale")));
    check_why(&explained, &["silent; ", "a stale answer of the cache was sent"]);
    assert_eq!(explained["waiters"], 1);
}

#[test]
fn what_the_cache_has_is_not_asked_again_unless_that_is_wanted() {
    let backend = Backend::new(answer_for(600, ONE));
    let server = Forwarder::to(&[&backend], "").cache("").admin().start();
    assert_eq!(explain(&server, "www.example", false)["cache"]["state"], "none");
    let cached = explain(&server, "WWW.example.", false);
    assert_eq!(
        (&cached["outcome"], &cached["from_cache"], &cached["response"]["source"]),
        (&json!("cached"), &json!(true), &json!("cache"))
    );
    check_why(&cached, &["the cache had the answer, fresh for ", "no backend was asked"]);
    assert_eq!(backend.queries().len(), 1);
    let fresh = explain(&server, "www.example", true);
    assert_eq!((&fresh["outcome"], &fresh["cache"]["state"]), (&json!("won"), &json!("fresh")));
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn a_question_waits_until_the_one_before_is_explained_and_a_third_is_refused() {
    let backend = Backend::new(answer(ONE).held().then(answer(ONE)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").admin().start();
    let (reported, answers) = channel();
    thread::scope(|scope| {
        for number in 0..3 {
            let (server, reported) = (&server, reported.clone());
            scope.spawn(move || {
                let body = json!({ "name": format!("{number}.example") }).to_string();
                reported.send(server.admin().try_post("/api/v1/explain", &body))
            });
        }
        let next = || answers.recv_timeout(PATIENCE).expect("an answer");
        let refused = next();
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.body.contains("too many admin requests at once, try again"), "{refused:?}");
        backend.wait_for(1);
        let released = Instant::now();
        backend.release();
        assert_eq!([next().status, next().status], [200, 200]);
        let [_, second] = &backend.queries()[..] else { panic!("two were asked") };
        assert!(second.at >= released, "it was asked before the first was explained");
    });
}

#[test]
fn ten_questions_a_second_are_explained() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let began = Instant::now();
    (0..6).for_each(|number| drop(explain(&server, &format!("{number}.example"), false)));
    // The first at once, and each of the others a tenth of a second later.
    assert!(began.elapsed() >= ms(500), "{:?}", began.elapsed());
    assert_eq!(backend.queries().len(), 6);
}

/// A question in flight is joined at the worker that holds it, whichever worker gets the second one.
#[test]
fn a_question_in_flight_is_joined_at_the_worker_that_has_it() {
    let backend = Backend::new(answer(ONE).held());
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).workers(2).admin().start();
    for turn in 1..=6 {
        let name = format!("{turn}.example");
        let client = server.client();
        client.send(&query(&name, A));
        backend.wait_for_name(&name, 1);
        thread::scope(|scope| {
            let explained = scope.spawn(|| explain(&server, &name, true));
            server.admin().wait_for("it has joined", |metrics| {
                metrics.sum("hedgerow_queries_total", &[("transport", "admin")]) == turn
            });
            backend.release();
            let explained = explained.join().expect("an answer");
            assert_eq!(explained["joined"], true, "{explained}");
            check_why(&explained, &["joined the race of an equal query; ", "replied in "]);
            assert_eq!(explained["waiters"], 2);
        });
        assert_eq!(client.receive().answers(), [ONE]);
        assert_eq!(backend.queries_for(&name).len(), 1, "one race");
    }
}

#[test]
fn no_figure_of_clients_counts_it() {
    let backend = Backend::new(answer(ONE).except("silent", silent()));
    let keys = "timeout = '300ms'\nattempt_timeout = '200ms'\non_timeout = 'drop'";
    let server = Forwarder::to(&[&backend], keys).cache("").admin().start();
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    let counted = || {
        let metrics = server.admin().metrics();
        let sum = |name: &str| metrics.sum(name, &[]);
        let queries = metrics.sum("hedgerow_queries_total", &[("transport", "udp")])
            + metrics.sum("hedgerow_queries_total", &[("transport", "tcp")]);
        let of_clients = [
            "hedgerow_responses_total",
            "hedgerow_query_duration_seconds_count",
            "hedgerow_wins_total",
            "hedgerow_dropped_total",
        ];
        let cache = ["hedgerow_cache_hits_total", "hedgerow_cache_misses_total"].map(sum);
        (queries, of_clients.map(sum), cache, metrics.sum("hedgerow_queries_total", &[("transport", "admin")]))
    };
    let before = counted();
    assert!(before.1.iter().take(3).all(|count| *count == 1), "{before:?}");
    for name in ["www.example", "new.example", "new.example"] {
        explain(&server, name, false);
    }
    let nothing = explain(&server, "silent.example", false);
    assert_eq!(
        (&nothing["outcome"], &nothing["rcode"], &nothing["response"]),
        (&json!("made-up"), &Value::Null, &Value::Null)
    );
    let after = counted();
    assert_eq!((after.0, after.1, after.2), (before.0, before.1, before.2));
    assert_eq!(after.3, 4);
}

#[test]
fn only_who_may_change_things_may_ask() {
    let backend = Backend::new(answer(ONE));
    let config = Forwarder::new().pool("all", "example", &[&backend], "").admin().to_toml();
    let body = json!({ "name": "www.example" }).to_string();
    let without = Server::start(&config);
    assert_eq!(without.admin().send("POST", "/api/v1/explain", &[], &body).status, 403);
    let config = format!("{config}token_file = 'token'\n");
    let server = Server::start_with_files(&config, &[("token", "correct-horse-battery")]);
    let by_tcp = |headers: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        server.admin().send("POST", "/api/v1/explain", &headers, &body).status
    };
    assert_eq!(by_tcp(&[]), 403);
    assert_eq!(by_tcp(&[("Authorization", "Bearer wrong-horse-battery")]), 403);
    assert_eq!(backend.queries().len(), 0, "no backend was asked");
    assert_eq!(by_tcp(&[("Authorization", "Bearer correct-horse-battery")]), 200);
    assert_eq!(backend.queries().len(), 1);
    assert_eq!(server.admin().try_post("/api/v1/explain", "{}").status, 400);
    // A name that no route covers.
    let refused = explain(&server, "example.org", false);
    check_why(&refused, &["no route covers the name"]);
    assert_eq!((&refused["rcode"], backend.queries().len()), (&json!("REFUSED"), 1));
}

#[test]
fn ctl_tells_it_in_a_page_of_text() {
    let failing = Backend::new(servfail());
    let backend = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&failing, &backend], "dispatch = 'sequential'\nbalance = 'ordered'").admin().start();
    let url = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["--admin", &url, "explain", "www.example", "-t", "a"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for expected in [
        "www.example. A: pool all by route ., worker 0\n",
        "BACKEND",
        "is asked next: a failover",
        "Why: ",
        "Response: NOERROR",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let output = server.process.ctl(&["--admin", &url, "explain", "www.example", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["outcome"], "won");
}
