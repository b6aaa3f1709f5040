//! A file that appears under its name complete or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

/// The readers of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The readers that the umask allows. An existing file keeps its permissions.
    Usual,
    /// The owner alone, whatever the permissions of an existing file.
    Owner,
}

/// An open file. Dropped before [`NewFile::finish`], it leaves no trace in the file system.
#[derive(Debug)]
pub enum NewFile {
    /// A temporary file that will replace the target.
    Replacing {
        /// The temporary file, buffered.
        file: BufWriter<File>,
        /// The temporary name; dropping it removes the file.
        temporary: TempPath,
        /// The path of the target.
        path: PathBuf,
    },
    /// A pipe or a device: it can only be written to, and must never be replaced.
    Special(BufWriter<File>),
}

impl NewFile {
    /// Opens a file for writing. An existing file stays as it is until [`NewFile::finish`].
    ///
    /// # Errors
    /// If the path is a folder, or no file can be created beside it.
    pub fn open(path: &Path, readers: Readers) -> io::Result<Self> {
        // A link stays a link: its target is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let permissions = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                let file = File::options().write(true).open(&path)?;
                return Ok(Self::Special(BufWriter::with_capacity(BUFFER, file)));
            }
            Ok(metadata) => Some(metadata.permissions()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let folder = folder_of(&path);
        let mode = match readers {
            // As any new file: rw-rw-rw- less the umask.
            Readers::Usual => 0o666,
            Readers::Owner => 0o600,
        };
        let new = Builder::new().prefix(".hedgerow-").permissions(Permissions::from_mode(mode)).tempfile_in(folder);
        // The error names the folder, not the temporary file, which the operator does not know.
        let new = new.map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("{kind}: folder {}", folder.display()))
        })?;
        let (file, temporary) = new.into_parts();
        if let Some(permissions) = permissions.filter(|_| readers == Readers::Usual) {
            file.set_permissions(permissions)?;
        }
        Ok(Self::Replacing { file: BufWriter::with_capacity(BUFFER, file), temporary, path })
    }

    /// Gives the file its name, synced to the disk: after a crash there is the old file or the new one.
    ///
    /// # Errors
    /// If the disk is full, or the file cannot be renamed.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Special(mut file) => file.flush(),
            Self::Replacing { file, temporary, path } => {
                // Renaming may reach the disk before the data does: a crash would leave an empty file.
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                temporary.persist(&path).map_err(|error| error.error)?;
                // Syncs the new name to the disk. This is skipped for a folder that may be written but not
                // read.
                match File::open(folder_of(&path)) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    folder => folder?.sync_all(),
                }
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

const BUFFER: usize = 256 << 10;

impl Write for NewFile {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Self::Replacing { file, .. } | Self::Special(file) => file.write(content),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Replacing { file, .. } | Self::Special(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Writes a file completely.
    fn write(path: &Path, words: &str) {
        let mut file = NewFile::open(path, Readers::Usual).expect("a folder that can be written to");
        file.write_all(words.as_bytes()).expect("room for a few words");
        file.finish().expect("a name that is free, or a file that may be replaced");
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("out.txt");
        write(&path, "first");
        let mut given_up = NewFile::open(&path, Readers::Usual).expect("the folder is still there");
        given_up.write_all(b"half").expect("room for a word");
        given_up.flush().expect("room for a word");
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "first");
        write(&path, "second");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "second");
        assert_eq!(names(folder.path()), ["out.txt"]);
    }

    #[test]
    fn links_permissions_and_devices_stay_what_they_are() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (path, link) = (folder.path().join("out.txt"), folder.path().join("link"));
        write(&path, "first");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a file of the test");
        symlink(&path, &link).expect("a folder that can be written to");
        write(&link, "second");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "second");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        write(Path::new("/dev/null"), "nothing");
        assert!(!fs::metadata("/dev/null").expect("a device").is_file());
    }

    #[test]
    fn a_file_may_be_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("out.txt");
        write(&path, "first");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a file of the test");
        NewFile::open(&path, Readers::Owner).and_then(NewFile::finish).expect("a file that may be replaced");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_is_named_if_it_is_not_there_and_is_no_file() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let open = |path: &Path| NewFile::open(path, Readers::Usual).expect_err("no file can be there");
        let gone = folder.path().join("gone");
        assert_eq!(open(&gone.join("out.txt")).to_string(), format!("entity not found: folder {}", gone.display()));
        assert_eq!(open(folder.path()).kind(), io::ErrorKind::IsADirectory);
    }
}
