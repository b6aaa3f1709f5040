//! Snapshots as text for Prometheus, with the names and labels of docs/src/contract.md, Metrics.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::families::{FAMILIES, Family, FamilyKind, Reader};
use super::histogram::HistogramSnapshot;
use super::processes::Usage;
use super::snapshot::{BackendSnapshot, PoolSnapshot, Snapshot};

/// The text format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// The Prometheus text format of 2014.
    Prometheus,
    /// OpenMetrics, the successor.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Returns the format for an `Accept` header.
    pub fn accepted_by(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes a snapshot and the resource usage of the process.
pub fn write(snapshot: &Snapshot, usage: &Usage, format: ExpositionFormat) -> String {
    let mut text = String::new();
    for (is_shown, families) in FAMILIES {
        for family in families.iter().filter(|_| is_shown(snapshot)) {
            write_head(&mut text, family, format);
            let suffix = if family.kind == FamilyKind::Counter { "_total" } else { "" };
            let mut samples = SampleWriter { text: &mut text, name: family.name, suffix, labels: String::new() };
            samples.read(&family.reader, snapshot, usage);
        }
    }
    if format == ExpositionFormat::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Writes the lines `HELP` and `TYPE`. In OpenMetrics, a counter's family lacks the `_total` of its samples.
fn write_head(text: &mut String, family: &Family, format: ExpositionFormat) {
    let Family { name, help, .. } = family;
    let (suffix, kind) = match (family.kind, format) {
        (FamilyKind::Counter, ExpositionFormat::Prometheus) => ("_total", "counter"),
        (FamilyKind::Counter, ExpositionFormat::OpenMetrics) => ("", "counter"),
        (FamilyKind::CounterBesideGauge, ExpositionFormat::Prometheus) => ("", "counter"),
        (FamilyKind::CounterBesideGauge, ExpositionFormat::OpenMetrics) => ("", "unknown"),
        (FamilyKind::Gauge, _) => ("", "gauge"),
        (FamilyKind::Histogram, _) => ("", "histogram"),
    };
    let _ = write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
}

/// The samples of one family, as they are written.
#[derive(Debug)]
pub(super) struct SampleWriter<'a> {
    text: &'a mut String,
    name: &'static str,
    suffix: &'static str,
    /// The labels of the next samples, with a comma after each.
    labels: String,
}

impl SampleWriter<'_> {
    fn read(&mut self, reader: &Reader, snapshot: &Snapshot, usage: &Usage) {
        let pools = &snapshot.pools;
        match reader {
            Reader::Server(read) => read(snapshot, self),
            Reader::Process(read) => read(usage, self),
            Reader::Cache(read) => snapshot.cache.iter().for_each(|cache| self.value(read(cache))),
            Reader::Pool(read) => pools.iter().for_each(|pool| self.with("pool", &pool.name, |to| read(pool, to))),
            Reader::Backend(read) => {
                let max = snapshot.run.backend_series.map_or(usize::MAX, usize::from);
                for (pool, backend) in backends(pools.iter().filter(|pool| pool.backends.len() <= max)) {
                    self.with("pool", &pool.name, |to| to.with("backend", &backend.name, |to| read(backend, to)));
                }
            }
            Reader::Source(read) => {
                for (pool, source) in pools.iter().flat_map(|pool| pool.sources.iter().map(move |s| (pool, s))) {
                    let source_label = source.origin.label();
                    self.with("pool", &pool.name, |to| to.with("source", source_label, |to| read(source, to)));
                }
            }
        }
    }

    /// Writes samples with a label.
    pub(super) fn with(&mut self, label: &str, value: &str, write: impl FnOnce(&mut Self)) {
        let before = self.labels.len();
        self.labels.push_str(label);
        self.labels.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => self.labels.push_str("\\\\"),
                '"' => self.labels.push_str("\\\""),
                '\n' => self.labels.push_str("\\n"),
                plain => self.labels.push(plain),
            }
        }
        self.labels.push_str("\",");
        write(self);
        self.labels.truncate(before);
    }

    /// Writes one sample per value of a label.
    pub(super) fn each<'w>(&mut self, label: &str, counts: impl IntoIterator<Item = (&'w str, u64)>) {
        for (word, count) in counts {
            self.with(label, word, |to| to.value(count));
        }
    }

    pub(super) fn value(&mut self, value: impl Display) {
        self.sample(self.suffix, value);
    }

    /// Writes a sample that is 1 if the condition is true.
    pub(super) fn flag(&mut self, is_true: bool) {
        self.value(u8::from(is_true));
    }

    /// Writes a sample whose value is not a whole number by nature: a whole one gets `.0`.
    pub(super) fn float(&mut self, value: f64) {
        self.value(decimal(value));
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, histogram: &HistogramSnapshot) {
        let count = histogram.count();
        self.sample("_sum", decimal(histogram.sum().as_secs_f64()));
        self.sample("_count", count);
        let bounds =
            BOUNDS.map(|micros| (decimal(micros as f64 / 1e6), histogram.at_most(Duration::from_micros(micros))));
        for (bound, count) in bounds.into_iter().chain([("+Inf".to_owned(), count)]) {
            let labels = format!("le=\"{bound}\",{}", self.labels);
            let before = std::mem::replace(&mut self.labels, labels);
            self.sample("_bucket", count);
            self.labels = before;
        }
    }

    fn sample(&mut self, suffix: &str, value: impl Display) {
        let Self { name, labels, .. } = self;
        let _ = match labels.strip_suffix(',') {
            Some(labels) => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
            None => writeln!(self.text, "{name}{suffix} {value}"),
        };
    }
}

fn decimal(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 => format!("{value}.0"),
        ..1e-6 => format!("{value:e}"),
        _ => value.to_string(),
    }
}

fn backends<'a>(
    pools: impl Iterator<Item = &'a PoolSnapshot>,
) -> impl Iterator<Item = (&'a PoolSnapshot, &'a BackendSnapshot)> {
    pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
}

/// Upper bounds in µs, 100 µs to 10 s. Fixed, because series with different bounds cannot be added up.
const BOUNDS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

#[cfg(test)]
mod tests;
