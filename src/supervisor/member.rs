//! The other processes from the point of view of the supervisor.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use metrics::{ProcessSnapshot, Role};
use net::sys::group::is_in_own_group;
use rustix::process::{
    Pid as SystemPid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, geteuid, pidfd_open, pidfd_send_signal,
    wait, waitid,
};
use serde::Serialize;

use super::channel::{Channel, Maker, is_full};
use super::common::Common;
use super::message::GivenUp;
use super::tree::{Pid, ProcessEnd};

/// All processes that the supervisor watches.
#[derive(Default)]
pub(super) struct Members {
    pub(super) watched: BTreeMap<Pid, WatchedProcess>,
    /// Pidfds of processes of the previous supervisor that have not introduced themselves.
    pub(super) awaited: BTreeMap<Pid, OwnedFd>,
    /// The ends of processes that have been reaped and not handled yet.
    pub(super) ends: HashMap<Pid, ProcessEnd>,
}

pub(super) struct WatchedProcess {
    process: OwnedFd,
    pub(super) channel: Option<Channel>,
    /// The process as status and metrics show it.
    pub(super) shown: ProcessSnapshot,
    /// True if the process has said that it serves.
    pub(super) is_server: bool,
    /// True if the process reads the config on the disk and has not served yet. No server has influenced it.
    pub(super) is_loading: bool,
    pub(super) given_up: Option<GivenUp>,
}

impl Members {
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.watched.keys().copied().collect()
    }

    /// Iterates over the pidfds.
    pub(super) fn pidfds(&self) -> impl Iterator<Item = (Pid, BorrowedFd<'_>)> {
        let watched = self.watched.iter().map(|(pid, member)| (*pid, member.process.as_fd()));
        watched.chain(self.awaited.iter().map(|(pid, process)| (*pid, process.as_fd())))
    }

    pub(super) fn watch(&mut self, pid: Pid) -> io::Result<&mut WatchedProcess> {
        let shown = ProcessSnapshot {
            pid,
            role: Role::Starting,
            version: String::new(),
            edition: 0,
            since: SystemTime::now(),
            problem: None,
        };
        let process = pidfd(pid)?;
        let member =
            WatchedProcess { process, channel: None, shown, is_server: false, is_loading: false, given_up: None };
        self.watched.remove(&pid);
        Ok(self.watched.entry(pid).or_insert(member))
    }

    pub(super) fn kill(&self, pid: Pid) {
        let Some(member) = self.watched.get(&pid) else { return };
        if let Err(error) = pidfd_send_signal(&member.process, Signal::KILL) {
            tracing::error!(%error, "process {pid} cannot be killed");
        }
    }

    pub(super) fn kill_all(&self) {
        self.watched.keys().for_each(|pid| self.kill(*pid));
    }

    pub(super) fn send(&mut self, pid: Pid, message: &impl Serialize, descriptor: Option<BorrowedFd<'_>>) {
        self.send_by(pid, |channel| channel.send(message, descriptor.as_slice()));
    }

    /// If the process does not read, it finds its channel closed and introduces itself again.
    pub(super) fn send_by(&mut self, pid: Pid, send: impl FnOnce(&Channel) -> io::Result<()>) {
        let Some(member) = self.watched.get_mut(&pid) else { return };
        member.channel.take_if(|channel| send(channel).is_err_and(|error| is_full(&error)));
    }

    /// Reaps all ended children.
    pub(super) fn reap(&mut self) {
        // Several SIGCHLD may arrive as one. PID 1 also inherits processes that were not started here.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let end = match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => ProcessEnd::Status(status),
                (None, Some(signal)) => ProcessEnd::Signal(signal),
                (None, None) => continue,
            };
            let pid = pid.as_raw_nonzero().get() as Pid;
            if self.watched.contains_key(&pid) {
                self.ends.insert(pid, end);
            }
        }
    }
}

impl Common {
    /// Returns pidfds for these processes, except those already reaped.
    pub(super) fn ends_of(&self, pids: impl Iterator<Item = Pid>) -> BTreeMap<Pid, OwnedFd> {
        pids.filter(|pid| self.is_ours(*pid)).filter_map(|pid| Some((pid, pidfd(pid).ok()?))).collect()
    }

    /// Returns true if the maker of a channel belongs to this tree. Process IDs are reused, so the pidfd
    /// counts.
    pub(super) fn is_maker_ours(&self, maker: &Maker) -> bool {
        let is_user =
            self.facts.to_give_up.user.as_ref().is_none_or(|user| [user.uid, geteuid().as_raw()].contains(&maker.uid));
        let is_child = |process: &OwnedFd| self.facts.given_up.is_some() || is_child(WaitId::PidFd(process.as_fd()));
        is_user && self.is_ours(maker.pid) && maker.process.as_ref().is_none_or(is_child)
    }

    /// Returns true if a process belongs to this tree, by kernel data alone.
    pub(super) fn is_ours(&self, pid: Pid) -> bool {
        let Ok(process) = system_pid(pid) else { return false };
        // A supervisor with all its rights has started all other processes.
        if self.facts.given_up.is_none() {
            return is_child(WaitId::Pid(process));
        }
        // After a succession, the other processes are no children, and have no fewer rights than this one.
        is_in_own_group(process.as_raw_nonzero().get())
    }
}

/// Returns true if the process is a child that has not been reaped.
fn is_child(process: WaitId<'_>) -> bool {
    waitid(process, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
}

fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    Ok(pidfd_open(system_pid(pid)?, PidfdFlags::empty())?)
}

fn system_pid(pid: Pid) -> io::Result<SystemPid> {
    let pid = i32::try_from(pid).ok().and_then(SystemPid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process has no ID"))
}
