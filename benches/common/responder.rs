//! A backend as a role of this program: delays replies, loses queries, counts queries.
//!
//! One thread, one socket, one heap of replies ordered by due time. It waits for the next reply with a
//! resolution of a nanosecond, so that its own lateness is small against a millisecond; the lateness is
//! reported. Each input line is an order, answered by a line with the counts; the process ends at the end of
//! its input.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use net::sys::batch::{BATCH, RecvBatch, SendBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::client::SLOT;
use super::message;
use super::process::{Server, now};

/// How a backend replies. Times are in microseconds.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Behavior {
    #[arg(long)]
    pub(crate) delay: u64,
    /// The share of replies that are late.
    #[arg(long)]
    pub(crate) late_share: f64,
    /// The delay of those.
    #[arg(long)]
    pub(crate) late: u64,
    /// The share of queries that get no reply.
    #[arg(long)]
    pub(crate) loss: f64,
    /// The seed of the random numbers.
    #[arg(long)]
    pub(crate) seed: u64,
}

/// The counts of a responder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) queries: u64,
    /// Queries by the slot in which they came, see [`slot_now`].
    pub(crate) slots: BTreeMap<u64, u64>,
    /// The 99.9th percentile of the lateness of replies, in microseconds.
    pub(crate) lateness: f64,
}

/// A responder at work.
pub(crate) struct Responder {
    server: Server,
    /// The last counts reported.
    counts: Counts,
}

impl Responder {
    pub(crate) fn start(behavior: &Behavior, core: Option<usize>) -> io::Result<Self> {
        let Behavior { delay, late_share, late, loss, seed } = behavior;
        let arguments =
            format!("responder --delay {delay} --late-share {late_share} --late {late} --loss {loss} --seed {seed}");
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        Ok(Self { server: Server::role(&arguments, core)?, counts: Counts::default() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Changes its usual delay.
    pub(crate) fn set_delay(&mut self, delay: Duration) -> io::Result<()> {
        self.order(&delay.as_micros().to_string()).map(drop)
    }

    /// Asks the responder for its counts.
    pub(crate) fn counts(&mut self) -> io::Result<&Counts> {
        self.order("counts")
    }

    /// Returns the last counts reported, without asking.
    pub(crate) fn last_counts(&self) -> &Counts {
        &self.counts
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.server.signal(signal)
    }

    /// Gives an order and reads the answer.
    fn order(&mut self, order: &str) -> io::Result<&Counts> {
        let process = &mut self.server.process;
        let mut line = String::new();
        if let (Some(stdin), Some(stdout)) = (&mut process.child.stdin, &mut process.stdout) {
            stdin.write_all(format!("{order}\n").as_bytes())?;
            stdout.read_line(&mut line)?;
        }
        self.counts = serde_json::from_str(&line)?;
        Ok(&self.counts)
    }
}

/// The current slot, counted on a clock that all processes share.
pub(crate) fn slot_now() -> u64 {
    (now().as_nanos() / SLOT.as_nanos()) as u64
}

/// The TTL of an answer, in seconds.
const TTL: u32 = 300;
/// Bytes of the longest query that is read.
const DATAGRAM: usize = 512;
/// Bytes that the kernel may keep of queries, above all while the process is stopped: they are counted
/// afterwards.
const SOCKET_BUFFER: usize = 4 << 20;

/// Replies until stdin is closed.
pub(crate) fn run(behavior: &Behavior) -> io::Result<()> {
    // The default slack of 50 us would be added to every wait.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    println!("{}", socket.local_addr()?);
    io::stdout().flush()?;

    let stdin = io::stdin();
    let mut orders = stdin.lock();
    let mut desk = Desk::new(*behavior);
    loop {
        let timeout = desk
            .until_next()
            .map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        let mut ready = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut ready, timeout.as_ref()))?;
        let is_ordered = !ready[1].revents().is_empty();
        desk.receive(&socket)?;
        desk.reply(&socket);
        if is_ordered {
            // Orders come one by one, each waits for its answer: nothing is left in the buffer.
            let mut order = String::new();
            if orders.read_line(&mut order)? == 0 {
                return Ok(());
            }
            if let Ok(delay) = order.trim().parse() {
                desk.behavior.delay = delay;
            }
            println!("{}", serde_json::to_string(&desk.count())?);
            io::stdout().flush()?;
        }
    }
}

/// A reply that is not due yet. The first fields order it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Reply {
    due: Instant,
    /// The order among replies due at once.
    turn: u64,
    client: SocketAddr,
    bytes: Vec<u8>,
}

/// The socket and the pending replies.
struct Desk {
    behavior: Behavior,
    random: SmallRng,
    pending: BinaryHeap<Reverse<Reply>>,
    inbox: RecvBatch,
    /// Replies that leave together.
    outbox: SendBatch,
    /// The counts without the lateness.
    counts: Counts,
    /// The lateness of each reply, in microseconds.
    lateness: Vec<f64>,
}

impl Desk {
    /// Nothing has come yet.
    fn new(behavior: Behavior) -> Self {
        Self {
            behavior,
            random: SmallRng::seed_from_u64(behavior.seed),
            pending: BinaryHeap::new(),
            inbox: RecvBatch::new(BATCH, DATAGRAM),
            outbox: SendBatch::new(BATCH, DATAGRAM).without_gso(),
            counts: Counts::default(),
            lateness: Vec::new(),
        }
    }

    /// How long there is nothing to send; `None` if nothing waits.
    fn until_next(&self) -> Option<Duration> {
        self.pending.peek().map(|Reverse(reply)| reply.due.saturating_duration_since(Instant::now()))
    }

    /// Reads all that has come.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        loop {
            let received = match self.inbox.recv(socket) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let (now, slot) = (Instant::now(), slot_now());
            for query in (0..received).filter_map(|index| self.inbox.datagram(index)) {
                self.counts.queries += 1;
                *self.counts.slots.entry(slot).or_default() += 1;
                // Two draws for each query, so that one kind of mishap does not shift the other.
                let (is_lost, is_late) = (self.random.random::<f64>(), self.random.random::<f64>());
                let Behavior { delay, late_share, late, loss, .. } = self.behavior;
                if is_lost < loss {
                    continue;
                }
                let delay = Duration::from_micros(if is_late < late_share { late } else { delay });
                let mut bytes = Vec::new();
                message::write_reply(query.bytes, TTL, &mut bytes);
                let turn = self.counts.queries;
                self.pending.push(Reverse(Reply { due: now + delay, turn, client: query.peer, bytes }));
            }
        }
    }

    /// Sends all that is due.
    fn reply(&mut self, socket: &UdpSocket) {
        let now = Instant::now();
        while self.pending.peek().is_some_and(|Reverse(reply)| reply.due <= now) {
            let Some(Reverse(reply)) = self.pending.pop() else { break };
            if self.outbox.is_full() {
                self.outbox.flush(socket, |_, _| {});
            }
            self.outbox.push(Some(reply.client), None, |out| out.extend_from_slice(&reply.bytes));
            self.lateness.push((now - reply.due).as_secs_f64() * 1e6);
        }
        // A reply that is not taken counts as lost at the client.
        self.outbox.flush(socket, |_, _| {});
    }

    /// Returns the counts until now.
    fn count(&mut self) -> Counts {
        self.lateness.sort_by(f64::total_cmp);
        let rank = (self.lateness.len() as f64 * 0.999).ceil() as usize;
        let lateness = self.lateness.get(rank.max(1) - 1).copied().unwrap_or(0.0);
        Counts { lateness, ..self.counts.clone() }
    }
}
