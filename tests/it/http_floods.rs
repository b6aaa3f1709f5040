//! What a client by HTTP can have the server do and keep, each beyond its bound: the server says that it is
//! enough, or takes no more, and answers everybody else meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use testkit::http2::*;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A forwarder that takes HTTP in the clear, with an admin server.
fn start(backend: &Backend, connections: &str) -> Server {
    Forwarder::to(&[backend], "timeout = '20s'\nattempt_timeout = '20s'")
        .keys(&format!("[forwarder.connections]\n{connections}\n"))
        .listen("['127.0.0.1:0', 'http://127.0.0.1:0']")
        .admin()
        .start()
}

fn at(server: &Server) -> SocketAddr {
    server.listeners("forwarder")[1]
}

/// Another client is answered as ever.
fn assert_served(server: &Server) {
    let mut client = Http2Client::new(at(server));
    client.post(1, &query("other.example.org", A).to_vec());
    assert_eq!(Response { bytes: client.body_of(1).expect("a response") }.answers(), [ADDRESS]);
}

/// A stream number, which is odd.
fn odd(number: u32) -> u32 {
    2 * number + 1
}

#[test]
fn resets_buy_no_more_queries_than_may_wait() {
    // Rapid Reset (CVE-2023-44487): each stream is free again at once, and each query would go on.
    let backend = Backend::new(answer(ADDRESS).held().except("other", answer(ADDRESS)));
    let server = start(&backend, "in_flight = 8");
    let mut client = Http2Client::new(at(&server));
    let mut sent = 0;
    while sent < 2000 {
        let message = query(&format!("{sent}.example.org"), A).to_vec();
        if !(client.post(odd(sent), &message) && client.send(RST_STREAM, 0, odd(sent), &8_u32.to_be_bytes())) {
            break;
        }
        sent += 1;
    }
    assert_eq!(client.error_of_end().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    assert_served(&server);
    let asked = backend.queries().iter().filter(|seen| !seen.is_probe() && seen.name() != "other.example.org").count();
    assert!(asked <= 8, "{asked} queries of {sent} requests");
    backend.release();
}

#[test]
fn resets_that_a_client_has_us_make_are_counted() {
    // MadeYouReset (CVE-2025-8671): a window that is too large is an error of its stream, which we reset.
    let backend = Backend::new(answer(ADDRESS).held().except("other", answer(ADDRESS)));
    let server = start(&backend, "in_flight = 8");
    let mut client = Http2Client::new(at(&server));
    let mut sent = 0;
    while sent < 2000 {
        let message = query(&format!("{sent}.example.org"), A).to_vec();
        if !(client.post(odd(sent), &message)
            && client.send(WINDOW_UPDATE, 0, odd(sent), &0x7FFF_FFFF_u32.to_be_bytes()))
        {
            break;
        }
        sent += 1;
    }
    assert_eq!(client.error_of_end().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    assert_served(&server);
    let asked = backend.queries().iter().filter(|seen| !seen.is_probe() && seen.name() != "other.example.org").count();
    assert!(asked <= 8, "{asked} queries of {sent} requests");
    backend.release();
}

#[test]
fn more_streams_than_were_allowed_are_refused() {
    let backend = Backend::new(answer(ADDRESS).held().except("other", answer(ADDRESS)));
    let server = start(&backend, "in_flight = 8");
    let mut client = Http2Client::new(at(&server));
    for number in 0..20 {
        client.post(odd(number), &query(&format!("{number}.example.org"), A).to_vec());
    }
    let mut refused = Vec::new();
    while refused.len() < 12 {
        let frame = client.receive().expect("a frame");
        // What of the request comes behind the refusal may be refused once more, as that of a stream that is
        // closed.
        if frame.kind == RST_STREAM && !refused.contains(&frame.stream) {
            assert_eq!(frame.payload, 7_u32.to_be_bytes(), "REFUSED_STREAM: it may ask again");
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, (8..20).map(odd).collect::<Vec<_>>());
    backend.wait_for(8);
    assert_served(&server);
    backend.release();
    // Responses come in the order of the replies, which leave from one socket each.
    let mut waiting: Vec<_> = (0..8).map(odd).collect();
    while !waiting.is_empty() {
        let frame = client.receive_until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
        let stream = frame.expect("a response to each").stream;
        waiting.retain(|other| *other != stream);
    }
}

#[test]
fn frames_of_one_octet_or_none_are_no_way_to_send_a_message() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    for octets in [&b"a"[..], b""] {
        let mut client = Http2Client::new(at(&server));
        client.begin_post(1);
        let many = frame(DATA, 0, 1, octets).repeat(1000);
        let mut is_over = false;
        for _ in 0..200 {
            is_over = is_over || client.write(&many).is_err();
        }
        let end = client.error_of_end();
        assert!(is_over || end.is_some(), "it went on after 200,000 frames of {octets:?}");
        assert_eq!(end.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM, "{octets:?}");
        assert_served(&server);
    }
}

#[test]
fn settings_and_signs_of_life_without_end_keep_nobody_waiting_and_nobody_connected() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "idle = '300ms'\nfirst_query = '300ms'");
    let resident = server.process.resident();
    for (kind, payload) in [(SETTINGS, &[0, 4, 0, 0, 0xFF, 0xFF][..]), (PING, &[7; 8])] {
        let mut client = Http2Client::new(at(&server));
        // Nothing is read of what comes back.
        let many = frame(kind, 0, 0, payload).repeat(1000);
        let begun = Instant::now();
        while client.write(&many).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "a client that asks nothing stays");
            assert_served(&server);
        }
    }
    let grown = server.process.resident().saturating_sub(resident);
    assert!(grown < 20 << 20, "{grown} octets");
}

#[test]
fn header_fields_have_an_end() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    // A head that goes on and on (CVE-2024-27316 and others).
    let mut client = Http2Client::new(at(&server));
    client.send(HEADERS, 0, 1, &post_fields());
    let part = frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100)).repeat(100));
    let is_over = (0..10_000).any(|_| client.write(&part).is_err());
    assert!(is_over || client.receive().is_none(), "100 MB of header fields were taken");
    assert_served(&server);
    // One field of 4000 octets in the table, and 10,000 mentions of it in one head (the HPACK bomb,
    // CVE-2016-6581).
    let mut client = Http2Client::new(at(&server));
    let value = "y".repeat(3900);
    let length = [0x7F, 0xBD, 0x1D];
    let bomb = [&post_fields()[..], &[0x40, 1, b'x'], &length, value.as_bytes(), &[0xBE; 10_000]].concat();
    let resident = server.process.resident();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let refused = client.receive_until(|frame| frame.stream == 1 && frame.kind == HEADERS);
    // 431, or a reset: it is no request in any case.
    assert!(refused.is_none_or(|frame| frame.payload[0] != 0x88), "it was taken");
    let grown = server.process.resident().saturating_sub(resident);
    assert!(grown < 10 << 20, "{grown} octets");
    assert_served(&server);
}

#[test]
fn requests_that_stop_after_one_octet_are_given_up() {
    // As with CoreDNS's streams (GHSA-2wpx-qpw2-g5h5), while the client goes on to ask by others.
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "first_query = '300ms'");
    let mut client = Http2Client::new(at(&server));
    for number in 0..50 {
        client.begin_post(odd(number));
        client.send(DATA, 0, odd(number), b"a");
    }
    let mut reset = 0;
    let mut next = 50;
    while reset < 50 {
        client.post(odd(next), &query("www.example.org", A).to_vec());
        next += 1;
        loop {
            let frame = client.receive().expect("the connection goes on");
            if frame.kind == RST_STREAM {
                assert_eq!(frame.payload, 8_u32.to_be_bytes(), "CANCEL");
                reset += 1;
            }
            if frame.kind == DATA {
                break;
            }
        }
    }
    // Without any query, all of it ends.
    let mut client = Http2Client::new(at(&server));
    client.begin_post(1);
    client.send(DATA, 0, 1, b"a");
    client.rest();
}

#[test]
fn bodies_that_are_not_whole_have_a_bound_together() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    let mut client = Http2Client::new(at(&server));
    let part = vec![0; 16_384];
    let mut sent = 0;
    // What goes beyond the window is against the rules, and the end (RFC 9113 section 6.9.1).
    for number in 0..128 {
        client.begin_post(odd(number));
        for _ in 0..3 {
            sent += if client.send(DATA, 0, odd(number), &part) { part.len() } else { 0 };
        }
    }
    assert_eq!(client.error_of_end().unwrap_or(3), 3, "FLOW_CONTROL_ERROR after {sent} octets");
    assert_served(&server);
}

#[test]
fn a_body_that_is_longer_than_was_said_is_no_message() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    let message = query("www.example.org", A).to_vec();
    let mut client = Http2Client::new(at(&server));
    let fields = [post_fields(), field("content-length", "20")].concat();
    client.send(HEADERS, END_HEADERS, 1, &fields);
    client.send(DATA, END_STREAM, 1, &message);
    let frame = client.receive_until(|frame| frame.stream == 1).expect("a frame");
    assert_eq!((frame.kind, frame.payload), (RST_STREAM, 1_u32.to_be_bytes().to_vec()), "PROTOCOL_ERROR");
    // By HTTP/1.1 what is too much is the next request, and none.
    let mut client = TcpStream::connect(at(&server)).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let head = "POST /dns-query HTTP/1.1\r\nhost: a\r\ncontent-type: application/dns-message\r\n";
    write!(client, "{head}content-length: {}\r\n\r\n", message.len()).expect("it is sent");
    client.write_all(&[&message[..], &[0; 40]].concat()).expect("it is sent");
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.starts_with("HTTP/1.1 200 OK") && heard.contains("HTTP/1.1 400 Bad Request"), "{heard}");
    // Two lengths are none (request smuggling).
    let mut client = TcpStream::connect(at(&server)).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    write!(client, "{head}content-length: 5\r\ncontent-length: 6\r\n\r\n123456").expect("it is sent");
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    assert!(heard.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&heard));
    assert_served(&server);
}

#[test]
fn what_comes_with_a_get_is_thrown_away() {
    // CVE-2026-40208 of dnsdist, by HTTP/3. Three megabytes here: nothing of it is kept, and the window of
    // the connection opens again.
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    let encoded = data_encoding::BASE64URL_NOPAD.encode(&query("www.example.org", A).to_vec());
    let fields = [&[0x82, 0x86][..], &field(":path", &format!("/dns-query?dns={encoded}"))].concat();
    let mut client = Http2Client::new(at(&server));
    for number in 0..60 {
        assert!(client.send(HEADERS, END_HEADERS, odd(number), &fields));
        let parts = [0, 0, if number % 2 == 0 { END_STREAM } else { 0 }];
        assert!(parts.iter().all(|flags| client.send(DATA, *flags, odd(number), &[0; 16_384])));
        let body = client.body_of(odd(number)).unwrap_or_else(|| panic!("no response after {number}"));
        assert_eq!(Response { bytes: body }.answers(), [ADDRESS]);
    }
    assert_served(&server);
}

#[test]
fn requests_sent_ahead_wait_for_their_turn_and_for_the_reader() {
    // Without end and unread, by HTTP/1.1: what is not taken is slowed down by TCP, and cut after `idle`.
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "idle = '1s'");
    let mut client = TcpStream::connect(at(&server)).expect("the server listens");
    client.set_nonblocking(true).expect("a socket");
    let encoded = data_encoding::BASE64URL_NOPAD.encode(&query("www.example.org", A).to_vec());
    let many = format!("GET /dns-query?dns={encoded} HTTP/1.1\r\nhost: a\r\n\r\n").repeat(100);
    let resident = server.process.resident();
    let begun = Instant::now();
    loop {
        match client.write(many.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => assert_served(&server),
            Err(_) => break,
        }
        assert!(begun.elapsed() < PATIENCE, "it is not cut");
    }
    let grown = server.process.resident().saturating_sub(resident);
    assert!(grown < 20 << 20, "{grown} octets");
}

#[test]
fn a_head_octet_by_octet_is_no_query() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "first_query = '300ms'\nidle = '300ms'");
    let mut client = TcpStream::connect(at(&server)).expect("the server listens");
    client.set_read_timeout(Some(ms(5))).expect("a timeout above zero");
    client.write_all(b"GET /dns-query HTTP/1.1\r\nx: ").expect("it is sent");
    let begun = Instant::now();
    loop {
        match client.read(&mut [0; 512]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        if client.write_all(b"y").is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "slowloris stays");
    }
    let labels = [("transport", "http"), ("result", "timed_out")];
    until("it is counted", || (server.admin().metrics().sum("hedgerow_connections_total", &labels) == 1).then_some(()));
}

#[test]
fn a_client_that_wants_no_octet_of_its_responses_is_left() {
    // It opens no window, and shows that it is there.
    let script = truncated().by_tcp(reply(|reply| {
        (0..2000).fold(reply, |reply, i| reply.answer(a(&format!("10.0.{}.{}", i / 250, i % 250))))
    }));
    let backend = Backend::new(script.except("other", answer(ADDRESS)));
    let server = start(&backend, "idle = '500ms'\nin_flight = 16");
    let mut client = Http2Client::with(at(&server), &[(4, 0)]);
    for number in 0..100 {
        client.post(odd(number), &query(&format!("{number}.example.org"), A).to_vec());
    }
    let begun = Instant::now();
    while client.send(PING, 0, 0, &[1; 8]) && client.receive().is_some() {
        assert!(begun.elapsed() < PATIENCE, "it stays");
    }
    // Each by UDP, and since it is truncated by TCP.
    let asked = backend.queries().iter().filter(|seen| !seen.is_probe()).count();
    assert!(asked <= 2 * 16, "{asked} queries were asked for who reads nothing");
    assert_served(&server);
}

#[test]
fn requests_that_ask_nothing_have_an_end() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "");
    let mut client = Http2Client::new(at(&server));
    let fields = [&[0x82, 0x86][..], &field(":path", "/")].concat();
    let mut answered = 0;
    for number in 0..1000 {
        if !client.send(HEADERS, END_HEADERS | END_STREAM, odd(number), &fields)
            || client.body_of(odd(number)).is_none()
        {
            break;
        }
        answered += 1;
    }
    assert!((100..=110).contains(&answered), "{answered}");
    assert_served(&server);
}

/// Fields of a POST with so many more octets.
fn long_head(octets: usize) -> Vec<u8> {
    // The name of the server goes to the table of header fields, and with it what it was read with.
    let indexed = [&[0x41, 11][..], b"dns.example"].concat();
    let fields = [&[0x83, 0x86][..], &indexed, &field(":path", "/dns-query")].concat();
    let filled = field("x", &"y".repeat(100)).repeat(octets / 104);
    [fields, field("content-type", "application/dns-message"), filled].concat()
}

#[test]
fn long_heads_without_a_body_hold_a_bounded_amount() {
    const COUNT: usize = 50;
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "per_client = 0\nmax = 1000\nfirst_query = '30s'");
    let head = long_head(11_000);
    let resident = server.process.resident();
    let mut clients: Vec<_> = (0..COUNT).map(|_| Http2Client::new(at(&server))).collect();
    for client in &mut clients {
        for number in 0..128 {
            if !client.send(HEADERS, END_HEADERS, odd(number), &head) {
                break;
            }
        }
        assert_eq!(client.error_of_end().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    }
    let each = server.process.resident().saturating_sub(resident) / COUNT;
    assert!(each < 400 << 10, "{each} octets of each connection");
    assert_served(&server);
    // A request whose body is to come has no use for a long head.
    let mut client = Http2Client::new(at(&server));
    client.send(HEADERS, END_HEADERS, 1, &long_head(5_000));
    let frame = client.receive_until(|frame| frame.stream == 1).expect("a frame");
    assert_eq!((frame.kind, frame.payload), (RST_STREAM, ENHANCE_YOUR_CALM.to_be_bytes().to_vec()));
}

#[test]
fn bodies_that_do_not_come_by_the_dozen_end_the_connection() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, "first_query = '300ms'");
    let mut client = Http2Client::new(at(&server));
    // One good query keeps the connection.
    client.post(1, &query("www.example.org", A).to_vec());
    (1..101).for_each(|number| assert!(client.begin_post(odd(number))));
    assert_eq!(client.error_of_end().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    assert_served(&server);
}
