//! Counters: what was taken, said, asked, won and dropped.
//!
//! Each worker owns a set and is its only writer, so that counting is a load and a store without contention; whoever
//! wants totals adds the sets up. Names and labels are those of docs/src/contract.md, Metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::backend_connections::BackendConnectionCounters;
use super::connections::ConnectionCounters;
use super::histogram::Histogram;
use super::snapshot::Snapshot;
use crate::wire::{Cookie, CookieState, MalformedCookie, Rcode, Transport};

/// A number that one thread increases and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. Not a read-modify-write: there is one writer.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// Takes `n` off: for what comes and goes.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Starts from 0 again: for what comes and goes, when all of it is gone. Its writer must have ended.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Where a response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A backend's reply.
    Backend,
    /// The cache: a reply that is still good, or a failure that is remembered.
    Cache,
    /// The cache: a reply whose time to live is over.
    Stale,
    /// Made up because no backend replied.
    Synthesized,
    /// Our own zones.
    Authority,
    /// The query could not be taken, or its answer not be had whole.
    Error,
}

impl Source {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Synthesized => "synthesized",
            Self::Authority => "authority",
            Self::Error => "error",
        }
    }
}

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// A message too short or no query, or a reply that does not parse.
    Malformed,
    /// A reply that nothing waits for, or to another question than was asked.
    Spoofed,
    /// A reply that came after its race was over.
    Late,
    /// A query whose pool says `drop` when nobody replies.
    Unanswered,
    /// A query for a name that the authority does not have, with `miss = "silent"`.
    Silent,
    /// A response that the kernel did not take.
    Unsent,
    /// A query that waited too long to be answered, or found no room to wait, because more came than could be answered; or a
    /// connection above the limit.
    Overload,
    /// A response above the rate that its client is allowed.
    Limited,
    /// A query of a client that is not to be answered (`on_denied = "drop"`).
    Denied,
    /// A query from port 0 or from an address of our own: nobody could get the response.
    Source,
    /// What came from a proxy without the header that tells whose it is.
    Proxy,
}

impl Dropped {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::Late => "late",
            Self::Unanswered => "unanswered",
            Self::Silent => "silent",
            Self::Unsent => "unsent",
            Self::Overload => "overload",
            Self::Limited => "limited",
            Self::Denied => "denied",
            Self::Source => "source",
            Self::Proxy => "proxy",
        }
    }
}

/// What of our own an attempt was in want of that could not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// File descriptors.
    Descriptors,
    /// Ports, or message IDs on those that are open.
    Ports,
    /// The size: the datagram is too long for the way.
    Size,
    /// Buffers or memory of the system, or its leave.
    System,
    /// A place among the queries that the backend may have (`max_in_flight`).
    InFlight,
    /// A place on a connection to the backend (`connections.pipeline`).
    Connections,
}

impl Want {
    /// All, in order of their number.
    pub const ALL: [Self; 6] =
        [Self::Descriptors, Self::Ports, Self::Size, Self::System, Self::InFlight, Self::Connections];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Size => "size",
            Self::System => "system",
            Self::InFlight => "in_flight",
            Self::Connections => "connections",
        }
    }
}

/// What the COOKIE option of a query was (RFC 7873 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CookieKind {
    /// That of the client alone.
    ClientOnly,
    /// With one of ours that is good.
    Valid,
    /// With one of ours that is not.
    Invalid,
    /// As long as no cookie is.
    Malformed,
}

impl CookieKind {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientOnly => "client_only",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
        }
    }
}

impl From<Result<CookieState, MalformedCookie>> for CookieKind {
    fn from(shown: Result<CookieState, MalformedCookie>) -> Self {
        match shown {
            Ok(CookieState::Missing) => Self::ClientOnly,
            Ok(CookieState::Valid) => Self::Valid,
            Ok(CookieState::Invalid) => Self::Invalid,
            Err(MalformedCookie) => Self::Malformed,
        }
    }
}

/// What observes queries, beside all that serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tap {
    /// `[query_log]`.
    QueryLog,
    /// `[dnstap]`.
    Dnstap,
    /// `[slow]`.
    Slow,
    /// `[traces]`.
    Traces,
    /// `admin.names`.
    Names,
}

impl Tap {
    /// All, in order of their number.
    pub const ALL: [Self; 5] = [Self::QueryLog, Self::Dnstap, Self::Slow, Self::Traces, Self::Names];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::QueryLog => "query_log",
            Self::Dnstap => "dnstap",
            Self::Slow => "slow",
            Self::Traces => "traces",
            Self::Names => "names",
        }
    }
}

/// What has become of a record of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapFate {
    /// It was written.
    Written,
    /// There was no room for it, or it could not be written before the end.
    Dropped,
}

impl TapFate {
    /// All, in order of their number.
    pub const ALL: [Self; 2] = [Self::Written, Self::Dropped];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Dropped => "dropped",
        }
    }
}

/// All kinds of cookies, in order of their number.
const COOKIE_KINDS: [CookieKind; 4] =
    [CookieKind::ClientOnly, CookieKind::Valid, CookieKind::Invalid, CookieKind::Malformed];

/// All reasons, in order of their number.
pub const REASONS: [Dropped; 11] = [
    Dropped::Malformed,
    Dropped::Spoofed,
    Dropped::Late,
    Dropped::Unanswered,
    Dropped::Silent,
    Dropped::Unsent,
    Dropped::Overload,
    Dropped::Limited,
    Dropped::Denied,
    Dropped::Source,
    Dropped::Proxy,
];

/// All sources, in order of their number.
pub const SOURCES: [Source; 6] =
    [Source::Backend, Source::Cache, Source::Stale, Source::Synthesized, Source::Authority, Source::Error];

/// True if the response of a pool reports a failure: SERVFAIL, or REFUSED of a backend. REFUSED for silence is made up, and is
/// counted as that. A verdict of a backend on the name, by these codes (RFC 8914 section 4: DNSSEC and filters), is none.
pub fn is_failure(source: Source, rcode: u16, mut errors: impl Iterator<Item = u16>) -> bool {
    let is_of_backend = matches!(source, Source::Backend | Source::Cache | Source::Stale);
    let is_verdict = errors.any(|error| matches!(error, 6..=12 | 15..=17));
    let is_failed = match Rcode(rcode) {
        Rcode::SERVFAIL => source != Source::Authority,
        Rcode::REFUSED => is_of_backend,
        _ => false,
    };
    is_failed && !is_verdict
}

/// Rcodes that are told apart: all that are assigned for messages (RFC 6895 section 2.3).
pub(super) const RCODES: usize = 24;

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Counters {
    /// Client queries taken, by [`Transport`].
    pub(super) queries: [Counter; Transport::ALL.len()],
    /// Questions that an operator had explained.
    pub explained: Counter,
    /// Responses, by [`Source`] and rcode; the last rcode stands for all above it.
    pub(super) responses: [[Counter; RCODES]; SOURCES.len()],
    /// Queries whose response reports a failure, of backends or of this forwarder: see [`is_failure`].
    pub failures: Counter,
    pub(super) dropped: [Counter; REASONS.len()],
    /// Queries with a COOKIE option, by [`CookieKind`].
    pub(super) cookies: [Counter; COOKIE_KINDS.len()],
    /// Connections of clients.
    pub connections: ConnectionCounters,
    /// Records of taps, by [`Tap`] and [`TapFate`].
    pub(super) taps: [[Counter; TapFate::ALL.len()]; Tap::ALL.len()],
}

impl Counters {
    /// A client query was taken.
    pub fn query(&self, transport: Transport) {
        self.queries[transport as usize].increment();
    }

    /// `n` queries were answered at once.
    pub fn responses(&self, source: Source, rcode: u16, n: u64) {
        self.responses[source as usize][usize::from(rcode).min(RCODES - 1)].add(n);
    }

    /// Something was dropped.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped_many(reason, 1);
    }

    /// `n` were dropped.
    pub fn dropped_many(&self, reason: Dropped, n: u64) {
        self.dropped[reason as usize].add(n);
    }

    /// So many records of a tap have ended so.
    pub fn tapped(&self, tap: Tap, fate: TapFate, n: u64) {
        self.taps[tap as usize][fate as usize].add(n);
    }

    /// A query had a COOKIE option, or none, which is not counted.
    pub fn cookie(&self, cookie: &Result<Option<Cookie>, MalformedCookie>) {
        if let Some(shown) = cookie.map(|cookie| cookie.map(|cookie| cookie.state)).transpose() {
            self.cookies[CookieKind::from(shown) as usize].increment();
        }
    }
}

/// What became of a fetch by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The whole answer came.
    Whole,
    /// No backend gave it.
    Failed,
    /// No backend was asked: there was no place on a connection, no room to wait for one, or no descriptor.
    Unsent,
}

impl Fetched {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Failed => "failed",
            Self::Unsent => "unsent",
        }
    }
}

/// All of them, in order of their number.
pub const FETCHED: [Fetched; 3] = [Fetched::Whole, Fetched::Failed, Fetched::Unsent];

/// What a worker counts of a pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Races that are not over.
    pub in_flight: Counter,
    /// From a query to its response.
    pub duration: Histogram,
    /// Hedges not made because the budget was spent.
    pub hedges_denied: Counter,
    /// Hedges made whose reply did not go to the client.
    pub hedges_wasted: Counter,
    /// Negative replies that an older version of a zone made not final.
    pub stale_replies: Counter,
    /// Races that were slow or failed, as `[slow]` has it.
    pub slow_races: Counter,
    /// Races for nobody, by which an answer of the cache is refreshed before it runs out.
    pub prefetches: Counter,
    /// Whole answers that were to be fetched by TCP, by [`Fetched`].
    pub fetches: [Counter; FETCHED.len()],
    /// Questions that members were found to answer differently, by [`DIVERGENCES`].
    pub divergences: [Counter; DIVERGENCES.len()],
}

/// How members differ, as it is counted.
pub const DIVERGENCES: [&str; 3] = ["rcode", "data", "serial"];

/// Why a backend was asked again, from another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Too many replies with a wrong ID or question had come to the socket.
    NearMisses,
    /// A reply had the name in another case than it was asked in.
    Case,
    /// A reply lacked our cookie.
    Cookie,
    /// A reply said that the backend's own cookie was not good, and brought another.
    Badcookie,
}

impl Cause {
    /// All, in order of their number.
    pub const ALL: [Self; 4] = [Self::NearMisses, Self::Case, Self::Cookie, Self::Badcookie];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NearMisses => "near_misses",
            Self::Case => "case",
            Self::Cookie => "cookie",
            Self::Badcookie => "badcookie",
        }
    }
}

/// What a worker counts of a backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Attempts: first, hedge, failover.
    pub attempts: [Counter; 3],
    /// Attempts that were asked again, by [`Cause`].
    pub again: [Counter; Cause::ALL.len()],
    /// Attempts whose reply went to the client: first, hedge, failover.
    pub wins: [Counter; 3],
    /// Attempts that wait for their reply, those included whose race is over.
    pub in_flight: Counter,
    /// Attempts whose race waits for their reply.
    pub waited_for: Counter,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: Counter,
    /// ICMP errors that came to the sockets.
    pub unreachable: Counter,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: Counter,
    /// Attempts that were lost with their connection.
    pub lost_attempts: Counter,
    /// Replies that were believed by their extended error: those that a decision is in.
    pub decisions: Counter,
    /// Attempts that could not leave, by [`Want`].
    pub unsent: [Counter; Want::ALL.len()],
    /// Its connections, if it is asked by stream.
    pub connections: OnceLock<Arc<BackendConnectionCounters>>,
    /// Time to reply.
    pub latency: Histogram,
}

/// The counters of all workers, added up.
#[derive(Clone, Debug)]
pub struct Summary(Vec<Arc<Counters>>);

impl Summary {
    /// Of these workers.
    pub fn of(workers: Vec<Arc<Counters>>) -> Self {
        Self(workers)
    }

    /// The part of a snapshot that these counters make up.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            queries: Transport::ALL.map(|transport| (transport, self.queries(transport))).to_vec(),
            explained: self.sum(|worker| &worker.explained),
            failures: self.sum(|worker| &worker.failures),
            dropped: REASONS.map(|reason| (reason, self.dropped(reason))).to_vec(),
            cookies: COOKIE_KINDS.map(|kind| (kind, self.sum(|worker| &worker.cookies[kind as usize]))).to_vec(),
            taps: Tap::ALL
                .iter()
                .flat_map(|tap| TapFate::ALL.map(|fate| (*tap, fate)))
                .map(|of| (of, self.tapped(of)))
                .collect(),
            connections: ConnectionCounters::snapshot(|counter| self.sum(|worker| counter(&worker.connections))),
            ..Snapshot::default()
        };
        for source in SOURCES {
            for rcode in 0..RCODES {
                let count = self.sum(|worker| &worker.responses[source as usize][rcode]);
                if count > 0 {
                    snapshot.responses.push((source, rcode as u16, count));
                }
            }
        }
        snapshot
    }

    /// Queries that came so.
    fn queries(&self, transport: Transport) -> u64 {
        self.sum(|worker| &worker.queries[transport as usize])
    }

    /// Responses from there, of any rcode.
    fn responses(&self, source: Source) -> u64 {
        (0..RCODES).map(|rcode| self.sum(|worker| &worker.responses[source as usize][rcode])).sum()
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.sum(|worker| &worker.dropped[reason as usize])
    }

    /// Records of a tap that have ended so.
    pub fn tapped(&self, (tap, fate): (Tap, TapFate)) -> u64 {
        self.sum(|thread| &thread.taps[tap as usize][fate as usize])
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.iter().map(|worker| counter(worker).get()).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = Transport::ALL.map(|transport| (transport, self.queries(transport)));
        // What is not plain DNS is told where there is any.
        let is_plain = |transport| matches!(transport, Transport::Udp | Transport::Tcp);
        let told = queries.iter().filter(|(transport, count)| *count > 0 || is_plain(*transport));
        let queries: Vec<_> = told.map(|(transport, count)| format!("{count} {}", transport.label())).collect();
        let responses = SOURCES.map(|source| format!("{} {}", self.responses(source), source.label())).join(", ");
        write!(f, "queries: {}; responses: {responses}; dropped:", queries.join(", "))?;
        let dropped = REASONS.map(|reason| (self.dropped(reason), reason.label()));
        if dropped.iter().all(|(count, _)| *count == 0) {
            return write!(f, " none");
        }
        dropped.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, label)| write!(f, " {count} {label}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_verdicts_and_from_the_will_of_the_operator() {
        let failed = |source, rcode: Rcode, errors: &[u16]| is_failure(source, rcode.0, errors.iter().copied());
        assert!([Source::Backend, Source::Cache].iter().all(|source| failed(*source, Rcode::REFUSED, &[])));
        assert!([Source::Backend, Source::Error].iter().all(|source| failed(*source, Rcode::SERVFAIL, &[22])));
        assert!([Source::Error, Source::Synthesized].iter().all(|source| !failed(*source, Rcode::REFUSED, &[])));
        assert!([6, 12, 15, 17].iter().all(|error| !failed(Source::Backend, Rcode::SERVFAIL, &[22, *error])));
        assert!([5, 13, 14, 18].iter().all(|error| failed(Source::Backend, Rcode::SERVFAIL, &[*error])));
        assert!(!failed(Source::Backend, Rcode::NXDOMAIN, &[]) && !failed(Source::Authority, Rcode::SERVFAIL, &[]));
    }

    #[test]
    fn every_reason_and_source_stands_at_its_own_number() {
        for (number, reason) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        for (number, source) in SOURCES.iter().enumerate() {
            assert_eq!(*source as usize, number);
        }
        for (number, want) in Want::ALL.iter().enumerate() {
            assert_eq!(*want as usize, number);
        }
        for (number, kind) in COOKIE_KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, number);
        }
        for (number, tap) in Tap::ALL.iter().enumerate() {
            assert_eq!(*tap as usize, number);
        }
        for (number, fate) in TapFate::ALL.iter().enumerate() {
            assert_eq!(*fate as usize, number);
        }
        for (number, result) in FETCHED.iter().enumerate() {
            assert_eq!(*result as usize, number);
        }
    }

    #[test]
    fn the_summary_adds_the_workers_up_and_leaves_zeros_out() {
        let (one, two) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        one.query(Transport::Udp);
        two.query(Transport::Udp);
        two.query(Transport::Tcp);
        one.responses(Source::Backend, 0, 2);
        two.responses(Source::Cache, 3, 5);
        two.dropped(Dropped::Late);
        assert_eq!(
            Summary::of(vec![one, two]).to_string(),
            "queries: 2 udp, 1 tcp; responses: 2 backend, 5 cache, 0 stale, 0 synthesized, 0 authority, 0 error; \
             dropped: 1 late"
        );
    }
}
