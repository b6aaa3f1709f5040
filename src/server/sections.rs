//! The sections of the config that take queries, the LS and the authorities: how they begin in the workers, take queries at other
//! addresses, and end.
//!
//! What can fail comes first: sockets are bound and duplicated for all workers ([`Dealt`]). Then workers are told, and nothing is waited
//! for: they agree among themselves on when a new address is read and an old one forgotten ([`Checkpoint`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, channel};

use super::listeners::{AddressSockets, Listeners, Section, SectionName};
use super::worker::{Change, Checkpoint, HandedOver};
use crate::config::ForwarderConfig;
use crate::engine;
use crate::engine::shortage::Shortage;
use crate::engine::single_flight::SingleFlight;
use crate::forwarder::{HAND_OVERS, Shared};
use crate::limit::{Clients, Pacing};
use crate::net::tcp::{Connections, Served};
use crate::state::{ForwarderState, HealthEvent};
use crate::wire::QuestionHasher;

/// The sockets of addresses that are new to their section: for each section of the listeners, and there for each worker.
pub(super) struct Dealt(Vec<(SectionName, Vec<Vec<AddressSockets>>)>);

impl Dealt {
    /// Duplicates them. `earlier` is what workers have already.
    ///
    /// # Errors
    /// If there are no descriptors left.
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

    /// Takes those of a section; for each worker none, if it is not there.
    fn take(&mut self, name: &SectionName, workers: usize) -> Vec<Vec<AddressSockets>> {
        let found = self.0.iter_mut().find(|(of, _)| of == name);
        found.map_or_else(|| (0..workers).map(|_| Vec::new()).collect(), |(_, sockets)| std::mem::take(sockets))
    }
}

/// Where the sections of a config are listened on, in place of where they were.
pub(super) struct Move {
    pub(super) earlier: Option<Arc<Listeners>>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) dealt: Dealt,
    /// After so long nothing is owed any more to whoever has asked at an address that leaves.
    pub(super) owed_for: Duration,
}

impl Move {
    /// How the addresses of a section change, for each worker. Nothing for any if they do not.
    pub(super) fn change(&mut self, name: &SectionName) -> Vec<Change> {
        let known = self.earlier.as_ref().and_then(|earlier| earlier.section(name));
        let addresses = |section: Option<&Section>| section.map_or_else(Vec::new, |section| section.addresses.clone());
        let (old, new) = (addresses(known), addresses(self.listeners.section(name)));
        let is_same = old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| Arc::ptr_eq(old, new));
        if is_same && known.is_some() {
            return Vec::new();
        }
        let passed_on = old.iter().filter(|address| address.is_kept() || self.listeners.has(address));
        let passed_on: Vec<_> = passed_on.map(|address| address.listens_at()).collect();
        let served = Served::new(new.iter().map(|address| address.listens_at()), passed_on);
        let checkpoint = Checkpoint::new();
        let dealt = self.dealt.take(name, self.listeners.workers());
        let change =
            |new| Change { served: served.clone(), new, checkpoint: checkpoint.clone(), owed_for: self.owed_for };
        dealt.into_iter().map(change).collect()
    }
}

/// What the workers of an LS share, and what each of them gets of the others.
pub(super) struct HandOvers {
    pub(super) shared: Arc<Shared>,
    /// What is handed over to each, until it takes that.
    pub(super) queues: Vec<HandedOver>,
}

impl HandOvers {
    /// Of so many workers. `table` are the connections of the LS.
    pub(super) fn new(
        forwarder: &ForwarderConfig,
        table: &Connections,
        hasher: QuestionHasher,
        health_events: UnboundedSender<HealthEvent>,
        workers: usize,
        catching_up_until: Option<Instant>,
    ) -> Self {
        let (hand_over, handed_over): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel(HAND_OVERS)).unzip();
        let engines = engine::Shared {
            single_flight: SingleFlight::new(workers),
            hasher,
            clients: Arc::new(Clients::new(forwarder.limits.in_flight as usize, rand::random())),
            limited: table.limited(),
            shortage: Shortage::new(Instant::now()),
            catching_up_until,
        };
        let shared = Shared {
            engines: Arc::new(engines),
            workers: hand_over,
            on_the_way: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            pacing: Pacing::new(rand::random(), Instant::now()),
            health_events,
        };
        Self {
            shared: Arc::new(shared),
            queues: handed_over.into_iter().map(|queue| Arc::new(Mutex::new(queue))).collect(),
        }
    }
}

/// For how long a query may be owed its response in this state.
pub(super) fn owed_for(state: Option<&ForwarderState>) -> Duration {
    let timeouts = state.into_iter().flat_map(|state| &state.pools).map(|pool| pool.rules().timeout);
    timeouts.max().unwrap_or_default() + MARGIN
}

/// What that may take beyond the longest timeout of a pool.
const MARGIN: Duration = Duration::from_secs(1);
