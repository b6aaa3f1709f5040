//! Compares the interfaces, routes and neighbors that the kernel reports with those that `ip` sets, in a
//! separate network namespace.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use af_xdp::netlink::{
    InterfaceFacts, drain_changes, driver_features, interface, interface_names, next_hop, open_changes,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use testkit::hosts::run;
use testkit::*;

/// The interface of that name, which is there.
fn facts(name: &str) -> InterfaceFacts {
    interface(name).expect("the kernel answers").unwrap_or_else(|| panic!("{name} is there"))
}

/// The names of all interfaces.
fn names() -> Vec<String> {
    interface_names().expect("the kernel answers")
}

/// The address that is meant.
fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A next hop: its address, the source, and the Ethernet address.
type Way = (String, String, Option<[u8; 6]>);

/// Where a datagram to a host goes.
fn way(to: &str) -> Option<Way> {
    let hop = next_hop(ip(to)).expect("the kernel answers")?;
    Some((hop.address.to_string(), hop.source.to_string(), hop.mac))
}

/// A veth pair whose one end has addresses.
fn make_pair() {
    run("ip", "link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1 numrxqueues 2 numtxqueues 2");
    run("ip", "link set v0 address 02:00:00:00:00:10 mtu 1400");
    run("ip", "address add 198.18.0.1/24 dev v0");
    run("ip", "address add 2001:db8::1/64 dev v0 nodad");
    run("ip", "link set v0 up");
    run("ip", "link set v1 up");
}

#[test]
fn interfaces_are_as_ip_has_made_them() {
    if !namespace::enter("netlink::interfaces_are_as_ip_has_made_them") {
        return;
    }
    assert_eq!(interface("v0").expect("the kernel answers"), None);
    assert!(!names().contains(&"v0".to_owned()));
    let lo = facts("lo");
    assert!(!lo.is_ethernet && lo.is_up, "{lo:?}");
    assert_eq!((lo.index, lo.driver, lo.addresses.contains(&ip("127.0.0.1"))), (1, None, true));

    make_pair();
    let v0 = until("the pair has a carrier", || Some(facts("v0")).filter(|facts| facts.is_up));
    assert!(v0.is_ethernet, "{v0:?}");
    assert!(["lo", "v0", "v1"].iter().all(|name| names().contains(&(*name).to_owned())), "{:?}", names());
    assert_eq!((v0.mac, v0.mtu, v0.queues), ([2, 0, 0, 0, 0, 0x10], 1_400, 2));
    assert_eq!((v0.driver.as_deref(), v0.program), (Some("veth"), None));
    for address in ["198.18.0.1", "2001:db8::1"] {
        assert!(v0.addresses.contains(&ip(address)), "{address}: {v0:?}");
        assert!(!facts("v1").addresses.contains(&ip(address)), "{address}");
    }
    let features = driver_features(v0.index).expect("Linux 6.3 or later");
    assert!(features.native && !features.zero_copy, "{features:?}");

    run("ip", "link set v1 down");
    until("there is no carrier", || (!facts("v0").is_up).then_some(()));
    run("ip", "link delete v0");
    assert_eq!(interface("v0").expect("the kernel answers"), None);
    assert_eq!(driver_features(v0.index), None);
}

#[test]
fn datagrams_leave_where_routes_say() {
    if !namespace::enter("netlink::datagrams_leave_where_routes_say") {
        return;
    }
    make_pair();
    until("the pair has a carrier", || facts("v0").is_up.then_some(()));
    let mac = [2, 0, 0, 0, 0, 0x20];
    let to = |address: &str, source: &str, mac| Some((address.to_owned(), source.to_owned(), mac));

    assert_eq!(way("203.0.113.7"), None, "no route");
    assert_eq!(way("198.18.0.1"), None, "our own address");
    assert_eq!(way("127.0.0.1"), None, "our own address");
    assert_eq!(way("198.18.0.255"), None, "broadcast");
    assert_eq!(way("198.18.0.2"), to("198.18.0.2", "198.18.0.1", None), "not resolved");
    run("ip", "neighbor add 198.18.0.2 lladdr 02:00:00:00:00:20 dev v0");
    assert_eq!(way("198.18.0.2"), to("198.18.0.2", "198.18.0.1", Some(mac)));
    run("ip", "neighbor replace 198.18.0.2 lladdr 02:00:00:00:00:20 dev v0 nud stale");
    assert_eq!(way("198.18.0.2"), to("198.18.0.2", "198.18.0.1", Some(mac)), "stale");
    run("ip", "neighbor replace 198.18.0.2 lladdr 02:00:00:00:00:20 dev v0 nud permanent");

    run("ip", "route add 203.0.113.0/24 via 198.18.0.2");
    assert_eq!(way("203.0.113.7"), to("198.18.0.2", "198.18.0.1", Some(mac)), "by a router");
    run("ip", "address add 198.18.0.9/32 dev v0");
    run("ip", "route change 203.0.113.0/24 via 198.18.0.2 src 198.18.0.9");
    assert_eq!(way("203.0.113.7"), to("198.18.0.2", "198.18.0.9", Some(mac)), "from another address");
    for kind in ["blackhole", "prohibit", "unreachable"] {
        run("ip", &format!("route replace {kind} 203.0.113.8/32"));
        assert_eq!(way("203.0.113.8"), None, "{kind}");
    }

    assert_eq!(way("2001:db8:1::7"), None, "no route");
    assert_eq!(way("2001:db8::2"), to("2001:db8::2", "2001:db8::1", None), "not resolved");
    run("ip", "neighbor add 2001:db8::2 lladdr 02:00:00:00:00:20 dev v0");
    run("ip", "route add 2001:db8:1::/48 via 2001:db8::2");
    assert_eq!(way("2001:db8:1::7"), to("2001:db8::2", "2001:db8::1", Some(mac)), "by a router");
    run("ip", "route add 192.0.2.0/24 via inet6 2001:db8::2 dev v0");
    assert_eq!(way("192.0.2.7"), to("2001:db8::2", "198.18.0.1", Some(mac)), "IPv4 by a router of IPv6");

    run("ip", "link set v0 down");
    assert_eq!(way("198.18.0.2"), None, "the link is down");
}

#[test]
fn every_change_is_told() {
    if !namespace::enter("netlink::every_change_is_told") {
        return;
    }
    let changes = open_changes().expect("netlink");
    let is_readable = || {
        let mut polled = [PollFd::new(&changes, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("it can be polled") > 0
    };
    let quiet = || until("nothing changes any more", || (!drain_changes(&changes)).then_some(()));
    quiet();
    assert!(!is_readable());
    for change in [
        "link add v0 type veth peer name v1",
        "link set v0 mtu 1400",
        "link set v0 up",
        "link set v1 up",
        "address add 198.18.0.1/24 dev v0",
        "address add 2001:db8::1/64 dev v0 nodad",
        "neighbor add 198.18.0.2 lladdr 02:00:00:00:00:20 dev v0",
        "neighbor change 198.18.0.2 lladdr 02:00:00:00:00:21 dev v0",
        "neighbor add 2001:db8::2 lladdr 02:00:00:00:00:20 dev v0",
        "route add 203.0.113.0/24 via 198.18.0.2",
        "route delete 203.0.113.0/24",
        "route add 2001:db8:1::/48 via 2001:db8::2",
        "rule add from 198.18.0.1 table 100",
        "-6 rule add from 2001:db8::1 table 100",
        "nexthop add id 7 via 198.18.0.2 dev v0",
        "neighbor delete 198.18.0.2 dev v0",
        "address delete 198.18.0.1/24 dev v0",
        "link delete v0",
    ] {
        quiet();
        run("ip", change);
        assert!(is_readable(), "{change}");
        assert!(drain_changes(&changes), "{change}");
    }
    quiet();

    // More changes than the buffer holds: a lost one counts as a change as well, and the next one is reported
    // again.
    run("ip", "link add v0 type veth peer name v1");
    run("ip", "link set v0 up");
    quiet();
    let mut batch = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("it is installed");
    let lines: String = (0..4_000)
        .map(|i| format!("neighbor add 10.0.{}.{} lladdr 02:00:00:00:00:20 dev v0\n", i / 250, i % 250 + 1))
        .collect();
    batch.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    assert!(batch.wait().expect("it ends").success());
    assert!(drain_changes(&changes));
    quiet();
    run("ip", "link set v0 down");
    assert!(drain_changes(&changes));
}
