//! Connections by QUIC to a server on loopback in the same thread.

use std::net::UdpSocket;

use testkit::quic_server::{TestQuicQuery, TestQuicServer, tls as server_tls};
use tokio_rustls::rustls::ServerConfig;

use super::*;

/// The backend's end of the connections.
pub(super) struct QuicPeer {
    socket: UdpSocket,
    pub(super) server: TestQuicServer,
    /// True if it receives data and sends nothing.
    is_dead: bool,
}

impl QuicPeer {
    fn new(server: TestQuicServer) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, server, is_dead: false }
    }

    pub(super) fn turn(&mut self, now: Instant) {
        let mut room = [0; 2_000];
        while let Ok((octets, peer)) = self.socket.recv_from(&mut room) {
            if !self.is_dead {
                self.server.hear(peer, &room[..octets], now);
            }
        }
        if self.is_dead {
            return;
        }
        self.server.turn(now);
        for (peer, datagram) in self.server.datagrams(now) {
            // The worker may have closed its socket.
            let _ = self.socket.send_to(&datagram, peer);
        }
    }
}

/// A certificate authority, and a server certificate that it signed.
struct Place {
    ca: CertificateAuthority,
    server: Arc<ServerConfig>,
}

impl Place {
    fn new() -> Self {
        let ca = CertificateAuthority::new();
        let server = ca.leaf(&["dns.example"]).server();
        Self { ca, server }
    }

    fn play(&self, rules: ConnectionPoolRules) -> Play {
        self.play_with(rules, &[b"doq"], |_| ())
    }

    fn play_with(
        &self,
        rules: ConnectionPoolRules,
        alpn: &[&[u8]],
        change: impl FnOnce(&mut quinn_proto::TransportConfig),
    ) -> Play {
        let mut trust = trust(&self.ca, Some("dns.example"));
        trust.alpn = vec![b"doq".to_vec()];
        trust.early_data = rules.early_data;
        let tls = ClientTls::new(&trust).unwrap();
        let peer = QuicPeer::new(TestQuicServer::new(server_tls(&self.server, alpn), change));
        let address = peer.socket.local_addr().unwrap();
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut play = Play::at(address, StreamProtocol::Quic, unused, rules, Some(tls));
        play.quic = Some(peer);
        play
    }
}

impl Play {
    fn peer(&mut self) -> &mut QuicPeer {
        self.quic.as_mut().unwrap()
    }

    /// Waits until the server has this many queries, and takes them.
    #[track_caller]
    fn heard(&mut self, count: usize) -> Vec<TestQuicQuery> {
        self.until(|play| play.quic.as_ref().unwrap().server.queries.len() >= count);
        std::mem::take(&mut self.peer().server.queries)
    }

    fn echo(&mut self, queries: &[TestQuicQuery]) {
        queries.iter().for_each(|query| self.peer().server.echo(query));
    }
}

#[test]
fn replies_come_in_any_order_by_one_connection() {
    let mut play = Place::new().play(rules());
    (0..3).for_each(|number| assert!(play.ask(number).is_ok()));
    let mut queries = play.heard(3);
    assert!(!play.sockets.connections.is_cold(play.set) && play.counters.open.get() == 1);
    queries.reverse();
    play.echo(&queries[..2]);
    play.until(|play| play.replied.len() == 2);
    play.ask(3).unwrap();
    let last = play.heard(1);
    play.echo(&[&last[..], &queries[2..]].concat());
    play.until(|play| play.replied.len() == 4);
    play.replied.sort_unstable();
    assert_eq!((play.replied.as_slice(), play.made(ConnectionKind::Full), play.ended.len()), (&[0, 1, 2, 3][..], 1, 0));
}

#[test]
fn what_waits_is_lost_when_the_server_closes_and_the_next_goes_by_another() {
    for (code, cause) in [(0, LostCause::Closed), (2, LostCause::Protocol)] {
        let mut play = Place::new().play(rules());
        (0..20).for_each(|number| assert!(play.ask(number).is_ok()));
        let queries = play.heard(20);
        play.echo(&queries[..1]);
        play.until(|play| play.replied.len() == 1);
        let now = play.now;
        play.peer().server.close(code, now);
        play.until(|play| !play.ended.is_empty());
        let (how, waiting) = play.ended.remove(0);
        assert_eq!((how, waiting.len(), play.lost(cause)), (ConnectionEnd::Lost(cause, None), 19, 1));
        assert!(play.sockets.connections.is_cold(play.set));
        play.ask(20).unwrap();
        let queries = play.heard(1);
        play.echo(&queries);
        play.until(|play| play.replied.len() == 2);
        assert_eq!(play.made(ConnectionKind::Resumed), 1);
    }
}

#[test]
fn dead_process_loses_what_waits_at_once() {
    let mut play = Place::new().play(rules());
    (0..5).for_each(|number| assert!(play.ask(number).is_ok()));
    play.heard(5);
    // The next datagram causes an ICMP error.
    play.quic = None;
    play.ask(5).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Reset, None), vec![0, 1, 2, 3, 4, 5])]);
    assert_eq!(play.counters.open.get(), 0);
    // The next dial fails as well.
    play.ended.clear();
    play.pass(1_000);
    play.ask(6).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert!(failed(&play).is_some_and(|(_, is_refused)| is_refused), "{:?}", play.ended);
    assert_eq!(play.ended[0].1, [6]);
}

#[test]
fn silent_server_that_acknowledges_keeps_its_connection_and_a_dead_way_does_not() {
    let mut play = Place::new().play(rules());
    play.ask(0).unwrap();
    let queries = play.heard(1);
    // The connection is suspicious and pinged, and the response arrives.
    play.pass(110);
    assert!(play.sockets.connections.is_cold(play.set));
    for _ in 0..20 {
        play.pass(10);
    }
    play.until(|play| !play.sockets.connections.is_cold(play.set));
    for _ in 0..50 {
        play.pass(100);
    }
    play.echo(&queries);
    play.until(|play| play.replied == [0]);
    assert_eq!((play.ended.len(), play.made(ConnectionKind::Full)), (0, 1));
    // Half-open: no datagram arrives in either direction.
    play.ask(1).unwrap();
    play.peer().is_dead = true;
    let start = play.now;
    while play.ended.is_empty() {
        play.pass(10);
        assert!(play.now < start + Duration::from_millis(620), "it is not given up");
    }
    assert!(play.now >= start + Duration::from_millis(500));
    assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Stalled, None), vec![1])]);
}

#[test]
fn stream_that_is_reset_fails_its_query_and_too_many_of_them_are_a_pause() {
    let mut play = Place::new().play(rules());
    (0..3).for_each(|number| assert!(play.ask(number).is_ok()));
    let queries = play.heard(3);
    play.peer().server.reset(&queries[1], 1);
    play.until(|play| !play.ended.is_empty());
    let rejected = ConnectionEnd::Rejected("it reset the stream with the error code 0x1".to_owned());
    assert_eq!(play.ended, [(rejected, vec![1])]);
    assert!(play.ask(3).is_ok());
    play.peer().server.reset(&queries[2], 4);
    play.until(|play| play.ended.len() == 2);
    assert_eq!(play.ended[1].1, [2]);
    assert_eq!(play.ask(4), Err(SendRefusal::Paused));
    assert!(play.sockets.connections.is_cold(play.set));
    play.echo(&queries[..1]);
    play.until(|play| play.replied == [0]);
    play.pass(1_010);
    assert!(play.ask(5).is_ok() && !play.sockets.connections.is_cold(play.set));
    // Also if the server closes the connection because of overload.
    let now = play.now;
    play.peer().server.close(4, now);
    play.until(|play| play.ended.len() == 3);
    assert_eq!(play.ended[2].0, ConnectionEnd::Lost(LostCause::Closed, None));
    assert_eq!(play.ask(6), Err(SendRefusal::Paused));
}

#[test]
fn streams_that_the_server_does_not_allow_go_elsewhere() {
    let place = Place::new();
    let mut play = place.play_with(rules(), &[b"doq"], |transport| {
        transport.max_concurrent_bidi_streams(4_u32.into());
    });
    play.ask(0).unwrap();
    play.until_open(1);
    let first = play.ask(1).unwrap().socket();
    (2..4).for_each(|number| assert_eq!(play.ask(number).unwrap().socket(), first));
    // A second connection takes the queries beyond the limit of the first.
    assert_ne!(play.ask(4).unwrap().socket(), first);
    let queries = play.heard(5);
    // When the server knows that its replies have arrived, it allows as many streams again.
    play.echo(&queries);
    play.until(|play| play.replied.len() == 5);
    (0..10).for_each(|_| play.pass(10));
    (5..10).for_each(|number| assert!(play.ask(number).is_ok()));
    let queries = play.heard(5);
    play.echo(&queries);
    play.until(|play| play.replied.len() == 10);
    assert!(play.ended.is_empty());
}

#[test]
fn forgotten_query_gives_its_stream_back() {
    let place = Place::new();
    let mut play = place.play_with(ConnectionPoolRules { max: 1, ..rules() }, &[b"doq"], |transport| {
        transport.max_concurrent_bidi_streams(2_u32.into());
    });
    play.ask(0).unwrap();
    play.until_open(1);
    let slot = play.ask(1).unwrap();
    play.heard(2);
    assert_eq!(play.ask(2), Err(SendRefusal::Full));
    play.sockets.quarantine(slot, play.now);
    for _ in 0..60 {
        play.pass(100);
    }
    play.until(|play| !play.quic.as_ref().unwrap().server.cancelled.is_empty());
    assert_eq!(play.peer().server.cancelled[0].1, quinn_proto::VarInt::from_u32(3));
}

#[test]
fn handshake_that_hangs_is_dialled_beside_and_the_first_to_finish_wins() {
    let mut play = Place::new().play(rules());
    play.peer().is_dead = true;
    play.ask(0).unwrap();
    play.turn();
    let dials =
        |play: &Play| play.sockets.connections.places.iter().flatten().map(|it| it.dials.iter().count()).sum::<usize>();
    play.pass(240);
    assert_eq!(dials(&play), 1);
    play.pass(20);
    assert_eq!(dials(&play), 2);
    play.pass(400);
    play.peer().is_dead = false;
    for _ in 0..20 {
        play.pass(10);
    }
    let queries = play.heard(1);
    assert_eq!((dials(&play), play.counters.open.get()), (1, 1));
    play.echo(&queries);
    play.until(|play| play.replied == [0]);
    // No server exists.
    let mut play = Place::new().play(rules());
    play.peer().is_dead = true;
    play.ask(0).unwrap();
    (0..9).for_each(|_| play.pass(100));
    assert!(play.ended.is_empty());
    play.pass(110);
    assert_eq!(failed(&play), Some(("the connection was not open in time", false)));
}

#[test]
fn wrong_certificate_and_wrong_protocol_refuse() {
    let (place, other) = (Place::new(), Place::new());
    let mut play = Place { ca: place.ca, server: other.server }.play(rules());
    play.ask(3).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert_eq!(failed(&play), Some(("the certificate is not signed by a trusted authority", true)));
    assert_eq!((play.ended[0].1.as_slice(), play.made(ConnectionKind::Failed)), ([3].as_slice(), 1));
    let mut play = Place::new().play_with(rules(), &[b"h3"], |_| ());
    play.ask(3).unwrap();
    play.until(|play| !play.ended.is_empty());
    let problem = "it ended the handshake or connection with the alert NoApplicationProtocol";
    assert_eq!(failed(&play), Some((problem, true)));
}

#[test]
fn idle_connection_is_closed_before_the_server_would() {
    let place = Place::new();
    let mut play = place.play_with(rules(), &[b"doq"], |transport| {
        transport.max_idle_timeout(Some(quinn_proto::VarInt::from_u32(10_000).into()));
    });
    play.ask(0).unwrap();
    let queries = play.heard(1);
    play.echo(&queries);
    play.until(|play| play.replied == [0]);
    (0..79).for_each(|_| play.pass(100));
    assert_eq!(play.counters.open.get(), 1);
    (0..2).for_each(|_| play.pass(100));
    assert_eq!((play.counters.open.get(), play.ended.len()), (0, 0));
    // The server received a close, and did not run into its timeout.
    play.until(|play| !play.quic.as_ref().unwrap().server.ends.is_empty());
    let ends = &play.peer().server.ends;
    let is_good_bye = |end: &quinn_proto::ConnectionError| matches!(end, quinn_proto::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0);
    assert!(ends.iter().all(is_good_bye), "{ends:?}");
}

#[test]
fn queries_go_with_the_first_flight_if_that_is_wanted() {
    let mut play = Place::new().play(ConnectionPoolRules { early_data: true, ..rules() });
    play.ask(0).unwrap();
    let queries = play.heard(1);
    play.echo(&queries);
    play.until(|play| play.replied == [0]);
    // The ticket needs some time to arrive.
    play.pass(50);
    let now = play.now;
    play.peer().server.close(0, now);
    play.until_open(0);
    (1..4).for_each(|number| assert!(play.ask(number).is_ok()));
    let queries = play.heard(3);
    assert!(queries.iter().all(|query| query.is_early));
    play.echo(&queries);
    play.until(|play| play.replied == [0, 1, 2, 3]);
    assert_eq!((play.made(ConnectionKind::Early), play.made(ConnectionKind::Full)), (1, 1));
}

#[test]
fn removed_backend_leaves_nothing_behind() {
    let mut play = Place::new().play(rules());
    (0..3).for_each(|number| assert!(play.ask(number).is_ok()));
    play.heard(3);
    assert_eq!(play.sockets.remove(play.set), 3);
    assert_eq!(play.counters.open.get(), 0);
    assert!(!play.sockets.has_queries());
}
