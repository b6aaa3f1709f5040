//! What the kernel knows of interfaces, routes and neighbors, by rtnetlink: where datagrams come in, and which way they would leave by a socket.
//!
//! Each question is one request and its answer, which the kernel gives at once: whoever asks waits for no other host and no task. [`Changes`] tells
//! when answers may be other ones; then all that matters is asked again. Nothing here changes what the kernel has.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use xdp::nic::NicIndex;

/// What there is to know of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its number, which no other gets as long as the system runs.
    pub index: u32,
    /// Whether its frames are those of Ethernet, between hosts: the loopback device is none.
    pub is_ethernet: bool,
    /// Its Ethernet address; zeros where it has none.
    pub mac: [u8; 6],
    /// The longest IP datagram that it takes, octets.
    pub mtu: u32,
    /// Whether it is set up and has a carrier.
    pub is_up: bool,
    /// Its addresses in the kernel's order, but for those that may not be used yet (RFC 4862 section 5.4).
    pub addresses: Vec<IpAddr>,
    /// The driver of its card; of a virtual one, the kind.
    pub driver: Option<String>,
    /// How many queues receive.
    pub queues: u32,
    /// The number of the XDP program that runs on it, whoever has attached that.
    pub program: Option<u32>,
}

/// What the driver of an interface can do for AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverFeatures {
    /// Whether it runs programs itself, and hands frames on to sockets.
    pub native: bool,
    /// Whether sockets and card can share memory.
    pub zero_copy: bool,
}

/// The way to a host, as the kernel has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface by which it leaves.
    pub interface: u32,
    /// Who takes it there: the host itself, or a router.
    pub address: IpAddr,
    /// The address of ours that it leaves with, if a socket has no other.
    pub source: IpAddr,
    /// The Ethernet address of who takes it; none: not resolved, which a datagram by a socket has the kernel do.
    pub mac: Option<[u8; 6]>,
    /// Whether nobody has confirmed that address for a while. It is right as a rule; a datagram by a socket has the kernel look after it,
    /// while frames of ours do not.
    pub is_stale: bool,
    /// The longest IP datagram on this way, octets.
    pub mtu: u32,
}

/// What there is to know of the interface of that name; none: there is no such interface.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn interface(name: &str) -> io::Result<Option<InterfaceFacts>> {
    let mut requests = Requests::open()?;
    let Some(link) = find_link(&mut requests, LinkAttribute::IfName(name.to_owned()))? else { return Ok(None) };
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

/// The names of all interfaces, sorted.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn interface_names() -> io::Result<Vec<String>> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let all = Requests::open()?.ask_all(RouteNetlinkMessage::GetLink(question))?;
    let name = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    };
    let mut names: Vec<_> = all
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => link.attributes.iter().find_map(name),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// What the driver of the interface of this number can do; none: this kernel does not tell (Linux before 6.3).
pub fn driver_features(interface: u32) -> Option<DriverFeatures> {
    let features = NicIndex::new(interface).query_capabilities().ok()?.xdp_features;
    Some(DriverFeatures { native: features.basic() && features.redirect(), zero_copy: features.zero_copy() })
}

/// The way to a host; none: there is none that a frame could go, since the host is unreachable or this one, or behind a tunnel.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn next_hop(to: IpAddr) -> io::Result<Option<NextHop>> {
    let mut requests = Requests::open()?;
    let Some(way) = find_way(&mut requests, to)? else { return Ok(None) };
    let Some(link) = find_link_by_index(&mut requests, way.interface)? else { return Ok(None) };
    let neighbor = find_neighbor(&mut requests, way.interface, way.address)?;
    let link_mtu = facts_of(&link).mtu;
    Ok(Some(NextHop {
        interface: way.interface,
        address: way.address,
        source: way.source,
        mac: neighbor.map(|neighbor| neighbor.mac),
        is_stale: neighbor.is_some_and(|neighbor| neighbor.is_stale),
        mtu: way.mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu)),
    }))
}

/// The way to the source of a query, as the kernel has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Datagrams to it leave by the interface of this number.
    By(u32),
    /// The address is one of this host, or of a group: no query comes from there (RFC 1122 section 3.2.1.3).
    Ours,
    /// The kernel has no route to it.
    Nowhere,
}

/// Asks by which way a datagram to a source leaves.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn reach(requests: &mut Requests, source: IpAddr) -> io::Result<Reach> {
    Ok(ask_route(requests, source)?.map_or(Reach::Nowhere, |route| reach_of(&route)))
}

/// The reach that a route gives.
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

/// Tells that interfaces, addresses, routes, rules or neighbors have changed: a descriptor that is readable then, and a method that drains it.
#[derive(Debug)]
pub struct Changes {
    socket: OwnedFd,
}

impl Changes {
    /// Begins to watch the network namespace of this thread.
    ///
    /// # Errors
    /// If there is no descriptor, or no netlink.
    pub fn open() -> io::Result<Self> {
        let socket = socket(SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket })
    }

    /// Takes what there is to be told, and says whether that was anything. What was lost for want of room is a change, too.
    ///
    /// Bounded: what may be left after that is older than what is asked once this returns, and tells nothing new.
    pub fn drain(&self) -> bool {
        let mut has_changed = false;
        for _ in 0..MAX_EVENTS {
            // Of what has changed one octet is enough: the kernel drops the rest of a message that is longer.
            match recv(&self.socket, &mut [0_u8; 1][..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // ENOBUFS: events were lost. Any other error is no reason to believe that nothing has changed.
                Ok(_) | Err(_) => has_changed = true,
            }
        }
        has_changed
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an error is one by which the kernel says that there is no such route.
fn is_no_route(error: &io::Error) -> bool {
    // EINVAL and EACCES are what routes of the types blackhole and prohibit come to.
    let no_route = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
    no_route.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A route as it was found for one host.
struct Way {
    interface: u32,
    address: IpAddr,
    source: IpAddr,
    /// That of the route, if it has one, or of the path.
    mtu: Option<u32>,
}

/// Asks by which way a datagram to a host leaves.
fn find_way(requests: &mut Requests, to: IpAddr) -> io::Result<Option<Way>> {
    Ok(ask_route(requests, to)?.and_then(|route| way_of(&route, to)))
}

/// Asks for the route to a host.
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

/// What a route to a host comes to, if frames can go that way.
fn way_of(route: &RouteMessage, to: IpAddr) -> Option<Way> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut interface, mut address, mut source, mut mtu) = (None, to, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(gateway) => address = ip_of(gateway)?,
            // An IPv4 route by a router with an IPv6 address (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet(router)) => address = (*router).into(),
            RouteAttribute::Via(RouteVia::Inet6(router)) => address = (*router).into(),
            RouteAttribute::Via(_) => return None,
            RouteAttribute::PrefSource(preferred) => source = ip_of(preferred),
            RouteAttribute::Metrics(metrics) => {
                let of_route =
                    |metric: &RouteMetric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None };
                mtu = metrics.iter().find_map(of_route);
            }
            // Labels or headers of a tunnel come before the datagram.
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(Way { interface: interface?, address, source: source?, mtu: mtu.filter(|mtu| *mtu > 0) })
}

/// The address that a route names.
fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Who takes frames.
#[derive(Clone, Copy)]
struct Neighbor {
    mac: [u8; 6],
    is_stale: bool,
}

/// Asks for the Ethernet address of somebody on the link.
fn find_neighbor(requests: &mut Requests, interface: u32, address: IpAddr) -> io::Result<Option<Neighbor>> {
    let mut question = NeighbourMessage::default();
    question.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.ifindex = interface;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    question.attributes.push(NeighbourAttribute::Destination(destination));
    match requests.ask(RouteNetlinkMessage::GetNeighbour(question)) {
        Ok(Some(RouteNetlinkMessage::NewNeighbour(neighbor))) => Ok(neighbor_of(&neighbor)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The Ethernet address of a neighbor, if it is resolved (`NUD_VALID` of the kernel).
fn neighbor_of(neighbor: &NeighbourMessage) -> Option<Neighbor> {
    let is_stale = match neighbor.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => false,
        // In the latter two the kernel is about to ask.
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => true,
        _ => return None,
    };
    let mac = neighbor.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => <[u8; 6]>::try_from(&octets[..]).ok(),
        _ => None,
    });
    Some(Neighbor { mac: mac?, is_stale })
}

/// Asks for a link by its name.
fn find_link(requests: &mut Requests, name: LinkAttribute) -> io::Result<Option<LinkMessage>> {
    let mut question = LinkMessage::default();
    question.attributes.push(name);
    ask_link(requests, question)
}

/// Asks for a link by its number.
fn find_link_by_index(requests: &mut Requests, index: u32) -> io::Result<Option<LinkMessage>> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    ask_link(requests, question)
}

/// Asks for a link.
fn ask_link(requests: &mut Requests, mut question: LinkMessage) -> io::Result<Option<LinkMessage>> {
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match requests.ask(RouteNetlinkMessage::GetLink(question)) {
        Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link)),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a link says of itself: no addresses, no driver of a card, and the queues that it has room for.
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

/// The address that a message tells of, if it is one of this interface that may be used.
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
            // Of a point-to-point link, the other one is that of the peer.
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    let is_tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    let is_usable = !is_tentative && !flags.contains(AddressFlags::Dadfailed);
    local.or(address).filter(|ip| is_usable && *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The folder of an interface below /sys, which may show another network namespace than that of this process, with interfaces of the same names.
fn sysfs_folder(name: &str, facts: &InterfaceFacts) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let mac = facts.mac.map(|octet| format!("{octet:02x}")).join(":");
    let is_same =
        read("ifindex")?.trim() == facts.index.to_string() && (!facts.is_ethernet || read("address")?.trim() == mac);
    is_same.then_some(folder)
}

/// The driver of the card behind an interface.
fn card_driver(folder: &Path) -> Option<String> {
    let driver = fs::read_link(folder.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// How many queues receive: rtnetlink tells only how many there is room for.
fn receive_queues(folder: &Path) -> Option<u32> {
    let entries = fs::read_dir(folder.join("queues")).ok()?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let count = names.filter(|name| name.to_string_lossy().starts_with("rx-")).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

/// The same, by the call `ethtool`; none for cards whose queues both receive and send, which the crate does not tell.
fn queues_by_ethtool(interface: u32) -> Option<u32> {
    let queues = NicIndex::new(interface).queue_counts().ok()?;
    Some(queues.rx_count()).filter(|count| *count > 0)
}

/// A socket for rtnetlink, which is protocol 0 of netlink.
fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = rustix::net::AddressFamily::NETLINK;
    Ok(socket_with(family, SocketType::RAW, flags | SocketFlags::CLOEXEC, None)?)
}

/// Questions to the kernel, one after another.
#[derive(Debug)]
pub struct Requests {
    socket: OwnedFd,
    /// The number of the last question.
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens a socket for them.
    ///
    /// # Errors
    /// If there is no descriptor, or no netlink.
    pub fn open() -> io::Result<Self> {
        let socket = socket(SocketFlags::empty())?;
        // The kernel has answered when a question is sent. This is for one that does not.
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; MAX_MESSAGES] })
    }

    /// Asks for one thing.
    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(question, 0)?;
        Ok(self.receive()?.messages.pop())
    }

    /// Asks for all things of a kind. If these change meanwhile, the kernel says so, and is asked anew.
    fn ask_all(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answer = Answer::default();
        for _ in 0..MAX_TRIES {
            self.send(question.clone(), NLM_F_DUMP)?;
            answer = self.receive()?;
            if !answer.is_interrupted {
                break;
            }
        }
        Ok(answer.messages)
    }

    /// Sends a question.
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

    /// Receives the answer to the last question whole.
    fn receive(&mut self) -> io::Result<Answer> {
        let mut answer = Answer::default();
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

/// What was received as an answer.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// Whether what it tells of has changed meanwhile.
    is_interrupted: bool,
}

impl Answer {
    /// Reads messages that have come by one call; `true` once the answer to the question of this number is whole.
    fn read(&mut self, mut octets: &[u8], sequence: u32) -> io::Result<bool> {
        while !octets.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(octets).map_err(|e| invalid(&e.to_string()))?;
            // Each begins at a multiple of four octets (NLMSG_ALIGN).
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

/// An answer that is none.
fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("netlink: {why}"))
}

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that come by one call, octets: the kernel makes them of 32 KiB at most.
const MAX_MESSAGES: usize = 64 << 10;

/// How often all of a kind is asked for where it keeps changing. What comes last is taken even so: [`Changes`] tells of the rest.
const MAX_TRIES: usize = 4;

/// Events that are taken at once: more than a socket's usual room holds.
const MAX_EVENTS: usize = 1024;

/// What is watched: links, neighbors, addresses, routes and rules of IPv4 and IPv6, and next hops that routes share.
const GROUPS: u32 = bit(libc::RTNLGRP_LINK)
    | bit(libc::RTNLGRP_NEIGH)
    | bit(libc::RTNLGRP_IPV4_IFADDR)
    | bit(libc::RTNLGRP_IPV4_ROUTE)
    | bit(libc::RTNLGRP_IPV4_RULE)
    | bit(libc::RTNLGRP_IPV6_IFADDR)
    | bit(libc::RTNLGRP_IPV6_ROUTE)
    | bit(libc::RTNLGRP_IPV6_RULE)
    | bit(libc::RTNLGRP_NEXTHOP);

/// The bit of a group, which are numbered from 1.
const fn bit(group: u32) -> u32 {
    1 << (group - 1)
}

#[cfg(test)]
mod tests;
