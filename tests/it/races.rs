//! Races through real sockets: which backends are asked when, which reply wins, and the answer when none
//! comes. Deadlines that must not matter are set to 20 s: a response that comes at all has not waited for
//! one.

use std::time::Instant;

use rustix::process::Signal;
use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Asked in the order of the config, and nothing is due before a test is over.
const PATIENT: &str = "balance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n";

/// `PATIENT` and some lines more.
fn patient(keys: &str) -> String {
    format!("{PATIENT}{keys}\n")
}

#[test]
fn accepted_reply_wins_at_once_and_any_other_makes_way_for_the_next() {
    // Whether the first backend's reply wins: under positive, conclusive, any.
    let replies = [
        ("answer", [true, true, true]),
        ("referral", [true, true, true]),
        ("truncated", [true, true, true]),
        ("nodata-aa", [true, true, true]),
        ("nodata", [false, true, true]),
        ("nxdomain", [false, true, true]),
        ("servfail", [false, false, true]),
        ("refused", [false, false, true]),
    ];
    let first = Backend::new(
        answer(ONE)
            .except("referral", referral())
            .except("truncated", truncated())
            .except("nodata-aa", nodata_authoritative())
            .except("nodata", nodata())
            .except("nxdomain", nxdomain())
            .except("servfail", servfail())
            .except("refused", rcode(REFUSED)),
    );
    let second = Backend::new(answer(TWO).held());
    let mut config = Forwarder::new();
    for dispatch in ["race", "hedge", "sequential"] {
        for accept in ["positive", "conclusive", "any"] {
            let keys = patient(&format!("dispatch = '{dispatch}'\naccept = '{accept}'\n[hedge]\ndelay = '20s'"));
            let pool = format!("{accept}-{dispatch}");
            config = config.pool(&pool, &pool, &[&first, &second], &keys);
        }
    }
    let server = config.start();
    let client = server.client();
    for dispatch in ["race", "hedge", "sequential"] {
        for (label, wins) in replies {
            for (accept, wins) in ["positive", "conclusive", "any"].into_iter().zip(wins) {
                let name = format!("{label}.{accept}-{dispatch}");
                client.send(&query(&name, A));
                if !wins {
                    second.wait_for_name(&name, 1);
                    second.release();
                }
                let from_second = client.receive().answers() == [TWO];
                assert_eq!(from_second, !wins, "{name}");
            }
        }
    }
}

#[test]
fn decision_by_extended_error_wins_in_every_dispatch_if_it_is_believed() {
    // The extended error that the client sees if it is believed; none: the answer of the second backend.
    let replies =
        [("bogus", Some(6)), ("blocked", Some(15)), ("clock", Some(7)), ("clock-ad", None), ("network", None)];
    let decided = |rcode: u16, code: u8| reply(move |reply| reply.rcode(rcode).option(EXTENDED_ERROR, &[0, code]));
    let first = Backend::new(
        decided(SERVFAIL, 6)
            .except("blocked", decided(NXDOMAIN, 15))
            .except("clock", decided(SERVFAIL, 7))
            .except("clock-ad", decided(SERVFAIL, 7))
            .except("network", decided(SERVFAIL, 23)),
    );
    let validated = reply(|reply| reply.with_flags(AA | AD).answer(a(TWO)));
    let second = Backend::new(answer(TWO).except("clock-ad", validated).held());
    let mut config = Forwarder::new();
    for dispatch in ["race", "hedge", "sequential"] {
        for believes in [true, false] {
            let keys = patient(&format!("dispatch = '{dispatch}'\nbelieve_ede = {believes}\n[hedge]\ndelay = '20s'"));
            let pool = format!("{believes}-{dispatch}");
            config = config.pool(&pool, &pool, &[&first, &second], &keys);
        }
    }
    let server = config.start();
    let client = server.client();
    for dispatch in ["race", "hedge", "sequential"] {
        for (label, decision) in replies {
            let is_doubtful = label.starts_with("clock");
            for believes in [true, false] {
                let expected = decision.filter(|_| believes);
                let name = format!("{label}.{believes}-{dispatch}");
                if is_doubtful && dispatch == "race" {
                    // Whichever reply is first there decides it.
                    continue;
                }
                client.send(&query(&name, A).edns(1232));
                if expected.is_none() || is_doubtful {
                    second.wait_for_name(&name, 1);
                    second.release();
                }
                let response = client.receive();
                assert_eq!(response.extended_error(), expected, "{name}");
                assert_eq!(response.answers() == [TWO], expected.is_none(), "{name}");
            }
        }
    }
    // A client without OPT gets none back.
    client.send(&query("bogus-too.true-race", A));
    let response = client.receive();
    assert_eq!((response.rcode(), response.has_opt()), (SERVFAIL, false));
}

#[test]
fn best_kept_reply_goes_out_once_all_have_replied() {
    let ranked = ["servfail", "nodata", "nxdomain"];
    let script = |own: usize| {
        // The first label names both replies: this backend's is the part at `own`.
        Script::new(move |seen: &Seen| {
            let name = seen.name();
            let label = name.split(['.', '-']).nth(own)?;
            let reply = reply_to(&seen.bytes);
            Some(match label {
                "servfail" => reply.rcode(SERVFAIL).to_vec(),
                "nxdomain" => reply.rcode(NXDOMAIN).to_vec(),
                _ => reply.to_vec(),
            })
        })
    };
    let (first, second) = (Backend::new(script(0)), Backend::new(script(1)));
    for dispatch in ["race", "sequential"] {
        let keys = patient(&format!("dispatch = '{dispatch}'"));
        let server = Forwarder::to(&[&first, &second], &keys).start();
        for (i, a) in ranked.into_iter().enumerate() {
            for (j, b) in ranked.into_iter().enumerate() {
                let response = server.client().ask(&query(&format!("{a}-{b}.example"), A));
                let expected = [SERVFAIL, NOERROR, NXDOMAIN][i.max(j)];
                assert_eq!(response.rcode(), expected, "{a}, {b} under {dispatch}");
            }
        }
    }
}

#[test]
fn race_asks_every_backend_at_once() {
    let backends: Vec<_> = (0..3).map(|_| Backend::new(silent())).collect();
    let asked: Vec<_> = backends.iter().map(|b| b as _).collect();
    let server = Forwarder::to(&asked, PATIENT).start();
    server.client().send(&query("www.example", A));
    for backend in &backends {
        backend.wait_for(1);
    }
}

#[test]
fn fanout_leaves_the_rest_unasked_until_a_failure() {
    let first = Backend::new(servfail().held());
    let second = Backend::new(silent());
    let third = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&first, &second, &third], &patient("fanout = 2")).start();
    let client = server.client();
    client.send(&query("www.example", A));
    first.wait_for(1);
    second.wait_for(1);
    assert_eq!(third.queries().len(), 0);
    first.release();
    assert_eq!(client.receive().answers(), [ONE]);
    assert_eq!(third.queries().len(), 1);
}

#[test]
fn closed_port_moves_on_at_once() {
    let closed = Closed::new();
    let backend = Backend::new(answer(ONE));
    for dispatch in ["race", "hedge", "sequential"] {
        let keys = patient(&format!("dispatch = '{dispatch}'\n[hedge]\nbudget = 0.0"));
        let server = Forwarder::to(&[&closed, &backend], &keys).start();
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE], "{dispatch}");
    }
}

#[test]
fn silence_brings_the_next_backend_and_late_reply_still_counts() {
    let late = Backend::new(answer(ONE).held());
    let next = Backend::new(silent());
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '20s'\n\
                attempt_timeout = '50ms'";
    let server = Forwarder::to(&[&late, &next], keys).start();
    let client = server.client();
    let asked = Instant::now();
    client.send(&query("www.example", A));
    assert!(next.wait_for(1)[0].at - asked >= ms(50));
    late.release();
    assert_eq!(client.receive().answers(), [ONE]);
}

#[test]
fn all_attempts_share_one_deadline() {
    let backends: Vec<_> = (0..3).map(|_| Backend::new(silent())).collect();
    let asked: Vec<_> = backends.iter().map(|b| b as _).collect();
    let keys = "dispatch = 'sequential'\ntimeout = '300ms'\nattempt_timeout = '200ms'\n\
                on_timeout = 'servfail'";
    let server = Forwarder::to(&asked, keys).start();
    let start = Instant::now();
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), SERVFAIL);
    let elapsed = start.elapsed();
    assert!(elapsed >= ms(300), "answered early: {elapsed:?}");
    assert!(elapsed < ms(3000), "answered late: {elapsed:?}");
}

#[test]
fn silent_backends_are_asked_again_in_the_same_order() {
    let (first, second) = (Backend::new(silent()), Backend::new(silent()));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntries = 2\ntimeout = '20s'\n\
                attempt_timeout = '40ms'";
    let server = Forwarder::to(&[&first, &second], keys).start();
    server.client().send(&query("www.example", A));
    let (first, second) = (first.wait_for(2), second.wait_for(2));
    assert!(first[0].at < second[0].at && second[0].at < first[1].at);
    assert!(first[1].at < second[1].at);
    assert_ne!(first[0].id(), first[1].id(), "each attempt has its own ID");
}

#[test]
fn attempts_of_one_query_are_at_most_eight() {
    let backends: Vec<_> = (0..3).map(|_| Backend::new(silent())).collect();
    let asked: Vec<_> = backends.iter().map(|b| b as _).collect();
    for dispatch in ["race", "sequential"] {
        let keys = format!("dispatch = '{dispatch}'\ntries = 8\ntimeout = '1s'\nattempt_timeout = '5ms'");
        let server = Forwarder::to(&asked, &keys).start();
        let name = format!("{dispatch}.example");
        assert_eq!(server.client().ask(&query(&name, A)).rcode(), NXDOMAIN);
        let attempts: usize = backends.iter().map(|b| b.queries_for(&name).len()).sum();
        assert_eq!(attempts, 8, "{dispatch}");
    }
}

#[test]
fn sixty_clients_of_one_question_cause_the_attempts_of_one_race() {
    for workers in [1, 2] {
        let backends = [(); 2].map(|()| Backend::new(answer(ONE).held().except("fence", answer(TWO))));
        // On a busy machine both backends may miss two probes: then they are down, and all that waits gets
        // NXDOMAIN at once.
        let keys = patient("health.fall = 100");
        let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).workers(workers).start();
        let clients: Vec<_> = (0..60)
            .map(|i| {
                let name = if i % 2 == 0 { "WWW.Example" } else { "www.eXAMPLE" };
                let question = query(name, A);
                let question = if i % 3 == 0 { question.edns(1232) } else { question };
                (server.client(), question)
            })
            .collect();
        for (i, (client, question)) in clients.iter().enumerate() {
            client.send(question);
            // The same socket meets the same worker: once this is answered, the other was taken.
            client.ask(&query(&format!("fence.{i}.example"), A));
        }
        let mut tcp = server.tcp_client();
        let by_tcp = query("www.example", A);
        tcp.send(std::slice::from_ref(&by_tcp));
        tcp.send(&[query("fence.tcp.example", A)]);
        tcp.receive();
        for backend in &backends {
            backend.release();
        }
        for (client, question) in &clients {
            let response = client.receive();
            assert_eq!(response.id(), question.id);
            assert_eq!(response.question(), question.question(), "each in its own case");
            assert_eq!(response.has_opt(), question.to_vec().ends_with(&[0; 6]));
            assert_eq!(response.answers(), [ONE]);
        }
        assert_eq!(tcp.receive().id(), by_tcp.id);
        for backend in &backends {
            assert_eq!(backend.queries_for("www.example").len(), 1, "{workers} workers");
        }
    }
}

#[test]
fn queries_that_differ_in_what_matters_do_not_join() {
    let backend = Backend::new(answer(ONE).held());
    let server = Forwarder::to(&[&backend], PATIENT).start();
    let client = server.client();
    let different = [
        query("www.example", A),
        query("www.example", AAAA),
        query("www.example", A).class(CH),
        query("www.example", A).flags(0),
        query("www.example", A).flags(RD | CD),
        query("www.example", A).dnssec_ok(),
        query("example", A),
    ];
    for question in &different {
        client.send(question);
    }
    backend.wait_for(different.len());
}

#[test]
fn retransmission_asks_the_next_backend_and_gives_one_response() {
    let first = Backend::new(answer(ONE).held());
    let second = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&first, &second], &patient("dispatch = 'sequential'")).start();
    let client = server.client();
    let question = query("www.example", A);
    client.send(&question);
    first.wait_for(1);
    client.send(&question);
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (question.id, vec![TWO.to_owned()]));
    // Neither the second copy nor the first backend's late reply makes another response.
    first.release();
    let fence = query("fence.example", A);
    client.send(&fence);
    first.wait_for(2);
    first.release();
    assert_eq!(client.receive().id(), fence.id);
}

#[test]
fn retransmission_is_answered_in_its_last_form() {
    let backend = Backend::new(answer(ONE).held());
    let next = Backend::new(silent());
    let server = Forwarder::to(&[&backend, &next], &patient("dispatch = 'sequential'")).start();
    let client = server.client();
    client.send(&query("www.example", A).id(7));
    backend.wait_for(1);
    let last = query("WWW.example", A).id(7).edns(1232);
    client.send(&last);
    next.wait_for(1);
    backend.release();
    let response = client.receive();
    assert_eq!(response.question(), last.question());
    assert!(response.has_opt());
}

#[test]
fn queries_that_share_a_race_each_count() {
    let backend = Backend::new(answer(ONE).held().except("fence", answer(TWO)));
    let next = Backend::new(silent());
    let mut server = Forwarder::to(&[&backend, &next], &patient("dispatch = 'sequential'")).start();
    let (client, other, mut stream) = (server.client(), server.client(), server.tcp_client());
    let (question, fence) = (query("www.example", A), query("fence.example", A));
    client.send(&question);
    backend.wait_for(1);
    client.send(&question);
    next.wait_for(1);
    other.send(&question);
    other.receive_only(&fence);
    stream.send(&[question.clone(), question.clone(), fence.clone()]);
    assert_eq!(stream.receive().answers(), [TWO]);
    backend.release();
    for response in [client.receive(), other.receive(), stream.receive(), stream.receive()] {
        assert_eq!(response.answers(), [ONE]);
    }
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
    let log = server.process.log();
    assert!(log.contains("queries: 4 udp, 3 tcp; responses: 7 backend, 0 cache, 0 stale, 0 synthesized"), "{log}");
}

#[test]
fn same_id_from_another_client_is_no_retransmission() {
    let first = Backend::new(answer(ONE).held());
    let second = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&first, &second], &patient("dispatch = 'sequential'")).start();
    let clients = [server.client(), server.client()];
    let question = query("www.example", A);
    for client in &clients {
        client.send(&question);
    }
    first.wait_for(1);
    // What is asked last is also taken last (there is one worker): the second query was seen.
    clients[1].send(&query("fence.example", A));
    first.wait_for(2);
    first.release();
    for client in &clients {
        assert_eq!(client.receive().answers(), [ONE]);
    }
    assert_eq!(second.queries().len(), 0);
}

#[test]
fn silence_of_a_living_backend_is_answered_as_on_timeout_says() {
    let backend = Backend::new(silent());
    let mut config = Forwarder::new();
    for word in ["nxdomain", "servfail", "refused", "drop"] {
        let keys = format!("timeout = '200ms'\non_timeout = '{word}'\non_all_down = 'drop'");
        config = config.pool(word, word, &[&backend], &keys);
    }
    let server = config.start();
    let client = server.client();
    // The dropped one is asked first: had it a response, that would come first.
    client.send(&query("www.drop", A));
    for (word, rcode) in [("nxdomain", NXDOMAIN), ("servfail", SERVFAIL), ("refused", REFUSED)] {
        let question = query(&format!("wWw.{word}"), A).edns(1232);
        let start = Instant::now();
        let response = client.ask(&question);
        assert!(start.elapsed() >= ms(200));
        assert_eq!(response.rcode(), rcode);
        assert_eq!(response.extended_error(), Some(SYNTHESIZED));
        assert_eq!(response.question(), question.question());
        assert!(response.has(QR) && response.has(RD) && response.has(RA) && !response.has(AA));
        // No SOA, so that the client does not cache it (RFC 2308 section 5).
        assert_eq!(response.message().authorities.len(), 0);
    }
    let plain = client.ask(&query("plain.nxdomain", A));
    assert!(!plain.has_opt(), "no OPT in, no OPT out");
}

#[test]
fn kept_negative_waits_for_the_others_unless_grace_ends_it() {
    let negative = Backend::new(nxdomain());
    let other = Backend::new(silent());
    for (grace, least) in [("off", 300), ("50ms", 50), ("auto", 5)] {
        let timeout = if grace == "off" { "300ms" } else { "20s" };
        let keys = format!("timeout = '{timeout}'\nattempt_timeout = '200ms'\ngrace = '{grace}'");
        let server = Forwarder::to(&[&negative, &other], &keys).start();
        let start = Instant::now();
        let response = server.client().ask(&query("www.example", A).edns(1232));
        assert!(start.elapsed() >= ms(least), "grace = {grace}");
        assert_eq!(response.rcode(), NXDOMAIN);
        assert_eq!(response.extended_error(), None, "it is the backend's own word");
        assert_eq!(response.message().authorities.len(), 1);
    }
}

#[test]
fn better_reply_within_grace_wins() {
    let negative = Backend::new(nxdomain());
    let other = Backend::new(answer(ONE).after(ms(50)));
    let server = Forwarder::to(&[&negative, &other], &patient("grace = '15s'")).start();
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
}

#[test]
fn bare_failure_moves_on_and_leaves_its_attempt_in_the_race() {
    let bare = Backend::new(bare_servfail().and(answer(ONE).held()));
    let other = Backend::new(silent());
    let server = Forwarder::to(&[&bare, &other], &patient("dispatch = 'sequential'")).start();
    let client = server.client();
    client.send(&query("www.example", A));
    other.wait_for(1);
    bare.release();
    assert_eq!(client.receive().answers(), [ONE]);
}

#[test]
fn bare_failure_alone_becomes_servfail_after_attempt_timeout() {
    let bare = Backend::new(bare_servfail());
    let keys = "timeout = '20s'\nattempt_timeout = '100ms'\non_timeout = 'refused'";
    let server = Forwarder::to(&[&bare], keys).start();
    let start = Instant::now();
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), SERVFAIL);
    assert!(start.elapsed() >= ms(100));
}

#[test]
fn refused_opt_is_left_out_once_more_and_from_then_on() {
    for rcode in [FORMERR, NOTIMP] {
        let old = Backend::new(refuses_opt(rcode, ONE));
        let server = Forwarder::to(&[&old], PATIENT).start();
        let client = server.client();
        let response = client.ask(&query("first.example", A).edns(1232));
        assert_eq!(response.answers(), [ONE]);
        assert!(response.has_opt(), "the client speaks EDNS with us, whatever the backend does");
        let opts: Vec<_> = old.queries().iter().map(|seen| seen.options().is_some()).collect();
        assert_eq!(opts, [true, false]);
        assert_eq!(client.ask(&query("second.example", A).edns(1232)).answers(), [ONE]);
        assert_eq!(old.queries_for("second.example").len(), 1, "it is remembered");
    }
}

#[test]
fn refused_opt_is_found_out_once_and_not_by_each_worker() {
    let backend = Backend::new(refuses_opt(FORMERR, ONE));
    let server = Forwarder::to(&[&backend], "").workers(4).start();
    assert_eq!(server.client().ask(&query("first.example", A).edns(1232)).answers(), [ONE]);
    assert_eq!(backend.queries().len(), 2, "with OPT, and then without");
    // Clients of different ports come to different workers.
    for i in 0..40 {
        assert_eq!(server.client().ask(&query(&format!("{i}.example"), A).edns(1232)).answers(), [ONE]);
    }
    let queries = backend.queries();
    assert!(queries[2..].iter().all(|query| query.options().is_none()), "OPT was sent again");
    assert_eq!(queries.len(), 42);
}

#[test]
fn formerr_to_a_query_without_opt_is_a_failure_like_any_other() {
    let failing = Backend::new(rcode(FORMERR));
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&failing, &backend], &patient("dispatch = 'sequential'")).start();
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    // The forwarder adds OPT, and leaves it out once.
    let opts: Vec<_> = failing.queries().iter().map(|seen| seen.options().is_some()).collect();
    assert_eq!(opts, [true, false]);
}

#[test]
fn duplicate_and_late_replies_make_no_second_response() {
    let twice = Backend::new(answer(ONE).and(answer(TWO)));
    let late = Backend::new(answer(TWO).held());
    let server = Forwarder::to(&[&twice, &late], PATIENT).start();
    let client = server.client();
    for i in 0..20 {
        let question = query(&format!("{i}.example"), A);
        assert_eq!(client.ask(&question).answers(), [ONE]);
        late.wait_for(i + 1);
        late.release();
    }
}

#[test]
fn reply_after_the_deadline_makes_no_second_response() {
    let late = Backend::new(answer(ONE).held().except("fence", answer(TWO)));
    let server = Forwarder::to(&[&late], "timeout = '50ms'").start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).rcode(), NXDOMAIN);
    late.release();
    assert_eq!(client.ask(&query("fence.example", A)).answers(), [TWO]);
}

#[test]
fn longest_suffix_decides_the_pool() {
    let rest = Backend::new(answer("192.0.2.10"));
    let org = Backend::new(answer("192.0.2.20"));
    let example = Backend::new(answer("192.0.2.30"));
    let server = Forwarder::new()
        .pool("rest", ".", &[&rest], "")
        .pool("org", "org", &[&org], "")
        .pool("example", "Example.Org.", &[&example], "")
        .start();
    let client = server.client();
    for (name, address) in [
        ("www.example.org", "192.0.2.30"),
        ("EXAMPLE.ORG", "192.0.2.30"),
        ("badexample.org", "192.0.2.20"),
        ("org", "192.0.2.20"),
        ("www.example.com", "192.0.2.10"),
        (".", "192.0.2.10"),
    ] {
        assert_eq!(client.ask(&query(name, A)).answers(), [address], "{name}");
    }
}

#[test]
fn balance_decides_who_is_asked_first() {
    // So many of 40 queries go to the first of two backends.
    for (balance, expected) in [("ordered", 40..=40), ("round-robin", 20..=20), ("random", 5..=35)] {
        let backends = [Backend::new(answer(ONE)), Backend::new(answer(TWO))];
        let keys = format!("dispatch = 'sequential'\nbalance = '{balance}'");
        let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).start();
        let client = server.client();
        for i in 0..40 {
            client.ask(&query(&format!("{i}.example"), A));
        }
        let first = backends[0].queries().len();
        assert!(expected.contains(&first), "{balance}: {first} of 40");
        assert_eq!(first + backends[1].queries().len(), 40);
    }
}

#[test]
fn weights_share_the_turns() {
    let backends = [Backend::new(answer(ONE)), Backend::new(answer(TWO))];
    let config = format!(
        "workers = 1\n[forwarder]\nlisten = ['127.0.0.1:0']\n[forwarder.routes]\n'.' = 'all'\n\
         [pools.all]\ndispatch = 'sequential'\nbackends = [\
         {{ address = '{}', weight = 3 }}, {{ address = '{}', name = 'other' }}]",
        backends[0].address(),
        backends[1].address(),
    );
    let server = Server::start(&config);
    let client = server.client();
    for i in 0..40 {
        client.ask(&query(&format!("{i}.example"), A));
    }
    assert_eq!(backends.each_ref().map(|b| b.queries().len()), [30, 10]);
}
