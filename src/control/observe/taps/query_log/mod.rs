//! The query log: a line for each chosen query.
//!
//! The worker chooses a query and appends its line (`line.rs`); the writer only writes it.

mod line;

use std::sync::Arc;
use std::time::Duration;

use config::{LogTarget, QueryLogConfig};
use dns::Rcode;
use metrics::{ResponseSource, Tap};

use super::TapResponse;
use super::buffers::{Appender, BufferExchange};
use super::choice::Share;
use super::sinks::{Datagrams, Framing, RecordFile, Sink, Stderr};
use super::writer::RecordTap;

#[derive(Debug)]
pub(super) struct QueryLog {
    pub(super) config: QueryLogConfig,
    share: Share,
    pub(super) exchange: Arc<BufferExchange>,
}

impl QueryLog {
    pub(super) fn new(config: &QueryLogConfig, workers: usize) -> Self {
        let exchange = Arc::new(BufferExchange::new(Framing::Lines, config.buffer, workers));
        Self { config: config.clone(), share: Share::new(config.sample), exchange }
    }

    /// Returns `None` if the query with this number is not logged, else true if it is logged regardless of
    /// the sample.
    pub(super) fn chooses(&self, number: u64, response: &TapResponse<'_>) -> Option<bool> {
        let is_certain = self.is_certain(response);
        (is_certain || self.share.has(number)).then_some(is_certain)
    }

    fn is_certain(&self, response: &TapResponse<'_>) -> bool {
        let always = self.config.always;
        let is_failed = match response.said {
            None | Some((ResponseSource::Synthesized, _)) => true,
            Some((_, rcode)) => rcode == Rcode::SERVFAIL,
        };
        let took = response.since.map(|since| response.now.saturating_duration_since(since));
        let is_slow =
            || response.origin.resolution.zip(took).is_some_and(|(resolution, took)| took > resolution.slow_threshold);
        let is_hedged = || response.origin.resolution.is_some_and(|resolution| resolution.is_hedged);
        always.failed && is_failed || always.slow && is_slow() || always.hedged && is_hedged()
    }

    /// Appends the line of a query. Returns false if there is no room.
    pub(super) fn append(
        &self,
        appender: &mut Appender,
        response: &TapResponse<'_>,
        at: Duration,
        is_certain: bool,
    ) -> bool {
        let weight = f64::from(response.queries) * if is_certain { 1.0 } else { self.share.weight() };
        appender.append(line::max_len(response), |out| line::write(&self.config, response, at, weight, out))
    }
}

impl RecordTap for QueryLog {
    fn tap(&self) -> Tap {
        Tap::QueryLog
    }

    fn exchange(&self) -> &Arc<BufferExchange> {
        &self.exchange
    }

    fn sink(&self) -> Option<Box<dyn Sink>> {
        let QueryLogConfig { to, rotate, keep, .. } = &self.config;
        Some(match to {
            LogTarget::File(path) => {
                let rotate = rotate.map(|octets| octets as u64);
                Box::new(RecordFile::new(Framing::Lines, path.clone(), rotate, *keep))
            }
            LogTarget::Stderr => Box::new(Stderr),
            LogTarget::Unix(path) => Box::new(Datagrams::new(path.clone())),
        })
    }
}
