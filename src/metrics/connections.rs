//! Connections of clients: how many are open, what became of those that were made, and how hands were shaken; and the certificates that
//! they are shown.

use std::fmt;
use std::path::PathBuf;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

use super::counters::Counter;
use super::exposition::{Family, counter, gauge};
use crate::wire::Transport;

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionFate {
    /// It was let in.
    Accepted,
    /// It was closed at once: its client has too many, or there is no room.
    Refused,
    /// It was let in, and its handshake came to nothing.
    HandshakeFailed,
    /// It was let in, and had no whole query by the end of `first_query`, the handshake included.
    TimedOut,
}

impl ConnectionFate {
    /// All, in order of their number.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::HandshakeFailed, Self::TimedOut];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::HandshakeFailed => "handshake_failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// How hands were shaken with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShakenBy {
    /// By a key exchange and a signature.
    Full,
    /// By a ticket.
    Resumed,
    /// By a ticket, with queries that came before it was complete (0-RTT).
    Early,
}

impl ShakenBy {
    /// All, in order of their number.
    pub const ALL: [Self; 3] = [Self::Full, Self::Resumed, Self::Early];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Early => "early",
        }
    }
}

/// What a request by HTTP is answered with (RFC 9110 section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpStatus {
    /// A DNS message comes back, whatever its rcode.
    Ok,
    /// It has no DNS message, or one that is none.
    BadRequest,
    /// Nothing is at its path.
    NotFound,
    /// It is neither GET nor POST.
    MethodNotAllowed,
    /// Its message is longer than any DNS message.
    ContentTooLarge,
    /// What it brings is no DNS message by its own word.
    UnsupportedMediaType,
    /// Its query gets no response.
    GatewayTimeout,
}

impl HttpStatus {
    /// All, in order of their number here.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ContentTooLarge,
        Self::UnsupportedMediaType,
        Self::GatewayTimeout,
    ];

    /// Its number in HTTP.
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

    /// The label in metrics.
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

/// What a worker counts of the connections that it serves. Those of UDP stay zero.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    http: [Counter; HttpStatus::ALL.len()],
    open: [Counter; Transport::ALL.len()],
    fates: [[Counter; ConnectionFate::ALL.len()]; Transport::ALL.len()],
    handshakes: [[Counter; ShakenBy::ALL.len()]; Transport::ALL.len()],
}

impl ConnectionCounters {
    /// A connection is served from now on.
    pub fn opened(&self, transport: Transport) {
        self.open[transport as usize].increment();
    }

    /// One is not served any more.
    pub fn closed(&self, transport: Transport) {
        self.open[transport as usize].subtract(1);
    }

    /// What has become of one.
    pub fn fate(&self, transport: Transport, fate: ConnectionFate) {
        self.fates[transport as usize][fate as usize].increment();
    }

    /// Hands were shaken.
    pub fn shaken(&self, transport: Transport, by: ShakenBy) {
        self.handshakes[transport as usize][by as usize].increment();
    }

    /// A request by HTTP is answered.
    pub fn http_response(&self, status: HttpStatus) {
        self.http[status as usize].increment();
    }

    /// The worker has ended, and with it all that was open.
    pub fn close_all(&self) {
        self.open.iter().for_each(Counter::clear);
    }

    /// Adds what another process has counted. What is open there is its own.
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

    /// Adds these up; `sum` does so for one counter of each.
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

/// The connections of clients, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsSnapshot {
    /// Open now.
    pub open: Vec<(Transport, u64)>,
    /// What has become of those that were made.
    pub fates: Vec<((Transport, ConnectionFate), u64)>,
    /// Handshakes that were complete.
    pub handshakes: Vec<((Transport, ShakenBy), u64)>,
    /// Responses by HTTP.
    #[serde(default)]
    pub http: Vec<(HttpStatus, u64)>,
}

/// What there is to see of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSnapshot {
    /// The key below `[certificates]`.
    pub name: String,
    /// Where its chain was read from.
    pub file: PathBuf,
    /// The server names that it is shown for.
    pub names: Vec<String>,
    /// From when it is good, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is good, in seconds since 1970.
    pub not_after: i64,
    /// When it was loaded, in seconds since 1970.
    pub loaded: i64,
    /// What is wrong with the files now, if that is not in force.
    pub error: Option<String>,
    /// How often what was read came into force.
    pub loads: u64,
    /// How often it did not.
    pub refusals: u64,
}

/// Writes both down.
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

/// The names of counters, without `_total`.
pub(super) const COUNTERS: [&str; 3] = [HANDSHAKES.name, HTTP.name, LOADS.name];

/// How `hedgerow_connections_total` is announced. OpenMetrics knows a counter by its name without `_total`, and that is the name of a gauge:
/// so it is of no type there.
pub(super) const UNTYPED: &str = "# TYPE hedgerow_connections_total unknown";

/// The same for Prometheus, which knows a counter by its whole name.
pub(super) const TYPED: &str = "# TYPE hedgerow_connections_total counter";

const OPEN: Family = Family { name: "hedgerow_connections", help: "Connections of clients that are open" };
const MADE: Family =
    Family { name: "hedgerow_connections_total", help: "Connections of clients, by what became of them" };
/// `hedgerow_handshakes_total`.
const HANDSHAKES: Family = Family { name: "hedgerow_handshakes", help: "Handshakes of clients that were complete" };
/// `hedgerow_http_responses_total`.
const HTTP: Family = Family { name: "hedgerow_http_responses", help: "Responses to requests by HTTP, by their status" };
const NOT_AFTER: Family = Family {
    name: "hedgerow_certificate_not_after_seconds",
    help: "Until when the certificate in force is good, in seconds since 1970",
};
/// `hedgerow_certificate_loads_total`.
const LOADS: Family =
    Family { name: "hedgerow_certificate_loads", help: "Certificates that were read anew, by what became of that" };

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

    /// So many connections by TLS, and none by others.
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
        let told = snapshot(&other);
        assert_eq!(told.open, open_by_tls(0));
        assert!(told.fates.contains(&((Transport::Tls, ConnectionFate::TimedOut), 1)));
        assert!(told.handshakes.contains(&((Transport::Tls, ShakenBy::Resumed), 1)));
        one.close_all();
        assert_eq!(snapshot(&one).open, open_by_tls(0));
    }
}
