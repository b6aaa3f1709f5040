//! Asks the sources of members, on the control thread: one task for each source, which sends news to the
//! owner of the rosters.
//!
//! [`discover`](crate::discover) has the protocols and decisions; here are connections, files and clocks.
//! Pools with the same source share its task. Queries never wait for it.

mod dns;
mod etcd;
mod file;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::sync::mpsc::Sender;

use self::dns::DnsSource;
pub use self::etcd::{EtcdAccess, OrderError, Registration, RegistrationSettings, write_order};
use self::etcd::{Follower, FollowerEvent, Signs};
use crate::backoff::Backoff;
use crate::config::{DiscoverConfig, DnsTarget};
use crate::discover::{BackendOrder, MemberEntry, MemberOrigin, SourceNews};
use crate::limit::OwnAddresses;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};

/// One source of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// Members registered under this key in etcd.
    Etcd(String),
    /// Members from a DNS name.
    Dns {
        /// The name to look up.
        target: Box<DnsTarget>,
        /// The resolvers; if empty, those of this host.
        resolvers: Vec<SocketAddr>,
    },
    /// Members from a file.
    File(PathBuf),
}

impl SourceSpec {
    /// Returns the sources of a pool.
    pub fn of(config: &DiscoverConfig) -> Vec<Self> {
        let etcd = config.etcd.clone().map(Self::Etcd);
        let dns = config
            .dns
            .clone()
            .map(|target| Self::Dns { target: Box::new(target), resolvers: config.resolvers.clone() });
        let file = config.file.clone().map(Self::File);
        [etcd, dns, file].into_iter().flatten().collect()
    }

    /// Returns the kind of the source.
    pub fn origin(&self) -> MemberOrigin {
        match self {
            Self::Etcd(_) => MemberOrigin::Etcd,
            Self::Dns { .. } => MemberOrigin::Dns,
            Self::File(_) => MemberOrigin::File,
        }
    }
}

impl std::fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Etcd(key) => write!(f, "etcd {key}"),
            Self::Dns { target, .. } => write!(f, "dns {target}"),
            Self::File(file) => write!(f, "file {}", file.display()),
        }
    }
}

/// A report from outside.
#[derive(Debug)]
pub enum DiscoveryReport {
    /// News of a source.
    Source(Rc<SourceSpec>, SourceNews),
    /// News of orders.
    Orders(SourceNews<BackendOrder>),
}

/// The tasks that ask the sources.
pub struct Discoverer {
    watches: Vec<SourceWatch>,
    orders: Option<Task>,
    access: Option<Rc<EtcdAccess>>,
    signs: Option<Rc<Signs>>,
    reports: Sender<DiscoveryReport>,
    tasks: Tasks,
    own: Rc<dyn Fn() -> OwnAddresses>,
}

struct SourceWatch {
    spec: Rc<SourceSpec>,
    _task: Task,
}

impl Discoverer {
    /// Makes a value without sources. It starts its tasks among `tasks` and sends news to the channel; `own`
    /// returns hedgerow's listeners. Must be used within a `LocalSet`.
    pub fn new(tasks: Tasks, reports: Sender<DiscoveryReport>, own: Rc<dyn Fn() -> OwnAddresses>) -> Self {
        Self { watches: Vec::new(), orders: None, access: None, signs: None, reports, tasks, own }
    }

    /// Sets the sources. Sources that stay keep their tasks, unless etcd has changed.
    pub fn set_sources(&mut self, specs: Vec<SourceSpec>, access: Option<EtcdAccess>, has_orders: bool) {
        let is_same = match (&self.access, &access) {
            (Some(known), Some(access)) => known.is_same(access),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            self.access = access.map(Rc::new);
            self.signs = self.access.as_ref().map(|access| Rc::new(Signs::new(Rc::clone(access), self.tasks.clone())));
            self.orders = None;
            self.watches.retain(|watch| watch.spec.origin() != MemberOrigin::Etcd);
        }
        let mut earlier = std::mem::take(&mut self.watches);
        for spec in specs {
            if self.watches.iter().any(|watch| *watch.spec == spec) {
                continue;
            }
            let known = earlier.iter().position(|watch| *watch.spec == spec);
            let watch = known.map(|index| earlier.swap_remove(index)).or_else(|| self.watch(spec));
            self.watches.extend(watch);
        }
        match (&self.access, has_orders) {
            (Some(_), true) if self.orders.is_none() => self.orders = self.follow_orders(),
            (Some(_), true) => {}
            (None, _) | (Some(_), false) => self.orders = None,
        }
    }

    /// Returns the current etcd.
    pub fn access(&self) -> Option<&Rc<EtcdAccess>> {
        self.access.as_ref()
    }

    /// Starts the task of a source. Returns `None` if it needs an etcd and there is none.
    fn watch(&self, spec: SourceSpec) -> Option<SourceWatch> {
        let spec = Rc::new(spec);
        let (reports, of) = (self.reports.clone(), Rc::clone(&spec));
        let report = async move |news| drop(reports.send(DiscoveryReport::Source(Rc::clone(&of), news)).await);
        let task = match &*spec {
            SourceSpec::Etcd(key) => {
                let follower = self.follower(|access| access.members_prefix(key))?;
                let follow = async move {
                    follower
                        .run(async |heard| match &heard {
                            // Decoding this many items would keep this thread busy for too long.
                            FollowerEvent::Listed(items) if items.len() > AT_ONCE => {
                                report(blocking(move || news_of(heard, MemberEntry::from_json)).await).await;
                            }
                            _ => report(news_of(heard, MemberEntry::from_json)).await,
                        })
                        .await;
                };
                self.tasks.start(TaskKind::Discovery, follow)
            }
            SourceSpec::Dns { target, resolvers } => {
                let (target, resolvers, own) = (target.clone(), resolvers.clone(), Rc::clone(&self.own));
                let source = DnsSource { target, resolvers, own };
                self.tasks.start(TaskKind::Discovery, async move { source.run(report).await })
            }
            SourceSpec::File(path) => {
                let path = path.clone();
                self.tasks.start(TaskKind::Discovery, async move { file::run(path, report).await })
            }
        };
        Some(SourceWatch { spec, _task: task })
    }

    fn follower(&self, prefix: impl FnOnce(&EtcdAccess) -> String) -> Option<Follower> {
        let (access, signs) = (self.access.as_ref()?, self.signs.as_ref()?);
        Some(Follower::new(Rc::clone(access), Rc::clone(signs), prefix(access), self.tasks.clone()))
    }

    fn follow_orders(&self) -> Option<Task> {
        let follower = self.follower(EtcdAccess::orders_prefix)?;
        let reports = self.reports.clone();
        let follow = async move {
            follower
                .run(async |heard| {
                    drop(reports.send(DiscoveryReport::Orders(news_of(heard, BackendOrder::from_json))).await)
                })
                .await;
        };
        Some(self.tasks.start(TaskKind::Discovery, follow))
    }
}

/// Converts reports of keys to news, with each value decoded separately.
fn news_of<T>(heard: FollowerEvent, read: impl Fn(&[u8]) -> Result<T, String>) -> SourceNews<T> {
    let read = |value: Vec<u8>| read(&value);
    match heard {
        FollowerEvent::Listed(items) => {
            SourceNews::Listed(items.into_iter().map(|(key, value)| (place_of(&key), read(value))).collect())
        }
        FollowerEvent::Changed(changes) => {
            SourceNews::Changed(changes.into_iter().map(|(key, value)| (place_of(&key), value.map(read))).collect())
        }
        FollowerEvent::Confirmed => SourceNews::Confirmed,
        FollowerEvent::Failed(reason) => SourceNews::Failed(reason),
    }
}

fn place_of(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    text.chars().take(MAX_PLACE).collect()
}

const AT_ONCE: usize = 200;

/// Characters of a key that are kept: more than any valid key has.
const MAX_PLACE: usize = 600;

/// Returns the wait after a failure. It is random by a half, so that the clients of a lost server do not all
/// come back at once.
fn random_wait(backoff: &mut Backoff, rng: &mut impl Rng) -> Duration {
    backoff.wait(MAX_BACKOFF).mul_f64(rng.random_range(0.5..=1.0))
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait. A recovered server is found within that time.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
