//! Tests of the netlink message parser. `tests/it/netlink.rs` tests it against the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DoneMessage;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::route::RouteLwEnCapType;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The interface, next hop and source of a route with this type and these attributes.
fn way(kind: RouteType, attributes: &[RouteAttribute]) -> Option<(u32, IpAddr, IpAddr)> {
    let mut route = RouteMessage::default();
    route.header.kind = kind;
    route.attributes = attributes.to_vec();
    hop_of(&route, ip("192.0.2.7")).map(|hop| (hop.interface, hop.address, hop.source))
}

#[test]
fn frames_leave_by_routes_to_neighbors_and_routers() {
    let oif = RouteAttribute::Oif(4);
    let source = RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 1)));
    let router = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 254)));
    let via = RouteAttribute::Via(RouteVia::Inet6(Ipv6Addr::LOCALHOST));
    let usual = [oif.clone(), source.clone()];
    let with = |more: RouteAttribute| [&usual[..], &[more]].concat();
    let found = |address| Some((4, ip(address), ip("192.0.2.1")));
    for (attributes, expected) in [
        (usual.to_vec(), found("192.0.2.7")),
        (with(router), found("192.0.2.254")),
        (with(via), found("::1")),
        (vec![oif], None),
        (vec![source], None),
        (with(RouteAttribute::EncapType(RouteLwEnCapType::Mpls)), None),
        (with(RouteAttribute::Encap(Vec::new())), None),
    ] {
        assert_eq!(way(RouteType::Unicast, &attributes), expected, "{attributes:?}");
    }
    for kind in [RouteType::Local, RouteType::Broadcast, RouteType::Multicast, RouteType::BlackHole] {
        assert_eq!(way(kind, &usual), None, "{kind:?}");
    }
}

#[test]
fn sources_are_reached_by_unicast_routes_alone() {
    let reach = |kind, attributes: &[RouteAttribute]| {
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        route.attributes = attributes.to_vec();
        reach_of(&route)
    };
    let oif = [RouteAttribute::Oif(4)];
    assert_eq!(reach(RouteType::Unicast, &oif), Reach::By(4));
    assert_eq!(reach(RouteType::Unicast, &[]), Reach::Nowhere);
    for kind in [RouteType::Local, RouteType::Broadcast, RouteType::Anycast, RouteType::Multicast] {
        assert_eq!(reach(kind, &oif), Reach::Ours, "{kind:?}");
    }
    for kind in [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit] {
        assert_eq!(reach(kind, &oif), Reach::Nowhere, "{kind:?}");
    }
}

#[test]
fn errors_of_routes_are_told_from_those_of_the_kernel() {
    for (errno, expected) in [
        (Errno::NETUNREACH, true),
        (Errno::HOSTUNREACH, true),
        (Errno::ACCESS, true),
        (Errno::INVAL, true),
        (Errno::NOBUFS, false),
        (Errno::PERM, false),
    ] {
        assert_eq!(is_no_route(&errno.into()), expected, "{errno}");
    }
}

#[test]
fn neighbors_are_used_once_they_are_resolved() {
    let states = [
        (NeighbourState::Reachable, true),
        (NeighbourState::Permanent, true),
        (NeighbourState::Noarp, true),
        (NeighbourState::Stale, true),
        (NeighbourState::Delay, true),
        (NeighbourState::Probe, true),
        (NeighbourState::Incomplete, false),
        (NeighbourState::Failed, false),
        (NeighbourState::None, false),
    ];
    for (state, is_resolved) in states {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        assert_eq!(mac_of(&message), None, "{state:?} without an address");
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]));
        assert_eq!(mac_of(&message), is_resolved.then_some([2, 0, 0, 0, 0, 9]), "{state:?}");
    }
    // InfiniBand addresses are longer.
    let mut message = NeighbourMessage::default();
    message.header.state = NeighbourState::Reachable;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![7; 20]));
    assert_eq!(mac_of(&message), None);
}

#[test]
fn addresses_are_ours_once_nobody_else_has_them() {
    let check = |flags: AddressFlags, attributes: &[AddressAttribute], expected: Option<IpAddr>| {
        let mut message = AddressMessage::default();
        message.header.index = 4;
        message.attributes = [attributes, &[AddressAttribute::Flags(flags)]].concat();
        let message = RouteNetlinkMessage::NewAddress(message);
        assert_eq!(usable_address(&message, 4), expected, "{flags:?} {attributes:?}");
        assert_eq!(usable_address(&message, 5), None, "of another interface");
    };
    let address = |text: &str| AddressAttribute::Address(ip(text));
    let (plain, local) = (AddressFlags::Permanent, AddressAttribute::Local(ip("192.0.2.1")));
    check(plain, &[address("2001:db8::1")], Some(ip("2001:db8::1")));
    check(plain, &[address("192.0.2.9"), local], Some(ip("192.0.2.1")));
    check(AddressFlags::Deprecated, &[address("2001:db8::1")], Some(ip("2001:db8::1")));
    check(AddressFlags::Tentative, &[address("2001:db8::1")], None);
    check(AddressFlags::Tentative | AddressFlags::Optimistic, &[address("2001:db8::1")], Some(ip("2001:db8::1")));
    check(AddressFlags::Tentative | AddressFlags::Dadfailed, &[address("2001:db8::1")], None);
    check(plain, &[], None);

    // Kernels send the flags also as one byte in the header.
    let mut message = AddressMessage::default();
    message.header.flags = AddressHeaderFlags::Tentative;
    message.attributes.push(address("2001:db8::1"));
    assert_eq!(usable_address(&RouteNetlinkMessage::NewAddress(message), 0), None);
}

fn octets_of(payload: NetlinkPayload<RouteNetlinkMessage>, sequence: u32, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (flags, sequence);
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    octets
}

fn reported(last: u8) -> NetlinkPayload<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.attributes.push(AddressAttribute::Address(Ipv4Addr::new(192, 0, 2, last).into()));
    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message))
}

#[test]
fn answers_of_one_message_are_whole_with_it() {
    let mut answer = NetlinkAnswer::default();
    assert!(!answer.read(&octets_of(reported(9), 6, 0), 7).expect("an answer to another question"));
    assert!(answer.read(&octets_of(reported(1), 7, 0), 7).expect("an answer"));
    assert_eq!(answer.messages.len(), 1);
}

#[test]
fn answers_of_several_messages_end_with_the_last() {
    let mut answer = NetlinkAnswer::default();
    let both = [octets_of(reported(1), 7, NLM_F_MULTIPART), octets_of(reported(2), 7, NLM_F_MULTIPART)].concat();
    assert!(!answer.read(&both, 7).expect("more follows"));
    assert!(!answer.is_interrupted);
    assert!(!answer.read(&octets_of(reported(3), 7, NLM_F_MULTIPART | NLM_F_DUMP_INTR), 7).expect("more follows"));
    let done = octets_of(NetlinkPayload::Done(DoneMessage::default()), 7, NLM_F_MULTIPART);
    assert!(answer.read(&done, 7).expect("the end"));
    assert_eq!(answer.messages.len(), 3);
    assert!(answer.is_interrupted);
}

#[test]
fn errors_of_the_kernel_are_those_of_the_system() {
    // struct nlmsgerr: the negative error number, and the header of the request.
    let mut octets = octets_of(NetlinkPayload::Noop, 7, 0);
    octets.extend((-19_i32).to_ne_bytes());
    octets.extend([0; 16]);
    let len = octets.len() as u32;
    octets[..4].copy_from_slice(&len.to_ne_bytes());
    octets[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    let error = NetlinkAnswer::default().read(&octets, 7).expect_err("an error");
    assert_eq!(error.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
}

proptest! {
    /// Arbitrary bytes give an error or no answer, and the reader terminates.
    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), kind in 16_u16..32, len in 0_u32..220) {
        let mut octets = octets;
        if octets.len() >= 6 {
            octets[..4].copy_from_slice(&len.to_ne_bytes());
            octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        }
        let mut answer = NetlinkAnswer::default();
        let is_whole = answer.read(&octets, 0).unwrap_or_default();
        prop_assert!(!is_whole || octets.len() >= 16);
    }
}
