//! Metrics of queries, responses, attempts, drops and durations. A [`Snapshot`] adds them up at one moment.

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
    BackendCounters, Cause, CookieKind, Counter, Counters, CountersSummary, DIVERGENCES, DropReason, FETCHED,
    FetchResult, PoolCounters, REASONS, ResponseSource, SOURCES, Tap, TapFate, Want, is_failure,
};
pub use discovery::{BackendOrder, MemberOrigin, MembershipChange, OrderWord, SourceSnapshot, SourceState};
pub use histogram::{BUCKETS, Histogram, HistogramSnapshot, time_of_bucket};
pub use limited::{Limit, LimitCounters};
pub use processes::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover};
pub use snapshot::{
    AttemptCounts, BackendSnapshot, BackendState, CacheSnapshot, CatalogSnapshot, ExpiredZone, LastReload,
    PoolSnapshot, ReloadSnapshot, Snapshot, Wins, ZonesSnapshot,
};
pub use usage::Usage;
pub use xdp::XdpSnapshot;
