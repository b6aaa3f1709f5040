//! The probes of backends: of their health, and of the zone versions and answers of replicas.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use engine::state::{ForwarderState, HealthEvent};
use net::to_backends::tls::BackendTls;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, Semaphore};

use crate::control::links::ServerLinks;
use crate::control::pools::health::HealthProber;
use crate::control::pools::replicas::{Comparisons, ReplicaLinks, SoaProbes};
use crate::control::workers::WorkerLinks;

pub(super) struct BackendProbes {
    pub(super) prober: HealthProber,
    pub(super) comparisons: Comparisons,
    soa_probes: SoaProbes,
    /// At most one of each signal for each backend: see `SharedBackend::is_first`.
    health_events: UnboundedReceiver<HealthEvent>,
    tls: Arc<BackendTls>,
}

impl BackendProbes {
    /// Makes probes without backends. A change of a backend wakes the members.
    pub(super) fn new(
        WorkerLinks { shares, tls, .. }: &WorkerLinks,
        health_events: UnboundedReceiver<HealthEvent>,
        members: Rc<Notify>,
        links: &ServerLinks,
    ) -> Self {
        let refreshed = links.clone();
        let on_change = move || {
            members.notify_one();
            refreshed.refresh();
        };
        // Thousands of members may join while the server runs.
        let probes = shares.probes.max((shares.limit / 16).min(MAX_PROBES));
        // Separate from the prober's places: questions to silent members must not delay the probes that find
        // them down.
        let places = Arc::new(Semaphore::new((shares.limit / 32).clamp(1, MAX_REPLICAS_ASKED)));
        let replicas = ReplicaLinks { tasks: links.tasks.clone(), places, tls: Arc::clone(tls) };
        Self {
            prober: HealthProber::new(links.tasks.clone(), probes, Rc::new(on_change), Arc::clone(tls)),
            comparisons: Comparisons::new(replicas.clone()),
            soa_probes: SoaProbes::new(replicas),
            health_events,
            tls: Arc::clone(tls),
        }
    }

    /// Prepares TLS to the backends of a state, and begins to probe them.
    pub(super) fn set_state(&mut self, state: &ForwarderState) {
        self.prepare_tls(state);
        self.prober.set_state(state);
        self.comparisons.set_state(state);
        self.soa_probes.set_state(state);
    }

    /// Prepares TLS to the backends of a state and drops the configurations of others.
    pub(super) fn prepare_tls(&self, state: &ForwarderState) {
        let mut servers = HashSet::new();
        for pool in &state.pools {
            for backend in pool.backends.iter().filter(|backend| backend.is_encrypted()) {
                servers.insert(backend.address);
                if let Err(problem) = self.tls.of(&backend.stream_server()) {
                    tracing::error!(
                        pool = pool.config.name,
                        backend = backend.name,
                        problem,
                        "the backend cannot be queried: its TLS cannot be set up"
                    );
                }
            }
        }
        self.tls.retain(&servers);
    }

    pub(super) fn stop(&mut self) {
        self.prober.stop();
        self.comparisons.stop();
        self.soa_probes.stop();
    }

    /// Passes the next signal of a worker on. Cancel safe.
    pub(super) async fn on_event(&mut self) {
        match self.health_events.recv().await {
            Some(event) => self.prober.on_event(&event),
            None => std::future::pending().await,
        }
    }
}

/// The most concurrent probes: enough to probe each of thousands of silent members every few seconds.
const MAX_PROBES: usize = 4096;

const MAX_REPLICAS_ASKED: usize = 512;
