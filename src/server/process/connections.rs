//! The tables of TCP connections: one for the forwarder and one per authority, shared by all workers.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Config;
use crate::limit::{Clients, ConnectionRules};
use crate::metrics::Limit;
use crate::net::from_clients::tcp::{ConnectionTable, MovedConnection};

pub(in crate::server) struct ConnectionTables {
    forwarder: Option<Arc<ConnectionTable>>,
    authorities: Vec<Arc<ConnectionTable>>,
    /// The most connections by the descriptor shares.
    all: usize,
}

impl ConnectionTables {
    pub(in crate::server) fn new(config: &Config, all: usize, now: Instant) -> Self {
        let mut tables = Self { forwarder: None, authorities: Vec::new(), all };
        tables.reload(config, now);
        tables
    }

    pub(in crate::server) fn reload(&mut self, config: &Config, now: Instant) {
        let asked = config.forwarder.iter().map(|forwarder| forwarder.connections.max);
        let asked = asked.chain(config.authorities.iter().map(|authority| authority.connections.max));
        let share = share(asked, self.all);
        let table = |known: Option<&Arc<ConnectionTable>>, name: &str, rules| {
            let rules = shared(rules, share);
            if let Some(known) = known {
                known.set_rules(rules);
                return Arc::clone(known);
            }
            let clients = Clients::new(rules.max.min(MAX_CLIENTS), rand::random());
            ConnectionTable::new(name, rules, Arc::new(clients), now)
        };
        let forwarder = config.forwarder.as_ref();
        self.forwarder = forwarder.map(|config| table(self.forwarder.as_ref(), "forwarder", config.connections));
        let authorities = config.authorities.iter();
        let authorities =
            authorities.map(|config| table(self.authority(&config.name), &config.name, config.connections));
        self.authorities = authorities.collect();
    }

    pub(in crate::server) fn forwarder(&self) -> Option<&Arc<ConnectionTable>> {
        self.forwarder.as_ref()
    }

    pub(in crate::server) fn authority(&self, name: &str) -> Option<&Arc<ConnectionTable>> {
        self.authorities.iter().find(|table| table.name() == name)
    }

    pub(super) fn add_counted(&self, counted: &[(String, Limit, u64)]) {
        for (section, limit, times) in counted {
            let mut tables = self.forwarder.iter().chain(&self.authorities);
            if let Some(table) = tables.find(|table| table.name() == section) {
                table.limited().add(*limit, *times);
            }
        }
    }

    pub(in crate::server) fn move_out(&self) -> UnboundedReceiver<MovedConnection> {
        // At most one per open connection.
        let (way_out, moved) = unbounded_channel();
        for (section, table) in self.sections() {
            table.move_out(section, way_out.clone());
        }
        moved
    }

    pub(in crate::server) fn adopt(&self, moved: MovedConnection) {
        if let Some((_, table)) = self.sections().find(|(section, _)| *section == moved.section) {
            table.adopt(moved);
        }
    }

    /// Returns all tables with their section names: an authority may have the name of the forwarder.
    fn sections(&self) -> impl Iterator<Item = (String, &Arc<ConnectionTable>)> {
        let forwarder = self.forwarder.iter().map(|table| ("forwarder".to_owned(), table));
        forwarder.chain(self.authorities.iter().map(|table| (format!("authorities.{}", table.name()), table)))
    }

    pub(in crate::server) fn limited(&self) -> Vec<(String, Limit, u64)> {
        let tables = self.forwarder.iter().chain(&self.authorities).map(|table| table.limited());
        tables.flat_map(|limited| limited.snapshot().collect::<Vec<_>>()).collect()
    }
}

/// Replaces a limit of 0 by the share.
fn shared(rules: ConnectionRules, share: usize) -> ConnectionRules {
    ConnectionRules { max: if rules.max == 0 { share } else { rules.max }, ..rules }
}

/// Returns the limit of each section without a configured one: at most half of the descriptors in `all`,
/// because idle clients must not use up the sockets to backends. Configured limits are subtracted first.
fn share(asked: impl Iterator<Item = usize> + Clone, all: usize) -> usize {
    let taken: usize = asked.clone().sum();
    let sections = asked.filter(|&max| max == 0).count();
    (all.saturating_sub(taken) / sections.max(1)).max(MIN_SHARE)
}

/// A section must be reachable by TCP, however few descriptors there are.
const MIN_SHARE: usize = 1;

/// Clients with individual connection counts: 512 KiB. With four times as many, the excess is accepted
/// uncounted.
const MAX_CLIENTS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_share_what_others_do_not_ask_for() {
        for (asked, all, each) in [
            (&[0][..], 512, 512),
            (&[0, 0, 0, 0], 512, 128),
            (&[0, 400, 0], 512, 56),
            (&[0, 4_000], 512, 1),
            (&[7], 512, 505),
            (&[0, 0, 0], 2, 1),
        ] {
            assert_eq!(share(asked.iter().copied(), all), each, "{all} for {asked:?}");
        }
    }
}
