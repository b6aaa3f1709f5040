//! Signs of life: every few seconds an endpoint is asked whether it is there and has a leader, once for all who follow keys by it.
//!
//! A watch that is silent says nothing of the endpoint that it is at, and what another endpoint says is of no use to it: so each endpoint
//! that somebody follows keys by has a task of its own, for as long as somebody does.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::client::{Client, EtcdAccess};
use crate::discover::etcd::{self, EtcdError};
use crate::net::tasks::{Task, TaskKind, Tasks};

/// The endpoints of one etcd that are asked.
pub(in crate::discoverer) struct Signs {
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    asked: RefCell<HashMap<usize, Weak<Asked>>>,
}

/// One endpoint that is asked.
struct Asked {
    latest: watch::Receiver<Option<Sign>>,
    /// Ends with this value.
    _task: Task,
}

/// What an endpoint has said.
#[derive(Clone, Debug)]
pub(super) struct Sign {
    /// When it was asked.
    pub(super) asked: Instant,
    /// Its revision, or why there is none.
    pub(super) said: Result<i64, EtcdError>,
}

/// Hears the signs of one endpoint.
pub(super) struct Listener {
    latest: watch::Receiver<Option<Sign>>,
    _asked: Rc<Asked>,
}

impl Signs {
    /// Nobody is asked yet.
    pub(in crate::discoverer) fn new(access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        Self { access, tasks, asked: RefCell::default() }
    }

    /// Hears the signs of an endpoint from now on. Whoever is the first says below which prefix he may read.
    pub(super) fn listen(&self, endpoint: usize, prefix: &str) -> Listener {
        let mut all = self.asked.borrow_mut();
        let asked = all.get(&endpoint).and_then(Weak::upgrade).unwrap_or_else(|| {
            let asked = Rc::new(self.ask(endpoint, prefix));
            all.insert(endpoint, Rc::downgrade(&asked));
            asked
        });
        let mut latest = asked.latest.clone();
        latest.mark_unchanged();
        Listener { latest, _asked: asked }
    }

    /// Asks an endpoint for as long as somebody listens.
    fn ask(&self, endpoint: usize, prefix: &str) -> Asked {
        let mut client = Client::at(endpoint, Rc::clone(&self.access), self.tasks.clone());
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
        Asked { latest, _task: task }
    }
}

impl Listener {
    /// The next sign. Loses nothing if it is dropped.
    pub(super) async fn next(&mut self) -> Sign {
        loop {
            if self.latest.changed().await.is_err() {
                // The task lives for as long as we hold it.
                std::future::pending::<()>().await;
            }
            if let Some(sign) = self.latest.borrow_and_update().clone() {
                return sign;
            }
        }
    }
}

/// How often it is asked whether etcd is there and has a leader: so that it is known within 5 s when it is not, time limit included.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
