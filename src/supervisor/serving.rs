//! A process that serves: its messages to and from the supervisor, and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::SupervisorConfig;
use metrics::{Role, Snapshot};
use net::tasks::LostTask;
use rustix::process::{Pid as SystemPid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::channel::{Channel, WatchedChannel};
use super::locks::LockPart;
use super::message::{Downward, Edition, ProcessPart, Sockets, Upward, pack, to_memory, unpack};
use super::prepare::PreparedProcess;
use super::process::{MemberProcess, duplicates, ended};
use super::spawn::Image;
use super::takeover::{TakeoverMessage, add_counted, give, give_connections, give_counted, pass, take_connection};
use super::tree::{ChangeKind, Pid, ProcessOrder, TreeRules};
use crate::admin::{ChangeRefusal, ProcessChange};
use crate::control::{Answer, CarriedPools, CarriedState, Listeners, Loss, Read, Server, ServerEvent, StartError};
use crate::load::ConfigText;
use crate::signals::{SignalRequest, Signals};
use crate::worker::QueuedQueryFate;

pub(super) struct Serving {
    member: MemberProcess,
    signals: Signals,
    server: Server,
    /// The request for a restart or an upgrade that is not answered yet.
    asked: Option<Answer>,
    /// True if the supervisor that was asked has ended, and its successor knows of no request.
    is_forgotten: bool,
    /// The latest time to start draining after a signal to end.
    ending: Option<Instant>,
    /// Set from the start, because a standby may have introduced itself only after the last supervisor had
    /// gone.
    orphaned: Option<Instant>,
    heard: Instant,
    ticked: Instant,
    /// The channel to a newcomer, or to the previous server until that ends.
    way: Option<Arc<WatchedChannel>>,
    giving: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

enum ServingEnd {
    Drain,
    HandOver,
    PassOn,
}

impl Serving {
    /// Starts a server. `way` is the channel of a newcomer to the previous server.
    pub(super) async fn start(
        mut member: MemberProcess,
        signals: Signals,
        prepared: PreparedProcess,
        carried: CarriedState,
        way: Option<Arc<WatchedChannel>>,
    ) -> io::Result<Self> {
        let unable = |error: StartError| io::Error::other(error.to_string());
        let PreparedProcess { setup, saved, listeners, interfaces, confinement, edition } = prepared;
        let carried = CarriedState { saved, edition: Some(edition), ..carried };
        let listeners = match listeners {
            Some(mut listeners) => {
                listeners.fill();
                listeners
            }
            None => Listeners::open(&setup.config, duplicates(&member.common.sockets)?).map_err(unable)?.0,
        };
        member.common.facts.rules = rules_of(setup.config.supervisor.as_ref());
        member.state.edition = edition;
        // Clients come first; a config that became active during loading is read afterwards.
        let newer = member.common.newer_than(edition).filter(|_| member.part == ProcessPart::Standby);
        let newer = newer.map(|(newer, text)| newer.config(text)).transpose()?;
        let has_newer = newer.is_some();
        let (mut first, mut reader) = (newer, std::mem::take(&mut member.reader));
        let read: Read = Box::new(move |confinement| reader.read(first.take(), confinement));
        let mut server = Server::start(setup, listeners, interfaces, confinement, carried, read).map_err(unable)?;
        if member.part == ProcessPart::First {
            server.pools.ask_sources().await;
            tracing::info!("ready {}", server.process.bound());
        }
        if has_newer {
            server.reload(None);
        }
        let now = Instant::now();
        let (orphaned, heard, ticked) = (Some(now), now, now);
        Ok(Self {
            member,
            signals,
            server,
            asked: None,
            is_forgotten: false,
            ending: None,
            orphaned,
            heard,
            ticked,
            way,
            giving: None,
        })
    }

    /// Reports that this process serves. `since` is the time of the lock.
    pub(super) fn announce(&mut self, since: Instant) {
        self.member.state.took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.member.say(Role::Server, None);
        self.send_all();
        if let Some(way) = &self.way {
            let _ = way.send(&TakeoverMessage::Serves, &[]);
        }
    }

    fn send_all(&self) {
        self.send_config();
        self.send_known(&self.server.known());
    }

    /// Sends the listening sockets and the text of the config.
    fn send_config(&self) {
        let sent = self.server.process.listeners().to_pass().and_then(|sockets| {
            let channel = &self.member.channel;
            Sockets::send(&sockets, |sockets, descriptors| channel.send(&Upward::Sockets(sockets), descriptors))
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "the listening sockets cannot be sent to the supervisor");
        }
        let Some(ConfigText { file, octets }) = &self.server.process.source else { return };
        let (number, rules) = (self.member.state.edition, self.member.common.facts.rules);
        match to_memory(octets) {
            Ok(text) => {
                self.member.send(&Upward::Edition(Edition { number, file: file.clone(), rules }), Some(&text));
            }
            Err(error) => tracing::warn!(%error, "the config cannot be sent to the supervisor"),
        }
    }

    fn send_known(&self, known: &CarriedPools) {
        match pack(known) {
            Ok(known) => self.member.send(&Upward::Known, Some(&known)),
            Err(error) => tracing::warn!(%error, "the state of the backends cannot be sent to the supervisor"),
        }
    }

    fn send_latency(&self, saved: &[u8]) {
        match to_memory(saved) {
            Ok(saved) => self.member.send(&Upward::Latency, Some(&saved)),
            Err(error) => tracing::warn!(%error, "latency and history cannot be sent to the supervisor"),
        }
    }

    pub(super) async fn run(mut self) -> io::Result<ExitCode> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let end = tokio::select! {
                event = self.server.supervise() => {
                    self.on_event(event);
                    None
                }
                passing = next_passing(self.way.as_deref()) => self.take_passing(passing),
                given = ended(&mut self.giving) => {
                    if let Err(error) = given {
                        tracing::warn!(%error, "the state of the backends cannot be sent to the new process");
                        self.way = None;
                    }
                    None
                }
                message = self.member.channel.next() => {
                    // A new supervisor gets the full watchdog time.
                    self.heard = Instant::now();
                    match message {
                        Some((message, descriptors)) => {
                            self.orphaned = None;
                            self.hear(message, descriptors)
                        }
                        None => {
                            self.orphaned.get_or_insert(self.heard);
                            self.is_forgotten = self.asked.is_some();
                            self.refuse_if_forgotten();
                            self.member.introduce()?;
                            self.send_all();
                            None
                        }
                    }
                }
                had = ended(&mut self.member.supervise) => {
                    // This process waited for the lock as a standby. If no standby takes it, `on_tick` starts
                    // a supervisor.
                    if had.is_ok() {
                        self.member.common.supervise.release(LockPart::Whole)?;
                    }
                    None
                }
                asked = self.signals.next() => {
                    self.on_signal(asked);
                    None
                }
                _ = tick.tick() => self.on_tick()?,
            };
            if let Some(end) = end {
                break end;
            }
        };
        self.end(end).await
    }

    fn on_signal(&mut self, asked: Result<SignalRequest, LostTask>) {
        match asked {
            Ok(SignalRequest::Reload) => self.server.reload(None),
            Ok(SignalRequest::Upgrade) => tracing::warn!("SIGUSR2: upgrade refused: ask the supervisor"),
            Ok(SignalRequest::End(name)) => {
                tracing::info!("{name}: another process takes over; a second signal ends the process at once");
                self.member.send(&Upward::Leaving, None);
                self.ending = Some(Instant::now() + PATIENCE);
            }
            Err(lost) => end_with(&Loss { worker: None, lost }),
        }
    }

    fn on_event(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Lost(loss) => end_with(&loss),
            ServerEvent::Known(known) => self.send_known(&known),
            ServerEvent::Latency(saved) => self.send_latency(&saved),
            ServerEvent::ZoneSaved => self.member.send(&Upward::ZoneSaved, None),
            ServerEvent::Reloading => self.member.send(&Upward::Reloading, None),
            ServerEvent::Reloaded { error: Some(error), .. } => {
                self.member.send(&Upward::Reloaded(format!("reload failed: {error}")), None);
            }
            ServerEvent::Reloaded { edition, error: None } => {
                self.member.common.facts.rules = rules_of(self.server.process.supervisor());
                self.member.state.edition = edition;
                self.member.say(Role::Server, None);
                self.send_config();
                self.member.send(&Upward::Reloaded(format!("edition {edition}")), None);
                if self.server.process.is_restart_due {
                    // The reply is ignored; a refusal is logged.
                    self.ask(ChangeKind::Restart, false, oneshot::channel().0);
                }
            }
            ServerEvent::Asked(ProcessChange::Stop, answer) => {
                let _ = answer.send(Ok(self.server.process.stopping()));
                self.member.send(&Upward::Ask { kind: None, is_cold: false }, None);
                self.ending = Some(Instant::now() + PATIENCE);
            }
            ServerEvent::Asked(ProcessChange::Restart { is_cold }, answer) => {
                self.ask(ChangeKind::Restart, is_cold, answer);
            }
            ServerEvent::Asked(ProcessChange::Upgrade { is_cold }, answer) => {
                self.ask(ChangeKind::Upgrade, is_cold, answer);
            }
        }
    }

    fn ask(&mut self, kind: ChangeKind, is_cold: bool, answer: Answer) {
        if self.asked.is_some() {
            let _ = answer.send(Err(ChangeRefusal::Conflict("a restart or an upgrade is under way".to_owned())));
            return;
        }
        self.asked = Some(answer);
        self.member.send(&Upward::Ask { kind: Some(kind), is_cold }, None);
    }

    /// Returns the kind of end if the server must stop.
    fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) -> Option<ServingEnd> {
        match message {
            Downward::Word(ProcessOrder::Ping) => {
                // A hung worker delays its clients as much as a hung process.
                if self.server.makes_progress() {
                    self.member.send(&Upward::Pong, None);
                }
            }
            Downward::Word(ProcessOrder::Drain) => return Some(ServingEnd::Drain),
            Downward::Word(ProcessOrder::HandOver) => return Some(ServingEnd::HandOver),
            // The supervisor sent this before it learned that this process serves.
            Downward::Word(ProcessOrder::End) => {}
            Downward::View(view) => {
                self.server.process.set_list(view.clone());
                self.member.common.facts.view = view;
            }
            Downward::Reload => self.server.reload(None),
            Downward::Successor => {
                // The process before this one has ended, but perhaps not all that it sent has been read.
                while let Some(passing) = self.way.as_ref().and_then(|former| former.arrived()) {
                    self.take_passing(Some(passing));
                }
                if self.way.is_some() {
                    self.take_passing(None);
                }
                let way = descriptors.pop().and_then(|way| WatchedChannel::new(Channel::from(way)).ok());
                self.way = way.map(Arc::new);
            }
            Downward::Changed(result) => self.answer(result.map_err(ChangeRefusal::Invalid)),
            Downward::Conflict(reason) => self.answer(Err(ChangeRefusal::Conflict(reason))),
            // Only the server sends these.
            Downward::Sockets(_) | Downward::Edition(_) | Downward::Known | Downward::Latency | Downward::ZoneSaved => {
            }
        }
        None
    }

    /// Takes a message of the other process of a takeover. Returns the kind of end if the server must stop.
    fn take_passing(&mut self, passing: Option<(TakeoverMessage, Vec<OwnedFd>)>) -> Option<ServingEnd> {
        let Some((passing, mut descriptors)) = passing else {
            self.way = None;
            self.refuse_if_forgotten();
            // The previous server died before it sent its counters, so no scrape needs to wait for them.
            self.server.add_counted(&Snapshot::default());
            return None;
        };
        let descriptor = descriptors.pop();
        match passing {
            TakeoverMessage::Ask { is_cold } => {
                let way = self.way.as_ref();
                self.giving = way.map(|way| Box::pin(give(way, &self.server, is_cold)) as _);
            }
            TakeoverMessage::Now => return Some(ServingEnd::PassOn),
            TakeoverMessage::Known => match descriptor.as_ref().map(unpack) {
                Some(Ok(known)) => self.server.pools.take_known(&known),
                Some(Err(error)) => tracing::warn!(%error, "the latest changes by hand are lost"),
                None => {}
            },
            TakeoverMessage::Counted => add_counted(&mut self.server, descriptor.as_ref(), descriptors.pop().as_ref()),
            TakeoverMessage::Connection { section } => {
                let taken =
                    descriptor.map(|socket| take_connection(&self.server, section, socket, descriptors.pop().as_ref()));
                if let Some(Err(error)) = taken {
                    tracing::warn!(%error, "a connection of the previous process is lost");
                }
            }
            TakeoverMessage::Learnt | TakeoverMessage::Cache | TakeoverMessage::Complete | TakeoverMessage::Serves => {}
        }
        None
    }

    /// Answers a request that the supervisor will not answer, unless a newcomer can still take over.
    fn refuse_if_forgotten(&mut self) {
        if self.is_forgotten && self.way.is_none() {
            self.answer(Err(ChangeRefusal::Conflict("the supervisor has ended meanwhile: ask again".to_owned())));
        }
    }

    fn answer(&mut self, result: Result<(), ChangeRefusal>) {
        self.is_forgotten = false;
        if let Some(answer) = self.asked.take() {
            let _ = answer.send(result.map(|()| SERVES.to_owned()));
        }
    }

    fn on_tick(&mut self) -> io::Result<Option<ServingEnd>> {
        let now = Instant::now();
        // Reap a supervisor that this process has started.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if self.ending.is_some_and(|ending| now >= ending) {
            return Ok(Some(ServingEnd::HandOver));
        }
        // After this process itself was stopped, silence of the supervisor proves nothing.
        if now.duration_since(self.ticked) > TICK * 4 {
            self.heard = now;
        }
        self.ticked = now;
        match self.member.common.supervise.holder(LockPart::Whole) {
            None if self.orphaned.is_some_and(|since| now.duration_since(since) >= ORPHANED) => {
                if !self.member.common.facts.succession {
                    tracing::warn!("the supervisor has ended and succession is off: draining");
                    return Ok(Some(ServingEnd::Drain));
                }
                // No standby has taken the lock.
                self.orphaned = Some(now);
                if let Err(error) = self.start_supervisor() {
                    tracing::error!(%error, "no supervisor can be started; trying again in {} ms", ORPHANED.as_millis());
                }
            }
            Some(supervisor) => self.watch_supervisor(supervisor, now),
            None => {}
        }
        Ok(None)
    }

    fn watch_supervisor(&mut self, supervisor: Pid, now: Instant) {
        if let Some(watchdog) = self.member.common.facts.rules.watchdog
            && now.duration_since(self.heard) >= watchdog
            && let Some(pid) = i32::try_from(supervisor).ok().and_then(SystemPid::from_raw)
        {
            self.heard = now;
            tracing::warn!("the supervisor made no progress for {} s: killing it", watchdog.as_secs());
            let killed = pidfd_open(pid, PidfdFlags::empty());
            if let Err(error) = killed.and_then(|process| pidfd_send_signal(process, Signal::KILL)) {
                tracing::error!(%error, "the supervisor cannot be killed");
            }
        }
    }

    fn start_supervisor(&mut self) -> io::Result<()> {
        let common = &mut self.member.common;
        common.sockets = self.server.process.listeners().to_pass()?;
        common.spawn(&Image::running()?, ProcessPart::Supervisor { is_succession: true }, None, None).map(drop)
    }

    async fn end(mut self, end: ServingEnd) -> io::Result<ExitCode> {
        let mut connections = unbounded_channel().1;
        let mut counted = None;
        let mut rest = QueuedQueryFate::PassedOn;
        match end {
            // Datagrams in sockets that a service manager keeps belong to the next process.
            ServingEnd::Drain if self.member.common.facts.contact.is_there() => rest = QueuedQueryFate::Kept,
            ServingEnd::Drain => rest = QueuedQueryFate::Taken,
            ServingEnd::HandOver => {
                self.give_up().await?;
            }
            ServingEnd::PassOn => {
                let numbers = self.server.hand_over_counted();
                if let Some(way) = &self.way {
                    // If the newcomer has died, a standby serves.
                    let _ = pass(way, &TakeoverMessage::Known, &self.server.known());
                    let _ = give_counted(way, &numbers, self.server.history().as_ref());
                }
                counted = Some(numbers);
                self.server.pools.leave_files();
                self.give_up().await?;
                self.wait_for_newcomer().await;
                connections = self.server.process.move_connections();
            }
        }
        let Self { member, server, mut asked, way, .. } = self;
        let (ended, has_ended) = oneshot::channel::<()>();
        let drained = async {
            let drained = server.drain(rest).await;
            drop(ended);
            drained
        };
        let moved = async {
            if let Some(way) = &way {
                give_connections(way, connections, has_ended).await;
            }
        };
        // Every connection that fell idle moves, also one that was the last work of the drain.
        let drained = async { tokio::join!(drained, moved).0 };
        tokio::pin!(drained);
        let mut is_open = true;
        let (drained, summary, numbers) = loop {
            tokio::select! {
                drained = &mut drained => break drained,
                message = member.channel.next(), if is_open => match message {
                    Some((Downward::Word(ProcessOrder::Ping), _)) => member.send(&Upward::Pong, None),
                    Some((Downward::Changed(Ok(())), _)) => if let Some(answer) = asked.take() {
                        let _ = answer.send(Ok(SERVES.to_owned()));
                    },
                    Some(_) => {}
                    None => is_open = false,
                },
            }
        };
        if let (Some(way), Some(counted)) = (&way, &counted) {
            let _ = pass(way, &TakeoverMessage::Counted, &numbers.since(counted));
        }
        // Threads that still run end with the process.
        std::process::exit(drained.report(&summary))
    }

    async fn give_up(&mut self) -> io::Result<()> {
        self.server.process.listeners().leave_socket();
        self.server.stop_reading().await;
        self.member.common.serve.release(LockPart::Whole)?;
        self.member.say(Role::Draining, None);
        Ok(())
    }

    async fn wait_for_newcomer(&mut self) {
        let deadline = tokio::time::sleep_until((Instant::now() + NEWCOMER_PATIENCE).into());
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return,
                event = self.server.supervise() => if let ServerEvent::Lost(loss) = event {
                    end_with(&loss);
                },
                passing = next_passing(self.way.as_deref()) => match passing {
                    Some((TakeoverMessage::Serves, _)) => {
                        self.answer(Ok(()));
                        return;
                    }
                    Some(_) => {}
                    None => {
                        self.way = None;
                        return;
                    }
                },
                message = self.member.channel.next() => match message {
                    Some((Downward::Changed(result), _)) => self.answer(result.map_err(ChangeRefusal::Invalid)),
                    Some((Downward::Word(ProcessOrder::Ping), _)) => self.member.send(&Upward::Pong, None),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
}

const SERVES: &str = "another process serves";

/// The time that a newcomer gets to serve after it has been allowed to.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(5);

/// Waits for ever if there is no channel.
async fn next_passing(way: Option<&WatchedChannel>) -> Option<(TakeoverMessage, Vec<OwnedFd>)> {
    match way {
        Some(way) => way.next().await,
        None => std::future::pending().await,
    }
}

/// The first start decides if there is a supervisor at all.
fn rules_of(config: Option<&SupervisorConfig>) -> TreeRules {
    let rules = config.cloned().unwrap_or_default();
    TreeRules { standbys: rules.standbys, watchdog: rules.watchdog }
}

/// Exits at once because a part of the process is lost; a standby takes over.
fn end_with(loss: &Loss) -> ! {
    loss.report();
    std::process::exit(1);
}

const TICK: Duration = Duration::from_millis(100);

/// A standby becomes the supervisor within milliseconds. After this time without one, no standby is left.
const ORPHANED: Duration = Duration::from_millis(500);

/// The time that a server waits for the supervisor's decision after a signal to end.
const PATIENCE: Duration = Duration::from_secs(6);
