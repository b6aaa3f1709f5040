//! Messages of unusual kinds from clients: signatures, keys, classes, NOTIFY, UPDATE, and zone transfers.

use std::net::SocketAddr;

use testkit::http2::Http2Client;
use testkit::quic_client::{QuicClient, quic_config};

use super::*;

const MX: u16 = 15;
const SIG: u16 = 24;
const TKEY: u16 = 249;

/// The class of signatures of messages, and a question for all classes (RFC 1035 section 3.2.5).
const ANY_CLASS: u16 = 255;

const NOTIFY: u16 = 4;
const UPDATE: u16 = 5;

/// The key of the authorities in these tests.
const KEY: &str = "[keys.k]\nsecret = 'dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz'\n";

const ZONE: &str = "@ 300 SOA ns h 1 3600 3600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";

/// A forwarder and an authority with a zone for holders of a key.
fn with_zone(backend: &Backend) -> Server {
    let config = Forwarder::to(&[backend], "timeout = '2s'").cache("").admin().to_toml()
        + KEY
        + "[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
           zones = [{ file = 'z.zone', origin = 'example.org', transfer_to = ['key:k'], tsig = 'k' }]\n";
    Server::start_with_files(&config, &[("z.zone", ZONE)])
}

/// Sends messages to the forwarder and to the authority, by UDP and by TCP. Both answer others afterwards.
fn send_all(server: &Server, messages: &[Vec<u8>]) {
    for listener in ["forwarder", "ts"] {
        let address = server.listener(listener);
        for some in messages.chunks(20) {
            let client = Client::of(address);
            some.iter().for_each(|message| client.send_bytes(message));
            // A message may end a connection, so each has its own.
            some.iter().for_each(|message| TcpClient::of(address).try_send_bytes(&framed(message)));
            assert_eq!(Client::of(address).ask(&query("www.example.org", A)).answers(), [TRUE], "{listener}");
        }
        // The connections before may still count towards the limit of this client.
        let asked = query("www.example.org", A);
        let response = until("there is room for a connection", || TcpClient::of(address).try_ask(&asked));
        assert_eq!(response.answers(), [TRUE], "{listener}");
    }
    let log = server.process.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// A message with one more record in the additional section.
fn with_additional(query: &Query, record: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    message.extend_from_slice(record);
    message[11] += 1;
    message
}

/// A record of class ANY with TTL 0.
fn meta(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
    let [rtype, class, length] = [rtype, ANY_CLASS, data.len() as u16].map(u16::to_be_bytes);
    [owner, &rtype, &class, &[0; 4], &length, data].concat()
}

#[test]
fn signatures_of_any_algorithm_name_do_no_harm() {
    // CVE-2025-40775 (BIND): a TSIG record with an invalid algorithm ended the process.
    let backend = Backend::new(answer(TRUE));
    let server = with_zone(&backend);
    let algorithms = [
        wire_name("."),
        wire_name("hmac-sha999"),
        wire_name("hmac-md5.sig-alg.reg.int"),
        wire_name(&longest_name()),
        vec![63; 40],
        vec![0xC0, 12],
        vec![0xC0, 0xFF],
        vec![],
    ];
    let mut messages = Vec::new();
    for (algorithm, owner) in algorithms.iter().flat_map(|algorithm| [(algorithm, "k"), (algorithm, "other")]) {
        for rest in [&[0; 10][..], &[0, 0, 0x5F, 0, 0, 0, 1, 44, 0, 0, 0, 1, 0, 0, 0, 0], &[0xFF; 16]] {
            let record = meta(&wire_name(owner), TSIG, &[&algorithm[..], rest].concat());
            for asked in [
                query("www.example.org", A),
                query("example.org", AXFR),
                query("example.org", SOA).opcode(NOTIFY),
                query("example.org", SOA).opcode(UPDATE),
            ] {
                messages.push(with_additional(&asked, &record));
            }
        }
    }
    send_all(&server, &messages);
}

#[test]
fn signatures_by_public_keys_cost_nothing() {
    // CVE-2024-1975 (BIND): SIG(0) took much time to check. CVE-2026-5947 (BIND): its check had undefined
    // behavior during a flood.
    let backend = Backend::new(answer(TRUE));
    let server = with_zone(&backend);
    let signer = wire_name("www.example.org");
    let data = [&[0, 0, 8, 0, 0, 0, 0, 0][..], &[0x7F; 8], &[0, 1], &signer, &[0xAB; 512]].concat();
    let record = meta(&[0], SIG, &data);
    let messages: Vec<_> = (0..40).map(|_| with_additional(&query("www.example.org", A), &record)).collect();
    let before = cpu_time(&server);
    (0..25).for_each(|_| send_all(&server, &messages));
    let spent = cpu_time(&server) - before;
    // 4000 messages by a connection each or by UDP; a check of an RSA signature takes longer than all else.
    assert!(spent < Duration::from_secs(4), "{spent:?}");
}

#[test]
fn negotiations_of_keys_leave_nothing_in_memory() {
    // CVE-2026-3039 (BIND): each GSS-API negotiation left its context in memory.
    let backend = Backend::new(answer(TRUE));
    let server = with_zone(&backend);
    let token = [&wire_name("gss-tsig")[..], &[0; 8], &[0, 3, 0, 0], &[2, 0], &[0x60; 512], &[0, 0]].concat();
    let message = |i: usize| {
        let name = format!("{i}.key.example");
        with_additional(&query(&name, TKEY).class(ANY_CLASS), &meta(&wire_name(&name), TKEY, &token))
    };
    let messages = |from: usize| (from..from + 200).map(message).collect::<Vec<_>>();
    send_all(&server, &messages(0));
    let before = server.process.resident();
    (1..10).for_each(|round| send_all(&server, &messages(200 * round)));
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} octets");
}

#[test]
fn no_class_and_no_opcode_ends_the_process() {
    // CVE-2026-5946 (BIND): recursion, UPDATE and NOTIFY in other classes than IN.
    let backend = Backend::new(answer(TRUE));
    let server = with_zone(&backend);
    let mut messages = Vec::new();
    for class in [0, CH, 4, 254, ANY_CLASS, 0xFFFF] {
        for opcode in [0, 1, 2, NOTIFY, UPDATE, 6, 15] {
            for rtype in [A, SOA, TXT, AXFR, IXFR, ANY] {
                let asked = query("example.org", rtype).class(class).opcode(opcode);
                messages.push(asked.to_vec());
                // An address record of class IN in data of another class, in the section for updates.
                let mut update = [asked.to_vec(), record("x.example.org", A, &[192, 0, 2, 9]).to_vec()].concat();
                update[9] = 1;
                messages.push(update);
            }
        }
    }
    send_all(&server, &messages);
    let queries = backend.queries();
    assert!(queries.iter().all(|seen| seen.flags() & 0x7800 == 0), "no opcode but QUERY is forwarded");
}

#[test]
fn no_query_makes_the_server_believe_that_it_asks_itself() {
    // CVE-2026-26018 (CoreDNS): a client could guess the query that detects loops, at which the process
    // ended.
    let backend = Backend::new(answer(TRUE));
    let server = both(&backend, "");
    const HINFO: u16 = 13;
    let client = server.client();
    for number in 0..200_u64 {
        // The name has two random numbers there. Each is sent three times here.
        let name = format!("{}.{}", number * 7_919_777, number * 104_729);
        (0..3).for_each(|_| drop(client.ask(&query(&name, HINFO))));
    }
    assert_served(&server);
    assert_eq!(backend.queries().len(), 200 + 1, "each name is asked once");
}

#[test]
fn notify_flushes_nothing() {
    // CVE-2025-59030 (PowerDNS Recursor): NOTIFY by TCP removed names from the cache, of any sender.
    let backend = Backend::new(answer_for(3600, TRUE));
    let server = both(&backend, "");
    let names: Vec<_> = (0..20).map(|number| format!("{number}.example")).collect();
    let ask_all = || names.iter().for_each(|name| assert_eq!(server.client().ask(&query(name, A)).answers(), [TRUE]));
    ask_all();
    for name in ["example", ".", "1.example"] {
        let notify = query(name, SOA).opcode(NOTIFY).flags(0x2400);
        assert_eq!(server.tcp_client().ask(&notify).rcode(), NOTIMP, "{name}");
        assert_eq!(server.client().ask(&notify).rcode(), NOTIMP, "{name}");
    }
    ask_all();
    assert_eq!(backend.queries().len(), names.len(), "all came from the cache");
}

/// AXFR with a record of the key whose signature is made up.
fn forged_transfer(zone: &str) -> Vec<u8> {
    let asked = query(zone, AXFR).id(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs().to_be_bytes();
    let data = [&wire_name("hmac-sha256")[..], &now[2..], &[1, 44, 0, 32], &[0xA5; 32], &[0; 6]].concat();
    with_additional(&asked, &meta(&wire_name("k"), TSIG, &data))
}

#[test]
fn signatures_are_checked_by_every_transport() {
    // CVE-2026-33190 and CVE-2026-35579 (CoreDNS): TSIG was not checked by TLS, HTTPS, QUIC and gRPC.
    let authorities = CertificateAuthority::new();
    let (chain, private) = authorities.issue("dns.example");
    let config = format!(
        "{KEY}[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n[authorities.ts]\n\
         listen = ['127.0.0.1:0', 'tls://127.0.0.1:0', 'http://127.0.0.1:0', 'quic://127.0.0.1:0']\n\
         zones = [{{ file = 'z.zone', origin = 'example.org', transfer_to = ['key:k'] }}]\n"
    );
    let server = Server::start_with_files(&config, &[("z.zone", ZONE), ("chain.pem", &chain), ("key.pem", &private)]);
    let [plain, tls, http, quic] = server.listeners("ts") else { panic!("four listeners") };
    let unsigned = query("example.org", AXFR).id(0).to_vec();
    for (what, message) in [("unsigned", unsigned), ("forged", forged_transfer("example.org"))] {
        let check = |transport: &str, response: &Response| {
            assert_eq!(response.message().answers.len(), 0, "{what} by {transport}: {response:?}");
            assert_ne!(response.rcode(), NOERROR, "{what} by {transport}");
        };
        let mut client = TcpClient::of(*plain);
        client.send_bytes(&framed(&message));
        check("TCP", &client.receive());
        let mut client = TlsClient::of(*tls, &authorities.trusted(&["dot"]), "dns.example");
        client.send_bytes(&framed(&message));
        check("TLS", &client.receive());
        let mut client = Http2Client::new(*http);
        client.post(1, &message);
        let body = client.body_of(1).unwrap_or_default();
        assert!(body.is_empty() || word(&body, 6) == 0, "{what} by HTTP: {body:?}");
        let mut client = QuicClient::of(*quic, &quic_config(&authorities, &["doq"]), "dns.example");
        let stream = client.open();
        client.send(stream, &framed(&message), true);
        if let Ok(response) = client.receive(stream) {
            check("QUIC", &response);
        }
    }
}

#[test]
fn a_zone_is_given_by_its_own_list_and_not_by_that_of_a_parent() {
    // CVE-2026-33489 (CoreDNS): names were compared as text, so a parent's list could permit a child's
    // transfer.
    let zone = |name: &str, to: &str| format!("{{ file = 'z.zone', origin = '{name}', transfer_to = ['{to}'] }}");
    let (open, closed) = ("127.0.0.1", "192.0.2.0/24");
    for closed_name in ["a.example.org", "example.org.a", "sub.example.org", "zz.example.org"] {
        for is_first in [true, false] {
            let mut zones = [zone(closed_name, closed), zone("example.org", open)];
            if !is_first {
                zones.reverse();
            }
            let config = format!("[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{}]\n", zones.join(", "));
            let server = Server::start_with_files(&config, &[("z.zone", ZONE)]);
            let transfer = |name: &str| TcpClient::of(server.listener("ts")).ask(&query(name, AXFR));
            assert_eq!(transfer(closed_name).rcode(), REFUSED, "{closed_name}");
            assert_eq!(transfer("example.org").answers().len(), 5);
        }
    }
}

#[test]
fn addresses_of_many_servers_are_added_in_little_time() {
    // CVE-2024-11187 (BIND): the addresses of hundreds of names were looked up for each query.
    const COUNT: u32 = 200;
    let hosts = (0..400).map(|host| {
        let addresses: String =
            (0..10).map(|i| format!("mail-{host} A 10.{i}.{}.{}\n", host / 250, host % 250)).collect();
        format!("@ MX 10 mail-{host}\n{addresses}")
    });
    let text = ZONE.to_owned() + &hosts.collect::<String>();
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example.org' }]\n";
    let server = Server::start_with_files(config, &[("z.zone", &text)]);
    let asked = query("example.org", MX).edns(1232);
    let cost = |mut ask: Box<dyn FnMut()>| {
        let before = cpu_time(&server);
        (0..COUNT).for_each(|_| ask());
        (cpu_time(&server) - before) / COUNT
    };
    let (mut tcp, udp) = (TcpClient::of(server.listener("ts")), Client::of(server.listener("ts")));
    let by_tcp = cost(Box::new(move || assert_eq!(tcp.ask(&asked).message().answers.len(), 400)));
    let by_udp = cost(Box::new(move || assert!(udp.ask(&query("example.org", MX)).has(TC))));
    // An unoptimized build needs 0.1 ms by UDP, where nothing is added to a response that is cut, and 35 ms
    // by TCP for the 65,535 octets that a message has at most.
    assert!(by_udp < ms(1) && by_tcp < ms(150), "{by_udp:?} by UDP, {by_tcp:?} by TCP");
}

/// Sends AXFR and IXFR to a forwarder by a function.
fn check_transfers(backend: &Backend, server: &Server, mut ask: impl FnMut(&[u8]) -> Option<Response>) {
    for rtype in [AXFR, IXFR] {
        let mut message = query("example.org", rtype).id(0).to_vec();
        // RFC 1995 section 3: IXFR has the client's SOA record in the authority section.
        if rtype == IXFR {
            let soa = [&[0][..], &[0], &[0; 20]].concat();
            message.extend(record("example.org", SOA, &soa).to_vec());
            message[9] = 1;
        }
        if let Some(response) = ask(&message) {
            assert_eq!((response.rcode(), response.message().answers.len()), (REFUSED, 0), "type {rtype}");
        }
        assert_served(server);
    }
    assert!(backend.queries().iter().all(|seen| seen.name() == "served.example"), "no transfer is forwarded");
}

#[test]
fn transfers_through_a_forwarder_hold_no_connection_to_a_backend() {
    // CVE-2024-25581 (dnsdist): AXFR by HTTPS for a backend by TCP ended the process. CVE-2026-40209
    // (dnsdist): IXFR kept connections to the backend until a timeout.
    let backend = Backend::new(answer(TRUE));
    let tcp = NamedByTcp(&backend);
    let server = Forwarder::to(&[&tcp], "timeout = '5s'").listen("['127.0.0.1:0', 'http://127.0.0.1:0']").start();
    let [plain, http]: [SocketAddr; 2] = server.listeners("forwarder").try_into().expect("two listeners");
    check_transfers(&backend, &server, |message| {
        let mut client = Http2Client::new(http);
        client.post(1, message);
        client.body_of(1).filter(|body| !body.is_empty()).map(|bytes| Response { bytes })
    });
    check_transfers(&backend, &server, |message| {
        let mut client = TcpClient::of(plain);
        client.send_bytes(&framed(message));
        Some(client.receive())
    });
    check_transfers(&backend, &server, |message| {
        let client = Client::of(plain);
        client.send_bytes(message);
        Some(client.receive())
    });
}

/// A backend that is asked by TCP alone.
struct NamedByTcp<'a>(&'a Backend);

impl Asked for NamedByTcp<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn entry(&self) -> String {
        format!("'tcp://{}'", Asked::address(self.0))
    }
}
