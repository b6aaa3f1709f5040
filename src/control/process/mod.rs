//! The process around the zones and pools: listening sockets, connections of clients, reloads, certificates,
//! secrets, the admin server, and the end.

mod admin_tasks;
mod certificates;
mod cookies;
mod drain;
mod listeners;
mod listening;
mod privileges;
mod reload;

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, SupervisorConfig};
use dns::address::ListenAddress;
use limit::OwnAddresses;
use metrics::{ProcessSnapshot, ProcessesSnapshot, Role, Snapshot};
use net::from_clients::tcp::MovedConnection;
use net::sys::descriptors::Shares;
use net::tasks::LostTask;
use net::to_backends::tls::KnownRoots;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};

use self::admin_tasks::{AdminTasks, Doors, admin_settings};
use self::certificates::CertificateLooks;
use self::cookies::OwnSecret;
pub use self::drain::DrainResult;
use self::drain::DrainState;
pub(super) use self::listeners::ListenError;
pub(crate) use self::listeners::{AddressSockets, SectionName, SectionSockets, ServedAddress};
pub use self::listeners::{Listeners, raise_descriptor_limit, worker_count};
use self::listening::ConnectionTables;
pub(super) use self::listening::{AddressChanges, Listening};
pub(super) use self::privileges::PrivilegeError;
pub use self::privileges::{confine, give_up_early, harden, warn_of_root};
pub use self::reload::Read;
use self::reload::Watching;
pub(super) use self::reload::{LoadedConfig, PreparedReload, ReloadOrder, Reloads, ending};
use super::StartError;
use super::links::ServerLinks;
use crate::admin::AdminRequest;
use crate::load::{ConfigText, Setup};

/// The process, on the control thread.
pub struct ServerProcess {
    /// The config at the start. A change of some of it needs a restart.
    pub(super) started_with: Arc<Config>,
    /// The text of the current config, if it was read from a file.
    pub source: Option<ConfigText>,
    /// True if the current config has a change that only another process can apply, such as the number of
    /// workers.
    pub is_restart_due: bool,
    pub(super) listening: Listening,
    pub(super) reloads: Reloads,
    watching: Watching,
    pub(super) certificates: CertificateLooks,
    pub(super) own_secret: OwnSecret,
    pub(super) admin: AdminTasks,
    processes: ProcessList,
    pub(super) draining: DrainState,
    links: ServerLinks,
}

struct ProcessList {
    /// The processes of the supervisor, if there is one.
    known: Option<ProcessesSnapshot>,
    started_at: SystemTime,
}

/// The process of a config, with all that may not be available.
pub(super) struct PreparedListening {
    listeners: Arc<Listeners>,
    changes: AddressChanges,
    /// The listeners of the admin server, if they change.
    doors: Option<Option<Doors>>,
}

/// An event that concerns more than the process.
pub(super) enum ProcessEvent {
    /// The reload thread has read the config.
    Loaded(LoadedConfig),
    /// Files of the config have changed.
    Changed,
    Lost(LostTask),
}

impl ServerProcess {
    /// Starts the parts of the process that need no worker. Must be called within a `LocalRuntime`.
    pub(super) fn start(
        setup: &mut Setup,
        listeners: Listeners,
        reloads: Reloads,
        shares: &Shares,
        requests: Sender<AdminRequest>,
        links: ServerLinks,
    ) -> io::Result<Self> {
        let (config, now) = (&setup.config, Instant::now());
        listeners.certificates().set(std::mem::take(&mut setup.certificates), SystemTime::now());
        listeners.set_rules(config);
        let mut watching = Watching::new(setup.watch.take());
        watching.set_on(config.process.watch);
        let files = std::mem::take(&mut setup.certificate_files);
        let certificates = CertificateLooks::new(files, &config.certificates, Arc::clone(&setup.roots), now);
        let doors = listeners.admin.as_ref().map(Doors::new).transpose()?;
        let settings = admin_settings(config, setup.token.take());
        Ok(Self {
            started_with: Arc::clone(&reloads.config),
            source: setup.source.take(),
            is_restart_due: false,
            listening: Listening {
                own: Arc::new(OwnAddresses::new(listeners.for_queries())),
                connections: ConnectionTables::new(config, shares.connections, now),
                listeners: Arc::new(listeners),
            },
            reloads,
            watching,
            certificates,
            own_secret: OwnSecret::new(now)?,
            admin: AdminTasks::start(doors, shares.admin, settings, requests, &links),
            processes: ProcessList { known: None, started_at: SystemTime::now() },
            draining: DrainState { delay: config.process.drain_delay, ..DrainState::default() },
            links,
        })
    }

    /// Opens the listeners of a config for all workers. Changes nothing. `owed_for` is how long a query may
    /// wait for its response.
    pub(super) fn prepare(&self, config: &Config, owed_for: Duration) -> Result<PreparedListening, StartError> {
        let earlier = &self.listening.listeners;
        let listeners = Arc::new(earlier.reload(config)?);
        let changes = AddressChanges::between(earlier, &listeners, owed_for)?;
        let doors = match earlier.admin == listeners.admin {
            true => None,
            false => Some(listeners.admin.as_ref().map(Doors::new).transpose()?),
        };
        Ok(PreparedListening { listeners, changes, doors })
    }

    /// Swaps the process of a config in. Returns the notices for the operator, and the changes of addresses
    /// for the other parts.
    pub(super) fn commit(
        &mut self,
        PreparedListening { listeners, changes, doors }: PreparedListening,
        setup: &mut Setup,
    ) -> (Vec<String>, AddressChanges) {
        let (config, now) = (&setup.config, Instant::now());
        listeners.certificates().set(std::mem::take(&mut setup.certificates), SystemTime::now());
        listeners.set_rules(config);
        self.certificates.set(&config.certificates, Arc::clone(&setup.roots), now);
        self.source = setup.source.take();
        let notices = self.needs_restart(config);
        self.draining.delay = config.process.drain_delay;
        self.watching.set_on(config.process.watch);
        self.listening.connections.reload(config, now);
        self.admin.settings.replace(admin_settings(config, setup.token.take()));
        if let Some(doors) = doors {
            self.admin.change_doors(doors);
        }
        self.listening.replace(listeners, &self.links);
        (notices, changes)
    }

    /// Notes the changed settings that need another process, which a supervisor starts itself unless the user
    /// changes. Returns a notice for each.
    fn needs_restart(&mut self, new: &Config) -> Vec<String> {
        let restarts = |key: &str| self.processes.known.is_some() && key != "user";
        let changed = new.fixed_changes_since(&self.started_with);
        self.is_restart_due = changed.iter().any(|key| restarts(key));
        let notice = |key| match restarts(key) {
            true => format!("{key} has changed; restart to apply it"),
            false => format!("{key} has changed, which needs a restart to take effect"),
        };
        changed.into_iter().map(notice).collect()
    }

    /// Waits for an event. Cancel safe.
    pub(super) async fn next_event(&mut self) -> ProcessEvent {
        tokio::select! {
            loaded = self.reloads.loaded() => loaded.map_or_else(ProcessEvent::Lost, ProcessEvent::Loaded),
            changed = self.watching.changed() => match changed {
                Ok(files) => {
                    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                    tracing::info!("watch: {} changed, reading again", files.join(", "));
                    ProcessEvent::Changed
                }
                Err(lost) => ProcessEvent::Lost(lost),
            },
            lost = self.admin.running.lost() => ProcessEvent::Lost(lost),
        }
    }

    /// Returns new trust anchors for backends and primaries, if their files have changed.
    pub(super) fn on_second(&mut self, now: Instant) -> Option<Arc<KnownRoots>> {
        self.reloads.tick();
        self.own_secret.tick(now);
        self.certificates.tick(self.listening.listeners.certificates(), &self.links.tasks, now)
    }

    /// Logs a failed reload. Its reason may be in the files of certificates.
    pub(super) fn on_failed_reload(&mut self, problems: &str) {
        tracing::error!("reload failed, the previous config stays:\n{problems}");
        self.certificates.hurry(Instant::now());
    }

    /// Adds the process to a snapshot.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot) {
        snapshot.limited = self.listening.connections.limited();
        snapshot.reload = self.reloads.snapshot();
        snapshot.processes = self.processes.known.clone().unwrap_or_else(|| self.alone(snapshot.reload.edition));
        snapshot.certificates = self.listening.listeners.certificates().snapshot();
    }

    fn alone(&self, edition: u64) -> ProcessesSnapshot {
        let process = ProcessSnapshot {
            pid: std::process::id(),
            role: if self.draining.is_ending { Role::Draining } else { Role::Server },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            edition,
            since: self.processes.started_at,
            problem: None,
        };
        ProcessesSnapshot { processes: vec![process], ..ProcessesSnapshot::default() }
    }

    /// Adds the counters of a previous process.
    pub(super) fn add_counted(&mut self, counted: &Snapshot) {
        self.listening.connections.add_counted(&counted.limited);
        self.listening.listeners.certificates().add_counted(&counted.certificates);
        self.reloads.add_counted(&counted.reload);
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.processes.known.is_some()
    }

    pub(super) fn has_admin(&self) -> bool {
        self.listening.listeners.admin.is_some()
    }

    /// Returns the bound addresses, such as `forwarder=127.0.0.1:5300 ts1=127.0.0.1:5301`.
    pub fn bound(&self) -> String {
        let mut line = String::new();
        for (name, addresses) in self.listening.listeners.addresses() {
            let addresses: Vec<String> = addresses.iter().map(ListenAddress::to_string).collect();
            let separator = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{separator}{name}={}", addresses.join(","));
        }
        line
    }

    /// Sets the list of processes that the admin server reports.
    pub fn set_list(&mut self, processes: ProcessesSnapshot) {
        self.processes.known = Some(processes);
    }

    /// Moves the TCP connections of clients to another process that already serves. Each connection moves
    /// when it is idle between two messages. The drain closes the rest.
    pub fn move_connections(&self) -> UnboundedReceiver<MovedConnection> {
        self.listening.connections.move_out()
    }

    /// Serves a connection that another process has handed over. It counts as a new connection.
    pub fn adopt(&self, moved: MovedConnection) {
        self.listening.connections.adopt(moved);
    }

    /// Returns the `supervisor` section of the current config.
    pub fn supervisor(&self) -> Option<&SupervisorConfig> {
        self.reloads.config.supervisor.as_ref()
    }

    /// Returns the listening sockets, to pass to other processes.
    pub fn listeners(&self) -> &Listeners {
        &self.listening.listeners
    }
}
