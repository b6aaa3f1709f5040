//! What thousands of backends cost of which few answer: a query beside one with five backends, memory, the
//! start, `/metrics`, and a hundred that come and go each second.
//!
//! Four pools take turns within a round for each `balance`: five backends that all answer, 5,000 of which
//! five answer, a hundred that all answer, and 5,000 of which a hundred do. Pools are compared of which as
//! many answer: queries to a hundred servers leave by more calls than those to five, however many backends
//! are known.

mod changes;

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use self::changes::Changes;
use crate::admin::{self, Admin};
use crate::common::client::{Plan, SOCKETS, Seen};
use crate::common::forwarder;
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Server};
use crate::common::spread::Spread;
use crate::launch::{Knocker, Launch};
use crate::machine::Machine;
use crate::subject;
use crate::tool::nth_address;

/// The results of all rounds.
pub(crate) struct Crowd {
    rounds: Vec<Round>,
}

/// The results of one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    /// By [`BALANCES`] and [`POOLS`].
    balances: Vec<Vec<Sample>>,
    /// Members that come and go.
    changes: Changes,
}

/// One pool in one round.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    /// Seconds from the start to the first right answer.
    first_answer: f64,
    /// Seconds from the first answer until probes had found the answering backends.
    probed: f64,
    /// CPU time of the worker for a million answers, in seconds, in a closed loop.
    worker_cpu: f64,
    /// The time of the process, probes too.
    process_cpu: f64,
    /// Bytes in memory after that.
    resident: u64,
    metrics_octets: usize,
    /// Seconds that it took, the median of some.
    metrics_secs: f64,
    /// Queries without a right answer, and wrong answers.
    faults: u64,
}

/// A pool: how many backends it has, and how many of them answer.
#[derive(Clone, Copy)]
struct Members {
    all: u32,
    answering: u32,
}

/// The pools to compare: the first two with each other, and the last two; memory always with the first.
const POOLS: [Members; 4] = [
    Members { all: 5, answering: 5 },
    Members { all: MANY, answering: 5 },
    Members { all: 100, answering: 100 },
    Members { all: MANY, answering: 100 },
];

/// Backends of a large pool.
const MANY: u32 = 5_000;

/// The balance modes, and the allowed factor of the cost of a query among thousands of backends.
const BALANCES: [(&str, f64); 7] = [
    ("ordered", 1.3),
    ("round-robin", 1.3),
    ("random", 1.3),
    ("sticky", 1.3),
    ("hash", 1.5),
    ("least-load", 1.3),
    ("fastest", 1.3),
];

/// The other rules of a pool: no probes while the load runs, so that only queries cost.
const RULES: &str = "dispatch = \"sequential\"\ncookies = false\n[pools.bench.health]\ninterval = \"1h\"\n";

/// The maximum time for probes to find the answering backends.
const PROBING: Duration = Duration::from_secs(120);
/// How long a server may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether all is known.
const LOOK: Duration = Duration::from_millis(50);
/// The number of timed requests for `/metrics`.
const TIMED: usize = 5;
/// Loads begin with numbers so far apart that no name comes twice.
const NAMES_OF_A_LOAD: u32 = 1 << 29;

impl Crowd {
    pub(crate) fn measure(rounds: u32, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Self> {
        let measure = |round: u32| {
            let mut balances = Vec::new();
            for (balance, _) in BALANCES {
                let mut samples = Vec::new();
                // Each round begins with another pool.
                for turn in 0..POOLS.len() {
                    let place = (turn + round as usize) % POOLS.len();
                    let sample = POOLS[place].measure(balance, secs, cores, folder)?;
                    let (cpu, resident) = (sample.worker_cpu, sample.resident as f64 / 1e6);
                    let Members { all, answering } = POOLS[place];
                    eprintln!(
                        "round {} of {rounds}: {balance}, {answering} of {all}: {cpu:.2} s per million, {resident:.1} MB",
                        round + 1
                    );
                    samples.push((place, sample));
                }
                samples.sort_by_key(|(place, _)| *place);
                balances.push(samples.into_iter().map(|(_, sample)| sample).collect());
            }
            Ok(Round { balances, changes: Changes::measure(secs, cores, folder)? })
        };
        Ok(Self { rounds: (0..rounds).map(measure).collect::<io::Result<_>>()? })
    }

    /// The report in markdown.
    pub(crate) fn markdown(&self) -> String {
        let rounds = self.rounds.len();
        let mut out = format!(
            "Median (min–max) of {rounds} rounds. CPU: s of the worker for a million answers, closed loop, `sequential`.\n\n\
             | `balance` | CPU, 5 of 5 answer | 5 of {MANY} | times | 100 of 100 | 100 of {MANY} | times | target | MB more than 5 of 5, 5 of {MANY} | 100 of {MANY}, target 40 |\n\
             |---|---|---|---|---|---|---|---|---|---|\n"
        );
        for (place, (balance, target)) in BALANCES.iter().enumerate() {
            let cell = |decimals, value: &dyn Fn(&[Sample]) -> f64| self.spread(place, value).cell(decimals);
            let cpu = |pool: usize| cell(2, &|samples| samples[pool].worker_cpu);
            let times = |pool: usize, to: usize| cell(2, &|samples| samples[pool].worker_cpu / samples[to].worker_cpu);
            let more =
                |pool: usize| cell(1, &|samples| (samples[pool].resident as f64 - samples[0].resident as f64) / 1e6);
            let target = format!("≤ {target}");
            let cells = [cpu(0), cpu(1), times(1, 0), cpu(2), cpu(3), times(3, 2), target, more(1), more(3)];
            let _ = writeln!(out, "| `{balance}` | {} |", cells.join(" | "));
        }
        let pools = POOLS.map(|Members { all, answering }| format!("{answering} of {all} answer")).join(" | ");
        let _ = write!(out, "\nOf all `balance` together:\n\n| what | {pools} |\n|---|---|---|---|---|\n");
        for (what, decimals, value) in ROWS {
            let cells: Vec<_> = (0..POOLS.len()).map(|pool| self.spread_of_all(pool, value).cell(decimals)).collect();
            let _ = writeln!(out, "| {what} | {} |", cells.join(" | "));
        }
        let changes: Vec<_> = self.rounds.iter().map(|round| &round.changes).collect();
        out + &Changes::markdown(&changes)
    }

    /// A figure of a balance over all rounds.
    fn spread(&self, balance: usize, value: &dyn Fn(&[Sample]) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| value(&round.balances[balance])).collect())
    }

    /// A figure of a pool over all rounds and balances.
    fn spread_of_all(&self, pool: usize, value: fn(&Sample) -> f64) -> Spread {
        let samples = self.rounds.iter().flat_map(|round| &round.balances);
        Spread::of(samples.map(|samples| value(&samples[pool])).collect())
    }

    /// All that was measured as JSON.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        json!({ "machine": machine, "rounds": self.rounds })
    }
}

/// A row of the report: what, the decimals, and the value of a sample.
type Row = (&'static str, usize, fn(&Sample) -> f64);

/// The figures that do not depend on the balance.
const ROWS: [Row; 7] = [
    ("start to first answer, ms", 1, |sample| sample.first_answer * 1e3),
    ("from there until all were probed, s", 2, |sample| sample.probed),
    ("CPU of the process, s per million", 2, |sample| sample.process_cpu),
    ("resident, MB", 1, |sample| sample.resident as f64 / 1e6),
    ("`/metrics`, octets", 0, |sample| sample.metrics_octets as f64),
    ("`/metrics`, ms", 2, |sample| sample.metrics_secs * 1e3),
    ("lost or wrong", 0, |sample| sample.faults as f64),
];

impl Members {
    /// Loads a server that has this pool.
    fn measure(self, balance: &str, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Sample> {
        let running = Running::start(self, balance, 1, "warn", cores, folder)?;
        let Running { server, admin, first_answer, probed, .. } = &running;
        running.load(0, None, secs.min(1.0), cores)?;
        let (worker, process) = (worker_cpu(admin)?, server.cpu_time()?);
        let seen = running.load(1, None, secs, cores)?;
        let (worker, process) = (worker_cpu(admin)? - worker, server.cpu_time()? - process);
        let million = seen.answered.max(1) as f64 / 1e6;
        let resident = server.memory()?.resident;
        let mut times = Vec::new();
        let mut metrics_octets = 0;
        for _ in 0..TIMED {
            let asked = Instant::now();
            metrics_octets = admin.get("/metrics")?.len();
            times.push(asked.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(Sample {
            first_answer: first_answer.as_secs_f64(),
            probed: probed.as_secs_f64(),
            worker_cpu: worker / million,
            process_cpu: process.total().as_secs_f64() / million,
            resident,
            metrics_octets,
            metrics_secs: times[TIMED / 2],
            faults: seen.lost + seen.wrong,
        })
    }
}

/// A server with a pool, after its first probes.
struct Running {
    server: Server,
    admin: Admin,
    /// The time until the first answer.
    first_answer: Duration,
    /// The time until all backends were probed.
    probed: Duration,
    /// The backends, which end with the server.
    _backends: Server,
}

impl Running {
    /// Starts one with so many workers that logs at these levels.
    fn start(
        members: Members,
        balance: &str,
        workers: u32,
        log: &str,
        cores: Option<Cores>,
        folder: &Path,
    ) -> io::Result<Self> {
        let Members { all, answering } = members;
        let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
        let backends = subject::responders(answering, 0, false, rest)?;
        let port = backends.address.port();
        let there = (0..answering).map(|number| SocketAddr::from((nth_address(number), port)));
        // Mix the answering backends among the others.
        let mut addresses: Vec<_> = there.chain((answering..all).map(nobody)).collect();
        addresses.rotate_left(answering as usize / 2);
        let knocker = Knocker::new(0, Lengths::Mixed)?;
        let admin = Admin { address: admin::free_address()?, socket: folder.join("admin.sock") };
        let rules = format!("balance = \"{balance}\"\n{RULES}{}", admin.config());
        let config = forwarder::config(workers, knocker.address, &addresses, &rules);
        let Launch { program, mut arguments } = subject::launch_hedgerow(&config, folder)?;
        let with = ["--log-format", "json", "--log", log].map(Into::into);
        arguments.splice(..2, with);
        // Several workers are to run beside the thread that changes things.
        let core = core.filter(|_| workers == 1);
        let (server, first_answer) = knocker.start(&Launch { program, arguments }, folder, core, START_TIMEOUT)?;
        let began = Instant::now();
        while !is_probed(&admin, members)? {
            if began.elapsed() > PROBING {
                return Err(io::Error::other("probes do not find out who is there"));
            }
            thread::sleep(LOOK);
        }
        Ok(Self { server, admin, first_answer, probed: began.elapsed(), _backends: backends })
    }

    /// Loads it from a client, in a closed loop or at a rate.
    fn load(&self, turn: u32, rate: Option<f64>, secs: f64, cores: Option<Cores>) -> io::Result<Seen> {
        self.plan(turn, rate, secs).start(cores.map(|cores| cores.rest))?.finish()
    }

    /// A load of names that have not come before.
    fn plan(&self, turn: u32, rate: Option<f64>, secs: f64) -> Plan {
        Plan {
            server: self.server.address,
            expect: Expect::Answer,
            secs,
            rate,
            burst: 1,
            first: turn * NAMES_OF_A_LOAD,
            names: 0,
            lengths: Lengths::Mixed,
            edns: false,
            timeout: 1.0,
            sockets: SOCKETS,
            slots: false,
        }
    }
}

/// Returns an address of this host at which no server listens.
fn nobody(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x7F20_0000 + number)), DISCARD)
}

/// The port of a service that no machine has any more (RFC 863).
const DISCARD: u16 = 9;

/// Returns true if it is known of all backends whether they answer.
fn is_probed(admin: &Admin, Members { all, answering }: Members) -> io::Result<bool> {
    let metrics = admin.get("/metrics")?;
    let count = |state: &str| sum(&metrics, &format!("hedgerow_pool_backends{{pool=\"bench\",state=\"{state}\"}}"));
    Ok(count("up") == f64::from(answering) && count("down") == f64::from(all - answering))
}

/// CPU time of the workers, in seconds.
fn worker_cpu(admin: &Admin) -> io::Result<f64> {
    Ok(sum(&admin.get("/metrics")?, "hedgerow_worker_cpu_seconds_total{"))
}

/// Sums all series that begin with this text.
fn sum(metrics: &str, series: &str) -> f64 {
    let values = metrics.lines().filter(|line| line.starts_with(series));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
