//! A listener's UDP socket under the runtime.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pressure::{Adjustment, MAX_WAIT, UdpPressure};
use crate::Bypass;
use crate::proxy_protocol::Proxies;
use crate::sys::batch::{self, BATCH, RecvBatch, ReplyPath, SendBatch};
use crate::sys::bind::SOCKET_BUFFER;
use crate::sys::options;

/// A listener's socket, which the runtime watches for input only.
///
/// The runtime's own type also watches for room to send, which the kernel reports whenever a datagram has
/// left: each batch of responses would wake the worker once more for nothing.
pub struct ListenerSocket {
    fd: AsyncFd<OwnedFd>,
    /// The bound address; unspecified for all addresses of this machine.
    address: SocketAddr,
    bypass: Rc<Bypass>,
    proxies: Arc<Proxies>,
    pressure: RefCell<UdpPressure>,
    refused: Cell<u32>,
    dropped: Cell<u64>,
    /// True if GRO must end once the socket is empty. An earlier reader, in this process or another, may have
    /// enabled it.
    is_gro_to_end: Cell<bool>,
}

impl ListenerSocket {
    /// Registers a non-blocking socket with this thread's runtime. Queries of `proxies` have a PROXY header.
    /// Responses to queries that came by `bypass` leave by it too.
    pub fn new(socket: UdpSocket, proxies: Arc<Proxies>, bypass: Rc<Bypass>) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let refused = options::refused_by_kernel(&socket).unwrap_or_default();
        // An earlier reader may have ended under pressure.
        options::stamp_arrivals(&socket, false);
        Ok(Self {
            fd: batch::watch(socket.into())?,
            address,
            bypass,
            proxies,
            pressure: RefCell::default(),
            refused: Cell::new(refused),
            dropped: Cell::default(),
            is_gro_to_end: Cell::new(true),
        })
    }

    /// Enables GRO while this reader has the socket, unless it disturbs the bypass.
    pub fn enable_gro(&self) {
        if !self.bypass.is_gro_off() {
            self.is_gro_to_end.set(false);
            options::enable_gro(&self.fd);
        }
    }

    /// Ends GRO once the socket is empty: the kernel reports the segment size of a coalesced datagram only
    /// while GRO is on.
    #[cold]
    fn end_gro(&self) {
        options::disable_gro(&self.fd);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        if recv(&self.fd, &mut [0_u8; 1], flags).is_err_and(|error| error == Errno::AGAIN) {
            self.is_gro_to_end.set(false);
        } else {
            options::enable_gro(&self.fd);
        }
    }

    /// Returns the local address of a query, the source of its response.
    pub fn asked_at(&self, path: ReplyPath) -> SocketAddr {
        path.local().map_or(self.address, |local| SocketAddr::new(local.ip(), self.address.port()))
    }

    /// Queues the response that `fill` writes, unless it is empty: in `responses`, or for the bypass if its
    /// query came by it.
    pub fn queue(&self, responses: &mut SendBatch, to: SocketAddr, path: ReplyPath, fill: impl FnOnce(&mut Vec<u8>)) {
        match path.link() {
            None => responses.push_unless_empty(to, path.local(), fill),
            Some(link) => self.bypass.push(link, (self.asked_at(path), to), fill, |message| {
                responses.push_unless_empty(to, path.local(), |out| out.extend_from_slice(message));
            }),
        }
    }

    /// Sends all queued responses.
    pub fn send(&self, responses: &mut SendBatch, refused: impl FnMut(usize, &io::Error)) {
        responses.flush(self, refused);
        self.bypass.flush();
    }

    /// Returns the proxies whose datagrams have a PROXY header.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Waits until there may be input.
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_read_ready(cx).map_ok(drop)
    }

    /// Receives by one call, after [`readable`](Self::readable), and passes the datagrams to `take`, at most
    /// [`BATCH`] at a time. Returns true if there may be more.
    ///
    /// A call that fills only some buffers has emptied the socket. The runtime then learns at once that the
    /// next call would block, which saves that call; a later datagram is a new edge for the runtime.
    pub fn receive(&self, batch: &mut RecvBatch, take: impl FnMut(&RecvBatch)) -> bool {
        let mut has_received = false;
        let _ = self.fd.try_io(Interest::READABLE, |socket| {
            match batch.recv(socket) {
                // This error belongs to an earlier response; the next turn reads the datagrams behind it.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
                result => has_received = result.is_ok(),
            }
            if batch.is_full() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        if self.is_gro_to_end.get() && !batch.is_full() {
            self.end_gro();
        }
        if has_received {
            if self.pressure.borrow_mut().note(batch.is_full()) {
                self.relieve(batch);
            }
            batch.each_chunk(take);
        }
        has_received && batch.is_full()
    }

    /// Returns the number of datagrams dropped unread because of overload since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.take()
    }

    /// Relieves pressure: drops datagrams that have waited too long, and adjusts the receive buffer.
    #[cold]
    fn relieve(&self, batch: &mut RecvBatch) {
        // The kernel stamps by this clock. If the clock is set meanwhile, one batch seems older or newer.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let waited = batch.first_arrived().map(|arrived| now.saturating_sub(arrived));
        let is_overload = self.pressure.borrow().is_overload();
        if is_overload && waited.is_some_and(|waited| waited > MAX_WAIT) {
            self.dropped.set(self.dropped.get() + batch.skip_before(now.saturating_sub(MAX_WAIT)) as u64);
        }
        let socket = SockRef::from(&self.fd);
        // The kernel grants and reports twice the requested size.
        let buffer = || socket.recv_buffer_size().map_or(SOCKET_BUFFER, |granted| granted / 2);
        match self.pressure.borrow_mut().look(waited, buffer, Instant::now()) {
            Adjustment::Nothing => {}
            Adjustment::Begin => {
                options::stamp_arrivals(&self.fd, true);
                self.count_refused();
            }
            Adjustment::Measure(buffer) => {
                if let Some(buffer) = buffer {
                    let _ = socket.set_recv_buffer_size(buffer);
                }
                self.count_refused();
            }
            Adjustment::End => {
                options::stamp_arrivals(&self.fd, false);
                let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
                self.count_refused();
            }
        }
    }

    fn count_refused(&self) {
        if let Some(refused) = options::refused_by_kernel(&self.fd) {
            let before = self.refused.replace(refused);
            self.dropped.set(self.dropped.get() + u64::from(refused.wrapping_sub(before)));
        }
    }

    /// Passes the datagrams that have arrived by now to `take`, before the socket closes.
    pub fn receive_last(&self, mut take: impl FnMut(&RecvBatch)) {
        let mut batch = inbox();
        for _ in 0..LAST_BATCHES {
            let Ok(1..) = batch.recv(&self.fd) else { return };
            batch.each_chunk(&mut take);
        }
    }
}

/// Allocates buffers for a listener, with room for GRO, because a GRO socket may serve another listener after
/// a reload.
pub fn inbox() -> RecvBatch {
    RecvBatch::for_gro(BATCH, MAX_QUERY)
}

impl AsFd for ListenerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The longest query in bytes that is read whole. A query is a question and an OPT record; a query longer
/// than any EDNS size in use is truncated and gets FORMERR.
const MAX_QUERY: usize = 4096;

/// The batches that are read at the end: more than a socket's buffer holds. A limit is needed because a flood
/// never ends.
const LAST_BATCHES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bind::{Group, Kinds};
    use crate::sys::options::enable_gro;

    /// A sending socket, and a non-blocking one.
    fn sockets() -> (UdpSocket, UdpSocket) {
        let sockets = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound"));
        let [from, to] = sockets;
        to.set_nonblocking(true).expect("a socket need not block");
        (from, to)
    }

    #[tokio::test]
    async fn coalesced_datagrams_come_in_chunks() {
        let (from, to) = sockets();
        enable_gro(&to);
        let address = to.local_addr().ok();
        let to = ListenerSocket::new(to, Arc::default(), Rc::default()).unwrap();
        let mut out = SendBatch::new(BATCH, 16);
        let send_coalesced = |out: &mut SendBatch, count: usize| {
            for _ in 0..count {
                out.push(address, None, |bytes| bytes.extend([1; 3]));
            }
            out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
        };
        send_coalesced(&mut out, 50);
        send_coalesced(&mut out, 30);
        to.readable().await.unwrap();
        let mut chunks = Vec::new();
        assert!(!to.receive(&mut inbox(), |batch| chunks.push(batch.len())), "the socket is empty");
        assert_eq!(chunks, [BATCH, 80 - BATCH]);

        send_coalesced(&mut out, 60);
        send_coalesced(&mut out, 40);
        chunks.clear();
        to.receive_last(|batch| chunks.push(batch.len()));
        assert_eq!(chunks, [BATCH, 100 - BATCH]);
    }

    #[tokio::test]
    async fn gro_of_an_earlier_reader_ends_when_the_socket_is_empty() {
        let (from, to) = sockets();
        enable_gro(&to);
        let address = to.local_addr().unwrap();
        let mut out = SendBatch::new(BATCH, 16);
        let mut send_coalesced = || {
            for _ in 0..50 {
                out.push(Some(address), None, |bytes| bytes.extend([1; 3]));
            }
            out.flush(&from, |index, error| panic!("datagram {index} refused: {error}"));
        };
        // Another process leaves this to us.
        send_coalesced();
        let group = Group::complete(address, Kinds::Datagram, vec![to], Vec::new()).unwrap();
        let socket =
            |clone: &UdpSocket| ListenerSocket::new(clone.try_clone().unwrap(), Arc::default(), Rc::default()).unwrap();
        let earlier = socket(&group.udp[0]);
        earlier.enable_gro();
        drop(earlier);
        send_coalesced();
        let to = socket(&group.udp[0]);
        let receive = async || {
            let mut received = Vec::new();
            to.readable().await.unwrap();
            to.receive(&mut inbox(), |batch| received.push((batch.len(), batch.has_coalesced())));
            received
        };
        assert_eq!(receive().await, [(BATCH, true), (100 - BATCH, true)]);
        send_coalesced();
        assert_eq!(receive().await, [(50, false)]);
    }

    #[tokio::test]
    async fn as_many_as_there_are_buffers_may_not_be_all() {
        let (from, to) = sockets();
        for number in 0..3 {
            from.send_to(&[number], to.local_addr().unwrap()).unwrap();
        }
        let to = ListenerSocket::new(to, Arc::default(), Rc::default()).unwrap();
        let mut batch = RecvBatch::for_gro(2, 16);
        to.readable().await.unwrap();
        let mut lengths = Vec::new();
        assert!(to.receive(&mut batch, |batch| lengths.push(batch.len())));
        assert!(!to.receive(&mut batch, |batch| lengths.push(batch.len())));
        assert_eq!(lengths, [2, 1]);
    }
}
