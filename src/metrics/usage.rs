//! What the process takes of the machine, under the names that every Prometheus client library has for it; and what this program is.
//!
//! Plain data, filled by who may look: the admin server, when it is asked.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// What the process takes now, and has taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// CPU time of each worker by its number, as far as it is known.
    pub workers: Vec<(usize, Duration)>,
    /// Memory that is in RAM, octets.
    pub resident: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// Descriptors that may be open; none: as many as there is room for.
    pub max_fds: Option<u64>,
    /// When the process began, Unix time.
    pub began: f64,
}

/// The usage as a source of metrics.
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

/// The families here whose samples end in `_total`, without that.
pub(super) const USAGE_COUNTERS: [&str; 2] = ["hedgerow_worker_cpu_seconds", "process_cpu_seconds"];
