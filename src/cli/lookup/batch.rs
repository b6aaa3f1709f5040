//! Many questions at once: a window of them in flight, results in the order of the list.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::exchange::Server;
use super::format::Format;
use super::list::Question;
use super::output::Output;
use super::resolve::{Resolution, resolve};
use super::tally::{Progress, Tally};

/// All there is to do.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whom to ask.
    pub(super) server: Server,
    /// What to ask.
    pub(super) questions: Vec<Question>,
    /// How results are written.
    pub(super) format: Format,
    /// How many questions are in flight at once.
    pub(super) window: usize,
}

impl Batch {
    /// Looks everything up and writes the results.
    pub(super) async fn run(self, output: &mut Output) -> Result<Tally, Failure> {
        let progress = Progress::new(self.questions.len());
        let batch = Arc::new(self);
        let mut tally = Tally::default();
        let mut in_flight = JoinSet::new();
        let mut results = InOrder::new();
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
            // All that is done by now is written at once.
            let more = std::iter::from_fn(|| in_flight.try_join_next());
            for done in std::iter::once(first).chain(more) {
                let done = done.expect("look-ups neither panic nor are canceled");
                let Done { place, resolution, text } = done.map_err(Failure::Socket)?;
                tally.add(&resolution);
                progress.advance();
                results.put(place, text);
            }
            let ready = results.take_ready();
            if !ready.is_empty() {
                output.write(&ready, &progress).await.map_err(Failure::Output)?;
            }
        }
    }

    /// Looks up the question at one place of the list.
    async fn look_up(self: Arc<Self>, place: usize) -> io::Result<Done> {
        let question = self.questions.get(place).expect("the place is one of the list");
        let resolution = resolve(&self.server, question, self.format.follows_chains()).await?;
        let text = self.format.write(&self.server, question, &resolution);
        Ok(Done { place, resolution, text })
    }
}

/// Why a batch cannot go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// No socket to be had.
    Socket(io::Error),
    /// Results cannot be written.
    Output(io::Error),
}

/// A question that is done.
struct Done {
    /// Its place in the list.
    place: usize,
    /// What it came to.
    resolution: Resolution,
    text: String,
}

/// Results as they come, handed out as the list goes.
struct InOrder {
    /// The place of the first result that is still to be handed out.
    head: usize,
    /// Results from there on; `None` where one is missing.
    held: VecDeque<Option<String>>,
}

impl InOrder {
    /// Nothing yet.
    fn new() -> Self {
        Self { head: 0, held: VecDeque::new() }
    }

    /// Whether a result at `place` may be held back.
    fn has_room_for(&self, place: usize) -> bool {
        place - self.head < MAX_HELD
    }

    /// Takes in the result at `place`.
    fn put(&mut self, place: usize, text: String) {
        let index = place - self.head;
        if index >= self.held.len() {
            self.held.resize(index + 1, None);
        }
        self.held[index] = Some(text);
    }

    /// Hands out all that no missing result stands before.
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

/// How far the batch runs ahead of a name that is not done. Generous, since one name that times out takes
/// 15 s by default, and at thousands of names a second the others should not have to wait for it.
const MAX_HELD: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_runs_ahead_without_bound() {
        let mut results = InOrder::new();
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
            let mut results = InOrder::new();
            let mut text = String::new();
            for place in places {
                results.put(place, format!("{place},"));
                text.push_str(&results.take_ready());
            }
            prop_assert_eq!(text, (0..50).map(|place| format!("{place},")).collect::<String>());
        }
    }
}
