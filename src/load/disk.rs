//! Files on disk: reading them, and telling later, without reading, whether they are still the same.

use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use foldhash::quality::FixedState;

use super::parallel::is_large;
use crate::files;

/// A file as it was when it was read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) digest: u64,
    /// How it looked from outside.
    stamp: Stamp,
    /// Whether it had not been touched for a while when it was read. If it had, another change could leave the same stamp.
    is_settled: bool,
}

impl Seen {
    /// Whether the file is the same for sure, by a look from outside.
    pub(super) fn is_same(&self) -> bool {
        self.is_settled && fs::metadata(&self.path).is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

/// What changes with a file's content, whoever changes it: an edit in place sets the times, a file that is moved here has
/// another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Device and number of the file.
    file: (u64, u64),
    /// Octets.
    len: u64,
    /// Of the last change of its content, which tools may set at will.
    modified: (i64, i64),
    /// Of the last change of anything, which only the system sets.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file.
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change was before this moment, by the clock of files.
    pub(super) fn is_before(&self, moment: (i64, i64)) -> bool {
        self.changed < moment
    }

    /// Whether the last change is so long ago that another one would be seen in the stamp: clocks of file systems tick
    /// slowly, some of them once in two seconds.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(now).is_ok_and(|now| self.changed.0 < now - 2)
    }
}

/// How a file looks from outside; none if it is not there.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

/// What a file says, by its digest; none if it cannot be read.
pub(super) fn digest_of(path: &Path) -> Option<u64> {
    files::read(path).ok().map(|octets| digest(&octets))
}

/// Reads a file.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Seen)> {
    let mut file = files::open(path)?;
    // Before the content: what changes it while it is being read changes this too.
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    let is_settled = stamp.is_settled();
    let len = usize::try_from(metadata.len()).unwrap_or(0);
    // Allocators keep what is freed, but for blocks of some size, which go back to the system: for glibc above 32 MiB at
    // most. What is reserved and not written to costs nothing.
    let mut octets = Vec::with_capacity(if is_large(len) { len.max(WHOLE_BLOCK) } else { len });
    file.read_to_end(&mut octets)?;
    let digest = digest(&octets);
    Ok((octets, Seen { path: path.to_owned(), digest, stamp, is_settled }))
}

/// Reads a file that a zone file includes: `path`, below the folder of the zone file, wherever symbolic links lead. Says why
/// if that cannot be.
pub(super) fn read_below(folder: &Path, path: &str) -> Result<(Vec<u8>, Seen), String> {
    let file = folder.join(path);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let canonical = |path: &Path| path.canonicalize().map_err(|error| error.to_string());
    let (folder, found) = (canonical(folder)?, canonical(&file)?);
    if !found.starts_with(&folder) {
        return Err("a symbolic link leads out of the folder of the zone file".to_owned());
    }
    let (octets, seen) = read(&found).map_err(|error| error.to_string())?;
    // By its path as it was written: a link may lead elsewhere tomorrow.
    Ok((octets, Seen { path: file, ..seen }))
}

/// Octets of a block that an allocator gives back as soon as it is freed.
const WHOLE_BLOCK: usize = 33 << 20;

/// A short stand-in for the content of a file. Those who write zone files have no reason to make two of them look alike.
fn digest(octets: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(octets);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_lies_below_the_folder_is_read_and_nothing_else() {
        let outer = tempfile::tempdir().expect("a folder for the test");
        let zones = outer.path().join("zones");
        fs::create_dir_all(zones.join("sub")).expect("a folder");
        for (file, text) in [("secret", "s"), ("zones/a", "a"), ("zones/sub/b", "b")] {
            fs::write(outer.path().join(file), text).expect("a file");
        }
        for (target, link) in [("a", "inner"), ("../a", "sub/up"), ("../secret", "outer"), ("..", "all")] {
            symlink(target, zones.join(link)).expect("a link");
        }
        let check = |path: &str, expected: Result<&str, &str>| {
            let found = read_below(&zones, path).map(|(octets, _)| String::from_utf8(octets).expect("text"));
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{path}");
        };
        check("a", Ok("a"));
        check("sub/b", Ok("b"));
        check("inner", Ok("a"));
        check("sub/up", Ok("a"));
        check("outer", Err("a symbolic link leads out of the folder of the zone file"));
        check("all/secret", Err("a symbolic link leads out of the folder of the zone file"));
        check("sub", Err("it is a folder, expected a regular file"));
        check("missing", Err("No such file or directory (os error 2)"));
    }

    #[test]
    fn a_file_that_was_just_written_is_not_trusted_to_be_the_same() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("f");
        fs::write(&file, "one").expect("a file");
        let (octets, mut seen) = read(&file).expect("it is there");
        assert_eq!((octets.as_slice(), seen.is_same()), (&b"one"[..], false));
        seen.is_settled = true;
        assert!(seen.is_same(), "nothing has changed");
        fs::write(&file, "three").expect("a file");
        assert!(!seen.is_same(), "another length");
        assert_ne!(read(&file).expect("it is there").1.digest, seen.digest);
        fs::remove_file(&file).expect("it is there");
        assert!(!seen.is_same(), "gone");
    }
}
