//! The writer thread: takes the buffers of the workers and writes their records. It wakes by the clock or
//! when half of the buffers are full, and waits for no reader.
//!
//! A reload that changes a tap gives it new buffers. The writer first writes the old ones to the old output.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use config::Config;
use dns::QuestionHasher;
use engine::slow::SlowRaces;
use metrics::{Counters, Tap, TapFate};
use net::tasks::{LostTask, TaskKind, Tasks};
use rustix::event::{PollFd, Timespec, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::buffers::{BUFFER, BufferExchange, LEN};
use super::choice::Lottery;
use super::dnstap::Dnstap;
use super::names::NamesTap;
use super::problems::TapProblems;
use super::query_log::QueryLog;
use super::sinks::Sink;
use super::slow::{SlowTap, lock};
use super::traces::Traces;
use super::{Side, TapClock, TapSet};
use crate::control::observe::sight::names::TopNames;

/// The taps of a server, on the control thread.
pub struct Taps {
    workers: usize,
    counters: Arc<Counters>,
    clock: Arc<TapClock>,
    lottery: Lottery,
    hasher: QuestionHasher,
    set: Option<Arc<TapSet>>,
    traces: Traces,
    writer: Option<TapWriter>,
    lost_sender: UnboundedSender<LostTask>,
    lost: UnboundedReceiver<LostTask>,
}

#[derive(Debug)]
struct TapWriter {
    orders: Sender<TapOrder>,
    thread: Thread,
}

enum TapOrder {
    /// Use these taps from now on; open files anew.
    Set(Option<Arc<TapSet>>),
    /// Write everything until the deadline, end, and confirm.
    End(Instant, oneshot::Sender<()>),
}

impl Taps {
    /// Creates a set without taps for this number of workers. `seed` randomizes the choice of questions;
    /// `tasks` gets the tasks of this thread.
    pub fn new(workers: usize, hasher: QuestionHasher, seed: u64, tasks: Tasks) -> Self {
        // Carries at most one loss.
        let (lost_sender, lost) = unbounded_channel();
        let clock = Arc::new(TapClock::new());
        let lottery = Lottery::new(clock.start, seed);
        let (counters, traces) = (Arc::default(), Traces::new(tasks));
        Self { workers, counters, clock, lottery, hasher, set: None, traces, writer: None, lost_sender, lost }
    }

    /// Returns the counters of the writer thread and of this thread.
    pub fn counters(&self) -> [&Arc<Counters>; 2] {
        [&self.counters, self.traces.counters()]
    }

    /// Returns the current taps, for workers.
    pub fn set(&self) -> &Option<Arc<TapSet>> {
        &self.set
    }

    /// Applies a config: unchanged taps continue with files opened anew. The caller must pass the new set to
    /// the workers. Must be called within a `LocalRuntime`.
    ///
    /// # Errors
    /// If the operating system provides no thread for the first taps. Nothing has changed then.
    pub fn apply(&mut self, config: &Config) -> io::Result<()> {
        let side = if config.forwarder.is_some() { Side::Forwarder } else { Side::Authority };
        let names = config.admin.as_ref().is_some_and(|admin| admin.names).then_some(side);
        let taps = &config.taps;
        let has_taps = taps.query_log.is_some() || taps.dnstap.is_some() || taps.slow.is_some() || names.is_some();
        match self.writer {
            Some(_) => {}
            None if has_taps => self.writer = Some(self.start()?),
            None => return Ok(()),
        }
        let earlier = self.set.as_deref();
        let workers = self.workers;
        let known = earlier.and_then(|set| set.query_log.as_ref());
        let query_log = kept(&taps.query_log, known, |log| &log.config, |config| QueryLog::new(config, workers));
        let known = earlier.and_then(|set| set.dnstap.as_ref());
        let dnstap = kept(&taps.dnstap, known, |dnstap| &dnstap.config, |config| Dnstap::new(config, workers));
        let known = earlier.and_then(|set| set.names.as_ref());
        let names = kept(&names, known, |names| &names.side, |side| NamesTap::new(*side, workers));
        let known = earlier.and_then(|set| set.slow.clone());
        let slow = taps.slow.as_ref().map(|config| {
            let slow = known.unwrap_or_else(|| Arc::new(SlowTap::new(config.keep, workers)));
            lock(&slow.races).set_keep(config.keep);
            slow
        });
        let traces = self.traces.apply(config, &self.counters);
        if let Some(slow) = &slow {
            *lock(&slow.traces) = traces;
        }
        let (clock, hasher) = (Arc::clone(&self.clock), self.hasher.clone());
        let set = TapSet { clock, lottery: self.lottery, hasher, query_log, dnstap, slow, names };
        self.set = has_taps.then(|| Arc::new(set));
        self.send(TapOrder::Set(self.set.clone()));
        Ok(())
    }

    /// Returns the kept slow races, if configured.
    pub fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>> {
        Some(Arc::clone(&self.set.as_ref()?.slow.as_ref()?.races))
    }

    /// Returns the counted names, if configured.
    pub fn top_names(&self) -> Option<Arc<Mutex<TopNames>>> {
        Some(Arc::clone(&self.set.as_ref()?.names.as_ref()?.names))
    }

    /// Waits until the writer is lost.
    pub async fn lost(&mut self) -> LostTask {
        match self.lost.recv().await {
            Some(lost) => lost,
            None => TaskKind::Taps.ended(Ok(())),
        }
    }

    /// Ends the writer after the last append. Records that are not written within half a second are dropped.
    pub async fn end(&mut self) {
        let (done, ended) = oneshot::channel();
        let deadline = Instant::now() + END;
        self.set = None;
        self.send(TapOrder::End(deadline, done));
        // The writer confirms in time, unless a disk hangs. It has then dropped the sender of the traces,
        // which end too.
        let _ = timeout_at((deadline + END_MARGIN).into(), ended).await;
        self.traces.end(deadline, END_MARGIN).await;
    }

    fn send(&self, order: TapOrder) {
        if let Some(TapWriter { orders, thread }) = &self.writer {
            let _ = orders.send(order);
            thread.unpark();
        }
    }

    fn start(&self) -> io::Result<TapWriter> {
        #[cfg(feature = "faults")]
        net::faults::on_thread("taps")?;
        let (orders, received) = channel();
        let (counters, clock, lost) = (Arc::clone(&self.counters), Arc::clone(&self.clock), self.lost_sender.clone());
        // The thread is not joined, because it may hang in a disk.
        let handle = thread::Builder::new().name("taps".to_owned()).spawn(move || {
            let live = || {
                TaskKind::Taps.begin();
                run(&received, &counters, &clock);
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(live)) {
                let _ = lost.send(TaskKind::Taps.panicked(&*panic));
            }
        })?;
        Ok(TapWriter { orders, thread: handle.thread().clone() })
    }
}

/// Returns the earlier tap if it has this config, or else a new one.
fn kept<C: PartialEq, T>(
    config: &Option<C>,
    earlier: Option<&Arc<T>>,
    config_of: impl Fn(&T) -> &C,
    new: impl Fn(&C) -> T,
) -> Option<Arc<T>> {
    let config = config.as_ref()?;
    let known = earlier.filter(|known| config_of(known) == config).cloned();
    Some(known.unwrap_or_else(|| Arc::new(new(config))))
}

/// A tap from the point of view of the writer.
pub(super) trait RecordTap: Send + Sync {
    fn tap(&self) -> Tap;

    fn exchange(&self) -> &Arc<BufferExchange>;

    /// Keeps a record in this process, if the tap has no output.
    fn take(&self, _record: &[u8]) {}

    /// Returns the output; `None` if the tap keeps all records in this process.
    fn sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}

impl TapSet {
    fn taps(&self) -> impl Iterator<Item = Arc<dyn RecordTap>> {
        let query_log = self.query_log.clone().map(|tap| tap as Arc<dyn RecordTap>);
        let dnstap = self.dnstap.clone().map(|tap| tap as Arc<dyn RecordTap>);
        let slow = self.slow.clone().map(|tap| tap as Arc<dyn RecordTap>);
        let names = self.names.clone().map(|tap| tap as Arc<dyn RecordTap>);
        [query_log, dnstap, slow, names].into_iter().flatten()
    }
}

fn run(orders: &Receiver<TapOrder>, counters: &Counters, clock: &TapClock) {
    let mut streams: Vec<TapStream> = Vec::new();
    loop {
        let order = match streams.is_empty() {
            true => orders.recv().map_err(|_| TryRecvError::Disconnected),
            false => orders.try_recv(),
        };
        match order {
            Ok(TapOrder::Set(set)) => set_streams(&mut streams, set.as_deref()),
            Ok(TapOrder::End(deadline, done)) => {
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

/// Replaces the taps, and keeps the rest of the earlier ones.
fn set_streams(streams: &mut Vec<TapStream>, set: Option<&TapSet>) {
    let taps: Vec<_> = set.into_iter().flat_map(TapSet::taps).collect();
    let is_same = |one: &dyn RecordTap, other: &dyn RecordTap| Arc::ptr_eq(one.exchange(), other.exchange());
    for stream in streams.iter_mut() {
        if let Some(sink) = &mut stream.sink {
            sink.reopen();
        }
        stream.retry_at = None;
        if !taps.iter().any(|tap| is_same(&**tap, &*stream.tap)) {
            stream.until = stream.until.or_else(|| Some(Instant::now() + LEFT));
        }
    }
    for tap in taps {
        if !streams.iter().any(|stream| is_same(&*tap, &*stream.tap)) {
            streams.push(TapStream::new(tap));
        }
    }
}

/// Writes without blocking. Returns true if more could be written.
fn work(streams: &mut Vec<TapStream>, counters: &Counters) -> bool {
    let now = Instant::now();
    let mut is_more = false;
    let mut earlier: Vec<Tap> = Vec::new();
    streams.retain_mut(|stream| {
        let tap = stream.tap.tap();
        // Older records of a tap go first.
        if earlier.contains(&tap) {
            return true;
        }
        is_more |= stream.work(counters, now);
        stream.log(now);
        match stream.until {
            Some(until) if stream.is_over() || now >= until => {
                stream.end(counters, until);
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

/// Writes the rest until the deadline and drops what is left then.
fn end(mut streams: Vec<TapStream>, counters: &Counters, deadline: Instant) {
    streams.iter_mut().for_each(|stream| stream.until = Some(deadline));
    while !streams.is_empty() {
        if !work(&mut streams, counters) && !streams.is_empty() {
            pause(&streams);
        }
    }
}

/// Sleeps until the next tick, a wake-up by a worker, or a writable output.
fn pause(streams: &[TapStream]) {
    let blocked =
        streams.iter().filter(|stream| stream.is_blocked).filter_map(|stream| stream.sink.as_ref()?.blocked_on());
    let mut fds: Vec<_> = blocked.map(|(fd, event)| PollFd::from_borrowed_fd(fd, event)).collect();
    if fds.is_empty() {
        return thread::park_timeout(TICK);
    }
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    let _ = poll(&mut fds, Some(&tick));
}

/// The path of the records of one tap to its output.
struct TapStream {
    tap: Arc<dyn RecordTap>,
    sink: Option<Box<dyn Sink>>,
    /// The records that wait for the output, and the part of the first one that is written.
    waiting: Vec<u8>,
    sent: usize,
    /// The number of records that are not written yet, or are kept and not counted yet.
    records: u64,
    retry_at: Option<Instant>,
    is_blocked: bool,
    until: Option<Instant>,
    problems: TapProblems,
}

impl TapStream {
    fn new(tap: Arc<dyn RecordTap>) -> Self {
        tap.exchange().set_writer();
        Self {
            sink: tap.sink(),
            tap,
            waiting: Vec::with_capacity(BUFFER),
            sent: 0,
            records: 0,
            retry_at: None,
            is_blocked: false,
            until: None,
            problems: TapProblems::default(),
        }
    }

    fn work(&mut self, counters: &Counters, now: Instant) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        (self.retry_at, self.is_blocked) = (None, false);
        for _ in 0..AT_A_TIME {
            if self.records == 0 && !self.take_buffer() {
                return false;
            }
            match self.write() {
                Ok(written) => counters.tapped(self.tap.tap(), TapFate::Written, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.sent = 0;
                    self.retry_at = Some(now + RETRY);
                    self.problems.problem = Some(error.to_string());
                    return false;
                }
            }
        }
        true
    }

    /// Writes as much as possible without blocking. Returns the number of records written.
    fn write(&mut self) -> io::Result<u64> {
        let Some(sink) = &mut self.sink else { return Ok(mem::take(&mut self.records)) };
        self.sent += sink.write(self.waiting.get(self.sent..).unwrap_or_default())?;
        let (records, whole) = match self.waiting.get(..self.sent) {
            Some(sent) if sent.len() < self.waiting.len() => self.tap.exchange().framing.whole(sent),
            _ => (self.records, self.waiting.len()),
        };
        self.waiting.drain(..whole);
        self.sent -= whole;
        self.records -= records;
        Ok(records)
    }

    /// Takes the next buffer. Returns false if there is none.
    fn take_buffer(&mut self) -> bool {
        let exchange = self.tap.exchange();
        let Some(mut buffer) = exchange.take() else { return false };
        self.records = buffer.records;
        match self.sink {
            Some(_) => mem::swap(&mut self.waiting, &mut buffer.octets),
            None => {
                let frames = exchange.framing.records(&buffer.octets);
                frames.filter_map(|frame| frame.get(LEN..)).for_each(|record| self.tap.take(record));
            }
        }
        exchange.give_back(buffer);
        true
    }

    /// Returns true if nothing is left and nothing arrives any more.
    fn is_over(&self) -> bool {
        // The order matters: a worker appends before it drops the tap.
        Arc::strong_count(&self.tap) == 1 && self.tap.exchange().is_empty() && self.records == 0
    }

    /// Drops what is left, and ends the output.
    fn end(&mut self, counters: &Counters, until: Instant) {
        let mut left = self.records;
        while let Some(buffer) = self.tap.exchange().take() {
            left += buffer.records;
        }
        counters.tapped(self.tap.tap(), TapFate::Dropped, left);
        if left > 0 {
            tracing::warn!("{}: {left} records could not be written in time", self.tap.tap().label());
        }
        // Nothing can follow a part of a record.
        if let (Some(sink), 0) = (&mut self.sink, self.sent) {
            sink.end(until);
        }
    }

    fn log(&mut self, now: Instant) {
        let file = self.sink.as_ref().and_then(|sink| sink.file());
        let place = file.map(|file| format!(" to {}", file.display())).unwrap_or_default();
        self.problems.log(self.tap.tap(), self.tap.exchange().dropped(), "written", &place, now);
    }
}

/// Returns the name of this host, by which a collector identifies it.
pub(super) fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "hedgerow".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The longest wait of a record before the writer looks.
const TICK: Duration = Duration::from_millis(50);

const RETRY: Duration = Duration::from_millis(500);

const END: Duration = Duration::from_millis(400);

/// The margin for the messages to and from the thread: half a second in all.
const END_MARGIN: Duration = Duration::from_millis(100);

/// The time limit for the rest of a replaced tap.
const LEFT: Duration = Duration::from_secs(5);

/// The buffers of one tap before others have their turn.
const AT_A_TIME: usize = 16;
