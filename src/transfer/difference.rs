//! What changed between two versions of a zone (RFC 1995): found, applied, kept, condensed.
//!
//! ```text
//! old records ─┐                          ┌─▶ Journal ─▶ since(serial) ─▶ IXFR out
//!              ├─▶ Difference::between ───┤
//! new records ─┘                          └─▶ condensed ─▶ apply(old records) ─▶ new records
//!                        IXFR in ─────────────▶
//! ```
//!
//! Everything is strict: a difference that takes away what is not there, or adds what is, belongs to another version, and
//! whoever has it starts over with AXFR.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::records::{Records, Soa, compare};
use super::serial::Serial;
use crate::wire::RecordType;
use crate::zone::Record;

/// The step from one version of a zone to a later one. The SOA record of each version is the first of its side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The version that it starts from.
    from: Serial,
    /// The version that it leads to.
    to: Serial,
    /// What is to go, the old SOA first.
    removed: Records,
    /// What is to come, the new SOA first.
    added: Records,
}

impl Difference {
    /// Takes both sides, each with the SOA of its version first and no other.
    pub fn new(removed: Records, added: Records) -> Result<Self, Inexact> {
        let serial = |side: &Records| {
            let mut soas = side.iter().filter(|record| record.rtype == RecordType::SOA);
            let first = side.first().and_then(|record| Soa::of(&record)).ok_or(Inexact::NoSoa)?;
            if soas.by_ref().count() == 1 { Ok(first.serial) } else { Err(Inexact::NoSoa) }
        };
        let (from, to) = (serial(&removed)?, serial(&added)?);
        Ok(Self { from, to, removed, added })
    }

    /// What changed from one whole version to another, each in any order and without repetition.
    pub fn between<'a>(
        old: impl IntoIterator<Item = Record<'a>>,
        new: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<Self, Inexact> {
        let (old, new) = (sorted(old), sorted(new));
        let (mut removed, mut added) = (Records::new(), Records::new());
        // The SOA records come first, whether or not they differ: they name the versions.
        old.iter().filter(|record| record.rtype == RecordType::SOA).for_each(|record| removed.push(*record));
        new.iter().filter(|record| record.rtype == RecordType::SOA).for_each(|record| added.push(*record));
        merge(&old, &new, |found| match found {
            Found::Left(record) if record.rtype != RecordType::SOA => removed.push(record),
            Found::Right(record) if record.rtype != RecordType::SOA => added.push(record),
            Found::Left(_) | Found::Right(_) | Found::Both => {}
        });
        Self::new(removed, added)
    }

    /// Several steps as one. What one step adds and a later one takes away is in neither side.
    pub fn condensed<'a>(steps: impl IntoIterator<Item = &'a Self>) -> Result<Self, Inexact> {
        let mut steps = steps.into_iter();
        let first = steps.next().ok_or(Inexact::NoSoa)?;
        let mut net: BTreeMap<Key<'a>, Change> = BTreeMap::new();
        for (key, change) in first.changes() {
            if net.insert(key, change).is_some() {
                return Err(Inexact::Repeated);
            }
        }
        let mut last = first;
        for step in steps {
            if step.from != last.to {
                return Err(Inexact::NotInARow);
            }
            for (key, change) in step.changes() {
                match net.remove(&key) {
                    None => drop(net.insert(key, change)),
                    // Gone again, or back again: as if nothing had been.
                    Some(before) if before != change => {}
                    Some(_) => return Err(Inexact::Repeated),
                }
            }
            last = step;
        }
        let side = |soa: Option<Record<'a>>, wanted: Change| {
            let rest = net.iter().filter(move |(_, change)| **change == wanted).map(|(key, _)| key.0);
            soa.into_iter().chain(rest).collect::<Records>()
        };
        Self::new(side(first.removed.first(), Change::Removed), side(last.added.first(), Change::Added))
    }

    /// The new version: the old one, in any order, changed. The new SOA comes first.
    pub fn apply<'a>(&'a self, old: impl IntoIterator<Item = Record<'a>>) -> Result<Records, Inexact> {
        let old = sorted(old);
        let (removed, added) = (sorted(self.removed.iter()), sorted(self.added.iter()));
        let mut left = Vec::with_capacity(old.len());
        let mut missing = false;
        merge(&old, &removed, |found| match found {
            Found::Left(record) => left.push(record),
            Found::Right(_) => missing = true,
            Found::Both => {}
        });
        if missing {
            return Err(Inexact::Missing);
        }
        let mut new: Records = self.added.first().into_iter().collect();
        let mut repeated = false;
        merge(&left, &added, |found| match found {
            Found::Left(record) => new.push(record),
            Found::Right(record) if record.rtype == RecordType::SOA => {}
            Found::Right(record) => new.push(record),
            Found::Both => repeated = true,
        });
        // Two adjacent equals, or a second SOA that stayed, would be a zone that nobody can load.
        if repeated || left.iter().any(|record| record.rtype == RecordType::SOA) {
            return Err(Inexact::Repeated);
        }
        Ok(new)
    }

    /// The version that it starts from.
    pub fn from(&self) -> Serial {
        self.from
    }

    /// The version that it leads to.
    pub fn to(&self) -> Serial {
        self.to
    }

    /// What is to go, the old SOA first.
    pub fn removed(&self) -> &Records {
        &self.removed
    }

    /// What is to come, the new SOA first.
    pub fn added(&self) -> &Records {
        &self.added
    }

    /// About how many octets of memory it takes, which is also about what it takes on the way.
    pub fn size(&self) -> usize {
        self.removed.size() + self.added.size()
    }

    /// All changes but those of the SOA, in which versions always differ.
    fn changes(&self) -> impl Iterator<Item = (Key<'_>, Change)> {
        let removed = self.removed.iter().skip(1).map(|record| (Key(record), Change::Removed));
        removed.chain(self.added.iter().skip(1).map(|record| (Key(record), Change::Added)))
    }
}

/// Why a difference does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inexact {
    /// A side has no SOA record first, or more than one.
    NoSoa,
    /// What is to go is not there.
    Missing,
    /// What is to come is there already, or goes or comes twice.
    Repeated,
    /// A step does not start where the one before it ended.
    NotInARow,
}

/// The last versions of a zone, as the steps between them. Bounded: the oldest go first. Copies share the steps.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Steps in a row, the oldest first.
    steps: VecDeque<Arc<Difference>>,
    /// Octets that they take together.
    size: usize,
    /// How many steps are kept.
    most_steps: usize,
    /// How many octets are kept.
    most_octets: usize,
}

impl Journal {
    /// A journal that keeps the last steps, so many at most, of so many octets together at most.
    pub fn new(most_steps: usize, most_octets: usize) -> Self {
        Self { steps: VecDeque::new(), size: 0, most_steps, most_octets }
    }

    /// Keeps a step. One that does not start where the last ended makes the earlier ones worthless.
    pub fn push(&mut self, step: Difference) {
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            self.steps.clear();
            self.size = 0;
        }
        self.size += step.size();
        self.steps.push_back(Arc::new(step));
        while self.steps.len() > self.most_steps || self.size > self.most_octets {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.size -= oldest.size();
        }
    }

    /// The steps from this version to the newest, at least one; `None` if it is not known.
    pub fn since(&self, serial: Serial) -> Option<impl Iterator<Item = &Difference> + Clone> {
        // The last one that fits: a serial may come around again.
        let start = self.steps.iter().rposition(|step| step.from == serial)?;
        Some(self.steps.range(start..).map(|step| &**step))
    }

    /// How many steps are kept.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// About how many octets of memory it takes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// A record as the key of a map.
#[derive(Clone, Copy)]
struct Key<'a>(Record<'a>);

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It goes.
    Removed,
    /// It comes.
    Added,
}

/// Where a record was found.
enum Found<'a> {
    /// Among the first only.
    Left(Record<'a>),
    /// Among the second only.
    Right(Record<'a>),
    /// Among both.
    Both,
}

/// The records in order.
fn sorted<'a>(records: impl IntoIterator<Item = Record<'a>>) -> Vec<Record<'a>> {
    let mut all: Vec<_> = records.into_iter().collect();
    all.sort_unstable_by(compare);
    all
}

/// Goes through two ordered lists as one.
fn merge<'a>(left: &[Record<'a>], right: &[Record<'a>], mut on_found: impl FnMut(Found<'a>)) {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare(a, b),
        };
        let from_left = if order.is_le() { left.next() } else { None };
        let from_right = if order.is_ge() { right.next() } else { None };
        match (from_left, from_right) {
            (Some(a), None) => on_found(Found::Left(*a)),
            (None, Some(b)) => on_found(Found::Right(*b)),
            (Some(_), Some(_)) => on_found(Found::Both),
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests;
