//! Metrics of stream connections to backends.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Family, Labels, backends, by_backend, by_kind, counter, gauge, histogram};
use crate::metrics::backend_connections::{BackendConnectionsSnapshot, ConnectionKind, LostCause};
use crate::metrics::snapshot::{BackendSnapshot, PoolSnapshot};

const OPEN: Family = Family { name: "hedgerow_backend_connections", help: "Open connections to the backend" };
/// Untyped in OpenMetrics: without `_total` a counter's name is that of the gauge here.
const MADE: Family =
    Family { name: "hedgerow_backend_connections_total", help: "Connection attempts to the backend, by result" };
const LOST: Family =
    Family { name: "hedgerow_backend_connections_lost", help: "Connections that ended with queries pending" };
const HANDSHAKE: Family =
    Family { name: "hedgerow_backend_handshake_seconds", help: "Time to open a connection to the backend" };

pub(super) fn write_connections(
    encoder: &mut DescriptorEncoder<'_>,
    pools: &[PoolSnapshot],
    most: usize,
) -> fmt::Result {
    let connected =
        || backends(pools, most).filter_map(|(pool, backend)| Some((pool, backend, backend.connections.as_deref()?)));
    gauge(encoder, &OPEN, connected().map(|(pool, backend, of)| (by_backend(pool, backend), of.open)))?;
    let mut dials = encoder.encode_descriptor(MADE.name, MADE.help, None, MetricType::Unknown)?;
    for (labels, count) in connected().flat_map(made) {
        dials.encode_family(&labels)?.encode_gauge(&count)?;
    }
    counter(encoder, &LOST, connected().flat_map(lost))?;
    histogram(encoder, &HANDSHAKE, connected().map(|(pool, backend, of)| (by_backend(pool, backend), &of.handshakes)))
}

pub(super) const COUNTERS: [&str; 1] = [LOST.name];

pub(super) const UNTYPED: &str = "# TYPE hedgerow_backend_connections_total unknown";

pub(super) const TYPED: &str = "# TYPE hedgerow_backend_connections_total counter";

type Connected<'a> = (&'a PoolSnapshot, &'a BackendSnapshot, &'a BackendConnectionsSnapshot);

fn made((pool, backend, of): Connected<'_>) -> [(Labels<'_, 3>, u64); ConnectionKind::ALL.len()] {
    ConnectionKind::ALL.map(|kind| (by_kind(pool, backend, kind.label()), of.made[kind as usize]))
}

fn lost((pool, backend, of): Connected<'_>) -> [(Labels<'_, 3>, u64); LostCause::ALL.len()] {
    let [pool, backend] = by_backend(pool, backend);
    LostCause::ALL.map(|cause| ([pool, backend, ("cause", cause.label())], of.lost[cause as usize]))
}
