//! Tests of the machine with modelled processes: a kernel that gives two locks, and processes that live and
//! die by chance.

mod leaving;

use proptest::prelude::*;

use super::*;

const STANDBYS: usize = 2;

struct World {
    now: Instant,
    processes: BTreeMap<Pid, Modelled>,
    tree: Option<Tree>,
    next_pid: Pid,
    /// The server at the last check.
    served: Option<Pid>,
    /// All steps of the tree.
    said: Vec<TreeStep>,
    /// True if new processes can load.
    loads: bool,
    is_over: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Modelled {
    role: Role,
    /// The end of the current activity: loading or draining.
    ready_at: Instant,
    /// True between SIGSTOP and SIGCONT.
    is_stopped: bool,
    /// True if the process takes over from the server, before the standbys.
    is_newcomer: bool,
    /// A message that a stopped process has not read.
    unread: Option<ProcessOrder>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let tree = Some(Tree::first(RULES, now));
        let mut world = Self {
            now,
            processes: BTreeMap::new(),
            tree,
            next_pid: 100,
            served: None,
            said: Vec::new(),
            loads: true,
            is_over: None,
        };
        world.run(ms(500));
        world
    }

    /// Lets time pass, a millisecond at a time.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.is_over.is_none() {
            self.now = self.next_moment().min(end);
            self.step();
        }
    }

    /// Runs until a condition holds, for a minute at most.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        self.step();
        while !holds(self) {
            assert!(self.now < end, "never {what}: {:?} {:?}", self.processes, self.tree);
            self.now = self.next_moment();
            self.step();
        }
    }

    /// Returns the next millisecond, or a later time if nothing happens before.
    fn next_moment(&self) -> Instant {
        let is_busy = |process: &Modelled| match process.role {
            Role::Server => false,
            Role::Standby => process.is_newcomer || self.pid_of(Role::Server).is_none(),
            Role::Failed => self.loads,
            Role::Starting | Role::Draining | Role::Supervisor => true,
        };
        let next = self.now + ms(1);
        match &self.tree {
            Some(tree) if !self.processes.values().any(|process| !process.is_stopped && is_busy(process)) => {
                tree.due().max(next)
            }
            Some(_) | None => next,
        }
    }

    fn step(&mut self) {
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.live(pid);
        }
        if self.tree.is_none() {
            self.succeed();
        }
        if let Some(tree) = &mut self.tree {
            // A process that was stopped introduces itself when it continues. The lock identifies the server.
            let is_known = |pid| tree.roles().any(|(known, _)| known == pid);
            let known = |process: &Modelled| !process.is_stopped || process.role == Role::Server;
            let unknown = self.processes.iter().filter(|(pid, process)| known(process) && !is_known(**pid));
            let unknown: Vec<_> = unknown.map(|(pid, process)| (*pid, process.role)).collect();
            unknown.into_iter().for_each(|(pid, role)| tree.introduced(pid, role, self.now));
        }
        if let Some(tree) = &mut self.tree
            && self.now >= tree.due()
        {
            tree.tick(self.now);
        }
        self.obey();
        let serving: Vec<_> = self.processes.iter().filter(|(_, process)| process.role == Role::Server).collect();
        assert!(serving.len() <= 1, "two serve: {serving:?}");
        self.served = serving.first().map(|(pid, _)| **pid).or(self.served);
    }

    fn live(&mut self, pid: Pid) {
        let process = self.processes.get_mut(&pid).filter(|process| !process.is_stopped);
        if let Some(word) = process.and_then(|process| process.unread.take()) {
            self.hear(pid, word);
        }
        let has_lock = !self.processes.values().any(|process| process.role == Role::Server);
        let has_newcomer = self.processes.values().any(|process| process.is_newcomer && process.role == Role::Standby);
        let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.is_stopped) else { return };
        let said = match process.role {
            Role::Starting if self.now >= process.ready_at && self.loads => Some(Role::Standby),
            Role::Starting if self.now >= process.ready_at => Some(Role::Failed),
            Role::Failed if self.loads => Some(Role::Standby),
            // The kernel gives the lock, and the process that is next in line comes first.
            Role::Standby if has_lock && (process.is_newcomer || !has_newcomer) => Some(Role::Server),
            Role::Draining if self.now >= process.ready_at => return self.end(pid, ProcessEnd::Status(0)),
            Role::Standby if process.is_newcomer => {
                // "Now": the server stops reading and gives up the lock.
                if let Some(server) = self.processes.values_mut().find(|other| other.role == Role::Server)
                    && !server.is_stopped
                {
                    (server.role, server.ready_at) = (Role::Draining, self.now + ms(20));
                }
                None
            }
            Role::Starting | Role::Standby | Role::Failed | Role::Draining | Role::Server | Role::Supervisor => None,
        };
        if let Some(role) = said {
            let process = self.processes.get_mut(&pid).expect("it is there");
            process.role = role;
            if let Some(tree) = &mut self.tree {
                tree.says(pid, role, ms(1), self.now);
            }
        }
    }

    /// Makes a standby the supervisor; if there is none, the server starts one.
    fn succeed(&mut self) {
        let is_heir = |process: &&Modelled| !process.is_stopped && process.role != Role::Draining;
        let heir = self.processes.iter().filter(|(_, process)| process.role != Role::Server);
        let heir = heir.filter(|(_, process)| is_heir(process)).map(|(pid, _)| *pid).next();
        if let Some(heir) = heir {
            self.processes.remove(&heir);
        } else if !self.processes.values().any(|process| is_heir(&process)) {
            return;
        }
        let mut tree = Tree::succeeding(RULES, self.processes.keys().copied().collect(), self.served, self.now);
        for (pid, process) in self.processes.iter().filter(|(_, process)| !process.is_stopped) {
            tree.introduced(*pid, process.role, self.now);
        }
        self.tree = Some(tree);
    }

    /// Executes the steps of the tree.
    fn obey(&mut self) {
        while let Some(step) = self.tree.as_mut().and_then(Tree::next_step) {
            self.said.push(step.clone());
            match step {
                TreeStep::Start(purpose) => {
                    let pid = self.next_pid;
                    self.next_pid += 1;
                    let is_newcomer = matches!(purpose, Purpose::Newcomer(_));
                    let ready_at = self.now + ms(5);
                    let process =
                        Modelled { role: Role::Starting, ready_at, is_stopped: false, is_newcomer, unread: None };
                    self.processes.insert(pid, process);
                    self.tree.as_mut().expect("it has said so").started(purpose, pid, self.now);
                }
                TreeStep::Kill(pid) => self.end(pid, ProcessEnd::Signal(9)),
                TreeStep::Send(pid, word) => {
                    let Some(process) = self.processes.get_mut(&pid) else { continue };
                    match word {
                        ProcessOrder::Ping if process.is_stopped => {}
                        word if process.is_stopped => process.unread = Some(word),
                        word => self.hear(pid, word),
                    }
                }
                TreeStep::Exit(status) => self.is_over = Some(status),
                TreeStep::ExecInPlace => {
                    // The processes of the new program introduce themselves again.
                    self.tree =
                        Some(Tree::succeeding(RULES, self.processes.keys().copied().collect(), self.served, self.now));
                    for (pid, process) in self.processes.clone() {
                        self.tree.as_mut().expect("it was made").introduced(pid, process.role, self.now);
                    }
                }
                TreeStep::TookOver { .. } | TreeStep::Delayed { .. } | TreeStep::Waits(_) | TreeStep::Changed(..) => {}
                TreeStep::Proven | TreeStep::RolledBack(_) => {}
            }
        }
    }

    /// Lets a process read a message.
    fn hear(&mut self, pid: Pid, word: ProcessOrder) {
        match (word, self.processes.get_mut(&pid), &mut self.tree) {
            (ProcessOrder::End, _, _) => self.end(pid, ProcessEnd::Status(0)),
            (ProcessOrder::Ping, _, Some(tree)) => tree.heard(pid, self.now),
            (ProcessOrder::Drain | ProcessOrder::HandOver, Some(process), _) => {
                (process.role, process.ready_at) = (Role::Draining, self.now + ms(20));
            }
            (ProcessOrder::Ping | ProcessOrder::Drain | ProcessOrder::HandOver, _, _) => {}
        }
    }

    fn end(&mut self, pid: Pid, how: ProcessEnd) {
        if self.processes.remove(&pid).is_some()
            && let Some(tree) = &mut self.tree
        {
            tree.ended(pid, how, self.now);
        }
    }

    fn kill(&mut self, pid: Pid) {
        self.end(pid, ProcessEnd::Signal(9));
    }

    fn ask(&mut self, kind: ChangeKind) -> Result<(), String> {
        self.tree.as_mut().expect("there is one").ask(kind, self.now)
    }

    fn pid_of(&self, role: Role) -> Option<Pid> {
        self.processes.iter().find(|(_, process)| process.role == role).map(|(pid, _)| *pid)
    }

    fn count(&self, role: Role) -> usize {
        self.processes.values().filter(|process| process.role == role).count()
    }

    fn is_whole(&self) -> bool {
        let all = (self.count(Role::Server), self.count(Role::Standby), self.processes.len());
        self.tree.is_some() && all == (1, STANDBYS, STANDBYS + 1)
    }

    fn has_said(&self, holds: impl Fn(&TreeStep) -> bool) -> bool {
        self.said.iter().any(holds)
    }

    fn reasons(&self) -> Vec<Takeover> {
        let reason = |step: &TreeStep| match step {
            TreeStep::TookOver { reason, .. } => Some(*reason),
            _ => None,
        };
        self.said.iter().filter_map(reason).collect()
    }
}

const RULES: TreeRules = TreeRules { standbys: STANDBYS, watchdog: Some(Duration::from_secs(10)) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_first_start_comes_to_full_strength() {
    let world = World::new();
    assert!(world.is_whole(), "{:?}", world.processes);
    assert_eq!(world.reasons(), [], "no server ran before");
}

#[test]
fn status_of_a_first_server_that_fails_is_passed_on() {
    for (how, status) in [
        (ProcessEnd::Status(2), 2),
        (ProcessEnd::Status(1), 1),
        (ProcessEnd::Signal(9), 1),
        (ProcessEnd::Status(77), 1),
    ] {
        let now = Instant::now();
        let mut tree = Tree::first(RULES, now);
        assert_eq!(tree.next_step(), Some(TreeStep::Start(Purpose::First)));
        tree.started(Purpose::First, 7, now);
        tree.ended(7, how, now);
        assert_eq!(tree.next_step(), Some(TreeStep::Exit(status)), "{how}");
    }
}

#[test]
fn a_standby_serves_when_the_server_dies_and_its_place_is_filled_at_once() {
    let mut world = World::new();
    world.run(YOUNG);
    let server = world.pid_of(Role::Server).expect("one serves");
    world.kill(server);
    world.run(ms(10));
    assert!(world.is_whole(), "{:?}", world.processes);
    assert_eq!(world.reasons(), [Takeover::Crash]);
}

/// Returns the times, in ms, until another process starts, each time that these are killed.
fn delays(world: &mut World, rounds: usize, victims: impl Fn(&World) -> Vec<Pid>) -> Vec<u128> {
    let mut round = || {
        let victims = victims(world);
        let (newest, before) = (world.next_pid, world.now);
        victims.into_iter().for_each(|pid| world.kill(pid));
        world.until("another", |world| world.next_pid > newest);
        (world.now - before).as_millis()
    };
    (0..rounds).map(|_| round()).collect()
}

fn pids_of(world: &World, roles: &[Role]) -> Vec<Pid> {
    let processes = world.processes.iter().filter(|(_, process)| roles.contains(&process.role));
    processes.map(|(pid, _)| *pid).collect()
}

#[test]
fn processes_that_die_while_they_load_are_waited_for_longer_and_longer() {
    // One at a time, and two by one event.
    for victims in [1, 2] {
        let mut world = World::new();
        world.run(YOUNG);
        let delays = delays(&mut world, 9, |world| world.processes.keys().rev().take(victims).copied().collect());
        // The first victims had lived for long.
        assert!(delays[0] <= 1, "{victims}: {delays:?}");
        for (delay, expected) in delays[1..].iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            assert!((expected..expected + 5).contains(delay), "{victims}: {delays:?}");
        }
    }
}

#[test]
fn kills_of_processes_that_had_loaded_lengthen_no_delay() {
    for victims in [&[Role::Server][..], &[Role::Standby], &[Role::Server, Role::Standby]] {
        let mut world = World::new();
        for round in 0..9 {
            world.until("full", World::is_whole);
            let delay = delays(&mut world, 1, |world| pids_of(world, victims))[0];
            assert!(delay <= 101, "{victims:?}: {delay} ms in round {round}");
        }
    }
}

#[test]
fn a_new_process_starts_soon_while_no_process_serves() {
    // (pause of the killer, longest time without a start)
    for (pause, most) in [(300, 1), (20, 1), (0, 101)] {
        let mut world = World::new();
        for round in 0..20 {
            let delay = delays(&mut world, 1, |world| world.processes.keys().copied().collect())[0];
            assert!(delay <= most, "kills every {pause} ms: {delay} ms in round {round}");
            world.run(ms(pause));
        }
    }
}

#[test]
fn a_process_starts_at_once_when_the_standbys_were_waited_for_and_the_server_dies() {
    let mut world = World::new();
    let starting = |world: &World| world.processes.keys().rev().take(STANDBYS).copied().collect();
    delays(&mut world, 8, starting);
    // The places now stay empty for seconds.
    pids_of(&world, &[Role::Starting]).into_iter().for_each(|pid| world.kill(pid));
    let delay = delays(&mut world, 1, |world| world.processes.keys().copied().collect())[0];
    assert!(delay <= 101, "{delay} ms");
}

#[test]
fn a_successor_that_is_alone_starts_a_process_soon() {
    let starts =
        |tree: &mut Tree| std::iter::from_fn(|| tree.next_step()).any(|step| step == TreeStep::Start(Purpose::Stand));
    for (awaited, most) in [(vec![], Duration::ZERO), (vec![7, 8], SETTLE)] {
        let now = Instant::now();
        let mut tree = Tree::succeeding(RULES, awaited.iter().copied().collect(), Some(7), now);
        assert!(tree.due() <= now + most, "{awaited:?}");
        tree.tick(now + most);
        assert!(starts(&mut tree), "{awaited:?}");
    }
    // The others have died with the previous supervisor.
    let now = Instant::now();
    let mut tree = Tree::succeeding(RULES, [7, 8].into(), Some(7), now);
    tree.absent(7, now);
    assert!(!starts(&mut tree), "one may introduce itself yet");
    tree.absent(8, now);
    assert!(starts(&mut tree), "at once");
}

#[test]
fn progress_is_that_of_the_server_with_and_without_a_watchdog() {
    for (watchdog, most) in [(None, 3000), (Some(ms(600_000)), 3000), (Some(ms(2000)), 1500)] {
        let mut world = World::new();
        let now = world.now;
        world.tree.as_mut().expect("there is one").set_rules(TreeRules { watchdog, ..RULES }, now);
        let is_progress_made = |world: &World| world.tree.as_ref().is_some_and(|tree| tree.is_progress_made(world.now));
        for _ in 0..5 {
            world.run(ms(700));
            assert!(is_progress_made(&world), "{watchdog:?}");
        }
        let server = world.pid_of(Role::Server).expect("one serves");
        world.processes.get_mut(&server).expect("it serves").is_stopped = true;
        world.run(ms(most));
        assert!(!is_progress_made(&world), "{watchdog:?}");
    }
}

#[test]
fn who_is_hung_is_killed_and_succeeded() {
    let mut world = World::new();
    let server = world.pid_of(Role::Server).expect("one serves");
    world.processes.get_mut(&server).expect("it serves").is_stopped = true;
    let before = world.now;
    world.until("another serves", |world| world.pid_of(Role::Server).is_some_and(|pid| pid != server));
    assert!(world.now - before < ms(11_300), "{:?}", world.now - before);
    world.until("full", World::is_whole);
    assert_eq!(world.reasons(), [Takeover::Hang]);
    let standby = world.pid_of(Role::Standby).expect("two stand by");
    world.processes.get_mut(&standby).expect("it is there").is_stopped = true;
    world.until("it is gone", |world| !world.processes.contains_key(&standby));
    world.until("full", World::is_whole);
    assert_eq!(world.reasons(), [Takeover::Hang], "no other process serves for that");
}

/// After the supervisor itself was stopped or starved, silence of other processes proves nothing.
#[test]
fn nobody_is_killed_for_the_time_in_which_the_supervisor_was_stopped() {
    let mut world = World::new();
    world.run(Duration::from_secs(3));
    world.now += Duration::from_secs(100);
    world.run(Duration::from_secs(3));
    assert!(!world.has_said(|step| matches!(step, TreeStep::Kill(_))), "{:?}", world.said);
}

#[test]
fn standbys_that_cannot_load_keep_their_places_and_stand_by_in_the_end() {
    let mut world = World::new();
    world.loads = false;
    let server = world.pid_of(Role::Server).expect("one serves");
    world.kill(server);
    world.run(Duration::from_secs(5));
    assert_eq!((world.count(Role::Server), world.count(Role::Standby), world.count(Role::Failed)), (1, 1, 1));
    world.loads = true;
    world.until("full", World::is_whole);
}

#[test]
fn restart_has_a_newcomer_serve_and_the_server_drain() {
    let mut world = World::new();
    let old = world.pid_of(Role::Server);
    world.ask(ChangeKind::Restart).expect("nothing is under way");
    assert_eq!(world.ask(ChangeKind::Restart), Err("a restart or an upgrade is under way".to_owned()));
    world.until("done", |world| world.has_said(|step| *step == TreeStep::Changed(ChangeKind::Restart, Ok(()))));
    assert_ne!(world.pid_of(Role::Server), old);
    world.until("full", World::is_whole);
    assert_eq!(world.reasons(), [Takeover::Restart]);
    world.ask(ChangeKind::Restart).expect("the last one is over");
}

#[test]
fn a_restart_waits_until_the_process_before_has_drained() {
    let mut world = World::new();
    let starts = |world: &World| {
        let is_start = |step: &&TreeStep| **step == TreeStep::Start(Purpose::Newcomer(ChangeKind::Restart));
        world.said.iter().filter(is_start).count()
    };
    world.tree.as_mut().expect("there is one").set_rules(TreeRules { watchdog: None, ..RULES }, world.now);
    // The last time the process before is hung: it is not waited for without end.
    for is_hung in [false, true] {
        world.said.clear();
        let before = world.pid_of(Role::Server).expect("one serves");
        world.ask(ChangeKind::Restart).expect("nothing is under way");
        world.until("done", |world| world.has_said(|step| matches!(step, TreeStep::Changed(..))));
        let process = world.processes.get_mut(&before).expect("it drains");
        (process.is_stopped, process.ready_at) = (is_hung, world.now + ms(200));
        world.ask(ChangeKind::Restart).expect("the last one is over");
        world.run(ms(150));
        assert!(starts(&world) == 1 && world.has_said(|step| *step == TreeStep::Waits(ChangeKind::Restart)));
        world.until("again", |world| starts(world) == 2);
        assert_eq!(world.processes.contains_key(&before), is_hung);
        world.until("full", |world| world.count(Role::Standby) == STANDBYS && world.reasons().len() == 2);
    }
}

#[test]
fn a_newcomer_that_fails_changes_nothing() {
    let mut world = World::new();
    let old = world.pid_of(Role::Server);
    world.ask(ChangeKind::Upgrade).expect("nothing is under way");
    world.obey();
    let newcomer = *world.processes.keys().max().expect("it was started");
    world.kill(newcomer);
    let refused = TreeStep::Changed(ChangeKind::Upgrade, Err("the new process has ended: signal 9".to_owned()));
    world.until("refused", |world| world.has_said(|step| *step == refused));
    world.run(ms(10));
    assert!(world.is_whole() && world.pid_of(Role::Server) == old, "{:?}", world.processes);
    world.ask(ChangeKind::Restart).expect("the last one is over");
}

#[test]
fn a_silent_newcomer_is_killed_after_30_seconds() {
    for (watchdog, most) in [(None, 30), (Some(Duration::from_secs(600)), 30), (Some(Duration::from_secs(10)), 10)] {
        let mut world = World::new();
        let rules = TreeRules { watchdog, ..RULES };
        world.tree.as_mut().expect("there is one").set_rules(rules, world.now);
        world.ask(ChangeKind::Restart).expect("nothing is under way");
        world.obey();
        let newcomer = *world.processes.keys().max().expect("it was started");
        world.processes.get_mut(&newcomer).expect("it is there").is_stopped = true;
        let before = world.now;
        world.until("it is gone", |world| !world.processes.contains_key(&newcomer));
        let took = (world.now - before).as_millis();
        assert!((most * 1000..most * 1000 + 1300).contains(&took), "{watchdog:?}: {took} ms");
        let is_refusal =
            |step: &TreeStep| matches!(step, TreeStep::Changed(_, Err(why)) if why.contains("no progress"));
        assert!(world.has_said(is_refusal), "{:?}", world.said);
        assert!(world.is_whole());
    }
}

#[test]
fn all_processes_and_the_supervisor_follow_an_upgrade_that_has_proven_itself() {
    let mut world = World::new();
    let old: Vec<_> = world.processes.keys().copied().collect();
    world.ask(ChangeKind::Upgrade).expect("nothing is under way");
    world.until("it serves", |world| world.reasons() == [Takeover::Upgrade]);
    world.run(Duration::from_secs(9));
    let standbys = world.processes.keys().filter(|pid| old.contains(pid)).count();
    assert_eq!(standbys, STANDBYS, "those of the old program stay");
    let refused = world.ask(ChangeKind::Upgrade);
    assert!(refused.is_err(), "it is still under way");
    world.until("the supervisor too", |world| world.has_said(|step| *step == TreeStep::ExecInPlace));
    assert!(world.is_whole() && !world.processes.keys().any(|pid| old.contains(pid)), "{:?}", world.processes);
    let proven = world.said.iter().position(|step| *step == TreeStep::Proven).expect("it has served for 10 s");
    let is_start = |step: &TreeStep| *step == TreeStep::Start(Purpose::Stand);
    assert_eq!(world.said[proven..].iter().filter(|step| is_start(step)).count(), STANDBYS);
    assert_eq!(world.reasons(), [Takeover::Upgrade]);
}

#[test]
fn an_upgrade_is_rolled_back_if_the_new_server_dies_soon() {
    let mut world = World::new();
    let old: Vec<_> = world.processes.keys().copied().collect();
    world.ask(ChangeKind::Upgrade).expect("nothing is under way");
    world.until("it serves", |world| world.reasons() == [Takeover::Upgrade]);
    world.run(Duration::from_secs(3));
    let new = world.pid_of(Role::Server).expect("one serves");
    world.kill(new);
    world.until("another serves", |world| world.pid_of(Role::Server).is_some());
    assert!(world.pid_of(Role::Server).is_some_and(|pid| old.contains(&pid)), "one of the old program");
    assert_eq!(world.reasons(), [Takeover::Upgrade, Takeover::Rollback]);
    // The config of the new server is taken back before a place is filled.
    let place = |step: &dyn Fn(&TreeStep) -> bool| world.said.iter().rposition(step);
    let rolled_back = place(&|step| matches!(step, TreeStep::RolledBack(_))).expect("it was");
    assert!(Some(rolled_back) < place(&|step| *step == TreeStep::Start(Purpose::Stand)), "{:?}", world.said);
    assert!(!world.has_said(|step| *step == TreeStep::Proven));
    world.run(Duration::from_secs(20));
    assert!(world.is_whole() && !world.has_said(|step| *step == TreeStep::ExecInPlace));
}

#[test]
fn an_upgrade_that_all_end_after_is_not_rolled_back() {
    let mut world = World::new();
    world.ask(ChangeKind::Upgrade).expect("nothing is under way");
    world.until("it serves", |world| world.reasons() == [Takeover::Upgrade]);
    let now = world.now;
    world.tree.as_mut().expect("there is one").end(now);
    world.until("over", |world| world.is_over.is_some());
    assert_eq!(world.is_over, Some(0));
    assert!(!world.has_said(|step| matches!(step, TreeStep::RolledBack(_))), "{:?}", world.said);
}

#[test]
fn a_server_that_is_told_to_end_is_followed_by_a_standby() {
    let mut world = World::new();
    let server = world.pid_of(Role::Server).expect("one serves");
    let now = world.now;
    world.tree.as_mut().expect("there is one").wants_to_leave(server, now);
    world.until("it has gone", |world| !world.processes.contains_key(&server));
    world.until("full", World::is_whole);
    assert_eq!(world.reasons(), [Takeover::Restart]);
}

#[test]
fn at_the_end_standbys_go_first_and_the_server_drains() {
    let mut world = World::new();
    let now = world.now;
    let standby = world.pid_of(Role::Standby).expect("two stand by");
    world.processes.get_mut(&standby).expect("it is there").is_stopped = true;
    world.tree.as_mut().expect("there is one").end(now);
    world.until("over", |world| world.is_over.is_some());
    assert_eq!(world.is_over, Some(0));
    let drained =
        world.said.iter().position(|step| matches!(step, TreeStep::Send(_, ProcessOrder::Drain))).expect("it drains");
    let killed =
        world.said.iter().position(|step| *step == TreeStep::Kill(standby)).expect("it does not end by itself");
    assert!(killed < drained);
    assert_eq!(world.reasons(), [], "no process takes over at the end");
}

/// An event in the life of a tree.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// SIGKILL for the process of this place.
    Kill(usize),
    /// SIGSTOP and SIGCONT for the process of this place.
    Stop(usize),
    Continue(usize),
    KillSupervisor,
    Ask(ChangeKind),
    Leave,
    Loads(bool),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8usize).prop_map(Event::Kill),
        1 => (0..8usize).prop_map(Event::Stop),
        1 => (0..8usize).prop_map(Event::Continue),
        2 => Just(Event::KillSupervisor),
        1 => Just(Event::Ask(ChangeKind::Restart)),
        1 => Just(Event::Ask(ChangeKind::Upgrade)),
        1 => Just(Event::Leave),
        1 => any::<bool>().prop_map(Event::Loads),
        4 => (0..40u64).prop_map(Event::Wait),
        1 => (0..12_000u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// After any events, all processes return as long as one is left that is not stopped. `World::step`
    /// checks that two processes never serve at once.
    #[test]
    fn whoever_is_left_brings_back_the_rest(events in proptest::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in events {
            let place = |world: &World, place: usize| world.processes.keys().nth(place).copied();
            match event {
                // The last process that can continue must survive.
                Event::Kill(at) => if let Some(pid) = place(&world, at) {
                    let others = world.processes.iter().filter(|(other, process)| {
                        **other != pid && !process.is_stopped && process.role != Role::Draining
                    });
                    if others.count() > 0 || world.tree.is_some() {
                        world.kill(pid);
                    }
                },
                Event::Stop(at) => if let Some(pid) = place(&world, at) {
                    world.processes.get_mut(&pid).expect("it is there").is_stopped = true;
                },
                Event::Continue(at) => if let Some(pid) = place(&world, at) {
                    world.processes.get_mut(&pid).expect("it is there").is_stopped = false;
                },
                Event::KillSupervisor => {
                    let can_go_on = |process: &Modelled| !process.is_stopped && process.role != Role::Draining;
                    if world.processes.values().any(can_go_on) {
                        world.tree = None;
                    }
                }
                Event::Ask(kind) => if let Some(tree) = &mut world.tree {
                    let _ = tree.ask(kind, world.now);
                },
                Event::Leave => if let (Some(tree), Some(server)) = (&mut world.tree, world.served) {
                    tree.wants_to_leave(server, world.now);
                },
                Event::Loads(loads) => world.loads = loads,
                Event::Wait(time) => world.run(ms(time)),
            }
            world.step();
        }
        world.loads = true;
        world.processes.values_mut().for_each(|process| process.is_stopped = false);
        world.until("full", World::is_whole);
        // The tree stays complete.
        world.run(Duration::from_secs(15));
        world.until("full to the end", World::is_whole);
    }
}

#[test]
fn a_death_is_a_crash_unless_it_was_planned() {
    let world = World::new();
    let tree = world.tree.as_ref().expect("a supervisor");
    let server = tree.server().expect("a server");
    let is_crash = |how| tree.is_crash(server, how);
    assert!(is_crash(ProcessEnd::Signal(9)) && is_crash(ProcessEnd::Status(101)) && is_crash(ProcessEnd::Unknown));
    assert!(!is_crash(ProcessEnd::Status(0)) && !is_crash(ProcessEnd::Status(2)));
    let mut ending = Tree::first(RULES, world.now);
    ending.introduced(7, Role::Server, world.now);
    ending.end(world.now);
    assert!(!ending.is_crash(7, ProcessEnd::Signal(9)));
}
