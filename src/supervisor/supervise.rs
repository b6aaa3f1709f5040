//! The main loop of the supervisor: it passes events to the tree and executes the tree's steps.
//!
//! It is one thread without a runtime and handles no queries. It polls all descriptors: signals,
//! introductions, and for each process its channel and a pidfd, because the processes of a previous
//! supervisor are no children.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitCode, id};
use std::time::{Duration, Instant, SystemTime};

use config::Config;
use metrics::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover};
use net::from_clients::listening::ListeningSocket;
use net::sys::memory::release_unused;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::channel::{Channel, ChannelEvent, bears_lock};
use super::common::Common;
use super::locks::{Lock, LockPart};
use super::member::Members;
use super::message::{
    Downward, Edition, GivenUp, Introduction, MAX_PATH, OriginalCommand, ProcessPart, Sockets, State, TreeFacts,
    Upward, shorten,
};
use super::spawn::{Image, name_process};
use super::tree::{ChangeKind, Pid, ProcessEnd, Purpose, Tree, TreeRules, TreeStep};
use crate::control::raise_descriptor_limit;
use crate::service_manager::{Contact, ServiceManager};

pub(super) struct Supervisor {
    common: Common,
    tree: Tree,
    members: Members,
    manager: ServiceManager,
    last_notification: Instant,
    signals: SignalFd,
    image: Image,
    upgrade: UpgradeTrial,
    coming: Vec<ListeningSocket>,
    /// The process that has asked for the current restart or upgrade.
    asker: Option<Pid>,
    is_cold: bool,
    is_view_due: bool,
}

/// The program and the state of an upgrade on probation. Other processes get them when it has succeeded.
#[derive(Default)]
struct UpgradeTrial {
    image: Option<Image>,
    edition: Option<(Edition, OwnedFd)>,
    known: Option<OwnedFd>,
    given_up: Option<GivenUp>,
}

impl Supervisor {
    pub(super) fn first(config: &Config, sockets: Vec<ListeningSocket>) -> io::Result<Self> {
        let signals = take_signals()?;
        let has_interfaces = config.has_interfaces();
        let to_give_up = GivenUp { user: config.process.user.clone(), confinement: None, has_interfaces };
        let config = config.supervisor.clone().unwrap_or_default();
        let (serve, supervise) = (Lock::new("hedgerow-serve")?, Lock::new("hedgerow-supervise")?);
        supervise.take(LockPart::Whole)?;
        let (write, read) = Channel::pair()?;
        let rules = TreeRules { standbys: config.standbys, watchdog: config.watchdog };
        let supervisor = Some(SupervisorSnapshot { pid: id(), since: SystemTime::now(), successions: 0 });
        let facts = TreeFacts {
            origin: OriginalCommand::of_this_process()?,
            rules,
            succession: config.succession,
            view: ProcessesSnapshot { supervisor, ..ProcessesSnapshot::default() },
            contact: Contact::from_environment(),
            given_up: None,
            to_give_up,
        };
        let manager = ServiceManager::new(facts.contact.clone(), &sockets)?;
        let introductions = [write, read];
        let common =
            Common { serve, supervise, introductions, edition: None, known: None, latency: None, sockets, facts };
        Self::new(common, manager, signals, Tree::first(rules, Instant::now()))
    }

    /// Succeeds another supervisor, whose processes may still run. `is_succession` is true if it has died.
    pub(super) fn succeeding(mut common: Common, is_succession: bool) -> io::Result<Self> {
        let signals = take_signals()?;
        if !common.supervise.try_take(LockPart::Whole)? {
            return Err(io::Error::other("another supervisor is running already"));
        }
        let own = id();
        let view = &common.facts.view;
        let former = view.supervisor.as_ref().map(|supervisor| supervisor.pid);
        let is_other = |process: &&ProcessSnapshot| process.pid != own && Some(process.pid) != former;
        let awaited = common.ends_of(view.processes.iter().filter(is_other).map(|process| process.pid));
        let server = view.processes.iter().find(|process| process.role == Role::Server).map(|process| process.pid);
        let mut manager = ServiceManager::new(common.facts.contact.clone(), &common.sockets)?;
        if is_succession {
            manager.succeed();
            let successions = view.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions) + 1;
            common.facts.contact = manager.contact().clone();
            common.facts.view.supervisor = Some(SupervisorSnapshot { pid: own, since: SystemTime::now(), successions });
            match former {
                Some(former) => tracing::info!("supervisor {own} replaces supervisor {former}"),
                None => tracing::info!("supervisor {own}"),
            }
        }
        let tree = Tree::succeeding(common.facts.rules, awaited.keys().copied().collect(), server, Instant::now());
        let mut supervisor = Self::new(common, manager, signals, tree)?;
        supervisor.members.awaited = awaited;
        Ok(supervisor)
    }

    fn new(common: Common, manager: ServiceManager, signals: SignalFd, tree: Tree) -> io::Result<Self> {
        name_process(Role::Supervisor);
        // The supervisor holds all sockets of the server.
        raise_descriptor_limit();
        Ok(Self {
            common,
            tree,
            members: Members::default(),
            manager,
            last_notification: Instant::now(),
            signals,
            image: Image::running()?,
            upgrade: UpgradeTrial::default(),
            coming: Vec::new(),
            asker: None,
            is_cold: false,
            is_view_due: true,
        })
    }

    pub(super) fn run(mut self) -> io::Result<ExitCode> {
        release_unused();
        loop {
            while let Some(step) = self.tree.next_step() {
                if let Some(status) = self.obey(step) {
                    return Ok(status);
                }
            }
            self.show();
            let ended = self.wait()?;
            self.take_signals();
            self.take_introductions();
            // A death is handled after the last messages of its process, and before the news of a successor.
            for pid in ended {
                self.listen_to(pid);
                self.on_end(pid);
            }
            self.members.pids().into_iter().for_each(|pid| self.listen_to(pid));
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

    /// Waits for a signal, a message, the end of a process, or the time of the tree. Returns the processes
    /// that have ended.
    fn wait(&self) -> io::Result<Vec<Pid>> {
        let (pids, pidfds): (Vec<Pid>, Vec<BorrowedFd<'_>>) = self.members.pidfds().unzip();
        let channels = self.members.watched.values().filter_map(|member| member.channel.as_ref());
        let others = [self.signals.as_fd(), self.common.introductions[1].as_fd()];
        let all = pidfds.into_iter().chain(others).chain(channels.map(AsFd::as_fd));
        let mut polled: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
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
        let ended = pids.into_iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ended.map(|(pid, _)| pid).collect())
    }

    fn obey(&mut self, step: TreeStep) -> Option<ExitCode> {
        match step {
            TreeStep::Start(purpose) => self.start(purpose),
            TreeStep::Kill(pid) => self.members.kill(pid),
            TreeStep::Send(pid, word) => self.members.send(pid, &Downward::Word(word), None),
            TreeStep::TookOver { pid, after, reason, took } => {
                let after = after.map_or_else(|| "none".to_owned(), |after| after.to_string());
                let took = took.as_millis();
                tracing::info!("process {pid} serves after {after} ({}): {took} ms", reason.label());
                self.common.facts.view.takeovers[reason as usize] += 1;
                if matches!(reason, Takeover::Crash | Takeover::Hang) {
                    self.common.facts.view.crashed_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
                }
            }
            TreeStep::Delayed { problem, delay } => {
                tracing::warn!("standby failed: {problem}; trying again in {}", humantime::format_duration(delay));
            }
            TreeStep::Waits(kind) => {
                tracing::info!("{} waits for the last responses of the process before", kind.label());
            }
            TreeStep::Changed(kind, result) => {
                if let Err(reason) = &result {
                    tracing::warn!("{} refused: {reason}", kind.label());
                }
                if let Some(asker) = self.asker.take() {
                    self.members.send(asker, &Downward::Changed(result), None);
                }
            }
            TreeStep::Proven => {
                let UpgradeTrial { image, edition, known, given_up } = std::mem::take(&mut self.upgrade);
                self.upgrade.image = image;
                if let Some(given_up) = given_up {
                    self.common.take_given_up(given_up);
                }
                // The standbys of the old program keep their config until they end.
                if let Some((edition, text)) = edition {
                    self.common.facts.rules = edition.rules;
                    self.tree.set_rules(edition.rules, Instant::now());
                    self.common.edition = Some((edition, text));
                }
                self.common.known = known.or_else(|| self.common.known.take());
            }
            TreeStep::RolledBack(reason) => {
                self.upgrade = UpgradeTrial::default();
                tracing::warn!("upgrade rolled back: {reason}");
            }
            TreeStep::ExecInPlace => {
                let image = self.upgrade.image.take();
                let error = self.common.become_supervisor(image.as_ref().unwrap_or(&self.image), false);
                tracing::error!(%error, "the supervisor keeps running the previous program");
                self.image = image.or_else(|| Image::running().ok())?;
            }
            TreeStep::Exit(status) => {
                self.members.kill_all();
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
        let to_give_up = self.common.to_give_up_of(purpose);
        let pid = match purpose {
            // The first server needs all rights to bind and to read. No other process has written data yet.
            Purpose::First => self.common.spawn(&self.image, part, None, None)?,
            Purpose::Stand => {
                let image = self.upgrade.image.as_ref().filter(|_| self.tree.is_replacing()).unwrap_or(&self.image);
                self.common.spawn(image, part, None, to_give_up.as_ref())?
            }
            Purpose::Newcomer(kind) => {
                let (ours, theirs) = Channel::pair()?;
                let image = match kind {
                    ChangeKind::Restart => &self.image,
                    ChangeKind::Upgrade => {
                        self.upgrade.image.insert(Image::of_upgrade(&self.common.facts.origin.path)?)
                    }
                };
                let pid = self.common.spawn(image, part, Some(theirs.as_fd()), to_give_up.as_ref())?;
                if let Some(server) = self.tree.server() {
                    self.members.send(server, &Downward::Successor, Some(ours.as_fd()));
                }
                pid
            }
        };
        self.members.watch(pid)?.is_loading = purpose != Purpose::Stand;
        Ok(pid)
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|signal| Signal::try_from(signal).ok()) {
                Some(Signal::SIGHUP) => match self.tree.server() {
                    Some(server) => self.members.send(server, &Downward::Reload, None),
                    None => tracing::warn!("SIGHUP: no process serves yet, so there is nothing to reload"),
                },
                Some(Signal::SIGUSR2) => {
                    self.is_cold = false;
                    self.ask(ChangeKind::Upgrade, None);
                }
                Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) if self.tree.is_ending() => {
                    tracing::warn!("{} again: ending at once", signal.as_str());
                    self.members.kill_all();
                    std::process::exit(1);
                }
                Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                    tracing::info!("{}: all processes end; a second signal ends them at once", signal.as_str());
                    self.end();
                }
                Some(_) | None => {}
            }
        }
        self.members.reap();
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
                    self.members.send(asker, &Downward::Conflict(reason), None);
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

    fn introduce(&mut self, introduction: Introduction, channel: Channel) {
        let Introduction { mut version, state, .. } = introduction;
        shorten(&mut version, MAX_VERSION);
        // Channels that this process made before it became the supervisor are no introductions.
        let Some(maker) = channel.maker().filter(|maker| maker.pid != id()) else { return };
        let pid = maker.pid;
        // A process that has just ended may no longer be a child.
        if !self.members.ends.contains_key(&pid) && !self.common.is_maker_ours(&maker) {
            return;
        }
        let is_new = !self.members.watched.contains_key(&pid);
        if is_new && (self.members.watched.len() >= MAX_MEMBERS || self.members.watch(pid).is_err()) {
            return;
        }
        let Some(member) = self.members.watched.get_mut(&pid) else { return };
        (member.channel, member.shown.version) = (Some(channel), version);
        let role = self.take_state(pid, state);
        self.tree.introduced(pid, role, Instant::now());
        self.take_given_up(pid, role);
        // A server knows the current state better and sends it.
        if role != Role::Server {
            self.pass_sockets(pid);
            if let Some((edition, text)) = &self.common.edition {
                self.members.send(pid, &Downward::Edition(edition.clone()), Some(text.as_fd()));
            }
            if let Some(known) = &self.common.known {
                self.members.send(pid, &Downward::Known, Some(known.as_fd()));
            }
            if let Some(latency) = &self.common.latency {
                self.members.send(pid, &Downward::Latency, Some(latency.as_fd()));
            }
        }
    }

    fn take_state(&mut self, pid: Pid, mut state: State) -> Role {
        state.shorten();
        let role = state.role.unwrap_or(Role::Starting);
        if let Some(member) = self.members.watched.get_mut(&pid) {
            member.is_server = role == Role::Server;
            (member.shown.edition, member.shown.problem) = (state.edition, state.problem);
        }
        self.is_view_due = true;
        role
    }

    fn take_given_up(&mut self, pid: Pid, role: Role) {
        let Some(member) = self.members.watched.get_mut(&pid).filter(|_| role == Role::Server) else { return };
        member.is_loading = false;
        let Some(given_up) = member.given_up.take() else { return };
        match self.tree.is_on_probation() {
            true => self.upgrade.given_up = Some(given_up),
            false => self.common.take_given_up(given_up),
        }
    }

    fn pass_sockets(&mut self, pid: Pid) {
        let sockets = &self.common.sockets;
        self.members.send_by(pid, |channel| {
            Sockets::send(sockets, |sockets, descriptors| channel.send(&Downward::Sockets(sockets), descriptors))
        });
    }

    fn followers(&self) -> Vec<Pid> {
        let is_follower = |role: Role| matches!(role, Role::Standby | Role::Starting | Role::Failed);
        self.tree.roles().filter(|(_, role)| is_follower(*role)).map(|(pid, _)| pid).collect()
    }

    fn send_followers(&mut self, message: &Downward, descriptor: Option<BorrowedFd<'_>>) {
        self.followers().into_iter().for_each(|pid| self.members.send(pid, message, descriptor));
    }

    fn listen_to(&mut self, pid: Pid) {
        for _ in 0..MAX_TURN {
            let Some(member) = self.members.watched.get_mut(&pid) else { return };
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
                        self.members.kill(pid);
                    }
                    return;
                }
            }
        }
    }

    fn hear(&mut self, pid: Pid, message: Upward, mut descriptors: Vec<OwnedFd>) {
        let now = Instant::now();
        let Some(member) = self.members.watched.get_mut(&pid) else { return };
        match message {
            Upward::Pong => self.tree.heard(pid, now),
            Upward::Says(state) => {
                let took = Duration::from_micros(state.took);
                let role = self.take_state(pid, state);
                if role == Role::Server {
                    self.manager.ready(&format!("process {pid} serves"));
                }
                self.tree.says(pid, role, took, now);
                self.take_given_up(pid, role);
            }
            // Only the first report counts, because later the process reads data of the server.
            Upward::Confined(given_up) if member.is_loading => {
                member.given_up.get_or_insert(given_up);
            }
            Upward::Confined(_) => {}
            Upward::Sockets(sockets) if member.is_server => self.take_sockets(sockets, descriptors),
            // A process that serves no more cannot set the config.
            Upward::Edition(mut edition) if member.is_server && self.tree.server() == Some(pid) => {
                edition.rules = edition.rules.clamped();
                // If the handover were too long for a message, no process could start.
                let is_short = edition.file.as_os_str().len() <= MAX_PATH;
                let Some(text) = descriptors.pop().filter(|_| is_short) else { return };
                match self.tree.is_on_probation() {
                    true => self.upgrade.edition = Some((edition, text)),
                    false => self.take_edition(edition, text),
                }
            }
            Upward::Known if member.is_server => match (descriptors.pop(), self.tree.is_on_probation()) {
                (Some(known), true) => self.upgrade.known = Some(known),
                (Some(known), false) => self.take_known(known),
                (None, _) => {}
            },
            // If the upgrade fails, the latency from before it serves.
            Upward::Latency if member.is_server && !self.tree.is_on_probation() => {
                descriptors.pop().into_iter().for_each(|latency| self.take_latency(latency));
            }
            Upward::Sockets(_) | Upward::Edition(_) | Upward::Known | Upward::Latency => {}
            Upward::ZoneSaved => self.send_followers(&Downward::ZoneSaved, None),
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
        }
    }

    fn take_sockets(&mut self, sockets: Sockets, descriptors: Vec<OwnedFd>) {
        if sockets.add_to(&mut self.coming, descriptors) {
            self.common.sockets = std::mem::take(&mut self.coming);
            if let Err(error) = self.manager.keep(&self.common.sockets) {
                tracing::warn!(%error, "the service manager cannot store the listening sockets");
            }
            self.followers().into_iter().for_each(|pid| self.pass_sockets(pid));
        }
    }

    fn take_edition(&mut self, edition: Edition, text: OwnedFd) {
        if self.common.edition.as_ref().is_some_and(|(known, _)| *known == edition) {
            return;
        }
        self.common.facts.rules = edition.rules;
        self.tree.set_rules(edition.rules, Instant::now());
        self.send_followers(&Downward::Edition(edition.clone()), Some(text.as_fd()));
        self.common.edition = Some((edition, text));
    }

    fn take_latency(&mut self, latency: OwnedFd) {
        self.send_followers(&Downward::Latency, Some(latency.as_fd()));
        self.common.latency = Some(latency);
    }

    fn take_known(&mut self, known: OwnedFd) {
        self.send_followers(&Downward::Known, Some(known.as_fd()));
        self.common.known = Some(known);
    }

    fn on_end(&mut self, pid: Pid) {
        if self.members.watched.remove(&pid).is_none() {
            self.members.awaited.remove(&pid);
            return self.tree.absent(pid, Instant::now());
        }
        let how = self.members.ends.remove(&pid).unwrap_or(ProcessEnd::Unknown);
        match self.tree.is_crash(pid, how) {
            true => tracing::error!("process {pid} ended: {how}"),
            false => tracing::info!("process {pid} ended: {how}"),
        }
        self.is_view_due = true;
        self.tree.ended(pid, how, Instant::now());
    }

    /// Finds a server that holds the lock but has not introduced itself because it hangs.
    fn find_server(&mut self, now: Instant) {
        if let Some(pid) = self.common.serve.holder(LockPart::First)
            && !self.members.watched.contains_key(&pid)
            && self.common.is_ours(pid)
            && self.members.watch(pid).is_ok()
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
        let seen = std::mem::take(&mut self.common.facts.view.processes);
        for (pid, member) in &mut self.members.watched {
            let role = roles.get(pid).copied().unwrap_or(Role::Starting);
            if member.shown.role != role {
                // A previous supervisor knows when the process took on its role.
                let seen = seen.iter().find(|seen| seen.pid == *pid && seen.role == role);
                (member.shown.role, member.shown.since) = (role, seen.map_or(now, |seen| seen.since));
            }
        }
        let view = &mut self.common.facts.view;
        let own = ProcessSnapshot {
            pid: id(),
            role: Role::Supervisor,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            edition: self.common.edition.as_ref().map_or(1, |(edition, _)| edition.number),
            since: view.supervisor.as_ref().map_or(now, |supervisor| supervisor.since),
            problem: None,
        };
        let others = self.members.watched.values().map(|member| member.shown.clone());
        view.processes = std::iter::once(own).chain(others).collect();
        let message = Downward::View(view.clone());
        self.members.pids().into_iter().for_each(|pid| self.members.send(pid, &message, None));
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
