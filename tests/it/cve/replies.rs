//! What a forger, or a backend that an attacker controls, can achieve by its replies.

use std::collections::HashSet;

use super::*;
use crate::forging::check;

const CNAME: u16 = 5;
const MX: u16 = 15;
const DNAME: u16 = 39;

/// RFC 9567 section 4: the agent to which errors are reported.
const REPORT_CHANNEL: u16 = 18;

#[test]
fn ids_beside_those_in_use_match_no_query() {
    // CVE-2026-33602 (dnsdist): an ID one beyond the highest slot was written out of bounds.
    let with_id = |id: fn(u16) -> u16| {
        answer(FORGED).edited(move |reply| {
            let forged = id(word(reply, 0)).to_be_bytes();
            reply[..2].copy_from_slice(&forged);
        })
    };
    check(with_id(|id| id.wrapping_add(1)).and(with_id(|id| id.wrapping_sub(1))));
    check(with_id(|id| if id == 0 { 1 } else { 0 }).and(with_id(|id| id ^ 0xFFFF)));
}

/// Sends one reply with unsolicited records, then asks for the names of these records.
fn check_unsolicited(forgery: impl Fn(Reply) -> Reply + Send + 'static) {
    let backend = Backend::new(answer(TRUE).except("attack", reply(forgery)));
    let server = Forwarder::to(&[&backend], "").cache("").start();
    let client = server.client();
    client.ask(&query("attack.example", A));
    for name in ["bank.example", "www.bank.example", "ns.bank.example", "target.example"] {
        assert_eq!(backend.queries_for(name).len(), 0, "nothing looks up {name} by itself");
        assert_eq!(client.ask(&query(name, A)).answers(), [TRUE], "{name}");
        assert_eq!(backend.queries_for(name).len(), 1, "the backend is asked for {name}");
    }
}

#[test]
fn unsolicited_records_answer_no_other_question() {
    let forged = |owner: &str| record(owner, A, &ipv4(FORGED));
    let servers = || record("bank.example", NS, &wire_name("ns.bank.example"));
    // CVE-2025-40778 (BIND): records beside the answer, DNAME and NS in the authority section.
    check_unsolicited(move |reply| {
        let dname = record("bank.example", DNAME, &wire_name("attack.example"));
        reply.answer(a(TRUE)).answer(forged("www.bank.example")).authority(dname).authority(servers())
    });
    // CVE-2025-11411 (Unbound): NS records beside an answer replaced those of the zone.
    check_unsolicited(move |reply| reply.answer(a(TRUE)).authority(servers()).additional(forged("ns.bank.example")));
    // CVE-2025-59023 (PowerDNS Recursor): a delegation of another zone with its glue.
    check_unsolicited(move |reply| reply.authority(servers()).additional(forged("ns.bank.example")));
    // CVE-2026-42960 (Unbound): MX in the authority section, its address in the additional section.
    check_unsolicited(move |reply| {
        let mail = record("bank.example", MX, &[&[0, 1][..], &wire_name("www.bank.example")].concat());
        reply.answer(a(TRUE)).authority(mail).additional(forged("www.bank.example"))
    });
    // CVE-2026-123583 (Hickory DNS): a negative response with records of another zone.
    check_unsolicited(move |reply| {
        let numbers = [1_u32, 3600, 600, 86_400, 60].map(u32::to_be_bytes).concat();
        let soa = record("example", SOA, &[wire_name("ns.example"), wire_name("h.example"), numbers].concat());
        let negative = reply.rcode(NXDOMAIN).with_flags(AA).authority(soa);
        negative.authority(servers()).additional(forged("ns.bank.example"))
    });
    // CVE-2026-123585 (Hickory DNS): aliases outside of the chain made the resolver ask for their targets.
    check_unsolicited(|reply| {
        let alias = |owner| record(owner, CNAME, &wire_name("target.example"));
        let reply = reply.answer(a(TRUE)).answer(alias("www.bank.example"));
        reply.authority(alias("bank.example")).additional(alias("ns.bank.example"))
    });
}

#[test]
fn a_forged_failure_does_not_take_edns_from_a_backend() {
    // CVE-2026-52690 (PowerDNS Recursor): spoofed answers marked a server as one without EDNS.
    let formerr = || reply(|reply| reply.without_opt().rcode(FORMERR));
    let wrong_id = formerr().edited(|reply| reply[1] ^= 1);
    let elsewhere = formerr().sent_from(Source::OtherAddress).and(formerr().sent_from(Source::OtherPort));
    let backend = Backend::new(wrong_id.and(elsewhere).and(answer(TRUE)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let client = server.client();
    for number in 0..10 {
        let asked = query(&format!("{number}.example"), A).dnssec_ok();
        assert_eq!(client.ask(&asked).answers(), [TRUE]);
    }
    let queries = backend.queries();
    assert!(queries.len() >= 10 && queries.iter().all(|seen| seen.options().is_some()), "{queries:?}");
}

#[test]
fn cookies_of_any_length_in_replies_do_no_harm() {
    // CVE-2026-33262 (PowerDNS Recursor): an inconsistent cookie in a reply was a null pointer.
    for length in [0, 1, 7, 8, 9, 15, 16, 40, 41, 300] {
        let backend = Backend::new(reply(move |reply| reply.answer(a(TRUE)).option(COOKIE, &vec![7; length])));
        backend.answer_probes(rcode(REFUSED).giving_cookie(b"01234567"));
        let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
        let client = server.client();
        backend.wait_for_probes(1);
        for number in 0..5 {
            let response = client.ask(&query(&format!("{number}.example"), A).edns(1232));
            assert_eq!((response.answers(), response.cookie()), (vec![TRUE.to_owned()], None), "{length} octets");
        }
    }
}

#[test]
fn a_client_subnet_in_a_reply_does_not_replace_its_source() {
    // CVE-2026-4893 (dnsmasq): a reply with the option passed the check of its source.
    let subnet = [0, 1, 24, 24, 198, 51, 100];
    let forged = move || reply(move |reply| reply.answer(a(FORGED)).option(CLIENT_SUBNET, &subnet));
    let forgeries = forged().sent_from(Source::OtherAddress).and(forged().sent_from(Source::OtherPort));
    let wrong_id = forged().edited(|reply| reply[1] ^= 1);
    let backend = Backend::new(forgeries.and(wrong_id).and(answer(TRUE)));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'\nclient_subnet = { ipv4 = 24, ipv6 = 56 }";
    let server = Forwarder::to(&[&backend], keys).cache("").start();
    for number in 0..10 {
        let asked = query(&format!("{number}.example"), A).option(CLIENT_SUBNET, &[0, 1, 24, 0, 198, 51, 100]);
        assert_eq!(server.client().ask(&asked).answers(), [TRUE]);
    }
}

#[test]
fn workers_do_not_share_out_the_ports_among_them() {
    // CVE-2026-50252 (Unbound): each thread had its own part of the ports, which a client could map.
    const CLIENTS: usize = 8;
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").workers(2).start();
    let mut ports: Vec<HashSet<u16>> = Vec::new();
    for number in 0..CLIENTS {
        // The kernel gives all datagrams of one socket to one worker.
        let client = server.client();
        let from = backend.queries().len();
        (0..600).for_each(|i| drop(client.ask(&query(&format!("{i}.c{number}.example"), A))));
        ports.push(backend.queries()[from..].iter().map(|seen| seen.peer.port()).collect());
    }
    // Two sets of 600 from 64,512 ports have 5.6 in common on average and none once in 260 times. With a part
    // for each worker, clients of different workers have none in common, directly or through others.
    let mut reached = vec![0];
    for next in 0.. {
        let Some(&at) = reached.get(next) else { break };
        let near = (0..CLIENTS).filter(|other| !reached.contains(other) && !ports[at].is_disjoint(&ports[*other]));
        let near: Vec<_> = near.collect();
        reached.extend(near);
    }
    assert_eq!(reached.len(), CLIENTS, "{reached:?} share ports");
}

#[test]
fn a_backend_that_never_answers_well_is_asked_a_few_times() {
    // CVE-2026-5950 (BIND): a bad server was asked in an endless loop until the query timed out.
    for (what, script) in [
        ("FORMERR", rcode(FORMERR)),
        ("FORMERR without OPT", reply(|reply| reply.without_opt().rcode(FORMERR))),
        ("SERVFAIL", servfail()),
        ("NOTIMP", rcode(NOTIMP)),
        ("REFUSED", rcode(REFUSED)),
        ("BADVERS", rcode(BADVERS)),
        ("BADCOOKIE", badcookie()),
        ("TC by UDP and TCP", truncated()),
        ("a referral", referral()),
        ("another case", answer(TRUE).edited(|reply| reply[13] ^= 0x20)),
    ] {
        let backend = Backend::new(script);
        let server = Forwarder::to(&[&backend], "timeout = '3s'\ncase = 'random'").start();
        server.client().ask(&query("www.example", A).edns(1232));
        server.tcp_client().ask(&query("other.example", A).edns(1232));
        for name in ["www.example", "other.example"] {
            let count = backend.queries_for(name).len();
            assert!((1..=8).contains(&count), "{what}: {count} queries for {name}");
        }
    }
}

/// The type of the question.
fn type_of(seen: &Seen) -> u16 {
    let question = question_of(&seen.bytes);
    word(question, question.len() - 4)
}

#[test]
fn late_aliases_of_an_answered_name_change_nothing() {
    // CVE-2026-12617 (BIND): an alias that comes after the address and points to itself ended the process.
    let address = Script::new(|seen| (type_of(seen) == A).then(|| reply_to(&seen.bytes).answer(a(TRUE)).to_vec()));
    let late = Script::new(|seen| {
        let itself = record("@", CNAME, &[0xC0, 12]);
        let reply = reply_to(&seen.bytes);
        let alias = if type_of(seen) == CNAME { reply.answer(itself) } else { reply };
        (type_of(seen) != A).then(|| alias.to_vec())
    });
    let backend = Backend::new(address.and(late.held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").cache("").start();
    let (waiting, client) = (server.client(), server.client());
    waiting.send(&query("www.example", CNAME));
    waiting.send(&query("example", DNAME));
    backend.wait_for(2);
    assert_eq!(client.ask(&query("www.example", A)).answers(), [TRUE]);
    backend.release();
    assert!((0..2).all(|_| waiting.receive().rcode() == NOERROR));
    assert_eq!(client.ask(&query("www.example", A)).answers(), [TRUE]);
    assert_eq!(backend.queries().len(), 3, "the answer came from the cache");
}

#[test]
fn errors_are_reported_to_no_agent_that_a_reply_names() {
    // CVE-2026-55973 (Unbound): the name of a report overflowed a buffer on the stack.
    let agent = wire_name(&longest_name());
    let failure = reply(move |reply| reply.rcode(SERVFAIL).option(REPORT_CHANNEL, &agent));
    let backend = Backend::new(failure);
    let server = Forwarder::to(&[&backend], "timeout = '3s'").start();
    let asked = query(&longest_name(), A).edns(1232);
    let response = server.client().ask(&asked);
    assert_eq!((response.rcode(), response.question()), (SERVFAIL, &asked.question()[..]));
    assert!(backend.queries().iter().all(|seen| seen.name() == longest_name()), "nothing else is asked");
}

#[test]
fn no_reply_that_nobody_waits_for_ends_the_process() {
    // CVE-2026-44621 (libunbound): a count of unwanted replies ended the application.
    let forged = |high: u8| answer(FORGED).edited(move |reply| reply[0] ^= high);
    let flood = (1..=40).fold(answer(TRUE), |script, high| forged(high).and(script));
    let backend = Backend::new(flood);
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").admin().start();
    let client = server.client();
    for number in 0..50 {
        assert_ne!(client.ask(&query(&format!("{number}.example"), A)).answers(), [FORGED]);
    }
    let spoofed = server.admin().metrics().sum("hedgerow_dropped_total", &[("reason", "spoofed")]);
    assert!(spoofed >= 50, "{spoofed} counted");
}

#[test]
fn long_texts_of_errors_are_left_out_of_short_responses() {
    // CVE-2024-1931 (Unbound): texts that did not fit into a positive response were cut in an endless loop.
    let with_texts = |reply: Reply| {
        let text = |length: usize| [&[0, 22][..], &vec![b'x'; length]].concat();
        [400, 300, 0].iter().fold(reply, |reply, length| reply.option(EXTENDED_ERROR, &text(*length)))
    };
    let failure = reply(move |reply| with_texts(reply.rcode(SERVFAIL)));
    let backend = Backend::new(reply(move |reply| with_texts(reply.answer(a(TRUE)))).except("bad", failure));
    let server = Forwarder::to(&[&backend], "timeout = '2s'").cache("").start();
    for size in [0, 511, 512, 513, 600, 900, 1232] {
        for (name, rcode) in [("www.example", NOERROR), (&longest_name(), NOERROR), ("bad.example", SERVFAIL)] {
            for _ in 0..2 {
                let asked = query(name, A).edns(size);
                let response = server.client().ask(&asked);
                assert_eq!((response.rcode(), response.question()), (rcode, &asked.question()[..]), "{size}");
                assert!(response.bytes.len() <= usize::from(size.max(512)), "{size}: {response:?}");
            }
        }
    }
}
