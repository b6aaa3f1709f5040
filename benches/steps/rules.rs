//! The rules of a forwarder: the first rule of a query, and the look-up of a name in a names file.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use dns::{Name, RecordType, Transport};
use rules::{LineProblems, MAX_RULES, NamePattern, NameSet, Rule, RuleQuery, RuleTable};

/// Names in a names file.
pub(crate) const NAMES: usize = 1_000_000;

/// Finds the first rule of 1,000 for names of three labels. Of ten queries, five match no rule.
pub(crate) fn first_match() -> impl FnMut() + use<> {
    let rules: Vec<_> = (0..MAX_RULES).map(|number| rule(number, None)).collect();
    let name = |number: usize| {
        format!("www.host{}.example.", if number.is_multiple_of(2) { number * 97 % MAX_RULES } else { MAX_RULES })
    };
    look_up(&rules, name, |number| number.is_multiple_of(2).then_some(number * 97 % MAX_RULES))
}

/// Finds the rule with a names file of a million names. Of ten names, five are in the file.
pub(crate) fn names_file() -> impl FnMut() + use<> {
    let mut problems = LineProblems::default();
    let names = NameSet::parse(names_text(NAMES).as_bytes(), &mut problems);
    assert!(problems.is_empty() && names.len() == NAMES, "{names:?}: {problems:?}");
    let rule = Rule { clients: Vec::new(), names: Vec::new(), types: Vec::new(), ..rule(0, Some(Arc::new(names))) };
    let name = |number: usize| match number % 2 {
        0 => format!("www.{}.", listed(number * 98_765 % NAMES)),
        _ => format!("www.not-{}.", listed(number * 98_765 % NAMES)),
    };
    look_up(&[rule], name, |number| (number % 2 == 0).then_some(0))
}

/// Makes the text of a names file: two thirds are domains, the rest hosts below others.
pub(crate) fn names_text(count: usize) -> String {
    (0..count).map(|number| listed(number) + "\n").collect()
}

/// Returns the name with this number in the file.
pub(crate) fn listed(number: usize) -> String {
    const HOSTS: [&str; 6] = ["", "", "", "", "ads.", "metrics.eu."];
    const WORDS: [&str; 7] = ["shop", "track", "best-deals", "cdn", "click", "news-online", "promo"];
    const TOPS: [&str; 5] = ["com", "net", "example", "info", "co.uk"];
    let (host, word, top) = (HOSTS[number % 6], WORDS[number % 7], TOPS[number % 5]);
    format!("{host}{word}{number:x}.{top}")
}

/// Makes a rule for a network, a type, and the names of a host.
pub(crate) fn rule(number: usize, names_file: Option<Arc<NameSet>>) -> Rule {
    let pattern = |text: String| text.parse::<NamePattern>().expect("a pattern");
    Rule {
        name: format!("rule {number}"),
        clients: vec![
            format!("10.{}.0.0/16", number % 256).parse().expect("a prefix"),
            "192.0.2.0/24".parse().expect("a prefix"),
        ],
        listeners: Vec::new(),
        transports: vec![Transport::Udp, Transport::Tls],
        names: vec![pattern(format!("host{number}.example")), pattern(format!("*.zone{number}.example"))],
        names_file,
        types: vec![RecordType::A, RecordType::AAAA],
    }
}

/// Looks up queries in turn.
fn look_up(rules: &[Rule], name: fn(usize) -> String, found: fn(usize) -> Option<usize>) -> impl FnMut() + use<> {
    let table = RuleTable::new(rules);
    let client = IpAddr::from([192, 0, 2, 7]);
    let queries: Vec<_> =
        (0..1000).map(|number| (name(number).parse::<Name>().expect("a name"), found(number))).collect();
    let mut turn = 0;
    move || {
        let (name, expected) = &queries[turn % queries.len()];
        turn += 1;
        let query = RuleQuery {
            client: black_box(client),
            listener: Some(0),
            transport: Transport::Udp,
            qname: name.as_wire(),
            qtype: RecordType::A,
        };
        assert_eq!(table.first_match(&query), *expected);
    }
}
