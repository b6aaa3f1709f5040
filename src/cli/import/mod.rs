//! `hedgerow import`: turns the config of another DNS server into one of hedgerow.
//!
//! Each kind of file has a module that reads text and fills a [`draft::DraftConfig`]: the config, and the
//! directives that hedgerow cannot take. These modules know no files; only [`run`] reads and writes.

mod coredns;
mod dnsdist;
mod dnsmasq;
mod draft;
#[cfg(test)]
mod tests;
mod unbound;
mod yaml;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str;

use clap::ValueEnum;
use config::{Config, Problems};

use super::{count, failure, print, usage};
use crate::files;
use draft::Untaken;

/// Exit status if the config is written, but some directives are not taken.
const EXIT_UNTAKEN: u8 = 3;

/// The largest file, in octets: a block list of 100,000 lines fits.
const MAX_SIZE: usize = 16 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// The config of the other server, 16 MiB at most
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The server that the file is for [default: by the name dnsmasq.conf, Corefile, unbound.conf or
    /// dnsdist.yml]
    #[arg(long, value_enum, value_name = "SERVER")]
    from: Option<Kind>,
    /// Write the config into this file, which must not exist [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The lines of dnsmasq.conf
    Dnsmasq,
    /// A Corefile of CoreDNS
    Coredns,
    /// The clauses of unbound.conf
    Unbound,
    /// The YAML config of dnsdist 2.x
    Dnsdist,
}

/// A config of hedgerow, made from one of another server.
#[derive(Debug)]
struct Import {
    config: String,
    /// The number of directives in the file.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compute the share that is taken"))]
    directives: usize,
    untaken: Vec<Untaken>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    /// The place and the problem.
    #[error("line {0}: {1}")]
    Syntax(usize, String),
    #[error("no directive names a backend: add one, such as {0}, and import the file again")]
    NoBackend(&'static str, Vec<Untaken>),
    #[error("the import is not valid:\n{0}\ncorrect the directives with these values")]
    Invalid(Problems),
}

impl Kind {
    /// Returns the kind of file that has this name.
    fn of(file: &Path) -> Option<Self> {
        match file.file_name()?.to_str()?.to_ascii_lowercase().as_str() {
            "dnsmasq.conf" => Some(Self::Dnsmasq),
            "corefile" => Some(Self::Coredns),
            "unbound.conf" => Some(Self::Unbound),
            "dnsdist.yml" | "dnsdist.yaml" => Some(Self::Dnsdist),
            _ => None,
        }
    }

    /// Turns the text of a file into a config that parses.
    fn import(self, text: &str) -> Result<Import, Error> {
        let (mut draft, server, example) = match self {
            Self::Dnsmasq => (dnsmasq::import(text), "dnsmasq", "server=9.9.9.9"),
            Self::Coredns => (coredns::import(text)?, "CoreDNS", "forward . 9.9.9.9"),
            Self::Unbound => (unbound::import(text), "Unbound", "a forward-zone"),
            Self::Dnsdist => (dnsdist::import(text)?, "dnsdist", "backends"),
        };
        draft.remove_unusable_listeners();
        let (directives, mut untaken) = (draft.directives, std::mem::take(&mut draft.untaken));
        untaken.sort_by_key(|one| one.line);
        if draft.pools.is_empty() {
            return Err(Error::NoBackend(example, untaken));
        }
        let config = draft.into_toml(&format!("Made by hedgerow import from a config of {server}."));
        Config::parse(&config, "import", Path::new("")).map_err(Error::Invalid)?;
        Ok(Import { config, directives, untaken })
    }
}

/// Runs the command. Exit status 3 if a directive is not taken.
pub(super) fn run(args: &Args) -> ExitCode {
    let file = args.file.display();
    let Some(kind) = args.from.or_else(|| Kind::of(&args.file)) else {
        return usage(format_args!(
            "{file}: the name shows no server, add --from dnsmasq, coredns, unbound or dnsdist"
        ));
    };
    let octets = match files::read(&args.file) {
        Ok(octets) => octets,
        Err(error) => return usage(format_args!("{file}: cannot be read: {error}")),
    };
    if octets.len() > MAX_SIZE {
        return usage(format_args!("{file}: larger than 16 MiB: move lists of names into a names file of a rule"));
    }
    let Ok(text) = str::from_utf8(&octets) else {
        return usage(format_args!("{file}: not UTF-8: convert it with iconv -t UTF-8"));
    };
    let import = match kind.import(text) {
        Ok(import) => import,
        Err(Error::Syntax(line, problem)) => return usage(format_args!("{file}:{line}: {problem}")),
        Err(error) => {
            if let Error::NoBackend(_, untaken) = &error {
                list(&args.file, untaken);
            }
            return usage(format_args!("{file}: {error}"));
        }
    };
    let written = write(&import.config, args.output.as_deref());
    if written != ExitCode::SUCCESS {
        return written;
    }
    list(&args.file, &import.untaken);
    if import.untaken.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{file}: {} not taken", count(import.untaken.len(), "directive", "directives"));
    ExitCode::from(EXIT_UNTAKEN)
}

/// Writes a line for each directive that is not taken to stderr.
fn list(file: &Path, untaken: &[Untaken]) {
    for Untaken { line, directive, reason } in untaken {
        eprintln!("{}:{line}: {}: {}", file.display(), printable(directive), printable(reason));
    }
}

/// Returns a part of the file without characters that control a terminal.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn write(config: &str, output: Option<&Path>) -> ExitCode {
    let Some(output) = output else { return print(config.as_bytes()) };
    match File::create_new(output).and_then(|mut file| file.write_all(config.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            usage(format_args!("{}: the file exists, name another file", output.display()))
        }
        Err(error) => failure(format_args!("{}: cannot be written: {error}", output.display())),
    }
}

/// Returns the reason why a directive is not taken, from a table with lines of `KEY | REASON`.
fn reason(table: &str, key: &str) -> String {
    let unknown = || "unknown directive: correct it, or look for its job in docs/src/configuration.md".to_owned();
    known_reason(table, key).unwrap_or_else(unknown)
}

/// Returns the reason for a known directive. A key of the table also stands for those that begin with it, up
/// to a hyphen.
fn known_reason(table: &str, key: &str) -> Option<String> {
    let lines = || table.lines().filter_map(|line| line.split_once(" | "));
    let starts =
        |known: &str| key.strip_prefix(known).is_some_and(|rest| known.ends_with('-') || rest.starts_with('-'));
    let found = lines().find(|(known, _)| *known == key).or_else(|| lines().find(|(known, _)| starts(known)));
    found.map(|(_, reason)| reason.to_owned())
}

/// Returns the lines of a text with their numbers.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines())
}

const EXIT_STATUS: &str = "Exit status: 0 all directives taken; 3 config written, some directives not taken and listed \
                           on stderr; 2 error in the command line or the file; 1 any other error";
