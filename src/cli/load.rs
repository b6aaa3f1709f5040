//! The files of a configuration: finds and reads the config file, and the zone files that it names.
//! All commands that take a config file load it here, so that `check` sees what `serve` will see.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io, str};

use crate::admin::{Token, TokenError};
use crate::config::{Config, Problems};
use crate::server::Setup;
use crate::zone::{Catalog, ZoneErrors};

/// Where a config file is looked for unless one is named.
const USUAL_PLACES: [&str; 2] = ["config.toml", "/etc/hedgerow/config.toml"];

/// Reads the config file that is named, or else the first of the usual places that has one. Tells
/// which file it was.
pub(super) fn load(file: Option<&Path>) -> Result<(Config, PathBuf), LoadError> {
    match file {
        Some(file) => load_first(&[file]),
        None => load_first(&USUAL_PLACES.map(Path::new)),
    }
}

/// Loads the files that a config names: zones, and the token of the admin server. All zone files that cannot be read, and all that is wrong in the others, are told at once, and
/// nothing is loaded by halves.
pub(super) fn load_files(config: Config) -> Result<Setup, LoadError> {
    let mut problems = ZoneProblems::default();
    let mut catalogs = Vec::new();
    for authority in &config.authorities {
        let mut files = Vec::new();
        for zone in &authority.zones {
            match fs::read(&zone.file) {
                Ok(bytes) => files.push((zone.file.display().to_string(), bytes)),
                Err(error) => problems.unreadable.push((zone.file.clone(), error)),
            }
        }
        let ttl = u32::try_from(authority.ttl.as_secs()).unwrap_or(u32::MAX);
        match Catalog::build(&files, ttl, authority.miss) {
            Ok(catalog) => catalogs.push(Arc::new(catalog)),
            Err(errors) => problems.wrong.push(errors),
        }
    }
    let token = load_token(&config)?;
    if problems.unreadable.is_empty() && problems.wrong.is_empty() {
        Ok(Setup { config, catalogs, token })
    } else {
        Err(LoadError::Zones(problems))
    }
}

/// Reads the token of the admin server, if the config has one.
fn load_token(config: &Config) -> Result<Option<Token>, LoadError> {
    let file = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    file.map(Token::read).transpose().map_err(LoadError::Token)
}

/// Reads the first of these files that exists.
fn load_first(places: &[&Path]) -> Result<(Config, PathBuf), LoadError> {
    for &file in places {
        match fs::read(file) {
            Ok(bytes) => return Ok((parse(file, &bytes)?, file.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file that is there was meant: the next place would be a surprise.
            Err(error) => return Err(LoadError::Unreadable(file.to_owned(), error)),
        }
    }
    Err(LoadError::NotFound(places.iter().map(PathBuf::from).collect()))
}

/// Reads the bytes of a config file. File names in it are relative to its folder.
fn parse(file: &Path, bytes: &[u8]) -> Result<Config, LoadError> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let sound = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = sound.iter().filter(|&&octet| octet == b'\n').count() + 1;
        LoadError::NotText { file: file.to_owned(), line }
    })?;
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    Config::parse(text, &file.display().to_string(), folder).map_err(LoadError::Wrong)
}

/// Why there is no configuration. Each of these is exit status 2.
#[derive(Debug)]
pub(super) enum LoadError {
    /// None of these exists.
    NotFound(Vec<PathBuf>),
    /// The config file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The config file is not in UTF-8, from this line on.
    NotText {
        /// The config file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The config file says something that is wrong.
    Wrong(Problems),
    /// Zone files are wrong.
    Zones(ZoneProblems),
    /// There is no token to be had from its file.
    Token(TokenError),
}

/// What is wrong with the zone files of a config.
#[derive(Debug, Default)]
pub(super) struct ZoneProblems {
    /// These cannot be read.
    unreadable: Vec<(PathBuf, io::Error)>,
    /// These can, but not be understood; by authority.
    wrong: Vec<ZoneErrors>,
}

impl fmt::Display for ZoneProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unreadable = self.unreadable.iter().map(|(file, error)| unreadable(file, error));
        let lines: Vec<String> = unreadable.chain(self.wrong.iter().map(ZoneErrors::to_string)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Says that a file cannot be read.
fn unreadable(file: &Path, error: &io::Error) -> String {
    format!("{}: cannot be read: {error}", file.display())
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(places) => match places.as_slice() {
                [file] => write!(f, "{}: there is no such config file", file.display()),
                places => {
                    let places: Vec<_> = places.iter().map(|file| file.display().to_string()).collect();
                    write!(f, "no config file, looked for {}; name one with -c FILE", places.join(", "))
                }
            },
            Self::Unreadable(file, error) => f.write_str(&unreadable(file, error)),
            Self::Zones(problems) => write!(f, "{problems}"),
            Self::Token(error) => write!(f, "{error}"),
            Self::NotText { file, line } => {
                write!(f, "{}:{line}: not UTF-8 text, as TOML has to be", file.display())
            }
            Self::Wrong(problems) => write!(f, "{problems}"),
        }
    }
}

impl Error for LoadError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config that is right, whose zone files may not exist.
    const CONFIG: &str = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\", \"b.txt\"]\n";

    /// A folder with these files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("a file of the test");
        }
        folder
    }

    #[test]
    fn the_first_place_that_has_a_file_is_taken() {
        let folder = folder(&[("second.toml", CONFIG.as_bytes()), ("third.toml", b"broken")]);
        let places = ["first.toml", "second.toml", "third.toml"].map(|name| folder.path().join(name));
        let places = places.each_ref().map(PathBuf::as_path);
        let (config, file) = load_first(&places).expect("the second");
        assert_eq!(file, places[1]);
        assert_eq!(config.authorities[0].zones[0].file, folder.path().join("a.txt"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Some(Path::new("no/such.toml"))).expect_err("no file").to_string();
        assert_eq!(error, "no/such.toml: there is no such config file");
        let error = load_first(&["no/a.toml", "no/b.toml"].map(Path::new)).expect_err("no file").to_string();
        assert_eq!(error, "no config file, looked for no/a.toml, no/b.toml; name one with -c FILE");
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = folder(&[]);
        let error = load(Some(folder.path())).expect_err("a folder");
        assert!(matches!(error, LoadError::Unreadable(..)), "{error}");
    }

    #[test]
    fn other_encodings_are_told() {
        let folder = folder(&[("c.toml", b"workers = 0\n# Gr\xfcn\n")]);
        let error = load(Some(&folder.path().join("c.toml"))).expect_err("Latin-1").to_string();
        assert!(error.ends_with("c.toml:2: not UTF-8 text, as TOML has to be"), "{error}");
    }

    #[test]
    fn every_missing_zone_file_is_told() {
        let folder = folder(&[("c.toml", CONFIG.as_bytes())]);
        let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
        let error = load_files(config).expect_err("no zones").to_string();
        let names: Vec<_> = error.lines().map(|line| line.contains("a.txt: cannot be read")).collect();
        assert_eq!(names, [true, false], "{error}");
    }

    #[test]
    fn all_that_is_wrong_in_zone_files_is_told_at_once() {
        let folder = folder(&[("c.toml", CONFIG.as_bytes()), ("a.txt", b"nonsense\n"), ("b.txt", b"a 1.2.3 A\n")]);
        let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
        let error = load_files(config).expect_err("bad lines").to_string();
        assert!(error.contains("a.txt:1:") && error.contains("b.txt:1:3:"), "{error}");
    }

    #[test]
    fn sound_zone_files_become_a_catalog_for_each_authority() {
        let folder =
            folder(&[("c.toml", CONFIG.as_bytes()), ("a.txt", b"a 192.0.2.1 A\n"), ("b.txt", b"b ::1 AAAA\n")]);
        let (config, _) = load(Some(&folder.path().join("c.toml"))).expect("a config");
        let setup = load_files(config).expect("zones");
        assert_eq!(setup.catalogs.len(), 1);
        assert_eq!(setup.catalogs[0].hosts(), 2);
    }
}
