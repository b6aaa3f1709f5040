//! The part of `hedgerow check` about rules: a query that reaches each rule, and the rules that overlap.

use config::{ForwarderConfig, ListenConfig, PoolIndex, RuleAction};
use dns::Transport;
use engine::state::{carries, compile_rule};
use rules::{ListenerSpace, QuerySpace, RuleVerdict, Witness, prove};

use crate::load::Setup;

/// The report on the rules of a config: lines for stdout, and warnings.
#[derive(Debug, Default)]
pub(super) struct RuleReport {
    pub(super) lines: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Proves which rules of a config queries reach.
pub(super) fn report(setup: &Setup) -> RuleReport {
    let mut report = RuleReport::default();
    let Some(forwarder) = setup.config.forwarder.as_ref().filter(|forwarder| !forwarder.rules.is_empty()) else {
        return report;
    };
    let rules: Vec<_> = forwarder.rules.iter().map(|rule| compile_rule(rule, &setup.forwarder.names.sets)).collect();
    let listeners = forwarder.listen.iter().map(listener_space).collect();
    let proof = prove(&rules, &QuerySpace { access: forwarder.access.clone(), listeners });
    for (index, (rule, verdict)) in rules.iter().zip(&proof.verdicts).enumerate() {
        let name = &rule.name;
        match verdict {
            RuleVerdict::Reached(witness) => {
                report.lines.push(format!("rule {name:?}: reached by {}", query_text(witness, forwarder)));
            }
            RuleVerdict::NeverReached(earlier) => report.warnings.push(format!(
                "forwarder.rules[{index}]: rule {name:?} is never reached: {}",
                cover_text(earlier.iter().map(|earlier| &*rules[*earlier].name))
            )),
            RuleVerdict::NotDecided => report.lines.push(format!("rule {name:?}: not decided")),
        }
    }
    let differ = |(one, other): &&(usize, usize)| forwarder.rules[*one].then != forwarder.rules[*other].then;
    let pairs: Vec<_> = proof.overlaps.iter().filter(differ).collect();
    let note = |(one, other): &&(usize, usize)| {
        let [one, other] = [*one, *other].map(|rule| &forwarder.rules[rule]);
        let pools = |PoolIndex(pool): PoolIndex| setup.config.pools.get(pool).map_or("", |pool| &*pool.name);
        let [first, second] = [one, other].map(|rule| result_text(&rule.then, pools));
        format!("note: {:?} comes before {:?} for some queries: {first}, not {second}", one.name, other.name)
    };
    report.lines.extend(pairs.iter().take(MAX_NOTES).map(note));
    if pairs.len() > MAX_NOTES {
        report.lines.push(format!("note: and {} more pairs of rules overlap", pairs.len() - MAX_NOTES));
    }
    report
}

/// Returns the queries that can come to a listener. A proxy may name any client.
fn listener_space(listener: &ListenConfig) -> ListenerSpace {
    let carried = |transport: &Transport| carries(listener.address.scheme, *transport);
    let family = if listener.socket().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let clients = if listener.proxy_from.is_empty() { family.parse().ok().into_iter().collect() } else { Vec::new() };
    ListenerSpace { transports: Transport::ALL.into_iter().filter(carried).collect(), clients }
}

fn query_text(Witness { client, listener, transport, qname, qtype }: &Witness, forwarder: &ForwarderConfig) -> String {
    let listener = forwarder.listen.get(*listener).map(|listener| listener.address.to_string()).unwrap_or_default();
    format!("{qname} {qtype} from {client} by {} to {listener}", transport.label())
}

fn cover_text<'a>(earlier: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = earlier.map(|name| format!("{name:?}")).collect();
    match &names[..] {
        [] => "no query that the forwarder takes meets its conditions".to_owned(),
        [name] => format!("rule {name} matches all of it"),
        [shown @ .., _] if shown.len() >= MAX_COVER => {
            let (shown, more) = (&names[..MAX_COVER], names.len() - MAX_COVER);
            format!("rules {} and {more} more match all of it", shown.join(", "))
        }
        [names @ .., last] => format!("rules {} and {last} match all of it", names.join(", ")),
    }
}

fn result_text<'a>(action: &RuleAction, pools: impl Fn(PoolIndex) -> &'a str) -> String {
    match action {
        RuleAction::Nxdomain => "nxdomain".to_owned(),
        RuleAction::Nodata => "nodata".to_owned(),
        RuleAction::Refused => "refused".to_owned(),
        RuleAction::Drop => "drop".to_owned(),
        RuleAction::Routes => "routes".to_owned(),
        RuleAction::Pool(pool) => format!("pool:{}", pools(*pool)),
        RuleAction::Addresses(_) => "its addresses".to_owned(),
        RuleAction::Cname(target) => format!("cname {target}"),
    }
}

/// The most rules that are named as the cause.
const MAX_COVER: usize = 20;

/// The most pairs that are shown.
const MAX_NOTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_rules_are_cut() {
        let text = |count: usize| cover_text((0..count).map(|index| ["a", "b"][index % 2]));
        assert_eq!(text(1), "rule \"a\" matches all of it");
        assert_eq!(text(3), "rules \"a\", \"b\" and \"a\" match all of it");
        assert!(text(20).ends_with("\"a\" and \"b\" match all of it"), "{}", text(20));
        assert!(text(25).ends_with("\"a\", \"b\" and 5 more match all of it"), "{}", text(25));
    }
}
