//! The sockets to the backends: a set of connected UDP sockets per backend, and the message IDs of the
//! outstanding queries of each. Backends that are asked by stream have `connections/` instead. The caller
//! chooses the IDs and checks the replies.
//!
//! The sockets have their own epoll set, which the runtime watches as one descriptor: a worker opens up to
//! 500 sockets per second, and to register each with the runtime would allocate, and wake a task per readable
//! socket.
//!
//! Protection against forged replies (RFC 5452 section 9.2): sockets are connected, so that the kernel drops
//! datagrams from other addresses, and their ports are random and renewed all the time. A CSPRNG, seeded by
//! the operating system, provides them.
//!
//! ```text
//!            flush                  free                        no ID is taken, and retired
//!   queue ──────────▶ outstanding ──────────▶ the ID is free ──────────▶ socket closed
//! ```

mod batches;
mod connections;
mod poller;
mod room;
mod sent;
mod socket;
#[cfg(test)]
mod tests;
mod udp;
mod void;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use self::connections::{ConnectionEnd, ConnectionPool, EndedConnection, StreamWay, TlsSource};
pub use self::poller::{Event, Poller};
pub use self::udp::UdpSockets;
use crate::Bypass;
use crate::proxy_protocol::ClientHeader;
use crate::refusal::SendRefusal;

/// The sockets of one worker to all its backends.
pub struct BackendSockets {
    /// The poller of all sockets.
    pub poller: Poller,
    /// The UDP sockets to the other backends.
    pub udp: UdpSockets,
    /// The connections to backends that are asked by stream.
    pub connections: ConnectionPool,
    set_count: u32,
    free_sets: Vec<SocketSetId>,
    struck: Vec<SocketId>,
    rng: StdRng,
}

/// The error of a receive call, such as an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The backend cannot be reached.
    Unreachable,
    /// Another error, which the next send may clarify.
    Other,
}

/// A message that could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsentMessage {
    /// Its slot, which is free.
    pub slot: QuerySlot,
    /// The backend's set that the message was for.
    pub socket_set: SocketSetId,
    /// The reason for the failure.
    pub why: SendRefusal,
}

impl BackendSockets {
    /// Creates an empty collection with room for this many UDP sockets. Each backend gets its first socket
    /// regardless of room. `message_size` is the usual size of a message in bytes. Datagrams use the bypass
    /// where possible.
    pub fn new(room: usize, message_size: usize, bypass: Rc<Bypass>) -> io::Result<Self> {
        let poller = Poller::new()?;
        Ok(Self {
            udp: UdpSockets::new(Rc::clone(&poller.epoll), room, message_size, bypass),
            connections: ConnectionPool::new(Rc::clone(&poller.epoll))?,
            poller,
            set_count: 0,
            free_sets: Vec::new(),
            struck: Vec::new(),
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Adds a set for a backend.
    pub fn add(&mut self, address: SocketAddr) -> SocketSetId {
        let set_id = self.next_set();
        self.udp.add(set_id, address);
        set_id
    }

    /// Adds a set for a backend that is asked by stream. Nothing is dialled yet.
    pub fn add_by_stream(&mut self, address: SocketAddr, way: StreamWay) -> SocketSetId {
        let set_id = self.next_set();
        self.connections.add(set_id, address, way);
        self.udp.reserve_port(address);
        set_id
    }

    fn next_set(&mut self) -> SocketSetId {
        self.free_sets.pop().unwrap_or_else(|| {
            self.set_count += 1;
            SocketSetId(self.set_count - 1)
        })
    }

    /// Removes a backend and its sockets. Lists its outstanding queries.
    pub fn remove(&mut self, set_id: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.take_back(set_id, lost);
        if let Some(address) = self.udp.remove(set_id).or_else(|| self.connections.remove(set_id)) {
            self.udp.release_port(address);
            self.free_sets.push(set_id);
        }
    }

    /// Chooses the socket for the next message. By stream, it is another connection than `avoid`, and one
    /// that carries only the queries of the client in the header.
    ///
    /// # Errors
    /// If no socket is open and none can be opened, or half of the IDs of all sockets are taken.
    #[inline]
    pub fn choose(
        &mut self,
        set_id: SocketSetId,
        avoid: Option<SocketId>,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> Result<SocketId, SendRefusal> {
        match self.udp.current(set_id, now, &mut self.rng) {
            Some(number) => number,
            None => self.connections.choose(set_id, avoid, header, now),
        }
    }

    /// Queues a message for the next [`flush`](Self::flush), in a free slot of the socket just chosen. `fill`
    /// writes the message; the ID of the slot replaces its first two bytes. A datagram begins with the
    /// header.
    ///
    /// # Errors
    /// If it is too long for a stream. The slot is then free.
    #[inline]
    pub fn queue(
        &mut self,
        slot: QuerySlot,
        header: Option<&ClientHeader>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendRefusal> {
        let Some(filling) = self.udp.take_slot(slot) else { return self.connections.queue(slot, fill) };
        filling.batch.push(None, None, |out| {
            fill(out);
            if let Some(id) = out.first_chunk_mut() {
                *id = slot.id().to_be_bytes();
            }
            if let Some(header) = header {
                out.splice(..0, header.octets.iter().copied());
            }
        });
        Ok(())
    }

    /// Sends all queued messages, with one call per backend. Messages that could not be sent go to `refused`.
    pub fn flush(&mut self, refused: &mut Vec<UnsentMessage>) {
        self.connections.flush();
        self.udp.flush(refused, &mut self.struck);
    }

    /// Returns the descriptor that becomes readable when [`ready`](Self::ready) has events.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.poller.epoll.as_fd()
    }

    /// Collects events without waiting. Returns true if there may be more. Process earlier events before.
    pub fn ready(&mut self, events: &mut Vec<Event>) -> bool {
        self.udp.free_closed();
        self.connections.free_closed();
        self.poller.ready(events)
    }

    /// Returns a socket where sending returned an ICMP error, which concerns earlier messages.
    pub fn pop_struck(&mut self) -> Option<SocketId> {
        self.struck.pop()
    }

    /// Returns the address of a set's backend, for logs.
    pub fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.udp.address(set_id).or_else(|| self.connections.address(set_id))
    }

    /// Frees a slot whose reply came or is no longer needed.
    pub fn free(&mut self, slot: QuerySlot, now: Instant) {
        if !self.udp.free_slot(slot) {
            self.connections.free_slot(slot, Some(now));
        }
    }

    /// Flushes and then retires a socket, if another can be opened: a forger may know its port.
    pub fn shun(&mut self, number: SocketId, refused: &mut Vec<UnsentMessage>) {
        self.flush(refused);
        self.udp.spend(number);
    }

    /// Frees and lists all outstanding queries of a backend that is dead.
    pub fn take_back(&mut self, set_id: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.connections.close_all(set_id, lost);
        self.udp.take_back(set_id, lost);
    }

    /// Returns the time when [`UdpSockets::tidy`] or the connections have work.
    pub fn next_tidy(&mut self) -> Option<Instant> {
        [self.udp.next_tidy(), self.connections.next_check()].into_iter().flatten().min()
    }
}
