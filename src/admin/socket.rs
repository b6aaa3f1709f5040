//! The unix socket for changes: its path, its creation and its access check.
//!
//! Every user of a host, every container in its network, and every web page that makes a server fetch a URL
//! can reach a loopback address. A socket file has an owner and a mode, and the kernel reports the peer's
//! user. So only this socket takes changes without a token.
//!
//! The server and `hedgerow ctl` both derive the default path from the admin address. Other users may write
//! in the folder for temporary files, so a folder there is used only if it belongs to the server's user and
//! is closed to others.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{env, io};

use config::AdminSocket;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{Mode, fchmod};
use rustix::process::{geteuid, getuid};
use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

/// The user and group of the server after it has bound its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// The user ID.
    pub uid: u32,
    /// The group to change to; `None` if the server keeps its user.
    pub gid: Option<u32>,
}

impl SocketOwner {
    /// Returns the user that runs this process.
    pub fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: None }
    }
}

/// A socket that takes changes. Dropping the value removes the file.
#[derive(Debug)]
pub struct AdminUnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Identifies the file, because another process may have replaced it.
    identity: Identity,
    is_left: AtomicBool,
}

impl Drop for AdminUnixSocket {
    fn drop(&mut self) {
        let is_ours = !self.is_left.load(Relaxed)
            && fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        // After a change of user the process may lack the right to remove it. The next process replaces it.
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, socket = %self.path.display(), "admin: the socket stays");
        }
    }
}

impl AdminUnixSocket {
    /// Opens the configured socket. `passed` returns a socket that a predecessor has bound to a path, if any.
    ///
    /// Another user can block the default path in the folder for temporary files. Then this function logs the
    /// problem and the server runs without the socket: changes need the token.
    ///
    /// # Errors
    /// If the configured path is not usable, or a running process uses it.
    pub fn open(
        setting: &AdminSocket,
        address: SocketAddr,
        owner: SocketOwner,
        passed: &mut dyn FnMut(&Path) -> Option<UnixListener>,
    ) -> Result<Option<Self>, SocketError> {
        let mut take_or_bind = |path: &Path| match passed(path).map(|listener| Self::adopt(path, listener)) {
            Some(Ok(socket)) => Ok(socket),
            // The file was removed, so no client finds the passed socket.
            Some(Err(_)) | None => Self::bind(path, owner),
        };
        match setting {
            AdminSocket::Off => return Ok(None),
            AdminSocket::At(path) => return take_or_bind(path).map(Some),
            AdminSocket::Auto => {}
        }
        for folder in Folder::usual(owner.uid) {
            let path = folder.path().join(file_name(address));
            match folder.prepare(owner).and_then(|()| take_or_bind(&path)) {
                Ok(socket) => return Ok(Some(socket)),
                Err(error @ SocketError { what: SocketProblem::InUse(_), .. }) => return Err(error),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        tracing::warn!("admin: no socket can be opened, so changes need the token; set admin.socket = \"PATH\"");
        Ok(None)
    }

    fn adopt(path: &Path, listener: UnixListener) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::NotFound.into());
        }
        listener.set_nonblocking(true)?;
        Ok(Self::new(path, listener, &found))
    }

    fn bind(path: &Path, owner: SocketOwner) -> Result<Self, SocketError> {
        let fail = |what| SocketError { path: path.to_owned(), what };
        clear(path).map_err(fail)?;
        let bind = || -> io::Result<Self> {
            let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
            // Linux derives the file's mode from the socket's mode (less the umask), so others can connect at
            // no moment. A chmod of the path could be redirected by the owner of the folder.
            fchmod(socket.as_fd(), Mode::from_raw_mode(MODE))?;
            socket.bind(&SockAddr::unix(path)?)?;
            if owner.gid.is_some() {
                lchown(path, Some(owner.uid), owner.gid)?;
            }
            socket.set_nonblocking(true)?;
            let socket = Self::new(path, socket.into(), &fs::symlink_metadata(path)?);
            SockRef::from(&socket.listener).listen(BACKLOG)?;
            Ok(socket)
        };
        bind().map_err(|error| fail(SocketProblem::System(error)))
    }

    fn new(path: &Path, listener: UnixListener, file: &fs::Metadata) -> Self {
        Self { listener, path: path.to_owned(), identity: identity(file), is_left: AtomicBool::new(false) }
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file to another process that uses it too.
    pub fn leave(&self) {
        self.is_left.store(true, Relaxed);
    }

    /// Duplicates the listener, without ownership of the file.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

pub(super) fn may_change(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

/// Returns the paths where a server with this admin address may have its socket, in the server's order of
/// search. Skips places that another user could have made. `uid` is the server's.
pub fn usual_places(address: SocketAddr, uid: u32) -> Vec<PathBuf> {
    // A server on the wildcard address also accepts on loopback addresses.
    let any = match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(ip) if ip.is_loopback() => Some(Ipv6Addr::UNSPECIFIED.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let any = any.map(|ip: IpAddr| SocketAddr::new(ip, address.port()));
    let names: Vec<_> = [Some(address), any].into_iter().flatten().map(file_name).collect();
    // The user of `ctl` does not have the environment of the service.
    let folders = usual_folders(uid).into_iter().chain([PathBuf::from(SERVICE_FOLDER)]);
    folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>()).collect()
}

/// Returns the existing folders that a server of this user searches, except those others could have made.
pub fn usual_folders(uid: u32) -> Vec<PathBuf> {
    let folders = Folder::usual(uid).into_iter().filter(|folder| folder.check(uid).is_ok());
    folders.map(|folder| folder.path().to_owned()).collect()
}

fn file_name(address: SocketAddr) -> String {
    format!("admin-{address}.sock")
}

#[derive(Debug)]
enum Folder {
    Given(PathBuf),
    Own(PathBuf),
}

impl Folder {
    /// Returns the default folders of a server of this user, the best first.
    fn usual(uid: u32) -> Vec<Self> {
        let absolute = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
        let variable = |name| env::var(name).ok();
        // systemd separates several folders by colons.
        let runtime = variable("RUNTIME_DIRECTORY").and_then(|all| absolute(all.split(':').next().unwrap_or_default()));
        if let Some(folder) = runtime {
            return vec![Self::Given(folder)];
        }
        // The session folder of the starting user is closed to the user that the server becomes.
        let session = variable("XDG_RUNTIME_DIR").filter(|_| uid == getuid().as_raw());
        let session = session.and_then(|folder| absolute(&folder)).map(|folder| folder.join("hedgerow"));
        let temporary = env::temp_dir().join(format!("hedgerow-{uid}"));
        session.into_iter().chain([temporary]).map(Self::Own).collect()
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Own(path) => path,
        }
    }

    fn prepare(&self, owner: SocketOwner) -> Result<(), SocketError> {
        let Self::Own(path) = self else { return Ok(()) };
        let fail = |error| SocketError { path: path.clone(), what: SocketProblem::System(error) };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) if owner.gid.is_some() => lchown(path, Some(owner.uid), owner.gid).map_err(fail),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.check(owner.uid),
            Err(error) => Err(fail(error)),
        }
    }

    fn check(&self, uid: u32) -> Result<(), SocketError> {
        let Self::Own(path) = self else { return Ok(()) };
        let fail = |what| SocketError { path: path.clone(), what };
        // The metadata of the path itself: a link could lead to one of our folders that has another purpose.
        let found = fs::symlink_metadata(path).map_err(|error| fail(SocketProblem::System(error)))?;
        let mode = found.mode() & 0o7777;
        if !found.is_dir() {
            return Err(fail(SocketProblem::NoFolder));
        }
        if found.uid() != uid {
            return Err(fail(SocketProblem::Foreign(found.uid())));
        }
        if mode & 0o077 != 0 {
            return Err(fail(SocketProblem::Open { mode, path: path.clone() }));
        }
        Ok(())
    }
}

fn clear(path: &Path) -> Result<(), SocketProblem> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketProblem::System(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketProblem::NoSocket),
        Ok(_) => {}
    }
    let connect = || -> io::Result<Option<i32>> {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        // A busy process is not dead: do not wait for it.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let stream = UnixStream::from(socket);
        // The process ID is 0 for a process of another namespace, and rustix has undefined behavior there.
        Ok(getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0))
    };
    match connect() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(SocketProblem::System)
        }
        Ok(pid) => Err(SocketProblem::InUse(pid)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketProblem::InUse(None)),
        Err(error) => Err(SocketProblem::System(error)),
    }
}

/// Device, inode and last change (inode numbers are reused).
type Identity = (u64, u64, i64, i64);

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// The socket cannot be opened at a path.
#[derive(Debug, thiserror::Error)]
#[error("admin.socket: {}: {what}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    what: SocketProblem,
}

#[derive(Debug, thiserror::Error)]
enum SocketProblem {
    #[error("{0}")]
    System(io::Error),
    #[error("{} uses this socket; stop it, or choose another path", named(.0))]
    InUse(Option<i32>),
    #[error("the file is not a socket; remove it, or choose another path")]
    NoSocket,
    #[error("expected a folder, not a link or a file; remove it")]
    NoFolder,
    #[error("the folder belongs to the user with ID {0}; remove it")]
    Foreign(u32),
    #[error("others may enter the folder (mode {mode:04o}); chmod 700 {}", .path.display())]
    Open { mode: u32, path: PathBuf },
}

fn named(pid: &Option<i32>) -> String {
    pid.map_or_else(|| "a running process".to_owned(), |pid| format!("process {pid}"))
}

const MODE: u32 = 0o600;
const BACKLOG: i32 = 64;
/// The folder that systemd makes for `RuntimeDirectory=hedgerow`. Only root can make folders in `/run`.
const SERVICE_FOLDER: &str = "/run/hedgerow";

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::net::Shutdown;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Binds a path as the user of the tests.
    fn bind(path: &Path) -> Result<AdminUnixSocket, String> {
        AdminUnixSocket::bind(path, SocketOwner::current()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_is_for_its_owner_and_goes_with_its_server() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("admin.sock");
        let socket = bind(&path).expect("a free path");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
        UnixStream::connect(&path).expect("it listens");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_running_process_keeps_its_socket_and_a_dead_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("admin.sock");
        let first = bind(&path).expect("a free path");
        let error = bind(&path).expect_err("it is in use");
        assert!(error.contains(&format!("process {} uses this socket", std::process::id())), "{error}");
        // A killed process leaves this state behind.
        SockRef::from(&first.listener).shutdown(Shutdown::Both).expect("a listener");
        let second = bind(&path).expect("no listener is there");
        let elsewhere = folder.path().join("moved.sock");
        fs::rename(&path, &elsewhere).expect("our own folder");
        let third = bind(&path).expect("a free path");
        drop([first, second]);
        assert!(path.exists(), "no process removes the socket of another");
        drop(third);
        fs::write(&path, "").expect("a file of the test");
        let error = bind(&path).expect_err("no socket");
        assert!(error.contains("is not a socket"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_folder_is_ours_alone_or_not_used() {
        let outer = tempfile::tempdir().expect("a folder for the test");
        let owner = SocketOwner::current();
        let path = outer.path().join("hedgerow-0");
        let folder = Folder::Own(path.clone());
        let prepare = || folder.prepare(owner).map_err(|error| error.to_string());
        assert_eq!(prepare(), Ok(()), "made");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o700);
        assert_eq!(prepare(), Ok(()), "there already");
        let error = folder.check(owner.uid + 1).expect_err("another user's").to_string();
        assert!(error.contains(&format!("belongs to the user with ID {}", owner.uid)), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("our own folder");
        assert!(prepare().is_err_and(|error| error.contains("mode 0755")));
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("our own folder");
        let link = outer.path().join("link");
        symlink(&path, &link).expect("a link");
        let error = Folder::Own(link).prepare(owner).expect_err("a link").to_string();
        assert!(error.contains("not a link"), "{error}");
    }

    #[test]
    fn a_loopback_address_may_be_of_a_server_on_all_addresses() {
        for (address, names) in [
            ("127.0.0.1:5380", &["admin-127.0.0.1:5380.sock", "admin-0.0.0.0:5380.sock"][..]),
            ("[::1]:5380", &["admin-[::1]:5380.sock", "admin-[::]:5380.sock"]),
            ("192.0.2.1:80", &["admin-192.0.2.1:80.sock"]),
        ] {
            let places = usual_places(address.parse().expect("an address"), geteuid().as_raw());
            let last: Vec<_> = places.iter().rev().take(names.len()).rev().collect();
            let expected: Vec<_> = names.iter().map(|name| Path::new(SERVICE_FOLDER).join(name)).collect();
            assert_eq!(last, expected.iter().collect::<Vec<_>>(), "{address}");
        }
    }
}
