//! Registers an authority: a key under a lease, for as long as it serves.
//!
//! ```text
//!   wait until all zones are served ──▶ grant a lease, claim the key ──▶ renew it, each third of the lease
//!                                            ▲        │ another holds it         │ gone
//!                                            └────────┴──────────────────────────┘
//!   shutdown: write "draining" ──▶ (drain_delay) ──▶ revoke the lease, which deletes the key
//! ```
//!
//! Registration never delays the end of the process: without etcd the lease expires by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::client::{EtcdAccess, EtcdClient};
use crate::backoff::Backoff;
use crate::discover::MemberEntry;
use crate::discover::etcd::{self, EtcdError, LeaseId};
use crate::discoverer::{FIRST_BACKOFF, random_wait};
use crate::net::tasks::{Task, TaskKind, Tasks};

/// The settings of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// The name of the authority in the config.
    pub authority: String,
    /// The key under which members are listed.
    pub key: String,
    /// The entry to register.
    pub entry: MemberEntry,
    /// The lifetime of the registration without renewal.
    pub lease: Duration,
    /// The longest wait for zones.
    pub wait: Duration,
}

/// A registered authority.
pub struct Registration {
    shared: Rc<RegistrationState>,
    _task: Task,
}

struct RegistrationState {
    what: RegistrationSettings,
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    is_served: Cell<bool>,
    is_registered: Cell<bool>,
    is_draining: Cell<bool>,
    lease: Cell<Option<LeaseId>>,
    wake: Notify,
    /// Signals that "draining" is written.
    announced: Notify,
    is_announced: Cell<bool>,
    complaint: RefCell<String>,
}

impl Registration {
    /// Registers once all zones are served. `lease` is one that an earlier process has left.
    pub fn start(what: RegistrationSettings, access: Rc<EtcdAccess>, lease: Option<LeaseId>, tasks: &Tasks) -> Self {
        let shared = Rc::new(RegistrationState {
            what,
            access,
            tasks: tasks.clone(),
            is_served: Cell::new(false),
            is_registered: Cell::new(false),
            is_draining: Cell::new(false),
            lease: Cell::new(lease),
            wake: Notify::new(),
            announced: Notify::new(),
            is_announced: Cell::new(false),
            complaint: RefCell::default(),
        });
        let task = tasks.start(TaskKind::Discovery, Rc::clone(&shared).run());
        Self { shared, _task: task }
    }

    /// Returns the settings of the registration.
    pub fn what(&self) -> &RegistrationSettings {
        &self.shared.what
    }

    /// Returns true if it is listed, as far as etcd has confirmed.
    pub fn is_registered(&self) -> bool {
        self.shared.is_registered.get()
    }

    /// Returns the current lease, for the successor process.
    pub fn lease(&self) -> Option<LeaseId> {
        self.shared.lease.get()
    }

    /// Returns true if all zones were served once.
    pub fn is_served(&self) -> bool {
        self.shared.is_served.get()
    }

    /// Notes that all zones are served.
    pub fn set_served(&self) {
        if !self.shared.is_served.replace(true) {
            self.shared.wake.notify_one();
        }
    }

    /// Writes "draining" within a short timeout. Returns true if that succeeded.
    pub async fn drain(&self) -> bool {
        self.shared.is_draining.set(true);
        if !self.is_registered() {
            return false;
        }
        self.shared.wake.notify_one();
        timeout(END_PATIENCE, self.shared.announced.notified()).await.is_ok() && self.shared.is_announced.get()
    }

    /// Removes the registration within a short timeout.
    pub async fn end(&self) {
        self.shared.is_draining.set(true);
        let Some(lease) = self.lease() else { return };
        let mut client = EtcdClient::new(Rc::clone(&self.shared.access), self.shared.tasks.clone());
        let ended = timeout(END_PATIENCE, client.call(&etcd::revoke(lease))).await;
        let authority = &self.shared.what.authority;
        match ended {
            Ok(Ok(_)) => tracing::info!(authority, "no longer registered"),
            Ok(Err(error)) => tracing::warn!(authority, %error, "the registration stays until its lease expires"),
            Err(_) => {
                tracing::warn!(authority, "etcd is not reachable: the registration stays until its lease expires")
            }
        }
    }
}

impl RegistrationState {
    async fn run(self: Rc<Self>) {
        self.wait_for_zones().await;
        let mut client = EtcdClient::new(Rc::clone(&self.access), self.tasks.clone());
        let (mut backoff, mut rng) = (Backoff::new(FIRST_BACKOFF), SmallRng::from_rng(&mut rand::rng()));
        while !self.is_draining.get() {
            let wait = match self.claim(&mut client).await {
                Ok(true) => {
                    backoff.reset();
                    self.complaint.borrow_mut().clear();
                    self.keep(&mut client).await;
                    Duration::ZERO
                }
                Ok(false) => self.third(),
                Err(error) => {
                    self.complain(format!("the authority cannot be registered: {error}"));
                    random_wait(&mut backoff, &mut rng)
                }
            };
            self.is_registered.set(false);
            tokio::select! {
                () = sleep_until((Instant::now() + wait).into()) => {}
                () = self.wake.notified() => {}
            }
        }
        self.announced.notify_one();
    }

    async fn wait_for_zones(&self) {
        let deadline = Instant::now() + self.what.wait;
        while !self.is_served.get() && !self.is_draining.get() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(deadline.into()) => {
                    let authority = &self.what.authority;
                    return tracing::warn!(authority, "not all zones are served after {:?}: the authority is registered anyway", self.what.wait);
                }
            }
        }
    }

    /// Writes the key under a lease. Returns false if another living instance has it.
    async fn claim(&self, client: &mut EtcdClient) -> Result<bool, EtcdError> {
        let lease = match self.lease.get() {
            Some(lease) if etcd::read_keep_alive(&client.call(&etcd::keep_alive(lease)).await?)? => lease,
            Some(_) | None => {
                let granted = client.call(&etcd::grant(self.what.lease.as_secs())).await?;
                etcd::read_grant(&granted)?
            }
        };
        self.lease.set(Some(lease));
        let (key, value) = (self.key(), self.what.entry.to_json());
        for request in etcd::claim(&key, &value, lease) {
            let Some(_held) = etcd::read_claim(&client.call(&request).await?)? else {
                self.is_registered.set(true);
                tracing::info!(authority = self.what.authority, key, "registered");
                return Ok(true);
            };
        }
        self.complain(format!("{key} belongs to another instance: registration waits until its lease ends"));
        Ok(false)
    }

    /// Renews the lease until it is lost, or while draining.
    async fn keep(&self, client: &mut EtcdClient) {
        let mut kept = Instant::now();
        let mut next = self.third();
        loop {
            tokio::select! {
                () = sleep_until((Instant::now() + next).into()) => {}
                () = self.wake.notified() => {}
            }
            if self.is_draining.get() && !self.is_announced.get() {
                self.announce_end(client).await;
            }
            match self.is_kept(client).await {
                Ok(true) => {
                    kept = Instant::now();
                    next = self.third();
                    self.complaint.borrow_mut().clear();
                }
                Ok(false) if self.is_draining.get() => return,
                Ok(false) => {
                    return tracing::warn!(
                        authority = self.what.authority,
                        "the key in etcd is gone: the authority registers again"
                    );
                }
                Err(error) => {
                    self.complain(format!("the lease in etcd cannot be renewed: {error}"));
                    if kept.elapsed() >= self.what.lease {
                        return;
                    }
                    next = RETRY;
                }
            }
        }
    }

    /// Returns true if lease and key exist and are this instance's.
    async fn is_kept(&self, client: &mut EtcdClient) -> Result<bool, EtcdError> {
        let Some(lease) = self.lease.get() else { return Ok(false) };
        if !etcd::read_keep_alive(&client.call(&etcd::keep_alive(lease)).await?)? {
            return Ok(false);
        }
        // The key may be deleted while the lease still exists.
        let page = etcd::read_page(&client.call(&etcd::get(&self.key())).await?)?;
        Ok(page.items.iter().any(|item| item.lease == lease))
    }

    async fn announce_end(&self, client: &mut EtcdClient) {
        let entry = MemberEntry { is_draining: true, ..self.what.entry.clone() };
        match client.call(&etcd::put(&self.key(), &entry.to_json(), self.lease.get())).await {
            Ok(_) => self.is_announced.set(true),
            Err(error) => self.complain(format!("the end of this authority cannot be announced in etcd: {error}")),
        }
        self.announced.notify_one();
    }

    fn key(&self) -> String {
        format!("{}{}", self.access.members_prefix(&self.what.key), self.what.entry.address)
    }

    fn third(&self) -> Duration {
        self.what.lease / 3
    }

    fn complain(&self, complaint: String) {
        if *self.complaint.borrow() != complaint {
            tracing::warn!(authority = self.what.authority, "{complaint}");
            *self.complaint.borrow_mut() = complaint;
        }
    }
}

/// The time limit for etcd at the end of the process, for each of its two requests.
const END_PATIENCE: Duration = Duration::from_millis(250);

const RETRY: Duration = Duration::from_millis(500);
