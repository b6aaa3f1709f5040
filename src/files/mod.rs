//! The files that an operator names. Only regular files are read, and files are written whole ([`NewFile`]).
//!
//! A FIFO, a device or a socket may block, and may deliver other data at a reload. Each is refused before it
//! is opened, because opening a FIFO blocks, and opening some devices has effects. A stalled disk can still
//! block forever, so a thread that others wait for must not call these functions.

mod new_file;

pub use self::new_file::{NewFile, Readers};

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file.
///
/// # Errors
/// If it is not a regular file, with its kind and a remedy; or if it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    #[cfg(feature = "faults")]
    net::faults::on_open(path);
    check(&fs::metadata(path)?)?;
    // A FIFO that has replaced the file since the check must not block either.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file.
///
/// # Errors
/// If the file cannot be opened or read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    open(path)?.read_to_end(&mut octets)?;
    Ok(octets)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let name = match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO (a pipe)",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let remedy = match kind.is_dir() {
        true => "",
        false => ", since it is read again at each reload: write its content to a file and name that file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {name}, expected a regular file{remedy}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "content").expect("a file of the test");
        symlink("file", at("link")).expect("a link");
        symlink("fifo", at("link to a fifo")).expect("a link");
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("our own folder");
        let _socket = UnixListener::bind(at("socket")).expect("our own folder");
        for name in ["file", "link"] {
            assert_eq!(read(&at(name)).expect("a regular file"), b"content", "{name}");
        }
        let check = |path: &Path, reported: &str| {
            let error = read(path).expect_err("no regular file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().starts_with(reported), "{error}");
        };
        let remedy = "expected a regular file, since it is read again at each reload: write its content to a file";
        check(&at("fifo"), &format!("it is a FIFO (a pipe), {remedy}"));
        check(&at("link to a fifo"), &format!("it is a FIFO (a pipe), {remedy}"));
        check(&at("socket"), &format!("it is a socket, {remedy}"));
        check(Path::new("/dev/zero"), &format!("it is a device, {remedy}"));
        check(folder.path(), "it is a folder, expected a regular file");
        assert_eq!(read(&at("none")).expect_err("nothing there").kind(), io::ErrorKind::NotFound);
    }
}
