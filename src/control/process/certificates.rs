//! Checks the certificates of listeners and the trust anchors for backends once a minute. Changed files apply
//! to new connections; broken files leave the old ones active.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::CertificateConfig;
use net::from_clients::tls::CertificateStore;
use net::tasks::{TaskKind, Tasks, blocking};
use net::to_backends::tls::{BackendTls, KnownRoots};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::load::{CertificateFiles, look_at_roots, shown_certificate};

pub(in crate::control) struct CertificateLooks {
    look: CertificateCheck,
    /// The result of the running check.
    found: Option<oneshot::Receiver<CertificateFindings>>,
    /// True if the running check is of an earlier config.
    is_outdated: bool,
    reported: Vec<String>,
    due: Instant,
    /// The TLS configurations of backends, which change with the files.
    pub(in crate::control) tls: Arc<BackendTls>,
}

#[derive(Clone)]
struct CertificateCheck {
    files: CertificateFiles,
    sections: Arc<[CertificateConfig]>,
    roots: Arc<KnownRoots>,
}

struct CertificateFindings {
    roots: KnownRoots,
    problems: Vec<String>,
}

impl CertificateLooks {
    pub(in crate::control) fn new(
        files: CertificateFiles,
        sections: &[CertificateConfig],
        roots: Arc<KnownRoots>,
        now: Instant,
    ) -> Self {
        let tls: Arc<BackendTls> = Arc::default();
        tls.trust(Arc::clone(&roots));
        let look = CertificateCheck { files, sections: sections.into(), roots };
        Self { look, found: None, is_outdated: false, reported: Vec::new(), due: now + EVERY, tls }
    }

    pub(in crate::control) fn set(&mut self, sections: &[CertificateConfig], roots: Arc<KnownRoots>, now: Instant) {
        let files = self.look.files.clone();
        self.tls.trust(Arc::clone(&roots));
        let (found, tls) = (self.found.take(), Arc::clone(&self.tls));
        *self = Self { is_outdated: found.is_some(), found, tls, ..Self::new(files, sections, roots, now) };
    }

    /// Checks at once: a reload has failed, perhaps because of these files, and problems must be reported.
    pub(in crate::control) fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// Returns new results for backends and primaries, and begins a check in the background if one is due.
    /// Called once a second.
    pub(in crate::control) fn tick(
        &mut self,
        store: &Arc<CertificateStore>,
        tasks: &Tasks,
        now: Instant,
    ) -> Option<Arc<KnownRoots>> {
        // A check may take over a minute on a stalled disk; do not start another.
        let found = match self.found.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Ok(found)) => (!self.is_outdated).then_some(found),
            Some(Err(TryRecvError::Closed)) | None => None,
        };
        (self.found, self.is_outdated) = (None, false);
        let renewed = found.map(|found| {
            let (roots, news) = self.take(found);
            news.iter().for_each(|problem| {
                tracing::error!(problem, "a file with certificates cannot be used, so the previous content stays")
            });
            roots
        });
        if self.is_due(now) {
            self.due = now + EVERY;
            let (look, store, (done, found)) = (self.look.clone(), Arc::clone(store), oneshot::channel());
            self.found = Some(found);
            tasks.start_and_leave(TaskKind::Watch, blocking(move || drop(done.send(look.take(&store)))));
        }
        renewed
    }

    fn take(&mut self, CertificateFindings { roots, problems }: CertificateFindings) -> (Arc<KnownRoots>, Vec<String>) {
        self.look.roots = Arc::new(roots);
        self.tls.trust(Arc::clone(&self.look.roots));
        let news = problems.iter().filter(|problem| !self.reported.contains(problem)).cloned().collect();
        self.reported = problems;
        (Arc::clone(&self.look.roots), news)
    }

    fn is_due(&self, now: Instant) -> bool {
        let CertificateCheck { sections, roots, .. } = &self.look;
        (!sections.is_empty() || roots.has_files()) && now >= self.due
    }
}

impl CertificateCheck {
    /// Checks all files. Certificates of listeners go to `store` at once.
    fn take(&self, store: &CertificateStore) -> CertificateFindings {
        let (mut roots, problems) = look_at_roots(&self.roots);
        for section in &*self.sections {
            let read = self.files.look(section).map_err(|problem| problem.to_string());
            if let Ok(certificate) = &read {
                roots.show(&section.name, shown_certificate(certificate));
            }
            store.take(&section.name, &section.chain, read, SystemTime::now());
        }
        CertificateFindings { roots, problems }
    }
}

/// The interval of checks. Certificates are renewed days before they expire.
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
            looks.take(CertificateFindings { roots: KnownRoots::default(), problems }).1
        };
        assert_eq!(news(&["a"]), ["a"]);
        assert_eq!(news(&["a", "b"]), ["b"]);
        assert!(news(&["a"]).is_empty() && news(&[]).is_empty());
        assert_eq!(news(&["a"]), ["a"]);
    }
}
