//! The life of a process that has loaded: it stands by until the lock is its own, then it serves.
//!
//! ```text
//!   prepared ──▶ standby ──has the lock of who serves──▶ server ──hands over, or all end──▶ drains, ends
//!                   └──has that of who supervises──▶ exec: the supervisor
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

use super::channel::{Channel, Received};
use super::locks;
use super::message::{Downward, Part, Upward};
use super::prepare::{Member, Prepared, duplicates, text_of};
use super::serving::{Serving, rules_of};
use super::takeover::{Passing, Told, Way, unpack};
use crate::load::{ConfigText, Confinement, LoadError, Reader, Setup};
use crate::metrics::Role;
use crate::net::tasks::blocking;
use crate::server::{Carried, CarriedCache, Listeners, Read, SavedZones, Server};
use crate::signals::{Blocked, SignalRequest, Signals};

/// A process on its way through its roles.
pub(super) struct Live {
    pub(super) member: Member,
    /// The channel of `member`, as the runtime watches it.
    pub(super) watched: UnixDatagram,
    pub(super) signals: Signals,
    /// Tells which locks are ours.
    pub(super) had: UnboundedReceiver<Had>,
}

/// A lock that was waited for is ours.
pub(super) enum Had {
    Serve(io::Result<()>),
    Supervise(io::Result<()>),
}

/// What a standby reads while it waits.
type Loading = Pin<Box<dyn Future<Output = Loaded>>>;

/// What it has read.
struct Loaded {
    reader: Reader,
    /// Another edition of the config, if there was one, and its number.
    newer: Option<(u64, Result<Setup, LoadError>)>,
    saved: SavedZones,
}

impl Live {
    /// Goes through all of it; returns the exit status.
    ///
    /// # Errors
    /// If the system has no descriptors or threads to give.
    pub(super) async fn run(member: Member, prepared: Prepared, signals: Blocked) -> io::Result<ExitCode> {
        let (sender, had) = unbounded_channel();
        let part = member.part;
        if part == Part::Standby {
            member.common.serve.await_in_thread(locks::Part::Whole, sender.clone(), Had::Serve)?;
        }
        member.common.supervise.await_in_thread(locks::Part::Whole, sender.clone(), Had::Supervise)?;
        let watched = watch(&member.channel)?;
        let mut live = Self { member, watched, signals: signals.take()?, had };
        match part {
            Part::First | Part::Supervisor { .. } => {
                live.member.common.serve.take(locks::Part::First)?;
                let carried = Carried { edition: Some(prepared.edition), ..Carried::default() };
                live.serve(prepared, Instant::now(), carried, None).await
            }
            Part::Standby => {
                let (prepared, since) = live.stand_by(prepared).await?;
                let known = live.member.common.known.as_ref().map(unpack).transpose()?.unwrap_or_default();
                let carried =
                    Carried { known, edition: Some(prepared.edition), takes_over: true, ..Carried::default() };
                live.serve(prepared, since, carried, None).await
            }
            Part::Newcomer { is_cold, .. } => match live.take_over(&prepared, is_cold, &sender).await {
                Ok((since, carried, way)) => live.serve(prepared, since, carried, Some(way)).await,
                Err(error) => {
                    live.member.tell(&Upward::GaveUp(error.to_string()), None);
                    // Nothing is cleared away: it is the server's.
                    std::process::exit(1)
                }
            },
        }
    }

    /// Waits for the lock of who serves, and follows the server meanwhile.
    async fn stand_by(&mut self, mut prepared: Prepared) -> io::Result<(Prepared, Instant)> {
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
                        // For the next newcomer.
                        self.member.common.serve.release(locks::Part::Second)?;
                        return Ok((prepared, Instant::now()));
                    }
                    Had::Supervise(had) => {
                        had?;
                        self.member.succeed();
                    }
                },
                Loaded { reader, newer, saved } = ended(&mut loading) => {
                    loading = None;
                    self.member.reader = reader;
                    prepared.saved = saved;
                    if let Some((edition, setup)) = newer {
                        self.take_edition(edition, setup, &mut prepared);
                    }
                }
                asked = self.signals.next() => match asked {
                    // The supervisor reads the config again, and fills the place of one that ends.
                    Ok(SignalRequest::Reload | SignalRequest::Upgrade) => {}
                    Ok(SignalRequest::End(_)) => std::process::exit(0),
                    Err(lost) => return Err(io::Error::other(lost.to_string())),
                },
            }
        }
    }

    /// Takes over from the server: asks what it knows, has it give up the lock, and takes that. Returns also when that was, and the way to
    /// the server, which still has something to tell.
    async fn take_over(
        &mut self,
        prepared: &Prepared,
        is_cold: bool,
        sender: &UnboundedSender<Had>,
    ) -> io::Result<(Instant, Carried, Way)> {
        let missing = || io::Error::other("there is no way to the server");
        let way = Way::new(self.member.way.take().ok_or_else(missing)?)?;
        let mut carried = Carried { edition: Some(prepared.edition), takes_over: true, ..Carried::default() };
        if self.member.is_same_protocol {
            let asked = Told::ask(&way, &prepared.setup.config, is_cold);
            let told = self.attend(asked).await??;
            carried.known = told.known;
            carried.learnt = told.learnt;
            carried.cache = match told.cache {
                Some(cache) => CarriedCache::Sent(cache),
                None if is_cold => CarriedCache::Cold,
                None => CarriedCache::Persisted,
            };
        }
        let serve = self.member.common.serve.clone();
        let server = serve.holder(locks::Part::First);
        serve.await_in_thread(locks::Part::Second, sender.clone(), Had::Serve)?;
        self.attend_until_had().await?;
        // One that stood by has both at once, and serves by now.
        if serve.holder(locks::Part::First) != server {
            return Err(io::Error::other("the server has ended meanwhile"));
        }
        // If it has ended in this moment, the lock is free.
        let _ = way.tell(&Passing::Now);
        serve.await_in_thread(locks::Part::First, sender.clone(), Had::Serve)?;
        self.attend_until_had().await?;
        let since = Instant::now();
        serve.release(locks::Part::Second)?;
        Ok((since, carried, way))
    }

    /// Attends to the supervisor until something is done.
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

    /// Attends to the supervisor until the lock that was waited for is ours.
    async fn attend_until_had(&mut self) -> io::Result<()> {
        loop {
            tokio::select! {
                had = self.had.recv() => match had {
                    Some(Had::Serve(had)) => return had,
                    Some(Had::Supervise(had)) => {
                        had?;
                        self.member.succeed();
                    }
                    None => return Err(io::Error::other("nobody waits for the lock any more")),
                },
                message = next_message(&self.member, &self.watched) => match message {
                    Some((message, descriptors)) => self.member.hear(message, descriptors),
                    None => self.introduce()?,
                },
            }
        }
    }

    /// The edition that is in force, as far as is known.
    fn edition(&self) -> u64 {
        self.member.common.edition.as_ref().map_or(0, |(edition, _)| edition.number)
    }

    /// Takes an edition that was read, or keeps the one that it has if that failed.
    fn take_edition(&mut self, edition: u64, setup: Result<Setup, LoadError>, prepared: &mut Prepared) {
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

    /// Begins to read the edition in force, if it is another, and what the server has saved.
    fn load(&mut self, prepared: &Prepared) -> io::Result<Loading> {
        self.member.is_zone_saved = false;
        let mut reader = std::mem::take(&mut self.member.reader);
        let newer = self.member.common.edition.as_ref().filter(|(newer, _)| newer.number > self.member.state.edition);
        let newer = newer.map(|(newer, text)| Ok::<_, io::Error>((newer.number, text_of(newer, text)?))).transpose()?;
        let mut saved = prepared.saved.clone();
        let known = prepared.setup.config.clone();
        Ok(Box::pin(blocking(move || {
            // Its files are those of the server, which has looked whether they are in reach.
            let newer = newer.map(|(edition, text)| (edition, reader.read(Some(text), &Confinement::default())));
            let read = match &newer {
                Some((_, Ok(setup))) => saved.read_all(&setup.config),
                Some((_, Err(_))) | None => saved.read_all(&known),
            };
            tracing::debug!(zones = read, "standby: has read what the server has saved");
            Loaded { reader, newer, saved }
        })))
    }

    /// Introduces itself anew.
    pub(super) fn introduce(&mut self) -> io::Result<()> {
        self.member.introduce()?;
        self.watched = watch(&self.member.channel)?;
        Ok(())
    }

    /// Serves until it is told to end. `since`: when the lock was had.
    async fn serve(
        mut self,
        prepared: Prepared,
        since: Instant,
        carried: Carried,
        way: Option<Way>,
    ) -> io::Result<ExitCode> {
        let Prepared { setup, saved, listeners, xdp, confinement, edition } = prepared;
        let carried = Carried { saved, ..carried };
        let listeners = match listeners {
            Some(mut listeners) => {
                listeners.fill();
                listeners
            }
            None => Listeners::open(&setup.config, duplicates(&self.member.common.sockets)?).map_err(unable)?.0,
        };
        let rules = rules_of(setup.config.supervisor.as_ref());
        // What was put in force while this was loading is read when there is time: first of all clients wait.
        let newer = self.member.common.edition.as_ref().filter(|(newer, _)| newer.number > edition);
        let newer = newer.map(|(newer, text)| text_of(newer, text)).transpose()?;
        let has_newer = newer.is_some() && self.member.part == Part::Standby;
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
        if serving.live.member.part == Part::First {
            serving.server.ask_sources().await;
            tracing::info!("ready {}", serving.server.bound());
        }
        serving.live.member.state.took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        serving.live.member.state.edition = edition;
        serving.live.member.say(Role::Server, None);
        serving.tell_all();
        if let Some(way) = &serving.way {
            // One that is not there any more has nothing to tell.
            let _ = way.tell(&Passing::Serves);
        }
        if has_newer {
            serving.server.reload(None);
        }
        serving.run().await
    }
}

/// What has come of something that runs; never, if nothing does.
pub(super) async fn ended<T>(running: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Waits for the next message of the supervisor; none if the channel has closed. Can be given up at any moment.
pub(super) async fn next_message(member: &Member, watched: &UnixDatagram) -> Option<(Downward, Vec<OwnedFd>)> {
    receive(&member.channel, watched).await
}

/// The next message of a channel; none if it has closed. Can be given up at any moment.
pub(super) async fn receive<M: DeserializeOwned>(
    channel: &Channel,
    watched: &UnixDatagram,
) -> Option<(M, Vec<OwnedFd>)> {
    loop {
        watched.readable().await.ok()?;
        let received = watched.try_io(Interest::READABLE, || match channel.receive() {
            Ok(Received::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
            received => Ok(received),
        });
        match received {
            Ok(Ok(Received::Message(message, descriptors))) => return Some((message, descriptors)),
            Ok(Ok(Received::Nothing)) | Err(_) => {}
            Ok(Ok(Received::Closed)) => return None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "another process speaks another protocol");
                return None;
            }
        }
    }
}

/// Has the runtime watch a channel.
pub(super) fn watch(channel: &Channel) -> io::Result<UnixDatagram> {
    // It keeps messages apart as a socket for datagrams does; nothing is read or written by this type.
    UnixDatagram::from_std(channel.as_fd().try_clone_to_owned()?.into())
}

/// Reads the config for a reload: this text the first time, if there is one, and then what is on the disk.
fn read_first(text: Option<ConfigText>, mut reader: Reader) -> Read {
    let first = Arc::new(Mutex::new(text));
    Box::new(move |confinement| {
        let text = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        reader.read(text, confinement)
    })
}

fn unable(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
