//! The cache in a file: saved when the process ends and now and then, for crashes; loaded before it is ready.
//!
//! A file that is there is whole, for it is written beside its place and moved there when all of it is on the disk. What is wrong
//! with it costs its content and a line in the log, never the start.

use std::io::{self, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::cache::LoadError;
use crate::config::CacheConfig;
use crate::engine;
use crate::files::{self, NewFile, Readers};
use crate::net::tasks::{TaskKind, Tasks, blocking};
use crate::state::ForwarderState;

/// The saves of a cache, one at a time.
pub(super) struct Saves {
    /// When the last one began, or the process.
    last: Instant,
    /// Held by the one that runs.
    turn: Arc<Mutex<()>>,
    /// There are no more: another process has the cache.
    is_left: bool,
}

impl Saves {
    /// None yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, turn: Arc::default(), is_left: false }
    }

    /// Begins a save if one is due, beside whatever else is done. One that failed is tried again when the next is due.
    pub(super) fn tick(&mut self, state: &Arc<ForwarderState>, tasks: &Tasks, now: Instant) {
        let config = state.cache_config.as_ref().filter(|config| config.persist.is_some());
        let is_due = config.and_then(|config| config.persist_every).is_some_and(|every| now >= self.last + every);
        // One that takes longer than `persist_every`, on a disk that stalls, is not joined by others.
        if is_due && !self.is_left && self.turn.try_lock().is_ok() {
            self.last = now;
            let save = self.last_one(state);
            tasks.start_and_leave(TaskKind::Persist, blocking(save));
        }
    }

    /// Another process has the cache from now on.
    pub(super) fn leave(&mut self) {
        self.is_left = true;
    }

    /// The save that comes after all others, unless another process has the cache.
    pub(super) fn last_one(&self, state: &Arc<ForwarderState>) -> impl FnOnce() + Send + 'static {
        let (state, turn, is_left) = (Arc::clone(state), Arc::clone(&self.turn), self.is_left);
        move || {
            // There is nothing behind it that a panic could leave half done.
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_left {
                save(&state);
            }
        }
    }
}

/// Loads what an earlier process has saved, if the config says where.
pub(super) fn load(state: &ForwarderState, engines: &engine::Shared) {
    let Some((cache, CacheConfig { rules, persist: Some(file), .. })) =
        state.cache.as_ref().zip(state.cache_config.as_ref())
    else {
        return;
    };
    let image = match files::open(file) {
        Ok(image) => image,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return tracing::info!(file = %file.display(), "cache: there is no file yet");
        }
        Err(error) => {
            return tracing::warn!(file = %file.display(), error = %LoadError::Io(error), "cache: the file is ignored");
        }
    };
    let hash = |question: &[u8]| engines.hash(question);
    let known = state.cached_pools();
    match cache.load(rules, Instant::now(), wall_clock(), &known, hash, &mut BufReader::new(image)) {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: loaded"),
        Err(error) => tracing::warn!(file = %file.display(), %error, "cache: the file is ignored"),
    }
}

/// Saves what is kept, if the config says where.
fn save(state: &ForwarderState) {
    let Some((cache, CacheConfig { rules, persist: Some(file), .. })) =
        state.cache.as_ref().zip(state.cache_config.as_ref())
    else {
        return;
    };
    // Readable by its owner only, as names that people ask for are their own business.
    let saved = NewFile::open(file, Readers::Owner).and_then(|mut out| {
        let answers = cache.save(rules, Instant::now(), wall_clock(), &mut out)?;
        out.finish().map(|()| answers)
    });
    match saved {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: saved"),
        Err(error) => tracing::error!(file = %file.display(), %error, "cache: cannot be saved"),
    }
}

/// The time since 1970, by the clock that goes on while no process runs.
pub(super) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
