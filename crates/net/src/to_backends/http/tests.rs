//! HTTP/2 driven by bytes alone, cut at random places, with a server that follows a script.

use std::io::{BufRead, Cursor, Write};

use dns::first_message;
use h2::server::{self, SendResponse};
use http::{Request, Response};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::CertificateAuthority;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use super::*;
use crate::to_backends::tls::tests::rules;
use crate::to_backends::tls::{ClientTls, TrustRules};

/// Handles a request with this body on the server.
pub(crate) type Script = fn(body: &[u8], &Request<()>, SendResponse<Bytes>);

/// An in-memory HTTP/2 server.
pub(crate) struct Server {
    tls: ServerConnection,
    pipe: Pipe,
    state: ServerState,
    script: Script,
    /// Requests with an unfinished body.
    reading: Vec<Reading>,
    /// The number of requests received.
    pub(crate) asked: usize,
}

type Reading = (Request<()>, RecvStream, SendResponse<Bytes>, Vec<u8>);

type ServerConnected = server::Connection<Pipe, Bytes>;

enum ServerState {
    Begun(Pin<Box<dyn Future<Output = Result<ServerConnected, h2::Error>>>>),
    Open(Box<ServerConnected>),
    Over,
}

impl Server {
    pub(crate) fn new(config: &Arc<ServerConfig>, streams: u32, script: Script) -> Self {
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        tls.set_buffer_limit(None);
        let pipe = Pipe::default();
        let (end, mut builder) = (pipe.clone(), server::Builder::new());
        builder.max_concurrent_streams(streams);
        let begun = Box::pin(async move { builder.handshake(end).await });
        Self { tls, pipe, state: ServerState::Begun(begun), script, reading: Vec::new(), asked: 0 }
    }

    /// Receives bytes and returns the response bytes.
    pub(crate) fn hear(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut octets = Cursor::new(octets);
        while self.tls.read_tls(&mut octets).unwrap() > 0 {
            self.tls.process_new_packets().unwrap();
            let mut reader = self.tls.reader();
            while let Ok(found @ [_, ..]) = reader.fill_buf() {
                let taken = found.len();
                self.pipe.fill(|input| input.extend_from_slice(found));
                reader.consume(taken);
            }
        }
        // Repeated because each poll may enable another.
        (0..4).for_each(|_| self.poll());
        let Self { tls, pipe, .. } = self;
        pipe.drain(|octets| tls.writer().write_all(octets).unwrap());
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        out
    }

    fn poll(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        if let ServerState::Begun(begun) = &mut self.state {
            match begun.as_mut().poll(context) {
                Poll::Ready(Ok(connection)) => self.state = ServerState::Open(Box::new(connection)),
                Poll::Ready(Err(_)) => self.state = ServerState::Over,
                Poll::Pending => {}
            }
        }
        let ServerState::Open(connection) = &mut self.state else { return };
        loop {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.asked += 1;
                    let (head, body) = request.into_parts();
                    self.reading.push((Request::from_parts(head, ()), body, respond, Vec::new()));
                }
                Poll::Ready(_) => {
                    self.state = ServerState::Over;
                    return;
                }
                Poll::Pending => break,
            }
        }
        let mut reading = std::mem::take(&mut self.reading);
        reading.retain_mut(|(_, stream, _, body)| {
            while let Poll::Ready(Some(Ok(octets))) = stream.poll_data(context) {
                let _ = stream.flow_control().release_capacity(octets.len());
                body.extend_from_slice(&octets);
            }
            true
        });
        for (request, stream, respond, body) in reading {
            if stream.is_end_stream() {
                (self.script)(&body, &request, respond);
            } else {
                self.reading.push((request, stream, respond, body));
            }
        }
    }

    pub(crate) fn go_away(&mut self) {
        let ServerState::Open(connection) = &mut self.state else { panic!("it is not open") };
        connection.graceful_shutdown();
    }
}

/// Returns the query as a reply.
pub(crate) fn echo(body: &[u8], request: &Request<()>, mut respond: SendResponse<Bytes>) {
    assert_eq!(
        (request.uri().path(), request.headers()["content-type"].as_bytes()),
        ("/q", &b"application/dns-message"[..])
    );
    assert_eq!(body[..2], [0, 0], "the ID on the wire");
    let mut reply = body.to_vec();
    reply[2] |= 0x80;
    let head = Response::builder().header("content-type", "application/dns-message").body(()).unwrap();
    respond.send_response(head, false).unwrap().send_data(reply.into(), true).unwrap();
}

fn query(id: u16, length: usize) -> Vec<u8> {
    let mut query = vec![0; length.max(12)];
    query[..2].copy_from_slice(&id.to_be_bytes());
    query[4..6].copy_from_slice(&id.to_be_bytes());
    query
}

struct Play {
    connection: Http2Connection,
    server: Server,
    rng: StdRng,
    replies: Vec<Vec<u8>>,
    news: ConnectionEvents,
    now: Instant,
}

/// Returns a trusting client and the server's configuration with these protocols.
pub(crate) fn trust(alpn: &[&[u8]]) -> (ClientTls, Arc<ServerConfig>) {
    let ca = CertificateAuthority::new();
    let alpn_of = |alpn: &[&[u8]]| alpn.iter().map(|protocol| protocol.to_vec()).collect::<Vec<_>>();
    let rules = TrustRules { alpn: alpn_of(&[b"h2"]), ..rules(&ca, Some("dns.example")) };
    let mut server = (*ca.leaf(&["dns.example"]).server()).clone();
    server.alpn_protocols = alpn_of(alpn);
    (ClientTls::new(&rules).unwrap(), Arc::new(server))
}

pub(crate) fn target() -> HttpTarget {
    HttpTarget::new(([192, 0, 2, 1], 443).into(), Some("dns.example"), &"/q".parse().unwrap())
}

impl Play {
    fn new(seed: u64, trust: &(ClientTls, Arc<ServerConfig>), streams: u32, script: Script) -> Self {
        Self::built_by(&builder(), seed, trust, streams, script)
    }

    fn built_by(
        builder: &Builder,
        seed: u64,
        (tls, config): &(ClientTls, Arc<ServerConfig>),
        streams: u32,
        script: Script,
    ) -> Self {
        let mut connection = Http2Connection::built_by(builder, tls.begin().unwrap(), target()).unwrap();
        connection.connected();
        let server = Server::new(config, streams, script);
        let rng = StdRng::seed_from_u64(seed);
        Self { connection, server, rng, replies: Vec::new(), news: ConnectionEvents::default(), now: Instant::now() }
    }

    /// Exchanges bytes in both directions until none move, cut at random places.
    fn drive(&mut self) -> Result<(), ConnectionFailure> {
        let (mut to_server, mut to_client) = (Vec::new(), self.server.hear(&[]));
        loop {
            let output = self.connection.output(self.now);
            if !output.is_empty() {
                let length = output.len().div_ceil(2);
                to_server.extend_from_slice(&output[..length]);
                self.connection.wrote(length);
            } else if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
            let mut part = |all: &mut Vec<u8>| {
                let length = self.rng.random_range(1..=all.len().min(3_000));
                all.drain(..length).collect::<Vec<u8>>()
            };
            if !to_server.is_empty() {
                to_client.extend(self.server.hear(&part(&mut to_server)));
            }
            if !to_client.is_empty() {
                let part = part(&mut to_client);
                let heard = self.connection.hear(&part, self.now);
                self.take();
                heard?;
            }
        }
    }

    fn take(&mut self) {
        let mut taken = Vec::new();
        self.connection.take_messages(&mut taken);
        let mut rest = taken.as_slice();
        while let Some((message, end)) = first_message(rest) {
            self.replies.push(message.to_vec());
            rest = &rest[end..];
        }
        if let Some(ConnectionEvents { failed, lost, pause, has_sign }) = self.connection.take_news() {
            self.news.failed.extend(failed);
            self.news.lost.extend(lost);
            self.news.pause = self.news.pause.max(pause);
            self.news.has_sign |= has_sign;
        }
    }

    /// Returns the IDs of the replies, sorted.
    fn replied(&self) -> Vec<u16> {
        let mut ids: Vec<_> = self.replies.iter().map(|reply| u16::from_be_bytes([reply[0], reply[1]])).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn everything_comes_back_with_its_id_however_it_is_cut() {
    let trust = trust(&[b"h2"]);
    for seed in 0..40 {
        let mut play = Play::new(seed, &trust, 100, echo);
        let lengths: Vec<_> = (0..60).map(|_| play.rng.random_range(12..2_000)).collect();
        let queries: Vec<_> = (0..60).zip(lengths).map(|(id, length)| query(id, length)).collect();
        // Some queries are queued before the connection opens.
        queries[..30].iter().for_each(|query| play.connection.queue(query).unwrap());
        assert!(!play.connection.is_answered());
        play.drive().unwrap();
        assert_eq!(
            (play.connection.state(), play.connection.is_answered()),
            (ConnectionState::Open, true),
            "seed {seed}"
        );
        assert_eq!(
            play.connection.opened(),
            if seed == 0 { BackendHandshake::Full } else { BackendHandshake::Resumed }
        );
        queries[30..].iter().for_each(|query| play.connection.queue(query).unwrap());
        play.drive().unwrap();
        play.replies.sort();
        let expected = queries.iter().map(|query| {
            let mut reply = query.clone();
            reply[2] = 0x80;
            reply
        });
        assert!(play.replies.iter().cloned().eq(expected), "seed {seed}");
        // The longest messages, larger in total than any window.
        (0..20).for_each(|id| play.connection.queue(&query(id, 65_535)).unwrap());
        play.drive().unwrap();
        assert_eq!((play.replies.len(), play.server.asked), (80, 80), "seed {seed}");
        assert!(play.connection.requests.places.is_empty() && play.connection.unwritten() == 0);
        assert!(play.connection.queue(&query(0, 65_536)).is_none());
        play.connection.close(play.now);
        let output = play.connection.output(play.now).to_vec();
        play.server.hear(&output);
        assert!(matches!(play.server.state, ServerState::Over), "seed {seed}: no GOAWAY came");
    }
}

#[test]
fn no_more_streams_are_opened_than_the_backend_allows() {
    let trust = trust(&[b"h2"]);
    let mut play = Play::new(1, &trust, 2, |_, _, respond| std::mem::forget(respond));
    play.drive().unwrap();
    assert!(play.connection.has_room());
    for id in 0..3 {
        play.connection.queue(&query(id, 40)).unwrap();
        assert_eq!(play.connection.has_room(), id == 0);
    }
    play.drive().unwrap();
    assert_eq!(play.server.asked, 2);
    // Forgotten queries make room for other queries.
    assert!(play.connection.forget(0) && !play.connection.forget(7) && !play.connection.forget(0));
    play.drive().unwrap();
    assert_eq!(play.server.asked, 3);
    assert!(play.connection.forget(2) && play.connection.forget(1) && play.connection.has_room());
}

#[test]
fn time_in_caches_is_taken_from_the_ttls() {
    let trust = trust(&[b"h2"]);
    let mut play = Play::new(4, &trust, 100, |_, _, mut respond| {
        let head = Response::builder().header("content-type", "application/dns-message").header("age", "50");
        let record = [0, 0, 1, 0, 1, 0, 0, 0, 200, 0, 4, 192, 0, 2, 1];
        let reply = [&[0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &record].concat();
        respond.send_response(head.body(()).unwrap(), false).unwrap().send_data(reply.into(), true).unwrap();
    });
    play.connection.queue(&query(1, 40)).unwrap();
    play.drive().unwrap();
    assert_eq!((play.replied(), play.replies[0][25]), (vec![1], 150));
}

#[test]
fn the_last_stream_is_the_end_of_a_connection() {
    // RFC 9113 section 5.1.1. If stream numbers restart, replies reach the wrong query (CVE-2026-33596 of
    // dnsdist).
    const LAST: u32 = (1 << 31) - 1;
    let trust = trust(&[b"h2"]);
    let mut builder = builder();
    builder.initial_stream_id(LAST - 4);
    let mut play = Play::built_by(&builder, 3, &trust, 100, echo);
    play.drive().unwrap();
    (0..6).for_each(|id| play.connection.queue(&query(id, 40)).unwrap());
    play.drive().unwrap();
    assert_eq!((play.replied(), play.server.asked), (vec![0, 1, 2], 3));
    play.news.lost.sort_unstable();
    assert_eq!(play.news.lost, [3, 4, 5], "they are asked by another connection");
    assert!(play.connection.is_ending() && !play.connection.has_room());
}

#[test]
fn a_response_that_is_no_reply_fails_its_query_alone() {
    let trust = trust(&[b"h2"]);
    let mut play = Play::new(2, &trust, 100, |body, request, mut respond| {
        let ok = || Response::builder().header("content-type", "application/dns-message");
        let mut say = |head: http::response::Builder, body: Vec<u8>| {
            let head = head.body(()).unwrap();
            let _ = respond.send_response(head, false).and_then(|mut stream| stream.send_data(body.into(), true));
        };
        match body[5] {
            0 => say(ok().status(500), vec![0x80; 40]),
            1 => say(Response::builder().header("content-type", "text/html"), vec![0x80; 40]),
            2 => say(ok(), vec![0x80; 11]),
            3 => say(ok(), vec![0x80; 70_000]),
            4 => say(ok(), vec![0; 40]),
            5 => say(ok().status(503).header("retry-after", "7"), Vec::new()),
            6 => respond.send_reset(Reason::INTERNAL_ERROR),
            7 => respond.send_reset(Reason::REFUSED_STREAM),
            _ => echo(body, request, respond),
        }
    });
    for id in 0..10 {
        play.connection.queue(&query(id, 40)).unwrap();
    }
    play.drive().unwrap();
    assert_eq!(play.replied(), [8, 9]);
    assert_eq!(play.news.pause, Some(Duration::from_secs(7)));
    assert_eq!(play.news.lost, [7]);
    let mut failed = std::mem::take(&mut play.news.failed);
    failed.sort_by_key(|failed| failed.id);
    let problems: Vec<_> = failed.iter().map(|failed| failed.problem.trim_start_matches("it answered with ")).collect();
    assert_eq!(
        problems,
        [
            "HTTP status 500",
            "the content type \"text/html\"",
            "a body that is too short for DNS",
            "a body that is too long for DNS",
            "its response body is not a DNS reply",
            "HTTP status 503",
            "it reset the stream of a query (INTERNAL_ERROR)",
        ]
    );
    // The connection stays open.
    play.connection.queue(&query(8, 40)).unwrap();
    play.drive().unwrap();
    assert_eq!(play.replied(), [8, 8, 9]);
}

#[test]
fn a_goaway_lets_what_it_covers_come_and_loses_the_rest() {
    let trust = trust(&[b"h2"]);
    for seed in 0..20 {
        let mut play = Play::new(seed, &trust, 3, echo);
        play.drive().unwrap();
        for id in 0..3 {
            play.connection.queue(&query(id, 900)).unwrap();
        }
        // The server sends GOAWAY before it receives the queries, so GOAWAY covers them.
        play.server.go_away();
        let ended = play.drive();
        assert!(play.connection.is_ending() && !play.connection.has_room(), "seed {seed}");
        let mut all = play.replied();
        all.extend(play.news.lost.iter().copied());
        all.sort_unstable();
        let left = 3 - all.len();
        assert!(left == 0 || ended.is_err(), "seed {seed}: {all:?}");
        assert!(all.windows(2).all(|two| two[0] != two[1]), "seed {seed}: {all:?}");
    }
}

#[test]
fn what_is_queued_behind_a_goaway_is_lost() {
    let mut play = Play::new(3, &trust(&[b"h2"]), 1, |_, _, respond| std::mem::forget(respond));
    play.drive().unwrap();
    (0..3).for_each(|id| play.connection.queue(&query(id, 40)).unwrap());
    play.drive().unwrap();
    assert_eq!(play.server.asked, 1);
    play.server.go_away();
    play.drive().unwrap();
    assert_eq!((play.news.lost.clone(), play.connection.is_ending()), (vec![1, 2], true));
    assert!(!play.connection.requests.places.is_empty(), "the first is waited for");
}

#[test]
fn a_ping_is_a_sign_of_life() {
    let mut play = Play::new(4, &trust(&[b"h2"]), 100, |_, _, respond| std::mem::forget(respond));
    play.drive().unwrap();
    play.connection.queue(&query(1, 40)).unwrap();
    play.drive().unwrap();
    for _ in 0..2 {
        assert!(!play.news.has_sign && play.connection.ping() && play.connection.ping());
        play.drive().unwrap();
        assert!(std::mem::take(&mut play.news.has_sign));
    }
}

#[test]
fn who_does_not_agree_on_http2_is_not_spoken_to() {
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let trust = trust(alpn);
        let mut connection = Http2Connection::new(trust.0.begin().unwrap(), target()).unwrap();
        connection.connected();
        let mut tls = ServerConnection::new(Arc::clone(&trust.1)).unwrap();
        let problem = loop {
            let output = connection.output(Instant::now()).to_vec();
            connection.wrote(output.len());
            let mut octets = Cursor::new(&output);
            let _ = tls.read_tls(&mut octets);
            let _ = tls.process_new_packets();
            let mut answer = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut answer).unwrap();
            }
            match connection.hear(&answer, Instant::now()) {
                Ok(()) => assert!(!answer.is_empty(), "neither has anything to say"),
                Err(ConnectionFailure::Tls(problem)) => break problem,
                Err(other) => panic!("{other:?}"),
            }
        };
        let is_reported = problem.contains("ALPN") || problem.contains("NoApplicationProtocol");
        assert!(is_reported, "{problem}");
        assert_eq!(connection.state(), ConnectionState::Closing);
    }
}

#[test]
fn noise_within_tls_ends_the_connection() {
    let trust = trust(&[b"h2"]);
    for seed in 0..60 {
        let mut play = Play::new(seed, &trust, 100, echo);
        play.drive().unwrap();
        play.connection.queue(&query(1, 40)).unwrap();
        let mut noise = vec![0; play.rng.random_range(9..400)];
        play.rng.fill(&mut noise[..]);
        // Keeps the frame length small.
        noise[..3].fill(0);
        noise[2] = 20;
        play.server.tls.writer().write_all(&noise).unwrap();
        let mut octets = Vec::new();
        while play.server.tls.wants_write() {
            play.server.tls.write_tls(&mut octets).unwrap();
        }
        // The client must ignore unknown frames (RFC 9113 section 5.5): the test only requires that it ends
        // or continues.
        let heard = play.connection.hear(&octets, play.now);
        assert!(
            matches!(
                heard,
                Ok(()) | Err(ConnectionFailure::Protocol | ConnectionFailure::Goaway | ConnectionFailure::Ended)
            ),
            "seed {seed}: {heard:?}"
        );
    }
}

#[test]
fn floods_end_the_connection_and_memory_stays_flat() {
    let trust = trust(&[b"h2"]);
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let endless_headers = [frame(1, 0, 1, &[0x88]), vec![]].concat();
    let floods = [
        ("empty DATA", Vec::new(), frame(0, 0, 1, &[])),
        ("CONTINUATION", endless_headers, frame(9, 0, 1, &[0; 16_000])),
        ("pushes", Vec::new(), frame(5, 4, 1, &[0, 0, 0, 2, 0x82])),
    ];
    for (name, first, more) in floods {
        let mut play = Play::new(5, &trust, 100, |_, _, respond| std::mem::forget(respond));
        play.drive().unwrap();
        play.connection.queue(&query(1, 40)).unwrap();
        play.drive().unwrap();
        let mut send = |plain: &[u8]| {
            play.server.tls.writer().write_all(plain).unwrap();
            let mut octets = Vec::new();
            while play.server.tls.wants_write() {
                play.server.tls.write_tls(&mut octets).unwrap();
            }
            octets.chunks(16 * 1024).try_for_each(|part| play.connection.hear(part, play.now))
        };
        let ended = send(&first).is_err() || (0..200_000).any(|_| send(&more).is_err());
        assert!(ended, "{name}");
        let kept = play.connection.transport.output_capacity() + play.connection.input.capacity();
        assert!(kept < 1 << 20, "{name}: {kept}");
    }
}

#[test]
fn who_has_us_answer_and_does_not_read_that_is_cut() {
    let trust = trust(&[b"h2"]);
    // A PING frame and a SETTINGS frame.
    for frame in [&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]] {
        for reads in [true, false] {
            let mut play = Play::new(6, &trust, 100, echo);
            play.drive().unwrap();
            let mut most = 0;
            let went_on = (0..3_000).all(|_| {
                play.server.tls.writer().write_all(&frame.repeat(50)).unwrap();
                let mut octets = Vec::new();
                while play.server.tls.wants_write() {
                    play.server.tls.write_tls(&mut octets).unwrap();
                }
                let heard = play.connection.hear(&octets, play.now);
                let output = play.connection.output(play.now).len();
                most = most.max(output);
                if reads {
                    play.connection.wrote(output);
                }
                heard.is_ok()
            });
            assert_eq!(went_on, reads);
            assert!(most < 2 << 20, "{most}");
        }
    }
}
