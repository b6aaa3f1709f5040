//! Registering an authority: a key under a lease, for as long as it serves.
//!
//! ```text
//!   wait until all zones are served ──▶ grant a lease, claim the key ──▶ keep it, each third of the lease
//!                                            ▲        │ another holds it         │ gone
//!                                            └────────┴──────────────────────────┘
//!   told to end: write "draining" ──▶ (drain_delay) ──▶ revoke the lease, and the key is gone
//! ```
//!
//! None of it may delay the end of the process: without etcd the lease ends by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::client::{Client, EtcdAccess};
use crate::discover::etcd::{self, EtcdError, LeaseId};
use crate::discover::{Backoff, Entry};
use crate::net::tasks::{Task, TaskKind, Tasks};

/// What is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The name of the authority in the config.
    pub authority: String,
    /// The key that members are listed under.
    pub key: String,
    /// What is told of it.
    pub entry: Entry,
    /// How long it is listed without a sign of life.
    pub lease: Duration,
    /// How long zones are waited for.
    pub wait: Duration,
}

/// An authority that tells where it is.
pub struct Registration {
    shared: Rc<Shared>,
    /// Ends with this value.
    _task: Task,
}

/// What the task and its owner share.
struct Shared {
    what: Registered,
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    /// All zones are served.
    is_served: Cell<bool>,
    is_registered: Cell<bool>,
    /// It is about to end.
    is_draining: Cell<bool>,
    lease: Cell<Option<LeaseId>>,
    /// Wakes the task.
    wake: Notify,
    /// Wakes who waits for the word that it is about to end.
    told: Notify,
    is_told: Cell<bool>,
    /// What was complained of last, so that it is said once.
    complaint: RefCell<String>,
}

impl Registration {
    /// Registers, once all zones are served. `lease` is one that an earlier process has left.
    pub fn start(what: Registered, access: Rc<EtcdAccess>, lease: Option<LeaseId>, tasks: &Tasks) -> Self {
        let shared = Rc::new(Shared {
            what,
            access,
            tasks: tasks.clone(),
            is_served: Cell::new(false),
            is_registered: Cell::new(false),
            is_draining: Cell::new(false),
            lease: Cell::new(lease),
            wake: Notify::new(),
            told: Notify::new(),
            is_told: Cell::new(false),
            complaint: RefCell::default(),
        });
        let task = tasks.start(TaskKind::Discovery, Rc::clone(&shared).run());
        Self { shared, _task: task }
    }

    /// What is registered.
    pub fn what(&self) -> &Registered {
        &self.shared.what
    }

    /// Whether it is listed, as far as etcd has told.
    pub fn is_registered(&self) -> bool {
        self.shared.is_registered.get()
    }

    /// The lease that it is under, for the process that comes after this one.
    pub fn lease(&self) -> Option<LeaseId> {
        self.shared.lease.get()
    }

    /// Whether all its zones were served once.
    pub fn is_served(&self) -> bool {
        self.shared.is_served.get()
    }

    /// All its zones are served.
    pub fn set_served(&self) {
        if !self.shared.is_served.replace(true) {
            self.shared.wake.notify_one();
        }
    }

    /// Says that it is about to end. Returns whether that was written, for which it is not waited long.
    pub async fn drain(&self) -> bool {
        self.shared.is_draining.set(true);
        if !self.is_registered() {
            return false;
        }
        self.shared.wake.notify_one();
        timeout(END_PATIENCE, self.shared.told.notified()).await.is_ok() && self.shared.is_told.get()
    }

    /// Is listed no more, for which it is not waited long.
    pub async fn end(&self) {
        self.shared.is_draining.set(true);
        let Some(lease) = self.lease() else { return };
        let mut client = Client::new(Rc::clone(&self.shared.access), self.shared.tasks.clone());
        let ended = timeout(END_PATIENCE, client.call(&etcd::revoke(lease))).await;
        let authority = &self.shared.what.authority;
        match ended {
            Ok(Ok(_)) => tracing::info!(authority, "no longer registered"),
            Ok(Err(error)) => tracing::warn!(authority, %error, "its lease is left to end by itself"),
            Err(_) => tracing::warn!(authority, "etcd is away: its lease is left to end by itself"),
        }
    }
}

impl Shared {
    async fn run(self: Rc<Self>) {
        self.wait_for_zones().await;
        let mut client = Client::new(Rc::clone(&self.access), self.tasks.clone());
        let (mut backoff, mut rng) = (Backoff::default(), SmallRng::from_rng(&mut rand::rng()));
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
                    self.complain(format!("cannot be registered: {error}"));
                    backoff.next(&mut rng)
                }
            };
            self.is_registered.set(false);
            tokio::select! {
                () = sleep_until((Instant::now() + wait).into()) => {}
                () = self.wake.notified() => {}
            }
        }
        self.told.notify_one();
    }

    /// Waits until all zones are served, but not for ever.
    async fn wait_for_zones(&self) {
        let deadline = Instant::now() + self.what.wait;
        while !self.is_served.get() && !self.is_draining.get() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(deadline.into()) => {
                    let authority = &self.what.authority;
                    return tracing::warn!(authority, "not all zones are served after {:?}: it is registered even so", self.what.wait);
                }
            }
        }
    }

    /// Writes the key under a lease. Says whether it is ours; false: another living instance has it.
    async fn claim(&self, client: &mut Client) -> Result<bool, EtcdError> {
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
        self.complain(format!("{key} is held by another instance: it is left alone until its lease ends"));
        Ok(false)
    }

    /// Keeps the key until it is lost, or for as long as it is about to end.
    async fn keep(&self, client: &mut Client) {
        let mut kept = Instant::now();
        let mut next = self.third();
        loop {
            tokio::select! {
                () = sleep_until((Instant::now() + next).into()) => {}
                () = self.wake.notified() => {}
            }
            if self.is_draining.get() && !self.is_told.get() {
                self.tell_end(client).await;
            }
            match self.is_kept(client).await {
                Ok(true) => {
                    kept = Instant::now();
                    next = self.third();
                    self.complaint.borrow_mut().clear();
                }
                Ok(false) if self.is_draining.get() => return,
                Ok(false) => {
                    return tracing::warn!(authority = self.what.authority, "its key is gone: it is registered anew");
                }
                Err(error) => {
                    self.complain(format!("its lease is not kept: {error}"));
                    if kept.elapsed() >= self.what.lease {
                        return;
                    }
                    next = RETRY;
                }
            }
        }
    }

    /// Whether lease and key are there, and ours.
    async fn is_kept(&self, client: &mut Client) -> Result<bool, EtcdError> {
        let Some(lease) = self.lease.get() else { return Ok(false) };
        if !etcd::read_keep_alive(&client.call(&etcd::keep_alive(lease)).await?)? {
            return Ok(false);
        }
        // Somebody may have removed the key and left the lease.
        let page = etcd::read_page(&client.call(&etcd::get(&self.key())).await?)?;
        Ok(page.items.iter().any(|item| item.lease == lease))
    }

    /// Writes that it is about to end.
    async fn tell_end(&self, client: &mut Client) {
        let entry = Entry { is_draining: true, ..self.what.entry.clone() };
        match client.call(&etcd::put(&self.key(), &entry.to_json(), self.lease.get())).await {
            Ok(_) => self.is_told.set(true),
            Err(error) => self.complain(format!("cannot say that it is about to end: {error}")),
        }
        self.told.notify_one();
    }

    fn key(&self) -> String {
        format!("{}{}", self.access.members_prefix(&self.what.key), self.what.entry.address)
    }

    fn third(&self) -> Duration {
        self.what.lease / 3
    }

    /// Says what is wrong, once.
    fn complain(&self, complaint: String) {
        if *self.complaint.borrow() != complaint {
            tracing::warn!(authority = self.what.authority, "{complaint}");
            *self.complaint.borrow_mut() = complaint;
        }
    }
}

/// How long the end of a process waits for etcd, for each of the two things that it has to say.
const END_PATIENCE: Duration = Duration::from_millis(250);

/// When a lease that could not be kept is tried again.
const RETRY: Duration = Duration::from_millis(500);
