//! The verdict: OK, watch or trouble, with reasons. [`RULES`] is the table of rules; docs/src/verdict.md
//! describes the bound of each rule and the reason for it.
//!
//! A rule judges [`Facts`] from the history and returns sentences that name pool, backend and figure. The
//! history also provides the usual values: a server that has just started knows no usual values and so finds
//! nothing unusual; a night without queries has too few to judge.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{BackendState, ExpiredZone, LastReload, Snapshot, SourceSnapshot, SourceState, Tap};

use super::live::{Reason, Verdict, VerdictState};

/// The input of a verdict. Counts are of the last ten seconds.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The current metrics: reloads and zones.
    pub snapshot: &'a Snapshot,
    /// Queries of clients.
    pub queries: u64,
    /// Queries dropped because too many arrived.
    pub overload: u64,
    /// Queries without an answer from a backend: hedgerow synthesized a response, or sent none.
    pub made_up: RecentShare,
    /// Responses that report a failure, of backends or of this forwarder.
    pub failures: RecentShare,
    /// The input about each pool.
    pub pools: Vec<PoolFacts<'a>>,
    /// The records of taps in the last minute.
    pub taps: Vec<TapFacts>,
    /// The time since a process last took over after a crash or a hang.
    pub crashed_for: Option<Duration>,
}

/// A part of the answers, now and usually.
#[derive(Clone, Copy, Debug)]
pub struct RecentShare {
    /// The share in the last ten seconds.
    pub now: AnswerShare,
    /// The usual share; `None` if too little is known.
    pub usual: Option<AnswerShare>,
}

/// A part of the queries of a period that were answered, or should have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerShare {
    /// The number of such answers.
    pub part: u64,
    /// The number of all answers.
    pub answered: u64,
}

impl AnswerShare {
    fn share(self) -> f64 {
        self.part as f64 / self.answered.max(1) as f64
    }
}

/// The counts of a tap's records in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFacts {
    /// The label of the tap in metrics.
    pub name: &'static str,
    /// Records that were written.
    pub written: u64,
    /// Records that were dropped.
    pub dropped: u64,
}

/// The input about one pool.
#[derive(Clone, Debug)]
pub struct PoolFacts<'a> {
    /// The name of the pool.
    pub name: &'a str,
    /// Queries of the last minute that were answered.
    pub measured: u64,
    /// Queries of the last minute that took at least `slow_bound` of the usual p99.
    pub slow: u64,
    /// The p99 of the last minute, in µs.
    pub p99: Option<u64>,
    /// The usual p99, in µs.
    pub usual_p99: Option<u64>,
    /// Hedges made in the last ten seconds.
    pub hedges_sent: u64,
    /// Hedges of the last ten seconds that the budget denied.
    pub hedges_denied: u64,
    /// Questions that the replicas of the pool answer differently now.
    pub divergent: u64,
    /// The sources of members.
    pub sources: &'a [SourceSnapshot],
    /// The input about each backend.
    pub backends: Vec<BackendFacts<'a>>,
}

/// The input about one backend.
#[derive(Clone, Debug)]
pub struct BackendFacts<'a> {
    /// The label of the backend.
    pub name: &'a str,
    /// The state of the backend.
    pub state: BackendState,
    /// True if an operator set the state.
    pub by_hand: bool,
    /// The time in this state.
    pub state_for: Duration,
    /// The last four changes between up and down by probes; `None` if there were fewer.
    pub flaps: Option<Flaps>,
    /// The attempts of the latest ten seconds in which most failed; `None` if the backend has worked since.
    pub failed: Option<FailedAttempts>,
    /// The number of seconds for which the backend has been slow (`is_slow`).
    pub slow_for: u64,
    /// The median of the last seconds, in µs.
    pub p50: Option<u64>,
    /// The usual median, in µs.
    pub usual_p50: Option<u64>,
}

/// The time of the last four changes of a backend between up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaps {
    /// The time from the first change to the last.
    pub within: Duration,
    /// The time since the last change.
    pub ago: Duration,
}

impl Flaps {
    /// Returns true if the changes followed each other fast, and the last one is not long ago.
    pub fn are_recent(&self) -> bool {
        self.within <= FLAPPING && self.ago < FLAPPING
    }
}

/// The attempts of ten seconds at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempts {
    /// The number of attempts.
    pub attempts: u64,
    /// The number of failed attempts.
    pub failures: u64,
    /// The time since these attempts.
    pub ago: Duration,
}

/// A rule of the verdict.
#[derive(Debug)]
pub struct VerdictRule {
    /// The name of the rule in JSON and in alerts.
    pub code: &'static str,
    /// The severity of the reason.
    pub state: VerdictState,
    /// Returns a sentence for each fault.
    judge: fn(&Facts<'_>) -> Vec<String>,
}

/// All rules, the gravest first.
pub const RULES: &[VerdictRule] = &[
    VerdictRule { code: "pool-down", state: VerdictState::Trouble, judge: pool_down },
    VerdictRule { code: "made-up", state: VerdictState::Trouble, judge: made_up },
    VerdictRule { code: "failing", state: VerdictState::Trouble, judge: failing },
    VerdictRule { code: "overload", state: VerdictState::Trouble, judge: overload },
    VerdictRule { code: "zone-expired", state: VerdictState::Trouble, judge: zone_expired },
    VerdictRule { code: "zone-absent", state: VerdictState::Trouble, judge: zone_absent },
    VerdictRule { code: "backend-down", state: VerdictState::Watch, judge: backend_down },
    VerdictRule { code: "flapping", state: VerdictState::Watch, judge: flapping },
    VerdictRule { code: "backend-failing", state: VerdictState::Watch, judge: backend_failing },
    VerdictRule { code: "backend-slow", state: VerdictState::Watch, judge: backend_slow },
    VerdictRule { code: "backend-behind", state: VerdictState::Watch, judge: backend_behind },
    VerdictRule { code: "tail-high", state: VerdictState::Watch, judge: tail_high },
    VerdictRule { code: "hedges-denied", state: VerdictState::Watch, judge: hedges_denied },
    VerdictRule { code: "reload-failed", state: VerdictState::Watch, judge: reload_failed },
    VerdictRule { code: "source-stale", state: VerdictState::Watch, judge: source_stale },
    VerdictRule { code: "divergence", state: VerdictState::Watch, judge: divergence },
    VerdictRule { code: "tap-drops", state: VerdictState::Watch, judge: tap_drops },
    VerdictRule { code: "process-crashed", state: VerdictState::Watch, judge: process_crashed },
];

/// Judges the facts. The state of the verdict begins now.
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    for rule in RULES {
        let texts = (rule.judge)(facts);
        if !texts.is_empty() {
            verdict.state = verdict.state.max(rule.state);
        }
        let room = MAX_REASONS - verdict.reasons.len();
        verdict.reasons.extend(texts.into_iter().take(room).map(|text| Reason { code: rule.code.to_owned(), text }));
    }
    verdict
}

fn pool_down(facts: &Facts<'_>) -> Vec<String> {
    of_pools(facts, |pool| {
        let all: Vec<_> = pool.backends.iter().collect();
        is_down(pool).then(|| format!("no backend of pool {} is up: {}", pool.name, named(&all)))
    })
}

/// True if no backend of a pool can be asked.
fn is_down(pool: &PoolFacts<'_>) -> bool {
    let has = |state| pool.backends.iter().any(|backend| backend.state == state);
    let is_any_up = has(BackendState::Up) || has(BackendState::Behind);
    !is_any_up && (has(BackendState::Down) || has(BackendState::Draining))
}

fn made_up(facts: &Facts<'_>) -> Vec<String> {
    let RecentShare { now, usual } = facts.made_up;
    let down = facts.pools.iter().find(|pool| now.part > 0 && is_down(pool));
    let beside = match (down, usual) {
        (Some(pool), _) => format!(", and no backend of pool {} is up", pool.name),
        (None, Some(usual)) if is_rise(now, usual) => format!("; {} is usual", percent(usual.share())),
        (None, _) => return Vec::new(),
    };
    let (share, AnswerShare { part, answered }) = (percent(now.share()), now);
    vec![format!("backends left {share} of the queries unanswered in the last 10 s ({part} of {answered}){beside}")]
}

/// True if a share has risen far above the usual one.
fn is_rise(now: AnswerShare, usual: AnswerShare) -> bool {
    let expected = usual.share() * now.answered as f64;
    let is_many = now.part as f64 >= expected + MADE_UP_DEVIATIONS * expected.sqrt() + MIN_MADE_UP;
    let bound = (MADE_UP_RISE * usual.share()).min(f64::midpoint(1.0, usual.share())).max(MIN_MADE_UP_SHARE);
    is_many && now.share() >= bound
}

fn failing(facts: &Facts<'_>) -> Vec<String> {
    let RecentShare { now: now @ AnswerShare { part, answered }, usual } = facts.failures;
    let is_most = part * 2 > answered;
    if answered < MIN_RESPONSES || !is_most && !usual.is_some_and(|usual| is_rise(now, usual)) {
        return Vec::new();
    }
    let usual = usual.map(|usual| format!("; {} is usual", percent(usual.share()))).unwrap_or_default();
    let share = percent(now.share());
    vec![format!("{share} of the responses were SERVFAIL or REFUSED in the last 10 s ({part} of {answered}){usual}")]
}

fn overload(facts: &Facts<'_>) -> Vec<String> {
    let &Facts { overload, queries, .. } = facts;
    let all = queries.max(overload);
    if overload < MIN_OVERLOAD || overload * OVERLOAD_PART < all {
        return Vec::new();
    }
    let share = percent(overload as f64 / all as f64);
    vec![format!(
        "{overload} queries were dropped in the last 10 s ({share}): more arrived than this server can answer"
    )]
}

fn zone_expired(facts: &Facts<'_>) -> Vec<String> {
    of_zones(&facts.snapshot.authorities.expired_zones, "expired: no primary has confirmed the data in time")
}

fn zone_absent(facts: &Facts<'_>) -> Vec<String> {
    of_zones(&facts.snapshot.authorities.absent_zones, "no data: no transfer has succeeded")
}

fn of_zones(zones: &[ExpiredZone], fate: &str) -> Vec<String> {
    let mut by_authority: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ExpiredZone { authority, zone } in zones {
        by_authority.entry(authority).or_default().push(zone);
    }
    let text = |(authority, zones): (&str, Vec<&str>)| {
        let (word, verb) = if zones.len() == 1 { ("zone", "has") } else { ("zones", "have") };
        let zones = listed(zones.iter().map(|zone| (*zone).to_owned()), zones.len());
        format!("{word} {zones} of authority {authority} {verb} {fate}")
    };
    by_authority.into_iter().map(text).collect()
}

fn backend_down(facts: &Facts<'_>) -> Vec<String> {
    let is_meant = |backend: &&BackendFacts<'_>| backend.state == BackendState::Down && !backend.by_hand;
    of_pools(facts, |pool| {
        let down: Vec<_> = pool.backends.iter().filter(is_meant).collect();
        one_or_more(pool, &down, "").filter(|_| !is_down(pool))
    })
}

fn backend_behind(facts: &Facts<'_>) -> Vec<String> {
    of_pools(facts, |pool| {
        let behind: Vec<_> = pool.backends.iter().filter(|backend| backend.state == BackendState::Behind).collect();
        one_or_more(pool, &behind, ": one of its zones is older than on other backends")
    })
}

/// Reports one backend with its state and the effect of it, or the number of backends in this state.
fn one_or_more(pool: &PoolFacts<'_>, backends: &[&BackendFacts<'_>], effect: &str) -> Option<String> {
    let (pool, all) = (pool.name, pool.backends.len());
    let first = backends.first()?;
    let (name, state, count) = (first.name, first.state.label(), backends.len());
    Some(match count {
        1 => format!("{name} of pool {pool} has been {state} for {}{effect}", time(first.state_for)),
        _ => format!("{count} of {all} backends of pool {pool} are {state}: {}", named(backends)),
    })
}

fn flapping(facts: &Facts<'_>) -> Vec<String> {
    of_backends(facts, |pool, backend| {
        let Flaps { within, ago } = backend.flaps.filter(Flaps::are_recent)?;
        let (name, within, ago) = (backend.name, time(within), time(ago));
        Some(format!(
            "{name} of pool {pool} flaps: it changed between up and down four times in {within}, the last time {ago} ago"
        ))
    })
}

fn backend_failing(facts: &Facts<'_>) -> Vec<String> {
    of_backends(facts, |pool, backend| {
        let failed = backend.failed.filter(|failed| failed.ago < FAILING_SHOWN && backend.state.is_up());
        let (name, FailedAttempts { attempts, failures, ago }) = (backend.name, failed?);
        let share = percent(failures as f64 / attempts as f64);
        let ago = if ago.is_zero() { String::new() } else { format!(", {} ago", time(ago)) };
        Some(format!(
            "{name} of pool {pool} fails: {share} of its attempts failed in 10 s ({failures} of {attempts}){ago}"
        ))
    })
}

/// Returns true if most attempts failed, and `None` if there are too few to judge.
pub(super) fn is_failing(of: &FailedAttempts) -> Option<bool> {
    (of.attempts >= MIN_RESPONSES).then_some(of.failures * 2 > of.attempts)
}

fn backend_slow(facts: &Facts<'_>) -> Vec<String> {
    of_backends(facts, |pool, backend| {
        let slow = Some(backend).filter(|backend| backend.slow_for > 0 && backend.state.is_up())?;
        let (name, now, usual) = (slow.name, millis(slow.p50?), millis(slow.usual_p50?));
        let for_ = time(Duration::from_secs(slow.slow_for));
        Some(format!("{name} of pool {pool} has been slow for {for_}: its median is {now}, {usual} is usual"))
    })
}

/// Returns true if the median `now` (µs) is slow for a backend with the median `usual`.
pub(super) fn is_slow(usual: u64, now: u64) -> bool {
    now >= usual * SLOW_FACTOR && now >= usual + SLOW_MICROS
}

fn tail_high(facts: &Facts<'_>) -> Vec<String> {
    of_pools(facts, |pool| {
        let (slow, measured) = (pool.slow, pool.measured);
        let high = Some(pool).filter(|_| slow >= MIN_TAIL && slow * TAIL_PART >= measured * 3)?;
        let (name, now, usual) = (high.name, millis(high.p99?), millis(high.usual_p99?));
        Some(format!("p99 of pool {name} was {now} in the last minute, {usual} in the hour before"))
    })
}

/// The lowest latency (µs) of a slow answer, for this usual p99.
pub(super) fn slow_bound(usual_p99: u64) -> u64 {
    (usual_p99 * TAIL_FACTOR).max(usual_p99 + SLOW_MICROS)
}

fn hedges_denied(facts: &Facts<'_>) -> Vec<String> {
    of_pools(facts, |&PoolFacts { name, hedges_sent: sent, hedges_denied: denied, .. }| {
        (denied >= MIN_DENIED && denied > sent).then(|| {
            format!(
                "{denied} hedges of pool {name} were denied in the last 10 s, {sent} were sent: the budget is spent"
            )
        })
    })
}

fn reload_failed(facts: &Facts<'_>) -> Vec<String> {
    let reload = &facts.snapshot.reload;
    let text = |last: &LastReload| {
        let first = last.error.as_deref()?.lines().next().unwrap_or_default();
        let at = humantime::format_rfc3339_seconds(last.at);
        Some(format!("the reload at {at} failed, edition {} still applies: {first}", reload.edition))
    };
    reload.last.as_ref().and_then(text).into_iter().collect()
}

fn source_stale(facts: &Facts<'_>) -> Vec<String> {
    let sources = facts.pools.iter().flat_map(|pool| pool.sources.iter().map(move |source| (pool, source)));
    let text = |(pool, source): (&PoolFacts<'_>, &SourceSnapshot)| {
        let SourceSnapshot { origin, source, state, failure, age, .. } = source;
        let why = failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
        let what = match (state, age) {
            (SourceState::Fresh, _) => return None,
            (SourceState::Doubted, _) => "is doubted: it lists fewer than half of the backends that are up".to_owned(),
            (SourceState::Stale, Some(age)) if *age >= MIN_STALE => format!("has been stale for {}{why}", time(*age)),
            (SourceState::Never, _) if failure.is_some() => format!("has never answered{why}"),
            (SourceState::Stale | SourceState::Never, _) => return None,
        };
        Some(format!("source {} {source} of pool {} {what}", origin.label(), pool.name))
    };
    sources.filter_map(text).collect()
}

fn divergence(facts: &Facts<'_>) -> Vec<String> {
    of_pools(facts, |&PoolFacts { name, divergent, .. }| {
        let word = if divergent == 1 { "question" } else { "questions" };
        (divergent > 0).then(|| format!("backends of pool {name} answer {divergent} {word} differently"))
    })
}

fn tap_drops(facts: &Facts<'_>) -> Vec<String> {
    let text = |&TapFacts { name, written, dropped }: &TapFacts| {
        let all = dropped + written;
        let is_by_design = name == Tap::Slow.label();
        let is_meant = !is_by_design && dropped >= MIN_TAP_DROPS && dropped * TAP_PART >= all;
        let share = percent(dropped as f64 / all as f64);
        is_meant.then(|| format!("{dropped} records of {name} were dropped in the last minute ({share})"))
    };
    facts.taps.iter().filter_map(text).collect()
}

fn process_crashed(facts: &Facts<'_>) -> Vec<String> {
    let crashed_for = facts.crashed_for.filter(|crashed_for| *crashed_for < CRASH_SHOWN);
    let text =
        |crashed_for| format!("a server process crashed or hung {} ago, and a standby took over", time(crashed_for));
    crashed_for.map(text).into_iter().collect()
}

fn of_pools(facts: &Facts<'_>, text: impl Fn(&PoolFacts<'_>) -> Option<String>) -> Vec<String> {
    facts.pools.iter().filter_map(text).collect()
}

/// Returns the texts about backends. `text` takes the name of the pool.
fn of_backends(facts: &Facts<'_>, text: impl Fn(&str, &BackendFacts<'_>) -> Option<String>) -> Vec<String> {
    let backends = facts.pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| (pool.name, backend)));
    backends.filter_map(|(pool, backend)| text(pool, backend)).collect()
}

/// Backends with their state and for how long, the first few of them.
fn named(backends: &[&BackendFacts<'_>]) -> String {
    let text = |backend: &&BackendFacts<'_>| {
        format!("{} has been {} for {}", backend.name, backend.state.label(), time(backend.state_for))
    };
    listed(backends.iter().map(text), backends.len())
}

/// The first few of a list, and how many more there are.
fn listed(items: impl Iterator<Item = String>, count: usize) -> String {
    let first: Vec<_> = items.take(MAX_NAMED).collect();
    let more = count - first.len();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

/// A share as a percentage, with one decimal below 10 %.
fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Microseconds as milliseconds, with one decimal below 10 ms.
fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

/// A time as its two largest units.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    };
    match small {
        (0, _) => format!("{} {}", large.0, large.1),
        (count, unit) => format!("{} {} {count} {unit}", large.0, large.1),
    }
}

/// Reasons that a verdict has at most.
const MAX_REASONS: usize = 32;
/// Names that a reason has at most.
const MAX_NAMED: usize = 3;

/// The share from which made-up answers may be trouble.
const MIN_MADE_UP_SHARE: f64 = 0.01;
/// The factor above the usual share that counts as a rise.
const MADE_UP_RISE: f64 = 3.0;
/// The standard deviations above the usual number that rule out chance.
const MADE_UP_DEVIATIONS: f64 = 6.0;
/// The smallest increase of the number that counts.
const MIN_MADE_UP: f64 = 10.0;

/// The fewest responses for which a share is judged.
const MIN_RESPONSES: u64 = 20;

/// The fewest drops that count; a burst may cost fewer.
const MIN_OVERLOAD: u64 = 10;
/// One drop in this many queries counts.
const OVERLOAD_PART: u64 = 1_000;

/// The period in which four changes count as flapping, and for which it is shown.
const FLAPPING: Duration = Duration::from_secs(300);

/// The time for which a failing backend is shown after its last failures.
const FAILING_SHOWN: Duration = Duration::from_secs(300);

/// The factor above the usual median at which a backend is slow.
const SLOW_FACTOR: u64 = 5;
/// The smallest increase of the median (µs) that counts, because people notice it.
const SLOW_MICROS: u64 = 20_000;

/// The factor above the usual p99 at which an answer counts as slow.
const TAIL_FACTOR: u64 = 4;
/// Three slow answers in this many make a high tail.
const TAIL_PART: u64 = 100;
/// The fewest slow answers that count; fewer may be chance.
const MIN_TAIL: u64 = 30;

/// The fewest dropped records that count; a burst may cost fewer.
const MIN_TAP_DROPS: u64 = 10;

/// A source of members is reported if it was not confirmed for this long. A restarted etcd is back by then.
const MIN_STALE: Duration = Duration::from_secs(10);
/// One dropped record in this many counts.
const TAP_PART: u64 = 100;

/// The time for which a crash is shown.
const CRASH_SHOWN: Duration = Duration::from_secs(600);

/// The fewest denied hedges that count; a burst may cost fewer.
const MIN_DENIED: u64 = 20;

#[cfg(test)]
mod tests;
