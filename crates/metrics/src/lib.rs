//! Metrics of queries, responses, attempts, drops and durations. A [`Snapshot`] adds them up at one moment.
//!
//! This crate owns the counters and the one table of metrics, from which sums, differences, carry-over and
//! text follow. It never serves HTTP and never reads a clock.

#![forbid(unsafe_code)]

#[macro_use]
mod aggregate;

mod carried;
mod connections;
pub mod counters;
mod discovery;
pub mod exposition;
mod families;
mod frames;
pub mod histogram;
pub mod processes;
pub mod snapshot;

pub use aggregate::{Aggregate, Counter, Gauge};
pub use connections::{
    BackendConnectionCounters, BackendConnectionCounts, CertificateSnapshot, ConnectionCounters, ConnectionCounts,
    ConnectionFate, ConnectionKind, HttpStatus, Limit, LimitCounters, LostCause, ShakenBy,
};
pub use counters::{
    BackendCounters, BackendCounts, Cause, CookieKind, Counters, CountersSummary, DIVERGENCES, DropReason, FetchResult,
    HEDGE, PendingCounts, PoolCounters, PoolCounts, RCODES, ResponseSource, ServerCounts, Tap, TapFate, Want,
    is_failure,
};
pub use discovery::{BackendOrder, MemberOrigin, MembershipChange, OrderWord, SourceSnapshot, SourceState};
pub use frames::FrameSnapshot;
pub use histogram::{BUCKETS, Histogram, HistogramSnapshot, bucket_of_time, time_of_bucket};
pub use processes::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover, Usage};
pub use snapshot::{
    AuthoritiesSnapshot, BackendSnapshot, BackendState, CacheSnapshot, CacheStats, CatalogSnapshot, ExpiredZone,
    HedgeSnapshot, LastReload, MembershipSnapshot, PoolSnapshot, ReloadSnapshot, RunSnapshot, Snapshot, TuningSnapshot,
    ZonesSnapshot,
};
