//! Batched system calls: many datagrams received or sent by one `recvmmsg`/`sendmmsg`.
//!
//! Owns the buffers, addresses and control messages that the kernel reads and writes, allocated once and
//! reused for ever. Used with a non-blocking UDP socket, through `try_io` of the runtime. Knows nothing
//! of DNS, and never blocks. Each block with `unsafe` says why it is sound. On a
//! kernel or sandbox without the two calls, datagrams go one by one through `recvmsg` and `sendmsg`,
//! over the same structures.

#![allow(unsafe_code)] // The one exception to the crate's lint, as said above.
#![allow(clippy::unnecessary_cast)] // The C types have other widths on other C libraries.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::control::{Ancillary, Control};
use super::gro::{Received, Segment, Segments};
use super::gso::{SegmentKey, Transmits};

mod control;

/// Datagrams that one call receives or sends at most. The gain of a larger batch is below what can be
/// measured, while its buffers leave the cache.
pub const BATCH: usize = 64;

/// Octets of a buffer for GRO: whatever the kernel coalesces is below 64 KiB. And one line of the processor's cache more,
/// or all buffers would begin in the same few places of it.
const GRO_BUFFER: usize = (64 << 10) + 64;

/// The address and interface at which a datagram arrived on a wildcard listener, and from which its
/// response has to leave (RFC 1123 section 2.3 asks that of a multihomed host).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The destination address of the datagram.
    ip: IpAddr,
    /// The interface, in the order of octets of this machine; needed for link-local addresses. Octets, so that there is no gap
    /// before it: each query in flight has one of these.
    interface: [u8; 4],
}

impl LocalAddress {
    /// An address of ours, on the interface of this index.
    pub fn new(ip: IpAddr, interface: u32) -> Self {
        Self { ip, interface: interface.to_ne_bytes() }
    }

    /// The destination address of the datagram.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// A received datagram, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub peer: SocketAddr,
    /// Where it arrived, on sockets for which [`super::bind`] asked the kernel to tell.
    pub local: Option<LocalAddress>,
    /// The payload was longer than the buffer; its end is lost.
    pub is_truncated: bool,
}

/// Buffers for datagrams to be received.
pub struct RecvBatch {
    /// One buffer of `room` octets after the other.
    buffers: Box<[u8]>,
    /// Octets of one buffer.
    room: usize,
    /// Octets of the longest datagram that is handed out whole.
    size: usize,
    /// Source addresses, written by the kernel.
    peers: Box<[libc::sockaddr_storage]>,
    /// Control messages, written by the kernel.
    control: Box<[Control]>,
    /// Room for pointers into `buffers`, made anew for every call.
    vectors: Box<[libc::iovec]>,
    /// Room for headers, which point into all of the above for as long as a call takes.
    headers: Box<[libc::mmsghdr]>,
    /// How many buffers the last call has filled.
    received: usize,
    /// Which segments of what is in them are handed out.
    segments: Segments,
}

impl RecvBatch {
    /// Room for `count` datagrams of up to `size` octets.
    pub fn new(count: usize, size: usize) -> Self {
        Self::with_room(count, size, size)
    }

    /// The same for a socket with GRO: room for `count` coalesced datagrams, of which up to `count` segments are handed out at a
    /// time.
    pub fn for_gro(count: usize, size: usize) -> Self {
        Self::with_room(count, size, GRO_BUFFER.max(size))
    }

    /// With `room` octets in each buffer. The system gives memory when it is first written to, so that what is
    /// never filled costs nothing.
    fn with_room(count: usize, size: usize, room: usize) -> Self {
        Self {
            buffers: vec![0; count * room].into_boxed_slice(),
            room,
            size,
            peers: vec![zeroed_address(); count].into_boxed_slice(),
            control: vec![Control::EMPTY; count].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: room }; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
            received: 0,
            segments: Segments::new(count),
        }
    }

    /// Receives what is there, without blocking, and returns how many datagrams that was, or how many of them are handed
    /// out first ([`each_chunk`](Self::each_chunk)).
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; on a connected socket also a pending ICMP error.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        // Whatever happens, what an earlier call received is gone.
        self.segments.clear();
        self.received = 0;
        self.point();
        self.received = receive(socket.as_fd().as_raw_fd(), &mut self.headers)?;
        self.advance();
        Ok(self.len())
    }

    /// Points every header at its buffer, its address and its control messages. Anew for every call: what was derived from these
    /// before they were last read, or moved, must not be written through.
    fn point(&mut self) {
        let buffers = self.buffers.chunks_exact_mut(self.room);
        let rooms = self.vectors.iter_mut().zip(buffers).zip(&mut self.peers).zip(&mut self.control);
        for (header, (((vector, buffer), peer), control)) in self.headers.iter_mut().zip(rooms) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *peer).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut *control).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
    }

    /// Hands out all that the last [`recv`](Self::recv) received: `take` is given no more datagrams at a time than there is
    /// room for, and sees them in its argument.
    pub fn each_chunk(&mut self, mut take: impl FnMut(&Self)) {
        while !self.is_empty() {
            take(self);
            self.advance();
        }
    }

    /// When the first datagram of the last call came, since the Unix epoch, on a socket whose datagrams are
    /// [stamped](super::options::stamp_arrivals).
    pub fn first_arrived(&self) -> Option<Duration> {
        if self.received > 0 { self.ancillary(0).arrived } else { None }
    }

    /// Passes over the datagrams of the last call that came before a time, since the Unix epoch; returns how many that were. To be
    /// called before anything is handed out.
    pub fn skip_before(&mut self, time: Duration) -> usize {
        let is_early = |number: &usize| self.ancillary(*number).arrived.is_some_and(|arrived| arrived < time);
        // They lie in the order in which they came.
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

    /// What the kernel says of what it has put into a buffer.
    fn ancillary(&self, number: usize) -> Ancillary {
        self.control[number].read(self.headers[number].msg_hdr.msg_controllen as usize)
    }

    /// Turns to the next datagrams of the last call.
    fn advance(&mut self) {
        let Self { headers, control, segments, .. } = self;
        segments.advance(self.received, |number| {
            let header = &headers[number];
            Received {
                length: header.msg_len as usize,
                segment_size: control[number].read(header.msg_hdr.msg_controllen as usize).segment_size,
                is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        });
    }

    /// Datagram `index` of those that are handed out; `None` past their end, or if its source is no IP address.
    pub fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let Segment { buffer, octets, is_truncated } = self.segments.chunk().get(index)?;
        let bytes = self.buffers.get(buffer * self.room..)?.get(..self.room)?.get(octets.clone())?;
        let length = bytes.len().min(self.size);
        Some(Datagram {
            bytes: &bytes[..length],
            peer: read_address(&self.peers[*buffer])?,
            local: self.control[*buffer].read(self.headers[*buffer].msg_hdr.msg_controllen as usize).local,
            is_truncated: *is_truncated || length < octets.len(),
        })
    }

    /// How many datagrams are handed out.
    pub fn len(&self) -> usize {
        self.segments.chunk().len()
    }

    /// Whether none is handed out.
    pub fn is_empty(&self) -> bool {
        self.segments.chunk().is_empty()
    }

    /// Whether something that was coalesced is among what is handed out.
    pub fn has_coalesced(&self) -> bool {
        self.segments.chunk().last().is_some_and(|last| last.octets.start > 0 || last.buffer + 1 < self.len())
    }

    /// Whether the last call has filled all buffers, so that there may be more in the socket.
    pub fn is_full(&self) -> bool {
        self.received == self.headers.len()
    }
}

/// Datagrams that wait to be sent by one call.
pub struct SendBatch {
    /// Payloads and addresses; those past `queued` are kept for their buffers.
    slots: Box<[Outgoing]>,
    /// How many slots hold a datagram.
    queued: usize,
    /// Which of them leave as segments of one.
    transmits: Transmits,
    /// Whether the kernel offers GSO; `None` until it was asked.
    use_gso: Option<bool>,
    /// Room for what the kernel reads of each transmit, filled anew by every flush.
    peers: Box<[libc::sockaddr_storage]>,
    /// Room for control messages.
    control: Box<[Control]>,
    /// Room for payload pointers, those of one transmit side by side.
    vectors: Box<[libc::iovec]>,
    /// Room for headers.
    headers: Box<[libc::mmsghdr]>,
}

/// One datagram to be sent.
struct Outgoing {
    /// The payload.
    bytes: Vec<u8>,
    /// Where to; `None` on a connected socket.
    to: Option<SocketAddr>,
    /// The source address to use; `None` leaves it to the kernel.
    from: Option<LocalAddress>,
}

impl SendBatch {
    /// Room for `count` datagrams, at most [`BATCH`], each with a buffer that holds `size` octets before it has to grow.
    pub fn new(count: usize, size: usize) -> Self {
        let count = count.min(BATCH);
        let slot = || Outgoing { bytes: Vec::with_capacity(size), to: None, from: None };
        Self {
            slots: (0..count).map(|_| slot()).collect(),
            queued: 0,
            transmits: Transmits::new(),
            use_gso: None,
            peers: vec![zeroed_address(); count].into_boxed_slice(),
            control: vec![Control::EMPTY; count].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
        }
    }

    /// The same, but each datagram leaves by itself: to measure what GSO saves, and as the yardstick that others use too.
    #[must_use]
    pub fn without_gso(self) -> Self {
        Self { use_gso: Some(false), ..self }
    }

    /// Whether the next push needs a flush before it.
    pub fn is_full(&self) -> bool {
        self.queued == self.slots.len()
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Queues a datagram, written by `fill` into an empty buffer, and returns its index.
    ///
    /// # Panics
    /// If the batch is full: the caller flushes in time.
    pub fn push(
        &mut self,
        to: Option<SocketAddr>,
        from: Option<LocalAddress>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let index = self.queued;
        let slot = &mut self.slots[index];
        slot.bytes.clear();
        slot.to = to;
        slot.from = from;
        fill(&mut slot.bytes);
        self.queued += 1;
        index
    }

    /// Like [`push`](Self::push), but if `fill` writes nothing, nothing is queued.
    pub fn push_unless_empty(&mut self, to: SocketAddr, from: Option<LocalAddress>, fill: impl FnOnce(&mut Vec<u8>)) {
        let index = self.push(Some(to), from, fill);
        if self.slots[index].bytes.is_empty() {
            self.queued = index;
        }
    }

    /// Like [`push`](Self::push), but `fill` says where it goes, and where from; if it says nothing, nothing is queued. Returns whether
    /// something was.
    pub fn push_addressed(
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

    /// Leaves in the batch what `stays` says of each datagram, in its order; the others have left another way.
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

    /// Sends all that is queued and empties the batch. A datagram that the kernel refuses is reported to
    /// `on_refused` with its index and skipped; when the socket takes no more (`WouldBlock`), all that is
    /// left is reported so, since a response that waits helps its client less than a resend does.
    ///
    /// An error that had waited on the socket, as ICMP errors to connected ones do, is returned and costs no datagram.
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

    /// Sends one datagram of the batch that was flushed last once more by itself, as `edit` has changed it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send_again(&mut self, index: usize, socket: impl AsFd, edit: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let slot = &mut self.slots[index];
        edit(&mut slot.bytes);
        let key = SegmentKey { to: slot.to, from: slot.from, segment_size: slot.bytes.len() };
        self.vectors[0] = libc::iovec { iov_base: slot.bytes.as_mut_ptr().cast(), iov_len: slot.bytes.len() };
        let vectors = self.vectors.as_mut_ptr();
        self.point(0, key, vectors, 1);
        send(socket.as_fd().as_raw_fd(), &mut self.headers[..1]).map(drop)
    }

    /// Puts all that is queued together to transmits, and points a header at each.
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
        // One pointer for all: another borrow of the vectors would end the first.
        let vectors = self.vectors.as_mut_ptr();
        for transmit in 0..self.transmits.len() {
            let (key, range) = self.transmits.get(transmit);
            self.point(transmit, key, vectors.wrapping_add(range.start), range.len());
        }
    }

    /// Points a header at the vectors of the segments that it stands for: so many, from the first.
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

    /// The kernel has refused a transmit: its segments leave one by one. Returns whether the error had waited on the socket, and was
    /// about none of them: then it was told in place of sending the first.
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
                // The device, or what the route goes through, cannot do GSO: it will not learn to.
                Some(libc::EIO) => {
                    self.use_gso = Some(false);
                    true
                }
                // Too long for this route.
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

/// Whether the kernel does not send a datagram because it is too long for the way, and is not to be cut.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Whether the kernel knows GSO: one that does not would send the segments as one long datagram.
fn supports_gso(fd: RawFd) -> bool {
    #[cfg(test)]
    if lacking::is_gso_unknown() {
        return false;
    }
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is that of a borrowed socket; the kernel writes at most one integer, and its length.
    let returned =
        unsafe { libc::getsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, (&raw mut value).cast(), &raw mut size) };
    returned == 0
}

/// Lets the runtime watch a descriptor that it has no type for. Stands here because that takes an `unsafe` word.
///
/// # Errors
/// If the runtime's own descriptors are exhausted.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, and is always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Receives by `recvmmsg`, or one by one where that does not exist.
fn receive(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        match recvmmsg(fd, headers) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    // As many as there are, as the one call would: who gets fewer than there is room for takes the socket for empty.
    for (received, header) in headers.iter_mut().enumerate() {
        // SAFETY: as for `recvmmsg`, for this header alone.
        let length = unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, libc::MSG_DONTWAIT) };
        match outcome(length) {
            Ok(length) => header.msg_len = length as libc::c_uint,
            Err(error) if received == 0 => return Err(error),
            // Mostly that there is no more. An ICMP error that comes just between two calls is lost, and whoever it is about
            // waits for its timeout.
            Err(_) => return Ok(received),
        }
    }
    Ok(headers.len())
}

fn recvmmsg(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    #[cfg(test)]
    lacking::check_recvmmsg()?;
    // SAFETY: `RecvBatch::point` has just pointed every header at a name, an iovec with its buffer, and a control block that are
    // owned by the same `RecvBatch` and have the lengths stated. Nothing has borrowed them since, for `recv` holds `&mut self`.
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

/// Sends by `sendmmsg`, or by `sendmsg` where that does not exist. Returns how many left, at least one.
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
    lacking::check_sendmmsg(headers)?;
    // SAFETY: `SendBatch::point` has pointed every header at a name, iovecs and a control block owned by the same `SendBatch`,
    // with their true lengths; `flush` holds `&mut self`, so nothing moves or borrows them before the call returns. The kernel
    // only reads them.
    let sent =
        unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as libc::c_uint, libc::MSG_DONTWAIT as _) };
    outcome(sent as isize)
}

/// The result of a system call that returns a count, or -1 and `errno`.
fn outcome(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// A header that points nowhere.
fn empty_header() -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is a C struct of integers and pointers, for all of which zero bits are a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// An address of no family.
fn zeroed_address() -> libc::sockaddr_storage {
    // SAFETY: `sockaddr_storage` is a C struct of integers and octets, for all of which zero bits are a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Reads an address that the kernel wrote.
fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let storage = &raw const *storage;
    // SAFETY (both blocks): `sockaddr_storage` is large enough and aligned for every address type, all its octets
    // are initialized, and `sockaddr_in`/`sockaddr_in6` hold plain integers; the family says which it is.
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

/// Writes an address for the kernel and returns its length.
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

/// Switches checksums off, without which the kernel refuses GSO: for a test of that refusal.
#[cfg(test)]
fn send_without_checksums(socket: impl AsFd) -> io::Result<()> {
    super::options::switch_on(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK)
}

#[cfg(test)]
mod lacking;
#[cfg(test)]
mod tests;
