//! Scripted QUIC backends; some of their connections misbehave as scripted. A thread for each backend; probes
//! are always answered.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::NAME;
use super::quic_server::{TestQuicQuery, TestQuicServer, tls};
use crate::{CertificateAuthority, KEEPALIVE, Script, Seen};

/// The reaction of a connection to queries other than probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuicManner {
    /// Answers each.
    Answers,
    /// Waits for so many, and answers the last first.
    Reverses(usize),
    /// Answers each so much later.
    AnswersAfter(Duration),
    /// When so many wait, nothing comes through any more in either direction.
    DiesWith(usize),
    /// Resets the stream of each, by this error code.
    ResetsStreams(u32),
    /// Closes the connection by this error code when so many wait.
    ClosesWith(usize, u32),
    /// Answers so many, and closes.
    ClosesAfter(usize),
    /// Does so with the first, and has forgotten all sessions then.
    Forgets,
    /// Answers with another ID than 0.
    MistakesIds,
    /// Answers another question.
    MistakesQuestions,
    /// Agrees on another protocol than ours alone.
    MistakesProtocol,
    /// Hears nothing.
    Hangs,
}

/// A backend by QUIC.
pub struct QuicBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: QuicManner,
    /// The first so many connections behave so; all others answer.
    faulty: usize,
    script: Mutex<Script>,
    /// Connections on which something else than a probe was asked.
    asked: AtomicUsize,
    /// Queries that were no probes.
    queries: AtomicUsize,
    /// The queries that came before a handshake was complete.
    early: AtomicUsize,
    /// Of each its length, and whether its ID was 0 and it has an OPT record alone besides its question.
    seen: Mutex<Vec<(usize, bool)>>,
}

/// The backend's own thread.
struct Serving {
    shared: Arc<Shared>,
    socket: UdpSocket,
    server: TestQuicServer,
    fresh: Box<dyn Fn() -> TestQuicServer + Send>,
    /// Connections with queries, in their order.
    orders: HashMap<SocketAddr, usize>,
    /// Queries waiting on each connection.
    waiting: HashMap<SocketAddr, Vec<TestQuicQuery>>,
    answered: HashMap<SocketAddr, usize>,
    /// Nothing comes through from or to these.
    dead: HashSet<SocketAddr>,
    /// Queries to answer later.
    later: Vec<(Instant, TestQuicQuery)>,
}

impl QuicBackend {
    /// One whose connections all answer as this script does.
    pub fn new(ca: &CertificateAuthority, script: Script) -> Self {
        Self::misbehaving(QuicManner::Answers, 0, ca, script)
    }

    /// One of whose connections the first so many misbehave.
    pub fn misbehaving(manner: QuicManner, faulty: usize, ca: &CertificateAuthority, script: Script) -> Self {
        Self::allowing(1_000, manner, faulty, ca, script)
    }

    /// Starts a misbehaving backend whose connections each allow so many concurrent streams.
    pub fn allowing(
        streams: u32,
        manner: QuicManner,
        faulty: usize,
        ca: &CertificateAuthority,
        script: Script,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            manner,
            faulty,
            script: Mutex::new(script),
            asked: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            early: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let shows = ca.leaf(&[NAME]).server();
        let protocol: &[&[u8]] = if manner == QuicManner::MistakesProtocol { &[b"h3"] } else { &[b"doq"] };
        let fresh = move || {
            TestQuicServer::new(tls(&shows, protocol), |transport| {
                transport.max_concurrent_bidi_streams(streams.into());
            })
        };
        let mut serving = Serving {
            shared: Arc::clone(&shared),
            socket,
            server: fresh(),
            fresh: Box::new(fresh),
            orders: HashMap::new(),
            waiting: HashMap::new(),
            answered: HashMap::new(),
            dead: HashSet::new(),
            later: Vec::new(),
        };
        // Ends with the test: a process that is gone takes its threads along.
        thread::spawn(move || while serving.turn().is_ok() {});
        Self { address, shared }
    }

    /// Returns the address of the backend.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it stands in `backends`.
    pub fn entry(&self) -> String {
        format!("{{ address = 'quic://{}#dns.example', ca = 'ca.pem' }}", self.address)
    }

    /// Connections on which something else than probes was asked.
    pub fn connections(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Queries that were no probes.
    pub fn queries(&self) -> usize {
        self.shared.queries.load(Ordering::SeqCst)
    }

    /// Returns the number of queries that came before a handshake was complete.
    pub fn early(&self) -> usize {
        self.shared.early.load(Ordering::SeqCst)
    }

    /// Of each query its length, and whether it was as it should be.
    pub fn seen(&self) -> Vec<(usize, bool)> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Serving {
    fn turn(&mut self) -> io::Result<()> {
        let next = self.server.next_timeout().into_iter().chain(self.later.iter().map(|(at, _)| *at)).min();
        let wait = next.map_or(MAX_WAIT, |at| at.saturating_duration_since(Instant::now()));
        self.socket.set_read_timeout(Some(wait.clamp(MIN_WAIT, MAX_WAIT)))?;
        let mut room = [0; 2_048];
        if let Ok((octets, peer)) = self.socket.recv_from(&mut room)
            && self.shared.manner != QuicManner::Hangs
            && !self.dead.contains(&peer)
        {
            self.server.hear(peer, &room[..octets], Instant::now());
        }
        let now = Instant::now();
        self.server.turn(now);
        for query in std::mem::take(&mut self.server.queries) {
            if let Some(peer) = self.server.connections.get(&query.connection).map(|it| it.remote_address()) {
                self.asked(peer, query, now);
            }
        }
        for (_, query) in self.later.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            self.answer(&query, |_| ());
        }
        for (peer, datagram) in self.server.datagrams(now) {
            if !self.dead.contains(&peer) {
                // An error is ignored, because the peer may have gone.
                let _ = self.socket.send_to(&datagram, peer);
            }
        }
        if self.shared.manner == QuicManner::Forgets && self.answered.values().any(|answered| *answered > 0) {
            self.answered.clear();
            self.server = (self.fresh)();
        }
        Ok(())
    }

    fn asked(&mut self, peer: SocketAddr, query: TestQuicQuery, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let seen = Seen { bytes: query.frame[2..].to_vec(), peer, at: now, tcp: true, named: None };
        if seen.is_probe() {
            return self.answer(&query, |_| ());
        }
        let order = *self.orders.entry(peer).or_insert_with(|| shared.asked.fetch_add(1, Ordering::SeqCst));
        shared.queries.fetch_add(1, Ordering::SeqCst);
        shared.early.fetch_add(usize::from(query.is_early), Ordering::SeqCst);
        // RFC 9250 section 5.5.2: no keepalive.
        let has_keepalive = seen.options().is_some_and(|options| options.iter().any(|(code, _)| *code == KEEPALIVE));
        let is_sound = seen.bytes.starts_with(&[0, 0]) && seen.bytes[6..12] == [0, 0, 0, 0, 0, 1] && !has_keepalive;
        shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push((seen.bytes.len(), is_sound));
        let manner = if order < shared.faulty { shared.manner } else { QuicManner::Answers };
        let waiting = self.waiting.entry(peer).or_default();
        match manner {
            QuicManner::Answers | QuicManner::MistakesProtocol => self.answer(&query, |_| ()),
            QuicManner::Hangs => {}
            QuicManner::Reverses(count) => {
                waiting.push(query);
                if waiting.len() == count {
                    let waiting = std::mem::take(waiting);
                    waiting.iter().rev().for_each(|query| self.answer(query, |_| ()));
                }
            }
            QuicManner::AnswersAfter(delay) => self.later.push((now + delay, query)),
            QuicManner::DiesWith(count) => {
                waiting.push(query);
                if waiting.len() == count {
                    self.dead.insert(peer);
                }
            }
            QuicManner::ResetsStreams(code) => self.server.reset(&query, code),
            QuicManner::ClosesWith(count, code) => {
                waiting.push(query);
                if waiting.len() == count {
                    self.server.close_one(waiting[0].connection, code, now);
                }
            }
            QuicManner::ClosesAfter(_) | QuicManner::Forgets => {
                let count = if let QuicManner::ClosesAfter(count) = manner { count } else { 1 };
                self.answer(&query, |_| ());
                // All of it leaves before the good-bye.
                let connection = query.connection;
                for (peer, datagram) in self.server.datagrams(now) {
                    let _ = self.socket.send_to(&datagram, peer);
                }
                let answered = self.answered.entry(peer).or_default();
                *answered += 1;
                if *answered == count {
                    self.server.close_one(connection, 0, now);
                }
            }
            QuicManner::MistakesIds => self.answer(&query, |reply| reply[0] ^= 0xFF),
            QuicManner::MistakesQuestions => self.answer(&query, |reply| reply[13] ^= 1),
        }
    }

    fn answer(&mut self, query: &TestQuicQuery, edit: impl Fn(&mut [u8])) {
        let Some(peer) = self.server.connections.get(&query.connection).map(|it| it.remote_address()) else { return };
        let seen = Seen { bytes: query.frame[2..].to_vec(), peer, at: Instant::now(), tcp: true, named: None };
        let sendings = self.shared.script.lock().unwrap_or_else(PoisonError::into_inner).react(&seen);
        for mut sending in sendings.into_iter().take(1) {
            edit(&mut sending.bytes);
            self.server.say(query, &crate::framed(&sending.bytes), true);
        }
    }
}

/// How long a turn waits for a datagram.
const MIN_WAIT: Duration = Duration::from_millis(1);
const MAX_WAIT: Duration = Duration::from_millis(50);
