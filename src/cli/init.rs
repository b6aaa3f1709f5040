//! `hedgerow init`: a config to begin with, and the example files that it names.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{EXIT_USAGE, print};

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job of the server
    #[arg(value_enum)]
    job: Job,
    /// Write the config into this file, and the files that it names beside it [default: the config alone to stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, requires = "output")]
    force: bool,
}

/// The job that a config is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Job {
    /// Forwards all names to other resolvers, with a cache
    Resolver,
    /// Asks two authorities that split names between them by tables of hosts
    Tables,
    /// Serves a zone
    Authority,
}

impl Job {
    /// The text of the config.
    fn config(self) -> &'static str {
        match self {
            Self::Resolver => include_str!("init/resolver.toml"),
            Self::Tables => include_str!("init/tables.toml"),
            Self::Authority => include_str!("init/authority.toml"),
        }
    }

    /// The files that the config names: the name and the text of each.
    fn examples(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Resolver => &[],
            Self::Tables => {
                &[("ts1.txt", include_str!("../../zones/ts1.txt")), ("ts2.txt", include_str!("../../zones/ts2.txt"))]
            }
            Self::Authority => &[("example.org.zone", include_str!("../../zones/example.org.zone"))],
        }
    }
}

/// Runs the command: exit status 2 if a file is there already.
pub(super) fn run(args: &Args) -> ExitCode {
    let Some(output) = &args.output else { return print(args.job.config().as_bytes()) };
    let examples = args.job.examples().iter().map(|&(name, text)| (output.with_file_name(name), text));
    let files: Vec<_> = std::iter::once((output.clone(), args.job.config())).chain(examples).collect();
    let existing = files.iter().find(|(path, _)| !args.force && path.symlink_metadata().is_ok());
    if let Some((path, _)) = existing {
        eprintln!("{}: the file exists, add --force to replace it or name another file", path.display());
        return ExitCode::from(EXIT_USAGE);
    }
    for (path, text) in &files {
        if let Err(error) = write(path, text, args.force) {
            eprintln!("{}: cannot be written: {error}", path.display());
            return ExitCode::FAILURE;
        }
        eprintln!("{}: written", path.display());
    }
    ExitCode::SUCCESS
}

/// Writes a file, which replaces one only by force.
fn write(path: &Path, text: &str, by_force: bool) -> io::Result<()> {
    let mut file = if by_force { File::create(path) } else { File::create_new(path) }?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::config::Config;

    #[test]
    fn configs_are_short_and_right_and_name_the_examples() {
        for job in Job::value_variants() {
            let text = job.config();
            assert!(text.lines().count() <= 40, "{job:?}: {} lines", text.lines().count());
            let config = Config::parse(text, "config.toml", Path::new(""));
            let config = config.unwrap_or_else(|problems| panic!("{job:?}: {problems}"));
            assert_eq!(config.pools.iter().filter(|pool| pool.serves.is_none()).count(), 0, "{job:?}");
            for (name, _) in job.examples() {
                assert!(text.contains(&format!("zones = [\"{name}\"]")), "{job:?}: {name}");
            }
        }
    }
}
