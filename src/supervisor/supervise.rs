//! The main loop of the supervisor: it passes events to the tree and executes the tree's steps.
//!
//! It is one thread without a runtime and handles no queries. It polls all descriptors: signals,
//! introductions, and for each process its channel and a pidfd, because the processes of a previous
//! supervisor are no children.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitCode, id};
use std::time::{Instant, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, pidfd_send_signal, wait};

use super::channel::{Channel, ChannelEvent, bears_lock, is_full};
use super::common::Common;
use super::locks::{self, Lock};
use super::member::WatchedProcess;
use super::message::{
    Downward, Edition, GivenUp, Introduction, MAX_PATH, OriginalCommand, ProcessPart, Sockets, Upward, shorten,
};
use super::spawn::{Image, name_process};
use super::tree::{ChangeKind, Pid, ProcessEnd, Purpose, Tree, TreeRules, TreeStep};
use crate::config::Config;
use crate::metrics::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover};
use crate::net::from_clients::listening::ListeningSocket;
use crate::server::raise_descriptor_limit;
use crate::service_manager::{Contact, ServiceManager};

pub(super) struct Supervisor {
    common: Common,
    tree: Tree,
    manager: ServiceManager,
    last_notification: Instant,
    signals: SignalFd,
    image: Image,
    new_image: Option<Image>,
    /// The state of an upgrade on probation. Other processes get it when the upgrade has succeeded.
    trial: Trial,
    members: BTreeMap<Pid, WatchedProcess>,
    /// Pidfds of processes of the previous supervisor that have not introduced themselves.
    awaited: BTreeMap<Pid, OwnedFd>,
    coming: Vec<ListeningSocket>,
    asker: Option<Pid>,
    is_cold: bool,
    is_view_due: bool,
    statuses: HashMap<Pid, ProcessEnd>,
}

#[derive(Default)]
struct Trial {
    edition: Option<(Edition, OwnedFd)>,
    known: Option<OwnedFd>,
    given_up: Option<GivenUp>,
}

enum Ready {
    Signals,
    Introductions,
    Channel(Pid),
    End(Pid),
    Absence(Pid),
}

impl Supervisor {
    pub(super) fn first(config: &Config, sockets: Vec<ListeningSocket>) -> io::Result<Self> {
        let signals = take_signals()?;
        let to_give_up = GivenUp { user: config.user.clone(), confinement: None, has_xdp: config.xdp.is_some() };
        let config = config.supervisor.clone().unwrap_or_default();
        let (serve, supervise) = (Lock::new("hedgerow-serve")?, Lock::new("hedgerow-supervise")?);
        supervise.take(locks::LockPart::Whole)?;
        let (write, read) = Channel::pair()?;
        let rules = TreeRules { standbys: config.standbys, watchdog: config.watchdog };
        let view = ProcessesSnapshot {
            supervisor: Some(SupervisorSnapshot { pid: id(), since: SystemTime::now(), successions: 0 }),
            ..ProcessesSnapshot::default()
        };
        let origin = OriginalCommand::of_this_process()?;
        let introductions = [write, read];
        let succession = config.succession;
        let contact = Contact::from_environment();
        let manager = ServiceManager::new(contact.clone(), &sockets);
        let common = Common {
            serve,
            supervise,
            introductions,
            origin,
            succession,
            edition: None,
            known: None,
            sockets,
            view,
            rules,
            contact,
            given_up: None,
            to_give_up,
        };
        Self::new(common, manager, signals, Tree::first(rules, Instant::now()))
    }

    /// Succeeds another supervisor, whose processes may still run. `is_succession` is true if it has died.
    pub(super) fn succeeding(mut common: Common, is_succession: bool) -> io::Result<Self> {
        let signals = take_signals()?;
        if !common.supervise.try_take(locks::LockPart::Whole)? {
            return Err(io::Error::other("another supervisor is running already"));
        }
        let own = id();
        let former = common.view.supervisor.as_ref().map(|supervisor| supervisor.pid);
        let is_other = |process: &&ProcessSnapshot| process.pid != own && Some(process.pid) != former;
        let others = common.view.processes.iter().filter(is_other).map(|process| process.pid);
        let awaited = common.ends_of(others);
        let server = common.view.processes.iter().find(|process| process.role == Role::Server);
        let server = server.map(|process| process.pid);
        let mut manager = ServiceManager::new(common.contact.clone(), &common.sockets);
        if is_succession {
            manager.succeed();
            common.contact = manager.contact().clone();
            let successions = common.view.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions);
            let supervisor = SupervisorSnapshot { pid: own, since: SystemTime::now(), successions: successions + 1 };
            common.view.supervisor = Some(supervisor);
            match former {
                Some(former) => tracing::info!("supervisor {own} replaces supervisor {former}"),
                None => tracing::info!("supervisor {own}"),
            }
        }
        let tree = Tree::succeeding(common.rules, awaited.keys().copied().collect(), server, Instant::now());
        Ok(Self { awaited, ..Self::new(common, manager, signals, tree)? })
    }

    fn new(common: Common, manager: ServiceManager, signals: SignalFd, tree: Tree) -> io::Result<Self> {
        name_process(Role::Supervisor);
        // The supervisor holds all sockets of the server.
        raise_descriptor_limit();
        Ok(Self {
            common,
            tree,
            manager,
            last_notification: Instant::now(),
            signals,
            image: Image::running()?,
            new_image: None,
            trial: Trial::default(),
            members: BTreeMap::new(),
            awaited: BTreeMap::new(),
            coming: Vec::new(),
            asker: None,
            is_cold: false,
            is_view_due: true,
            statuses: HashMap::new(),
        })
    }

    pub(super) fn run(mut self) -> io::Result<ExitCode> {
        loop {
            while let Some(step) = self.tree.next_step() {
                if let Some(status) = self.obey(step) {
                    return Ok(status);
                }
            }
            self.show();
            for ready in self.wait()? {
                match ready {
                    Ready::Signals => self.take_signals(),
                    Ready::Introductions => self.take_introductions(),
                    Ready::Channel(pid) => self.listen_to(pid),
                    Ready::End(pid) => self.on_end(pid),
                    Ready::Absence(pid) => {
                        self.awaited.remove(&pid);
                        self.tree.absent(pid, Instant::now());
                    }
                }
            }
            let now = Instant::now();
            if now >= self.tree.due() {
                self.find_server(now);
                self.tree.tick(now);
            }
            if let Some(interval) = self.manager.interval()
                && now.duration_since(self.last_notification) >= interval
            {
                self.last_notification = now;
                self.manager.tick(self.tree.is_progress_made(now) || self.tree.is_ending());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut watched =
            vec![(Ready::Signals, self.signals.as_fd()), (Ready::Introductions, self.common.introductions[1].as_fd())];
        // Messages of a process are handled before its end.
        for (pid, member) in &self.members {
            watched.extend(member.channel.as_ref().map(|channel| (Ready::Channel(*pid), channel.as_fd())));
        }
        watched.extend(self.members.iter().map(|(pid, member)| (Ready::End(*pid), member.process.as_fd())));
        watched.extend(self.awaited.iter().map(|(pid, end)| (Ready::Absence(*pid), end.as_fd())));
        let mut polled: Vec<_> = watched.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let mut due = self.tree.due();
        if let Some(interval) = self.manager.interval() {
            due = due.min(self.last_notification + interval);
        }
        let span = due.saturating_duration_since(Instant::now());
        let span = Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) };
        match poll(&mut polled, Some(&span)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let ready = watched.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        Ok(ready.map(|((what, _), _)| what).collect())
    }

    fn obey(&mut self, step: TreeStep) -> Option<ExitCode> {
        match step {
            TreeStep::Start(purpose) => self.start(purpose),
            TreeStep::Kill(pid) => self.kill(pid),
            TreeStep::Send(pid, word) => self.send(pid, &Downward::Word(word), None),
            TreeStep::TookOver { pid, after, reason, took } => {
                let after = after.map_or_else(|| "none".to_owned(), |after| after.to_string());
                let took = took.as_millis();
                tracing::info!("process {pid} serves after {after} ({}): {took} ms", reason.label());
                self.common.view.takeovers[reason as usize] += 1;
                if matches!(reason, Takeover::Crash | Takeover::Hang) {
                    self.common.view.crashed_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
                }
            }
            TreeStep::Delayed { problem, delay } => {
                tracing::warn!("standby failed: {problem}; trying again in {}", humantime::format_duration(delay));
            }
            TreeStep::Changed(kind, result) => {
                if let Err(reason) = &result {
                    tracing::warn!("{} refused: {reason}", kind.label());
                }
                if let Some(asker) = self.asker.take() {
                    self.send(asker, &Downward::Changed(result), None);
                }
            }
            TreeStep::Proven => {
                let Trial { edition, known, given_up } = std::mem::take(&mut self.trial);
                if let Some(given_up) = given_up {
                    self.common.take_given_up(given_up);
                }
                if let Some((edition, text)) = edition {
                    self.common.rules = edition.rules;
                    self.tree.set_rules(edition.rules, Instant::now());
                    self.common.edition = Some((edition, text));
                }
                self.common.known = known.or_else(|| self.common.known.take());
            }
            TreeStep::RolledBack(reason) => {
                self.new_image = None;
                self.trial = Trial::default();
                tracing::warn!("upgrade rolled back: {reason}");
            }
            TreeStep::ExecInPlace => {
                let image = self.new_image.take();
                let error = self.common.become_supervisor(image.as_ref().unwrap_or(&self.image), false);
                tracing::error!(%error, "the supervisor keeps running the previous program");
                self.image = image.or_else(|| Image::running().ok())?;
            }
            TreeStep::Exit(status) => {
                self.members.keys().copied().collect::<Vec<_>>().into_iter().for_each(|pid| self.kill(pid));
                return Some(ExitCode::from(status));
            }
        }
        self.is_view_due = true;
        None
    }

    fn start(&mut self, purpose: Purpose) {
        let now = Instant::now();
        match self.try_start(purpose) {
            Ok(pid) => self.tree.started(purpose, pid, now),
            Err(error) => self.tree.not_started(purpose, format!("cannot start a process: {error}"), now),
        }
    }

    fn try_start(&mut self, purpose: Purpose) -> io::Result<Pid> {
        let part = match purpose {
            Purpose::First => ProcessPart::First,
            Purpose::Stand => ProcessPart::Standby,
            Purpose::Newcomer(kind) => ProcessPart::Newcomer { kind, is_cold: self.is_cold },
        };
        let pid = match purpose {
            // The first server needs all rights to bind and to read. No other process has written data yet.
            Purpose::First => self.image.spawn(&self.common.luggage(part, None), None)?,
            Purpose::Stand => {
                let image = self.new_image.as_ref().filter(|_| self.tree.is_replacing()).unwrap_or(&self.image);
                image.spawn(&self.common.luggage(part, None), self.common.to_give_up_of(purpose).as_ref())?
            }
            Purpose::Newcomer(kind) => {
                let (ours, theirs) = Channel::pair()?;
                let image = match kind {
                    ChangeKind::Restart => &self.image,
                    ChangeKind::Upgrade => {
                        let image = Image::of_upgrade(&self.common.origin.path)?;
                        self.new_image.insert(image)
                    }
                };
                let to_give_up = self.common.to_give_up_of(purpose);
                let pid = image.spawn(&self.common.luggage(part, Some(theirs.as_fd())), to_give_up.as_ref())?;
                if let Some(server) = self.tree.server() {
                    self.send(server, &Downward::Successor, Some(ours.as_fd()));
                }
                pid
            }
        };
        self.watch(pid)?;
        if let Some(member) = self.members.get_mut(&pid) {
            member.is_loading = purpose != Purpose::Stand;
        }
        Ok(pid)
    }

    fn watch(&mut self, pid: Pid) -> io::Result<()> {
        self.members.insert(pid, WatchedProcess::new(pid)?);
        Ok(())
    }

    fn kill(&mut self, pid: Pid) {
        let Some(member) = self.members.get(&pid) else { return };
        if let Err(error) = pidfd_send_signal(&member.process, rustix::process::Signal::KILL) {
            tracing::error!(%error, "process {pid} cannot be killed");
        }
    }

    /// If the process does not read, it finds its channel closed and introduces itself again.
    fn send(&mut self, pid: Pid, message: &Downward, descriptor: Option<BorrowedFd<'_>>) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        let Some(channel) = &member.channel else { return };
        if channel.send(message, descriptor.as_slice()).is_err_and(|error| is_full(&error)) {
            member.channel = None;
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|signal| Signal::try_from(signal).ok()) {
                Some(Signal::SIGHUP) => match self.tree.server() {
                    Some(server) => self.send(server, &Downward::Reload, None),
                    None => tracing::warn!("SIGHUP: no process serves yet, so there is nothing to reload"),
                },
                Some(Signal::SIGUSR2) => {
                    self.is_cold = false;
                    self.ask(ChangeKind::Upgrade, None);
                }
                Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) if self.tree.is_ending() => {
                    tracing::warn!("{} again: ending at once", signal.as_str());
                    self.members.keys().copied().collect::<Vec<_>>().into_iter().for_each(|pid| self.kill(pid));
                    std::process::exit(1);
                }
                Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                    tracing::info!("{}: all processes end; a second signal ends them at once", signal.as_str());
                    self.end();
                }
                Some(_) | None => {}
            }
        }
        // Several SIGCHLD may arrive as one. PID 1 also inherits processes that were not started here.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let ended = match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => ProcessEnd::Status(status),
                (None, Some(signal)) => ProcessEnd::Signal(signal),
                (None, None) => continue,
            };
            let pid = pid.as_raw_nonzero().get() as Pid;
            if self.members.contains_key(&pid) {
                self.statuses.insert(pid, ended);
            }
        }
    }

    fn end(&mut self) {
        self.manager.stopping();
        self.tree.end(Instant::now());
    }

    fn ask(&mut self, kind: ChangeKind, asker: Option<Pid>) {
        match self.tree.ask(kind, Instant::now()) {
            Ok(()) => self.asker = asker,
            Err(reason) => {
                tracing::warn!("{} refused: {reason}", kind.label());
                if let Some(asker) = asker {
                    self.send(asker, &Downward::Conflict(reason), None);
                }
            }
        }
    }

    fn take_introductions(&mut self) {
        for _ in 0..MAX_TURN {
            match self.common.introductions[1].receive::<Introduction>() {
                Ok(ChannelEvent::Message(introduction, mut descriptors)) => {
                    if let Some(channel) = descriptors.pop() {
                        self.introduce(introduction, channel.into());
                    }
                }
                // An empty message looks the same, and its sender could also close this channel.
                Ok(ChannelEvent::Closed) => return self.common.renew_introductions(),
                Err(error) if bears_lock(&error) => return self.common.renew_introductions(),
                Ok(ChannelEvent::Nothing) => return,
                Err(error) => tracing::warn!(%error, "a process has sent an introduction that cannot be read"),
            }
        }
    }

    fn take_given_up(&mut self, pid: Pid, role: Role) {
        let Some(member) = self.members.get_mut(&pid).filter(|_| role == Role::Server) else { return };
        member.is_loading = false;
        let Some(given_up) = member.given_up.take() else { return };
        match self.tree.is_on_probation() {
            true => self.trial.given_up = Some(given_up),
            false => self.common.take_given_up(given_up),
        }
    }

    fn introduce(&mut self, introduction: Introduction, channel: Channel) {
        let Introduction { mut version, mut state, .. } = introduction;
        shorten(&mut version, MAX_VERSION);
        state.shorten();
        // Channels that this process made before it became the supervisor are no introductions.
        let Some(maker) = channel.maker().filter(|maker| maker.pid != id()) else { return };
        let pid = maker.pid;
        // A process that has just ended may no longer be a child.
        if !self.statuses.contains_key(&pid) && !self.common.is_maker_ours(&maker) {
            return;
        }
        if !self.members.contains_key(&pid) && (self.members.len() >= MAX_MEMBERS || self.watch(pid).is_err()) {
            return;
        }
        let Some(member) = self.members.get_mut(&pid) else { return };
        (member.channel, member.version) = (Some(channel), version);
        let role = state.role.unwrap_or(Role::Starting);
        member.state = state.clone();
        self.is_view_due = true;
        self.tree.introduced(pid, role, Instant::now());
        self.take_given_up(pid, role);
        // A server knows the current state better and sends it.
        if role != Role::Server {
            self.brief(pid);
        }
    }

    fn brief(&mut self, pid: Pid) {
        self.pass_sockets(pid);
        if let Some((edition, text)) = self.common.edition.take() {
            self.send(pid, &Downward::Edition(edition.clone()), Some(text.as_fd()));
            self.common.edition = Some((edition, text));
        }
        if let Some(known) = self.common.known.take() {
            self.send(pid, &Downward::Known, Some(known.as_fd()));
            self.common.known = Some(known);
        }
    }

    fn pass_sockets(&mut self, pid: Pid) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        if let Some(channel) = &member.channel
            && Sockets::send(channel, &self.common.sockets, Downward::Sockets).is_err_and(|error| is_full(&error))
        {
            member.channel = None;
        }
    }

    fn followers(&self) -> Vec<Pid> {
        let is_follower = |role: Role| matches!(role, Role::Standby | Role::Starting | Role::Failed);
        self.tree.roles().filter(|(_, role)| is_follower(*role)).map(|(pid, _)| pid).collect()
    }

    fn listen_to(&mut self, pid: Pid) {
        for _ in 0..MAX_TURN {
            let Some(member) = self.members.get_mut(&pid) else { return };
            let Some(channel) = &member.channel else { return };
            match channel.receive::<Upward>() {
                Ok(ChannelEvent::Message(message, descriptors)) => self.hear(pid, message, descriptors),
                Ok(ChannelEvent::Nothing) => return,
                Ok(ChannelEvent::Closed) => {
                    member.channel = None;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "a message of process {pid} cannot be read");
                    member.channel = None;
                    // The process is cut off: each such message leaves descriptors open, and it could make
                    // another channel.
                    if bears_lock(&error) {
                        self.kill(pid);
                    }
                    return;
                }
            }
        }
    }

    fn hear(&mut self, pid: Pid, message: Upward, mut descriptors: Vec<OwnedFd>) {
        let now = Instant::now();
        let Some(member) = self.members.get_mut(&pid) else { return };
        let is_server = member.state.role == Some(Role::Server);
        match message {
            Upward::Pong => self.tree.heard(pid, now),
            Upward::Says(mut state) => {
                state.shorten();
                let (role, took) = (state.role.unwrap_or(Role::Starting), state.took);
                if role == Role::Server {
                    self.manager.ready(&format!("process {pid} serves"));
                }
                member.state = state;
                self.is_view_due = true;
                self.tree.says(pid, role, std::time::Duration::from_micros(took), now);
                self.take_given_up(pid, role);
            }
            Upward::Sockets(sockets) => {
                if is_server && sockets.add_to(&mut self.coming, descriptors) {
                    self.common.sockets = std::mem::take(&mut self.coming);
                    if let Err(error) = self.manager.keep(&self.common.sockets) {
                        tracing::warn!(%error, "the service manager cannot store the listening sockets");
                    }
                    self.followers().into_iter().for_each(|pid| self.pass_sockets(pid));
                }
            }
            // Only the first report counts, because later the process reads data of the server.
            Upward::Confined(given_up) if member.is_loading => {
                member.given_up.get_or_insert(given_up);
            }
            Upward::Confined(_) => {}
            Upward::Edition(mut edition) => {
                edition.rules = edition.rules.clamped();
                // A process that serves no more cannot set the config.
                let is_server = is_server && self.tree.server() == Some(pid);
                // If the handover were too long for a message, no process could start.
                let is_short = edition.file.as_os_str().len() <= MAX_PATH;
                let Some(text) = descriptors.pop().filter(|_| is_server && is_short) else { return };
                if self.tree.is_on_probation() {
                    self.trial.edition = Some((edition, text));
                    return;
                }
                if self.common.edition.as_ref().is_some_and(|(known, _)| *known == edition) {
                    return;
                }
                self.common.rules = edition.rules;
                self.tree.set_rules(edition.rules, now);
                for follower in self.followers() {
                    self.send(follower, &Downward::Edition(edition.clone()), Some(text.as_fd()));
                }
                self.common.edition = Some((edition, text));
            }
            Upward::Known => {
                let Some(known) = descriptors.pop().filter(|_| is_server) else { return };
                if self.tree.is_on_probation() {
                    self.trial.known = Some(known);
                    return;
                }
                for follower in self.followers() {
                    self.send(follower, &Downward::Known, Some(known.as_fd()));
                }
                self.common.known = Some(known);
            }
            Upward::ZoneSaved => {
                for follower in self.followers() {
                    self.send(follower, &Downward::ZoneSaved, None);
                }
            }
            Upward::Ask { kind: Some(kind), is_cold } => {
                if !self.tree.is_ending() && self.asker.is_none() {
                    self.is_cold = is_cold;
                }
                self.ask(kind, Some(pid));
            }
            Upward::Ask { kind: None, .. } => {
                tracing::info!("stop: all processes end");
                self.end();
            }
            Upward::Reloading => self.manager.reloading(),
            Upward::Reloaded(result) => self.manager.ready(&format!("process {pid} serves; {result}")),
            Upward::Leaving => self.tree.wants_to_leave(pid, now),
            Upward::GaveUp(problem) => self.tree.gave_up(pid, problem, now),
            // Closing the sockets rejects pending queries, so that clients try another server.
            Upward::Closed => {
                if self.tree.is_ending() {
                    self.common.sockets.clear();
                }
            }
        }
    }

    fn on_end(&mut self, pid: Pid) {
        // First handle an introduction that the process sent just before its end.
        self.take_introductions();
        self.listen_to(pid);
        self.take_signals();
        self.members.remove(&pid);
        let how = self.statuses.remove(&pid).unwrap_or(ProcessEnd::Unknown);
        match self.tree.is_crash(pid, how) {
            true => tracing::error!("process {pid} ended: {how}"),
            false => tracing::info!("process {pid} ended: {how}"),
        }
        self.is_view_due = true;
        self.tree.ended(pid, how, Instant::now());
    }

    /// Finds a server that holds the lock but has not introduced itself because it hangs.
    fn find_server(&mut self, now: Instant) {
        if let Some(pid) = self.common.serve.holder(locks::LockPart::First)
            && !self.members.contains_key(&pid)
            && self.common.is_ours(pid)
            && self.watch(pid).is_ok()
        {
            self.tree.introduced(pid, Role::Server, now);
        }
    }

    fn show(&mut self) {
        if !std::mem::take(&mut self.is_view_due) {
            return;
        }
        let now = SystemTime::now();
        let roles: HashMap<Pid, Role> = self.tree.roles().collect();
        let seen = std::mem::take(&mut self.common.view.processes);
        for (pid, member) in &mut self.members {
            let role = roles.get(pid).copied().unwrap_or(Role::Starting);
            if member.role != role {
                // A previous supervisor knows when the process took on its role.
                let seen = seen.iter().find(|seen| seen.pid == *pid && seen.role == role);
                (member.role, member.since) = (role, seen.map_or(now, |seen| seen.since));
            }
        }
        let (edition, since) = (
            self.common.edition.as_ref().map_or(1, |(edition, _)| edition.number),
            self.common.view.supervisor.as_ref().map_or(now, |supervisor| supervisor.since),
        );
        let own = ProcessSnapshot {
            pid: id(),
            role: Role::Supervisor,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            edition,
            since,
            problem: None,
        };
        let others = self.members.iter().map(|(pid, member)| ProcessSnapshot {
            pid: *pid,
            role: member.role,
            version: member.version.clone(),
            edition: member.state.edition,
            since: member.since,
            problem: member.state.problem.clone(),
        });
        self.common.view.processes = std::iter::once(own).chain(others).collect();
        let message = Downward::View(self.common.view.clone());
        let pids: Vec<_> = self.members.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.send(pid, &message, None));
    }
}

/// The most messages of one process per turn: more than a socket holds.
const MAX_TURN: usize = 1024;

/// The process limit for further introductions, because the view of all processes must fit into a message.
const MAX_MEMBERS: usize = 24;

const MAX_VERSION: usize = 64;

fn take_signals() -> io::Result<SignalFd> {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
