//! The search for an equal query in flight.

use std::hash::BuildHasher;
use std::hint::black_box;

use dns::QuestionKey;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::message::query;

/// Queries in flight while another is looked up among them.
const IN_FLIGHT: usize = 1000;

/// Reads a query, makes its key and the hash of that, and looks once into the table.
pub(super) fn look_up(name: &str, is_in_flight: bool) -> impl FnMut() {
    let hasher = FixedState::with_seed(1);
    let mut table = HashTable::with_capacity(IN_FLIGHT);
    for number in 0..IN_FLIGHT {
        let key = key(query(&format!("host{number}.example.org.")));
        table.insert_unique(hasher.hash_one(key.as_octets()), key, |key| hasher.hash_one(key.as_octets()));
    }
    let query = query(name);
    move || {
        let key = key(black_box(query));
        let found = table.find(hasher.hash_one(key.as_octets()), |other| *other == key);
        assert_eq!(found.is_some(), is_in_flight, "equality is by folded name");
    }
}

/// Returns the key that equal queries share.
fn key(query: &[u8]) -> QuestionKey {
    QuestionKey::of(&dns::read_query(query).expect("hickory writes sound queries"))
}
