//! Loading: finds and reads the config file and every file that it names into a [`Setup`].
//!
//! All commands load a config here, so that `check` sees the same as `serve`. [`Confinement`] restricts the
//! files that a process may reach afterwards. Disks and large zones may be slow: a running server loads on a
//! separate thread (`control/reload.rs`).

mod certificates;
mod checks;
mod confinement;
mod disk;
mod hosts;
mod names;
mod parallel;
mod secrets;
#[cfg(test)]
mod tests;
mod trust;
mod users;
mod watch;
mod zones;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, str};

use config::{AdminConfig, Config, Problem, Problems, User};
use engine::state::LocalNames;
use limit::CookieSecrets;
use net::from_clients::tls::NamedCertificate;
use net::to_backends::tls::KnownRoots;
use zone::ZoneDb;
use zone::transfer::tsig::TsigKeys;

use crate::admin::Token;
use crate::files;

pub use self::certificates::CertificateFiles;
pub use self::checks::reaches;
pub use self::confinement::{ConfigFiles, Confinement, SAVED_LATENCY, SAVED_MEMBERS, folder_of};
pub use self::names::RuleNames;
pub use self::secrets::EtcdSecrets;
pub use self::trust::{look as look_at_roots, shown as shown_certificate};
pub use self::users::{find_user, user_name};
pub use self::watch::{FileWatch, ReadingGuard, Watcher};
pub use self::zones::Loader;

/// A config with its loaded files.
#[derive(Debug)]
pub struct Setup {
    /// The parsed config.
    pub config: Config,
    /// The zone database of each authority.
    pub zone_dbs: Vec<Arc<ZoneDb>>,
    /// The content of the files of forwarder and pools.
    pub forwarder: ForwarderFiles,
    /// The keys of the config, with their secrets.
    pub keys: TsigKeys,
    /// The secrets of cookies that stand in files, by file.
    pub cookie_secrets: HashMap<PathBuf, CookieSecrets>,
    /// The certificates of encrypted listeners.
    pub certificates: Vec<NamedCertificate>,
    /// Polls the files of the certificates.
    pub certificate_files: CertificateFiles,
    /// The token that changes by HTTP require.
    pub token: Option<Token>,
    /// The trust anchors for TLS to backends, and the client certificates.
    pub roots: Arc<KnownRoots>,
    /// The text of the config, if it was read from one.
    pub source: Option<ConfigText>,
    /// The files to which the process confines itself after it has bound its sockets, if it is only a server.
    pub files: Option<ConfigFiles>,
    /// The watch of the files, if there are any.
    pub watch: Option<FileWatch>,
}

/// The content of the files of forwarder and pools.
#[derive(Clone, Debug, Default)]
pub struct ForwarderFiles {
    /// The names for rules.
    pub names: RuleNames,
    /// The local names, with those of the config.
    pub local_names: Arc<LocalNames>,
    /// The secrets for etcd.
    pub etcd: EtcdSecrets,
}

impl Setup {
    /// Logs the version of hedgerow and the config file.
    pub fn log_start(&self) {
        let config = self.source.as_ref().map_or_else(|| "none".to_owned(), |source| source.file.display().to_string());
        tracing::info!(version = env!("CARGO_PKG_VERSION"), config, "starting hedgerow");
    }
}

/// The text of a config file. File names in it are relative to its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// The path of the file.
    pub file: PathBuf,
    /// The content of the file.
    pub octets: Arc<[u8]>,
}

impl ConfigText {
    /// Reads the named config file, or the first existing one of the usual places.
    pub fn read(file: Option<&Path>) -> Result<Self, LoadError> {
        match file {
            Some(file) => Self::read_first(&[file]),
            None => Self::read_first(&USUAL_PLACES.map(Path::new)),
        }
    }

    fn read_first(places: &[&Path]) -> Result<Self, LoadError> {
        for &file in places {
            match files::read(file) {
                Ok(octets) => return Ok(Self { file: file.to_owned(), octets: octets.into() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // An existing file was meant: falling through to the next place would be a surprise.
                Err(error) => return Err(LoadError::Unreadable(file.to_owned(), error)),
            }
        }
        Err(LoadError::NotFound(places.iter().map(PathBuf::from).collect()))
    }

    /// Adds the place in the config to each problem that concerns a file as a whole.
    pub fn with_places(&self, error: LoadError) -> LoadError {
        let Ok(text) = str::from_utf8(&self.octets) else { return error };
        let folder = self.file.parent().unwrap_or_else(|| Path::new(""));
        let places = Config::places(text, &self.file.display().to_string());
        let place_of = |line: &str| {
            let is_meant = |value: &str| {
                let file = folder.join(value).display().to_string();
                line.strip_prefix(&file).is_some_and(|problem| problem.starts_with(": "))
            };
            places.iter().find(|(value, _)| is_meant(value)).map(|(_, place)| place)
        };
        let text = error.to_string();
        let lines = text.lines().map(|line| match place_of(line) {
            Some(place) => format!("{place}: {line}"),
            None => line.to_owned(),
        });
        let placed = lines.collect::<Vec<_>>().join("\n");
        if placed == text { error } else { LoadError::Unusable(placed) }
    }

    /// Returns the warnings about a valid config, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let text = str::from_utf8(&self.octets).unwrap_or_default();
        Config::warnings(text, &self.file.display().to_string())
    }

    /// Parses the config; `find_user` looks up users of this host.
    pub fn parse(&self, find_user: &dyn Fn(&str) -> Option<User>) -> Result<Config, LoadError> {
        let Self { file, octets } = self;
        let text = str::from_utf8(octets).map_err(|error| {
            let sound = octets.get(..error.valid_up_to()).unwrap_or_default();
            let line = sound.iter().filter(|&&octet| octet == b'\n').count() + 1;
            LoadError::NotText { file: file.clone(), line }
        })?;
        let folder = file.parent().unwrap_or_else(|| Path::new(""));
        Config::parse_among(text, &file.display().to_string(), folder, find_user).map_err(LoadError::Wrong)
    }
}

const USUAL_PLACES: [&str; 2] = ["config.toml", "/etc/hedgerow/config.toml"];

/// Reads the named config file, or the first existing one of the usual places.
pub fn load(file: Option<&Path>) -> Result<(Config, PathBuf), LoadError> {
    let text = ConfigText::read(file)?;
    Ok((text.parse(&find_user)?, text.file))
}

/// Reads `[admin]` and `user` of a config file as far as possible, even if the config is wrong elsewhere.
pub fn load_admin(file: Option<&Path>) -> Result<(Option<AdminConfig>, Option<User>), LoadError> {
    let text = ConfigText::read(file)?;
    let folder = text.file.parent().unwrap_or_else(|| Path::new(""));
    let (admin, user) = AdminConfig::salvage(&String::from_utf8_lossy(&text.octets), folder);
    Ok((admin, user.as_deref().and_then(|user| User::from_ids(user).or_else(|| find_user(user)))))
}

/// Loads the files of a config, all or nothing. Reports all problems of zone files at once.
pub fn load_files(config: Config, loader: &mut Loader) -> Result<Setup, LoadError> {
    check_folders(&config)?;
    let loops = checks::loops(&config);
    if !loops.is_empty() {
        return Err(LoadError::Unusable(loops));
    }
    let zone_dbs = loader.load(&config)?;
    let local_names = Arc::new(hosts::load(&config)?);
    let names = loader.names.load(&config)?;
    let keys = secrets::keys(&config)?;
    let cookie_secrets = secrets::cookies(&config)?;
    let certificate_files = loader.certificates.clone();
    let certificates = certificate_files.load(&config)?;
    let token = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref()).map(Token::read).transpose();
    let token = token.map_err(|error| LoadError::Unusable(error.to_string()))?;
    let etcd = secrets::etcd(&config).map_err(LoadError::Unusable)?;
    let roots = trust::load(&config, &certificates)?;
    Ok(Setup {
        config,
        zone_dbs,
        forwarder: ForwarderFiles { local_names, names, etcd },
        keys,
        cookie_secrets,
        certificates,
        certificate_files,
        token,
        roots,
        source: None,
        files: None,
        watch: None,
    })
}

/// Loads files like [`load_files`], for a server: also logs warnings. `file` is the config file.
pub fn load_files_to_serve(config: Config, file: Option<&Path>, loader: &mut Loader) -> Result<Setup, LoadError> {
    let files = ConfigFiles::of(&config, file);
    let loaded = load_files(config, loader);
    let included = loader.included();
    let digests = loader.digests(loaded.is_ok());
    let with_digest = |file: PathBuf| (digests.get(file.as_path()).copied(), file);
    let watched = files.watched(included).into_iter().map(with_digest);
    loader.watch.set_files(watched.map(|(digest, file)| (file, digest)).collect());
    let setup = Setup { files: Some(files), watch: Some(loader.watch.clone()), ..loaded? };
    warnings(&setup, loader, file).iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(setup)
}

/// Returns the warnings about a loaded config, a line each. `file` is the config file.
pub fn warnings(setup: &Setup, loader: &Loader, file: Option<&Path>) -> Vec<String> {
    [loader.warnings.clone(), checks::warnings(&setup.config, &setup.certificates, file)].concat()
}

fn check_folders(config: &Config) -> Result<(), LoadError> {
    let missing = confinement::missing_folders(config);
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Unusable(missing.join("\n"))) }
}

/// Reads a config and all files that it names. Later reads read only changed files.
#[derive(Debug, Default)]
pub struct ConfigReader {
    file: Option<PathBuf>,
    loader: Loader,
    user: Option<User>,
}

impl ConfigReader {
    /// Makes a reader for this file, or for the first existing one of the usual places.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Sets the user that the process has become.
    pub fn set_user(&mut self, user: Option<User>) {
        self.user = user;
    }

    /// Reads `text`, or else the config file, and all files that it names, which must be in reach.
    pub fn read(&mut self, text: Option<ConfigText>, confinement: &Confinement) -> Result<Setup, LoadError> {
        let _reading = self.loader.begin_read(self.file.as_deref());
        let text = text.map_or_else(|| ConfigText::read(self.file.as_deref()), Ok)?;
        // After a change of user the process may be unable to look up users, and does not need to.
        let user = self.user.as_ref();
        let known = |name: &str| user.filter(|user| user.name == name).cloned().or_else(|| find_user(name));
        let config = text.parse(&known)?;
        check_folders(&config)?;
        confinement.check(&ConfigFiles::of(&config, Some(&text.file))).map_err(LoadError::Unusable)?;
        let setup = load_files_to_serve(config, Some(&text.file), &mut self.loader);
        let setup = setup.map_err(|error| text.with_places(error))?;
        text.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        self.user.clone_from(&setup.config.process.user);
        Ok(Setup { source: Some(text), ..setup })
    }
}

/// Collects what was read, or else all problems.
fn gather<T>(read: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, LoadError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for file in read {
        match file {
            Ok(file) => found.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(LoadError::Unusable(problems.join("\n"))) }
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    format!("{}: cannot be read: {error}", file.display())
}

/// The reason why there is no configuration. Each of these is exit status 2. Neither Debug nor Display shows
/// a secret.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// None of these files exists.
    #[error("{}", not_found(.0))]
    NotFound(Vec<PathBuf>),
    /// The config file cannot be read.
    #[error("{}", unreadable(.0, .1))]
    Unreadable(PathBuf, io::Error),
    /// The config file is not UTF-8 from this line on.
    #[error("{}:{line}: not UTF-8 text, as TOML has to be", .file.display())]
    NotText {
        /// The path of the config file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The config has errors.
    #[error("{0}")]
    Wrong(Problems),
    /// Files that the config names cannot be used, or a backend is the forwarder itself: a line for each
    /// problem.
    #[error("{0}")]
    Unusable(String),
}

fn not_found(places: &[PathBuf]) -> String {
    match places {
        [file] => format!("{}: there is no such config file", file.display()),
        places => {
            let places: Vec<_> = places.iter().map(|file| file.display().to_string()).collect();
            format!("no config file, looked for {}; name one with -c FILE", places.join(", "))
        }
    }
}

impl LoadError {
    /// Returns the problems without the lines of the config that they stand in.
    pub fn headlines(&self) -> String {
        match self {
            Self::Wrong(problems) => problems.iter().map(Problem::headline).collect::<Vec<_>>().join("\n"),
            other => other.to_string(),
        }
    }
}
