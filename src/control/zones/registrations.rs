//! The registrations of our authorities in etcd.

use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use config::AuthorityConfig;
use net::tasks::{TaskKind, Tasks};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::unbounded_channel;

use crate::control::pools::discover::MemberEntry;
use crate::control::pools::discover::etcd::LeaseId;
use crate::control::pools::discoverer::{EtcdAccess, Registration, RegistrationSettings};
use crate::control::process::{Listeners, SectionName};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Lease {
    authority: String,
    lease: LeaseId,
}

pub(in crate::control) struct Registrations {
    all: Vec<Rc<Registration>>,
    access: Option<Rc<EtcdAccess>>,
    tasks: Tasks,
}

impl Registrations {
    pub(in crate::control) fn new(tasks: Tasks) -> Self {
        Self { all: Vec::new(), access: None, tasks }
    }

    /// Registers exactly these authorities. Unchanged ones continue; `leases` come from an earlier process.
    pub(super) fn set<'a>(
        &mut self,
        authorities: impl Iterator<Item = &'a AuthorityConfig>,
        listeners: &Listeners,
        access: Option<&Rc<EtcdAccess>>,
        leases: &[Lease],
    ) {
        let is_same = match (&self.access, access) {
            (Some(known), Some(access)) => Rc::ptr_eq(known, access),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let mut earlier = mem::take(&mut self.all);
        self.access = access.cloned();
        for what in authorities.filter_map(|config| wanted(config, listeners)) {
            let known = earlier.iter().position(|known| is_same && *known.what() == what);
            let registration = match (known, access) {
                (Some(at), _) => earlier.swap_remove(at),
                (None, Some(access)) => {
                    let lease = leases.iter().find(|lease| lease.authority == what.authority).map(|lease| lease.lease);
                    Rc::new(Registration::start(what, Rc::clone(access), lease, &self.tasks))
                }
                // The config check refuses this.
                (None, None) => continue,
            };
            self.all.push(registration);
        }
        for gone in earlier {
            self.tasks.start_and_leave(TaskKind::Discovery, async move { gone.end().await });
        }
    }

    /// Notes which authorities serve all their zones.
    pub(super) fn note_served(&self, is_served: impl Fn(&str) -> bool) {
        let ready = self.all.iter().filter(|known| !known.is_served() && is_served(&known.what().authority));
        ready.for_each(|known| known.set_served());
    }

    pub(in crate::control) fn leases(&self) -> Vec<Lease> {
        let lease =
            |known: &Rc<Registration>| Some(Lease { authority: known.what().authority.clone(), lease: known.lease()? });
        self.all.iter().filter_map(lease).collect()
    }

    pub(in crate::control) fn registered(&self) -> Vec<(String, bool)> {
        self.all.iter().map(|known| (known.what().authority.clone(), known.is_registered())).collect()
    }

    /// Takes the registrations out, to end them.
    pub(in crate::control) fn take(&mut self) -> Self {
        let rest = Self::new(self.tasks.clone());
        mem::replace(self, rest)
    }

    /// Announces the end of all at once. Returns the time that clients need to notice; zero without an
    /// announcement.
    pub(in crate::control) async fn drain(&self) -> Duration {
        let announced = self.each(async |registration| registration.drain().await).await;
        if announced.contains(&true) { SEEN } else { Duration::ZERO }
    }

    pub(in crate::control) async fn end(self) {
        self.each(async |registration| registration.end().await).await;
    }

    /// Does the same for all registrations at once, and returns the results.
    async fn each<T: 'static>(&self, work: impl AsyncFn(Rc<Registration>) -> T + Copy + 'static) -> Vec<T> {
        let (sender, mut results) = unbounded_channel();
        for registration in self.all.iter().map(Rc::clone) {
            let sender = sender.clone();
            self.tasks.start_and_leave(TaskKind::Discovery, async move {
                let _ = sender.send(work(registration).await);
            });
        }
        drop(sender);
        let mut all = Vec::new();
        while let Some(result) = results.recv().await {
            all.push(result);
        }
        all
    }
}

fn wanted(config: &AuthorityConfig, listeners: &Listeners) -> Option<RegistrationSettings> {
    let register = config.register.as_ref()?;
    let section = listeners.section(&SectionName::Authority(config.name.clone()));
    let bound: Option<SocketAddr> =
        section.and_then(|section| section.addresses.first()).map(|address| address.bound());
    let address = register.address.or(bound)?;
    let entry = MemberEntry {
        address: address.into(),
        name: register.name.clone(),
        weight: Some(register.weight),
        is_draining: false,
    };
    Some(RegistrationSettings {
        authority: config.name.clone(),
        key: register.etcd.clone(),
        entry,
        lease: register.lease,
        wait: register.wait,
    })
}

/// The time that clients get to switch after the announcement of an end.
const SEEN: Duration = Duration::from_millis(500);
