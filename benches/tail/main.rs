//! The tail over loopback: `cargo bench --bench tail`, options behind `--`, see `--help`.
//!
//! The release binary forwards to two backends that are slow now and then, lose queries, stop, end, or become
//! slower; policies take turns within each round, everything is started afresh for each. An open loop asks:
//! each query is timed from when it was due, so that no stall hides a delay. The backends count what they are
//! asked. A run without any fault shows what the measurement itself adds: where that is not small against a
//! millisecond, other work is in the way. On a machine that cannot be kept quiet, start the built program
//! through `chrt -f 10`, as root.
//!
//! `--ways udp,tls,https,quic` measures backends that are reached by these ways: each is a front, hedgerow
//! itself, before its responder, by UDP too, so that the ways differ in nothing else. Where a fault befalls
//! connections, a relay is between.
//!
//! This program is its own tool box: it starts itself as responder and client, and all of them end with it.
//! No figure is asserted: the report is for a reader.

#[path = "../common/mod.rs"]
mod common;
mod fault;
mod policy;
mod relay;
mod report;
mod sample;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use common::client::{self, Plan};
use common::encrypted::{self, Way};
use common::positive;
use common::process::{Cores, Hold, Place};
use common::responder::{self, Behavior};
use fault::Fault;
use policy::Policy;
use sample::Strength;

/// Measures what each policy makes of slow, lossy, stopped and killed backends, over loopback.
#[derive(Parser)]
#[command(name = "tail")]
struct Options {
    /// The role of this process; `None` for the process that a person started.
    #[command(subcommand)]
    role: Option<Role>,
    /// Where, if it is one of those.
    #[command(flatten)]
    place: Place,
    /// Rounds over all faults and policies.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    secs: f64,
    #[arg(long, default_value_t = 3_000.0, value_parser = positive)]
    rate: f64,
    /// Workers of the forwarder.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// The faults to play; all by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::value_variants().to_vec())]
    faults: Vec<Fault>,
    /// The policies to compare; all by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Policy::value_variants().to_vec())]
    policies: Vec<Policy>,
    /// How backends are reached, which some faults depend on: `stall`, `half-open` and `reset` are for
    /// connections.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Bare])]
    ways: Vec<Way>,
    /// One round of short runs, to see that all works.
    #[arg(long)]
    quick: bool,
    /// Also write every sample to this file.
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
    /// Replies as a backend.
    Responder(Behavior),
    /// Sends queries and prints what it saw.
    Client(Plan),
    /// Stands between the server and a backend.
    Relay(relay::Plan),
    /// Becomes another program that ends with this one.
    Hold(Hold),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(role) = options.role else { return measure(&options) };
    options.place.settle()?;
    match role {
        Role::Responder(behavior) => responder::run(&behavior)?,
        Role::Client(plan) => client::run(&plan)?,
        Role::Relay(plan) => relay::run(plan)?,
        Role::Hold(command) => command.run()?,
    }
    Ok(())
}

/// Runs all rounds and prints the report.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let Options { faults, policies, ways, .. } = options;
    let (rounds, secs) = if options.quick { (1, 1.5) } else { (options.rounds, options.secs) };
    let strength = Strength { secs, rate: options.rate, workers: options.workers };
    let folder = tempfile::tempdir()?;
    encrypted::certify(folder.path())?;
    let cores = Cores::find()?;

    let mut samples = Vec::new();
    for round in 0..rounds as usize {
        for &fault in faults {
            // Each round begins with another policy: none is always the first after a pause.
            for turn in 0..policies.len() {
                let policy = policies[(round + turn) % policies.len()];
                for &way in ways.iter().filter(|&&way| fault.fits(way)) {
                    let sample = sample::run((policy, fault, way, round), strength, cores, folder.path())?;
                    let (p999, lost, traffic) = (sample.seen.p999 / 1e3, sample.seen.lost, sample.traffic);
                    let (round, name, way) = (round + 1, policy.name(), way.name());
                    eprintln!(
                        "round {round}, {fault:?}, {name}, {way}: p99.9 {p999:.2} ms, {lost} lost, traffic {traffic:.3}"
                    );
                    samples.push(sample);
                }
            }
        }
    }

    print!("{}", report::markdown(&samples, faults, policies, ways, strength));
    if let Some(file) = &options.json {
        report::write_json(file, &samples, strength)?;
    }
    Ok(())
}
