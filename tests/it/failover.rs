//! One of two authorities dies, or stalls, in the middle of load: no query is lost, the first ones take a
//! little longer, and once the fault is known no query does. `cargo test --test it failover:: -- --nocapture`
//! prints the figures.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use testkit::tree::*;
use testkit::*;

#[test]
fn kill_under_race() {
    check("race", "", Fault::Kill);
}

#[test]
fn kill_under_hedge() {
    check("hedge", "", Fault::Kill);
}

#[test]
fn kill_under_sequential() {
    check("sequential", "", Fault::Kill);
}

#[test]
fn stop_under_race() {
    check("race", "", Fault::Stop);
}

#[test]
fn stop_under_hedge() {
    check("hedge", "", Fault::Stop);
}

#[test]
fn stop_under_sequential() {
    check("sequential", "", Fault::Stop);
}

#[test]
fn black_hole_costs_a_hedge_delay_where_the_budget_pays_for_all() {
    let longest = check("hedge", "[hedge]\nmax_delay = '50ms'\nbudget = 1.0", Fault::Stop);
    assert!(longest < ATTEMPT_TIMEOUT / 2, "{longest:?}");
}

/// The fault of one authority.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It crashes: its port is closed.
    Kill,
    /// It stalls: its port is open and nothing comes.
    Stop,
}

/// Load, a fault in the middle, and load until well after it is known. Returns what nearly no query took
/// longer than meanwhile.
fn check(dispatch: &str, hedge: &str, fault: Fault) -> Duration {
    let table = load_table();
    let (stays, mut fails) = (Authority::start(&table), Authority::start(&table));
    let server = Forwarder::to(&[&stays, &fails], &format!("dispatch = '{dispatch}'\n{RULES}\n{hedge}"))
        .workers(2)
        // The client of the load stands for many clients: its queries may all wait.
        .keys("[forwarder.limits]\nwaiting = 100000")
        .admin()
        .start();
    let admin = server.admin();
    let load = Load::start(server.address(), RATE);
    load.run_for(CALM);
    let at = Instant::now();
    match fault {
        Fault::Kill => fails.kill(),
        Fault::Stop => fails.stop(),
    }
    admin.wait_for_state(fails.address(), false);
    let known = Instant::now();
    load.run_for(SETTLED);
    let attempts = || admin.metrics().attempts(fails.address(), None);
    let asked = attempts();
    load.run_for(CALM);
    assert_eq!(attempts(), asked, "{dispatch}: no query waits once it is known, since none is sent there");
    let report = load.stop();
    if fault == Fault::Stop {
        fails.resume();
    }

    let affected = report.queries.iter().filter(|sent| sent.at >= at - AFFECTED);
    let affected: Vec<_> = affected.filter(|sent| sent.answer.is_none_or(|came| came.took > AFFECTED)).collect();
    let last = affected.last().map(|sent| sent.at.saturating_duration_since(at)).unwrap_or_default();
    let (before, after) = (report.times(at - CALM, at - ms(50)), report.times(known + SETTLED, Instant::now()));
    let during = report.times(at, known + SETTLED);
    println!(
        "{dispatch:10} {fault:?} {hedge:?}: {} sent, {} lost; known after {} ms; {} affected (above {} ms), the last sent after {} ms, \
         the longest took {} ms; p99 before {} µs, during {} µs, after {} µs",
        report.queries.len(),
        report.lost(),
        (known - at).as_millis(),
        affected.len(),
        AFFECTED.as_millis(),
        last.as_millis(),
        percentile(&during, 100).as_millis(),
        percentile(&before, 99).as_micros(),
        percentile(&during, 99).as_micros(),
        percentile(&after, 99).as_micros(),
    );
    report.check(dispatch, &admin);
    // A query waits for at most one attempt in vain; the rest is for a busy machine.
    assert!(percentile(&during, 100) < ATTEMPT_TIMEOUT * 2, "{:?}", percentile(&during, 100));
    percentile(&during, 99)
}

/// Settings of a careful operator.
const RULES: &str = "accept = 'conclusive'\ntries = 2\ntimeout = '5s'\nattempt_timeout = '1s'\n\
                     [health]\ninterval = '1s'\ntimeout = '500ms'";
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
const RATE: u32 = 2_000;
/// How long there is load before the fault, and after it is known.
const CALM: Duration = Duration::from_millis(1_500);
/// A query that took longer was affected.
const AFFECTED: Duration = Duration::from_millis(20);
/// After the fault is known, the workers have to hear of it, and what is in flight to be answered.
const SETTLED: Duration = Duration::from_millis(200);

#[test]
fn kills_of_any_processes_but_one_leave_no_gap_longer_than_a_start() {
    let load = start_time();
    let (tree, stalls, mut longest) = (Tree::start(""), Stalls::start(), Duration::ZERO);
    for round in 0..40 {
        let begin = Instant::now();
        // Some that have loaded are left: others each time.
        let loaded: Vec<_> = ["supervisor", "standby", "server"].iter().flat_map(|role| tree.pids(role)).collect();
        let left = 1 + round % ((1 << loaded.len()) - 1);
        let is_left = |pid: &u32| loaded.iter().position(|found| found == pid).is_some_and(|bit| left >> bit & 1 == 1);
        let killed: Vec<_> = tree.left().into_iter().filter(|pid| !is_left(pid)).collect();
        longest = longest.max(check_gap(&tree, &killed, &stalls, ms(300) + load));
        while begin.elapsed() < ms(300) {
            tree.address();
        }
    }
    println!("longest gap {longest:?}, a start {load:?}");
    tree.wait_until_whole();
}

#[test]
fn kills_of_supervisor_and_server_at_once_leave_no_gap_longer_than_50_ms() {
    // The only standby may succeed the supervisor, so that it has to start another process that serves.
    for (standbys, load) in [(2, Duration::ZERO), (1, start_time())] {
        let tree = Tree::start_as(&format!("standbys = {standbys}"), standbys, |_| {});
        let (stalls, mut gaps) = (Stalls::start(), Vec::new());
        for _ in 0..10 {
            let killed = [tree.pid("supervisor"), tree.pid("server")];
            gaps.push(check_gap(&tree, &killed, &stalls, ms(50) + load));
            tree.wait_until_whole();
        }
        println!("{standbys} standbys: {gaps:?}");
    }
}

/// The time that a process takes to start and to load the same config.
fn start_time() -> Duration {
    let start = Instant::now();
    let file = config("").replace("[supervisor]", "");
    drop(Server::start_with_files(&file, &[("a.txt", &table(ADDRESS))]));
    start.elapsed()
}

/// Kills processes and returns the time until a query that is sent after their death has a response. That is
/// no longer than `most` and the time for which this machine kept the test itself waiting.
fn check_gap(tree: &Tree, pids: &[u32], stalls: &Stalls, most: Duration) -> Duration {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(tree.server.listener("a")).expect("loopback can be reached");
    socket.set_read_timeout(Some(ms(1))).expect("a timeout above zero");
    let (before, killed) = (stalls.total(), Instant::now());
    tree.kill(pids);
    until("a response", || {
        socket.send(&query("www.example", A).to_vec()).ok()?;
        socket.recv(&mut [0; 512]).ok()
    });
    let (gap, stalled) = (killed.elapsed(), stalls.total() - before);
    assert!(gap < most + stalled, "{gap:?}, stalled for {stalled:?}\n{}", tree.server.process.log());
    gap
}

/// The time for which this machine lets a thread wait that has something to do each millisecond.
struct Stalls {
    total: Arc<AtomicU64>,
    _end: Sender<()>,
}

impl Stalls {
    fn start() -> Self {
        let (end, ended): (_, Receiver<()>) = channel();
        let total = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&total);
        thread::spawn(move || {
            let mut last = Instant::now();
            while ended.recv_timeout(ms(1)) == Err(RecvTimeoutError::Timeout) {
                let late = last.elapsed().saturating_sub(ms(2));
                counted.fetch_add(u64::try_from(late.as_micros()).expect("it is short"), Ordering::Relaxed);
                last = Instant::now();
            }
        });
        Self { total, _end: end }
    }

    fn total(&self) -> Duration {
        Duration::from_micros(self.total.load(Ordering::Relaxed))
    }
}
