//! Metrics of client connections, handshakes, HTTP responses and certificates.

use std::fmt;
use std::path::PathBuf;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

use super::counters::Counter;
use super::exposition::{Family, counter, gauge};
use crate::wire::Transport;

/// The fate of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionFate {
    /// The server accepted it.
    Accepted,
    /// Closed at once: the client has too many connections, or the table is full.
    Refused,
    /// Accepted, but the handshake failed.
    HandshakeFailed,
    /// Accepted, but without a whole query by the end of `first_query`, the handshake included.
    TimedOut,
}

impl ConnectionFate {
    /// All fates, by discriminant.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::HandshakeFailed, Self::TimedOut];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::HandshakeFailed => "handshake_failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The kind of a client's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShakenBy {
    /// With a key exchange and a signature.
    Full,
    /// Resumed with a ticket.
    Resumed,
    /// Resumed with a ticket, with queries before its completion (0-RTT).
    Early,
}

impl ShakenBy {
    /// All kinds, by discriminant.
    pub const ALL: [Self; 3] = [Self::Full, Self::Resumed, Self::Early];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Early => "early",
        }
    }
}

/// The status of an HTTP response (RFC 9110 section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpStatus {
    /// The response has a DNS message, of any rcode.
    Ok,
    /// The request has no DNS message, or a malformed one.
    BadRequest,
    /// The path is unknown.
    NotFound,
    /// The method is neither GET nor POST.
    MethodNotAllowed,
    /// The message is longer than any DNS message.
    ContentTooLarge,
    /// The media type is not that of a DNS message.
    UnsupportedMediaType,
    /// The query gets no response.
    GatewayTimeout,
}

impl HttpStatus {
    /// All statuses, by discriminant.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ContentTooLarge,
        Self::UnsupportedMediaType,
        Self::GatewayTimeout,
    ];

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

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "200",
            Self::BadRequest => "400",
            Self::NotFound => "404",
            Self::MethodNotAllowed => "405",
            Self::ContentTooLarge => "413",
            Self::UnsupportedMediaType => "415",
            Self::GatewayTimeout => "504",
        }
    }
}

/// A worker's counters of client connections. Those of UDP stay zero.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    http: [Counter; HttpStatus::ALL.len()],
    open: [Counter; Transport::ALL.len()],
    fates: [[Counter; ConnectionFate::ALL.len()]; Transport::ALL.len()],
    handshakes: [[Counter; ShakenBy::ALL.len()]; Transport::ALL.len()],
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

    pub(super) fn add(&self, counted: &ConnectionsSnapshot) {
        for &((transport, fate), count) in &counted.fates {
            self.fates[transport as usize][fate as usize].add(count);
        }
        for &((transport, by), count) in &counted.handshakes {
            self.handshakes[transport as usize][by as usize].add(count);
        }
        for &(status, count) in &counted.http {
            self.http[status as usize].add(count);
        }
    }

    pub(super) fn snapshot(sum: impl Fn(&dyn Fn(&Self) -> &Counter) -> u64) -> ConnectionsSnapshot {
        let streams = || Transport::ALL.into_iter().filter(|transport| transport.is_stream());
        let encrypted = || streams().filter(|transport| transport.is_encrypted());
        let fates = streams().flat_map(|transport| ConnectionFate::ALL.map(|fate| (transport, fate)));
        let handshakes = encrypted().flat_map(|transport| ShakenBy::ALL.map(|by| (transport, by)));
        ConnectionsSnapshot {
            http: HttpStatus::ALL.map(|status| (status, sum(&|one| &one.http[status as usize]))).to_vec(),
            open: streams().map(|transport| (transport, sum(&|one| &one.open[transport as usize]))).collect(),
            fates: fates
                .map(|(transport, fate)| ((transport, fate), sum(&|one| &one.fates[transport as usize][fate as usize])))
                .collect(),
            handshakes: handshakes
                .map(|(transport, by)| ((transport, by), sum(&|one| &one.handshakes[transport as usize][by as usize])))
                .collect(),
        }
    }
}

/// The metrics of client connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsSnapshot {
    /// Open connections by transport.
    pub open: Vec<(Transport, u64)>,
    /// Connections by fate.
    pub fates: Vec<((Transport, ConnectionFate), u64)>,
    /// Completed handshakes by kind.
    pub handshakes: Vec<((Transport, ShakenBy), u64)>,
    /// HTTP responses by status.
    #[serde(default)]
    pub http: Vec<(HttpStatus, u64)>,
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

pub(super) fn write(
    encoder: &mut DescriptorEncoder<'_>,
    connections: &ConnectionsSnapshot,
    certificates: &[CertificateSnapshot],
) -> fmt::Result {
    let ConnectionsSnapshot { open, fates, handshakes, http } = connections;
    gauge(encoder, &OPEN, open.iter().map(|&(by, n)| ([("transport", by.label())], n)))?;
    let fates = fates.iter().map(|&((by, fate), n)| ([("transport", by.label()), ("result", fate.label())], n));
    let mut made = encoder.encode_descriptor(MADE.name, MADE.help, None, MetricType::Unknown)?;
    for (labels, count) in fates {
        made.encode_family(&labels)?.encode_gauge(&count)?;
    }
    let handshakes = handshakes.iter().map(|&((by, kind), n)| ([("transport", by.label()), ("kind", kind.label())], n));
    counter(encoder, &HANDSHAKES, handshakes)?;
    counter(encoder, &HTTP, http.iter().map(|&(status, n)| ([("status", status.label())], n)))?;
    let ends = certificates
        .iter()
        .map(|known| ([("certificate", known.name.as_str())], known.not_after.max(0).unsigned_abs()));
    gauge(encoder, &NOT_AFTER, ends)?;
    let loads = certificates.iter().flat_map(|known| {
        let by_result = |(result, n)| ([("certificate", known.name.as_str()), ("result", result)], n);
        [("loaded", known.loads), ("refused", known.refusals)].map(by_result)
    });
    counter(encoder, &LOADS, loads)
}

pub(super) const COUNTERS: [&str; 3] = [HANDSHAKES.name, HTTP.name, LOADS.name];

/// Untyped in OpenMetrics, because a gauge has the name of this counter without `_total`.
pub(super) const UNTYPED: &str = "# TYPE hedgerow_connections_total unknown";

pub(super) const TYPED: &str = "# TYPE hedgerow_connections_total counter";

const OPEN: Family = Family { name: "hedgerow_connections", help: "Open client connections" };
const MADE: Family = Family { name: "hedgerow_connections_total", help: "Client connections, by result" };
const HANDSHAKES: Family = Family { name: "hedgerow_handshakes", help: "Complete client handshakes" };
const HTTP: Family = Family { name: "hedgerow_http_responses", help: "HTTP responses, by status" };
const NOT_AFTER: Family =
    Family { name: "hedgerow_certificate_not_after_seconds", help: "Expiry of the certificate in use, as Unix time" };
const LOADS: Family = Family { name: "hedgerow_certificate_loads", help: "Certificate reads, by result" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_and_kind_stands_at_its_own_number() {
        for (number, fate) in ConnectionFate::ALL.iter().enumerate() {
            assert_eq!(*fate as usize, number);
        }
        for (number, by) in ShakenBy::ALL.iter().enumerate() {
            assert_eq!(*by as usize, number);
        }
        for (number, status) in HttpStatus::ALL.iter().enumerate() {
            assert_eq!((*status as usize, status.label()), (number, &*status.code().to_string()));
        }
    }

    /// Returns counts with open TLS connections and no others.
    fn open_by_tls(open: u64) -> Vec<(Transport, u64)> {
        let streams = Transport::ALL.into_iter().filter(|transport| transport.is_stream());
        streams.map(|transport| (transport, if transport == Transport::Tls { open } else { 0 })).collect()
    }

    #[test]
    fn what_is_open_is_nobody_elses() {
        let [one, other] = [(); 2].map(|()| ConnectionCounters::default());
        let snapshot = |of: &ConnectionCounters| ConnectionCounters::snapshot(|counter| counter(of).get());
        one.opened(Transport::Tls);
        one.opened(Transport::Tls);
        one.closed(Transport::Tls);
        one.fate(Transport::Tls, ConnectionFate::TimedOut);
        one.shaken(Transport::Tls, ShakenBy::Resumed);
        assert_eq!(snapshot(&one).open, open_by_tls(1));
        other.add(&snapshot(&one));
        let reported = snapshot(&other);
        assert_eq!(reported.open, open_by_tls(0));
        assert!(reported.fates.contains(&((Transport::Tls, ConnectionFate::TimedOut), 1)));
        assert!(reported.handshakes.contains(&((Transport::Tls, ShakenBy::Resumed), 1)));
        one.close_all();
        assert_eq!(snapshot(&one).open, open_by_tls(0));
    }
}
