//! Counters of queries, responses, attempts, wins and drops.
//!
//! Each worker is the only writer of its set, so counting is a load and a store without contention. Readers
//! add up the sets.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::backend_connections::BackendConnectionCounters;
use super::connections::ConnectionCounters;
use super::histogram::Histogram;
use super::snapshot::Snapshot;
use crate::wire::{Cookie, CookieState, ExtendedError, MalformedCookie, Rcode, Transport};

/// A number with one writer and many readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one to the counter.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. Not a read-modify-write, because there is one writer.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// Subtracts `n`, for gauges.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Resets a gauge to 0. Its writer must have ended.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The origin of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseSource {
    /// A backend's reply.
    Backend,
    /// The cache: a fresh reply, or a recorded failure.
    Cache,
    /// The cache: an expired reply.
    Stale,
    /// Synthesized because no backend replied.
    Synthesized,
    /// The local zones.
    Authority,
    /// The query was not accepted, or its whole answer was not available.
    Error,
}

impl ResponseSource {
    /// Returns the metrics label.
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

/// The reason for a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// A short message, a message that is no query, or a reply that does not parse.
    Malformed,
    /// A reply without a pending query, or to another question.
    Spoofed,
    /// A reply after the end of its race.
    Late,
    /// A query without any reply, in a pool that says `drop`.
    Unanswered,
    /// A query for an unknown name, in an authority with `miss = "silent"`.
    Silent,
    /// A response that the kernel did not accept.
    Unsent,
    /// A query that waited too long or found the queue full, or a connection above the limit.
    Overload,
    /// A response above the client's rate limit.
    Limited,
    /// A query of a denied client (`on_denied = "drop"`).
    Denied,
    /// A query from port 0 or from a local address, which could not receive the response.
    Source,
    /// A datagram from a proxy without the proxy header.
    Proxy,
}

impl DropReason {
    /// Returns the metrics label.
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

/// The local resource that was missing when an attempt could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// File descriptors.
    Descriptors,
    /// Ports, or message IDs on open ports.
    Ports,
    /// The datagram is too large for the path.
    Size,
    /// Buffers, memory or permission from the system.
    System,
    /// A slot among the backend's queries (`max_in_flight`).
    InFlight,
    /// A slot on a connection to the backend (`connections.pipeline`).
    Connections,
}

impl Want {
    /// All resources, by discriminant.
    pub const ALL: [Self; 6] =
        [Self::Descriptors, Self::Ports, Self::Size, Self::System, Self::InFlight, Self::Connections];

    /// Returns the metrics label.
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

/// The kind of a query's COOKIE option (RFC 7873 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CookieKind {
    /// A client cookie alone.
    ClientOnly,
    /// With a valid server cookie.
    Valid,
    /// With an invalid server cookie.
    Invalid,
    /// A length that no cookie has.
    Malformed,
}

impl CookieKind {
    /// Returns the metrics label.
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

/// An observer of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tap {
    /// The log of `[query_log]`.
    QueryLog,
    /// The frames of `[dnstap]`.
    Dnstap,
    /// The slow races of `[slow]`.
    Slow,
    /// The traces of `[traces]`.
    Traces,
    /// The counts of `admin.names`.
    Names,
}

impl Tap {
    /// All taps, by discriminant.
    pub const ALL: [Self; 5] = [Self::QueryLog, Self::Dnstap, Self::Slow, Self::Traces, Self::Names];

    /// Returns the metrics label.
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

/// The fate of a tap's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapFate {
    /// The tap has written it.
    Written,
    /// The buffer was full, or the process ended before the write.
    Dropped,
}

impl TapFate {
    /// All fates, by discriminant.
    pub const ALL: [Self; 2] = [Self::Written, Self::Dropped];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Dropped => "dropped",
        }
    }
}

const COOKIE_KINDS: [CookieKind; 4] =
    [CookieKind::ClientOnly, CookieKind::Valid, CookieKind::Invalid, CookieKind::Malformed];

/// All reasons, by discriminant.
pub const REASONS: [DropReason; 11] = [
    DropReason::Malformed,
    DropReason::Spoofed,
    DropReason::Late,
    DropReason::Unanswered,
    DropReason::Silent,
    DropReason::Unsent,
    DropReason::Overload,
    DropReason::Limited,
    DropReason::Denied,
    DropReason::Source,
    DropReason::Proxy,
];

/// All sources, by discriminant.
pub const SOURCES: [ResponseSource; 6] = [
    ResponseSource::Backend,
    ResponseSource::Cache,
    ResponseSource::Stale,
    ResponseSource::Synthesized,
    ResponseSource::Authority,
    ResponseSource::Error,
];

/// Returns true if a pool's response reports a failure: SERVFAIL, or REFUSED from a backend, unless it is a
/// decision on the name ([`ExtendedError::decides`]).
pub fn is_failure(source: ResponseSource, rcode: Rcode, mut errors: impl Iterator<Item = ExtendedError>) -> bool {
    let is_of_backend = matches!(source, ResponseSource::Backend | ResponseSource::Cache | ResponseSource::Stale);
    let is_failed = match rcode {
        Rcode::SERVFAIL => source != ResponseSource::Authority,
        Rcode::REFUSED => is_of_backend,
        _ => false,
    };
    is_failed && !errors.any(|error| error.decides(rcode))
}

/// The number of rcodes with a separate counter: all that are assigned for messages (RFC 6895 section 2.3).
pub(super) const RCODES: usize = 24;

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) queries: [Counter; Transport::ALL.len()],
    /// Questions that operators had explained.
    pub explained: Counter,
    /// Responses by [`ResponseSource`] and rcode; the last rcode includes all above it.
    pub(super) responses: [[Counter; RCODES]; SOURCES.len()],
    /// Queries with a response that reports a failure: see [`is_failure`].
    pub failures: Counter,
    pub(super) dropped: [Counter; REASONS.len()],
    pub(super) cookies: [Counter; COOKIE_KINDS.len()],
    /// The connections of clients.
    pub connections: ConnectionCounters,
    pub(super) taps: [[Counter; TapFate::ALL.len()]; Tap::ALL.len()],
}

impl Counters {
    /// Counts a client query.
    pub fn query(&self, transport: Transport) {
        self.queries[transport as usize].increment();
    }

    /// Counts `n` responses.
    pub fn responses(&self, source: ResponseSource, rcode: u16, n: u64) {
        self.responses[source as usize][usize::from(rcode).min(RCODES - 1)].add(n);
    }

    /// Counts a drop.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts `n` drops.
    pub fn dropped_many(&self, reason: DropReason, n: u64) {
        self.dropped[reason as usize].add(n);
    }

    /// Counts records of a tap by fate.
    pub fn tapped(&self, tap: Tap, fate: TapFate, n: u64) {
        self.taps[tap as usize][fate as usize].add(n);
    }

    /// Counts the COOKIE option of a query, if it has one.
    pub fn cookie(&self, cookie: &Result<Option<Cookie>, MalformedCookie>) {
        if let Some(shown) = cookie.map(|cookie| cookie.map(|cookie| cookie.state)).transpose() {
            self.cookies[CookieKind::from(shown) as usize].increment();
        }
    }
}

/// The result of a fetch by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// The whole answer arrived.
    Whole,
    /// No backend returned it.
    Failed,
    /// Not sent: no slot on a connection, a full queue, or no descriptor.
    Unsent,
}

impl FetchResult {
    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Failed => "failed",
            Self::Unsent => "unsent",
        }
    }
}

/// All results, by discriminant.
pub const FETCHED: [FetchResult; 3] = [FetchResult::Whole, FetchResult::Failed, FetchResult::Unsent];

/// A worker's counters of a pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Races in progress.
    pub in_flight: Counter,
    /// The time from query to response.
    pub duration: Histogram,
    /// Hedges not sent because the budget was spent.
    pub hedges_denied: Counter,
    /// Hedges whose reply did not go to the client.
    pub hedges_wasted: Counter,
    /// Negative replies that are not final because of an older zone version.
    pub stale_replies: Counter,
    /// Slow or failed races by the definition of `[slow]`.
    pub slow_races: Counter,
    /// Races without a client that refresh a cache entry before it expires.
    pub prefetches: Counter,
    /// Fetches of whole answers by TCP, by [`FetchResult`].
    pub fetches: [Counter; FETCHED.len()],
    /// Divergent answers found, by [`DIVERGENCES`].
    pub divergences: [Counter; DIVERGENCES.len()],
}

/// The kinds of divergence.
pub const DIVERGENCES: [&str; 3] = ["rcode", "data", "serial"];

/// The reason for a repeated attempt from another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Too many replies with a wrong ID or question reached the socket.
    NearMisses,
    /// The reply had the name in another case than the query.
    Case,
    /// The reply lacked our cookie.
    Cookie,
    /// The backend rejected its own cookie and sent another.
    Badcookie,
}

impl Cause {
    /// All causes, by discriminant.
    pub const ALL: [Self; 4] = [Self::NearMisses, Self::Case, Self::Cookie, Self::Badcookie];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NearMisses => "near_misses",
            Self::Case => "case",
            Self::Cookie => "cookie",
            Self::Badcookie => "badcookie",
        }
    }
}

/// A worker's counters of a backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Attempts: first, hedge, failover.
    pub attempts: [Counter; 3],
    /// Repeated attempts by [`Cause`].
    pub again: [Counter; Cause::ALL.len()],
    /// Attempts whose reply went to the client: first, hedge, failover.
    pub wins: [Counter; 3],
    /// Attempts without a reply yet, including those of finished races.
    pub in_flight: Counter,
    /// Attempts without a reply yet whose race is in progress.
    pub waited_for: Counter,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: Counter,
    /// ICMP errors on the sockets.
    pub unreachable: Counter,
    /// Attempts without a reply for `attempt_timeout`.
    pub timeouts: Counter,
    /// Attempts lost with their connection.
    pub lost_attempts: Counter,
    /// Replies accepted as final because their extended error is a decision.
    pub decisions: Counter,
    /// Attempts that could not be sent, by [`Want`].
    pub unsent: [Counter; Want::ALL.len()],
    /// Connections, if the backend uses a stream transport.
    pub connections: OnceLock<Arc<BackendConnectionCounters>>,
    /// The time to reply.
    pub latency: Histogram,
}

/// The counters of all workers, added up.
#[derive(Clone, Debug)]
pub struct CountersSummary(Vec<Arc<Counters>>);

impl CountersSummary {
    /// Creates the summary of these workers.
    pub fn of(workers: Vec<Arc<Counters>>) -> Self {
        Self(workers)
    }

    /// Returns the part of a snapshot that these counters determine.
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

    fn queries(&self, transport: Transport) -> u64 {
        self.sum(|worker| &worker.queries[transport as usize])
    }

    fn responses(&self, source: ResponseSource) -> u64 {
        (0..RCODES).map(|rcode| self.sum(|worker| &worker.responses[source as usize][rcode])).sum()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|worker| &worker.dropped[reason as usize])
    }

    /// Returns the records of a tap with this fate.
    pub fn tapped(&self, (tap, fate): (Tap, TapFate)) -> u64 {
        self.sum(|thread| &thread.taps[tap as usize][fate as usize])
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.iter().map(|worker| counter(worker).get()).sum()
    }
}

impl fmt::Display for CountersSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = Transport::ALL.map(|transport| (transport, self.queries(transport)));
        let is_plain = |transport| matches!(transport, Transport::Udp | Transport::Tcp);
        let shown = queries.iter().filter(|(transport, count)| *count > 0 || is_plain(*transport));
        let queries: Vec<_> = shown.map(|(transport, count)| format!("{count} {}", transport.label())).collect();
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
    fn decisions_and_the_will_of_the_operator_are_no_failures() {
        let failed =
            |source, rcode, errors: &[u16]| is_failure(source, rcode, errors.iter().copied().map(ExtendedError));
        assert!([ResponseSource::Backend, ResponseSource::Cache].iter().all(|source| failed(
            *source,
            Rcode::REFUSED,
            &[]
        )));
        assert!([ResponseSource::Backend, ResponseSource::Error].iter().all(|source| failed(
            *source,
            Rcode::SERVFAIL,
            &[22]
        )));
        assert!([ResponseSource::Error, ResponseSource::Synthesized].iter().all(|source| !failed(
            *source,
            Rcode::REFUSED,
            &[]
        )));
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
            let decisions: Vec<_> =
                (0..30).filter(|error| !failed(ResponseSource::Backend, rcode, &[22, *error])).collect();
            let expected: Vec<_> = (0..30).filter(|error| ExtendedError(*error).decides(rcode)).collect();
            assert_eq!(decisions, expected, "{rcode}");
        }
        assert!([5, 13, 14, 18].iter().all(|error| failed(ResponseSource::Backend, Rcode::SERVFAIL, &[*error])));
        assert!(
            !failed(ResponseSource::Backend, Rcode::NXDOMAIN, &[])
                && !failed(ResponseSource::Authority, Rcode::SERVFAIL, &[])
        );
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
        one.responses(ResponseSource::Backend, 0, 2);
        two.responses(ResponseSource::Cache, 3, 5);
        two.dropped(DropReason::Late);
        assert_eq!(
            CountersSummary::of(vec![one, two]).to_string(),
            "queries: 2 udp, 1 tcp; responses: 2 backend, 5 cache, 0 stale, 0 synthesized, 0 authority, 0 error; \
             dropped: 1 late"
        );
    }
}
