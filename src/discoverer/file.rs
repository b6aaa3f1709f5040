//! Members that a file lists: a JSON array, looked at each second.
//!
//! By looking, not by inotify: so it works on network file systems, and where a link is put in place of another. A file of zero octets is
//! one that is being written; `[]` is a list without members.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep_until;

use crate::discover::{Entry, Item, News};
use crate::files;
use crate::net::tasks::blocking;

/// What tells a file from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Looks at a file for ever. What it says goes to `tell`.
pub(super) async fn run(file: PathBuf, tell: impl AsyncFn(News)) {
    let mut known: Option<Version> = None;
    loop {
        let path = file.clone();
        let (version, news) = blocking(move || look(&path, known)).await;
        known = version;
        tell(news).await;
        sleep_until((Instant::now() + LOOK).into()).await;
    }
}

/// Reads a file unless it is as it was.
fn look(file: &Path, known: Option<Version>) -> (Option<Version>, News) {
    match version_of(file) {
        Ok(version) if Some(version) == known => (known, News::Confirmed),
        Ok(version) => match read(file) {
            Ok(items) => (Some(version), News::Listed(items)),
            // It is looked at again, and told again if it still is so.
            Err(reason) => (None, News::Failed(format!("{}: {reason}", file.display()))),
        },
        Err(error) => (None, News::Failed(format!("{}: {error}", file.display()))),
    }
}

fn version_of(file: &Path) -> std::io::Result<Version> {
    let metadata = fs::metadata(file)?;
    Ok(Version {
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Reads the items of a file, each by itself.
fn read(file: &Path) -> Result<Vec<Item>, String> {
    let mut octets = Vec::new();
    let opened = files::open(file).map_err(|error| error.to_string())?;
    opened.take(MAX_LEN as u64 + 1).read_to_end(&mut octets).map_err(|error| error.to_string())?;
    if octets.len() > MAX_LEN {
        return Err(format!("more than {MAX_LEN} octets"));
    }
    if octets.is_empty() {
        return Err("it is empty: it is being written, or else write [] for no members".to_owned());
    }
    let items: Vec<Value> = serde_json::from_slice(&octets).map_err(|error| format!("no array of members: {error}"))?;
    let item = |(index, value): (usize, &Value)| (format!("[{index:05}]"), Entry::from_value(value));
    Ok(items.iter().enumerate().map(item).collect())
}

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Octets of a file at most.
const MAX_LEN: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_is_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("members.json");
        let failed = |news: &News, what: &str| matches!(news, News::Failed(reason) if reason.contains(what));
        let (known, news) = look(&file, None);
        assert!(failed(&news, "No such file"), "{news:?}");
        let write = |text: &str| {
            // By another name, as whoever writes such files should.
            let fresh = folder.path().join("fresh");
            fs::write(&fresh, text).expect("our own folder");
            fs::rename(&fresh, &file).expect("our own folder");
        };
        write(r#"[{"address":"192.0.2.1:53"},{"address":7}]"#);
        let (known, news) = look(&file, known);
        let News::Listed(items) = news else { panic!("{news:?}") };
        assert_eq!(items[0], ("[00000]".to_owned(), Ok(Entry::at(([192, 0, 2, 1], 53).into()))));
        assert_eq!(items[1], ("[00001]".to_owned(), Err("address: expected a string".to_owned())));
        assert_eq!(look(&file, known), (known, News::Confirmed));
        write("");
        assert!(failed(&look(&file, known).1, "it is empty"));
        write(r#"[{"address":"192.0.2.1:53"},"#);
        assert!(failed(&look(&file, known).1, "no array of members"));
        write(r#"{"address":"192.0.2.1:53"}"#);
        assert!(failed(&look(&file, known).1, "no array of members"));
        write("[]");
        assert_eq!(look(&file, known).1, News::Listed(Vec::new()));
    }
}
