//! Memory prefetch: loads the memory for the lookups of a whole batch of queries at once.
//!
//! In a large store a lookup mostly waits for memory: first for an index slot, then for the node. The
//! prefetch requests the slots of all queries in one loop and then all nodes, so the waits overlap. It
//! decides nothing. The later lookup finds the data in the processor's cache.
//!
//! A million names in random order, 128 queries outstanding, one core: 4.90 s of CPU time for a million
//! queries without, 4.28 s with (median of 3, in turns).

use std::hint::black_box;

use dns::{Question, RecordType};

use crate::store::names::NameBuf;
use crate::store::{ZoneStore, hash};
use crate::zone_db::ZoneDb;

/// Prefetches the memory for the answers to these messages, if the zone database is large enough for a gain.
pub fn prefetch_memory<'m>(zone_db: &ZoneDb, messages: impl Iterator<Item = &'m [u8]> + Clone) {
    if !zone_db.is_large() || messages.clone().nth(MIN_MESSAGES - 1).is_none() {
        return;
    }
    let mut lookups: [Option<Lookup<'_>>; MAX_MESSAGES] = [None; MAX_MESSAGES];
    for (slot, message) in lookups.iter_mut().zip(messages) {
        *slot = Question::read(message).and_then(|question| Lookup::of(zone_db, question));
    }
    let nodes = lookups.map(|lookup| lookup.and_then(|Lookup { store, hash }| Some((store, store.guess(hash)?))));
    for (store, at) in nodes.into_iter().flatten() {
        black_box(store.touch(at));
    }
}

#[derive(Clone, Copy)]
struct Lookup<'c> {
    store: &'c ZoneStore,
    hash: u32,
}

impl<'c> Lookup<'c> {
    fn of(zone_db: &'c ZoneDb, question: Question<'_>) -> Option<Self> {
        let name = NameBuf::folded(question.qname());
        let zone = zone_db.zone_of(name.as_wire(), RecordType::A);
        let store = zone.map_or_else(|| zone_db.tables().store(), |zone| &zone.store);
        store.is_large().then(|| Self { store, hash: hash(name.as_wire()) })
    }
}

/// The smallest batch: fewer queries wait as long for each other as for the memory.
const MIN_MESSAGES: usize = 4;

/// The largest batch: more queries than a listener receives at once.
const MAX_MESSAGES: usize = 64;

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use dns::Name;

    use super::*;
    use crate::Miss;

    /// Builds a zone database of one table with this number of hosts.
    fn zone_db(hosts: u32) -> ZoneDb {
        let mut table = String::new();
        for host in 0..hosts {
            writeln!(table, "h{host}.example 192.0.2.1 A").expect("a String takes all");
        }
        ZoneDb::build(&[("table".to_owned(), table.into_bytes())], 300, Miss::Silent).expect("a sound table")
    }

    #[test]
    fn what_is_fetched_is_what_will_be_looked_up() {
        let zone_db = zone_db(60_000);
        assert!(zone_db.is_large());
        let query = |name: &[u8]| [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", name, b"\0\x01\0\x01"].concat();
        for host in (0..60_000).step_by(7_001) {
            let name: Name = format!("H{host}.example").parse().expect("a name");
            let message = query(name.as_wire());
            let Lookup { store, hash } = Question::read(&message)
                .and_then(|question| Lookup::of(&zone_db, question))
                .expect("the tables are large");
            let node = store.find(name.folded().as_wire()).expect("it is in the table");
            // None of these names shares its hash with another.
            assert_eq!(store.guess(hash), Some(node.at()), "{name}");
        }
        let messages =
            [query(b"\x02h1\x07example\0"), query(b"\0"), query(b"\x3Fcut short"), b"short".to_vec(), Vec::new()];
        prefetch_memory(&zone_db, messages.iter().cycle().take(200).map(Vec::as_slice));
    }

    #[test]
    fn small_zone_dbs_are_left_alone() {
        assert!(!zone_db(1000).is_large());
    }
}
