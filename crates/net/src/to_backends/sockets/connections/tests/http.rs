//! Backends by HTTPS: pauses, pings, GOAWAY and canceled streams.

use super::*;
use crate::to_backends::http::tests as http2;

/// The backend's end of an HTTP/2 connection.
struct HttpPeer {
    socket: TcpStream,
    server: http2::Server,
    /// True if it reads nothing.
    is_deaf: bool,
}

impl HttpPeer {
    /// Receives the available data and answers.
    fn turn(&mut self) {
        let mut room = [0; 65_536];
        let octets = if self.is_deaf { 0 } else { self.socket.read(&mut room).unwrap_or(0) };
        let said = self.server.hear(&room[..octets]);
        // The worker may have closed the connection.
        let _ = self.socket.write_all(&said);
    }
}

/// Returns an open HTTP/2 connection and the backend's end of it.
fn play_by_http(streams: u32, script: http2::Script) -> (Play, HttpPeer) {
    let (tls, config) = http2::trust(&[b"h2"]);
    let mut play = Play::by(StreamProtocol::Http(http2::target()), rules(), Some(tls));
    let peer = open_by_http(&mut play, http2::Server::new(&config, streams, script));
    (play, peer)
}

fn open_by_http(play: &mut Play, server: http2::Server) -> HttpPeer {
    let open = play.counters.open.get();
    play.sockets.connections.dial(play.set, play.now);
    let socket = play.accept().socket;
    socket.set_nonblocking(true).unwrap();
    let mut peer = HttpPeer { socket, server, is_deaf: false };
    until_by_http(play, &mut peer, |play, _| play.counters.open.get() == open + 1);
    peer
}

#[track_caller]
fn until_by_http(play: &mut Play, peer: &mut HttpPeer, what: impl Fn(&Play, &HttpPeer) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !what(play, peer) {
        assert!(Instant::now() < deadline, "it has not come");
        peer.turn();
        play.turn();
        std::thread::yield_now();
    }
}

/// Responds with 503 and this `retry-after`, and forgets the query.
fn busy(retry_after: &'static str, mut respond: h2::server::SendResponse<bytes::Bytes>) {
    let head = ::http::Response::builder().status(503).header("retry-after", retry_after);
    respond.send_response(head.body(()).unwrap(), true).unwrap();
}

#[test]
fn replies_by_http_come_to_who_asked() {
    let (mut play, mut peer) = play_by_http(100, http2::echo);
    (0..50).for_each(|number| assert!(play.ask(number).is_ok()));
    until_by_http(&mut play, &mut peer, |play, _| play.replied.len() == 50);
    play.replied.sort_unstable();
    assert_eq!((play.replied.clone(), play.counters.open.get(), play.ended.len()), ((0..50).collect(), 1, 0));
}

#[test]
fn backend_that_wants_no_queries_gets_none_until_then() {
    for (script, seconds) in [
        ((|_, _, respond| busy("7", respond)) as http2::Script, 7),
        (|_, _, respond| busy("3600", respond), 10),
        (|_, _, respond| busy("Fri, 31 Dec 1999 23:59:59 GMT", respond), 1),
    ] {
        let (mut play, mut peer) = play_by_http(100, script);
        (0..2).for_each(|number| assert!(play.ask(number).is_ok()));
        until_by_http(&mut play, &mut peer, |play, _| !play.ended.is_empty());
        let (how, failed) = play.ended.remove(0);
        assert_eq!((how, failed), (ConnectionEnd::Rejected("it answered with HTTP status 503".to_owned()), vec![0, 1]));
        assert!(play.sockets.connections.is_cold(play.set));
        assert_eq!(play.ask(2), Err(SendRefusal::Paused));
        play.pass(seconds * 1_000 - 1);
        assert_eq!(play.ask(2), Err(SendRefusal::Paused));
        play.pass(3);
        assert!(play.ask(2).is_ok() && !play.sockets.connections.is_cold(play.set), "{seconds}");
        assert_eq!(play.counters.open.get(), 1, "its connection has stayed");
    }
}

#[test]
fn silence_by_http_is_asked_for_a_sign_of_life_by_a_ping() {
    let (mut play, mut peer) = play_by_http(100, |_, _, respond| std::mem::forget(respond));
    play.ask(0).unwrap();
    until_by_http(&mut play, &mut peer, |_, peer| peer.server.asked == 1);
    play.pass(110);
    assert!(play.sockets.connections.is_cold(play.set));
    until_by_http(&mut play, &mut peer, |play, _| !play.sockets.connections.is_cold(play.set));
    assert_eq!(peer.server.asked, 1, "no question was asked");
    // The backend does not answer the next ping.
    peer.is_deaf = true;
    play.ask(1).unwrap();
    play.pass(110);
    assert!(play.sockets.connections.is_cold(play.set));
    play.pass(1_100);
    assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Timeout, None), vec![0, 1])]);
}

#[test]
fn goaway_loses_what_it_does_not_cover_and_the_connection_closes_when_the_rest_is_done() {
    let (mut play, mut peer) = play_by_http(1, |body, request, respond| match body[13] {
        b'w' => std::mem::forget(respond),
        _ => http2::echo(body, request, respond),
    });
    play.ask(0).unwrap();
    until_by_http(&mut play, &mut peer, |play, _| play.replied == [0]);
    // The backend allows one stream, so the second query uses another connection.
    play.sockets.queue(play.set, 1, (None, None), play.now, |out| out.extend_from_slice(&query("wait.test"))).unwrap();
    play.sockets.flush(&mut Vec::new());
    until_by_http(&mut play, &mut peer, |_, peer| peer.server.asked == 2);
    peer.server.go_away();
    until_by_http(&mut play, &mut peer, |play, _| play.sockets.connections.is_cold(play.set));
    assert!(play.ended.is_empty() && play.counters.open.get() == 1, "the one that it covers is waited for");
    drop(peer);
    play.until(|play| !play.ended.is_empty());
    assert_eq!(play.ended.remove(0).1, [1]);
}

#[test]
fn nobody_waits_for_streams_for_ever() {
    let (mut play, mut peer) = play_by_http(1, |_, _, respond| std::mem::forget(respond));
    let slot = play.ask(0).unwrap();
    until_by_http(&mut play, &mut peer, |_, peer| peer.server.asked == 1);
    // The race is over, and after the quarantine the stream is free.
    play.sockets.release(slot, play.now);
    assert_eq!(play.ask(1).unwrap().socket(), slot.socket());
    until_by_http(&mut play, &mut peer, |_, peer| peer.server.asked == 2);
}

#[test]
fn queries_wait_until_one_of_the_connections_that_end_has_ended() {
    let (tls, config) = http2::trust(&[b"h2"]);
    let rules = ConnectionPoolRules { max: 1, ..rules() };
    let mut play = Play::by(StreamProtocol::Http(http2::target()), rules, Some(tls));
    play.sockets.connections.set_mut(play.set).unwrap().way.is_alone = true;
    let silent: http2::Script = |_, _, respond| std::mem::forget(respond);
    // Each connection accepts no more queries, and still owes a reply.
    let ending = [0, 1].map(|number| {
        let mut peer = open_by_http(&mut play, http2::Server::new(&config, 100, silent));
        play.ask(number).unwrap();
        until_by_http(&mut play, &mut peer, |_, peer| peer.server.asked == 1);
        peer.server.go_away();
        until_by_http(&mut play, &mut peer, |play, _| play.sockets.connections.is_cold(play.set));
        peer
    });
    (2..62).for_each(|number| assert!(play.ask(number).is_ok(), "{number}"));
    play.turn();
    assert_eq!((play.counters.open.get(), play.replied.len(), play.ended.len()), (2, 0, 0));
    ending[0].socket.shutdown(std::net::Shutdown::Both).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert_eq!(play.ended.remove(0).1, [0]);
    play.pass(60);
    let mut peer = open_by_http(&mut play, http2::Server::new(&config, 100, http2::echo));
    until_by_http(&mut play, &mut peer, |play, _| play.replied.len() == 60);
    assert!(play.ended.is_empty());
}
