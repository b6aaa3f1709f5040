//! Receiving from a listener under the runtime.

use std::io;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::batch::{BATCH, RecvBatch};

/// Buffers for what a listener receives, trains too: a socket that once took them may serve others after a reload.
pub fn inbox() -> RecvBatch {
    RecvBatch::for_trains(BATCH, QUERY_MAX)
}

/// Receives by one call, after the runtime has said that the socket is readable, and hands what that was to `take`, at most
/// [`BATCH`] datagrams at a time. Returns whether there may be more.
///
/// A call that filled some buffers only has emptied the socket, so the runtime is told at once that it would block, which
/// saves the call that would find that out; what arrives in between is a new edge for the runtime.
pub fn receive(socket: &UdpSocket, batch: &mut RecvBatch, take: impl FnMut(&RecvBatch)) -> bool {
    let mut has_received = false;
    let _ = socket.try_io(Interest::READABLE, || {
        match batch.recv(socket) {
            // An error of an earlier response comes out here; what waits behind it is read next time.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
            result => has_received = result.is_ok(),
        }
        if batch.is_full() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    });
    if has_received {
        batch.each_portion(take);
    }
    has_received && batch.is_full()
}

/// Hands what has arrived at a listener by now to `take`, before it closes.
pub fn receive_last(socket: &UdpSocket, mut take: impl FnMut(&RecvBatch)) {
    let mut batch = inbox();
    for _ in 0..LAST_BATCHES {
        let Ok(1..) = batch.recv(socket) else { return };
        batch.each_portion(&mut take);
    }
}

/// Octets of the longest query that is read whole. A query is a question and an OPT record; what is longer than any EDNS
/// size in use is answered with FORMERR, since its end is missing.
const QUERY_MAX: usize = 4096;

/// Batches that are read at the end: more than a socket's buffer holds, and no more, for a flood never ends.
const LAST_BATCHES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::batch::{SendBatch, take_trains_whole};

    #[tokio::test]
    async fn trains_come_in_portions() {
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        take_trains_whole(&to);
        let mut out = SendBatch::new(BATCH, 16);
        let send_train = |out: &mut SendBatch, count: usize| {
            for _ in 0..count {
                out.push(to.local_addr().ok(), None, |bytes| bytes.extend([1; 3]));
            }
            out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
        };
        send_train(&mut out, 50);
        send_train(&mut out, 30);
        to.readable().await.unwrap();
        let mut portions = Vec::new();
        assert!(!receive(&to, &mut inbox(), |batch| portions.push(batch.len())), "the socket is empty");
        assert_eq!(portions, [BATCH, 80 - BATCH]);

        send_train(&mut out, 60);
        send_train(&mut out, 40);
        portions.clear();
        receive_last(&to, |batch| portions.push(batch.len()));
        assert_eq!(portions, [BATCH, 100 - BATCH]);
    }

    #[tokio::test]
    async fn as_many_as_there_are_buffers_may_not_be_all() {
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for number in 0..3 {
            from.send_to(&[number], to.local_addr().unwrap()).await.unwrap();
        }
        let mut batch = RecvBatch::for_trains(2, 16);
        to.readable().await.unwrap();
        let mut lengths = Vec::new();
        assert!(receive(&to, &mut batch, |batch| lengths.push(batch.len())));
        assert!(!receive(&to, &mut batch, |batch| lengths.push(batch.len())));
        assert_eq!(lengths, [2, 1]);
    }
}
