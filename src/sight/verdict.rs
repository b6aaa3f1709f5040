//! The verdict: well, watch or trouble, and why. One table of rules ([`RULES`]), each with its bound and the reason for that.
//!
//! A rule looks at [`Facts`], which a history makes, and says what it has to say in sentences that name pool, backend and figure. What is
//! usual comes from the history itself: a server that has just started knows nothing usual and so finds nothing unusual; a
//! night without queries has too few of them to be judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::live::{Reason, Verdict, VerdictState};
use crate::metrics::{BackendState, ExpiredZone, ReloadSnapshot, SourceSnapshot, SourceState, Tap};

/// What a verdict is made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Queries of clients in the last ten seconds.
    pub queries: u64,
    /// Queries dropped then since more came than could be answered.
    pub overload: u64,
    /// Queries that were answered then, or should have been.
    pub answered: u64,
    /// Those of them that got no backend's word: an answer that was made up, or none.
    pub made_up: u64,
    /// How it is otherwise; none if too little is known.
    pub usual: Option<MadeUp>,
    /// Those whose response reports a failure, of backends or of this forwarder.
    pub failures: u64,
    /// The same as it is otherwise; none if too little is known.
    pub usual_failures: Option<MadeUp>,
    /// The pools.
    pub pools: Vec<PoolFacts<'a>>,
    /// What observes queries.
    pub taps: Vec<TapFacts>,
    /// What came of reading the config again.
    pub reload: &'a ReloadSnapshot,
    /// The zones of other servers that have expired.
    pub expired_zones: &'a [ExpiredZone],
    /// The zones of other servers that have never come, in a minute or more.
    pub absent_zones: &'a [ExpiredZone],
    /// The time since a process last took over after a crash or a hang.
    pub crashed_for: Option<Duration>,
}

/// The number of answers that were made up, or failures, in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeUp {
    /// Those.
    pub made_up: u64,
    /// Of so many.
    pub answered: u64,
}

impl MadeUp {
    fn share(self) -> f64 {
        self.made_up as f64 / self.answered.max(1) as f64
    }
}

/// What became of the records of a tap in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFacts {
    /// Its label in metrics.
    pub name: &'static str,
    /// Those that were written.
    pub written: u64,
    /// Those that were not.
    pub dropped: u64,
}

/// What is known of a pool.
#[derive(Clone, Debug)]
pub struct PoolFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Queries of the last minute that were answered.
    pub measured: u64,
    /// Those of them that took at least as long as `slow_bound` makes of the usual p99.
    pub slow: u64,
    /// The p99 of the last minute, in µs.
    pub p99: Option<u64>,
    /// The p99 that is usual, in µs.
    pub usual_p99: Option<u64>,
    /// Hedges made in the last ten seconds.
    pub hedges_sent: u64,
    /// Hedges not made then for want of budget.
    pub hedges_denied: u64,
    /// Questions that its backends, which are replicas, answer differently now.
    pub divergent: u64,
    /// Where its members come from.
    pub sources: &'a [SourceSnapshot],
    /// Its backends.
    pub backends: Vec<BackendFacts<'a>>,
}

/// What is known of a backend.
#[derive(Clone, Debug)]
pub struct BackendFacts<'a> {
    /// Its label.
    pub name: &'a str,
    /// Its state.
    pub state: BackendState,
    /// Somebody has set that.
    pub by_hand: bool,
    /// For how long it has been in it.
    pub state_for: Duration,
    /// Its last four changes between up and down by its probes; none if there were fewer.
    pub flaps: Option<Flaps>,
    /// Its attempts in the latest ten seconds in which most of them failed; none if it does well since.
    pub failed: Option<FailedAttempts>,
    /// For how many seconds it has been slow, as `is_slow` says.
    pub slow_for: u64,
    /// Its median in the last seconds, in µs.
    pub p50: Option<u64>,
    /// The median that is usual, in µs.
    pub usual_p50: Option<u64>,
}

/// The time of the last four changes of a backend between up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaps {
    /// The time from the first of them to the last.
    pub within: Duration,
    /// The time since the last.
    pub ago: Duration,
}

/// The attempts of ten seconds at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempts {
    /// All of them.
    pub attempts: u64,
    /// Those that failed.
    pub failures: u64,
    /// The time since then.
    pub ago: Duration,
}

/// A rule of the verdict.
pub struct Rule {
    /// Its name in JSON and in alerts.
    pub code: &'static str,
    /// How bad it is.
    pub state: VerdictState,
    /// When it speaks, for people.
    pub bound: &'static str,
    /// Why that is the bound, for people.
    pub why: &'static str,
    /// Says what it has to say.
    judge: fn(&Facts<'_>) -> Vec<String>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("code", &self.code).field("state", &self.state).finish_non_exhaustive()
    }
}

/// All rules, the gravest first.
pub const RULES: &[Rule] = &[
    Rule {
        code: "pool-down",
        state: VerdictState::Trouble,
        bound: "A pool has backends, and none of them is up; one at least is down or drained, not just new.",
        why: "Probes have confirmed it already, so there is nothing to wait for.",
        judge: pool_down,
    },
    Rule {
        code: "made-up",
        state: VerdictState::Trouble,
        bound: "In the last 10 s at least 1 % of the answers were made up (or left out), and three times the usual share, \
                or half of the way from there to all where more than a fifth is usual; and 10 more than 6 standard \
                deviations above the usual number. Or any at all while no backend of a pool is up.",
        why: "Backends may be silent on what they do not have, which is usual for them: only a rise tells. Usual is the last hour; \
              the standard deviations keep chance out where there are few queries.",
        judge: made_up,
    },
    Rule {
        code: "failing",
        state: VerdictState::Trouble,
        bound: "In the last 10 s, of at least 20 responses more than half were failures, or so many more than usual as the rule \
                `made-up` has it. Failures are SERVFAIL, and REFUSED of backends; with an extended error of DNSSEC or of a filter \
                (6 to 12, 15 to 17) they are none.",
        why: "A backend that replies is up by its probes, even if all that it sends are failures. REFUSED by `allow`, a rule or a \
              missing route is the will of the operator, as are limits.",
        judge: failing,
    },
    Rule {
        code: "overload",
        state: VerdictState::Trouble,
        bound: "In the last 10 s at least 10 queries, and 0.1 % of all, were dropped since more came than could be answered.",
        why: "Clients wait for what was dropped; a few at a burst are what a small buffer costs.",
        judge: overload,
    },
    Rule {
        code: "zone-expired",
        state: VerdictState::Trouble,
        bound: "A zone of another server has expired.",
        why: "It is answered with SERVFAIL from that moment on (RFC 1034 section 4.3.5).",
        judge: zone_expired,
    },
    Rule {
        code: "zone-absent",
        state: VerdictState::Trouble,
        bound: "A zone of another server has never come, for a minute.",
        why: "It is answered with SERVFAIL until it comes. A first transfer takes seconds.",
        judge: zone_absent,
    },
    Rule {
        code: "backend-down",
        state: VerdictState::Watch,
        bound: "A backend is down by its probes, and its pool has others that are up.",
        why: "Clients do not notice, as others answer; what was set by hand is known to whoever has done it.",
        judge: backend_down,
    },
    Rule {
        code: "flapping",
        state: VerdictState::Watch,
        bound: "The probes of a backend found it up or down four times by turns within 5 min, the last time less than 5 min ago.",
        why: "Between two changes it looks well, or merely down. A restart is two changes. An order by hand is none.",
        judge: flapping,
    },
    Rule {
        code: "backend-failing",
        state: VerdictState::Watch,
        bound: "In 10 s of the last 5 min more than half of at least 20 attempts at a backend that is up failed, and no 10 s with \
                20 attempts have been better since. Failures are those of `failing`, other errors such as FORMERR, and a closed port.",
        why: "Probes accept any reply. `fastest` and `least-load` ask it last, so that few attempts are left to judge it by.",
        judge: backend_failing,
    },
    Rule {
        code: "backend-slow",
        state: VerdictState::Watch,
        bound: "In five of the last eight seconds with replies the median of a backend was at least five times what is usual for it, \
                and 20 ms more. After an hour that is what is usual.",
        why: "One slow second is chance. Usual is the median of its last ten minutes, at least one of them, and stays what it was \
              while the backend is slow.",
        judge: backend_slow,
    },
    Rule {
        code: "backend-behind",
        state: VerdictState::Watch,
        bound: "A backend of replicas is behind: a zone of it is older than that of another for longer than max_lag.",
        why: "Clients get newer data from others, but transfers to it do not work, or take too long.",
        judge: backend_behind,
    },
    Rule {
        code: "tail-high",
        state: VerdictState::Watch,
        bound: "In the last minute at least 3 % of the answers of a pool, and 30 of them, took four times the usual p99 and 20 ms more.",
        why: "Of 100 answers one is above the p99 by its name: three are not chance. Usual is the median of the last hour's minutes, \
              five at least with 100 queries each.",
        judge: tail_high,
    },
    Rule {
        code: "hedges-denied",
        state: VerdictState::Watch,
        bound: "In the last 10 s at least 20 hedges of a pool were denied, and more than were sent.",
        why: "Hedges wanted twice as often as the budget pays for: its backends are slower than a hedge can help.",
        judge: hedges_denied,
    },
    Rule {
        code: "reload-failed",
        state: VerdictState::Watch,
        bound: "The last reload has failed.",
        why: "All goes on as before, but with another config than that on the disk, which the next start needs.",
        judge: reload_failed,
    },
    Rule {
        code: "source-stale",
        state: VerdictState::Watch,
        bound: "A source of members was not confirmed for 10 s, has never been, or is doubted.",
        why: "Members stay as they are, so clients notice nothing; but who comes or goes is not heard of.",
        judge: source_stale,
    },
    Rule {
        code: "divergence",
        state: VerdictState::Watch,
        bound: "Backends of a pool of replicas answer a question differently, and did so again after 1 s and at the last look.",
        why: "They are to have the same data: an update has not come everywhere, or somebody has changed one of them.",
        judge: divergence,
    },
    Rule {
        code: "tap-drops",
        state: VerdictState::Watch,
        bound: "In the last minute at least 10 records of a tap other than `slow`, and 1 % of its records, were dropped.",
        why: "A log with holes misleads its reader later; a few in a burst are what a bounded buffer costs. Of slow races \
              a worker keeps the slowest of each second and drops the others by design.",
        judge: tap_drops,
    },
    Rule {
        code: "process-crashed",
        state: VerdictState::Watch,
        bound: "In the last 10 min a standby took over from a server that had ended by itself, or made no progress.",
        why: "Clients notice nothing, but the next crash may be near, and its reason is in the log.",
        judge: process_crashed,
    },
];

/// The verdict on these facts, which has not begun before.
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

/// Whether a pool has nobody to ask.
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
            "{share} of the answers were made up in the last 10 s ({made_up} of {answered}), while no backend of pool {name} is up"
        )];
    }
    let Some(usual) = usual else { return Vec::new() };
    if !is_rise(now, usual) {
        return Vec::new();
    }
    let usual = percent(usual.share());
    vec![format!("{share} of the answers were made up in the last 10 s ({made_up} of {answered}); {usual} is usual")]
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
    vec![format!("{overload} queries were dropped in the last 10 s ({share}): more came than could be answered")]
}

fn zone_expired(facts: &Facts<'_>) -> Vec<String> {
    of_zones(facts.expired_zones, "expired: no primary has confirmed it for too long")
}

fn zone_absent(facts: &Facts<'_>) -> Vec<String> {
    of_zones(facts.absent_zones, "never come: no transfer of it has succeeded")
}

/// A sentence on these zones for each authority.
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
            [backend] => Some(format!("{} of pool {name} is down for {}", backend.name, time(backend.state_for))),
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

/// True if most of these attempts failed; nothing if they are too few.
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
                    "{} of pool {name} is behind for {time}: a zone of it is older than that of others",
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
            "{} of pool {} is slow for {for_}: its median is {now}, {usual} is usual",
            backend.name, pool.name
        ))
    };
    slow.filter_map(text).collect()
}

/// Whether a median of so many µs is that of a slow backend, if the other one is usual.
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

/// How many µs an answer takes at the least that is slow, if this p99 is usual.
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
        format!("the reload at {at} failed, edition {} is in force: {first}", facts.reload.edition)
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
            (SourceState::Doubted, _) => "is doubted: it lists fewer than half of those that are up".to_owned(),
            (SourceState::Stale, Some(age)) if *age >= MIN_STALE => format!("is stale for {}{why}", time(*age)),
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
        format!("{} is {} for {}", backend.name, backend.state.label(), time(backend.state_for))
    };
    listed(backends.iter().map(text), backends.len())
}

/// The first few of a list, and how many more there are.
fn listed(items: impl Iterator<Item = String>, count: usize) -> String {
    let first: Vec<_> = items.take(MAX_NAMED).collect();
    let more = count - first.len();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

/// A part as a percentage with as many digits as tell something.
fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Microseconds as milliseconds, with as many digits as tell something.
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

/// The table of rules as the docs have it.
#[cfg(test)]
fn rules_as_markdown() -> String {
    let mut text = "| code | state | when | why |\n|---|---|---|---|\n".to_owned();
    for Rule { code, state, bound, why, .. } in RULES {
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
/// So many times the usual share is a rise.
const MADE_UP_RISE: f64 = 3.0;
/// So many standard deviations above the usual number is no chance.
const MADE_UP_DEVIATIONS: f64 = 6.0;
/// And so many more.
const MIN_MADE_UP: f64 = 10.0;

/// Of fewer responses no share is judged.
const MIN_RESPONSES: u64 = 20;

/// Fewer drops are what a burst costs.
const MIN_OVERLOAD: u64 = 10;
/// One of so many queries.
const OVERLOAD_PART: u64 = 1_000;

/// Four changes in this time are flapping, which is shown for as long.
const FLAPPING: Duration = Duration::from_secs(300);

/// A backend that fails is shown for so long after it was last known to.
const FAILING_SHOWN: Duration = Duration::from_secs(300);

/// A slow backend takes so many times what is usual, and
const SLOW_FACTOR: u64 = 5;
/// so many µs more, which people notice.
const SLOW_MICROS: u64 = 20_000;

/// Answers slower than so many times the usual p99 make a high tail.
const TAIL_FACTOR: u64 = 4;
/// Three of so many.
const TAIL_PART: u64 = 100;
/// Fewer are chance.
const MIN_TAIL: u64 = 30;

/// Fewer dropped records are what a burst costs.
const MIN_TAP_DROPS: u64 = 10;

/// A source of members that was not confirmed for so long is told of: an etcd that is started anew is back by then.
const MIN_STALE: Duration = Duration::from_secs(10);
/// One of so many records.
const TAP_PART: u64 = 100;

/// A crash is shown for so long.
const CRASH_SHOWN: Duration = Duration::from_secs(600);

/// Fewer denied hedges are what a burst costs.
const MIN_DENIED: u64 = 20;

#[cfg(test)]
mod tests;
