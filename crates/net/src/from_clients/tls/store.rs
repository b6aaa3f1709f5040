//! Current certificates by config section. The control thread changes them; every handshake reads them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use metrics::CertificateSnapshot;
use tokio_rustls::rustls::SignatureScheme;

use super::certificate::{Certificate, matches_name};
use super::contents;

/// A certificate with its config section.
#[derive(Clone, Debug)]
pub struct NamedCertificate {
    /// The key below `[certificates]`.
    pub name: String,
    /// The file of the chain.
    pub chain_file: PathBuf,
    /// The file of the key.
    pub key_file: PathBuf,
    /// The loaded certificate.
    pub certificate: Arc<Certificate>,
}

/// The current certificates.
#[derive(Debug, Default)]
pub struct CertificateStore {
    entries: ArcSwap<Vec<CertificateEntry>>,
    writing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct CertificateEntry {
    named: NamedCertificate,
    loaded_at: SystemTime,
    /// The problem with the files, if their content is not used.
    error: Option<String>,
    loaded: u64,
    refused: u64,
}

impl CertificateEntry {
    /// Returns the entry of a certificate in a new config.
    fn new(named: NamedCertificate, known: &[Self], now: SystemTime) -> Self {
        match known.iter().find(|known| known.named.name == named.name) {
            Some(known) => {
                let mut entry = known.clone();
                entry.load(&named.certificate, now);
                Self { named, ..entry }
            }
            None => Self { named, loaded_at: now, error: None, loaded: 1, refused: 0 },
        }
    }

    fn load(&mut self, certificate: &Arc<Certificate>, now: SystemTime) {
        self.error = None;
        if !certificate.is_same(&self.named.certificate) {
            tracing::info!(certificate = self.named.name, "new connections use the new certificate");
            (self.named.certificate, self.loaded_at) = (Arc::clone(certificate), now);
            self.loaded += 1;
        }
    }
}

impl CertificateStore {
    /// Sets the certificates of a config, for new connections. Unchanged ones keep their state.
    pub fn set(&self, certificates: Vec<NamedCertificate>, now: SystemTime) {
        self.edit(|entries| {
            let known = std::mem::take(entries);
            entries.extend(certificates.into_iter().map(|named| CertificateEntry::new(named, &known, now)));
        });
    }

    /// Takes the files of one section as read now. Only valid ones apply; only changes are logged and
    /// counted.
    pub fn take(&self, name: &str, chain_file: &Path, read: Result<Arc<Certificate>, String>, now: SystemTime) {
        self.edit(|entries| {
            // A reload may have changed the file meanwhile.
            let is_meant =
                |entry: &&mut CertificateEntry| entry.named.name == name && entry.named.chain_file == chain_file;
            let Some(entry) = entries.iter_mut().find(is_meant) else { return };
            match read {
                Ok(certificate) => entry.load(&certificate, now),
                Err(error) if entry.error.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::error!(certificate = name, "{error}; the previous certificate stays");
                    entry.error = Some(error);
                    entry.refused += 1;
                }
            }
        });
    }

    /// Adds the counters of another process.
    pub fn add_counted(&self, counted: &[CertificateSnapshot]) {
        self.edit(|entries| {
            for entry in entries {
                if let Some(counted) = counted.iter().find(|counted| counted.name == entry.named.name) {
                    entry.loaded += counted.loads;
                    entry.refused += counted.refusals;
                }
            }
        });
    }

    fn edit(&self, edit: impl FnOnce(&mut Vec<CertificateEntry>)) {
        let _writing = self.writing.lock();
        let mut entries = Vec::clone(&self.entries.load());
        edit(&mut entries);
        self.entries.store(Arc::new(entries));
    }

    /// The certificate of a section.
    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Certificate>> {
        let entries = self.entries.load();
        let entry = entries.iter().find(|entry| entry.named.name == name)?;
        Some(Arc::clone(&entry.named.certificate))
    }

    /// Returns the state of all certificates, in config order.
    pub fn snapshot(&self) -> Vec<CertificateSnapshot> {
        let shown =
            |CertificateEntry { named, loaded_at, error, loaded, refused }: &CertificateEntry| CertificateSnapshot {
                name: named.name.clone(),
                file: named.chain_file.clone(),
                names: named.certificate.names().to_vec(),
                not_before: named.certificate.validity().not_before,
                not_after: named.certificate.validity().not_after,
                loaded: contents::seconds(*loaded_at),
                error: error.clone(),
                loads: *loaded,
                refusals: *refused,
            };
        self.entries.load().iter().map(shown).collect()
    }

    /// Selects the certificate for a client's server name and signature schemes:
    ///
    /// 1. the one of section `only`, if set;
    /// 2. else those for exactly this name, or for `*` as its first label;
    /// 3. else all, in config order.
    ///
    /// Of several, the first that the client can verify wins, else the first.
    pub(super) fn choose(
        &self,
        only: Option<&str>,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<Certificate>> {
        let entries = self.entries.load();
        let all = || entries.iter().map(|entry| &entry.named);
        if let Some(only) = only {
            return all().find(|named| named.name == only).map(|named| Arc::clone(&named.certificate));
        }
        let verifies = |named: &&NamedCertificate| named.certificate.certified().key.choose_scheme(schemes).is_some();
        let name = server_name.map(str::to_ascii_lowercase);
        let is_shown_for = |named: &&NamedCertificate, is_exact: bool| {
            let name = name.as_deref().unwrap_or_default();
            let fits = |known: &String| matches_name(known, name) && known.starts_with('*') != is_exact;
            named.certificate.names().iter().any(fits)
        };
        let exact = || all().filter(|named| is_shown_for(named, true));
        let by_star = || all().filter(|named| is_shown_for(named, false));
        let named = exact().find(verifies).or_else(|| by_star().find(verifies)).or_else(|| exact().next());
        let chosen = named.or_else(|| by_star().next()).or_else(|| all().find(verifies)).or_else(|| all().next());
        chosen.map(|named| Arc::clone(&named.certificate))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use testkit::Leaf;

    use super::*;

    fn named(section: &str, names: &[&str], is_ecdsa: bool) -> NamedCertificate {
        let kind = if is_ecdsa { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ED25519 };
        let made = Leaf::self_signed_with(names, kind, |_| ());
        let certificate = Certificate::read(made.pem().as_bytes(), made.key_pem().as_bytes(), &[]);
        NamedCertificate {
            name: section.to_owned(),
            chain_file: format!("{section}.pem").into(),
            key_file: format!("{section}.key").into(),
            certificate: Arc::new(certificate.expect("a good one")),
        }
    }

    #[test]
    fn the_name_chooses_then_what_the_client_can_verify_then_the_order() {
        let store = CertificateStore::default();
        assert!(store.choose(None, None, &[SignatureScheme::ED25519]).is_none());
        store.set(
            vec![
                named("first", &["first.example"], true),
                named("star", &["*.example"], true),
                named("both", &["both.example"], false),
                named("both-ecdsa", &["both.example"], true),
            ],
            UNIX_EPOCH,
        );
        let (ecdsa, ed25519) = (&[SignatureScheme::ECDSA_NISTP256_SHA256][..], &[SignatureScheme::ED25519][..]);
        for (only, name, schemes, expected) in [
            (None, Some("first.example"), ecdsa, "first"),
            (None, Some("FIRST.example"), ecdsa, "first"),
            (None, Some("any.example"), ecdsa, "star"),
            (None, Some("both.example"), ecdsa, "both-ecdsa"),
            (None, Some("both.example"), ed25519, "both"),
            (None, Some("unknown.test"), ecdsa, "first"),
            (None, None, ecdsa, "first"),
            (None, None, ed25519, "both"),
            (None, None, &[], "first"),
            (Some("both"), Some("first.example"), ecdsa, "both"),
            (Some("both"), None, ecdsa, "both"),
        ] {
            let chosen = store.choose(only, name, schemes).expect("there are some");
            assert!(store.get(expected).is_some_and(|known| known.is_same(&chosen)), "{only:?} {name:?}: {expected}");
        }
        assert!(store.choose(Some("gone"), None, ecdsa).is_none());
    }

    #[test]
    fn what_is_broken_leaves_the_old_in_force_and_is_told_once() {
        let store = CertificateStore::default();
        let (one, two) = (named("main", &["a.example"], true), named("main", &["a.example"], true));
        store.set(vec![one.clone()], UNIX_EPOCH);
        let seen = || {
            let [seen]: [CertificateSnapshot; 1] = store.snapshot().try_into().expect("one section");
            (seen.loaded, seen.error, seen.loads, seen.refusals)
        };
        let later = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for (read, at, expected) in [
            (Ok(&one), 1, (0, None, 1, 0)),
            (Err("broken"), 2, (0, Some("broken".to_owned()), 1, 1)),
            (Err("broken"), 3, (0, Some("broken".to_owned()), 1, 1)),
            (Err("otherwise"), 4, (0, Some("otherwise".to_owned()), 1, 2)),
            (Ok(&one), 5, (0, None, 1, 2)),
            (Ok(&two), 6, (6, None, 2, 2)),
        ] {
            store.take(
                "main",
                Path::new("main.pem"),
                read.map(|named| Arc::clone(&named.certificate)).map_err(str::to_owned),
                later(at),
            );
            assert_eq!(seen(), expected, "after {at}");
        }
        store.take("other", Path::new("main.pem"), Err("unreadable".to_owned()), later(7));
        store.take("main", Path::new("other.pem"), Err("another file".to_owned()), later(7));
        store.set(vec![two], later(8));
        assert_eq!(seen(), (6, None, 2, 2), "a reload that brings the same changes nothing");
        store.set(vec![one], later(9));
        assert_eq!(seen(), (9, None, 3, 2));
    }

    #[test]
    fn loads_of_another_process_are_added_to_those_of_the_same_section() {
        let (before, after) = (CertificateStore::default(), CertificateStore::default());
        before.set(vec![named("main", &["a.example"], true), named("gone", &["b.example"], true)], UNIX_EPOCH);
        before.take("main", Path::new("main.pem"), Err("broken".to_owned()), UNIX_EPOCH);
        after.set(vec![named("main", &["a.example"], true), named("new", &["c.example"], true)], UNIX_EPOCH);
        after.add_counted(&before.snapshot());
        let counts: Vec<_> =
            after.snapshot().into_iter().map(|seen| (seen.name, seen.loads, seen.refusals, seen.error)).collect();
        assert_eq!(counts, [("main".to_owned(), 2, 1, None), ("new".to_owned(), 1, 0, None)]);
    }
}
