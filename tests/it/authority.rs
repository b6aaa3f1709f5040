//! Authorities: what the tables of a TS say, and what it says of names that are not in them.

use testkit::*;

const HOSTS: &str = "\
# Hosts of two lines have two addresses; case is no matter.
www.example.org   192.0.2.1 A
WWW.Example.ORG   192.0.2.2 A
www.example.org   2001:db8::1 AAAA
\tfour.example.org\t192.0.2.4\tA   # an IPv4-only host
a.b.deep.example.org 192.0.2.5 A

six.example.org 2001:db8::6 aaaa";

/// An authority `ts` that serves `tables`.
fn authority(miss: &str, tables: &[(&str, &str)]) -> Server {
    let zones: Vec<_> = tables.iter().map(|(name, _)| *name).collect();
    let config = format!("[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = {zones:?}\nmiss = '{miss}'\nttl = '77s'");
    Server::start_with_files(&config, tables)
}

/// A client of the authority `ts`.
fn client(server: &Server) -> Client {
    Client::of(server.listener("ts"))
}

#[test]
fn host_of_a_table_is_answered_with_all_its_addresses() {
    let server = authority("silent", &[("hosts.txt", HOSTS)]);
    let client = client(&server);
    let cases: [(&str, u16, &[&str]); 7] = [
        ("www.example.org", A, &["192.0.2.1", "192.0.2.2"]),
        ("wWw.eXaMpLe.oRg", A, &["192.0.2.1", "192.0.2.2"]),
        ("www.example.org", AAAA, &["2001:db8::1"]),
        ("four.example.org", A, &["192.0.2.4"]),
        ("FOUR.example.org", A, &["192.0.2.4"]),
        ("six.example.org", AAAA, &["2001:db8::6"]),
        ("a.b.deep.example.org", A, &["192.0.2.5"]),
    ];
    for (name, rtype, addresses) in cases {
        let question = query(name, rtype);
        let response = client.ask(&question);
        assert_eq!(response.rcode(), NOERROR, "{name}");
        assert_eq!(response.answers(), addresses, "{name}");
        assert_eq!(response.question(), question.question());
        assert!(response.has(AA) && response.has(RD) && !response.has(RA) && !response.has(AD));
        assert!(response.message().answers.iter().all(|record| record.ttl == 77));
    }
}

#[test]
fn other_type_of_a_known_host_is_nodata_never_silence() {
    for miss in ["silent", "nxdomain", "refused"] {
        let server = authority(miss, &[("hosts.txt", HOSTS)]);
        let client = client(&server);
        for (name, rtype) in [
            ("four.example.org", AAAA),
            ("six.example.org", A),
            ("www.example.org", TXT),
            ("www.example.org", NS),
            ("www.example.org", 65_280),
        ] {
            let response = client.ask(&query(name, rtype));
            assert_eq!((response.rcode(), response.answers().len()), (NOERROR, 0), "{name}");
            assert!(response.has(AA), "{name}");
        }
    }
}

#[test]
fn any_of_a_known_host_is_answered() {
    let server = authority("silent", &[("hosts.txt", HOSTS)]);
    let response = client(&server).ask(&query("four.example.org", ANY));
    assert_eq!(response.answers(), ["192.0.2.4"]);
}

#[test]
fn missing_name_is_answered_as_miss_says() {
    let missing = ["missing.example.org", "x.www.example.org", "example.com", "com"];
    for (miss, rcode) in [("nxdomain", NXDOMAIN), ("refused", REFUSED)] {
        let server = authority(miss, &[("hosts.txt", HOSTS)]);
        for name in missing {
            let response = client(&server).ask(&query(name, A).edns(1232));
            assert_eq!(response.rcode(), rcode, "{name} under {miss}");
            assert!(response.answers().is_empty() && response.has_opt());
        }
    }
    let server = authority("silent", &[("hosts.txt", HOSTS)]);
    let client = client(&server);
    for name in missing.into_iter().chain(["example.org", "deep.example.org"]) {
        client.send(&query(name, A));
    }
    // Had one of them an answer, it would come first.
    let fence = client.receive_only(&query("four.example.org", A));
    assert_eq!(fence.answers(), ["192.0.2.4"]);
}

#[test]
fn name_above_a_host_does_not_exist_only_as_far_as_a_table_can_tell() {
    // RFC 8020: NXDOMAIN would deny the hosts below.
    for (miss, rcode) in [("nxdomain", NOERROR), ("refused", REFUSED)] {
        let server = authority(miss, &[("hosts.txt", HOSTS)]);
        for name in ["example.org", "org", "deep.example.org", "B.deep.example.org"] {
            let response = client(&server).ask(&query(name, A));
            assert_eq!((response.rcode(), response.answers().len()), (rcode, 0), "{name}");
            assert!(!response.has(AA), "{name}");
        }
    }
}

#[test]
fn root_ns_is_always_answered() {
    for miss in ["silent", "nxdomain", "refused"] {
        let server = authority(miss, &[("hosts.txt", HOSTS)]);
        let response = client(&server).ask(&query(".", NS));
        assert_eq!(response.rcode(), REFUSED, "{miss}");
    }
}

#[test]
fn ns_line_refers_what_is_missing() {
    let tables = [
        ("hosts.txt", HOSTS),
        ("root.txt", "ns.example.net - NS\nns.example.net 192.0.2.53 A\nfar.example.net - NS\n"),
    ];
    for miss in ["silent", "nxdomain", "refused"] {
        let server = authority(miss, &tables);
        let client = client(&server);
        for name in ["missing.example.org", "example.org", "."] {
            let response = client.ask(&query(name, if name == "." { NS } else { A }));
            let message = response.message();
            assert_eq!((response.rcode(), response.has(AA)), (NOERROR, false), "{name}");
            assert!(message.answers.is_empty());
            let mut hosts: Vec<_> = message.authorities.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
            hosts.sort();
            assert_eq!(hosts, [". far.example.net.", ". ns.example.net."], "{name}");
            let glue: Vec<_> = message.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
            assert_eq!(glue, ["ns.example.net. 192.0.2.53"], "{name}");
        }
        assert_eq!(client.ask(&query("four.example.org", A)).answers(), ["192.0.2.4"]);
        assert_eq!(client.ask(&query("ns.example.net", A)).answers(), ["192.0.2.53"]);
    }
}

#[test]
fn tables_of_one_authority_are_one_set() {
    let more = "more.example.org 192.0.2.9 A\r\nWWW.example.org 192.0.2.3 A";
    let server = authority("nxdomain", &[("hosts.txt", HOSTS), ("more.txt", more)]);
    let client = client(&server);
    assert_eq!(client.ask(&query("more.example.org", A)).answers(), ["192.0.2.9"]);
    assert_eq!(client.ask(&query("www.example.org", A)).answers(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

#[test]
fn answer_too_large_for_udp_is_whole_over_tcp() {
    let hosts: String = (1..=60).map(|i| format!("many.example.org 192.0.2.{i} A\n")).collect();
    let server = authority("silent", &[("hosts.txt", &hosts)]);
    let question = query("many.example.org", A);
    let cut = client(&server).ask(&question);
    assert!(cut.has(TC) && cut.bytes.len() <= 512);
    // RFC 2181 section 9: no RRset in part.
    assert!(cut.answers().is_empty());
    assert!(!client(&server).ask(&question.clone().edns(1232)).has(TC));
    let whole = TcpClient::of(server.listener("ts")).ask(&question);
    assert_eq!((whole.has(TC), whole.answers().len()), (false, 60));
}

#[test]
fn two_authorities_in_one_process_know_nothing_of_each_other() {
    let config = "[authorities.one]\nlisten = ['127.0.0.1:0']\nzones = ['one.txt']\nmiss = 'refused'\n\
                  [authorities.two]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'two.txt' }]\n\
                  miss = 'nxdomain'\n";
    let files = [("one.txt", "one.example 192.0.2.1 A"), ("two.txt", "two.example 192.0.2.2 A")];
    let server = Server::start_with_files(config, &files);
    let ask = |listener, name| Client::of(server.listener(listener)).ask(&query(name, A));
    assert_eq!(ask("one", "one.example").answers(), ["192.0.2.1"]);
    assert_eq!(ask("two", "two.example").answers(), ["192.0.2.2"]);
    assert_eq!(ask("one", "two.example").rcode(), REFUSED);
    assert_eq!(ask("two", "one.example").rcode(), NXDOMAIN);
}

#[test]
fn forwarder_finds_each_name_at_the_authority_that_has_it() {
    // Tables that split the names, silent on what they miss: what hedgerow is for.
    let config = |name: &str| format!("[authorities.{name}]\nlisten = ['127.0.0.1:0']\nzones = ['{name}.txt']\n");
    let authorities = Server::start_with_files(
        &(config("one") + &config("two")),
        &[("one.txt", "one.example 192.0.2.1 A"), ("two.txt", "two.example 192.0.2.2 A")],
    );
    let (one, two) = (authorities.listener("one"), authorities.listener("two"));
    for dispatch in ["race", "hedge", "sequential"] {
        let keys = format!("dispatch = '{dispatch}'\ntimeout = '300ms'\nattempt_timeout = '50ms'");
        let server = Forwarder::to(&[&one, &two], &keys).start();
        let client = server.client();
        assert_eq!(client.ask(&query("One.example", A)).answers(), ["192.0.2.1"]);
        assert_eq!(client.ask(&query("two.example", A)).answers(), ["192.0.2.2"]);
        let nodata = client.ask(&query("two.example", AAAA));
        assert_eq!((nodata.rcode(), nodata.has(AA)), (NOERROR, true));
        let missing = client.ask(&query("three.example", A).edns(1232));
        assert_eq!(missing.rcode(), NXDOMAIN);
        assert_eq!(missing.extended_error(), Some(SYNTHESIZED));
    }
}
