//! What it costs that backends are replicas: asking for the versions of their zones, and comparing what they
//! say. All queries have an OPT record, without which none is asked for a version.

use std::fmt::Write;

use crate::common::spread::Spread;
use crate::report::Results;
use crate::subject::{Answerer, Dispatch, Sample, Scenario, Subject};

/// The use that is made of backends being replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Backends not configured as replicas.
    Nothing,
    /// Replicas with queries for the versions of their zones.
    Versions,
    /// All that they say is compared besides.
    Compared,
}

impl Knowledge {
    /// All of it, from the least to the most.
    const ALL: [Self; 3] = [Self::Nothing, Self::Versions, Self::Compared];

    /// Returns the suffix of the name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Versions => ", replicas",
            Self::Compared => ", replicas, compare = 1",
        }
    }

    /// Lines of the pool's config.
    pub(crate) fn config(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Versions => "replicas = true\n",
            Self::Compared => "replicas = true\ncompare = 1.0\n",
        }
    }
}

/// The subjects: where one backend is asked, and where both are, each with nothing known of replicas,
/// versions, and comparing.
pub(crate) fn subjects(echo: Subject) -> Vec<Subject> {
    let of = |dispatch| Knowledge::ALL.map(|knowledge| subject(dispatch, knowledge));
    [echo].into_iter().chain(of(Dispatch::Sequential)).chain(of(Dispatch::Race)).collect()
}

/// A forwarder whose backends are replicas.
fn subject(dispatch: Dispatch, knowledge: Knowledge) -> Subject {
    Subject { scenario: Scenario::Forward, answerer: Answerer::Replicas(dispatch, knowledge) }
}

/// Returns the cost of each beside the run without replicas, round by round.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out =
        "\n| server | CPU to the same without | instructions to the same without |\n|---|---|---|\n".to_owned();
    for &row in &results.subjects {
        let Answerer::Replicas(dispatch, knowledge) = row.answerer else { continue };
        if knowledge == Knowledge::Nothing {
            continue;
        }
        let base = subject(dispatch, Knowledge::Nothing);
        let cell = |value: &dyn Fn(&Sample) -> Option<f64>| {
            let ratio = |(sample, base): (&Sample, &Sample)| Some(value(sample)? / value(base)?);
            let ratios: Vec<f64> = results.pairs(row, base).filter_map(ratio).collect();
            if ratios.is_empty() { "-".to_owned() } else { Spread::of(ratios).cell(3) }
        };
        let cpu = cell(&|sample| Some(sample.closed.cpu_per_million));
        let instructions = cell(&|sample| sample.instructions);
        let _ = writeln!(out, "| {} | {cpu} | {instructions} |", row.answerer());
    }
    out
}
