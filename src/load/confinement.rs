//! The files that a server may reach once it has started: those of its config, and no others.
//!
//! Where the kernel has Landlock, the process denies itself everything else, without any privilege, so that
//! an attacker who takes it over finds no other files. The rules name folders, not files, because editors
//! replace a file by renaming another. A reload that names a file elsewhere is refused before anything is
//! read, with the remedy.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

use config::{Config, DnstapTarget, KeyConfig, LogTarget};
use serde::{Deserialize, Serialize};

use super::names;

/// The files that a config names, with its own. A new key that names a file needs an entry here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFiles {
    /// Files that are read, also by a reload.
    pub read: Vec<PathBuf>,
    /// Files that are read all the time; their changes cause no reload.
    pub looked_at: Vec<PathBuf>,
    /// Files that are replaced while the server runs or when it ends.
    pub written: Vec<PathBuf>,
    /// Programs that the process may run: its own executable, if it may start other processes.
    pub programs: Vec<PathBuf>,
}

impl ConfigFiles {
    /// Returns the files of a config that was read from `file` or from the command line.
    pub fn of(config: &Config, file: Option<&Path>) -> Self {
        let authorities = || config.authorities.iter();
        let zones = authorities().flat_map(|authority| &authority.zones.files).map(|zone| &zone.file);
        let secondaries = authorities().flat_map(|authority| &authority.zones.secondaries).map(|zone| &zone.file);
        // The path only stands for the folder; catalogs determine the files in it.
        let members = authorities().filter(|authority| !authority.zones.catalogs.is_empty());
        let members: Vec<_> = members.map(|authority| authority.zones.members_folder.join("members")).collect();
        let produced = authorities().flat_map(|authority| &authority.zones.produced).map(|catalog| &catalog.file);
        let token = config.admin.as_ref().and_then(|admin| admin.token_file.as_ref());
        let keys = config.keys.iter().filter_map(|key| match key {
            KeyConfig::InFile { file, .. } => Some(file),
            KeyConfig::Given(_) => None,
        });
        let dnstap = config.taps.dnstap.as_ref().and_then(|dnstap| match &dnstap.to {
            DnstapTarget::File(file) => Some(file),
            DnstapTarget::Unix(_) | DnstapTarget::Tcp(_) => None,
        });
        let names = names::files_of(config).into_iter().map(Path::to_owned);
        let cookies = config.cookie_secrets_files().into_iter().map(Path::to_owned);
        let cache = config.cache.as_ref().and_then(|cache| cache.persist.as_ref());
        let log = config.taps.query_log.as_ref().and_then(|log| match &log.to {
            LogTarget::File(file) => Some(file),
            // Landlock does not restrict connections to sockets.
            LogTarget::Stderr | LogTarget::Unix(_) => None,
        });
        let trusted =
            config.pools.iter().flat_map(|pool| &pool.backends).filter_map(|backend| backend.trust.ca.as_ref());
        let certificates = config.certificates.iter().flat_map(|certificate| [&certificate.chain, &certificate.key]);
        let etcd = config.etcd.iter().flat_map(|etcd| etcd.password_file.iter().chain(&etcd.ca_file));
        let hosts = config.forwarder.iter().flat_map(|forwarder| &forwarder.names.hosts_files);
        let looked_at = config.pools.iter().filter_map(|pool| pool.discover.as_ref()?.file.as_ref());
        let state_dir = config.process.state_dir.as_ref();
        let state = [SAVED_MEMBERS, SAVED_LATENCY].into_iter().filter_map(|name| Some(state_dir?.join(name)));
        Self {
            read: file
                .map(Path::to_owned)
                .into_iter()
                .chain(
                    zones.chain(token).chain(keys).chain(certificates).chain(etcd).chain(trusted).chain(hosts).cloned(),
                )
                .chain(cookies)
                .chain(names)
                .collect(),
            looked_at: looked_at.cloned().collect(),
            written: secondaries
                .chain(produced)
                .chain(&members)
                .chain(cache)
                .chain(log)
                .chain(dnstap)
                .cloned()
                .chain(state)
                .collect(),
            programs: Vec::new(),
        }
    }

    /// Returns the files to watch: those that only others change, and the files that zone files include.
    pub(super) fn watched(&self, included: Vec<PathBuf>) -> Vec<PathBuf> {
        let read = self.read.iter().cloned().chain(included);
        read.filter(|file| !self.written.contains(file)).collect()
    }
}

/// The folders that a process may reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Canonical folders; none if the kernel does not restrict the process.
    folders: Option<Folders>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Folders {
    read: Vec<PathBuf>,
    written: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
    /// The folders of hedgerow's executable. A rule for the file would not do: an upgrade renames another
    /// file into its place, and a server that has succeeded its supervisor must run the new one.
    programs: Vec<PathBuf>,
}

impl Folders {
    fn enforce(self) -> Confinement {
        match restrict(&self) {
            Ok(RulesetStatus::NotEnforced) => {
                tracing::info!("this kernel has no Landlock: file access is not restricted");
                Confinement::default()
            }
            Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {
                let Self { read, written, .. } = &self;
                tracing::debug!(?read, ?written, "the process is confined to the folders of its config (landlock)");
                Confinement { folders: Some(self) }
            }
            Err(error) => {
                tracing::warn!(%error, "Landlock failed: file access is not restricted");
                Confinement::default()
            }
        }
    }
}

impl Confinement {
    /// Confines this thread with the same rules as another process of hedgerow.
    pub fn enforce_again(&self) {
        if let Some(folders) = &self.folders {
            folders.clone().enforce();
        }
    }

    /// Confines this thread, and the threads it starts, to these files, and to these folders for Unix
    /// sockets. An older kernel restricts less or nothing: that is logged and is no error.
    pub fn enforce(files: &ConfigFiles, sockets: &[PathBuf]) -> Self {
        let mut read = folders_of(&files.read);
        read.extend(folders_of(&files.looked_at));
        let (written, programs) = (folders_of(&files.written), folders_of(&files.programs));
        Folders { read, written, sockets: sockets.to_vec(), programs }.enforce()
    }

    /// Returns an error for the first file of a config that is out of reach.
    pub fn check(&self, files: &ConfigFiles) -> Result<(), String> {
        let Some(folders) = &self.folders else { return Ok(()) };
        let all: Vec<_> = folders.read.iter().chain(&folders.written).collect();
        let written: Vec<_> = folders.written.iter().collect();
        let is_below = |file: &Path, folder: &Path| canonical(file).is_some_and(|file| file.starts_with(folder));
        let read = files.read.iter().chain(&files.looked_at).map(|file| (file, &all));
        let mut named = read.chain(files.written.iter().map(|file| (file, &written)));
        let outside = named.find(|(file, allowed)| !allowed.iter().any(|folder| is_below(file, folder)));
        outside.map_or(Ok(()), |(file, allowed)| Err(out_of_reach(file, allowed)))
    }
}

fn out_of_reach(file: &Path, folders: &[&PathBuf]) -> String {
    let (file, folder) = (file.display(), folder_of(file));
    if is_missing(folder) {
        return format!("{file}: the folder {} does not exist; make it and restart", folder.display());
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let remedy =
        if folders.is_empty() { String::new() } else { format!(", or keep the file in {}", folders.join(", ")) };
    format!("{file}: the process cannot open it, since it was not in the config at the start: restart it{remedy}")
}

fn is_missing(folder: &Path) -> bool {
    folder.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Restricts file access only: a reload binds new network addresses, and transfers connect to others.
fn restrict(folders: &Folders) -> Result<RulesetStatus, RulesetError> {
    let Folders { read, written, sockets, programs } = folders;
    let read_access = AccessFs::ReadFile | AccessFs::ReadDir;
    let run_access = read_access | AccessFs::Execute;
    let of_programs = if programs.is_empty() { &[] } else { OF_PROGRAMS };
    let replace_access: BitFlags<AccessFs> = read_access
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile;
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(KNOWN))?;
    let scopes = scopes(!programs.is_empty(), env::var_os("NOTIFY_SOCKET").as_deref());
    if !scopes.is_empty() {
        rules = rules.scope(scopes)?;
    }
    let status = rules
        .create()?
        .add_rules(path_beneath_rules(read, read_access))?
        .add_rules(path_beneath_rules(SYSTEM, read_access))?
        .add_rules(path_beneath_rules(written, replace_access))?
        .add_rules(path_beneath_rules(sockets, AccessFs::RemoveFile | AccessFs::MakeSock))?
        .add_rules(path_beneath_rules(programs, run_access))?
        .add_rules(path_beneath_rules(of_programs, run_access))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Returns what stays within the process. With a supervisor, a successor kills hanging siblings, which are
/// outside. The socket of a service manager may be abstract.
fn scopes(is_supervised: bool, notify_socket: Option<&OsStr>) -> BitFlags<Scope> {
    let is_abstract = notify_socket.is_some_and(|socket| socket.as_encoded_bytes().starts_with(b"@"));
    let mut scopes = BitFlags::empty();
    scopes.set(Scope::Signal, !is_supervised);
    scopes.set(Scope::AbstractUnixSocket, !is_abstract);
    scopes
}

/// Returns the canonical folders of files, with and without links followed.
fn folders_of(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for file in files {
        let parent = folder_of(file).canonicalize().ok();
        let target = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned));
        for folder in [parent, target].into_iter().flatten() {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

/// Returns the files of a config whose folders do not exist, a line each with key and remedy.
pub(super) fn missing_folders(config: &Config) -> Vec<String> {
    let log = config.taps.query_log.as_ref().and_then(|log| match &log.to {
        LogTarget::File(file) => Some(("query_log.to", file)),
        LogTarget::Stderr | LogTarget::Unix(_) => None,
    });
    let dnstap = config.taps.dnstap.as_ref().and_then(|dnstap| match &dnstap.to {
        DnstapTarget::File(file) => Some(("dnstap.to", file)),
        DnstapTarget::Unix(_) | DnstapTarget::Tcp(_) => None,
    });
    let cache = config.cache.as_ref().and_then(|cache| Some(("cache.persist", cache.persist.as_ref()?)));
    // Other errors may concern only the user of this command, not the user that the server runs as.
    let missing = [log, dnstap, cache].into_iter().flatten().filter(|(_, file)| is_missing(folder_of(file)));
    let owner = config.process.user.as_ref().map(|user| format!("-o {} ", user.owner())).unwrap_or_default();
    let line = |(key, file): (&str, &PathBuf)| {
        let (file, folder) = (file.display(), folder_of(file).display());
        format!("{key}: {file}: the folder {folder} does not exist; make it with install -d {owner}{folder}")
    };
    missing.map(line).collect()
}

/// Returns the folder of a file.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Returns the place of an existing or future file, with links followed.
fn canonical(file: &Path) -> Option<PathBuf> {
    fs::canonicalize(file).ok().or_else(|| {
        // A folder that does not exist yet is below one that does.
        let there = folder_of(file).ancestors().find_map(|folder| fs::canonicalize(folder).ok())?;
        Some(there.join(file.file_name()?))
    })
}

/// The newest ABI that this code is written for.
const KNOWN: ABI = ABI::V6;

/// The running executable, even if its file was replaced, and the files of the dynamic loader.
const OF_PROGRAMS: &[&str] = &["/proc/self/exe", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

const SYSTEM: &[&str] = &[
    "/proc/self",
    // The processors, and the queues of interfaces.
    "/sys/devices",
    "/sys/class/net",
    "/sys/fs/cgroup",
    // The resolvers of this host, for DNS discovery, and where systemd keeps them.
    "/etc/resolv.conf",
    "/run/systemd/resolve",
];

/// The file in `state_dir` with the last known members.
pub const SAVED_MEMBERS: &str = "members.json";

/// The file in `state_dir` with the latency of backends and the history.
pub const SAVED_LATENCY: &str = "latency.json";

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use rustix::process::{Pid, test_kill_process};

    use super::*;

    #[test]
    fn signals_and_abstract_sockets_stay_within_unless_others_need_them() {
        assert_eq!(scopes(false, None), Scope::Signal | Scope::AbstractUnixSocket);
        assert_eq!(scopes(false, Some(OsStr::new("/run/systemd/notify"))), Scope::Signal | Scope::AbstractUnixSocket);
        assert_eq!(scopes(true, None), Scope::AbstractUnixSocket);
        assert_eq!(scopes(true, Some(OsStr::new("@notify"))), BitFlags::empty());
    }

    #[test]
    fn the_kernel_keeps_signals_and_abstract_sockets_within() {
        let name = SocketAddr::from_abstract_name(format!("hedgerow-{}", std::process::id())).expect("an address");
        let _outside = UnixListener::bind_addr(&name).expect("a name of this test");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let pid = Pid::from_child(&child);
        let confined = thread::spawn(move || {
            let is_restricted = Confinement::enforce(&ConfigFiles::default(), &[]).folders.is_some();
            (is_restricted, test_kill_process(pid).is_err(), UnixStream::connect_addr(&name).is_err())
        });
        let (is_restricted, keeps_signals, keeps_sockets) = confined.join().expect("the thread ends");
        child.kill().expect("the child runs");
        child.wait().expect("the child has ended");
        // Linux 6.12 has scopes.
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        if is_restricted && (numbers.next(), numbers.next()) >= (Some(6), Some(12)) {
            assert!(keeps_signals && keeps_sockets, "signals {keeps_signals}, sockets {keeps_sockets}");
        } else {
            eprintln!("not tested: this kernel has no scopes of Landlock");
        }
    }

    #[test]
    fn the_kernel_denies_other_files_and_other_sockets() {
        let (ours, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        for folder in [&ours, &other] {
            fs::write(folder.path().join("a.zone"), "a").expect("a file");
        }
        let zone = ours.path().join("a.zone");
        let confined = thread::spawn(move || {
            let files = ConfigFiles {
                read: vec![zone.clone()],
                looked_at: Vec::new(),
                written: vec![ours.path().join("state/cache.bin")],
                programs: Vec::new(),
            };
            fs::create_dir(ours.path().join("state")).expect("our own folder");
            // The rules apply to this thread and the threads it starts.
            let sockets = tempfile::tempdir().expect("a folder");
            let confined = Confinement::enforce(&files, &[sockets.path().to_owned()]);
            if confined.folders.is_none() {
                assert!(env::var_os("HEDGEROW_REQUIRED").is_none(), "this kernel has no landlock");
                return eprintln!("not tested: this kernel has no landlock");
            }
            let denied = |result: io::Result<()>| result.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
            assert!(denied(fs::read(other.path().join("a.zone")).map(drop)), "another file");
            assert!(denied(fs::read("/etc/passwd").map(drop)), "a file of the system");
            assert!(denied(fs::write(&zone, "b")), "what is to be read only");
            assert_eq!(fs::read(&zone).expect("our own file"), b"a");
            fs::write(ours.path().join("state/new"), "c").expect("what is to be written");
            fs::rename(ours.path().join("state/new"), ours.path().join("state/cache.bin")).expect("the same");
            TcpListener::bind("127.0.0.1:0").expect("a reload brings other addresses");
            UnixListener::bind(sockets.path().join("admin.sock")).expect("a reload moves the socket for changes");
            assert!(denied(UnixListener::bind(other.path().join("admin.sock")).map(drop)), "a socket elsewhere");
            TcpStream::connect(address).expect("others are reached");
            UdpSocket::bind("127.0.0.1:0").expect("sockets to backends are opened all the time");
        });
        confined.join().expect("no assertion failed");
    }

    #[test]
    fn a_file_is_in_reach_below_the_folders_of_the_start() {
        let outer = tempfile::tempdir().expect("a folder for the test");
        let at = |path: &str| outer.path().join(path);
        for folder in ["config", "zones/sub", "state", "other"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        for file in ["config/config.toml", "zones/a.zone", "zones/sub/b.zone", "other/c.zone"] {
            fs::write(at(file), "").expect("a file");
        }
        std::os::unix::fs::symlink(at("other/c.zone"), at("zones/link.zone")).expect("a link");
        let files = |read: &[&str], written: &[&str]| ConfigFiles {
            read: read.iter().map(|path| at(path)).collect(),
            looked_at: Vec::new(),
            written: written.iter().map(|path| at(path)).collect(),
            programs: Vec::new(),
        };
        let start = files(&["config/config.toml", "zones/a.zone"], &["state/cache.bin"]);
        let (read, written) = (folders_of(&start.read), folders_of(&start.written));
        let confined =
            Confinement { folders: Some(Folders { read, written, sockets: Vec::new(), programs: Vec::new() }) };
        let check = |read: &[&str], written: &[&str], expected: Option<&str>| {
            let found = confined.check(&files(read, written)).err().map(|outside| outside.to_string());
            let is_right = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(&at(expected).display().to_string()),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            assert!(is_right, "{read:?} {written:?}: {found:?}");
        };
        check(&["config/config.toml", "zones/new.zone", "zones/sub/b.zone"], &["state/new/z.zone"], None);
        check(&["state/cache.bin"], &[], None);
        check(&["other/c.zone"], &[], Some("other/c.zone"));
        check(&["zones/link.zone"], &[], Some("zones/link.zone"));
        check(&["zones/../other/c.zone"], &[], Some("zones/../other/c.zone"));
        check(&[], &["zones/cache.bin"], Some("zones/cache.bin"));
        assert!(Confinement::default().check(&files(&["other/c.zone"], &[])).is_ok(), "nothing is enforced");
    }
}
