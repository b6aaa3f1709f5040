//! The cache in a file: saved when the process ends, loaded before it is ready.
//!
//! A file that is there is whole, for it is written beside its place and moved there when all of it is on the disk. What is wrong
//! with it costs its content and a line in the log, never the start.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tempfile::NamedTempFile;

use crate::cache::LoadError;
use crate::config::CacheConfig;
use crate::files;
use crate::forwarder::Shared;
use crate::state::ForwarderState;

/// Loads what an earlier process has saved, if the config says where.
pub(super) fn load(state: &ForwarderState, shared: &Shared) {
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
    let hash = |question: &[u8]| shared.engines.hash(question);
    let known = state.cached_pools();
    match cache.load(rules, Instant::now(), wall_clock(), &known, hash, &mut BufReader::new(image)) {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: loaded"),
        Err(error) => tracing::warn!(file = %file.display(), %error, "cache: the file is ignored"),
    }
}

/// Saves what is kept, if the config says where.
pub(super) fn save(state: &ForwarderState) {
    let Some((cache, CacheConfig { rules, persist: Some(file), .. })) =
        state.cache.as_ref().zip(state.cache_config.as_ref())
    else {
        return;
    };
    let saved = replace(file, |out| cache.save(rules, Instant::now(), wall_clock(), out));
    match saved {
        Ok(answers) => tracing::info!(answers, file = %file.display(), "cache: saved"),
        Err(error) => tracing::error!(file = %file.display(), %error, "cache: cannot be saved"),
    }
}

/// Writes a file whole or not at all.
fn replace<T>(file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Of one file system with its place, or it could not be moved; readable by its owner only, as names that people ask for are
    // their own business.
    let (image, beside) = NamedTempFile::new_in(folder)?.into_parts();
    let mut out = BufWriter::new(image);
    let written = write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    beside.persist(file)?;
    // Only now is the new name on the disk too.
    File::open(folder)?.sync_all()?;
    Ok(written)
}

/// The time since 1970, by the clock that goes on while no process runs.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
