//! The tree of processes as a pure state machine: it decides which process to start, notify or kill next.
//!
//! The machine takes one input (a process started, introduced itself, serves or ended; a restart was
//! requested; time passed) and is then drained of steps. It holds no descriptor, channel or clock. The kernel
//! decides which process serves, by the lock (`locks.rs`); the tree only ensures that there is a process to
//! take it.
//!
//! ```text
//!   first ──serves──▶ running ◀──all introduced, or SETTLE──  settling (after a succession)
//!     │                  │
//!     ▼ ended            │ asked to end
//!   exit with its        ▼
//!   status            ending: standbys and newcomer end ──▶ the server drains ──▶ exit
//!
//!   a process:   starting ──▶ standby ──has the lock──▶ server ──hands over──▶ draining ──▶ ended
//!                    └──▶ failed (its config or zones are wrong; it tries again by itself)
//!
//!   a change:    asked ──▶ newcomer starts ──serves──▶ restart: done
//!                               │                      upgrade: 10 s probation ─▶ replacing ─▶ exec in place
//!                               ▼ ended, silent            └──▶ rolled back, if the new server ends
//!                            refused
//! ```

mod backoff;
#[cfg(test)]
mod tests;
mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use metrics::{Role, Takeover};

use self::backoff::{RestartBackoff, YOUNG};
pub use self::words::{ChangeKind, Pid, ProcessEnd, ProcessOrder, Purpose, TreeRules, TreeStep};
use self::words::{END_WITHIN, NEWCOMER_PATIENCE, PATIENCE, PINGS, PROBATION, Process, SETTLE};

/// The tree of processes. See the head of this file.
#[derive(Debug)]
pub struct Tree {
    rules: TreeRules,
    processes: BTreeMap<Pid, Process>,
    asked_for: Vec<Purpose>,
    phase: TreePhase,
    change: Option<ChangeStage>,
    /// The server with a signal to end, and its latest end. It ends as soon as a standby can take over.
    leaving: Option<(Pid, Instant)>,
    /// The last server, with the reason why it stopped if that is known.
    last_server: Option<(Pid, Option<Takeover>)>,
    backoff: RestartBackoff,
    /// 0 is the program of this supervisor.
    generation: u8,
    last_tick: Instant,
    next_ping: Instant,
    steps: VecDeque<TreeStep>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TreePhase {
    First,
    Settling {
        until: Instant,
        awaited: BTreeSet<Pid>,
    },
    Running,
    /// All processes end. At `kill_at` the rest is killed, except the server, which drains last.
    Ending {
        kill_at: Instant,
        is_draining: bool,
    },
}

#[derive(Clone, Debug)]
enum ChangeStage {
    Asked(ChangeKind),
    Newcomer(ChangeKind, Pid),
    Probation {
        server: Pid,
        until: Instant,
    },
    /// Standbys of the new program replace those of the old one.
    Replacing,
}

impl Tree {
    /// Makes the tree of a first start, which starts one process.
    pub fn first(rules: TreeRules, now: Instant) -> Self {
        let mut tree = Self::new(rules, TreePhase::First, now);
        tree.start(Purpose::First);
        tree
    }

    /// Makes the tree of a succession. `awaited` are the processes that should introduce themselves, as far
    /// as is known.
    pub fn succeeding(rules: TreeRules, awaited: BTreeSet<Pid>, last_server: Option<Pid>, now: Instant) -> Self {
        let mut tree = Self::new(rules, TreePhase::Settling { until: now + SETTLE, awaited }, now);
        tree.last_server = last_server.map(|pid| (pid, None));
        tree.settle(now);
        tree
    }

    fn new(rules: TreeRules, phase: TreePhase, now: Instant) -> Self {
        Self {
            rules,
            processes: BTreeMap::new(),
            asked_for: Vec::new(),
            phase,
            change: None,
            leaving: None,
            last_server: None,
            backoff: RestartBackoff::new(now),
            generation: 0,
            last_tick: now,
            next_ping: now,
            steps: VecDeque::new(),
        }
    }

    /// Returns the next step. Call it after each input until it returns `None`.
    pub fn next_step(&mut self) -> Option<TreeStep> {
        self.steps.pop_front()
    }

    /// Returns the role of each process.
    pub fn roles(&self) -> impl Iterator<Item = (Pid, Role)> {
        self.processes.iter().map(|(pid, process)| (*pid, process.role))
    }

    /// Returns the process that serves.
    pub fn server(&self) -> Option<Pid> {
        self.processes.iter().find(|(_, process)| process.role == Role::Server).map(|(pid, _)| *pid)
    }

    /// Returns true if the server has answered one of the last pings.
    pub fn is_progress_made(&self, now: Instant) -> bool {
        let heard = self.server().and_then(|pid| self.processes.get(&pid)).map(|process| process.heard);
        heard.is_some_and(|heard| now.saturating_duration_since(heard) < self.rules.ping() * PINGS)
    }

    /// Returns true if all processes end.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, TreePhase::Ending { .. })
    }

    /// Returns true if processes of a new program replace those of the old one.
    pub fn is_replacing(&self) -> bool {
        self.generation > 0
    }

    /// Returns true if an upgrade is on probation. Standbys then keep their config.
    pub fn is_on_probation(&self) -> bool {
        matches!(self.change, Some(ChangeStage::Probation { .. }))
    }

    /// Changes the settings.
    pub fn set_rules(&mut self, rules: TreeRules, now: Instant) {
        self.rules = rules;
        self.go_on(now);
    }

    /// Reports a started process.
    pub fn started(&mut self, purpose: Purpose, pid: Pid, now: Instant) {
        self.take_asked_for(purpose);
        let generation = self.generation + u8::from(purpose == Purpose::Newcomer(ChangeKind::Upgrade));
        let process = Process { role: Role::Starting, generation, is_leaving: false, since: now, heard: now };
        self.processes.insert(pid, process);
        match (purpose, &self.change) {
            (Purpose::Newcomer(kind), Some(ChangeStage::Asked(_))) => {
                self.change = Some(ChangeStage::Newcomer(kind, pid))
            }
            // The change has been abandoned meanwhile.
            (Purpose::Newcomer(_), _) => self.end_one(pid),
            (Purpose::First | Purpose::Stand, _) if self.is_ending() => self.end_one(pid),
            (Purpose::First | Purpose::Stand, _) => {}
        }
        self.go_on(now);
    }

    /// Reports that a process could not be started.
    pub fn not_started(&mut self, purpose: Purpose, problem: String, now: Instant) {
        self.take_asked_for(purpose);
        match purpose {
            Purpose::First => self.steps.push_back(TreeStep::Exit(1)),
            Purpose::Newcomer(kind) => self.refuse(kind, problem),
            Purpose::Stand => {
                self.backoff.on_young_death(false, now);
                self.delayed(problem, now);
            }
        }
        self.go_on(now);
    }

    /// Reports a process that has introduced itself.
    pub fn introduced(&mut self, pid: Pid, role: Role, now: Instant) {
        // A succession abandons an upgrade in progress, so the program of an older process does not matter.
        let usual = Process { role, generation: self.generation, is_leaving: false, since: now, heard: now };
        let process = self.processes.entry(pid).or_insert(usual);
        process.heard = now;
        if let TreePhase::Settling { awaited, .. } = &mut self.phase {
            awaited.remove(&pid);
        }
        // The process had no channel for this message before.
        let is_to_end = process.is_leaving || self.is_ending();
        self.says(pid, role, Duration::ZERO, now);
        if is_to_end {
            self.end_one(pid);
        }
    }

    /// Reports the role of a process. `took` is the time between getting the lock and serving.
    pub fn says(&mut self, pid: Pid, role: Role, took: Duration, now: Instant) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if role == Role::Server && matches!(process.role, Role::Starting | Role::Standby) {
            // The order to end came after the lock of the server, so the process ignores it.
            process.is_leaving = false;
        }
        (process.heard, process.role) = (now, role);
        if matches!(role, Role::Standby | Role::Server) {
            self.backoff.on_load();
        }
        if role == Role::Server {
            self.serves(pid, took, now);
        }
        self.settle(now);
        self.go_on(now);
    }

    /// Reports progress of a process.
    pub fn heard(&mut self, pid: Pid, now: Instant) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.heard = now;
        }
    }

    /// Reports that a newcomer cannot take over.
    pub fn gave_up(&mut self, pid: Pid, problem: String, now: Instant) {
        if let Some(ChangeStage::Newcomer(kind, newcomer)) = self.change
            && newcomer == pid
        {
            self.leave(pid);
            self.refuse(kind, problem);
        }
        self.go_on(now);
    }

    /// Reports that the server got a signal to end.
    pub fn wants_to_leave(&mut self, pid: Pid, now: Instant) {
        if self.phase == TreePhase::Running && self.server() == Some(pid) {
            if let Some(ChangeStage::Asked(kind) | ChangeStage::Newcomer(kind, _)) = self.change {
                self.abandon(kind, "the server was asked to end".to_owned());
            }
            self.fail_probation(pid, Takeover::Restart, || format!("process {pid} was asked to end"));
            self.leaving = Some((pid, now + PATIENCE));
        }
        self.go_on(now);
    }

    /// Returns true if the supervisor did not request this end and the process did not exit with an error
    /// status.
    pub fn is_crash(&self, pid: Pid, how: ProcessEnd) -> bool {
        let is_planned = self.is_ending() || self.leaving.is_some_and(|(leaving, _)| leaving == pid);
        let Some(process) = self.processes.get(&pid).filter(|process| !is_planned && !process.is_leaving) else {
            return false;
        };
        match how {
            ProcessEnd::Status(status) => !matches!(status, 0..=2),
            ProcessEnd::Signal(_) => true,
            ProcessEnd::Unknown => process.counts(),
        }
    }

    /// Reports that a process of the previous supervisor has ended and will not introduce itself.
    pub fn absent(&mut self, pid: Pid, now: Instant) {
        if let TreePhase::Settling { awaited, .. } = &mut self.phase {
            awaited.remove(&pid);
            self.settle(now);
            self.go_on(now);
        }
    }

    /// Reports the end of a process.
    pub fn ended(&mut self, pid: Pid, how: ProcessEnd, now: Instant) {
        let Some(process) = self.processes.remove(&pid) else { return };
        if self.phase == TreePhase::First {
            self.steps.push_back(TreeStep::Exit(match how {
                ProcessEnd::Status(status @ (1 | 2)) => status as u8,
                ProcessEnd::Status(_) | ProcessEnd::Signal(_) | ProcessEnd::Unknown => 1,
            }));
        }
        if let TreePhase::Ending { is_draining: true, .. } = self.phase
            && process.serves_or_drains()
            && how != ProcessEnd::Status(0)
        {
            self.steps.push_back(TreeStep::Exit(1));
        }
        self.leaving = self.leaving.filter(|(leaving, _)| *leaving != pid);
        if self.fail_probation(pid, Takeover::Rollback, || format!("process {pid} has ended: {how}")) {
            // The old program serves again and is not at fault.
        } else if let Some(ChangeStage::Newcomer(kind, newcomer)) = self.change
            && newcomer == pid
        {
            self.refuse(kind, format!("the new process has ended: {how}"));
        } else if process.counts()
            && self.phase != TreePhase::First
            && !self.is_ending()
            && now.duration_since(process.since) < YOUNG
        {
            self.backoff.on_young_death(matches!(process.role, Role::Standby | Role::Server), now);
            self.delayed(format!("process {pid} ended: {how}"), now);
        }
        self.settle(now);
        self.go_on(now);
    }

    /// Requests a change of the server.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn ask(&mut self, kind: ChangeKind, now: Instant) -> Result<(), String> {
        if self.is_ending() {
            return Err("the server is ending".to_owned());
        }
        if self.change.is_some() {
            return Err("a restart or an upgrade is under way".to_owned());
        }
        if self.phase != TreePhase::Running || self.server().is_none() {
            return Err("no process serves yet".to_owned());
        }
        self.change = Some(ChangeStage::Asked(kind));
        if self.is_draining(now) {
            self.steps.push_back(TreeStep::Waits(kind));
        }
        self.go_on(now);
        Ok(())
    }

    /// Ends all processes.
    pub fn end(&mut self, now: Instant) {
        if self.is_ending() {
            return;
        }
        if let Some(ChangeStage::Asked(kind) | ChangeStage::Newcomer(kind, _)) = self.change {
            self.refuse(kind, "the server is ending".to_owned());
        }
        // The end of all processes also ends a probation.
        self.change = None;
        self.phase = TreePhase::Ending { kill_at: now + END_WITHIN, is_draining: false };
        let pids: Vec<_> = self.processes.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.end_one(pid));
        self.go_on(now);
    }

    /// Lets time pass. Call it at the latest when [`due`](Self::due) is reached.
    pub fn tick(&mut self, now: Instant) {
        self.watch(now);
        self.last_tick = now;
        if let Some(ChangeStage::Probation { until, .. }) = self.change
            && now >= until
        {
            self.generation += 1;
            self.change = Some(ChangeStage::Replacing);
            self.steps.push_back(TreeStep::Proven);
        }
        if let TreePhase::Ending { kill_at, is_draining: false } = self.phase
            && now >= kill_at
        {
            let left = self.processes.iter().filter(|(_, process)| !process.serves_or_drains()).map(|(pid, _)| *pid);
            self.steps.extend(left.map(TreeStep::Kill));
        }
        self.settle(now);
        self.go_on(now);
    }

    /// Returns the next time at which the tree has work.
    pub fn due(&self) -> Instant {
        let mut due = self.next_ping;
        match self.phase {
            TreePhase::Settling { until, .. } => due = due.min(until),
            TreePhase::Ending { kill_at, is_draining: false } => {
                due = due.min(kill_at.max(self.last_tick + END_WITHIN))
            }
            TreePhase::First | TreePhase::Running | TreePhase::Ending { is_draining: true, .. } => {}
        }
        if let Some(ChangeStage::Probation { until, .. }) = self.change {
            due = due.min(until);
        }
        if let Some((_, until)) = self.leaving {
            due = due.min(until);
        }
        if self.is_short() {
            due = due.min(self.start_at());
        }
        due
    }

    fn go_on(&mut self, now: Instant) {
        match self.phase {
            TreePhase::First | TreePhase::Settling { .. } => {}
            TreePhase::Running => {
                self.start_newcomer(now);
                self.fill(now);
            }
            TreePhase::Ending { is_draining, kill_at } => {
                let server = self.server();
                let others_left = self.processes.values().any(|process| !process.serves_or_drains());
                if self.processes.is_empty() && self.asked_for.is_empty() {
                    self.steps.push_back(TreeStep::Exit(0));
                } else if let Some(server) = server
                    && !is_draining
                    && !others_left
                {
                    self.phase = TreePhase::Ending { is_draining: true, kill_at };
                    self.let_go(server, ProcessOrder::Drain);
                }
            }
        }
    }

    fn start_newcomer(&mut self, now: Instant) {
        if let Some(ChangeStage::Asked(kind)) = self.change
            && !self.asked_for.contains(&Purpose::Newcomer(kind))
            && !self.is_draining(now)
        {
            self.start(Purpose::Newcomer(kind));
        }
    }

    fn fill(&mut self, now: Instant) {
        let is_ready = |process: &Process| process.role == Role::Standby && process.counts();
        if let Some((server, until)) = self.leaving
            && (now >= until || self.processes.values().any(is_ready))
        {
            self.leaving = None;
            self.last_server = Some((server, Some(Takeover::Restart)));
            self.let_go(server, ProcessOrder::HandOver);
        }
        while self.is_short() && now >= self.start_at() {
            self.backoff.on_start();
            self.start(Purpose::Stand);
            // Processes of an upgrade start one by one, because each needs memory for its zones.
            if matches!(self.change, Some(ChangeStage::Replacing)) {
                break;
            }
        }
        let server = self.server().and_then(|pid| self.processes.get(&pid));
        let newcomer = self.newcomer();
        // A leaving process needs one more for a while, and so does a server that is being killed.
        if let (true, None | Some(ChangeStage::Replacing), None) =
            (server.is_some_and(Process::counts), &self.change, self.leaving)
        {
            let standing = self.processes.iter().filter(|(pid, process)| Some(**pid) != newcomer && process.counts());
            let mut surplus: Vec<_> = standing.filter(|(_, process)| process.role != Role::Server).collect();
            // Processes of the old program go first, then those that cannot serve, then the youngest.
            surplus.sort_by_key(|(_, process)| (process.generation, is_ready(process), Reverse(process.since)));
            let ready = |process: &Process| process.generation == self.generation && process.role == Role::Standby;
            let is_ready = surplus.iter().filter(|(_, process)| ready(process)).count();
            let too_many = surplus.len().saturating_sub(self.rules.standbys);
            // During a replacement, each old process ends only when a new one is ready.
            let too_many = match self.change {
                Some(ChangeStage::Replacing) => {
                    too_many.min(is_ready.max(usize::from(self.rules.standbys == 0) * too_many))
                }
                _ => too_many,
            };
            let pids: Vec<Pid> = surplus.into_iter().take(too_many).map(|(pid, _)| *pid).collect();
            for pid in pids {
                self.leave(pid);
                self.steps.push_back(TreeStep::Send(pid, ProcessOrder::End));
            }
        }
        if let (Some(server), Some(ChangeStage::Replacing)) = (self.server(), &self.change) {
            let is_old =
                |pid: &Pid| self.processes.get(pid).is_some_and(|process| process.generation < self.generation);
            let others_are_old = self.processes.keys().any(|pid| *pid != server && is_old(pid));
            if is_old(&server) && !others_are_old && self.processes.values().any(is_ready) {
                // A process of the old program has served again after the new server died.
                self.last_server = Some((server, Some(Takeover::Upgrade)));
                self.let_go(server, ProcessOrder::HandOver);
            } else if !is_old(&server) && !others_are_old && self.is_whole() {
                self.change = None;
                self.steps.push_back(TreeStep::ExecInPlace);
            }
        }
    }

    /// Returns the newcomer while it is in excess, until the server has given up its place.
    fn extra(&self) -> Option<Pid> {
        self.newcomer().filter(|_| self.server().is_some())
    }

    /// Returns true if a process drains and is not hung: the server still takes its connections and counters.
    fn is_draining(&self, now: Instant) -> bool {
        let is_silent = |process: &Process| now.duration_since(process.heard) >= NEWCOMER_PATIENCE;
        self.processes.values().any(|process| process.role == Role::Draining && !is_silent(process))
    }

    fn is_short(&self) -> bool {
        if self.phase != TreePhase::Running {
            return false;
        }
        let newcomer = self.extra();
        let is_replacing = matches!(self.change, Some(ChangeStage::Replacing));
        let counts = |pid: Pid, process: &Process| {
            Some(pid) != newcomer && process.counts() && (!is_replacing || process.generation == self.generation)
        };
        let leaving = self.leaving.map(|(pid, _)| pid);
        let there = self.processes.iter().filter(|(pid, process)| Some(**pid) != leaving && counts(**pid, process));
        let asked_for = self.asked_for.iter().filter(|purpose| **purpose == Purpose::Stand).count();
        let starting = there.clone().filter(|(_, process)| process.role == Role::Starting).count() + asked_for;
        if is_replacing && starting > 0 {
            return false;
        }
        there.count() + asked_for < self.rules.standbys + 1
    }

    /// The delay is shorter while no process serves and none is about to.
    fn start_at(&self) -> Instant {
        let serves_soon = |process: &Process| process.counts() && process.role != Role::Failed;
        let is_served = self.asked_for.contains(&Purpose::Stand) || self.processes.values().any(serves_soon);
        self.backoff.not_before(is_served)
    }

    fn delayed(&mut self, problem: String, now: Instant) {
        let delay = self.start_at().saturating_duration_since(now);
        if !delay.is_zero() {
            self.steps.push_back(TreeStep::Delayed { problem, delay });
        }
    }

    fn is_whole(&self) -> bool {
        let loaded = self.processes.values().filter(|process| process.counts() && process.role != Role::Starting);
        !self.is_short() && loaded.count() > self.rules.standbys
    }

    fn take_asked_for(&mut self, purpose: Purpose) {
        if let Some(place) = self.asked_for.iter().position(|asked| *asked == purpose) {
            self.asked_for.swap_remove(place);
        }
    }

    fn start(&mut self, purpose: Purpose) {
        self.asked_for.push(purpose);
        self.steps.push_back(TreeStep::Start(purpose));
    }

    fn newcomer(&self) -> Option<Pid> {
        match self.change {
            Some(ChangeStage::Newcomer(_, pid)) => Some(pid),
            Some(ChangeStage::Asked(_) | ChangeStage::Probation { .. } | ChangeStage::Replacing) | None => None,
        }
    }

    fn serves(&mut self, pid: Pid, took: Duration, now: Instant) {
        for (other, process) in &mut self.processes {
            if *other != pid && process.role == Role::Server {
                process.role = Role::Draining;
                process.is_leaving = true;
            }
        }
        // This news may arrive before the end of the previous server.
        if let Some(ChangeStage::Probation { server, .. }) = self.change
            && server != pid
        {
            self.fail_probation(server, Takeover::Rollback, || format!("process {server} serves no more"));
        }
        let before = self.last_server.replace((pid, None));
        if before.is_some_and(|(before, _)| before == pid) {
            return;
        }
        if self.phase == TreePhase::First {
            self.phase = TreePhase::Running;
            return;
        }
        let reason = match self.change {
            Some(ChangeStage::Newcomer(kind, newcomer)) if newcomer == pid => {
                self.steps.push_back(TreeStep::Changed(kind, Ok(())));
                match kind {
                    ChangeKind::Restart => {
                        self.change = None;
                        Takeover::Restart
                    }
                    ChangeKind::Upgrade => {
                        self.change = Some(ChangeStage::Probation { server: pid, until: now + PROBATION });
                        Takeover::Upgrade
                    }
                }
            }
            Some(ChangeStage::Newcomer(kind, _) | ChangeStage::Asked(kind)) => {
                self.abandon(kind, "the server has ended".to_owned());
                Takeover::Crash
            }
            Some(ChangeStage::Probation { .. } | ChangeStage::Replacing) | None => {
                before.and_then(|(_, reason)| reason).unwrap_or(Takeover::Crash)
            }
        };
        if let Some((after, _)) = before {
            self.steps.push_back(TreeStep::TookOver { pid, after: Some(after), reason, took });
        }
    }

    fn settle(&mut self, now: Instant) {
        if let TreePhase::Settling { until, awaited } = &self.phase
            && (now >= *until || (awaited.is_empty() && (self.processes.is_empty() || self.server().is_some())))
        {
            self.phase = TreePhase::Running;
        }
    }

    /// Pings silent processes and kills those that stay silent.
    fn watch(&mut self, now: Instant) {
        let interval = self.rules.ping();
        // After this process itself was stopped or starved, silence of other processes proves nothing.
        if now.duration_since(self.last_tick) > interval * 2 {
            self.processes.values_mut().for_each(|process| process.heard = now);
        }
        let newcomer = self.newcomer();
        let pids: Vec<_> = self.processes.iter().map(|(pid, process)| (*pid, *process)).collect();
        for (pid, process) in pids {
            let silent = now.duration_since(process.heard);
            // The last drain has a separate deadline, and finally writes to a disk, for which it may wait.
            let is_hung = !self.is_ending() && self.rules.watchdog.is_some_and(|most| silent >= most);
            let is_stuck = newcomer == Some(pid) && silent >= NEWCOMER_PATIENCE;
            if !is_hung && !is_stuck {
                continue;
            }
            if process.role == Role::Server {
                self.last_server = Some((pid, Some(Takeover::Hang)));
            }
            if let Some(ChangeStage::Newcomer(kind, _)) = self.change
                && newcomer == Some(pid)
            {
                self.refuse(kind, format!("the new process made no progress for {} s", silent.as_secs()));
            }
            self.fail_probation(pid, Takeover::Rollback, || format!("process {pid} made no progress"));
            // Another process may start now, before the system reports the death of this one.
            self.leave(pid);
            self.steps.push_back(TreeStep::Kill(pid));
        }
        if now >= self.next_ping {
            self.next_ping = now + interval;
            self.steps.extend(self.processes.keys().map(|pid| TreeStep::Send(*pid, ProcessOrder::Ping)));
        }
    }

    fn leave(&mut self, pid: Pid) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.is_leaving = true;
        }
    }

    fn let_go(&mut self, server: Pid, word: ProcessOrder) {
        if let Some(process) = self.processes.get_mut(&server) {
            process.is_leaving = true;
            process.role = Role::Draining;
        }
        self.steps.push_back(TreeStep::Send(server, word));
    }

    /// Returns true if this process is the server of an upgrade on probation, which has then failed.
    fn fail_probation(&mut self, pid: Pid, reason: Takeover, problem: impl FnOnce() -> String) -> bool {
        let is_it = matches!(self.change, Some(ChangeStage::Probation { server, .. }) if server == pid);
        if is_it {
            self.change = None;
            self.last_server = Some((pid, Some(reason)));
            self.steps.push_back(TreeStep::RolledBack(problem()));
        }
        is_it
    }

    fn end_one(&mut self, pid: Pid) {
        self.leave(pid);
        if self.processes.get(&pid).is_some_and(|process| !process.serves_or_drains()) {
            self.steps.push_back(TreeStep::Send(pid, ProcessOrder::End));
        }
    }

    fn refuse(&mut self, kind: ChangeKind, problem: String) {
        self.change = None;
        self.steps.push_back(TreeStep::Changed(kind, Err(problem)));
    }

    fn abandon(&mut self, kind: ChangeKind, problem: String) {
        if let Some(newcomer) = self.newcomer() {
            self.leave(newcomer);
            self.steps.push_back(TreeStep::Send(newcomer, ProcessOrder::End));
        }
        self.refuse(kind, problem);
    }
}
