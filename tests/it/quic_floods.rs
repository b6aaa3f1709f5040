//! QUIC clients that ask for more than they may have, or for nothing: what they hold is bounded, and they are
//! left.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionError, Dir};
use testkit::quic_client::{QuicClient, quic_config};
use testkit::*;

use crate::quic::*;

#[test]
fn streams_that_begin_and_stall_end_with_the_time_of_the_first_query() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nfirst_query = '300ms'\nidle = '20s'";
    let server = start(&forwarder(&backend, keys), &authorities);
    // One octet on every stream that there may be, of a client that has asked before and of one that has not.
    for has_asked in [true, false] {
        let mut client = client_of(&server, &authorities);
        if has_asked {
            client.ask(&asked("www.example.org"));
        }
        while let Some(stream) = client.try_open(Dir::Bi) {
            client.write(stream, &[0], false);
        }
        let began = Instant::now();
        assert_eq!(client.wait_for_close(), Some(PROTOCOL_ERROR), "has asked: {has_asked}");
        assert!(began.elapsed() < Duration::from_secs(10), "not when it is idle: {:?}", began.elapsed());
    }
    // A whole query without the end of its stream, and one that only shakes hands.
    let mut client = client_of(&server, &authorities);
    let stream = client.open();
    client.send(stream, &frame(&asked("www.example.org")), false);
    assert_eq!(client.wait_for_close(), Some(PROTOCOL_ERROR));
    let mut client = client_of(&server, &authorities);
    assert_eq!(client.wait_for_close(), Some(NO_ERROR));
    assert!(sum(&server, "hedgerow_connections_total", &[("result", "timed_out")]) >= 2);
    wait_for_none(&server);
}

#[test]
fn queries_in_parts_hold_little_memory() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    client.ask(&asked("www.example.org"));
    let before = server.process.resident();
    // Four times the longest query, none of them whole.
    for _ in 0..4 {
        let stream = client.open();
        for part in std::iter::once(&[0xff, 0xff][..]).chain([&[0; 8_000][..]; 8]) {
            if client.lost().is_none() {
                client.write(stream, part, false);
                client.listen_for(Duration::from_millis(5));
            }
        }
        if client.lost().is_some() {
            break;
        }
    }
    assert_eq!(client.wait_for_close(), Some(EXCESSIVE_LOAD));
    assert!(server.process.resident() < before + (8 << 20));
}

#[test]
fn streams_that_are_given_up_leave_nothing_behind() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, "[forwarder.connections]\nin_flight = 8"), &authorities);
    let mut client = client_of(&server, &authorities);
    // More than may be in flight, each reset after one octet: a query between them shows that the client
    // means it.
    for round in 0..60 {
        let stream = client.open();
        client.send(stream, &[0], false);
        client.reset(stream, 3);
        client.flush();
        if round % 10 == 9 {
            // RFC 9250 section 4.3.1: DOQ_REQUEST_CANCELLED, in this direction too.
            assert_eq!(client.receive(stream).map(drop), Err(3));
            assert_eq!(client.ask(&asked("www.example.org")).answers(), [ADDRESS]);
        }
    }
    // Queries whose responses the client does not want any more.
    let streams: Vec<_> = (0..8).map(|i| client.begin(&asked(&format!("slow{i}.example.org")))).collect();
    backend.wait_for_name("slow7.example.org", 1);
    for stream in &streams {
        client.stop(*stream, 3);
    }
    client.flush();
    // They count until their responses have come, however often the client gives up.
    let stream = client.begin(&asked("www.example.org"));
    client.listen_for(Duration::from_millis(100));
    backend.release();
    assert_eq!(client.receive(stream).expect("a response").answers(), [ADDRESS]);
    for i in 0..20 {
        assert_eq!(client.ask(&asked(&format!("{i}.example.org"))).answers(), [ADDRESS]);
    }
}

#[test]
fn who_only_resets_streams_is_left() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    client.ask(&asked("www.example.org"));
    let mut count = 0;
    while client.lost().is_none() && count < 1000 {
        if let Some(stream) = client.try_open(Dir::Bi) {
            client.send(stream, &[0], false);
            client.reset(stream, 3);
            count += 1;
        }
        client.listen_for(Duration::from_millis(1));
    }
    assert_eq!(client.wait_for_close(), Some(EXCESSIVE_LOAD), "{:?} after {count}", client.lost());
    assert!(count < 300, "{count} streams");
}

#[test]
fn signs_of_life_are_no_queries() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nfirst_query = '300ms'\nidle = '300ms'";
    let server = start(&forwarder(&backend, keys), &authorities);
    for has_asked in [true, false] {
        let mut client = client_of(&server, &authorities);
        if has_asked {
            client.ask(&asked("www.example.org"));
        }
        let began = Instant::now();
        while client.lost().is_none() {
            assert!(began.elapsed() < PATIENCE, "a client that asks nothing stays; has asked: {has_asked}");
            client.ping();
            client.listen_for(Duration::from_millis(5));
        }
        assert_eq!(client.wait_for_close(), Some(NO_ERROR), "has asked: {has_asked}");
    }
    wait_for_none(&server);
}

#[test]
fn who_takes_nothing_is_left_with_all_that_waited_for_it() {
    let records = 3000;
    let backend = Backend::new(truncated().by_tcp(reply(move |reply| {
        (0..records).fold(reply, |reply, i| reply.answer(a(&format!("10.0.{}.{}", i / 250, i % 250))))
    })));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, "[forwarder.connections]\nidle = '500ms'"), &authorities);
    let mut client = client_of(&server, &authorities);
    // Two megabytes and a half, of which the client acknowledges nothing.
    for _ in 0..50 {
        client.begin(&asked("many.example.org"));
    }
    backend.wait_for_name("many.example.org", 1);
    until("it has been let go", || (sum(&server, "hedgerow_connections", &[]) == 0).then_some(()));
    assert_eq!(client_of(&server, &authorities).ask(&asked("many.example.org")).answers().len(), records);
}

#[test]
fn noise_is_answered_to_nobody() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "").workers(2), &authorities);
    let mut client = client_of(&server, &authorities);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    let mut noise: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        query("www.example.org", A).to_vec(),
        vec![0x40; 40],
        vec![0xff; 1200],
        vec![0xc0; 1200],
        // An Initial of QUIC 1 with nothing in it that can be read.
        [&[0xc0, 0, 0, 0, 1, 8][..], &[7; 8], &[0], &[0; 1186]].concat(),
    ];
    for seed in 0..500_usize {
        let octet = |i: usize| ((i * 131 + seed * 7919) ^ (seed >> 2) ^ (i << 3)) as u8;
        noise.push((0..seed * 3).map(octet).collect());
    }
    for octets in &noise {
        socket.send_to(octets, quic_of(&server)).expect("loopback takes it");
    }
    assert_eq!(client.ask(&asked("www.example.org")).answers(), [ADDRESS]);
    assert_eq!(sum(&server, "hedgerow_connections", &[]), 1);
    assert!(server.process.log().lines().all(|line| !line.contains("ERROR") && !line.contains("panicked")));
}

#[test]
fn a_flood_of_first_packets_asks_for_addresses_and_then_refuses() {
    const COUNT: usize = 600;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 2000\nfirst_query = '30s'";
    let server = start(&forwarder(&backend, keys).workers(1), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    // They say the first word and then nothing: their addresses might be anybody's.
    let silent: Vec<_> = (0..COUNT).map(|_| QuicClient::begun(quic_of(&server), &config, "dns.example")).collect();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS]);
    let accepted = || sum(&server, "hedgerow_connections_total", &[("result", "accepted")]);
    until("some are let in", || (accepted() >= 32).then_some(()));
    // A new client proves its address, and is served.
    let mut honest = QuicClient::of(quic_of(&server), &config, "dns.example");
    assert_eq!(honest.ask(&asked("www.example.org")).answers(), [ADDRESS]);
    let held = sum(&server, "hedgerow_connections", &[]);
    assert!((1..64).contains(&held), "{held} connections of {COUNT} who may not be there");
    drop(silent);
}

#[test]
fn a_full_table_shrinks_the_idle_time_of_open_connections() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nmax = 4\nidle = '1h'\nfirst_query = '1m'";
    let server = start(&forwarder(&backend, keys).workers(1), &authorities);
    let mut clients: Vec<_> = (0..4).map(|_| client_of(&server, &authorities)).collect();
    clients.iter_mut().for_each(|client| drop(client.ask(&asked("www.example.org"))));
    // Which of them has been idle the longest depends on when the server hears that its response has arrived.
    let end = until("the end of one of them", || {
        clients.iter_mut().for_each(|client| client.listen_for(ms(1)));
        clients.iter().find_map(QuicClient::lost).cloned()
    });
    assert!(matches!(end, ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == NO_ERROR));
}

#[test]
fn many_connections_are_bounded_and_freed() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    // Few, because a full table closes connections that have been idle for half a second, and many handshakes
    // may take longer.
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 3";
    let server = start(&forwarder(&backend, keys).workers(2), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = QuicClient::begun(quic_of(&server), &config, "dns.example");
        let _ = client.shake_hands();
        clients.push(client);
    }
    assert!(sum(&server, "hedgerow_connections", &[]) <= 3);
    assert!(sum(&server, "hedgerow_connections_total", &[("result", "refused")]) >= 1);
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [ADDRESS]);
    drop(clients);
    until("room again", || {
        let mut client = QuicClient::begun(quic_of(&server), &config, "dns.example");
        client.shake_hands().ok()?;
        assert_eq!(client.ask(&asked("www.example.org")).answers(), [ADDRESS]);
        Some(())
    });
}
