//! Batched system calls: many datagrams received or sent by one `recvmmsg`/`sendmmsg`.
//!
//! Owns the buffers, addresses and control messages that the kernel reads and writes, allocated once and
//! reused for ever. Used with a non-blocking UDP socket, through `try_io` of the runtime. Knows nothing
//! of DNS, never blocks, and is the only file with `unsafe` in it: each block says why it is sound. On a
//! kernel or sandbox without the two calls, datagrams go one by one through `recvmsg` and `sendmsg`,
//! over the same structures.

#![allow(unsafe_code)] // The one exception to the crate's lint, as said above.
#![allow(clippy::unnecessary_cast)] // The C types have other widths on other C libraries.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams that one call receives or sends at most. The gain of a larger batch is below what can be
/// measured, while its buffers leave the cache.
pub const BATCH: usize = 64;

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
    /// One `size`-octet buffer after the other.
    buffers: Box<[u8]>,
    /// Octets of one buffer.
    size: usize,
    /// Source addresses, written by the kernel.
    peers: Box<[libc::sockaddr_storage]>,
    /// Control messages, written by the kernel.
    control: Box<[Control]>,
    /// Points into `buffers`; never read by us, kept for the kernel.
    _vectors: Box<[libc::iovec]>,
    /// Points into all of the above.
    headers: Box<[libc::mmsghdr]>,
    /// How many the last call received.
    received: usize,
}

impl RecvBatch {
    /// Room for `count` datagrams of up to `size` octets.
    pub fn new(count: usize, size: usize) -> Self {
        let mut buffers = vec![0; count * size].into_boxed_slice();
        let mut peers = vec![zeroed_address(); count].into_boxed_slice();
        let mut control = vec![Control::EMPTY; count].into_boxed_slice();
        let mut vectors: Box<[_]> = buffers
            .chunks_exact_mut(size)
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = (0..count)
            .map(|i| {
                let mut header = empty_header();
                header.msg_hdr.msg_name = (&raw mut peers[i]).cast();
                header.msg_hdr.msg_iov = &raw mut vectors[i];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = (&raw mut control[i]).cast();
                header
            })
            .collect();
        Self { buffers, size, peers, control, _vectors: vectors, headers, received: 0 }
    }

    /// Receives what is there, without blocking, and returns how many datagrams that was. A full batch
    /// means that there may be more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; on a connected socket also a pending ICMP error.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        // Whatever happens, what an earlier call received is gone.
        let dirty = mem::take(&mut self.received);
        for header in &mut self.headers[..dirty] {
            header.msg_hdr.msg_flags = 0;
        }
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        self.received = receive(socket.as_fd().as_raw_fd(), &mut self.headers)?;
        Ok(self.received)
    }

    /// Datagram `index` of the last [`recv`](Self::recv); `None` past its end, or if its source is no IP address.
    pub fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        if index >= self.received {
            return None;
        }
        let header = &self.headers[index];
        let length = (header.msg_len as usize).min(self.size);
        let start = index * self.size;
        Some(Datagram {
            bytes: &self.buffers[start..start + length],
            peer: read_address(&self.peers[index])?,
            local: self.control[index].read(header.msg_hdr.msg_controllen as usize),
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// How many datagrams the last call received.
    pub fn len(&self) -> usize {
        self.received
    }

    /// Whether the last call received nothing.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// How many datagrams one call can receive.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }
}

/// Datagrams that wait to be sent by one call.
pub struct SendBatch {
    /// Payloads and addresses; those past `queued` are kept for their buffers.
    slots: Box<[Outgoing]>,
    /// How many slots hold a datagram.
    queued: usize,
    /// Room for what the kernel reads, filled anew by every flush.
    peers: Box<[libc::sockaddr_storage]>,
    /// Room for control messages.
    control: Box<[Control]>,
    /// Room for payload pointers.
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
    /// Room for `count` datagrams, each with a buffer that holds `size` octets before it has to grow.
    pub fn new(count: usize, size: usize) -> Self {
        let slot = || Outgoing { bytes: Vec::with_capacity(size), to: None, from: None };
        Self {
            slots: (0..count).map(|_| slot()).collect(),
            queued: 0,
            peers: vec![zeroed_address(); count].into_boxed_slice(),
            control: vec![Control::EMPTY; count].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
        }
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

    /// Sends all that is queued and empties the batch. A datagram that the kernel refuses is reported to
    /// `on_refused` with its index and skipped; when the socket takes no more (`WouldBlock`), all that is
    /// left is reported so, since a response that waits helps its client less than a resend does.
    pub fn flush(&mut self, socket: impl AsFd, mut on_refused: impl FnMut(usize, &io::Error)) {
        let fd = socket.as_fd().as_raw_fd();
        let queued = mem::take(&mut self.queued);
        for index in 0..queued {
            self.prepare(index);
        }
        let mut next = 0;
        while next < queued {
            match transmit(fd, &mut self.headers[next..queued]) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (next..queued).for_each(|index| on_refused(index, &error));
                    return;
                }
                Err(error) => {
                    on_refused(next, &error);
                    next += 1;
                }
            }
        }
    }

    /// Points the header of a queued datagram at its parts.
    fn prepare(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        self.vectors[index] = libc::iovec { iov_base: slot.bytes.as_mut_ptr().cast(), iov_len: slot.bytes.len() };
        let mut header = empty_header();
        header.msg_hdr.msg_iov = &raw mut self.vectors[index];
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = slot.to {
            header.msg_hdr.msg_namelen = write_address(to, &mut self.peers[index]);
            header.msg_hdr.msg_name = (&raw mut self.peers[index]).cast();
        }
        if let Some(from) = slot.from {
            header.msg_hdr.msg_controllen = self.control[index].write(from) as _;
            header.msg_hdr.msg_control = (&raw mut self.control[index]).cast();
        }
        self.headers[index] = header;
    }
}

/// Asks the kernel to tell of every datagram at which local address it arrived ([`Datagram::local`]). For listeners on
/// a wildcard address; stands here because no crate at hand offers the option behind a safe call.
///
/// # Errors
/// What the kernel says.
pub fn tell_local_address(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads one integer of the stated size.
    let returned = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const on).cast(), size) };
    outcome(returned as isize).map(drop)
}

/// Lets the runtime watch a descriptor that it has no type for. Stands here because that takes an `unsafe` word.
///
/// # Errors
/// If the runtime's own descriptors are exhausted.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, and is always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// `recvmmsg`, or `recvmsg` where that does not exist.
fn receive(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        // SAFETY: every header points to a name, an iovec with its buffer, and a control block that are
        // owned by the same `RecvBatch`, live in boxes that never move or shrink, have the lengths stated,
        // and are not borrowed elsewhere during the call, because `recv` holds `&mut self`.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        match outcome(received as isize) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    let header = headers.first_mut().ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: as above, for the first header alone.
    let length = unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, libc::MSG_DONTWAIT) };
    header.msg_len = outcome(length)? as libc::c_uint;
    Ok(1)
}

/// `sendmmsg`, or `sendmsg` where that does not exist. Returns how many left, at least one.
fn transmit(fd: RawFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        // SAFETY: `prepare` has just pointed every header at a name, an iovec and a control block owned by the
        // same `SendBatch`, with their true lengths; `flush` holds `&mut self`, so nothing moves them
        // before the call returns. The kernel only reads them.
        let sent =
            unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as libc::c_uint, libc::MSG_DONTWAIT as _) };
        match outcome(sent as isize) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    let header = headers.first().ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: as above, for the first header alone.
    outcome(unsafe { libc::sendmsg(fd, &raw const header.msg_hdr, libc::MSG_DONTWAIT) })?;
    Ok(1)
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

/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` message, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Control {
    /// No message.
    const EMPTY: Self = Self([0; 64]);

    /// Where the datagram arrived, if the kernel said so in the first `length` octets.
    fn read(&self, length: usize) -> Option<LocalAddress> {
        let mut header = empty_header().msg_hdr;
        header.msg_control = (&raw const *self).cast_mut().cast();
        header.msg_controllen = length.min(self.0.len()) as _;
        // SAFETY: the header's control part is this block, aligned, initialized, and its length is stated truly. The
        // macros stay within it: `CMSG_FIRSTHDR` and `CMSG_NXTHDR` return null when no whole header is left. The data
        // of such a message is as long as its type, which `cmsg_len` is checked for before the unaligned read.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&raw const header);
            while let Some(current) = message.as_ref() {
                let carries = |size| current.cmsg_len as usize >= libc::CMSG_LEN(size as u32) as usize;
                match (current.cmsg_level, current.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) if carries(size_of::<libc::in_pktinfo>()) => {
                        let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        // `ipi_addr` is the header's destination; `ipi_spec_dst` is what a reply should use.
                        // They differ for broadcast and multicast, which cannot be a source.
                        let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
                        return Some(LocalAddress { ip: ip.into(), interface: info.ipi_ifindex.to_ne_bytes() });
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if carries(size_of::<libc::in6_pktinfo>()) => {
                        let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        return Some(LocalAddress { ip: ip.into(), interface: info.ipi6_ifindex.to_ne_bytes() });
                    }
                    _ => message = libc::CMSG_NXTHDR(&raw const header, message),
                }
            }
        }
        None
    }

    /// Asks for a source address; returns the length of the message.
    fn write(&mut self, from: LocalAddress) -> usize {
        let mut header = empty_header().msg_hdr;
        header.msg_control = (&raw mut *self).cast();
        header.msg_controllen = self.0.len() as _;
        // SAFETY: the block is aligned and, with 64 octets, longer than either message (at most 40), so that
        // `CMSG_FIRSTHDR` is not null and the header and data written below lie within it.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            match from.ip {
                IpAddr::V4(ip) => {
                    let size = size_of::<libc::in_pktinfo>() as libc::c_uint;
                    (*message).cmsg_level = libc::IPPROTO_IP;
                    (*message).cmsg_type = libc::IP_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size) as _;
                    // No interface: the route decides, as for any other datagram of this host.
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr { s_addr: ip.to_bits().to_be() },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
                    libc::CMSG_SPACE(size) as usize
                }
                IpAddr::V6(ip) => {
                    let size = size_of::<libc::in6_pktinfo>() as libc::c_uint;
                    (*message).cmsg_level = libc::IPPROTO_IPV6;
                    (*message).cmsg_type = libc::IPV6_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size) as _;
                    // A link-local address means nothing without its interface (RFC 4007 section 6).
                    let interface = if ip.is_unicast_link_local() { u32::from_ne_bytes(from.interface) } else { 0 };
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                        ipi6_ifindex: interface as _,
                    };
                    ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
                    libc::CMSG_SPACE(size) as usize
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
