//! The report in markdown: what each server cost under each load, and what hedgerow by XDP costs beside the
//! echo, beside Knot DNS by XDP and beside itself by sockets.

use std::fmt::Write;

use super::row::{ASKED, Asked, By, Row, Who};
use super::{Loads, Setting, XdpResults};
use crate::common::client::{SOCKETS, WINDOW};
use crate::common::sample::{MAX_NOISE, Sample};
use crate::common::spread::Spread;

/// The share of queries that may be lost where figures are compared, because a server that answers less has
/// less work.
const MAX_LOST: f64 = 0.01;

/// Bytes that hedgerow may take more by XDP.
const MAX_MORE_RESIDENT: f64 = 40e6;

/// The cell of an unknown figure.
const NONE: &str = "–";

/// A load: its name, true if it is the same for all, and the function that finds its sample.
type Load = (&'static str, bool, fn(&Loads) -> Option<&Sample>);

/// All loads. In a closed loop a faster server gets more queries at once, and has larger batches: no goal
/// uses that load.
const LOADS: [Load; 3] = [
    ("kxdpgun", true, |loads| loads.gun.as_ref()),
    ("our client", true, |loads| Some(&loads.open)),
    ("our client, closed loop", false, |loads| Some(&loads.closed)),
];

impl XdpResults {
    pub(crate) fn markdown(&self) -> String {
        self.head() + &self.costs() + &self.goals() + &self.memory() + &self.remarks()
    }

    /// How it was measured, and whether the machine was quiet.
    fn head(&self) -> String {
        let Setting { cores, secs, rates, lengths } = self.setting;
        let [server, client] = self.noise().map(|busy| busy * 100.0);
        let mut out = format!(
            "veth pairs, AF_XDP in copy mode; server on core {}, all else on core {}. Median (min–max) of {} rounds of {secs} s each, names of \
             {} length{}. CPU: s of the server's core for a million right answers, interrupts too. kxdpgun and our client: {} queries/s, \
             forwarding {}. Closed loop: {WINDOW} outstanding over {SOCKETS} sockets. RSS after all loads.\n\n\
             While nothing was sent these cores were up to {server:.0} % and {client:.0} % busy with other things.\n",
            cores.server,
            cores.rest,
            self.rounds.len(),
            lengths.word(),
            if lengths.word() == "mixed" { "s" } else { "" },
            rates.others,
            rates.forward,
        );
        if !self.is_quiet() {
            out.push_str("Provisional: the machine was not quiet, and figures of cores mean little.\n");
        }
        out
    }

    /// How busy both cores were with other things at most.
    fn noise(&self) -> [f64; 2] {
        [0, 1].map(|core| self.rounds.iter().map(|round| round.noise[core]).fold(0.0, f64::max))
    }

    /// Returns true if the machine was nearly idle without the benchmark.
    fn is_quiet(&self) -> bool {
        self.noise().iter().all(|busy| *busy < MAX_NOISE)
    }

    /// Returns the cost of each server.
    fn costs(&self) -> String {
        let mut out = "\n| asked | server | kxdpgun: CPU | answered % | our client: CPU | answered % | p50 µs | closed loop: CPU | \
                       1000 answers/s | answered % | client's core busy % | RSS MB |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for &row in &self.rows {
            let samples: Vec<&Loads> = self.of(row).flatten().collect();
            if samples.is_empty() {
                continue;
            }
            let cell = |value: &dyn Fn(&Loads) -> Option<f64>, decimals| {
                let values: Option<Vec<f64>> = samples.iter().map(|loads| value(loads)).collect();
                values.map_or_else(|| NONE.to_owned(), |values| Spread::of(values).cell(decimals))
            };
            let answered = |(_, _, find): Load| {
                let text = cell(&|loads| Some((1.0 - find(loads)?.lost) * 100.0), 2);
                let is_much = samples.iter().filter_map(|loads| find(loads)).any(|sample| sample.lost > MAX_LOST);
                if is_much { format!("**{text}**") } else { text }
            };
            let cpu = |(_, _, find): Load| cell(&|loads| Some(find(loads)?.server_cpu), 2);
            let [gun, open, closed] = LOADS;
            let cells = [
                row.asked().name(),
                row.who().name().to_owned(),
                cpu(gun),
                answered(gun),
                cpu(open),
                answered(open),
                cell(&|loads| Some(loads.open.p50), 0),
                cpu(closed),
                cell(&|loads| Some(loads.closed.rate / 1e3), 0),
                answered(closed),
                cell(&|loads| Some(loads.open.client_busy * 100.0), 0),
                cell(&|loads| Some(loads.resident as f64 / 1e6), 1),
            ];
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out
    }

    /// hedgerow by XDP beside what it is to be compared with, round by round.
    fn goals(&self) -> String {
        let mut out =
            "\n| hedgerow by XDP | to | load | ratio of CPU | of its process alone | goal | |\n|---|---|---|---|---|---|---|\n".to_owned();
        for (asked, other, goal) in goals() {
            for (load, is_paced, find) in LOADS {
                let pairs = self.pairs(Row::of(asked, Who::Hedgerow(By::Xdp)), other);
                let pairs: Vec<(&Sample, &Sample)> =
                    pairs.filter_map(|(ours, theirs)| find(ours).zip(find(theirs))).collect();
                if pairs.is_empty() {
                    continue;
                }
                let ratio = |cpu: fn(&Sample) -> f64| {
                    Spread::of(pairs.iter().map(|(ours, theirs)| cpu(ours) / cpu(theirs)).collect())
                };
                let [core, process] = [ratio(|sample| sample.server_cpu), ratio(|sample| sample.process_cpu)];
                let is_lossy = pairs.iter().any(|(ours, theirs)| ours.lost.max(theirs.lost) > MAX_LOST);
                let verdict = match goal {
                    Some(_) if is_lossy => "more than 1 % lost",
                    Some(_) if is_paced && !self.is_quiet() => "provisional",
                    Some(goal) if is_paced => met(core.median() <= goal),
                    Some(_) | None => "",
                };
                let goal = goal.map_or_else(|| NONE.to_owned(), |goal| format!("≤ {goal}"));
                let cells = [&asked.name(), other.who().name(), load, &core.cell(2), &process.cell(2), &goal, verdict];
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
        }
        out
    }

    /// Returns the additional memory of hedgerow by XDP.
    fn memory(&self) -> String {
        let mut out =
            "\n| RSS of hedgerow, MB | by socket | by XDP | more by XDP | goal | |\n|---|---|---|---|---|---|\n"
                .to_owned();
        for asked in ASKED {
            let [socket, xdp] = [By::Socket, By::Xdp].map(|by| Row::of(asked, Who::Hedgerow(by)));
            let pairs: Vec<[f64; 2]> = self
                .pairs(socket, xdp)
                .map(|(socket, xdp)| [socket, xdp].map(|loads| loads.resident as f64 / 1e6))
                .collect();
            if pairs.is_empty() {
                continue;
            }
            let spread = |value: fn(&[f64; 2]) -> f64| Spread::of(pairs.iter().map(value).collect());
            let more = spread(|[socket, xdp]| xdp - socket);
            let goal = MAX_MORE_RESIDENT / 1e6;
            let cells = [
                asked.name(),
                spread(|[socket, _]| *socket).cell(1),
                spread(|[_, xdp]| *xdp).cell(1),
                more.cell(1),
                format!("≤ {goal}"),
                met(more.median() <= goal).to_owned(),
            ];
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out
    }

    /// Returns the remarks: subjects left out, failures, and loads with too many losses.
    fn remarks(&self) -> String {
        let mut lines: Vec<String> = self.left_out.iter().map(|what| format!("left out: {what}")).collect();
        for (number, round) in self.rounds.iter().enumerate() {
            for (row, outcome) in self.rows.iter().zip(&round.outcomes) {
                let place = format!("round {}, {}", number + 1, row.name());
                let loads = match outcome {
                    Ok(loads) => loads,
                    Err(why) => {
                        lines.push(format!("{place}: {why}"));
                        continue;
                    }
                };
                let rate = self.setting.rates.of(row.asked().scenario());
                for (load, is_paced, find) in LOADS {
                    let Some(sample) = find(loads) else { continue };
                    if sample.lost > MAX_LOST {
                        lines.push(format!("{place}, {load}: {:.2} % without a right answer", sample.lost * 100.0));
                    }
                    let meant = rate * self.setting.secs;
                    if is_paced && (sample.sent as f64) < meant * (1.0 - MAX_LOST) {
                        lines.push(format!("{place}, {load}: only {} queries were sent, not {meant:.0}", sample.sent));
                    }
                }
            }
        }
        match lines.is_empty() {
            true => "\nEvery load was answered, but for 1 % at most.\n".to_owned(),
            false => lines.iter().fold("\n".to_owned(), |out, line| out + "- " + line + "\n"),
        }
    }

    /// Returns the results of a row in each round; none if the row is not measured.
    fn of(&self, row: Row) -> impl Iterator<Item = Option<&Loads>> {
        let place = self.rows.iter().position(|&other| other == row);
        self.rounds.iter().map(move |round| round.outcomes.get(place?)?.as_ref().ok())
    }

    /// Returns the results of two rows in the rounds that have figures of both.
    fn pairs(&self, one: Row, other: Row) -> impl Iterator<Item = (&Loads, &Loads)> {
        self.of(one).zip(self.of(other)).filter_map(|(one, other)| one.zip(other))
    }
}

/// Returns the rows to compare hedgerow by XDP with, and the allowed ratio of the cost.
fn goals() -> Vec<(Asked, Row, Option<f64>)> {
    let of = |asked: Asked| {
        let echo = (Row::of(Asked::Echo, Who::Echo), Some(1.15));
        let knot = (Row::of(asked, Who::Knot(By::Xdp)), Some(0.95));
        let socket = |goal| (Row::of(asked, Who::Hedgerow(By::Socket)), goal);
        match asked {
            Asked::Echo => Vec::new(),
            Asked::Zone(_) => vec![echo, knot, socket(None)],
            Asked::Cached(_) => vec![echo, socket(None)],
            Asked::Forward => vec![socket(Some(0.7))],
            Asked::Race => vec![socket(None)],
        }
    };
    ASKED.into_iter().flat_map(|asked| of(asked).into_iter().map(move |(other, goal)| (asked, other, goal))).collect()
}

/// Returns the mark of a goal: met or not.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}
