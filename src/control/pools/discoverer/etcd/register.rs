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

use hedge::backoff::Backoff;
use net::tasks::{Task, TaskKind, Tasks};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::client::{EtcdAccess, EtcdClient};
use crate::control::pools::discover::MemberEntry;
use crate::control::pools::discover::etcd::{self, EtcdError, EtcdRequest, LeaseId};
use crate::control::pools::discoverer::{FIRST_BACKOFF, random_wait};

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
    state: Rc<RegistrationState>,
    _task: Task,
}

struct RegistrationState {
    settings: RegistrationSettings,
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    is_served: Cell<bool>,
    is_registered: Cell<bool>,
    is_draining: Cell<bool>,
    lease: Cell<Option<LeaseId>>,
    wake: Notify,
    complaint: RefCell<String>,
}

impl Registration {
    /// Registers once all zones are served. `lease` is one that an earlier process has left.
    pub fn start(
        settings: RegistrationSettings,
        access: Rc<EtcdAccess>,
        lease: Option<LeaseId>,
        tasks: &Tasks,
    ) -> Self {
        let state = Rc::new(RegistrationState {
            settings,
            access,
            tasks: tasks.clone(),
            is_served: Cell::new(false),
            is_registered: Cell::new(false),
            is_draining: Cell::new(false),
            lease: Cell::new(lease),
            wake: Notify::new(),
            complaint: RefCell::default(),
        });
        let task = tasks.start(TaskKind::Discovery, Rc::clone(&state).run());
        Self { state, _task: task }
    }

    /// Returns the settings of the registration.
    pub fn what(&self) -> &RegistrationSettings {
        &self.state.settings
    }

    /// Returns true if it is listed, as far as etcd has confirmed.
    pub fn is_registered(&self) -> bool {
        self.state.is_registered.get()
    }

    /// Returns the current lease, for the successor process.
    pub fn lease(&self) -> Option<LeaseId> {
        self.state.lease.get()
    }

    /// Returns true if all zones were served once.
    pub fn is_served(&self) -> bool {
        self.state.is_served.get()
    }

    /// Notes that all zones are served.
    pub fn set_served(&self) {
        if !self.state.is_served.replace(true) {
            self.state.wake.notify_one();
        }
    }

    /// Writes "draining" within a short timeout. Returns true if that succeeded.
    pub async fn drain(&self) -> bool {
        let state = &self.state;
        state.is_draining.set(true);
        if !state.is_registered.get() {
            return false;
        }
        let entry = MemberEntry { is_draining: true, ..state.settings.entry.clone() };
        let announced = state.call_at_end(&etcd::put(&state.key(), &entry.to_json(), state.lease.get())).await;
        if let Err(error) = &announced {
            state.complain(format!("the end of this authority cannot be announced in etcd: {error}"));
        }
        announced.is_ok()
    }

    /// Removes the registration within a short timeout.
    pub async fn end(&self) {
        self.state.is_draining.set(true);
        let Some(lease) = self.lease() else { return };
        let authority = &self.state.settings.authority;
        match self.state.call_at_end(&etcd::revoke(lease)).await {
            Ok(()) => tracing::info!(authority, "no longer registered"),
            Err(error) => tracing::warn!(authority, %error, "the registration stays until its lease expires"),
        }
    }
}

impl RegistrationState {
    async fn run(self: Rc<Self>) {
        self.wait_for_zones().await;
        let mut client = EtcdClient::new(Rc::clone(&self.access), self.tasks.clone());
        let mut backoff = Backoff::new(FIRST_BACKOFF);
        let mut renewed = Instant::now();
        while self.is_registered.get() || !self.is_draining.get() {
            let wait = match self.renew(&mut client).await {
                Ok(is_registered) => {
                    self.is_registered.set(is_registered);
                    renewed = Instant::now();
                    if is_registered {
                        backoff.reset();
                        self.complaint.borrow_mut().clear();
                    }
                    self.settings.lease / 3
                }
                Err(error) if self.is_registered.get() => {
                    self.complain(format!("the lease in etcd cannot be renewed: {error}"));
                    self.is_registered.set(renewed.elapsed() < self.settings.lease);
                    RETRY
                }
                Err(error) => {
                    self.complain(format!("the authority cannot be registered: {error}"));
                    random_wait(&mut backoff)
                }
            };
            sleep_until((Instant::now() + wait).into()).await;
        }
    }

    async fn wait_for_zones(&self) {
        let deadline = Instant::now() + self.settings.wait;
        while !self.is_served.get() && !self.is_draining.get() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(deadline.into()) => {
                    let authority = &self.settings.authority;
                    return tracing::warn!(authority, "not all zones are served after {:?}: the authority is registered anyway", self.settings.wait);
                }
            }
        }
    }

    /// Renews the registration, or writes the key under a lease. Returns false if another living instance has
    /// the key, or if it is gone at the end.
    async fn renew(&self, client: &mut EtcdClient) -> Result<bool, EtcdError> {
        if self.is_registered.get() {
            let is_kept = self.is_kept(client).await?;
            if is_kept || self.is_draining.get() {
                return Ok(is_kept);
            }
            self.is_registered.set(false);
            let authority = &self.settings.authority;
            tracing::warn!(authority, "the key in etcd is gone: the authority registers again");
        }
        let lease = match self.lease.get() {
            Some(lease) if etcd::read_keep_alive(&client.call(&etcd::keep_alive(lease)).await?)? => lease,
            Some(_) | None => {
                let granted = client.call(&etcd::grant(self.settings.lease.as_secs())).await?;
                etcd::read_grant(&granted)?
            }
        };
        self.lease.set(Some(lease));
        let (key, value) = (self.key(), self.settings.entry.to_json());
        for request in etcd::claim(&key, &value, lease) {
            if etcd::read_claim(&client.call(&request).await?)? {
                tracing::info!(authority = self.settings.authority, key, "registered");
                return Ok(true);
            }
        }
        self.complain(format!("{key} belongs to another instance: registration waits until its lease ends"));
        Ok(false)
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

    /// Sends a request at the end of the process, within a short timeout.
    async fn call_at_end(&self, request: &EtcdRequest) -> Result<(), EtcdError> {
        let mut client = EtcdClient::new(Rc::clone(&self.access), self.tasks.clone());
        match timeout(END_PATIENCE, client.call(request)).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(EtcdError::Failed("etcd is not reachable".to_owned())),
        }
    }

    fn key(&self) -> String {
        format!("{}{}", self.access.members_prefix(&self.settings.key), self.settings.entry.address)
    }

    fn complain(&self, complaint: String) {
        if *self.complaint.borrow() != complaint {
            tracing::warn!(authority = self.settings.authority, "{complaint}");
            *self.complaint.borrow_mut() = complaint;
        }
    }
}

/// The time limit for etcd at the end of the process, for each of its two requests.
const END_PATIENCE: Duration = Duration::from_millis(250);

const RETRY: Duration = Duration::from_millis(500);
