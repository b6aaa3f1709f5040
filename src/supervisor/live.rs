//! The life of a process after loading: it stands by until it gets a lock, then it serves.
//!
//! ```text
//!   prepared ──▶ standby ──gets the lock to serve──▶ server ──hands over, or all end──▶ drains, ends
//!                   └──gets the lock to supervise──▶ exec: the supervisor
//! ```

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::channel::{Channel, ChannelEvent};
use super::locks;
use super::message::{Downward, ProcessPart, Upward};
use super::prepare::{MemberProcess, PreparedProcess, duplicates, text_of};
use super::serving::{Serving, rules_of};
use super::takeover::{TakeoverChannel, TakeoverMessage, TakeoverState, unpack};
use crate::load::{ConfigReader, ConfigText, Confinement, LoadError, Setup};
use crate::metrics::Role;
use crate::net::tasks::blocking;
use crate::server::{CarriedCache, CarriedState, Listeners, Read, SavedZones, Server};
use crate::signals::{BlockedSignals, SignalRequest, Signals};

pub(super) struct Live {
    pub(super) member: MemberProcess,
    pub(super) watched: UnixDatagram,
    pub(super) signals: Signals,
    pub(super) had: UnboundedReceiver<Had>,
}

pub(super) enum Had {
    Serve(io::Result<()>),
    Supervise(io::Result<()>),
}

type Loading = Pin<Box<dyn Future<Output = LoadedSetup>>>;

struct LoadedSetup {
    reader: ConfigReader,
    newer: Option<(u64, Result<Setup, LoadError>)>,
    saved: SavedZones,
}

impl Live {
    pub(super) async fn run(
        member: MemberProcess,
        prepared: PreparedProcess,
        signals: BlockedSignals,
    ) -> io::Result<ExitCode> {
        let (sender, had) = unbounded_channel();
        let part = member.part;
        if part == ProcessPart::Standby {
            member.common.serve.await_in_thread(locks::LockPart::Whole, sender.clone(), Had::Serve)?;
        }
        member.common.supervise.await_in_thread(locks::LockPart::Whole, sender.clone(), Had::Supervise)?;
        let watched = watch(&member.channel)?;
        let mut live = Self { member, watched, signals: signals.take()?, had };
        match part {
            ProcessPart::First | ProcessPart::Supervisor { .. } => {
                live.member.common.serve.take(locks::LockPart::First)?;
                let carried = CarriedState { edition: Some(prepared.edition), ..CarriedState::default() };
                live.serve(prepared, Instant::now(), carried, None).await
            }
            ProcessPart::Standby => {
                let (prepared, since) = live.stand_by(prepared).await?;
                let known = live.member.common.known.as_ref().map(unpack).transpose()?.unwrap_or_default();
                let carried = CarriedState {
                    known,
                    edition: Some(prepared.edition),
                    takes_over: true,
                    ..CarriedState::default()
                };
                live.serve(prepared, since, carried, None).await
            }
            ProcessPart::Newcomer { is_cold, .. } => match live.take_over(&prepared, is_cold, &sender).await {
                Ok((since, carried, way)) => live.serve(prepared, since, carried, Some(way)).await,
                Err(error) => {
                    live.member.send(&Upward::GaveUp(error.to_string()), None);
                    // Skip cleanup: the files belong to the server.
                    std::process::exit(1)
                }
            },
        }
    }

    async fn stand_by(&mut self, mut prepared: PreparedProcess) -> io::Result<(PreparedProcess, Instant)> {
        let mut loading: Option<Loading> = None;
        self.member.say(Role::Standby, None);
        loop {
            let is_newer = self.edition() > self.member.state.edition;
            if loading.is_none() && (is_newer || self.member.is_zone_saved) {
                loading = Some(self.load(&prepared)?);
            }
            tokio::select! {
                message = next_message(&self.member, &self.watched) => match message {
                    Some((message, descriptors)) => self.member.hear(message, descriptors),
                    None => self.introduce()?,
                },
                Some(had) = self.had.recv() => match had {
                    Had::Serve(had) => {
                        had?;
                        // Takes over from the server. Returns also the time of the lock, and the channel to
                        // the server.
                        self.member.common.serve.release(locks::LockPart::Second)?;
                        return Ok((prepared, Instant::now()));
                    }
                    Had::Supervise(had) => {
                        had?;
                        self.member.succeed();
                    }
                },
                LoadedSetup { reader, newer, saved } = ended(&mut loading) => {
                    loading = None;
                    self.member.reader = reader;
                    prepared.saved = saved;
                    if let Some((edition, setup)) = newer {
                        self.take_edition(edition, setup, &mut prepared);
                    }
                }
                asked = self.signals.next() => match asked {
                    // The supervisor handles these signals.
                    Ok(SignalRequest::Reload | SignalRequest::Upgrade) => {}
                    Ok(SignalRequest::End(_)) => std::process::exit(0),
                    Err(lost) => return Err(io::Error::other(lost.to_string())),
                },
            }
        }
    }

    async fn take_over(
        &mut self,
        prepared: &PreparedProcess,
        is_cold: bool,
        sender: &UnboundedSender<Had>,
    ) -> io::Result<(Instant, CarriedState, TakeoverChannel)> {
        let missing = || io::Error::other("the channel to the server is missing");
        let way = TakeoverChannel::new(self.member.way.take().ok_or_else(missing)?)?;
        let mut carried = CarriedState { edition: Some(prepared.edition), takes_over: true, ..CarriedState::default() };
        if self.member.is_same_protocol {
            let asked = TakeoverState::ask(&way, &prepared.setup.config, is_cold);
            let taken = self.attend(asked).await??;
            carried.known = taken.known;
            carried.learnt = taken.learnt;
            carried.cache = match taken.cache {
                Some(cache) => CarriedCache::Sent(cache),
                None if is_cold => CarriedCache::Cold,
                None => CarriedCache::Persisted,
            };
        }
        let serve = self.member.common.serve.clone();
        let server = serve.holder(locks::LockPart::First);
        serve.await_in_thread(locks::LockPart::Second, sender.clone(), Had::Serve)?;
        self.attend_until_had().await?;
        // A standby gets both bytes at once and already serves.
        if serve.holder(locks::LockPart::First) != server {
            return Err(io::Error::other("the server has ended"));
        }
        let _ = way.send(&TakeoverMessage::Now);
        serve.await_in_thread(locks::LockPart::First, sender.clone(), Had::Serve)?;
        self.attend_until_had().await?;
        let since = Instant::now();
        serve.release(locks::LockPart::Second)?;
        Ok((since, carried, way))
    }

    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                message = next_message(&self.member, &self.watched) => match message {
                    Some((message, descriptors)) => self.member.hear(message, descriptors),
                    None => self.introduce()?,
                },
            }
        }
    }

    async fn attend_until_had(&mut self) -> io::Result<()> {
        loop {
            tokio::select! {
                had = self.had.recv() => match had {
                    Some(Had::Serve(had)) => return had,
                    Some(Had::Supervise(had)) => {
                        had?;
                        self.member.succeed();
                    }
                    None => return Err(io::Error::other("no task waits for the lock any more")),
                },
                message = next_message(&self.member, &self.watched) => match message {
                    Some((message, descriptors)) => self.member.hear(message, descriptors),
                    None => self.introduce()?,
                },
            }
        }
    }

    fn edition(&self) -> u64 {
        self.member.common.edition.as_ref().map_or(0, |(edition, _)| edition.number)
    }

    fn take_edition(&mut self, edition: u64, setup: Result<Setup, LoadError>, prepared: &mut PreparedProcess) {
        self.member.state.edition = edition;
        match setup {
            Ok(setup) => {
                prepared.setup = setup;
                prepared.edition = edition;
                self.member.say(Role::Standby, None);
            }
            Err(problem) => {
                tracing::warn!("standby keeps edition {}: {problem}", prepared.edition);
                self.member.say(Role::Standby, Some(problem.to_string()));
            }
        }
    }

    fn load(&mut self, prepared: &PreparedProcess) -> io::Result<Loading> {
        self.member.is_zone_saved = false;
        let mut reader = std::mem::take(&mut self.member.reader);
        let newer = self.member.common.edition.as_ref().filter(|(newer, _)| newer.number > self.member.state.edition);
        let newer = newer.map(|(newer, text)| Ok::<_, io::Error>((newer.number, text_of(newer, text)?))).transpose()?;
        let mut saved = prepared.saved.clone();
        let known = prepared.setup.config.clone();
        Ok(Box::pin(blocking(move || {
            // The server has already checked that the files of this config are within reach.
            let newer = newer.map(|(edition, text)| (edition, reader.read(Some(text), &Confinement::default())));
            let read = match &newer {
                Some((_, Ok(setup))) => saved.read_all(&setup.config),
                Some((_, Err(_))) | None => saved.read_all(&known),
            };
            tracing::debug!(zones = read, "standby: the saved zones are loaded");
            LoadedSetup { reader, newer, saved }
        })))
    }

    pub(super) fn introduce(&mut self) -> io::Result<()> {
        self.member.introduce()?;
        self.watched = watch(&self.member.channel)?;
        Ok(())
    }

    async fn serve(
        mut self,
        prepared: PreparedProcess,
        since: Instant,
        carried: CarriedState,
        way: Option<TakeoverChannel>,
    ) -> io::Result<ExitCode> {
        let PreparedProcess { setup, saved, listeners, xdp, confinement, edition } = prepared;
        let carried = CarriedState { saved, ..carried };
        let listeners = match listeners {
            Some(mut listeners) => {
                listeners.fill();
                listeners
            }
            None => Listeners::open(&setup.config, duplicates(&self.member.common.sockets)?).map_err(unable)?.0,
        };
        let rules = rules_of(setup.config.supervisor.as_ref());
        // Clients come first; a config that became active during loading is read afterwards.
        let newer = self.member.common.edition.as_ref().filter(|(newer, _)| newer.number > edition);
        let newer = newer.map(|(newer, text)| text_of(newer, text)).transpose()?;
        let has_newer = newer.is_some() && self.member.part == ProcessPart::Standby;
        let read = read_first(newer.filter(|_| has_newer), std::mem::take(&mut self.member.reader));
        let server = Server::start(setup, listeners, xdp, confinement, carried, read).map_err(unable)?;
        let mut serving = Serving {
            live: self,
            server,
            rules,
            edition,
            asked: None,
            ending: None,
            orphaned: Some(Instant::now()),
            heard: Instant::now(),
            ticked: Instant::now(),
            way,
            giving: None,
        };
        if serving.live.member.part == ProcessPart::First {
            serving.server.pools.ask_sources().await;
            tracing::info!("ready {}", serving.server.process.bound());
        }
        serving.live.member.state.took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        serving.live.member.state.edition = edition;
        serving.live.member.say(Role::Server, None);
        serving.send_all();
        if let Some(way) = &serving.way {
            let _ = way.send(&TakeoverMessage::Serves);
        }
        if has_newer {
            serving.server.reload(None);
        }
        serving.run().await
    }
}

pub(super) async fn ended<T>(running: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Returns `None` if the channel has closed. Cancel-safe.
pub(super) async fn next_message(member: &MemberProcess, watched: &UnixDatagram) -> Option<(Downward, Vec<OwnedFd>)> {
    receive(&member.channel, watched).await
}

/// Returns `None` if the channel has closed. Cancel-safe.
pub(super) async fn receive<M: DeserializeOwned>(
    channel: &Channel,
    watched: &UnixDatagram,
) -> Option<(M, Vec<OwnedFd>)> {
    loop {
        watched.readable().await.ok()?;
        let received = watched.try_io(Interest::READABLE, || match channel.receive() {
            Ok(ChannelEvent::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
            received => Ok(received),
        });
        match received {
            Ok(Ok(ChannelEvent::Message(message, descriptors))) => return Some((message, descriptors)),
            Ok(Ok(ChannelEvent::Nothing)) | Err(_) => {}
            Ok(Ok(ChannelEvent::Closed)) => return None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a message of another process cannot be read");
                return None;
            }
        }
    }
}

pub(super) fn watch(channel: &Channel) -> io::Result<UnixDatagram> {
    // The socket keeps messages apart as a datagram socket does. `UnixDatagram` only polls it.
    UnixDatagram::from_std(channel.as_fd().try_clone_to_owned()?.into())
}

/// Returns a reader for reloads: it reads `text` the first time, if given, and then the file on the disk.
fn read_first(text: Option<ConfigText>, mut reader: ConfigReader) -> Read {
    let first = Arc::new(Mutex::new(text));
    Box::new(move |confinement| {
        let text = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        reader.read(text, confinement)
    })
}

fn unable(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
