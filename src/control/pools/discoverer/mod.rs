//! Asks the sources of members, on the control thread: one task for each source, which sends news to the
//! owner of the rosters.
//!
//! [`discover`](super::discover) has the protocols and decisions; here are connections, files and clocks.
//! Pools with the same source share its task. Queries never wait for it.

mod dns;
mod etcd;
mod file;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use config::{DiscoverConfig, DnsTarget};
use hedge::backoff::Backoff;
use limit::OwnAddresses;
use net::tasks::{Task, TaskKind, Tasks};
use tokio::sync::mpsc::Sender;

use self::dns::DnsSource;
pub use self::etcd::{EtcdAccess, OrderError, Registration, RegistrationSettings, write_order};
use self::etcd::{Follower, Signs};
use crate::control::pools::discover::{BackendOrder, MemberEntry, MemberOrigin, SourceNews, read_order};

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
    sources: Vec<(Rc<SourceSpec>, Task)>,
    orders: Option<Task>,
    /// The current etcd, with the checks of its endpoints.
    etcd: Option<(Rc<EtcdAccess>, Rc<Signs>)>,
    reports: Sender<DiscoveryReport>,
    tasks: Tasks,
    own: Rc<dyn Fn() -> OwnAddresses>,
}

impl Discoverer {
    /// Makes a value without sources. It starts its tasks among `tasks` and sends news to the channel; `own`
    /// returns hedgerow's listeners. Must be used within a `LocalRuntime`.
    pub fn new(tasks: Tasks, reports: Sender<DiscoveryReport>, own: Rc<dyn Fn() -> OwnAddresses>) -> Self {
        Self { sources: Vec::new(), orders: None, etcd: None, reports, tasks, own }
    }

    /// Sets the sources. Sources that stay keep their tasks, unless etcd has changed.
    pub fn set_sources(&mut self, specs: Vec<SourceSpec>, access: Option<EtcdAccess>, has_orders: bool) {
        if self.access().map(|known| &**known) != access.as_ref() {
            self.etcd = access.map(Rc::new).map(|access| {
                let signs = Signs::new(Rc::clone(&access), self.tasks.clone());
                (access, Rc::new(signs))
            });
            self.orders = None;
            self.sources.retain(|(spec, _)| spec.origin() != MemberOrigin::Etcd);
        }
        let mut earlier = std::mem::take(&mut self.sources);
        for spec in specs {
            if self.sources.iter().any(|(known, _)| **known == spec) {
                continue;
            }
            let known = earlier.iter().position(|(known, _)| **known == spec);
            let source = known.map(|index| earlier.swap_remove(index)).or_else(|| self.start(spec));
            self.sources.extend(source);
        }
        self.orders = if has_orders { self.orders.take().or_else(|| self.follow_orders()) } else { None };
    }

    /// Returns the current etcd.
    pub fn access(&self) -> Option<&Rc<EtcdAccess>> {
        self.etcd.as_ref().map(|(access, _)| access)
    }

    /// Starts the task of a source. Returns `None` if it needs an etcd and there is none.
    fn start(&self, spec: SourceSpec) -> Option<(Rc<SourceSpec>, Task)> {
        let spec = Rc::new(spec);
        let (reports, of) = (self.reports.clone(), Rc::clone(&spec));
        let report = async move |news| drop(reports.send(DiscoveryReport::Source(Rc::clone(&of), news)).await);
        let task = match &*spec {
            SourceSpec::Etcd(key) => {
                let follower = self.follower(|access| access.members_prefix(key), MemberEntry::from_json)?;
                self.tasks.start(TaskKind::Discovery, follower.run(report))
            }
            SourceSpec::Dns { target, resolvers } => {
                let (target, resolvers, own) = (target.clone(), resolvers.clone(), Rc::clone(&self.own));
                self.tasks.start(TaskKind::Discovery, DnsSource { target, resolvers, own }.run(report))
            }
            SourceSpec::File(path) => self.tasks.start(TaskKind::Discovery, file::run(path.clone(), report)),
        };
        Some((spec, task))
    }

    fn follow_orders(&self) -> Option<Task> {
        let follower = self.follower(EtcdAccess::orders_prefix, read_order)?;
        let reports = self.reports.clone();
        let report = async move |news| drop(reports.send(DiscoveryReport::Orders(news)).await);
        Some(self.tasks.start(TaskKind::Discovery, follower.run(report)))
    }

    fn follower<T: Send + 'static>(
        &self,
        prefix: impl FnOnce(&EtcdAccess) -> String,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Option<Follower<T>> {
        let (access, signs) = self.etcd.as_ref()?;
        Some(Follower::new(Rc::clone(access), Rc::clone(signs), prefix(access), read, self.tasks.clone()))
    }
}

/// Returns the wait after a failure. It is random by a half, so that the clients of a lost server do not all
/// come back at once.
fn random_wait(backoff: &mut Backoff) -> Duration {
    backoff.wait(MAX_BACKOFF).mul_f64(rand::random_range(0.5..=1.0))
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait. A recovered server is found within that time.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
