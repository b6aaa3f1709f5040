//! The rules of the forwarder as workers look them up: the table of conditions, the results, and the
//! listeners that rules name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use config::{RuleAction, RuleConfig};
use dns::address::{ListenAddress, Scheme};
use dns::{RecordType, Transport};
use metrics::Counter;
use rules::{NameSet, Rule, RuleQuery, RuleTable};

/// The sets of names that rules take from files, by file.
pub type NameSets = HashMap<PathBuf, Arc<NameSet>>;

/// The rules of a forwarder; empty if there are none.
#[derive(Debug)]
pub struct ForwarderRules {
    table: RuleTable,
    rules: Vec<ForwarderRule>,
    listeners: Vec<BoundListener>,
}

/// A listener of the forwarder in the order of the config: the number that workers know, and the address as
/// bound.
#[derive(Clone, Copy, Debug)]
pub struct BoundListener {
    /// The number that its sockets have in all workers. `tls://` and `https://` may share one.
    pub number: u16,
    /// The address and scheme.
    pub address: ListenAddress,
}

/// The way of a query to the forwarder.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// By the datagram listener with this number.
    Datagram(u16),
    /// By a connection to this local address.
    Connection(Option<SocketAddr>),
    /// By the listener with this index in the config, or by none.
    Listener(Option<usize>),
}

/// One rule: its result and its counters.
#[derive(Debug)]
pub struct ForwarderRule {
    /// The unique name.
    pub name: String,
    /// The result for a matching query.
    pub action: RuleAction,
    /// The TTL of records that the rule makes, in seconds.
    pub ttl: u32,
    /// The records that the rule makes, owned by the name of the query.
    pub records: Box<[RuleRecord]>,
    matches: Arc<RuleMatches>,
}

/// A record that a rule makes.
#[derive(Debug)]
pub struct RuleRecord {
    /// The type.
    pub rtype: RecordType,
    /// The data in wire form.
    pub rdata: Box<[u8]>,
}

/// The number of queries for which a rule was the first that matched.
#[derive(Debug)]
struct RuleMatches {
    workers: Box<[WorkerMatches]>,
    /// Those of earlier processes.
    carried: Counter,
}

/// The counter of one worker, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct WorkerMatches(Counter);

impl ForwarderRules {
    /// Compiles the rules of a config. Those with a name of `earlier` keep their counters.
    pub(super) fn new(
        configs: &[RuleConfig],
        names: &NameSets,
        listeners: Vec<BoundListener>,
        earlier: Option<&Self>,
        workers: usize,
    ) -> Self {
        let compiled: Vec<_> = configs.iter().map(|rule| compile(rule, names)).collect();
        let known: HashMap<&str, &ForwarderRule> =
            earlier.into_iter().flat_map(|earlier| &earlier.rules).map(|rule| (&*rule.name, rule)).collect();
        let matches = |name: &str| match known.get(name) {
            Some(known) => Arc::clone(&known.matches),
            None => {
                let workers = (0..workers).map(|_| WorkerMatches::default()).collect();
                Arc::new(RuleMatches { workers, carried: Counter::default() })
            }
        };
        let rules = configs.iter().map(|RuleConfig { name, then, ttl, .. }| ForwarderRule {
            name: name.clone(),
            action: then.clone(),
            ttl: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
            records: records_of(then),
            matches: matches(name),
        });
        Self { table: RuleTable::new(&compiled), rules: rules.collect(), listeners }
    }

    /// Returns true if there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the index of the first rule that matches a query with this folded name in wire form.
    pub fn first_match(
        &self,
        client: IpAddr,
        (arrival, transport): (Arrival, Transport),
        (qname, qtype): (&[u8], RecordType),
    ) -> Option<usize> {
        let listener = self.listener(arrival, transport);
        self.table.first_match(&RuleQuery { client, listener, transport, qname, qtype })
    }

    /// Returns the rule with this index.
    pub fn get(&self, rule: usize) -> Option<&ForwarderRule> {
        self.rules.get(rule)
    }

    /// Returns the names of the rules with the number of queries for which each was the first match.
    pub fn matches(&self) -> impl Iterator<Item = (&str, u64)> {
        let sum = |matches: &RuleMatches| matches.workers.iter().map(|worker| worker.0.get()).sum::<u64>();
        self.rules
            .iter()
            .map(move |ForwarderRule { name, matches, .. }| (&**name, sum(matches) + matches.carried.get()))
    }

    /// Adds the counts of another process.
    pub fn add_counted(&self, counted: &[(String, u64)]) {
        for (name, count) in counted {
            if let Some(rule) = self.rules.iter().find(|rule| rule.name == *name) {
                rule.matches.carried.add(*count);
            }
        }
    }

    /// Returns the index of the listener that is bound to an address.
    pub fn listener_at(&self, address: ListenAddress) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.address == address)
    }

    /// Returns the index of the listener in the config. Several entries may share a number or an address.
    fn listener(&self, arrival: Arrival, transport: Transport) -> Option<usize> {
        let carries = |listener: &BoundListener| carries(listener.address.scheme, transport);
        match arrival {
            Arrival::Listener(listener) => listener,
            Arrival::Datagram(number) => {
                self.listeners.iter().position(|listener| listener.number == number && carries(listener))
            }
            Arrival::Connection(local) => {
                let local = local?;
                let is_here = |listener: &BoundListener| listener.address.socket == local && carries(listener);
                // A listener for one address takes precedence, as in the kernel.
                let is_any = |listener: &BoundListener| {
                    let socket = listener.address.socket;
                    let is_same_port = socket.port() == local.port() && socket.is_ipv4() == local.is_ipv4();
                    is_same_port && socket.ip().is_unspecified() && carries(listener)
                };
                self.listeners.iter().position(is_here).or_else(|| self.listeners.iter().position(is_any))
            }
        }
    }
}

impl ForwarderRule {
    /// Counts a query of this worker for which the rule is the first match.
    pub fn count(&self, worker: u16) {
        if let Some(counter) = self.matches.workers.get(usize::from(worker)) {
            counter.0.increment();
        }
    }
}

fn records_of(action: &RuleAction) -> Box<[RuleRecord]> {
    let record = |rtype, rdata: &[u8]| RuleRecord { rtype, rdata: rdata.into() };
    match action {
        RuleAction::Addresses(addresses) => {
            let record = |address: &IpAddr| match address {
                IpAddr::V4(address) => record(RecordType::A, &address.octets()),
                IpAddr::V6(address) => record(RecordType::AAAA, &address.octets()),
            };
            addresses.iter().map(record).collect()
        }
        RuleAction::Cname(target) => [record(RecordType::CNAME, target.as_wire())].into(),
        RuleAction::Nxdomain
        | RuleAction::Nodata
        | RuleAction::Refused
        | RuleAction::Drop
        | RuleAction::Routes
        | RuleAction::Pool(_) => [].into(),
    }
}

/// Returns the conditions of a rule. A missing names file matches nothing.
pub fn compile(rule: &RuleConfig, names: &NameSets) -> Rule {
    Rule {
        name: rule.name.clone(),
        clients: rule.clients.clone(),
        listeners: rule.listeners.clone(),
        transports: rule.transports.clone(),
        names: rule.names.clone(),
        names_file: rule.names_file.as_ref().map(|file| names.get(file).cloned().unwrap_or_default()),
        types: rule.types.clone(),
    }
}

/// Returns true if a listener with this scheme takes queries by this transport.
pub fn carries(scheme: Scheme, transport: Transport) -> bool {
    match scheme {
        Scheme::Plain => matches!(transport, Transport::Udp | Transport::Tcp),
        Scheme::Tcp => transport == Transport::Tcp,
        Scheme::Tls => transport == Transport::Tls,
        Scheme::Https => transport == Transport::Https,
        Scheme::Http => transport == Transport::Http,
        Scheme::Quic => transport == Transport::Quic,
    }
}

#[cfg(test)]
mod tests {
    use dns::address::ListenUrl;

    use super::*;

    fn rules(listeners: &[(u16, &str)]) -> ForwarderRules {
        let bound = |&(number, text): &(u16, &str)| {
            let address = text.parse::<ListenUrl>().expect("an address").address;
            BoundListener { number, address }
        };
        ForwarderRules::new(&[], &NameSets::new(), listeners.iter().map(bound).collect(), None, 1)
    }

    #[test]
    fn arrivals_belong_to_entries_of_listen() {
        let rules = rules(&[
            (3, "0.0.0.0:53"),
            (7, "192.0.2.1:53"),
            (1, "tls://192.0.2.1"),
            (1, "https://192.0.2.1:853"),
            (2, "quic://192.0.2.1"),
            (0, "tcp://[::]:53"),
        ]);
        let local = |text: &str| Arrival::Connection(Some(text.parse().expect("an address")));
        for (arrival, transport, expected) in [
            (Arrival::Datagram(3), Transport::Udp, Some(0)),
            (Arrival::Datagram(7), Transport::Udp, Some(1)),
            (Arrival::Datagram(9), Transport::Udp, None),
            (local("192.0.2.1:53"), Transport::Tcp, Some(1)),
            (local("192.0.2.2:53"), Transport::Tcp, Some(0)),
            (local("192.0.2.2:54"), Transport::Tcp, None),
            (local("192.0.2.1:853"), Transport::Tls, Some(2)),
            (local("192.0.2.1:853"), Transport::Https, Some(3)),
            (local("192.0.2.1:853"), Transport::Quic, Some(4)),
            (local("[2001:db8::1]:53"), Transport::Tcp, Some(5)),
            (Arrival::Connection(None), Transport::Tcp, None),
            (Arrival::Listener(Some(4)), Transport::Udp, Some(4)),
            (Arrival::Listener(None), Transport::Udp, None),
        ] {
            assert_eq!(rules.listener(arrival, transport), expected, "{arrival:?} {transport:?}");
        }
    }

    #[test]
    fn counts_stay_with_the_name_of_a_rule() {
        let config = |name: &str| RuleConfig {
            name: name.to_owned(),
            clients: Vec::new(),
            listeners: Vec::new(),
            transports: Vec::new(),
            names: Vec::new(),
            names_file: None,
            types: Vec::new(),
            then: RuleAction::Drop,
            ttl: RuleConfig::TTL,
        };
        let build = |names: &[&str], earlier: Option<&ForwarderRules>| {
            let configs: Vec<_> = names.iter().map(|name| config(name)).collect();
            ForwarderRules::new(&configs, &NameSets::new(), Vec::new(), earlier, 2)
        };
        let first = build(&["a", "b"], None);
        (0..2).for_each(|worker| first.get(1).expect("a rule").count(worker));
        first.add_counted(&[("b".to_owned(), 5), ("gone".to_owned(), 1)]);
        let later = build(&["b", "c"], Some(&first));
        assert_eq!(later.matches().collect::<Vec<_>>(), [("b", 7), ("c", 0)]);
    }
}
