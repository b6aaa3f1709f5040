//! The TS: the story of one query. A datagram comes in, the catalog answers it, the response leaves with the others of its
//! batch. There is no state between two queries but the catalog, which is swapped whole.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::UdpSocket;

use crate::metrics::{Counters, Dropped, Source, Transport};
use crate::net::batch::{BATCH, RecvBatch, SendBatch};
use crate::net::tcp::Responder;
use crate::net::udp::{LAST_BATCHES, QUERY_MAX, receive};
use crate::zone::{self, Catalog, Reaction};

/// One worker's part of a TS.
pub struct Authority {
    /// What it answers from.
    catalog: RefCell<Arc<Catalog>>,
    /// What is counted.
    counters: Arc<Counters>,
}

impl Authority {
    /// Answers from `catalog`.
    pub fn new(catalog: Arc<Catalog>, counters: Arc<Counters>) -> Self {
        Self { catalog: RefCell::new(catalog), counters }
    }

    /// Answers from another catalog from now on.
    pub fn set_catalog(&self, catalog: Arc<Catalog>) {
        self.catalog.replace(catalog);
    }

    /// Answers what a listener receives, for as long as it is polled.
    ///
    /// # Errors
    /// If the socket has left the runtime.
    pub async fn serve_udp(self: Rc<Self>, socket: Rc<UdpSocket>) -> io::Result<()> {
        let mut received = RecvBatch::new(BATCH, QUERY_MAX);
        let mut responses = SendBatch::new(BATCH, UDP_SIZE.into());
        loop {
            socket.readable().await?;
            let count = receive(&socket, &mut received);
            self.answer_batch(&socket, &received, &mut responses);
            if count == BATCH {
                // There may be more, but connections have their turn first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Answers what has arrived at a listener by now, before it closes.
    pub fn answer_last(&self, socket: &UdpSocket) {
        let mut received = RecvBatch::new(BATCH, QUERY_MAX);
        let mut responses = SendBatch::new(BATCH, UDP_SIZE.into());
        for _ in 0..LAST_BATCHES {
            let Ok(1..) = received.recv(socket) else { return };
            self.answer_batch(socket, &received, &mut responses);
        }
    }

    /// Answers a batch of datagrams.
    fn answer_batch(&self, socket: &UdpSocket, received: &RecvBatch, responses: &mut SendBatch) {
        let datagrams = (0..received.len()).filter_map(|index| received.datagram(index));
        zone::warm(&self.catalog.borrow(), datagrams.clone().map(|datagram| datagram.bytes));
        for datagram in datagrams {
            responses.push_unless_empty(datagram.peer, datagram.local, |out| {
                self.answer(datagram.bytes, Transport::Udp, out);
            });
        }
        // Straight to the socket: responses do not wait for it to become writable.
        responses.flush(socket, |_, _| self.counters.dropped(Dropped::Unsent));
    }

    /// Answers a query that came by TCP.
    pub fn answer_stream_query(&self, message: &[u8], responder: &Responder) {
        responder.respond(|out| self.answer(message, Transport::Tcp, out));
    }

    /// Answers one query into `out`, which stays empty if there is nothing to say.
    fn answer(&self, message: &[u8], transport: Transport, out: &mut Vec<u8>) {
        let kind = match transport {
            Transport::Udp => zone::Transport::Udp,
            Transport::Tcp => zone::Transport::Tcp,
        };
        let reaction = zone::respond(&self.catalog.borrow(), message, kind, UDP_SIZE, out);
        if reaction != Reaction::Malformed {
            self.counters.query(transport);
        }
        match reaction {
            Reaction::Respond(rcode) => return self.counters.responses(Source::Authority, rcode.0, 1),
            Reaction::Silent => self.counters.dropped(Dropped::Silent),
            Reaction::Malformed => self.counters.dropped(Dropped::Malformed),
        }
        out.clear();
    }
}

/// Largest UDP response, octets: what passes nearly everywhere without fragmentation (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1232;
