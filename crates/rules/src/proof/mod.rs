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
use limit::AccessRules;

use super::sets;
use super::{Rule, RuleQuery, RuleTable};
use search::{Coverage, Search};

/// The queries that can come to the rules.
#[derive(Clone, Debug)]
pub struct QuerySpace {
    /// The clients that are admitted.
    pub access: AccessRules,
    /// The transports of each listener.
    pub listeners: Vec<Vec<Transport>>,
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
    let table = RuleTable::new(rules);
    let clients = choices::clients(&table, rules, space);
    let listeners = choices::listeners(&table, space);
    let types = choices::types(&table, rules);
    let (names, has_all_names) = choices::names(&table, rules);
    let dimensions = [clients.sets(), listeners.sets(), types.sets(), names.sets()];
    let verdict = |rule: usize| match Search::new(dimensions, rule).run() {
        Coverage::Witness([client, listener, rtype, name]) => {
            let (listener, transport) = *listeners.value(listener);
            let (client, qtype) = (*clients.value(client), *types.value(rtype));
            let qname = names.value(name).clone();
            RuleVerdict::Reached(Box::new(Witness { client, listener, transport, qname, qtype }))
        }
        Coverage::Covered(rules) if has_all_names => RuleVerdict::NeverReached(rules),
        Coverage::Covered(_) | Coverage::NotDecided => RuleVerdict::NotDecided,
    };
    Proof { verdicts: (0..rules.len()).map(verdict).collect(), overlaps: overlaps(dimensions, rules.len()) }
}

/// Returns the pairs of rules that have a common choice in each dimension.
fn overlaps(dimensions: [&[Box<[u64]>]; 4], rules: usize) -> Vec<(usize, usize)> {
    let words = rules.div_ceil(64);
    let mut neighbors = vec![vec![u64::MAX; words]; rules];
    for dimension in dimensions {
        let mut common = vec![vec![0; words]; rules];
        for set in dimension {
            sets::members(set).for_each(|rule| sets::unite(&mut common[rule], set));
        }
        neighbors.iter_mut().zip(&common).for_each(|(rules, common)| sets::intersect(rules, common));
    }
    let pairs = neighbors.iter().enumerate();
    pairs
        .flat_map(|(rule, others)| {
            sets::members(others).filter(move |&other| other > rule).map(move |other| (rule, other))
        })
        .collect()
}

#[cfg(test)]
mod tests;
