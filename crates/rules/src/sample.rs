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
        self.has_client(query.client)
            && self.has_listener(query.listener, query.transport)
            && self.has_type(query.qtype)
            && self.has_name(&Name::from_wire(query.qname).expect("a name"))
    }

    pub(crate) fn has_client(&self, client: IpAddr) -> bool {
        let clients = &self.rule.clients;
        clients.is_empty() || clients.iter().any(|prefix| prefix.contains(client))
    }

    pub(crate) fn has_listener(&self, listener: Option<usize>, transport: Transport) -> bool {
        let Rule { listeners, transports, .. } = &self.rule;
        (listeners.is_empty() || listener.is_some_and(|listener| listeners.contains(&listener)))
            && (transports.is_empty() || transports.contains(&transport))
    }

    pub(crate) fn has_type(&self, qtype: RecordType) -> bool {
        self.rule.types.is_empty() || self.rule.types.contains(&qtype)
    }

    pub(crate) fn has_name(&self, qname: &Name) -> bool {
        let names = &self.rule.names;
        let is_named = |pattern: &NamePattern| match pattern {
            NamePattern::AtAndBelow(name) => qname.is_at_or_below(name),
            NamePattern::Below(name) => qname.is_at_or_below(name) && qname.folded() != name.folded(),
            NamePattern::Exactly(name) => qname.folded() == name.folded(),
        };
        let is_everything = names.is_empty() && self.file.is_none();
        is_everything || names.iter().chain(self.file.iter().flatten()).any(is_named)
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

/// Returns up to `max` items, and at least one if that is allowed.
pub(crate) fn some<T: Clone>(random: &mut StdRng, from: &[T], max: usize) -> Vec<T> {
    (0..random.random_range(max.min(1)..=max)).map(|_| from.choose(random).expect("some").clone()).collect()
}

fn patterns(texts: &[&str]) -> Vec<NamePattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

/// Makes up to `max` rules of a few prefixes and patterns, so that several together may match all of another.
/// Some rules share a names file.
pub(crate) fn rules(random: &mut StdRng, max: usize) -> Vec<SampleRule> {
    let mut choose = |from: &[&'static str], count: usize| from.sample(random, count).copied().collect::<Vec<_>>();
    let (prefixes, texts) = (choose(&PREFIXES, 4), choose(&PATTERNS, 6));
    let files: Vec<_> = (0..2)
        .map(|_| {
            let texts: Vec<_> = (0..random.random_range(0..4)).map(|_| *texts.choose(random).expect("some")).collect();
            let mut problems = LineProblems::default();
            let names = NameSet::parse(texts.join("\n").as_bytes(), &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            (patterns(&texts), Arc::new(names))
        })
        .collect();
    let mut rules: Vec<SampleRule> = Vec::new();
    for number in 0..random.random_range(0..=max) {
        let wanted: Vec<_> = (0..random.random_range(1..=3)).map(|_| random.random_range(0..5)).collect();
        let max = |condition: usize, max: usize| if wanted.contains(&condition) { max } else { 0 };
        let file = files.choose(random).filter(|_| wanted.contains(&4) && random.random_ratio(1, 2)).cloned();
        let rule = Rule {
            name: format!("rule {number}"),
            clients: some(random, &prefixes, max(0, 3)).iter().map(|text| text.parse().expect("a prefix")).collect(),
            listeners: some(random, &[0, 1, 2], max(1, 2)),
            transports: some(random, &Transport::ALL[..3], max(2, 2)),
            names: patterns(&some(random, &texts, max(4, 3))),
            names_file: file.as_ref().map(|(_, names)| names.clone()),
            types: some(random, &TYPES, max(3, 3)),
        };
        rules.push(SampleRule { rule, file: file.map(|(patterns, _)| patterns) });
    }
    rules
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
