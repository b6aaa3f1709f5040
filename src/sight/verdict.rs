//! The verdict: OK, watch or trouble, with reasons. One table of rules ([`RULES`]) contains each bound and
//! its reason.
//!
//! A rule judges [`Facts`] from the history and returns sentences that name pool, backend and figure. The
//! history also provides the usual values: a server that has just started knows no usual values and so finds
//! nothing unusual; a night without queries has too few to judge.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::live::{Reason, Verdict, VerdictState};
use crate::metrics::{BackendState, ExpiredZone, ReloadSnapshot, SourceSnapshot, SourceState, Tap};

/// The input of a verdict.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Queries of clients in the last ten seconds.
    pub queries: u64,
    /// Queries dropped in the last ten seconds because too many arrived.
    pub overload: u64,
    /// Queries of the last ten seconds that were answered, or should have been.
    pub answered: u64,
    /// Queries of the last ten seconds without an answer from a backend: hedgerow synthesized a response, or
    /// sent none.
    pub made_up: u64,
    /// The usual share of such queries; `None` if too little is known.
    pub usual: Option<MadeUp>,
    /// Responses of the last ten seconds that report a failure, of backends or of this forwarder.
    pub failures: u64,
    /// The usual share of failures; `None` if too little is known.
    pub usual_failures: Option<MadeUp>,
    /// The input about each pool.
    pub pools: Vec<PoolFacts<'a>>,
    /// The records of taps in the last minute.
    pub taps: Vec<TapFacts>,
    /// The result of the last reload.
    pub reload: &'a ReloadSnapshot,
    /// The zones of other servers that have expired.
    pub expired_zones: &'a [ExpiredZone],
    /// The zones of other servers that are missing for a minute or more.
    pub absent_zones: &'a [ExpiredZone],
    /// The time since a process last took over after a crash or a hang.
    pub crashed_for: Option<Duration>,
}

/// A number of synthesized answers, or of failures, among all answers of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeUp {
    /// The number of synthesized answers, or of failures.
    pub made_up: u64,
    /// The number of all answers.
    pub answered: u64,
}

impl MadeUp {
    fn share(self) -> f64 {
        self.made_up as f64 / self.answered.max(1) as f64
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
pub struct VerdictRule {
    /// The name of the rule in JSON and in alerts.
    pub code: &'static str,
    /// The severity of the reason.
    pub state: VerdictState,
    /// The bound, for people.
    pub bound: &'static str,
    /// The reason for the bound, for people.
    pub why: &'static str,
    judge: fn(&Facts<'_>) -> Vec<String>,
}

impl fmt::Debug for VerdictRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("code", &self.code).field("state", &self.state).finish_non_exhaustive()
    }
}

/// All rules, the gravest first.
pub const RULES: &[VerdictRule] = &[
    VerdictRule {
        code: "pool-down",
        state: VerdictState::Trouble,
        bound: "No backend of a pool is up, and at least one of them is down or drained rather than new.",
        why: "Probes have already confirmed it, so waiting adds nothing.",
        judge: pool_down,
    },
    VerdictRule {
        code: "made-up",
        state: VerdictState::Trouble,
        bound: "In the last 10 s backends left at least 1 % of the queries unanswered, and hedgerow synthesized a response or sent none. \
                The share is also at least three times the usual one, or at least halfway from the usual one to 100 % if the usual one \
                exceeds 20 %. The number is at least 10 plus 6 standard deviations above the usual one. While no backend of a pool is \
                up, one such query is enough.",
        why: "A backend may be silent about names that it does not serve, so only a rise counts. The usual share is that of the last hour. \
              The standard deviations exclude chance when there are few queries.",
        judge: made_up,
    },
    VerdictRule {
        code: "failing",
        state: VerdictState::Trouble,
        bound: "In the last 10 s there were at least 20 responses, and more than half of them were failures, or the share rose as far \
                above the usual one as in the rule `made-up`. Failures are SERVFAIL, and REFUSED from backends. SERVFAIL with an \
                extended error of DNSSEC (6 to 12) does not count, nor does either with an extended error of a filter (15 to 17).",
        why: "Probes consider a backend up if it replies, even if every reply is a failure. REFUSED because of `allow`, a rule or a \
              missing route is configured by the operator, and so are limits.",
        judge: failing,
    },
    VerdictRule {
        code: "overload",
        state: VerdictState::Trouble,
        bound: "In the last 10 s hedgerow dropped at least 10 queries, and at least 0.1 % of all, because more arrived than it could answer.",
        why: "Clients time out on dropped queries. A small buffer loses a few in a burst.",
        judge: overload,
    },
    VerdictRule {
        code: "zone-expired",
        state: VerdictState::Trouble,
        bound: "A secondary zone has expired.",
        why: "The authority answers SERVFAIL for the zone from then on (RFC 1034 section 4.3.5).",
        judge: zone_expired,
    },
    VerdictRule {
        code: "zone-absent",
        state: VerdictState::Trouble,
        bound: "A secondary zone has had no data for a minute: no transfer has succeeded.",
        why: "The authority answers SERVFAIL for the zone until a transfer succeeds. A first transfer takes seconds.",
        judge: zone_absent,
    },
    VerdictRule {
        code: "backend-down",
        state: VerdictState::Watch,
        bound: "Probes find a backend down, while others of its pool are up.",
        why: "Clients are not affected, because other backends answer. A state that an operator set by hand does not count.",
        judge: backend_down,
    },
    VerdictRule {
        code: "flapping",
        state: VerdictState::Watch,
        bound: "The probes of a backend changed between up and down four times within 5 min, the last time less than 5 min ago.",
        why: "Between two changes the backend looks up, or simply down. A restart is two changes. A change by hand does not count.",
        judge: flapping,
    },
    VerdictRule {
        code: "backend-failing",
        state: VerdictState::Watch,
        bound: "In 10 s of the last 5 min more than half of at least 20 attempts at a backend that is up failed, and no later 10 s \
                with 20 attempts were better. Failures are those of `failing`, other errors such as FORMERR, and a closed port.",
        why: "Probes accept any reply. `fastest` and `least-load` then ask the backend last, so few attempts remain to judge it by.",
        judge: backend_failing,
    },
    VerdictRule {
        code: "backend-slow",
        state: VerdictState::Watch,
        bound: "In five of the last eight seconds with replies, the median latency of a backend was at least five times the usual \
                one, and 20 ms more. After an hour the new latency becomes the usual one.",
        why: "One slow second is chance. The usual latency is the median of the last ten minutes (at least one minute), and does not \
              change while the backend is slow.",
        judge: backend_slow,
    },
    VerdictRule {
        code: "backend-behind",
        state: VerdictState::Watch,
        bound: "A backend of a pool of replicas is behind: one of its zones has been older than on another backend for longer than `max_lag`.",
        why: "Other backends give clients newer data, but transfers to this one fail or take too long.",
        judge: backend_behind,
    },
    VerdictRule {
        code: "tail-high",
        state: VerdictState::Watch,
        bound: "In the last minute at least 3 % of the answers of a pool, and at least 30, took four times the usual p99 and 20 ms more.",
        why: "By definition 1 % of the answers exceed the p99, so 3 % is not chance. The usual p99 is the median of the minutes of the \
              last hour, at least five of them with 100 queries each.",
        judge: tail_high,
    },
    VerdictRule {
        code: "hedges-denied",
        state: VerdictState::Watch,
        bound: "In the last 10 s at least 20 hedges of a pool were denied, and more than were sent.",
        why: "Hedges were due more than twice as often as the budget allows: the backends are slower than hedging can compensate.",
        judge: hedges_denied,
    },
    VerdictRule {
        code: "reload-failed",
        state: VerdictState::Watch,
        bound: "The last reload failed.",
        why: "The server continues with the previous config, but the next start needs the config on disk.",
        judge: reload_failed,
    },
    VerdictRule {
        code: "source-stale",
        state: VerdictState::Watch,
        bound: "A source of members has not confirmed its list for 10 s, has never answered, or is doubted.",
        why: "The members stay as they are, so clients are not affected, but hedgerow does not learn of new or removed members.",
        judge: source_stale,
    },
    VerdictRule {
        code: "divergence",
        state: VerdictState::Watch,
        bound: "Backends of a pool of replicas answer a question differently, again after 1 s, and again when last checked.",
        why: "Replicas must have the same data. An update has not reached all of them, or one of them was changed on its own.",
        judge: divergence,
    },
    VerdictRule {
        code: "tap-drops",
        state: VerdictState::Watch,
        bound: "In the last minute at least 10 records of a tap other than `slow`, and at least 1 % of its records, were dropped.",
        why: "A log with gaps misleads its reader. A bounded buffer loses a few records in a burst. For `slow`, each worker keeps \
              the slowest races of each second and drops the rest by design.",
        judge: tap_drops,
    },
    VerdictRule {
        code: "process-crashed",
        state: VerdictState::Watch,
        bound: "In the last 10 min a standby took over from a server process that crashed or hung.",
        why: "Clients are not affected, but another crash may follow. The log has the reason.",
        judge: process_crashed,
    },
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
    let down = facts.pools.iter().filter(|pool| is_down(pool));
    let text = |pool: &PoolFacts<'_>| {
        format!("no backend of pool {} is up: {}", pool.name, named(&pool.backends.iter().collect::<Vec<_>>()))
    };
    down.map(text).collect()
}

/// True if no backend of a pool can be asked.
fn is_down(pool: &PoolFacts<'_>) -> bool {
    let has = |state| pool.backends.iter().any(|backend| backend.state == state);
    let is_any_up = has(BackendState::Up) || has(BackendState::Behind);
    !is_any_up && (has(BackendState::Down) || has(BackendState::Draining))
}

fn made_up(facts: &Facts<'_>) -> Vec<String> {
    let &Facts { made_up, answered, usual, .. } = facts;
    let now = MadeUp { made_up, answered };
    let share = percent(now.share());
    if made_up > 0
        && let Some(pool) = facts.pools.iter().find(|pool| is_down(pool))
    {
        let name = pool.name;
        return vec![format!(
            "backends left {share} of the queries unanswered in the last 10 s ({made_up} of {answered}), and no backend of pool {name} is up"
        )];
    }
    let Some(usual) = usual else { return Vec::new() };
    if !is_rise(now, usual) {
        return Vec::new();
    }
    let usual = percent(usual.share());
    vec![format!(
        "backends left {share} of the queries unanswered in the last 10 s ({made_up} of {answered}); {usual} is usual"
    )]
}

/// True if a share has risen far above the usual one.
fn is_rise(now: MadeUp, usual: MadeUp) -> bool {
    let expected = usual.share() * now.answered as f64;
    let is_many = now.made_up as f64 >= expected + MADE_UP_DEVIATIONS * expected.sqrt() + MIN_MADE_UP;
    let bound = (MADE_UP_RISE * usual.share()).min(f64::midpoint(1.0, usual.share())).max(MIN_MADE_UP_SHARE);
    is_many && now.share() >= bound
}

fn failing(facts: &Facts<'_>) -> Vec<String> {
    let &Facts { failures, answered, usual_failures, .. } = facts;
    let now = MadeUp { made_up: failures, answered };
    let is_most = failures * 2 > answered;
    if answered < MIN_RESPONSES || !is_most && !usual_failures.is_some_and(|usual| is_rise(now, usual)) {
        return Vec::new();
    }
    let usual = usual_failures.map(|usual| format!("; {} is usual", percent(usual.share()))).unwrap_or_default();
    let share = percent(now.share());
    vec![format!(
        "{share} of the responses were SERVFAIL or REFUSED in the last 10 s ({failures} of {answered}){usual}"
    )]
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
    of_zones(facts.expired_zones, "expired: no primary has confirmed the data in time")
}

fn zone_absent(facts: &Facts<'_>) -> Vec<String> {
    of_zones(facts.absent_zones, "no data: no transfer has succeeded")
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
    let text = |pool: &PoolFacts<'_>| {
        let is_meant = |backend: &&BackendFacts<'_>| backend.state == BackendState::Down && !backend.by_hand;
        let down: Vec<_> = pool.backends.iter().filter(is_meant).collect();
        let (name, all) = (pool.name, pool.backends.len());
        match *down {
            [] => None,
            [backend] => Some(format!("{} of pool {name} has been down for {}", backend.name, time(backend.state_for))),
            _ => Some(format!("{} of {all} backends of pool {name} are down: {}", down.len(), named(&down))),
        }
    };
    facts.pools.iter().filter(|pool| !is_down(pool)).filter_map(text).collect()
}

fn flapping(facts: &Facts<'_>) -> Vec<String> {
    let backends = facts.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let text = |(pool, backend): (&PoolFacts<'_>, &BackendFacts<'_>)| {
        let Flaps { within, ago } = backend.flaps.filter(|flaps| flaps.within <= FLAPPING && flaps.ago < FLAPPING)?;
        let (name, within, ago) = (backend.name, time(within), time(ago));
        Some(format!(
            "{name} of pool {} flaps: it changed between up and down four times in {within}, the last time {ago} ago",
            pool.name
        ))
    };
    backends.filter_map(text).collect()
}

fn backend_failing(facts: &Facts<'_>) -> Vec<String> {
    let backends = facts.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let up = backends.filter(|(_, backend)| backend.state.is_up());
    let text = |(pool, backend): (&PoolFacts<'_>, &BackendFacts<'_>)| {
        let FailedAttempts { attempts, failures, ago } = backend.failed.filter(|failed| failed.ago < FAILING_SHOWN)?;
        let share = percent(failures as f64 / attempts as f64);
        let ago = if ago.is_zero() { String::new() } else { format!(", {} ago", time(ago)) };
        Some(format!(
            "{} of pool {} fails: {share} of its attempts failed in 10 s ({failures} of {attempts}){ago}",
            backend.name, pool.name
        ))
    };
    up.filter_map(text).collect()
}

/// Returns true if most attempts failed, and `None` if there are too few to judge.
pub(super) fn is_failing(of: &FailedAttempts) -> Option<bool> {
    (of.attempts >= MIN_RESPONSES).then_some(of.failures * 2 > of.attempts)
}

fn backend_behind(facts: &Facts<'_>) -> Vec<String> {
    let text = |pool: &PoolFacts<'_>| {
        let behind: Vec<_> = pool.backends.iter().filter(|backend| backend.state == BackendState::Behind).collect();
        let (name, all) = (pool.name, pool.backends.len());
        match *behind {
            [] => None,
            [backend] => {
                let time = time(backend.state_for);
                Some(format!(
                    "{} of pool {name} has been behind for {time}: one of its zones is older than on other backends",
                    backend.name
                ))
            }
            _ => Some(format!("{} of {all} backends of pool {name} are behind: {}", behind.len(), named(&behind))),
        }
    };
    facts.pools.iter().filter_map(text).collect()
}

fn backend_slow(facts: &Facts<'_>) -> Vec<String> {
    let backends = facts.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let slow = backends.filter(|(_, backend)| backend.slow_for > 0 && backend.state.is_up());
    let text = |(pool, backend): (&PoolFacts<'_>, &BackendFacts<'_>)| {
        let (now, usual) = (millis(backend.p50?), millis(backend.usual_p50?));
        let for_ = time(Duration::from_secs(backend.slow_for));
        Some(format!(
            "{} of pool {} has been slow for {for_}: its median is {now}, {usual} is usual",
            backend.name, pool.name
        ))
    };
    slow.filter_map(text).collect()
}

/// Returns true if the median `now` (µs) is slow for a backend with the median `usual`.
pub(super) fn is_slow(usual: u64, now: u64) -> bool {
    now >= usual * SLOW_FACTOR && now >= usual + SLOW_MICROS
}

fn tail_high(facts: &Facts<'_>) -> Vec<String> {
    let high = facts.pools.iter().filter(|pool| pool.slow >= MIN_TAIL && pool.slow * TAIL_PART >= pool.measured * 3);
    let text = |pool: &PoolFacts<'_>| {
        let (now, usual) = (millis(pool.p99?), millis(pool.usual_p99?));
        Some(format!("p99 of pool {} was {now} in the last minute, {usual} in the hour before", pool.name))
    };
    high.filter_map(text).collect()
}

/// The lowest latency (µs) of a slow answer, for this usual p99.
pub(super) fn slow_bound(usual_p99: u64) -> u64 {
    (usual_p99 * TAIL_FACTOR).max(usual_p99 + SLOW_MICROS)
}

fn hedges_denied(facts: &Facts<'_>) -> Vec<String> {
    let is_denied = |pool: &&PoolFacts<'_>| pool.hedges_denied >= MIN_DENIED && pool.hedges_denied > pool.hedges_sent;
    let text = |pool: &PoolFacts<'_>| {
        let PoolFacts { name, hedges_sent, hedges_denied, .. } = pool;
        format!(
            "{hedges_denied} hedges of pool {name} were denied in the last 10 s, {hedges_sent} were sent: the budget is spent"
        )
    };
    facts.pools.iter().filter(is_denied).map(text).collect()
}

fn reload_failed(facts: &Facts<'_>) -> Vec<String> {
    let error = facts.reload.last.as_ref().and_then(|last| Some((last.at, last.error.as_deref()?)));
    let text = |(at, error)| {
        let first = str::lines(error).next().unwrap_or_default();
        let at = humantime::format_rfc3339_seconds(at);
        format!("the reload at {at} failed, edition {} still applies: {first}", facts.reload.edition)
    };
    error.map(text).into_iter().collect()
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
    let text = |pool: &PoolFacts<'_>| {
        let word = match pool.divergent {
            0 => return None,
            1 => "question",
            _ => "questions",
        };
        Some(format!("backends of pool {} answer {} {word} differently", pool.name, pool.divergent))
    };
    facts.pools.iter().filter_map(text).collect()
}

fn tap_drops(facts: &Facts<'_>) -> Vec<String> {
    let is_meant = |tap: &&TapFacts| {
        let is_by_design = tap.name == Tap::Slow.label();
        !is_by_design && tap.dropped >= MIN_TAP_DROPS && tap.dropped * TAP_PART >= tap.dropped + tap.written
    };
    let text = |tap: &TapFacts| {
        let TapFacts { name, written, dropped } = tap;
        let share = percent(*dropped as f64 / (dropped + written) as f64);
        format!("{dropped} records of {name} were dropped in the last minute ({share})")
    };
    facts.taps.iter().filter(is_meant).map(text).collect()
}

fn process_crashed(facts: &Facts<'_>) -> Vec<String> {
    let crashed_for = facts.crashed_for.filter(|crashed_for| *crashed_for < CRASH_SHOWN);
    let text =
        |crashed_for| format!("a server process crashed or hung {} ago, and a standby took over", time(crashed_for));
    crashed_for.map(text).into_iter().collect()
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

/// The table of rules for the docs.
#[cfg(test)]
fn rules_as_markdown() -> String {
    let mut text = "| code | state | when | why |\n|---|---|---|---|\n".to_owned();
    for VerdictRule { code, state, bound, why, .. } in RULES {
        text.push_str(&format!("| `{code}` | {} | {bound} | {why} |\n", state.label()));
    }
    text
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
