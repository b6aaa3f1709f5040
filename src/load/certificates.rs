//! The certificate chains and keys of encrypted listeners, read from their files.
//!
//! They are read at the start and by every reload, and polled once a minute. An unchanged file is not read
//! again, so a process that has given up the right to read its key continues with the key it has.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use config::{CertificateConfig, Config};
use net::from_clients::tls::{Certificate, NamedCertificate};

use super::disk::{self, SeenFile};
use super::{LoadError, gather, unreadable};

/// The certificates of a config, with the stamps of their files. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct CertificateFiles(Arc<Mutex<HashMap<CertificateKey, KnownCertificate>>>);

type CertificateKey = (PathBuf, PathBuf, Vec<String>);

#[derive(Clone, Debug)]
struct KnownCertificate {
    certificate: Arc<Certificate>,
    seen: [SeenFile; 2],
}

impl CertificateFiles {
    /// Reads all certificates of a config; reports every wrong file.
    pub(super) fn load(&self, config: &Config) -> Result<Vec<NamedCertificate>, LoadError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |section: &CertificateConfig| {
            let certificate = read(section, &mut known)?;
            Ok(NamedCertificate {
                name: section.name.clone(),
                chain_file: section.chain.clone(),
                key_file: section.key.clone(),
                certificate,
            })
        };
        let loaded = gather(config.certificates.iter().map(named));
        let sections: Vec<_> = config.certificates.iter().map(key_of).collect();
        // Certificates that no section names any more are forgotten, above all their keys.
        known.retain(|key, _| sections.contains(key));
        loaded
    }

    /// Reads the files of one section if they have changed.
    pub fn look(&self, section: &CertificateConfig) -> Result<Arc<Certificate>, String> {
        read(section, &mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key_of(section: &CertificateConfig) -> CertificateKey {
    (section.chain.clone(), section.key.clone(), section.names.clone())
}

fn read(
    section: &CertificateConfig,
    known: &mut HashMap<CertificateKey, KnownCertificate>,
) -> Result<Arc<Certificate>, String> {
    let earlier = known.get(&key_of(section));
    if let Some(earlier) = earlier.filter(|earlier| earlier.seen.iter().all(SeenFile::is_same)) {
        return Ok(Arc::clone(&earlier.certificate));
    }
    let files = [&section.chain, &section.key].map(|file| disk::read(file).map_err(|error| (file, error)));
    let [(chain, chain_seen), (key, key_seen)] = match files {
        [Ok(chain), Ok(key)] => [chain, key],
        [Err((file, error)), _] | [_, Err((file, error))] => {
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            return match earlier.filter(|earlier| earlier.seen.iter().all(SeenFile::has_same_stamp)) {
                // The same files, which the process has no right to read any more.
                Some(earlier) if is_denied => Ok(Arc::clone(&earlier.certificate)),
                None if is_denied => Err(unreadable(file, &error) + "; let the user read it that hedgerow runs as"),
                Some(_) | None => Err(unreadable(file, &error)),
            };
        }
    };
    let certificate = Certificate::read(&chain, &key, &section.names).map_err(|error| {
        let file = if error.is_of_key() { &section.key } else { &section.chain };
        format!("{}: {error}", file.display())
    })?;
    let certificate = Arc::new(certificate);
    let seen = [chain_seen, key_seen];
    known.insert(key_of(section), KnownCertificate { certificate: Arc::clone(&certificate), seen });
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use testkit::Leaf;

    use super::super::checks::expired_certificates;
    use super::*;

    /// Writes a certificate for `a.example`, and its key.
    fn write(folder: &Path, name: &str) {
        let made = Leaf::self_signed(&["a.example"]);
        fs::write(folder.join(format!("{name}.pem")), made.pem()).expect("a file of the test");
        fs::write(folder.join(format!("{name}.key")), made.key_pem()).expect("a file of the test");
    }

    fn config(folder: &Path, names: &[&str]) -> Config {
        let section = |name: &&str| format!("[certificates.{name}]\nchain = \"{name}.pem\"\nkey = \"{name}.key\"\n");
        let rest = "[authorities.a]\nlisten = [\"tls://127.0.0.1:0\"]\nzones = [\"a.txt\"]\n";
        let text = names.iter().map(section).collect::<String>() + rest;
        Config::parse(&text, "c.toml", folder).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_file_and_the_key_never_shown() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for name in ["good", "mixed"] {
            write(folder.path(), name);
        }
        let at = |name: &str| folder.path().join(name);
        fs::copy(at("good.key"), at("mixed.key")).expect("a file of the test");
        fs::write(at("empty.pem"), "").expect("a file of the test");
        fs::write(at("empty.key"), "hush").expect("a file of the test");
        let files = CertificateFiles::default();
        let describe =
            files.load(&config(folder.path(), &["good", "mixed", "none", "empty"])).expect_err("wrong").to_string();
        let lines: Vec<_> = describe.lines().filter_map(|line| line.rsplit_once('/').map(|(_, line)| line)).collect();
        let expected =
            ["mixed.key: its key is not that", "none.pem: cannot be read", "empty.pem: there is no certificate in it"];
        assert_eq!(lines.len(), expected.len(), "{describe}");
        assert!(lines.iter().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{describe}");
        assert!(!describe.contains("hush"));
        assert_eq!(files.load(&config(folder.path(), &["good"])).expect("a good one").len(), 1);
    }

    #[test]
    fn what_has_changed_is_read_and_what_has_not_is_not() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        write(folder.path(), "main");
        let (files, config) = (CertificateFiles::default(), config(folder.path(), &["main"]));
        let section = &config.certificates[0];
        let first = files.load(&config).expect("a good one").remove(0).certificate;
        let again = files.look(section).expect("the same");
        assert!(again.is_same(&first));
        // The stamp is enough once no other change can have left the same stamp.
        let settle = |known: &mut KnownCertificate| known.seen.iter_mut().for_each(|seen| seen.is_settled = true);
        files.0.lock().expect("the lock is free").values_mut().for_each(settle);
        assert!(Arc::ptr_eq(&files.look(section).expect("the same"), &again));
        fs::write(folder.path().join("main.key"), "half").expect("a file of the test");
        let error = files.look(section).expect_err("half of a key").to_string();
        assert!(
            error.ends_with("main.key: there is no private key in it, expected one in PEM, without a passphrase"),
            "{error}"
        );
        write(folder.path(), "main");
        assert!(!files.look(section).expect("another").is_same(&first));
    }

    #[test]
    fn an_expired_certificate_is_told_and_served() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        write(folder.path(), "main");
        let loaded = CertificateFiles::default().load(&config(folder.path(), &["main"])).expect("a good one");
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(expired_certificates(&loaded, SystemTime::now()).is_empty());
        let [late] = &expired_certificates(&loaded, at(95_000_000_000))[..] else { panic!("one warning") };
        assert!(late.contains("has expired at 4096-01-01T00:00:00Z; it is served"), "{late}");
        let [early] = &expired_certificates(&loaded, at(1))[..] else { panic!("one warning") };
        assert!(early.contains("is not good before 1975-01-01T00:00:00Z"), "{early}");
    }
}
