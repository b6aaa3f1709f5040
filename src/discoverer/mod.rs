//! Asking the sources of members, on the control thread: a task for each source, whose news go to whoever holds the rosters.
//!
//! What is asked, understood and decided stands in [`discover`](crate::discover); here are the connections, files and clocks. Pools that
//! name the same source share its task, so that one name is looked up once. No query waits for any of it.

mod dns;
mod etcd;
mod file;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::mpsc::Sender;

use self::dns::DnsSource;
pub use self::etcd::{EtcdAccess, OrderError, Registered, Registration, write_order};
use self::etcd::{Follower, Heard, Signs};
use crate::config::{DiscoverConfig, DnsTarget};
use crate::discover::{Entry, News, Order, Origin};
use crate::limit::OwnAddresses;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};

/// One source of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// Those registered under this key in etcd.
    Etcd(String),
    /// Those that a name lists.
    Dns {
        /// The name.
        target: Box<DnsTarget>,
        /// Who is asked; none: the resolvers of this host.
        resolvers: Vec<SocketAddr>,
    },
    /// Those that a file lists.
    File(PathBuf),
}

impl SourceSpec {
    /// The sources of a pool.
    pub fn of(config: &DiscoverConfig) -> Vec<Self> {
        let etcd = config.etcd.clone().map(Self::Etcd);
        let dns = config
            .dns
            .clone()
            .map(|target| Self::Dns { target: Box::new(target), resolvers: config.resolvers.clone() });
        let file = config.file.clone().map(Self::File);
        [etcd, dns, file].into_iter().flatten().collect()
    }

    /// Its kind.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Etcd(_) => Origin::Etcd,
            Self::Dns { .. } => Origin::Dns,
            Self::File(_) => Origin::File,
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

/// What is heard from outside.
#[derive(Debug)]
pub enum Told {
    /// Of a source.
    Source(Rc<SourceSpec>, News),
    /// Of orders.
    Orders(News<Order>),
}

/// The tasks that ask.
pub struct Discoverer {
    watches: Vec<Watch>,
    /// Follows the orders, if there is an etcd.
    orders: Option<Task>,
    /// The etcd that they ask.
    access: Option<Rc<EtcdAccess>>,
    /// Its signs of life.
    signs: Option<Rc<Signs>>,
    told: Sender<Told>,
    tasks: Tasks,
    own: Rc<dyn Fn() -> OwnAddresses>,
}

/// The task of one source.
struct Watch {
    spec: Rc<SourceSpec>,
    /// Ends with this value.
    _task: Task,
}

impl Discoverer {
    /// Asks nobody yet; its tasks are among these, what they hear goes to `told`, and `own` says where we listen. Must be used within
    /// a `LocalSet`.
    pub fn new(tasks: Tasks, told: Sender<Told>, own: Rc<dyn Fn() -> OwnAddresses>) -> Self {
        Self { watches: Vec::new(), orders: None, access: None, signs: None, told, tasks, own }
    }

    /// Asks these sources and no others. Those that were asked before go on as if nothing had happened, unless etcd is another one.
    /// `has_orders` says whether there is anybody whom orders could be for.
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
            self.watches.retain(|watch| watch.spec.origin() != Origin::Etcd);
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

    /// The etcd that is asked.
    pub fn access(&self) -> Option<&Rc<EtcdAccess>> {
        self.access.as_ref()
    }

    /// Starts the task of a source. None, where there is no etcd.
    fn watch(&self, spec: SourceSpec) -> Option<Watch> {
        let spec = Rc::new(spec);
        let (told, of) = (self.told.clone(), Rc::clone(&spec));
        let tell = async move |news| drop(told.send(Told::Source(Rc::clone(&of), news)).await);
        let task = match &*spec {
            SourceSpec::Etcd(key) => {
                let follower = self.follower(|access| access.members_prefix(key))?;
                let follow = async move {
                    follower
                        .run(async |heard| match &heard {
                            // So many that to read them takes longer than this thread should be busy.
                            Heard::Listed(items) if items.len() > AT_ONCE => {
                                tell(blocking(move || news_of(heard, Entry::from_json)).await).await;
                            }
                            _ => tell(news_of(heard, Entry::from_json)).await,
                        })
                        .await;
                };
                self.tasks.start(TaskKind::Discovery, follow)
            }
            SourceSpec::Dns { target, resolvers } => {
                let (target, resolvers, own) = (target.clone(), resolvers.clone(), Rc::clone(&self.own));
                let source = DnsSource { target, resolvers, own };
                self.tasks.start(TaskKind::Discovery, async move { source.run(tell).await })
            }
            SourceSpec::File(path) => {
                let path = path.clone();
                self.tasks.start(TaskKind::Discovery, async move { file::run(path, tell).await })
            }
        };
        Some(Watch { spec, _task: task })
    }

    /// What follows the keys below a prefix. None, where there is no etcd.
    fn follower(&self, prefix: impl FnOnce(&EtcdAccess) -> String) -> Option<Follower> {
        let (access, signs) = (self.access.as_ref()?, self.signs.as_ref()?);
        Some(Follower::new(Rc::clone(access), Rc::clone(signs), prefix(access), self.tasks.clone()))
    }

    fn follow_orders(&self) -> Option<Task> {
        let follower = self.follower(EtcdAccess::orders_prefix)?;
        let told = self.told.clone();
        let follow = async move {
            follower.run(async |heard| drop(told.send(Told::Orders(news_of(heard, Order::from_json))).await)).await;
        };
        Some(self.tasks.start(TaskKind::Discovery, follow))
    }
}

/// What is heard, with what each value says by itself.
fn news_of<T>(heard: Heard, read: impl Fn(&[u8]) -> Result<T, String>) -> News<T> {
    let read = |value: Vec<u8>| read(&value);
    match heard {
        Heard::Listed(items) => {
            News::Listed(items.into_iter().map(|(key, value)| (place_of(&key), read(value))).collect())
        }
        Heard::Changed(changes) => {
            News::Changed(changes.into_iter().map(|(key, value)| (place_of(&key), value.map(read))).collect())
        }
        Heard::Confirmed => News::Confirmed,
        Heard::Failed(reason) => News::Failed(reason),
    }
}

/// A key as text. What is none is told as well as can be.
fn place_of(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    text.chars().take(MAX_PLACE).collect()
}

/// Entries that are read at once.
const AT_ONCE: usize = 200;

/// Characters of a key that are kept: more than any of ours has.
const MAX_PLACE: usize = 600;
