//! Latencies of a recorded trace, for scenarios that play it again with other policies.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::trace::{TracedRace, TracedTime};

/// The latencies of a trace. Each name gets those of one race, drawn with replacement, so that the attempts
/// of a race stay as correlated as they were. Without a second attempt, that of another race stands for it.
#[derive(Clone, Debug)]
pub struct ReplayedTrace {
    races: Vec<(Option<u32>, Option<usize>)>,
    /// The second attempts, in µs; `None` for a lost one.
    seconds: Vec<Option<u32>>,
    seed: u64,
}

impl ReplayedTrace {
    /// Prepares the races of a trace; `None` without any. Another seed draws others.
    ///
    /// A time without a reply stands for a longer one with a reply, or for a loss if there is none.
    pub fn new(races: &[TracedRace], seed: u64) -> Option<Self> {
        let first = Column::of(races.iter().map(|race| race.first));
        let second = Column::of(races.iter().filter_map(|race| race.second));
        let mut seconds = Vec::new();
        let hasher = FixedState::with_seed(seed);
        let races: Vec<_> = (0_u64..)
            .zip(races)
            .map(|(number, race)| {
                let place = race.second.map(|time| {
                    seconds.push(second.closed(time, hasher.hash_one((number, true))));
                    seconds.len() - 1
                });
                (first.closed(race.first, hasher.hash_one((number, false))), place)
            })
            .collect();
        (!races.is_empty()).then_some(Self { races, seconds, seed })
    }

    /// Returns the latency of an attempt for a name; `None` if it is lost.
    pub(super) fn latency(&self, name: u32, attempt: u8) -> Option<Duration> {
        let draw = |attempt: u8| FixedState::with_seed(self.seed).hash_one((name, attempt));
        let (first, second) = self.races[place(draw(0), self.races.len())];
        let micros = match (attempt, second) {
            (0, _) => first,
            (1, Some(second)) => self.seconds[second],
            // A pool that made no second attempt has only first ones.
            _ if self.seconds.is_empty() => self.races[place(draw(attempt), self.races.len())].0,
            _ => self.seconds[place(draw(attempt), self.seconds.len())],
        };
        micros.map(|micros| Duration::from_micros(micros.into()))
    }
}

/// The times with a reply, sorted.
struct Column(Vec<u64>);

impl Column {
    fn of(times: impl Iterator<Item = TracedTime>) -> Self {
        let mut micros: Vec<_> = times.filter(|time| !time.is_open).map(|time| time.micros).collect();
        micros.sort_unstable();
        Self(micros)
    }

    fn closed(&self, time: TracedTime, draw: u64) -> Option<u32> {
        let micros = if time.is_open {
            let longer = &self.0[self.0.partition_point(|micros| *micros <= time.micros)..];
            *longer.get(place(draw, longer.len()))?
        } else {
            time.micros
        };
        Some(u32::try_from(micros).unwrap_or(u32::MAX))
    }
}

/// Returns one of so many places.
fn place(draw: u64, places: usize) -> usize {
    ((u128::from(draw) * places as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use config::PoolRules;
    use hedge::{Dispatch, RaceRules};

    use super::super::{BackendModel, Course, Delay, Happening, Scenario, Tally, play};
    use super::*;
    use crate::trace::{RaceTrace, TraceRecorder};

    fn time(micros: u64, is_open: bool) -> TracedTime {
        TracedTime { micros, is_open }
    }

    #[test]
    fn attempts_of_one_race_stay_together() {
        let race = |first, second: Option<u64>| TracedRace {
            took: time(first, false),
            first: time(first, false),
            second: second.map(|second| time(second, false)),
        };
        let slow = ReplayedTrace::new(&[race(100, None), race(9_000, Some(8_000))], 1).expect("two races");
        let ms = Duration::from_micros;
        let mut seen = [0; 2];
        for name in 0..1_000 {
            let (first, second) = (slow.latency(name, 0), slow.latency(name, 1));
            assert!(second == Some(ms(8_000)) && (first == Some(ms(100)) || first == Some(ms(9_000))));
            seen[usize::from(first == Some(ms(9_000)))] += 1;
        }
        assert!(seen.iter().all(|count| *count > 400), "{seen:?}");
        let single = ReplayedTrace::new(&[race(100, None)], 1).expect("a race");
        assert_eq!((single.latency(1, 1), single.latency(1, 2)), (Some(ms(100)), Some(ms(100))));
        assert!(ReplayedTrace::new(&[], 1).is_none());
    }

    #[test]
    fn a_time_without_a_reply_is_longer_than_that_or_a_loss() {
        let first =
            |micros, is_open| TracedRace { took: time(micros, false), first: time(micros, is_open), second: None };
        let races = [first(100, false), first(300, false), first(200, true), first(400, true)];
        let trace = ReplayedTrace::new(&races, 1).expect("races");
        let firsts: Vec<_> = trace.races.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [Some(100), Some(300), Some(300), None]);
    }

    #[test]
    fn the_first_half_of_a_trace_predicts_the_p99_9_of_the_second() {
        let ms = Duration::from_millis;
        let times = |from, to| Delay::Uniform { from: ms(from), to: ms(to) };
        let others = vec![(0.03, times(40, 50))];
        let delay = Course::always(Delay::Mixture { usual: Box::new(times(1, 5)), others });
        let model = BackendModel { delay, loss: Course::always(0.01), ..BackendModel::default() };
        let race = RaceRules { dispatch: Dispatch::Hedge, ..RaceRules::default() };
        let rules = PoolRules { race, ..PoolRules::default() };
        let gap = Duration::from_micros(500);
        let scenario = Scenario { queries: 60_000, gap, ..Scenario::of_pool(rules, vec![model; 2]) };
        let mut recorder = TraceRecorder::new(None);
        play(&scenario, Instant::now(), 1, |_, happening| match happening {
            Happening::RaceOver(report) => drop(recorder.race_over(&report, false)),
            Happening::RepliedLate(late) => drop(recorder.late_reply(&late)),
            _ => {}
        });
        recorder.finish(Instant::now() + ms(60_000));
        let trace = RaceTrace::read(&(RaceTrace::head(ms(30_000)) + &recorder.text)).expect("what was written");
        assert!(trace.races.len() > 59_000, "{}", trace.races.len());
        let (first, second) = trace.races.split_at(trace.races.len() / 2);
        let replay = ReplayedTrace::new(first, 1).map(Arc::new);
        let played = Tally::of(&Scenario { replay, ..scenario }, Instant::now(), 2);
        let predicted = played.latency.quantile(0.999).expect("there are some").as_secs_f64() * 1e6;
        let mut micros: Vec<u64> = second.iter().map(|race| race.took.micros).collect();
        micros.sort_unstable();
        let measured = micros[micros.len() * 999 / 1_000] as f64;
        assert!((predicted / measured - 1.0).abs() < 0.1, "predicted {predicted} us, measured {measured} us");
    }
}
