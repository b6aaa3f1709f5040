//! A process as the supervisor watches it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::SystemTime;

use rustix::process::{
    Pid as SystemPid, PidfdFlags, WaitId, WaitIdOptions, geteuid, getpgid, getpgrp, pidfd_open, waitid,
};

use super::channel::{Channel, Maker};
use super::common::Common;
use super::message::{GivenUp, State};
use super::tree::Pid;
use crate::metrics::Role;

/// A process that the supervisor watches.
pub(super) struct WatchedProcess {
    /// Readable when the process has ended.
    pub(super) process: OwnedFd,
    pub(super) channel: Option<Channel>,
    pub(super) version: String,
    pub(super) state: State,
    /// The time at which it took on its role.
    pub(super) since: SystemTime,
    pub(super) role: Role,
    /// True if it reads the config on the disk and has not served yet. No server has had a part in what it does.
    pub(super) is_loading: bool,
    /// The rights that it has given up, until it serves.
    pub(super) given_up: Option<GivenUp>,
}

impl WatchedProcess {
    /// Begins to watch a process.
    ///
    /// # Errors
    /// If there is no such process, or there are no descriptors left.
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        Ok(Self {
            process: pidfd_open(system_pid(pid)?, PidfdFlags::empty())?,
            channel: None,
            version: String::new(),
            state: State::default(),
            since: SystemTime::now(),
            role: Role::Starting,
            is_loading: false,
            given_up: None,
        })
    }
}

impl Common {
    /// True if the maker of a channel is one of ours: not only of its number, which a process that has ended may have had before.
    pub(super) fn is_maker_ours(&self, maker: &Maker) -> bool {
        let is_user =
            self.to_give_up.user.as_ref().is_none_or(|user| [user.uid, geteuid().as_raw()].contains(&maker.uid));
        let is_child = |process: &OwnedFd| self.given_up.is_some() || is_child(WaitId::PidFd(process.as_fd()));
        is_user && self.is_ours(maker.pid) && maker.process.as_ref().is_none_or(is_child)
    }

    /// True if a process is one of ours, by the word of the kernel alone.
    pub(super) fn is_ours(&self, pid: Pid) -> bool {
        let Ok(process) = system_pid(pid) else { return false };
        // A supervisor with all its rights has started all others.
        if self.given_up.is_none() {
            return is_child(WaitId::Pid(process));
        }
        // The others are no children of one that has succeeded another, and have no fewer rights than this one.
        getpgid(Some(process)).is_ok_and(|group| group == getpgrp())
    }
}

/// True if this process has started another and has not seen its end.
fn is_child(process: WaitId<'_>) -> bool {
    waitid(process, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
}

fn system_pid(pid: Pid) -> io::Result<SystemPid> {
    let pid = i32::try_from(pid).ok().and_then(SystemPid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process without a number"))
}
