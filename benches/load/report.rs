//! The report of a run: medians over the rounds with their spread, as two markdown tables and as JSON.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use serde_json::json;

use crate::common::spread::Spread;
use crate::subject::{Load, Sample, Strength, Subject};

/// The samples of one round, in the order of the subjects.
pub(crate) type Round = Vec<Sample>;

/// The report in markdown.
pub(crate) fn markdown(subjects: &[Subject], rounds: &[Round], window: usize, strength: Strength) -> String {
    let mut out = String::new();
    let Strength { secs, rate } = strength;
    let count = rounds.len();
    let _ = writeln!(out, "Closed loop, {window} outstanding, {secs} s; median (min–max) of {count} rounds\n");
    let header = "| subject | 1000 queries/s | rate to echo | CPU s per million | CPU to echo | server busy |";
    let _ = writeln!(out, "{header}\n|---|---|---|---|---|---|");
    for (index, subject) in subjects.iter().enumerate() {
        let spread = |value: &dyn Fn(&Load) -> f64| Spread::of(values(rounds, index, |sample| value(&sample.closed)));
        // Each round has its own echo: what slows the machine for a while slows both.
        let ratio = |value: &dyn Fn(&Load) -> f64| {
            let to_echo = |round: &Round| value(&round[index].closed) / value(&round[0].closed);
            Spread::of(rounds.iter().map(to_echo).collect())
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            subject.name(),
            spread(&|load| load.seen.rate / 1e3).cell(1),
            ratio(&|load| load.seen.rate).cell(2),
            spread(&|load| load.cpu_per_million).cell(2),
            ratio(&|load| load.cpu_per_million).cell(2),
            spread(&|load| load.busy).cell(2),
        );
    }

    out.push_str("\nWhere the server was busy well below 1, the other core or another program was the limit: ");
    out.push_str("compare CPU time there, not rates.\n");

    let _ =
        writeln!(out, "\nOpen loop, {rate} queries/s, {secs} s; microseconds, median (min–max) of {count} rounds\n");
    let header = "| subject | p50 | p90 | p99 | p99.9 | max | CPU s per million |";
    let _ = writeln!(out, "{header}\n|---|---|---|---|---|---|---|");
    for (index, subject) in subjects.iter().enumerate() {
        let cell = |value: &dyn Fn(&Load) -> f64, decimals| {
            Spread::of(values(rounds, index, |sample| value(&sample.open))).cell(decimals)
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            subject.name(),
            cell(&|load| load.seen.p50, 0),
            cell(&|load| load.seen.p90, 0),
            cell(&|load| load.seen.p99, 0),
            cell(&|load| load.seen.p999, 0),
            cell(&|load| load.seen.max, 0),
            cell(&|load| load.cpu_per_million, 2),
        );
    }

    out.push('\n');
    match faults(subjects, rounds) {
        faults if faults.is_empty() => out.push_str("Every query got its right answer.\n"),
        faults => out.push_str(&faults),
    }
    out
}

/// What went wrong: a line for each load with lost queries or wrong responses.
fn faults(subjects: &[Subject], rounds: &[Round]) -> String {
    let mut faults = String::new();
    for (round, samples) in rounds.iter().enumerate() {
        for (subject, sample) in subjects.iter().zip(samples) {
            for (kind, load) in [("closed", &sample.closed), ("open", &sample.open)] {
                let (lost, wrong, sent) = (load.seen.lost, load.seen.wrong, load.seen.sent);
                if lost + wrong > 0 {
                    let name = subject.name();
                    let round = round + 1;
                    let _ = writeln!(faults, "- round {round}, {name}, {kind}: {lost} lost, {wrong} wrong of {sent}");
                }
            }
        }
    }
    faults
}

/// Writes all samples as JSON, a list of rounds for each subject.
pub(crate) fn write_json(
    file: &Path,
    subjects: &[Subject],
    rounds: &[Round],
    window: usize,
    strength: Strength,
) -> io::Result<()> {
    let subjects: serde_json::Map<_, _> = subjects
        .iter()
        .enumerate()
        .map(|(index, subject)| (subject.name(), json!(rounds.iter().map(|round| &round[index]).collect::<Vec<_>>())))
        .collect();
    let all = json!({ "window": window, "strength": strength, "subjects": subjects });
    fs::write(file, format!("{all:#}\n"))
}

/// One figure of one subject in every round.
fn values(rounds: &[Round], index: usize, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    rounds.iter().map(|round| value(&round[index])).collect()
}
