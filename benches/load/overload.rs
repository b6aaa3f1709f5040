//! A server that gets more queries than it can handle: goodput, latency of the answers, memory, and the time
//! until it has recovered.
//!
//! The client has one core and cannot send five times the rate of a server that answers from memory on
//! another core. So the server shares its core with [`SPINNERS`] programs that only burn time.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::common::client::{Plan, Running, SLOT, SOCKETS, Seen};
use crate::common::forwarder;
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Process};
use crate::common::spread::Spread;
use crate::launch::Knocker;
use crate::machine::Machine;
use crate::subject;

/// The results of all rounds, by subject.
pub(crate) struct Overload {
    /// Each round of each subject.
    subjects: Vec<(Subject, Vec<Round>)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Subject {
    /// A forwarder that has all answers in its cache.
    Cached,
    /// A forwarder that asks one of two backends for each.
    Forward,
}

/// The results of one subject in one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    /// The most that it answers, a second: a closed loop.
    peak: f64,
    /// The results at each of [`TIMES`].
    loads: Vec<Loaded>,
    /// Seconds after the last load until queries at a quarter of the peak are answered within [`NORMAL`]
    /// again.
    until_normal: f64,
    memory_after: u64,
}

/// A load in times of the peak.
#[derive(Clone, Debug, Serialize)]
struct Loaded {
    seen: Seen,
    /// Resident bytes at its end.
    memory: u64,
}

/// The loads as multiples of the peak.
const TIMES: [f64; 3] = [1.0, 2.0, 5.0];

/// Programs that share the server's core.
const SPINNERS: usize = 4;

/// The p99 latency where the only problem is that the server waits for its core.
const NORMAL: Duration = Duration::from_millis(50);

/// Names that are asked for when all answers come from the cache.
const HOT_NAMES: u32 = 10_000;

/// Silence after which a query is lost, in seconds.
const TIMEOUT: f64 = 2.0;

/// How long the forwarder may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Loads begin with numbers so far apart that no name comes twice.
const NAMES_OF_A_LOAD: u32 = 1 << 28;

impl Overload {
    pub(crate) fn measure(rounds: u32, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Self> {
        let mut subjects = vec![(Subject::Cached, Vec::new()), (Subject::Forward, Vec::new())];
        for round in 1..=rounds {
            for (subject, seen) in &mut subjects {
                let measured = measure(*subject, secs, cores, folder)?;
                let five = measured.loads.last().map_or(0.0, |load| load.goodput(secs) / measured.peak);
                eprintln!(
                    "round {round} of {rounds}: {subject:?}: peak {:.0}, {five:.2} of it at the most",
                    measured.peak
                );
                seen.push(measured);
            }
        }
        Ok(Self { subjects })
    }

    /// The report in markdown.
    pub(crate) fn markdown(&self, secs: f64) -> String {
        let mut out = String::from(
            "| what | load | goodput, share of the peak | p50 of what is answered, ms | p99, ms | resident, MB |\n|---|---|---|---|---|---|\n",
        );
        for (subject, rounds) in &self.subjects {
            for (number, times) in TIMES.iter().enumerate() {
                let cell = |decimals, value: &dyn Fn(&Round, &Loaded) -> f64| {
                    Spread::of(rounds.iter().map(|round| value(round, &round.loads[number])).collect()).cell(decimals)
                };
                let goodput = cell(2, &|round, load| load.goodput(secs) / round.peak);
                let p50 = cell(1, &|_, load| load.seen.answered_p50 / 1e3);
                let p99 = cell(1, &|_, load| load.seen.answered_p99 / 1e3);
                let memory = cell(1, &|_, load| load.memory as f64 / 1e6);
                let _ = writeln!(out, "| {subject:?} | {times} x | {goodput} | {p50} | {p99} | {memory} |");
            }
            let cell =
                |decimals, value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value).collect()).cell(decimals);
            let (peak, normal) = (cell(0, |round| round.peak), cell(1, |round| round.until_normal));
            let after = cell(1, |round| round.memory_after as f64 / 1e6);
            let _ = writeln!(out, "| {subject:?} | peak {peak} queries/s | normal after {normal} s | | | {after} |");
        }
        out
    }

    /// All that was measured as JSON.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        json!({ "machine": machine, "subjects": self.subjects, "spinners": SPINNERS })
    }
}

impl Loaded {
    /// Right answers to what was sent in so many seconds, a second.
    fn goodput(&self, secs: f64) -> f64 {
        self.seen.answered as f64 / secs
    }
}

/// Uses all the time that a core gives, until the program that has started this ends.
pub(crate) fn spin() -> io::Result<()> {
    println!("spinning");
    io::stdout().flush()?;
    loop {
        std::hint::spin_loop();
    }
}

/// One round of one subject.
fn measure(subject: Subject, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Round> {
    let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
    let (ttl, names, rules) = match subject {
        Subject::Cached => (86_400, HOT_NAMES, "[cache]"),
        Subject::Forward => (0, 0, "dispatch = \"sequential\""),
    };
    let backends = [subject::responder(ttl, rest)?, subject::responder(ttl, rest)?];
    let knocker = Knocker::new(names, Lengths::Mixed)?;
    let addresses = backends.each_ref().map(|backend| backend.address);
    let launch = subject::launch_hedgerow(&forwarder::config(1, knocker.address, &addresses, rules), folder)?;
    let (server, _) = knocker.start(&launch, folder, core, START_TIMEOUT)?;
    let _spinners = (0..SPINNERS).map(|_| Process::role(&["spin".to_owned()], core)).collect::<io::Result<Vec<_>>>()?;
    let mut turn = 0;
    let mut start = |secs: f64, rate: Option<f64>| {
        turn += 1;
        let plan = Plan {
            server: server.address,
            expect: Expect::Answer,
            secs,
            rate,
            burst: 1,
            first: turn * NAMES_OF_A_LOAD,
            names,
            lengths: Lengths::Mixed,
            edns: false,
            timeout: TIMEOUT,
            sockets: 2 * SOCKETS,
            slots: true,
        };
        plan.start(rest)
    };
    start(secs.min(1.0), None)?.finish()?;
    let peak = start(secs, None)?.finish()?.rate;
    let (mut loads, mut after) = (Vec::new(), None);
    for times in TIMES {
        let client = start(secs, Some(times * peak))?;
        thread::sleep(Duration::from_secs_f64(secs));
        let memory = server.memory()?.resident;
        if times == TIMES[TIMES.len() - 1] {
            // At once: the other client waits for answers still.
            after = Some(start(secs, Some(peak / 4.0))?);
        }
        loads.push(Loaded { seen: client.finish()?, memory });
    }
    let after = after.map(Running::finish).transpose()?;
    let late = after.and_then(|after| after.slots.iter().rposition(|p99| *p99 > NORMAL.as_micros() as f64));
    let until_normal = late.map_or(0.0, |slot| (slot + 1) as f64 * SLOT.as_secs_f64());
    Ok(Round { peak, loads, until_normal, memory_after: server.memory()?.resident })
}
