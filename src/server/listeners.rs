//! The listening sockets of the process. They belong to it and not to a worker: the control thread holds all of them, and workers read
//! duplicates. So what waits in a socket outlives the worker that reads it, and sockets can be passed from process to
//! process.
//!
//! There may be more sockets of an address than workers, or fewer: those that another process has bound are as many as it has
//! bound. All are read: with `s` sockets and `w` workers, for each `k` below the larger of the two worker `k % w` reads socket
//! `k % s`.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::{mem, thread};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{StartError, privileges};
use crate::admin::Socket;
use crate::config::{AdminConfig, Config};
use crate::net::bind::{self, Group};
use crate::net::listening::{Endpoint, ListeningSocket};

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Listeners {
    /// For so many workers.
    workers: usize,
    /// Those of the LS, if there is one.
    forwarder: Option<Section>,
    /// Those of the authorities, in order of the config.
    authorities: Vec<Section>,
    admin: Option<AdminListeners>,
}

/// The sockets of one section of the config.
#[derive(Debug)]
struct Section {
    name: String,
    /// In order of `listen`.
    groups: Vec<Group>,
}

/// Where the admin server is reached.
#[derive(Debug)]
pub(super) struct AdminListeners {
    pub(super) address: SocketAddr,
    pub(super) tcp: TcpListener,
    /// Where changes are taken without a token.
    pub(super) socket: Option<Socket>,
}

/// The sockets that one worker reads of a section. There is at least one of each kind for each address.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

impl Listeners {
    /// Opens what a config listens on: takes the sockets that were passed to us, and binds the rest. Returns also what was passed and
    /// is not in the config.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn open(config: &Config, inherited: Vec<ListeningSocket>) -> Result<(Self, Vec<ListeningSocket>), StartError> {
        // Before many are opened.
        raise_descriptor_limit();
        let workers = worker_count(config);
        let mut inherited = Inherited(inherited);
        let mut section = |name: &str, addresses: &[SocketAddr]| -> Result<Section, StartError> {
            let groups = addresses.iter().enumerate().map(|(place, &address)| {
                let (udp, tcp, bound) = inherited.take_group(&socket_name(name, place), address);
                match udp.is_empty() && tcp.is_empty() {
                    true => Group::bind(address, workers),
                    false => Group::complete(bound, udp, tcp, workers),
                }
            });
            Ok(Section { name: name.to_owned(), groups: groups.collect::<Result<_, _>>()? })
        };
        let forwarder = config.forwarder.as_ref().map(|forwarder| section(FORWARDER, &forwarder.listen)).transpose()?;
        let authorities = config.authorities.iter().map(|authority| section(&authority.name, &authority.listen));
        let authorities = authorities.collect::<Result<_, _>>()?;
        let admin =
            config.admin.as_ref().map(|admin| AdminListeners::open(admin, config, &mut inherited)).transpose()?;
        Ok((Self { workers, forwarder, authorities, admin }, inherited.0))
    }

    /// For how many workers they are.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// What is bound, by the name of who listens, in order of the config.
    pub(super) fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        let addresses = |section: &Section| section.groups.iter().map(|group| group.address).collect();
        let sections = self.sections().map(|section| (section.name.clone(), addresses(section)));
        let admin = self.admin.iter().map(|admin| (ADMIN.to_owned(), vec![admin.address]));
        sections.chain(admin).collect()
    }

    /// The addresses that take queries.
    pub(super) fn for_queries(&self) -> impl Iterator<Item = SocketAddr> {
        self.sections().flat_map(|section| section.groups.iter().map(|group| group.address))
    }

    /// Descriptors that all of it takes: the sockets themselves, and the duplicates that workers read.
    pub(super) fn descriptors(&self) -> usize {
        let of_group = |group: &Group| {
            let read = |sockets: usize| sockets + sockets.max(self.workers);
            read(group.udp.len()) + read(group.tcp.len())
        };
        self.sections().flat_map(|section| &section.groups).map(of_group).sum()
    }

    /// Duplicates of what a worker of the LS reads.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn of_forwarder(&self, worker: usize) -> io::Result<Sockets> {
        self.forwarder
            .as_ref()
            .map_or_else(|| Ok(Sockets::default()), |section| section.of_worker(worker, self.workers))
    }

    /// Duplicates of what a worker of the authority at this place in the config reads.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn of_authority(&self, place: usize, worker: usize) -> io::Result<Sockets> {
        self.authorities
            .get(place)
            .map_or_else(|| Ok(Sockets::default()), |section| section.of_worker(worker, self.workers))
    }

    /// Where the admin server is reached, if there is one.
    pub(super) fn admin(&self) -> Option<&AdminListeners> {
        self.admin.as_ref()
    }

    /// Duplicates of all sockets, to be passed to other processes.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn to_pass(&self) -> io::Result<Vec<ListeningSocket>> {
        let mut sockets = Vec::new();
        let mut add = |name: &str, endpoint: Endpoint, fd: OwnedFd| {
            sockets.push(ListeningSocket::new(name.to_owned(), false, endpoint, fd));
        };
        for section in self.sections() {
            for (place, group) in section.groups.iter().enumerate() {
                let name = socket_name(&section.name, place);
                for socket in &group.udp {
                    add(&name, Endpoint::Udp(group.address), socket.try_clone()?.into());
                }
                for listener in &group.tcp {
                    add(&name, Endpoint::Tcp(group.address), listener.try_clone()?.into());
                }
            }
        }
        if let Some(AdminListeners { address, tcp, socket }) = &self.admin {
            let name = socket_name(ADMIN, 0);
            add(&name, Endpoint::Tcp(*address), tcp.try_clone()?.into());
            if let Some(socket) = socket {
                add(&name, Endpoint::Unix(socket.path().to_owned()), socket.listener()?.into());
            }
        }
        Ok(sockets)
    }

    /// The sections that take queries.
    fn sections(&self) -> impl Iterator<Item = &Section> {
        self.forwarder.iter().chain(&self.authorities)
    }
}

impl Section {
    fn of_worker(&self, worker: usize, workers: usize) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for group in &self.groups {
            for socket in dealt(&group.udp, worker, workers) {
                sockets.udp.push(socket.try_clone()?);
            }
            for listener in dealt(&group.tcp, worker, workers) {
                sockets.tcp.push(listener.try_clone()?);
            }
        }
        Ok(sockets)
    }
}

impl AdminListeners {
    fn open(admin: &AdminConfig, config: &Config, inherited: &mut Inherited) -> Result<Self, StartError> {
        let (name, listen) = (socket_name(ADMIN, 0), admin.listen);
        let passed = inherited.take(|socket| match socket.endpoint() {
            Endpoint::Tcp(bound) => is_meant(listen, *bound) && (listen.port() != 0 || socket.name == name),
            Endpoint::Udp(_) | Endpoint::Unix(_) => false,
        });
        let tcp = match passed {
            Some(passed) => bind::adopt_stream(passed.into_fd().into(), listen)?,
            None => bind::stream_alone(listen)?,
        };
        let address = tcp.local_addr()?;
        let mut passed = |path: &Path| {
            let passed = inherited.take(|socket| *socket.endpoint() == Endpoint::Unix(path.to_owned()));
            passed.map(|socket| socket.into_fd().into())
        };
        let socket = Socket::open(&admin.socket, address, privileges::owner(config.user.as_ref()), &mut passed)?;
        Ok(Self { address, tcp, socket })
    }
}

/// Sockets that were passed to us, as far as nobody has taken them.
struct Inherited(Vec<ListeningSocket>);

impl Inherited {
    /// Takes the first that is meant.
    fn take(&mut self, is_meant: impl Fn(&ListeningSocket) -> bool) -> Option<ListeningSocket> {
        let place = self.0.iter().position(is_meant)?;
        Some(self.0.remove(place))
    }

    /// Takes all that listen on a configured address, and says which address that really is. Port 0 stands for the port that the
    /// sockets of this name have.
    fn take_group(&mut self, name: &str, configured: SocketAddr) -> (Vec<UdpSocket>, Vec<TcpListener>, SocketAddr) {
        let is_named = |socket: &ListeningSocket| configured.port() != 0 || socket.name == name;
        let found = self.0.iter().filter(|socket| is_named(socket)).find_map(|socket| match socket.endpoint() {
            Endpoint::Udp(bound) | Endpoint::Tcp(bound) => is_meant(configured, *bound).then_some(*bound),
            Endpoint::Unix(_) => None,
        });
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        let bound = found.unwrap_or(configured);
        if found.is_some() {
            for socket in mem::take(&mut self.0) {
                match socket.endpoint() {
                    Endpoint::Udp(address) if *address == bound => udp.push(socket.into_fd().into()),
                    Endpoint::Tcp(address) if *address == bound => tcp.push(socket.into_fd().into()),
                    Endpoint::Udp(_) | Endpoint::Tcp(_) | Endpoint::Unix(_) => self.0.push(socket),
                }
            }
        }
        (udp, tcp, bound)
    }
}

/// Whether a socket that is bound to an address serves the one of the config.
fn is_meant(configured: SocketAddr, bound: SocketAddr) -> bool {
    bound.ip() == configured.ip() && (configured.port() == 0 || bound.port() == configured.port())
}

/// Which of so many sockets a worker reads.
fn dealt<S>(sockets: &[S], worker: usize, workers: usize) -> impl Iterator<Item = &S> {
    let turns = sockets.len().max(workers);
    (worker..turns).step_by(workers.max(1)).filter_map(|turn| sockets.get(turn % sockets.len()))
}

/// The name of the sockets of an address.
fn socket_name(section: &str, place: usize) -> String {
    format!("{section}.{place}")
}

/// How many workers a config asks for.
fn worker_count(config: &Config) -> usize {
    config.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Lets the process open as many descriptors as it is allowed to.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// What the LS is called among those that listen.
const FORWARDER: &str = "forwarder";

/// What the admin server is called among them.
const ADMIN: &str = "admin";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The config of a forwarder with two addresses, an authority and an admin server, for so many workers.
    fn config(workers: usize, ports: [u16; 3]) -> Config {
        let [first, second, authority] = ports;
        let text = format!(
            "workers = {workers}\n\
             [forwarder]\nlisten = ['127.0.0.1:{first}', '127.0.0.2:{second}']\nroutes = {{ '.' = 'p' }}\n\
             [pools.p]\nbackends = ['127.0.0.1:1']\n\
             [authorities.ts1]\nlisten = ['127.0.0.1:{authority}']\nzones = ['a.txt']\n\
             [admin]\nlisten = '127.0.0.1:0'\nsocket = 'off'\n"
        );
        Config::parse(&text, "config.toml", Path::new("")).expect("a sound config")
    }

    /// Opens what a config listens on. Returns also the names of what was passed in vain.
    fn open(config: &Config, passed: Vec<ListeningSocket>) -> (Listeners, Vec<String>) {
        let (listeners, unused) = Listeners::open(config, passed).expect("loopback is free");
        (listeners, unused.into_iter().map(|socket| socket.name).collect())
    }

    /// The number of UDP sockets that each worker reads of the forwarder.
    fn read_by_each(listeners: &Listeners) -> Vec<usize> {
        let sockets = |worker| listeners.of_forwarder(worker).expect("there are descriptors");
        (0..listeners.workers()).map(|worker| sockets(worker).udp.len()).collect()
    }

    #[test]
    fn passed_sockets_keep_their_address_and_are_dealt_to_the_workers() {
        let (first, _) = open(&config(3, [0; 3]), Vec::new());
        assert_eq!(read_by_each(&first), [2, 2, 2]);
        let bound = first.addresses();
        // Port 0 is the port that the socket of this name has.
        for (workers, read) in [(3, vec![2, 2, 2]), (2, vec![4, 2]), (5, vec![2; 5])] {
            let passed = first.to_pass().expect("there are descriptors");
            assert_eq!(passed.len(), 3 * 3 * 2 + 1);
            let (second, unused) = open(&config(workers, [0; 3]), passed);
            assert_eq!((second.addresses(), read_by_each(&second)), (bound.clone(), read));
            assert_eq!(unused, [""; 0]);
            let group = &second.forwarder.as_ref().expect("there is one").groups[0];
            assert_eq!((group.udp.len(), group.tcp.len()), (workers.max(3), workers.max(3)));
        }
    }

    #[test]
    fn what_is_passed_and_not_in_the_config_is_handed_back() {
        let (first, _) = open(&config(1, [0; 3]), Vec::new());
        let [one, other, of_authority] = first.for_queries().map(|address| address.port()).collect::<Vec<_>>()[..]
        else {
            panic!("three addresses");
        };
        // By address, whatever its name is now; without a port of its own, by name.
        let (second, unused) = open(&config(1, [other, 0, one]), {
            let mut passed = first.to_pass().expect("there are descriptors");
            passed.iter_mut().for_each(|socket| {
                if socket.name == "forwarder.1" {
                    socket.name = "other.1".to_owned();
                }
            });
            passed
        });
        let ports: Vec<_> = second.for_queries().map(|address| address.port()).collect();
        assert_eq!((ports[0], ports[2]), (other, one));
        assert!(![one, other, of_authority].contains(&ports[1]), "{ports:?}");
        // 127.0.0.2 has not become 127.0.0.1.
        assert_eq!(unused, ["other.1", "other.1", "ts1.0", "ts1.0"]);
    }

    #[test]
    fn sockets_that_nobody_may_join_are_shared() {
        let alone = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let port = alone.local_addr().expect("it is bound").port();
        let passed = ListeningSocket::inherited(alone.into(), String::new(), 3).expect("it is bound");
        let (listeners, _) = open(&config(4, [port, 0, 0]), vec![passed]);
        let group = &listeners.forwarder.as_ref().expect("there is one").groups[0];
        assert_eq!((group.udp.len(), group.tcp.len()), (1, 4));
        assert_eq!(read_by_each(&listeners), [2; 4]);
    }

    #[test]
    fn every_socket_is_read_by_somebody_and_every_worker_reads_one() {
        for workers in 1..9 {
            for count in 1..9 {
                let sockets: Vec<usize> = (0..count).collect();
                let mut read: Vec<usize> = Vec::new();
                for worker in 0..workers {
                    let of_one: Vec<_> = dealt(&sockets, worker, workers).copied().collect();
                    assert!(!of_one.is_empty(), "{workers} {count}");
                    read.extend(of_one);
                }
                assert_eq!(read.len(), count.max(workers));
                read.sort_unstable();
                read.dedup();
                assert_eq!(read, sockets);
            }
        }
    }
}
