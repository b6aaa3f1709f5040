//! Logging: what is written to stderr, and how.

use std::fmt;
use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The options of logging, taken before or after the command's name.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is logged: error, warn, info, debug, trace, or a filter such as hedgerow::forwarder=debug
    #[arg(long, value_name = "LEVEL|FILTER", env = "HEDGEROW_LOG", hide_env_values = true)]
    #[arg(default_value = "info", global = true, help_heading = "Logging")]
    log: String,
    /// How it is logged: text, or json, an object a line
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(default_value = "text", global = true, help_heading = "Logging")]
    log_format: Format,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// The filter cannot be read.
#[derive(Debug)]
pub(super) struct BadFilter {
    /// The filter as given.
    filter: String,
    /// What is wrong with it.
    reason: String,
}

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { filter, reason } = self;
        write!(f, "--log \"{filter}\": {reason}; expected error, warn, info, debug, trace, or TARGET=LEVEL")
    }
}

/// Starts logging.
///
/// # Errors
/// If the filter cannot be read.
pub(super) fn init(args: &Args) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| BadFilter { filter: args.log.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match args.log_format {
        Format::Text => builder.with_ansi(stderr().is_terminal()).init(),
        Format::Json => builder.json().init(),
    }
    Ok(())
}
