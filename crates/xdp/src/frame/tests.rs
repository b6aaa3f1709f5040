//! Tests of frames: each field wrong in turn, and results compared with `etherparse`.

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

const LINK: EthernetLink = EthernetLink { ours: [2, 0, 0, 0, 0, 1], theirs: [2, 0, 0, 0, 0, 2] };
const ID: u16 = 0x1234;

fn frame(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|text| text.parse::<SocketAddr>().expect("an address"));
    written(source, destination, payload)
}

fn written(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xEE; headers_len(source.is_ipv6())];
    frame.extend(payload);
    write_headers(&mut frame, LINK, source, destination, ID);
    frame
}

fn query_v4() -> Vec<u8> {
    frame("198.18.0.1:1024", "198.18.0.2:53", b"a query")
}

fn query_v6() -> Vec<u8> {
    frame("[2001:db8::1]:1024", "[2001:db8::2]:53", b"a query")
}

/// The same frame as the other end receives it.
fn arrived(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..12].rotate_left(6);
    frame
}

/// Changes a frame, then corrects both checksums.
fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    correct(&mut frame);
    frame
}

/// Writes the checksums that match the headers, by the plain algorithm of RFC 1071 section 1.
fn correct(frame: &mut [u8]) {
    let is_ipv6 = frame[12] == 0x86;
    let udp = headers_len(is_ipv6) - UDP;
    if !is_ipv6 {
        frame[24..26].fill(0);
        let checksum = !plain_sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    let addresses = if is_ipv6 { 22..54 } else { 26..34 };
    let said = usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
    let end = (udp + said).clamp(udp + UDP, frame.len());
    frame[udp + 6..udp + 8].fill(0);
    let length = (said as u16).to_be_bytes();
    let checksum = !plain_sum(&[&frame[addresses], &[0, 17], &length, &frame[udp..end]]);
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
}

fn plain_sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    sum as u16
}

/// Reads a frame that may come from the same machine.
fn read(frame: &[u8]) -> Option<UdpFrame<'_>> {
    super::read(frame, Checksums::MaybePartial)
}

#[test]
fn query_is_read() {
    for (query, source, destination) in
        [(query_v4(), "198.18.0.1:1024", "198.18.0.2:53"), (query_v6(), "[2001:db8::1]:1024", "[2001:db8::2]:53")]
    {
        let mut plain = query.clone();
        correct(&mut plain);
        assert_eq!(plain, query, "its checksums are right");
        let link = EthernetLink { ours: LINK.theirs, theirs: LINK.ours };
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
        assert_eq!(read(&query), Some(UdpFrame { link, source, destination, payload: b"a query" }));
        assert_eq!(read(&arrived(query)).expect("a datagram").link, LINK);
    }
}

#[test]
fn header_of_ipv4_is_as_the_kernel_writes_it() {
    let query = query_v4();
    assert_eq!(query[14..24], [0x45, 0, 0, 35, 0x12, 0x34, 0, 0, 64, 17]);
    assert_eq!(query_v6()[14..22], [0x60, 0, 0, 0, 0, 15, 17, 64]);
    assert_eq!(headers_len(true), 62);
}

type Change = fn(&mut Vec<u8>);

#[test]
fn what_is_allowed_is_read() {
    let cases: &[(&str, Change)] = &[
        ("padding behind the end of IP", |frame| frame.extend([0xAA; 30])),
        ("one octet of padding", |frame| frame.push(0)),
        ("another identification", |frame| frame[18] ^= 0xFF),
        ("a class of service", |frame| frame[15] = 0x03),
        ("DF", |frame| frame[20] = 0x40),
        ("the bit that is reserved", |frame| frame[20] = 0x80),
        ("the last hop", |frame| frame[22] = 1),
        ("an address of class E", |frame| frame[26] = 240),
        ("a UDP length below that of IP", |frame| frame[39] -= 1),
        ("a UDP length without payload", |frame| frame[39] = 8),
        ("a higher source port", |frame| frame[34] = 0xFF),
    ];
    for (what, change) in cases {
        let frame = changed(query_v4(), change);
        assert!(read(&frame).is_some(), "{what}");
    }
    let cases: &[(&str, Change)] = &[
        ("padding", |frame| frame.extend([0xAA; 3])),
        ("a flow label and a class", |frame| frame[14..18].copy_from_slice(&[0x6F, 0xFF, 0xFF, 0xFF])),
        ("the last hop", |frame| frame[21] = 1),
        ("a link-local source", |frame| frame[22..24].copy_from_slice(&[0xFE, 0x80])),
        ("a UDP length below that of IP", |frame| frame[59] -= 1),
    ];
    for (what, change) in cases {
        let frame = changed(query_v6(), change);
        assert!(read(&frame).is_some(), "{what}");
    }
}

#[test]
fn what_is_wrong_is_not_read() {
    let cases: &[(&str, Change)] = &[
        ("to a group of Ethernet", |frame| frame[0] |= 1),
        ("to everybody", |frame| frame[..6].fill(0xFF)),
        ("from a group of Ethernet", |frame| frame[6] |= 1),
        ("ARP", |frame| frame[13] = 0x06),
        ("a VLAN tag", |frame| drop(frame.splice(12..12, [0x81, 0, 0, 5]))),
        ("a tag of a provider", |frame| drop(frame.splice(12..12, [0x88, 0xA8, 0, 5]))),
        ("version 6 by the type of 4", |frame| frame[14] = 0x65),
        ("four words of header", |frame| frame[14] = 0x44),
        ("options", |frame| frame[14] = 0x46),
        ("an IP length below that of UDP", |frame| frame[17] -= 1),
        ("an IP length without UDP", |frame| frame[17] = 27),
        ("an IP length below its header", |frame| frame[17] = 19),
        ("an IP length of 0", |frame| frame[16..18].fill(0)),
        ("an IP length beyond the frame", |frame| frame[17] += 1),
        ("the longest IP length", |frame| frame[16..18].fill(0xFF)),
        ("a first fragment", |frame| frame[20] = 0x20),
        ("a last fragment", |frame| frame[21] = 1),
        ("one far behind", |frame| frame[20] = 0x10),
        ("TCP", |frame| frame[23] = 6),
        ("UDP-Lite", |frame| frame[23] = 136),
        ("from loopback", |frame| frame[26] = 127),
        ("from the unspecified address", |frame| frame[26..30].fill(0)),
        ("from a group", |frame| frame[26] = 224),
        ("from everybody", |frame| frame[26..30].fill(255)),
        ("to the unspecified address", |frame| frame[30..34].fill(0)),
        ("to loopback", |frame| frame[30] = 127),
        ("to a group", |frame| frame[30] = 239),
        ("to everybody", |frame| frame[30..34].fill(255)),
        ("from where it is sent to", |frame| frame.copy_within(26..30, 30)),
        ("from port 0", |frame| frame[34..36].fill(0)),
        ("a UDP length beyond that of IP", |frame| frame[39] += 1),
        ("a UDP length below its header", |frame| frame[39] = 7),
        ("a UDP length of 0", |frame| frame[39] = 0),
        ("the longest UDP length", |frame| frame[38..40].fill(0xFF)),
        ("a UDP length in the padding", |frame| {
            frame.extend([0; 10]);
            frame[39] += 5;
        }),
    ];
    for (what, change) in cases {
        assert_eq!(read(&changed(query_v4(), change)), None, "{what}");
    }
    let cases: &[(&str, Change)] = &[
        ("to a group of Ethernet", |frame| frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1])),
        ("a VLAN tag", |frame| drop(frame.splice(12..12, [0x81, 0, 0, 5]))),
        ("version 4 by the type of 6", |frame| frame[14] = 0x40),
        ("version 7", |frame| frame[14] = 0x70),
        ("a length beyond the frame", |frame| frame[19] += 1),
        ("a length below that of UDP", |frame| frame[19] -= 1),
        ("a length without UDP", |frame| frame[19] = 7),
        ("a length of 0", |frame| frame[19] = 0),
        ("options of hops", |frame| frame[20] = 0),
        ("a fragment", |frame| frame[20] = 44),
        ("a routing header", |frame| frame[20] = 43),
        ("TCP", |frame| frame[20] = 6),
        ("from the unspecified address", |frame| frame[22..38].fill(0)),
        ("from loopback", |frame| frame[22..38].copy_from_slice(&Ipv6Addr::LOCALHOST.octets())),
        ("to loopback", |frame| frame[38..54].copy_from_slice(&Ipv6Addr::LOCALHOST.octets())),
        ("from a group", |frame| frame[22] = 0xFF),
        ("to a group", |frame| frame[38] = 0xFF),
        ("from IPv4 in this form", |frame| {
            frame[22..38].copy_from_slice(&Ipv4Addr::new(198, 18, 0, 1).to_ipv6_mapped().octets());
        }),
        ("from where it is sent to", |frame| frame.copy_within(22..38, 38)),
        ("from port 0", |frame| frame[54..56].fill(0)),
        ("a UDP length beyond that of IP", |frame| frame[59] += 1),
        ("a UDP length below its header", |frame| frame[59] = 7),
    ];
    for (what, change) in cases {
        assert_eq!(read(&changed(query_v6(), change)), None, "{what}");
    }
}

#[test]
fn frame_that_ends_early_is_not_read() {
    for query in [query_v4(), query_v6()] {
        for length in 0..query.len() {
            assert_eq!(read(&query[..length]), None, "{length} octets");
        }
    }
}

#[test]
fn each_bit_counts_for_a_checksum() {
    for query in [query_v4(), query_v6()] {
        let udp = query.len() - 7 - UDP;
        let in_ip = if query[12] == 8 { 14..34 } else { 22..54 };
        for at in in_ip.chain(udp..query.len()) {
            for bit in 0..8 {
                let mut frame = query.clone();
                frame[at] ^= 1 << bit;
                assert_eq!(read(&frame), None, "bit {bit} of octet {at}");
            }
        }
    }
}

#[test]
fn checksum_of_udp_may_be_missing_by_ipv4_only_and_partial_by_both() {
    for (query, may_miss) in [(query_v4(), true), (query_v6(), false)] {
        let udp = query.len() - 7 - UDP;
        let addresses = if may_miss { 26..34 } else { 22..54 };
        let with = |checksum: u16| {
            let mut frame = query.clone();
            frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
            frame
        };
        let pseudo_header = plain_sum(&[&query[addresses], &[0, 17, 0, 15]]);
        let right = u16::from_be_bytes([query[udp + 6], query[udp + 7]]);
        let valid: Vec<u16> = (0..=u16::MAX).filter(|&checksum| read(&with(checksum)).is_some()).collect();
        let mut wanted = vec![pseudo_header, right];
        wanted.extend(may_miss.then_some(0));
        wanted.sort_unstable();
        assert_eq!(valid, wanted);
        let from_card = |checksum| super::read(&with(checksum), Checksums::Whole).is_some();
        assert_eq!(
            [right, pseudo_header, 0].map(from_card),
            [true, false, may_miss],
            "a card hands over no partial one"
        );
    }
}

/// RFC 768: a computed checksum of 0 is sent as all ones.
#[test]
fn checksum_that_is_zero_is_sent_as_all_ones() {
    for (source, destination) in [("198.18.0.1:1024", "198.18.0.2:53"), ("[2001:db8::1]:1024", "[2001:db8::2]:53")] {
        let mut query = frame(source, destination, &[0, 0]);
        let udp = query.len() - 2 - UDP;
        let missing = [query[udp + 6], query[udp + 7]];
        query = frame(source, destination, &missing);
        assert_eq!(query[udp + 6..udp + 8], [0xFF, 0xFF]);
        assert!(read(&query).is_some());
    }
}

/// Deviation, as in the kernel: RFC 2675 section 4.
#[test]
fn udp_length_of_zero_by_ipv6_is_all_that_is_there() {
    let mut query = query_v6();
    query[58..60].fill(0);
    query[60..62].fill(0);
    let checksum = !plain_sum(&[&query[22..54], &[0, 17, 0, 15], &query[54..]]);
    query[60..62].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(read(&query).expect("a datagram").payload, b"a query");
}

/// The addresses and the payload that `etherparse` reads, if both checksums are valid.
fn read_by_etherparse(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    let header = udp.to_header();
    let (source, destination, checksum): (IpAddr, IpAddr, _) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let ip_header = ip.header().to_header();
            assert_eq!(ip_header.header_checksum, ip_header.calc_header_checksum());
            let checksum = header.calc_checksum_ipv4(&ip_header, udp.payload()).ok()?;
            (ip_header.source.into(), ip_header.destination.into(), checksum)
        }
        NetSlice::Ipv6(ip) => {
            let ip_header = ip.header().to_header();
            assert_eq!(ip_header.next_header, IpNumber::UDP);
            let checksum = header.calc_checksum_ipv6(&ip_header, udp.payload()).ok()?;
            (ip_header.source.into(), ip_header.destination.into(), checksum)
        }
        NetSlice::Arp(_) => return None,
    };
    assert_eq!(header.checksum, checksum);
    Some(((source, header.source_port).into(), (destination, header.destination_port).into(), udp.payload()))
}

fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (1_u8..127, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d]));
    let v6 = any::<[u8; 15]>().prop_map(|rest| {
        let mut octets = [0x20; 16];
        octets[1..].copy_from_slice(&rest);
        IpAddr::from(octets)
    });
    let hosts = prop_oneof![(v4.clone(), v4), (v6.clone(), v6)].prop_filter("two hosts", |(one, other)| one != other);
    (hosts, 1_u16.., 1_u16..).prop_map(|((one, other), a, b)| ((one, a).into(), (other, b).into()))
}

proptest! {
    #[test]
    fn what_is_written_is_read_by_us_and_by_others(
        (source, destination) in ends(),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        padding in 0_usize..20,
    ) {
        let mut frame = written(source, destination, &payload);
        prop_assert_eq!(read_by_etherparse(&frame), Some((source, destination, &payload[..])));
        frame.resize(frame.len() + padding, 0x55);
        let link = EthernetLink { ours: LINK.theirs, theirs: LINK.ours };
        prop_assert_eq!(read(&frame), Some(UdpFrame { link, source, destination, payload: &payload }));
    }

    #[test]
    fn what_others_write_is_read(
        (source, destination) in ends(),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        hops: u8,
    ) {
        let builder = PacketBuilder::ethernet2(LINK.theirs, LINK.ours);
        let builder = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => builder.ipv4(source.octets(), destination.octets(), hops),
            (source, destination) => match (source, destination) {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    builder.ipv6(source.octets(), destination.octets(), hops)
                }
                _ => unreachable!("one family"),
            },
        };
        let mut frame = Vec::new();
        builder.udp(source.port(), destination.port()).write(&mut frame, &payload).expect("a frame");
        prop_assert_eq!(read(&frame), Some(UdpFrame { link: LINK, source, destination, payload: &payload }));
    }

    #[test]
    fn nothing_that_comes_makes_trouble(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        ether_type in prop_oneof![Just(ETHER_TYPE_IPV4), Just(ETHER_TYPE_IPV6)],
        version in prop_oneof![Just(0x45), Just(0x60)],
        is_corrected: bool,
    ) {
        let mut frame = octets;
        if let Some(head) = frame.first_chunk_mut::<{ headers_len(true) }>() {
            head[0] &= 0xFE;
            head[6] &= 0xFE;
            head[12..14].copy_from_slice(&ether_type);
            head[14] = version;
            head[20..22].fill(0);
            head[if ether_type == ETHER_TYPE_IPV4 { 23 } else { 20 }] = PROTOCOL_UDP;
            if is_corrected {
                correct(&mut frame);
            }
        }
        if let Some(datagram) = read(&frame) {
            let headers = headers_len(datagram.source.is_ipv6());
            prop_assert!(frame[headers..].starts_with(datagram.payload));
        }
    }
}
