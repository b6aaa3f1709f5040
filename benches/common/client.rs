//! The load client: sends numbered queries over a few connected sockets, checks every response, and times it.
//!
//! Closed loop: so many queries are always outstanding, and each response lets the next query out; that finds
//! the rate. Open loop: queries leave at a fixed rate whatever comes back, and each is timed from the moment
//! at which it was due, so that neither a late client nor a stalled server hides a delay. A query that is
//! lost counts in the percentiles with the whole time-out. One thread does all, in batches, in a process of
//! its own.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use net::sys::batch::{RecvBatch, SendBatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::message::{self, Expect, Lengths};
use super::process::Process;

/// The task of a client.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Plan {
    /// The address to load.
    #[arg(long, value_parser = ours)]
    pub(crate) server: SocketAddr,
    /// The responses that count as right.
    #[arg(long)]
    pub(crate) expect: Expect,
    /// The duration of the load, in seconds.
    #[arg(long)]
    pub(crate) secs: f64,
    /// Open loop at so many queries a second; without it, closed loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Queries of an open loop that are due at once.
    #[arg(long)]
    pub(crate) burst: u32,
    /// Number of the first name.
    #[arg(long)]
    pub(crate) first: u32,
    /// Names before the first one comes again; 0: only when numbers run out.
    #[arg(long)]
    pub(crate) names: u32,
    #[arg(long)]
    pub(crate) lengths: Lengths,
    /// Queries have an OPT record, and so do responses.
    #[arg(long)]
    pub(crate) edns: bool,
    /// Silence after which a query is lost, in seconds.
    #[arg(long)]
    pub(crate) timeout: f64,
    /// Sockets that queries leave from in turn, each with its port.
    #[arg(long)]
    pub(crate) sockets: usize,
    /// Also print the p99 of each [`SLOT`].
    #[arg(long)]
    pub(crate) slots: bool,
}

impl Plan {
    /// Starts a client with this plan; it sends from now on.
    pub(crate) fn start(&self, core: Option<usize>) -> io::Result<Running> {
        self.start_under(&[], core)
    }

    /// Starts a client with this plan by a command that runs another one.
    pub(crate) fn start_under(&self, command: &[String], core: Option<usize>) -> io::Result<Running> {
        let Self { server, expect, secs, rate, burst, first, names, lengths, edns, timeout, sockets, slots } = *self;
        let expect = match expect {
            Expect::Echo => "echo",
            Expect::Answer => "answer",
        };
        let mut arguments = format!(
            "client --server {server} --expect {expect} --secs {secs} --first {first} --names {names} --timeout {timeout} \
             --sockets {sockets} --burst {burst} --lengths {lengths}",
            lengths = lengths.word(),
        );
        if let Some(rate) = rate {
            arguments.push_str(&format!(" --rate {rate}"));
        }
        if edns {
            arguments.push_str(" --edns");
        }
        if slots {
            arguments.push_str(" --slots");
        }
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let (process, _line) = Process::role_under(command, &arguments, core)?;
        Ok(Running { process })
    }
}

/// A client at work.
pub(crate) struct Running {
    process: Process,
}

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(self) -> io::Result<Seen> {
        Ok(serde_json::from_str(&self.process.finish()?)?)
    }
}

/// Parses an address of this machine, or one in the network that is reserved for benchmarks (RFC 6890 section
/// 2.2.2): hosts on the Internet must not be loaded.
fn ours(text: &str) -> Result<SocketAddr, String> {
    let is_ours = |ip| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.octets()[..2] == [198, 18],
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    let address = text.parse().ok().filter(|address: &SocketAddr| is_ours(address.ip()));
    address.ok_or_else(|| "expected an address in 127.0.0.0/8 or 198.18.0.0/16 with a port".to_owned())
}

/// The results of a client. Times are in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Right answers a second, from the first query to the last answer.
    pub(crate) rate: f64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Queries without a right answer within the time-out.
    pub(crate) lost: u64,
    /// Responses that were not the right one.
    pub(crate) wrong: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// The median of those that were answered.
    pub(crate) answered_p50: f64,
    pub(crate) answered_p99: f64,
    /// The 99th percentile of the queries due in each [`SLOT`], if the plan asks for it.
    pub(crate) slots: Vec<f64>,
}

/// The time for which a run is looked at by itself, to see how figures change.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Queries outstanding in a closed loop. A socket with the default receive buffer holds about 190 small
/// datagrams; a larger window would favor servers that set a larger buffer.
pub(crate) const WINDOW: usize = 128;

/// Sockets of a client, unless more queries are to be out at once than they have IDs for.
pub(crate) const SOCKETS: usize = 8;

/// Datagrams in one batch: what a socket may have outstanding in a closed loop.
const BATCH: usize = WINDOW / SOCKETS;
/// Query IDs that a lane uses in turn. A query whose ID is needed again is lost.
const IDS: u16 = 16_384;
/// A prime, larger than any count of names. Names that come again come in steps of it, so that all of them
/// come, but none near the one before: neither in the order of their numbers nor in the order in which they
/// came to be known.
pub(crate) const SCATTER: u64 = 2_654_435_761;
/// Bytes that the kernel may buffer for a client's socket: it must not lose what the server sent.
const SOCKET_BUFFER: usize = 4 << 20;
/// Longest wait for a datagram, so that a loop sees its end.
const MAX_WAIT: Duration = Duration::from_millis(5);

/// Runs the plan: says when it begins, and at the end what was seen.
pub(crate) fn run(plan: &Plan) -> io::Result<()> {
    let seen = send(plan, || {
        println!("sending");
        io::stdout().flush()
    })?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// Sends all queries and returns what was seen.
fn send(plan: &Plan, on_begin: impl FnOnce() -> io::Result<()>) -> io::Result<Seen> {
    // The default slack of 50 us would be added to every wait of an open loop.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut lanes =
        (0..plan.sockets).map(|number| Lane::open(plan.server, number as u8)).collect::<io::Result<Vec<_>>>()?;
    on_begin()?;
    let begin = Instant::now();
    let mut tally = Aggregate::new(plan, begin);
    let end = begin + Duration::from_secs_f64(plan.secs);
    let mut pace =
        Pace { begin, end, gap: plan.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)), burst: plan.burst, sent: 0 };
    loop {
        let now = Instant::now();
        for lane in &mut lanes {
            lane.expire(now, &mut tally);
        }
        pace.send_due(now, &mut lanes, &mut tally);
        let mut received = 0;
        for lane in &mut lanes {
            received += lane.receive(plan.expect, &mut tally)?;
        }
        let is_over = now >= end && lanes.iter().all(|lane| lane.outstanding == 0);
        if is_over {
            return Ok(tally.finish());
        }
        if received == 0 {
            wait(&lanes, pace.until_next(Instant::now()))?;
        }
    }
}

/// Waits until a lane can be read, at most so long.
fn wait(lanes: &[Lane], longest: Duration) -> io::Result<()> {
    let mut sockets: Vec<_> = lanes.iter().map(|lane| PollFd::new(&lane.socket, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(longest.subsec_nanos()) };
    poll(&mut sockets, Some(&timeout))?;
    Ok(())
}

struct Pace {
    /// The time of the first query.
    begin: Instant,
    /// The end of sending.
    end: Instant,
    /// Time between two queries of an open loop; `None` in a closed one.
    gap: Option<Duration>,
    /// How many of them are due at once.
    burst: u32,
    /// Queries of an open loop that have been sent.
    sent: u32,
}

impl Pace {
    /// Sends what is due by now.
    fn send_due(&mut self, now: Instant, lanes: &mut [Lane], tally: &mut Aggregate) {
        if self.gap.is_none() && now < self.end {
            for lane in &mut *lanes {
                while lane.outstanding < BATCH {
                    lane.queue(now, tally);
                }
            }
        }
        // One window at most: a client that fell behind reads before it sends more.
        for _ in 0..WINDOW {
            let Some(due) = self.next_due().filter(|&due| due <= now && due < self.end) else { break };
            let lane = self.sent as usize % lanes.len();
            lanes[lane].queue(due, tally);
            self.sent += 1;
        }
        for lane in lanes {
            lane.flush(tally);
        }
    }

    /// When the next query of an open loop is due.
    fn next_due(&self) -> Option<Instant> {
        self.gap.map(|gap| self.begin + gap * (self.sent - self.sent % self.burst))
    }

    /// Returns the time until the next query.
    fn until_next(&self, now: Instant) -> Duration {
        let next = self.next_due().filter(|&due| due < self.end);
        next.map_or(MAX_WAIT, |due| due.saturating_duration_since(now).min(MAX_WAIT))
    }
}

/// One socket with its queries.
struct Lane {
    /// Connected to the server.
    socket: UdpSocket,
    /// Queries that wait for the flush.
    outbox: SendBatch,
    inbox: RecvBatch,
    /// The outstanding query under each ID.
    flights: Vec<Option<Flight>>,
    next: u16,
    /// The ID of the oldest outstanding query; IDs follow the order of sending.
    oldest: u16,
    outstanding: usize,
}

/// A query that is outstanding.
#[derive(Clone, Copy)]
struct Flight {
    /// The number of its name.
    number: u32,
    /// The time of sending, or the due time.
    since: Instant,
}

impl Lane {
    /// Opens a socket to the server. On loopback, each is a client in a separate prefix, because the server
    /// limits the waiting queries of a client and the rate at which it sends delayed responses to one.
    fn open(server: SocketAddr, number: u8) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        if server.ip().is_loopback() {
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, number, 1), 0)).into())?;
        }
        socket.connect(&server.into())?;
        Ok(Self {
            socket: socket.into(),
            outbox: SendBatch::new(BATCH, 96).without_gso(),
            inbox: RecvBatch::new(BATCH, 512),
            flights: vec![None; usize::from(IDS)],
            next: 0,
            oldest: 0,
            outstanding: 0,
        })
    }

    /// Queues the next query, timed from `since`.
    fn queue(&mut self, since: Instant, tally: &mut Aggregate) {
        if self.outbox.is_full() {
            self.flush(tally);
        }
        let id = self.next;
        self.next = (id + 1) % IDS;
        let number = tally.next_number();
        let before = self.flights[usize::from(id)].replace(Flight { number, since });
        if let Some(flight) = before {
            self.oldest = self.next;
            self.outstanding -= 1;
            tally.lose(flight.since);
        }
        self.outstanding += 1;
        self.outbox.push(None, None, |out| message::write_query(number, tally.lengths, tally.edns, id, out));
    }

    /// Sends what is queued. What the kernel does not take is lost when its time is over, as on a real wire.
    fn flush(&mut self, tally: &mut Aggregate) {
        tally.sent += self.outbox.len() as u64;
        self.outbox.flush(&self.socket, |_, _| {});
    }

    /// Reads one batch and returns how many datagrams it held.
    fn receive(&mut self, expect: Expect, tally: &mut Aggregate) -> io::Result<usize> {
        if self.outstanding == 0 {
            return Ok(0);
        }
        let received = match self.inbox.recv(&self.socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        for index in 0..received {
            let bytes = self.inbox.datagram(index).map_or(&[][..], |datagram| datagram.bytes);
            let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
            let flight = id.and_then(|id| self.flights.get_mut(usize::from(id)));
            match flight {
                Some(slot) => match *slot {
                    Some(flight) if message::is_right(bytes, flight.number, tally.lengths, tally.edns, expect) => {
                        *slot = None;
                        self.outstanding -= 1;
                        tally.answer(flight.since, now);
                    }
                    Some(_) | None => tally.wrong += 1,
                },
                None => tally.wrong += 1,
            }
        }
        Ok(received)
    }

    /// Gives up queries that have been out for too long.
    fn expire(&mut self, now: Instant, tally: &mut Aggregate) {
        // With all IDs gone around, `oldest` and `next` are the same, and still something may be out.
        while self.outstanding > 0 {
            let slot = &mut self.flights[usize::from(self.oldest)];
            match slot {
                Some(flight) if now.saturating_duration_since(flight.since) < tally.timeout => return,
                Some(flight) => {
                    tally.lose(flight.since);
                    *slot = None;
                    self.outstanding -= 1;
                }
                None => {}
            }
            self.oldest = (self.oldest + 1) % IDS;
        }
    }
}

/// The sums of a run.
struct Aggregate {
    /// Number of the first name.
    first: u32,
    lengths: Lengths,
    /// True if there are OPT records.
    edns: bool,
    /// Names before the first one comes again.
    names: u32,
    queued: u32,
    sent: u64,
    lost: u64,
    wrong: u64,
    /// Latencies in nanoseconds, those of lost queries too.
    latencies: Vec<u64>,
    /// The latencies by the slot in which the queries were due, if the plan asks for slots.
    slots: Option<Vec<Vec<u64>>>,
    /// The latency that counts for a lost query.
    timeout: Duration,
    /// The time of the first query.
    begin: Instant,
    last_answer: Instant,
}

impl Aggregate {
    fn new(plan: &Plan, begin: Instant) -> Self {
        Self {
            first: plan.first,
            names: plan.names,
            lengths: plan.lengths,
            edns: plan.edns,
            queued: 0,
            sent: 0,
            lost: 0,
            wrong: 0,
            latencies: Vec::with_capacity(1 << 20),
            slots: plan.slots.then(Vec::new),
            timeout: Duration::from_secs_f64(plan.timeout),
            begin,
            last_answer: begin,
        }
    }

    /// The number of the next query's name. No two queries that are out at once share one, and names that
    /// come one after another lie far apart in a table.
    fn next_number(&mut self) -> u32 {
        let place = self.first.wrapping_add(self.queued);
        self.queued += 1;
        match self.names {
            0 => place,
            names => (u64::from(place % names) * SCATTER % u64::from(names)) as u32,
        }
    }

    /// Counts an answer to a query that was due at a time.
    fn answer(&mut self, since: Instant, now: Instant) {
        self.add(since, now - since);
        self.last_answer = now;
    }

    /// Counts a loss, which costs the client the whole timeout.
    fn lose(&mut self, since: Instant) {
        self.lost += 1;
        self.add(since, self.timeout);
    }

    fn add(&mut self, since: Instant, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.push(nanos);
        if let Some(slots) = &mut self.slots {
            let slot = (since.saturating_duration_since(self.begin).as_nanos() / SLOT.as_nanos()) as usize;
            if slots.len() <= slot {
                slots.resize(slot + 1, Vec::new());
            }
            slots[slot].push(nanos);
        }
    }

    fn finish(mut self) -> Seen {
        self.latencies.sort_unstable();
        let answered = self.latencies.len() as u64 - self.lost;
        let secs = self.last_answer.saturating_duration_since(self.begin).as_secs_f64();
        let mut slots = self.slots.unwrap_or_default();
        slots.iter_mut().for_each(|slot| slot.sort_unstable());
        let sorted = &self.latencies;
        Seen {
            rate: if secs > 0.0 { answered as f64 / secs } else { 0.0 },
            sent: self.sent,
            answered,
            lost: self.lost,
            wrong: self.wrong,
            p50: percentile(sorted, 0.5),
            p90: percentile(sorted, 0.9),
            p99: percentile(sorted, 0.99),
            p999: percentile(sorted, 0.999),
            max: percentile(sorted, 1.0),
            // Lost queries count as the slowest.
            answered_p50: percentile(&sorted[..answered as usize], 0.5),
            answered_p99: percentile(&sorted[..answered as usize], 0.99),
            slots: slots.iter().map(|slot| percentile(slot, 0.99)).collect(),
        }
    }
}

/// A percentile of sorted nanoseconds, in microseconds.
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
    sorted.get(rank).map_or(0.0, |&nanos| nanos as f64 / 1e3)
}
