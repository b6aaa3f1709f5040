//! A socket of AF_XDP (an XSK) on one queue of an interface: its memory for frames (UMEM) and its four rings, which are those of the
//! crate `xdp`.
//!
//! ```text
//!              fill ring                  RX ring             receive
//!   free ────────────────▶ the kernel's ────────────▶ received ──────▶ free
//!                                                                  push         flush
//!                                              free ──────────────────▶ to leave ─────▶ TX ring, completion ring ─────▶ free
//! ```
//!
//! A frame is always in exactly one of these places. Those that are free are taken last in, first out, so that they stay in the
//! processor's cache. One thread at a time uses the socket: it receives up to [`BATCH`] frames without a system call, and asks the kernel
//! once for all that leaves. Each block with `unsafe` says why it is sound.

#![allow(unsafe_code)] // What the rings hand out points into memory of which the crate `xdp` does not know how long it lives.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use xdp::slab::{HeapSlab, Slab};
use xdp::socket::XdpSocketBuilder;
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{RingConfigBuilder, RxRing, Umem, WakableRings, WakableTxRing};

/// A frame in the memory of a socket.
pub use xdp::Packet as Frame;

use super::frame::{self, Link};
use super::program::MAX_FRAME;
use crate::net::batch::BATCH;

/// Frames that wait for the kernel to fill them, and as many that it has filled at the most: what comes while a worker is busy
/// elsewhere, as the receive buffer of a UDP socket is. The kernel fills them in turn, so that more of them leave the processor's cache
/// before they come again.
const RX_FRAMES: u32 = 1024;
/// Frames that may be on their way out.
const TX_FRAMES: u32 = 1024;
/// Octets of a frame with the room that the kernel wants ahead of it.
const FRAME_SIZE: FrameSize = FrameSize::TwoK;
/// Octets of memory that one socket locks for its frames.
pub const MEMORY: usize = (RX_FRAMES + TX_FRAMES) as usize * 2048;
/// How often the kernel is asked in one turn to send what it did not take at once: it takes 32 frames a call in copy mode.
const MAX_KICKS: usize = 2 * BATCH;

/// What becomes of frames on one queue. Written by the thread that has the socket.
#[derive(Debug, Default)]
pub struct FrameCounts {
    /// Received.
    pub taken: AtomicU64,
    /// Received, and no datagram for us that is whole.
    pub invalid: AtomicU64,
    /// Handed to the kernel to be sent.
    pub sent: AtomicU64,
    /// Not sent, since the interface is down or takes no more.
    pub unsent: AtomicU64,
}

/// Whether frames are copied between the kernel's memory and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// As the driver can.
    Auto,
    /// Never: zero copy, or an error.
    Never,
    /// Always.
    Always,
}

/// Why a frame was not queued. Its datagram may still leave by an ordinary socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unqueued {
    /// It is longer than the interface takes.
    TooLong,
    /// All frames are on their way.
    NoRoom,
}

/// A socket of AF_XDP. It can move between threads; a thread that panics may leave it to the next.
pub struct Xsk {
    /// The descriptor.
    builder: XdpSocketBuilder,
    queue: u32,
    copying: Copying,
    receiving: RefCell<Receiving>,
    sending: RefCell<Sending>,
    /// The longest IP datagram that leaves, octets.
    mtu: Arc<AtomicU32>,
    counts: Arc<FrameCounts>,
    /// The source of IP identifications.
    identification: Cell<u64>,
}

/// What comes in.
struct Receiving {
    ring: RxRing,
    slab: HeapSlab,
    /// The frames that are being looked at.
    frames: Vec<Frame>,
}

/// What goes out, and all that is free.
struct Sending {
    ring: WakableTxRing,
    rest: WakableRings,
    /// Frames that leave with the next flush.
    slab: HeapSlab,
    /// Whether the kernel has not taken all that is in the ring.
    is_stuck: bool,
    /// Whether the kernel wants to be woken to send, as it says.
    tx_wakeup: Flags,
    /// Whether it wants to be woken to fill frames.
    fill_wakeup: Flags,
    /// Last, as the rings must not outlive it.
    memory: Umem,
}

impl Xsk {
    /// Makes one for a queue, which hears nothing until it is bound. `mtu` is that of the interface, octets.
    ///
    /// # Errors
    /// If the kernel has no AF_XDP, the process no right to it (CAP_NET_RAW) or may not lock the memory.
    pub fn new(queue: u32, mtu: Arc<AtomicU32>, copying: Copying) -> io::Result<Self> {
        let memory =
            UmemCfgBuilder { frame_size: FRAME_SIZE, frame_count: RX_FRAMES + TX_FRAMES, ..UmemCfgBuilder::default() };
        let mut memory = Umem::map(memory.build().map_err(io::Error::other)?)?;
        let sizes = RingConfigBuilder {
            rx_count: RX_FRAMES,
            tx_count: TX_FRAMES,
            fill_count: RX_FRAMES,
            completion_count: TX_FRAMES,
        };
        let sizes = sizes.build().map_err(io::Error::other)?;
        let mut builder = XdpSocketBuilder::new().map_err(source)?;
        let (mut rings, _) = builder.build_wakable_rings(&memory, sizes).map_err(source)?;
        // SAFETY: the structure is made of integers alone.
        let offsets: libc::xdp_mmap_offsets = unsafe { option(builder.as_raw_fd(), libc::XDP_MMAP_OFFSETS) }?;
        let tx_wakeup = Flags::map(builder.as_raw_fd(), TX_RING, offsets.tx.flags)?;
        let fill_wakeup = Flags::map(builder.as_raw_fd(), FILL_RING, offsets.fr.flags)?;
        // SAFETY: memory and rings go into one value, in which the memory is dropped last.
        unsafe { rings.fill_ring.enqueue(&mut memory, RX_FRAMES as usize, false) }?;
        let (Some(rx), Some(tx)) = (rings.rx_ring.take(), rings.tx_ring.take()) else {
            return Err(io::Error::other("rings of the size that was asked for are missing"));
        };
        let slab = || HeapSlab::with_capacity(BATCH);
        let receiving = Receiving { ring: rx, slab: slab(), frames: Vec::with_capacity(BATCH) };
        let sending = Sending { ring: tx, rest: rings, slab: slab(), is_stuck: false, tx_wakeup, fill_wakeup, memory };
        Ok(Self {
            builder,
            queue,
            copying,
            receiving: RefCell::new(receiving),
            sending: RefCell::new(sending),
            mtu,
            counts: Arc::default(),
            identification: Cell::new(rand::random()),
        })
    }

    /// Binds it to its queue of an interface. May be tried again.
    ///
    /// # Errors
    /// If another has the queue (`EBUSY`), or it is not there; or if the driver cannot do what is asked for.
    pub fn bind(&self, interface: u32) -> io::Result<()> {
        // Not by the crate, which would close the socket if the queue is another's yet.
        let copying = match self.copying {
            Copying::Auto => 0,
            Copying::Never => libc::XDP_ZEROCOPY,
            Copying::Always => libc::XDP_COPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_USE_NEED_WAKEUP | copying,
            sxdp_ifindex: interface,
            sxdp_queue_id: self.queue,
            sxdp_shared_umem_fd: 0,
        };
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads one address of that size, which outlives the call.
        let returned = unsafe { libc::bind(self.builder.as_raw_fd(), (&raw const address).cast(), size) };
        if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The number of its queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// What has become of frames so far.
    pub fn counts(&self) -> &Arc<FrameCounts> {
        &self.counts
    }

    /// Whether frames go without being copied, once it is bound.
    pub fn is_zero_copy(&self) -> bool {
        // SAFETY: the value is an integer.
        unsafe { option::<u32>(self.builder.as_raw_fd(), libc::XDP_OPTIONS) }
            .is_ok_and(|options| options & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Hands frames that have come to `take`, up to [`BATCH`] of them. Returns how many they were.
    pub fn receive(&self, take: impl FnOnce(&[Frame])) -> usize {
        let mut receiving = self.receiving.borrow_mut();
        let Receiving { ring, slab, frames } = &mut *receiving;
        let left = frames.len();
        if left > 0 {
            // Whoever was to look at these has panicked.
            self.give_back(frames);
        }
        // SAFETY: all frames are given back below, before the memory can go.
        if unsafe { ring.recv(&self.sending.borrow().memory, slab) } == 0 {
            return 0;
        }
        while let Some(frame) = slab.pop_back() {
            frames.push(frame);
        }
        let count = frames.len();
        add(&self.counts.taken, count as u64);
        take(frames);
        self.give_back(frames);
        count
    }

    /// Gives frames back to be filled anew.
    fn give_back(&self, frames: &mut Vec<Frame>) {
        let mut sending = self.sending.borrow_mut();
        let Sending { rest, memory, fill_wakeup, .. } = &mut *sending;
        let count = frames.len();
        frames.drain(..).for_each(|frame| memory.free_packet(frame));
        // SAFETY: as in `new`. As many as have just left the ring find room in it.
        let _ = unsafe { rest.fill_ring.enqueue(memory, count, false) };
        if fill_wakeup.is_wakeup_needed() {
            // SAFETY: nothing is received but a look at the rings; no octets are handed over.
            unsafe {
                libc::recvfrom(
                    self.builder.as_raw_fd(),
                    ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
        }
    }

    /// Counts frames that were received and are no datagram for us.
    pub fn count_invalid(&self, count: u64) {
        add(&self.counts.invalid, count);
    }

    /// Queues a datagram for the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// If it cannot leave as one frame, or none is free.
    pub fn push(&self, link: Link, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<(), Unqueued> {
        let headers = frame::headers_len(to.is_ipv6());
        let length = headers + payload.len();
        if length > MAX_FRAME.min(self.mtu.load(Ordering::Relaxed) as usize + ETHERNET) {
            return Err(Unqueued::TooLong);
        }
        let mut sending = self.sending.borrow_mut();
        if sending.slab.available() == 0 {
            self.send(&mut sending);
        }
        let Some(mut out) = self.free_frame(&mut sending) else {
            add(&self.counts.unsent, 1);
            return Err(Unqueued::NoRoom);
        };
        if out.adjust_tail(length as i32).is_err() {
            sending.memory.free_packet(out);
            return Err(Unqueued::TooLong);
        }
        out[headers..].copy_from_slice(payload);
        frame::write_headers(&mut out, link, from, to, self.next_identification());
        if let Some(refused) = sending.slab.push_front(out) {
            sending.memory.free_packet(refused);
            add(&self.counts.unsent, 1);
            return Err(Unqueued::NoRoom);
        }
        Ok(())
    }

    /// A frame that is free, or was until the kernel had sent it.
    fn free_frame(&self, sending: &mut Sending) -> Option<Frame> {
        let Sending { rest, memory, .. } = sending;
        if memory.allocatable() == 0 {
            rest.completion_ring.dequeue(memory, BATCH);
        }
        // SAFETY: it goes into the slab or the ring of the same value, or back.
        unsafe { memory.alloc() }
    }

    /// Hands all that is queued to the kernel.
    pub fn flush(&self) {
        let mut sending = self.sending.borrow_mut();
        if !sending.slab.is_empty() || sending.is_stuck {
            self.send(&mut sending);
        }
    }

    /// Whether the kernel has not taken all that it was handed, and has to be asked again.
    pub fn is_stuck(&self) -> bool {
        self.sending.borrow().is_stuck
    }

    fn send(&self, sending: &mut Sending) {
        let Sending { ring, rest, slab, is_stuck, tx_wakeup, memory, .. } = sending;
        let queued = slab.len();
        // SAFETY: as for receiving. The ring has a place for each frame that can be on its way.
        let sent = unsafe { ring.send(slab, false) }.unwrap_or_default();
        add(&self.counts.sent, sent as u64);
        if sent < queued {
            while let Some(frame) = slab.pop_back() {
                memory.free_packet(frame);
                add(&self.counts.unsent, 1);
            }
        }
        *is_stuck = tx_wakeup.is_wakeup_needed() && !self.kick();
        rest.completion_ring.dequeue(memory, 2 * BATCH);
    }

    /// Has the kernel send what is in the ring, and says whether it has taken all.
    fn kick(&self) -> bool {
        for _ in 0..MAX_KICKS {
            // SAFETY: no octets are handed over, only the descriptor of an open socket.
            let returned =
                unsafe { libc::sendto(self.builder.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
            if returned >= 0 {
                return true;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => {}
                // The interface is busy, or down: what is in the ring stays there.
                _ => return false,
            }
        }
        false
    }

    /// The identification of the next IPv4 datagram: those of one host are no sequence, from which others could count what it sends.
    fn next_identification(&self) -> u16 {
        // Knuth's MMIX generator, of which the upper bits are good.
        let next =
            self.identification.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.identification.set(next);
        (next >> 48) as u16
    }
}

// SAFETY: what its frames point to is the memory that moves with them, and no other thread has any of it.
unsafe impl Send for Xsk {}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the builder has the descriptor open for as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.builder.as_raw_fd()) }
    }
}

/// Frames that the kernel has dropped at such a socket, because none was free to be filled or the ring was full.
pub fn dropped_by_kernel(socket: impl AsFd) -> u64 {
    // SAFETY: the structure is made of integers alone.
    let statistics = unsafe { option::<libc::xdp_statistics>(socket.as_fd().as_raw_fd(), libc::XDP_STATISTICS) };
    statistics.map_or(0, |statistics| statistics.rx_dropped + statistics.rx_ring_full)
}

/// Octets of an Ethernet header, which an MTU does not count.
const ETHERNET: usize = 14;

/// Adds to a number that one thread alone writes.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// What lies behind an error of the crate.
fn source(error: xdp::socket::SocketError) -> io::Error {
    use xdp::socket::SocketError::{Bind, GetSockOpt, RingMap, SetSockOpt, SocketCreation};
    match error {
        SocketCreation(inner) | Bind(inner) => inner,
        SetSockOpt { inner, .. } | GetSockOpt { inner, .. } | RingMap { inner, .. } => inner,
    }
}

/// Where the kernel tells of a ring whether it wants to be woken, which the crate does not look at.
struct Flags {
    page: *mut libc::c_void,
    length: usize,
    offset: usize,
}

/// Where the rings begin in the descriptor (linux/if_xdp.h).
const TX_RING: libc::off_t = libc::XDP_PGOFF_TX_RING as libc::off_t;
const FILL_RING: libc::off_t = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;

impl Flags {
    /// Maps the beginning of a ring.
    fn map(socket: RawFd, ring: libc::off_t, offset: u64) -> io::Result<Self> {
        let offset = offset as usize;
        let length = offset + size_of::<u32>();
        // SAFETY: a new mapping, of which the kernel chooses the place.
        let page = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, socket, ring) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { page, length, offset }) }
    }

    /// Whether a system call is needed for the kernel to look at the ring.
    fn is_wakeup_needed(&self) -> bool {
        // SAFETY: the mapping is as long as that, the kernel aligns the number, and both sides use it as an atomic one.
        let flags = unsafe { AtomicU32::from_ptr(self.page.byte_add(self.offset).cast()) };
        flags.load(Ordering::Acquire) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

// SAFETY: what it points to is a mapping of the process, which any thread may read.
unsafe impl Send for Flags {}

impl Drop for Flags {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map` with this length, and nothing else points into it.
        unsafe { libc::munmap(self.page, self.length) };
    }
}

/// An option of a socket of AF_XDP, all of it.
///
/// # Safety
/// `T` is made of integers alone, so that any octets are a value of it.
unsafe fn option<T>(socket: RawFd, option: libc::c_int) -> io::Result<T> {
    // SAFETY: the caller promises that zeros are a value.
    let mut value: T = unsafe { mem::zeroed() };
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most as many octets as are stated.
    let returned = unsafe { libc::getsockopt(socket, libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut size) };
    if returned == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
