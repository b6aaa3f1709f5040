//! DNS cookies between the forwarder and its backends (RFC 7873): the forwarder learns which backends give
//! them, and then ignores replies without them; clients see nothing of it, whatever backends do with cookies.

use std::net::{SocketAddr, SocketAddrV4};

use testkit::*;

const TRUE: &str = "192.0.2.1";
const FORGED: &str = "203.0.113.66";

/// Deadlines that must not matter.
const PATIENT: &str = "timeout = '20s'\nattempt_timeout = '20s'\n";

const SERVER: &[u8] = b"server cookie 01";
const OTHER: &[u8] = b"the longest of all server cookie";

/// A backend that gives cookies with this script.
fn giving(script: Script) -> Backend {
    Backend::probed(rcode(REFUSED).giving_cookie(SERVER), script)
}

/// A forwarder to a backend that was found to give cookies.
fn start(backend: &Backend, keys: &str) -> Server {
    started(Forwarder::to(&[backend], &format!("{PATIENT}{keys}")))
}

/// A forwarder whose only backend was found to give cookies.
fn started(forwarder: Forwarder) -> Server {
    let server = forwarder.admin().start_with_probes_logged();
    server.process.wait_for_log("supports DNS cookies");
    server
}

/// How often a backend was asked again for this cause.
fn asked_again(server: &Server, cause: &str) -> u64 {
    server.admin().metrics().sum("hedgerow_asked_again_total", &[("cause", cause)])
}

/// Replies that were taken for forged.
fn spoofed(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_dropped_total", &[("reason", "spoofed")])
}

/// The server cookies of all queries that have come.
fn cookies(backend: &Backend) -> Vec<Option<Vec<u8>>> {
    backend.queries().iter().map(|seen| seen.cookie().map(|cookie| cookie[8..].to_vec())).collect()
}

/// The same that is expected: this one, once for each query.
fn all(count: usize, server: Option<&[u8]>) -> Vec<Option<Vec<u8>>> {
    vec![server.map(<[u8]>::to_vec); count]
}

#[test]
fn a_probe_finds_out_who_gives_cookies_and_queries_bear_them() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER));
    let server = start(&backend, "");
    let client = server.client();
    let offered = backend.probes()[0].cookie().expect("a cookie");
    assert_eq!(offered.len(), 8, "ours alone");
    let plain = client.ask(&query("www.example.org", A));
    assert_eq!((plain.answers(), plain.has_opt()), (vec![TRUE.to_owned()], false));
    let with_edns = client.ask(&query("www.example.net", A).edns(4096).dnssec_ok().option(65001, b"x"));
    assert_eq!((with_edns.answers(), with_edns.options()), (vec![TRUE.to_owned()], vec![]));
    let expected = [&offered[..], SERVER].concat();
    let [first, second] = &backend.queries()[..] else { panic!("two queries") };
    assert_eq!(first.options(), Some(vec![(COOKIE, expected.clone())]));
    assert_eq!(second.options(), Some(vec![(65001, b"x".to_vec()), (COOKIE, expected)]));
    // The UDP size is ours; DO is the client's.
    let opt = |seen: &Seen| seen.bytes[12 + question_of(&seen.bytes).len()..][..9].to_vec();
    assert_eq!(opt(first), [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0]);
    assert_eq!(opt(second), [0, 0, 41, 0x04, 0xD0, 0, 0, 0x80, 0]);
    assert_eq!((spoofed(&server), asked_again(&server, "cookie")), (0, 0));
}

#[test]
fn each_backend_gets_a_cookie_of_its_own() {
    let backends = [(); 2].map(|()| giving(answer(TRUE).giving_cookie(SERVER)));
    let _server = Forwarder::to(&[&backends[0], &backends[1]], "").start();
    let [one, two] = backends.each_ref().map(|backend| backend.wait_for_probes(1)[0].cookie().expect("a cookie"));
    assert_ne!(one, two);
}

#[test]
fn clients_and_the_cache_see_nothing_of_cookies_of_backends() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER));
    let server = started(Forwarder::to(&[&backend], PATIENT).keys("cookies = false").cache(""));
    let client = server.client();
    let question = query("www.example.org", A).edns(1232).option(COOKIE, b"CLIENT01");
    for _ in 0..2 {
        let response = client.ask(&question);
        assert_eq!((response.answers(), response.options()), (vec![TRUE.to_owned()], vec![]));
    }
    // Nor does the client's cookie go on.
    let [only] = &backend.queries()[..] else { panic!("one query") };
    assert_eq!(only.options().map(|options| options.len()), Some(1));
    assert_ne!(only.cookie().expect("ours")[..8], *b"CLIENT01");
}

#[test]
fn a_client_without_edns_gets_what_fits_and_else_tc() {
    let sized = reply(|reply| reply.answer(txt(450)))
        .except("long", reply(|reply| reply.answer(txt(600))))
        .giving_cookie(SERVER);
    let backend = giving(sized);
    let server = start(&backend, "");
    let client = server.client();
    // Of 512 octets the backend's OPT record would have taken some.
    let fits = client.ask(&query("fits.example.org", TXT));
    assert_eq!((fits.has(TC), fits.has_opt(), fits.answers().len()), (false, false, 1));
    assert!(fits.bytes.len() > 480 && fits.bytes.len() <= 512, "{}", fits.bytes.len());
    let long = client.ask(&query("long.example.org", TXT));
    assert_eq!((long.has(TC), long.has_opt(), long.answers().len()), (true, false, 0));
    assert_eq!(cookies(&backend), all(2, Some(SERVER)));
}

#[test]
fn who_gives_no_cookies_is_offered_one_and_asked_as_ever() {
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], "[health]\ninterval = '100ms'").start();
    assert_eq!(backend.wait_for_probes(1)[0].options().map(|options| options.len()), Some(1));
    // On a busy machine its reply may come so late that it could be one to a repetition: then it is offered
    // one twice more.
    until("four probes in a row offer none", || {
        let probes = backend.probes();
        let offers = probes.iter().filter(|probe| probe.options().is_some()).count();
        assert!(offers <= 3, "{offers} offers");
        probes
            .rchunks(4)
            .next()
            .filter(|last| last.len() == 4 && last.iter().all(|probe| probe.options().is_none()))
            .map(drop)
    });
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!(backend.queries()[0].cookie(), None);
}

#[test]
fn a_backend_that_meets_opt_with_silence_or_formerr_is_found_up() {
    let deaf = Script::new(|seen| seen.options().is_none().then(|| reply_to(&seen.bytes).to_vec()));
    for probes in [deaf, refuses_opt(FORMERR, TRUE)] {
        let backend = Backend::probed(probes, answer(TRUE));
        let keys = "[health]\ninterval = '100ms'\ntimeout = '2s'\nfall = 1";
        let server = Forwarder::to(&[&backend], keys).admin().start();
        let came = backend.wait_for_probes(10);
        assert!(came.iter().filter(|probe| probe.options().is_some()).count() <= 3, "{came:?}");
        server.admin().wait_for_state(backend.address(), true);
        assert!(!server.process.log().contains("down"), "{}", server.process.log());
        assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    }
}

#[test]
fn reply_without_our_cookie_or_with_another_is_not_believed() {
    let other = answer(FORGED).giving_cookie(SERVER).edited(|reply| {
        let ours = reply.len() - 24;
        reply[ours] ^= 1;
    });
    let malformed = answer(FORGED).edited(|reply| add_option(reply, COOKIE, b"short"));
    for forged in [answer(FORGED), other, malformed] {
        let backend = giving(forged.then(answer(TRUE).giving_cookie(SERVER)));
        let server = start(&backend, "");
        let client = server.client();
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [TRUE]);
        let [first, second] = &backend.queries()[..] else { panic!("two queries") };
        assert!(first.id() != second.id() && first.peer != second.peer);
        assert_eq!((spoofed(&server), asked_again(&server, "cookie")), (1, 1));
        assert_eq!(server.admin().metrics().attempts(backend.address(), None), 1, "it is the same attempt");
        // It was found to give them after all.
        client.ask(&query("www.example.net", A));
        assert_eq!(cookies(&backend), all(3, Some(SERVER)));
    }
}

#[test]
fn forger_who_knows_port_and_id_lacks_the_cookie() {
    if !namespace::enter("hostile::backend_cookies::forger_who_knows_port_and_id_lacks_the_cookie") {
        return;
    }
    let backend = giving(answer(TRUE).giving_cookie(SERVER).held());
    let server = started(Forwarder::to(&[&backend], PATIENT).cache(""));
    let (client, forger) = (server.client(), Forger::new());
    let question = query("bank.example", A).edns(1232);
    client.send(&question);
    let asked = backend.wait_for(1).remove(0);
    let forged = reply_to(&asked.bytes).answer(a(FORGED)).option(COOKIE, b"CLIENT01server cookie 01").to_vec();
    forger.udp(v4(backend.address()), v4(asked.peer), &forged);
    // Asked again from elsewhere, which the forger does not know.
    let again = backend.wait_for(2).remove(1);
    assert_ne!((again.peer, again.id()), (asked.peer, asked.id()));
    forger.udp(v4(backend.address()), v4(asked.peer), &forged);
    backend.release();
    assert_eq!(client.receive().answers(), [TRUE]);
    assert_eq!(client.ask(&question).answers(), [TRUE], "nor is anything else kept");
    assert_eq!(cookies(&backend), all(2, Some(SERVER)));
    let another = query("www.bank.example", A);
    client.send(&another);
    assert!(backend.wait_for(3)[2].cookie().is_some(), "nor did it learn anything from that");
}

/// An address of IPv4.
fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("all of this is IPv4"),
    }
}

#[test]
fn backend_that_ceases_to_give_cookies_is_found_out_by_asking_again() {
    let backend = giving(answer(TRUE));
    let server = started(Forwarder::to(&[&backend], PATIENT).workers(2));
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!(cookies(&backend), all(2, Some(SERVER)));
    server.process.wait_for_log("no longer returns DNS cookies");
    // Whichever worker asks.
    for number in 0..16 {
        assert_eq!(server.client().ask(&query(&format!("{number}.example.org"), A)).answers(), [TRUE]);
    }
    assert!(backend.queries()[2..].iter().all(|seen| seen.cookie().is_none()));
    assert_eq!((backend.queries().len(), asked_again(&server, "cookie")), (18, 1));
    assert_eq!(server.process.log().matches("no longer returns DNS cookies").count(), 1);
}

#[test]
fn a_race_of_eight_finds_out_who_has_ceased_to_give_cookies_too() {
    // Each name is at one backend, and there is no datagram left to ask that one again: it is asked by TCP.
    let has_it = giving(answer(TRUE));
    let others = [(); 7].map(|()| giving(nxdomain().giving_cookie(SERVER)));
    let mut backends: Vec<&dyn Asked> = vec![&has_it];
    backends.extend(others.iter().map(|other| other as &dyn Asked));
    let server = Forwarder::to(&backends, PATIENT).admin().start_with_probes_logged();
    until("all are found to give cookies", || {
        (server.process.log().matches("supports DNS cookies").count() == 8).then_some(())
    });
    let client = server.client();
    for number in 0..3 {
        assert_eq!(client.ask(&query(&format!("{number}.example.org"), A)).answers(), [TRUE]);
    }
    let came: Vec<_> = has_it.queries().iter().map(|seen| (seen.tcp, seen.cookie().is_some())).collect();
    assert_eq!(came, [(false, true), (true, false), (false, true), (false, false)]);
}

#[test]
fn failure_without_a_cookie_is_taken_and_teaches_nothing() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER).except("bad", servfail()));
    let server = start(&backend, "");
    let client = server.client();
    assert_eq!(client.ask(&query("bad.example.org", A)).rcode(), SERVFAIL);
    assert_eq!(client.ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!(cookies(&backend), all(3, Some(SERVER)));
}

#[test]
fn a_backend_that_takes_no_opt_any_more_is_asked_without() {
    let backend = giving(refuses_opt(FORMERR, TRUE));
    let server = start(&backend, "");
    let client = server.client();
    for question in [query("www.example.org", A), query("www.example.net", A).edns(1232)] {
        assert_eq!(client.ask(&question).answers(), [TRUE]);
    }
    let came: Vec<_> = backend.queries().iter().map(|seen| seen.options().is_some()).collect();
    assert_eq!(came, [true, true, false, false]);
}

#[test]
fn badcookie_is_asked_again_at_once_with_the_cookie_that_came() {
    let backend = giving(badcookie().giving_cookie(OTHER).then(answer(TRUE).giving_cookie(OTHER)));
    let server = started(Forwarder::to(&[&backend], PATIENT).workers(2).keys("cookies = false"));
    let response = server.client().ask(&query("www.example.org", A).edns(1232));
    assert_eq!((response.answers(), response.options()), (vec![TRUE.to_owned()], vec![]));
    // Whichever worker asks next.
    for number in 0..16 {
        assert_eq!(server.client().ask(&query(&format!("{number}.example.org"), A)).answers(), [TRUE]);
    }
    let expected = [all(1, Some(SERVER)), all(17, Some(OTHER))].concat();
    assert_eq!(cookies(&backend), expected);
    let metrics = server.admin().metrics();
    assert_eq!((asked_again(&server, "badcookie"), metrics.attempts(backend.address(), None)), (1, 17));
    assert_eq!(server.admin().backend(&backend.address().to_string())["errors"], 0, "it is no failure");
}

/// Answers BADCOOKIE to a UDP query with a cookie, and the address to all others.
fn refusing_its_own() -> Script {
    let mut refuse = badcookie().giving_cookie(SERVER);
    let mut accept = answer(TRUE);
    Script::new(move |seen| {
        let script = if seen.cookie().is_some() && !seen.tcp { &mut refuse } else { &mut accept };
        script.react(seen).pop().map(|sending| sending.bytes)
    })
}

#[test]
fn badcookie_for_a_fresh_cookie_is_asked_by_tcp() {
    let backend = giving(refusing_its_own());
    let server = start(&backend, "");
    let client = server.client();
    for number in 0..3 {
        assert_eq!(client.ask(&query(&format!("{number}.example.org"), A)).answers(), [TRUE]);
    }
    server.process.wait_for_log("rejects its own DNS cookies");
    let came: Vec<_> = backend.queries().iter().map(|seen| (seen.tcp, seen.cookie().is_some())).collect();
    assert_eq!(came, [(false, true), (false, true), (true, false), (false, false), (false, false)]);
    assert_eq!(asked_again(&server, "badcookie"), 2);
}

#[test]
fn badcookie_without_tcp_is_asked_without_a_cookie() {
    let backend = Backend::without_tcp(refusing_its_own());
    backend.answer_probes(rcode(REFUSED).giving_cookie(SERVER));
    let server = start(&backend, "");
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    let came: Vec<_> = backend.queries().iter().map(|seen| seen.cookie().is_some()).collect();
    assert_eq!(came, [true, true, false]);
}

#[test]
fn badcookie_costs_no_race_and_is_told_to_no_client() {
    // Without giving ours back, and by TCP too.
    let always = Script::new(|seen| Some(reply_to(&seen.bytes).option(COOKIE, b"").rcode(BADCOOKIE).to_vec()));
    let (bad, good) = (giving(always), Backend::new(answer(TRUE)));
    let server =
        started(Forwarder::to(&[&bad, &good], &format!("{PATIENT}dispatch = 'sequential'\nbalance = 'ordered'")));
    assert_eq!(server.client().ask(&query("www.example.org", A).edns(1232)).answers(), [TRUE]);
    let alone = start(&bad, "");
    assert_eq!(alone.client().ask(&query("www.example.org", A).edns(1232)).rcode(), SERVFAIL);
}

#[test]
fn near_misses_are_asked_again_by_udp_where_a_cookie_proves_the_reply() {
    let flood = |script: Script| {
        (1..=16_u16).fold(script, |script, number| {
            script.and(answer(FORGED).edited(move |reply| {
                let id = u16::from_be_bytes([reply[0], reply[1]]) ^ number;
                reply[..2].copy_from_slice(&id.to_be_bytes());
            }))
        })
    };
    let floods = (0..4).fold(answer(TRUE).giving_cookie(SERVER), |script, _| flood(silent()).then(script));
    let backend = giving(floods.by_tcp(answer(FORGED)));
    let server = start(&backend, "");
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert!(backend.queries().iter().all(|seen| !seen.tcp));
    assert_eq!((cookies(&backend), asked_again(&server, "near_misses")), (all(5, Some(SERVER)), 4));
}

#[test]
fn a_query_with_cookies_is_no_longer_than_a_datagram_should_be() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER));
    let server = start(&backend, "");
    let client = server.client();
    let question = |number: usize, len: usize| {
        query(&format!("{number}.example.org"), A).edns(1232).option(65001, &vec![b'x'; len])
    };
    // Header and question take 31 octets, the OPT record 11, the client's option 4 besides its data, the
    // cookies 28.
    for (number, (len, octets)) in [(1158, 1232), (1159, 70), (1186, 70)].into_iter().enumerate() {
        assert_eq!(client.ask(&question(number, len)).answers(), [TRUE]);
        assert_eq!(backend.queries()[number].bytes.len(), octets, "{len}");
    }
    assert_eq!(cookies(&backend), all(3, Some(SERVER)));
}

#[test]
fn a_signed_query_bears_no_cookie_of_ours() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER));
    let server = start(&backend, "");
    let client = server.client();
    let question = query("www.example.org", A).edns(1232);
    let signed = question.to_signed_vec();
    client.send_bytes(&signed);
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (question.id, vec![TRUE.to_owned()]));
    assert_eq!(backend.queries()[0].bytes[2..], signed[2..]);
}

#[test]
fn a_reload_switches_cookies_off_and_on() {
    let backend = giving(answer(TRUE).giving_cookie(SERVER));
    let config = |cookies: bool| {
        Forwarder::to(&[&backend], &format!("cookies = {cookies}\n[health]\ninterval = '100ms'")).to_toml()
    };
    let server = Server::start(&config(false));
    assert!(backend.wait_for_probes(3).iter().all(|probe| probe.options().is_none()));
    let client = server.client();
    let bears_cookie = |expected: bool| {
        until("the reload", || {
            assert_eq!(client.ask(&query("www.example.org", A)).answers(), [TRUE]);
            (backend.queries().last()?.cookie().is_some() == expected).then_some(())
        });
    };
    bears_cookie(false);
    server.reload("config.toml", &config(true));
    bears_cookie(true);
    server.reload("config.toml", &config(false));
    bears_cookie(false);
}

#[test]
fn our_own_authorities_give_cookies_and_exempt_our_own_forwarder_from_their_rates() {
    const ONE: &str = "000102030405060708090a0b0c0d0e0f\n";
    const TWO: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\n";
    let files = [("fleet.secret", ONE), ("hosts.txt", "www.example.org 192.0.2.1 A\n")];
    let limits = "[authorities.ts.rate_limit]\nanswers = 5\nnxdomains = 5\nslip = 2\nwindow = '1h'\nloopback = true\n";
    let authority = |address: &str| {
        format!(
            "[authorities.ts]\nlisten = ['{address}']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\n\
             cookie_secrets_file = 'fleet.secret'\n{limits}"
        )
    };
    let ts = Server::start_with_files(&authority("127.0.0.1:0"), &files);
    let address = ts.listener("ts");
    let server = started(Forwarder::to(&[&address], PATIENT));
    let client = server.client();
    let ask = || (0..50).for_each(|_| assert_eq!(client.ask(&query("www.example.org", A)).answers(), [TRUE]));
    ask();
    // RFC 7873 section 7.1: what the old secret has made is taken, and replaced.
    ts.rewrite("fleet.secret", &format!("{TWO}{ONE}"));
    ts.reload("config.toml", &authority(&address.to_string()));
    ask();
    // Where it is not, it is no more than none, which the rate limit meets with BADCOOKIE.
    ts.rewrite("fleet.secret", ONE);
    ts.reload("config.toml", &authority(&address.to_string()));
    ask();
    assert_eq!((asked_again(&server, "cookie"), spoofed(&server)), (0, 0));
    assert!(asked_again(&server, "badcookie") <= 1);
    assert!(!server.process.log().contains("go without cookies for now"));
}

#[test]
fn late_reply_without_our_cookie_is_not_believed() {
    let (quick, late) = (Backend::new(answer(TRUE)), giving(answer(FORGED).held()));
    let server = started(Forwarder::to(&[&quick, &late], PATIENT));
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert!(late.wait_for(1)[0].cookie().is_some());
    late.release();
    server
        .admin()
        .wait_for("it is counted", |metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "spoofed")]) == 1);
}

#[test]
fn a_reply_may_have_to_bear_both_case_and_cookie() {
    let folding = |script: Script| {
        script.edited(|reply| {
            let qname = 12..12 + question_of(reply).len() - 4;
            reply[qname].make_ascii_lowercase();
        })
    };
    // One without the cookie, one without the case, and one with both.
    let backend = giving(answer(FORGED).then(answer(TRUE).giving_cookie(SERVER)).except(
        "folded-a-long-name-of-many-letters",
        folding(answer(FORGED).giving_cookie(SERVER)).then(answer(TRUE).giving_cookie(SERVER)),
    ));
    let server = start(&backend, "case = 'random'");
    let client = server.client();
    for (name, cause) in [("www.example.org", "cookie"), ("folded-a-long-name-of-many-letters.example.org", "case")] {
        assert_eq!(client.ask(&query(name, A)).answers(), [TRUE]);
        assert_eq!(asked_again(&server, cause), 1);
    }
    assert_eq!(cookies(&backend), all(4, Some(SERVER)));
}

#[test]
fn a_backend_that_comes_up_is_offered_a_cookie_at_once() {
    let backend = Backend::new(answer(TRUE));
    let keys = "[health]\ninterval = '100ms'\ntimeout = '100ms'\nfall = 1\nrise = 1";
    let server = Forwarder::to(&[&backend], keys).admin().start_with_probes_logged();
    backend.wait_for_probes(1);
    backend.play_dead(true);
    server.admin().wait_for_state(backend.address(), false);
    // It was restarted, and is another version now.
    backend.answer_probes(rcode(REFUSED).giving_cookie(SERVER));
    backend.play_dead(false);
    server.process.wait_for_log("supports DNS cookies");
}
