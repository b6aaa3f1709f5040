//! Control messages of datagrams, for the batches of [`super`].

#![allow(unsafe_code)] // Reads and writes what C macros lay out.
#![allow(clippy::unnecessary_cast)] // The C types have other widths on other C libraries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;
use std::time::Duration;

use super::LocalAddress;
use super::empty_header;

pub(crate) struct Ancillary {
    pub(crate) local: Option<LocalAddress>,
    /// Bytes of each segment but the last, if coalesced (GRO).
    pub(crate) segment_size: Option<usize>,
    pub(crate) arrived: Option<Duration>,
}

/// Room (96 bytes) for PKTINFO, `UDP_SEGMENT` or `UDP_GRO`, and a time, aligned as `cmsghdr`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct ControlBuffer([u8; 96]);

impl ControlBuffer {
    pub(crate) const EMPTY: Self = Self([0; 96]);

    pub(crate) fn read(&self, length: usize) -> Ancillary {
        let mut ancillary = Ancillary { local: None, segment_size: None, arrived: None };
        // The common case: most sockets request no messages.
        if length == 0 {
            return ancillary;
        }
        let mut header = empty_header().msg_hdr;
        header.msg_control = (&raw const *self).cast_mut().cast();
        let length = length.min(self.0.len());
        header.msg_controllen = length as _;
        // SAFETY: the header's control part is this block, aligned, initialized, with its true length.
        // `CMSG_FIRSTHDR` and `CMSG_NXTHDR` return null when no whole header is left. `cmsg_len` and the end
        // of the block are checked before each unaligned read.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&raw const header);
            while let Some(current) = message.as_ref() {
                let rest = length - message.cast_const().byte_offset_from_unsigned(&raw const self.0);
                let carried = rest.min(current.cmsg_len as usize);
                let carries = |size| carried >= libc::CMSG_LEN(size as u32) as usize;
                match (current.cmsg_level, current.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) if carries(size_of::<libc::in_pktinfo>()) => {
                        let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        // `ipi_spec_dst` is the source for a reply; `ipi_addr` can be broadcast or multicast.
                        let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
                        ancillary.local =
                            Some(LocalAddress { ip: ip.into(), interface: info.ipi_ifindex.to_ne_bytes() });
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if carries(size_of::<libc::in6_pktinfo>()) => {
                        let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        ancillary.local =
                            Some(LocalAddress { ip: ip.into(), interface: info.ipi6_ifindex.to_ne_bytes() });
                    }
                    (libc::SOL_UDP, libc::UDP_GRO) if carries(size_of::<libc::c_int>()) => {
                        let segment_size: libc::c_int = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        ancillary.segment_size = usize::try_from(segment_size).ok();
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if carries(size_of::<libc::timespec>()) => {
                        let time: libc::timespec = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                        let secs = u64::try_from(time.tv_sec).ok();
                        ancillary.arrived = secs.map(|secs| Duration::new(secs, time.tv_nsec as u32));
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
        }
        ancillary
    }

    /// Writes the source address and segment size (GSO); returns the length of the messages.
    pub(crate) fn write(&mut self, from: Option<LocalAddress>, segment_size: Option<u16>) -> usize {
        let mut length = 0;
        match from {
            Some(LocalAddress { ip: IpAddr::V4(ip), .. }) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: ip.to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                length += self.append(length, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(LocalAddress { ip: IpAddr::V6(ip), interface }) => {
                // A link-local address needs its interface (RFC 4007 section 6).
                let interface = if ip.is_unicast_link_local() { u32::from_ne_bytes(interface) } else { 0 };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    ipi6_ifindex: interface as _,
                };
                length += self.append(length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if let Some(segment_size) = segment_size {
            length += self.append(length, libc::SOL_UDP, libc::UDP_SEGMENT, segment_size);
        }
        length
    }

    fn append<T: Copy>(&mut self, offset: usize, level: libc::c_int, kind: libc::c_int, data: T) -> usize {
        let size = size_of::<T>() as libc::c_uint;
        // SAFETY: computes lengths only.
        let (space, length) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
        let room = &mut self.0[offset..offset + space];
        // SAFETY: `room` covers the message with its padding. The block and every `CMSG_SPACE` before are
        // multiples of the alignment of `cmsghdr`; `CMSG_DATA` is the part behind that header. `T` is plain
        // data.
        unsafe {
            let message = room.as_mut_ptr().cast::<libc::cmsghdr>();
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = length as _;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast(), data);
        }
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_written(write: impl FnOnce(&mut ControlBuffer) -> usize) -> Ancillary {
        let mut control = ControlBuffer::EMPTY;
        let length = write(&mut control);
        control.read(length)
    }

    #[test]
    fn addresses_are_read_as_they_were_written() {
        for (address, interface) in [("192.0.2.1", 0), ("2001:db8::1", 0), ("fe80::1", 7_u32)] {
            let ip: IpAddr = address.parse().expect("an address");
            let from = LocalAddress { ip, interface: 7_u32.to_ne_bytes() };
            for segment_size in [None, Some(1232)] {
                let ancillary = read_written(|control| control.write(Some(from), segment_size));
                let expected = LocalAddress { ip, interface: interface.to_ne_bytes() };
                assert_eq!(ancillary.local, Some(expected), "{address}");
            }
        }
    }

    #[test]
    fn all_that_the_kernel_may_say_fits_and_is_read() {
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: [1; 16] }, ipi6_ifindex: 3 };
        let time = libc::timespec { tv_sec: 5, tv_nsec: 6 };
        let ancillary = read_written(|control| {
            let length = control.append(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            let length = length + control.append(length, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, time);
            length + control.append(length, libc::SOL_UDP, libc::UDP_GRO, 1232_i32)
        });
        let local = LocalAddress { ip: [1; 16].into(), interface: 3_u32.to_ne_bytes() };
        assert_eq!(ancillary.local, Some(local));
        assert_eq!((ancillary.segment_size, ancillary.arrived), (Some(1232), Some(Duration::new(5, 6))));
    }

    #[test]
    fn what_nobody_asked_for_is_passed_over() {
        let ancillary = read_written(|control| {
            let length = control.append(0, libc::SOL_SOCKET, libc::SCM_RIGHTS, 0_u8);
            length + control.append(length, libc::SOL_UDP, libc::UDP_GRO, 1232_i32)
        });
        assert_eq!((ancillary.local, ancillary.segment_size, ancillary.arrived), (None, Some(1232), None));
    }

    #[test]
    fn messages_that_are_cut_short_are_not_read() {
        let mut control = ControlBuffer::EMPTY;
        let length = control.append(0, libc::SOL_UDP, libc::UDP_GRO, 1232_i32);
        for short in 0..length {
            // The padding at the end may be missing.
            let is_whole = short >= length - size_of::<i32>();
            assert_eq!(control.read(short).segment_size.is_some(), is_whole, "{short} of {length}");
        }
        // The type is longer than its data.
        control.append(0, libc::SOL_UDP, libc::UDP_GRO, 7_u8);
        assert_eq!(control.read(length).segment_size, None);
    }
}
