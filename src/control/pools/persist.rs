//! The cache file: saved periodically and at the end, loaded before the server is ready.
//!
//! The file is always complete, because it is written to a temporary file and renamed after a sync. A damaged
//! file is logged and ignored.

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use config::CacheConfig;
use config::CacheRules;
use engine::cache::{Cache, SnapshotLoadError};
use engine::state::ForwarderState;
use net::sys::clock::SleepMeter;
use net::tasks::{TaskKind, Tasks, blocking};

use crate::files::{self, NewFile, Readers};

pub(super) struct CacheSaves {
    last: Instant,
    turn: Arc<Mutex<()>>,
    /// True if another process has the cache.
    pub(super) is_left: bool,
    /// Measures time asleep, in which answers age as well.
    pub(super) sleep: SleepMeter,
}

impl CacheSaves {
    pub(in crate::control) fn new(now: Instant) -> Self {
        Self { last: now, turn: Arc::default(), is_left: false, sleep: SleepMeter::new() }
    }

    /// Begins a save in the background if one is due. A failed save is retried when the next is due.
    pub(in crate::control) fn tick(&mut self, state: &Arc<ForwarderState>, tasks: &Tasks, now: Instant) {
        let config = state.cache_config.as_ref().filter(|config| config.persist.is_some());
        let is_due = config.and_then(|config| config.persist_every).is_some_and(|every| now >= self.last + every);
        // A save may take longer than `persist_every` on a stalled disk; do not start another.
        if is_due && !self.is_left && self.turn.try_lock().is_ok() {
            self.last = now;
            let save = self.last_one(state);
            tasks.start_and_leave(TaskKind::Persist, blocking(save));
        }
    }

    /// Returns the final save, which does nothing if another process has the cache.
    pub(in crate::control) fn last_one(&self, state: &Arc<ForwarderState>) -> impl FnOnce() + Send + 'static {
        let (state, turn, is_left) = (Arc::clone(state), Arc::clone(&self.turn), self.is_left);
        move || {
            // The mutex guards no data, so poisoning does not matter.
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_left {
                save(&state);
            }
        }
    }
}

pub(in crate::control) fn load(state: &ForwarderState, engines: &engine::SharedEngineState) {
    let Some((cache, rules, file)) = persistent(state) else { return };
    let image = match files::open(file) {
        Ok(image) => image,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return tracing::info!(file = %file.display(), "cache: the file does not exist yet");
        }
        Err(error) => {
            return tracing::warn!(file = %file.display(), error = %SnapshotLoadError::Io(error), "cache: the file is ignored");
        }
    };
    let hash = |question: &[u8]| engines.hash(question);
    let known = state.cached_pools();
    match cache.load(rules, Instant::now(), wall_clock(), &known, hash, &mut BufReader::new(image)) {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: loaded"),
        Err(error) => tracing::warn!(file = %file.display(), %error, "cache: the file is ignored"),
    }
}

fn save(state: &ForwarderState) {
    let Some((cache, rules, file)) = persistent(state) else { return };
    // Readable by its owner only, because queried names are private.
    let saved = NewFile::open(file, Readers::Owner).and_then(|mut out| {
        let answers = cache.save(rules, Instant::now(), wall_clock(), &mut out)?;
        out.finish().map(|()| answers)
    });
    match saved {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: saved"),
        Err(error) => tracing::error!(file = %file.display(), %error, "cache: cannot be saved"),
    }
}

/// Returns the cache, if it is saved, with its rules and its file.
fn persistent(state: &ForwarderState) -> Option<(&Cache, &CacheRules, &Path)> {
    let CacheConfig { rules, persist, .. } = state.cache_config.as_ref()?;
    Some((state.cache.as_ref()?, rules, persist.as_ref()?))
}

/// The time since 1970, by a clock that continues while no process runs.
pub(in crate::control) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
