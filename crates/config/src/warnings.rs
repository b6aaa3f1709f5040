//! Warnings: keys without effect, and pools that nothing uses. A config with warnings is valid.

use hedge::Dispatch;

use super::section::{ConfigNode, ConfigSection};
use super::{Config, PoolIndex, PoolRules, RuleAction, RuleConfig};

/// Warns of the keys of a pool's section that have no effect with its rules.
pub(super) fn check_pool(section: &ConfigSection<'_>, rules: &PoolRules) {
    let race = &rules.race;
    let warn = |key, message: &str| {
        if section.has(key) && !section.is_described() {
            section.spot_of(key).warn(message);
        }
    };
    match race.dispatch {
        Dispatch::Sequential => warn("hedge", "has no effect with dispatch = \"sequential\", remove it"),
        Dispatch::Hedge | Dispatch::Auto if race.hedge.budget == 0.0 => {
            let message = "budget = 0 allows no hedge, so dispatch = \"sequential\" does the same";
            warn(if section.has("hedge") { "hedge" } else { "dispatch" }, message);
        }
        Dispatch::Race | Dispatch::Hedge | Dispatch::Auto => {}
    }
    if !race.attempt_timeout.is_auto() && race.attempt_timeout.longest() > race.timeout {
        let timeout = humantime::format_duration(race.timeout);
        warn("attempt_timeout", &format!("has no effect above timeout, which is {timeout}: choose a shorter one"));
    }
}

/// Warns of the pools that nothing uses.
pub(super) fn check_use(config: &Config, pools: &[(&str, ConfigNode<'_>)]) {
    let Some(forwarder) = &config.forwarder else {
        return pools.iter().for_each(|(_, node)| node.key.warn("nothing uses it without a [forwarder], remove it"));
    };
    for (index, (name, node)) in pools.iter().enumerate() {
        let is_used_by = |rule: &RuleConfig| rule.then == RuleAction::Pool(PoolIndex(index));
        if !forwarder.routes.iter().any(|route| route.pool.0 == index) && !forwarder.rules.iter().any(is_used_by) {
            node.key.warn(format!("nothing uses it: add \"SUFFIX\" = \"{name}\" to [forwarder.routes], or remove it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, expected: &[&str]) {
        let warnings = Config::warnings(config, "c.toml");
        assert_eq!(warnings, expected, "{config}");
    }

    const FORWARDER: &str = "[forwarder]\n[pools.a]\nbackends = [\"192.0.2.1:53\"]\n";

    #[test]
    fn keys_without_effect_are_named() {
        let of_pool = |keys: &str, expected: &[&str]| check(&format!("{FORWARDER}{keys}"), expected);
        of_pool("dispatch = \"sequential\"", &[]);
        of_pool(
            "dispatch = \"sequential\"\n[pools.a.hedge]\ndelay = \"p99\"",
            &["c.toml:5:1: pools.a.hedge: has no effect with dispatch = \"sequential\", remove it"],
        );
        // The keys are for other pools.
        of_pool("dispatch = \"sequential\"\n[defaults.pool.hedge]\nbudget = 0.0", &[]);
        let no_hedge = "budget = 0 allows no hedge, so dispatch = \"sequential\" does the same";
        of_pool("dispatch = \"hedge\"\nhedge.budget = 0.0", &[&format!("c.toml:5:1: pools.a.hedge: {no_hedge}")]);
        of_pool("dispatch = \"race\"\nhedge.budget = 0.0", &[]);
        of_pool(
            "timeout = \"500ms\"\nattempt_timeout = \"1s\"",
            &[
                "c.toml:5:19: pools.a.attempt_timeout: has no effect above timeout, which is 500ms: choose a shorter one",
            ],
        );
        of_pool("timeout = \"500ms\"", &[]);
        of_pool("timeout = \"500ms\"\nattempt_timeout = \"auto\"", &[]);
    }

    #[test]
    fn pools_that_nothing_uses_are_named() {
        let other = "[pools.b]\nbackends = [\"192.0.2.2:53\"]\n";
        let routes = |pool: &str| format!("{FORWARDER}{other}[forwarder.routes]\n\".\" = \"a\"\nb = \"{pool}\"\n");
        check(&routes("b"), &[]);
        let unused = "c.toml:4:8: pools.b: nothing uses it: add \"SUFFIX\" = \"b\" to [forwarder.routes], or remove it";
        check(&routes("a"), &[unused]);
        let rule = "[[forwarder.rules]]\nname = \"r\"\nthen = \"pool:b\"\n";
        check(&format!("{}{rule}", routes("a")), &[]);
        let authority = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n";
        check(
            &format!("{other}{authority}"),
            &["c.toml:1:8: pools.b: nothing uses it without a [forwarder], remove it"],
        );
    }
}
