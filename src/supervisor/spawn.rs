//! Starting processes, and replacing the program in place.
//!
//! The start data waits on the standard input of the new process, a unix socket: the handover with its
//! descriptors, so that no descriptor number needs to be passed. The same is done before `exec` in place,
//! which keeps the locks.
//!
//! If the supervisor has more rights than a server, its child gives them up before it reads its standard
//! input. Only the supervisor writes the environment variable that lists these rights.
//!
//! All processes stay in the first one's process group. They run only the running image, by `/proc/self/exe`,
//! or for an upgrade the file of the first start.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use metrics::Role;
use net::from_clients::listening::ListeningSocket;
use rustix::fs::{FileType, Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::geteuid;
use rustix::stdio::{dup2_stdin, stdin};
use rustix::thread::set_name;

use super::channel::{Channel, ChannelEvent};
use super::message::{GivenUp, Handover, OriginalCommand, Sockets};
use super::tree::Pid;
use crate::service_manager::VARIABLES;

/// An open program file, independent of later changes at its path.
#[derive(Debug)]
pub(super) struct Image(OwnedFd);

impl Image {
    /// Returns the program that this process runs, even if its file has been replaced.
    pub(super) fn running() -> io::Result<Self> {
        Self::at(Path::new("/proc/self/exe"))
    }

    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens a program for an upgrade. Root rejects files that other users may replace: they could become
    /// root.
    pub(super) fn of_upgrade(path: &Path) -> io::Result<Self> {
        let place = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if !geteuid().is_root() {
            return Self::at(path).map_err(place);
        }
        // Resolve links, so that the checked path is the one that runs: only root can change these folders.
        let path = path.canonicalize().map_err(place)?;
        for place in path.ancestors() {
            let found = place.symlink_metadata()?;
            if is_of_others(found.uid(), found.mode()) {
                let (place, owner, mode) = (place.display(), found.uid(), found.mode() & 0o7777);
                let problem = "users other than root may replace it";
                let remedy = "install it in a folder of root";
                return Err(io::Error::other(format!("{place}: {problem} (owner {owner}, mode {mode:o}); {remedy}")));
            }
        }
        Self::at(&path)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The process gives up `to_give_up` before it reads the start data.
    pub(super) fn spawn(
        &self,
        arguments: &[OsString],
        start_data: Channel,
        to_give_up: Option<&GivenUp>,
    ) -> io::Result<Pid> {
        let role = to_give_up.map_or_else(|| Ok(KEEPS_RIGHTS.to_owned()), serde_json::to_string)?;
        let mut command = Command::new(self.path());
        let mut arguments = arguments.iter();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(start_data))).env(ROLE, role);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        // The supervisor reaps the process; dropping the handle does not wait.
        Ok(command.spawn()?.id())
    }

    /// Replaces the program, but not the process number, children and locks. Returns only if that fails. The
    /// caller must make the lock files survive `exec` first.
    pub(super) fn become_it(&self, arguments: &[OsString], start_data: &Channel) -> io::Error {
        let go = || -> io::Result<()> {
            dup2_stdin(start_data)?;
            let text = |octets: &[u8]| CString::new(octets).map_err(io::Error::other);
            let arguments = arguments.iter().map(|argument| text(argument.as_bytes()));
            let arguments = arguments.collect::<io::Result<Vec<_>>>()?;
            let is_kept = |name: &str| name != ROLE;
            let variables = std::env::vars_os().filter(|(name, _)| name.to_str().is_none_or(is_kept));
            let variables = variables.map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
            let mut variables = variables.collect::<io::Result<Vec<_>>>()?;
            variables.push(text(format!("{ROLE}={KEEPS_RIGHTS}").as_bytes())?);
            // `Command` would unblock signals that must stay pending.
            let path = text(self.path().as_os_str().as_bytes())?;
            nix::unistd::execve(&path, &arguments, &variables)?;
            Ok(())
        };
        go().err().unwrap_or_else(|| io::Error::other("exec has returned"))
    }
}

/// Returns true if users other than root may replace a file or the contents of a folder with this owner and
/// mode. In a folder with the sticky bit, such as /tmp, only the owner of a file may.
fn is_of_others(owner: u32, mode: u32) -> bool {
    let is_writable = mode & 0o022 != 0;
    let is_sticky_folder = FileType::from_raw_mode(mode).is_dir() && mode & 0o1000 != 0;
    owner != 0 || is_writable && !is_sticky_folder
}

impl OriginalCommand {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let running = std::env::current_exe()?;
        let arguments: Vec<_> = std::env::args_os().collect();
        // An upgrade may be a new link at the original path, which the system does not report.
        let name = arguments.first().map(PathBuf::from).unwrap_or_default();
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found: Vec<_> = match name.components().count() {
            0 => Vec::new(),
            1 => std::env::split_paths(&folders).map(|folder| folder.join(&name)).collect(),
            _ => vec![name],
        };
        let is_it = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == running);
        let found = found.into_iter().find(is_it).and_then(|path| std::path::absolute(path).ok());
        Ok(Self { path: found.unwrap_or(running), arguments })
    }
}

/// Names this process for `ps`, `pgrep` and `top`. Otherwise its name would be a descriptor number.
pub(super) fn name_process(role: Role) {
    // At most 15 characters (TASK_COMM_LEN).
    let name = match role {
        Role::Server | Role::Draining => c"hedgerow-server",
        Role::Supervisor => c"hedgerow-super",
        Role::Starting | Role::Standby | Role::Failed => c"hedgerow-spare",
    };
    // The name is only for people, so a failure does not matter.
    let _ = set_name(name);
}

/// Returns true if another process of a tree has started this process.
pub fn is_member() -> bool {
    std::env::var_os(ROLE).is_some()
}

pub(super) fn to_give_up() -> io::Result<Option<GivenUp>> {
    match std::env::var(ROLE) {
        Ok(role) if role != KEEPS_RIGHTS => Ok(Some(serde_json::from_str(&role)?)),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Takes the start data from the standard input, which is empty afterwards.
pub(super) fn unpack() -> io::Result<(Handover, Vec<OwnedFd>, Vec<ListeningSocket>)> {
    let channel = Channel::from(stdin().try_clone_to_owned()?);
    // A confined process cannot reach /dev/null, so this is a pipe at its end.
    dup2_stdin(pipe_with(PipeFlags::CLOEXEC)?.0)?;
    let missing =
        || io::Error::other(format!("{ROLE} is set, but the standard input is not the channel to the supervisor"));
    let ChannelEvent::Message(handover, descriptors) = channel.receive()? else { return Err(missing()) };
    let mut sockets = Vec::new();
    loop {
        let ChannelEvent::Message(names, passed) = channel.receive::<Sockets>()? else { return Err(missing()) };
        if names.add_to(&mut sockets, passed) {
            return Ok((handover, descriptors, sockets));
        }
    }
}

/// Marks a process with start data on its standard input. The value is [`KEEPS_RIGHTS`], or as JSON the
/// rights that the process gives up first.
const ROLE: &str = "HEDGEROW_PROCESS";

const KEEPS_RIGHTS: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_replace_is_known_by_owner_and_mode() {
        let (file, folder, link) = (0o100_000, 0o040_000, 0o120_000);
        for (owner, mode, expected) in [
            (0, file | 0o755, false),
            (0, file | 0o4755, false),
            (0, file | 0o775, true),
            (0, file | 0o757, true),
            (0, file | 0o1777, true),
            (1000, file | 0o755, true),
            (1000, file | 0o500, true),
            (0, folder | 0o755, false),
            (0, folder | 0o2775, true),
            (0, folder | 0o757, true),
            (0, folder | 0o1777, false),
            (1000, folder | 0o1777, true),
            (65534, folder | 0o700, true),
            (1000, link | 0o777, true),
        ] {
            assert_eq!(is_of_others(owner, mode), expected, "{owner} {mode:o}");
        }
    }
}
