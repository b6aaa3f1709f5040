//! Connections driven by bytes alone: cut at every place, cut at random places, and with input that is not a
//! reply.

use std::io::{BufRead, Cursor, Write};
use std::sync::Arc;

use dns::{HEADER_LEN, append_frame, first_message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::CertificateAuthority;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use super::super::connection::AskedIds;
use super::*;
use crate::to_backends::tls::ClientTls;
use crate::to_backends::tls::tests::rules;

/// Returns any time: these connections use no clock.
fn now() -> Instant {
    Instant::now()
}

/// Returns a reply with this ID and length.
fn reply(id: u16, length: usize) -> Vec<u8> {
    let mut reply = vec![0; length.max(HEADER_LEN)];
    reply[..2].copy_from_slice(&id.to_be_bytes());
    reply[2] = 0x80;
    reply
}

fn frames(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut frames = Vec::new();
    messages.iter().for_each(|message| append_frame(message, &mut frames).unwrap());
    frames
}

/// Moves the received messages of the connection to `into`, in order.
fn take(connection: &mut FrameConnection, into: &mut Vec<Vec<u8>>) {
    let mut taken = Vec::new();
    connection.take_messages(&mut taken);
    let mut rest = taken.as_slice();
    while let Some((message, end)) = first_message(rest) {
        into.push(message.to_vec());
        rest = &rest[end..];
    }
    assert!(rest.is_empty());
}

fn by_tcp() -> FrameConnection {
    let mut connection = FrameConnection::new(None);
    assert!(!connection.is_answered());
    connection.connected();
    assert_eq!(connection.state(), ConnectionState::Open);
    connection
}

#[test]
fn messages_are_whole_wherever_octets_are_cut() {
    let messages = [reply(1, 12), reply(2, 300), reply(3, 40)];
    let octets = frames(&messages);
    for cut in 0..=octets.len() {
        let mut connection = by_tcp();
        let mut found = Vec::new();
        for part in [&octets[..cut], &octets[cut..]] {
            connection.hear(part, now()).unwrap();
            take(&mut connection, &mut found);
        }
        assert_eq!(found, messages, "cut at {cut}");
        assert!(connection.input.is_empty());
    }
}

#[test]
fn input_is_bounded_by_one_message_and_one_read() {
    let octets = frames(&[reply(1, 65_535), reply(2, 65_535)]);
    let mut connection = by_tcp();
    let mut found = Vec::new();
    for part in octets.chunks(16 * 1024) {
        connection.hear(part, now()).unwrap();
        assert!(connection.input.len() < 65_537 + 16 * 1024);
        take(&mut connection, &mut found);
        assert!(connection.input.len() < 65_537);
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn what_is_no_reply_breaks_a_connection() {
    let query = {
        let mut query = reply(1, 12);
        query[2] = 0;
        query
    };
    for octets in [frames(&[query]), vec![0, 11], vec![0, 0], b"HTTP/1.1 400 Bad Request\r\n".to_vec()] {
        let mut connection = by_tcp();
        assert_eq!(connection.hear(&octets, now()), Err(ConnectionFailure::Protocol), "{octets:?}");
        assert_eq!(connection.state(), ConnectionState::Closing);
        connection.queue(&reply(1, 12)).unwrap();
        assert!(connection.output(now()).is_empty());
    }
}

#[test]
fn queries_leave_together_when_it_is_open() {
    let mut connection = FrameConnection::new(None);
    let queries = [vec![1; 30], vec![2; 40]];
    queries.iter().for_each(|query| connection.queue(query).unwrap());
    assert!(connection.output(now()).is_empty());
    connection.connected();
    let expected = frames(&queries);
    assert_eq!(connection.output(now()), expected);
    // The connection offers the unwritten rest again, followed by newly queued frames.
    connection.wrote(10);
    connection.queue(&queries[0]).unwrap();
    assert_eq!(connection.output(now()), [&expected[10..], &frames(&queries[..1])].concat());
    let all = connection.unwritten();
    connection.wrote(all);
    assert!(connection.output(now()).is_empty() && connection.unwritten() == 0);
    assert_eq!(connection.queue(&vec![0; 65_536]), None);
}

/// A server that returns each query as its reply.
struct Echo {
    tls: ServerConnection,
    heard: Vec<u8>,
    asked: usize,
}

impl Echo {
    fn new(config: &Arc<ServerConfig>) -> Self {
        Self { tls: ServerConnection::new(Arc::clone(config)).unwrap(), heard: Vec::new(), asked: 0 }
    }

    /// Receives bytes and returns the response bytes.
    fn hear(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        hear_server(&mut self.tls, octets, &mut plain);
        self.heard.extend_from_slice(&plain);
        while let Some((message, end)) = first_message(&self.heard) {
            let mut answer = message.to_vec();
            answer[2] |= 0x80;
            self.tls.writer().write_all(&frames(&[answer])).unwrap();
            self.heard.drain(..end);
            self.asked += 1;
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }
}

fn hear_server(tls: &mut ServerConnection, octets: &[u8], plain: &mut Vec<u8>) {
    let mut octets = Cursor::new(octets);
    while tls.read_tls(&mut octets).unwrap() > 0 {
        tls.process_new_packets().unwrap();
        let mut reader = tls.reader();
        while let Ok(found @ [_, ..]) = reader.fill_buf() {
            let taken = found.len();
            plain.extend_from_slice(found);
            reader.consume(taken);
        }
    }
}

/// Exchanges bytes between both sides until none move, with reads and writes of random length.
fn drive(connection: &mut FrameConnection, echo: &mut Echo, rng: &mut StdRng, found: &mut Vec<Vec<u8>>) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut part = |all: &mut Vec<u8>| {
        let length = rng.random_range(1..=all.len().min(3_000));
        all.drain(..length).collect::<Vec<u8>>()
    };
    loop {
        let output = connection.output(now());
        if !output.is_empty() {
            let length = output.len().div_ceil(2);
            to_server.extend_from_slice(&output[..length]);
            connection.wrote(length);
        } else if to_server.is_empty() && to_client.is_empty() {
            return;
        }
        if !to_server.is_empty() {
            let answer = echo.hear(&part(&mut to_server));
            to_client.extend_from_slice(&answer);
        }
        if !to_client.is_empty() {
            connection.hear(&part(&mut to_client), now()).unwrap();
            take(connection, found);
        }
    }
}

#[test]
fn by_tls_everything_comes_back_however_it_is_cut() {
    let ca = CertificateAuthority::new();
    let tls = ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap();
    let server = ca.leaf(&["dns.example"]).server();
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut connection = FrameConnection::new(Some(tls.begin().unwrap()));
        let mut echo = Echo::new(&server);
        let mut found = Vec::new();
        let queries: Vec<_> = (0..40)
            .map(|id| {
                let mut query = reply(id, rng.random_range(12..2_000));
                query[2] = 0;
                query
            })
            .collect();
        // Some queries are queued before the connection opens.
        queries[..20].iter().for_each(|query| connection.queue(query).unwrap());
        connection.connected();
        assert_eq!((connection.state(), connection.is_answered()), (ConnectionState::Handshaking, false));
        drive(&mut connection, &mut echo, &mut rng, &mut found);
        assert_eq!((connection.state(), connection.is_answered()), (ConnectionState::Open, true), "seed {seed}");
        assert_eq!(connection.opened(), if seed == 0 { BackendHandshake::Full } else { BackendHandshake::Resumed });
        queries[20..].iter().for_each(|query| connection.queue(query).unwrap());
        drive(&mut connection, &mut echo, &mut rng, &mut found);
        let expected: Vec<_> = queries
            .iter()
            .map(|query| {
                let mut reply = query.clone();
                reply[2] = 0x80;
                reply
            })
            .collect();
        assert!(found == expected, "seed {seed}");
        // More data at once than the default TLS buffer holds.
        (0..8).for_each(|_| connection.queue(&[0; 60_000]).unwrap());
        drive(&mut connection, &mut echo, &mut rng, &mut found);
        assert_eq!((echo.asked, found.len()), (48, 48));
        connection.close(now());
        let output = connection.output(now()).to_vec();
        echo.hear(&output);
        assert!(matches!(echo.tls.reader().fill_buf(), Ok([])), "seed {seed}: no close_notify came");
    }
}

#[test]
fn noise_and_wrong_certificates_break_a_handshake() {
    let (ca, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let tls = ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap();
    let begin = || {
        let mut connection = FrameConnection::new(Some(tls.begin().unwrap()));
        connection.connected();
        connection
    };
    let mut connection = begin();
    connection.output(now());
    assert_eq!(
        connection.hear(&frames(&[reply(1, 40)]), now()),
        Err(ConnectionFailure::Tls("it does not speak TLS".to_owned()))
    );
    let mut connection = begin();
    let mut echo = Echo::new(&other.leaf(&["dns.example"]).server());
    let answer = echo.hear(connection.output(now()));
    let written = connection.unwritten();
    connection.wrote(written);
    let problem = "the certificate is not signed by a trusted authority".to_owned();
    assert_eq!(connection.hear(&answer, now()), Err(ConnectionFailure::Tls(problem)));
    // The server gets an alert.
    assert!(!connection.output(now()).is_empty());
}

#[test]
fn ids_are_asked_until_a_reply_comes() {
    let mut asked = AskedIds::new();
    assert!(asked.is_empty());
    assert!(asked.insert(0) && asked.insert(u16::MAX) && !asked.insert(0));
    assert!(asked.remove(0) && !asked.remove(0) && !asked.is_empty());
    assert!(asked.remove(u16::MAX) && asked.is_empty());
    (0..1 << 15).for_each(|id| assert!(!asked.are_too_many() && asked.insert(id)));
    assert!(asked.are_too_many());
}
