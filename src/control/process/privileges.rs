//! Drops privileges after the addresses are bound: the user, capabilities, and means to regain them.
//!
//! All of this precedes the first worker thread, because capabilities and `no_new_privs` belong to threads
//! and are inherited. The C library changes users and groups for all threads; `nix` has safe wrappers.
//! rustix, used elsewhere, changes the calling thread alone.

use std::path::{Path, PathBuf};
use std::{fs, io};

use config::{Config, User};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setuid};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs,
};
use thiserror::Error;

use crate::admin::{SocketOwner, usual_folders};
use crate::control::StartError;
use crate::load::{ConfigFiles, Confinement, Setup, folder_of};

pub(in crate::control) fn owner(user: Option<&User>) -> SocketOwner {
    match user {
        Some(user) if !is(user) => SocketOwner { uid: user.uid, gid: Some(user.gid) },
        Some(_) | None => SocketOwner::current(),
    }
}

/// Drops privileges and access to files that the config does not need. `socket` is the admin socket. Call it
/// before any thread starts, because threads inherit the privileges.
///
/// # Errors
/// If the process cannot change to the configured user.
pub fn confine(setup: &Setup, socket: Option<&Path>) -> Result<Confinement, StartError> {
    let Some(files) = &setup.files else { return Ok(Confinement::default()) };
    let user = setup.config.process.user.as_ref();
    let socket = socket.map(|path| folder_of(path).to_owned());
    // A reload may move the socket there.
    let sockets: Vec<_> = socket.into_iter().chain(usual_folders(owner(user).uid)).collect();
    Ok(give_up(user, files, &sockets)?)
}

/// Warns if the process stays root. The first process of a process tree calls it.
pub fn warn_of_root(config: &Config) {
    if config.process.user.is_none() && geteuid().is_root() {
        tracing::warn!(
            "running as root, with all its rights; set user = \"NAME\" (a dedicated user is best), \
             or have systemd start it with DynamicUser=yes"
        );
    }
}

/// Drops root before the process reads data of another process: changes the user, and confines the process
/// like the server if `confinement` is known. The capabilities for loading remain until [`confine`] or
/// [`harden`]: those of interfaces, and the right to bind ports below 1024 if the process reads the config
/// from disk, which no server can write.
///
/// # Errors
/// If the process cannot change the user.
pub fn give_up_early(
    user: Option<&User>,
    confinement: Option<&Confinement>,
    has_interfaces: bool,
) -> Result<(), StartError> {
    let mut kept = CapabilitySet::empty();
    if confinement.is_none() {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    if has_interfaces || confinement.is_none() {
        kept |= CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::BPF;
    }
    if let Some(user) = user.filter(|user| !is(user)) {
        become_user(user, kept)?;
    }
    drop_capabilities(user, kept)?;
    if let Some(confinement) = confinement {
        confinement.enforce_again();
    }
    Ok(())
}

/// Changes the user if configured, drops all capabilities, and limits file access to `files` and sockets in
/// `sockets`.
fn give_up(user: Option<&User>, files: &ConfigFiles, sockets: &[PathBuf]) -> Result<Confinement, PrivilegeError> {
    match user {
        Some(user) if !is(user) => {
            become_user(user, CapabilitySet::empty())?;
            tracing::info!(user = user.name, uid = user.uid, gid = user.gid, "now running as the configured user");
        }
        Some(_) | None => {}
    }
    drop_capabilities(user, CapabilitySet::empty())?;
    // A Landlock rule needs an existing folder.
    for folder in files.written.iter().map(|file| folder_of(file)).filter(|folder| !folder.exists()) {
        // The first save reports a folder that cannot be created.
        if fs::create_dir_all(folder).is_ok() {
            tracing::info!(folder = %folder.display(), "made the folder, which was missing");
        }
    }
    if let Some(user) = user {
        unusable(user, files).iter().for_each(|problem| tracing::warn!("{problem}"));
    }
    Ok(Confinement::enforce(files, sockets))
}

/// Drops all capabilities but those in `kept`.
fn drop_capabilities(user: Option<&User>, kept: CapabilitySet) -> Result<(), PrivilegeError> {
    match (harden_but(kept), user) {
        (Ok(()), _) => {}
        (Err(error), Some(user)) => {
            return Err(PrivilegeError::Capabilities { user: user.name.clone(), error });
        }
        // Not configured, and a filter of system calls may prevent it.
        (Err(error), None) => {
            tracing::warn!(%error, "the process keeps its capabilities, since they cannot be dropped")
        }
    }
    Ok(())
}

fn is(user: &User) -> bool {
    geteuid().as_raw() == user.uid
}

fn become_user(user: &User, kept: CapabilitySet) -> Result<(), PrivilegeError> {
    let name = || user.name.clone();
    let unchanged = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => PrivilegeError::Denied { user: name() },
        _ => PrivilegeError::Change { user: name(), error },
    };
    let refused = |error: nix::Error| unchanged(error.into());
    let kept_on = |error: Errno| PrivilegeError::Capabilities { user: name(), error: error.into() };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    // Before the right to do so is gone. Ignore errors for capabilities unknown to this kernel.
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    // The user comes last: without root, groups cannot be changed.
    setgroups(&groups).map_err(refused)?;
    setresgid(gid, gid, gid).map_err(refused)?;
    if !kept.is_empty() {
        set_keep_capabilities(true).map_err(kept_on)?;
    }
    setresuid(uid, uid, uid).map_err(refused)?;
    if !kept.is_empty() {
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).map_err(kept_on)?;
    }
    let root = Uid::from_raw(0);
    if setuid(root).is_ok() || setresuid(root, root, root).is_ok() || geteuid().as_raw() != user.uid {
        return Err(PrivilegeError::Regained { user: name() });
    }
    Ok(())
}

/// Drops capabilities, except for root, which needs them, and prevents regaining any by running other
/// programs.
///
/// # Errors
/// If a filter of system calls prevents it.
pub fn harden() -> io::Result<()> {
    harden_but(CapabilitySet::empty())
}

/// Drops capabilities like [`harden`], except those in `kept`.
fn harden_but(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    if !geteuid().is_root() {
        // Older kernels have no ambient capabilities.
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

/// Lists the files of the config that the user cannot use, each with a remedy.
fn unusable(user: &User, files: &ConfigFiles) -> Vec<String> {
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
             (install -d -o {} /var/lib/hedgerow) and name a file there in the config",
            file.display(),
            user.owner()
        )
    });
    read.chain(written).collect()
}

/// The process could not change to the configured user.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The process is not root.
    #[error(
        "user: only root can become {user}; start as root or as {user}, or leave the key out (with [supervisor] a change \
         of the user takes a stop and a start)"
    )]
    Denied {
        /// The name of the user.
        user: String,
    },
    /// The system refused the change.
    #[error("user: cannot become {user}: {error}")]
    Change {
        /// The name of the user.
        user: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The process could become root again.
    #[error("user: the process became {user}, but can become root again")]
    Regained {
        /// The name of the user.
        user: String,
    },
    /// The process still has capabilities.
    #[error("user: {user} keeps capabilities: {error}")]
    Capabilities {
        /// The name of the user.
        user: String,
        /// The error of the system.
        error: io::Error,
    },
}
