//! A client by TLS and by QUIC: many connections with many queries outstanding on each, a storm of
//! handshakes, and idle connections. One thread does all, in a separate process; every response is checked.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, StreamEvent,
    StreamId, TransportConfig,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig as TlsConfig, ClientConnection, RootCertStore};

use crate::common::encrypted::NAME;
use crate::common::message::{self, Expect, Lengths};
use crate::common::process::Process;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Task {
    /// A closed loop by TLS.
    Tls,
    /// A closed loop by QUIC.
    Quic,
    /// Full handshakes by TLS, all begun at once.
    Storm,
    /// One query on each connection by TLS, and then nothing until stdin is closed.
    Idle,
}

/// The arguments of a client.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StreamPlan {
    #[arg(long)]
    pub(crate) task: Task,
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// The certificate of the authority that signed the server's.
    #[arg(long)]
    pub(crate) ca: PathBuf,
    #[arg(long)]
    pub(crate) connections: usize,
    /// For so long, in seconds.
    #[arg(long)]
    pub(crate) secs: f64,
}

impl StreamPlan {
    /// Starts the client. It is at work, or with [`Task::Idle`] ready, when this returns.
    pub(crate) fn start(&self, core: Option<usize>) -> io::Result<Process> {
        let Self { task, server, ca, connections, secs } = self;
        let task = match task {
            Task::Tls => "tls",
            Task::Quic => "quic",
            Task::Storm => "storm",
            Task::Idle => "idle",
        };
        let words = ["stream-client", "--task", task, "--server", &server.to_string(), "--ca", &ca.to_string_lossy()]
            .map(str::to_owned);
        let numbers = format!("--connections {connections} --secs {secs}");
        let arguments: Vec<String> = words.into_iter().chain(numbers.split(' ').map(str::to_owned)).collect();
        Process::role(&arguments, core).map(|(process, _)| process)
    }
}

/// The results of a client.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Right answers, or handshakes.
    pub(crate) count: u64,
    /// Within so many seconds.
    pub(crate) secs: f64,
}

/// Queries outstanding on a connection.
const OUTSTANDING: usize = 8;
/// Names asked for, all of which the server has in its cache.
pub(crate) const NAMES: u32 = 10_000;
/// The timeout of the slowest step.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the task, and prints the results at the end.
pub(crate) fn run(plan: &StreamPlan) -> Result<(), Box<dyn Error>> {
    let done = match plan.task {
        Task::Tls => load_tls(plan)?,
        Task::Quic => load_quic(plan)?,
        Task::Storm => storm(plan)?,
        Task::Idle => idle(plan)?,
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// Reports to the parent process that the client is at work.
fn say_ready() -> io::Result<()> {
    println!("ready");
    io::stdout().flush()
}

/// Returns the config of a TLS 1.3 client that trusts the authority of the run.
fn trusting(plan: &StreamPlan, alpn: &str) -> Result<Arc<TlsConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(&plan.ca)?)?)?;
    let builder = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    Ok(Arc::new(config))
}

/// A connection by TLS.
struct Stream {
    session: ClientConnection,
    socket: TcpStream,
    /// Received bytes that are no whole message yet.
    octets: Vec<u8>,
    outstanding: usize,
    /// The ID of the next query, which is the number of its name too.
    next: u16,
}

impl Stream {
    /// Connected, before the handshake.
    fn connect(server: SocketAddr, config: &Arc<TlsConfig>) -> Result<Self, Box<dyn Error>> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let session = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?;
        Ok(Self { session, socket, octets: Vec::new(), outstanding: 0, next: 0 })
    }

    /// Ready for queries, and does not block any more.
    fn open(server: SocketAddr, config: &Arc<TlsConfig>) -> Result<Self, Box<dyn Error>> {
        let mut stream = Self::connect(server, config)?;
        while stream.session.is_handshaking() {
            stream.session.complete_io(&mut stream.socket)?;
        }
        stream.socket.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Adds a query to what is to be sent.
    fn queue(&mut self) -> io::Result<()> {
        let id = self.next;
        self.next = (id + 1) % NAMES as u16;
        self.outstanding += 1;
        self.session.writer().write_all(&framed(u32::from(id), id))
    }

    /// Sends and receives what can be, and returns how many right answers came.
    fn drive(&mut self) -> Result<u64, Box<dyn Error>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.session.read_tls(&mut self.socket) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(_) => {
                    self.session.process_new_packets()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            let mut read = [0; 16 << 10];
            while let Ok(length @ 1..) = self.session.reader().read(&mut read) {
                self.octets.extend_from_slice(&read[..length]);
            }
        }
        let mut rest = &self.octets[..];
        let mut answers = 0;
        while let Some((message, behind)) = first_message(rest) {
            let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            check(message, u32::from(id))?;
            answers += 1;
            rest = behind;
        }
        let used = self.octets.len() - rest.len();
        self.octets.drain(..used);
        self.outstanding -= answers;
        Ok(answers as u64)
    }
}

/// A query behind its length.
fn framed(number: u32, id: u16) -> Vec<u8> {
    let mut query = vec![0; 2];
    message::write_query(number, Lengths::Mixed, false, id, &mut query);
    let length = query.len() as u16 - 2;
    query[..2].copy_from_slice(&length.to_be_bytes());
    query
}

/// The first whole message, and what is behind it.
fn first_message(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Complains of what is not the right answer.
fn check(message: &[u8], number: u32) -> Result<(), Box<dyn Error>> {
    match message::is_right(message, number, Lengths::Mixed, false, Expect::Answer) {
        true => Ok(()),
        false => Err(format!("a wrong answer for {number}: {message:02x?}").into()),
    }
}

/// Waits until one of them can be read.
fn wait<'a>(sockets: impl Iterator<Item = &'a TcpStream>) -> io::Result<()> {
    let mut ready: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 })).map(drop).map_err(Into::into)
}

/// A closed loop by TLS.
fn load_tls(plan: &StreamPlan) -> Result<Done, Box<dyn Error>> {
    let config = trusting(plan, "dot")?;
    let mut streams =
        (0..plan.connections).map(|_| Stream::open(plan.server, &config)).collect::<Result<Vec<_>, _>>()?;
    say_ready()?;
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed().as_secs_f64() < plan.secs {
        for stream in &mut streams {
            count += stream.drive()?;
            while stream.outstanding < OUTSTANDING {
                stream.queue()?;
            }
            count += stream.drive()?;
        }
        wait(streams.iter().map(|stream| &stream.socket))?;
    }
    Ok(Done { count, secs: begin.elapsed().as_secs_f64() })
}

/// Handshakes that are all begun before any goes on.
fn storm(plan: &StreamPlan) -> Result<Done, Box<dyn Error>> {
    let config = trusting(plan, "dot")?;
    let mut streams =
        (0..plan.connections).map(|_| Stream::connect(plan.server, &config)).collect::<Result<Vec<_>, _>>()?;
    say_ready()?;
    let begin = Instant::now();
    for stream in &mut streams {
        stream.socket.set_nonblocking(true)?;
        stream.session.write_tls(&mut stream.socket)?;
    }
    let count = streams.len() as u64;
    while !streams.is_empty() {
        if begin.elapsed() > PATIENCE {
            return Err(format!("{} handshakes are not over", streams.len()).into());
        }
        wait(streams.iter().map(|stream| &stream.socket))?;
        for stream in &mut streams {
            stream.drive()?;
        }
        streams.retain(|stream| stream.session.is_handshaking() || stream.session.wants_write());
    }
    Ok(Done { count, secs: begin.elapsed().as_secs_f64() })
}

/// Connections that have asked once.
fn idle(plan: &StreamPlan) -> Result<Done, Box<dyn Error>> {
    let config = trusting(plan, "dot")?;
    let begin = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..plan.connections {
        let mut stream = Stream::open(plan.server, &config)?;
        stream.queue()?;
        while stream.drive()? == 0 {
            wait([&stream.socket].into_iter())?;
        }
        streams.push(stream);
    }
    say_ready()?;
    let secs = begin.elapsed().as_secs_f64();
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(Done { count: streams.len() as u64, secs })
}

/// A connection by QUIC.
struct Quic {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    socket: UdpSocket,
    server: SocketAddr,
    /// The bytes received on each stream, and the name it asked for.
    streams: HashMap<StreamId, (u32, Vec<u8>)>,
    next: u32,
    datagram: Vec<u8>,
}

impl Quic {
    fn connect(server: SocketAddr, config: &Arc<TlsConfig>) -> Result<Self, Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(Arc::clone(config))?));
        let mut transport = TransportConfig::default();
        transport.mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
        let (handle, connection) = endpoint.connect(Instant::now(), config, server, NAME)?;
        let (streams, datagram) = (HashMap::new(), Vec::new());
        Ok(Self { endpoint, handle, connection, socket, server, streams, next: 0, datagram })
    }

    /// Receives, asks for more, and sends. Returns how many right answers came.
    fn drive(&mut self) -> Result<u64, Box<dyn Error>> {
        let now = Instant::now();
        let mut received = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut received) {
            let octets = BytesMut::from(&received[..length]);
            let event = self.endpoint.handle(now, self.server, None, None, octets, &mut self.datagram);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        let mut answers = 0;
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) => answers += self.read(id)?,
                Event::ConnectionLost { reason } => return Err(reason.into()),
                _ => {}
            }
        }
        while !self.connection.is_handshaking() && self.streams.len() < OUTSTANDING {
            let Some(id) = self.connection.streams().open(Dir::Bi) else { break };
            let mut stream = self.connection.send_stream(id);
            stream.write(&framed(self.next, 0))?;
            stream.finish()?;
            self.streams.insert(id, (self.next, Vec::new()));
            self.next = (self.next + 1) % NAMES;
        }
        self.datagram.clear();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut self.datagram) {
            // Lost on the way, if the system does not take it.
            let _ = self.socket.send(&self.datagram[..transmit.size]);
            self.datagram.clear();
        }
        Ok(answers)
    }

    /// Reads a stream. 1 if its answer is whole.
    fn read(&mut self, id: StreamId) -> Result<u64, Box<dyn Error>> {
        let mut is_over = false;
        let mut stream = self.connection.recv_stream(id);
        if let (Ok(mut chunks), Some((_, octets))) = (stream.read(true), self.streams.get_mut(&id)) {
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => octets.extend_from_slice(&chunk.bytes),
                    Ok(None) => {
                        is_over = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let _ = chunks.finalize();
        }
        if !is_over {
            return Ok(0);
        }
        if let Some((number, octets)) = self.streams.remove(&id) {
            check(first_message(&octets).map_or(&[], |(message, _)| message), number)?;
        }
        Ok(1)
    }
}

/// A closed loop by QUIC.
fn load_quic(plan: &StreamPlan) -> Result<Done, Box<dyn Error>> {
    let config = trusting(plan, "doq")?;
    let mut clients =
        (0..plan.connections).map(|_| Quic::connect(plan.server, &config)).collect::<Result<Vec<_>, _>>()?;
    let mut begin = Instant::now();
    let mut is_ready = false;
    let mut count = 0;
    loop {
        for client in &mut clients {
            count += client.drive()?;
        }
        if !is_ready && clients.iter().all(|client| !client.connection.is_handshaking()) {
            is_ready = true;
            say_ready()?;
            (begin, count) = (Instant::now(), 0);
        }
        let secs = begin.elapsed().as_secs_f64();
        if is_ready && secs >= plan.secs {
            return Ok(Done { count, secs });
        }
        if begin.elapsed() > PATIENCE {
            return Err("the handshakes are not over".into());
        }
        let mut ready: Vec<_> = clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)).collect();
        poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }))?;
    }
}
