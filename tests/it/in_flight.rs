//! Many queries in flight: what they take of memory, and that they hold.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};

use testkit::*;

/// Queries that wait at once.
const MANY: usize = 20_000;
/// Queries that wait before memory is looked at: what a server has from its start is touched by then.
const FEW: usize = 2_000;
/// Queries or replies that are under way between two sockets: fewer than the kernel holds for one.
const AT_ONCE: usize = 50;

/// Octets that each may take. It is under 400; the rest is for what the allocator keeps of tables that have
/// grown.
const LIMIT: usize = 500;

#[test]
fn many_queries_in_flight_take_little_memory_and_are_all_answered() {
    let backend = Holding::new();
    let keys = "dispatch = 'sequential'\nmax_in_flight = 100000\ntimeout = '60s'\nattempt_timeout = '60s'\n[health]\ninterval = '1h'";
    let server = Forwarder::to(&[&backend.address()], keys).keys("limits = { waiting = 100000 }").start();
    let client = socket();
    client.connect(server.address()).expect("loopback can be reached");

    let mut held = Vec::new();
    let mut ids = HashSet::new();
    while held.len() < FEW {
        backend.hold(&client, &mut held, &mut ids);
    }
    let before = server.process.resident();
    while held.len() < FEW + MANY {
        backend.hold(&client, &mut held, &mut ids);
    }
    let octets = (server.process.resident() - before) / MANY;
    assert!(octets < LIMIT, "{octets} octets for each query");

    let mut response = [0; 512];
    for replies in held.chunks(AT_ONCE) {
        for (message, peer) in replies {
            backend.socket.send_to(message, peer).expect("loopback takes a datagram");
        }
        for _ in replies {
            let length = client.recv(&mut response).expect("a response comes");
            let response = Response { bytes: response[..length].to_vec() };
            assert!(ids.remove(&response.id()), "each is answered once: {response:?}");
        }
    }
    assert!(ids.is_empty());
}

/// A backend that keeps its replies to itself.
struct Holding {
    /// Where it is asked.
    socket: UdpSocket,
}

impl Holding {
    /// On a free port.
    fn new() -> Self {
        Self { socket: socket() }
    }

    /// Where it is asked.
    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// Sends queries as `client`, and takes them as the backend; adds the replies with their destinations,
    /// and the IDs.
    fn hold(&self, client: &UdpSocket, held: &mut Vec<(Vec<u8>, SocketAddr)>, ids: &mut HashSet<u16>) {
        for number in held.len()..held.len() + AT_ONCE {
            let query = query(&format!("name-{number}.example"), A);
            ids.insert(query.id);
            client.send(&query.to_vec()).expect("loopback takes a datagram");
        }
        let mut message = [0; 512];
        let until = held.len() + AT_ONCE;
        while held.len() < until {
            let (length, peer) = self.socket.recv_from(&mut message).expect("a query comes");
            // RFC 1035 section 4.1.1: QR and AA. Without a record that is an authority's word that there is
            // none.
            message[2] |= 0x84;
            let is_probe = message[12] == 0;
            if is_probe {
                self.socket.send_to(&message[..length], peer).expect("loopback takes a datagram");
            } else {
                held.push((message[..length].to_vec(), peer));
            }
        }
    }
}

/// A socket that does not wait for ever.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    socket
}
