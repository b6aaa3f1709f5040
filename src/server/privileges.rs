//! Giving up what a server does not need once it has bound its addresses: another user's rights, capabilities, and ways to
//! get them back.
//!
//! All of this is done before the first thread of a worker starts: capabilities and `no_new_privs` belong to threads, and those to come
//! have what this one has. Users and groups are changed by the functions of the C library, which do it for all threads. `nix` has these as
//! safe functions, and looks users up; rustix, which is used elsewhere, changes the calling thread alone.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use nix::unistd::{Gid, Uid, initgroups, setresgid, setresuid, setuid};
use rustix::fs::{Access, access};
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use super::StartError;
use crate::admin::{Owner, usual_folders};
use crate::config::User;
use crate::load::{Confinement, Files, Setup, folder_of};

/// Who the process will be.
pub(super) fn owner(user: Option<&User>) -> Owner {
    match user {
        Some(user) if !is(user) => Owner { uid: user.uid, gid: Some(user.gid) },
        Some(_) | None => Owner::current(),
    }
}

/// Gives up what a server does not need once it listens, if it is to: rights, and files that are not of its config. `socket` is where
/// changes are taken. No thread runs yet: those to come have no more rights than this one.
///
/// # Errors
/// If the process cannot become the user of the config.
pub fn confine(setup: &Setup, socket: Option<&Path>) -> Result<Confinement, StartError> {
    let Some(files) = &setup.files else { return Ok(Confinement::default()) };
    let user = setup.config.user.as_ref();
    let socket = socket.map(|path| folder_of(path).to_owned());
    // Where a reload may move it.
    let sockets: Vec<_> = socket.into_iter().chain(usual_folders(owner(user).uid)).collect();
    give_up(user, files, &sockets).map_err(StartError::Privileges)
}

/// Gives up the rights of root before anything is read that another process wrote: becomes this user, and is confined as the
/// server is, if a server is known. It keeps the capabilities that loading takes until [`confine`] or [`harden`] is called: those of
/// `[xdp]`, and the right to bind ports below 1024 if it reads the config on the disk, which no server can write.
///
/// # Errors
/// If the process cannot become the user.
pub fn give_up_early(user: Option<&User>, confinement: Option<&Confinement>, has_xdp: bool) -> Result<(), StartError> {
    let mut kept = CapabilitySet::empty();
    if confinement.is_none() {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    if has_xdp || confinement.is_none() {
        kept |= CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::BPF;
    }
    if let Some(user) = user.filter(|user| !is(user)) {
        become_user(user, kept).map_err(StartError::Privileges)?;
    }
    match (harden_but(kept), user) {
        (Ok(()), _) => {}
        (Err(error), Some(user)) => {
            let error = PrivilegeError { user: user.name.clone(), what: Failed::Capabilities(error) };
            return Err(StartError::Privileges(error));
        }
        (Err(error), None) => tracing::warn!(%error, "capabilities cannot be given up"),
    }
    if let Some(confinement) = confinement {
        confinement.enforce_again();
    }
    Ok(())
}

/// Becomes this user, if it is told to, keeps no capability, and reaches no files but these, and sockets in these folders.
///
/// # Errors
/// If it cannot become that user, or could become root again.
fn give_up(user: Option<&User>, files: &Files, sockets: &[PathBuf]) -> Result<Confinement, PrivilegeError> {
    match user {
        Some(user) if !is(user) => {
            become_user(user, CapabilitySet::empty())?;
            tracing::info!(user = user.name, uid = user.uid, gid = user.gid, "running as another user from here on");
        }
        Some(_) => {}
        None if geteuid().is_root() => tracing::warn!(
            "running as root, with all its rights; set user = \"NAME\" (a user for this alone is best), \
             or have systemd start it with DynamicUser=yes"
        ),
        None => {}
    }
    match (harden(), user) {
        (Ok(()), _) => {}
        (Err(error), Some(user)) => {
            return Err(PrivilegeError { user: user.name.clone(), what: Failed::Capabilities(error) });
        }
        // Nobody has asked for it, and a filter of system calls may be in the way.
        (Err(error), None) => tracing::warn!(%error, "capabilities cannot be given up"),
    }
    // A folder that is not there yet cannot be told to the kernel.
    for folder in files.written.iter().map(|file| folder_of(file)) {
        // If it cannot be made, nothing can be saved in it either, which is told.
        let _ = fs::create_dir_all(folder);
    }
    if let Some(user) = user {
        unusable(user, files).iter().for_each(|problem| tracing::warn!("{problem}"));
    }
    Ok(Confinement::enforce(files, sockets))
}

/// Whether this process is that user already.
fn is(user: &User) -> bool {
    geteuid().as_raw() == user.uid
}

/// Takes on the user with its groups, for good, and keeps these capabilities of root.
fn become_user(user: &User, kept: CapabilitySet) -> Result<(), PrivilegeError> {
    let fail = |what| PrivilegeError { user: user.name.clone(), what };
    let refused = |error: nix::Error| fail(Failed::Change(error.into()));
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let name = CString::new(user.name.as_str()).map_err(|error| fail(Failed::Change(error.into())))?;
    // While there still is the right to do so. What this kernel does not have cannot be taken away.
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    // The user last: without root's rights groups cannot be changed any more.
    initgroups(&name, gid).map_err(refused)?;
    setresgid(gid, gid, gid).map_err(refused)?;
    if !kept.is_empty() {
        set_keep_capabilities(true).map_err(|error| fail(Failed::Capabilities(error.into())))?;
    }
    setresuid(uid, uid, uid).map_err(refused)?;
    if !kept.is_empty() {
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).map_err(|error| fail(Failed::Capabilities(error.into())))?;
    }
    let root = Uid::from_raw(0);
    if setuid(root).is_ok() || setresuid(root, root, root).is_ok() || geteuid().as_raw() != user.uid {
        return Err(fail(Failed::Regained));
    }
    Ok(())
}

/// Gives up capabilities, unless this is root, which could do little without them; and the way to new ones by running other
/// programs.
///
/// # Errors
/// If a filter of system calls is in the way.
pub fn harden() -> io::Result<()> {
    harden_but(CapabilitySet::empty())
}

/// The same, but it goes on to have those of these capabilities that it has.
fn harden_but(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    if !geteuid().is_root() {
        // An older kernel has none.
        let _ = clear_ambient_capability_set();
        let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
        let inheritable = CapabilitySet::empty();
        set_capabilities(
            None,
            CapabilitySets { effective: effective & kept, permitted: permitted & kept, inheritable },
        )?;
    }
    Ok(())
}

/// What this user cannot do with the files of the config, each with the remedy.
fn unusable(user: &User, files: &Files) -> Vec<String> {
    let name = &user.name;
    let read = files.read.iter().filter(|file| access(file.as_path(), Access::READ_OK).is_err());
    let read = read.map(|file| {
        let file = file.display();
        format!(
            "{file}: user {name} cannot read it, so a reload will fail; chgrp {} {file}; chmod g+r {file}",
            user.gid
        )
    });
    let is_writable = |file: &Path| {
        let is_folder = access(folder_of(file), Access::WRITE_OK | Access::EXEC_OK).is_ok();
        is_folder && (!file.exists() || access(file, Access::WRITE_OK).is_ok())
    };
    let written = files.written.iter().filter(|file| !is_writable(file)).map(|file| {
        format!(
            "{}: user {name} cannot write it, so it will not be saved; make a folder for it alone \
             (install -d -o {name} /var/lib/hedgerow) and name a file there in the config",
            file.display()
        )
    });
    read.chain(written).collect()
}

/// The process is not who it should be.
#[derive(Debug)]
pub struct PrivilegeError {
    /// The name of the user that it should have become.
    user: String,
    /// What went wrong.
    what: Failed,
}

/// What went wrong.
#[derive(Debug)]
enum Failed {
    /// The system refused the change.
    Change(io::Error),
    /// There is a way back to root.
    Regained,
    /// Capabilities cannot be given up.
    Capabilities(io::Error),
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = &self.user;
        match &self.what {
            Failed::Change(error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "user: only root can become {user}; start as root or as {user}, or leave the key out (with [supervisor] a change \
                 of the user takes a stop and a start)"
            ),
            Failed::Change(error) => write!(f, "user: cannot become {user}: {error}"),
            Failed::Regained => write!(f, "user: the process became {user}, but can become root again"),
            Failed::Capabilities(error) => write!(f, "user: {user} keeps capabilities: {error}"),
        }
    }
}

impl std::error::Error for PrivilegeError {}
