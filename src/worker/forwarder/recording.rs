//! A recording of races for an operator, as text in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use engine::trace::TraceRecorder;
use engine::{LateReport, RaceReport};
use tokio::sync::mpsc::Sender;

/// A request to record races.
#[derive(Clone, Debug)]
pub struct RecordRequest {
    /// The name of the pool; `None` for all pools.
    pub pool: Option<String>,
    /// The reader of the text. The recording is over when all workers have dropped it.
    pub to: Sender<String>,
    /// The bytes that the reader was too slow for.
    pub dropped: Arc<AtomicU64>,
}

/// The present recording of a worker, if there is one.
#[derive(Debug, Default)]
pub(super) struct RaceRecording(Option<Box<RunningRecording>>);

#[derive(Debug)]
struct RunningRecording {
    recorder: TraceRecorder,
    request: RecordRequest,
}

impl RunningRecording {
    fn send(&mut self) {
        let text = std::mem::take(&mut self.recorder.text);
        if !text.is_empty()
            && let Err(error) = self.request.to.try_send(text)
        {
            self.request.dropped.fetch_add(error.into_inner().len() as u64, Relaxed);
        }
    }
}

impl RaceRecording {
    /// Begins a recording, or ends the present one.
    pub(super) fn set(&mut self, request: Option<RecordRequest>, now: Instant) {
        if let Some(mut running) = self.0.take() {
            running.recorder.finish(now);
            running.send();
        }
        let begun =
            request.map(|request| RunningRecording { recorder: TraceRecorder::new(request.pool.clone()), request });
        self.0 = begun.map(Box::new);
    }

    /// Returns true if late replies must be reported. `is_shared` is true if others need them too.
    #[inline]
    pub(super) fn race_over(&mut self, report: &RaceReport<'_>, is_shared: bool) -> bool {
        self.0.is_some() && self.record(report, is_shared)
    }

    #[cold]
    fn record(&mut self, report: &RaceReport<'_>, is_shared: bool) -> bool {
        let Some(running) = &mut self.0 else { return false };
        let is_awaited = running.recorder.race_over(report, is_shared);
        if running.recorder.text.len() >= BATCH {
            running.send();
        }
        if running.request.to.is_closed() {
            self.0 = None;
        }
        is_awaited
    }

    /// Returns true if others may need the reply.
    pub(super) fn late_reply(&mut self, late: &LateReport<'_>) -> bool {
        self.0.as_mut().is_none_or(|running| running.recorder.late_reply(late))
    }
}

const BATCH: usize = 32 << 10;
