//! The certificates of encrypted listeners, looked at once a minute: what has changed is in force for the next connection, and what is
//! broken leaves the old in force.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::config::CertificateConfig;
use crate::load::CertificateFiles;
use crate::net::tasks::{TaskKind, Tasks, blocking};
use crate::net::tls_server::CertificateStore;

/// When and at what to look.
pub(super) struct CertificateLooks {
    files: CertificateFiles,
    /// The sections of the config in force.
    sections: Arc<[CertificateConfig]>,
    /// When the next look is.
    due: Instant,
    /// Held by the look that runs.
    turn: Arc<Mutex<()>>,
}

impl CertificateLooks {
    /// These sections were read just now.
    pub(super) fn new(files: CertificateFiles, sections: &[CertificateConfig], now: Instant) -> Self {
        Self { files, sections: sections.into(), due: now + EVERY, turn: Arc::default() }
    }

    /// Looks at these sections from now on, which were read just now.
    pub(super) fn set(&mut self, sections: &[CertificateConfig], now: Instant) {
        (self.sections, self.due) = (sections.into(), now + EVERY);
    }

    /// A reload has failed, perhaps by one of these: what is wrong is to be counted and shown.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// Begins a look if one is due, beside whatever else is done. Called once a second.
    pub(super) fn tick(&mut self, store: &Arc<CertificateStore>, tasks: &Tasks, now: Instant) {
        // One that takes longer than a minute, on a disk that stalls, is not joined by others.
        if self.is_due(now) && self.turn.try_lock().is_ok() {
            self.due = now + EVERY;
            let (files, sections) = (self.files.clone(), Arc::clone(&self.sections));
            let (store, turn) = (Arc::clone(store), Arc::clone(&self.turn));
            let look = move || {
                let _turn = turn.lock();
                for section in &*sections {
                    let read = files.look(section).map_err(|problem| problem.to_string());
                    store.take(&section.name, &section.chain, read, SystemTime::now());
                }
            };
            tasks.start_and_leave(TaskKind::Watch, blocking(look));
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.sections.is_empty() && now >= self.due
    }
}

/// How often files are looked at: who renews certificates does so days before they expire, and does not wait for us.
const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_a_minute_after_a_read_and_at_once_after_a_failure() {
        let start = Instant::now();
        let section =
            CertificateConfig { name: "main".to_owned(), chain: "c".into(), key: "k".into(), names: Vec::new() };
        let mut looks = CertificateLooks::new(CertificateFiles::default(), &[section.clone()], start);
        assert!(!looks.is_due(start + EVERY - Duration::from_millis(1)) && looks.is_due(start + EVERY));
        looks.hurry(start);
        assert!(looks.is_due(start));
        looks.set(&[section], start);
        assert!(!looks.is_due(start));
        looks.set(&[], start);
        assert!(!looks.is_due(start + EVERY), "there is nothing to look at");
    }
}
