//! Counters of queries, responses, attempts, wins and drops.
//!
//! Each worker is the only writer of its set, so counting is a load and a store without contention. Readers
//! add up the sets.

use std::fmt;
use std::sync::Arc;

use dns::{Cookie, CookieState, ExtendedError, MalformedCookie, Rcode, Transport};
use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Gauge};
use super::connections::{BackendConnectionCounts, ConnectionCounts};
use super::histogram::HistogramSnapshot;

dns::labels! {
    /// The origin of a response.
    pub enum ResponseSource {
        /// A backend's reply.
        Backend = "backend",
        /// The cache: a fresh reply, or a recorded failure.
        Cache = "cache",
        /// The cache: an expired reply.
        Stale = "stale",
        /// Synthesized because no backend replied.
        Synthesized = "synthesized",
        /// The local zones.
        Authority = "authority",
        /// The query was not accepted, or its whole answer was not available.
        Error = "error",
        /// A rule made the response.
        Rule = "rule",
    }
}

dns::labels! {
    /// The reason for a drop.
    pub enum DropReason {
        /// A short message, a message that is no query, or a reply that does not parse.
        Malformed = "malformed",
        /// A reply without a pending query, or to another question.
        Spoofed = "spoofed",
        /// A reply after the end of its race.
        Late = "late",
        /// A query without any reply, in a pool that says `drop`.
        Unanswered = "unanswered",
        /// A query for an unknown name, in an authority with `miss = "silent"`.
        Silent = "silent",
        /// A response that the kernel did not accept.
        Unsent = "unsent",
        /// A query that waited too long or found the queue full, or a connection above the limit.
        Overload = "overload",
        /// A response above the client's rate limit.
        Limited = "limited",
        /// A query of a denied client (`on_denied = "drop"`).
        Denied = "denied",
        /// A query from port 0 or from a local address, which could not receive the response.
        Source = "source",
        /// A datagram from a proxy without the proxy header.
        Proxy = "proxy",
        /// A reply for another client subnet than the one in the query (RFC 7871 section 7.3).
        ClientSubnet = "client-subnet",
        /// A query that a rule drops.
        Rule = "rule",
    }
}

dns::labels! {
    /// The local resource that was missing when an attempt could not be sent.
    pub enum Want {
        /// File descriptors.
        Descriptors = "descriptors",
        /// Ports, or message IDs on open ports.
        Ports = "ports",
        /// The datagram is too large for the path.
        Size = "size",
        /// Buffers, memory or permission from the system.
        System = "system",
        /// A slot among the backend's queries (`max_in_flight`).
        InFlight = "in_flight",
        /// A slot on a connection to the backend (`connections.pipeline`).
        Connections = "connections",
    }
}

dns::labels! {
    /// The kind of a query's COOKIE option (RFC 7873 section 5.2).
    pub enum CookieKind {
        /// A client cookie alone.
        ClientOnly = "client_only",
        /// With a valid server cookie.
        Valid = "valid",
        /// With an invalid server cookie.
        Invalid = "invalid",
        /// A length that no cookie has.
        Malformed = "malformed",
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

dns::labels! {
    /// An observer of queries.
    pub enum Tap {
        /// The log of `[query_log]`.
        QueryLog = "query_log",
        /// The frames of `[dnstap]`.
        Dnstap = "dnstap",
        /// The slow races of `[slow]`.
        Slow = "slow",
        /// The traces of `[traces]`.
        Traces = "traces",
        /// The counts of `admin.names`.
        Names = "names",
    }
}

dns::labels! {
    /// The fate of a tap's record.
    pub enum TapFate {
        /// The tap has written it.
        Written = "written",
        /// The buffer was full, or the process ended before the write.
        Dropped = "dropped",
    }
}

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
pub const RCODES: usize = 24;

counters! {
    /// Messages of clients and records of taps.
    pub struct ServerCounts, counted in Counters {
        /// Client queries by [`Transport`].
        pub queries: [u64; Transport::ALL.len()],
        /// Questions that operators had explained: queries of transport `admin`, in no other counter.
        pub explained: u64,
        /// Responses by [`ResponseSource`] and rcode; the last rcode includes all above it.
        pub responses: [[u64; RCODES]; ResponseSource::ALL.len()],
        /// Queries with a response that reports a failure: see [`is_failure`].
        pub failures: u64,
        /// Dropped messages by [`DropReason`].
        pub dropped: [u64; DropReason::ALL.len()],
        /// Queries with a cookie by [`CookieKind`].
        pub cookies: [u64; CookieKind::ALL.len()],
        /// The connections of clients.
        pub connections: ConnectionCounts,
        /// Records of taps by [`Tap`] and [`TapFate`].
        pub taps: [[u64; TapFate::ALL.len()]; Tap::ALL.len()],
    }
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

dns::labels! {
    /// The result of a fetch by TCP.
    pub enum FetchResult {
        /// The whole answer arrived.
        Whole = "whole",
        /// No backend returned it.
        Failed = "failed",
        /// Not sent: no slot on a connection, a full queue, or no descriptor.
        Unsent = "unsent",
    }
}

counters! {
    /// The races of a pool.
    pub struct PoolCounts, counted in PoolCounters {
        /// Races in progress: client queries without a response yet.
        pub in_flight: Gauge,
        /// The time from query to response that clients see.
        pub duration: HistogramSnapshot,
        /// Hedges not sent because the budget was spent.
        pub hedges_denied: u64,
        /// Hedges whose reply did not go to the client.
        pub hedges_wasted: u64,
        /// Negative replies that are not final because of an older zone version.
        pub stale_replies: u64,
        /// Slow or failed races by the definition of `[slow]`.
        pub slow_races: u64,
        /// Races without a client that refresh a cache entry before it expires.
        pub prefetches: u64,
        /// Fetches of whole answers by TCP, by [`FetchResult`].
        pub fetches: [u64; FetchResult::ALL.len()],
        /// Divergent answers found, by [`DIVERGENCES`].
        pub divergences: [u64; DIVERGENCES.len()],
    }
}

/// The kinds of divergence.
pub const DIVERGENCES: [&str; 3] = ["rcode", "data", "serial"];

dns::labels! {
    /// The reason for a repeated attempt from another socket.
    pub enum Cause {
        /// Too many replies with a wrong ID or question reached the socket.
        NearMisses = "near_misses",
        /// The reply had the name in another case than the query.
        Case = "case",
        /// The reply lacked our cookie.
        Cookie = "cookie",
        /// The backend rejected its own cookie and sent another.
        Badcookie = "badcookie",
    }
}

counters! {
    /// The attempts at a backend that have no reply yet.
    pub struct PendingCounts, counted in PendingCounters {
        /// All, including those of finished races.
        pub in_flight: Gauge,
        /// Those whose race is in progress.
        pub waited_for: Gauge,
    }
}

counters! {
    /// The attempts at a backend, without probes.
    pub struct BackendCounts, counted in BackendCounters {
        /// Attempts by `ATTEMPT_KINDS`.
        pub attempts: [u64; ATTEMPT_KINDS.len()],
        /// Repeated attempts by [`Cause`].
        pub again: [u64; Cause::ALL.len()],
        /// Attempts whose reply went to the client, by `ATTEMPT_KINDS`.
        pub wins: [u64; ATTEMPT_KINDS.len()],
        /// Attempts without a reply yet.
        pub pending: PendingCounts,
        /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
        pub errors: u64,
        /// ICMP errors on the sockets.
        pub unreachable: u64,
        /// Attempts without a reply for `attempt_timeout`.
        pub timeouts: u64,
        /// Attempts lost with their connection.
        pub lost_attempts: u64,
        /// Replies accepted as final because their extended error is a decision.
        pub decisions: u64,
        /// Attempts that could not be sent, by [`Want`].
        pub unsent: [u64; Want::ALL.len()],
        /// Connections, if the backend uses a stream transport.
        pub connections: Option<Box<BackendConnectionCounts>>,
        /// The time to reply.
        pub latency: HistogramSnapshot,
    }
}

/// The kinds of attempts, by their number: at the start, because another was late, because another failed.
pub(crate) const ATTEMPT_KINDS: [&str; 3] = ["first", "hedge", "failover"];

/// The number of hedges among the kinds of attempts.
pub const HEDGE: usize = 1;

/// The counters of all workers, added up.
#[derive(Clone, Debug)]
pub struct CountersSummary(Vec<Arc<Counters>>);

impl CountersSummary {
    /// Creates the summary of these workers.
    pub fn of(workers: Vec<Arc<Counters>>) -> Self {
        Self(workers)
    }

    /// Returns the current sums.
    pub fn counts(&self) -> ServerCounts {
        let mut sums = ServerCounts::default();
        self.0.iter().for_each(|worker| sums.collect(worker));
        sums
    }
}

impl fmt::Display for CountersSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerCounts { queries, responses, dropped, .. } = self.counts();
        let is_plain = |transport| matches!(transport, Transport::Udp | Transport::Tcp);
        let queries = Transport::ALL.into_iter().zip(queries);
        let shown = queries.filter(|(transport, count)| *count > 0 || is_plain(*transport));
        let queries: Vec<_> = shown.map(|(transport, count)| format!("{count} {}", transport.label())).collect();
        let responses = ResponseSource::ALL.map(|source| {
            let count: u64 = responses[source as usize].iter().sum();
            format!("{count} {}", source.label())
        });
        write!(f, "queries: {}; responses: {}; dropped:", queries.join(", "), responses.join(", "))?;
        if dropped.iter().all(|count| *count == 0) {
            return write!(f, " none");
        }
        let mut dropped = DropReason::ALL.into_iter().zip(dropped).filter(|(_, count)| *count > 0);
        dropped.try_for_each(|(reason, count)| write!(f, " {count} {}", reason.label()))
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
            "queries: 2 udp, 1 tcp; responses: 2 backend, 5 cache, 0 stale, 0 synthesized, 0 authority, 0 error, 0 rule; \
             dropped: 1 late"
        );
    }
}
