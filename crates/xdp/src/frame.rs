//! Reads and writes Ethernet frames with one whole UDP datagram.
//!
//! The reader checks everything that the kernel's stack checks, because the program checks little and other
//! programs may run on the interface. Other frames are left to the kernel (`program.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The Ethernet addresses of both ends of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EthernetLink {
    /// The address of our interface.
    pub ours: [u8; 6],
    /// The address of the host or router at the other end.
    pub theirs: [u8; 6],
}

/// A UDP datagram in a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFrame<'f> {
    /// The Ethernet addresses for a response.
    pub link: EthernetLink,
    /// The sender. A link-local address has no scope here, because only the caller knows the interface.
    pub source: SocketAddr,
    /// The address to which the datagram was sent.
    pub destination: SocketAddr,
    /// The data, without padding.
    pub payload: &'f [u8],
}

/// The kind of UDP checksums that an interface delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Complete checksums, as from a network card.
    Whole,
    /// A sender on the same machine may have left its checksum to a device that the frame never passes.
    MaybePartial,
}

/// The length of the headers ahead of a payload.
pub const fn headers_len(is_ipv6: bool) -> usize {
    ETHERNET + if is_ipv6 { IPV6 } else { IPV4 } + UDP
}

/// The UDP datagram in a frame; `None` if there is none that is whole and valid.
#[inline]
pub fn read(frame: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let (&ours, behind) = frame.split_first_chunk()?;
    let (&theirs, behind) = behind.split_first_chunk()?;
    let (ether_type, behind) = behind.split_first_chunk()?;
    if is_group(ours) || is_group(theirs) {
        return None;
    }
    let link = EthernetLink { ours, theirs };
    match *ether_type {
        ETHER_TYPE_IPV4 => read_ipv4(link, behind, checksums),
        ETHER_TYPE_IPV6 => read_ipv6(link, behind, checksums),
        _ => None,
    }
}

/// Writes the headers ahead of the payload in `frame`.
///
/// `frame` is exactly headers ([`headers_len`]) and payload, and source and destination are of one family.
/// `identification` is for IPv4, where routers may fragment the datagram.
#[inline]
pub fn write_headers(
    frame: &mut [u8],
    link: EthernetLink,
    source: SocketAddr,
    destination: SocketAddr,
    identification: u16,
) {
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

/// Reads an IPv4 header and what follows (RFC 791 section 3.1).
#[inline]
fn read_ipv4(link: EthernetLink, octets: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let header: &[u8; IPV4] = octets.first_chunk()?;
    // Five words of header (no options), not fragmented.
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

/// Reads an IPv6 header and what follows (RFC 8200 section 3).
#[inline]
fn read_ipv6(link: EthernetLink, octets: &[u8], checksums: Checksums) -> Option<UdpFrame<'_>> {
    let (header, behind) = octets.split_first_chunk::<IPV6>()?;
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

/// Reads a UDP segment (RFC 768). `sum` covers the addresses.
#[inline]
fn read_udp(
    link: EthernetLink,
    [source, destination]: [IpAddr; 2],
    addresses: u64,
    segment: &[u8],
    checksums: Checksums,
) -> Option<UdpFrame<'_>> {
    let &[s0, s1, d0, d1, l0, l1, c0, c1] = segment.first_chunk::<UDP>()?;
    let length = match u16::from_be_bytes([l0, l1]) {
        // Deviation: RFC 2675 section 4 has 0 for jumbograms only. The kernel reads 0 as "up to the end", so
        // this does too.
        0 if source.is_ipv6() => segment.len(),
        length => usize::from(length),
    };
    // The kernel ignores bytes after the UDP length.
    let datagram = segment.get(..length)?;
    let payload = datagram.get(UDP..)?;
    let pseudo_header = fold(addresses + pseudo_header_rest(u16::try_from(length).ok()?));
    let is_valid = match u16::from_ne_bytes([c0, c1]) {
        // 0 is no checksum (RFC 768), which IPv6 does not allow (RFC 8200 section 8.1).
        0 => source.is_ipv4(),
        // CHECKSUM_PARTIAL: a sender on a veth pair, a bridge or a virtual machine leaves the sum of the
        // pseudo header, not complemented, to a device. From a card this is a damaged checksum.
        checksum if checksum == pseudo_header && checksums == Checksums::MaybePartial => true,
        _ => fold(u64::from(pseudo_header) + sum(datagram)) == VALID,
    };
    let [source_port, destination_port] = [[s0, s1], [d0, d1]].map(u16::from_be_bytes);
    // Source port 0 means that no response is wanted (RFC 768).
    if !is_valid || source_port == 0 {
        return None;
    }
    let [source, destination] =
        [(source, source_port), (destination, destination_port)].map(|(ip, port)| SocketAddr::new(ip, port));
    Some(UdpFrame { link, source, destination, payload })
}

#[inline]
fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16, identification: u16) -> [u8; IPV4] {
    let ([l0, l1], [i0, i1]) = (length.to_be_bytes(), identification.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source.octets(), destination.octets());
    let mut header = [0x45, 0, l0, l1, i0, i1, 0, 0, HOPS, PROTOCOL_UDP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    let checksum = !fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    header
}

#[inline]
fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> [u8; IPV6] {
    let [l0, l1] = length.to_be_bytes();
    let mut header = [0; IPV6];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, PROTOCOL_UDP, HOPS]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

#[inline]
fn write_udp(datagram: &mut [u8], [source, destination]: [u16; 2], addresses: u64) {
    let length = length_of(datagram);
    let header = datagram.first_chunk_mut::<UDP>().expect("the caller has left room for headers");
    let ([s0, s1], [d0, d1], [l0, l1]) = (source.to_be_bytes(), destination.to_be_bytes(), length.to_be_bytes());
    *header = [s0, s1, d0, d1, l0, l1, 0, 0];
    let checksum = match !fold(addresses + pseudo_header_rest(length) + sum(datagram)) {
        // 0 means no checksum; all ones is the same number (RFC 768).
        0 => u16::MAX,
        checksum => checksum,
    };
    if let Some(header) = datagram.first_chunk_mut::<UDP>() {
        header[6..].copy_from_slice(&checksum.to_ne_bytes());
    }
}

fn length_of(octets: &[u8]) -> u16 {
    u16::try_from(octets.len()).expect("what leaves fits into the MTU of an interface")
}

fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 == 1
}

/// Returns true for a source that the kernel accepts (RFC 1122 section 3.2.1.3; 0.x.x.x since Linux 5.3).
fn is_ipv4_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !address.is_broadcast()
}

/// Returns true for unicast (RFC 4291 section 2.5 and section 2.7) except IPv4-mapped addresses.
fn is_ipv6_host(address: Ipv6Addr) -> bool {
    let is_mapped = address.to_ipv4_mapped().is_some();
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_mapped
}

/// The sum of protocol and length in the pseudo header (RFC 768; RFC 8200 section 8.1).
fn pseudo_header_rest(length: u16) -> u64 {
    u64::from(u16::from(PROTOCOL_UDP).to_be()) + u64::from(length.to_be())
}

/// The unfolded sum of RFC 1071 section 1, on words as they lie in memory (section 2). Eight bytes at a time,
/// as two numbers, so that no carry is lost.
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

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    sum as u16
}

/// The folded sum of data that includes its valid checksum.
const VALID: u16 = u16::MAX;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xDD];

const PROTOCOL_UDP: u8 = 17;

/// More-fragments flag and offset (RFC 791 section 3.1).
const FRAGMENT: u16 = 0x3FFF;

/// The default hop limit of the kernel.
const HOPS: u8 = 64;

#[cfg(test)]
mod tests;
