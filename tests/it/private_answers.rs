//! Tests of `private_answers = "drop"`: no name on the Internet leads to a private address.

use testkit::*;

const HTTPS: u16 = 65;

/// RFC 8914 section 4.18.
const FILTERED: u16 = 17;

const DROP: &str = "private_answers = 'drop'\nprivate_names = ['Corp.example']";

/// Answers by the first label: `bad` with a private address, `mixed` with both, `alias` with an alias of a
/// private address, `large` by TCP only, and all others with a public address.
fn script() -> Script {
    reply(|reply| {
        let name = reply_name(&reply);
        let reply = reply.with_flags(AD);
        match name.split('.').next() {
            Some("bad") => reply.answer(a("10.0.0.1")).authority(record("example", NS, &wire_name("ns.example"))),
            Some("mixed") => reply.answer(a("192.168.0.1")).answer(a("192.0.2.1")),
            Some("alias") => {
                let target = record("host.example", A, &ipv4("127.0.0.1"));
                reply.answer(record("@", 5, &wire_name("host.example"))).answer(target)
            }
            Some("mapped") => reply.answer(record("@", AAAA, &[&[0; 10][..], &[255, 255, 10, 0, 0, 1]].concat())),
            Some("service") => reply.answer(record("@", HTTPS, b"\0\x01\0\0\x04\0\x04\x0A\0\0\x01")),
            _ => reply.answer(a("192.0.2.1")),
        }
    })
    .except("large", truncated().by_tcp(reply(|reply| reply.answer(a("10.0.0.1")).answer(txt(2_000)))))
}

fn reply_name(reply: &Reply) -> String {
    let message = reply.to_vec();
    Seen { bytes: message, peer: ([127, 0, 0, 1], 1).into(), at: std::time::Instant::now(), tcp: false, named: None }
        .name()
}

#[test]
fn private_addresses_are_removed_before_the_cache_and_the_client() {
    let backend = Backend::new(script());
    let config = Forwarder::new().pool("all", ".", &[&backend], DROP).pool("open", "open.example", &[&backend], "");
    let server = config.cache("").start();
    let client = server.client();
    for round in 0..2 {
        let ask = |name: &str, rtype| client.ask(&query(name, rtype).edns(1232).flags(RD | AD));
        let filtered = |response: Response, answers: &[&str]| {
            assert_eq!(
                (response.rcode(), response.answers()),
                (NOERROR, answers.iter().map(|a| (*a).to_owned()).collect())
            );
            assert_eq!((response.extended_error(), response.has(AD)), (Some(FILTERED), false), "{response:?}");
            assert!(response.message().authorities.is_empty(), "no referral: {response:?}");
        };
        filtered(ask("bad.example", A), &[]);
        filtered(ask("mapped.example", AAAA), &[]);
        filtered(ask("service.example", HTTPS), &[]);
        filtered(ask("alias.example", A), &["host.example."]);
        let mixed = ask("mixed.example", A);
        assert_eq!(
            (mixed.answers(), mixed.extended_error(), mixed.has(AD)),
            (vec!["192.0.2.1".to_owned()], None, false)
        );
        let public = ask("www.example", A);
        assert_eq!((public.answers(), public.has(AD)), (vec!["192.0.2.1".to_owned()], true), "it passes as it is");
        // Names of the operator, and pools without the key.
        for name in ["bad.corp.example", "BAD.CORP.example", "bad.open.example"] {
            assert_eq!(ask(name, A).answers(), ["10.0.0.1"], "{name} in round {round}");
        }
        assert_eq!(ask("bad.xcorp.example", A).answers(), [""; 0], "labels are not cut");
    }
    assert_eq!(backend.queries_for("mixed.example").len(), 1, "the cache has the answer without private addresses");
    // Without EDNS there is no reason.
    let plain = client.ask(&query("bad.example", A));
    assert_eq!((plain.rcode(), plain.answers().len(), plain.has_opt()), (NOERROR, 0, false));
}

#[test]
fn answers_by_tcp_and_late_replies_are_filtered_too() {
    let late = reply(|reply| reply.answer(a("10.0.0.1")).answer(a("192.0.2.7"))).held();
    let backend = Backend::new(script().except("late", late.then(silent())));
    let keys = format!("{DROP}\ntimeout = '300ms'\non_timeout = 'servfail'");
    let server = Forwarder::to(&[&backend], &keys).cache("failure_ttl = '60s'").start();
    let response = server.tcp_client().ask(&query("large.example", A));
    assert_eq!(response.message().answers.len(), 1, "only the text is left");
    let client = server.client();
    assert_eq!(client.ask(&query("late.example", A)).rcode(), SERVFAIL);
    backend.release();
    let answers = until("the late reply is in the cache", || {
        let response = client.ask(&query("late.example", A));
        (response.rcode() == NOERROR).then(|| response.answers())
    });
    assert_eq!(answers, ["192.0.2.7"]);
}

/// RFC 8945 section 5.5: a signed reply goes to its client as it came.
#[test]
fn a_signed_query_gets_its_reply_as_it_came() {
    let backend = Backend::new(Script::new(|seen| {
        let mut reply = reply_to(&seen.bytes).answer(a("10.0.0.1")).additional(tsig(seen.id())).without_opt().to_vec();
        reply[..2].copy_from_slice(&seen.id().to_be_bytes());
        Some(reply)
    }));
    let server = Forwarder::to(&[&backend], DROP).start();
    let client = server.client();
    client.send_bytes(&query("bad.example", A).to_signed_vec());
    assert_eq!(client.receive().answers(), ["10.0.0.1"]);
}

#[test]
fn a_reload_that_turns_it_on_uses_no_earlier_answer_of_the_cache() {
    let backend = Backend::new(script());
    let config = |keys: &str| Forwarder::to(&[&backend], keys).cache("").to_toml();
    let server = Server::start(&config(""));
    let client = server.client();
    assert_eq!(client.ask(&query("mixed.example", A)).answers().len(), 2);
    server.reload("config.toml", &config(DROP));
    until("the rule applies", || (client.ask(&query("mixed.example", A)).answers() == ["192.0.2.1"]).then_some(()));
    assert_eq!(backend.queries_for("mixed.example").len(), 2);
}
