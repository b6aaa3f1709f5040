//! The proof of a table: for each rule a query that it is the first to match, or the earlier rules that match
//! all of its queries.
//!
//! ```text
//! rules, admitted clients, listeners --> choices: few values per dimension, one for each class of queries
//!                                          |
//! for each rule: choices that the rule matches, depth-first, one dimension after the other:
//!   no earlier rule is left that matches the choices so far  --> a witness
//!   an earlier rule matches whatever the other dimensions are --> back
//! ```

mod choices;
mod search;

use std::net::IpAddr;

use dns::{Name, RecordType, Transport};
use limit::{AccessRules, Prefix};

use super::sets;
use super::{Rule, RuleQuery, RuleTable};
use search::{Coverage, Dimensions, Search};

/// The queries that can come to the rules.
#[derive(Clone, Debug)]
pub struct QuerySpace {
    /// The clients that are admitted.
    pub access: AccessRules,
    /// The listeners.
    pub listeners: Vec<ListenerSpace>,
}

/// The queries that can come to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpace {
    /// The transports.
    pub transports: Vec<Transport>,
    /// The addresses that clients can have; empty for all. A socket for IPv4 has no clients with IPv6, unless
    /// a proxy names them.
    pub clients: Vec<Prefix>,
}

/// The result of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// One for each rule.
    pub verdicts: Vec<RuleVerdict>,
    /// The pairs of rules that match a common query, first the earlier one.
    pub overlaps: Vec<(usize, usize)>,
}

/// The reach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The rule is the first to match this query.
    Reached(Box<Witness>),
    /// No query reaches the rule: these earlier rules together match all of its queries. The list is empty if
    /// no query at all fulfills the conditions of the rule.
    NeverReached(Vec<usize>),
    /// The search has come to its limit of work.
    NotDecided,
}

/// A query that reaches a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The address of the client.
    pub client: IpAddr,
    /// The listener by its number.
    pub listener: usize,
    /// The transport.
    pub transport: Transport,
    /// The name, in lower case.
    pub qname: Name,
    /// The type.
    pub qtype: RecordType,
}

impl Witness {
    /// Returns the query for a look-up in the table.
    pub fn query(&self) -> RuleQuery<'_> {
        let Self { client, listener, transport, qname, qtype } = self;
        let (client, transport, qtype) = (*client, *transport, *qtype);
        RuleQuery { client, listener: Some(*listener), transport, qname: qname.as_wire(), qtype }
    }
}

/// Proves the reach of each rule for the queries of a space, and finds the rules that overlap.
pub fn prove(rules: &[Rule], space: &QuerySpace) -> Proof {
    prove_within(rules, space, MAX_STEPS, MAX_LOOK_UPS)
}

/// The most sets that the search for one rule compares, which takes some milliseconds. The same again goes
/// into a shorter list of rules.
const MAX_STEPS: usize = 200_000;

/// The most look-ups of names for one proof, which take some seconds. A proof with more names does not try
/// all of them, and decides no rule for which it finds no query.
const MAX_LOOK_UPS: usize = 20_000_000;

fn prove_within(rules: &[Rule], space: &QuerySpace, max_steps: usize, max_look_ups: usize) -> Proof {
    let table = RuleTable::new(rules);
    let types = choices::types(&table, rules);
    let (names, has_all_names) = choices::names(&table, rules, max_look_ups);
    // Clients and listeners can be combined where listeners have the same clients.
    let mut groups: Vec<&[Prefix]> = Vec::new();
    for ListenerSpace { clients, .. } in &space.listeners {
        if !groups.contains(&&**clients) {
            groups.push(clients);
        }
    }
    let group = |of: &&[Prefix]| (choices::clients(&table, rules, space, of), choices::listeners(&table, space, of));
    let groups: Vec<_> = groups.iter().map(group).collect();
    let parts: Vec<_> = groups
        .iter()
        .map(|(clients, listeners)| [clients.sets(), listeners.sets(), types.sets(), names.sets()])
        .collect();
    let verdict = |rule: usize| match Search::new(&parts, rule, max_steps).run() {
        Coverage::Witness(part, [client, listener, rtype, name]) => {
            let (clients, listeners) = &groups[part];
            let (listener, transport) = *listeners.value(listener);
            let (client, qtype) = (*clients.value(client), *types.value(rtype));
            let qname = names.value(name).clone();
            RuleVerdict::Reached(Box::new(Witness { client, listener, transport, qname, qtype }))
        }
        Coverage::Covered(rules) if has_all_names => RuleVerdict::NeverReached(rules),
        Coverage::Covered(_) | Coverage::NotDecided => RuleVerdict::NotDecided,
    };
    Proof { verdicts: (0..rules.len()).map(verdict).collect(), overlaps: overlaps(&parts, rules.len()) }
}

/// Returns the pairs of rules that have a common choice in each dimension of a part.
fn overlaps(parts: &[Dimensions<'_>], rules: usize) -> Vec<(usize, usize)> {
    let none = vec![vec![0; rules.div_ceil(64)]; rules];
    let mut neighbors = none.clone();
    for dimensions in parts {
        let mut in_part = vec![vec![u64::MAX; rules.div_ceil(64)]; rules];
        for dimension in dimensions {
            let mut common = none.clone();
            for set in *dimension {
                sets::members(set).for_each(|rule| sets::unite(&mut common[rule], set));
            }
            in_part.iter_mut().zip(&common).for_each(|(rules, common)| sets::intersect(rules, common));
        }
        neighbors.iter_mut().zip(&in_part).for_each(|(rules, in_part)| sets::unite(rules, in_part));
    }
    let mut pairs = Vec::new();
    for (rule, others) in neighbors.iter().enumerate() {
        pairs.extend(sets::members(others).filter(|other| *other > rule).map(|other| (rule, other)));
    }
    pairs
}

#[cfg(test)]
mod tests;
