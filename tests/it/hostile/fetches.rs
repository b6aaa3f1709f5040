//! Tests of fetches by TCP: few connections carry them, kept ones first, and the fetches of one client do not
//! keep those of others waiting.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Long enough that nothing ends by itself while a test looks.
const SLOW: &str = "timeout = '20s'\nattempt_timeout = '20s'";

const OTHER: u16 = 0;

/// Queries of one connection that a listener takes at once.
const PIPELINED: usize = 128;

/// The most connections that a worker opens to one backend.
const CONNECTIONS_A_BACKEND: usize = 4;

const NETWORK_ERROR: u16 = 23;

/// Sockets by UDP that may be open at a time: those of two backends, and one for each query of a burst.
const SOCKETS: usize = 2 * 64 + 1024;

/// So many different queries below a suffix.
fn queries(suffix: &str, count: usize) -> Vec<Query> {
    (0..count).map(|i| query(&format!("{i}.{suffix}"), A).edns(1232)).collect()
}

/// Connections by which these queries came.
fn connections(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.tcp).map(|seen| seen.peer).collect::<HashSet<SocketAddr>>().len()
}

/// Waits until so many queries have come by TCP.
fn wait_by_tcp(backend: &Backend, count: usize) {
    until(&format!("{count} queries by TCP"), || {
        thread::yield_now();
        (backend.queries().iter().filter(|seen| seen.tcp).count() >= count).then_some(())
    });
}

/// A backend that truncates its replies by UDP. `answers` maps the number of a connection to the number of
/// queries that are answered before it closes; with `reads_on` it reads one more query.
struct Closing {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Closing {
    fn new(answers: fn(usize) -> usize, reads_on: bool) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("it is bound")) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("it is bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        // They end with the process: nothing wakes them but queries.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&reply_to(&buffer[..length]).with_flags(TC).to_vec(), peer);
            }
        });
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || serve(stream, answers(number), reads_on));
            }
        });
        Self { address, accepted }
    }

    /// How many connections it has accepted.
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Answers so many queries of a connection.
fn serve(mut stream: TcpStream, answers: usize, reads_on: bool) -> Option<()> {
    let mut read = || {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message).ok()?;
        Some((stream.try_clone().ok()?, message))
    };
    for _ in 0..answers {
        let (mut stream, message) = read()?;
        stream.write_all(&framed(&reply_to(&message).with_flags(AA).answer(a(ADDRESS)).to_vec())).ok()?;
    }
    if reads_on {
        read();
    }
    // A close before all is read would reset the connection, and could overtake the replies.
    stream.shutdown(Shutdown::Write).ok()?;
    std::io::copy(&mut stream, &mut std::io::sink()).ok().map(drop)
}

#[test]
fn one_client_uses_up_no_descriptors_and_costs_other_pools_nothing() {
    let evil = Backend::new(truncated().by_tcp(silent()));
    let good = Backend::new(truncated().except("small", answer(ADDRESS)).by_tcp(answer(ADDRESS)));
    let server = Forwarder::new().pool("evil", "evil", &[&evil], SLOW).pool("good", ".", &[&good], SLOW).start();
    let before = server.process.descriptors();
    let mut clients: Vec<_> = (0..20).map(|_| server.tcp_client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&queries(&format!("{number}.evil"), PIPELINED));
    }
    wait_by_tcp(&evil, 64);
    let most = before + clients.len() + CONNECTIONS_A_BACKEND + SOCKETS;
    assert!(server.process.descriptors() <= most, "{} of {most}", server.process.descriptors());
    assert!(connections(&evil.queries()) <= CONNECTIONS_A_BACKEND);
    let mut other = TcpClient::from("127.0.0.2", server.address());
    for name in ["whole.example", "again.example"] {
        assert_eq!(other.ask(&query(name, A)).answers(), [ADDRESS], "its fetch has connections of its own");
    }
    // The very client of the flood, too.
    assert_eq!(server.tcp_client().ask(&query("own.example", A)).answers(), [ADDRESS]);
    assert_eq!(server.client().ask(&query("small.example", A)).answers(), [ADDRESS]);
}

#[test]
fn one_client_leaves_places_at_the_same_backend_to_others() {
    let backend = Backend::new(truncated().by_tcp(silent().except("quick", answer(ADDRESS))));
    let server = Forwarder::to(&[&backend], SLOW).start();
    let mut clients: Vec<_> = (0..10).map(|_| server.tcp_client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&queries(&format!("{number}.slow.example"), PIPELINED));
    }
    wait_by_tcp(&backend, 64);
    for number in 0..5 {
        let mut other = TcpClient::from("127.0.0.2", server.address());
        let question = query(&format!("quick.{number}.example"), A);
        assert_eq!(other.ask(&question).answers(), [ADDRESS]);
    }
}

#[test]
fn fetches_that_find_no_room_are_refused_at_once_as_our_own_want() {
    let backend = Backend::new(truncated().by_tcp(silent()));
    let keys = format!("{SLOW}\non_timeout = 'nxdomain'\non_all_down = 'nxdomain'");
    let server = Forwarder::to(&[&backend], &keys).start();
    // A client holds 64 places on connections and 342 in the queue.
    let mut clients: Vec<_> = (0..4).map(|_| server.tcp_client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&queries(&format!("{number}.example"), PIPELINED));
    }
    let refused = clients.last_mut().expect("some").receive();
    assert_eq!((refused.rcode(), refused.extended_error()), (SERVFAIL, Some(OTHER)));
    // Nothing of that is remembered.
    let mut other = TcpClient::from("127.0.0.2", server.address());
    other.send(&[query("other.example", A)]);
    backend.wait_for_name("other.example", 2);
}

#[test]
fn fetches_that_wait_in_vain_end_by_their_deadline() {
    let backend = Backend::new(truncated().by_tcp(silent()));
    let keys = "timeout = '1s'\nattempt_timeout = '300ms'\non_timeout = 'nxdomain'\non_all_down = 'nxdomain'";
    let server = Forwarder::to(&[&backend], keys).start();
    let mut client = server.tcp_client();
    client.send(&queries("example", PIPELINED));
    for response in client.receive_all(PIPELINED) {
        assert_eq!(response.rcode(), SERVFAIL, "{response:?}");
    }
}

#[test]
fn queries_share_kept_connections_and_replies_come_in_any_order() {
    let slow = answer("192.0.2.7").held();
    let backend = Backend::new(truncated().by_tcp(answer(ADDRESS).except("slow", slow)));
    let server = Forwarder::to(&[&backend], SLOW).start();
    let mut client = server.tcp_client();
    let first = query("slow.example", A);
    client.send(std::slice::from_ref(&first));
    wait_by_tcp(&backend, 1);
    for number in 0..20 {
        assert_eq!(client.ask(&query(&format!("{number}.example"), A)).answers(), [ADDRESS]);
    }
    backend.release();
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (first.id, vec!["192.0.2.7".to_owned()]));
    assert_eq!(connections(&backend.queries()), 1);

    client.send(&queries("many.example", 60));
    client.receive_all(60);
    assert!(connections(&backend.queries()) <= CONNECTIONS_A_BACKEND);
    let ids: HashSet<u16> = backend.queries().iter().filter(|seen| seen.tcp).map(Seen::id).collect();
    assert!(ids.len() > 60, "each has an ID of its own, drawn at random");
}

#[test]
fn reply_to_another_question_is_read_past() {
    let forged = Script::new(|seen: &Seen| Some(reply_to(&query("other.example", A).id(seen.id()).to_vec()).to_vec()));
    let wrong_id = answer("192.0.2.66").edited(|bytes| bytes[0] ^= 1);
    let backend = Backend::new(truncated().by_tcp(forged.and(wrong_id).and(answer(ADDRESS))));
    let server = Forwarder::to(&[&backend], SLOW).start();
    assert_eq!(server.tcp_client().ask(&query("www.example", A)).answers(), [ADDRESS]);
}

#[test]
fn query_on_a_connection_that_was_closed_is_sent_once_more() {
    // Each connection ends while the second query is on its way.
    let backend = Closing::new(|_| 1, true);
    let server = Forwarder::to(&[&backend.address], SLOW).start();
    let mut client = server.tcp_client();
    for number in 0..6 {
        assert_eq!(client.ask(&query(&format!("{number}.example"), A)).answers(), [ADDRESS]);
    }
    assert!(backend.accepted() >= 3, "{}", backend.accepted());
}

#[test]
fn backend_that_closes_after_each_reply_answers_all_the_same() {
    let backend = Closing::new(|_| 1, false);
    let server = Forwarder::to(&[&backend.address], SLOW).start();
    let mut client = server.tcp_client();
    let count = 30;
    client.send(&queries("example", count));
    for response in client.receive_all(count) {
        assert_eq!(response.answers(), [ADDRESS]);
    }
}

#[test]
fn connection_that_is_closed_again_costs_the_answer_and_no_more_connections() {
    let backend = Closing::new(|_| 0, true);
    let server = Forwarder::to(&[&backend.address], SLOW).start();
    let response = server.tcp_client().ask(&query("www.example", A).edns(1232));
    assert_eq!((response.rcode(), response.extended_error()), (SERVFAIL, Some(NETWORK_ERROR)));
    assert_eq!(backend.accepted(), 2);
}
