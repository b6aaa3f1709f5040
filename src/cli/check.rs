//! `hedgerow check`: reads the config file and every zone file as `serve` would, and starts nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::EXIT_USAGE;
use super::load::{self, LoadError};
use crate::server::Setup;

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
    let setup = load::load_zones(config)?;
    Ok(format!("{}: ok ({})", file.display(), summary(&setup)))
}

/// What would run, in a line.
fn summary(Setup { config, catalogs }: &Setup) -> String {
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
        let hosts = catalogs.iter().map(|catalog| catalog.hosts()).sum();
        let records = catalogs.iter().map(|catalog| catalog.records()).sum();
        let name_servers = catalogs.iter().map(|catalog| catalog.name_servers()).sum();
        let mut part = format!(
            "{} with {}: {}, {}",
            count(config.authorities.len(), "authority", "authorities"),
            count(files, "zone file", "zone files"),
            count(hosts, "host", "hosts"),
            count(records, "address", "addresses"),
        );
        if name_servers > 0 {
            part += &format!(", referrals to {}", count(name_servers, "name server", "name servers"));
        }
        parts.push(part);
    }
    parts.join("; ")
}

/// A number with its noun.
fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Checks the summary of a config that has the zone files `a.txt` and `b.txt` beside it.
    fn check_summary(config: &str, expected: &str) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let files = [
            ("config.toml", config),
            ("a.txt", "a.example 192.0.2.1 A\na.example 192.0.2.2 A\nb.example 2001:db8::1 AAAA"),
            ("b.txt", "c.example 192.0.2.3 A\nns.example - NS"),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file of the test");
        }
        let file = folder.path().join("config.toml");
        let summary = check(Some(&file)).expect("a config that is right");
        assert_eq!(summary, format!("{}: ok ({expected})", file.display()));
    }

    #[test]
    fn the_summary_tells_what_would_run() {
        let authority = "[authorities.one]\nlisten = ['[::1]:53']\nzones = ['a.txt']\n";
        check_summary(authority, "1 authority with 1 zone file: 2 hosts, 3 addresses");
        let referring = "[authorities.two]\nlisten = ['[::1]:54']\nzones = ['a.txt', 'b.txt']\n";
        check_summary(
            &format!("{authority}{referring}"),
            "2 authorities with 3 zone files: 5 hosts, 7 addresses, referrals to 1 name server",
        );
        check_summary(
            "[forwarder]\nlisten = ['127.0.0.1:53']\n[pools.p]\nbackends = ['192.0.2.1:53', '192.0.2.2:53']\n",
            "forwarder on 127.0.0.1:53; 1 pool with 2 backends",
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let error = check(Some(Path::new("no/such.toml"))).expect_err("no file");
        assert!(matches!(error, LoadError::NotFound(_)), "{error}");
    }
}
