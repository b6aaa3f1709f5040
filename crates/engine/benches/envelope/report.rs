//! The report of all cells.

use std::fmt::Write;

use clap::ValueEnum;

use super::cell::{Outcome, policies};
use super::models::Kind;

/// Returns the tables. `load+` is the largest extra load above the budget, `hedges+` that of hedges alone,
/// both in percentage points: backends that fail or are down cost other attempts. `/sequential` is the worst
/// ratio to the p99.9 of `sequential`, and `regret` the mean that the server itself has measured.
pub(super) fn text(outcomes: &[Outcome<'_>], queries: usize, with_cells: bool) -> String {
    let mut text = String::new();
    for budget in [0.05, 1.0] {
        let outcomes: Vec<_> = outcomes.iter().filter(|outcome| outcome.cell.budget == budget).collect();
        if outcomes.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "budget {:.0} %, {queries} queries; ratios of p99.9 to the best fixed policy\n",
            budget * 100.0
        );
        add_rows(&mut text, &outcomes);
        add_policies(&mut text, &outcomes, budget);
        add_worst(&mut text, &outcomes, queries);
        if with_cells {
            add_cells(&mut text, &outcomes);
        }
    }
    text
}

fn add_rows(text: &mut String, outcomes: &[&Outcome<'_>]) {
    let _ = writeln!(
        text,
        "{:<12} {:>5} {:>7} {:>7} {:>6} {:>6} {:>9} {:>9} {:>11} {:>7}",
        "", "cells", "mean", "worst", ">1.05", ">1.10", "load+ %", "hedges+ %", "/sequential", "regret"
    );
    add_row(text, "all", outcomes);
    for kind in Kind::value_variants() {
        let some: Vec<_> = outcomes.iter().filter(|outcome| outcome.cell.model.kind == *kind).copied().collect();
        add_row(text, &format!("{kind:?}").to_lowercase(), &some);
    }
    let mut loads: Vec<_> = outcomes.iter().map(|outcome| outcome.cell.load).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    for load in loads {
        let some: Vec<_> = outcomes.iter().filter(|outcome| outcome.cell.load == load).copied().collect();
        add_row(text, &format!("load {:.0} %", load * 100.0), &some);
    }
    text.push('\n');
}

fn add_row(text: &mut String, name: &str, outcomes: &[&Outcome<'_>]) {
    if outcomes.is_empty() {
        return;
    }
    let max =
        |value: &dyn Fn(&Outcome<'_>) -> f64| outcomes.iter().map(|outcome| value(outcome)).fold(f64::MIN, f64::max);
    let above = |ratio| outcomes.iter().filter(|outcome| outcome.ratio() > ratio).count();
    let mean = outcomes.iter().map(|outcome| outcome.ratio()).sum::<f64>() / outcomes.len() as f64;
    let regrets: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.candidate().regret).collect();
    let over = |outcome: &Outcome<'_>| (outcome.candidate().extra - outcome.cell.budget) * 100.0;
    let hedges = |outcome: &Outcome<'_>| (outcome.candidate().hedges - outcome.cell.budget) * 100.0;
    let _ = writeln!(
        text,
        "{name:<12} {:>5} {mean:>7.3} {:>7.3} {:>6} {:>6} {:>9.2} {:>9.2} {:>11.3} {:>7.3}",
        outcomes.len(),
        max(&|outcome| outcome.ratio()),
        above(1.05),
        above(1.1),
        max(&over),
        max(&hedges),
        max(&|outcome| outcome.ratio_to_sequential()),
        regrets.iter().sum::<f64>() / regrets.len().max(1) as f64,
    );
}

/// Adds how far each policy is from the best one.
fn add_policies(text: &mut String, outcomes: &[&Outcome<'_>], budget: f64) {
    let count = policies(budget).len();
    for place in 0..count {
        let ratios = outcomes.iter().map(|outcome| outcome.played[place].p999 / outcome.best().p999);
        let (mean, worst) = (ratios.clone().sum::<f64>() / outcomes.len() as f64, ratios.fold(0.0, f64::max));
        let best = outcomes.iter().filter(|outcome| outcome.best().words == outcome.played[place].words).count();
        let over = outcomes.iter().map(|outcome| outcome.played[place].extra - budget).fold(f64::MIN, f64::max);
        let words = &outcomes[0].played[place].words;
        let name = if place + 1 == count { "candidate" } else { "" };
        let _ = writeln!(
            text,
            "{words:<30} mean {mean:>7.3} worst {worst:>8.3} best in {best:>4} load+ {:>6.2} % {name}",
            over * 100.0
        );
    }
    text.push('\n');
}

fn add_worst(text: &mut String, outcomes: &[&Outcome<'_>], queries: usize) {
    let mut worst = outcomes.to_vec();
    worst.sort_by(|one, other| other.ratio().total_cmp(&one.ratio()));
    for outcome in worst.iter().take(10) {
        let (cell, candidate, best) = (outcome.cell, outcome.candidate(), outcome.best());
        let _ = writeln!(
            text,
            "{:.3} model {} {:?}, load {:.0} %, {} seeds: {:.2} ms, extra {:.2} %, {:.2} % slower; \
             best {}: {:.2} ms, extra {:.2} %\n  \
             hedgerow simulate -n {queries} -r {} {} -p '{}' -p '{}'",
            outcome.ratio(),
            cell.model.number,
            cell.model.kind,
            cell.load * 100.0,
            outcome.seeds,
            candidate.p999,
            candidate.extra * 100.0,
            outcome.slower() * 100.0,
            best.words,
            best.p999,
            best.extra * 100.0,
            cell.rate(),
            cell.model.words(),
            best.words,
            candidate.words,
        );
    }
    text.push('\n');
}

fn add_cells(text: &mut String, outcomes: &[&Outcome<'_>]) {
    for outcome in outcomes {
        let cell = outcome.cell;
        let _ =
            write!(text, "{} {:?} {:.0}% x{}", cell.model.number, cell.model.kind, cell.load * 100.0, outcome.seeds);
        for played in &outcome.played {
            let _ = write!(text, " | {:.2} {:.2}% {}", played.p999, played.extra * 100.0, played.lost);
        }
        let _ = writeln!(text, " | {:.3}", outcome.ratio());
    }
    text.push('\n');
}
