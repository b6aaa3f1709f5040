//! Tests that a batch arrives whole and in order, and that rejected datagrams are reported.

pub(super) mod lacking;

use self::lacking::{Lacking, without};
use super::*;
use crate::sys::options::{enable_gro, receive_local_address, refused_by_kernel, stamp_arrivals};
use std::net::UdpSocket;
use std::time::Duration;

/// A socket on `address` with a read timeout.
fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("loopback can be bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    socket
}

/// Receives `wanted` datagrams with their peers.
fn receive_all(batch: &mut RecvBatch, socket: &UdpSocket, wanted: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    while all.len() < wanted {
        socket.peek(&mut [0]).expect("a datagram comes within the timeout");
        batch.recv(socket).expect("what was peeked can be received");
        batch.each_chunk(|segments| {
            for index in 0..segments.len() {
                let datagram = segments.datagram(index).expect("an index below the count");
                all.push((datagram.bytes.to_vec(), datagram.peer));
            }
        });
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
    // The kernel rejects only the datagram with an IPv6 destination on an IPv4 socket.
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

/// Queues `count` numbered datagrams of three bytes.
fn push_numbers(out: &mut SendBatch, to: Option<SocketAddr>, count: u8) {
    for number in 0..count {
        out.push(to, None, |bytes| bytes.extend([number; 3]));
    }
}

/// Flushes and returns the rejected datagrams with the kernel's error.
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
fn segments_that_the_kernel_refuses_leave_one_by_one() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    send_without_checksums(&from).unwrap();
    let mut out = SendBatch::new(8, 16);
    push_numbers(&mut out, Some(to.local_addr().unwrap()), 8);
    assert_eq!(flush(&mut out, &from), []);
    let got = receive_all(&mut RecvBatch::new(8, 64), &to, 8);
    assert_eq!(got.into_iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_error_that_waited_is_told_and_all_segments_leave() {
    // The port is reserved but not open when the first datagram arrives.
    let (from, reserved) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let to = reserved.local_addr().unwrap();
    drop(reserved);
    from.connect(to).unwrap();
    from.send(&[9]).unwrap();
    let to = UdpSocket::bind(to).expect("the port was free a moment ago");
    let mut out = SendBatch::new(4, 16);
    push_numbers(&mut out, None, 4);
    let waited = out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
    assert_eq!(waited.map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    let got = receive_all(&mut RecvBatch::new(4, 64), &to, 4);
    assert_eq!(got.into_iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

fn gro_socket(address: &str) -> UdpSocket {
    let socket = socket(address);
    enable_gro(&socket);
    socket
}

/// The datagrams of each chunk: first byte, length, and if they are whole.
fn chunks(batch: &mut RecvBatch) -> Vec<Vec<(u8, usize, bool)>> {
    let mut chunks = Vec::new();
    batch.each_chunk(|segments| {
        let datagrams = (0..segments.len()).filter_map(|index| segments.datagram(index));
        chunks.push(
            datagrams.map(|datagram| (datagram.bytes[0], datagram.bytes.len(), !datagram.is_truncated)).collect(),
        );
    });
    chunks
}

#[test]
fn coalesced_datagrams_are_received_by_one_call_and_handed_out_in_chunks() {
    let (from, to) = (socket("127.0.0.1:0"), gro_socket("127.0.0.1:0"));
    let mut out = SendBatch::new(8, 16);
    push_numbers(&mut out, Some(to.local_addr().unwrap()), 7);
    // A single datagram, not a segment.
    out.push(Some(to.local_addr().unwrap()), None, |bytes| bytes.extend([7; 2]));
    assert_eq!(flush(&mut out, &from), []);
    let mut batch = RecvBatch::for_gro(3, 64);
    to.peek(&mut [0]).unwrap();
    assert_eq!(batch.recv(&to).unwrap(), 3);
    assert_eq!(batch.datagram(2).unwrap().peer, from.local_addr().unwrap());
    assert!(batch.datagram(3).is_none());
    assert!(!batch.is_full());
    let whole = |number, length| (number, length, true);
    let expected = [
        vec![whole(0, 3), whole(1, 3), whole(2, 3)],
        vec![whole(3, 3), whole(4, 3), whole(5, 3)],
        vec![whole(6, 3), whole(7, 2)],
    ];
    assert_eq!(chunks(&mut batch), expected);
    assert!(batch.is_empty());
    assert_eq!(batch.recv(&to).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_new_call_hands_out_nothing_of_an_earlier_one() {
    let (from, to) = (socket("127.0.0.1:0"), gro_socket("127.0.0.1:0"));
    let mut out = SendBatch::new(8, 16);
    let mut batch = RecvBatch::for_gro(2, 64);
    for count in [5, 1] {
        push_numbers(&mut out, Some(to.local_addr().unwrap()), count);
        assert_eq!(flush(&mut out, &from), []);
        to.peek(&mut [0]).unwrap();
        assert_eq!(batch.recv(&to).unwrap(), usize::from(count).min(2));
    }
    assert_eq!(chunks(&mut batch), [[(0, 3, true)]]);
}

#[test]
fn every_segment_that_is_too_long_is_marked() {
    let (from, to) = (socket("127.0.0.1:0"), gro_socket("127.0.0.1:0"));
    let mut out = SendBatch::new(4, 32);
    for number in 0..3 {
        out.push(Some(to.local_addr().unwrap()), None, |bytes| bytes.resize(20, number));
    }
    assert_eq!(flush(&mut out, &from), []);
    let mut batch = RecvBatch::for_gro(4, 16);
    to.peek(&mut [0]).unwrap();
    batch.recv(&to).unwrap();
    assert_eq!(chunks(&mut batch), [[(0, 16, false), (1, 16, false), (2, 16, false)]]);
}

#[test]
fn the_longest_transmit_fits() {
    let (from, to) = (socket("127.0.0.1:0"), gro_socket("127.0.0.1:0"));
    let length = 1000;
    let mut out = SendBatch::new(BATCH, length);
    for number in 0..BATCH {
        out.push(Some(to.local_addr().unwrap()), None, |bytes| bytes.resize(length, number as u8));
    }
    assert_eq!(flush(&mut out, &from), []);
    let got = receive_all(&mut RecvBatch::for_gro(BATCH, length), &to, BATCH);
    let expected: Vec<_> = (0..BATCH).map(|number| (vec![number as u8; length], from.local_addr().unwrap())).collect();
    assert_eq!(got, expected);
}

/// Sends segments to a wildcard listener and expects the local address with each datagram.
fn check_local_address(wildcard: &str, address: &str) {
    let (from, to) = (socket(&format!("{address}:0")), gro_socket(wildcard));
    let to_address = SocketAddr::new(from.local_addr().unwrap().ip(), to.local_addr().unwrap().port());
    receive_local_address(&to, to_address.is_ipv6()).unwrap();
    let mut out = SendBatch::new(4, 16);
    push_numbers(&mut out, Some(to_address), 3);
    assert_eq!(flush(&mut out, &from), []);
    let mut batch = RecvBatch::for_gro(4, 16);
    to.peek(&mut [0]).unwrap();
    assert_eq!(batch.recv(&to).unwrap(), 3);
    assert_eq!(batch.received, 1, "one transmit");
    for index in 0..3 {
        let datagram = batch.datagram(index).unwrap();
        assert_eq!(datagram.path.local().map(|local| local.ip()), Some(to_address.ip()));
        assert_eq!(datagram.bytes, [index as u8; 3]);
    }
}

#[test]
fn each_segment_tells_where_it_arrived() {
    check_local_address("0.0.0.0:0", "127.0.0.1");
    check_local_address("[::]:0", "[::1]");
}

#[test]
fn without_gro_the_kernel_hands_out_segments() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let mut out = SendBatch::new(4, 16);
    push_numbers(&mut out, Some(to.local_addr().unwrap()), 3);
    assert_eq!(flush(&mut out, &from), []);
    let mut batch = RecvBatch::for_gro(4, 16);
    to.peek(&mut [0]).unwrap();
    assert_eq!((batch.recv(&to).unwrap(), batch.received), (3, 3));
}

fn wait(time: Duration) {
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    nobody.set_read_timeout(Some(time)).expect("a timeout above zero");
    assert!(nobody.recv(&mut [0]).is_err());
}

#[test]
fn what_came_too_early_is_passed_over() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    enable_gro(&to);
    let mut out = SendBatch::new(BATCH, 16);
    let mut send = |octet: u8, count: usize| {
        for _ in 0..count {
            out.push(to.local_addr().ok(), None, |bytes| bytes.extend([octet; 3]));
        }
        out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
    };
    stamp_arrivals(&to, true);
    // The kernel starts to add timestamps a moment later.
    let mut batch = RecvBatch::for_gro(8, 16);
    let is_stamped = (0..1000).any(|_| {
        send(0, 1);
        batch.recv(&to).expect("loopback is quick");
        let arrived = batch.first_arrived().expect("every datagram has a time");
        wait(Duration::from_millis(2));
        let later = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        later - arrived >= Duration::from_millis(2) && later - arrived < Duration::from_secs(60)
    });
    assert!(is_stamped);

    send(1, 3);
    send(2, 1);
    wait(Duration::from_millis(20));
    let between = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    send(3, 2);
    batch.recv(&to).expect("loopback is quick");
    assert!(batch.first_arrived().is_some_and(|arrived| arrived + Duration::from_millis(20) <= between));
    assert_eq!(batch.skip_before(between - Duration::from_secs(60)), 0);
    assert_eq!(batch.skip_before(between), 4);
    let mut left = Vec::new();
    batch.each_chunk(|segments| {
        (0..segments.len()).for_each(|index| left.push(segments.datagram(index).unwrap().bytes[0]))
    });
    assert_eq!(left, [3, 3]);

    send(1, 2);
    batch.recv(&to).expect("loopback is quick");
    assert_eq!(batch.skip_before(Duration::MAX), 2);
    assert!(batch.is_empty());

    stamp_arrivals(&to, false);
    send(1, 1);
    batch.recv(&to).expect("loopback is quick");
    assert_eq!(batch.first_arrived(), None);
}

#[test]
fn what_the_kernel_refuses_is_counted() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let before = refused_by_kernel(&to).expect("Linux counts them");
    socket2::SockRef::from(&to).set_recv_buffer_size(1).expect("a small buffer is granted");
    for _ in 0..100 {
        from.send_to(&[0; 1000], to.local_addr().unwrap()).unwrap();
    }
    let refused = refused_by_kernel(&to).expect("Linux counts them") - before;
    to.set_nonblocking(true).unwrap();
    let received = std::iter::from_fn(|| to.recv(&mut [0; 1000]).ok()).count();
    assert_eq!(received + refused as usize, 100);
    assert!(refused > 0);
}

/// Sends datagrams of two lengths without a kernel feature, and receives them in order by small batches.
/// Returns how many calls failed.
fn check_without(lacking: Lacking) -> usize {
    without(lacking, || {
        let (from, to) = (socket("127.0.0.1:0"), gro_socket("127.0.0.1:0"));
        let address = to.local_addr().expect("it is bound");
        let mut out = SendBatch::new(BATCH, 16);
        for _ in 0..2 {
            for number in 0..20_u8 {
                out.push(Some(address), None, |bytes| bytes.resize(if number < 15 { 3 } else { 5 }, number));
            }
            assert_eq!(flush(&mut out, &from), [], "{lacking:?}");
            let mut batch = RecvBatch::for_gro(8, 16);
            let got = receive_all(&mut batch, &to, 20);
            let numbers: Vec<_> = got.iter().map(|(bytes, _)| (bytes[0], bytes.len())).collect();
            let expected: Vec<_> = (0..20).map(|number| (number, if number < 15 { 3 } else { 5 })).collect();
            assert_eq!(numbers, expected, "{lacking:?}");
            assert!(got.iter().all(|(_, peer)| Some(*peer) == from.local_addr().ok()), "{lacking:?}");
        }
    })
}

#[test]
fn without_the_batched_calls_datagrams_go_one_by_one() {
    // One call per datagram without GSO, and per length with it.
    assert!(check_without(Lacking::Batches) >= 4);
}

#[test]
fn without_gso_each_datagram_leaves_by_itself() {
    assert_eq!(check_without(Lacking::Gso), 1, "the kernel is asked once");
}

#[test]
fn device_that_cannot_cut_segments_is_tried_once() {
    // Both lengths of the first batch fail; the second batch no longer tries.
    assert_eq!(check_without(Lacking::Segments(libc::EIO)), 2);
}

#[test]
fn segments_that_are_too_long_for_a_route_are_tried_again_later() {
    for errno in [libc::EINVAL, libc::EMSGSIZE] {
        assert_eq!(check_without(Lacking::Segments(errno)), 4);
    }
}

#[test]
fn without_the_batched_calls_a_batch_takes_all_that_there_is_room_for() {
    without(Lacking::Batches, || {
        let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        for number in 0..5 {
            from.send_to(&[number], to.local_addr().expect("it is bound")).expect("loopback takes it");
        }
        let mut batch = RecvBatch::new(3, 16);
        assert_eq!((batch.recv(&to).ok(), batch.is_full()), (Some(3), true), "there may be more");
        assert_eq!((batch.recv(&to).ok(), batch.is_full()), (Some(2), false), "the socket is empty");
        assert_eq!(batch.recv(&to).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    });
}

#[test]
fn without_the_batched_calls_errors_that_waited_are_told() {
    without(Lacking::Batches, || {
        let (from, nobody) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let to = nobody.local_addr().expect("it is bound");
        drop(nobody);
        from.connect(to).expect("loopback can be reached");
        from.send(&[1]).expect("loopback takes it");
        let mut batch = RecvBatch::new(3, 16);
        assert_eq!(batch.recv(&from).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn addresses_are_read_as_they_were_written() {
    for address in ["192.0.2.1:53", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
        let address: SocketAddr = address.parse().expect("an address");
        let mut storage = zeroed_address();
        assert!(write_address(address, &mut storage) as usize <= size_of_val(&storage));
        assert_eq!(read_address(&storage), Some(address));
    }
    assert_eq!(read_address(&zeroed_address()), None);
}

#[test]
fn what_has_left_another_way_is_not_sent() {
    let (receiver, sender) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let to = receiver.local_addr().unwrap();
    for stays in [0b0000, 0b1111, 0b0110, 0b1001, 0b1000, 0b0001] {
        let mut batch = SendBatch::new(4, 16);
        for number in 0..4 {
            batch.push(Some(to), None, |out| out.push(number));
        }
        let mut seen = Vec::new();
        batch.retain(|index, datagram| {
            seen.push((index, datagram.to_vec()));
            stays & (1 << index) != 0
        });
        assert_eq!(seen, (0..4).map(|number| (usize::from(number), vec![number])).collect::<Vec<_>>());
        let left: Vec<u8> = (0..4).filter(|number| stays & (1 << number) != 0).collect();
        assert_eq!((batch.len(), batch.is_empty()), (left.len(), left.is_empty()));
        batch.flush(&sender, |_, error| panic!("{error}"));
        for number in left {
            let mut octets = [0; 4];
            assert_eq!((receiver.recv(&mut octets).unwrap(), octets[0]), (1, number));
        }
        assert!(batch.is_empty());
    }
}

#[test]
fn call_after_a_small_batch_offers_few_buffers() {
    let (from, to) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let mut batch = RecvBatch::new(BATCH, 16);
    for (sent, received, is_full) in [(1, 1, false), (20, MIN_OFFERED, true), (0, 20 - MIN_OFFERED, false)] {
        for _ in 0..sent {
            from.send_to(&[1], to.local_addr().unwrap()).unwrap();
        }
        to.peek(&mut [0]).unwrap();
        assert_eq!((batch.recv(&to).unwrap(), batch.is_full()), (received, is_full));
    }
}
