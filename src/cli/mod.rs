//! The command line: one file per command, all words of docs/src/contract.md, Commands.

mod check;
mod completions;
mod ctl;
#[cfg(test)]
mod documented;
mod init;
mod log;
mod lookup;
mod ls;
mod man;
mod run;
mod schema;
mod serve;
mod simulate;
mod top;
mod ts;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::wire::HashSeed;
use crate::zone;

/// Exit status of a wrong command line, config or zone file.
const EXIT_USAGE: u8 = 2;

/// A tail-tolerant DNS forwarder and load balancer, and the authoritative servers behind it.
#[derive(Debug, Parser)]
#[command(name = "hedgerow", version, about, after_help = EXIT_STATUS)]
struct Cli {
    /// What to do; without a command: serve.
    #[command(subcommand)]
    command: Option<Command>,
    /// The config file, if it is named before the command.
    #[command(flatten)]
    config: ConfigFile,
    /// Logging.
    #[command(flatten)]
    log: log::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all that the config names; what happens without a command
    Serve(ConfigFile),
    /// Run a forwarder without a config file
    Ls(ls::Args),
    /// Run an authoritative server without a config file
    Ts(ts::Args),
    /// Look names up, many at once
    Lookup(lookup::Args),
    /// Check the config and its zone files, and start nothing
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// What to print of it.
        #[command(flatten)]
        args: check::Args,
    },
    /// Write a config to begin with
    Init(init::Args),
    /// Compare policies: run the real race logic on modelled backends
    Simulate(simulate::Args),
    /// Show and change a running server
    Ctl {
        /// The config file that names the admin server [default: ./config.toml, then /etc/hedgerow/config.toml]
        #[arg(short, long, value_name = "FILE", global = true)]
        config: Option<PathBuf>,
        /// What to ask of it.
        #[command(flatten)]
        args: ctl::Args,
    },
    /// Watch a running server in the terminal
    Top {
        /// The config file that names the admin server [default: ./config.toml, then /etc/hedgerow/config.toml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How it is watched.
        #[command(flatten)]
        args: top::Args,
    },
    /// Write the JSON Schema of the config file, for editors
    Schema(schema::Args),
    /// Write the manual pages
    Man(man::Args),
    /// Write what a shell needs to complete command lines
    Completions(completions::Args),
}

/// The option of the commands that read a config file. Not a global one: to take it and read no file would mislead.
#[derive(Debug, Default, clap::Args)]
struct ConfigFile {
    /// The config file [default: ./config.toml, then /etc/hedgerow/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let Cli { command, config, log } = Cli::parse();
    let command = settle(command, config).unwrap_or_else(|error| error.exit());
    if let Err(error) = log::init(&log) {
        eprintln!("hedgerow: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    zone::seed_hashes(HashSeed(rand::random()));
    match command {
        Command::Serve(ConfigFile { config }) => serve::run(config),
        Command::Ls(args) => ls::run(args),
        Command::Ts(args) => ts::run(args),
        Command::Lookup(args) => lookup::run(args),
        Command::Check { config: ConfigFile { config }, args } => check::run(config, &args),
        Command::Init(args) => init::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Ctl { config, args } => ctl::run(&args, config.as_deref()),
        Command::Top { config, args } => top::run(&args, config.as_deref()),
        Command::Schema(args) => schema::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Prints on stdout; the exit status of a command that does no more than that.
fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("hedgerow: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// The command, with the config file that was named before it.
fn settle(command: Option<Command>, before: ConfigFile) -> Result<Command, clap::Error> {
    let refusal = |message| Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    match command.unwrap_or_else(|| Command::Serve(ConfigFile::default())) {
        command if before.config.is_none() => Ok(command),
        Command::Serve(ConfigFile { config: None }) => Ok(Command::Serve(before)),
        Command::Check { config: ConfigFile { config: None }, args } => Ok(Command::Check { config: before, args }),
        // clap hands a global option that stands before the command down to it.
        Command::Ctl { config, args } if config.is_none() || config == before.config => {
            Ok(Command::Ctl { config: before.config, args })
        }
        Command::Top { config: None, args } => Ok(Command::Top { config: before.config, args }),
        Command::Serve(_) | Command::Check { .. } | Command::Ctl { .. } | Command::Top { .. } => {
            refusal("--config stands before and after the command, expected one")
        }
        Command::Ls(_)
        | Command::Ts(_)
        | Command::Lookup(_)
        | Command::Init(_)
        | Command::Simulate(_)
        | Command::Schema(_)
        | Command::Man(_)
        | Command::Completions(_) => {
            refusal("--config before a command that reads no config file, expected serve, check, ctl or top")
        }
    }
}

/// What a script may count on.
const EXIT_STATUS: &str =
    "Exit status: 0 fine; 2 the command line, the config or a zone file is wrong; 1 anything else";

#[cfg(test)]
mod tests {
    use super::*;

    /// The command of a command line, and the config file if it reads one.
    fn parse(line: &str) -> Result<(&'static str, Option<PathBuf>), String> {
        let words = std::iter::once("hedgerow").chain(line.split_whitespace());
        let command = Cli::try_parse_from(words).and_then(|cli| settle(cli.command, cli.config));
        match command.map_err(|error| error.to_string())? {
            Command::Serve(ConfigFile { config }) => Ok(("serve", config)),
            Command::Check { config: ConfigFile { config }, .. } => Ok(("check", config)),
            Command::Ctl { config, .. } => Ok(("ctl", config)),
            Command::Ls(_) => Ok(("ls", None)),
            Command::Ts(_) => Ok(("ts", None)),
            Command::Lookup(_) => Ok(("lookup", None)),
            Command::Init(_) => Ok(("init", None)),
            Command::Simulate(_) => Ok(("simulate", None)),
            Command::Top { config, .. } => Ok(("top", config)),
            Command::Schema(_) => Ok(("schema", None)),
            Command::Man(_) => Ok(("man", None)),
            Command::Completions(_) => Ok(("completions", None)),
        }
    }

    /// A command line that is right.
    fn check(line: &str, command: &str, config: Option<&str>) {
        assert_eq!(parse(line), Ok((command, config.map(PathBuf::from))), "{line}");
    }

    #[test]
    fn options_of_all_commands_stand_before_or_after_the_command() {
        check("", "serve", None);
        check("-c a.toml", "serve", Some("a.toml"));
        check("serve --config a.toml", "serve", Some("a.toml"));
        check("--config a.toml serve", "serve", Some("a.toml"));
        check("-c a.toml check", "check", Some("a.toml"));
        check("-c a.toml ctl status", "ctl", Some("a.toml"));
        check("ctl -c a.toml status", "ctl", Some("a.toml"));
        check("check -c a.toml --log debug", "check", Some("a.toml"));
        check("-c a.toml check --dump", "check", Some("a.toml"));
        check("check --dump example.org -c a.toml", "check", Some("a.toml"));
        check("--log debug --log-format json lookup a.example", "lookup", None);
        check("ts -l 127.0.0.1:0 a.txt --log debug", "ts", None);
        check("-c a.toml top --once", "top", Some("a.toml"));
        check("init tables -o a.toml --force", "init", None);
        check("schema --markdown", "schema", None);
        check("man --dir pages", "man", None);
        check("completions zsh", "completions", None);
        check("simulate --from a.toml --status 127.0.0.1:5380", "simulate", None);
    }

    #[test]
    fn a_config_file_that_would_not_be_read_is_refused() {
        for (line, told) in [
            ("-c a.toml lookup a.example", "expected serve, check, ctl or top"),
            ("-c a.toml ts -l 127.0.0.1:0 a.txt", "expected serve, check, ctl or top"),
            ("-c a.toml simulate", "expected serve, check, ctl or top"),
            ("ls -l 127.0.0.1:0 -c a.toml 127.0.0.1:1", "unexpected argument '-c'"),
            ("-c a.toml serve -c b.toml", "expected one"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
