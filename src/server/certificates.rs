//! The certificates of encrypted listeners, and of those who vouch for backends, looked at once a minute: what has changed is in force
//! for the next connection, and what is broken leaves the old in force.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::CertificateConfig;
use crate::load::{CertificateFiles, look_at_roots, shown_certificate};
use crate::net::tasks::{TaskKind, Tasks, blocking};
use crate::net::tls::KnownRoots;
use crate::net::tls_server::CertificateStore;

/// When and at what to look.
pub(super) struct CertificateLooks {
    look: Look,
    /// What the last look has found, until it is in force. Another config has another place for it.
    found: Arc<Mutex<Option<Found>>>,
    /// What was wrong when it was told last.
    told: Vec<String>,
    /// When the next look is.
    due: Instant,
    /// Held by the look that runs.
    turn: Arc<Mutex<()>>,
}

/// What to look at.
#[derive(Clone)]
struct Look {
    files: CertificateFiles,
    /// The sections of the config in force.
    sections: Arc<[CertificateConfig]>,
    /// What backends are judged by and shown.
    roots: Arc<KnownRoots>,
}

/// What backends are to be judged by and shown, and what is wrong with the files of that.
struct Found {
    roots: KnownRoots,
    problems: Vec<String>,
}

impl CertificateLooks {
    /// These sections, and what backends are judged by, were read just now.
    pub(super) fn new(
        files: CertificateFiles,
        sections: &[CertificateConfig],
        roots: Arc<KnownRoots>,
        now: Instant,
    ) -> Self {
        let look = Look { files, sections: sections.into(), roots };
        Self { look, found: Arc::default(), told: Vec::new(), due: now + EVERY, turn: Arc::default() }
    }

    /// Looks at these from now on, which were read just now.
    pub(super) fn set(&mut self, sections: &[CertificateConfig], roots: Arc<KnownRoots>, now: Instant) {
        let files = self.look.files.clone();
        *self = Self { turn: Arc::clone(&self.turn), ..Self::new(files, sections, roots, now) };
    }

    /// A reload has failed, perhaps by one of these: what is wrong is to be counted and shown.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// Returns what was found for backends and primaries, if there is something new, and begins a look if one is due, beside whatever
    /// else is done. Called once a second.
    pub(super) fn tick(
        &mut self,
        store: &Arc<CertificateStore>,
        tasks: &Tasks,
        now: Instant,
    ) -> Option<Arc<KnownRoots>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        let found = found.map(|found| {
            let (roots, news) = self.take(found);
            news.iter().for_each(|problem| tracing::error!(problem, "what was read before stays in force"));
            roots
        });
        // One that takes longer than a minute, on a disk that stalls, is not joined by others.
        if self.is_due(now) && self.turn.try_lock().is_ok() {
            self.due = now + EVERY;
            let (look, store) = (self.look.clone(), Arc::clone(store));
            let (found, turn) = (Arc::clone(&self.found), Arc::clone(&self.turn));
            let look = move || {
                let _turn = turn.lock();
                let seen = look.take(&store);
                *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
            };
            tasks.start_and_leave(TaskKind::Watch, blocking(look));
        }
        found
    }

    /// Takes what a look has found: what backends are judged by from now on, and what is wrong that was not told yet.
    fn take(&mut self, Found { roots, problems }: Found) -> (Arc<KnownRoots>, Vec<String>) {
        self.look.roots = Arc::new(roots);
        let news = problems.iter().filter(|problem| !self.told.contains(problem)).cloned().collect();
        self.told = problems;
        (Arc::clone(&self.look.roots), news)
    }

    fn is_due(&self, now: Instant) -> bool {
        let Look { sections, roots, .. } = &self.look;
        (!sections.is_empty() || roots.has_files()) && now >= self.due
    }
}

impl Look {
    /// Looks at all. What listeners show goes to `store` at once.
    fn take(&self, store: &CertificateStore) -> Found {
        let (mut roots, problems) = look_at_roots(&self.roots);
        for section in &*self.sections {
            let read = self.files.look(section).map_err(|problem| problem.to_string());
            if let Ok(certificate) = &read {
                roots.show(&section.name, shown_certificate(certificate));
            }
            store.take(&section.name, &section.chain, read, SystemTime::now());
        }
        Found { roots, problems }
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
        let roots = Arc::<KnownRoots>::default;
        let mut looks =
            CertificateLooks::new(CertificateFiles::default(), std::slice::from_ref(&section), roots(), start);
        assert!(!looks.is_due(start + EVERY - Duration::from_millis(1)) && looks.is_due(start + EVERY));
        looks.hurry(start);
        assert!(looks.is_due(start));
        looks.set(&[section], roots(), start);
        assert!(!looks.is_due(start));
        looks.set(&[], roots(), start);
        assert!(!looks.is_due(start + EVERY), "there is nothing to look at");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_once() {
        let mut looks = CertificateLooks::new(CertificateFiles::default(), &[], Arc::default(), Instant::now());
        let mut news = |problems: &[&str]| {
            let problems = problems.iter().map(|&problem| problem.to_owned()).collect();
            looks.take(Found { roots: KnownRoots::default(), problems }).1
        };
        assert_eq!(news(&["a"]), ["a"]);
        assert_eq!(news(&["a", "b"]), ["b"]);
        assert!(news(&["a"]).is_empty() && news(&[]).is_empty());
        assert_eq!(news(&["a"]), ["a"]);
    }
}
