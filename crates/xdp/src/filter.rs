//! The filter of one interface. Listening addresses change by a system call, which needs no capability later
//! (before Linux 5.19 only if `kernel.unprivileged_bpf_disabled` is 0). Backend ports are written to mapped
//! memory.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::bpf::{BpfLink, KeySet, Mode, Program, SocketMap, WordArray};
use crate::program::{self, HELD, HELD_IPV6, LISTENING_KEY, Maps, PASSED};

/// The program of an interface with its maps.
pub struct XdpFilter {
    program: Program,
    listening: KeySet<LISTENING_KEY>,
    held: WordArray<{ HELD / 8 }>,
    sockets: SocketMap,
    passed: WordArray<{ PASSED / 8 }>,
}

impl XdpFilter {
    /// Creates the maps and loads the program, for an interface with this Ethernet address, whose `queues`
    /// are shared by `workers`: worker 2 of 3 serves queue 5. Requires CAP_BPF and CAP_NET_ADMIN; before
    /// Linux 5.11 the maps count as 6 MB of locked memory.
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

    /// Attaches the program to an interface until the link is dropped or the process ends.
    pub fn attach(&self, interface: u32, mode: Mode) -> io::Result<BpfLink> {
        self.program.attach(interface, mode)
    }

    /// Redirects a queue's frames to this socket, which must be bound to the same queue of the same
    /// interface.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.insert(queue, socket)
    }

    /// Redirects datagrams to this address, which must not be the unspecified one.
    pub fn listen(&self, address: SocketAddr) -> io::Result<()> {
        self.listening.insert(&listening_key(address))
    }

    /// Leaves datagrams to this address to the kernel again.
    pub fn ignore(&self, address: SocketAddr) -> io::Result<()> {
        self.listening.remove(&listening_key(address))
    }

    /// Redirects datagrams from `remote` to `local`, a connected socket of this worker, on its queues. If
    /// several local addresses use the same port, the kernel still serves the first.
    pub(crate) fn hold(&self, worker: u32, local: SocketAddr, remote: SocketAddr) {
        let [holder, addresses @ ..] = self.holder(local);
        // A frame that arrives during this write finds no holder, or one with another address.
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

    /// Leaves datagrams to a local port to the kernel again. Call this before the socket is closed.
    pub(crate) fn release(&self, local: SocketAddr) {
        let [holder, ..] = self.holder(local);
        holder.store(0, Relaxed);
    }

    /// The number of frames that went to the kernel.
    pub fn passed(&self) -> u64 {
        self.passed.values().iter().map(|[count, ..]| count.load(Relaxed)).sum()
    }

    /// Returns true if a local port is held.
    pub fn holds(&self, local: SocketAddr) -> bool {
        self.holder(local)[0].load(Relaxed) != 0
    }

    fn holder(&self, local: SocketAddr) -> &[AtomicU64; HELD / 8] {
        let first = if local.ip().to_canonical().is_ipv6() { HELD_IPV6 } else { 0 };
        &self.held.values()[(first + u32::from(local.port())) as usize]
    }
}

fn listening_key(address: SocketAddr) -> [u8; LISTENING_KEY] {
    let mut key = [0; LISTENING_KEY];
    key[..16].copy_from_slice(&address_octets(address));
    key[16..18].copy_from_slice(&address.port().to_be_bytes());
    key
}

fn address_octets(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

/// The maximum number of listening addresses per interface.
const MAX_LISTENING: u32 = 1024;

#[cfg(test)]
mod tests;
