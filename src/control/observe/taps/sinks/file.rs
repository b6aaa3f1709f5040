//! A file of records: records are appended, the size triggers rotation, and a removed file is opened anew.
//!
//! A file of frames begins and ends with a control frame, so an earlier file is renamed to `.1`.
//!
//! Two processes may have the same file of lines open while one takes over from the other. If the path names
//! another file when it is to be rotated, the other process has rotated it.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::dnstap::frames::{ControlFrame, control_frame};
use super::{Framing, Sink};

#[derive(Debug)]
pub(in crate::control::observe::taps) struct RecordFile {
    framing: Framing,
    path: PathBuf,
    rotate: Option<u64>,
    keep: u16,
    open: Option<OpenFile>,
    /// The time of the next rotation attempt after a failure.
    rotates_from: Option<Instant>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    len: u64,
    /// False for a FIFO or device.
    is_regular: bool,
}

impl RecordFile {
    pub(in crate::control::observe::taps) fn new(
        framing: Framing,
        path: PathBuf,
        rotate: Option<u64>,
        keep: u16,
    ) -> Self {
        Self { framing, path, rotate, keep, open: None, rotates_from: None }
    }

    fn opened(&mut self) -> io::Result<&mut OpenFile> {
        match &mut self.open {
            Some(_) => {}
            none => *none = Some(OpenFile::at(&self.path, self.framing)?),
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Rotates the file. If that fails, the problem is logged and lines go to the old file.
    fn rotated(&mut self) -> io::Result<&mut OpenFile> {
        let now = Instant::now();
        if self.rotates_from.is_some_and(|from| now < from) {
            return self.opened();
        }
        let is_ours = self.open.as_ref().is_some_and(|open| is_at(&open.file, &self.path));
        match if is_ours { rotate(&self.path, self.keep) } else { Ok(()) } {
            Ok(()) => {
                self.rotates_from = None;
                self.open = None;
            }
            Err(error) => {
                self.rotates_from = Some(now + ROTATE_AGAIN);
                tracing::warn!(file = %self.path.display(), %error, "query_log: the file cannot be rotated and keeps growing");
            }
        }
        self.opened()
    }
}

impl Sink for RecordFile {
    /// Writes only whole records to a regular file.
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        // A removed file has no reader.
        self.open.take_if(|open| open.is_regular && !has_name(&open.file));
        let rotate = self.rotate;
        let open = self.opened()?;
        let is_full =
            open.is_regular && open.len > 0 && rotate.is_some_and(|most| open.len + octets.len() as u64 > most);
        let framing = self.framing;
        let open = if is_full { self.rotated()? } else { self.opened()? };
        let taken = open.file.write(octets)?;
        open.len += taken as u64;
        if taken == octets.len() || !open.is_regular {
            return Ok(taken);
        }
        // The disk is full. The incomplete record is cut off, unless another process has appended behind it;
        // then a line feed separates both.
        let (_, whole) = framing.whole(&octets[..taken]);
        let end = open.len - (taken - whole) as u64;
        match open.file.metadata()?.len() == open.len {
            true => open.file.set_len(end)?,
            false => drop(open.file.write(b"\n")),
        }
        open.len = end;
        if whole == 0 { Err(Errno::NOSPC.into()) } else { Ok(whole) }
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.open.as_ref().map(|open| (open.file.as_fd(), PollFlags::OUT))
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    /// Keeps a file of frames unless its path names another one now.
    fn reopen(&mut self) {
        let is_kept = |open: &OpenFile| self.framing == Framing::Frames && is_at(&open.file, &self.path);
        if !self.open.as_ref().is_some_and(is_kept) {
            self.end(Instant::now());
            self.open = None;
        }
    }

    fn end(&mut self, _until: Instant) {
        if let (Some(open), Framing::Frames) = (&mut self.open, self.framing) {
            let _ = open.file.write_all(&control_frame(ControlFrame::Stop));
        }
    }
}

impl OpenFile {
    /// Opens a file to append to, and creates it if necessary. Does not wait for the reader of a FIFO or for
    /// room in it.
    fn at(path: &Path, framing: Framing) -> io::Result<Self> {
        let is_earlier = |metadata: Metadata| metadata.is_file() && metadata.len() > 0;
        if framing == Framing::Frames && fs::metadata(path).is_ok_and(is_earlier) {
            rotate(path, 1)?;
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file =
            File::options().append(true).create(true).mode(MODE).custom_flags(flags.bits() as i32).open(path)?;
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a file, not a block device"));
        }
        let start = match framing {
            Framing::Lines => Vec::new(),
            Framing::Frames => control_frame(ControlFrame::Start),
        };
        file.write_all(&start)?;
        Ok(Self { file, len: metadata.len() + start.len() as u64, is_regular: metadata.is_file() })
    }
}

/// Returns true if the open file still has a name in some directory.
fn has_name(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|open| fs::metadata(path).is_ok_and(|there| place(there) == place(open)))
}

/// Renames a file to `.1`, the previous `.1` to `.2`, and so on. The last one is deleted.
fn rotate(path: &Path, keep: u16) -> io::Result<()> {
    let numbered = |number: u16| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..keep).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, numbered(1))
}

/// Write access for the owner, read access for the group: queried names are private.
const MODE: u32 = 0o640;

const ROTATE_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_file_is_appended_to_and_rotated_by_its_size() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("log");
        let at = |number: u16| folder.path().join(format!("log.{number}"));
        fs::write(&path, "old\n").expect("our own folder");
        let mut file = RecordFile::new(Framing::Lines, path.clone(), Some(10), 2);
        assert_eq!(file.write(b"one\n").expect("room"), 4);
        assert_eq!(read(&path), "old\none\n");
        assert_eq!(file.write(b"two\n").expect("room"), 4);
        assert_eq!((read(&path), read(&at(1))), ("two\n".into(), "old\none\n".into()));
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, MODE);
        file.write(b"longer than ten\n").expect("a file has at least what is written at a time");
        file.write(b"3\n").expect("room");
        assert_eq!([read(&path), read(&at(1)), read(&at(2))], ["3\n", "longer than ten\n", "two\n"]);
        assert!(!at(3).exists());
    }

    #[test]
    fn what_is_removed_is_made_anew_and_what_is_moved_is_written_to_until_it_is_reopened() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let mut file = RecordFile::new(Framing::Lines, path.clone(), None, 1);
        file.write(b"one\n").expect("room");
        fs::remove_file(&path).expect("it is there");
        file.write(b"two\n").expect("room");
        assert_eq!(read(&path), "two\n");
        fs::rename(&path, &moved).expect("it is there");
        file.write(b"three\n").expect("room");
        file.reopen();
        file.write(b"four\n").expect("room");
        assert_eq!((read(&moved), read(&path)), ("two\nthree\n".into(), "four\n".into()));
        fs::remove_dir_all(folder.path()).expect("our own folder");
        assert_eq!(file.write(b"five\n").expect_err("no folder").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_another_process_has_rotated_is_not_rotated_again() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("log");
        let new = || RecordFile::new(Framing::Lines, path.clone(), Some(4), 5);
        let (mut one, mut other) = (new(), new());
        one.write(b"a\n").expect("room");
        other.write(b"b\n").expect("room");
        one.write(b"c\n").expect("room");
        other.write(b"d\n").expect("room");
        assert_eq!(read(&folder.path().join("log.1")), "a\nb\nc\n");
        assert_eq!(read(&path), "d\n");
        assert!(!folder.path().join("log.2").exists());
    }

    #[test]
    fn a_full_device_is_an_error_and_a_folder_is_no_file() {
        let mut full = RecordFile::new(Framing::Lines, "/dev/full".into(), Some(1), 1);
        assert_eq!(full.write(b"one\n").expect_err("it is full").kind(), io::ErrorKind::StorageFull);
        let folder = tempfile::tempdir().expect("a folder for the test");
        RecordFile::new(Framing::Lines, folder.path().into(), None, 1).write(b"one\n").expect_err("a folder");
    }
}
