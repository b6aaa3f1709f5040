//! The authorities that tell where they are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::super::Server;
use super::super::authorities::ServedAuthority;
use super::super::listeners::{Listeners, SectionName};
use crate::config::AuthorityConfig;
use crate::discover::Entry;
use crate::discover::etcd::LeaseId;
use crate::discoverer::{EtcdAccess, Registered, Registration};
use crate::net::tasks::{TaskKind, Tasks};

/// The lease of an authority, for the process that serves after this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::server) struct Lease {
    authority: String,
    lease: LeaseId,
}

/// All that are registered.
pub(in crate::server) struct Registrations {
    all: Vec<Registration>,
    /// The etcd that they are registered in.
    access: Option<Rc<EtcdAccess>>,
    tasks: Tasks,
}

impl Registrations {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { all: Vec::new(), access: None, tasks }
    }

    /// Registers these and no others. Those that have not changed go on; `leases` are those that an earlier process has left.
    fn set(&mut self, wanted: Vec<Registered>, access: Option<&Rc<EtcdAccess>>, leases: &[Lease]) {
        let is_same = match (&self.access, access) {
            (Some(known), Some(access)) => Rc::ptr_eq(known, access),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let mut earlier = std::mem::take(&mut self.all);
        self.access = access.cloned();
        for what in wanted {
            let known = earlier.iter().position(|known| is_same && *known.what() == what);
            let registration = match (known, access) {
                (Some(at), _) => earlier.swap_remove(at),
                (None, Some(access)) => {
                    let lease = leases.iter().find(|lease| lease.authority == what.authority).map(|lease| lease.lease);
                    Registration::start(what, Rc::clone(access), lease, &self.tasks)
                }
                // Refused by the config.
                (None, None) => continue,
            };
            self.all.push(registration);
        }
        for gone in earlier {
            self.tasks.start_and_leave(TaskKind::Discovery, async move { gone.end().await });
        }
    }

    /// Their leases.
    pub(in crate::server) fn leases(&self) -> Vec<Lease> {
        let lease =
            |known: &Registration| Some(Lease { authority: known.what().authority.clone(), lease: known.lease()? });
        self.all.iter().filter_map(lease).collect()
    }

    /// Which of them are listed.
    pub(in crate::server) fn registered(&self) -> Vec<(String, bool)> {
        self.all.iter().map(|known| (known.what().authority.clone(), known.is_registered())).collect()
    }

    /// Takes them out, to be ended.
    pub(in crate::server) fn take(&mut self) -> Ending {
        Ending { all: std::mem::take(&mut self.all).into_iter().map(Rc::new).collect(), tasks: self.tasks.clone() }
    }
}

/// Registrations that end.
pub(in crate::server) struct Ending {
    all: Vec<Rc<Registration>>,
    tasks: Tasks,
}

impl Ending {
    /// Says that they are about to end, all at once. Says how long others need to see that; nothing, if nobody was told.
    pub(in crate::server) async fn drain(&self) -> Duration {
        let mut answers = Vec::new();
        for registration in &self.all {
            let (done, told) = oneshot::channel();
            let registration = Rc::clone(registration);
            self.tasks.start_and_leave(TaskKind::Discovery, async move {
                let _ = done.send(registration.drain().await);
            });
            answers.push(told);
        }
        let mut is_told = false;
        for answer in answers {
            is_told |= answer.await.unwrap_or(false);
        }
        if is_told { SEEN } else { Duration::ZERO }
    }

    /// Ends them, all at once.
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

impl Server {
    /// Registers the authorities as they are now.
    pub(in crate::server) fn register_authorities(&mut self, leases: &[Lease]) {
        let wanted = self.authorities.iter().filter_map(|served| wanted(served.config(), &self.listeners)).collect();
        let access = self.membership.discoverer.access().cloned();
        self.membership.registrations.set(wanted, access.as_ref(), leases);
        self.note_served_zones();
    }

    /// Tells those whose zones are all served.
    pub(in crate::server) fn note_served_zones(&self) {
        for registration in self.membership.registrations.all.iter().filter(|known| !known.is_served()) {
            let served = self.authorities.iter().find(|served| served.name() == registration.what().authority);
            if served.is_some_and(|served: &ServedAuthority| served.all_zones().all(|(_, zone, _)| zone.is_served())) {
                registration.set_served();
            }
        }
    }
}

/// What is registered of an authority, if anything is.
fn wanted(config: &AuthorityConfig, listeners: &Listeners) -> Option<Registered> {
    let register = config.register.as_ref()?;
    let section = listeners.section(&SectionName::Authority(config.name.clone()));
    let bound: Option<SocketAddr> =
        section.and_then(|section| section.addresses.first()).map(|address| address.bound());
    let address = register.address.or(bound)?;
    let entry = Entry {
        address: address.into(),
        name: register.name.clone(),
        weight: Some(register.weight),
        is_draining: false,
    };
    Some(Registered {
        authority: config.name.clone(),
        key: register.etcd.clone(),
        entry,
        lease: register.lease,
        wait: register.wait,
    })
}

/// How long whoever was told of an end is given to ask elsewhere.
const SEEN: Duration = Duration::from_millis(500);
