//! The writer thread: takes the buffers of the workers and has their records written. It is woken by the clock, or when much has
//! come; it waits for no reader.
//!
//! A reload that changes a tap gives it new buffers. What is left in those of before is written first, as it was to be.

use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::buffers::{Buffer, Exchange};
use super::choice::Lottery;
use super::dnstap::{Dnstap, Frames};
use super::in_memory::InMemory;
use super::names::NamesTap;
use super::query_log::{Lines, QueryLog};
use super::slow::{SlowTap, lock};
use super::traces::{Backends, Traces};
use super::{Side, TapClock, TapSet};
use crate::config::{Config, DnstapConfig, QueryLogConfig, TracesConfig};
use crate::metrics::{Counters, Tap, TapFate};
use crate::net::tasks::{Lost, TaskKind, Tasks};
use crate::sight::names::TopNames;
use crate::sight::slow::SlowRaces;
use crate::wire::QuestionHasher;

/// What the config says of taps.
#[derive(Clone, Debug, PartialEq)]
pub struct TapsConfig {
    query_log: Option<QueryLogConfig>,
    dnstap: Option<DnstapConfig>,
    /// How many slow races are kept, if any are.
    slow: Option<usize>,
    /// Where they go besides.
    traces: Option<TracesConfig>,
    /// Where the backends are that have names.
    backends: Backends,
    /// Whose names are counted, if any are.
    names: Option<Side>,
}

impl TapsConfig {
    /// Of a config.
    pub fn of(config: &Config) -> Self {
        let slow = config.slow.map(|slow| slow.keep);
        let are_counted = config.admin.as_ref().is_some_and(|admin| admin.names);
        let side = if config.forwarder.is_some() { Side::Forwarder } else { Side::Authority };
        let names = are_counted.then_some(side);
        let backends = config.pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| (&pool.name, backend)));
        let backends =
            backends.map(|(pool, backend)| ((pool.clone(), backend.name.clone()), backend.address.socket)).collect();
        let (query_log, dnstap, traces) = (config.query_log.clone(), config.dnstap.clone(), config.traces.clone());
        Self { query_log, dnstap, slow, traces, backends, names }
    }

    fn is_empty(&self) -> bool {
        self.query_log.is_none() && self.dnstap.is_none() && self.slow.is_none() && self.names.is_none()
    }
}

/// The taps of a server, as the control thread has them.
pub struct Taps {
    workers: usize,
    /// What the writer counts.
    counters: Arc<Counters>,
    clock: Arc<TapClock>,
    lottery: Lottery,
    hasher: QuestionHasher,
    /// Those in force.
    set: Option<Arc<TapSet>>,
    traces: Traces,
    writer: Option<Writer>,
    lost_sender: UnboundedSender<Lost>,
    lost: UnboundedReceiver<Lost>,
}

/// The way to the writer thread.
#[derive(Debug)]
struct Writer {
    orders: Sender<Order>,
    thread: Thread,
}

/// What the writer is told.
enum Order {
    /// Write the records of these, from now on; open files anew.
    Set(Option<Arc<TapSet>>),
    /// Write what there is until then, end, and say so.
    End(Instant, oneshot::Sender<()>),
}

impl Taps {
    /// None yet, for so many workers, which hash questions like this. `seed` is for the choice among those. Tasks of this thread are
    /// among `tasks`.
    pub fn new(workers: usize, hasher: QuestionHasher, seed: u64, tasks: Tasks) -> Self {
        // One loss at most.
        let (lost_sender, lost) = unbounded_channel();
        let clock = Arc::new(TapClock::new());
        let lottery = Lottery::new(clock.start, seed);
        let (counters, traces) = (Arc::default(), Traces::new(tasks));
        Self { workers, counters, clock, lottery, hasher, set: None, traces, writer: None, lost_sender, lost }
    }

    /// What the writer counts, and what is counted on this thread.
    pub fn counters(&self) -> [&Arc<Counters>; 2] {
        [&self.counters, self.traces.counters()]
    }

    /// Those in force, for workers.
    pub fn set(&self) -> &Option<Arc<TapSet>> {
        &self.set
    }

    /// Puts the taps of a config in force: those that have not changed go on, with their files opened anew. Workers are to be told.
    /// Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If the operating system gives no thread; then nothing has changed.
    pub fn apply(&mut self, config: &TapsConfig) -> io::Result<()> {
        if self.writer.is_none() {
            if config.is_empty() {
                return Ok(());
            }
            self.writer = Some(self.start()?);
        }
        let earlier = self.set.as_deref();
        let known = earlier.and_then(|set| set.query_log.as_ref());
        let query_log = config.query_log.as_ref().map(|config| match known {
            Some(known) if known.config == *config => Arc::clone(known),
            Some(_) | None => Arc::new(QueryLog::new(config, self.workers)),
        });
        let known = earlier.and_then(|set| set.dnstap.as_ref());
        let dnstap = config.dnstap.as_ref().map(|config| match known {
            Some(known) if known.config == *config => Arc::clone(known),
            Some(_) | None => Arc::new(Dnstap::new(config, &host_name(), self.workers)),
        });
        let known = earlier.and_then(|set| set.slow.as_ref());
        let slow = config.slow.map(|keep| match known {
            Some(known) => {
                lock(known.races()).set_keep(keep);
                Arc::clone(known)
            }
            None => Arc::new(SlowTap::new(Arc::new(Mutex::new(SlowRaces::new(keep))), self.workers)),
        });
        let traces = self.traces.apply(config.traces.as_ref(), &config.backends, &self.counters);
        if let Some(slow) = &slow {
            slow.set_traces(traces);
        }
        let known = earlier.and_then(|set| set.names.as_ref());
        let names = config.names.map(|side| match known {
            Some(known) if known.side == side => Arc::clone(known),
            Some(_) | None => Arc::new(NamesTap::new(side, self.workers)),
        });
        let (clock, hasher) = (Arc::clone(&self.clock), self.hasher.clone());
        let set = TapSet { clock, lottery: self.lottery, hasher, query_log, dnstap, slow, names };
        self.set = (!config.is_empty()).then(|| Arc::new(set));
        self.tell(Order::Set(self.set.clone()));
        Ok(())
    }

    /// The slow races that are kept, if any are.
    pub fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>> {
        Some(Arc::clone(self.set.as_ref()?.slow.as_ref()?.races()))
    }

    /// The names that are counted, if any are.
    pub fn top_names(&self) -> Option<Arc<Mutex<TopNames>>> {
        Some(Arc::clone(self.set.as_ref()?.names.as_ref()?.names()))
    }

    /// Waits until the writer is lost.
    pub async fn lost(&mut self) -> Lost {
        match self.lost.recv().await {
            Some(lost) => lost,
            None => TaskKind::Taps.ended(Ok(())),
        }
    }

    /// Ends, when nothing is appended any more. What cannot be written within half a second is dropped.
    pub async fn end(&mut self) {
        let (done, ended) = oneshot::channel();
        let deadline = Instant::now() + END;
        self.set = None;
        self.tell(Order::End(deadline, done));
        // It says so in time, unless a disk hangs. Then it has let go of what leads to the traces, which end too.
        let _ = timeout_at((deadline + END_MARGIN).into(), ended).await;
        self.traces.end(deadline, END_MARGIN).await;
    }

    fn tell(&self, order: Order) {
        if let Some(Writer { orders, thread }) = &self.writer {
            let _ = orders.send(order);
            thread.unpark();
        }
    }

    /// Starts the thread.
    fn start(&self) -> io::Result<Writer> {
        #[cfg(feature = "faults")]
        crate::faults::on_thread("taps")?;
        let (orders, received) = channel();
        let (counters, clock, lost) = (Arc::clone(&self.counters), Arc::clone(&self.clock), self.lost_sender.clone());
        // Nobody waits for its end for long: it may hang in a disk.
        let handle = thread::Builder::new().name("taps".to_owned()).spawn(move || {
            let live = || {
                TaskKind::Taps.begin();
                run(&received, &counters, &clock);
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(live)) {
                let _ = lost.send(TaskKind::Taps.panicked(&*panic));
            }
        })?;
        Ok(Writer { orders, thread: handle.thread().clone() })
    }
}

/// Where the records of a tap go.
pub(super) trait Outlet: Send {
    /// Which tap it is.
    fn tap(&self) -> Tap;

    /// The file that it writes, if that is one.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// Takes a record, to be written soon.
    fn take(&mut self, record: &[u8]);

    /// Whether it takes more before something is written.
    fn has_room(&self) -> bool;

    /// How many records wait to be written.
    fn waiting(&self) -> u64;

    /// Writes what can be written without waiting. Returns how many records that were.
    fn write(&mut self) -> io::Result<u64>;

    /// What to wait for, when a write would have waited.
    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)>;

    /// Opens what it writes to anew.
    fn reopen(&mut self);

    /// Whether somebody else has the tap too, and may append to it.
    fn is_shared(&self) -> bool;

    /// Nothing more is written: says so to who reads it, which takes until then at most.
    fn end(&mut self, until: Instant);
}

/// The life of the writer thread.
fn run(orders: &Receiver<Order>, counters: &Counters, clock: &TapClock) {
    let mut streams: Vec<Stream> = Vec::new();
    loop {
        let order = match streams.is_empty() {
            true => orders.recv().map_err(|_| TryRecvError::Disconnected),
            false => orders.try_recv(),
        };
        match order {
            Ok(Order::Set(set)) => set_streams(&mut streams, set.as_deref()),
            Ok(Order::End(deadline, done)) => {
                end(streams, counters, deadline);
                let _ = done.send(());
                return;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        clock.set();
        let is_more = work(&mut streams, counters);
        if !is_more && !streams.is_empty() {
            pause(&streams);
        }
    }
}

/// Has these taps written, and what is left of the earlier ones.
fn set_streams(streams: &mut Vec<Stream>, set: Option<&TapSet>) {
    let query_log = set.and_then(|set| set.query_log.as_ref());
    let dnstap = set.and_then(|set| set.dnstap.as_ref());
    let slow = set.and_then(|set| set.slow.as_ref());
    let names = set.and_then(|set| set.names.as_ref());
    let in_force = [
        query_log.map(|log| &log.exchange),
        dnstap.map(|dnstap| &dnstap.exchange),
        slow.map(|tap| &tap.exchange),
        names.map(|tap| &tap.exchange),
    ];
    for stream in streams.iter_mut() {
        stream.outlet.reopen();
        stream.retry_at = None;
        if !in_force.into_iter().flatten().any(|exchange| Arc::ptr_eq(exchange, &stream.exchange)) {
            stream.until = stream.until.or_else(|| Some(Instant::now() + LEFT));
        }
    }
    let is_new = |streams: &[Stream], exchange: &Arc<Exchange>| {
        !streams.iter().any(|stream| Arc::ptr_eq(&stream.exchange, exchange))
    };
    if let Some(log) = query_log.filter(|log| is_new(streams, &log.exchange)) {
        streams.push(Stream::new(Arc::clone(&log.exchange), Box::new(Lines::new(Arc::clone(log)))));
    }
    if let Some(dnstap) = dnstap.filter(|dnstap| is_new(streams, &dnstap.exchange)) {
        streams.push(Stream::new(Arc::clone(&dnstap.exchange), Box::new(Frames::new(Arc::clone(dnstap)))));
    }
    if let Some(tap) = slow.filter(|tap| is_new(streams, &tap.exchange)) {
        streams.push(Stream::new(Arc::clone(&tap.exchange), Box::new(InMemory::new(Arc::clone(tap)))));
    }
    if let Some(tap) = names.filter(|tap| is_new(streams, &tap.exchange)) {
        streams.push(Stream::new(Arc::clone(&tap.exchange), Box::new(InMemory::new(Arc::clone(tap)))));
    }
}

/// Writes what there is, as far as that can be done without waiting. Returns whether there is more that could be.
fn work(streams: &mut Vec<Stream>, counters: &Counters) -> bool {
    let now = Instant::now();
    let mut is_more = false;
    let mut earlier: Vec<Tap> = Vec::new();
    streams.retain_mut(|stream| {
        let tap = stream.outlet.tap();
        // What is left of a tap as it was goes before what has come since.
        if earlier.contains(&tap) {
            return true;
        }
        is_more |= stream.work(counters, now);
        stream.tell(now);
        match stream.until {
            Some(until) if stream.is_over() || now >= until => {
                stream.abandon(counters);
                stream.outlet.end(until);
                false
            }
            Some(_) => {
                earlier.push(tap);
                true
            }
            None => true,
        }
    });
    is_more
}

/// Writes what is left until the deadline; what is still there then is dropped.
fn end(mut streams: Vec<Stream>, counters: &Counters, deadline: Instant) {
    streams.iter_mut().for_each(|stream| stream.until = Some(deadline));
    while !streams.is_empty() {
        if !work(&mut streams, counters) && !streams.is_empty() {
            pause(&streams);
        }
    }
}

/// Sleeps until it is time to look again, until much has come, or until what could not be written can.
fn pause(streams: &[Stream]) {
    let blocked = streams.iter().filter(|stream| stream.is_blocked).filter_map(|stream| stream.outlet.blocked_on());
    let mut fds: Vec<_> = blocked.map(|(fd, event)| PollFd::from_borrowed_fd(fd, event)).collect();
    if fds.is_empty() {
        return thread::park_timeout(TICK);
    }
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    let _ = poll(&mut fds, Some(&tick));
}

/// The records of one tap on their way.
struct Stream {
    exchange: Arc<Exchange>,
    outlet: Box<dyn Outlet>,
    /// The buffer that is being read, and how far.
    buffer: Option<(Buffer, usize)>,
    /// When it is tried again, after a write has failed.
    retry_at: Option<Instant>,
    /// Whether the last write would have waited.
    is_blocked: bool,
    /// Until when what is left of it is written, if another has taken its place.
    until: Option<Instant>,
    /// What went wrong last and was not told yet.
    problem: Option<io::Error>,
    /// When the log was told of something.
    told_at: Option<Instant>,
    /// How many dropped records it was told of.
    told: u64,
}

impl Stream {
    fn new(exchange: Arc<Exchange>, outlet: Box<dyn Outlet>) -> Self {
        exchange.set_writer();
        Self {
            exchange,
            outlet,
            buffer: None,
            retry_at: None,
            is_blocked: false,
            until: None,
            problem: None,
            told_at: None,
            told: 0,
        }
    }

    /// Writes what there is. Returns whether there is more.
    fn work(&mut self, counters: &Counters, now: Instant) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        (self.retry_at, self.is_blocked) = (None, false);
        for _ in 0..AT_A_TIME {
            while self.outlet.has_room() && self.move_record() {}
            if self.outlet.waiting() == 0 {
                return false;
            }
            match self.outlet.write() {
                Ok(written) => counters.tapped(self.outlet.tap(), TapFate::Written, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.retry_at = Some(now + RETRY);
                    self.problem = Some(error);
                    return false;
                }
            }
        }
        true
    }

    /// Moves the next record to the outlet. Returns whether there was one.
    fn move_record(&mut self) -> bool {
        loop {
            let (buffer, at) = match &mut self.buffer {
                Some((buffer, at)) => (buffer, at),
                none => match self.exchange.take() {
                    Some(buffer) => {
                        let (buffer, at) = none.insert((buffer, 0));
                        (buffer, at)
                    }
                    None => return false,
                },
            };
            if let Some((record, next)) = buffer.record(*at) {
                self.outlet.take(record);
                *at = next;
                return true;
            }
            if let Some((buffer, _)) = self.buffer.take() {
                self.exchange.give_back(buffer);
            }
        }
    }

    /// Whether nothing is left, and nothing comes any more.
    fn is_over(&self) -> bool {
        // In this order: who lets go of it has appended before.
        !self.outlet.is_shared() && self.exchange.is_empty() && self.buffer.is_none() && self.outlet.waiting() == 0
    }

    /// Counts what is left as dropped.
    fn abandon(&mut self, counters: &Counters) {
        let mut left = self.outlet.waiting() + self.buffer.take().map_or(0, |(buffer, at)| buffer.count(at));
        while let Some(buffer) = self.exchange.take() {
            left += buffer.count(0);
        }
        counters.tapped(self.outlet.tap(), TapFate::Dropped, left);
        if left > 0 {
            tracing::warn!("{}: {left} records could not be written in time", self.outlet.tap().label());
        }
    }

    /// Tells the log once a minute what went wrong.
    fn tell(&mut self, now: Instant) {
        let dropped = self.exchange.dropped() - self.told;
        let is_due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        if !is_due || dropped == 0 && self.problem.is_none() {
            return;
        }
        self.told_at = Some(now);
        self.told += dropped;
        let tap = self.outlet.tap().label();
        match self.problem.take() {
            Some(error) => {
                let file = self.outlet.file().map(|file| format!(" to {}", file.display())).unwrap_or_default();
                tracing::warn!(%error, dropped, "{tap}: records cannot be written{file}; {dropped} are dropped");
            }
            None => tracing::warn!(dropped, "{tap}: more records come than can be written; {dropped} are dropped"),
        }
    }
}

/// The name of this host, by which a collector knows who tells it something.
pub(super) fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "hedgerow".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// How long records wait at most before it is looked for them.
const TICK: Duration = Duration::from_millis(50);

/// How long is waited after a write has failed.
const RETRY: Duration = Duration::from_millis(500);

/// How long is waited at the end of the process.
const END: Duration = Duration::from_millis(400);

/// What the way there and back may take beyond that: half a second in all.
const END_MARGIN: Duration = Duration::from_millis(100);

/// How long what is left of a tap that was changed is tried to be written.
const LEFT: Duration = Duration::from_secs(5);

/// How often the log is told that records are dropped.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Writes of one tap before others have their turn.
const AT_A_TIME: usize = 16;
