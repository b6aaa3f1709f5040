//! Saves and restores the last known members.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use net::tasks::{TaskKind, Tasks, blocking};

use super::super::persist::wall_clock;
use super::Membership;
use crate::control::pools::discover::saved::SavedMembers;
use crate::files::{self, NewFile, Readers};
use crate::load::SAVED_MEMBERS;

#[derive(Default)]
pub(in crate::control) struct Saving {
    folder: Option<PathBuf>,
    pub(super) is_wanted: bool,
    last: Option<Instant>,
    is_running: Rc<Cell<bool>>,
}

impl Saving {
    pub(in crate::control) fn set_folder(&mut self, folder: Option<PathBuf>) {
        self.is_wanted |= self.folder != folder;
        self.folder = folder;
    }

    fn take_turn(&mut self, now: Instant) -> Option<PathBuf> {
        let is_time = self.last.is_none_or(|last| {
            // Unchanged state is saved now and then, because the file records how old its data is.
            now >= last + if self.is_wanted { PAUSE } else { AGAIN }
        });
        if self.is_running.get() || !is_time || self.last.is_none() && !self.is_wanted {
            return None;
        }
        let folder = self.folder.clone()?;
        (self.is_wanted, self.last) = (false, Some(now));
        Some(folder)
    }
}

impl Membership {
    pub(in crate::control) fn to_save(&self) -> SavedMembers {
        let mut saved = SavedMembers::new(self.orders.clone());
        for pool in &self.pools {
            let spec = |origin| pool.specs.iter().find(|spec| spec.origin() == origin).map(ToString::to_string);
            saved.add(&pool.name, &pool.roster, spec, seconds_of);
        }
        saved
    }

    /// Saves the members if that is due.
    pub(in crate::control) fn save(&mut self, tasks: &Tasks) {
        if self.pools.is_empty() {
            return;
        }
        let Some(folder) = self.saving.take_turn(Instant::now()) else { return };
        let (saved, running) = (self.to_save(), Rc::clone(&self.saving.is_running));
        running.set(true);
        tasks.start_and_leave(TaskKind::Persist, async move {
            blocking(move || write(&folder, &saved)).await;
            running.set(false);
        });
    }
}

fn write(folder: &Path, saved: &SavedMembers) {
    let file = folder.join(SAVED_MEMBERS);
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| NewFile::open(&file, Readers::Owner))
        .and_then(|mut out| out.write_all(&saved.to_json()).and_then(|()| out.finish()));
    if let Err(error) = written {
        tracing::error!(file = %file.display(), %error, "the members cannot be saved");
    }
}

/// Reads the file of an earlier process. A damaged file is logged and ignored.
pub(in crate::control) fn read_saved(folder: &Path) -> Option<SavedMembers> {
    let file = folder.join(SAVED_MEMBERS);
    let read = files::open(&file).and_then(|open| {
        let mut text = Vec::new();
        open.take(SavedMembers::MAX_LEN as u64).read_to_end(&mut text).map(|_| text)
    });
    let saved = match read {
        Ok(text) => SavedMembers::from_json(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    match saved {
        Ok(saved) => Some(saved),
        Err(error) => {
            tracing::warn!(file = %file.display(), error, "the saved members are ignored");
            None
        }
    }
}

fn seconds_of(at: Instant) -> u64 {
    wall_clock().saturating_sub(at.elapsed()).as_secs()
}

/// Converts seconds since 1970, as far back as the monotonic clock goes.
pub(in crate::control) fn instant_of(seconds: u64) -> Instant {
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let now = Instant::now();
    now.checked_sub(ago.unwrap_or_default()).unwrap_or(now)
}

const PAUSE: Duration = Duration::from_secs(1);

const AGAIN: Duration = Duration::from_secs(60);
