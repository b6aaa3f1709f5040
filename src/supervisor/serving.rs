//! A process that serves: what it tells the supervisor and does for it, and how it ends.

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
use super::message::{Downward, Edition, Part, Sockets, Upward, to_memory};
use super::spawn::Image;
use super::takeover::{Passing, Way, add_counted, unpack};
use super::tree::{ChangeKind, Pid, Rules, Word};
use crate::admin::{ProcessChange, Refused};
use crate::config::SupervisorConfig;
use crate::load::ConfigText;
use crate::metrics::{ProcessesSnapshot, Role, Snapshot};
use crate::net::tcp::MovedConnection;
use crate::server::{Answer, Known, Loss, Rest, Server, ServerEvent};
use crate::signals::SignalRequest;

/// A process that serves.
pub(super) struct Serving {
    pub(super) live: Live,
    pub(super) server: Server,
    pub(super) rules: Rules,
    pub(super) edition: u64,
    /// Who has asked for a restart or an upgrade.
    pub(super) asked: Option<Answer>,
    /// When it drains at the latest, once a signal has told it to end.
    pub(super) ending: Option<Instant>,
    /// Since when no supervisor is heard of: from the beginning, for a standby may have served and introduced itself anew when the last
    /// one had gone already.
    pub(super) orphaned: Option<Instant>,
    /// When the supervisor was last heard of.
    pub(super) heard: Instant,
    pub(super) ticked: Instant,
    /// The way to a newcomer; or to the server before this one, until that has ended.
    pub(super) way: Option<Way>,
    /// What a newcomer is being told.
    pub(super) giving: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

/// How a process that serves ends.
enum End {
    /// All processes end.
    Drain,
    /// A standby takes over.
    HandOver,
    /// A newcomer does.
    PassOn,
}

impl Serving {
    /// Tells the supervisor all that it may not know.
    pub(super) fn tell_all(&self) {
        self.tell_sockets();
        self.tell_edition();
        self.tell_known(&self.server.known());
    }

    fn tell_sockets(&self) {
        let told = self
            .server
            .listeners()
            .to_pass()
            .and_then(|sockets| Sockets::send(&self.live.member.channel, &sockets, Upward::Sockets));
        if let Err(error) = told {
            tracing::warn!(%error, "the supervisor cannot be told what is listened on");
        }
    }

    fn tell_edition(&self) {
        let Some(ConfigText { file, octets }) = self.server.source() else { return };
        let edition = Edition { number: self.edition, file: file.clone(), rules: self.rules };
        match to_memory(octets) {
            Ok(text) => self.live.member.tell(&Upward::Edition(edition), Some(&text)),
            Err(error) => tracing::warn!(%error, "the supervisor cannot be told the config"),
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
                        tracing::warn!(%error, "the newcomer could not be told what is known");
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
                        // The next one has its own time to say something.
                        self.heard = Instant::now();
                        self.orphaned.get_or_insert(self.heard);
                        self.live.introduce()?;
                        self.tell_all();
                    }
                },
                Some(had) = self.live.had.recv() => if let Had::Supervise(Ok(())) = had {
                    // It waited as a standby. Others have it in a moment; if there are none, `tick` sees to it.
                    self.live.member.common.supervise.release(locks::Part::Whole)?;
                },
                asked = self.live.signals.next() => match asked {
                    Ok(SignalRequest::Reload) => self.server.reload(None),
                    Ok(SignalRequest::Upgrade) => {
                        tracing::warn!("SIGUSR2: upgrade refused: ask the supervisor");
                    }
                    Ok(SignalRequest::End(name)) => {
                        tracing::info!("{name}: another process takes over; a second signal ends at once");
                        self.live.member.tell(&Upward::Leaving, None);
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
            ServerEvent::Known(known) => self.tell_known(&known),
            ServerEvent::ZoneSaved => self.live.member.tell(&Upward::ZoneSaved, None),
            ServerEvent::Reloading => self.live.member.tell(&Upward::Reloading, None),
            ServerEvent::Reloaded { edition, error } => {
                if error.is_none() {
                    self.edition = edition;
                    self.rules = rules_of(self.server.supervisor());
                    self.live.member.state.edition = edition;
                    self.live.member.say(Role::Server, None);
                    self.tell_sockets();
                    self.tell_edition();
                }
                let is_restart_due = error.is_none() && self.server.is_restart_due();
                let result =
                    error.map_or_else(|| format!("edition {edition}"), |error| format!("reload failed: {error}"));
                self.live.member.tell(&Upward::Reloaded(result), None);
                if is_restart_due {
                    // Nobody waits for it; if it is refused, the log says so.
                    self.ask(ChangeKind::Restart, false, oneshot::channel().0);
                }
            }
            ServerEvent::Asked(ProcessChange::Stop, answer) => {
                let _ = answer.send(Ok(self.server.stopping()));
                self.live.member.tell(&Upward::Ask { kind: None, is_cold: false }, None);
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

    fn tell_known(&self, known: &Known) {
        match serde_json::to_vec(known).map_err(io::Error::from).and_then(|known| to_memory(&known)) {
            Ok(known) => self.live.member.tell(&Upward::Known, Some(&known)),
            Err(error) => tracing::warn!(%error, "the supervisor cannot be told of the backends"),
        }
    }

    fn ask(&mut self, kind: ChangeKind, is_cold: bool, answer: Answer) {
        if self.asked.is_some() {
            let _ = answer.send(Err(Refused::Conflict("a restart or an upgrade is under way".to_owned())));
            return;
        }
        self.asked = Some(answer);
        self.live.member.tell(&Upward::Ask { kind: Some(kind), is_cold }, None);
    }

    /// Takes what the supervisor says; returns how to end, if that is it.
    fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) -> Option<End> {
        match message {
            Downward::Word(Word::Ping) => {
                // A worker that hangs keeps its clients waiting as much as a process that does.
                if self.server.makes_progress() {
                    self.live.member.tell(&Upward::Pong, None);
                }
            }
            Downward::Word(Word::Drain) => return Some(End::Drain),
            Downward::Word(Word::HandOver) => return Some(End::HandOver),
            // Sent before it was known that this serves: the place is not to be given up for that.
            Downward::Word(Word::End) => {}
            Downward::View(view) => self.see(view),
            Downward::Reload => self.server.reload(None),
            Downward::Successor => {
                self.way = descriptors.pop().and_then(|way| Way::new(way).ok());
            }
            Downward::Changed(result) => self.answer(result.map_err(Refused::Invalid)),
            Downward::Conflict(reason) => self.answer(Err(Refused::Conflict(reason))),
            // It is the server that tells these.
            Downward::Sockets(_) | Downward::Edition(_) | Downward::Known | Downward::ZoneSaved => {}
        }
        None
    }

    /// Takes what the newcomer says, or the server before; returns how to end, if that is it.
    fn take_passing(&mut self, passing: Option<(Passing, Option<OwnedFd>)>) -> Option<End> {
        let Some((passing, descriptor)) = passing else {
            self.way = None;
            // It has died before it could tell: nobody waits for its numbers any more.
            self.server.add_counted(&Snapshot::default());
            return None;
        };
        match (passing, &self.way) {
            (Passing::Ask { is_cold }, Some(way)) => self.giving = Some(Box::pin(way.give(&self.server, is_cold))),
            (Passing::Now, Some(_)) => return Some(End::PassOn),
            (Passing::Known, _) => match descriptor.as_ref().map(unpack) {
                Some(Ok(known)) => self.server.take_known(&known),
                Some(Err(error)) => tracing::warn!(%error, "by-hand changes of the last moment are lost"),
                None => {}
            },
            (Passing::Counted, _) => add_counted(&mut self.server, descriptor.as_ref()),
            (Passing::Connection { section, input }, _) => {
                if let Some(socket) = descriptor {
                    self.server.adopt(MovedConnection { section, input, socket });
                }
            }
            (Passing::Ask { .. } | Passing::Now, None) => {}
            (Passing::Learnt | Passing::Cache | Passing::Told | Passing::Serves, _) => {}
        }
        None
    }

    fn see(&mut self, view: ProcessesSnapshot) {
        self.server.set_processes(view.clone());
        self.live.member.common.view = view;
    }

    fn answer(&mut self, result: Result<(), Refused>) {
        if let Some(answer) = self.asked.take() {
            let _ = answer.send(result.map(|()| SERVES.to_owned()));
        }
    }

    /// Looks after what nothing tells.
    fn on_tick(&mut self) -> io::Result<Option<End>> {
        let now = Instant::now();
        // A supervisor that was started here is a child.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if self.ending.is_some_and(|ending| now >= ending) {
            return Ok(Some(End::HandOver));
        }
        // Who was stopped itself has heard of nobody.
        if now.duration_since(self.ticked) > TICK * 4 {
            self.heard = now;
        }
        self.ticked = now;
        match self.live.member.common.supervise.holder(locks::Part::Whole) {
            None if self.orphaned.is_some_and(|since| now.duration_since(since) >= ORPHANED) => {
                if !self.live.member.common.succession {
                    tracing::warn!("the supervisor has ended, and nobody is to succeed it: draining");
                    return Ok(Some(End::Drain));
                }
                // Nobody is left who waited for that.
                self.orphaned = Some(now);
                if let Err(error) = self.start_supervisor() {
                    tracing::error!(%error, "no supervisor can be started; again in {} ms", ORPHANED.as_millis());
                }
            }
            Some(supervisor) => self.watch_supervisor(supervisor, now),
            None => {}
        }
        Ok(None)
    }

    /// Kills a supervisor that has said nothing for too long.
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

    /// Starts a supervisor, which knows what this one knows.
    fn start_supervisor(&mut self) -> io::Result<()> {
        let common = &mut self.live.member.common;
        common.sockets = self.server.listeners().to_pass()?;
        common.rules = self.rules;
        let luggage = common.luggage(Part::Supervisor { is_succession: true }, None);
        Image::running()?.spawn(&luggage, None).map(drop)
    }

    /// Ends: finishes what it has.
    async fn end(mut self, end: End) -> io::Result<ExitCode> {
        let mut connections = None;
        let mut counted = None;
        let mut rest = Rest::PassedOn;
        match end {
            // What waits in sockets that a service manager keeps is the next process's.
            End::Drain if self.live.member.common.contact.is_there() => rest = Rest::Kept,
            End::Drain => rest = Rest::Taken,
            End::HandOver => {
                self.give_up().await?;
            }
            End::PassOn => {
                let numbers = self.server.hand_over_counted();
                if let Some(way) = &self.way {
                    // If it has died meanwhile, a standby serves.
                    let _ = way.pass(&Passing::Known, &self.server.known());
                    let _ = way.pass(&Passing::Counted, &numbers);
                }
                counted = Some(numbers);
                self.server.leave_cache();
                self.give_up().await?;
                self.wait_for_newcomer().await;
                connections = Some(self.server.move_connections());
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
                    Some((Downward::Word(Word::Ping), _)) => live.member.tell(&Upward::Pong, None),
                    Some((Downward::Changed(Ok(())), _)) => if let Some(answer) = asked.take() {
                        let _ = answer.send(Ok(SERVES.to_owned()));
                    },
                    Some(_) => {}
                    None => is_open = false,
                },
            }
        };
        if let (Some(way), Some(counted)) = (&way, &counted) {
            let _ = way.pass(&Passing::Counted, &numbers.since(counted));
        }
        // Threads may still run; they end with the process.
        std::process::exit(drained.report(&summary))
    }

    /// Lets another process serve: reads no more, and then gives up the lock.
    async fn give_up(&mut self) -> io::Result<()> {
        self.server.leave_socket();
        self.server.stop_reading().await;
        self.live.member.common.serve.release(locks::Part::Whole)?;
        self.live.member.say(Role::Draining, None);
        Ok(())
    }

    /// Goes on until the newcomer serves, or has died.
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
                    Some((Passing::Serves, _)) => {
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
                    Some((Downward::Changed(result), _)) => self.answer(result.map_err(Refused::Invalid)),
                    Some((Downward::Word(Word::Ping), _)) => self.live.member.tell(&Upward::Pong, None),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
}

/// What is said to whoever has asked for another process.
const SERVES: &str = "another process serves";

/// How long a newcomer that was told to serve is waited for.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(5);

/// The next that the newcomer says, or the server before; never, if there is none.
async fn next_passing(way: Option<&Way>) -> Option<(Passing, Option<OwnedFd>)> {
    match way {
        Some(way) => way.next().await,
        None => std::future::pending().await,
    }
}

/// The next connection that leaves; never, if none does.
async fn next_connection(connections: &mut Option<UnboundedReceiver<MovedConnection>>) -> Option<MovedConnection> {
    match connections {
        Some(connections) => connections.recv().await,
        None => std::future::pending().await,
    }
}

/// What a config says of processes. Whether there is a supervisor at all is settled at the first start.
pub(super) fn rules_of(config: Option<&SupervisorConfig>) -> Rules {
    let rules = config.cloned().unwrap_or_default();
    Rules { standbys: rules.standbys, watchdog: rules.watchdog }
}

/// Ends the process at once, since a part of it is lost: a standby serves.
fn end_with(loss: &Loss) -> ! {
    loss.report();
    std::process::exit(1);
}

/// How often it is looked after what nothing tells.
const TICK: Duration = Duration::from_millis(100);

/// After so long without a supervisor nobody is left who would become one: a standby does so within milliseconds.
const ORPHANED: Duration = Duration::from_millis(500);

/// How long a server that was told to end waits for the supervisor to say how.
const PATIENCE: Duration = Duration::from_secs(6);
