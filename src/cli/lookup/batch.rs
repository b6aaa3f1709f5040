//! Runs many questions with a window of them in flight, and writes results in the order of the list.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::exchange::LookupServer;
use super::format::LookupFormat;
use super::list::LookupQuestion;
use super::output::LookupOutput;
use super::resolve::{LookupResolution, resolve};
use super::tally::{LookupTally, progress_bar};

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) server: LookupServer,
    pub(super) questions: Vec<LookupQuestion>,
    pub(super) format: LookupFormat,
    pub(super) window: usize,
}

impl Batch {
    pub(super) async fn run(self, output: &mut LookupOutput) -> Result<LookupTally, Failure> {
        let progress = progress_bar(self.questions.len());
        let batch = Arc::new(self);
        let mut tally = LookupTally::default();
        let mut in_flight = JoinSet::new();
        let mut results = InOrder::default();
        let mut next = 0;
        loop {
            while next < batch.questions.len() && in_flight.len() < batch.window && results.has_room_for(next) {
                in_flight.spawn(Arc::clone(&batch).look_up(next));
                next += 1;
            }
            let Some(first) = in_flight.join_next().await else {
                if let Some(connections) = &batch.server.connections {
                    tally.untrusted = connections.untrusted().await;
                }
                return Ok(tally);
            };
            // All results that are ready are written at once.
            let more = std::iter::from_fn(|| in_flight.try_join_next());
            for done in std::iter::once(first).chain(more) {
                let done = done.expect("look-ups neither panic nor are canceled");
                let BatchResult { place, resolution, text } = done.map_err(Failure::Socket)?;
                tally.add(&resolution);
                progress.inc(1);
                results.put(place, text);
            }
            let ready = results.take_ready();
            if !ready.is_empty() {
                output.write(&ready, &progress).await.map_err(Failure::Output)?;
            }
        }
    }

    async fn look_up(self: Arc<Self>, place: usize) -> io::Result<BatchResult> {
        let question = self.questions.get(place).expect("the place is one of the list");
        let resolution = resolve(&self.server, question, self.format.follows_chains()).await?;
        let text = self.format.write(&self.server, question, &resolution);
        Ok(BatchResult { place, resolution, text })
    }
}

#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Output(io::Error),
}

struct BatchResult {
    place: usize,
    resolution: LookupResolution,
    text: String,
}

/// A buffer that receives results in any order and returns them in the order of the list.
#[derive(Default)]
struct InOrder {
    head: usize,
    /// The results from `head` on; `None` where one is missing.
    held: VecDeque<Option<String>>,
}

impl InOrder {
    fn has_room_for(&self, place: usize) -> bool {
        place - self.head < MAX_HELD
    }

    fn put(&mut self, place: usize, text: String) {
        let index = place - self.head;
        if index >= self.held.len() {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(text);
    }

    fn take_ready(&mut self) -> String {
        let mut ready = String::new();
        while let Some(text) = self.held.front_mut().and_then(Option::take) {
            ready.push_str(&text);
            self.held.pop_front();
            self.head += 1;
        }
        ready
    }
}

/// The maximum number of results held back for a pending name. It is large because a name that times out
/// takes 15 s by default, and at thousands of names per second the others should not wait for it.
const MAX_HELD: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_runs_ahead_without_bound() {
        let mut results = InOrder::default();
        assert!(results.has_room_for(MAX_HELD - 1) && !results.has_room_for(MAX_HELD));
        results.put(1, String::new());
        assert!(!results.has_room_for(MAX_HELD));
        results.put(0, String::new());
        results.take_ready();
        assert!(results.has_room_for(MAX_HELD + 1) && !results.has_room_for(MAX_HELD + 2));
    }

    proptest! {
        #[test]
        fn results_leave_in_order(places in Just((0..50).collect::<Vec<usize>>()).prop_shuffle()) {
            let mut results = InOrder::default();
            let mut text = String::new();
            for place in places {
                results.put(place, format!("{place},"));
                text.push_str(&results.take_ready());
            }
            prop_assert_eq!(text, (0..50).map(|place| format!("{place},")).collect::<String>());
        }
    }
}
