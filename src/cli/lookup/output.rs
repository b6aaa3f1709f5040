//! Where results go: to stdout as they come, or to a file that is there whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};
use tokio::io::{AsyncWriteExt, Stdout, stdout};

use super::tally::Progress;

/// The open output. Dropped before `finish`, it leaves no trace in the file system.
pub(super) enum Output {
    /// Standard output. Written from another thread: a reader that is slow, like a pager, must not make
    /// replies look late.
    Stdout(Stdout),
    /// Standard output that somebody looks at, shared with the progress bar.
    Terminal(io::Stdout),
    /// A new file beside the one asked for, that takes its place at the end.
    Replacing {
        /// The new file.
        file: BufWriter<File>,
        /// Its name; dropping it removes the file.
        temporary: TempPath,
        /// The file asked for.
        path: PathBuf,
    },
    /// A pipe or a device: it can only be written to, and must never be replaced.
    Special(BufWriter<File>),
}

impl Output {
    /// Opens the output; no path or `-` is stdout.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            let terminal = io::stdout();
            let is_seen = terminal.is_terminal();
            return Ok(if is_seen { Self::Terminal(terminal) } else { Self::Stdout(stdout()) });
        };
        // A link stays a link: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let permissions = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self::Special(BufWriter::new(File::options().write(true).open(&path)?)));
            }
            Ok(metadata) => Some(metadata.permissions()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // As any new file: what the umask leaves of rw-rw-rw-.
        let new = Builder::new().prefix(".hedgerow-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        // The folder is what is wrong then, not a temporary name that nobody has heard of.
        let new = new.map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("{kind}: folder {}", folder.display()))
        })?;
        let (file, temporary) = new.into_parts();
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        Ok(Self::Replacing { file: BufWriter::new(file), temporary, path })
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
            Self::Replacing { file, .. } | Self::Special(file) => file.write_all(text.as_bytes()),
        }
    }

    /// Makes a file appear under its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(_) | Self::Terminal(_) => Ok(()),
            Self::Special(mut file) => file.flush(),
            Self::Replacing { file, temporary, path } => {
                // Renaming may reach the disk before the data does: a crash would leave an empty file.
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                temporary.persist(path).map_err(|error| error.error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder for the test").path().join("gone");
        let error = Output::open(Some(&folder.join("out.txt"))).err().expect("no folder").to_string();
        assert_eq!(error, format!("entity not found: folder {}", folder.display()));
    }
}
