//! A step under callgrind: starts this program for it, so that nothing else is counted, and reads the count.
//!
//! Each step has a separate process, so that it does not depend on the memory or tables that other steps
//! leave behind.

use std::error::Error;
use std::process::Command;
use std::{env, fs, io};

use super::steps::Step;

/// Calls before those that are counted: buffers have grown, what is learnt is known.
const WARM_UP: u32 = 1000;

/// Calls that are counted.
const CALLS: u32 = 1000;

/// Valgrind's version. It is an error if there is none.
pub(crate) fn version() -> Result<String, Box<dyn Error>> {
    let output = Command::new("valgrind").arg("--version").output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "valgrind not found: install the package `valgrind`, which counts instructions".into()
        }
        _ => format!("valgrind: {error}"),
    })?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Instructions of one call of a step. The option makes this program [`run`] the step.
pub(crate) fn count(step: &Step, option: &str) -> Result<u64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args([option, step.name])
        // Options for valgrind may be there, and how much there is moves the stack.
        .env_clear();
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: valgrind: {}\n{said}", step.name, output.status).into());
    }
    let report = fs::read_to_string(file)?;
    let total = report.lines().find_map(|line| line.strip_prefix("totals: ")?.parse::<u64>().ok());
    let total =
        total.filter(|&total| total > 0).ok_or_else(|| format!("{}: callgrind has counted nothing", step.name))?;
    Ok((total + u64::from(CALLS) / 2) / u64::from(CALLS))
}

/// Runs a step, first as warm-up and then under the counter.
pub(crate) fn run(step: &Step) {
    let mut run = (step.set_up)();
    (0..WARM_UP).for_each(|_| run());
    counted(&mut *run);
}

/// Runs a step as often as is counted. It is found by its name, so it has to remain a function.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    for _ in 0..CALLS {
        run();
    }
}

/// The name of [`counted`], however it is mangled.
const COUNTED: &str = "*callgrind*counted*";
