//! The secrets of a config that stand in files: keys, cookies, and the files for etcd.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Config, EtcdConfig, KeyConfig, words};
use limit::CookieSecrets;
use net::to_backends::tls::TlsRoots;
use zone::transfer::tsig::{TsigKey, TsigKeys};

use super::{LoadError, gather, trust, unreadable};
use crate::files;

/// Reads the keys of a config, with the secrets in files.
pub(super) fn keys(config: &Config) -> Result<TsigKeys, LoadError> {
    gather(config.keys.iter().map(key)).map(TsigKeys::new)
}

fn key(key: &KeyConfig) -> Result<TsigKey, String> {
    match key {
        KeyConfig::Given(key) => Ok(key.clone()),
        KeyConfig::InFile { name, algorithm, file } => {
            let octets = files::read(file).map_err(|error| unreadable(file, &error))?;
            // Text that is not UTF-8 is not base64 either.
            let secret = words::secret(&String::from_utf8_lossy(&octets));
            let secret = secret.map_err(|expected| format!("{}: {expected}", file.display()))?;
            Ok(TsigKey::new(name, *algorithm, &secret))
        }
    }
}

/// Reads each file of cookie secrets once; reports every wrong file.
pub(super) fn cookies(config: &Config) -> Result<HashMap<PathBuf, CookieSecrets>, LoadError> {
    let read = |file: &Path| {
        let name = file.display();
        // Read as bytes: text that is not UTF-8 is reported as a wrong line.
        let octets =
            files::read(file).map_err(|error| format!("{name}: the secrets of cookies cannot be read: {error}"))?;
        let secrets = CookieSecrets::parse(&String::from_utf8_lossy(&octets));
        secrets.map(|secrets| (file.to_owned(), secrets)).map_err(|unfit| format!("{name}:{}: {unfit}", unfit.line))
    };
    gather(config.cookie_secrets_files().into_iter().map(read)).map(HashMap::from_iter)
}

/// The content of these files.
#[derive(Clone, Debug, Default)]
pub struct EtcdSecrets {
    /// The password of the user, if there is one.
    pub password: Option<Arc<str>>,
    /// The trust anchors, if any endpoint uses TLS.
    pub roots: Option<TlsRoots>,
}

/// Reads the files that a config needs for etcd.
pub(super) fn etcd(config: &Config) -> Result<EtcdSecrets, String> {
    let Some(etcd) = &config.etcd else { return Ok(EtcdSecrets::default()) };
    Ok(EtcdSecrets { password: password(etcd)?, roots: roots(etcd)? })
}

fn password(etcd: &EtcdConfig) -> Result<Option<Arc<str>>, String> {
    let Some(file) = &etcd.password_file else { return Ok(None) };
    let problem = |what: &str| format!("etcd.password_file: {}: {what}", file.display());
    let octets = files::read(file).map_err(|error| problem(&error.to_string()))?;
    let text = String::from_utf8(octets).map_err(|_| problem("it is no text"))?;
    // The line end that editors write is not part of the password.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err(problem("it is empty")) } else { Ok(Some(password.into())) }
}

fn roots(etcd: &EtcdConfig) -> Result<Option<TlsRoots>, String> {
    if etcd.endpoints.iter().all(|endpoint| endpoint.tls.is_none()) {
        return Ok(None);
    }
    let roots = match &etcd.ca_file {
        Some(file) => trust::read(file).map_err(|what| format!("etcd.ca_file: {}: {what}", file.display())),
        None => TlsRoots::of_system().map_err(|what| format!("etcd.ca_file: {what}, write ca_file = \"etcd-ca.pem\"")),
    };
    roots.map(Some)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::write(folder.path().join("good.key"), "c2VjcmV0IG9mIDE2IG9j\n").expect("a file of the test");
        fs::write(folder.path().join("bad.key"), "hush!").expect("a file of the test");
        let check = |files: &[&str], expected: &[&str]| {
            let sections = files.iter().map(|file| format!("[keys.{file}]\nsecret_file = \"{file}.key\"\n"));
            let rest = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\"]\n";
            let text = sections.collect::<String>() + rest;
            let config = Config::parse(&text, "c.toml", folder.path()).expect("a config");
            let problems = keys(&config).map_or_else(|problems| problems.to_string(), |_| String::new());
            let found: Vec<_> =
                problems.lines().map(|line| line.rsplit_once('/').map_or(line, |(_, name)| name)).collect();
            assert_eq!(found.len(), expected.len(), "{problems}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{problems}");
            assert!(!problems.contains("hush"));
        };
        check(&["good"], &[]);
        check(&["bad", "no", "good"], &["bad.key: expected a secret in base64", "no.key: cannot be read"]);
    }

    #[test]
    fn files_are_read_and_what_is_wrong_with_them_is_told_without_the_secret() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::write(folder.path().join("good"), "000102030405060708090a0b0c0d0e0f\n").expect("a file of the test");
        fs::write(folder.path().join("bad"), "000102030405060708090a0b0c0d0e0f\nhush\n").expect("a file of the test");
        fs::write(folder.path().join("odd"), b"\xFF\xFE").expect("a file of the test");
        let check = |lines: &[&str], expected: &[&str]| {
            let text = |name: &str, line: &str| {
                format!("[authorities.{name}]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\"]\n{line}\n")
            };
            let sections = ('a'..).zip(lines).map(|(name, line)| text(&name.to_string(), line));
            let config = Config::parse(&sections.collect::<String>(), "c.toml", folder.path()).expect("a config");
            let problems = cookies(&config).map_or_else(|problems| problems.to_string(), |_| String::new());
            let found: Vec<_> =
                problems.lines().map(|line| line.rsplit_once("/").map_or(line, |(_, name)| name)).collect();
            assert_eq!(found.len(), expected.len(), "{problems}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{problems}");
            assert!(!problems.contains("hush"), "{problems}");
        };
        let [good, bad, odd, no] = ["good", "bad", "odd", "no"].map(|file| format!("cookie_secrets_file = \"{file}\""));
        check(&[&good, &good], &[]);
        check(
            &[&bad, &good, &no, &bad, &odd],
            &[
                "bad:2: expected 32 hexadecimal digits, as from `openssl rand -hex 16`",
                "no: the secrets of cookies cannot be read: ",
                "odd:1: expected 32 hexadecimal digits",
            ],
        );
        check(&[&format!("{no}\ncookies = false")], &[]);
    }
}
