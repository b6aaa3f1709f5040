//! The search for a query of one rule that no earlier rule matches.

use std::collections::HashSet;

use super::super::sets;

/// Most steps of a search for one rule: sets that are compared. They take some milliseconds. The same again
/// goes into a shorter list of rules.
const MAX_STEPS: usize = 200_000;

/// The number of dimensions: client, listener with transport, type, name.
const DIMENSIONS: usize = 4;

/// The result of a search.
pub(super) enum Coverage {
    /// The number of the choice in each dimension that together make a query of the rule alone.
    Witness([usize; DIMENSIONS]),
    /// Earlier rules that together match all queries of the rule.
    Covered(Vec<usize>),
    /// The limit of steps is reached.
    NotDecided,
}

/// The search for one rule.
pub(super) struct Search<'a> {
    dimensions: [&'a [Box<[u64]>]; DIMENSIONS],
    /// The choices that the rule matches, in each dimension.
    own: [Vec<usize>; DIMENSIONS],
    rule: usize,
    steps: usize,
}

/// The choices of one dimension, reduced to the rules that are still to be escaped.
struct Level {
    dimension: usize,
    /// Different sets of rules, with the choice that leaves them; small sets first.
    sets: Vec<(Box<[u64]>, usize)>,
    /// The rules that match all queries of the rule in this dimension and in those that follow.
    complete: Vec<u64>,
    /// Sets of rules that are not escaped from this level on.
    failed: Vec<Box<[u64]>>,
}

/// The reason for the end of a search without a witness or a proof.
struct TooManySteps;

impl<'a> Search<'a> {
    pub(super) fn new(dimensions: [&'a [Box<[u64]>]; DIMENSIONS], rule: usize) -> Self {
        let own = dimensions.map(|sets| (0..sets.len()).filter(|&choice| sets::has(&sets[choice], rule)).collect());
        Self { dimensions, own, rule, steps: 0 }
    }

    pub(super) fn run(mut self) -> Coverage {
        if self.own.iter().any(Vec::is_empty) {
            return Coverage::Covered(Vec::new());
        }
        match self.escape(&self.overlapping()) {
            Ok(Ok(choices)) => Coverage::Witness(choices),
            Ok(Err(rules)) => Coverage::Covered(self.shorten(rules)),
            Err(TooManySteps) => Coverage::NotDecided,
        }
    }

    /// Returns the earlier rules that match a query of the rule.
    fn overlapping(&self) -> Vec<u64> {
        let mut rules = vec![0; self.rule / 64 + 1];
        (0..self.rule).for_each(|rule| sets::insert(&mut rules, rule));
        for (own, sets) in self.own.iter().zip(self.dimensions) {
            let mut matching = vec![0; rules.len()];
            own.iter().for_each(|&choice| sets::unite(&mut matching, &sets[choice]));
            sets::intersect(&mut rules, &matching);
        }
        rules
    }

    /// Leaves out rules without which the others still match all queries of the rule, as long as steps last.
    fn shorten(&mut self, mut rules: Vec<usize>) -> Vec<usize> {
        self.steps = 0;
        for number in (0..rules.len()).rev() {
            let mut fewer = vec![0; self.rule / 64 + 1];
            let others = rules.iter().filter(|rule| **rule != rules[number]);
            others.for_each(|&rule| sets::insert(&mut fewer, rule));
            match self.escape(&fewer) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => drop(rules.remove(number)),
                Err(TooManySteps) => break,
            }
        }
        rules
    }

    /// Finds choices that none of these rules matches, or those among the rules that prevent it.
    fn escape(&mut self, rules: &[u64]) -> Result<Result<[usize; DIMENSIONS], Vec<usize>>, TooManySteps> {
        let mut levels = self.levels(rules);
        let mut choices = [0; DIMENSIONS].map(|_: usize| 0);
        for (choice, own) in choices.iter_mut().zip(&self.own) {
            *choice = own[0];
        }
        let mut blamed = vec![0; rules.len()];
        Ok(match self.descend(&mut levels, rules, &mut choices, &mut blamed)? {
            true => Ok(choices),
            false => Err(sets::members(&blamed).collect()),
        })
    }

    /// Reduces the choices of each dimension; the dimension with the fewest comes first.
    fn levels(&self, rules: &[u64]) -> Vec<Level> {
        let level = |dimension: usize| {
            let mut complete = rules.to_vec();
            let (mut known, mut reduced) = (HashSet::new(), Vec::new());
            for &choice in &self.own[dimension] {
                let mut set: Box<[u64]> = self.dimensions[dimension][choice][..rules.len()].into();
                sets::intersect(&mut set, rules);
                sets::intersect(&mut complete, &set);
                if known.insert(set.clone()) {
                    reduced.push((set, choice));
                }
            }
            reduced.sort_by_key(|(set, _)| sets::members(set).count());
            Level { dimension, sets: reduced, complete, failed: Vec::new() }
        };
        let mut levels: Vec<_> = (0..DIMENSIONS).map(level).collect();
        levels.sort_by_key(|level| level.sets.len());
        for number in (1..DIMENSIONS).rev() {
            let (before, behind) = levels.split_at_mut(number);
            if let (Some(level), Some(next)) = (before.last_mut(), behind.first()) {
                sets::intersect(&mut level.complete, &next.complete);
            }
        }
        levels
    }

    /// Chooses in the first of these levels, and returns true if no rule is left in the end. If rules are
    /// left whatever the choice, adds rules to `blamed` that suffice for that.
    fn descend(
        &mut self,
        levels: &mut [Level],
        rules: &[u64],
        choices: &mut [usize; DIMENSIONS],
        blamed: &mut [u64],
    ) -> Result<bool, TooManySteps> {
        if rules.iter().all(|word| *word == 0) {
            return Ok(true);
        }
        let Some((level, below)) = levels.split_first_mut() else {
            blame(rules, blamed);
            return Ok(false);
        };
        let mut complete = rules.to_vec();
        sets::intersect(&mut complete, &level.complete);
        if complete.iter().any(|word| *word != 0) {
            blame(&complete, blamed);
            return Ok(false);
        }
        // More rules are not escaped where fewer are not.
        self.steps += level.failed.len();
        if level.failed.iter().any(|failed| sets::is_subset(failed, rules)) {
            return Ok(false);
        }
        for (set, choice) in &level.sets {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(TooManySteps);
            }
            let mut left = rules.to_vec();
            sets::intersect(&mut left, set);
            if self.descend(below, &left, choices, blamed)? {
                choices[level.dimension] = *choice;
                return Ok(true);
            }
        }
        level.failed.push(rules.into());
        Ok(false)
    }
}

/// Adds one of the rules to those that are blamed, if none of them is among these.
fn blame(rules: &[u64], blamed: &mut [u64]) {
    let is_blamed = rules.iter().zip(&*blamed).any(|(rules, blamed)| rules & blamed != 0);
    if !is_blamed && let Some(rule) = sets::members(rules).next() {
        sets::insert(blamed, rule);
    }
}
