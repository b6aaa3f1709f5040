//! `hedgerow completions`: the completion script of a shell.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::{help, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell to write the script for
    shell: Shell,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut help::command(), "hedgerow", &mut script);
    print(&script)
}
