//! Ethernet frames with one whole UDP datagram in them: read, and their headers written.
//!
//! What is read is what the kernel's own stack would hand to a UDP socket, of frames without VLAN tags, IPv4 options, fragments and IPv6
//! extension headers; these the program leaves to the kernel (`program.rs`). Nothing is copied or kept, and nothing is assumed of a frame:
//! the program has looked at a few fields only, and an interface may have other programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The way of a frame over the wire: the Ethernet addresses of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Of our interface.
    pub ours: [u8; 6],
    /// Of the host or router at the other end.
    pub theirs: [u8; 6],
}

/// A UDP datagram in a frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFrame<'f> {
    /// Where it came from over the wire, and a response goes.
    pub link: Link,
    /// Who sent it. A link-local address has no scope here: the interface is the caller's to know.
    pub source: SocketAddr,
    /// Where it was sent to.
    pub destination: SocketAddr,
    /// What is in it. Padding behind it is not.
    pub payload: &'f [u8],
}

/// The checksums of UDP that an interface hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Those of a card: each sender has computed its own.
    Whole,
    /// A sender on the same machine may have left its own to a device that the frame never comes through.
    MaybePartial,
}

/// Octets of headers at most: Ethernet, IPv6 and UDP.
pub const MAX_HEADERS: usize = headers_len(true);

/// Octets of headers ahead of a payload that goes between such addresses.
pub const fn headers_len(is_ipv6: bool) -> usize {
    ETHERNET + if is_ipv6 { IPV6 } else { IPV4 } + UDP
}

/// The UDP datagram in a frame; `None` if it has none that is whole and valid.
#[inline]
pub fn read(frame: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let (&ours, behind) = frame.split_first_chunk()?;
    let (&theirs, behind) = behind.split_first_chunk()?;
    let (ether_type, behind) = behind.split_first_chunk()?;
    // A frame to a group is not for one host, and none comes from one.
    if is_group(ours) || is_group(theirs) {
        return None;
    }
    let link = Link { ours, theirs };
    match *ether_type {
        ETHER_TYPE_IPV4 => read_ipv4(link, behind, checksums),
        ETHER_TYPE_IPV6 => read_ipv6(link, behind, checksums),
        _ => None,
    }
}

/// Writes the headers ahead of a payload that lies behind them already.
///
/// `frame` is exactly headers ([`headers_len`]) and payload, and source and destination are of one family. `identification` is that of
/// IPv4; routers may cut such a datagram into fragments, as they may one of a socket of ours.
#[inline]
pub fn write_headers(frame: &mut [u8], link: Link, source: SocketAddr, destination: SocketAddr, identification: u16) {
    let (ethernet, behind) = frame.split_first_chunk_mut::<ETHERNET>().expect("the caller has left room for headers");
    ethernet[..6].copy_from_slice(&link.theirs);
    ethernet[6..12].copy_from_slice(&link.ours);
    let ports = [source.port(), destination.port()];
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet[12..].copy_from_slice(&ETHER_TYPE_IPV4);
            let length = length_of(behind);
            let (header, datagram) = behind.split_first_chunk_mut().expect("the caller has left room for headers");
            *header = ipv4_header(source, destination, length, identification);
            write_udp(datagram, ports, sum(&header[12..]));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet[12..].copy_from_slice(&ETHER_TYPE_IPV6);
            let (header, datagram) = behind.split_first_chunk_mut().expect("the caller has left room for headers");
            *header = ipv6_header(source, destination, length_of(datagram));
            write_udp(datagram, ports, sum(&header[8..]));
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("a datagram goes between addresses of one family")
        }
    }
}

/// A datagram behind a header of IPv4 (RFC 791 section 3.1).
#[inline]
fn read_ipv4(link: Link, octets: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let header: &[u8; IPV4] = octets.first_chunk()?;
    // Five words of header, so no options, and neither an offset nor more fragments.
    let &[0x45, _, l0, l1, _, _, f0, f1, _, PROTOCOL_UDP, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header else {
        return None;
    };
    if u16::from_be_bytes([f0, f1]) & FRAGMENT != 0 || fold(sum(header)) != VALID {
        return None;
    }
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    if !is_ipv4_host(source) || !is_ipv4_host(destination) || source == destination {
        return None;
    }
    let segment = octets.get(IPV4..usize::from(u16::from_be_bytes([l0, l1])))?;
    read_udp(link, [source.into(), destination.into()], sum(&header[12..]), segment, checksums)
}

/// A datagram behind a header of IPv6 (RFC 8200 section 3).
#[inline]
fn read_ipv6(link: Link, octets: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let (header, behind) = octets.split_first_chunk::<IPV6>()?;
    // The next header is that of UDP, and no extension.
    let &[0x60..=0x6F, _, _, _, l0, l1, PROTOCOL_UDP, _, ref addresses @ ..] = header else { return None };
    let (&source, rest) = addresses.split_first_chunk::<16>()?;
    let &destination = rest.first_chunk::<16>()?;
    let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
    if !is_ipv6_host(source) || !is_ipv6_host(destination) || source == destination {
        return None;
    }
    let segment = behind.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
    read_udp(link, [source.into(), destination.into()], sum(addresses), segment, checksums)
}

/// The datagram itself (RFC 768). The sum is that of its addresses.
#[inline]
fn read_udp(
    link: Link,
    [source, destination]: [IpAddr; 2],
    addresses: u64,
    segment: &[u8],
    checksums: Checksums,
) -> Option<UdpFrame<'_>> {
    let &[s0, s1, d0, d1, l0, l1, c0, c1] = segment.first_chunk::<UDP>()?;
    let length = match u16::from_be_bytes([l0, l1]) {
        // Deviation: RFC 2675 section 4 has 0 for jumbograms only. The kernel takes it for all that is there, and so must we.
        0 if source.is_ipv6() => segment.len(),
        length => usize::from(length),
    };
    // What IP has behind its end belongs to nobody, as the kernel sees it.
    let datagram = segment.get(..length)?;
    let payload = datagram.get(UDP..)?;
    let pseudo_header = fold(addresses + pseudo_header_rest(u16::try_from(length).ok()?));
    let is_valid = match u16::from_ne_bytes([c0, c1]) {
        // No checksum (RFC 768), which IPv6 does not have (RFC 8200 section 8.1).
        0 => source.is_ipv4(),
        // A sender on this machine leaves the rest to a device that this frame never came through: between the ends of a veth pair, from
        // a bridge or a virtual machine. The field then has the sum of the pseudo header, not complemented (CHECKSUM_PARTIAL).
        // From a card it is a damaged one.
        checksum if checksum == pseudo_header && checksums == Checksums::MaybePartial => true,
        _ => fold(u64::from(pseudo_header) + sum(datagram)) == VALID,
    };
    let [source_port, destination_port] = [[s0, s1], [d0, d1]].map(u16::from_be_bytes);
    // Port 0 of a sender that wants no response (RFC 768): none could be sent to it by a socket.
    if !is_valid || source_port == 0 {
        return None;
    }
    let [source, destination] =
        [(source, source_port), (destination, destination_port)].map(|(ip, port)| SocketAddr::new(ip, port));
    Some(UdpFrame { link, source, destination, payload })
}

/// A header of IPv4, with its checksum.
#[inline]
fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16, identification: u16) -> [u8; IPV4] {
    let ([l0, l1], [i0, i1]) = (length.to_be_bytes(), identification.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source.octets(), destination.octets());
    let mut header = [0x45, 0, l0, l1, i0, i1, 0, 0, HOPS, PROTOCOL_UDP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    let checksum = !fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    header
}

/// A header of IPv6, which has no checksum.
#[inline]
fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> [u8; IPV6] {
    let [l0, l1] = length.to_be_bytes();
    let mut header = [0; IPV6];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, PROTOCOL_UDP, HOPS]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// Writes the header of UDP ahead of a payload. The sum is that of its addresses.
#[inline]
fn write_udp(datagram: &mut [u8], [source, destination]: [u16; 2], addresses: u64) {
    let length = length_of(datagram);
    let header = datagram.first_chunk_mut::<UDP>().expect("the caller has left room for headers");
    let ([s0, s1], [d0, d1], [l0, l1]) = (source.to_be_bytes(), destination.to_be_bytes(), length.to_be_bytes());
    *header = [s0, s1, d0, d1, l0, l1, 0, 0];
    let checksum = match !fold(addresses + pseudo_header_rest(length) + sum(datagram)) {
        // 0 would say that there is none; all ones is the same number (RFC 768).
        0 => u16::MAX,
        checksum => checksum,
    };
    if let Some(header) = datagram.first_chunk_mut::<UDP>() {
        header[6..].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// The length of something, as headers have it.
fn length_of(octets: &[u8]) -> u16 {
    u16::try_from(octets.len()).expect("what leaves fits into the MTU of an interface")
}

/// Whether a frame to this address is for several hosts.
fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 == 1
}

/// Whether this is an address of one host on a network. What the kernel drops as martian is not: this host, loopback, groups and everybody
/// (RFC 1122 section 3.2.1.3). It takes what else begins with 0 for a host (Linux since 5.3).
fn is_ipv4_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !address.is_broadcast()
}

/// The same for IPv6 (RFC 4291 section 2.5 and section 2.7). An address of IPv4 in that form could pass for one of IPv4.
fn is_ipv6_host(address: Ipv6Addr) -> bool {
    let is_mapped = address.to_ipv4_mapped().is_some();
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_mapped
}

/// What the pseudo header has beside the addresses: protocol and length (RFC 768; RFC 8200 section 8.1).
fn pseudo_header_rest(length: u16) -> u64 {
    u64::from(u16::from(PROTOCOL_UDP).to_be()) + u64::from(length.to_be())
}

/// The sum of RFC 1071 section 1 before it is folded, of words as they lie in memory: as that RFC's section 2 has it, the order of their
/// octets changes nothing but the order of those in the result. Eight octets at a time, as two numbers, so that no carry is lost.
#[inline]
fn sum(octets: &[u8]) -> u64 {
    let (words, mut rest) = octets.as_chunks::<8>();
    let mut sum = 0;
    for &word in words {
        let word = u64::from_ne_bytes(word);
        sum += (word >> 32) + (word & u64::from(u32::MAX));
    }
    if let Some((&word, behind)) = rest.split_first_chunk() {
        (sum, rest) = (sum + u64::from(u32::from_ne_bytes(word)), behind);
    }
    if let Some((&word, behind)) = rest.split_first_chunk() {
        (sum, rest) = (sum + u64::from(u16::from_ne_bytes(word)), behind);
    }
    sum + rest.first().map_or(0, |&octet| u64::from(u16::from_ne_bytes([octet, 0])))
}

/// Folds a sum to 16 bits: 0 only if all words were.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    sum as u16
}

/// What a sum comes to that has its own checksum in it.
const VALID: u16 = u16::MAX;

/// Octets of each header.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xDD];

/// The number of UDP, as protocol and as next header.
const PROTOCOL_UDP: u8 = 17;

/// The bits that only fragments have: more of them, and the offset (RFC 791 section 3.1).
const FRAGMENT: u16 = 0x3FFF;

/// Hops that a datagram may make: the kernel's default for its own.
const HOPS: u8 = 64;

#[cfg(test)]
mod tests;
