//! The resources that all processes of a tree share and pass to the processes that they start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::channel::Channel;
use super::locks::Lock;
use super::message::{Edition, GivenUp, Handover, OriginalCommand, PROTOCOL, ProcessPart};
use super::spawn::{Image, Luggage};
use super::tree::{Purpose, TreeRules};
use crate::metrics::ProcessesSnapshot;
use crate::net::from_clients::listening::ListeningSocket;
use crate::service_manager::Contact;

pub(super) struct Common {
    pub(super) serve: Lock,
    pub(super) supervise: Lock,
    /// The channel on which processes introduce themselves to the supervisor.
    pub(super) introductions: [Channel; 2],
    pub(super) origin: OriginalCommand,
    pub(super) succession: bool,
    pub(super) edition: Option<(Edition, OwnedFd)>,
    pub(super) known: Option<OwnedFd>,
    pub(super) sockets: Vec<ListeningSocket>,
    pub(super) view: ProcessesSnapshot,
    pub(super) rules: TreeRules,
    pub(super) contact: Contact,
    pub(super) given_up: Option<GivenUp>,
    /// The rights that children give up before they read data of another process.
    pub(super) to_give_up: GivenUp,
}

impl Common {
    pub(super) fn luggage<'a>(&'a self, part: ProcessPart, stream: Option<BorrowedFd<'a>>) -> Luggage<'a> {
        let handover = Handover {
            protocol: PROTOCOL,
            part,
            origin: self.origin.clone(),
            rules: self.rules,
            succession: self.succession,
            edition: self.edition.as_ref().map(|(edition, _)| edition.clone()),
            has_known: self.known.is_some(),
            view: self.view.clone(),
            contact: self.contact.clone(),
            given_up: self.given_up.clone(),
            to_give_up: self.to_give_up.clone(),
        };
        let [write, read] = &self.introductions;
        let mut descriptors = vec![self.serve.as_fd(), self.supervise.as_fd(), write.as_fd(), read.as_fd()];
        descriptors.extend(self.edition.as_ref().map(|(_, text)| text.as_fd()));
        descriptors.extend(self.known.as_ref().map(AsFd::as_fd));
        descriptors.extend(stream);
        Luggage { handover, descriptors, sockets: &self.sockets }
    }

    pub(super) fn unpacked(
        handover: Handover,
        descriptors: Vec<OwnedFd>,
        sockets: Vec<ListeningSocket>,
    ) -> io::Result<(Self, Option<OwnedFd>)> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| io::Error::other("a descriptor of the handover is missing"));
        let (serve, supervise) = (Lock::passed(next()?), Lock::passed(next()?));
        let introductions = [Channel::from(next()?), Channel::from(next()?)];
        let edition = handover.edition.map(|edition| Ok::<_, io::Error>((edition, next()?))).transpose()?;
        let known = if handover.has_known { Some(next()?) } else { None };
        let (origin, succession, view, rules) = (handover.origin, handover.succession, handover.view, handover.rules);
        let (contact, given_up, to_give_up) = (handover.contact, handover.given_up, handover.to_give_up);
        let common = Self {
            serve,
            supervise,
            introductions,
            origin,
            succession,
            edition,
            known,
            sockets,
            view,
            rules,
            contact,
            given_up,
            to_give_up,
        };
        Ok((common, descriptors.next()))
    }

    /// Returns the rights that a process for this purpose must give up; `None` if this process has no more
    /// than that.
    pub(super) fn to_give_up_of(&self, purpose: Purpose) -> Option<GivenUp> {
        if self.given_up.is_some() {
            return None;
        }
        let mut given_up = self.to_give_up.clone();
        if let Purpose::First | Purpose::Newcomer(_) = purpose {
            // The process confines itself to the files of the config that it reads.
            given_up.confinement = None;
        }
        Some(given_up)
    }

    pub(super) fn take_given_up(&mut self, given_up: GivenUp) {
        let user = self.to_give_up.user.take().or(given_up.user);
        self.to_give_up = GivenUp { user, ..given_up };
    }

    /// Replaces the introduction channel. One process has shut it down, so it would stay readable for ever.
    pub(super) fn renew_introductions(&mut self) {
        let renewed = Channel::pair().map(|(write, read)| [write, read]);
        // If there are no descriptors left, the next turn tries again.
        if let Ok(renewed) = renewed {
            tracing::warn!("a process has closed the channel for new processes: the supervisor opens a new one");
            self.introductions = renewed;
        }
    }

    /// Returns only if that fails.
    pub(super) fn become_supervisor(&self, image: &Image, is_succession: bool) -> io::Error {
        match self.supervise.keep_over_exec() {
            Ok(()) => image.become_it(&self.luggage(ProcessPart::Supervisor { is_succession }, None)),
            Err(error) => error,
        }
    }
}
