//! The listening sockets of the process. They belong to it and not to a worker: the control thread holds all of them, and workers read
//! duplicates. So what waits in a socket outlives the worker that reads it, and sockets can be passed from process to
//! process.
//!
//! There may be more sockets of an address than workers, or fewer: those that another process has bound are as many as it has
//! bound. All are read: with `s` sockets and `w` workers, for each `k` below the larger of the two worker `k % w` reads socket
//! `k % s`.
//!
//! Entries of `listen` that share an address by what clients offer in their handshake, `tls://` and `https://`, share its sockets as well:
//! which of them are there is what is spoken at the address, and no reason to bind it anew.
//!
//! A reload makes a new value of what there is: addresses that stay keep their sockets, whichever section they are of now, and
//! those that come are bound before anything changes.

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

use rustix::process::{Resource, getrlimit, setrlimit};

pub(super) use self::admin::AdminListeners;
use self::inherited::Inherited;
use super::StartError;
use super::privileges;
use crate::address::{HttpPath, ListenAddress, ListenUrl, Scheme};
use crate::admin::Owner;
use crate::config::{Config, ListenConfig};
use crate::limit::OwnAddresses;
use crate::net::bind::{BindError, Group, Kinds};
use crate::net::listening::{Endpoint, ListeningSocket};
use crate::net::proxy_protocol::Proxies;
use crate::net::quic_server::{QuicListener, QuicServer};
use crate::net::tcp::{Protocols, Spoken};
use crate::net::tls_server::{CertificateStore, TlsListener, TlsServer};

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Listeners {
    /// For so many workers.
    workers: usize,
    /// Those of the LS, if there is one, and of the authorities, in order of the config.
    sections: Vec<Section>,
    admin: Option<AdminListeners>,
    /// Addresses that have left, until their last response has, too.
    leaving: Vec<Weak<Address>>,
    /// What encrypted listeners have in common.
    tls: Arc<TlsServer>,
    /// The keys of QUIC.
    quic: Arc<QuicServer>,
}

/// Who takes queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SectionName {
    Forwarder,
    Authority(String),
}

/// The sockets of one section of the config.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: SectionName,
    /// In order of `listen`, each once.
    pub(super) addresses: Vec<Arc<Address>>,
    /// In order of `listen`.
    entries: Vec<Entry>,
}

/// An entry of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    scheme: Scheme,
    path: HttpPath,
    /// The place of its address among those of the section.
    address: usize,
}

/// An address with its sockets. They close when everybody has let go of it.
#[derive(Debug)]
pub(super) struct Address {
    /// No other address has this number as long as anybody holds this one.
    pub(super) number: u16,
    /// As it stands in the config.
    configured: ListenAddress,
    group: Group,
    /// What is spoken there by TCP.
    spoken: Arc<Spoken>,
    /// How it is encrypted, if it is.
    tls: Option<Arc<TlsListener>>,
    /// Who passes queries on to it.
    proxies: Arc<Proxies>,
    /// What workers share there, if that is QUIC.
    quic: Option<Arc<QuicListener>>,
    /// Whether a service manager keeps its sockets, so that they go on without us.
    is_kept: bool,
}

/// The sockets of one address that one worker reads: there is at least one of each kind that the address has.
#[derive(Debug)]
pub(super) struct AddressSockets {
    /// Held until nothing is owed to its clients any more.
    pub(super) address: Arc<Address>,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// An address of the config cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// Its key.
    key: String,
    source: BindError,
    /// Whether the process had rights once that it lacks now.
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
    /// Opens what a config listens on: takes the sockets that were passed to us, and binds the rest. Returns also what was passed and
    /// is not in the config.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn open(config: &Config, inherited: Vec<ListeningSocket>) -> Result<(Self, Vec<ListeningSocket>), StartError> {
        let (mut listeners, unused) = Self::inherit(config, inherited)?;
        listeners.fill();
        Ok((listeners, unused))
    }

    /// The same for a process that is to serve later, if nothing goes wrong: of an address that was passed it binds no more sockets for
    /// workers that have none. What came to those would be lost with them. [`Self::fill`] binds them.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn inherit(
        config: &Config,
        inherited: Vec<ListeningSocket>,
    ) -> Result<(Self, Vec<ListeningSocket>), StartError> {
        // Before many are opened.
        raise_descriptor_limit();
        let (workers, tls, quic) = (worker_count(config), Arc::new(TlsServer::new()?), Arc::new(QuicServer::new()?));
        let nothing = Self { workers, sections: Vec::new(), admin: None, leaving: Vec::new(), tls, quic };
        let mut inherited = Inherited(inherited);
        let owner = privileges::owner(config.user.as_ref());
        let listeners = nothing.open_beside(config, owner, &mut inherited, false)?;
        Ok((listeners, inherited.0))
    }

    /// Binds a socket of each kind for each worker that has none, where whoever has bound the others lets us join. All that is needed for
    /// that must be ours yet.
    pub fn fill(&mut self) {
        let addresses = self.sections.iter_mut().flat_map(|section| &mut section.addresses);
        // One that somebody reads already has all that it is to have.
        addresses.filter_map(Arc::get_mut).for_each(|address| address.group.fill(self.workers));
    }

    /// What another config listens on, with the sockets that are here already. Nothing changes for these.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub(super) fn reload(&self, config: &Config) -> Result<Self, StartError> {
        self.open_beside(config, Owner::current(), &mut Inherited(Vec::new()), true)
    }

    fn open_beside(
        &self,
        config: &Config,
        owner: Owner,
        inherited: &mut Inherited,
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
        // What stays comes first, so that it is known what leaves; and what takes datagrams from an address that leaves comes last, when
        // hardly anything can fail any more.
        let mut slots: Vec<Vec<Option<Arc<Address>>>> = Vec::new();
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
        let sections: Vec<_> =
            sections.map(|(((name, listen), slots), owners)| Section::new(name, listen, slots, &owners)).collect();
        let is_gone = |address: &&Arc<Address>| {
            !sections.iter().flat_map(|section| &section.addresses).any(|other| Arc::ptr_eq(address, other))
        };
        let gone = self.all().filter(is_gone).map(Arc::downgrade);
        let leaving = self.leaving.iter().filter(|address| address.strong_count() > 0).cloned().chain(gone).collect();
        let (tls, quic) = (Arc::clone(&self.tls), Arc::clone(&self.quic));
        Ok(Self { workers: self.workers, sections, admin, leaving, tls, quic })
    }

    /// For how many workers they are.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// What is bound, by the name of who listens, in order of the config.
    pub(super) fn addresses(&self) -> Vec<(String, Vec<ListenAddress>)> {
        let bound = |section: &Section| section.entries().map(|entry| entry.address).collect();
        let sections = self.sections.iter().map(|section| (section.name.label().to_owned(), bound(section)));
        let admin = self.admin.iter().map(|admin| (ADMIN.to_owned(), vec![ListenAddress::plain(admin.address)]));
        sections.chain(admin).collect()
    }

    /// What is bound for the LS, in order of the config.
    pub(super) fn forwarder(&self) -> Vec<ListenUrl> {
        self.section(&SectionName::Forwarder).map(|section| section.entries().collect()).unwrap_or_default()
    }

    /// The certificates that encrypted listeners show.
    pub(super) fn certificates(&self) -> &Arc<CertificateStore> {
        self.tls.store()
    }

    /// Has listeners speak what a config says, show its certificates, and believe the proxies that it names. It must be that of these
    /// listeners.
    pub(super) fn set_rules(&self, config: &Config) {
        for ((_, listen), section) in wanted(config).iter().zip(&self.sections) {
            for (place, address) in section.addresses.iter().enumerate() {
                let entries = || listen.iter().zip(&section.entries).filter(|(_, entry)| entry.address == place);
                let http = entries().find(|(_, entry)| entry.scheme.is_http()).map(|(_, entry)| entry.path.clone());
                let protocols = Protocols { is_dns: entries().any(|(_, entry)| !entry.scheme.is_http()), http };
                if let Some(tls) = &address.tls {
                    // Those that share an address show the same.
                    let certificate = entries().find_map(|(configured, _)| configured.certificate.as_deref());
                    tls.show_only(certificate);
                    if address.quic.is_none() {
                        tls.speak(protocols.alpn());
                    }
                }
                // What is spoken shows behind the header only, so those that share an address have the proxies of both.
                let proxies: Vec<_> = entries().flat_map(|(configured, _)| configured.proxy_from.clone()).collect();
                address.proxies.set(&proxies, OwnAddresses::new(self.for_queries()));
                address.spoken.set(protocols);
            }
        }
    }

    /// The addresses that take queries.
    pub(super) fn for_queries(&self) -> impl Iterator<Item = SocketAddr> {
        self.sections.iter().flat_map(Section::served).map(|address| address.socket)
    }

    /// Descriptors that all of it takes: the sockets themselves, and the duplicates that workers read.
    pub(super) fn descriptors(&self) -> usize {
        let of_group = |group: &Group| {
            let read = |sockets: usize| if sockets == 0 { 0 } else { sockets + sockets.max(self.workers) };
            read(group.udp.len()) + read(group.tcp.len())
        };
        self.all().map(|address| of_group(&address.group)).sum()
    }

    /// All sections, in order of the config.
    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The sockets of a section, if it is there.
    pub(super) fn section(&self, name: &SectionName) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == *name)
    }

    /// The addresses of all sections.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.sections.iter().flat_map(|section| &section.addresses)
    }

    /// Whether there are the same sockets in the same sections as in another value.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_section = |(one, other): (&Section, &Section)| {
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

    /// Whether an address is among these, in whatever section.
    pub(super) fn has(&self, address: &Arc<Address>) -> bool {
        self.all().any(|other| Arc::ptr_eq(address, other))
    }

    /// Where the admin server is reached, if there is one.
    pub(super) fn admin(&self) -> Option<&AdminListeners> {
        self.admin.as_ref()
    }

    /// Leaves the file of the socket for changes to another process.
    pub(super) fn leave(&self) {
        if let Some(socket) = self.admin.as_ref().and_then(|admin| admin.socket.as_ref()) {
            socket.leave();
        }
    }

    /// Where changes are taken without a token.
    pub fn admin_socket(&self) -> Option<&Path> {
        self.admin.as_ref().and_then(|admin| admin.socket.as_ref()).map(|socket| socket.path())
    }

    /// Duplicates of all sockets, to be passed to other processes.
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
                let (name, Address { group, is_kept, .. }) = (section.socket_name(place), &**address);
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
    /// The name of who listens.
    fn label(&self) -> &str {
        match self {
            Self::Forwarder => FORWARDER,
            Self::Authority(name) => name,
        }
    }

    /// Where it stands in the config.
    fn key(&self) -> String {
        match self {
            Self::Forwarder => FORWARDER.to_owned(),
            Self::Authority(name) => format!("authorities.{name}"),
        }
    }
}

impl Section {
    /// Of these entries of `listen`; each has the address of its owner.
    fn new(name: SectionName, listen: &[ListenConfig], slots: Vec<Option<Arc<Address>>>, owners: &[usize]) -> Self {
        let mut addresses = Vec::new();
        // The place among `addresses`, for each entry that has one of its own.
        let mut places = Vec::new();
        for slot in slots {
            places.push(addresses.len());
            addresses.extend(slot);
        }
        let entries = listen.iter().zip(owners).map(|(configured, owner)| {
            let address = places.get(*owner).copied().unwrap_or_default();
            Entry { scheme: configured.address.scheme, path: configured.path.clone(), address }
        });
        let entries = entries.collect();
        Self { name, addresses, entries }
    }

    /// What is listened on, really bound, in order of the config.
    fn entries(&self) -> impl Iterator<Item = ListenUrl> {
        self.entries.iter().filter_map(|Entry { scheme, path, address }| {
            let address = ListenAddress { scheme: *scheme, socket: self.addresses.get(*address)?.bound() };
            Some(ListenUrl { address, path: path.clone() })
        })
    }

    /// The name of the sockets of an address: that of the first entry that has it.
    fn socket_name(&self, address: usize) -> String {
        let place = self.entries.iter().position(|entry| entry.address == address).unwrap_or(address);
        socket_name(self.name.label(), place)
    }

    /// Where it takes queries.
    pub(super) fn served(&self) -> impl Iterator<Item = ListenAddress> {
        self.addresses.iter().map(|address| address.listens_at())
    }
}

impl Address {
    /// The address really bound.
    pub(super) fn bound(&self) -> SocketAddr {
        self.group.address
    }

    /// What tells it from all others, whatever is spoken there just now.
    pub(super) fn listens_at(&self) -> ListenAddress {
        identity(ListenAddress { socket: self.bound(), ..self.configured })
    }

    /// What is spoken there by TCP.
    pub(super) fn spoken(&self) -> &Arc<Spoken> {
        &self.spoken
    }

    /// How it is encrypted, if it is.
    pub(super) fn tls(&self) -> Option<&Arc<TlsListener>> {
        self.tls.as_ref()
    }

    /// Who passes queries on to it.
    pub(super) fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    /// What workers share there, if QUIC is spoken.
    pub(super) fn quic(&self) -> Option<&Arc<QuicListener>> {
        self.quic.as_ref()
    }

    /// Whether queries come there in datagrams of their own.
    pub(super) fn takes_datagrams(&self) -> bool {
        self.quic.is_none() && !self.group.udp.is_empty()
    }

    /// Whether a service manager keeps its sockets.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Has datagrams pass it by ([`Group::divert`]), unless its sockets go on without us.
    pub(super) fn divert(&self) {
        if !self.is_kept {
            self.group.divert();
        }
    }

    /// Duplicates of what a worker reads.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn of_worker(self: &Arc<Self>, worker: usize, workers: usize) -> io::Result<AddressSockets> {
        let udp = dealt(&self.group.udp, worker, workers).map(UdpSocket::try_clone);
        let tcp = dealt(&self.group.tcp, worker, workers).map(TcpListener::try_clone);
        Ok(AddressSockets {
            address: Arc::clone(self),
            udp: udp.collect::<io::Result<_>>()?,
            tcp: tcp.collect::<io::Result<_>>()?,
        })
    }
}

/// Addresses that are being opened beside those that are open.
struct Opening<'a> {
    earlier: &'a Listeners,
    /// Those of `earlier` that nobody has taken over yet: they are to leave.
    known: Vec<Arc<Address>>,
    /// What is new.
    opened: Vec<Arc<Address>>,
    inherited: &'a mut Inherited,
}

impl Opening<'_> {
    /// Keeps an address that is open already. With port 0 it is the one that had this name.
    fn keep(&mut self, name: &str, configured: ListenAddress) -> Option<Arc<Address>> {
        let is_same = |address: &Arc<Address>| match configured.socket.port() {
            0 => address.configured == configured && self.earlier.name_of(address).is_some_and(|known| known == name),
            _ => address.listens_at() == identity(configured),
        };
        let place = self.known.iter().position(is_same)?;
        Some(self.known.swap_remove(place))
    }

    /// Whether an address can only be bound beside sockets of ours, all of which leave.
    fn is_beside(&self, configured: ListenAddress) -> bool {
        let leaving = self.earlier.leaving.iter().filter_map(Weak::upgrade);
        configured.socket.port() != 0
            && self.known.iter().cloned().chain(leaving).any(|address| shares(address.listens_at(), configured))
    }

    fn open(&mut self, name: &str, listen: ListenAddress) -> Result<Arc<Address>, BindError> {
        let (workers, configured) = (self.earlier.workers, listen.socket);
        let kinds = kinds_of(listen.scheme);
        let (udp, tcp, is_kept, bound) = self.inherited.take_group(name, configured, kinds);
        let stays = |address: &&Arc<Address>| !self.known.iter().any(|known| Arc::ptr_eq(known, address));
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
        let address = Arc::new(Address {
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

    /// A number that no address has that anybody holds.
    fn free_number(&self) -> u16 {
        let leaving: Vec<_> = self.earlier.leaving.iter().filter_map(Weak::upgrade).collect();
        let is_free =
            |number: &u16| !self.earlier.all().chain(&self.opened).chain(&leaving).any(|other| other.number == *number);
        (0..=u16::MAX).find(is_free).expect("there are fewer listeners than ports")
    }
}

impl Listeners {
    /// The name of the sockets of an address.
    fn name_of(&self, address: &Arc<Address>) -> Option<String> {
        self.sections.iter().find_map(|section| {
            let place = section.addresses.iter().position(|other| Arc::ptr_eq(other, address))?;
            Some(section.socket_name(place))
        })
    }
}

/// For each entry of `listen`, the first that has the same sockets.
fn owners(listen: &[ListenConfig]) -> Vec<usize> {
    let shares = |one: &ListenConfig, other: &ListenConfig| {
        one.address.socket.port() != 0 && identity(one.address) == identity(other.address)
    };
    let first = |(place, one)| listen.iter().position(|other| shares(one, other)).unwrap_or(place);
    listen.iter().enumerate().map(first).collect()
}

/// An address as sockets have it: `tls` and `https` are told apart behind the handshake only.
fn identity(address: ListenAddress) -> ListenAddress {
    let scheme = if address.scheme == Scheme::Https { Scheme::Tls } else { address.scheme };
    ListenAddress { scheme, ..address }
}

/// What the sections of a config listen on.
fn wanted(config: &Config) -> Vec<(SectionName, &[ListenConfig])> {
    let forwarder = config.forwarder.iter().map(|forwarder| (SectionName::Forwarder, &*forwarder.listen));
    let authorities = config.authorities.iter();
    let authorities = authorities.map(|authority| (SectionName::Authority(authority.name.clone()), &*authority.listen));
    forwarder.chain(authorities).collect()
}

/// By what an address is bound where this is spoken.
fn kinds_of(scheme: Scheme) -> Kinds {
    match scheme {
        Scheme::Plain => Kinds::Both,
        Scheme::Tcp | Scheme::Tls | Scheme::Https | Scheme::Http => Kinds::Stream,
        Scheme::Quic => Kinds::Datagram,
    }
}

/// Whether something could come to either of two addresses: TCP and UDP have ports of their own.
fn shares(one: ListenAddress, other: ListenAddress) -> bool {
    let (kinds, others) = (kinds_of(one.scheme), kinds_of(other.scheme));
    let has_both = kinds.has_datagrams() && others.has_datagrams() || kinds.has_streams() && others.has_streams();
    has_both && meets(one.socket, other.socket)
}

/// Whether some datagram could come to either of two addresses.
fn meets(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_any || one.ip() == other.ip())
}

/// Which of so many sockets a worker reads.
fn dealt<S>(sockets: &[S], worker: usize, workers: usize) -> impl Iterator<Item = &S> {
    // There are none of a kind that the address has not.
    let turns = if sockets.is_empty() { 0 } else { sockets.len().max(workers) };
    (worker..turns).step_by(workers.max(1)).filter_map(|turn| sockets.get(turn % sockets.len()))
}

/// The name of the sockets of an address.
fn socket_name(section: &str, place: usize) -> String {
    format!("{section}.{place}")
}

/// How many workers a config asks for.
pub(super) fn worker_count(config: &Config) -> usize {
    config.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Lets the process open as many descriptors as it is allowed to.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// What the LS is called among those that listen.
const FORWARDER: &str = "forwarder";

/// What the admin server is called among them.
const ADMIN: &str = "admin";
