//! The listening sockets of the process. The control thread owns all of them, and workers read duplicates. So
//! pending datagrams survive the worker, and sockets can be passed from process to process.
//!
//! An address may have more or fewer sockets than workers, because inherited sockets keep their number. All
//! are read: with `s` sockets and `w` workers, for each `k` below the larger of the two worker `k % w` reads
//! socket `k % s`.
//!
//! Entries of `listen` that differ only in the protocol after the TLS handshake, `tls://` and `https://`,
//! share sockets.
//!
//! A reload builds a new value: remaining addresses keep their sockets, even in another section, and new
//! addresses are bound before anything changes.

mod admin;
mod inherited;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};

pub(in crate::server) use self::admin::AdminListeners;
use self::inherited::InheritedSockets;
use super::privileges;
use crate::address::{HttpPath, ListenAddress, ListenUrl, Scheme};
use crate::admin::SocketOwner;
use crate::config::{Config, ListenConfig};
use crate::limit::OwnAddresses;
use crate::net::from_clients::listening::{Endpoint, ListeningSocket};
use crate::net::from_clients::quic::{QuicListener, QuicServer};
use crate::net::from_clients::tcp::Protocols;
use crate::net::from_clients::tls::{CertificateStore, TlsListener, TlsServer};
use crate::net::proxy_protocol::Proxies;
use crate::net::sys::bind::{BindError, Group, Kinds};
use crate::server::StartError;

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Listeners {
    workers: usize,
    sections: Vec<SectionSockets>,
    admin: Option<AdminListeners>,
    leaving: Vec<Weak<ServedAddress>>,
    tls: Arc<TlsServer>,
    quic: Arc<QuicServer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum SectionName {
    Forwarder,
    Authority(String),
}

#[derive(Debug)]
pub(in crate::server) struct SectionSockets {
    pub(in crate::server) name: SectionName,
    pub(in crate::server) addresses: Vec<Arc<ServedAddress>>,
    entries: Vec<ListenEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ListenEntry {
    scheme: Scheme,
    path: HttpPath,
    address: usize,
}

/// An address with its sockets, which close with the last reference.
#[derive(Debug)]
pub(in crate::server) struct ServedAddress {
    pub(in crate::server) number: u16,
    configured: ListenAddress,
    group: Group,
    spoken: Arc<ArcSwap<Protocols>>,
    tls: Option<Arc<TlsListener>>,
    proxies: Arc<Proxies>,
    quic: Option<Arc<QuicListener>>,
    /// True if a service manager keeps the sockets, which then outlive this process.
    is_kept: bool,
}

#[derive(Debug)]
pub(in crate::server) struct AddressSockets {
    /// Held until all responses to its clients are sent.
    pub(in crate::server) address: Arc<ServedAddress>,
    pub(in crate::server) udp: Vec<UdpSocket>,
    pub(in crate::server) tcp: Vec<TcpListener>,
}

/// A configured address cannot be opened.
#[derive(Debug)]
pub struct ListenError {
    key: String,
    source: BindError,
    is_confined: bool,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.source)?;
        if self.is_confined && self.source.is_denied() {
            f.write_str("; this process gave such rights up when it had started: restart it, or have a socket unit pass the port")?;
        }
        Ok(())
    }
}

impl std::error::Error for ListenError {}

impl Listeners {
    /// Opens the listen addresses of a config: takes the inherited sockets, and binds the rest. Also returns
    /// the inherited sockets that the config does not use.
    ///
    /// # Errors
    /// If an address is not available.
    pub fn open(config: &Config, inherited: Vec<ListeningSocket>) -> Result<(Self, Vec<ListeningSocket>), StartError> {
        let (mut listeners, unused) = Self::inherit(config, inherited)?;
        listeners.fill();
        Ok((listeners, unused))
    }

    /// Like [`Self::open`], but binds no further sockets for inherited addresses, because queries that arrive
    /// there would be lost if this process never serves. [`Self::fill`] binds them later.
    ///
    /// # Errors
    /// If an address is not available.
    pub fn inherit(
        config: &Config,
        inherited: Vec<ListeningSocket>,
    ) -> Result<(Self, Vec<ListeningSocket>), StartError> {
        raise_descriptor_limit();
        let (workers, tls, quic) = (worker_count(config), Arc::new(TlsServer::new()?), Arc::new(QuicServer::new()?));
        let nothing = Self { workers, sections: Vec::new(), admin: None, leaving: Vec::new(), tls, quic };
        let mut inherited = InheritedSockets(inherited);
        let owner = privileges::owner(config.user.as_ref());
        let listeners = nothing.open_beside(config, owner, &mut inherited, false)?;
        Ok((listeners, inherited.0))
    }

    /// Binds a socket of each kind for each worker without one, if the owner of the other sockets permits it.
    /// The process must still have the privileges to bind.
    pub fn fill(&mut self) {
        let addresses = self.sections.iter_mut().flat_map(|section| &mut section.addresses);
        // An address that a worker reads already has all its sockets.
        addresses.filter_map(Arc::get_mut).for_each(|address| address.group.fill(self.workers));
    }

    pub(in crate::server) fn reload(&self, config: &Config) -> Result<Self, StartError> {
        self.open_beside(config, SocketOwner::current(), &mut InheritedSockets(Vec::new()), true)
    }

    fn open_beside(
        &self,
        config: &Config,
        owner: SocketOwner,
        inherited: &mut InheritedSockets,
        is_confined: bool,
    ) -> Result<Self, StartError> {
        let admin = match &config.admin {
            Some(admin) => Some(AdminListeners::open(admin, self.admin.as_ref(), owner, inherited, is_confined)?),
            None => None,
        };
        let mut opening =
            Opening { earlier: self, known: self.all().cloned().collect(), opened: Vec::new(), inherited };
        let wanted = wanted(config);
        let owners: Vec<_> = wanted.iter().map(|(_, listen)| owners(listen)).collect();
        // Remaining addresses first, so that the removed ones are known. Addresses that take datagrams from a
        // removed one come last, when hardly anything can fail.
        let mut slots: Vec<Vec<Option<Arc<ServedAddress>>>> = Vec::new();
        for ((name, listen), owners) in wanted.iter().zip(&owners) {
            let kept = listen.iter().zip(owners).enumerate().map(|(place, (at, owner))| {
                let is_owner = *owner == place;
                is_owner.then(|| opening.keep(&socket_name(name.label(), place), at.address)).flatten()
            });
            slots.push(kept.collect());
        }
        for is_beside in [false, true] {
            for (((name, listen), owners), slots) in wanted.iter().zip(&owners).zip(&mut slots) {
                for (place, ((configured, owner), slot)) in listen.iter().zip(owners).zip(slots).enumerate() {
                    let is_due = *owner == place && opening.is_beside(configured.address) == is_beside;
                    if slot.is_none() && is_due {
                        let opened = opening.open(&socket_name(name.label(), place), configured.address);
                        let key = || format!("{}.listen[{place}]", name.key());
                        let opened = opened.map_err(|source| ListenError { key: key(), source, is_confined })?;
                        *slot = Some(opened);
                    }
                }
            }
        }
        let sections = wanted.into_iter().zip(slots).zip(owners);
        let sections: Vec<_> = sections
            .map(|(((name, listen), slots), owners)| SectionSockets::new(name, listen, slots, &owners))
            .collect();
        let is_gone = |address: &&Arc<ServedAddress>| {
            !sections.iter().flat_map(|section| &section.addresses).any(|other| Arc::ptr_eq(address, other))
        };
        let gone = self.all().filter(is_gone).map(Arc::downgrade);
        let leaving = self.leaving.iter().filter(|address| address.strong_count() > 0).cloned().chain(gone).collect();
        let (tls, quic) = (Arc::clone(&self.tls), Arc::clone(&self.quic));
        Ok(Self { workers: self.workers, sections, admin, leaving, tls, quic })
    }

    pub(in crate::server) fn workers(&self) -> usize {
        self.workers
    }

    pub(in crate::server) fn addresses(&self) -> Vec<(String, Vec<ListenAddress>)> {
        let bound = |section: &SectionSockets| section.entries().map(|entry| entry.address).collect();
        let sections = self.sections.iter().map(|section| (section.name.label().to_owned(), bound(section)));
        let admin = self.admin.iter().map(|admin| (ADMIN.to_owned(), vec![ListenAddress::plain(admin.address)]));
        sections.chain(admin).collect()
    }

    pub(in crate::server) fn forwarder(&self) -> Vec<ListenUrl> {
        self.section(&SectionName::Forwarder).map(|section| section.entries().collect()).unwrap_or_default()
    }

    pub(in crate::server) fn certificates(&self) -> &Arc<CertificateStore> {
        self.tls.store()
    }

    /// Applies the protocols, certificates and trusted proxies of a config, which must be the one of these
    /// listeners.
    pub(in crate::server) fn set_rules(&self, config: &Config) {
        for ((_, listen), section) in wanted(config).iter().zip(&self.sections) {
            for (place, address) in section.addresses.iter().enumerate() {
                let entries = || listen.iter().zip(&section.entries).filter(|(_, entry)| entry.address == place);
                let http = entries().find(|(_, entry)| entry.scheme.is_http()).map(|(_, entry)| entry.path.clone());
                let protocols = Protocols { is_dns: entries().any(|(_, entry)| !entry.scheme.is_http()), http };
                if let Some(tls) = &address.tls {
                    // Entries that share an address present the same certificate.
                    let certificate = entries().find_map(|(configured, _)| configured.certificate.as_deref());
                    tls.show_only(certificate);
                    if address.quic.is_none() {
                        tls.speak(protocols.alpn());
                    }
                }
                // The protocol is known only after the PROXY header, so entries that share an address share
                // their proxies.
                let proxies: Vec<_> = entries().flat_map(|(configured, _)| configured.proxy_from.clone()).collect();
                address.proxies.set(&proxies, OwnAddresses::new(self.for_queries()));
                address.spoken.store(protocols.into());
            }
        }
    }

    pub(in crate::server) fn for_queries(&self) -> impl Iterator<Item = SocketAddr> {
        self.sections.iter().flat_map(SectionSockets::served).map(|address| address.socket)
    }

    pub(in crate::server) fn descriptors(&self) -> usize {
        let of_group = |group: &Group| {
            let read = |sockets: usize| if sockets == 0 { 0 } else { sockets + sockets.max(self.workers) };
            read(group.udp.len()) + read(group.tcp.len())
        };
        self.all().map(|address| of_group(&address.group)).sum()
    }

    pub(in crate::server) fn sections(&self) -> &[SectionSockets] {
        &self.sections
    }

    pub(in crate::server) fn section(&self, name: &SectionName) -> Option<&SectionSockets> {
        self.sections.iter().find(|section| section.name == *name)
    }

    pub(in crate::server) fn all(&self) -> impl Iterator<Item = &Arc<ServedAddress>> {
        self.sections.iter().flat_map(|section| &section.addresses)
    }

    pub(in crate::server) fn is_same(&self, other: &Self) -> bool {
        let is_same_section = |(one, other): (&SectionSockets, &SectionSockets)| {
            let mut addresses = one.addresses.iter().zip(&other.addresses);
            one.name == other.name
                && one.entries == other.entries
                && one.addresses.len() == other.addresses.len()
                && addresses.all(|(one, other)| Arc::ptr_eq(one, other))
        };
        let is_same_admin = match (&self.admin, &other.admin) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_same_admin
            && self.sections.len() == other.sections.len()
            && self.sections.iter().zip(&other.sections).all(is_same_section)
    }

    pub(in crate::server) fn has(&self, address: &Arc<ServedAddress>) -> bool {
        self.all().any(|other| Arc::ptr_eq(address, other))
    }

    pub(in crate::server) fn admin(&self) -> Option<&AdminListeners> {
        self.admin.as_ref()
    }

    pub(in crate::server) fn leave(&self) {
        if let Some(socket) = self.admin.as_ref().and_then(|admin| admin.socket.as_ref()) {
            socket.leave();
        }
    }

    /// Returns the path of the admin socket, which accepts changes without a token.
    pub fn admin_socket(&self) -> Option<&Path> {
        self.admin.as_ref().and_then(|admin| admin.socket.as_ref()).map(|socket| socket.path())
    }

    /// Duplicates all sockets, to pass them to other processes.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn to_pass(&self) -> io::Result<Vec<ListeningSocket>> {
        let mut sockets = Vec::new();
        let mut add = |name: &str, is_kept: bool, endpoint: Endpoint, fd: OwnedFd| {
            sockets.push(ListeningSocket::new(name.to_owned(), is_kept, endpoint, fd));
        };
        for section in &self.sections {
            for (place, address) in section.addresses.iter().enumerate() {
                let (name, ServedAddress { group, is_kept, .. }) = (section.socket_name(place), &**address);
                for socket in &group.udp {
                    add(&name, *is_kept, Endpoint::Udp(group.address), socket.try_clone()?.into());
                }
                for listener in &group.tcp {
                    add(&name, *is_kept, Endpoint::Tcp(group.address), listener.try_clone()?.into());
                }
            }
        }
        if let Some(AdminListeners { address, tcp, socket, .. }) = &self.admin {
            let name = socket_name(ADMIN, 0);
            add(&name, false, Endpoint::Tcp(*address), tcp.try_clone()?.into());
            if let Some(socket) = socket {
                add(&name, false, Endpoint::Unix(socket.path().to_owned()), socket.listener()?.into());
            }
        }
        Ok(sockets)
    }
}

impl SectionName {
    fn label(&self) -> &str {
        match self {
            Self::Forwarder => FORWARDER,
            Self::Authority(name) => name,
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Forwarder => FORWARDER.to_owned(),
            Self::Authority(name) => format!("authorities.{name}"),
        }
    }
}

impl SectionSockets {
    fn new(
        name: SectionName,
        listen: &[ListenConfig],
        slots: Vec<Option<Arc<ServedAddress>>>,
        owners: &[usize],
    ) -> Self {
        let mut addresses = Vec::new();
        // The index into `addresses`, for each entry that owns its address.
        let mut places = Vec::new();
        for slot in slots {
            places.push(addresses.len());
            addresses.extend(slot);
        }
        let entries = listen.iter().zip(owners).map(|(configured, owner)| {
            let address = places.get(*owner).copied().unwrap_or_default();
            ListenEntry { scheme: configured.address.scheme, path: configured.path.clone(), address }
        });
        let entries = entries.collect();
        Self { name, addresses, entries }
    }

    fn entries(&self) -> impl Iterator<Item = ListenUrl> {
        self.entries.iter().filter_map(|ListenEntry { scheme, path, address }| {
            let address = ListenAddress { scheme: *scheme, socket: self.addresses.get(*address)?.bound() };
            Some(ListenUrl { address, path: path.clone() })
        })
    }

    fn socket_name(&self, address: usize) -> String {
        let place = self.entries.iter().position(|entry| entry.address == address).unwrap_or(address);
        socket_name(self.name.label(), place)
    }

    pub(in crate::server) fn served(&self) -> impl Iterator<Item = ListenAddress> {
        self.addresses.iter().map(|address| address.listens_at())
    }
}

impl ServedAddress {
    pub(in crate::server) fn bound(&self) -> SocketAddr {
        self.group.address
    }

    /// Returns the identity of the address, independent of the protocols spoken there.
    pub(in crate::server) fn listens_at(&self) -> ListenAddress {
        identity(ListenAddress { socket: self.bound(), ..self.configured })
    }

    pub(in crate::server) fn spoken(&self) -> &Arc<ArcSwap<Protocols>> {
        &self.spoken
    }

    pub(in crate::server) fn tls(&self) -> Option<&Arc<TlsListener>> {
        self.tls.as_ref()
    }

    pub(in crate::server) fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    pub(in crate::server) fn quic(&self) -> Option<&Arc<QuicListener>> {
        self.quic.as_ref()
    }

    pub(in crate::server) fn takes_datagrams(&self) -> bool {
        self.quic.is_none() && !self.group.udp.is_empty()
    }

    pub(in crate::server) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Stops the arrival of new datagrams ([`Group::divert`]), unless the sockets outlive this process.
    pub(in crate::server) fn divert(&self) {
        if !self.is_kept {
            self.group.divert();
        }
    }

    pub(in crate::server) fn of_worker(self: &Arc<Self>, worker: usize, workers: usize) -> io::Result<AddressSockets> {
        let udp = dealt(&self.group.udp, worker, workers).map(UdpSocket::try_clone);
        let tcp = dealt(&self.group.tcp, worker, workers).map(TcpListener::try_clone);
        Ok(AddressSockets {
            address: Arc::clone(self),
            udp: udp.collect::<io::Result<_>>()?,
            tcp: tcp.collect::<io::Result<_>>()?,
        })
    }
}

struct Opening<'a> {
    earlier: &'a Listeners,
    /// Open addresses that no entry has claimed: they are removed.
    known: Vec<Arc<ServedAddress>>,
    opened: Vec<Arc<ServedAddress>>,
    inherited: &'a mut InheritedSockets,
}

impl Opening<'_> {
    /// Keeps an open address. With port 0, the name identifies it.
    fn keep(&mut self, name: &str, configured: ListenAddress) -> Option<Arc<ServedAddress>> {
        let is_same = |address: &Arc<ServedAddress>| match configured.socket.port() {
            0 => address.configured == configured && self.earlier.name_of(address).is_some_and(|known| known == name),
            _ => address.listens_at() == identity(configured),
        };
        let place = self.known.iter().position(is_same)?;
        Some(self.known.swap_remove(place))
    }

    /// Returns true if an address can only be bound beside our own sockets that are all to be removed.
    fn is_beside(&self, configured: ListenAddress) -> bool {
        let leaving = self.earlier.leaving.iter().filter_map(Weak::upgrade);
        configured.socket.port() != 0
            && self.known.iter().cloned().chain(leaving).any(|address| shares(address.listens_at(), configured))
    }

    fn open(&mut self, name: &str, listen: ListenAddress) -> Result<Arc<ServedAddress>, BindError> {
        let (workers, configured) = (self.earlier.workers, listen.socket);
        let kinds = kinds_of(listen.scheme);
        let (udp, tcp, is_kept, bound) = self.inherited.take_group(name, configured, kinds);
        let stays = |address: &&Arc<ServedAddress>| !self.known.iter().any(|known| Arc::ptr_eq(known, address));
        let is_taken =
            self.earlier.all().filter(stays).chain(&self.opened).any(|address| shares(address.listens_at(), listen));
        let group = match (udp.is_empty() && tcp.is_empty(), self.is_beside(listen) && !is_taken) {
            (false, _) => Group::complete(bound, kinds, udp, tcp)?,
            (true, true) => Group::bind_beside(configured, kinds, workers)?,
            (true, false) => Group::bind(configured, kinds, workers)?,
        };
        let tls = match listen.scheme {
            Scheme::Plain | Scheme::Tcp | Scheme::Http => None,
            Scheme::Tls | Scheme::Https => Some(Arc::new(self.earlier.tls.listener())),
            Scheme::Quic => Some(Arc::new(self.earlier.tls.quic_listener())),
        };
        let tls_of_quic = tls.as_ref().filter(|_| listen.scheme == Scheme::Quic);
        let quic = tls_of_quic.map(|tls| Arc::new(QuicListener::new(&self.earlier.quic, tls, workers)));
        let address = Arc::new(ServedAddress {
            number: self.free_number(),
            configured: listen,
            group,
            spoken: Arc::default(),
            tls,
            proxies: Arc::default(),
            quic,
            is_kept,
        });
        self.opened.push(Arc::clone(&address));
        Ok(address)
    }

    fn free_number(&self) -> u16 {
        let leaving: Vec<_> = self.earlier.leaving.iter().filter_map(Weak::upgrade).collect();
        let is_free =
            |number: &u16| !self.earlier.all().chain(&self.opened).chain(&leaving).any(|other| other.number == *number);
        (0..=u16::MAX).find(is_free).expect("there are fewer listeners than ports")
    }
}

impl Listeners {
    fn name_of(&self, address: &Arc<ServedAddress>) -> Option<String> {
        self.sections.iter().find_map(|section| {
            let place = section.addresses.iter().position(|other| Arc::ptr_eq(other, address))?;
            Some(section.socket_name(place))
        })
    }
}

/// Returns for each entry of `listen` the first entry with the same sockets.
fn owners(listen: &[ListenConfig]) -> Vec<usize> {
    let shares = |one: &ListenConfig, other: &ListenConfig| {
        one.address.socket.port() != 0 && identity(one.address) == identity(other.address)
    };
    let first = |(place, one)| listen.iter().position(|other| shares(one, other)).unwrap_or(place);
    listen.iter().enumerate().map(first).collect()
}

/// Returns the address of the sockets: `tls` and `https` differ only after the handshake.
fn identity(address: ListenAddress) -> ListenAddress {
    let scheme = if address.scheme == Scheme::Https { Scheme::Tls } else { address.scheme };
    ListenAddress { scheme, ..address }
}

fn wanted(config: &Config) -> Vec<(SectionName, &[ListenConfig])> {
    let forwarder = config.forwarder.iter().map(|forwarder| (SectionName::Forwarder, &*forwarder.listen));
    let authorities = config.authorities.iter();
    let authorities = authorities.map(|authority| (SectionName::Authority(authority.name.clone()), &*authority.listen));
    forwarder.chain(authorities).collect()
}

fn kinds_of(scheme: Scheme) -> Kinds {
    match scheme {
        Scheme::Plain => Kinds::Both,
        Scheme::Tcp | Scheme::Tls | Scheme::Https | Scheme::Http => Kinds::Stream,
        Scheme::Quic => Kinds::Datagram,
    }
}

/// Returns true if a datagram could match both addresses. TCP and UDP ports are separate.
fn shares(one: ListenAddress, other: ListenAddress) -> bool {
    let (kinds, others) = (kinds_of(one.scheme), kinds_of(other.scheme));
    let has_both = kinds.has_datagrams() && others.has_datagrams() || kinds.has_streams() && others.has_streams();
    has_both && meets(one.socket, other.socket)
}

fn meets(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_any || one.ip() == other.ip())
}

fn dealt<S>(sockets: &[S], worker: usize, workers: usize) -> impl Iterator<Item = &S> {
    // An address lacks some kinds of sockets.
    let turns = if sockets.is_empty() { 0 } else { sockets.len().max(workers) };
    (worker..turns).step_by(workers.max(1)).filter_map(|turn| sockets.get(turn % sockets.len()))
}

fn socket_name(section: &str, place: usize) -> String {
    format!("{section}.{place}")
}

pub(in crate::server) fn worker_count(config: &Config) -> usize {
    config.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Raises the soft limit of open descriptors to the hard limit.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

const FORWARDER: &str = "forwarder";

const ADMIN: &str = "admin";
