//! Measurements with targets: memory after the start, the cost of many queries in flight, the scaling to two
//! workers, the size of the binary, the time until the first answer, the second after a start, a flush and a
//! reload.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::common::client::{Plan, SOCKETS};
use crate::common::forwarder;
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, HEDGEROW};
use crate::common::responder::{Behavior, Responder};
use crate::common::spread::Spread;
use crate::first_second::FirstSeconds;
use crate::launch::Knocker;
use crate::machine::Machine;
use crate::subject::{self, Load};

/// The results of all rounds.
pub(crate) struct Limits {
    rounds: Vec<Round>,
    /// Queries a second while many are in flight.
    rate: f64,
}

/// The results of one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    /// A forwarder that has just started.
    start: Start,
    /// Few queries in flight.
    few: InFlight,
    /// Many queries in flight.
    many: InFlight,
    cached: Workers,
    /// Forwarding to one of two backends.
    forward: Workers,
    seconds: FirstSeconds,
    /// Bytes of the binary without symbols.
    binary: u64,
}

/// A forwarder without cache and zones that has answered once, with as many workers as it takes by itself.
#[derive(Clone, Copy, Debug, Serialize)]
struct Start {
    resident: u64,
    /// Seconds from the start to the answer.
    first_answer: f64,
}

/// So many queries in flight all the time.
#[derive(Clone, Copy, Debug, Serialize)]
struct InFlight {
    /// Queries in flight: the rate, times the latency that the client sees.
    in_flight: f64,
    /// Bytes of memory, without pages of files.
    memory: u64,
    /// CPU time for a million queries, in seconds.
    cpu_per_million: f64,
    /// Queries without a right answer, and wrong answers.
    faults: u64,
}

/// One worker and two, all programs free to use every core.
#[derive(Clone, Debug, Serialize)]
struct Workers {
    one: Load,
    two: Load,
}

impl Workers {
    /// How many times the queries two workers answer in the CPU time of two cores, to one worker in that of
    /// one core.
    fn scaling(&self) -> f64 {
        2.0 * self.one.cpu_per_million / self.two.cpu_per_million
    }
}

/// Queries a second while many are in flight, if nothing else is asked for.
const RATE: f64 = 50_000.0;
/// Queries that are sent at once meanwhile. Were each sent by itself, wake-ups and system calls for every
/// single one would cost more than all the rest, and hide what the memory costs.
const BURST: u32 = 64;
/// Many queries in flight.
const MANY: f64 = 100_000.0;
/// The number of queries in flight to compare with.
const FEW: f64 = 1_000.0;
/// Names that are asked for when all answers come from the cache.
const HOT_NAMES: u32 = 10_000;
/// Loads begin with numbers so far apart that no name comes twice.
const NAMES_OF_A_LOAD: u32 = 1 << 29;
/// How long the forwarder may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A row of the report: what, its target, the decimals, and the value of a round.
type Row = (&'static str, &'static str, usize, fn(&Round) -> f64);

/// The rows of the report.
const ROWS: [Row; 20] = [
    ("resident 2 s after start, no cache, no zones, MB", "≤ 9", 1, |round| round.start.resident as f64 / 1e6),
    ("queries in flight", "100000", 0, |round| round.many.in_flight),
    ("octets of memory for a query in flight", "≤ 360", 0, |Round { few, many, .. }| {
        (many.memory as f64 - few.memory as f64) / (many.in_flight - few.in_flight)
    }),
    ("CPU s per million, 100000 in flight", "", 2, |round| round.many.cpu_per_million),
    ("CPU s per million, 1000 in flight", "", 2, |round| round.few.cpu_per_million),
    ("CPU per query with 100000 in flight, to that with 1000", "≤ 1.3", 2, |round| {
        round.many.cpu_per_million / round.few.cpu_per_million
    }),
    ("lost or wrong, with 1000 and 100000 in flight", "0", 0, |round| (round.few.faults + round.many.faults) as f64),
    ("two workers to one, from the cache", "≥ 1.8", 2, |round| round.cached.scaling()),
    ("two workers to one, forwarding", "≥ 1.8", 2, |round| round.forward.scaling()),
    ("1000 queries/s of one worker, from the cache", "", 0, |round| round.cached.one.seen.rate / 1e3),
    ("1000 queries/s of two workers, from the cache", "", 0, |round| round.cached.two.seen.rate / 1e3),
    ("lost or wrong, with one worker and two", "0", 0, |round| {
        let loads = [&round.cached.one, &round.cached.two, &round.forward.one, &round.forward.two];
        loads.iter().map(|load| load.seen.lost + load.seen.wrong).sum::<u64>() as f64
    }),
    ("binary, stripped, MB", "< 12", 1, |round| round.binary as f64 / 1e6),
    ("start to first answer, ms", "< 30", 1, |round| round.start.first_answer * 1e3),
    ("p99 at 5000/s of a forwarder, µs", "", 0, |round| round.seconds.start.steady),
    ("the same in the first second after the start", "", 0, |round| round.seconds.start.first),
    ("p99 at 5000/s from the cache, µs", "", 0, |round| round.seconds.flush.steady),
    ("the same in the first second after a flush: all is forwarded", "", 0, |round| round.seconds.flush.first),
    ("p99 at 5000/s of an authority with 1000000 names, µs", "", 0, |round| round.seconds.reload.steady),
    ("the same in the first second after a reload of the zone", "", 0, |round| round.seconds.reload.first),
];

impl Limits {
    pub(crate) fn measure(
        rounds: u32,
        secs: f64,
        rate: Option<f64>,
        cores: Option<Cores>,
        folder: &Path,
    ) -> io::Result<Self> {
        let rate = rate.unwrap_or(RATE);
        let measure = |round| {
            eprintln!("round {round} of {rounds}");
            let workers = |rules| -> io::Result<Workers> {
                Ok(Workers { one: free_load(1, rules, secs, folder)?, two: free_load(2, rules, secs, folder)? })
            };
            Ok(Round {
                start: start(cores, folder)?,
                few: in_flight(FEW, rate, secs, cores, folder)?,
                many: in_flight(MANY, rate, secs, cores, folder)?,
                cached: workers(Rules::Cached)?,
                forward: workers(Rules::Sequential)?,
                seconds: FirstSeconds::measure(cores, folder)?,
                binary: stripped_size(folder)?,
            })
        };
        Ok(Self { rounds: (1..=rounds).map(measure).collect::<io::Result<_>>()?, rate })
    }

    /// The report in markdown.
    pub(crate) fn markdown(&self) -> String {
        let Self { rounds, rate } = self;
        let mut out =
            format!("Median (min–max) of {} rounds.\n\n| what | target | measured |\n|---|---|---|\n", rounds.len());
        for (what, target, decimals, value) in ROWS {
            let measured = Spread::of(rounds.iter().map(value).collect()).cell(decimals);
            let _ = writeln!(out, "| {what} | {target} | {measured} |");
        }
        let _ = writeln!(
            out,
            "\nIn flight: {rate} queries/s in bursts of {BURST} to a forwarder with one worker on a core of its own, `sequential`, before two \
             backends that hold each reply back for as long as it takes to have so many queries out; memory is compared \
             with that of 1000 in flight. Names take 22 octets; a query with one of over 35 takes some 200 octets more.\nTwo workers to one: twice the CPU time per query with one worker, divided by that \
             with two, in a closed loop with all programs free to use every core: what a second core would bring, were it \
             not shared with the client."
        );
        out
    }

    /// All that was measured as JSON.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        json!({ "machine": machine, "rate": self.rate, "rounds": self.rounds })
    }
}

/// The rules of a forwarder under a free load.
#[derive(Clone, Copy)]
enum Rules {
    /// All answers come from the cache.
    Cached,
    /// One backend is asked for each name, and none comes twice.
    Sequential,
}

/// A forwarder that has just started.
fn start(cores: Option<Cores>, folder: &Path) -> io::Result<Start> {
    let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
    let backends = [subject::responder(0, rest)?, subject::responder(0, rest)?];
    let knocker = Knocker::new(0, Lengths::Mixed)?;
    let config = forwarder::config(0, knocker.address, &backends.each_ref().map(|backend| backend.address), "");
    let launch = subject::launch_hedgerow(&config, folder)?;
    let (server, first_answer) = knocker.start(&launch, folder, core, START_TIMEOUT)?;
    // After one second the server gives back memory that only its start needed.
    thread::sleep(Duration::from_secs(2));
    Ok(Start { resident: server.memory()?.resident, first_answer: first_answer.as_secs_f64() })
}

/// A forwarder with so many queries in flight.
fn in_flight(count: f64, rate: f64, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<InFlight> {
    let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
    let prompt = Behavior { delay: 0, late_share: 0.0, late: 0, loss: 0.0, seed: 0 };
    let mut backends = [Responder::start(&prompt, rest)?, Responder::start(&prompt, rest)?];
    let knocker = Knocker::new(0, Lengths::Equal)?;
    let addresses = backends.each_ref().map(Responder::address);
    let launch = subject::launch_hedgerow(&forwarder::config(1, knocker.address, &addresses, PATIENT), folder)?;
    let (server, _) = knocker.start(&launch, folder, core, START_TIMEOUT)?;

    let delay = Duration::from_secs_f64(count / rate);
    backends.iter_mut().try_for_each(|backend| backend.set_delay(delay))?;
    let until_full = (delay.as_secs_f64() * 1.25).max(0.5);
    let plan = Plan {
        server: server.address,
        expect: Expect::Answer,
        secs: until_full + secs,
        rate: Some(rate),
        burst: BURST,
        first: 0,
        names: 0,
        lengths: Lengths::Equal,
        edns: false,
        timeout: delay.as_secs_f64() + 1.0,
        // Twice as many IDs as may be out.
        sockets: 2 * SOCKETS,
        slots: false,
    };
    let client = plan.start(rest)?;
    thread::sleep(Duration::from_secs_f64(until_full));
    // From now on one query ends whenever one begins.
    let mut forwarded = || -> io::Result<u64> {
        backends.iter_mut().map(|backend| backend.counts().map(|counts| counts.queries)).sum()
    };
    let (count_before, cpu_before) = (forwarded()?, server.cpu_time()?);
    thread::sleep(Duration::from_secs_f64(secs * 0.95));
    let (count, cpu) = (forwarded()? - count_before, server.cpu_time()? - cpu_before);
    let memory = server.memory()?.anonymous;
    let seen = client.finish()?;
    Ok(InFlight {
        in_flight: rate * seen.p50 / 1e6,
        memory,
        cpu_per_million: cpu.total().as_secs_f64() * 1e6 / count.max(1) as f64,
        faults: seen.lost + seen.wrong,
    })
}

/// The rules of a pool that waits for its backends longer than they hold replies back, and leaves them in
/// peace; and all may have as many waiting as are asked for.
const PATIENT: &str = r#"
dispatch = "sequential"
timeout = "1m"
attempt_timeout = "1m"
max_in_flight = 1000000
[pools.bench.health]
interval = "1h"
[forwarder.limits]
waiting = 100000
in_flight = 1000000
"#;

/// A closed loop on a forwarder, all programs free to use every core.
fn free_load(workers: u32, rules: Rules, secs: f64, folder: &Path) -> io::Result<Load> {
    let (ttl, names, rules) = match rules {
        Rules::Cached => (86_400, HOT_NAMES, "[cache]"),
        Rules::Sequential => (0, 0, "dispatch = \"sequential\""),
    };
    let backends = [subject::responder(ttl, None)?, subject::responder(ttl, None)?];
    let knocker = Knocker::new(names, Lengths::Mixed)?;
    let addresses = backends.each_ref().map(|backend| backend.address);
    let launch = subject::launch_hedgerow(&forwarder::config(workers, knocker.address, &addresses, rules), folder)?;
    let (server, _) = knocker.start(&launch, folder, None, START_TIMEOUT)?;
    let load = |turn: u32, secs| {
        let (server, first) = (server.address, turn * NAMES_OF_A_LOAD);
        Plan {
            server,
            expect: Expect::Answer,
            secs,
            rate: None,
            burst: 1,
            first,
            names,
            lengths: Lengths::Mixed,
            edns: false,
            timeout: 1.0,
            sockets: SOCKETS,
            slots: false,
        }
    };
    load(0, secs.min(1.0)).start(None)?.finish()?;
    Load::run(&load(1, secs), &server, None)
}

/// Bytes of a copy of the binary after `strip`.
fn stripped_size(folder: &Path) -> io::Result<u64> {
    let copy = folder.join("stripped");
    fs::copy(HEDGEROW, &copy)?;
    let status = Command::new("strip").arg(&copy).status();
    let status = status.map_err(|error| io::Error::other(format!("strip, of the package binutils: {error}")))?;
    if !status.success() {
        return Err(io::Error::other(format!("strip ended with {status}")));
    }
    Ok(fs::metadata(&copy)?.len())
}
