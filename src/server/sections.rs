//! The sections of the config that take queries: how the forwarder and the authorities begin, move and end in
//! the workers.
//!
//! Steps that can fail come first: sockets are bound and duplicated for all workers ([`Dealt`]). Then the
//! control thread sends commands without waiting; the workers synchronize by a [`Checkpoint`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::channel;

use super::listeners::{AddressSockets, Listeners, SectionName, SectionSockets};
use super::worker::{AddressChange, Checkpoint, HandedOver};
use super::workers::WorkerLinks;
use crate::config::ForwarderConfig;
use crate::engine;
use crate::engine::shortage::Shortage;
use crate::engine::single_flight::SingleFlight;
use crate::forwarder::{HAND_OVERS, SharedForwarder};
use crate::limit::{Clients, Pacing};
use crate::net::from_clients::tcp::{ConnectionTable, ServedAddresses};
use crate::state::ForwarderState;

pub(super) struct Dealt(Vec<(SectionName, Vec<Vec<AddressSockets>>)>);

impl Dealt {
    pub(super) fn new(listeners: &Listeners, earlier: Option<&Listeners>) -> io::Result<Self> {
        let count = listeners.workers();
        let sections = listeners.sections().iter().map(|section| {
            let known = earlier.and_then(|earlier| earlier.section(&section.name));
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

pub(super) struct ListenerMove {
    pub(super) earlier: Option<Arc<Listeners>>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) dealt: Dealt,
    pub(super) owed_for: Duration,
}

impl ListenerMove {
    pub(super) fn change(&mut self, name: &SectionName) -> Vec<AddressChange> {
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

pub(super) struct HandOvers {
    pub(super) shared: Arc<SharedForwarder>,
    pub(super) queues: Vec<HandedOver>,
}

impl HandOvers {
    pub(super) fn new(
        links: &WorkerLinks,
        forwarder: &ForwarderConfig,
        table: &ConnectionTable,
        workers: usize,
    ) -> Self {
        let (hand_over, handed_over): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel(HAND_OVERS)).unzip();
        let engines = engine::SharedEngineState {
            single_flight: SingleFlight::new(workers),
            hasher: links.hasher.clone(),
            clients: Arc::new(Clients::new(forwarder.limits.in_flight as usize, rand::random())),
            limited: table.limited(),
            shortage: Shortage::new(Instant::now()),
            catching_up_until: links.catching_up_until,
        };
        let shared = SharedForwarder {
            engines: Arc::new(engines),
            workers: hand_over,
            on_the_way: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            pacing: Pacing::new(rand::random(), Instant::now()),
            health_events: links.health_events.clone(),
            tls: Arc::clone(&links.tls),
        };
        Self {
            shared: Arc::new(shared),
            queues: handed_over.into_iter().map(|queue| Arc::new(Mutex::new(queue))).collect(),
        }
    }
}

/// Returns how long a query may wait for its response in this state.
pub(super) fn owed_for(state: Option<&ForwarderState>) -> Duration {
    let timeouts = state.into_iter().flat_map(|state| &state.pools).map(|pool| pool.rules().timeout);
    timeouts.max().unwrap_or_default() + MARGIN
}

/// The margin beyond the longest timeout of a pool.
const MARGIN: Duration = Duration::from_secs(1);
