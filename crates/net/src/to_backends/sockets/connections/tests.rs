//! Connections to scripted backends on loopback: the sockets are real, and the test controls the time.

mod age;
mod http;
mod named;
mod quic;
mod tls;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use dns::{FRAME_PREFIX, append_frame, read_query};
use engine::query_slots::SlotState;
use metrics::ConnectionKind;
use testkit::CertificateAuthority;

use super::*;
use crate::Bypass;
use crate::refusal::SendRefusal;
use crate::to_backends::sockets::Event;
use crate::to_backends::sockets::tests::WorkerSockets;
use crate::to_backends::tls::tests::rules as trust;

/// A worker's connections to one backend, and the backend's end of them.
struct Play {
    sockets: WorkerSockets,
    set: SocketSetId,
    counters: Arc<BackendConnectionCounters>,
    listener: TcpListener,
    /// The time that the rules see.
    now: Instant,
    /// The user data of the queries whose reply has arrived.
    replied: Vec<u32>,
    ended: Vec<(ConnectionEnd, Vec<u32>)>,
    /// Replaces the listener for QUIC.
    quic: Option<quic::QuicPeer>,
}

/// The backend's end of a connection.
struct Peer {
    socket: TcpStream,
    heard: Vec<u8>,
}

fn rules() -> ConnectionPoolRules {
    ConnectionPoolRules { warm: false, ..ConnectionPoolRules::default() }
}

fn sign_of_life() -> Vec<u8> {
    query("sign-of-life.test")
}

fn query(name: &str) -> Vec<u8> {
    let mut query = Vec::new();
    let name = dns::Name::parse(name).unwrap();
    dns::write_plain_query(0, &name, dns::RecordType::A, &mut query);
    query
}

impl Play {
    fn new(rules: ConnectionPoolRules) -> Self {
        Self::with(rules, None)
    }

    fn with(rules: ConnectionPoolRules, tls: Option<ClientTls>) -> Self {
        Self::by(StreamProtocol::Frames, rules, tls)
    }

    fn by(protocol: StreamProtocol, rules: ConnectionPoolRules, tls: Option<ClientTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::at(listener.local_addr().unwrap(), protocol, listener, rules, tls)
    }

    fn at(
        address: SocketAddr,
        protocol: StreamProtocol,
        listener: TcpListener,
        rules: ConnectionPoolRules,
        tls: Option<ClientTls>,
    ) -> Self {
        let counters = Arc::new(BackendConnectionCounters::default());
        let way = StreamWay {
            protocol,
            tls: tls.map(|tls| {
                let tls = Arc::new(tls);
                Box::new(move || Some(Arc::clone(&tls))) as Box<TlsSource>
            }),
            rules,
            is_alone: false,
            health_timeout: Duration::from_secs(1),
            health_interval: Duration::from_secs(2),
            names_clients: false,
            sign_of_life: sign_of_life(),
            counters: Arc::clone(&counters),
        };
        let mut sockets = WorkerSockets::new(16, 128, Rc::new(Bypass::default()));
        let set = sockets.add_by_stream(address, way);
        Self {
            sockets,
            set,
            counters,
            listener,
            now: Instant::now(),
            replied: Vec::new(),
            ended: Vec::new(),
            quic: None,
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.turn();
    }

    fn ask(&mut self, number: u32) -> Result<QuerySlot, SendRefusal> {
        self.ask_elsewhere(number, None)
    }

    fn ask_elsewhere(&mut self, number: u32, avoid: Option<SocketId>) -> Result<QuerySlot, SendRefusal> {
        let asked = self.sockets.queue(self.set, number, (avoid, None), self.now, |out| {
            out.extend_from_slice(&query(&format!("q{number}.test")));
        });
        self.sockets.flush(&mut Vec::new());
        asked
    }

    /// Runs one turn of a worker.
    fn turn(&mut self) {
        if let Some(quic) = &mut self.quic {
            quic.turn(self.now);
        }
        let (mut events, mut messages) = (Vec::new(), Vec::new());
        self.sockets.ready(&mut events);
        for event in events {
            let Event::Connection(number) = event else { continue };
            loop {
                messages.clear();
                let has_more = self.sockets.connections.hear(number, &mut messages, self.now);
                let mut rest = messages.as_slice();
                while let Some((message, end)) = dns::first_message(rest) {
                    let id = u16::from_be_bytes(*message.first_chunk().unwrap());
                    if let Some((slot, SlotState::InFlight(number))) = self.sockets.find(number, id) {
                        self.replied.push(number);
                        self.sockets.release(slot, self.now);
                    }
                    rest = &rest[end..];
                }
                if !has_more {
                    break;
                }
            }
        }
        self.sockets.connections.check(self.now, |_| None);
        while let Some(ended) = self.sockets.connections.pop_ended(self.now) {
            assert_eq!(ended.socket_set, self.set);
            let waiting = self.sockets.take(&ended.slots).into_iter().filter_map(|state| match state {
                SlotState::InFlight(number) => Some(number),
                SlotState::Quarantined(_) => None,
            });
            let mut waiting: Vec<_> = waiting.collect();
            waiting.sort_unstable();
            self.ended.push((ended.how, waiting));
        }
        self.sockets.flush(&mut Vec::new());
        self.sockets.tidy(self.now);
    }

    /// Runs turns, without advancing the time, until the condition holds.
    #[track_caller]
    fn until(&mut self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what(self) {
            assert!(Instant::now() < deadline, "it has not come");
            self.turn();
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn until_open(&mut self, count: u64) {
        self.until(|play| play.counters.open.get() == count);
    }

    fn accept(&self) -> Peer {
        let socket = self.listener.accept().unwrap().0;
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Peer { socket, heard: Vec::new() }
    }

    fn made(&self, kind: ConnectionKind) -> u64 {
        self.counters.made[kind as usize].get()
    }

    fn lost(&self, cause: LostCause) -> u64 {
        self.counters.lost[cause as usize].get()
    }
}

impl Peer {
    /// Returns the next query.
    fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some((message, end)) = dns::first_message(&self.heard) {
                let message = message.to_vec();
                self.heard.drain(..end);
                return message;
            }
            let mut room = [0; 4096];
            let octets = self.socket.read(&mut room).unwrap();
            assert!(octets > 0, "the connection was closed");
            self.heard.extend_from_slice(&room[..octets]);
        }
    }

    fn say(&mut self, message: &[u8]) {
        let mut frame = Vec::new();
        append_frame(message, &mut frame).unwrap();
        self.socket.write_all(&frame).unwrap();
    }

    fn answer(&mut self, query: &[u8]) {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        self.say(&answer);
    }

    /// Reads the remaining data. Returns true if the worker has closed the connection.
    fn is_closed(&mut self) -> bool {
        let mut room = [0; 4096];
        loop {
            match self.socket.read(&mut room) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Ends the connection with a reset.
    fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Writes something other than a reply to a query.
type Noise = dyn Fn(&mut Peer, &[u8]);

fn failed(play: &Play) -> Option<(&str, bool)> {
    match &play.ended.first()?.0 {
        ConnectionEnd::Failed { problem, is_refused } => Some((problem, *is_refused)),
        ConnectionEnd::Lost(..) | ConnectionEnd::Rejected(_) => None,
    }
}

#[test]
fn replies_come_in_any_order_by_one_connection_and_queries_leave_together() {
    let mut play = Play::new(rules());
    assert!(play.sockets.connections.is_cold(play.set));
    (0..3).for_each(|number| assert!(play.ask(number).is_ok()));
    play.until_open(1);
    assert!(!play.sockets.connections.is_cold(play.set));
    let mut peer = play.accept();
    let queries = [peer.next(), peer.next(), peer.next()];
    queries.iter().rev().for_each(|query| peer.answer(query));
    play.until(|play| play.replied.len() == 3);
    assert_eq!(play.replied, [2, 1, 0]);
    assert_eq!((play.made(ConnectionKind::Full), play.ended.len()), (1, 0));
    // With one write: the frames of a turn are one segment here.
    (3..6).for_each(|number| {
        play.sockets
            .queue(play.set, number, (None, None), play.now, |out| out.extend_from_slice(&query("a.test")))
            .unwrap();
    });
    play.sockets.flush(&mut Vec::new());
    let mut room = [0; 4096];
    let octets = peer.socket.read(&mut room).unwrap();
    assert_eq!(octets, 3 * (FRAME_PREFIX + query("a.test").len()));
}

#[test]
fn what_waits_is_lost_with_its_connection_and_the_next_query_goes_by_another() {
    for resets in [false, true] {
        let mut play = Play::new(rules());
        (0..20).for_each(|number| assert!(play.ask(number).is_ok()));
        play.until_open(1);
        let mut peer = play.accept();
        let query = peer.next();
        peer.answer(&query);
        play.until(|play| play.replied == [0]);
        if resets {
            peer.reset()
        } else {
            drop(peer.socket.shutdown(std::net::Shutdown::Both))
        }
        play.until(|play| !play.ended.is_empty());
        let (how, waiting) = play.ended.remove(0);
        assert_eq!(waiting, (1..20).collect::<Vec<_>>());
        assert!(matches!(how, ConnectionEnd::Lost(LostCause::Closed | LostCause::Reset, None)), "{how:?}");
        assert_eq!(play.lost(LostCause::Closed) + play.lost(LostCause::Reset), 1);
        assert!(play.sockets.connections.is_cold(play.set));
        play.ask(20).unwrap();
        play.until_open(1);
        let mut peer = play.accept();
        let query = peer.next();
        peer.answer(&query);
        play.until(|play| play.replied == [0, 20]);
    }
}

/// Returns a backend with one connection that has carried a query.
fn used(rules: ConnectionPoolRules) -> (Play, Peer) {
    let mut play = Play::new(rules);
    play.ask(0).unwrap();
    play.until_open(1);
    let mut peer = play.accept();
    let query = peer.next();
    peer.answer(&query);
    play.until(|play| play.replied == [0]);
    (play, peer)
}

#[test]
fn connection_closed_while_idle_counts_against_nobody_and_teaches_patience() {
    let (mut play, peer) = used(rules());
    play.pass(10_000);
    drop(peer);
    play.until_open(0);
    assert!(play.ended.is_empty());
    assert!(LostCause::ALL.iter().all(|cause| play.lost(*cause) == 0));
    // The worker closes the next one before the backend does: after 8 s.
    play.ask(1).unwrap();
    play.until_open(1);
    let mut peer = play.accept();
    let query = peer.next();
    peer.answer(&query);
    play.until(|play| play.replied == [0, 1]);
    play.pass(7_900);
    assert_eq!(play.counters.open.get(), 1);
    play.pass(200);
    assert_eq!(play.counters.open.get(), 0);
    assert!(peer.is_closed() && play.ended.is_empty());
}

#[test]
fn silent_connection_gets_no_new_query_and_is_given_up() {
    let mut play = Play::new(rules());
    play.ask(0).unwrap();
    play.until_open(1);
    let mut silent = play.accept();
    assert_eq!(read_query(&silent.next()).unwrap().question.as_wire().len(), query("q0.test").len() - 12);
    play.pass(99);
    assert!(!play.sockets.connections.is_cold(play.set));
    play.pass(11);
    // The connection is suspicious and pinged; the next query uses another connection.
    assert!(play.sockets.connections.is_cold(play.set));
    let sign = silent.next();
    assert_eq!(sign[2..], sign_of_life()[2..]);
    let slot = play.ask(1).unwrap();
    play.until_open(2);
    let mut other = play.accept();
    let query = other.next();
    assert_eq!(query[..2], slot.id().to_be_bytes());
    other.answer(&query);
    play.until(|play| play.replied == [1]);
    // The kernel acknowledges all data here, so the worker waits for the ping.
    play.pass(900);
    assert!(play.ended.is_empty());
    play.pass(200);
    assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Timeout, None), vec![0])]);
    assert_eq!((play.lost(LostCause::Timeout), play.counters.open.get()), (1, 1));
}

#[test]
fn slow_backend_that_gives_a_sign_of_life_keeps_its_connection() {
    let mut play = Play::new(rules());
    play.ask(0).unwrap();
    play.until_open(1);
    let mut slow = play.accept();
    let query = slow.next();
    for _ in 0..5 {
        play.pass(150);
        if !play.sockets.connections.is_cold(play.set) {
            // The worker pings again only after another query.
            break;
        }
        let sign = slow.next();
        slow.answer(&sign);
        play.until(|play| !play.sockets.connections.is_cold(play.set));
    }
    play.pass(3_000);
    slow.answer(&query);
    play.until(|play| play.replied == [0]);
    assert_eq!((play.ended.len(), play.made(ConnectionKind::Full)), (0, 1));
}

#[test]
fn full_connections_refuse_and_memory_stays_flat() {
    let mut play = Play::new(ConnectionPoolRules { pipeline: 10, ..rules() });
    let refused = (0..100).filter(|number| play.ask(*number) == Err(SendRefusal::Full)).count();
    assert_eq!(refused, 90);
    play.until_open(1);
    // The next connection is dialled for queries without a place, up to two connections.
    let refused = (0..100).filter(|number| play.ask(*number) == Err(SendRefusal::Full)).count();
    assert_eq!(refused, 90);
    play.until_open(2);
    let refused = (0..100).filter(|number| play.ask(*number) == Err(SendRefusal::Full)).count();
    assert_eq!(refused, 100);
}

#[test]
fn second_connection_is_opened_when_the_first_is_busy_or_avoided() {
    let mut play = Play::new(ConnectionPoolRules { pipeline: 8, ..rules() });
    let first = play.ask(0).unwrap();
    play.until_open(1);
    (1..4).for_each(|number| assert_eq!(play.ask(number).unwrap().socket(), first.socket()));
    play.until_open(2);
    let second = play.ask(4).unwrap();
    assert_ne!(second.socket(), first.socket());
    // The connection with the fewest pending queries is chosen.
    assert_eq!(play.ask(5).unwrap().socket(), second.socket());
    assert_eq!(play.ask_elsewhere(6, Some(second.socket())).unwrap().socket(), first.socket());
    let mut play = Play::new(ConnectionPoolRules { max: 1, ..rules() });
    let only = play.ask(0).unwrap();
    play.until_open(1);
    assert_eq!(play.ask_elsewhere(1, Some(only.socket())), Err(SendRefusal::Full));
}

#[test]
fn noise_and_unknown_ids_break_a_connection() {
    let noises: [&Noise; 3] = [
        &|peer, _| peer.socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap(),
        &|peer, query| peer.say(query),
        &|peer, query| {
            let mut other = query.to_vec();
            other[0] ^= 0xFF;
            peer.answer(&other);
        },
    ];
    for noise in noises {
        let mut play = Play::new(rules());
        play.ask(7).unwrap();
        play.until_open(1);
        let mut peer = play.accept();
        let query = peer.next();
        noise(&mut peer, &query);
        play.until(|play| !play.ended.is_empty());
        assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Protocol, None), vec![7])]);
        assert!(peer.is_closed());
    }
}

#[test]
fn late_reply_is_known_and_its_id_is_not_given_away() {
    let mut play = Play::new(rules());
    let slot = play.ask(0).unwrap();
    play.until_open(1);
    let mut peer = play.accept();
    let query = peer.next();
    play.sockets.quarantine(slot, play.now);
    play.pass(5_000);
    assert_eq!(play.sockets.find(slot.socket(), slot.id()), None);
    let connection = play.sockets.connections.get_mut(slot.socket()).unwrap();
    assert!(!connection.asked.insert(slot.id()));
    // The backend answered earlier pings; otherwise the connection would be over.
    let sign = peer.next();
    peer.answer(&sign);
    peer.answer(&query);
    play.until(|play| play.sockets.connections.get(slot.socket()).is_some_and(|it| it.asked.is_empty()));
    assert!(play.ended.is_empty() && play.replied.is_empty());
}

#[test]
fn refused_dial_is_told_and_backed_off_from() {
    let mut play = Play::new(rules());
    let address = play.listener.local_addr().unwrap();
    play.listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if play.ask(0).is_ok() {
        play.until(|play| !play.ended.is_empty());
        let (problem, is_refused) = failed(&play).unwrap();
        assert!(problem.contains("refused") && is_refused, "{problem}");
    }
    assert_eq!(play.made(ConnectionKind::Failed), 1);
    assert_eq!(play.ask(1), Err(SendRefusal::Unreachable));
    play.listener = TcpListener::bind(address).unwrap();
    play.pass(130);
    play.ask(2).unwrap();
    play.until_open(1);
}

#[test]
fn queries_wait_for_the_next_dial_of_the_only_backend() {
    let mut play = Play::new(ConnectionPoolRules { pipeline: 10, ..rules() });
    play.sockets.connections.set_mut(play.set).unwrap().way.is_alone = true;
    let address = play.listener.local_addr().unwrap();
    play.listener = TcpListener::bind("127.0.0.1:0").unwrap();
    play.ask(0).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert!(failed(&play).unwrap().1, "it is reported at once");
    let first = play.ended.remove(0).1.len();
    // One connection takes this many, and no dial starts before its time.
    let waiting = (1..=20).filter(|number| play.ask(*number).is_ok()).count();
    assert_eq!(waiting, 9 + first);
    play.pass(70);
    assert_eq!((play.made(ConnectionKind::Failed), play.ended.len()), (1, 0));
    // The next dial fails too: all queries fail, and may wait again.
    play.pass(60);
    play.until(|play| !play.ended.is_empty());
    assert_eq!((play.made(ConnectionKind::Failed), play.ended[0].1.len()), (2, 10));
    assert!((21..=30).all(|number| play.ask(number).is_ok()));
    play.listener = TcpListener::bind(address).unwrap();
    play.pass(260);
    play.until_open(1);
    let mut peer = play.accept();
    for _ in 0..10 {
        let query = peer.next();
        peer.answer(&query);
    }
    play.until(|play| play.replied.len() == 10);
    assert_eq!((play.made(ConnectionKind::Failed), play.ended.len()), (2, 1));
}

#[test]
fn queries_wait_for_the_next_handshake_of_the_only_backend() {
    let mut play = Play::new(ConnectionPoolRules { pipeline: 10, max: 3, ..rules() });
    play.sockets.connections.set_mut(play.set).unwrap().way.is_alone = true;
    let waiting = (0..100).filter(|number| play.ask(*number).is_ok()).count();
    assert_eq!(waiting, 30, "as many as all connections take");
    play.until_open(3);
    for _ in 0..3 {
        let mut peer = play.accept();
        for _ in 0..10 {
            let query = peer.next();
            peer.answer(&query);
        }
    }
    play.until(|play| play.replied.len() == 30);
    assert!(play.ended.is_empty());
}

#[test]
fn nobody_waits_for_a_dial_that_is_far_away() {
    let rules = ConnectionPoolRules { connect_timeout: Duration::from_millis(60), ..rules() };
    let mut play = Play::new(rules);
    play.sockets.connections.set_mut(play.set).unwrap().way.is_alone = true;
    play.listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if play.ask(0).is_ok() {
        play.until(|play| !play.ended.is_empty());
    }
    assert_eq!(play.ask(1), Err(SendRefusal::Unreachable));
    // Between 75 and 125 ms after the failure.
    play.pass(74);
    assert!(play.sockets.connections.set(play.set).unwrap().backoff.until(play.now).is_some() && play.ask(1).is_ok());
    assert_eq!(play.made(ConnectionKind::Failed), 1);
}

#[test]
fn handshake_that_hangs_is_dialled_beside_and_then_given_up() {
    let ca = CertificateAuthority::new();
    let tls = ClientTls::new(&trust(&ca, Some("dns.example"))).unwrap();
    let mut play = Play::with(rules(), Some(tls));
    play.ask(0).unwrap();
    let _first = play.accept();
    play.turn();
    play.pass(240);
    assert_eq!(play.sockets.connections.places.iter().flatten().map(|it| it.dials.iter().count()).sum::<usize>(), 1);
    play.pass(20);
    // SYN-ACK arrived, but no ServerHello.
    let _second = play.accept();
    play.pass(700);
    assert!(play.ended.is_empty());
    play.pass(50);
    assert_eq!(failed(&play), Some(("the connection was not open in time", false)));
    assert_eq!(play.ended[0].1, [0]);
    assert_eq!(play.ask(1), Err(SendRefusal::Full));
}

#[test]
fn one_is_kept_warm_for_a_minute_after_the_last_query() {
    let mut play = Play::new(ConnectionPoolRules { warm: true, ..rules() });
    play.ask(0).unwrap();
    play.until_open(1);
    let mut peer = play.accept();
    let query = peer.next();
    peer.answer(&query);
    play.until(|play| play.replied == [0]);
    play.pass(40_000);
    assert_eq!(play.counters.open.get(), 1);
    // The backend closes the connection: it is dialled again without a query.
    drop(peer);
    play.until(|play| play.made(ConnectionKind::Full) == 2);
    let peer = play.accept();
    play.pass(19_000);
    assert_eq!(play.counters.open.get(), 1);
    play.pass(15_000);
    play.pass(15_000);
    assert_eq!((play.counters.open.get(), play.made(ConnectionKind::Full)), (0, 2));
    drop(peer);
}

#[test]
fn backend_says_how_long_it_keeps_a_connection() {
    // RFC 7828 section 3.4.
    for (tenths, closes_at) in [(50_u16, 4_100), (0, 10)] {
        let mut play = Play::new(rules());
        let opt = dns::OptRecord::new(1232, false);
        let name = dns::Name::parse("a.test").unwrap();
        play.sockets
            .queue(play.set, 0, (None, None), play.now, |out| {
                dns::write_recursive_query(0, &name, dns::RecordType::A, Some(&opt), out);
            })
            .unwrap();
        play.until_open(1);
        let mut peer = play.accept();
        let mut reply = peer.next();
        // The query has the option, without a time.
        assert!(reply.ends_with(&[0, 4, 0, 11, 0, 0]));
        let length = reply.len();
        reply.truncate(length - 6);
        reply.extend_from_slice(&[0, 6, 0, 11, 0, 2]);
        reply.extend_from_slice(&tenths.to_be_bytes());
        peer.answer(&reply);
        play.until(|play| play.replied == [0]);
        play.pass(closes_at);
        assert_eq!(play.counters.open.get(), 0);
        assert!(peer.is_closed());
    }
}

#[test]
fn removed_and_dead_backends_leave_nothing_behind() {
    let mut play = Play::new(rules());
    (0..3).for_each(|number| assert!(play.ask(number).is_ok()));
    play.until_open(1);
    let mut peer = play.accept();
    let taken = play.sockets.take_waiting(play.set);
    assert_eq!((taken.len(), play.counters.open.get()), (3, 0));
    assert!(peer.is_closed());
    play.ask(4).unwrap();
    play.until_open(1);
    assert_eq!(play.sockets.remove(play.set), 1);
    assert_eq!(play.counters.open.get(), 0);
    assert!(!play.sockets.has_queries());
    let mut peer = play.accept();
    assert!(peer.is_closed());
}
