//! Octets as the script of hostile clients against the real listeners: by UDP, TCP, TLS, HTTP and QUIC, over
//! loopback. `world.rs` is the server, `stream.rs` and `quic.rs` are the clients, `parts.rs` has what needs
//! no client, and `seeds.rs` writes scripts.
//!
//! The first octet chooses the rules of the connections. Each further step is one octet for the kind, and the
//! octets that this kind takes; missing ones are 0. The script has [`PLACES`] places for clients.
//!
//! Checked at all times:
//!
//! - the service gets the whole messages that a client has sent, in order, and nothing else;
//! - a client gets well-formed responses that the service has given to it, each once;
//! - open connections and pending queries stay within their limits;
//! - after the clients are gone, each listener ends, and no connection and no unsent octet is counted.

mod parts;
mod quic;
pub mod seeds;
mod stream;
mod world;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use testkit::{Query, query};
use tokio::task::{LocalSet, yield_now};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion};

use self::quic::QuicClient;
use self::stream::{Manner, StreamClient};
use self::world::{Answer, Door, KEYS, World};

/// Runs a script.
pub fn clients(octets: &[u8]) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Each turn of a task then polls the sockets, so that a few turns settle everything.
    let runtime = runtime.enable_all().event_interval(1).build().expect("a runtime");
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut script = Script(octets);
        let mut run = Run::new(script.octet());
        for _ in 0..MAX_STEPS {
            let Some(step) = script.next() else { break };
            run.step(step, &mut script).await;
        }
        run.end().await;
    });
}

/// Lets the server run for some turns.
async fn settle(turns: u32) {
    for _ in 0..turns {
        yield_now().await;
    }
}

struct Script<'o>(&'o [u8]);

impl<'o> Script<'o> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octet(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// Takes a length and as many octets.
    fn octets(&mut self) -> &'o [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (octets, rest) = self.0.split_at(length);
        self.0 = rest;
        octets
    }
}

#[allow(clippy::large_enum_variant, reason = "there are four of them")]
enum Client {
    Gone,
    Stream(StreamClient),
    Quic(QuicClient),
    Udp(UdpSocket),
}

impl Client {
    fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Gone => None,
            Self::Stream(client) => Some(client.local),
            Self::Quic(client) => client.peer,
            Self::Udp(socket) => socket.local_addr().ok(),
        }
    }
}

struct Run {
    world: World,
    clients: [Client; PLACES],
    /// The addresses of all clients so far.
    met: HashSet<SocketAddr>,
    /// Clients that send nothing more. They close at the end, because the server would wait for each.
    silent: Vec<QuicClient>,
    place: usize,
    id: u16,
    waits: u32,
    /// True after many handshakes at once, which take long.
    is_crowded: bool,
    tls: Vec<Arc<ClientConfig>>,
}

/// The kinds of steps, by their octets.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Connect,
    Select,
    Ask,
    Raw,
    Burst,
    CloseSending,
    Reset,
    Leave,
    Settle,
    Wait,
    Answer,
    Release,
    NextPart,
    Rules,
    Remove,
    MoveOut,
    NameClient,
    Frame,
    Quic,
    ChangeTls,
    Store,
    Listening,
    Deaf,
    Hello,
    StopReading,
    Pressure,
}

impl Step {
    const ALL: [Self; 26] = [
        Self::Connect,
        Self::Select,
        Self::Ask,
        Self::Raw,
        Self::Burst,
        Self::CloseSending,
        Self::Reset,
        Self::Leave,
        Self::Settle,
        Self::Wait,
        Self::Answer,
        Self::Release,
        Self::NextPart,
        Self::Rules,
        Self::Remove,
        Self::MoveOut,
        Self::NameClient,
        Self::Frame,
        Self::Quic,
        Self::ChangeTls,
        Self::Store,
        Self::Listening,
        Self::Deaf,
        Self::Hello,
        Self::StopReading,
        Self::Pressure,
    ];
}

impl Run {
    fn new(rules: u8) -> Self {
        let versions: [&[&'static SupportedProtocolVersion]; 2] = [&[&TLS13], &[&TLS12]];
        let config = |alpn: &[&str], versions: &[&'static SupportedProtocolVersion]| {
            let mut config = ClientConfig::clone(&KEYS.authority.trusted_by(alpn, versions));
            // A script begins without the sessions of earlier ones.
            config.resumption = Resumption::in_memory_sessions(16);
            config.enable_early_data = true;
            Arc::new(config)
        };
        let alpns: [&[&str]; 5] = [&[], &["dot"], &["h2"], &["http/1.1"], &["doq"]];
        let tls = alpns.iter().flat_map(|alpn| versions.map(|versions| config(alpn, versions))).collect();
        let clients = [const { Client::Gone }; PLACES];
        Self {
            world: World::new(rules),
            clients,
            met: HashSet::new(),
            silent: Vec::new(),
            place: 0,
            id: 0,
            waits: 0,
            is_crowded: false,
            tls,
        }
    }

    async fn step(&mut self, step: u8, script: &mut Script<'_>) {
        match Step::ALL[usize::from(step) % Step::ALL.len()] {
            Step::Connect => self.connect(script.octet(), script.octet()).await,
            Step::Select => self.place = usize::from(script.octet()) % PLACES,
            Step::Ask => {
                let (form, query, hold) = (script.octet(), script.octet(), script.octet());
                self.ask(form, query, hold.into()).await;
            }
            Step::Raw => self.send_raw(script.octets()).await,
            Step::Burst => {
                let (form, query, count) = (script.octet(), script.octet(), script.octet());
                for number in 0..count {
                    self.ask(form, query, 0).await;
                    if matches!(self.clients[self.place], Client::Udp(_)) && number % 64 == 63 {
                        settle(1).await;
                    }
                }
            }
            Step::CloseSending | Step::Reset | Step::Leave => self.leave(step).await,
            Step::Settle => self.settle().await,
            Step::Wait => self.wait(script.octet()).await,
            Step::Answer => self.answer(script.octet(), script.number()),
            Step::Release => self.world.service.release(script.octet().into()),
            Step::NextPart => {
                let (length, is_end) = (script.number(), script.octet() & 1 == 1);
                self.world.service.next_part(length.into(), is_end);
                settle(4).await;
            }
            Step::Rules => self.world.set_rules(script.octet()),
            Step::Remove => self.remove(script.octet()).await,
            Step::MoveOut => self.world.move_out(),
            Step::NameClient => {
                let form = script.octet();
                if let Client::Stream(client) = &mut self.clients[self.place] {
                    client.name_client(form).await;
                }
            }
            Step::Frame => {
                let (form, value, stream) = (script.octet(), script.number(), script.octet());
                if let Client::Stream(client) = &mut self.clients[self.place] {
                    client.send_frame(form, value, stream.into()).await;
                }
            }
            Step::Quic => self.step_quic(script).await,
            Step::ChangeTls => self.world.change_tls(script.octet()),
            Step::Store => parts::change_store(self.world.tls_server.store(), script.octet(), script.octets()),
            Step::Listening => parts::inherit(script.octet()),
            Step::Deaf => match &mut self.clients[self.place] {
                Client::Stream(client) => client.is_reading = !client.is_reading,
                Client::Quic(client) => client.is_reading = !client.is_reading,
                Client::Udp(_) | Client::Gone => {}
            },
            Step::Hello => {
                let length = script.number();
                if let Client::Stream(client) = &mut self.clients[self.place] {
                    client.begin_hello(&self.tls[0], length.into()).await;
                }
            }
            Step::StopReading => self.world.stop_reading(),
            Step::Pressure => parts::press(script.octets()),
        }
    }

    async fn connect(&mut self, door: u8, manner: u8) {
        let door = Door::ALL[usize::from(door & 15) % Door::ALL.len()];
        let address = self.world.address(door);
        // A new client takes the place of an earlier one.
        self.vacate();
        let bits = |shift: u8, count: u8| usize::from(manner >> shift & ((1 << count) - 1));
        let source = bits(0, 2) as u8;
        self.clients[self.place] = match door {
            Door::Udp => {
                let socket =
                    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1 + source], 0))).expect("loopback can be bound");
                socket.set_nonblocking(true).expect("a socket need not block");
                Client::Udp(socket)
            }
            Door::Quic | Door::OtherQuic => {
                let count = if self.is_crowded { 1 } else { [1, 1, 2, 34][bits(3, 2)] };
                self.is_crowded |= count > 2;
                // With an old protocol the handshake fails.
                let tls = &self.tls[if bits(5, 1) == 1 { 2 } else { 8 }];
                let mut client = QuicClient::begin(address, tls, count, bits(2, 1) == 1, source);
                if bits(6, 1) == 1 {
                    // Early data, if there is a session: a query, and a request that waits for the handshake.
                    for form in [0, 5] {
                        client.open(&testkit::framed(&self.message(form, true)), true, true);
                    }
                }
                Client::Quic(client)
            }
            Door::Tcp | Door::Tls | Door::Https | Door::Both | Door::Http | Door::Successor => {
                let choice = bits(3, 3);
                let manner = Manner {
                    source,
                    has_small_window: bits(2, 1) == 1,
                    tls: (choice < 5).then(|| Arc::clone(&self.tls[choice * 2 + bits(6, 1)])),
                    is_http2: choice & 1 == 1,
                    server_name: if bits(7, 1) == 1 { "a.star.example" } else { "dns.example" },
                };
                let mut connecting = std::pin::pin!(StreamClient::connect(address, door, manner));
                connecting.as_mut().await.map_or(Client::Gone, Client::Stream)
            }
        };
        // The service knows clients by their addresses, and the system may give one twice.
        if self.clients[self.place].local().is_some_and(|local| !self.met.insert(local)) {
            self.clients[self.place] = Client::Gone;
        }
        match &mut self.clients[self.place] {
            // Its first datagrams have only left.
            Client::Quic(client) if bits(7, 1) == 1 => client.send(),
            _ => self.settle().await,
        }
    }

    /// Returns a message in a form that the script chooses.
    fn message(&mut self, form: u8, is_quic: bool) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let plain = query("www.example.org", if form & 8 == 0 { 1 } else { 252 }).id(if is_quic && form != 0x80 {
            0
        } else {
            self.id
        });
        let with = |query: Query, codes: &[u16]| codes.iter().fold(query, |query, code| query.option(*code, b""));
        match form & 7 {
            0 => plain.to_vec(),
            1 => plain.dnssec_ok().to_vec(),
            2 => with(plain, &[11]).to_vec(),
            3 => with(plain, &[12]).to_vec(),
            4 => with(plain, &[11, 12]).to_vec(),
            5 => plain.opcode(5).to_vec(),
            6 => plain.flags(0x8000).to_vec(),
            _ => plain.to_vec()[..usize::from(form >> 4)].to_vec(),
        }
    }

    /// `form` is the form of the request, `query` that of the message in it.
    async fn ask(&mut self, form: u8, query: u8, hold: usize) {
        let is_quic = matches!(self.clients[self.place], Client::Quic(_));
        let message = self.message(query, is_quic);
        match &mut self.clients[self.place] {
            Client::Stream(client) => client.ask(&message, form, hold).await,
            Client::Quic(client) => {
                let framed = testkit::framed(&message);
                let end = framed.len().saturating_sub(hold);
                client.open(&framed[..end], form & 1 == 0, form & 2 == 0);
            }
            Client::Udp(socket) => drop(socket.send_to(&message, self.world.address(Door::Udp))),
            Client::Gone => {}
        }
    }

    async fn send_raw(&mut self, octets: &[u8]) {
        match &mut self.clients[self.place] {
            Client::Stream(client) => client.write(octets, 0).await,
            Client::Quic(client) => client.write(octets, octets.len() & 1 == 1),
            Client::Udp(socket) => drop(socket.send_to(octets, self.world.address(Door::Udp))),
            Client::Gone => {}
        }
    }

    async fn leave(&mut self, step: u8) {
        let client = &mut self.clients[self.place];
        match (Step::ALL[usize::from(step) % Step::ALL.len()], &mut *client) {
            (Step::CloseSending, Client::Stream(client)) => return client.close_sending().await,
            (Step::Reset, Client::Stream(client)) => client.reset_at_end(),
            (Step::Leave, Client::Quic(client)) => client.close(),
            _ => {}
        }
        self.vacate();
    }

    fn vacate(&mut self) {
        if let Client::Quic(client) = std::mem::replace(&mut self.clients[self.place], Client::Gone) {
            self.silent.push(client);
        }
    }

    /// Lets the server and all clients do all that they can.
    async fn settle(&mut self) {
        settle(TURNS).await;
        for client in &mut self.clients {
            match client {
                Client::Stream(client) => client.read(&self.world.service).await,
                Client::Quic(client) => client.drive(&self.world.service, 6).await,
                Client::Udp(socket) => {
                    let mut buffer = [0; 4096];
                    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                        let peer = socket.local_addr().ok().filter(|_| !is_proxy(socket));
                        assert!(self.world.service.take_given(peer, &buffer[..length]), "a datagram for no query");
                    }
                }
                Client::Gone => {}
            }
        }
        settle(TURNS).await;
        self.world.check();
    }

    async fn wait(&mut self, time: u8) {
        if self.waits < MAX_WAITS {
            self.waits += 1;
            tokio::time::sleep(Duration::from_millis((time % 32).into())).await;
        }
        self.settle().await;
    }

    fn answer(&mut self, kind: u8, length: u16) {
        self.world.service.answer.set(match kind % 7 {
            0 => Answer::Now,
            1 => Answer::MadeUp,
            2 => Answer::Long(length),
            3 => Answer::Late,
            4 => Answer::LateAndLong(length),
            5 => Answer::Nothing,
            _ => Answer::Parts,
        });
    }

    async fn remove(&mut self, form: u8) {
        let door = Door::ALL[usize::from(form & 15) % Door::ALL.len()];
        match form >> 4 & 3 {
            0 => self.world.remove(door, false),
            1 => self.world.remove(door, true),
            _ => self.world.serve_all(),
        }
        if form >> 6 & 1 == 0 {
            settle(TURNS).await;
        }
    }

    async fn step_quic(&mut self, script: &mut Script<'_>) {
        let form = script.octet();
        let other = (form % 12 == 6).then(|| self.world.address(Door::OtherQuic));
        let raw = if form % 12 == 7 { script.octets() } else { &[] };
        let Client::Quic(client) = &mut self.clients[self.place] else { return };
        match form % 12 {
            0 => client.reset(),
            1 => client.stop(),
            2 => client.move_on(),
            3 => client.ping(),
            4 => client.update_keys(),
            5 => client.close(),
            6 => client.to = other.unwrap_or(client.to),
            7 => client.send_raw(raw),
            8 => client.send(),
            9 => client.write(&[], true),
            _ => client.drive(&self.world.service, 2).await,
        }
    }

    async fn end(mut self) {
        self.settle().await;
        for place in 0..PLACES {
            self.place = place;
            self.vacate();
        }
        self.silent.iter_mut().for_each(QuicClient::close);
        self.world.end().await;
    }
}

fn is_proxy(socket: &UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|local| local.ip().to_string() == world::PROXY)
}

/// The places for clients.
const PLACES: usize = 6;

/// The steps of a script that are run.
const MAX_STEPS: usize = 400;

/// The steps that wait for up to 31 ms.
const MAX_WAITS: u32 = 6;

const TURNS: u32 = 16;
