//! Members from a file: a JSON array, polled each second.
//!
//! Polling works on network file systems, and when a link is replaced, unlike inotify. An empty file is one
//! that is being written; `[]` is a list without members.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use net::tasks::blocking;
use serde_json::Value;
use tokio::time::sleep_until;

use crate::control::pools::discover::{Item, MemberEntry, SourceNews};
use crate::files;

/// The inode, the length, and the times of the last changes of content and metadata.
type FileVersion = (u64, u64, [i64; 4]);

pub(super) async fn run(file: PathBuf, report: impl AsyncFn(SourceNews)) {
    let mut known: Option<FileVersion> = None;
    loop {
        let path = file.clone();
        let (version, news) = blocking(move || look(&path, known)).await;
        known = version;
        report(news).await;
        sleep_until((Instant::now() + LOOK).into()).await;
    }
}

fn look(file: &Path, known: Option<FileVersion>) -> (Option<FileVersion>, SourceNews) {
    match version_of(file) {
        Ok(version) if Some(version) == known => (known, SourceNews::Confirmed),
        Ok(version) => match read(file) {
            Ok(items) => (Some(version), SourceNews::Listed(items)),
            // The next poll reads the file again, and repeats the error if it persists.
            Err(reason) => (None, SourceNews::Failed(format!("{}: {reason}", file.display()))),
        },
        Err(error) => (None, SourceNews::Failed(format!("{}: {error}", file.display()))),
    }
}

fn version_of(file: &Path) -> std::io::Result<FileVersion> {
    let metadata = fs::metadata(file)?;
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    Ok((metadata.ino(), metadata.len(), times))
}

fn read(file: &Path) -> Result<Vec<Item>, String> {
    let mut octets = Vec::new();
    let opened = files::open(file).map_err(|error| error.to_string())?;
    opened.take(MAX_LEN as u64 + 1).read_to_end(&mut octets).map_err(|error| error.to_string())?;
    if octets.len() > MAX_LEN {
        return Err(format!("more than {MAX_LEN} octets"));
    }
    if octets.is_empty() {
        return Err("it is empty: write [] for no members".to_owned());
    }
    let items: Vec<Value> = serde_json::from_slice(&octets).map_err(|error| format!("no array of members: {error}"))?;
    let item = |(index, value): (usize, &Value)| (format!("[{index:05}]"), MemberEntry::from_value(value));
    Ok(items.iter().enumerate().map(item).collect())
}

const LOOK: Duration = Duration::from_secs(1);

const MAX_LEN: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_is_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("members.json");
        let failed =
            |news: &SourceNews, what: &str| matches!(news, SourceNews::Failed(reason) if reason.contains(what));
        let (known, news) = look(&file, None);
        assert!(failed(&news, "No such file"), "{news:?}");
        let write = |text: &str| {
            // Under another name first, as writers of such files should do.
            let fresh = folder.path().join("fresh");
            fs::write(&fresh, text).expect("our own folder");
            fs::rename(&fresh, &file).expect("our own folder");
        };
        write(r#"[{"address":"192.0.2.1:53"},{"address":7}]"#);
        let (known, news) = look(&file, known);
        let SourceNews::Listed(items) = news else { panic!("{news:?}") };
        assert_eq!(items[0], ("[00000]".to_owned(), Ok(MemberEntry::at(([192, 0, 2, 1], 53).into()))));
        assert_eq!(items[1], ("[00001]".to_owned(), Err("address: expected a string".to_owned())));
        assert_eq!(look(&file, known), (known, SourceNews::Confirmed));
        write("");
        assert!(failed(&look(&file, known).1, "it is empty"));
        write(r#"[{"address":"192.0.2.1:53"},"#);
        assert!(failed(&look(&file, known).1, "no array of members"));
        write(r#"{"address":"192.0.2.1:53"}"#);
        assert!(failed(&look(&file, known).1, "no array of members"));
        write("[]");
        assert_eq!(look(&file, known).1, SourceNews::Listed(Vec::new()));
    }
}
