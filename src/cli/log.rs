//! Logging to stderr: level, filter and format.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use config::nearest;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The logging options, accepted before and after the command name.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Log level: off, error, warn, info, debug, trace, or a filter such as warn,hedgerow::health=info
    #[arg(long, value_name = "LEVEL|FILTER", env = "HEDGEROW_LOG", hide_env_values = true)]
    #[arg(default_value = "info", global = true, help_heading = "Logging")]
    log: String,
    /// Log format: text, or json with one object per line
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(default_value = "text", global = true, help_heading = "Logging")]
    log_format: ProcessLogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProcessLogFormat {
    /// Plain text lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Returns the error of a filter, with what would be right.
fn bad(filter: &str) -> String {
    let wrong = filter.split(',').map(str::trim).find(|word| is_bare_word(word) && !is_known(word));
    let meant = |word: &str| {
        let word = word.to_ascii_lowercase();
        let is_start = |level: &&str| word.starts_with(*level);
        LEVELS.into_iter().find(is_start).or_else(|| nearest(&word, LEVELS))
    };
    let remedy = match wrong.and_then(meant) {
        Some(level) => format!("did you mean {level}?"),
        None => format!("expected {}, or levels by target such as warn,hedgerow::health=info", LEVELS.join(", ")),
    };
    format!("--log or HEDGEROW_LOG: bad filter {filter:?}, {remedy}")
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn is_bare_word(part: &str) -> bool {
    part.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-')
}

/// Returns true if a bare word is a level, by name or number, or the crate `hedgerow`. The filter would take
/// any other word for a crate that logs nothing, and so silence everything.
fn is_known(word: &str) -> bool {
    word.is_empty() || word == "hedgerow" || word.parse::<LevelFilter>().is_ok()
}

pub(super) fn init(args: &Args) -> Result<(), String> {
    if args.log.split(',').map(str::trim).any(|part| is_bare_word(part) && !is_known(part)) {
        return Err(bad(&args.log));
    }
    let filter = parse_filter(&args.log).ok_or_else(|| bad(&args.log))?;
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(stderr);
    match args.log_format {
        ProcessLogFormat::Text => builder.with_ansi(stderr().is_terminal()).finish().with(filter).init(),
        ProcessLogFormat::Json => builder.json().finish().with(filter).init(),
    }
    Ok(())
}

/// Parses a level and levels by target, which apply to all targets with that prefix.
fn parse_filter(text: &str) -> Option<Targets> {
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).flat_map(by_module).collect();
    if parts.is_empty() {
        return Some(Targets::new().with_default(LevelFilter::ERROR));
    }
    parts.join(",").parse().ok()
}

/// Returns a part of a filter with the modules that it means in place of the name of an area.
fn by_module(part: &str) -> Vec<String> {
    let (target, level) = part.split_at(part.find('=').unwrap_or(part.len()));
    if target == "hedgerow" {
        return ["hedgerow", "net", "engine"].map(|target| format!("{target}{level}")).into();
    }
    let area = |name| target.strip_prefix("hedgerow::")?.strip_prefix(name).filter(|rest| !rest.starts_with(is_word));
    let meant = AREAS.iter().find_map(|(name, module)| Some(format!("{module}{}{level}", area(*name)?)));
    vec![meant.unwrap_or_else(|| part.to_owned())]
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_ascii_alphanumeric()
}

/// The areas of the log that are not named as their modules are: filters say `hedgerow::` and the first.
const AREAS: [(&str, &str); 12] = [
    ("authority", "hedgerow::worker::authority"),
    ("discoverer", "hedgerow::control::pools::discoverer"),
    ("engine", "engine"),
    ("forwarder", "hedgerow::worker::forwarder"),
    ("health", "hedgerow::control::pools::health"),
    ("net", "net"),
    ("notify", "hedgerow::control::zones::notify"),
    ("replicas", "hedgerow::control::pools::replicas"),
    ("secondary", "hedgerow::control::zones::secondary"),
    ("server", "hedgerow::control"),
    ("state", "engine::state"),
    ("taps", "hedgerow::control::observe::taps"),
];

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_mistyped_level_is_an_error() {
        let error = |log: &str| {
            let args = Args { log: log.to_owned(), log_format: ProcessLogFormat::Text };
            init(&args).expect_err("no such level")
        };
        assert_eq!(error("warning"), "--log or HEDGEROW_LOG: bad filter \"warning\", did you mean warn?");
        assert_eq!(error("Inof"), "--log or HEDGEROW_LOG: bad filter \"Inof\", did you mean info?");
        assert!(error("loud").contains("expected off, error, warn, info, debug, trace"), "{}", error("loud"));
        assert!(error("hedgerow::health=info,verbose").contains("expected off"));
    }

    #[test]
    fn a_bad_filter_is_told_with_what_would_be_right() {
        let args = Args { log: "hedgerow=wat".to_owned(), log_format: ProcessLogFormat::Text };
        let error = init(&args).expect_err("no such level");
        assert_eq!(
            error,
            "--log or HEDGEROW_LOG: bad filter \"hedgerow=wat\", expected off, error, warn, info, debug, trace, or \
             levels by target such as warn,hedgerow::health=info"
        );
    }

    #[test]
    fn levels_apply_by_target() {
        let is_on =
            |filter: &str, target: &str, level| parse_filter(filter).expect(filter).would_enable(target, &level);
        assert!(is_on("warn,hedgerow::health=info", "hedgerow::control::pools::health::stream", Level::INFO));
        assert!(is_on("off,hedgerow::health::stream=info", "hedgerow::control::pools::health::stream", Level::INFO));
        assert!(!is_on("warn,hedgerow::healthy=info", "hedgerow::control::pools::health", Level::INFO));
        assert!(["hedgerow", "engine::reply", "net::sys"].iter().all(|target| is_on(
            "hedgerow=debug",
            target,
            Level::DEBUG
        )));
        assert!(!is_on("warn,hedgerow::health=info", "hedgerow::control", Level::INFO));
        assert!(is_on("debug, ", "hedgerow::control", Level::DEBUG));
        assert!(is_on("hedgerow", "hedgerow::control", Level::TRACE));
        assert!(!is_on("hedgerow=debug", "rustls", Level::ERROR));
        assert!(is_on("", "rustls", Level::ERROR) && !is_on("", "rustls", Level::WARN));
        assert!(is_on("3", "rustls", Level::INFO) && !is_on("off", "rustls", Level::ERROR));
    }
}
