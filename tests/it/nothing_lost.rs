//! The cost of reloads, restarts, upgrades and deaths for clients: each query of a steady load is counted on
//! both sides, by UDP from eight sockets and on twenty kept TCP connections. `cargo test --release --test it
//! nothing_lost:: -- --nocapture` prints the rows of the table in docs/src/lifecycle.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testkit::*;

/// True if this run is for figures. A debug build, beside other tests, gets less load and fewer faults.
const IS_WHOLE: bool = !cfg!(debug_assertions);

const RATE: u32 = if IS_WHOLE { 5_000 } else { 1_000 };

const CONNECTIONS: usize = 20;

/// The most queries that one server has in flight, and one batch that it has read: they may be lost with it,
/// besides those on its connections.
const LOST_WITH_A_SERVER: usize = 64 + 64;

/// A forwarder with a supervisor and standbys, before an authority.
struct Scene {
    server: Server,
    _authority: Authority,
    /// The program that runs, which an upgrade replaces.
    program: PathBuf,
    _folder: TempDir,
    config: String,
    standbys: usize,
}

/// A process, as the status shows it.
#[derive(Clone, Debug)]
struct Member {
    role: String,
    pid: i32,
}

impl Scene {
    fn start(standbys: usize) -> Self {
        let authority = Authority::start(&load_table());
        let forwarder = Forwarder::to(&[&authority], "timeout = '5s'").workers(2).admin().cache("").to_toml();
        // All of the load comes from one address, and all at once after a pause.
        let forwarder = format!("{forwarder}[forwarder.limits]\nwaiting = 100000\n");
        let config = format!("{forwarder}[supervisor]\nstandbys = {standbys}\n");
        let folder = TempDir::new().expect("a folder for the test");
        let program = folder.path().join("hedgerow");
        copy_program(Path::new(env!("CARGO_BIN_EXE_hedgerow")), &program);
        let server = Server::start_group(&program, &config, &[]);
        let scene = Self { server, _authority: authority, program, _folder: folder, config, standbys };
        scene.wait_for_full_strength();
        scene
    }

    /// Returns all processes, or `None` if the admin server does not answer.
    fn try_members(&self) -> Option<Vec<Member>> {
        let answer = self.server.admin().try_get("/api/v1/status")?;
        let status: Value = serde_json::from_str(&answer.body).ok()?;
        let member = |process: &Value| {
            let pid = i32::try_from(process["pid"].as_i64()?).ok()?;
            Some(Member { role: process["role"].as_str()?.to_owned(), pid })
        };
        status["processes"].as_array()?.iter().map(member).collect()
    }

    fn members(&self) -> Vec<Member> {
        until("the status", || self.try_members())
    }

    /// The processes of a role.
    fn of_role(&self, role: &str) -> Vec<i32> {
        self.members().into_iter().filter(|member| member.role == role).map(|member| member.pid).collect()
    }

    /// The one process of a role.
    fn one(&self, role: &str) -> i32 {
        until(role, || self.of_role(role).first().copied())
    }

    /// Waits until there are one supervisor, one server, all standbys and no other process; returns how long
    /// that took.
    fn wait_for_full_strength(&self) -> Duration {
        let began = Instant::now();
        until("full strength", || {
            let members = self.try_members()?;
            let count = |role: &str| members.iter().filter(|member| member.role == role).count();
            let counts = (count("supervisor"), count("server"), count("standby"), members.len());
            (counts == (1, 1, self.standbys, 2 + self.standbys)).then_some(())
        });
        began.elapsed()
    }

    fn ctl(&self, words: &[&str]) -> Output {
        let admin = format!("unix:{}", self.server.process.admin_socket(self.server.listener("admin")).display());
        self.server.process.ctl(&[words, &["--admin", &admin]].concat())
    }

    /// Has a change made that must succeed.
    fn change(&self, words: &[&str]) {
        let output = self.ctl(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    /// Asks for a change that must fail.
    fn fail_to_change(&self, words: &[&str]) {
        let output = self.ctl(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    }

    /// Replaces the program, as a package manager does.
    fn replace_program(&self, replace: impl FnOnce(&Path)) {
        let new = self.program.with_extension("new");
        replace(&new);
        fs::rename(&new, &self.program).expect("our own folder");
    }

    /// Returns the client queries that all servers have taken.
    fn taken(&self) -> usize {
        let taken = self.server.admin().metrics().sum("hedgerow_queries_total", &[]);
        usize::try_from(taken).expect("a count")
    }

    /// Octets of memory that all processes have for themselves.
    fn memory(&self) -> usize {
        let private = |member: &Member| {
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", member.pid)).unwrap_or_default();
            let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<usize>().ok();
            rollup.lines().filter(|line| line.starts_with("Pss:")).filter_map(kilobytes).sum::<usize>() * 1024
        };
        self.try_members().unwrap_or_default().iter().map(private).sum()
    }

    /// Has things happen under load, and counts what they cost.
    fn measure(&self, what: &str, happen: impl FnOnce(&mut Course<'_>)) -> Row {
        let before = self.taken();
        let load = Load::start_with(self.server.address(), RATE, CONNECTIONS);
        load.run_for(ms(500));
        let mut course = Course { scene: self, load: &load, events: 0, slowest: Duration::ZERO, memory: 0 };
        happen(&mut course);
        let Course { events, slowest, memory, .. } = course;
        self.wait_for_full_strength();
        load.run_for(ms(500));
        let report = load.stop();
        let times = report.times(report.queries[0].at, Instant::now());
        let (longest, p99) = (percentile(&times, 100), percentile(&times, 99));
        // After a crash counters begin anew.
        let untaken = report.queries.len().saturating_sub(self.taken().saturating_sub(before));
        let row = Row { what: what.to_owned(), events, slowest, memory, longest, untaken, report };
        println!("{}", row.line(p99));
        row
    }
}

/// A run of one kind of event under load.
struct Course<'a> {
    scene: &'a Scene,
    load: &'a Load,
    /// How often it has happened.
    events: u32,
    /// The longest that it took to full strength.
    slowest: Duration,
    /// Octets at the peak.
    memory: usize,
}

impl Course<'_> {
    /// One event, and the time until nothing of it is to be seen any more.
    fn event(&mut self, happen: impl FnOnce(&Scene)) {
        let began = Instant::now();
        happen(self.scene);
        self.memory = self.memory.max(self.scene.memory());
        self.scene.wait_for_full_strength();
        self.slowest = self.slowest.max(began.elapsed());
        self.events += 1;
        self.load.run_for(ms(200));
    }
}

struct Row {
    what: String,
    events: u32,
    slowest: Duration,
    memory: usize,
    longest: Duration,
    /// Queries that no server has taken, for the kernel had no room for them: a busy machine's, not ours.
    untaken: usize,
    report: Report,
}

impl Row {
    /// A row of the table.
    fn line(&self, p99: Duration) -> String {
        let Self { what, events, slowest, memory, longest, report, .. } = self;
        let Report { queries, strays, closed, .. } = report;
        format!(
            "| {what} | {events} | {} | {} ({} by UDP) | {strays} | {closed} | {:.1} ms (p99 {:.1}) | {:.2} s | {:.1} MB |",
            queries.len(),
            report.lost(),
            report.lost_by_udp(),
            longest.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            slowest.as_secs_f64(),
            *memory as f64 / 1e6,
        )
    }

    /// Nothing is lost, closed, refused, answered twice or wrong.
    fn check_whole(&self) {
        let Self { what, untaken, report, .. } = self;
        let Report { strays, closed, refused, oddities, .. } = report;
        assert!(report.lost() <= *untaken, "{what}: {} lost, {untaken} untaken", report.lost());
        assert_eq!((report.wrong(), *strays, *closed, *refused), (0, 0, 0, 0), "{what}: {oddities:?}");
    }

    /// So many servers have died, each with what it had in flight and all connections, and no more is lost.
    fn check_deaths(&self, servers: usize) {
        let Self { what, report, .. } = self;
        let lost = report.lost_by_udp();
        assert!(lost <= servers * LOST_WITH_A_SERVER, "{what}: {lost} lost with {servers} servers");
        assert!(report.closed <= servers * CONNECTIONS, "{what}: {} closed", report.closed);
        assert_eq!((report.wrong(), report.strays, report.refused), (0, 0, 0), "{what}: {:?}", report.oddities);
    }
}

/// Returns true if such a process exists and has not ended.
fn is_running(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn kill(pid: i32) {
    // It may be dead already.
    let _ = kill_process(Pid::from_raw(pid).expect("a process has a number"), Signal::KILL);
}

#[test]
fn reloads_cost_nothing() {
    let scene = Scene::start(2);
    scene.measure("nothing", |course| (0..5).for_each(|_| course.event(|_| {}))).check_whole();
    let times = if IS_WHOLE { 20 } else { 5 };
    let row =
        scene.measure("reload", |course| (0..times).for_each(|_| course.event(|scene| scene.change(&["reload"]))));
    row.check_whole();
    let row = scene.measure("reload, other listeners", |course| {
        for turn in 0..times {
            let listen = if turn % 2 == 0 {
                "listen = [\"127.0.0.1:0\", \"127.0.0.2:0\"]"
            } else {
                "listen = [\"127.0.0.1:0\"]"
            };
            let config = scene.config.replace("listen = [\"127.0.0.1:0\"]", listen);
            scene.server.rewrite("config.toml", &config);
            course.event(|scene| scene.change(&["reload"]));
        }
    });
    row.check_whole();
    let row = scene.measure("reload, broken", |course| {
        for wrong in ["workers = 'x'\n", "[forwarder\n", "nothing = 1\n"] {
            scene.server.rewrite("config.toml", &format!("{wrong}{}", scene.config));
            course.event(|scene| scene.fail_to_change(&["reload"]));
        }
    });
    row.check_whole();
}

#[test]
fn restarts_and_upgrades_cost_nothing() {
    let scene = Scene::start(2);
    let times = if IS_WHOLE { 5 } else { 2 };
    scene
        .measure("restart", |course| (0..times).for_each(|_| course.event(|scene| scene.change(&["restart"]))))
        .check_whole();
    let row = scene.measure("upgrade, broken", |course| {
        let broken: [&dyn Fn(&Path); 3] = [
            &|path| fs::write(path, "#!/bin/sh\nexit 3\n").expect("our own folder"),
            &|path| {
                fs::write(path, &fs::read(env!("CARGO_BIN_EXE_hedgerow")).expect("our own binary")[..4096])
                    .expect("our own folder")
            },
            &|path| copy_program(Path::new("/bin/false"), path),
        ];
        for break_it in broken {
            scene.replace_program(|path| {
                break_it(path);
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own file");
            });
            course.event(|scene| scene.fail_to_change(&["upgrade"]));
        }
    });
    row.check_whole();
    let row = scene.measure("upgrade", |course| {
        for _ in 0..if IS_WHOLE { 3 } else { 1 } {
            scene.replace_program(|path| copy_program(Path::new(env!("CARGO_BIN_EXE_hedgerow")), path));
            // The one before is on probation for 10 s.
            until("the end of the probation", || {
                course.load.run_for(ms(500));
                scene.ctl(&["upgrade"]).status.success().then_some(())
            });
            course.event(|_| {});
        }
    });
    row.check_whole();
}

#[test]
fn the_death_of_a_supervisor_costs_nothing() {
    let scene = Scene::start(2);
    let row = scene.measure("kill -9 the supervisor", |course| {
        for _ in 0..3 {
            course.event(|scene| {
                let supervisor = scene.one("supervisor");
                kill(supervisor);
                until("another supervisor", || (scene.one("supervisor") != supervisor).then_some(()));
            });
        }
    });
    row.check_whole();
}

#[test]
fn the_death_of_a_server_costs_what_it_had_in_flight() {
    let scene = Scene::start(2);
    let times = if IS_WHOLE { 10 } else { 3 };
    let die = |scene: &Scene, also: &[&str]| {
        let server = scene.one("server");
        let others: Vec<i32> = also.iter().flat_map(|role| scene.of_role(role)).collect();
        others.into_iter().chain([server]).for_each(kill);
        until("another server", || (scene.one("server") != server).then_some(()));
    };
    let row = scene.measure("kill -9 the server", |course| {
        (0..times).for_each(|_| course.event(|scene| die(scene, &[])));
    });
    row.check_deaths(times);
    let row =
        scene.measure("kill -9 server and supervisor", |course| course.event(|scene| die(scene, &["supervisor"])));
    row.check_deaths(1);
    let row = scene.measure("kill -9 all but a standby", |course| {
        course.event(|scene| {
            let (server, spared) = (scene.one("server"), scene.one("standby"));
            let others = scene.members().into_iter().map(|member| member.pid).filter(|pid| *pid != spared);
            others.for_each(kill);
            until("another server", || (scene.one("server") != server).then_some(()));
        });
    });
    row.check_deaths(1);
    let row = scene.measure("kill -9 all but the supervisor", |course| course.event(|scene| die(scene, &["standby"])));
    row.check_deaths(1);
    let row = scene.measure("kill -9 all but the server", |course| {
        course.event(|scene| {
            let (supervisor, standbys) = (scene.one("supervisor"), scene.of_role("standby"));
            standbys.into_iter().chain([supervisor]).for_each(kill);
            until("another supervisor", || (scene.one("supervisor") != supervisor).then_some(()));
        });
    });
    row.check_whole();
}

#[test]
fn random_deaths_leave_somebody_who_serves() {
    let scene = Scene::start(2);
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut servers = 0;
    let time = Duration::from_secs(if IS_WHOLE { 20 } else { 5 });
    let row = scene.measure("kill -9 at random", |course| {
        let began = Instant::now();
        while began.elapsed() < time {
            // Never all of them: that is the end of it. The list may name some that have just died.
            let mut members = scene.members();
            members.retain(|member| is_running(member.pid) && member.role != "starting");
            if members.len() > 1
                && let Some(member) = members.choose(&mut rng)
            {
                servers += usize::from(member.role == "server");
                kill(member.pid);
                course.events += 1;
            }
            course.load.run_for(ms(rng.random_range(300..1_200)));
        }
    });
    row.check_deaths(servers.max(1) * 2);
}
