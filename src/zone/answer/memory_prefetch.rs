//! Memory prefetch: what the look-ups of a batch of queries will read is fetched for all of them at once.
//!
//! In a large store a look-up is little but waiting, for a slot of the index and then for the node. One after another, a
//! processor waits for each; here it asks for the slots of all queries in one short loop, then for all nodes, and so waits
//! for many at the same time. Nothing is decided: what was fetched is in the processor's cache, and is looked up again.
//!
//! A million names in random order, 128 queries outstanding, one core: 4.90 s of CPU time for a million queries without,
//! 4.28 s with (median of 3, in turns).

use std::hint::black_box;

use crate::wire::{Question, RecordType};
use crate::zone::store::names::NameBuf;
use crate::zone::store::{Store, hash};
use crate::zone::zone_db::ZoneDb;

/// Fetches what answers to these messages will be made of, if the zone database is so large that this pays.
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

/// A look-up that will be made.
#[derive(Clone, Copy)]
struct Lookup<'c> {
    store: &'c Store,
    /// Of which name.
    hash: u32,
}

impl<'c> Lookup<'c> {
    /// The first look-up that a question leads to, if it is worth it.
    fn of(zone_db: &'c ZoneDb, question: Question<'_>) -> Option<Self> {
        let name = NameBuf::folded(question.qname());
        let zone = zone_db.zone_of(name.as_wire(), RecordType::A);
        let store = zone.map_or_else(|| zone_db.tables().store(), |zone| &zone.store);
        store.is_large().then(|| Self { store, hash: hash(name.as_wire()) })
    }
}

/// Fewer queries than this wait as long for each other as for the memory.
const MIN_MESSAGES: usize = 4;

/// More queries than a listener receives at once.
const MAX_MESSAGES: usize = 64;

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::wire::Name;
    use crate::zone::Miss;

    /// A zone database of a table of so many hosts.
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
