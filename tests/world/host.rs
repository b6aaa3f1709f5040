//! A host: its processes under the tree of its supervisor, the locks of the kernel, the listening socket and
//! the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hedgerow::supervisor::tree::{ChangeKind, Pid, ProcessEnd, ProcessOrder, Purpose, Tree, TreeRules, TreeStep};
use metrics::Role;
use zone::Zone;

use super::authority::Authority;
use super::clock::{Around, Event};
use super::content;
use super::forwarder::Forwarder;
use super::network::{Datagram, Endpoint, StreamEvent, StreamNews};

pub(crate) type HostId = usize;

const RULES: TreeRules = TreeRules { standbys: 1, watchdog: Some(Duration::from_secs(10)) };

/// The time in which a draining server may finish its queries.
const DRAIN: Duration = Duration::from_secs(5);

/// The time after which a process tries to load its config again.
const AGAIN: Duration = Duration::from_secs(1);

/// The datagrams that wait in the listening socket.
const SOCKET_ROOM: usize = 512;

/// The number of the supervisor, which no other process has.
pub(crate) const SUPERVISOR: Pid = 0;

/// The role of a host.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Forwarder,
    Authority { primaries: Vec<HostId>, targets: Vec<HostId> },
}

/// The files of a host.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) is_full: bool,
    /// The version in the zone file of a primary.
    pub(crate) zone_file: u32,
    /// The saved zone of a secondary, and the wall time of its confirmation in seconds.
    pub(crate) saved_zone: Option<(Arc<Zone>, u64)>,
    /// The last good config of a forwarder.
    pub(crate) config: String,
    /// True if the config file has an error, so that no process can load it.
    pub(crate) is_broken: bool,
    /// The version that the disk could not save.
    pub(crate) has_lost: bool,
}

impl Disk {
    pub(crate) fn save_zone(&mut self, zone: Arc<Zone>, wall: u64) {
        self.has_lost |= self.is_full;
        if !self.is_full {
            self.saved_zone = Some((zone, wall));
        }
    }

    pub(crate) fn confirm_zone(&mut self, wall: u64) {
        if let Some((_, confirmed)) = self.saved_zone.as_mut().filter(|_| !self.is_full) {
            *confirmed = wall;
        }
    }
}

enum Server {
    Forwarder(Box<Forwarder>),
    Authority(Box<Authority>),
}

impl Server {
    fn take(&mut self, mail: Mail, disk: &mut Disk, around: &mut Around) {
        match (self, mail) {
            (Self::Forwarder(server), Mail::Datagram(datagram)) => server.on_datagram(datagram, around),
            (Self::Authority(server), Mail::Datagram(datagram)) => server.on_datagram(datagram, disk, around),
            (Self::Forwarder(server), Mail::Stream(event)) => server.on_stream(event, around),
            (Self::Authority(server), Mail::Stream(event)) => server.on_stream(event, around),
            (Self::Forwarder(server), Mail::Unreachable(datagram)) => server.on_unreachable(&datagram, around),
            (Self::Authority(_), Mail::Unreachable(_)) => {}
            (Self::Forwarder(server), Mail::Reload(config)) => server.reload(&config, around),
            (Self::Authority(server), Mail::Reload(_)) => server.reload(disk.zone_file, around),
        }
    }
}

/// News for the supervisor.
enum TreeNews {
    Says(Pid, Role),
    GaveUp(Pid),
    Heard(Pid),
    Ended(Pid, ProcessEnd),
}

/// Input of one process.
enum Mail {
    Datagram(Datagram),
    Unreachable(Datagram),
    Stream(StreamEvent),
    /// An order to read the config or the zone again.
    Reload(String),
}

struct Process {
    role: Role,
    /// The end of loading.
    ready_at: Instant,
    /// True between SIGSTOP and SIGCONT.
    is_stopped: bool,
    purpose: Purpose,
    /// Orders that a stopped process has not read.
    unread: Vec<ProcessOrder>,
    /// Input that came while the process was stopped.
    mail: Vec<Mail>,
    server: Option<Server>,
    wake: Instant,
    drain_until: Option<Instant>,
}

impl Process {
    fn is_newcomer(&self) -> bool {
        matches!(self.purpose, Purpose::Newcomer(_))
    }
}

pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) part: Part,
    tree: Option<Tree>,
    /// The news that a stopped supervisor has not read; `None` if it runs.
    unread: Option<Vec<TreeNews>>,
    processes: BTreeMap<Pid, Process>,
    next_pid: Pid,
    /// The last process with the lock of the server.
    served: Option<Pid>,
    /// The unread datagrams of the listening socket, which outlives its readers.
    socket: VecDeque<Datagram>,
    backlog: VecDeque<StreamEvent>,
    pub(crate) disk: Disk,
    /// The exit status, once all processes have ended.
    exited: Option<u8>,
}

impl Host {
    pub(crate) fn new(id: HostId, part: Part, config: String, around: &mut Around) -> Self {
        let disk = Disk {
            is_full: false,
            zone_file: content::FIRST,
            saved_zone: None,
            config,
            is_broken: false,
            has_lost: false,
        };
        let mut host = Self {
            id,
            part,
            tree: None,
            unread: None,
            processes: BTreeMap::new(),
            next_pid: 100,
            served: None,
            socket: VecDeque::new(),
            backlog: VecDeque::new(),
            disk,
            exited: None,
        };
        host.boot(around);
        host
    }

    /// Starts the first process, as a service manager does.
    pub(crate) fn boot(&mut self, around: &mut Around) {
        self.exited = None;
        (self.tree, self.unread) = (Some(Tree::first(RULES, around.now)), None);
        self.obey(around);
    }

    /// Returns the next time at which something on this host is due.
    pub(crate) fn next_due(&self, around: &Around) -> Option<Instant> {
        let tree = self.tree.as_ref().filter(|_| self.exited.is_none() && self.unread.is_none()).map(Tree::due);
        let processes =
            self.processes.values().filter(|process| !process.is_stopped).filter_map(|process| match process.role {
                Role::Starting | Role::Failed => Some(process.ready_at),
                Role::Server | Role::Draining => Some(process.wake),
                Role::Standby | Role::Supervisor => None,
            });
        // Without a supervisor or a server, or with a newcomer that is ready, another process takes over now.
        let can = |process: &Process| !process.is_stopped && process.role != Role::Draining;
        let is_led = self.tree.is_some() || self.exited.is_some() || !self.processes.values().any(can);
        let ready = |process: &Process| process.role == Role::Standby && !process.is_stopped;
        let serving = self.processes.values().find(|process| process.role == Role::Server);
        let takes_over = |process: &Process| match serving {
            None => ready(process),
            Some(server) => ready(process) && process.is_newcomer() && !server.is_stopped,
        };
        let is_quiet = is_led && !self.processes.values().any(takes_over);
        tree.into_iter().chain(processes).chain((!is_quiet).then_some(around.now)).min()
    }

    /// Does everything that is due.
    pub(crate) fn live(&mut self, around: &mut Around) {
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.live_one(pid, around);
        }
        if self.tree.is_none() && self.exited.is_none() {
            self.succeed(around);
        }
        self.introduce_all(around);
        if let Some(tree) = &mut self.tree
            && self.exited.is_none()
            && self.unread.is_none()
            && around.now >= tree.due()
        {
            tree.tick(around.now);
        }
        self.obey(around);
        self.take_lock(around);
        self.read_socket(around);
        let serving = self.processes.values().filter(|process| process.role == Role::Server).count();
        assert!(serving <= 1, "host {}: {serving} processes serve", self.id);
    }

    fn live_one(&mut self, pid: Pid, around: &mut Around) {
        let now = around.now;
        let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.is_stopped) else { return };
        for order in std::mem::take(&mut process.unread) {
            self.hear(pid, order, around);
        }
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if matches!(process.role, Role::Starting | Role::Failed) && process.ready_at <= now {
            self.load(pid, around);
        }
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if matches!(process.role, Role::Server | Role::Draining) && process.wake <= now {
            let (is_idle, wake) = match &mut process.server {
                Some(Server::Forwarder(server)) => {
                    let wake = server.on_time(around);
                    server.audit(around);
                    (server.is_idle(), wake)
                }
                Some(Server::Authority(server)) => {
                    let wake = server.on_time(&mut self.disk, around);
                    (server.is_idle(), wake)
                }
                None => (true, now),
            };
            process.wake = wake;
            let is_late = process.drain_until.is_some_and(|until| until <= now);
            if let Some(until) = process.drain_until {
                process.wake = process.wake.min(until);
            }
            if process.role == Role::Draining && (is_idle || is_late) {
                assert!(is_idle, "host {}: the queries of a drain are not over in time", self.id);
                self.end(pid, ProcessEnd::Status(0), around);
            }
        }
    }

    /// Lets a process load its config. One that fails tries again, unless another waits for its result.
    fn load(&mut self, pid: Pid, around: &mut Around) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let before = process.role;
        process.role = if self.disk.is_broken { Role::Failed } else { Role::Standby };
        process.ready_at = around.now + AGAIN;
        match (process.role, process.purpose) {
            (Role::Failed, Purpose::First) => self.end(pid, ProcessEnd::Status(2), around),
            (Role::Failed, Purpose::Newcomer(_)) if before == Role::Starting => {
                self.send_news(TreeNews::GaveUp(pid), around.now);
                self.end(pid, ProcessEnd::Status(2), around);
            }
            (role, _) if role != before => self.send_news(TreeNews::Says(pid, role), around.now),
            (_, _) => {}
        }
    }

    /// Gives the lock of the server to a process that can serve. A newcomer is next in line.
    fn take_lock(&mut self, around: &mut Around) {
        if self.processes.values().any(|process| process.role == Role::Server) {
            // "Now": the server stops reading and gives the lock to the newcomer.
            let has_newcomer =
                self.processes.values().any(|one| one.is_newcomer() && one.role == Role::Standby && !one.is_stopped);
            if has_newcomer && let Some(server) = self.server_pid() {
                self.begin_drain(server, around);
            }
        }
        if self.processes.values().any(|process| process.role == Role::Server) {
            return;
        }
        let ready = self.processes.iter().filter(|(_, one)| one.role == Role::Standby && !one.is_stopped);
        let Some(pid) = ready.max_by_key(|(_, one)| one.is_newcomer()).map(|(pid, _)| *pid) else { return };
        let server = match &self.part {
            Part::Forwarder => Server::Forwarder(Box::new(Forwarder::new(self.id, pid, &self.disk.config, around))),
            Part::Authority { primaries, targets } => {
                let (primaries, targets) = (primaries.clone(), targets.clone());
                Server::Authority(Box::new(Authority::new(self.id, pid, &self.disk, primaries, targets, around)))
            }
        };
        around.log(format_args!("host {}: process {pid} serves", self.id));
        if std::mem::take(&mut self.disk.has_lost) {
            around.truth.lost_versions(self.id);
        }
        let process = self.processes.get_mut(&pid).expect("it was chosen");
        (process.role, process.server, process.wake) = (Role::Server, Some(server), around.now);
        self.served = Some(pid);
        self.send_news(TreeNews::Says(pid, Role::Server), around.now);
        self.obey(around);
    }

    fn server_pid(&self) -> Option<Pid> {
        let mut serving = self.processes.iter().filter(|(_, one)| one.role == Role::Server && !one.is_stopped);
        serving.next().map(|(pid, _)| *pid)
    }

    fn begin_drain(&mut self, pid: Pid, around: &mut Around) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.role != Role::Server {
            return;
        }
        around.log(format_args!("host {}: process {pid} drains", self.id));
        process.role = Role::Draining;
        process.drain_until = Some(around.now + DRAIN);
        process.wake = around.now;
        match &mut process.server {
            Some(Server::Forwarder(server)) => server.drain(),
            Some(Server::Authority(server)) => server.drain(),
            None => {}
        }
    }

    /// Gives news to the supervisor, which reads them later if it is stopped.
    fn send_news(&mut self, news: TreeNews, now: Instant) {
        let Some(tree) = &mut self.tree else { return };
        match (&mut self.unread, news) {
            (Some(unread), news) => unread.push(news),
            (None, TreeNews::Says(pid, role)) => tree.says(pid, role, Duration::from_millis(1), now),
            (None, TreeNews::GaveUp(pid)) => tree.gave_up(pid, "its config has an error".to_owned(), now),
            (None, TreeNews::Heard(pid)) => tree.heard(pid, now),
            (None, TreeNews::Ended(pid, how)) => tree.ended(pid, how, now),
        }
    }

    fn introduce_all(&mut self, around: &mut Around) {
        let Some(tree) = self.tree.as_mut().filter(|_| self.unread.is_none()) else { return };
        // A process that was stopped introduces itself when it goes on. The lock shows the server.
        let is_seen = |process: &Process| !process.is_stopped || process.role == Role::Server;
        let unknown = self
            .processes
            .iter()
            .filter(|(pid, process)| is_seen(process) && !tree.roles().any(|(known, _)| known == **pid));
        let unknown: Vec<_> = unknown.map(|(pid, process)| (*pid, process.role)).collect();
        unknown.into_iter().for_each(|(pid, role)| tree.introduced(pid, role, around.now));
    }

    /// Makes a standby the supervisor. Without one, the server starts one.
    fn succeed(&mut self, around: &mut Around) {
        let can = |process: &Process| !process.is_stopped && process.role != Role::Draining;
        let heir = self.processes.iter().find(|(_, process)| can(process) && process.role != Role::Server);
        if let Some(heir) = heir.map(|(pid, _)| *pid) {
            self.processes.remove(&heir);
        } else if !self.processes.values().any(can) {
            return;
        }
        around.log(format_args!("host {}: another process supervises", self.id));
        let awaited = self.processes.keys().copied().collect();
        self.tree = Some(Tree::succeeding(RULES, awaited, self.served, around.now));
        self.introduce_all(around);
    }

    /// Executes the steps of the tree.
    fn obey(&mut self, around: &mut Around) {
        while self.unread.is_none()
            && let Some(step) = self.tree.as_mut().and_then(Tree::next_step)
        {
            match step {
                TreeStep::Start(purpose) => {
                    let pid = self.next_pid;
                    self.next_pid += 1;
                    let process = Process {
                        role: Role::Starting,
                        ready_at: around.now + Duration::from_millis(20) + around.millis(100),
                        is_stopped: false,
                        purpose,
                        unread: Vec::new(),
                        mail: Vec::new(),
                        server: None,
                        wake: around.now,
                        drain_until: None,
                    };
                    self.processes.insert(pid, process);
                    if let Some(tree) = &mut self.tree {
                        tree.started(purpose, pid, around.now);
                    }
                }
                // No process is stopped for so long.
                TreeStep::Kill(pid) => panic!("host {}: the watchdog kills process {pid}", self.id),
                TreeStep::Send(pid, order) => match self.processes.get_mut(&pid) {
                    Some(process) if process.is_stopped => process.unread.push(order),
                    Some(_) => self.hear(pid, order, around),
                    None => {}
                },
                TreeStep::Exit(status) => {
                    around.log(format_args!("host {}: the tree ends with status {status}", self.id));
                    self.exited = Some(status);
                    self.tree = None;
                    around.after(Duration::from_millis(100), Event::Boot(self.id));
                }
                TreeStep::ExecInPlace => {
                    let awaited = self.processes.keys().copied().collect();
                    self.tree = Some(Tree::succeeding(RULES, awaited, self.served, around.now));
                    self.introduce_all(around);
                }
                TreeStep::TookOver { .. } | TreeStep::Delayed { .. } | TreeStep::Waits(_) | TreeStep::Changed(..) => {}
                TreeStep::Proven | TreeStep::RolledBack(_) => {}
            }
        }
    }

    fn hear(&mut self, pid: Pid, order: ProcessOrder, around: &mut Around) {
        let role = self.processes.get(&pid).map(|process| process.role);
        match order {
            // A server has its lock, so an order to end that came too late is ignored.
            ProcessOrder::End if !matches!(role, Some(Role::Server | Role::Draining)) => {
                self.end(pid, ProcessEnd::Status(0), around);
            }
            ProcessOrder::End => {}
            ProcessOrder::Ping => self.send_news(TreeNews::Heard(pid), around.now),
            ProcessOrder::Drain | ProcessOrder::HandOver => self.begin_drain(pid, around),
        }
    }

    fn end(&mut self, pid: Pid, how: ProcessEnd, around: &mut Around) {
        if self.processes.remove(&pid).is_none() {
            return;
        }
        around.truth.process_ended((self.id, pid));
        around.close_all_of(self.id, pid);
        self.send_news(TreeNews::Ended(pid, how), around.now);
        if self.processes.is_empty() && self.tree.is_none() && self.exited.is_none() {
            // The sockets are closed with their last holder.
            self.exited = Some(1);
            around.after(Duration::from_millis(100), Event::Boot(self.id));
        }
        if self.processes.is_empty() && self.tree.is_none() {
            self.socket.clear();
            self.backlog.clear();
        }
    }

    fn has_sockets(&self) -> bool {
        self.exited.is_none() && (self.tree.is_some() || !self.processes.is_empty())
    }

    pub(crate) fn on_datagram(&mut self, datagram: Datagram, around: &mut Around) {
        match datagram.to {
            Endpoint::Service(_) if !self.has_sockets() => around.refuse(datagram),
            Endpoint::Service(_) if self.socket.len() >= SOCKET_ROOM => {}
            Endpoint::Service(_) => {
                self.socket.push_back(datagram);
                self.read_socket(around);
            }
            Endpoint::Own { process, .. } => self.deliver(process, Mail::Datagram(datagram), around),
            Endpoint::Client(_) => {}
        }
    }

    /// Lets the server read what waits in the listening socket.
    fn read_socket(&mut self, around: &mut Around) {
        while let Some(pid) = self.server_pid() {
            if let Some(datagram) = self.socket.pop_front() {
                self.deliver(pid, Mail::Datagram(datagram), around);
            } else if let Some(event) = self.backlog.pop_front() {
                self.deliver(pid, Mail::Stream(event), around);
            } else {
                return;
            }
        }
    }

    pub(crate) fn on_stream(&mut self, event: StreamEvent, around: &mut Around) {
        let StreamEvent { stream, to, what } = event;
        match to {
            Endpoint::Service(_) if !matches!(what, StreamNews::Dialed(_)) => {}
            Endpoint::Service(_) if !self.has_sockets() => around.close(stream, to),
            Endpoint::Service(_) => {
                self.backlog.push_back(StreamEvent { stream, to, what });
                self.read_socket(around);
            }
            Endpoint::Own { process, .. } => match self.processes.contains_key(&process) {
                true => self.deliver(process, Mail::Stream(StreamEvent { stream, to, what }), around),
                // The end of a process that is gone: the kernel resets the stream.
                false if !matches!(what, StreamNews::Reset) => around.close(stream, to),
                false => {}
            },
            Endpoint::Client(_) => {}
        }
    }

    pub(crate) fn on_unreachable(&mut self, datagram: Datagram, around: &mut Around) {
        if let Endpoint::Own { process, .. } = datagram.from {
            self.deliver(process, Mail::Unreachable(datagram), around);
        }
    }

    /// Hands mail to a process, or keeps it while the process is stopped.
    fn deliver(&mut self, pid: Pid, mail: Mail, around: &mut Around) {
        match self.processes.get_mut(&pid) {
            Some(process) if process.is_stopped => process.mail.push(mail),
            Some(_) => self.with_server(pid, around, |server, disk, around| server.take(mail, disk, around)),
            None => {}
        }
    }

    /// Lends a server of this host, and lets it do what is due then.
    fn with_server(&mut self, pid: Pid, around: &mut Around, event: impl FnOnce(&mut Server, &mut Disk, &mut Around)) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(server) = &mut process.server else { return };
        event(server, &mut self.disk, around);
        process.wake = around.now;
        self.live_one(pid, around);
    }

    // Faults and orders from outside.

    /// Kills a process: one of the members by its place, or the supervisor.
    pub(crate) fn kill(&mut self, place: usize, around: &mut Around) {
        if place >= self.processes.len() {
            around.log(format_args!("host {}: the supervisor is killed", self.id));
            (self.tree, self.unread) = (None, None);
            if self.processes.is_empty() && self.exited.is_none() {
                self.exited = Some(1);
                around.after(Duration::from_millis(100), Event::Boot(self.id));
            }
            return;
        }
        let Some(pid) = self.processes.keys().nth(place).copied() else { return };
        around.log(format_args!("host {}: process {pid} is killed", self.id));
        self.end(pid, ProcessEnd::Signal(9), around);
    }

    /// Kills all processes at once, as a loss of power does.
    pub(crate) fn kill_all(&mut self, around: &mut Around) {
        (self.tree, self.unread) = (None, None);
        while !self.processes.is_empty() {
            self.kill(0, around);
        }
    }

    pub(crate) fn set_stopped(&mut self, pid: Pid, is_stopped: bool, around: &mut Around) {
        let word = if is_stopped { "stopped" } else { "continued" };
        if pid == SUPERVISOR {
            around.log(format_args!("host {}: the supervisor is {word}", self.id));
            return self.set_supervisor_stopped(is_stopped, around);
        }
        let Some(process) = self.processes.get_mut(&pid) else { return };
        around.log(format_args!("host {}: process {pid} is {word}", self.id));
        process.is_stopped = is_stopped;
        if !is_stopped {
            for mail in std::mem::take(&mut process.mail) {
                if let Some(process) = self.processes.get_mut(&pid)
                    && let Some(server) = &mut process.server
                {
                    server.take(mail, &mut self.disk, around);
                    process.wake = around.now;
                }
            }
        }
    }

    /// Stops the supervisor, or continues it: then it reads its news in order.
    fn set_supervisor_stopped(&mut self, is_stopped: bool, around: &mut Around) {
        if is_stopped {
            if self.tree.is_some() {
                self.unread.get_or_insert_default();
            }
            return;
        }
        for news in self.unread.take().into_iter().flatten() {
            self.send_news(news, around.now);
        }
        self.introduce_all(around);
        self.obey(around);
    }

    /// Returns one of the processes, or the supervisor.
    pub(crate) fn pid_at(&self, place: usize) -> Pid {
        self.processes.keys().nth(place).copied().unwrap_or(SUPERVISOR)
    }

    pub(crate) fn ask_change(&mut self, kind: ChangeKind, around: &mut Around) {
        // A stopped supervisor does not answer, and the operator gives up.
        if let Some(tree) = self.tree.as_mut().filter(|_| self.unread.is_none()) {
            let _ = tree.ask(kind, around.now);
        }
        self.obey(around);
    }

    pub(crate) fn reload_forwarder(&mut self, text: &str, is_good: bool, around: &mut Around) {
        self.disk.is_broken = !is_good;
        if is_good {
            text.clone_into(&mut self.disk.config);
        }
        self.order_reload(text, around);
    }

    pub(crate) fn new_version(&mut self, version: u32, around: &mut Around) {
        self.disk.zone_file = version;
        self.order_reload("", around);
    }

    /// Sends the order to the server. A stopped one reads it when it goes on.
    fn order_reload(&mut self, text: &str, around: &mut Around) {
        let serving = self.processes.iter().find(|(_, process)| process.role == Role::Server);
        if let Some(pid) = serving.map(|(pid, _)| *pid) {
            self.deliver(pid, Mail::Reload(text.to_owned()), around);
        }
    }

    // Checks.

    /// Returns true if a supervisor, one server and the standbys are there, and nothing else.
    pub(crate) fn is_whole(&self) -> bool {
        let count = |role| self.processes.values().filter(|process| process.role == role).count();
        let is_changing = |tree: &Tree| tree.is_replacing() || tree.is_on_probation();
        self.unread.is_none()
            && self.tree.as_ref().is_some_and(|tree| !is_changing(tree))
            && (count(Role::Server), count(Role::Standby), self.processes.len()) == (1, 1, 2)
    }

    pub(crate) fn describe(&self) -> String {
        let roles: Vec<_> = self.processes.iter().map(|(pid, one)| (pid, one.role, one.is_stopped)).collect();
        format!("host {}: {roles:?}, supervised: {}", self.id, self.tree.is_some())
    }

    pub(crate) fn forwarder(&self) -> Option<&Forwarder> {
        match self.processes.get(&self.server_pid()?)?.server.as_ref()? {
            Server::Forwarder(server) => Some(server),
            Server::Authority(_) => None,
        }
    }

    pub(crate) fn authority(&self) -> Option<&Authority> {
        match self.processes.get(&self.server_pid()?)?.server.as_ref()? {
            Server::Authority(server) => Some(server),
            Server::Forwarder(_) => None,
        }
    }
}
