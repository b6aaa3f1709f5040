//! Record of a scenario, race by race and query by query, for tests that check each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use config::{PoolRules, Rank};
use engine::sim::{Happening, Scenario, play};
use engine::{RaceRef, RaceReport, ResponseSummary};
use hedge::race::{AttemptId, AttemptKind, BackendIndex, RaceEnd};
use metrics::ResponseSource;

/// The record of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScenarioRecord {
    /// All races, in the order of their beginning.
    pub(crate) races: Vec<RaceRecord>,
    /// The responses of each query with the time that the client had waited, in the order of arrival. There
    /// must be exactly one for each.
    pub(crate) queries: Vec<Vec<(Duration, Option<ResponseSource>)>>,
}

/// The record of one race. Times count from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RaceRecord {
    /// The beginning, counted from the start of the scenario.
    pub(crate) began: Duration,
    /// The name of the pool.
    pub(crate) pool: String,
    /// The rules that the race followed.
    pub(crate) rules: PoolRules,
    /// True if no backend of the pool was up at the beginning.
    pub(crate) all_down: bool,
    /// The time by which the client must have the response.
    pub(crate) deadline: Duration,
    /// The attempts, in the order of their sending.
    pub(crate) asked: Vec<RecordedAttempt>,
    /// The replies, including late ones.
    pub(crate) replies: Vec<RecordedReply>,
    /// True if a bare failure arrived during the race.
    pub(crate) bare_failure: bool,
    /// The number of hedges that were due but denied.
    pub(crate) hedges_denied: u8,
    /// The rank of the reply that won.
    pub(crate) won_by: Option<Rank>,
    /// All outcomes of the race with their times. There must be exactly one.
    pub(crate) outcomes: Vec<(Duration, RaceEnd)>,
}

/// One attempt of a [`RaceRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecordedAttempt {
    /// The time of the attempt.
    pub(crate) at: Duration,
    /// The backend that got the query.
    pub(crate) backend: BackendIndex,
    /// The reason for the attempt.
    pub(crate) kind: AttemptKind,
    /// True if the query had OPT.
    pub(crate) edns: bool,
}

/// One reply of a [`RaceRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecordedReply {
    /// The time of the reply.
    pub(crate) at: Duration,
    /// The attempt that it answers.
    pub(crate) attempt: AttemptId,
    /// The rank of the reply.
    pub(crate) rank: Rank,
    /// True if the race was over before.
    pub(crate) is_late: bool,
}

/// Plays a scenario from `start` to its end and records everything.
pub(crate) fn run(scenario: &Scenario, start: Instant, seed: u64) -> ScenarioRecord {
    let mut recorder = Recorder::new(start, scenario.queries);
    play(scenario, start, seed, |at, happening| recorder.add(at, happening));
    let mut races: Vec<_> = recorder.over;
    races.sort_by_key(|race| race.began);
    ScenarioRecord { races, queries: recorder.queries }
}

struct Recorder {
    start: Instant,
    /// The replies to each running race, and true if one was a bare failure. Times count from the start.
    running: HashMap<RaceRef, (Vec<RecordedReply>, bool)>,
    /// The indexes in `over` of the finished races.
    places: HashMap<RaceRef, usize>,
    over: Vec<RaceRecord>,
    queries: Vec<Vec<(Duration, Option<ResponseSource>)>>,
}

impl Recorder {
    fn new(start: Instant, queries: usize) -> Self {
        let queries = vec![Vec::new(); queries];
        Self { start, running: HashMap::new(), places: HashMap::new(), over: Vec::new(), queries }
    }

    /// Records an event at a time that counts from the start.
    fn add(&mut self, at: Duration, happening: Happening<'_>) {
        match happening {
            Happening::Came | Happening::RepliedLate(_) | Happening::Second { .. } => {}
            Happening::Replied { race, attempt, rank, is_late } => {
                let reply = RecordedReply { at, attempt, rank, is_late };
                match self.places.get(&race).map(|place| &mut self.over[*place]) {
                    Some(record) => record.replies.push(RecordedReply { at: at - record.began, ..reply }),
                    None => self.running.entry(race).or_default().0.push(reply),
                }
            }
            Happening::FailedBare { race } => self.running.entry(race).or_default().1 = true,
            Happening::RaceOver(report) => {
                // A second end of the same race shows as two outcomes.
                if let Some(place) = self.places.get(&report.id) {
                    let record = &mut self.over[*place];
                    return record.outcomes.push((at - record.began, report.result.end));
                }
                let (replies, bare_failure) = self.running.remove(&report.id).unwrap_or_default();
                self.places.insert(report.id, self.over.len());
                self.over.push(RaceRecord::new(self.start, at, &report, replies, bare_failure));
            }
            Happening::Responded { query, waited, said } => {
                self.queries[query as usize].push((waited, said.map(|ResponseSummary { source, .. }| source)));
            }
        }
    }
}

impl RaceRecord {
    fn new(
        start: Instant,
        at: Duration,
        report: &RaceReport<'_>,
        replies: Vec<RecordedReply>,
        bare_failure: bool,
    ) -> Self {
        let race = report.race;
        let began = race.started() - start;
        let asked = race.attempts().map(|attempt| RecordedAttempt {
            at: attempt.asked_at - race.started(),
            backend: attempt.backend,
            kind: attempt.kind,
            edns: attempt.extended,
        });
        let won_by = match report.result.end {
            RaceEnd::Reply(_) if report.is_kept() => race.kept().map(|(_, rank)| rank),
            RaceEnd::Reply(attempt) => {
                let reply = replies.iter().rev().find(|reply| reply.attempt == attempt);
                // Without a reply, it was a refusal of OPT that was taken for a failure.
                Some(reply.map_or(Rank::Failure, |reply| reply.rank))
            }
            RaceEnd::Failed | RaceEnd::Nothing | RaceEnd::Unsent => None,
        };
        Self {
            began,
            pool: report.pool.config.name.clone(),
            rules: report.pool.config.rules.clone(),
            all_down: race.all_down(),
            deadline: race.deadline() - race.started(),
            asked: asked.collect(),
            replies: replies.into_iter().map(|reply| RecordedReply { at: reply.at - began, ..reply }).collect(),
            bare_failure,
            hedges_denied: race.hedges_denied(),
            won_by,
            outcomes: vec![(at - began, report.result.end)],
        }
    }
}
