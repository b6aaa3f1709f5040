//! `hedgerow init`: writes a config to start from, and the example files that it names.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{failure, print, usage};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job of the server
    #[arg(value_enum)]
    job: Job,
    /// Write the config into this file, and the files that it names beside it [default: the config alone to
    /// stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Job {
    /// Forwards all names to other resolvers, with a cache
    Resolver,
    /// Serves a home network: local names, and all others from other resolvers
    Home,
    /// Asks two authorities, each with host tables for a part of the names
    Tables,
    /// Serves a zone
    Authority,
}

impl Job {
    /// Returns the config, and the files that it names.
    fn files(self) -> (&'static str, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Resolver => (include_str!("init/resolver.toml"), &[]),
            Self::Home => (include_str!("init/home.toml"), &[]),
            Self::Tables => (
                include_str!("init/tables.toml"),
                &[("ts1.txt", include_str!("../../zones/ts1.txt")), ("ts2.txt", include_str!("../../zones/ts2.txt"))],
            ),
            Self::Authority => (
                include_str!("init/authority.toml"),
                &[("example.org.zone", include_str!("../../zones/example.org.zone"))],
            ),
        }
    }
}

/// Runs the command. Exit status 2 if a file exists.
pub(super) fn run(args: &Args) -> ExitCode {
    let (config, examples) = args.job.files();
    let Some(output) = &args.output else { return print(config.as_bytes()) };
    let examples = examples.iter().map(|&(name, text)| (output.with_file_name(name), text));
    let files: Vec<_> = std::iter::once((output.clone(), config)).chain(examples).collect();
    let existing = files.iter().find(|(path, _)| !args.force && path.symlink_metadata().is_ok());
    if let Some((path, _)) = existing {
        let path = path.display();
        return usage(format_args!("{path}: the file exists, add --force to replace it or name another file"));
    }
    for (path, text) in &files {
        if let Err(error) = write(path, text, args.force) {
            return failure(format_args!("{}: cannot be written: {error}", path.display()));
        }
        eprintln!("{}: written", path.display());
    }
    ExitCode::SUCCESS
}

fn write(path: &Path, text: &str, by_force: bool) -> io::Result<()> {
    let mut file = if by_force { File::create(path) } else { File::create_new(path) }?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use config::Config;

    use super::*;

    #[test]
    fn configs_are_short_and_right_and_name_the_examples() {
        for job in Job::value_variants() {
            let (text, examples) = job.files();
            assert!(text.lines().count() <= 40, "{job:?}: {} lines", text.lines().count());
            let config = Config::parse(text, "config.toml", Path::new(""));
            let config = config.unwrap_or_else(|problems| panic!("{job:?}: {problems}"));
            assert_eq!(config.pools.iter().filter(|pool| pool.serves.is_none()).count(), 0, "{job:?}");
            for (name, _) in examples {
                assert!(text.contains(&format!("zones = [\"{name}\"]")), "{job:?}: {name}");
            }
        }
    }
}
