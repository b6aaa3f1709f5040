//! A process that loads, stands by or serves, and its conversation with the supervisor.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;

use metrics::Role;
use net::from_clients::listening::ListeningSocket;

use super::channel::{Channel, WatchedChannel};
use super::common::Common;
use super::locks::LockPart;
use super::message::{Downward, Introduction, PROTOCOL, ProcessPart, State, Upward};
use super::spawn::{Image, name_process};
use super::tree::ProcessOrder;
use crate::load::ConfigReader;

pub(super) struct MemberProcess {
    pub(super) common: Common,
    pub(super) part: ProcessPart,
    pub(super) channel: WatchedChannel,
    pub(super) state: State,
    pub(super) reader: ConfigReader,
    pub(super) coming: Vec<ListeningSocket>,
    /// A newcomer's channel to the server.
    pub(super) way: Option<OwnedFd>,
    /// True if the server has saved a zone that this process has not read.
    pub(super) is_zone_saved: bool,
    pub(super) is_same_protocol: bool,
    /// The wait for the lock to supervise. A process begins it when it has given up its rights.
    pub(super) supervise: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

impl MemberProcess {
    pub(super) fn introduce(&mut self) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        self.channel = WatchedChannel::new(ours)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let introduction = Introduction { protocol: PROTOCOL, version, state: self.state.clone() };
        self.common.introductions[0].send(&introduction, &[theirs.as_fd()])
    }

    pub(super) fn say(&mut self, role: Role, problem: Option<String>) {
        name_process(role);
        self.state = State { role: Some(role), problem, ..self.state.clone() };
        self.send(&Upward::Says(self.state.clone()), None);
    }

    /// If the supervisor does not read, the channel turns out closed, and everything is sent again.
    pub(super) fn send(&self, message: &Upward, descriptor: Option<&OwnedFd>) {
        let descriptor = descriptor.map(OwnedFd::as_fd);
        let _ = self.channel.send(message, descriptor.as_slice());
    }

    /// Handles messages of the supervisor until the work is done.
    pub(super) async fn attend<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                handled = self.next() => handled?,
            }
        }
    }

    /// Waits for a message of the supervisor, or for its end, and handles that. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            message = self.channel.next() => match message {
                Some((message, descriptors)) => self.hear(message, descriptors),
                None => {
                    if self.supervise.is_none() && self.common.supervise.try_take(LockPart::Whole)? {
                        self.succeed();
                    }
                    self.introduce()?;
                }
            },
            had = ended(&mut self.supervise) => {
                had?;
                self.succeed();
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) {
        match message {
            Downward::Word(ProcessOrder::Ping) => self.send(&Upward::Pong, None),
            Downward::Word(ProcessOrder::End | ProcessOrder::Drain | ProcessOrder::HandOver) => std::process::exit(0),
            Downward::View(view) => self.common.facts.view = view,
            Downward::Sockets(sockets) => {
                if sockets.add_to(&mut self.coming, descriptors) {
                    self.common.sockets = std::mem::take(&mut self.coming);
                }
            }
            Downward::Edition(edition) => {
                if let Some(text) = descriptors.pop() {
                    self.common.facts.rules = edition.rules;
                    self.common.edition = Some((edition, text));
                }
            }
            Downward::Known => self.common.known = descriptors.pop(),
            Downward::Latency => {
                self.common.latency = descriptors.pop();
                tracing::debug!("standby: the saved latency has come");
            }
            Downward::ZoneSaved => self.is_zone_saved = true,
            Downward::Reload | Downward::Successor | Downward::Changed(_) | Downward::Conflict(_) => {}
        }
    }

    /// Becomes the supervisor, or exits if that is not wanted. This process holds the supervisor's lock.
    fn succeed(&self) -> ! {
        if !self.common.facts.succession {
            tracing::warn!("the supervisor has ended and succession is off: ending");
            std::process::exit(1);
        }
        let error = match Image::running() {
            Ok(image) => self.common.become_supervisor(&image, true),
            Err(error) => error,
        };
        // Exiting passes the lock to the next process.
        tracing::error!(%error, "cannot become the supervisor: ending");
        std::process::exit(1);
    }
}

/// Waits until the work, if any, is done. Waits for ever without work. Cancel safe.
pub(super) async fn ended<T>(work: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match work {
        Some(running) => {
            let done = running.await;
            *work = None;
            done
        }
        None => std::future::pending().await,
    }
}

pub(super) fn duplicates(sockets: &[ListeningSocket]) -> io::Result<Vec<ListeningSocket>> {
    let duplicate = |socket: &ListeningSocket| {
        let (name, endpoint) = (socket.name.clone(), socket.endpoint().clone());
        Ok(ListeningSocket::new(name, socket.is_kept, endpoint, socket.as_fd().try_clone_to_owned()?))
    };
    sockets.iter().map(duplicate).collect()
}
