//! The registrations of our authorities in etcd.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::AuthorityConfig;
use crate::discover::MemberEntry;
use crate::discover::etcd::LeaseId;
use crate::discoverer::{EtcdAccess, Registration, RegistrationSettings};
use crate::net::tasks::{TaskKind, Tasks};
use crate::server::process::{Listeners, SectionName};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::server) struct Lease {
    authority: String,
    lease: LeaseId,
}

pub(in crate::server) struct Registrations {
    all: Vec<Registration>,
    access: Option<Rc<EtcdAccess>>,
    tasks: Tasks,
}

impl Registrations {
    pub(in crate::server) fn new(tasks: Tasks) -> Self {
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
        let mut earlier = std::mem::take(&mut self.all);
        self.access = access.cloned();
        for what in authorities.filter_map(|config| wanted(config, listeners)) {
            let known = earlier.iter().position(|known| is_same && *known.what() == what);
            let registration = match (known, access) {
                (Some(at), _) => earlier.swap_remove(at),
                (None, Some(access)) => {
                    let lease = leases.iter().find(|lease| lease.authority == what.authority).map(|lease| lease.lease);
                    Registration::start(what, Rc::clone(access), lease, &self.tasks)
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
        ready.for_each(Registration::set_served);
    }

    pub(in crate::server) fn leases(&self) -> Vec<Lease> {
        let lease =
            |known: &Registration| Some(Lease { authority: known.what().authority.clone(), lease: known.lease()? });
        self.all.iter().filter_map(lease).collect()
    }

    pub(in crate::server) fn registered(&self) -> Vec<(String, bool)> {
        self.all.iter().map(|known| (known.what().authority.clone(), known.is_registered())).collect()
    }

    pub(in crate::server) fn take(&mut self) -> RegistrationsEnd {
        RegistrationsEnd {
            all: std::mem::take(&mut self.all).into_iter().map(Rc::new).collect(),
            tasks: self.tasks.clone(),
        }
    }
}

pub(in crate::server) struct RegistrationsEnd {
    all: Vec<Rc<Registration>>,
    tasks: Tasks,
}

impl RegistrationsEnd {
    /// Announces the end of all at once. Returns the time that clients need to notice; zero without an
    /// announcement.
    pub(in crate::server) async fn drain(&self) -> Duration {
        let mut answers = Vec::new();
        for registration in &self.all {
            let (done, announced) = oneshot::channel();
            let registration = Rc::clone(registration);
            self.tasks.start_and_leave(TaskKind::Discovery, async move {
                let _ = done.send(registration.drain().await);
            });
            answers.push(announced);
        }
        let mut is_announced = false;
        for answer in answers {
            is_announced |= answer.await.unwrap_or(false);
        }
        if is_announced { SEEN } else { Duration::ZERO }
    }

    pub(in crate::server) async fn end(self) {
        let mut answers = Vec::new();
        for registration in self.all {
            let (done, ended) = oneshot::channel::<()>();
            self.tasks.start_and_leave(TaskKind::Discovery, async move {
                registration.end().await;
                drop(done);
            });
            answers.push(ended);
        }
        for answer in answers {
            let _ = answer.await;
        }
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
