//! The resources that all processes of a tree share and pass to the processes that they start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use net::from_clients::listening::ListeningSocket;

use super::channel::Channel;
use super::locks::Lock;
use super::message::{Edition, GivenUp, Handover, PROTOCOL, ProcessPart, Sockets, TreeFacts};
use super::spawn::Image;
use super::tree::{Pid, Purpose};

pub(super) struct Common {
    pub(super) serve: Lock,
    pub(super) supervise: Lock,
    /// The channel on which processes introduce themselves to the supervisor.
    pub(super) introductions: [Channel; 2],
    /// The active config, and its text.
    pub(super) edition: Option<(Edition, OwnedFd)>,
    /// Manual changes and states of backends.
    pub(super) known: Option<OwnedFd>,
    /// The saved latency of backends, and the history.
    pub(super) latency: Option<OwnedFd>,
    pub(super) sockets: Vec<ListeningSocket>,
    pub(super) facts: TreeFacts,
}

impl Common {
    /// Starts a process. `way` is a newcomer's channel to the server.
    pub(super) fn spawn(
        &self,
        image: &Image,
        part: ProcessPart,
        way: Option<BorrowedFd<'_>>,
        to_give_up: Option<&GivenUp>,
    ) -> io::Result<Pid> {
        image.spawn(&self.facts.origin.arguments, self.pack(part, way)?, to_give_up)
    }

    /// Returns a channel that holds the start data of a process.
    fn pack(&self, part: ProcessPart, way: Option<BorrowedFd<'_>>) -> io::Result<Channel> {
        // The server sends a newcomer what is newer.
        let latency = self.latency.as_ref().filter(|_| way.is_none());
        let handover = Handover {
            protocol: PROTOCOL,
            part,
            edition: self.edition.as_ref().map(|(edition, _)| edition.clone()),
            has_known: self.known.is_some(),
            has_latency: latency.is_some(),
            facts: self.facts.clone(),
        };
        let [write, read] = &self.introductions;
        let mut descriptors = vec![self.serve.as_fd(), self.supervise.as_fd(), write.as_fd(), read.as_fd()];
        descriptors.extend(self.edition.as_ref().map(|(_, text)| text.as_fd()));
        descriptors.extend(self.known.iter().chain(latency).map(AsFd::as_fd));
        descriptors.extend(way);
        let (ours, theirs) = Channel::pair()?;
        ours.send(&handover, &descriptors)?;
        Sockets::send(&self.sockets, |sockets, descriptors| ours.send(&sockets, descriptors))?;
        Ok(theirs)
    }

    /// Returns also a newcomer's channel to the server.
    pub(super) fn unpacked(
        handover: Handover,
        descriptors: Vec<OwnedFd>,
        sockets: Vec<ListeningSocket>,
    ) -> io::Result<(Self, Option<OwnedFd>)> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| io::Error::other("a descriptor of the handover is missing"));
        let common = Self {
            serve: Lock::passed(next()?),
            supervise: Lock::passed(next()?),
            introductions: [Channel::from(next()?), Channel::from(next()?)],
            edition: handover.edition.map(|edition| Ok::<_, io::Error>((edition, next()?))).transpose()?,
            known: handover.has_known.then(&mut next).transpose()?,
            latency: handover.has_latency.then(next).transpose()?,
            sockets,
            facts: handover.facts,
        };
        Ok((common, descriptors.next()))
    }

    /// Returns the config if it is newer than this edition.
    pub(super) fn newer_than(&self, known: u64) -> Option<&(Edition, OwnedFd)> {
        self.edition.as_ref().filter(|(edition, _)| edition.number > known)
    }

    /// Returns the rights that a process for this purpose must give up; `None` if this process has no more
    /// than that.
    pub(super) fn to_give_up_of(&self, purpose: Purpose) -> Option<GivenUp> {
        if self.facts.given_up.is_some() {
            return None;
        }
        let mut given_up = self.facts.to_give_up.clone();
        if let Purpose::First | Purpose::Newcomer(_) = purpose {
            // The process confines itself to the files of the config that it reads.
            given_up.confinement = None;
        }
        Some(given_up)
    }

    pub(super) fn take_given_up(&mut self, given_up: GivenUp) {
        let user = self.facts.to_give_up.user.take().or(given_up.user);
        self.facts.to_give_up = GivenUp { user, ..given_up };
    }

    /// Replaces the introduction channel. One process has shut it down, so it would stay readable for ever.
    pub(super) fn renew_introductions(&mut self) {
        // If there are no descriptors left, the next turn tries again.
        if let Ok((write, read)) = Channel::pair() {
            tracing::warn!("a process has closed the channel for new processes: the supervisor opens a new one");
            self.introductions = [write, read];
        }
    }

    /// Returns only if that fails.
    pub(super) fn become_supervisor(&self, image: &Image, is_succession: bool) -> io::Error {
        let start_data = self.pack(ProcessPart::Supervisor { is_succession }, None);
        match self.supervise.keep_over_exec().and(start_data) {
            Ok(start_data) => image.become_it(&self.facts.origin.arguments, &start_data),
            Err(error) => error,
        }
    }
}
