//! Files on disk: reads them, and detects later changes without reading.

use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use foldhash::quality::FixedState;

use super::parallel::is_large;
use crate::files;

#[derive(Clone, Debug)]
pub(super) struct SeenFile {
    pub(super) path: PathBuf,
    pub(super) digest: u64,
    stamp: Stamp,
    /// True if the file had been unchanged for a while when it was read. Otherwise another change could leave
    /// the same stamp.
    pub(super) is_settled: bool,
}

impl SeenFile {
    /// Returns true if the file is certainly unchanged, judged by its stamp.
    pub(super) fn is_same(&self) -> bool {
        self.is_settled && self.has_same_stamp()
    }

    pub(super) fn has_same_stamp(&self) -> bool {
        stamp(&self.path) == Some(self.stamp)
    }
}

/// Metadata that changes with a file's content: an edit in place sets the times, a renamed file has another
/// inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    len: u64,
    /// The modification time, which tools can set.
    modified: (i64, i64),
    /// The change time, which only the system sets.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns true if the last change was before this moment of the file system's clock.
    pub(super) fn is_before(&self, moment: (i64, i64)) -> bool {
        self.changed < moment
    }

    /// Returns true if the last change is so old that another one would change the stamp: clocks of file
    /// systems tick slowly, some of them once in two seconds.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(now).is_ok_and(|now| self.changed.0 < now - 2)
    }
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

pub(super) fn digest_of(path: &Path) -> Option<u64> {
    files::read(path).ok().map(|octets| digest(&octets))
}

pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, SeenFile)> {
    let mut file = files::open(path)?;
    // Read before the content, so that a change during the read changes the stamp too.
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    let is_settled = stamp.is_settled();
    let len = usize::try_from(metadata.len()).unwrap_or(0);
    // Allocators keep freed memory, except for large blocks, which go back to the system: for glibc above 32
    // MiB at most. Reserved memory that is not written to costs nothing.
    let mut octets = Vec::with_capacity(if is_large(len) { len.max(WHOLE_BLOCK) } else { len });
    file.read_to_end(&mut octets)?;
    let digest = digest(&octets);
    Ok((octets, SeenFile { path: path.to_owned(), digest, stamp, is_settled }))
}

/// Reads a file that a zone file includes: `path`, which must be below the zone file's folder after links are
/// followed.
pub(super) fn read_below(folder: &Path, path: &str) -> Result<(Vec<u8>, SeenFile), String> {
    let file = folder.join(path);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let canonical = |path: &Path| path.canonicalize().map_err(|error| error.to_string());
    let (folder, found) = (canonical(folder)?, canonical(&file)?);
    if !found.starts_with(&folder) {
        return Err("a symbolic link leads out of the folder of the zone file".to_owned());
    }
    let (octets, seen) = read(&found).map_err(|error| error.to_string())?;
    // Keeps the path as written, because the target of a link may change.
    Ok((octets, SeenFile { path: file, ..seen }))
}

/// Bytes of a block that an allocator returns to the system when it is freed.
const WHOLE_BLOCK: usize = 33 << 20;

/// A short digest of a file's content. Authors of zone files have no reason to forge collisions.
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
