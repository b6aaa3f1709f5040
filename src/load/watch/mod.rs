//! Watching the files of a config for changed content (`watch = true`).
//!
//! The watcher polls. Notifications (inotify) have their own limits, miss changes on some file systems, and
//! lose a file when a link above it changes, which is how Kubernetes updates all files. A poll follows links
//! anew, and takes a microsecond or two.
//!
//! ```text
//!   reload thread                            thread of the watch
//!   begin_read ─▶ read config and zones ─▶   these files, broken ones too, with their digests
//!   end of read                              look ─▶ settled (`settling.rs`) ─▶ changed? ─▶ read again
//! ```
//!
//! A broken file has a digest too, so it is reported once, and read again when its content changes. A file
//! that changes while it is being read is read once more.

mod settling;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use self::settling::{Settling, SettlingStep};
use super::disk::{self, Stamp};

/// The handle that gives the watch thread its files and turns it on and off. Clones share one thread.
#[derive(Clone, Debug, Default)]
pub struct FileWatch(Arc<WatchState>);

#[derive(Debug, Default)]
struct WatchState {
    mail: Mutex<Mail>,
    come: Condvar,
}

/// A file, with the digest of its content if the reader knows it.
type ReadFile = (PathBuf, Option<u64>);

#[derive(Debug, Default)]
struct Mail {
    is_on: bool,
    files: Vec<ReadFile>,
    /// The start of the current read, by the file system's clock.
    began: Option<(i64, i64)>,
    /// The start of the last read, until the thread takes it.
    read: Option<(i64, i64)>,
}

/// A running read of all files; it ends when this is dropped.
#[derive(Debug)]
pub struct ReadingGuard(FileWatch);

impl Drop for ReadingGuard {
    fn drop(&mut self) {
        self.0.post(|mail| mail.read = mail.began.take());
    }
}

impl FileWatch {
    /// Marks the start of a read of the config and its files, which ends when the guard is dropped.
    pub(super) fn begin_read(&self) -> ReadingGuard {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        self.post(|mail| mail.began = Some((now.tv_sec, now.tv_nsec)));
        ReadingGuard(self.clone())
    }

    /// Sets the files that were read or could not be read, with the digest of their content if known.
    pub(super) fn set_files(&self, files: Vec<ReadFile>) {
        self.post(|mail| mail.files = files);
    }

    /// Turns the reports of changes on or off.
    pub fn set_on(&self, is_on: bool) {
        self.post(|mail| mail.is_on = is_on);
    }

    /// Returns the watcher, which runs on a thread that has nothing else to do.
    pub fn watcher(&self) -> Watcher {
        let now = Instant::now();
        Watcher {
            shared: Arc::clone(&self.0),
            files: BTreeMap::new(),
            settling: Settling::new(now),
            next: now,
            is_new: false,
        }
    }

    fn post(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut lock(&self.0.mail));
        self.0.come.notify_all();
    }
}

/// Polls the files.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<WatchState>,
    files: BTreeMap<PathBuf, WatchedFile>,
    settling: Settling,
    next: Instant,
    /// True if the files were read since the last poll; they may have changed meanwhile.
    is_new: bool,
}

#[derive(Debug)]
struct WatchedFile {
    /// The stamp at the last poll; `None` if the file does not exist.
    stamp: Option<Stamp>,
    /// The digest when it was read; `Some(None)` if it was unreadable, `None` if it was changing just then.
    said: Option<Option<u64>>,
    is_changed: bool,
    /// True if the last change was so recent that another one could leave the same stamp.
    is_fresh: bool,
}

impl Watcher {
    /// Waits until the content of files changes, and returns these files.
    pub fn wait(&mut self) -> Vec<PathBuf> {
        loop {
            if let Some((files, began)) = self.wait_for_turn() {
                self.set_files(&files, began);
                continue;
            }
            let changed = self.look(Instant::now());
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// Waits until a poll is due, or until files were read. Returns these files, and the start of the read.
    /// Nothing is due during a read or while the watch is off.
    fn wait_for_turn(&self) -> Option<(Vec<ReadFile>, (i64, i64))> {
        let mut mail = lock(&self.shared.mail);
        loop {
            mail = if mail.is_on && mail.began.is_none() {
                if let Some(began) = mail.read.take() {
                    return Some((mail.files.clone(), began));
                }
                let pause = self.next.saturating_duration_since(Instant::now());
                if pause.is_zero() {
                    return None;
                }
                self.shared.come.wait_timeout(mail, pause).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.shared.come.wait(mail).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Watches these files from now on. They were read from `began` on.
    fn set_files(&mut self, files: &[ReadFile], began: (i64, i64)) {
        let mut earlier = std::mem::take(&mut self.files);
        for (file, read) in files {
            let stamp = disk::stamp(file);
            let known = earlier.remove(file).filter(|known| known.stamp == stamp && !known.is_changed);
            let known = known.and_then(|known| known.said);
            let said = match read.map(Some).or(known) {
                Some(said) => Some(said),
                None if stamp.is_some_and(|stamp| !stamp.is_before(began)) => None,
                None => Some(disk::digest_of(file)),
            };
            let is_fresh = stamp.is_some_and(|stamp| !stamp.is_settled());
            // The stamp may be newer than the content that was read.
            let is_changed = known.is_none() || known != said;
            self.files.insert(file.clone(), WatchedFile { stamp, said, is_changed, is_fresh });
        }
        let now = Instant::now();
        (self.settling, self.next, self.is_new) = (Settling::new(now), now, true);
    }

    /// Polls once. Returns the files with other content, if a comparison was due.
    fn look(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut is_changed = std::mem::take(&mut self.is_new);
        for (file, watched) in &mut self.files {
            let stamp = disk::stamp(file);
            let mut is_other = std::mem::replace(&mut watched.stamp, stamp) != stamp;
            if watched.is_fresh && stamp.is_none_or(|stamp| stamp.is_settled()) {
                (watched.is_fresh, is_other) = (false, true);
            }
            is_changed |= is_other;
            watched.is_changed |= is_other;
        }
        match self.settling.on_look(is_changed, now) {
            SettlingStep::LookAt(at) => {
                self.next = at;
                Vec::new()
            }
            SettlingStep::Compare(at) => {
                self.next = at;
                self.compare()
            }
        }
    }

    /// Returns the files whose content has changed since the read. Each change is reported once.
    fn compare(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (file, watched) in self.files.iter_mut().filter(|(_, watched)| watched.is_changed) {
            watched.is_changed = false;
            let says = Some(disk::digest_of(file));
            if std::mem::replace(&mut watched.said, says) != says {
                changed.push(file.clone());
            }
        }
        changed
    }
}

/// No code that holds the lock can leave the mail inconsistent.
fn lock(mail: &Mutex<Mail>) -> MutexGuard<'_, Mail> {
    mail.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// A watch of files in a temporary folder, and its reports.
    struct Site {
        folder: TempDir,
        watch: FileWatch,
        reported: Receiver<Vec<PathBuf>>,
    }

    impl Site {
        /// Writes these files, and reports them as read.
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder for the test");
            for file in files {
                fs::create_dir_all(folder.path().join(file).parent().expect("below ours")).expect("ours");
                fs::write(folder.path().join(file), "one").expect("ours");
            }
            let watch = FileWatch::default();
            let (post, reported) = channel();
            let mut watcher = watch.watcher();
            // The thread ends with the process.
            thread::spawn(move || while post.send(watcher.wait()).is_ok() {});
            let site = Self { folder, watch, reported };
            site.read(files);
            site.watch.set_on(true);
            site
        }

        fn path(&self, file: &str) -> PathBuf {
            self.folder.path().join(file)
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.path(file), text).expect("ours");
        }

        /// Reports a read as the reload thread does.
        fn read(&self, files: &[&str]) {
            let _reading = self.watch.begin_read();
            self.watch
                .set_files(files.iter().map(|file| (self.path(file), disk::digest_of(&self.path(file)))).collect());
        }

        /// Checks the next report.
        fn expect(&self, files: &[&str]) {
            let reported = self.reported.recv_timeout(Duration::from_secs(15)).expect("a change is reported in time");
            let expected: Vec<_> = files.iter().map(|file| self.path(file)).collect();
            assert_eq!(reported, expected);
        }
    }

    #[test]
    fn files_that_say_something_else_are_told() {
        let site = Site::new(&["a", "b"]);
        // An edit in place, together with another file; a missing file is not reported.
        site.write("a", "two");
        site.write("b", "two");
        site.expect(&["a", "b"]);
        site.read(&["a", "b", "c"]);
        site.write("c", "one");
        site.expect(&["c"]);
        site.read(&["a", "b", "c"]);
        // Equal content is no change; by rename, of equal length.
        site.write("a", "two");
        site.write("new", "six");
        fs::rename(site.path("new"), site.path("b")).expect("ours");
        site.expect(&["b"]);
        site.read(&["a", "b"]);
        fs::remove_file(site.path("a")).expect("ours");
        site.expect(&["a"]);
        site.read(&["a", "b"]);
        site.write("a", "two");
        site.expect(&["a"]);
    }

    #[test]
    fn a_link_above_that_leads_elsewhere_changes_all_files() {
        let site = Site::new(&["..one/a", "..one/b"]);
        let at = |name: &str| site.folder.path().join(name);
        // As Kubernetes lays out a volume: a -> ..data/a, ..data -> ..one.
        symlink("..one", at("..data")).expect("ours");
        symlink("..data/a", at("a")).expect("ours");
        symlink("..data/b", at("b")).expect("ours");
        site.read(&["a", "b"]);
        fs::create_dir(at("..two")).expect("ours");
        site.write("..two/a", "one");
        site.write("..two/b", "two");
        symlink("..two", at("..new")).expect("ours");
        fs::rename(at("..new"), at("..data")).expect("ours");
        site.expect(&["b"]);
        // A folder in its place.
        site.read(&["..two/b"]);
        fs::create_dir(at("three")).expect("ours");
        site.write("three/b", "three");
        fs::rename(at("..two"), at("gone")).expect("ours");
        fs::rename(at("three"), at("..two")).expect("ours");
        site.expect(&["..two/b"]);
    }

    #[test]
    fn what_is_changed_while_it_is_read_is_read_once_more() {
        let site = Site::new(&["a"]);
        let reading = site.watch.begin_read();
        site.write("a", "two");
        drop(reading);
        site.expect(&["a"]);
    }

    #[test]
    fn while_nobody_wants_to_know_nothing_is_told() {
        let site = Site::new(&["a"]);
        site.watch.set_on(false);
        site.write("a", "two");
        site.read(&["a"]);
        site.watch.set_on(true);
        site.write("a", "three");
        site.expect(&["a"]);
        assert!(site.reported.try_recv().is_err());
    }
}
