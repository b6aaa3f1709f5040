//! The command line, one file per command (docs/src/contract.md, Commands).

mod check;
mod completions;
mod ctl;
mod help;
mod import;
mod init;
mod listen;
mod log;
mod lookup;
mod ls;
mod man;
mod run;
mod schema;
mod serve;
mod simulate;
#[cfg(test)]
mod tests;
mod top;
mod ts;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use config::Limits;
use dns::HashSeed;

/// Exit status of a wrong command line, config or zone file.
const EXIT_USAGE: u8 = 2;

/// A tail-tolerant DNS forwarder and load balancer, and the authoritative servers behind it.
#[derive(Debug, Parser)]
#[command(name = "hedgerow", version, about, after_help = EXIT_STATUS)]
struct Cli {
    /// The command; without one: serve.
    #[command(subcommand)]
    command: Option<ProgramCommand>,
    /// The config file, if it stands before the command.
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    log: log::Args,
}

#[derive(Debug, Subcommand)]
enum ProgramCommand {
    /// Run the servers of the config; the default command
    Serve(ConfigFile),
    /// Run a forwarder without a config file
    Ls(ls::Args),
    /// Run an authoritative server without a config file
    Ts(ts::Args),
    /// Look up many names at once
    Lookup(lookup::Args),
    /// Check the config and its files without starting a server
    Check {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        args: check::Args,
    },
    /// Write a short config to start from
    Init(init::Args),
    /// Turn the config of dnsmasq, CoreDNS, Unbound or dnsdist into one of hedgerow
    Import(import::Args),
    /// Compare policies by simulation on modeled backends
    Simulate(simulate::Args),
    /// Show and change a running server
    Ctl {
        /// The config file that names the admin server [default: ./config.toml, then
        /// /etc/hedgerow/config.toml]
        #[arg(short, long, value_name = "FILE", global = true)]
        config: Option<PathBuf>,
        #[command(flatten)]
        args: ctl::Args,
    },
    /// Watch a running server in the terminal
    Top {
        /// The config file that names the admin server [default: ./config.toml, then
        /// /etc/hedgerow/config.toml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        args: top::Args,
    },
    /// Write the JSON Schema of the config file, for editors
    Schema(schema::Args),
    /// Write the manual pages
    Man(man::Args),
    /// Write the completion script of a shell
    Completions(completions::Args),
}

/// The option of the commands that read a config file. It is not global, because other commands would accept
/// it and read no file.
#[derive(Debug, Default, clap::Args)]
struct ConfigFile {
    /// The config file [default: ./config.toml, then /etc/hedgerow/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let matches = help::command().try_get_matches().and_then(|found| Cli::from_arg_matches(&found));
    let settled = matches.and_then(|cli| Ok((settle(cli.command, cli.config)?, cli.log)));
    let (command, log) = settled.unwrap_or_else(|error| reject(&error));
    if let Err(error) = log::init(&log) {
        return usage(format_args!("hedgerow: {error}"));
    }
    zone::seed_hashes(HashSeed(rand::random()));
    match command {
        ProgramCommand::Serve(ConfigFile { config }) => serve::run(config),
        ProgramCommand::Ls(args) => ls::run(args),
        ProgramCommand::Ts(args) => ts::run(args),
        ProgramCommand::Lookup(args) => lookup::run(args),
        ProgramCommand::Check { config: ConfigFile { config }, args } => check::run(config, &args),
        ProgramCommand::Init(args) => init::run(&args),
        ProgramCommand::Import(args) => import::run(&args),
        ProgramCommand::Simulate(args) => simulate::run(&args),
        ProgramCommand::Ctl { config, args } => ctl::run(&args, config.as_deref()),
        ProgramCommand::Top { config, args } => top::run(&args, config.as_deref()),
        ProgramCommand::Schema(args) => schema::run(&args),
        ProgramCommand::Man(args) => man::run(&args),
        ProgramCommand::Completions(args) => completions::run(&args),
    }
}

/// Prints the requested help or version, or reports a command line error, and exits.
fn reject(error: &clap::Error) -> ! {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        error.exit();
    }
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    eprintln!("{}", help::message(error, &words));
    std::process::exit(i32::from(EXIT_USAGE));
}

/// Reports a mistake in the command line, the config or a file, and returns its exit status.
fn usage(problem: impl fmt::Display) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::from(EXIT_USAGE)
}

/// Reports any other error, and returns its exit status.
fn failure(problem: impl fmt::Display) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}

fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // A reader such as `head` may close the pipe early.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failure(format_args!("hedgerow: cannot write to stdout: {error}"))
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Parses a number within limits.
fn number<T: FromStr + PartialOrd + fmt::Display>(text: &str, limits: Limits<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| limits.holds(number));
    number.ok_or_else(|| format!("expected a number {limits}"))
}

/// Formats a number of things.
fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn settle(command: Option<ProgramCommand>, before: ConfigFile) -> Result<ProgramCommand, clap::Error> {
    let refusal = |message| Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    let mut command = command.unwrap_or_else(|| ProgramCommand::Serve(ConfigFile::default()));
    if before.config.is_none() {
        return Ok(command);
    }
    // clap passes a global option before the command to the command.
    let is_global = matches!(command, ProgramCommand::Ctl { .. });
    let own = match &mut command {
        ProgramCommand::Serve(ConfigFile { config })
        | ProgramCommand::Check { config: ConfigFile { config }, .. }
        | ProgramCommand::Ctl { config, .. }
        | ProgramCommand::Top { config, .. } => config,
        ProgramCommand::Ls(_)
        | ProgramCommand::Ts(_)
        | ProgramCommand::Lookup(_)
        | ProgramCommand::Init(_)
        | ProgramCommand::Import(_)
        | ProgramCommand::Simulate(_)
        | ProgramCommand::Schema(_)
        | ProgramCommand::Man(_)
        | ProgramCommand::Completions(_) => {
            return refusal("--config before a command that reads no config file, expected serve, check, ctl or top");
        }
    };
    if own.is_some() && !(is_global && *own == before.config) {
        return refusal("--config stands before and after the command, expected one");
    }
    *own = before.config;
    Ok(command)
}

const EXIT_STATUS: &str =
    "Exit status: 0 success; 2 error in the command line, the config or a zone file; 1 any other error";
