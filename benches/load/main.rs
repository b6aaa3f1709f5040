//! A load run over loopback: `cargo bench --bench load`, options behind `--`, see `--help`.
//!
//! The release binary answers as authority and as forwarder (from its cache, and in each dispatch, before two fixed responders), beside
//! a bare batched UDP echo that shows what moving the datagrams costs on this machine. Each is a process of its own on
//! a core of its own, started afresh in every round; subjects take turns within a round, so that drift of the
//! machine is shared. First a closed loop for the rate and the CPU time, then an open loop for the latencies. On
//! loopback the sender of a datagram also pays for the receiver's part of the kernel; that is so for all subjects.
//!
//! This program is its own tool box: it starts itself as echo, responder and client, and all of them end with it.
//! No speed is asserted: the report is for a reader.

#[path = "../common/mod.rs"]
mod common;
mod report;
mod subject;
mod tool;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use common::client::{self, Plan};
use common::positive;
use common::process::{Cores, Hold, end_with_parent};
use subject::{LARGE_SUBJECTS, SUBJECTS, Sample, Strength};
use tool::Tool;

/// Measures the release binary beside a bare UDP echo, over loopback.
#[derive(Parser)]
#[command(name = "load")]
struct Options {
    /// What this process is, if not the one that a person started.
    #[command(subcommand)]
    role: Option<Role>,
    /// Rounds over all subjects.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    secs: f64,
    /// Queries a second of the open loop.
    #[arg(long, default_value_t = 10_000.0, value_parser = positive)]
    rate: f64,
    /// One short round, to see that all works.
    #[arg(long)]
    quick: bool,
    /// Only what the size of the cache costs: a million names beside ten thousand.
    #[arg(long)]
    large: bool,
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
    /// Sends every datagram back.
    Echo,
    /// Answers as a backend.
    Responder,
    /// Sends queries and prints what it saw.
    Client(Plan),
    /// Becomes another program that ends with this one.
    Hold(Hold),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(role) = options.role else { return measure(&options) };
    end_with_parent()?;
    match role {
        Role::Echo => tool::run(Tool::Echo)?,
        Role::Responder => tool::run(Tool::Responder)?,
        Role::Client(plan) => client::run(&plan)?,
        Role::Hold(command) => command.run()?,
    }
    Ok(())
}

/// Runs all rounds and prints the report.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let (rounds, secs) = if options.quick { (1, 0.5) } else { (options.rounds, options.secs) };
    let subjects = if options.large { &LARGE_SUBJECTS[..] } else { &SUBJECTS[..] };
    let strength = Strength { secs, rate: options.rate };
    let folder = tempfile::tempdir()?;
    let cores = Cores::find()?;

    let mut done = Vec::new();
    for round in 0..rounds as usize {
        let mut samples: Vec<Option<Sample>> = vec![None; subjects.len()];
        // Each round begins with another subject: none is always the first after a pause.
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            let subject = subjects[index];
            let sample = subject.measure(strength, cores, folder.path())?;
            let rate = sample.closed.seen.rate;
            eprintln!("round {} of {rounds}: {} {rate:.0} queries/s", round + 1, subject.name());
            samples[index] = Some(sample);
        }
        done.push(samples.into_iter().flatten().collect());
    }

    print!("{}", report::markdown(subjects, &done, client::WINDOW, strength));
    if let Some(file) = &options.json {
        report::write_json(file, subjects, &done, client::WINDOW, strength)?;
    }
    Ok(())
}
