//! What a client can achieve by EDNS options: many of them, several of one code, and OPT records in odd
//! forms.

use super::*;

/// RFC 5001 section 2.3.
const NSID: u16 = 3;

#[test]
fn thousands_of_options_cost_little_time() {
    // CVE-2026-41292 (Unbound): a list of options for each query, with a structure for each option.
    let backend = Backend::new(answer(TRUE));
    let server = both(&backend, "");
    let many = (0..15_000).fold(query("www.example.org", A), |query, i| query.option(65_001 + i % 500, b""));
    let message = framed(&many.to_vec());
    let before = cpu_time(&server);
    for listener in ["forwarder", "ts"] {
        let mut client = TcpClient::of(server.listener(listener));
        for _ in 0..100 {
            client.send_bytes(&message);
            let response = client.receive();
            assert!([NOERROR, FORMERR].contains(&response.rcode()), "{response:?}");
            assert!(response.options().len() < 10, "{response:?}");
        }
    }
    let spent = cpu_time(&server) - before;
    // 3 million options in all. An unoptimized build needs 2 s; a list that is searched for each takes
    // minutes.
    assert!(spent < Duration::from_secs(10), "{spent:?}");
    assert_served(&server);
}

#[test]
fn several_options_of_one_code_have_one_in_the_response() {
    // CVE-2026-42944 (Unbound): the size of several NSID, COOKIE and PADDING options overflowed in the
    // response.
    let backend = Backend::new(answer(TRUE));
    let server = both(&backend, "");
    for count in [2, 20, 200, 1500] {
        let asked = (0..count).fold(query("www.example.org", A).edns(4096), |query, _| {
            query.option(NSID, b"").option(COOKIE, b"01234567").option(PADDING, &[0; 8])
        });
        for listener in ["forwarder", "ts"] {
            let address = server.listener(listener);
            let mut responses = vec![TcpClient::of(address).ask(&asked)];
            if asked.to_vec().len() < 60_000 {
                responses.push(Client::of(address).ask(&asked));
            }
            for response in responses {
                assert!([NOERROR, FORMERR].contains(&response.rcode()), "{response:?}");
                assert!(response.bytes.len() < 1232, "{response:?}");
                let codes: Vec<u16> = response.options().iter().map(|(code, _)| *code).collect();
                let count_of = |wanted: u16| codes.iter().filter(|code| **code == wanted).count();
                assert!([NSID, COOKIE, PADDING].iter().all(|code| count_of(*code) <= 1), "{codes:?}");
            }
        }
    }
    assert_served(&server);
}

/// The address in the client subnet option that is smuggled.
const SUBNET: [u8; 4] = [198, 51, 100, 77];

/// An OPT record with a client subnet option of 32 bits.
fn smuggled() -> Vec<u8> {
    let data = [&[0, 1, 32, 0][..], &SUBNET].concat();
    let query = query(".", A).option(CLIENT_SUBNET, &data).to_vec();
    query[12 + 5..].to_vec()
}

#[test]
fn an_opt_record_in_an_odd_form_reaches_no_backend() {
    // CVE-2026-42004 (dnsdist): filters overlooked an OPT record that became valid when an option was
    // inserted.
    let backend = Backend::new(answer(TRUE));
    let opt = smuggled();
    let question = query("www.example.org", A).question();
    let plain = query(".", A).edns(1232).to_vec()[12 + 5..].to_vec();
    let named = [&[1, b'x'][..], &opt].concat();
    let at_pointer = [&[0xC0, 12 + 16][..], &opt[1..]].concat();
    let forms: [(&str, [u16; 4], Vec<u8>); 9] = [
        ("in the answer section", [1, 1, 0, 0], opt.clone()),
        ("in the authority section", [1, 0, 1, 0], opt.clone()),
        ("twice", [1, 0, 0, 2], opt.repeat(2)),
        ("behind a plain one", [1, 0, 0, 2], [&plain[..], &opt].concat()),
        ("before a plain one", [1, 0, 0, 2], [&opt[..], &plain].concat()),
        ("with a name", [1, 0, 0, 1], named),
        ("with a pointer to the root", [1, 0, 0, 1], at_pointer),
        ("that is not counted", [1, 0, 0, 0], opt.clone()),
        ("behind a plain one, not counted", [1, 0, 0, 1], [&plain[..], &opt].concat()),
    ];
    for keys in ["", "client_subnet = { ipv4 = 24, ipv6 = 56 }"] {
        let server = both(&backend, keys);
        for (id, (what, counts, records)) in (1..).zip(&forms) {
            let message = [header(id, RD, *counts), question.clone(), records.clone()].concat();
            let client = server.client();
            client.send_bytes(&message);
            let fence = server.client().ask(&query("fence.example", A));
            assert_eq!(fence.answers(), [TRUE], "{what}");
            let mut stream = server.tcp_client();
            stream.try_send_bytes(&framed(&message));
            assert_served(&server);
            for seen in backend.queries() {
                assert!(!seen.bytes.windows(4).any(|four| four == SUBNET), "{what}: {seen:?}");
            }
        }
    }
}
