//! The instructions that the steps of a query take, held to a baseline: `cargo bench --bench instructions`.
//!
//! Times differ from machine to machine and from minute to minute; instruction counts hardly do, so that a
//! program can detect a change that makes something slower. This program starts itself under valgrind's
//! callgrind, has each step of `../steps` counted after it is warm, and compares with `baseline.txt`. If one
//! takes over 5 % more, the exit status is 1. If a step takes 5 % less, or more for a good reason that the
//! commit gives, save a new baseline: `cargo bench --bench instructions -- --save`.
//!
//! Two runs give the same counts. Valgrind emulates the same processor everywhere, except for features that
//! the real one lacks: without AVX2 and its like
//! (`GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-FMA,-ERMS,-BMI2,-MOVBE`) the C library copies and computes
//! by other means, and a step that was mostly a copy took 4.4 % more, all others between 0.8 % less and 1.7 %
//! more. The start address of the stack changes counts by 0.9 % at most. So nothing is pinned.
//!
//! The crate `gungraun` (once iai-callgrind) is not used: it keeps baselines as callgrind's own files below
//! `target/`, which are unreadable in a diff, and needs a second program of exactly its version, to be built
//! wherever this runs.

mod baseline;
mod callgrind;
#[path = "../steps/mod.rs"]
mod steps;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

use baseline::{Baseline, TOLERANCE, Verdict};
use steps::STEPS;

/// Counts the instructions of the steps of a query, and compares them with the baseline.
#[derive(Parser)]
#[command(name = "instructions")]
struct Options {
    /// Make these counts the baseline.
    #[arg(long)]
    save: bool,
    #[arg(long, value_name = "FILE", default_value = BASELINE)]
    baseline: PathBuf,
    /// Run this step, to be counted: what this program does under callgrind.
    #[arg(long, value_name = "STEP", hide = true)]
    run: Option<String>,
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The baseline that is part of the repository.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.txt");

/// The command that saves a new baseline.
const SAVE: &str = "cargo bench --bench instructions -- --save";

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(name) = &options.run {
        STEPS.iter().filter(|step| step.name == name).for_each(callgrind::run);
        return ExitCode::SUCCESS;
    }
    guard(&options).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// Counts, and compares or saves.
fn guard(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let made_with = format!("{}, {}", compiler(), callgrind::version()?);
    let counts = STEPS.iter().map(|step| Ok((step.name.to_owned(), callgrind::count(step, "--run")?)));
    let now = Baseline { made_with, counts: counts.collect::<Result<_, Box<dyn Error>>>()? };
    if options.save {
        fs::write(&options.baseline, now.to_string()).map_err(|error| at(&options.baseline, error))?;
        eprintln!("saved in {}", options.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    let text = fs::read_to_string(&options.baseline).map_err(|error| at(&options.baseline, error))?;
    let before = text.parse().map_err(|error| at(&options.baseline, error))?;
    Ok(compare(&before, &now))
}

/// Prints a table of all steps, and what comes of it.
fn compare(before: &Baseline, now: &Baseline) -> ExitCode {
    println!("| step | instructions | baseline | change |\n|---|---:|---:|---:|");
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    for (name, count) in &now.counts {
        let known = before.counts.get(name).copied();
        let (cell, change) = match known {
            Some(known) => (known.to_string(), format!("{:+.1} %", 100.0 * (*count as f64 / known as f64 - 1.0))),
            None => ("-".to_owned(), "new".to_owned()),
        };
        println!("| {name} | {count} | {cell} | {change} |");
        match Verdict::of(known, *count) {
            Verdict::Same => {}
            Verdict::Fewer => better.push(name.as_str()),
            Verdict::More | Verdict::New => worse.push(name.as_str()),
        }
    }
    let gone = before.counts.keys().filter(|name| !now.counts.contains_key(*name));
    worse.extend(gone.map(String::as_str));

    if !better.is_empty() {
        eprintln!("over {TOLERANCE} % fewer, so that a new baseline is due ({SAVE}): {}", better.join(", "));
    }
    if worse.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("over {TOLERANCE} % more than in the baseline, or in only one of both: {}", worse.join(", "));
    if before.made_with != now.made_with {
        eprintln!("that may be due to other tools: {} here, {} for the baseline", now.made_with, before.made_with);
    }
    eprintln!("if it has to be so, say why in the commit, and make a new baseline: {SAVE}");
    ExitCode::FAILURE
}

/// The compiler and the machine that it compiles for. This program was most likely built by it: both are
/// cargo's choice.
fn compiler() -> String {
    let said = Command::new("rustc").arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let version = said.lines().next().unwrap_or("unknown compiler");
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown machine");
    format!("{version}, {host}")
}

/// An error, with the file that it is about.
fn at(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
