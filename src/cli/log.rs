//! Logging: what is written to stderr, and how.

use std::fmt;
use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The options of logging, taken before or after the command's name.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is logged: off, error, warn, info, debug, trace, or a filter such as warn,hedgerow::health=info
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
pub(super) struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(filter) = self;
        write!(f, "--log or HEDGEROW_LOG: bad filter {filter:?}, expected off, error, warn, info, debug, trace, ")?;
        f.write_str("or levels by target such as warn,hedgerow::health=info")
    }
}

/// Starts logging.
///
/// # Errors
/// If the filter cannot be read.
pub(super) fn init(args: &Args) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(&args.log).map_err(|_| BadFilter(args.log.clone()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match args.log_format {
        Format::Text => builder.with_ansi(stderr().is_terminal()).init(),
        Format::Json => builder.json().init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_told_with_what_would_be_right() {
        let args = Args { log: "hedgerow=wat".to_owned(), log_format: Format::Text };
        let error = init(&args).expect_err("no such level").to_string();
        assert_eq!(
            error,
            "--log or HEDGEROW_LOG: bad filter \"hedgerow=wat\", expected off, error, warn, info, debug, trace, or \
             levels by target such as warn,hedgerow::health=info"
        );
    }
}
