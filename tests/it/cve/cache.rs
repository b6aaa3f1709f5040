//! What an attacker can achieve by what is kept: names that live on, entries that push others out, and
//! expired answers.

use std::time::Instant;

use super::*;

/// A forwarder with a cache that keeps nothing expired.
fn cached(backend: &Backend, pool: &str) -> Server {
    Forwarder::to(&[backend], pool).cache("stale = '0s'\nprefetch = 0").admin().start()
}

#[test]
fn nothing_that_a_dead_zone_sends_renews_what_is_kept_of_it() {
    for rtype in [NS, A, AAAA] {
        // CVE-2026-40622 (Unbound): NS records of the zone itself replaced expired ones. CVE-2026-42955
        // (Unbound): its addresses did. CVE-2026-123602 (Hickory DNS): NS records were kept as long as they
        // were asked for.
        let data: &[u8] = if rtype == NS { &[0xC0, 12] } else { &[1; 16][..if rtype == A { 4 } else { 16 }] };
        let ghost = move |reply: Reply, ttl| reply.answer(record("@", rtype, data).lasting(ttl));
        let alive = reply(move |reply| ghost(reply, 2));
        // Other names of the zone still give its records, with a long TTL, in all sections.
        let helper = reply(move |reply| {
            let again = |owner| record(owner, rtype, &[1; 16][..if rtype == AAAA { 16 } else { 4 }]).lasting(86_400);
            let reply = reply.answer(a(TRUE)).answer(again("ghost.example"));
            reply.authority(again("ghost.example")).additional(again("ghost.example"))
        });
        let gone = Backend::new(alive.then(nxdomain()).except("helper", helper));
        let server = cached(&gone, "");
        let client = server.client();
        assert_eq!(client.ask(&query("ghost.example", rtype)).ttls(), [2]);
        let began = Instant::now();
        let ended = until("the zone is gone", || {
            client.ask(&query("helper.ghost.example", A));
            let response = client.ask(&query("ghost.example", rtype));
            (response.rcode() == NXDOMAIN).then(|| began.elapsed())
        });
        assert!(ended < Duration::from_secs(10), "type {rtype}: {ended:?}");
        assert_eq!(client.ask(&query("ghost.example", rtype)).rcode(), NXDOMAIN);
    }
}

#[test]
fn no_address_in_a_reply_flushes_the_cache() {
    // CVE-2026-50251 (Unbound): glue of 0.0.0.0 or :: made it flush all that it had.
    let backend = Backend::new(answer_for(3600, TRUE).except(
        "attack",
        reply(|reply| {
            let servers = record("attack.example", NS, &wire_name("ns.attack.example"));
            let reply = reply.answer(a("0.0.0.0")).answer(record("@", AAAA, &[0; 16])).authority(servers);
            reply.additional(record("ns.attack.example", A, &[0; 4])).additional(record(
                "ns.attack.example",
                AAAA,
                &[0; 16],
            ))
        }),
    ));
    let server = cached(&backend, "");
    let client = server.client();
    let names: Vec<_> = (0..50).map(|number| format!("{number}.example")).collect();
    names.iter().for_each(|name| drop(client.ask(&query(name, A))));
    for rtype in [A, AAAA, NS] {
        client.ask(&query("attack.example", rtype));
    }
    names.iter().for_each(|name| assert_eq!(client.ask(&query(name, A)).answers(), [TRUE]));
    assert_eq!(backend.queries().len(), 50 + 3, "all 50 are still there");
}

#[test]
fn large_entries_are_bounded_in_memory_and_time() {
    let soa = || {
        let numbers = [1_u32, 3600, 600, 86_400, 3600].map(u32::to_be_bytes).concat();
        record("example", SOA, &[wire_name("ns.example"), wire_name("h.example"), numbers].concat())
    };
    let filler = |i: usize| record(&format!("{i}.example"), TXT, &[&[200][..], &[7; 200]].concat()).lasting(3600);
    // CVE-2026-33258 (PowerDNS Recursor): negative responses with a large authority section.
    let negative = reply(move |reply| {
        let reply = reply.rcode(NXDOMAIN).with_flags(AA).authority(soa().lasting(3600));
        (0..270).fold(reply, |reply, i| reply.authority(filler(i)))
    });
    // CVE-2024-25590 (PowerDNS Recursor): RRsets that are slow to keep. CVE-2024-1737 (BIND): thousands of
    // records of one name and type.
    let many = |rtype: u16| {
        reply(move |reply| {
            let data =
                |i: usize| if rtype == A { vec![10, 0, (i / 250) as u8, (i % 250) as u8] } else { vec![1, i as u8] };
            (0..3500).fold(reply, |reply, i| reply.answer(record("@", rtype, &data(i)).lasting(3600)))
        })
    };
    for (what, script) in [("negative", negative), ("addresses", many(A)), ("texts", many(TXT))] {
        let backend = Backend::new(truncated().by_tcp(script).except("served", answer(TRUE)));
        let server = Forwarder::to(&[&backend], "").cache("size = '2MiB'").admin().start();
        let mut client = server.tcp_client();
        client.ask(&query("first.example", A));
        let (memory, time) = (server.process.resident(), cpu_time(&server));
        for number in 0..200 {
            client.ask(&query(&format!("{number}.example"), A));
        }
        let (memory, time) = (server.process.resident().saturating_sub(memory), cpu_time(&server) - time);
        // 200 replies have 11 MB, of which 2 MiB may be kept.
        assert!(memory < 8 << 20, "{what}: {memory} octets more");
        assert!(time < Duration::from_secs(8), "{what}: {time:?}");
        assert_served(&server);
    }
}

#[test]
fn retransmissions_do_not_make_a_query_younger() {
    // CVE-2026-42534 (Unbound): a query that was sent again and again was never old enough to be replaced.
    let backend = Backend::new(silent().except("served", answer(TRUE)));
    let keys = "timeout = '1s'\nattempt_timeout = '1s'\non_timeout = 'servfail'";
    let server = Forwarder::to(&[&backend], keys).keys("limits = { waiting = 20 }").admin().start();
    let client = server.client();
    let began = Instant::now();
    let response = until("an end", || {
        (0..10).for_each(|number| client.send(&query("slow.example", A).id(number)));
        client.try_ask(&query("slow.example", A).id(1000))
    });
    let took = began.elapsed();
    assert_eq!(response.rcode(), SERVFAIL);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_served(&server);
}

#[test]
fn an_expired_answer_behind_an_alias_is_given_in_time() {
    // CVE-2026-55717 (Unbound): an expired answer and a rewritten alias together ended the process.
    // CVE-2024-4076 and CVE-2025-40777 (BIND): so did an expired answer beside local data, and one that was
    // given at once.
    let backend = Backend::new(answer_for(1, TRUE));
    let rules = "rules = [{ name = 'safe', names = ['search.example'], then = { cname = 'target.example' } }, \
                 { name = 'made', names = ['made.example'], then = { addresses = ['192.0.2.7'] } }]";
    for after in ["0s", "300ms"] {
        let cache = format!("stale_answer_after = '{after}'\nprefetch = 0");
        let server = Forwarder::to(&[&backend], "timeout = '2s'").keys(rules).cache(&cache).start();
        let client = server.client();
        assert_eq!(client.ask(&query("search.example", A)).answers(), [TRUE, "target.example."]);
        assert_eq!(client.ask(&query("target.example", A)).answers(), [TRUE]);
        backend.play_dead(true);
        let stale = until("an expired answer", || {
            let response = client.ask(&query("search.example", A).edns(1232));
            assert_eq!(client.ask(&query("made.example", A)).answers(), ["192.0.2.7"]);
            (response.extended_error() == Some(STALE)).then_some(response)
        });
        assert_eq!(stale.answers(), [TRUE, "target.example."], "{after}");
        backend.play_dead(false);
    }
}

#[test]
fn expired_answers_take_no_more_places_than_others() {
    // CVE-2026-77860 (Unbound): queries that got an expired answer were not counted by the limit of a client.
    const NAMES: usize = 100;
    let dead = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_dead = std::sync::Arc::clone(&dead);
    let mut live = answer_for(1, TRUE);
    let backend = Backend::new(Script::each_of(move |seen| {
        let served = seen.name() == "served.example" || !is_dead.load(std::sync::atomic::Ordering::Relaxed);
        if served { live.react(seen) } else { Vec::new() }
    }));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'\ndispatch = 'sequential'";
    let server = Forwarder::to(&[&backend], keys)
        .keys("limits = { waiting = 10 }")
        .cache("stale_answer_after = '0s'\nprefetch = 0")
        .admin()
        .start();
    let client = server.client();
    let name = |number: usize| format!("n{number}.zone{number}.example");
    for number in 0..NAMES {
        assert_eq!(client.ask(&query(&name(number), A)).answers(), [TRUE]);
    }
    dead.store(true, std::sync::atomic::Ordering::Relaxed);
    until("the last one has run out", || {
        (client.ask(&query(&name(NAMES - 1), A).edns(1232)).extended_error() == Some(STALE)).then_some(())
    });
    let before = backend.queries().len();
    for number in 0..NAMES {
        let response = client.ask(&query(&name(number), A).edns(1232));
        assert_eq!((response.answers(), response.extended_error()), (vec![TRUE.to_owned()], Some(STALE)));
    }
    let asked = backend.queries().len() - before;
    assert!(asked <= 10, "{asked} refreshes wait for one client");
}

#[test]
fn a_query_for_all_types_finds_what_is_kept_of_any_type() {
    // CVE-2025-59029 (PowerDNS Recursor): ANY and certain contents of the cache ended the process.
    let backend = Backend::new(answer_for(1, TRUE).except("no", nxdomain_for(1)).except("bad", servfail()));
    let server = Forwarder::to(&[&backend], "timeout = '2s'").cache("prefetch = 0").start();
    let client = server.client();
    let names = ["www.example", "no.example", "bad.example", "example"];
    let began = Instant::now();
    // Fresh entries at first, expired ones later.
    until("they have expired", || {
        for name in names {
            for rtype in [A, AAAA, NS, TXT, SOA, 46, 47, ANY] {
                client.ask(&query(name, rtype));
                client.ask(&query(name, rtype).dnssec_ok());
            }
            let response = client.ask(&query(name, ANY));
            assert_eq!(response.rcode() == NOERROR, !name.starts_with(['n', 'b']), "{name}: {response:?}");
        }
        (began.elapsed() > ms(1500)).then_some(())
    });
    assert_eq!(server.tcp_client().ask(&query("www.example", ANY)).answers(), [TRUE]);
}
