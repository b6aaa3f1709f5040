//! The cache through sockets: which queries it answers, in which form, what goes into it, and what a reload
//! does to it.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// A forwarder with a cache before one backend.
fn cached(backend: &Backend, pool: &str, cache: &str) -> Server {
    Forwarder::to(&[backend], pool).cache(cache).admin().start()
}

/// How many responses came from there.
fn responses(server: &Server, source: &str) -> u64 {
    server.admin().metrics().sum("hedgerow_responses_total", &[("source", source)])
}

#[test]
fn a_hit_asks_nobody() {
    let backend = Backend::new(answer(ADDRESS));
    let server = cached(&backend, "", "");
    let client = server.client();
    let first = client.ask(&query("www.example", A));
    assert!(first.has(AA), "as the backend said");
    for _ in 0..3 {
        let hit = client.ask(&query("www.example", A));
        assert_eq!((hit.answers(), hit.has(AA)), (vec![ADDRESS.to_owned()], false));
        assert!(hit.ttls()[0] <= 60);
    }
    assert_eq!(backend.queries().len(), 1);
    assert_eq!((responses(&server, "backend"), responses(&server, "cache")), (1, 3));
}

#[test]
fn what_comes_together_is_told_apart() {
    let backend = Backend::new(answer(ADDRESS));
    let server = cached(&backend, "", "");
    let client = server.client();
    let names: Vec<_> = (0..30).map(|number| format!("host-{number}.example")).collect();
    for name in &names {
        client.ask(&query(name, A));
    }
    // Hits, and between them what is refused and what is dropped, more of each than is read at a time.
    for (id, name) in (0..).zip(&names) {
        client.send(&query(name, A).id(3 * id));
        client.send(&query(name, AXFR).id(3 * id + 1));
        client.send(&query(name, A).flags(QR).id(7));
        client.send(&query(name, A).opcode(4).id(3 * id + 2));
        client.send_bytes(b"short");
    }
    let mut responses: Vec<_> = (0..90).map(|_| client.receive()).collect();
    responses.sort_by_key(Response::id);
    for (id, response) in (0..).zip(&responses) {
        let sent = query(&names[usize::from(id / 3)], if id % 3 == 1 { AXFR } else { A });
        let rcode = [NOERROR, REFUSED, NOTIMP][usize::from(id % 3)];
        assert_eq!((response.id(), response.rcode()), (id, rcode), "{}", names[usize::from(id / 3)]);
        assert!(rcode == NOTIMP || response.question() == sent.question(), "{response:?}");
    }
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_queries_total", &[]), 4 * 30);
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "malformed")]), 2 * 30);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "cache")]), 30);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "error")]), 60);
}

#[test]
fn each_client_gets_a_hit_in_its_own_form() {
    let backend = Backend::new(reply(|reply| reply.with_flags(AA | AD).answer(a(ADDRESS)).option(65_001, b"x")));
    let server = cached(&backend, "", "");
    let asked = query("www.example", A).edns(1232);
    assert_eq!(server.client().ask(&asked).answers(), [ADDRESS]);
    let check = |what: &str, asked: Query, by_tcp: bool, queries: usize| {
        let response = if by_tcp { server.tcp_client().ask(&asked) } else { server.client().ask(&asked) };
        assert_eq!(response.answers(), [ADDRESS], "{what}");
        assert_eq!(response.question(), asked.question(), "{what}");
        assert_eq!(response.has_opt(), asked.to_vec()[11] == 1, "{what}");
        assert_eq!(response.has(RD), asked.to_vec()[2] & 1 == 1, "{what}");
        assert_eq!(backend.queries().len(), queries, "{what}");
        if queries == 1 {
            assert!(response.options().is_empty(), "{what}: {response:?}");
        }
        // RFC 6840 section 5.8: the AD bit that one client asked for is not sent to another that did not.
        if what.contains("again") || queries == 1 {
            let asks_authentic = asked.to_vec()[3] & 0x20 != 0 || what.contains("DO");
            assert_eq!(response.has(AD), asks_authentic, "{what}: {response:?}");
        }
    };
    check("another case", query("wWw.EXAMPLE", A).edns(1232), false, 1);
    check("no EDNS", query("www.example", A), false, 1);
    check("another size", query("www.example", A).edns(4096), false, 1);
    check("an option", query("www.example", A).option(65_002, b"y"), false, 1);
    check("TCP", query("www.example", A), true, 1);
    check("TCP and EDNS", query("WWW.example", A).edns(512), true, 1);
    check("RD clear", query("www.example", A).flags(0), false, 1);
    check("AD", query("www.example", A).flags(RD | AD), false, 1);
    check("DO", query("www.example", A).dnssec_ok(), false, 2);
    check("CD", query("www.example", A).flags(RD | CD), false, 3);
    check("CD and DO", query("www.example", A).flags(RD | CD).dnssec_ok(), true, 4);
    check("DO again, in another case", query("WWW.example", A).dnssec_ok(), true, 4);
}

#[test]
fn a_long_answer_is_kept_whole_and_truncated_for_udp() {
    let long = reply(|reply| reply.answer(txt(3000)));
    let backend = Backend::new(truncated().by_tcp(long));
    let server = cached(&backend, "", "");
    let (client, mut stream) = (server.client(), server.tcp_client());
    let asked = || query("long.example", TXT);
    assert!(client.ask(&asked()).has(TC));
    assert!(client.ask(&asked()).has(TC));
    assert_eq!(backend.queries().len(), 2, "a truncated reply is not kept");
    let whole = stream.ask(&asked());
    assert!(!whole.has(TC) && whole.bytes.len() > 3000);
    let queries = backend.queries().len();
    assert!(client.ask(&asked()).has(TC));
    assert_eq!(stream.ask(&asked()).answers(), whole.answers());
    assert_eq!(backend.queries().len(), queries);
}

#[test]
fn answers_age_and_run_out() {
    let backend = Backend::new(answer_for(2, ADDRESS).then(answer_for(60, OTHER)));
    let server = cached(&backend, "", "stale = '0s'\nprefetch = 0");
    let client = server.client();
    let ask = || client.ask(&query("www.example", A));
    assert_eq!(ask().ttls(), [2]);
    until("a second has passed", || (ask().ttls() == [1]).then_some(()));
    assert_eq!(backend.queries().len(), 1);
    let fresh = until("two have", || Some(ask()).filter(|response| response.answers() == [OTHER]));
    assert_eq!((fresh.ttls(), backend.queries().len()), (vec![60], 2));
}

#[test]
fn negatives_are_kept_if_they_say_for_how_long() {
    let without_soa = reply(|reply| reply.rcode(NXDOMAIN).with_flags(AA));
    let backend = Backend::new(nxdomain().except("bare", without_soa));
    let server = cached(&backend, "", "");
    let client = server.client();
    for (name, queries) in [("no.example", 1), ("no.example", 1), ("bare.example", 2), ("bare.example", 3)] {
        assert_eq!(client.ask(&query(name, A)).rcode(), NXDOMAIN, "{name}");
        assert_eq!(backend.queries().len(), queries, "{name}");
    }
}

#[test]
fn all_workers_share_what_is_kept() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").cache("").workers(3).start();
    for _ in 0..24 {
        // From another port each time, so that the kernel deals them out.
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    assert_eq!(backend.queries().len(), 1);
}

#[test]
fn silence_that_is_a_failure_is_remembered_until_the_true_answer_comes_late() {
    let backend = Backend::new(answer(ADDRESS).held());
    let keys = "timeout = '200ms'\nattempt_timeout = '100ms'\non_timeout = 'servfail'";
    let server = cached(&backend, keys, "failure_ttl = '5m'");
    let client = server.client();
    let ask = || client.ask(&query("www.example", A).edns(1232));
    for _ in 0..3 {
        let response = ask();
        assert_eq!((response.rcode(), response.extended_error()), (SERVFAIL, Some(SYNTHESIZED)));
    }
    assert_eq!(backend.queries().len(), 1, "the second and third get a response at once");
    backend.release();
    until("the late answer is kept", || (ask().answers() == [ADDRESS]).then_some(()));
    assert_eq!(backend.queries().len(), 1);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "late")]), 0);
}

#[test]
fn an_answer_that_was_made_up_is_never_told_from_memory() {
    let backend = Backend::new(silent().then(silent().then(answer(ADDRESS))));
    let server = cached(&backend, "timeout = '200ms'\nattempt_timeout = '100ms'", "failure_ttl = '5m'");
    let client = server.client();
    for _ in 0..2 {
        assert_eq!(client.ask(&query("www.example", A)).rcode(), NXDOMAIN);
    }
    assert_eq!(
        client.ask(&query("www.example", A)).answers(),
        [ADDRESS],
        "a name that a table has got is seen at once"
    );
    assert_eq!(backend.queries().len(), 3);
    let metrics = server.admin().metrics();
    for count in ["misses_total 3", "hits_total 0", "insertions_total 1"] {
        assert!(metrics.0.contains(&format!("\nhedgerow_cache_{count}\n")), "{count}: {metrics:?}");
    }
}

#[test]
fn a_late_reply_to_another_question_is_not_kept() {
    let forged = answer(OTHER).edited(|bytes| bytes[13] = b'x').held();
    let backend = Backend::new(forged);
    let server = cached(&backend, "timeout = '200ms'\nattempt_timeout = '100ms'", "");
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).rcode(), NXDOMAIN);
    backend.release();
    server
        .admin()
        .wait_for("it has come", |metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "spoofed")]) == 1);
    assert_eq!(client.ask(&query("www.example", A)).rcode(), NXDOMAIN);
    assert_eq!(client.ask(&query("xww.example", A)).rcode(), NXDOMAIN);
}

#[test]
fn a_loser_does_not_take_the_place_of_the_winner() {
    let (quick, slow) = (Backend::new(answer(ADDRESS)), Backend::new(answer(OTHER).held()));
    let server = Forwarder::to(&[&quick, &slow], "").cache("").admin().start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    slow.wait_for(1);
    slow.release();
    server
        .admin()
        .wait_for("the loser is heard", |metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "late")]) == 1);
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!((quick.queries().len(), slow.queries().len()), (1, 1));
}

#[test]
fn a_loser_is_not_told_instead_of_a_winner_that_may_not_be_kept() {
    for (what, winner) in
        [("TTL 0", answer_for(0, ADDRESS)), ("TC", truncated()), ("a referral", referral()), ("NODATA", bare_nodata())]
    {
        let (quick, slow) = (Backend::new(winner), Backend::new(nxdomain().held()));
        let server = Forwarder::to(&[&quick, &slow], "").cache("").admin().start();
        let client = server.client();
        assert_eq!(client.ask(&query("www.example", A)).rcode(), NOERROR, "{what}");
        slow.wait_for(1);
        slow.release();
        let is_heard = |metrics: &Metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "late")]) == 1;
        server.admin().wait_for("the loser is heard", is_heard);
        assert_eq!(client.ask(&query("www.example", A)).rcode(), NOERROR, "{what}");
        assert_eq!(quick.queries().len(), 2, "{what}");
    }
}

/// No such type, by an authority that does not say for how long.
fn bare_nodata() -> Script {
    reply(|reply| reply.with_flags(AA))
}

#[test]
fn a_late_answer_takes_the_place_of_a_negative_that_won_for_want_of_it() {
    let (quick, slow) = (Backend::new(nxdomain()), Backend::new(answer(ADDRESS).held()));
    let keys = "timeout = '200ms'\nattempt_timeout = '100ms'";
    let server = Forwarder::to(&[&quick, &slow], keys).cache("").start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).rcode(), NXDOMAIN);
    slow.release();
    until("the answer is kept", || (client.ask(&query("www.example", A)).answers() == [ADDRESS]).then_some(()));
    assert_eq!((quick.queries().len(), slow.queries().len()), (1, 1));
}

#[test]
fn a_remembered_failure_says_that_it_is_one() {
    let backend = Backend::new(servfail().then(answer(ADDRESS)));
    let server = cached(&backend, "", "failure_ttl = '1s'");
    let client = server.client();
    let ask = || client.ask(&query("www.example", A).edns(1232));
    let (first, second) = (ask(), ask());
    assert_eq!((first.rcode(), first.extended_error()), (SERVFAIL, None));
    assert_eq!((second.rcode(), second.extended_error()), (SERVFAIL, Some(CACHED_ERROR)));
    assert_eq!(backend.queries().len(), 1);
    until("it is forgotten", || (ask().answers() == [ADDRESS]).then_some(()));
}

#[test]
fn refusals_are_not_remembered() {
    let backend = Backend::new(rcode(REFUSED));
    let server = cached(&backend, "", "");
    let client = server.client();
    for queries in 1..=2 {
        assert_eq!(client.ask(&query("www.example", A)).rcode(), REFUSED);
        assert_eq!(backend.queries().len(), queries);
    }
}

#[test]
fn a_pool_may_do_without() {
    let backends = [Backend::new(answer(ADDRESS)), Backend::new(answer(OTHER))];
    let server = Forwarder::new()
        .pool("kept", ".", &[&backends[0]], "")
        .pool("live", "live.example", &[&backends[1]], "cache = false")
        .cache("")
        .start();
    let client = server.client();
    for name in ["www.example", "www.example", "www.live.example", "www.live.example"] {
        assert_eq!(client.ask(&query(name, A)).rcode(), NOERROR);
    }
    assert_eq!((backends[0].queries().len(), backends[1].queries().len()), (1, 2));
}

#[test]
fn a_popular_answer_is_refreshed_before_it_runs_out() {
    let backend = Backend::new(answer_for(3, ADDRESS).then(answer_for(60, OTHER)));
    let server = cached(&backend, "", "prefetch = 0.9");
    let client = server.client();
    let ask = || client.ask(&query("www.example", A));
    until("the refreshed answer", || (ask().answers() == [OTHER]).then_some(()));
    assert_eq!(backend.queries().len(), 2);
    assert_eq!(responses(&server, "backend"), 1, "no client has waited for the second");
    let metrics = server.admin().metrics();
    let queries = metrics.sum("hedgerow_queries_total", &[]);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[]), queries);
    assert_eq!(metrics.sum("hedgerow_wins_total", &[]), 1, "whose answer went to a client");
}

#[test]
fn one_refresh_is_in_flight_at_a_time() {
    let backend = Backend::new(answer_for(3, ADDRESS).then(answer_for(60, OTHER).held()));
    let server = cached(&backend, "", "prefetch = 0.9\nstale = '0s'");
    let client = server.client();
    until("a refresh is due", || {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        (backend.queries().len() == 2).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    assert_eq!(backend.queries().len(), 2);
    backend.release();
    until("it is refreshed", || (client.ask(&query("www.example", A)).answers() == [OTHER]).then_some(()));
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn a_race_that_nobody_waits_for_makes_no_hedges() {
    let backend = Backend::new(answer_for(3, ADDRESS).then(answer_for(60, OTHER).held()));
    let spare = Backend::new(answer(OTHER));
    let keys =
        "dispatch = 'hedge'\nbalance = 'ordered'\nattempt_timeout = '20s'\ntimeout = '20s'\n[hedge]\ndelay = '20ms'";
    let server = Forwarder::to(&[&backend, &spare], keys).cache("prefetch = 0.9").start();
    let client = server.client();
    let ask = || client.ask(&query("www.example", A)).answers();
    until("a refresh is due", || {
        assert_eq!(ask(), [ADDRESS]);
        (backend.queries().len() == 2).then_some(())
    });
    let began = std::time::Instant::now();
    while began.elapsed() < ms(200) {
        assert_eq!(ask(), [ADDRESS]);
    }
    assert_eq!(spare.queries().len(), 0);
    backend.release();
    until("it is refreshed", || (ask() == [OTHER]).then_some(()));
}

#[test]
fn a_client_joins_a_refresh_once_the_answer_has_run_out() {
    let backend = Backend::new(answer_for(3, ADDRESS).then(answer_for(60, OTHER).held()));
    let server = cached(&backend, "timeout = '20s'\nattempt_timeout = '20s'", "prefetch = 0.9\nstale = '0s'");
    let client = server.client();
    until("a refresh is due", || {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        (backend.queries().len() == 2).then_some(())
    });
    // Queries during the refresh are answered from the cache. The first that finds nothing there joins it.
    let admin = server.admin();
    let has_missed = |metrics: &Metrics| metrics.sum("hedgerow_cache_misses_total", &[]) == 2;
    let is_answered =
        |metrics: &Metrics| metrics.sum("hedgerow_responses_total", &[]) == metrics.sum("hedgerow_queries_total", &[]);
    let mut taken = admin.wait_for("all are answered", is_answered).sum("hedgerow_queries_total", &[]);
    let joined = until("a query that waits", || {
        let joining = server.client();
        joining.send(&query("www.example", A));
        taken += 1;
        let is_decided = |metrics: &Metrics| {
            metrics.sum("hedgerow_queries_total", &[]) == taken && (is_answered(metrics) || has_missed(metrics))
        };
        has_missed(&admin.wait_for("it is answered, or waits", is_decided)).then_some(joining)
    });
    backend.release();
    assert_eq!(joined.receive().answers(), [OTHER]);
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn a_reload_keeps_what_is_kept_unless_the_pool_has_changed() {
    let (backend, other) = (Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)));
    let config =
        |backends: &[&dyn Asked], pool: &str, cache: &str| Forwarder::to(backends, pool).cache(cache).admin().to_toml();
    let server = Server::start(&config(&[&backend], "", ""));
    let (client, admin) = (server.client(), server.admin());
    let asked = |config: &str, queries: usize, what: &str| {
        server.rewrite("config.toml", config);
        admin.post("/api/v1/reload", "");
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        assert_eq!(backend.queries().len() + other.queries().len(), queries, "{what}");
    };
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    asked(&config(&[&backend], "", ""), 1, "nothing has changed");
    asked(&config(&[&backend], "timeout = '5s'\non_timeout = 'servfail'", ""), 1, "not what it answers");
    asked(&config(&[&backend], "", "max_ttl = '1h'"), 1, "only how long it is kept");
    asked(&config(&[&other], "", "max_ttl = '1h'"), 2, "another backend");
    asked(&config(&[&other], "accept = 'any'", ""), 3, "another rule of what wins");
    asked(&config(&[&other], "accept = 'any'", "size = '2MiB'"), 4, "another size");
    server.process.wait_for_log("cache.size has changed, so the cache starts empty");
    asked(&config(&[&other], "accept = 'any'\ncache = false", "size = '2MiB'"), 5, "without the cache");
    // Three times so far, and each in its own time.
    let gone = || server.process.log().matches("answers of a changed pool are removed").count();
    until("what was kept is gone", || (gone() == 3).then_some(()));
    asked(&config(&[&other], "accept = 'any'", "size = '2MiB'"), 6, "with it again");
}
