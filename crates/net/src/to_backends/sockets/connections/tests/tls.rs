//! Backends by TLS: sessions, certificates and close_notify.

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Reads the next query; `None` if the connection ends before.
fn next_query(tls: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; FRAME_PREFIX];
    tls.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    tls.read_exact(&mut message).ok()?;
    Some(message)
}

/// Returns the frame of an answer.
fn answer_to(query: &[u8]) -> Vec<u8> {
    let (mut answer, mut frame) = (query.to_vec(), Vec::new());
    answer[2] |= 0x80;
    append_frame(&answer, &mut frame).unwrap();
    frame
}

/// Accepts a connection and answers queries by TLS up to this number. Returns the queries.
fn serve_tls(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    queries: usize,
) -> std::thread::JoinHandle<Option<Vec<Vec<u8>>>> {
    let (listener, config) = (listener.try_clone().unwrap(), Arc::clone(config));
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut heard = Vec::new();
        while heard.len() < queries {
            let message = next_query(&mut tls)?;
            tls.write_all(&answer_to(&message)).ok()?;
            heard.push(message);
        }
        Some(heard)
    })
}

#[test]
fn by_tls_all_goes_by_one_connection_and_the_next_session_is_resumed() {
    let ca = CertificateAuthority::new();
    let server = ca.leaf(&["dns.example"]).server();
    let mut play = Play::with(rules(), Some(ClientTls::new(&trust(&ca, Some("dns.example"))).unwrap()));
    for (round, kind) in [(0, ConnectionKind::Full), (1, ConnectionKind::Resumed)] {
        let peer = serve_tls(&play.listener, &server, 5);
        (0..5).for_each(|number| assert!(play.ask(round * 5 + number).is_ok()));
        play.until(|play| play.replied.len() == 5 * (round as usize + 1));
        assert_eq!(play.made(kind), 1);
        assert!(peer.join().unwrap().unwrap().iter().all(|query| read_query(query).is_ok()));
        play.until_open(0);
    }
    assert!(play.ended.is_empty(), "{:?}", play.ended);
}

#[test]
fn close_notify_ends_a_connection_whose_tcp_stays_open() {
    let ca = CertificateAuthority::new();
    let server = ca.leaf(&["dns.example"]).server();
    let mut play = Play::with(rules(), Some(ClientTls::new(&trust(&ca, Some("dns.example"))).unwrap()));
    (0..2).for_each(|number| assert!(play.ask(number).is_ok()));
    let (listener, config) = (play.listener.try_clone().unwrap(), Arc::clone(&server));
    let peer = std::thread::spawn(move || {
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), listener.accept().unwrap().0);
        let queries = [next_query(&mut tls).unwrap(), next_query(&mut tls).unwrap()];
        // The close_notify directly follows a reply, which still counts.
        tls.conn.writer().write_all(&answer_to(&queries[0])).unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        tls
    });
    play.until(|play| !play.ended.is_empty());
    let open = peer.join().unwrap();
    assert_eq!((play.replied.as_slice(), play.counters.open.get()), ([0].as_slice(), 0));
    assert_eq!(play.ended, [(ConnectionEnd::Lost(LostCause::Closed, None), vec![1])]);
    let peer = serve_tls(&play.listener, &server, 1);
    play.ask(2).unwrap();
    play.until(|play| play.replied == [0, 2]);
    assert!(peer.join().unwrap().is_some());
    drop(open);
}

#[test]
fn close_notify_of_an_idle_connection_teaches_patience() {
    let ca = CertificateAuthority::new();
    let server = ca.leaf(&["dns.example"]).server();
    let mut play = Play::with(rules(), Some(ClientTls::new(&trust(&ca, Some("dns.example"))).unwrap()));
    play.ask(0).unwrap();
    let (listener, (end, ends)) = (play.listener.try_clone().unwrap(), std::sync::mpsc::channel::<()>());
    let peer = std::thread::spawn(move || {
        let mut tls = StreamOwned::new(ServerConnection::new(server).unwrap(), listener.accept().unwrap().0);
        let query = next_query(&mut tls).unwrap();
        tls.write_all(&answer_to(&query)).unwrap();
        ends.recv().unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        tls
    });
    play.until(|play| play.replied == [0]);
    play.pass(10_000);
    end.send(()).unwrap();
    play.until_open(0);
    let _open = peer.join().unwrap();
    assert!(play.ended.is_empty());
    let patience = play.sockets.connections.set(play.set).unwrap().patience;
    assert_eq!(patience.idle(Duration::from_secs(30)), Duration::from_secs(8));
}

#[test]
fn wrong_certificate_refuses_and_says_why() {
    let (ca, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let server = other.leaf(&["dns.example"]).server();
    let mut play = Play::with(rules(), Some(ClientTls::new(&trust(&ca, Some("dns.example"))).unwrap()));
    let peer = serve_tls(&play.listener, &server, 1);
    play.ask(3).unwrap();
    play.until(|play| !play.ended.is_empty());
    assert_eq!(failed(&play), Some(("the certificate is not signed by a trusted authority", true)));
    assert_eq!((play.ended[0].1.as_slice(), play.made(ConnectionKind::Failed)), ([3].as_slice(), 1));
    assert_eq!(peer.join().unwrap(), None);
}
