//! The server of a script: listeners of each transport over real sockets, and a service that answers as the
//! script says. A listener starts when the first client connects to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use dns::address::{HttpPath, ListenAddress, Scheme};
use dns::{ClientForm, Rcode, Transport, read_query, write_synthesized};
use limit::{Clients, ConnectionRules, OwnAddresses};
use metrics::Counters;
use net::from_clients::quic::{self, QuicListener, QuicListenerPart, QuicServer};
use net::from_clients::service::{ConnectionService, ServedAddresses};
use net::from_clients::tcp::{
    self, Cacheability, ConnectionTable, Gate, MovedConnection, Protocols, Responder, TcpProtocols,
};
use net::from_clients::tls::{Certificate, NamedCertificate, TlsListener, TlsServer};
use net::from_clients::udp::{ListenerSocket, inbox};
use net::proxy_protocol::Proxies;
use net::sys::batch::{BATCH, SendBatch};
use net::sys::busy_poll::BusyPoll;
use testkit::CertificateAuthority;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::timeout;

/// The listeners of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    Tcp,
    Tls,
    Https,
    /// DNS over TLS and HTTPS on one port.
    Both,
    Http,
    Quic,
    /// The same QUIC listener, at a socket of another worker.
    OtherQuic,
    Udp,
    /// The listener of the process to which connections move.
    Successor,
}

impl Door {
    pub const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Tls,
        Self::Https,
        Self::Both,
        Self::Http,
        Self::Quic,
        Self::OtherQuic,
        Self::Udp,
        Self::Successor,
    ];

    fn scheme(self) -> Scheme {
        match self {
            Self::Tcp | Self::Udp | Self::Successor => Scheme::Plain,
            Self::Tls => Scheme::Tls,
            Self::Https | Self::Both => Scheme::Https,
            Self::Http => Scheme::Http,
            Self::Quic | Self::OtherQuic => Scheme::Quic,
        }
    }

    fn protocols(self) -> Protocols {
        let is_dns = !matches!(self, Self::Https | Self::Http);
        let http = matches!(self, Self::Https | Self::Both | Self::Http).then(HttpPath::default);
        Protocols { is_dns, http }
    }
}

/// The rules that a script may choose.
pub fn rules(octet: u8) -> ConnectionRules {
    let has = |bit: u8| octet >> bit & 1 == 1;
    let [first_query, idle, lifetime] = match (has(0), has(7)) {
        (true, false) => [12, 12, 40],
        (true, true) => [12, 10_000, 3_600_000],
        (false, _) => [5_000, 10_000, 3_600_000],
    };
    ConnectionRules {
        max: if has(1) { 3 } else { 64 },
        per_client: if has(2) { 2 } else { 0 },
        in_flight: if has(3) { 2 } else { 128 },
        first_query: Duration::from_millis(first_query),
        idle: Duration::from_millis(idle),
        lifetime: Duration::from_millis(lifetime),
        unsent: if has(4) { 150_000 } else { 64 << 20 },
        handshakes: u32::from(has(5)),
        early_data: has(6),
    }
}

/// How the service answers a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Now,
    /// A response that is not cacheable.
    MadeUp,
    /// A response of this length at least; the greatest length stands for one that is too long.
    Long(u16),
    /// A response after a release.
    Late,
    /// A long response after a release.
    LateAndLong(u16),
    Nothing,
    Parts,
}

/// The certificates and keys of all scripts.
pub struct Keys {
    pub authority: CertificateAuthority,
    pub pems: Vec<(String, String)>,
    pub certificates: Vec<NamedCertificate>,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let authority = CertificateAuthority::new();
    let pems: Vec<_> = ["dns.example", "*.star.example"].iter().map(|name| authority.issue(name)).collect();
    let named = |(number, (chain, key)): (usize, &(String, String))| NamedCertificate {
        name: format!("section{number}"),
        chain_file: format!("{number}.pem").into(),
        key_file: format!("{number}.key").into(),
        certificate: Arc::new(Certificate::read(chain.as_bytes(), key.as_bytes(), &[]).expect("a good certificate")),
    };
    let certificates = pems.iter().enumerate().map(named).collect();
    Keys { authority, pems, certificates }
});

/// The service: it records what it is asked and what it answers.
pub struct Service {
    pub answer: Cell<Answer>,
    late: RefCell<Vec<(Responder, Vec<u8>)>>,
    parts: RefCell<Vec<(SocketAddr, mpsc::Sender<Vec<u8>>)>>,
    /// The queries of each client, in order.
    pub asked: RefCell<HashMap<SocketAddr, Vec<Vec<u8>>>>,
    /// The responses to each client that it has not received yet.
    given: RefCell<HashMap<SocketAddr, Vec<Vec<u8>>>>,
    pending: RefCell<HashMap<SocketAddr, usize>>,
    most_pending: Cell<usize>,
}

impl Service {
    fn take(&self, message: &[u8], responder: &Responder) {
        let peer = responder.peer();
        assert!(responder.asked().is_some_and(|asked| asked.ip().is_loopback()));
        self.asked.borrow_mut().entry(peer).or_default().push(message.to_vec());
        assert_ne!(responder.transport(), Transport::Udp);
        let mut response = response_to(message, Some(responder));
        // No transport can carry the longest.
        let mut fill = |length: u16| {
            let length = usize::from(length) + usize::from(length == u16::MAX);
            response.resize(response.len().max(length), 0xaa);
        };
        match self.answer.get() {
            Answer::Now => self.respond(responder, Cacheability::Answer, response),
            Answer::MadeUp => self.respond(responder, Cacheability::MadeUp, response),
            Answer::Long(length) => {
                fill(length);
                self.respond(responder, Cacheability::Answer, response);
            }
            answer @ (Answer::Late | Answer::LateAndLong(_)) => {
                if let Answer::LateAndLong(length) = answer {
                    fill(length);
                }
                self.begin(peer);
                self.late.borrow_mut().push((responder.clone(), response));
            }
            Answer::Nothing => responder.respond(|_| {}),
            Answer::Parts => {
                self.begin(peer);
                self.parts.borrow_mut().push((peer, responder.respond_in_parts()));
            }
        }
    }

    fn begin(&self, peer: SocketAddr) {
        let mut pending = self.pending.borrow_mut();
        let pending = pending.entry(peer).or_default();
        *pending += 1;
        let most = self.most_pending.get();
        assert!(*pending <= most, "{pending} pending queries of {peer}, of {most}");
    }

    fn finish(&self, peer: SocketAddr) {
        if let Some(pending) = self.pending.borrow_mut().get_mut(&peer) {
            *pending = pending.saturating_sub(1);
        }
    }

    fn respond(&self, responder: &Responder, content: Cacheability, response: Vec<u8>) {
        self.give(responder.peer(), &response);
        responder.respond_with(content, |out| {
            // As much as a buffer of the service may have left.
            out.reserve(response.len() + 8000);
            out.extend(response);
        });
    }

    fn give(&self, peer: SocketAddr, response: &[u8]) {
        self.given.borrow_mut().entry(peer).or_default().push(response.to_vec());
    }

    /// Takes a response that a client has received; `peer` is unknown behind a proxy. Returns false if the
    /// service has not given it, or the client has it already.
    pub fn take_given(&self, peer: Option<SocketAddr>, response: &[u8]) -> bool {
        let mut given = self.given.borrow_mut();
        let take = |list: &mut Vec<Vec<u8>>| {
            let position = list.iter().position(|one| one == response);
            position.map(|position| list.swap_remove(position)).is_some()
        };
        match peer {
            Some(peer) => given.get_mut(&peer).is_some_and(take),
            None => given.values_mut().any(take),
        }
    }

    /// Answers some of the late queries.
    pub fn release(&self, count: usize) {
        let mut late = self.late.borrow_mut();
        let count = count.min(late.len());
        for (responder, response) in late.drain(..count) {
            self.finish(responder.peer());
            self.respond(&responder, Cacheability::Answer, response);
        }
    }

    /// Sends one part of each response in parts, if there is room for it, or ends them.
    pub fn next_part(&self, length: usize, is_end: bool) {
        let mut parts = self.parts.borrow_mut();
        for (peer, part) in parts.iter() {
            if let Ok(permit) = part.try_reserve() {
                let octets = vec![0x55; length.max(12)];
                self.give(*peer, &octets);
                permit.send(octets);
            }
            if is_end {
                self.finish(*peer);
            }
        }
        if is_end {
            parts.clear();
        }
    }
}

/// Returns the response of the service to a message.
pub fn response_to(message: &[u8], responder: Option<&Responder>) -> Vec<u8> {
    let mut out = Vec::new();
    let Ok(query) = read_query(message) else {
        let mut out = message.to_vec();
        out.resize(out.len().max(12), 0);
        return out;
    };
    let form = ClientForm::of(&query);
    write_synthesized(query.question.as_wire(), &form, Rcode::NXDOMAIN, None, true, 1232, &mut out);
    if let (Some(responder), Some(edns)) = (responder, &form.edns) {
        responder.add_hop_options(edns.asks, &mut out);
    }
    out
}

/// The server of one script.
pub struct World {
    pub service: Rc<Service>,
    pub table: Arc<ConnectionTable>,
    pub successor: Arc<ConnectionTable>,
    pub counters: Arc<Counters>,
    pub tls_server: TlsServer,
    served: watch::Sender<ServedAddresses>,
    addresses: HashMap<Door, ListenAddress>,
    tls: HashMap<Door, Arc<TlsListener>>,
    protocols: HashMap<Door, Arc<ArcSwap<Protocols>>>,
    quic: Option<Arc<QuicListener>>,
    stop_reading: Vec<oneshot::Sender<()>>,
    tasks: Vec<JoinHandle<()>>,
    datagrams: Option<(Rc<ListenerSocket>, JoinHandle<()>)>,
    most_open: usize,
    gate: Rc<Gate>,
}

impl World {
    pub fn new(octet: u8) -> Self {
        let rules = rules(octet);
        let service = Rc::new(Service {
            answer: Cell::new(Answer::Now),
            late: RefCell::default(),
            parts: RefCell::default(),
            asked: RefCell::default(),
            given: RefCell::default(),
            pending: RefCell::default(),
            most_pending: Cell::new(rules.in_flight),
        });
        let clients = Arc::new(Clients::new(16, 1));
        let table = |name| ConnectionTable::new(name, rules, Arc::clone(&clients), Instant::now());
        let tls_server = TlsServer::new().expect("randomness");
        tls_server.store().set(KEYS.certificates.clone(), SystemTime::UNIX_EPOCH);
        Self {
            service,
            table: table("section"),
            successor: table("successor"),
            counters: Arc::default(),
            tls_server,
            served: watch::Sender::default(),
            addresses: HashMap::new(),
            tls: HashMap::new(),
            protocols: HashMap::new(),
            quic: None,
            stop_reading: Vec::new(),
            tasks: Vec::new(),
            datagrams: None,
            most_open: rules.max,
            gate: Rc::default(),
        }
    }

    /// Returns the address of a listener, which starts with its first client.
    pub fn address(&mut self, door: Door) -> SocketAddr {
        if let Some(known) = self.addresses.get(&door) {
            return known.socket;
        }
        match door {
            Door::Quic | Door::OtherQuic => self.start_quic(door),
            Door::Udp => self.start_udp(),
            Door::Tcp | Door::Tls | Door::Https | Door::Both | Door::Http | Door::Successor => self.start_tcp(door),
        }
        self.addresses[&door].socket
    }

    fn serve(&mut self, door: Door, socket: SocketAddr) -> ListenAddress {
        let address = ListenAddress { scheme: door.scheme(), socket };
        self.addresses.insert(door, address);
        self.serve_all();
        address
    }

    /// Serves the addresses of all listeners again.
    pub fn serve_all(&self) {
        self.served.send_replace(ServedAddresses::new(self.addresses.values().copied(), []));
    }

    /// Removes a listener, which another process may continue to read.
    pub fn remove(&self, door: Door, is_passed_on: bool) {
        let gone = self.addresses.get(&door).copied();
        let rest = self.addresses.values().copied().filter(|address| Some(*address) != gone);
        self.served.send_replace(ServedAddresses::new(rest, gone.filter(|_| is_passed_on)));
    }

    fn connection_service(&self, door: Door, address: ListenAddress) -> ConnectionService {
        let service = Rc::clone(&self.service);
        ConnectionService {
            address,
            table: Arc::clone(if door == Door::Successor { &self.successor } else { &self.table }),
            served: self.served.subscribe(),
            counters: Arc::clone(&self.counters),
            gate: Rc::clone(&self.gate),
            admits: Box::new(|client| client != NOT_ADMITTED),
            handle: Rc::new(move |message: &[u8], responder: &Responder| service.take(message, responder)),
        }
    }

    fn start_tcp(&mut self, door: Door) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        listener.set_nonblocking(true).expect("a socket need not block");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
        let address = self.serve(door, listener.local_addr().expect("it is bound"));
        let tls = matches!(door, Door::Tls | Door::Https | Door::Both).then(|| {
            let tls = Arc::new(self.tls_server.listener());
            tls.speak(door.protocols().alpn());
            tls
        });
        let spoken = Arc::new(ArcSwap::from_pointee(door.protocols()));
        self.protocols.insert(door, Arc::clone(&spoken));
        if let Some(tls) = &tls {
            self.tls.insert(door, Arc::clone(tls));
        }
        let proxies = Proxies::default();
        proxies.set(&[format!("{PROXY}/32").parse().expect("a prefix")], OwnAddresses::new([address.socket]));
        let protocols = TcpProtocols { spoken, tls, proxies: Arc::new(proxies) };
        let service = self.connection_service(door, address);
        self.tasks.push(spawn_local(tcp::serve(listener, service, protocols)));
    }

    fn start_quic(&mut self, door: Door) {
        let listener = self.quic.get_or_insert_with(|| {
            let server = Arc::new(QuicServer::new().expect("randomness"));
            assert_eq!(format!("{server:?}"), "QuicServer", "no key is shown");
            Arc::new(QuicListener::new(&server, &Arc::new(self.tls_server.quic_listener()), 2))
        });
        let listener = Arc::clone(listener);
        let socket = listener_socket().expect("loopback can be bound");
        let address = self.serve(door, socket.1);
        let worker = u16::from(door == Door::OtherQuic);
        let (stop, is_over) = oneshot::channel();
        self.stop_reading.push(stop);
        let part =
            QuicListenerPart { sockets: vec![socket.0], listener, worker, busy_poll: BusyPoll::new(Duration::ZERO) };
        let service = self.connection_service(door, address);
        self.tasks.push(spawn_local(quic::serve(part, service, is_over)));
    }

    fn start_udp(&mut self) {
        let (socket, address) = listener_socket().expect("loopback can be bound");
        self.serve(Door::Udp, address);
        socket.enable_gro();
        let (service, counters) = (Rc::clone(&self.service), Arc::clone(&self.counters));
        let reading = Rc::clone(&socket);
        let reader = spawn_local(async move {
            let (mut batch, mut out) = (inbox(), SendBatch::new(BATCH, 1232));
            while socket.readable().await.is_ok() {
                let has_more = socket.receive(&mut batch, |batch| {
                    for datagram in batch.datagrams() {
                        assert_eq!(socket.asked_at(datagram.path).port(), address.port());
                        let Some((client, message)) = socket.proxies().unwrap(datagram.peer, datagram.bytes) else {
                            continue;
                        };
                        let response = if message.is_empty() { Vec::new() } else { response_to(message, None) };
                        service.give(client, &response);
                        socket.queue(&mut out, datagram.peer, datagram.path, |out| out.extend(response));
                    }
                    socket.send(&mut out, |_, _| {});
                });
                counters.dropped_many(metrics::DropReason::Overload, socket.take_dropped());
                if has_more {
                    yield_now().await;
                }
            }
        });
        self.datagrams = Some((reading, reader));
    }

    pub fn set_rules(&mut self, octet: u8) {
        let rules = rules(octet);
        // Open connections keep their rules.
        self.service.most_pending.set(self.service.most_pending.get().max(rules.in_flight));
        self.most_open = self.most_open.max(rules.max);
        self.table.set_rules(rules);
    }

    /// Moves the connections by plain TCP to the successor.
    pub fn move_out(&mut self) {
        self.address(Door::Successor);
        let (to, mut moved) = mpsc::unbounded_channel::<MovedConnection>();
        let successor = Arc::clone(&self.successor);
        self.table.move_out("section".to_owned(), to);
        spawn_local(async move {
            while let Some(moved) = moved.recv().await {
                assert_eq!(moved.section, "section");
                successor.adopt(moved);
            }
        });
    }

    /// Changes the certificate and the protocols of new connections.
    pub fn change_tls(&self, octet: u8) {
        let only = [None, Some("section0"), Some("section1"), Some("gone")][usize::from(octet & 3)];
        self.tls.values().for_each(|tls| tls.show_only(only));
        for (door, spoken) in &self.protocols {
            let mut protocols = door.protocols();
            if octet & 4 != 0 && protocols.http.is_some() {
                protocols.is_dns = !protocols.is_dns;
            }
            if let Some(tls) = self.tls.get(door) {
                tls.speak(protocols.alpn());
            }
            spoken.store(Arc::new(protocols));
        }
    }

    pub fn stop_reading(&mut self) {
        self.stop_reading.clear();
    }

    /// Checks the limits that hold at any time.
    pub fn check(&self) {
        // The successor has as many places.
        let open: u64 = Transport::ALL.iter().map(|transport| self.open(*transport)).sum();
        assert!(open <= 2 * self.most_open as u64, "{open} open connections, of {}", self.most_open);
    }

    fn open(&self, transport: Transport) -> u64 {
        self.counters.connections.open[transport as usize].get()
    }

    /// Ends the server after all clients are gone, and checks that nothing stays.
    pub async fn end(mut self) {
        self.service.answer.set(Answer::Nothing);
        self.service.late.borrow_mut().drain(..).for_each(|(responder, _)| responder.respond(|_| {}));
        self.service.parts.borrow_mut().clear();
        self.served.send_replace(ServedAddresses::nowhere([]));
        for task in self.tasks.drain(..) {
            let ended = timeout(PATIENCE, task).await.expect("a listener ends after its clients");
            ended.expect("a listener does not panic");
        }
        if let Some((socket, reader)) = self.datagrams.take() {
            reader.abort();
            let ended = reader.await;
            socket.receive_last(|batch| assert!(batch.datagrams().count() == batch.len()));
            assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()), "the reader panics");
        }
        for transport in Transport::ALL {
            assert_eq!(self.open(transport), 0, "open connections by {transport:?}");
        }
        for (table, name) in [(&self.table, "section"), (&self.successor, "successor")] {
            assert_eq!((table.name(), table.limited().listener()), (name, name));
            let shown = format!("{table:?}");
            assert!(shown.contains("seats: []") && shown.contains(" unsent: 0,"), "{shown}");
        }
    }
}

fn listener_socket() -> io::Result<(Rc<ListenerSocket>, SocketAddr)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let proxies = Proxies::default();
    proxies.set(&[format!("{PROXY}/32").parse().expect("a prefix")], OwnAddresses::new([address]));
    Ok((Rc::new(ListenerSocket::new(socket, Arc::new(proxies), Rc::default())?), address))
}

/// The address of clients that must send a PROXY header.
pub const PROXY: &str = "127.0.0.2";

/// The address of clients that may not connect.
pub const NOT_ADMITTED: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// The time in which a listener ends. A closing connection takes up to a second.
const PATIENCE: Duration = Duration::from_secs(20);
