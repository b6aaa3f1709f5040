//! What a reply must bear besides address, port, ID and question, so that who sees neither query nor reply cannot forge one:
//! the question's name in the random case that it was asked in (DNS 0x20), and our cookie (RFC 7873).

use siphasher::sip::SipHasher24;

use crate::policy::query_slots::QuerySlot;
use crate::wire::{self, ClientCookie, Reply};

/// How an attempt was sent, and so what the reply to it must bear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof(u8);

impl Proof {
    /// Nothing.
    pub(super) const NONE: Self = Self(0);
    /// The name is spelled by chance, and a reply repeats that.
    pub(super) const CASE: Self = Self(1);
    /// It was sent once more, from another socket.
    pub(super) const AGAIN: Self = Self(1 << 1);
    /// It was sent once more because a reply lacked what it must bear. What comes now is taken without: two forgeries in a row
    /// would have to meet two sockets and two IDs, so it is the backend that does not give what is lacking.
    pub(super) const LENIENT: Self = Self(1 << 2);
    /// It bears cookies, and a reply repeats ours.
    pub(super) const COOKIE: Self = Self(1 << 3);
    /// It was sent once more because the server's cookie was refused, with the one that came with the refusal.
    pub(super) const FRESH: Self = Self(1 << 4);

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    /// The proof with these bits.
    pub(super) fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Both.
    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both have in common.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has all of the other.
    pub(super) fn has(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// Whether there is nothing in it.
    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// What makes proofs that nobody can foresee.
pub(super) struct Secret(SipHasher24);

impl Secret {
    /// Of a key that nobody else knows.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// How the name of a question with this hash is spelled in the message at this place (see [`wire::set_case`]). Made of what
    /// is known when the reply comes, so that nothing has to be kept.
    pub(super) fn case(&self, slot: QuerySlot, hash: u64) -> u64 {
        let mut seed = [0; 12];
        seed[..4].copy_from_slice(&slot.number().to_be_bytes());
        seed[4..].copy_from_slice(&hash.to_be_bytes());
        self.0.hash(&seed)
    }

    /// What a reply lacks of what it must bear: the reply at this place, to a question with this hash, and to a query with this
    /// cookie.
    pub(super) fn lacking(
        &self,
        proof: Proof,
        slot: QuerySlot,
        hash: u64,
        reply: &Reply<'_>,
        cookie: impl FnOnce() -> Option<ClientCookie>,
    ) -> Proof {
        let mut lacking = Proof::NONE;
        if proof.has(Proof::CASE) {
            let bits = self.case(slot, hash);
            if !reply.question().is_some_and(|question| wire::has_case(question.qname(), bits)) {
                lacking = lacking.with(Proof::CASE);
            }
        }
        // RFC 7873 section 5.3: a reply without the client's cookie, or with another, is discarded.
        if proof.has(Proof::COOKIE) {
            let returned = reply.cookie().map(|cookie| cookie.client);
            if returned.is_none() || returned != cookie() {
                lacking = lacking.with(Proof::COOKIE);
            }
        }
        lacking
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::query_slots::SocketId;

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
