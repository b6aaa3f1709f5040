//! Loading: finds and reads the config file, and every file that it names, into a [`Setup`].
//!
//! All commands that take a config file load it here, so that `check` sees what `serve` will see, at the start and at a reload. Which
//! files a process may reach from then on is known here too ([`Confinement`]). Reading takes as long as disks and zones make
//! it take: a running server loads on a thread of its own (`server/reload.rs`).

mod certificates;
mod confinement;
mod cookies;
mod denials;
mod designated;
mod disk;
mod etcd;
mod in_the_clear;
mod keys;
pub mod loops;
mod parallel;
mod reader;
mod secrets;
#[cfg(test)]
mod tests;
mod trust;
mod watch;
mod zones;

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, io, str};

use crate::admin::{Token, TokenError};
use crate::config::{AdminConfig, Config, Problem, Problems, User};
use crate::files;
use crate::limit::CookieSecrets;
use crate::net::tls::KnownRoots;
use crate::net::tls_server::NamedCertificate;
use crate::transfer::tsig::Keys;
use crate::zone::ZoneDb;

pub use self::certificates::{CertificateFiles, CertificateProblem, warnings as certificate_warnings};
pub use self::confinement::{Confinement, Files, Outside, SAVED_MEMBERS, folder_of};
pub use self::cookies::CookieProblem;
pub use self::denials::warnings as denial_warnings;
pub use self::designated::warnings as designation_warnings;
pub use self::etcd::{EtcdProblem, EtcdSecrets, load as etcd_secrets};
pub use self::in_the_clear::warnings as clear_http_warnings;
pub use self::keys::KeyProblem;
pub use self::reader::Reader;
pub use self::trust::{
    TrustProblem, load as trusted_roots, look as look_at_roots, shown as shown_certificate, warnings as trust_warnings,
};
pub use self::watch::{Reading, Watch, Watcher};
pub use self::zones::{Loader, ZoneProblem};

/// A config whose zones are loaded.
#[derive(Debug)]
pub struct Setup {
    /// The config.
    pub config: Config,
    /// For each authority of the config, what it answers from.
    pub zone_dbs: Vec<Arc<ZoneDb>>,
    /// The keys of the config, with their secrets.
    pub keys: Keys,
    /// The secrets of cookies that stand in files, by file.
    pub cookie_secrets: HashMap<PathBuf, CookieSecrets>,
    /// What encrypted listeners show.
    pub certificates: Vec<NamedCertificate>,
    /// Looks at the files of these again.
    pub certificate_files: CertificateFiles,
    /// What changes by HTTP must bear.
    pub token: Option<Token>,
    /// What is needed to talk to etcd.
    pub etcd: EtcdSecrets,
    /// Whose certificates are good, for backends that are asked by TLS, and which of ours they are shown.
    pub roots: Arc<KnownRoots>,
    /// The text that the config was read from, if it was.
    pub source: Option<ConfigText>,
    /// The files of the config, to which the process confines itself when it has bound what it binds. None if it is not to
    /// give up anything, since it is not a server alone.
    pub files: Option<Files>,
    /// What watches the files, if there are any.
    pub watch: Option<Watch>,
}

/// The text of a config file. File names in it are relative to the folder of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// Where it was read from.
    pub file: PathBuf,
    /// As it was read.
    pub octets: Arc<[u8]>,
}

impl ConfigText {
    /// Reads the config file that is named, or else the first of the usual places that has one.
    pub fn read(file: Option<&Path>) -> Result<Self, LoadError> {
        match file {
            Some(file) => Self::read_first(&[file]),
            None => Self::read_first(&USUAL_PLACES.map(Path::new)),
        }
    }

    /// Reads the first of these files that exists.
    fn read_first(places: &[&Path]) -> Result<Self, LoadError> {
        for &file in places {
            match files::read(file) {
                Ok(octets) => return Ok(Self { file: file.to_owned(), octets: octets.into() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A file that is there was meant: the next place would be a surprise.
                Err(error) => return Err(LoadError::Unreadable(file.to_owned(), error)),
            }
        }
        Err(LoadError::NotFound(places.iter().map(PathBuf::from).collect()))
    }

    /// The same problems, with the place of the config before each that is about a file as a whole.
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
        let told = error.to_string();
        let lines = told.lines().map(|line| match place_of(line) {
            Some(place) => format!("{place}: {line}"),
            None => line.to_owned(),
        });
        let placed = lines.collect::<Vec<_>>().join("\n");
        if placed == told { error } else { LoadError::Placed(placed) }
    }

    /// The config that it is, where `find_user` knows the users of this host.
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

/// Where a config file is looked for unless one is named.
const USUAL_PLACES: [&str; 2] = ["config.toml", "/etc/hedgerow/config.toml"];

/// Reads the config file that is named, or else the first of the usual places that has one. Tells
/// which file it was.
pub fn load(file: Option<&Path>) -> Result<(Config, PathBuf), LoadError> {
    let text = ConfigText::read(file)?;
    Ok((text.parse(&find_user)?, text.file))
}

/// Reads `[admin]` and `user` of such a file as far as they can be read, although the config is wrong elsewhere.
///
/// # Errors
/// If there is no such file, or it cannot be read.
pub fn load_admin(file: Option<&Path>) -> Result<(Option<AdminConfig>, Option<User>), LoadError> {
    let text = ConfigText::read(file)?;
    let folder = text.file.parent().unwrap_or_else(|| Path::new(""));
    let (admin, user) = AdminConfig::salvage(&String::from_utf8_lossy(&text.octets), folder);
    Ok((admin, user.as_deref().and_then(find_user)))
}

/// The user of this name on this host.
pub fn find_user(name: &str) -> Option<User> {
    let found = nix::unistd::User::from_name(name).ok()??;
    Some(User { name: name.to_owned(), uid: found.uid.as_raw(), gid: found.gid.as_raw() })
}

/// Loads the files that a config names, one config after the other: zones, secrets of keys and of cookies, and the token of the admin
/// server. All that is wrong in zone files is told at once, and nothing is loaded by halves.
pub fn load_files(config: Config, loader: &mut Loader) -> Result<Setup, LoadError> {
    check_folders(&config)?;
    let loops = loops::told(&config);
    if !loops.is_empty() {
        return Err(LoadError::Loops(loops));
    }
    let zone_dbs = loader.load(&config).map_err(LoadError::Zones)?;
    let keys = keys::load(&config).map_err(LoadError::Keys)?;
    let cookie_secrets = cookies::load(&config).map_err(LoadError::Cookies)?;
    let certificate_files = loader.certificates().clone();
    let certificates = certificate_files.load(&config).map_err(LoadError::Certificates)?;
    let token = load_token(&config)?;
    let etcd = etcd::load(&config).map_err(LoadError::Etcd)?;
    let roots = trust::load(&config, &certificates).map_err(LoadError::Trust)?;
    Ok(Setup {
        config,
        zone_dbs,
        keys,
        cookie_secrets,
        certificates,
        certificate_files,
        token,
        etcd,
        roots,
        source: None,
        files: None,
        watch: None,
    })
}

/// The same for a server: what is odd in zone files, and secrets that others can read, go to the log. `file` is the config
/// file, if there is one.
pub fn load_files_to_serve(config: Config, file: Option<&Path>, loader: &mut Loader) -> Result<Setup, LoadError> {
    let files = Files::of(&config, file);
    let loaded = load_files(config, loader);
    let included = loader.included();
    let digests = loader.digests(loaded.is_ok());
    let with_digest = |file: PathBuf| (digests.get(file.as_path()).copied(), file);
    let watched = files.watched(included).into_iter().map(with_digest);
    loader.watch().set_files(watched.map(|(digest, file)| (file, digest)).collect());
    let setup = Setup { files: Some(files), watch: Some(loader.watch().clone()), ..loaded? };
    loader.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    certificate_warnings(&setup.certificates, SystemTime::now()).iter().for_each(|warning| tracing::warn!("{warning}"));
    trust_warnings(&setup.config).iter().for_each(|warning| tracing::warn!("{warning}"));
    clear_http_warnings(&setup.config).iter().for_each(|warning| tracing::warn!("{warning}"));
    denial_warnings(&setup.config).iter().for_each(|warning| tracing::warn!("{warning}"));
    designation_warnings(&setup.config, &setup.certificates).iter().for_each(|warning| tracing::warn!("{warning}"));
    user_warnings(&setup.config).iter().for_each(|warning| tracing::warn!("{warning}"));
    exposed_secrets(&setup.config, file).iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(setup)
}

/// A warning of a user that other programs share.
pub fn user_warnings(config: &Config) -> Vec<String> {
    let shared = config.user.iter().filter(|user| user.uid == SHARED_USER);
    let warning = |user: &User| {
        format!(
            "user: other programs run as {}, too, and could change everything by the admin socket; \
             make a user for this alone with useradd --system",
            user.name
        )
    };
    shared.map(warning).collect()
}

/// The number of the user "nobody", which many programs run as.
const SHARED_USER: u32 = 65_534;

/// Secrets that any user of this host can read, each with the command that mends it.
pub fn exposed_secrets(config: &Config, file: Option<&Path>) -> Vec<String> {
    secrets::warnings(config, file)
}

/// Refuses a config with a file in a folder that does not exist.
fn check_folders(config: &Config) -> Result<(), LoadError> {
    let missing = confinement::missing_folders(config);
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Folders(missing.join("\n"))) }
}

/// Reads the token of the admin server, if the config has one.
fn load_token(config: &Config) -> Result<Option<Token>, LoadError> {
    let file = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    file.map(Token::read).transpose().map_err(LoadError::Token)
}

/// All that is wrong with the files of one kind.
#[derive(Debug)]
pub struct FileProblems<T>(Vec<T>);

impl<T> FileProblems<T> {
    /// Takes what was found in all files, or else all that is wrong with them.
    fn gather<F>(read: impl Iterator<Item = Result<F, T>>) -> Result<Vec<F>, Self> {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for file in read {
            match file {
                Ok(file) => found.push(file),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(Self(problems)) }
    }
}

impl<T: fmt::Display> fmt::Display for FileProblems<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(T::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Why there is no configuration. Each of these is exit status 2.
#[derive(Debug)]
pub enum LoadError {
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
    /// Files that the config names are wrong, each line with the place of the config.
    Placed(String),
    /// Folders of files that the server writes do not exist.
    Folders(String),
    /// Backends are the forwarder itself.
    Loops(String),
    /// Zone files are wrong.
    Zones(FileProblems<ZoneProblem>),
    /// There are no secrets to be had from the files of keys.
    Keys(FileProblems<KeyProblem>),
    /// There are no secrets to be had from the files of cookies.
    Cookies(FileProblems<CookieProblem>),
    /// There are no certificates to be had from their files.
    Certificates(FileProblems<CertificateProblem>),
    /// There is no token to be had from its file.
    Token(TokenError),
    /// What is needed to talk to etcd is not to be had from its files.
    Etcd(EtcdProblem),
    /// There are no certificates to judge backends by.
    Trust(FileProblems<TrustProblem>),
    /// A file is out of reach since the start.
    Outside(Outside),
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
            Self::Unreadable(file, error) => write!(f, "{}: cannot be read: {error}", file.display()),
            Self::Zones(problems) => write!(f, "{problems}"),
            Self::Keys(problems) => write!(f, "{problems}"),
            Self::Cookies(problems) => write!(f, "{problems}"),
            Self::Certificates(problems) => write!(f, "{problems}"),
            Self::Token(error) => write!(f, "{error}"),
            Self::Trust(problems) => write!(f, "{problems}"),
            Self::Etcd(problem) => write!(f, "{problem}"),
            Self::Outside(outside) => write!(f, "{outside}"),
            Self::NotText { file, line } => {
                write!(f, "{}:{line}: not UTF-8 text, as TOML has to be", file.display())
            }
            Self::Wrong(problems) => write!(f, "{problems}"),
            Self::Loops(problems) | Self::Folders(problems) | Self::Placed(problems) => write!(f, "{problems}"),
        }
    }
}

impl Error for LoadError {}
