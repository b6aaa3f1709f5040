//! Interfaces, routes and neighbors of the kernel, by rtnetlink, which answers at once.
//! [`open_changes`] reports when to repeat requests. Nothing here changes the kernel's state.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use xdp::nic::NicIndex;

/// Facts about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// The index, which the kernel never reuses while it runs.
    pub index: u32,
    /// True if frames are Ethernet between hosts; false for the loopback device.
    pub is_ethernet: bool,
    /// The Ethernet address; zeros if there is none.
    pub mac: [u8; 6],
    /// The MTU in bytes.
    pub mtu: u32,
    /// True if the interface is up and has a carrier.
    pub is_up: bool,
    /// The addresses in the kernel's order, without tentative ones (RFC 4862 section 5.4).
    pub addresses: Vec<IpAddr>,
    /// The driver of the card, or the kind of a virtual interface.
    pub driver: Option<String>,
    /// The number of receive queues.
    pub queues: u32,
    /// The ID of the XDP program that runs on the interface.
    pub program: Option<u32>,
}

/// The AF_XDP features of an interface's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverFeatures {
    /// True if the driver runs programs itself and redirects frames to sockets.
    pub native: bool,
    /// True if sockets and card can share memory.
    pub zero_copy: bool,
}

/// The next hop to a host in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNextHop {
    /// The index of the outgoing interface.
    pub interface: u32,
    /// The address of the host itself or of a router.
    pub address: IpAddr,
    /// The default source address on this route.
    pub source: IpAddr,
    /// The Ethernet address of the next hop; `None` until an ordinary datagram makes the kernel resolve it.
    pub mac: Option<[u8; 6]>,
}

/// Returns the facts about the interface of that name, or `None` if it does not exist.
pub fn interface(name: &str) -> io::Result<Option<InterfaceFacts>> {
    let mut requests = Requests::open()?;
    let Some(link) = find_link(&mut requests, name)? else { return Ok(None) };
    let all = requests.ask_all(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut facts = facts_of(&link);
    facts.addresses = all.iter().filter_map(|message| usable_address(message, facts.index)).collect();
    if let Some(folder) = sysfs_folder(name, &facts) {
        facts.driver = card_driver(&folder).or(facts.driver);
        facts.queues = receive_queues(&folder).unwrap_or(facts.queues);
    } else if let Some(queues) = queues_by_ethtool(facts.index) {
        facts.queues = queues;
    }
    Ok(Some(facts))
}

/// Returns the names of all interfaces, sorted.
pub fn interface_names() -> io::Result<Vec<String>> {
    let mut question = LinkMessage::default();
    question.attributes.push(without_statistics());
    let all = Requests::open()?.ask_all(RouteNetlinkMessage::GetLink(question))?;
    let links = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
        _ => None,
    });
    let names = links.flatten().filter_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// Returns the features of an interface's driver; `None` before Linux 6.3.
pub fn driver_features(interface: u32) -> Option<DriverFeatures> {
    let features = NicIndex::new(interface).query_capabilities().ok()?.xdp_features;
    Some(DriverFeatures { native: features.basic() && features.redirect(), zero_copy: features.zero_copy() })
}

/// Returns the next hop to a host, or `None` if it is unreachable, local, or behind a tunnel.
pub fn next_hop(to: IpAddr) -> io::Result<Option<KernelNextHop>> {
    let mut requests = Requests::open()?;
    let Some(mut hop) = ask_route(&mut requests, to)?.and_then(|route| hop_of(&route, to)) else { return Ok(None) };
    hop.mac = find_neighbor(&mut requests, hop.interface, hop.address)?;
    Ok(Some(hop))
}

/// The route to the source of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By the interface with this index.
    By(u32),
    /// A local or multicast address, from which no query can come (RFC 1122 section 3.2.1.3).
    Ours,
    /// The kernel has no route.
    Nowhere,
}

/// Requests the route to a source.
pub fn reach(requests: &mut Requests, source: IpAddr) -> io::Result<Reach> {
    Ok(ask_route(requests, source)?.map_or(Reach::Nowhere, |route| reach_of(&route)))
}

fn reach_of(route: &RouteMessage) -> Reach {
    let interface = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    };
    match route.header.kind {
        RouteType::Unicast => route.attributes.iter().find_map(interface).map_or(Reach::Nowhere, Reach::By),
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => Reach::Ours,
        _ => Reach::Nowhere,
    }
}

/// Subscribes to changes of interfaces, addresses, routes, rules and neighbors, in the network namespace of
/// this thread.
pub fn open_changes() -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::NONBLOCK)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Drains the events of a subscription and returns true if there were any. A lost event counts as a change.
pub fn drain_changes(changes: impl AsFd) -> bool {
    let mut has_changed = false;
    for _ in 0..MAX_EVENTS {
        // One byte is enough: the kernel drops the rest of a longer message.
        match recv(&changes, &mut [0_u8; 1][..], RecvFlags::empty()) {
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            // ENOBUFS: events were lost. After any other error, assume a change.
            Ok(_) | Err(_) => has_changed = true,
        }
    }
    has_changed
}

fn is_no_route(error: &io::Error) -> bool {
    // EINVAL and EACCES come from routes of the types blackhole and prohibit.
    let no_route = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
    no_route.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn ask_route(requests: &mut Requests, to: IpAddr) -> io::Result<Option<RouteMessage>> {
    let mut question = RouteMessage::default();
    let (family, bits) = if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question.attributes.push(RouteAttribute::Destination(to.into()));
    match requests.ask(RouteNetlinkMessage::GetRoute(question)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(Some(route)),
        Ok(_) => Ok(None),
        Err(error) if is_no_route(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn hop_of(route: &RouteMessage, to: IpAddr) -> Option<KernelNextHop> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut interface, mut address, mut source) = (None, to, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(gateway) => address = ip_of(gateway)?,
            // An IPv4 route by a router with an IPv6 address (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet(router)) => address = (*router).into(),
            RouteAttribute::Via(RouteVia::Inet6(router)) => address = (*router).into(),
            RouteAttribute::PrefSource(preferred) => source = ip_of(preferred),
            RouteAttribute::Via(_) | RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(KernelNextHop { interface: interface?, address, source: source?, mac: None })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn find_neighbor(requests: &mut Requests, interface: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let mut question = NeighbourMessage::default();
    question.header.ifindex = interface;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    question.header.family = family;
    question.attributes.push(NeighbourAttribute::Destination(destination));
    match requests.ask(RouteNetlinkMessage::GetNeighbour(question)) {
        Ok(Some(RouteNetlinkMessage::NewNeighbour(neighbor))) => Ok(mac_of(&neighbor)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn mac_of(neighbor: &NeighbourMessage) -> Option<[u8; 6]> {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    if !matches!(neighbor.header.state, Reachable | Permanent | Noarp | Stale | Delay | Probe) {
        return None;
    }
    neighbor.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => octets[..].try_into().ok(),
        _ => None,
    })
}

fn find_link(requests: &mut Requests, name: &str) -> io::Result<Option<LinkMessage>> {
    let mut question = LinkMessage::default();
    question.attributes = vec![LinkAttribute::IfName(name.to_owned()), without_statistics()];
    match requests.ask(RouteNetlinkMessage::GetLink(question)) {
        Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link)),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

fn facts_of(link: &LinkMessage) -> InterfaceFacts {
    let flags = link.header.flags;
    let mut facts = InterfaceFacts {
        index: link.header.index,
        is_ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        mac: [0; 6],
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        addresses: Vec::new(),
        driver: None,
        queues: 1,
        program: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(octets) => facts.mac = octets[..].try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::NumRxQueues(queues) => facts.queues = *queues,
            LinkAttribute::LinkInfo(infos) => {
                let kind =
                    |info: &LinkInfo| if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None };
                facts.driver = infos.iter().find_map(kind);
            }
            LinkAttribute::Xdp(attributes) => {
                let program = |xdp: &LinkXdp| if let LinkXdp::ProgId(program) = xdp { Some(*program) } else { None };
                facts.program = attributes.iter().find_map(program);
            }
            _ => {}
        }
    }
    facts
}

fn usable_address(message: &RouteNetlinkMessage, interface: u32) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != interface {
        return None;
    }
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::Address(ip) => address = Some(*ip),
            // On a point-to-point link, the other attribute is the peer's address.
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    let is_tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    let is_usable = !is_tentative && !flags.contains(AddressFlags::Dadfailed);
    local.or(address).filter(|ip| is_usable && *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// None if /sys shows another network namespace, with an interface of the same name.
fn sysfs_folder(name: &str, facts: &InterfaceFacts) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let mac = facts.mac.map(|octet| format!("{octet:02x}")).join(":");
    let is_same =
        read("ifindex")?.trim() == facts.index.to_string() && (!facts.is_ethernet || read("address")?.trim() == mac);
    is_same.then_some(folder)
}

fn card_driver(folder: &Path) -> Option<String> {
    let driver = fs::read_link(folder.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// Active receive queues; rtnetlink only reports the maximum.
fn receive_queues(folder: &Path) -> Option<u32> {
    let entries = fs::read_dir(folder.join("queues")).ok()?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let count = names.filter(|name| name.to_string_lossy().starts_with("rx-")).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

/// None for cards with combined queues, which the crate does not report.
fn queues_by_ethtool(interface: u32) -> Option<u32> {
    let queues = NicIndex::new(interface).queue_counts().ok()?;
    Some(queues.rx_count()).filter(|count| *count > 0)
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = rustix::net::AddressFamily::NETLINK;
    Ok(socket_with(family, SocketType::RAW, flags | SocketFlags::CLOEXEC, None)?)
}

/// A netlink socket for requests, one at a time.
#[derive(Debug)]
pub struct Requests {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket(SocketFlags::empty())?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; MAX_MESSAGES] })
    }

    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(question, 0)?;
        Ok(self.receive()?.messages.pop())
    }

    fn ask_all(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answer = NetlinkAnswer::default();
        for _ in 0..MAX_TRIES {
            self.send(question.clone(), NLM_F_DUMP)?;
            answer = self.receive()?;
            if !answer.is_interrupted {
                break;
            }
        }
        Ok(answer.messages)
    }

    fn send(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        send(&self.socket, &octets, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<NetlinkAnswer> {
        let mut answer = NetlinkAnswer::default();
        loop {
            let (_, len) = match recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let octets = self.buffer.get(..len).ok_or_else(|| invalid("longer than any message of the kernel"))?;
            if answer.read(octets, self.sequence)? {
                return Ok(answer);
            }
        }
    }
}

#[derive(Debug, Default)]
struct NetlinkAnswer {
    messages: Vec<RouteNetlinkMessage>,
    is_interrupted: bool,
}

impl NetlinkAnswer {
    fn read(&mut self, mut octets: &[u8], sequence: u32) -> io::Result<bool> {
        while !octets.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(octets).map_err(|e| invalid(&e.to_string()))?;
            // Messages are aligned to 4 bytes (NLMSG_ALIGN).
            let len = (message.header.length as usize).next_multiple_of(4);
            octets = octets.get(len..).unwrap_or_default();
            if message.header.sequence_number != sequence {
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => {
                    self.messages.push(inner);
                    if message.header.flags & NLM_F_MULTIPART == 0 {
                        return Ok(true);
                    }
                }
                NetlinkPayload::Error(error) => match error.code {
                    Some(code) => return Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                    None => return Ok(true),
                },
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("netlink: {why}"))
}

const TIMEOUT: Duration = Duration::from_secs(1);

/// The kernel sends 32 KiB at most.
const MAX_MESSAGES: usize = 64 << 10;

/// The last dump is used even if interrupted: [`open_changes`] reports the rest.
const MAX_TRIES: usize = 4;

/// More events than the usual socket buffer holds.
const MAX_EVENTS: usize = 1024;

const GROUPS: u32 = bit(libc::RTNLGRP_LINK)
    | bit(libc::RTNLGRP_NEIGH)
    | bit(libc::RTNLGRP_IPV4_IFADDR)
    | bit(libc::RTNLGRP_IPV4_ROUTE)
    | bit(libc::RTNLGRP_IPV4_RULE)
    | bit(libc::RTNLGRP_IPV6_IFADDR)
    | bit(libc::RTNLGRP_IPV6_ROUTE)
    | bit(libc::RTNLGRP_IPV6_RULE)
    | bit(libc::RTNLGRP_NEXTHOP);

/// Groups count from 1.
const fn bit(group: u32) -> u32 {
    1 << (group - 1)
}

#[cfg(test)]
mod tests;
