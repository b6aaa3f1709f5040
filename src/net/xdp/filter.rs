//! The filter of one interface: the program with its maps, and what is in these.
//!
//! Which addresses are listened on changes by a system call, for which the process needs its capabilities no more once the maps are there
//! (before Linux 5.19 it does, unless `kernel.unprivileged_bpf_disabled` is 0).
//! Which local ports are connected to backends changes with each new socket of a worker: that is written into mapped memory, by no call
//! at all. Maps belong to one filter, so that several on one machine, in one process or many, know nothing of each other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::bpf::{KeySet, Link, Mode, Program, SocketMap, WordArray};
use super::program::{self, HELD, HELD_IPV6, LISTENING_KEY, Maps, PASSED};

/// The program with its maps.
pub struct Filter {
    program: Program,
    listening: KeySet<LISTENING_KEY>,
    held: WordArray<{ HELD / 8 }>,
    sockets: SocketMap,
    passed: WordArray<{ PASSED / 8 }>,
}

impl Filter {
    /// Makes the maps and has the kernel check the program, for an interface with this Ethernet address and so many queues, which are
    /// served by so many workers: queue 5 of 3 workers by worker 2. It needs CAP_BPF and CAP_NET_ADMIN; before Linux 5.11
    /// its 6 MB count as locked memory too.
    pub fn load(mac: [u8; 6], workers: u32, queues: u32) -> io::Result<Self> {
        if workers == 0 || queues == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a filter needs a queue and a worker"));
        }
        let (listening, held) = (KeySet::new(MAX_LISTENING)?, WordArray::new(2 * HELD_IPV6)?);
        let (sockets, passed) = (SocketMap::new(queues)?, WordArray::new(queues)?);
        let maps = Maps {
            listening: listening.number(),
            held: held.number(),
            sockets: sockets.number(),
            passed: passed.number(),
            counters: queues,
        };
        let program = Program::load(&program::filter(mac, workers, maps))?;
        Ok(Self { program, listening, held, sockets, passed })
    }

    /// Has the interface of this number run the program, until what is returned is dropped or the process ends, however it does.
    pub fn attach(&self, interface: u32, mode: Mode) -> io::Result<Link> {
        self.program.attach(interface, mode)
    }

    /// Has a queue's frames go to this socket, in place of another. Its memory of frames must have been bound to the same queue of the same
    /// interface, or the kernel drops what is handed to it.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.insert(queue, socket)
    }

    /// Takes what is sent to this address, which is never the unspecified one.
    pub fn listen(&self, address: SocketAddr) -> io::Result<()> {
        self.listening.insert(&listening_key(address))
    }

    /// Leaves what is sent to this address to the kernel again.
    pub fn ignore(&self, address: SocketAddr) -> io::Result<()> {
        self.listening.remove(&listening_key(address))
    }

    /// Takes what comes from `remote` to `local`, a socket of this worker that is connected so, on the queues of that worker.
    ///
    /// A port has one holder for each family: of two sockets at one port of several local addresses the kernel goes on to serve the first.
    pub fn hold(&self, worker: u32, local: SocketAddr, remote: SocketAddr) {
        let [holder, addresses @ ..] = self.holder(local);
        // A frame that comes while this is written finds nobody, or else another address than its own.
        holder.store(0, Relaxed);
        fence(Release);
        let (remote_address, local_address) = (address_octets(remote), address_octets(local));
        let (halves, _) = remote_address.as_chunks::<8>();
        let (more_halves, _) = local_address.as_chunks::<8>();
        for (word, &half) in addresses.iter().zip(halves.iter().chain(more_halves)) {
            word.store(u64::from_ne_bytes(half), Relaxed);
        }
        let ([w0, w1, w2, w3], [p0, p1]) = ((worker + 1).to_ne_bytes(), remote.port().to_be_bytes());
        holder.store(u64::from_ne_bytes([w0, w1, w2, w3, p0, p1, 0, 0]), Release);
    }

    /// Leaves what comes to a local port to the kernel again, whose socket there may be closed only then.
    pub fn release(&self, local: SocketAddr) {
        let [holder, ..] = self.holder(local);
        holder.store(0, Relaxed);
    }

    /// How many frames the kernel has been let have.
    pub fn passed(&self) -> u64 {
        self.passed.values().iter().map(|[count, ..]| count.load(Relaxed)).sum()
    }

    /// Whether a local port is held.
    #[cfg(test)]
    pub(crate) fn holds(&self, local: SocketAddr) -> bool {
        self.holder(local)[0].load(Relaxed) != 0
    }

    /// Who holds a local port, in the words of [`HELD`].
    fn holder(&self, local: SocketAddr) -> &[AtomicU64; HELD / 8] {
        let first = if local.ip().to_canonical().is_ipv6() { HELD_IPV6 } else { 0 };
        &self.held.values()[(first + u32::from(local.port())) as usize]
    }
}

/// A key of the map of listening addresses.
fn listening_key(address: SocketAddr) -> [u8; LISTENING_KEY] {
    let mut key = [0; LISTENING_KEY];
    key[..16].copy_from_slice(&address_octets(address));
    key[16..18].copy_from_slice(&address.port().to_be_bytes());
    key
}

/// An address as the maps have it: in the form of IPv6.
fn address_octets(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

/// Addresses that are listened on, of one interface.
pub const MAX_LISTENING: u32 = 1024;

#[cfg(test)]
mod tests;
