//! Metrics of client connections, handshakes, HTTP responses and certificates.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dns::Transport;
use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Counter, Gauge};
use super::histogram::HistogramSnapshot;

dns::labels! {
    /// The fate of a client connection.
    pub enum ConnectionFate {
        /// The server accepted it.
        Accepted = "accepted",
        /// Closed at once: the client has too many connections, or the table is full.
        Refused = "refused",
        /// Accepted, but the handshake failed.
        HandshakeFailed = "handshake_failed",
        /// Accepted, but without a whole query by the end of `first_query`, the handshake included.
        TimedOut = "timed_out",
    }
}

dns::labels! {
    /// The kind of a client's handshake.
    pub enum ShakenBy {
        /// With a key exchange and a signature.
        Full = "full",
        /// Resumed with a ticket.
        Resumed = "resumed",
        /// Resumed with a ticket, with queries before its completion (0-RTT).
        Early = "early",
    }
}

dns::labels! {
    /// The status of an HTTP response (RFC 9110 section 15).
    pub enum HttpStatus {
        /// The response has a DNS message, of any rcode.
        Ok = "200",
        /// The request has no DNS message, or a malformed one.
        BadRequest = "400",
        /// The path is unknown.
        NotFound = "404",
        /// The method is neither GET nor POST.
        MethodNotAllowed = "405",
        /// The message is longer than any DNS message.
        ContentTooLarge = "413",
        /// The media type is not that of a DNS message.
        UnsupportedMediaType = "415",
        /// The query gets no response.
        GatewayTimeout = "504",
    }
}

impl HttpStatus {
    /// Returns the HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::ContentTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::GatewayTimeout => 504,
        }
    }
}

counters! {
    /// The connections of clients. Those by UDP stay zero.
    pub struct ConnectionCounts, counted in ConnectionCounters {
        /// HTTP responses by [`HttpStatus`].
        pub http: [u64; HttpStatus::ALL.len()],
        /// Open connections by [`Transport`].
        pub open: [Gauge; Transport::ALL.len()],
        /// Connections by [`Transport`] and [`ConnectionFate`].
        pub fates: [[u64; ConnectionFate::ALL.len()]; Transport::ALL.len()],
        /// Completed handshakes by [`Transport`] and [`ShakenBy`].
        pub handshakes: [[u64; ShakenBy::ALL.len()]; Transport::ALL.len()],
    }
}

impl ConnectionCounters {
    /// Counts a connection as open.
    pub fn opened(&self, transport: Transport) {
        self.open[transport as usize].increment();
    }

    /// Counts a connection as closed.
    pub fn closed(&self, transport: Transport) {
        self.open[transport as usize].subtract(1);
    }

    /// Counts the fate of a connection.
    pub fn fate(&self, transport: Transport, fate: ConnectionFate) {
        self.fates[transport as usize][fate as usize].increment();
    }

    /// Counts a handshake.
    pub fn shaken(&self, transport: Transport, by: ShakenBy) {
        self.handshakes[transport as usize][by as usize].increment();
    }

    /// Counts an HTTP response.
    pub fn http_response(&self, status: HttpStatus) {
        self.http[status as usize].increment();
    }

    /// Resets the open connections after the worker has ended.
    pub fn close_all(&self) {
        self.open.iter().for_each(Counter::clear);
    }
}

/// The metrics of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSnapshot {
    /// The key below `[certificates]`.
    pub name: String,
    /// The file of the chain.
    pub file: PathBuf,
    /// The server names that select it.
    pub names: Vec<String>,
    /// The start of its validity, Unix time.
    pub not_before: i64,
    /// The end of its validity, Unix time.
    pub not_after: i64,
    /// The time of the last load, Unix time.
    pub loaded: i64,
    /// The error in the current files, if they are not applied.
    pub error: Option<String>,
    /// The number of successful loads.
    pub loads: u64,
    /// The number of failed loads.
    pub refusals: u64,
}

counters! {
    /// The stream connections to one backend.
    pub struct BackendConnectionCounts, counted in BackendConnectionCounters {
        /// The open connections.
        pub open: Gauge,
        /// Connection attempts by [`ConnectionKind`].
        pub made: [u64; ConnectionKind::ALL.len()],
        /// Connections that ended with pending queries, by [`LostCause`].
        pub lost: [u64; LostCause::ALL.len()],
        /// The time from the first segment to the open connection.
        pub handshakes: HistogramSnapshot,
    }
}

dns::labels! {
    /// The result of a connect.
    pub enum ConnectionKind {
        /// Open, after a full handshake.
        Full = "full",
        /// Open, resumed from an earlier connection.
        Resumed = "resumed",
        /// Open, with queries in the first flight.
        Early = "early",
        /// The connect failed.
        Failed = "failed",
    }
}

dns::labels! {
    /// The reason why a connection ended with pending queries.
    pub enum LostCause {
        /// The backend closed it.
        Closed = "closed",
        /// The backend or a middlebox reset it.
        Reset = "reset",
        /// The backend announced the end.
        Goaway = "goaway",
        /// No data was acknowledged.
        Stalled = "stalled",
        /// The ping went unanswered.
        Timeout = "timeout",
        /// A violation of TLS.
        Tls = "tls",
        /// A response that no query asked for.
        Protocol = "protocol",
    }
}

impl BackendConnectionCounters {
    /// Counts the result of a connect.
    pub fn made(&self, kind: ConnectionKind) {
        self.made[kind as usize].increment();
    }

    /// Counts a lost connection.
    pub fn lost(&self, cause: LostCause) {
        self.lost[cause as usize].increment();
    }
}

dns::labels! {
    /// A limit that applied.
    #[derive(Serialize, Deserialize)]
    pub enum Limit {
        /// `limits.waiting`: SERVFAIL, because the client has too many pending queries.
        Waiting = "waiting",
        /// `limits.in_flight`: SERVFAIL, because all clients together have too many pending queries.
        InFlight = "in_flight",
        /// `limits.per_zone`: SERVFAIL, because too many queries for names below one suffix are pending.
        Zone = "zone",
        /// `rate_limit`, or too much at once for one client: the response was truncated (TC) or dropped.
        Rate = "rate",
        /// `connections.max` or `per_client`: a connection was refused, or closed to make room.
        Connections = "connections",
        /// `connections.unsent`: a connection was closed because its client left too much unread.
        Unsent = "unsent",
        /// `notify_from`: a NOTIFY was refused.
        Notify = "notify",
    }
}

/// The counters of one listener.
#[derive(Debug)]
pub struct LimitCounters {
    listener: String,
    counts: [AtomicU64; Limit::ALL.len()],
}

impl LimitCounters {
    /// Creates the counters of a listener.
    pub fn new(listener: &str) -> Self {
        Self { listener: listener.to_owned(), counts: [const { AtomicU64::new(0) }; Limit::ALL.len()] }
    }

    /// Returns the listener's section of the config.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Counts one use of a limit.
    pub fn count(&self, limit: Limit) {
        self.add(limit, 1);
    }

    /// Adds several uses of a limit.
    pub fn add(&self, limit: Limit, times: u64) {
        self.counts[limit as usize].fetch_add(times, Relaxed);
    }

    /// Returns each limit with its count.
    pub fn snapshot(&self) -> impl Iterator<Item = (String, Limit, u64)> {
        Limit::ALL.into_iter().map(|limit| (self.listener.clone(), limit, self.counts[limit as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_http_responses_are_their_codes() {
        for status in HttpStatus::ALL {
            assert_eq!(status.label(), status.code().to_string());
        }
    }

    #[test]
    fn what_is_open_is_nobody_elses() {
        let [one, other] = [(); 2].map(|()| ConnectionCounters::default());
        let sums = |of: &ConnectionCounters| {
            let mut sums = ConnectionCounts::default();
            sums.collect(of);
            sums
        };
        let open_by_tls = |open| Transport::ALL.map(|by| Gauge(if by == Transport::Tls { open } else { 0 }));
        one.opened(Transport::Tls);
        one.opened(Transport::Tls);
        one.closed(Transport::Tls);
        one.fate(Transport::Tls, ConnectionFate::TimedOut);
        one.shaken(Transport::Tls, ShakenBy::Resumed);
        assert_eq!(sums(&one).open, open_by_tls(1));
        sums(&one).carry(&other);
        let reported = sums(&other);
        assert_eq!(reported.open, open_by_tls(0));
        assert_eq!(reported.fates[Transport::Tls as usize][ConnectionFate::TimedOut as usize], 1);
        assert_eq!(reported.handshakes[Transport::Tls as usize][ShakenBy::Resumed as usize], 1);
        one.close_all();
        assert_eq!(sums(&one).open, open_by_tls(0));
    }
}

#[cfg(test)]
mod backend_tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_another_process_counted_is_added_but_for_what_it_had_open() {
        let counters = BackendConnectionCounters::default();
        counters.open.add(2);
        counters.made(ConnectionKind::Resumed);
        counters.lost(LostCause::Stalled);
        counters.handshakes.record(Duration::from_millis(3));
        let mut before = BackendConnectionCounts::default();
        before.collect(&counters);
        assert_eq!((before.open, before.made, before.lost[LostCause::Stalled as usize]), (Gauge(2), [0, 1, 0, 0], 1));
        let other = BackendConnectionCounters::default();
        before.carry(&other);
        other.made(ConnectionKind::Full);
        let mut sum = BackendConnectionCounts::default();
        sum.collect(&other);
        assert_eq!((sum.open, sum.made), (Gauge(0), [1, 1, 0, 0]));
        sum.subtract(&before);
        assert_eq!((sum.made, sum.lost), ([1, 0, 0, 0], [0; 7]));
        assert_eq!(sum.handshakes, HistogramSnapshot::default());
    }
}

#[cfg(test)]
mod limit_tests {
    use super::*;

    #[test]
    fn every_limit_is_counted_by_itself() {
        for (number, limit) in Limit::ALL.into_iter().enumerate() {
            let limited = LimitCounters::new("ts1");
            limited.count(limit);
            limited.count(limit);
            let counted: Vec<_> = limited.snapshot().filter(|(_, _, count)| *count > 0).collect();
            assert_eq!((counted, limit as usize), (vec![("ts1".to_owned(), limit, 2)], number));
        }
    }
}
