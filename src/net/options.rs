//! Options of sockets that no crate at hand offers behind a safe call, and what they are set for.

#![allow(unsafe_code)] // Three system calls; each block says why it is sound.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

/// Asks the kernel to tell of every datagram at which local address it arrived ([`super::batch::Datagram::local`]). For listeners on
/// a wildcard address.
///
/// # Errors
/// What the kernel says.
pub fn tell_local_address(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    switch_on(socket, level, option)
}

/// Asks the kernel for GRO, for a [`super::batch::RecvBatch::for_gro`]: to hand over as one what came coalesced, which it would cut
/// apart otherwise, at the price of the way through the rest of the network stack for each segment. One that does not know GRO
/// goes on as ever.
pub fn enable_gro(socket: impl AsFd) {
    let _ = switch_on(socket, libc::SOL_UDP, libc::UDP_GRO);
}

/// Has the kernel hand over each datagram by itself again.
pub fn disable_gro(socket: impl AsFd) {
    let _ = set_flag(socket, libc::SOL_UDP, libc::UDP_GRO, false);
}

/// Keeps datagrams whole, whatever ICMP says of the way: no datagram is cut to a path MTU that somebody claims, and where IPv6
/// lets a sender choose, none is cut at all. Second fragments can be forged without knowledge of port and ID (RFC 9715). A
/// kernel that does not know these options goes on as ever.
///
/// Over IPv4 what is longer than the MTU of our own device still leaves in fragments, and routers may make some: DF is not set,
/// for else a narrow link would swallow what nobody makes shorter (as Unbound, NSD, Knot and BIND have it).
pub fn ignore_path_mtu(socket: impl AsFd, is_ipv6: bool) {
    if is_ipv6 {
        let _ = sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::OMIT);
        let _ = switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG);
    } else {
        let _ = sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT);
    }
}

/// Asks the kernel to keep ICMP errors with the datagrams that they are about, to be received with `MSG_ERRQUEUE`. One that
/// does not tells of no datagrams.
pub fn keep_errors(socket: impl AsFd, is_ipv6: bool) {
    let _ = match is_ipv6 {
        true => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        false => switch_on(socket, libc::IPPROTO_IP, libc::IP_RECVERR),
    };
}

/// Asks the kernel to tell of every datagram when it came, or no more to. What came before that bears no time, or that of its
/// reception.
pub fn stamp_arrivals(socket: impl AsFd, on: bool) {
    let _ = set_flag(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on);
}

/// How many datagrams the kernel has refused for a socket so far, for want of room in its receive buffer; starts anew after the
/// last number. `None` on a kernel that does not tell (Linux before 4.12).
pub fn refused_by_kernel(socket: impl AsFd) -> Option<u32> {
    let mut values = [0_u32; MEMINFO_VALUES];
    let mut size = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most as many octets as are stated, and
    // states how many that were.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut values).cast(),
            &raw mut size,
        )
    };
    let count = size as usize / size_of::<u32>();
    if returned == 0 { values.get(..count)?.get(MEMINFO_DROPS).copied() } else { None }
}

/// How long ago the other side of a TCP connection has acknowledged something, if something that was sent is not acknowledged yet.
pub fn unacknowledged_for(socket: impl AsFd) -> Option<Duration> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most as many octets as are stated, and
    // leaves what it does not know as it was.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    let is_waiting = returned == 0 && info.tcpi_unacked > 0;
    is_waiting.then(|| Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

/// Numbers that `SO_MEMINFO` gives (linux/sock_diag.h).
const MEMINFO_VALUES: usize = 9;

/// The place of `SK_MEMINFO_DROPS` among them.
const MEMINFO_DROPS: usize = 8;

/// Sets an option that is a flag.
pub(super) fn switch_on(socket: impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set_flag(socket, level, option, true)
}

/// Sets an option that is a flag, or clears it.
fn set_flag(socket: impl AsFd, level: libc::c_int, option: libc::c_int, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads one integer of the stated size.
    let returned = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
