//! The query log: a line for each query that is chosen.
//!
//! In the worker a query is chosen and its record is appended; in the writer the record becomes a line (`line.rs`), which goes
//! where the config says (`output.rs`, `file.rs`).

mod file;
mod line;
mod output;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::line::label;
pub(super) use self::output::Lines;
use super::Told;
use super::buffers::{Appender, Exchange};
use super::choice::Share;
use super::privacy::{cut_client, cut_name};
use super::record::QueryRecord;
use crate::config::QueryLogConfig;
use crate::metrics::Source;
use crate::wire::{self, Rcode};

/// The query log as workers see it.
#[derive(Debug)]
pub(super) struct QueryLog {
    pub(super) config: QueryLogConfig,
    share: Share,
    pub(super) exchange: Arc<Exchange>,
}

impl QueryLog {
    /// A log for so many workers.
    pub(super) fn new(config: &QueryLogConfig, workers: usize) -> Self {
        let exchange = Arc::new(Exchange::new(config.buffer, workers));
        Self { config: config.clone(), share: Share::new(config.sample), exchange }
    }

    /// Whether a query is logged that has this number; if so, whether it would be without any sample.
    pub(super) fn chooses(&self, number: u64, told: &Told<'_>) -> Option<bool> {
        let is_certain = self.is_certain(told);
        (is_certain || self.share.has(number)).then_some(is_certain)
    }

    /// Whether a query is one of those that are always logged.
    fn is_certain(&self, told: &Told<'_>) -> bool {
        let always = self.config.always;
        let is_failed = match told.said {
            None | Some((Source::Synthesized, _)) => true,
            Some((_, rcode)) => rcode == Rcode::SERVFAIL,
        };
        let took = told.since.map(|since| told.now.saturating_duration_since(since));
        let is_slow = || told.resolution.zip(took).is_some_and(|(resolution, took)| took > resolution.slow_threshold);
        let is_hedged = || told.resolution.is_some_and(|resolution| resolution.is_hedged);
        always.failed && is_failed || always.slow && is_slow() || always.hedged && is_hedged()
    }

    /// Appends the record of a query. Returns whether there was room.
    pub(super) fn append(&self, appender: &mut Appender, told: &Told<'_>, at: Duration, is_certain: bool) -> bool {
        let (qname, rest) = told.question.map_or((None, None), |question| match question.split_last_chunk() {
            Some((qname, &[t0, t1, c0, c1])) => {
                (Some(qname), Some((u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]))))
            }
            None => (None, None),
        });
        let resolution = told.resolution.as_ref();
        let winner = resolution.and_then(|resolution| resolution.winner);
        let record = QueryRecord {
            at,
            client: cut_client(self.config.client, told.client.ip()),
            transport: Some(told.transport),
            qname: cut_name(self.config.names, qname.unwrap_or_default()),
            qtype_qclass: rest,
            said: told.said.map(|(source, rcode)| (source, rcode.0)),
            pool: resolution.map_or("", |resolution| resolution.pool),
            backend: winner.map_or("", |(backend, _)| backend),
            kind: winner.map(|(_, kind)| kind),
            took: told.since.map(|since| told.now.saturating_duration_since(since)),
            attempts: resolution.map_or(0, |resolution| resolution.attempts),
            size: told.message.len() as u16,
            ede: wire::extended_error(told.message),
            queries: told.queries,
            is_certain,
        };
        appender.append(record.max_len(), |out| record.write(out))
    }

    /// How many queries a line stands for that is of the sample.
    pub(super) fn weight(&self) -> f64 {
        self.share.weight()
    }
}
