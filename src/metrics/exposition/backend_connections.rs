//! The families of connections to backends that are asked by stream.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Family, Labels, backends, by_backend, by_kind, counter, gauge, histogram};
use crate::metrics::backend_connections::{BackendConnectionsSnapshot, ConnectionKind, LostCause};
use crate::metrics::snapshot::{BackendSnapshot, PoolSnapshot};

/// `hedgerow_backend_connections`.
const OPEN: Family = Family { name: "hedgerow_backend_connections", help: "Connections to the backend that are open" };
/// OpenMetrics knows a counter by its name without `_total`, and that is the name of the gauge: so it is of no type there.
const MADE: Family =
    Family { name: "hedgerow_backend_connections_total", help: "Dials of the backend, by what came of them" };
/// `hedgerow_backend_connections_lost_total`.
const LOST: Family =
    Family { name: "hedgerow_backend_connections_lost", help: "Connections that ended while queries waited on them" };
/// `hedgerow_backend_handshake_seconds`.
const HANDSHAKE: Family =
    Family { name: "hedgerow_backend_handshake_seconds", help: "Time until a connection to the backend was open" };

/// Writes those of the backends that have connections, in pools of so many backends at the most.
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

/// The names of counters, without `_total`.
pub(super) const COUNTERS: [&str; 1] = [LOST.name];

/// How `hedgerow_backend_connections_total` is announced.
pub(super) const UNTYPED: &str = "# TYPE hedgerow_backend_connections_total unknown";

/// The same for Prometheus, which knows a counter by its whole name.
pub(super) const TYPED: &str = "# TYPE hedgerow_backend_connections_total counter";

/// A backend with connections, and its pool.
type Connected<'a> = (&'a PoolSnapshot, &'a BackendSnapshot, &'a BackendConnectionsSnapshot);

fn made((pool, backend, of): Connected<'_>) -> [(Labels<'_, 3>, u64); ConnectionKind::ALL.len()] {
    ConnectionKind::ALL.map(|kind| (by_kind(pool, backend, kind.label()), of.made[kind as usize]))
}

fn lost((pool, backend, of): Connected<'_>) -> [(Labels<'_, 3>, u64); LostCause::ALL.len()] {
    let [pool, backend] = by_backend(pool, backend);
    LostCause::ALL.map(|cause| ([pool, backend, ("cause", cause.label())], of.lost[cause as usize]))
}
