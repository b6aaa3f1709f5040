//! Load: different queries at an even pace from several ports and, where a test wants it, on several kept TCP
//! connections; every answer is checked and timed, and every query is accounted for. Faults are scheduled by
//! how many queries were sent, so that a test waits for the load and not for a clock.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::message::*;
use crate::{Admin, PATIENCE, Script, framed};

/// The table that has an answer for each query of a [`Load`].
pub fn load_table() -> String {
    (0..NAMES).map(|number| format!("{} {} A\n", name(number), address(number))).collect()
}

/// Answers names of the table from it, and any other name with 192.0.2.1.
pub fn load_answer() -> Script {
    Script::new(|seen| {
        let name = seen.name();
        let number = name.strip_prefix('h').and_then(|rest| rest.strip_suffix(".example")?.parse().ok());
        let address = number.map_or_else(|| "192.0.2.1".to_owned(), address);
        Some(reply_to(&seen.bytes).with_flags(AA).answer(a(&address)).to_vec())
    })
}

/// A client that asks all the time.
pub struct Load {
    rate: u32,
    shared: Arc<Shared>,
    thread: JoinHandle<Report>,
    /// Keeps out other loads until this one has stopped.
    _alone: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub at: Instant,
    /// True if the query went by a TCP connection.
    pub(crate) by_tcp: bool,
    pub answer: Option<Came>,
}

/// The outcome of a query.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    pub took: Duration,
    /// True if the response was the answer of the table.
    pub(crate) is_right: bool,
}

impl Load {
    /// Begins to ask by UDP, when no other load of this process does any more: they measure time.
    pub fn start(server: SocketAddr, rate: u32) -> Self {
        Self::start_with(server, rate, 0)
    }

    /// Begins to ask by UDP, and on so many TCP connections, which are kept. Each way gets the same share.
    pub fn start_with(server: SocketAddr, rate: u32, connections: usize) -> Self {
        Self::begin(rate, move || Run::new(server, rate, connections))
    }

    /// Begins to ask both by UDP: each gets every second query.
    pub fn start_at_both(servers: [SocketAddr; 2], rate: u32) -> Self {
        Self::begin(rate, move || {
            let [one, two] = servers.map(|server| Run::new(server, rate, 0));
            let ways = one.ways.into_iter().zip(two.ways).flat_map(|(one, two)| [one, two]).collect();
            Run { ways, ..one }
        })
    }

    fn begin(rate: u32, run: impl FnOnce() -> Run + Send + 'static) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || run().run(&shared)
        });
        Self { rate, shared, thread, _alone: alone }
    }

    /// Returns the number of queries sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.shared.progress.lock().expect("nothing panics here").sent
    }

    /// Waits until as many more queries were sent as this time brings.
    pub fn run_for(&self, time: Duration) {
        let target = self.sent() + (f64::from(self.rate) * time.as_secs_f64()) as usize;
        let progress = self.shared.progress.lock().expect("nothing panics here");
        let waited = self.shared.changed.wait_timeout_while(progress, time + PATIENCE, |now| now.sent < target);
        assert!(!waited.expect("nothing panics here").1.timed_out(), "the load has stopped");
    }

    /// Asks no more, and waits for the answers that are due.
    pub fn stop(self) -> Report {
        self.stop_within(LAST)
    }

    /// Asks no more, and waits at most so long for answers: for a test that has killed the server that owes
    /// them.
    pub(crate) fn stop_within(self, last: Duration) -> Report {
        self.shared.progress.lock().expect("nothing panics here").last = Some(last);
        self.thread.join().expect("the load does not panic")
    }
}

/// The counts of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// All queries, in the order of sending.
    pub queries: Vec<Sent>,
    /// Responses without a pending query, such as a second one to the same query.
    pub strays: usize,
    /// Connections that the server has closed.
    pub closed: usize,
    /// The number of queries and connections that were refused, because no server listened or the host is
    /// absent.
    pub refused: usize,
    /// Queries that were left out, because the client waited for the processor when they were due.
    pub(crate) left_out: usize,
    /// The first of the answers that are not the table's, and how long each took.
    pub oddities: Vec<(Duration, Response)>,
}

impl Report {
    /// Queries without an answer.
    pub fn lost(&self) -> usize {
        self.queries.iter().filter(|sent| sent.answer.is_none()).count()
    }

    /// Returns the number of lost queries that were sent by UDP.
    pub fn lost_by_udp(&self) -> usize {
        self.queries.iter().filter(|sent| sent.answer.is_none() && !sent.by_tcp).count()
    }

    /// Queries with an answer that is not the table's.
    pub fn wrong(&self) -> usize {
        self.queries.iter().filter(|sent| sent.answer.is_some_and(|came| !came.is_right)).count()
    }

    /// The times of the answers to queries that were sent in this span, the shortest first.
    pub fn times(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let within = self.queries.iter().filter(|sent| from <= sent.at && sent.at < to);
        let mut times: Vec<_> = within.filter_map(|sent| sent.answer.map(|came| came.took)).collect();
        times.sort();
        times
    }

    /// Fails unless every query that the server has taken, and not dropped for overload, had its one right
    /// answer, and all connections are open. On a machine that is busy with other things the kernel may drop
    /// a few on their way to the server, which cannot know of them, and the server may drop what has waited
    /// too long. It waits for the processor as the client does: one query of a hundred may be lost, and one
    /// more for each that the client has left out.
    pub fn check(&self, what: &str, admin: &Admin) {
        self.check_all(what, &[admin]);
    }

    /// Checks the counters of all servers that got queries.
    pub fn check_all(&self, what: &str, admins: &[&Admin]) {
        let sent = self.queries.len();
        let sum = |family: &str, labels: &[(&str, &str)]| {
            let counts = admins.iter().map(|admin| admin.metrics().sum(family, labels));
            usize::try_from(counts.sum::<u64>()).expect("a count")
        };
        let taken = sum("hedgerow_queries_total", &[]);
        let shed = sum("hedgerow_dropped_total", &[("reason", "overload")]);
        let (lost, by_udp, wrong, odd) = (self.lost(), self.lost_by_udp(), self.wrong(), &self.oddities);
        let Self { strays, closed, refused, left_out, .. } = self;
        let numbers = format!(
            "{what}: {sent} sent, {left_out} left out, {taken} taken, {shed} dropped for overload: {lost} lost ({by_udp} by UDP), {wrong} wrong, \
             {strays} strays, {closed} connections closed, {refused} refused {odd:?}"
        );
        assert!(lost <= sent.saturating_sub(taken) + shed && wrong == 0, "{numbers}");
        assert_eq!((*strays, *closed, *refused), (0, 0, 0), "{numbers}");
        assert!(lost <= sent / 100 + left_out, "too few to judge: {numbers}");
    }
}

/// The value that so many percent of sorted times do not exceed.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Held by the load that runs.
static ALONE: Mutex<()> = Mutex::new(());

/// The state shared by a load and its thread.
#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    /// Notified after each change.
    changed: Condvar,
}

/// The progress of a load.
#[derive(Default)]
struct Progress {
    sent: usize,
    /// Set when no more are to be sent: how long answers are waited for.
    last: Option<Duration>,
}

/// The thread of a load.
struct Run {
    server: SocketAddr,
    rate: f64,
    ways: Vec<Way>,
    /// Queries that wait for their answer.
    outstanding: usize,
    /// Queries without their ID, and the address to be answered, by number of the name.
    questions: Vec<(Vec<u8>, [u8; 4])>,
    report: Report,
}

impl Run {
    fn new(server: SocketAddr, rate: u32, connections: usize) -> Self {
        let udp = (0..SOCKETS).map(|_| {
            // Off this host the system chooses the address.
            let local = if server.ip().is_loopback() { [127, 0, 0, 1] } else { [0; 4] };
            let socket = UdpSocket::bind(SocketAddr::from((local, 0))).expect("a port is free");
            socket.connect(server).expect("there is a route");
            socket.set_nonblocking(true).expect("a socket can do so");
            Way::new(Link::Udp(socket))
        });
        let tcp = (0..connections).map(|_| Way::new(Link::connect(server).expect("the server listens")));
        let questions = (0..NAMES).map(|number| (query(&name(number), A).to_vec(), ipv4(&address(number))));
        Self {
            server,
            rate: rate.into(),
            ways: udp.chain(tcp).collect(),
            outstanding: 0,
            questions: questions.collect(),
            report: Report::default(),
        }
    }

    /// Sends what is due and takes what comes, until it is over and nothing is outstanding.
    fn run(mut self, shared: &Shared) -> Report {
        let mut next = Instant::now();
        let step = Duration::from_secs_f64(1.0 / self.rate);
        // Set when the last query is sent: until when answers are waited for.
        let mut ended: Option<Instant> = None;
        loop {
            let now = Instant::now();
            // A client that was kept from running does not make up for it: a burst would be another test.
            let late = now.checked_sub(MAX_LAG).map_or(Duration::ZERO, |least| least.saturating_duration_since(next));
            if ended.is_none() {
                self.report.left_out += (late.as_secs_f64() * self.rate) as usize;
            }
            next += late;
            while ended.is_none() && next <= now {
                self.send();
                next += step;
            }
            if ended.is_some_and(|until| self.outstanding == 0 || now > until) {
                return self.report;
            }
            self.listen(next.saturating_duration_since(now).max(step));
            let mut progress = shared.progress.lock().expect("nothing panics here");
            progress.sent = self.report.queries.len();
            if let Some(last) = progress.last {
                ended.get_or_insert(now + last);
            }
            drop(progress);
            shared.changed.notify_all();
        }
    }

    /// Sends the next query.
    fn send(&mut self) {
        let number = self.report.queries.len();
        let (at, id) = (number % self.ways.len(), (number / self.ways.len()) as u16);
        let way = &mut self.ways[at];
        if matches!(way.link, Link::Closed) {
            match Link::connect(self.server) {
                Ok(link) => way.link = link,
                Err(_) => self.report.refused += 1,
            }
        }
        let query = &mut self.questions[number % NAMES].0;
        query[..2].copy_from_slice(&id.to_be_bytes());
        let by_tcp = !matches!(way.link, Link::Udp(_));
        self.report.queries.push(Sent { at: Instant::now(), by_tcp, answer: None });
        way.waiting[usize::from(id)] = Some(number);
        self.outstanding += 1;
        if let Err(error) = way.link.send(query) {
            self.fail(at, Some(id), &error);
        }
    }

    /// Marks a way as failed: no server listens there, or the connection is closed.
    fn fail(&mut self, at: usize, sent: Option<u16>, error: &io::Error) {
        let way = &mut self.ways[at];
        match way.link {
            Link::Udp(_)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                ) =>
            {
                self.report.refused += 1;
                let unsent = sent.and_then(|id| way.waiting[usize::from(id)].take());
                self.outstanding -= usize::from(unsent.is_some());
            }
            Link::Udp(_) => panic!("a network takes and gives datagrams: {error}"),
            Link::Tcp { .. } => {
                self.report.closed += 1;
                self.outstanding -= way.give_up();
            }
            Link::Closed => self.outstanding -= way.give_up(),
        }
    }

    /// Takes what has come, and waits for that at most so long.
    fn listen(&mut self, at_most: Duration) {
        let open = self.ways.iter().enumerate().filter_map(|(at, way)| Some((at, way.link.watched()?)));
        let (places, mut watched): (Vec<usize>, Vec<_>) = open.unzip();
        let at_most = Timespec::try_from(at_most).expect("a short time");
        poll(&mut watched, Some(&at_most)).expect("sockets can be polled");
        let is_ready: Vec<bool> = watched.iter().map(|watched| !watched.revents().is_empty()).collect();
        let mut received = Vec::new();
        for at in places.into_iter().zip(is_ready).filter_map(|(at, is_ready)| is_ready.then_some(at)) {
            let result = self.ways[at].link.receive(&mut received);
            for response in received.drain(..) {
                self.take(at, &response);
            }
            if let Err(error) = result {
                self.fail(at, None, &error);
            }
        }
    }

    fn take(&mut self, at: usize, response: &[u8]) {
        let Some(number) = self.ways[at].waiting[usize::from(word(response, 0))].take() else {
            self.report.strays += 1;
            return;
        };
        self.outstanding -= 1;
        let (query, address) = &self.questions[number % NAMES];
        // QR is there, the rcode is NOERROR, there is one answer; the question is ours, and the address
        // stands at the end.
        let is_right = word(response, 2) & (QR | 0xf) == QR
            && word(response, 6) == 1
            && response.get(12..query.len()) == query.get(12..)
            && response.ends_with(address);
        let sent = &mut self.report.queries[number];
        let took = sent.at.elapsed();
        sent.answer = Some(Came { took, is_right });
        if !is_right && self.report.oddities.len() < ODDITIES {
            self.report.oddities.push((took, Response { bytes: response.to_vec() }));
        }
    }
}

struct Way {
    link: Link,
    /// By ID, the query that waits for its answer.
    waiting: Vec<Option<usize>>,
}

impl Way {
    fn new(link: Link) -> Self {
        Self { link, waiting: vec![None; 1 << 16] }
    }

    /// Nothing comes by this connection any more; says how many queries waited.
    fn give_up(&mut self) -> usize {
        self.link = Link::Closed;
        self.waiting.iter_mut().filter_map(Option::take).count()
    }
}

/// The transport from a client to the server.
enum Link {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        unwritten: Vec<u8>,
        unread: Vec<u8>,
    },
    /// A connection that is no more, and is opened anew for the next query.
    Closed,
}

impl Link {
    fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self::Tcp { stream, unwritten: Vec::new(), unread: Vec::new() })
    }

    /// Returns the descriptor to poll for responses, and for writing if there is more to write.
    fn watched(&self) -> Option<PollFd<'_>> {
        match self {
            Self::Udp(socket) => Some(PollFd::new(socket, PollFlags::IN)),
            Self::Tcp { stream, unwritten, .. } if unwritten.is_empty() => Some(PollFd::new(stream, PollFlags::IN)),
            Self::Tcp { stream, .. } => Some(PollFd::new(stream, PollFlags::IN | PollFlags::OUT)),
            Self::Closed => None,
        }
    }

    fn send(&mut self, query: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(query).map(drop),
            Self::Tcp { unwritten, .. } => {
                unwritten.extend(framed(query));
                self.write()
            }
            Self::Closed => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Writes as much as is taken.
    fn write(&mut self) -> io::Result<()> {
        let Self::Tcp { stream, unwritten, .. } = self else { return Ok(()) };
        while !unwritten.is_empty() {
            match stream.write(unwritten) {
                Ok(octets) => drop(unwritten.drain(..octets)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes all whole responses that have come.
    fn receive(&mut self, responses: &mut Vec<Vec<u8>>) -> io::Result<()> {
        self.write()?;
        let mut buffer = [0; 4096];
        loop {
            let result = match self {
                Self::Udp(socket) => socket.recv(&mut buffer),
                Self::Tcp { stream, .. } => stream.read(&mut buffer),
                Self::Closed => return Ok(()),
            };
            let octets = match (result, &mut *self) {
                (Ok(octets), Self::Udp(_)) => {
                    responses.push(buffer[..octets].to_vec());
                    continue;
                }
                (Ok(0), _) => return Err(ErrorKind::UnexpectedEof.into()),
                (Ok(octets), _) => octets,
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                (Err(error), _) => return Err(error),
            };
            if let Self::Tcp { unread, .. } = self {
                unread.extend(&buffer[..octets]);
                while let Some(end) = unread.first_chunk().map(|length| 2 + usize::from(u16::from_be_bytes(*length)))
                    && unread.len() >= end
                {
                    responses.push(unread.drain(..end).skip(2).collect());
                }
            }
        }
    }
}

/// The name of this number.
fn name(number: usize) -> String {
    format!("h{number}.example")
}

/// The address of the name of this number.
fn address(number: usize) -> String {
    let [.., b, c, d] = number.to_be_bytes();
    format!("10.{b}.{c}.{d}")
}

/// Different names. Equal queries in flight would share a race, and one that is lost be answered by
/// another's.
const NAMES: usize = 30_000;
/// Ports that are asked from: enough that each worker of the server gets its part.
const SOCKETS: usize = 8;
/// After so long no answer comes any more: longer than the timeouts of tests, shorter than a connection may
/// be idle.
const LAST: Duration = Duration::from_secs(7);
/// By how much a query may be late before it is left out.
const MAX_LAG: Duration = Duration::from_millis(10);
/// How many answers that are not right are kept to be shown.
const ODDITIES: usize = 8;
