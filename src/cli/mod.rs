//! The command line: one file per command, all words of CONTRACT.md, Commands.

mod check;
mod ctl;
mod load;
mod log;
mod lookup;
mod ls;
mod run;
mod serve;
mod ts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status of a wrong command line, config or zone file.
const EXIT_USAGE: u8 = 2;

/// A tail-tolerant DNS forwarder and load balancer, and the authoritative servers behind it.
#[derive(Debug, Parser)]
#[command(name = "hedgerow", version, about, subcommand_negates_reqs = true)]
struct Cli {
    /// What to do; without a command: serve.
    #[command(subcommand)]
    command: Option<Command>,
    /// The config file [default: ./config.toml, then /etc/hedgerow/config.toml]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Logging.
    #[command(flatten)]
    log: log::Args,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run all that the config names
    Serve,
    /// Run a forwarder without a config file
    Ls(ls::Args),
    /// Run an authoritative server without a config file
    Ts(ts::Args),
    /// Look names up, many at once
    Lookup(lookup::Args),
    /// Check the config and its zone files, and start nothing
    Check,
    /// Show and change a running server
    Ctl(ctl::Args),
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log::init(&cli.log) {
        eprintln!("hedgerow: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(cli.config),
        Command::Ls(args) => ls::run(args),
        Command::Ts(args) => ts::run(args),
        Command::Lookup(args) => lookup::run(args),
        Command::Check => check::run(cli.config),
        Command::Ctl(args) => ctl::run(&args, cli.config.as_deref()),
    }
}
