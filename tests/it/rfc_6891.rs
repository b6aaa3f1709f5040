//! RFC 6891, EDNS(0), as clients of the forwarder and of the authority meet it: which responses have an OPT
//! record, and what in the record of a query is ignored.

use std::time::{SystemTime, UNIX_EPOCH};

use testkit::*;
use zone::transfer::tsig::{Algorithm, TsigKey, sign_query};

const ADDRESS: &str = "192.0.2.1";

/// A forwarder for `org`, and an authority for `example.net` that any query may transfer.
fn start() -> (Server, Backend) {
    let backend = Backend::new(answer(ADDRESS).except("silent", silent()).except("refused", rcode(REFUSED)));
    let forwarder = Forwarder::new()
        .pool("all", "org", &[&backend], "timeout = '100ms'\non_timeout = 'nxdomain'")
        .cache("failure_ttl = '60s'");
    let ts = "[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
              zones = [{ file = 'z.zone', origin = 'example.net', transfer_to = ['127.0.0.1'] }]\n\
              [keys.k]\nsecret = 'dGhlIHNlY3JldA=='\n";
    let zone = "$TTL 300\n@ SOA . . 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";
    (Server::start_with_files(&(forwarder.to_toml() + ts), &[("z.zone", zone)]), backend)
}

/// A query that each listener answers with the address.
fn good(listener: &str) -> Query {
    query(if listener == "ts" { "www.example.net" } else { "www.org" }, A)
}

/// A message with this question, and these records behind it.
fn with_records(question: &Query, counts: [u16; 3], records: &[&[u8]]) -> Vec<u8> {
    let [answers, authorities, additionals] = counts;
    [header(question.id, RD, [1, answers, authorities, additionals]), question.question(), records.concat()].concat()
}

#[test]
fn section_6_1_1_responses_of_every_kind_have_opt() {
    let (server, _backend) = start();
    let check = |listener: &str, query: Query, rcode: u16| {
        let address = server.listener(listener);
        for (query, is_extended) in [(query.clone(), false), (query.edns(1232), true)] {
            for response in [Client::of(address).ask(&query), TcpClient::of(address).ask(&query)] {
                assert_eq!((response.rcode(), response.has_opt()), (rcode, is_extended), "{listener} {query:?}");
            }
        }
    };
    // From the backend, from the cache, made up; refused by the backend, the routes, the type; our own names.
    check("forwarder", query("www.org", A), NOERROR);
    check("forwarder", query("www.org", A), NOERROR);
    check("forwarder", query("silent.org", A), NXDOMAIN);
    check("forwarder", query("refused.org", A), REFUSED);
    check("forwarder", query("www.example", A), REFUSED);
    check("forwarder", query("www.org", AXFR), REFUSED);
    check("forwarder", query("localhost", A), NOERROR);
    check("forwarder", query("_dns.resolver.arpa", 64), NOERROR);
    check("ts", query("www.example.net", A), NOERROR);
    check("ts", query("www.example.net", TXT), NOERROR);
    check("ts", query("missing.example.net", A), NXDOMAIN);
    check("ts", query("www.example.org", A), REFUSED);
    check("ts", query("www.example.net", A).class(CH), REFUSED);
    check("ts", query("example.net", SOA).opcode(4), REFUSED);
}

#[test]
fn section_6_1_1_transfers_have_opt() {
    let (server, _backend) = start();
    let address = server.listener("ts");
    let plain = query("example.net", AXFR);
    assert!(!TcpClient::of(address).ask(&plain).has_opt());
    let extended = plain.edns(4096).dnssec_ok().option(COOKIE, &[7; 8]);
    let response = TcpClient::of(address).ask(&extended);
    let edns = response.message().edns.expect("OPT in, OPT out");
    let count = response.message().answers.len();
    assert_eq!((count, edns.max_payload(), edns.flags().dnssec_ok), (5, 1232, true));
    assert!(response.cookie().is_some_and(|given| given.starts_with(&[7; 8])));
    // A signature comes behind the OPT record.
    let key = TsigKey::new(&"k".parse().expect("a name"), Algorithm::HmacSha256, b"the secret");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut message = extended.to_vec();
    let mut chain = sign_query(&key, now, &mut message);
    let mut client = TcpClient::of(address);
    client.send_bytes(&framed(&message));
    let response = client.receive();
    assert_eq!((chain.verify(&response.bytes, now), response.bytes[11], response.has_opt()), (Ok(()), 2, true));
    // The client has this version: the response by UDP is the SOA record alone.
    let soa = record("example.net", SOA, &[&[0; 2][..], &1_u32.to_be_bytes(), &[0; 16]].concat()).to_vec();
    let by_udp = query("example.net", IXFR);
    let client = Client::of(address);
    for (opt, has_opt) in [(Vec::new(), false), (Opt::new(512).to_vec(), true)] {
        client.send_bytes(&with_records(&by_udp, [0, 1, has_opt.into()], &[&soa, &opt]));
        let response = client.receive();
        assert_eq!((response.message().answers.len(), response.has_opt()), (1, has_opt));
    }
}

#[test]
fn section_6_1_1_opt_stands_anywhere_among_additional_records() {
    let (server, backend) = start();
    let (opt, other) = (Opt::new(1232).to_vec(), record("key.example", 65_280, b"x").to_vec());
    for listener in ["forwarder", "ts"] {
        let client = Client::of(server.listener(listener));
        for records in [[&opt, &other], [&other, &opt]] {
            client.send_bytes(&with_records(&good(listener), [0, 0, 2], &records.map(Vec::as_slice)));
            let response = client.receive();
            assert_eq!((response.answers(), response.has_opt()), (vec![ADDRESS.to_owned()], true), "{listener}");
        }
    }
    assert!(backend.queries().iter().all(|seen| seen.bytes[11] == 1 && seen.options().is_some()));
}

#[test]
fn section_6_1_2_unknown_options_are_ignored() {
    let (server, _backend) = start();
    for listener in ["forwarder", "ts"] {
        let asked = good(listener).edns(1232).option(65_001, b"x").option(0, b"").option(65_001, &[0; 300]);
        let response = Client::of(server.listener(listener)).ask(&asked);
        assert_eq!((response.answers(), response.options()), (vec![ADDRESS.to_owned()], vec![]), "{listener}");
    }
}

#[test]
fn section_6_1_4_unknown_flags_are_ignored_and_sent_as_zero() {
    let (server, backend) = start();
    // The fixed part of the record: owner, type, size, and then the TTL, whose last octets are the flags.
    const FLAGS: usize = 7;
    for listener in ["forwarder", "ts"] {
        let asked = good(listener).edns(1232);
        let mut message = asked.to_vec();
        let opt_at = 12 + asked.question().len();
        message[opt_at + FLAGS..][..2].copy_from_slice(&[0x7F, 0xFF]);
        let client = Client::of(server.listener(listener));
        client.send_bytes(&message);
        let response = client.receive();
        assert_eq!(response.answers(), [ADDRESS], "{listener}");
        let opt_of_response = response.bytes.len() - 11;
        assert_eq!(response.bytes[opt_of_response + FLAGS..][..2], [0; 2], "{listener}");
    }
    let seen = &backend.queries()[0].bytes;
    assert_eq!(seen[seen.len() - 11 + FLAGS..][..2], [0; 2], "the query of the forwarder");
}

#[test]
fn section_7_an_error_in_opt_is_answered_with_opt() {
    let (server, _backend) = start();
    let opt = |data: &[u8]| record(".", OPT, data).to_vec();
    for listener in ["forwarder", "ts"] {
        let client = Client::of(server.listener(listener));
        for records in [
            // An option without a length, one that overruns, a cookie of an odd length.
            vec![opt(&[0, 10, 0])],
            vec![opt(&[0, 10, 0, 9, 1])],
            vec![opt(&[0, 10, 0, 1, 1])],
            vec![opt(&[]), opt(&[])],
        ] {
            let count = records.len() as u16;
            client.send_bytes(&with_records(&good(listener), [0, 0, count], &[&records.concat()]));
            let response = client.receive();
            assert_eq!((response.rcode(), response.has_opt()), (FORMERR, true), "{listener} {records:?}");
            assert_eq!(response.bytes[6..12], [0, 0, 0, 0, 0, 1], "header, question, OPT record");
        }
    }
}
