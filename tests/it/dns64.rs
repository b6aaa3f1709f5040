//! Tests of `dns64` (RFC 6147, RFC 8880): addresses for clients behind NAT64.

use testkit::*;

const PTR: u16 = 12;
const CNAME: u16 = 5;
const DS: u16 = 43;

const PREFIX: &str = "dns64 = '64:ff9b::/96'\ntimeout = '20s'";

/// Answers by the first label and the type: `four` has an A record alone, `both` has both, `mapped` has an
/// AAAA record of an IPv4 address, `mixed` has that and another, `alias` leads to a host with an A record,
/// `none` has neither, `missing` does not exist, `broken` fails for AAAA.
fn script() -> Script {
    Script::new(|seen| {
        let (name, reply) = (seen.name(), reply_to(&seen.bytes).with_flags(AD | RA));
        let question = question_of(&seen.bytes);
        let qtype = word(question, question.len() - 4);
        let six = |text: &str| record("@", AAAA, &text.parse::<std::net::Ipv6Addr>().expect("an address").octets());
        let soa = {
            let names = [wire_name("ns.example"), wire_name("hostmaster.example")].concat();
            record("example", SOA, &[names, [1_u32, 3600, 600, 86400, 60].map(u32::to_be_bytes).concat()].concat())
        };
        let nodata = reply.clone().authority(soa.clone().lasting(90));
        let four = || reply.clone().answer(a("192.0.2.33").lasting(300));
        let reply = match (name.split('.').next().expect("a label"), qtype) {
            ("both", AAAA) => reply.answer(six("2001:db8::1")),
            ("mapped", AAAA) => reply.answer(six("::ffff:192.0.2.33")),
            ("mixed", AAAA) => reply.answer(six("::ffff:192.0.2.33")).answer(six("2001:db8::1")),
            ("missing", _) => reply.rcode(NXDOMAIN).authority(soa),
            ("broken", AAAA) => reply.rcode(SERVFAIL),
            ("alias", A) => {
                let target = record("host.example", A, &ipv4("192.0.2.33"));
                reply.answer(record("@", CNAME, &wire_name("host.example"))).answer(target)
            }
            ("alias", AAAA) => nodata.answer(record("@", CNAME, &wire_name("host.example"))),
            ("four" | "both" | "mapped" | "mixed" | "broken", A) => four(),
            ("33", PTR) => reply.answer(record("@", PTR, &wire_name("host.example"))),
            _ => nodata,
        };
        Some(reply.to_vec())
    })
}

fn qtypes(backend: &Backend, name: &str) -> Vec<u16> {
    let queries = backend.queries_for(name);
    queries.iter().map(|seen| word(question_of(&seen.bytes), question_of(&seen.bytes).len() - 4)).collect()
}

#[test]
fn names_without_ipv6_get_addresses_of_the_prefix() {
    let backend = Backend::new(script());
    let server = Forwarder::to(&[&backend], PREFIX).cache("").admin().start();
    let client = server.client();
    for round in 0..2 {
        let ask = |name: &str| client.ask(&query(name, AAAA).edns(1232).flags(RD | AD));
        for (name, rcode, answers) in [
            ("four.example", NOERROR, &["64:ff9b::c000:221"][..]),
            ("both.example", NOERROR, &["2001:db8::1"]),
            ("mapped.example", NOERROR, &["64:ff9b::c000:221"]),
            ("mixed.example", NOERROR, &["2001:db8::1"]),
            ("alias.example", NOERROR, &["64:ff9b::c000:221", "host.example."]),
            ("broken.example", NOERROR, &["64:ff9b::c000:221"]),
            ("none.example", NOERROR, &[]),
            ("missing.example", NXDOMAIN, &[]),
        ] {
            let response = ask(name);
            assert_eq!(
                (response.rcode(), response.answers()),
                (rcode, answers.iter().map(|a| (*a).to_owned()).collect()),
                "{name}"
            );
            assert!(response.has_opt() && response.question()[..4] == wire_name(name)[..4], "{response:?}");
        }
        let made = ask("four.example");
        assert!(!made.has(AD) && !made.has(AA) && made.has(RA), "it is made up: {made:?}");
        assert!(made.ttls()[0] <= 90, "RFC 6147 section 5.1.7: no longer than the SOA record: {:?}", made.ttls());
        assert!(ask("both.example").has(AD), "round {round}: it passes as it is");
        assert_eq!(ask("none.example").message().authorities.len(), 1, "stubs keep it");
    }
    assert_eq!(qtypes(&backend, "four.example"), [AAAA, A], "the second round is from the cache");
    assert_eq!(qtypes(&backend, "both.example"), [AAAA]);
    // Other types pass, and so does a query of a client that validates.
    assert_eq!(client.ask(&query("four.example", A)).answers(), ["192.0.2.33"]);
    let validating = client.ask(&query("four.example", AAAA).dnssec_ok().flags(RD | CD));
    assert_eq!((validating.rcode(), validating.answers().len()), (NOERROR, 0));
    let with_do = client.ask(&query("four.example", AAAA).dnssec_ok());
    assert_eq!(with_do.answers(), ["64:ff9b::c000:221"], "RFC 6147 section 5.5: DO alone is no validation");
    // By TCP, with the letter case of the client.
    let response = server.tcp_client().ask(&query("FoUr.example", AAAA));
    assert_eq!((response.answers(), &response.question()[1..5]), (vec!["64:ff9b::c000:221".to_owned()], &b"FoUr"[..]));
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_queries_total", &[]), metrics.sum("hedgerow_responses_total", &[]));
}

#[test]
fn reverse_names_of_the_prefix_are_aliases_of_those_of_ipv4() {
    let backend = Backend::new(script());
    let server = Forwarder::to(&[&backend], PREFIX).start();
    let client = server.client();
    let name = format!("1.2.2.0.0.0.0.c.{}b.9.f.f.4.6.0.0.ip6.arpa", "0.".repeat(16));
    let response = client.ask(&query(&name, PTR));
    assert_eq!(response.answers(), ["33.2.0.192.in-addr.arpa.", "host.example."]);
    assert_eq!(backend.queries()[0].name(), "33.2.0.192.in-addr.arpa");
    let other = name.replace("b.9.f.f", "c.9.f.f");
    assert_eq!(client.ask(&query(&other, PTR)).answers(), [""; 0]);
    assert_eq!(backend.queries()[1].name(), other, "another prefix passes");
}

#[test]
fn ipv4only_arpa_shows_the_prefix_without_a_backend() {
    let backend = Backend::new(script());
    let server = Forwarder::to(&[&backend], PREFIX).start();
    let client = server.client();
    for (name, rtype, rcode, answers) in [
        ("ipv4only.arpa", AAAA, NOERROR, &["64:ff9b::c000:aa", "64:ff9b::c000:ab"][..]),
        ("IPv4only.arpa", A, NOERROR, &["192.0.0.170", "192.0.0.171"]),
        ("ipv4only.arpa", TXT, NOERROR, &[]),
        ("www.ipv4only.arpa", AAAA, NXDOMAIN, &[]),
    ] {
        let response = client.ask(&query(name, rtype));
        assert_eq!(
            (response.rcode(), response.answers()),
            (rcode, answers.iter().map(|a| (*a).to_owned()).collect()),
            "{name}"
        );
        assert!(
            response.has(AA) && response.message().authorities.len() == usize::from(answers.is_empty()),
            "{response:?}"
        );
    }
    assert_eq!(backend.queries().len(), 0);
    client.ask(&query("ipv4only.arpa", DS));
    assert_eq!(backend.queries().len(), 1, "the parent has the DS records");
    // Without special names, and in pools without the key, backends answer.
    let off = Forwarder::to(&[&backend], PREFIX).keys("special_names = false").start();
    assert_eq!(off.client().ask(&query("ipv4only.arpa", A)).answers(), [""; 0]);
    let other = Forwarder::to(&[&backend], "").start();
    assert_eq!(other.client().ask(&query("ipv4only.arpa", A)).answers(), [""; 0]);
    assert_eq!(backend.queries().len(), 3);
}

#[test]
fn a_rule_sends_the_clients_that_need_it_to_such_a_pool() {
    let (plain, with_dns64) = (Backend::new(script()), Backend::new(script()));
    let config = Forwarder::new().pool("all", ".", &[&plain], "").to_toml();
    let pool = format!("[pools.nat64]\nbackends = [\"{}\"]\n{PREFIX}\n", Asked::address(&with_dns64));
    let rule = "[[forwarder.rules]]\nname = 'six'\nclients = ['127.0.0.2']\nthen = 'pool:nat64'\n";
    let server = Server::start(&format!("{config}{pool}{rule}"));
    let chosen = Client::at("127.0.0.2", server.address());
    assert_eq!(chosen.ask(&query("four.example", AAAA)).answers(), ["64:ff9b::c000:221"]);
    assert_eq!(chosen.ask(&query("ipv4only.arpa", AAAA)).answers(), ["64:ff9b::c000:aa", "64:ff9b::c000:ab"]);
    assert_eq!(qtypes(&with_dns64, "four.example"), [AAAA, A], "both go to the pool of the rule");
    assert_eq!(server.client().ask(&query("four.example", AAAA)).answers(), [""; 0]);
    assert_eq!(qtypes(&plain, "four.example"), [AAAA]);
}

#[test]
fn many_clients_on_several_workers_get_their_addresses() {
    let backend = Backend::new(script());
    let server = Forwarder::to(&[&backend], PREFIX).workers(4).admin().start();
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for round in 0..5 {
        for client in &clients {
            client.send(&query(&format!("four.r{round}.example"), AAAA));
        }
        clients.iter().for_each(|client| assert_eq!(client.receive().answers(), ["64:ff9b::c000:221"]));
    }
    server.admin().wait_for("nothing waits", |metrics| metrics.sum("hedgerow_in_flight", &[]) == 0);
}

#[test]
fn a_long_response_is_cut_for_its_client() {
    let backend = Backend::new(Script::new(|seen| {
        let question = question_of(&seen.bytes);
        let is_a = word(question, question.len() - 4) == A;
        let reply = reply_to(&seen.bytes);
        let reply = if is_a { (0..60).fold(reply, |reply, n| reply.answer(a(&format!("192.0.2.{n}")))) } else { reply };
        let fits = seen.tcp || !is_a;
        Some(if fits { reply.to_vec() } else { reply_to(&seen.bytes).with_flags(TC).to_vec() })
    }));
    let server = Forwarder::to(&[&backend], PREFIX).start();
    let response = server.client().ask(&query("long.example", AAAA));
    assert!(response.has(TC) && response.answers().is_empty(), "{response:?}");
    assert_eq!(server.tcp_client().ask(&query("long.example", AAAA)).answers().len(), 60);
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let backend = Backend::new(script());
    let config = |keys: &str| Forwarder::to(&[&backend], keys).cache("").to_toml();
    let server = Server::start(&config(""));
    let client = server.client();
    let ask = || client.ask(&query("four.example", AAAA)).answers();
    assert_eq!(ask(), [""; 0]);
    server.reload("config.toml", &config(PREFIX));
    until("addresses are made", || (ask() == ["64:ff9b::c000:221"]).then_some(()));
    server.reload("config.toml", &config(""));
    until("no addresses are made", || ask().is_empty().then_some(()));
}
