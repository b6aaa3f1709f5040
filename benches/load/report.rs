//! The report of a run: medians over the rounds with their spread, as a markdown table and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::common::client::{SOCKETS, WINDOW};
use crate::common::spread::Spread;
use crate::machine::Machine;
use crate::subject::{Load, Sample, Strength, Subject};

/// All that was measured.
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// The rows, the one that the others are compared with first.
    pub(crate) subjects: Vec<Subject>,
    /// The outcome of each subject in each round.
    pub(crate) rounds: Vec<Vec<Outcome>>,
    /// The strength of the load.
    pub(crate) strength: Strength,
}

/// The outcome of a subject in a round: figures, or the reason why there are none.
pub(crate) type Outcome = Result<Sample, String>;

impl Results {
    /// The report in markdown.
    pub(crate) fn markdown(&self) -> String {
        let Self { machine, rounds, strength, .. } = self;
        let Strength { secs, counts_instructions, .. } = strength;
        let mut out = machine.markdown();
        let _ = writeln!(
            out,
            "\nMedian (min–max) of {} rounds, names of {lengths} length{opt}. Closed loop: {WINDOW} outstanding over {SOCKETS} sockets for \
             {secs} s, which gives CPU time (user and system, all processes of the server) and rate. Open loop, which gives latencies: {others} \
             queries/s for {secs} s, forwarding {forward}.\n",
            rounds.len(),
            lengths = strength.lengths.word(),
            opt = if strength.edns { ", queries with OPT" } else { "" },
            others = strength.rates.map_or(0.0, |rates| rates.others),
            forward = strength.rates.map_or(0.0, |rates| rates.forward),
        );
        let instructions = if *counts_instructions { " instructions per query |" } else { "" };
        let header = format!(
            "| asked | server | CPU s per million | to echo | of it user | 1000 queries/s | busy | p50 µs | p99 µs | \
             first answer ms | MB |{instructions}"
        );
        let _ = writeln!(out, "{header}\n|{}", "---|".repeat(header.matches('|').count() - 1));
        for (subject, samples) in self.rows() {
            if samples.is_empty() {
                continue;
            }
            let cell = |value: &dyn Fn(&Sample) -> Option<f64>, decimals| {
                let values: Option<Vec<f64>> = samples.iter().map(|(sample, _)| value(sample)).collect();
                values.map_or_else(|| "-".to_owned(), |values| Spread::of(values).cell(decimals))
            };
            // Each round has its own echo: what slows the machine for a while slows both.
            let cpu = |sample: &Sample| sample.closed.cpu_per_million;
            let ratios = samples.iter().map(|(sample, echo)| cpu(sample) / cpu(echo)).collect();
            let mut cells = vec![
                subject.scenario.name(),
                subject.answerer(),
                cell(&|sample| Some(cpu(sample)), 2),
                Spread::of(ratios).cell(2),
                cell(&|sample| Some(sample.closed.user_share * 100.0), 0) + " %",
                cell(&|sample| Some(sample.closed.seen.rate / 1e3), 0),
                cell(&|sample| Some(sample.closed.busy), 2),
                cell(&|sample| Some(sample.open.seen.p50), 0),
                cell(&|sample| Some(sample.open.seen.p99), 0),
                cell(&|sample| sample.first_answer.map(|secs| secs * 1e3), 0),
                cell(&|sample| Some(sample.memory as f64 / 1e6), 1),
            ];
            if *counts_instructions {
                cells.push(cell(&|sample| sample.instructions, 0));
            }
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push_str(
            "\nWhere the server was busy well below 1, the other core or another program was the limit: compare CPU time \
             there, not rates. Memory: proportional set size after the loads.\n",
        );
        if !counts_instructions {
            out.push_str(
                "This machine does not count instructions (`perf stat -e instructions:u`): for those of the hot functions see \
                 `cargo bench --bench instructions`.\n",
            );
        }
        out.push('\n');
        match self.faults() {
            faults if faults.is_empty() => out.push_str("Every query got its right answer.\n"),
            faults => out.push_str(&faults),
        }
        out
    }

    /// Each subject with its samples and the echo's of the same rounds.
    fn rows(&self) -> impl Iterator<Item = (Subject, Vec<(&Sample, &Sample)>)> {
        self.subjects.iter().enumerate().map(|(index, &subject)| {
            let samples = self.rounds.iter().filter_map(|round| round[index].as_ref().ok().zip(round[0].as_ref().ok()));
            (subject, samples.collect())
        })
    }

    /// Returns the samples of two subjects in the rounds that have figures of both.
    pub(crate) fn pairs(&self, one: Subject, other: Subject) -> impl Iterator<Item = (&Sample, &Sample)> {
        let index_of = |subject| self.subjects.iter().position(|&row| row == subject);
        let indices = index_of(one).zip(index_of(other));
        self.rounds.iter().filter_map(move |round| {
            let (one, other) = indices?;
            round[one].as_ref().ok().zip(round[other].as_ref().ok())
        })
    }

    /// Returns a line for each server that did not start and each load with lost queries or wrong responses.
    fn faults(&self) -> String {
        let mut faults = String::new();
        for (round, outcomes) in self.rounds.iter().enumerate() {
            for (subject, outcome) in self.subjects.iter().zip(outcomes) {
                let place = format!("- round {}, {}", round + 1, subject.name());
                match outcome {
                    Err(reason) => {
                        let _ = writeln!(faults, "{place}: {reason}");
                    }
                    Ok(sample) => {
                        for (kind, Load { seen, .. }) in [("closed", &sample.closed), ("open", &sample.open)] {
                            let (lost, wrong, sent) = (seen.lost, seen.wrong, seen.sent);
                            if lost + wrong > 0 {
                                let _ = writeln!(faults, "{place}, {kind}: {lost} lost, {wrong} wrong of {sent}");
                            }
                        }
                    }
                }
            }
        }
        faults
    }

    /// All samples as JSON.
    pub(crate) fn json(&self) -> Value {
        let Self { machine, subjects, rounds, strength: Strength { secs, rates, lengths, .. } } = self;
        let subjects: Vec<Value> = subjects
            .iter()
            .enumerate()
            .map(|(index, subject)| {
                let rounds: Vec<_> = rounds.iter().map(|round| round[index].as_ref().ok()).collect();
                json!({ "asked": subject.scenario.name(), "server": subject.answerer(), "rounds": rounds })
            })
            .collect();
        json!({
            "machine": machine,
            "window": WINDOW,
            "lengths": lengths.word(),
            "secs": secs,
            "rates": rates,
            "subjects": subjects,
        })
    }
}
