//! One of two authorities dies, or stalls, in the middle of load: no query is lost, the first ones pay a little, and
//! once that is known nobody pays. `cargo test --test it failover:: -- --nocapture` prints the figures.

use std::time::{Duration, Instant};

use crate::support::*;

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

/// What happens to one authority.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It crashes: its port is closed.
    Kill,
    /// It stalls: its port is open and nothing comes.
    Stop,
}

/// Load, a fault in the middle, and load until well after it is known. Returns what nearly no query took longer than
/// meanwhile.
fn check(dispatch: &str, hedge: &str, fault: Fault) -> Duration {
    let table = load_table();
    let (stays, mut fails) = (Authority::start(&table), Authority::start(&table));
    let server = Forwarder::to(&[&stays, &fails], &format!("dispatch = '{dispatch}'\n{RULES}\n{hedge}"))
        .workers(2)
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
    assert_eq!(attempts(), asked, "{dispatch}: nobody pays once it is known, for nobody asks");
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

/// As an operator who cares would have it.
const RULES: &str = "accept = 'conclusive'\ntries = 2\ntimeout = '5s'\nattempt_timeout = '1s'\n\
                     [health]\ninterval = '1s'\ntimeout = '500ms'";
/// The same.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Queries a second.
const RATE: u32 = 2_000;
/// How long there is load before the fault, and after it is known.
const CALM: Duration = Duration::from_millis(1_500);
/// A query that took longer was affected.
const AFFECTED: Duration = Duration::from_millis(20);
/// After the fault is known, the workers have to hear of it, and what is in flight to be answered.
const SETTLED: Duration = Duration::from_millis(200);
