//! Tests of an authority by sockets and by XDP: the same bytes for every question, and the same rules about
//! access, rates and cookies.

use proxy_header::{ProxiedAddress, ProxyHeader};
use testkit::*;

use crate::frames::{self, Heard, Path};
use crate::wire::Wire;
use crate::world::{
    self, BACKEND_DEVICE, CLIENT, CLIENT_6, CLIENT_DEVICE, DEVICE, PLAIN, SERVER, SERVER_6, UNLIMITED, Way, World, at,
    both_ways,
};

both_ways! {
    answers_are_the_same_octets
    tcp_is_served_beside
    strangers_are_refused_or_ignored
    sources_that_the_kernel_reaches_elsewhere_get_no_answer_here
    rates_are_limited
    cookies_are_given_and_taken
    clients_of_a_proxy_are_known
    sums_that_the_device_would_make_are_taken
    two_queues_and_two_workers_serve
}

const TABLE: &str =
    "www.example 192.0.2.1 A\nwww.example 192.0.2.2 A\nwww.example 2001:db8::1 AAAA\nother.example 192.0.2.3 A\n";

/// Returns a zone with answers of many lengths.
fn zone() -> String {
    let mut zone = String::from(
        "$ORIGIN example.org.\n$TTL 300\n@ SOA ns h 1 1h 1h 1h 1h\n@ NS ns\nns A 192.0.2.1\nns AAAA 2001:db8::53\n",
    );
    zone.push_str("cut NS ns.cut\nns.cut A 192.0.2.9\n*.wild A 192.0.2.4\nalias CNAME www\nwww A 192.0.2.5\n");
    for length in [100, 250, 400, 460, 600, 1_000, 1_140, 1_170, 1_200, 1_300, 2_000] {
        let text: Vec<_> =
            vec![b'x'; length].chunks(200).map(|part| format!("\"{}\"", "x".repeat(part.len()))).collect();
        zone.push_str(&format!("t{length} TXT {}\n", text.join(" ")));
    }
    for number in 0..40 {
        zone.push_str(&format!("many A 198.51.100.{number}\nmany AAAA 2001:db8::{number:x}\n"));
    }
    zone
}

/// Returns queries of all kinds, each with a short description.
fn questions() -> Vec<(String, Query)> {
    let mut names: Vec<_> = ["", "www", "WwW", "many", "alias", "a.wild", "deep.below.cut", "nobody", "ns"]
        .into_iter()
        .map(|label| if label.is_empty() { "example.org".to_owned() } else { format!("{label}.example.org") })
        .collect();
    names.extend(
        [100, 250, 400, 460, 600, 1_000, 1_140, 1_170, 1_200, 1_300, 2_000]
            .map(|length| format!("t{length}.example.org")),
    );
    names.extend(["elsewhere.example".to_owned(), ".".to_owned()]);
    let mut questions = Vec::new();
    for name in &names {
        for rtype in [A, AAAA, TXT, SOA, NS, ANY] {
            let plain = query(name, rtype);
            questions.push((format!("{name} {rtype}"), plain.clone()));
            for size in [0, 511, 512, 1_232, 1_400, 4_096, 65_535] {
                questions.push((format!("{name} {rtype}, EDNS {size}"), plain.clone().edns(size)));
            }
        }
    }
    let plain = || query("www.example.org", A);
    questions.extend([
        ("DO".into(), plain().dnssec_ok()),
        ("version 1".into(), plain().version(1)),
        ("NSID".into(), plain().option(3, &[])),
        ("a subnet".into(), plain().option(CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2])),
        ("padding".into(), plain().option(PADDING, &[0; 100])),
        ("class CH".into(), plain().class(CH)),
        ("NOTIFY".into(), plain().opcode(4)),
        ("UPDATE".into(), plain().opcode(5)),
        ("an unknown opcode".into(), plain().opcode(14)),
        ("a transfer".into(), query("example.org", AXFR)),
        ("no RD".into(), plain().flags(0)),
        ("CD and AD".into(), plain().flags(RD | CD | AD)),
        ("TC".into(), plain().flags(TC)),
    ]);
    questions
}

/// Returns payloads that are not plain queries, each with a short description.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let query = query("www.example.org", A).edns(1_232);
    let octets = query.to_vec();
    let with = |at: usize, octet: u8| {
        let mut changed = octets.clone();
        changed[at] = octet;
        changed
    };
    vec![
        ("a header alone", octets[..12].to_vec()),
        ("half a question", octets[..20].to_vec()),
        ("half an OPT", octets[..octets.len() - 3].to_vec()),
        ("octets behind", [&octets[..], b"more"].concat()),
        ("two questions", with(5, 2)),
        ("no question", with(5, 0)),
        ("an answer", with(7, 1)),
        ("a label that is too long", with(12, 0xbf)),
        ("a pointer", with(12, 0xc0)),
        ("a signature", query.to_signed_vec()),
    ]
}

fn answers_are_the_same_octets(way: Way) {
    let world = World::new(way);
    let config = |port: u16| {
        format!(
            "workers = 1\n[authorities.ts]\nlisten = ['{}', '{}']\ncookies = false\nnsid = 'ts'\n\
             zones = [{{ file = 'example.org.zone', origin = 'example.org' }}]\n{UNLIMITED}[admin]\nlisten = '127.0.0.1:0'\n",
            at(SERVER, port),
            at(SERVER_6, port)
        )
    };
    let files = [("example.org.zone", &zone()[..])];
    let server = world.start(&config(53), &files);
    // The oracle is the same server on other ports, without XDP.
    let oracle = world.start_exactly(&config(5_353), &files, |_| {});
    let mut count = 0;
    for address in [SERVER, SERVER_6] {
        let [client, other] = [53, 5_353].map(|port| Client::of(at(address, port)));
        for (what, question) in questions() {
            let [response, expected] = [&client, &other].map(|client| client.ask(&question).bytes);
            assert_eq!(response, expected, "{what}, {address}");
            count += 1;
        }
        for (what, octets) in oddities() {
            let [heard, expected] = [&client, &other].map(|client| all_heard(client, &octets));
            assert_eq!(heard, expected, "{what}, {address}");
        }
    }
    world.check_served(&server, DEVICE, [count, count * 3 / 4]);
    assert_eq!(world::metrics(&oracle).sum("hedgerow_xdp_frames_total", &[]), 0);
}

/// Sends a payload and returns every response to it.
fn all_heard(client: &Client, octets: &[u8]) -> Vec<Vec<u8>> {
    let fence = query("fence.example", A).opcode(2);
    client.send_bytes(octets);
    client.send(&fence);
    let mut heard = Vec::new();
    loop {
        let response = client.receive();
        if response.id() == fence.id {
            return heard;
        }
        heard.push(response.bytes);
    }
}

fn tcp_is_served_beside(way: Way) {
    let world = World::new(way);
    let config = format!(
        "workers = 1\n[authorities.ts]\nlisten = ['{SERVER}:53', '[{SERVER_6}]:53']\n\
         zones = [{{ file = 'example.org.zone', origin = 'example.org' }}]\n{UNLIMITED}[admin]\nlisten = '127.0.0.1:0'\n"
    );
    let server = world.start(&config, &[("example.org.zone", &zone())]);
    for address in [SERVER, SERVER_6] {
        let (client, mut stream) = (Client::of(at(address, 53)), TcpClient::of(at(address, 53)));
        for _ in 0..20 {
            let question = query("many.example.org", A);
            let cut = client.ask(&question);
            assert!(cut.has(TC) && cut.bytes.len() <= 512, "{cut:?}");
            assert_eq!(stream.ask(&question).answers().len(), 40);
        }
    }
    world.check_served(&server, DEVICE, [40, 40]);
}

fn strangers_are_refused_or_ignored(way: Way) {
    for (policy, is_told) in [("refused", true), ("drop", false)] {
        let world = World::new(way);
        hosts::run("ip", "address add 10.77.0.66/24 dev c0");
        let keys = format!("allow = ['10.77.0.0/24']\ndeny = ['10.77.0.66']\non_denied = '{policy}'\nzones");
        let server = world.start(&World::authority(&[SERVER]).replace("zones", &keys), &[("hosts.txt", TABLE)]);
        let (stranger, client) = (Client::at("10.77.0.66", at(SERVER, 53)), Client::of(at(SERVER, 53)));
        let asked: Vec<_> = (0..10).map(|_| query("www.example", A)).collect();
        asked.iter().for_each(|question| stranger.send(question));
        assert_eq!(client.ask(&query("www.example", A)).answers().len(), 2);
        if is_told {
            for question in &asked {
                let response = stranger.receive();
                assert_eq!((response.id(), response.rcode()), (question.id, REFUSED));
            }
        } else {
            world::wait_for(&server, "all are counted", |metrics| metrics.sum("hedgerow_queries_total", &[]) >= 1);
            assert!(
                stranger.try_ask(&query("www.example", A)).is_none(),
                "a client that is not allowed gets no answer"
            );
        }
        world.check_served(&server, DEVICE, [11, 1]);
    }
}

fn sources_that_the_kernel_reaches_elsewhere_get_no_answer_here(way: Way) {
    let mut world = World::new(way);
    world.connect(PLAIN, [BACKEND_DEVICE, "b0"], [&[], &[]]);
    world.ip("address add 10.0.0.1/8 dev v1");
    world.ip("address add fd99::1/64 dev v1 nodad");
    world.ip("link set v0 address 02:00:00:00:00:01");
    // The kernel computes checksums before a frame leaves, and its reverse path filter is strict.
    world.host.run("ethtool", "-K v0 tx off");
    world.host.run("sysctl", "--quiet net.ipv4.conf.v0.rp_filter=1");
    let server = world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)]);
    let wire = Wire::open(CLIENT_DEVICE);
    let ask = |source: &str, destination: &str| {
        let macs = [[2, 0, 0, 0, 0, 1], wire.mac];
        let path = Path { macs, source: at(source, 4_000), destination: at(destination, 53) };
        assert!(wire.send(&path.query(&query("www.example", A))), "{source}");
    };
    // The first source is behind the server's other device, the second is the server itself, the third is a
    // client.
    for (destination, sources) in
        [(SERVER, ["10.1.2.3", "10.0.0.1", CLIENT]), (SERVER_6, ["fd99::2", "fd99::1", CLIENT_6])]
    {
        sources.iter().for_each(|source| ask(source, destination));
        let client = at(sources[2], 4_000);
        let first = until("a datagram", || match frames::read(&wire.receive())? {
            Heard::Datagram { destination, .. } => Some(destination),
            Heard::Other(..) => None,
        });
        assert_eq!(first, client, "the first that is answered here");
    }
    world.check_served(&server, DEVICE, [6, 2]);
}

fn rates_are_limited(way: Way) {
    let world = World::new(way);
    let rates = "[authorities.ts.rate_limit]\nanswers = 5\nslip = 2\nwindow = '1h'\n";
    let config = World::authority(&[SERVER]).replace(UNLIMITED, rates).replace("zones", "cookies = false\nzones");
    let server = world.start(&config, &[("hosts.txt", TABLE)]);
    let client = Client::of(at(SERVER, 53));
    let question = query("www.example", A);
    (0..200).for_each(|_| client.send(&question));
    // An error response has a separate rate limit.
    let fence = query("fence.example", A).opcode(2);
    client.send(&fence);
    let mut heard = Vec::new();
    loop {
        let response = client.receive();
        if response.id() == fence.id {
            break;
        }
        heard.push(response.has(TC));
    }
    let cut = heard.iter().filter(|cut| **cut).count();
    let whole = heard.len() - cut;
    // The loop may take several seconds, each of which allows five answers. Above that limit, the server
    // truncates every second answer (`slip = 2`).
    assert!((5..50).contains(&whole), "{whole} whole");
    assert!((60..=100).contains(&cut) && cut <= (200 - whole).div_ceil(2), "{cut} cut, {whole} whole");
    world.check_served(&server, DEVICE, [201, heard.len() as u64]);
}

fn cookies_are_given_and_taken(way: Way) {
    let world = World::new(way);
    let rates = "[authorities.ts.rate_limit]\nanswers = 5\nslip = 1\nwindow = '1h'\n";
    let server = world.start(&World::authority(&[SERVER, SERVER_6]).replace(UNLIMITED, rates), &[("hosts.txt", TABLE)]);
    for address in [SERVER, SERVER_6] {
        let (client, mut stream) = (Client::of(at(address, 53)), TcpClient::of(at(address, 53)));
        let asking = |cookie: &[u8]| query("other.example", A).edns(1232).option(COOKIE, cookie);
        let given = until("BADCOOKIE", || {
            let response = client.ask(&asking(b"CLIENT01"));
            (response.rcode() == BADCOOKIE).then(|| response.cookie().expect("a cookie"))
        });
        for _ in 0..50 {
            let response = client.ask(&asking(&given));
            assert_eq!(response.answers(), ["192.0.2.3"], "the client is where it says");
        }
        // The cookie is valid for this address over any transport.
        assert_eq!(stream.ask(&asking(&given)).answers(), ["192.0.2.3"]);
    }
    world.check_served(&server, DEVICE, [100, 100]);
}

fn clients_of_a_proxy_are_known(way: Way) {
    let world = World::new(way);
    let listen = format!("{{ address = '{SERVER}:53', proxy_from = ['{CLIENT}'] }}");
    let config = World::authority(&[SERVER]).replace(&format!("'{SERVER}:53'"), &listen);
    let config = config.replace("zones", "allow = ['198.51.100.0/24']\nzones");
    let server = world.start(&config, &[("hosts.txt", TABLE)]);
    let header = |client: &str| {
        let address = |text: &str| text.parse().expect("an address");
        let header = ProxyHeader::with_address(ProxiedAddress::datagram(address(client), address("10.77.0.1:53")));
        let mut octets = Vec::new();
        header.encode_v2(&mut octets).expect("a vector takes everything");
        octets
    };
    let proxy = Client::of(at(SERVER, 53));
    for number in 0..20_u16 {
        let question = query("other.example", A).id(number).to_vec();
        let (client, rcode) =
            if number % 2 == 0 { ("198.51.100.7:4000", NOERROR) } else { ("203.0.113.9:4000", REFUSED) };
        proxy.send_bytes(&[header(client), question].concat());
        let response = proxy.receive();
        assert_eq!((response.id(), response.rcode()), (number, rcode), "{client}");
    }
    proxy.send(&query("other.example", A));
    world::wait_for(&server, "no header", |metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "proxy")]) == 1);
    world.check_served(&server, DEVICE, [21, 20]);
}

fn sums_that_the_device_would_make_are_taken(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)]);
    let mut count = 0;
    // With `tx on`, the sender leaves the checksum to the device, and a veth pair does not fill it in. With
    // `tx off`, the sender computes it.
    for device in ["tx on", "tx off"] {
        hosts::run("ethtool", &format!("-K c0 {device}"));
        for address in [SERVER, SERVER_6] {
            let client = Client::of(at(address, 53));
            for size in 0..50 {
                let question = query("other.example", A).edns(1232).option(PADDING, &vec![0xa5; size]);
                assert_eq!(client.ask(&question).answers(), ["192.0.2.3"], "{size} octets, {device}, {address}");
                count += 1;
            }
        }
    }
    world.check_served(&server, DEVICE, [count, count]);
}

fn two_queues_and_two_workers_serve(way: Way) {
    for workers in [1, 2, 3] {
        let world = World::over(way, world::Pair { queues: 2, mtu: 1500 });
        let config = World::authority(&[SERVER, SERVER_6]).replace("workers = 1", &format!("workers = {workers}"));
        let server = world.start(&config, &[("hosts.txt", TABLE)]);
        for address in [SERVER, SERVER_6] {
            // The source ports spread the clients over both queues.
            let clients: Vec<_> = (0..40).map(|_| Client::of(at(address, 53))).collect();
            for client in clients.iter().chain(&clients) {
                assert_eq!(client.ask(&query("other.example", A)).answers(), ["192.0.2.3"]);
            }
            let mut stream = TcpClient::of(at(address, 53));
            assert_eq!(stream.ask(&query("other.example", A)).answers(), ["192.0.2.3"]);
        }
        // XDP serves both queues with any number of workers.
        world.check_served(&server, DEVICE, [160, 160]);
    }
}
