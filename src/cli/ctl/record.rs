//! `hedgerow ctl record`: writes the latencies of races to a file, for `hedgerow simulate --trace`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use config::words;

use super::CommandFailure;
use super::connection::AdminConnection;
use crate::cli::count;
use crate::files::{NewFile, Readers};

#[derive(Debug, clap::Args)]
pub(super) struct RecordArgs {
    /// The file to write: a line for each race, without names
    file: PathBuf,
    /// Name of the pool [default: all]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// The duration, up to 10m
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = words::duration)]
    lasts: Duration,
}

pub(super) fn obey(connection: &AdminConnection, asked: &RecordArgs) -> Result<String, CommandFailure> {
    let RecordArgs { file, pool, lasts } = asked;
    let unwritten = |error| CommandFailure::Server(format!("{}: cannot be written: {error}", file.display()));
    let mut out = NewFile::open(file, Readers::Usual).map_err(unwritten)?;
    let (began, mut races, mut notes) = (Instant::now(), 0, String::new());
    let text = humantime::format_duration(*lasts).to_string().replace(' ', "");
    let query = [("for", Some(&*text)), ("pool", pool.as_deref())];
    connection.download("record", &query, *lasts, |piece| {
        match piece {
            [b'#', ..] if races > 0 => notes = format!("; {}", String::from_utf8_lossy(piece).trim()),
            [b'#', ..] => {}
            _ => races += piece.iter().filter(|octet| **octet == b'\n').count(),
        }
        out.write_all(piece)
    })?;
    if began.elapsed() + EARLY < *lasts {
        return Err(CommandFailure::Server("the server has ended the recording early".to_owned()));
    }
    out.finish().map_err(unwritten)?;
    Ok(format!("{}: {}{notes}", file.display(), count(races, "race", "races")))
}

/// The server ends recordings once a second.
const EARLY: Duration = Duration::from_secs(2);
