//! Chaos: three authorities are killed, stopped, continued and started again at random under load, and every
//! query has its one right answer. One of the three is always well. `HEDGEROW_CHAOS_SECONDS` makes it longer,
//! `HEDGEROW_SEED` repeats it.
//!
//! The program `deploy/chaos` has faults of hedgerow itself and of its links; here it runs for ten seconds.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::*;

#[test]
fn no_answer_is_lost_or_wrong_whatever_becomes_of_the_backends() {
    let seed = number("HEDGEROW_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let time = Duration::from_secs(number("HEDGEROW_CHAOS_SECONDS").unwrap_or(SECONDS));
    println!("HEDGEROW_SEED={seed} HEDGEROW_CHAOS_SECONDS={}", time.as_secs());
    let mut rng = StdRng::seed_from_u64(seed);
    let table = load_table();
    let mut sites = [(); 3].map(|()| Site {
        authority: Authority::start(&table),
        state: State::Well,
        spared_until: Instant::now(),
    });
    let dispatch = ["race", "hedge", "sequential"][rng.random_range(0..3)];
    let balance = ["round-robin", "random", "sticky", "hash", "least-load", "fastest"][rng.random_range(0..6)];
    let rules = format!("dispatch = '{dispatch}'\nbalance = '{balance}'\n{RULES}");
    let asked = sites.each_ref().map(|site| &site.authority);
    let server = Forwarder::to(&asked.map(|authority| authority as _), &rules).workers(2).admin().start();

    let load = Load::start(server.address(), RATE);
    let start = Instant::now();
    let mut faults = 0;
    while start.elapsed() < time {
        load.run_for(ms(rng.random_range(50..400)));
        let site = rng.random_range(0..sites.len());
        let has_well_peer = (0..sites.len()).any(|other| other != site && sites[other].is_well());
        let to = match sites[site].state {
            State::Well if !has_well_peer => continue,
            State::Well if rng.random() => State::Killed,
            State::Well => State::Stopped,
            // A stalled authority may crash, too.
            State::Stopped if rng.random_ratio(1, 4) => State::Killed,
            State::Stopped | State::Killed => State::Well,
        };
        println!("{:6} ms: {site} is {to:?}", start.elapsed().as_millis());
        sites[site].turn(to);
        faults += 1;
    }
    let report = load.stop();
    sites.iter_mut().for_each(|site| site.turn(State::Well));
    let times = report.times(start, Instant::now());
    println!(
        "{dispatch}, {balance}: {} queries, {faults} changes of fortune: {} lost, {} wrong; p50 {} µs, p99 {} ms, longest {} ms",
        report.queries.len(),
        report.lost(),
        report.wrong(),
        percentile(&times, 50).as_micros(),
        percentile(&times, 99).as_millis(),
        percentile(&times, 100).as_millis(),
    );
    report.check(&format!("seed {seed}"), &server.admin());
    // And when all is well again, all are up and asked.
    for site in &sites {
        server.admin().wait_for_state(site.authority.address(), true);
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value}: expected a number")))
}

/// One authority and its fortune.
struct Site {
    authority: Authority,
    state: State,
    /// It was not well, and until then may not have been found up again.
    spared_until: Instant,
}

/// How an authority is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Well,
    /// It does not run, and its port is open.
    Stopped,
    /// There is no such process.
    Killed,
}

impl Site {
    /// Returns true if the other authorities may leave all queries to it.
    fn is_well(&self) -> bool {
        self.state == State::Well && Instant::now() >= self.spared_until
    }

    /// Brings it into another state.
    fn turn(&mut self, to: State) {
        match (self.state, to) {
            (State::Well | State::Stopped, State::Killed) => self.authority.kill(),
            (State::Well, State::Stopped) => self.authority.stop(),
            (State::Stopped, State::Well | State::Stopped) => self.authority.resume(),
            (State::Killed, State::Well | State::Stopped) => self.authority.restart(),
            (State::Well, State::Well) | (State::Killed, State::Killed) => {}
        }
        if self.state != State::Well && to == State::Well {
            self.spared_until = Instant::now() + FOUND_UP;
        }
        self.state = to;
    }
}

/// Two of three may be silent, each once for every try of one query: within the timeout there is time for
/// that.
const RULES: &str = "accept = 'conclusive'\ntries = 2\ntimeout = '5s'\nattempt_timeout = '500ms'\n\
                     [health]\ninterval = '250ms'\ntimeout = '500ms'";
const RATE: u32 = 1_000;
/// How long it takes unless the environment says otherwise.
const SECONDS: u64 = 10;
/// A recovered backend may be taken to be down for this long: during it, silence of all others counts as the
/// failure of all, and `on_all_down` applies after `attempt_timeout`.
const FOUND_UP: Duration = Duration::from_millis(1_000);

/// The list of this seed has each of [`EVENTS`] once in ten seconds, and no stop of the server.
const SEED: &str = "17272";

/// Events as the report of `deploy/chaos` names them.
const EVENTS: [&str; 10] = [
    "broken reload",
    "disk full",
    "forged queries",
    "forged replies",
    "kill server",
    "kill supervisor",
    "kill two",
    "link down two",
    "reload",
    "upgrade",
];

#[test]
fn ten_seconds_of_the_chaos_day_lose_no_query() {
    let test = "chaos::ten_seconds_of_the_chaos_day_lose_no_query";
    if !rustix::process::geteuid().is_root() {
        return eprintln!("{test}: not tested, needs root");
    }
    if !["ip", "tc", "unshare", "python3"].iter().all(|program| need_program(test, program).is_some()) {
        return;
    }
    let mut command = Command::new(super::docs::top().join("deploy/chaos"));
    command.args([env!("CARGO_BIN_EXE_hedgerow"), "--seed", SEED, "--seconds", "10", "--rate", "300"]);
    let output = command.stdin(Stdio::null()).output().expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let has_happened = |event: &str| {
        text.lines().any(|line| line.strip_prefix(event).is_some_and(|rest| rest.trim().starts_with("1 ")))
    };
    for event in EVENTS {
        assert!(has_happened(event), "{event}: {text}");
    }
}
