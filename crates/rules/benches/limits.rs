//! Rules at their limits: `cargo bench -p rules --bench limits`.
//!
//! The figures are for a names file: the time to compile it, the memory that it adds, and the time of a
//! look-up; for a table of many rules: the time of a look-up, and of a proof.

#[path = "../../../benches/steps/rules.rs"]
mod rules_steps;

use std::hint::black_box;
use std::time::{Duration, Instant};

use dns::{Name, Transport};
use limit::AccessRules;
use rules::{LineProblems, ListenerSpace, MAX_RULES, NameSet, QuerySpace, Rule, RuleVerdict, prove};
use rules_steps::{NAMES, first_match, listed, names_file, names_text, rule};

fn main() {
    let text = names_text(NAMES);
    let resident_before = resident();
    let start = Instant::now();
    let names = NameSet::parse(text.as_bytes(), &mut LineProblems::default());
    let (took, added) = (start.elapsed(), resident().saturating_sub(resident_before));
    println!("names file of {NAMES} names, {} octets: {took:?}, {added} KiB more resident", text.len());
    for (label, prefix) in [("in the file", "www."), ("in no file", "www.not-")] {
        println!("look-up of a name {label}: {:?}", look_up(&names, prefix));
    }
    println!("first of {MAX_RULES} rules: {:?}", mean(first_match()));
    println!("rule with a names file, 1,000 names: {:?}", mean(names_file()));
    let rules: Vec<_> = (0..MAX_RULES).map(realistic).collect();
    prove_in_time("1,000 rules", &rules);
    let list = Rule { names_file: Some(names.into()), names: Vec::new(), ..rule(0, None) };
    prove_in_time("a names file", &[rule(1, None), list]);
}

/// Returns the mean time of a step.
fn mean(mut step: impl FnMut()) -> Duration {
    const STEPS: u32 = 1 << 20;
    let start = Instant::now();
    (0..STEPS).for_each(|_| step());
    start.elapsed() / STEPS
}

/// Returns the mean time of a look-up, in an order that no processor predicts.
fn look_up(names: &NameSet, prefix: &str) -> Duration {
    const LOOK_UPS: u32 = 1 << 16;
    let order = (0..LOOK_UPS as usize).map(|number| number.wrapping_mul(0x9E37_79B1) % NAMES);
    let names_of = |number| format!("{prefix}{}", listed(number)).parse::<Name>().expect("a name");
    let queries: Vec<_> = order.map(names_of).collect();
    let start = Instant::now();
    let found = queries.iter().filter(|name| black_box(names).contains(name.as_wire())).count();
    let took = start.elapsed();
    assert!(black_box(found) == 0 || prefix == "www.");
    took / LOOK_UPS
}

/// A rule as in the config of a company: sites with a few networks, exceptions, lists by type, and a last
/// rule for each site.
fn realistic(number: usize) -> Rule {
    let site = number / 10;
    let networks =
        [format!("10.{site}.0.0/16"), format!("2001:db8:{site:x}::/48"), format!("10.{site}.{}.0/24", number % 10)];
    let network = |at: usize| networks[at].parse().expect("a prefix");
    let plain =
        Rule { clients: vec![network(0), network(1)], transports: Vec::new(), types: Vec::new(), ..rule(number, None) };
    match number % 10 {
        0 => Rule { clients: Vec::new(), ..plain },
        1..=5 => Rule { clients: vec![network(2)], ..plain },
        6 => Rule { names: Vec::new(), types: rule(number, None).types, ..plain },
        7 => Rule { transports: vec![Transport::Tls, Transport::Https], ..plain },
        8 => Rule { listeners: vec![site % 4], ..plain },
        _ => Rule { names: Vec::new(), ..plain },
    }
}

fn prove_in_time(label: &str, rules: &[Rule]) {
    let listener = |transports: &[Transport]| ListenerSpace { transports: transports.to_vec(), clients: Vec::new() };
    let listeners = [&[Transport::Udp, Transport::Tcp][..], &[Transport::Tls], &[Transport::Https], &[Transport::Udp]];
    let listeners = listeners.map(listener).into();
    let space = QuerySpace { access: AccessRules::of(&AccessRules::LOCAL), listeners };
    let start = Instant::now();
    let proof = prove(rules, &space);
    let took = start.elapsed();
    let count = |is_one: fn(&RuleVerdict) -> bool| proof.verdicts.iter().filter(|verdict| is_one(verdict)).count();
    let reached = count(|verdict| matches!(verdict, RuleVerdict::Reached(_)));
    let open = count(|verdict| matches!(verdict, RuleVerdict::NotDecided));
    println!(
        "proof of {label}: {took:?}, {reached} reached, {open} not decided, {} pairs overlap",
        proof.overlaps.len()
    );
}

/// Returns the resident memory of this process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).expect("a number of KiB")
}
