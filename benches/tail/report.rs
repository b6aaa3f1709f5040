//! The report of a run: a markdown table for each fault, medians over the rounds with their spread, and all
//! as JSON.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use serde_json::json;

use crate::common::encrypted::Way;
use crate::common::spread::Spread;
use crate::fault::{Event, Fault};
use crate::policy::Policy;
use crate::sample::{Sample, Settled, Strength};

/// The report in markdown.
pub(crate) fn markdown(
    samples: &[Sample],
    faults: &[Fault],
    policies: &[Policy],
    ways: &[Way],
    strength: Strength,
) -> String {
    let Strength { secs, rate, workers } = strength;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "Two backends, workers: {workers}, open loop, {rate} queries/s, {secs} s, names never repeat, no client retries, a lost query costs \
         5,000 ms; times in ms, median (min–max) of the rounds. Wrong: SERVFAIL and the like, lost all the same. \
         Traffic: queries to backends for each query of the client, probes included."
    );
    for &fault in faults {
        let _ = writeln!(out, "\n**{}**\n", fault.title());
        table(&mut out, samples, fault, policies, ways);
        if fault == Fault::Calm {
            let lateness = samples.iter().filter(|sample| sample.fault == fault).map(|sample| sample.lateness);
            let lateness = Spread::of(lateness.collect()).cell(0);
            let _ =
                writeln!(out, "\nReplies left {lateness} µs after they were due at p99.9: the measurement's own part.");
        }
    }
    out
}

/// The table of one fault.
fn table(out: &mut String, samples: &[Sample], fault: Fault, policies: &[Policy], ways: &[Way]) {
    let shifts = matches!(fault.event(), Event::Shift(_));
    let mut header = "| policy | p50 | p99 | p99.9 | max | lost | wrong | traffic | CPU s per million |".to_owned();
    if shifts {
        header.push_str(" traffic, worst second | slow: p99 | settled after s | fast: p99 | settled after s |");
    }
    let columns = header.matches('|').count() - 1;
    let _ = writeln!(out, "{header}\n|{}", "---|".repeat(columns));
    for (&policy, &way) in policies.iter().flat_map(|policy| ways.iter().map(move |way| (policy, way))) {
        let is_of_row = |sample: &&Sample| sample.fault == fault && sample.policy == policy && sample.way == way;
        let of_policy: Vec<&Sample> = samples.iter().filter(is_of_row).collect();
        if of_policy.is_empty() {
            continue;
        }
        let cell = |decimals, value: &dyn Fn(&Sample) -> f64| {
            Spread::of(of_policy.iter().map(|sample| value(sample)).collect()).cell(decimals)
        };
        let mut cells = vec![
            cell(2, &|sample| sample.seen.p50 / 1e3),
            cell(2, &|sample| sample.seen.p99 / 1e3),
            cell(2, &|sample| sample.seen.p999 / 1e3),
            cell(1, &|sample| sample.seen.max / 1e3),
            cell(0, &|sample| sample.seen.lost as f64),
            cell(0, &|sample| sample.seen.wrong as f64),
            cell(3, &|sample| sample.traffic),
            cell(1, &|sample| sample.cpu_per_million),
        ];
        if shifts {
            cells.push(known(of_policy.iter().map(|sample| sample.worst_second), 3));
            let phases: [fn(&Sample) -> Option<Settled>; 2] = [|sample| sample.slow, |sample| sample.fast];
            for phase in phases {
                let settled = || of_policy.iter().map(|sample| phase(sample));
                cells.push(known(settled().map(|settled| Some(settled?.p99 / 1e3)), 2));
                cells.push(known(settled().map(|settled| settled?.after), 1));
            }
        }
        let by = if ways == [Way::Bare] { String::new() } else { format!(", by {}", way.name()) };
        let _ = writeln!(out, "| {}{by} | {} |", policy.name(), cells.join(" | "));
    }
}

/// The spread of what every round has; `-` if one has not.
fn known(values: impl Iterator<Item = Option<f64>>, decimals: usize) -> String {
    let values: Option<Vec<f64>> = values.collect();
    values.map_or_else(|| "-".to_owned(), |values| Spread::of(values).cell(decimals))
}

/// Writes all samples as JSON.
pub(crate) fn write_json(file: &Path, samples: &[Sample], strength: Strength) -> io::Result<()> {
    fs::write(file, format!("{:#}\n", json!({ "strength": strength, "samples": samples })))
}
