//! Members that come and go, a hundred each second, among thousands: how long a worker stops for each new
//! state of the pool, and the effect on clients.
//!
//! The worker logs two times: the elapsed time, which includes other programs on the processor, and the
//! worker's processor time. Only the second is comparable between runs on a machine with two cores.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::{MANY, Members, Running, nobody};
use crate::common::client::Seen;
use crate::common::process::Cores;
use crate::common::spread::Spread;
use crate::launch::LOG;

/// The results of one round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Changes {
    quiet: Seen,
    changing: Seen,
    /// Changes made in a second.
    rate: f64,
    /// The duration of each change for the client that requested it, in seconds, sorted.
    times: Vec<f64>,
    /// How often a worker took another state, or what is new of the health of backends: microseconds by the
    /// clock, in order of that.
    stalls: Vec<f64>,
    /// The stalls measured in processor time of the worker.
    work: Vec<f64>,
}

/// Queries a second meanwhile.
const RATE: f64 = 5_000.0;
/// The interval between two changes of members.
const GAP: Duration = Duration::from_millis(10);
/// Members that come and go by turns.
const COMING: u32 = 50;
/// The log levels that the benchmark needs.
const LEVELS: &str = "warn,hedgerow::worker=debug";

impl Changes {
    /// Loads a server without changes, and then with them.
    pub(super) fn measure(secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Self> {
        let members = Members { all: MANY, answering: 100 };
        let running = Running::start(members, "least-load", 2, LEVELS, cores, folder)?;
        running.load(0, Some(RATE), secs.min(1.0), cores)?;
        let quiet = running.load(1, Some(RATE), secs, cores)?;
        let logged = fs::read_to_string(folder.join(LOG))?.len();
        let client = running.plan(2, Some(RATE), secs).start(cores.map(|cores| cores.rest))?;
        let (began, mut made, mut times) = (Instant::now(), 0, Vec::new());
        while began.elapsed().as_secs_f64() < secs {
            let asked = Instant::now();
            running.change(made)?;
            times.push(asked.elapsed().as_secs_f64());
            made += 1;
            thread::sleep((began + GAP * made).saturating_duration_since(Instant::now()));
        }
        let rate = f64::from(made) / began.elapsed().as_secs_f64();
        let changing = client.finish()?;
        let log = fs::read_to_string(folder.join(LOG))?;
        let lines = log.get(logged..).unwrap_or_default().lines();
        let said: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        let figures = |field: &str| sorted(said.iter().filter_map(|line| line["fields"][field].as_f64()).collect());
        let (stalls, work) = (figures("took_us"), figures("cpu_us"));
        Ok(Self { quiet, changing, rate, times: sorted(times), stalls, work })
    }

    /// The report of all rounds in markdown.
    pub(super) fn markdown(rounds: &[&Self]) -> String {
        let mut out = format!(
            "\n{COMING} members come and go among {MANY} of which 100 answer, one each {} ms, at {RATE} queries a second, two workers:\n\n\
             | what | target | measured |\n|---|---|---|\n",
            GAP.as_millis()
        );
        for (what, target, decimals, value) in ROWS {
            let measured = Spread::of(rounds.iter().map(|round| value(round)).collect()).cell(decimals);
            let _ = writeln!(out, "| {what} | {target} | {measured} |");
        }
        out
    }
}

impl Running {
    /// Has a member come or go.
    fn change(&self, number: u32) -> io::Result<()> {
        let backends = "/api/v1/pools/bench/backends";
        // Each comes before it goes.
        let backend = nobody(MANY + number / 2 % COMING);
        match number % 2 {
            0 => self.admin.change("POST", backends, &format!("{{\"address\": \"{backend}\"}}")),
            _ => self.admin.change("DELETE", &format!("{backends}/{backend}"), ""),
        }
    }
}

/// A row of the report: what, its target, the decimals, and the value of a round.
type Row = (&'static str, &'static str, usize, fn(&Changes) -> f64);

/// The rows of the report.
const ROWS: [Row; 12] = [
    ("changes made in a second", "100", 0, |round| round.rate),
    ("one change as `ctl` sees it, ms, median", "", 2, |round| at(&round.times, 0.5) * 1e3),
    ("the longest, ms", "", 2, |round| at(&round.times, 1.0) * 1e3),
    ("a worker's own time for one, µs, median", "", 0, |round| at(&round.work, 0.5)),
    ("p99, µs", "", 0, |round| at(&round.work, 0.99)),
    ("the longest, µs", "≤ 1000", 0, |round| at(&round.work, 1.0)),
    ("the same by the clock, µs, median", "", 0, |round| at(&round.stalls, 0.5)),
    ("p99, µs", "", 0, |round| at(&round.stalls, 0.99)),
    ("the longest, µs", "≤ 1000", 0, |round| at(&round.stalls, 1.0)),
    ("p99.9 of a client, ms", "", 2, |round| round.changing.p999 / 1e3),
    ("the same without changes, ms", "", 2, |round| round.quiet.p999 / 1e3),
    ("lost or wrong", "0", 0, |round| (round.changing.lost + round.changing.wrong) as f64),
];

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// The figure at this part (0.0 to 1.0) of them.
fn at(figures: &[f64], part: f64) -> f64 {
    let last = figures.len().saturating_sub(1) as f64;
    figures.get((last * part).round() as usize).copied().unwrap_or(f64::NAN)
}
