//! The table against a matcher that compares each condition.

use dns::Name;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::sample::{self, each_query};
use super::*;

fn rule() -> Rule {
    Rule {
        name: "rule".to_owned(),
        clients: Vec::new(),
        listeners: Vec::new(),
        transports: Vec::new(),
        names: Vec::new(),
        names_file: None,
        types: Vec::new(),
    }
}

fn matches(rules: &[Rule], client: &str, name: &str) -> Option<usize> {
    let name = name.parse::<Name>().expect("a name").folded();
    RuleTable::new(rules).first_match(&RuleQuery {
        client: client.parse().expect("an address"),
        listener: Some(0),
        transport: Transport::Udp,
        qname: name.as_wire(),
        qtype: RecordType::A,
    })
}

#[test]
fn the_first_rule_that_matches_decides() {
    let names = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a pattern")).collect();
    let clients = vec!["192.168.7.0/24".parse().expect("a prefix")];
    let rules = [
        Rule { names: names(&["good.ads.example"]), ..rule() },
        Rule { names: names(&["ads.example"]), clients, ..rule() },
        Rule { names: names(&["*.Example"]), ..rule() },
    ];
    for (client, name, expected) in [
        ("192.168.7.1", "good.ads.example", Some(0)),
        ("192.168.7.1", "www.GOOD.ads.example", Some(0)),
        ("192.168.7.1", "bad.ads.example", Some(1)),
        ("::ffff:192.168.7.1", "ads.example", Some(1)),
        ("192.168.8.1", "ads.example", Some(2)),
        ("192.168.7.1", "badads.example", Some(2)),
        ("192.168.7.1", "example", None),
        ("192.168.7.1", ".", None),
    ] {
        assert_eq!(matches(&rules, client, name), expected, "{client} {name}");
    }
    assert_eq!(matches(&[], "192.0.2.1", "example"), None);
    assert_eq!(matches(&[rule()], "::1", "."), Some(0));
}

#[test]
fn a_table_has_as_many_rules_as_are_allowed() {
    let mut rules: Vec<_> = (0..MAX_RULES)
        .map(|number| Rule { names: vec![format!("host{number}.example").parse().expect("a pattern")], ..rule() })
        .collect();
    let table = RuleTable::new(&rules);
    for number in 0..MAX_RULES {
        assert_eq!(matches(&rules[number..=number], "::1", &format!("host{number}.example")), Some(0));
    }
    assert!(!table.is_empty());
    assert_eq!(matches(&rules, "::1", "host999.example"), Some(999));
    rules[7].names.push(".".parse().expect("a pattern"));
    assert_eq!(matches(&rules, "::1", "host999.example"), Some(7));
}

#[test]
fn the_table_agrees_with_comparing_each_condition() {
    for seed in 0..60 {
        let sample = sample::rules(&mut StdRng::seed_from_u64(seed), 10);
        let rules: Vec<_> = sample.iter().map(|sample| sample.rule.clone()).collect();
        let table = RuleTable::new(&rules);
        each_query(|query| {
            assert_eq!(
                table.first_match(query),
                sample::first_match(&sample, query),
                "seed {seed}: {query:?}\n{rules:#?}"
            );
        });
    }
}
