//! Load: different queries at an even pace from several ports, every answer checked and timed. Faults are scheduled by
//! how many queries were sent, so that a test waits for the load and not for a clock.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::PATIENCE;
use super::http::Admin;
use super::message::*;

/// The table that has an answer for each query of a [`Load`].
pub(crate) fn load_table() -> String {
    (0..NAMES).map(|number| format!("{} {} A\n", name(number), address(number))).collect()
}

/// A client that asks all the time.
pub(crate) struct Load {
    /// Queries a second.
    rate: u32,
    /// What it shares with its thread.
    shared: Arc<Shared>,
    /// Asks and listens.
    thread: JoinHandle<Report>,
    /// What it has to itself until it has stopped.
    _alone: MutexGuard<'static, ()>,
}

/// One query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// When it was sent.
    pub(crate) at: Instant,
    /// What came back.
    pub(crate) answer: Option<Came>,
}

/// What came back for a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// How long that took.
    pub(crate) took: Duration,
    /// Whether it was the answer of the table.
    pub(crate) is_right: bool,
}

impl Load {
    /// Begins to ask, when no other load of this process does any more: they measure time.
    pub(crate) fn start(server: SocketAddr, rate: u32) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || Run::new(server, rate).run(&shared)
        });
        Self { rate, shared, thread, _alone: alone }
    }

    /// How many queries were sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.shared.progress.lock().expect("nothing panics here").sent
    }

    /// Waits until as many more queries were sent as this time brings.
    pub(crate) fn run_for(&self, time: Duration) {
        let target = self.sent() + (f64::from(self.rate) * time.as_secs_f64()) as usize;
        let progress = self.shared.progress.lock().expect("nothing panics here");
        let waited = self.shared.changed.wait_timeout_while(progress, time + PATIENCE, |now| now.sent < target);
        assert!(!waited.expect("nothing panics here").1.timed_out(), "the load has stopped");
    }

    /// Asks no more, and waits for the answers that are due.
    pub(crate) fn stop(self) -> Report {
        self.shared.progress.lock().expect("nothing panics here").is_over = true;
        self.thread.join().expect("the load does not panic")
    }
}

/// What a load has met.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// All queries, in the order of sending.
    pub(crate) queries: Vec<Sent>,
    /// Responses that nobody waited for.
    pub(crate) strays: usize,
    /// The first of the answers that are not the table's, and how long each took.
    pub(crate) oddities: Vec<(Duration, Response)>,
}

impl Report {
    /// Queries without an answer.
    pub(crate) fn lost(&self) -> usize {
        self.queries.iter().filter(|sent| sent.answer.is_none()).count()
    }

    /// Queries with an answer that is not the table's.
    pub(crate) fn wrong(&self) -> usize {
        self.queries.iter().filter(|sent| sent.answer.is_some_and(|came| !came.is_right)).count()
    }

    /// The times of the answers to queries that were sent in this span, the shortest first.
    pub(crate) fn times(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let within = self.queries.iter().filter(|sent| from <= sent.at && sent.at < to);
        let mut times: Vec<_> = within.filter_map(|sent| sent.answer.map(|came| came.took)).collect();
        times.sort();
        times
    }

    /// Fails unless every query that the server has taken had its one right answer. On a machine that is busy with other
    /// things the kernel may drop a few on their way to the server, which cannot know of them.
    pub(crate) fn check(&self, what: &str, admin: &Admin) {
        let sent = self.queries.len();
        let taken = usize::try_from(admin.metrics().sum("hedgerow_queries_total", &[])).expect("a count");
        let (lost, wrong, strays) = (self.lost(), self.wrong(), self.strays);
        let odd = &self.oddities;
        let numbers =
            format!("{what}: {sent} sent, {taken} taken: {lost} lost, {wrong} wrong, {strays} strays {odd:?}");
        assert!(lost <= sent - taken && wrong == 0 && strays == 0, "{numbers}");
        assert!(taken * 100 >= sent * 99, "too few to tell: {numbers}");
    }
}

/// The value that so many percent of sorted times do not exceed.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Held by the load that runs.
static ALONE: Mutex<()> = Mutex::new(());

/// What a load shares with its thread.
#[derive(Default)]
struct Shared {
    /// What changes.
    progress: Mutex<Progress>,
    /// Notified after each change.
    changed: Condvar,
}

/// How far a load is.
#[derive(Default)]
struct Progress {
    /// Queries sent.
    sent: usize,
    /// Whether no more are to be sent.
    is_over: bool,
}

/// The thread of a load.
struct Run {
    /// Queries a second.
    rate: f64,
    /// The clients.
    sockets: Vec<UdpSocket>,
    /// For each socket and ID, the query that waits for its answer.
    waiting: Vec<Vec<Option<usize>>>,
    /// So many of them.
    outstanding: usize,
    /// Queries without their ID, and the address to be answered, by number of the name.
    questions: Vec<(Vec<u8>, [u8; 4])>,
    /// What was met so far.
    report: Report,
}

impl Run {
    /// Nothing sent yet.
    fn new(server: SocketAddr, rate: u32) -> Self {
        let sockets = (0..SOCKETS).map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
            socket.connect(server).expect("loopback can be reached");
            socket.set_nonblocking(true).expect("a socket can do so");
            socket
        });
        let questions = (0..NAMES).map(|number| (query(&name(number), A).to_vec(), ipv4(&address(number))));
        Self {
            rate: rate.into(),
            sockets: sockets.collect(),
            waiting: vec![vec![None; 1 << 16]; SOCKETS],
            outstanding: 0,
            questions: questions.collect(),
            report: Report::default(),
        }
    }

    /// Sends what is due and takes what comes, until it is over and nothing is outstanding.
    fn run(mut self, shared: &Shared) -> Report {
        let mut next = Instant::now();
        let step = Duration::from_secs_f64(1.0 / self.rate);
        let mut ended: Option<Instant> = None;
        loop {
            let now = Instant::now();
            // A client that was kept from running does not make up for it: a burst would be another test.
            next = next.max(now.checked_sub(MAX_LAG).unwrap_or(now));
            while ended.is_none() && next <= now {
                self.send();
                next += step;
            }
            if ended.is_some_and(|ended| self.outstanding == 0 || ended.elapsed() > PATIENCE) {
                return self.report;
            }
            self.listen(next.saturating_duration_since(now).max(step));
            let mut progress = shared.progress.lock().expect("nothing panics here");
            progress.sent = self.report.queries.len();
            if progress.is_over {
                ended.get_or_insert(now);
            }
            drop(progress);
            shared.changed.notify_all();
        }
    }

    /// Sends the next query.
    fn send(&mut self) {
        let number = self.report.queries.len();
        let (socket, id) = (number % SOCKETS, (number / SOCKETS) as u16);
        let query = &mut self.questions[number % NAMES].0;
        query[..2].copy_from_slice(&id.to_be_bytes());
        self.waiting[socket][usize::from(id)] = Some(number);
        self.outstanding += 1;
        self.report.queries.push(Sent { at: Instant::now(), answer: None });
        self.sockets[socket].send(query).expect("loopback takes a datagram");
    }

    /// Takes what has come, and waits for that at most so long.
    fn listen(&mut self, at_most: Duration) {
        let mut watched: Vec<_> = self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let at_most = Timespec::try_from(at_most).expect("a short time");
        poll(&mut watched, Some(&at_most)).expect("sockets can be polled");
        let ready: Vec<usize> = (0..SOCKETS).filter(|&socket| !watched[socket].revents().is_empty()).collect();
        let mut buffer = [0; 512];
        for socket in ready {
            while let Ok(length) = self.sockets[socket].recv(&mut buffer) {
                self.take(socket, &buffer[..length]);
            }
        }
    }

    /// Takes one response.
    fn take(&mut self, socket: usize, response: &[u8]) {
        let Some(number) = self.waiting[socket][usize::from(word(response, 0))].take() else {
            self.report.strays += 1;
            return;
        };
        self.outstanding -= 1;
        let (query, address) = &self.questions[number % NAMES];
        // QR is there, the rcode is NOERROR, there is one answer; the question is ours, and the address stands at the end.
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

/// The name of this number.
fn name(number: usize) -> String {
    format!("h{number}.example")
}

/// The address of the name of this number.
fn address(number: usize) -> String {
    let [.., b, c, d] = number.to_be_bytes();
    format!("10.{b}.{c}.{d}")
}

/// Different names. Equal queries in flight would share a race, and one that is lost be answered by another's.
const NAMES: usize = 30_000;
/// Ports that are asked from: enough that each worker of the server gets its part.
const SOCKETS: usize = 8;
/// By how much a query may be late before it is left out.
const MAX_LAG: Duration = Duration::from_millis(10);
/// How many answers that are not right are kept to be shown.
const ODDITIES: usize = 8;
