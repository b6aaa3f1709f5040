//! What came of a scenario, race by race and query by query: for tests that look at each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::Happening;
use super::model::Scenario;
use super::world::play;
use crate::engine::{RaceRef, RaceReport, Said};
use crate::metrics::Source;
use crate::policy::race::{AttemptId, BackendIndex, Kind, Outcome};
use crate::policy::{Rank, Rules};

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What each race met with, in the order of their beginning.
    pub races: Vec<Record>,
    /// What the client of each query was told, and how long it had waited; in the order of their coming. There must be exactly
    /// one response for each.
    pub queries: Vec<Vec<(Duration, Option<Source>)>>,
}

/// What one race met with. Times count from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it began, counted from the start of the scenario.
    pub began: Duration,
    /// The name of its pool.
    pub pool: String,
    /// The rules that it followed.
    pub rules: Rules,
    /// Whether no backend of the pool was up when it began.
    pub all_down: bool,
    /// When its client must have the response.
    pub deadline: Duration,
    /// The attempts.
    pub asked: Vec<Asked>,
    /// The replies, those that came too late included.
    pub replies: Vec<Reply>,
    /// Whether a bare failure came while the race ran.
    pub bare_failure: bool,
    /// How often a hedge was due but denied.
    pub hedges_denied: u8,
    /// The rank of the reply that won, if one did.
    pub won_by: Option<Rank>,
    /// Each outcome that the race has had, and when. There must be exactly one.
    pub outcomes: Vec<(Duration, Outcome)>,
}

/// One attempt of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When.
    pub at: Duration,
    /// Who.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// Whether with OPT.
    pub edns: bool,
}

/// One reply of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply {
    /// When.
    pub at: Duration,
    /// To which attempt.
    pub attempt: AttemptId,
    /// Its rank.
    pub rank: Rank,
    /// The race was over before.
    pub is_late: bool,
}

/// Plays a scenario from `start` to its end and writes everything down.
pub fn run(scenario: &Scenario, start: Instant, seed: u64) -> Report {
    let mut recorder = Recorder::new(start, scenario.queries);
    play(scenario, start, seed, |at, happening| recorder.add(at, happening));
    let mut races: Vec<_> = recorder.over;
    races.sort_by_key(|race| race.began);
    Report { races, queries: recorder.queries }
}

/// Writes down what happens.
struct Recorder {
    /// When the scenario began.
    start: Instant,
    /// What came to races that are not over: replies, and whether one was a bare failure. Times count from the start.
    running: HashMap<RaceRef, (Vec<Reply>, bool)>,
    /// Where the races are that are over.
    places: HashMap<RaceRef, usize>,
    /// The races that are over.
    over: Vec<Record>,
    /// What clients were told.
    queries: Vec<Vec<(Duration, Option<Source>)>>,
}

impl Recorder {
    /// Nothing has happened yet.
    fn new(start: Instant, queries: usize) -> Self {
        let queries = vec![Vec::new(); queries];
        Self { start, running: HashMap::new(), places: HashMap::new(), over: Vec::new(), queries }
    }

    /// Writes down what happens at a time that counts from the start.
    fn add(&mut self, at: Duration, happening: Happening<'_>) {
        match happening {
            Happening::Came | Happening::Second { .. } => {}
            Happening::Replied { race, attempt, rank, is_late } => {
                let reply = Reply { at, attempt, rank, is_late };
                match self.places.get(&race).map(|place| &mut self.over[*place]) {
                    Some(record) => record.replies.push(Reply { at: at - record.began, ..reply }),
                    None => self.running.entry(race).or_default().0.push(reply),
                }
            }
            Happening::FailedBare { race } => self.running.entry(race).or_default().1 = true,
            Happening::RaceOver(report) => {
                // Twice over would show as two outcomes of one race.
                if let Some(place) = self.places.get(&report.id) {
                    let record = &mut self.over[*place];
                    return record.outcomes.push((at - record.began, report.outcome));
                }
                let (replies, bare_failure) = self.running.remove(&report.id).unwrap_or_default();
                self.places.insert(report.id, self.over.len());
                self.over.push(Record::new(self.start, at, &report, replies, bare_failure));
            }
            Happening::Responded { query, waited, said } => {
                self.queries[query as usize].push((waited, said.map(|Said { source, .. }| source)));
            }
        }
    }
}

impl Record {
    /// Of a race that is over.
    fn new(start: Instant, at: Duration, report: &RaceReport<'_>, replies: Vec<Reply>, bare_failure: bool) -> Self {
        let race = report.race;
        let began = race.started() - start;
        let asked = race.attempts().map(|attempt| Asked {
            at: attempt.asked_at - race.started(),
            backend: attempt.backend,
            kind: attempt.kind,
            edns: attempt.edns,
        });
        let won_by = match report.outcome {
            Outcome::Reply(_) if report.is_kept() => race.kept().map(|(_, rank)| rank),
            Outcome::Reply(attempt) => {
                let reply = replies.iter().rev().find(|reply| reply.attempt == attempt);
                // Where there is none, it was a refusal of OPT that was taken for the failure that it is.
                Some(reply.map_or(Rank::Failure, |reply| reply.rank))
            }
            Outcome::Failed | Outcome::Nothing | Outcome::Unsent => None,
        };
        Self {
            began,
            pool: report.pool.config.name.clone(),
            rules: report.pool.config.rules.clone(),
            all_down: race.all_down(),
            deadline: race.deadline() - race.started(),
            asked: asked.collect(),
            replies: replies.into_iter().map(|reply| Reply { at: reply.at - began, ..reply }).collect(),
            bare_failure,
            hedges_denied: race.hedges_denied(),
            won_by,
            outcomes: vec![(at - began, report.outcome)],
        }
    }
}
