//! A policy from a description such as `hedge delay=p95 budget=5%`. Omitted settings come from the pool.

use config::{PoolRules, limits, nearest, words};
use hedge::balance::Balance;
use hedge::{Dispatch, Hedge};

use super::settings::{Mistake, SettingEntries};
use super::values::{share, word};
use crate::cli::number;

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) rules: PoolRules,
    pub(super) is_first_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PolicyHead {
    Dispatch(Dispatch),
    First,
    /// The unchanged rules of the pool.
    Present,
}

impl Policy {
    /// Parses a description, which is the policy's name unless it sets one. `base`: the rules of the pool, if
    /// there is one.
    pub(super) fn read(mut settings: SettingEntries, base: Option<&PoolRules>) -> Result<Self, Mistake> {
        let name = settings.take("name", word)?;
        let name = name.unwrap_or_else(|| settings.to_words(HEAD));
        let place = settings.place().to_owned();
        let Some(head) = settings.take(HEAD, head)? else {
            return Err(Mistake::at(&place, format_args!("expected a policy, one of {}", heads().join(", "))));
        };
        let mut rules = base.cloned().unwrap_or_default();
        match head {
            PolicyHead::Dispatch(dispatch) => rules.race = rules.race.with_dispatch(dispatch),
            PolicyHead::First => (rules.race.dispatch, rules.race.balance) = (Dispatch::Sequential, Balance::Ordered),
            PolicyHead::Present if base.is_none() => {
                return Err(Mistake::at(&place, "there is no pool yet, name its config with --from"));
            }
            PolicyHead::Present => {}
        }
        match rules.race.dispatch {
            Dispatch::Race => {
                set(&mut rules.race.fanout, settings.take("fanout", |text| number(text, limits::FANOUT))?)
            }
            Dispatch::Hedge => rules.race.hedge = read_hedge(&mut settings, rules.race.hedge)?,
            Dispatch::Auto => rules.race.hedge = read_auto(&mut settings, rules.race.hedge)?,
            Dispatch::Sequential => {}
        }
        if head != PolicyHead::First {
            set(&mut rules.race.balance, settings.take("balance", words::word)?);
        }
        set(&mut rules.accept, settings.take("accept", words::word)?);
        set(&mut rules.race.timeout, settings.take("timeout", |text| limits::TIMEOUT.parse(text))?);
        set(&mut rules.race.attempt_timeout, settings.take("attempt_timeout", words::attempt_timeout)?);
        set(&mut rules.race.grace, settings.take("grace", words::grace)?);
        set(&mut rules.min_up, settings.take("min_up", |text| number(text, limits::MIN_UP))?);
        set(&mut rules.race.tries, settings.take("tries", |text| number(text, limits::TRIES))?);
        set(&mut rules.health.interval, settings.take("interval", |text| limits::PROBE_INTERVAL.parse(text))?);
        settings.finish()?;
        Ok(Self { name, rules, is_first_only: head == PolicyHead::First })
    }

    pub(super) fn of_words(text: &str, base: Option<&PoolRules>) -> Result<Self, Mistake> {
        Self::read(SettingEntries::of_words(format!("--policy {text:?}"), text, Some(HEAD))?, base)
    }
}

pub(super) const HEAD: &str = "dispatch";

fn read_auto(settings: &mut SettingEntries, mut hedge: Hedge) -> Result<Hedge, Mistake> {
    set(&mut hedge.target, settings.take("target", words::hedge_target)?);
    set(&mut hedge.budget, settings.take("budget", share)?);
    set(&mut hedge.max, settings.take("max", |text| number(text, limits::HEDGES))?);
    Ok(hedge)
}

fn read_hedge(settings: &mut SettingEntries, mut hedge: Hedge) -> Result<Hedge, Mistake> {
    set(&mut hedge.delay, settings.take("delay", words::hedge_delay)?);
    set(&mut hedge.budget, settings.take("budget", share)?);
    set(&mut hedge.max, settings.take("max", |text| number(text, limits::HEDGES))?);
    set(&mut hedge.min_delay, settings.take("min_delay", |text| limits::HEDGE_CLAMP.parse(text))?);
    set(&mut hedge.max_delay, settings.take("max_delay", |text| limits::HEDGE_CLAMP.parse(text))?);
    if hedge.min_delay > hedge.max_delay {
        let (min, max) = (humantime::format_duration(hedge.min_delay), humantime::format_duration(hedge.max_delay));
        return Err(Mistake::at(settings.place(), format_args!("min_delay {min} is above max_delay {max}")));
    }
    Ok(hedge)
}

fn head(text: &str) -> Result<PolicyHead, String> {
    match text {
        "first" => return Ok(PolicyHead::First),
        "present" => return Ok(PolicyHead::Present),
        _ => {}
    }
    words::word(text).map(PolicyHead::Dispatch).map_err(|_| {
        let guess = nearest(text, heads()).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
        format!("expected one of {}{guess}", heads().join(", "))
    })
}

fn heads() -> [&'static str; 6] {
    ["race", "hedge", "sequential", "auto", "first", "present"]
}

fn set<T>(rule: &mut T, said: Option<T>) {
    if let Some(value) = said {
        *rule = value;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::Accept;
    use hedge::{HedgeDelay, RaceRules};

    use super::*;

    fn parse(text: &str) -> Result<Policy, String> {
        Policy::of_words(text, None).map_err(|error| error.to_string())
    }

    #[test]
    fn policies_are_read() {
        let race = parse("race").expect("a policy");
        assert_eq!((race.name.as_str(), race.rules), ("race", PoolRules::default()));
        let hedge = parse("hedge delay=p90 budget=2% max=2 max_delay=1s tries=2 accept=any").expect("a policy");
        assert_eq!(hedge.rules.race.dispatch, Dispatch::Hedge);
        let Hedge { delay, budget, max, max_delay, .. } = hedge.rules.race.hedge;
        assert_eq!((delay, budget, max), (HedgeDelay::Percentile(0.9), 0.02, 2));
        assert_eq!((max_delay, hedge.rules.race.tries), (Duration::from_secs(1), 2));
        assert_eq!(hedge.rules.accept, Accept::Any);
        let first = parse("first name=one").expect("a policy");
        assert_eq!(
            (first.name.as_str(), first.is_first_only, first.rules.race.balance),
            ("one", true, Balance::Ordered)
        );
        assert_eq!(parse("race fanout=2").expect("a policy").rules.race.fanout, 2);
        assert_eq!(parse("race fanout=0").expect("a policy").rules.race.fanout, 0);
    }

    #[test]
    fn what_is_not_said_is_as_the_pool_has_it() {
        let base = PoolRules {
            race: RaceRules { timeout: Duration::from_secs(9), dispatch: Dispatch::Hedge, ..RaceRules::default() },
            ..PoolRules::default()
        };
        let policy = Policy::of_words("present budget=1%", Some(&base)).expect("a policy");
        assert_eq!((policy.rules.race.timeout, policy.rules.race.dispatch), (base.race.timeout, Dispatch::Hedge));
        assert_eq!(policy.rules.race.hedge.budget, 0.01);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, reported) in [
            ("", "--policy \"\": expected a policy, one of race, hedge, sequential, auto, first, present"),
            ("hegde", "did you mean \"hedge\"?"),
            ("hedge delay=p100", "delay: invalid value \"p100\": expected auto or a percentile"),
            ("hedge budget=2", "budget: invalid value \"2\": expected a share from 0% to 100%"),
            ("hedge dely=p90", "dely: unknown key, did you mean \"delay\"?"),
            ("hedge fast", "expected KEY=VALUE, not \"fast\""),
            ("hedge min_delay=2s", "min_delay 2s is above max_delay 250ms"),
            ("race delay=p90", "delay: unknown key, expected one of name, dispatch, fanout, balance"),
            ("first balance=random", "balance: unknown key, expected one of name, dispatch, accept"),
            ("race fanout=9", "fanout: invalid value \"9\": expected a number from 0 to 8"),
            ("present", "there is no pool yet, name its config with --from"),
            ("race name=", "name: invalid value \"\": expected a word"),
            ("sequential tries=0", "tries: invalid value \"0\": expected a number from 1 to 8"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reported), "{text}: {error}");
        }
    }
}
