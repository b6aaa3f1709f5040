//! The addresses that clients use: how sections of the config begin, move and end at them.
//!
//! Steps that can fail come first: sockets are bound and duplicated for all workers ([`Dealt`]). Then the
//! control thread sends commands without waiting; the workers synchronize by a [`Checkpoint`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::connections::ConnectionTables;
use super::listeners::{AddressSockets, Listeners, SectionName, SectionSockets};
use crate::limit::OwnAddresses;
use crate::net::from_clients::service::ServedAddresses;
use crate::server::links::ServerLinks;
use crate::server::worker::{AddressChange, Checkpoint, QueuedQueryFate, WorkerCommand};

/// The addresses that clients use, and their connections.
pub(in crate::server) struct Listening {
    pub(in crate::server) listeners: Arc<Listeners>,
    /// Addresses of this server, from which no client sends.
    pub(in crate::server) own: Arc<OwnAddresses>,
    pub(in crate::server) connections: ConnectionTables,
}

impl Listening {
    /// Replaces the listeners, unless they are the same.
    pub(super) fn replace(&mut self, listeners: Arc<Listeners>, links: &ServerLinks) {
        if listeners.is_same(&self.listeners) {
            return;
        }
        self.listeners.all().filter(|address| !listeners.has(address)).for_each(|address| address.divert());
        self.own = Arc::new(OwnAddresses::new(listeners.for_queries()));
        self.listeners = listeners;
        links.workers.broadcast(|| WorkerCommand::SetOwnAddresses(Arc::clone(&self.own)));
    }

    /// Diverts datagrams from the ending sections, so that senders get an ICMP error.
    pub(in crate::server) fn divert(&self, rest: QueuedQueryFate, is_ending: impl Fn(&SectionName) -> bool) {
        if rest == QueuedQueryFate::Taken {
            let sections = self.listeners.sections().iter().filter(|section| is_ending(&section.name));
            sections.flat_map(|section| &section.addresses).for_each(|address| address.divert());
        }
    }
}

/// The duplicated sockets of new addresses, by section and worker.
pub(super) struct Dealt(Vec<(SectionName, Vec<Vec<AddressSockets>>)>);

impl Dealt {
    /// Duplicates the sockets of new addresses for all workers.
    pub(super) fn new(listeners: &Listeners, earlier: &Listeners) -> io::Result<Self> {
        let count = listeners.workers();
        let sections = listeners.sections().iter().map(|section| {
            let known = earlier.section(&section.name);
            let is_new = |address: &&Arc<_>| {
                !known.is_some_and(|known| known.addresses.iter().any(|at| Arc::ptr_eq(at, address)))
            };
            let new: Vec<_> = section.addresses.iter().filter(is_new).collect();
            let of_worker = |worker| new.iter().map(|address| address.of_worker(worker, count)).collect();
            Ok((section.name.clone(), (0..count).map(of_worker).collect::<io::Result<_>>()?))
        });
        sections.collect::<io::Result<_>>().map(Self)
    }

    fn take(&mut self, name: &SectionName, workers: usize) -> Vec<Vec<AddressSockets>> {
        let found = self.0.iter_mut().find(|(of, _)| of == name);
        found.map_or_else(|| (0..workers).map(|_| Vec::new()).collect(), |(_, sockets)| std::mem::take(sockets))
    }
}

/// The change from some listeners to others, for the workers.
pub(in crate::server) struct ListenerMove {
    earlier: Option<Arc<Listeners>>,
    listeners: Arc<Listeners>,
    dealt: Dealt,
    owed_for: Duration,
}

impl ListenerMove {
    /// Begins with these listeners; a worker that starts opens all of them.
    pub(in crate::server) fn begin(listening: &Listening) -> Self {
        let listeners = Arc::clone(&listening.listeners);
        Self { earlier: None, listeners, dealt: Dealt(Vec::new()), owed_for: Duration::ZERO }
    }

    pub(super) fn new(earlier: Arc<Listeners>, listening: &Listening, dealt: Dealt, owed_for: Duration) -> Self {
        Self { earlier: Some(earlier), listeners: Arc::clone(&listening.listeners), dealt, owed_for }
    }

    /// Returns the change of a section for each worker; empty if nothing changes.
    pub(in crate::server) fn change(&mut self, name: &SectionName) -> Vec<AddressChange> {
        let known = self.earlier.as_ref().and_then(|earlier| earlier.section(name));
        let addresses =
            |section: Option<&SectionSockets>| section.map_or_else(Vec::new, |section| section.addresses.clone());
        let (old, new) = (addresses(known), addresses(self.listeners.section(name)));
        let is_same = old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| Arc::ptr_eq(old, new));
        if is_same && known.is_some() {
            return Vec::new();
        }
        let passed_on = old.iter().filter(|address| address.is_kept() || self.listeners.has(address));
        let passed_on: Vec<_> = passed_on.map(|address| address.listens_at()).collect();
        let served = ServedAddresses::new(new.iter().map(|address| address.listens_at()), passed_on);
        let checkpoint = Checkpoint::new();
        let dealt = self.dealt.take(name, self.listeners.workers());
        let change = |new| AddressChange {
            served: served.clone(),
            new,
            checkpoint: checkpoint.clone(),
            owed_for: self.owed_for,
        };
        dealt.into_iter().map(change).collect()
    }
}
