//! Counting the instructions that a server needs, by `perf`, where the machine has such counters.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::common::account;
use crate::common::client::Plan;
use crate::common::process::{Cores, Server};

/// The counter of instructions outside of the kernel.
const EVENT: &str = "instructions:u";

/// Returns true if the machine counts them, and `perf` is there to ask.
pub(crate) fn are_counted() -> bool {
    let output = Command::new("perf").args(["stat", "-x,", "-e", EVENT, "true"]).output();
    output.is_ok_and(|output| output.status.success() && count(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// Loads a server and returns how many instructions it needed for an answer.
pub(crate) fn per_answer(plan: &Plan, server: &Server, cores: Option<Cores>, folder: &Path) -> io::Result<f64> {
    let output = folder.join("instructions");
    let pids: Vec<String> = account::pids(server.process.child.id())?.iter().map(u32::to_string).collect();
    // The counters run from the start of the client to its end.
    let command = ["perf", "stat", "-x,", "-e", EVENT, "-o", &output.to_string_lossy(), "-p", &pids.join(","), "--"];
    let seen = plan.start_under(&command.map(str::to_owned), cores.map(|cores| cores.rest))?.finish()?;
    let counted = count(&fs::read_to_string(&output)?).ok_or_else(|| io::Error::other("perf counted nothing"))?;
    Ok(counted / seen.answered.max(1) as f64)
}

/// The number in front of the event in what `perf stat -x,` writes.
fn count(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.trim().parse().ok()
}
