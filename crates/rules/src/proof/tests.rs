//! Proofs against an enumeration of all queries that can differ.

use limit::{Access, OnDenied};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::sample::{self, CLIENTS, NAMES, PREFIXES, SampleRule, TYPES};
use super::super::{NamePattern, NameSet};
use super::*;

/// All queries of a space that can differ for random rules.
struct Queries {
    /// Clients, with the listeners and transports that they can use.
    arrivals: Vec<(IpAddr, usize, Transport)>,
    types: Vec<RecordType>,
    names: Vec<Name>,
}

impl Queries {
    fn of(space: &QuerySpace) -> Self {
        let mut arrivals = Vec::new();
        for client in CLIENTS.map(|text| text.parse().expect("an address")) {
            let has_client = |of: &[Prefix]| of.is_empty() || of.iter().any(|prefix| prefix.contains(client));
            for (listener, ListenerSpace { transports, clients }) in space.listeners.iter().enumerate() {
                let is_possible = has_client(clients) && Access::new(&space.access).admits(client);
                let transports = transports.iter().filter(|_| is_possible);
                arrivals.extend(transports.map(|transport| (client, listener, *transport)));
            }
        }
        Self {
            arrivals,
            types: TYPES.into_iter().filter(|rtype| *rtype != RecordType::AXFR).chain([RecordType::MX]).collect(),
            names: NAMES.iter().map(|text| text.parse().expect("a name")).collect(),
        }
    }

    /// Returns the names that a rule matches, as bits, for each combination of arrival and type.
    fn matches(&self, sample: &SampleRule) -> Vec<u32> {
        let names = self.names.iter().enumerate();
        let names = names.map(|(number, name)| u32::from(sample.has_name(name)) << number).sum();
        let types: Vec<_> = self.types.iter().map(|rtype| if sample.has_type(*rtype) { names } else { 0 }).collect();
        let no_types = vec![0; types.len()];
        let is_matched = |(client, listener, transport): &(IpAddr, usize, Transport)| {
            sample.has_client(*client) && sample.has_listener(Some(*listener), *transport)
        };
        let arrivals = self.arrivals.iter().map(is_matched);
        arrivals.flat_map(|is_matched| if is_matched { &types } else { &no_types }).copied().collect()
    }
}

/// Returns true if the other rules match all queries of a rule.
fn is_covered<'a>(rule: &[u32], others: impl Iterator<Item = &'a Vec<u32>>) -> bool {
    let mut rest = rule.to_vec();
    for other in others {
        rest.iter_mut().zip(other).for_each(|(rest, other)| *rest &= !other);
    }
    rest.iter().all(|rest| *rest == 0)
}

fn random_space(random: &mut StdRng) -> QuerySpace {
    let prefixes = |texts: Vec<&str>| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<_>>();
    // In a small space, few rules match all of another one.
    let allow = match random.random_range(0..4) {
        0 => prefixes(AccessRules::EVERYBODY.into()),
        1 => prefixes(vec!["10.0.0.0/8"]),
        2 => prefixes(vec!["10.1.0.0/16", "10.2.0.0/16"]),
        _ => prefixes(sample::some(random, &PREFIXES, 4)),
    };
    let deny = random.random_range(0..=2);
    let deny = prefixes(sample::some(random, &PREFIXES, deny));
    let access = AccessRules { allow, deny, on_denied: OnDenied::Refused };
    let count = random.random_range(1..=4);
    let listener = |_| ListenerSpace {
        transports: sample::some(random, &Transport::ALL[..4], 3),
        clients: [prefixes(vec![]), prefixes(vec!["0.0.0.0/0"]), prefixes(vec!["::/0"]), prefixes(vec!["10.1.0.0/16"])]
            [random.random_range(0..4)]
        .clone(),
    };
    let listeners = (0..count).map(listener).collect();
    QuerySpace { access, listeners }
}

/// The oracle enumerates all classes of queries with a matcher of its own.
#[test]
fn no_verdict_on_ten_thousand_random_tables_is_wrong() {
    let (mut reached, mut covered, mut jointly) = (0, 0, 0);
    for seed in 0..10_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let (sample, space) = (sample::rules(&mut random, 10), random_space(&mut random));
        let rules: Vec<_> = sample.iter().map(|sample| sample.rule.clone()).collect();
        let (table, access, queries) = (RuleTable::new(&rules), Access::new(&space.access), Queries::of(&space));
        let matches: Vec<_> = sample.iter().map(|sample| queries.matches(sample)).collect();
        let proof = prove(&rules, &space);
        let scene = || format!("seed {seed}: {proof:#?}\n{space:#?}\n{rules:#?}");
        assert_eq!(proof.verdicts.len(), rules.len());
        for (rule, verdict) in proof.verdicts.iter().enumerate() {
            match verdict {
                RuleVerdict::Reached(witness) => {
                    reached += 1;
                    assert!(access.admits(witness.client), "{rule}, {}", scene());
                    let listener = &space.listeners[witness.listener];
                    let has_client = |prefix: &Prefix| prefix.contains(witness.client);
                    assert!(listener.transports.contains(&witness.transport), "{rule}, {}", scene());
                    assert!(
                        listener.clients.is_empty() || listener.clients.iter().any(has_client),
                        "{rule}, {}",
                        scene()
                    );
                    assert!(!is_transfer(witness.qtype), "{rule}, {}", scene());
                    assert_eq!(sample::first_match(&sample, &witness.query()), Some(rule), "{}", scene());
                    assert_eq!(table.first_match(&witness.query()), Some(rule), "{}", scene());
                    assert!(!is_covered(&matches[rule], matches[..rule].iter()), "{rule}, {}", scene());
                }
                RuleVerdict::NeverReached(by) => {
                    covered += 1;
                    jointly += usize::from(by.len() > 1);
                    assert!(by.is_sorted() && by.iter().all(|other| *other < rule), "{rule}, {}", scene());
                    assert!(is_covered(&matches[rule], by.iter().map(|other| &matches[*other])), "{rule}, {}", scene());
                    for left_out in by {
                        let fewer = by.iter().filter(|other| *other != left_out);
                        assert!(
                            !is_covered(&matches[rule], fewer.map(|other| &matches[*other])),
                            "{rule}, {}",
                            scene()
                        );
                    }
                }
                RuleVerdict::NotDecided => panic!("{rule}, {}", scene()),
            }
        }
        let overlap =
            |one: usize, other: usize| matches[one].iter().zip(&matches[other]).any(|(one, other)| one & other != 0);
        let pairs = (0..rules.len()).flat_map(|one| (one + 1..rules.len()).map(move |other| (one, other)));
        assert_eq!(
            proof.overlaps,
            pairs.filter(|(one, other)| overlap(*one, *other)).collect::<Vec<_>>(),
            "{}",
            scene()
        );
    }
    eprintln!("{reached} rules reached, {covered} never, {jointly} of these by several rules");
    assert!(reached > 10_000 && covered > 2_000 && jointly > 100);
}

fn is_transfer(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::AXFR | RecordType::IXFR)
}

fn space(allow: &[&str]) -> QuerySpace {
    QuerySpace {
        access: AccessRules::of(allow),
        listeners: vec![
            ListenerSpace { transports: vec![Transport::Udp, Transport::Tcp], clients: Vec::new() },
            ListenerSpace { transports: vec![Transport::Tls], clients: Vec::new() },
        ],
    }
}

/// A rule with names and clients.
fn rule(names: &[&str], clients: &[&str]) -> Rule {
    let names = names.iter().map(|text| text.parse::<NamePattern>().expect("a pattern")).collect();
    let clients = clients.iter().map(|text| text.parse().expect("a prefix")).collect();
    let (listeners, transports, types) = (Vec::new(), Vec::new(), Vec::new());
    Rule { name: "rule".to_owned(), clients, listeners, transports, names, names_file: None, types }
}

/// Returns for each rule `None`, or the rules that match all of it.
fn covering(rules: &[Rule], space: &QuerySpace) -> Vec<Option<Vec<usize>>> {
    let verdicts = prove(rules, space).verdicts.into_iter();
    let covering = verdicts.map(|verdict| match verdict {
        RuleVerdict::Reached(_) => None,
        RuleVerdict::NeverReached(by) => Some(by),
        RuleVerdict::NotDecided => panic!("not decided"),
    });
    covering.collect()
}

#[test]
fn a_rule_has_a_readable_witness() {
    let rules = [rule(&["ads.example"], &["192.168.7.0/24"]), Rule { types: vec![RecordType::ANY], ..rule(&[], &[]) }];
    let proof = prove(&rules, &space(&AccessRules::LOCAL));
    let witness = |client: &str, qname: &str, qtype: RecordType| {
        let (client, qname) = (client.parse().expect("an address"), qname.parse().expect("a name"));
        RuleVerdict::Reached(Box::new(Witness { client, listener: 0, transport: Transport::Udp, qname, qtype }))
    };
    let expected =
        [witness("192.168.7.1", "ads.example", RecordType::A), witness("10.0.0.1", "example", RecordType::ANY)];
    assert_eq!(proof.verdicts, expected);
    assert_eq!(proof.overlaps, [(0, 1)]);
}

#[test]
fn several_rules_together_match_all_of_another() {
    let halves =
        [rule(&[], &["10.1.0.0/17"]), rule(&["com"], &[]), rule(&[], &["10.1.128.0/17"]), rule(&[], &["10.1.0.0/16"])];
    assert_eq!(covering(&halves, &space(&["10.0.0.0/8"]))[3], Some(vec![0, 2]));
    let parts = [rule(&["a.org"], &["10.0.0.0/8"]), rule(&["a.org"], &["::/0"]), rule(&["=www.a.org"], &[])];
    assert_eq!(covering(&parts, &space(&["10.0.0.0/8", "::/0"]))[2], Some(vec![0, 1]));
    assert_eq!(covering(&parts, &space(&AccessRules::EVERYBODY))[2], None);
}

#[test]
fn a_rule_without_queries_is_matched_by_no_rule() {
    let transfers = Rule { types: vec![RecordType::AXFR, RecordType::IXFR], ..rule(&[], &[]) };
    let empty_file = Rule { names_file: Some(NameSet::default().into()), ..rule(&[], &[]) };
    let tls_by_udp = Rule { listeners: vec![1], transports: vec![Transport::Udp], ..rule(&[], &[]) };
    let rules =
        [transfers, empty_file, tls_by_udp, rule(&[], &["192.0.2.1"]), rule(&[], &["::ffff:0:0/96"]), rule(&[], &[])];
    let nothing = || Some(Vec::new());
    assert_eq!(
        covering(&rules, &space(&["10.0.0.0/8", "::/0"])),
        [nothing(), nothing(), nothing(), nothing(), nothing(), None]
    );
}

/// A name in text with so many octets in wire form.
fn long_name(octets: usize) -> String {
    let labels = (octets - 1) / 2;
    let first = if octets.is_multiple_of(2) { "ab." } else { "b." };
    first.to_owned() + &"a.".repeat(labels - 1)
}

#[test]
fn names_without_room_below_them_have_none() {
    let check = |octets: usize, expected: Option<Vec<usize>>| {
        let name = long_name(octets);
        assert_eq!(name.parse::<Name>().map(|name| name.as_wire().len()), Ok(octets));
        let rules = [rule(&[&format!("={name}")], &[]), rule(&[&name], &[])];
        assert_eq!(covering(&rules, &space(&AccessRules::EVERYBODY))[1], expected, "{octets}");
    };
    check(255, Some(vec![0]));
    check(254, Some(vec![0]));
    check(253, None);
    check(252, None);
}

#[test]
fn all_names_below_one_may_have_a_rule() {
    let name = long_name(253);
    let octets = (0..=u8::MAX).filter(|octet| !octet.is_ascii_uppercase());
    let below: Vec<_> = octets.map(|octet| format!("=\\{octet:03}.{name}")).collect();
    let below: Vec<_> = below.iter().map(String::as_str).collect();
    let all = space(&AccessRules::EVERYBODY);
    let last = rule(&[&format!("*.{name}")], &[]);
    assert_eq!(covering(&[rule(&below, &[]), last.clone()], &all)[1], Some(vec![0]));
    assert_eq!(covering(&[rule(&below[1..], &[]), last], &all)[1], None);
}

#[test]
fn entries_of_a_file_are_tried_where_patterns_differ() {
    let file = |text: &str| {
        let names = NameSet::parse(text.as_bytes(), &mut Default::default());
        Rule { names_file: Some(names.into()), ..rule(&[], &[]) }
    };
    let all = space(&AccessRules::EVERYBODY);
    let exceptions =
        [rule(&["=a.example", "b.example"], &[]), file("0.0.0.0 a.example x.b.example"), file("a.example")];
    assert_eq!(covering(&exceptions, &all), [None, Some(vec![0]), None]);
    let lists = [file("a.example\n*.b.example"), file("b.example"), file("=b.example\n=www.a.example\nx.b.example")];
    assert_eq!(covering(&lists, &all), [None, None, Some(vec![0, 1])]);
    assert_eq!(covering(&[file("."), rule(&[], &[])], &all), [None, Some(vec![0])]);
}

#[test]
fn reasons_that_hold_for_one_client_hold_for_all() {
    // Each host has a rule, and the last two rules but one match all names together.
    let host =
        |number: usize| rule(&[&format!("=h{number}.example")], &[&format!("10.0.{}.{}", number / 250, number % 250)]);
    let rules: Vec<_> = (0..900).map(host).chain([rule(&["example"], &[]), rule(&["org", "com"], &[])]).collect();
    let mut rules = [rules, vec![rule(&["a.example", "b.example", "www.com", "*.org"], &["10.0.0.0/22"])]].concat();
    let space = space(&["10.0.0.0/22"]);
    assert_eq!(covering(&rules, &space)[902], Some(vec![900, 901]));
    rules[902].names.push("net".parse().expect("a pattern"));
    assert_eq!(covering(&rules, &space)[902], None);
}

#[test]
fn a_proof_ends_at_its_limits() {
    // Each cell of a table of clients and names has a rule, and the last rule all cells.
    let network = |number: usize| format!("10.{number}.0.0/16");
    let cell = |number: usize| rule(&[&format!("h{}.example", number / 20)], &[&network(number % 20)]);
    let names: Vec<_> = (0..20).map(|number| format!("h{number}.example")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let networks: Vec<_> = (0..20).map(network).collect();
    let networks: Vec<_> = networks.iter().map(String::as_str).collect();
    let rules: Vec<_> = (0..400).map(cell).chain([rule(&names, &networks)]).collect();
    let last = |max_steps: usize, max_look_ups: usize| {
        prove_within(&rules, &space(&AccessRules::LOCAL), max_steps, max_look_ups).verdicts.pop()
    };
    assert_eq!(last(MAX_STEPS, MAX_LOOK_UPS), Some(RuleVerdict::NeverReached((0..400).collect())));
    assert_eq!(last(100, MAX_LOOK_UPS), Some(RuleVerdict::NotDecided));
    let file = NameSet::parse(names.join("\n").as_bytes(), &mut Default::default());
    let list = Rule { names_file: Some(file.into()), ..rule(&[], &[]) };
    let all = [list.clone(), list];
    let second = |look_ups: usize| prove_within(&all, &space(&AccessRules::LOCAL), MAX_STEPS, look_ups).verdicts.pop();
    assert_eq!(second(MAX_LOOK_UPS), Some(RuleVerdict::NeverReached(vec![0])));
    assert_eq!(second(10), Some(RuleVerdict::NotDecided));
}

#[test]
fn clients_come_to_listeners_of_their_own_address_family() {
    let only = |prefix: &str| ListenerSpace {
        transports: vec![Transport::Udp],
        clients: vec![prefix.parse().expect("a prefix")],
    };
    let listeners = vec![only("0.0.0.0/0"), only("::/0")];
    let space = QuerySpace { listeners, ..space(&AccessRules::LOCAL) };
    let by_listener = |clients: &[&str], listeners: Vec<usize>| Rule { listeners, ..rule(&[], clients) };
    let rules = [
        by_listener(&["fd00::/8"], vec![]),
        by_listener(&["fd00::/8"], vec![0]),
        by_listener(&["127.0.0.0/8"], vec![0]),
        by_listener(&[], vec![1]),
        by_listener(&["::/0", "127.0.0.1"], vec![]),
    ];
    assert_eq!(covering(&rules, &space), [None, Some(vec![]), None, None, Some(vec![2, 3])]);
    let verdicts = prove(&rules, &space).verdicts;
    let RuleVerdict::Reached(witness) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((witness.client, witness.listener), ("fd00::1".parse().expect("an address"), 1));
}
