//! An AF_XDP socket (XSK) on one queue of an interface: its frame memory (UMEM) and four rings, from the
//! crate `xdp`.
//!
//! ```text
//!         fill ring            RX ring             receive
//!   free ───────────▶ kernel ──────────▶ received ─────────▶ free
//!         push               flush
//!   free ──────▶ to leave ─────────▶ TX ring, completion ring ─────▶ free
//! ```
//!
//! A frame is in exactly one of these places. Free frames are reused last in, first out, because they are
//! still in the processor's cache. One thread at a time uses the socket.

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

use crate::frame::{self, EthernetLink};
use crate::program::MAX_FRAME;

/// The frames that one call receives at most. A larger batch gains nothing measurable, and leaves the cache.
pub const BATCH: usize = 64;

/// The receive buffer while the worker is busy. A larger one would use more of the processor's cache.
const RX_FRAMES: u32 = 1024;
const TX_FRAMES: u32 = 1024;
const FRAME_SIZE: FrameSize = FrameSize::TwoK;
/// Bytes that one socket locks for its frames.
pub const MEMORY: usize = (RX_FRAMES + TX_FRAMES) as usize * 2048;
/// Copy mode takes 32 frames per call.
const MAX_KICKS: usize = 2 * BATCH;

/// Frame counters of one queue, written by the thread that uses the socket.
#[derive(Debug, Default)]
pub struct FrameCounts {
    /// Frames received.
    pub taken: AtomicU64,
    /// Received frames without a valid datagram for hedgerow.
    pub invalid: AtomicU64,
    /// Frames handed to the kernel for sending.
    pub sent: AtomicU64,
    /// Frames not sent, because the interface is down or full.
    pub unsent: AtomicU64,
}

/// The copy mode between kernel memory and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Zero copy if the driver supports it.
    Auto,
    /// Zero copy, or an error.
    Never,
    /// Always copy.
    Always,
}

/// An AF_XDP socket. It can move between threads, also after a panic.
pub struct Xsk {
    builder: XdpSocketBuilder,
    queue: u32,
    copying: Copying,
    receiving: RefCell<Receiving>,
    sending: RefCell<Sending>,
    mtu: Arc<AtomicU32>,
    counts: Arc<FrameCounts>,
    identification: Cell<u64>,
}

struct Receiving {
    ring: RxRing,
    slab: HeapSlab,
    frames: Vec<Frame>,
}

struct Sending {
    ring: WakableTxRing,
    rest: WakableRings,
    slab: HeapSlab,
    is_stuck: bool,
    tx_wakeup: Flags,
    fill_wakeup: Flags,
    /// Last, because the rings must not outlive it.
    memory: Umem,
}

impl Xsk {
    /// Creates a socket that receives nothing until [`bind`](Self::bind). `mtu` is the interface's, in bytes.
    ///
    /// # Errors
    /// If the kernel lacks AF_XDP, the process lacks CAP_NET_RAW, or it may not lock the memory.
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
            return Err(io::Error::other("the kernel did not make rings of the requested size"));
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

    /// Binds the socket to its queue of an interface. The caller may retry.
    ///
    /// # Errors
    /// If the queue is taken (`EBUSY`) or does not exist, or the driver lacks the copy mode.
    pub fn bind(&self, interface: u32) -> io::Result<()> {
        // Not by the crate, which would close the socket while the queue is busy.
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

    /// The frame counters.
    pub fn counts(&self) -> &Arc<FrameCounts> {
        &self.counts
    }

    /// Returns true if the bound socket uses zero copy.
    pub fn is_zero_copy(&self) -> bool {
        // SAFETY: the value is an integer.
        unsafe { option::<u32>(self.builder.as_raw_fd(), libc::XDP_OPTIONS) }
            .is_ok_and(|options| options & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Passes up to [`BATCH`] received frames to `take`, and returns their number.
    pub fn receive(&self, take: impl FnOnce(&[Frame])) -> usize {
        let mut receiving = self.receiving.borrow_mut();
        let Receiving { ring, slab, frames } = &mut *receiving;
        let left = frames.len();
        if left > 0 {
            // A previous `take` panicked and left these frames.
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

    fn give_back(&self, frames: &mut Vec<Frame>) {
        let mut sending = self.sending.borrow_mut();
        let Sending { rest, memory, fill_wakeup, .. } = &mut *sending;
        let count = frames.len();
        frames.drain(..).for_each(|frame| memory.free_packet(frame));
        // SAFETY: as in `new`. The fill ring has room for the frames that just left it.
        let _ = unsafe { rest.fill_ring.enqueue(memory, count, false) };
        if fill_wakeup.is_wakeup_needed() {
            // SAFETY: this call only wakes the kernel; it passes no buffer.
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

    /// Counts received frames that are no datagram for hedgerow.
    pub fn count_invalid(&self, count: u64) {
        add(&self.counts.invalid, count);
    }

    /// Queues a datagram for the next [`flush`](Self::flush). Returns false if its frame would exceed the
    /// MTU, or all frames are in use; an ordinary socket may still send it.
    pub fn push(&self, link: EthernetLink, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> bool {
        let headers = frame::headers_len(to.is_ipv6());
        let length = headers + payload.len();
        if length > MAX_FRAME.min(self.mtu.load(Ordering::Relaxed) as usize + ETHERNET) {
            return false;
        }
        let mut sending = self.sending.borrow_mut();
        if sending.slab.available() == 0 {
            self.send(&mut sending);
        }
        let Some(mut out) = self.free_frame(&mut sending) else {
            add(&self.counts.unsent, 1);
            return false;
        };
        if out.adjust_tail(length as i32).is_err() {
            sending.memory.free_packet(out);
            return false;
        }
        out[headers..].copy_from_slice(payload);
        frame::write_headers(&mut out, link, from, to, self.next_identification());
        if let Some(refused) = sending.slab.push_front(out) {
            sending.memory.free_packet(refused);
            add(&self.counts.unsent, 1);
            return false;
        }
        true
    }

    fn free_frame(&self, sending: &mut Sending) -> Option<Frame> {
        let Sending { rest, memory, .. } = sending;
        if memory.allocatable() == 0 {
            rest.completion_ring.dequeue(memory, BATCH);
        }
        // SAFETY: the frame goes into the slab or the ring of the same value, or back.
        unsafe { memory.alloc() }
    }

    /// Hands all queued frames to the kernel.
    pub fn flush(&self) {
        let mut sending = self.sending.borrow_mut();
        if !sending.slab.is_empty() || sending.is_stuck {
            self.send(&mut sending);
        }
    }

    /// Returns true if the kernel left frames in the ring, so that another flush is needed.
    pub fn is_stuck(&self) -> bool {
        self.sending.borrow().is_stuck
    }

    fn send(&self, sending: &mut Sending) {
        let Sending { ring, rest, slab, is_stuck, tx_wakeup, memory, .. } = sending;
        let queued = slab.len();
        // SAFETY: as for receiving. The ring has a place for each frame that can be in use.
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

    fn kick(&self) -> bool {
        for _ in 0..MAX_KICKS {
            // SAFETY: the call passes no buffer, only the descriptor of an open socket.
            let returned =
                unsafe { libc::sendto(self.builder.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
            if returned >= 0 {
                return true;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => {}
                // The interface is busy or down; the frames stay in the ring.
                _ => return false,
            }
        }
        false
    }

    /// A plain sequence would reveal how much this host sends.
    fn next_identification(&self) -> u16 {
        // Knuth's MMIX generator, of which the upper bits are good.
        let next =
            self.identification.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.identification.set(next);
        (next >> 48) as u16
    }
}

// SAFETY: the frames point to memory that moves with them, and no other thread has access.
unsafe impl Send for Xsk {}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the builder keeps the descriptor open for as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.builder.as_raw_fd()) }
    }
}

/// The number of frames that the kernel dropped because no frame was free or the ring was full.
pub fn dropped_by_kernel(socket: impl AsFd) -> u64 {
    // SAFETY: the structure is made of integers alone.
    let statistics = unsafe { option::<libc::xdp_statistics>(socket.as_fd().as_raw_fd(), libc::XDP_STATISTICS) };
    statistics.map_or(0, |statistics| statistics.rx_dropped + statistics.rx_ring_full)
}

const ETHERNET: usize = 14;

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

fn source(error: xdp::socket::SocketError) -> io::Error {
    use xdp::socket::SocketError::{Bind, GetSockOpt, RingMap, SetSockOpt, SocketCreation};
    match error {
        SocketCreation(inner) | Bind(inner) => inner,
        SetSockOpt { inner, .. } | GetSockOpt { inner, .. } | RingMap { inner, .. } => inner,
    }
}

/// Ring flags by which the kernel asks for a wake-up; the crate does not read them.
struct Flags {
    page: *mut libc::c_void,
    length: usize,
    offset: usize,
}

const TX_RING: libc::off_t = libc::XDP_PGOFF_TX_RING as libc::off_t;
const FILL_RING: libc::off_t = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;

impl Flags {
    fn map(socket: RawFd, ring: libc::off_t, offset: u64) -> io::Result<Self> {
        let offset = offset as usize;
        let length = offset + size_of::<u32>();
        // SAFETY: a new mapping, of which the kernel chooses the place.
        let page = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, socket, ring) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { page, length, offset }) }
    }

    fn is_wakeup_needed(&self) -> bool {
        // SAFETY: the mapping covers the offset, the kernel aligns the number, and both sides use it as an
        // atomic.
        let flags = unsafe { AtomicU32::from_ptr(self.page.byte_add(self.offset).cast()) };
        flags.load(Ordering::Acquire) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

// SAFETY: the pointer refers to a mapping of the process, which any thread may read.
unsafe impl Send for Flags {}

impl Drop for Flags {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping with this length, and nothing else points into it.
        unsafe { libc::munmap(self.page, self.length) };
    }
}

/// Reads a socket option of AF_XDP.
///
/// # Safety
/// `T` is made of integers alone, so that any bytes are a value of it.
unsafe fn option<T>(socket: RawFd, option: libc::c_int) -> io::Result<T> {
    // SAFETY: the caller promises that zeros are a value.
    let mut value: T = unsafe { mem::zeroed() };
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes.
    let returned = unsafe { libc::getsockopt(socket, libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut size) };
    if returned == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
