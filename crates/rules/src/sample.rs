//! Random rules and queries for tests, and a matcher that compares one condition after the other.

use std::net::IpAddr;
use std::sync::Arc;

use dns::{Name, RecordType, Transport};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{LineProblems, NamePattern, NameSet, Rule, RuleQuery};

/// A rule, and the names of its file.
#[derive(Clone, Debug)]
pub(crate) struct SampleRule {
    pub(crate) rule: Rule,
    pub(crate) file: Option<Vec<NamePattern>>,
}

impl SampleRule {
    /// Compares all conditions with a query.
    pub(crate) fn matches(&self, query: &RuleQuery<'_>) -> bool {
        let Rule { clients, listeners, transports, names, types, .. } = &self.rule;
        let qname = Name::from_wire(query.qname).expect("a name");
        let is_named = |pattern: &NamePattern| match pattern {
            NamePattern::AtAndBelow(name) => qname.is_at_or_below(name),
            NamePattern::Below(name) => qname.is_at_or_below(name) && qname.folded() != name.folded(),
            NamePattern::Exactly(name) => qname.folded() == name.folded(),
        };
        let has_names = !names.is_empty() || self.file.is_some();
        (clients.is_empty() || clients.iter().any(|prefix| prefix.contains(query.client)))
            && (listeners.is_empty() || query.listener.is_some_and(|listener| listeners.contains(&listener)))
            && (transports.is_empty() || transports.contains(&query.transport))
            && (types.is_empty() || types.contains(&query.qtype))
            && (!has_names || names.iter().chain(self.file.iter().flatten()).any(is_named))
    }
}

/// Returns the first rule that matches, after comparing all before it.
pub(crate) fn first_match(rules: &[SampleRule], query: &RuleQuery<'_>) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(query))
}

pub(crate) const PREFIXES: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/17",
    "10.1.128.0/17",
    "10.2.0.0/16",
    "10.1.2.3",
    "255.255.255.255",
    "::/0",
    "2001:db8::/32",
    "2001:db8::1",
    "::ffff:0:0/96",
];

/// Addresses in and around the prefixes.
pub(crate) const CLIENTS: [&str; 14] = [
    "0.0.0.0",
    "9.9.9.9",
    "10.0.0.1",
    "10.1.0.1",
    "10.1.2.3",
    "10.1.128.1",
    "10.2.0.1",
    "10.3.0.1",
    "255.255.255.255",
    "::1",
    "2001:db8::1",
    "2001:db8::2",
    "ffff::1",
    "::ffff:10.1.2.3",
];

pub(crate) const PATTERNS: [&str; 18] = [
    ".",
    "*.",
    "=.",
    "org",
    "*.org",
    "=org",
    "a.org",
    "*.a.org",
    "=a.org",
    "b.a.org",
    "*.b.a.org",
    "=b.a.org",
    "A.Org",
    "b.org",
    "*.b.org",
    "com",
    "=x.com",
    r"x\003org",
];

/// Names at, above, below and beside the patterns.
pub(crate) const NAMES: [&str; 16] = [
    ".",
    "org",
    "z.org",
    "a.org",
    "z.a.org",
    "b.a.org",
    "z.b.a.org",
    "z.z.b.a.org",
    "b.org",
    "z.b.org",
    "com",
    "x.com",
    "z.x.com",
    "net",
    r"x\003org",
    r"z.x\003org",
];

pub(crate) const TYPES: [RecordType; 4] = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::AXFR];

/// Listeners of queries; rules name the first three.
pub(crate) const LISTENERS: [Option<usize>; 5] = [None, Some(0), Some(1), Some(2), Some(7)];

/// Returns up to `max` items, often none.
fn some<T: Clone>(random: &mut StdRng, from: &[T], max: usize) -> Vec<T> {
    let count = if random.random_range(0..3) < 2 { 0 } else { random.random_range(1..=max) };
    (0..count).map(|_| from.choose(random).expect("some").clone()).collect()
}

fn patterns(texts: &[&str]) -> Vec<NamePattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

/// Makes up to `max` rules, some of which share a names file.
pub(crate) fn rules(random: &mut StdRng, max: usize) -> Vec<SampleRule> {
    let files: Vec<_> = (0..2)
        .map(|_| {
            let texts: Vec<_> =
                (0..random.random_range(0..4)).map(|_| *PATTERNS.choose(random).expect("some")).collect();
            let mut problems = LineProblems::default();
            let names = NameSet::parse(texts.join("\n").as_bytes(), &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            (patterns(&texts), Arc::new(names))
        })
        .collect();
    let count = random.random_range(0..=max);
    let rule = |number: usize| {
        let file = files.choose(random).filter(|_| random.random_ratio(1, 4)).cloned();
        let rule = Rule {
            name: format!("rule {number}"),
            clients: some(random, &PREFIXES, 3).iter().map(|text| text.parse().expect("a prefix")).collect(),
            listeners: some(random, &[0, 1, 2], 2),
            transports: some(random, &Transport::ALL[..3], 2),
            names: patterns(&some(random, &PATTERNS, 3)),
            names_file: file.as_ref().map(|(_, names)| names.clone()),
            types: some(random, &TYPES, 3),
        };
        SampleRule { rule, file: file.map(|(patterns, _)| patterns) }
    };
    (0..count).map(rule).collect()
}

/// Visits the queries of all combinations.
pub(crate) fn each_query(mut visit: impl FnMut(&RuleQuery<'_>)) {
    let clients = CLIENTS.map(|text| text.parse::<IpAddr>().expect("an address"));
    let names = NAMES.map(|text| text.parse::<Name>().expect("a name"));
    for client in clients {
        for listener in LISTENERS {
            for transport in Transport::ALL {
                for name in &names {
                    for qtype in TYPES.into_iter().chain([RecordType::MX]) {
                        visit(&RuleQuery { client, listener, transport, qname: name.as_wire(), qtype });
                    }
                }
            }
        }
    }
}
