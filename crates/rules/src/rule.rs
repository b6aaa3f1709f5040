//! A rule's conditions, and the query that they are compared with.

use std::net::IpAddr;
use std::sync::Arc;

use dns::{RecordType, Transport};
use limit::Prefix;

use super::{NamePattern, NameSet};

/// The largest number of rules in a table: a set of rules is then 16 words.
pub const MAX_RULES: usize = 1000;

/// The conditions of one rule. Each condition that is present must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The unique name.
    pub name: String,
    /// The addresses of clients; empty for all.
    pub clients: Vec<Prefix>,
    /// The listeners by their number in the forwarder's list; empty for all.
    pub listeners: Vec<usize>,
    /// The transports; empty for all.
    pub transports: Vec<Transport>,
    /// The names. With `names_file` they are one condition: a name in either of them matches.
    pub names: Vec<NamePattern>,
    /// The names of a file. Rules may share one set.
    pub names_file: Option<Arc<NameSet>>,
    /// The types of the question; empty for all. ANY is type 255 and no wildcard.
    pub types: Vec<RecordType>,
}

impl Rule {
    /// Returns true if the rule has a condition on the name.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty() || self.names_file.is_some()
    }
}

/// The query that a table looks up.
#[derive(Clone, Copy, Debug)]
pub struct RuleQuery<'a> {
    /// The address of the client. An IPv4-mapped IPv6 address counts as IPv4.
    pub client: IpAddr,
    /// The listener by its number. A query without a listener matches no rule with `listeners`.
    pub listener: Option<usize>,
    /// The transport from the client.
    pub transport: Transport,
    /// The name in wire form and lower case, root label included.
    pub qname: &'a [u8],
    /// The type of the question.
    pub qtype: RecordType,
}
