//! A load run over loopback: `cargo bench --bench load`, options behind `--`, see `--help`.
//!
//! The release binary answers as authority and as forwarder (from its cache, and in each dispatch, before two
//! fixed responders), beside the peers that are installed, and beside a bare batched UDP echo that shows the
//! cost of moving the datagrams on this machine. Each is a separate process on a separate core, started
//! afresh in every round; subjects take turns within a round, so that drift of the machine is shared. First a
//! closed loop for the rate and the CPU time, then an open loop for the latencies. On loopback the sender of
//! a datagram also pays for the receiver's part of the kernel; that is so for all subjects. On a machine that
//! cannot be kept quiet, start the built program through `chrt -f 10`, as root.
//!
//! - `--overload` measures a server that gets more queries than it can handle. Not through `chrt`: programs
//!   with ordinary scheduling share its core, and would never get it.
//! - `--crowd` measures the cost of thousands of backends beside five.
//! - `--encrypted` measures listeners and backends by TLS, HTTPS and QUIC, beside dnsdist and beside each
//!   other. It needs dnsperf, h2load, openssl and dnsdist, and beside them chrt and the rights for it.
//! - `--watched` measures the cost of history, pages, query log and dnstap beside none of them.
//! - `--xdp` measures servers by sockets and by XDP over veth pairs, with all time of the server's core. It
//!   needs root, iproute2 and util-linux; Knot DNS, its kxdpgun and dnsdist are left out if they are not
//!   there. Missing programs are an error where `HEDGEROW_REQUIRED` is set.
//! - `--replicas` measures the cost of knowing that backends are replicas, and of comparing their answers.
//! - `--limits` measures figures with a target instead: memory, many queries in flight, two workers, the
//!   binary.
//!
//! This program contains its own tools: it starts itself as echo, responder and client, and all of them end
//! with it. No speed is asserted: the report is for a reader.

mod admin;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod encrypted;
mod first_second;
mod instructions;
mod launch;
mod limits;
mod machine;
mod overload;
mod peer;
mod replicas;
mod report;
mod settings;
mod stream_client;
mod subject;
mod tool;
mod watched;
mod xdp;

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::Value;

use common::client::{self, Plan};
use common::message::Lengths;
use common::positive;
use common::process::{Cores, Hold, Place};
use common::responder::{self, Behavior};
use common::veth;
use common::xdp_echo::XdpEcho;
use crowd::Crowd;
use encrypted::Encrypted;
use launch::Knock;
use limits::Limits;
use machine::Machine;
use overload::Overload;
use peer::{Peer, Peers};
use report::{Outcome, Results};
use stream_client::StreamPlan;
use subject::{Answerer, Dispatch, Rates, Scenario, Strength, Subject};
use tool::Tool;
use xdp::XdpResults;

/// Measures the release binary and its peers beside a bare UDP echo, over loopback.
#[derive(Parser)]
#[command(name = "load")]
struct Options {
    /// The role of this process; `None` for the process that a person started.
    #[command(subcommand)]
    role: Option<Role>,
    /// Where, if it is one of those.
    #[command(flatten)]
    place: Place,
    /// Rounds over all subjects.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    secs: f64,
    /// Queries a second of the open loops; without it a tenth of what the echo does in the first round,
    /// forwarding a third of that.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Servers by other people: all that are installed, none, or their names; without it all, with --quick
    /// none.
    #[arg(long, value_name = "all|none|NAME,...")]
    peers: Option<Peers>,
    /// Only the rows whose name has this in it, and the echo.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How long names are. With names of one length, hedgerow sends many datagrams as one.
    #[arg(long, default_value = "mixed")]
    lengths: Lengths,
    /// One short round, to see that all works.
    #[arg(long)]
    quick: bool,
    /// Only what the size of the cache costs: a million names beside ten thousand.
    #[arg(long)]
    large: bool,
    /// Only figures with a target: memory, 100,000 queries in flight, two workers, the binary.
    #[arg(long)]
    limits: bool,
    /// Only what is left of a server at once, twice and five times what it can do.
    #[arg(long)]
    overload: bool,
    /// Only what thousands of backends cost, of which few answer, and that a hundred come and go each second.
    #[arg(long)]
    crowd: bool,
    /// Only what is encrypted: listeners, handshakes and backends, beside dnsdist and beside our own TLS.
    #[arg(long)]
    encrypted: bool,
    /// Only what it costs to be watched: history, a page, names, query log, dnstap, each beside nothing of
    /// them.
    #[arg(long)]
    watched: bool,
    /// Only what replicas cost: the versions of their zones, and comparing what they say, with OPT records in
    /// all rows.
    #[arg(long)]
    replicas: bool,
    /// Only servers by sockets and by XDP, over veth pairs.
    #[arg(long)]
    xdp: bool,
    /// Where every sample is written; without it, a file in the target folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The parts that this program plays for itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// Sends every datagram back.
    Echo {
        /// Send datagrams of equal length to one client as one.
        #[arg(long)]
        coupled: bool,
    },
    /// Answers as a backend that is always fast.
    FastResponder {
        /// The TTL of an answer, in seconds.
        #[arg(long)]
        ttl: u32,
        /// OPT with OPT, and with the version of the zone.
        #[arg(long)]
        edns: bool,
        #[arg(long, default_value_t = tool::ANY_PORT)]
        at: SocketAddrV4,
        /// At how many addresses.
        #[arg(long)]
        addresses: u32,
    },
    /// Answers as a backend that holds replies back.
    Responder(Behavior),
    /// Sends queries and prints what it saw.
    Client(Plan),
    /// A client by TLS or QUIC.
    StreamClient(StreamPlan),
    /// Asks a server that is about to start, and says whether it answers.
    Knock(Knock),
    /// Sends every datagram back by XDP.
    XdpEcho(XdpEcho),
    /// Is in a namespace until stdin is closed.
    Namespace,
    /// Uses all the time that its core gives it.
    Spin,
    /// Becomes another program that ends with this one.
    Hold(Hold),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(role) = options.role else { return measure(&options) };
    options.place.settle()?;
    match role {
        Role::Echo { coupled } => tool::run(Tool::Echo { is_coupled: coupled })?,
        Role::FastResponder { ttl, edns, at, addresses } => tool::run(Tool::Responder { ttl, edns, at, addresses })?,
        Role::Responder(behavior) => responder::run(&behavior)?,
        Role::Client(plan) => client::run(&plan)?,
        Role::StreamClient(plan) => stream_client::run(&plan)?,
        Role::Knock(knock) => knock.run()?,
        Role::XdpEcho(echo) => echo.run()?,
        Role::Namespace => veth::hold_namespace()?,
        Role::Spin => overload::spin()?,
        Role::Hold(command) => command.run()?,
    }
    Ok(())
}

/// Runs all rounds and prints the report.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let (rounds, secs) = if options.quick { (1, 0.5) } else { (options.rounds, options.secs) };
    let cores = Cores::find()?;
    let folder = tempfile::tempdir()?;
    if options.limits {
        let machine = Machine::find(&[]);
        let limits = Limits::measure(rounds, secs, options.rate, cores, folder.path())?;
        print!("{}\n{}", machine.markdown(), limits.markdown());
        return keep(options, "limits", &machine, &limits.json(&machine));
    }
    if options.overload {
        let machine = Machine::find(&[]);
        let overload = Overload::measure(rounds, secs, cores, folder.path())?;
        print!("{}\n{}", machine.markdown(), overload.markdown(secs));
        return keep(options, "overload", &machine, &overload.json(&machine));
    }

    if options.crowd {
        let machine = Machine::find(&[]);
        let crowd = Crowd::measure(rounds, secs, cores, folder.path())?;
        print!("{}\n{}", machine.markdown(), crowd.markdown());
        return keep(options, "crowd", &machine, &crowd.json(&machine));
    }

    if options.encrypted {
        let machine = Machine::find(&[Peer::Dnsdist]);
        let encrypted = Encrypted::measure(rounds, secs, options.only.as_deref(), cores, folder.path())?;
        print!("{}\n{}", machine.markdown(), encrypted.markdown(secs));
        return keep(options, "encrypted", &machine, &encrypted.json(&machine));
    }

    if options.xdp {
        return measure_xdp(options, rounds, secs, cores, folder.path());
    }

    let peers = match &options.peers {
        Some(peers) => peers.0.clone(),
        None if options.quick => Vec::new(),
        None => Peers::installed().0,
    };
    let mut subjects = match (options.large, options.watched, options.replicas) {
        (true, ..) => large_subjects(),
        (false, true, _) => watched::subjects(ECHO),
        (false, false, true) => replicas::subjects(ECHO),
        (false, false, false) => subjects(&peers),
    };
    if let Some(text) = &options.only {
        subjects.retain(|&subject| subject == ECHO || subject.name().contains(text));
    }
    let machine = Machine::find(&peers);
    let mut strength = Strength {
        secs,
        rates: options.rate.map(|rate| Rates { forward: rate, others: rate }),
        lengths: options.lengths,
        edns: options.replicas,
        counts_instructions: instructions::are_counted(),
    };
    let mut done = Vec::new();
    for round in 0..rounds {
        done.push(run_round(round, rounds, &subjects, &mut strength, cores, folder.path())?);
    }
    let results = Results { machine, subjects, rounds: done, strength };
    print!("{}", results.markdown());
    if options.replicas {
        print!("{}", replicas::markdown(&results));
    }
    keep(options, "load", &results.machine, &results.json())
}

/// Runs all rounds of servers by sockets and by XDP, and prints that report.
fn measure_xdp(
    options: &Options,
    rounds: u32,
    secs: f64,
    cores: Option<Cores>,
    folder: &Path,
) -> Result<(), Box<dyn Error>> {
    if let Some(why) = xdp::missing() {
        if xdp::is_required() {
            return Err(why.into());
        }
        println!("XDP is not measured: {why}.");
        return Ok(());
    }
    let Some(cores) = cores else { return Err("two cores are needed, one for the server alone".into()) };
    let rates = options.rate.map_or(xdp::RATES, |rate| Rates { forward: rate, others: rate });
    let setting = xdp::Setting { cores, secs, rates, lengths: options.lengths };
    let machine = Machine::find(&xdp::PEERS);
    let results = XdpResults::measure(rounds, options.only.as_deref(), setting, folder)?;
    print!("{}\n{}", machine.markdown(), results.markdown());
    keep(options, "xdp", &machine, &results.json(&machine))?;
    results.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Runs one round. The first of all begins with the echo, which then says how fast open loops are.
fn run_round(
    round: u32,
    rounds: u32,
    subjects: &[Subject],
    strength: &mut Strength,
    cores: Option<Cores>,
    folder: &Path,
) -> io::Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = vec![Err(String::new()); subjects.len()];
    // Each round begins with another subject: none is always the first after a pause.
    for turn in 0..subjects.len() {
        let index = (round as usize + turn) % subjects.len();
        let subject = subjects[index];
        let (place, name) = (format!("round {} of {rounds}", round + 1), subject.name());
        outcomes[index] = match subject.measure(*strength, cores, folder) {
            Ok(sample) => {
                let (cpu, rate) = (sample.closed.cpu_per_million, sample.closed.seen.rate);
                eprintln!("{place}: {name}: {cpu:.2} s per million, {rate:.0} queries/s");
                strength.rates.get_or_insert_with(|| Rates::of_echo(rate));
                Ok(sample)
            }
            // An error of a peer is reported, and the run goes on.
            Err(error) if matches!(subject.answerer, Answerer::Peer(_)) => {
                eprintln!("{place}: {name}: {error}");
                Err(error.to_string())
            }
            Err(error) => return Err(error),
        };
    }
    Ok(outcomes)
}

/// The subjects of a run: the echo, and in each scenario ours, and the peers beside it.
fn subjects(peers: &[Peer]) -> Vec<Subject> {
    use Dispatch::{Hedge, Race, Sequential};
    let scenarios: [(Scenario, &[Dispatch]); 4] = [
        (Scenario::Forward, &[Sequential, Hedge, Race]),
        (Scenario::Cached(10_000), &[Sequential]),
        (Scenario::Table(10_000), &[Sequential]),
        (Scenario::Zone(1_000_000), &[Sequential]),
    ];
    let mut subjects = vec![ECHO, Subject { scenario: Scenario::Echo, answerer: Answerer::CoupledEcho }];
    for (scenario, dispatches) in scenarios {
        let ours = dispatches.iter().map(|&dispatch| Answerer::Hedgerow(dispatch));
        let others = peers.iter().filter(|peer| peer.fits(scenario)).map(|&peer| Answerer::Peer(peer));
        subjects.extend(ours.chain(others).map(|answerer| Subject { scenario, answerer }));
    }
    subjects
}

/// Subjects that show what the size of the cache costs.
fn large_subjects() -> Vec<Subject> {
    let cached =
        |names| Subject { scenario: Scenario::Cached(names), answerer: Answerer::Hedgerow(Dispatch::Sequential) };
    vec![ECHO, cached(10_000), cached(1_000_000)]
}

/// The subject to compare all others with.
const ECHO: Subject = Subject { scenario: Scenario::Echo, answerer: Answerer::Echo };

/// Writes all results to the requested file, or to a default one in the target folder.
fn keep(options: &Options, report: &str, machine: &Machine, all: &Value) -> Result<(), Box<dyn Error>> {
    let of_its_own = || Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{report}-{}.json", machine.file_stamp()));
    let file = options.json.clone().unwrap_or_else(of_its_own);
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(&file, format!("{all:#}\n"))?;
    eprintln!("every sample: {}", file.display());
    Ok(())
}
