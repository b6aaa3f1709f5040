//! Differences between two versions of a zone (RFC 1995): found, applied, kept, condensed.
//!
//! ```text
//! old records ─┐                          ┌─▶ Journal ─▶ since(serial) ─▶ IXFR out
//!              ├─▶ Difference::between ───┤
//! new records ─┘                          └─▶ condensed ─▶ apply(old records) ─▶ new records
//!                        IXFR in ─────────────▶
//! ```
//!
//! Everything is strict: a difference that removes a missing record, or adds a present one, belongs to
//! another version, and the secondary starts over with AXFR.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::{Record, Records};
use dns::RecordType;

use super::records::{Serial, Soa, compare};

/// The step from one version of a zone to a later one. Each side starts with its SOA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The serial of the old version.
    pub from: Serial,
    /// The serial of the new version.
    pub to: Serial,
    /// The removed records, the old SOA first.
    pub removed: Records,
    /// The added records, the new SOA first.
    pub added: Records,
}

impl Difference {
    /// Makes a difference of both sides, each with exactly one SOA, which comes first.
    pub(crate) fn new(removed: Records, added: Records) -> Result<Self, Inexact> {
        let serial = |side: &Records| {
            let soas = side.iter().filter(|record| record.rtype == RecordType::SOA).count();
            let first = side.first().and_then(|record| Soa::of(&record)).filter(|_| soas == 1);
            first.map(|soa| soa.serial).ok_or(Inexact::NoSoa)
        };
        let (from, to) = (serial(&removed)?, serial(&added)?);
        Ok(Self { from, to, removed, added })
    }

    /// Computes the difference of two whole versions, each in any order and without repetition.
    pub fn between<'a>(
        old: impl IntoIterator<Item = Record<'a>>,
        new: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<Self, Inexact> {
        let (old, new) = (sorted(old), sorted(new));
        // The SOA records come first even if they are equal, because they name the versions.
        let soas = |side: &[Record<'a>]| -> Records {
            side.iter().copied().filter(|record| record.rtype == RecordType::SOA).collect()
        };
        let (mut removed, mut added) = (soas(&old), soas(&new));
        merge(&old, &new, |found| match found {
            MergeStep::Left(record) if record.rtype != RecordType::SOA => removed.push(record),
            MergeStep::Right(record) if record.rtype != RecordType::SOA => added.push(record),
            MergeStep::Left(_) | MergeStep::Right(_) | MergeStep::Both => {}
        });
        Self::new(removed, added)
    }

    /// Merges several steps. A record that one step adds and a later one removes is in neither side.
    pub fn condensed<'a>(steps: impl IntoIterator<Item = &'a Self>) -> Result<Self, Inexact> {
        let mut steps = steps.into_iter().peekable();
        let first = *steps.peek().ok_or(Inexact::NoSoa)?;
        // The net changes, in the order of `compare`, with the record and true if it is added.
        let mut net: BTreeMap<_, (Record<'a>, bool)> = BTreeMap::new();
        let (mut last, mut reached) = (first, first.from);
        for step in steps {
            if step.from != reached {
                return Err(Inexact::NotInARow);
            }
            let removed = step.removed.iter().skip(1).map(|record| (record, false));
            for (record, is_added) in removed.chain(step.added.iter().skip(1).map(|record| (record, true))) {
                let key = (record.owner.to_ascii_lowercase(), record.rtype, record.rdata, record.ttl);
                match net.remove(&key) {
                    None => drop(net.insert(key, (record, is_added))),
                    Some((_, was_added)) if was_added != is_added => {}
                    Some(_) => return Err(Inexact::Repeated),
                }
            }
            (last, reached) = (step, step.to);
        }
        let side = |soa: Option<Record<'a>>, wanted: bool| {
            let rest = net.values().filter(move |(_, is_added)| *is_added == wanted).map(|(record, _)| *record);
            soa.into_iter().chain(rest).collect::<Records>()
        };
        Self::new(side(first.removed.first(), false), side(last.added.first(), true))
    }

    /// Applies the difference to the old version, in any order, and returns the new one with its SOA first.
    pub fn apply<'a>(&'a self, old: impl IntoIterator<Item = Record<'a>>) -> Result<Records, Inexact> {
        let old = sorted(old);
        let (removed, added) = (sorted(self.removed.iter()), sorted(self.added.iter()));
        let mut left = Vec::with_capacity(old.len());
        let mut missing = false;
        merge(&old, &removed, |found| match found {
            MergeStep::Left(record) => left.push(record),
            MergeStep::Right(_) => missing = true,
            MergeStep::Both => {}
        });
        if missing {
            return Err(Inexact::Missing);
        }
        let mut new: Records = self.added.first().into_iter().collect();
        let mut repeated = false;
        merge(&left, &added, |found| match found {
            MergeStep::Left(record) => new.push(record),
            MergeStep::Right(record) if record.rtype == RecordType::SOA => {}
            MergeStep::Right(record) => new.push(record),
            MergeStep::Both => repeated = true,
        });
        // A repeated record, or a second SOA that stayed, would be a zone that does not load.
        if repeated || left.iter().any(|record| record.rtype == RecordType::SOA) {
            return Err(Inexact::Repeated);
        }
        Ok(new)
    }

    /// Returns the approximate bytes of memory, which is also the approximate size of the transfer.
    pub(crate) fn size(&self) -> usize {
        self.removed.size() + self.added.size()
    }
}

/// The reason that a difference does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inexact {
    /// A side does not start with an SOA record, or has more than one.
    #[error("a side without its SOA record")]
    NoSoa,
    /// A removed record is not there.
    #[error("a deleted record does not exist")]
    Missing,
    /// An added record is there already, or a record is removed or added twice.
    #[error("an added record exists already")]
    Repeated,
    /// A step does not start at the end of the previous one.
    #[error("steps that do not follow each other")]
    NotInARow,
}

/// The last steps between versions of a zone. The oldest are dropped. Copies share the steps.
#[derive(Clone, Debug)]
pub struct Journal {
    steps: VecDeque<Arc<Difference>>,
    size: usize,
    most_steps: usize,
    most_octets: usize,
}

impl Journal {
    /// Makes a journal with a maximum of steps and a maximum of bytes.
    pub fn new(most_steps: usize, most_octets: usize) -> Self {
        Self { steps: VecDeque::new(), size: 0, most_steps, most_octets }
    }

    /// Appends a step. If it does not start at the end of the last one, the earlier ones are dropped.
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

    /// Returns the steps from this version to the newest, at least one; `None` if the version is not known.
    pub fn since(&self, serial: Serial) -> Option<impl Iterator<Item = &Difference> + Clone> {
        // The last one that fits, because serials repeat after a wraparound.
        let start = self.steps.iter().rposition(|step| step.from == serial)?;
        Some(self.steps.range(start..).map(|step| &**step))
    }
}

enum MergeStep<'a> {
    Left(Record<'a>),
    Right(Record<'a>),
    Both,
}

fn sorted<'a>(records: impl IntoIterator<Item = Record<'a>>) -> Vec<Record<'a>> {
    let mut all: Vec<_> = records.into_iter().collect();
    all.sort_unstable_by(compare);
    all
}

fn merge<'a>(left: &[Record<'a>], right: &[Record<'a>], mut on_found: impl FnMut(MergeStep<'a>)) {
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
            (Some(a), None) => on_found(MergeStep::Left(*a)),
            (None, Some(b)) => on_found(MergeStep::Right(*b)),
            (Some(_), Some(_)) => on_found(MergeStep::Both),
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests;
