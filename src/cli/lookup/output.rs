//! Where results go: to stdout as they come, or to a file that is there whole or not at all.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use tokio::io::{AsyncWriteExt, Stdout, stdout};

use super::tally::Progress;
use crate::files::{NewFile, Readers};

/// The open output. Dropped before `finish`, it leaves no trace in the file system.
pub(super) enum Output {
    /// Standard output. Written from another thread: a reader that is slow, like a pager, must not make
    /// replies look late.
    Stdout(Stdout),
    /// Standard output that somebody looks at, shared with the progress bar.
    Terminal(io::Stdout),
    /// A file.
    File(NewFile),
}

impl Output {
    /// Opens the output; no path or `-` is stdout.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        if let Some(path) = path.filter(|path| *path != Path::new("-")) {
            return NewFile::open(path, Readers::Usual).map(Self::File);
        }
        let terminal = io::stdout();
        let is_seen = terminal.is_terminal();
        Ok(if is_seen { Self::Terminal(terminal) } else { Self::Stdout(stdout()) })
    }

    /// Writes results; on stdout they can be seen when this returns.
    pub(super) async fn write(&mut self, text: &str, progress: &Progress) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(text.as_bytes()).await?;
                stdout.flush().await
            }
            Self::Terminal(stdout) => progress.make_way(|| {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }),
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }

    /// Makes a file appear under its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(_) | Self::Terminal(_) => Ok(()),
            Self::File(file) => file.finish(),
        }
    }
}
