//! The verdict on simulated days: `cargo bench --bench day`. Every fault must be reported within ten seconds,
//! and ordinary noise must not be. The program prints the delay of each report, and fails if a fault was not
//! reported or if the day without faults was not well.
//!
//! The engine and the prober are the server's, the backends are modelled, and each second is judged as the
//! control thread would. It is no test only because a build without optimization takes minutes for it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::PoolRules;
use dns::Transport;
use engine::sim::{
    BackendModel, Course, Delay, FaultModel, Happening, NameDistribution, PoolModel, Scenario, When, play,
};
use hedge::{Dispatch, RaceRules};
use hedgerow::control::observe::sight::Sight;
use hedgerow::control::observe::sight::live::{Verdict, VerdictState};
use metrics::{Counters, CountersSummary, DropReason, Snapshot};

/// A fault of two minutes, and the codes that may report it.
struct Fault {
    name: &'static str,
    /// Does it, from and to these times.
    happen: fn(&mut Scenario, When),
    /// Codes of which any reports the fault.
    codes: &'static [&'static str],
    state: VerdictState,
}

/// The faults of the day, in order.
const FAULTS: &[Fault] = &[
    Fault {
        name: "a backend crashes",
        happen: |site, when| site.pools[0].backends[1].crashes.push(when),
        codes: &["backend-down"],
        state: VerdictState::Watch,
    },
    Fault {
        name: "a backend hangs",
        happen: |site, when| site.pools[0].backends[2].stalls.push(when),
        codes: &["backend-down"],
        state: VerdictState::Watch,
    },
    Fault {
        name: "a backend becomes slow",
        happen: |site, when| {
            let slow = Delay::Lognormal { median: ms(80), sigma: 0.7 };
            site.pools[0].backends[0].delay.at_times.push((slow, when));
        },
        codes: &["backend-slow"],
        state: VerdictState::Watch,
    },
    Fault {
        name: "all become slow",
        happen: |site, when| site.slow.at_times.push((60.0, when)),
        codes: &["backend-slow", "tail-high"],
        state: VerdictState::Watch,
    },
    Fault {
        name: "a pool crashes",
        happen: |site, when| site.pools[0].backends.iter_mut().for_each(|backend| backend.crashes.push(when)),
        codes: &["pool-down", "made-up"],
        state: VerdictState::Trouble,
    },
    Fault {
        name: "the network loses nearly everything",
        happen: |site, when| {
            let backends = site.pools.iter_mut().flat_map(|pool| &mut pool.backends);
            backends.for_each(|backend| backend.loss.at_times.push((0.8, when)));
        },
        codes: &["made-up"],
        state: VerdictState::Trouble,
    },
];

fn main() -> ExitCode {
    let begun = Instant::now();
    let mut is_right = true;
    for (name, scenario, seed) in [
        ("a day of ordinary noise, 2 queries a second", site(2, secs(86_400)), 1),
        ("an hour of it, 100 queries a second", site(100, secs(3_600)), 2),
        ("ten minutes of it, 1,000 queries a second", site(1_000, secs(600)), 3),
        ("ten minutes with two reloads, 40 queries a second", with_reloads(site(40, secs(600))), 4),
    ] {
        let verdicts = judge(&scenario, seed);
        let alarms: Vec<_> = verdicts.iter().enumerate().filter(|(_, it)| it.state != VerdictState::Well).collect();
        println!("{name}: {} seconds judged, {} not well", verdicts.len(), alarms.len());
        is_right &=
            alarms.is_empty() && verdicts.len() as u64 >= (scenario.gap * scenario.queries as u32).as_secs() * 9 / 10;
        if let Some((second, verdict)) = alarms.first() {
            println!("  second {second}: {verdict:?}");
        }
    }
    for seed in [5, 6, 7] {
        is_right &= tells_every_fault(seed);
    }
    println!("took {:.1} s", begun.elapsed().as_secs_f64());
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays an hour of faults, one after the other, and prints the delay of each report. Returns true if each
/// was reported in time.
fn tells_every_fault(seed: u64) -> bool {
    let begins = |place: usize| secs(600 * (place as u64 + 1));
    let mut scenario = site(40, secs(600 * (FAULTS.len() as u64 + 1)));
    for (place, fault) in FAULTS.iter().enumerate() {
        let from = begins(place);
        (fault.happen)(&mut scenario, When::Between { from, to: from + secs(120) });
    }
    let verdicts = judge(&scenario, seed);
    let mut is_right = true;
    for (place, fault) in FAULTS.iter().enumerate() {
        let from = begins(place).as_secs() as usize;
        let before = &verdicts[from - 2];
        if before.state != VerdictState::Well {
            println!("{}: before it, all was not well: {before:?}", fault.name);
            is_right = false;
        }
        for code in fault.codes {
            let has_alarm = |verdict: &Verdict| {
                verdict.state >= fault.state && verdict.reasons.iter().any(|reason| reason.code == *code)
            };
            let after = verdicts[from..].iter().take(120).position(has_alarm);
            let reported = after.map_or_else(|| "never".to_owned(), |after| format!("after {after} s"));
            println!("{}: {code} reported {reported}", fault.name);
            is_right &= after.is_some_and(|after| after <= MAX_SECONDS);
        }
    }
    is_right
}

/// The scenario with two reloads that change nothing.
fn with_reloads(scenario: Scenario) -> Scenario {
    let rules = scenario.pools.iter().map(|pool| pool.rules.clone()).collect::<Vec<_>>();
    Scenario { reloads: vec![(secs(100), rules.clone()), (secs(101), rules)], ..scenario }
}

/// Backends with all that is ordinary: a tail, lost datagrams, failures, short stalls.
fn noisy() -> BackendModel {
    let tail = Delay::Pareto { scale: ms(10), shape: 1.5 };
    let usual = Delay::Lognormal { median: ms(2), sigma: 0.7 };
    BackendModel {
        delay: Course::always(Delay::Mixture { usual: Box::new(usual), others: vec![(0.01, tail)] }),
        loss: Course::always(0.002),
        stalls: vec![When::NowAndThen { length: ms(150), every: secs(300) }],
        faults: FaultModel { failure: 0.001, ..FaultModel::default() },
        ..BackendModel::default()
    }
}

/// Returns a scenario with two pools: replicas, hedged by another replica, and authorities with different
/// zones that are silent on unknown names. Some names are unknown to all authorities.
fn site(queries_a_second: u32, length: Duration) -> Scenario {
    let replicas =
        PoolRules { race: RaceRules { dispatch: Dispatch::Hedge, ..RaceRules::default() }, ..PoolRules::default() };
    let silent = || BackendModel { knows: 0.8, miss: None, ..noisy() };
    Scenario {
        pools: vec![
            PoolModel { rules: replicas, backends: vec![noisy(), noisy(), noisy()] },
            PoolModel { rules: PoolRules::default(), backends: vec![silent(), silent()] },
        ],
        queries: length.as_secs() as usize * queries_a_second as usize,
        names: NameDistribution::Unique,
        gap: secs(1) / queries_a_second,
        is_probed: true,
        ..Scenario::of_pool(PoolRules::default(), vec![noisy()])
    }
}

/// Plays a scenario; gives the verdict on each second.
fn judge(scenario: &Scenario, seed: u64) -> Vec<Verdict> {
    let (start, epoch) = (Instant::now(), secs(1_800_000_000));
    let mut sight = Sight::new(start, epoch, &Snapshot::default());
    let mut verdicts = Vec::new();
    // The sender counts outgoing queries, and in this model that is the benchmark.
    let sent = Arc::new(Counters::default());
    play(scenario, start, seed, |at, happening| match happening {
        Happening::Came => sent.query(Transport::Udp),
        Happening::Responded { said: Some(said), .. } => sent.responses(said.source, said.rcode.0, 1),
        Happening::Responded { said: None, .. } => sent.dropped(DropReason::Unanswered),
        Happening::Second { pools, counters } => {
            let pools = pools.iter().map(|pool| pool.snapshot()).collect();
            let counts = CountersSummary::of(vec![Arc::clone(counters), Arc::clone(&sent)]).counts();
            assert!(
                sight.take(start + at, epoch + at, &Snapshot { pools, counts, ..Snapshot::default() }).is_some(),
                "a second is over"
            );
            verdicts.push(sight.verdict().clone());
        }
        Happening::Replied { .. }
        | Happening::RepliedLate(_)
        | Happening::FailedBare { .. }
        | Happening::RaceOver(_) => {}
    });
    verdicts
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The seconds within which a fault must be reported.
const MAX_SECONDS: usize = 10;
