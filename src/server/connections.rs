//! The tables of TCP connections: one for the LS and one for each authority, shared by all workers.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::limit::ConnectionRules;
use crate::metrics::Limit;
use crate::net::tcp::Connections;

/// The tables of all sections that listen.
pub(super) struct Tables {
    /// That of the LS, if there is one.
    pub(super) forwarder: Option<Arc<Connections>>,
    /// Those of the authorities, by number.
    pub(super) authorities: Vec<Arc<Connections>>,
    /// How many connections a section may have that does not say so.
    share: usize,
}

impl Tables {
    /// The tables of a config, in a process that may have so many descriptors open.
    pub(super) fn new(config: &Config, descriptors: usize, now: Instant) -> Self {
        let asked = config.forwarder.iter().map(|forwarder| forwarder.connections.max);
        let asked = asked.chain(config.authorities.iter().map(|authority| authority.connections.max));
        let share = share(asked, descriptors);
        let table = |name: &str, rules| Connections::new(name, shared(rules, share), now);
        Self {
            forwarder: config.forwarder.as_ref().map(|forwarder| table("forwarder", forwarder.connections)),
            authorities: config.authorities.iter().map(|config| table(&config.name, config.connections)).collect(),
            share,
        }
    }

    /// Puts the rules of another config in force.
    pub(super) fn reload(&self, config: &Config) {
        if let (Some(table), Some(forwarder)) = (&self.forwarder, &config.forwarder) {
            table.set_rules(shared(forwarder.connections, self.share));
        }
        for table in &self.authorities {
            if let Some(authority) = config.authorities.iter().find(|authority| authority.name == table.name()) {
                table.set_rules(shared(authority.connections, self.share));
            }
        }
    }

    /// How often which limit of which section was met.
    pub(super) fn limited(&self) -> Vec<(String, Limit, u64)> {
        self.forwarder.iter().chain(&self.authorities).flat_map(|table| table.limited().snapshot()).collect()
    }
}

/// Rules with the number of connections in place of 0.
fn shared(rules: ConnectionRules, share: usize) -> ConnectionRules {
    ConnectionRules { max: if rules.max == 0 { share } else { rules.max }, ..rules }
}

/// What each section gets that does not say how many connections it may have.
///
/// Half of the descriptors are left for all else: clients that connect and say nothing must not cost us the sockets to the
/// backends, or nobody would get an answer. Of the other half, what some sections ask for is not there for the rest.
fn share(asked: impl Iterator<Item = usize> + Clone, descriptors: usize) -> usize {
    let taken: usize = asked.clone().sum();
    let sections = asked.filter(|&max| max == 0).count();
    ((descriptors / 2).saturating_sub(taken) / sections.max(1)).clamp(LEAST, MOST)
}

/// A section is reached by TCP, however few descriptors there are.
const LEAST: usize = 1;

/// Where descriptors have no limit.
const MOST: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_descriptors_to_others() {
        for (asked, descriptors, each) in [
            (&[0][..], usize::MAX, 1_000_000),
            (&[0], 1 << 20, 1 << 19),
            (&[0], 1024, 512),
            (&[0, 0, 0, 0], 1024, 128),
            (&[0, 400, 0], 1024, 56),
            (&[0, 4_000], 1024, 1),
            (&[7], 1024, 505),
            (&[0, 0, 0], 4, 1),
        ] {
            assert_eq!(share(asked.iter().copied(), descriptors), each, "{descriptors} for {asked:?}");
        }
    }
}
