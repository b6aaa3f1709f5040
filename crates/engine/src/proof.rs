//! The proof that a reply carries besides address, port, ID and question, against off-path forgery: the
//! random case of the name (DNS 0x20), and our cookie (RFC 7873).

use dns::{ClientCookie, Reply};
use siphasher::sip::SipHasher24;

use super::query_slots::QuerySlot;

/// The way in which an attempt was sent, and thus the proof that its reply must carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplyProof(u8);

impl ReplyProof {
    pub(super) const NONE: Self = Self(0);
    pub(super) const CASE: Self = Self(1);
    pub(super) const AGAIN: Self = Self(1 << 1);
    /// The query was sent again because a reply lacked proof. The next reply is accepted without: two
    /// forgeries in a row would have to hit two sockets and two IDs, so the backend gives no proof.
    pub(super) const LENIENT: Self = Self(1 << 2);
    pub(super) const COOKIE: Self = Self(1 << 3);
    pub(super) const FRESH: Self = Self(1 << 4);

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.and(other) == other
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

pub(super) struct Secret(SipHasher24);

impl Secret {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// Returns the case bits of the name for a query slot (see [`dns::set_case`]). They depend only on
    /// values known when the reply comes, so nothing is stored.
    pub(super) fn case(&self, slot: QuerySlot, hash: u64) -> u64 {
        let mut seed = [0; 12];
        seed[..4].copy_from_slice(&slot.number().to_be_bytes());
        seed[4..].copy_from_slice(&hash.to_be_bytes());
        self.0.hash(&seed)
    }

    /// Returns the proofs that the reply lacks, for the query in this slot with this hash and this cookie.
    pub(super) fn lacking(
        &self,
        proof: ReplyProof,
        slot: QuerySlot,
        hash: u64,
        reply: &Reply<'_>,
        cookie: impl FnOnce() -> Option<ClientCookie>,
    ) -> ReplyProof {
        let mut lacking = ReplyProof::NONE;
        if proof.has(ReplyProof::CASE) {
            let bits = self.case(slot, hash);
            if !reply.question().is_some_and(|question| dns::has_case(question.qname(), bits)) {
                lacking = lacking.with(ReplyProof::CASE);
            }
        }
        // RFC 7873 section 5.3: a reply without the client's cookie, or with another, is discarded.
        if proof.has(ReplyProof::COOKIE) {
            let returned = reply.cookie().map(|cookie| cookie.client);
            if returned.is_none() || returned != cookie() {
                lacking = lacking.with(ReplyProof::COOKIE);
            }
        }
        lacking
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::query_slots::SocketId;

    #[test]
    fn case_is_another_for_each_place_question_and_secret() {
        let slot = |socket, id| QuerySlot::new(SocketId(socket), id).expect("a socket that may be open");
        let (one, two) = (Secret::new(&[1; 16]), Secret::new(&[2; 16]));
        let cases = [
            one.case(slot(0, 1), 1),
            one.case(slot(0, 2), 1),
            one.case(slot(1, 1), 1),
            one.case(slot(0, 1), 2),
            two.case(slot(0, 1), 1),
        ];
        assert_eq!(one.case(slot(0, 1), 1), cases[0], "it is made anew when the reply comes");
        assert_eq!(HashSet::from(cases).len(), cases.len());
    }
}
