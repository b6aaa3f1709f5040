//! `hedgerow lookup`: asks a server for many names at once (docs/src/contract.md, Lookup).
//!
//! `list` and `way` parse the input; `batch` keeps a window of questions in flight; `resolve` follows CNAMEs;
//! `exchange` sends one question; `message` parses replies; `format` and `dig` format results for `output`;
//! `tally` counts. The server does not use this client.

mod batch;
mod connection;
mod dig;
mod exchange;
mod format;
mod list;
pub(super) mod message;
mod output;
mod resolve;
mod tally;
mod way;

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use batch::{Batch, Failure};
use dns::RecordType;
use exchange::LookupServer;
use format::LookupFormat;
use list::LookupQuestion;
use output::LookupOutput;
use way::{ServerChannel, Trust};

use super::ctl::CommandFailure;
use super::failure;

/// Look up many names at once
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// Names to look up, and the server to ask [default server: @127.0.0.1:5300]
    ///
    /// The server is an address, with or without a port (53 if without), or tcp://ADDRESS,
    /// tls://ADDRESS#NAME, https://ADDRESS/PATH#NAME or quic://ADDRESS#NAME, where the certificate must be
    /// for NAME; +tcp, +tls, +https[=PATH] and +quic after an address have the same effect. A type in
    /// capitals after a name is its type (www.example MX); a host of that name is written with a dot (MX.).
    /// With no name and no -f, names come from standard input: each line has a name and optionally a type;
    /// blank lines and # comments are skipped.
    #[arg(value_name = "@SERVER[:PORT]|+tls|+https|+quic|NAME [TYPE]")]
    words: Vec<String>,
    /// Read names from FILE, or from standard input if it is -
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Type to ask for where a line names none: A, AAAA, MX, ANY, TYPE65280...
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "A", value_parser = list::parse_type)]
    rtype: RecordType,
    /// Write results to FILE, whole or not at all, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The format of the results
    #[arg(long, value_enum, default_value_t)]
    format: LookupFormat,
    /// The maximum number of names in flight
    #[arg(short = 'j', long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// The timeout of each try
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Tries for a name before it counts as timed out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    tries: u8,
    /// Port of the server
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Ask by TCP, as +tcp does: all names over one connection
    #[arg(long)]
    tcp: bool,
    #[command(flatten)]
    trust: Trust,
}

/// Runs the command.
///
/// Exit status 0: every name got an answer of any response code. 9: the server never replied for some name.
/// 2: usage or the list of names is wrong, nothing was asked. 1: anything else.
pub(super) fn run(args: Args) -> ExitCode {
    match prepare(&args) {
        Ok(batch) => run_batch(batch, args.output.as_deref()),
        Err(refusal) => refusal.report("hedgerow lookup"),
    }
}

fn prepare(args: &Args) -> Result<Batch, CommandFailure> {
    let words = || args.words.iter().map(String::as_str);
    let servers: Vec<_> = words().filter(|word| word.starts_with('@')).collect();
    let flags: Vec<_> = words().filter(|word| word.starts_with('+')).collect();
    let mut names = words().filter(|word| !word.starts_with(['@', '+'])).peekable();
    let way = ServerChannel::read(&servers, &flags, args.port, args.tcp, &args.trust).map_err(CommandFailure::Usage)?;
    let ServerChannel { address, connections } = way;
    let server = LookupServer { address, connections, timeout: args.timeout, tries: args.tries };
    let mut questions = Vec::new();
    while let Some(name) = names.next() {
        let rtype = names.next_if(|word| list::is_type(word)).map(list::parse_type).transpose();
        let rtype = rtype.map_err(CommandFailure::Usage)?.unwrap_or(args.rtype);
        let question = LookupQuestion::new(name, rtype);
        questions.push(question.map_err(|bad| CommandFailure::Usage(format!("{name:?}: {}", bad.what)))?);
    }
    match &args.file {
        Some(path) => questions.append(&mut read_list(path, args.rtype)?),
        None if questions.is_empty() => questions.append(&mut read_list(Path::new("-"), args.rtype)?),
        None => {}
    }
    Ok(Batch { server, questions, format: args.format, window: usize::from(args.in_flight) })
}

fn read_list(path: &Path, rtype: RecordType) -> Result<Vec<LookupQuestion>, CommandFailure> {
    let (place, bytes) = if path == Path::new("-") {
        if io::stdin().is_terminal() {
            eprintln!("names from the terminal: a line is NAME [TYPE], end with Ctrl-D");
        }
        let mut bytes = Vec::new();
        ("stdin".to_owned(), io::stdin().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), fs::read(path))
    };
    // A missing file is a mistake in the command line; other errors come from the system.
    let bytes = bytes.map_err(|error| {
        let message = format!("{place}: cannot read names: {error}");
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing { CommandFailure::Usage(message) } else { CommandFailure::Server(message) }
    })?;
    list::read(&place, &bytes, rtype).map_err(|bad| {
        let mut lines: Vec<_> = bad.iter().take(MAX_BAD_LINES).cloned().collect();
        if bad.len() > MAX_BAD_LINES {
            lines.push(format!("{place}: {} more bad lines", bad.len() - MAX_BAD_LINES));
        }
        CommandFailure::Usage(lines.join("\n"))
    })
}

fn run_batch(batch: Batch, path: Option<&Path>) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(format!("cannot start: {error}")),
    };
    let status = runtime.block_on(async {
        // Installed before the output is opened, so that a signal leaves no temporary file.
        let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                return failure(format!("cannot watch for signals: {error}"));
            }
        };
        tokio::select! {
            status = run_to_end(batch, path) => status,
            _ = interrupt.recv() => failure("interrupted"),
            _ = terminate.recv() => failure("terminated"),
        }
    });
    // Dropping the runtime would wait for a write to a pipe without a reader.
    runtime.shutdown_background();
    status
}

async fn run_to_end(batch: Batch, path: Option<&Path>) -> ExitCode {
    let started = Instant::now();
    let place = path.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    let mut output = match LookupOutput::open(path) {
        Ok(output) => output,
        Err(error) => return failure(format!("{place}: cannot write results: {error}")),
    };
    let done = match batch.run(&mut output).await {
        Ok(tally) => output.finish().map(|()| tally).map_err(Failure::Output),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(tally) => {
            if let Some(problem) = &tally.untrusted {
                eprintln!("the server was not asked: {problem}");
            }
            eprintln!("{}", tally.summary(started.elapsed()));
            if tally.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(NO_REPLY) }
        }
        // A reader such as `head` may close the pipe early.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => failure(format!("{place}: cannot write results: {error}")),
        Err(Failure::Socket(error)) => {
            failure(format!("cannot open a socket: {error}; fewer names in flight (-j) need fewer sockets"))
        }
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("a timeout of 0 leaves no time for a reply, expected a duration such as 250ms or 5s".into())
        }
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(format!("{error}, expected a duration such as 250ms or 5s")),
    }
}

const EXIT_STATUS: &str = "Exit status: 0 every name got an answer, of any response code; 9 the server never replied for \
                           some name; 2 the command line or a list of names is wrong; 1 anything else";
/// Exit status: the server never replied for some name, as in dig.
const NO_REPLY: u8 = 9;
const MAX_BAD_LINES: usize = 10;
