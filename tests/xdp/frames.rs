//! Builds and parses frames byte by byte, without any code of the server. A sent frame is exactly as the test
//! defines it, even if it is invalid; a received frame must be valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use testkit::{Query, word};

/// Offset of the IP header, and lengths of the IP headers without options.
pub(crate) const IP: usize = 14;
pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const IPV6_HEADER: usize = 40;

/// EtherTypes of network protocols and VLAN tags.
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const VLAN: u16 = 0x8100;
/// EtherType of the outer one of two tags (IEEE 802.1ad).
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;

/// Protocol numbers in the IP header.
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
/// Extension headers between the IPv6 header and the payload (RFC 8200 section 4).
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

/// The addresses and ports of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Destination and source Ethernet addresses, in this order.
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Path {
    /// Replaces the source address and port.
    pub(crate) fn from(self, source: SocketAddr) -> Self {
        Self { source, ..self }
    }

    /// Replaces the destination address and port.
    pub(crate) fn to(self, destination: SocketAddr) -> Self {
        Self { destination, ..self }
    }

    /// Returns a valid frame with this payload.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let udp = self.udp(payload);
        self.around(UDP, &udp)
    }

    pub(crate) fn query(&self, query: &Query) -> Vec<u8> {
        self.frame(&query.to_vec())
    }

    /// Returns a UDP datagram with its checksum.
    pub(crate) fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).expect("a datagram");
        let words = [self.source.port(), self.destination.port(), length, 0];
        let mut udp: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        udp.extend_from_slice(payload);
        let sum = !checksum(&[&self.pseudo_header(udp.len()), &udp]);
        // RFC 768: 0 means that there is no checksum.
        let sum = if sum == 0 { 0xffff } else { sum };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        udp
    }

    /// Wraps the content in Ethernet and IP headers.
    pub(crate) fn around(&self, protocol: u8, content: &[u8]) -> Vec<u8> {
        let [to, from] = self.macs;
        let ethertype = if self.source.is_ipv4() { IPV4 } else { IPV6 };
        let mut frame = [&to[..], &from, &ethertype.to_be_bytes()].concat();
        let length = content.len() as u16;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend_from_slice(&[0x45, 0]);
                frame.extend_from_slice(&(length + 20).to_be_bytes());
                frame.extend_from_slice(&[0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
                seal_ip(&mut frame);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend_from_slice(&[0x60, 0, 0, 0]);
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&[protocol, 64]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
            }
            _ => panic!("{self:?} has two families"),
        }
        frame.extend_from_slice(content);
        frame
    }

    /// Returns the pseudo-header that a UDP checksum covers (RFC 768, RFC 8200 section 8.1).
    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut header = octets_of(self.source.ip());
        header.extend(octets_of(self.destination.ip()));
        header.extend_from_slice(&(length as u32).to_be_bytes());
        header.extend_from_slice(&[0, 0, 0, UDP]);
        header
    }
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Returns the sum of RFC 1071 over consecutive parts, not yet complemented. Each part but the last must have
/// an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 =
        words.map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default())).sum();
    let folded = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Fills in the IPv4 header checksum, over the length that the header states.
pub(crate) fn seal_ip(frame: &mut [u8]) {
    let length = frame.get(IP).map_or(0, |first| usize::from(first & 15) * 4);
    let Some(header) = frame.get_mut(IP..IP + length).filter(|header| header.len() >= IPV4_HEADER) else { return };
    header[10..12].fill(0);
    let sum = !checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in the UDP checksum, over the length that the UDP header states. The UDP header must directly follow
/// the IP header.
pub(crate) fn seal_udp(frame: &mut [u8]) {
    let Some((addresses, at)) = layout(frame) else { return };
    let Some(said) = frame.get(at + 4..at + 6).map(|length| usize::from(word(length, 0))) else { return };
    let end = frame.len().min(at + said.max(8));
    if end < at + 8 {
        return;
    }
    frame[at + 6..at + 8].fill(0);
    let rest = [&(said as u32).to_be_bytes()[..], &[0, 0, 0, UDP]].concat();
    let sum = !checksum(&[&frame[addresses], &rest, &frame[at..end]]);
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
}

/// Returns the range of the IP addresses, and the offset of UDP if it directly follows the IP header.
fn layout(frame: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    if frame.len() < IP + IPV4_HEADER {
        return None;
    }
    match word(frame, 12) {
        IPV4 => Some((IP + 12..IP + 20, IP + usize::from(frame[IP] & 15) * 4)),
        IPV6 if frame.len() >= IP + IPV6_HEADER => Some((IP + 8..IP + 40, IP + IPV6_HEADER)),
        _ => None,
    }
}

/// A packet from the server, without the fields that do not matter to a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    /// A UDP datagram whose headers are all valid.
    Datagram { source: SocketAddr, destination: SocketAddr, payload: Vec<u8> },
    /// Any other IP packet: its protocol and bytes, with the identification and the IPv4 checksum set to 0.
    Other(u8, Vec<u8>),
}

/// Parses a frame. Returns `None` for neighbor discovery, multicast reports, and frames without IP. Panics if
/// a header of a datagram is invalid.
pub(crate) fn read(frame: &[u8]) -> Option<Heard> {
    match word(frame, 12) {
        IPV4 => {
            let total = usize::from(word(frame, IP + 2));
            let header = usize::from(frame[IP] & 15) * 4;
            assert_eq!(checksum(&[&frame[IP..IP + header]]), 0xffff, "the checksum of IP: {frame:02x?}");
            let is_fragment = word(frame, IP + 6) & 0x3fff != 0;
            let address =
                |at: usize| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four")));
            let [source, destination] = [IP + 12, IP + 16].map(address);
            let content = &frame[IP + header..IP + total];
            Some(match frame[IP + 9] {
                UDP if !is_fragment => datagram(source, destination, content),
                protocol => {
                    let mut octets = frame[IP..IP + total].to_vec();
                    octets[4..6].fill(0);
                    octets[10..12].fill(0);
                    Heard::Other(protocol, octets)
                }
            })
        }
        IPV6 => {
            let length = usize::from(word(frame, IP + 4));
            let address =
                |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("sixteen")));
            let [source, destination] = [IP + 8, IP + 24].map(address);
            let content = &frame[IP + IPV6_HEADER..IP + IPV6_HEADER + length];
            // RFC 4861 section 4: types 133 to 137 are neighbor discovery. A hop-by-hop header precedes
            // multicast reports.
            match frame[IP + 6] {
                ICMPV6 if (133..=137).contains(&content[0]) => None,
                HOP_BY_HOP => None,
                UDP => Some(datagram(source, destination, content)),
                FRAGMENT => {
                    let mut octets = content.to_vec();
                    octets[4..8].fill(0);
                    Some(Heard::Other(FRAGMENT, octets))
                }
                protocol => Some(Heard::Other(protocol, content.to_vec())),
            }
        }
        _ => None,
    }
}

/// Parses a UDP datagram, and panics if it is invalid.
fn datagram(source: IpAddr, destination: IpAddr, udp: &[u8]) -> Heard {
    assert_eq!(usize::from(word(udp, 4)), udp.len(), "the length of UDP: {udp:02x?}");
    let [source, destination] = [(source, 0), (destination, 2)].map(|(ip, at)| SocketAddr::new(ip, word(udp, at)));
    let path = Path { macs: [[0; 6]; 2], source, destination };
    assert_ne!(word(udp, 6), 0, "a checksum of UDP: {udp:02x?}");
    let sum = checksum(&[&path.pseudo_header(udp.len()), udp]);
    assert_eq!(sum, 0xffff, "the checksum of UDP: {source} to {destination}: {udp:02x?}");
    Heard::Datagram { source, destination, payload: udp[8..].to_vec() }
}

/// Inserts VLAN tags into a frame. Each tag is an EtherType and a number, the outermost comes first.
pub(crate) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags: Vec<u8> = tags.iter().flat_map(|(kind, number)| [*kind, *number]).flat_map(u16::to_be_bytes).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// Returns an unused identification, so that fragments of different datagrams are not reassembled together.
fn next_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0x4000);
    NEXT.fetch_add(1, Relaxed)
}

/// Splits an IPv4 frame into fragments with `size` bytes of content (a multiple of 8).
pub(crate) fn fragments_4(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (headers, content) = frame.split_at(IP + IPV4_HEADER);
    let count = content.len().div_ceil(size);
    let id = next_id();
    let fragment = |(number, part): (usize, &[u8])| {
        let mut fragment = [headers, part].concat();
        fragment[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
        let more = if number + 1 < count { 0x2000 } else { 0 };
        fragment[IP + 2..IP + 4].copy_from_slice(&((IPV4_HEADER + part.len()) as u16).to_be_bytes());
        fragment[IP + 6..IP + 8].copy_from_slice(&(more | (number * size / 8) as u16).to_be_bytes());
        seal_ip(&mut fragment);
        fragment
    };
    content.chunks(size).enumerate().map(fragment).collect()
}

/// Splits an IPv6 frame into fragments with `size` bytes of content (a multiple of 8, RFC 8200 section 4.5).
pub(crate) fn fragments_6(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (headers, content) = frame.split_at(IP + IPV6_HEADER);
    let count = content.len().div_ceil(size);
    let id = u32::from(next_id()).to_be_bytes();
    let fragment = |(number, part): (usize, &[u8])| {
        let more = u16::from(number + 1 < count);
        let offset = ((number * size) as u16 | more).to_be_bytes();
        let mut fragment = [headers, &[frame[IP + 6], 0], &offset, &id, part].concat();
        fragment[IP + 4..IP + 6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
        fragment[IP + 6] = FRAGMENT;
        fragment
    };
    content.chunks(size).enumerate().map(fragment).collect()
}

/// Inserts an IPv6 extension header of eight bytes ahead of UDP, filled with padding (RFC 8200 section 4.2).
pub(crate) fn with_options_6(frame: &[u8], kind: u8) -> Vec<u8> {
    let (headers, content) = frame.split_at(IP + IPV6_HEADER);
    let mut longer = [headers, &[headers[IP + 6], 0, 1, 4, 0, 0, 0, 0], content].concat();
    longer[IP + 4..IP + 6].copy_from_slice(&((8 + content.len()) as u16).to_be_bytes());
    longer[IP + 6] = kind;
    longer
}

/// Inserts four bytes of IPv4 options: three no-operations and the end (RFC 791 section 3.1).
pub(crate) fn with_options_4(frame: &[u8]) -> Vec<u8> {
    let (headers, content) = frame.split_at(IP + IPV4_HEADER);
    let mut longer = [headers, &[1, 1, 1, 0], content].concat();
    longer[IP] = 0x46;
    let total = (longer.len() - IP) as u16;
    longer[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
    seal_ip(&mut longer);
    longer
}
