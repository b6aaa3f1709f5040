//! The report in markdown: a table for each placement, and what decides.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::common::sample::{MAX_NOISE, Sample};
use crate::common::spread::Spread;
use crate::common::veth::Placement;
use crate::sample::{Loads, PLACEMENTS, Round, SHARES, SUBJECTS, Setting};

/// An echo by XDP that costs more than this of what the socket echo costs leaves too little to win.
const BOUND: f64 = 0.6;

/// The share of queries that may be lost where figures are compared.
const MAX_LOST: f64 = 0.05;

/// The cell of an unknown figure.
const NONE: &str = "–";

/// A load of a report: its name, and where it stands.
type Load = (String, fn(&Loads, usize) -> Option<&Sample>, usize);

/// All that the rounds have shown.
pub(crate) fn markdown(rounds: &[Round], setting: Setting) -> String {
    let mut out = head(rounds, setting);
    let mut least = [f64::INFINITY; 3];
    for (number, placement) in PLACEMENTS.into_iter().enumerate() {
        let _ = write!(out, "\n{}\n\n{COLUMNS}", heading(placement, setting));
        for (name, find, place) in loads() {
            for (index, subject) in SUBJECTS.into_iter().enumerate() {
                // Each beside the socket of the same round.
                let pairs: Vec<(&Sample, &Sample)> = rounds
                    .iter()
                    .filter_map(|round| {
                        let subjects = &round.placements[number];
                        Some((find(&subjects[index], place)?, find(&subjects[0], place)?))
                    })
                    .collect();
                if pairs.is_empty() {
                    continue;
                }
                let spread = |value: &dyn Fn(&Sample, &Sample) -> f64| {
                    Spread::of(pairs.iter().map(|(sample, socket)| value(sample, socket)).collect())
                };
                let ratio = |cpu: fn(&Sample) -> f64| spread(&|sample, socket| cpu(sample) / cpu(socket));
                let ratios = [
                    ratio(|sample| sample.server_cpu),
                    ratio(|sample| sample.process_cpu),
                    ratio(|sample| sample.both_cpu),
                ];
                if subject.is_xdp() && is_paced(&name) && is_answered(&pairs) {
                    for (cpu, (least, ratio)) in least.iter_mut().zip(&ratios).enumerate() {
                        if cpu != 1 || placement == Placement::Sender {
                            *least = least.min(ratio.median());
                        }
                    }
                }
                let median = |decimals: usize, value: fn(&Sample) -> f64| {
                    format!("{:.decimals$}", spread(&|sample, _| value(sample)).median())
                };
                let process = |cell| if placement == Placement::Sender { cell } else { NONE.to_owned() };
                let cells = [
                    name.clone(),
                    subject.name().to_owned(),
                    median(0, |sample| sample.rate / 1e3),
                    spread(&|sample, _| sample.server_cpu).cell(2),
                    ratios[0].cell(2),
                    process(median(2, |sample| sample.process_cpu)),
                    process(ratios[1].cell(2)),
                    median(2, |sample| sample.both_cpu),
                    ratios[2].cell(2),
                    median(0, |sample| sample.client_busy * 100.0),
                    median(2, |sample| sample.lost * 100.0),
                    if spread(&|sample, _| sample.p50).median() > 0.0 {
                        median(0, |sample| sample.p50)
                    } else {
                        NONE.to_owned()
                    },
                ];
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
        }
    }
    let [core, process, both] = least;
    // With other work on the machine only the process says something.
    let judged = if is_quiet(rounds) { core } else { process };
    let verdict = if judged > BOUND { "not worth building" } else { "worth building" };
    let _ = writeln!(
        out,
        "\nXDP to the socket at its best, over all loads at a given rate of which nearly all was answered: {core:.2} of the echo's core, {process:.2} of its process, {both:.2} of both cores; {verdict} by the rule of {BOUND}."
    );
    out
}

/// The columns of each table.
const COLUMNS: &str = "\
| load | echo | 1000 replies/s | CPU of its core, s per million | to the socket | of its process | to the socket | of both cores | to the socket | client's core busy, % | lost, % | p50, µs |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// Returns the description of the machine, with a remark if it was not quiet.
fn head(rounds: &[Round], setting: Setting) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit =
        Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let mut out = format!(
        "{}, cores {} (echo) and {} (client), Linux {}, veth, AF_XDP in copy mode; commit {commit}\n\n\
         Median (min–max) of {} rounds of {} s each; names of {} length{}.\n",
        model.map_or("unknown CPU", |(_, model)| model),
        setting.cores.server,
        setting.cores.rest,
        kernel.trim(),
        rounds.len(),
        setting.secs,
        setting.lengths.word(),
        if setting.lengths.word() == "mixed" { "s" } else { "" },
    );
    let [server, client] = noise(rounds).map(|busy| busy * 100.0);
    let _ = writeln!(
        out,
        "\nWhile nothing was sent these cores were up to {server:.0} % and {client:.0} % busy with other things."
    );
    if !is_quiet(rounds) {
        let _ = writeln!(out, "Provisional: the machine was not quiet, and figures of cores mean little.");
    }
    out
}

/// How busy both cores were with other things at most.
fn noise(rounds: &[Round]) -> [f64; 2] {
    [0, 1].map(|core| Spread::of(rounds.iter().map(|round| round.noise[core]).collect()).max())
}

/// Returns true if the machine was nearly idle without the benchmark.
fn is_quiet(rounds: &[Round]) -> bool {
    noise(rounds).iter().all(|busy| *busy < MAX_NOISE)
}

/// Returns the heading of a table.
fn heading(placement: Placement, setting: Setting) -> String {
    let (server, client) = (setting.cores.server, setting.cores.rest);
    match placement {
        Placement::Sender => format!(
            "What arrives is paid for by the core of its sender, as a veth pair does by itself: queries up to the echo by core {client}, echoes up to the client's socket by core {server}."
        ),
        Placement::Receiver => format!(
            "What arrives is paid for by the core of its receiver (RPS, and a NAPI thread for native XDP): queries by core {server}, echoes by core {client}."
        ),
    }
}

/// Returns true if a load is the same for all: in a closed loop, a faster subject has larger batches.
fn is_paced(load: &str) -> bool {
    load != CLOSED
}

/// Returns true if both subjects have answered nearly all queries: a subject that loses queries has larger
/// batches.
fn is_answered(pairs: &[(&Sample, &Sample)]) -> bool {
    let lost = |sample: &Sample| sample.lost > MAX_LOST;
    !pairs.iter().any(|(sample, socket)| lost(sample) || lost(socket))
}

/// The load that is not.
const CLOSED: &str = "closed loop";

/// The loads of a table.
fn loads() -> Vec<Load> {
    let mut loads: Vec<Load> = vec![(CLOSED.to_owned(), |loads, _| Some(&loads.closed), 0)];
    for (place, share) in SHARES.into_iter().enumerate() {
        loads.push((format!("{:.0} %", share * 100.0), |loads, place| loads.open.get(place), place));
    }
    for (place, share) in SHARES.into_iter().enumerate() {
        loads.push((format!("kxdpgun, {:.0} %", share * 100.0), |loads, place| loads.gun.get(place), place));
    }
    loads
}
