//! Watching the files of a config: notices when what they say has changed (`watch = true`).
//!
//! Files are looked at now and then. Other ways to hear of changes (inotify) have limits of their own, see nothing on some
//! file systems, and lose sight of a file when a link above it leads elsewhere, which is how Kubernetes changes them all. A look
//! follows links anew, and takes a microsecond or two.
//!
//! ```text
//!   reload thread                            thread of the watch
//!   begin_read ─▶ read config and zones ─▶   which files these were, broken ones too: what they say is known from now on
//!   its end                                  look ─▶ settled (`settling.rs`) ─▶ say something else? ─▶ have it read
//! ```
//!
//! What was read is not compared with what was there before it: a broken file is known by what it says, too, so that it is told
//! once, and read again when it says something else. What changes while it is being read is read once more.

mod settling;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use self::settling::{Settling, Step};
use super::disk::{self, Stamp};

/// Tells the thread of a watch which files are read and whether it is to look at them. A clone tells the same one.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Shared>);

/// What both sides know.
#[derive(Debug, Default)]
struct Shared {
    mail: Mutex<Mail>,
    /// Told of every change of it.
    come: Condvar,
}

/// What the thread is told.
#[derive(Debug, Default)]
struct Mail {
    /// Whether anybody wants to know.
    is_on: bool,
    /// What is read, and what it says as far as whoever reads knows that, by its digest.
    files: Vec<(PathBuf, Option<u64>)>,
    /// When the read began that is under way, by the clock of files.
    began: Option<(i64, i64)>,
    /// When the last one began; none once the thread knows.
    read: Option<(i64, i64)>,
}

/// A read of all files that is under way, until it is dropped.
#[derive(Debug)]
pub struct Reading(Watch);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.tell(|mail| mail.read = mail.began.take());
    }
}

impl Watch {
    /// The config and all that it names is about to be read, until the value that this returns is dropped.
    pub(super) fn begin_read(&self) -> Reading {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        self.tell(|mail| mail.began = Some((now.tv_sec, now.tv_nsec)));
        Reading(self.clone())
    }

    /// These are the files that are read, or that could not be, with what they say as far as that is known, by its digest.
    pub(super) fn set_files(&self, files: Vec<(PathBuf, Option<u64>)>) {
        self.tell(|mail| mail.files = files);
    }

    /// Whether anybody wants to know of changes.
    pub fn set_on(&self, is_on: bool) {
        self.tell(|mail| mail.is_on = is_on);
    }

    /// Looks at the files, for a thread that has nothing else to do.
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

    fn tell(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut lock(&self.0.mail));
        self.0.come.notify_all();
    }
}

/// Looks at files.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    /// What is known of each.
    files: BTreeMap<PathBuf, Watched>,
    settling: Settling,
    /// When to look again.
    next: Instant,
    /// The files were read since the last look: they are compared soon, for they may have changed meanwhile.
    is_new: bool,
}

/// A file that is looked at.
#[derive(Debug)]
struct Watched {
    /// How it looked the last time; none if it is not there.
    stamp: Option<Stamp>,
    /// What it said when it was read, by its digest; `Some(None)` if it could not be read, and none if it was changed just then.
    said: Option<Option<u64>>,
    /// It looks otherwise since it was compared.
    is_changed: bool,
    /// It was changed so shortly before it was looked at that another change could leave the same stamp: it is compared once
    /// more, later.
    is_fresh: bool,
}

/// What a watcher has to do.
enum Turn {
    /// Take note of what was read, and when that began.
    Read(Vec<(PathBuf, Option<u64>)>, (i64, i64)),
    /// Look.
    Look,
}

impl Watcher {
    /// Waits until files say something else than when they were read, and tells which.
    pub fn wait(&mut self) -> Vec<PathBuf> {
        loop {
            match self.turn() {
                Turn::Read(files, began) => self.set_files(&files, began),
                Turn::Look => {
                    let changed = self.look(Instant::now());
                    if !changed.is_empty() {
                        return changed;
                    }
                }
            }
        }
    }

    /// Waits for something to do: for nothing, while all is being read or nobody wants to know.
    fn turn(&self) -> Turn {
        let mut mail = lock(&self.shared.mail);
        loop {
            mail = if mail.is_on && mail.began.is_none() {
                if let Some(began) = mail.read.take() {
                    return Turn::Read(mail.files.clone(), began);
                }
                let pause = self.next.saturating_duration_since(Instant::now());
                if pause.is_zero() {
                    return Turn::Look;
                }
                self.shared.come.wait_timeout(mail, pause).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.shared.come.wait(mail).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Looks at these files from now on. They were read, from `began` on.
    fn set_files(&mut self, files: &[(PathBuf, Option<u64>)], began: (i64, i64)) {
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
            // What was read may be older than how the file looks now.
            let is_changed = known.is_none() || known != said;
            self.files.insert(file.clone(), Watched { stamp, said, is_changed, is_fresh });
        }
        let now = Instant::now();
        (self.settling, self.next, self.is_new) = (Settling::new(now), now, true);
    }

    /// Looks once; tells which files say something else, if that was to be found out now.
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
            Step::LookAt(at) => {
                self.next = at;
                Vec::new()
            }
            Step::Compare(at) => {
                self.next = at;
                self.compare()
            }
        }
    }

    /// The files that say something else than when they were read. They are not told again before they change again.
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

/// Nothing that is done while it is held can leave it half done.
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

    /// A watch of files in a folder of its own, and what it tells.
    struct Site {
        folder: TempDir,
        watch: Watch,
        told: Receiver<Vec<PathBuf>>,
    }

    impl Site {
        /// Files that say something, and that were read.
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder for the test");
            for file in files {
                fs::create_dir_all(folder.path().join(file).parent().expect("below ours")).expect("ours");
                fs::write(folder.path().join(file), "one").expect("ours");
            }
            let watch = Watch::default();
            let (tell, told) = channel();
            let mut watcher = watch.watcher();
            // It ends with the process.
            thread::spawn(move || while tell.send(watcher.wait()).is_ok() {});
            let site = Self { folder, watch, told };
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

        /// As the reload thread does.
        fn read(&self, files: &[&str]) {
            let _reading = self.watch.begin_read();
            self.watch
                .set_files(files.iter().map(|file| (self.path(file), disk::digest_of(&self.path(file)))).collect());
        }

        /// The next that it tells of.
        fn expect(&self, files: &[&str]) {
            let told = self.told.recv_timeout(Duration::from_secs(15)).expect("a change is told in time");
            let expected: Vec<_> = files.iter().map(|file| self.path(file)).collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn files_that_say_something_else_are_told() {
        let site = Site::new(&["a", "b"]);
        // In place, at once with another; not yet there is not said either.
        site.write("a", "two");
        site.write("b", "two");
        site.expect(&["a", "b"]);
        site.read(&["a", "b", "c"]);
        site.write("c", "one");
        site.expect(&["c"]);
        site.read(&["a", "b", "c"]);
        // What says the same is no change; by rename, of equal length.
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
        assert!(site.told.try_recv().is_err());
    }
}
