//! One entry as it lies in a ring: a head of fixed length, and behind it the reply in the form in which it is kept.
//!
//! The reply begins with its question, folded, which is the name part of the key. So nothing is stored twice.

use std::time::Duration;

use crate::wire::QuestionFlags;

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing any more: it waits for the tail of its ring.
    #[default]
    Dead,
    /// A reply with data, or one that says that there is none.
    Answer,
    /// A reply that says that something failed.
    Failure,
    /// No reply came; only the question is there.
    Silence,
}

/// The head of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Units from this entry to the next.
    pub(super) extent: u16,
    pub(super) state: State,
    /// How often it was hit, less the times it was the oldest of its ring and stayed, up to [`Head::MAX_FREQUENCY`].
    pub(super) frequency: u8,
    /// The tag of its key.
    pub(super) tag: u32,
    /// The pool that said it.
    pub(super) pool: u64,
    /// When it was kept, in milliseconds of the cache's own time.
    pub(super) kept_at: u64,
    /// Until when no other race is to be run for it, or no other refresh; the same time.
    pub(super) no_refresh_before: u64,
    /// For how many seconds it is fresh.
    pub(super) lifetime: u32,
    /// Octets of the reply.
    pub(super) len: u16,
    /// Hits since it was kept, up to 255.
    pub(super) hits: u8,
    /// CD and DO, as a question's key has them.
    pub(super) flags: QuestionFlags,
    /// Whether it is quiet because a race for it failed, not because a refresh is out.
    pub(super) has_failed: bool,
}

impl Head {
    /// Octets of a head.
    pub(super) const LEN: usize = 41;

    /// The highest frequency of an entry: S3-FIFO's two bits.
    pub(super) const MAX_FREQUENCY: u8 = 3;

    /// Octets of a head and a reply of this length, without padding.
    pub(super) fn entry_len(reply_len: usize) -> usize {
        Self::LEN + reply_len
    }

    /// Reads the head of the extent that these octets begin with. Fillers may be shorter than a head.
    pub(super) fn read(octets: &[u8]) -> Self {
        let Some(&head) = octets.first_chunk::<{ Self::LEN }>() else {
            let extent = octets.first_chunk().map_or(1, |octets| u16::from_le_bytes(*octets));
            return Self { extent, ..Self::default() };
        };
        let [s0, s1, state, frequency, t0, t1, t2, t3, rest @ ..] = head;
        let [p0, p1, p2, p3, p4, p5, p6, p7, rest @ ..] = rest;
        let [k0, k1, k2, k3, k4, k5, k6, k7, rest @ ..] = rest;
        let [q0, q1, q2, q3, q4, q5, q6, q7, rest @ ..] = rest;
        let [l0, l1, l2, l3, n0, n1, hits, flags, has_failed] = rest;
        Self {
            extent: u16::from_le_bytes([s0, s1]),
            state: State::of_octet(state),
            frequency,
            tag: u32::from_le_bytes([t0, t1, t2, t3]),
            pool: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            kept_at: u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            no_refresh_before: u64::from_le_bytes([q0, q1, q2, q3, q4, q5, q6, q7]),
            lifetime: u32::from_le_bytes([l0, l1, l2, l3]),
            len: u16::from_le_bytes([n0, n1]),
            hits,
            flags: QuestionFlags::of_octet(flags),
            has_failed: has_failed == 1,
        }
    }

    /// Writes this head over the first of these octets, or as much of it as a filler has room for.
    pub(super) fn write(&self, octets: &mut [u8]) {
        let mut head = [0; Self::LEN];
        let mut rest = &mut head[..];
        let mut put = |octets: &[u8]| {
            let (first, behind) = std::mem::take(&mut rest).split_at_mut(octets.len());
            first.copy_from_slice(octets);
            rest = behind;
        };
        put(&self.extent.to_le_bytes());
        put(&[self.state.to_octet(), self.frequency]);
        put(&self.tag.to_le_bytes());
        put(&self.pool.to_le_bytes());
        put(&self.kept_at.to_le_bytes());
        put(&self.no_refresh_before.to_le_bytes());
        put(&self.lifetime.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&[self.hits, self.flags.octet(), u8::from(self.has_failed)]);
        let len = octets.len().min(Self::LEN);
        octets[..len].copy_from_slice(&head[..len]);
    }

    /// Milliseconds since it was kept.
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.kept_at)
    }

    /// Whether its time to live is not over.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.age(now) < self.fresh_for()
    }

    /// Whether it is an answer that is still good for want of a better one.
    pub(super) fn is_stale(&self, now: u64, stale: Duration) -> bool {
        let past = self.age(now).checked_sub(self.fresh_for());
        self.state == State::Answer && past.is_some_and(|past| u128::from(past) < stale.as_millis())
    }

    /// Whether nobody will ever be given it again.
    pub(super) fn is_gone(&self, now: u64, stale: Duration) -> bool {
        self.state == State::Dead || !(self.is_fresh(now) || self.is_stale(now, stale))
    }

    /// For how long it is fresh, in milliseconds.
    pub(super) fn fresh_for(&self) -> u64 {
        u64::from(self.lifetime) * 1000
    }
}

impl State {
    /// The state as it is stored.
    pub(super) fn to_octet(self) -> u8 {
        match self {
            Self::Dead => 0,
            Self::Answer => 1,
            Self::Failure => 2,
            Self::Silence => 3,
        }
    }

    /// The state that is stored so.
    pub(super) fn of_octet(octet: u8) -> Self {
        match octet {
            1 => Self::Answer,
            2 => Self::Failure,
            3 => Self::Silence,
            _ => Self::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = Head {
            extent: 8192,
            state: State::Silence,
            frequency: 2,
            tag: 0xDEAD_BEEF,
            pool: u64::MAX - 1,
            kept_at: 1 << 41,
            no_refresh_before: 7,
            lifetime: 86_400,
            len: 65_535,
            hits: 255,
            flags: QuestionFlags::of_octet(6),
            has_failed: true,
        };
        let mut octets = [0xAA; Head::LEN + 1];
        head.write(&mut octets);
        assert_eq!((Head::read(&octets), octets[Head::LEN]), (head, 0xAA));
        let mut short = [0; 8];
        head.write(&mut short);
        assert_eq!(Head::read(&short).extent, 8192);
    }

    #[test]
    fn an_entry_is_fresh_then_stale_then_gone() {
        let check = |state: State, age: u64, expected: (bool, bool, bool)| {
            let head = Head { state, kept_at: 1000, lifetime: 10, ..Head::default() };
            let (now, stale) = (1000 + age, Duration::from_secs(5));
            assert_eq!((head.is_fresh(now), head.is_stale(now, stale), head.is_gone(now, stale)), expected, "{age}");
        };
        check(State::Answer, 0, (true, false, false));
        check(State::Answer, 9_999, (true, false, false));
        check(State::Answer, 10_000, (false, true, false));
        check(State::Answer, 14_999, (false, true, false));
        check(State::Answer, 15_000, (false, false, true));
        check(State::Failure, 9_999, (true, false, false));
        check(State::Failure, 10_000, (false, false, true));
    }
}
