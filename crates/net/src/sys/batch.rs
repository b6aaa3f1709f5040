//! Batched system calls: `recvmmsg` and `sendmmsg` for many datagrams, through a non-blocking UDP socket and
//! the runtime's `try_io`. The buffers are allocated once and reused. Where the kernel or a sandbox lacks the
//! two calls, datagrams go one by one through `recvmsg` and `sendmsg`.

#![allow(unsafe_code)] // The one exception to the crate's lint, as said above.
#![allow(clippy::unnecessary_cast)] // The C types have other widths on other C libraries.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::control::{Ancillary, ControlBuffer};
use super::gro::{ReceivedBuffer, Segment, Segments};
use super::gso::{SegmentKey, Transmits};

mod control;

/// The datagrams that one call receives or sends at most. A larger batch gains nothing measurable, and its
/// buffers leave the cache.
pub const BATCH: usize = 64;

/// The minimum number of buffers that a call offers, and how many times the previous datagrams it offers.
const MIN_OFFERED: usize = 8;
const GROWTH: usize = 4;

/// The size of a buffer for GRO: the kernel coalesces less than 64 KiB. One more cache line avoids that all
/// buffers begin in the same cache sets.
const GRO_BUFFER: usize = (64 << 10) + 64;

/// The local address and interface of a datagram on a wildcard listener. Its response has to leave from there
/// (RFC 1123 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    ip: IpAddr,
    /// The interface index in native byte order, for link-local addresses. A byte array avoids padding,
    /// because each query in flight stores one.
    interface: [u8; 4],
}

impl LocalAddress {
    /// Creates an address on the interface with this index.
    pub fn new(ip: IpAddr, interface: u32) -> Self {
        Self { ip, interface: interface.to_ne_bytes() }
    }

    /// Returns the destination address of the datagram.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// The path of the response to a datagram: through the listener's socket, or past the kernel by the link of
/// the query ([`crate::Bypass`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyPath {
    local: Option<LocalAddress>,
    /// The number of the link in native byte order, valid for one worker; zero for the socket.
    link: [u8; 2],
}

impl ReplyPath {
    /// A path through the listener's socket, from this address if there is one.
    pub fn by_socket(local: Option<LocalAddress>) -> Self {
        Self { local, link: [0; 2] }
    }

    /// A path past the kernel by the link with this number.
    pub fn by_link(local: Option<LocalAddress>, link: NonZeroU16) -> Self {
        Self { local, link: link.get().to_ne_bytes() }
    }

    /// Returns this path without its link, which no other worker and no later response can use.
    pub fn without_link(self) -> Self {
        Self::by_socket(self.local)
    }

    /// Returns the local address of the query, on a wildcard listener or by a link.
    pub fn local(&self) -> Option<LocalAddress> {
        self.local
    }

    pub(crate) fn link(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(u16::from_ne_bytes(self.link))
    }
}

/// A received datagram, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// The sender.
    pub peer: SocketAddr,
    /// The path of its response, with the local address on sockets for which [`super::bind`] has enabled it.
    pub path: ReplyPath,
    /// True if the payload was longer than the buffer and is cut.
    pub is_truncated: bool,
}

/// Buffers for receiving datagrams.
pub struct RecvBatch {
    buffers: Box<[u8]>,
    room: usize,
    size: usize,
    peers: Box<[libc::sockaddr_storage]>,
    control: Box<[ControlBuffer]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// The number of buffers that the last call could fill.
    offered: usize,
    received: usize,
    segments: Segments,
}

impl RecvBatch {
    /// Allocates room for `count` datagrams of up to `size` bytes.
    pub fn new(count: usize, size: usize) -> Self {
        Self::with_room(count, size, size)
    }

    /// Allocates room for `count` coalesced datagrams of a GRO socket; a chunk has up to `count` segments.
    pub fn for_gro(count: usize, size: usize) -> Self {
        Self::with_room(count, size, GRO_BUFFER.max(size))
    }

    /// Allocates buffers of `room` bytes each. The system provides memory at the first write, so unused
    /// buffers cost nothing.
    fn with_room(count: usize, size: usize, room: usize) -> Self {
        Self {
            buffers: vec![0; count * room].into_boxed_slice(),
            room,
            size,
            peers: vec![zeroed_address(); count].into_boxed_slice(),
            control: vec![ControlBuffer::EMPTY; count].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: room }; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
            offered: 0,
            received: 0,
            segments: Segments::new(count),
        }
    }

    /// Receives available datagrams without blocking. Returns the number of datagrams in the first chunk (see
    /// [`each_chunk`](Self::each_chunk)).
    ///
    /// The call offers buffers for a few times as many datagrams as the previous one received, because the
    /// preparation of all buffers costs more than the system call for one datagram.
    ///
    /// # Errors
    /// `WouldBlock` if there are none; on a connected socket also a pending ICMP error.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        // Even if the call fails, the datagrams of an earlier call are gone.
        self.segments.clear();
        let most = self.headers.len();
        self.offered = if self.is_full() { most } else { (self.received * GROWTH).max(MIN_OFFERED).min(most) };
        self.received = 0;
        self.point();
        self.received = receive(socket.as_fd().as_raw_fd(), &mut self.headers[..self.offered])?;
        self.advance();
        Ok(self.len())
    }

    /// Points every offered header at its buffer, address and control messages. Each call repeats this,
    /// because pointers derived before the last read or move of these must not be written through.
    fn point(&mut self) {
        let buffers = self.buffers.chunks_exact_mut(self.room);
        let rooms = self.vectors.iter_mut().zip(buffers).zip(&mut self.peers).zip(&mut self.control);
        for (header, (((vector, buffer), peer), control)) in self.headers[..self.offered].iter_mut().zip(rooms) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *peer).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut *control).cast();
            header.msg_controllen = size_of::<ControlBuffer>() as _;
            header.msg_flags = 0;
        }
    }

    /// Calls `take` for each chunk of the datagrams that the last [`recv`](Self::recv) received.
    pub fn each_chunk(&mut self, mut take: impl FnMut(&Self)) {
        while !self.is_empty() {
            take(self);
            self.advance();
        }
    }

    /// Returns the arrival time of the first datagram of the last call, since the Unix epoch, if the socket
    /// [stamps](super::options::stamp_arrivals) datagrams.
    pub(crate) fn first_arrived(&self) -> Option<Duration> {
        if self.received > 0 { self.ancillary(0).arrived } else { None }
    }

    /// Skips the datagrams of the last call that arrived before `time`, since the Unix epoch, and returns
    /// their number. Must be called before any chunk is used.
    pub(crate) fn skip_before(&mut self, time: Duration) -> usize {
        let is_early = |number: &usize| self.ancillary(*number).arrived.is_some_and(|arrived| arrived < time);
        // The datagrams are in order of arrival.
        let early = (0..self.received).take_while(is_early).count();
        let datagrams = |number: usize| {
            let length = self.headers[number].msg_len as usize;
            self.ancillary(number)
                .segment_size
                .filter(|segment_size| *segment_size > 0)
                .map_or(1, |segment_size| length.div_ceil(segment_size).max(1))
        };
        let skipped = (0..early).map(datagrams).sum();
        if early > 0 {
            self.segments.skip_to(early);
            self.advance();
        }
        skipped
    }

    fn ancillary(&self, number: usize) -> Ancillary {
        self.control[number].read(self.headers[number].msg_hdr.msg_controllen as usize)
    }

    fn advance(&mut self) {
        let Self { headers, control, segments, .. } = self;
        segments.advance(self.received, |number| {
            let header = &headers[number];
            ReceivedBuffer {
                length: header.msg_len as usize,
                segment_size: control[number].read(header.msg_hdr.msg_controllen as usize).segment_size,
                is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        });
    }

    /// Returns a datagram of the current chunk; `None` past its end, or if the source is no IP address.
    pub fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let Segment { buffer, octets, is_truncated } = self.segments.chunk().get(index)?;
        let bytes = self.buffers.get(buffer * self.room..)?.get(..self.room)?.get(octets.clone())?;
        let length = bytes.len().min(self.size);
        let control = self.control[*buffer].read(self.headers[*buffer].msg_hdr.msg_controllen as usize);
        Some(Datagram {
            bytes: &bytes[..length],
            peer: read_address(&self.peers[*buffer])?,
            path: ReplyPath::by_socket(control.local),
            is_truncated: *is_truncated || length < octets.len(),
        })
    }

    /// Returns the datagrams of the current chunk.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> + Clone {
        (0..self.len()).filter_map(|index| self.datagram(index))
    }

    /// Returns the number of datagrams in the current chunk.
    pub fn len(&self) -> usize {
        self.segments.chunk().len()
    }

    /// Returns true if the current chunk is empty.
    pub fn is_empty(&self) -> bool {
        self.segments.chunk().is_empty()
    }

    /// Returns true if the current chunk has segments of a coalesced datagram.
    pub(crate) fn has_coalesced(&self) -> bool {
        self.segments.chunk().last().is_some_and(|last| last.octets.start > 0 || last.buffer + 1 < self.len())
    }

    /// Returns true if the last call filled all buffers that it offered, so that the socket may have more.
    pub fn is_full(&self) -> bool {
        self.received == self.offered
    }
}

/// Datagrams to be sent by one call.
pub struct SendBatch {
    slots: Box<[Outgoing]>,
    /// The room of a datagram. The slots get it at the first use of the batch.
    size: usize,
    queued: usize,
    transmits: Transmits,
    /// True if the kernel supports GSO; `None` if not checked yet.
    use_gso: Option<bool>,
    peers: Box<[libc::sockaddr_storage]>,
    control: Box<[ControlBuffer]>,
    /// Payload pointers; those of one transmit are adjacent.
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

struct Outgoing {
    bytes: Vec<u8>,
    to: Option<SocketAddr>,
    from: Option<LocalAddress>,
}

impl SendBatch {
    /// Creates a batch for `count` datagrams, at most [`BATCH`], each with a buffer of `size` bytes.
    pub fn new(count: usize, size: usize) -> Self {
        let count = count.min(BATCH);
        Self {
            slots: (0..count).map(|_| Outgoing { bytes: Vec::new(), to: None, from: None }).collect(),
            size,
            queued: 0,
            transmits: Transmits::new(),
            use_gso: None,
            peers: vec![zeroed_address(); count].into_boxed_slice(),
            control: vec![ControlBuffer::EMPTY; count].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
        }
    }

    /// Disables GSO, for a comparison of costs.
    #[must_use]
    pub fn without_gso(self) -> Self {
        Self { use_gso: Some(false), ..self }
    }

    /// Returns true if the next push needs a flush first.
    pub fn is_full(&self) -> bool {
        self.queued == self.slots.len()
    }

    /// Returns true if the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Returns the number of queued datagrams.
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Gives each slot its buffer, so that no later batch allocates, however long it is.
    #[cold]
    fn allocate(&mut self) {
        let size = self.size;
        self.slots.iter_mut().for_each(|slot| slot.bytes.reserve(size));
    }

    /// Queues a datagram, written by `fill` into an empty buffer, and returns its index.
    ///
    /// # Panics
    /// If the batch is full.
    pub fn push(
        &mut self,
        to: Option<SocketAddr>,
        from: Option<LocalAddress>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let index = self.queued;
        if self.slots[index].bytes.capacity() == 0 {
            self.allocate();
        }
        let slot = &mut self.slots[index];
        slot.bytes.clear();
        slot.to = to;
        slot.from = from;
        fill(&mut slot.bytes);
        self.queued += 1;
        index
    }

    /// Queues a datagram like [`push`](Self::push), unless `fill` writes nothing.
    pub(crate) fn push_unless_empty(
        &mut self,
        to: SocketAddr,
        from: Option<LocalAddress>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let index = self.push(Some(to), from, fill);
        if self.slots[index].bytes.is_empty() {
            self.queued = index;
        }
    }

    /// Queues a datagram like [`push`](Self::push) to the addresses that `fill` returns. Returns false if
    /// `fill` returns none.
    pub(crate) fn push_addressed(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<(SocketAddr, Option<LocalAddress>)>,
    ) -> bool {
        let mut addresses = None;
        let index = self.push(None, None, |bytes| addresses = fill(bytes));
        match addresses {
            Some((to, from)) => (self.slots[index].to, self.slots[index].from) = (Some(to), from),
            None => self.queued = index,
        }
        addresses.is_some()
    }

    /// Keeps the datagrams for which `stays` returns true, in order. The others were sent by other means.
    pub fn retain(&mut self, mut stays: impl FnMut(usize, &[u8]) -> bool) {
        let mut left = 0;
        for index in 0..self.queued {
            if stays(index, &self.slots[index].bytes) {
                self.slots.swap(left, index);
                left += 1;
            }
        }
        self.queued = left;
    }

    /// Sends all datagrams and empties the batch. A datagram that the kernel refuses is reported to
    /// `on_refused` and skipped. On `WouldBlock` all remaining datagrams are reported, because a late
    /// response helps a client less than a resend.
    ///
    /// A pending error of the socket, such as an ICMP error, is returned and costs no datagram.
    pub fn flush(&mut self, socket: impl AsFd, mut on_refused: impl FnMut(usize, &io::Error)) -> Option<io::Error> {
        let mut waited = None;
        let fd = socket.as_fd().as_raw_fd();
        self.prepare(fd);
        let count = self.transmits.len();
        let mut next = 0;
        while next < count {
            match send(fd, &mut self.headers[next..count]) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let (_, Range { start, .. }) = self.transmits.get(next);
                    self.transmits.order()[start..].iter().for_each(|index| on_refused(usize::from(*index), &error));
                    return waited;
                }
                Err(error) => {
                    if self.send_one_by_one(fd, next, &error, &mut on_refused) {
                        waited = Some(error);
                    }
                    next += 1;
                }
            }
        }
        waited
    }

    /// Sends one datagram of the last flush again, as changed by `edit`.
    pub fn send_again(&mut self, index: usize, socket: impl AsFd, edit: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let slot = &mut self.slots[index];
        edit(&mut slot.bytes);
        let key = SegmentKey { to: slot.to, from: slot.from, segment_size: slot.bytes.len() };
        self.vectors[0] = libc::iovec { iov_base: slot.bytes.as_mut_ptr().cast(), iov_len: slot.bytes.len() };
        let vectors = self.vectors.as_mut_ptr();
        self.point(0, key, vectors, 1);
        send(socket.as_fd().as_raw_fd(), &mut self.headers[..1]).map(drop)
    }

    fn prepare(&mut self, fd: RawFd) {
        let queued = mem::take(&mut self.queued);
        let use_gso = queued > 1 && *self.use_gso.get_or_insert_with(|| supports_gso(fd));
        let keys = self.slots[..queued].iter().map(|slot| SegmentKey {
            to: slot.to,
            from: slot.from,
            segment_size: slot.bytes.len(),
        });
        self.transmits.arrange(keys, use_gso);
        for (vector, index) in self.vectors.iter_mut().zip(self.transmits.order()) {
            let bytes = &mut self.slots[usize::from(*index)].bytes;
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        }
        // One pointer for all: another borrow of the vectors would invalidate it.
        let vectors = self.vectors.as_mut_ptr();
        for transmit in 0..self.transmits.len() {
            let (key, range) = self.transmits.get(transmit);
            self.point(transmit, key, vectors.wrapping_add(range.start), range.len());
        }
    }

    fn point(&mut self, number: usize, key: SegmentKey, first: *mut libc::iovec, count: usize) {
        let SegmentKey { to, from, segment_size } = key;
        let segment_size = (count > 1).then_some(segment_size as u16);
        let mut header = empty_header();
        header.msg_hdr.msg_iovlen = count as _;
        header.msg_hdr.msg_iov = first;
        if let Some(to) = to {
            header.msg_hdr.msg_namelen = write_address(to, &mut self.peers[number]);
            header.msg_hdr.msg_name = (&raw mut self.peers[number]).cast();
        }
        if from.is_some() || segment_size.is_some() {
            header.msg_hdr.msg_controllen = self.control[number].write(from, segment_size) as _;
            header.msg_hdr.msg_control = (&raw mut self.control[number]).cast();
        }
        self.headers[number] = header;
    }

    /// Sends the segments of a refused transmit one by one. Returns true if the error was a pending one of
    /// the socket, which the kernel reported instead of sending the first.
    fn send_one_by_one(
        &mut self,
        fd: RawFd,
        transmit: usize,
        error: &io::Error,
        on_refused: &mut impl FnMut(usize, &io::Error),
    ) -> bool {
        let (key, left) = self.transmits.get(transmit);
        let first = left.start;
        let is_about_gso = left.len() > 1
            && match error.raw_os_error() {
                // The device or route does not support GSO, and will not later.
                Some(libc::EIO) => {
                    self.use_gso = Some(false);
                    true
                }
                Some(libc::EINVAL | libc::EMSGSIZE) => true,
                _ => false,
            };
        let mut is_first_sent = false;
        let vectors = self.vectors.as_mut_ptr();
        for vector in left {
            self.point(transmit, key, vectors.wrapping_add(vector), 1);
            match send(fd, &mut self.headers[transmit..=transmit]) {
                Ok(_) => is_first_sent |= vector == first,
                Err(error) => on_refused(usize::from(self.transmits.order()[vector]), &error),
            }
        }
        is_first_sent && !is_about_gso
    }
}

/// Returns true if the kernel refused a datagram because it exceeds the MTU and must not be fragmented.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Returns true if the kernel supports GSO. Without support it would send the segments as one long datagram.
fn supports_gso(fd: RawFd) -> bool {
    #[cfg(test)]
    if tests::lacking::is_gso_unknown() {
        return false;
    }
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is that of a borrowed socket; the kernel writes at most one integer, and its
    // length.
    let returned =
        unsafe { libc::getsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, (&raw mut value).cast(), &raw mut size) };
    returned == 0
}

/// Registers a descriptor with the runtime. It is here because registration needs `unsafe`.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, and is always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

fn receive(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        match recvmmsg(fd, headers) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    // Receive until all buffers are filled, as `recvmmsg` would: callers take a partly filled batch as a sign
    // that the socket is empty.
    for (received, header) in headers.iter_mut().enumerate() {
        // SAFETY: as for `recvmmsg`, for this header alone.
        let length = unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, libc::MSG_DONTWAIT) };
        match outcome(length) {
            Ok(length) => header.msg_len = length as libc::c_uint,
            Err(error) if received == 0 => return Err(error),
            // Usually the socket is empty. An ICMP error between two calls is lost, and its query waits for a
            // timeout.
            Err(_) => return Ok(received),
        }
    }
    Ok(headers.len())
}

fn recvmmsg(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    #[cfg(test)]
    tests::lacking::check_recvmmsg()?;
    // SAFETY: `RecvBatch::point` has just pointed every header at a name, an iovec with its buffer, and a
    // control block that are owned by the same `RecvBatch` and have the lengths stated. Nothing has borrowed
    // them since, for `recv` holds `&mut self`.
    let received = unsafe {
        libc::recvmmsg(
            fd,
            headers.as_mut_ptr(),
            headers.len() as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    outcome(received as isize)
}

fn send(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        match sendmmsg(fd, headers) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    let header = headers.first().ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: as for `sendmmsg`, for the first header alone.
    outcome(unsafe { libc::sendmsg(fd, &raw const header.msg_hdr, libc::MSG_DONTWAIT) })?;
    Ok(1)
}

fn sendmmsg(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    #[cfg(test)]
    tests::lacking::check_sendmmsg(headers)?;
    // SAFETY: `SendBatch::point` has pointed every header at a name, iovecs and a control block owned by the
    // same `SendBatch`, with their true lengths; `flush` holds `&mut self`, so nothing moves or borrows them
    // before the call returns. The kernel only reads them.
    let sent =
        unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as libc::c_uint, libc::MSG_DONTWAIT as _) };
    outcome(sent as isize)
}

fn outcome(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is a C struct of integers and pointers, for all of which zero bits are a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn zeroed_address() -> libc::sockaddr_storage {
    // SAFETY: `sockaddr_storage` is a C struct of integers and octets, for all of which zero bits are a
    // value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let storage = &raw const *storage;
    // SAFETY (both blocks): `sockaddr_storage` is large enough and aligned for every address type, all its
    // octets are initialized, and `sockaddr_in`/`sockaddr_in6` hold plain integers; the family says which it
    // is.
    match libc::c_int::from(unsafe { (*storage).ss_family }) {
        libc::AF_INET => {
            let v4 = unsafe { &*storage.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            let v6 = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_address(address: SocketAddr, storage: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let storage = &raw mut *storage;
    // SAFETY (both blocks): `sockaddr_storage` is large enough and aligned for every address type, and all
    // fields that are not written keep the zeros, or an older address's octets, that they have.
    match address {
        SocketAddr::V4(v4) => {
            let out = unsafe { &mut *storage.cast::<libc::sockaddr_in>() };
            out.sin_family = libc::AF_INET as libc::sa_family_t;
            out.sin_port = v4.port().to_be();
            out.sin_addr.s_addr = v4.ip().to_bits().to_be();
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            let out = unsafe { &mut *storage.cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = v6.port().to_be();
            out.sin6_flowinfo = v6.flowinfo();
            out.sin6_addr.s6_addr = v6.ip().octets();
            out.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
fn send_without_checksums(socket: impl AsFd) -> io::Result<()> {
    super::options::switch_on(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK)
}

#[cfg(test)]
mod tests;
