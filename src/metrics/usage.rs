//! Resource usage under the standard names of Prometheus client libraries, and the program's version.

use std::time::Duration;

/// The current resource usage of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The total CPU time.
    pub cpu: Duration,
    /// CPU time by worker number, as far as known.
    pub workers: Vec<(usize, Duration)>,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The limit of open descriptors; `None` if there is no limit.
    pub max_fds: Option<u64>,
    /// The start of the process as Unix time.
    pub began: f64,
}
