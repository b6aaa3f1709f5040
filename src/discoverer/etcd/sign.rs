//! Checks every few seconds that an endpoint is up and has a leader, once for all followers
//! of that endpoint.
//!
//! A silent watch says nothing about its endpoint, and neither does another endpoint. So each endpoint with
//! followers has a task, which ends with the last follower.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::client::{EtcdAccess, EtcdClient};
use crate::discover::etcd::{self, EtcdError};
use crate::net::tasks::{Task, TaskKind, Tasks};

/// The endpoints of one etcd that are checked.
pub(in crate::discoverer) struct Signs {
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    asked: RefCell<HashMap<usize, Weak<SignTask>>>,
}

struct SignTask {
    latest: watch::Receiver<Option<Sign>>,
    _task: Task,
}

#[derive(Clone, Debug)]
pub(super) struct Sign {
    pub(super) asked: Instant,
    pub(super) said: Result<i64, EtcdError>,
}

/// Receives the results for one endpoint.
pub(super) struct SignListener {
    latest: watch::Receiver<Option<Sign>>,
    _asked: Rc<SignTask>,
}

impl Signs {
    pub(in crate::discoverer) fn new(access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        Self { access, tasks, asked: RefCell::default() }
    }

    /// Subscribes to an endpoint. The first subscriber decides on the prefix that is read.
    pub(super) fn listen(&self, endpoint: usize, prefix: &str) -> SignListener {
        let mut all = self.asked.borrow_mut();
        let asked = all.get(&endpoint).and_then(Weak::upgrade).unwrap_or_else(|| {
            let asked = Rc::new(self.ask(endpoint, prefix));
            all.insert(endpoint, Rc::downgrade(&asked));
            asked
        });
        let mut latest = asked.latest.clone();
        latest.mark_unchanged();
        SignListener { latest, _asked: asked }
    }

    fn ask(&self, endpoint: usize, prefix: &str) -> SignTask {
        let mut client = EtcdClient::at(endpoint, Rc::clone(&self.access), self.tasks.clone());
        let (sender, latest) = watch::channel(None);
        let request = etcd::count(prefix);
        let task = self.tasks.start(TaskKind::Discovery, async move {
            loop {
                sleep_until((Instant::now() + SIGN_OF_LIFE).into()).await;
                let asked = Instant::now();
                let reply = client.call_here(&request).await;
                let said = reply.and_then(|reply| Ok(etcd::read_page(&reply)?.revision));
                sender.send_replace(Some(Sign { asked, said }));
            }
        });
        SignTask { latest, _task: task }
    }
}

impl SignListener {
    /// Returns the next result. Cancel safe.
    pub(super) async fn next(&mut self) -> Sign {
        loop {
            if self.latest.changed().await.is_err() {
                // The task lives as long as the listener holds it.
                std::future::pending::<()>().await;
            }
            if let Some(sign) = self.latest.borrow_and_update().clone() {
                return sign;
            }
        }
    }
}

/// The interval of checks: with the timeout, a failure is known within 5 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
