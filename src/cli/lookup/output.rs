//! The output: stdout as results arrive, or a file that appears complete or not at all.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::ProgressBar;
use tokio::io::{AsyncWriteExt, Stdout, stdout};

use crate::files::{NewFile, Readers};

/// The open output. Dropped before `finish`, it leaves no file.
pub(super) enum LookupOutput {
    /// Standard output, written from another thread, because a slow reader such as a pager must not delay the
    /// reading of replies.
    Stdout(Stdout),
    Terminal(io::Stdout),
    File(NewFile),
}

impl LookupOutput {
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        if let Some(path) = path.filter(|path| *path != Path::new("-")) {
            return NewFile::open(path, Readers::Usual).map(Self::File);
        }
        let terminal = io::stdout();
        let is_seen = terminal.is_terminal();
        Ok(if is_seen { Self::Terminal(terminal) } else { Self::Stdout(stdout()) })
    }

    /// Writes results; on stdout they are flushed when this returns.
    pub(super) async fn write(&mut self, text: &str, progress: &ProgressBar) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(text.as_bytes()).await?;
                stdout.flush().await
            }
            Self::Terminal(stdout) => progress.suspend(|| {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }),
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(_) | Self::Terminal(_) => Ok(()),
            Self::File(file) => file.finish(),
        }
    }
}
