//! Taps: what observes queries beside all that serves them. They may lose records, never delay a query.
//!
//! ```text
//!   forwarder ──┐  told(...)             at the end of a turn              ┌──▶ query_log: file, stderr, unix socket
//!               ├──────────▶ WorkerTaps ─── buffers change hands ──▶ writer┤
//!   authority ──┘    chosen? cut, appended    (buffers.rs)      (one       └──▶ dnstap: a collector, a file
//!                                                               thread, woken by the clock)
//! ```
//!
//! Slow races take the same way (`slow.rs`), and go from the writer to who asks for them and to a collector of traces (`traces/mod.rs`).
//!
//! A worker decides by the hash of the question whether a query is tapped (`choice.rs`), cuts what may not be told
//! (`privacy.rs`), and appends a compact record to a buffer of its own. That is all that a query pays: no lock, no allocation, no
//! message. With no tap in the config it is one look at a flag. Each tap has buffers of its own, so that one whose reader
//! hangs takes no room from another. The writer thread (`writer.rs`) makes of the records what goes out, and waits for
//! no reader either; what finds no room is dropped and counted, and the log tells so once a minute.

mod buffers;
mod choice;
mod dnstap;
mod in_memory;
mod names;
mod privacy;
mod query_log;
mod record;
mod slow;
mod traces;
mod writer;

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::buffers::Appender;
use self::choice::Lottery;
use self::dnstap::{ClientMessage, Dnstap};
use self::names::{NamesAppender, NamesTap};
use self::query_log::QueryLog;
pub use self::slow::lock;
use self::slow::{SlowAppender, SlowTap};
pub use self::writer::{Taps, TapsConfig};
use serde::Serialize;

use crate::metrics::{Counters, Source, Tap, TapFate};
use crate::policy::race::Kind;
use crate::wire::{Header, Question, QuestionFlags, QuestionHasher, QuestionKey, Rcode, Transport};

/// All taps of a config, as workers see them.
#[derive(Debug)]
pub struct TapSet {
    clock: Arc<TapClock>,
    lottery: Lottery,
    /// Hashes questions as engines do.
    hasher: QuestionHasher,
    query_log: Option<Arc<QueryLog>>,
    dnstap: Option<Arc<Dnstap>>,
    slow: Option<Arc<SlowTap>>,
    names: Option<Arc<NamesTap>>,
}

/// Whose clients they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The forwarder's.
    Forwarder,
    /// Those of an authority.
    Authority,
}

/// A query that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// By whom.
    pub side: Side,
    /// Who has asked.
    pub client: SocketAddr,
    /// The address that was asked, as far as it is known.
    pub local: Option<SocketAddr>,
    /// How.
    pub transport: Transport,
    /// When.
    pub now: Instant,
    /// The hash of the question, if it is known already.
    pub hash: Option<u64>,
    /// The query.
    pub message: &'a [u8],
}

/// A message to a backend, or from one.
#[derive(Clone, Copy, Debug)]
pub struct AttemptMessage<'a> {
    /// The pool of the backend.
    pub pool: &'a str,
    /// The backend.
    pub backend: &'a str,
    /// Where it is asked.
    pub address: SocketAddr,
    /// Why it was asked.
    pub kind: Kind,
    /// The hash of the question.
    pub hash: u64,
    /// When the race began, by which it is chosen.
    pub since: Instant,
    /// When the query was sent.
    pub sent: Instant,
    /// When the reply came, if this is one.
    pub received: Option<Instant>,
    /// The message.
    pub octets: &'a [u8],
}

/// What a client was told, or that it was told nothing.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// By whom.
    pub side: Side,
    /// Who has asked.
    pub client: SocketAddr,
    /// The address that it has asked, as far as it is known.
    pub local: Option<SocketAddr>,
    /// How.
    pub transport: Transport,
    /// When, if that was measured.
    pub since: Option<Instant>,
    /// When it is told.
    pub now: Instant,
    /// The hash of the question, if it is known already.
    pub hash: Option<u64>,
    /// Name, type and class as they were asked, if the response does not say it.
    pub question: Option<&'a [u8]>,
    /// The response; empty if there is none.
    pub message: &'a [u8],
    /// Where it comes from, and its whole rcode; none if there is none.
    pub said: Option<(Source, Rcode)>,
    /// To how many queries it is the response.
    pub queries: u32,
    /// How it has come about, if a pool was to answer.
    pub resolution: Option<Resolution<'a>>,
}

/// How a response has come about.
#[derive(Clone, Copy, Debug)]
pub struct Resolution<'a> {
    /// The pool that was to answer.
    pub pool: &'a str,
    /// A query that takes longer is slow.
    pub slow_threshold: Duration,
    /// The backend whose reply it is, and why that was asked.
    pub winner: Option<(&'a str, Kind)>,
    /// How many attempts were made by then.
    pub attempts: u8,
    /// Whether a hedge was among them.
    pub is_hedged: bool,
}

/// The taps of one worker.
#[derive(Debug)]
pub struct WorkerTaps {
    worker: usize,
    counters: Arc<Counters>,
    /// Whether there are any that observe queries: what a query looks at.
    is_on: Cell<bool>,
    /// Whether slow races are told: what a race looks at.
    tells_slow: Cell<bool>,
    open: RefCell<Option<OpenTaps>>,
    /// The question of a response that may have to be dropped.
    noted: RefCell<Vec<u8>>,
}

/// Taps that are in force in a worker.
#[derive(Debug)]
struct OpenTaps {
    set: Arc<TapSet>,
    query_log: Option<(Arc<QueryLog>, Appender)>,
    dnstap: Option<(Arc<Dnstap>, Appender)>,
    slow: Option<(Arc<SlowTap>, SlowAppender)>,
    names: Option<NamesAppender>,
}

impl TapSet {
    /// The hash of a question, as engines have it; of none, that of nothing.
    fn hash(&self, question: Option<&[u8]>) -> u64 {
        let key = question.and_then(|question| QuestionKey::of_parts(question, QuestionFlags::of_octet(0)));
        let folded = key.as_ref().and_then(|key| key.as_octets().split_last());
        self.hasher.hash_one(folded.map_or(&[][..], |(_, octets)| octets))
    }
}

/// The question of a message, if it has one alone.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    let header = Header::read(message).filter(|header| header.qdcount() == 1);
    header.and_then(|_| Question::read(message)).map(|question| question.as_wire())
}

impl WorkerTaps {
    /// Those of the worker of this number, which counts what it drops here.
    pub fn new(worker: usize, counters: Arc<Counters>, set: Option<Arc<TapSet>>) -> Self {
        let this = Self {
            worker,
            counters,
            is_on: Cell::new(false),
            tells_slow: Cell::new(false),
            open: RefCell::default(),
            noted: RefCell::new(Vec::with_capacity(QuestionKey::MAX_LEN)),
        };
        this.set(set);
        this
    }

    /// Puts other taps in force, or none. What was appended to the earlier ones is still written.
    pub fn set(&self, set: Option<Arc<TapSet>>) {
        let open = |set: Arc<TapSet>| OpenTaps {
            query_log: set.query_log.clone().map(|log| {
                let appender = Appender::new(Arc::clone(&log.exchange), self.worker);
                (log, appender)
            }),
            dnstap: set.dnstap.clone().map(|dnstap| {
                let appender = Appender::new(Arc::clone(&dnstap.exchange), self.worker);
                (dnstap, appender)
            }),
            slow: set.slow.clone().map(|tap| {
                let appender = SlowAppender::new(&tap, self.worker);
                (tap, appender)
            }),
            names: set.names.as_ref().map(|tap| NamesAppender::new(tap, self.worker)),
            set,
        };
        let are_observed = |set: &Arc<TapSet>| set.query_log.is_some() || set.dnstap.is_some() || set.names.is_some();
        self.is_on.set(set.as_ref().is_some_and(are_observed));
        self.tells_slow.set(set.as_ref().is_some_and(|set| set.slow.is_some()));
        self.open.replace(set.map(open));
    }

    /// Whether anything observes queries.
    #[inline]
    pub fn are_on(&self) -> bool {
        self.is_on.get()
    }

    /// Notes the question of a response, for limits may leave nothing of that.
    pub fn note_question(&self, response: &[u8]) {
        let mut noted = self.noted.borrow_mut();
        noted.clear();
        noted.extend_from_slice(question_of(response).unwrap_or_default());
    }

    /// A client was told something, or nothing.
    pub fn told(&self, told: &Told<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, query_log, dnstap, names, .. }) = &mut *open else { return };
        let noted = self.noted.borrow();
        let question = told.question.or_else(|| match told.message {
            [] => Some(&**noted),
            response => question_of(response),
        });
        let told = &Told { question, ..*told };
        if let Some(names) = names {
            self.count_dropped(Tap::Names, names.append(told));
        }
        if query_log.is_none() && dnstap.is_none() {
            return;
        }
        let hash = told.hash.unwrap_or_else(|| set.hash(question));
        let since = told.since.unwrap_or(told.now);
        let number = set.lottery.number(hash, since);
        if let Some((dnstap, appender)) = dnstap
            && !told.message.is_empty()
            && dnstap.chooses(told.side, number)
        {
            let &Told { side, client, local, transport, now, message, .. } = told;
            let query_time = set.clock.since_1970(since);
            let response_time = Some(set.clock.since_1970(now));
            let message = ClientMessage { side, client, local, transport, query_time, response_time, octets: message };
            self.count_dropped(Tap::Dnstap, dnstap.append(appender, &message));
        }
        if let Some((log, appender)) = query_log
            && let Some(is_certain) = log.chooses(number, told)
        {
            let at = set.clock.since_1970(told.now);
            self.count_dropped(Tap::QueryLog, log.append(appender, told, at, is_certain));
        }
    }

    /// A query was taken, and is not yet looked at.
    pub fn taken(&self, taken: &Taken<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, dnstap: Some((dnstap, appender)), .. }) = &mut *open else { return };
        let &Taken { side, client, local, transport, now, hash, message } = taken;
        let hash = hash.unwrap_or_else(|| set.hash(question_of(message)));
        if dnstap.chooses(side, set.lottery.number(hash, now)) {
            let query_time = set.clock.since_1970(now);
            let message =
                ClientMessage { side, client, local, transport, query_time, response_time: None, octets: message };
            self.count_dropped(Tap::Dnstap, dnstap.append(appender, &message));
        }
    }

    /// A query was sent to a backend, or a reply has come from there.
    pub fn attempt(&self, message: &AttemptMessage<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, dnstap: Some((dnstap, appender)), .. }) = &mut *open else { return };
        if dnstap.chooses_backends(set.lottery.number(message.hash, message.since)) {
            let query_time = set.clock.since_1970(message.sent);
            let response_time = message.received.map(|at| set.clock.since_1970(at));
            let is_kept = dnstap.append_attempt(appender, message, query_time, response_time);
            self.count_dropped(Tap::Dnstap, is_kept);
        }
    }

    /// Counts a record that found no room.
    fn count_dropped(&self, tap: Tap, is_kept: bool) {
        if !is_kept {
            self.counters.tapped(tap, TapFate::Dropped, 1);
        }
    }

    /// Whether slow races are told.
    #[inline]
    pub fn tell_slow_races(&self) -> bool {
        self.tells_slow.get()
    }

    /// Tells of a race that was slow: `told` makes what is told of when it started. Returns whether it is told.
    pub fn slow_race<T: Serialize>(&self, started: Instant, now: Instant, told: impl FnOnce(f64) -> T) -> bool {
        let took = now.saturating_duration_since(started);
        self.tell_slow(started, |appender, at| appender.race(&told(at), took, now))
    }

    /// Tells of a reply that has come late to such a race: `told` makes what is told of when its backend was asked.
    pub fn late_reply<T: Serialize>(&self, asked: Instant, told: impl FnOnce(f64) -> T) {
        self.tell_slow(asked, |appender, at| appender.late(&told(at)));
    }

    fn tell_slow(&self, at: Instant, tell: impl FnOnce(&mut SlowAppender, f64) -> bool) -> bool {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, slow: Some((_, appender)), .. }) = &mut *open else { return false };
        let is_told = tell(appender, set.clock.since_1970(at).as_micros() as f64 / 1e6);
        if !is_told {
            self.counters.tapped(Tap::Slow, TapFate::Dropped, 1);
        }
        is_told
    }

    /// A turn is over: what was appended may be written.
    #[inline]
    pub fn end_turn(&self) {
        if self.are_on()
            && let Some(open) = &mut *self.open.borrow_mut()
        {
            let log = open.query_log.iter_mut().map(|(_, appender)| appender);
            let dnstap = open.dnstap.iter_mut().map(|(_, appender)| appender);
            let names = open.names.iter_mut().map(|names| &mut names.appender);
            log.chain(dnstap).chain(names).for_each(Appender::park);
        }
    }
}

/// From the clock that workers read to the time of day. The writer sets it right now and then, so that no worker has to ask.
#[derive(Debug)]
pub(crate) struct TapClock {
    start: Instant,
    /// Nanoseconds from 1970 to `start`.
    offset: AtomicU64,
}

impl TapClock {
    /// One that is right for the moment.
    fn new() -> Self {
        let clock = Self { start: Instant::now(), offset: AtomicU64::new(0) };
        clock.set();
        clock
    }

    /// Sets it right: the time of day may have been changed.
    fn set(&self) {
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = today.saturating_sub(self.start.elapsed());
        self.offset.store(u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The time of day then.
    fn since_1970(&self, at: Instant) -> Duration {
        let offset = Duration::from_nanos(self.offset.load(Relaxed));
        match at.checked_duration_since(self.start) {
            Some(since) => offset + since,
            None => offset.saturating_sub(self.start - at),
        }
    }
}
