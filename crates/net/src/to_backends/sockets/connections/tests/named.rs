//! Connections that begin with a header, and carry the queries of one client alone.

use super::*;
use crate::proxy_protocol::{ClientHeader, NamedClient, read_header};

/// Returns the header of a client, or hedgerow's header.
fn header(client: Option<u8>) -> ClientHeader {
    let address = |last: u8, port: u16| SocketAddr::from(([192, 0, 2, last], port));
    ClientHeader::new(client.map(|client| (address(client, 4000), address(99, 53))), true)
}

impl Play {
    /// Returns a backend that requires client addresses.
    fn named(max: u8) -> Self {
        let mut play = Self::new(ConnectionPoolRules { max, ..rules() });
        play.sockets.connections.set_mut(play.set).unwrap().way.names_clients = true;
        play
    }

    fn ask_for(&mut self, number: u32, client: Option<u8>) -> Result<QuerySlot, SendRefusal> {
        let header = header(client);
        let asked = self.sockets.queue(self.set, number, (None, Some(&header)), self.now, |out| {
            out.extend_from_slice(&query(&format!("q{number}.test")));
        });
        self.sockets.flush(&mut Vec::new());
        asked
    }

    /// Sends a query and answers it on this connection.
    #[track_caller]
    fn play_out(&mut self, number: u32, client: Option<u8>, peer: &mut Peer) {
        self.ask_for(number, client).unwrap();
        let query = peer.next();
        peer.answer(&query);
        self.until(|play| play.replied.last() == Some(&number));
    }
}

impl Peer {
    /// Reads the header of the connection.
    fn named(&mut self) -> NamedClient {
        let mut room = vec![0; 16];
        self.socket.read_exact(&mut room).unwrap();
        room.resize(16 + usize::from(room[15]), 0);
        self.socket.read_exact(&mut room[16..]).unwrap();
        read_header(&room).expect("a header").0
    }
}

#[test]
fn each_connection_names_the_client_whose_queries_it_has() {
    let mut play = Play::named(3);
    let mut peers = Vec::new();
    for (number, client) in [(0, Some(1)), (1, Some(2)), (2, None)] {
        play.ask_for(number, client).unwrap();
        let mut peer = play.accept();
        let named =
            client.map_or(NamedClient::Unnamed, |client| NamedClient::Client(([192, 0, 2, client], 4000).into()));
        play.until_open(u64::from(number) + 1);
        assert_eq!(peer.named(), named);
        let query = peer.next();
        peer.answer(&query);
        play.until(|play| play.replied.len() == number as usize + 1);
        peers.push((client, peer));
    }
    // Each client continues on its connection, without another header.
    for (number, (client, peer)) in (3..).zip(&mut peers) {
        play.play_out(number, *client, peer);
    }
    assert_eq!(play.made(ConnectionKind::Full), 3);
}

#[test]
fn a_connection_that_nobody_waits_on_makes_room_for_another_client() {
    let mut play = Play::named(2);
    let mut peers = Vec::new();
    for (number, client) in [(0, 1), (1, 2)] {
        play.ask_for(number, Some(client)).unwrap();
        let mut peer = play.accept();
        play.until_open(u64::from(number) + 1);
        peer.named();
        peers.push(peer);
    }
    // Both connections have pending queries.
    assert_eq!(play.ask_for(2, Some(3)).map(drop), Err(SendRefusal::Full));
    assert_eq!(play.ask_for(3, None).map(drop), Err(SendRefusal::Full));
    let query = peers[1].next();
    peers[1].answer(&query);
    play.until(|play| play.replied == [1]);
    play.ask_for(4, Some(3)).unwrap();
    assert!(peers[1].is_closed(), "the one without a waiting client");
    let mut third = play.accept();
    play.until_open(2);
    assert_eq!(third.named(), NamedClient::Client(([192, 0, 2, 3], 4000).into()));
    // A client with a connection needs no room.
    play.ask_for(5, Some(1)).unwrap();
    for _ in 0..2 {
        let query = peers[0].next();
        peers[0].answer(&query);
    }
    let query = third.next();
    third.answer(&query);
    play.until(|play| play.replied.len() == 4);
    // The connection that is idle for the longest time is closed.
    play.pass(1);
    play.play_out(6, Some(1), &mut peers[0]);
    play.ask_for(7, Some(2)).unwrap();
    assert!(third.is_closed());
    assert_eq!(play.made(ConnectionKind::Full) + 1, 4);
}

#[test]
fn nobody_is_dialled_for_no_client() {
    let mut play = Play::named(2);
    assert!(!play.sockets.connections.is_cold(play.set), "no connection is for the next client");
    play.sockets.connections.dial(play.set, play.now);
    assert!(play.sockets.connections.set(play.set).unwrap().connections.is_empty());
    play.ask_for(0, Some(1)).unwrap();
    let mut peer = play.accept();
    play.until_open(1);
    peer.named();
    let query = peer.next();
    peer.answer(&query);
    play.until(|play| play.replied == [0]);
    // No connection is kept warm: it closes after its idle timeout.
    play.pass(30_001);
    assert!(peer.is_closed());
    play.pass(100);
    assert!(play.sockets.connections.set(play.set).unwrap().connections.is_empty());
}
