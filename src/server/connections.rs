//! The tables of TCP connections: one for the LS and one for each authority, shared by all workers.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Config;
use crate::limit::{Clients, ConnectionRules};
use crate::metrics::Limit;
use crate::net::tcp::{Connections, MovedConnection};

/// The tables of all sections that listen.
pub(super) struct Tables {
    /// That of the LS, if there is one.
    forwarder: Option<Arc<Connections>>,
    /// Those of the authorities, which are known by their names.
    authorities: Vec<Arc<Connections>>,
    /// How many connections there may be by the shares of descriptors.
    all: usize,
}

impl Tables {
    /// The tables of a config. `all` is how many connections there may be by the shares of descriptors.
    pub(super) fn new(config: &Config, all: usize, now: Instant) -> Self {
        let mut tables = Self { forwarder: None, authorities: Vec::new(), all };
        tables.reload(config, now);
        tables
    }

    /// Puts another config in force: sections that stay keep their tables.
    pub(super) fn reload(&mut self, config: &Config, now: Instant) {
        let asked = config.forwarder.iter().map(|forwarder| forwarder.connections.max);
        let asked = asked.chain(config.authorities.iter().map(|authority| authority.connections.max));
        let share = share(asked, self.all);
        let table = |known: Option<&Arc<Connections>>, name: &str, rules| {
            let rules = shared(rules, share);
            if let Some(known) = known {
                known.set_rules(rules);
                return Arc::clone(known);
            }
            let clients = Clients::new(rules.max.min(MAX_CLIENTS), rand::random());
            Connections::new(name, rules, Arc::new(clients), now)
        };
        let forwarder = config.forwarder.as_ref();
        self.forwarder = forwarder.map(|config| table(self.forwarder.as_ref(), "forwarder", config.connections));
        let authorities = config.authorities.iter();
        let authorities =
            authorities.map(|config| table(self.authority(&config.name), &config.name, config.connections));
        self.authorities = authorities.collect();
    }

    /// That of the LS, if there is one.
    pub(super) fn forwarder(&self) -> Option<&Arc<Connections>> {
        self.forwarder.as_ref()
    }

    /// That of the authority of this name.
    pub(super) fn authority(&self, name: &str) -> Option<&Arc<Connections>> {
        self.authorities.iter().find(|table| table.name() == name)
    }

    /// Adds how often another process has met a limit of a section.
    pub(super) fn add_limited(&self, section: &str, limit: Limit, times: u64) {
        let mut tables = self.forwarder.iter().chain(&self.authorities);
        if let Some(table) = tables.find(|table| table.name() == section) {
            table.limited().add(limit, times);
        }
    }

    /// Has all connections leave, each as it falls idle.
    pub(super) fn move_out(&self) -> UnboundedReceiver<MovedConnection> {
        // No more of them than connections are open.
        let (way_out, moved) = unbounded_channel();
        for (section, table) in self.sections() {
            table.move_out(section, way_out.clone());
        }
        moved
    }

    /// Takes a connection that another process has given up, if its section is there.
    pub(super) fn adopt(&self, moved: MovedConnection) {
        if let Some((_, table)) = self.sections().find(|(section, _)| *section == moved.section) {
            table.adopt(moved);
        }
    }

    /// All tables, by the sections of the config: an authority may be called as the LS is.
    fn sections(&self) -> impl Iterator<Item = (String, &Arc<Connections>)> {
        let forwarder = self.forwarder.iter().map(|table| ("forwarder".to_owned(), table));
        forwarder.chain(self.authorities.iter().map(|table| (format!("authorities.{}", table.name()), table)))
    }

    /// How often which limit of which section was met.
    pub(super) fn limited(&self) -> Vec<(String, Limit, u64)> {
        let tables = self.forwarder.iter().chain(&self.authorities).map(|table| table.limited());
        tables.flat_map(|limited| limited.snapshot().collect::<Vec<_>>()).collect()
    }
}

/// Rules with the number of connections in place of 0.
fn shared(rules: ConnectionRules, share: usize) -> ConnectionRules {
    ConnectionRules { max: if rules.max == 0 { share } else { rules.max }, ..rules }
}

/// What each section gets that does not say how many connections it may have, where there may be so many in `all`: at most
/// half of the descriptors, for clients that connect and say nothing must not cost us the sockets to the backends, or nobody
/// would get an answer. What some sections ask for is not there for the rest.
fn share(asked: impl Iterator<Item = usize> + Clone, all: usize) -> usize {
    let taken: usize = asked.clone().sum();
    let sections = asked.filter(|&max| max == 0).count();
    (all.saturating_sub(taken) / sections.max(1)).max(MIN_SHARE)
}

/// A section is reached by TCP, however few descriptors there are.
const MIN_SHARE: usize = 1;

/// Clients that are told apart at a time, so that their connections can be counted: 512 KiB. With four times as many the last ones
/// are let in uncounted.
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
