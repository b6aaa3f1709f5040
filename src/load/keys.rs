//! The keys of a config, with the secrets in files.

use super::{LoadError, gather, unreadable};
use crate::config::{Config, KeyConfig, words};
use crate::files;
use crate::transfer::tsig::{TsigKey, TsigKeys};

pub(super) fn load(config: &Config) -> Result<TsigKeys, LoadError> {
    gather(config.keys.iter().map(read)).map(TsigKeys::new)
}

fn read(key: &KeyConfig) -> Result<TsigKey, String> {
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
            let keys = files.iter().map(|file| format!("[keys.{file}]\nsecret_file = \"{file}.key\"\n"));
            let rest = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\"]\n";
            let text = keys.collect::<String>() + rest;
            let config = Config::parse(&text, "c.toml", folder.path()).expect("a config");
            let problems = load(&config).map_or_else(|problems| problems.to_string(), |_| String::new());
            let found: Vec<_> =
                problems.lines().map(|line| line.rsplit_once('/').map_or(line, |(_, name)| name)).collect();
            assert_eq!(found.len(), expected.len(), "{problems}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{problems}");
            assert!(!problems.contains("hush"));
        };
        check(&["good"], &[]);
        check(&["bad", "no", "good"], &["bad.key: expected a secret in base64", "no.key: cannot be read"]);
    }
}
