//! A process that serves: its messages to and from the supervisor, and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid as SystemPid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::live::{Had, Live, ended, next_message};
use super::locks;
use super::message::{Downward, Edition, ProcessPart, Sockets, Upward, to_memory};
use super::spawn::Image;
use super::takeover::{TakeoverChannel, TakeoverMessage, add_counted, unpack};
use super::tree::{ChangeKind, Pid, ProcessOrder, TreeRules};
use crate::admin::{ChangeRefusal, ProcessChange};
use crate::config::SupervisorConfig;
use crate::load::ConfigText;
use crate::metrics::{ProcessesSnapshot, Role, Snapshot};
use crate::net::from_clients::tcp::MovedConnection;
use crate::server::{Answer, CarriedPools, Loss, QueuedQueryFate, Server, ServerEvent};
use crate::signals::SignalRequest;

pub(super) struct Serving {
    pub(super) live: Live,
    pub(super) server: Server,
    pub(super) rules: TreeRules,
    pub(super) edition: u64,
    pub(super) asked: Option<Answer>,
    /// The latest time to start draining after a signal to end.
    pub(super) ending: Option<Instant>,
    /// Set from the start, because a standby may have introduced itself only after the last supervisor had
    /// gone.
    pub(super) orphaned: Option<Instant>,
    pub(super) heard: Instant,
    pub(super) ticked: Instant,
    /// The channel to a newcomer, or to the previous server until that ends.
    pub(super) way: Option<TakeoverChannel>,
    pub(super) giving: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

enum ServingEnd {
    Drain,
    HandOver,
    PassOn,
}

impl Serving {
    pub(super) fn send_all(&self) {
        self.send_sockets();
        self.send_edition();
        self.send_known(&self.server.known());
    }

    fn send_sockets(&self) {
        let sent = self
            .server
            .process
            .listeners()
            .to_pass()
            .and_then(|sockets| Sockets::send(&self.live.member.channel, &sockets, Upward::Sockets));
        if let Err(error) = sent {
            tracing::warn!(%error, "the listening sockets cannot be sent to the supervisor");
        }
    }

    fn send_edition(&self) {
        let Some(ConfigText { file, octets }) = &self.server.process.source else { return };
        let edition = Edition { number: self.edition, file: file.clone(), rules: self.rules };
        match to_memory(octets) {
            Ok(text) => self.live.member.send(&Upward::Edition(edition), Some(&text)),
            Err(error) => tracing::warn!(%error, "the config cannot be sent to the supervisor"),
        }
    }

    pub(super) async fn run(mut self) -> io::Result<ExitCode> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                event = self.server.supervise() => self.on_event(event),
                passing = next_passing(self.way.as_ref()) => if let Some(end) = self.take_passing(passing) {
                    break end;
                },
                given = ended(&mut self.giving) => {
                    self.giving = None;
                    if let Err(error) = given {
                        tracing::warn!(%error, "the state of the backends cannot be sent to the new process");
                        self.way = None;
                    }
                }
                message = next_message(&self.live.member, &self.live.watched) => match message {
                    Some((message, descriptors)) => {
                        (self.orphaned, self.heard) = (None, Instant::now());
                        if let Some(end) = self.hear(message, descriptors) {
                            break end;
                        }
                    }
                    None => {
                        // A new supervisor gets the full watchdog time.
                        self.heard = Instant::now();
                        self.orphaned.get_or_insert(self.heard);
                        self.live.introduce()?;
                        self.send_all();
                    }
                },
                Some(had) = self.live.had.recv() => if let Had::Supervise(Ok(())) = had {
                    // This process waited for the lock as a standby. If no standby takes it, `tick` starts a
                    // supervisor.
                    self.live.member.common.supervise.release(locks::LockPart::Whole)?;
                },
                asked = self.live.signals.next() => match asked {
                    Ok(SignalRequest::Reload) => self.server.reload(None),
                    Ok(SignalRequest::Upgrade) => {
                        tracing::warn!("SIGUSR2: upgrade refused: ask the supervisor");
                    }
                    Ok(SignalRequest::End(name)) => {
                        tracing::info!("{name}: another process takes over; a second signal ends the process at once");
                        self.live.member.send(&Upward::Leaving, None);
                        self.ending = Some(Instant::now() + PATIENCE);
                    }
                    Err(lost) => end_with(&Loss { worker: None, lost }),
                },
                _ = tick.tick() => if let Some(end) = self.on_tick()? {
                    break end;
                },
            }
        };
        self.end(end).await
    }

    fn on_event(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Lost(loss) => end_with(&loss),
            ServerEvent::Known(known) => self.send_known(&known),
            ServerEvent::ZoneSaved => self.live.member.send(&Upward::ZoneSaved, None),
            ServerEvent::Reloading => self.live.member.send(&Upward::Reloading, None),
            ServerEvent::Reloaded { edition, error } => {
                if error.is_none() {
                    self.edition = edition;
                    self.rules = rules_of(self.server.process.supervisor());
                    self.live.member.state.edition = edition;
                    self.live.member.say(Role::Server, None);
                    self.send_sockets();
                    self.send_edition();
                }
                let is_restart_due = error.is_none() && self.server.process.is_restart_due;
                let result =
                    error.map_or_else(|| format!("edition {edition}"), |error| format!("reload failed: {error}"));
                self.live.member.send(&Upward::Reloaded(result), None);
                if is_restart_due {
                    // The reply is ignored; a refusal is logged.
                    self.ask(ChangeKind::Restart, false, oneshot::channel().0);
                }
            }
            ServerEvent::Asked(ProcessChange::Stop, answer) => {
                let _ = answer.send(Ok(self.server.process.stopping()));
                self.live.member.send(&Upward::Ask { kind: None, is_cold: false }, None);
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

    fn send_known(&self, known: &CarriedPools) {
        match serde_json::to_vec(known).map_err(io::Error::from).and_then(|known| to_memory(&known)) {
            Ok(known) => self.live.member.send(&Upward::Known, Some(&known)),
            Err(error) => tracing::warn!(%error, "the state of the backends cannot be sent to the supervisor"),
        }
    }

    fn ask(&mut self, kind: ChangeKind, is_cold: bool, answer: Answer) {
        if self.asked.is_some() {
            let _ = answer.send(Err(ChangeRefusal::Conflict("a restart or an upgrade is under way".to_owned())));
            return;
        }
        self.asked = Some(answer);
        self.live.member.send(&Upward::Ask { kind: Some(kind), is_cold }, None);
    }

    /// Returns the kind of end if the server must stop.
    fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) -> Option<ServingEnd> {
        match message {
            Downward::Word(ProcessOrder::Ping) => {
                // A hung worker delays its clients as much as a hung process.
                if self.server.makes_progress() {
                    self.live.member.send(&Upward::Pong, None);
                }
            }
            Downward::Word(ProcessOrder::Drain) => return Some(ServingEnd::Drain),
            Downward::Word(ProcessOrder::HandOver) => return Some(ServingEnd::HandOver),
            // The supervisor sent this before it learned that this process serves.
            Downward::Word(ProcessOrder::End) => {}
            Downward::View(view) => self.see(view),
            Downward::Reload => self.server.reload(None),
            Downward::Successor => {
                self.way = descriptors.pop().and_then(|way| TakeoverChannel::new(way).ok());
            }
            Downward::Changed(result) => self.answer(result.map_err(ChangeRefusal::Invalid)),
            Downward::Conflict(reason) => self.answer(Err(ChangeRefusal::Conflict(reason))),
            // Only the server sends these.
            Downward::Sockets(_) | Downward::Edition(_) | Downward::Known | Downward::ZoneSaved => {}
        }
        None
    }

    /// Returns the kind of end if the server must stop.
    fn take_passing(&mut self, passing: Option<(TakeoverMessage, Option<OwnedFd>)>) -> Option<ServingEnd> {
        let Some((passing, descriptor)) = passing else {
            self.way = None;
            // The previous server died before it sent its counters, so no scrape needs to wait for them.
            self.server.add_counted(&Snapshot::default());
            return None;
        };
        match (passing, &self.way) {
            (TakeoverMessage::Ask { is_cold }, Some(way)) => {
                self.giving = Some(Box::pin(way.give(&self.server, is_cold)))
            }
            (TakeoverMessage::Now, Some(_)) => return Some(ServingEnd::PassOn),
            (TakeoverMessage::Known, _) => match descriptor.as_ref().map(unpack) {
                Some(Ok(known)) => self.server.pools.take_known(&known),
                Some(Err(error)) => tracing::warn!(%error, "the latest changes by hand are lost"),
                None => {}
            },
            (TakeoverMessage::Counted, _) => add_counted(&mut self.server, descriptor.as_ref()),
            (TakeoverMessage::Connection { section, input }, _) => {
                if let Some(socket) = descriptor {
                    self.server.process.adopt(MovedConnection { section, input, socket });
                }
            }
            (TakeoverMessage::Ask { .. } | TakeoverMessage::Now, None) => {}
            (
                TakeoverMessage::Learnt | TakeoverMessage::Cache | TakeoverMessage::Complete | TakeoverMessage::Serves,
                _,
            ) => {}
        }
        None
    }

    fn see(&mut self, view: ProcessesSnapshot) {
        self.server.process.set_list(view.clone());
        self.live.member.common.view = view;
    }

    fn answer(&mut self, result: Result<(), ChangeRefusal>) {
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
        match self.live.member.common.supervise.holder(locks::LockPart::Whole) {
            None if self.orphaned.is_some_and(|since| now.duration_since(since) >= ORPHANED) => {
                if !self.live.member.common.succession {
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
        if let Some(watchdog) = self.rules.watchdog
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
        let common = &mut self.live.member.common;
        common.sockets = self.server.process.listeners().to_pass()?;
        common.rules = self.rules;
        let luggage = common.luggage(ProcessPart::Supervisor { is_succession: true }, None);
        Image::running()?.spawn(&luggage, None).map(drop)
    }

    async fn end(mut self, end: ServingEnd) -> io::Result<ExitCode> {
        let mut connections = None;
        let mut counted = None;
        let mut rest = QueuedQueryFate::PassedOn;
        match end {
            // Datagrams in sockets that a service manager keeps belong to the next process.
            ServingEnd::Drain if self.live.member.common.contact.is_there() => rest = QueuedQueryFate::Kept,
            ServingEnd::Drain => rest = QueuedQueryFate::Taken,
            ServingEnd::HandOver => {
                self.give_up().await?;
            }
            ServingEnd::PassOn => {
                let numbers = self.server.hand_over_counted();
                if let Some(way) = &self.way {
                    // If the newcomer has died, a standby serves.
                    let _ = way.pass(&TakeoverMessage::Known, &self.server.known());
                    let _ = way.pass(&TakeoverMessage::Counted, &numbers);
                }
                counted = Some(numbers);
                self.server.pools.leave_cache();
                self.give_up().await?;
                self.wait_for_newcomer().await;
                connections = Some(self.server.process.move_connections());
            }
        }
        let Self { live, server, mut asked, way, .. } = self;
        let drained = server.drain(rest);
        tokio::pin!(drained);
        let mut is_open = true;
        let (drained, summary, numbers) = loop {
            tokio::select! {
                drained = &mut drained => break drained,
                Some(moved) = next_connection(&mut connections) => if let Some(way) = &way {
                    let _ = way.pass_connection(moved);
                },
                message = next_message(&live.member, &live.watched), if is_open => match message {
                    Some((Downward::Word(ProcessOrder::Ping), _)) => live.member.send(&Upward::Pong, None),
                    Some((Downward::Changed(Ok(())), _)) => if let Some(answer) = asked.take() {
                        let _ = answer.send(Ok(SERVES.to_owned()));
                    },
                    Some(_) => {}
                    None => is_open = false,
                },
            }
        };
        if let (Some(way), Some(counted)) = (&way, &counted) {
            let _ = way.pass(&TakeoverMessage::Counted, &numbers.since(counted));
        }
        // Threads that still run end with the process.
        std::process::exit(drained.report(&summary))
    }

    async fn give_up(&mut self) -> io::Result<()> {
        self.server.process.listeners().leave_socket();
        self.server.stop_reading().await;
        self.live.member.common.serve.release(locks::LockPart::Whole)?;
        self.live.member.say(Role::Draining, None);
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
                passing = next_passing(self.way.as_ref()) => match passing {
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
                message = next_message(&self.live.member, &self.live.watched) => match message {
                    Some((Downward::Changed(result), _)) => self.answer(result.map_err(ChangeRefusal::Invalid)),
                    Some((Downward::Word(ProcessOrder::Ping), _)) => self.live.member.send(&Upward::Pong, None),
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
async fn next_passing(way: Option<&TakeoverChannel>) -> Option<(TakeoverMessage, Option<OwnedFd>)> {
    match way {
        Some(way) => way.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for ever if no connection is left to hand over.
async fn next_connection(connections: &mut Option<UnboundedReceiver<MovedConnection>>) -> Option<MovedConnection> {
    match connections {
        Some(connections) => connections.recv().await,
        None => std::future::pending().await,
    }
}

/// The first start decides if there is a supervisor at all.
pub(super) fn rules_of(config: Option<&SupervisorConfig>) -> TreeRules {
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
