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

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::{ptr, thread};

use arc_swap::ArcSwap;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

pub(in crate::control) use self::admin::AdminListeners;
use config::{Config, ListenConfig};
use dns::address::{HttpPath, ListenAddress, ListenUrl, Scheme};
use engine::state::BoundListener;
use limit::OwnAddresses;
use net::from_clients::listening::{Endpoint, ListeningSocket};
use net::from_clients::quic::{QuicListener, QuicServer};
use net::from_clients::tcp::Protocols;
use net::from_clients::tls::{CertificateStore, TlsListener, TlsServer};
use net::proxy_protocol::Proxies;
use net::sys::bind::{BindError, Group, Kinds};

use self::inherited::InheritedSockets;
use super::privileges;
use crate::admin::SocketOwner;
use crate::control::StartError;

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) workers: usize,
    pub(crate) sections: Vec<SectionSockets>,
    pub(in crate::control) admin: Option<AdminListeners>,
    leaving: Vec<Weak<ServedAddress>>,
    tls: Arc<TlsServer>,
    quic: Arc<QuicServer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SectionName {
    Forwarder,
    Authority(String),
}

#[derive(Debug, PartialEq)]
pub(crate) struct SectionSockets {
    pub(crate) name: SectionName,
    /// The distinct addresses, in the order of `entries`.
    pub(crate) addresses: Vec<Arc<ServedAddress>>,
    /// The entries of `listen`, some of which share an address.
    entries: Vec<ListenEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ListenEntry {
    scheme: Scheme,
    path: HttpPath,
    address: usize,
}

/// The entry of `listen` that an address is opened for: the name of its section, and its place there.
type OpeningEntry<'a> = (&'a SectionName, usize);

/// An address with its sockets, which close with the last reference. Each value is equal to itself alone.
#[derive(Debug)]
pub(crate) struct ServedAddress {
    pub(crate) number: u16,
    configured: ListenAddress,
    group: Group,
    spoken: Arc<ArcSwap<Protocols>>,
    tls: Option<Arc<TlsListener>>,
    proxies: Arc<Proxies>,
    quic: Option<Arc<QuicListener>>,
    /// True if a service manager keeps the sockets, which then outlive this process.
    is_kept: bool,
}

impl PartialEq for ServedAddress {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

#[derive(Debug)]
pub(crate) struct AddressSockets {
    /// Held until all responses to its clients are sent.
    pub(crate) address: Arc<ServedAddress>,
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

/// A configured address cannot be opened.
#[derive(Debug, Error)]
#[error("{key}: {source}{}", self.remedy())]
pub struct ListenError {
    key: String,
    source: BindError,
    is_confined: bool,
}

impl ListenError {
    fn remedy(&self) -> &'static str {
        match self.is_confined && self.source.is_denied() {
            true => {
                "; this process gave such rights up when it had started: restart it, or have a socket unit pass the port"
            }
            false => "",
        }
    }
}

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
        let owner = privileges::owner(config.process.user.as_ref());
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

    pub(crate) fn reload(&self, config: &Config) -> Result<Self, StartError> {
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
        let wanted = wanted(config);
        let entries = wanted.iter().flat_map(|(name, listen)| {
            let first = listen.iter().enumerate().filter(|(place, _)| first_sharing(listen, *place) == *place);
            first.map(move |(place, entry)| ((name, place), entry.address))
        });
        let entries: Vec<_> = entries.collect();
        // Remaining addresses first, so that the removed ones are known. Addresses that take datagrams from a
        // removed one come last, when hardly anything can fail.
        let mut opening = Opening::new(self, &entries, inherited);
        for is_beside in [false, true] {
            for ((name, place), address) in &entries {
                if opening.is_beside(*address) == is_beside && !opening.open.contains_key(&(name, *place)) {
                    let key = || format!("{}.listen[{place}]", name.key());
                    let opened = opening.bind((name, *place), *address);
                    opened.map_err(|source| ListenError { key: key(), source, is_confined })?;
                }
            }
        }
        let Opening { open, leaving, .. } = opening;
        let sections = wanted.iter().map(|(name, listen)| {
            let served = |place| Arc::clone(&open[&(name, first_sharing(listen, place))]);
            SectionSockets::new(name.clone(), listen, served)
        });
        let (sections, leaving) = (sections.collect(), leaving.iter().map(Arc::downgrade).collect());
        let (tls, quic) = (Arc::clone(&self.tls), Arc::clone(&self.quic));
        Ok(Self { workers: self.workers, sections, admin, leaving, tls, quic })
    }

    pub(crate) fn addresses(&self) -> Vec<(String, Vec<ListenAddress>)> {
        let bound = |section: &SectionSockets| section.entries().map(|entry| entry.address).collect();
        let sections = self.sections.iter().map(|section| (section.name.label().to_owned(), bound(section)));
        let admin = self.admin.iter().map(|admin| (ADMIN.to_owned(), vec![ListenAddress::plain(admin.address)]));
        sections.chain(admin).collect()
    }

    pub(crate) fn forwarder(&self) -> Vec<ListenUrl> {
        self.section(&SectionName::Forwarder).map(|section| section.entries().collect()).unwrap_or_default()
    }

    /// Returns the entries of the forwarder's `listen` with the numbers of their sockets.
    pub(crate) fn numbered(&self) -> Vec<BoundListener> {
        let section = self.section(&SectionName::Forwarder);
        let numbered = |section: &SectionSockets| {
            let numbers = section.entries.iter().map(|entry| section.addresses[entry.address].number);
            let bound = numbers.zip(section.entries());
            bound.map(|(number, url)| BoundListener { number, address: url.address }).collect()
        };
        section.map(numbered).unwrap_or_default()
    }

    pub(crate) fn certificates(&self) -> &Arc<CertificateStore> {
        self.tls.store()
    }

    /// Applies the protocols, certificates and trusted proxies of a config, which must be the one of these
    /// listeners.
    pub(crate) fn set_rules(&self, config: &Config) {
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

    pub(crate) fn for_queries(&self) -> impl Iterator<Item = SocketAddr> {
        self.sections.iter().flat_map(SectionSockets::served).map(|address| address.socket)
    }

    pub(crate) fn descriptors(&self) -> usize {
        let of_group = |group: &Group| {
            let read = |sockets: usize| if sockets == 0 { 0 } else { sockets + sockets.max(self.workers) };
            read(group.udp.len()) + read(group.tcp.len())
        };
        self.all().map(|address| of_group(&address.group)).sum()
    }

    pub(crate) fn section(&self, name: &SectionName) -> Option<&SectionSockets> {
        self.sections.iter().find(|section| section.name == *name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ServedAddress>> {
        self.sections.iter().flat_map(|section| &section.addresses)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.sections == other.sections && self.admin == other.admin
    }

    pub(crate) fn has(&self, address: &Arc<ServedAddress>) -> bool {
        self.all().any(|other| other == address)
    }

    /// Leaves the file of the admin socket to another process, so that this process does not remove it.
    pub fn leave_socket(&self) {
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
    /// Returns the name of the section, which an authority may share with the forwarder.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Forwarder => FORWARDER,
            Self::Authority(name) => name,
        }
    }

    /// Returns the key of the section in the config.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Forwarder => FORWARDER.to_owned(),
            Self::Authority(name) => format!("authorities.{name}"),
        }
    }
}

impl SectionSockets {
    fn new(name: SectionName, listen: &[ListenConfig], served: impl Fn(usize) -> Arc<ServedAddress>) -> Self {
        let mut addresses = Vec::new();
        let entry = |(place, configured): (usize, &ListenConfig)| {
            let served = served(place);
            let known = addresses.iter().position(|known| *known == served);
            let address = known.unwrap_or_else(|| {
                addresses.push(served);
                addresses.len() - 1
            });
            ListenEntry { scheme: configured.address.scheme, path: configured.path.clone(), address }
        };
        let entries = listen.iter().enumerate().map(entry).collect();
        Self { name, addresses, entries }
    }

    fn entries(&self) -> impl Iterator<Item = ListenUrl> {
        self.entries.iter().map(|ListenEntry { scheme, path, address }| {
            let address = ListenAddress { scheme: *scheme, socket: self.addresses[*address].bound() };
            ListenUrl { address, path: path.clone() }
        })
    }

    fn socket_name(&self, address: usize) -> String {
        let place = self.entries.iter().position(|entry| entry.address == address).unwrap_or(address);
        socket_name(self.name.label(), place)
    }

    pub(crate) fn served(&self) -> impl Iterator<Item = ListenAddress> {
        self.addresses.iter().map(|address| address.listens_at())
    }
}

impl ServedAddress {
    pub(crate) fn bound(&self) -> SocketAddr {
        self.group.address
    }

    /// Returns the identity of the address, independent of the protocols spoken there.
    pub(crate) fn listens_at(&self) -> ListenAddress {
        identity(ListenAddress { socket: self.bound(), ..self.configured })
    }

    pub(crate) fn spoken(&self) -> &Arc<ArcSwap<Protocols>> {
        &self.spoken
    }

    pub(crate) fn tls(&self) -> Option<&Arc<TlsListener>> {
        self.tls.as_ref()
    }

    pub(crate) fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    pub(crate) fn quic(&self) -> Option<&Arc<QuicListener>> {
        self.quic.as_ref()
    }

    pub(crate) fn takes_datagrams(&self) -> bool {
        self.quic.is_none() && !self.group.udp.is_empty()
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Stops the arrival of new datagrams ([`Group::divert`]), unless the sockets outlive this process.
    pub(crate) fn divert(&self) {
        if !self.is_kept {
            self.group.divert();
        }
    }

    pub(crate) fn of_worker(self: &Arc<Self>, worker: usize, workers: usize) -> io::Result<AddressSockets> {
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
    open: HashMap<OpeningEntry<'a>, Arc<ServedAddress>>,
    /// Open addresses that the config no longer has.
    leaving: Vec<Arc<ServedAddress>>,
    inherited: &'a mut InheritedSockets,
}

impl<'a> Opening<'a> {
    /// Keeps the open addresses of these entries. With port 0, the name of an address identifies it.
    fn new(
        earlier: &'a Listeners,
        entries: &[(OpeningEntry<'a>, ListenAddress)],
        inherited: &'a mut InheritedSockets,
    ) -> Self {
        let known = earlier.sections.iter().flat_map(|section| {
            let named = section.addresses.iter().enumerate();
            named.map(|(place, address)| (section.socket_name(place), address))
        });
        let mut known: Vec<_> = known.collect();
        let mut open = HashMap::new();
        for ((name, place), configured) in entries {
            let own_name = socket_name(name.label(), *place);
            let is_same = |(known, address): &(String, &Arc<ServedAddress>)| match configured.socket.port() {
                0 => address.configured == *configured && *known == own_name,
                _ => address.listens_at() == identity(*configured),
            };
            if let Some(at) = known.iter().position(is_same) {
                open.insert((*name, *place), Arc::clone(known.swap_remove(at).1));
            }
        }
        let removed = known.into_iter().map(|(_, address)| Arc::clone(address));
        let leaving = earlier.leaving.iter().filter_map(Weak::upgrade).chain(removed).collect();
        Self { earlier, open, leaving, inherited }
    }

    /// Returns true if an address can only be bound beside our own sockets that are all to be removed.
    fn is_beside(&self, configured: ListenAddress) -> bool {
        configured.socket.port() != 0 && self.leaving.iter().any(|address| shares(address.listens_at(), configured))
    }

    fn bind(&mut self, entry: OpeningEntry<'a>, listen: ListenAddress) -> Result<(), BindError> {
        let (workers, configured) = (self.earlier.workers, listen.socket);
        let (kinds, name) = (kinds_of(listen.scheme), socket_name(entry.0.label(), entry.1));
        let (udp, tcp, is_kept, bound) = self.inherited.take_group(&name, configured, kinds);
        let is_taken = self.open.values().any(|address| shares(address.listens_at(), listen));
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
        let address = ServedAddress {
            number: self.free_number(),
            configured: listen,
            group,
            spoken: Arc::default(),
            tls,
            proxies: Arc::default(),
            quic,
            is_kept,
        };
        self.open.insert(entry, Arc::new(address));
        Ok(())
    }

    fn free_number(&self) -> u16 {
        let is_free = |number: &u16| !self.open.values().chain(&self.leaving).any(|other| other.number == *number);
        (0..=u16::MAX).find(is_free).expect("there are fewer listeners than ports")
    }
}

/// Returns the first entry of `listen` that shares the sockets of this one.
fn first_sharing(listen: &[ListenConfig], place: usize) -> usize {
    let own = listen[place].address;
    let shares = |other: &ListenConfig| own.socket.port() != 0 && identity(other.address) == identity(own);
    listen.iter().position(shares).unwrap_or(place)
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

/// Returns the number of data-plane threads.
pub fn worker_count(config: &Config) -> usize {
    config.process.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Raises the soft limit of open descriptors to the hard limit, and has the kernel make room for many.
///
/// The kernel doubles its table of descriptors when that is full. If the process has other threads, the one
/// that needs a descriptor then waits for all processors (`synchronize_rcu`), for 8 to 14 ms.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let last = limit.current.map_or(ROOM, |limit| limit.min(ROOM)).saturating_sub(1);
    // Closed at once; the room stays.
    let _ = fcntl_dupfd_cloexec(io::stderr(), last as RawFd);
}

/// Descriptors for which the kernel has room from the start: 0.5 MiB of its memory.
const ROOM: u64 = 1 << 16;

const FORWARDER: &str = "forwarder";

const ADMIN: &str = "admin";
