//! RFC 7873, DNS cookies, as clients of the LS and of the TS meet them: which options are legal, what they
//! get, and that every kind of response has it.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A client's own cookie.
const CLIENT: &[u8; 8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// Hosts that `ts` has.
const HOSTS: (&str, &str) = ("hosts.txt", "www.example.org 192.0.2.1 A\n");

/// A config with a forwarder to one backend and with an authority, both with these keys.
fn config(backend: &Backend, keys: &str) -> String {
    let forwarder = Forwarder::to(&[backend], "on_timeout = 'servfail'").keys(keys).admin();
    let ts = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\nnsid = 'ts1'\n";
    format!("{}{ts}{keys}\n", forwarder.to_toml())
}

/// A server with both, and its backend.
fn start(keys: &str) -> (Server, Backend) {
    let backend = Backend::new(answer(ADDRESS));
    (Server::start_with_files(&config(&backend, keys), &[HOSTS]), backend)
}

/// A query with a COOKIE option.
fn asking(cookie: &[u8]) -> Query {
    query("www.example.org", A).edns(1232).option(COOKIE, cookie)
}

/// Asks by UDP and by TCP.
fn ask_both(server: &Server, listener: &str, query: &Query) -> [Response; 2] {
    let address = server.listener(listener);
    [Client::of(address).ask(query), TcpClient::of(address).ask(query)]
}

/// RFC 7873 section 5.2.1: without a cookie nothing is different.
#[test]
fn no_cookie_in_no_cookie_out() {
    let (server, _backend) = start("");
    for listener in ["forwarder", "ts"] {
        for query in [query("www.example.org", A), query("www.example.org", A).edns(1232)] {
            for response in ask_both(&server, listener, &query) {
                assert_eq!((response.answers(), response.cookie()), (vec![ADDRESS.to_owned()], None), "{listener}");
            }
        }
    }
}

/// RFC 7873 section 5.2.2: 8 octets are legal, and 16 to 40.
#[test]
fn a_cookie_of_another_length_is_a_format_error() {
    let (server, backend) = start("");
    for listener in ["forwarder", "ts"] {
        let client = Client::of(server.listener(listener));
        for len in (0..=45).chain([64, 255, 256, 600]) {
            let response = client.ask(&asking(&vec![7; len]));
            if len == 8 || (16..=40).contains(&len) {
                assert_eq!(response.answers(), [ADDRESS], "{listener}, {len} octets");
                let given = response.cookie().expect("a cookie");
                assert_eq!((given.len(), &given[..8]), (24, &[7; 8][..]), "{listener}, {len} octets");
            } else {
                assert_eq!((response.rcode(), response.cookie()), (FORMERR, None), "{listener}, {len} octets");
                assert!(response.has_opt());
            }
        }
        let response = TcpClient::of(server.listener(listener)).ask(&asking(&[7; 3]));
        assert_eq!((response.rcode(), response.cookie()), (FORMERR, None), "{listener}");
    }
    assert!(backend.queries().iter().all(|query| query.options().is_none_or(|options| options.is_empty())));
}

/// RFC 7873 section 5.2: of several only the first is considered.
#[test]
fn the_first_of_several_cookies_counts() {
    let (server, _backend) = start("");
    for listener in ["forwarder", "ts"] {
        let client = Client::of(server.listener(listener));
        for (second, rcode) in [(&b"other-01"[..], NOERROR), (b"bad", NOERROR), (CLIENT, NOERROR)] {
            let response = client.ask(&asking(CLIENT).option(COOKIE, second));
            assert_eq!(response.rcode(), rcode, "{listener}");
            assert!(response.cookie().is_some_and(|given| given.starts_with(CLIENT)), "{listener}");
        }
        let response = client.ask(&asking(b"bad").option(COOKIE, CLIENT));
        assert_eq!((response.rcode(), response.cookie()), (FORMERR, None), "{listener}");
        let many = (0..40).fold(asking(CLIENT), |query, _| query.option(COOKIE, b""));
        assert_eq!(client.ask(&many).rcode(), NOERROR, "{listener}");
    }
}

/// RFC 7873 section 5.2.3 to section 5.2.5: a client with a good cookie keeps it, all others get a new one.
#[test]
fn a_good_cookie_is_kept_and_a_bad_one_is_replaced() {
    let (server, _backend) = start("");
    let mut given = Vec::new();
    for listener in ["forwarder", "ts"] {
        let [udp, tcp] = ask_both(&server, listener, &asking(CLIENT)).map(|response| response.cookie().expect("one"));
        // RFC 9018 section 4.1: version 1, and nothing in what is reserved.
        assert_eq!((udp.len(), &udp[..12]), (24, &b"\x01\x02\x03\x04\x05\x06\x07\x08\x01\0\0\0"[..]));
        for good in [&udp, &tcp] {
            // A client that has waited for a backend gets one of another second. So the forwarder gets a
            // query that it refuses at once.
            let at_once = query("www.example.org", AXFR).edns(1232).option(COOKIE, good);
            let (question, rcode) = if listener == "ts" { (asking(good), NOERROR) } else { (at_once, REFUSED) };
            for response in ask_both(&server, listener, &question) {
                assert_eq!((response.rcode(), response.cookie().as_ref()), (rcode, Some(good)), "{listener}");
            }
        }
        let mut bad = udp.clone();
        bad[23] ^= 1;
        for response in ask_both(&server, listener, &asking(&bad)) {
            let new = response.cookie().expect("a cookie");
            assert_eq!((response.answers(), &new[..8]), (vec![ADDRESS.to_owned()], &CLIENT[..]), "{listener}");
            assert_ne!(new, bad);
        }
        given.push(udp);
    }
    // One server, one secret: what the LS gives, its TS takes.
    let response = Client::of(server.listener("ts")).ask(&asking(&given[0]));
    assert_eq!(response.cookie().as_ref(), Some(&given[0]));
    let [kept, replaced, missing] = ["valid", "invalid", "client_only"]
        .map(|kind| server.admin().metrics().sum("hedgerow_cookies_total", &[("cookie", kind)]));
    assert_eq!((kept, replaced, missing), (9, 4, 4));
}

/// RFC 7873 section 5.2: a server without cookies takes no notice of them.
#[test]
fn a_server_without_cookies_takes_no_notice_of_them() {
    let (server, backend) = start("cookies = false");
    for listener in ["forwarder", "ts"] {
        for cookie in [&CLIENT[..], b"bad", b"", &[7; 24], &[7; 41]] {
            for response in ask_both(&server, listener, &asking(cookie)) {
                assert_eq!((response.answers(), response.cookie()), (vec![ADDRESS.to_owned()], None), "{listener}");
            }
        }
    }
    assert!(backend.queries().iter().all(|query| query.options().is_none_or(|options| options.is_empty())));
}

/// RFC 7873 section 5.2.3: every response to a query with a cookie has the cookie.
#[test]
fn responses_of_every_kind_have_the_cookie() {
    let backend = Backend::new(answer(ADDRESS).except("silent", silent()).except("refused", rcode(REFUSED)));
    let forwarder = Forwarder::new()
        .pool("all", "org", &[&backend], "timeout = '100ms'\non_timeout = 'nxdomain'")
        .cache("failure_ttl = '60s'");
    let ts = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\nnsid = 'ts1'\n";
    let server = Server::start_with_files(&(forwarder.to_toml() + ts), &[HOSTS]);
    let check = |listener: &str, query: &Query, rcode: u16| {
        for response in ask_both(&server, listener, &query.clone().option(COOKIE, CLIENT)) {
            let given = response.cookie().unwrap_or_else(|| panic!("no cookie: {response:?}"));
            assert_eq!((response.rcode(), given.len(), &given[..8]), (rcode, 24, &CLIENT[..]), "{listener}");
        }
    };
    let ask = |name: &str, rtype: u16| query(name, rtype).edns(1232);
    // Relayed first, then from the cache; made up; refused by the backend, by the routes, by the type.
    check("forwarder", &ask("www.org", A), NOERROR);
    check("forwarder", &ask("www.org", A), NOERROR);
    check("forwarder", &ask("silent.org", A), NXDOMAIN);
    check("forwarder", &ask("refused.org", A), REFUSED);
    check("forwarder", &ask("www.example", A), REFUSED);
    check("forwarder", &ask("www.org", AXFR), REFUSED);
    check("ts", &ask("www.example.org", A), NOERROR);
    check("ts", &ask("www.example.org", A).option(3, b""), NOERROR);
    check("ts", &ask("www.example.org", TXT), NOERROR);
    check("ts", &ask("missing.org", A), NXDOMAIN);
    check("ts", &ask("www.example.org", A).class(CH), REFUSED);
    check("ts", &ask("www.example.org", AXFR), REFUSED);
    for listener in ["forwarder", "ts"] {
        // What could not be taken but for its question and OPT record: here with an octet too many.
        let message = [&asking(CLIENT).to_vec()[..], b"\0"].concat();
        let client = Client::of(server.listener(listener));
        client.send_bytes(&message);
        let response = client.receive();
        assert_eq!(response.rcode(), FORMERR, "{listener}");
        assert!(response.cookie().is_some_and(|given| given.starts_with(CLIENT)), "{listener}");
        // In a later version of EDNS options may be anything.
        let response = client.ask(&asking(CLIENT).version(1));
        assert_eq!((response.rcode(), response.cookie()), (BADVERS, None), "{listener}");
    }
    let nsid = Client::of(server.listener("ts")).ask(&ask("www.example.org", A).option(3, b"").option(COOKIE, CLIENT));
    assert!(nsid.options().contains(&(3, b"ts1".to_vec())), "{nsid:?}");
}

/// The 28 octets count: a response with a cookie is no longer than the client takes.
#[test]
fn a_cookie_counts_towards_the_size() {
    // Around what fits with a cookie: 425 octets, which header, question, record, OPT record and cookie leave
    // of 512.
    let mut cut = 0;
    for len in 422..=429 {
        // The same from the backend and from the cache, by TC where it does not fit.
        let backend = Backend::new(reply(move |reply| reply.answer(txt(len))));
        let server = Forwarder::to(&[&backend], "").cache("").start();
        let client = server.client();
        for _ in 0..2 {
            let response = client.ask(&query("www.example.org", TXT).edns(512).option(COOKIE, CLIENT));
            assert!(response.bytes.len() <= 512, "{len}: {}", response.bytes.len());
            assert_eq!(response.cookie().map(|given| given.len()), Some(24), "{len}");
            let without = client.ask(&query("www.example.org", TXT).edns(512));
            let fits = without.bytes.len() + 28 <= 512 && !without.has(TC);
            assert_eq!(response.has(TC), !fits, "{len}");
            cut += usize::from(!fits);
            assert_eq!(response.message().answers.len(), usize::from(fits), "{len}");
        }
    }
    assert_eq!(cut, 8, "those of 426 octets and more, twice each");
}

/// Clients that wait for the same race get each their own.
#[test]
fn those_who_share_a_race_have_cookies_of_their_own() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&backend], "attempt_timeout = '20s'\ntimeout = '20s'").start();
    let clients: Vec<_> = (0..20_u8).map(|number| (server.client(), [number; 8])).collect();
    let ask = |client: &Client, cookie: &[u8]| {
        let query = asking(cookie);
        client.send(&query);
        query.id
    };
    let ids: Vec<_> = clients.iter().map(|(client, cookie)| ask(client, cookie)).collect();
    let plain = server.client();
    plain.send(&query("www.example.org", A).edns(1232));
    // All of them are in the one race before its reply comes: a fence behind them has its own.
    backend.wait_for(1);
    plain.send(&query("fence.example.org", A));
    backend.wait_for_name("fence.example.org", 1);
    backend.release();
    for ((client, cookie), id) in clients.iter().zip(ids) {
        let response = client.receive();
        assert_eq!(response.id(), id);
        assert!(response.cookie().is_some_and(|given| given.len() == 24 && given.starts_with(cookie)), "{response:?}");
    }
    assert_eq!([plain.receive(), plain.receive()].map(|response| response.cookie()), [None, None]);
}
