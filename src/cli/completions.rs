//! `hedgerow completions`: what a shell is to know to complete command lines of hedgerow.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, print};

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "hedgerow", &mut script);
    print(&script)
}
