//! The measured latency of backends and the history: saved every minute in `state_dir` for the next start,
//! and every ten seconds for the supervisor, which passes them to the process that serves after a crash.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::LearntBackend;
use net::tasks::{TaskKind, blocking};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::learnt::learnt_by;
use super::persist::wall_clock;
use crate::control::links::ServerLinks;
use crate::control::observe::sight::SavedHistory;
use crate::files::{self, NewFile, Readers};
use crate::load::SAVED_LATENCY;

/// The latency of backends as it is saved, and the history. All workers of the next process start with the
/// measurements of the first worker, which has the replies to all.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedLatency {
    version: u32,
    /// The time of the save, in seconds since 1970.
    saved: u64,
    backends: Vec<LearntBackend>,
    history: Option<SavedHistory>,
}

#[derive(Deserialize)]
struct SavedVersion {
    version: u32,
}

/// The saved latency without the history, which is read separately: a fault in one spares the other.
#[derive(Deserialize)]
struct SavedBackends {
    saved: u64,
    backends: Vec<LearntBackend>,
}

/// The saved history; older programs have none.
#[derive(Default, Deserialize)]
struct HistoryPart {
    #[serde(default)]
    history: Option<SavedHistory>,
}

impl SavedLatency {
    fn new(backends: Vec<LearntBackend>, history: Option<SavedHistory>) -> Self {
        let measured = backends.into_iter().filter(|backend| !backend.latency.is_empty());
        let backends = measured.take(MAX_BACKENDS).collect();
        Self { version: VERSION, saved: wall_clock().as_secs(), backends, history }
    }

    /// Reads what another process has saved, for use now. Data of another version, damaged or old data is
    /// logged and ignored; `None` means that the history is of no use either.
    pub fn read(text: &[u8]) -> Option<Vec<LearntBackend>> {
        match Self::parse(text, wall_clock()) {
            Ok(Some(backends)) => Some(backends),
            Ok(None) => {
                tracing::info!("the saved latency is older than {} s and ignored", MAX_AGE.as_secs());
                Some(Vec::new())
            }
            Err(error) => {
                tracing::warn!(error, "the saved latency is ignored");
                None
            }
        }
    }

    /// Reads the history in the same text. One that is damaged is logged and ignored.
    pub(in crate::control) fn history(text: &[u8]) -> Option<SavedHistory> {
        let part = serde_json::from_slice(text).unwrap_or_else(|error| {
            tracing::warn!(%error, "the saved history is ignored");
            HistoryPart::default()
        });
        part.history
    }

    /// Returns `None` if the data is too old.
    fn parse(text: &[u8], now: Duration) -> Result<Option<Vec<LearntBackend>>, String> {
        let damaged = |error: serde_json::Error| error.to_string();
        let SavedVersion { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            return Err(format!("it has version {version}, and this program reads version {VERSION}"));
        }
        let SavedBackends { saved, backends } = serde_json::from_slice(text).map_err(damaged)?;
        Ok((now.as_secs().abs_diff(saved) <= MAX_AGE.as_secs()).then_some(backends))
    }
}

/// Returns the text of the file in `state_dir`, if it can be read.
pub(in crate::control) fn read_file(folder: &Path) -> Option<Vec<u8>> {
    let file = folder.join(SAVED_LATENCY);
    let read = files::open(&file).and_then(|open| {
        let mut text = Vec::new();
        open.take(MAX_LENGTH).read_to_end(&mut text).map(|_| text)
    });
    match read {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the saved latency is ignored");
            None
        }
    }
}

pub(super) struct LatencySaves {
    pub(super) folder: Option<PathBuf>,
    /// True if there are no further saves: another process has the latency, or the last one has begun.
    pub(super) is_left: bool,
    last: Instant,
    last_in_file: Instant,
    is_running: Rc<Cell<bool>>,
    has_failed: Rc<Cell<bool>>,
    send: UnboundedSender<Vec<u8>>,
    saved: UnboundedReceiver<Vec<u8>>,
}

impl LatencySaves {
    pub(super) fn new(folder: Option<PathBuf>, now: Instant) -> Self {
        let (send, saved) = unbounded_channel();
        let (is_running, has_failed) = (Rc::default(), Rc::default());
        Self { folder, is_left: false, last: now, last_in_file: now, is_running, has_failed, send, saved }
    }

    /// Returns true if it is time for a save.
    pub(super) fn is_due(&self, is_supervised: bool, now: Instant) -> bool {
        let is_wanted = !self.is_left && (self.folder.is_some() || is_supervised);
        let every = if is_supervised { EVERY } else { EVERY_IN_FILE };
        is_wanted && !self.is_running.get() && now >= self.last + every
    }

    /// Begins a save in the background.
    pub(super) fn begin(
        &mut self,
        is_supervised: bool,
        history: Option<SavedHistory>,
        links: &ServerLinks,
        now: Instant,
    ) {
        self.last = now;
        self.is_running.set(true);
        let is_running = Rc::clone(&self.is_running);
        let folder = self.folder.clone().filter(|_| now >= self.last_in_file + EVERY_IN_FILE);
        if folder.is_some() {
            self.last_in_file = now;
        }
        let save = self.save(folder, is_supervised, history, links);
        links.tasks.start_and_leave(TaskKind::Persist, async move {
            save.await;
            is_running.set(false);
        });
    }

    /// Returns the final save, which does nothing without `state_dir` or if another process has the latency.
    pub(super) fn last_one(
        &mut self,
        history: Option<SavedHistory>,
        links: &ServerLinks,
    ) -> impl Future<Output = ()> + use<> {
        let is_wanted = !self.is_left && self.folder.is_some();
        self.is_left = true;
        let save = is_wanted.then(|| self.save(self.folder.clone(), false, history, links));
        async move {
            if let Some(save) = save {
                save.await;
            }
        }
    }

    fn save(
        &self,
        folder: Option<PathBuf>,
        is_supervised: bool,
        history: Option<SavedHistory>,
        links: &ServerLinks,
    ) -> impl Future<Output = ()> + use<> {
        let has_failed = Rc::clone(&self.has_failed);
        let workers = links.workers.clone();
        let send = is_supervised.then(|| self.send.clone());
        async move {
            let saved = SavedLatency::new(learnt_by(0, &workers).await, history);
            if saved.backends.is_empty() && saved.history.is_none() {
                return;
            }
            let (text, written) = blocking(move || {
                let text = serde_json::to_vec(&saved).unwrap_or_default();
                let written = folder.map(|folder| write(&folder, &text));
                (text, written)
            })
            .await;
            send.iter().for_each(|send| drop(send.send(text.clone())));
            // Logged once, not every minute.
            match written {
                Some(Err(error)) if !has_failed.replace(true) => {
                    tracing::error!(%error, "the latency of backends and the history cannot be saved in state_dir");
                }
                Some(Err(_)) | None => {}
                Some(Ok(())) => has_failed.set(false),
            }
        }
    }

    /// Waits for data to send to the supervisor. Cancel safe.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        match self.saved.recv().await {
            Some(text) => text,
            None => std::future::pending().await,
        }
    }
}

fn write(folder: &Path, text: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = NewFile::open(&folder.join(SAVED_LATENCY), Readers::Owner)?;
    file.write_all(text)?;
    file.finish()
}

const VERSION: u32 = 1;

const EVERY: Duration = Duration::from_secs(10);

/// Rarer, because the history of many pools has a megabyte, and flash memory wears out.
const EVERY_IN_FILE: Duration = Duration::from_secs(60);

/// As long as the longest window of latency.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Some 5 KB each.
const MAX_BACKENDS: usize = 1_000;

/// The most bytes that are read.
const MAX_LENGTH: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_data_of_this_version_is_used() {
        let text = |version: u32, saved: u64| format!("{{\"version\":{version},\"saved\":{saved},\"backends\":[]}}");
        let parse = |text: &str| SavedLatency::parse(text.as_bytes(), Duration::from_secs(10_000));
        for (saved, is_used) in [(10_000, true), (9_400, true), (9_399, false), (10_600, true), (10_601, false)] {
            assert_eq!(parse(&text(1, saved)), Ok(is_used.then(Vec::new)), "{saved}");
        }
        assert_eq!(parse(&text(2, 10_000)), Err("it has version 2, and this program reads version 1".to_owned()));
        let whole = text(1, 10_000);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn latency_is_read_without_a_history_that_can_be_read() {
        let text = |rest: &str| format!("{{\"version\":1,\"saved\":0,\"backends\":[]{rest}}}").into_bytes();
        let history = serde_json::to_string(&SavedHistory::default()).expect("plain data");
        for (rest, is_read) in [
            (String::new(), false),
            (",\"history\":null".to_owned(), false),
            (",\"history\":{\"seconds\":7}".to_owned(), false),
            (format!(",\"history\":{history}"), true),
        ] {
            assert_eq!(SavedLatency::read(&text(&rest)), Some(Vec::new()));
            assert_eq!(SavedLatency::history(&text(&rest)).is_some(), is_read, "{rest}");
        }
    }
}
