//! Resource usage under the standard names of Prometheus client libraries, and the program's version.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

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

#[derive(Debug)]
pub(super) struct UsageExposition(pub(super) Usage);

impl Collector for UsageExposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Usage { cpu, workers, resident, open_fds, max_fds, began } = &self.0;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut info = encoder.encode_descriptor(
            "hedgerow_build_info",
            "The version of this program, with the value 1",
            None,
            MetricType::Gauge,
        )?;
        info.encode_family(&version)?.encode_gauge(&1u64)?;
        let mut cpus = encoder.encode_descriptor(
            "hedgerow_worker_cpu_seconds",
            "CPU time of a worker",
            None,
            MetricType::Counter,
        )?;
        for (number, cpu) in workers {
            let worker = [("worker", number.to_string())];
            cpus.encode_family(&worker)?.encode_counter::<NoLabelSet, f64, f64>(&cpu.as_secs_f64(), None)?;
        }
        let mut total =
            encoder.encode_descriptor("process_cpu_seconds", "CPU time of the process", None, MetricType::Counter)?;
        total.encode_counter::<NoLabelSet, f64, f64>(&cpu.as_secs_f64(), None)?;
        let gauges = [
            ("process_resident_memory_bytes", "Memory of the process that is in RAM", *resident as f64),
            ("process_open_fds", "Open descriptors", *open_fds as f64),
            ("process_max_fds", "Descriptors that may be open", max_fds.unwrap_or(u64::MAX) as f64),
            ("process_start_time_seconds", "When the process began, as Unix time", *began),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

pub(super) const USAGE_COUNTERS: [&str; 2] = ["hedgerow_worker_cpu_seconds", "process_cpu_seconds"];
