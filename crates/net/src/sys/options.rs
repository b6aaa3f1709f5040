//! Socket options without a safe wrapper in our dependencies, and their purpose.

#![allow(unsafe_code)] // Three system calls; each block says why it is sound.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

/// Makes the kernel report the local address of each datagram ([`super::batch::ReplyPath`]), for
/// wildcard listeners.
pub(crate) fn receive_local_address(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    switch_on(socket, level, option)
}

/// Enables GRO, for a [`super::batch::RecvBatch::for_gro`]: the kernel then delivers coalesced datagrams as
/// one, and each segment saves a pass through the rest of the network stack. A kernel without GRO ignores
/// this.
pub fn enable_gro(socket: impl AsFd) {
    let _ = switch_on(socket, libc::SOL_UDP, libc::UDP_GRO);
}

pub(crate) fn disable_gro(socket: impl AsFd) {
    let _ = set_flag(socket, libc::SOL_UDP, libc::UDP_GRO, false);
}

/// Disables path MTU discovery, because ICMP can be forged: no datagram is fragmented to a claimed path MTU,
/// and over IPv6 none is fragmented at all. Second fragments can be forged without knowledge of port and ID
/// (RFC 9715). A kernel without these options ignores this.
///
/// Over IPv4, datagrams above the device MTU still leave in fragments, and routers may fragment: DF is not
/// set, because a narrow link would then drop responses that are never made shorter (Unbound, NSD, Knot and
/// BIND do the same).
pub(crate) fn ignore_path_mtu(socket: impl AsFd, is_ipv6: bool) {
    if is_ipv6 {
        let _ = sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::OMIT);
        let _ = switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG);
    } else {
        let _ = sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT);
    }
}

/// Makes the kernel keep ICMP errors with their datagrams, to be received with `MSG_ERRQUEUE`. A kernel
/// without it reports no datagrams.
pub(crate) fn keep_errors(socket: impl AsFd, is_ipv6: bool) {
    let _ = match is_ipv6 {
        true => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        false => switch_on(socket, libc::IPPROTO_IP, libc::IP_RECVERR),
    };
}

/// Enables or disables arrival timestamps. Datagrams that arrived before have no timestamp, or that of their
/// reception.
pub(crate) fn stamp_arrivals(socket: impl AsFd, on: bool) {
    let _ = set_flag(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on);
}

/// Returns the number of datagrams dropped because the receive buffer was full; the counter wraps. `None`
/// before Linux 4.12.
pub(crate) fn refused_by_kernel(socket: impl AsFd) -> Option<u32> {
    let mut values = [0_u32; MEMINFO_VALUES];
    let mut size = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most as many bytes as
    // are stated, and states how many that were.
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

/// Returns the time since the last acknowledgement of a TCP connection, if it has unacknowledged data.
pub(crate) fn unacknowledged_for(socket: impl AsFd) -> Option<Duration> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most as many bytes as
    // are stated, and leaves what it does not know as it was.
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

const MEMINFO_VALUES: usize = 9;

const MEMINFO_DROPS: usize = 8;

pub(crate) fn switch_on(socket: impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set_flag(socket, level, option, true)
}

fn set_flag(socket: impl AsFd, level: libc::c_int, option: libc::c_int, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads one integer of the stated
    // size.
    let returned = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
