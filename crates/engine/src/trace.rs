//! Traces of races: the latencies of the first and the second attempt of each race, as text without names.
//!
//! ```text
//! # hedgerow trace 1: took_us first_us second_us
//! # seconds 60
//! 1480 1480 -              one attempt
//! 9130 >2009130 1020       the second attempt won, and the first one had no reply for 2 s
//! ```
//!
//! `>` marks a time without a reply so far. A race counts as for the regret: its first reply has won, or
//! there was none. The second attempt is the first one to another backend.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use config::Rank;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hedge::race::{AttemptId, BackendIndex, RaceEnd};

use crate::explain::{LateReport, RaceReport};
use crate::slow::LATE_REPLIES;

/// A time in µs, exact or at least that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedTime {
    /// The time.
    pub micros: u64,
    /// True if there was no reply for that long.
    pub is_open: bool,
}

/// The times of one race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedRace {
    /// The time to the first reply.
    pub took: TracedTime,
    /// The time of the first attempt.
    pub first: TracedTime,
    /// The time of the second attempt, if there was one.
    pub second: Option<TracedTime>,
}

/// A trace as read from its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaceTrace {
    /// The duration of the recording, if known.
    pub seconds: Option<f64>,
    /// The races in the order of their end.
    pub races: Vec<TracedRace>,
}

/// Writes the races of one worker as text. Races wait for late replies.
#[derive(Debug, Default)]
pub struct TraceRecorder {
    /// The name of the pool whose races are recorded; `None` for all.
    pool: Option<String>,
    waiting: HashMap<u64, WaitingRace, FixedState>,
    order: VecDeque<(Instant, u64)>,
    /// The races so far, for the caller to take.
    pub text: String,
}

#[derive(Clone, Copy, Debug)]
struct WaitingRace {
    ended: Instant,
    took: Option<Duration>,
    started: Instant,
    attempts: [Option<TracedAttempt>; 2],
    is_shared: bool,
}

#[derive(Clone, Copy, Debug)]
struct TracedAttempt {
    backend: BackendIndex,
    asked: Instant,
    took: Option<Duration>,
}

impl TraceRecorder {
    /// Creates a recorder for the races of a pool; `None` for all pools.
    pub fn new(pool: Option<String>) -> Self {
        Self { pool, ..Self::default() }
    }

    /// Records a race at its end. Returns true if late replies must be reported. `is_shared` is true if
    /// others need them too.
    pub fn race_over(&mut self, report: &RaceReport<'_>, is_shared: bool) -> bool {
        let is_other = self.pool.as_ref().is_some_and(|pool| *pool != report.pool.config.name);
        let is_recorded = match report.result.end {
            RaceEnd::Reply(_) => report.race.has_one_ended() && !report.is_kept(),
            RaceEnd::Nothing => report.race.attempts().all(|attempt| attempt.open),
            RaceEnd::Failed | RaceEnd::Unsent => false,
        };
        if is_other || !is_recorded || report.clients.waiting == 0 {
            return false;
        }
        let now = report.now;
        while self.order.front().is_some_and(|(ended, _)| now.saturating_duration_since(*ended) >= LATE_REPLIES)
            || self.order.len() >= MAX_WAITING
        {
            self.end_oldest(now);
        }
        let winner = match report.result.end {
            RaceEnd::Reply(winner) => Some(winner),
            _ => None,
        };
        let traced = |attempt: hedge::race::Attempt| TracedAttempt {
            backend: attempt.backend,
            asked: attempt.asked_at,
            took: (winner == Some(attempt.id)).then(|| now.saturating_duration_since(attempt.asked_at)),
        };
        let mut attempts = report.race.attempts();
        let first = attempts.next().filter(|attempt| attempt.id == AttemptId(0)).map(traced);
        let second = attempts.map(traced).find(|second| first.is_some_and(|first| first.backend != second.backend));
        let race = WaitingRace {
            ended: now,
            took: winner.map(|_| report.took()),
            started: report.race.started(),
            attempts: [first, second],
            is_shared,
        };
        if race.attempts.iter().flatten().all(|attempt| attempt.took.is_some()) {
            race.write(now, &mut self.text);
            return false;
        }
        // The same question again. The replies to the two races look alike.
        if let Some(earlier) = self.waiting.insert(report.hash, race) {
            earlier.write(now, &mut self.text);
        }
        self.order.push_back((now, report.hash));
        true
    }

    /// Adds a late reply to its race. Returns true if others may need it too.
    pub fn late_reply(&mut self, late: &LateReport<'_>) -> bool {
        let Some(race) = self.waiting.get_mut(&late.hash) else { return true };
        let (is_shared, asked) = (race.is_shared, race.attempts.iter_mut().flatten());
        if late.rank == Rank::Failure {
            return is_shared;
        }
        if let Some(attempt) =
            asked.filter(|attempt| attempt.took.is_none()).find(|asked| asked.backend == late.backend)
        {
            attempt.took = Some(late.now.saturating_duration_since(late.sent));
        }
        if race.attempts.iter().flatten().all(|attempt| attempt.took.is_some()) {
            race.write(late.now, &mut self.text);
            self.waiting.remove(&late.hash);
        }
        is_shared
    }

    /// Writes the races that still wait.
    pub fn finish(&mut self, now: Instant) {
        while !self.order.is_empty() {
            self.end_oldest(now);
        }
    }

    fn end_oldest(&mut self, now: Instant) {
        let Some((ended, hash)) = self.order.pop_front() else { return };
        if self.waiting.get(&hash).is_some_and(|race| race.ended == ended)
            && let Some(race) = self.waiting.remove(&hash)
        {
            race.write(now, &mut self.text);
        }
    }
}

impl WaitingRace {
    fn write(&self, now: Instant, text: &mut String) {
        let time = |took: Option<Duration>, since: Instant| TracedTime {
            micros: took.unwrap_or_else(|| now.saturating_duration_since(since)).as_micros() as u64,
            is_open: took.is_none(),
        };
        let [Some(first), second] = self.attempts else { return };
        let race = TracedRace {
            took: time(self.took, self.started),
            first: time(first.took, first.asked),
            second: second.map(|second| time(second.took, second.asked)),
        };
        let _ = writeln!(text, "{race}");
    }
}

impl fmt::Display for TracedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_open { ">" } else { "" }, self.micros)
    }
}

impl fmt::Display for TracedRace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.took, self.first)?;
        match self.second {
            Some(second) => second.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl RaceTrace {
    /// Returns the text before the races of a recording.
    pub fn head(duration: Duration) -> String {
        format!("{HEAD}: took_us first_us second_us\n# seconds {}\n", duration.as_secs_f64())
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// The number of the first wrong line, with what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut trace = Self::default();
        if text.lines().next().is_none_or(|line| line.split(':').next() != Some(HEAD)) {
            return Err(format!("line 1: expected {HEAD:?}"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(comment) = line.strip_prefix('#') {
                let seconds = comment.trim().strip_prefix("seconds ").and_then(|seconds| seconds.parse().ok());
                trace.seconds = trace.seconds.or_else(|| seconds.filter(|seconds| *seconds > 0.0));
                continue;
            }
            let race = race(line).ok_or_else(|| format!("line {number}: expected three times in µs, not {line:?}"))?;
            trace.races.push(race);
        }
        Ok(trace)
    }
}

fn race(line: &str) -> Option<TracedRace> {
    let mut words = line.split_ascii_whitespace();
    let (took, first, second) = (time(words.next()?)?, time(words.next()?)?, words.next()?);
    let second = if second == "-" { None } else { Some(time(second)?) };
    words.next().is_none().then_some(TracedRace { took, first, second })
}

fn time(word: &str) -> Option<TracedTime> {
    let (is_open, micros) = word.strip_prefix('>').map_or((false, word), |micros| (true, micros));
    Some(TracedTime { micros: micros.parse().ok()?, is_open })
}

const HEAD: &str = "# hedgerow trace 1";

/// Some 10 MB. Beyond it, the oldest race is written without its late replies.
const MAX_WAITING: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use config::PoolRules;
    use hedge::{Dispatch, RaceRules};

    use super::*;
    use crate::sim::{BackendModel, Course, Delay, Happening, Scenario, play};

    #[test]
    fn what_is_written_is_read() {
        let open = |micros| TracedTime { micros, is_open: true };
        let took = |micros| TracedTime { micros, is_open: false };
        let races = vec![
            TracedRace { took: took(1_480), first: took(1_480), second: None },
            TracedRace { took: took(9_130), first: open(2_009_130), second: Some(took(1_020)) },
            TracedRace { took: open(5_000_000), first: open(5_000_000), second: Some(open(4_900_000)) },
        ];
        let lines: String = races.iter().map(|race| format!("{race}\n")).collect();
        assert!(lines.contains("\n9130 >2009130 1020\n"), "{lines}");
        let text = RaceTrace::head(Duration::from_millis(1_500)) + &lines;
        assert_eq!(RaceTrace::read(&text), Ok(RaceTrace { seconds: Some(1.5), races }));
        for wrong in
            ["", "1 2 -", "# hedgerow trace 2: a\n", "# hedgerow trace 1\n1 2\n", "# hedgerow trace 1\n1 x -\n"]
        {
            assert!(RaceTrace::read(wrong).is_err(), "{wrong:?}");
        }
    }

    /// The first backend takes 5 ms, the second one 1 ms; a hedge races after 2 ms.
    #[test]
    fn both_attempts_of_a_race_are_known_once_the_late_reply_has_come() {
        let ms = Duration::from_millis;
        let delay = |time| BackendModel { delay: Course::always(Delay::Constant(time)), ..BackendModel::default() };
        let mut race = RaceRules { dispatch: Dispatch::Race, fanout: 2, ..RaceRules::default() };
        race.balance = hedge::balance::Balance::Ordered;
        let rules = PoolRules { race, ..PoolRules::default() };
        let scenario = Scenario { queries: 100, ..Scenario::of_pool(rules, vec![delay(ms(5)), delay(ms(1))]) };
        let recorder = Arc::new(Mutex::new(TraceRecorder::new(None)));
        let known = Arc::clone(&recorder);
        play(&scenario, Instant::now(), 1, move |_, happening| {
            let mut recorder = known.lock().expect("nothing panics");
            match happening {
                Happening::RaceOver(report) => drop(recorder.race_over(&report, false)),
                Happening::RepliedLate(late) => assert!(!recorder.late_reply(&late)),
                _ => {}
            }
        });
        let recorder = recorder.lock().expect("nothing panics");
        assert!(recorder.waiting.is_empty());
        assert_eq!(recorder.text, "1000 5000 1000\n".repeat(100));
    }
}
