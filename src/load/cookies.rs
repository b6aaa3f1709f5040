//! The secrets of cookies that stand in files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{LoadError, gather};
use crate::config::Config;
use crate::files;
use crate::limit::CookieSecrets;

/// Reads each file of cookie secrets once; reports every wrong file.
pub(super) fn load(config: &Config) -> Result<HashMap<PathBuf, CookieSecrets>, LoadError> {
    let read = |file: &Path| read(file).map(|secrets| (file.to_owned(), secrets));
    gather(config.cookie_secrets_files().into_iter().map(read)).map(HashMap::from_iter)
}

fn read(file: &Path) -> Result<CookieSecrets, String> {
    let name = file.display();
    // Read as bytes: text that is not UTF-8 is reported as a wrong line.
    let octets =
        files::read(file).map_err(|error| format!("{name}: the secrets of cookies cannot be read: {error}"))?;
    let secrets = CookieSecrets::parse(&String::from_utf8_lossy(&octets));
    secrets.map_err(|unfit| format!("{name}:{}: {unfit}", unfit.line))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
            let problems = load(&config).map_or_else(|problems| problems.to_string(), |_| String::new());
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
