//! Scripted backends: UDP and TCP on one port, replies by a [`Script`], every query on record.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use proxy_header::{ParseConfig, ProxyHeader};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::message::*;
use crate::{PATIENCE, Script, Sending, Source, When, until};

/// A backend that does what its script says. It answers probes by itself, as a server that is silent
/// about a name does, unless [`Backend::play_dead`] stops that. Dropping it frees its port.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// One for UDP, one for TCP.
    threads: Vec<JoinHandle<()>>,
}

/// A query that reached a backend.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The message as it came.
    pub bytes: Vec<u8>,
    /// The source of the query.
    pub peer: SocketAddr,
    /// The time of its arrival.
    pub at: Instant,
    /// True if the query came by TCP.
    pub tcp: bool,
    /// The client named by the PROXY header before the query or its connection, and the address it asked;
    /// "us" without a header.
    pub named: Option<String>,
}

impl Backend {
    /// On 127.0.0.1, UDP and TCP.
    pub fn new(script: Script) -> Self {
        Self::start("127.0.0.1:0", script, true)
    }

    /// On another address, with a port or with 0.
    pub fn at(address: &str, script: Script) -> Self {
        Self::start(address, script, true)
    }

    /// Connections by TCP are refused.
    pub fn without_tcp(script: Script) -> Self {
        Self::start("127.0.0.1:0", script, false)
    }

    /// Answers probes as this script does, and all else as that.
    pub fn probed(probes: Script, script: Script) -> Self {
        let backend = Self::new(script);
        backend.answer_probes(probes);
        backend
    }

    /// Answers probes as this script does, from now on.
    pub fn answer_probes(&self, script: Script) {
        self.shared.state().probe_script = script;
    }

    /// Says nothing at all, not even to probes.
    pub fn dead() -> Self {
        let backend = Self::new(crate::silent());
        backend.play_dead(true);
        backend
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leaves probes without a reply from now on, or answers them again.
    pub fn play_dead(&self, dead: bool) {
        self.shared.dead.store(dead, Ordering::Relaxed);
    }

    /// All queries so far but probes, in order of arrival.
    pub fn queries(&self) -> Vec<Seen> {
        self.shared.state().queries.clone()
    }

    /// The queries for one name (in lower case).
    pub fn queries_for(&self, name: &str) -> Vec<Seen> {
        let mut queries = self.queries();
        queries.retain(|seen| seen.name() == name);
        queries
    }

    /// Waits until so many queries (but probes) have come; returns all.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        self.wait_until(&format!("{count} queries"), |state| state.queries.len() >= count)
    }

    /// Waits until so many queries for one name have come; returns all of that name.
    pub fn wait_for_name(&self, name: &str, count: usize) -> Vec<Seen> {
        self.wait_until(&format!("{count} queries for {name}"), |state| {
            state.queries.iter().filter(|seen| seen.name() == name).count() >= count
        });
        self.queries_for(name)
    }

    /// All probes so far, in order of arrival.
    pub fn probes(&self) -> Vec<Seen> {
        self.shared.state().probes.clone()
    }

    /// Waits until so many probes have come; returns all.
    pub fn wait_for_probes(&self, count: usize) -> Vec<Seen> {
        self.wait_until(&format!("{count} probes"), |state| state.probes.len() >= count);
        self.probes()
    }

    /// Lets go of all replies that are held.
    pub fn release(&self) {
        let held = std::mem::take(&mut self.shared.state().held);
        for (way, bytes) in held {
            way.send(&bytes);
        }
    }

    /// Waits until `done`; returns all queries.
    fn wait_until(&self, what: &str, done: impl Fn(&State) -> bool) -> Vec<Seen> {
        let state = self.shared.state();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !done(state))
            .expect("no backend thread panics");
        assert!(!timeout.timed_out(), "{what} expected, but came: {:?}", state.queries);
        state.queries.clone()
    }

    /// Binds and starts both threads.
    fn start(address: &str, script: Script, with_tcp: bool) -> Self {
        let (udp, tcp) = bind_both(address.parse().expect("an address with a port"));
        let address = udp.local_addr().expect("a bound socket has an address");
        let sources = Sources::new(udp, address);
        let shared = Arc::new(Shared::new(script));
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve_udp(&sources)
        }));
        if with_tcp {
            tcp.listen(64).expect("a bound socket can listen");
        }
        // A socket that is bound and never listens refuses connections and keeps the port.
        threads.push(thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let listener = TcpListener::from(tcp);
                if with_tcp {
                    shared.serve_tcp(&listener);
                } else {
                    shared.wait_for_end();
                }
            }
        }));
        Self { address, shared, threads }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.end();
        // Both threads wait in the kernel: a datagram and a connection wake them.
        let waker = UdpSocket::bind((self.address.ip(), 0));
        let _ = waker.and_then(|waker| waker.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let panicked = thread.join().is_err();
            assert!(!panicked || thread::panicking(), "a backend thread panicked");
        }
    }
}

/// An address without a server: UDP gets ICMP port unreachable, TCP gets RST. The port stays taken, so that
/// no other socket of the machine gets it meanwhile.
pub struct Closed {
    address: SocketAddr,
    _udp: UdpSocket,
    _tcp: Socket,
}

impl Closed {
    /// Creates a closed port, which no other program can take.
    pub fn new() -> Self {
        let (udp, tcp) = bind_both((Ipv4Addr::LOCALHOST, 0).into());
        let address = udp.local_addr().expect("a bound socket has an address");
        // A connected socket takes datagrams of its peer only. For all others the port is closed.
        udp.connect((Ipv4Addr::LOCALHOST, 1)).expect("connecting UDP sends nothing");
        Self { address, _udp: udp, _tcp: tcp }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Seen {
    /// The ID that hedgerow chose.
    pub fn id(&self) -> u16 {
        word(&self.bytes, 0)
    }

    /// The second word of the header.
    pub fn flags(&self) -> u16 {
        word(&self.bytes, 2)
    }

    /// The name asked, in lower case, with dots between the labels; empty is the root.
    pub fn name(&self) -> String {
        let mut labels = Vec::new();
        let mut rest = question_of(&self.bytes);
        while let Some((&length, tail)) = rest.split_first() {
            if length == 0 {
                break;
            }
            let (label, tail) = tail.split_at(length.into());
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            rest = tail;
        }
        labels.join(".")
    }

    /// The options of the OPT record, if there is one.
    pub fn options(&self) -> Option<Vec<(u16, Vec<u8>)>> {
        opt_of(&self.bytes)
    }

    /// The data of the COOKIE option, if there is one.
    pub fn cookie(&self) -> Option<Vec<u8>> {
        cookie_of(&self.bytes)
    }

    /// `. NS`, the default probe of hedgerow.
    pub fn is_probe(&self) -> bool {
        question_of(&self.bytes) == [0, 0, 2, 0, 1]
    }
}

/// The state shared by the threads of a backend and its handle.
struct Shared {
    state: Mutex<State>,
    /// Notified after each change.
    changed: Condvar,
    /// True if probes stay without a reply.
    dead: AtomicBool,
}

/// The record of a backend, and what it still has to say.
struct State {
    /// Decides what is sent.
    script: Script,
    /// The script for probes.
    probe_script: Script,
    /// All so far but probes.
    queries: Vec<Seen>,
    /// All probes so far.
    probes: Vec<Seen>,
    /// Replies that wait for `release`.
    held: Vec<(Way, Vec<u8>)>,
    /// Set when the handle is dropped.
    ended: bool,
}

impl Shared {
    fn new(script: Script) -> Self {
        let probe_script = crate::rcode(REFUSED);
        let state =
            State { script, probe_script, queries: Vec::new(), probes: Vec::new(), held: Vec::new(), ended: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), dead: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no backend thread panics")
    }

    /// Makes the threads end once they wake.
    fn end(&self) {
        // A test that fails while it looks at the state leaves that poisoned, and is to end all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    /// Runs as the TCP thread of a backend without TCP.
    fn wait_for_end(&self) {
        let ended = self.changed.wait_while(self.state(), |state| !state.ended);
        drop(ended.expect("no backend thread panics"));
    }

    /// Reacts to datagrams until the end.
    fn serve_udp(&self, sources: &Sources) {
        let mut buffer = [0; 65_535];
        loop {
            // An error here is ICMP's word about an earlier reply, whose client is gone.
            let Ok((length, peer)) = sources.asked.recv_from(&mut buffer) else {
                continue;
            };
            if self.state().ended {
                return;
            }
            if length < 12 {
                continue;
            }
            let (named, bytes) = behind_header(&buffer[..length], false);
            let seen = Seen { bytes: bytes.to_vec(), peer, at: Instant::now(), tcp: false, named };
            self.react(seen, |source| Way::Udp(Arc::clone(sources.socket(source)), peer));
        }
    }

    /// Accepts connections until the end.
    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.state().ended {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(self);
            // Ends when hedgerow closes the connection.
            thread::spawn(move || shared.serve_connection(&stream));
        }
    }

    /// Reacts to the queries of one connection until it is closed.
    fn serve_connection(&self, stream: &TcpStream) -> Option<()> {
        let peer = stream.peer_addr().ok()?;
        let writer = Arc::new(Mutex::new(stream.try_clone().ok()?));
        let mut reader = stream;
        let mut named = None;
        loop {
            let mut length = [0; 2];
            reader.read_exact(&mut length).ok()?;
            if length == *b"\r\n" && named.is_none() {
                let mut header = [&length[..], &[0; 14]].concat();
                reader.read_exact(&mut header[2..]).ok()?;
                header.resize(16 + usize::from(word(&header, 14)), 0);
                reader.read_exact(&mut header[16..]).ok()?;
                named = behind_header(&header, true).0;
                continue;
            }
            let mut bytes = vec![0; u16::from_be_bytes(length).into()];
            reader.read_exact(&mut bytes).ok()?;
            if self.state().ended {
                stream.shutdown(Shutdown::Both).ok()?;
            }
            let seen = Seen { bytes, peer, at: Instant::now(), tcp: true, named: named.clone() };
            self.react(seen, |_| Way::Tcp(Arc::clone(&writer)));
        }
    }

    /// Records a query and sends the datagrams of the script. The record comes first: a client that saw a
    /// reply also finds the query.
    fn react(&self, seen: Seen, way: impl Fn(Source) -> Way) {
        let mut state = self.state();
        if seen.is_probe() {
            if !self.dead.load(Ordering::Relaxed) {
                for Sending { bytes, source, .. } in state.probe_script.react(&seen) {
                    way(source).send(&bytes);
                }
            }
            state.probes.push(seen);
            drop(state);
            self.changed.notify_all();
            return;
        }
        let sendings = state.script.react(&seen);
        state.queries.push(seen);
        for Sending { bytes, when, source } in sendings {
            let way = way(source);
            match when {
                When::Now => way.send(&bytes),
                When::Released => state.held.push((way, bytes)),
                When::After(delay) => {
                    thread::spawn(move || {
                        thread::sleep(delay);
                        way.send(&bytes);
                    });
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Returns the client that a PROXY header names, if there is one, and the bytes behind it.
fn behind_header(octets: &[u8], is_stream: bool) -> (Option<String>, &[u8]) {
    if !octets.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        return (None, octets);
    }
    let (header, length) = ProxyHeader::parse(octets, ParseConfig::default()).expect("a sound header");
    let named = header.proxied_address().map_or_else(
        || "us".to_owned(),
        |address| {
            assert_eq!(address.protocol == proxy_header::Protocol::Stream, is_stream, "by which transport it is asked");
            format!("{} asked {}", address.source, address.destination)
        },
    );
    (Some(named), &octets[length..])
}

/// The reply channel to the client.
enum Way {
    /// By this socket, to this address.
    Udp(Arc<UdpSocket>, SocketAddr),
    /// On this connection.
    Tcp(Arc<Mutex<TcpStream>>),
}

impl Way {
    /// Sends a datagram. An error is ignored, because the client may have gone.
    fn send(&self, bytes: &[u8]) {
        let _gone: io::Result<()> = match self {
            Self::Udp(socket, peer) => socket.send_to(bytes, peer).map(drop),
            Self::Tcp(stream) => stream
                .lock()
                .expect("nothing panics while it writes")
                .write_all(&[&(bytes.len() as u16).to_be_bytes(), bytes].concat()),
        };
    }
}

/// The sockets that datagrams leave from: the one asked, and two for forgeries.
struct Sources {
    /// The one that was asked.
    asked: Arc<UdpSocket>,
    /// Of the same address.
    other_port: Arc<UdpSocket>,
    /// Of the same port.
    other_address: Arc<UdpSocket>,
}

impl Sources {
    /// Binds the other two.
    fn new(asked: UdpSocket, address: SocketAddr) -> Self {
        let other_port = UdpSocket::bind((address.ip(), 0)).expect("a port is free");
        // All of 127.0.0.0/8 is the loopback interface's. IPv6 has one loopback address only: there
        // the other port must do.
        let other_address = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), address.port()))
            .or_else(|_| other_port.try_clone())
            .expect("a socket can be cloned");
        Self { asked: Arc::new(asked), other_port: Arc::new(other_port), other_address: Arc::new(other_address) }
    }

    /// The socket that stands for `source`.
    fn socket(&self, source: Source) -> &Arc<UdpSocket> {
        match source {
            Source::Asked => &self.asked,
            Source::OtherPort => &self.other_port,
            Source::OtherAddress => &self.other_address,
        }
    }
}

/// A UDP and a TCP socket on one port; the TCP socket does not listen yet.
///
/// A port that was free a moment ago may serve another socket of the machine for a query or two, or have its
/// number for an outgoing connection by TCP: port 0 finds the next one, and a certain port is waited for.
fn bind_both(address: SocketAddr) -> (UdpSocket, Socket) {
    until("a port is free for both UDP and TCP", || {
        let udp = UdpSocket::bind(address).ok()?;
        let chosen = udp.local_addr().expect("a bound socket has an address");
        let tcp = Socket::new(Domain::for_address(chosen), Type::STREAM, None).expect("a socket");
        // Connections of the port's previous owner may be in TIME-WAIT.
        tcp.set_reuse_address(true).expect("an option of every socket");
        tcp.bind(&SockAddr::from(chosen)).ok()?;
        Some((udp, tcp))
    })
}
