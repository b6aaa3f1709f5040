//! What leaves as a batch arrives: whole, in order, and whatever of it the kernel refuses is told.

use super::*;
use std::net::UdpSocket;
use std::time::Duration;

/// A socket on `address`, and a batch's worth of patience.
fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("loopback can be bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    socket
}

/// Receives until `wanted` datagrams came; each payload with its peer.
fn receive_all(batch: &mut RecvBatch, socket: &UdpSocket, wanted: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    while all.len() < wanted {
        socket.peek(&mut [0]).expect("a datagram comes within the timeout");
        let count = batch.recv(socket).expect("what was peeked can be received");
        for index in 0..count {
            let datagram = batch.datagram(index).expect("an index below the count");
            all.push((datagram.bytes.to_vec(), datagram.peer));
        }
    }
    all
}

/// Sends a batch from one socket to another over `address` and expects it whole and in order.
fn check_round_trip(address: &str) {
    let (from, to) = (socket(address), socket(address));
    let mut out = SendBatch::new(8, 16);
    for n in 0..8u8 {
        let index = out.push(Some(to.local_addr().unwrap()), None, |bytes| bytes.extend([n; 3]));
        assert_eq!(index, usize::from(n));
    }
    assert!(out.is_full());
    out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
    assert!(out.is_empty());

    let got = receive_all(&mut RecvBatch::new(3, 64), &to, 8);
    let peer = from.local_addr().unwrap();
    assert_eq!(got, (0..8).map(|n| (vec![n; 3], peer)).collect::<Vec<_>>());
}

#[test]
fn a_batch_arrives_whole_and_in_order_over_ipv4() {
    check_round_trip("127.0.0.1:0");
}

#[test]
fn a_batch_arrives_whole_and_in_order_over_ipv6() {
    check_round_trip("[::1]:0");
}

#[test]
fn a_refused_datagram_is_reported_and_the_others_leave() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let good = to.local_addr().unwrap();
    // A v6 destination on a v4 socket is refused by the kernel for that datagram alone.
    let bad = socket("[::1]:0").local_addr().unwrap();
    let mut out = SendBatch::new(4, 16);
    for destination in [good, bad, good] {
        out.push(Some(destination), None, |bytes| bytes.push(7));
    }
    let mut refused = Vec::new();
    out.flush(&from, |index, _| refused.push(index));
    assert_eq!(refused, [1]);
    assert_eq!(receive_all(&mut RecvBatch::new(4, 16), &to, 2).len(), 2);
}

#[test]
fn a_datagram_longer_than_its_buffer_is_marked() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    from.send_to(&[1; 20], to.local_addr().unwrap()).unwrap();
    to.peek(&mut [0]).unwrap();
    let mut batch = RecvBatch::new(2, 16);
    assert_eq!(batch.recv(&to).unwrap(), 1);
    let datagram = batch.datagram(0).unwrap();
    assert!(datagram.is_truncated);
    assert_eq!(datagram.bytes, [1; 16]);
    assert!(batch.datagram(1).is_none());
}

#[test]
fn nothing_there_is_would_block() {
    let mut batch = RecvBatch::new(2, 16);
    let error = batch.recv(socket("127.0.0.1:0")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(batch.is_empty());
}

/// Queues `count` datagrams of three octets, each its number.
fn push_numbers(out: &mut SendBatch, to: Option<SocketAddr>, count: u8) {
    for number in 0..count {
        out.push(to, None, |bytes| bytes.extend([number; 3]));
    }
}

/// Flushes and returns what was refused, with the kernel's reason.
fn flush(out: &mut SendBatch, socket: &UdpSocket) -> Vec<(usize, io::ErrorKind)> {
    let mut refused = Vec::new();
    out.flush(socket, |index, error| refused.push((index, error.kind())));
    refused
}

#[test]
fn datagrams_of_all_lengths_to_two_peers_arrive_whole() {
    let from = socket("127.0.0.1:0");
    let peers = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let length = |number: usize| [5, 5, 9, 40, 9][number % 5];
    let mut out = SendBatch::new(BATCH, 64);
    for number in 0..BATCH {
        let to = peers[number % 2].local_addr().unwrap();
        out.push(Some(to), None, |bytes| bytes.resize(length(number), number as u8));
    }
    assert_eq!(flush(&mut out, &from), []);
    for (turn, peer) in peers.iter().enumerate() {
        let mut got: Vec<_> =
            receive_all(&mut RecvBatch::new(BATCH, 64), peer, BATCH / 2).into_iter().map(|(bytes, _)| bytes).collect();
        got.sort_by_key(|bytes| bytes[0]);
        let sent: Vec<_> = (turn..BATCH).step_by(2).map(|number| vec![number as u8; length(number)]).collect();
        assert_eq!(got, sent);
    }
}

#[test]
fn a_train_that_the_kernel_refuses_leaves_one_by_one() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    send_without_checksums(&from).unwrap();
    let mut out = SendBatch::new(8, 16);
    push_numbers(&mut out, Some(to.local_addr().unwrap()), 8);
    assert_eq!(flush(&mut out, &from), []);
    let got = receive_all(&mut RecvBatch::new(8, 64), &to, 8);
    assert_eq!(got.into_iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_error_that_waited_is_told_of_the_first_of_a_train_and_the_others_leave() {
    // Whoever has the port does not answer for it while the first datagram comes.
    let (from, reserved) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let to = reserved.local_addr().unwrap();
    drop(reserved);
    from.connect(to).unwrap();
    from.send(&[9]).unwrap();
    let to = UdpSocket::bind(to).expect("the port was free a moment ago");
    let mut out = SendBatch::new(4, 16);
    push_numbers(&mut out, None, 4);
    assert_eq!(flush(&mut out, &from), [(0, io::ErrorKind::ConnectionRefused)]);
    let got = receive_all(&mut RecvBatch::new(4, 64), &to, 3);
    assert_eq!(got.into_iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [1, 2, 3]);
}
