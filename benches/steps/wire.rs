//! Reading and writing messages as they pass through a forwarder.

use std::hash::BuildHasher;
use std::hint::black_box;

use dns::{ClientForm, Query};
use foldhash::quality::FixedState;

use super::message::{UDP_SIZE, query, reply};

/// The name in all of these messages.
const NAME: &str = "www.Example.org.";

/// Takes a client's message as a query.
pub(super) fn read_query() -> impl FnMut() {
    let query = query(NAME);
    move || {
        black_box(dns::read_query(black_box(query)).is_ok());
    }
}

/// Finds the key that equal queries share, and its hash.
pub(super) fn fold_question() -> impl FnMut() {
    let (query, hasher) = (parsed(query(NAME)), FixedState::with_seed(1));
    let mut folded = Vec::with_capacity(512);
    move || {
        folded.clear();
        black_box(black_box(&query).fold_question(&mut folded));
        black_box(hasher.hash_one(&folded[..]));
    }
}

/// Writes the query for a backend.
pub(super) fn write_query() -> impl FnMut() {
    let query = parsed(query(NAME));
    let mut out = Vec::with_capacity(512);
    move || {
        black_box(dns::write_query(black_box(&query), UDP_SIZE, &mut out));
    }
}

/// Takes a backend's message as a reply.
pub(super) fn read_reply() -> impl FnMut() {
    let reply = reply(NAME);
    move || {
        black_box(dns::read_reply(black_box(reply)).is_ok());
    }
}

/// Writes the response for a client.
pub(super) fn write_response() -> impl FnMut() {
    let form = ClientForm::of(&parsed(query(NAME)));
    let reply = dns::read_reply(reply(NAME)).expect("hickory writes sound replies");
    let mut out = Vec::with_capacity(512);
    move || {
        dns::write_response(black_box(&reply), &form, UDP_SIZE, usize::from(UDP_SIZE), &mut out);
        black_box(out.len());
    }
}

/// A query that is known to be sound.
fn parsed(query: &[u8]) -> Query<'_> {
    dns::read_query(query).expect("hickory writes sound queries")
}
