//! The unix socket for changes: where it is, how it comes to be, and whom it takes them from.
//!
//! A loopback address is reached by every user of a host, by every container in its network, and by every web page that makes a
//! server fetch a URL. A socket in the file system has an owner and a mode, and the kernel tells who connects. So
//! changes that bear no token come by this way alone.
//!
//! Its usual place is found by the server and by `hedgerow ctl` alike, from the address of the admin server. Other users may write
//! in the folder for temporary files: a folder there is ours only if it belongs to us and nobody else gets in.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{env, fmt, io};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{Mode, fchmod};
use rustix::process::{geteuid, getuid};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use crate::config::AdminSocket;

/// Who the server is once it has bound all that it binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The user's group, if the server changes to this user; none if it stays who it is.
    pub gid: Option<u32>,
}

impl Owner {
    /// Whoever runs this process.
    pub fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: None }
    }
}

/// A socket that takes changes. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct Socket {
    /// The socket, non-blocking.
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket. It is removed when this value is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// What is at this place may be another's by now.
    identity: Identity,
    /// Whether another process has it.
    is_left: AtomicBool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = !self.is_left.load(Relaxed)
            && fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        // Who has become another user may have no right to the folder; then the next process replaces it.
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, socket = %self.path.display(), "admin: the socket stays");
        }
    }
}

impl Socket {
    /// Opens the socket that the config asks for, of a server whose admin address is this one. `passed` gives what another process
    /// has bound to a path, if it has passed that to us.
    ///
    /// The usual place may be one that cannot be used, for whoever may write to the folder for temporary files may be in the way. That is told,
    /// and changes then need the token: it is no reason to answer no queries.
    ///
    /// # Errors
    /// If the place that the config names cannot be had, or a running process has it.
    pub fn open(
        setting: &AdminSocket,
        address: SocketAddr,
        owner: Owner,
        passed: &mut dyn FnMut(&Path) -> Option<UnixListener>,
    ) -> Result<Option<Self>, SocketError> {
        let mut take_or_bind = |path: &Path| match passed(path).map(|listener| Self::adopt(path, listener)) {
            Some(Ok(socket)) => Ok(socket),
            // Somebody has removed its file: nobody finds it any more.
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
                Err(error @ SocketError { what: Unfit::InUse(_), .. }) => return Err(error),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        tracing::warn!("admin: there is no socket for changes, they need the token; set admin.socket = \"PATH\"");
        Ok(None)
    }

    /// Takes what another process has bound to a path.
    fn adopt(path: &Path, listener: UnixListener) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::NotFound.into());
        }
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            file: SocketFile { path: path.to_owned(), identity: identity(&found), is_left: AtomicBool::new(false) },
        })
    }

    /// Binds a path. What a dead process has left there is replaced.
    fn bind(path: &Path, owner: Owner) -> Result<Self, SocketError> {
        let fail = |what| SocketError { path: path.to_owned(), what };
        clear(path).map_err(fail)?;
        let bind = || -> io::Result<Self> {
            let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
            // Linux gives the file the mode that the socket has (and none of it that the umask takes away): there is no moment in which others
            // could connect. A chmod of the path could be led to another file by the user of the folder.
            fchmod(socket.as_fd(), Mode::from_raw_mode(MODE))?;
            socket.bind(&SockAddr::unix(path)?)?;
            if owner.gid.is_some() {
                lchown(path, Some(owner.uid), owner.gid)?;
            }
            let identity = identity(&fs::symlink_metadata(path)?);
            let file = SocketFile { path: path.to_owned(), identity, is_left: AtomicBool::new(false) };
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(Self { listener: socket.into(), file })
        };
        bind().map_err(|error| fail(Unfit::System(error)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Leaves its file to another process that has it, too.
    pub fn leave(&self) {
        self.file.is_left.store(true, Relaxed);
    }

    /// A duplicate of it, without its file.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

/// Whether changes are taken from a process of this user: the server's own, and root, who could do anything to it anyway.
pub(super) fn may_change(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

/// Where the socket of a server may be whose admin address is this one, in the order in which a server looks for a place; only
/// places that nobody else can have made. `uid` is the server's.
pub fn usual_places(address: SocketAddr, uid: u32) -> Vec<PathBuf> {
    // Who listens on all addresses is reached by those of loopback, too.
    let any = match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(ip) if ip.is_loopback() => Some(Ipv6Addr::UNSPECIFIED.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let any = any.map(|ip: IpAddr| SocketAddr::new(ip, address.port()));
    let names: Vec<_> = [Some(address), any].into_iter().flatten().map(file_name).collect();
    let folders = Folder::usual(uid).into_iter().filter(|folder| folder.check(uid).is_ok());
    // Whoever runs `ctl` does not have the environment of a service.
    let folders = folders.map(|folder| folder.path().to_owned()).chain([PathBuf::from(SERVICE_FOLDER)]);
    folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>()).collect()
}

/// The folders in which a server of this user looks for a place, as far as they are there and nobody else can have made them.
pub fn usual_folders(uid: u32) -> Vec<PathBuf> {
    let folders = Folder::usual(uid).into_iter().filter(|folder| folder.check(uid).is_ok());
    folders.map(|folder| folder.path().to_owned()).collect()
}

/// The name of a socket's file.
fn file_name(address: SocketAddr) -> String {
    format!("admin-{address}.sock")
}

/// A folder for sockets.
#[derive(Debug)]
enum Folder {
    /// The service manager has made it for us.
    Given(PathBuf),
    /// We make it, and it is for nobody else.
    Own(PathBuf),
}

impl Folder {
    /// The usual ones of a server of this user, the best first.
    fn usual(uid: u32) -> Vec<Self> {
        let absolute = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
        let variable = |name| env::var(name).ok();
        // systemd separates several by colons.
        let runtime = variable("RUNTIME_DIRECTORY").and_then(|all| absolute(all.split(':').next().unwrap_or_default()));
        if let Some(folder) = runtime {
            return vec![Self::Given(folder)];
        }
        // The folder of the user who starts the server is closed to the one it becomes.
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

    /// Makes the folder, if it is not there and ours to make; one that is there must be ours.
    fn prepare(&self, owner: Owner) -> Result<(), SocketError> {
        let Self::Own(path) = self else { return Ok(()) };
        let fail = |error| SocketError { path: path.clone(), what: Unfit::System(error) };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) if owner.gid.is_some() => lchown(path, Some(owner.uid), owner.gid).map_err(fail),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.check(owner.uid),
            Err(error) => Err(fail(error)),
        }
    }

    /// Whether nobody but this user and root can have put anything there.
    fn check(&self, uid: u32) -> Result<(), SocketError> {
        let Self::Own(path) = self else { return Ok(()) };
        let fail = |what| SocketError { path: path.clone(), what };
        // Of the place itself: a link could lead to a folder of ours that was not meant for this.
        let found = fs::symlink_metadata(path).map_err(|error| fail(Unfit::System(error)))?;
        let mode = found.mode() & 0o7777;
        if !found.is_dir() {
            return Err(fail(Unfit::NoFolder));
        }
        if found.uid() != uid {
            return Err(fail(Unfit::Foreign(found.uid())));
        }
        if mode & 0o077 != 0 {
            return Err(fail(Unfit::Open(mode)));
        }
        Ok(())
    }
}

/// Makes sure that a path is free, or has only what a dead process has left.
fn clear(path: &Path) -> Result<(), Unfit> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Unfit::System(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Unfit::NoSocket),
        Ok(_) => {}
    }
    let connect = || -> io::Result<Option<i32>> {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        // Who is busy is not dead: do not wait for it.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let stream = UnixStream::from(socket);
        // 0 for a process of another namespace: rustix has undefined behavior there.
        Ok(getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0))
    };
    match connect() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(Unfit::System),
        Ok(pid) => Err(Unfit::InUse(pid)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Unfit::InUse(None)),
        Err(error) => Err(Unfit::System(error)),
    }
}

/// Device and number of a file, and its last change, since a number is given out again.
type Identity = (u64, u64, i64, i64);

/// Which file it is.
fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// There is no socket to be had at a place.
#[derive(Debug)]
pub struct SocketError {
    /// The socket, or its folder.
    path: PathBuf,
    /// Why.
    what: Unfit,
}

/// What is wrong with a place.
#[derive(Debug)]
enum Unfit {
    /// The system does not give it.
    System(io::Error),
    /// A running process takes changes there, the one of this number if that is known.
    InUse(Option<i32>),
    /// Something else is there.
    NoSocket,
    /// What should be a folder is none, or a link.
    NoFolder,
    /// The folder is another user's.
    Foreign(u32),
    /// The folder has this mode.
    Open(u32),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "admin.socket: {}: ", self.path.display())?;
        match &self.what {
            Unfit::System(error) => write!(f, "{error}"),
            Unfit::InUse(Some(pid)) => write!(f, "process {pid} takes changes there; stop it, or choose another path"),
            Unfit::InUse(None) => f.write_str("a running process takes changes there; stop it, or choose another path"),
            Unfit::NoSocket => f.write_str("there is something that is no socket; remove it, or choose another path"),
            Unfit::NoFolder => {
                f.write_str("expected a folder, not a link or a file that somebody has put there; remove it")
            }
            Unfit::Foreign(uid) => write!(f, "the folder belongs to the user of number {uid}; remove it"),
            Unfit::Open(mode) => {
                write!(f, "others may enter the folder (mode {mode:04o}); chmod 700 {}", self.path.display())
            }
        }
    }
}

impl std::error::Error for SocketError {}

/// The mode of a socket: its owner connects, and root.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Where systemd makes the folder of a unit with `RuntimeDirectory=hedgerow`. Only root makes folders there.
const SERVICE_FOLDER: &str = "/run/hedgerow";

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Binds a path as whoever runs the tests.
    fn bind(path: &Path) -> Result<Socket, String> {
        Socket::bind(path, Owner::current()).map_err(|error| error.to_string())
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
        assert!(error.contains(&format!("process {} takes changes there", std::process::id())), "{error}");
        // What a process that was killed leaves behind.
        let Socket { listener, file } = first;
        drop(listener);
        let second = bind(&path).expect("nobody listens");
        let elsewhere = folder.path().join("moved.sock");
        fs::rename(&path, &elsewhere).expect("our own folder");
        let third = bind(&path).expect("a free path");
        drop([file, second.file]);
        assert!(path.exists(), "nobody removes another one's");
        drop(third);
        fs::write(&path, "").expect("a file of the test");
        let error = bind(&path).expect_err("no socket");
        assert!(error.contains("no socket"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_folder_is_ours_alone_or_not_used() {
        let outer = tempfile::tempdir().expect("a folder for the test");
        let owner = Owner::current();
        let path = outer.path().join("hedgerow-0");
        let folder = Folder::Own(path.clone());
        let prepare = || folder.prepare(owner).map_err(|error| error.to_string());
        assert_eq!(prepare(), Ok(()), "made");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o700);
        assert_eq!(prepare(), Ok(()), "there already");
        let error = folder.check(owner.uid + 1).expect_err("another user's").to_string();
        assert!(error.contains(&format!("belongs to the user of number {}", owner.uid)), "{error}");
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
