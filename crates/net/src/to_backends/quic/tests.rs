//! QUIC connections against an in-memory server: datagrams are lost, late, duplicated or cut, and the test
//! controls the clock.

use std::cell::RefCell;

use quinn_proto::TransportErrorCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::CertificateAuthority;
use testkit::quic_server::{TestQuicQuery, TestQuicServer, tls};

use super::*;
use crate::to_backends::tls::tests::rules;

/// A client, a server, and the datagrams in transit.
struct World {
    client: QuicConnection,
    server: TestQuicServer,
    now: Instant,
    rng: StdRng,
    way: Way,
    to_server: Vec<(Instant, Vec<u8>)>,
    to_client: Vec<(Instant, Vec<u8>)>,
    /// Received replies: ID and frame.
    replies: Vec<(u16, Vec<u8>)>,
    failed: Vec<u16>,
    is_overloaded: bool,
    has_sign: bool,
    end: Option<ConnectionFailure>,
    /// Frames that wait for the connection to open.
    waiting: Vec<u8>,
}

/// The behavior of the network.
#[derive(Clone, Copy, Default)]
struct Way {
    /// The percentage of datagrams that are lost, duplicated and cut.
    lost: u32,
    twice: u32,
    cut: u32,
    /// The maximum extra delay in milliseconds.
    jitter: u64,
    /// True if no datagram arrives.
    is_dead: bool,
}

/// A certificate authority, its clients' configuration, and the server's.
struct Place {
    ca: CertificateAuthority,
    server: Arc<tokio_rustls::rustls::ServerConfig>,
    tls: ClientTls,
}

impl Place {
    fn new() -> Self {
        let ca = CertificateAuthority::new();
        let server = Arc::new(tls(&ca.leaf(&["dns.example"]).server(), &[b"doq"]));
        let tls = Self::client(&ca, false);
        Self { ca, server, tls }
    }

    fn client(ca: &CertificateAuthority, early_data: bool) -> ClientTls {
        let mut rules = rules(ca, Some("dns.example"));
        rules.alpn = vec![b"doq".to_vec()];
        rules.early_data = early_data;
        ClientTls::new(&rules).unwrap()
    }

    fn server(&self, change: impl FnOnce(&mut TransportConfig)) -> TestQuicServer {
        TestQuicServer::new(tokio_rustls::rustls::ServerConfig::clone(&self.server), change)
    }

    fn world(&self, seed: u64) -> World {
        self.world_with(seed, self.server(|_| ()))
    }

    fn world_with(&self, seed: u64, server: TestQuicServer) -> World {
        World::new(seed, &self.tls, server)
    }
}

fn client_address() -> SocketAddr {
    "192.0.2.9:40000".parse().unwrap()
}

fn query(id: u16, length: usize) -> Vec<u8> {
    let mut query = vec![0; length.max(HEADER_LEN)];
    query[..2].copy_from_slice(&id.to_be_bytes());
    query[11] = (id & 0xFF) as u8;
    query
}

impl World {
    fn new(seed: u64, tls: &ClientTls, server: TestQuicServer) -> Self {
        let now = Instant::now();
        let client = QuicConnection::new(tls, "192.0.2.1:853".parse().unwrap(), now).unwrap();
        Self {
            client,
            server,
            now,
            rng: StdRng::seed_from_u64(seed),
            way: Way::default(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            replies: Vec::new(),
            failed: Vec::new(),
            is_overloaded: false,
            has_sign: false,
            end: None,
            waiting: Vec::new(),
        }
    }

    /// Sends a query as the connection pool does.
    fn ask(&mut self, id: u16, length: usize) {
        let message = query(id, length);
        if self.client.state() == ConnectionState::Open {
            self.client.queue(&message).unwrap();
        } else {
            append_frame(&message, &mut self.waiting).unwrap();
            self.client.queue_early(&message);
        }
    }

    /// Sends a datagram through the network.
    fn carry(way: Way, rng: &mut StdRng, now: Instant, mut datagram: Vec<u8>, queue: &mut Vec<(Instant, Vec<u8>)>) {
        let mut chance = |of_hundred| rng.random_range(0..100) < of_hundred;
        if way.is_dead || chance(way.lost) {
            return;
        }
        let copies = if chance(way.twice) { 2 } else { 1 };
        if chance(way.cut) {
            datagram.truncate(rng.random_range(0..datagram.len()));
        }
        for _ in 0..copies {
            let late = Duration::from_millis(1 + rng.random_range(0..=way.jitter));
            queue.push((now + late, datagram.clone()));
        }
    }

    /// Sends the datagrams of both sides, and advances the clock to the next event.
    fn step(&mut self) {
        self.step_until(None);
    }

    fn step_until(&mut self, end: Option<Instant>) {
        loop {
            let datagram = self.client.output(self.now).to_vec();
            if datagram.is_empty() {
                break;
            }
            self.client.wrote(datagram.len());
            assert!(datagram.len() <= 1200, "no path takes less, and many no more");
            Self::carry(self.way, &mut self.rng, self.now, datagram, &mut self.to_server);
        }
        for (_, datagram) in self.server.datagrams(self.now) {
            Self::carry(self.way, &mut self.rng, self.now, datagram, &mut self.to_client);
        }
        let arrivals = self.to_server.iter().chain(&self.to_client).map(|(at, _)| *at);
        let timeouts = [self.client.next_timer(), self.server.next_timeout()];
        let next = arrivals.chain(timeouts.into_iter().flatten()).chain(end).min();
        self.now = next.unwrap_or(self.now + Duration::from_millis(10)).max(self.now);
        let now = self.now;
        let come =
            |queue: &mut Vec<(Instant, Vec<u8>)>| -> Vec<_> { queue.extract_if(.., |(at, _)| *at <= now).collect() };
        for (_, datagram) in come(&mut self.to_server) {
            self.server.hear(client_address(), &datagram, now);
        }
        self.server.turn(now);
        let was_open = self.client.state() == ConnectionState::Open;
        for (_, datagram) in come(&mut self.to_client) {
            let _ = self.client.hear(&datagram, now);
        }
        self.end = self.client.on_timer(now).err();
        if !was_open && self.client.state() == ConnectionState::Open {
            self.client.queue_frames(&std::mem::take(&mut self.waiting));
        }
        let mut messages = Vec::new();
        self.client.take_messages(&mut messages);
        let mut rest = messages.as_slice();
        while let Some((message, end)) = first_message(rest) {
            self.replies.push((u16::from_be_bytes([message[0], message[1]]), message.to_vec()));
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
        if let Some(ConnectionEvents { failed, pause, has_sign, .. }) = self.client.take_news() {
            self.failed.extend(failed.into_iter().map(|failed| failed.id));
            self.is_overloaded |= pause.is_some();
            self.has_sign |= has_sign;
        }
    }

    /// Steps until the condition holds. If `answers`, the server answers all queries.
    #[track_caller]
    fn until(&mut self, answers: bool, what: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(120);
        while !what(self) {
            assert!(self.now < end, "it has not come: {:?}, end {:?}", self.client.state(), self.end);
            self.step();
            if answers {
                for query in std::mem::take(&mut self.server.queries) {
                    assert_eq!(query.frame[2..4], [0, 0], "RFC 9250 section 4.2.1");
                    self.server.echo(&query);
                }
            }
        }
    }

    #[track_caller]
    fn open(&mut self) {
        self.until(false, |world| world.client.state() == ConnectionState::Open);
    }

    /// Advances the clock by this time.
    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.step_until(Some(end));
        }
    }

    /// Sends queries and waits until the server has them all.
    #[track_caller]
    fn asked(&mut self, count: u16) -> Vec<TestQuicQuery> {
        (0..count).for_each(|id| self.ask(id, 40));
        self.until(false, |world| world.server.queries.len() == usize::from(count));
        std::mem::take(&mut self.server.queries)
    }

    fn ids(&self) -> Vec<u16> {
        let mut ids: Vec<_> = self.replies.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn everything_comes_back_however_datagrams_fare() {
    let place = Place::new();
    for seed in 0..60 {
        let mut world = place.world(seed);
        world.server.retries = seed % 3 == 0;
        if seed > 0 {
            // The library accepts no second Retry, not even after one that was cut.
            let cut = if world.server.retries { 0 } else { 5 };
            world.way = Way { lost: 10, twice: 5, cut, jitter: 20, is_dead: false };
        }
        let lengths: Vec<usize> = (0..40).map(|_| world.rng.random_range(12..3_000)).collect();
        for (id, length) in (1_000..).zip(&lengths[..20]) {
            world.ask(id, *length);
        }
        world.until(true, |world| world.replies.len() == 20);
        assert_eq!(
            world.client.opened(),
            if seed == 0 { BackendHandshake::Full } else { BackendHandshake::Resumed },
            "seed {seed}"
        );
        for (id, length) in (1_020..).zip(&lengths[20..]) {
            world.ask(id, *length);
        }
        world.until(true, |world| world.replies.len() == 40);
        assert_eq!(world.ids(), (1_000..1_040).collect::<Vec<u16>>(), "seed {seed}");
        for (id, reply) in &world.replies {
            let mut expected = query(*id, lengths[usize::from(id - 1_000)]);
            expected[2] = 0x80;
            assert!(*reply == expected, "seed {seed}");
        }
        assert_eq!((world.client.unwritten(), world.client.queries.streams.len(), world.end.clone()), (0, 0, None));
    }
}

#[test]
fn queries_wait_for_streams_that_the_server_allows() {
    let place = Place::new();
    let mut world = place.world_with(
        1,
        place.server(|transport| {
            transport.max_concurrent_bidi_streams(VarInt::from_u32(3));
        }),
    );
    (0..10).for_each(|id| world.ask(id, 100));
    world.until(false, |world| world.server.queries.len() == 3);
    assert!(!world.client.has_room());
    assert_eq!(world.client.unwritten(), 7 * 102);
    // A canceled query makes room, whether it was sent or not.
    world.client.forget(9);
    assert_eq!(world.client.unwritten(), 6 * 102);
    world.client.forget(0);
    world.until(false, |world| !world.server.cancelled.is_empty());
    assert_eq!(world.server.cancelled, [(world.server.queries[0].stream, VarInt::from_u32(3))]);
    let cancelled = world.server.queries.remove(0);
    world.server.reset(&cancelled, 3);
    world.until(true, |world| world.replies.len() == 8);
    assert_eq!(world.ids(), (1..9).collect::<Vec<u16>>());
    world.until(true, |world| world.client.has_room());
    assert_eq!((world.client.unwritten(), world.failed.len()), (0, 0));
}

#[test]
fn queries_go_in_parts_if_the_server_takes_little_at_once() {
    let place = Place::new();
    let mut world = place.world_with(
        1,
        place.server(|transport| {
            transport.stream_receive_window(VarInt::from_u32(50)).receive_window(VarInt::from_u32(120));
        }),
    );
    (0..10).for_each(|id| world.ask(id, 700));
    world.until(true, |world| world.replies.len() == 10);
    assert_eq!(world.ids(), (0..10).collect::<Vec<u16>>());
    assert_eq!(world.client.unwritten(), 0);
}

#[test]
fn stream_that_the_server_resets_fails_one_query() {
    let place = Place::new();
    for (code, is_overload) in [(1, false), (4, true)] {
        let mut world = place.world(1);
        let queries = world.asked(4);
        world.server.reset(&queries[1], code);
        world.server.echo(&queries[0]);
        world.until(false, |world| !world.failed.is_empty() && world.replies.len() == 1);
        assert_eq!((world.failed.clone(), world.is_overloaded), (vec![1], is_overload));
        // The other queries continue.
        queries[2..].iter().for_each(|query| world.server.echo(query));
        world.until(false, |world| world.replies.len() == 3);
        assert_eq!((world.ids(), world.end), (vec![0, 2, 3], None));
    }
}

#[test]
fn query_that_the_server_stops_fails() {
    let place = Place::new();
    // The query is canceled while it is being sent.
    let mut world = place.world_with(
        1,
        place.server(|transport| {
            transport.stream_receive_window(VarInt::from_u32(50));
        }),
    );
    world.open();
    let stopped = RefCell::new(false);
    world.ask(5, 30_000);
    while world.failed.is_empty() {
        world.step();
        let connection = world.server.connections.values_mut().next().unwrap();
        let stream = StreamId::new(Side::Client, Dir::Bi, 0);
        if !stopped.replace(true) && connection.recv_stream(stream).stop(VarInt::from_u32(4)).is_err() {
            stopped.replace(false);
        }
    }
    assert_eq!((world.failed.clone(), world.is_overloaded, world.client.unwritten()), (vec![5], true, 0));
}

#[test]
fn what_a_server_must_not_say_breaks_a_connection() {
    let place = Place::new();
    let good = |query: &TestQuicQuery| {
        let mut frame = query.frame.clone();
        frame[4] |= 0x80;
        frame
    };
    type Say = Box<dyn Fn(&mut TestQuicServer, &TestQuicQuery)>;
    let sayings: [Say; 7] = [
        // A nonzero ID.
        Box::new(move |server, query| {
            let mut frame = good(query);
            frame[3] = 1;
            server.say(query, &frame, true);
        }),
        // A query in place of a response.
        Box::new(|server, query| server.say(query, &query.frame, true)),
        // Two responses.
        Box::new(move |server, query| server.say(query, &[good(query), good(query)].concat(), true)),
        // Excess data without an end of stream.
        Box::new(move |server, query| server.say(query, &[good(query), vec![0]].concat(), false)),
        // A truncated response.
        Box::new(move |server, query| {
            let frame = good(query);
            server.say(query, &frame[..frame.len() - 1], true);
        }),
        Box::new(|server, query| server.say(query, &[0, 4, 0, 0, 0x80, 0], true)),
        // An empty stream.
        Box::new(|server, query| server.say(query, &[], true)),
    ];
    for (number, say) in sayings.iter().enumerate() {
        let mut world = place.world(1);
        let queries = world.asked(2);
        say(&mut world.server, &queries[0]);
        world.until(false, |world| world.end.is_some());
        assert_eq!((world.end.clone(), world.replies.len()), (Some(ConnectionFailure::Protocol), 0), "{number}");
        world.until(false, |world| !world.server.ends.is_empty());
        let reported = matches!(&world.server.ends[..], [ConnectionError::ApplicationClosed(close)] if close.error_code == DOQ_PROTOCOL_ERROR);
        assert!(reported, "{number}: {:?}", world.server.ends);
    }
}

#[test]
fn ends_are_told_apart() {
    let place = Place::new();
    for (code, end, is_overload) in [
        (0, ConnectionFailure::Ended, false),
        (5, ConnectionFailure::Ended, false),
        // RFC 9250 section 4.3.4: a code that is not known counts as no reason.
        (0x77, ConnectionFailure::Ended, false),
        (4, ConnectionFailure::Ended, true),
        (2, ConnectionFailure::Protocol, false),
    ] {
        let mut world = place.world(1);
        world.asked(3);
        world.server.close(code, world.now);
        world.until(false, |world| world.end.is_some());
        assert_eq!((world.end.clone(), world.is_overloaded), (Some(end), is_overload), "{code}");
        assert_eq!(world.client.state(), ConnectionState::Closing);
    }
    // A restarted server, which only knows its keys.
    let mut world = place.world(1);
    world.asked(1);
    world.server = place.server(|_| ());
    while world.end.is_none() {
        world.client.ping();
        world.pass(100);
    }
    assert_eq!(world.end, Some(ConnectionFailure::Reset));
    // A server with a short idle timeout, which it states.
    let mut world = place.world_with(
        1,
        place.server(|transport| {
            transport.max_idle_timeout(Some(VarInt::from_u32(4_000).into()));
        }),
    );
    world.open();
    assert_eq!(world.client.idle_timeout(), Some(Duration::from_secs(4)));
    let start = world.now;
    world.until(false, |world| world.end.is_some());
    assert_eq!(world.end, Some(ConnectionFailure::TimedOut));
    assert!(world.now >= start + Duration::from_secs(4));
}

#[test]
fn handshakes_fail_in_plain_words() {
    let (place, other) = (Place::new(), Place::new());
    let check = |server: TestQuicServer, expected: &str| {
        let mut world = place.world_with(1, server);
        world.ask(1, 40);
        world.until(false, |world| world.end.is_some());
        assert_eq!(world.end, Some(ConnectionFailure::Tls(expected.to_owned())));
        assert!(world.client.is_answered());
    };
    check(other.server(|_| ()), "the certificate is not signed by a trusted authority");
    let named = place.ca.leaf(&["other.example"]).server();
    check(
        TestQuicServer::new(tls(&named, &[b"doq"]), |_| ()),
        "its certificate is for other.example, not for dns.example",
    );
    let by_alpn = |alpn: &[&[u8]]| TestQuicServer::new(tls(&place.server, alpn), |_| ());
    check(by_alpn(&[b"h3"]), "it ended the handshake or connection with the alert NoApplicationProtocol");
    // RFC 9001 section 8.1: ALPN must be negotiated.
    check(by_alpn(&[]), "it ended the handshake or connection with the alert NoApplicationProtocol");
    let mut refusing = place.server(|_| ());
    refusing.refuses = true;
    let mut world = place.world_with(1, refusing);
    world.until(false, |world| world.end.is_some());
    assert_eq!(world.end, Some(ConnectionFailure::Ended));
}

#[test]
fn queries_go_before_the_handshake_is_complete_if_that_is_wanted() {
    let mut place = Place::new();
    place.tls = Place::client(&place.ca, true);
    let mut first = place.world(1);
    (0..3).for_each(|id| first.ask(id, 60));
    first.until(true, |world| world.replies.len() == 3);
    assert_eq!(first.client.opened(), BackendHandshake::Full);
    // Tickets need some time to arrive.
    first.pass(100);
    // The same server, which knows the session.
    let mut world = World::new(2, &place.tls, first.server);
    world.now = first.now;
    (10..15).for_each(|id| world.ask(id, 60));
    // Other operations must not be sent as early data.
    let mut update = query(20, 60);
    update[2] = 5 << 3;
    append_frame(&update, &mut world.waiting).unwrap();
    world.client.queue_early(&update);
    world.until(false, |world| world.server.queries.len() == 6);
    let early: Vec<_> =
        world.server.queries.iter().filter(|query| query.is_early).map(|query| query.frame[13]).collect();
    assert_eq!(early, [10, 11, 12, 13, 14]);
    world.until(true, |world| world.replies.len() == 6);
    assert_eq!((world.client.opened(), world.ids()), (BackendHandshake::Early, vec![10, 11, 12, 13, 14, 20]));
    // A server that does not know the session: all queries are sent again, once.
    world.pass(100);
    let mut world = World::new(3, &place.tls, TestQuicServer::new(tls(&place.server, &[b"doq"]), |_| ()));
    world.way.lost = 10;
    (30..40).for_each(|id| world.ask(id, 60));
    assert_eq!(world.client.queries.early.len(), 10);
    world.until(true, |world| world.replies.len() == 10);
    assert_eq!((world.client.opened(), world.ids()), (BackendHandshake::Full, (30..40).collect::<Vec<u16>>()));
    assert_eq!((world.client.unwritten(), world.client.queries.streams.len()), (0, 0));
}

#[test]
fn nothing_goes_early_unless_it_is_wanted() {
    let place = Place::new();
    let mut first = place.world(1);
    first.asked(1);
    first.pass(100);
    let mut world = World::new(2, &place.tls, first.server);
    world.now = first.now;
    world.server.queries.clear();
    world.ask(10, 60);
    assert!(world.client.queries.early.is_empty());
    world.until(true, |world| world.replies.len() == 1);
    assert_eq!(world.client.opened(), BackendHandshake::Resumed);
}

#[test]
fn slow_server_gives_a_sign_of_life_and_a_dead_way_does_not() {
    let place = Place::new();
    let mut world = place.world(1);
    world.asked(3);
    // The server has acknowledged the unanswered query.
    world.pass(1_000);
    assert_eq!(world.client.unacknowledged_for(world.now), None);
    world.client.ping();
    assert!(!world.has_sign);
    world.pass(100);
    assert!(std::mem::take(&mut world.has_sign));
    world.way.is_dead = true;
    let asked = world.now;
    world.ask(7, 60);
    world.client.ping();
    world.pass(600);
    assert!(!world.has_sign);
    assert_eq!(world.client.unacknowledged_for(world.now), Some(world.now - asked));
    // The network works again.
    world.way.is_dead = false;
    world.until(false, |world| world.server.queries.len() == 1);
    world.pass(1_000);
    assert!(world.has_sign);
    assert_eq!(world.client.unacknowledged_for(world.now), None);
}

#[test]
fn server_may_begin_no_streams_and_noise_changes_nothing() {
    let place = Place::new();
    let mut world = place.world(1);
    world.open();
    let connection = world.server.connections.values_mut().next().unwrap();
    assert!(connection.streams().open(Dir::Bi).is_none() && connection.streams().open(Dir::Uni).is_none());
    assert_eq!(connection.datagrams().max_size(), None);
    for _ in 0..2_000 {
        let length = world.rng.random_range(0..1_300);
        let noise: Vec<u8> = (0..length).map(|_| world.rng.random()).collect();
        assert_eq!(world.client.hear(&noise, world.now), Ok(()));
    }
    world.ask(1, 40);
    world.until(true, |world| world.replies.len() == 1);
    assert_eq!(world.client.queue(&vec![0; 65_536]), None);
}

#[test]
fn good_bye_is_said() {
    let place = Place::new();
    let mut world = place.world(1);
    world.asked(1);
    world.client.close(world.now);
    world.until(false, |world| !world.server.ends.is_empty());
    let is_meant = |end: &ConnectionError| matches!(end, ConnectionError::ApplicationClosed(close) if close.error_code == DOQ_NO_ERROR);
    assert!(world.server.ends.iter().all(is_meant), "{:?}", world.server.ends);
    // During a handshake the QUIC error code applies (RFC 9000 section 10.2.3).
    let mut world = place.world(1);
    let hello = world.client.output(world.now).to_vec();
    world.client.wrote(hello.len());
    assert!(!hello.is_empty());
    world.server.hear(client_address(), &hello, world.now);
    world.client.close(world.now);
    world.until(false, |world| !world.server.ends.is_empty());
    let is_meant = |end: &ConnectionError| matches!(end, ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::APPLICATION_ERROR);
    assert!(world.server.ends.iter().all(is_meant), "{:?}", world.server.ends);
}
