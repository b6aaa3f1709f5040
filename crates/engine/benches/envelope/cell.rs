//! One cell of the table: a model at a load, with all policies that have the same budget.

use std::time::{Duration, Instant};

use config::PoolRules;
use engine::sim::{Scenario, Tally};
use hedge::{Dispatch, Hedge, HedgeDelay, RaceRules};

use super::models::Model;

/// A policy, by its words for `hedgerow simulate`.
pub(super) struct Policy {
    pub(super) words: String,
    pub(super) race: RaceRules,
}

/// Returns all policies with this budget; the candidate is the last one.
pub(super) fn policies(budget: f64) -> Vec<Policy> {
    let usual = RaceRules::default();
    let sequential = RaceRules { dispatch: Dispatch::Sequential, ..usual.clone() };
    let hedge =
        |delay| RaceRules { dispatch: Dispatch::Hedge, hedge: Hedge { delay, budget, ..usual.hedge }, ..usual.clone() };
    let percent = budget * 100.0;
    let mut policies = vec![Policy { words: "sequential".to_owned(), race: sequential }];
    for (word, delay) in [
        ("auto", HedgeDelay::Auto),
        ("p90", HedgeDelay::Percentile(0.9)),
        ("p95", HedgeDelay::Percentile(0.95)),
        ("p99", HedgeDelay::Percentile(0.99)),
    ] {
        policies.push(Policy { words: format!("hedge delay={word} budget={percent}%"), race: hedge(delay) });
    }
    if budget >= 1.0 {
        policies.push(Policy {
            words: "race fanout=2".to_owned(),
            race: RaceRules { dispatch: Dispatch::Race, fanout: 2, ..usual.clone() },
        });
    }
    let auto = RaceRules { hedge: Hedge { budget, ..usual.hedge }, ..usual.with_dispatch(Dispatch::Auto) };
    policies.push(Policy { words: format!("auto target=p99.9 budget={percent}%"), race: auto });
    policies
}

/// A model at a load, with a budget.
#[derive(Clone, Copy)]
pub(super) struct Cell<'m> {
    pub(super) model: &'m Model,
    /// The arrival rate as a part of the capacity.
    pub(super) load: f64,
    pub(super) budget: f64,
}

/// The results of a cell.
pub(super) struct Outcome<'m> {
    pub(super) cell: Cell<'m>,
    /// The results of each policy, in the order of [`policies`].
    pub(super) played: Vec<Played>,
    pub(super) seeds: u64,
}

/// The result of a policy with one seed.
struct Run {
    tally: Tally,
    /// The regret of the server itself, with the whole time.
    regret: Option<f64>,
}

/// The result of a policy.
pub(super) struct Played {
    pub(super) words: String,
    /// The p99.9 in milliseconds.
    pub(super) p999: f64,
    /// Attempts beyond one per query, and hedges among them, as parts of the queries.
    pub(super) extra: f64,
    pub(super) hedges: f64,
    pub(super) lost: u64,
    /// The regret with the first seed.
    pub(super) regret: Option<f64>,
    /// The complementary distribution from p99 on.
    curve: Vec<(Duration, f64)>,
}

impl Outcome<'_> {
    pub(super) fn candidate(&self) -> &Played {
        self.played.last().expect("the candidate is one of them")
    }

    pub(super) fn best(&self) -> &Played {
        let fixed = &self.played[..self.played.len() - 1];
        fixed.iter().min_by(|one, other| one.p999.total_cmp(&other.p999)).expect("there are some")
    }

    /// Returns the ratio of the candidate's p99.9 to that of the best fixed policy.
    pub(super) fn ratio(&self) -> f64 {
        self.candidate().p999 / self.best().p999
    }

    /// Returns the share of the candidate's queries that are clearly slower than the best p99.9, at most 1 %.
    /// Near 0.1 %, a high ratio only means that few times lie between the two.
    pub(super) fn slower(&self) -> f64 {
        let border = Duration::from_secs_f64(self.best().p999 * SUSPECT / 1e3);
        let slower = self.candidate().curve.iter().take_while(|(time, _)| *time <= border);
        slower.last().map_or(0.01, |(_, share)| *share)
    }

    /// Returns the ratio of the candidate's p99.9 to that without hedges.
    pub(super) fn ratio_to_sequential(&self) -> f64 {
        self.candidate().p999 / self.played[0].p999
    }
}

impl<'m> Cell<'m> {
    /// Returns the queries per second.
    pub(super) fn rate(&self) -> f64 {
        (self.load * self.model.capacity()).round()
    }

    /// Plays all policies with one seed. If the candidate seems to be clearly worse than the best one, plays
    /// it and all that are not clearly worse than itself with more seeds, and pools the times.
    pub(super) fn play(self, queries: usize) -> Outcome<'m> {
        let policies = policies(self.budget);
        let mut tallies: Vec<_> = policies.iter().map(|policy| vec![self.play_once(policy, queries, 1)]).collect();
        let outcome = |tallies: &[Vec<Run>], seeds| {
            let played = policies.iter().zip(tallies).map(|(policy, tallies)| Played::of(policy, tallies));
            Outcome { cell: self, played: played.collect(), seeds }
        };
        let first = outcome(&tallies, 1);
        if first.ratio() <= SUSPECT {
            return first;
        }
        for (place, policy) in policies.iter().enumerate() {
            if first.played[place].p999 <= first.candidate().p999 * SUSPECT {
                tallies[place].extend((2..=SEEDS).map(|seed| self.play_once(policy, queries, seed)));
            }
        }
        outcome(&tallies, SEEDS)
    }

    fn play_once(self, policy: &Policy, queries: usize, seed: u64) -> Run {
        let gap = Duration::from_secs_f64(1.0 / self.rate());
        let rules = PoolRules { race: policy.race.clone(), ..PoolRules::default() };
        let scenario = Scenario::of_pool(rules, self.model.backends.clone());
        let queries = queries + (self.rate() * LEAD.as_secs_f64()) as usize;
        let (scenario, now) = (Scenario { queries, gap, is_probed: true, ..scenario }, Instant::now());
        let (tally, state) = Tally::after(LEAD, &scenario, now, seed);
        let regret = state.pools[0].measure_regret(now).map(|regret| regret.ratio());
        Run { tally, regret }
    }
}

impl Played {
    fn of(policy: &Policy, runs: &[Run]) -> Self {
        let tallies: Vec<_> = runs.iter().map(|run| &run.tally).collect();
        let mut latency = tallies[0].latency.clone();
        tallies[1..].iter().for_each(|tally| latency.merge(&tally.latency));
        let queries: u64 = tallies.iter().map(|tally| tally.queries).sum();
        let hedges: u64 = tallies.iter().map(|tally| tally.hedges).sum();
        Self {
            words: policy.words.clone(),
            p999: latency.quantile(0.999).map_or(0.0, |time| time.as_secs_f64() * 1e3),
            extra: tallies.iter().map(|tally| tally.extra_load()).sum::<f64>() / tallies.len() as f64,
            hedges: hedges as f64 / queries as f64,
            curve: latency.ccdf().into_iter().skip_while(|(_, share)| *share >= 0.01).collect(),
            regret: runs[0].regret,
            lost: tallies.iter().map(|tally| tally.lost).sum(),
        }
    }
}

/// The ratio from which a cell is played again with more seeds.
const SUSPECT: f64 = 1.1;
const SEEDS: u64 = 5;

/// The time that is not counted: no policy knows the latencies at first.
const LEAD: Duration = Duration::from_secs(1);
