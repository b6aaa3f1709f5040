//! The query log: a line for each chosen query.
//!
//! The worker chooses a query and appends its record (`record.rs`); the writer makes it a line (`line.rs`).

mod line;
mod record;

use std::sync::Arc;
use std::time::Duration;

use config::{LogTarget, QueryLogConfig};
use dns::Rcode;
use metrics::{ResponseSource, Tap};

pub(super) use self::record::RecordAddress;
use self::record::{QueryRecord, RecordOrigin};
use super::TapResponse;
use super::buffers::{Appender, BufferExchange};
use super::choice::Share;
use super::privacy::{cut_client, cut_name};
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
        let exchange = Arc::new(BufferExchange::new(config.buffer, workers));
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

    /// Appends the record of a query. Returns false if there is no room.
    pub(super) fn append(
        &self,
        appender: &mut Appender,
        response: &TapResponse<'_>,
        at: Duration,
        is_certain: bool,
    ) -> bool {
        let (qname, rest) = response.question.map_or((None, None), |question| match question.split_last_chunk() {
            Some((qname, &[t0, t1, c0, c1])) => {
                (Some(qname), Some((u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]))))
            }
            None => (None, None),
        });
        let resolution = response.origin.resolution.as_ref();
        let winner = resolution.and_then(|resolution| resolution.winner);
        let record = QueryRecord {
            at,
            client: cut_client(self.config.client, response.client.ip()),
            transport: Some(response.transport),
            qname: cut_name(self.config.names, qname.unwrap_or_default()),
            qtype_qclass: rest,
            said: response.said.map(|(source, rcode)| (source, rcode.0)),
            origin: RecordOrigin {
                rule: response.origin.rule.unwrap_or_default(),
                pool: resolution.map_or("", |resolution| resolution.pool),
                backend: winner.map_or("", |(backend, _)| backend),
                kind: winner.map(|(_, kind)| kind),
                attempts: resolution.map_or(0, |resolution| resolution.attempts),
            },
            took: response.since.map(|since| response.now.saturating_duration_since(since)),
            size: response.message.len() as u16,
            ede: dns::extended_error(response.message),
            queries: response.queries,
            is_certain,
        };
        appender.append(record.max_len(), |out| record.write(out))
    }
}

impl RecordTap for QueryLog {
    fn tap(&self) -> Tap {
        Tap::QueryLog
    }

    fn exchange(&self) -> &Arc<BufferExchange> {
        &self.exchange
    }

    fn take(&self, record: &[u8], out: &mut Vec<u8>) -> bool {
        let record = QueryRecord::read(record);
        record.map(|record| line::write(self.config.format, &record, self.share.weight(), out)).is_some()
    }

    fn sink(&self) -> Option<(Framing, Box<dyn Sink>)> {
        let QueryLogConfig { to, rotate, keep, .. } = &self.config;
        let sink: Box<dyn Sink> = match to {
            LogTarget::File(path) => {
                let rotate = rotate.map(|octets| octets as u64);
                Box::new(RecordFile::new(Framing::Lines, path.clone(), rotate, *keep))
            }
            LogTarget::Stderr => Box::new(Stderr),
            LogTarget::Unix(path) => Box::new(Datagrams::new(path.clone())),
        };
        Some((Framing::Lines, sink))
    }
}
