//! The addresses that clients use, and their connections.
//!
//! Steps that can fail come first: sockets are bound and duplicated for all workers ([`AddressChanges`]).
//! Then the control thread sends commands without waiting; the workers synchronize by a [`Checkpoint`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use limit::{Clients, ConnectionRules, OwnAddresses};
use metrics::Limit;
use net::from_clients::service::ServedAddresses;
use net::from_clients::tcp::{ConnectionTable, MovedConnection};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::listeners::{Listeners, SectionName};
use crate::control::links::ServerLinks;
use crate::worker::{AddressChange, Checkpoint, QueuedQueryFate, WorkerCommand};

/// The addresses that clients use, and their connections.
pub(in crate::control) struct Listening {
    pub(in crate::control) listeners: Arc<Listeners>,
    /// Addresses of this server, from which no client sends.
    pub(in crate::control) own: Arc<OwnAddresses>,
    pub(in crate::control) connections: ConnectionTables,
}

impl Listening {
    /// Replaces the listeners, unless they are the same.
    pub(super) fn replace(&mut self, listeners: Arc<Listeners>, links: &ServerLinks) {
        if listeners.is_same(&self.listeners) {
            return;
        }
        self.listeners.all().filter(|address| !listeners.has(address)).for_each(|address| address.divert());
        self.own = Arc::new(OwnAddresses::new(listeners.for_queries()));
        self.listeners = listeners;
        links.workers.broadcast(|| WorkerCommand::SetOwnAddresses(Arc::clone(&self.own)));
    }

    /// Diverts datagrams from the ending sections, so that senders get an ICMP error.
    pub(in crate::control) fn divert(&self, rest: QueuedQueryFate, is_ending: impl Fn(&SectionName) -> bool) {
        if rest == QueuedQueryFate::Taken {
            let sections = self.listeners.sections.iter().filter(|section| is_ending(&section.name));
            sections.flat_map(|section| &section.addresses).for_each(|address| address.divert());
        }
    }
}

/// The changes of the addresses of sections, one for each worker. At the start it is empty, because a worker
/// that starts opens all addresses.
#[derive(Default)]
pub(in crate::control) struct AddressChanges(HashMap<SectionName, Vec<AddressChange>>);

impl AddressChanges {
    /// Compares the sections, and duplicates the sockets of new addresses for all workers. `owed_for` is how
    /// long a query may wait for its response.
    pub(super) fn between(earlier: &Listeners, listeners: &Listeners, owed_for: Duration) -> io::Result<Self> {
        let (count, mut changes) = (listeners.workers, HashMap::new());
        for name in earlier.sections.iter().chain(&listeners.sections).map(|section| &section.name) {
            let known = earlier.section(name).map(|section| &*section.addresses);
            let (old, new) = (known, listeners.section(name).map(|section| &*section.addresses));
            if old == new || changes.contains_key(name) {
                continue;
            }
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            let passed_on = old.iter().filter(|address| address.is_kept() || listeners.has(address));
            let passed_on: Vec<_> = passed_on.map(|address| address.listens_at()).collect();
            let served = ServedAddresses::new(new.iter().map(|address| address.listens_at()), passed_on);
            let checkpoint = Checkpoint::new();
            let change = |worker| {
                let new = new.iter().filter(|address| !old.contains(address));
                let new = new.map(|address| address.of_worker(worker, count)).collect::<io::Result<_>>()?;
                Ok(AddressChange { served: served.clone(), new, checkpoint: checkpoint.clone(), owed_for })
            };
            changes.insert(name.clone(), (0..count).map(change).collect::<io::Result<_>>()?);
        }
        Ok(Self(changes))
    }

    /// Returns the change of a section for each worker; empty if nothing changes.
    pub(in crate::control) fn take(&mut self, name: &SectionName) -> Vec<AddressChange> {
        self.0.remove(name).unwrap_or_default()
    }
}

/// The tables of TCP connections: one for each section, shared by all workers.
pub(in crate::control) struct ConnectionTables {
    tables: Vec<(SectionName, Arc<ConnectionTable>)>,
    /// The most connections by the descriptor shares.
    all: usize,
}

impl ConnectionTables {
    pub(in crate::control) fn new(config: &Config, all: usize, now: Instant) -> Self {
        let mut this = Self { tables: Vec::new(), all };
        this.reload(config, now);
        this
    }

    pub(in crate::control) fn reload(&mut self, config: &Config, now: Instant) {
        let forwarder = config.forwarder.iter().map(|config| (SectionName::Forwarder, config.connections));
        let authorities = config.authorities.iter();
        let authorities = authorities.map(|config| (SectionName::Authority(config.name.clone()), config.connections));
        let wanted: Vec<_> = forwarder.chain(authorities).collect();
        let share = share(wanted.iter().map(|(_, rules)| rules.max), self.all);
        let table = |(name, rules): (SectionName, ConnectionRules)| {
            let rules = ConnectionRules { max: if rules.max == 0 { share } else { rules.max }, ..rules };
            let table = match self.of(&name) {
                Some(known) => {
                    known.set_rules(rules);
                    Arc::clone(known)
                }
                None => {
                    let clients = Clients::new(rules.max.min(MAX_CLIENTS), rand::random());
                    ConnectionTable::new(name.label(), rules, Arc::new(clients), now)
                }
            };
            (name, table)
        };
        self.tables = wanted.into_iter().map(table).collect();
    }

    pub(in crate::control) fn of(&self, section: &SectionName) -> Option<&Arc<ConnectionTable>> {
        self.tables.iter().find(|(name, _)| name == section).map(|(_, table)| table)
    }

    pub(super) fn add_counted(&self, counted: &[(String, Limit, u64)]) {
        for (section, limit, times) in counted {
            if let Some((_, table)) = self.tables.iter().find(|(_, table)| table.name() == section) {
                table.limited().add(*limit, *times);
            }
        }
    }

    pub(super) fn move_out(&self) -> UnboundedReceiver<MovedConnection> {
        // At most one per open connection.
        let (way_out, moved) = unbounded_channel();
        self.tables.iter().for_each(|(name, table)| table.move_out(name.key(), way_out.clone()));
        moved
    }

    pub(super) fn adopt(&self, moved: MovedConnection) {
        if let Some((_, table)) = self.tables.iter().find(|(name, _)| name.key() == moved.section) {
            table.adopt(moved);
        }
    }

    pub(super) fn limited(&self) -> Vec<(String, Limit, u64)> {
        self.tables.iter().flat_map(|(_, table)| table.limited().snapshot().collect::<Vec<_>>()).collect()
    }
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
