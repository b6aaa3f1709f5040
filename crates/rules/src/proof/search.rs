//! The search for a query of one rule that no earlier rule matches.

use std::collections::HashSet;

use super::super::sets;

/// The number of dimensions: client, listener with transport, type, name.
pub(super) const DIMENSIONS: usize = 4;

/// The sets of rules that the choices of each dimension match.
pub(super) type Dimensions<'a> = [&'a [Box<[u64]>]; DIMENSIONS];

/// The result of a search.
pub(super) enum Coverage {
    /// The number of the part, and of the choice in each dimension that together make a query of the rule
    /// alone.
    Witness(usize, [usize; DIMENSIONS]),
    /// Earlier rules that together match all queries of the rule.
    Covered(Vec<usize>),
    /// The limit of steps is reached.
    NotDecided,
}

/// The search for one rule.
pub(super) struct Search<'a> {
    /// Parts of all queries, in each of which all choices can be combined.
    parts: &'a [Dimensions<'a>],
    rule: usize,
    /// Sets that may still be compared, and the same number for a shorter list of rules.
    steps: usize,
    max_steps: usize,
    /// Earlier rules that were a reason already. The same ones again make a shorter list.
    reasons: Vec<u64>,
}

/// The choices of one dimension, reduced to the rules that are still to be escaped.
struct Level {
    dimension: usize,
    /// Different sets of rules, with the choice that leaves them; small sets first.
    sets: Vec<(Box<[u64]>, usize)>,
    /// The rules that match all queries of the rule in this dimension and in those that follow.
    complete: Box<[u64]>,
    /// Sets of rules that no choice escapes from this level on.
    failed: Vec<Box<[u64]>>,
}

/// The reason for the end of a search without a witness or a proof.
struct TooManySteps;

impl<'a> Search<'a> {
    pub(super) fn new(parts: &'a [Dimensions<'a>], rule: usize, max_steps: usize) -> Self {
        Self { parts, rule, steps: max_steps, max_steps, reasons: vec![0; rule / 64 + 1] }
    }

    pub(super) fn run(mut self) -> Coverage {
        let mut earlier = vec![0; self.rule / 64 + 1];
        (0..self.rule).for_each(|rule| sets::insert(&mut earlier, rule));
        match self.escape(&earlier) {
            Ok(Coverage::Covered(rules)) => Coverage::Covered(self.shorten(rules)),
            Ok(coverage) => coverage,
            Err(TooManySteps) => Coverage::NotDecided,
        }
    }

    /// Leaves out rules without which the others still match all queries of the rule, as long as steps last.
    fn shorten(&mut self, mut rules: Vec<usize>) -> Vec<usize> {
        self.steps = self.max_steps;
        for number in (0..rules.len()).rev() {
            let mut fewer = vec![0; self.rule / 64 + 1];
            let others = rules.iter().filter(|rule| **rule != rules[number]);
            others.for_each(|&rule| sets::insert(&mut fewer, rule));
            match self.escape(&fewer) {
                Ok(Coverage::Covered(_)) => drop(rules.remove(number)),
                Ok(_) => {}
                Err(TooManySteps) => break,
            }
        }
        rules
    }

    /// Finds choices that none of these rules matches, or those among the rules that prevent it.
    fn escape(&mut self, rules: &[u64]) -> Result<Coverage, TooManySteps> {
        let mut all_reasons = vec![0; rules.len()];
        self.reasons.fill(0);
        for (part, dimensions) in self.parts.iter().enumerate() {
            let own = dimensions.map(|sets| {
                let own = sets.iter().enumerate().filter(|(_, set)| sets::has(set, self.rule));
                own.map(|(choice, set)| (choice, &**set)).collect::<Vec<_>>()
            });
            if own.iter().any(Vec::is_empty) {
                continue;
            }
            self.steps = self.steps.checked_sub(own.iter().map(Vec::len).sum()).ok_or(TooManySteps)?;
            let mut choices = own.each_ref().map(|own| own[0].0);
            let rules = overlapping(&own, rules);
            match self.descend(&mut levels(&own, &rules), &rules, &mut choices)? {
                Some(reasons) => sets::unite(&mut all_reasons, &reasons),
                None => return Ok(Coverage::Witness(part, choices)),
            }
        }
        Ok(Coverage::Covered(sets::members(&all_reasons).collect()))
    }

    /// Chooses in the first of these levels and in those behind it, so that no rule is left in the end.
    /// Returns the reasons if there is no such choice: rules that are left, at least one for each choice.
    fn descend(
        &mut self,
        levels: &mut [Level],
        rules: &[u64],
        choices: &mut [usize; DIMENSIONS],
    ) -> Result<Option<Box<[u64]>>, TooManySteps> {
        if sets::is_empty(rules) {
            return Ok(None);
        }
        let Some((level, behind)) = levels.split_first_mut() else { return Ok(Some(self.reason(rules))) };
        let complete = common(rules, &level.complete);
        if !sets::is_empty(&complete) {
            return Ok(Some(self.reason(&complete)));
        }
        // Where reasons are left, no choice helps, whatever other rules are left.
        if let Some(reasons) = level.failed.iter().find(|reasons| sets::is_subset(reasons, rules)) {
            return Ok(Some(reasons.clone()));
        }
        self.steps = self.steps.checked_sub(level.failed.len()).ok_or(TooManySteps)?;
        let mut all_reasons: Box<[u64]> = vec![0; rules.len()].into();
        for (set, choice) in &level.sets {
            self.steps = self.steps.checked_sub(1).ok_or(TooManySteps)?;
            match self.descend(behind, &common(rules, set), choices)? {
                Some(reasons) => sets::unite(&mut all_reasons, &reasons),
                None => {
                    choices[level.dimension] = *choice;
                    return Ok(None);
                }
            }
        }
        level.failed.push(all_reasons.clone());
        Ok(Some(all_reasons))
    }

    /// Chooses one of the rules as a reason, if possible one that was a reason before.
    fn reason(&mut self, rules: &[u64]) -> Box<[u64]> {
        let again = common(rules, &self.reasons);
        let rule = sets::members(&again).next().or_else(|| sets::members(rules).next());
        let mut reason: Box<[u64]> = vec![0; rules.len()].into();
        if let Some(rule) = rule {
            sets::insert(&mut reason, rule);
            sets::insert(&mut self.reasons, rule);
        }
        reason
    }
}

/// Returns those of the rules that have a choice in common with a rule in each dimension.
fn overlapping(own: &[Vec<(usize, &[u64])>; DIMENSIONS], rules: &[u64]) -> Box<[u64]> {
    let mut rules: Box<[u64]> = rules.into();
    for own in own {
        let mut matching = vec![0; rules.len()];
        own.iter().for_each(|(_, set)| sets::unite(&mut matching, set));
        sets::intersect(&mut rules, &matching);
    }
    rules
}

/// Reduces the choices of each dimension; the dimension with the fewest comes first.
fn levels(own: &[Vec<(usize, &[u64])>; DIMENSIONS], rules: &[u64]) -> Vec<Level> {
    let level = |(dimension, own): (usize, &Vec<(usize, &[u64])>)| {
        let mut complete: Box<[u64]> = rules.into();
        let (mut known, mut reduced) = (HashSet::new(), Vec::new());
        for &(choice, set) in own {
            let set = common(rules, set);
            sets::intersect(&mut complete, &set);
            if known.insert(set.clone()) {
                reduced.push((set, choice));
            }
        }
        reduced.sort_by_key(|(set, _)| sets::members(set).count());
        Level { dimension, sets: reduced, complete, failed: Vec::new() }
    };
    let mut levels: Vec<_> = own.iter().enumerate().map(level).collect();
    levels.sort_by_key(|level| level.sets.len());
    for number in (1..DIMENSIONS).rev() {
        levels[number - 1].complete = common(&levels[number - 1].complete, &levels[number].complete);
    }
    levels
}

/// Returns the rules that are in both sets.
fn common(set: &[u64], other: &[u64]) -> Box<[u64]> {
    let mut common: Box<[u64]> = set.into();
    sets::intersect(&mut common, other);
    common
}
