//! Frames of Ethernet: etherparse is the oracle for what is in them.

use std::net::{IpAddr, SocketAddr};

use af_xdp::frame::{Checksums, EthernetLink, headers_len, read, write_headers};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// A frame with a datagram in it: as it comes, and with checksums that are right, by which more is read.
pub fn frame(octets: &[u8]) {
    check_frame(octets);
    let mut frame = octets.to_vec();
    correct_checksums(&mut frame);
    check_frame(&frame);
}

/// What is read of a frame is what others read, and is read again where we write it.
fn check_frame(frame: &[u8]) {
    let Some(datagram) = read(frame, Checksums::MaybePartial) else { return };
    assert!(frame[headers_len(datagram.source.is_ipv6())..].starts_with(datagram.payload));
    let sliced = SlicedPacket::from_ethernet(frame).expect("others read it too");
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        other => panic!("no datagram: {other:?}"),
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no datagram: {sliced:?}") };
    let ends = ((source, udp.source_port()).into(), (destination, udp.destination_port()).into());
    assert_eq!((datagram.source, datagram.destination, datagram.payload), (ends.0, ends.1, udp.payload()));
    let again = write_frame(datagram.link, datagram.destination, datagram.source, datagram.payload);
    let Some(answer) = read(&again, Checksums::Whole) else {
        return assert_eq!(datagram.destination.port(), 0, "what we write is read: {again:02x?}");
    };
    assert_eq!(
        (answer.source, answer.destination, answer.payload),
        (datagram.destination, datagram.source, datagram.payload)
    );
    assert_eq!((answer.link.ours, answer.link.theirs), (datagram.link.theirs, datagram.link.ours));
}

/// A frame that we write.
fn write_frame(link: EthernetLink, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xEE; headers_len(source.is_ipv6())];
    frame.extend(payload);
    write_headers(&mut frame, link, source, destination, 0xBEEF);
    frame
}

/// A first corpus: a frame of each family with this in it.
pub fn seeds(payload: &[u8]) -> Vec<Vec<u8>> {
    let ends = [("198.18.0.1:1024", "198.18.0.2:53"), ("[2001:db8::1]:1024", "[2001:db8::2]:53")];
    let frame = |(source, destination): (&str, &str)| {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
        write_frame(EthernetLink { ours: [2; 6], theirs: [4; 6] }, source, destination, payload)
    };
    ends.map(frame).to_vec()
}

/// Makes the checksums of a frame right for what its headers say, if they are all there.
fn correct_checksums(frame: &mut [u8]) {
    let is_ipv6 = frame.get(12) == Some(&0x86);
    let udp = headers_len(is_ipv6) - 8;
    let Some(&[a, b, ..]) = frame.get(udp + 4..udp + 8) else { return };
    let checksum = |parts: &[&[u8]]| {
        let words = parts.iter().flat_map(|part| part.chunks(2));
        let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
        (!((1..4).fold(sum, |sum, _| (sum >> 16) + (sum & 0xFFFF))) as u16).to_be_bytes()
    };
    if !is_ipv6 {
        frame[24..26].fill(0);
        let right = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&right);
    }
    let addresses = if is_ipv6 { 22..54 } else { 26..34 };
    let end = (udp + usize::from(u16::from_be_bytes([a, b]))).clamp(udp + 8, frame.len());
    frame[udp + 6..udp + 8].fill(0);
    let right = checksum(&[&frame[addresses], &[0, 17, a, b], &frame[udp..end]]);
    frame[udp + 6..udp + 8].copy_from_slice(&right);
}
