//! A process from the point of view of the supervisor.

use std::collections::BTreeMap;
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

pub(super) struct WatchedProcess {
    pub(super) process: OwnedFd,
    pub(super) channel: Option<Channel>,
    pub(super) version: String,
    pub(super) state: State,
    pub(super) since: SystemTime,
    pub(super) role: Role,
    /// True if the process reads the config on the disk and has not served yet. No server has influenced it.
    pub(super) is_loading: bool,
    pub(super) given_up: Option<GivenUp>,
}

impl WatchedProcess {
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
    /// Returns pidfds for these processes, except those already reaped.
    pub(super) fn ends_of(&self, pids: impl Iterator<Item = Pid>) -> BTreeMap<Pid, OwnedFd> {
        pids.filter(|pid| self.is_ours(*pid))
            .filter_map(|pid| Some((pid, WatchedProcess::new(pid).ok()?.process)))
            .collect()
    }

    /// Returns true if the maker of a channel belongs to this tree. Process IDs are reused, so the pidfd
    /// counts.
    pub(super) fn is_maker_ours(&self, maker: &Maker) -> bool {
        let is_user =
            self.to_give_up.user.as_ref().is_none_or(|user| [user.uid, geteuid().as_raw()].contains(&maker.uid));
        let is_child = |process: &OwnedFd| self.given_up.is_some() || is_child(WaitId::PidFd(process.as_fd()));
        is_user && self.is_ours(maker.pid) && maker.process.as_ref().is_none_or(is_child)
    }

    /// Returns true if a process belongs to this tree, by kernel data alone.
    pub(super) fn is_ours(&self, pid: Pid) -> bool {
        let Ok(process) = system_pid(pid) else { return false };
        // A supervisor with all its rights has started all other processes.
        if self.given_up.is_none() {
            return is_child(WaitId::Pid(process));
        }
        // After a succession, the other processes are no children, and have no fewer rights than this one.
        getpgid(Some(process)).is_ok_and(|group| group == getpgrp())
    }
}

/// Returns true if the process is a child that has not been reaped.
fn is_child(process: WaitId<'_>) -> bool {
    waitid(process, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
}

fn system_pid(pid: Pid) -> io::Result<SystemPid> {
    let pid = i32::try_from(pid).ok().and_then(SystemPid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process has no ID"))
}
