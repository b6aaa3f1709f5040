//! `hedgerow check`: reads the config file and every file that it names as `serve` would, and starts nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::EXIT_USAGE;
use super::load::{self, LoadError};
use crate::config::Config;

/// Runs the command: a summary on stdout, or every problem on stderr and exit status 2.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    match check(file.as_deref()) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Reads all that the config names, and tells what there is.
fn check(file: Option<&Path>) -> Result<String, LoadError> {
    let (config, file) = load::load(file)?;
    load::load_token(&config)?;
    let setup = load::load_zones(config)?;
    Ok(format!("{}: ok ({})", file.display(), summary(&setup.config)))
}

/// What would run, in a line.
fn summary(config: &Config) -> String {
    let mut parts = Vec::new();
    if let Some(forwarder) = &config.forwarder {
        let listen: Vec<_> = forwarder.listen.iter().map(ToString::to_string).collect();
        let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
        parts.push(format!("forwarder on {}", listen.join(", ")));
        parts.push(format!(
            "{} with {}",
            count(config.pools.len(), "pool", "pools"),
            count(backends, "backend", "backends"),
        ));
    }
    if !config.authorities.is_empty() {
        let files = config.authorities.iter().map(|authority| authority.zones.len()).sum();
        parts.push(format!(
            "{} with {}",
            count(config.authorities.len(), "authority", "authorities"),
            count(files, "zone file", "zone files"),
        ));
    }
    if let Some(admin) = &config.admin {
        parts.push(format!("admin server on {}", admin.listen));
    }
    parts.join("; ")
}

/// A number with its noun.
fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the summary of a config.
    fn check_summary(text: &str, expected: &str) {
        let config = Config::parse(text, "c.toml", Path::new("")).expect("a config that is right");
        assert_eq!(summary(&config), expected);
    }

    #[test]
    fn the_summary_tells_what_would_run() {
        check_summary(
            include_str!("../../config.toml"),
            "forwarder on 127.0.0.1:5300; 1 pool with 2 backends; 2 authorities with 2 zone files",
        );
        check_summary("[authorities.a]\nlisten = [\"[::1]:53\"]\nzones = [\"a.txt\"]", "1 authority with 1 zone file");
        check_summary(
            "[authorities.a]\nlisten = [\"[::1]:53\"]\nzones = [\"a.txt\"]\n[admin]",
            "1 authority with 1 zone file; admin server on 127.0.0.1:5380",
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let error = check(Some(Path::new("no/such.toml"))).expect_err("no file");
        assert!(matches!(error, LoadError::NotFound(_)), "{error}");
    }
}
