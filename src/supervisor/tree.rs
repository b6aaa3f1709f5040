//! The tree of processes as a pure machine: who is there, who is started, told or killed next.
//!
//! One input (a process was started, introduced itself, serves, ended; somebody asked for a restart; time passed), then it is drained
//! of steps. It holds no descriptor, channel or clock. Who serves is not decided here: the kernel gives the lock (`locks.rs`), and
//! the tree only sees to it that there is somebody to take it.
//!
//! ```text
//!   first ──serves──▶ running ◀──all introduced, or SETTLE──  settling (after a succession)
//!     │                  │
//!     ▼ ended            │ asked to end
//!   exit with its        ▼
//!   status            ending: standbys and newcomer end ──▶ the server drains ──▶ exit
//!
//!   a process:   starting ──▶ standby ──has the lock──▶ server ──hands over──▶ draining ──▶ ended
//!                    └──▶ failed (what it should load is wrong; it tries again by itself)
//!
//!   a change:    asked ──▶ newcomer starts ──serves──▶ restart: done
//!                               │                      upgrade: probation for 10 s ──▶ replacing ──▶ exec in place
//!                               ▼ ended, silent            └──▶ rolled back, if the new server ends
//!                            refused
//! ```

mod backoff;
#[cfg(test)]
mod tests;
mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::backoff::{Backoff, YOUNG};
pub(super) use self::words::{ChangeKind, Ended, Pid, Purpose, Rules, Step, Word};
use crate::metrics::{Role, Takeover};

/// The machine.
#[derive(Debug)]
pub(super) struct Tree {
    rules: Rules,
    processes: BTreeMap<Pid, Process>,
    /// Processes that were asked for and have not come yet: `started` answers each.
    asked_for: Vec<Purpose>,
    phase: Phase,
    change: Option<Change>,
    /// The server that was asked to go by a signal: a standby takes over when there is one; it goes at this time at the latest.
    leaving: Option<(Pid, Instant)>,
    /// Who served last, and why it does no more, if that is known.
    last_server: Option<(Pid, Option<Takeover>)>,
    backoff: Backoff,
    /// Which program new processes run: 0 is that of this supervisor.
    generation: u8,
    last_tick: Instant,
    next_ping: Instant,
    steps: VecDeque<Step>,
}

/// A process that is there.
#[derive(Clone, Copy, Debug)]
struct Process {
    role: Role,
    generation: u8,
    /// Whether it was told to end or was killed by us: its end is no surprise.
    is_leaving: bool,
    since: Instant,
    /// When it last said something.
    heard: Instant,
}

impl Process {
    /// Whether it will serve if it is the one that is left.
    fn counts(&self) -> bool {
        !self.is_leaving && self.role != Role::Draining
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first server starts.
    First,
    /// A successor waits for the others to introduce themselves.
    Settling {
        until: Instant,
        expected: usize,
    },
    Running,
    /// All end. Who has not by `kill_at` is killed, but the server, which drains once the others are gone.
    Ending {
        kill_at: Instant,
        is_draining: bool,
    },
}

/// A change that is under way.
#[derive(Clone, Debug)]
enum Change {
    /// The newcomer is asked for.
    Asked(ChangeKind),
    /// It prepares to serve.
    Newcomer(ChangeKind, Pid),
    /// The new server has to prove itself.
    Probation { server: Pid, until: Instant },
    /// Standbys of the new program come, those of the old one go.
    Replacing,
}

impl Tree {
    /// Nothing runs yet: the first server is started.
    pub(super) fn first(rules: Rules, now: Instant) -> Self {
        let mut tree = Self::new(rules, Phase::First, now);
        tree.start(Purpose::First);
        tree
    }

    /// Others run already, so many as far as is known, and introduce themselves. `last_server`: who was last known to serve.
    pub(super) fn succeeding(rules: Rules, expected: usize, last_server: Option<Pid>, now: Instant) -> Self {
        let mut tree = Self::new(rules, Phase::Settling { until: now + SETTLE, expected }, now);
        tree.last_server = last_server.map(|pid| (pid, None));
        tree.settle(now);
        tree
    }

    fn new(rules: Rules, phase: Phase, now: Instant) -> Self {
        Self {
            rules,
            processes: BTreeMap::new(),
            asked_for: Vec::new(),
            phase,
            change: None,
            leaving: None,
            last_server: None,
            backoff: Backoff::new(now),
            generation: 0,
            last_tick: now,
            next_ping: now,
            steps: VecDeque::new(),
        }
    }

    /// What is to be done next, if anything is.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The roles of all, by number.
    pub(super) fn roles(&self) -> impl Iterator<Item = (Pid, Role)> {
        self.processes.iter().map(|(pid, process)| (*pid, process.role))
    }

    /// Who serves.
    pub(super) fn server(&self) -> Option<Pid> {
        self.processes.iter().find(|(_, process)| process.role == Role::Server).map(|(pid, _)| *pid)
    }

    /// True if the server has answered one of the last pings.
    pub(super) fn is_progress_made(&self, now: Instant) -> bool {
        let heard = self.server().and_then(|pid| self.processes.get(&pid)).map(|process| process.heard);
        heard.is_some_and(|heard| now.saturating_duration_since(heard) < self.rules.ping() * PINGS)
    }

    /// Whether all is to end.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether processes are started from the file of an upgrade by now.
    pub(super) fn is_replacing(&self) -> bool {
        self.generation > 0
    }

    /// Whether an upgrade is still to prove itself: standbys then keep what they have.
    pub(super) fn is_on_probation(&self) -> bool {
        matches!(self.change, Some(Change::Probation { .. }))
    }

    /// The config in force says this now.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Instant) {
        self.rules = rules;
        self.go_on(now);
    }

    /// What was asked for has started.
    pub(super) fn started(&mut self, purpose: Purpose, pid: Pid, now: Instant) {
        self.take_asked_for(purpose);
        let generation = self.generation + u8::from(purpose == Purpose::Newcomer(ChangeKind::Upgrade));
        let process = Process { role: Role::Starting, generation, is_leaving: false, since: now, heard: now };
        self.processes.insert(pid, process);
        match (purpose, &self.change) {
            (Purpose::Newcomer(kind), Some(Change::Asked(_))) => self.change = Some(Change::Newcomer(kind, pid)),
            // Nobody wants it any more.
            (Purpose::Newcomer(_), _) => self.end_one(pid),
            (Purpose::First | Purpose::Stand, _) if self.is_ending() => self.end_one(pid),
            (Purpose::First | Purpose::Stand, _) => {}
        }
        self.go_on(now);
    }

    /// What was asked for could not be started.
    pub(super) fn not_started(&mut self, purpose: Purpose, problem: String, now: Instant) {
        self.take_asked_for(purpose);
        match purpose {
            Purpose::First => self.steps.push_back(Step::Exit(1)),
            Purpose::Newcomer(kind) => self.refuse(kind, problem),
            Purpose::Stand => {
                self.backoff.on_young_death(false, now);
                self.delayed(problem, now);
            }
        }
        self.go_on(now);
    }

    /// A process tells who it is: one that was started here, or that was there before.
    pub(super) fn introduced(&mut self, pid: Pid, role: Role, now: Instant) {
        // Which program one runs that was there before does not matter: an upgrade that is under way is forgotten by a succession.
        let usual = Process { role, generation: self.generation, is_leaving: false, since: now, heard: now };
        let process = self.processes.entry(pid).or_insert(usual);
        process.heard = now;
        // It could not be told before.
        let is_to_end = process.is_leaving || self.is_ending();
        self.says(pid, role, Duration::ZERO, now);
        if is_to_end {
            self.end_one(pid);
        }
    }

    /// A process does something else now; `took`: how long it had the lock before it served.
    pub(super) fn says(&mut self, pid: Pid, role: Role, took: Duration, now: Instant) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
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

    /// A process makes progress.
    pub(super) fn heard(&mut self, pid: Pid, now: Instant) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.heard = now;
        }
    }

    /// A process could not do what it was started for, and says why; it ends by itself.
    pub(super) fn gave_up(&mut self, pid: Pid, problem: String, now: Instant) {
        if let Some(Change::Newcomer(kind, newcomer)) = self.change
            && newcomer == pid
        {
            self.leave(pid);
            self.refuse(kind, problem);
        }
        self.go_on(now);
    }

    /// A server was told to end by a signal of its own.
    pub(super) fn wants_to_leave(&mut self, pid: Pid, now: Instant) {
        if self.phase == Phase::Running && self.server() == Some(pid) {
            if let Some(Change::Asked(kind) | Change::Newcomer(kind, _)) = self.change {
                self.abandon(kind, "the server was told to end".to_owned());
            }
            self.fail_probation(pid, Takeover::Restart, || format!("process {pid} was told to end"));
            self.leaving = Some((pid, now + PATIENCE));
        }
        self.go_on(now);
    }

    /// True if a process that ends so has crashed: nothing told it to end, and it did not end by itself with an error of its own.
    pub(super) fn is_crash(&self, pid: Pid, how: Ended) -> bool {
        let is_planned = self.is_ending() || self.leaving.is_some_and(|(leaving, _)| leaving == pid);
        let Some(process) = self.processes.get(&pid).filter(|process| !is_planned && !process.is_leaving) else {
            return false;
        };
        match how {
            Ended::Status(status) => !matches!(status, 0..=2),
            Ended::Signal(_) => true,
            Ended::Unknown => process.counts(),
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, pid: Pid, how: Ended, now: Instant) {
        let Some(process) = self.processes.remove(&pid) else { return };
        if self.phase == Phase::First {
            self.steps.push_back(Step::Exit(match how {
                Ended::Status(status @ (1 | 2)) => status as u8,
                Ended::Status(_) | Ended::Signal(_) | Ended::Unknown => 1,
            }));
        }
        if let Phase::Ending { is_draining: true, .. } = self.phase
            && serves_or_drains(&process)
            && how != Ended::Status(0)
        {
            self.steps.push_back(Step::Exit(1));
        }
        self.leaving = self.leaving.filter(|(leaving, _)| *leaving != pid);
        if self.fail_probation(pid, Takeover::Rollback, || format!("process {pid} has ended: {how}")) {
            // The old program serves again, and has done no wrong.
        } else if let Some(Change::Newcomer(kind, newcomer)) = self.change
            && newcomer == pid
        {
            self.refuse(kind, format!("the newcomer has ended: {how}"));
        } else if process.counts()
            && self.phase != Phase::First
            && !self.is_ending()
            && now.duration_since(process.since) < YOUNG
        {
            self.backoff.on_young_death(matches!(process.role, Role::Standby | Role::Server), now);
            self.delayed(format!("process {pid} ended: {how}"), now);
        }
        self.settle(now);
        self.go_on(now);
    }

    /// Somebody asks for another server.
    ///
    /// # Errors
    /// If that cannot be now, and why.
    pub(super) fn ask(&mut self, kind: ChangeKind, now: Instant) -> Result<(), String> {
        if self.is_ending() {
            return Err("the server is ending".to_owned());
        }
        if self.change.is_some() {
            return Err("a restart or an upgrade is under way".to_owned());
        }
        if self.phase != Phase::Running || self.server().is_none() {
            return Err("nobody serves yet".to_owned());
        }
        self.change = Some(Change::Asked(kind));
        self.start(Purpose::Newcomer(kind));
        self.go_on(now);
        Ok(())
    }

    /// All are to end.
    pub(super) fn end(&mut self, now: Instant) {
        if self.is_ending() {
            return;
        }
        if let Some(Change::Asked(kind) | Change::Newcomer(kind, _)) = self.change {
            self.refuse(kind, "the server is ending".to_owned());
        }
        // An upgrade that has not proven itself yet has nothing to prove any more.
        self.change = None;
        self.phase = Phase::Ending { kill_at: now + END_WITHIN, is_draining: false };
        let pids: Vec<_> = self.processes.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.end_one(pid));
        self.go_on(now);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.watch(now);
        self.last_tick = now;
        if let Some(Change::Probation { until, .. }) = self.change
            && now >= until
        {
            self.generation += 1;
            self.change = Some(Change::Replacing);
            self.steps.push_back(Step::Proven);
        }
        if let Phase::Ending { kill_at, is_draining: false } = self.phase
            && now >= kill_at
        {
            let left = self.processes.iter().filter(|(_, process)| !serves_or_drains(process)).map(|(pid, _)| *pid);
            self.steps.extend(left.map(Step::Kill));
        }
        self.settle(now);
        self.go_on(now);
    }

    /// When `tick` is due.
    pub(super) fn due(&self) -> Instant {
        let mut due = self.next_ping;
        match self.phase {
            Phase::Settling { until, .. } => due = due.min(until),
            Phase::Ending { kill_at, is_draining: false } => due = due.min(kill_at.max(self.last_tick + END_WITHIN)),
            Phase::First | Phase::Running | Phase::Ending { is_draining: true, .. } => {}
        }
        if let Some(Change::Probation { until, .. }) = self.change {
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

    /// Does all that is due: starts who is missing, ends who is too many.
    fn go_on(&mut self, now: Instant) {
        match self.phase {
            Phase::First | Phase::Settling { .. } => {}
            Phase::Running => self.fill(now),
            Phase::Ending { is_draining, kill_at } => {
                let server = self.server();
                let others_left = self.processes.values().any(|process| !serves_or_drains(process));
                if self.processes.is_empty() && self.asked_for.is_empty() {
                    self.steps.push_back(Step::Exit(0));
                } else if let Some(server) = server
                    && !is_draining
                    && !others_left
                {
                    self.phase = Phase::Ending { is_draining: true, kill_at };
                    self.let_go(server, Word::Drain);
                }
            }
        }
    }

    /// Brings the tree to its strength.
    fn fill(&mut self, now: Instant) {
        let is_ready = |process: &Process| process.role == Role::Standby && process.counts();
        if let Some((server, until)) = self.leaving
            && (now >= until || self.processes.values().any(is_ready))
        {
            self.leaving = None;
            self.last_server = Some((server, Some(Takeover::Restart)));
            self.let_go(server, Word::HandOver);
        }
        while self.is_short() && now >= self.start_at() {
            self.backoff.on_start();
            self.start(Purpose::Stand);
            // Those of an upgrade come one by one: a process takes as much memory as its zones do.
            if matches!(self.change, Some(Change::Replacing)) {
                break;
            }
        }
        let server = self.server();
        let newcomer = self.newcomer();
        // Who leaves needs one more for a while.
        if let (Some(_), None | Some(Change::Replacing), None) = (server, &self.change, self.leaving) {
            let standing = self.processes.iter().filter(|(pid, process)| Some(**pid) != newcomer && process.counts());
            let mut surplus: Vec<_> = standing.filter(|(_, process)| process.role != Role::Server).collect();
            // Those of the old program first, then those that cannot serve, then the youngest.
            surplus.sort_by_key(|(_, process)| (process.generation, is_ready(process), Reverse(process.since)));
            let ready = |process: &Process| process.generation == self.generation && process.role == Role::Standby;
            let is_ready = surplus.iter().filter(|(_, process)| ready(process)).count();
            let too_many = surplus.len().saturating_sub(self.rules.standbys);
            // While some are replaced, each goes only when another one is there for it.
            let too_many = match self.change {
                Some(Change::Replacing) => too_many.min(is_ready.max(usize::from(self.rules.standbys == 0) * too_many)),
                _ => too_many,
            };
            let pids: Vec<Pid> = surplus.into_iter().take(too_many).map(|(pid, _)| *pid).collect();
            for pid in pids {
                self.leave(pid);
                self.steps.push_back(Step::Tell(pid, Word::End));
            }
        }
        if let (Some(server), Some(Change::Replacing)) = (self.server(), &self.change) {
            let is_old =
                |pid: &Pid| self.processes.get(pid).is_some_and(|process| process.generation < self.generation);
            let others_are_old = self.processes.keys().any(|pid| *pid != server && is_old(pid));
            if is_old(&server) && !others_are_old && self.processes.values().any(is_ready) {
                // One of the old program has served once more, when the new server died.
                self.last_server = Some((server, Some(Takeover::Upgrade)));
                self.let_go(server, Word::HandOver);
            } else if !is_old(&server) && !others_are_old && self.is_whole() {
                self.change = None;
                self.steps.push_back(Step::ExecInPlace);
            }
        }
    }

    /// The newcomer, while it is one more than there are places: until the server has given up its own.
    fn extra(&self) -> Option<Pid> {
        self.newcomer().filter(|_| self.server().is_some())
    }

    /// Whether a process is missing that could be started now.
    fn is_short(&self) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        let newcomer = self.extra();
        let is_replacing = matches!(self.change, Some(Change::Replacing));
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

    /// When a missing process may start. The delay is shorter while no process serves and none is about to.
    fn start_at(&self) -> Instant {
        let serves_soon = |process: &Process| process.counts() && process.role != Role::Failed;
        let is_served = self.asked_for.contains(&Purpose::Stand) || self.processes.values().any(serves_soon);
        self.backoff.not_before(is_served)
    }

    /// A place stays empty for a while, if it has to.
    fn delayed(&mut self, problem: String, now: Instant) {
        let delay = self.start_at().saturating_duration_since(now);
        if !delay.is_zero() {
            self.steps.push_back(Step::Delayed { problem, delay });
        }
    }

    /// Whether all places are taken by those who have loaded.
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
        self.steps.push_back(Step::Start(purpose));
    }

    fn newcomer(&self) -> Option<Pid> {
        match self.change {
            Some(Change::Newcomer(_, pid)) => Some(pid),
            Some(Change::Asked(_) | Change::Probation { .. } | Change::Replacing) | None => None,
        }
    }

    /// A process serves: what does that mean?
    fn serves(&mut self, pid: Pid, took: Duration, now: Instant) {
        for (other, process) in &mut self.processes {
            // The lock is one's alone, so that this has given it up, whatever it has said.
            if *other != pid && process.role == Role::Server {
                process.role = Role::Draining;
                process.is_leaving = true;
            }
        }
        // It may be known before the end of the one before is.
        if let Some(Change::Probation { server, .. }) = self.change
            && server != pid
        {
            self.fail_probation(server, Takeover::Rollback, || format!("process {server} serves no more"));
        }
        let before = self.last_server.replace((pid, None));
        if before.is_some_and(|(before, _)| before == pid) {
            return;
        }
        if self.phase == Phase::First {
            self.phase = Phase::Running;
            return;
        }
        let reason = match self.change {
            Some(Change::Newcomer(kind, newcomer)) if newcomer == pid => {
                self.steps.push_back(Step::Changed(kind, Ok(())));
                match kind {
                    ChangeKind::Restart => {
                        self.change = None;
                        Takeover::Restart
                    }
                    ChangeKind::Upgrade => {
                        self.change = Some(Change::Probation { server: pid, until: now + PROBATION });
                        Takeover::Upgrade
                    }
                }
            }
            Some(Change::Newcomer(kind, _) | Change::Asked(kind)) => {
                self.abandon(kind, "the server has ended meanwhile".to_owned());
                Takeover::Crash
            }
            Some(Change::Probation { .. } | Change::Replacing) | None => {
                before.and_then(|(_, reason)| reason).unwrap_or(Takeover::Crash)
            }
        };
        if let Some((after, _)) = before {
            self.steps.push_back(Step::TookOver { pid, after: Some(after), reason, took });
        }
    }

    /// Ends the wait of a successor, if there is nothing more to wait for.
    fn settle(&mut self, now: Instant) {
        if let Phase::Settling { until, expected } = self.phase
            && (now >= until || (self.processes.len() >= expected && (expected == 0 || self.server().is_some())))
        {
            self.phase = Phase::Running;
        }
    }

    /// Asks who has not been heard of for a while, and kills who stays silent.
    fn watch(&mut self, now: Instant) {
        let interval = self.rules.ping();
        // Who was stopped or starved itself cannot tell who else was.
        if now.duration_since(self.last_tick) > interval * 2 {
            self.processes.values_mut().for_each(|process| process.heard = now);
        }
        let newcomer = self.newcomer();
        let pids: Vec<_> = self.processes.iter().map(|(pid, process)| (*pid, *process)).collect();
        for (pid, process) in pids {
            let silent = now.duration_since(process.heard);
            // The last drain has its own deadline, and ends by writing to a disk, for which it may wait.
            let is_hung = !self.is_ending() && self.rules.watchdog.is_some_and(|most| silent >= most);
            let is_stuck = newcomer == Some(pid) && silent >= NEWCOMER_PATIENCE;
            if !is_hung && !is_stuck {
                continue;
            }
            if process.role == Role::Server {
                self.last_server = Some((pid, Some(Takeover::Hang)));
            }
            if let Some(Change::Newcomer(kind, _)) = self.change
                && newcomer == Some(pid)
            {
                self.refuse(kind, format!("the newcomer made no progress for {} s", silent.as_secs()));
            }
            self.fail_probation(pid, Takeover::Rollback, || format!("process {pid} made no progress"));
            // It is dead when the system says so; meanwhile another one may start.
            self.leave(pid);
            self.steps.push_back(Step::Kill(pid));
        }
        if now >= self.next_ping {
            self.next_ping = now + interval;
            self.steps.extend(self.processes.keys().map(|pid| Step::Tell(*pid, Word::Ping)));
        }
    }

    /// A process is on its way out by our own doing.
    fn leave(&mut self, pid: Pid) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.is_leaving = true;
        }
    }

    /// The server has the queries in flight to finish, and no more.
    fn let_go(&mut self, server: Pid, word: Word) {
        if let Some(process) = self.processes.get_mut(&server) {
            process.is_leaving = true;
            process.role = Role::Draining;
        }
        self.steps.push_back(Step::Tell(server, word));
    }

    /// If this is the server of an upgrade that is still to prove itself, it has not; returns whether it is.
    fn fail_probation(&mut self, pid: Pid, reason: Takeover, problem: impl FnOnce() -> String) -> bool {
        let is_it = matches!(self.change, Some(Change::Probation { server, .. }) if server == pid);
        if is_it {
            self.change = None;
            self.last_server = Some((pid, Some(reason)));
            self.steps.push_back(Step::RolledBack(problem()));
        }
        is_it
    }

    /// One of those that end together.
    fn end_one(&mut self, pid: Pid) {
        self.leave(pid);
        if self.processes.get(&pid).is_some_and(|process| !serves_or_drains(process)) {
            self.steps.push_back(Step::Tell(pid, Word::End));
        }
    }

    /// The change comes to nothing.
    fn refuse(&mut self, kind: ChangeKind, problem: String) {
        self.change = None;
        self.steps.push_back(Step::Changed(kind, Err(problem)));
    }

    /// The same, and its newcomer has to go.
    fn abandon(&mut self, kind: ChangeKind, problem: String) {
        if let Some(newcomer) = self.newcomer() {
            self.leave(newcomer);
            self.steps.push_back(Step::Tell(newcomer, Word::End));
        }
        self.refuse(kind, problem);
    }
}

/// Whether a process has queries of its own.
fn serves_or_drains(process: &Process) -> bool {
    matches!(process.role, Role::Server | Role::Draining)
}

/// How long a successor waits for the introductions of the others: they write them as soon as their channels have closed.
const SETTLE: Duration = Duration::from_millis(100);

/// How long those that do not serve are given to end, at the end of all.
const END_WITHIN: Duration = Duration::from_millis(100);

/// How long a server that was told to end waits for somebody to take over.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a new program has to serve until the old one goes.
const PROBATION: Duration = Duration::from_secs(10);

/// How long a newcomer may say nothing.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(30);

/// So many pings without an answer mean that the server makes no progress.
const PINGS: u32 = 3;
