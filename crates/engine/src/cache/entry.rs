//! One entry as it lies in a ring: a head of fixed length, then the cached reply.
//!
//! The reply begins with its folded question, which is part of the key, so nothing is stored twice.

use std::time::Duration;

use dns::QuestionFlags;

/// The kind of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// A removed entry that waits for the tail of its ring.
    #[default]
    Dead,
    /// A reply with data, or a negative answer.
    Answer,
    /// A SERVFAIL reply. Replies with other failure codes are not cached.
    Failure,
    /// No reply came; the entry holds only the question.
    Silence,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryHead {
    /// Units from this entry to the next.
    pub(super) extent: u16,
    pub(super) state: State,
    /// The number of hits, less the number of second chances in its ring, up to [`EntryHead::MAX_FREQUENCY`].
    pub(super) frequency: u8,
    pub(super) tag: u32,
    pub(super) pool: u64,
    pub(super) kept_at: u64,
    /// No race and no refresh runs for this entry before this time, in the same milliseconds as `kept_at`.
    pub(super) no_refresh_before: u64,
    pub(super) lifetime: u32,
    pub(super) len: u16,
    pub(super) hits: u8,
    pub(super) flags: QuestionFlags,
    /// True if `no_refresh_before` is set because a race failed, not because a refresh is running.
    pub(super) has_failed: bool,
}

impl EntryHead {
    pub(super) const LEN: usize = 41;

    /// The highest frequency of an entry: S3-FIFO's two bits.
    pub(super) const MAX_FREQUENCY: u8 = 3;

    pub(super) fn entry_len(reply_len: usize) -> usize {
        Self::LEN + reply_len
    }

    /// Reads the head at the start of these bytes. Fillers may be shorter than a head.
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

    /// Writes this head to the start of these bytes, as far as a filler has room for it.
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

    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.kept_at)
    }

    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.age(now) < self.fresh_for()
    }

    /// Returns true for an expired answer that may still be served stale.
    pub(super) fn is_stale(&self, now: u64, stale: Duration) -> bool {
        let past = self.age(now).checked_sub(self.fresh_for());
        self.state == State::Answer && past.is_some_and(|past| u128::from(past) < stale.as_millis())
    }

    /// Returns true if the entry will never be served again.
    pub(super) fn is_gone(&self, now: u64, stale: Duration) -> bool {
        self.state == State::Dead || !(self.is_fresh(now) || self.is_stale(now, stale))
    }

    pub(super) fn fresh_for(&self) -> u64 {
        u64::from(self.lifetime) * 1000
    }
}

impl State {
    pub(super) fn to_octet(self) -> u8 {
        match self {
            Self::Dead => 0,
            Self::Answer => 1,
            Self::Failure => 2,
            Self::Silence => 3,
        }
    }

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
        let head = EntryHead {
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
        let mut octets = [0xAA; EntryHead::LEN + 1];
        head.write(&mut octets);
        assert_eq!((EntryHead::read(&octets), octets[EntryHead::LEN]), (head, 0xAA));
        let mut short = [0; 8];
        head.write(&mut short);
        assert_eq!(EntryHead::read(&short).extent, 8192);
    }

    #[test]
    fn an_entry_is_fresh_then_stale_then_gone() {
        let check = |state: State, age: u64, expected: (bool, bool, bool)| {
            let head = EntryHead { state, kept_at: 1000, lifetime: 10, ..EntryHead::default() };
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
