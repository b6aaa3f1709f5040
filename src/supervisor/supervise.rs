//! The life of the supervisor: it waits for what happens, tells the tree, and does what the tree says.
//!
//! It is one thread without a runtime, and has no part in any query. All descriptors that it watches are polled at once:
//! signals, the way of introductions, and of each process its channel and a descriptor that becomes readable when it ends (pidfd),
//! for most are no children of a supervisor that has succeeded another.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ExitCode, id};
use std::time::{Instant, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, pidfd_send_signal, wait};

use super::channel::{Channel, Received};
use super::common::Common;
use super::locks::{self, Lock};
use super::member::WatchedProcess;
use super::message::{Downward, Edition, GivenUp, Introduction, MAX_PATH, Origin, Part, Sockets, Upward, shorten};
use super::spawn::{Image, name_process};
use super::tree::{ChangeKind, Ended, Pid, Purpose, Rules, Step, Tree};
use crate::config::Config;
use crate::metrics::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot, Takeover};
use crate::net::listening::ListeningSocket;
use crate::server::raise_descriptor_limit;
use crate::service_manager::{Contact, ServiceManager};

/// The supervisor.
pub(super) struct Supervisor {
    common: Common,
    tree: Tree,
    manager: ServiceManager,
    /// When the manager was last told that all goes on.
    manager_told: Instant,
    signals: SignalFd,
    /// What runs.
    image: Image,
    /// What an upgrade runs.
    new_image: Option<Image>,
    /// What an upgrade on probation has put in force: others get it when it has proven itself.
    trial: Trial,
    members: BTreeMap<Pid, WatchedProcess>,
    /// Sockets that are being told of.
    coming: Vec<ListeningSocket>,
    /// Which server has asked for the change that is under way.
    asker: Option<Pid>,
    /// Whether that is to begin without a cache.
    is_cold: bool,
    /// Whether the others have not seen what there is to see by now.
    is_view_due: bool,
    /// What has ended, and how.
    statuses: HashMap<Pid, Ended>,
}

/// The config that the server of an upgrade has, and what it knows of the backends.
#[derive(Default)]
struct Trial {
    edition: Option<(Edition, OwnedFd)>,
    known: Option<OwnedFd>,
    /// The rights that it has given up.
    given_up: Option<GivenUp>,
}

/// What is ready.
enum Ready {
    Signals,
    Introductions,
    Channel(Pid),
    End(Pid),
}

impl Supervisor {
    /// The first one.
    ///
    /// # Errors
    /// If the system has no memory files, descriptors or locks to give.
    pub(super) fn first(config: &Config, sockets: Vec<ListeningSocket>) -> io::Result<Self> {
        let signals = take_signals()?;
        let to_give_up = GivenUp { user: config.user.clone(), confinement: None, has_xdp: config.xdp.is_some() };
        let config = config.supervisor.clone().unwrap_or_default();
        let (serve, supervise) = (Lock::new("hedgerow-serve")?, Lock::new("hedgerow-supervise")?);
        supervise.take(locks::Part::Whole)?;
        let (told, read) = Channel::pair()?;
        let rules = Rules { standbys: config.standbys, watchdog: config.watchdog };
        let view = ProcessesSnapshot {
            supervisor: Some(SupervisorSnapshot { pid: id(), since: SystemTime::now(), successions: 0 }),
            ..ProcessesSnapshot::default()
        };
        let origin = Origin::of_this_process()?;
        let introductions = [told, read];
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

    /// One that comes after another, of which others are left; `is_succession`: whether that has died.
    ///
    /// # Errors
    /// If another process supervises, or the system has no descriptors to give.
    pub(super) fn succeeding(mut common: Common, is_succession: bool) -> io::Result<Self> {
        let signals = take_signals()?;
        if !common.supervise.try_take(locks::Part::Whole)? {
            return Err(io::Error::other("another process supervises already"));
        }
        let own = id();
        let former = common.view.supervisor.as_ref().map(|supervisor| supervisor.pid);
        let is_other = |process: &&ProcessSnapshot| process.pid != own && Some(process.pid) != former;
        let expected = common.view.processes.iter().filter(is_other).count();
        let server = common.view.processes.iter().find(|process| process.role == Role::Server);
        let server = server.map(|process| process.pid);
        // It goes on to keep what it was told to keep.
        let mut manager = ServiceManager::new(common.contact.clone(), &common.sockets);
        if is_succession {
            manager.succeed();
            common.contact = manager.contact().clone();
            let successions = common.view.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions);
            let supervisor = SupervisorSnapshot { pid: own, since: SystemTime::now(), successions: successions + 1 };
            common.view.supervisor = Some(supervisor);
            match former {
                Some(former) => tracing::info!("supervisor {own} succeeds {former}"),
                None => tracing::info!("supervisor {own}"),
            }
        }
        let tree = Tree::succeeding(common.rules, expected, server, Instant::now());
        Self::new(common, manager, signals, tree)
    }

    fn new(common: Common, manager: ServiceManager, signals: SignalFd, tree: Tree) -> io::Result<Self> {
        name_process(Role::Supervisor);
        // It holds all sockets of the server.
        raise_descriptor_limit();
        Ok(Self {
            common,
            tree,
            manager,
            manager_told: Instant::now(),
            signals,
            image: Image::running()?,
            new_image: None,
            trial: Trial::default(),
            members: BTreeMap::new(),
            coming: Vec::new(),
            asker: None,
            is_cold: false,
            is_view_due: true,
            statuses: HashMap::new(),
        })
    }

    /// Supervises until all has ended; returns the exit status.
    ///
    /// # Errors
    /// If it cannot wait for anything.
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
                }
            }
            let now = Instant::now();
            if now >= self.tree.due() {
                self.find_server(now);
                self.tree.tick(now);
            }
            if let Some(interval) = self.manager.interval()
                && now.duration_since(self.manager_told) >= interval
            {
                self.manager_told = now;
                self.manager.tick(self.tree.is_progress_made(now) || self.tree.is_ending());
            }
        }
    }

    /// Waits until something is ready, or the tree wants to be told the time.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut watched =
            vec![(Ready::Signals, self.signals.as_fd()), (Ready::Introductions, self.common.introductions[1].as_fd())];
        // What a process has said counts before its end.
        for (pid, member) in &self.members {
            watched.extend(member.channel.as_ref().map(|channel| (Ready::Channel(*pid), channel.as_fd())));
        }
        watched.extend(self.members.iter().map(|(pid, member)| (Ready::End(*pid), member.process.as_fd())));
        let mut polled: Vec<_> = watched.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let mut due = self.tree.due();
        if let Some(interval) = self.manager.interval() {
            due = due.min(self.manager_told + interval);
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

    /// Does one step; returns the exit status if it was the last.
    fn obey(&mut self, step: Step) -> Option<ExitCode> {
        match step {
            Step::Start(purpose) => self.start(purpose),
            Step::Kill(pid) => self.kill(pid),
            Step::Tell(pid, word) => self.tell(pid, &Downward::Word(word), None),
            Step::TookOver { pid, after, reason, took } => {
                let after = after.map_or_else(|| "none".to_owned(), |after| after.to_string());
                let took = took.as_millis();
                tracing::info!("process {pid} serves after {after} ({}): {took} ms", reason.label());
                self.common.view.takeovers[reason as usize] += 1;
                if matches!(reason, Takeover::Crash | Takeover::Hang) {
                    self.common.view.crashed_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
                }
            }
            Step::Delayed { problem, delay } => {
                tracing::warn!("standby failed: {problem}; again in {}", humantime::format_duration(delay));
            }
            Step::Changed(kind, result) => {
                if let Err(reason) = &result {
                    tracing::warn!("{} refused: {reason}", kind.label());
                }
                if let Some(asker) = self.asker.take() {
                    self.tell(asker, &Downward::Changed(result), None);
                }
            }
            Step::Proven => {
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
            Step::RolledBack(reason) => {
                self.new_image = None;
                self.trial = Trial::default();
                tracing::warn!("upgrade rolled back: {reason}");
            }
            Step::ExecInPlace => {
                let image = self.new_image.take();
                let error = self.common.become_supervisor(image.as_ref().unwrap_or(&self.image), false);
                tracing::error!(%error, "the supervisor stays the program that it was");
                self.image = image.or_else(|| Image::running().ok())?;
            }
            Step::Exit(status) => {
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
            Purpose::First => Part::First,
            Purpose::Stand => Part::Standby,
            Purpose::Newcomer(kind) => Part::Newcomer { kind, is_cold: self.is_cold },
        };
        let pid = match purpose {
            // No other process has written anything yet, and this one has to bind and to read with the rights of the start.
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
                    self.tell(server, &Downward::Successor, Some(ours.as_fd()));
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

    /// Begins to watch a process.
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

    /// Tells a process something. One that does not listen finds its channel closed, and introduces itself anew.
    fn tell(&mut self, pid: Pid, message: &Downward, descriptor: Option<BorrowedFd<'_>>) {
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
                    Some(server) => self.tell(server, &Downward::Reload, None),
                    None => tracing::warn!("SIGHUP: nobody serves yet, so there is nothing to reload"),
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
        // SIGCHLD, or another one that came with it. As PID 1 others end here too, that were never started here.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let ended = match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => Ended::Status(status),
                (None, Some(signal)) => Ended::Signal(signal),
                (None, None) => continue,
            };
            let pid = pid.as_raw_nonzero().get() as Pid;
            if self.members.contains_key(&pid) {
                self.statuses.insert(pid, ended);
            }
        }
    }

    /// Ends all.
    fn end(&mut self) {
        self.manager.stopping();
        self.tree.end(Instant::now());
    }

    /// Somebody asks for another server: an operator through this server, or a signal.
    fn ask(&mut self, kind: ChangeKind, asker: Option<Pid>) {
        match self.tree.ask(kind, Instant::now()) {
            Ok(()) => self.asker = asker,
            Err(reason) => {
                tracing::warn!("{} refused: {reason}", kind.label());
                if let Some(asker) = asker {
                    self.tell(asker, &Downward::Conflict(reason), None);
                }
            }
        }
    }

    fn take_introductions(&mut self) {
        for _ in 0..MAX_TURN {
            match self.common.introductions[1].receive::<Introduction>() {
                Ok(Received::Message(introduction, mut descriptors)) => {
                    if let Some(channel) = descriptors.pop() {
                        self.introduce(introduction, channel.into());
                    }
                }
                // An empty message looks the same, and its sender could close this way as well.
                Ok(Received::Closed) => return self.common.renew_introductions(),
                Ok(Received::Nothing) => return,
                Err(error) => tracing::warn!(%error, "a process has introduced itself in another protocol"),
            }
        }
    }

    /// Takes the rights that a process has given up, once it serves. From then on its word on that counts no more.
    fn take_given_up(&mut self, pid: Pid, role: Role) {
        let Some(member) = self.members.get_mut(&pid).filter(|_| role == Role::Server) else { return };
        member.is_loading = false;
        let Some(given_up) = member.given_up.take() else { return };
        match self.tree.is_on_probation() {
            true => self.trial.given_up = Some(given_up),
            false => self.common.take_given_up(given_up),
        }
    }

    /// Takes the introduction of a process: the one that made the channel.
    fn introduce(&mut self, introduction: Introduction, channel: Channel) {
        let Introduction { mut version, mut state, .. } = introduction;
        shorten(&mut version, MAX_VERSION);
        state.shorten();
        // The channels that this process has made are no introductions, nor is its own, when it still was another.
        let Some(maker) = channel.maker().filter(|maker| maker.pid != id()) else { return };
        let pid = maker.pid;
        // One that has just ended is no child any more.
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
        // A server knows better, and tells.
        if role != Role::Server {
            self.brief(pid);
        }
    }

    /// Tells a process what it is to know.
    fn brief(&mut self, pid: Pid) {
        self.pass_sockets(pid);
        if let Some((edition, text)) = self.common.edition.take() {
            self.tell(pid, &Downward::Edition(edition.clone()), Some(text.as_fd()));
            self.common.edition = Some((edition, text));
        }
        if let Some(known) = self.common.known.take() {
            self.tell(pid, &Downward::Known, Some(known.as_fd()));
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

    /// Those that are to follow the server.
    fn followers(&self) -> Vec<Pid> {
        let is_follower = |role: Role| matches!(role, Role::Standby | Role::Starting | Role::Failed);
        self.tree.roles().filter(|(_, role)| is_follower(*role)).map(|(pid, _)| pid).collect()
    }

    /// Hears what a process has to say.
    fn listen_to(&mut self, pid: Pid) {
        for _ in 0..MAX_TURN {
            let Some(member) = self.members.get_mut(&pid) else { return };
            let Some(channel) = &member.channel else { return };
            match channel.receive::<Upward>() {
                Ok(Received::Message(message, descriptors)) => self.hear(pid, message, descriptors),
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => {
                    member.channel = None;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "process {pid} speaks another protocol");
                    member.channel = None;
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
                        tracing::warn!(%error, "the service manager does not keep what is listened on");
                    }
                    self.followers().into_iter().for_each(|pid| self.pass_sockets(pid));
                }
            }
            // Its first word counts: later it reads what the server passes to it.
            Upward::Confined(given_up) if member.is_loading => {
                member.given_up.get_or_insert(given_up);
            }
            Upward::Confined(_) => {}
            Upward::Edition(mut edition) => {
                edition.rules = edition.rules.clamped();
                // One that serves no more has put nothing in force.
                let is_server = is_server && self.tree.server() == Some(pid);
                // A handover that is too long for a message would let no process start.
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
                    self.tell(follower, &Downward::Edition(edition.clone()), Some(text.as_fd()));
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
                    self.tell(follower, &Downward::Known, Some(known.as_fd()));
                }
                self.common.known = Some(known);
            }
            Upward::ZoneSaved => {
                for follower in self.followers() {
                    self.tell(follower, &Downward::ZoneSaved, None);
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
            // What still waits in the sockets is refused by the system, so that clients ask elsewhere.
            Upward::Closed => {
                if self.tree.is_ending() {
                    self.common.sockets.clear();
                }
            }
        }
    }

    /// A process has ended.
    fn on_end(&mut self, pid: Pid) {
        // What it has said before, if only just.
        self.take_introductions();
        self.listen_to(pid);
        self.take_signals();
        self.members.remove(&pid);
        let how = self.statuses.remove(&pid).unwrap_or(Ended::Unknown);
        match self.tree.is_crash(pid, how) {
            true => tracing::error!("process {pid} ended: {how}"),
            false => tracing::info!("process {pid} ended: {how}"),
        }
        self.is_view_due = true;
        self.tree.ended(pid, how, Instant::now());
    }

    /// Who has the lock and has not introduced itself, since it hangs, is known by that.
    fn find_server(&mut self, now: Instant) {
        if let Some(pid) = self.common.serve.holder(locks::Part::First)
            && !self.members.contains_key(&pid)
            && self.common.is_ours(pid)
            && self.watch(pid).is_ok()
        {
            self.tree.introduced(pid, Role::Server, now);
        }
    }

    /// Tells all what there is to see, if that has changed.
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
                // A supervisor before this one has seen when it began.
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
        pids.into_iter().for_each(|pid| self.tell(pid, &message, None));
    }
}

/// The most messages of one process that are read before others have their turn: more than a socket holds.
const MAX_TURN: usize = 1024;

/// The most processes of which one more may introduce itself: what all are told of them has to fit into a message.
const MAX_MEMBERS: usize = 24;

/// The length of a version that is kept, octets.
const MAX_VERSION: usize = 64;

/// Has the signals that the supervisor obeys wait until they are read.
fn take_signals() -> io::Result<SignalFd> {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Whether a process does not read what it is told. One that has ended may have said something before, which is still to be heard.
fn is_full(error: &io::Error) -> bool {
    // Reset, if it has not read all that it was told.
    !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
