//! What all processes of a tree hold, and pass on to those that they start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::channel::Channel;
use super::locks::Lock;
use super::message::{Edition, GivenUp, Handover, Origin, PROTOCOL, Part};
use super::spawn::{Image, Luggage};
use super::tree::{Purpose, Rules};
use crate::metrics::ProcessesSnapshot;
use crate::net::listening::ListeningSocket;
use crate::service_manager::Contact;

/// What all processes of a tree hold.
pub(super) struct Common {
    /// Who has it serves.
    pub(super) serve: Lock,
    /// Who has it supervises.
    pub(super) supervise: Lock,
    /// Where processes introduce themselves, and where whoever supervises reads that.
    pub(super) introductions: [Channel; 2],
    pub(super) origin: Origin,
    pub(super) succession: bool,
    /// The config in force, with its text.
    pub(super) edition: Option<(Edition, OwnedFd)>,
    /// What is known of the backends.
    pub(super) known: Option<OwnedFd>,
    pub(super) sockets: Vec<ListeningSocket>,
    pub(super) view: ProcessesSnapshot,
    pub(super) rules: Rules,
    /// The service manager.
    pub(super) contact: Contact,
    /// The rights that this process has given up, and that its children lack.
    pub(super) given_up: Option<GivenUp>,
    /// The rights that children give up before they read anything that another process wrote. No server can change it: the config at
    /// the start of the supervisor says it, and the process that loads a config from the disk, before it serves.
    pub(super) to_give_up: GivenUp,
}

impl Common {
    /// What another process begins with, which is to be this; `stream` is its way to the server.
    pub(super) fn luggage<'a>(&'a self, part: Part, stream: Option<BorrowedFd<'a>>) -> Luggage<'a> {
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
        let [told, read] = &self.introductions;
        let mut descriptors = vec![self.serve.as_fd(), self.supervise.as_fd(), told.as_fd(), read.as_fd()];
        descriptors.extend(self.edition.as_ref().map(|(_, text)| text.as_fd()));
        descriptors.extend(self.known.as_ref().map(AsFd::as_fd));
        descriptors.extend(stream);
        Luggage { handover, descriptors, sockets: &self.sockets }
    }

    /// What this process was told when it began, with the way to the server if there is one.
    ///
    /// # Errors
    /// If a descriptor is missing.
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

    /// The rights that a process of this purpose gives up before it reads; none if it has no more than this one.
    pub(super) fn to_give_up_of(&self, purpose: Purpose) -> Option<GivenUp> {
        if self.given_up.is_some() {
            return None;
        }
        let mut given_up = self.to_give_up.clone();
        if let Purpose::First | Purpose::Newcomer(_) = purpose {
            // It confines itself to the files of the config that it reads.
            given_up.confinement = None;
        }
        Some(given_up)
    }

    /// A process that has read the config on the disk serves, with these rights: the next ones have no more.
    pub(super) fn take_given_up(&mut self, given_up: GivenUp) {
        let user = self.to_give_up.user.take().or(given_up.user);
        self.to_give_up = GivenUp { user, ..given_up };
    }

    /// Makes another way of introductions for the processes that start from now on. Each process holds both ends of the last one, and
    /// one of them has shut it down: it would be readable for ever.
    pub(super) fn renew_introductions(&mut self) {
        let renewed = Channel::pair().map(|(told, read)| [told, read]);
        // Without descriptors the next turn tries again.
        if let Ok(renewed) = renewed {
            tracing::warn!("a process has closed the way of introductions: processes that start now have another one");
            self.introductions = renewed;
        }
    }

    /// Becomes the supervisor, or a newer program of it; returns only if that fails.
    pub(super) fn become_supervisor(&self, image: &Image, is_succession: bool) -> io::Error {
        match self.supervise.keep_over_exec() {
            Ok(()) => image.become_it(&self.luggage(Part::Supervisor { is_succession }, None)),
            Err(error) => error,
        }
    }
}
