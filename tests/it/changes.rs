//! Changes while the server runs: backends come, drain, go, and are set by hand, and no query is lost. And
//! the metrics say what the backends have seen.

use std::net::SocketAddr;

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";
const THREE: &str = "192.0.2.3";

/// One attempt a query, and nothing is due before a test is over.
const PATIENT: &str = "dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'\n\
                       [health]\ninterval = '200ms'\ntimeout = '5s'";

/// Where the backends of the pool are.
const BACKENDS: &str = "/api/v1/pools/all/backends";

/// Where a backend of the pool is.
fn path(backend: SocketAddr) -> String {
    format!("{BACKENDS}/{backend}")
}

/// A new backend, as JSON.
fn json(backend: SocketAddr) -> String {
    format!("{{\"address\": \"{backend}\"}}")
}

/// Asks so many names.
fn ask_names(client: &Client, count: usize) {
    (0..count).for_each(|i| assert_eq!(client.ask(&query(&format!("{i}.example"), A)).rcode(), NOERROR));
}

#[test]
fn new_backend_gets_queries_once_a_probe_found_it_up() {
    let (first, new) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    new.play_dead(true);
    let server = Forwarder::to(&[&first], PATIENT).workers(2).admin().start();
    let (admin, client) = (server.admin(), server.client());
    admin.post(BACKENDS, &json(new.address()));
    new.wait_for_probes(1);
    ask_names(&client, 30);
    assert_eq!(admin.backend(&new.address().to_string())["state"], "new");
    assert_eq!(new.queries().len(), 0);
    new.play_dead(false);
    admin.wait_for_state(new.address(), true);
    until("it gets queries", || {
        ask_names(&client, 10);
        (!new.queries().is_empty()).then_some(())
    });
}

#[test]
fn who_drains_finishes_what_it_has_and_gets_no_more() {
    let (drains, stays) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let server = Forwarder::to(&[&drains, &stays], &format!("balance = 'ordered'\n{PATIENT}")).admin().start();
    let (admin, early, client) = (server.admin(), server.client(), server.client());
    early.send(&query("early.example", A));
    drains.wait_for(1);
    admin.post(&format!("{}/drain", path(drains.address())), "");
    let name = drains.address().to_string();
    let reported = admin.backend(&name);
    assert_eq!((&reported["state"], &reported["in_flight"]), (&"draining".into(), &1.into()));
    ask_names(&client, 20);
    assert_eq!((drains.queries().len(), stays.queries().len()), (1, 20));
    drains.release();
    assert_eq!(early.receive().answers(), [ONE]);
    assert_eq!(admin.backend(&name)["in_flight"], 0);
    // And it may come back.
    admin.post(&format!("{}/auto", path(drains.address())), "");
    client.send(&query("late.example", A));
    drains.wait_for_name("late.example", 1);
    drains.release();
    assert_eq!(client.receive().answers(), [ONE]);
}

#[test]
fn the_last_backend_that_is_up_is_drained_or_set_down_by_force_alone() {
    let backends = [Backend::new(answer(ONE)), Backend::new(answer(TWO))];
    let server = Forwarder::to(&[&backends[0], &backends[1]], PATIENT).admin().start();
    let admin = server.admin();
    let [first, last] = backends.each_ref().map(|backend| path(backend.address()));
    admin.post(&format!("{first}/drain"), "");
    for word in ["drain", "down"] {
        let refused = admin.try_post(&format!("{last}/{word}"), "");
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains("is the last backend of pool all that is up"), "{refused:?}");
        assert_eq!(admin.backend(&backends[1].address().to_string())["state"], "up");
    }
    let forced = admin.try_post(&format!("{last}/drain"), r#"{"force": true}"#);
    assert!(forced.status == 200 && forced.body.contains("drains, but it still gets queries"), "{forced:?}");
    ask_names(&server.client(), 1);
}

#[test]
fn who_is_removed_may_answer_what_it_was_asked() {
    let (goes, stays) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let server = Forwarder::to(&[&goes, &stays], &format!("balance = 'ordered'\n{PATIENT}")).admin().start();
    let (admin, early, client) = (server.admin(), server.client(), server.client());
    early.send(&query("early.example", A));
    goes.wait_for(1);
    let removed = admin.try_delete(&path(goes.address()));
    assert_eq!(removed.status, 200, "{removed:?}");
    assert!(admin.backend(&goes.address().to_string()).is_null());
    ask_names(&client, 20);
    assert_eq!((goes.queries().len(), stays.queries().len()), (1, 20));
    goes.release();
    assert_eq!(early.receive().answers(), [ONE]);
    // What was learnt about the other stayed.
    let metrics = admin.metrics();
    assert_eq!(metrics.attempts(stays.address(), None), 20);
    assert!(!metrics.0.contains(&goes.address().to_string()));
}

#[test]
fn state_by_hand_outdoes_probes_until_auto() {
    let (backend, closed) = (Backend::new(answer(ONE)), Closed::new());
    let server = Forwarder::to(&[&closed, &backend], &format!("balance = 'ordered'\n{PATIENT}")).admin().start();
    let (admin, client) = (server.admin(), server.client());
    let set = |address: SocketAddr, word: &str, is_up| {
        admin.post(&format!("{}/{word}", path(address)), r#"{"force": true}"#);
        let reported = admin.backend(&address.to_string());
        assert_eq!(reported["by_hand"], word != "auto", "{reported}");
        admin.wait_for_state(address, is_up);
    };
    let attempts = || [closed.address(), backend.address()].map(|address| admin.metrics().attempts(address, None));
    admin.wait_for_state(closed.address(), false);

    set(closed.address(), "up", true);
    let before = attempts();
    // It starts slowly, as a returning backend does.
    until("it is asked, as it is up by hand", || {
        ask_names(&client, 10);
        (attempts()[0] > before[0]).then_some(())
    });
    // Whatever is met: the operator knows better.
    closed_is_probed(&admin, closed.address());
    assert_eq!(admin.backend(&closed.address().to_string())["state"], "up");

    set(closed.address(), "auto", false);
    let before = attempts();
    ask_names(&client, 10);
    assert_eq!(attempts(), [before[0], before[1] + 10]);

    set(backend.address(), "down", false);
    let probes = backend.probes().len();
    backend.wait_for_probes(probes + 2);
    assert_eq!(admin.backend(&backend.address().to_string())["state"], "down", "good probes do not change it");
    set(backend.address(), "auto", true);
    ask_names(&client, 10);
}

/// Waits until two more probes were sent to an address without a listener.
fn closed_is_probed(admin: &Admin, address: SocketAddr) {
    let before = admin.metrics().attempts(address, Some("probe"));
    admin.wait_for("it is probed", |metrics| metrics.attempts(address, Some("probe")) >= before + 2);
}

#[test]
fn changes_that_make_no_sense_are_refused_with_what_would() {
    let (backend, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    let admin = server.admin();
    let (own, other) = (path(backend.address()), json(other.address()));
    let address = backend.address().to_string();
    let refused = [
        (admin.try_delete(&own), 409, "only backend"),
        (admin.try_post(BACKENDS, &json(backend.address())), 409, "already"),
        (admin.try_post("/api/v1/pools/al/backends", &other), 404, "did you mean \\\"all\\\""),
        (admin.try_delete("/api/v1/pools/all/backends/192.0.2.9:53"), 404, &address),
        (admin.try_post(&format!("{own}/drian"), ""), 404, "did you mean \\\"drain\\\""),
        (admin.try_post(BACKENDS, "{\"address\": \"localhost\"}"), 400, "127.0.0.1:53"),
        (admin.try_post(BACKENDS, "{\"address\": \"192.0.2.1:53\", \"weight\": 0}"), 400, "from 1 to 1000"),
        (admin.try_post(BACKENDS, "{\"adress\": \"192.0.2.1:53\"}"), 400, "address"),
        (admin.try_post("/api/v1/status", ""), 405, "GET"),
        (admin.get("/api/v2/status"), 404, "/api/v1/status"),
    ];
    for (answer, status, hint) in refused {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(hint), "no {hint:?} in {answer:?}");
    }
    ask_names(&server.client(), 5);
    assert_eq!(backend.queries().len(), 5, "all is as before");
}

#[test]
fn changes_that_a_web_page_or_a_stranger_could_send_are_refused() {
    let (backend, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let config = Forwarder::to(&[&backend, &other], PATIENT).admin().to_toml();
    let config = format!("{config}token_file = 'token'\n");
    let server = Server::start_with_files(&config, &[("token", "correct-horse-battery\n")]);
    let admin = server.admin();
    let drain = format!("{}/drain", path(backend.address()));
    let json = ("Content-Type", "application/json");
    let forbidden: [&[(&str, &str)]; 6] = [
        &[],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[json, ("Host", "rebound.example")],
        &[json, ("X-Forwarded-For", "192.0.2.1")],
        &[json, ("Authorization", "Bearer wrong-horse-battery")],
        &[json, ("Authorization", "correct-horse-battery")],
    ];
    for lines in forbidden {
        let answer = admin.send("POST", &drain, lines, "");
        assert_eq!(answer.status, 403, "{lines:?}: {answer:?}");
    }
    assert_eq!(admin.send("GET", "/metrics", &[("Host", "rebound.example")], "").status, 403);
    assert_eq!(admin.backend(&backend.address().to_string())["state"], "up", "nothing has changed");
    let token = [("Authorization", "Bearer correct-horse-battery"), ("Host", "ls.example")];
    assert_eq!(admin.send("POST", &drain, &token, "").status, 200);
    assert_eq!(admin.backend(&backend.address().to_string())["state"], "draining");
}

#[test]
fn nothing_is_lost_while_backends_come_and_go() {
    let table = load_table();
    let authorities = [(); 3].map(|()| Authority::start(&table));
    let addresses = authorities.each_ref().map(Authority::address);
    for dispatch in ["race", "hedge", "sequential"] {
        let keys = format!("dispatch = '{dispatch}'\naccept = 'conclusive'\ntimeout = '5s'");
        let server = Forwarder::to(&[&authorities[0], &authorities[1]], &keys).workers(2).admin().start();
        let admin = server.admin();
        let load = Load::start(server.address(), 1_500);
        // Always two of three: the next comes, the oldest drains and goes.
        for round in 0..6 {
            let (old, new) = (addresses[round % 3], addresses[(round + 2) % 3]);
            load.run_for(ms(100));
            admin.post(BACKENDS, &json(new));
            admin.wait_for_state(new, true);
            admin.post(&format!("{}/drain", path(old)), "");
            if round % 2 == 0 {
                // As `ctl drain` does; or else it goes with queries in flight.
                let name = old.to_string();
                until("it has finished", || (admin.backend(&name)["in_flight"] == 0).then_some(()));
            }
            assert_eq!(admin.try_delete(&path(old)).status, 200);
        }
        load.run_for(ms(100));
        load.stop().check(dispatch, &admin);
    }
}

#[test]
fn metrics_agree_with_what_backends_and_clients_saw() {
    let backends = [
        Backend::new(answer(ONE).except("fails", servfail()).except("misses", nxdomain())),
        Backend::new(answer(TWO).except("misses", nxdomain()).except("late", answer(TWO).after(ms(60)))),
        Backend::new(answer(THREE).except("late", answer(THREE).after(ms(60))).except("misses", silent())),
    ];
    let asked: Vec<_> = backends.iter().map(|backend| backend as _).collect();
    let labels = ["plain", "fails", "misses", "late"];
    let rules = "timeout = '250ms'\nattempt_timeout = '200ms'\n[hedge]\ndelay = '10ms'\nbudget = 1.0\n\
                 [health]\ninterval = '100ms'\ntimeout = '5s'";
    for dispatch in ["race", "hedge", "sequential"] {
        let seen_before = backends.each_ref().map(|backend| backend.queries().len());
        let probes_before = backends.each_ref().map(|backend| backend.probes().len());
        let server = Forwarder::to(&asked, &format!("dispatch = '{dispatch}'\n{rules}")).workers(2).admin().start();
        let (client, mut tcp) = (server.client(), server.tcp_client());
        let (mut by_backend, mut synthesized) = (0, 0);
        for i in 0..10 {
            for label in labels {
                let question = query(&format!("{label}.{i}.example"), A).edns(1232);
                let response = if i % 5 == 0 { tcp.ask(&question) } else { client.ask(&question) };
                let is_made_up = response.extended_error().is_some();
                *(if is_made_up { &mut synthesized } else { &mut by_backend }) += 1;
            }
        }
        client.send_bytes(b"short");
        let admin = server.admin();
        let metrics = admin.wait_for("the short message is counted", |metrics| {
            metrics.sum("hedgerow_dropped_total", &[("reason", "malformed")]) == 1
        });
        let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(&format!("hedgerow_{name}"), labels);
        assert_eq!(sum("queries_total", &[("transport", "udp")]), 32, "{dispatch}");
        assert_eq!(sum("queries_total", &[("transport", "tcp")]), 8);
        assert_eq!(sum("responses_total", &[]), 40);
        assert_eq!(sum("responses_total", &[("source", "backend")]), by_backend);
        assert_eq!(sum("responses_total", &[("source", "synthesized")]), synthesized);
        assert_eq!(sum("wins_total", &[]), by_backend);
        assert_eq!(sum("query_duration_seconds_count", &[]), 40);
        assert_eq!(sum("in_flight", &[]), 0);
        assert_eq!(sum("backend_up", &[]), 3);
        for (place, backend) in backends.iter().enumerate() {
            let seen = backend.queries().len() - seen_before[place];
            assert_eq!(metrics.attempts(backend.address(), None), seen as u64, "{dispatch}: backend {place}");
            let reported = metrics.attempts(backend.address(), Some("probe"));
            let probes = (backend.probes().len() - probes_before[place]) as u64;
            assert!((1..=probes).contains(&reported), "{dispatch}: {reported} probes counted, {probes} seen");
        }
        let kinds = ["first", "hedge", "failover"].map(|kind| sum("attempts_total", &[("kind", kind)]));
        match dispatch {
            "race" => assert_eq!(kinds, [120, 0, 0]),
            "hedge" => assert!(kinds[0] == 40 && kinds[1] > 0 && kinds[2] > 0, "{kinds:?}"),
            _ => assert!(kinds[0] == 40 && kinds[1] == 0 && kinds[2] > 0, "{kinds:?}"),
        }
    }
}

#[test]
fn reload_says_which_changes_by_hand_it_undoes() {
    let backends = [ONE, TWO, THREE].map(|address| Backend::new(answer(address)));
    let [stays, goes, comes] = &backends;
    let server = Forwarder::to(&[stays, goes], PATIENT).admin().start();
    let admin = server.admin();
    admin.post(BACKENDS, &json(comes.address()));
    assert_eq!(admin.try_delete(&path(goes.address())).status, 200);
    let reported = admin.try_post("/api/v1/reload", "").body;
    for said in [
        format!("{}, added to pool all by hand, is gone", comes.address()),
        format!("{}, removed from pool all by hand, is back", goes.address()),
    ] {
        assert!(reported.contains(&said), "no {said:?} in {reported}");
    }
    let reported = admin.try_post("/api/v1/reload", "").body;
    assert!(!reported.contains("by hand"), "{reported}");
}

#[test]
fn the_only_backend_is_asked_again_after_a_reload_to_the_automatic_timeout() {
    let backend = Backend::new(answer(ONE).except("lost", silent()));
    let config = |keys: &str| Forwarder::to(&[&backend], &format!("timeout = '20s'\n{keys}")).admin().to_toml();
    let server = Server::start(&config("serves = 'same'\nattempt_timeout = '20s'"));
    let client = server.client();
    ask_names(&client, 1);
    client.send(&query("lost.before.example", A));
    backend.wait_for_name("lost.before.example", 1);
    server.rewrite("config.toml", &config("serves = 'same'"));
    assert_eq!(server.admin().try_post("/api/v1/reload", "").status, 200);
    client.send(&query("lost.after.example", A));
    let asked = backend.wait_for_name("lost.after.example", 3);
    assert!(asked[1].at - asked[0].at >= ms(20), "{asked:?}");
    assert_ne!(asked[0].id(), asked[1].id(), "each attempt has its own ID");
    assert_eq!(backend.queries_for("lost.before.example").len(), 1);
}

#[test]
fn attempts_of_an_earlier_plan_leave_the_gauge_when_their_backend_goes_down() {
    let mute = Backend::new(silent());
    let (other, new) = (Backend::new(answer(ONE).except("slow", nxdomain())), Backend::new(answer(TWO)));
    let keys = format!("dispatch = 'race'\n{}", PATIENT.split_once('\n').expect("two lines").1);
    let server = Forwarder::to(&[&mute, &other], &keys).admin().start();
    let (admin, client) = (server.admin(), server.client());
    // The other backend wins all of these races, so no client waits for the mute one; the client of the next
    // query does.
    ask_names(&client, 20);
    client.send(&query("slow.example", A));
    mute.wait_for(21);
    other.wait_for(21);
    admin.post(BACKENDS, &json(new.address()));
    let name = mute.address().to_string();
    assert_eq!(admin.backend(&name)["in_flight"], 21);
    admin.post(&format!("{}/down", path(mute.address())), "");
    assert_eq!(client.receive().rcode(), NXDOMAIN);
    until("nothing is out", || (admin.backend(&name)["in_flight"] == 0).then_some(()));
    assert_eq!(admin.metrics().sum("hedgerow_in_flight", &[]), 0);
}

#[test]
fn new_backend_does_not_share_its_name() {
    let (backend, new) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let name = new.address().to_string();
    let unnamed = format!("\"{}\"", backend.address());
    let named = format!("{{ address = {unnamed}, name = \"{name}\" }}");
    let config = Forwarder::to(&[&backend], PATIENT).admin().to_toml().replace(&unnamed, &named);
    let server = Server::start(&config);
    let refused = server.admin().try_post(BACKENDS, &json(new.address()));
    assert_eq!(refused.status, 409, "{refused:?}");
}

#[test]
fn rules_follow_a_reload_and_queries_in_flight_keep_their_answers() {
    let (usual, other) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let config = |rules: &str| {
        let forwarder = Forwarder::new().pool("usual", ".", &[&usual], PATIENT).pool("other", "o.test", &[&other], "");
        forwarder.keys(&format!("rules = [{rules}]")).workers(2).admin().to_toml()
    };
    let server = Server::start(&config("{ name = 'a', names = ['a.example'], then = 'refused' }"));
    let (early, client, admin) = (server.client(), server.client(), server.admin());
    assert_eq!(client.ask(&query("a.example", A)).rcode(), REFUSED);
    early.send(&query("b.example", A));
    usual.wait_for_name("b.example", 1);
    let rules = "{ name = 'new', names = ['b.example'], then = 'nxdomain' },
                 { name = 'a', names = ['a.example'], then = 'pool:other' }";
    server.rewrite("config.toml", &config(rules));
    admin.post("/api/v1/reload", "");
    until("all workers apply the rules", || (client.ask(&query("b.example", A)).rcode() == NXDOMAIN).then_some(()));
    assert_eq!(client.ask(&query("a.example", A)).answers(), [TWO]);
    usual.release();
    assert_eq!(early.receive().answers(), [ONE], "the rule came later");
    let matches = |rule: &str| admin.metrics().sum("hedgerow_rule_matches_total", &[("rule", rule)]);
    assert_eq!(matches("a"), 2, "the count stays with the name");
    server.rewrite("config.toml", &config("{ name = 'a', then = 'pool:nosuch' }"));
    let refused = admin.try_post("/api/v1/reload", "");
    assert!(refused.status == 400 && refused.body.contains("there is no pool"), "{refused:?}");
    assert_eq!(client.ask(&query("a.example", A)).answers(), [TWO], "the rules stay");
}
