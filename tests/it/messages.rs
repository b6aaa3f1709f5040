//! What comes in, what goes out (docs/src/contract.md, Messages), for the forwarder and for authorities:
//! drops, errors, OPT, sizes, and that nothing is changed but what must be.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A forwarder whose backend answers everything, and an authority that knows `www.example.org`.
struct Both {
    backend: Backend,
    server: Server,
}

impl Both {
    fn start() -> Self {
        let backend = Backend::new(answer(ADDRESS));
        let config = Forwarder::to(&[&backend], "timeout = '20s'").to_toml()
            + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\n";
        let hosts = [("hosts.txt", "www.example.org 192.0.2.1 A\n")];
        Self { server: Server::start_with_files(&config, &hosts), backend }
    }

    /// A client of the forwarder, and one of the authority.
    fn clients(&self) -> [(&'static str, Client); 2] {
        ["forwarder", "ts"].map(|name| (name, Client::of(self.server.listener(name))))
    }

    /// The same over TCP.
    fn tcp_clients(&self) -> [(&'static str, TcpClient); 2] {
        ["forwarder", "ts"].map(|name| (name, TcpClient::of(self.server.listener(name))))
    }
}

/// The query that is put in disorder below.
fn sound() -> Query {
    query("www.example.org", A)
}

#[test]
fn short_messages_and_responses_are_dropped() {
    let both = Both::start();
    for (server, client) in both.clients() {
        let message = sound().to_vec();
        for length in [0, 1, 11] {
            client.send_bytes(&message[..length]);
        }
        client.send(&sound().flags(QR | RD));
        client.send(&sound().flags(QR | FORMERR));
        client.send(&sound().flags(QR | 4 << 11));
        assert_eq!(client.receive_only(&sound()).answers(), [ADDRESS], "{server}");
    }
    assert_eq!(both.backend.queries().len(), 1);
}

#[test]
fn responses_over_tcp_are_dropped() {
    for (server, mut client) in Both::start().tcp_clients() {
        client.send(&[sound().flags(QR)]);
        assert_eq!(client.ask(&sound()).answers(), [ADDRESS], "{server}");
    }
}

#[test]
fn opcodes_other_than_query_are_not_implemented() {
    let both = Both::start();
    for (server, client) in both.clients() {
        for opcode in 1..16 {
            let response = client.ask(&sound().flags(RD | AD | CD).opcode(opcode));
            // A primary's NOTIFY means something to an authority, but this one has no such zone.
            let expected = if (server, opcode) == ("ts", 4) { REFUSED } else { NOTIMP };
            assert_eq!(response.rcode(), expected, "{server}, opcode {opcode}");
            assert_eq!(response.opcode(), opcode, "{server}");
            // As in BIND: flags are cleared, because their meaning is not known for an unknown opcode.
            let flags = [AA, TC, RD, RA, AD, CD].into_iter().filter(|flag| response.has(*flag)).count();
            assert!(response.has(QR) && flags == 0, "{server}, opcode {opcode}: {response:?}");
        }
    }
    assert_eq!(both.backend.queries().len(), 0);
}

/// Messages that are no proper query, and what is wrong with them.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let message = sound().to_vec();
    let question = sound().question();
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut message = message.clone();
        edit(&mut message);
        message
    };
    let with_question = |question: &[u8]| [header(0x77, RD, [1, 0, 0, 0]), question.to_vec()].concat();
    let with_records = |counts: [u16; 3], records: &[Vec<u8>]| {
        let [answers, authorities, additionals] = counts;
        let header = header(0x77, RD, [1, answers, authorities, additionals]);
        [header, question.clone(), records.concat()].concat()
    };
    let opt = Opt::new(1232).to_vec();
    let opt_with = |data: &[u8]| record(".", OPT, data).to_vec();
    let too_long = [b'a'; 64];
    let labels = "a.".repeat(128);
    vec![
        ("no question", edited(&|m| m[5] = 0)),
        ("nothing but a header", header(0x77, RD, [0; 4])),
        ("nothing but a header that promises a question", header(0x77, RD, [1, 0, 0, 0])),
        (
            "two questions",
            edited(&|m| {
                m[5] = 2;
                m.extend_from_slice(&question);
            }),
        ),
        ("65535 questions", edited(&|m| m[4..6].fill(0xff))),
        ("a name without an end", with_question(b"\x03www")),
        ("a question without a class", with_question(&[0, 0, 1])),
        ("a label of 64 octets", with_question(&[&[64], &too_long[..], &[0, 0, 1, 0, 1]].concat())),
        ("a name of 257 octets", with_question(&[wire_name(&labels), vec![0, 1, 0, 1]].concat())),
        ("a pointer to itself", with_question(&[0xc0, 12, 0, 1, 0, 1])),
        ("a pointer into the header", with_question(&[0xc0, 2, 0, 1, 0, 1])),
        ("a label of unknown kind", with_question(&[0x80, 1, 0, 0, 1, 0, 1])),
        ("an answer that is not there", edited(&|m| m[7] = 1)),
        ("an authority that is not there", edited(&|m| m[9] = 1)),
        ("an additional record that is not there", edited(&|m| m[11] = 1)),
        ("65535 records that are not there", edited(&|m| m[6..12].fill(0xff))),
        ("an octet too many", edited(&|m| m.push(0))),
        ("an OPT that is not counted", edited(&|m| m.extend_from_slice(&opt))),
        ("half an OPT", with_records([0, 0, 1], &[opt[..5].to_vec()])),
        ("two OPT", with_records([0, 0, 2], &[opt.clone(), opt.clone()])),
        ("an OPT owned by a name", with_records([0, 0, 1], &[record("org", OPT, &[]).to_vec()])),
        ("an OPT as an answer", with_records([1, 0, 0], std::slice::from_ref(&opt))),
        ("an OPT as an authority", with_records([0, 1, 0], std::slice::from_ref(&opt))),
        ("an option without a length", with_records([0, 0, 1], &[opt_with(&[0, 10, 0])])),
        ("an option that overruns", with_records([0, 0, 1], &[opt_with(&[0, 10, 0, 9, 1])])),
        ("RDATA that overruns", with_records([0, 0, 1], &[opt_with(&[0; 4])[..12].to_vec()])),
    ]
}

#[test]
fn malformed_queries_get_formerr_and_are_never_relayed() {
    let both = Both::start();
    for (server, client) in both.clients() {
        for (what, message) in malformed() {
            client.send_bytes(&message);
            let response = client.receive();
            assert_eq!(response.bytes[..2], message[..2], "{what} to {server}");
            assert!(response.has(QR) && !response.has(AA), "{what} to {server}");
            assert_eq!(response.rcode(), FORMERR, "{what} to {server}");
        }
    }
    for (server, mut client) in both.tcp_clients() {
        for (what, message) in malformed() {
            client.send_bytes(&[&(message.len() as u16).to_be_bytes(), &message[..]].concat());
            assert_eq!(client.receive().rcode(), FORMERR, "{what} to {server} over TCP");
        }
    }
    assert_eq!(both.backend.queries().len(), 0);
}

#[test]
fn edns_versions_to_come_are_told_ours() {
    let both = Both::start();
    for (server, client) in both.clients() {
        for version in [1, 255] {
            let response = client.ask(&sound().edns(1232).version(version));
            assert_eq!(response.rcode(), BADVERS, "{server}");
            let edns = response.message().edns.expect("BADVERS is said in an OPT record");
            assert_eq!(edns.version(), 0);
            assert_eq!(response.answers(), [""; 0]);
        }
    }
    assert_eq!(both.backend.queries().len(), 0);
}

#[test]
fn opt_comes_back_only_to_those_who_sent_one() {
    let both = Both::start();
    for (server, client) in both.clients() {
        assert!(!client.ask(&sound()).has_opt(), "{server}");
        for dnssec_ok in [false, true] {
            let question = sound().edns(4096);
            let question = if dnssec_ok { question.dnssec_ok() } else { question };
            let edns = client.ask(&question).message().edns.expect("OPT in, OPT out");
            assert_eq!(edns.max_payload(), 1232, "{server}: its own size");
            // RFC 3225 section 3: DO is copied.
            assert_eq!(edns.flags().dnssec_ok, dnssec_ok, "{server}");
        }
    }
    let opts: Vec<_> = both.backend.queries().iter().map(|seen| seen.options().is_some()).collect();
    // Each query to a backend has one, so that extended errors arrive.
    assert_eq!(opts, [true, true, true]);
}

#[test]
fn backend_is_asked_with_an_opt_of_our_own() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").keys("edns_udp_size = 1400").start();
    server.client().ask(&sound().edns(4096).dnssec_ok());
    let message = hickory_proto::op::Message::from_vec(&backend.queries()[0].bytes).expect("sound");
    let edns = message.edns.expect("the client's query had one");
    assert_eq!(edns.max_payload(), 1400);
    assert!(edns.flags().dnssec_ok);
}

#[test]
fn options_that_concern_one_hop_do_not_pass() {
    let (known, unknown, nsid) = (b"\x01\x02\x03\x04\x05\x06\x07\x08", 65_001, 3);
    let backend = Backend::new(reply(move |reply| {
        reply
            .answer(a(ADDRESS))
            .option(COOKIE, &[known.as_slice(), known].concat())
            .option(unknown, b"reply")
            .option(KEEPALIVE, &[0, 1])
            .option(EXTENDED_ERROR, &[0, 3, b'o', b'l', b'd'])
            .option(PADDING, &[0; 9])
            .option(CLIENT_SUBNET, &[0, 1, 24, 24, 192, 0, 2])
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let question = sound()
        .edns(1232)
        .option(COOKIE, known)
        .option(nsid, &[])
        .option(KEEPALIVE, &[])
        .option(PADDING, &[0; 3])
        .option(CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2])
        .option(unknown, b"query");
    let response = server.client().ask(&question);
    // The cookie is our own, and has nothing of the backend's.
    let given = response.cookie().expect("the query had one");
    assert!(given.starts_with(known) && given.len() == 24 && !given.ends_with(known), "{given:?}");
    let expected = [(COOKIE, given), (unknown, b"reply".to_vec()), (EXTENDED_ERROR, b"\0\x03old".to_vec())];
    assert_eq!(response.options(), expected);
    assert_eq!(backend.queries()[0].options(), Some(vec![(nsid, Vec::new()), (unknown, b"query".to_vec())]));
}

#[test]
fn reply_passes_octet_for_octet() {
    // Compressed, uncompressed, unknown, empty; in all three sections.
    let backend = Backend::new(reply(|reply| {
        reply
            .with_flags(AA | RA)
            .answer(record("@", 65_280, b"\xc0\x0c as it is"))
            .answer(record("Other.Example.ORG", A, &ipv4(ADDRESS)))
            .authority(record("example.org", NS, &wire_name("ns.example.org")))
            .additional(record("ns.example.org", 10, &[]))
    }));
    let server = Forwarder::to(&[&backend], "").start();
    for question in [sound(), query("www.example.org", 65_280), query("WWW.example.org", ANY)] {
        let response = server.client().ask(&question);
        let seen = backend.queries();
        let seen = seen.last().expect("the question was asked");
        let mut reported = reply_to(&seen.bytes)
            .without_opt()
            .with_flags(AA | RA)
            .answer(record("@", 65_280, b"\xc0\x0c as it is"))
            .answer(record("Other.Example.ORG", A, &ipv4(ADDRESS)))
            .authority(record("example.org", NS, &wire_name("ns.example.org")))
            .additional(record("ns.example.org", 10, &[]))
            .to_vec();
        reported[..2].copy_from_slice(&question.id.to_be_bytes());
        reported[12..12 + question.question().len()].copy_from_slice(&question.question());
        assert_eq!(response.bytes, reported);
    }
}

#[test]
fn opt_amid_the_additional_records_is_replaced_and_the_rest_stays() {
    let backend = Backend::new(reply(|reply| {
        reply
            .without_opt()
            .answer(a(ADDRESS))
            .additional(record(".", OPT, &[0xfd, 0xe9, 0, 1, 7]))
            .additional(record("first.example.org", A, &ipv4("192.0.2.8")))
            .additional(record("last.example.org", A, &ipv4("192.0.2.9")))
    }));
    let server = Forwarder::to(&[&backend], "").start();
    for question in [sound(), sound().edns(1232)] {
        let response = server.client().ask(&question);
        let additionals = response.message().additionals;
        let names: Vec<_> = additionals.iter().map(|record| record.name.to_string()).collect();
        assert_eq!(names, ["first.example.org.", "last.example.org."]);
        assert_eq!(response.has_opt(), question.to_vec().len() > sound().to_vec().len());
    }
}

#[test]
fn flags_pass_in_both_directions() {
    let backend = Backend::new(Script::new(|seen| {
        // The first label says which flags the reply has, in hexadecimal.
        let flags = u16::from_str_radix(seen.name().split('.').next()?, 16).ok()?;
        let mut reply = reply_to(&seen.bytes).answer(a(ADDRESS)).to_vec();
        reply[2..4].copy_from_slice(&(QR | flags).to_be_bytes());
        Some(reply)
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let client = server.client();
    for flags in [0, AA, RA, AD, RD, CD, AA | RA | AD | RD | CD] {
        let response = client.ask(&query(&format!("{flags:04x}.example"), A));
        for (name, flag) in [("AA", AA), ("RA", RA), ("AD", AD)] {
            assert_eq!(response.has(flag), flags & flag != 0, "{name} of {flags:04x}");
        }
        assert!(response.has(QR) && !response.has(TC));
    }
    for flags in [0, RD, AD, CD, RD | AD | CD] {
        let name = format!("0000.{flags:04x}.example");
        client.ask(&query(&name, A).flags(flags));
        assert_eq!(backend.queries_for(&name)[0].flags(), flags);
    }
}

#[test]
fn question_comes_back_in_the_case_of_the_client() {
    let both = Both::start();
    for (server, client) in both.clients() {
        for name in ["WWW.EXAMPLE.ORG", "wWw.eXaMpLe.OrG", "www.example.org"] {
            let question = query(name, A);
            let response = client.ask(&question);
            assert_eq!(response.question(), question.question(), "{server}");
            assert_eq!(response.answers(), [ADDRESS], "{server}");
        }
    }
}

#[test]
fn backend_that_folds_case_is_no_trouble() {
    let backend = Backend::new(answer(ADDRESS).edited(|reply| reply[12..29].make_ascii_lowercase()));
    let server = Forwarder::to(&[&backend], "").start();
    let question = query("wWw.eXaMpLe.OrG", A);
    let response = server.client().ask(&question);
    assert_eq!(response.question(), question.question());
    // The owner name of the answer points to the question, and so is in its case too.
    assert_eq!(response.message().answers[0].name.to_ascii(), "wWw.eXaMpLe.OrG.");
}

#[test]
fn classes_other_than_in_pass_the_forwarder_and_are_refused_by_an_authority() {
    let both = Both::start();
    let [(_, forwarder), (_, authority)] = both.clients();
    for class in [CH, 4, 255, 65_280] {
        let question = sound().class(class);
        let response = forwarder.ask(&question);
        assert_eq!(response.rcode(), NOERROR, "class {class}");
        assert_eq!(response.question(), question.question());
        assert_eq!(authority.ask(&question).rcode(), REFUSED, "class {class}");
    }
    assert_eq!(both.backend.queries().len(), 4);
}

#[test]
fn transfers_are_refused() {
    let both = Both::start();
    for rtype in [AXFR, IXFR] {
        for (server, client) in both.clients() {
            let response = client.ask(&query("example.org", rtype));
            assert_eq!(response.rcode(), REFUSED, "{server}, type {rtype}");
        }
        for (server, mut client) in both.tcp_clients() {
            let response = client.ask(&query("example.org", rtype).edns(1232));
            assert_eq!(response.rcode(), REFUSED, "{server}, type {rtype} over TCP");
            assert!(response.has_opt());
        }
    }
    assert_eq!(both.backend.queries().len(), 0);
}

#[test]
fn name_that_no_route_covers_is_refused() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::new().pool("org", "example.org", &[&backend], "").start();
    let client = server.client();
    for name in ["org", "example.com", "badexample.org", "."] {
        let question = query(name, A).edns(1232);
        let response = client.ask(&question);
        assert_eq!(response.rcode(), REFUSED, "{name}");
        assert_eq!(response.question(), question.question());
        assert!(response.has_opt());
    }
    assert_eq!(client.ask(&query("www.EXAMPLE.org", A)).answers(), [ADDRESS]);
    assert_eq!(backend.queries().len(), 1);
}

#[test]
fn rcodes_of_the_backend_pass() {
    let backend = Backend::new(Script::new(|seen| {
        let rcode = seen.name().split('.').next()?.parse().ok()?;
        Some(reply_to(&seen.bytes).rcode(rcode).to_vec())
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let client = server.client();
    // YXDOMAIN to NOTZONE, and some unassigned ones.
    for rcode in [SERVFAIL, NXDOMAIN, REFUSED, 6, 9, 11, 15] {
        let response = client.ask(&query(&format!("{rcode}.example"), A));
        assert_eq!(response.rcode(), rcode);
    }
}

#[test]
fn extended_rcode_passes_to_those_who_can_read_it() {
    /// RFC 7873 section 8: an rcode whose upper bits stand in the OPT record, here the last six octets of it.
    const BADCOOKIE: u16 = 23;
    let badcookie = reply(|reply| reply.rcode(BADCOOKIE & 0xf)).edited(|reply| {
        let upper_bits = reply.len() - 6;
        reply[upper_bits] = (BADCOOKIE >> 4) as u8;
    });
    let backend = Backend::new(badcookie.held().except("fence", answer(ADDRESS)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    // Both in one race, so that the one without EDNS meets a reply that has OPT.
    let clients = [(server.client(), sound().edns(1232)), (server.client(), sound())];
    for (number, (client, question)) in clients.iter().enumerate() {
        client.send(question);
        client.ask(&query(&format!("fence.{number}.example"), A));
    }
    backend.release();
    let [with, without] = clients.each_ref().map(|(client, _)| client.receive());
    assert_eq!(with.rcode(), BADCOOKIE);
    assert_eq!((without.rcode(), without.has_opt()), (SERVFAIL, false));
}

#[test]
fn response_over_udp_is_cut_to_the_size_that_the_client_takes() {
    // RFC 6891 section 6.2.3: less than 512 counts as 512. More than `edns_udp_size` (1232) is cut
    // all the same.
    let offers = [(None, 512), (Some(100), 512), (Some(512), 512), (Some(1000), 1000), (Some(4096), 1232)];
    let backend = Backend::new(Script::new(|seen| {
        let length = seen.name().split('.').next()?.parse().ok()?;
        Some(reply_to(&seen.bytes).with_flags(AA).answer(txt(length)).to_vec())
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let client = server.client();
    for (offer, limit) in offers {
        for length in [300, 480, 520, 900, 1020, 1150, 1300] {
            let name = format!("{length}.{limit}.example");
            let question = match offer {
                Some(size) => query(&name, TXT).edns(size),
                None => query(&name, TXT),
            };
            let response = client.ask(&question);
            let whole = reply_to(&question.to_vec()).answer(txt(length)).to_vec().len();
            assert_eq!(response.has(TC), whole > limit, "{whole} octets in {limit}");
            assert!(response.bytes.len() <= limit, "{whole} octets in {limit}");
            assert_eq!(response.answers().is_empty(), response.has(TC));
            assert_eq!(response.has_opt(), offer.is_some(), "it stays when the rest goes");
            assert_eq!(response.question(), question.question());
        }
    }
}

#[test]
fn optional_additional_records_are_left_out_without_a_word() {
    let text = |owner| record(owner, TXT, &[&[150], [b'x'; 150].as_slice()].concat());
    let backend = Backend::new(reply(move |reply| {
        let reply = reply.with_flags(AA).answer(a(ADDRESS)).additional(text("one.example"));
        reply.additional(text("two.example")).additional(text("two.example"))
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let additionals = |question: &Query| {
        let response = server.client().ask(question);
        assert!(!response.has(TC));
        assert_eq!(response.answers(), [ADDRESS]);
        response.message().additionals.len()
    };
    // One more would fit, but not the RRset that it is of (RFC 2181 section 9).
    assert_eq!(additionals(&sound()), 1);
    assert_eq!(additionals(&sound().edns(512)), 1);
    assert_eq!(additionals(&sound().edns(1232)), 3);
}

#[test]
fn glue_of_a_referral_is_not_optional() {
    let backend = Backend::new(reply(|reply| {
        (0..20).fold(reply, |reply, i| {
            let host = format!("ns{i}.example.org");
            reply.authority(record("example.org", NS, &wire_name(&host))).additional(record(&host, A, &ipv4(ADDRESS)))
        })
    }));
    let server = Forwarder::to(&[&backend], "").start();
    let response = server.client().ask(&sound().edns(1000));
    assert!(response.has(TC) && response.bytes.len() <= 1000);
}

#[test]
fn synthesized_and_error_responses_echo_the_question() {
    let backend = Backend::new(silent());
    let server = Forwarder::to(&[&backend], "timeout = '50ms'\non_timeout = 'servfail'").start();
    let question = query("WwW.Example.Org", 65_280).class(CH).flags(RD | CD).dnssec_ok();
    let response = server.client().ask(&question);
    assert_eq!(response.question(), question.question());
    assert!(response.has(RD) && response.has(CD) && response.has(RA) && !response.has(AD));
    assert!(response.message().edns.expect("OPT in, OPT out").flags().dnssec_ok);
}

#[test]
fn records_beside_the_question_of_a_query_do_not_trouble() {
    // As a signed query has them (TSIG, SIG(0)). They concern this hop and are not relayed.
    let both = Both::start();
    let beside = record("key.example", 65_280, b"signature").to_vec();
    for (server, client) in both.clients() {
        let mut message = sound().to_vec();
        message[11] = 1;
        message.extend_from_slice(&beside);
        client.send_bytes(&message);
        assert_eq!(client.receive().answers(), [ADDRESS], "{server}");
    }
    assert!(!both.backend.queries()[0].bytes.ends_with(&beside));
}
