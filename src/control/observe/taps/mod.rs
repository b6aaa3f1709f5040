//! Taps: observers of queries beside the servers. They may lose records, but never delay a query.
//!
//! ```text
//!   forwarder ──┐  events            at the end of a turn                  ┌──▶ query_log (file, socket)
//!               ├──────────▶ WorkerTaps ─── buffers change hands ──▶ writer┤
//!   authority ──┘    chosen? cut, appended    (buffers.rs)      (one       └──▶ dnstap: a collector, a file
//!                                                               thread, woken by the clock)
//! ```
//!
//! A worker decides by the hash of the question (`choice.rs`), cuts private data (`privacy.rs`), and appends
//! the record as its output needs it: no lock, no allocation, no message. Without taps a query only checks a
//! flag. Each tap has separate buffers, so that a hanging reader takes no room from other taps. The writer
//! thread (`writer.rs`) writes whole buffers and waits for no reader (`sinks/mod.rs`); it drops and counts
//! what finds no room, and logs that once a minute.
//!
//! Slow races take the same path (`slow.rs`), and go on to `ctl slow` and to a trace collector
//! (`traces/mod.rs`).

mod buffers;
mod choice;
mod dnstap;
mod names;
mod privacy;
mod problems;
mod query_log;
mod sinks;
mod slow;
mod traces;
mod writer;

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::buffers::{Appender, BufferExchange};
use self::choice::Lottery;
use self::dnstap::Dnstap;
use self::names::{NamesAppender, NamesTap};
use self::query_log::QueryLog;
pub use self::slow::lock;
use self::slow::{SlowAppender, SlowTap};
pub use self::writer::Taps;
use serde::Serialize;

use dns::{Header, Question, QuestionFlags, QuestionHasher, QuestionKey, Rcode, Transport};
use hedge::race::AttemptKind;
use metrics::{Counters, ResponseSource, Tap, TapFate};

/// All taps of a config, as workers see them.
#[derive(Debug)]
pub struct TapSet {
    clock: Arc<TapClock>,
    lottery: Lottery,
    hasher: QuestionHasher,
    query_log: Option<Arc<QueryLog>>,
    dnstap: Option<Arc<Dnstap>>,
    slow: Option<Arc<SlowTap>>,
    names: Option<Arc<NamesTap>>,
}

/// The server that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The forwarder.
    Forwarder,
    /// An authority.
    Authority,
}

/// A query that was received.
#[derive(Clone, Copy, Debug)]
pub struct TapQuery<'a> {
    /// The server that received it.
    pub side: Side,
    /// The client.
    pub client: SocketAddr,
    /// The local address, if known.
    pub local: Option<SocketAddr>,
    /// The transport of the query.
    pub transport: Transport,
    /// The time of arrival.
    pub now: Instant,
    /// The hash of the question, if known already.
    pub hash: Option<u64>,
    /// The query.
    pub message: &'a [u8],
}

/// A message to a backend or from one.
#[derive(Clone, Copy, Debug)]
pub struct AttemptMessage<'a> {
    /// The pool of the backend.
    pub pool: &'a str,
    /// The backend.
    pub backend: &'a str,
    /// The address of the backend.
    pub address: SocketAddr,
    /// The transport of the attempt.
    pub transport: Transport,
    /// The reason for the attempt.
    pub kind: AttemptKind,
    /// The hash of the question.
    pub hash: u64,
    /// The beginning of the race, by which it is chosen.
    pub since: Instant,
    /// The time at which the query was sent.
    pub sent: Instant,
    /// The arrival of the reply, if the message is one.
    pub received: Option<Instant>,
    /// The message in wire form.
    pub octets: &'a [u8],
}

/// A response to a client, or the lack of one.
#[derive(Clone, Copy, Debug)]
pub struct TapResponse<'a> {
    /// The server that responds.
    pub side: Side,
    /// The client.
    pub client: SocketAddr,
    /// The local address, if known.
    pub local: Option<SocketAddr>,
    /// The transport of the query.
    pub transport: Transport,
    /// The arrival of the query, if measured.
    pub since: Option<Instant>,
    /// The time of the response.
    pub now: Instant,
    /// The hash of the question, if known already.
    pub hash: Option<u64>,
    /// The question as the client sent it, if the response does not contain it.
    pub question: Option<&'a [u8]>,
    /// The response; empty if there is none.
    pub message: &'a [u8],
    /// The source of the response and its full rcode; `None` without a response.
    pub said: Option<(ResponseSource, Rcode)>,
    /// The number of queries that it answers.
    pub queries: u32,
    /// The rule and the race behind the response.
    pub origin: TapOrigin<'a>,
}

/// The origin of a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct TapOrigin<'a> {
    /// The first rule that matches the query, if one does.
    pub rule: Option<&'a str>,
    /// The race, if a pool was responsible.
    pub resolution: Option<TapResolution<'a>>,
}

/// The origin of a response from a pool.
#[derive(Clone, Copy, Debug)]
pub struct TapResolution<'a> {
    /// The responsible pool.
    pub pool: &'a str,
    /// The time from which a query is slow.
    pub slow_threshold: Duration,
    /// The backend whose reply won, and the reason for its attempt.
    pub winner: Option<(&'a str, AttemptKind)>,
    /// The number of attempts so far.
    pub attempts: u8,
    /// True if a hedge was among them.
    pub is_hedged: bool,
}

/// The taps of one worker.
#[derive(Debug)]
pub struct WorkerTaps {
    worker: usize,
    counters: Arc<Counters>,
    is_on: Cell<bool>,
    takes_messages: Cell<bool>,
    reports_slow: Cell<bool>,
    open: RefCell<Option<OpenTaps>>,
    /// The question of a response that limits may drop.
    noted: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct OpenTaps {
    set: Arc<TapSet>,
    query_log: Option<(Appender, Arc<QueryLog>)>,
    dnstap: Option<(Appender, Arc<Dnstap>)>,
    slow: Option<SlowAppender>,
    names: Option<NamesAppender>,
}

impl TapSet {
    /// Returns the hash of a question as in the engines; without a question, the hash of nothing.
    fn hash(&self, question: Option<&[u8]>) -> u64 {
        let key = question.and_then(|question| QuestionKey::of_parts(question, QuestionFlags::of_octet(0)));
        let folded = key.as_ref().and_then(|key| key.as_octets().split_last());
        self.hasher.hash_one(folded.map_or(&[][..], |(_, octets)| octets))
    }
}

fn question_of(message: &[u8]) -> Option<&[u8]> {
    let header = Header::read(message).filter(|header| header.qdcount() == 1);
    header.and_then(|_| Question::read(message)).map(|question| question.as_wire())
}

impl WorkerTaps {
    /// Creates the taps of this worker, which counts dropped records in `counters`.
    pub fn new(worker: usize, counters: Arc<Counters>, set: Option<Arc<TapSet>>) -> Self {
        let this = Self {
            worker,
            counters,
            is_on: Cell::default(),
            takes_messages: Cell::default(),
            reports_slow: Cell::default(),
            open: RefCell::default(),
            noted: RefCell::new(Vec::with_capacity(QuestionKey::MAX_LEN)),
        };
        this.set(set);
        this
    }

    /// Replaces the taps. Records in the previous ones are still written.
    pub fn set(&self, set: Option<Arc<TapSet>>) {
        let appender = |exchange: &Arc<BufferExchange>| Appender::new(Arc::clone(exchange), self.worker);
        let open = |set: Arc<TapSet>| OpenTaps {
            query_log: set.query_log.clone().map(|log| (appender(&log.exchange), log)),
            dnstap: set.dnstap.clone().map(|dnstap| (appender(&dnstap.exchange), dnstap)),
            slow: set.slow.as_ref().map(|tap| SlowAppender::new(tap, self.worker)),
            names: set.names.as_ref().map(|tap| NamesAppender::new(tap, self.worker)),
            set,
        };
        let are_observed = |set: &Arc<TapSet>| set.query_log.is_some() || set.dnstap.is_some() || set.names.is_some();
        self.is_on.set(set.as_ref().is_some_and(are_observed));
        self.takes_messages.set(set.as_ref().is_some_and(|set| set.dnstap.is_some()));
        self.reports_slow.set(set.as_ref().is_some_and(|set| set.slow.is_some()));
        self.open.replace(set.map(open));
    }

    /// Returns true if any tap observes queries.
    #[inline]
    pub fn are_on(&self) -> bool {
        self.is_on.get()
    }

    /// Returns true if a tap also observes queries before their responses, and messages of backends.
    #[inline]
    pub fn take_messages(&self) -> bool {
        self.takes_messages.get()
    }

    /// Keeps the question of a response, because limits may drop the response.
    pub fn note_question(&self, response: &[u8]) {
        let mut noted = self.noted.borrow_mut();
        noted.clear();
        noted.extend_from_slice(question_of(response).unwrap_or_default());
    }

    /// Records a response to a client, or the lack of one.
    pub fn response(&self, response: &TapResponse<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, query_log, dnstap, names, .. }) = &mut *open else { return };
        let noted = self.noted.borrow();
        // dnstap needs only the hash of the question.
        let is_question_needed = names.is_some() || query_log.is_some() || response.hash.is_none();
        let question = response.question.or_else(|| match response.message {
            _ if !is_question_needed => None,
            [] => Some(&**noted),
            response => question_of(response),
        });
        let response = &TapResponse { question, ..*response };
        if let Some(names) = names {
            self.count_dropped(Tap::Names, names.append(response));
        }
        if query_log.is_none() && dnstap.is_none() {
            return;
        }
        let hash = response.hash.unwrap_or_else(|| set.hash(question));
        let since = response.since.unwrap_or(response.now);
        let number = set.lottery.number(hash, since);
        if let Some((appender, dnstap)) = dnstap
            && !response.message.is_empty()
            && dnstap.chooses(response.side, number)
        {
            let &TapResponse { side, client, local, transport, now, message, .. } = response;
            let query = TapQuery { side, client, local, transport, now: since, hash: Some(hash), message };
            let response_time = Some(set.clock.since_1970(now));
            let is_kept = dnstap.append(appender, &query, set.clock.since_1970(since), response_time);
            self.count_dropped(Tap::Dnstap, is_kept);
        }
        if let Some((appender, log)) = query_log
            && let Some(is_certain) = log.chooses(number, response)
        {
            let at = set.clock.since_1970(response.now);
            self.count_dropped(Tap::QueryLog, log.append(appender, response, at, is_certain));
        }
    }

    /// Records a query that was received and not yet processed.
    pub fn taken(&self, taken: &TapQuery<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, dnstap: Some((appender, dnstap)), .. }) = &mut *open else { return };
        let hash = taken.hash.unwrap_or_else(|| set.hash(question_of(taken.message)));
        if dnstap.chooses(taken.side, set.lottery.number(hash, taken.now)) {
            let is_kept = dnstap.append(appender, taken, set.clock.since_1970(taken.now), None);
            self.count_dropped(Tap::Dnstap, is_kept);
        }
    }

    /// Records a query to a backend, or a reply from it.
    pub fn attempt(&self, message: &AttemptMessage<'_>) {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, dnstap: Some((appender, dnstap)), .. }) = &mut *open else { return };
        if dnstap.chooses_backends(set.lottery.number(message.hash, message.since)) {
            let query_time = set.clock.since_1970(message.sent);
            let response_time = message.received.map(|at| set.clock.since_1970(at));
            let is_kept = dnstap.append_attempt(appender, message, query_time, response_time);
            self.count_dropped(Tap::Dnstap, is_kept);
        }
    }

    fn count_dropped(&self, tap: Tap, is_kept: bool) {
        if !is_kept {
            self.counters.tapped(tap, TapFate::Dropped, 1);
        }
    }

    /// Returns true if slow races are recorded.
    #[inline]
    pub fn reports_slow_races(&self) -> bool {
        self.reports_slow.get()
    }

    /// Records a slow race; the closure builds the record from the time of its start. Returns true if it is
    /// recorded.
    pub fn slow_race<T: Serialize>(&self, started: Instant, now: Instant, value: impl FnOnce(f64) -> T) -> bool {
        let took = now.saturating_duration_since(started);
        self.report_slow(started, |appender, at| appender.race(|| value(at), took, now))
    }

    /// Records a late reply to a slow race; the closure builds the record from the time of the attempt.
    pub fn late_reply<T: Serialize>(&self, asked: Instant, value: impl FnOnce(f64) -> T) {
        self.report_slow(asked, |appender, at| appender.late(&value(at)));
    }

    fn report_slow(&self, at: Instant, append: impl FnOnce(&mut SlowAppender, f64) -> bool) -> bool {
        let mut open = self.open.borrow_mut();
        let Some(OpenTaps { set, slow: Some(appender), .. }) = &mut *open else { return false };
        let is_reported = append(appender, set.clock.since_1970(at).as_micros() as f64 / 1e6);
        self.count_dropped(Tap::Slow, is_reported);
        is_reported
    }

    /// Ends a turn: the writer may take the appended records.
    #[inline]
    pub fn end_turn(&self) {
        if self.are_on()
            && let Some(open) = &mut *self.open.borrow_mut()
        {
            let log = open.query_log.iter_mut().map(|(appender, _)| appender);
            let dnstap = open.dnstap.iter_mut().map(|(appender, _)| appender);
            let names = open.names.iter_mut().map(|names| &mut names.appender);
            log.chain(dnstap).chain(names).for_each(Appender::park);
        }
    }
}

/// Converts the workers' clock to the time of day. The writer adjusts it, so that workers need no system
/// call.
#[derive(Debug)]
pub(crate) struct TapClock {
    start: Instant,
    /// Nanoseconds from 1970 to `start`.
    offset: AtomicU64,
}

impl TapClock {
    fn new() -> Self {
        let clock = Self { start: Instant::now(), offset: AtomicU64::new(0) };
        clock.set();
        clock
    }

    /// Adjusts the clock, because the time of day may have been changed.
    fn set(&self) {
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = today.saturating_sub(self.start.elapsed());
        self.offset.store(u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn since_1970(&self, at: Instant) -> Duration {
        let offset = Duration::from_nanos(self.offset.load(Relaxed));
        match at.checked_duration_since(self.start) {
            Some(since) => offset + since,
            None => offset.saturating_sub(self.start - at),
        }
    }
}
