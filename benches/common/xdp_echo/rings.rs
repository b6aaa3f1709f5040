//! The bare echo by XDP: an AF_XDP socket on queue 0 of a device, and four rings over one memory, in which
//! each frame is answered where it lies.
//!
//! In copy mode, which every device has. The kernel is asked to send once a batch, and waited for when
//! nothing has come. Each block with `unsafe` says why it is sound.

#![allow(unsafe_code)] // What the rings hand out points into memory of which the crate `xdp` does not know how long it lives.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use af_xdp::bpf::{Mode, Program, SocketMap};
use rustix::event::{PollFd, PollFlags, poll};
use xdp::nic::NicIndex;
use xdp::slab::{Slab, StackSlab};
use xdp::socket::{XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{RingConfigBuilder, RxRing, Umem, WakableRings, WakableTxRing};

use super::{frame, frames, program};

/// Frames that are read at a time: as many as a batch by socket has datagrams.
const BATCH: usize = 64;
/// Places in each ring: room for several batches. The kernel fills all frames in turn, and with the 2048 of
/// libxdp they leave the processor's cache before they come again, which beside other work cost up to a
/// tenth.
const RING: u32 = 512;
/// Frames in the memory: the kernel may hold a ring of them to fill, and have another to send.
const FRAMES: u32 = 2 * RING;

/// Echoes what comes for a port until stdin is closed.
pub(super) fn run(device: &str, port: u16, mode: Mode) -> io::Result<()> {
    let name = CString::new(device)?;
    let index = NicIndex::lookup_by_name(&name)?.ok_or_else(|| io::Error::other(format!("no device {device}")))?;
    let mut echo = Echo::bind(index)?;
    let map = SocketMap::new(1)?;
    map.insert(0, echo.borrowed())?;
    let program = Program::load(&program::redirecting(port, map.number()))?;
    check(&program, port)?;
    let _link = program.attach(index.into(), mode)?;
    println!("{device}");
    io::stdout().flush()?;
    echo.run()
}

/// Fails if the kernel, trying the program, does anything but hand queries to the socket that stands in the
/// map.
fn check(program: &Program, port: u16) -> io::Result<()> {
    for (what, frame, wanted) in frames::all(port) {
        let said = program.try_on(&frame)?;
        if said != wanted {
            return Err(io::Error::other(format!("the XDP program says {said} to {what}, not {wanted}")));
        }
    }
    Ok(())
}

/// The socket, its rings and their memory.
struct Echo {
    socket: XdpSocket,
    rings: WakableRings,
    receiving: RxRing,
    sending: WakableTxRing,
    /// Last, as the socket must not outlive it.
    memory: Umem,
}

impl Echo {
    /// Binds queue 0 of a device.
    fn bind(index: NicIndex) -> io::Result<Self> {
        let memory = UmemCfgBuilder { frame_size: FrameSize::TwoK, frame_count: FRAMES, ..UmemCfgBuilder::default() };
        let mut memory = Umem::map(memory.build().map_err(io::Error::other)?)?;
        let sizes = RingConfigBuilder { rx_count: RING, tx_count: RING, fill_count: RING, completion_count: RING };
        let sizes = sizes.build().map_err(io::Error::other)?;
        let mut builder = XdpSocketBuilder::new().map_err(io::Error::other)?;
        let (mut rings, mut flags) = builder.build_wakable_rings(&memory, sizes).map_err(io::Error::other)?;
        flags.force_copy();
        let socket = builder.bind(index, 0, flags).map_err(io::Error::other)?;
        // SAFETY: memory and socket go into one value, in which the memory is dropped last.
        unsafe { rings.fill_ring.enqueue(&mut memory, RING as usize, false) }?;
        let (Some(receiving), Some(sending)) = (rings.rx_ring.take(), rings.tx_ring.take()) else {
            return Err(io::Error::other("rings of the size that was asked for are missing"));
        };
        Ok(Self { socket, rings, receiving, sending, memory })
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as it is borrowed, since this is as well.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// Echoes until stdin is closed.
    fn run(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        // SAFETY: the socket is open until this returns. Lending it would borrow all else, too.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        let mut inbox = StackSlab::<BATCH>::new();
        let mut outbox = StackSlab::<BATCH>::new();
        loop {
            // SAFETY: both slabs are gone before the memory is.
            let received = unsafe { self.receiving.recv(&self.memory, &mut inbox) };
            if received == 0 {
                let mut ready = [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
                rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
                if !ready[1].revents().is_empty() {
                    return Ok(());
                }
                continue;
            }
            while let Some(mut query) = inbox.pop_back() {
                if frame::turn(&mut query) {
                    // There is room: this slab is as large as the other, and was empty.
                    outbox.push_front(query);
                } else {
                    self.memory.free_packet(query);
                }
            }
            while !outbox.is_empty() {
                // SAFETY: as for receiving.
                unsafe { self.sending.send(&mut outbox, false) }?;
                self.kick()?;
            }
            // SAFETY: as for binding. The kernel copies into what is there, and needs no call for that.
            unsafe { self.rings.fill_ring.enqueue(&mut self.memory, received, false) }?;
        }
    }

    /// Has the kernel send all that is in the ring. It does so for 32 frames a call, and says when there are
    /// more; also when it can take no more now, and then frames that are sent come back first.
    fn kick(&mut self) -> io::Result<()> {
        loop {
            // SAFETY: no bytes are handed over, only the descriptor of an open socket.
            let returned = unsafe {
                libc::sendto(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let outcome = if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
            self.rings.completion_ring.dequeue(&mut self.memory, RING as usize);
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
