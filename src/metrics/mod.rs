//! Numbers: what was taken, said, asked, won and dropped, and how long it took.
//!
//! [`counters`] and [`histogram`] are written by one thread each and read by any; a [`Snapshot`] is all of them added up at
//! one moment, and [`exposition`] writes it down for Prometheus. Nothing here decides anything. Names and labels are those of
//! docs/src/contract.md, Metrics.

mod backend_connections;
mod carried;
mod connections;
pub mod counters;
mod discovery;
pub mod exposition;
pub mod histogram;
mod limited;
pub mod processes;
pub mod snapshot;
mod usage;
mod xdp;

pub use backend_connections::{BackendConnectionCounters, BackendConnectionsSnapshot, ConnectionKind, LostCause};
pub use connections::{
    CertificateSnapshot, ConnectionCounters, ConnectionFate, ConnectionsSnapshot, HttpStatus, ShakenBy,
};
pub use counters::{
    BackendCounters, Cause, CookieKind, Counter, Counters, DIVERGENCES, Dropped, FETCHED, Fetched, PoolCounters,
    REASONS, SOURCES, Source, Summary, Tap, TapFate, Want, is_failure,
};
pub use discovery::{Change, Order, OrderWord, Origin, SourceSnapshot, SourceState};
pub use histogram::{BUCKETS, Histogram, HistogramSnapshot, time_of_bucket};
pub use limited::{Limit, Limited};
pub use processes::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover};
pub use snapshot::{
    Attempts, BackendSnapshot, BackendState, CacheSnapshot, CatalogSnapshot, ExpiredZone, LastReload, PoolSnapshot,
    ReloadSnapshot, Snapshot, Wins, ZonesSnapshot,
};
pub use usage::Usage;
pub use xdp::XdpSnapshot;
