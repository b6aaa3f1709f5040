//! Frames for tests of the filter, with the expected verdict on queue 0 of two workers.

use std::net::SocketAddr;

use crate::frame::{self, EthernetLink};
use crate::program::{MAX_FRAME, XDP_PASS, XDP_REDIRECT};

/// The interface's address. Each part would be negative as a signed number.
pub(crate) const MAC: [u8; 6] = [0xA2, 0x81, 0x92, 0xF3, 0x84, 0x95];

pub(crate) const LISTENING: [&str; 3] = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.1:8453"];

/// Worker, local and remote address. Only the first worker has queue 0.
pub(crate) const HELD: [(u32, &str, &str); 4] = [
    (0, "192.0.2.1:54321", "198.51.100.7:53"),
    (0, "[2001:db8::1]:61234", "[2001:db8:7::7]:53"),
    (1, "192.0.2.1:54322", "198.51.100.7:53"),
    (1, "[2001:db8::1]:61235", "[2001:db8:7::7]:53"),
];

pub(crate) const WORKERS: u32 = 2;

pub(crate) fn all() -> Vec<(String, Vec<u8>, i32)> {
    let mut cases: Vec<_> = plain().map(|(what, frame, fate)| (what.to_owned(), frame, fate)).into();
    for (source, destination, read) in [
        ("198.51.100.9:1024", LISTENING[0], read_of_query(false)),
        ("[2001:db8:9::9]:1024", LISTENING[1], read_of_query(true)),
        (HELD[0].2, HELD[0].1, read_of_reply(false)),
        (HELD[1].2, HELD[1].1, read_of_reply(true)),
    ] {
        cases.extend(flipped(&made(source, destination), &read));
    }
    for (source, destination) in [("198.51.100.9:1024", LISTENING[0]), ("[2001:db8:9::9]:1024", LISTENING[1])] {
        let frame = made(source, destination);
        let headers = frame.len() - PAYLOAD.len();
        cases.extend((14..frame.len()).map(|length| {
            let fate = if length < headers { XDP_PASS } else { XDP_REDIRECT };
            (format!("{length} octets to {destination}"), frame[..length].to_vec(), fate)
        }));
    }
    cases
}

fn plain() -> [(&'static str, Vec<u8>, i32); 28] {
    let v4 = made("198.51.100.9:1024", LISTENING[0]);
    let v6 = made("[2001:db8:9::9]:1024", LISTENING[1]);
    let with = |frame: &[u8], at: usize, octets: &[u8]| [&frame[..at], octets, &frame[at + octets.len()..]].concat();
    let tagged = |frame: &[u8], tag: u8| [&frame[..12], &[tag, 0, 0, 5], &frame[12..]].concat();
    [
        ("a query", v4.clone(), XDP_REDIRECT),
        ("a query by IPv6", v6.clone(), XDP_REDIRECT),
        ("a query to another port", made("198.51.100.9:1", LISTENING[2]), XDP_REDIRECT),
        ("a reply", made(HELD[0].2, HELD[0].1), XDP_REDIRECT),
        ("a reply by IPv6", made(HELD[1].2, HELD[1].1), XDP_REDIRECT),
        ("a reply to another worker", made(HELD[2].2, HELD[2].1), XDP_PASS),
        ("a reply to another worker by IPv6", made(HELD[3].2, HELD[3].1), XDP_PASS),
        ("a reply from another port", made("198.51.100.7:54", HELD[0].1), XDP_PASS),
        ("a reply from another host", made("198.51.100.8:53", HELD[0].1), XDP_PASS),
        ("a reply to another address of ours", made(HELD[0].2, "192.0.2.2:54321"), XDP_PASS),
        ("a reply to the port of the other family", made(HELD[0].2, "192.0.2.1:61234"), XDP_PASS),
        ("a reply from the same port of an unknown host", made("[2001:db8:7::7]:53", "[2001:db8::1]:54321"), XDP_PASS),
        ("a query to a listener's port elsewhere", made("198.51.100.9:1024", "192.0.2.3:53"), XDP_PASS),
        ("a query to no port", made("198.51.100.9:1024", "192.0.2.1:0"), XDP_PASS),
        ("a query to the last port", made("198.51.100.9:1024", "192.0.2.1:65535"), XDP_PASS),
        ("a query to the last port by IPv6", made("[2001:db8:9::9]:1024", "[2001:db8::1]:65535"), XDP_PASS),
        ("to everybody", with(&v4, 0, &[0xFF; 6]), XDP_PASS),
        ("to a group", with(&v6, 0, &[0x33, 0x33, 0, 0, 0, 1]), XDP_PASS),
        ("a VLAN", tagged(&v4, 0x81), XDP_PASS),
        ("a VLAN by IPv6", tagged(&v6, 0x81), XDP_PASS),
        ("a provider's VLAN", tagged(&v4, 0x88), XDP_PASS),
        ("TCP", with(&v4, 23, &[6]), XDP_PASS),
        ("ICMP", with(&v4, 23, &[1]), XDP_PASS),
        ("ICMP by IPv6", with(&v6, 20, &[58]), XDP_PASS),
        ("a fragment by IPv6", with(&v6, 20, &[44]), XDP_PASS),
        ("as long as a socket takes", [&v4[..], &vec![0; MAX_FRAME - v4.len()]].concat(), XDP_REDIRECT),
        ("longer", [&v4[..], &vec![0; MAX_FRAME + 1 - v4.len()]].concat(), XDP_PASS),
        ("ARP", with(&v4, 12, &[0x08, 0x06]), XDP_PASS),
    ]
}

fn flipped(frame: &[u8], read: &[(usize, u8)]) -> Vec<(String, Vec<u8>, i32)> {
    let flips = (0..=frame.len() - PAYLOAD.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    let flip = |(at, bit): (usize, u8)| {
        let mut frame = frame.to_vec();
        frame[at] ^= bit;
        let is_read = read.iter().any(|&(place, bits)| place == at && bits & bit != 0);
        (format!("bit {bit:#x} of octet {at}: {frame:02x?}"), frame, if is_read { XDP_PASS } else { XDP_REDIRECT })
    };
    flips.map(flip).collect()
}

fn read_of_query(is_ipv6: bool) -> Vec<(usize, u8)> {
    let whole = |places: &[std::ops::Range<usize>]| -> Vec<(usize, u8)> {
        places.iter().cloned().flatten().map(|place| (place, 0xFF)).collect()
    };
    if is_ipv6 {
        [whole(&[0..6, 12..14, 20..21, 38..54, 56..58]), vec![(14, 0xF0)]].concat()
    } else {
        [whole(&[0..6, 12..15, 21..22, 23..24, 30..34, 36..38]), vec![(20, 0x3F)]].concat()
    }
}

fn read_of_reply(is_ipv6: bool) -> Vec<(usize, u8)> {
    let (address, port) = if is_ipv6 { (22..38, 54..56) } else { (26..30, 34..36) };
    let mut places = read_of_query(is_ipv6);
    places.extend(address.chain(port).map(|place| (place, 0xFF)));
    places
}

fn made(source: &str, destination: &str) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|text| text.parse::<SocketAddr>().expect("an address"));
    let mut frame = vec![0; frame::headers_len(source.is_ipv6())];
    frame.extend(PAYLOAD);
    let link = EthernetLink { ours: [2, 0, 0, 0, 0, 2], theirs: MAC };
    frame::write_headers(&mut frame, link, source, destination, 0);
    frame
}

const PAYLOAD: &[u8] = b"a message";
