//! Checks every few seconds that an endpoint is up and has a leader, once for all followers
//! of that endpoint.
//!
//! A silent watch says nothing about its endpoint, and neither does another endpoint. So each endpoint with
//! followers has a task, which ends with the last follower.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use net::tasks::{Task, TaskKind, Tasks};
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::client::{EtcdAccess, EtcdClient};
use crate::control::pools::discover::etcd::{self, EtcdError};

/// The endpoints of one etcd that are checked.
pub(in crate::control::pools::discoverer) struct Signs {
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    checks: RefCell<HashMap<usize, Weak<EndpointCheck>>>,
}

struct EndpointCheck {
    latest: watch::Receiver<Option<Sign>>,
    _task: Task,
}

/// The result of a check: the current revision of the endpoint.
#[derive(Clone, Debug)]
pub(super) struct Sign {
    pub(super) asked: Instant,
    pub(super) revision: Result<i64, EtcdError>,
}

/// Receives the results for one endpoint.
pub(super) struct SignListener {
    latest: watch::Receiver<Option<Sign>>,
    _check: Rc<EndpointCheck>,
}

impl Signs {
    pub(in crate::control::pools::discoverer) fn new(access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        Self { access, tasks, checks: RefCell::default() }
    }

    /// Subscribes to an endpoint. The first subscriber decides on the prefix that is read.
    pub(super) fn listen(&self, endpoint: usize, prefix: &str) -> SignListener {
        let mut checks = self.checks.borrow_mut();
        let check = checks.get(&endpoint).and_then(Weak::upgrade).unwrap_or_else(|| {
            let check = Rc::new(self.check(endpoint, prefix));
            checks.insert(endpoint, Rc::downgrade(&check));
            check
        });
        let mut latest = check.latest.clone();
        latest.mark_unchanged();
        SignListener { latest, _check: check }
    }

    fn check(&self, endpoint: usize, prefix: &str) -> EndpointCheck {
        let mut client = EtcdClient::at(endpoint, Rc::clone(&self.access), self.tasks.clone());
        let (sender, latest) = watch::channel(None);
        let request = etcd::count(prefix);
        let task = self.tasks.start(TaskKind::Discovery, async move {
            loop {
                sleep_until((Instant::now() + SIGN_OF_LIFE).into()).await;
                let asked = Instant::now();
                let reply = client.call_here(&request).await;
                let revision = reply.and_then(|reply| Ok(etcd::read_page(&reply)?.header.revision));
                sender.send_replace(Some(Sign { asked, revision }));
            }
        });
        EndpointCheck { latest, _task: task }
    }
}

impl SignListener {
    /// Returns the next result. Cancel safe.
    pub(super) async fn next(&mut self) -> Sign {
        // The task, which sends the results, lives as long as the listener holds it.
        while self.latest.changed().await.is_ok() {
            if let Some(sign) = self.latest.borrow_and_update().clone() {
                return sign;
            }
        }
        std::future::pending().await
    }
}

/// The interval of checks: with the timeout, a failure is known within 5 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
